"""Distances between vessels, and a grid that finds the vessels near a place."""

from typing import NamedTuple, no_type_check

import numba
import numpy as np


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


@numba.njit(cache=True)
@no_type_check
def distance(a, b):
    """Distance of two points."""
    return np.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2)


@numba.njit(cache=True)
@no_type_check
def point_segment(px, py, pz, a, b):
    """Square of the distance of a point from a segment, and where on it (0 to 1) it is reached."""
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    wx, wy, wz = px - a[0], py - a[1], pz - a[2]
    square = ux * ux + uy * uy + uz * uz
    t = 0.0
    if square > 0.0:
        t = min(1.0, max(0.0, (wx * ux + wy * uy + wz * uz) / square))
    dx, dy, dz = wx - t * ux, wy - t * uy, wz - t * uz
    return dx * dx + dy * dy + dz * dz, t


@numba.njit(cache=True)
@no_type_check
def segment_segment(a, b, c, d):
    """Square of the distance of two segments, and where on each (0 to 1) it is reached.

    The closest points of the two lines where they lie inside both segments, else the closest of
    the four ends.

    **Source:** C. Ericson (2005), Real-Time Collision Detection, section 5.1.9.
    """
    best, s, t = 1e300, 0.0, 0.0
    ux, uy, uz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    vx, vy, vz = d[0] - c[0], d[1] - c[1], d[2] - c[2]
    wx, wy, wz = a[0] - c[0], a[1] - c[1], a[2] - c[2]
    uu, vv = ux * ux + uy * uy + uz * uz, vx * vx + vy * vy + vz * vz
    uv = ux * vx + uy * vy + uz * vz
    uw, vw = ux * wx + uy * wy + uz * wz, vx * wx + vy * wy + vz * wz
    cross = uu * vv - uv * uv
    if cross > 1e-12 * uu * vv:
        p = (uv * vw - vv * uw) / cross
        q = (uu * vw - uv * uw) / cross
        if 0.0 <= p <= 1.0 and 0.0 <= q <= 1.0:
            dx, dy, dz = wx + p * ux - q * vx, wy + p * uy - q * vy, wz + p * uz - q * vz
            return dx * dx + dy * dy + dz * dz, p, q
    square, at = point_segment(a[0], a[1], a[2], c, d)
    if square < best:
        best, s, t = square, 0.0, at
    square, at = point_segment(b[0], b[1], b[2], c, d)
    if square < best:
        best, s, t = square, 1.0, at
    square, at = point_segment(c[0], c[1], c[2], a, b)
    if square < best:
        best, s, t = square, at, 0.0
    square, at = point_segment(d[0], d[1], d[2], a, b)
    if square < best:
        best, s, t = square, at, 1.0
    return best, s, t


@numba.njit(cache=True)
@no_type_check
def _range(grid, axis, low, high):
    """Cells along an axis between two coordinates, kept inside the grid."""
    size, top = grid.size[0], grid.shape[axis] - 1
    first = int(np.floor((low - grid.origin[axis]) / size))
    last = int(np.floor((high - grid.origin[axis]) / size))
    return min(top, max(0, first)), min(top, max(0, last))


@numba.njit(cache=True)
@no_type_check
def cells_of(grid, a, b, radius, out):
    """The cells a capsule touches, into `out`; returns how many.

    Positions outside the grid count for its outermost cells.
    """
    size = grid.size[0]
    reach = radius + 0.8661 * size  # half the diagonal of a cell
    i0, i1 = _range(grid, 0, min(a[0], b[0]) - radius, max(a[0], b[0]) + radius)
    j0, j1 = _range(grid, 1, min(a[1], b[1]) - radius, max(a[1], b[1]) + radius)
    k0, k1 = _range(grid, 2, min(a[2], b[2]) - radius, max(a[2], b[2]) + radius)
    n = 0
    for i in range(i0, i1 + 1):
        x = grid.origin[0] + (i + 0.5) * size
        for j in range(j0, j1 + 1):
            y = grid.origin[1] + (j + 0.5) * size
            for k in range(k0, k1 + 1):
                z = grid.origin[2] + (k + 0.5) * size
                edge = (
                    i == 0
                    or j == 0
                    or k == 0
                    or i == grid.shape[0] - 1
                    or j == grid.shape[1] - 1
                    or k == grid.shape[2] - 1
                )
                if edge or point_segment(x, y, z, a, b)[0] <= reach * reach:
                    if n == out.size:
                        return -1
                    out[n] = (i * grid.shape[1] + j) * grid.shape[2] + k
                    n += 1
    return n


@numba.njit(cache=True)
@no_type_check
def enter(grid, vessel, cells, n):
    """Enter a vessel in cells; there must be room for n entries."""
    for m in range(n):
        entry = grid.free[0]
        grid.free[0] = grid.link[entry]
        grid.free[1] += 1
        grid.item[entry] = vessel
        grid.link[entry] = grid.head[cells[m]]
        grid.head[cells[m]] = entry


@numba.njit(cache=True)
@no_type_check
def leave(grid, vessel, cells, n):
    """Take a vessel out of cells."""
    for m in range(n):
        before = -1
        entry = grid.head[cells[m]]
        while entry >= 0 and grid.item[entry] != vessel:
            before = entry
            entry = grid.link[entry]
        if entry < 0:
            continue
        if before < 0:
            grid.head[cells[m]] = grid.link[entry]
        else:
            grid.link[before] = grid.link[entry]
        grid.link[entry] = grid.free[0]
        grid.free[0] = entry
        grid.free[1] -= 1
