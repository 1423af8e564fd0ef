"""The coupled solve on the composite case with a forest: `python -m benchmarks coupled`."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jaxperf.coupling import calibrate

from . import _measure as measure
from ._composite import AORTIC_MMHG, Composite, composite_case, reference_data
from ._report import Report, seconds, seconds_of_both

LESIONS = (0.0, 0.4, 0.6, 0.7, 0.8, 0.9)
REST, STRESS = 1.0, 3.5  # ml/min/g
_WITNESS = "SciPy sparse Newton of tests/scipy_reference.py"
_TABLE = "LAD lesion, 7 to 17 mm from the left main"


@dataclass(frozen=True)
class CoupledReport:
    """The rows, and the figure that belongs to them."""

    report: Report

    def draw(self, path: Path) -> None:
        """Pressure, flow and reserve against the lesion, with and without autoregulation."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        lines = self.report.tables[_TABLE]
        column = lambda name: [line[name] for line in lines]
        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.8))
        x = column("lesion_percent")
        left.plot(x, column("ffr"), "o-", color="tab:red")
        left.axhline(0.8, color="0.6", lw=0.8)
        left.set_ylabel("FFR behind the lesion")
        middle.plot(x, column("mbf_hyperemia"), "o-", color="tab:red", label="hyperemia")
        middle.plot(x, column("mbf_rest"), "o-", color="tab:blue", label="rest, regulated")
        middle.plot(x, column("mbf_rest_unregulated"), "o--", color="tab:blue", label="rest, not")
        middle.set_ylabel("blood flow of the LAD territory, ml/min/g")
        middle.legend(loc=(0.03, 0.45))
        right.plot(x, column("cfr"), "o-", color="tab:green", label="regulated")
        right.plot(x, column("cfr_unregulated"), "o--", color="tab:green", label="not regulated")
        right.set_ylabel("flow reserve of the LAD territory")
        right.legend()
        for axis in (left, middle, right):
            axis.set_xlabel("lesion, % of the diameter")
            axis.set_ylim(bottom=0)
        figure.suptitle("Composite case (two subjects), synthetic forest and right coronary")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def coupled(data: Path, *, quick: bool, log: Callable[[str], None]) -> CoupledReport:
    """Measure every row of the coupled solve.

    **Errors:** `MissingData` without the reference data.
    """
    data = reference_data(data)
    n_terminals, coarsen = (1200, 2) if quick else (6000, 1)
    case = composite_case(data, n_terminals=n_terminals, coarsen=coarsen)
    right = "right coronary synthetic"
    report = Report("coupled", quick, f"composite case, {case.description}; {right}")
    log(report.sample)
    states = _calibrated(case, log)
    programs = _programs(report, states, log)
    balance = _lesions(report, states, programs, log)
    _against_scipy(report, states, programs, log)
    _gradients(report, states, programs, log)
    _single_precision(report, states, programs, log)
    balance.append(_tetrahedra(report, data, n_terminals, log))
    report.add("coupled.mass_balance", max(balance), "1", error=max(balance))
    _small(report, data, coarsen, log)
    return CoupledReport(report)


def _calibrated(case: Composite, log) -> measure.States:
    start = time.perf_counter()
    found = calibrate(case.problem, mbf_rest_ml_min_g=REST, mbf_hyperemia_ml_min_g=STRESS)
    spent = time.perf_counter() - start
    log(f"calibrated in {found.solves} solves, {spent:.1f} s; factor {found.hyperemia_factor:.3f}")
    return measure.states_of(case, found)


@dataclass(frozen=True)
class _Programs:
    """Compiled solves without and with autoregulation."""

    given: Callable
    regulated: Callable


def _programs(report: Report, states: measure.States, log) -> _Programs:
    given, first = measure.compiled(measure.forward, states.hyperemia)
    regulated, second = measure.compiled(measure.forward, states.rest)
    report.add("coupled.compile_forward", first, "s")
    report.add("coupled.compile_forward_regulated", second, "s")
    log(f"compiled in {first:.1f} s and, with autoregulation, {second:.1f} s")
    return _Programs(given, regulated)


def _lesions(report: Report, states: measure.States, programs: _Programs, log) -> list[float]:
    """The table against the lesion, its rows, and every mass balance met."""
    case, lines, balance, steps = states.case, [], [], []
    for reduction in LESIONS:
        high = programs.given(measure.narrowed(states.hyperemia, reduction))
        rest = programs.regulated(measure.narrowed(states.rest, reduction))
        bare = programs.given(measure.narrowed(states.unregulated, reduction))
        solutions = (high, rest, bare)
        for solution in solutions:
            _refuse_failure(solution, reduction)
        balance += [float(s.mass_balance_relative_error) for s in solutions]
        steps.append(int(high.newton_iterations))
        flow = [measure.lad_flow(case, s) for s in solutions]
        lines.append(
            {
                "lesion_percent": 100 * reduction,
                "ffr": measure.lesion_ffr(case, high),
                "flow_hyperemia_ml_min": measure.lesion_flow(case, high),
                "mbf_hyperemia": flow[0],
                "mbf_rest": flow[1],
                "mbf_rest_unregulated": flow[2],
                "cfr": flow[0] / flow[1],
                "cfr_unregulated": flow[0] / flow[2],
                "newton": "/".join(str(int(s.newton_iterations)) for s in solutions),
                "krylov": "/".join(str(int(s.linear_iterations)) for s in solutions),
            }
        )
        log(f"lesion {reduction:.0%}: FFR {lines[-1]['ffr']:.3f}, CFR {lines[-1]['cfr']:.2f}")
        if reduction == 0.0:
            reached = measure.mean_flow(case, rest)
            report.add("coupled.rest_mean", reached, "ml/min/g", error=abs(reached / REST - 1))
            reached = measure.mean_flow(case, high)
            report.add(
                "coupled.hyperemia_mean", reached, "ml/min/g", error=abs(reached / STRESS - 1)
            )
    report.tables[_TABLE] = lines
    report.add("coupled.newton_iterations", max(steps), "steps")
    for line in lines:
        percent = f"{line['lesion_percent']:.0f}"
        report.add(f"coupled.ffr.{percent}", line["ffr"], "1")
        report.add(f"coupled.cfr.{percent}", line["cfr"], "1")
    # Below zero: the reserve falls with every step of the lesion.
    rises = np.diff([line["cfr"] for line in lines])
    report.add("coupled.cfr_largest_rise", float(rises.max()), "1")
    behind = lines[LESIONS.index(0.7)]["mbf_rest"] / lines[0]["mbf_rest"]
    report.add("coupled.rest_flow_behind_70", behind, "1", error=abs(behind - 1))
    _times(report, states, programs)
    return balance


def _refuse_failure(solution, reduction: float) -> None:
    if not bool(jnp.isfinite(solution.residual)) or float(solution.residual) > 1e-9:
        raise ArithmeticError(f"no solution at {reduction:.0%}: residual {solution.residual:.1e}")


def _times(report: Report, states: measure.States, programs: _Programs) -> None:
    for name, program, problem in (
        ("hyperemia", programs.given, states.hyperemia),
        ("rest_regulated", programs.regulated, states.rest),
    ):
        problem = measure.narrowed(problem, 0.7)
        taken = seconds(lambda run=program, p=problem: run(p), repeat=3)
        solution = program(problem)
        balance = float(solution.mass_balance_relative_error)
        report.add(f"coupled.seconds_{name}", taken, "s", error=balance)
        each = int(solution.linear_iterations) / int(solution.newton_iterations)
        report.add(f"coupled.krylov_per_newton_{name}", each, "iterations")


def _against_scipy(report: Report, states: measure.States, programs: _Programs, log) -> None:
    """The same raw arrays solved by SciPy: monolithic, and by the published fixed point."""
    cases, reference = measure.witness("coupled_cases"), measure.witness("scipy_reference")
    worst, ratio, mesh = {}, 0.0, states.case.mesh
    for name, program, problem in (
        ("hyperemia", programs.given, states.hyperemia),
        ("rest", programs.regulated, states.rest),
    ):
        problem = measure.narrowed(problem, 0.7)
        raw = cases.raw_case(problem, mesh)
        start = time.perf_counter()
        other = reference.solve(raw)
        spent = time.perf_counter() - start
        solution = program(problem)
        for key, value in cases.relative_differences(solution, other).items():
            worst[f"{key}, {name}"] = value
        if name == "hyperemia":
            ratio = spent / seconds(lambda run=program, p=problem: run(p), repeat=1)
        log(f"SciPy, {name}: {spent:.1f} s, {other.steps} steps")
    largest = max(worst.values())
    report.add("coupled.vs_scipy", largest, "1", reference=_WITNESS, ratio=ratio, error=largest)
    report.tables["against SciPy, max|a-b|/max|b|"] = [
        {"field": key, "difference": value} for key, value in worst.items()
    ]
    problem = measure.narrowed(states.hyperemia, 0.7)
    raw = cases.raw_case(problem, mesh)
    start = time.perf_counter()
    other, changes = reference.fixed_point(raw, tolerance=1e-6)
    spent = time.perf_counter() - start
    difference = max(cases.relative_differences(programs.given(problem), other).values())
    log(f"fixed point: {len(changes)} passes, {spent:.1f} s, differs by {difference:.1e}")
    report.add(
        "coupled.fixed_point",
        difference,
        "1",
        reference="R = p/q to 1e-6 (Papamanolis 2021) in tests/scipy_reference.py",
        ratio=spent / seconds(lambda: programs.given(problem), repeat=1),
        error=difference,
    )
    report.add("coupled.fixed_point_passes", len(changes), "passes")


def _gradients(report: Report, states: measure.States, programs: _Programs, log) -> None:
    rng, errors = np.random.default_rng(0), {}
    for name, problem, solve in (
        ("hyperemia", states.hyperemia, programs.given),
        ("rest_regulated", states.rest, programs.regulated),
    ):
        problem = measure.narrowed(problem, 0.7)
        arguments = measure.of_problem(problem)
        program, spent = measure.compiled(measure.value_and_gradient, arguments, problem)
        report.add(f"coupled.compile_gradient_{name}", spent, "s")
        _, both, ratio = seconds_of_both(
            lambda run=solve, p=problem: run(p),
            lambda run=program, a=arguments, p=problem: run(a, p),
            repeat=5,
        )
        ratio_id = "coupled.gradient_ratio" + ("" if name == "hyperemia" else "_regulated")
        report.add(ratio_id, ratio, "1")
        report.add(f"coupled.seconds_gradient_{name}", both, "s")
        gradient = program(arguments, problem)[1]
        found = measure.difference_error(gradient, solve, problem, rng)
        errors |= {f"{key}, {name}": value for key, value in found.items()}
        log(f"gradient, {name}: {both:.2f} s, ratio {ratio:.2f}, {max(found.values()):.1e}")
    dense = measure.witness("gradient_cases").dense_gradient_errors()
    report.tables["gradient against differences, relative"] = [
        {"argument": key, "error": value} for key, value in errors.items()
    ]
    report.tables["gradient of a small case against the dense unrolled solve, relative"] = [
        {"argument": key, "error": value} for key, value in dense.items()
    ]
    report.add("coupled.gradient_error_differences", max(errors.values()), "1")
    report.add("coupled.gradient_error_dense", max(dense.values()), "1")
    largest = max(*errors.values(), *dense.values())
    report.add(
        "coupled.gradient_error",
        largest,
        "1",
        reference="sixth-order differences here; dense unrolled Newton on a small case",
        error=largest,
    )


def _single_precision(report: Report, states: measure.States, programs: _Programs, log) -> None:
    """Every array in float32, against the same solve in float64."""
    problem = measure.narrowed(states.hyperemia, 0.7)
    exact = programs.given(problem)
    program, _ = measure.compiled(measure.forward, measure.single_precision(problem))
    rough = program(measure.single_precision(problem))
    assert rough.mbf.dtype == jnp.float32
    errors = {}
    for name in ("pressure_total", "flow", "pressure_tissue", "terminal_flow", "mbf"):
        a, b = np.asarray(getattr(rough, name), np.float64), np.asarray(getattr(exact, name))
        errors[name] = float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
    report.tables["float32 against float64, max|a-b|/max|b|"] = [
        {"field": key, "difference": value} for key, value in errors.items()
    ]
    balance = float(rough.mass_balance_relative_error)
    largest = max(errors.values())
    report.add("coupled.float32_error", largest, "1", reference="the float64 solve", error=largest)
    report.add("coupled.float32_mass_balance", balance, "1")
    log(f"float32: {largest:.1e}, {int(rough.newton_iterations)} Newton steps")


def _tetrahedra(report: Report, data: Path, n_terminals: int, log) -> float:
    """The same forest on the tetrahedral wall; its largest mass balance."""
    case = composite_case(data, n_terminals=n_terminals, tetrahedra=True)
    log(case.description)
    states = _calibrated(case, log)
    balance, steps, taken = [], [], 0.0
    for problem in (states.hyperemia, states.rest):
        program, _ = measure.compiled(measure.forward, problem)
        for reduction in (0.0, 0.7, 0.9):
            solution = program(measure.narrowed(problem, reduction))
            _refuse_failure(solution, reduction)
            balance.append(float(solution.mass_balance_relative_error))
            steps.append(int(solution.newton_iterations))
        if problem is states.hyperemia:
            problem = measure.narrowed(problem, 0.7)
            taken = seconds(lambda run=program, p=problem: run(p), repeat=3)
    report.add("coupled.tetrahedra.mass_balance", max(balance), "1", error=max(balance))
    report.add("coupled.tetrahedra.newton_iterations", max(steps), "steps")
    report.add("coupled.tetrahedra.seconds_hyperemia", taken, "s", error=max(balance))
    return max(balance)


def _small(report: Report, data: Path, coarsen: int, log) -> None:
    """The segmented (and synthetic right) outlets as the only terminals."""
    case = composite_case(data, n_terminals=0, coarsen=coarsen)
    log(f"small: {case.description}, {AORTIC_MMHG:.0f} mmHg")
    states = _calibrated(case, log)
    problem = measure.narrowed(states.hyperemia, 0.7)
    program, _ = measure.compiled(measure.forward, problem)
    solution = program(problem)
    _refuse_failure(solution, 0.7)
    balance = float(solution.mass_balance_relative_error)
    taken = seconds(lambda: program(problem), repeat=3)
    report.add("coupled.small.mass_balance", balance, "1", error=balance)
    report.add("coupled.small.newton_iterations", int(solution.newton_iterations), "steps")
    report.add("coupled.small.seconds_hyperemia", taken, "s", error=balance)
    report.add("coupled.small.ffr_70", measure.lesion_ffr(case, solution), "1")
