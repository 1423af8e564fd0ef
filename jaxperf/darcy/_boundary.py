"""Conditions on the surface of a Darcy problem: pressure, inflow, exchange.

A face without a condition is closed. With the pressure p_f on the surface and the normal n that
leaves the mesh, the others say

    p_f = pressure,    −q·n = inflow,    q·n = coefficient (p_f − pressure).

They become additions to sink and source. On voxels p_f lies half a voxel from the pressure of the
control volume and is eliminated: a conductance in series with the two-point flux, or one more
unknown of the multi-point flux. On tetrahedra p_f is the pressure of a control volume, and a
prescribed one takes it out of the system.
"""

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Shaped

from .._custom_types import cast_like, float_leaf, Parameter, ParameterLike
from .._misc import InputError, is_traced
from ..geometry import TetMesh, VoxelMesh
from ._assembly import TetDarcyMesh, VoxelDarcyMesh
from ._mesh import permeability_leaf
from ._operator import darcy_operator
from ._solver import DarcyProblem
from ._tensor import QuarterData, VoxelTensorDarcyMesh


def _indices(face: Array | np.ndarray | Sequence[int]) -> Array:
    return jnp.asarray(face, jnp.int32)


class DirichletFaces(eqx.Module):
    """Prescribed pressure.

    **Attributes:** `face` (k,), indices of `mesh.boundary_faces()`; `pressure` Pa, one for all or
    (k,): at the centre of the face of a voxel, at the vertex `mesh.centre[faces.cell]` of a share
    of a triangle. A vertex whose shares disagree takes their mean.
    """

    face: Int[Array, " k"] = eqx.field(converter=_indices)
    pressure: Parameter = eqx.field(converter=float_leaf)


class NeumannFaces(eqx.Module):
    """Prescribed inflow.

    **Attributes:** `face` and the places of values as in [`jaxperf.darcy.DirichletFaces`][];
    `inflow` m/s, positive into the mesh.
    """

    face: Int[Array, " k"] = eqx.field(converter=_indices)
    inflow: Parameter = eqx.field(converter=float_leaf)


class RobinFaces(eqx.Module):
    """Exchange with a reservoir, q·n = coefficient (p − pressure).

    **Attributes:** `face` and the places of values as in [`jaxperf.darcy.DirichletFaces`][];
    `coefficient` m/(s·Pa), at least 0; `pressure` of the reservoir, Pa.
    """

    face: Int[Array, " k"] = eqx.field(converter=_indices)
    coefficient: Parameter = eqx.field(converter=float_leaf)
    pressure: Parameter = eqx.field(converter=float_leaf)


SurfaceCondition: TypeAlias = DirichletFaces | NeumannFaces | RobinFaces


class DarcySurface(eqx.Module):
    """The faces of `mesh.boundary_faces()` as arrays.

    **Attributes:** `cell` (f,); `area` (f,) m²; `normal` (f, 3); `reach` (f,) m, from the centre
    of the control volume to the face, 0 on tetrahedra.
    """

    cell: Int[Array, " f"]
    area: Float[Array, " f"]
    normal: Float[Array, "f 3"]
    reach: Float[Array, " f"]


def darcy_surface(mesh: VoxelMesh | TetMesh) -> DarcySurface:
    """The surface of a mesh for [`jaxperf.darcy.darcy_problem`][]; runs on the host.

    **Example:**

    ```python
    import jaxperf as jp
    surface = jp.darcy.darcy_surface(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    ```
    """
    faces = mesh.boundary_faces()
    reach = np.zeros(faces.area.size)
    if isinstance(mesh, VoxelMesh):
        reach = 0.5 * np.abs(faces.normal @ mesh.axes.T) @ mesh.spacing
    return DarcySurface(
        cell=jnp.asarray(faces.cell, jnp.int32),
        area=jnp.asarray(faces.area),
        normal=jnp.asarray(faces.normal),
        reach=jnp.asarray(reach),
    )


class _OnFaces(NamedTuple):
    """What acts on every face: outflow per area = exchange · p_f − push, or p_f known."""

    exchange: Float[Array, " f"]
    push: Float[Array, " f"]
    known: Bool[Array, " f"]
    pressure: Float[Array, " f"]


def darcy_problem(
    mesh: VoxelDarcyMesh | VoxelTensorDarcyMesh | TetDarcyMesh,
    permeability: ParameterLike,
    surface: DarcySurface,
    conditions: Sequence[SurfaceCondition],
    *,
    sink: Float[Array, " c"] | None = None,
    source: Float[Array, " c"] | None = None,
) -> DarcyProblem:
    """−∇·K∇p + s p = f with conditions on the surface, second order on every mesh.

    Two-point fluxes take K to be diagonal in the axes of the grid, here as elsewhere.
    Differentiable in the permeability and in all values.

    **Arguments:**

    - `mesh`: from [`jaxperf.darcy.darcy_mesh`][], and `surface` from
      [`jaxperf.darcy.darcy_surface`][] of the same mesh.
    - `permeability`: m²/(Pa·s), as for `mesh.transmissibility`.
    - `conditions`: [`jaxperf.darcy.DirichletFaces`][], [`jaxperf.darcy.NeumannFaces`][] or
      [`jaxperf.darcy.RobinFaces`][]; every face in one of them at most.
    - `sink`: (c,) m³/s/Pa and `source`: (c,) m³/s inside; zero where left out.

    **Returns:** a [`jaxperf.darcy.DarcyProblem`][].

    **Errors:** [`InputError`][] for faces that the surface does not have or that have two
    conditions, and for values that fit neither one face nor all.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    affine = np.diag([5e-3, 5e-3, 5e-3, 1.0])
    wall = jp.geometry.build_voxel_mesh(np.ones((4, 4, 4), int), affine, frame="LPS")
    surface = jp.darcy.darcy_surface(wall)
    top = np.flatnonzero(np.asarray(surface.normal)[:, 2] > 0.5)
    held = jp.darcy.DirichletFaces(top, 1000.0)
    problem = jp.darcy.darcy_problem(jp.darcy_mesh(wall), 2e-9, surface, [held])
    ```
    """
    permeability = permeability_leaf(permeability, mesh)
    _check_faces(conditions, surface.area.shape[0])
    return _problem(mesh, permeability, surface, tuple(conditions), sink, source)


@eqx.filter_jit
def _problem(
    mesh: VoxelDarcyMesh | VoxelTensorDarcyMesh | TetDarcyMesh,
    permeability: Float[Array, "..."],
    surface: DarcySurface,
    conditions: tuple[SurfaceCondition, ...],
    sink: Float[Array, " c"] | None,
    source: Float[Array, " c"] | None,
) -> DarcyProblem:
    on_faces = _gather(conditions, surface, permeability)
    zero = jnp.zeros(mesh.graph.n_cells, permeability.dtype)
    sink, source = zero if sink is None else sink, zero if source is None else source
    if isinstance(mesh, VoxelTensorDarcyMesh):
        acts = _on_quarters(mesh, surface, on_faces)
        transmissibility, more_sink, more_source = mesh.with_surface(permeability, acts)
    else:
        transmissibility = mesh.transmissibility(permeability)
        if isinstance(mesh, VoxelDarcyMesh):
            rate, push = _through_half_voxel(permeability, surface, on_faces)
        else:
            rate, push = on_faces.exchange, on_faces.push
        more_sink = _over_cells(surface.area * rate, surface, zero)
        more_source = _over_cells(surface.area * push, surface, zero)
    operator = darcy_operator(mesh.graph, transmissibility, sink + more_sink)
    fixed, pressure = None, None
    if isinstance(mesh, TetDarcyMesh) and any(isinstance(c, DirichletFaces) for c in conditions):
        fixed, pressure = _fixed_vertices(surface, on_faces, zero)
    return DarcyProblem(operator, source + more_source, fixed, pressure)


def _check_faces(conditions: Sequence[SurfaceCondition], n_faces: int) -> None:
    taken = np.zeros(n_faces, dtype=np.int64)
    for condition in conditions:
        where = type(condition).__name__
        if is_traced(condition.face):
            continue
        face = np.asarray(condition.face)
        if face.size and not (face.min() >= 0 and face.max() < n_faces):
            raise InputError(
                f"face {face.min() if face.min() < 0 else face.max()} is named",
                where=where,
                expected=f"indices from 0 to {n_faces - 1}",
                fix="Take the indices from mesh.boundary_faces() of the same mesh",
            )
        np.add.at(taken, face, 1)
        if taken.max(initial=0) > 1:
            raise InputError(
                f"face {int(np.argmax(taken))} has a condition already",
                where=where,
                expected="one condition for every face at most",
                fix="Name every face once",
            )


def _gather(
    conditions: Sequence[SurfaceCondition], surface: DarcySurface, like: Float[Array, "..."]
) -> _OnFaces:
    zero = jnp.zeros(surface.area.shape[0], like.dtype)
    out = _OnFaces(zero, zero, jnp.zeros(zero.shape, jnp.bool_), zero)
    for condition in conditions:
        put = lambda array, value, c=condition: array.at[c.face].set(_per_face(value, c, like))
        if isinstance(condition, DirichletFaces):
            known = out.known.at[condition.face].set(True)
            out = out._replace(known=known, pressure=put(out.pressure, condition.pressure))
        elif isinstance(condition, NeumannFaces):
            out = out._replace(push=put(out.push, condition.inflow))
        else:
            push = _per_face(condition.coefficient, condition, like) * _per_face(
                condition.pressure, condition, like
            )
            exchange = put(out.exchange, condition.coefficient)
            out = out._replace(exchange=exchange, push=put(out.push, push))
    return out


def _per_face(
    value: Parameter, condition: SurfaceCondition, like: Float[Array, "..."]
) -> Float[Array, " k"]:
    shape = condition.face.shape
    if value.shape not in ((), shape):
        raise InputError(
            f"a value has shape {value.shape}",
            where=type(condition).__name__,
            expected=f"() or {shape}",
            fix="Give one value for all faces or one for each",
        )
    return jnp.broadcast_to(cast_like(value, like), shape)


def _through_half_voxel(
    permeability: Float[Array, "..."], surface: DarcySurface, on_faces: _OnFaces
) -> tuple[Float[Array, " f"], Float[Array, " f"]]:
    """Exchange and push seen from the centre of the voxel, with n·K·n / reach in series."""
    lead = permeability
    if permeability.ndim > 0:
        lead = permeability[surface.cell]
    if permeability.ndim == 3:
        lead = jnp.einsum("fi,fij,fj->f", surface.normal, lead, surface.normal)
    lead = lead / surface.reach
    share = lead / (lead + on_faces.exchange)
    rate = jnp.where(on_faces.known, lead, share * on_faces.exchange)
    return rate, jnp.where(on_faces.known, lead * on_faces.pressure, share * on_faces.push)


def _on_quarters(
    mesh: VoxelTensorDarcyMesh, surface: DarcySurface, on_faces: _OnFaces
) -> QuarterData:
    """What acts on a face, spread evenly over its four quarters."""
    slot = mesh.surface_quarter.reshape(-1)

    def spread(value: Shaped[Array, " f"]) -> Shaped[Array, "v 12"]:
        flat = jnp.zeros(12 * mesh.n_corners, value.dtype)
        return flat.at[slot].set(jnp.repeat(value, 4)).reshape(-1, 12)

    quarter = 0.25 * surface.area
    return QuarterData(
        exchange=spread(quarter * on_faces.exchange),
        inflow=spread(quarter * on_faces.push),
        known=spread(on_faces.known),
        pressure=spread(on_faces.pressure),
    )


def _over_cells(
    value: Float[Array, " f"], surface: DarcySurface, like: Float[Array, " c"]
) -> Float[Array, " c"]:
    return jax.ops.segment_sum(value, surface.cell, like.shape[0])


def _fixed_vertices(
    surface: DarcySurface, on_faces: _OnFaces, like: Float[Array, " c"]
) -> tuple[Bool[Array, " c"], Float[Array, " c"]]:
    count = _over_cells(on_faces.known.astype(like.dtype), surface, like)
    total = _over_cells(on_faces.pressure, surface, like)
    return count > 0, total / jnp.maximum(count, 1.0)
