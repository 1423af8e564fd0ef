"""The solver and a second implementation of docs/flow1d.md agree to rounding."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import advance, star, waveform
from flow1d_reference import Model, Reference

from jaxperf.flow1d import ExternalPressure, flow1d_problem, FlowState, semidiscretise
from jaxperf.network import (
    CoronaryOutletSvOneD,
    declare_lesion,
    FlowWaveform,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    SqrtAreaWall,
    stenosis_coefficients,
    SvOneDWall,
)

_STEPS, _CELL_TIME = 50, 4e-4
_ZETA, _ALPHA, _DENSITY, _VISCOSITY = 9.0, 1.1, 1055.0, 3.7e-3


def problem_of(wall, inlet, mode):
    """Root, bifurcation, lesion on one daughter; on the other a vessel shorter than a cell and,
    in an unbranched course, two steps of calibre, of which one needs a node."""
    network = star(
        [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5), (5, 6), (6, 7)],
        [
            (2.2e-3, 1.9e-3),
            (1.5e-3, 1.3e-3),
            (1.4e-3, 1.3e-3),
            (0.9e-3, 0.8e-3),
            (1e-3, 0.9e-3),
            (1.2e-3, 1.2e-3),
            (1.15e-3, 1.1e-3),
        ],
        [0.021, 0.024, 0.017, 0.0013, 0.016, 0.009, 0.011],
        branch_name=("root", "A", "B", "C", "D", "E", "F"),
    )
    network = declare_lesion(network, branch="A", start_mm=7, end_mm=12, diameter_reduction=0.55)
    time = np.linspace(0, 0.8, 9)[:-1]
    one = lambda *values: [jnp.array([v]) for v in values]
    if inlet == "flow":
        value = 3e-6 * (1 + 0.8 * np.sin(2 * np.pi * time / 0.8) ** 3)
        first = FlowWaveform(jnp.array([0]), Waveform(time, value[None], 0.8))
    else:
        value = 1.1e4 + 4e3 * np.sin(2 * np.pi * time / 0.8)
        first = PressureWaveform(jnp.array([0]), Waveform(time, value[None], 0.8))
    squeeze = waveform(lambda t: 9e3 * np.sin(np.pi * t / 0.8) ** 2, 0.8, 11)
    boundary = (
        first,
        WindkesselOutlet(jnp.array([2]), *one(4e8, 5e9, 2e-10, 500.0)),
        CoronaryOutletSvOneD(jnp.array([4]), *one(2e9, 3e9, 1e9, 4e-12, 3e-11, -700.0), squeeze),
        ResistanceOutlet(jnp.array([7]), *one(6e9, 300.0)),
    )
    share = np.linspace(0.0, 1.0, 2 * network.n_segments).reshape(1, -1, 2)
    external = ExternalPressure(waveform(lambda t: 700 + 2e3 * t, 0.8, 5), jnp.asarray(share))
    return flow1d_problem(
        network,
        boundary,
        Blood(_DENSITY, ConstantViscosity(_VISCOSITY), _ZETA, _ALPHA),
        wall,
        cell_time=_CELL_TIME,
        pressure_external=external,
        wall_viscosity=jnp.linspace(0.5, 1.5, network.n_segments),
        junction_pressure=mode,
        boundary_pressure=mode,
    )


def model_of(problem, wall_name, unloaded):
    network, lesion = problem.network, problem.network.lesion
    first, wk, coronary, r = problem.boundary
    segments = [int(s) for s in lesion.segment]
    reference = np.sum(lesion.fraction * network.radius[lesion.segment].mean(axis=1))
    loss = stenosis_coefficients(
        reference[None], lesion.diameter_reduction, lesion.length, _VISCOSITY, _DENSITY
    )
    value = first.flow if isinstance(first, FlowWaveform) else first.pressure
    table = lambda w: (
        lambda t: np.array(
            [np.interp(t % 0.8, [*w.time, 0.8], [*row, row[0]]) for row in np.asarray(w.value)]
        )
    )
    number = lambda x: np.asarray(x, float)
    external = problem.pressure_external
    share, around = np.asarray(external.share), table(external.waveform)
    return Model(
        segment_node=np.asarray(network.segment_node),
        length=np.asarray(network.length),
        radius=np.asarray(network.radius),
        modulus=(lambda r: 4 / 3 * (2e6 * np.exp(-2253.0 * r) + 8.65e4))
        if wall_name == "svoned"
        else 4 / 3 * number(problem.wall.stiffness.Eh_over_r),
        unloaded=unloaded,
        wall=wall_name,
        density=_DENSITY,
        viscosity=_VISCOSITY,
        zeta=_ZETA,
        alpha=_ALPHA,
        cell_time=_CELL_TIME,
        conditions=[
            {
                "kind": "flow" if isinstance(first, FlowWaveform) else "pressure",
                "node": [0],
                "value": table(value),
            },
            {
                "kind": "windkessel",
                "node": [2],
                "R1": number(wk.resistance_proximal),
                "R2": number(wk.resistance_distal),
                "C": number(wk.compliance),
                "P_ref": number(wk.pressure_ref),
            },
            {
                "kind": "ladder",
                "node": [4],
                "R1": number(coronary.resistance_proximal),
                "R2": number(coronary.resistance_middle),
                "Ca": number(coronary.compliance_proximal),
                "Ct": number(coronary.compliance_distal),
                "M": np.diag(1 / number(coronary.resistance_distal)),
                "m": -number(coronary.pressure_offset) / number(coronary.resistance_distal),
                "p_im": table(coronary.pressure_im),
            },
            {
                "kind": "resistance",
                "node": [7],
                "R": number(r.resistance),
                "P_ref": number(r.pressure_ref),
            },
        ],
        lesions=[(segments, float(loss[0][0]), float(loss[1][0]))],
        external=lambda t: np.einsum("b,bse->se", around(t), share),
        wall_viscosity=number(problem.wall_viscosity),
        junction_total=problem.junction_pressure == "total",
        boundary_total=problem.boundary_pressure == "total",
    )


@eqx.filter_jit
def set_up(problem):
    """The equations, and the areas under 11 kPa."""
    equations = semidiscretise(problem)
    pressure = jnp.full(problem.grid.n_slots, 1.1e4)
    return equations, equations.cell_wall.lumen(pressure).area


def start_of(problem, reference, rng):
    """A state that is far from steady, for both."""
    grid = problem.grid
    equations, area = set_up(problem)
    area = np.array(area)
    area *= 1 + 0.01 * rng.standard_normal(area.shape)
    flow = np.where(np.asarray(grid.is_cell) > 0, 1e-6, 0) * rng.uniform(0.5, 1.5, area.shape)
    outlet = [1e4 * rng.uniform(0.8, 1.0, shape) for shape in ((1, 0), (1, 1), (1, 2), (1, 0))]
    state = FlowState(
        jnp.asarray(area),
        jnp.asarray(flow),
        jnp.zeros(grid.n_nodes),
        tuple(jnp.asarray(x) for x in outlet),
    )
    slots = [slice(first, last + 1) for first, last in np.asarray(grid.vessel_slot)]
    mine = (
        [area[s] for s in slots],
        [flow[s] for s in slots],
        outlet,
        dict.fromkeys(reference.nodes, 0.0),
    )
    return equations, state, slots, mine


def wall_of(name):
    if name == "svoned":
        return SvOneDWall(OlufsenStiffness()), 0.0
    table = np.linspace(6e4, 9e4, 18).reshape(9, 2)
    return SqrtAreaWall(ConstantStiffness(jnp.asarray(table)), 9e3), 9e3


@pytest.mark.parametrize(
    "name, inlet, mode", [("sqrt", "flow", "total"), ("svoned", "pressure", "static")]
)
def test_fifty_steps_agree(name, inlet, mode):
    wall, unloaded = wall_of(name)
    problem = problem_of(wall, inlet, mode)
    reference = Reference(model_of(problem, name, unloaded))
    equations, state, slots, mine = start_of(problem, reference, np.random.default_rng(4))
    grid = problem.grid
    assert [len(v.cell) for v in reference.vessels] == [s.stop - s.start for s in slots]
    known = np.asarray(grid.node_network)
    assert 5 in known and 6 not in known
    assert max(v.inertia for v in reference.vessels) > 1.5 and grid.inertia is not None

    h = problem.time_step
    theirs = eqx.filter_jit(advance)(equations, state, 0.0, h, _STEPS)
    for i in range(_STEPS):
        mine = reference.step(i * h, h, mine)
    for field, values in ((theirs.area, mine[0]), (theirs.flow, mine[1])):
        theirs_flat = np.concatenate([np.asarray(field)[s] for s in slots])
        mine_flat = np.concatenate(values)
        error = np.max(np.abs(theirs_flat - mine_flat)) / np.max(np.abs(mine_flat))
        assert error <= 1e-11, error
    shown = eqx.filter_jit(lambda e, y: e.profile(jnp.asarray(_STEPS * h), y))(equations, theirs)
    for s, (pressure, area, flow) in zip(slots, reference.shown(_STEPS * h, mine), strict=True):
        wide, faces = slice(s.start - 1, s.stop + 1), slice(s.start, s.stop + 1)
        np.testing.assert_allclose(np.asarray(shown.pressure)[wide], pressure, rtol=1e-10)
        np.testing.assert_allclose(np.asarray(shown.area)[wide], area, rtol=1e-10)
        np.testing.assert_allclose(np.asarray(shown.flow)[faces], flow, atol=1e-10 * 1e-6)
    for a, b in zip(theirs.outlet, mine[2], strict=True):
        assert np.allclose(np.asarray(a), b, rtol=1e-11, atol=0)
    passed = dict(
        zip(np.asarray(grid.node_network).tolist(), np.asarray(theirs.passed), strict=True)
    )
    largest = max(abs(x) for x in passed.values())
    for node, volume in passed.items():
        key = ("lesion", 0) if node < 0 else node
        assert abs(volume - mine[3][key]) <= 1e-11 * largest
