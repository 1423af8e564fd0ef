"""The cards of a svOneDSolver input file, as written: no units changed, nothing joined."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._misc import InputError
from ._files import read_lines

EXPECTED = "a svOneDSolver input file (.in)"
# Number of fields after the card's name: what it must have, and what it may have.
_FIELDS = {
    "MODEL": (1, 1),
    "NODE": (4, 4),
    "JOINT": (4, 4),
    "JOINTINLET": (2, None),
    "JOINTOUTLET": (2, None),
    "SEGMENT": (16, 16),
    "DATATABLE": (2, 2),
    "ENDDATATABLE": (0, 0),
    "SOLVEROPTIONS": (9, 9),
    "MATERIAL": (7, 11),
    "OUTPUT": (1, 2),
    "INCLUDE": (2, 2),
}


@dataclass(frozen=True)
class Card:
    """One line: its fields after the card's name, and where it stands."""

    field: list[str]
    where: str

    def number(self, i: int, what: str) -> float:
        """Field `i` as a number."""
        return _number(self.field[i], what, self.where)

    def whole(self, i: int, what: str) -> int:
        """Field `i` as a whole number."""
        value = self.number(i, what)
        if value != int(value):
            raise InputError(
                f"the {what} is {self.field[i]}",
                where=self.where,
                expected="a whole number",
                fix="Correct the line",
            )
        return int(value)


@dataclass(frozen=True)
class DataTable:
    """Pairs of time and value, where each stands, and where the table begins."""

    where: str
    time: list[float]
    value: list[float]
    line: list[str]

    def __len__(self) -> int:
        return len(self.time)


@dataclass
class Cards:
    """The cards of one file and those it includes, by kind and in their order."""

    model: Card | None = None
    node: dict[int, Card] = field(default_factory=dict)
    joint: list[Card] = field(default_factory=list)
    joint_inlet: dict[str, Card] = field(default_factory=dict)
    joint_outlet: dict[str, Card] = field(default_factory=dict)
    segment: dict[int, Card] = field(default_factory=dict)
    table: dict[str, DataTable] = field(default_factory=dict)
    material: dict[str, Card] = field(default_factory=dict)
    options: Card | None = None


def _number(word: str, what: str, where: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if value - value != 0:
        raise InputError(
            f"the {what} is {word!r}",
            where=where,
            expected="a finite number",
            fix="Correct the line",
        )
    return value


def read_cards(path: str | os.PathLike) -> Cards:
    """Read the cards of a file, and of the files it includes, which lie beside it.

    **Errors:** [`InputError`][] naming file and line for an unknown card, a wrong number of
    fields, a field that is no number, a repeated card or name, and a table without end.
    """
    cards = Cards()
    _read_into(cards, Path(path), ())
    return cards


def _read_into(cards: Cards, path: Path, within: tuple[Path, ...]) -> None:
    table: Card | None = None
    numbers: list[tuple[float, str]] = []
    for i, line in enumerate(read_lines(path, EXPECTED), 1):
        words, where = line.split("#")[0].replace(",", " ").split(), f"{path}:{i}"
        if not words:
            continue
        kind = words[0].upper()
        if table is not None and kind != "ENDDATATABLE":
            what = f"entry of table {table.field[0]}"
            numbers += [(_number(word, what, where), where) for word in words]
        elif kind == "ENDDATATABLE":
            _end_table(cards, table, numbers, where)
            table, numbers = None, []
        else:
            card = _card(kind, words, where)
            if kind == "DATATABLE":
                table = _begin_table(card)
            elif kind == "INCLUDE":
                _include(cards, card, path, within)
            else:
                _store(cards, kind, card)
    if table is not None:
        raise InputError(
            f"the table {table.field[0]} does not end",
            where=table.where,
            expected="ENDDATATABLE after the last entry",
            fix="Check that the file is complete",
        )


def _include(cards: Cards, card: Card, path: Path, within: tuple[Path, ...]) -> None:
    """Read another file's cards where the card says TRUE."""
    name, switch = card.field
    if switch.upper() not in ("TRUE", "FALSE"):
        raise InputError(
            f"the switch of INCLUDE is {switch}",
            where=card.where,
            expected="TRUE or FALSE",
            fix="Correct the line",
        )
    if switch.upper() == "FALSE":
        return
    other, above = path.parent / name, (*within, path.resolve())
    if other.resolve() in above:
        raise InputError(
            f"{name} includes itself",
            where=card.where,
            expected="files that do not include each other in a ring",
            fix="Remove the line",
        )
    _read_into(cards, other, above)


def _card(kind: str, words: list[str], where: str) -> Card:
    if kind not in _FIELDS:
        raise InputError(
            f"{words[0]!r} is no card that this reader knows",
            where=where,
            expected=f"one of {', '.join(_FIELDS)}",
            fix="Remove the line",
        )
    least, most = _FIELDS[kind]
    count = len(words) - 1
    if count < least or (most is not None and count > most):
        span = f"{least}" if least == most else f"{least} to {most or 'any number of'}"
        raise InputError(
            f"{kind} has {count} fields",
            where=where,
            expected=f"{span} fields",
            fix="Correct the line",
        )
    return Card(words[1:], where)


def _store(cards: Cards, kind: str, card: Card) -> None:
    name = card.field[0]
    if kind in ("MODEL", "SOLVEROPTIONS"):
        place = "model" if kind == "MODEL" else "options"
        first = getattr(cards, place)
        _once({} if first is None else {kind: first}, kind, card, "the card")
        setattr(cards, place, card)
    elif kind == "JOINT":
        cards.joint.append(card)
    elif kind == "NODE":
        _once(cards.node, card.whole(0, "node number"), card, "node")
    elif kind == "SEGMENT":
        _once(cards.segment, card.whole(1, "segment number"), card, "segment")
    elif kind == "JOINTINLET":
        _once(cards.joint_inlet, name, card, "joint inlet")
    elif kind == "JOINTOUTLET":
        _once(cards.joint_outlet, name, card, "joint outlet")
    elif kind == "MATERIAL":
        _once(cards.material, name, card, "material")


def _once(known: dict[Any, Card], key: int | str, card: Card, what: str) -> None:
    if key in known:
        raise InputError(
            f"{what} {key} is defined a second time, after {known[key].where}",
            where=card.where,
            expected="one definition",
            fix="Remove one of the two lines",
        )
    known[key] = card


def _begin_table(card: Card) -> Card:
    if card.field[1].upper() != "LIST":
        raise InputError(
            f"the table type is {card.field[1]}",
            where=card.where,
            expected="LIST",
            fix="Write the table as pairs of time and value",
        )
    return card


def _end_table(
    cards: Cards, table: Card | None, numbers: list[tuple[float, str]], where: str
) -> None:
    if table is None:
        raise InputError(
            "ENDDATATABLE ends no table",
            where=where,
            expected="a DATATABLE before it",
            fix="Remove the line, or begin the table",
        )
    name = table.field[0]
    if name in cards.table:
        raise InputError(
            f"the table {name} is defined a second time, after {cards.table[name].where}",
            where=table.where,
            expected="one definition",
            fix="Remove one of the two tables",
        )
    if len(numbers) % 2 or not numbers:
        raise InputError(
            f"the table {name} has {len(numbers)} numbers",
            where=numbers[-1][1] if numbers else table.where,
            expected="pairs of time and value",
            fix="Correct the table",
        )
    value = [number for number, _ in numbers]
    lines = [line for _, line in numbers[::2]]
    cards.table[name] = DataTable(table.where, value[::2], value[1::2], lines)
