"""Terminal sites: evenly spread points of each tree's territory."""

import numpy as np
from jaxtyping import Bool, Float, Int

from .._misc import InputError
from .._native import array, BY_ADDRESS, function, INT, REAL
from ._wall import WALL, Wall, wall_struct

_POINTS_PER_SITE = 24
_ROUNDS = 30

_POINTS, _OF_INT = array(np.float64, 2), array(np.int64)
_fit = function("sites_fit", BY_ADDRESS(WALL), INT, _POINTS, REAL, INT, _POINTS, array(np.bool_))
_nearest = function(
    "sites_nearest",
    *(INT, _POINTS, _OF_INT, _POINTS, _OF_INT),
    *(array(np.float64), REAL, _OF_INT, _OF_INT, _OF_INT, _OF_INT),
)


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
            where="grow_forest",
            expected="a part of the wall for every tree, free of the segmented vessels",
            fix="Give its vessel territory a larger `territory_share`, or ask for fewer "
            "`n_terminals` or a larger `root_spacing`",
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


def _fitting(
    wall: Wall,
    point: Float[np.ndarray, "p 3"],
    clearance: float,
    blocked: Float[np.ndarray, "f 7"],
) -> Bool[np.ndarray, " p"]:
    """Whether each point keeps its distance from the wall's surface and all blocked vessels."""
    fit = np.empty(len(point), np.bool_)
    _fit(wall_struct(wall), len(point), point, clearance, len(blocked), blocked, fit)
    return fit


def nearest_site(
    point: Float[np.ndarray, "p 3"],
    tree: Int[np.ndarray, " p"],
    site: Float[np.ndarray, "n 3"],
    site_tree: Int[np.ndarray, " n"],
    size: float,
) -> Int[np.ndarray, " p"]:
    """The nearest site of the same tree for each point, over a grid of cells of `size` (m).

    Of sites at one distance it is the first one; −1 where the tree has none.
    """
    low, high = site.min(axis=0) - 1e-9, site.max(axis=0) + 1e-9
    shape = ((high - low) / size).astype(np.int64) + 1
    ijk = np.clip(((site - low) / size).astype(np.int64), 0, shape - 1)
    cell = np.asarray(np.ravel_multi_index(tuple(ijk.T), tuple(shape)))
    member = np.argsort(cell, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(cell, minlength=int(np.prod(shape))))])
    owner = np.full(len(point), -1)
    _nearest(len(point), point, tree, site, site_tree, low, size, shape, start, member, owner)
    return owner
