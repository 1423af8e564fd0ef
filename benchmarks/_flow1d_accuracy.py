"""Accuracy of transient flow against series of other solvers, and the time it takes."""

import time
from pathlib import Path

import jax
import numpy as np

from jaxperf.flow1d import (
    Flow1DProblem,
    initial_state,
    SavePoints,
    solve_flow1d,
    solve_periodic,
)

from . import _flow1d_cases as cases
from ._flow1d_implicit import backward_euler
from ._report import Report, seconds

_BOILEAU_SAMPLES = 1100  # every ms, as the series
_LEFT_SAMPLES, _LEFT_CYCLES = 100, 3
_KNOT = 0.05  # s, between the knots of the inlet's and the intramyocardial tables
_REFERENCE_STEP = 1e-3  # s, of the svOneDSolver run
WORST = "left coronary against svOneDSolver, the segments that differ most, %"


def root_mean_square(x: np.ndarray, axis=None) -> np.ndarray:
    return np.sqrt(np.mean(x**2, axis=axis))


# ---------------------------------------------------------------- Boileau et al.


def measure_boileau(report: Report, data: Path, which: str, log) -> None:
    """The periodic state against the last cycle of the finite-volume series."""
    case = cases.boileau_case(data, which)
    problem = cases.boileau_problem(case)
    series = case.finite_volume
    points = SavePoints([s.segment for s in series.values()], [s.fraction for s in series.values()])
    found = solve_periodic(problem, points=points, samples=_BOILEAU_SAMPLES, tolerance=1e-8)
    errors, phase = {}, np.concatenate([[0.0], np.asarray(found.time)])
    closed = lambda x: np.concatenate([x[-1:], x])
    for i, (name, reference) in enumerate(series.items()):
        last = reference.time > reference.time[-1] - case.period + 1e-9
        at = np.mod(reference.time[last], case.period)
        pressure = np.interp(at, phase, closed(np.asarray(found.pressure_static)[:, i]))
        flow = np.interp(at, phase, closed(np.asarray(found.flow)[:, i]))
        p, q = reference.pressure[last], reference.flow[last]
        errors[name] = (
            float(root_mean_square(pressure / p - 1.0)),
            float(root_mean_square(flow - q) / np.max(np.abs(q))),
        )
    told = (
        f"finite volumes of Boileau et al. 2015, {len(series)} places, {problem.grid.n_cells} cells"
    )
    for k, name in enumerate(("P_rms", "Q_rms")):
        worst = 100.0 * max(e[k] for e in errors.values())
        report.add(f"flow1d.{which}.{name}", worst, "%", reference=told, error=worst / 100.0)
    report.tables.setdefault("Boileau et al. against finite volumes, %", []).extend(
        {"case": which, "place": name, "P_rms": 100 * p, "Q_rms": 100 * q}
        for name, (p, q) in errors.items()
    )
    log(f"{which}: " + ", ".join(f"{n} P {p:.3%} Q {q:.3%}" for n, (p, q) in errors.items()))


# ---------------------------------------------------------------- the left coronary


class _Left:
    """Series at the reference's points, (segment, place, time) in Pa and m³/s."""

    def __init__(self, pressure, flow, shape):
        last = lambda x: np.asarray(x)[-_LEFT_SAMPLES:].T.reshape(*shape, _LEFT_SAMPLES)
        self.pressure, self.flow = last(pressure), last(flow)


def measure_left_coronary(report: Report, data: Path, *, quick: bool, log) -> None:
    """Errors, grid error, compile and run time of the left coronary case."""
    reference = dict(np.load(data / cases.LEFT_REFERENCE))
    case, problem = cases.left_coronary(data)
    index = {name: i for i, name in enumerate(case.segment_name)}
    segment = np.array([index[str(name)] for name in reference["segment"]])
    shape = (len(segment), len(reference["node_fraction"]))
    points = SavePoints(np.repeat(segment, shape[1]), np.tile(reference["node_fraction"], shape[0]))
    found, first = _last_cycle(problem, points)
    ours = _Left(found.pressure_static, found.flow, shape)
    settled = solve_periodic(problem, points=points, samples=_LEFT_SAMPLES)
    _, fine = cases.left_coronary(data, 0.5 * cases.CELL_TIME)
    found, _ = _last_cycle(fine, points)
    finer = _Left(found.pressure_static, found.flow, shape)
    errors = _against_svoned(
        report, reference, ours, _Left(settled.pressure_static, settled.flow, shape)
    )
    _grid_error(report, ours, finer, problem)
    _left_seconds(report, problem, points, first, errors)
    if not quick:
        _at_reference_step(report, problem, points, shape, reference, log)
    log(
        f"left coronary: P worst {errors['P_worst']:.3%}, Q median {errors['Q_median']:.3%}, "
        f"worst {errors['Q_worst']:.3%}"
    )


def _against_svoned(report: Report, reference, ours: _Left, settled: _Left) -> dict[str, float]:
    """Off the knots of the tables; the same on all times, and for the periodic state, beside."""
    time_ = reference["time_s"][1:]
    p, q, off = _reference_series(reference)
    found = _errors(ours, p, q, off)
    everywhere = _errors(ours, p, q, np.ones_like(off))
    periodic = _errors(settled, p, q, off)
    told = (
        f"svOneDSolver, third cycle, interior nodes, {off.sum()} of {off.size} times: not those "
        "within its step of a knot of the tables"
    )
    add = lambda name, key: report.add(
        f"flow1d.left_coronary.{name}",
        100 * found[key],
        "%",
        reference=f"{told}; at all times {everywhere[key]:.3%}, periodic state {periodic[key]:.3%}",
        error=found[key],
    )
    add("P_rms_worst", "P_worst")
    add("P_rms_median", "P_median")
    add("Q_rms_median", "Q_median")
    add("Q_rms_worst", "Q_worst")
    add("Q_mean_worst", "Q_mean")
    by_segment, at_time = found["Q_by_segment"], found["Q_time"]
    order = np.argsort(by_segment)[::-1][:8]
    report.tables[WORST] = [
        {
            "segment": str(reference["segment"][s]),
            "Q_rms": 100 * float(by_segment[s]),
            "P_rms": 100 * float(found["P_by_segment"][s]),
            "Q_mean": 100 * float(found["Q_mean_by_segment"][s]),
            "Q_max_ml_s": 1e6 * float(np.max(np.abs(q[s]))),
            "largest_at_s": ", ".join(
                f"{time_[off][k]:.2f}" for k in np.argsort(at_time[s])[::-1][:4]
            ),
        }
        for s in order
    ]
    return found


def _reference_series(reference):
    """Pressure (Pa), flow (m³/s), and which times lie off the knots of the tables."""
    time_ = reference["time_s"][1:]
    off = np.abs(time_ / _KNOT - np.round(time_ / _KNOT)) * _KNOT > 1.5 * _REFERENCE_STEP
    p, q = (np.asarray(reference[k], np.float64)[:, :, 1:] for k in ("pressure", "flow"))
    return 0.1 * p, 1e-6 * q, off


def _errors(ours: _Left, p, q, chosen) -> dict:
    pressure = root_mean_square((ours.pressure / p - 1.0)[:, :, chosen], (1, 2))
    apart = (ours.flow - q)[:, :, chosen]
    flow = root_mean_square(apart, (1, 2)) / np.max(np.abs(q), (1, 2))
    mean = np.abs((ours.flow.mean(2) - q.mean(2)).mean(1) / q.mean((1, 2)))
    return {
        "P_worst": float(pressure.max()),
        "P_median": float(np.median(pressure)),
        "Q_worst": float(flow.max()),
        "Q_median": float(np.median(flow)),
        "Q_mean": float(mean.max()),
        "P_by_segment": pressure,
        "Q_by_segment": flow,
        "Q_mean_by_segment": mean,
        "Q_time": root_mean_square(apart, 1),
    }


def _grid_error(report: Report, ours: _Left, finer: _Left, problem: Flow1DProblem) -> None:
    pressure = root_mean_square(ours.pressure / finer.pressure - 1.0, (1, 2))
    flow = root_mean_square(ours.flow - finer.flow, (1, 2)) / np.max(np.abs(finer.flow), (1, 2))
    told = f"{problem.grid.n_cells} cells against a grid twice as fine; median {{:.3%}}"
    for name, error in (("P", pressure), ("Q", flow)):
        report.add(
            f"flow1d.left_coronary.grid_error_{name}",
            100 * float(error.max()),
            "%",
            reference=told.format(float(np.median(error))),
            error=float(error.max()),
        )


def _at_reference_step(report: Report, problem, points, shape, reference, log) -> None:
    """The same equations under the reference's own step: what is left is not its step's error."""
    pressure, flow = backward_euler(problem, points, step=_REFERENCE_STEP, cycles=_LEFT_CYCLES)
    every = round(float(problem.period) / _LEFT_SAMPLES / _REFERENCE_STEP)
    thinned = _Left(
        np.asarray(pressure)[every - 1 :: every], np.asarray(flow)[every - 1 :: every], shape
    )
    p, q, off = _reference_series(reference)
    found = _errors(thinned, p, q, off)
    told = f"our grid under backward Euler steps of {1e3 * _REFERENCE_STEP:g} ms, svOneDSolver's"
    for name, key in (
        ("P_rms_worst", "P_worst"),
        ("Q_rms_median", "Q_median"),
        ("Q_rms_worst", "Q_worst"),
    ):
        report.add(
            f"flow1d.left_coronary.{name}_at_reference_step",
            100 * found[key],
            "%",
            reference=told,
            error=found[key],
        )
    log(f"left coronary, {told}: Q worst {found['Q_worst']:.3%}, P worst {found['P_worst']:.3%}")


def _last_cycle(problem: Flow1DProblem, points: SavePoints):
    """The third cycle from the steady state, and the seconds of the first, with compilation."""
    state, spent = initial_state(problem), []
    for _ in range(_LEFT_CYCLES):
        start = time.perf_counter()
        found = jax.block_until_ready(
            solve_flow1d(problem, points=points, samples=_LEFT_SAMPLES, initial=state)
        )
        state = found.state
        spent.append(time.perf_counter() - start)
    return found, spent[0] - spent[1]


def _left_seconds(report: Report, problem: Flow1DProblem, points, compile_seconds, errors) -> None:
    """Two cycles of 1 s from the steady state, compiled before; and what compiling took."""
    initial = initial_state(problem)

    def run():
        first = solve_flow1d(problem, points=points, samples=_LEFT_SAMPLES, initial=initial)
        return solve_flow1d(problem, points=points, samples=_LEFT_SAMPLES, initial=first.state)

    taken, n = seconds(run, repeat=5), 2 * steps_per_cycle(problem)
    spent, _ = processor_seconds(run)
    told = f"2 s simulated, {problem.grid.n_cells} cells, {n} steps; processor time {spent:.2f} s"
    error = errors["Q_median"]
    report.add("flow1d.left_coronary.seconds", taken, "s", reference=told, error=error)
    report.add("flow1d.left_coronary.compile_seconds", compile_seconds, "s")
    report.add("flow1d.left_coronary.step_us", 1e6 * taken / n, "µs", error=error)


def steps_per_cycle(problem: Flow1DProblem, samples: int = 100) -> int:
    """Equal steps in a cycle of so many samples."""
    return samples * -(-problem.n_steps // samples)


def processor_seconds(run) -> tuple[float, float]:
    """Processor time and wall time of one call: on a busy machine the wall shows the others."""
    before, start = time.process_time(), time.perf_counter()
    jax.block_until_ready(run())
    return time.process_time() - before, time.perf_counter() - start


def plain_cycling(
    problem: Flow1DProblem, points: SavePoints, *, tolerance: float, max_cycles: int
) -> tuple[int, float, float]:
    """Cycles one after another until the state repeats itself: (cycles, change, seconds).

    The change is measured as `solve_periodic` does: of pressure against the largest pressure, of
    flow and area against the largest ones.
    """
    state, change = initial_state(problem), np.inf
    start, cycles = time.perf_counter(), 0
    while change > tolerance and cycles < max_cycles:
        after = solve_flow1d(problem, points=points, n_cycles=1, initial=state).state
        change, state, cycles = state_change(state, after), after, cycles + 1
    return cycles, change, time.perf_counter() - start


def state_change(before, after) -> float:
    """The largest change between two states, relative."""
    apart = lambda a, b: float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0.0))
    size = lambda a: float(np.max(np.abs(np.asarray(a)), initial=1e-300))
    found = [
        apart(before.area, after.area) / size(before.area),
        apart(before.flow, after.flow) / size(before.flow),
    ]
    pressure = max(size(x) for x in before.outlet)
    found += [apart(a, b) / pressure for a, b in zip(before.outlet, after.outlet, strict=True)]
    return max(found)
