"""The 77 vessels of adan56: speed, the coarsest grid of equal accuracy, limits, periodic state.

Run as a process of its own it times a step on one core.
"""

import json
import statistics
import sys
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.flow1d import (
    Flow1DProblem,
    FlowState,
    initial_state,
    RelaxedHeun,
    SavePoints,
    Semidiscretisation,
    semidiscretise,
    solve_flow1d,
    solve_periodic,
)

from ._flow1d_accuracy import (
    plain_cycling,
    processor_seconds,
    root_mean_square,
    steps_per_cycle,
)
from ._flow1d_cases import adan56
from ._flow1d_limits import bind_to_one_core, measured_limits, on_one_core, work_of_step
from ._report import add_peak_memory, Report, seconds

CELLS = 9241  # of the one differentiable peer, jaxFlowSim, in its published run
_FIRST_CELL_TIME = 2e-4
_STEPS, _TRIES = 2000, 9
_ACCURACY = 0.01
_GRIDS, _QUICK_GRIDS = (16e-4, 8e-4, 4e-4, 2e-4), (16e-4, 8e-4)
_FINE, _QUICK_FINE = 1e-4, 4e-4
_TOLERANCE, _PLAIN_CYCLES, _QUICK_PLAIN_CYCLES = 1e-6, 100, 30


def measure_adan(report: Report, data: Path, *, quick: bool, log) -> None:
    """Every row of the network."""
    _step(report, data, log)
    coarse = _coarsest(report, data, quick, log)
    _periodic(report, coarse, quick, log)
    add_peak_memory(report, "flow1d.adan56.peak_memory")


def sized(data: Path, cells: int) -> Flow1DProblem:
    """The problem on a grid of about so many cells."""
    cell_time = _FIRST_CELL_TIME
    for _ in range(6):
        found = adan56(data, cell_time).grid.n_cells
        if abs(found / cells - 1.0) < 0.005:
            break
        cell_time *= found / cells
    return adan56(data, cell_time)


# ---------------------------------------------------------------- a step and its limits


@eqx.filter_jit
def some_steps(equations: Semidiscretisation, y: FlowState, step, n: int) -> FlowState:
    """Equal steps as `solve_flow1d` takes them."""

    def body(i, y):
        return one_step(equations, y, i.astype(step.dtype) * step, step)

    return jax.lax.fori_loop(0, n, body, y)


def one_step(equations: Semidiscretisation, y: FlowState, start, step) -> FlowState:
    solver, term = RelaxedHeun(equations.relaxation), diffrax.ODETerm(equations)
    return solver.step(term, start, start + step, y, None, None, False)[0]


def _step(report: Report, data: Path, log) -> None:
    """Of one thread, beside what XLA makes of all of them."""
    alone = on_one_core("benchmarks._flow1d_adan", str(data.resolve()))
    problem = sized(data, CELLS)
    together = _timed_steps(problem)
    equations, y = semidiscretise(problem), initial_state(problem)
    step, zero = jnp.asarray(problem.time_step), jnp.zeros(())
    limits = measured_limits()
    work = work_of_step(lambda e, y: one_step(e, y, zero, step), equations, y)
    arithmetic, cache = work.arithmetic_seconds(limits), work.bytes / limits.cache
    cells, error = problem.grid.n_cells, max(alone["volume_error"], together["volume_error"])
    told = (
        f"{cells} cells, {problem.grid.n_vessels} vessels, {_STEPS} steps, one thread, fastest "
        f"{1e6 * alone['fastest']:.0f}; XLA with all threads {1e6 * together['median']:.0f}, "
        f"processor time {1e6 * together['processor']:.0f}"
    )
    report.add("flow1d.adan56.step_us", 1e6 * alone["median"], "µs", reference=told, error=error)
    report.add("flow1d.adan56.step_ns_per_cell", 1e9 * alone["median"] / cells, "ns", error=error)
    report.add(
        "flow1d.adan56.threads_ratio",
        together["median"] / alone["median"],
        "1",
        reference="time with all threads over time with one",
        error=error,
    )
    per_cell = lambda n: f"{n / cells:.1f}"
    report.add(
        "flow1d.adan56.arithmetic_fraction",
        arithmetic / alone["fastest"],
        "1",
        reference=f"for a cell {per_cell(work.divisions)} divisions of "
        f"{1e9 * limits.division:.2f} ns, {per_cell(work.roots)} roots of {1e9 * limits.root:.2f}, "
        f"{per_cell(work.others)} others of {0.5e9 * limits.multiply_add:.2f}; one thread; "
        f"multiply-divide-root in a chain {1e9 * limits.triple:.2f}",
    )
    report.add(
        "flow1d.adan56.bandwidth_fraction",
        cache / alone["fastest"],
        "1",
        reference=f"{work.bytes / 1e6:.2f} MB a step at the {limits.cache / 1e9:.0f} GB/s of a "
        f"triad of that size, one thread; from memory {limits.memory / 1e9:.1f} GB/s",
    )
    log(f"adan56: {1e6 * alone['median']:.0f} µs/step; {told}")


def _timed_steps(problem: Flow1DProblem) -> dict[str, float]:
    """Seconds for a step: median, fastest, of the processor; and the error of the volume."""
    equations, y = semidiscretise(problem), initial_state(problem)
    step = jnp.asarray(problem.time_step)
    run = lambda: some_steps(equations, y, step, _STEPS)
    taken = [seconds(run, repeat=1, warm_up=int(k == 0)) / _STEPS for k in range(_TRIES)]
    processor, _ = processor_seconds(run)
    return {
        "median": statistics.median(taken),
        "fastest": min(taken),
        "processor": processor / _STEPS,
        "volume_error": float(_volume_error(problem, y, run())),
    }


def _volume_error(problem: Flow1DProblem, before: FlowState, after: FlowState) -> float:
    """Blood gained or lost, relative to what came in."""
    inverse = np.asarray(semidiscretise(problem).inverse_length)
    length = np.where(inverse > 0, 1.0 / np.where(inverse > 0, inverse, 1.0), 0.0)
    held = lambda y: float(np.sum(np.asarray(y.area) * length))
    passed = np.asarray(after.passed)
    return abs(held(after) - held(before) + passed.sum()) / np.abs(passed).max()


# ---------------------------------------------------------------- grids


def _coarsest(report: Report, data: Path, quick: bool, log) -> Flow1DProblem:
    """The coarsest grid whose first cycle is within `_ACCURACY` of a fine one's."""
    grids, fine = (_QUICK_GRIDS, _QUICK_FINE) if quick else (_GRIDS, _FINE)
    n = adan56(data, grids[0]).network.n_segments
    points = SavePoints(np.arange(n), np.full(n, 0.5))
    exact = _first_cycle(adan56(data, fine), points)[0]
    lines, chosen = [], None
    for cell_time in grids:
        problem = adan56(data, cell_time)
        found, taken = _first_cycle(problem, points)
        pressure = root_mean_square(_a(found.pressure_static) / _a(exact.pressure_static) - 1.0, 0)
        size = np.max(np.abs(_a(exact.flow)), 0)
        flow = root_mean_square(_a(found.flow) - _a(exact.flow), 0) / size
        steps = steps_per_cycle(problem)
        lines.append(
            {
                "cell_time_ms": 1e3 * cell_time,
                "cells": problem.grid.n_cells,
                "P_rms_worst_%": 100 * float(pressure.max()),
                "Q_rms_worst_%": 100 * float(flow.max()),
                "Q_rms_median_%": 100 * float(np.median(flow)),
                "step_us": 1e6 * taken / steps,
                "seconds_per_cycle": taken,
            }
        )
        log(f"adan56 at {cell_time * 1e3:.2g} ms: {lines[-1]}")
        if chosen is None and np.median(flow) <= _ACCURACY and pressure.max() <= _ACCURACY:
            chosen = problem, lines[-1]
    report.tables[f"adan56 against a grid of {1e3 * fine:g} ms, first cycle"] = lines
    problem, line = chosen or (adan56(data, grids[-1]), lines[-1])
    told = (
        f"coarsest grid within {_ACCURACY:.0%} (P worst vessel, Q median vessel) of one of "
        f"{1e3 * fine:g} ms: {line['cells']} cells; Q worst vessel {line['Q_rms_worst_%']:.2f} %"
    )
    error = 0.01 * line["Q_rms_median_%"]
    report.add("flow1d.adan56.coarse.step_us", line["step_us"], "µs", reference=told, error=error)
    report.add("flow1d.adan56.coarse.cycle_seconds", line["seconds_per_cycle"], "s", error=error)
    return problem


def _a(x) -> np.ndarray:
    return np.asarray(x)


def _first_cycle(problem: Flow1DProblem, points: SavePoints):
    initial = initial_state(problem)
    run = lambda: solve_flow1d(problem, points=points, initial=initial)
    found = run()
    return found, seconds(run, repeat=2, warm_up=0)


def _periodic(report: Report, problem: Flow1DProblem, quick: bool, log) -> None:
    """To the periodic state by plain cycling and by the accelerated solve."""
    points = SavePoints([0], [0.5])
    initial = initial_state(problem)
    run = lambda: solve_periodic(problem, points=points, initial=initial, tolerance=_TOLERANCE)
    found = run()
    taken = seconds(run, repeat=1, warm_up=0)
    limit = _QUICK_PLAIN_CYCLES if quick else _PLAIN_CYCLES
    plain, change, spent = plain_cycling(problem, points, tolerance=_TOLERANCE, max_cycles=limit)
    told = "" if change <= _TOLERANCE else f"stopped at {limit}"
    report.add("flow1d.adan56.plain_cycles", plain, "cycles", reference=told or None, error=change)
    report.add("flow1d.adan56.plain_seconds", spent, "s", error=change)
    change = float(found.change)
    report.add("flow1d.adan56.periodic_cycles", int(found.cycles), "cycles", error=change)
    report.add("flow1d.adan56.periodic_seconds", taken, "s", ratio=spent / taken, error=change)
    log(f"adan56 periodic: {int(found.cycles)} cycles, {taken:.1f} s; plain {plain}, {spent:.1f} s")


if __name__ == "__main__":
    bind_to_one_core()
    print(json.dumps(_timed_steps(sized(Path(sys.argv[1]), CELLS))))
