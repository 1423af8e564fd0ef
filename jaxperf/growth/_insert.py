"""Adds terminals to the trees one after the other; the search itself is `_native/insert.c`."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._native import array, BY_ADDRESS, filled, function, INT, structure, TRUTH
from ._space import empty_grid, GRID, Grid, grid_struct
from ._wall import WALL, Wall, wall_struct

# Free entries of the grid that one insertion may need.
_HEADROOM = 1 << 14
# The last level of the search in `insert.c`.
WIDEST = 4


class Growth(NamedTuple):
    """The state of growing trees; vessel k leads to node k and is followed by the fixed vessels.

    - `tip`, `tail` (a, 3), `radius`, `entered` (a,): ends and radius of each vessel, and the
      radius it has in the grid; m.
    - `tree` (a,): −1 for fixed vessels. `parent` (m,), `child` (m, 2), `count` (m,) terminals
      below, `stage` (m,).
    - `older` (m,), `newest` (r,): the vessels of each tree as a linked list.
    - `taken`, `gained`, `lost` (r,): terminals each tree has, and has from and lost to neighbours.
    - `stamp` (a,), `clock` (1,): vessels seen in the present search.
    - `known`, `path` (m,): scratch of the search.
    - `used` (1,): nodes in use. `terminal` (n,): node of each site, −1 where it has none yet.
    """

    tip: np.ndarray
    tail: np.ndarray
    radius: np.ndarray
    entered: np.ndarray
    tree: np.ndarray
    parent: np.ndarray
    child: np.ndarray
    count: np.ndarray
    stage: np.ndarray
    older: np.ndarray
    newest: np.ndarray
    taken: np.ndarray
    gained: np.ndarray
    lost: np.ndarray
    stamp: np.ndarray
    clock: np.ndarray
    known: np.ndarray
    path: np.ndarray
    used: np.ndarray
    terminal: np.ndarray


class Plan(NamedTuple):
    """What growth works from and does not change.

    - `law` (7,): of [`BranchingLaw`][] for flows counted in terminals; `log` (n + 2,): ln of 0, 1,
      2, …
    - `site` (n, 3), `site_tree` (n,); `planned` (r,): terminals of each tree.
    - `territory` (r,): vessel territory of each tree. `spread` (1,): distance of sites, m.
    """

    law: np.ndarray
    log: np.ndarray
    site: np.ndarray
    site_tree: np.ndarray
    planned: np.ndarray
    territory: np.ndarray
    spread: np.ndarray


_POINTS, _OF_REAL, _OF_INT = array(np.float64, 2), array(np.float64), array(np.int64)
# In the order of the C structs.
GROWTH = structure(
    "Growth",
    {
        "tip": _POINTS,
        "tail": _POINTS,
        "radius": _OF_REAL,
        "entered": _OF_REAL,
        "tree": _OF_INT,
        "parent": _OF_INT,
        "child": array(np.int64, 2),
        "count": _OF_INT,
        "stage": _OF_INT,
        "older": _OF_INT,
        "newest": _OF_INT,
        "taken": _OF_INT,
        "gained": _OF_INT,
        "lost": _OF_INT,
        "stamp": _OF_INT,
        "clock": _OF_INT,
        "known": _OF_REAL,
        "path": _OF_INT,
        "used": _OF_INT,
        "terminal": _OF_INT,
    },
    "n_nodes",
    "n_trees",
)
PLAN = structure(
    "Plan",
    {
        "law": _OF_REAL,
        "log": _OF_REAL,
        "site": _POINTS,
        "site_tree": _OF_INT,
        "planned": _OF_INT,
        "territory": _OF_INT,
        "spread": _OF_REAL,
    },
)
_VESSELS = (BY_ADDRESS(GROWTH), BY_ADDRESS(GRID))
_STATE = (*_VESSELS, BY_ADDRESS(WALL), BY_ADDRESS(PLAN))
_insert = function(
    "insert_sites", *_STATE, _OF_INT, INT, INT, INT, TRUTH, INT, _OF_INT, _OF_INT, returns=INT
)
_enter = function("vessels_enter", *_VESSELS, INT, _OF_INT)
_leave = function("vessels_leave", *_VESSELS, INT)
_entries = function("vessels_entries", *_VESSELS, INT, _OF_INT, returns=INT)
_plant = function("vessels_plant", *_STATE, INT, _OF_INT, TRUTH, returns=TRUTH)
_plant_bent = function("vessels_plant_bent", *_STATE, INT, _OF_INT, INT, _POINTS, returns=TRUTH)


def growth_struct(growth: Growth) -> Any:
    """The state as C takes it."""
    return filled(GROWTH, growth._asdict(), growth.parent.size, growth.taken.size)


def _state(growth: Growth, grid: Grid, wall: Wall, plan: Plan) -> tuple[Any, ...]:
    plan_struct = filled(PLAN, plan._asdict())
    return growth_struct(growth), grid_struct(grid), wall_struct(wall), plan_struct


def insert_sites(
    growth: Growth,
    grid: Grid,
    wall: Wall,
    plan: Plan,
    queue: Int[np.ndarray, " q"],
    start: int,
    stop: int,
    level: int,
    conduit: bool,
) -> tuple[int, Int[np.ndarray, " f"]]:
    """Insert the sites queue[start:stop] at a level of the search, as conduits or not.

    **Returns:** the next index of the queue, below `stop` where the grid is full; the sites without
    a place.
    """
    failed, n = np.empty(stop - start, np.int64), np.empty(1, np.int64)
    state = _state(growth, grid, wall, plan)
    at = _insert(*state, queue, start, stop, level, conduit, _HEADROOM, failed, n)
    return at, failed[: n[0]]


def enter_vessel(growth: Growth, grid: Grid, vessel: int) -> None:
    """Enter a vessel in the grid."""
    _enter(growth_struct(growth), grid_struct(grid), 1, np.array([vessel]))


def leave_vessel(growth: Growth, grid: Grid, vessel: int) -> None:
    """Take a vessel out of the grid."""
    _leave(growth_struct(growth), grid_struct(grid), vessel)


def filled_grid(
    growth: Growth,
    low: Float[np.ndarray, "3"],
    high: Float[np.ndarray, "3"],
    size: float,
    vessels: Int[np.ndarray, " v"],
) -> Grid:
    """A grid over a box with some vessels in it, and room for as many entries again and more."""
    state, n = growth_struct(growth), len(vessels)
    needed = _entries(state, grid_struct(empty_grid(low, high, size, 1)), n, vessels)
    grid = empty_grid(low, high, size, 2 * needed + 8 * _HEADROOM)
    _enter(state, grid_struct(grid), n, vessels)
    return grid


def plant(
    growth: Growth,
    grid: Grid,
    wall: Wall,
    plan: Plan,
    sites: Int[np.ndarray, " s"],
    conduit: bool,
) -> bool:
    """The first vessel of a tree: straight from its entry to the first of the sites it reaches."""
    return _plant(*_state(growth, grid, wall, plan), len(sites), sites, conduit)


def plant_bent(
    growth: Growth,
    grid: Grid,
    wall: Wall,
    plan: Plan,
    sites: Int[np.ndarray, " s"],
    bends: Float[np.ndarray, "b 3"],
) -> bool:
    """The first vessel of a tree with one bend: the shortest way to the first site it reaches."""
    return _plant_bent(*_state(growth, grid, wall, plan), len(sites), sites, len(bends), bends)
