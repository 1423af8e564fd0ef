"""Transient flow: what is conserved, what is exact, and what stops a run."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import advance, interpolated, star, volume, waveform
from helpers import data_dir, requires_data
from scipy.integrate import solve_ivp

from jaxperf import InputError
from jaxperf.flow1d import (
    ExternalPressure,
    flow1d_problem,
    FlowState,
    initial_state,
    SavePoints,
    semidiscretise,
    solve_periodic,
)
from jaxperf.network import (
    CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD,
    declare_lesion,
    FlowBoundary,
    FlowWaveform,
    PerfusedBed,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.steady import NetworkState, solve_steady, SteadyProblem
from jaxperf.vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    rigid_limit_wall,
    SqrtAreaWall,
    stenosis_coefficients,
)

_WALL = SqrtAreaWall(ConstantStiffness(6e4), 9e3)


def vector(*values):
    return jnp.array([float(v) for v in values])


def nodes(*values):
    return jnp.array(values, jnp.int32)


# --- rest -------------------------------------------------------------------------------------


def test_man_at_rest():
    """Steps and taper of A₀, stiffness that varies, external pressure along the vessels."""
    network = star(
        [(0, 1), (1, 2), (2, 3), (2, 4), (4, 5)],
        [(3e-3, 2e-3), (1.6e-3, 1.9e-3), (1.2e-3, 0.9e-3), (1.5e-3, 1.5e-3), (0.7e-3, 1.1e-3)],
        [0.03, 0.02, 0.03, 0.02, 0.03],
    )
    table = jnp.asarray(np.linspace(4e4, 9e4, 10).reshape(5, 2)[::-1].copy())
    share = np.random.default_rng(0).uniform(0.0, 1.0, (1, 5, 2))
    problem = flow1d_problem(
        network,
        (
            PressureBoundary(nodes(0), vector(1.2e4)),
            ResistanceOutlet(nodes(3), *map(vector, (1e9, 1.2e4))),
        ),
        Blood(),
        SqrtAreaWall(ConstantStiffness(table), 9e3),
        cell_time=3e-4,
        pressure_external=ExternalPressure(
            Waveform(np.zeros(1), np.full((1, 1), 3e3), 1.0), jnp.asarray(share)
        ),
    )

    @eqx.filter_jit
    def run(problem):
        state = NetworkState(jnp.full(network.n_nodes, 1.2e4), jnp.zeros(network.n_segments))
        start = initial_state(problem, state)
        equations = semidiscretise(problem)
        end = advance(equations, start, jnp.zeros(()), problem.time_step, 5000)
        return start, end, equations.cell_pressure(jnp.zeros(()), end)

    start, end, pressure = run(problem)
    is_cell = np.asarray(problem.grid.is_cell) > 0
    assert np.ptp(np.asarray(start.area)[is_cell]) > 1e-6
    assert np.max(np.abs(np.asarray(end.flow)[is_cell])) * 1e6 <= 1e-12
    assert np.allclose(np.asarray(pressure)[is_cell], 1.2e4, rtol=1e-12)


# --- mass and steady limits -------------------------------------------------------------------

_STIFF = rigid_limit_wall(300.0, 1060.0, pressure_reference=1.1e4)


def looped_network():
    """A lesion, a loop, a vessel shorter than a cell, and a junction of four."""
    network = star(
        [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4), (4, 5), (5, 6), (3, 7), (5, 8), (5, 9)],
        [
            (2e-3, 1.9e-3),
            (1.5e-3, 1.5e-3),
            (1.3e-3, 1.2e-3),
            (1.1e-3, 1e-3),
            (1e-3, 0.9e-3),
            (1.2e-3, 1.2e-3),
            (0.8e-3, 0.8e-3),
            (0.9e-3, 0.8e-3),
            (0.7e-3, 0.7e-3),
            (0.8e-3, 0.7e-3),
        ],
        [0.03, 0.04, 0.03, 0.02, 0.03, 0.0011, 0.02, 0.02, 0.02, 0.02],
        allow_loops=True,
    )
    return declare_lesion(
        network, branch="vessel 1", start_mm=15, end_mm=25, diameter_reduction=0.6
    )


@pytest.fixture(scope="module")
def looped():
    """Steady flow of the stiff network by both solvers; one program serves the tests below."""
    network, blood = looped_network(), Blood()
    outlets = [vector(*v) for v in ([3e9, 4e9, 5e9, 4e9], [1e9] * 4)]
    boundary = (
        PressureBoundary(nodes(0), vector(1.3e4)),
        ResistanceOutlet(nodes(6, 7, 8, 9), outlets[0], vector(0, 0, 0, 0)),
    )
    steady = solve_steady(SteadyProblem(network, boundary, blood, _STIFF))
    problem = flow1d_problem(network, boundary, blood, _STIFF, period=1.0, cell_time=2e-5)

    @eqx.filter_jit
    def run(problem, state, n):
        equations = semidiscretise(problem)
        end = advance(equations, initial_state(problem, state), jnp.zeros(()), problem.time_step, n)
        return (
            equations,
            end,
            equations(jnp.zeros(()), end).passed,
            equations.cell_pressure(jnp.zeros(()), end),
        )

    equations, end, outflow, pressure = run(
        problem, NetworkState(steady.pressure_total, steady.flow), 40_000
    )
    return problem, steady, equations, end, np.asarray(outflow), np.asarray(pressure)


def test_steady_flow_is_the_steady_solvers(looped):
    """Taper, loop, junction of four, and a vessel shorter than a cell, in the stiff limit."""
    problem, steady, _, _, outflow, _ = looped
    inertia = np.asarray(problem.grid.inertia)
    assert (inertia > 2).any() and (inertia == 1).any()
    place = {n: i for i, n in enumerate(np.asarray(problem.grid.node_network).tolist())}
    leaving = np.array([outflow[place[n]] for n in (6, 7, 8, 9)])
    last = [6, 7, 8, 9]
    segment = [
        int(np.flatnonzero(np.asarray(problem.network.segment_node)[:, 1] == n)[0]) for n in last
    ]
    assert np.allclose(leaving, np.asarray(steady.flow)[segment], rtol=1e-5, atol=0)
    assert np.isclose(-outflow[place[0]], leaving.sum(), rtol=1e-9, atol=0)


def test_no_mass_is_made_at_junctions(looped):
    problem, _, _, _, outflow, _ = looped
    number = np.asarray(problem.grid.node_network)
    inner = ~np.isin(number, [0, 6, 7, 8, 9])
    inflow = -outflow[number == 0][0]
    assert inner.sum() >= 5
    assert np.abs(outflow[inner]).max() <= 1e-12 * inflow


def at_end(problem, values, node, sign):
    """A value of cells extrapolated to the one end of a vessel that lies at a grid node."""
    grid = problem.grid
    row = int(np.flatnonzero(np.asarray(grid.end_sign)[:, node] == sign)[0])
    slot, beside = int(grid.end_slot[row, node]), int(grid.end_neighbour[row, node])
    return 1.5 * values[slot] - 0.5 * values[beside]


def test_lesion_loses_what_its_law_says(looped):
    problem, steady, _, end, _, pressure = looped
    lesion, network = problem.network.lesion, problem.network
    at = int(np.flatnonzero(np.asarray(problem.grid.node_network) < 0)[0])
    flow, area = np.asarray(end.flow), np.asarray(end.area)
    total = pressure + 0.5 * 4 / 3 * 1060.0 * (flow / area) ** 2
    found = at_end(problem, total, at, 1) - at_end(problem, total, at, -1)
    linear, quadratic = stenosis_coefficients(
        network.radius[lesion.segment[0], :1],
        lesion.diameter_reduction,
        lesion.length,
        3.5e-3,
        1060.0,
    )
    through = at_end(problem, flow, at, 1)
    assert through == pytest.approx(float(steady.flow[int(lesion.segment[0])]), rel=1e-5)
    expected = float(linear[0]) * through + float(quadratic[0]) * abs(through) * through
    assert expected > 300.0
    assert found == pytest.approx(expected, rel=1e-9)


def test_fractional_flow_reserve_is_the_steady_solvers(looped):
    """Static pressure behind the lesion's vessel, over the inlet's prescribed one."""
    problem, steady, _, _, _, pressure = looped
    network, number = problem.network, np.asarray(problem.grid.node_network)
    ends = np.asarray(network.segment_node)
    of_branch = np.asarray(network.branch) == network.branch_name.index("vessel 1")
    last = int(np.flatnonzero(of_branch & (ends[:, 1] == 2))[0])
    found = at_end(problem, pressure, int(np.flatnonzero(number == 2)[0]), 1) / 1.3e4
    assert found == pytest.approx(float(steady.pressure_static[last, 1]) / 1.3e4, rel=1e-6)


@pytest.fixture(scope="module")
def beat():
    """A cycle and a quarter through all that stores blood: walls, windkessel, ladders, bed."""
    network = star(
        [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (3, 6)],
        [(2e-3, 1.8e-3), *[(1.3e-3, 1.1e-3)] * 2, *[(0.9e-3, 0.8e-3)] * 3],
        [0.03, 0.02, 0.002, 0.02, 0.02, 0.02],
    )
    squeeze = waveform(lambda t: 8e3 * np.sin(np.pi * t) ** 4, 1.0, 21)
    both = Waveform(squeeze.time, jnp.concatenate([squeeze.value, 0.5 * squeeze.value]), 1.0)
    matrix = jnp.array([[1.2e-9, -3e-10], [-3e-10, 9e-10]])
    boundary = (
        FlowWaveform(nodes(0), waveform(lambda t: 4e-6 * (1 + np.sin(2 * np.pi * t)), 1.0, 41)),
        WindkesselOutlet(nodes(2), *map(vector, (8e8, 5e9, 2e-10, 400.0))),
        CoronaryOutletSvOneD(
            nodes(4), *map(vector, (2e9, 3e9, 1e9, 1e-11, 5e-11, -600.0)), squeeze
        ),
        PerfusedBed(
            nodes(5, 6),
            vector(2e9, 3e9),
            vector(2e9, 2e9),
            vector(1e-11, 2e-11),
            vector(4e-11, 3e-11),
            matrix,
            vector(5e-7, 4e-7),
            both,
        ),
    )
    problem = flow1d_problem(network, boundary, Blood(), _WALL, cell_time=1e-3, wall_viscosity=2.0)

    @eqx.filter_jit
    def run(problem):
        equations = semidiscretise(problem)
        grid = problem.grid
        start = FlowState(
            equations.cell_wall.lumen(jnp.full(grid.n_slots, 1e4)).area,
            jnp.zeros(grid.n_slots),
            jnp.zeros(grid.n_nodes),
            (
                jnp.zeros((1, 0)),
                jnp.full((1, 1), 9e3),
                jnp.full((1, 2), 8e3),
                jnp.full((2, 2), 6e3),
            ),
        )
        n = 5 * problem.n_steps // 4 + 1
        return equations, start, advance(equations, start, jnp.zeros(()), 1.25 / n, n)

    return problem, *run(problem)


def test_mass_over_cycles(beat):
    problem, equations, start, end = beat
    passed = np.asarray(end.passed)
    number = np.asarray(problem.grid.node_network)
    inflow = -passed[number == 0][0]
    assert inflow == pytest.approx(4e-6 * (1.25 + 0.5 / np.pi), rel=1e-2)
    stored = volume(equations, end.area) - volume(equations, start.area)
    assert abs(stored + passed.sum()) <= 1e-12 * inflow
    inner = np.isin(number, [1, 3])
    assert np.abs(passed[inner]).max() <= 1e-12 * inflow


# --- boundary conditions against ordinary differential equations -------------------------------


def cycle_ode(rate, start):
    """The state after one second."""
    found = solve_ivp(rate, (0.0, 1.0), start, rtol=1e-9, atol=1e-9, max_step=0.01)
    return found.y[:, -1]


@pytest.fixture(scope="module")
def outlets():
    """Seven short stiff vessels: six under one pressure, one under a flow, each with an outlet."""
    n = 7
    network = star(
        [(2 * i, 2 * i + 1) for i in range(n)],
        [(2e-3, 2e-3)] * n,
        [2e-3] * n,
        root=range(0, 2 * n, 2),
    )
    pressure = waveform(lambda t: 1.2e4 + 3e3 * np.sin(2 * np.pi * t), 1.0, 41)
    flow = waveform(lambda t: 3e-6 * (1 + np.sin(2 * np.pi * t)), 1.0, 41)
    squeeze = waveform(lambda t: 8e3 * np.sin(np.pi * t) ** 4, 1.0, 21)
    both = Waveform(squeeze.time, jnp.concatenate([squeeze.value, 0.5 * squeeze.value]), 1.0)
    six = Waveform(pressure.time, jnp.tile(pressure.value, (6, 1)), 1.0)
    boundary = (
        PressureWaveform(nodes(0, 2, 4, 6, 8, 10), six),
        FlowWaveform(nodes(12), flow),
        ResistanceOutlet(nodes(1), *map(vector, (4e9, 700.0))),
        WindkesselOutlet(nodes(3, 13), *(vector(v, v) for v in (5e8, 3e9, 2e-10, 400.0))),
        CoronaryOutletSvOneD(
            nodes(5), *map(vector, (2e9, 3e9, 1e9, 2e-11, 1e-10, -600.0)), squeeze
        ),
        CoronaryOutletSvZeroD(
            nodes(7), *map(vector, (2e9, 3e9, 1e9, 2e-11, 1e-10, 600.0)), squeeze
        ),
        PerfusedBed(
            nodes(9, 11),
            vector(2e9, 3e9),
            vector(2e9, 2e9),
            vector(2e-11, 3e-11),
            vector(6e-11, 5e-11),
            jnp.array([[1.2e-9, -3e-10], [-3e-10, 9e-10]]),
            vector(5e-7, 4e-7),
            both,
        ),
    )
    wall = rigid_limit_wall(30.0, 1060.0, pressure_reference=1.2e4)
    problem = flow1d_problem(network, boundary, Blood(), wall, cell_time=1e-4)

    @eqx.filter_jit
    def run(problem):
        equations = semidiscretise(problem)
        grid = problem.grid
        state = [jnp.zeros((c.node.shape[0], 0)) for c in boundary[:3]]
        state += [jnp.full((2, 1), 9e3), jnp.full((1, 2), 8e3), jnp.full((1, 2), 8e3)]
        start = FlowState(
            equations.cell_wall.lumen(jnp.full(grid.n_slots, 1.2e4)).area,
            jnp.zeros(grid.n_slots),
            jnp.zeros(grid.n_nodes),
            (*state, jnp.full((2, 2), 6e3)),
        )
        end = advance(equations, start, jnp.zeros(()), 4e-5, 25_000)
        return end, equations(jnp.ones(()), end).passed

    end, outflow = run(problem)
    place = {n: i for i, n in enumerate(np.asarray(problem.grid.node_network).tolist())}
    leaving = lambda n: float(outflow[place[n]])
    return end, leaving, *(interpolated(w) for w in (pressure, flow, both))


def test_resistance_and_pressure_inlet(outlets):
    _, outflow, pressure, _, _ = outlets
    assert outflow(1) == pytest.approx((pressure(1.0)[0] - 700.0) / 4e9, rel=2e-3)


@pytest.mark.parametrize("row", [0, 1], ids=["pressure inlet", "flow inlet"])
def test_windkessel(outlets, row):
    end, outflow, pressure, flow, _ = outlets
    inflow = lambda t, p: flow(t)[0] if row else (pressure(t)[0] - p) / 5e8
    rate = lambda t, p: (inflow(t, p[0]) - (p - 400.0) / 3e9) / 2e-10
    expected = cycle_ode(rate, [9e3])
    assert np.allclose(np.asarray(end.outlet[3])[row], expected, rtol=1e-3)
    assert outflow(3 if row == 0 else 13) == pytest.approx(inflow(1.0, expected[0]), rel=2e-3)


def ladder_rate(pressure, around, R1, R2, Ca, Ct, matrix, inflow):
    """Rates of a and θ = π − p_im, outlets one after another."""

    def rate(t, y):
        a, tissue = y[::2], y[1::2] + around(t)
        through = (a - tissue) / R2
        out = np.empty_like(y)
        out[::2] = ((pressure(t) - a) / R1 - through) / Ca
        out[1::2] = (through - matrix @ tissue + inflow) / Ct
        return out

    return rate


@pytest.mark.parametrize("kind, node", [(4, 5), (5, 7)], ids=["svOneD", "svZeroD"])
def test_coronary_outlets(outlets, kind, node):
    """The sink is −P_ref in one convention and P_v in the other: the same circuit here."""
    end, outflow, pressure, _, both = outlets
    drain, sink = np.array([[1e-9]]), 600.0
    rate = ladder_rate(pressure, lambda t: both(t)[:1], 2e9, 3e9, 2e-11, 1e-10, drain, sink / 1e9)
    expected = cycle_ode(rate, [8e3, 8e3])
    assert np.allclose(np.asarray(end.outlet[kind])[0], expected, rtol=1e-3)
    assert outflow(node) == pytest.approx((pressure(1.0)[0] - expected[0]) / 2e9, rel=2e-3)


def test_perfused_bed_with_a_dense_matrix(outlets):
    end, outflow, pressure, _, both = outlets
    matrix = np.array([[1.2e-9, -3e-10], [-3e-10, 9e-10]])
    R1, R2 = np.array([2e9, 3e9]), np.array([2e9, 2e9])
    Ca, Ct = np.array([2e-11, 3e-11]), np.array([6e-11, 5e-11])
    rate = ladder_rate(pressure, both, R1, R2, Ca, Ct, matrix, np.array([5e-7, 4e-7]))
    expected = cycle_ode(rate, [6e3] * 4)
    assert np.allclose(np.asarray(end.outlet[6]).ravel(), expected, rtol=1e-3)
    for i, node in enumerate((9, 11)):
        q = (pressure(1.0)[0] - expected[2 * i]) / R1[i]
        assert outflow(node) == pytest.approx(q, rel=2e-3)


@pytest.mark.slow
@requires_data
def test_svzerod_resistance_and_coronary():
    """R as a short stiff vessel of light blood: its inertia and compliance act by 3e-4."""
    folder = data_dir() / "svzerod_coronary"
    case = json.loads((folder / "pulsatileFlow_R_coronary.json").read_text())
    result = json.loads((folder / "result_pulsatileFlow_R_coronary.json").read_text())
    inlet, outlet = (c["bc_values"] for c in case["boundary_conditions"])
    # cm³/s and dyn s/cm⁵ into SI; the result's pressures are dyn/cm²
    flow = Waveform(np.array(inlet["t"][:-1]), 1e-6 * np.array(inlet["Q"][:-1])[None], 1.0)
    resist = [vector(1e5 * outlet[name]) for name in ("Ra1", "Ra2", "Rv1")]
    store = [vector(1e-5 * outlet[name]) for name in ("Ca", "Cc")]
    around = Waveform(np.zeros(1), 0.1 * np.array([outlet["Pim"][:1]]), 1.0)
    coronary = CoronaryOutletSvZeroD(nodes(1), *resist, *store, vector(0.1 * outlet["P_v"]), around)
    target = 1e5 * case["vessels"][0]["zero_d_element_values"]["R_poiseuille"]
    length, density = 0.01, 0.45
    radius = (8 * 3.5e-3 * length / (np.pi * target)) ** 0.25
    problem = flow1d_problem(
        star([(0, 1)], [(radius, radius)], [length]),
        (FlowWaveform(nodes(0), flow), coronary),
        Blood(density),
        rigid_limit_wall(360.0, density, pressure_reference=100.0),
        cell_time=1.1e-5,
        boundary_pressure="static",
    )

    found = solve_periodic(
        problem, points=SavePoints(np.array([0]), np.array([0.5])), samples=200, tolerance=1e-8
    )
    last = np.array([float(t) for t in result["time"].values()]) > 29.0 + 1e-6
    series = lambda name: np.array(list(result[name].values()))[last]
    middle = 0.05 * (series("pressure_in") + series("pressure_out"))
    mine = np.asarray(found.pressure_static[:, 0])
    assert np.max(np.abs(mine - middle)) <= 1e-3 * np.max(np.abs(middle))
    q_out = 1e-6 * series("flow_out")
    assert np.max(np.abs(np.asarray(found.flow[:, 0]) - q_out)) <= 1e-3 * np.max(q_out)
    passed = np.asarray(found.passed[-1])
    # Over a periodic cycle nothing is kept: what comes in goes out.
    assert abs(passed.sum()) <= 1e-6 * np.abs(passed).max()


def test_slow_volume_of_vessels_and_outlets_together():
    """Both empty over 4 s, so that cycles of 0.4 s alone would take some hundred."""
    radius, modulus, peripheral = 5e-3, 4e4, 4e8
    network = star([(0, 1)], [(radius, radius)], [0.4])
    store = 0.4 * 2.0 * np.pi * radius**2 / modulus
    flow = Waveform(np.linspace(0.0, 0.4, 9)[:-1], 2e-5 * np.eye(8)[1:2], 0.4)
    outlet = WindkesselOutlet(nodes(1), *map(vector, (2e7, peripheral, store, 0.0)))
    problem = flow1d_problem(
        network,
        (FlowWaveform(nodes(0), flow), outlet),
        Blood(),
        SqrtAreaWall(ConstantStiffness(0.75 * modulus), 1e3),
        cell_time=4e-3,
    )
    points = SavePoints(np.array([0]), np.array([0.5]))
    full, low = initial_state(problem), 0.7 * jnp.mean(flow.value) * peripheral
    empty = initial_state(problem, NetworkState(jnp.full(2, low), jnp.zeros(1)))
    empty = eqx.tree_at(lambda y: y.outlet[1], empty, jnp.full((1, 1), low))
    counts = []
    count = lambda *said: counts.append(said)
    pressure = []
    # in one program, and with the host between the cycles
    for start, progress in ((full, None), (empty, count)):
        found = solve_periodic(problem, points=points, initial=start, samples=20, progress=progress)
        assert found.cycles <= 15 and found.change <= 1e-6
        drained = jnp.mean(found.flow[:, 0])
        assert abs(drained - jnp.mean(flow.value)) <= 0.01 * jnp.mean(flow.value)
        pressure.append(found.pressure_static)
    np.testing.assert_allclose(*pressure, rtol=1e-5)
    assert counts == [(done, 100) for done in range(1, int(found.cycles) + 1)]
    with pytest.raises(InputError, match="progress was given under a transformation"):
        jax.jit(lambda y: solve_periodic(problem, points=points, initial=y, progress=count))(empty)


# --- vessels shorter than a cell, junctions, external pressure ---------------------------------


@eqx.filter_jit
def settled(problem, pressure, seconds):
    """Flow out of every node and pressure in the cells, from rest under one pressure."""
    equations, grid = semidiscretise(problem), problem.grid
    start = FlowState(
        equations.cell_wall.lumen(jnp.full(grid.n_slots, pressure)).area,
        jnp.zeros(grid.n_slots),
        jnp.zeros(grid.n_nodes),
        tuple(jnp.zeros((c.node.shape[0], 0)) for c in problem.boundary),
    )
    n = round(seconds / problem.time_step)
    end = advance(equations, start, jnp.zeros(()), problem.time_step, n)
    t = jnp.asarray(seconds)
    return equations(t, end).passed, equations.profile(t, end).pressure


def test_vessels_shorter_than_a_cell_keep_their_resistance():
    """Two vessels of 0.3 mm radius, one shorter than a cell, against Poiseuille."""
    network = star([(0, 1), (2, 3)], [(3e-4, 3e-4)] * 2, [1e-3, 2e-2], root=(0, 2))
    wall = rigid_limit_wall(30.0, 1060.0, pressure_reference=1e4)
    boundary = (
        PressureBoundary(nodes(0, 2), vector(1.001e4, 1.001e4)),
        ResistanceOutlet(nodes(1, 3), vector(1e9, 1e9), vector(1e4, 1e4)),
    )
    problem = flow1d_problem(network, boundary, Blood(), wall, period=1.0, cell_time=1e-4)
    assert np.asarray(problem.grid.inertia).max() > 5
    outflow, _ = settled(problem, 1e4, 0.5)
    found = -np.asarray(outflow)[[0, 2]]
    own = 8 * 3.5e-3 * np.array([1e-3, 2e-2]) / (np.pi * 3e-4**4)
    assert np.allclose(found, 10.0 / (1e9 + own), rtol=1e-4, atol=0)


@pytest.mark.parametrize("mode", ["total", "static"])
def test_junction_pressure(mode):
    """Steady flow through a wide and a narrow vessel: which pressure is continuous."""
    network = star(
        [(0, 1), (1, 2), (1, 3)], [(3e-3, 3e-3), (1.5e-3, 1.5e-3), (1e-3, 1e-3)], [0.05] * 3
    )
    wall = rigid_limit_wall(30.0, 1060.0, pressure_reference=1e4)
    boundary = (
        FlowBoundary(nodes(0), vector(8e-6)),
        ResistanceOutlet(nodes(2, 3), vector(1e9, 3e9), vector(3e3, 3e3)),
    )
    problem = flow1d_problem(
        network, boundary, Blood(), wall, period=1.0, cell_time=3e-4, junction_pressure=mode
    )
    outflow, pressure = (np.asarray(x) for x in settled(problem, 1e4, 0.6))
    flow = np.array([8e-6, outflow[2], outflow[3]])
    first, last = np.asarray(problem.grid.vessel_slot).T
    # in the gaps beside a vessel stand the pressures of its ends
    ends = [pressure[last[0] + 1], *pressure[first[1:] - 1]]
    area = np.pi * np.array([3e-3, 1.5e-3, 1e-3]) ** 2
    area = area * (1 + (np.array(ends) - 1e4) / (1060 * 30.0**2))
    head = 0.5 * 4 / 3 * 1060 * (flow / area) ** 2
    assert np.ptp(head) > 100
    assert np.ptp(np.array(ends) + (head if mode == "total" else 0)) <= 1e-2 * np.ptp(head)


def test_external_pressure_adds_to_the_pressure_inside():
    """The same pressure around all vessels, in the outlets and at the inlet moves nothing."""
    network = star([(0, 1)], [(2e-3, 1.5e-3)], [0.05])

    def run(around):
        external = ExternalPressure(
            Waveform(np.zeros(1), np.full((1, 1), around), 1.0), jnp.ones((1, 1, 2))
        )
        boundary = (
            PressureBoundary(nodes(0), vector(1.2e4 + around)),
            ResistanceOutlet(nodes(1), vector(2e9), vector(2e3 + around)),
        )
        problem = flow1d_problem(
            network, boundary, Blood(), _WALL, cell_time=1e-3, pressure_external=external
        )
        return settled(problem, 1e4 + 0.0 * around, 0.3)

    (outflow, pressure), (squeezed, raised) = run(0.0), run(4e3)
    # Both start from other areas; what is left of that after 0.3 s is below 1e-6.
    assert np.allclose(outflow, squeezed, rtol=1e-6, atol=0)
    inside = slice(2, -1)
    assert np.allclose(np.asarray(raised)[inside] - np.asarray(pressure)[inside], 4e3, atol=0.1)


def test_voigt_wall_damps_a_wave_at_its_rate():
    """A closed, frictionless vessel: the first mode decays at ½νk², ν = Γ/(ρ√A₀)."""
    length, radius, gamma = 0.1, 2e-3, 0.06
    network = star([(0, 1)], [(radius, radius)], [length])
    boundary = (FlowBoundary(nodes(0), vector(0)), FlowBoundary(nodes(1), vector(0)))
    blood = Blood(1060.0, ConstantViscosity(1e-9))
    problem = flow1d_problem(
        network, boundary, blood, _WALL, period=1.0, cell_time=2.5e-4, wall_viscosity=gamma
    )

    @eqx.filter_jit
    def run(problem):
        equations, grid = semidiscretise(problem), problem.grid
        mode = jnp.cos(jnp.pi * grid.cell_fraction)
        lumen = equations.cell_wall.lumen(9e3 + 10.0 * mode)
        empty = tuple(jnp.zeros((1, 0)) for _ in boundary)
        start = FlowState(lumen.area, jnp.zeros(grid.n_slots), jnp.zeros(grid.n_nodes), empty)
        speed = jnp.sqrt(2.0 / 3.0 * 6e4 / 1060.0)
        # Two whole oscillations.
        stop = 2.0 * 2.0 * length / speed
        n = jnp.ceil(stop / problem.time_step)
        end = advance(equations, start, jnp.zeros(()), stop / n, n.astype(jnp.int32))
        pressure = equations.cell_pressure(jnp.zeros(()), end) - 9e3
        is_cell = grid.is_cell
        return stop, jnp.sum(is_cell * pressure * mode) / jnp.sum(is_cell * 10.0 * mode**2)

    stop, left = (float(x) for x in run(problem))
    nu = gamma / (1060.0 * np.sqrt(np.pi) * radius)
    assert np.log(left) == pytest.approx(-0.5 * nu * (np.pi / length) ** 2 * stop, rel=0.03)
