"""Calibration, rest and hyperemia of a prepared case."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points, EntryPoint

import equinox as eqx
import jax
import jax.numpy as jnp

from .._misc import InputError
from .._results import SolveError
from .._units import M3_S_KG_PER_ML_MIN_G
from ..coupling import (
    Autoregulation,
    calibrate,
    Calibration,
    PerfusionProblem,
    PerfusionSolution,
    solve_perfusion,
)
from ..darcy import AbstractDarcySolver, ConjugateGradient, multigrid
from ._prepare import Prepared
from ._progress import Progress

DEFAULT_HYPEREMIA_FACTOR = 3.75
_SOLVER_GROUP = "jaxperf.darcy_solvers"


@dataclass(frozen=True)
class Solved:
    """Rest and hyperemia of a case, and the wall-clock seconds of compilation and solves."""

    calibration: Calibration
    rest: PerfusionSolution
    hyperemia: PerfusionSolution
    seconds_compile: float
    seconds_solve: float


def solve_case(prepared: Prepared, progress: Progress) -> Solved:
    """Calibrate in the lesion-free heart, then solve rest and hyperemia with the lesions.

    Rest regulates itself where the case says so; hyperemia takes the calibrated dilation. Two
    programs are compiled, with and without autoregulation; the second also serves the
    calibration.

    **Errors:** [`SolveError`][] where a solve fails.
    """
    case, problem = prepared.case, prepared.problem
    bed, regulation = case.microcirculation, case.autoregulation
    method = darcy_method(case.darcy.solver, problem)
    factor = bed.hyperemia_factor
    if factor is None and bed.mbf_hyperemia_ml_min_g is None:
        factor = DEFAULT_HYPEREMIA_FACTOR
    with progress.stage("compile"):
        first = {"hyperemia": _first_call(problem, method)}
        if regulation.enabled:
            target = bed.mbf_rest_ml_min_g * M3_S_KG_PER_ML_MIN_G * problem.tissue.density
            held = Autoregulation(
                target * problem.tissue.terminal_volume, factor or 4.0, regulation.dilation_min
            )
            first["rest"] = _first_call(_regulated(problem, held), method)
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
                rtol=case.solver.calibration_rtol,
                method=method,
                report=progress.tell,
            )
        except SolveError as error:
            raise SolveError(error.result, f"{error.where} This was the calibration.") from error
    with progress.stage("rest"):
        at_rest = eqx.tree_at(lambda p: p.microcirculation, problem, found.rest)
        if regulation.enabled:
            held = eqx.tree_at(
                lambda a: a.dilation_min,
                found.autoregulation,
                jnp.asarray(regulation.dilation_min, found.autoregulation.dilation_min.dtype),
            )
            at_rest = _regulated(at_rest, held)
        rest = _timed(at_rest, method, "rest", took)
    with progress.stage("hyperemia"):
        stressed = eqx.tree_at(lambda p: p.microcirculation, problem, found.hyperemia)
        hyperemia = _timed(stressed, method, "hyperemia", took)
    total = time.perf_counter() - begin
    # a first call also solves once, which takes about as long as the solve of the same program
    compiling = sum(max(first[name] - took[name], 0.0) for name in first)
    return Solved(found, rest, hyperemia, compiling, total)


def darcy_method(name: str, problem: PerfusionProblem) -> AbstractDarcySolver:
    """The Darcy solver of a name: a built-in one, or one that a package registers as a function
    of the mesh and the permeability."""
    mesh, permeability = problem.tissue.mesh, problem.microcirculation.permeability
    built_in = {
        "conjugate_gradient": lambda mesh, permeability: ConjugateGradient(),
        "multigrid": multigrid,
    }
    if name in built_in:
        return built_in[name](mesh, permeability)
    registered = {e.name: e for e in entry_points(group=_SOLVER_GROUP)}
    if name not in registered:
        raise InputError(
            f"there is no Darcy solver {name!r}",
            where="darcy.solver",
            expected=f"one of {', '.join([*built_in, *sorted(registered)])}",
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


def _first_call(problem: PerfusionProblem, method: AbstractDarcySolver) -> float:
    """Seconds of the call that compiles a program.

    A failure here says nothing: the conductances are only a start. The program is compiled all
    the same, and the solves that count come later.
    """
    begin = time.perf_counter()
    jax.block_until_ready(solve_perfusion(problem, method, throw=False))
    return time.perf_counter() - begin


def _timed(
    problem: PerfusionProblem, method: AbstractDarcySolver, name: str, took: dict[str, float]
) -> PerfusionSolution:
    begin = time.perf_counter()
    try:
        solution = jax.block_until_ready(solve_perfusion(problem, method))
    except SolveError as error:
        raise SolveError(error.result, f"{error.where} This was the flow at {name}.") from error
    took[name] = time.perf_counter() - begin
    return solution
