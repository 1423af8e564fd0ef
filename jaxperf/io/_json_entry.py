"""An object inside a JSON file: its values with checks that name the file and the key."""

from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .._misc import InputError


@dataclass(frozen=True)
class Entry:
    """A value of a JSON file and where it stands.

    **Errors:** [`InputError`][] of all its methods, naming file and key.
    """

    value: Any
    where: str

    def refuse(self, what: str, expected: str, fix: str) -> NoReturn:
        raise InputError(what, where=self.where, expected=expected, fix=fix)

    def mapping(self) -> None:
        """Refuse what is no object."""
        if not isinstance(self.value, dict):
            self.refuse(
                f"it is {_said(self.value)}", "an object with keys", "Check that it is complete"
            )

    def _at(self, key: str) -> Any:
        self.mapping()
        if key not in self.value:
            self.refuse(f"the key {key} is missing", key, f"Add {key}")
        return self.value[key]

    def part(self, key: str) -> "Entry":
        """An object in it; empty where it is left out."""
        self.mapping()
        part = Entry(self.value.get(key, {}), f"{self.where}, {key}")
        part.mapping()
        return part

    def listed(self, key: str) -> list[Any]:
        """A list."""
        value = self._at(key)
        if not isinstance(value, list):
            self.refuse(f"{key} is {_said(value)}", "a list", "Write it in brackets")
        return value

    def entries(self, key: str) -> list["Entry"]:
        """A list of objects, at least one."""
        value = self.listed(key)
        if not value:
            self.refuse(f"{key} is empty", "at least one", f"Fill {key}")
        found = [Entry(x, f"{self.where}, {key}[{i}]") for i, x in enumerate(value)]
        for entry in found:
            entry.mapping()
        return found

    def text(self, key: str) -> str:
        """A text that is not empty."""
        value = self._at(key)
        if not isinstance(value, str) or not value:
            self.refuse(f"{key} is {_said(value)}", "a text", "Write it in quotation marks")
        return value

    def whole(self, key: str) -> int:
        """A whole number."""
        value = self._at(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(f"{key} is {_said(value)}", "a whole number", "Correct it")
        return value

    def number(self, key: str, default: float | None = None, *, least: float = -np.inf) -> float:
        """A finite number; `default` where the key is left out."""
        if default is not None and key not in self.value:
            return default
        value = self._at(key)
        if not _is_number(value) or value < least:
            expected = "a finite number" if least == -np.inf else f"a number from {least:g} on"
            self.refuse(f"{key} is {_said(value)}", expected, "Correct it")
        return float(value)

    def numbers(self, key: str) -> np.ndarray:
        """A list of finite numbers, at least one."""
        value = self.listed(key)
        bad = [x for x in value if not _is_number(x)]
        if bad or not value:
            self.refuse(
                f"{key} holds {_said(bad[0]) if bad else 'nothing'}", "finite numbers", "Correct it"
            )
        return np.array(value, np.float64)

    def only(self, known: tuple[str, ...]) -> None:
        """Refuse keys that are unknown; those that begin with _ are remarks."""
        self.mapping()
        for key in self.value:
            if key not in known and not key.startswith("_"):
                self.refuse(
                    f"the key {key} is unknown", f"one of {', '.join(known)}", "Remove the key"
                )


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) < 1e300


def _said(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"{value!r:.40}"
