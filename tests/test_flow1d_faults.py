"""Runs of transient flow: what stops them, what they refuse, how they are stepped and saved."""

import re

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import star, waveform

from jaxperf import InputError, RESULTS, SolveError
from jaxperf.flow1d import (
    flow1d_problem,
    FlowState,
    initial_state,
    make_grid,
    SavePoints,
    semidiscretise,
    solve_flow1d,
    solve_periodic,
)
from jaxperf.flow1d._taper import steep_taper
from jaxperf.network import (
    FlowBoundary,
    PerfusedBed,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
)
from jaxperf.vessel import (
    Blood,
    ConstantStiffness,
    RigidWall,
    SqrtAreaWall,
)

_WALL = SqrtAreaWall(ConstantStiffness(6e4), 9e3)


def vector(*values):
    return jnp.array([float(v) for v in values])


def nodes(*values):
    return jnp.array(values, jnp.int32)


def pipe(**options):
    """One vessel between a pressure and a resistance: the shape of the tests below."""
    network = star([(0, 1)], [(2e-3, 1.5e-3)], [0.06], branch_name=("LAD",))
    pressure = waveform(lambda t: 1.1e4 + 1e3 * np.sin(2 * np.pi * t / 0.1), 0.1, 21)
    boundary = (
        PressureWaveform(nodes(0), pressure),
        ResistanceOutlet(nodes(1), vector(2e9), vector(5e3)),
    )
    return flow1d_problem(network, boundary, Blood(), _WALL, **{"cell_time": 1e-3, **options})


_POINTS = SavePoints(np.array([0, 0, 0]), np.array([0.0, 0.4, 1.0]))


@eqx.filter_jit
def start_of(problem):
    grid = problem.grid
    area = semidiscretise(problem).cell_wall.lumen(jnp.full(grid.n_slots, 1.1e4)).area
    empty = tuple(jnp.zeros((1, 0)) for _ in problem.boundary)
    return FlowState(area, jnp.zeros(grid.n_slots), jnp.zeros(grid.n_nodes), empty)


def run_pipe(problem, **options):
    start = options.pop("initial", None) or start_of(problem)
    return solve_flow1d(problem, points=_POINTS, **{"samples": 5, "initial": start, **options})


def swing(problem, factor):
    """The inlet's swing about 11 kPa times a factor."""
    value = problem.boundary[0].pressure.value
    new = 1.1e4 + factor * (value - 1.1e4)
    return eqx.tree_at(lambda p: p.boundary[0].pressure.value, problem, new)


def suction(problem):
    """An outlet of little resistance into far less than the vessel's pressure."""
    where = lambda p: (p.boundary[1].resistance, p.boundary[1].pressure_ref)
    return eqx.tree_at(where, problem, (vector(1e7), vector(-2e4)))


FAULTS = {
    "collapse": (lambda p: swing(p, -100.0), "no open lumen|faster than"),
    "supercritical": (suction, "faster than"),
    "long step": (
        lambda p: eqx.tree_at(lambda q: q.wall.stiffness.Eh_over_r, p, jnp.asarray(9e5)),
        "time step is too long",
    ),
    "not finite": (lambda p: swing(p, np.nan), "not finite"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault_names_vessel_and_time_and_returns_no_nan(name):
    change, sentence = FAULTS[name]
    problem = pipe()
    start = start_of(problem)
    bad = change(problem)
    solution = run_pipe(bad, initial=start, throw=False)
    assert solution.result != RESULTS.successful
    for field in jax.tree.leaves(eqx.filter(solution, eqx.is_inexact_array)):
        assert np.isfinite(np.asarray(field)).all()
    last = max(int(solution.failed_at) - 1, 0)
    for series in (solution.pressure_static, solution.flow, solution.area):
        stays = np.asarray(series)[last:]
        assert len(stays) > 1 and (stays == stays[:1]).all()
    with pytest.raises(SolveError, match=rf"({sentence}).* LAD \(vessel 0.* at t = 0\.\d+ s"):
        run_pipe(bad, initial=start)


def test_a_run_without_steady_flow_to_start_from():
    """It ends before its first step, and says so in its result or as an error."""
    bad = suction(pipe())
    solution = solve_flow1d(bad, points=_POINTS, samples=5, throw=False)
    assert solution.result == RESULTS.no_steady_start
    assert solution.failed_at == 0
    assert (solution.flow == 0.0).all()
    for field in jax.tree.leaves(eqx.filter(solution, eqx.is_inexact_array)):
        assert np.isfinite(np.asarray(field)).all()
    with pytest.raises(SolveError, match="No steady flow was found to start from"):
        solve_flow1d(bad, points=_POINTS, samples=5)
    with pytest.raises(SolveError, match="No steady flow was found to start from"):
        initial_state(bad)
    solution = solve_periodic(bad, points=_POINTS, samples=5, throw=False)
    assert solution.result == RESULTS.no_steady_start
    assert np.isfinite(np.asarray(solution.flow)).all()


def test_progress_is_refused_where_a_derivative_would_lack_the_cycles():
    """Without jit, grad leaves what it does not follow concrete: all cycles would run unseen."""
    problem = pipe()

    def mean(scale):
        wider = eqx.tree_at(lambda p: p.network.radius, problem, problem.network.radius * scale)
        report = lambda done, most: None
        return solve_periodic(wider, points=_POINTS, samples=5, progress=report).flow.mean()

    one = jnp.asarray(1.0)
    for differentiated in (jax.grad(mean), lambda x: jax.jvp(mean, (x,), (x,))):
        with pytest.raises(InputError, match="progress was given under a transformation"):
            differentiated(one)


def test_a_controller_that_runs_out_of_steps():
    """The run stays at the sample it had reached."""
    controller = diffrax.PIDController(rtol=1e-7, atol=1e-12)
    problem = pipe()
    with pytest.raises(SolveError, match="controller of the step size reached its largest number"):
        run_pipe(problem, controller=controller, max_steps=3)
    solution = run_pipe(problem, controller=controller, max_steps=3, throw=False)
    assert solution.result == RESULTS.controller_gave_up
    reached = int(solution.failed_at)
    assert reached == 0
    late = np.asarray(solution.flow)
    assert len(late) == 5 and (late == late[0]).all()


def test_series_at_points():
    """Pressure is linear between middles of cells, also over the last half; flow is the faces'."""
    problem = pipe()
    solution = run_pipe(problem, n_cycles=2)
    assert solution.time.shape == (10,) and np.isclose(solution.time[-1], 0.2)
    assert solution.pressure_static.shape == solution.flow.shape == solution.area.shape == (10, 3)
    state, grid = solution.state, problem.grid
    first, last = (int(slot) for slot in grid.vessel_slot[0])
    middle = np.asarray(grid.cell_fraction)[first : last + 1]
    area = np.asarray(state.area)[first : last + 1]
    assert solution.area[-1, 1] == pytest.approx(np.interp(0.4, middle, area), rel=1e-9)
    # Cells of one length: the faces lie between their middles and at the ends.
    face = np.concatenate([[0.0], 0.5 * (middle[1:] + middle[:-1]), [1.0]])
    shown = semidiscretise(problem).profile(jnp.asarray(0.2), state)
    flow = np.asarray(shown.flow)[first : last + 2]
    np.testing.assert_allclose(solution.flow[-1], np.interp([0.0, 0.4, 1.0], face, flow), rtol=1e-9)
    end = np.asarray(shown.pressure)[[first - 1, last + 1]]
    np.testing.assert_allclose(np.asarray(solution.pressure_static)[-1, [0, 2]], end, rtol=1e-9)
    assert 0 < float(solution.courant) < 0.95


@pytest.mark.parametrize("solver", [None, diffrax.Heun()], ids=["RelaxedHeun", "Heun"])
def test_controllers_agree_with_equal_steps(solver):
    problem = pipe()
    equal = run_pipe(problem)
    controller = diffrax.PIDController(rtol=1e-7, atol=1e-13)
    adaptive = run_pipe(problem, method=solver, controller=controller)
    for field in ("pressure_static", "flow"):
        a, b = (np.asarray(getattr(s, field)) for s in (adaptive, equal))
        assert np.max(np.abs(a - b)) <= 5e-3 * np.max(np.abs(b)), field


BAD = {
    "cell_time": (lambda: pipe(cell_time=0.0), "cell_time is 0.0"),
    "cfl": (lambda: pipe(cfl=1.5), "cfl is 1.5"),
    "wall_viscosity": (lambda: pipe(wall_viscosity=-1.0), "wall_viscosity is -1.0"),
    "period": (lambda: pipe(period=0.3), "the waveforms have the periods"),
    "fraction": (lambda: SavePoints(np.array([0]), np.array([1.2])), "a fraction is 1.2"),
    "segment": (
        lambda: solve_flow1d(pipe(), points=SavePoints(np.array([4]), np.array([0.5]))),
        "there is no segment 4",
    ),
    "samples": (lambda: run_pipe(pipe(), samples=0), "samples is 0"),
    "n_cycles": (lambda: run_pipe(pipe(), n_cycles=0), "n_cycles 0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make, message = BAD[name]
    with pytest.raises(InputError, match=re.escape(message)):
        make()


def test_a_rigid_wall_is_refused():
    network = star([(0, 1)], [(2e-3, 2e-3)], [0.05])
    boundary = (PressureBoundary(nodes(0), vector(1e4)),)
    with pytest.raises(InputError, match="infinite speed"):
        make_grid(network, boundary, Blood(), RigidWall())


def test_a_perfused_bed_needs_its_state():
    network = star([(0, 1)], [(2e-3, 2e-3)], [0.05])
    bed = PerfusedBed(
        nodes(1), *map(vector, (1e9, 1e9, 1e-11, 1e-11)), jnp.eye(1) * 1e-9, vector(0)
    )
    boundary = (PressureBoundary(nodes(0), vector(1e4)), bed)
    problem = flow1d_problem(network, boundary, Blood(), _WALL, period=1.0, cell_time=1e-3)
    with pytest.raises(InputError, match="outlets of a perfused bed"):
        initial_state(problem)


# --- precision and platforms ------------------------------------------------------------------


def single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree)


def test_single_precision():
    """With x64 off, the error against double precision is below 1e-3 of the largest value."""
    problem = pipe()
    start = start_of(problem)
    expected = run_pipe(problem, initial=start)
    with jax.enable_x64(False):
        found = run_pipe(single(problem), initial=single(start), throw=False)
        assert found.result == RESULTS.successful
        assert found.flow.dtype == found.pressure_static.dtype == jnp.float32
        fields = {n: np.asarray(getattr(found, n)) for n in ("pressure_static", "flow", "area")}
    for name, value in fields.items():
        exact = np.asarray(getattr(expected, name))
        assert np.max(np.abs(value - exact)) <= 1e-3 * np.max(np.abs(exact)), name


@pytest.mark.parametrize("verb", [solve_flow1d, solve_periodic])
def test_lowers_for_every_platform_without_callbacks(verb):
    problem = pipe()
    arrays, rest = eqx.partition((problem, start_of(problem)), eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)

    def run(*leaves):
        problem, start = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
        solution = verb(problem, points=_POINTS, samples=5, initial=start, throw=False)
        return jax.tree.leaves(eqx.filter(solution, eqx.is_array))

    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(*leaves)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    called = re.findall(r"custom_call @([\w.]+)", exported.mlir_module())
    assert not [name for name in called if "callback" in name]


def tapered(narrow, length, cell_time):
    """A vessel, a taper from 3 mm, and the vessel behind it; a steady inflow of 1 ml/s."""
    network = star(
        [(0, 1), (1, 2), (2, 3)],
        [(2e-3, 2e-3), (3e-3, narrow), (2e-3, 2e-3)],
        [0.1, length, 0.1],
        branch_name=("a", "short", "b"),
    )
    boundary = (
        FlowBoundary(nodes(0), vector(1e-6)),
        ResistanceOutlet(nodes(3), vector(1e10), vector(0.0)),
    )
    return flow1d_problem(network, boundary, Blood(), _WALL, cell_time=cell_time, period=0.1)


@pytest.mark.parametrize("slot_of", [0, 1, 2])
def test_a_taper_within_one_cell_is_named_with_its_radii(slot_of):
    problem = tapered(3e-4, 2e-3, 1e-3)
    slot = int(problem.grid.vessel_slot[slot_of, 0])
    said = steep_taper(problem, slot)
    assert said.startswith("Within one cell of short (vessel 1, segment 1) the radius goes from 3 ")
    assert said.endswith("to 0.3 mm.")
    assert steep_taper(tapered(2e-3, 2e-3, 1e-3), slot) == ""


def test_a_taper_over_many_cells_is_not_steep():
    problem = tapered(3e-4, 0.2, 1e-3)
    assert steep_taper(problem, int(problem.grid.vessel_slot[1, 0])) == ""


def test_a_run_that_a_taper_ends_says_so():
    problem = tapered(3e-4, 2e-3, 1e-3)
    points = SavePoints(np.array([0]), np.array([0.0]))
    with pytest.raises(SolveError, match=r"too much within one cell .* of short .* from 3 to 0\.3"):
        solve_flow1d(problem, points=points, samples=5, initial=start_of(problem))
