"""Multigrid for Darcy's equation: the map it is, its iterations, refits, gradients, coupling."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
from coupled_cases import small_problem
from helpers import central_difference

from jaxperf import InputError, RESULTS, SolveError
from jaxperf.coupling import solve_perfusion
from jaxperf.darcy import (
    build_darcy_graph,
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    Multigrid,
    multigrid,
    solve_darcy,
    transversely_isotropic,
    VoxelDarcyMesh,
)
from jaxperf.darcy._hierarchy import build_hierarchy
from jaxperf.darcy._rows import build_pattern
from jaxperf.geometry import (
    build_voxel_mesh,
    ellipsoid_ventricle,
    kuhn_tetrahedra,
    tetrahedra_from_voxels,
)

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


def _small(kind):
    mesh, prepared, sink, source = _wall(4.0, kind)
    return mesh, prepared, _problem(prepared, jnp.asarray(1.0), sink, source), multigrid(prepared)


@pytest.fixture(scope="module")
def voxels():
    return _small("voxels")


@pytest.fixture(scope="module", params=["voxels", "tetrahedra"])
def small(request, voxels):
    return voxels if request.param == "voxels" else _small("tetrahedra")


def test_the_solution_is_that_of_the_dense_matrix(small):
    _, _, problem, method = small
    dense = jax.vmap(problem.operator, out_axes=1)(jnp.eye(problem.source.shape[0]))
    exact = np.linalg.solve(np.asarray(dense), np.asarray(problem.source))
    found = solve_darcy(problem, method)
    assert np.abs(np.asarray(found.pressure_tissue) - exact).max() <= 1e-10 * np.abs(exact).max()
    assert float(found.residual) <= 1e-11


def test_the_cycle_is_one_symmetric_positive_map(voxels):
    _, prepared, problem, _ = voxels
    method = multigrid(prepared, dtype=jnp.float64)
    state = method.init(problem.operator)
    x, y = jnp.asarray(np.random.default_rng(0).standard_normal((2, problem.source.shape[0])))
    apply = eqx.filter_jit(lambda method, state, r: method.precondition(state, r))
    one, other, both = (apply(method, state, r) for r in (x, y, 2.0 * x - 3.0 * y))
    size = jnp.linalg.norm(one) * jnp.linalg.norm(y)
    assert abs(jnp.vdot(one, y) - jnp.vdot(x, other)) <= 1e-12 * size
    assert jnp.linalg.norm(both - (2.0 * one - 3.0 * other)) <= 1e-12 * jnp.linalg.norm(both)
    assert jnp.vdot(x, one) > 0


def test_the_cycle_is_definite_where_permeability_jumps():
    # Prolongations of a uniform K, coarse matrices of one that jumps by 1e4 from voxel to voxel.
    mesh, prepared, sink, source = _wall(3.5)
    k = jnp.asarray(1e4 ** np.random.default_rng(1).uniform(-0.5, 0.5, mesh.n_cells))
    problem, method = _problem(prepared, k, sink, source), multigrid(prepared, dtype=jnp.float64)
    eigenvalue = np.linalg.eigvalsh(_cycle_matrix(method, problem.operator))
    assert eigenvalue[0] > 0


@eqx.filter_jit
def _cycle_columns(method, operator):
    state = method.init(operator)
    apply = lambda r: method.precondition(state, r)
    return jax.lax.map(apply, jnp.eye(operator.graph.n_cells), batch_size=64)


def _cycle_matrix(method, operator):
    return np.asarray(_cycle_columns(method, operator))


def test_the_cycle_converges_where_one_place_differs():
    """One place with many negative couplings: its eigenvalue of diag(A)⁻¹A, 2.2, lies far above
    all others (1.9), where no power method of few steps finds it."""
    mesh = kuhn_tetrahedra(10)
    prepared = darcy_mesh(mesh)
    centre = mesh.point[mesh.tet].mean(axis=1)
    across = np.array([1.0, -1.0, 0.0]) / np.sqrt(2.0)
    k = np.broadcast_to(np.eye(3), (len(centre), 3, 3)).copy()
    k[np.linalg.norm(centre - 0.5, axis=1) < 0.11] += 9.0 * np.outer(across, across)
    sink = jnp.asarray(100.0 * mesh.volume)
    problem = _problem(prepared, jnp.asarray(k), sink, sink)
    method = multigrid(prepared, jnp.asarray(k), dtype=jnp.float64)
    matrix = np.asarray(jax.vmap(problem.operator)(jnp.eye(mesh.n_cells)))
    diagonal = np.diag(matrix)
    scaled = np.linalg.eigvalsh(matrix / np.sqrt(np.outer(diagonal, diagonal)))
    assert scaled[-1] > 1.15 * np.quantile(scaled, 0.99)
    factor = np.linalg.cholesky(matrix)
    left = 1.0 - np.linalg.eigvalsh(factor.T @ _cycle_matrix(method, problem.operator) @ factor)
    assert left.min() >= -1e-9
    assert left.max() < 0.7


def _in_single(tree):
    narrow = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
    return jax.tree.map(narrow, tree)


def test_the_cycle_in_single_precision_is_symmetric_to_its_rounding(small):
    _, _, problem, method = small
    state = method.init(problem.operator)
    x, y = jnp.asarray(np.random.default_rng(3).standard_normal((2, problem.source.shape[0])))
    one, other = (eqx.filter_jit(method.precondition)(state, r) for r in (x, y))
    size = jnp.linalg.norm(one) * jnp.linalg.norm(y)
    assert abs(jnp.vdot(one, y) - jnp.vdot(x, other)) <= 1e-5 * size


@pytest.mark.parametrize("rtol", [1e-3, 1e-8])
def test_the_estimate_of_the_error_is_right_within_a_factor_of_three(small, rtol):
    # A wide and a narrow reach of the sink, against a solve to the last digit.
    _, prepared, problem, method = small
    for factor in (1.0, 1e-3):
        at = _problem(prepared, jnp.asarray(1.0), factor * problem.operator.sink, problem.source)
        exact = solve_darcy(at, method).pressure_tissue
        size = lambda p, at=at: float(jnp.sqrt(jnp.vdot(p, at.operator(p))))
        for solver in (Multigrid(method.hierarchy, rtol), ConjugateGradient(rtol)):
            found = solve_darcy(at, solver)
            error = size(found.pressure_tissue - exact) / size(exact)
            assert error / 3 <= float(found.error_estimate) <= 3 * error
            assert float(found.residual) <= 1.01 * rtol


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["voxels", "tetrahedra"])
def test_iterations_hardly_grow_with_the_number_of_control_volumes(kind):
    counts = {}
    for spacing in (4.0, 1.4):
        mesh, prepared, sink, source = _wall(spacing, kind)
        problem = _problem(prepared, jnp.asarray(1.0), sink, source)
        found = solve_darcy(problem, multigrid(prepared, rtol=1e-8))
        counts[mesh.n_cells] = int(found.iterations)
    few, many = counts.values()
    assert max(few, many) <= 15 and many <= 1.5 * few, counts


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
    apart = np.abs(np.asarray(refitted.pressure_tissue - plain.pressure_tissue)).max()
    assert apart <= 1e-6 * float(jnp.abs(plain.pressure_tissue).max())
    assert int(refitted.iterations) < int(plain.iterations) / 4


@pytest.mark.parametrize("what", ["anisotropy", "contrast"])
def test_weak_couplings_are_not_aggregated_across(what):
    mesh, prepared, sink, source = _wall(3.0)
    if what == "anisotropy":
        k = jnp.asarray(np.broadcast_to(np.diag([100.0, 1.0, 1.0]), (mesh.n_cells, 3, 3)))
    else:
        k = jnp.asarray(1e6 ** np.random.default_rng(0).uniform(-0.5, 0.5, mesh.n_cells))
    problem = _problem(prepared, k, sink, source)
    found = solve_darcy(problem, multigrid(prepared, k, rtol=1e-8))
    assert int(found.iterations) <= 25
    assert float(found.residual) <= 1.01e-8


@pytest.mark.slow
def test_fibres_on_tetrahedra():
    mesh = kuhn_tetrahedra(16)
    prepared = darcy_mesh(mesh)
    turn = 2.0 * mesh.point[mesh.tet].mean(axis=1)[:, 2]
    fibre = jnp.asarray(np.stack([np.cos(turn), np.sin(turn), 0 * turn], axis=1))
    tensor = transversely_isotropic(jnp.asarray(10.0), jnp.asarray(1.0), fibre)
    problem = _problem(prepared, tensor, jnp.asarray(mesh.volume), jnp.asarray(mesh.volume**2))
    method, plain = multigrid(prepared, tensor, rtol=1e-10), ConjugateGradient(rtol=1e-12)
    found, exact = solve_darcy(problem, method), solve_darcy(problem, plain)
    np.testing.assert_allclose(found.pressure_tissue, exact.pressure_tissue, rtol=1e-8)
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
    np.testing.assert_allclose(found.pressure_tissue, x, atol=1e-10)


@pytest.mark.parametrize("kind", ["voxels", pytest.param("tetrahedra", marks=pytest.mark.slow)])
def test_derivatives_agree_with_differences(kind):
    mesh, prepared, problem, method = _small(kind)
    weight = jnp.asarray(np.random.default_rng(2).standard_normal(mesh.n_cells))
    wave = jnp.asarray(np.sin(100.0 * mesh.centre[:, 2]))

    def value(theta):
        permeability = jnp.broadcast_to(jnp.exp(theta[0]), (prepared.n_elements,))
        sink = problem.operator.sink * (1.0 + 0.3 * theta[1] * wave)
        changed = _problem(prepared, permeability, sink, problem.source * (1.0 + theta[2] * wave))
        return jnp.vdot(weight, solve_darcy(changed, method).pressure_tissue) * 1e6

    at = jnp.asarray([0.3, 0.8, 0.4])
    measured = central_difference(value, at, 1e-4)
    for gradient in (jax.jit(jax.grad(value))(at), jax.jit(jax.jacfwd(value))(at)):
        np.testing.assert_allclose(gradient, measured, rtol=1e-6)


def test_several_sources_at_once(voxels):
    _, _, problem, method = voxels
    factor = jnp.asarray([1.0, -2.0, 0.5])
    run = lambda f: (
        solve_darcy(
            DarcyProblem(problem.operator, f * problem.source), method, throw=False
        ).pressure_tissue
    )
    together = jax.vmap(run)(factor)
    alone = solve_darcy(problem, method).pressure_tissue
    expected = factor[:, None] * alone[None]
    np.testing.assert_allclose(together, expected, rtol=1e-9, atol=1e-12 * float(alone.max()))


def test_single_precision_and_lowering(voxels):
    _, _, problem, method = voxels
    found, exact = solve_darcy(_in_single(problem), method), solve_darcy(problem, method)
    assert found.pressure_tissue.dtype == jnp.float32
    error = jnp.abs(found.pressure_tissue.astype(jnp.float64) - exact.pressure_tissue).max()
    assert error <= 1e-4 * jnp.abs(exact.pressure_tissue).max()
    arrays, rest = eqx.partition((problem, method), eqx.is_array)
    run = lambda arrays: solve_darcy(*eqx.combine(arrays, rest), throw=False).pressure_tissue
    lowered = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(arrays)
    assert set(lowered.platforms) == {"cpu", "cuda", "tpu"}


def test_the_coupled_solve_takes_it():
    problem, _ = small_problem(spacing_mm=5.0, scale=0.7)
    method = multigrid(problem.tissue.mesh)
    found, exact = solve_perfusion(problem, method), solve_perfusion(problem)
    size = np.abs(np.asarray(exact.mbf)).max()
    assert np.abs(np.asarray(found.mbf - exact.mbf)).max() <= 1e-10 * size
    assert float(found.mass_balance_relative_error) <= 1e-10
    assert int(found.linear_iterations) < int(exact.linear_iterations)


def _two_pieces():
    """A block of voxels cut in two between its layers: a mesh of the wall is one piece."""
    mesh = build_voxel_mesh(
        np.ones((16, 8, 8), np.int64), np.diag([1e-3, 1e-3, 1e-3, 1.0]), frame="model"
    )
    whole = darcy_mesh(mesh)
    assert isinstance(whole, VoxelDarcyMesh)
    edge = np.asarray(whole.graph.edge)
    kept = (mesh.cell_ijk[edge, 0] < 8).sum(axis=1) != 1
    cut = (
        build_darcy_graph(edge[kept], mesh.volume),
        whole.normal[kept],
        whole.area_over_distance[kept],
    )
    where = lambda m: (m.graph, m.normal, m.area_over_distance)
    return mesh, eqx.tree_at(where, whole, cut)


@pytest.mark.parametrize("setup", [lambda mesh: ConjugateGradient(), multigrid])
def test_a_piece_without_any_level_of_pressure_is_refused(setup):
    mesh, prepared = _two_pieces()
    assert prepared.graph.n_pieces == 2
    left = jnp.asarray(mesh.cell_ijk[:, 0] < 8)
    one = jnp.asarray(1.0)
    problem = _problem(prepared, one, jnp.where(left, 1e-6, 0.0), jnp.full(mesh.n_cells, 1e-9))
    method = setup(prepared)
    found = solve_darcy(problem, method, throw=False)
    assert "neither a sink nor a prescribed pressure" in RESULTS[found.result]
    assert bool(jnp.isnan(found.pressure_tissue).all()) and int(found.iterations) == 0
    assert bool(jnp.isnan(found.error_estimate))
    with pytest.raises(SolveError, match="connected piece"):
        solve_darcy(problem, method)
    # One prescribed pressure in the other piece is enough.
    fixed = jnp.arange(mesh.n_cells) == int(np.flatnonzero(~np.asarray(left))[0])
    mended = DarcyProblem(problem.operator, problem.source, fixed, jnp.zeros(mesh.n_cells))
    assert bool(jnp.isfinite(solve_darcy(mended, method).pressure_tissue).all())


@pytest.mark.parametrize("kind", ["voxels", "tetrahedra"])
def test_a_piece_that_hangs_on_nothing_is_solved_by_its_own_sink(voxels, kind):
    mesh, whole = voxels[0], voxels[1]
    if kind == "tetrahedra":
        # The same graph without its grid: aggregates are then those of strong neighbours.
        whole = eqx.tree_at(lambda m: m.graph, darcy_mesh(mesh), whole.graph)
    edge = np.asarray(whole.graph.edge)
    kept = (edge != 7).all(axis=1)
    graph = build_darcy_graph(edge[kept], mesh.volume)
    one = jnp.ones(int(kept.sum()))
    hierarchy = build_hierarchy(
        graph, np.asarray(one, float), mesh.cell_ijk if kind == "voxels" else None
    )
    assert len(hierarchy.levels) > 0
    sink = jnp.full(mesh.n_cells, 1e-3)
    problem = DarcyProblem(darcy_operator(graph, one, sink), sink)
    found = solve_darcy(problem, Multigrid(hierarchy))
    np.testing.assert_allclose(found.pressure_tissue, 1.0, rtol=1e-9)
    assert graph.n_pieces == 2 and int(found.iterations) <= 30


@pytest.mark.parametrize("setup", [lambda mesh: ConjugateGradient(), multigrid])
def test_one_voxel(setup):
    mesh = build_voxel_mesh(
        np.ones((1, 1, 1), np.int64), np.diag([1e-3, 1e-3, 1e-3, 1.0]), frame="model"
    )
    prepared = darcy_mesh(mesh)
    problem = _problem(prepared, jnp.asarray(1.0), jnp.full(1, 2.0), jnp.full(1, 6.0))
    np.testing.assert_allclose(
        solve_darcy(problem, setup(prepared)).pressure_tissue, 3.0, rtol=1e-12
    )


def test_a_prescribed_pressure_that_hangs_on_nothing():
    graph = build_darcy_graph(np.array([[0, 1]]), np.ones(3))
    operator = darcy_operator(graph, jnp.full(1, 1e-12), jnp.array([1e-12, 0.0, 0.0]))
    fixed = jnp.array([False, False, True])
    problem = DarcyProblem(operator, jnp.array([2e-12, 0.0, 0.0]), fixed, jnp.full(3, 5.0))
    np.testing.assert_allclose(solve_darcy(problem).pressure_tissue, [2.0, 2.0, 5.0], rtol=1e-12)


def test_tensor_voxels_take_blocks_too():
    mesh, _, _ = ellipsoid_ventricle(spacing_mm=3.5)
    sizes = [
        multigrid(darcy_mesh(mesh, full_tensor=full)).hierarchy.levels[0].n_coarse
        for full in (False, True)
    ]
    assert sizes[0] == sizes[1]


def test_rows_are_those_of_the_sparse_matrix():
    # Narrow, wide and empty rows.
    rng = np.random.default_rng(0)
    width = np.concatenate([np.full(900, 3), np.full(30, 70), [0, 1]])
    row = np.repeat(np.arange(len(width)), width)
    column = np.concatenate([rng.choice(800, w, replace=False) for w in width])
    matrix = sp.csr_array((rng.standard_normal(len(row)), (row, column)), shape=(len(width), 800))
    pattern = build_pattern(row, column, np.arange(len(row)), len(width))
    assert pattern.rows.n_narrow == 1 and len(pattern.rows.column) == 2
    value, x = jnp.asarray(matrix[row, column]), jnp.asarray(rng.standard_normal(800))
    product = lambda value, x: pattern.rows.product(pattern.weights(value), x)
    np.testing.assert_allclose(product(value, x), matrix @ x, atol=1e-12)
    sums = pattern.rows.sums(pattern.weights(value))
    np.testing.assert_allclose(sums, matrix.sum(axis=1), atol=1e-12)
    y = rng.standard_normal(len(width))
    of_value, of_x = jax.vjp(product, value, x)[1](jnp.asarray(y))
    np.testing.assert_allclose(of_value, y[row] * np.asarray(x)[column], atol=1e-12)
    np.testing.assert_allclose(of_x, matrix.T @ y, atol=1e-12)


def test_a_dust_of_voxels_has_no_coarse_level():
    n = 4000
    graph = build_darcy_graph(np.array([[0, 1]]), np.ones(n))
    with pytest.raises(InputError, match="pieces: 3999"):
        build_hierarchy(graph, np.ones(1))


@pytest.mark.parametrize("sink", [1e-4, 1e-8, 1e-10])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_weak_sinks_leave_the_cycle_definite(voxels, sink, dtype):
    _, prepared, _, method = voxels
    graph = prepared.graph
    conduction = prepared.transmissibility(jnp.asarray(1.0))
    s = jnp.zeros(graph.n_cells).at[3].set(sink * jnp.max(conduction))
    source = s * 5.0
    found = solve_darcy(
        DarcyProblem(darcy_operator(graph, conduction, s), source),
        Multigrid(method.hierarchy, 1e-10, dtype=dtype),
    )
    # The condition number times the rounding of float64.
    np.testing.assert_allclose(found.pressure_tissue, 5.0, rtol=1e-7 + 1e-13 / sink)
    # Below that the pressure is mended until its error is what was asked for.
    assert int(found.iterations) <= (60 if sink > 1e-10 else 120)


def test_a_permeability_that_is_not_positive_is_refused(voxels):
    with pytest.raises(InputError, match="permeability of element 2"):
        multigrid(voxels[1], jnp.ones(voxels[1].n_elements).at[2].set(-1.0))


@pytest.mark.parametrize("bad", [-0.9, np.nan])
def test_a_matrix_that_is_not_positive_definite_is_refused(voxels, bad):
    _, prepared, problem, method = voxels
    permeability = jnp.ones(prepared.n_elements).at[: prepared.n_elements // 4].set(bad)
    wrong = _problem(prepared, permeability, problem.operator.sink, problem.source)
    for solver in (method, ConjugateGradient()):
        found = solve_darcy(wrong, solver, throw=False)
        assert "not positive definite" in RESULTS[found.result]
        assert bool(jnp.isnan(found.pressure_tissue).all()) and bool(
            jnp.isnan(found.error_estimate)
        )
        with pytest.raises(SolveError, match="permeability"):
            solve_darcy(wrong, solver)


def test_an_operator_of_another_mesh_is_refused(voxels):
    _, _, problem, _ = voxels
    other = multigrid(_two_pieces()[1])
    with pytest.raises(ValueError, match="expected 1024 and 2688"):
        solve_darcy(problem, other)
