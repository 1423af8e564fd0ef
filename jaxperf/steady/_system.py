"""The steady equations of a network: segment laws, node balances, their linearisation."""

import functools
import math
import operator

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._misc import InputError
from .._padding import is_real, kept
from ..network import (
    AbstractBoundary,
    AnyNetwork,
    cycle_mean,
    Fed,
    Held,
    JointDrain,
    Ladder,
    VascularNetwork,
)
from ..vessel import AbstractWall, Blood, resistance_integral, stenosis_coefficients
from ._elimination import factor_network, NetworkFactor, SegmentLinearisation, solve_network
from ._newton import AbstractSystem, default_tolerance, LinearStep

Boundary = tuple[AbstractBoundary, ...]

# A speed that counts as rest, m/s, and how many roundings a balance of many terms makes.
_REST_SPEED = 1e-3
_ROUNDINGS = 32.0


class NodeClosure(eqx.Module):
    """Boundary conditions as one statement for each node.

    A node is either `fixed` at `pressure`, or fed by `inflow − conductance·P` from outside.
    """

    fixed: Bool[Array, " n"]
    pressure: Float[Array, " n"]
    inflow: Float[Array, " n"]
    conductance: Float[Array, " n"]


def _in_series(outlet: Ladder, kind: str) -> tuple[Array, Array]:
    """Resistance and sink of an outlet whose compartments have filled."""
    if isinstance(outlet.sink, JointDrain):
        raise InputError(
            "its outlets drain together, and none has a law of its own",
            where=kind,
            expected="conditions at single nodes in steady flow",
            fix="Solve the perfusion problem from which the bed was condensed",
        )
    return functools.reduce(operator.add, outlet.resistance), outlet.sink


def node_closure(network: AnyNetwork, boundary: Boundary) -> NodeClosure:
    """Gather a boundary into one statement for each node; nodes without one keep their mass.

    **Errors:** [`InputError`][] for outlets that drain together.
    """
    zero = jnp.zeros(network.n_nodes, network.length.dtype)
    fixed, pressure, inflow, conductance = jnp.zeros(network.n_nodes, bool), zero, zero, zero
    for condition in boundary:
        form, node = condition.form(), condition.node
        if isinstance(form, Held):
            fixed = fixed.at[node].set(True)
            pressure = pressure.at[node].set(cycle_mean(form.pressure))
        elif isinstance(form, Fed):
            inflow = inflow.at[node].add(cycle_mean(form.flow))
        else:
            resistance, sink = _in_series(form, condition.kind)
            conductance = conductance.at[node].add(1.0 / resistance)
            inflow = inflow.at[node].add(sink / resistance)
    closure = NodeClosure(fixed, pressure, inflow, conductance)
    return closure if network.real is None else _padding_held(closure, network.real.node)


def _padding_held(closure: NodeClosure, count: Int[Array, ""]) -> NodeClosure:
    """Padded nodes held at a pressure at which every vessel is open."""
    real = is_real(count, closure.fixed.shape[0])
    free = NodeClosure(
        closure.fixed & real,
        kept(closure.pressure, real, 0.0),
        kept(closure.inflow, real, 0.0),
        kept(closure.conductance, real, 0.0),
    )
    level = jax.lax.stop_gradient(_highest(free))
    return NodeClosure(
        free.fixed | ~real, kept(free.pressure, real, level), free.inflow, free.conductance
    )


class NetworkState(eqx.Module):
    """Total pressure (Pa) at the nodes and flow (m³/s) in the segments."""

    pressure: Float[Array, " n"]
    flow: Float[Array, " s"]


def lesion_coefficients(
    network: VascularNetwork, blood: Blood
) -> tuple[Float[Array, " l"], Float[Array, " l"]]:
    """Linear and quadratic loss of every lesion, at the mean radius of the segments it lies on.

    An occlusion has none: it stops the flow, whatever the pressures.
    """
    lesion = network.lesion
    inside = network.radius[lesion.segment]
    mean = lesion.fraction * 0.5 * (inside[:, 0] + inside[:, 1])
    reference = jnp.zeros_like(lesion.length).at[lesion.lesion].add(mean)
    return stenosis_coefficients(
        reference,
        jnp.where(lesion.is_occlusion, 0.0, lesion.diameter_reduction),
        lesion.length,
        blood.viscosity(reference),
        blood.density,
    )


class NetworkLaw(eqx.Module):
    r"""The steady one-dimensional equations on a network.

    With mass conserved, Q is constant along a segment, and the momentum equation becomes one for
    the total pressure $P = p + \tfrac12\alpha\rho Q^2/A^2$,

    $$\frac{dP}{dx} = -2(\zeta+2)\pi\mu\frac{Q}{A^2},$$

    in which the convective change of momentum through taper has cancelled exactly. A segment
    obeys $P_p - P_c = [2(\zeta+2)\pi\mu\int A^{-2}dx + R_l]\,Q + S_l|Q|Q$ with $R_l$, $S_l$ the
    losses of a lesion on it, and $Q = 0$ where an occlusion closes it.

    Radii at the ends follow the wall law at the pressure there and go linearly between; for a
    rigid wall the integral is exact, for an elastic one second order in the segment length.
    Viscosity is taken at the mean of the two radii.
    """

    network: VascularNetwork
    blood: Blood
    wall: AbstractWall

    def areas(self, state: NetworkState) -> Float[Array, "s 2"]:
        """Lumen area (m²) at the proximal and distal end of every segment."""
        pressure = state.pressure[self.network.segment_node]
        flow = jnp.broadcast_to(state.flow[:, None], pressure.shape)
        return self._area(pressure, flow)

    def _area(
        self, pressure: Float[Array, "s 2"], flow: Float[Array, "s 2"]
    ) -> Float[Array, "s 2"]:
        return self.wall.area_from_total(
            pressure, flow, self.network.radius, self.blood.density, self.blood.alpha
        )

    def is_open(self, state: NetworkState) -> Bool[Array, " s"]:
        """Whether the wall law has an area at both ends of each segment."""
        pressure = state.pressure[self.network.segment_node]
        flow = jnp.broadcast_to(state.flow[:, None], pressure.shape)
        radius, blood = self.network.radius, self.blood
        return self.wall.is_open_at_total(pressure, flow, radius, blood.density, blood.alpha).all(
            axis=1
        )

    def static_pressure(self, state: NetworkState) -> Float[Array, "s 2"]:
        """p = P − ½αρ(Q/A)² at both ends of every segment."""
        velocity = state.flow[:, None] / self.areas(state)
        head = 0.5 * self.blood.alpha * self.blood.density
        return state.pressure[self.network.segment_node] - head * velocity**2

    def lesion_loss(self) -> tuple[Float[Array, " s"], Float[Array, " s"]]:
        """Linear and quadratic loss coefficient that lesions add to each segment."""
        lesion, zero = self.network.lesion, jnp.zeros_like(self.network.length)
        if lesion.length.shape[0] == 0:
            return zero, zero
        linear, quadratic = lesion_coefficients(self.network, self.blood)
        spread = lambda c: zero.at[lesion.segment].add(lesion.fraction * c[lesion.lesion])
        return spread(linear), spread(quadratic)

    def drop(
        self,
        proximal: Float[Array, " s"],
        distal: Float[Array, " s"],
        flow: Float[Array, " s"],
    ) -> Float[Array, " s"]:
        """P_p − P_c − loss(Q) of every segment, −RQ of a closed one; zero at the solution."""
        both = jnp.stack([proximal, distal], axis=1)
        area = self._area(both, jnp.stack([flow, flow], axis=1))
        radius = jnp.sqrt(area / math.pi)
        viscosity = self.blood.viscosity(0.5 * (radius[:, 0] + radius[:, 1]))
        integral = resistance_integral(radius[:, 0], radius[:, 1], self.network.length)
        linear, quadratic = self.lesion_loss()
        resistance = self.blood.friction_coefficient * viscosity * integral + linear
        missing = proximal - distal - resistance * flow - quadratic * jnp.abs(flow) * flow
        return jnp.where(self.network.is_closed, -resistance * flow, missing)

    def residual(self, state: NetworkState, closure: NodeClosure) -> NetworkState:
        """What is missing in every segment law (as `flow`, Pa) and node balance (`pressure`)."""
        node = self.network.segment_node
        ends = state.pressure[node]
        drop = self.drop(ends[:, 0], ends[:, 1], state.flow)
        balance = closure.inflow - closure.conductance * state.pressure
        balance = balance.at[node[:, 1]].add(state.flow).at[node[:, 0]].add(-state.flow)
        held = state.pressure - closure.pressure
        return NetworkState(jnp.where(closure.fixed, held, balance), drop)

    def linearise(self, state: NetworkState) -> SegmentLinearisation:
        """Partial derivatives of the segment laws: each acts on its own segment only."""
        ends = state.pressure[self.network.segment_node]
        point = (ends[:, 0], ends[:, 1], state.flow)
        _, push = jax.linearize(self.drop, *point)
        one, zero = jnp.ones_like(state.flow), jnp.zeros_like(state.flow)
        return SegmentLinearisation(
            push(one, zero, zero), push(zero, one, zero), push(zero, zero, one)
        )

    def factor(
        self, state: NetworkState, closure: NodeClosure, conductance: Float[Array, " n"]
    ) -> NetworkFactor:
        """Eliminate the equations linearised at a state; `conductance` adds to the closure's."""
        total = closure.conductance + conductance
        return factor_network(self.network, self.linearise(state), total, closure.fixed)


def _highest(closure: NodeClosure) -> Float[Array, ""]:
    """The highest prescribed or reference pressure; 0 where there is none."""
    has_outlet = closure.conductance > 0
    reference = closure.inflow / jnp.where(has_outlet, closure.conductance, 1.0)
    known = jnp.where(closure.fixed, closure.pressure, jnp.where(has_outlet, reference, -jnp.inf))
    highest = jnp.max(known)
    return jnp.where(jnp.isfinite(highest), highest, 0.0).astype(closure.pressure.dtype)


def initial_state(network: AnyNetwork, closure: NodeClosure) -> NetworkState:
    """Rest at the highest prescribed or reference pressure: every vessel open."""
    highest = _highest(closure)
    pressure = jnp.where(closure.fixed, closure.pressure, highest)
    return NetworkState(pressure, jnp.zeros_like(network.length))


def network_scale(
    network: VascularNetwork,
    closure: NodeClosure,
    state: NetworkState,
    exchanged: Float[Array, ""] | float = 0.0,
) -> NetworkState:
    """What residuals are measured against: the largest flow, and the largest pressure.

    Where little flows, at rest or behind an occlusion, a balance is no better than the rounding of
    its terms: the largest of them, which the boundary data make of the largest pressure, counts
    with the share that rounding has in the tolerance. So does a stated speed in the widest vessel.

    **Arguments:** `exchanged`, the largest term that others add to a balance, m³/s.
    """
    tiny = jnp.finfo(state.flow.dtype).tiny
    pressure = jnp.max(jnp.abs(state.pressure)) + tiny
    given = jnp.max(jnp.abs(closure.inflow)) + jnp.max(closure.conductance) * pressure
    slow = _REST_SPEED * jnp.max(math.pi * network.radius**2)
    terms = jnp.maximum(given, exchanged) + slow
    flow = jnp.max(jnp.abs(state.flow)) + rounding_share(terms) * terms + tiny
    return NetworkState(
        jnp.where(closure.fixed, pressure, flow), jnp.broadcast_to(pressure, state.flow.shape)
    )


def rounding_share(like: Array) -> float:
    """What the rounding of a sum of terms is, relative to them, over Newton's tolerance."""
    return _ROUNDINGS * float(jnp.finfo(like.dtype).eps) / default_tolerance(like)


class SteadySystem(AbstractSystem):
    """The network by itself as a system of equations."""

    law: NetworkLaw
    closure: NodeClosure

    def residual(self, x: NetworkState) -> NetworkState:
        return self.law.residual(x, self.closure)

    def linear_solve(
        self, x: NetworkState, right: NetworkState, rtol: Float[Array, ""] | float
    ) -> LinearStep:
        factor = self.law.factor(x, self.closure, jnp.zeros_like(x.pressure))
        pressure, flow = solve_network(factor, right.flow, right.pressure)
        return LinearStep(
            NetworkState(pressure, flow), jnp.zeros((), jnp.int32), jnp.ones((), bool)
        )

    def scale(self, x: NetworkState) -> NetworkState:
        return network_scale(self.law.network, self.closure, x)

    def is_admissible(self, x: NetworkState) -> Bool[Array, ""]:
        return self.law.is_open(x).all()
