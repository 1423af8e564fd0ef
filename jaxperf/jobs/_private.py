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
Said = TypeVar("Said", bound=BaseModel)


class Inputs:
    """The files that the settings of a run name.

    **Arguments:** `content`, the settings as YAML would hold them; `data`, the folder that relative
    paths start from; `more`, files that no setting names.
    """

    def __init__(self, content: Any, data: Path, more: tuple[Path, ...] = ()) -> None:
        named = {data / text for text in _strings(content) if _is_file(data / text)}
        self._files = sorted({*named, *more})
        places = [data, Path.cwd(), Path.home()]
        self._places = {text for p in places for text in (os.path.abspath(p), os.path.realpath(p))}

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file by its name; of files of one name, by their number too."""
        found: dict[str, str] = {}
        for path in self._files:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name, number = path.name, 2
            while found.get(name, digest) != digest:
                name, number = f"{path.name} ({number})", number + 1
            found[name] = digest
        return found

    def sentence(self, text: str) -> str:
        """A text without the places of files."""
        for path in self._files:
            for place in (os.path.abspath(path), os.path.realpath(path)):
                text = text.replace(place, path.name)
        for place in sorted(self._places, key=len, reverse=True):
            # not the root alone, where a process may have been started
            if len(Path(place).parts) > 1:
                text = re.sub(rf"{re.escape(place)}(?=[/\\])[/\\]", "", text)
                text = re.sub(rf"{re.escape(place)}(?!\w)", Path(place).anchor, text)
        return _PLACE.sub("", text)

    def summary(self, said: Said) -> Said:
        """What a run says, without the places of files in its texts."""
        return type(said).model_validate(_mapped(said.model_dump(), self.sentence))


def settings_without_places(content: Any) -> Any:
    """Settings whose paths are those below the data folder, or else names alone."""
    return _mapped(content, _named)


def _named(text: str) -> str:
    windows = PureWindowsPath(text)
    if PurePosixPath(text).is_absolute() or text.startswith(("~", "..")):
        return PurePosixPath(text).name
    return windows.name if windows.is_absolute() else text


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
