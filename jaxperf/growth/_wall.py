"""The wall the trees grow in: what lies inside, and how far its surface is."""

from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float
from scipy import ndimage

from ..geometry import VoxelMesh

# Depth (0 endocardium, 1 epicardium) from which on a vessel counts as an epicardial conduit.
CONDUIT_DEPTH = 0.5


class Wall(NamedTuple):
    """The wall on its grid, in coordinates (m) along its axes; voxel 0 of the mesh is 1 here.

    A plain tuple of arrays, which the compiled functions take.

    - `spacing`: (3,), m.
    - `clearance`: (i, j, k), distance (m) from the surface at the voxels' centres, less half a
      voxel: negative outside.
    - `conduit`: the same for the outer part of the wall.
    - `cell`: (i, j, k), number of the cell, −1 outside.
    """

    spacing: np.ndarray
    clearance: np.ndarray
    conduit: np.ndarray
    cell: np.ndarray


def build_wall(mesh: VoxelMesh, depth: Float[np.ndarray, " c"]) -> Wall:
    """The wall of a voxel mesh, with a margin of one voxel about it."""
    inside = np.pad(mesh.to_grid(np.ones(mesh.n_cells), 0.0) > 0.5, 1)
    outer = np.pad(mesh.to_grid(depth, -1.0) >= CONDUIT_DEPTH, 1)
    cell = np.full(inside.shape, -1, np.int32)
    cell[tuple(mesh.cell_ijk.T + 1)] = np.arange(mesh.n_cells, dtype=np.int32)
    return Wall(
        spacing=mesh.spacing.astype(np.float64),
        clearance=_distance(inside, mesh.spacing),
        conduit=_distance(outer, mesh.spacing),
        cell=cell,
    )


def _distance(inside: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance to the surface, half a voxel from the last centre; negative outside."""
    if not inside.any():
        return np.full(inside.shape, -float(spacing.max()))
    within = ndimage.distance_transform_edt(inside, sampling=spacing)
    without = ndimage.distance_transform_edt(~inside, sampling=spacing)
    half = 0.5 * float(spacing.min())
    return np.where(inside, within - half, half - without)  # pyright: ignore


def cell_centres(wall: Wall) -> Float[np.ndarray, "c 3"]:
    """Centres of the cells, along the grid's axes."""
    place = np.argwhere(wall.cell >= 0)
    centre = np.empty((place.shape[0], 3))
    centre[wall.cell[tuple(place.T)]] = place
    return centre * wall.spacing


def to_wall(mesh: VoxelMesh, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Positions in the mesh's frame as coordinates along its axes."""
    return (point - mesh.affine[:3, 3]) @ mesh.axes.T + mesh.spacing


def from_wall(mesh: VoxelMesh, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """The inverse of `to_wall`."""
    return (point - mesh.spacing) @ mesh.axes + mesh.affine[:3, 3]


@numba.njit(cache=True)
@no_type_check
def trilinear(field, spacing, x, y, z):
    """A field between the voxels' centres; the least value outside the grid."""
    u, v, w = x / spacing[0], y / spacing[1], z / spacing[2]
    i, j, k = int(np.floor(u)), int(np.floor(v)), int(np.floor(w))
    if i < 0 or j < 0 or k < 0:
        return -1.0
    if i + 1 >= field.shape[0] or j + 1 >= field.shape[1] or k + 1 >= field.shape[2]:
        return -1.0
    u, v, w = u - i, v - j, w - k
    low = (field[i, j, k] * (1 - w) + field[i, j, k + 1] * w) * (1 - v) + (
        field[i, j + 1, k] * (1 - w) + field[i, j + 1, k + 1] * w
    ) * v
    high = (field[i + 1, j, k] * (1 - w) + field[i + 1, j, k + 1] * w) * (1 - v) + (
        field[i + 1, j + 1, k] * (1 - w) + field[i + 1, j + 1, k + 1] * w
    ) * v
    return low * (1 - u) + high * u


@numba.njit(cache=True)
@no_type_check
def stays_inside(wall, start, end, radius, conduit):
    """Whether a vessel lies in the wall, and its axis among the conduits where asked for.

    The clearance changes by no more than the way gone, so the next sample lies as far ahead as
    the last one leaves room for, and at least a quarter of a voxel.
    """
    spacing, clearance, outer = wall.spacing, wall.clearance, wall.conduit
    d0, d1, d2 = end[0] - start[0], end[1] - start[1], end[2] - start[2]
    length = np.sqrt(d0 * d0 + d1 * d1 + d2 * d2)
    least = 0.25 * min(spacing[0], spacing[1], spacing[2])
    at = 0.0
    while True:
        t = at / length if length > 0.0 else 0.0
        x, y, z = start[0] + t * d0, start[1] + t * d1, start[2] + t * d2
        room = trilinear(clearance, spacing, x, y, z) - radius
        if room < 0.0:
            return False
        if conduit:
            free = trilinear(outer, spacing, x, y, z)
            if free < 0.0:
                return False
            room = min(room, free)
        if at >= length:
            return True
        at = min(length, at + max(least, 0.5 * room))
