"""The state to start from: steady flow."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from .._misc import InputError, is_traced
from .._results import nan_unless, RESULTS, SolveError
from ..network import Form, Ladder
from ..steady import NetworkLaw, NetworkState, solve_steady, SteadyProblem
from ._outlets import outlet_start
from ._padding import rest_in_padding, sanitised_flow
from ._problem import Flow1DProblem
from ._semidiscretisation import FlowState, interpolate, semidiscretise


def initial_state(problem: Flow1DProblem, network_state: NetworkState | None = None) -> FlowState:
    """Steady flow under the cycle means of the boundary, as the state of all cells at time 0.

    **Arguments:**

    - `network_state`: pressures and flows of the network, where they are known; needed with
      outlets that drain together, as in a perfused bed, whose condensation returns them.
      Otherwise they are solved for.

    **Returns:** a [`FlowState`][], differentiable in the problem.

    **Errors:** [`InputError`][] for outlets that drain together without `network_state`;
    [`SolveError`][] where no steady flow is found; under a transformation the state is NaN then.

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
    state = eqx.filter_jit(jp.flow1d.initial_state)(problem)
    ```
    """
    if network_state is not None:
        return _state_of(problem, network_state)
    state, found = steady_start(problem)
    if any(is_traced(leaf) for leaf in jax.tree.leaves((state, found))):
        return nan_unless(found, state)
    if not found:
        raise SolveError(RESULTS.no_steady_start, "")
    return state


@eqx.filter_jit
def steady_start(problem: Flow1DProblem) -> tuple[FlowState, Bool[Array, ""]]:
    """The state of steady flow and whether there is one; else of blood at rest, unloaded."""
    joint = [c.kind for c in problem.boundary if _is_joint(c.form())]
    if joint:
        raise InputError(
            f"the outlets of a {joint[0]} depend on each other, and no state is given",
            where="initial_state",
            expected=f"network_state with a {joint[0]}",
            fix="Pass the `state` that condense_bed returns",
        )
    problem = sanitised_flow(problem)
    network, grid = problem.network, problem.grid
    steady = solve_steady(
        SteadyProblem(network, problem.boundary, problem.blood, problem.wall), throw=False
    )
    found = steady.result == RESULTS.successful
    state = _state_of(problem, NetworkState(steady.pressure_total, steady.flow))
    fraction = grid.cell_fraction.astype(network.radius.dtype)
    radius = interpolate(network.radius, grid.cell_segment, fraction)
    nothing = jax.tree.map(jnp.zeros_like, state)
    nothing = eqx.tree_at(lambda y: y.area, nothing, math.pi * radius**2)
    return jax.tree.map(lambda x, y: jnp.where(found, x, y), state, nothing), found


def _is_joint(form: Form) -> bool:
    return isinstance(form, Ladder) and form.is_joint


@eqx.filter_jit
def _state_of(problem: Flow1DProblem, network_state: NetworkState) -> FlowState:
    problem = sanitised_flow(problem)
    network, grid = problem.network, problem.grid
    law = NetworkLaw(network, problem.blood, problem.wall)
    equations = semidiscretise(problem)
    fraction = grid.cell_fraction.astype(network.radius.dtype)
    pressure = interpolate(law.static_pressure(network_state), grid.cell_segment, fraction)
    start = jnp.zeros((), pressure.dtype)
    if equations.around is not None:
        pressure = pressure - equations.around.waveform(start) @ equations.around.cell_share
    area = equations.cell_wall.lumen(pressure).area
    flow = network_state.flow
    state = FlowState(
        # A vessel that the wall law closes gets what the run then names as its fault.
        area=jnp.where(equations.cell_wall.bears(pressure), area, -area),
        flow=jnp.where(grid.is_cell > 0, flow[grid.cell_segment], 0.0),
        passed=jnp.zeros(grid.n_nodes, flow.dtype),
        outlet=tuple(
            outlet_start(form, network_state.pressure[form.node]) for form in equations.forms
        ),
    )
    return rest_in_padding(problem, state, equations.cell_wall.area)
