"""Terminal sites: evenly spread points of each tree's territory."""

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ._space import point_segment
from ._wall import trilinear, Wall

_POINTS_PER_SITE = 24
_ROUNDS = 30


def spread_sites(
    wall: Wall,
    cell_tree: Int[np.ndarray, " c"],
    count: Int[np.ndarray, " r"],
    least_clearance: float,
    blocked: Float[np.ndarray, "f 7"],
    rng: np.random.Generator,
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
    """A centroidal Voronoi tessellation of every territory (Lloyd's iteration).

    Sites keep `least_clearance` from the wall's surface and stay out of the vessels `blocked`
    (ends and radius), so that a terminal fits at every one.

    **Returns:** the sites and the tree of each, trees in order.

    **Source:** S. P. Lloyd (1982), IEEE Trans. Inf. Theory 28:129.
    """
    place = np.argwhere(wall.cell >= 0)
    number = wall.cell[tuple(place.T)]
    each = int(np.ceil(_POINTS_PER_SITE * count.sum() / number.size))
    jitter = rng.random((number.size, each, 3)) - 0.5
    point = ((place[:, None, :] + jitter) * wall.spacing).reshape(-1, 3)
    tree = np.repeat(cell_tree[number], each).astype(np.int64)
    fit = _fitting(wall, point, least_clearance, blocked)
    order = np.argsort(tree, kind="stable")
    order = order[fit[order]]
    point, tree = point[order], tree[order]
    first = np.searchsorted(tree, np.arange(count.size + 1))
    room = np.diff(first)
    if np.any(room < count):
        i = int(np.argmin(room - count))
        raise InputError(
            f"tree {i} has room for {room[i]} of its {count[i]} terminals in its territory",
            where="growth",
            expected="a part of the wall for every tree, free of the segmented vessels",
            fix="Give its vessel territory a larger share, or ask for fewer terminals or a larger "
            "root_spacing_mm",
        )
    chosen = [
        rng.choice(np.arange(first[i], first[i + 1]), count[i], replace=False)
        for i in range(count.size)
    ]
    site, site_tree = point[np.concatenate(chosen)], np.repeat(np.arange(count.size), count)
    size = float(np.cbrt(number.size / site.shape[0] * np.prod(wall.spacing)))
    for _ in range(_ROUNDS):
        owner = nearest_site(point, tree, site, site_tree, size)
        weight = np.bincount(owner, minlength=len(site))
        centre = (
            np.stack([np.bincount(owner, point[:, k], len(site)) for k in range(3)], axis=1)
            / np.maximum(weight, 1)[:, None]
        )
        site = np.where((weight > 0)[:, None], centre, site)
    # the centroid of a cell that is not convex may lie where no terminal fits
    stray = np.flatnonzero(~_fitting(wall, site, least_clearance, blocked))
    owner = nearest_site(point, tree, site, site_tree, size)
    for s in stray:
        own = point[owner == s]
        if own.size:
            site[s] = own[np.argmin(np.sum((own - site[s]) ** 2, axis=1))]
    return site, site_tree


def _fitting(wall, point, clearance, blocked):
    return _fits(wall.clearance, wall.spacing, point, clearance, blocked)


@numba.njit(cache=True)
@no_type_check
def _fits(field, spacing, point, clearance, blocked):
    """Whether each point keeps its distance from the wall's surface and all blocked vessels."""
    fit = np.ones(point.shape[0], np.bool_)
    for p in range(point.shape[0]):
        x, y, z = point[p]
        if trilinear(field, spacing, x, y, z) < clearance:
            fit[p] = False
            continue
        for f in range(blocked.shape[0]):
            reach = blocked[f, 6] + clearance
            square = point_segment(x, y, z, blocked[f, :3], blocked[f, 3:6])[0]
            if square < reach * reach:
                fit[p] = False
                break
    return fit


@numba.njit(cache=True)
@no_type_check
def nearest_site(point, tree, site, site_tree, size):
    """The nearest site of the same tree for each point, over a grid of cells of `size`."""
    low, high = np.empty(3), np.empty(3)
    shape = np.empty(3, np.int64)
    for k in range(3):
        low[k], high[k] = site[:, k].min() - 1e-9, site[:, k].max() + 1e-9
        shape[k] = int((high[k] - low[k]) / size) + 1
    n_cells = shape[0] * shape[1] * shape[2]
    start = np.zeros(n_cells + 1, np.int64)
    where = np.empty(site.shape[0], np.int64)
    for s in range(site.shape[0]):
        where[s] = _flat(site[s], low, size, shape)
        start[where[s] + 1] += 1
    for c in range(n_cells):
        start[c + 1] += start[c]
    fill, member = start[:-1].copy(), np.empty(site.shape[0], np.int64)
    for s in range(site.shape[0]):
        member[fill[where[s]]] = s
        fill[where[s]] += 1
    owner = np.full(point.shape[0], -1, np.int64)
    longest = int(shape.max())
    for p in range(point.shape[0]):
        own, best = tree[p], np.inf
        i, j, k = _cell(point[p], low, size, shape)
        for ring in range(longest + 1):
            # cells of this ring lie at least this far away
            if ring > 0 and best <= ((ring - 1) * size) ** 2:
                break
            for a in range(max(0, i - ring), min(shape[0], i + ring + 1)):
                for b in range(max(0, j - ring), min(shape[1], j + ring + 1)):
                    shell = abs(a - i) == ring or abs(b - j) == ring
                    step = 1 if shell or ring == 0 else 2 * ring
                    for c in range(k - ring, k + ring + 1, step):
                        if c < 0 or c >= shape[2]:
                            continue
                        cell = (a * shape[1] + b) * shape[2] + c
                        for m in range(start[cell], start[cell + 1]):
                            s = member[m]
                            if site_tree[s] != own:
                                continue
                            d = (
                                (point[p, 0] - site[s, 0]) ** 2
                                + (point[p, 1] - site[s, 1]) ** 2
                                + (point[p, 2] - site[s, 2]) ** 2
                            )
                            if d < best or (d == best and s < owner[p]):
                                best = d
                                owner[p] = s
    return owner


@numba.njit(cache=True)
@no_type_check
def _cell(x, low, size, shape):
    i = min(shape[0] - 1, max(0, int((x[0] - low[0]) / size)))
    j = min(shape[1] - 1, max(0, int((x[1] - low[1]) / size)))
    k = min(shape[2] - 1, max(0, int((x[2] - low[2]) / size)))
    return i, j, k


@numba.njit(cache=True)
@no_type_check
def _flat(x, low, size, shape):
    i, j, k = _cell(x, low, size, shape)
    return (i * shape[1] + j) * shape[2] + k
