"""Graph networks for the Darcy problem, beside other solvers: `python -m benchmarks gnn`."""

import dataclasses
import importlib.resources
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gnn_darcy import (
    build_network,
    DarcyCase,
    flux_multigrid,
    FluxMultigrid,
    message_passing,
    read_header,
)
from jaxperf import RESULTS
from jaxperf.coupling import calibrate, solve_perfusion
from jaxperf.darcy import (
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    multigrid,
    solve_darcy,
)

from . import _gnn_cases as cases, _measure as measure
from ._composite import composite_case, MissingData, reference_data
from ._darcy_bounds import HARD, LEAST, true_and_bound
from ._darcy_cases import BETA, PERMEABILITY, voxels
from ._report import add_peak_memory, Report, seconds

_RTOL, _EXACT = 1e-8, 1e-13
_FEW, _LINEAR = 4, 6  # cycles
_CURVE = range(1, 9)
# Tetrahedra, and how many cases of that size.
_SIZES = {"10k": (1e4, 3), "30k": (3e4, 2), "100k": (1e5, 2), "300k": (3e5, 1)}
_QUICK_SIZES = {"10k": (1e4, 2), "30k": (3e4, 1)}
_EXACT_SIZES = {"1e4": 1e4, "1e5": 1e5, "3e5": 3e5}
_QUICK_EXACT_SIZES = {"1e4": 1e4}
# Meshes of the certificate, and problems on each.
_CERTIFICATE, _QUICK_CERTIFICATE = (5, 40), (2, 20)
_CERTIFICATE_TETS, _WALL_VOXELS = 6e3, 4e3
_COMPOSITE, _QUICK_COMPOSITE = (6000, 0.86), (1200, 2.0)
_MBF_REST, _MBF_STRESS = 1.0, 3.5  # ml/min/g
_ERRORS, _SOLVERS = "relative L2 error of the pressure", "solvers to 1e-8"


@dataclass(frozen=True)
class GnnReport:
    """The rows, and what its figure shows."""

    report: Report
    curves: dict[str, list[float]]
    bounds: np.ndarray

    def draw(self, path: Path) -> None:
        """Errors over cycles, and estimates of errors over the errors."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4))
        for name, errors in self.curves.items():
            if len(errors) == 1:
                left.axhline(errors[0], color="gray", ls=":", label=name)
            else:
                left.semilogy(list(_CURVE), errors, "o-", label=name)
        left.set_xlabel("cycles")
        left.set_ylabel("relative L2 error of the pressure")
        left.set_title("30k tetrahedra, held out")
        left.legend(fontsize=8)
        true, bound = self.bounds.T
        ends = np.array([true.min(), true.max()])
        right.loglog(true, bound, ".", label="one problem")
        right.loglog(ends, ends, "k-", lw=0.8, label="the error itself")
        right.loglog(ends, 10.0 * ends, "k--", lw=0.8, label="ten times that")
        right.set_xlabel("error in the energy norm, relative")
        right.set_ylabel("estimate")
        right.set_title("certificate")
        right.legend(fontsize=8)
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def gnn(data: Path, *, quick: bool, log: Callable[[str], None]) -> GnnReport:
    """Measure every row; those of the subject's wall and the coupled solve need data."""
    report = Report("gnn", quick, "walls that training has not seen, hyperemia to weak exchange")
    curves: dict[str, list[float]] = {}
    for name, (n_tets, number) in (_QUICK_SIZES if quick else _SIZES).items():
        _accuracy(report, name, [cases.held_out(n_tets, k) for k in range(number)], log)
        jax.clear_caches()
    curves |= _curves(cases.held_out(3e4, 0))
    _patient(report, data, quick, log)
    bounds = _certificate(report, _QUICK_CERTIFICATE if quick else _CERTIFICATE, log)
    for name, n_tets in (_QUICK_EXACT_SIZES if quick else _EXACT_SIZES).items():
        _exact(report, name, cases.held_out(n_tets, 7), log)
        jax.clear_caches()
    _training(report, log)
    _coupled(report, data, _QUICK_COMPOSITE if quick else _COMPOSITE, log)
    add_peak_memory(report, "gnn.peak_memory")
    return GnnReport(report, curves, bounds)


# ---------------------------------------------------------------- what is run


@eqx.filter_jit
def _init(method, operator):
    return method.init(operator)


@eqx.filter_jit
def _solve(method, state, source):
    return method.solve(state, source)


def _with_mode(method: FluxMultigrid, mode: Any, cycles: int) -> FluxMultigrid:
    return dataclasses.replace(method, mode=mode, cycles=cycles, rtol=_RTOL)


def _direct(case: DarcyCase):
    """The pressure, by other means and to round-off."""
    method = multigrid(case.mesh, case.permeability, rtol=_EXACT)
    return solve_darcy(case.problem, method).pressure_tissue


def _l2(found, exact) -> float:
    return float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact))


# ---------------------------------------------------------------- accuracy


def _accuracy(report: Report, name: str, of: list[DarcyCase], log) -> None:
    """Errors after few cycles on cases of one size; the worst of them are the rows."""
    errors: dict[str, list[float]] = {}
    for number, case in enumerate(of):
        exact, operator, source = _direct(case), case.problem.operator, case.problem.source
        trained = flux_multigrid(case.mesh, case.permeability)
        untrained = eqx.tree_at(lambda m: m.network, trained, _untrained())
        line: dict[str, float | str] = {"case": f"{name} {number}", "vertices": len(source)}
        for kind, method in (("", trained), ("untrained ", untrained)):
            state = _init(_with_mode(method, "few", _FEW), operator)
            for mode, cycles in (("few", _FEW), ("surrogate", _LINEAR)):
                found = _solve(_with_mode(method, mode, cycles), state, source)
                line[f"{kind}{mode}"] = _l2(found.pressure_tissue, exact)
        network = message_passing(case.mesh)
        line["message passing"] = _l2(_solve(network, operator, source).pressure_tissue, exact)
        for key, value in line.items():
            if isinstance(value, float):
                errors.setdefault(key, []).append(value)
        report.tables.setdefault(_ERRORS, []).append(line)
    told = f"worst of {len(of)}, vertices {', '.join(str(len(c.problem.source)) for c in of)}"

    def add(id: str, key: str, cycles: str) -> None:
        without = f"untrained {max(errors[f'untrained {key}']):.1e}"
        value = max(errors[key])
        report.add(id, value, "1", reference=f"{told}; {cycles}; {without}", error=value)

    add(f"gnn.{name}.rel_l2", "few", f"{_FEW} cycles of conjugate gradients")
    add(f"gnn.{name}.linear_rel_l2", "surrogate", f"{_LINEAR} linear cycles")
    baseline = max(errors["message passing"])
    report.add(f"gnn.{name}.baseline_rel_l2", baseline, "1", reference=f"{told}; message passing")
    log(
        f"{name}: {told}; {_FEW} cycles {max(errors['few']):.1e}, {_LINEAR} linear ones "
        f"{max(errors['surrogate']):.1e}, message passing {baseline:.1e}"
    )


def _untrained():
    header = read_header(_trained("flux_multigrid"), "flux_multigrid")
    return build_network("flux_multigrid", header["hidden"], header["messages"])


def _trained(name: str) -> Path:
    return Path(str(importlib.resources.files("gnn_darcy"))) / "trained" / f"{name}.eqx"


def _curves(case: DarcyCase) -> dict[str, list[float]]:
    exact, operator, source = _direct(case), case.problem.operator, case.problem.source
    trained = flux_multigrid(case.mesh, case.permeability)
    untrained = eqx.tree_at(lambda m: m.network, trained, _untrained())
    out: dict[str, list[float]] = {}
    for told, method, mode in (
        ("learned, conjugate gradients", trained, "few"),
        ("untrained, conjugate gradients", untrained, "few"),
        ("learned, linear", trained, "surrogate"),
    ):
        state = _init(method, operator)
        run = lambda k, method=method, mode=mode, state=state: _solve(
            _with_mode(method, mode, k), state, source
        )
        out[told] = [_l2(run(k).pressure_tissue, exact) for k in _CURVE]
    baseline = _solve(message_passing(case.mesh), operator, source).pressure_tissue
    return out | {"message passing": [_l2(baseline, exact)]}


def _patient(report: Report, data: Path, quick: bool, log) -> None:
    sizes = {"lv_patient": 0} if quick else {"lv_patient": 0, "lv_patient_fine": 1}
    for name, refinements in sizes.items():
        case = cases.patient(data, refinements)
        if case is None:
            report.leave_out(name, f"{data} has no mesh of the subject's wall", log)
            return
        _accuracy(report, name, [case], log)


# ---------------------------------------------------------------- certificate


def _certificate(report: Report, size: tuple[int, int], log) -> np.ndarray:
    """What solutions say of their error beside it, for problems with K, exchange and source varied
    (full tensors: estimates), and behind thin walls of low K (two-point fluxes: bounds)."""
    meshes, number = size
    found = []
    for k in range(meshes):
        case = cases.held_out(_CERTIFICATE_TETS, 100 + k, "voxel" if k % 2 == 1 else "tet")
        method = flux_multigrid(case.mesh, case.permeability)
        for i, problem in enumerate(cases.variations(case, number)):
            mode, cycles = (("few", 2), ("few", 4), ("surrogate", 4), ("exact", 0))[i % 4]
            one = _with_mode(method, mode, cycles)
            solution = _solve(one, _init(one, problem.operator), problem.source)
            found.append(true_and_bound(problem, solution))
        jax.clear_caches()
    pairs = np.array(found)
    ratio = pairs[:, 1] / pairs[:, 0]
    told = f"{len(pairs)} problems on {meshes} meshes, modes in turn"
    add = lambda id, value, reference: report.add(f"gnn.{id}", value, "1", reference=reference)
    add("certificate_violations", float((ratio < 1.0).sum()), f"{told}; estimates below the error")
    add("certificate_beyond_ten", float((ratio > 10.0).sum()), f"{told}; beyond 10 times it")
    add(
        "certificate_ratio",
        float(np.median(ratio)),
        f"median of {ratio.min():.2f} … {ratio.max():.2f}",
    )
    log(f"certificate: {told}; estimate over error {ratio.min():.2f} … {ratio.max():.2f}")
    walls = _behind_walls()
    told = f"{len(walls)} problems, two-point fluxes, walls of 1e-3 to 1e-8 K; bar: "
    add("certificate_walls_least", min(walls), f"{told}{LEAST:g} at least")
    add("certificate_walls_most", max(walls), f"{told}{HARD:g} at most")
    log(f"certificate behind walls: bound over error {min(walls):.2f} … {max(walls):.2f}")
    return pairs


def _behind_walls() -> list[float]:
    """Bound over error with thin shells of low K around tissue with and without sinks."""
    mesh = voxels(_WALL_VOXELS)
    prepared = darcy_mesh(mesh)
    depth = np.linalg.norm(mesh.centre - mesh.centre[len(mesh.centre) // 2], axis=1)
    shell = np.abs(depth - 1e-2) < 0.6 * float(mesh.spacing[0])
    ratios = []
    for low in (1e-3, 1e-6, 1e-8):
        k = PERMEABILITY * np.where(shell, low, 1.0)
        method = flux_multigrid(prepared, jnp.asarray(k))
        transmissibility = prepared.transmissibility(jnp.asarray(k))
        for share in (1.0, 0.0):
            sink = jnp.asarray(BETA * mesh.volume * np.where(depth < 8e-3, share, 1.0))
            operator = darcy_operator(prepared.graph, transmissibility, sink)
            source = jnp.asarray(BETA * mesh.volume * (1.0 + np.tanh(1e2 * depth)))
            problem = DarcyProblem(operator, source)
            for mode, cycles in (("few", 4), ("surrogate", 4), ("exact", 0)):
                one = _with_mode(method, mode, cycles)
                found = _solve(one, _init(one, operator), source)
                if mode == "exact" or np.isfinite(float(found.error_estimate)):
                    true, bound = true_and_bound(problem, found)
                    ratios.append(bound / true)
    return ratios


# ---------------------------------------------------------------- to a tolerance


def _exact(report: Report, name: str, case: DarcyCase, log) -> None:
    operator, source = case.problem.operator, case.problem.source
    few = 3 if len(source) > 1e4 else 7
    start = time.perf_counter()
    trained = _with_mode(flux_multigrid(case.mesh, case.permeability), "exact", 0)
    setup = time.perf_counter() - start
    methods: dict[str, Any] = {
        "learned cycle": trained,
        "untrained cycle": eqx.tree_at(lambda m: m.network, trained, _untrained()),
        "jaxperf multigrid": multigrid(case.mesh, case.permeability, rtol=_RTOL),
        "jaxperf, diagonal": ConjugateGradient(rtol=_RTOL),
    }
    lines = {}
    for told, method in methods.items():
        state = jax.block_until_ready(_init(method, operator))
        found = _solve(method, state, source)
        if found.result != RESULTS.successful:
            raise RuntimeError(f"{told}: {RESULTS[found.result]}")
        lines[told] = {
            "mesh": name,
            "vertices": len(source),
            "solver": told,
            "coefficients_s": seconds(lambda m=method: _init(m, operator), repeat=few),
            "solve_s": seconds(lambda m=method, s=state: _solve(m, s, source), repeat=few),
            "iterations": int(found.iterations),
            "residual": float(found.residual),
        }
    report.tables.setdefault(_SOLVERS, []).extend(lines.values())
    ours = lines["learned cycle"]
    for told, line in lines.items():
        of = told.replace("jaxperf", "").strip(" ,").replace(" ", "_")
        report.add(
            f"gnn.exact_{name}.{of}_iterations",
            line["iterations"],
            "1",
            reference=f"solve {line['solve_s']:.4f} s, coefficients {line['coefficients_s']:.4f} s",
            ratio=line["solve_s"] / ours["solve_s"],
            error=line["residual"],
        )
    report.add(f"gnn.exact_{name}.setup_seconds", setup, "s", reference="plan, on the host")
    log(f"exact {name}: " + ", ".join(f"{k} {v['iterations']}" for k, v in lines.items()))


# ---------------------------------------------------------------- training, coupled solve


def _training(report: Report, log) -> None:
    for name in ("flux_multigrid", "message_passing"):
        header = read_header(_trained(name), name)
        told = f"{header['steps']} steps; best held-out error {header['held_out_error']:.2e}"
        report.add(f"gnn.{name}.training_seconds", header["seconds"], "s", reference=told)
        size = _trained(name).stat().st_size
        report.add(f"gnn.{name}.size", 1e-6 * size, "MB", reference="file of the package")
        log(f"{name}: trained in {header['seconds']:.0f} s, {told}")


def _coupled(report: Report, data: Path, size: tuple[int, float], log) -> None:
    try:
        reference_data(data)
    except MissingData as missing:
        report.leave_out("coupled", str(missing), log)
        return
    terminals, side = size
    case = composite_case(data, n_terminals=terminals, coarsen=side)
    mesh = case.problem.tissue.mesh
    by_multigrid = multigrid(mesh)
    found = calibrate(
        case.problem,
        mbf_rest_ml_min_g=_MBF_REST,
        mbf_hyperemia_ml_min_g=_MBF_STRESS,
        method=by_multigrid,
    )
    problem = measure.states_of(case, found).hyperemia
    k = problem.microcirculation.permeability
    learned = flux_multigrid(mesh, k)
    reference = solve_perfusion(problem, ConjugateGradient())
    taken = {}
    for told, method in (
        ("learned cycle", learned),
        ("jaxperf multigrid", by_multigrid),
        ("message passing", message_passing(mesh)),
    ):
        # It does not converge: what its limit is only says how long that takes.
        steps = 10 if told == "message passing" else 500
        solve = lambda problem, method, steps=steps: solve_perfusion(
            problem, method, throw=False, max_steps=min(steps, 50), max_linear_steps=steps
        )
        program, _ = measure.compiled(solve, problem, method)
        solution = program(problem, method)
        error = float(jnp.mean(jnp.abs(solution.mbf / reference.mbf - 1.0)))
        repeat = seconds(lambda p=program, m=method: p(problem, m), repeat=2)
        taken[told] = (solution, error, repeat)
        ending = RESULTS[solution.result] or "solved"
        log(f"coupled, {told}: MBF within {error:.1e}, {repeat:.3f} s; {ending}")
    solution, error, repeat = taken["learned cycle"]
    told = f"{case.description}; {int(solution.linear_iterations)} products, {repeat:.3f} s"
    ratio = taken["jaxperf multigrid"][2] / repeat
    report.add("gnn.coupled.mbf_error", error, "1", reference=told, ratio=ratio, error=error)
    for mode, cycles in (("few", _FEW), ("surrogate", _LINEAR)):
        error = float(_surrogate_error(problem, reference, _with_mode(learned, mode, cycles)))
        told = f"{cycles} cycles with the terminals' pressures of the coupled solution"
        report.add(f"gnn.coupled.{mode}_mbf_error", error, "1", reference=told, error=error)
        log(f"coupled, {mode}: MBF within {error:.1e}")
    solution, error, repeat = taken["message passing"]
    ending = RESULTS[solution.result] or "solved"
    told = f"message passing, 10 outer iterations a step, {repeat:.1f} s: {ending}"
    report.add("gnn.coupled.baseline_mbf_error", error, "1", reference=told)
    error = float(_surrogate_error(problem, reference, message_passing(mesh)))
    told = "message passing once with the terminals' pressures of the coupled solution"
    report.add("gnn.coupled.baseline_once_mbf_error", error, "1", reference=told)


@eqx.filter_jit
def _surrogate_error(problem, reference, method) -> Any:
    """Mean relative error of MBF where the tissue alone is solved, once."""
    tissue, bed = problem.tissue, problem.microcirculation
    per_cell = lambda beta: jnp.broadcast_to(beta, (tissue.n_cells,))[tissue.cell]
    fed = bed.dilation * tissue.overlap * per_cell(bed.beta_source)
    drained = bed.dilation * tissue.overlap * per_cell(bed.beta_sink)
    operator = darcy_operator(
        tissue.mesh.graph,
        tissue.mesh.transmissibility(bed.permeability),
        tissue.to_cells(fed + drained),
    )
    # Over the sink's pressure, which is a level and no flow.
    above = reference.terminal_pressure[tissue.terminal] - bed.pressure_sink
    source = tissue.to_cells(fed * above)
    pressure = method.solve(method.init(operator), source).pressure_tissue
    flow = tissue.to_cells(fed * (above - pressure[tissue.cell]))
    mbf = flow / (tissue.density * tissue.volume)
    return jnp.mean(jnp.abs(mbf / reference.mbf - 1.0))
