"""Transient flow padded to buckets: the same answers, one program, no look at the padding."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import star, waveform
from test_padding import assert_close, compilations, poisoned

from jaxperf import (
    cut_solution,
    InputError,
    pad_problem,
    SavePoints,
    solve_flow1d,
    solve_periodic,
)
from jaxperf.flow1d import (
    ExternalPressure,
    flow1d_problem,
    Flow1DProblem,
    FlowState,
    initial_state,
    semidiscretise,
)
from jaxperf.flow1d._padding import _with_more_knots, sanitised_flow
from jaxperf.network import (
    CoronaryOutletSvZeroD,
    declare_lesion,
    PerfusedBed,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.steady import NetworkState
from jaxperf.vessel import Blood, OlufsenStiffness, SqrtAreaWall

_POINTS = SavePoints([0, 7], [0.3, 1.0])
_SAMPLES = 2


def tree_network(n_segments, seed, lesion):
    """A binary tree, numbered breadth first."""
    rng = np.random.default_rng(seed)
    child = np.arange(1, n_segments + 1)
    segment = np.stack([np.where(child == 1, 0, child // 2), child], axis=1)
    radius = 2e-3 * 0.85 ** np.log2(child)
    network = star(
        segment, np.stack([radius, 0.9 * radius], axis=1), rng.uniform(6e-3, 1.2e-2, n_segments)
    )
    if not lesion:
        return network
    end = 1e3 * float(network.length[1])
    return declare_lesion(
        network, branch="vessel 1", start_mm=0, end_mm=end, diameter_reduction=0.5
    )


def tree(n_segments, *, seed, period, knots, lesion) -> Flow1DProblem:
    rng = np.random.default_rng(seed)
    network = tree_network(n_segments, seed, lesion)
    leaf = np.asarray(network.terminals)
    each = lambda low, high: jnp.asarray(rng.uniform(low, high, len(leaf)))
    beat = waveform(lambda t: 1.2e4 + 2e3 * np.sin(2 * np.pi * t / period), period, knots)
    boundary = (
        PressureWaveform(jnp.array([0]), beat),
        WindkesselOutlet(
            jnp.asarray(leaf), each(5e9, 9e9), each(4e10, 6e10), each(2e-12, 4e-12), each(400, 600)
        ),
    )
    wall = SqrtAreaWall(OlufsenStiffness(), 9e3)
    return flow1d_problem(network, boundary, Blood(), wall, cell_time=2e-3)


@pytest.fixture(scope="module")
def pair():
    """Two patients of one bucket, the first with a lesion."""
    return (
        tree(43, seed=1, period=0.4, knots=27, lesion=True),
        tree(45, seed=2, period=0.41, knots=28, lesion=False),
    )


@eqx.filter_jit
@eqx.filter_value_and_grad(has_aux=True)
def answer(problem):
    """A number that all series enter, the solution, and the derivative of the first."""
    network = problem.network
    rest = NetworkState(jnp.full(network.n_nodes, 1.2e4), jnp.zeros(network.n_segments))
    start = initial_state(problem, rest)
    found = solve_flow1d(problem, points=_POINTS, samples=_SAMPLES, initial=start, throw=False)
    value = (
        jnp.sum(found.pressure_static) / 1e4
        + jnp.sum(found.flow) / 1e-6
        + jnp.sum(found.area) / 1e-6
    )
    return value, found


@pytest.fixture(scope="module")
def of_padded(pair):
    return answer(pad_problem(pair[0]))


@pytest.fixture(scope="module")
def spoiled(pair):
    """The first patient with NaN in everything that was added."""
    # More knots lie between the real ones: of waveforms only rows are added.
    problem, where = poisoned(pad_problem(pair[0]), _with_more_knots(pair[0]))
    assert len(where) == 15, where
    return problem


def inside(x, like):
    """The entries of x that a smaller array has too."""
    return np.asarray(x)[tuple(slice(0, n) for n in like.shape)]


def as_padded(problem):
    """The real problem with the steps and the knots of the padded one."""
    return dataclasses.replace(_with_more_knots(problem), n_steps=pad_problem(problem).n_steps)


def test_flow_and_its_derivatives_are_the_same_padded(pair, of_padded):
    real = as_padded(pair[0])
    (value, expected), slope = answer(real)
    (found_value, found), found_slope = of_padded
    assert_close(found_value, value)
    found = cut_solution(found, pair[0])
    for name in ("time", "pressure_static", "flow", "area", "passed", "state", "courant"):
        assert_close(getattr(found, name), getattr(expected, name))
    found_slope = dict(jax.tree_util.tree_leaves_with_path(found_slope))
    moved = 0
    for path, like in jax.tree_util.tree_leaves_with_path(slope):
        like, x = np.asarray(like), np.asarray(found_slope[path])
        if like.size:
            assert_close(inside(x, like), like)
            # Nothing depends on what was added.
            assert np.abs(x).sum() == pytest.approx(np.abs(like).sum(), rel=1e-9)
            moved += bool(np.abs(like).max() > 0)
    assert moved >= 10


def test_nothing_is_read_from_the_padding(spoiled, of_padded):
    assert_close(answer(spoiled), of_padded, 0.0)


def test_two_patients_run_one_program(pair, of_padded):
    assert pair[0].grid.n_slots != pair[1].grid.n_slots
    assert pair[0].n_steps != pair[1].n_steps
    with compilations() as count:
        jax.block_until_ready(answer(pad_problem(pair[1])))
    assert count == []


def test_periodic_flow_of_stacked_patients(pair, spoiled):
    """The steady start, the chord and the wave of each; NaN in the padding of the last."""
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(pad_problem(p) for p in pair), spoiled)
    solve = lambda p: solve_periodic(p, points=_POINTS, samples=_SAMPLES, throw=False)
    together = eqx.filter_jit(eqx.filter_vmap(solve))(stacked)
    first, _, last = (jax.tree.map(lambda x, i=i: x[i], together) for i in range(3))
    assert_close(last, first, 0.0)
    expected, found = solve(as_padded(pair[0])), cut_solution(first, pair[0])
    assert int(found.cycles) == int(expected.cycles) < 10
    for name in ("pressure_static", "flow", "area", "passed", "state"):
        assert_close(getattr(found, name), getattr(expected, name))


def coronaries():
    """Everything that a problem may have: beds, ladders, lesion, viscous wall, outer pressure."""
    network = tree_network(23, 3, True)
    leaf = jnp.asarray(np.asarray(network.terminals))
    n = leaf.shape[0] - 10
    each = lambda value, n: jnp.asarray(np.full(n, value))
    squeeze = lambda n: Waveform(
        np.linspace(0.0, 0.9, 10), np.random.default_rng(n).uniform(0.0, 5e3, (n, 10)), 1.0
    )
    boundary = (
        ResistanceOutlet(jnp.array([0]), each(1e8, 1), each(1.3e4, 1)),
        CoronaryOutletSvZeroD(
            leaf[:10], *(each(v, 10) for v in (5e9, 2e10, 2e10, 2e-12, 1e-11, 6e2)), squeeze(10)
        ),
        PerfusedBed(
            leaf[10:],
            *(each(v, n) for v in (5e9, 2e10, 2e-12, 1e-11)),
            jnp.asarray(5e-11 * np.eye(n) - 1e-12),
            each(1e-8, n),
            squeeze(n),
        ),
    )
    share = np.random.default_rng(4).uniform(0.0, 1.0, (1, network.n_segments, 2))
    return flow1d_problem(
        network,
        boundary,
        Blood(),
        SqrtAreaWall(OlufsenStiffness(), 9e3),
        cell_time=2e-3,
        pressure_external=ExternalPressure(squeeze(1), jnp.asarray(share)),
        wall_viscosity=3.0,
    )


def test_the_equations_are_the_same_padded():
    problem = coronaries()
    padded = pad_problem(problem)
    spoiled, where = poisoned(padded, _with_more_knots(problem))
    assert {".wall_viscosity", ".pressure_external.share"} < set(where)
    rng = np.random.default_rng(5)
    n = problem.grid.n_slots
    unloaded = eqx.filter_jit(lambda p: semidiscretise(p).cell_wall.area)
    lumen = np.asarray(unloaded(problem)) * rng.uniform(1.0, 1.3, n)
    cell = np.asarray(problem.grid.is_cell)
    real = FlowState(
        jnp.asarray(lumen),
        jnp.asarray(cell * rng.uniform(-1e-7, 1e-6, n)),
        jnp.zeros(problem.grid.n_nodes),
        tuple(
            jnp.asarray(rng.uniform(0.0, 1e4, (c.node.shape[0], q)))
            for c, q in zip(problem.boundary, (0, 2, 2), strict=True)
        ),
    )
    sizes = [c.node.shape[0] for c in padded.boundary]
    further = lambda x, n, fill: jnp.asarray(
        np.concatenate([x, np.full((n - len(x), *x.shape[1:]), fill)])
    )
    wide = FlowState(
        further(real.area, padded.grid.n_slots, 3e-6),
        further(real.flow, padded.grid.n_slots, 0.0),
        jnp.zeros(padded.grid.n_nodes),
        tuple(further(x, n, 0.0) for x, n in zip(real.outlet, sizes, strict=True)),
    )

    @eqx.filter_jit
    def rates(problem, y):
        equations, t = semidiscretise(sanitised_flow(problem)), jnp.asarray(0.37)
        return equations(t, y), equations.relaxation(y, jnp.asarray(1e-3)), equations.wave_rate(y)

    expected, found = rates(problem, real), rates(spoiled, wide)
    assert float(jnp.max(jnp.abs(expected[0].flow))) > 0
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        scale = np.abs(np.asarray(b)).max(initial=1e-300)
        np.testing.assert_allclose(inside(a, b), b, rtol=0, atol=1e-14 * scale)
    # What pads the problem stays at rest.
    for x, y in ((found[0].area, expected[0].area), (found[0].flow, expected[0].flow)):
        assert not np.asarray(x)[y.shape[0] :].any()
    for x, y in zip(found[0].outlet, expected[0].outlet, strict=True):
        assert not np.asarray(x)[y.shape[0] :].any()


def test_more_knots_are_the_same_function(pair):
    wave = pair[0].boundary[0].pressure
    more = pad_problem(pair[0]).boundary[0].pressure
    assert more.time.shape[0] > wave.time.shape[0]
    time = jnp.linspace(0.0, 0.8, 97)
    values = eqx.filter_jit(lambda w: jax.vmap(w)(time)[:, 0])
    assert_close((values(more), more.mean), (values(wave), wave.mean), 1e-14)

    def weighed(value, pad):
        at = lambda p: p.boundary[0].pressure.value
        problem = eqx.tree_at(at, pair[0], value)
        w = (pad_problem(problem) if pad else problem).boundary[0].pressure
        return jnp.sum(jnp.sin(time) * values(w))

    slopes = [
        jax.jit(jax.grad(weighed), static_argnums=1)(wave.value, pad) for pad in (True, False)
    ]
    assert_close(slopes[0], slopes[1], 1e-14)


def test_padding_twice_is_refused(pair):
    with pytest.raises(InputError, match="padded already"):
        pad_problem(pad_problem(pair[0]))
