"""Blood that hardly moves: the scale of a residual is neither zero nor its own rounding."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem

from jaxperf import Blood, build_network, RESULTS, solve_steady, SqrtAreaWall, SteadyProblem
from jaxperf.coupling import solve_perfusion
from jaxperf.network import FlowBoundary, PressureBoundary, ResistanceOutlet
from jaxperf.vessel import OlufsenStiffness, RigidWall

RIGID, ELASTIC = RigidWall(), SqrtAreaWall(OlufsenStiffness(), 12000.0)
# Pa; the last is no difference at all
DIFFERENCES = (1e-3, 1e-6, 0.0)


def fork():
    """A stem with a very short wide segment, and two branches."""
    position = np.array([[0, 0, 0], [20, 0, 0], [20.1, 0, 0], [50, 10, 0], [50, -10, 0]]) * 1e-3
    segment = np.array([[0, 1], [1, 2], [2, 3], [2, 4]])
    radius = np.array([2.0, 2.0, 1.9, 1.2, 1.0]) * 1e-3
    return build_network(position, segment, radius, root=np.array([0]), frame="model")


def steady(network, wall, outlet, level, difference):
    """Flow under a small difference of pressure, on a level."""
    high = PressureBoundary(0, jnp.atleast_1d(level + difference))
    end, at = network.terminals, jnp.full(2, level)
    low = ResistanceOutlet(end, jnp.full(2, 1e10), at) if outlet else PressureBoundary(end, at)
    return solve_steady(SteadyProblem(network, (high, low), Blood(), wall), throw=False)


@pytest.mark.parametrize(("wall", "outlet"), [(RIGID, True), (ELASTIC, True), (ELASTIC, False)])
def test_steady_flow_near_rest_is_linear(wall, outlet):
    at = functools.partial(steady, fork(), wall, outlet)

    @eqx.filter_jit
    def found(level, difference):
        first = lambda d: at(level, d).flow[0]
        solution = at(level, difference)
        forward, reverse = jax.jacfwd(first)(difference), jax.grad(first)(difference)
        return solution.result, solution.flow[0], forward, reverse

    for level in (0.0, 1e4, -50.0):
        slope = float(found(level, jnp.asarray(1.0))[2])
        for difference in DIFFERENCES:
            result, flow, *derivatives = found(level, jnp.asarray(difference))
            assert result == RESULTS.successful
            # rounding of the level, the quadratic terms of the wall and the head at 1 Pa
            allowed = slope * (1e-11 * abs(level) + 1e-4 * difference)
            assert abs(float(flow) - slope * difference) <= allowed
            assert [float(d) for d in derivatives] == pytest.approx([slope] * 2, rel=1e-4)


def test_steady_inflow_near_rest():
    network = fork()
    for inflow in (1e-12, 1e-18, 0.0):
        inlet = FlowBoundary(0, jnp.array([inflow]))
        outlet = ResistanceOutlet(network.terminals, jnp.full(2, 1e10), jnp.full(2, 1e4))
        found = solve_steady(SteadyProblem(network, (inlet, outlet), Blood(), ELASTIC))
        np.testing.assert_allclose(found.flow[:2], inflow, atol=1e-20, rtol=1e-6)


@pytest.mark.parametrize("wall", [RIGID, ELASTIC])
def test_a_heart_near_rest_is_linear(wall):
    problem, _ = small_problem(scale=0.7)
    problem = eqx.tree_at(lambda p: p.wall, problem, wall)

    @eqx.filter_jit
    def found(difference):
        def into(d):
            level = problem.microcirculation.pressure_sink + jnp.atleast_1d(d)
            moved = eqx.tree_at(lambda p: p.boundary[0].pressure, problem, level)
            solution = solve_perfusion(moved, throw=False)
            return jnp.sum(solution.terminal_flow), solution.result

        (flow, result), slope = jax.value_and_grad(into, has_aux=True)(difference)
        return result, flow, slope

    slope = float(found(jnp.asarray(1.0))[2])
    for difference in DIFFERENCES:
        result, flow, derivative = found(jnp.asarray(difference))
        assert result == RESULTS.successful
        assert abs(float(flow) - slope * difference) <= slope * (3e-9 + 2e-4 * difference)
        assert float(derivative) == pytest.approx(slope, rel=1e-3)
