"""Steady flow in a network of lumped segments."""

import math
from collections import Counter

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._misc import InputError
from .._ranges import in_range, is_out_of_range, not_negative, Range, range_error
from .._results import conclude, RESULTS, SolveError
from ..network import (
    build_lumped,
    check_boundary,
    condition_ranges,
    LumpedNetwork,
    VascularNetwork,
    vessel_label,
)
from ..vessel import AbstractElasticWall, Blood, resistance_integral, RigidWall
from ._elimination import factor_network, SegmentLinearisation, solve_network
from ._newton import AbstractAdjoint, AbstractSystem, find_root, ImplicitAdjoint, LinearStep, Newton
from ._system import (
    Boundary,
    initial_state,
    NetworkLaw,
    NetworkState,
    node_closure,
    NodeClosure,
    rounding_share,
)


class LumpedProblem(eqx.Module):
    """Steady flow in lumped segments, whose inertances and compliances then do nothing.

    **Attributes:** `network`; `boundary`, types of `jaxperf.network`, of which at least one must
    fix a pressure or refer to one. A leaf without a boundary is closed.
    """

    network: LumpedNetwork
    boundary: Boundary

    def __check_init__(self) -> None:
        check_boundary(self.network, self.boundary)


class LumpedSolution(eqx.Module):
    """Steady flow in lumped segments.

    **Attributes:** `pressure_total` (n,) Pa; `flow` (s,) m³/s, positive away from the root;
    `result`; `newton_iterations`; `residual`, the largest remaining one relative to its scale.
    """

    pressure_total: Float[Array, " n"]
    flow: Float[Array, " s"]
    result: RESULTS
    newton_iterations: Int[Array, ""]
    residual: Float[Array, ""]


def solve_lumped(
    problem: LumpedProblem,
    method: Newton = Newton(),
    *,
    adjoint: AbstractAdjoint = ImplicitAdjoint(),
    max_steps: int = 50,
    throw: bool = True,
) -> LumpedSolution:
    r"""Solve for the steady flow in a network of lumped segments.

    $$P_p - P_d = R\,Q + S\,|Q|\,Q$$

    in every segment, and a balance of flows at every node, by the Newton iteration and the
    elimination of [`solve_steady`][].

    **Arguments:** as for [`solve_steady`][].

    **Returns:** a [`LumpedSolution`][].

    **Errors:** [`SolveError`][] naming the segment where no solution is found, or the number that
    is out of its range.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    network = jp.network.build_lumped(
        np.array([[0, 1], [1, 2]]), root=np.array([0]), resistance=np.array([1e8, 4e8])
    )
    inlet = jp.PressureBoundary(0, 12400.0)
    outlet = jp.ResistanceOutlet(2, 1e9, 700.0)
    flow = jp.steady.solve_lumped(jp.steady.LumpedProblem(network, (inlet, outlet))).flow
    ```
    """
    solution = _solve(problem, method, adjoint, max_steps)
    return conclude(solution, throw=throw, failure=lambda s: _failure(problem, s))


def _failure(problem: LumpedProblem, solution: LumpedSolution) -> SolveError:
    if is_out_of_range(solution.result):
        return range_error(_ranges(problem))
    pressure, flow = np.asarray(solution.pressure_total), np.asarray(solution.flow)
    network = problem.network
    node = np.asarray(network.segment_node)
    lost = ~(np.isfinite(flow) & np.isfinite(pressure[node]).all(axis=1))
    loss = (np.asarray(network.resistance) + np.asarray(network.quadratic) * np.abs(flow)) * flow
    left = np.abs(pressure[node[:, 0]] - pressure[node[:, 1]] - loss)
    i = int(np.argmax(lost if lost.any() else left))
    return SolveError(solution.result, f"The worst segment is {network.segment_name[i]}.")


def _ranges(problem: LumpedProblem) -> list[Range]:
    network = problem.network
    name = lambda i: network.segment_name[i]
    some = network.resistance + network.quadratic
    return [
        not_negative("`resistance` (Pa·s/m³)", network.resistance, name),
        not_negative("`quadratic` (Pa·s²/m⁶)", network.quadratic, name),
        Range("`resistance` (Pa·s/m³)", some, some > 0, "a loss above zero", name),
        *(r for condition in problem.boundary for r in condition_ranges(condition)),
    ]


@eqx.filter_jit
def _solve(
    problem: LumpedProblem, method: Newton, adjoint: AbstractAdjoint, max_steps: int
) -> LumpedSolution:
    network = problem.network
    closure = node_closure(network, problem.boundary)
    root = find_root(
        _LumpedSystem(network, closure),
        _start(network, closure),
        method,
        adjoint=adjoint,
        max_steps=max_steps,
        is_asked=in_range(_ranges(problem)),
    )
    state = root.value
    return LumpedSolution(state.pressure, state.flow, root.result, root.steps, root.residual)


def _start(network: LumpedNetwork, closure: NodeClosure) -> NetworkState:
    """Rest, and a flow where a quadratic loss alone would have no derivative at rest."""
    rest = initial_state(network, closure)
    drive = jnp.max(jnp.abs(rest.pressure)) + 1.0
    alone = (network.resistance == 0) & (network.quadratic > 0)
    fed = jnp.max(jnp.abs(closure.inflow))
    flow = jnp.sqrt(drive / jnp.where(alone, network.quadratic, 1.0)) + fed
    return NetworkState(rest.pressure, jnp.where(alone, flow, 0.0).astype(rest.flow.dtype))


class _LumpedSystem(AbstractSystem):
    """The lumped segments as a system of equations."""

    network: LumpedNetwork
    closure: NodeClosure

    def residual(self, x: NetworkState) -> NetworkState:
        network, closure = self.network, self.closure
        node, q = network.segment_node, x.flow
        ends = x.pressure[node]
        loss = (network.resistance + network.quadratic * jnp.abs(q)) * q
        balance = closure.inflow - closure.conductance * x.pressure
        balance = balance.at[node[:, 1]].add(q).at[node[:, 0]].add(-q)
        held = x.pressure - closure.pressure
        return NetworkState(jnp.where(closure.fixed, held, balance), ends[:, 0] - ends[:, 1] - loss)

    def linear_solve(
        self, x: NetworkState, right: NetworkState, rtol: Float[Array, ""] | float
    ) -> LinearStep:
        network, one = self.network, jnp.ones_like(x.flow)
        slope = -network.resistance - 2.0 * network.quadratic * jnp.abs(x.flow)
        law = SegmentLinearisation(one, -one, slope)
        factor = factor_network(network, law, self.closure.conductance, self.closure.fixed)
        pressure, flow = solve_network(factor, right.flow, right.pressure)
        return LinearStep(
            NetworkState(pressure, flow), jnp.zeros((), jnp.int32), jnp.ones((), bool)
        )

    def scale(self, x: NetworkState) -> NetworkState:
        """The largest flow, and of the terms of a balance what rounding leaves of them."""
        closure, tiny = self.closure, jnp.finfo(x.flow.dtype).tiny
        pressure = jnp.max(jnp.abs(x.pressure)) + tiny
        terms = jnp.max(jnp.abs(closure.inflow)) + jnp.max(closure.conductance) * pressure
        flow = jnp.max(jnp.abs(x.flow)) + rounding_share(terms) * terms + tiny
        return NetworkState(
            jnp.where(closure.fixed, pressure, flow), jnp.broadcast_to(pressure, x.flow.shape)
        )

    def is_admissible(self, x: NetworkState) -> Bool[Array, ""]:
        return jnp.ones((), bool)


def lumped_network(
    network: VascularNetwork,
    blood: Blood,
    wall: AbstractElasticWall | RigidWall = RigidWall(),
) -> LumpedNetwork:
    r"""The segments of a network as lumped ones, at the reference area of the wall.

    $$R = 2(\zeta+2)\pi\mu\int\frac{dx}{A^2} + R_l,\quad S = S_l,\quad
    L = \rho\int\frac{dx}{A},\quad C = \int\frac{dA}{dp}dx$$

    with $R_l$, $S_l$ the losses of a lesion. Between total pressures the steady flow of a rigid
    network is that of the lumped one, exactly. C is that of a wall with the law of
    [`SqrtAreaWall`][] at its reference area, $dA/dp = \tfrac32A/(Eh/r)$, by the trapezoidal rule;
    it is 0 where the wall is rigid.

    **Arguments:** `network`, without an occlusion; `blood`; `wall`.

    **Returns:** a [`LumpedNetwork`][] with the segments and nodes of the network.

    **Errors:** [`InputError`][] for an occlusion, which no resistance stands for.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    lumped = jp.steady.lumped_network(tree, jp.Blood())
    ```
    """
    closed = np.flatnonzero(np.asarray(network.is_closed))
    if closed.size:
        raise InputError(
            f"an occlusion closes {vessel_label(network, int(closed[0]))}",
            where="lumped network",
            expected="segments that are open: no finite resistance stands for an occlusion",
            fix="Leave the branch behind the occlusion out",
        )
    resistance, quadratic, inertance, compliance = map(np.asarray, _lumps(network, blood, wall))
    before: Counter[str] = Counter()
    names = []
    for i in np.asarray(network.branch).tolist():
        name = network.branch_name[i]
        names.append(f"{name}_{before[name]}")
        before[name] += 1
    return build_lumped(
        np.asarray(network.segment_node),
        root=np.asarray(network.roots),
        resistance=resistance,
        quadratic=quadratic,
        inertance=inertance,
        compliance=compliance,
        length=np.asarray(network.length),
        segment_name=tuple(names),
    )


@eqx.filter_jit
def _lumps(
    network: VascularNetwork, blood: Blood, wall: AbstractElasticWall | RigidWall
) -> tuple[Float[Array, " s"], ...]:
    """R, S, L and C of each segment."""
    radius, length = network.radius, network.length
    linear, quadratic = NetworkLaw(network, blood, RigidWall()).lesion_loss()
    integral = resistance_integral(radius[:, 0], radius[:, 1], length)
    viscosity = blood.viscosity(0.5 * (radius[:, 0] + radius[:, 1]))
    resistance = blood.friction_coefficient * viscosity * integral + linear
    inertance = blood.density * length / (math.pi * radius[:, 0] * radius[:, 1])
    compliance = jnp.zeros_like(length)
    if isinstance(wall, AbstractElasticWall):
        slope = 1.5 * math.pi * radius**2 / wall.stiffness(radius)
        compliance = 0.5 * (slope[:, 0] + slope[:, 1]) * length
    return resistance, quadratic, inertance, compliance
