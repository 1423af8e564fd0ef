"""Moves the nodes of grown vessels until no two vessels intersect."""

import numpy as np

from .._native import array, BY_ADDRESS, function, INT, REAL
from ._insert import GROWTH, Growth, growth_struct
from ._space import GRID, Grid, grid_struct
from ._wall import WALL, Wall, wall_struct

_SWEEPS = 200

_MARKS = array(np.bool_)
_sweep = function(
    "repair_sweep",
    *(BY_ADDRESS(GROWTH), BY_ADDRESS(GRID), BY_ADDRESS(WALL), INT, _MARKS, _MARKS),
    returns=INT,
)
_outside = function("repair_outside", BY_ADDRESS(GROWTH), BY_ADDRESS(WALL), REAL, returns=INT)


def separate(growth: Growth, grid: Grid, wall: Wall) -> tuple[int, int]:
    """Push vessels that intersect apart; `growth` has its final radii and `grid` all vessels.

    Each pair is moved by the least displacement of its four ends that makes room; moves that
    would bring a vessel out of the wall are undone. Entries into the wall and fixed vessels stay.

    **Returns:** pairs that intersected at first and at last.
    """
    state = growth_struct(growth), grid_struct(grid), wall_struct(wall)
    every = np.ones(int(growth.used[0]), np.bool_)
    touched, first, left = every, -1, 0
    for sweep in range(_SWEEPS):
        again = np.zeros_like(every)
        left = _sweep(*state, sweep, touched, again)
        first = left if first < 0 else first
        if left == 0 and touched.all():
            break
        # only what was moved can meet anything new; in the end all are looked at again
        touched = again if left else every
    return first, left


def outside_wall(growth: Growth, wall: Wall, allowed: float) -> int:
    """How many vessels, stubs apart, reach out of the wall by more than `allowed` (m)."""
    return _outside(growth_struct(growth), wall_struct(wall), allowed)
