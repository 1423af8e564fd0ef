"""Pressure wire, pull-back and territory flow on networks small enough to check by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem
from helpers import central_difference
from test_observe import _network, FLOW, P_AORTIC, PRESSURE

from jaxperf import InputError
from jaxperf.network import parent_segment
from jaxperf.observe import (
    fractional_flow_reserve,
    Observations,
    pressure_wire,
    pull_back,
    territory_flow,
)


def seen(flow, pressure, n_cells=1):
    """Observations of one state, hyperemia, without tissue to speak of."""
    state = lambda x: {"hyperemia": x}
    aortic = jnp.asarray(P_AORTIC)
    ratio = fractional_flow_reserve(pressure, aortic)
    cells, segments = jnp.zeros(n_cells), jnp.zeros(17)
    return Observations(state(aortic), state(flow), state(ratio), state(cells), state(segments))


OBSERVED = seen(FLOW, PRESSURE)


class TestPressureWire:
    # the main runs over segment 2 (10 mm) and segment 1 (20 mm)
    @pytest.mark.parametrize(
        ("branch", "at_mm", "pressure"),
        [
            ("LM", 0.0, 12000.0),
            ("LM", 4.0, 11920.0),
            ("LM", 10.0, 11800.0),
            ("LM", 15.0, 11650.0),
            ("LM", 30.0, 11500.0),
            ("LAD", 10.0, 10500.0),
            ("LAD", 40.0, 9000.0),
        ],
    )
    def test_linear_within_a_segment(self, branch, at_mm, pressure):
        wire = pressure_wire(_network(), branch, at_mm)
        assert float(wire(OBSERVED)) == pytest.approx(pressure / P_AORTIC, rel=1e-13)
        ratio = wire.ratio(PRESSURE, P_AORTIC)
        assert float(ratio) == pytest.approx(pressure / P_AORTIC, rel=1e-13)

    def test_gradient_by_hand_and_by_differences(self):
        wire = pressure_wire(_network(), "LAD", 10.0)

        def ffr(pressure, aortic):
            return wire.ratio(pressure, aortic)

        aortic = jnp.asarray(P_AORTIC)
        slope = jax.jit(jax.grad(ffr, (0, 1)))(PRESSURE, aortic)
        expected = np.zeros((4, 2))
        expected[0] = np.array([0.75, 0.25]) / P_AORTIC
        np.testing.assert_allclose(slope[0], expected, rtol=1e-13)
        differences = central_difference(lambda p: ffr(p, aortic), PRESSURE, 1e-5)
        np.testing.assert_allclose(slope[0], differences, rtol=1e-8, atol=1e-13)
        assert float(slope[1]) == pytest.approx(-10500.0 / P_AORTIC**2, rel=1e-13)

    def test_as_an_argument_of_a_program_and_in_float32(self):
        wire = pressure_wire(_network(), "LM", 4.0)
        found = jax.jit(lambda wire, observed: wire(observed))(wire, OBSERVED)
        assert float(found) == pytest.approx(11920.0 / P_AORTIC, rel=1e-13)
        single = wire.ratio(PRESSURE.astype(jnp.float32), P_AORTIC)
        assert single.dtype == jnp.float32

    def test_what_does_not_exist(self):
        network = _network()
        with pytest.raises(InputError, match=r"'OM1'.*LM, LAD, LCx, RCA"):
            pressure_wire(network, "OM1", 1.0)
        with pytest.raises(InputError, match=r"40.5 mm does not lie.*0 to 40.00 mm"):
            pressure_wire(network, "LAD", 40.5)
        with pytest.raises(InputError, match=r"no state 'rest'.*hyperemia"):
            pressure_wire(network, "LAD", 1.0)(OBSERVED, "rest")


class TestPullBack:
    def test_arc_and_ratio_follow_the_branch(self):
        draw = pull_back(_network(), "LM")
        np.testing.assert_array_equal(draw.segment, [2, 1])
        np.testing.assert_allclose(draw.arc, [[0.0, 0.01], [0.01, 0.03]], rtol=1e-14)
        np.testing.assert_allclose(draw.arc_mm, [[0.0, 10.0], [10.0, 30.0]], rtol=1e-14)
        expected = np.asarray(PRESSURE)[[2, 1]] / P_AORTIC
        np.testing.assert_allclose(draw.ratio(PRESSURE, P_AORTIC), expected, rtol=1e-15)
        np.testing.assert_allclose(draw(OBSERVED), expected, rtol=1e-15)

    def test_from_the_root(self):
        draw = pull_back(_network(), "LAD", from_root=True)
        np.testing.assert_array_equal(draw.segment, [2, 1, 0])
        np.testing.assert_allclose(draw.arc_mm[:, 1], [10.0, 30.0, 70.0], rtol=1e-13)
        assert float(draw.begins) == pytest.approx(0.03, rel=1e-14)
        assert float(pull_back(_network(), "LAD").begins) == 0.0

    def test_it_ends_where_a_wire_does(self):
        draw = pull_back(_network(), "LAD")
        end = pressure_wire(_network(), "LAD", float(draw.arc_mm[-1, 1]))
        assert float(draw(OBSERVED)[-1, 1]) == pytest.approx(float(end(OBSERVED)), rel=1e-14)

    def test_it_is_differentiable(self):
        draw = pull_back(_network(), "LAD")
        slope = jax.jit(jax.grad(lambda p: jnp.sum(draw.ratio(p, P_AORTIC))))(PRESSURE)
        expected = np.zeros((4, 2))
        expected[0] = 1.0 / P_AORTIC
        np.testing.assert_allclose(slope, expected, rtol=1e-15)

    def test_an_unknown_branch_is_named(self):
        with pytest.raises(InputError, match="'OM1'"):
            pull_back(_network(), "OM1")


class TestTerritoryFlow:
    def test_territories_share_what_the_terminals_give(self):
        problem, _ = small_problem(spacing_mm=5.0, n_terminals=9)
        network = problem.network
        flow = jnp.asarray(np.random.default_rng(0).uniform(1e-8, 2e-8, network.n_segments))
        observed = seen(flow, jnp.full((network.n_segments, 2), P_AORTIC))
        into = parent_segment(network)[np.asarray(problem.tissue.terminal_node)]
        # the tree's root vessel is no left main: the whole tree is one territory
        lone = territory_flow(problem, "stem")
        total = float(np.asarray(flow)[into].sum()) * 60e6
        assert float(lone(observed)) == pytest.approx(total, rel=1e-12)
        slope = jax.grad(lambda o: lone(o), allow_int=True)(observed).flow["hyperemia"]
        expected = np.zeros(network.n_segments)
        expected[into] = 60e6
        np.testing.assert_allclose(slope, expected, rtol=1e-12)
        with pytest.raises(InputError, match=r"no territory 'LAD'.*stem"):
            territory_flow(problem, "LAD")
