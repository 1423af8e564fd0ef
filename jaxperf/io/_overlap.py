"""Lumens that run inside each other: one vessel tracked twice, or a branch that ends on another."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

# Two centrelines in one lumen are one vessel unless they have just parted: the daughters of a
# bifurcation leave each other's lumen within eight radii, or part at less than 7 degrees.
_PARTED = 8.0
# Vessels that cross meet for two radii. The drawn and the measured trees stay below 1.7.
_LONGEST_MEETING = 3.0
# An end touches a lumen that reaches into its own by half its radius.
_TOUCH = 0.5
# Samples along a centreline, in radii.
_STEP = 0.25


@dataclass(frozen=True)
class Overlap:
    """A stretch of centreline inside the lumen of another place of the tree.

    `first`, `last`: the points (of the tree) between which it lies; `other`: a point of the vessel
    in whose lumen it runs; `begin`, `end`: its ends; `apart`: the mean distance of the
    centrelines; `radii`: its length in radii of the other vessel; `is_end`: whether the vessel ends
    in that lumen, without running beside it.
    """

    first: int
    last: int
    other: int
    begin: Float[np.ndarray, "3"]
    end: Float[np.ndarray, "3"]
    apart: float
    radii: float
    is_end: bool


@dataclass(frozen=True)
class _Samples:
    """Places along the segments, vessel by vessel and in the order of the way from the root."""

    position: Float[np.ndarray, "q 3"]
    radius: Float[np.ndarray, " q"]
    depth: Float[np.ndarray, " q"]
    point: Int[np.ndarray, " q"]
    vessel: Int[np.ndarray, " q"]


def overlaps(
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, "s 2"],
    segment: Int[np.ndarray, "s 2"],
) -> list[Overlap]:
    """Where a tree runs inside its own lumen.

    Places that lie in one lumen and more than sixteen radii apart along the tree are no two
    daughters that have just parted. An end counts from eight radii on.

    **Arguments:** `segment`: (proximal, distal) points of a forest, in any order; `radius` at these
    two.
    """
    vessels, before = _vessels(segment)
    sample = _sampled(position, radius, segment, vessels)
    last = np.array([sample.depth[sample.vessel == v].max() for v in range(len(vessels))])
    way = _Ways(before, last)
    host = np.full(len(sample.point), -1, np.int64)
    distance = np.full(len(sample.point), np.inf)
    lumens = KDTree(sample.position)

    def meet(i: Int[np.ndarray, " k"], j: Int[np.ndarray, " k"], parted: float) -> None:
        """Keep for each j the nearest i in whose lumen it lies."""
        far = way.between(sample, i, j) > parted * sample.radius[i]
        i, j = i[far], j[far]
        apart = np.linalg.norm(sample.position[i] - sample.position[j], axis=1)
        for n in np.argsort(-apart, kind="stable"):
            if apart[n] <= distance[j[n]]:
                host[j[n]], distance[j[n]] = i[n], apart[n]

    hits = lumens.query_ball_point(sample.position, sample.radius)
    count = np.array([len(h) for h in hits])
    meet(np.repeat(np.arange(len(hits)), count), np.concatenate(hits).astype(int), 2.0 * _PARTED)
    is_end = np.append(sample.vessel[1:] != sample.vessel[:-1], True)
    is_end &= ~np.isin(sample.vessel, before)
    for j in np.flatnonzero(is_end):
        touch = _TOUCH * sample.radius[j]
        near = lumens.query_ball_point(sample.position[j], sample.radius.max() + touch)
        i = np.array(near, np.int64)
        apart = np.linalg.norm(sample.position[i] - sample.position[j][None, :], axis=1)
        i = i[apart < sample.radius[i] + touch]
        meet(i, np.full(len(i), j), _PARTED)
    return _stretches(sample, host, distance, is_end)


def _stretches(
    sample: _Samples,
    host: Int[np.ndarray, " q"],
    distance: Float[np.ndarray, " q"],
    is_end: np.ndarray,
) -> list[Overlap]:
    inside = host >= 0
    same = np.append(False, sample.vessel[1:] == sample.vessel[:-1])
    first = np.flatnonzero(inside & ~(same & np.append(False, inside[:-1])))
    found = []
    for a in first.tolist():
        b = a
        while b + 1 < len(host) and inside[b + 1] and same[b + 1]:
            b += 1
        part = slice(a, b + 1)
        step = np.diff(sample.depth[part]) / sample.radius[host[a + 1 : b + 1]]
        radii = float(step.sum())
        if radii > _LONGEST_MEETING or is_end[b]:
            found.append(
                Overlap(
                    int(sample.point[a]),
                    int(sample.point[b]),
                    int(sample.point[host[b]]),
                    sample.position[a],
                    sample.position[b],
                    float(distance[part].mean()),
                    radii,
                    radii <= _LONGEST_MEETING,
                )
            )
    return found


def _vessels(segment: Int[np.ndarray, "s 2"]) -> tuple[list[list[int]], list[int]]:
    """The segments of each unbranched chain in order, and the chain before each.

    Before the first chains stand their roots, as −1 less the point.
    """
    below: dict[int, list[int]] = {}
    for s, (a, _) in enumerate(segment.tolist()):
        below.setdefault(a, []).append(s)
    roots = sorted(set(segment[:, 0].tolist()) - set(segment[:, 1].tolist()))
    waiting = [(s, -1 - root) for root in roots for s in below[root]]
    chains: list[list[int]] = []
    before: list[int] = []
    for s, parent in waiting:
        chain = [s]
        while len(following := below.get(int(segment[chain[-1], 1]), [])) == 1:
            chain += following
        waiting += [(s, len(chains)) for s in following]
        chains.append(chain)
        before.append(parent)
    return chains, before


def _sampled(
    position: Float[np.ndarray, "p 3"],
    radius: Float[np.ndarray, "s 2"],
    segment: Int[np.ndarray, "s 2"],
    vessels: list[list[int]],
) -> _Samples:
    depth_at = np.zeros(len(position))
    parts: list[tuple[np.ndarray, ...]] = []
    for number, chain in enumerate(vessels):
        node = np.append(segment[chain[0], 0], segment[chain, 1])
        length = np.linalg.norm(np.diff(position[node], axis=0), axis=1)
        depth = depth_at[node[0]] + np.append(0.0, np.cumsum(length))
        depth_at[node] = depth
        lumen = np.append(radius[chain[0], 0], radius[chain, 1])
        # equal steps in radii, so that neither sparse nor dense points matter
        along = np.append(0.0, np.cumsum(length / radius[chain].min(axis=1)))
        at = np.linspace(0.0, along[-1], int(np.ceil(along[-1] / _STEP)) + 1)[1:]
        parts.append(
            (
                np.stack([np.interp(at, along, position[node, k]) for k in range(3)], axis=1),
                np.interp(at, along, lumen),
                np.interp(at, along, depth),
                node[np.searchsorted(along, at)],
                np.full(len(at), number),
            )
        )
    return _Samples(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class _Ways:
    """The way along the tree between two samples.

    `before`: the chain before each; `last`: how deep each reaches.
    """

    def __init__(self, before: list[int], last: Float[np.ndarray, " v"]) -> None:
        self.before, self.last = before, last

    def between(
        self, sample: _Samples, i: Int[np.ndarray, " k"], j: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, " k"]:
        pair = np.stack([sample.vessel[i], sample.vessel[j]], axis=1)
        met, which = np.unique(pair, axis=0, return_inverse=True)
        turn = np.array([self._turn(int(a), int(b)) for a, b in met], np.float64)[which.ravel()]
        first, second = sample.depth[i], sample.depth[j]
        return first + second - 2.0 * np.minimum(turn, np.minimum(first, second))

    def _turn(self, a: int, b: int) -> float:
        """How deep the ways to two chains go together; infinite where one leads to the other."""
        first, second = self._way(a), self._way(b)
        common = [v for v in first if v in second]
        if a in second or b in first:
            return np.inf
        if not common:
            return -np.inf  # from two roots
        return 0.0 if common[0] < 0 else float(self.last[common[0]])

    def _way(self, chain: int) -> list[int]:
        way = [chain]
        while way[-1] >= 0:
            way.append(self.before[way[-1]])
        return way
