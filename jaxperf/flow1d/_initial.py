"""The state to start from: steady flow."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._misc import InputError
from ..network import PerfusedBed
from ..steady import NetworkLaw, NetworkState, solve_steady, SteadyProblem
from ._outlets import outlet_start
from ._problem import Flow1DProblem
from ._semidiscretisation import FlowState, interpolate, semidiscretise


def initial_state(problem: Flow1DProblem, network_state: NetworkState | None = None) -> FlowState:
    """Steady flow under the cycle means of the boundary, as the state of all cells at time 0.

    **Arguments:**

    - `network_state`: pressures and flows of the network, where they are known; needed with a
      perfused bed, whose condensation returns them. Otherwise they are solved for.

    **Returns:** a [`FlowState`][], differentiable in the problem.

    **Errors:** [`InputError`][] for a perfused bed without `network_state`.
    """
    network, grid = problem.network, problem.grid
    if network_state is None:
        if any(isinstance(c, PerfusedBed) for c in problem.boundary):
            raise InputError(
                "the outlets of a perfused bed depend on each other, and no state is given",
                where="initial_state",
                expected="network_state with a perfused bed",
                fix="Pass the `state` that condense_bed returns",
            )
        steady = solve_steady(SteadyProblem(network, problem.boundary, problem.blood, problem.wall))
        network_state = NetworkState(steady.pressure, steady.flow)
    law = NetworkLaw(network, problem.blood, problem.wall)
    equations = semidiscretise(problem)
    fraction = grid.cell_fraction.astype(network.radius.dtype)
    pressure = interpolate(law.static_pressure(network_state), grid.cell_segment, fraction)
    start = jnp.zeros((), pressure.dtype)
    if equations.around is not None:
        pressure = pressure - equations.around.waveform(start) @ equations.around.cell_share
    area = equations.cell_wall.lumen(pressure).area
    flow = network_state.flow
    leaving = _outflow(network.segment_node, flow, network.n_nodes)
    return FlowState(
        # A vessel that the wall law closes gets what the run then names as its fault.
        area=jnp.where(equations.cell_wall.bears(pressure), area, -area),
        flow=jnp.where(grid.is_cell > 0, flow[grid.cell_segment], 0.0),
        passed=jnp.zeros(grid.n_nodes, flow.dtype),
        outlet=tuple(
            outlet_start(c, leaving[c.node], network_state.pressure[c.node])
            for c in problem.boundary
        ),
    )


def _outflow(segment_node: Array, flow: Float[Array, " s"], n_nodes: int) -> Float[Array, " n"]:
    """Flow that leaves the network at every node."""
    zero = jnp.zeros(n_nodes, flow.dtype)
    return zero.at[segment_node[:, 1]].add(flow).at[segment_node[:, 0]].add(-flow)
