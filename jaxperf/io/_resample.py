"""A field of a tetrahedral mesh on a regular grid."""

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ..geometry import TetMesh
from ..units import M_PER_MM
from ._frames import to_frame

# Grid points on a face belong to both sides; without a margin, round-off could leave them out.
_MARGIN = 1e-9
# Candidate points handled at once, which bounds the memory at some 100 MB.
_CHUNK = 500_000
# Voxels of a map, 8 bytes each while it is sampled.
_MOST_VOXELS = 1e8


def sample_on_grid(
    mesh: TetMesh,
    values: Float[np.ndarray, " c"],
    *,
    spacing_mm: float = 1.25,
    background: float = 0.0,
) -> tuple[Float[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]]:
    """Sample a vertex field on a grid along the axes of RAS.

    At a grid point x in the tetrahedron T with barycentric coordinates $\\lambda_v(x)$ the value
    is $\\sum_{v \\in T} \\lambda_v(x) f_v$; outside the mesh it is `background`.

    **Arguments:**

    - `values`: (c,), at the vertices.
    - `spacing_mm`: grid spacing.

    **Returns:** the volume, and the affine from grid index to position in m, RAS. Grid points
    lie at multiples of the spacing.

    **Errors:** [`InputError`][] for a mesh in model coordinates, and for too many voxels.

    **Example:**

    ```python
    import jaxperf as jp
    box = jp.geometry.kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02), frame="RAS")
    height, affine = jp.io.sample_on_grid(box, box.point[:, 2], spacing_mm=5.0)
    ```
    """
    spacing = spacing_mm * M_PER_MM
    point = to_frame(mesh.point, mesh.frame, "RAS")
    low, shape = sampling_grid(mesh, spacing_mm)
    index = point / spacing - low[None, :]
    volume = np.full(tuple(shape.tolist()), background, np.float64)
    corner = index[mesh.tet]
    first = np.ceil(corner.min(1) - _MARGIN).astype(np.int64)
    count = np.floor(corner.max(1) + _MARGIN).astype(np.int64) - first + 1
    total = np.cumsum(count.prod(1))
    for part in np.split(
        np.arange(len(total)), np.searchsorted(total, np.arange(_CHUNK, total[-1], _CHUNK))
    ):
        grid, tet, weight = _inside(corner[part], first[part], count[part])
        value = (weight * values[mesh.tet[part][tet]]).sum(1)
        volume[grid[:, 0], grid[:, 1], grid[:, 2]] = value
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low * spacing
    return volume, affine


def sampling_grid(
    mesh: TetMesh, spacing_mm: float
) -> tuple[Int[np.ndarray, "3"], Int[np.ndarray, "3"]]:
    """The first index and the shape of the grid that `sample_on_grid` takes.

    **Errors:** [`InputError`][] for a grid of more voxels than can be written.
    """
    point = to_frame(mesh.point, mesh.frame, "RAS")
    spacing = spacing_mm * M_PER_MM
    count = float(np.prod(np.ptp(point, axis=0) / spacing + 1.0))
    if count > _MOST_VOXELS:
        least = spacing_mm * (count / _MOST_VOXELS) ** (1.0 / 3.0)
        raise InputError(
            f"a `spacing_mm` of {spacing_mm:g} makes a map of {count:.2g} voxels",
            where="sample_on_grid",
            expected=f"at most {_MOST_VOXELS:.0e} voxels",
            fix=f"Take a `spacing_mm` of at least {least:.2g}",
        )
    low = np.floor(point.min(0) / spacing).astype(np.int64)
    return low, np.ceil(point.max(0) / spacing).astype(np.int64) - low + 1


def _inside(
    corner: Float[np.ndarray, "m 4 3"], first: Int[np.ndarray, "m 3"], count: Int[np.ndarray, "m 3"]
) -> tuple[Int[np.ndarray, "q 3"], Int[np.ndarray, " q"], Float[np.ndarray, "q 4"]]:
    """Grid points in each tetrahedron, the tetrahedron, and the barycentric coordinates."""
    number = count.prod(1)
    tet = np.repeat(np.arange(len(corner)), number)
    rank = np.arange(len(tet)) - np.repeat(np.cumsum(number) - number, number)
    size = count[tet]
    k = rank % size[:, 2]
    j = rank // size[:, 2] % size[:, 1]
    i = rank // (size[:, 1] * size[:, 2])
    grid = first[tet] + np.stack([i, j, k], axis=1)
    inverse = np.linalg.inv(np.swapaxes(corner[:, 1:] - corner[:, :1], 1, 2))
    tail = np.einsum("qab,qb->qa", inverse[tet], grid - corner[tet, 0])
    weight = np.concatenate([1.0 - tail.sum(1, keepdims=True), tail], axis=1)
    keep = (weight >= -_MARGIN).all(1)
    return grid[keep], tet[keep], weight[keep]
