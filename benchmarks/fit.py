"""Fits to PET and pressure wires: `python -m benchmarks fit`.

The truth comes from another forest seed and a finer mesh, unless a row says otherwise: a fit that
meets its own discretisation errors in the data would look better than it is.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxperf.inverse import (
    FirstOrder,
    fit,
    InverseProblem,
    laplace,
    LevenbergMarquardt,
    Log,
)
from jaxperf.inverse._programs import gradient_at, solve_at, start
from jaxperf.observe import pet_segments
from jaxperf.study import heart_problem, synthetic_measurement, synthetic_truth
from jaxperf.units import M_PER_MM

from . import _fit_cases as cases
from ._report import Report, seconds

_DIRECT = "direct convolution of the raw arrays"
_OTHER = "truth from another forest and mesh"
_OWN = "truth from the prior, same mesh and forest"


@dataclass(frozen=True)
class FitReport:
    """The rows, and the figure that belongs to them."""

    report: Report

    def draw(self, path: Path) -> None:
        """Solves of each method, and errors of single data sets over their bound."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8))
        lines = self.report.tables["solves to within 0.01 nats"]
        for k, name in enumerate(sorted({str(line["method"]) for line in lines})):
            solves = [float(line["solves"]) for line in lines if line["method"] == name]
            left.plot(
                sorted(solves), np.linspace(0, 1, len(solves)), "o-", label=name, color=f"C{k}"
            )
        left.set(xscale="log", xlabel="solves", ylabel="share of the data sets")
        left.legend(fontsize=8)
        rows = self.report.tables["noisy data sets"]
        right.plot([r["bound_percent"] for r in rows], [r["error_percent"] for r in rows], "o")
        top = max(float(r["error_percent"]) for r in rows) * 1.1
        right.plot([0, top], [0, top], color="0.6", lw=0.8)
        right.set(xlabel="bound of the RMS error, %", ylabel="RMS error of MBF, %")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def fit_benchmark(data: Path, *, quick: bool, log: Callable[[str], None]) -> FitReport:
    """Measure every row of the fits; needs no reference data."""
    n_terminals = 300
    ours = cases.fit_heart_of(spacing_mm=5.0, n_terminals=n_terminals, seed=0)
    other = cases.fit_heart_of(spacing_mm=3.5, n_terminals=n_terminals, seed=7)
    report = Report("fit", quick, f"ellipsoid, {ours.size}; truth {other.size}")
    log(report.sample)
    _camera(report, ours, log)
    _solves(report, ours, other, 4 if quick else 16, log)
    _gradient_cost(report, ours, log)
    _noise_free(report, ours, other, log)
    _noisy(report, ours, 20 if quick else 100, log)
    return FitReport(report)


def _camera(report: Report, heart: cases.FitHeart, log: Callable[[str], None]) -> None:
    """The operator against sums over all pairs of control volumes, from raw arrays."""
    mesh, segment = heart.prepared.heart.mesh, heart.prepared.segment
    see = pet_segments(mesh, segment, fwhm_mm=8.0)
    sigma = 8.0 * M_PER_MM / (2.0 * np.sqrt(2.0 * np.log(2.0)))
    volume, centre = np.asarray(mesh.volume), np.asarray(mesh.centre)
    apart = ((centre[:, None] - centre[None]) ** 2).sum(axis=2)
    kernel = np.exp(-0.5 * apart / sigma**2) * volume[None]
    blur = kernel / kernel.sum(axis=1, keepdims=True)
    flow = np.random.default_rng(0).uniform(0.5, 4.0, len(volume))
    seen = blur @ flow
    direct = [np.average(seen[segment == k], weights=volume[segment == k]) for k in range(1, 18)]
    error = float(np.abs(np.asarray(see(jnp.asarray(flow))) / np.array(direct) - 1.0).max())
    report.add("fit.camera_error", error, "1", reference=_DIRECT, error=error)
    log(f"camera against {_DIRECT}: {error:.1e}")


def _problem(
    heart: cases.FitHeart, by: str, measured, **changes
) -> tuple[InverseProblem, InverseProblem]:
    return heart_problem(heart.prepared, heart.solved, cases.section(by, **changes), measured)


def _solves(
    report: Report, ours: cases.FitHeart, other: cases.FitHeart, n: int, log: Callable[[str], None]
) -> None:
    """Solves until the misfit is within 0.01 nats of the best of 8 starts."""
    methods = {
        "Levenberg–Marquardt": LevenbergMarquardt(),
        "L-BFGS": FirstOrder(optax.lbfgs()),
        "Adam": FirstOrder(optax.adam(0.1)),
    }
    lines, counts = [], {}
    for with_wire in (True, False):
        for seed in range(n):
            measured = _measured(other, "territory", seed, noisy=True)
            measured = measured if with_wire else cases.without_wires(measured)
            problem, _ = _problem(ours, "territory", measured)
            best = fit(problem, starts=8, key=jax.random.key(seed))
            goal = float(best.best.objective) + 0.01
            for name, method in methods.items():
                if name != "Levenberg–Marquardt" and seed >= 2:
                    continue
                began = time.perf_counter()
                found = fit(problem, method, starts=1, max_steps=300, tolerance=1e-4, throw=False)
                took = time.perf_counter() - began
                history = found.starts[0].history
                reached = history[history[:, 1] <= goal, 0]
                solves = float(reached[0]) if len(reached) else float("nan")
                wire = "yes" if with_wire else "no"
                lines.append(
                    {
                        "method": name,
                        "wire": wire,
                        "seed": seed,
                        "solves": solves,
                        "columns": found.columns,
                        "seconds": took,
                    }
                )
                counts.setdefault((name, wire), []).append(solves)
            log(f"wire {with_wire}, seed {seed}: {lines[-1]['method']} {lines[-1]['solves']}")
    report.tables["solves to within 0.01 nats"] = lines
    for (name, wire), found in counts.items():
        reached = [x for x in found if np.isfinite(x)]
        told = f"{name}, wire: {wire}, {len(found)} data sets, {_OTHER}"
        word = {"Levenberg–Marquardt": "lm", "L-BFGS": "lbfgs", "Adam": "adam"}[name]
        missed = 1.0 - len(reached) / len(found)
        add = lambda kind, value, word=word, wire=wire, told=told, missed=missed: report.add(
            f"fit.{word}_evaluations_{kind}.wire_{wire}",
            value,
            "solves",
            reference=told,
            error=missed,
        )
        add("median", float(np.median(reached)) if reached else float("nan"))
        add("worst", float(np.max(reached)) if reached else float("nan"))


def _measured(other: cases.FitHeart, by: str, seed: int, *, noisy: bool):
    truth = synthetic_truth(
        other.prepared,
        other.solved,
        cases.section(by),
        wires=(cases.WIRE,),
        key=jax.random.key(100 + seed),
    )
    key = jax.random.key(200 + seed) if noisy else None
    return synthetic_measurement(truth, (cases.WIRE,), key)


def _gradient_cost(report: Report, ours: cases.FitHeart, log: Callable[[str], None]) -> None:
    """Value and gradient against the value alone, both from a solution nearby."""
    measured = _measured(ours, "segment", 0, noisy=True)
    problem, _ = _problem(ours, "segment", measured)
    xi = jnp.zeros(problem.size)
    warm = start(problem, xi)
    near = xi + 0.1
    value = seconds(lambda: jax.block_until_ready(solve_at(problem, near, warm)[1]), repeat=7)
    both = seconds(lambda: jax.block_until_ready(gradient_at(problem, near, warm)[1]), repeat=7)
    report.add(
        "fit.gradient_ratio", both / value, "1", reference=f"forward solve, {problem.size} entries"
    )
    log(f"value and gradient {both / value:.2f} × a solve")


def _noise_free(
    report: Report, ours: cases.FitHeart, other: cases.FitHeart, log: Callable[[str], None]
) -> None:
    """Errors of the segments' flow where the data have no noise but come from elsewhere."""
    for by, groups in (("segment", "segments"), ("territory", "territories")):
        truth = synthetic_truth(
            other.prepared,
            other.solved,
            cases.section("segment"),
            wires=(cases.WIRE,),
            key=jax.random.key(3),
        )
        measured = synthetic_measurement(truth, (cases.WIRE,), None)
        quiet = {"segment": 0.01, "scan": 0.0, "shared": 0.0}
        problem, _ = _problem(ours, by, measured, pet={"segments": "given", "noise": quiet})
        found = fit(problem, starts=1, max_steps=100)
        seen = problem.solve(found.best.xi, found.best.warm)[0]
        flows = lambda seen: {s: np.asarray(seen.mbf_segment[s]) for s in cases.STATES}
        error = cases.aha_error(flows(seen), flows(truth.seen))
        told = f"{_OTHER}; unknowns by {by}, heterogeneity by segment"
        report.add(
            f"fit.noise_free_{groups}", 100 * error.mean(), "%", reference=told, error=error.max()
        )
        log(f"noise-free by {by}: mean {100 * error.mean():.2f} %, worst {100 * error.max():.1f} %")


def _noisy(report: Report, ours: cases.FitHeart, n: int, log: Callable[[str], None]) -> None:
    """Pooled RMS error of log MBF over what the linearised posterior promises."""
    lines, error, bound, covered = [], [], [], []
    said = cases.section("segment")
    for seed in range(n):
        truth = synthetic_truth(
            ours.prepared, ours.solved, said, wires=(cases.WIRE,), key=jax.random.key(1000 + seed)
        )
        measured = synthetic_measurement(truth, (cases.WIRE,), jax.random.key(2000 + seed))
        problem, _ = heart_problem(ours.prepared, ours.solved, said, measured)
        found = fit(problem, starts=1)
        posterior = laplace(found)
        flow = lambda values, seen: jnp.concatenate(
            [jnp.log(seen.mbf_segment[s]) for s in cases.STATES]
        )
        value, slope = posterior.jacobian(flow)
        sd = np.linalg.norm(slope @ np.asarray(posterior.factor), axis=-1)
        true = np.asarray(flow({}, truth.seen))
        error.append(np.mean((value - true) ** 2))
        bound.append(np.mean(sd**2))
        wire = problem.measurements[1].observe
        limits = posterior.interval(lambda values, seen, w=wire: w(seen), 0.8, Log())
        ffr = float(wire(truth.seen)[0])
        covered.append(float(limits.low[0]) <= ffr <= float(limits.high[0]))
        lines.append(
            {
                "seed": seed,
                "error_percent": 100 * float(np.sqrt(error[-1])),
                "bound_percent": 100 * float(np.sqrt(bound[-1])),
                "solves": found.solves,
            }
        )
    report.tables["noisy data sets"] = lines
    ratio = lambda i: float(np.sqrt(np.mean(np.array(error)[i]) / np.mean(np.array(bound)[i])))
    rng = np.random.default_rng(0)
    spread = np.quantile([ratio(rng.integers(0, n, n)) for _ in range(2000)], [0.025, 0.975])
    told = f"{_OWN}, {n} data sets; bootstrap {spread[0]:.3f} to {spread[1]:.3f}"
    report.add("fit.noisy_over_bound", ratio(np.arange(n)), "1", reference=told)
    report.add(
        "fit.coverage_wire_80",
        100 * float(np.mean(covered)),
        "%",
        reference=f"{_OWN}, {n} data sets",
    )
    log(f"RMS error over bound {ratio(np.arange(n)):.3f}, {spread[0]:.3f} to {spread[1]:.3f}")
