"""Values and gradients beside the torch reference: `python -m benchmarks gradients`."""

import resource
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch

from bridges import (
    borrowed_by_jax,
    borrowed_by_torch,
    CrossCheck,
    jax_as_torch,
    jax_to_torch,
    torch_as_jax,
)
from bridges._cases import (
    CheckCase,
    coupled_case,
    darcy_case,
    flow1d_case,
    gnn_case,
    steady_case,
    transient_case,
)
from bridges._fit_cases import fit_case, fit_curvature_case
from jaxperf.flow1d import SavePoints

from ._flow1d_cases import LEFT_CORONARY, left_coronary
from ._measure import compiled
from ._report import add_peak_memory, Report

_BATCH, _QUICK_BATCH = 32, 4
_SPREAD = 0.01  # of the parameters of a batch, relative
_CALLS, _QUICK_CALLS = 100_000, 4_000
_THREADS = 4


@dataclass(frozen=True)
class GradientsReport:
    """The rows, and what its figure shows."""

    report: Report
    checks: list[CrossCheck]
    ratios: dict[str, dict[str, float]]

    def draw(self, path: Path) -> None:
        """Differences from the adjoint by quantity and way, and times of torch over ours."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6))
        names = [check.name for check in self.checks]
        ways = list(dict.fromkeys(c.name for check in self.checks for c in check.comparisons))
        for k, way in enumerate(ways):
            found = [
                max(next(c for c in check.comparisons if c.name == way).worst, 1e-17)
                for check in self.checks
            ]
            left.semilogy(np.arange(len(names)) + 0.15 * (k - 1), found, "o", label=way)
        left.set_xticks(range(len(names)), names, rotation=20, ha="right", fontsize=8)
        left.set_ylabel("difference of derivatives from the adjoint, relative")
        left.legend(fontsize=8)
        kinds = list(dict.fromkeys(kind for each in self.ratios.values() for kind in each))
        for k, kind in enumerate(kinds):
            at = [i for i, n in enumerate(self.ratios) if kind in self.ratios[n]]
            found = [each[kind] for each in self.ratios.values() if kind in each]
            right.bar(np.array(at) + 0.25 * (k - 1), found, 0.25, label=kind)
        right.axhline(1.0, color="k", lw=0.8)
        right.set_yscale("log")
        right.set_xticks(range(len(self.ratios)), list(self.ratios), rotation=20, ha="right")
        right.tick_params(axis="x", labelsize=8)
        right.set_ylabel("time of the torch reference over jaxperf's")
        right.legend(fontsize=8)
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def gradients(data: Path, *, quick: bool, log: Callable[[str], None]) -> GradientsReport:
    """Measure every row; the left coronary needs data."""
    report = Report("gradients", quick, "jaxperf beside bridges.reference, float64")
    # One process, two solvers: as many threads for either.
    report.tables["threads"] = [{"torch": str(torch.get_num_threads())}]
    checks: list[CrossCheck] = []
    ratios: dict[str, dict[str, float]] = {}
    batch = _QUICK_BATCH if quick else _BATCH

    def measure(id: str, case: CheckCase, *, batched: bool = True) -> None:
        check, times = _measured(report, id, case, batch if batched else None, log)
        checks.append(check)
        ratios[case.name] = times
        jax.clear_caches()

    measure("steady", steady_case())
    measure("flow1d", flow1d_case(**({"cell_time": 2e-3, "samples": 20} if quick else {})))
    _left_coronary(report, data, quick, measure, log)
    for size in (1e3,) if quick else (1e4, 1e5):
        measure("darcy" if size <= 1e4 else "darcy_1e5", darcy_case(size))
    measure("coupled", coupled_case())
    measure("gnn", gnn_case())
    measure("fit", fit_case(), batched=False)
    measure("fit_curvature", fit_curvature_case(), batched=False)
    measure("gnn_message_passing", gnn_case("message_passing"))
    _wrappers(report, _QUICK_CALLS if quick else _CALLS, log)
    _cuda(report, log)
    add_peak_memory(report, "gradients.peak_memory")
    return GradientsReport(report, checks, ratios)


def _left_coronary(report: Report, data: Path, quick: bool, measure, log) -> None:
    if not (data / LEFT_CORONARY).is_file():
        report.leave_out("flow1d_left_coronary", f"{data / LEFT_CORONARY} is not there", log)
        return
    problem = left_coronary(data, 2e-3 if quick else 5e-4)[1]
    # In the inlet, and at the last outlet.
    points = SavePoints([0, problem.network.n_segments - 1], [0.5, 0.5])
    samples = 20 if quick else 100
    case = transient_case(problem, points, name="flow, left coronary", samples=samples)
    # A batch of 32 holds more steps of the reference than memory.
    measure("flow1d_left_coronary", case, batched=False)


# ---------------------------------------------------------------- one quantity


def _measured(
    report: Report, id: str, case: CheckCase, batch: int | None, log
) -> tuple[CrossCheck, dict[str, float]]:
    """Rows of values, gradients, times and memory of a case."""
    name = f"gradients.{id}"
    found = eqx.filter_jit(case.solve)(case.parameters, case.bound)
    fields = {key: np.asarray(value) for key, value in found.items()}
    with torch.no_grad():
        given = {key: jax_to_torch(value).cpu() for key, value in case.parameters.items()}
        other = {key: value.cpu().numpy() for key, value in case.reference(given).items()}
    apart = {k: np.max(np.abs(fields[k] - other[k])) / np.max(np.abs(other[k])) for k in other}
    worst = _worst(apart)
    told = f"largest difference over largest value; worst field {worst} of {', '.join(apart)}"
    report.add(f"{name}.value_error", apart[worst], "1", reference=told, error=apart[worst])
    check = case.check()
    ways = {way.name: way for way in check.ways}
    beside = {other.name: other for other in check.comparisons}
    by_torch = beside["torch"].gradient
    worst = _worst(by_torch)
    told = f"adjoint beside torch's autograd; worst parameter {worst} of {', '.join(by_torch)}"
    error = by_torch[worst]
    report.add(f"{name}.gradient_error", error, "1", reference=told, error=error)
    for way, key in (("forward mode", "forward_error"), ("differences", "differences_error")):
        own = ways[way].error
        told = f"{len(ways[way].directional)} directions" + (
            "" if own is None else f"; differences are good for {own:.1e}"
        )
        report.add(f"{name}.{key}", beside[way].directional, "1", reference=told)
    ours, theirs = ways["adjoint"], ways["torch"]
    ratios = {
        "value": theirs.seconds_value / ours.seconds_value,
        "with gradient": theirs.seconds_gradient / ours.seconds_gradient,
    }
    told = f"ours {ours.seconds_gradient:.3g} s, torch {theirs.seconds_gradient:.3g} s"
    row = {"unit": "1", "reference": told, "ratio": ratios["with gradient"], "error": error}
    report.add(f"{name}.speed_ratio", ratios["with gradient"], **row)
    told = f"ours {ours.seconds_value:.3g} s, torch {theirs.seconds_value:.3g} s"
    row |= {"reference": told, "ratio": ratios["value"]}
    report.add(f"{name}.value_speed_ratio", ratios["value"], **row)
    told = f"value and gradient; torch keeps {theirs.megabytes:.3g} MB"
    memory = ours.megabytes or 0.0
    report.add(f"{name}.memory", memory, "MB", reference=told)
    if batch is not None:
        ratios["batch"] = _batched(report, name, case, batch)
    shown = ", ".join(f"{key} {value:.3g}" for key, value in ratios.items())
    log(f"{id}: values {apart[_worst(apart)]:.1e}, gradients {error:.1e}; torch over ours: {shown}")
    return check, ratios


def _batched(report: Report, name: str, case: CheckCase, number: int) -> float:
    """Value and gradient of many cases: `vmap` here, an axis in front or a loop there."""
    rng = np.random.default_rng(0)
    spread = lambda x: x * jnp.asarray(1.0 + _SPREAD * rng.uniform(-1, 1, (number, *x.shape)))
    many = {key: spread(value) for key, value in case.parameters.items()}
    every = jax.vmap(jax.value_and_grad(case.quantity), in_axes=(0, None))
    run, _ = compiled(every, many, case.bound)
    value, gradient = run(many, case.bound)
    ours = _least(lambda: run(many, case.bound))
    tensors = {key: jax_to_torch(v).cpu().requires_grad_() for key, v in many.items()}

    def theirs():
        if case.is_batched:
            total = case.reference_quantity(tensors)
            return total, torch.autograd.grad(total, list(tensors.values()))
        found = []
        for k in range(number):
            one = {key: v[k].detach().requires_grad_() for key, v in tensors.items()}
            total = case.reference_quantity(one)
            found.append((total, torch.autograd.grad(total, list(one.values()))))
        parts = zip(*(g for _, g in found), strict=True)
        return sum(t for t, _ in found), [torch.stack(part) for part in parts]

    total: Any
    total, found = theirs()
    apart = [
        float(np.linalg.norm(f.numpy() - gradient[key]) / np.linalg.norm(gradient[key]))
        for key, f in zip(many, found, strict=True)
    ]
    # np.max keeps what is no number
    error = float(np.max([*apart, abs(float(total.detach()) / float(jnp.sum(value)) - 1.0)]))
    spent = _least(theirs)
    how = "an axis in front" if case.is_batched else "a loop"
    told = f"{number} cases, values and gradients: ours {ours:.3g} s, torch, {how}, {spent:.3g} s"
    ratio = spent / ours
    report.add(f"{name}.batch_speed_ratio", ratio, "1", reference=told, ratio=ratio, error=error)
    return ratio


def _worst(errors: dict[str, float]) -> str:
    """The name of the largest; of one that is no number, where there is one."""
    return list(errors)[int(np.argmax(list(errors.values())))]


def _least(run: Callable[[], Any]) -> float:
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - start)
    return min(taken)


# ---------------------------------------------------------------- wrappers, devices


def _wrappers(report: Report, calls: int, log) -> None:
    """Calls from four threads, under jit and vmap: seconds of one, and what the process grows."""
    torch.manual_seed(0)
    module = torch_as_jax(torch.nn.Linear(64, 64).double())
    x = jnp.ones((4, 64))
    through_torch = jax.jit(jax.vmap(jax.value_and_grad(lambda x: jnp.sum(module(x) ** 2))))
    function = jax_as_torch(lambda x: jnp.sum(jnp.sin(x) ** 2))
    tensor = torch.ones((4, 64), dtype=torch.float64, requires_grad=True)

    def through_jax():
        value = torch.func.vmap(function)(tensor).sum()
        torch.autograd.grad(value, tensor)

    for name, run in (
        ("torch_as_jax", lambda: jax.block_until_ready(through_torch(x))),
        ("jax_as_torch", through_jax),
    ):
        _together(run, max(calls // 10, 400))
        before, start = _resident(), time.perf_counter()
        _together(run, calls)
        spent, grown = time.perf_counter() - start, _resident() - before
        told = f"{calls} calls from {_THREADS} threads, value and gradient of 4 cases by vmap"
        report.add(f"gradients.{name}.call", 1e6 * spent / calls, "µs", reference=told)
        report.add(f"gradients.{name}.growth", grown, "MB", reference=told)
        log(f"{name}: {calls} calls in {spent:.0f} s, resident memory {grown:+.1f} MB")


def _together(run: Callable[[], Any], calls: int) -> None:
    def work() -> None:
        for _ in range(calls // _THREADS):
            run()

    threads = [threading.Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _resident() -> float:
    """Megabytes of this process in memory."""
    if not sys.platform.startswith("linux"):
        return float("nan")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return 1e-6 * pages * resource.getpagesize()


def _cuda(report: Report, log) -> None:
    if jax.default_backend() != "gpu" or not torch.cuda.is_available():
        report.leave_out("gradients.cuda", "no CUDA in JAX and torch", log)
        return
    array = jnp.arange(6.0)
    with borrowed_by_torch(array) as tensor:
        there = tensor.data_ptr() == array.unsafe_buffer_pointer()
    lent = torch.arange(6.0, device="cuda")
    with borrowed_by_jax(lent) as array:
        back = array.unsafe_buffer_pointer() == lent.data_ptr()
    report.add("gradients.cuda.shared", float(there and back), "1", reference="pointers are equal")
