"""A field of a tetrahedral mesh on a regular grid."""

import numpy as np
from jaxtyping import Float, Int

from ..geometry import TetMesh
from ..units import M_PER_MM
from ._frames import to_frame

# Grid points on a face belong to both sides; without a margin, round-off could leave them out.
_MARGIN = 1e-9
# Candidate points handled at once, which bounds the memory at some 100 MB.
_CHUNK = 500_000


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

    **Errors:** [`InputError`][] for a mesh in model coordinates.

    **Example:**

    ```python
    import jaxperf as jp
    box = jp.geometry.kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02), frame="RAS")
    height, affine = jp.io.sample_on_grid(box, box.point[:, 2], spacing_mm=5.0)
    ```
    """
    spacing = spacing_mm * M_PER_MM
    point = to_frame(mesh.point, mesh.frame, "RAS")
    low = np.floor(point.min(0) / spacing).astype(np.int64)
    shape = np.ceil(point.max(0) / spacing).astype(np.int64) - low + 1
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
