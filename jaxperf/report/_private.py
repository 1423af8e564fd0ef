"""What a folder says of the files it was made from: names and digests, never where they lie.

Places hold names of users, and often of patients.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from pydantic import BaseModel

# An absolute path in a sentence, up to its last part, which is kept. The slash of a unit such as
# ml/min stands behind a letter.
_PLACE = re.compile(r"""(?<![\w./~\\-])(?:~\w*|[A-Za-z]:)?[/\\](?:[^\s/\\:;,"'()]+[/\\])+""")
# `~alice/scan.nii`, and not `~50 % LAD`.
_OF_A_USER = re.compile(r"~[\w.-]*[/\\]")
Said = TypeVar("Said", bound=BaseModel)


class Inputs:
    """The files that the settings of a run name.

    **Arguments:** `content`, the settings as YAML would hold them; `data`, the folder that relative
    paths start from; `more`, files that no setting names.
    """

    def __init__(self, content: Any, data: Path, more: tuple[Path, ...] = ()) -> None:
        named = {data / text for text in _strings(content) if _is_file(data / text)}
        # now, as these are what the run will read
        self._files = {path: _digest(path) for path in sorted({*named, *more})}
        self._places = {form for place in (data, Path.cwd(), Path.home()) for form in _forms(place)}

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file by its name; of files of one name, by their number too."""
        found: dict[str, str] = {}
        for path, digest in self._files.items():
            name, number = path.name, 2
            while found.get(name, digest) != digest:
                name, number = f"{path.name} ({number})", number + 1
            found[name] = digest
        return found

    def sentence(self, text: str) -> str:
        """A text without the places of files."""
        files = {form: path.name for path in self._files for form in _forms(path)}
        for form in sorted(files, key=len, reverse=True):
            text = re.sub(rf"(?<![\w./\\-]){re.escape(form)}(?!\w)", files[form], text)
        for form in sorted(self._places, key=len, reverse=True):
            # not the root alone, where a process may have been started, nor the folder itself
            if len(Path(form).parts) > Path(form).is_absolute():
                begins = rf"(?<![\w./\\-]){re.escape(form)}"
                text = re.sub(rf"{begins}[/\\]", "", text)
                text = re.sub(rf"{begins}(?!\w)", Path(form).anchor or "the data folder", text)
        return without_places(text)

    def summary(self, said: Said) -> Said:
        """What a run says, without the places of files in its texts."""
        return type(said).model_validate(_mapped(said.model_dump(), self.sentence))


def settings_without_places(content: Any) -> Any:
    """Settings whose paths are those below the data folder, or else names alone."""
    return _mapped(content, _named)


def without_places(content: Any) -> Any:
    """Texts of which absolute paths are the names of their files."""
    return _mapped(content, lambda text: _PLACE.sub("", text))


def _named(text: str) -> str:
    posix, windows = PurePosixPath(text), PureWindowsPath(text)
    if posix.is_absolute() or ".." in posix.parts or _OF_A_USER.match(text):
        return posix.name
    return windows.name if windows.is_absolute() or ".." in windows.parts else text


def _forms(path: Path) -> set[str]:
    """How texts may spell a path."""
    plain = {str(path), os.path.normpath(path)} - {"."}
    return plain | {os.path.abspath(path), os.path.realpath(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_file(path: Path) -> bool:
    # a text may be longer than a name can be, or hold what none can
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _strings(content: Any) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for value in content.values():
            yield from _strings(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _strings(value)


def _mapped(content: Any, change: Any) -> Any:
    if isinstance(content, str):
        return change(content)
    if isinstance(content, dict):
        return {key: _mapped(value, change) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_mapped(value, change) for value in content]
    return content
