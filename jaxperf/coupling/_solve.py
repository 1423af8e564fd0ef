"""Steady perfusion of a ventricle by its coronary network."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._misc import NoBarePressure
from .._padding import cut, cut_solution, pad_problem
from .._ranges import in_range, is_out_of_range, range_error
from .._results import conclude, RESULTS, SolveError
from ..darcy import AbstractDarcySolver, ConjugateGradient, darcy_operator
from ..steady import (
    AbstractAdjoint,
    find_root,
    ImplicitAdjoint,
    NetworkLaw,
    NetworkState,
    Newton,
    node_closure,
    worst_vessel,
)
from ._padding import pad_perfusion, sanitised_perfusion
from ._problem import PerfusionProblem
from ._ranges import perfusion_ranges
from ._system import initial_perfusion, PerfusionState, PerfusionSystem


class PerfusionSolution(eqx.Module):
    """Steady perfusion.

    **Attributes:**

    - network: `pressure_total` (n,) Pa; `flow` (s,) m³/s; `pressure_static` (s, 2) Pa
      at the ends of each segment.
    - terminals: `terminal_flow` (t,) m³/s; `terminal_pressure` (t,), total, Pa; `dilation` (t,).
    - tissue: `pressure_tissue` (c,) Pa; `mbf` (c,) m³/(s·kg).
    - `inflow`, m³/s into the network less what leaves it elsewhere than into the tissue;
      `sink_flow`, m³/s; `mass_balance_relative_error`, the largest difference between inflow,
      terminal flow and sink flow relative to the terminal flow.
    - `result`, `newton_iterations`, `linear_iterations`, `residual`.
    """

    pressure_total: Float[Array, " n"]
    flow: Float[Array, " s"]
    pressure_static: Float[Array, "s 2"]
    terminal_flow: Float[Array, " t"]
    terminal_pressure: Float[Array, " t"]
    dilation: Float[Array, " t"]
    pressure_tissue: Float[Array, " c"]
    mbf: Float[Array, " c"]
    inflow: Float[Array, ""]
    sink_flow: Float[Array, ""]
    mass_balance_relative_error: Float[Array, ""]
    result: RESULTS
    newton_iterations: Int[Array, ""]
    linear_iterations: Int[Array, ""]
    residual: Float[Array, ""]

    pressure = NoBarePressure("pressure_total", "pressure_static", "pressure_tissue")


def perfusion_system(
    problem: PerfusionProblem, solver: AbstractDarcySolver, max_linear_steps: int
) -> PerfusionSystem:
    """The equations of a problem."""
    tissue = problem.tissue
    transmissibility = tissue.mesh.transmissibility(problem.microcirculation.permeability)
    return PerfusionSystem(
        law=NetworkLaw(problem.network, problem.blood, problem.wall),
        closure=node_closure(problem.network, problem.boundary),
        tissue=tissue,
        bed=problem.microcirculation,
        autoregulation=problem.autoregulation,
        conduction=darcy_operator(
            tissue.mesh.graph, transmissibility, jnp.zeros_like(tissue.volume)
        ),
        solver=solver,
        max_linear_steps=max_linear_steps,
    )


def solve_perfusion(
    problem: PerfusionProblem,
    method: AbstractDarcySolver = ConjugateGradient(),
    *,
    newton: Newton = Newton(),
    adjoint: AbstractAdjoint = ImplicitAdjoint(),
    max_steps: int = 50,
    max_linear_steps: int = 20_000,
    initial: PerfusionSolution | None = None,
    throw: bool = True,
) -> PerfusionSolution:
    """Solve network and tissue as one system.

    Newton's method on all unknowns. In each step the network is eliminated exactly and a Krylov
    method, preconditioned by the Darcy solver, finds the tissue pressure: conjugate gradients for
    rigid walls without autoregulation, BiCGStab otherwise, and correction by the solver itself
    where it is no linear symmetric map.

    **Arguments:**

    - `method`: a Darcy solver, used as preconditioner; the tolerance and the limit of its own
      `solve` play no part.
    - `newton`, `adjoint`, `max_steps`, `throw`: as in `solve_steady`.
    - `max_linear_steps`: products with the matrix in one Newton step at most.
    - `initial`: a solution to start from, of a problem with the same network and mesh: in a fit, a
      sweep or a lesion that narrows step by step. Nothing is differentiated with respect to it.
      Blood at rest where left out.

    **Returns:** a [`PerfusionSolution`][], differentiable in the parameters that `problem` holds as
    floating-point arrays, to any order. Held fixed are the mesh, the regions and the course of
    the vessels: their length is `network.length`, whatever `network.node_position` says.

    **Errors:** [`SolveError`][] naming the vessel where no solution is found, as in
    `solve_steady`; `ValueError` for an `initial` of other sizes.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    mesh, _, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree = jp.anatomy.demo_tree(lv)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    bed = jp.Microcirculation(1.7e-6, 8.7e-6, 2e-9, 700.0, 1.0)
    problem = jp.PerfusionProblem(tree, jp.perfused_tissue(mesh, regions, terminal), (inlet,), bed)
    mbf = jp.solve_perfusion(problem).mbf  # m³/(s·kg)
    ```
    """
    start = None if initial is None else _state_of(problem, initial)
    # One jitted function with every argument in its place: a default left out and the same value
    # passed would be two programs.
    solution = _solve(problem, method, newton, adjoint, max_steps, max_linear_steps, start)
    return conclude(solution, throw=throw, failure=lambda s: perfusion_failure(problem, s))


def perfusion_failure(problem: PerfusionProblem, solution: PerfusionSolution) -> SolveError:
    """The error of a failed solve, with the number that is out of its range, else the vessel that
    `jaxperf.steady.worst_vessel` finds."""
    if is_out_of_range(solution.result):
        return range_error(perfusion_ranges(problem))
    pressure, flow = np.asarray(solution.pressure_total), np.asarray(solution.flow)
    return SolveError(solution.result, worst_vessel(problem.network, pressure, flow))


def _state_of(problem: PerfusionProblem, solution: PerfusionSolution) -> PerfusionState:
    """The unknowns of a solution, if it fits the problem."""
    network = problem.network
    expected = (network.n_nodes, network.n_segments, problem.tissue.n_cells)
    parts = (solution.pressure_total, solution.flow, solution.pressure_tissue)
    found = tuple(part.shape[0] for part in parts)
    if found != expected:
        raise ValueError(
            f"initial has {found} nodes, segments and control volumes; expected {expected}, those "
            "of the problem"
        )
    return PerfusionState(
        NetworkState(solution.pressure_total, solution.flow), solution.pressure_tissue
    )


@eqx.filter_jit
def _solve(
    problem: PerfusionProblem,
    method: AbstractDarcySolver,
    newton: Newton,
    adjoint: AbstractAdjoint,
    max_steps: int,
    max_linear_steps: int,
    start: PerfusionState | None,
) -> PerfusionSolution:
    problem = sanitised_perfusion(problem)
    system = perfusion_system(problem, method, max_linear_steps)
    if start is None:
        start = initial_perfusion(
            problem.network, system.closure, problem.tissue, problem.microcirculation
        )
    else:
        # No step moves a padded node, which is held at the level of the boundary.
        held = jnp.where(system.closure.fixed, system.closure.pressure, start.network.pressure)
        start = eqx.tree_at(lambda s: s.network.pressure, start, held)
    root = find_root(
        system,
        start,
        newton,
        adjoint=adjoint,
        max_steps=max_steps,
        is_asked=in_range(perfusion_ranges(problem)),
    )
    state, closure = root.value, system.closure
    terminal_pressure = state.network.pressure[problem.tissue.terminal_node]
    flow = system.exchange(terminal_pressure, state.tissue)
    # At a node of prescribed pressure the boundary supplies what the segments carry away.
    node = problem.network.segment_node
    carried = jnp.zeros_like(state.network.pressure)
    carried = carried.at[node[:, 0]].add(state.network.flow).at[node[:, 1]].add(-state.network.flow)
    given = closure.inflow - closure.conductance * state.network.pressure
    inflow = jnp.sum(jnp.where(closure.fixed, carried, given))
    terminal, sink = jnp.sum(flow.terminal_flow), jnp.sum(flow.sink)
    gap = jnp.maximum(jnp.abs(inflow - terminal), jnp.abs(terminal - sink))
    return PerfusionSolution(
        pressure_total=state.network.pressure,
        flow=state.network.flow,
        pressure_static=system.law.static_pressure(state.network),
        terminal_flow=flow.terminal_flow,
        terminal_pressure=terminal_pressure,
        dilation=flow.dilation,
        pressure_tissue=state.tissue,
        mbf=flow.source / (problem.tissue.density * problem.tissue.volume),
        inflow=inflow,
        sink_flow=sink,
        mass_balance_relative_error=gap / jnp.abs(terminal),
        result=root.result,
        newton_iterations=root.steps,
        linear_iterations=root.linear_iterations,
        residual=root.residual,
    )


@pad_problem.register
def _pad(problem: PerfusionProblem) -> PerfusionProblem:
    return pad_perfusion(problem)


@cut_solution.register
def _cut(solution: PerfusionSolution, problem: PerfusionProblem) -> PerfusionSolution:
    at = {
        "pressure_total": problem.network.n_nodes,
        "flow": problem.network.n_segments,
        "pressure_static": problem.network.n_segments,
        "terminal_flow": problem.tissue.n_terminals,
        "terminal_pressure": problem.tissue.n_terminals,
        "dilation": problem.tissue.n_terminals,
        "pressure_tissue": problem.tissue.n_cells,
        "mbf": problem.tissue.n_cells,
    }
    real = [cut(getattr(solution, name), n) for name, n in at.items()]
    return eqx.tree_at(lambda s: [getattr(s, name) for name in at], solution, real)
