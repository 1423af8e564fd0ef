"""What a run says while it works, on a terminal and elsewhere."""

import io
import time

import pytest
from rich.console import Console

from jaxperf import Progress


def console(**settings) -> Console:
    return Console(file=io.StringIO(), width=100, **settings)


def lines(shown: Console) -> list[str]:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue().splitlines()


def test_a_stage_that_is_one_long_call_speaks_all_the_same(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr("jaxperf._progress.time.perf_counter", lambda: now[0])
    shown = console()
    progress = Progress(shown, every=0.01)
    progress.stages = ("compile", "rest")
    with progress.stage("compile"):
        end = time.monotonic() + 30.0
        while len(lines(shown)) < 4 and time.monotonic() < end:
            time.sleep(0.01)
        now[0] += 0.3
    said = lines(shown)
    assert len(said) >= 5
    assert all(line == "  1/2 compile: 0 s" for line in said[:-1])
    assert said[-1].split() == ["1/2", "compile", "0.3", "s"]
    time.sleep(0.1)
    assert lines(shown) == said
    assert progress.seconds["compile"] == pytest.approx(0.3)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_done_of_how_much_and_time_left(monkeypatch, is_terminal):
    now = [1000.0]
    monkeypatch.setattr("jaxperf._progress.time.perf_counter", lambda: now[0])
    shown = console(force_terminal=is_terminal)
    progress = Progress(shown, every=0.01)
    progress.stages = ("compile", "rest")

    def said(text: str) -> None:
        """Wait for a text, which another thread writes."""
        end = time.monotonic() + 5.0
        while text not in shown.file.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
        assert text in shown.file.getvalue(), shown.file.getvalue()

    with progress.stage("forest"):
        now[0] += 40.0
        said("40 s")
        progress.tell("terminals", 1000, 5000)
        said("40 s, 1000 of 5000 terminals")
        now[0] += 20.0
        # what was done before the first count says nothing of the pace
        progress.tell("terminals", 2000, 5000)
        said("60 s, 60 s left, 2000 of 5000 terminals")
        progress.tell("cycles [at rest]", 0, 20, at_most=True)
        said("60 s, 0 of at most 20 cycles [at rest]")
        now[0] += 60.0
        progress.tell("cycles [at rest]", 1, 20, at_most=True)
        said("2 min 0 s, at most 19 min 0 s left, 1 of at most 20 cycles [at rest]")
        progress.tell("closing [the file]")
        said("2 min 0 s, closing [the file]")
        progress.tell("steps", 3, 9, detail="misfit 12")
        said("2 min 0 s, 3 of 9 steps, misfit 12")
    assert "forest        120.0 s" in lines(shown)[-1]
    assert ("━" in shown.file.getvalue()) == is_terminal


def test_a_stage_that_fails_says_no_more():
    shown = console()
    progress = Progress(shown, every=0.02)
    with pytest.raises(KeyboardInterrupt), progress.stage("compile"):
        raise KeyboardInterrupt
    time.sleep(0.06)
    assert lines(shown) == [] and progress.seconds == {}


def test_without_a_console_nothing_is_said(capfd):
    progress = Progress()
    with progress.stage("read"):
        progress.tell("rows", 1, 2)
    progress.say("done")
    assert set(progress.seconds) == {"read"} and capfd.readouterr() == ("", "")
