"""What becomes of a solve that fails: it raises where values are known and is NaN elsewhere."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem
from flow1d_cases import star, waveform

from jaxperf import (
    RESULTS,
    SavePoints,
    solve_darcy,
    solve_flow1d,
    solve_perfusion,
    solve_periodic,
    solve_steady,
    SolveError,
)
from jaxperf._padding import cut_solution, pad_problem
from jaxperf.darcy import ConjugateGradient, darcy_mesh, darcy_operator, DarcyProblem
from jaxperf.flow1d import flow1d_problem, initial_state
from jaxperf.geometry import ellipsoid_ventricle
from jaxperf.network import declare_lesion, PressureBoundary, PressureWaveform, ResistanceOutlet
from jaxperf.steady import SteadyProblem
from jaxperf.vessel import Blood, ConstantStiffness, SqrtAreaWall


class Case(NamedTuple):
    """A solve of one number, what it observes of it, a number at which it fails, and its words."""

    solve: Any
    observe: Any
    good: float
    bad: float
    begins: str
    names: str


def _steady():
    network = star([[0, 1], [1, 2]], [[2e-3, 1.8e-3], [1.8e-3, 1.5e-3]], [0.02, 0.05])
    network = declare_lesion(
        network, branch="vessel 1", start_mm=10, end_mm=20, diameter_reduction=0.6
    )

    def solve(pressure, **options):
        inlet = PressureBoundary(jnp.array([0]), pressure[None])
        bed = ResistanceOutlet(jnp.array([2]), jnp.array([3e9]), jnp.array([2e3]))
        return solve_steady(SteadyProblem(network, (inlet, bed)), **options)

    return Case(solve, lambda s: s.flow[0], 1.2e4, np.nan, "not finite", "vessel 1")


def _darcy():
    mesh = darcy_mesh(ellipsoid_ventricle(spacing_mm=5.0)[0])
    source = jnp.asarray(np.random.default_rng(0).standard_normal(mesh.graph.n_cells))

    def solve(permeability, **options):
        conducted = mesh.transmissibility(permeability)
        operator = darcy_operator(mesh.graph, conducted, mesh.graph.volume)
        return solve_darcy(DarcyProblem(operator, source), ConjugateGradient(), **options)

    begins = "The matrix of the linear system"
    return Case(solve, lambda s: s.pressure_tissue[3], 1e-9, -1e-3, begins, "control volume")


def _coupled():
    problem, _ = small_problem(n_terminals=3, spacing_mm=5.0)

    def solve(pressure, **options):
        held = eqx.tree_at(lambda p: p.boundary[0].pressure, problem, pressure[None])
        return solve_perfusion(held, **options)

    return Case(solve, lambda s: s.mbf[5], 1.2e4, np.nan, "", "The worst vessel is")


def _pipe(pressure):
    network = star([[0, 1]], [[2e-3, 2e-3]], [0.1], branch_name=("LAD",))
    beat = waveform(lambda t: 1.1e4 + 500.0 * np.sin(2 * np.pi * t), 1.0, 33)
    beat = eqx.tree_at(lambda w: w.value, beat, beat.value * pressure)
    inlet = PressureWaveform(jnp.array([0]), beat)
    bed = ResistanceOutlet(jnp.array([1]), jnp.array([2e9]), jnp.array([5e3]))
    wall = SqrtAreaWall(ConstantStiffness(6e4), 9e3)
    return flow1d_problem, network, (inlet, bed), Blood(), wall


def _transient(verb):
    build, network, boundary, blood, wall = _pipe(jnp.asarray(1.0))
    problem = build(network, boundary, blood, wall, cell_time=4e-3)
    start = initial_state(problem)
    points = SavePoints(np.array([0]), np.array([0.5]))

    def solve(factor, **options):
        value = problem.boundary[0].pressure.value * factor
        driven = eqx.tree_at(lambda p: p.boundary[0].pressure.value, problem, value)
        return verb(driven, points=points, samples=4, initial=start, **options)

    return Case(solve, lambda s: s.flow[-1, 0], 1.0, -20.0, "", r"LAD .* at t = 0\.\d+ s")


_CASES = {
    "steady": _steady,
    "darcy": _darcy,
    "coupled": _coupled,
    "flow1d": lambda: _transient(solve_flow1d),
    "periodic": lambda: _transient(solve_periodic),
}


@pytest.fixture(scope="module", params=_CASES)
def case(request):
    return _CASES[request.param]()


def test_a_failed_solve_raises_once_in_our_words(case):
    failed = case.solve(jnp.asarray(case.bad), throw=False)
    sentence = RESULTS[failed.result]
    assert sentence
    with pytest.raises(SolveError, match=case.names) as caught:
        case.solve(jnp.asarray(case.bad))
    # Of a transient run the error gives the first cause, which may have led to what `result` says.
    assert str(caught.value).startswith(RESULTS[caught.value.result]) and case.begins in sentence
    assert case.solve(jnp.asarray(case.good)).result == RESULTS.successful


def test_under_a_transformation_a_failed_solve_is_nan(case):
    """Values and derivatives, in both modes; and one bad member leaves a batch's others alone."""
    good, bad = jnp.asarray(case.good), jnp.asarray(case.bad)
    value = lambda x: case.observe(case.solve(x))
    assert np.isnan(jax.jit(value)(bad)) and np.isfinite(jax.jit(value)(good))
    whole = jax.jit(case.solve)(bad)
    for leaf in jax.tree.leaves(eqx.filter(whole, eqx.is_inexact_array)):
        assert np.isnan(leaf).all()
    assert RESULTS[whole.result] == RESULTS[case.solve(bad, throw=False).result]
    for derivative in (jax.grad(value), jax.jit(jax.value_and_grad(value))):
        assert np.isnan(derivative(bad)).all()
        assert np.isfinite(derivative(good)).all()
    batch = jax.vmap(value)(jnp.stack([good, bad]))
    np.testing.assert_array_equal(np.isnan(batch), [False, True])
    np.testing.assert_allclose(batch[0], value(good), rtol=1e-9)


def test_no_program_calls_the_host(case):
    """JAX keeps no program with a callback in its persistent cache."""
    value = lambda x: case.observe(case.solve(x))
    for function in (value, jax.grad(value)):
        text = jax.jit(function).lower(jnp.asarray(case.good)).as_text()
        assert "callback" not in text and "custom_call @xla_ffi_python" not in text


def test_forward_mode_of_a_failed_solve_is_nan():
    steady = _steady()
    value = lambda x: steady.observe(steady.solve(x))
    for x, finite in ((steady.good, True), (steady.bad, False)):
        found = jax.jvp(value, (jnp.asarray(x),), (jnp.ones(()),))
        assert np.isfinite(found).all() if finite else np.isnan(found).all()


def test_a_start_from_another_solution():
    """The same solution in fewer steps, and nothing is differentiated with respect to it."""
    problem, _ = small_problem(n_terminals=6, spacing_mm=5.0)
    reduction = lambda r: eqx.tree_at(
        lambda p: p.network.lesion.diameter_reduction, problem, jnp.asarray([r])
    )
    near = solve_perfusion(reduction(0.70))
    cold, warm = solve_perfusion(reduction(0.71)), solve_perfusion(reduction(0.71), initial=near)
    assert int(warm.newton_iterations) < int(cold.newton_iterations)
    np.testing.assert_allclose(warm.flow, cold.flow, rtol=1e-9)
    np.testing.assert_allclose(warm.mbf, cold.mbf, rtol=1e-9)

    def flow(r, scale):
        start = eqx.tree_at(lambda s: s.flow, near, near.flow * scale)
        return solve_perfusion(reduction(r), initial=start).flow[0]

    by_reduction, by_start = jax.grad(flow, argnums=(0, 1))(0.71, 1.0)
    assert by_start == 0.0
    expected = jax.grad(lambda r: solve_perfusion(reduction(r)).flow[0])(0.71)
    np.testing.assert_allclose(by_reduction, expected, rtol=1e-7)
    smaller, _ = small_problem(n_terminals=4, spacing_mm=5.0)
    with pytest.raises(ValueError, match="initial has"):
        solve_perfusion(smaller, initial=near)


@pytest.mark.parametrize("wrap", [lambda p: p, pad_problem], ids=["plain", "padded"])
def test_a_solve_starts_from_one_at_another_aortic_pressure(wrap):
    """Held nodes take the new pressure at once, those that only pad the network too."""
    problem, _ = small_problem(n_terminals=3, spacing_mm=5.0)
    where = lambda p: p.boundary[0].pressure
    near = solve_perfusion(wrap(problem))
    raised = eqx.tree_at(where, problem, 1.05 * where(problem))
    found = solve_perfusion(wrap(raised), initial=near)
    found, cold = cut_solution(found, raised), solve_perfusion(raised)
    np.testing.assert_allclose(found.mbf, cold.mbf, rtol=1e-9)
    np.testing.assert_allclose(found.pressure_total, cold.pressure_total, rtol=1e-12)
