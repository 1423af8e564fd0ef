"""Lesions over junctions and occlusions, against exact laws and a dense witness."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem
from networks import dense_steady, taper_resistance

from jaxperf import (
    InputError,
    RESULTS,
    solve_perfusion,
    solve_steady,
    SolveError,
    SteadyProblem,
)
from jaxperf.flow1d import flow1d_problem
from jaxperf.network import (
    build_network,
    declare_lesion,
    FlowBoundary,
    junctions_in_lesions,
    PressureBoundary,
    ResistanceOutlet,
    without_lesions,
)
from jaxperf.network._reach import pressure_reaches
from jaxperf.report._lesions import occlusion_warnings
from jaxperf.report._schema import LesionFlow
from jaxperf.vessel import Blood, ConstantStiffness, SqrtAreaWall

RADIUS, INLET, VENOUS = 1.5e-3, 12400.0, 2e3
MU, RHO = 3.5e-3, 1060.0


def fork(side_mm=15.0):
    """LAD of 10 mm segments to 40 mm, D1 of 20 mm leaving it at `side_mm`, one calibre."""
    at = sorted({0.0, 10.0, 20.0, 30.0, 40.0, side_mm})
    k = at.index(side_mm)
    main = 1e-3 * np.array([[x, 0, 0] for x in at])
    n = len(main)
    chain = [(i, i + 1) for i in range(n - 1)]
    return build_network(
        np.concatenate([main, 1e-3 * np.array([[side_mm, 20.0, 0.0]])]),
        np.array([*chain, (k, n)]),
        np.full(n + 1, RADIUS),
        root=np.array([0]),
        frame="model",
        branch=np.array([0] * (n - 1) + [1]),
        branch_name=("LAD", "D1"),
    )


def flow_in(network, resistance=(6e9, 9e9)):
    tips = np.array([network.outlet("LAD"), network.outlet("D1")], np.int32)
    outlet = ResistanceOutlet(tips, np.array(resistance), np.full(2, VENOUS))
    return SteadyProblem(network, (PressureBoundary(network.roots, np.array([INLET])), outlet))


def stenosis(reduction, length):
    """R and S of Young and Tsai on top of Poiseuille, from the formulas."""
    d, area, s = 2 * RADIUS, np.pi * RADIUS**2, reduction
    kv = lambda s: 32 * (0.83 * length + 1.64 * d * (1 - s)) / d / (1 - s) ** 4
    linear = (kv(s) - kv(0.0)) * MU / (d * area)
    return linear, 0.5 * 1.52 * RHO * ((1 / (1 - s) ** 2 - 1) / area) ** 2


@pytest.mark.parametrize("interval", [(5.0, 25.0), (15.0, 25.0)])
def test_a_lesion_over_a_junction_agrees_with_a_dense_newton(interval):
    a, b = interval
    network = declare_lesion(fork(), branch="LAD", start_mm=a, end_mm=b, diameter_reduction=0.65)
    linear, quadratic = stenosis(0.65, 1e-3 * (b - a))
    node, length = np.asarray(network.segment_node), np.asarray(network.length)
    x = 1e3 * np.asarray(network.node_position)[node][:, :, 0]
    on_main = np.asarray(network.branch) == 0
    inside = on_main & (x.min(axis=1) >= a - 1e-6) & (x.max(axis=1) <= b + 1e-6)
    share = np.where(inside, length / (1e-3 * (b - a)), 0.0)
    plain = np.array([taper_resistance(RADIUS, RADIUS, z) for z in length])
    tips = [network.outlet("LAD"), network.outlet("D1")]
    pressure, flow = dense_steady(
        network.n_nodes,
        node,
        plain + share * linear,
        share * quadratic,
        {0: INLET},
        {tips[0]: (6e9, VENOUS), tips[1]: (9e9, VENOUS)},
    )
    found = solve_steady(flow_in(network))
    assert share.sum() == pytest.approx(1.0)
    assert np.allclose(found.flow, flow, rtol=1e-9)
    assert np.allclose(found.pressure_total, pressure, rtol=1e-9)
    strictly = [x.branch for x in junctions_in_lesions(network)]
    assert strictly == (["D1"] if a < 15.0 < b else [])


def test_where_a_side_branch_leaves_a_lesion_is_said():
    network = declare_lesion(fork(), branch="LAD", start_mm=5, end_mm=25, diameter_reduction=0.5)
    network = declare_lesion(network, branch="D1", start_mm=0, end_mm=5, diameter_reduction=0.3)
    (found,) = junctions_in_lesions(network)
    assert (found.lesion, found.branch) == (0, "D1")
    assert found.arc_mm == pytest.approx(10.0)


@pytest.mark.parametrize("interval", [(20.0, 30.0), (5.0, 25.0)])
def test_behind_an_occlusion_lies_the_pressure_of_its_outlets(interval):
    """Before the junction both outlets lose their inflow, behind it one does."""
    a, b = interval
    network = declare_lesion(fork(), branch="LAD", start_mm=a, end_mm=b, diameter_reduction=1.0)
    found = solve_steady(flow_in(network))
    closed = np.asarray(network.lesion.segment)[np.asarray(network.lesion.closes)]
    assert closed.shape == (1,) and abs(float(found.flow[closed[0]])) < 1e-18
    behind = float(found.pressure_static[network.lesion.segment[-1], 1])
    assert behind == pytest.approx(VENOUS, rel=1e-12)
    side = float(found.flow[np.flatnonzero(np.asarray(network.branch) == 1)[0]])
    if a < 15.0:
        assert abs(side) < 1e-18
    else:
        resistance = sum(taper_resistance(RADIUS, RADIUS, z) for z in (0.015, 0.02)) + 9e9
        assert side == pytest.approx((INLET - VENOUS) / resistance, rel=1e-9)


def test_gradients_about_an_occlusion_are_finite_and_those_of_the_rest():
    network = declare_lesion(fork(), branch="LAD", start_mm=20, end_mm=30, diameter_reduction=1.0)

    def side_flow(radius):
        problem = flow_in(eqx.tree_at(lambda n: n.radius, network, radius))
        return 1e6 * solve_steady(problem).flow[np.asarray(network.branch) == 1][0]

    slope = np.asarray(jax.grad(side_flow)(network.radius))
    assert np.isfinite(slope).all()
    above = np.asarray(network.lesion.segment)[0]
    x = np.asarray(network.node_position)[np.asarray(network.segment_node)][:, :, 0]
    dead = (x.min(axis=1) >= 0.015 - 1e-9) & (np.asarray(network.branch) == 0)
    assert dead[above] and np.abs(slope[dead]).max() == 0.0
    assert (np.abs(slope[~dead]) > 0.0).all()
    # and they are central differences, along a direction that changes every radius by its own share
    way = np.random.default_rng(3).uniform(-1.0, 1.0, slope.shape) * np.asarray(network.radius)
    moved = [float(side_flow(network.radius + jnp.asarray(h * way))) for h in (1e-4, -1e-4)]
    assert float((slope * way).sum()) == pytest.approx((moved[0] - moved[1]) / 2e-4, rel=1e-6)


def test_an_occluded_heart_is_the_limit_of_a_narrow_one():
    problem, _ = small_problem(scale=0.5, reduction=1.0)
    closed = solve_perfusion(problem)
    lesion = problem.network.lesion
    through = np.asarray(closed.flow)[np.asarray(lesion.segment)[np.asarray(lesion.closes)]]
    inflow = np.asarray(closed.flow)[0]
    assert abs(through[0]) < 1e-15 * inflow
    near = eqx.tree_at(lambda p: p.network.lesion.diameter_reduction, problem, jnp.array([0.995]))
    narrow = solve_perfusion(near)
    assert np.allclose(closed.mbf, narrow.mbf, atol=2e-4 * float(np.max(narrow.mbf)))
    # the tissue feeds what the vessel does not: blood leaves it into the vessel and comes back
    behind = np.asarray(lesion.segment)[-1]
    ratio = float(closed.pressure_static[behind, 1]) / float(closed.pressure_total[0])
    assert 0.0 < ratio < 0.5
    opened = solve_perfusion(
        eqx.tree_at(lambda p: p.network, problem, without_lesions(problem.network))
    )
    assert float(opened.flow[0]) > 1.2 * inflow


def test_gradients_of_an_occluded_heart_are_finite():
    problem, _ = small_problem(scale=0.5, reduction=1.0)

    def mean_flow(beta):
        bed = eqx.tree_at(lambda b: b.beta_source, problem.microcirculation, beta)
        found = solve_perfusion(eqx.tree_at(lambda p: p.microcirculation, problem, bed))
        return jnp.mean(found.mbf) / jnp.mean(jax.lax.stop_gradient(found.mbf))

    beta = jnp.asarray(problem.microcirculation.beta_source)
    slope = float(jax.grad(mean_flow)(beta)) * float(beta)
    assert 0.0 < slope < 1.0


def test_waves_know_no_occlusion_but_a_lesion_over_a_junction():
    wall = SqrtAreaWall(ConstantStiffness(6e4), 9e3)
    problem = lambda network: flow1d_problem(
        network, flow_in(network).boundary, Blood(), wall, period=0.8, cell_time=1e-3
    )
    lesion = {"branch": "LAD", "start_mm": 5, "end_mm": 25}
    with pytest.raises(InputError, match="an occlusion closes LAD"):
        problem(declare_lesion(fork(), **lesion, diameter_reduction=1.0))
    for side_mm in (15.0, 12.0):  # the middle of the lesion is the junction, and is not
        grid = problem(declare_lesion(fork(side_mm), **lesion, diameter_reduction=0.5)).grid
        assert (np.asarray(grid.end_lesion) == 0).sum() == 1
        assert (np.asarray(grid.node_network) == -1).sum() == 1


def test_the_summary_says_what_an_occlusion_means():
    flow = {"rest": 0.0, "hyperemia": 0.0}
    row = LesionFlow(
        branch="LAD",
        start_mm=12.0,
        end_mm=22.0,
        diameter_reduction=1.0,
        ffr=0.02,
        pressure_ratio={"rest": 0.01, "hyperemia": 0.02},
        ffr_behind=0.02,
        ffr_behind_at_mm=42.0,
        flow_ml_min=flow,
        cfr=float("nan"),
        is_occlusion=True,
        wall_share_below=0.45,
        side_branches=[],
    )
    (said,) = occlusion_warnings([row, row.model_copy(update={"is_occlusion": False})])
    assert "closes the vessel. 45 % of the wall" in said and "FFR of 0.02" in said


def test_a_piece_between_two_occlusions_is_refused_by_name():
    """Also one before a closed end, before a prescribed flow, and behind one without an outlet."""
    shut = {"branch": "LAD", "diameter_reduction": 1.0}
    first = declare_lesion(fork(), start_mm=18, end_mm=24, **shut)
    both = declare_lesion(first, start_mm=28, end_mm=34, **shut)
    between = r"`diameter_reduction` of lesion 1 is 1.*neither a prescribed pressure"
    with pytest.raises(SolveError, match=between):
        solve_steady(flow_in(both))
    problem = flow_in(first)
    assert solve_steady(problem).result == RESULTS.successful
    inlet, outlet = problem.boundary
    tip, side = (np.asarray(outlet.node)[i : i + 1] for i in (0, 1))
    drained = ResistanceOutlet(side, np.array([9e9]), np.array([VENOUS]))
    for flow in (0.0, -1e-8):
        taken = FlowBoundary(tip, np.array([flow]))
        with pytest.raises(SolveError, match=between):
            solve_steady(SteadyProblem(first, (inlet, drained, taken)))
    with pytest.raises(SolveError, match=between):
        solve_steady(SteadyProblem(first, (inlet, drained)))
    before = declare_lesion(fork(), branch="LAD", start_mm=2, end_mm=8, diameter_reduction=1.0)
    feed = FlowBoundary(np.array([0]), np.array([1e-8]))
    with pytest.raises(SolveError, match=between):
        solve_steady(SteadyProblem(before, (feed, outlet)))


def test_one_occlusion_may_follow_another_where_something_drains_between():
    shut = {"branch": "LAD", "diameter_reduction": 1.0}
    network = declare_lesion(fork(), start_mm=2, end_mm=8, **shut)
    network = declare_lesion(network, start_mm=28, end_mm=34, **shut)
    found = solve_steady(flow_in(network))
    assert np.abs(found.flow).max() < 1e-18
    reached = np.asarray(pressure_reaches(network, jnp.arange(network.n_nodes) == 0))
    assert reached.sum() == 2 and reached[0]
