"""`python -m benchmarks NAME [--quick] --json FILE [--figure FILE] [--data DIR]`."""

import argparse
import os
import sys
from pathlib import Path

import jax
from rich.console import Console

from ._composite import MissingData
from ._report import write_json
from .coupled import coupled
from .darcy import darcy
from .fit import fit_benchmark
from .flow1d import flow1d
from .forest import forest
from .gnn import gnn
from .gradients import gradients
from .startup import startup
from .trials import trials

_BENCHMARKS = {
    "coupled": coupled,
    "darcy": darcy,
    "fit": fit_benchmark,
    "forest": forest,
    "flow1d": flow1d,
    "gnn": gnn,
    "gradients": gradients,
    "startup": startup,
    "trials": trials,
}
_REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=_BENCHMARKS)
    parser.add_argument("--quick", action="store_true", help="the same rows on a smaller sample")
    parser.add_argument("--json", type=Path, required=True, help="where the rows go")
    parser.add_argument("--figure", type=Path, help="default: beside the rows, as .png")
    parser.add_argument("--data", type=Path, help="reference data; default JAXPERF_DATA")
    asked = parser.parse_args()
    named = asked.data or os.environ.get("JAXPERF_DATA") or _REPOSITORY.parent / "shared" / "data"
    figure = asked.figure or asked.json.with_suffix(".png")
    # A benchmark compares to 1e-10 and is its own process, so it may choose its precision.
    jax.config.update("jax_enable_x64", True)
    console = Console(stderr=True)
    try:
        report = _BENCHMARKS[asked.name](Path(named), quick=asked.quick, log=console.log)
    except MissingData as missing:
        console.print(f"[red]{missing}[/red]")
        return 2
    write_json(report.report, asked.json)
    report.draw(figure)
    report.report.show(Console(width=140))
    console.print(f"rows: {asked.json}   figure: {figure}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
