"""Undeclared narrowings: where the lumen is narrower than a healthy vessel could be."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .._misc import InputError
from ..units import M_PER_MM
from ._network import branch_course, VascularNetwork
from ._territory import parent_segment, upstream

# An ostium has nothing before it; the widest lumen this near behind it (m) stands in. No left main
# is longer, and an ectasia farther on says nothing about the ostium.
_OSTIAL = 30e-3
# A fall that takes longer than this (m) is taper.
_SHOULDER = 10e-3
# A branch begins on the axis of the vessel that it leaves, and its own lumen this many of that
# vessel's radii farther on.
_FUNNEL = 2.0
# Huo and Kassab's exponent, of all published ones that which lets a vessel fall most at a junction.
_EXPONENT = 7.0 / 3.0


@dataclass(frozen=True)
class Narrowing:
    """A narrowing that no lesion declares: its interval on a branch, and its tightest place.

    `reference_radius_mm`, what a healthy lumen would be there; `to_the_end`, whether it reaches
    the end of its branch.
    """

    branch: str
    start_mm: float
    end_mm: float
    arc_mm: float
    diameter_reduction: float
    reference_radius_mm: float
    to_the_end: bool


class _Surroundings(NamedTuple):
    """What lies about each place of a network.

    **Attributes:** of segments, `into` a node (−1 at a root) and `widest`, the larger of the two
    radii; of nodes, `after`, the widest lumen below, and `ostial`, the widest one near the root
    where the node is near it, else 0.
    """

    into: Int[np.ndarray, " n"]
    widest: Float[np.ndarray, " s"]
    after: Float[np.ndarray, " n"]
    ostial: Float[np.ndarray, " n"]


class _Course(NamedTuple):
    """A branch from its proximal end: at its nodes `k`, the arc length (m) and the lumen, the
    largest lumen before and after, and the part of a healthy lumen that the junction there takes.

    `own` is the first node clear of the vessel that the branch leaves.
    """

    arc: Float[np.ndarray, " k"]
    lumen: Float[np.ndarray, " k"]
    before: Float[np.ndarray, " k"]
    after: Float[np.ndarray, " k"]
    side: Float[np.ndarray, " k"]
    own: int


def undeclared_narrowings(
    network: VascularNetwork, threshold: float = 0.3, *, in_lesions: bool = False
) -> list[Narrowing]:
    """Places where the lumen is narrower than a healthy one by more than `threshold`.

    A healthy vessel does not widen on its way. So a lumen is held against the smaller of the
    widest one before it, up to the root, and the widest one behind it, in all that it feeds. An
    ostium in the aorta has nothing before it, and is held against the first 30 mm behind it. Where
    nothing wider follows, as at the end of a branch, the lumen is held against the taper of the
    vessel before it or behind it, whichever is steeper: a narrowing begins where it falls short of
    that within 10 mm. Side branches may take what 7/3 of a branching law gives them.

    Neighbouring places are one finding. Segments of declared lesions are left out. A branch that
    is narrow from its origin in another vessel to its end looks like a small branch.

    **Arguments:** `threshold`, of the diameter; `in_lesions`, look at the reference lumen of
    declared lesions too, which is narrow where it was taken from the ends of an interval that are.

    **Returns:** a [`jaxperf.network.Narrowing`][] for each.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    for found in jp.network.undeclared_narrowings(tree):
        print(found.branch, found.arc_mm, found.diameter_reduction)
    ```
    """
    around = _surroundings(network)
    declared = np.zeros(network.n_segments, np.bool_)
    declared[np.asarray(network.lesion.segment)] = True
    found = []
    for name in network.branch_name:
        try:
            segment, _ = branch_course(network, name)
        except InputError:
            continue  # a branch that divides, such as a grown tree, has no arc length
        course = _course(network, around, segment)
        healthy = np.maximum(np.minimum(course.before, course.after), course.lumen)
        healthy = np.maximum(healthy, _before_the_end(course, healthy, threshold))
        before, after = np.append(False, declared[segment]), np.append(declared[segment], False)
        # the ends of a lesion are narrow by what lies outside it, which its reference is not
        skipped = before ^ after if in_lesions else before | after
        found += _runs(name, course, np.where(skipped, course.lumen, healthy), threshold)
    return found


def _surroundings(network: VascularNetwork) -> _Surroundings:
    node, radius = np.asarray(network.segment_node), np.asarray(network.radius)
    length, into = np.asarray(network.length), parent_segment(network)
    widest, rows = radius.max(axis=1), upstream(network)[1]
    after = np.zeros(network.n_nodes)
    for row in rows:
        np.maximum.at(after, node[row, 0], np.maximum(widest[row], after[node[row, 1]]))
    way, root = np.zeros(network.n_nodes), np.full(network.n_nodes, -1)
    root[np.asarray(network.roots)] = np.asarray(network.roots)
    for row in reversed(rows):
        way[node[row, 1]] = way[node[row, 0]] + length[row]
        root[node[row, 1]] = root[node[row, 0]]
    near = way <= _OSTIAL
    most = np.zeros(network.n_nodes)
    for end in (0, 1):
        inside = near[node[:, end]]
        np.maximum.at(most, root[node[inside, end]], radius[inside, end])
    return _Surroundings(into, widest, after, np.where(near, most[root], 0.0))


def _course(
    network: VascularNetwork, around: _Surroundings, segment: Int[np.ndarray, " b"]
) -> _Course:
    node = np.asarray(network.segment_node)
    radius, length = np.asarray(network.radius)[segment], np.asarray(network.length)[segment]
    at = np.append(node[segment, 0], node[segment[-1], 1])
    arc = np.concatenate([[0.0], np.cumsum(length)])
    lumen = np.append(np.minimum(radius[:, 0], np.append(np.inf, radius[:-1, 1])), radius[-1, 1])
    wide, above, left = 0.0, around.into[at[0]], 0.0
    if above >= 0:
        left = _FUNNEL * float(np.asarray(network.radius)[above, 1])
    while above >= 0:
        wide = max(wide, float(around.widest[above]))
        above = around.into[node[above, 0]]
    before = np.maximum(np.maximum(wide, np.maximum.accumulate(lumen)), around.ostial[at])
    # at its origin other vessels leave too, which the branch does not feed
    below = np.append(0.0, around.after[at[1:]])
    after = np.maximum.accumulate(np.maximum(lumen, below)[::-1])[::-1]
    own = int(np.searchsorted(arc, left))
    return _Course(arc, lumen, before, after, _sides(network, segment, at), own)


def _sides(
    network: VascularNetwork, segment: Int[np.ndarray, " b"], at: Int[np.ndarray, " k"]
) -> Float[np.ndarray, " k"]:
    """Sum of the radii, to the power of the branching law, of what leaves at each node."""
    node, narrow = np.asarray(network.segment_node), np.asarray(network.radius).min(axis=1)
    leaving = np.bincount(node[:, 0], narrow**_EXPONENT, network.n_nodes)[at]
    leaving[:-1] -= narrow[segment] ** _EXPONENT
    return np.maximum(leaving, 0.0)


def _before_the_end(
    course: _Course, healthy: Float[np.ndarray, " k"], threshold: float
) -> Float[np.ndarray, " k"]:
    """What taper lets the lumen be behind the first place that falls short of it; else zero.

    The calibre before a place is taken without narrowings and without ectasias: it never grows.
    """
    arc, own = course.arc, course.own
    expected = np.zeros_like(arc)
    if own >= len(arc) - 1:
        return expected
    calibre = np.minimum.accumulate(healthy[own:])
    arc_own = arc[own:]
    for j in range(own + 1, len(arc)):
        back = max(arc[j] - _SHOULDER, arc[own])
        wide = float(np.interp(back, arc_own, calibre))
        slopes = []
        if back > arc[own]:
            farther = max(back - _SHOULDER, arc[own])
            near = float(np.interp(farther, arc_own, calibre)) - wide
            slopes += [(calibre[0] - wide) / (back - arc[own]), near / (back - farther)]
        if j < len(arc) - 1:
            slopes.append((healthy[j] - healthy[-1]) / (arc[-1] - arc[j]))
        if not slopes:
            break  # one straight taper from end to end
        slope = max(0.0, *slopes)
        behind = arc >= back
        taper = _tapered(course, behind, wide, slope * (arc[behind] - back))
        here = j - int(np.argmax(behind))
        if healthy[j] < (1.0 - threshold) * taper[here]:
            expected[behind] = np.minimum(taper, course.before[behind])
            break
    return expected


def _tapered(
    course: _Course, behind: Bool[np.ndarray, " k"], wide: float, lost: Float[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """A calibre that tapers along the course and gives the side branches what they need."""
    side = course.side[behind]
    # what leaves at a node is missing behind it
    gone = np.concatenate([[0.0], np.cumsum(side)[:-1]])
    left = np.maximum(wide**_EXPONENT - gone, 0.0) ** (1.0 / _EXPONENT)
    return np.maximum(left - lost, 0.0)


def _runs(
    name: str, course: _Course, healthy: Float[np.ndarray, " k"], threshold: float
) -> list[Narrowing]:
    reduction = 1.0 - course.lumen / np.maximum(healthy, course.lumen)
    over: Bool[np.ndarray, " k_2"] = np.concatenate([[False], reduction > threshold, [False]])
    edge = np.flatnonzero(over[1:] != over[:-1])
    mm = course.arc / M_PER_MM
    runs = []
    for first, stop in zip(edge[::2], edge[1::2], strict=True):
        worst = first + int(np.argmax(reduction[first:stop]))
        runs.append(
            Narrowing(
                branch=name,
                start_mm=float(mm[first]),
                end_mm=float(mm[stop - 1]),
                arc_mm=float(mm[worst]),
                diameter_reduction=float(reduction[worst]),
                reference_radius_mm=float(healthy[worst]) / M_PER_MM,
                to_the_end=bool(stop == len(mm)),
            )
        )
    return runs
