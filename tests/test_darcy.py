"""Darcy on a graph: exact solutions, orders, conservation, gradients, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxperf import InputError, RESULTS, SolveError
from jaxperf.darcy import (
    build_darcy_graph,
    check_permeability,
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    solve_darcy,
    solve_krylov,
    transversely_isotropic,
)
from jaxperf.darcy._exact import MANUFACTURED, screened_shell, screened_slab
from jaxperf.geometry import build_voxel_mesh, kuhn_tetrahedra

# numerics of this scheme on n³ cubes of six Kuhn tetrahedra, relative L2 with dual volumes
TABLE = {
    "FVCA6 1": (1.054e-2, 2.627e-3, 6.56e-4),
    "FVCA6 2": (9.54e-2, 3.38e-2, 9.74e-3),
    "FVCA6 3": (5.30e-2, 1.295e-2, 3.22e-3),
    "fibre 10:1": (3.10e-2, 7.82e-3, 1.96e-3),
}


def _relative_l2(found, exact, volume):
    return float(np.sqrt(np.sum(volume * (found - exact) ** 2) / np.sum(volume * exact**2)))


@eqx.filter_jit
def _operator(prepared, permeability, sink):
    return darcy_operator(prepared.graph, prepared.transmissibility(permeability), sink)


def _manufactured_error(case, n):
    mesh = kuhn_tetrahedra(n)
    prepared = darcy_mesh(mesh)
    field = lambda function, place: jax.jit(jax.vmap(function))(jnp.asarray(place))
    exact = np.asarray(field(case.pressure, mesh.point))
    source = field(case.source, mesh.point)
    permeability = field(case.permeability, mesh.point[mesh.tet].mean(axis=1))
    operator = _operator(prepared, permeability, jnp.zeros(mesh.n_cells))
    on_boundary = ((mesh.point < 1e-12) | (mesh.point > 1 - 1e-12)).any(axis=1)
    problem = DarcyProblem(
        operator, source * mesh.volume, jnp.asarray(on_boundary), jnp.asarray(exact)
    )
    return _relative_l2(np.asarray(solve_darcy(problem).pressure_tissue), exact, mesh.volume)


@pytest.mark.parametrize("name", TABLE)
def test_manufactured_solutions_reproduce_the_table(name):
    for n, expected in zip((8, 16, 32), TABLE[name], strict=True):
        third_digit = 10 ** (np.floor(np.log10(expected)) - 2)
        assert abs(_manufactured_error(MANUFACTURED[name], n) - expected) <= third_digit


def test_linear_pressure_is_exact_on_jittered_tetrahedra():
    rng = np.random.default_rng(0)
    inner = lambda x: ((x > 1e-9) & (x < 1 - 1e-9)).all(axis=1)
    jitter = lambda x: x + 0.2 / 6 * rng.uniform(-1, 1, x.shape) * inner(x)[:, None]
    mesh = kuhn_tetrahedra(6, vertex_map=jitter)
    prepared = darcy_mesh(mesh)
    tensor = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.5]])
    operator = darcy_operator(
        prepared.graph,
        prepared.transmissibility(jnp.asarray(np.tile(tensor, (prepared.n_elements, 1, 1)))),
        jnp.zeros(mesh.n_cells),
    )
    exact = 3.0 + mesh.point @ np.array([1.0, -2.0, 0.5])
    edge = ~inner(mesh.point)
    problem = DarcyProblem(operator, jnp.zeros(mesh.n_cells), jnp.asarray(edge), jnp.asarray(exact))
    found = solve_darcy(problem, ConjugateGradient(rtol=1e-14)).pressure_tissue
    assert np.abs(np.asarray(found) - exact).max() <= 1e-12 * np.abs(exact).max()


def _slab_error(n):
    thickness, length = 0.012, 0.005
    mesh = build_voxel_mesh(
        np.ones((n, 2, 2), np.int64), np.diag([thickness / n, 1e-3, 1e-3, 1.0]), frame="model"
    )
    x = mesh.centre[:, 0] + 0.5 * thickness / n
    prepared = darcy_mesh(mesh)
    sink = jnp.asarray(mesh.volume) / length**2
    operator = _operator(prepared, jnp.asarray(1.0), sink)
    # p(0) = 1 acts through half a cell: a Robin term on the first layer
    first = mesh.cell_ijk[:, 0] == 0
    half = np.where(first, 1e-6 / (0.5 * thickness / n), 0.0)
    operator = darcy_operator(prepared.graph, operator.transmissibility, sink + jnp.asarray(half))
    found = solve_darcy(DarcyProblem(operator, jnp.asarray(half))).pressure_tissue
    exact = np.asarray(screened_slab(jnp.asarray(x), thickness, length))
    return _relative_l2(np.asarray(found), exact, mesh.volume)


def _shell_error(n):
    inner, outer, length = 0.02, 0.032, 0.006

    def sector(box):  # a sector of a shell: no flux passes its side walls in the exact solution
        radius = inner + (outer - inner) * box[:, 0]
        theta, phi = 0.25 * np.pi * (1 + 2 * box[:, 1]), 0.5 * np.pi * box[:, 2]
        unit = [np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)]
        return radius[:, None] * np.stack(unit, axis=1)

    mesh = kuhn_tetrahedra((n, 2 * n, 2 * n), vertex_map=sector)
    prepared = darcy_mesh(mesh)
    operator = _operator(prepared, jnp.asarray(length**2), jnp.asarray(mesh.volume))
    radius = np.linalg.norm(mesh.point, axis=1)
    exact = np.asarray(screened_shell(jnp.asarray(radius), inner, outer, length))
    fixed = jnp.asarray((radius < inner * (1 + 1e-9)) | (radius > outer * (1 - 1e-9)))
    problem = DarcyProblem(operator, jnp.zeros(mesh.n_cells), fixed, jnp.asarray(exact))
    return _relative_l2(np.asarray(solve_darcy(problem).pressure_tissue), exact, mesh.volume)


@pytest.mark.parametrize(
    ("error", "sizes"), [(_slab_error, (10, 20, 40)), (_shell_error, (6, 12, 18))]
)
def test_closed_forms_are_met_at_second_order(error, sizes):
    errors = np.array([error(n) for n in sizes])
    size = np.array(sizes)
    order = np.log(errors[:-1] / errors[1:]) / np.log(size[1:] / size[:-1])
    assert order.min() >= 1.9
    assert errors[-1] < 2e-3


@pytest.fixture(scope="module")
def small():
    mesh = kuhn_tetrahedra(3)
    prepared = darcy_mesh(mesh)
    rng = np.random.default_rng(1)
    fibre = rng.standard_normal((prepared.n_elements, 3))
    fibre /= np.linalg.norm(fibre, axis=1, keepdims=True)
    return mesh, prepared, jnp.asarray(fibre), jnp.asarray(rng.uniform(0.5, 1, mesh.n_cells))


def _solve_small(prepared, fibre, along, across, sink, source):
    tensor = transversely_isotropic(along, across, fibre)
    operator = darcy_operator(prepared.graph, prepared.transmissibility(tensor), sink)
    return solve_darcy(DarcyProblem(operator, source))


def test_operator_is_the_dense_matrix_and_balances(small):
    mesh, prepared, fibre, source = small
    sink = jnp.asarray(mesh.volume)
    solution = _solve_small(prepared, fibre, jnp.asarray(2.0), jnp.asarray(0.5), sink, source)
    tensor = transversely_isotropic(jnp.asarray(2.0), jnp.asarray(0.5), fibre)
    weight = np.asarray(prepared.transmissibility(tensor))
    dense = np.diag(np.asarray(sink))
    for (i, j), t in zip(np.asarray(prepared.graph.edge), weight, strict=True):
        dense[[i, j], [i, j]] += t
        dense[[i, j], [j, i]] -= t
    expected = np.linalg.solve(dense, np.asarray(source))
    assert np.abs(np.asarray(solution.pressure_tissue) - expected).max() <= 1e-10 * expected.max()
    total = float(jnp.sum(source))
    # edges cancel in pairs, so what is fed leaves through the sink to round-off of the solve
    assert abs(total - float(jnp.sum(sink * solution.pressure_tissue))) <= 1e-11 * total
    operator = darcy_operator(prepared.graph, prepared.transmissibility(tensor), sink)
    net = np.zeros(mesh.n_cells)
    flux = np.asarray(operator.flux(solution.pressure_tissue))
    np.add.at(net, np.asarray(prepared.graph.edge[:, 0]), flux)
    np.add.at(net, np.asarray(prepared.graph.edge[:, 1]), -flux)
    conducted = np.asarray(operator(solution.pressure_tissue) - sink * solution.pressure_tissue)
    assert np.allclose(net, conducted, rtol=0, atol=1e-13 * np.abs(net).max())


def test_gradient_has_two_witnesses(small):
    mesh, prepared, fibre, source = small
    sink = jnp.asarray(mesh.volume)

    def functional(theta):
        along, across, s = theta
        pressure = _solve_small(prepared, fibre, along, across, s * sink, source).pressure_tissue
        return jnp.sum(pressure**2)

    def dense_functional(theta):
        along, across, s = theta
        weight = prepared.transmissibility(transversely_isotropic(along, across, fibre))
        i, j = prepared.graph.edge.T
        dense = jnp.diag(s * sink)
        dense = dense.at[i, i].add(weight).at[j, j].add(weight)
        dense = dense.at[i, j].add(-weight).at[j, i].add(-weight)
        return jnp.sum(jnp.linalg.solve(dense, source) ** 2)

    theta = jnp.array([2.0, 0.5, 1.3])
    run = jax.jit(jax.value_and_grad(functional))
    value, gradient = run(theta)
    dense_value, dense_gradient = jax.jit(jax.value_and_grad(dense_functional))(theta)
    assert abs(value / dense_value - 1) <= 1e-11
    assert np.max(np.abs(gradient / dense_gradient - 1)) <= 1e-9
    step = 1e-4
    for k in range(3):
        e = step * np.eye(3)[k]
        f = [run(jnp.asarray(theta + m * e))[0] for m in (-2, -1, 1, 2)]
        difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        assert abs(difference / gradient[k] - 1) <= 1e-8
    hessian = jax.jit(jax.hessian(functional))(theta)
    dense_hessian = jax.jit(jax.hessian(dense_functional))(theta)
    assert jnp.max(jnp.abs(hessian - dense_hessian)) <= 1e-8 * jnp.max(jnp.abs(dense_hessian))


def test_voxel_tensor_aligned_with_the_grid_is_the_scalar_case():
    mesh = build_voxel_mesh(
        np.ones((3, 4, 5), np.int64), np.diag([1e-3, 2e-3, 3e-3, 1.0]), frame="RAS"
    )
    prepared = darcy_mesh(mesh)
    scalar = prepared.transmissibility(jnp.asarray(2e-9))
    field = prepared.transmissibility(jnp.full(mesh.n_cells, 2e-9))
    tensor = prepared.transmissibility(jnp.tile(2e-9 * jnp.eye(3), (mesh.n_cells, 1, 1)))
    assert np.allclose(scalar, field, rtol=1e-14) and np.allclose(scalar, tensor, rtol=1e-14)


def test_bicgstab_and_conjugate_gradient_agree(small):
    mesh, prepared, _, source = small
    operator = darcy_operator(
        prepared.graph, prepared.transmissibility(jnp.asarray(1.0)), jnp.asarray(mesh.volume)
    )
    jacobi = lambda r: r / operator.diagonal
    found = [
        solve_krylov(operator, jacobi, source, method=m, rtol=1e-13, max_steps=500)
        for m in ("conjugate_gradient", "bicgstab")
    ]
    assert all(bool(f.converged) for f in found)
    assert np.allclose(found[0].value, found[1].value, rtol=1e-11)


def test_refusals():
    mesh = build_voxel_mesh(
        np.ones((3, 3, 3), np.int64), np.diag([1e-3, 1e-3, 1e-3, 1.0]), frame="RAS"
    )
    prepared = darcy_mesh(mesh)
    with pytest.raises(ValueError, match="permeability has shape"):
        prepared.transmissibility(jnp.ones(5))
    with pytest.raises(InputError, match=r"element 2 .*positive"):
        k = np.ones(27)
        k[2] = -1.0
        check_permeability(prepared, k, "case.yaml")
    fibre = jnp.asarray(np.tile(np.array([0.6, 0.8, 0.0]), (27, 1)))
    tensor = transversely_isotropic(jnp.asarray(4e-9), jnp.asarray(1e-9), fibre)
    with pytest.raises(InputError, match="not diagonal in the axes"):
        check_permeability(prepared, np.asarray(tensor), "case.yaml")
    operator = darcy_operator(
        prepared.graph, prepared.transmissibility(jnp.asarray(1.0)), jnp.ones(27)
    )
    short = solve_darcy(
        DarcyProblem(operator, jnp.arange(27.0)), ConjugateGradient(max_steps=1), throw=False
    )
    assert "linear solver" in RESULTS[short.result]
    with pytest.raises(SolveError, match="linear solver"):
        solve_darcy(DarcyProblem(operator, jnp.arange(27.0)), ConjugateGradient(max_steps=1))


def test_graph_rows_hold_every_edge_twice():
    edge = np.array([[0, 1], [1, 2], [0, 2], [2, 3]])
    graph = build_darcy_graph(edge, np.ones(4))
    used = np.concatenate([np.ravel(e) for e in graph.pattern.entry])
    assert sorted(used[used < 4].tolist()) == sorted([*range(4), *range(4)])


def test_single_precision():
    mesh = kuhn_tetrahedra(8)
    prepared = darcy_mesh(mesh)
    source = np.random.default_rng(1).uniform(0.5, 1, mesh.n_cells)
    double = DarcyProblem(
        darcy_operator(
            prepared.graph, prepared.transmissibility(jnp.asarray(1.0)), jnp.asarray(mesh.volume)
        ),
        # flows per control volume, whose squares leave the range of float32
        jnp.asarray(1e-25 * source),
    )
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, double)
    exact, found = solve_darcy(double).pressure_tissue, solve_darcy(single).pressure_tissue
    assert found.dtype == jnp.float32
    error = np.abs(np.asarray(found, np.float64) - np.asarray(exact)).max()
    assert error <= 1e-5 * np.abs(exact).max()
