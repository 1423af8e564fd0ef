"""Run folders of real processes that are killed, hung up, or run side by side."""

import errno
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

from jaxperf import InputError
from jaxperf.jobs import run_folder

posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
REPOSITORY = Path(__file__).resolve().parents[1]
# The command line in a process for each folder; its runs write half a folder and wait. The
# process of the folder "hang" has a terminal, whose number is the first argument.
_WAITING = """
import fcntl, os, signal, sys, termios, time
from jaxperf import cli
from jaxperf.jobs._folder import run_folder

def wait(case, *, out, overwrite, progress, report):
    with run_folder(out, overwrite) as folder:
        (folder / "half").write_text("half")
        os.write(1, f"begun {os.getpid()} {out}\\n".encode())
        with progress.stage("compile"):
            time.sleep(120.0)

cli.jobs.run_case = wait
terminal, *outs = sys.argv[1:]
for out in outs:
    if os.fork() == 0:
        if "hang" in out:
            os.setsid()
            fcntl.ioctl(int(terminal), termios.TIOCSCTTY, 0)
            os.dup2(int(terminal), 2)
        if "nohup" in out:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        sys.argv = ["jaxperf", "demo", "--out", out]
        cli.main()
for _ in outs:
    number, status = os.wait()
    os.write(1, f"ended {number} {os.waitstatus_to_exitcode(status)}\\n".encode())
"""


@dataclass
class Waiting:
    """A run that waits with half its folder written.

    `said` is what the runs print, `terminal` the other end of the terminal of the run in "hang".
    """

    number: int
    out: Path
    said: IO[str]
    terminal: int

    def kill(self, by: int) -> int:
        """The exit code that a signal leads to."""
        os.kill(self.number, by)
        return self.ended()

    def ended(self) -> int:
        word, number, code = self.said.readline().split()
        assert (word, int(number)) == ("ended", self.number)
        return int(code)

    @property
    def hidden(self) -> list[Path]:
        return [path for path in self.out.parent.iterdir() if path.name.startswith(".")]


def write(out: Path, text: str, overwrite: bool = False) -> None:
    with run_folder(out, overwrite) as folder:
        (folder / "summary.json").write_text(text)


def content(out: Path) -> str:
    return (out / "summary.json").read_text()


@pytest.fixture(scope="module")
def waiting(tmp_path_factory):
    """Waiting runs by the name of the folder that they are in."""
    names = ("kill", "term", "hang", "nohup")
    outs = [tmp_path_factory.mktemp(name) / "out" for name in names]
    terminal, other = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITING, str(other), *map(str, outs)],
        pass_fds=[other],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"},
        start_new_session=True,
    )
    os.close(other)
    said = process.stdout
    assert said is not None
    runs = {}
    try:
        for _ in names:
            word, number, out = said.readline().split()
            assert word == "begun"
            name = names[outs.index(Path(out))]
            runs[name] = Waiting(int(number), Path(out), said, terminal)
        yield runs
    finally:
        # those that a failed test has left, too; what has a terminal is in a group of its own
        for group in (process.pid, *(run.number for name, run in runs.items() if name == "hang")):
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        process.wait()
        said.close()


@posix
def test_the_folder_of_a_killed_run_is_removed_and_one_in_use_is_not(waiting):
    run = waiting["kill"]
    (folder,) = (path for path in run.hidden if path.is_dir())
    with pytest.raises(InputError, match="another run is writing it"):
        write(run.out, "second")
    assert (folder / "half").exists()
    assert run.kill(signal.SIGKILL) == -signal.SIGKILL
    assert (folder / "half").exists()
    neighbour = folder.with_name(f"{folder.name}-more")
    neighbour.mkdir()
    write(run.out, "second")
    assert sorted(run.out.parent.iterdir()) == [neighbour, run.out]
    assert content(run.out) == "second"


@posix
def test_a_signal_ends_a_run_without_a_trace(waiting):
    run = waiting["term"]
    assert run.kill(signal.SIGTERM) == 128 + signal.SIGTERM
    assert list(run.out.parent.iterdir()) == []


@posix
def test_a_terminal_that_is_closed_ends_a_run_without_a_trace(waiting):
    run = waiting["hang"]
    shown = b""
    while b"compile" not in shown:
        shown += os.read(run.terminal, 4096)
    os.close(run.terminal)
    assert run.ended() == 128 + signal.SIGHUP
    assert list(run.out.parent.iterdir()) == []


@posix
def test_a_run_under_nohup_outlives_its_terminal(waiting):
    run = waiting["nohup"]
    os.kill(run.number, signal.SIGHUP)
    time.sleep(0.2)
    assert len(run.hidden) == 2
    assert run.kill(signal.SIGTERM) == 128 + signal.SIGTERM
    assert run.hidden == []


def test_a_run_killed_between_its_renames_loses_nothing(tmp_path):
    out, new = tmp_path / "out", tmp_path / ".out-0123abcd"
    for name, text in (("a", "first"), ("b", "second")):
        write(tmp_path / name, text)
    (tmp_path / "a").rename(tmp_path / ".out-0123abcd-old")
    (tmp_path / "b").rename(new)
    with pytest.raises(InputError, match="it exists"):
        write(out, "third")
    assert content(out) == "second" and list(tmp_path.iterdir()) == [out]
    # A scheduler's script may have made the place anew.
    out.rename(new)
    new.with_name(f"{new.name}-old").mkdir()
    out.mkdir()
    with pytest.raises(InputError, match="it exists"):
        write(out, "third")
    assert content(out) == "second" and list(tmp_path.iterdir()) == [out]


def test_what_was_being_deleted_does_not_come_back(tmp_path):
    """A run was killed while it deleted the folder it had replaced, and its own was moved away."""
    out, old = tmp_path / "out", tmp_path / ".out-0123abcd-old"
    write(out, "first")
    out.rename(old)
    write(out, "third")
    assert content(out) == "third" and list(tmp_path.iterdir()) == [out]


def test_a_place_filled_between_the_renames_loses_nothing(tmp_path, monkeypatch):
    out = tmp_path / "out"
    write(out, "first")
    rename = Path.rename

    def busy(path, target):
        done = rename(path, target)
        if path == out:  # somebody else is quicker than the second rename
            write_foreign(out)
        return done

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(InputError, match="filled by something else"):
        write(out, "second", overwrite=True)
    assert (out / "foreign").read_text() == "theirs"
    beside = [path for path in tmp_path.iterdir() if path != out]
    assert sorted(content(path) for path in beside) == ["first", "second"]
    assert not any(path.name.startswith(".") for path in beside)


def test_a_place_filled_while_a_run_works_loses_nothing(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="The run is in out-"), run_folder(out, False) as folder:
        (folder / "summary.json").write_text("ours")
        write_foreign(out)
    assert (out / "foreign").read_text() == "theirs"
    (beside,) = (path for path in tmp_path.iterdir() if path != out)
    assert content(beside) == "ours" and not beside.name.startswith(".")


def write_foreign(out: Path) -> None:
    out.mkdir()
    (out / "foreign").write_text("theirs")


def test_a_failed_run_keeps_what_it_was_to_replace(tmp_path):
    out = tmp_path / "out"
    write(out, "first")
    with pytest.raises(KeyboardInterrupt), run_folder(out, True) as folder:
        (folder / "summary.json").write_text("half")
        raise KeyboardInterrupt
    assert content(out) == "first" and list(tmp_path.iterdir()) == [out]
    write(out, "second", overwrite=True)
    assert content(out) == "second" and list(tmp_path.iterdir()) == [out]


# --- what belongs to others ---


def tree_of(folder: Path) -> dict[str, str]:
    """The text of every file below a folder, by its path."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@pytest.mark.parametrize(
    "forged",
    [
        {},
        {"summary.json": "{}"},
        {"written.json": "{}"},
        {"written.json": "no JSON"},
        {"written.json": '["jaxperf folder"]'},
        {"written.json": '{"format": "mine", "kind": "run", "files": {"thesis.txt": null}}'},
    ],
)
def test_names_make_no_run_folder(tmp_path, forged):
    out = tmp_path / "out"
    out.mkdir()
    for name, text in {"thesis.txt": "years of work", **forged}.items():
        (out / name).write_text(text)
    before = tree_of(tmp_path)
    with pytest.raises(InputError, match="no folder that jaxperf wrote"):
        write(out, "new", overwrite=True)
    assert tree_of(tmp_path) == before


def test_files_of_others_stay_and_are_named(tmp_path):
    """Beside ours, in our subfolders, in their own, as links, and under the name of a new file."""
    out, said = tmp_path / "out", []
    with run_folder(out, False) as folder:
        (folder / "figures").mkdir()
        for name in ("summary.json", "old.csv", "figures/old.png"):
            (folder / name).write_text("ours")
    other = tmp_path / "other"
    other.mkdir()
    (other / "old.png").write_text("theirs")
    (out / "thesis.txt").write_text("years of work")
    (out / "figures" / "mine.png").write_text("theirs")
    (out / "notes").mkdir()
    (out / "notes" / "a.txt").write_text("theirs")
    (out / "link").symlink_to(other, target_is_directory=True)
    (out / "new.csv").write_text("theirs")
    with run_folder(out, True, say=said.append) as folder:
        (folder / "summary.json").write_text("second")
        (folder / "new.csv").write_text("ours")
    (beside,) = (p for p in tmp_path.iterdir() if p.name.startswith("out-"))
    assert tree_of(beside) == {"new.csv": "theirs"}
    left = tree_of(out)
    assert left.pop("written.json")
    assert left == {
        "figures/mine.png": "theirs",
        "new.csv": "ours",
        "notes/a.txt": "theirs",
        "summary.json": "second",
        "thesis.txt": "years of work",
    }
    assert (out / "link").is_symlink() and tree_of(other) == {"old.png": "theirs"}
    named = " ".join(said)
    assert all(name in named for name in ("thesis.txt", "notes/a.txt", "figures/mine.png", "link"))
    assert str(beside) in named
    assert not any(p.name.startswith(".") for p in tmp_path.iterdir())


def test_a_file_of_ours_that_was_edited_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    write(out, "first")
    (out / "summary.json").write_text("first, with remarks")
    with pytest.raises(InputError, match=r"summary\.json changed since the run was written"):
        write(out, "second", overwrite=True)
    assert content(out) == "first, with remarks"


def test_a_folder_of_another_kind_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    write(out, "first")
    with pytest.raises(InputError, match="it holds a run"), run_folder(out, True, "forest report"):
        pass
    assert content(out) == "first"


@posix
def test_a_link_keeps_leading_to_the_run(tmp_path):
    real, link = tmp_path / "disk" / "real", tmp_path / "out"
    real.parent.mkdir()
    write(real, "first")
    link.symlink_to(real)
    write(link, "second", overwrite=True)
    assert link.is_symlink() and content(real) == "second"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["disk", "out"]
    assert list(real.parent.iterdir()) == [real]
    # the place is the same by either name
    with run_folder(link, True) as folder:
        (folder / "summary.json").write_text("third")
        with pytest.raises(InputError, match="another run is writing it"):
            write(real, "fourth", overwrite=True)
    assert content(real) == "third"
    real.rename(real.with_name("gone"))
    write(link, "through a link to nothing")
    assert content(real) == "through a link to nothing"


@posix
@pytest.mark.parametrize("name", ["n" * 245, "n" * 300])
def test_a_name_too_long_is_said_before_the_run(tmp_path, name):
    with pytest.raises(InputError, match="cannot be created"), run_folder(tmp_path / name, False):
        pytest.fail("the run began")
    assert list(tmp_path.iterdir()) == []


def test_the_root_is_no_place(tmp_path):
    with pytest.raises(InputError, match="root of the file system"), run_folder("/", True):
        pytest.fail("the run began")


def test_a_full_disk_is_said_and_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    write(out, "first")
    with pytest.raises(InputError, match="there is no room for it"), run_folder(out, True):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert content(out) == "first" and list(tmp_path.iterdir()) == [out]


def test_hidden_folders_of_others_stay(tmp_path):
    """They are named as those of a killed run are."""
    for name in (".out-0123abcd", ".out-0123abcd-old"):
        (tmp_path / name / "empty").mkdir(parents=True)
        (tmp_path / name / "thesis.txt").write_text("years of work")
    write(tmp_path / "out", "first")
    for name in (".out-0123abcd", ".out-0123abcd-old"):
        assert tree_of(tmp_path / name) == {"thesis.txt": "years of work"}
        assert (tmp_path / name / "empty").is_dir()


@pytest.mark.parametrize("is_there", [True, False])
def test_a_replacement_that_was_killed_is_ended_by_the_next_run(tmp_path, is_there):
    """Ours go; theirs go back, or into a folder that can be seen where the run was moved away."""
    out = tmp_path / "out"
    write(tmp_path / "a", "first")
    (tmp_path / "a" / "thesis.txt").write_text("years of work")
    if is_there:
        write(out, "second")
    (tmp_path / "a").rename(tmp_path / ".out-0123abcd-old")
    write(out, "third", overwrite=is_there)
    assert content(out) == "third"
    place = out if is_there else tmp_path / "out-0123abcd-old"
    assert (place / "thesis.txt").read_text() == "years of work"
    assert sorted(tmp_path.iterdir()) == sorted({out, place})
