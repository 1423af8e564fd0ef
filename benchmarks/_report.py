"""What a benchmark returns: rows, tables and a figure; the machine and the versions beside them."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from jaxperf import io
from jaxperf._versions import versions


@dataclass(frozen=True)
class Row:
    """One measured figure.

    `value` in `unit`; `reference`, what it is compared with and where that comes from; `ratio`,
    the other's time over ours; `error`, the disagreement with the reference or the correctness
    that goes with a time.
    """

    id: str
    value: float
    unit: str
    reference: str | None = None
    ratio: float | None = None
    error: float | None = None


@dataclass
class Report:
    """A benchmark's outcome; `sample` says what was measured on."""

    benchmark: str
    quick: bool
    sample: str
    rows: list[Row] = field(default_factory=list)
    tables: dict[str, list[dict[str, float | str]]] = field(default_factory=dict)

    def add(
        self,
        id: str,
        value: float,
        unit: str,
        *,
        reference: str | None = None,
        ratio: float | None = None,
        error: float | None = None,
    ) -> None:
        """Append a row; numbers may be arrays of one entry."""
        plain = lambda number: None if number is None else float(number)
        self.rows.append(Row(id, float(value), unit, reference, plain(ratio), plain(error)))

    def leave_out(self, rows: str, missing: str, log: Callable[[str], None]) -> None:
        """Say which rows are not there, and what they would need."""
        self.tables.setdefault("left out", []).append({"rows": rows, "missing": missing})
        log(f"[red]{rows} left out:[/red] {missing}")

    def as_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "quick": self.quick,
            "sample": self.sample,
            "machine": machine(),
            "versions": versions(),
            "rows": [asdict(row) for row in self.rows],
            "tables": self.tables,
        }

    def show(self, console: Console) -> None:
        """Print the tables and the rows."""
        console.print(f"[bold]{self.benchmark}[/bold]: {self.sample}")
        for title, lines in self.tables.items():
            table = Table(*lines[0], title=title)
            for line in lines:
                table.add_row(*(_text(v) for v in line.values()))
            console.print(table)
        table = Table("id", "value", "unit", "error", "ratio", "reference")
        for row in self.rows:
            shown = (row.id, row.value, row.unit, row.error, row.ratio, row.reference)
            table.add_row(*(_text(v) for v in shown))
        console.print(table)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write_json(report: Report, path: Path) -> None:
    """Write the report, whole or not at all; a figure that is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    io.write_json(path, report.as_json())


def machine() -> dict[str, Any]:
    """What the figures were taken on, and how busy it was."""
    device = jax.devices()[0]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_1_min": round(os.getloadavg()[0], 2),
        "system": platform.system(),
        "device": f"{device.platform}: {device.device_kind}",
        "x64": bool(jax.config.read("jax_enable_x64")),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def add_peak_memory(report: Report, id: str) -> None:
    """A row with the largest memory of this process so far, where the system tells."""
    if sys.platform == "win32":
        return
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # in kilobytes, but for one system
    size = peak if sys.platform == "darwin" else 1024.0 * peak
    told = "of this process, everything before and JAX itself included"
    report.add(id, 1e-6 * size, "MB", reference=told)


def seconds(run: Callable[[], Any], *, repeat: int, warm_up: int = 1) -> float:
    """Median wall time of a call, after warming up, until its arrays are there."""
    for _ in range(warm_up):
        jax.block_until_ready(run())
    taken = []
    for _ in range(repeat):
        start = time.perf_counter()
        jax.block_until_ready(run())
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def seconds_of_both(
    first: Callable[[], Any], second: Callable[[], Any], *, repeat: int
) -> tuple[float, float, float]:
    """Median times of two calls, and the median of second over first, taken in turn.

    In turn, because a shared machine is not equally busy from one minute to the next.
    """
    pairs = []
    for call in (first, second):
        jax.block_until_ready(call())
    for _ in range(repeat):
        pairs.append([seconds(call, repeat=1, warm_up=0) for call in (first, second)])
    ratios = [b / a for a, b in pairs]
    one, two = zip(*pairs, strict=True)
    return statistics.median(one), statistics.median(two), statistics.median(ratios)
