"""Fits: exact answers, cost, failed solves, and going on after a stop."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from inverse_cases import (
    banana_problem,
    decay,
    decay_problem,
    exact,
    linear_problem,
    two_mode_problem,
    whole,
)

from jaxperf import InputError, Progress
from jaxperf.inverse import (
    FirstOrder,
    fit,
    FitError,
    GaussianNoise,
    Hierarchy,
    InverseProblem,
    LevenbergMarquardt,
    Log,
    Measurement,
    Normal,
    Parameter,
    PlainModel,
)

LBFGS, ADAM = FirstOrder(optax.lbfgs()), FirstOrder(optax.adam(0.1))


@pytest.mark.parametrize("method", [LevenbergMarquardt(), LBFGS])
def test_a_linear_problem_has_the_mode_of_the_normal_equations(method):
    problem, given = linear_problem()
    found = fit(problem, method, starts=2, tolerance=1e-10, max_steps=200)
    np.testing.assert_allclose(found.values["x"], exact(given)[0], rtol=1e-5)
    assert len(found.modes) == 1 and not found.failed


@pytest.mark.parametrize("n", [3, 12])
def test_columns_and_rows_give_the_same_jacobian(n):
    problem, (matrix, _, sd, covariance, _) = linear_problem(n=n, p=5)
    expected = np.linalg.solve(np.linalg.cholesky(covariance), matrix * sd[None])
    for chunk in (None, 2):
        found = fit(problem, starts=1, chunk=chunk)
        np.testing.assert_allclose(found.best.jacobian, expected, rtol=1e-9, atol=1e-9)
        assert found.columns == min(n, 5) * (found.solves)


def test_a_nonlinear_problem_agrees_with_scipy():
    problem = decay_problem()
    found = fit(problem, tolerance=1e-9)
    value = np.asarray(problem.measurements[0].value)

    def residual(xi):
        model = np.exp(0.5 * xi[0]) * np.exp(-2.0 * np.exp(0.7 * xi[1]) * np.linspace(0, 1, 20))
        return np.concatenate([(model - value) / 0.02, xi])

    expected = scipy.optimize.least_squares(residual, np.zeros(2), xtol=1e-14, gtol=1e-12)
    np.testing.assert_allclose(found.best.xi, expected.x, rtol=1e-5)
    assert float(found.best.objective) == pytest.approx(expected.cost, rel=1e-9)


def test_levenberg_marquardt_needs_few_solves():
    cost = []
    base = decay_problem(sd=0.05)
    for seed in range(8):
        key = jax.random.key(seed)
        xi = base.sample_prior(key)
        problem = base.with_data(base.sample_data(jax.random.fold_in(key, 1), xi))
        for walked in fit(problem, starts=3, key=key, throw=False).starts:
            solves, objective = walked.history.T
            cost.append(solves[objective < objective[-1] + 0.01][0])
    assert np.median(cost) <= 6 and np.max(cost) <= 20


def test_the_history_counts_solves_and_never_rises():
    found = fit(decay_problem(), starts=2)
    for walked in found.starts:
        solves, objective = walked.history.T
        np.testing.assert_array_equal(solves, np.arange(1, len(solves) + 1))
        assert np.all(np.diff(objective) <= 0) and walked.solves == solves[-1]
    refused = sum(int(np.sum(np.diff(w.history[:, 1]) == 0)) for w in found.starts)
    assert found.columns == 2 * (found.solves - refused)


@pytest.mark.parametrize("method", [LBFGS, ADAM])
def test_first_order_methods_reach_the_same_mode(method):
    problem = decay_problem()
    found = fit(problem, method, starts=1, max_steps=600)
    expected = fit(problem, starts=1, tolerance=1e-8)
    assert float(found.best.objective - expected.best.objective) < 1e-3
    assert found.columns >= found.solves - 1 > 5
    np.testing.assert_allclose(found.best.jacobian, expected.best.jacobian, rtol=0.05, atol=1.0)


def test_two_modes_are_found_and_ordered():
    found = fit(two_mode_problem(), starts=8)
    assert len(found.modes) == 2 and len(found.starts) == 8
    first, second = (float(mode.objective) for mode in found.modes)
    assert first < second
    assert float(found.modes[0].xi[0]) > 0.5 and float(found.modes[1].xi[0]) < -0.5


def test_a_valley_is_followed():
    found = fit(banana_problem(), starts=jnp.array([[1.5, -1.0]]), tolerance=1e-6)
    expected = fit(banana_problem(), starts=1, tolerance=1e-6)
    assert float(found.best.objective) == pytest.approx(float(expected.best.objective), abs=1e-5)


def test_unknown_spreads_are_fitted():
    group = np.repeat([0, 1, 2], 4)
    truth = np.repeat([-0.8, 0.1, 0.7], 4) + 0.02 * np.random.default_rng(0).standard_normal(12)
    problem = InverseProblem(
        PlainModel(lambda v: v["level"]),
        [Parameter("level", Hierarchy(0.0, group, (0.3, 0.7), (0.3, 0.7)))],
        [Measurement("y", whole, truth, GaussianNoise(sd=0.02))],
    )
    found = fit(problem, starts=3)
    # groups are further apart than the prior's median says, and members are not
    assert float(found.best.xi[0]) > 0.3 > float(found.best.xi[1])
    np.testing.assert_allclose(found.values["level"], truth, atol=0.04)


def test_float32():
    problem, given = linear_problem(dtype=np.float32)
    found = fit(problem, starts=2)
    assert found.best.jacobian.dtype == jnp.float32
    np.testing.assert_allclose(found.values["x"], exact(given)[0], rtol=2e-3, atol=2e-3)


class Implicit(eqx.Module):
    """x³ + x = b by Newton's method, which counts its steps and starts where it is told."""

    traces: list = eqx.field(static=True)

    def __call__(self, values, initial):
        self.traces.append(initial is None)
        load = values["load"]
        begin = jnp.zeros_like(load) if initial is None else initial
        fixed = jax.lax.stop_gradient(load)

        def step(state):
            x, n = state
            return x - (x**3 + x - fixed) / (3 * x**2 + 1), n + 1

        is_off = lambda state: jnp.max(jnp.abs(state[0] ** 3 + state[0] - fixed)) > 1e-12
        x, n = jax.lax.while_loop(is_off, step, (begin, jnp.zeros((), int)))
        # one step more carries the derivative of the implicit function
        x = x - (x**3 + x - load) / (3 * x**2 + 1)
        return {"x": x, "steps": n}, x


def _implicit_problem(traces, value):
    return InverseProblem(
        Implicit(traces),
        [Parameter("load", Normal(10.0, 1.0), Log(), shape=(2,))],
        [Measurement("x", lambda output: output["x"], value, GaussianNoise(sd=0.01))],
    )


class TestWarmStarts:
    def test_solves_start_from_the_last_solution(self):
        problem = _implicit_problem([], np.array([2.0, 3.0]))
        xi = jnp.array([0.1, 0.4])
        cold, warm = problem.solve(xi)
        near, _ = problem.solve(xi + 1e-4, warm)
        assert int(near["steps"]) < int(cold["steps"]) - 2
        slope = jax.jacfwd(lambda xi: problem.residual(xi, warm)[0])(xi)
        step = lambda i: jnp.zeros(2).at[i].set(1e-6)
        for i in range(2):
            ahead, back = (problem.residual(xi + s * step(i))[0] for s in (1, -1))
            np.testing.assert_allclose(slope[:, i], (ahead - back) / 2e-6, rtol=1e-6, atol=1e-6)

    def test_the_start_is_not_differentiated(self):
        problem = _implicit_problem([], np.array([2.0, 3.0]))
        through = lambda start: problem.residual(jnp.zeros(2), start)[0].sum()
        np.testing.assert_array_equal(jax.grad(through)(jnp.ones(2)), 0.0)
        after = lambda xi: problem.residual(xi)[1].sum()
        np.testing.assert_array_equal(jax.grad(after)(jnp.ones(2)), 0.0)

    def test_the_model_is_traced_once_cold_and_once_warm(self):
        traces = []
        problem = _implicit_problem(traces, np.array([2.0, 3.0]))
        found = fit(problem, starts=3)
        assert traces.count(True) == 1 and traces.count(False) == 1
        np.testing.assert_allclose(found.values["load"], [10.0, 30.0], rtol=0.02)
        fit(problem.with_data({"x": jnp.array([1.0, 2.0])}), starts=5)
        assert len(traces) == 2
        # each start is solved once without a solution to start from
        assert found.solves == sum(w.history[0, 0] == 2 for w in found.starts) + sum(
            len(w.history) for w in found.starts
        )


def _fragile(limit):
    def model(values):
        signal = decay(values)
        return jnp.where(values["rate"] < limit, signal, jnp.nan)

    return model


def _fragile_problem(limit):
    return eqx.tree_at(lambda p: p.model, decay_problem(), PlainModel(_fragile(limit)))


class TestFailedSolves:
    @pytest.mark.parametrize("method", [LevenbergMarquardt(damping=1e-6), ADAM])
    def test_a_solve_that_fails_is_a_step_refused(self, method):
        # the prior median is solved, the optimum too, what lies beyond is not
        found = fit(_fragile_problem(3.3), method, starts=1, max_steps=600)
        expected = fit(decay_problem(), starts=1)
        assert float(found.best.objective - expected.best.objective) < 5e-3
        beyond = jnp.array([0.0, 3.0])
        assert float(found.problem.log_density(beyond)) == -np.inf

    def test_a_start_without_a_solution_is_told(self):
        problem = _fragile_problem(3.3)
        found = fit(problem, starts=jnp.array([[0.0, 3.0], [0.0, 0.0]]))
        assert len(found.failed) == 1 and len(found.modes) == 1
        assert found.failed[0].startswith("Start 0 could not begin: the first solve gave numbers")

    def test_without_any_solution_the_fit_says_so(self):
        with pytest.raises(FitError, match=r"found no mode\. Each start could not begin"):
            fit(_fragile_problem(0.1), starts=2, throw=False)

    def test_too_few_steps_are_told(self):
        with pytest.raises(FitError, match="did not converge in max_steps solves; raise max_steps"):
            fit(decay_problem(), starts=1, max_steps=1)
        found = fit(decay_problem(), starts=1, max_steps=1, throw=False)
        assert len(found.modes) == 1 and "max_steps" in found.failed[0]


class _Stop(Exception):
    pass


class _Stopping(Progress):
    """A reporter that ends the work after some counts, as a killed process would."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def tell(self, *args, **kwargs):
        self.left -= 1
        if self.left < 0:
            raise _Stop


@pytest.mark.parametrize("method", [LevenbergMarquardt(), ADAM])
def test_a_stopped_fit_goes_on_with_the_same_bits(tmp_path, method):
    problem = _implicit_problem([], np.array([2.0, 3.0]))
    settings = {"starts": 3, "max_steps": 400, "tolerance": 1e-2, "key": jax.random.key(4)}
    whole_fit = fit(problem, method, **settings)
    stops = 0
    while True:
        try:
            found = fit(problem, method, folder=tmp_path, progress=_Stopping(4), **settings)
            break
        except _Stop:
            stops += 1
        if method is ADAM:
            found = fit(problem, method, folder=tmp_path, **settings)
            break
    assert stops >= 1 and not list(tmp_path.glob("*.tmp"))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(whole_fit), strict=True):
        np.testing.assert_array_equal(one, other)
    again = fit(problem, method, folder=tmp_path, progress=_Stopping(0), **settings)
    np.testing.assert_array_equal(again.best.xi, found.best.xi)


def test_a_folder_with_other_work_is_refused(tmp_path):
    fit(decay_problem(), starts=1, folder=tmp_path)
    with pytest.raises(InputError, match="the work on another problem"):
        fit(decay_problem(seed=1), starts=1, folder=tmp_path)
    (tmp_path / "start_000.npz").write_bytes(b"half a file")
    with pytest.raises(InputError, match=r"start_000\.npz cannot be read"):
        fit(decay_problem(), starts=1, folder=tmp_path)


@pytest.mark.parametrize(
    ("starts", "says"), [(0, "starts is 0"), (jnp.zeros((2, 3)), r"the shape \(2, 3\)")]
)
def test_starts_that_cannot_be(starts, says):
    with pytest.raises(InputError, match=says):
        fit(decay_problem(), starts=starts)
