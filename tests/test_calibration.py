"""Calibration under transformations, against the one on the host."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem

from jaxperf import calibrate, InputError, solve_perfusion

# A radius and the permeability by factors, then the targets.
THETA = np.array([1.0, 1.0, 1.0, 3.5])


@pytest.fixture(scope="module")
def problem():
    """Narrow twigs, so that their pressures differ and the permeability counts."""
    return small_problem(n_terminals=6, scale=0.5, terminal_radius=(3.5e-4, 5e-4))[0]


def found(problem, theta, **options):
    """β_src and β_snk (1/(MPa·s)) and the factor of hyperemia."""
    radius = problem.network.radius.at[1].multiply(theta[0])
    permeability = problem.microcirculation.permeability * theta[1]
    where = lambda p: (p.network.radius, p.microcirculation.permeability)
    problem = eqx.tree_at(where, problem, (radius, permeability))
    bed = calibrate(problem, mbf_rest_ml_min_g=theta[2], mbf_hyperemia_ml_min_g=theta[3], **options)
    rest, factor = bed.rest, jnp.asarray(bed.hyperemia_factor)
    return jnp.stack([rest.beta_source * 1e6, rest.beta_sink * 1e6, factor])


@pytest.fixture(scope="module")
def jacobian(problem):
    """Derivatives in reverse mode, and the values, as a compiled program."""

    def twice(theta):
        value = found(problem, theta)
        return value, value

    return jax.jit(jax.jacrev(twice, has_aux=True))


def test_gradients_agree_with_differences_of_the_host(problem, jacobian):
    derivative, value = map(np.asarray, jacobian(jnp.asarray(THETA)))
    assert np.allclose(value, found(problem, THETA, rtol=1e-13), rtol=1e-10)
    h = 2e-2
    for k, e in enumerate(h * np.eye(4)):
        at = lambda step, e=e: np.asarray(found(problem, THETA + step * e, rtol=1e-13))
        # of sixth order: rounding, divided by the step, allows no small one
        near, middle, far = (at(step) - at(-step) for step in (1, 2, 3))
        difference = (45 * near - 9 * middle + far) / (60 * h)
        assert np.allclose(derivative[:, k], difference, rtol=1e-6, atol=1e-12), k
    # the factor feels all four, β_src all but the target of hyperemia
    assert np.abs(derivative[2]).min() > 1e-4
    assert np.abs(derivative[0, :3]).min() > 1e-5


@pytest.mark.parametrize("targets", [(-1.0, 3.5), (1.0, 0.5), (1.0, 1e3), (1e3, 2e3)])
def test_what_cannot_be_calibrated_is_nan_under_jit(jacobian, targets):
    derivative, value = jacobian(jnp.array([1.0, 1.0, *targets]))
    assert np.isnan(value).all()
    # a derivative that is no structural zero
    assert np.isnan(np.asarray(derivative)[[0, 2], [2, 3]]).all()


def test_vmap_over_targets_is_a_loop(problem):
    targets = jnp.array([0.9, 1.1])
    at = lambda target: found(problem, (1.0, 1.0, target, 3.5), rtol=1e-12)
    assert np.allclose(jax.vmap(at)(targets), [at(float(t)) for t in targets], rtol=1e-10)


def test_a_given_factor_under_jit_is_that_of_the_host(problem):
    bed = lambda target: calibrate(
        problem, mbf_rest_ml_min_g=target, hyperemia_factor=3.0, rtol=1e-12
    )
    host, traced = bed(1.0), eqx.filter_jit(bed)(jnp.array(1.0))
    for a, b in zip(jax.tree.leaves(host)[:-1], jax.tree.leaves(traced)[:-1], strict=True):
        assert np.allclose(a, b, rtol=1e-9)
    assert float(traced.mbf_rest_ml_min_g) == pytest.approx(1.0, rel=1e-10)


def test_the_program_holds_no_callback_even_where_no_argument_is_traced(problem):
    program = jax.make_jaxpr(lambda: found(problem, THETA))()
    assert "while" in str(program) and "callback" not in str(program)


def test_a_solve_of_ones_own_is_refused_under_a_transformation(problem):
    options = {"hyperemia_factor": 3.0, "solve": solve_perfusion}
    beta = lambda t: calibrate(problem, mbf_rest_ml_min_g=t, **options).rest.beta_source
    with pytest.raises(InputError, match="solve is given under a transformation"):
        jax.grad(beta)(1.0)
