"""The cache of compiled programs: what a second process finds there, and where it stays off."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from jax._src.lru_cache import LRUCache

from jaxperf import _cache
from jaxperf._cache import processor_mark

REPOSITORY = Path(__file__).resolve().parents[1]

# A steady solve and its gradient, and how often programs were found and written.
_JOB = """
import json, sys
import jax, numpy as np, equinox as eqx, jaxperf as jp
count = {"hits": 0, "programs": 0, "said": []}
def event(name, **_):
    count["hits"] += name == "/jax/compilation_cache/cache_hits"
def duration(name, seconds, **_):
    count["programs"] += name == "/jax/core/compile/backend_compile_duration"
jax.monitoring.register_event_listener(event)
jax.monitoring.register_event_duration_secs_listener(duration)
jax.config.update("jax_enable_x64", True)
folder = jp.enable_compilation_cache(count["said"].append)
tree = jp.build_network(
    np.array([[0.0, 0, 0], [0.01, 0, 0], [0.05, 0, 0]]), np.array([[0, 1], [1, 2]]),
    np.array([2e-3, 2e-3, 1e-3]), root=np.array([0]), frame="model")
ends = (jp.PressureBoundary(np.array([0]), np.array([12e3])),
        jp.ResistanceOutlet(np.array([2]), np.array([4e9]), np.array([2e3])))
def flow(radius):
    tree_ = eqx.tree_at(lambda t: t.radius, tree, radius)
    return jp.solve_steady(jp.SteadyProblem(tree_, ends)).flow[0]
count["flow"] = float(flow(tree.radius))
jax.grad(flow)(tree.radius).block_until_ready()
count["folder"] = str(folder)
print(json.dumps(count))
"""


def _process(cache, code=_JOB, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "JAXPERF_CACHE_DIR": str(cache), **environment},
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache that one process has filled, and what it reported."""
    cache = tmp_path_factory.mktemp("cache")
    return cache, _process(cache)


def test_a_second_process_compiles_nothing(filled):
    cache, first = filled
    second = _process(cache)
    # A program that JAX refuses to keep would be asked for and not found.
    assert first["programs"] > 0 and first["hits"] == 0
    assert second["hits"] == second["programs"] == first["programs"]
    assert second["flow"] == first["flow"] and second["said"] == []


def test_entries_that_cannot_be_read_are_said_once(filled):
    cache, first = filled
    for entry in Path(first["folder"]).glob("*-cache"):
        entry.write_bytes(b"no program")
    again = _process(cache)
    assert again["hits"] == 0 and again["flow"] == first["flow"]
    (line,) = again["said"]
    assert "compiled again" in line and first["folder"] in line


def test_a_folder_that_cannot_be_written_leaves_the_cache_off(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("a file, where a folder is asked for", encoding="utf-8")
    found = _process(blocked)
    (line,) = found["said"]
    assert "JAXPERF_CACHE_DIR" in line and found["folder"] == "None"
    assert found["hits"] == 0 and found["programs"] > 0


def test_a_folder_of_the_users_own_is_kept(tmp_path):
    own = tmp_path / "own"
    found = _process(tmp_path / "ours", JAX_COMPILATION_CACHE_DIR=str(own))
    assert found["folder"] == str(own) and not (tmp_path / "ours").exists()


def test_an_import_switches_nothing_on():
    code = (
        "import json, jax, jaxperf, jaxperf.study\n"
        "print(json.dumps(jax.config.jax_compilation_cache_dir))"
    )
    assert _process("unused", code, JAX_COMPILATION_CACHE_DIR="") in (None, "")


def test_another_processor_has_another_folder(monkeypatch):
    """Programs are machine code: another instruction set must not find them."""
    mark = processor_mark()
    assert mark == processor_mark() and len(mark) == 12
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert processor_mark() != mark
    monkeypatch.undo()
    text = "vendor_id : X\nmodel name : Y\nflags : sse2 {}\n"
    seen = set()
    for flags in ("", "avx2", "avx2 avx512f"):
        told = text.format(flags)
        monkeypatch.setattr(Path, "read_text", lambda *_, told=told, **__: told)
        seen.add(processor_mark())
    assert len(seen) == 3


def test_the_folder_is_looked_through_seldom(tmp_path, monkeypatch):
    """JAX would open all entries before each that it writes."""
    looked = []
    look = lambda cache, *, additional_size=0: looked.append(additional_size)
    monkeypatch.setattr(LRUCache, "_evict_if_needed", look)
    write = lambda name: [cache.put(f"{name}{i}", bytes(1000)) for i in range(50)]
    cache = LRUCache(str(tmp_path), max_size=60_000)
    _cache._look_seldom(tmp_path)
    write("first")
    assert len(looked) == 1
    # another process on the same day
    monkeypatch.setattr(LRUCache, "_evict_if_needed", look)
    _cache._look_seldom(tmp_path)
    write("second")
    assert len(looked) == 1
    monkeypatch.setattr(_cache, "_LOOK_BYTES", 10_000)
    write("third")
    # 50 kB by 10 kB
    assert len(looked) == 1 + 5
