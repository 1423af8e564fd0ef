"""Places on a network by branch and distance, and what is built on the host inside programs."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_wall
from flow1d_cases import star, waveform

from jaxperf import InputError, solve_steady, SteadyProblem
from jaxperf.coupling import PerfusionSolution
from jaxperf.darcy import darcy_mesh, DarcySolution
from jaxperf.flow1d import (
    flow1d_problem,
    Flow1DSolution,
    PeriodicSolution,
    SavePoints,
    solve_flow1d,
    solve_periodic,
)
from jaxperf.network import (
    build_network,
    declare_lesion,
    PerfusedBed,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    without_lesions,
)
from jaxperf.observe import branch_summary
from jaxperf.steady import SteadySolution
from jaxperf.vessel import Blood, ConstantStiffness, SqrtAreaWall


@pytest.fixture(scope="module")
def tree():
    """LM of 10 mm, LAD of 20 and 30 mm, its second segment listed before its first, and LCx."""
    position = 1e-3 * np.array([[0.0, 0, 0], [10, 0, 0], [30, 0, 0], [60, 0, 0], [10, 20, 0]])
    return build_network(
        position,
        np.array([[2, 3], [0, 1], [1, 2], [1, 4]]),
        1e-3 * np.array([2.2, 2.0, 1.7, 1.5, 1.4]),
        root=np.array([0]),
        frame="model",
        branch=np.array([1, 0, 1, 2]),
        branch_name=("LM", "LAD", "LCx"),
    )


def boundary(tree):
    return (
        PressureBoundary(0, 12400.0),
        ResistanceOutlet(tree.outlet("LAD"), 4e9, 2e3),
        ResistanceOutlet(tree.outlet("LCx"), 4e9, 2e3),
    )


def test_places_by_branch_and_distance(tree):
    assert tree.at("LAD", mm=0) == pytest.approx((2, 0.0, 0, 1))
    assert tree.at("LAD", mm=5) == pytest.approx((2, 0.25, 0, 1))
    assert tree.at("LAD", mm=20) == pytest.approx((2, 1.0, 1, 2))
    assert tree.at("LAD", mm=44) == pytest.approx((0, 0.8, 1, 3))
    assert tree.at("LAD", mm=50).node == tree.outlet("LAD") == 3
    assert tree.outlet("LM") == 1


@pytest.mark.parametrize(
    "place, sentence",
    [
        (lambda tree: tree.at("OM", mm=1), "no branch 'OM'.*LM, LAD, LCx"),
        (lambda tree: tree.outlet("OM"), "no branch 'OM'"),
        (lambda tree: tree.at("LAD", mm=51), r"place on LAD: 51 mm.*0 to 50\.00 mm"),
        (lambda tree: tree.at("LAD", mm=-1), "place on LAD"),
        (lambda tree: tree.at("LAD", mm=float("nan")), "place on LAD"),
    ],
)
def test_places_that_do_not_exist_are_refused(tree, place, sentence):
    with pytest.raises(InputError, match=sentence):
        place(tree)


def test_numbers_stand_for_one_node(tree):
    numbers = boundary(tree)[:2]
    arrays = (
        PressureBoundary(jnp.array([0], jnp.int32), jnp.array([12400.0])),
        ResistanceOutlet(jnp.array([3], jnp.int32), jnp.array([4e9]), jnp.array([2e3])),
    )
    assert eqx.tree_equal(numbers, arrays)
    assert PressureBoundary(np.int64(0), np.float64(1e4)).pressure.shape == (1,)
    slope = jax.grad(lambda p: PressureBoundary(0, p).pressure[0] ** 2)(3.0)
    assert float(slope) == 6.0
    one = jnp.ones((1, 1))
    assert PerfusedBed(0, 1e9, 1e9, 0.0, 0.0, one, 0.0).resistance_proximal.shape == (1,)
    with pytest.raises(ValueError, match="one value for each node"):
        PressureBoundary(jnp.array([0, 1]), 12400.0)


def pressure_behind(tree, reduction):
    """Static pressure at the end of LAD, Pa, with a lesion of a reduction and one of 40 %."""
    lad = {"branch": "LAD", "start_mm": 22.0, "end_mm": 32.0}
    narrow = declare_lesion(tree, **lad, diameter_reduction=reduction)
    narrow = declare_lesion(narrow, branch="LCx", start_mm=5, end_mm=10, diameter_reduction=0.4)
    place = narrow.at("LAD", mm=50)
    solution = solve_steady(SteadyProblem(narrow, boundary(tree)))
    return solution.pressure_static[place.segment, place.end]


@pytest.mark.parametrize("wrap", [jax.vmap, lambda f: jax.jit(jax.vmap(f))])
def test_lesions_of_traced_reduction(tree, wrap):
    reductions = jnp.array([0.3, 0.7])
    together = wrap(lambda r: pressure_behind(tree, r))(reductions)
    alone = [pressure_behind(tree, float(r)) for r in reductions]
    assert np.allclose(together, alone, rtol=1e-12)


def test_a_lifted_lesion_gives_way(tree):
    lesion = lambda network, start, end: declare_lesion(
        network, branch="LAD", start_mm=start, end_mm=end, diameter_reduction=0.5
    )
    two = lesion(lesion(tree, 2, 8), 30, 40)
    again = lesion(without_lesions(two), 35, 45)
    assert np.array_equal(again.lesion.diameter_reduction, [0.0, 0.5])
    assert np.allclose(again.lesion.length, [6e-3, 10e-3])
    inside = np.asarray(again.lesion.lesion) == 1
    assert np.asarray(again.lesion.fraction)[inside].sum() == pytest.approx(1.0)
    with pytest.raises(InputError, match="overlaps"):
        lesion(two, 35, 45)


def test_branch_summary_of_a_traced_network(tree):
    flow = jnp.arange(1.0, 5.0)
    pressure = jnp.full((4, 2), 9e3)
    summary = lambda network: branch_summary(network, flow, pressure, 1e4)
    assert np.array_equal(summary(tree).flow, [2.0, 3.0, 4.0])
    assert eqx.tree_equal(eqx.filter_jit(summary)(tree), summary(tree))
    wider = lambda r: summary(eqx.tree_at(lambda n: n.radius, tree, tree.radius * r)).radius_max
    assert np.allclose(jax.vmap(wider)(jnp.ones(2)), summary(tree).radius_max[None])


@pytest.fixture(scope="module")
def pipe():
    network = star([(0, 1)], [(2e-3, 1.5e-3)], [0.06], branch_name=("LAD",))
    pressure = waveform(lambda t: 1.1e4 + 1e3 * np.sin(20 * np.pi * t), 0.1, 21)
    inlet = (PressureWaveform(0, pressure), ResistanceOutlet(1, 2e9, 5e3))
    return flow1d_problem(
        network, inlet, Blood(), SqrtAreaWall(ConstantStiffness(6e4), 9e3), cell_time=1e-3
    )


def test_points_as_an_argument_of_a_program(pipe):
    points = SavePoints(np.array([0, 0]), np.array([0.0, 0.4]))
    run = lambda points: solve_flow1d(pipe, points=points, n_cycles=1, samples=4).pressure_static
    assert np.allclose(eqx.filter_jit(run)(points), run(points), rtol=1e-12)
    moved = lambda x: run(SavePoints(points.segment, points.fraction + x))
    assert jax.eval_shape(moved, 0.1).shape == (4, 2)


def test_forward_mode_in_reverse_mode_is_said(pipe):
    def pressure(scale):
        wider = eqx.tree_at(lambda p: p.network.radius, pipe, pipe.network.radius * scale)
        points = SavePoints(np.array([0]), np.array([0.5]))
        found = solve_periodic(wider, points=points, samples=2, mode="forward")
        return jnp.sum(found.pressure_static)

    with pytest.raises(RuntimeError, match="Give mode='reverse' under grad"):
        jax.eval_shape(jax.grad(pressure), 1.0)


@pytest.mark.parametrize("full_tensor", [False, True])
def test_a_number_is_a_permeability(full_tensor):
    mesh = darcy_mesh(small_wall(scale=0.5), full_tensor=full_tensor)
    found = mesh.transmissibility(2e-9)
    assert np.array_equal(found, mesh.transmissibility(jnp.array(2e-9)))
    assert mesh.transmissibility(1).dtype == mesh.graph.volume.dtype


@pytest.mark.parametrize(
    "solution, has",
    [
        (SteadySolution, "pressure_total and pressure_static"),
        (PerfusionSolution, "pressure_total and pressure_static and pressure_tissue"),
        (Flow1DSolution, "pressure_static"),
        (PeriodicSolution, "pressure_static"),
        (DarcySolution, "pressure_tissue"),
    ],
)
def test_no_solution_has_a_bare_pressure(solution, has):
    empty = object.__new__(solution)
    with pytest.raises(AttributeError, match=f"no field `pressure`; it has {has}\\."):
        empty.pressure  # noqa: B018
    fields = {field.name for field in dataclasses.fields(solution)}
    assert "pressure" not in fields and set(has.split(" and ")) <= fields
