"""Steady flow in a network."""

import equinox as eqx
from jaxtyping import Array, Float, Int

from .._padding import cut, cut_solution, pad_problem
from .._results import RESULTS
from ..network import check_boundary, VascularNetwork
from ..vessel import AbstractWall, Blood, RigidWall
from ._newton import AbstractAdjoint, find_root, ImplicitAdjoint, Newton
from ._padding import pad_vessels, sanitised_vessels
from ._system import Boundary, initial_state, NetworkLaw, node_closure, SteadySystem


class SteadyProblem(eqx.Module):
    """Steady 1-D flow: a network, its boundary, blood and wall.

    **Attributes:** `boundary` is a tuple of boundary types of `jaxperf.network`. At least one of
    them must fix a pressure or refer to one. A leaf without a boundary is closed.
    """

    network: VascularNetwork
    boundary: Boundary
    blood: Blood = eqx.field(default_factory=Blood)
    wall: AbstractWall = eqx.field(default_factory=RigidWall)

    def __check_init__(self):
        check_boundary(self.network, self.boundary)


class SteadySolution(eqx.Module):
    """Steady flow.

    **Attributes:** `pressure` (n,) total pressure, Pa; `flow` (s,) m³/s, positive away from the
    root; `pressure_static` (s, 2) Pa at the proximal and distal end of each segment; `area`
    (s, 2) m²; `result`; `newton_iterations`; `residual`, the largest remaining residual relative
    to its scale.
    """

    pressure: Float[Array, " n"]
    flow: Float[Array, " s"]
    pressure_static: Float[Array, "s 2"]
    area: Float[Array, "s 2"]
    result: RESULTS
    newton_iterations: Int[Array, ""]
    residual: Float[Array, ""]


def solve_steady(
    problem: SteadyProblem,
    method: Newton = Newton(),
    *,
    adjoint: AbstractAdjoint = ImplicitAdjoint(),
    max_steps: int = 50,
    throw: bool = True,
) -> SteadySolution:
    """Solve the steady 1-D Navier–Stokes equations on a network.

    Newton's method; each linear system is eliminated from the leaves to the roots and back
    (see `factor_network`), which is exact and O(number of segments).

    **Arguments:**

    - `method`: [`Newton`][] with its tolerance.
    - `adjoint`: [`ImplicitAdjoint`][] or [`UnrolledAdjoint`][].
    - `max_steps`: Newton steps at most.
    - `throw`: raise if no solution is found; otherwise look at `result`.

    **Returns:** a [`SteadySolution`][].
    """
    # A default left out and the same value passed would be two programs: see `solve_perfusion`.
    return _solve(problem, method, adjoint, max_steps, throw)


@eqx.filter_jit
def _solve(
    problem: SteadyProblem, method: Newton, adjoint: AbstractAdjoint, max_steps: int, throw: bool
) -> SteadySolution:
    problem = sanitised_vessels(problem)
    closure = node_closure(problem.network, problem.boundary)
    law = NetworkLaw(problem.network, problem.blood, problem.wall)
    root = find_root(
        SteadySystem(law, closure),
        initial_state(problem.network, closure),
        method,
        adjoint=adjoint,
        max_steps=max_steps,
        throw=throw,
    )
    state = root.value
    return SteadySolution(
        pressure=state.pressure,
        flow=state.flow,
        pressure_static=law.static_pressure(state),
        area=law.areas(state),
        result=root.result,
        newton_iterations=root.steps,
        residual=root.residual,
    )


@pad_problem.register
def _pad(problem: SteadyProblem) -> SteadyProblem:
    return pad_vessels(problem)


@cut_solution.register
def _cut(solution: SteadySolution, problem: SteadyProblem) -> SteadySolution:
    n_nodes, n_segments = problem.network.n_nodes, problem.network.n_segments
    return SteadySolution(
        cut(solution.pressure, n_nodes),
        cut(solution.flow, n_segments),
        cut(solution.pressure_static, n_segments),
        cut(solution.area, n_segments),
        solution.result,
        solution.newton_iterations,
        solution.residual,
    )
