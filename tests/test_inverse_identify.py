"""What measurements see: against the normal equations, and in words."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from inverse_cases import decay_problem, exact, linear_problem, whole

from jaxperf import InputError
from jaxperf.inverse import (
    fit,
    GaussianNoise,
    identify,
    Interval,
    InverseProblem,
    laplace,
    Log,
    Measurement,
    misfit,
    Normal,
    Parameter,
    PlainModel,
    profile,
    shrinkage,
)


def ridge(values):
    """Flow through a lesion and a bed in series: one cannot tell them apart."""
    return ((1.0 - values["severity"]) * values["reserve"])[None]


def ridge_problem():
    return InverseProblem(
        PlainModel(ridge),
        [
            Parameter("severity", Normal(0.5, 0.4), Interval(0.0, 1.0)),
            Parameter("reserve", Normal(3.0, 0.2), Log()),
            Parameter("unseen", Normal(1.0, 0.1), Log()),
        ],
        [Measurement("flow", whole, np.array([1.5]), GaussianNoise(sd=0.1))],
    )


class TestIdentify:
    def test_eigenvalues_and_sds_of_a_linear_problem(self):
        problem, given = linear_problem()
        matrix, _, sd, covariance, _ = given
        seen = identify(fit(problem, starts=1))
        scaled = matrix * sd[None]
        information = scaled.T @ np.linalg.solve(covariance, scaled)
        np.testing.assert_allclose(
            seen.eigenvalues, np.linalg.eigvalsh(information)[::-1], rtol=1e-8
        )
        v = seen.directions
        np.testing.assert_allclose(v.T @ information @ v, np.diag(seen.eigenvalues), atol=1e-7)
        ratio = np.sqrt(np.diag(exact(given)[1])) / sd
        np.testing.assert_allclose(seen.sd_ratio, ratio, rtol=1e-8)
        assert seen.entries == tuple(f"x[{i}]" for i in range(4)) and not seen.blind

    def test_the_blind_combination_is_named_and_blind(self):
        problem = ridge_problem()
        found = fit(problem, starts=1, tolerance=1e-9)
        seen = identify(found)
        assert len(seen.blind) == 2 and seen.sd_ratio[2] == pytest.approx(1.0)
        ridge_words = next(text for text in seen.blind if "severity" in text)
        assert "severity up by" in ridge_words and "reserve up by" in ridge_words
        assert ridge_words.endswith(" changes no measurement at all.")
        assert "unseen up by 11 % changes no measurement at all." in seen.blind
        # along it the flow stays, and along severity alone it does not
        blind = next(v for v in seen.directions.T[1:] if abs(v[0]) > 0.1)
        flow = lambda xi: float(problem.solve(jnp.asarray(xi))[0][0])
        at = np.asarray(found.best.xi)
        assert abs(flow(at + 0.1 * blind) - flow(at)) < 0.02
        assert abs(flow(at + 0.1 * np.array([1.0, 0.0, 0.0])) - flow(at)) > 0.02

    def test_a_threshold_decides_what_is_blind(self):
        found = fit(decay_problem(sd=2.0), starts=1)
        assert len(identify(found, 1e-6).blind) == 0
        (text,) = identify(found, 0.5).blind
        assert "changes no measurement by more than" in text


class TestShrinkage:
    def test_a_linear_problem_is_exact(self):
        problem, given = linear_problem(n=12)
        rows = slice(0, 8)
        few = InverseProblem(
            problem.model,
            problem.parameters,
            [
                Measurement(
                    "some", lambda y: y[rows], given[4][rows], GaussianNoise(sd=np.full(8, 0.3))
                )
            ],
        )
        more = Measurement("more", lambda y: y[8:], given[4][8:], GaussianNoise(sd=0.2))
        both = InverseProblem(few.model, few.parameters, [*few.measurements, more])
        total = lambda values, output: jnp.sum(output)
        now, then = (laplace(fit(p, starts=1)) for p in (few, both))
        change = shrinkage(now, more, total)
        spread = lambda posterior: np.linalg.norm(posterior.factor, axis=1) * given[2]
        np.testing.assert_allclose(change.before, spread(now), rtol=1e-8)
        np.testing.assert_allclose(change.after, spread(then), rtol=1e-8)
        assert np.all(change.after < change.before)
        reach = then.interval(total, 0.9)
        expected = float(reach.high - reach.median) / scipy.stats.norm.ppf(0.95)
        assert float(change.quantity_after) == pytest.approx(expected, rel=1e-6)

    def test_a_measurement_breaks_the_ridge(self):
        posterior = laplace(fit(ridge_problem(), starts=1))
        severity = Measurement("FFR", lambda y: y, np.array([2.0]), GaussianNoise(sd=0.01))
        change = shrinkage(posterior, severity)
        assert change.quantity_before is None
        assert np.all(change.after <= change.before + 1e-12)


class TestMisfit:
    def test_degrees_of_freedom_and_p_values_are_calibrated(self):
        base, _ = linear_problem(n=12, p=4)
        chi2, p = [], []
        for seed in range(40):
            key = jax.random.key(seed)
            xi = base.sample_prior(key)
            problem = base.with_data(base.sample_data(jax.random.fold_in(key, 1), xi))
            found = misfit(fit(problem, starts=1), n=100)
            chi2.append(found.chi2)
            p.append(found.p_value)
        error = np.std(chi2) / np.sqrt(40)
        assert np.mean(chi2) == pytest.approx(found.freedom, abs=4 * error)
        assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
        assert 8.0 < found.freedom < 9.0

    def test_a_wrong_model_is_told(self):
        problem = decay_problem(value=1.0 + 0.5 * np.sin(9.0 * np.linspace(0.0, 1.0, 20)))
        found = misfit(fit(problem, starts=2))
        assert found.testable and found.p_value < 1e-6 and found.predictive < 0.01
        assert "The model or the noise is wrong" in found.words
        assert (
            found.by_name["signal"][0] == pytest.approx(found.chi2)
            and found.by_name["signal"][1] == 20
        )

    def test_the_true_model_passes(self):
        found = misfit(fit(decay_problem(), starts=2))
        assert found.p_value > 0.01 and 0.01 < found.predictive < 0.99
        assert "explains the measurements" in found.words

    def test_as_many_parameters_as_data_cannot_be_tested(self):
        found = misfit(fit(ridge_problem(), starts=1))
        assert not found.testable and np.isnan(found.p_value)
        assert "a wrong model would fit as well" in found.words


class TestProfile:
    def test_a_linear_problem_has_a_parabola(self):
        problem, given = linear_problem()
        mean, covariance = exact(given)
        found = fit(problem, starts=1, tolerance=1e-8)
        sd = float(np.sqrt(covariance[2, 2]))
        grid = mean[2] + sd * np.array([-2.0, -1.0, 0.5, 2.0])
        along = profile(found, "x", grid, 2)
        np.testing.assert_allclose(along.objective, [2.0, 0.5, 0.125, 2.0], rtol=1e-2)
        for xi, value in zip(along.xi, grid, strict=True):
            assert float(problem.values(jnp.asarray(xi))["x"][2]) == pytest.approx(value, abs=1e-3)

    @pytest.mark.parametrize(
        ("given", "says"),
        [
            (("speed", np.ones(1)), "no parameter 'speed'"),
            (("rate", np.ones(1), 1), "the index is 1"),
            (("rate", -np.ones(1)), "the grid reaches from -1.0"),
        ],
    )
    def test_what_cannot_be_held(self, given, says):
        with pytest.raises(InputError, match=says):
            profile(fit(decay_problem(), starts=1), *given)
