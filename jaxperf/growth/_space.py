"""Distances between vessels, and a grid that finds the vessels near a place."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from .._native import array, filled, function, INT, structure

# Cells that one vessel may touch.
_CELLS = 1 << 16


class Grid(NamedTuple):
    """Which vessels touch each cell of a regular grid: one linked list per cell.

    A vessel is entered in every cell whose bounding sphere its capsule meets, so that two capsules
    that intersect are found in a common cell.

    - `origin` (3,), `size` (1,): m; `shape` (3,).
    - `head` (cells,), `item` and `link` (entries,): the lists; −1 ends one.
    - `free` (2,): first free entry, entries in use.
    """

    origin: np.ndarray
    size: np.ndarray
    shape: np.ndarray
    head: np.ndarray
    item: np.ndarray
    link: np.ndarray
    free: np.ndarray


_OF_REAL, _OF_INT, _OF_INT32 = array(np.float64), array(np.int64), array(np.int32)
# In the order of the C struct.
GRID = structure(
    "Grid",
    {
        "origin": _OF_REAL,
        "size": _OF_REAL,
        "shape": _OF_INT,
        "head": _OF_INT32,
        "item": _OF_INT32,
        "link": _OF_INT32,
        "free": _OF_INT,
        "cells": _OF_INT,
    },
    "n_entries",
    "n_cells",
)
_distances = function("space_distances", _OF_REAL, _OF_REAL, INT, array(np.float64, 2), _OF_REAL)


def empty_grid(low: np.ndarray, high: np.ndarray, size: float, capacity: int) -> Grid:
    """A grid over a box without vessels in it."""
    shape = np.maximum(1, np.ceil((high - low) / size)).astype(np.int64)
    link = np.arange(1, capacity + 1, dtype=np.int32)
    link[-1] = -1
    return Grid(
        origin=low.astype(np.float64),
        size=np.array([size]),
        shape=shape,
        head=np.full(int(np.prod(shape)), -1, np.int32),
        item=np.full(capacity, -1, np.int32),
        link=link,
        free=np.zeros(2, np.int64),
    )


def enlarged(grid: Grid) -> Grid:
    """The same grid with room for twice the entries."""
    old = grid.link.size
    link = np.concatenate([grid.link, np.arange(old + 1, 2 * old + 1, dtype=np.int32)])
    link[-1] = grid.free[0]
    return grid._replace(
        item=np.concatenate([grid.item, np.full(old, -1, np.int32)]),
        link=link,
        free=np.array([old, grid.free[1]], np.int64),
    )


def grid_struct(grid: Grid) -> Any:
    """The grid as C takes it."""
    scratch = {"cells": np.empty(_CELLS, np.int64)}
    return filled(GRID, grid._asdict() | scratch, grid.link.size, _CELLS)


def segment_distances(
    start: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"], others: Float[np.ndarray, "f 7"]
) -> Float[np.ndarray, " f"]:
    """Squares (m²) of the distances of a segment from others, given by their ends and a radius."""
    found = np.empty(len(others))
    _distances(start, end, len(others), others, found)
    return found
