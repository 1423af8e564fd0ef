"""Transient Darcy flow: Terzaghi's consolidation, orders, balance, gradients, refusals."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

from jaxperf import InputError
from jaxperf.darcy import (
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    darcy_problem,
    darcy_state,
    darcy_surface,
    darcy_term,
    DarcyProblem,
    DarcySDIRK2,
    DirichletFaces,
    RobinFaces,
    solve_darcy,
)
from jaxperf.darcy._exact import terzaghi
from jaxperf.geometry import build_voxel_mesh, kuhn_tetrahedra

THICKNESS, CONDUCTIVITY, STORAGE = 0.01, 2e-9, 4e-6
LONGEST = THICKNESS**2 * STORAGE / CONDUCTIVITY  # time in units of L²S/K


def _column(kind, n):
    """A column drained at x = 0."""
    side = THICKNESS / n
    if kind == "tetrahedra":
        mesh = kuhn_tetrahedra((n, 1, 1), upper=(THICKNESS, side, side))
    else:
        affine = np.diag([side, side, side, 1.0])
        affine[:3, 3] = 0.5 * side
        mesh = build_voxel_mesh(np.ones((n, 1, 1), np.int64), affine, frame="model")
    drained = np.flatnonzero(mesh.boundary_faces().normal[:, 0] < -0.5)
    problem = darcy_problem(
        darcy_mesh(mesh),
        jnp.asarray(CONDUCTIVITY),
        darcy_surface(mesh),
        [DirichletFaces(drained, 0.0)],
    )
    return mesh, problem


@eqx.filter_jit
def _run(term, solver, state, start, end, n_steps):
    return diffrax.diffeqsolve(
        term,
        solver,
        start,
        end,
        (end - start) / n_steps,
        state,
        max_steps=n_steps + 1,
    )


def _state_after(problem, pressure, start, end, n_steps):
    term = darcy_term(problem, STORAGE)
    state = darcy_state(problem, pressure)
    times = start * LONGEST, end * LONGEST
    return _run(term, DarcySDIRK2(), state, *times, n_steps).ys


def _series(mesh, time):
    x = jnp.asarray(mesh.centre[:, 0])
    return terzaghi(x, time * LONGEST, THICKNESS, CONDUCTIVITY / STORAGE)


def _relative_l2(found, exact, volume):
    error = np.sum(volume * np.asarray(found - exact) ** 2)
    return float(np.sqrt(error / np.sum(volume * np.asarray(exact) ** 2)))


def _error_against_the_series(kind, n, start, n_steps):
    mesh, problem = _column(kind, n)
    pressure = 1.0 if start == 0 else _series(mesh, start)
    found = _state_after(problem, pressure, start, 0.3, n_steps).pressure[-1]
    return _relative_l2(found, _series(mesh, 0.3), mesh.volume)


def _orders(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["voxels", "tetrahedra"])
def test_second_order_in_space(kind):
    errors = [_error_against_the_series(kind, n, 0.05, 60) for n in (8, 16)]
    assert _orders(errors).min() >= 1.9 and errors[-1] <= 1e-3


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("voxels", (16, 32)),
        pytest.param("voxels", (16, 32, 64, 128), marks=pytest.mark.slow),
        pytest.param("tetrahedra", (16, 32, 64), marks=pytest.mark.slow),
    ],
)
def test_second_order_in_both_from_a_jump(kind, sizes):
    """The start p = 1 contradicts the drained side: the stiff rates are excited in full."""
    errors = [_error_against_the_series(kind, n, 0, n) for n in sizes]
    assert _orders(errors).min() >= 1.9


def test_second_order_in_time():
    """Against the exponential of the matrix, which knows nothing of the step."""
    mesh, problem = _column("voxels", 24)
    dense = np.asarray(jax.jit(jax.vmap(problem.operator))(jnp.eye(24)))
    rate = dense / (STORAGE * mesh.volume[:, None])
    exact = expm(-0.3 * LONGEST * rate) @ np.ones(24)
    errors = [
        _relative_l2(_state_after(problem, 1.0, 0.0, 0.3, n).pressure[-1], exact, mesh.volume)
        for n in (16, 32, 64)
    ]
    assert _orders(errors).min() >= 1.9


@pytest.fixture(scope="module")
def block():
    """A cube of tetrahedra with a sink, a source, an exchange and prescribed pressures."""
    mesh = kuhn_tetrahedra(3)
    prepared, surface = darcy_mesh(mesh), darcy_surface(mesh)
    normal = mesh.boundary_faces().normal
    conditions = [
        DirichletFaces(np.flatnonzero(normal[:, 0] < -0.5), 2.0),
        RobinFaces(np.flatnonzero(normal[:, 1] > 0.5), 0.5, 0.3),
    ]
    rng = np.random.default_rng(4)
    source = jnp.asarray(mesh.volume * rng.uniform(0.0, 1.0, mesh.n_cells))
    make = lambda k: darcy_problem(
        prepared, k, surface, conditions, sink=0.4 * jnp.asarray(mesh.volume), source=source
    )
    return mesh, make


def test_what_is_stored_and_what_has_passed_is_constant(block):
    mesh, make = block
    problem = make(jnp.asarray(1.0))
    state = darcy_state(problem, jnp.asarray(mesh.centre[:, 1]))
    solution = _run(darcy_term(problem, 0.7), DarcySDIRK2(), state, 0.0, 0.2, 20)
    stored = 0.7 * mesh.volume @ np.asarray(solution.ys.pressure[-1])
    before = 0.7 * mesh.volume @ np.asarray(state.pressure)
    passed = np.asarray(solution.ys.passed[-1])
    assert abs(stored + passed.sum() - before) <= 1e-12 * np.abs(passed).sum()
    assert abs(stored - before) >= 1e-2 * before


def test_the_steady_state_is_that_of_the_steady_solver(block):
    _, make = block
    problem = make(jnp.asarray(1.0))
    steady = solve_darcy(problem).pressure_tissue
    far = _run(darcy_term(problem, 0.7), DarcySDIRK2(), darcy_state(problem, 0.0), 0.0, 1e6, 4)
    assert np.abs(far.ys.pressure[-1] - steady).max() <= 1e-10


def test_solvers_of_diffrax_take_the_term(block):
    """And a controller takes our step."""
    _, make = block
    problem = make(jnp.asarray(1.0))
    state = darcy_state(problem, 0.0)
    source = lambda t, args: problem.source * (1.0 + jnp.sin(args * t))
    term = darcy_term(problem, 0.7, source=source)

    @eqx.filter_jit
    def run(solver, rtol):
        controller = diffrax.PIDController(rtol=rtol, atol=1e-2 * rtol)
        return diffrax.diffeqsolve(
            term, solver, 0.0, 0.5, 1e-3, state, args=3.0, stepsize_controller=controller
        )

    theirs, ours = run(diffrax.Tsit5(), 1e-9), run(DarcySDIRK2(), 1e-6)
    for a, b in zip(jax.tree.leaves(theirs.ys), jax.tree.leaves(ours.ys), strict=True):
        assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()


def test_gradients_have_two_witnesses(block):
    mesh, make = block
    n_steps, h, gamma = 3, 0.02, 1.0 - 0.5**0.5
    weight = jnp.asarray(np.random.default_rng(5).normal(size=mesh.n_cells))

    def functional(theta):
        problem = make(theta[0])
        term = darcy_term(problem, theta[1])
        state = darcy_state(problem, 0.0)
        solver = DarcySDIRK2(ConjugateGradient(rtol=1e-14))
        return weight @ _run(term, solver, state, 0.0, n_steps * h, n_steps).ys.pressure[-1] ** 2

    def dense_functional(theta):
        problem = make(theta[0])
        fixed, eye = problem.fixed, jnp.eye(mesh.n_cells)
        matrix = jax.vmap(problem.operator)(eye)
        capacity = theta[1] * jnp.asarray(mesh.volume)
        p = jnp.where(fixed, problem.pressure_fixed, 0.0)
        for _ in range(n_steps):
            slopes = []
            for a in (0.0, 1.0 - gamma):
                base = p + a * h * slopes[0] if slopes else p
                left = jnp.diag(capacity) + gamma * h * matrix
                left = jnp.where(fixed[:, None], eye, left)
                right = jnp.where(fixed, 0.0, problem.source - matrix @ base)
                slopes.append(jnp.linalg.solve(left, right))
            p = p + h * ((1.0 - gamma) * slopes[0] + gamma * slopes[1])
        return weight @ p**2

    theta = jnp.array([1.0, 0.7])
    value, gradient = jax.jit(jax.value_and_grad(functional))(theta)
    dense_value, dense_gradient = jax.jit(jax.value_and_grad(dense_functional))(theta)
    assert abs(value / dense_value - 1.0) <= 1e-11
    assert jnp.max(jnp.abs(gradient / dense_gradient - 1.0)) <= 1e-9
    compiled, step = jax.jit(functional), 1e-4
    for k in range(2):
        e = step * jnp.eye(2)[k]
        f = [compiled(theta + m * e) for m in (-2, -1, 1, 2)]
        difference = (f[0] - 8 * f[1] + 8 * f[2] - f[3]) / (12 * step)
        assert abs(difference / gradient[k] - 1.0) <= 1e-8


def test_single_precision():
    _, problem = _column("voxels", 16)
    double = darcy_term(problem, STORAGE), darcy_state(problem, 1.0)
    single = jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, double)
    exact = _run(double[0], DarcySDIRK2(), double[1], 0.0, 0.3 * LONGEST, 8).ys.pressure[-1]
    with jax.enable_x64(False):
        found = _run(single[0], DarcySDIRK2(), single[1], 0.0, 0.3 * LONGEST, 8).ys.pressure[-1]
    assert found.dtype == jnp.float32
    assert np.abs(np.asarray(found, np.float64) - exact).max() <= 1e-4


def test_refusals(block):
    _, make = block
    problem = make(jnp.asarray(1.0))
    with pytest.raises(InputError, match=r"storage has shape \(3,\)"):
        darcy_term(problem, jnp.ones(3))
    with pytest.raises(InputError, match="least storage is -1"):
        darcy_term(problem, -1.0)
    other = diffrax.ODETerm(lambda t, y, args: y)
    with pytest.raises(ValueError, match="expected a term from darcy_term"):
        _run(other, DarcySDIRK2(), darcy_state(problem, 0.0), 0.0, 1.0, 2)
    short = DarcySDIRK2(ConjugateGradient(max_steps=1))
    operator = darcy_operator(
        problem.operator.graph, problem.operator.transmissibility, problem.operator.sink
    )
    free = DarcyProblem(operator, problem.source)
    with pytest.raises(eqx.EquinoxRuntimeError):
        _run(darcy_term(free, 1e-3), short, darcy_state(free, 1.0), 0.0, 1.0, 2)
