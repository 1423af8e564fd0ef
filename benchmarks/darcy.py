"""Darcy's equation at scale, beside other solvers: `python -m benchmarks darcy`."""

import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf import RESULTS
from jaxperf.coupling import calibrate, PerfusionProblem, solve_perfusion
from jaxperf.darcy import ConjugateGradient, darcy_mesh, darcy_operator, DarcyProblem, multigrid

from . import _darcy_cases as cases, _measure as measure
from ._composite import composite_case, MissingData, reference_data
from ._darcy_bounds import bounds
from ._darcy_peers import peers, relative_residual
from ._flow1d_limits import triad
from ._report import add_peak_memory, Report, seconds, seconds_of_both

_RTOL = 1e-8
_VOXELS, _QUICK_VOXELS = {"1e4": 1e4, "1e5": 1e5, "1e6": 1e6}, {"1e4": 1e4, "1e5": 1e5}
# Edges of tetrahedra, m, that give about so many vertices (the last: so many tetrahedra).
_TETS = {"1e4": 3.1e-3, "1e5": 1.35e-3, "1e6_tets": 1.1e-3}
_QUICK_TETS = {"1e4": 3.1e-3}
_MUCH = 3e5  # control volumes beyond which everything is timed less often
_DETAILED = "voxel_1e5"  # the case of the rows that one mesh is enough for
_AT_ONCE = 8  # right-hand sides
# Passes over vectors in one iteration: of conjugate gradients, and of the cycle on each level.
_KRYLOV_PASSES, _CYCLE_PASSES = 11, 16
_TRIAD_BYTES = 64e6
_COMPOSITE = {"1e5": 0.86, "1e6": 0.4}  # of the labels' voxels, along each side
_QUICK_COMPOSITE = {"small": 2.0}
_MBF_REST, _MBF_STRESS = 1.0, 3.5  # ml/min/g
_SOLVERS, _ITERATIONS = "solvers, seconds", "iterations to 1e-8"
_MULTIGRID = "jaxperf multigrid"


@dataclass(frozen=True)
class DarcyReport:
    """The rows, and the figure that belongs to them."""

    report: Report

    def draw(self, path: Path) -> None:
        """Time of every solver over the number of unknowns."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        lines = self.report.tables[_SOLVERS]
        figure, axes = plt.subplots(1, 2, figsize=(11, 4.4), sharey=True)
        for axis, (kind, title) in zip(
            axes, (("voxel", "voxels"), ("tet", "tetrahedra")), strict=True
        ):
            mine = [line for line in lines if str(line["mesh"]).startswith(kind)]
            for solver in dict.fromkeys(str(line["solver"]) for line in mine):
                of = sorted(
                    (line["unknowns"], line["solve_s"]) for line in mine if line["solver"] == solver
                )
                axis.loglog(*zip(*of, strict=True), "o-", label=solver)
            axis.set_title(title)
            axis.set_xlabel("control volumes")
            if mine:
                axis.legend(fontsize=8)
        axes[0].set_ylabel(f"repeated solve to {_RTOL:g}, s")
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def darcy(data: Path, *, quick: bool, log: Callable[[str], None]) -> DarcyReport:
    """Measure every row; only those of the coupled solve need data."""
    report = Report("darcy", quick, "wall of an ellipsoid at hyperemia, voxels and tetrahedra")
    counts = {}
    for name, number in (_QUICK_VOXELS if quick else _VOXELS).items():
        case = cases.wall_case(f"voxel_{name}", cases.voxels(number))
        counts[case.name] = _measure(report, case, log)
        if case.name == _DETAILED:
            _details(report, case, log)
        jax.clear_caches()
    tets = _QUICK_TETS if quick else _TETS
    if importlib.util.find_spec("tetgen") is None:
        tets = {}
        report.leave_out("tetrahedra", "the optional package tetgen is not installed", log)
    for name, edge in tets.items():
        case = cases.wall_case(f"tet_{name}", cases.tetrahedra(edge))
        counts[case.name] = _measure(report, case, log)
        jax.clear_caches()
    _growth(report, counts)
    _robustness(report, log)
    bounds(report, log)
    _coupled(report, data, _QUICK_COMPOSITE if quick else _COMPOSITE, log)
    add_peak_memory(report, "darcy.peak_memory")
    return DarcyReport(report)


def _growth(report: Report, counts: dict[str, int]) -> None:
    for kind, name in (("voxel", "darcy.iteration_growth"), ("tet", "darcy.tet_iteration_growth")):
        of = {k: n for k, n in counts.items() if k.startswith(kind)}
        if not of:
            continue
        told = ", ".join(f"{n} on {k}" for k, n in of.items())
        report.add(name, max(of.values()) / next(iter(of.values())), "1", reference=told)
    report.add(
        "darcy.gradient_ratio",
        max(r.value for r in report.rows if r.id.endswith(".gradient_ratio")),
        "1",
        reference="value and gradient in K over the value, refit in both; the worst mesh",
    )


# ---------------------------------------------------------------- one mesh


def _measure(report: Report, case: cases.Case, log) -> int:
    few = 3 if case.n > _MUCH else 7
    multigrid(case.mesh, rtol=_RTOL)  # the first loads its compiled code
    start = time.perf_counter()
    method = multigrid(case.mesh, rtol=_RTOL)
    setup = time.perf_counter() - start
    start = time.perf_counter()
    found = _solved(jax.block_until_ready(cases.run(case.problem, method)), case.name)
    compiling = time.perf_counter() - start
    state = jax.block_until_ready(cases.prepare(case.problem, method))
    whole = seconds(lambda: cases.run(case.problem, method), repeat=few)
    repeat = seconds(lambda: cases.run_prepared(case.problem, method, state), repeat=few)
    updated = (case.mesh, case.permeability, case.problem, method)
    update = seconds(lambda: cases.run_updated(*updated), repeat=few)
    of_k = (case.permeability, case.mesh, case.problem, method)
    forward, both, ratio = seconds_of_both(
        lambda: cases.value(*of_k), lambda: cases.value_and_gradient(*of_k), repeat=few
    )
    error = relative_residual(case.matrix, case.right, found.pressure_tissue)
    iterations = int(found.iterations)
    lines = [
        _line(_MULTIGRID, setup, repeat, iterations, error),
        *peers(case.matrix, case.right, _RTOL, min(few, 3)),
        _jacobi(case),
    ]
    report.tables.setdefault(_SOLVERS, []).extend(
        {"mesh": case.name, "unknowns": case.n} | line for line in lines
    )
    reached = [line for line in lines if line["residual"] <= 2.0 * _RTOL]
    amg = [line for line in reached if str(line["solver"]).startswith("pyamg")]
    best = min(amg, key=lambda line: line["solve_s"])
    whole_peer = min(line["setup_s"] + line["solve_s"] for line in amg)
    told = f"{case.n} control volumes, {iterations} iterations, {os.cpu_count()} threads"
    add = lambda key, value, unit, reference, **more: report.add(
        f"darcy.{case.name}.{key}", value, unit, reference=reference, error=error, **more
    )
    peer = f"{best['solver']}, accel='cg', one thread, {best['solve_s']:.4f} s"
    add("repeat_seconds", repeat, "s", told, ratio=best["solve_s"] / repeat)
    add("repeat_ratio", best["solve_s"] / repeat, "1", peer)
    add("update_seconds", update, "s", told)
    whole_told = f"pyamg, one thread, set-up and solve, {whole_peer:.3f} s"
    add("update_ratio", whole_peer / update, "1", f"{whole_told}; ours keeps its prolongations")
    add(
        "first_ratio",
        whole_peer / (setup + whole),
        "1",
        f"{whole_told}; ours {setup:.2f} s and {whole:.3f} s, the rows of the finest matrix at "
        f"hand; compiling, {compiling - whole:.1f} s, is left out",
    )
    add("gradient_ratio", ratio, "1", f"{both:.3f} s over {forward:.3f} s")
    log(
        f"{case.name}: {told}, set-up {setup:.2f}, repeat {repeat:.4f} "
        f"({best['solve_s'] / repeat:.1f} x {best['solver']}), update {update:.4f} "
        f"({whole_peer / update:.1f} x), gradient {ratio:.2f}"
    )
    return iterations


def _solved(found, what: str):
    """A solution, if it is one: what failed is no figure."""
    if found.result != RESULTS.successful:
        raise RuntimeError(f"{what}: {RESULTS[found.result]}")
    return found


def _line(solver, setup: float, solve: float, iterations: int, residual: float):
    return {
        "solver": solver,
        "setup_s": setup,
        "solve_s": solve,
        "iterations": iterations,
        "residual": residual,
    }


def _jacobi(case: cases.Case) -> dict[str, float | str]:
    method = ConjugateGradient(rtol=_RTOL)
    found = _solved(cases.run(case.problem, method), case.name)
    taken = seconds(lambda: cases.run(case.problem, method), repeat=2, warm_up=0)
    error = relative_residual(case.matrix, case.right, found.pressure_tissue)
    return _line("jaxperf, diagonal", 0.0, taken, int(found.iterations), error)


# ---------------------------------------------------------------- details of one mesh


def _details(report: Report, case: cases.Case, log) -> None:
    method = multigrid(case.mesh, rtol=_RTOL)
    state = jax.block_until_ready(cases.prepare(case.problem, method))
    exact = cases.run_prepared(case.problem, method, state)
    taken = seconds(lambda: cases.run_prepared(case.problem, method, state), repeat=7)
    _bandwidth(report, case, state, int(exact.iterations), taken, log)
    _fence(report, case, method, state, taken, log)
    _at_once(report, case, method, state, log)
    narrow = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
    single = jax.tree.map(narrow, case.problem)
    rough = cases.run(single, multigrid(case.mesh)).pressure_tissue.astype(jnp.float64)
    error = float(
        jnp.linalg.norm(rough - exact.pressure_tissue) / jnp.linalg.norm(exact.pressure_tissue)
    )
    told = "whole solve in float32, its default tolerance, against float64"
    report.add("darcy.float32_error", error, "1", reference=told, error=error)
    log(f"{case.name}: float32 within {error:.1e}")


def _bandwidth(report: Report, case, state, iterations: int, taken: float, log) -> None:
    """The time of a solve over that of moving its bytes."""
    moved = (iterations + 1) * _bytes_of_iteration(state)
    speed = triad(_TRIAD_BYTES, 4)
    floor = moved / speed
    told = (
        f"{1e-6 * moved:.0f} MB in {iterations} iterations and a first cycle, vectors by count of "
        f"passes, at {1e-9 * speed:.1f} GB/s: a triad of {1e-6 * _TRIAD_BYTES:.0f} MB with all "
        "threads, which a large cache may hold"
    )
    report.add("darcy.time_over_bandwidth_floor", taken / floor, "1", reference=told)
    log(f"{case.name}: {taken / floor:.2f} x the floor; {told}")


def _bytes_of_iteration(state) -> float:
    """Matrices and vectors that an iteration reads and writes, each pass counted once."""
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(tree))
    operator = state.operator
    rows = operator.graph.pattern.rows
    total = size((rows, operator.weight)) + _KRYLOV_PASSES * operator.diagonal.nbytes
    for at in state.levels:
        # A smoothing from zero and the residual after it; the smoothing after the correction.
        total += 4 * size((at.level.pattern.rows, at.weight))
        total += size((at.level.prolong, at.level.restrict))
        total += _CYCLE_PASSES * at.diagonal.nbytes
    return float(total + state.coarsest.nbytes)


def _fence(report: Report, case, method, state, taken: float, log) -> None:
    """What is lost where the hierarchy is a constant of the program and its fences fold away."""
    folded = jax.jit(lambda source: method.solve(state, source).pressure_tissue)
    constant = seconds(lambda: folded(case.problem.source), repeat=3)
    told = "hierarchy as a constant over hierarchy as an argument"
    report.add("darcy.fence_gain", constant / taken, "1", reference=told)
    log(f"{case.name}: {told}, {constant / taken:.1f}")


def _at_once(report: Report, case, method, state, log) -> None:
    rng = np.random.default_rng(0)
    sources = case.problem.source * jnp.asarray(rng.uniform(0.0, 2.0, (_AT_ONCE, case.n)))
    taken = seconds(
        lambda: cases.run_prepared(DarcyProblem(case.problem.operator, sources[0]), method, state),
        repeat=5,
    )

    @eqx.filter_jit
    def run(method, state, sources):
        return jax.vmap(lambda b: method.solve(state, b).pressure_tissue)(sources)

    together = seconds(lambda: run(method, state, sources), repeat=3)
    ratio = _AT_ONCE * taken / together
    told = f"{_AT_ONCE} by vmap in {together:.3f} s, one in {taken:.4f} s"
    report.add("darcy.right_hand_sides_ratio", ratio, "1", reference=told)
    log(f"{case.name}: {told}")


# ---------------------------------------------------------------- anisotropy and contrast


def _robustness(report: Report, log) -> None:
    """Iterations under anisotropy and jumps of K, with prolongations of this K and of another."""
    mesh = cases.voxels(3e4)
    prepared = darcy_mesh(mesh)
    sink = jnp.asarray(cases.BETA * mesh.volume)
    source = sink * jnp.asarray(1.0 + np.tanh(1e2 * mesh.centre[:, 0]))
    rng = np.random.default_rng(0)
    lines = []

    def add(what: str, amount: float, permeability) -> None:
        k = jnp.asarray(cases.PERMEABILITY * permeability)
        operator = darcy_operator(prepared.graph, prepared.transmissibility(k), sink)
        problem = DarcyProblem(operator, source)
        count = lambda method: int(_solved(cases.run(problem, method), what).iterations)
        lines.append(
            {
                "what": what,
                "amount": amount,
                "prolongations of this K": count(multigrid(prepared, k, rtol=_RTOL)),
                "of uniform K": count(multigrid(prepared, rtol=_RTOL)),
            }
        )

    for along in (1.0, 10.0, 100.0):
        tensor = np.broadcast_to(np.diag([along, 1.0, 1.0]), (mesh.n_cells, 3, 3))
        add("anisotropy", along, tensor)
    for contrast in (1e2, 1e4, 1e6):
        add(
            "contrast from voxel to voxel",
            contrast,
            contrast ** rng.uniform(-0.5, 0.5, mesh.n_cells),
        )
    report.tables[f"{_ITERATIONS}, {mesh.n_cells} voxels"] = lines
    log(f"iterations: {lines}")


# ---------------------------------------------------------------- coupled solve


def _coupled(report: Report, data: Path, sizes: dict[str, float], log) -> None:
    try:
        reference_data(data)
    except MissingData as missing:
        report.leave_out("coupled", str(missing), log)
        return
    for name, side in sizes.items():
        case = composite_case(data, n_terminals=6000 if side < 1 else 1200, coarsen=side)
        log(f"coupled_{name}: {case.description}")
        _measure_coupled(report, f"darcy.coupled_{name}", case, log)
        jax.clear_caches()


def _measure_coupled(report: Report, id: str, case, log) -> None:
    method = multigrid(case.problem.tissue.mesh)
    found = calibrate(
        case.problem,
        mbf_rest_ml_min_g=_MBF_REST,
        mbf_hyperemia_ml_min_g=_MBF_STRESS,
        method=method,
    )
    problem = measure.states_of(case, found).hyperemia
    solve = lambda problem, method: solve_perfusion(problem, method, throw=False)
    program, compiling = measure.compiled(solve, problem, method)
    solution = _solved(program(problem, method), id)
    taken = seconds(lambda: program(problem, method), repeat=3)
    plain, compiling_plain = measure.compiled(solve, problem, ConjugateGradient())
    _solved(plain(problem, ConjugateGradient()), id)
    with_diagonal = seconds(lambda: plain(problem, ConjugateGradient()), repeat=2)
    newton, products = int(solution.newton_iterations), int(solution.linear_iterations)
    balance = float(solution.mass_balance_relative_error)
    told = f"{case.description}; hyperemia, {newton} Newton steps, {products} products"
    add = lambda key, value, unit, **more: report.add(f"{id}.{key}", value, unit, **more)
    add("seconds", taken, "s", reference=told, ratio=with_diagonal / taken, error=balance)
    add("iterations_per_newton", products / newton, "1")
    add("compile_seconds", compiling, "s", reference=f"with the diagonal {compiling_plain:.1f} s")

    def value(k, problem: PerfusionProblem, method):
        where = lambda p: p.microcirculation.permeability
        return measure.mean_square(solve(eqx.tree_at(where, problem, k), method))

    of: tuple[Any, ...] = (problem.microcirculation.permeability, problem, method)
    one, _ = measure.compiled(value, *of)
    two, _ = measure.compiled(jax.value_and_grad(value), *of)
    forward, both, ratio = seconds_of_both(lambda: one(*of), lambda: two(*of), repeat=3)
    add("gradient_ratio", ratio, "1", reference=f"{both:.3f} s over {forward:.3f} s")
    log(
        f"{id}: {taken:.3f} s ({with_diagonal / taken:.1f} x the diagonal), compile {compiling:.1f}"
    )
