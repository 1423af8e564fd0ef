"""How long a first and a second run take, and what they compile: `python -m benchmarks startup`.

Every job runs in a process of its own, a first time with an empty cache of compiled programs and a
second time with what the first has left there.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._report import Report

_REPOSITORY = Path(__file__).resolve().parents[1]
_TABLE = "first and second run of each job"
# Limits of a quiet machine of two cores, in seconds.
_LIMITS = {"demo_cold": 45.0, "demo_warm": 18.0, "run_warm": 11.0}


@dataclass(frozen=True)
class StartupReport:
    """The rows, and the figure that belongs to them."""

    report: Report

    def draw(self, path: Path) -> None:
        """Seconds and programs of every job, first run beside second."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        lines = self.report.tables[_TABLE]
        jobs = [line["job"] for line in lines]
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True)
        place = range(len(jobs))
        for shift, run, colour in ((-0.2, "cold", "tab:blue"), (0.2, "warm", "tab:orange")):
            at = [p + shift for p in place]
            seconds = [float(line[f"seconds_{run}"]) for line in lines]
            left.barh(at, seconds, height=0.38, color=colour, label=run)
        right.barh(place, [float(line["programs"]) for line in lines], height=0.5, color="0.5")
        left.set_yticks(list(place), jobs)
        left.invert_yaxis()
        left.set_xlabel("seconds")
        right.set_xlabel("compiled programs")
        left.legend()
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def startup(data: Path, *, quick: bool, log: Callable[[str], None]) -> StartupReport:
    """Measure first and second runs; no reference data are needed.

    `quick` leaves out the pulsatile case and takes three imports in place of nine.
    """
    del data
    report = Report("startup", quick, "embedded demonstration, starter case, one process a job")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        jobs = _jobs(place, quick)
        for name, job in jobs.items():
            _job(report, name, job, place, log)
    _imports(report, 3 if quick else 9, log)
    return StartupReport(report)


def _jobs(place: Path, quick: bool) -> dict[str, list[str]]:
    """Argument lists of the command line; `OUT` stands for a new folder."""
    case = place / "case"
    subprocess.run(
        [sys.executable, "-m", "jaxperf.cli", "init", str(case)], check=True, capture_output=True
    )
    jobs = {
        "demo": ["demo", "--out", "OUT"],
        "run": ["run", str(case / "case.yaml"), "--out", "OUT"],
        "periodic": ["periodic"],
    }
    if not quick:
        pulsatile = _REPOSITORY / "examples" / "pulsatile.yaml"
        jobs["pulsatile"] = ["run", str(pulsatile), "--out", "OUT"]
    return jobs


def _job(
    report: Report, name: str, job: list[str], place: Path, log: Callable[[str], None]
) -> None:
    cache = place / f"cache-{name}"
    found = {}
    for run in ("cold", "warm"):
        out = str(place / f"{name}-{run}")
        found[run] = _probe([out if word == "OUT" else word for word in job], cache, place)
        log(f"{name} {run}: {found[run]['seconds']:.1f} s, {found[run]['programs']} programs")
        limit = _LIMITS.get(f"{name}_{run}")
        told = None if limit is None else f"at most {limit:g} on two quiet cores"
        report.add(
            f"startup.{name}_{run}_seconds",
            found[run]["seconds"],
            "s",
            reference=told,
            ratio=None if limit is None else limit / found[run]["seconds"],
        )
    if found["warm"]["renders"]:
        report.add(
            f"startup.{name}_render_cpu_seconds",
            found["warm"]["render_cpu_seconds"],
            "s",
            reference=f"{found['warm']['renders']} pictures; six at most 1",
        )
    report.add(f"startup.{name}_programs", found["cold"]["programs"], "1")
    report.add(
        f"startup.{name}_cache_misses", found["warm"]["misses"], "1", reference="0 in a second run"
    )
    columns = {f"{what}_{run}": found[run][what] for run in found for what in _COLUMNS}
    table = report.tables.setdefault(_TABLE, [])
    table.append({"job": name, "programs": found["cold"]["programs"], **columns})


_COLUMNS = ("seconds", "cpu_seconds", "hits", "misses")


def _probe(job: list[str], cache: Path, place: Path) -> dict[str, Any]:
    """Run a job in a process of its own with this cache."""
    report = place / "probe.json"
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._startup_probe", str(report), *job],
        cwd=_REPOSITORY,
        env={**os.environ, "JAXPERF_CACHE_DIR": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.perf_counter() - begin
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(job)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return {"seconds": took, **json.loads(report.read_text(encoding="utf-8"))}


def _imports(report: Report, repeat: int, log: Callable[[str], None]) -> None:
    """`import jaxperf` over `import equinox`, by processor time and taken in turn."""
    ratios, own = [], []
    _cpu_seconds("import jaxperf")
    for _ in range(repeat):
        theirs, ours = _cpu_seconds("import equinox"), _cpu_seconds("import jaxperf")
        ratios.append(ours / theirs)
        own.append(ours)
    ratio = statistics.median(ratios)
    report.add("startup.import_seconds", statistics.median(own), "s")
    report.add("startup.import_ratio", ratio, "1", reference="import equinox; at most 1.4")
    log(f"import: {ratio:.2f} times that of equinox")


def _cpu_seconds(code: str) -> float:
    """Processor time of a new process that runs this code."""
    told = f"{code}\nimport time\nprint(time.process_time())"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, cwd=_REPOSITORY
    )
    return float(done.stdout)
