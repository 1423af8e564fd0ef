"""The wall the trees grow in: what lies inside, and how far its surface is."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from .._native import array, filled, structure
from ..geometry import VoxelMesh

# Depth (0 endocardium, 1 epicardium) from which on a vessel counts as an epicardial conduit.
CONDUIT_DEPTH = 0.5


class Wall(NamedTuple):
    """The wall on its grid, in coordinates (m) along its axes; voxel 0 of the mesh is 1 here.

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


_FIELD = array(np.float64, 3)
# In the order of the C struct.
WALL = structure(
    "Wall",
    {"spacing": array(np.float64), "clearance": _FIELD, "conduit": _FIELD},
    "n_i",
    "n_j",
    "n_k",
)


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


def wall_struct(wall: Wall) -> Any:
    """The wall as C takes it."""
    return filled(WALL, wall._asdict(), *wall.clearance.shape)
