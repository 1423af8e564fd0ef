"""Named stages of a run, shown or silent."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

STAGES = (
    "read",
    "mesh",
    "territories",
    "compile",
    "calibrate",
    "rest",
    "hyperemia",
    "write",
    "figures",
)


class Progress:
    """Shows the stages of a run on a console, one line each, and keeps their seconds."""

    def __init__(self, console: Console | None = None):
        self.console = console
        self.seconds: dict[str, float] = {}
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
        self.seconds[name] = time.perf_counter() - begin
        if self.console is not None:
            place = f"{len(self.seconds)}/{len(STAGES)}"
            self.console.print(
                f"  [dim]{place}[/dim] {name:<12} {self.seconds[name]:6.1f} s", highlight=False
            )

    def note(self, text: str) -> None:
        """What is happening inside a stage."""
        if self._status is not None:
            self._status.update(text)
