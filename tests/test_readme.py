"""The README's example and the scripts under examples/ run as they stand."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def test_readme_example_has_twelve_lines_and_the_right_gradient(capsys):
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(example.strip().splitlines()) <= 12
    # the tests' strict promotion is stricter than what a reader has
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(example, names)
        ffr, radius = names["ffr"], names["tree"].radius
        gradient = np.asarray(jax.grad(ffr)(radius))
        direction = np.random.default_rng(0).standard_normal(radius.shape)
        h = 1e-7
        difference = (ffr(radius + h * direction) - ffr(radius - h * direction)) / (2 * h)
    assert float(difference) == pytest.approx(np.vdot(gradient, direction), rel=1e-6)
    assert 0.5 < float(ffr(radius)) < 0.99
    assert capsys.readouterr().out


# It compiles the programs of a whole fit.
SLOW = {"fit_heart.py"}
SCRIPTS = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name in SLOW else [])
    for path in sorted((REPOSITORY / "examples").glob("*.py"))
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_example_script_runs(script):
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert any(word in done.stdout for word in ("ml/min/g", "changes no measurement", "severity"))


def test_torch_fits_what_jaxperf_fits():
    """Two optimisers, one posterior: the modes of both examples agree."""
    run = lambda name: runpy.run_path(str(REPOSITORY / "examples" / name))
    # the tests' strict promotion is stricter than what a reader has
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        ours, by_torch = run("fit_outlets.py")["found"].values, run("fit_torch.py")
    for name in ("severity", "resistance"):
        np.testing.assert_allclose(np.ravel(ours[name]), by_torch[name], rtol=1e-3)
