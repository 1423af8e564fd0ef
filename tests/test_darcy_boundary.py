"""Conditions on the surface, and full tensors on voxels: closed forms, orders, gradients."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxperf import InputError
from jaxperf.darcy import (
    check_permeability,
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    darcy_problem,
    darcy_surface,
    DarcyProblem,
    DirichletFaces,
    NeumannFaces,
    RobinFaces,
    solve_darcy,
    transversely_isotropic,
    VoxelTensorDarcyMesh,
)
from jaxperf.darcy._exact import (
    MANUFACTURED,
    refracted,
    screened_slab,
    screened_slab_exchange,
)
from jaxperf.geometry import (
    build_voxel_mesh,
    ellipsoid_ventricle,
    kuhn_tetrahedra,
    tetrahedra_from_voxels,
)

TENSOR = np.array([[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.5]])


def _slow(parameter):
    return pytest.param(parameter, marks=pytest.mark.slow)


def _box(shape, upper=(1.0, 1.0, 1.0)):
    spacing = np.array(upper) / np.array(shape)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = 0.5 * spacing
    return build_voxel_mesh(np.ones(shape, np.int64), affine, frame="model")


def _prepared(kind, shape, upper=(1.0, 1.0, 1.0)):
    """A mesh of the box, prepared, and where its surface and its elements take values."""
    if kind == "tetrahedra":
        mesh = kuhn_tetrahedra(shape, upper=upper)
        place = mesh.centre[mesh.boundary_faces().cell]
        return mesh, darcy_mesh(mesh), place, mesh.point[mesh.tet].mean(axis=1)
    mesh = _box(shape, upper)
    prepared = darcy_mesh(mesh, full_tensor=True) if kind == "tensor" else darcy_mesh(mesh)
    return mesh, prepared, mesh.boundary_faces().centre, mesh.centre


def _field(function, place):
    return jax.jit(jax.vmap(function))(jnp.asarray(place))


def _relative_l2(found, exact, volume):
    return float(np.sqrt(np.sum(volume * (found - exact) ** 2) / np.sum(volume * exact**2)))


def _orders(error, sizes):
    errors, size = np.array([error(n) for n in sizes]), np.array(sizes)
    return np.log(errors[:-1] / errors[1:]) / np.log(size[1:] / size[:-1])


# --- closed forms ---

_SLAB = {
    "pressure": (
        lambda face: DirichletFaces(face, 1.0),
        lambda x, *a: screened_slab(x, *a),
    ),
    "inflow": (
        lambda face: NeumannFaces(face, 2e-3),
        lambda x, *a: screened_slab_exchange(x, *a, 0.0, 2e-3),
    ),
    "exchange": (
        lambda face: RobinFaces(face, 4e-3, 1.5),
        lambda x, *a: screened_slab_exchange(x, *a, 4e-3, 4e-3 * 1.5),
    ),
}


def _slab_error(kind, name, n):
    thickness, length = 0.012, 0.005
    condition, closed_form = _SLAB[name]
    mesh, prepared, _, _ = _prepared(kind, (n, 1, 1), (thickness, thickness / n, thickness / n))
    near = np.flatnonzero(mesh.boundary_faces().normal[:, 0] < -0.5)
    problem = darcy_problem(
        prepared,
        jnp.asarray(length**2),
        darcy_surface(mesh),
        [condition(near)],
        sink=jnp.asarray(mesh.volume),
    )
    exact = np.asarray(closed_form(jnp.asarray(mesh.centre[:, 0]), thickness, length))
    return _relative_l2(np.asarray(solve_darcy(problem).pressure_tissue), exact, mesh.volume)


@pytest.mark.parametrize("kind", ["voxels", _slow("tensor"), "tetrahedra"])
@pytest.mark.parametrize("name", _SLAB)
def test_screened_slab_with_each_condition_at_second_order(kind, name):
    assert _orders(lambda n: _slab_error(kind, name, n), (10, 20)).min() >= 1.9


def _conditions(mesh, place, case, mixed):
    """The exact pressure all around, or pressure, inflow and exchange on different sides."""
    faces = mesh.boundary_faces()
    pressure = _field(case.pressure, place)
    flux = _field(lambda x: case.permeability(x) @ jax.grad(case.pressure)(x), place)
    outflow = -jnp.einsum("fi,fi->f", jnp.asarray(faces.normal), flux)
    if not mixed:
        return [DirichletFaces(np.arange(faces.area.size), pressure)]
    parts = np.argmax(np.abs(faces.normal), axis=1)
    first, second, third = (np.flatnonzero(parts == a) for a in range(3))
    return [
        DirichletFaces(first, pressure[first]),
        NeumannFaces(second, -outflow[second]),
        RobinFaces(third, 2.0, pressure[third] - outflow[third] / 2.0),
    ]


def _manufactured_error(kind, case, n, mixed=False):
    mesh, prepared, place, element = _prepared(kind, (n, n, n))
    exact = np.asarray(_field(case.pressure, mesh.centre))
    source = _field(case.source, mesh.centre) * mesh.volume
    problem = darcy_problem(
        prepared,
        _field(case.permeability, element),
        darcy_surface(mesh),
        _conditions(mesh, place, case, mixed),
        source=source,
    )
    return _relative_l2(np.asarray(solve_darcy(problem).pressure_tissue), exact, mesh.volume)


@pytest.mark.slow
@pytest.mark.parametrize("name", MANUFACTURED)
def test_manufactured_solutions_with_tensors_on_voxels(name):
    case = MANUFACTURED[name]
    assert _orders(lambda n: _manufactured_error("tensor", case, n), (8, 16, 32)).min() >= 1.95


_SIZES = [(6, 12), _slow((8, 16, 32))]


@pytest.mark.parametrize("sizes", _SIZES)
@pytest.mark.parametrize("kind", ["tensor", _slow("tetrahedra")])
def test_all_conditions_together_at_second_order(kind, sizes):
    case = MANUFACTURED["fibre 10:1"]
    error = lambda n: _manufactured_error(kind, case, n, mixed=True)
    assert _orders(error, sizes).min() >= 1.9


@pytest.mark.parametrize("sizes", _SIZES)
def test_a_jump_of_a_tilted_tensor(sizes):
    """Exact for linear pressures, second order for curved ones."""
    linear = refracted(1e3, lambda x: 2.0 * x[1] - x[2] + 0.3, lambda x: 1.0 + 0.0 * x[0])
    assert _manufactured_error("tensor", linear, sizes[0]) <= 1e-9
    curved = refracted(
        1e3,
        lambda x: jnp.sin(jnp.pi * x[1]) * jnp.cos(2.0 * x[2]),
        lambda x: 1.0 + jnp.cos(2.0 * x[1] + x[2]),
    )
    assert _orders(lambda n: _manufactured_error("tensor", curved, n), sizes).min() >= 1.9


# --- full tensors on voxels ---


def _turned_wall():
    """Voxels of a ventricle on a turned grid of three spacings."""
    label = ellipsoid_ventricle(spacing_mm=5.0)[0].label
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix() * [6e-3, 5e-3, 7e-3]
    return build_voxel_mesh(label, affine, frame="RAS")


def test_a_tensor_diagonal_in_the_grid_is_the_two_point_flux():
    mesh = _turned_wall()
    two, multi = darcy_mesh(mesh), darcy_mesh(mesh, full_tensor=True)
    assert isinstance(multi, VoxelTensorDarcyMesh)
    rng = np.random.default_rng(0)
    own = np.exp(rng.normal(size=(mesh.n_cells, 3)))
    tensor = jnp.asarray(np.einsum("ai,ka,aj->kij", mesh.axes, own, mesh.axes))
    assert np.abs(tensor[0] - np.diag(np.diag(tensor[0]))).max() > 0.1
    pressure = jnp.asarray(rng.normal(size=mesh.n_cells))
    faces = np.flatnonzero(mesh.boundary_faces().normal[:, 0] > 0.2)
    conditions = [
        DirichletFaces(faces[::3], 2.0),
        NeumannFaces(faces[1::3], 0.3),
        RobinFaces(faces[2::3], 40.0, 0.7),
    ]
    apply = eqx.filter_jit(lambda operator, x: operator(x))
    for permeability in (tensor, tensor[:, 0, 0], tensor[0, 0, 0]):
        a, b = (
            darcy_problem(m, permeability, darcy_surface(mesh), conditions) for m in (two, multi)
        )
        for x, y in (
            (apply(a.operator, pressure), apply(b.operator, pressure)),
            (a.operator.sink, b.operator.sink),
            (a.source, b.source),
        ):
            assert np.abs(x - y).max() <= 1e-13 * np.abs(x).max()


def test_linear_pressure_is_exact_in_a_stepped_wall():
    mesh = _turned_wall()
    prepared = darcy_mesh(mesh, full_tensor=True)
    faces = mesh.boundary_faces()
    gradient = np.array([1.0, -2.0, 0.5])
    inflow = faces.normal @ TENSOR @ gradient
    pressure = 0.3 + faces.centre @ gradient
    side = np.arange(faces.area.size) % 3
    first, second, third = (np.flatnonzero(side == k) for k in range(3))
    problem = darcy_problem(
        prepared,
        jnp.asarray(np.tile(TENSOR, (mesh.n_cells, 1, 1))),
        darcy_surface(mesh),
        [
            DirichletFaces(first, pressure[first]),
            NeumannFaces(second, inflow[second]),
            RobinFaces(third, 100.0, pressure[third] + inflow[third] / 100.0),
        ],
    )
    found = solve_darcy(problem, ConjugateGradient(rtol=1e-14)).pressure_tissue
    assert np.abs(np.asarray(found) - 0.3 - mesh.centre @ gradient).max() <= 1e-12


def test_the_operator_is_symmetric_positive_and_conservative():
    mesh = _turned_wall()
    prepared = darcy_mesh(mesh, full_tensor=True)
    rng = np.random.default_rng(3)
    fibre = rng.normal(size=(mesh.n_cells, 3))
    fibre /= np.linalg.norm(fibre, axis=1, keepdims=True)
    tensor = transversely_isotropic(jnp.asarray(10.0), jnp.asarray(0.1), jnp.asarray(fibre))
    check_permeability(prepared, np.asarray(tensor), "fibres")
    weight = prepared.transmissibility(tensor)
    assert float(jnp.min(weight)) < 0  # no maximum principle
    operator = darcy_operator(prepared.graph, weight, jnp.zeros(mesh.n_cells))
    n = 200  # a piece of the wall: the rest at zero pressure
    dense = np.asarray(jax.jit(jax.vmap(operator))(jnp.eye(mesh.n_cells)[:n]))
    assert np.abs(dense[:, :n] - dense[:, :n].T).max() <= 1e-15 * np.abs(dense).max()
    assert np.linalg.eigvalsh(dense[:, :n])[0] > 0
    assert np.abs(dense.sum(axis=1)).max() <= 1e-14 * np.abs(dense).max()


@pytest.mark.slow
def test_a_closed_wall_of_fibres_agrees_with_tetrahedra():
    """No flux through a stepped surface: two schemes that share nothing, refined together."""
    difference = []
    for n in (4, 8, 16):
        mesh = _box((n, n, n))
        tets = tetrahedra_from_voxels(mesh)
        pressure = []
        for m, element in ((mesh, mesh.centre), (tets, tets.point[tets.tet].mean(axis=1))):
            prepared = darcy_mesh(m, full_tensor=True)
            tensor = _field(MANUFACTURED["fibre 10:1"].permeability, element)
            operator = darcy_operator(
                prepared.graph, prepared.transmissibility(tensor), jnp.asarray(m.volume)
            )
            source = m.volume * np.cos(2.0 * m.centre[:, 0]) * m.centre[:, 1]
            pressure.append(
                np.asarray(solve_darcy(DarcyProblem(operator, jnp.asarray(source))).pressure_tissue)
            )
        corner = tets.point.reshape(n + 1, n + 1, n + 1, 3)
        assert np.allclose(corner[1, 0, 0], [1 / n, 0, 0], atol=1e-12)
        at_corner = pressure[1].reshape(n + 1, n + 1, n + 1)
        at_centre = sum(
            at_corner[i : n + i, j : n + j, k : n + k]
            for i in (0, 1)
            for j in (0, 1)
            for k in (0, 1)
        )
        difference.append(_relative_l2(pressure[0], at_centre.ravel() / 8.0, mesh.volume))
    assert np.log2(difference[0] / difference[1]) >= 1.9
    assert np.log2(difference[1] / difference[2]) >= 1.9


# --- derivatives ---


def _functionals(kind):
    """A functional of K and all kinds of values, by our solve and by a dense one."""
    mesh, prepared, place, _ = _prepared(kind, (3, 3, 3))
    surface = darcy_surface(mesh)
    side = np.argmax(np.abs(mesh.boundary_faces().normal), axis=1)
    faces = [np.flatnonzero(side == a) for a in range(3)]
    rng = np.random.default_rng(2)
    turn = rng.normal(size=(prepared.n_elements, 3, 3))
    shape = np.einsum("kai,kaj->kij", turn, turn) + np.eye(3)
    if kind == "voxels":
        shape = np.einsum("kii->k", shape)
    weight = jnp.asarray(rng.normal(size=mesh.n_cells))

    def problem(theta):
        permeability = theta[0] * jnp.asarray(shape) + theta[1] * (
            jnp.asarray(shape**2) if kind == "voxels" else jnp.asarray(shape @ shape)
        )
        conditions = [
            DirichletFaces(faces[0], theta[2] * jnp.asarray(place[faces[0], 1])),
            NeumannFaces(faces[1], theta[3]),
            RobinFaces(faces[2], theta[4], theta[5]),
        ]
        return darcy_problem(prepared, permeability, surface, conditions)

    def functional(theta):
        return (
            weight @ solve_darcy(problem(theta), ConjugateGradient(rtol=1e-14)).pressure_tissue ** 2
        )

    def dense_functional(theta):
        p = problem(theta)
        matrix, right = jax.vmap(p.operator)(jnp.eye(mesh.n_cells)), p.source
        if p.fixed is not None and p.pressure_fixed is not None:
            matrix = jnp.where(p.fixed[:, None], jnp.eye(mesh.n_cells), matrix)
            right = jnp.where(p.fixed, p.pressure_fixed, right)
        return weight @ jnp.linalg.solve(matrix, right) ** 2

    return functional, dense_functional, jnp.array([1.0, 0.3, 0.7, 0.4, 2.0, 1.3])


@pytest.mark.parametrize("kind", [_slow("voxels"), "tensor", "tetrahedra"])
def test_gradients_have_two_witnesses(kind):
    functional, dense_functional, theta = _functionals(kind)
    gradient = jax.jit(jax.grad(functional))(theta)
    dense = jax.jit(jax.grad(dense_functional))(theta)
    assert jnp.max(jnp.abs(gradient - dense)) <= 1e-9 * jnp.max(jnp.abs(dense))
    step = 1e-4
    compiled = jax.jit(functional)
    for k in range(6):
        e = step * jnp.eye(6)[k]
        f = [compiled(theta + m * e) for m in (-2, -1, 1, 2)]
        difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        assert abs(difference - gradient[k]) <= 1e-8 * jnp.max(jnp.abs(gradient))


@pytest.mark.slow
def test_second_derivatives_through_the_elimination():
    functional, dense_functional, theta = _functionals("tensor")
    hessian = jax.jit(jax.hessian(functional))(theta)
    gradient = jax.jit(jax.grad(dense_functional))
    step = 1e-3
    for k in range(6):
        e = step * jnp.eye(6)[k]
        f = [gradient(theta + m * e) for m in (-2, -1, 1, 2)]
        difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        assert jnp.max(jnp.abs(difference - hessian[k])) <= 1e-7 * jnp.max(jnp.abs(hessian))


def test_single_precision():
    mesh, prepared, place, _ = _prepared("tensor", (6, 6, 6))
    tensor = jnp.asarray(np.tile(1e-9 * TENSOR, (mesh.n_cells, 1, 1)))
    inflow = NeumannFaces(np.arange(20), 1e-6)
    edge = DirichletFaces(np.arange(20, 60), place[20:60, 2])
    double = prepared, tensor, darcy_surface(mesh), [inflow, edge]
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, double)
    exact = solve_darcy(darcy_problem(*double)).pressure_tissue
    found = solve_darcy(darcy_problem(*single)).pressure_tissue
    assert found.dtype == jnp.float32
    error = np.abs(np.asarray(found, np.float64) - np.asarray(exact)).max()
    assert error <= 1e-4 * np.abs(exact).max()


# --- refusals ---


def test_refusals():
    mesh, prepared, _, _ = _prepared("voxels", (3, 3, 3))
    surface, k = darcy_surface(mesh), jnp.asarray(1.0)
    n = surface.area.shape[0]
    with pytest.raises(InputError, match=f"face {n} is named.*0 to {n - 1}"):
        darcy_problem(prepared, k, surface, [DirichletFaces([0, n], 1.0)])
    with pytest.raises(InputError, match="RobinFaces: face 3 has a condition already"):
        darcy_problem(prepared, k, surface, [NeumannFaces([1, 3], 1.0), RobinFaces([3], 1.0, 0.0)])
    with pytest.raises(InputError, match=r"NeumannFaces: a value has shape \(3,\)"):
        darcy_problem(prepared, k, surface, [NeumannFaces([1, 2], np.ones(3))])
    with pytest.raises(ValueError, match="permeability has shape"):
        darcy_problem(darcy_mesh(mesh, full_tensor=True), jnp.ones(5), surface, [])
    fibre = jnp.asarray(np.tile(np.array([0.6, 0.8, 0.0]), (27, 1)))
    tensor = transversely_isotropic(jnp.asarray(4e-9), jnp.asarray(1e-9), fibre)
    with pytest.raises(InputError, match="full_tensor=True"):
        check_permeability(prepared, np.asarray(tensor), "case.yaml")
