"""Moves the nodes of grown vessels until no two vessels intersect."""

from typing import no_type_check

import numba
import numpy as np

from ._insert import Growth
from ._space import cells_of, enter, Grid, leave, segment_segment
from ._wall import stays_inside, Wall

_SWEEPS = 200
_STRAIGHT = 30
_OTHERS = 1 << 12  # vessels that may lie near one
_APART = 1.002


def separate(growth: Growth, grid: Grid, wall: Wall) -> tuple[int, int]:
    """Push vessels that intersect apart; `growth` has its final radii and `grid` all vessels.

    Each pair is moved by the least displacement of its four ends that makes room; moves that
    would bring a vessel out of the wall are undone. Entries into the wall and fixed vessels stay.

    **Returns:** pairs that intersected at first and at last.
    """
    cells = np.empty(1 << 16, np.int64)
    every = np.ones(int(growth.used[0]), np.bool_)
    touched, first, left = every, -1, 0
    for sweep in range(_SWEEPS):
        again = np.zeros_like(every)
        left = _sweep(growth, grid, wall, cells, sweep, touched, again)
        first = left if first < 0 else first
        if left == 0 and touched.all():
            break
        # only what was moved can meet anything new; in the end all are looked at again
        touched = again if left else every
    return first, left


def compile_separation(growth: Growth, grid: Grid, wall: Wall) -> None:
    """Have `separate` compiled, and nothing moved."""
    none = np.zeros(int(growth.used[0]), np.bool_)
    _sweep(growth, grid, wall, np.empty(1, np.int64), 0, none, none)


@numba.njit(cache=True)
@no_type_check
def _joined(growth, a, b):
    """Whether two vessels share a node; a stub also touches the fixed vessels it leaves."""
    if b >= growth.parent.size:
        return growth.parent[a] < 0
    pa, pb = growth.parent[a], growth.parent[b]
    return pa == b or pb == a or (pa == pb and pa >= 0)


@numba.njit(cache=True)
@no_type_check
def _sweep(growth, grid, wall, cells, sweep, touched, again):
    """Push every intersecting pair with a touched vessel apart; returns how many there were.

    Vessels of such pairs, and all that are moved, are marked in `again`.
    """
    n_pairs = 0
    used = growth.used[0]
    others = np.empty(_OTHERS, np.int64)
    for a in range(used):
        if not touched[a]:
            continue
        n = cells_of(grid, growth.tail[a], growth.tip[a], growth.radius[a], cells)
        growth.clock[0] += 1
        now = growth.clock[0]
        n_others = 0
        for c in range(n):
            entry = grid.head[cells[c]]
            while entry >= 0:
                b = grid.item[entry]
                entry = grid.link[entry]
                if b == a or growth.stamp[b] == now or _joined(growth, a, b):
                    continue
                if b < a and touched[b]:
                    continue
                growth.stamp[b] = now
                if n_others == others.size:
                    n_pairs += 1  # no room to look at it: never counted as apart
                    continue
                others[n_others] = b
                n_others += 1
        for b in others[:n_others]:
            square, s, t = segment_segment(
                growth.tail[a], growth.tip[a], growth.tail[b], growth.tip[b]
            )
            apart = growth.radius[a] + growth.radius[b]
            if square < apart * apart:
                n_pairs += 1
                again[a] = True
                if b < used:
                    again[b] = True
                _push(growth, grid, wall, a, b, s, t, _APART * apart, cells, sweep, again)
    return n_pairs


@numba.njit(cache=True)
@no_type_check
def _push(growth, grid, wall, a, b, s, t, apart, cells, sweep, again):
    m, roots = growth.parent.size, growth.taken.size
    way = np.empty(3)
    for k in range(3):
        x = growth.tail[a, k] + s * (growth.tip[a, k] - growth.tail[a, k])
        y = growth.tail[b, k] + t * (growth.tip[b, k] - growth.tail[b, k])
        way[k] = x - y
    d = np.sqrt((way**2).sum())
    if d < 1e-9:
        # the axes meet: across both of them
        u, v = growth.tip[a] - growth.tail[a], growth.tip[b] - growth.tail[b]
        way = np.array(
            [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
        )
        size = np.sqrt((way**2).sum())
        if size == 0.0:
            return
        way = way / size
    else:
        way = way / d
    nodes = np.array([growth.parent[a], a, -1, -1])
    weight = np.array([1.0 - s, s, 0.0, 0.0])
    if b < m:
        nodes[2], nodes[3] = growth.parent[b], b
        weight[2], weight[3] = t - 1.0, -t
    total = 0.0
    for k in range(4):
        if nodes[k] < roots:
            weight[k] = 0.0
        total += weight[k] ** 2
    if total == 0.0:
        return
    # where the way is barred, later sweeps go beyond the mark, and then aside as well
    step = (apart - d) / total * (1.0 + 0.02 * sweep)
    if sweep > _STRAIGHT:
        turn = 2.399963 * sweep  # the golden angle meets every direction
        aside = np.array([np.cos(turn), np.sin(turn), np.cos(1.7 * turn)])
        way = way + aside * min(1.5, 0.02 * (sweep - _STRAIGHT))
    for k in range(4):
        if weight[k] != 0.0:
            _move(growth, grid, wall, nodes[k], step * weight[k] * way, cells, again)


@numba.njit(cache=True)
@no_type_check
def _relocate(growth, grid, node, x, cells):
    """Put a node somewhere, with the vessels that end and start there."""
    for k in range(3):
        vessel = node if k == 0 else growth.child[node, k - 1]
        if vessel < 0:
            continue
        n = cells_of(grid, growth.tail[vessel], growth.tip[vessel], growth.entered[vessel], cells)
        leave(grid, vessel, cells, n)
        if k == 0:
            growth.tip[vessel] = x
        else:
            growth.tail[vessel] = x
        n = cells_of(grid, growth.tail[vessel], growth.tip[vessel], growth.entered[vessel], cells)
        enter(grid, vessel, cells, n)


@numba.njit(cache=True)
@no_type_check
def _move(growth, grid, wall, node, step, cells, again):
    before = growth.tip[node].copy()
    _relocate(growth, grid, node, before + step, cells)
    for k in range(3):
        vessel = node if k == 0 else growth.child[node, k - 1]
        if vessel >= 0 and not stays_inside(
            wall, growth.tail[vessel], growth.tip[vessel], growth.radius[vessel], False
        ):
            _relocate(growth, grid, node, before, cells)
            return
    for k in range(3):
        vessel = node if k == 0 else growth.child[node, k - 1]
        if vessel >= 0:
            again[vessel] = True


@numba.njit(cache=True)
@no_type_check
def outside_wall(growth, wall, allowed):
    """How many vessels, stubs apart, reach out of the wall by more than `allowed` (m)."""
    n = 0
    for k in range(growth.taken.size, growth.used[0]):
        radius = growth.radius[k] - allowed
        if not stays_inside(wall, growth.tail[k], growth.tip[k], radius, False):
            n += 1
    return n
