"""The folder of a run: complete before it gets its name."""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from .._misc import InputError


@contextmanager
def run_folder(
    out: str | os.PathLike, overwrite: bool, marker: str = "summary.json"
) -> Iterator[Path]:
    """A temporary sibling folder that takes the name `out` once the block has succeeded.

    What a killed run left beside `out` is cleared away first.

    **Arguments:** `marker`: the file by which a folder of this kind is known.

    **Errors:** [`InputError`][] where `out` exists and is not to be replaced, is no run folder, or
    is being written by another run.
    """
    out = Path(out).absolute()
    with _alone(out):
        _clear(out)
        _refuse_existing(out, overwrite, marker)
        temporary = out.with_name(f".{out.name}-{secrets.token_hex(4)}")
        try:
            temporary.mkdir()
            yield temporary
            # somebody else may have written there meanwhile
            _refuse_existing(out, overwrite, marker)
            _put(temporary, out)
        finally:
            _clear(out)


def _put(temporary: Path, out: Path) -> None:
    """Give a complete folder its name, and set what bears the name now aside until then."""
    aside = temporary.with_name(f"{temporary.name}-old")
    if out.exists():
        out.rename(aside)
    try:
        temporary.rename(out)
    except OSError as error:
        # Somebody has filled the place between the two: nothing of ours may be lost for that.
        kept = [path for path in (temporary, aside) if path.exists()]
        for path in kept:
            path.rename(path.with_name(path.name.removeprefix(".")))
        raise InputError(
            f"it was filled by something else ({error.strerror})",
            where=str(out),
            expected="a place that only this run writes to",
            fix=f"The run is in {kept[0].name.removeprefix('.')} beside it",
        ) from None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """The place `out` for this process; the system ends the lock with the process."""
    path = out.with_name(f".{out.name}.lock")
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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


def _clear(out: Path) -> None:
    """Remove the folders of runs that ended early, and end a replacement that was begun.

    Only the holder of the place may call it: of any other run nothing is in use.
    """
    of_run = re.compile(rf"\.{re.escape(out.name)}-[0-9a-f]{{8}}(-old)?")
    found = [path for path in out.parent.iterdir() if of_run.fullmatch(path.name)]
    for old in found:
        new = old.with_name(old.name.removesuffix("-old"))
        if old.name.endswith("-old") and new.exists() and not _is_taken(out):
            # The run ended between its two renames, so its own folder is complete. An old one
            # alone had been replaced and was being deleted.
            if out.exists():
                out.rmdir()
            new.rename(out)
    for path in found:
        shutil.rmtree(path, ignore_errors=True)


def _is_taken(out: Path) -> bool:
    return out.exists() and not (out.is_dir() and not any(out.iterdir()))


def _refuse_existing(out: Path, overwrite: bool, marker: str) -> None:
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
    # a report is kept in a run folder too, but is not the whole of it
    other = marker != "summary.json" and (out / "summary.json").is_file()
    if other or not (out / marker).is_file():
        raise InputError(
            "it is the folder of a run" if other else f"there is no {marker} in it",
            where=str(out),
            expected="a folder of the same kind, which may be replaced",
            fix="Choose another name",
        )
