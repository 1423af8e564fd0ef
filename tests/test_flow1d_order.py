"""Orders of convergence of transient flow, in space and in time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import advance, cell_lengths, star

from jaxperf.flow1d import flow1d_problem, FlowState, initial_state, semidiscretise
from jaxperf.flow1d._exact import travelling_wave
from jaxperf.network import FlowBoundary, PressureBoundary, ResistanceOutlet
from jaxperf.steady import NetworkState, solve_steady, SteadyProblem
from jaxperf.vessel import Blood, ConstantStiffness, OlufsenStiffness, SqrtAreaWall, SvOneDWall

_one = lambda *values: [jnp.array([v]) for v in values]


def orders(errors):
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


def at_pressure(problem, equations, pressure):
    """All vessels at rest under one pressure."""
    grid = problem.grid
    return FlowState(
        equations.cell_wall.lumen(jnp.full(grid.n_slots, pressure)).area,
        jnp.zeros(grid.n_slots),
        jnp.zeros(grid.n_nodes),
        tuple(jnp.zeros((c.node.shape[0], 0)) for c in problem.boundary),
    )


def manufactured_error(wall, cell_time):
    """Relative errors of pressure-like area and flow after one period."""
    length, radius, blood = 0.1, (3.2e-3, 2.6e-3), Blood()
    exact = travelling_wave(wall, blood, length, radius)
    problem = flow1d_problem(
        star([(0, 1)], [radius], [length]),
        (FlowBoundary(*_one(0, 0.0)), PressureBoundary(*_one(1, 0.0))),
        blood,
        wall,
        period=1.0,
        cell_time=cell_time,
        boundary_pressure="static",
    )

    @eqx.filter_jit
    def run(problem, n):
        equations = semidiscretise(problem)
        x = problem.grid.cell_fraction * length
        is_cell = problem.grid.is_cell
        at = lambda f, t: jax.vmap(lambda x: f(x, t))(x)

        def field(t, y, args):
            ends = (exact.flow(0.0, t)[None], exact.pressure(length, t)[None])
            where = lambda e: (e.forms[0].flow, e.forms[1].pressure)
            rate = eqx.tree_at(where, equations, ends)(t, y)
            mass, momentum = at(exact.sources, t)
            add = lambda f, s: f + is_cell * s
            new = (add(rate.area, mass), add(rate.flow, momentum))
            return eqx.tree_at(lambda r: (r.area, r.flow), rate, new)

        zero = jnp.zeros(())
        start = at_pressure(problem, equations, 1e4)
        start = eqx.tree_at(
            lambda y: (y.area, y.flow), start, (at(exact.area, zero), at(exact.flow, zero))
        )
        stop = jnp.asarray(0.025)
        y = advance(equations, start, zero, stop / n, n, field)
        return equations, y, at(exact.area, stop), at(exact.flow, stop)

    equations, y, area, flow = run(problem, round(0.025 / (0.4 * cell_time)))
    width = cell_lengths(equations)
    norm = lambda e: np.sqrt(np.sum(width * np.asarray(e) ** 2))
    wave = 0.1 * np.asarray(area)
    return norm(y.area - area) / norm(wave), norm(y.flow - flow) / norm(flow)


@pytest.mark.parametrize(
    "wall, grids",
    [
        pytest.param(SqrtAreaWall(ConstantStiffness(6e4), 9e3), (1e-3, 5e-4, 2.5e-4), id="sqrt"),
        pytest.param(
            SvOneDWall(OlufsenStiffness()), (5e-4, 2.5e-4), id="svoned", marks=pytest.mark.slow
        ),
    ],
)
def test_manufactured_solution_second_order(wall, grids):
    area, flow = zip(*(manufactured_error(wall, tau) for tau in grids), strict=True)
    assert orders(area).min() >= 1.9, area
    assert orders(flow).min() >= 1.9, flow
    assert area[-1] <= 5e-3 and flow[-1] <= 5e-3


def fork_problem(cell_time):
    """Three vessels of 5, 6 and 7 ms, so that coarse cells hold two fine ones exactly."""
    stiffness, blood = 5e4, Blood()
    speed = np.sqrt(2 / 3 * stiffness / 1060.0)
    wall = SqrtAreaWall(ConstantStiffness(stiffness), 9e3)
    radius = [(3e-3, 3e-3), (2.2e-3, 2.2e-3), (1.9e-3, 1.9e-3)]
    network = star([(0, 1), (1, 2), (1, 3)], radius, speed * np.array([5e-3, 6e-3, 7e-3]))
    outlet = [jnp.array(v) for v in ([2, 3], [6e8, 8e8], [9e3, 9e3])]
    boundary = (FlowBoundary(*_one(0, 0.0)), ResistanceOutlet(*outlet))
    return flow1d_problem(network, boundary, blood, wall, period=1.0, cell_time=cell_time)


def pulse_through_fork(cell_time):
    """Area and flow in all cells once a smooth pulse has been reflected and has passed."""
    problem = fork_problem(cell_time)

    @eqx.filter_jit
    def run(problem, n):
        equations = semidiscretise(problem)

        def field(t, y, args):
            inflow = 1.2e-5 * jnp.sin(jnp.pi * jnp.clip(t / 0.012, 0.0, 1.0)) ** 4
            at = eqx.tree_at(lambda e: e.forms[0].flow, equations, inflow[None])
            return at(t, y)

        stop = jnp.asarray(0.014)
        start = at_pressure(problem, equations, 9e3)
        return advance(equations, start, jnp.zeros(()), stop / n, n, field)

    y = run(problem, round(0.014 / (0.4 * cell_time)))
    is_cell = np.asarray(problem.grid.is_cell) > 0
    assert is_cell.sum() == round(0.018 / cell_time)
    return np.asarray(y.area)[is_cell], np.asarray(y.flow)[is_cell]


def test_flow_through_a_junction_second_order():
    coarse, middle, fine = (pulse_through_fork(tau) for tau in (1.25e-4, 6.25e-5, 3.125e-5))
    halve = lambda x: 0.5 * (x[::2] + x[1::2])
    for field in (0, 1):
        # The mean of the error: at the crest of the pulse the limiter costs half an order.
        change = [
            np.mean(np.abs(a[field] - halve(b[field])))
            for a, b in ((coarse, middle), (middle, fine))
        ]
        assert orders(change)[0] >= 1.8, change


@pytest.mark.slow
def test_time_step_ten_times_the_friction_limit():
    """A vessel of 50 µm: friction relaxes at 1.1e4/s, explicit Heun would stop at h = 0.19 ms."""
    wall = SqrtAreaWall(ConstantStiffness(1e5), 9e3)
    network = star([(0, 1)], [(50e-6, 50e-6)], [0.25])
    boundary = (PressureBoundary(*_one(0, 0.0)), ResistanceOutlet(*_one(1, 1e14, 9e3)))
    problem = flow1d_problem(network, boundary, Blood(), wall, period=1.0, cell_time=4e-3)
    limit = 2.0 / (8 * 3.5e-3 / (1060.0 * (50e-6) ** 2))

    @eqx.filter_jit
    def run(problem, n):
        equations = semidiscretise(problem)

        def field(t, y, args):
            inlet = 9e3 + 2e3 * jnp.sin(2 * jnp.pi * t / 0.3) ** 2
            at = eqx.tree_at(lambda e: e.forms[0].pressure, equations, inlet[None])
            return at(t, y)

        start = at_pressure(problem, equations, 9e3)
        stop = jnp.asarray(0.2)
        y = advance(equations, start, jnp.zeros(()), stop / n, n, field)
        return y, jnp.max(1.0 / equations.relaxation(start, 0.2 / n).flow) - 1.0

    fine, _ = run(problem, 16_000)
    is_cell = np.asarray(problem.grid.is_cell) > 0
    errors = []
    for n in (100, 800, 1600):
        y, stiffness = run(problem, n)
        assert n > 100 or (0.2 / n >= 10 * limit and stiffness > 20)
        of = lambda a, b: np.linalg.norm((a - b)[is_cell]) / np.linalg.norm(np.asarray(b)[is_cell])
        errors.append((float(of(y.area - 7.8e-9, fine.area - 7.8e-9)), of(y.flow, fine.flow)))
    area, flow = zip(*errors, strict=True)
    # Under strong damping the order sets in slowly; what matters there is that it stays stable.
    assert area[0] <= 1e-3 and flow[0] <= 3e-2
    assert orders(area)[1] >= 1.85 and orders(flow)[1] >= 1.85, (area, flow)


def chain(n_segments):
    """A tapering course of many segments, so that the steady solver's own error is small."""
    edge = np.linspace(3e-3, 1.2e-3, n_segments + 1)
    node = [(i, i + 1) for i in range(n_segments)]
    return star(node, np.stack([edge[:-1], edge[1:]], 1), np.full(n_segments, 0.2 / n_segments))


def steady_limit(problem, state, seconds):
    """Where the flow settles that starts from steady flow."""

    @eqx.filter_jit
    def run(problem, state, n):
        equations = semidiscretise(problem)
        h = problem.time_step
        end = advance(equations, initial_state(problem, state), jnp.zeros(()), h, n)
        return equations(jnp.zeros(()), end).passed

    return run(problem, state, round(seconds / problem.time_step))


def test_steady_limit_second_order():
    """An elastic taper under a large drop: areas differ from the unloaded ones by up to 20 %."""
    network, blood = chain(64), Blood()
    wall = SqrtAreaWall(ConstantStiffness(3e4), 9e3)
    boundary = (
        PressureBoundary(*_one(0, 1.3e4)),
        ResistanceOutlet(*_one(64, 1e9, 5e3)),
    )
    steady = solve_steady(SteadyProblem(network, boundary, blood, wall))
    state = NetworkState(steady.pressure_total, steady.flow)
    errors = []
    for tau in (5e-3, 2.5e-3):
        problem = flow1d_problem(network, boundary, blood, wall, period=1.0, cell_time=tau)
        outflow = np.asarray(steady_limit(problem, state, 4.0))
        assert abs(outflow.sum()) <= 1e-9 * outflow.max()
        errors.append(abs(outflow.max() - float(steady.flow[0])) / float(steady.flow[0]))
    assert errors[1] <= 1e-3 and orders(errors)[0] >= 1.8, errors
