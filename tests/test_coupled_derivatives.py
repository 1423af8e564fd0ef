"""Derivatives of the coupled solve in every mode and precision, and those that must not exist."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import AORTIC_PA, at_rest, small_problem, unregulated

from jaxperf import calibrate, InputError, PressureBoundary, RESULTS, solve_perfusion


@pytest.fixture(scope="module")
def case():
    problem, _ = small_problem(n_terminals=6, scale=0.5)
    return problem, calibrate(problem, mbf_rest_ml_min_g=1.0, hyperemia_factor=3.5)


def functional(problem, **options):
    """Spread of perfusion as a function of factors on the lesion, all radii, K and β_src."""

    def value(theta):
        scaled = eqx.tree_at(
            lambda p: (
                p.network.lesion.diameter_reduction,
                p.network.radius,
                p.microcirculation.permeability,
                p.microcirculation.beta_source,
            ),
            problem,
            (
                problem.network.lesion.diameter_reduction * theta[0],
                problem.network.radius * theta[1],
                problem.microcirculation.permeability * theta[2],
                problem.microcirculation.beta_source * theta[3],
            ),
        )
        mbf = solve_perfusion(scaled, throw=False, **options).mbf * 60e3
        return jnp.mean((mbf - 1.2) ** 2)

    return value


def states(case):
    problem, bed = case
    return {"rest": at_rest(problem, bed), "hyperemia": unregulated(problem, bed.hyperemia)}


@pytest.mark.slow
@pytest.mark.parametrize("state", ["hyperemia", "rest"])
def test_forward_reverse_and_hessian(case, state):
    value = functional(states(case)[state])
    theta = jnp.ones(4)
    reverse = jax.jit(jax.grad(value))
    gradient = reverse(theta)
    forward = jax.jit(jax.jacfwd(value))(theta)
    assert np.allclose(forward, gradient, rtol=1e-8, atol=1e-10 * np.abs(gradient).max())
    hessian = jax.jit(jax.hessian(value))(theta)
    step = 1e-3
    for k, e in enumerate(step * jnp.eye(4)):
        rows = [reverse(theta + m * e) for m in (-2, -1, 1, 2)]
        difference = (rows[0] - 8 * rows[1] + 8 * rows[2] - rows[3]) / (12 * step)
        assert np.abs(difference - hessian[k]).max() <= 1e-6 * np.abs(hessian).max()


@pytest.mark.parametrize("state", ["rest", pytest.param("hyperemia", marks=pytest.mark.slow)])
def test_single_precision_gradient(case, state):
    problem = states(case)[state]
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, problem
    )
    double = jax.jit(jax.grad(functional(problem)))(jnp.ones(4))
    found = jax.jit(jax.grad(functional(single)))(jnp.ones(4, jnp.float32))
    assert found.dtype == jnp.float32
    # found 9e-5 with autoregulation and 2e-7 without
    assert np.abs(np.asarray(found) - np.asarray(double)).max() <= 1e-3 * np.abs(double).max()


def test_an_unsolved_linear_system_has_no_derivative(case):
    problem = states(case)["hyperemia"]
    short = functional(problem, max_linear_steps=2)
    assert not np.isfinite(jax.jit(jax.grad(short))(jnp.ones(4))).any()
    solution = solve_perfusion(problem, max_linear_steps=2, throw=False)
    assert "linear solver" in RESULTS[solution.result]


def test_a_terminal_of_prescribed_pressure_is_refused(case):
    problem, _ = case
    held = PressureBoundary(problem.tissue.terminal_node[:1], jnp.array([AORTIC_PA]))
    with pytest.raises(InputError, match="terminal_node"):
        type(problem)(
            problem.network, problem.tissue, (*problem.boundary, held), problem.microcirculation
        )
