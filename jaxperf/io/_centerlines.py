"""Centrelines of VTK and VMTK: polylines with the radius of the largest inscribed sphere."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from .._misc import check_frame, InputError
from ..network import VascularNetwork
from ._frames import check_plausible, length_unit
from ._tree import PointTree, tree_network
from ._vtk import read_vtk

_EXPECTED = "VTK PolyData (.vtp) of polylines that run from the inlet outwards"
# Longest link from the first point of a side branch to the centreline of its parent, in radii of
# the parent: at an acute ostium the first point of its own can lie well outside the lumen.
_LONGEST_LINK = 2.0
# Lines nearer to each other than a quarter of a radius are one course; the daughters of a
# bifurcation leave that zone within a few radii unless their angle is below about 3 degrees.
_SAME_LUMEN = 0.25
_LONGEST_SHARED_LUMEN = 5.0


def read_centerlines(
    path: str | os.PathLike,
    *,
    units: str,
    frame: str,
    branch_name: Mapping[int | str, str] | None = None,
    radius_array: str = "MaximumInscribedSphereRadius",
    n_roots: int = 1,
    merge_tolerance: float = 0.02,
) -> VascularNetwork:
    """Read a vascular tree from centrelines.

    Two forms are read, alone or mixed: lines that all start at the inlet and overlap as far as
    their bifurcations (VMTK), and one line for each branch, whose first point lies on or near
    the centreline of its parent. The line of the inlet is the one whose start is farthest from
    all others. Every other line leaves the tree at the last of its points that lies on it,
    within `merge_tolerance` times the local radius; where none does, its first point is linked
    to the nearest point of the tree.

    **Arguments:**

    - `units`, `frame`, `branch_name`: as in [`read_swc`][]; an integer key of `branch_name` is
      the number of the line that ends where the branch does.
    - `radius_array`: name of the point array that holds the radius.
    - `n_roots`: the number of inlets, such as 2 for a left and a right coronary tree.
    - `merge_tolerance`: how far, in radii, points on the same course may lie apart.

    **Returns:** a [`jaxperf.network.VascularNetwork`][] in m.

    **Errors:** [`InputError`][] naming the file and the line: no radius array, other cells than
    lines, a line that starts more than two radii away from every other, a line that lies on
    others altogether, and lines that run side by side in one lumen.

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
    data = read_vtk(path, ".vtp", "PolyData", _EXPECTED)
    lines = _lines(data, where)
    position = np.asarray(data.points, np.float64)
    radius = _radius(data, radius_array, where)
    used = np.unique(np.concatenate(lines))
    _check_points(position, radius, used, where)
    check_plausible(position[used], radius[used], units, where)
    builder = _Builder(position * unit, radius * unit, merge_tolerance, where)
    for line, is_root in _order(lines, position, radius, n_roots, where):
        if is_root:
            builder.start(line, lines[line])
        else:
            builder.attach(line, lines[line])
    return tree_network(builder.tree(), frame=frame, branch_name=branch_name, where=where)


def _lines(data: Any, where: str) -> list[Int[np.ndarray, " p"]]:
    """The point indices of each line, without immediate repetitions."""
    if data.n_lines == 0 or data.n_lines != data.n_cells:
        raise InputError(
            f"of its {data.n_cells} cells {data.n_lines} are lines",
            where=where,
            expected=_EXPECTED,
            fix="Export the centrelines and not the vessel surface",
        )
    flat, lines = np.asarray(data.lines), []
    at = 0
    while at < len(flat):
        line = flat[at + 1 : at + 1 + flat[at]].astype(np.int64)
        at += 1 + int(flat[at])
        line = line[np.concatenate([[True], np.diff(line) != 0])]
        if len(line) < 2:
            raise InputError(
                f"line {len(lines)} has fewer than two points",
                where=where,
                expected="lines of at least two points",
                fix="Remove the line",
            )
        lines.append(line)
    return lines


def _radius(data: Any, name: str, where: str) -> Float[np.ndarray, " p"]:
    if name not in data.point_data:
        present = ", ".join(data.point_data.keys()) or "none"
        raise InputError(
            f"there is no point array {name!r}; the arrays present are: {present}",
            where=where,
            expected="a point array with the radius of the vessel",
            fix="Name it in radius_array, or compute it with vmtkcenterlines",
        )
    radius = np.asarray(data.point_data[name], np.float64)
    if radius.ndim != 1:
        raise InputError(
            f"the array {name!r} has {radius.shape[1]} components",
            where=where,
            expected="one radius for each point",
            fix="Name another array in radius_array",
        )
    return radius


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


def _order(
    lines: list[Int[np.ndarray, " _"]],
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    n_roots: int,
    where: str,
) -> list[tuple[int, bool]]:
    """The lines so that each comes after the one it leaves, and whether it starts a tree.

    Lines that start at one point are a family. The families that start farthest from all other
    lines are those of the inlets; the rest follow by the length of their link to the tree.
    """
    n = len(lines)
    gap = np.full((n, n), np.inf)
    for i, line in enumerate(lines):
        for j, other in enumerate(lines):
            if i != j:
                at, distance, _ = _nearest(position[line[:1]], position, _pairs(other))
                scale = radius[_pairs(other)[at[0]]].max()
                gap[i, j] = distance[0] / scale
    start = position[[line[0] for line in lines]]
    apart = np.linalg.norm(start[:, None, :] - start[None, :, :], axis=2)
    together = apart <= 1e-3 * radius[[line[0] for line in lines]][:, None]
    family = [np.flatnonzero(together[i]) for i in range(n)]
    alone = [gap[np.ix_(family[i], np.setdiff1d(np.arange(n), family[i]))] for i in range(n)]
    lonely = np.array([a.min() if a.size else np.inf for a in alone])
    length = np.array([np.linalg.norm(np.diff(position[x], axis=0), axis=1).sum() for x in lines])
    order: list[tuple[int, bool]] = []
    waiting = set(range(n))
    for _ in range(n_roots):
        candidates = [i for i in waiting if not any(j in family[i] for j, _ in order)]
        if not candidates:
            raise InputError(
                f"the lines start at {len(order)} inlet(s)",
                where=where,
                expected=f"n_roots = {n_roots} inlets",
                fix="Correct n_roots",
            )
        root = max(candidates, key=lambda i: (lonely[i], length[i]))
        order.append((root, True))
        waiting.remove(root)
    nearest = gap[:, [i for i, _ in order]].min(1)
    while waiting:
        # Longest first among equals, so that the shorter of two overlapping lines joins.
        line = min(waiting, key=lambda i: (round(nearest[i], 6), -length[i], i))
        order.append((line, False))
        waiting.remove(line)
        nearest = np.minimum(nearest, gap[:, line])
    return order


def _pairs(line: Int[np.ndarray, " p"]) -> Int[np.ndarray, "s 2"]:
    return np.stack([line[:-1], line[1:]], axis=1)


def _nearest(
    point: Float[np.ndarray, "q 3"],
    position: Float[np.ndarray, "p 3"],
    segment: Int[np.ndarray, "s 2"],
) -> tuple[Int[np.ndarray, " q"], Float[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """The nearest segment of each point, the distance to it, and how far along it that is."""
    start = position[segment[:, 0]]
    along = position[segment[:, 1]] - start
    square = np.maximum((along**2).sum(1), np.finfo(np.float64).tiny)
    index = np.empty(len(point), np.int64)
    distance, share = np.empty(len(point)), np.empty(len(point))
    for i, p in enumerate(point):
        offset = p[None, :] - start
        t = np.clip((offset * along).sum(1) / square, 0.0, 1.0)
        d = ((offset - t[:, None] * along) ** 2).sum(1)
        index[i] = k = int(np.argmin(d))
        distance[i], share[i] = np.sqrt(d[k]), t[k]
    return index, distance, share


class _Builder:
    """The tree as it grows line by line."""

    def __init__(
        self,
        position: Float[np.ndarray, "p 3"],
        radius: Float[np.ndarray, " p"],
        tolerance: float,
        where: str,
    ) -> None:
        self.source, self.source_radius = position, radius
        self.tolerance, self.where = tolerance, where
        self.position: list[np.ndarray] = []
        self.radius: list[float] = []
        self.parent: list[int] = []
        self.end: dict[int, int] = {}

    def start(self, line: int, points: Int[np.ndarray, " p"]) -> None:
        """Begin a tree with a whole line."""
        self._append(line, points, -1)

    def attach(self, line: int, points: Int[np.ndarray, " p"]) -> None:
        """Add the part of a line that is not yet in the tree."""
        position = np.array(self.position)
        radius = np.array(self.radius)
        child = np.flatnonzero(np.array(self.parent) >= 0)
        segment = np.stack([np.array(self.parent)[child], child], axis=1)
        index, distance, share = _nearest(self.source[points], position, segment)
        local = radius[segment[index]]
        local = (1 - share) * local[:, 0] + share * local[:, 1]
        shared = self._shared(line, points, distance, local)
        if shared == 0 and distance[0] > _LONGEST_LINK * local[0]:
            raise InputError(
                f"line {line} starts {distance[0] * 1e3:.3g} mm from the nearest other line, "
                f"{distance[0] / local[0]:.2g} of its radii",
                where=self.where,
                expected=f"a start within {_LONGEST_LINK:g} radii of the parent's centreline",
                fix="Check that the line runs from its parent outwards, or set n_roots if it "
                "is a tree of its own",
            )
        k = max(shared - 1, 0)
        at = self._foot(segment[index[k]], share[k], self.tolerance * local[k])
        self._append(line, points[shared:], at)

    def _shared(
        self,
        line: int,
        points: Int[np.ndarray, " p"],
        distance: Float[np.ndarray, " p"],
        local: Float[np.ndarray, " p"],
    ) -> int:
        """The number of leading points that lie on the tree, of the given distance and radius."""
        distance = distance / local
        apart = np.flatnonzero(distance > _SAME_LUMEN)
        if len(apart) == 0:
            raise InputError(
                f"line {line} stays in the lumen of other lines over its whole length",
                where=self.where,
                expected="lines that end at different outlets",
                fix="Remove the line",
            )
        on = np.flatnonzero(distance[: apart[0]] <= self.tolerance)
        shared = int(on[-1]) + 1 if len(on) else 0
        step = np.diff(self.source[points[shared : apart[0]]], axis=0)
        beside = float(np.linalg.norm(step, axis=1).sum() / local[shared])
        if beside > _LONGEST_SHARED_LUMEN:
            raise InputError(
                f"line {line} runs beside another one in the same lumen for {beside:.1f} radii",
                where=self.where,
                expected=f"overlapping lines within {self.tolerance:g} radii of each other",
                fix="Raise merge_tolerance, or merge the lines with vmtkcenterlinemerge",
            )
        return shared

    def _foot(self, segment: Int[np.ndarray, "2"], share: float, near: float) -> int:
        """The point of the tree on a segment; a new one unless an end is near."""
        first, second = (int(i) for i in segment)
        a, b = self.position[first], self.position[second]
        foot = a + share * (b - a)
        for end in (first, second):
            if np.linalg.norm(foot - self.position[end]) <= near:
                return end
        self.position.append(foot)
        self.radius.append((1 - share) * self.radius[first] + share * self.radius[second])
        self.parent.append(first)
        self.parent[second] = len(self.position) - 1
        return self.parent[second]

    def _append(self, line: int, points: Int[np.ndarray, " p"], parent: int) -> None:
        for p in points.tolist():
            self.position.append(self.source[p])
            self.radius.append(float(self.source_radius[p]))
            self.parent.append(parent)
            parent = len(self.position) - 1
        self.end[line] = parent

    def tree(self) -> PointTree:
        return PointTree(
            np.array(self.position),
            np.array(self.radius),
            np.array(self.parent, np.int64),
            self.end,
            "line",
        )
