"""A solved heart as camera, tracer and wire see it, and back to its lesion as a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import ML_MIN_G, small_problem, with_reduction

from jaxperf.coupling import solve_perfusion
from jaxperf.observe import (
    observe,
    pet_flow,
    pet_segments,
    pressure_wire,
    pull_back,
    Rubidium82,
    territory_flow,
)


@pytest.fixture(scope="module")
def heart():
    """The problem, and the septal and the lateral half of the wall as two segments."""
    problem, mesh = small_problem(spacing_mm=5.0, scale=0.7)
    half = 1 + (mesh.centre[:, 0] > 0.0).astype(np.int64)
    return problem, half, pet_segments(mesh, half, fwhm_mm=7.0, n_segments=2)


@pytest.fixture(scope="module")
def observed(heart):
    problem, half, _ = heart
    return observe(problem, {"hyperemia": solve_perfusion(problem)}, jnp.asarray(half))


def test_what_the_terminals_give_is_what_the_tissue_gets(heart, observed):
    problem, *_ = heart
    tissue = problem.tissue
    taken = float(jnp.sum(observed.mbf["hyperemia"] * tissue.volume) * tissue.density)
    given = float(territory_flow(problem, "stem")(observed))
    assert given == pytest.approx(taken * 60e6, rel=1e-8)


def test_the_wire_lies_on_the_pull_back(heart, observed):
    problem, *_ = heart
    draw = pull_back(problem.network, "left", from_root=True)
    ratio, arc = np.asarray(draw(observed)), np.asarray(draw.arc_mm - draw.begins / 1e-3)
    at = 0.5 * arc[-1].sum()
    wire = pressure_wire(problem.network, "left", at)
    assert float(wire(observed)) == pytest.approx(ratio[-1].mean(), rel=1e-12)
    assert 0.2 < float(wire(observed)) < 0.99


def test_a_gradient_from_scan_and_wire_to_the_lesion(heart):
    problem, half, see = heart
    wire = pressure_wire(problem.network, "left", 20.0)

    def measured(reduction):
        solution = solve_perfusion(with_reduction(problem, reduction))
        seen = observe(problem, {"hyperemia": solution}, jnp.asarray(half))
        flow = pet_flow(see, seen.mbf["hyperemia"], Rubidium82()) / ML_MIN_G
        return jnp.stack([*flow, wire(seen)])

    at, step = jnp.asarray(0.6), 1e-4
    value, slope = jax.jvp(jax.jit(measured), (at,), (jnp.ones(()),))
    rise, fall = (jax.jit(measured)(at + s) for s in (step, -step))
    np.testing.assert_allclose(slope, (rise - fall) / (2.0 * step), rtol=1e-5)
    # the lesion feeds the half on negative x: that flow falls, and the ratio behind it
    assert slope[0] < 0.0 and slope[2] < 0.0
    assert (np.asarray(value) > 0.0).all()
