"""The torch reference of Darcy flow beside jaxperf, and as a solver in its own right."""

import ast
import dataclasses
import sys
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxperf import InputError
from jaxperf.darcy import (
    ConjugateGradient,
    darcy_mesh,
    darcy_problem,
    darcy_surface,
    DirichletFaces,
    NeumannFaces,
    RobinFaces,
    solve_darcy as solve_with_jax,
)
from jaxperf.geometry import build_voxel_mesh, kuhn_tetrahedra

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges._darcy_arrays import reference_darcy, reference_mesh  # noqa: E402
from bridges.reference import _darcy as reference  # noqa: E402
from bridges.reference._darcy_solve import solve_darcy  # noqa: E402

KINDS = ["voxels", "tensor", "tetrahedra"]


def _voxels(shape, seed):
    """A ragged piece of a turned grid of three spacings."""
    label = (np.random.default_rng(seed).random(shape) < 0.8).astype(np.int64)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.3, -0.7, 1.1]).as_matrix() * [6e-3, 5e-3, 7e-3]
    return build_voxel_mesh(label, affine, frame="RAS", largest_piece=True)


def _mesh(kind):
    if kind != "tetrahedra":
        return _voxels((7, 6, 5), 0)
    bend = lambda x: x + 4e-4 * np.sin(1e3 * x[:, ::-1])
    return kuhn_tetrahedra((4, 3, 4), upper=(0.02, 0.015, 0.03), vertex_map=bend)


def _tensors(n, rng):
    turn = rng.normal(size=(n, 3, 3))
    return 1e-9 * (turn @ turn.transpose(0, 2, 1) + 0.3 * np.eye(3))


def _given(kind):
    """Everything that a problem is made of: jaxperf's mesh, K, conditions, sink, source."""
    rng, mesh = np.random.default_rng(1), _mesh(kind)
    prepared = darcy_mesh(mesh, full_tensor=kind == "tensor")
    n = prepared.n_elements
    permeability = _tensors(n, rng)
    if kind == "voxels":
        own = 1e-9 * np.exp(rng.normal(size=(n, 3)))
        permeability = np.einsum("ai,ka,aj->kij", mesh.axes, own, mesh.axes)
    order = rng.permutation(mesh.boundary_faces().area.size)
    first, second, third, _ = np.array_split(order, 4)
    conditions = (
        DirichletFaces(first, 9e3 + 1e2 * rng.normal(size=first.size)),
        NeumannFaces(second, 1e-5 * rng.normal(size=second.size)),
        RobinFaces(third, 1e-7 * rng.random(third.size), 3e3 + 1e2 * rng.normal(size=third.size)),
    )
    sink = jnp.asarray(1e-4 * mesh.volume * rng.random(mesh.n_cells))
    source = jnp.asarray(mesh.volume * rng.random(mesh.n_cells))
    return mesh, prepared, (jnp.asarray(permeability), conditions, sink, source)


@eqx.filter_jit
def _ours(theta, prepared, surface, weight, method):
    """System, pressure and the gradient of a functional, by jaxperf."""

    def functional(theta):
        permeability, conditions, sink, source = theta
        problem = darcy_problem(
            prepared, permeability, surface, conditions, sink=sink, source=source
        )
        pressure = solve_with_jax(problem, method).pressure_tissue
        return weight @ pressure, (problem, pressure)

    (_, aux), gradient = eqx.filter_value_and_grad(functional, has_aux=True)(theta)
    return *aux, gradient


def _difference(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    return np.abs(found - expected).max() / np.abs(expected).max()


def _by_pairs(edge):
    edge = np.sort(np.asarray(edge), axis=1)
    order = np.lexsort(edge.T[::-1])
    return edge[order], order


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_jaxperf(kind):
    mesh, prepared, theta = _given(kind)
    weight = np.random.default_rng(2).normal(size=mesh.n_cells)
    ours, pressure, slope = _ours(
        theta, prepared, darcy_surface(mesh), jnp.asarray(weight), ConjugateGradient(rtol=1e-15)
    )
    permeability, conditions, sink, source = theta
    problem = reference_darcy(
        mesh, permeability, conditions, sink=sink, source=source, full_tensor=kind == "tensor"
    )
    on_faces = [
        (k, field.name)
        for k, condition in enumerate(problem.conditions)
        for field in dataclasses.fields(condition)
        if field.name != "face"
    ]
    values = [getattr(problem.conditions[k], name) for k, name in on_faces]
    leaf = [problem.permeability, problem.sink, problem.source, *values]
    for tensor in leaf:
        tensor.requires_grad_()
    system = reference.darcy_system(problem)
    found = solve_darcy(*system)
    gradient = torch.autograd.grad(torch.tensor(weight) @ found.pressure_tissue, leaf)
    with torch.no_grad():
        (pair, order), (our_pair, our_order) = map(_by_pairs, (system.edge, prepared.graph.edge))
        np.testing.assert_array_equal(pair, our_pair)
        our_closed = prepared.transmissibility(permeability)[our_order]
        closed = reference.assemble(problem.mesh, problem.permeability)[order]
        assert _difference(closed, our_closed) <= 1e-13
        conduction = np.asarray(ours.operator.transmissibility)[our_order]
        assert _difference(system.transmissibility[order], conduction) <= 1e-13
        assert _difference(problem.mesh.volume, mesh.volume) <= 1e-13
        assert _difference(system.sink, ours.operator.sink) <= 1e-13
        assert _difference(system.source, ours.source) <= 1e-13
        assert _difference(found.pressure_tissue, pressure) <= 1e-11
        assert float(found.residual) <= 1e-12
    ours_on_faces = [getattr(slope[1][k], name) for k, name in on_faces]
    for mine, theirs in zip(gradient, [slope[0], *slope[2:], *ours_on_faces], strict=True):
        assert _difference(mine, theirs) <= 1e-9


@pytest.mark.parametrize("kind", KINDS)
def test_one_value_and_values_per_element(kind):
    mesh = _mesh(kind)
    full_tensor = kind == "tensor"
    prepared, raw = (
        darcy_mesh(mesh, full_tensor=full_tensor),
        reference_mesh(mesh, full_tensor=full_tensor),
    )
    order, our_order = _by_pairs(raw.edge)[1], _by_pairs(prepared.graph.edge)[1]
    own = np.exp(np.random.default_rng(3).normal(size=prepared.n_elements))
    for value in (np.array(2.0), own):
        ours = np.asarray(prepared.transmissibility(jnp.asarray(value)))[our_order]
        found = reference.assemble(raw, torch.tensor(value))[order]
        assert _difference(found, ours) <= 1e-13


# --- the solver in its own right ---


def _box(shape=(2, 2, 2), full_tensor=False):
    cell_ijk = torch.cartesian_prod(*(torch.arange(n) for n in shape))
    affine = torch.diag(torch.tensor([0.5, 0.4, 0.6, 1.0], dtype=torch.float64))
    return reference.VoxelMesh(cell_ijk, affine, full_tensor)


def _two_tets():
    point = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.1, 0.2, 1], [0.9, 0.8, 1.1]]
    tet = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 4]])
    return reference.TetMesh(torch.tensor(point, dtype=torch.float64), tet)


def _graph(seed=0):
    """A loose graph of nine places, coefficients of which are all positive."""
    rng = np.random.default_rng(seed)
    edge = np.array([(i, j) for i in range(9) for j in range(i + 1, 9) if (i + j) % 3 or j < 4])
    values = (0.5 + rng.random(edge.shape[0]), rng.random(9), rng.normal(size=9))
    return torch.tensor(edge), *(torch.tensor(value) for value in values)


def _dense(edge, transmissibility, sink):
    matrix = torch.diag(sink)
    for (i, j), lead in zip(edge.tolist(), transmissibility, strict=True):
        along = torch.zeros_like(sink)
        along[i], along[j] = 1.0, -1.0
        matrix = matrix + lead * torch.outer(along, along)
    return matrix


def test_the_pressure_is_that_of_the_dense_matrix():
    edge, lead, sink, source = _graph()
    matrix = _dense(edge, lead, sink)
    found = solve_darcy(edge, lead, sink, source).pressure_tissue
    assert _difference(found, torch.linalg.solve(matrix, source)) <= 1e-13
    fixed, given = torch.arange(9) % 4 == 0, torch.arange(9.0, dtype=torch.float64)
    matrix[fixed] = torch.eye(9, dtype=torch.float64)[fixed]
    expected = torch.linalg.solve(matrix, torch.where(fixed, given, source))
    found = solve_darcy(edge, lead, sink, source, fixed, given).pressure_tissue
    assert _difference(found, expected) <= 1e-13
    one = torch.ones(1, dtype=torch.float64)
    assert float(solve_darcy(edge[:0], one[:0], 4.0 * one, one).pressure_tissue) == 0.25
    everywhere = torch.ones(9, dtype=torch.bool)
    assert torch.equal(
        solve_darcy(edge, lead, sink, source, everywhere, given).pressure_tissue, given
    )


def test_linear_pressure_is_exact_in_a_stepped_wall():
    raw = reference_mesh(_voxels((5, 4, 4), 4), full_tensor=True)
    tensor = torch.tensor([[2.0, 0.5, 0.1], [0.5, 1.0, 0.3], [0.1, 0.3, 1.5]], dtype=torch.float64)
    slope = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    face = reference.boundary_faces(raw)
    cell, axis, sign = face[:, 0], face[:, 1] // 2, 2.0 * (face[:, 1] % 2) - 1.0
    centre = raw.cell_ijk.double() @ raw.affine[:3, :3].T
    on_face = centre[cell] + (0.5 * sign * raw.spacing[axis])[:, None] * raw.axes[axis]
    pressure, inflow = on_face @ slope, sign * (raw.axes[axis] @ tensor @ slope)
    first, second, third = (torch.arange(face.shape[0]) % 3 == k for k in range(3))
    rate = torch.tensor(100.0, dtype=torch.float64)
    zero = torch.zeros(raw.n_cells, dtype=torch.float64)
    problem = reference.DarcyProblem(
        raw,
        tensor.expand(raw.n_cells, 3, 3),
        zero,
        zero,
        (
            reference.DirichletFaces(face[first], pressure[first]),
            reference.NeumannFaces(face[second], inflow[second]),
            reference.RobinFaces(face[third], rate, pressure[third] + inflow[third] / rate),
        ),
    )
    found = solve_darcy(*reference.darcy_system(problem)).pressure_tissue
    assert _difference(found, centre @ slope) <= 1e-12


def test_a_batch_is_each_case_alone():
    rng = np.random.default_rng(5)
    raw = _box((3, 3, 2), full_tensor=True)
    n, n_cases = raw.n_cells, 4
    tensors = torch.tensor(np.stack([1e9 * _tensors(n, rng) for _ in range(n_cases)]))
    sink, source = torch.tensor(rng.random(n)), torch.tensor(rng.normal(size=(n_cases, n)))
    source[2] = 0.0
    face = reference.boundary_faces(raw)
    reservoir = torch.tensor(rng.normal(size=(n_cases, 5)))
    rate = torch.tensor(2.0, dtype=torch.float64)
    conditions = (
        reference.RobinFaces(face[:5], rate, reservoir),
        reference.DirichletFaces(face[5:9], rate),
    )
    both = reference.DarcyProblem(raw, tensors, sink, source, conditions)
    system = reference.darcy_system(both)
    found = solve_darcy(*system)
    assert found.pressure_tissue.shape == (n_cases, n) and found.residual.shape == (n_cases,)
    for k in range(n_cases):
        alone = (dataclasses.replace(conditions[0], pressure=reservoir[k]), conditions[1])
        one = reference.DarcyProblem(raw, tensors[k], sink, source[k], alone)
        expected = solve_darcy(*reference.darcy_system(one)).pressure_tissue
        assert _difference(found.pressure_tissue[k], expected) <= 1e-13
    # One matrix for all, and one right-hand side for all.
    edge, lead, sink, source = _graph()
    many = torch.stack([source, 2.0 * source, 0.0 * source])
    found = solve_darcy(edge, lead, sink, many)
    alone = solve_darcy(edge, lead, sink, source).pressure_tissue
    assert (
        _difference(found.pressure_tissue, torch.stack([alone, 2.0 * alone, 0.0 * alone])) <= 1e-14
    )
    found = solve_darcy(
        edge, torch.stack([lead, 2.0 * lead]), torch.stack([sink, 2.0 * sink]), source
    )
    assert _difference(found.pressure_tissue, torch.stack([alone, 0.5 * alone])) <= 1e-14


def test_types_follow_the_values():
    edge, *values = _graph()
    found = solve_darcy(edge, *(value.float() for value in values))
    assert found.pressure_tissue.dtype == torch.float32
    assert _difference(found.pressure_tissue, solve_darcy(edge, *values).pressure_tissue) <= 1e-5
    # The squares of these flows are below the range of the type.
    edge, lead, sink, source = (edge, *(value.float() for value in values))
    small = solve_darcy(edge, lead, sink, 1e-25 * source).pressure_tissue
    assert _difference(1e25 * small, found.pressure_tissue) <= 1e-5


# --- derivatives ---


def _leaf(tensor):
    return tensor.clone().requires_grad_()


def _both_orders(function, leaf):
    assert torch.autograd.gradcheck(function, leaf, rtol=1e-6, atol=1e-8)
    assert torch.autograd.gradgradcheck(function, leaf, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("with_fixed", [False, True])
def test_first_and_second_derivatives_of_the_solution(with_fixed):
    edge, lead, sink, source = _graph()
    edge, lead = edge[::3], lead[::3]
    leaf = [_leaf(v) for v in (lead, 0.5 + sink, torch.stack([source, source.flip(0)]))]
    if not with_fixed:
        return _both_orders(lambda *values: solve_darcy(edge, *values).pressure_tissue, leaf)
    fixed = torch.arange(9) % 4 == 0
    function = lambda t, s, f, p: solve_darcy(edge, t, s, f, fixed, p).pressure_tissue
    return _both_orders(function, [*leaf, _leaf(source)])


@pytest.mark.parametrize("kind", KINDS)
def test_first_and_second_derivatives_of_the_whole(kind):
    """In the symmetric tensors, the geometry and all values on the surface."""
    raw = _two_tets() if kind == "tetrahedra" else _box((2, 1, 1), kind == "tensor")
    rng = np.random.default_rng(6)
    place = raw.point if kind == "tetrahedra" else raw.affine.diagonal()[:3]
    face = reference.boundary_faces(raw)
    weight = torch.tensor(rng.normal(size=raw.n_cells))
    unit = torch.eye(3, dtype=torch.float64)

    def pressure(shape, place, prescribed, inflow, coefficient, reservoir):
        if kind == "tetrahedra":
            mesh = dataclasses.replace(raw, point=place)
        else:
            affine = torch.diag(torch.cat([place, torch.ones_like(place[:1])]))
            mesh = dataclasses.replace(raw, affine=affine)
        tensor = shape @ shape.mT + unit
        if kind == "voxels":
            tensor = tensor * unit
        conditions = (
            reference.DirichletFaces(face[:2], prescribed),
            reference.NeumannFaces(face[2:4], inflow),
            reference.RobinFaces(face[4:7], coefficient, reservoir),
        )
        problem = reference.DarcyProblem(mesh, tensor, mesh.volume, weight, conditions)
        return solve_darcy(*reference.darcy_system(problem)).pressure_tissue

    shape = torch.tensor(rng.normal(size=(raw.n_elements, 3, 3)))
    values = [torch.tensor(rng.random(n) + 0.5) for n in (2, 2, 3, 3)]
    _both_orders(pressure, [_leaf(v) for v in (shape, place, *values)])


def test_exchange_of_zero_has_a_derivative():
    raw = _box((2, 1, 1), full_tensor=True)
    one = torch.ones(2, dtype=torch.float64)
    face = reference.boundary_faces(raw)[:1]
    rate = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    exchange = reference.RobinFaces(face, rate, torch.tensor(3.0, dtype=torch.float64))
    system = reference.darcy_system(reference.DarcyProblem(raw, one, one, one, (exchange,)))
    (slope,) = torch.autograd.grad(solve_darcy(*system).pressure_tissue.sum(), rate)
    # p = 1 everywhere without exchange, and the sinks pass on what comes in: area · (3 − 1).
    assert float(slope) == pytest.approx(0.4 * 0.6 * 2.0, rel=1e-12)


# --- refusals ---


def _solve_with(**changes):
    edge, lead, sink, source = _graph()
    given = {"edge": edge, "transmissibility": lead, "sink": sink, "source": source}
    return solve_darcy(**(given | changes))


_EDGE = torch.tensor([[0, 1], [2, 3]])
_ONE = torch.ones(4, dtype=torch.float64)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: _solve_with(sink=torch.zeros(9, dtype=torch.float64)), "no level"),
        (
            lambda: solve_darcy(
                _EDGE, _ONE[:2], torch.tensor([[1.0] * 4, [0, 0, 1, 1]]).double(), _ONE
            ),
            "control volume 0 has neither",
        ),
        (
            lambda: solve_darcy(
                _EDGE, _ONE[:2], 0.0 * _ONE, _ONE, torch.arange(4) == 0, torch.zeros_like(_ONE)
            ),
            "no level",
        ),
        (lambda: solve_darcy(_EDGE, 0.0 * _ONE[:2], torch.arange(4.0).double(), _ONE), "no level"),
        (lambda: _solve_with(sink=torch.full((9,), -50.0).double()), "no positive diagonal"),
        (lambda: _solve_with(sink=torch.full((9,), -0.5).double()), "no positive curvature"),
        (lambda: _solve_with(source=torch.ones(8).double()), "have the shapes"),
        (lambda: _solve_with(source=torch.full((9,), torch.nan).double()), "not finite"),
        (lambda: _solve_with(sink=torch.ones(9)), "of the types"),
        (lambda: _solve_with(edge=_graph()[0] + 1), "outside 0 to 8"),
        (lambda: _solve_with(edge=_graph()[0].int()), "expected int64"),
        (lambda: _solve_with(fixed=torch.zeros(9, dtype=torch.bool)), "belong together"),
        (
            lambda: _solve_with(fixed=torch.zeros(9), pressure_fixed=torch.zeros(9).double()),
            "fixed is not bool",
        ),
    ],
)
def test_systems_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_iteration_that_does_not_converge_is_refused():
    with pytest.raises(RuntimeError, match="in 3 steps"):
        _solve_with(max_steps=3)


def _system_with(raw, *conditions):
    values = torch.ones(raw.n_cells, dtype=torch.float64)
    permeability = torch.ones(raw.n_elements, dtype=torch.float64)
    return reference.darcy_system(
        reference.DarcyProblem(raw, permeability, values, values, conditions)
    )


def _dirichlet(face, value=1.0):
    return reference.DirichletFaces(torch.tensor(face), torch.tensor(value, dtype=torch.float64))


_TURNED = torch.tensor([[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]]).double().expand(8, 3, 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reference.assemble(_box(), _TURNED), "not diagonal in the axes"),
        (lambda: reference.assemble(_box(), torch.ones(7).double()), "permeability has shape"),
        (lambda: reference.assemble(_box(), torch.zeros(8).double()), "not positive"),
        (lambda: reference.assemble(_box(full_tensor=True), -_TURNED), "positive definite"),
        (lambda: reference.assemble(_box(full_tensor=True), _TURNED.triu()), "not symmetric"),
        (lambda: _system_with(_box((3, 1, 1)), _dirichlet([[1, 0]])), "not of the surface"),
        (lambda: _system_with(_box(), _dirichlet([[0, 0], [0, 0]])), "not of the surface"),
        (lambda: _system_with(_two_tets(), _dirichlet([[1, 2, 3]])), "not of the surface"),
        (lambda: _system_with(_box(), _dirichlet([[0, 0]], [1.0, 2.0])), "a value on 1 faces"),
        (lambda: _system_with(_box(), _dirichlet([0, 0])), "expected int64 with two"),
        (
            lambda: _system_with(
                _box(), reference.RobinFaces(torch.tensor([[0, 0]]), -_ONE[:1], _ONE[:1])
            ),
            "is negative",
        ),
        (lambda: dataclasses.replace(_box(), affine=torch.ones(4, 4).double()), "not orthogonal"),
        (lambda: dataclasses.replace(_box(), affine=torch.eye(3).double()), "expected \\(4, 4\\)"),
        (
            lambda: dataclasses.replace(_box(), cell_ijk=torch.zeros(2, 3).long()),
            "repeats a cell",
        ),
        (lambda: dataclasses.replace(_box(), cell_ijk=torch.zeros(2, 3)), "of torch.int64"),
        (lambda: dataclasses.replace(_two_tets(), tet=torch.tensor([[0, 1, 2, 3]])), "0 to v − 1"),
        (
            lambda: dataclasses.replace(_two_tets(), point=torch.ones(5, 3).double()),
            "tetrahedron 0 is flat",
        ),
    ],
)
def test_meshes_and_conditions_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_faces_of_no_surface_are_refused_on_the_way():
    mesh = _voxels((3, 3, 3), 0)
    with pytest.raises(InputError, match="are named"):
        reference_darcy(mesh, jnp.asarray(1.0), (DirichletFaces([10_000], 1.0),))


def test_the_reference_imports_nothing_of_ours():
    folder = Path(reference.__file__).parent
    allowed = {"torch", "numpy", "scipy"} | set(sys.stdlib_module_names)
    for path in sorted(folder.glob("_darcy*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed
            if isinstance(node, ast.ImportFrom):
                assert node.level == 1 or (node.module or "").split(".")[0] in allowed
