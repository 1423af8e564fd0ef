"""Steady flow in a network."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from .._misc import NoBarePressure
from .._padding import cut, cut_solution, pad_problem
from .._ranges import in_range, is_out_of_range, Range, range_error
from .._results import conclude, RESULTS, SolveError
from ..network import check_boundary, VascularNetwork, vessel_label
from ..units import M_PER_MM
from ..vessel import AbstractWall, Blood, RigidWall
from ._newton import AbstractAdjoint, find_root, ImplicitAdjoint, Newton
from ._padding import pad_vessels, sanitised_vessels
from ._ranges import vessel_ranges
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

    def __check_init__(self) -> None:
        check_boundary(self.network, self.boundary)


class SteadySolution(eqx.Module):
    """Steady flow.

    **Attributes:** `pressure_total` (n,) Pa; `flow` (s,) m³/s, positive away from the
    root; `pressure_static` (s, 2) Pa at the proximal and distal end of each segment; `area`
    (s, 2) m²; `result`; `newton_iterations`; `residual`, the largest remaining residual relative
    to its scale.
    """

    pressure_total: Float[Array, " n"]
    flow: Float[Array, " s"]
    pressure_static: Float[Array, "s 2"]
    area: Float[Array, "s 2"]
    result: RESULTS
    newton_iterations: Int[Array, ""]
    residual: Float[Array, ""]

    pressure = NoBarePressure("pressure_total", "pressure_static")


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
    - `throw`: raise if no solution is found; under a transformation (`jit`, `grad`, `vmap`)
      nothing is raised, and values and derivatives of a failed solve are NaN. With False the last
      iterate is returned as it is; look at `result`.

    **Returns:** a [`SteadySolution`][].

    **Errors:** [`SolveError`][] naming the vessel where no solution is found, or the number
    that is out of its range, as one may be that was changed after construction.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    n = len(tree.terminals)
    outlet = jp.ResistanceOutlet(tree.terminals, np.full(n, 5e10), np.full(n, 2e3))
    flow = jp.solve_steady(jp.SteadyProblem(tree, (inlet, outlet))).flow
    ```
    """
    # A default left out and the same value passed would be two programs: see `solve_perfusion`.
    solution = _solve(problem, method, adjoint, max_steps)
    return conclude(solution, throw=throw, failure=lambda s: _failure(problem, s))


def _failure(problem: SteadyProblem, solution: SteadySolution) -> SolveError:
    """The error of a failed solve: the number that is out of its range, else the worst vessel."""
    if is_out_of_range(solution.result):
        return range_error(_ranges(problem))
    pressure, flow = np.asarray(solution.pressure_total), np.asarray(solution.flow)
    return SolveError(solution.result, worst_vessel(problem.network, pressure, flow))


def _ranges(problem: SteadyProblem) -> list[Range]:
    return vessel_ranges(problem.network, problem.boundary, problem.blood, problem.wall)


@eqx.filter_jit
def _solve(
    problem: SteadyProblem, method: Newton, adjoint: AbstractAdjoint, max_steps: int
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
        is_asked=in_range(_ranges(problem)),
    )
    state = root.value
    return SteadySolution(
        pressure_total=state.pressure,
        flow=state.flow,
        pressure_static=law.static_pressure(state),
        area=law.areas(state),
        result=root.result,
        newton_iterations=root.steps,
        residual=root.residual,
    )


def worst_vessel(
    network: VascularNetwork,
    pressure: Float[np.ndarray, " n"],
    flow: Float[np.ndarray, " s"],
) -> str:
    """The vessel a failed solve points at: not finite, else of the steepest fall of pressure.

    **Arguments:** `pressure`, total, Pa, and `flow`, m³/s, as the solve left them; host only.

    **Returns:** a sentence that names it.
    """
    node = np.asarray(network.segment_node)
    lost = ~(np.isfinite(flow) & np.isfinite(pressure[node]).all(axis=1))
    if lost.all():
        narrow = np.asarray(network.radius).min(axis=1)
        i = int(np.argmin(narrow))
        return (
            "The worst vessel is unknown, as no pressure is finite; the narrowest is "
            f"{vessel_label(network, i)} with a radius of {narrow[i] / M_PER_MM:.3g} mm."
        )
    fall = np.abs(pressure[node[:, 0]] - pressure[node[:, 1]]) / np.asarray(network.length)
    i = int(np.argmax(lost if lost.any() else fall))
    return f"The worst vessel is {vessel_label(network, i)}."


@pad_problem.register
def _pad(problem: SteadyProblem) -> SteadyProblem:
    return pad_vessels(problem)


@cut_solution.register
def _cut(solution: SteadySolution, problem: SteadyProblem) -> SteadySolution:
    n_nodes, n_segments = problem.network.n_nodes, problem.network.n_segments
    return eqx.tree_at(
        lambda s: (s.pressure_total, s.flow, s.pressure_static, s.area),
        solution,
        (
            cut(solution.pressure_total, n_nodes),
            cut(solution.flow, n_segments),
            cut(solution.pressure_static, n_segments),
            cut(solution.area, n_segments),
        ),
    )
