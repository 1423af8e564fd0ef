"""What several test files share: where the reference data lie, and how derivatives are compared."""

import os
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

_REPOSITORY = Path(__file__).resolve().parents[1]


def data_dir() -> Path:
    """The folder of reference data: JAXPERF_DATA, or `shared/data` beside the repository."""
    named = os.environ.get("JAXPERF_DATA")
    return Path(named) if named else _REPOSITORY.parent / "shared" / "data"


requires_data = pytest.mark.skipif(
    not data_dir().is_dir(),
    reason=f"no reference data at {data_dir()}; name their folder in JAXPERF_DATA",
)


# Small inputs that real use brought up lie beside the reference data.
TRIALS = data_dir().parent / "trials"
requires_trials = pytest.mark.skipif(
    not TRIALS.is_dir(), reason=f"no trials at {TRIALS}, beside the reference data"
)


def central_difference(function: Callable[[Array], Array], x: Array, step: float) -> Array:
    """d function / d x by central differences, entry by entry; x of any shape, function scalar."""
    function = jax.jit(function)
    flat = np.asarray(x).reshape(-1)
    slopes = []
    for i in range(flat.size):
        change = np.zeros_like(flat)
        change[i] = step * max(abs(flat[i]), 1e-300)
        up, down = (jnp.asarray((flat + s * change).reshape(x.shape)) for s in (1.0, -1.0))
        slopes.append((function(up) - function(down)) / (2.0 * change[i]))
    return jnp.stack(slopes).reshape(x.shape)


def run_as_program(module: str, *arguments: str) -> int:
    """The exit code of `python -m module arguments`, in this process: a new one imports for 7 s."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", [module, *arguments])
        runpy.run_module(module, run_name="__main__")
    return end.value.code


def on_host(tree):
    """The tree with NumPy arrays, for tests that only look at it: arithmetic compiles nothing."""
    return jax.tree.map(lambda x: np.asarray(x) if isinstance(x, jax.Array) else x, tree)
