"""Vessels drawn as courses on a heart, with calibres from a branching law."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq

from .._misc import InputError
from ..network import build_network, VascularNetwork
from ..units import M_PER_MM

# D^γ is conserved at a junction: Huo and Kassab's exponent for epicardial arteries.
BRANCHING_EXPONENT = 7.0 / 3.0
_NODE_SPACING = 2.5e-3
_TAPER_PER_M = 0.6  # calibre lost between junctions where no end is prescribed: 6 % in 10 cm


@dataclass(frozen=True)
class Course:
    """One drawn vessel.

    - `point`: (p, 3), m, from its origin on; the first point is moved onto the parent.
    - `parent`, `at_mm`: the vessel it leaves and the arc length there; beyond the parent's end
      means at its end.
    - `diameter_mm`: at its origin, or None where `share` gives it.
    - `share`: part of the parent's D^γ that it takes over.
    - `end_mm`: diameter known farther down, at the arc length `end_at_mm` (beyond the end means at
      the end), reached by a smooth taper between the junctions.
    """

    name: str
    point: Float[np.ndarray, "p 3"]
    parent: str | None = None
    at_mm: float = np.inf
    diameter_mm: float | None = None
    share: float | None = None
    end_mm: float | None = None
    end_at_mm: float = np.inf


@dataclass
class _Drawn:
    """A course under construction: nodes along its arc, and where its children leave."""

    course: Course
    arc: np.ndarray
    position: np.ndarray
    child_at: list[tuple[float, Course]]
    node: np.ndarray


def smooth_course(
    waypoint: Float[np.ndarray, "w 3"],
    surface: Callable[[np.ndarray], np.ndarray],
    samples: int = 60,
) -> Float[np.ndarray, "p 3"]:
    """A smooth curve through waypoints in the coordinates of a surface, mapped to space.

    **Arguments:** `surface`, from (p, 3) coordinates, such as angle, height and distance, to
    (p, 3) positions in m.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    waypoint = 1e-3 * np.array([[0, 0, 0], [20, 5, 0], [40, 0, 0]])
    point = jp.anatomy.smooth_course(waypoint, lambda x: x)
    ```
    """
    t = np.linspace(0.0, 1.0, waypoint.shape[0])
    return surface(CubicSpline(t, waypoint, bc_type="natural")(np.linspace(0.0, 1.0, samples)))


def arc_length(point: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, " p"]:
    """Arc length (m) of every point of a polyline from its first."""
    return np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(point, axis=0), axis=1))])


def network_from_courses(
    courses: Sequence[Course],
    *,
    frame: str,
    exponent: float = BRANCHING_EXPONENT,
    where: str = "drawn tree",
) -> VascularNetwork:
    r"""Join drawn vessels into a network in which D^γ is conserved at the side branches.

    Along a vessel the diameter tapers smoothly, and at every side branch it steps down so that

    $$D_{before}^\gamma = D_{after}^\gamma + d^\gamma.$$

    The taper is the one that leads to `end_mm`.

    **Arguments:** `courses`, parents before children; a course without parent is a root.

    **Errors:** [`InputError`][] for an unknown parent, and for a calibre at the end that no
    positive diameter leads to.

    **Example:**

    ```python
    import numpy as np
    from jaxperf.anatomy import Course, network_from_courses
    lad = Course("LAD", 1e-3 * np.array([[0, 0, 0], [30, 0, 0], [60, 9, 0]]), diameter_mm=3.6)
    d1 = Course("D1", 1e-3 * np.array([[20, 0, 0], [50, 30, 0]]), "LAD", at_mm=20, share=0.3)
    tree = network_from_courses([lad, d1], frame="LPS")
    ```
    """
    by_name = {course.name: course for course in courses}
    position: list[np.ndarray] = []
    segment: list[tuple[int, int]] = []
    radius: list[tuple[float, float]] = []
    branch: list[int] = []
    root: list[int] = []
    drawn: dict[str, _Drawn] = {}
    calibre: dict[str, float] = {}
    for number, course in enumerate(courses):
        if course.parent is not None and course.parent not in drawn:
            raise InputError(
                f"{course.name} leaves {course.parent}, which is not drawn before it",
                where=where,
                expected=f"one of {', '.join(drawn)}",
                fix="List parents before their branches",
            )
        start = None if course.parent is None else _node_at(drawn[course.parent], course.at_mm)
        point = course.point.copy()
        if start is not None:
            point[0] = position[start]
        child_at = [
            (min(c.at_mm * M_PER_MM, float(arc_length(point)[-1])), c)
            for c in by_name.values()
            if c.parent == course.name
        ]
        piece = _sampled(course, point, sorted(child_at, key=lambda item: item[0]))
        first = len(position) if start is None else start
        fresh = piece.position if start is None else piece.position[1:]
        if start is None:
            root.append(first)
        piece.node = np.concatenate(
            [[first], len(position) + np.arange(len(fresh) - (start is None)) + (start is None)]
        ).astype(np.int64)
        position.extend(fresh)
        drawn[course.name] = piece
        before, after = _calibres(piece, calibre, exponent, where)
        segment += list(zip(piece.node[:-1].tolist(), piece.node[1:].tolist(), strict=True))
        radius += [(0.5 * a, 0.5 * b) for a, b in zip(after[:-1], before[1:], strict=True)]
        branch += [number] * (len(piece.node) - 1)
    return build_network(
        np.array(position),
        np.array(segment, np.int64),
        np.array(radius),
        root=np.array(root, np.int64),
        frame=frame,
        branch=np.array(branch, np.int64),
        branch_name=tuple(by_name),
        where=where,
    )


def _node_at(parent: _Drawn, at_mm: float) -> int:
    at = min(at_mm * M_PER_MM, float(parent.arc[-1]))
    return int(parent.node[np.argmin(np.abs(parent.arc - at))])


def _sampled(course: Course, point: np.ndarray, child_at: list[tuple[float, Course]]) -> _Drawn:
    """Nodes about evenly spaced, one of them at every side branch."""
    arc = arc_length(point)
    stops = np.unique(np.concatenate([[0.0, arc[-1]], [at for at, _ in child_at]]))
    parts = [
        np.linspace(a, b, max(2, 1 + round((b - a) / _NODE_SPACING)))[:-1]
        for a, b in itertools.pairwise(stops)
    ]
    at = np.append(np.concatenate(parts), arc[-1])
    sampled = np.stack([np.interp(at, arc, point[:, k]) for k in range(3)], axis=1)
    return _Drawn(course, at, sampled, child_at, np.zeros(0, np.int64))


def _calibres(
    piece: _Drawn, calibre: dict[str, float], exponent: float, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Diameter (m) before and after the side branches of every node; children's into `calibre`."""
    course = piece.course
    start = course.diameter_mm * M_PER_MM if course.diameter_mm else calibre[course.name]
    rate = _TAPER_PER_M
    if course.end_mm is not None:
        end = course.end_mm * M_PER_MM
        at = int(np.argmin(np.abs(piece.arc - min(course.end_at_mm * M_PER_MM, piece.arc[-1]))))

        def excess(rate: float) -> float:
            return _march(piece, start, rate, exponent, None)[0][at] - end

        low, high = -20.0, 60.0
        if excess(low) * excess(high) > 0.0:
            raise InputError(
                f"{course.name} cannot go from {start / M_PER_MM:.2f} to {course.end_mm} mm",
                where=where,
                expected="an end that its side branches leave over",
                fix="Take over less in the side branches, or change the diameters",
            )
        rate: float = brentq(excess, low, high)  # pyright: ignore[reportAssignmentType]
    return _march(piece, start, rate, exponent, calibre)


def _march(
    piece: _Drawn, start: float, rate: float, exponent: float, calibre: dict[str, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    before, after = np.empty(len(piece.arc)), np.empty(len(piece.arc))
    diameter, previous = start, 0.0
    last = len(piece.arc) - 1
    for i, arc in enumerate(piece.arc):
        diameter *= np.exp(-rate * (arc - previous))
        before[i], previous = diameter, arc
        for at, child in piece.child_at:
            if abs(at - arc) > 1e-9:
                continue
            if child.diameter_mm:
                own = child.diameter_mm * M_PER_MM
            else:
                assert child.share is not None
                own = before[i] * child.share ** (1.0 / exponent)
            if calibre is not None:
                calibre[child.name] = own
            if i < last:
                left = diameter**exponent - own**exponent
                diameter = max(left, 1e-30) ** (1.0 / exponent)
        after[i] = diameter
    return before, after
