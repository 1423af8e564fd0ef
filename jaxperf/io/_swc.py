"""SWC: one centreline point per line, with the point before it."""

import os
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np

from .._misc import check_frame, InputError
from ..network import VascularNetwork
from ._aorta import check_size
from ._files import read_lines
from ._frames import length_unit
from ._tree import PointTree, tree_network

_EXPECTED = "an SWC file: lines of id, type, x, y, z, radius, parent"
# The columns of a line.
_Row: TypeAlias = tuple[int, int, float, float, float, float, int]


def read_swc(
    path: str | os.PathLike,
    *,
    units: str,
    frame: str,
    branch_name: Mapping[int | str, str] | None = None,
) -> VascularNetwork:
    """Read a vascular tree from an SWC file.

    A row whose parent is −1 is a root; there may be several. The type column is ignored. Rows
    that coincide with their parent are merged with it. Below a junction, a first segment that
    ends inside the junction's lumen is a link between centrelines and takes the radius of its
    distal end.

    Each tree is decomposed into branches named `branch 0`, `branch 1`, … At a junction the
    branch goes on into the vessel with the largest mean radius as far as the next junction.

    **Arguments:**

    - `units`: unit of length of the file, `mm`, `cm`, `m` or `um`; SWC does not state it.
    - `frame`: frame of the coordinates, `LPS`, `RAS` or `model`.
    - `branch_name`: names of branches. A key is an automatic name, the id of the row where the
      branch ends, or a point within 5 mm of that end, as text `x, y, z` in mm. A branch named by
      its end is the whole way from there up to a root or to a branch of an earlier key, whatever
      the calibres, so parents come before their side branches. An end inside a branch of an
      earlier key cuts it: the stretch up to there becomes a branch of its own.

    **Returns:** a [`jaxperf.network.VascularNetwork`][] in m. Its nodes are the rows in the
    order of the file, less the merged ones.

    **Errors:** [`InputError`][] naming file and line, and one naming the unit that would fit
    where the size is not that of a coronary tree.

    **Source:** Cannon et al. (1998), J. Neurosci. Methods 84:49.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    rows = [[1, 1, 0, 0, 0, 2.0, -1], [2, 3, 10, 0, 0, 1.8, 1], [3, 3, 30, 5, 0, 1.5, 2]]
    np.savetxt("tree.swc", rows, fmt="%g")
    tree = jp.io.read_swc("tree.swc", units="mm", frame="LPS", branch_name={3: "LAD"})
    ```
    """
    where = str(path)
    unit = length_unit(units, where)
    check_frame(frame, where)
    lines = read_lines(path, _EXPECTED)
    rows = [
        _row(line.split("#")[0].split(), f"{where}:{number}")
        for number, line in enumerate(lines, 1)
        if line.split("#")[0].strip()
    ]
    if not rows:
        raise InputError(
            "it holds no points", where=where, expected=_EXPECTED, fix="Export the tree again"
        )
    at = {key: f"{where}:{i}" for i, key in _numbered(lines)}
    index = _index(rows, lines, where)
    parent = np.array([_parent(row, index, at) for row in rows], np.int64)
    position = np.array([row[2:5] for row in rows], np.float64)
    radius = np.array([row[5] for row in rows], np.float64)
    number = np.array([row[0] for row in rows], np.int64)
    tree = PointTree(position * unit, radius * unit, parent, number, index, "row id")
    check_size(tree, units, where)
    return tree_network(tree, frame=frame, branch_name=branch_name, where=where)


def _numbered(lines: list[str]) -> Iterator[tuple[int, int]]:
    for i, line in enumerate(lines, 1):
        words = line.split("#")[0].split()
        if words:
            yield i, _integer(words[0])


def _integer(word: str) -> int:
    """An integer, written as `7`, `7.0` or `7e0`."""
    value = float(word)
    if not value.is_integer():
        raise ValueError(f"{word} is no integer")
    return int(value)


def _row(words: list[str], where: str) -> _Row:
    if len(words) != 7:
        raise InputError(
            f"the line has {len(words)} columns",
            where=where,
            expected="7 columns: id, type, x, y, z, radius, parent",
            fix="Correct the line",
        )
    try:
        key, kind, parent = (_integer(words[i]) for i in (0, 1, 6))
        x, y, z, radius = (float(words[i]) for i in (2, 3, 4, 5))
    except ValueError as error:
        raise InputError(
            f"it is not numeric ({error})",
            where=where,
            expected="integers for id, type and parent, numbers for x, y, z and radius",
            fix="Correct the line",
        ) from error
    if not np.isfinite([x, y, z]).all():
        raise InputError(
            f"the position is {x}, {y}, {z}",
            where=where,
            expected="finite coordinates",
            fix="Remove the point or measure it again",
        )
    if not (np.isfinite(radius) and radius > 0):
        raise InputError(
            f"the radius is {radius}",
            where=where,
            expected="a positive number",
            fix="Measure the radius of this point again",
        )
    return key, kind, x, y, z, radius, parent


def _index(rows: list[_Row], lines: list[str], where: str) -> dict[int, int]:
    """The position in the file of every row id."""
    index: dict[int, int] = {}
    for i, ((number, key), _) in enumerate(zip(_numbered(lines), rows, strict=True)):
        if key in index:
            raise InputError(
                f"the id {key} appears a second time",
                where=f"{where}:{number}",
                expected="an id of its own for each row",
                fix="Renumber the row and the rows that have it as parent",
            )
        index[key] = i
    return index


def _parent(row: _Row, index: Mapping[int, int], at: Mapping[int, str]) -> int:
    key, parent = row[0], row[6]
    if parent == -1:
        return -1
    if parent == key or parent not in index:
        what = "itself" if parent == key else f"{parent}, which is no row of the file"
        raise InputError(
            f"the parent of row {key} is {what}",
            where=at[key],
            expected="the id of another row, or -1 at a root",
            fix="Correct the parent column",
        )
    return index[parent]
