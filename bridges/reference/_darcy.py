"""Darcy flow on control volumes: meshes from raw geometry, transmissibilities, surface conditions.

    u = −K∇p,    ∇·u + s p = f

becomes A p = source with A = Σ_e T_e (e_i − e_j)(e_i − e_j)ᵀ + diag(sink).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch

from ._darcy_mpfa import (
    corner_cells,
    corner_place,
    multi_point,
    multi_point_edges,
    Quarters,
)

# Relative size up to which an entry of a tensor counts as rounding.
_ROUNDING = 1e-9
_TET_PAIR = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
_TET_TRIANGLE = ((1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2))


@dataclass(frozen=True)
class VoxelMesh:
    """Cells of a regular grid, each a control volume.

    **Fields:** `cell_ijk` (c, 3) int64, the grid index of each cell; `affine` (4, 4), grid index
    to position in m, with orthogonal columns; `full_tensor`, whether the fluxes are multi-point
    (tensors in any axes, 26 neighbours) or two-point (tensors diagonal in the grid, 6).

    **Errors:** `ValueError` for other shapes, repeated cells, and columns that are not orthogonal.
    """

    cell_ijk: torch.Tensor
    affine: torch.Tensor
    full_tensor: bool = False

    def __post_init__(self) -> None:
        _check_index(self.cell_ijk, 3, "cell_ijk")
        if self.affine.shape != (4, 4):
            raise ValueError(
                f"affine has shape {tuple(self.affine.shape)}; expected (4, 4). "
                "Pass the map from grid index to position in metres."
            )
        column = self.affine.detach()[:3, :3]
        gram = column.T @ column
        size = gram.diagonal()
        if not bool((size > 0).all()) or not bool(
            ((gram - torch.diag(size)).abs() <= _ROUNDING * size.max()).all()
        ):
            raise ValueError(
                "the columns of affine are not orthogonal and of positive length; "
                "expected a grid without shear. Resample the image."
            )
        if torch.unique(self.cell_ijk, dim=0).shape[0] != self.cell_ijk.shape[0]:
            raise ValueError("cell_ijk repeats a cell; expected distinct ones. Remove the copies.")

    @property
    def n_elements(self) -> int:
        """Number of cells, which carry the permeability."""
        return self.cell_ijk.shape[0]

    @property
    def n_cells(self) -> int:
        """Number of control volumes."""
        return self.cell_ijk.shape[0]

    @property
    def spacing(self) -> torch.Tensor:
        """(3,) lengths of a voxel along the axes of the grid, m."""
        return torch.linalg.vector_norm(self.affine[:3, :3], dim=0)

    @property
    def axes(self) -> torch.Tensor:
        """(3, 3) unit vectors along the axes of the grid, one in each row."""
        return (self.affine[:3, :3] / self.spacing).T

    @property
    def volume(self) -> torch.Tensor:
        """(c,) m³."""
        return self.spacing.prod().expand(self.n_cells)

    @property
    def edge(self) -> torch.Tensor:
        """(e, 2) int64 pairs of cells that exchange fluid, the smaller index first."""
        return self._pairs[0]

    @cached_property
    def neighbour(self) -> torch.Tensor:
        """(c, 6) int64, the cell behind side 2a (lower) or 2a + 1 (upper) of axis a; −1: none."""
        step = np.concatenate([[-unit, unit] for unit in np.eye(3, dtype=np.int64)])
        return _look_up(self.cell_ijk, self.cell_ijk[:, None] + self.cell_ijk.new_tensor(step))

    @cached_property
    def corner(self) -> torch.Tensor:
        """(v, 8) int64, the cells around each corner of the grid; −1 where there is none."""
        return corner_cells(self.cell_ijk, lambda place: _look_up(self.cell_ijk, place))

    @cached_property
    def _pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Edges, and the axis of each (two-point) or each corner's 28 edges (multi-point)."""
        if self.full_tensor:
            return multi_point_edges(self.corner, self.n_cells)
        upper = self.neighbour[:, 1::2]
        cell, axis = torch.nonzero(upper >= 0, as_tuple=True)
        pair = torch.stack([cell, upper[cell, axis]], dim=1)
        return pair.sort(dim=1).values, axis


@dataclass(frozen=True)
class TetMesh:
    """Linear tetrahedra whose vertices are the control volumes.

    **Fields:** `point` (v, 3), m; `tet` (t, 4) int64, of either orientation.

    **Errors:** `ValueError` for other shapes, vertices that do not exist, flat tetrahedra, and
    vertices of no tetrahedron.
    """

    point: torch.Tensor
    tet: torch.Tensor

    def __post_init__(self) -> None:
        _check_index(self.tet, 4, "tet")
        if self.point.ndim != 2 or self.point.shape[1] != 3:
            raise ValueError(
                f"point has shape {tuple(self.point.shape)}; expected (v, 3). "
                "Pass one position in metres for each vertex."
            )
        used = torch.unique(self.tet)
        if not torch.equal(used, torch.arange(self.n_cells, device=used.device)):
            raise ValueError(
                "tet does not use the vertices 0 to v − 1, each at least once. "
                "Remove lone points and number the others anew."
            )
        corner = self.point.detach()[self.tet]
        length = (corner[:, 1:] - corner[:, :1]).norm(dim=2).amax(dim=1)
        flat = torch.nonzero(self.tet_volume.detach() <= 1e-14 * length**3)
        if flat.numel():
            raise ValueError(
                f"tetrahedron {int(flat[0])} is flat; expected a positive volume. "
                "Repair the mesh before the flow is solved."
            )

    @property
    def n_elements(self) -> int:
        """Number of tetrahedra, which carry the permeability."""
        return self.tet.shape[0]

    @property
    def n_cells(self) -> int:
        """Number of control volumes, the vertices."""
        return self.point.shape[0]

    @property
    def tet_volume(self) -> torch.Tensor:
        """(t,) m³."""
        return self.gradient[1]

    @property
    def gradient(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(t, 4, 3) gradients ∇φ of the barycentric coordinates, 1/m, and (t,) volumes |T|, m³."""
        corner = self.point[self.tet]
        a, b, c = (corner[:, k] - corner[:, 0] for k in (1, 2, 3))
        normal = torch.stack([torch.linalg.cross(*pair) for pair in ((b, c), (c, a), (a, b))], 1)
        six_volumes = (a * normal[:, 0]).sum(dim=1)
        inner = normal / six_volumes[:, None, None]
        return torch.cat([-inner.sum(dim=1, keepdim=True), inner], dim=1), six_volumes.abs() / 6.0

    @property
    def volume(self) -> torch.Tensor:
        """(v,) m³, of the dual of each vertex: a quarter of every tetrahedron around it."""
        quarter = 0.25 * self.tet_volume
        return quarter.new_zeros(self.n_cells).index_add(
            0, self.tet.reshape(-1), quarter.repeat_interleave(4)
        )

    @property
    def edge(self) -> torch.Tensor:
        """(e, 2) int64 pairs of vertices of one tetrahedron, the smaller index first."""
        return self._pairs[0]

    @cached_property
    def _pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Edges, and (t, 6) the edges of each tetrahedron."""
        pair = self.tet[:, self.tet.new_tensor(_TET_PAIR)].sort(dim=2).values
        key, place = torch.unique(pair[..., 0] * self.n_cells + pair[..., 1], return_inverse=True)
        return torch.stack([key // self.n_cells, key % self.n_cells], dim=1), place

    @cached_property
    def triangle(self) -> torch.Tensor:
        """(k, 3) int64 triangles of one tetrahedron only, their vertices in increasing order."""
        every = self.tet[:, self.tet.new_tensor(_TET_TRIANGLE)].reshape(-1, 3).sort(dim=1).values
        triangle, count = torch.unique(every, dim=0, return_counts=True)
        return triangle[count == 1]


Mesh = VoxelMesh | TetMesh


def assemble(mesh: Mesh, permeability: torch.Tensor) -> torch.Tensor:
    """Transmissibilities of the edges `mesh.edge` of a closed mesh, m³/s/Pa.

    - Voxels, two-point flux: T = A/d · 2 k_i k_j/(k_i + k_j), k = n·K·n.
    - Voxels, `full_tensor`: MPFA-O, see `multi_point`.
    - Tetrahedra: T_ij = −Σ_T |T| ∇φ_i·K·∇φ_j.

    Differentiable in the permeability and in `affine` or `point`. Of a tensor its symmetric part
    acts, and the gradient with respect to it is symmetric.

    **Arguments:** `permeability` m²/(Pa·s): () for the whole mesh, (n,) for each element or
    (n, 3, 3) symmetric in the axes of the world; (b, n) or (b, n, 3, 3) for a batch. An element is
    a voxel or a tetrahedron.

    **Returns:** (e,), or (b, e) for a batch.

    **Errors:** `ValueError` for other shapes, tensors that are not positive definite or not
    symmetric, and on two-point fluxes for tensors that are not diagonal in the grid.
    """
    if isinstance(mesh, VoxelMesh):
        if mesh.full_tensor:
            tensor = _in_grid(mesh, _as_tensor(mesh, permeability))
            return multi_point(mesh.corner, mesh._pairs, mesh.spacing, tensor)[0]
        return _two_point(mesh, permeability)
    pair = mesh.tet.new_tensor(_TET_PAIR)
    gradient, volume = mesh.gradient
    lead, trail = gradient[:, pair[:, 0]], gradient[:, pair[:, 1]]
    if _is_tensor(mesh, permeability):
        tensor = _as_tensor(mesh, permeability)
        product = torch.einsum("tei,...tij,tej->...te", lead, tensor, trail)
    else:
        product = _as_scalar(mesh, permeability)[..., None] * (lead * trail).sum(dim=2)
    share = -(volume[:, None] * product)
    edge, place = mesh._pairs
    out = share.new_zeros((*share.shape[:-2], edge.shape[0]))
    return out.index_add(-1, place.reshape(-1), share.flatten(-2))


def _two_point(mesh: VoxelMesh, permeability: torch.Tensor) -> torch.Tensor:
    (edge, axis), spacing = mesh._pairs, mesh.spacing
    along = _along_axes(mesh, permeability)
    k_i, k_j = (along[..., edge[:, end], axis] for end in (0, 1))
    area_over_distance = (spacing.prod() / spacing**2)[axis]
    return area_over_distance * 2.0 * k_i * k_j / (k_i + k_j)


def _along_axes(mesh: VoxelMesh, permeability: torch.Tensor) -> torch.Tensor:
    """(..., c, 3) n·K·n along the axes of the grid."""
    if not _is_tensor(mesh, permeability):
        scalar = _as_scalar(mesh, permeability)
        return scalar[..., None].expand(*scalar.shape, 3)
    inside = _in_grid(mesh, _as_tensor(mesh, permeability))
    own = inside.diagonal(dim1=-2, dim2=-1)
    rest = (inside - torch.diag_embed(own)).detach().abs().amax(dim=(-2, -1))
    turned = torch.nonzero((rest > _ROUNDING * own.detach().amax(dim=-1)).reshape(-1))
    if turned.numel():
        raise ValueError(
            f"the tensor of element {int(turned[0]) % mesh.n_elements} is not diagonal in the "
            "axes of the grid; expected that for two-point fluxes. Use VoxelMesh(..., "
            "full_tensor=True)."
        )
    return own


def _in_grid(mesh: VoxelMesh, tensor: torch.Tensor) -> torch.Tensor:
    axes = mesh.axes
    return axes @ tensor @ axes.T


def _is_tensor(mesh: Mesh, permeability: torch.Tensor) -> bool:
    n, shape = mesh.n_elements, tuple(permeability.shape)
    is_tensor = shape[-3:] == (n, 3, 3)
    is_scalar = shape == () or (len(shape) <= 2 and shape[-1:] == (n,))
    if not (is_scalar or (is_tensor and len(shape) <= 4)):
        raise ValueError(
            f"permeability has shape {shape}; expected (), ({n},), ({n}, 3, 3), (b, {n}) or "
            f"(b, {n}, 3, 3). Give one value or tensor for each element."
        )
    return is_tensor


def _as_scalar(mesh: Mesh, permeability: torch.Tensor) -> torch.Tensor:
    """(..., n), checked."""
    if not bool((permeability.detach() > 0).all()):
        raise ValueError("a permeability is not positive; expected m²/(Pa·s) above zero.")
    return permeability.expand(mesh.n_elements) if permeability.ndim == 0 else permeability


def _as_tensor(mesh: Mesh, permeability: torch.Tensor) -> torch.Tensor:
    """(..., n, 3, 3), symmetric part, checked by the leading minors."""
    if not _is_tensor(mesh, permeability):
        scalar = _as_scalar(mesh, permeability)
        unit = torch.eye(3, dtype=scalar.dtype, device=scalar.device)
        return scalar[..., None, None] * unit
    symmetric = 0.5 * (permeability + permeability.mT)
    value, size = symmetric.detach(), permeability.detach().abs().amax(dim=(-2, -1))
    skew = (permeability.detach() - value).abs().amax(dim=(-2, -1)) > _ROUNDING * size
    second = value[..., 0, 0] * value[..., 1, 1] - value[..., 0, 1] ** 2
    definite = (value[..., 0, 0] > 0) & (second > 0) & (torch.linalg.det(value) > 0)
    bad = torch.nonzero((skew | ~definite).reshape(-1))
    if bad.numel():
        raise ValueError(
            f"the tensor of element {int(bad[0]) % mesh.n_elements} is not symmetric and positive "
            "definite; expected that of every element. Correct the permeability."
        )
    return symmetric


def _check_index(index: torch.Tensor, width: int, name: str) -> None:
    if index.ndim != 2 or index.shape[1] != width or index.dtype != torch.int64:
        raise ValueError(
            f"{name} has shape {tuple(index.shape)} and type {index.dtype}; expected (n, {width}) "
            "of torch.int64. Convert it with tensor.to(torch.int64)."
        )


def _look_up(cell_ijk: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """The cell at each place (..., 3) of the grid, −1 where there is none."""
    low = cell_ijk.amin(dim=0) - 1
    size = cell_ijk.amax(dim=0) - low + 2
    flat = lambda at: ((at - low) * torch.stack([size[1] * size[2], size[2], size[2] * 0 + 1])).sum(
        dim=-1
    )
    key, order = flat(cell_ijk).sort()
    wanted = flat(place)
    found = torch.searchsorted(key, wanted).clamp(max=key.shape[0] - 1)
    return torch.where(key[found] == wanted, order[found], -1)


@dataclass(frozen=True)
class DirichletFaces:
    """Prescribed pressure.

    **Fields:** `face` int64 names faces of the surface: on voxels (k, 2), the cell and its side,
    2a for the lower and 2a + 1 for the upper one of axis a of the grid; on tetrahedra (k, 3), the
    vertices of a boundary triangle, of which this is the share of the first one. `pressure` Pa,
    () or (k,): at the centre of the face of a voxel, at the vertex of a share of a triangle. A
    vertex whose shares disagree takes their mean.
    """

    face: torch.Tensor
    pressure: torch.Tensor


@dataclass(frozen=True)
class NeumannFaces:
    """Prescribed inflow.

    **Fields:** `face` as in `DirichletFaces`; `inflow` m/s, () or (k,), positive into the mesh.
    """

    face: torch.Tensor
    inflow: torch.Tensor


@dataclass(frozen=True)
class RobinFaces:
    """Exchange with a reservoir, q·n = coefficient (p − pressure).

    **Fields:** `face` as in `DirichletFaces`; `coefficient` m/(s·Pa), at least 0, and `pressure`
    of the reservoir, Pa, both () or (k,).
    """

    face: torch.Tensor
    coefficient: torch.Tensor
    pressure: torch.Tensor


SurfaceCondition = DirichletFaces | NeumannFaces | RobinFaces


@dataclass(frozen=True)
class DarcyProblem:
    """−∇·K∇p + s p = f with conditions on the surface, which is closed where none is given.

    **Fields:** `mesh`; `permeability` as for `assemble`; `sink` (c,) m³/s/Pa and `source` (c,) m³/s
    inside the control volumes; `conditions`, every face in one of them at most. Permeability, sink,
    source and the values of conditions may have a leading batch.
    """

    mesh: Mesh
    permeability: torch.Tensor
    sink: torch.Tensor
    source: torch.Tensor
    conditions: tuple[SurfaceCondition, ...] = ()


class DarcySystem(NamedTuple):
    """A p = source on a graph; `solve_darcy(*system)` solves it.

    `edge` (e, 2); `transmissibility` (..., e) m³/s/Pa; `sink` (..., c) m³/s/Pa; `source` (..., c)
    m³/s; `fixed` (c,) bool, the control volumes of prescribed pressure, and `pressure_fixed`
    (..., c) Pa; both None where there are none.
    """

    edge: torch.Tensor
    transmissibility: torch.Tensor
    sink: torch.Tensor
    source: torch.Tensor
    fixed: torch.Tensor | None = None
    pressure_fixed: torch.Tensor | None = None


class _OnFaces(NamedTuple):
    """What acts on each face that is named: outflow per area = rate · p_f − push, or p_f known."""

    face: torch.Tensor
    rate: torch.Tensor
    push: torch.Tensor
    known: torch.Tensor
    pressure: torch.Tensor


def boundary_faces(mesh: Mesh) -> torch.Tensor:
    """All faces of the surface as `DirichletFaces.face` names them, (f, 2) or (f, 3) int64."""
    if isinstance(mesh, VoxelMesh):
        return torch.nonzero(mesh.neighbour < 0)
    return torch.cat([mesh.triangle.roll(-turn, dims=1) for turn in range(3)])


def darcy_system(problem: DarcyProblem) -> DarcySystem:
    """Transmissibilities, and conditions on the surface as sinks, sources and fixed pressures.

    - Voxels, two-point flux: the pressure on the face is eliminated. With t = 2 n·K·n/h,
      q·n = t a/(t + a)(p_c − p_out) for exchange and t (p_c − p) for a prescribed pressure.
    - Voxels, `full_tensor`: the conditions act on the pressures of the quarters of faces before
      these are eliminated, see `multi_point`.
    - Tetrahedra: exchange and inflow are lumped to the vertices, a third of each triangle to each;
      prescribed vertices leave the system.

    Differentiable in all values and in `affine` or `point`.

    **Errors:** `ValueError` as `assemble`; for faces that are not of the surface or have two
    conditions; for values that fit neither one face nor all; for negative exchange.
    """
    mesh, conditions = problem.mesh, problem.conditions
    for name, value in (("sink", problem.sink), ("source", problem.source)):
        if value.shape[-1:] != (mesh.n_cells,):
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; expected (..., {mesh.n_cells}). "
                "Give one value for each control volume."
            )
    if not conditions:
        closed = assemble(mesh, problem.permeability)
        return DarcySystem(mesh.edge, closed, problem.sink, problem.source)
    acts = _on_faces(problem)
    _check_faces(mesh, acts.face)
    if isinstance(mesh, VoxelMesh):
        through = _through_quarters if mesh.full_tensor else _through_half_voxels
        transmissibility, sink, source = through(mesh, problem.permeability, acts)
        return DarcySystem(
            mesh.edge, transmissibility, problem.sink + sink, problem.source + source
        )
    transmissibility = assemble(mesh, problem.permeability)
    vertex, corner = acts.face[:, 0], mesh.point[acts.face]
    span = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = torch.linalg.vector_norm(span, dim=1) / 6.0
    sink = problem.sink + _over_cells(mesh, area * acts.rate, vertex)
    source = problem.source + _over_cells(mesh, area * acts.push, vertex)
    if not bool(acts.known.any()):
        return DarcySystem(mesh.edge, transmissibility, sink, source)
    count = _over_cells(mesh, acts.known.to(area.dtype), vertex)
    total = _over_cells(mesh, acts.pressure, vertex)
    mean = total / count.clamp(min=1.0)
    return DarcySystem(mesh.edge, transmissibility, sink, source, count > 0, mean)


def _on_faces(problem: DarcyProblem) -> _OnFaces:
    parts = []
    for condition in problem.conditions:
        rate = push = pressure = problem.source.new_zeros(())
        if isinstance(condition, DirichletFaces):
            pressure = condition.pressure
        elif isinstance(condition, NeumannFaces):
            push = condition.inflow
        else:
            rate, push = condition.coefficient, condition.coefficient * condition.pressure
            if bool((rate.detach() < 0).any()):
                raise ValueError(
                    "a coefficient of RobinFaces is negative; expected at least 0 m/(s·Pa)."
                )
        known = torch.tensor(isinstance(condition, DirichletFaces), device=rate.device)
        parts.append((condition.face, rate, push, known, pressure))
    face = torch.cat([part[0] for part in parts])
    return _OnFaces(face, *(_joined(parts, k) for k in range(1, 5)))


def _joined(parts: list[tuple[torch.Tensor, ...]], k: int) -> torch.Tensor:
    """(..., f) the values of all conditions one after the other."""
    for face, *values in parts:
        value = values[k - 1]
        if value.ndim and value.shape[-1] != face.shape[0]:
            raise ValueError(
                f"a value on {face.shape[0]} faces has shape {tuple(value.shape)}; expected () or "
                f"(..., {face.shape[0]}). Give one value for all faces or one for each."
            )
    batch = torch.broadcast_shapes(*(part[k].shape[:-1] for part in parts))
    return torch.cat([part[k].expand(*batch, part[0].shape[0]) for part in parts], dim=-1)


def _check_faces(mesh: Mesh, face: torch.Tensor) -> None:
    if face.dtype != torch.int64 or face.ndim != 2:
        raise ValueError(f"face is {face.dtype} with {face.ndim} axes; expected int64 with two.")
    known = boundary_faces(mesh)
    # The order of the second and third vertex of a share plays no part.
    ordered = lambda of: torch.cat([of[:, :1], of[:, 1:].sort(dim=1).values], dim=1)
    if face.shape[1] == known.shape[1]:
        both, count = torch.unique(
            torch.cat([ordered(known), ordered(face)]), dim=0, return_counts=True
        )
        if both.shape[0] == known.shape[0] and int(count.max()) <= 2:
            return
    raise ValueError(
        "face names a face that is not of the surface, or one twice; expected rows of "
        f"boundary_faces(mesh), which has {known.shape[0]} with {known.shape[1]} columns, each in "
        "one condition at most. Select them from there."
    )


def _through_half_voxels(
    mesh: VoxelMesh, permeability: torch.Tensor, acts: _OnFaces
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    cell, axis = acts.face[:, 0], acts.face[:, 1] // 2
    lead = 2.0 * _along_axes(mesh, permeability)[..., cell, axis] / mesh.spacing[axis]
    share = lead / (lead + acts.rate)
    rate = torch.where(acts.known, lead, share * acts.rate)
    push = torch.where(acts.known, lead * acts.pressure, share * acts.push)
    area = (mesh.spacing.prod() / mesh.spacing)[axis]
    sink, source = (_over_cells(mesh, area * value, cell) for value in (rate, push))
    return assemble(mesh, permeability), sink, source


def _through_quarters(
    mesh: VoxelMesh, permeability: torch.Tensor, acts: _OnFaces
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    cell, side = acts.face.T
    place = corner_place(mesh.corner, cell, side)
    quarter = 0.25 * (mesh.spacing.prod() / mesh.spacing)[side // 2]

    def spread(value: torch.Tensor) -> torch.Tensor:
        flat = value.new_zeros((*value.shape[:-1], 12 * mesh.corner.shape[0]))
        spread = flat.index_copy(-1, place.reshape(-1), value.repeat_interleave(4, dim=-1))
        return spread.unflatten(-1, (-1, 12))

    quarters = Quarters(
        spread(quarter * acts.rate),
        spread(quarter * acts.push),
        spread(acts.known),
        spread(acts.pressure),
    )
    tensor = _in_grid(mesh, _as_tensor(mesh, permeability))
    return multi_point(mesh.corner, mesh._pairs, mesh.spacing, tensor, quarters)


def _over_cells(mesh: Mesh, value: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    zero = value.new_zeros((*value.shape[:-1], mesh.n_cells))
    return zero.index_add(-1, cell, value)
