r"""Full permeability tensors on voxels: multi-point fluxes by elimination of face pressures.

Every corner of the grid joins up to eight voxels in twelve quarters of faces. Each quarter has a
pressure of its own, taken at the centre of its face, so that in the eighth of voxel c at a corner
the gradient is $g_a = 2\sigma_a(u_a - p_c)/h_a$ from the three quarters that bound it. The
pressures u of one corner minimise

$$\sum_c \tfrac{V}{8}\, g^TK_c\,g,$$

which makes the flux through every quarter continuous, and zero where no voxel lies behind it. What
is left is a quadratic form in the eight p_c: symmetric, at least zero, and zero for equal
pressures, so an edge for each pair of voxels carries it, T_ij = −A_ij.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import as_leaf, ParameterLike
from ..geometry import VoxelMesh
from ._mesh import AbstractDarcyMesh, permeability_leaf
from ._operator import build_darcy_graph, DarcyGraph

# The voxels around a corner: 0 below it and 1 above it along each axis.
_SIDE = np.array(list(itertools.product((0, 1), repeat=3)))
# From the middle of a voxel towards its quarters of faces at the corner.
_SIGN = 1.0 - 2.0 * _SIDE
_PAIRS = np.array(list(itertools.combinations(range(8), 2)))


def _quarter_table() -> Int[np.ndarray, "8 3"]:
    """The quarters that bound a voxel at a corner: by their axis and the sides of the others."""
    others = [[b for b in range(3) if b != a] for a in range(3)]
    return np.stack(
        [4 * a + 2 * _SIDE[:, b] + _SIDE[:, c] for a, (b, c) in enumerate(others)], axis=1
    )


_QUARTER = _quarter_table()
# Corners eliminated together: bounds the memory of the (12, 12) systems at a million voxels.
_BATCH = 8192


class QuarterData(NamedTuple):
    """What acts on the quarters of faces of every corner, (v, 12) each.

    `exchange` m³/s/Pa and `inflow` m³/s make the flow out exchange · u − inflow; `known` quarters
    have the pressure `pressure`, Pa.
    """

    exchange: Float[Array, "v 12"]
    inflow: Float[Array, "v 12"]
    known: Bool[Array, "v 12"]
    pressure: Float[Array, "v 12"]


class VoxelTensorDarcyMesh(AbstractDarcyMesh):
    """Multi-point fluxes between voxels that share a corner, for any tensor (MPFA-O).

    Symmetric, conservative, second order; exact where the pressure is linear on both sides of a
    jump of K that follows the grid. For K diagonal in the axes of the grid it is the two-point
    flux of [`jaxperf.darcy.VoxelDarcyMesh`][]. Otherwise some T_ij are negative: there is no
    maximum principle.

    **Source:** Aavatsmark, Comput Geosci 6:405 (2002), the O-method with the point of continuity
    in the middle of the face, here in the form of a minimum, which shows its symmetry; Wheeler
    and Yotov, SIAM J Numer Anal 44:2082 (2006).
    """

    graph: DarcyGraph
    axes: Float[Array, "3 3"]
    scale: Float[Array, "3 3"]
    corner_cell: Int[Array, "v 8"]
    corner_edge: Int[Array, "v 28"]
    surface_quarter: Int[Array, "f 4"]
    cell_ijk: Int[Array, "c 3"]

    @property
    def n_elements(self) -> int:
        return self.graph.n_cells

    @property
    def n_corners(self) -> int:
        """Corners of the grid that touch a voxel of the mesh."""
        return self.corner_cell.shape[0]

    def transmissibility(self, permeability: ParameterLike) -> Float[Array, " e"]:
        local = self._local(permeability)
        part = jax.lax.map(
            jax.checkpoint(lambda k: _pairs(_eliminate(k))), local, batch_size=_BATCH
        )
        return self._over_edges(part)

    def with_surface(
        self, permeability: Float[Array, "..."], surface: QuarterData
    ) -> tuple[Float[Array, " e"], Float[Array, " c"], Float[Array, " c"]]:
        """Transmissibility (m³/s/Pa), sink (m³/s/Pa) and source (m³/s) with a surface that is not
        closed: its quarters are eliminated with the others."""

        def corner(
            arguments: tuple[Float[Array, "8 3 3"], QuarterData],
        ) -> tuple[Float[Array, " 28"], Float[Array, " 8"], Float[Array, " 8"]]:
            matrix, source = _eliminate_with(*arguments)
            surface = arguments[1]
            open_ = jnp.any(surface.known | (surface.exchange != 0))
            # row sums of the other corners are zero up to round-off, which is no sink
            return _pairs(matrix), jnp.where(open_, jnp.sum(matrix, axis=1), 0.0), source

        local = self._local(permeability)
        part, sink, source = jax.lax.map(
            jax.checkpoint(corner), (local, surface), batch_size=_BATCH
        )
        return self._over_edges(part), self._over_cells(sink), self._over_cells(source)

    def _local(self, permeability: ParameterLike) -> Float[Array, "v 8 3 3"]:
        """V/(2 h_a h_b) σ_a σ_b K_ab of the voxels around every corner; 0 for those missing."""
        permeability = permeability_leaf(permeability, self)
        if permeability.ndim < 3:
            field = jnp.broadcast_to(permeability, (self.n_elements,))
            tensor = field[:, None, None] * jnp.eye(3, dtype=field.dtype)[None]
        else:
            # symmetric, so that the gradient in its entries is, too
            symmetric = 0.5 * (permeability + permeability.mT)
            tensor = jnp.einsum("ai,kij,bj->kab", self.axes, symmetric, self.axes)
        tensor = tensor * self.scale[None]
        padded = jnp.concatenate([tensor, jnp.zeros((1, 3, 3), tensor.dtype)])
        sign = jnp.asarray(_SIGN[:, :, None] * _SIGN[:, None, :], tensor.dtype)
        return padded[self.corner_cell] * sign[None]

    def _over_edges(self, part: Float[Array, "v 28"]) -> Float[Array, " e"]:
        n = self.graph.edge.shape[0]
        return jax.ops.segment_sum(part.reshape(-1), self.corner_edge.reshape(-1), n + 1)[:n]

    def _over_cells(self, part: Float[Array, "v 8"]) -> Float[Array, " c"]:
        n = self.n_elements
        return jax.ops.segment_sum(part.reshape(-1), self.corner_cell.reshape(-1), n + 1)[:n]


def _spread(quarter: Float[Array, "12 k"]) -> Float[Array, "8 3 k"]:
    """The values of the three quarters that bound each voxel at a corner."""
    along = quarter.reshape(3, 2, 2, -1)
    shape = (2, 2, 2, along.shape[-1])
    around = [jnp.broadcast_to(jnp.expand_dims(along[a], a), shape) for a in range(3)]
    return jnp.stack(around, axis=3).reshape(8, 3, -1)


def _collect(flux: Float[Array, "8 3 k"]) -> Float[Array, "12 k"]:
    """Sums over the two sides of every quarter; the transpose of `_spread`."""
    cube = flux.reshape(2, 2, 2, 3, -1)
    return jnp.stack([jnp.sum(cube[:, :, :, a], axis=a) for a in range(3)]).reshape(12, -1)


def _solve(
    local: Float[Array, "8 3 3"],
    right: Float[Array, "12 k"],
    exchange: Float[Array, " 12"] | None = None,
    free: Float[Array, " 12"] | None = None,
) -> Float[Array, "12 k"]:
    """Pressures of the quarters from what flows into them; zero where they are not free.

    Differentiated as a linear system, so that derivatives use the same factors again.
    """
    bare = _collect(local @ _spread(jnp.eye(12, dtype=local.dtype)))
    # A quarter without a voxel on either side has an empty row.
    idle = (jnp.diagonal(bare) == 0).astype(local.dtype)

    def product(u: Float[Array, "12 k"]) -> Float[Array, "12 k"]:
        if free is None or exchange is None:
            return _collect(local @ _spread(u)) + idle[:, None] * u
        inner = free[:, None] * u
        flux = _collect(local @ _spread(inner)) + exchange[:, None] * inner
        return free[:, None] * flux + (1.0 - free + free * idle)[:, None] * u

    inverse = _inverse(jax.lax.stop_gradient(product(jnp.eye(12, dtype=local.dtype))))

    def solve(product: Callable[[Array], Array], b: Float[Array, "12 k"]) -> Float[Array, "12 k"]:
        u = inverse @ b
        return u + inverse @ (b - product(u))

    return jax.lax.custom_linear_solve(product, right, solve, symmetric=True)


def _inverse(matrix: Float[Array, "12 12"]) -> Float[Array, "12 12"]:
    """Exchange steps without pivoting, which positive definite matrices do not need.

    A batch of Cholesky factorisations inside a loop stopped XLA for good on a CPU of two cores.
    """

    def exchange(
        matrix: Float[Array, "12 12"], pivot: Int[Array, ""]
    ) -> tuple[Float[Array, "12 12"], None]:
        unit = (jnp.arange(12) == pivot).astype(matrix.dtype)
        column = jax.lax.dynamic_index_in_dim(matrix, pivot, 1, keepdims=False)
        swapped = jnp.where(unit[None, :] == 1, unit[:, None], matrix)
        row = jax.lax.dynamic_index_in_dim(swapped, pivot, 0, keepdims=False)
        ratio = row / jax.lax.dynamic_index_in_dim(column, pivot, 0, keepdims=False)
        return swapped - (column - unit)[:, None] * ratio[None, :], None

    return jax.lax.scan(exchange, matrix, jnp.arange(12))[0]


# A unit pressure in each voxel, seen from its three quarters.
_UNIT = np.broadcast_to(np.eye(8)[:, None, :], (8, 3, 8))


def _eliminate(local: Float[Array, "8 3 3"]) -> Float[Array, "8 8"]:
    """The form in the pressures of the voxels alone, every quarter of a surface closed."""
    unit = jnp.asarray(_UNIT, local.dtype)
    quarter = _solve(local, _collect(local @ unit))
    return jnp.sum(local @ (unit - _spread(quarter)), axis=1)


def _eliminate_with(
    local: Float[Array, "8 3 3"], surface: QuarterData
) -> tuple[Float[Array, "8 8"], Float[Array, " 8"]]:
    """The form and its right-hand side with what acts on the quarters of a surface."""
    unit = jnp.asarray(_UNIT, local.dtype)
    free = (~surface.known).astype(local.dtype)
    value = jnp.where(surface.known, surface.pressure, 0.0).astype(local.dtype)[:, None]
    push = surface.inflow[:, None] - _collect(local @ _spread(value))
    right = free[:, None] * jnp.concatenate([_collect(local @ unit), push], axis=1)
    quarter = _solve(local, right, surface.exchange, free)
    matrix = jnp.sum(local @ (unit - _spread(quarter[:, :8])), axis=1)
    source = jnp.sum(local @ _spread(quarter[:, 8:] + value), axis=1)[:, 0]
    return matrix, source


def _pairs(matrix: Float[Array, "8 8"]) -> Float[Array, " 28"]:
    return -matrix[_PAIRS[:, 0], _PAIRS[:, 1]]


def build_voxel_tensor_mesh(mesh: VoxelMesh) -> VoxelTensorDarcyMesh:
    """Corners, pairs of voxels and quarters of the surface; runs on the host."""
    n = mesh.n_cells
    size = np.array(mesh.shape) + 1
    # the voxel at side s of a corner has that corner at its own side 1 − s
    corner_of = np.ravel_multi_index(
        tuple(np.moveaxis(mesh.cell_ijk[:, None, :] + 1 - _SIDE[None], -1, 0)), tuple(size)
    )
    used, corner_of = np.unique(corner_of, return_inverse=True)
    corner_of = corner_of.reshape(n, 8)
    cell = np.full((used.size, 8), n)
    cell[corner_of, np.arange(8)[None, :]] = np.arange(n)[:, None]
    ends = np.sort(cell[:, _PAIRS], axis=2)
    joined = ends[..., 1] < n
    code, where = np.unique(ends[joined] @ np.array([n, 1]), return_inverse=True)
    edge = np.full(joined.shape, code.size)
    edge[joined] = where.reshape(-1)
    spacing = mesh.spacing
    return VoxelTensorDarcyMesh(
        graph=build_darcy_graph(np.stack([code // n, code % n], axis=1), mesh.volume),
        axes=as_leaf(mesh.axes),
        scale=as_leaf(np.prod(spacing) / (2.0 * spacing[:, None] * spacing[None, :])),
        corner_cell=as_leaf(cell, np.int32),
        corner_edge=as_leaf(edge, np.int32),
        surface_quarter=as_leaf(_surface_quarters(mesh, corner_of), np.int32),
        cell_ijk=as_leaf(mesh.cell_ijk, np.int32),
    )


def _surface_quarters(mesh: VoxelMesh, corner_of: Int[np.ndarray, "c 8"]) -> np.ndarray:
    """The four quarters 12 · corner + quarter of every face of `mesh.boundary_faces()`."""
    faces = mesh.boundary_faces()
    along = faces.normal @ mesh.axes.T
    axis = np.argmax(np.abs(along), axis=1)
    outward = np.take_along_axis(along, axis[:, None], axis=1)[:, 0]
    # per axis and sign, the sides of the voxel whose quarters lie in that face
    table = np.array(
        [[np.flatnonzero(_SIGN[:, a] == sign) for sign in (-1.0, 1.0)] for a in range(3)]
    )
    side = table[axis, (outward > 0).astype(np.int64)]
    return 12 * corner_of[faces.cell[:, None], side] + _QUARTER[side, axis[:, None]]
