"""The pieces of the coupled benchmark that belong to no one row: states, programs, witnesses."""

import importlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.coupling import Calibration, PerfusionProblem, PerfusionSolution, solve_perfusion
from jaxperf.observe import fractional_flow_reserve
from jaxperf.units import M3_S_KG_PER_ML_MIN_G, M3_S_PER_ML_MIN

from ._composite import Composite

_TESTS = Path(__file__).resolve().parents[1] / "tests"
# What the gradient is taken with respect to.
ARGUMENTS = ("radius", "beta field", "permeability", "inlet pressure", "lesion")
_STEP = dict.fromkeys(ARGUMENTS, 2e-3) | {"permeability": 2e-2}


def of_problem(problem: PerfusionProblem) -> tuple[Any, ...]:
    """The arrays named in `ARGUMENTS`."""
    return (
        problem.network.radius,
        problem.microcirculation.beta_source,
        problem.microcirculation.permeability,
        problem.boundary[0].pressure,  # pyright: ignore[reportAttributeAccessIssue]
        problem.network.lesion.diameter_reduction,
    )


def witness(name: str) -> Any:
    """A module beside the tests: the SciPy reference, which no package may import."""
    if str(_TESTS) not in sys.path:
        sys.path.insert(0, str(_TESTS))
    return importlib.import_module(name)


@dataclass(frozen=True)
class States:
    """A calibrated case: hyperemia, regulated rest, and rest at the dilation 1."""

    case: Composite
    calibration: Calibration
    hyperemia: PerfusionProblem
    rest: PerfusionProblem
    unregulated: PerfusionProblem


def states_of(case: Composite, calibration: Calibration) -> States:
    """Every state with β as a field, so that one program serves solves and gradients."""
    problem = case.problem

    def with_bed(bed, regulation):
        field = jnp.full_like(problem.tissue.volume, bed.beta_source)
        bed = eqx.tree_at(lambda b: b.beta_source, bed, field)
        return eqx.tree_at(
            lambda p: (p.microcirculation, p.autoregulation),
            problem,
            (bed, regulation),
            is_leaf=lambda x: x is None,
        )

    return States(
        case,
        calibration,
        with_bed(calibration.hyperemia, None),
        with_bed(calibration.rest, calibration.autoregulation),
        with_bed(calibration.rest, None),
    )


def narrowed(problem: PerfusionProblem, reduction: float) -> PerfusionProblem:
    """The problem with another diameter reduction in its lesion."""
    old = problem.network.lesion.diameter_reduction
    new = jnp.full_like(old, reduction)
    return eqx.tree_at(lambda p: p.network.lesion.diameter_reduction, problem, new)


def compiled(function, *arguments) -> tuple[Any, float]:
    """A compiled program, and the seconds that tracing, lowering and compiling took."""
    start = time.perf_counter()
    program = eqx.filter_jit(function).lower(*arguments).compile()
    return program, time.perf_counter() - start


def forward(problem: PerfusionProblem) -> PerfusionSolution:
    return solve_perfusion(problem, throw=False)


def functional(arguments, problem: PerfusionProblem):
    """Mean square blood flow of the wall, in (ml/min/g)²."""
    return mean_square(forward(eqx.tree_at(of_problem, problem, arguments)))


def mean_square(solution: PerfusionSolution):
    return jnp.mean((solution.mbf / M3_S_KG_PER_ML_MIN_G) ** 2)


def value_and_gradient(arguments, problem: PerfusionProblem):
    return jax.value_and_grad(functional)(arguments, problem)


def lad_flow(case: Composite, solution: PerfusionSolution) -> float:
    """Mean blood flow of the LAD territory, ml/min/g."""
    lad = case.terminal_territory == 0
    tissue = case.problem.tissue
    mass = float(tissue.density) * np.asarray(tissue.terminal_volume)[lad].sum()
    return float(np.asarray(solution.terminal_flow)[lad].sum() / mass / M3_S_KG_PER_ML_MIN_G)


def mean_flow(case: Composite, solution: PerfusionSolution) -> float:
    """Mean blood flow of the wall, ml/min/g."""
    tissue = case.problem.tissue
    mass = float(tissue.density) * float(jnp.sum(tissue.volume))
    return float(jnp.sum(solution.terminal_flow)) / mass / M3_S_KG_PER_ML_MIN_G


def lesion_ffr(case: Composite, solution: PerfusionSolution) -> float:
    """Static pressure at the lesion's distal end over the aortic pressure."""
    pressure = case.problem.boundary[0].pressure[0]  # pyright: ignore[reportAttributeAccessIssue]
    distal = solution.pressure_static[case.lesion_segment[-1], 1]
    return float(fractional_flow_reserve(distal, pressure))


def lesion_flow(case: Composite, solution: PerfusionSolution) -> float:
    """Flow through the lesion, ml/min."""
    return float(solution.flow[case.lesion_segment[0]]) / M3_S_PER_ML_MIN


def single_precision(problem: PerfusionProblem) -> PerfusionProblem:
    """The problem with every floating-point array in float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, problem)


def difference_error(
    gradient, solve, problem: PerfusionProblem, rng: np.random.Generator
) -> dict[str, float]:
    """A gradient against sixth-order differences, one random direction for each argument.

    Relative to Σ|∂f/∂θ||δθ|: a flow that is held hardly changes along any direction as a whole.
    `_STEP` balances truncation, which the steep law of autoregulation makes large, against the
    solve's round-off over h, which counts most where the flow hardly feels the argument.
    """
    arguments = of_problem(problem)
    errors = {}
    for k, name in enumerate(ARGUMENTS):
        at, h = arguments[k], _STEP[name]
        direction = at * jnp.asarray(rng.uniform(0.5, 1.5, at.shape))
        value = {}
        for m in (-3, -2, -1, 1, 2, 3):
            moved = (*arguments[:k], at + m * h * direction, *arguments[k + 1 :])
            value[m] = float(mean_square(solve(eqx.tree_at(of_problem, problem, moved))))
        odd = [value[m] - value[-m] for m in (1, 2, 3)]
        measured = (45 * odd[0] - 9 * odd[1] + odd[2]) / (60 * h)
        size = float(jnp.vdot(jnp.abs(gradient[k]), jnp.abs(direction)))
        errors[name] = abs(float(jnp.vdot(gradient[k], direction)) - measured) / size
    return errors
