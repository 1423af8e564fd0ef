"""Transient flow in compliant vessels: `python -m benchmarks flow1d`."""

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.flow1d import Flow1DProblem, SavePoints, solve_flow1d, solve_periodic

from . import _flow1d_accuracy as accuracy, _flow1d_cases as cases
from ._composite import MissingData, reference_data
from ._flow1d_adan import measure_adan
from ._flow1d_bed import measure_bed
from ._flow1d_gradients import measure_gradients
from ._flow1d_limits import CAN_BIND
from ._flow1d_periodic import measure_periodic
from ._report import Report, seconds

_POINTS = SavePoints([0, 40], [0.5, 0.5])
_BATCH = 64
_CYCLES = (1, 3, 10)
# Of the controller, relative to the largest entry of each part of the state.
_CONTROLLER_TOLERANCE = 1e-5
_LEFT_OUT = "left out"


@dataclass(frozen=True)
class FlowReport:
    """The rows, and the figure that belongs to them."""

    report: Report

    def draw(self, path: Path) -> None:
        """The left coronary's errors by segment, gradients' errors, and their price."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4.2))
        lines = self.report.tables.get(accuracy.WORST, [])
        names = [str(line["segment"]) for line in lines]
        left.bar(names, [line["Q_rms"] for line in lines], color="tab:blue", label="flow")
        left.bar(names, [line["P_rms"] for line in lines], color="tab:red", label="pressure")
        left.set_ylabel("RMS against svOneDSolver, %")
        left.tick_params(axis="x", rotation=60)
        left.legend()
        lines = self.report.tables.get("gradients against differences, relative", [])
        for case in dict.fromkeys(line["case"] for line in lines):
            error = sorted(float(line["error"]) for line in lines if line["case"] == case)
            middle.semilogy(np.arange(len(error)) + 1, np.maximum(error, 1e-16), "o-", label=case)
        middle.axhline(1e-6, color="0.6", lw=0.8)
        middle.set_xlabel("functional by parameter, sorted")
        middle.set_ylabel("gradient against differences, relative")
        lines = self.report.tables.get("price of value and gradient", [])
        for case in dict.fromkeys(line["case"] for line in lines):
            of = [line for line in lines if line["case"] == case]
            x, y = [line["cycles"] for line in of], [line["ratio"] for line in of]
            right.plot(x, y, "o-", label=case)
        right.set_xlabel("cycles")
        right.set_ylabel("value and gradient over value, times")
        right.set_ylim(bottom=0)
        for axis in (middle, right):
            if axis.lines:
                axis.legend()
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def flow1d(data: Path, *, quick: bool, log: Callable[[str], None]) -> FlowReport:
    """Measure every row of transient flow for which there are data.

    **Errors:** `MissingData` where none of the data are there.
    """
    report = Report("flow1d", quick, "Boileau et al. 2015, left coronary, adan56, composite")

    def left_out(what: str, file: Path) -> bool:
        if file.is_file():
            return False
        report.tables.setdefault(_LEFT_OUT, []).append({"rows": what, "missing": str(file)})
        log(f"[red]{what} left out:[/red] {file} is not there")
        return True

    for part in (_boileau, _left_coronary, _adan, _gradients, _bed):
        part(report, data, quick, left_out, log)
        # Every compiled program holds memory maps, and a process may have only so many.
        jax.clear_caches()
    if not report.rows:
        raise MissingData(f"no reference data in {data}: name their folder with --data")
    return FlowReport(report)


def _boileau(report: Report, data: Path, quick: bool, left_out, log) -> None:
    for which, inlet in cases.BOILEAU.items():
        if not left_out(which, data / inlet):
            accuracy.measure_boileau(report, data, which, log)


def _left_coronary(report: Report, data: Path, quick: bool, left_out, log) -> None:
    if left_out("left_coronary", data / cases.LEFT_CORONARY):
        return
    if not left_out("left_coronary against svOneDSolver", data / cases.LEFT_REFERENCE):
        accuracy.measure_left_coronary(report, data, quick=quick, log=log)
    _, problem = cases.left_coronary(data)
    _other_ways(report, problem, log)
    measure_periodic(report, problem, quick=quick, log=log)


def _adan(report: Report, data: Path, quick: bool, left_out, log) -> None:
    if left_out("adan56", data / cases.ADAN):
        return
    if not CAN_BIND:
        missing = f"a way to bind a process to one core on {sys.platform}"
        report.tables.setdefault(_LEFT_OUT, []).append({"rows": "adan56", "missing": missing})
        log(f"[red]adan56 left out:[/red] there is not {missing}")
        return
    measure_adan(report, data, quick=quick, log=log)


def _gradients(report: Report, data: Path, quick: bool, left_out, log) -> None:
    found = cases.gradient_cases(data, left_out)
    if quick:
        measure_gradients(report, found[:1], _CYCLES[:1], log)
    else:
        measure_gradients(report, found, _CYCLES, log)


def _bed(report: Report, data: Path, quick: bool, left_out, log) -> None:
    try:
        reference_data(data)
    except MissingData as missing:
        report.tables.setdefault(_LEFT_OUT, []).append({"rows": "bed", "missing": str(missing)})
        log(f"[red]bed left out:[/red] {missing}")
        return
    measure_bed(report, data, quick=quick, log=log)


def _other_ways(report: Report, problem: Flow1DProblem, log) -> None:
    """The same cycle in single precision, under a controller, and for many cases at once."""
    # From the periodic state: the steady one does not fit the inlet at time 0, and the step there
    # sends out waves that no grid resolves.
    initial = solve_periodic(problem, points=_POINTS).state
    exact = solve_flow1d(problem, points=_POINTS, initial=initial)
    alone = seconds(lambda: solve_flow1d(problem, points=_POINTS, initial=initial), repeat=3)
    _single_precision(report, problem, initial, exact)
    _controller(report, problem, initial, exact, alone)
    _batch(report, problem, initial, alone, log)


def _apart(found, exact) -> float:
    """The larger of the errors of pressure and flow, relative to the largest values."""
    error = lambda a, b: float(np.max(np.abs(np.asarray(a, float) - b)) / np.max(np.abs(b)))
    return max(
        error(found.pressure_static, np.asarray(exact.pressure_static)),
        error(found.flow, np.asarray(exact.flow)),
    )


def _single_precision(report: Report, problem, initial, exact) -> None:
    def rough(tree):
        narrow = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
        return jax.tree.map(narrow, tree)

    found = solve_flow1d(rough(problem), points=_POINTS, initial=rough(initial))
    assert found.flow.dtype == jnp.float32
    error = _apart(found, exact)
    report.add("flow1d.float32_error", error, "1", reference="float64, one cycle", error=error)


def _controller(report: Report, problem, initial, exact, alone: float) -> None:
    """Steps by estimated error, capped by the Courant number, beside equal steps."""
    largest = jax.tree.map(lambda x: jnp.max(jnp.abs(x), initial=1e-300), initial)
    norm = lambda e: jnp.max(
        jnp.stack(
            [
                jnp.max(jnp.abs(e.area)) / largest.area,
                jnp.max(jnp.abs(e.flow)) / largest.flow,
                *(
                    jnp.max(jnp.abs(x)) / s
                    for x, s in zip(e.outlet, largest.outlet, strict=True)
                    if x.size
                ),
            ]
        )
    )
    controller = diffrax.PIDController(rtol=0.0, atol=_CONTROLLER_TOLERANCE, norm=norm)
    run = lambda: solve_flow1d(problem, points=_POINTS, initial=initial, controller=controller)
    short = dataclasses.replace(problem, n_steps=4 * problem.n_steps)
    best = solve_flow1d(short, points=_POINTS, initial=initial)
    error, taken = _apart(run(), best), seconds(run, repeat=2, warm_up=0)
    report.add(
        "flow1d.controller.cycle_seconds",
        taken,
        "s",
        reference=f"PID controller at {_CONTROLLER_TOLERANCE:g}, Courant number at most 0.9; equal "
        f"steps take {alone:.2f} s and err by {_apart(exact, best):.1e}, against a quarter of them",
        ratio=alone / taken,
        error=error,
    )


def _batch(report: Report, problem: Flow1DProblem, initial, alone: float, log) -> None:
    """Cases that differ in their inlet pressure and their state, by vmap."""
    factor = jnp.linspace(0.95, 1.05, _BATCH)
    of = lambda p: p.boundary[0].pressure.value

    @eqx.filter_jit
    def run(factor, problem, initial):
        def one(f):
            changed = eqx.tree_at(of, problem, f * of(problem))
            state = eqx.tree_at(lambda y: y.flow, initial, f * initial.flow)
            found = solve_flow1d(changed, points=_POINTS, initial=state, throw=False)
            return found.pressure_static, found.flow

        return jax.vmap(one)(factor)

    middle = jnp.ones(1)
    single = run(middle, problem, initial)
    together = run(factor.at[0].set(1.0), problem, initial)
    error = float(jnp.max(jnp.abs(together[1][0] - single[1][0])) / jnp.max(jnp.abs(single[1])))
    taken = seconds(lambda: run(factor, problem, initial), repeat=1, warm_up=0)
    n = accuracy.steps_per_cycle(problem)
    device = jax.devices()[0]
    report.add(
        "flow1d.batch64.step_us",
        1e6 * taken / n,
        "µs",
        reference=f"{_BATCH} cases of {problem.grid.n_cells} cells at once on {device.device_kind};"
        f" one alone {1e6 * alone / n:.1f}",
        ratio=_BATCH * alone / taken,
        error=error,
    )
    log(f"batch: {1e6 * taken / n:.0f} µs/step for {_BATCH}, one {1e6 * alone / n:.1f}")
