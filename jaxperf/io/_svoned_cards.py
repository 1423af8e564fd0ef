"""The cards of a svOneDSolver input file, as written: no units changed, nothing joined."""

import os
from dataclasses import dataclass, field

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
    "MATERIAL": (7, 9),
    "OUTPUT": (1, 2),
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


@dataclass
class Cards:
    """The cards of one file, by kind and in the order of the file."""

    model: str = "model"
    node: dict[int, Card] = field(default_factory=dict)
    joint: list[Card] = field(default_factory=list)
    joint_inlet: dict[str, Card] = field(default_factory=dict)
    joint_outlet: dict[str, Card] = field(default_factory=dict)
    segment: dict[int, Card] = field(default_factory=dict)
    table: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
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
    """Read the cards of a file.

    **Errors:** [`InputError`][] naming file and line for an unknown card, a wrong number of
    fields, a field that is no number, a repeated name, and a table without end.
    """
    cards = Cards()
    table: tuple[str, str] | None = None
    values: list[float] = []
    for i, line in enumerate(read_lines(path, EXPECTED), 1):
        words, where = line.split("#")[0].split(), f"{path}:{i}"
        if not words:
            continue
        if table is not None and words[0] != "ENDDATATABLE":
            values += [_number(word, f"entry of table {table[0]}", where) for word in words]
        elif words[0] == "ENDDATATABLE":
            _end_table(cards, table, values, where)
            table, values = None, []
        else:
            card = _card(words, where)
            if words[0] == "DATATABLE":
                table = _begin_table(card)
            else:
                _store(cards, words[0], card)
    if table is not None:
        raise InputError(
            f"the table {table[0]} does not end",
            where=table[1],
            expected="ENDDATATABLE after the last entry",
            fix="Check that the file is complete",
        )
    return cards


def _card(words: list[str], where: str) -> Card:
    if words[0] not in _FIELDS:
        raise InputError(
            f"{words[0]!r} is no card that this reader knows",
            where=where,
            expected=f"one of {', '.join(_FIELDS)}",
            fix="Remove the line, or write the included file's cards into this one",
        )
    least, most = _FIELDS[words[0]]
    count = len(words) - 1
    if count < least or (most is not None and count > most):
        span = f"{least}" if least == most else f"{least} to {most or 'any number of'}"
        raise InputError(
            f"{words[0]} has {count} fields",
            where=where,
            expected=f"{span} fields",
            fix="Correct the line",
        )
    return Card(words[1:], where)


def _store(cards: Cards, kind: str, card: Card) -> None:
    name = card.field[0]
    if kind == "MODEL":
        cards.model = name
    elif kind == "JOINT":
        cards.joint.append(card)
    elif kind == "SOLVEROPTIONS":
        cards.options = card
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


def _once(known: dict, key: int | str, card: Card, what: str) -> None:
    if key in known:
        raise InputError(
            f"{what} {key} is defined a second time",
            where=card.where,
            expected="one definition",
            fix="Remove one of the two lines",
        )
    known[key] = card


def _begin_table(card: Card) -> tuple[str, str]:
    if card.field[1] != "LIST":
        raise InputError(
            f"the table type is {card.field[1]}",
            where=card.where,
            expected="LIST",
            fix="Write the table as pairs of time and value",
        )
    return card.field[0], card.where


def _end_table(
    cards: Cards, table: tuple[str, str] | None, values: list[float], where: str
) -> None:
    name = table[0] if table else "?"
    if table is None or len(values) % 2 or not values or name in cards.table:
        raise InputError(
            f"the table {name} has {len(values)} numbers"
            + (" and is defined twice" if name in cards.table else ""),
            where=where,
            expected="one DATATABLE of pairs of time and value",
            fix="Correct the table",
        )
    cards.table[name] = list(zip(values[::2], values[1::2], strict=True))
