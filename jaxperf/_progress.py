"""Named stages of a run, shown or silent."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class _Told:
    """What a stage has said last: what it does, and how much of how much is done.

    `since` is when the first count of the same kind came, and `before` what was done then.
    """

    what: str = ""
    done: int | None = None
    total: int | None = None
    at_most: bool = False
    since: float = 0.0
    before: int = 0
    detail: str = ""

    def text(self, seconds: float) -> str:
        """One line of it: time gone, time left, what is done of how much, the detail."""
        gone = _span(seconds)
        detail = f", {self.detail}" if self.detail else ""
        if self.done is None or self.total is None:
            return f"{gone}, {self.what}{detail}" if self.what else gone
        most = "at most " if self.at_most else ""
        count = f"{self.done} of {most}{self.total} {self.what}{detail}"
        if self.done == self.before:
            return f"{gone}, {count}"
        pace = (time.perf_counter() - self.since) / (self.done - self.before)
        return f"{gone}, {most}{_span(pace * (self.total - self.done))} left, {count}"


class _Stage:
    """A stage that is running."""

    def __init__(self, name: str) -> None:
        self.name, self.begin = name, time.perf_counter()
        # replaced as a whole, because another thread reads it
        self.told = _Told()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.begin

    def tell(
        self, what: str, done: int | None, total: int | None, at_most: bool, detail: str
    ) -> None:
        told = self.told
        if told.what == what and told.done is not None:
            since, before = told.since, told.before
        else:
            since, before = time.perf_counter(), done or 0
        self.told = _Told(what, done, total, at_most, since, before, detail)

    def text(self) -> str:
        return self.told.text(self.seconds)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{seconds:.0f} s" if seconds < 100.0 else f"{minutes} min {rest} s"


class Progress:
    """Shows the stages of a run on a console, one line each, and keeps their seconds.

    While a stage runs, a terminal shows a bar with the time left, or a spinner where the stage
    does not count; anything else gets a line every few seconds.

    **Arguments:** `console`: None to be silent; `every`: seconds between the lines of a stage.
    """

    def __init__(self, console: Console | None = None, every: float = 10.0) -> None:
        self.console, self.every = console, every
        self.seconds: dict[str, float] = {}
        self.stages: tuple[str, ...] = ()
        self._stage: _Stage | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage; the line that stays of it appears when it has succeeded."""
        self._stage = stage = _Stage(name)
        if self.console is None:
            yield
        elif self.console.is_terminal and not self.console.is_dumb_terminal:
            spinner = Spinner("dots")
            row = lambda: _row(stage, spinner)
            with Live(
                console=self.console, get_renderable=row, transient=True, refresh_per_second=4
            ):
                yield
        else:
            with self._lines(stage):
                yield
        self.seconds[name] = stage.seconds
        self.say(f"  {self._place(len(self.seconds))} {name:<12} {stage.seconds:6.1f} s")

    def tell(
        self,
        what: str,
        done: int | None = None,
        total: int | None = None,
        *,
        at_most: bool = False,
        detail: str = "",
    ) -> None:
        """What is happening in a stage, in words, or as a count of things: `done` of `total`.

        Time left is told from the pace since the first count of the same `what`; `detail` stands
        behind it and may change with every count.
        """
        if self._stage is not None:
            self._stage.tell(what, done, total, at_most, detail)

    def say(self, text: str) -> None:
        """A line that stays."""
        if self.console is not None:
            self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _place(self, number: int) -> str:
        return f"{number}/{len(self.stages)}"

    @contextmanager
    def _lines(self, stage: _Stage) -> Iterator[None]:
        """Lines while the block runs, from a thread, as what it does may be one long call."""
        over, place = threading.Event(), self._place(len(self.seconds) + 1)

        def speak() -> None:
            while not over.wait(self.every):
                self.say(f"  {place} {stage.name}: {stage.text()}")

        thread = threading.Thread(target=speak, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _row(stage: _Stage, spinner: Spinner) -> Table:
    told = stage.told
    row = Table.grid(padding=(0, 1))
    for _ in range(2):
        row.add_column(no_wrap=True)
    row.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=told.total, completed=told.done or 0, width=20)
    row.add_row(
        f"  {stage.name}",
        spinner if told.total is None else bar,
        Text(stage.text()),
    )
    return row
