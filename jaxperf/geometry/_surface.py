"""Voxels of a wall that is given as a closed surface."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ._mesh import check_finite
from ._voxel import build_voxel_mesh, VoxelMesh

if TYPE_CHECKING:
    import pyvista


def voxels_from_surface(
    point: Float[np.ndarray, "p 3"],
    triangle: Int[np.ndarray, "f 3"],
    *,
    spacing: float,
    frame: str,
    where: str = "closed surface",
) -> VoxelMesh:
    """The wall inside a closed surface as voxels whose centres lie inside it.

    **Arguments:**

    - `point`: (p, 3), m; `triangle`: (f, 3), indices of points, any orientation. Surfaces inside
      one another bound holes.
    - `spacing`: side of the voxels, m.
    - `frame`: "LPS", "RAS" or "model".

    **Errors:** [`InputError`][] for a surface with open edges, and one so fine or so coarse that
    the largest piece of the voxels is not the wall (see
    [`build_voxel_mesh`][jaxperf.geometry.build_voxel_mesh]).
    """
    import pyvista as pv

    surface = closed_surface(point, triangle, where)
    low = point.min(axis=0) - spacing
    count = np.ceil((point.max(axis=0) + spacing - low) / spacing).astype(np.int64) + 1
    grid = pv.ImageData(
        dimensions=tuple(int(n) for n in count), spacing=(spacing,) * 3, origin=tuple(low)
    )
    inside = grid.select_interior_points(surface, method="cell_locator")["selected_points"]
    label = np.asarray(inside).astype(np.int32).reshape(tuple(count), order="F")
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low
    return build_voxel_mesh(label, affine, frame=frame, largest_piece=True, where=where)


def closed_surface(
    point: Float[np.ndarray, "p 3"], triangle: Int[np.ndarray, "f 3"], where: str
) -> "pyvista.PolyData":
    """Triangles as a surface of pyvista; refused where it has open edges."""
    import pyvista as pv

    check_finite(point, "the surface", where)
    faces = np.column_stack([np.full(len(triangle), 3), triangle]).ravel()
    surface = pv.PolyData(point, faces)
    if surface.n_open_edges:
        raise InputError(
            f"the surface has {surface.n_open_edges} open edges",
            where=where,
            expected="a closed surface",
            fix="Close its holes, or give a label volume",
        )
    return surface
