"""The lines of a VTK file, put in order: where each begins, and which goes on from which."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components
from scipy.spatial import KDTree

from .._misc import InputError, note

# A step this many times the usual one of its line, and this many radii long, is no step along a
# vessel; lines of fewer points have no usual step.
_JUMP, _JUMP_RADII, _FEWEST = 15.0, 8.0, 8
# Ends this near to each other, as a share of the extent, are one point written twice.
_SAME_END = 1e-6
# Cells of one group end this many radii apart at most: in a bifurcation each turns its own way.
_SAME_GROUP = 2.0
# The widest end of a tree is its inlet, where it is wider than the others by this factor.
_WIDEST = 1.2


@dataclass(frozen=True)
class Course:
    """A stretch of vessel: its points, the lines that it is made of, and the course before it.

    `ends` holds the place, among the points, at which each of these lines ends. `before` is −1
    where no line ends at the course's first point.
    """

    points: Int[np.ndarray, " k"]
    ends: dict[int, int]
    before: int


def lines_of(data: Any, where: str, expected: str) -> dict[int, Int[np.ndarray, " _"]]:
    """The point indices of each line by its number, without immediate repetitions."""
    if data.n_lines == 0 or data.n_lines + data.n_verts != data.n_cells:
        raise InputError(
            f"of its {data.n_cells} cells {data.n_lines} are lines",
            where=where,
            expected=expected,
            fix="Export the centrelines and not the vessel surface",
        )
    flat, lines = np.asarray(data.lines), {}
    at = number = 0
    while at < len(flat):
        line = flat[at + 1 : at + 1 + flat[at]].astype(np.int64)
        at += 1 + int(flat[at])
        if line.size and not 0 <= line.min() <= line.max() < data.n_points:
            raise InputError(
                f"line {number} names point {line.max()} of {data.n_points}",
                where=where,
                expected=f"points 0 to {data.n_points - 1}",
                fix="Export the centrelines again",
            )
        line = line[np.concatenate([[True], np.diff(line) != 0])]
        if len(line) > 1:
            lines[number] = line
        number += 1
    single = data.n_lines - len(lines) + data.n_verts
    if not lines:
        raise InputError(
            "no line has two points", where=where, expected=expected, fix="Export them again"
        )
    if single:
        note(f"{single} of its cells are single points and were left out", where=where)
    return lines


def one_of_each_group(
    data: Any,
    lines: dict[int, Int[np.ndarray, " _"]],
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    where: str,
) -> dict[int, Int[np.ndarray, " _"]]:
    """The lines without those that VMTK has cut out of several centrelines for one stretch.

    Cells of one `GroupIds` are the same stretch of vessel, once for each centreline through it. The
    first one stands for all. A file whose cells are whole centrelines has no `Blanking`.
    """
    names = data.cell_data.keys()
    if "GroupIds" not in names or "Blanking" not in names:
        return lines
    group = np.asarray(data.cell_data["GroupIds"])[data.n_verts :]
    first: dict[int, int] = {}
    for number, line in lines.items():
        one = first.setdefault(int(group[number]), number)
        if one == number:
            continue
        ends = position[line[[0, -1]]] - position[lines[one][[0, -1]]]
        limit = _SAME_GROUP * radius[lines[one]].max()
        if np.linalg.norm(ends, axis=1).max() > limit:
            raise InputError(
                f"lines {one} and {number} have the GroupIds {group[number]}, but do not begin and "
                "end at the same place",
                where=where,
                expected="cells of one group to be one stretch of vessel, as vmtkbranchextractor "
                "writes them",
                fix="Remove the array GroupIds, or extract the branches again",
            )
    if len(first) < len(lines):
        note(
            f"its {len(lines)} lines are {len(first)} groups (GroupIds); the first line of each "
            "group was read",
            where=where,
        )
    return {number: lines[number] for number in first.values()}


def put_right(
    line: Int[np.ndarray, " k"],
    number: int,
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    where: str,
) -> Int[np.ndarray, " k"]:
    """A line that begins with its first point; one that jumps and is not merely rotated is refused.

    A line is rotated where its last point is followed by its first one at a usual step.
    """
    if len(line) < _FEWEST:
        return line
    step = np.linalg.norm(np.diff(position[line], axis=0), axis=1)
    usual = float(np.median(step))
    jump = (step > _JUMP * usual) & (step > _JUMP_RADII * radius[line[:-1]])
    if not jump.any():
        return line
    at = int(np.argmax(step))
    closing = float(np.linalg.norm(position[line[0]] - position[line[-1]]))
    if jump.sum() == 1 and closing <= 2.0 * usual:
        note(
            f"line {number} begins with its point {at + 1}: after point {at} it jumps by "
            f"{step[at] / usual:.0f} of its steps, and its last point lies beside its first",
            where=where,
        )
        return np.concatenate([line[at + 1 :], line[: at + 1]])
    raise InputError(
        f"line {number} jumps by {step[at]:.3g} (in units of the file) between its points {at} and "
        f"{at + 1}, {step[at] / usual:.0f} times its usual step",
        where=where,
        expected="points in the order in which they follow each other along the vessel",
        fix="Sort the points of the line, or cut it into two where it has a gap",
    )


def courses_of(
    lines: dict[int, Int[np.ndarray, " _"]],
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    where: str,
) -> list[Course]:
    """The lines, joined where one begins at the point at which another ends.

    **Errors:** [`InputError`][] where joined lines close a loop.
    """
    number = [n for n, line in lines.items() if np.ptp(position[line], axis=0).max() > 0.0]
    end = _joined_ends(np.array([lines[n][[0, -1]] for n in number]), position)
    if not np.isin(end[:, 1], end[:, 0]).any():
        return [Course(lines[n], {n: len(lines[n]) - 1}, -1) for n in number]
    parts = [lines[n] for n in number]
    _refuse_loops(end, number, [position[x[-1]] for x in parts], where)
    if len(np.unique(end[:, 1])) < len(end):
        end, parts = _from_the_inlet(end, parts, radius, where)
    after: dict[int, list[int]] = {}
    for i, start in enumerate(end[:, 0].tolist()):
        after.setdefault(start, []).append(i)
    into = set(end[:, 1].tolist())
    waiting = [(i, -1) for i in range(len(parts)) if int(end[i, 0]) not in into]
    courses: list[Course] = []
    for first, before in waiting:
        chain = [first]
        while len(following := after.get(int(end[chain[-1], 1]), [])) == 1:
            chain += following
        waiting += [(i, len(courses)) for i in following]
        joined = [parts[chain[0]]]
        for i in chain[1:]:
            # a point of its own at the same place may have another radius
            joined.append(parts[i][int(parts[i][0] == joined[-1][-1]) :])
        place = np.cumsum([len(x) for x in joined]) - 1
        ends = {number[i]: int(k) for i, k in zip(chain, place, strict=True)}
        courses.append(Course(np.concatenate(joined), ends, before))
    return courses


def _joined_ends(
    end: Int[np.ndarray, "l 2"], position: Float[np.ndarray, "p 3"]
) -> Int[np.ndarray, "l 2"]:
    """A number for the place of each end; ends at one place have the same."""
    place = position[end.ravel()]
    pair = KDTree(place).query_pairs(_SAME_END * float(np.ptp(place)), output_type="ndarray")
    graph = coo_array((np.ones(len(pair)), pair.T), shape=(len(place), len(place)))
    return connected_components(graph, directed=False)[1].astype(np.int64).reshape(-1, 2)


def _refuse_loops(
    end: Int[np.ndarray, "l 2"], number: list[int], place: list[np.ndarray], where: str
) -> None:
    """Lines that close a loop, found by joining one line after the other."""
    group = np.arange(int(end.max()) + 1)

    def top(i: int) -> int:
        while group[i] != i:
            group[i] = group[group[i]]
            i = int(group[i])
        return i

    for i, (a, b) in enumerate(end.tolist()):
        first, second = top(a), top(b)
        if first == second:
            x, y, z = place[i]
            raise InputError(
                f"line {number[i]} ends at ({x:.4g}, {y:.4g}, {z:.4g}), which other lines lead to "
                "already: they close a loop",
                where=where,
                expected="a tree: one way from the inlet to each point",
                fix="Leave the collateral out, or cut it before it meets the other vessel",
            )
        group[first] = second


def _from_the_inlet(
    end: Int[np.ndarray, "l 2"],
    parts: list[Int[np.ndarray, " _"]],
    radius: Float[np.ndarray, " p"],
    where: str,
) -> tuple[Int[np.ndarray, "l 2"], list[Int[np.ndarray, " _"]]]:
    """The lines turned so that all run away from the widest end of their piece."""
    n = int(end.max()) + 1
    graph = coo_array((np.ones(len(end)), end.T), shape=(n, n)).tocsr()
    piece = connected_components(graph, directed=False)[1]
    width = np.zeros(n)
    for (a, b), line in zip(end.tolist(), parts, strict=True):
        width[a], width[b] = max(width[a], radius[line[0]]), max(width[b], radius[line[-1]])
    free = np.flatnonzero(np.bincount(end.ravel(), minlength=n) == 1)
    turned = 0
    for p in np.unique(piece):
        tips = free[piece[free] == p]
        tips = tips[np.argsort(-width[tips])]
        if len(tips) > 1 and width[tips[0]] < _WIDEST * width[tips[1]]:
            raise InputError(
                "its lines meet end to end, and no free end is much wider than the others",
                where=where,
                expected="lines that run from the inlet outwards",
                fix="Turn the lines so that each begins where the one before it ends",
            )
        before = breadth_first_order(graph, int(tips[0]), directed=False)[1]
        for i in np.flatnonzero(piece[end[:, 0]] == p).tolist():
            if before[end[i, 1]] != end[i, 0]:
                end[i], parts[i] = end[i, ::-1].copy(), parts[i][::-1]
                turned += 1
    note(f"{turned} lines run towards the widest end, which is taken as the inlet, and were turned",
         where=where)  # fmt: skip
    return end, parts
