"""Lines as one tree: which leaves which, and where."""

import numpy as np
from jaxtyping import Bool, Float, Int

from .._misc import InputError
from ._overlap import Overlap
from ._polylines import Course
from ._tree import is_single, PointTree

# Longest link from the first point of a side branch to the centreline of its parent, in radii of
# the parent: at an acute ostium the first point of its own can lie well outside the lumen.
_LONGEST_LINK = 2.0
# Points of lines on one course lie this near, in radii of the vessel; where those that begin
# together do not lie on each other, five times as near as their nearest quarter does.
_SAME_POINT, _SCATTER = 0.02, 5.0
_SAME_COURSE = 0.25
# Longest way of a line in the lumen of another after it has left its centreline, in radii: the
# daughters of a bifurcation leave it before, unless they part by less than 7 degrees. A stem that
# divides at its very first point is rare; two lines that do are a stem tracked twice.
_LONGEST_SHARED = 8.0
_LONGEST_FROM_START = 3.5
_PARTS_AT_START = 2.0


def merged(
    courses: list[Course],
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    n_roots: int,
    tolerance: float | None,
    where: str,
) -> tuple[PointTree, float]:
    """The tree of courses that overlap, begin beside their parent, or go on from each other.

    **Arguments:** `position`, `radius` and `tolerance`, of points on the same course, in m.

    **Returns:** the tree, and within which distance lines that scatter were taken for one; 0
    where none did or the tolerance is given.
    """
    builder = _Builder(position, radius, tolerance, where)
    free = [c for c in courses if c.before < 0]
    for i, is_root in _order([c.points for c in free], position, radius, n_roots, where):
        if is_root:
            builder.start(free[i])
        else:
            builder.attach(free[i])
        builder.go_on(free[i], courses)
    return builder.tree(), builder.scatter


def is_one_tree(
    courses: list[Course],
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, " p"],
    n_roots: int,
    tolerance: float,
    where: str,
) -> bool:
    """Whether a tolerance makes a tree of the courses in which no lumen runs inside another."""
    try:
        return is_single(merged(courses, position, radius, n_roots, tolerance, where)[0], where)
    except InputError:
        return False


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
    segment = np.concatenate([_pairs(line) for line in lines])
    first = np.cumsum([0, *(len(line) - 1 for line in lines[:-1])])
    along = position[segment[:, 1]] - position[segment[:, 0]]
    scale = radius[segment].max(axis=1)
    gap = np.empty((n, n))
    for i, line in enumerate(lines):
        distance = _to_segments(position[line[0]], position[segment[:, 0]], along)[0]
        gap[i] = np.minimum.reduceat(distance / scale, first)
    np.fill_diagonal(gap, np.inf)
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
                expected=f"`n_roots` = {n_roots} inlets",
                fix="Correct `n_roots`",
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


def _to_segments(
    point: Float[np.ndarray, "3"], start: Float[np.ndarray, "s 3"], along: Float[np.ndarray, "s 3"]
) -> tuple[Float[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """The distance of a point to each segment, and how far along it the nearest place is."""
    square = np.maximum((along**2).sum(1), np.finfo(np.float64).tiny)
    offset = point[None, :] - start
    t = np.clip((offset * along).sum(1) / square, 0.0, 1.0)
    return np.sqrt(((offset - t[:, None] * along) ** 2).sum(1)), t


def _nearest(
    point: Float[np.ndarray, "q 3"],
    position: Float[np.ndarray, "p 3"],
    segment: Int[np.ndarray, "s 2"],
) -> tuple[Int[np.ndarray, " q"], Float[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """The nearest segment of each point, the distance to it, and how far along it that is."""
    start = position[segment[:, 0]]
    along = position[segment[:, 1]] - start
    index = np.empty(len(point), np.int64)
    distance, share = np.empty(len(point)), np.empty(len(point))
    for i, p in enumerate(point):
        d, t = _to_segments(p, start, along)
        index[i] = k = int(np.argmin(d))
        distance[i], share[i] = d[k], t[k]
    return index, distance, share


def _first(true: Bool[np.ndarray, " p"]) -> int:
    """The index of the first entry that is true; their number where none is."""
    return int(np.argmax(true)) if true.any() else len(true)


class _Builder:
    """The tree as it grows line by line."""

    def __init__(
        self,
        position: Float[np.ndarray, "p 3"],
        radius: Float[np.ndarray, " p"],
        tolerance: float | None,
        where: str,
    ) -> None:
        self.source, self.source_radius = position, radius
        self.tolerance, self.where = tolerance, where
        self.position: list[np.ndarray] = []
        self.radius: list[float] = []
        self.parent: list[int] = []
        self.line: list[int] = []
        self.end: dict[int, int] = {}
        self.beside: list[Overlap] = []
        self.last: dict[int, int] = {}
        self.scatter = 0.0

    def start(self, course: Course) -> None:
        """Begin a tree with a whole course."""
        self._append(course, 0, -1)

    def go_on(self, course: Course, courses: list[Course]) -> None:
        """Add the courses that begin where this one ends, and those after them."""
        waiting = [course]
        for done in waiting:
            number = next(i for i, c in enumerate(courses) if c is done)
            for following in courses:
                if following.before == number:
                    self._append(following, 0, self.last[id(done)])
                    waiting.append(following)

    def attach(self, course: Course) -> None:
        """Add the part of a course that is not yet in the tree."""
        points, line = course.points, next(iter(course.ends))
        position = np.array(self.position)
        radius = np.array(self.radius)
        child = np.flatnonzero(np.array(self.parent) >= 0)
        segment = np.stack([np.array(self.parent)[child], child], axis=1)
        index, distance, share = _nearest(self.source[points], position, segment)
        local = radius[segment[index]]
        local = (1 - share) * local[:, 0] + share * local[:, 1]
        near = self._near(points, distance, local)
        shared = self._shared(line, points, segment[index], distance, local, near)
        if shared == 0 and distance[0] > _LONGEST_LINK * local[0]:
            raise InputError(
                f"line {line} starts {distance[0] * 1e3:.3g} mm from the nearest other line, "
                f"{distance[0] / local[0]:.2g} of its radii",
                where=self.where,
                expected=f"a start within {_LONGEST_LINK:g} radii of the parent's centreline",
                fix="Check that the line runs from its parent outwards, or set `n_roots` if it "
                "is a tree of its own",
            )
        k = max(shared - 1, 0)
        at = self._foot(segment[index[k]], share[k], near[k])
        self._append(course, shared, at)

    def _near(
        self,
        points: Int[np.ndarray, " p"],
        distance: Float[np.ndarray, " p"],
        local: Float[np.ndarray, " p"],
    ) -> Float[np.ndarray, " p"]:
        """How near to the tree each point must lie to be on it."""
        if self.tolerance is not None:
            return np.full(len(points), self.tolerance)
        root = np.array(self.position)[np.array(self.parent) < 0]
        from_root = np.linalg.norm(root - self.source[points[0]][None, :], axis=1).min()
        share = _SAME_POINT
        if from_root <= local[0]:
            stay = _first(distance > local)
            inside = (distance / local)[:stay]
            # lines that part at once have no course in common
            if self._radii(points[:stay], local[:stay]) > _LONGEST_FROM_START:
                share = float(np.clip(_SCATTER * np.quantile(inside, 0.25), share, _SAME_COURSE))
            if share > _SAME_POINT:
                self.scatter = max(self.scatter, share * float(local[:stay].max()))
        return share * local

    def _shared(
        self,
        line: int,
        points: Int[np.ndarray, " p"],
        segment: Int[np.ndarray, "p 2"],
        distance: Float[np.ndarray, " p"],
        local: Float[np.ndarray, " p"],
        near: Float[np.ndarray, " p"],
    ) -> int:
        """The number of leading points that lie on the tree, of the given distance and radius."""
        if np.all(distance <= np.maximum(near, _SAME_COURSE * local)):
            raise InputError(
                f"line {line} stays in the lumen of other lines over its whole length",
                where=self.where,
                expected="lines that end at different outlets",
                fix="Remove the line",
            )
        leaves = _first(distance > np.maximum(near, local))
        on = np.flatnonzero(distance[:leaves] <= near[:leaves])
        shared = int(on[-1]) + 1 if len(on) else 0
        part = points[shared:leaves]
        radii = self._radii(part, local[shared:leaves])
        begins = self.parent[segment[0, 0]] < 0 and distance[0] <= near[0]
        at_start = begins and self._radii(points[:shared], local[:shared]) < _PARTS_AT_START
        if radii > (_LONGEST_FROM_START if at_start else _LONGEST_SHARED):
            begin, end = self.source[part[0]], self.source[part[-1]]
            apart = float(distance[shared:leaves].mean())
            here, other = len(self.position), int(segment[leaves - 1, 1])
            self.beside.append(Overlap(here, here, other, begin, end, apart, radii, False))
        return shared

    def _radii(self, points: Int[np.ndarray, " k"], local: Float[np.ndarray, " k"]) -> float:
        """The length of a stretch in radii of the vessel in which it runs."""
        step = np.linalg.norm(np.diff(self.source[points], axis=0), axis=1)
        return float((step / local[1:]).sum())

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
        self.line.append(self.line[second])
        self.parent[second] = len(self.position) - 1
        return self.parent[second]

    def _append(self, course: Course, skipped: int, parent: int) -> None:
        first = len(self.position) - skipped
        of = np.searchsorted(list(course.ends.values()), np.arange(len(course.points)))
        number = list(course.ends)
        for p, i in zip(course.points[skipped:].tolist(), of[skipped:].tolist(), strict=True):
            self.position.append(self.source[p])
            self.radius.append(float(self.source_radius[p]))
            self.parent.append(parent)
            self.line.append(number[i])
            parent = len(self.position) - 1
        # a line that ends on the part which is in the tree already ends no branch
        self.end |= {n: first + k for n, k in course.ends.items() if k >= skipped}
        self.last[id(course)] = parent

    def tree(self) -> PointTree:
        return PointTree(
            np.array(self.position),
            np.array(self.radius),
            np.array(self.parent, np.int64),
            np.array(self.line, np.int64),
            self.end,
            "line",
            tuple(self.beside),
        )
