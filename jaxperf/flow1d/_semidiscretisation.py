"""Finite volumes: from the state of all cells to its time derivative."""

import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._custom_types import cast_like
from ..network import PressureBoundary, PressureWaveform, VascularNetwork, Waveform
from ..steady import Boundary
from ..vessel import AbstractElasticWall, ConstantStiffness, resistance_integral
from ..vessel import stenosis_coefficients
from ._grid import Grid
from ._nodes import end_flow, end_total, Meeting, NodeEquations, solve_nodes
from ._outlets import outlet_damping, outlet_law, outlet_rate
from ._problem import Flow1DProblem

# Differences of neighbours below these are taken without limiting. They make the limiter smooth:
# a tenth of a pascal, and the flow that pressure drives through a large artery.
_PRESSURE_FLOOR = 0.1
_FLOW_FLOOR = 1e-9


class FlowState(eqx.Module):
    """State of transient flow.

    **Attributes:** over slots, `area` (m²) and `flow` (m³/s), meaningless in gaps; `outlet`, for
    each condition of the boundary the state (b, q) of its compartments, Pa.
    """

    area: Float[Array, " k"]
    flow: Float[Array, " k"]
    outlet: tuple[Float[Array, "b q"], ...]


class WallTable(eqx.Module):
    """A wall law at fixed places: reference area, modulus and their inverses, computed once."""

    wall: AbstractElasticWall
    area: Float[Array, " k"]
    inverse_area: Float[Array, " k"]
    modulus: Float[Array, " k"]
    inverse_modulus: Float[Array, " k"]
    unloaded: Float[Array, ""]

    def pressure(self, area: Float[Array, " k"]) -> Float[Array, " k"]:
        """Static pressure over the external one, Pa."""
        return self.unloaded + self.modulus * self.wall.load(area * self.inverse_area)

    def lumen(self, pressure: Float[Array, " k"]) -> "Lumen":
        """Area and stiffness at a static pressure over the external one (Pa)."""
        load = (pressure - self.unloaded) * self.inverse_modulus
        area = self.area * self.wall.relative_area(load)
        stiffness = self.modulus * self.wall.relative_stiffness(load)
        inverse_area, soft = 1.0 / area, 1.0 / stiffness
        return Lumen(area, inverse_area, stiffness, area * soft, stiffness * inverse_area)

    def at(self, place) -> "WallTable":
        """The part of the table at these places."""
        return jax.tree.map(lambda x: x[place] if x.ndim == 1 else x, self)


class Lumen(NamedTuple):
    """Area (m²) and its inverse; ρc² (Pa); compliance dA/dp (m²/Pa) and its inverse."""

    area: Float[Array, " k"]
    inverse_area: Float[Array, " k"]
    stiffness: Float[Array, " k"]
    compliance: Float[Array, " k"]
    inverse_compliance: Float[Array, " k"]


class Semidiscretisation(eqx.Module):
    r"""The equations on a grid: `semidiscretisation(t, state, args)` is the time derivative.

    Meant as the vector field of a `diffrax.ODETerm`. See `docs/flow1d.md` for the discrete
    equations. The momentum equation is used in the form

    $$\partial_tQ = -\frac1m\Big[\frac A\rho\,\partial_xP + \alpha U\,\partial_xQ
    + k\frac QA\Big],\qquad P = p+\tfrac12\alpha\rho U^2,$$

    which follows from the conservative one by the product rule. Steady flow then has exactly the
    total pressure of the steady solver, through any taper, and a fluid at rest stays at rest.
    """

    cell_wall: WallTable
    face_wall: WallTable
    blank: Float[Array, " k"]
    inverse_length: Float[Array, " k"]
    friction: Float[Array, " k"]
    inverse_inertia: Float[Array, " k"]
    face_inverse_inertia: Float[Array, " f"]
    cell_share: Float[Array, "b k"] | None
    face_share: Float[Array, "b f"] | None
    external: Waveform | None
    has_left: Float[Array, " k"]
    has_right: Float[Array, " k"]
    end_face: Int[Array, " e"]
    end_linear: Float[Array, " e"]
    end_quadratic: Float[Array, " e"]
    end_head: Float[Array, " e"]
    meeting: Meeting
    node_of_network: Int[Array, " n"]
    boundary: Boundary
    density: Float[Array, ""]
    alpha: Float[Array, ""]
    n_grid_nodes: int = eqx.field(static=True)

    def __call__(self, t, y: FlowState, args=None) -> FlowState:
        face_flow, face_total, end_outflow = self._faces(t, y)
        inside = lambda x: x[1:-1]
        gradient = lambda f: (f[1:] - f[:-1]) * inside(self.inverse_length)
        flux = gradient(face_flow)
        embed = lambda x: jax.lax.dynamic_update_slice(self.blank, x, (1,))
        area, velocity = inside(y.area), inside(y.flow) / inside(y.area)
        drive = gradient(face_total) * area / self.density
        force = drive + velocity * (self.alpha * flux + inside(self.friction))
        outlet = tuple(
            outlet_rate(c, state, t, end_outflow[self.node_of_network[c.node]])
            for c, state in zip(self.boundary, y.outlet, strict=True)
        )
        return FlowState(
            embed(-flux), embed(-force * inside(self.inverse_inertia)), outlet
        )

    def damping(self, y: FlowState) -> FlowState:
        """Rates (1/s) at which each entry of the state relaxes by itself: friction, outlets."""
        return FlowState(
            jnp.zeros_like(y.area),
            self.friction * self.inverse_inertia / y.area,
            tuple(outlet_damping(c) for c in self.boundary),
        )

    def _faces(self, t, y: FlowState):
        """Flow and total pressure at all faces, and the flow out of every node."""
        pressure = self.cell_pressure(t, y)
        low_p, high_p = self._reconstruct(pressure, _PRESSURE_FLOOR)
        low_q, high_q = self._reconstruct(y.flow, _FLOW_FLOOR)
        around = self.around_faces(t)
        inner = slice(1, -1)
        state = lambda high, low: (high[:-1], low[1:])
        flow, total = self._riemann(
            *state(high_p, low_p),
            *state(high_q, low_q),
            None if around is None else around[inner],
        )
        n = self.end_face.shape[0] // 2
        # Slot j is entry j − 1 of the reconstruction: distal ends lie behind slot f, proximal
        # ones before slot f + 1.
        at = lambda high, low: jnp.concatenate(
            [high[self.end_face[:n] - 1], low[self.end_face[n:]]]
        )
        equations = self._node_equations(t, y, at(high_p, low_p), at(high_q, low_q), around)
        end_pressure = solve_nodes(self.meeting, equations)
        end_q = end_flow(equations, end_pressure)
        end_p = end_total(self.meeting, equations, end_pressure)
        put = lambda faces, ends: (
            jax.lax.dynamic_update_slice(self.blank[1:], faces, (1,)).at[self.end_face].set(ends, unique_indices=True)
        )
        outflow = self.meeting.at_nodes(self.meeting.sign * end_q)
        return put(flow, end_q), put(total, end_p), outflow

    def cell_pressure(self, t, y: FlowState) -> Float[Array, " k"]:
        """Static pressure in the cells, Pa."""
        pressure = self.cell_wall.pressure(y.area)
        if self.external is None:
            return pressure
        return pressure + self.external(t) @ self.cell_share

    def around_faces(self, t) -> Float[Array, " f"] | None:
        """External pressure at the faces, Pa."""
        return None if self.external is None else self.external(t) @ self.face_share

    def _reconstruct(self, value, floor: float):
        """Values at the low and the high face of the slots 1 to k − 2, by van Albada's slope.

        (a² + ε) b + (b² + ε) a over a² + b² + 2ε, with differences a, b to the neighbours; ε
        makes it smooth and turns limiting off for differences below the floor.
        """
        low, high = value[1:-1] - value[:-2], value[2:] - value[1:-1]
        has_low, has_high = self.has_left[1:-1], self.has_right[1:-1]
        # At the end of a vessel the one difference there is serves for both.
        a = has_low * low + (1.0 - has_low) * has_high * high
        b = has_high * high + (1.0 - has_high) * has_low * low
        # Multiplied, not divided: divisions are what a step costs.
        a, b = a * (1.0 / floor), b * (1.0 / floor)
        slope = ((a * a + 1.0) * b + (b * b + 1.0) * a) / (a * a + b * b + 2.0)
        half = (0.5 * floor) * slope
        return value[1:-1] - half, value[1:-1] + half

    def _riemann(self, left_p, right_p, left_q, right_q, around):
        """Flow and total pressure between two states: the linearised Riemann problem."""
        mean_p, mean_q = 0.5 * (left_p + right_p), 0.5 * (left_q + right_q)
        jump_p, jump_q = right_p - left_p, right_q - left_q
        table = self.face_wall.at(slice(1, -1))
        lumen = table.lumen(mean_p if around is None else mean_p - around)
        a, excess, d = self._speeds(lumen, mean_q, self.face_inverse_inertia[1:-1])
        # 1/(2d), spelled so that XLA does not turn it into rsqrt, which on the CPU costs ten roots.
        g = 0.5 * d / (a * a + excess)
        rise = -g * (jump_q * lumen.inverse_compliance - a * jump_p)
        flow = mean_q - g * (a * jump_q + excess * lumen.compliance * jump_p)
        # 1/A after the rise, to first order in the jumps.
        inverse_area = lumen.inverse_area * (1.0 - rise * lumen.compliance * lumen.inverse_area)
        head = 0.5 * self.alpha * self.density
        return flow, mean_p + rise + head * (flow * inverse_area) ** 2

    def _speeds(self, lumen: "Lumen", flow, inverse_inertia):
        """The characteristic speeds are a ± d; `excess` is (c² − αU²)/m = d² − a²."""
        velocity = flow * lumen.inverse_area
        a = self.alpha * velocity * inverse_inertia
        excess = (lumen.stiffness / self.density - self.alpha * velocity**2) * inverse_inertia
        return a, excess, jnp.sqrt(a * a + excess)

    def _node_equations(self, t, y: FlowState, pressure, flow, around) -> NodeEquations:
        take = lambda x: x[self.end_face]
        table = self.face_wall.at(self.end_face)
        lumen = table.lumen(pressure if around is None else pressure - take(around))
        a, _, d = self._speeds(lumen, flow, take(self.face_inverse_inertia))
        # Along the outgoing characteristic dQ = λ dA, λ the speed of the incoming one.
        slope = (a - self.meeting.sign * d) * lumen.compliance
        zero = jnp.zeros(self.n_grid_nodes, flow.dtype)
        inflow, conductance, held = zero, zero, zero
        for c, state in zip(self.boundary, y.outlet, strict=True):
            law, node = outlet_law(c, state, t), self.node_of_network[c.node]
            if law.held is not None:
                held = held.at[node].set(law.held)
            if law.inflow is not None:
                inflow = inflow.at[node].add(law.inflow)
            if law.conductance is not None:
                conductance = conductance.at[node].add(law.conductance)
        return NodeEquations(
            pressure, flow, lumen.area, slope, lumen.compliance, self.end_head, self.end_linear,
            self.end_quadratic, inflow, conductance, held,
        )


def semidiscretise(problem: Flow1DProblem) -> Semidiscretisation:
    """Everything the time derivative needs, computed once; differentiable in the problem."""
    network, grid, blood, wall = problem.network, problem.grid, problem.blood, problem.wall
    radius = network.radius
    dtype = radius.dtype
    at_cell = (grid.cell_segment, grid.cell_fraction.astype(dtype))
    at_face = (grid.face_segment, grid.face_fraction.astype(dtype))
    is_cell = grid.is_cell.astype(dtype)
    length, friction = _pieces(problem)
    density, alpha = cast_like(blood.density, radius), cast_like(blood.alpha, radius)
    is_distal = jnp.arange(grid.end_face.shape[0]) < grid.n_vessels
    sign = jnp.where(is_distal, 1.0, -1.0).astype(dtype)
    node_of_network = jnp.full(network.n_nodes, -1, jnp.int32)
    known = grid.node_network >= 0
    node_of_network = node_of_network.at[
        jnp.where(known, grid.node_network, network.n_nodes)
    ].set(jnp.arange(grid.n_nodes, dtype=jnp.int32), mode="drop")
    fixed, has_boundary = jnp.zeros(grid.n_nodes, bool), jnp.zeros(grid.n_nodes, bool)
    for c in problem.boundary:
        node = node_of_network[c.node]
        has_boundary = has_boundary.at[node].set(True)
        if isinstance(c, PressureBoundary | PressureWaveform):
            fixed = fixed.at[node].set(True)
    degree = jnp.sum(grid.node_end < grid.end_face.shape[0], axis=1)
    total = jnp.where(
        has_boundary & (degree == 1),
        problem.boundary_pressure == "total",
        problem.junction_pressure == "total",
    )
    head = jnp.where(total[grid.end_node], 0.5 * alpha * density, 0.0)
    linear, quadratic = _end_losses(problem)
    face_slot = jnp.minimum(jnp.arange(grid.n_slots - 1) + 1, grid.n_slots - 1)
    is_face_of_next = is_cell[1:] > 0
    inverse_inertia = (1.0 / grid.inertia).astype(dtype)
    external = problem.pressure_external
    share = lambda place: None if external is None else _interpolate(external.share, *place)
    return Semidiscretisation(
        cell_wall=_table(problem, *at_cell),
        face_wall=_table(problem, *at_face),
        blank=0.0 * radius[grid.cell_segment, 0],
        inverse_length=is_cell / jnp.where(is_cell > 0, length, 1.0),
        friction=friction,
        inverse_inertia=inverse_inertia,
        face_inverse_inertia=jnp.where(
            is_face_of_next, inverse_inertia[face_slot], inverse_inertia[:-1]
        ),
        cell_share=share(at_cell),
        face_share=share(at_face),
        external=None if external is None else external.waveform,
        has_left=is_cell * jnp.concatenate([is_cell[:1], is_cell[:-1]]),
        has_right=is_cell * jnp.concatenate([is_cell[1:], is_cell[-1:]]),
        end_face=grid.end_face,
        end_linear=linear,
        end_quadratic=quadratic,
        end_head=head,
        meeting=Meeting(grid.end_node, grid.node_end, sign, fixed),
        node_of_network=node_of_network,
        boundary=problem.boundary,
        density=density,
        alpha=alpha,
        n_grid_nodes=grid.n_nodes,
    )


def _interpolate(values, segment, fraction):
    """Values given at both ends of every segment, linear in between; (..., s, 2) to (..., k)."""
    both = values[..., segment, :]
    return both[..., 0] * (1.0 - fraction) + both[..., 1] * fraction


def _table(problem: Flow1DProblem, segment, fraction) -> WallTable:
    wall = problem.wall
    radius = _interpolate(problem.network.radius, segment, fraction)
    stiffness = wall.stiffness
    if isinstance(stiffness, ConstantStiffness) and stiffness.Eh_over_r.ndim == 2:
        modulus = 4.0 / 3.0 * _interpolate(stiffness.Eh_over_r, segment, fraction)
    else:
        modulus = wall.modulus(radius)
    area = math.pi * radius**2
    unloaded = cast_like(wall.pressure_unloaded, radius)
    # The stiffness is in the table; what is left of the wall is its shape.
    shape = eqx.tree_at(lambda w: w.stiffness, wall, ConstantStiffness(jnp.zeros((), radius.dtype)))
    return WallTable(shape, area, 1.0 / area, modulus, 1.0 / modulus, unloaded)


def _pieces(problem: Flow1DProblem):
    r"""Length of every slot, and k A₀²-weighted so that ∫dx/A² over the cell is exact.

    The friction force on a cell is k Q/A with $k = 2(\zeta+2)\pi\,(A_0^2/\Delta x)\int\mu\,dx/A^2
    /
ho$, the integral over the unloaded vessel.
    """
    grid, network, blood = problem.grid, problem.network, problem.blood
    dtype = network.radius.dtype
    fraction = grid.piece_fraction.astype(dtype)
    ends = [_interpolate(network.radius, grid.piece_segment, fraction[:, i]) for i in (0, 1)]
    length = network.length[grid.piece_segment] * (fraction[:, 1] - fraction[:, 0])
    loss = blood.viscosity(0.5 * (ends[0] + ends[1])) * resistance_integral(*ends, length)
    add = lambda x: jnp.zeros(grid.n_slots, dtype).at[grid.piece_slot].add(x)
    cell_length, cell_loss = add(length), add(loss)
    radius = _interpolate(network.radius, grid.cell_segment, grid.cell_fraction.astype(dtype))
    area = math.pi * radius**2
    safe = jnp.where(cell_length > 0, cell_length, 1.0)
    scale = cast_like(blood.friction_coefficient, radius) / cast_like(blood.density, radius)
    return cell_length, scale * area**2 * cell_loss / safe


def _end_losses(problem: Flow1DProblem):
    """Linear and quadratic loss of the lesion at every end; zero where there is none."""
    grid, lesion = problem.grid, problem.network.lesion
    zero = jnp.zeros(grid.end_face.shape[0], problem.network.radius.dtype)
    if lesion.length.shape[0] == 0:
        return zero, zero
    inside = problem.network.radius[lesion.segment]
    mean = lesion.fraction * 0.5 * (inside[:, 0] + inside[:, 1])
    reference = jnp.zeros_like(lesion.length).at[lesion.lesion].add(mean)
    viscosity = problem.blood.viscosity(reference)
    both = stenosis_coefficients(
        reference, lesion.diameter_reduction, lesion.length, viscosity, problem.blood.density
    )
    has = grid.end_lesion >= 0
    return tuple(jnp.where(has, c[jnp.maximum(grid.end_lesion, 0)], 0.0) for c in both)

