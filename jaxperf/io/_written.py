"""Trees that `write_tree` wrote, read back as they were."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._misc import InputError, note
from ..network import build_network, VascularNetwork
from ..units import M_PER_MM
from ._frames import LENGTH_UNIT
from ._tree import END_REACH_MM, point_mm


def is_written(data: Any) -> bool:
    """Whether `write_tree` wrote the file: two points for each segment, and its arrays."""
    return (
        {"frame", "length_unit"} <= set(data.field_data.keys())
        and {"branch", "branch_name", "length_mm", "segment"} <= set(data.cell_data.keys())
        and "radius_mm" in data.point_data
        and data.n_points == 2 * data.n_lines == 2 * data.n_cells
    )


def written_tree(
    data: Any,
    units: str,
    frame: str,
    branch_name: Mapping[int | str, str] | None,
    unused: Mapping[str, object],
    n_roots: int | None,
    where: str,
) -> VascularNetwork:
    """The network of such a file, with the names of its branches and steps of its calibre.

    **Arguments:** `branch_name`: new names; `unused`: options of other centrelines by name, None
    where they are not given.

    **Errors:** [`InputError`][] where `units`, `frame` or `n_roots` are not what the file says, an
    option of other centrelines is given, or a new name fits no branch.
    """
    for name, said, key in (("unit", units, "length_unit"), ("frame", frame, "frame")):
        found = str(data.field_data[key][0])
        if found != said:
            raise InputError(
                f"the file says that its {name} is {found}, not {said}",
                where=where,
                expected=f"the {name} of the file",
                fix=f"State {found}",
            )
    for name, value in unused.items():
        if value is not None:
            raise InputError(
                "`write_tree` wrote the file, which has one radius and one course for each vessel, "
                "so there is no use for it",
                where=f"{where}, `{name}`",
                expected="no such option",
                fix="Take it out",
            )
    if np.any(data.cell_data.get("lesion_diameter_reduction", np.zeros(1)) > 0):
        note(
            "its lesions were not read, and the lumen is the one that a lesion has replaced by its "
            "reference radius; declare the lesions again",
            where=where,
        )
    scale = LENGTH_UNIT[units]
    node, end = np.unique(np.asarray(data.points, np.float64), axis=0, return_inverse=True)
    segment = end.reshape(-1, 2).astype(np.int64)
    name, first = np.unique(np.asarray(data.cell_data["branch"]), return_index=True)
    network = build_network(
        node * scale,
        segment,
        np.asarray(data.point_data["radius_mm"], np.float64).reshape(-1, 2) * M_PER_MM,
        length=np.asarray(data.cell_data["length_mm"], np.float64) * M_PER_MM,
        root=np.setdiff1d(segment[:, 0], segment[:, 1]),
        frame=frame,
        branch=np.searchsorted(name, data.cell_data["branch"]),
        branch_name=tuple(str(x) for x in np.asarray(data.cell_data["branch_name"])[first]),
        where=where,
    )
    found = len(np.asarray(network.roots))
    if n_roots not in (None, found):
        raise InputError(
            f"the tree in the file has {found} root{'s' * (found > 1)}, not {n_roots}",
            where=f"{where}, `n_roots`",
            expected="the number of roots in the file",
            fix=f"State {found}, or take it out",
        )
    return _renamed(network, branch_name or {}, f"{where}, `branch_name`")


def _renamed(
    network: VascularNetwork, branch_name: Mapping[int | str, str], where: str
) -> VascularNetwork:
    """The tree with new names for branches, each said by its name, its last line or its end."""
    names, renamed = network.branch_name, dict(enumerate(network.branch_name))
    for key, name in branch_name.items():
        i = _branch_of(network, key)
        if i is None or renamed[i] != names[i]:
            raise InputError(
                f"{key!r} is {'not the end of any branch' if i is None else 'named twice'}",
                where=where,
                expected=f"a branch of the file ({', '.join(names)}), the number of its last line, "
                "or a point at its end as 'x, y, z' in mm",
                fix=f"Correct the key of {name!r}",
            )
        renamed[i] = name
    new = tuple(renamed.values())
    for name in new:
        if new.count(name) > 1:
            raise InputError(
                f"the name {name!r} is given to several branches",
                where=where,
                expected="a name of its own for each branch",
                fix="Number the parts, such as 'OM 1' and 'OM 2'",
            )
    return dataclasses.replace(network, branch_name=new)


def _branch_of(network: VascularNetwork, key: int | str) -> int | None:
    """The branch that a key means; None where it means none, or a point several."""
    if key in network.branch_name:
        return network.branch_name.index(key)
    end = {}
    for i, name in enumerate(network.branch_name):
        try:
            end[network.outlet(name)] = i
        except InputError:
            continue  # a branch that divides, such as a grown tree, has no end
    if isinstance(key, int):
        inside = 0 <= key < network.n_segments
        return end.get(int(np.asarray(network.segment_node)[key, 1])) if inside else None
    near = point_mm(key)
    if near is None or not end:
        return None
    node = np.array(list(end))
    position = np.asarray(network.node_position, np.float64)[node] / M_PER_MM
    distance = np.linalg.norm(position - near[None, :], axis=1)
    first, second = np.append(np.sort(distance), np.inf)[:2]
    if first > END_REACH_MM or second < 2.0 * first:
        return None
    return end[int(node[np.argmin(distance)])]
