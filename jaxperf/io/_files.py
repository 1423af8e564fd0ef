"""Files: readable before they are parsed, and complete before they get their name."""

import codecs
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .._misc import InputError


def readable_file(path: str | os.PathLike, expected: str) -> Path:
    """The path of a file that exists and is not empty.

    **Errors:** [`InputError`][] naming the path.
    """
    path = Path(path)
    where = str(path)
    if not path.is_file():
        what = "it is a folder" if path.is_dir() else "there is no such file"
        raise InputError(what, where=where, expected=expected, fix="Check the path")
    if path.stat().st_size == 0:
        raise InputError("the file is empty", where=where, expected=expected, fix="Export it again")
    return path


def read_lines(path: str | os.PathLike, expected: str) -> list[str]:
    """The lines of a text file, UTF-8 or what a byte order mark says.

    **Errors:** [`InputError`][] where the file is absent, empty or no text.
    """
    path = readable_file(path, expected)
    try:
        raw = path.read_bytes()
        marked = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return raw.decode("utf-16" if marked else "utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"it is no text file (byte {error.start})",
            where=str(path),
            expected=expected,
            fix="Check that this is the right file",
        ) from error


def check_suffix(path: str | os.PathLike, suffix: tuple[str, ...]) -> Path:
    """The path, where its name ends in one of the suffixes."""
    path = Path(path)
    if not path.name.lower().endswith(suffix):
        raise InputError(
            f"the name ends in {path.suffix!r}",
            where=str(path),
            expected=f"a name that ends in {' or '.join(suffix)}",
            fix="Rename the file or choose the function for its format",
        )
    return path


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary name beside `path`, which takes the name `path` once the block has succeeded.

    A reader never meets half a file, and a failed run leaves an earlier result as it was. The
    temporary name keeps the suffix, because writers choose the format by it.

    **Example:**

    ```python
    import jaxperf as jp
    with jp.io.replacing("notes.txt") as temporary:
        temporary.write_text("whole or not at all")
    ```
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise InputError(
            "its folder does not exist",
            where=str(path),
            expected="a path in an existing folder",
            fix=f"Create {path.parent}",
        )
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    temporary = path.with_name(f".writing-{secrets.token_hex(6)}{suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
