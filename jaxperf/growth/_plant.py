"""Where trees enter the wall, and their first vessels."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from .._misc import InputError
from ._insert import enter_vessel, Growth, leave_vessel, Plan, plant, plant_bent
from ._space import Grid, segment_distances
from ._wall import cell_centres, Wall

# Room about an entry and a stub over the vessel's radius.
_ROOM = 1.1
_ENTRIES = 400
# Pieces of its own branch this near the root are what a stub leaves, however finely cut, m.
_BESIDE = 2.4e-3
# Other entries are tried this far apart where a tree's first vessel fits nowhere, m.
_APART = 2e-3
# The first vessel of a tree leads to one of this part of its sites, the most central ones.
_CENTRAL = 0.3
_BENDS = 1000


class NoWay(InputError):
    """A tree finds no place; `tree` is its number."""

    def __init__(self, tree: int, diameter: float, what: str) -> None:
        super().__init__(
            f"tree {tree}, {1e3 * diameter:.2f} mm wide, {what}",
            where="growth",
            expected="a wall thicker than the vessels that grow in it, and a way to it past the "
            "other vessels",
            fix="Check the wall, or ask for a smaller terminal diameter",
        )
        self.tree = tree


def choose_entries(
    wall: Wall,
    fixed: Float[np.ndarray, "f 7"],
    origin: Float[np.ndarray, "r 3"],
    radius: Float[np.ndarray, " r"],
    own_branch: Bool[np.ndarray, "r f"],
    cell_tree: Int[np.ndarray, " c"] | None,
) -> Int[np.ndarray, " r"]:
    """The cell in which each tree enters the wall, the widest tree first.

    The nearest one in the tree's own territory (anywhere without `cell_tree`) where the vessel
    fits, and which a straight stub reaches that meets neither another stub nor a fixed vessel but
    those that reach the root itself and pieces of its own branch beside it.

    **Errors:** `NoWay` for a tree without such a cell.
    """
    centre = cell_centres(wall)
    entry = np.full(len(origin), -1, np.int64)
    stubs = np.empty((0, 7))
    for i in np.argsort(-radius, kind="stable").tolist():
        own = np.arange(len(centre)) if cell_tree is None else np.flatnonzero(cell_tree == i)
        free = np.setdiff1d(own, entry)
        ways = _ways_in(
            wall, centre, fixed, stubs, origin[i], float(radius[i]), own_branch[i], free
        )
        cell = next(ways, None)
        if cell is None:
            raise NoWay(int(i), 2.0 * float(radius[i]), "finds no way from its root into the wall")
        entry[i] = cell
        stub = np.concatenate([origin[i], centre[cell], [radius[i]]])
        stubs = np.concatenate([stubs, stub[None]])
    return entry


def _ways_in(
    wall: Wall,
    centre: Float[np.ndarray, "c 3"],
    fixed: Float[np.ndarray, "f 7"],
    stubs: Float[np.ndarray, "k 7"],
    origin: Float[np.ndarray, "3"],
    radius: float,
    own_branch: Bool[np.ndarray, " f"],
    cells: Int[np.ndarray, " n"],
) -> Iterator[int]:
    """Cells that a stub may enter the wall by, the nearest first."""
    place = tuple(np.round(centre[cells] / wall.spacing).astype(np.int64).T)
    fit = cells[wall.clearance[place] >= _ROOM * radius]
    if fit.size == 0:
        return
    nearest = np.atleast_1d(KDTree(centre[fit]).query(origin, k=min(_ENTRIES, fit.size))[1])
    # what reaches the place where the stub begins cannot be avoided, nor the vessel's next pieces
    away = np.sqrt(segment_distances(origin, origin, fixed))
    near = np.maximum(fixed[:, 6] + radius, np.where(own_branch, _BESIDE, 0.0))
    others = np.concatenate([fixed[away >= near], stubs])
    for cell in fit[nearest]:
        if not _meets(origin, centre[cell], _ROOM * radius, others) and not _meets(
            centre[cell], centre[cell], _ROOM * radius, fixed
        ):
            yield int(cell)


def _meets(
    start: Float[np.ndarray, "3"],
    end: Float[np.ndarray, "3"],
    radius: float,
    others: Float[np.ndarray, "f 7"],
) -> bool:
    return bool(np.any(segment_distances(start, end, others) < (radius + others[:, 6]) ** 2))


def plant_trees(
    growth: Growth,
    grid: Grid,
    wall: Wall,
    plan: Plan,
    fixed: Float[np.ndarray, "f 7"],
    own_branch: Bool[np.ndarray, "r f"],
    cell_tree: Int[np.ndarray, " c"],
) -> None:
    """Give every tree its first vessel, the widest first, before others are in the way.

    It leads towards the middle of the tree's territory, along the epicardium where it can, with
    one bend where it must. Where it fits nowhere the tree enters the wall elsewhere.

    **Errors:** `NoWay` for a tree that fits nowhere.
    """
    centre = cell_centres(wall)
    n_trees = plan.planned.size
    for i in np.argsort(-plan.planned, kind="stable").tolist():
        if _planted(growth, grid, wall, plan, i, centre[cell_tree == i]):
            continue
        others = np.delete(np.arange(n_trees), i)
        stubs = np.column_stack([growth.tail[others], growth.tip[others], growth.radius[others]])
        grown = np.arange(n_trees, int(growth.used[0]))
        stubs = np.concatenate(
            [stubs, np.column_stack([growth.tail[grown], growth.tip[grown], growth.radius[grown]])]
        )
        own = np.flatnonzero(cell_tree == i)
        tried = growth.tip[i][None].copy()
        ways = _ways_in(
            wall,
            centre,
            fixed,
            stubs,
            growth.tail[i].copy(),
            float(growth.radius[i]),
            own_branch[i],
            own,
        )
        for cell in ways:
            if np.min(np.sum((tried - centre[cell]) ** 2, axis=1)) < _APART**2:
                continue
            leave_vessel(growth, grid, i)
            growth.tip[i] = centre[cell]
            enter_vessel(growth, grid, i)
            if _planted(growth, grid, wall, plan, i, centre[own]):
                break
            tried = np.concatenate([tried, centre[cell][None]])
        else:
            wide = 2.0 * float(growth.radius[i])
            raise NoWay(int(i), wide, "finds no room for its first vessel in its territory")


def _planted(
    growth: Growth,
    grid: Grid,
    wall: Wall,
    plan: Plan,
    tree: int,
    territory: Float[np.ndarray, "k 3"],
) -> bool:
    own = np.flatnonzero(plan.site_tree == tree)
    middle = plan.site[own].mean(axis=0)
    own = own[np.argsort(np.sum((plan.site[own] - middle) ** 2, axis=1), kind="stable")]
    central = own[: int(np.ceil(_CENTRAL * own.size))]
    bends = np.ascontiguousarray(territory[:: 1 + len(territory) // _BENDS])
    state = (growth, grid, wall, plan)
    return (
        plant(*state, central, True)
        or plant(*state, central, False)
        or plant_bent(*state, central, bends)
        or plant(*state, own, False)
        or plant_bent(*state, own, bends)
    )
