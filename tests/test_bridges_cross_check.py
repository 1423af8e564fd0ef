"""The cross-check finds what is right and what is wrong, and says so."""

import json
import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import run_as_program

from jaxperf import InputError

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges import cross_check  # noqa: E402
from bridges._cases import (  # noqa: E402
    coupled_case,
    darcy_case,
    flow1d_case,
    gnn_case,
    steady_case,
)
from bridges._fit_cases import fit_case, fit_curvature_case  # noqa: E402
from jaxperf.jobs import write_starter  # noqa: E402

LIMITS = {"value": 1e-12, "reference": 1e-9, "differences": 1e-7}
GIVEN = {"x": np.linspace(0.2, 1.0, 5), "k": np.array(3e-9), "none": np.zeros(2)}


def _right(p, factor):
    return p["k"] * jnp.sum(jnp.sin(factor * p["x"]) ** 2) + jnp.sum(p["none"]) * 1e-9


def _torch(p):
    return p["k"] * (torch.sin(2.0 * p["x"]) ** 2).sum() + p["none"].sum() * 1e-9


@jax.custom_vjp
def _with_wrong_adjoint(x):
    return x**2


_with_wrong_adjoint.defvjp(lambda x: (x**2, x), lambda x, g: (2.001 * x * g,))


def test_four_ways_agree_where_all_are_right():
    found = cross_check(_right, GIVEN, 2.0, reference=_torch, name="sines", directions=4)
    assert [way.name for way in found.ways] == [
        "adjoint", "forward mode", "torch", "differences"
    ]  # fmt: skip
    assert not found.disagreements(**LIMITS)
    slope = 2.0 * GIVEN["k"] * np.sin(4.0 * GIVEN["x"]) * GIVEN["x"]
    np.testing.assert_allclose(found.ways[0].gradient["x"], slope, rtol=1e-12)
    assert all(c.cosine > 1.0 - 1e-12 for c in found.comparisons)
    assert found.ways[-1].error < 1e-9


def test_a_wrong_adjoint_is_found_by_reference_and_by_differences():
    found = cross_check(
        lambda p, _: jnp.sum(_with_wrong_adjoint(p["x"])),
        {"x": GIVEN["x"]},
        reference=lambda p: (p["x"] ** 2).sum(),
        forward=lambda p, _: jnp.sum(p["x"] ** 2),
    )
    told = found.disagreements(**LIMITS)
    assert [sentence.split(":")[0] for sentence in told] == ["forward mode", "torch", "differences"]
    assert found.comparisons[1].gradient["x"] == pytest.approx(5e-4, rel=1e-2)


def test_values_that_differ_are_found():
    found = cross_check(_right, GIVEN, 2.0, reference=lambda p: 1.000001 * _torch(p))
    assert any("the value differs" in sentence for sentence in found.disagreements(**LIMITS))


def test_what_is_no_number_disagrees():
    found = cross_check(lambda p, _: jnp.sum(p["x"]) / 0.0, {"x": GIVEN["x"]})
    assert found.disagreements(**LIMITS)


def test_differences_of_too_few_digits_judge_nothing():
    """A wrong adjoint cannot hide behind noise."""

    def noisy(p, _):
        value = jnp.sum(_with_wrong_adjoint(p["x"]))
        return value * (1.0 + jax.lax.stop_gradient(1e-2 * jnp.sin(1e9 * value)))

    found = cross_check(noisy, {"x": GIVEN["x"]}, forward=lambda p, _: jnp.sum(p["x"] ** 2))
    assert any("judge nothing" in sentence for sentence in found.disagreements(**LIMITS))


def test_steps_that_leave_the_domain_are_left_out():
    """√(1.005 − x) at x = 1 exists for steps below half a per cent."""
    root = lambda p, _: jnp.sqrt(1.005 - p["x"])
    found = cross_check(root, {"x": np.array(1.0)}, reference=lambda p: torch.sqrt(1.005 - p["x"]))
    assert not found.disagreements(**LIMITS)


def test_zeros_stay_zero_in_differences_and_are_compared_in_torch():
    """√x has no value beside 0 on one side; a missing derivative at 0 is found all the same."""
    weight = jnp.asarray([0.0, 1.0])
    given = {"x": np.array([0.0, 0.3])}
    quantity = lambda p, _: jnp.sum(jnp.sqrt(p["x"] + 1e-15) * weight)
    found = cross_check(quantity, given, reference=lambda p: torch.sqrt(p["x"][1] + 1e-15))
    assert not found.disagreements(**LIMITS)
    square = lambda p, _: jnp.sum((p["x"] + 1.0) ** 2)
    wrong = cross_check(square, given, reference=lambda p: (p["x"][1] + 1.0) ** 2 + 1.0)
    assert any(sentence.startswith("torch") for sentence in wrong.disagreements(**LIMITS))


def test_differences_know_how_far_they_can_be_trusted():
    """A quantity of few digits: the differences are off, and say by how much."""
    coarse = lambda p, _: jnp.round(jnp.sum(jnp.exp(p["x"])), 6)
    smooth = lambda p, _: jnp.sum(jnp.exp(p["x"]))
    found = cross_check(coarse, {"x": GIVEN["x"]}, forward=smooth)
    exact = np.array(found.ways[1].directional)
    off = np.linalg.norm(np.array(found.ways[-1].directional) - exact) / np.linalg.norm(exact)
    assert 1e-9 < off < 10.0 * found.ways[-1].error


def test_single_precision_is_refused():
    with pytest.raises(InputError, match="x is float32"):
        cross_check(_right, {"x": np.ones(2, np.float32)})


def test_ffr_of_the_demonstration_and_its_files(tmp_path):
    found = steady_case().check(directions=2)
    assert not found.disagreements(**LIMITS)
    path = tmp_path / "new" / "check.json"
    found.save(path)
    told = json.loads(path.read_text())
    assert told["versions"]["jax"]
    assert told["ways"][2]["name"] == "torch"
    assert math.isclose(told["ways"][0]["value"], told["ways"][2]["value"], rel_tol=1e-12)
    assert len(told["ways"][0]["gradient"]["diameter reduction"]) == 1
    assert path.with_suffix(".png").stat().st_size > 10_000
    with pytest.raises(InputError, match="ends in"):
        found.save(tmp_path / "check.png")


@pytest.mark.parametrize(
    "make",
    [
        lambda: darcy_case(1e3),
        fit_case,
        fit_curvature_case,
        pytest.param(lambda: coupled_case(), marks=pytest.mark.slow),
        pytest.param(lambda: flow1d_case(cell_time=2e-3, samples=4), marks=pytest.mark.slow),
        pytest.param(lambda: gnn_case(n_tets=1e3), marks=pytest.mark.slow),
        pytest.param(lambda: gnn_case("message_passing", 1e3), marks=pytest.mark.slow),
    ],
    ids=["darcy", "fit", "fit_curvature", "coupled", "flow1d", "gnn", "message_passing"],
)
def test_the_cases_of_the_command_agree(make):
    found = make().check(directions=2)
    assert not found.disagreements(value=1e-9, reference=1e-7, differences=1e-6)


@pytest.mark.slow
def test_the_command_checks_a_case_file(tmp_path):
    path = write_starter(tmp_path / "case", spacing_mm=4.0)
    out = tmp_path / "check.json"
    command = [sys.executable, "-m", "bridges", "cross-check", str(path), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["unit"] == "ml/min/g"
    assert out.with_suffix(".png").is_file()


def test_the_command_names_the_case_that_is_missing(capsys):
    assert run_as_program("bridges", "cross-check", "none.yaml") == 2
    assert "none.yaml: there is no such case" in " ".join(capsys.readouterr().err.split())
