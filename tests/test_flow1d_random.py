"""Random networks: every one either finishes and keeps its mass, or stops with a vessel's name.

Compilation is what a network costs. Networks of one *plan* (topology, cells of each vessel, kinds
of outlets) share a program; radii, stiffness, lengths, lesions, outlets and inflow are drawn.
"""

from functools import cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import star, volume
from hypothesis import given, HealthCheck, settings, strategies as st

from jaxperf import RESULTS, SolveError
from jaxperf.flow1d import (
    flow1d_problem,
    FlowState,
    SavePoints,
    semidiscretise,
    solve_flow1d,
)
from jaxperf.network import (
    CoronaryOutletSvOneD,
    FlowWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.vessel import Blood, ConstantStiffness, SqrtAreaWall

_TAU, _PERIOD, _REST = 1e-3, 0.02, 9e3
_RUNS = {"valid": 0, "invalid": 0}


class Plan:
    """What networks of one program share."""

    def __init__(self, seed, n_vessels):
        rng = np.random.default_rng(seed)
        node = [(0, 1)]
        while len(node) < n_vessels:
            leaves = [n for _, n in node if all(n != a for a, _ in node)]
            at = leaves[int(rng.integers(len(leaves)))]
            for _ in range(int(rng.integers(2, 4))):
                node.append((at, len(node) + 1))
        self.n_tree = len(node)
        leaves = [n for _, n in node if all(n != a for a, _ in node)]
        # A loop: a collateral between two leaves, which stop being leaves.
        if len(leaves) > 4:
            node.append((leaves[0], leaves[-1]))
            leaves = leaves[1:-1]
        self.node, self.leaves = node, np.array(leaves)
        self.cells = rng.integers(1, 4, len(node))
        self.short = rng.random(len(node)) < 0.15
        self.short[0], self.short[-1] = False, True
        self.kind = rng.integers(0, 3, len(leaves))
        self.kind[:3] = [0, 1, 2]

    def draw(self, rng, wild):
        """A problem of this plan; `wild` draws go to where vessels close or choke."""
        n = len(self.node)
        radius = np.empty((n, 2))
        radius[0] = np.exp(rng.uniform(np.log(1e-3), np.log(15e-3)))
        into = {0: radius[0, 0]}
        for i, (a, b) in enumerate(self.node):
            first = max(1e-4, into[a] * rng.uniform(0.5, 0.95)) if i else radius[0, 0]
            radius[i] = first, max(1e-4, first * rng.uniform(0.8, 1.0))
            into.setdefault(b, radius[i, 1])
        stiffness = np.exp(rng.uniform(np.log(3e4), np.log(3e5)))
        speed = np.sqrt(2 / 3 * stiffness / 1060.0)
        time = np.where(
            self.short, rng.uniform(0.1, 0.9, n), self.cells + rng.uniform(0.05, 0.9, n)
        )
        network = star(self.node, radius, speed * _TAU * time, allow_loops=True)
        # Mean velocity up to 0.3 m/s in the inlet; a wild one is past the wave speed.
        velocity = rng.uniform(4.0, 9.0) * speed if wild else rng.uniform(0.02, 0.3)
        inflow = np.pi * radius[0, 0] ** 2 * velocity
        beat = np.linspace(0, _PERIOD, 9)[:-1]
        flow = inflow * (1 + rng.uniform(0, 0.5) * np.sin(2 * np.pi * beat / _PERIOD))
        boundary = (
            FlowWaveform(jnp.array([0]), Waveform(beat, flow[None], _PERIOD)),
            *self._outlets(rng, inflow, radius),
        )
        wall = SqrtAreaWall(ConstantStiffness(stiffness), _REST)
        return flow1d_problem(network, boundary, Blood(), wall, cell_time=_TAU, cfl=0.4)

    def _outlets(self, rng, inflow, radius):
        def values(kind, low, high):
            at = self.leaves[self.kind == kind]
            end = {b: r for (_, b), (_, r) in zip(self.node[: self.n_tree], radius, strict=False)}
            share = np.array([end[n] ** 3 for n in at])
            share = share / sum(end[n] ** 3 for n in self.leaves)
            return jnp.asarray(np.exp(rng.uniform(np.log(low), np.log(high), len(at))) / share)

        # A mean pressure of some kPa over the outlets; wild flows would burst nothing by it.
        unit = 3e3 / min(inflow, 0.3 * np.pi * radius[0, 0] ** 2)
        at = lambda kind: jnp.asarray(self.leaves[self.kind == kind])
        like = lambda kind, v: jnp.full(int((self.kind == kind).sum()), v)
        yield ResistanceOutlet(at(0), unit * values(0, 0.3, 2.0), like(0, 6e3))
        R1, R2 = unit * values(1, 0.05, 0.3), unit * values(1, 0.3, 2.0)
        yield WindkesselOutlet(at(1), R1, R2, 0.3 / R2, like(1, 6e3))
        Ra, Rm, Rv = (unit * values(2, 0.05, 0.7) for _ in range(3))
        Ca, Cim = 0.02 / Rm, 0.1 / Rv
        squeeze = np.array([0.0, rng.uniform(0, 8e3), 0.0, 0.0])
        squeeze = np.tile(squeeze, (len(np.asarray(Ra)), 1))
        around = Waveform(np.linspace(0, _PERIOD, 5)[:-1], squeeze, _PERIOD)
        yield CoronaryOutletSvOneD(at(2), Ra, Rm, Rv, Ca, Cim, like(2, -5e3), around)


@cache
def plan(seed, n_vessels):
    return Plan(seed, n_vessels)


@eqx.filter_jit
def rest(problem):
    grid = problem.grid
    area = semidiscretise(problem).cell_wall.lumen(jnp.full(grid.n_slots, _REST)).area
    columns = (0, 0, 1, 2)
    outlet = tuple(
        jnp.full((c.node.shape[0], q), 0.9 * _REST)
        for c, q in zip(problem.boundary, columns, strict=True)
    )
    return FlowState(area, jnp.zeros(grid.n_slots), jnp.zeros(grid.n_nodes), outlet)


def check(plan, seed, wild):
    problem = plan.draw(np.random.default_rng(seed), wild)
    points, start = SavePoints(np.array([0]), np.array([0.5])), rest(problem)
    solve = lambda throw: solve_flow1d(
        problem, points=points, n_cycles=2, samples=5, initial=start, throw=throw
    )
    solution = solve(False)
    for field in (solution.pressure_static, solution.flow, solution.area, solution.passed):
        assert np.isfinite(np.asarray(field)).all()
    if solution.result == RESULTS.successful:
        _RUNS["valid"] += 1
        equations = eqx.filter_jit(semidiscretise)(problem)
        passed = np.asarray(solution.state.passed)
        stored = volume(equations, solution.state.area) - volume(equations, start.area)
        assert abs(stored + passed.sum()) <= 1e-12 * np.abs(passed).max() + 1e-15 * volume(
            equations, start.area
        )
        known = np.asarray(problem.grid.node_network)
        bounded = np.isin(known, [0, *plan.leaves])
        assert np.abs(passed[~bounded]).max() <= 1e-12 * np.abs(passed).max()
    else:
        _RUNS["invalid"] += 1
        with pytest.raises(SolveError, match=r"vessel \d+ .* at t = 0\.\d+ s\."):
            solve(True)


_SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@pytest.mark.slow
@settings(max_examples=60, **_SETTINGS)
@given(seed=st.integers(0, 2**31 - 1))
def test_sixty(seed):
    check(plan(1, 12), seed, wild=False)


@pytest.mark.slow
def test_wild_inflow_stops_with_a_vessels_name():
    before = dict(_RUNS)
    for seed in range(5):
        check(plan(1, 12), seed, wild=True)
    assert _RUNS["invalid"] - before["invalid"] == 5


@pytest.mark.slow
def test_two_hundred():
    before = dict(_RUNS)

    @settings(max_examples=220, **_SETTINGS)
    @given(seed=st.integers(0, 2**31 - 1), which=st.integers(0, 3))
    def run(seed, which):
        check(plan(which, (8, 20, 40, 58)[which]), seed, wild=False)

    run()
    valid, invalid = (_RUNS[k] - before[k] for k in ("valid", "invalid"))
    assert valid + invalid >= 200
    assert valid >= 0.95 * (valid + invalid), (valid, invalid)
