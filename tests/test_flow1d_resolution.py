"""What a solution shows of its cells: ends, faces, outlets that share a node, and how well."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxperf import build_network, InputError
from jaxperf.flow1d import (
    flow1d_problem,
    initial_state,
    Resolution,
    resolution,
    SavePoints,
    solve_periodic,
)
from jaxperf.jobs import run_flow1d
from jaxperf.network import (
    FlowWaveform,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.report import Flow1DSummary
from jaxperf.study import Cells, Place, run_resolved, Series, thinned
from jaxperf.vessel import Blood, OlufsenStiffness, SqrtAreaWall

PERIOD = 0.8
WALL = SqrtAreaWall(OlufsenStiffness(), 12000.0)


def taper(n=12, length=0.09, radius=(2e-3, 5e-4)):
    x = np.linspace(0.0, length, n + 1)
    segment = np.stack([np.arange(n), np.arange(n) + 1], axis=1)
    return build_network(
        np.stack([x, 0 * x, 0 * x], axis=1),
        segment,
        np.linspace(radius[0], radius[1], n + 1),
        root=np.array([0]),
        frame="model",
    )


def beat(mean, swing):
    """Knots at every fortieth of the cycle, where 40 samples fall too."""
    t = np.linspace(0.0, PERIOD, 41)
    phase = 2.0 * np.pi * t / PERIOD
    value = mean + swing * (np.sin(phase) + 0.5 * np.sin(2.0 * phase))
    value[-1] = value[0]
    return Waveform(t, value[None], PERIOD)


def of(*values):
    return (jnp.atleast_1d(jnp.asarray(v, float)) for v in values)


OUTLET = functools.partial(WindkesselOutlet, 12, *of(2e9, 1e10, 1e-11, 0.0))


def solved(inlet, cell_time, samples=40):
    problem = flow1d_problem(taper(), (inlet, OUTLET()), Blood(), WALL, cell_time=cell_time)
    points = SavePoints([0, 6, 11], [0.0, 0.0, 1.0])
    return problem, solve_periodic(problem, points=points, samples=samples)


@pytest.fixture(scope="module")
def coarse_and_fine():
    inlet = PressureWaveform(0, beat(12500.0, 2500.0))
    return [solved(inlet, cell_time) for cell_time in (2e-3, 2e-4)]


def test_the_error_of_a_pressure_ratio_is_foretold(coarse_and_fine):
    ratio, found = [], []
    for problem, solution in coarse_and_fine:
        pressure = np.asarray(solution.pressure_static).mean(axis=0)
        ratio.append(pressure[2] / pressure[0])
        found.append(resolution(problem, solution).pressure_error[0] / pressure[0])
    off = ratio[0] - ratio[1]
    assert off > 2e-3
    assert 0.7 * off < found[0] < 1.6 * off
    assert abs(found[1]) < 0.1 * off
    coarse, fine = (resolution(*both) for both in coarse_and_fine)
    assert coarse.flow_variation[0] > 0.03 > 0.01 > fine.flow_variation[0]
    assert (coarse.distal == 0).all() and coarse.inertia[0] == 1.0


def test_ends_and_faces_are_shown(coarse_and_fine):
    """The inlet's pressure is its table's, and no blood is lost on the way."""
    for _, solution in coarse_and_fine:
        given = beat(12500.0, 2500.0)
        expected = np.interp(solution.time, given.time, given.value[0])
        inlet = np.asarray(solution.pressure_static[:, 0])
        # the inlet means total pressure: half of ρU² of some 0.1 m/s lie between
        assert np.abs(inlet - expected).max() < 25.0
        mean = np.asarray(solution.flow).mean(axis=0)
        np.testing.assert_allclose(mean, mean[0], rtol=2e-3)


def test_the_inflow_is_its_table():
    given = beat(1e-6, 4e-7)
    _, solution = solved(FlowWaveform(0, given), 2e-3)
    expected = np.interp(solution.time, given.time, given.value[0])
    np.testing.assert_allclose(solution.flow[:, 0], expected, rtol=1e-10)


def test_outlets_that_share_a_node_start_at_their_own_flow():
    inlet = PressureWaveform(0, beat(12500.0, 0.0))
    shared = (
        WindkesselOutlet(12, *of(2e9, 1e10, 1e-11, 300.0)),
        ResistanceOutlet(12, *of(5e9, 700.0)),
        WindkesselOutlet(12, *of(1e9, 3e10, 1e-11, 0.0)),
    )
    problem = flow1d_problem(taper(), (inlet, *shared), Blood(), WALL, cell_time=2e-3)

    _, first, _, second = initial_state(problem).outlet
    # each by its own law from the pressure at the node, which is one
    level = float(first[0, 0]), float(second[0, 0])
    at_node = [
        level[0] + 2e9 * (level[0] - 300.0) / 1e10,
        level[1] + 1e9 * level[1] / 3e10,
    ]
    assert at_node[0] == pytest.approx(at_node[1], rel=1e-12)
    assert 5e3 < at_node[0] < 12500.0


def test_a_flow_of_no_mean_becomes_periodic():
    _, solution = solved(FlowWaveform(0, beat(0.0, 1e-7)), 2e-3)
    assert int(solution.cycles) < 30
    assert np.abs(np.asarray(solution.flow[:, 2]).mean()) < 1e-3 * 1e-7


def series(values):
    time = np.linspace(0.0, 1.0, 401)
    return Series(
        (Place("a", "distal", 0.0, 0, 1.0),), 1.0, time, values(time)[:, None], 0 * time[:, None]
    )


@pytest.mark.parametrize(("waves", "samples"), [(1.0, 100), (5.0, 100), (14.0, 200), (60.0, 400)])
def test_samples_follow_the_signal(waves, samples):
    given = series(lambda t: 90.0 + 10.0 * np.sin(2.0 * np.pi * waves * t))
    shown = thinned(given)
    assert len(shown.time) == samples + 1
    drawn = np.interp(given.time, shown.time, shown.pressure_static[:, 0])
    assert samples == 400 or np.abs(drawn - given.pressure_static[:, 0]).max() < 0.3


STIFF = """\
MODEL stiff
NODE 0 0 0 0
NODE 1 0 0 10
SEGMENT seg0 0 10.0 50 0 1 1.0 1.0 0.0 MAT NONE 0.0 0 0 RESISTANCE OUT
DATATABLE IN LIST
{}
ENDDATATABLE
DATATABLE OUT LIST
0.0 100.0
ENDDATATABLE
SOLVEROPTIONS 0.001 1000 1000 2 IN FLOW 1.0e-8 1 1
MATERIAL MAT OLUFSEN 1.06 0.04 0 2.0 1.0e15 -20 1e9
"""


@pytest.fixture(scope="module")
def stiff(tmp_path_factory):
    t = np.linspace(0.0, 1.0, 51)
    rows = "\n".join(f"{a:.6f} {100 * (1 + np.sin(2 * np.pi * a)):.6f}" for a in t)
    path = tmp_path_factory.mktemp("stiff") / "stiff.in"
    path.write_text(STIFF.format(rows))
    return path


def test_inertia_that_rules_the_pressure_is_refused(stiff, tmp_path):
    with pytest.raises(InputError, match=r"seg0.*7\.68 times.*of the pulse.*time of 1\.0e-04 s"):
        run_flow1d(stiff, out=tmp_path / "out", cycles=1)
    assert not (tmp_path / "out").exists()


def test_a_shorter_cell_cures_it(stiff, tmp_path):
    said = run_flow1d(stiff, out=tmp_path / "out", cycles=1, cell_time=1e-4)
    assert isinstance(said, Flow1DSummary)
    vessel = said.vessels["seg0"]
    assert vessel.inertia_factor == 1.0 and vessel.inertia_pressure_mmHg == 0.0
    # at the middle of a rigid tube: 105.03 Q + 5.3 dQ/dt, dyn/cm², kinks of the table on top
    swing = np.hypot(105.026 * 100.0, 5.3 * 200.0 * np.pi) / 1333.22
    assert vessel.pressure_static_max_mmHg == pytest.approx(7.8777 + swing, abs=0.3)
    assert vessel.pressure_static_min_mmHg == pytest.approx(7.8777 - swing, abs=0.3)
    assert any("below zero" in text and "seg0 (proximal)" in text for text in said.warnings)


def test_auto_halves_cells_until_they_resolve():
    asked = []

    def run(cell_time):
        asked.append(cell_time)
        one, off = np.ones(1), 30.0 * np.array([cell_time])
        index = np.zeros(1, int)
        return cell_time, Cells(
            cell_time, Resolution(index, index, off, off, one, 0 * one, one), 1.0, 1.0
        )

    assert run_resolved(run, "auto", 5e-3) == asked[-1] == 1.5e-4
    assert run_resolved(run, 1e-3, 5e-3) == 1e-3
    # the finest is kept where none resolves it
    assert run_resolved(run, "auto", 1e-6) == asked[-1] == pytest.approx(3e-4 / 64)
