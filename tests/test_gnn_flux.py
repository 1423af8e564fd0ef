"""The flux multigrid network: what holds whatever its weights, and what it solves."""

import dataclasses
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
import scipy.sparse as sp

pytest.importorskip("jraph", reason="the extra `gnn` is not installed")

from gnn_darcy import build_network, flux_multigrid
from gnn_darcy._cycle import _BETA, cycle
from gnn_darcy._shapes import sample_shape, shape_tetrahedra
from jaxperf import InputError, RESULTS
from jaxperf.darcy import (
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    solve_darcy,
    transversely_isotropic,
)
from jaxperf.geometry import build_tet_mesh, ellipsoid_ventricle

BETA = 2e-5  # 1/(Pa s), a screening length of 1 cm
EXACT = 1e-12


def _random_weights(network, seed=3, size=0.3):
    """Weights that no training made: every output differs from the untrained network's."""
    leaves, structure = jax.tree.flatten(eqx.filter(network, eqx.is_inexact_array))
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    moved = [
        x + size * jax.random.normal(k, x.shape, x.dtype) for x, k in zip(leaves, keys, strict=True)
    ]
    return eqx.combine(jax.tree.unflatten(structure, moved), network)


NETWORK = _random_weights(build_network("flux_multigrid", 8, 2))


def _tensors(centroid):
    """Ten times as permeable along one direction, which turns from place to place; log K varies."""
    wave = 120.0 * centroid[:, 0] + 90.0 * centroid[:, 2]
    along = np.stack([np.cos(wave), np.sin(wave), 0.3 * np.ones(len(wave))], axis=1)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    tensor = transversely_isotropic(jnp.asarray(2e-9), jnp.asarray(2e-10), jnp.asarray(along))
    return np.asarray(tensor) * np.exp(0.6 * np.sin(wave))[:, None, None]


def _problem(mesh, permeability, beta=BETA):
    prepared = darcy_mesh(mesh)
    volume = jnp.asarray(mesh.volume)
    transmissibility = prepared.transmissibility(jnp.asarray(permeability))
    operator = darcy_operator(prepared.graph, transmissibility, beta * volume)
    place = jnp.asarray(np.arange(mesh.n_cells) % 7 < 3, float)
    return prepared, DarcyProblem(operator, beta * volume * 1e4 * (0.5 + place))


@pytest.fixture(scope="module")
def wall():
    rng = np.random.default_rng(11)
    shape = sample_shape(
        rng,
        cavity_short_mm=(20.0, 20.0),
        cavity_long_mm=(55.0, 55.0),
        wall_mm=(10.0, 10.0),
        wobble_mm=(1.0, 1.0),
    )
    mesh, _ = shape_tetrahedra(shape, 3000, rng)
    permeability = _tensors(mesh.point[mesh.tet].mean(axis=1))
    prepared, problem = _problem(mesh, permeability)
    return SimpleNamespace(mesh=mesh, k=permeability, prepared=prepared, problem=problem)


def _solver(wall, **options):
    """With random weights, in double precision; a plan is made once for a mesh."""
    if not hasattr(wall, "made"):
        k = jnp.asarray(wall.k)
        wall.made = flux_multigrid(wall.prepared, k, network=NETWORK, dtype=jnp.float64)
    return dataclasses.replace(wall.made, **options)


def _init(solver, operator):
    """What is prepared for an operator, by one program whatever the mode."""
    return _prepared(dataclasses.replace(solver, mode="exact", cycles=4, rtol=None), operator)


@eqx.filter_jit
def _prepared(solver, operator):
    return solver.init(operator)


@eqx.filter_jit
def _solve(solver, state, source):
    return solver.solve(state, source)


@eqx.filter_jit
def _precondition(solver, state, source):
    return solver.precondition(state, source)


def _dense(operator):
    edge, t = np.asarray(operator.graph.edge), np.asarray(operator.transmissibility)
    n = operator.graph.n_cells
    off = sp.coo_array((-t, (edge[:, 0], edge[:, 1])), shape=(n, n)).toarray()
    off = off + off.T
    return off + np.diag(np.asarray(operator.sink) - off.sum(axis=1))


def _relative(found, expected):
    return float(jnp.linalg.norm(found - expected) / jnp.linalg.norm(expected))


@pytest.fixture(scope="module")
def cycle_matrix(wall):
    """B, column by column."""
    solver = _solver(wall)
    state = _init(solver, wall.problem.operator)
    n = wall.mesh.n_cells
    one = lambda e: solver.precondition(state, e)
    return np.asarray(jax.jit(lambda eye: jax.lax.map(one, eye, batch_size=64))(jnp.eye(n))).T


# ---------------------------------------------------------------- the cycle


def test_the_polynomial_stays_below_one():
    """|q| < 1 on (0, 1], so that smoothing reduces every error."""

    def left(eigenvalue):
        x, residual = 0.0, 1.0
        move = 4.0 / 3.0 * residual
        for k, beta in enumerate(_BETA, start=1):
            x, residual = x + beta * move, residual - eigenvalue * move
            move = (2 * k - 1) / (2 * k + 3) * move + (8 * k + 4) / (2 * k + 3) * residual
        return 1.0 - eigenvalue * x

    found = np.abs([left(e) for e in np.linspace(1e-4, 1.0, 5000)])
    assert found.max() < 1.0
    assert found[2500:].max() < 0.25


def test_the_cycle_is_symmetric_and_positive_definite(cycle_matrix):
    size = np.abs(cycle_matrix).max()
    assert np.abs(cycle_matrix - cycle_matrix.T).max() <= EXACT * size
    assert np.linalg.eigvalsh(cycle_matrix).min() > 0


def test_the_cycle_contracts_in_the_energy_norm(wall, cycle_matrix):
    """0 ≤ I − B A < 1, so that the cycle may precondition; ρ is what `init` finds."""
    matrix = _dense(wall.problem.operator)
    factor = np.linalg.cholesky(matrix)
    eigenvalue = 1.0 - np.linalg.eigvalsh(factor.T @ cycle_matrix @ factor)
    assert eigenvalue.min() >= -1e-10
    assert eigenvalue.max() < 1.0
    rho = float(_init(_solver(wall), wall.problem.operator).rho)
    assert rho <= eigenvalue.max() + 1e-9
    assert 1.0 - rho <= 2.0 * (1.0 - eigenvalue.max())


def test_linear_in_the_source(wall):
    operator, source = wall.problem.operator, wall.problem.source
    other = jnp.asarray(np.random.default_rng(0).standard_normal(len(source))) * source
    surrogate = _solver(wall, mode="surrogate", cycles=6)
    state = _init(surrogate, operator)
    for run in (
        lambda f: _precondition(surrogate, state, f),
        lambda f: _solve(surrogate, state, f).pressure_tissue,
    ):
        together, apart = run(2.0 * source - 3.0 * other), 2.0 * run(source) - 3.0 * run(other)
        assert _relative(together, apart) <= EXACT


def test_the_surrogate_is_symmetric(wall):
    rng = np.random.default_rng(1)
    a, b = (jnp.asarray(rng.standard_normal(wall.mesh.n_cells)) for _ in range(2))
    surrogate = _solver(wall, mode="surrogate", cycles=5)
    state = _init(surrogate, wall.problem.operator)
    run = lambda f: _solve(surrogate, state, f).pressure_tissue
    left, right = jnp.vdot(a, run(b)), jnp.vdot(b, run(a))
    assert abs(left - right) <= EXACT * float(jnp.linalg.norm(a) * jnp.linalg.norm(run(b)))


def test_restriction_keeps_the_source(wall):
    """Rows of P sum to one and are positive: what flows into coarse control volumes is no other."""
    solver = _solver(wall)
    state = _init(solver, wall.problem.operator).cycle
    source = wall.problem.source
    for level in state.levels:
        ones = jnp.ones(level.restrict.product(level.restrict_weight, source).shape[0])
        np.testing.assert_allclose(
            level.prolong.product(level.prolong_weight, ones), 1.0, rtol=EXACT
        )
        coarse = level.restrict.product(level.restrict_weight, source)
        assert abs(float(coarse.sum() / source.sum()) - 1.0) <= EXACT
        assert all(float(w.min()) >= 0 for w in level.prolong_weight)
        source = coarse


# ---------------------------------------------------------------- invariance


@pytest.mark.parametrize("mode", ["surrogate", "few"])
def test_units_play_no_part(wall, mode):
    """(K, β) → c (K, β) divides the pressure by c."""
    operator, source = wall.problem.operator, wall.problem.source
    solver = _solver(wall, mode=mode)
    c = 3.7e4
    scaled = darcy_operator(operator.graph, c * operator.transmissibility, c * operator.sink)
    run = lambda operator: _solve(solver, _init(solver, operator), source).pressure_tissue
    assert _relative(c * run(scaled), run(operator)) <= EXACT


@pytest.mark.parametrize("mode", ["surrogate", "few"])
def test_rotation_plays_no_part(wall, mode):
    turned, _ = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))
    turned *= np.sign(np.linalg.det(turned))
    mesh = build_tet_mesh(wall.mesh.point @ turned.T, wall.mesh.tet, frame="model", where="test")
    k = turned @ wall.k @ turned.T
    prepared, problem = _problem(mesh, k)
    other = SimpleNamespace(prepared=prepared, k=k)
    found = _surrogate(other, problem, mode)
    assert _relative(found, _surrogate(wall, wall.problem, mode)) <= 10 * EXACT


@pytest.mark.parametrize("mode", ["surrogate", "few"])
def test_numbering_plays_no_part(wall, mode):
    rng = np.random.default_rng(4)
    order = rng.permutation(wall.mesh.n_cells)  # new number k was order[k]
    number = np.argsort(order)
    tets = rng.permutation(len(wall.mesh.tet))
    mesh = build_tet_mesh(
        wall.mesh.point[order], number[wall.mesh.tet[tets]], frame="model", where="test"
    )
    prepared, problem = _problem(mesh, wall.k[tets])
    problem = eqx.tree_at(lambda p: p.source, problem, wall.problem.source[order])
    found = _surrogate(SimpleNamespace(prepared=prepared, k=wall.k[tets]), problem, mode)
    assert _relative(found, _surrogate(wall, wall.problem, mode)[order]) <= EXACT


def _surrogate(wall, problem, mode):
    solver = _solver(wall, mode=mode)
    return _solve(solver, _init(solver, problem.operator), problem.source).pressure_tissue


# ---------------------------------------------------------------- solving


def test_exact_mode_solves(wall):
    solver = _solver(wall)
    solution = _solve(solver, _init(solver, wall.problem.operator), wall.problem.source)
    expected = np.linalg.solve(_dense(wall.problem.operator), np.asarray(wall.problem.source))
    assert _relative(solution.pressure_tissue, expected) <= 1e-10
    assert int(solution.iterations) < 60


def test_other_coefficients_on_the_same_plan(wall):
    """A plan belongs to a mesh; the network sees the operator at hand."""
    operator = wall.problem.operator
    k = wall.k + 3.0 * wall.k[::-1]
    transmissibility = wall.prepared.transmissibility(jnp.asarray(k))
    other = darcy_operator(operator.graph, transmissibility, 0.1 * operator.sink)
    solver = _solver(wall)
    solution = _solve(solver, _init(solver, other), wall.problem.source)
    expected = np.linalg.solve(_dense(other), np.asarray(wall.problem.source))
    assert _relative(solution.pressure_tissue, expected) <= 1e-9


@pytest.mark.parametrize("tensor", [False, True])
def test_voxels(tensor):
    mesh = ellipsoid_ventricle(spacing_mm=4.0)[0]
    k = np.full(mesh.n_cells, 2e-9)
    prepared = darcy_mesh(mesh, full_tensor=tensor)
    volume = jnp.asarray(mesh.volume)
    operator = darcy_operator(
        prepared.graph, prepared.transmissibility(jnp.asarray(k)), BETA * volume
    )
    problem = DarcyProblem(operator, volume * jnp.asarray(1.0 + np.sin(99.0 * mesh.centre[:, 0])))
    solution = solve_darcy(problem, flux_multigrid(prepared, jnp.asarray(k), network=NETWORK))
    expected = np.linalg.solve(_dense(operator), np.asarray(problem.source))
    assert _relative(solution.pressure_tissue, expected) <= 1e-10


@pytest.mark.parametrize("mode", ["exact", "few", "surrogate"])
@pytest.mark.parametrize("share", [1.0, 1e-3])
def test_the_bound_holds(wall, mode, share):
    """At the sink of the case, and at one that is a thousand times weaker."""
    operator = wall.problem.operator
    weak = darcy_operator(operator.graph, operator.transmissibility, share * operator.sink)
    source = wall.problem.source
    solver = _solver(wall, mode=mode, cycles=3, rtol=1e-6)
    solution = _solve(solver, _init(solver, weak), source)
    matrix = _dense(weak)
    exact = np.linalg.solve(matrix, np.asarray(source))
    error = np.asarray(solution.pressure_tissue) - exact
    true = np.sqrt(error @ matrix @ error / (exact @ matrix @ exact))
    bound = float(solution.error_estimate)
    assert true <= bound
    assert bound <= 10.0 * true or (bound == np.inf and true > 0.1)


@pytest.mark.parametrize("mode", ["exact", "few", "surrogate"])
def test_the_bound_holds_behind_a_thin_wall_of_low_permeability(mode):
    """Ten steps of Lanczos's method see nothing of the slow modes behind it."""
    mesh = ellipsoid_ventricle(spacing_mm=5.0)[0]
    depth = np.linalg.norm(mesh.centre - mesh.centre[len(mesh.centre) // 2], axis=1)
    k = np.where(np.abs(depth - 1e-2) < 3e-3, 2e-14, 2e-9)
    prepared = darcy_mesh(mesh)
    volume = jnp.asarray(mesh.volume)
    sink = jnp.where(jnp.asarray(depth) < 8e-3, 0.0, BETA * volume)
    operator = darcy_operator(prepared.graph, prepared.transmissibility(jnp.asarray(k)), sink)
    source = BETA * volume * jnp.asarray(1.0 + np.sin(99.0 * mesh.centre[:, 0]))
    solver = flux_multigrid(
        prepared, jnp.asarray(k), network=NETWORK, mode=mode, cycles=8, rtol=1e-6
    )
    solution = _solve(solver, _init(solver, operator), source)
    matrix = _dense(operator)
    exact = np.linalg.solve(matrix, np.asarray(source))
    error = np.asarray(solution.pressure_tissue) - exact
    true = np.sqrt(error @ matrix @ error / (exact @ matrix @ exact))
    bound = float(solution.error_estimate)
    assert bool(solution.is_bound) and true <= bound
    assert bound <= 20.0 * true or (bound == np.inf and true > 0.1)


def _functional(h, solver, operator, source, direction):
    """Mean square pressure at coefficients moved along directions."""
    t, s, f = (
        x + a * d
        for x, a, d in zip(
            (operator.transmissibility, operator.sink, source), h, direction, strict=True
        )
    )
    state = solver.init(darcy_operator(operator.graph, t, s))
    return jnp.sum(operator.graph.volume * solver.solve(state, f).pressure_tissue ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["exact", "few", "surrogate"])
def test_gradients(wall, mode):
    """In K, β and the source, reverse and forward, against differences."""
    network = _random_weights(build_network("flux_multigrid", 4, 1))
    solver = _solver(wall, mode=mode, cycles=3, network=network)
    operator, source = wall.problem.operator, wall.problem.source
    rng = np.random.default_rng(5)
    direction = tuple(
        jnp.asarray(rng.uniform(-1.0, 1.0, x.shape)) * x
        for x in (operator.transmissibility, operator.sink, source)
    )
    rest = (solver, operator, source, direction)
    compiled = eqx.filter_jit(_functional)
    value = lambda h: float(compiled(h, *rest))
    at, along, h = jnp.zeros(3), jnp.asarray([1.0, -2.0, 0.5]), 1e-4
    reverse = eqx.filter_jit(lambda h, *r: jax.grad(_functional)(h, *r))(at, *rest)
    tangent = lambda d, *r: jax.jvp(lambda h: _functional(h, *r), (at,), (d,))[1]
    forward = eqx.filter_jit(tangent)(along, *rest)
    assert abs(float(forward / jnp.vdot(reverse, along)) - 1.0) <= 1e-9
    for k in range(3):
        e = jnp.zeros(3).at[k].set(h)
        odd = [value(m * e) - value(-m * e) for m in (1, 2, 3)]
        measured = (45 * odd[0] - 9 * odd[1] + odd[2]) / (60 * h)
        assert abs(float(reverse[k]) / measured - 1.0) <= 1e-6


def test_several_sources_at_once(wall):
    solver = _solver(wall, mode="few")
    state = _init(solver, wall.problem.operator)
    factor = jnp.asarray([1.0, -2.0])
    run = lambda f: _solve(solver, state, f * wall.problem.source).pressure_tissue
    np.testing.assert_allclose(jax.vmap(run)(factor), jnp.stack([run(f) for f in factor]), 1e-9)


def test_single_precision_and_lowering(wall):
    narrow = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
    problem = jax.tree.map(narrow, wall.problem)
    solver = _solver(wall, dtype=jnp.float32)
    found = solve_darcy(problem, solver).pressure_tissue
    assert found.dtype == jnp.float32
    exact = np.linalg.solve(_dense(wall.problem.operator), np.asarray(wall.problem.source))
    assert _relative(found.astype(jnp.float64), exact) <= 1e-4
    arrays, rest = eqx.partition((problem, _solver(wall, mode="few")), eqx.is_array)
    run = lambda arrays: solve_darcy(*eqx.combine(arrays, rest), throw=False).pressure_tissue
    lowered = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(arrays)
    assert set(lowered.platforms) == {"cpu", "cuda", "tpu"}


# ---------------------------------------------------------------- refusals


def test_an_operator_of_another_mesh_is_refused(wall):
    mesh = ellipsoid_ventricle(spacing_mm=5.0)[0]
    _, problem = _problem(mesh, 2e-9)
    with pytest.raises(ValueError, match="set one up for this mesh"):
        _init(_solver(wall), problem.operator)


def test_a_system_without_a_level_is_refused(wall):
    operator = wall.problem.operator
    floating = darcy_operator(operator.graph, operator.transmissibility, 0.0 * operator.sink)
    for mode in ("exact", "few"):
        solver = _solver(wall, mode=mode)
        solution = _solve(solver, _init(solver, floating), wall.problem.source)
        assert solution.result == RESULTS.no_pressure_level
        assert bool(jnp.isnan(solution.pressure_tissue).all())


def test_wrong_calls_are_refused(wall):
    with pytest.raises(InputError, match="permeability of element 0"):
        flux_multigrid(wall.prepared, jnp.asarray(-wall.k), network=NETWORK)
    state = _init(_solver(wall), wall.problem.operator)
    with pytest.raises(ValueError, match="no negative number of cycles"):
        _solver(wall, cycles=-1)
    with pytest.raises(jaxtyping.TypeCheckError):
        _solver(wall).precondition(state, wall.problem.source[:, None])
    assert cycle(state.cycle, jnp.ones((wall.mesh.n_cells, 2))).shape == (wall.mesh.n_cells, 2)
