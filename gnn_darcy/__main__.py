"""`python -m gnn_darcy train CONFIG`."""

import sys
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from jaxperf._cache import enable_compilation_cache
from jaxperf._misc import InputError

from ._config import read_config
from ._train import train

app = typer.Typer(help="Graph networks for the Darcy problem.", no_args_is_help=True)


@app.callback()
def _main() -> None:
    """Graph networks for the Darcy problem."""


@app.command("train")
def train_command(config: Path) -> None:
    """Train a network as CONFIG says, or go on with it where it was stopped."""
    console = Console()
    enable_compilation_cache(lambda line: console.print(line, markup=False))
    try:
        asked = read_config(config)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("held-out cases", total=asked.steps)
            held_out = "–"

            def report(step: int, loss: float, error: float | None) -> None:
                nonlocal held_out
                if error is not None:
                    held_out = f"{error:.3g}"
                    bar.console.log(f"step {step}: loss {loss:.4g}, held-out error {held_out}")
                told = f"loss {loss:.4g}, held-out error {held_out}"
                bar.update(task, completed=step, description=told)

            written = train(asked, config.parent / asked.out, report=report)
    except (InputError, FloatingPointError) as error:
        console.print(f"[red]{escape(str(error))}[/red]")
        sys.exit(2)
    console.print(f"the network that was best on held-out cases: {written}")


if __name__ == "__main__":
    app()
