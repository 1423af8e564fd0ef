"""Networks as SWC and as a table of segments."""

import os
from collections.abc import Mapping

import numpy as np

from .._misc import InputError
from ..network import build_network, VascularNetwork
from ..units import M_PER_MM
from ._files import check_suffix, replacing
from ._tables import read_table, Row
from ._writers import write_csv

_ENDS = ("proximal", "distal")
COLUMNS = (
    "segment",
    "branch",
    "frame",
    "is_root",
    "length_mm",
    *(f"{end}_{x}" for end in _ENDS for x in ("node", "x_mm", "y_mm", "z_mm", "radius_mm")),
)


def write_swc(path: str | os.PathLike, network: VascularNetwork) -> dict[int, int]:
    """Write a network as SWC in mm; returns the row of each node.

    Where the calibre steps at a node, a second row at the same place carries the calibre of the
    vessel that begins there. SWC has no lengths but the distances of its points, no branches, no
    lesions, no unit and no frame.

    **Errors:** [`InputError`][] for a network with loops, of which a row with one parent knows
    nothing.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    row_of_node = jp.io.write_swc("tree.swc", tree)
    ```
    """
    if np.asarray(network.topology.cut).size:
        raise InputError(
            "the network has loops",
            where=str(path),
            expected="a tree: each row of an SWC file has one parent",
            fix="Write it as .vtp or .csv",
        )
    node = np.asarray(network.segment_node)
    position = np.asarray(network.node_position, np.float64) / M_PER_MM
    radius = np.asarray(network.radius, np.float64) / M_PER_MM
    rows: list[tuple[int, float, int]] = []
    row_of: dict[int, int] = {}

    def add(point: int, width: float, parent: int) -> int:
        rows.append((point, width, parent))
        return len(rows)

    below: dict[int, list[int]] = {}
    for s, (a, _) in enumerate(node.tolist()):
        below.setdefault(a, []).append(s)
    todo = [int(r) for r in np.asarray(network.roots)]
    for root in todo:
        row_of[root] = add(root, float(radius[below[root][0], 0]), -1)
    while todo:
        a = todo.pop()
        for s in below.get(a, []):
            b, start = int(node[s, 1]), row_of[a]
            # at a junction every vessel needs a row of its own, equal calibre or not
            if len(below[a]) > 1 or radius[s, 0] != rows[start - 1][1]:
                start = add(a, float(radius[s, 0]), start)
            row_of[b] = add(b, float(radius[s, 1]), start)
            todo.append(b)
    lines = ["# lumen centrelines, mm: id type x y z radius parent"]
    for i, (point, width, parent) in enumerate(rows, 1):
        x, y, z = position[point].tolist()
        lines.append(f"{i} 0 {x!r} {y!r} {z!r} {width!r} {parent}")
    with replacing(check_suffix(path, (".swc",))) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return row_of


def write_network_table(path: str | os.PathLike, network: VascularNetwork) -> None:
    """Write a network as CSV, a line for each segment: its ends with places and radii, its length.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    jp.io.write_network_table("tree.csv", tree)
    ```
    """
    node = np.asarray(network.segment_node)
    position = np.asarray(network.node_position, np.float64) / M_PER_MM
    radius = np.asarray(network.radius, np.float64) / M_PER_MM
    length = np.asarray(network.length, np.float64) / M_PER_MM
    roots = set(np.asarray(network.roots).tolist())
    branch = np.asarray(network.branch)
    rows = []
    for s, pair in enumerate(node.tolist()):
        row = {
            "segment": s,
            "branch": network.branch_name[branch[s]],
            "frame": network.frame,
            "is_root": int(pair[0] in roots),
            "length_mm": float(length[s]),
        }
        for end, n, width in zip(_ENDS, pair, radius[s].tolist(), strict=True):
            x, y, z = position[n].tolist()
            row |= dict(zip((f"{end}_{k}" for k in ("node", "x_mm", "y_mm", "z_mm", "radius_mm")),
                            (n, x, y, z, width), strict=True))  # fmt: skip
        rows.append(row)
    write_csv(check_suffix(path, (".csv",)), rows, digits=17)


def read_network_table(
    path: str | os.PathLike,
    *,
    units: str,
    frame: str,
    branch_name: Mapping[int | str, str] | None = None,
) -> VascularNetwork:
    """Read a network that [`write_network_table`][] wrote.

    **Arguments:** `units`, mm, and `frame`, which the file says: others are refused;
    `branch_name`, new names by the names in the file.

    **Errors:** [`InputError`][] naming file and line.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    jp.io.write_network_table("tree.csv", tree)
    again = jp.io.read_network_table("tree.csv", units="mm", frame=tree.frame)
    ```
    """
    where = str(path)
    table = read_table(path, COLUMNS)
    if not table.rows:
        raise InputError(
            "it has no line after the names of the columns",
            where=where,
            expected="a line for each segment",
            fix="Export the network again",
        )
    said = [("mm", units, "unit"), *((row.text["frame"], frame, "frame") for row in table.rows)]
    for found, given, name in said:
        if found != given:
            raise InputError(
                f"the file says that its {name} is {found}, not {given}",
                where=where,
                expected=f"the {name} of the file",
                fix=f"State {found}",
            )
    place: dict[int, tuple[float, ...]] = {}
    pairs, radii, lengths, roots = [], [], [], set()
    for row in table.rows:
        pair = []
        for end in _ENDS:
            n = _whole(row, f"{end}_node")
            at = tuple(row.number(f"{end}_{x}_mm") for x in "xyz")
            if place.setdefault(n, at) != at:
                raise InputError(
                    f"node {n} lies at {at} mm and before at {place[n]} mm",
                    where=row.where,
                    expected="one place for each node",
                    fix="Correct the line",
                )
            pair.append(n)
        pairs.append(pair)
        radii.append([row.number(f"{end}_radius_mm") for end in _ENDS])
        lengths.append(row.number("length_mm"))
        if _whole(row, "is_root", most=1):
            roots.add(pair[0])
    number = sorted(place)
    index = {n: i for i, n in enumerate(number)}
    names = [row.text["branch"] for row in table.rows]
    branches = list(dict.fromkeys(names))
    for key in branch_name or {}:
        if key not in branches:
            raise InputError(
                f"there is no branch {key!r}",
                where=f"{where}, `branch_name`",
                expected=f"one of {', '.join(branches)}",
                fix="Correct the name",
            )
    return build_network(
        np.array([place[n] for n in number]) * M_PER_MM,
        np.array([[index[n] for n in pair] for pair in pairs]),
        np.array(radii) * M_PER_MM,
        root=np.array(sorted(index[n] for n in roots), np.int64),
        frame=frame,
        length=np.array(lengths) * M_PER_MM,
        branch=np.array([branches.index(name) for name in names]),
        branch_name=tuple((branch_name or {}).get(b, b) for b in branches),
        allow_loops=True,
        where=where,
    )


def _whole(row: Row, column: str, most: int = 10**9) -> int:
    """A whole number from 0 on."""
    value = row.number(column)
    if not (value.is_integer() and 0 <= value <= most):
        raise InputError(
            f"{column} is {row.text[column]!r}",
            where=row.where,
            expected="0 or 1" if most == 1 else "a whole number from 0 on",
            fix="Correct the line",
        )
    return int(value)
