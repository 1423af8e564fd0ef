"""Boxes and voxels cut into tetrahedra: six Kuhn simplices per cube, conforming."""

import itertools
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ._tet import build_tet_mesh, TetMesh
from ._voxel import VoxelMesh

# One simplex per order of the axes: the path along the cube's edges from (0,0,0) to (1,1,1). All
# cubes are cut by translation, so the diagonals of a shared face agree.
_PATH = np.array(
    [
        np.cumsum([np.zeros(3, dtype=np.int64), *np.eye(3, dtype=np.int64)[list(p)]], axis=0)
        for p in itertools.permutations(range(3))
    ]
)


def kuhn_tetrahedra(
    n_cubes: int | tuple[int, int, int],
    *,
    upper: tuple[float, float, float] = (1.0, 1.0, 1.0),
    vertex_map: Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, "n 3"]] | None = None,
    frame: str = "model",
) -> TetMesh:
    """The box from the origin to `upper` in equal cubes of six tetrahedra each.

    **Arguments:**

    - `n_cubes`: cubes along each axis.
    - `upper`: far corner of the box, m.
    - `vertex_map`: maps the (n, 3) vertices, for jittered or curved meshes.
    - `frame`: frame of the mesh.

    **Returns:**

    A [`jaxperf.geometry.TetMesh`][] with (n+1)³ vertices in grid order and 6 n³ tetrahedra.

    **Errors:** [`InputError`][] for fewer than one cube along an axis, and for a `vertex_map` that
    flattens a tetrahedron.

    **Source:** H. W. Kuhn (1960), Some combinatorial lemmas in topology, IBM J. Res. Dev. 4:518.

    **Example:**

    ```python
    import jaxperf as jp
    mesh = jp.geometry.kuhn_tetrahedra(4, upper=(0.02, 0.02, 0.02))
    ```
    """
    shape = (n_cubes, n_cubes, n_cubes) if isinstance(n_cubes, int) else n_cubes
    if min(shape) < 1:
        raise InputError(
            f"the number of cubes is {shape}",
            where="kuhn_tetrahedra",
            expected="at least one along each axis",
            fix="Use a positive number of cubes",
        )
    cube = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).reshape(-1, 3)
    vertex, tet = _cut(cube.astype(np.int64))
    point = vertex / np.array(shape) * np.array(upper)
    if vertex_map is not None:
        point = vertex_map(point)
    return build_tet_mesh(point, tet, frame=frame, where="kuhn_tetrahedra")


def tetrahedra_from_voxels(mesh: VoxelMesh) -> TetMesh:
    """The voxels of a mesh cut into six tetrahedra each.

    The volume and the stepped surface stay those of the voxels; control volumes become the
    corners of the voxels.

    **Arguments:**

    - `mesh`: a [`jaxperf.geometry.VoxelMesh`][].

    **Returns:**

    A [`jaxperf.geometry.TetMesh`][] in the same frame.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, _, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tets = jp.geometry.tetrahedra_from_voxels(mesh)
    ```
    """
    vertex, tet = _cut(mesh.cell_ijk)
    point = mesh.position(vertex - 0.5)
    return build_tet_mesh(point, tet, frame=mesh.frame, where="tetrahedra_from_voxels")


def _cut(
    cube: Int[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "m 4"]]:
    """Used corners of unit cubes (in grid order) and their tetrahedra."""
    corner = cube[:, None, None, :] + _PATH[None, :, :, :]
    size = cube.max(axis=0) + 2
    key = np.ravel_multi_index(tuple(np.moveaxis(corner, -1, 0)), tuple(size))
    used, tet = np.unique(key, return_inverse=True)
    vertex = np.stack(np.unravel_index(used, tuple(size)), axis=1)
    return vertex.astype(np.float64), tet.reshape(-1, 4)
