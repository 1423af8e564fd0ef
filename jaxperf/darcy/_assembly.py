"""Transmissibilities from a mesh and a permeability."""

from typing import Literal, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, ParameterLike
from .._misc import InputError
from ..geometry import TetMesh, VoxelMesh
from ._mesh import AbstractDarcyMesh, check_shape, permeability_leaf
from ._operator import build_darcy_graph, DarcyGraph
from ._tensor import build_voxel_tensor_mesh, VoxelTensorDarcyMesh


class VoxelDarcyMesh(AbstractDarcyMesh):
    """Two-point flux between voxels: T = A/d · harmonic mean of n·K·n on the two sides.

    Consistent where K is diagonal in the axes of the grid only; `check_permeability`
    refuses others, and [`jaxperf.darcy.VoxelTensorDarcyMesh`][] takes them.
    """

    graph: DarcyGraph
    normal: Float[Array, "e 3"]
    area_over_distance: Float[Array, " e"]
    cell_ijk: Int[Array, "c 3"]

    @property
    def n_elements(self) -> int:
        return self.graph.n_cells

    def transmissibility(self, permeability: ParameterLike) -> Float[Array, " e"]:
        permeability = permeability_leaf(permeability, self)
        if permeability.ndim == 0:
            return permeability * self.area_over_distance
        beside = permeability[self.graph.edge]
        if permeability.ndim == 3:
            beside = jnp.einsum("ei,esij,ej->es", self.normal, beside, self.normal)
        first, second = beside[:, 0], beside[:, 1]
        return 2.0 * first * second / (first + second) * self.area_over_distance


class TetDarcyMesh(AbstractDarcyMesh):
    """Vertex-centred control volumes on linear tetrahedra: T_ij = −Σ_T |T| ∇φ_i·K·∇φ_j.

    Symmetric, full tensors, conservative on the duals, second order. With full tensors or obtuse
    tetrahedra some T_ij are negative: there is no maximum principle. (Two-point flux between cell
    centres does not converge on such meshes.)
    """

    graph: DarcyGraph
    gradient: Float[Array, "m 4 3"]
    tet_volume: Float[Array, " m"]
    tet_edge: Int[Array, "m 6"]

    @property
    def n_elements(self) -> int:
        return self.tet_volume.shape[0]

    def transmissibility(self, permeability: ParameterLike) -> Float[Array, " e"]:
        permeability = permeability_leaf(permeability, self)
        first, second = (self.gradient[:, _PAIRS[:, k]] for k in (0, 1))
        # Sums over the axes are written out: XLA:CPU is slow at many products of small matrices.
        along = [second[..., i] for i in range(3)]
        if permeability.ndim == 3:
            # symmetric, so that the gradient in its entries is, too
            k = 0.5 * (permeability + permeability.mT)[:, None]
            along = [sum(k[..., i, j] * second[..., j] for j in range(3)) for i in range(3)]
        stiffness = sum(first[..., i] * along[i] for i in range(3))
        scale = self.tet_volume if permeability.ndim != 1 else self.tet_volume * permeability
        local = -stiffness * scale[:, None]
        if permeability.ndim == 0:
            local = permeability * local
        return jax.ops.segment_sum(
            local.reshape(-1), self.tet_edge.reshape(-1), self.graph.edge.shape[0]
        )


_PAIRS = np.array([[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]])


@overload
def darcy_mesh(
    mesh: VoxelMesh | TetMesh, *, full_tensor: Literal[False] = False
) -> VoxelDarcyMesh | TetDarcyMesh: ...


@overload
def darcy_mesh(
    mesh: VoxelMesh | TetMesh, *, full_tensor: Literal[True]
) -> VoxelTensorDarcyMesh | TetDarcyMesh: ...


def darcy_mesh(
    mesh: VoxelMesh | TetMesh, *, full_tensor: bool = False
) -> VoxelDarcyMesh | VoxelTensorDarcyMesh | TetDarcyMesh:
    """Prepare a mesh for Darcy; runs on the host.

    **Arguments:** `full_tensor`, whether voxels take tensors in any axes. That costs 26
    neighbours in place of 6; tetrahedra take them anyway.

    **Example:**

    ```python
    import jaxperf as jp
    mesh = jp.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    conducting = mesh.transmissibility(2e-9)  # m³/(s·Pa) of every edge
    ```
    """
    if isinstance(mesh, VoxelMesh) and full_tensor:
        return build_voxel_tensor_mesh(mesh)
    if isinstance(mesh, VoxelMesh):
        pairs = mesh.face_pairs()
        return VoxelDarcyMesh(
            graph=build_darcy_graph(pairs.edge, mesh.volume),
            normal=as_leaf(mesh.axes[pairs.axis]),
            area_over_distance=as_leaf(pairs.area / pairs.distance),
            cell_ijk=as_leaf(mesh.cell_ijk, np.int32),
        )
    corner = mesh.point[mesh.tet]
    jacobian = np.transpose(corner[:, 1:] - corner[:, :1], (0, 2, 1))
    inverse = np.linalg.inv(jacobian)
    gradient = np.concatenate([-inverse.sum(axis=1, keepdims=True), inverse], axis=1)
    ends = np.sort(mesh.tet[:, _PAIRS], axis=2).reshape(-1, 2)
    n = mesh.n_cells
    code, tet_edge = np.unique(ends[:, 0] * n + ends[:, 1], return_inverse=True)
    edge = np.stack([code // n, code % n], axis=1)
    return TetDarcyMesh(
        graph=build_darcy_graph(edge, mesh.volume),
        gradient=as_leaf(gradient),
        tet_volume=as_leaf(mesh.tet_volume),
        tet_edge=as_leaf(tet_edge.reshape(-1, 6), np.int32),
    )


def transversely_isotropic(
    along: Float[Array, ""], across: Float[Array, ""], fibre: Float[Array, "k 3"]
) -> Float[Array, "k 3 3"]:
    """Fibre-aligned permeability K = across·I + (along − across) f fᵀ.

    **Arguments:** `along`, `across` the fibre, m²/(Pa·s); `fibre` (k, 3) unit vectors.
    """
    outer = fibre[:, :, None] * fibre[:, None, :]
    return across * jnp.eye(3, dtype=fibre.dtype)[None] + (along - across) * outer


def check_permeability(
    mesh: AbstractDarcyMesh, permeability: Float[np.ndarray, "..."], where: str
) -> None:
    """Refuse a permeability that is not positive definite, or that a mesh cannot represent.

    **Errors:** [`InputError`][] naming the element. A rotated tensor is refused by two-point
    fluxes on voxels, which would drop its off-diagonal part and converge to the wrong pressure.
    """
    check_shape(permeability, mesh.n_elements)
    tensor = permeability.ndim == 3
    smallest = np.linalg.eigvalsh(permeability)[:, 0] if tensor else np.atleast_1d(permeability)
    bad = ~(np.isfinite(smallest) & (smallest > 0))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"the permeability of element {i} is {smallest[i]:.3g} m2/(Pa s)",
            where=where,
            expected="a positive number (a positive definite tensor)",
            fix="Mask the element out of the wall or give it a permeability",
        )
    if tensor and isinstance(mesh, VoxelDarcyMesh):
        axes = np.unique(np.round(np.asarray(mesh.normal), 6), axis=0)
        inner = np.einsum("ai,kij,bj->kab", axes, permeability, axes)
        off = np.abs(inner - np.einsum("kaa->ka", inner)[:, :, None] * np.eye(len(axes)))
        if (off.max(axis=(1, 2)) > 1e-6 * np.abs(inner).max(axis=(1, 2))).any():
            raise InputError(
                "the permeability tensor is not diagonal in the axes of the voxel grid",
                where=where,
                expected="a scalar, or a tensor aligned with the grid",
                fix="Prepare the voxels with darcy_mesh(mesh, full_tensor=True), or use a "
                "tetrahedral mesh (`mesh: tetrahedra` cuts the voxels into them)",
            )
