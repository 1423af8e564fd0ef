"""Parameters, priors, noise, measurements: what they mean and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from inverse_cases import decay, decay_problem, linear_problem, whole

from jaxperf import InputError
from jaxperf.inverse import (
    GaussianNoise,
    Hierarchy,
    Identity,
    Interval,
    InverseProblem,
    Log,
    LogNormalNoise,
    Measurement,
    Normal,
    Parameter,
    PlainModel,
    SmoothField,
    squared_exponential,
)


@pytest.mark.parametrize("transform", [Identity(), Log(), Interval(-1.0, 3.0)])
def test_transforms_invert_each_other(transform):
    latent = jnp.linspace(-4.0, 4.0, 9)
    value = transform.forward(latent)
    np.testing.assert_allclose(transform.inverse(value), latent, rtol=1e-12, atol=1e-12)
    assert np.all(np.diff(value) > 0) and np.all(transform.holds(np.asarray(value)))


def test_changes_in_words():
    assert Log().change(2.0, 2.24) == "up by 12 %" and Log().change(2.0, 1.0) == "down by 50 %"
    assert Log().change(1.0, 5.0) == "up by a factor 5"
    assert Interval(0.0, 1.0).change(0.4, 0.45) == "up by 0.05"
    assert Identity().change(1.0, -1.0) == "down by 2"


class TestPriors:
    def test_normal_draws_follow_the_distribution(self):
        parameter = Parameter("k", Normal(2.0, 0.5), Log())
        xi = jax.random.normal(jax.random.key(0), (4000, 1))
        drawn = jax.vmap(parameter.value)(xi)
        test = scipy.stats.kstest(np.asarray(drawn), scipy.stats.lognorm(0.5, scale=2.0).cdf)
        assert test.pvalue > 0.01
        assert float(parameter.value(jnp.zeros(1))) == pytest.approx(2.0, rel=1e-14)

    def test_smooth_field_has_its_covariance_and_few_coordinates(self):
        place = np.linspace(0.0, 1.0, 15)
        correlation = squared_exponential(np.abs(place[:, None] - place[None]), 0.5)
        sd = np.linspace(0.1, 0.3, 15)
        parameter = Parameter("field", SmoothField(1.0, sd, correlation))
        slope = jax.jacfwd(parameter.latent)(jnp.zeros(parameter.size))
        expected = sd[:, None] * correlation * sd[None]
        np.testing.assert_allclose(slope @ slope.T, expected, atol=1e-12)
        assert parameter.shape == (15,) and parameter.size < 13

    def test_hierarchy_of_known_spreads(self):
        group = np.array([0, 0, 1, 1, 1])
        parameter = Parameter("h", Hierarchy(2.0, group, 0.3, 0.2), Log())
        assert parameter.size == 2 + 5
        slope = jax.jacfwd(parameter.latent)(jnp.zeros(7))
        same = (group[:, None] == group[None]).astype(float)
        np.testing.assert_allclose(slope @ slope.T, 0.09 * same + 0.04 * np.eye(5), atol=1e-14)

    def test_hierarchy_of_unknown_spreads(self):
        group = np.array([0, 0, 1])
        parameter = Parameter("h", Hierarchy(1.0, group, (0.3, 0.5), (0.2, 0.7)))
        assert parameter.size == 2 + 2 + 3
        xi = jnp.array([1.0, -1.0, 0.5, -0.5, 1.0, 2.0, 3.0])
        between, within = 0.3 * np.exp(0.5), 0.2 * np.exp(-0.7)
        expected = 1.0 + between * np.array([0.5, 0.5, -0.5]) + within * np.array([1.0, 2.0, 3.0])
        np.testing.assert_allclose(parameter.value(xi), expected, rtol=1e-14)

    def test_entries_have_names(self):
        named = Parameter("reserve", Normal(3.0, 0.3), Log(), labels=("LAD", "LCx"))
        assert named.shape == (2,) and named.entries == ("reserve[LAD]", "reserve[LCx]")
        assert Parameter("a", Normal(0.0, 1.0)).entries == ("a",)
        assert Parameter("m", Normal(0.0, 1.0), shape=(1, 2)).entries == ("m[0, 0]", "m[0, 1]")


class TestNoise:
    covariance = np.array([[0.04, 0.01, 0.0], [0.01, 0.09, 0.02], [0.0, 0.02, 0.05]])

    @pytest.mark.parametrize("kind", [GaussianNoise, LogNormalNoise])
    def test_whitened_samples_are_independent(self, kind):
        value = np.array([1.0, 2.0, 3.0])
        measured = Measurement("y", whole, value, kind(covariance=self.covariance))
        keys = jax.random.split(jax.random.key(1), 20_000)
        drawn = jax.vmap(lambda key: measured.noise.sample(key, measured.value))(keys)
        seen = jax.vmap(lambda y: measured.noise.whiten(y, measured.value))(drawn)
        np.testing.assert_allclose(np.cov(np.asarray(seen).T), np.eye(3), atol=0.04)
        logs = drawn if kind is GaussianNoise else jnp.log(drawn)
        np.testing.assert_allclose(np.cov(np.asarray(logs).T), self.covariance, atol=0.004)

    def test_missing_entries_leave_their_rows(self):
        value = np.array([1.0, np.nan, 3.0])
        measured = Measurement(
            "y", whole, value, GaussianNoise(covariance=self.covariance), labels=("a", "b", "c")
        )
        assert measured.left_out == ("b",) and measured.value.shape == (2,)
        residual = measured.residual(jnp.array([1.1, jnp.nan, 2.5]))
        error = np.array([0.1, -0.5])
        expected = error @ np.linalg.solve(self.covariance[np.ix_([0, 2], [0, 2])], error)
        assert float(residual @ residual) == pytest.approx(expected, rel=1e-12)
        problem = InverseProblem(PlainModel(decay), [Parameter("a", Normal(0.0, 1.0))], [measured])
        assert problem.n_data == 2 and problem.left_out == ("y[b]",)


def test_log_density_is_that_of_scipy():
    problem, (matrix, median, sd, covariance, value) = linear_problem()
    xi = problem.sample_prior(jax.random.key(0))
    x = np.asarray(problem.values(xi)["x"])
    np.testing.assert_allclose(x, median + sd * np.asarray(xi), rtol=1e-14)
    likelihood = scipy.stats.multivariate_normal(value, covariance).logpdf
    prior = scipy.stats.norm(median, sd).logpdf
    found = problem.log_density(xi) - problem.log_density(jnp.zeros(4))
    expected = likelihood(matrix @ x) + prior(x).sum()
    expected -= likelihood(matrix @ median) + prior(median).sum()
    assert float(found) == pytest.approx(expected, rel=1e-10)


def test_data_are_drawn_about_the_prediction():
    problem = decay_problem(sd=0.1)
    xi = jnp.array([0.3, -0.2])
    keys = jax.random.split(jax.random.key(3), 4000)
    drawn = jax.vmap(lambda key: problem.sample_data(key, xi)["signal"])(keys)
    np.testing.assert_allclose(drawn.mean(axis=0), problem.solve(xi)[0], atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), 0.1, atol=0.01)
    other = problem.with_data({"signal": drawn[0]})
    np.testing.assert_array_equal(other.measurements[0].value, drawn[0])


def test_the_type_follows_the_data():
    problem, _ = linear_problem(dtype=np.float32)
    xi = problem.sample_prior(jax.random.key(0))
    assert problem.dtype == xi.dtype == jnp.float32
    assert problem.log_density(xi).dtype == problem.values(xi)["x"].dtype == jnp.float32


_ONE = Parameter("a", Normal(1.0, 0.5), Log())
_SEEN = Measurement("y", whole, np.ones(2), GaussianNoise(sd=0.1))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Normal(1.0, 0.0), "a standard deviation is 0.0"),
        (lambda: Normal(1.0, np.array([1.0, -2.0])), "a standard deviation is -2.0"),
        (lambda: Hierarchy(1.0, np.array([0, 1]), (0.2, -1.0), 0.1), "deviation is -1.0"),
        (lambda: Hierarchy(1.0, np.array([0, 2]), 0.2, 0.1), r"groups are \[0, 2\]"),
        (lambda: SmoothField(0.0, 1.0, np.array([[1.0, 2.0], [2.0, 1.0]])), "lowest eigenvalue"),
        (lambda: SmoothField(0.0, 1.0, np.array([[1.0, 0.5], [0.1, 1.0]])), "not symmetric"),
        (lambda: squared_exponential(np.zeros((2, 2)), 0.0), "the length is 0"),
        (lambda: Interval(1.0, 0.0), "the bounds are 1.0 and 0.0"),
        (lambda: Parameter("a", Normal(-1.0, 1.0), Log()), "'a': the median is -1.0"),
        (lambda: Parameter("a", Normal(2.0, 1.0), Interval(0.0, 1.0)), "the median is 2.0"),
        (lambda: Parameter("a", Normal(np.ones(3), 1.0), shape=(2,)), "the shape is"),
        (lambda: Parameter("a", Normal(0.0, 1.0), shape=(3,), labels=("x",)), "1 labels for"),
        (lambda: GaussianNoise(), "both or none of sd and covariance"),
        (lambda: GaussianNoise(sd=-1.0), "deviation is -1.0"),
        (lambda: GaussianNoise(covariance=np.ones((2, 2))), "not positive definite"),
        (lambda: GaussianNoise(covariance=np.ones((2, 3))), "its shape is"),
        (lambda: LogNormalNoise(covariance=np.array([[1.0, 0.3], [0.0, 1.0]])), "not symmetric"),
        (lambda: Measurement("y", whole, np.full(2, np.nan), GaussianNoise(sd=1.0)), "all are NaN"),
        (
            lambda: Measurement("y", whole, np.array([1.0, np.inf]), GaussianNoise(sd=1.0)),
            "entry 1",
        ),
        (
            lambda: Measurement("y", whole, np.array([1.0, -2.0]), LogNormalNoise(sd=1.0)),
            "entry 1 is -2 under log-normal noise",
        ),
        (lambda: Measurement("y", whole, np.ones(2), GaussianNoise(sd=np.ones(3))), "3 entries"),
        (
            lambda: Measurement("y", whole, np.ones(2), GaussianNoise(sd=1.0), labels=("a",)),
            "1 labels and 2 values",
        ),
        (lambda: InverseProblem(decay, [_ONE, _ONE], [_SEEN]), "parameter 'a' occurs twice"),
        (lambda: InverseProblem(decay, [_ONE], [_SEEN, _SEEN]), "measurement 'y' occurs twice"),
        (lambda: InverseProblem(decay, [_ONE], []), "there is no measurement"),
        (
            lambda: InverseProblem(PlainModel(lambda v: v["a"][None]), [_ONE], [_SEEN]).residual(
                jnp.zeros(1)
            ),
            "observe returns the shape",
        ),
    ],
)
def test_bad_input_is_told_in_a_sentence(make, says):
    with pytest.raises(InputError, match=says):
        make()
