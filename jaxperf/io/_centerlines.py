"""Centrelines of VTK and VMTK: polylines with the radius of the largest inscribed sphere."""

import os
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int

from .._misc import check_frame, InputError, note
from ..network import VascularNetwork
from ..units import M_PER_MM
from ._aorta import check_size
from ._frames import length_unit
from ._line_radius import line_radius
from ._merge import is_one_tree, merged
from ._polylines import courses_of, lines_of, one_of_each_group, put_right
from ._tree import PointTree, tree_network
from ._vtk import read_vtk
from ._written import is_written, written_tree

_EXPECTED = "VTK PolyData (.vtp, .vtk) of polylines that run from the inlet outwards"
# Tolerances that are tried where lines run in one lumen, in the largest radius.
_TRIED = np.arange(2, 21) / 10.0


def read_centerlines(
    path: str | os.PathLike,
    *,
    units: str,
    frame: str,
    branch_name: Mapping[int | str, str] | None = None,
    radius_array: str | None = None,
    n_roots: int | None = None,
    merge_tolerance_mm: float | None = None,
) -> VascularNetwork:
    """Read a vascular tree from centrelines.

    Three forms are read, alone or mixed: lines that all start at the inlet and overlap as far as
    their bifurcations (VMTK), one line for each branch, whose first point lies on or near the
    centreline of its parent, and pieces that begin at the point where another ends, down to cells
    of two points (SimVascular). Cells that VMTK has cut into groups are read once for each group,
    and a tree that [`write_tree`][] wrote is read back as it was, without its lesions. A key of
    `branch_name` may be a name in such a file, and options for other centrelines are refused.

    The line of the inlet is the one whose start is farthest from all others. Every other line
    leaves the tree at the last of its points that lies on it within the tolerance; where none
    does, its first point is linked to the nearest point of the tree. Lines that run on inside the
    lumen of others are refused with their places.

    **Arguments:**

    - `units`, `frame`, `branch_name`: as in [`read_swc`][]; an integer key of `branch_name` is
      the number of the line that ends where the branch does.
    - `radius_array`: name of the point array that holds the radius. Where left out,
      `MaximumInscribedSphereRadius`, or the only array that its name calls a radius (such as
      `Radius`, `MISR`, `radius_mm`), a diameter or the area of a section A, from which the
      radius is √(A/π). A name that ends in a unit has that unit.
    - `n_roots`: the number of inlets, such as 2 for a left and a right coronary tree; 1 where left
      out.
    - `merge_tolerance_mm`: how far apart the points of lines on the same course may lie. Where
      left out, 0.02 radii, and up to a quarter of the radius where lines that begin at the inlet
      scatter by as much.

    **Returns:** a [`jaxperf.network.VascularNetwork`][] in m.

    **Errors:** [`InputError`][] naming the file and the line: no radius array, other cells than
    lines, points out of order, a line that starts more than two radii away from every other, a
    line that lies on others altogether, lines that run inside each other's lumen, and one that
    ends on another.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np, pyvista as pv
    line = pv.PolyData(np.array([[0.0, 0, 0], [10, 0, 0], [30, 5, 0]]), lines=[3, 0, 1, 2])
    line["MaximumInscribedSphereRadius"] = np.array([2.0, 1.8, 1.5])
    line.save("lines.vtp")
    tree = jp.io.read_centerlines("lines.vtp", units="mm", frame="LPS")
    ```
    """
    where = str(path)
    unit = length_unit(units, where)
    check_frame(frame, where)
    data = read_vtk(path, (".vtp", ".vtk"), "PolyData", _EXPECTED)
    if is_written(data):
        unused = {"radius_array": radius_array, "merge_tolerance_mm": merge_tolerance_mm}
        return written_tree(data, units, frame, branch_name, unused, n_roots, where)
    lines = lines_of(data, where, _EXPECTED)
    position = np.asarray(data.points, np.float64)
    radius = line_radius(data, radius_array, unit, where)
    used = np.unique(np.concatenate(list(lines.values())))
    _check_points(position, radius, used, where)
    check_size(_line_by_line(lines, position * unit, radius * unit), units, where)
    lines = one_of_each_group(data, lines, position, radius, where)
    lines = {n: put_right(x, n, position, radius, where) for n, x in lines.items()}
    courses = courses_of(lines, position, radius, where)
    given = (courses, position * unit, radius * unit, 1 if n_roots is None else n_roots)
    tolerance = None if merge_tolerance_mm is None else merge_tolerance_mm * M_PER_MM

    def advice() -> str:
        for share in _TRIED:
            wider = np.ceil(share * radius[used].max() * unit / M_PER_MM * 10.0) / 10.0
            if wider > (merge_tolerance_mm or 0.0) and is_one_tree(*given, wider * M_PER_MM, where):
                return f"Set `merge_tolerance_mm` to {wider:g}, which makes one tree of them"
        return "Track these vessels as one tree, or leave one of the lines out"

    tree, scatter = merged(*given, tolerance, where)
    network = tree_network(tree, frame=frame, branch_name=branch_name, where=where, advice=advice)
    if scatter > 0.0:
        note(
            f"points of its lines within {scatter / M_PER_MM:.2g} mm of each other were taken for "
            "one course (`merge_tolerance_mm` sets another distance)",
            where=where,
        )
    return network


def _line_by_line(
    lines: dict[int, Int[np.ndarray, " _"]],
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
) -> PointTree:
    """The lines as trees of their own."""
    point = np.concatenate(list(lines.values()))
    first = np.concatenate([np.arange(len(line)) == 0 for line in lines.values()])
    parent = np.where(first, -1, np.arange(len(point)) - 1)
    number = np.repeat(list(lines), [len(line) for line in lines.values()])
    return PointTree(position[point], radius[point], parent, number, {}, "line")


def _check_points(
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    used: Int[np.ndarray, " k"],
    where: str,
) -> None:
    for i in used[~np.isfinite(position[used]).all(1)]:
        raise InputError(
            f"the position of point {i} is {position[i]}",
            where=where,
            expected="finite coordinates",
            fix="Remove the point",
        )
    for i in used[~(np.isfinite(radius[used]) & (radius[used] > 0))]:
        raise InputError(
            f"the radius of point {i} is {radius[i]}",
            where=where,
            expected="a positive number",
            fix="Measure the radius of this point again",
        )
