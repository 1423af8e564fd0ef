"""jaxperf's tissue mesh, permeability and surface conditions for the torch reference."""

from collections.abc import Sequence

import numpy as np
import torch
from jax import Array

from jaxperf._misc import InputError
from jaxperf.darcy import DirichletFaces, NeumannFaces, RobinFaces
from jaxperf.geometry import boundary_triangles, TetMesh, VoxelMesh

from ._steady_arrays import to_tensor
from .reference import _darcy as reference


def reference_mesh(mesh: VoxelMesh | TetMesh, *, full_tensor: bool = False) -> reference.Mesh:
    """The raw geometry of a mesh: cells and the affine map of a grid, or points and tetrahedra.

    **Arguments:** `full_tensor` as for [`jaxperf.darcy.darcy_mesh`][].
    """
    if isinstance(mesh, VoxelMesh):
        cell_ijk = torch.tensor(mesh.cell_ijk, dtype=torch.int64)
        return reference.VoxelMesh(cell_ijk, torch.tensor(mesh.affine), full_tensor)
    return reference.TetMesh(torch.tensor(mesh.point), torch.tensor(mesh.tet, dtype=torch.int64))


def reference_darcy(
    mesh: VoxelMesh | TetMesh,
    permeability: Array,
    conditions: Sequence[DirichletFaces | NeumannFaces | RobinFaces] = (),
    *,
    sink: Array | None = None,
    source: Array | None = None,
    full_tensor: bool = False,
) -> reference.DarcyProblem:
    """What [`jaxperf.darcy.darcy_problem`][] takes, for the reference's `darcy_system`.

    Faces are named by cell and side of the grid, or by the vertices of their triangle.

    **Arguments:** `mesh` of jaxperf.geometry, not prepared; the others as there.

    **Errors:** [`InputError`][] for faces that the surface does not have.

    **Example:**

    ```python
    import bridges, jax, jax.numpy as jnp, jaxperf as jp
    jax.config.update("jax_enable_x64", True)
    mesh, _, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    sink, source = jnp.full(mesh.n_cells, 1e-5), jnp.full(mesh.n_cells, 1e-2)
    raw = bridges.reference_darcy(mesh, jnp.asarray(2e-9), sink=sink, source=source)
    ```
    """
    faces = _named_faces(mesh)
    zero = torch.zeros(mesh.n_cells, dtype=to_tensor(permeability).dtype)
    return reference.DarcyProblem(
        mesh=reference_mesh(mesh, full_tensor=full_tensor),
        permeability=to_tensor(permeability),
        sink=zero if sink is None else to_tensor(sink),
        source=zero if source is None else to_tensor(source),
        conditions=tuple(_condition(condition, faces) for condition in conditions),
    )


def _named_faces(mesh: VoxelMesh | TetMesh) -> np.ndarray:
    """(f, 2) or (f, 3) the names of `mesh.boundary_faces()`, in their order."""
    if isinstance(mesh, TetMesh):
        triangle = boundary_triangles(mesh.tet)
        return np.concatenate([np.roll(triangle, -turn, axis=1) for turn in range(3)])
    faces = mesh.boundary_faces()
    along = faces.normal @ mesh.axes.T
    axis = np.abs(along).argmax(axis=1)
    upper = along[np.arange(axis.size), axis] > 0
    return np.stack([faces.cell, 2 * axis + upper], axis=1)


def _condition(
    condition: DirichletFaces | NeumannFaces | RobinFaces, faces: np.ndarray
) -> reference.SurfaceCondition:
    index = np.asarray(condition.face)
    if index.size and not (index.min() >= 0 and index.max() < faces.shape[0]):
        raise InputError(
            f"faces {index.min()} to {index.max()} are named",
            where=type(condition).__name__,
            expected=f"indices from 0 to {faces.shape[0] - 1}",
            fix="Take the indices from mesh.boundary_faces() of the same mesh",
        )
    face = torch.tensor(faces[index], dtype=torch.int64)
    if isinstance(condition, DirichletFaces):
        return reference.DirichletFaces(face, to_tensor(condition.pressure))
    if isinstance(condition, NeumannFaces):
        return reference.NeumannFaces(face, to_tensor(condition.inflow))
    return reference.RobinFaces(
        face, to_tensor(condition.coefficient), to_tensor(condition.pressure)
    )
