"""Gradients of a blood-flow functional against differences and a dense unrolled Newton solve."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_coupled import residual, Theta
from gradient_cases import (
    base_case,
    dense_case,
    dense_value,
    functional,
    gradient_by_all,
    relative_errors,
    theta_of,
    variant,
    with_theta,
)
from helpers import on_host

from jaxperf.steady import UnrolledAdjoint


@pytest.fixture(scope="module")
def base():
    return base_case()


@pytest.fixture(scope="module")
def unrolled():
    """Value, state and gradient through a dense Newton solve, compiled once for all cases."""
    return jax.jit(jax.value_and_grad(dense_value, has_aux=True))


@pytest.fixture(
    scope="module",
    params=[
        (False, False),
        pytest.param((True, False), marks=pytest.mark.slow),
        pytest.param((False, True), marks=pytest.mark.slow),
        (True, True),
    ],
    ids=["dilated-rigid", "regulated-rigid", "dilated-elastic", "regulated-elastic"],
)
def case(request, base):
    """A problem, its mesh, the weights, θ, and the value and gradient as functions of θ."""
    problem, mesh, weight = base
    problem = variant(problem, is_regulated=request.param[0], is_elastic=request.param[1])

    def run(theta):
        (value, _), gradient = gradient_by_all(with_theta(problem, theta), weight)
        return value, theta_of(gradient)

    return problem, mesh, weight, theta_of(problem), run


def test_gradient_against_the_dense_unrolled_solve(case, unrolled):
    problem, mesh, weight, theta, run = case
    dense = jax.tree.map(jnp.asarray, dense_case(problem, mesh))
    (value, x), gradient = unrolled(theta, dense, weight)
    left = jax.tree.leaves(on_host(jax.jit(residual)(dense, theta, x)))
    assert max(np.abs(part).max() for part in left) < 1e-11
    ours, our_gradient = run(theta)
    assert abs(float(ours / value) - 1) <= 1e-9
    errors = relative_errors(our_gradient, gradient)
    assert max(errors.values()) <= 1e-7, errors


def test_gradient_against_differences(case):
    """Fourth order, in a random direction of every argument by itself.

    The step ε^(1/5) balances the truncation h⁴ against the round-off ε/h of the values.
    """
    theta, run = case[3:]
    gradient = run(theta)[1]
    rng = np.random.default_rng(1)
    h = float(np.finfo(np.float64).eps ** 0.2)
    for name, at, slope in zip(Theta._fields, theta, gradient, strict=True):
        direction = at * jnp.asarray(rng.uniform(-1.0, 1.0, at.shape))
        value = {
            m: float(run(theta._replace(**{name: at + m * h * direction}))[0])
            for m in (-2, -1, 1, 2)
        }
        measured = (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)
        size = np.vdot(np.abs(slope), np.abs(direction))
        assert abs(measured - np.vdot(slope, direction)) <= 1e-7 * size, name


@pytest.mark.slow
def test_unrolled_adjoint_agrees(base):
    """The derivative through the library's own Newton steps, not through its implicit rule.

    The default run has the same check on a network in `test_steady.py`, which compiles faster.
    """
    problem, _, weight = base
    theta = theta_of(problem)
    through = jax.jit(jax.grad(lambda t: functional(t, problem, weight, UnrolledAdjoint(8))))
    implicit = jax.jit(jax.grad(lambda t: functional(t, problem, weight)))
    errors = relative_errors(through(theta), implicit(theta))
    assert max(errors.values()) <= 1e-7, errors


def test_hessian_vector_product(base):
    """Forward over reverse against differences of gradients: nothing is silently zero."""
    problem, _, weight = base
    theta = theta_of(problem)
    rng = np.random.default_rng(2)
    direction = Theta(*(t * jnp.asarray(rng.uniform(-1.0, 1.0, t.shape)) for t in theta))
    slope = jax.grad(lambda t: functional(t, problem, weight))
    ahead = lambda t: slope(Theta(*(x + t * d for x, d in zip(theta, direction, strict=True))))
    both = jax.jit(lambda t: jax.jvp(ahead, (t,), (jnp.ones_like(t),)))
    product, h = both(jnp.zeros(()))[1], 1e-3
    at = {m: both(jnp.asarray(m * h))[0] for m in (-2, -1, 1, 2)}
    differences = jax.tree.map(
        lambda a, b, c, d: (8 * (c - b) - (d - a)) / (12 * h),
        *(on_host(at[m]) for m in (-2, -1, 1, 2)),
    )
    assert all(np.max(np.abs(d)) > 0 for d in differences)
    errors = relative_errors(product, differences)
    assert max(errors.values()) <= 1e-6, errors
