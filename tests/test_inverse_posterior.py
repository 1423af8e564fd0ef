"""Posteriors against exact ones: normal equations, grids, and each other."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from inverse_cases import (
    banana_problem,
    decay_problem,
    exact,
    grid_posterior,
    linear_problem,
    two_mode_problem,
    whole,
)

from jaxperf import InputError, Progress
from jaxperf.inverse import (
    check_laplace,
    fit,
    GaussianNoise,
    Hierarchy,
    Interval,
    InverseProblem,
    laplace,
    Log,
    Measurement,
    mixture,
    NUTS,
    Parameter,
    PlainModel,
    sample_posterior,
    TemperedSMC,
)

KEY = jax.random.key(7)


def total(values, output):
    return jnp.sum(output)


def rate(values, output):
    return values["rate"]


def right(values, output):
    return values["x"][0] > 0.0


class TestLaplace:
    def test_a_linear_problem_is_exact(self):
        problem, given = linear_problem()
        mean, covariance = exact(given)
        posterior = laplace(fit(problem, starts=1, tolerance=1e-12))
        sd = given[2]
        spread = np.asarray(posterior.factor @ posterior.factor.T) * np.outer(sd, sd)
        np.testing.assert_allclose(spread, covariance, rtol=1e-8, atol=1e-12)
        along = given[0].sum(axis=0)
        bounds = posterior.interval(total, 0.8)
        reach = scipy.stats.norm.ppf(0.9) * np.sqrt(along @ covariance @ along)
        assert float(bounds.high - bounds.median) == pytest.approx(reach, rel=1e-8)
        assert float(bounds.median) == pytest.approx(along @ mean, rel=1e-6)
        drawn = posterior.predict(lambda values, output: values["x"], 20_000)
        np.testing.assert_allclose(np.cov(drawn.T), covariance, rtol=0.1, atol=0.01)

    def test_intervals_follow_the_transform(self):
        posterior = laplace(fit(decay_problem(sd=0.3), starts=1))
        bounds = posterior.interval(rate, 0.95, Log())
        low, high = float(bounds.low / bounds.median), float(bounds.high / bounds.median)
        assert low * high == pytest.approx(1.0, rel=1e-12) and bounds.low > 0.0
        # the rate is log-normal, so the interval is that of its coordinate
        reach = 1.96 * 0.7 * np.linalg.norm(posterior.factor[1])
        assert np.log(high) == pytest.approx(reach, rel=1e-3)
        plain = posterior.interval(rate, 0.95)
        assert float(plain.high - plain.median) == pytest.approx(
            float(plain.median - plain.low), rel=1e-12
        )

    def test_linearised_and_solved_draws_agree_where_data_are_sharp(self):
        found = fit(decay_problem(sd=0.01), starts=1)
        line, solved = laplace(found), laplace(found, linearised=False)
        one, other = line.interval(total, 0.9), solved.interval(total, 0.9)
        width = float(one.high - one.low)
        assert abs(float(other.low - one.low)) < 0.25 * width
        assert abs(float(other.high - one.high)) < 0.25 * width
        edge = float(one.median)
        above = lambda values, output: total(values, output) > edge
        assert float(line.probability(above)) == pytest.approx(0.5, abs=0.06)
        assert float(solved.probability(above)) == pytest.approx(0.5, abs=0.12)
        with pytest.raises(InputError, match="holds no derivative"):
            solved.jacobian(total)

    def test_a_level_is_a_probability(self):
        with pytest.raises(InputError, match="the level is 95"):
            laplace(fit(decay_problem(), starts=1)).interval(rate, 95)


class _Counting(eqx.Module):
    """A model that counts how often the host solves it."""

    seen: list = eqx.field(static=True)

    def __call__(self, values):
        jax.debug.callback(lambda: self.seen.append(1))
        return values["x"]


def test_quantities_of_the_values_are_not_solved_for():
    from jaxperf.inverse import Normal

    seen = []
    problem = InverseProblem(
        PlainModel(_Counting(seen)),
        [Parameter("x", Normal(0.0, 1.0), shape=(2,))],
        [Measurement("y", whole, np.ones(2), GaussianNoise(sd=0.5))],
    )
    posterior = laplace(fit(problem, starts=1), linearised=False)
    jax.effects_barrier()
    before = len(seen)
    values = posterior.predict(lambda values, output: values["x"], 50)
    jax.effects_barrier()
    assert len(seen) == before and values.shape == (50, 2)
    posterior.predict(lambda values, output: output, 50)
    jax.effects_barrier()
    assert len(seen) == before + 50


class TestCheck:
    def test_a_linear_problem_passes(self):
        check = check_laplace(fit(linear_problem()[0], starts=1, tolerance=1e-10), KEY, 400)
        assert check.ok and check.effective > 399.0 and "describes the posterior" in check.words

    def test_a_banana_is_flagged(self):
        check = check_laplace(fit(banana_problem()), KEY, 400)
        assert not check.ok and check.pareto_k > 0.7
        assert "Use mixture or sample_posterior" in check.words

    def test_two_modes_are_flagged(self):
        check = check_laplace(fit(two_mode_problem(), starts=8), KEY, 400)
        assert not check.ok and check.modes == 2 and "2 modes" in check.words

    def test_too_few_draws(self):
        with pytest.raises(InputError, match="n is 10"):
            check_laplace(fit(linear_problem()[0], starts=1), KEY, 10)


class TestTwoModes:
    """Weights of the modes against a grid."""

    problem = two_mode_problem()

    def weight(self):
        weight, xi = grid_posterior(self.problem)
        return float(weight[xi[:, 0] > 0].sum())

    def test_the_grid_has_two(self):
        assert 0.55 < self.weight() < 0.9

    def test_mixture(self):
        found = fit(self.problem, starts=8)
        posterior = mixture(found, KEY, 600)
        assert float(posterior.probability(right)) == pytest.approx(self.weight(), abs=0.05)
        assert posterior.pareto_k < 0.7 and float(posterior.effective()) > 200

    def test_tempered_particles(self):
        found = fit(self.problem, starts=8)
        posterior = sample_posterior(found, KEY)
        assert float(posterior.probability(right)) == pytest.approx(self.weight(), abs=0.05)
        weight, xi = grid_posterior(self.problem)
        mean = weight @ xi
        sd = np.sqrt(weight @ (xi - mean) ** 2)
        np.testing.assert_allclose(np.asarray(posterior.xi).mean(axis=0), mean, atol=0.15)
        np.testing.assert_allclose(np.asarray(posterior.xi).std(axis=0), sd, rtol=0.15)
        assert posterior.gradients > 256 and posterior.chains == 0


class TestNUTS:
    def test_a_banana_follows_the_grid(self):
        problem = banana_problem(sd=1.0)
        posterior = sample_posterior(fit(problem), KEY, NUTS(draws=400, warmup=150, accept=0.9))
        weight, xi = grid_posterior(problem, 6.0, 1601)
        mean = weight @ xi
        sd = np.sqrt(weight @ (xi - mean) ** 2)
        drawn = np.asarray(posterior.xi)
        effective = posterior.effective()
        assert effective.min() > 100 and posterior.rhat().max() < 1.05
        error = np.abs(drawn.mean(axis=0) - mean) / (sd / np.sqrt(effective))
        assert np.all(error < 4.0)
        np.testing.assert_allclose(drawn.std(axis=0), sd, rtol=0.2)
        assert posterior.gradients > len(drawn)

    def test_unknown_spreads_follow_their_marginal(self):
        group = np.repeat([0, 1, 2, 3], 3)
        rng = np.random.default_rng(2)
        value = 0.6 * rng.standard_normal(4)[group] + 0.15 * rng.standard_normal(12)
        problem = InverseProblem(
            PlainModel(lambda v: v["level"]),
            [Parameter("level", Hierarchy(0.0, group, (0.4, 0.7), (0.2, 0.7)))],
            [Measurement("y", whole, value, GaussianNoise(sd=0.1))],
        )
        found = fit(problem, starts=1)
        posterior = sample_posterior(found, KEY, NUTS(draws=300, warmup=200, chains=3))
        # given both spreads everything is Gaussian, so two dimensions are left
        line = np.linspace(-4.0, 4.0, 81)
        same = (group[:, None] == group[None]).astype(float)
        log_weight = np.empty((81, 81))
        for i, c in enumerate(line):
            for j, d in enumerate(line):
                between, within = 0.4 * np.exp(0.7 * c), 0.2 * np.exp(0.7 * d)
                spread = between**2 * same + (within**2 + 0.01) * np.eye(12)
                _, log_det = np.linalg.slogdet(spread)
                quadratic = value @ np.linalg.solve(spread, value)
                log_weight[i, j] = -0.5 * (quadratic + log_det + c**2 + d**2)
        weight = np.exp(log_weight - log_weight.max())
        weight /= weight.sum()
        expected = np.array([weight.sum(axis=1) @ line, weight.sum(axis=0) @ line])
        drawn = np.asarray(posterior.xi)[:, :2]
        error = np.abs(drawn.mean(axis=0) - expected)
        assert np.all(error < 5.0 * drawn.std(axis=0) / np.sqrt(150)), (error, expected)
        assert posterior.rhat().max() < 1.05

    def test_float32(self):
        problem, given = linear_problem(dtype=np.float32)
        found = fit(problem, starts=1)
        posterior = sample_posterior(found, KEY, NUTS(draws=100, warmup=60, chains=2))
        mean, covariance = exact(given)
        drawn = posterior.predict(lambda values, output: values["x"])
        assert posterior.xi.dtype == jnp.float32 and drawn.dtype == np.float32
        np.testing.assert_array_less(
            np.abs(drawn.mean(axis=0) - mean), 0.5 * np.sqrt(np.diag(covariance))
        )
        assert mixture(found, KEY, 100).effective() > 50

    @pytest.mark.parametrize("settings", [{"draws": 1}, {"warmup": 0}, {"chains": 0}, {"every": 0}])
    def test_settings_that_cannot_be(self, settings):
        with pytest.raises(InputError, match="NUTS: "):
            NUTS(**settings)

    def test_samples_without_chains_have_no_rhat(self):
        posterior = mixture(fit(decay_problem(), starts=1), KEY, 50)
        with pytest.raises(InputError, match="from 0 chains"):
            posterior.rhat()


class _Stop(Exception):
    pass


class _Stopping(Progress):
    def __init__(self, after):
        super().__init__()
        self.left = after

    def tell(self, what, *args, **kwargs):
        self.left -= what in ("transitions", "moves")
        if self.left < 0:
            raise _Stop


@pytest.mark.parametrize(
    "method",
    [
        NUTS(draws=40, warmup=20, chains=2, every=15),
        TemperedSMC(particles=40, batch=16, moves=2),
    ],
)
def test_a_stopped_sampler_goes_on_with_the_same_bits(tmp_path, method):
    found = fit(decay_problem(), starts=1)
    expected = sample_posterior(found, KEY, method)
    with pytest.raises(_Stop):
        sample_posterior(found, KEY, method, folder=tmp_path, progress=_Stopping(3))
    posterior = sample_posterior(found, KEY, method, folder=tmp_path)
    np.testing.assert_array_equal(posterior.xi, expected.xi)
    assert posterior.gradients == expected.gradients
    with pytest.raises(InputError, match="the work on another problem"):
        sample_posterior(found, jax.random.key(8), method, folder=tmp_path)


def _fragile(values):
    return jnp.where(values["x"][0] < 0.5, values["x"], jnp.nan)


def test_solves_that_fail_have_no_weight():
    from jaxperf.inverse import Normal

    problem = InverseProblem(
        PlainModel(_fragile),
        [Parameter("x", Normal(0.0, 1.0), shape=(2,))],
        [Measurement("y", whole, np.zeros(2), GaussianNoise(sd=1.0))],
    )
    found = fit(problem, starts=1)
    check = check_laplace(found, KEY, 100)
    assert 5 < check.failed < 50 and "could not be solved" in check.words
    first = lambda values, output: values["x"][0]
    cut = scipy.stats.truncnorm(-np.inf, 0.5 * np.sqrt(2.0), scale=np.sqrt(0.5))
    for posterior in (
        mixture(found, KEY, 400),
        sample_posterior(found, KEY, NUTS(draws=300, warmup=100)),
    ):
        drawn = posterior.predict(first)
        assert drawn.max() < 0.5
        assert drawn.mean() == pytest.approx(cut.mean(), abs=0.1)


def _ranks(base, ask, number):
    """Ranks of true rates among posterior draws, for truths drawn from the prior."""
    ranks = []
    for seed in range(number):
        key = jax.random.key(seed)
        xi = base.sample_prior(key)
        problem = base.with_data(base.sample_data(jax.random.fold_in(key, 1), xi))
        found = fit(problem, starts=3, key=key)
        drawn = ask(found, jax.random.fold_in(key, 2)).predict(rate, 200)
        ranks.append(float(np.mean(drawn < float(problem.values(xi)["rate"]))))
    return np.array(ranks)


def test_truths_are_ranked_evenly():
    """Simulation-based calibration, small (Talts et al. 2018)."""
    ranks = _ranks(decay_problem(sd=0.15), lambda found, key: mixture(found, key, 80), 16)
    assert scipy.stats.kstest(ranks, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_truths_are_ranked_evenly_by_every_posterior():
    base = decay_problem(sd=0.15)
    ways = {
        "mixture": lambda found, key: mixture(found, key, 400),
        "nuts": lambda found, key: sample_posterior(
            found, key, NUTS(draws=150, warmup=100, chains=2)
        ),
        "laplace": lambda found, key: laplace(found),
    }
    for name, ask in ways.items():
        ranks = _ranks(base, ask, 150)
        assert scipy.stats.kstest(ranks, "uniform").pvalue > 0.01, name
        inside = np.mean((ranks > 0.1) & (ranks < 0.9))
        assert 0.70 < inside < 0.90, (name, inside)


def test_a_bounded_quantity_stays_in_its_bounds():
    posterior = laplace(fit(decay_problem(sd=0.5), starts=1))
    share = lambda values, output: output[5] / (output[0] + output[5])
    bounds = posterior.interval(share, 0.999, Interval(0.0, 1.0))
    assert 0.0 < float(bounds.low) < float(bounds.high) < 1.0
