"""Derivatives of transient flow: forwards, backwards and by differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import star, waveform
from helpers import data_dir, requires_data

from jaxperf.flow1d import (
    flow1d_problem,
    FlowState,
    SavePoints,
    semidiscretise,
    solve_flow1d,
    solve_periodic,
)
from jaxperf.flow1d._nodes import NodeEquations, solve_nodes
from jaxperf.io import read_svoned
from jaxperf.network import declare_lesion, FlowWaveform, PressureWaveform, WindkesselOutlet
from jaxperf.vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    SqrtAreaWall,
    SvOneDWall,
)

_PERIOD = 0.3
_NAMES = ("radius", "stiffness", "lesion", "R1", "R2", "C", "inflow", "inlet pressure")
_POINTS = SavePoints(np.array([0, 2, 3]), np.array([0.5, 0.7, 0.4]))


def carotid_and_fork(cell_time):
    """Two networks in one: a carotid under a flow, a fork with a lesion under a pressure."""
    network = star(
        [(0, 1), (2, 3), (3, 4), (3, 5)],
        [(3e-3, 2.9e-3), (2.2e-3, 2e-3), (1.6e-3, 1.5e-3), (1.4e-3, 1.2e-3)],
        [0.06, 0.03, 0.05, 0.04],
        root=(0, 2),
        branch_name=("carotid", "stem", "left", "right"),
    )
    network = declare_lesion(network, branch="left", start_mm=20, end_mm=30, diameter_reduction=0.5)
    beat = lambda t: np.sin(np.pi * t / _PERIOD) ** 2
    outlet = [jnp.array(v) for v in ([2.5e8, 9e8, 1.1e9], [2e9, 6e9, 7e9], [2e-11, 1e-11, 8e-12])]
    boundary = (
        FlowWaveform(jnp.array([0]), waveform(lambda t: 2e-6 + 8e-6 * beat(t), _PERIOD, 31)),
        PressureWaveform(jnp.array([2]), waveform(lambda t: 1e4 + 4e3 * beat(t), _PERIOD, 31)),
        WindkesselOutlet(jnp.array([1, 4, 5]), *outlet, jnp.zeros(3)),
    )
    wall = SqrtAreaWall(ConstantStiffness(7e4), 9e3)
    return flow1d_problem(network, boundary, Blood(), wall, cell_time=cell_time)


def with_parameters(problem, theta):
    """Every parameter multiplied by 1 + its entry; the lesion's reduction has it added."""
    where = lambda p: (
        p.network.radius,
        p.wall.stiffness.Eh_over_r,
        p.boundary[2].resistance_proximal,
        p.boundary[2].resistance_distal,
        p.boundary[2].compliance,
        p.boundary[0].flow.value,
        p.boundary[1].pressure.value,
    )
    scale = theta[jnp.array([0, 1, 3, 4, 5, 6, 7])]
    new = [old * (1.0 + s) for old, s in zip(where(problem), scale, strict=True)]
    problem = eqx.tree_at(where, problem, new)
    lesion = lambda p: p.network.lesion.diameter_reduction
    return eqx.tree_at(lesion, problem, lesion(problem) + theta[2])


def rest(problem):
    """A start that depends on the parameters too: rest under 10 kPa."""
    grid = problem.grid
    area = semidiscretise(problem).cell_wall.lumen(jnp.full(grid.n_slots, 1e4)).area
    outlet = (jnp.zeros((1, 0)), jnp.zeros((1, 0)), jnp.full((3, 1), 9e3))
    return FlowState(area, jnp.zeros(grid.n_slots), jnp.zeros(grid.n_nodes), outlet)


def functionals(solution):
    """A pressure, a flow and a cycle mean, each of order one."""
    return jnp.stack(
        [
            solution.pressure_static[-1, 1] / 1e4,
            solution.flow[-6, 2] / 1e-6,
            solution.flow[:, 0].mean() / 1e-6 + solution.flow[-10:, 1].mean() / 1e-6,
        ]
    )


def differences(function, theta, step=2e-3):
    """Central differences with one Richardson step: the error is of fourth order in `step`."""

    def central(i, h):
        e = np.zeros_like(theta)
        e[i] = h
        return (np.asarray(function(theta + e)) - np.asarray(function(theta - e))) / (2 * h)

    columns = [(4 * central(i, step / 2) - central(i, step)) / 3 for i in range(len(theta))]
    return np.stack(columns, axis=1)


def check_jacobian(forward, reverse, by_differences):
    scale = np.abs(by_differences).max(axis=1, keepdims=True)
    assert np.max(np.abs(forward - reverse) / scale) <= 1e-9
    error = np.abs(forward - by_differences) / scale
    assert error.max() <= 1e-6, error


def run_transient(n_cycles):
    def run(theta, problem):
        changed = with_parameters(problem, theta)
        solution = solve_flow1d(
            changed, points=_POINTS, n_cycles=n_cycles, samples=10, initial=rest(changed)
        )
        return functionals(solution)

    return run


def compare_modes(run, problem):
    theta = np.zeros(len(_NAMES))
    value = eqx.filter_jit(run)
    forward = eqx.filter_jit(jax.jacfwd(run))(jnp.asarray(theta), problem)
    reverse = eqx.filter_jit(jax.jacrev(run))(jnp.asarray(theta), problem)
    by_differences = differences(lambda x: value(jnp.asarray(x), problem), theta)
    check_jacobian(np.asarray(forward), np.asarray(reverse), by_differences)
    # Every parameter acts on something.
    assert (np.abs(by_differences).max(axis=0) > 1e-5).all()


@pytest.mark.slow
def test_transient_flow():
    compare_modes(run_transient(1), carotid_and_fork(2e-3))


@pytest.mark.slow
@pytest.mark.parametrize("n_cycles", [3, 10])
def test_transient_flow_over_many_cycles(n_cycles):
    compare_modes(run_transient(n_cycles), carotid_and_fork(5e-4))


@pytest.mark.slow
def test_periodic_state():
    """Reverse and forward mode of the fixed point, against differences of converged states."""
    problem = carotid_and_fork(2e-3)

    def run(theta, problem, mode, tolerance):
        changed = with_parameters(problem, theta)
        initial = jax.lax.stop_gradient(rest(problem))
        solution = solve_periodic(
            changed,
            points=_POINTS,
            samples=10,
            initial=initial,
            mode=mode,
            tolerance=tolerance,
            max_cycles=200,
        )
        return functionals(solution)[2]

    theta, along = jnp.zeros(len(_NAMES)), jnp.linspace(0.5, 1.5, len(_NAMES))
    reverse = eqx.filter_jit(jax.value_and_grad(lambda x, p: run(x, p, "reverse", 1e-12)))
    _, gradient = reverse(theta, problem)
    forward = eqx.filter_jit(
        lambda p: jax.jvp(lambda x: run(x, p, "forward", 1e-12), (theta,), (along,))[1]
    )
    pushed = float(forward(problem))
    assert pushed == pytest.approx(float(gradient @ along), rel=1e-8)
    value = lambda s: float(reverse(theta + s * along, problem)[0])
    central = lambda h: (value(h) - value(-h)) / (2 * h)
    expected = (4 * central(1e-3) - central(2e-3)) / 3
    assert pushed == pytest.approx(expected, rel=1e-6)


def one_node(pressure, flow, area, slope, compliance, source, *, fixed=0.0):
    """The equations of one node with one end for each entry."""
    n = len(pressure)
    column = lambda x: jnp.asarray(x).reshape(n, 1)
    zero = jnp.zeros((n, 1))
    sign = jnp.asarray([1.0] + [-1.0] * (n - 1)).reshape(n, 1)
    return NodeEquations(
        sign=sign,
        pressure=column(pressure),
        flow=column(flow),
        area=column(area),
        slope=column(slope),
        compliance=column(compliance),
        viscous=zero,
        head=zero + 530.0,
        linear=zero,
        quadratic=zero,
        conductance=jnp.zeros(1),
        fixed=jnp.full(1, fixed),
        source=jnp.asarray(source).reshape(1),
    )


def test_second_derivative_of_a_node():
    """p + h Q²/A² = P with Q and A given: d²p/dQ² is −2h/A²; a rule cut short would say 0."""

    def pressure(flow):
        node = one_node([1e4], flow[None], [1e-5], [-1e-15], [0.0], 1.1e4, fixed=1.0)
        return solve_nodes(node)[0][0, 0]

    found = jax.jit(jax.hessian(pressure))(jnp.asarray(4e-6))
    assert float(found) == pytest.approx(-2 * 530.0 / 1e-10, rel=1e-4)


def test_hessian_of_a_junction():
    """Three ends, against differences of the gradient."""

    def flow_through(x):
        node = one_node(
            jnp.array([1.1e4, 1.09e4, 1.1e4]) * (1 + 0.01 * x[0]),
            jnp.array([5e-6, 2e-6, 2.9e-6]) * (1 + x[1]),
            jnp.array([1.2e-5, 6e-6, 5e-6]) * (1 + x[2]),
            jnp.array([-2e-9, 1.2e-9, 1e-9]),
            jnp.array([1e-10, 5e-11, 5e-11]),
            jnp.zeros(()),
        )
        return jnp.sum(solve_nodes(node)[0] ** 2) / 1e8

    zero = jnp.zeros(3)
    hessian = np.asarray(jax.jit(jax.hessian(flow_through))(zero))
    by_differences = differences(jax.jit(jax.grad(flow_through)), np.zeros(3), step=1e-2)
    assert np.allclose(hessian, hessian.T, rtol=1e-9)
    assert np.abs(hessian).max() > 1e-3
    assert np.allclose(hessian, by_differences, rtol=1e-6, atol=1e-6 * np.abs(hessian).max())


@pytest.mark.slow
@requires_data
def test_left_coronary_tree():
    """Radii, the wall and the veins' resistance of a patient's tree, through one cycle."""
    case = read_svoned(
        data_dir() / "left_coronary" / "Left_coronary_inlet_pressure_wave_outlet_coronary.in"
    )
    m = case.material[0]
    blood = Blood(m.density, ConstantViscosity(m.viscosity), m.profile_exponent)
    wall = SvOneDWall(OlufsenStiffness(m.k1, m.k2, m.k3))
    problem = flow1d_problem(
        case.network,
        case.boundary,
        blood,
        wall,
        junction_pressure="static",
        boundary_pressure="static",
    )

    def run(theta, problem):
        where = lambda p: (p.network.radius, p.wall.stiffness.k3, p.boundary[1].resistance_distal)
        new = [old * (1 + s) for old, s in zip(where(problem), theta, strict=True)]
        solution = solve_flow1d(
            eqx.tree_at(where, problem, new), points=_POINTS, n_cycles=1, samples=20
        )
        return functionals(solution)

    value = eqx.filter_jit(run)
    theta = np.zeros(3)
    forward = eqx.filter_jit(jax.jacfwd(run))(jnp.asarray(theta), problem)
    reverse = eqx.filter_jit(jax.jacrev(run))(jnp.asarray(theta), problem)
    # The front that the inlet's first step sends out is short: differences converge below 1e-4.
    by_differences = differences(lambda x: value(jnp.asarray(x), problem), theta, step=2e-5)
    check_jacobian(np.asarray(forward), np.asarray(reverse), by_differences)
