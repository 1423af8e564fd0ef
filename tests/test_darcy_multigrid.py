"""Multigrid for Darcy's equation: the map it is, its iterations, refits, gradients, coupling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem
from helpers import central_difference

from jaxperf.coupling import solve_perfusion
from jaxperf.darcy import (
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    multigrid,
    solve_darcy,
    transversely_isotropic,
)
from jaxperf.geometry import ellipsoid_ventricle, kuhn_tetrahedra, tetrahedra_from_voxels

_SCREENING = 7e-3  # m, at hyperemia


def _wall(spacing_mm, kind="voxels"):
    """A ventricle's wall, its sink of the screening length, and a source that varies."""
    mesh, _, _ = ellipsoid_ventricle(spacing_mm=spacing_mm)
    mesh = tetrahedra_from_voxels(mesh) if kind == "tetrahedra" else mesh
    prepared = darcy_mesh(mesh)
    sink = jnp.asarray(mesh.volume / _SCREENING**2)
    source = jnp.asarray(mesh.volume * (1.0 + np.tanh(100.0 * mesh.centre[:, 0])))
    return mesh, prepared, sink, source


def _problem(prepared, permeability, sink, source):
    operator = darcy_operator(prepared.graph, prepared.transmissibility(permeability), sink)
    return DarcyProblem(operator, source)


@pytest.fixture(scope="module", params=["voxels", "tetrahedra"])
def small(request):
    mesh, prepared, sink, source = _wall(4.0, request.param)
    return mesh, prepared, _problem(prepared, jnp.asarray(1.0), sink, source), multigrid(prepared)


def test_the_solution_is_that_of_the_dense_matrix(small):
    _, _, problem, method = small
    dense = jax.vmap(problem.operator, out_axes=1)(jnp.eye(problem.source.shape[0]))
    exact = np.linalg.solve(np.asarray(dense), np.asarray(problem.source))
    found = solve_darcy(problem, method)
    assert np.abs(np.asarray(found.pressure) - exact).max() <= 1e-10 * np.abs(exact).max()
    assert float(found.residual) <= 1e-11


def test_the_cycle_is_one_symmetric_positive_map(small):
    _, prepared, problem, _ = small
    method = multigrid(prepared, dtype=jnp.float64)
    state = method.init(problem.operator)
    x, y = jnp.asarray(np.random.default_rng(0).standard_normal((2, problem.source.shape[0])))
    apply = eqx.filter_jit(lambda method, state, r: method.precondition(state, r))
    one, other, both = (apply(method, state, r) for r in (x, y, 2.0 * x - 3.0 * y))
    size = jnp.linalg.norm(one) * jnp.linalg.norm(y)
    assert abs(jnp.vdot(one, y) - jnp.vdot(x, other)) <= 1e-12 * size
    assert jnp.linalg.norm(both - (2.0 * one - 3.0 * other)) <= 1e-12 * jnp.linalg.norm(both)
    assert jnp.vdot(x, one) > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["voxels", "tetrahedra"])
def test_iterations_hardly_grow_with_the_number_of_control_volumes(kind):
    counts = {}
    for spacing in (4.0, 1.5):
        mesh, prepared, sink, source = _wall(spacing, kind)
        problem = _problem(prepared, jnp.asarray(1.0), sink, source)
        found = solve_darcy(problem, multigrid(prepared, rtol=1e-8))
        counts[mesh.n_cells] = int(found.iterations)
    few, many = counts.values()
    assert many <= min(16, 1.5 * few + 1), counts


def test_other_coefficients_take_the_same_hierarchy():
    mesh, prepared, sink, source = _wall(2.5)
    uniform = multigrid(prepared, rtol=1e-8)
    rng = np.random.default_rng(1)
    permeability = jnp.asarray(100.0 ** rng.uniform(-0.5, 0.5, mesh.n_cells))
    problem = _problem(prepared, permeability, 5.0 * sink, source)
    refitted = solve_darcy(problem, uniform)
    fresh = solve_darcy(problem, multigrid(prepared, permeability, rtol=1e-8))
    assert int(refitted.iterations) <= int(fresh.iterations) + 4
    plain = solve_darcy(problem, ConjugateGradient(rtol=1e-10))
    apart = np.abs(np.asarray(refitted.pressure - plain.pressure)).max()
    assert apart <= 1e-6 * float(jnp.abs(plain.pressure).max())
    assert int(refitted.iterations) < int(plain.iterations) / 4


def test_fibres_on_tetrahedra():
    mesh = kuhn_tetrahedra(16)
    prepared = darcy_mesh(mesh)
    turn = 2.0 * mesh.point[mesh.tet].mean(axis=1)[:, 2]
    fibre = jnp.asarray(np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1))
    tensor = transversely_isotropic(jnp.asarray(10.0), jnp.asarray(1.0), fibre)
    problem = _problem(prepared, tensor, jnp.asarray(mesh.volume), jnp.asarray(mesh.volume**2))
    method, plain = multigrid(prepared, tensor, rtol=1e-10), ConjugateGradient(rtol=1e-12)
    found, exact = solve_darcy(problem, method), solve_darcy(problem, plain)
    np.testing.assert_allclose(found.pressure, exact.pressure, rtol=1e-8)
    assert int(found.iterations) < int(exact.iterations) / 2


def test_prescribed_pressures_need_no_sink():
    mesh = kuhn_tetrahedra(12)
    prepared = darcy_mesh(mesh)
    x = jnp.asarray(mesh.point[:, 0])
    operator = darcy_operator(
        prepared.graph, prepared.transmissibility(jnp.asarray(1.0)), jnp.zeros(mesh.n_cells)
    )
    problem = DarcyProblem(operator, jnp.zeros(mesh.n_cells), (x < 1e-9) | (x > 1 - 1e-9), x)
    found = solve_darcy(problem, multigrid(prepared))
    np.testing.assert_allclose(found.pressure, x, atol=1e-10)


def test_derivatives_agree_with_differences(small):
    mesh, prepared, problem, method = small
    weight = jnp.asarray(np.random.default_rng(2).standard_normal(mesh.n_cells))
    wave = jnp.asarray(np.sin(100.0 * mesh.centre[:, 2]))

    def value(theta):
        permeability = jnp.broadcast_to(jnp.exp(theta[0]), (prepared.n_elements,))
        sink = problem.operator.sink * (1.0 + 0.3 * theta[1] * wave)
        changed = _problem(prepared, permeability, sink, problem.source * (1.0 + theta[2] * wave))
        return jnp.vdot(weight, solve_darcy(changed, method).pressure) * 1e6

    at = jnp.asarray([0.3, 0.8, 0.4])
    measured = central_difference(value, at, 1e-4)
    for gradient in (jax.jit(jax.grad(value))(at), jax.jit(jax.jacfwd(value))(at)):
        np.testing.assert_allclose(gradient, measured, rtol=1e-6)


def test_several_sources_at_once(small):
    _, _, problem, method = small
    factor = jnp.asarray([1.0, -2.0, 0.5])
    run = lambda f: (
        solve_darcy(
            DarcyProblem(problem.operator, f * problem.source), method, throw=False
        ).pressure
    )
    together = jax.vmap(run)(factor)
    alone = solve_darcy(problem, method).pressure
    expected = factor[:, None] * alone[None]
    np.testing.assert_allclose(together, expected, rtol=1e-9, atol=1e-12 * float(alone.max()))


def test_single_precision_and_lowering(small):
    _, _, problem, method = small
    narrow = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
    single = jax.tree.map(narrow, problem)
    found, exact = solve_darcy(single, method), solve_darcy(problem, method)
    assert found.pressure.dtype == jnp.float32
    error = jnp.abs(found.pressure.astype(jnp.float64) - exact.pressure).max()
    assert error <= 1e-4 * jnp.abs(exact.pressure).max()
    arrays, rest = eqx.partition((problem, method), eqx.is_array)
    run = lambda arrays: solve_darcy(*eqx.combine(arrays, rest), throw=False).pressure
    lowered = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(arrays)
    assert set(lowered.platforms) == {"cpu", "cuda", "tpu"}


def test_the_coupled_solve_takes_it():
    problem, _ = small_problem(spacing_mm=5.0, scale=0.7)
    method = multigrid(problem.tissue.mesh)
    found, exact = solve_perfusion(problem, method), solve_perfusion(problem)
    size = np.abs(np.asarray(exact.mbf)).max()
    assert np.abs(np.asarray(found.mbf - exact.mbf)).max() <= 1e-9 * size
    assert float(found.mass_balance_relative_error) <= 1e-9
    assert int(found.linear_iterations) < int(exact.linear_iterations)
