"""`python -m bridges cross-check CASE`."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import jax
import typer
from rich.console import Console
from rich.markup import escape

from jaxperf._cache import enable_compilation_cache
from jaxperf._misc import InputError
from jaxperf._results import SolveError
from jaxperf.casefile import load_case

from ._cases import CheckCase, coupled_case, darcy_case, flow1d_case, gnn_case, steady_case
from ._fit_cases import fit_case, fit_curvature_case

# Of any case: values, derivatives by the reference and by forward mode, and by differences.
_VALUE, _REFERENCE, _DIFFERENCES = 1e-9, 1e-7, 1e-6
_BUILT_IN: dict[str, Callable[[], CheckCase]] = {
    "steady": steady_case,
    "flow1d": flow1d_case,
    "darcy": darcy_case,
    "coupled": coupled_case,
    "gnn": gnn_case,
    "fit": fit_case,
    "fit-curvature": fit_curvature_case,
}

app = typer.Typer(
    help="jaxperf beside torch.", no_args_is_help=True, pretty_exceptions_enable=False
)


@app.callback()
def _main() -> None:
    """jaxperf beside torch."""


@app.command("cross-check")
def cross_check_command(
    case: Annotated[
        str, typer.Argument(help=f"One of {', '.join(_BUILT_IN)}, or a case file (YAML).")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="JSON to write; a figure is written beside it.")
    ] = Path("cross-check.json"),
) -> None:
    """A quantity and its gradient by adjoint, forward mode, torch's autograd and differences.

    Of a case file: mean blood flow in hyperemia. Exits with 1 where ways disagree.
    """
    console = Console(stderr=True)
    # Differences need the digits, and the process is the user's own here.
    jax.config.update("jax_enable_x64", True)
    enable_compilation_cache(lambda line: console.print(line, markup=False))
    try:
        with console.status(f"{case}: building"):
            checked = _case(case)
        with console.status(f"{checked.name}: four ways"):
            found = checked.check()
    except InputError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        sys.exit(2)
    except SolveError as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        sys.exit(1)
    found.save(out)
    found.show(Console(width=160))
    console.print(f"written: {out} and {out.with_suffix('.png')}")
    told = found.disagreements(value=_VALUE, reference=_REFERENCE, differences=_DIFFERENCES)
    for sentence in told:
        console.print(f"[red]{escape(sentence)}[/red]")
    sys.exit(1 if told else 0)


def _case(name: str) -> CheckCase:
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    path = Path(name)
    if not path.is_file():
        raise InputError(
            "there is no such case",
            where=name,
            expected=f"one of {', '.join(_BUILT_IN)}, or a case file",
            fix="Name one of these; jaxperf init DIR writes a case file",
        )
    return coupled_case(load_case(path), path.parent)


if __name__ == "__main__":
    app()
