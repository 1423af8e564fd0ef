"""Trees that `write_tree` wrote, read back as they were."""

from typing import Any

import numpy as np

from .._misc import InputError, note
from ..network import build_network, VascularNetwork
from ..units import M_PER_MM
from ._frames import LENGTH_UNIT


def is_written(data: Any) -> bool:
    """Whether `write_tree` wrote the file: two points for each segment, and its arrays."""
    return (
        {"frame", "length_unit"} <= set(data.field_data.keys())
        and {"branch", "branch_name", "length_mm", "segment"} <= set(data.cell_data.keys())
        and "radius_mm" in data.point_data
        and data.n_points == 2 * data.n_lines == 2 * data.n_cells
    )


def written_tree(data: Any, units: str, frame: str, where: str) -> VascularNetwork:
    """The network of such a file, with the names of its branches and steps of its calibre.

    **Errors:** [`InputError`][] where `units` or `frame` are not what the file says.
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
    return build_network(
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
