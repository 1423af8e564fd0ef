"""Calibration and the states of a prepared case."""

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points, EntryPoint
from typing import TypeAlias

import equinox as eqx
import jax
import numpy as np

from .._custom_types import as_leaf
from .._misc import InputError
from .._padding import cut_solution, pad_problem
from .._progress import Progress
from .._results import conclude, SolveError
from ..casefile import Solver, speaking
from ..coupling import (
    Autoregulation,
    calibrate,
    Calibration,
    perfusion_failure,
    PerfusionProblem,
    PerfusionSolution,
    solve_perfusion,
)
from ..darcy import AbstractDarcySolver, ConjugateGradient, multigrid
from ..units import M3_S_KG_PER_ML_MIN_G
from ._prepare import Prepared
from ._states import case_states, State

DEFAULT_HYPEREMIA_FACTOR = 3.75
_SOLVER_GROUP = "jaxperf.darcy_solvers"
BUILT_IN_SOLVERS: dict[str, Callable[..., AbstractDarcySolver]] = {
    "conjugate_gradient": lambda mesh, permeability: ConjugateGradient(),
    "multigrid": multigrid,
}
# From a problem to its solution.
Solve: TypeAlias = Callable[..., PerfusionSolution]


@dataclass(frozen=True)
class Solved:
    """The states of a case with their solutions, and the seconds of compilation and solves."""

    calibration: Calibration
    states: dict[str, State]
    solutions: dict[str, PerfusionSolution]
    seconds_compile: float
    seconds_solve: float


@speaking()
def solve_case(prepared: Prepared, progress: Progress) -> Solved:
    """Calibrate in the lesion-free heart, then solve every state.

    Two programs are compiled, with and without autoregulation; the second also serves the
    calibration. With a built-in Darcy solver the problem is padded to its bucket, so that cases of
    one bucket share these programs.

    **Errors:** [`SolveError`][] where a solve fails.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.casefile.load_case(jp.jobs.write_starter("heart", spacing_mm=5.0))
    prepared = jp.study.prepare_case(case, "heart", jp.Progress())
    solved = jp.study.solve_case(prepared, jp.Progress())
    print(solved.solutions["hyperemia"].mbf)
    ```
    """
    case, problem = prepared.case, prepared.problem
    bed, regulation = case.microcirculation, case.autoregulation
    solve = _solver(case.darcy.solver, case.solver, problem)
    factor = bed.hyperemia_factor
    if factor is None and bed.mbf_hyperemia_ml_min_g is None:
        factor = DEFAULT_HYPEREMIA_FACTOR
    with progress.stage("compile"):
        first = {"hyperemia": _first_call(problem, solve)}
        if regulation.enabled:
            per_volume = bed.mbf_rest_ml_min_g * M3_S_KG_PER_ML_MIN_G * bed.density_kg_m3
            target = as_leaf(per_volume * np.asarray(problem.tissue.terminal_volume))
            held = Autoregulation(target, factor or 4.0, regulation.dilation_min)
            first["rest"] = _first_call(_regulated(problem, held), solve)
    begin = time.perf_counter()
    took: dict[str, float] = {}
    with progress.stage("calibrate"):
        try:
            found = calibrate(
                problem,
                mbf_rest_ml_min_g=bed.mbf_rest_ml_min_g,
                mbf_hyperemia_ml_min_g=bed.mbf_hyperemia_ml_min_g,
                hyperemia_factor=factor,
                pressure_capillary_mmHg=bed.pressure_capillary_mmHg,
                boundary_hyperemia=prepared.boundary_hyperemia,
                rtol=case.solver.calibration_rtol,
                solve=solve,
                report=progress.tell,
            )
        except SolveError as error:
            raise SolveError(error.result, f"{error.where} This was the calibration.") from error
    states, solutions = case_states(prepared, found), {}
    for name, state in states.items():
        with progress.stage(name):
            solutions[name] = _timed(state.of(problem), solve, name, took)
    total = time.perf_counter() - begin
    # a first call also solves once, which takes about as long as the solve of the same program
    compiling = sum(max(first[name] - took[name], 0.0) for name in first)
    return Solved(found, states, solutions, compiling, total)


def _solver(name: str, limits: Solver, problem: PerfusionProblem) -> Solve:
    """The coupled solve of a case, by the Darcy solver of a name.

    A built-in one solves the padded problem; a registered one knows real meshes only.
    """
    solve_within = functools.partial(
        solve_perfusion, max_steps=limits.max_steps, max_linear_steps=limits.max_linear_steps
    )
    if name not in BUILT_IN_SOLVERS:
        method = darcy_method(name, problem)
        return lambda given, **options: solve_within(given, method, **options)
    method = darcy_method(name, pad_problem(problem))

    def solve(given: PerfusionProblem, *, throw: bool = True) -> PerfusionSolution:
        found = solve_within(pad_problem(given), method, throw=False)
        # Only the problem as it was given knows the names of its vessels.
        return conclude(
            cut_solution(found, given), throw=throw, failure=lambda s: perfusion_failure(given, s)
        )

    return solve


def darcy_method(name: str, problem: PerfusionProblem) -> AbstractDarcySolver:
    """The Darcy solver of a name: a built-in one, or one that a package registers as a function
    of the mesh and the permeability."""
    mesh, permeability = problem.tissue.mesh, problem.microcirculation.permeability
    if name in BUILT_IN_SOLVERS:
        return BUILT_IN_SOLVERS[name](mesh, permeability)
    registered = {e.name: e for e in entry_points(group=_SOLVER_GROUP)}
    if name not in registered:
        raise InputError(
            f"there is no Darcy solver {name!r}",
            where="darcy.solver",
            expected=f"one of {', '.join([*BUILT_IN_SOLVERS, *sorted(registered)])}",
            fix="Install the package that registers it, or use conjugate_gradient",
        )
    return _loaded(registered[name])(mesh, permeability)


def _loaded(entry: EntryPoint) -> Callable[..., AbstractDarcySolver]:
    """The function of a registered solver; what it imports may come with an extra."""
    try:
        return entry.load()
    except ImportError as error:
        package = entry.module if entry.dist is None else entry.dist.name
        extra = f"[{','.join(entry.extras)}]" if entry.extras else ""
        raise InputError(
            f"the Darcy solver {entry.name!r} cannot be imported: {error}",
            where="darcy.solver",
            expected=f"all that {entry.module}:{entry.attr} needs",
            fix=f"Install it (pip install {package}{extra}), or use conjugate_gradient",
        ) from error


def _regulated(problem: PerfusionProblem, regulation: Autoregulation) -> PerfusionProblem:
    return eqx.tree_at(lambda p: p.autoregulation, problem, regulation, is_leaf=lambda x: x is None)


def _first_call(problem: PerfusionProblem, solve: Solve) -> float:
    """Seconds of the call that compiles a program.

    A failure here says nothing: the conductances are only a start. The program is compiled all
    the same, and the solves that count come later.
    """
    begin = time.perf_counter()
    jax.block_until_ready(solve(problem, throw=False))
    return time.perf_counter() - begin


def _timed(
    problem: PerfusionProblem, solve: Solve, name: str, took: dict[str, float]
) -> PerfusionSolution:
    begin = time.perf_counter()
    try:
        solution = jax.block_until_ready(solve(problem))
    except SolveError as error:
        raise SolveError(error.result, f"{error.where} This was the flow at {name}.") from error
    took[name] = time.perf_counter() - begin
    return solution
