"""CSV tables whose first line names the columns with their units."""

import csv
import io
import math
import os
from typing import NamedTuple

from .._misc import InputError
from ._files import read_lines


class Row(NamedTuple):
    """A line of a table: `where`, the file and line that messages name, and the text by column."""

    where: str
    text: dict[str, str]

    def number(self, column: str) -> float:
        """A finite number.

        **Errors:** [`InputError`][] naming the file and the line.
        """
        try:
            value = float(self.text[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(
                f"{column} is {self.text[column]!r}",
                where=self.where,
                expected="a finite number",
                fix="Correct the line",
            )
        return value


class Table(NamedTuple):
    """The columns of a CSV file and its lines."""

    columns: list[str]
    rows: list[Row]


def read_table(path: str | os.PathLike, columns: tuple[str, ...]) -> Table:
    """Read a CSV file whose first line names its columns, at least the given ones.

    **Errors:** [`InputError`][] naming the file: a column that is missing or named twice, a line
    with more or fewer fields than the first one.
    """
    where = str(path)
    expected = f"a CSV table with the columns {' and '.join(columns)}"
    text = "\n".join(read_lines(path, expected))
    lines = csv.reader(io.StringIO(text), skipinitialspace=True)
    header = [name.strip() for name in next(lines)]
    for name in columns:
        if name not in header:
            raise InputError(
                f"it has no column {name}; its columns are {', '.join(header)}",
                where=where,
                expected=expected,
                fix="Name the columns in the first line, with these units, separated by commas",
            )
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise InputError(
            f"it has {len(twice)} columns {twice[0]!r}",
            where=where,
            expected="each column once",
            fix="Rename or remove one of them",
        )
    rows = []
    for fields in lines:
        at = f"{where}, line {lines.line_num}"
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(header):
            raise InputError(
                f"the number of its fields is {len(fields)}",
                where=at,
                expected=f"{len(header)}, as the first line has",
                fix="Separate fields by commas and write decimals with a point",
            )
        rows.append(Row(at, {k: v.strip() for k, v in zip(header, fields, strict=True)}))
    return Table(header, rows)
