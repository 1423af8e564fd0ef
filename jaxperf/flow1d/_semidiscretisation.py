"""Finite volumes: from the state of all cells to its time derivative."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._custom_types import cast_like, ScalarLike
from .._padding import is_real, kept
from ..network import Form, Held, Waveform
from ..steady import lesion_coefficients
from ..vessel import resistance_integral
from ._flux import (
    cell_pressure,
    face_flow,
    face_total,
    Lumen,
    momentum_rate,
    reconstruct,
    WallTable,
)
from ._grid import Grid
from ._nodes import end_area, end_flow, NodeEquations, solve_nodes
from ._outlets import outlet_conductance, outlet_damping, outlet_rate, outlet_source
from ._problem import Flow1DProblem

# Differences of neighbours below these are taken without limiting. They make the limiter smooth:
# a tenth of a pascal, and the flow that pressure drives through a large artery.
_PRESSURE_FLOOR = 0.1
_FLOW_FLOOR = 1e-9
# Ends that pad a node lie beyond the arrays.
_PADDED = {"unique_indices": True, "mode": "drop", "wrap_negative_indices": False}


class FlowState(eqx.Module):
    """State of transient flow.

    **Attributes:** over slots, `area` (m²) and `flow` (m³/s), meaningless in gaps; `passed`, the
    volume (m³) that has left the network at every grid node; `outlet`, for each condition of the
    boundary the state (b, q) of its compartments, Pa.
    """

    area: Float[Array, " k"]
    flow: Float[Array, " k"]
    passed: Float[Array, " n"]
    outlet: tuple[Float[Array, "_ _"], ...]


class Surroundings(NamedTuple):
    """External pressure: its waveforms (b), Pa, and their weights in cells, at faces and ends."""

    waveform: Waveform
    cell_share: Float[Array, "b k"]
    face_share: Float[Array, "b f"]
    end_share: Float[Array, "b w n"]


class Profile(NamedTuple):
    """A state as it is saved: static pressure (Pa, with the viscous part of the wall's) and area
    (m²) over slots, with those of a vessel's ends in the gaps beside it; flow (m³/s) over faces.
    """

    pressure: Float[Array, " k"]
    area: Float[Array, " k"]
    flow: Float[Array, " f"]


class _Faces(NamedTuple):
    """Flow and total pressure at the faces; flow out of nodes and into conditions; static pressure
    and area at the ends of vessels.
    """

    flow: Float[Array, " f"]
    total: Float[Array, " f"]
    outflow: Float[Array, " n"]
    into: tuple[Float[Array, " _"], ...]
    end_static: Float[Array, "w n"]
    end_area: Float[Array, "w n"]


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
    end_wall: WallTable
    blank: Float[Array, " 2"]
    inverse_length: Float[Array, " k"]
    friction: Float[Array, " k"]
    inverse_inertia: Float[Array, " k"] | None
    face_root: Float[Array, " f"] | None
    around: Surroundings | None
    face_viscosity: Float[Array, " f"] | None
    cell_viscosity: Float[Array, " k"] | None
    end_slot: Int[Array, "w n"]
    end_neighbour: Int[Array, "w n"]
    end_face: Int[Array, "w n"]
    end_gap: Int[Array, "w n"]
    end_sign: Float[Array, "w n"]
    end_linear: Float[Array, "w n"]
    end_quadratic: Float[Array, "w n"]
    end_head: Float[Array, "w n"]
    end_friction: Float[Array, "w n"]
    end_inverse_inertia: Float[Array, "w n"] | None
    end_viscosity: Float[Array, "w n"] | None
    node_fixed: Float[Array, " n"]
    node_conductance: Float[Array, " n"]
    condition_node: tuple[Int[Array, " _"], ...]
    forms: tuple[Form, ...]
    density: Float[Array, ""]
    alpha: Float[Array, ""]

    def __call__(self, t: Float[Array, ""], y: FlowState, args: PyTree = None) -> FlowState:
        flow, total, outflow, into, *_ = self._faces(t, y)
        gradient = lambda face: (face[1:] - face[:-1]) * self.inverse_length
        flux = gradient(flow)
        force = momentum_rate(
            y.area, y.flow, flux, gradient(total), self.friction, self.density, self.alpha
        )
        force = self._over_inertia(force)
        outlet = tuple(
            outlet_rate(form, state, t, taken)
            for form, state, taken in zip(self.forms, y.outlet, into, strict=True)
        )
        return FlowState(-flux, -force, outflow, outlet)

    def relaxation(self, y: FlowState, h: ScalarLike) -> FlowState:
        """1/(1 + h d), with d the rate (1/s) at which each entry of the state relaxes by itself.

        Flow by friction, outlets by their compartments; area and volume do not.
        """
        friction = self._over_inertia(self.friction)
        return FlowState(
            jnp.ones_like(y.area),
            # The same as 1/(1 + h k/A) with one division.
            y.area / (y.area + h * friction),
            jnp.ones_like(y.passed),
            tuple(1.0 / (1.0 + h * outlet_damping(form)) for form in self.forms),
        )

    def is_open(self, y: FlowState) -> Bool[Array, " k"]:
        """Whether each cell has an area its wall law knows; gaps always."""
        load = self.cell_wall.load_of_area(jnp.abs(y.area))
        return ((y.area > 0.0) & self.cell_wall.wall.bears(load)) | (self.inverse_length == 0.0)

    def _wave_speed(self, y: FlowState) -> Float[Array, " k"]:
        load = self.cell_wall.load_of_area(jnp.abs(y.area))
        stiffness = self.cell_wall.modulus * self.cell_wall.wall.relative_stiffness(load)
        return jnp.sqrt(jnp.abs(stiffness) / self.density)

    def mach(self, y: FlowState) -> Float[Array, " k"]:
        """|U|/c in every cell, 0 in gaps."""
        is_cell = self.inverse_length > 0.0
        return jnp.where(is_cell, jnp.abs(y.flow / y.area) / self._wave_speed(y), 0.0)

    def cell_rate(self, y: FlowState) -> Float[Array, " k"]:
        """(|αU| + c)/Δx of every cell, 1/s, 0 in gaps: one over the time a wave takes."""
        fastest = self._wave_speed(y) + self.alpha * jnp.abs(y.flow / y.area)
        if self.inverse_inertia is not None:
            fastest = fastest * jnp.sqrt(self.inverse_inertia)
        return fastest * self.inverse_length

    def wave_rate(self, y: FlowState) -> Float[Array, ""]:
        """The largest `cell_rate`."""
        return jnp.max(self.cell_rate(y))

    def _over_inertia(self, force: Float[Array, " k"]) -> Float[Array, " k"]:
        return force if self.inverse_inertia is None else force * self.inverse_inertia

    def _faces(self, t: Float[Array, ""], y: FlowState) -> _Faces:
        """What the faces, the ends and the nodes ask for."""
        pressure = self.cell_pressure(t, y)
        pressure, end_pressure = self._extend(pressure, self._half_steps(pressure, y))
        along = 0.5 * (y.flow[self.end_slot] - y.flow[self.end_neighbour])
        flow, end_flow_ = self._extend(y.flow, along)
        equations = self._node_equations(t, y, end_pressure, end_flow_)
        end_pressure, node_pressure = solve_nodes(equations)
        end_q, area = end_flow(equations, end_pressure), end_area(equations, end_pressure)
        # The vessel's own pressure: without the loss at the node, and also where the node asks for
        # static pressure.
        static = end_pressure + equations.viscous
        end_p = static + 0.5 * self.alpha * self.density * (end_q / area) ** 2
        put = lambda face, end: face.at[self.end_face].set(end, **_PADDED)
        outflow = jnp.sum(self.end_sign * end_q, axis=0)
        # Several conditions may share a node: each takes what its own law says.
        into = tuple(
            outlet_conductance(form) * node_pressure[node] - outlet_source(form, state, t)
            for form, state, node in zip(self.forms, y.outlet, self.condition_node, strict=True)
        )
        face_q, face_p = self._riemann(t, pressure, flow, lambda q: put(q, end_q))
        return _Faces(face_q, put(face_p, end_p), outflow, into, static, area)

    def cell_pressure(self, t: Float[Array, ""], y: FlowState) -> Float[Array, " k"]:
        """Static pressure in the cells without the viscous part of the wall's, Pa."""
        pressure = cell_pressure(self.cell_wall, y.area)
        if self.around is None:
            return pressure
        return pressure + self.around.waveform(t) @ self.around.cell_share

    def _half_steps(self, pressure: Float[Array, " k"], y: FlowState) -> Float[Array, "w n"]:
        """From the middle of the last cell to the end: half the one difference there is.

        A vessel of one cell has none; its pressure falls by the friction of half a cell, so that
        its resistance is exact where it is straight.
        """
        slot = self.end_slot
        along = 0.5 * (pressure[slot] - pressure[self.end_neighbour])
        friction = self.end_friction * y.flow[slot] / y.area[slot] ** 2
        return along - self.end_sign * friction

    def _extend(
        self, value: Float[Array, " k"], beyond: Float[Array, "w n"]
    ) -> tuple[Float[Array, " r"], Float[Array, "w n"]]:
        """The row, two slots longer at either end, and the values at the ends of the vessels.

        `beyond` leads from the middle of the last cell to the end. The gap behind takes twice as
        much: the limiter then sees one difference twice and returns it.
        """
        # Known at run time only: XLA would turn zeros into a slow padding.
        row = jnp.concatenate([self.blank, value, self.blank])
        end = value[self.end_slot]
        row = row.at[self.end_gap].set(end + 2.0 * beyond, **_PADDED)
        return row, end + beyond

    def _riemann(
        self,
        t: Float[Array, ""],
        pressure_row: Float[Array, " r"],
        flow_row: Float[Array, " r"],
        put_flow: Callable[[Float[Array, " f"]], Float[Array, " f"]],
    ) -> tuple[Float[Array, " f"], Float[Array, " f"]]:
        """Flow and total pressure between two states: the acoustic Riemann problem.

        The flow at the ends of the vessels is the one that `put_flow` puts there.
        """
        pressure = reconstruct(pressure_row, _PRESSURE_FLOOR)
        flow = reconstruct(flow_row, _FLOW_FLOOR)
        around = None if self.around is None else self.around.waveform(t) @ self.around.face_share
        if around is not None:
            pressure = pressure._replace(mean=pressure.mean - around)
        table, density, root = self.face_wall, self.density, self.face_root
        through = put_flow(face_flow(table, density, root, pressure, flow.mean))
        total = face_total(table, density, self.alpha, root, pressure.mean, flow.jump, through)
        if self.face_viscosity is not None:
            stretching = flow_row[1:-2] - flow_row[2:-1]
            at = table.lumen(pressure.mean)
            total = total + self.face_viscosity * stretching / jnp.sqrt(at.area)
        return through, total if around is None else total + around

    def _speeds(
        self, lumen: Lumen, flow: Float[Array, "w n"]
    ) -> tuple[Float[Array, "w n"], Float[Array, "w n"]]:
        """The characteristic speeds at the ends are a ± d."""
        velocity = flow * lumen.inverse_area
        a = self.alpha * velocity
        excess = lumen.stiffness / self.density - a * velocity
        if self.end_inverse_inertia is not None:
            a, excess = a * self.end_inverse_inertia, excess * self.end_inverse_inertia
        return a, jnp.sqrt(a * a + excess)

    def _end_viscous(self, y: FlowState, lumen: Lumen) -> Float[Array, "w n"]:
        """Viscous pressure at the ends, from the difference of the last two cells."""
        if self.end_viscosity is None:
            return jnp.zeros_like(lumen.area)
        stretching = self.end_sign * (y.flow[self.end_neighbour] - y.flow[self.end_slot])
        return self.end_viscosity * jnp.sqrt(lumen.inverse_area) * stretching

    def profile(self, t: Float[Array, ""], y: FlowState) -> Profile:
        """What a solution shows of a state: at the middles of cells, at ends and through faces."""
        faces = self._faces(t, y)
        static = self.cell_pressure(t, y)
        if self.cell_viscosity is not None:
            widening = -(faces.flow[1:] - faces.flow[:-1]) * self.inverse_length
            static = static + self.cell_viscosity / jnp.sqrt(y.area) * widening
        # The row of `_extend` is two slots longer at either end.
        put = lambda slot, end: slot.at[self.end_gap - 2].set(end, **_PADDED)
        return Profile(put(static, faces.end_static), put(y.area, faces.end_area), faces.flow)

    def _node_equations(
        self,
        t: Float[Array, ""],
        y: FlowState,
        pressure: Float[Array, "w n"],
        flow: Float[Array, "w n"],
    ) -> NodeEquations:
        around = 0.0 if self.around is None else _at_ends(self.around, t)
        lumen = self.end_wall.lumen(pressure - around)
        a, d = self._speeds(lumen, flow)
        # Along the outgoing characteristic dQ = λ dA, λ the speed of the incoming one.
        slope = jnp.abs(self.end_sign) * (a - self.end_sign * d) * lumen.compliance
        sources = [outlet_source(f, x, t) for f, x in zip(self.forms, y.outlet, strict=True)]
        source = jnp.zeros_like(self.node_conductance)
        return NodeEquations(
            sign=self.end_sign,
            pressure=pressure,
            flow=flow,
            area=lumen.area,
            slope=slope,
            compliance=lumen.compliance,
            viscous=self._end_viscous(y, lumen),
            head=self.end_head,
            linear=self.end_linear,
            quadratic=self.end_quadratic,
            conductance=self.node_conductance,
            fixed=self.node_fixed,
            source=source.at[jnp.concatenate(self.condition_node)].add(jnp.concatenate(sources)),
        )


def semidiscretise(problem: Flow1DProblem) -> Semidiscretisation:
    """Everything the time derivative needs, computed once; differentiable in the problem.

    **Example:**

    ```python
    import equinox as eqx, jaxperf as jp, numpy as np
    vessel = jp.build_network(
        np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([[0, 1]]), np.full(2, 2e-3),
        root=np.array([0]), frame="model",
    )
    wave = jp.Waveform(np.array([0.0, 0.3, 0.8]), np.array([[1.1e4, 1.5e4, 1.1e4]]), 0.8)
    inlet, outlet = jp.PressureWaveform(0, wave), jp.ResistanceOutlet(1, 2e10, 0.0)
    wall = jp.SqrtAreaWall(jp.OlufsenStiffness(), 12000.0)
    problem = jp.flow1d_problem(vessel, (inlet, outlet), jp.Blood(), wall, cell_time=1e-3)
    equations = eqx.filter_jit(jp.flow1d.semidiscretise)(problem)
    ```
    """
    network, grid, blood = problem.network, problem.grid, problem.blood
    radius = network.radius
    dtype = radius.dtype
    at_cell = (grid.cell_segment, grid.cell_fraction.astype(dtype))
    at_face = (grid.face_segment, grid.face_fraction.astype(dtype))
    is_cell = grid.is_cell.astype(dtype)
    length, friction = cell_losses(problem)
    density, alpha = cast_like(blood.density, radius), cast_like(blood.alpha, radius)
    node_of_network = _node_of_network(grid, network.n_nodes)
    forms = tuple(c.form() for c in problem.boundary)
    node = [node_of_network[form.node] for form in forms]
    fixed, bounded = jnp.zeros(grid.n_nodes, dtype), jnp.zeros(grid.n_nodes, bool)
    conductance = jnp.zeros(grid.n_nodes, dtype)
    for form, at in zip(forms, node, strict=True):
        fixed = fixed.at[at].set(1.0) if isinstance(form, Held) else fixed
        bounded = bounded.at[at].set(True)
        conductance = conductance.at[at].add(outlet_conductance(form))
    if grid.real is not None:
        # Without an end, only this keeps the pressure of a node known: at 0, no source is there.
        conductance = kept(conductance, is_real(grid.real.node, grid.n_nodes), 1.0)
    degree = jnp.sum(jnp.abs(grid.end_sign), axis=0)
    total = jnp.where(
        bounded & (degree == 1),
        problem.boundary_pressure == "total",
        problem.junction_pressure == "total",
    )
    head = jnp.where(total, 0.5 * alpha * density, 0.0)
    linear, quadratic = _end_losses(problem)
    alone = (grid.end_neighbour == grid.end_slot) & (grid.end_sign != 0)
    inertia, face_inertia = _inverse_inertia(grid, dtype)
    face_viscosity, face_wall = _face_viscosity(problem, length), _table(problem, *at_face)
    # The spacing of the face next to the end, inside the vessel.
    inside = grid.end_face - grid.end_sign
    of_ends = lambda values, place: None if values is None else _take(values, place)
    external = problem.pressure_external
    around = None
    if external is not None:
        share = lambda place: interpolate(external.share, *place)
        at_ends = _take(share(at_face), grid.end_face)
        around = Surroundings(external.waveform, share(at_cell), share(at_face), at_ends)
    return Semidiscretisation(
        cell_wall=_table(problem, *at_cell),
        face_wall=_without_load_between(face_wall, grid),
        end_wall=jax.tree.map(lambda x: _take(x, grid.end_face) if x.ndim else x, face_wall),
        blank=0.0 * jnp.broadcast_to(radius[0, 0], (2,)),
        inverse_length=is_cell / jnp.where(is_cell > 0, length, 1.0),
        friction=friction,
        inverse_inertia=inertia,
        face_root=None if face_inertia is None else jnp.sqrt(face_inertia),
        around=around,
        face_viscosity=face_viscosity,
        cell_viscosity=_viscosity(problem, *at_cell),
        end_slot=grid.end_slot,
        end_neighbour=grid.end_neighbour,
        end_face=grid.end_face,
        end_gap=jnp.where(grid.end_sign == 0, grid.n_slots + 4, grid.end_slot + grid.end_sign + 2),
        end_sign=grid.end_sign.astype(dtype),
        end_linear=linear,
        end_quadratic=quadratic,
        end_head=jnp.broadcast_to(head, grid.end_sign.shape),
        end_friction=jnp.where(alone, 0.5 * density * (friction * length)[grid.end_slot], 0.0),
        end_inverse_inertia=of_ends(face_inertia, grid.end_face),
        end_viscosity=of_ends(face_viscosity, inside),
        node_fixed=fixed,
        node_conductance=conductance,
        condition_node=tuple(node),
        forms=forms,
        density=density,
        alpha=alpha,
    )


def _at_ends(around: Surroundings, t: Float[Array, ""]) -> Float[Array, "w n"]:
    """External pressure at the ends of the vessels, Pa."""
    return jnp.tensordot(around.waveform(t), around.end_share, axes=1)


def _take(values: Float[Array, "*b f"], place: Int[Array, "w n"]) -> Float[Array, "*b w n"]:
    """Values at these places; those beyond the end, which pad, repeat the last."""
    return values.at[..., place].get(mode="clip")


def _node_of_network(grid: Grid, n_nodes: int) -> Int[Array, " m"]:
    """The grid node of every network node, −1 where a vessel passes through."""
    known = jnp.where(grid.node_network >= 0, grid.node_network, n_nodes)
    number = jnp.arange(grid.n_nodes, dtype=jnp.int32)
    return jnp.full(n_nodes, -1, jnp.int32).at[known].set(number, mode="drop")


def _inverse_inertia(
    grid: Grid, dtype: np.dtype
) -> tuple[Float[Array, " k"] | None, Float[Array, " f"] | None]:
    """1/m at slots and faces; None where no vessel is short, which saves two arrays a step."""
    if grid.inertia is None:
        return None, None
    inverse = (1.0 / grid.inertia).astype(dtype)
    # A face takes the vessel's value from whichever of its two slots is a cell.
    after, before = jnp.append(inverse, 1.0), jnp.append(1.0, inverse)
    return inverse, jnp.where(jnp.append(grid.is_cell, 0.0) > 0, after, before)


def interpolate(
    values: Float[Array, "*b s 2"], segment: Int[Array, " k"], fraction: Float[Array, " k"]
) -> Float[Array, "*b k"]:
    """Values given at both ends of every segment, linear in between; (..., s, 2) to (..., k)."""
    both = values[..., segment, :]
    fraction = jnp.broadcast_to(fraction, both.shape[:-1])
    return both[..., 0] * (1.0 - fraction) + both[..., 1] * fraction


def _table(
    problem: Flow1DProblem, segment: Int[Array, " k"], fraction: Float[Array, " k"]
) -> WallTable:
    wall = problem.wall
    radius = interpolate(problem.network.radius, segment, fraction)
    n = problem.network.n_segments

    def here(parameter: Any) -> Any:
        if not eqx.is_array(parameter) or parameter.shape not in ((n, 1), (n, 2)):
            return parameter
        return interpolate(jnp.broadcast_to(parameter, (n, 2)), segment, fraction)

    own = eqx.tree_at(lambda w: w.stiffness, wall, jax.tree.map(here, wall.stiffness))
    modulus = own.modulus(radius)
    area = math.pi * radius**2
    unloaded = cast_like(wall.pressure_unloaded, radius)
    return WallTable(
        # The stiffness is in the table; what is left of the wall is its shape, without parameters.
        wall=eqx.filter(wall, eqx.is_array, inverse=True),
        area=area,
        inverse_area=1.0 / area,
        modulus=modulus,
        inverse_modulus=1.0 / modulus,
        unloaded=unloaded,
        unit=jax.lax.stop_gradient(1.0 + 0.0 * radius[0]),
    )


def _without_load_between(table: WallTable, grid: Grid) -> WallTable:
    """No load reaches the faces between two gaps, where the pressure means nothing."""
    is_cell = jnp.pad(grid.is_cell, 1)
    inside = (is_cell[1:] + is_cell[:-1] > 0).astype(table.area.dtype)
    return eqx.tree_at(lambda x: x.inverse_modulus, table, inside * table.inverse_modulus)


def _viscosity(
    problem: Flow1DProblem, segment: Int[Array, " k"], fraction: Float[Array, " k"]
) -> Float[Array, " k"] | None:
    """Γ/A₀, with which the viscous pressure is (Γ/A₀√A) ∂A/∂t."""
    if problem.wall_viscosity is None:
        return None
    radius = interpolate(problem.network.radius, segment, fraction)
    return problem.wall_viscosity[segment] / (math.pi * radius**2)


def _face_viscosity(
    problem: Flow1DProblem, length: Float[Array, " k"]
) -> Float[Array, " f"] | None:
    """Γ/A₀ over the distance of the cells beside each face."""
    grid = problem.grid
    fraction = grid.face_fraction.astype(problem.network.radius.dtype)
    viscosity = _viscosity(problem, grid.face_segment, fraction)
    if viscosity is None:
        return None
    apart = 0.5 * (jnp.append(length, 0.0) + jnp.append(0.0, length))
    return viscosity / jnp.where(apart > 0, apart, 1.0)


def cell_losses(problem: Flow1DProblem) -> tuple[Float[Array, " k"], Float[Array, " k"]]:
    r"""Length of every slot (m) and its friction k, exact for the unloaded vessel.

    The friction force on a cell is $k\,Q/A$ with
    $k=\frac{2(\zeta+2)\pi}{\rho}\frac{A_0^2}{\Delta x}\int\frac{\mu\,dx}{A^2}$.
    """
    grid, network, blood = problem.grid, problem.network, problem.blood
    dtype = network.radius.dtype
    fraction = grid.piece_fraction.astype(dtype)
    ends = [interpolate(network.radius, grid.piece_segment, fraction[:, i]) for i in (0, 1)]
    length = network.length[grid.piece_segment] * (fraction[:, 1] - fraction[:, 0])
    loss = blood.viscosity(0.5 * (ends[0] + ends[1])) * resistance_integral(
        ends[0], ends[1], length
    )
    add = lambda x: jnp.zeros(grid.n_slots, dtype).at[grid.piece_slot].add(x)
    cell_length, cell_loss = add(length), add(loss)
    radius = interpolate(network.radius, grid.cell_segment, grid.cell_fraction.astype(dtype))
    area = math.pi * radius**2
    safe = jnp.where(cell_length > 0, cell_length, 1.0)
    scale = cast_like(blood.friction_coefficient, radius) / cast_like(blood.density, radius)
    return cell_length, scale * area**2 * cell_loss / safe


def _end_losses(problem: Flow1DProblem) -> tuple[Float[Array, "w n"], Float[Array, "w n"]]:
    """Linear and quadratic loss of the lesion at every end; zero where there is none."""
    grid, lesion = problem.grid, problem.network.lesion
    zero = jnp.zeros(grid.end_face.shape, problem.network.radius.dtype)
    if lesion.length.shape[0] == 0:
        return zero, zero
    both = lesion_coefficients(problem.network, problem.blood)
    has = grid.end_lesion >= 0
    linear, quadratic = (jnp.where(has, c[jnp.maximum(grid.end_lesion, 0)], 0.0) for c in both)
    return linear, quadratic
