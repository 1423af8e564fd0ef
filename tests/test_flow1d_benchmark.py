"""The parts of the transient benchmark that decide what its figures mean."""

import sys
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

_REPOSITORY = Path(__file__).resolve().parents[1]
if not (_REPOSITORY / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of this distribution", allow_module_level=True)
sys.path.insert(0, str(_REPOSITORY))

MissingData = import_module("benchmarks._composite").MissingData
extrapolated = import_module("benchmarks._flow1d_gradients").extrapolated
count = import_module("benchmarks._flow1d_limits").count_operations
flow1d = import_module("benchmarks.flow1d").flow1d


def test_differences_find_a_step_by_themselves():
    """Rough on the scale of the limiter's floor: large steps mislead, small ones drown."""
    noise = np.random.default_rng(0)

    def run(amounts):
        amounts = np.asarray(amounts)
        smooth = np.exp(3.0 * amounts[:, 0]) + 1e-8 * np.tanh(amounts[:, 1] / 1e-4)
        rounded = smooth * (1.0 + 1e-15 * noise.uniform(-1.0, 1.0, len(amounts)))
        return np.stack([rounded, 2.0 * amounts[:, 0]], axis=1)

    slope, doubt = extrapolated(run, 2)
    assert slope == pytest.approx(np.array([[3.0, 1e-4], [2.0, 0.0]]), rel=1e-6, abs=2e-8)
    assert (np.abs(slope - [[3.0, 1e-4], [2.0, 0.0]]) <= 10 * doubt + 1e-12).all()


def test_work_is_counted_inside_loops_and_branches():
    def step(x):
        once = lambda _, x: jnp.sqrt(x) / 2.0 + x
        return jax.lax.fori_loop(0, 3, once, x) * 2.0

    divisions, roots, others = count(jax.make_jaxpr(step)(jnp.ones(5)).jaxpr)
    assert (divisions, roots, others) == (15, 15, 20)


def test_without_data_it_says_so(tmp_path):
    said = []
    with pytest.raises(MissingData, match="--data"):
        flow1d(tmp_path, quick=True, log=said.append)
    assert sum("left out" in text for text in said) >= 5
