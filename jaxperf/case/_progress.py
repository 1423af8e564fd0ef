"""Named stages of a run, shown or silent."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from ._schema import Case

STAGES = (
    "read",
    "mesh",
    "forest",
    "territories",
    "compile",
    "calibrate",
    "rest",
    "hyperemia",
    "pulsatile",
    "write",
    "figures",
)


def stages(case: Case) -> tuple[str, ...]:
    """The stages that a run of a case goes through."""
    left_out = {"forest"} if case.growth is None else set()
    left_out |= {"pulsatile"} if case.flow == "steady" else set()
    left_out |= set() if case.output.figures else {"figures"}
    return tuple(name for name in STAGES if name not in left_out)


class Progress:
    """Shows the stages of a run on a console, one line each, and keeps their seconds."""

    def __init__(self, console: Console | None = None):
        self.console = console
        self.seconds: dict[str, float] = {}
        self.stages: tuple[str, ...] = STAGES
        self._status = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage; its line appears when it has succeeded."""
        begin = time.perf_counter()
        if self.console is None:
            yield
        else:
            with self.console.status(f"{name} …") as self._status:
                yield
            self._status = None
        self._done(name, begin)

    @contextmanager
    def bar(self, name: str, unit: str) -> Iterator[Callable[[int, int], None]]:
        """A long stage that counts; the block gets a function of what is done and the total."""
        begin = time.perf_counter()
        if self.console is None:
            yield lambda done, total: None
        else:
            with _bar(self.console, unit) as bar:
                task = bar.add_task(name, total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        self._done(name, begin)

    def note(self, text: str) -> None:
        """What is happening inside a stage."""
        if self._status is not None:
            self._status.update(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _done(self, name: str, begin: float) -> None:
        self.seconds[name] = time.perf_counter() - begin
        if self.console is not None:
            place = f"{len(self.seconds)}/{len(self.stages)}"
            self.console.print(
                f"  [dim]{place}[/dim] {name:<12} {self.seconds[name]:6.1f} s", highlight=False
            )


def _bar(console: Console, unit: str):
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress as Bar,
        TextColumn,
        TimeRemainingColumn,
    )

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
