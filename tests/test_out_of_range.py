"""Numbers that were changed after construction: out of their range they end a solve by name.

A problem refuses them as it is built; `eqx.tree_at` and fits change it later, where only the
compiled program sees them. None of these may pass as a plausible flow.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem
from flow1d_cases import star, waveform

from jaxperf import (
    RESULTS,
    SavePoints,
    solve_flow1d,
    solve_perfusion,
    solve_periodic,
    solve_steady,
    SolveError,
)
from jaxperf._padding import pad_problem
from jaxperf._ranges import in_range, range_error
from jaxperf.coupling import Autoregulation, calibrate
from jaxperf.flow1d import flow1d_problem
from jaxperf.flow1d._ranges import flow_ranges
from jaxperf.network import (
    declare_lesion,
    FlowBoundary,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    WindkesselOutlet,
)
from jaxperf.steady import SteadyProblem
from jaxperf.vessel import Blood, ConstantStiffness, PriesViscosity, SqrtAreaWall

NETWORK = declare_lesion(
    star([[0, 1], [1, 2], [1, 3]], np.full((3, 2), 1.5e-3), [0.03, 0.05, 0.04]),
    branch="vessel 1",
    start_mm=10,
    end_mm=20,
    diameter_reduction=0.5,
)
WALL = SqrtAreaWall(ConstantStiffness(6e4), 9e3)


def steady_problem():
    inlet = PressureBoundary(0, 1.2e4)
    outlet = WindkesselOutlet(2, 1e8, 3e9, 1e-10, 0.0)
    boundary = (inlet, outlet, ResistanceOutlet(3, 4e9, 0.0))
    return SteadyProblem(NETWORK, boundary, Blood(1060.0, PriesViscosity()), WALL)


def transient_problem():
    beat = waveform(lambda t: 1.1e4 + 500.0 * np.sin(2 * np.pi * t), 1.0, 9)
    outlet = WindkesselOutlet(2, 1e9, 3e9, 1e-10, 0.0)
    boundary = (PressureWaveform(0, beat), outlet, ResistanceOutlet(3, 4e9, 0.0))
    return flow1d_problem(
        NETWORK,
        boundary,
        Blood(1060.0, PriesViscosity()),
        WALL,
        cell_time=4e-3,
        wall_viscosity=jnp.full(NETWORK.n_segments, 10.0),
    )


def coupled_problem():
    return small_problem(n_terminals=3, spacing_mm=5.0)[0]


def regulated_problem():
    problem = coupled_problem()
    target = 1.0e-3 / 60.0 * 1050.0 * problem.tissue.terminal_volume
    law = Autoregulation(target, 3.5)
    return eqx.tree_at(lambda p: p.autoregulation, problem, law, is_leaf=lambda x: x is None)


POINTS = SavePoints(np.array([0]), np.array([0.5]))


class Kind(NamedTuple):
    """A problem and the verb that solves it."""

    build: Callable[[], Any]
    solve: Callable[..., Any]


KINDS = {
    "steady": Kind(steady_problem, solve_steady),
    "coupled": Kind(coupled_problem, solve_perfusion),
    "regulated": Kind(regulated_problem, solve_perfusion),
    "flow1d": Kind(transient_problem, lambda p, **o: solve_flow1d(p, points=POINTS, **o)),
}
_vessels = {
    "reduction above one": (lambda p: p.network.lesion.diameter_reduction, 1.2, "lesion 1 is 1.2"),
    "reduction negative": (lambda p: p.network.lesion.diameter_reduction, -0.2, "lesion 1 is -0.2"),
    "reduction NaN": (lambda p: p.network.lesion.diameter_reduction, np.nan, "lesion 1 is nan"),
    "lesion of no length": (lambda p: p.network.lesion.length, -1e-2, "`length` .m. of lesion 1"),
    "radius negative": (lambda p: p.network.radius, -1e-3, "`radius` .m. of"),
    "radius zero": (lambda p: p.network.radius, 0.0, "`radius` .m. of"),
    "radius infinite": (lambda p: p.network.radius, np.inf, "`radius` .m. of"),
    "length negative": (lambda p: p.network.length, -1e-2, "`length` .m. of"),
    "density": (lambda p: p.blood.density, -1060.0, "density .kg/m³. of the blood"),
    "profile": (lambda p: p.blood.profile_exponent, -3.0, "`profile_exponent` of the blood"),
}
_ends = {
    "haematocrit in percent": (lambda p: p.blood.viscosity.haematocrit, 45.0, "viscosity"),
    "plasma": (lambda p: p.blood.viscosity.plasma_viscosity, -1e-3, "viscosity"),
    "stiffness": (lambda p: p.wall.stiffness.Eh_over_r, -6e4, "E h/r"),
    "resistance": (lambda p: p.boundary[2].resistance, -4e9, "`resistance` .Pa·s/m³. of"),
    "resistance NaN": (lambda p: p.boundary[2].resistance, np.nan, "`resistance` .Pa·s/m³. of"),
    "one of two": (lambda p: p.boundary[1].resistance_proximal, -1e8, "`resistance_proximal`"),
    "compliance": (lambda p: p.boundary[1].compliance, -1e-10, "`compliance` .m³/Pa. of"),
}
_bed = {
    "source": (lambda p: p.microcirculation.beta_source, -1e-6, "`beta_source`"),
    "source NaN": (lambda p: p.microcirculation.beta_source, np.nan, "`beta_source`"),
    "sink": (lambda p: p.microcirculation.beta_sink, -1e-6, "`beta_sink`"),
    "tissue": (lambda p: p.tissue.density, -1050.0, "`density` .kg/m³. of the tissue"),
}
CHANGES = {
    "steady": _vessels | _ends,
    "coupled": _vessels
    | _bed
    | {"dilation": (lambda p: p.microcirculation.dilation, -3.0, "`dilation` of terminal")},
    "regulated": {
        "target": (lambda p: p.autoregulation.flow_target, -1e-8, "`flow_target`"),
        "reserve": (lambda p: p.autoregulation.dilation_max, -4.0, "`dilation_max`"),
        "floor": (lambda p: p.autoregulation.dilation_min, -0.4, "`dilation_min`"),
    },
    "flow1d": _vessels
    | _ends
    | {
        "Voigt": (lambda p: p.wall_viscosity, -1.0, "`wall_viscosity` .Pa·s·m. of"),
        "occlusion": (lambda p: p.network.lesion.diameter_reduction, 1.0, "less than 1"),
    },
}


def changed(problem, where, value):
    """The problem with one entry of a leaf, the last one, at a value."""
    old = where(problem)
    new = old.at[(-1,) * old.ndim].set(value) if old.ndim else jnp.asarray(value, old.dtype)
    return eqx.tree_at(where, problem, new)


@pytest.fixture(
    scope="module",
    params=["steady", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "steady")],
)
def kind(request):
    made = KINDS[request.param]
    compiled = eqx.filter_jit(lambda problem: made.solve(problem))
    return request.param, made.build(), made.solve, compiled


def test_what_is_out_of_range_ends_by_name(kind):
    """It raises outside, naming number and place; `throw=False` says why; under jit all is NaN."""
    name, problem, solve, compiled = kind
    assert solve(problem).result == RESULTS.successful
    assert compiled(problem).result == RESULTS.successful
    for what, (where, value, says) in CHANGES[name].items():
        bad = changed(problem, where, value)
        with pytest.raises(SolveError, match=f"out of its range.*{says}"):
            solve(bad)
        assert solve(bad, throw=False).result == RESULTS.out_of_range, what
        found = compiled(bad)
        assert found.result == RESULTS.out_of_range, what
        for leaf in jax.tree.leaves(eqx.filter(found, eqx.is_inexact_array)):
            assert np.isnan(leaf).all(), what


@pytest.mark.parametrize("name", ["steady", pytest.param("flow1d", marks=pytest.mark.slow)])
def test_padded_problems_end_alike(name):
    """What stands in padded entries counts for nothing; a bad real entry does."""
    problem, solve = KINDS[name].build(), KINDS[name].solve
    padded = pad_problem(problem)
    where = lambda p: p.network.radius
    junk = changed(padded, where, -1.0)
    assert solve(junk, throw=False).result == RESULTS.successful
    real = eqx.tree_at(where, padded, where(padded).at[0, 0].set(-1e-3))
    assert solve(real, throw=False).result == RESULTS.out_of_range


def test_no_wave_meets_an_occlusion_set_afterwards():
    """Steady flow stops at one; a transient solve would take it for a healthy vessel."""
    problem, where = transient_problem(), lambda p: p.network.lesion.diameter_reduction
    assert bool(in_range(flow_ranges(problem)))
    closed = changed(problem, where, 1.0)
    assert not bool(eqx.filter_jit(lambda p: in_range(flow_ranges(p)))(closed))
    assert "lesion 1 is 1; expected less than 1." in str(range_error(flow_ranges(closed)))


@pytest.mark.slow
def test_a_periodic_solve_ends_alike():
    problem = changed(transient_problem(), lambda p: p.boundary[2].resistance, -4e9)
    with pytest.raises(SolveError, match=r"`resistance` .Pa·s/m³. of"):
        solve_periodic(problem, points=POINTS, samples=4, max_cycles=2)


def test_derivatives_are_nan_too_and_a_batch_keeps_its_sound_members():
    problem = SteadyProblem(NETWORK, steady_problem().boundary)
    where = lambda p: p.network.lesion.diameter_reduction
    flow = lambda r: solve_steady(changed(problem, where, r)).flow[0]
    found = jax.jit(jax.vmap(jax.value_and_grad(flow)))(jnp.array([0.5, -0.2, 1.2, 0.1]))
    np.testing.assert_array_equal(np.isnan(found), [[False, True, True, False]] * 2)


def test_the_ends_of_the_ranges_are_inside():
    """A lesion of no reduction, an infinite resistance, a bed that takes nothing somewhere."""
    problem = SteadyProblem(NETWORK, steady_problem().boundary)
    into = int(np.flatnonzero(np.asarray(NETWORK.segment_node)[:, 1] == 3)[0])
    closed = solve_steady(changed(problem, lambda p: p.boundary[2].resistance, np.inf))
    assert abs(closed.flow[into]) < 1e-12 * closed.flow[0]
    where = lambda p: p.network.lesion.diameter_reduction
    assert solve_steady(changed(problem, where, 0.0)).result == RESULTS.successful
    coupled = coupled_problem()
    somewhere = jnp.full(coupled.tissue.n_cells, 1.7e-6).at[3].set(0.0)
    scarred = eqx.tree_at(lambda p: p.microcirculation.beta_source, coupled, somewhere)
    assert float(solve_perfusion(scarred).mbf[3]) == 0.0


def test_flows_and_pressures_may_have_any_sign():
    boundary = (PressureBoundary(0, -500.0), FlowBoundary(np.array([2, 3]), np.full(2, -1e-7)))
    assert solve_steady(SteadyProblem(NETWORK, boundary)).result == RESULTS.successful


@pytest.mark.slow
def test_a_calibration_of_a_changed_heart_is_refused_or_nan():
    problem = changed(coupled_problem(), lambda p: p.network.radius, -1e-3)
    with pytest.raises(SolveError, match=r"`radius` .m. of"):
        calibrate(problem, mbf_rest_ml_min_g=1.0, hyperemia_factor=3.0)
    traced = eqx.filter_jit(
        lambda p: calibrate(p, mbf_rest_ml_min_g=1.0, hyperemia_factor=3.0).hyperemia_factor
    )
    assert np.isnan(traced(problem))
