"""The folder of a run: complete before it gets its name, and known by a list of what is in it."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

from filelock import FileLock, Timeout

from .._misc import InputError
from ..io import replacing

Kind = Literal["run", "fit", "1-D run", "forest report"]
# What a folder of ours holds besides its results: the format, the kind, and each file's digest. A
# name says nothing; people have files called summary.json too.
_LIST = "written.json"
_FORMAT = "jaxperf folder"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_Say: TypeAlias = Callable[[str], None]


@contextmanager
def run_folder(
    out: str | os.PathLike,
    overwrite: bool,
    kind: Kind = "run",
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Path]:
    """A temporary sibling folder that takes the name `out` once the block has succeeded.

    It lists what was written in `written.json`. Where it replaces an older one, the files on that
    one's list go; all others stay. What a killed run left beside `out` is cleared away first.

    **Arguments:** `kind`: a folder is replaced by one of the same kind only; `say`: is told which
    files of other people stay.

    **Errors:** [`InputError`][] where `out` exists and is not to be replaced, is no such folder,
    holds a file of ours that was changed since, or is being written by another run.
    """
    # A link stays where it is, and what it leads to is replaced.
    out = Path(os.path.realpath(out))
    if not out.name:
        raise InputError(
            "it is the root of the file system",
            where=str(out),
            expected="a name for a run folder",
            fix="Choose another place for --out",
        )
    with alone(out):
        _clear(out, say)
        _refuse_existing(out, overwrite, kind)
        temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
        try:
            temporary.mkdir()
            _write_list(temporary, kind)
            yield temporary
            _write_list(temporary, kind)
            # somebody else may have written there meanwhile
            try:
                _refuse_existing(out, overwrite, kind)
            except InputError as error:
                raise _kept_beside(error.what, out, temporary) from None
            _put(temporary, out, say)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise InputError(
                f"there is no room for it ({error.strerror})",
                where=str(out),
                expected="a disk with room for the folder",
                fix="Make room, or choose another place for --out",
            ) from None
        finally:
            _clear(out, say)


def _files(folder: Path) -> list[str]:
    """Everything in a folder that is no folder, by its path from there; no link is followed."""
    found = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        found += [Path(parent, name).relative_to(folder).as_posix() for name in [*files, *links]]
    return sorted(found)


def _digest(path: Path) -> str | None:
    """The digest of a file's content; None for what is no file."""
    if path.is_symlink() or not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_list(folder: Path, kind: Kind) -> None:
    _write(folder, kind, {name: _digest(folder / name) for name in _files(folder) if name != _LIST})


def _write(folder: Path, kind: str, files: Mapping[str, str | None]) -> None:
    text = json.dumps({"format": _FORMAT, "kind": kind, "files": files}, indent=2)
    with replacing(folder / _LIST) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def written_files(folder: Path, but: str) -> tuple[str, dict[str, str]]:
    """What a folder of ours is, and the digest of each file that its run has written.

    **Arguments:** `but`, a file that is left out.

    **Errors:** [`InputError`][] for any other folder, and for one whose files changed since.
    """
    said = _read_list(folder)
    if said is None:
        raise InputError(
            "it is no folder that jaxperf wrote",
            where=str(folder),
            expected="a run folder",
            fix="Check the path, or run the case again with this version",
        )
    kind, listed = said
    files = {name: digest for name, digest in listed.items() if digest and name != but}
    missing = [name for name in files if not os.path.lexists(folder / name)]
    if changed := [*missing, *_changed(folder, files)]:
        raise InputError(
            f"{_some(changed)} {'are missing or ' if missing else ''}changed since the {kind} was "
            "written",
            where=str(folder),
            expected="files as they were written",
            fix="Restore them, or run the case again",
        )
    return kind, files


def is_run_folder(folder: Path) -> bool:
    """Whether jaxperf wrote a folder."""
    return _read_list(folder) is not None


def is_as_written(folder: Path, name: str) -> bool:
    """Whether a file is on the list of its folder, and unchanged."""
    said = _read_list(folder)
    return said is not None and said[1].get(name, "") == _digest(folder / name)


def list_file(folder: Path, name: str) -> None:
    """Put a file that was written after the run on the list of its folder."""
    said = _read_list(folder)
    if said is None:
        raise InputError(
            "its list of files was taken away",
            where=str(folder),
            expected="a run folder that nobody else writes to",
            fix="Run the case again",
        )
    _write(folder, said[0], {**said[1], name: _digest(folder / name)})


def _read_list(folder: Path) -> tuple[str, dict[str, str]] | None:
    """Kind and files of a folder of ours; None for any other."""
    try:
        said = json.loads((folder / _LIST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict) or said.get("format") != _FORMAT:
        return None
    kind, files = said.get("kind"), said.get("files")
    return (kind, files) if isinstance(kind, str) and isinstance(files, dict) else None


def _put(temporary: Path, out: Path, say: _Say) -> None:
    """Give a complete folder its name, and set what bears the name now aside until then."""
    aside = temporary.with_name(f"{temporary.name}-old")
    if out.exists():
        out.rename(aside)
    try:
        temporary.rename(out)
    except OSError as error:
        # somebody has filled the place between the two
        what = f"it was filled by something else ({error.strerror})"
        raise _kept_beside(what, out, temporary, aside) from None
    _retire(aside, out, say)


def _kept_beside(what: str, out: Path, *folders: Path) -> InputError:
    """A complete run that cannot have its name is not lost: it and others stay beside `out`."""
    kept = [path for path in folders if path.exists()]
    for path in kept:
        path.rename(path.with_name(path.name.removeprefix(".")))
    return InputError(
        what,
        where=str(out),
        expected="a place that only this run writes to",
        fix=f"The run is in {kept[0].name.removeprefix('.')} beside it",
    )


def _retire(aside: Path, out: Path, say: _Say) -> None:
    """Delete what we wrote into a folder that was replaced; everything else moves into `out`.

    What finds its name taken there stays in a folder beside `out`.
    """
    said = _read_list(aside)
    if said is None:
        _remove_empty(aside)
        return
    moved = []
    for name in _files(aside):
        # a file that cannot be removed or moved is left over, and said
        with suppress(OSError):
            if name == _LIST:
                continue
            if said[1].get(name) is not None and said[1][name] == _digest(aside / name):
                (aside / name).unlink()
            elif out.is_dir() and not os.path.lexists(out / name):
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                (aside / name).rename(out / name)
                moved.append(name)
    if moved:
        say(f"  {out}: not ours, and still there: {_some(moved)}")
    left = [name for name in _files(aside) if name != _LIST]
    # last, so that the next run ends what one that was killed here has begun
    (aside / _LIST).unlink()
    if left:
        beside = aside.with_name(aside.name.removeprefix("."))
        aside.rename(beside)
        say(f"  {beside}: not ours, moved there: {_some(left)}")
    else:
        _remove_empty(aside)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _remove_empty(folder: Path) -> None:
    """Remove a folder in which there is nothing but folders."""
    if not _files(folder):
        for parent, _, _ in os.walk(folder, topdown=False):
            with suppress(OSError):
                os.rmdir(parent)


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """The place `out` for this process; the system ends the lock with the process."""
    path = out.with_name(f".{out.name}.lock")
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            # the longest name that will be needed
            os.lstat(out.with_name(f".{out.name}-01234567-old"))
        lock.acquire(blocking=False)
    except Timeout:
        raise InputError(
            "another run is writing it",
            where=str(out),
            expected="a name that no run is using",
            fix="Wait for that run or choose another name",
        ) from None
    except OSError as error:
        raise InputError(
            f"it cannot be created ({error.strerror})",
            where=str(out),
            expected="a folder that may be written",
            fix="Choose another place for --out",
        ) from None
    try:
        yield
    finally:
        # before the lock ends: who has opened the file meanwhile then knows that it is gone;
        # Windows removes no open file
        with suppress(PermissionError):
            path.unlink(missing_ok=True)
        lock.release()


def _clear(out: Path, say: _Say) -> None:
    """Remove the folders of runs that ended early, and end a replacement that was begun.

    Only the holder of the place may call it: of any other run nothing is in use.
    """
    of_run = re.compile(rf"\.{re.escape(out.name)}-[0-9a-f]{{8}}(-old)?")
    found = [path for path in out.parent.iterdir() if of_run.fullmatch(path.name)]
    for old in found:
        new = old.with_name(old.name.removesuffix("-old"))
        if old.name.endswith("-old") and _read_list(new) is not None and not _is_taken(out):
            # The run ended between its two renames, so its own folder is complete.
            if out.exists():
                out.rmdir()
            new.rename(out)
    for path in found:
        if path.name.endswith("-old") and path.exists():
            _retire(path, out, say)
        elif path.is_dir() and (_read_list(path) is not None or not any(path.iterdir())):
            # of a run that ended early: ours alone while it is hidden
            shutil.rmtree(path, ignore_errors=True)


def _is_taken(out: Path) -> bool:
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _refuse_existing(out: Path, overwrite: bool, kind: Kind) -> None:
    if not _is_taken(out):
        return
    if not overwrite:
        raise InputError(
            "it exists",
            where=str(out),
            expected="a name for a new run folder",
            fix="Choose another name or pass --overwrite",
        )
    # a typing error in --out must not delete someone's data
    said = _read_list(out)
    if said is None or said[0] != kind:
        raise InputError(
            "it is no folder that jaxperf wrote" if said is None else f"it holds a {said[0]}",
            where=str(out),
            expected=f"the folder of a {kind}, which may be replaced",
            fix="Choose another name",
        )
    if changed := _changed(out, said[1]):
        raise InputError(
            f"{_some(changed)} changed since the {kind} was written",
            where=str(out),
            expected="files as they were written, which may be replaced",
            fix="Keep them elsewhere, or choose another name",
        )


def _changed(folder: Path, files: Mapping[str, str | None]) -> list[str]:
    """The files on a list that were changed since."""
    return [
        name
        for name, digest in files.items()
        if os.path.lexists(folder / name) and _digest(folder / name) != digest
    ]
