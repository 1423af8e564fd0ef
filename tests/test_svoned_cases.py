"""svOneDSolver's own cases: its figures, all its cards, and what is refused with its place."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import requires_trials, TRIALS

from jaxperf import InputError, solve_periodic
from jaxperf.flow1d import SavePoints
from jaxperf.flow1d._semidiscretisation import _table
from jaxperf.io import read_svoned
from jaxperf.jobs import read_foreign, svoned_problem
from jaxperf.network import (
    FlowBoundary,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    WindkesselOutlet,
)

OLUFSEN, LINEAR = "OLUFSEN 1.06 0.04 0 2.0 1.0e15 -20 1e9", "LINEAR 1.06 0.04 0 2.0 1.8e10"
STEADY = "0.0 100.0\n10.0 100.0\n"


def tube(kind="RESISTANCE", entries="0.0 100.0\n", wall=OLUFSEN, inlet=STEADY, more=""):
    """A stiff straight vessel of 10 cm and 1 cm²."""
    return (
        "MODEL tube\nNODE 0 0 0 0\nNODE 1 0 0 10\n"
        f"SEGMENT seg0 0 10.0 50 0 1 1.0 1.0 0.0 MAT NONE 0.0 0 0 {kind} OUT\n"
        f"DATATABLE IN LIST\n{inlet}ENDDATATABLE\nDATATABLE OUT LIST\n{entries}ENDDATATABLE\n"
        f"SOLVEROPTIONS 0.001 1000 1000 2 IN FLOW 1.0e-8 1 1\nMATERIAL MAT {wall}\n{more}"
    )


STENOSIS = """\
MODEL stenosis
NODE 0 0 0 0
NODE 1 0 0 10
NODE 2 0 0 20
NODE 3 0 0 30
JOINT J0 1 I0 O0
JOINTINLET I0 1 0
JOINTOUTLET O0 1 1
JOINT J1 2 I1 O1
JOINTINLET I1 1 1
JOINTOUTLET O1 1 2
SEGMENT a 0 10.0 50 0 1 10.0 10.0 0.0 MAT NONE 0.0 0 0 NOBOUND NONE
SEGMENT b 1 10.0 50 1 2 5.0 5.0 0.0 MAT STENOSIS 0.0 0 0 NOBOUND NONE
SEGMENT c 2 10.0 50 2 3 10.0 10.0 0.0 MAT NONE 0.0 0 0 RESISTANCE OUT
DATATABLE IN LIST
0 100 10 100
ENDDATATABLE
DATATABLE OUT LIST
0 100
ENDDATATABLE
SOLVEROPTIONS 0.001 1000 1000 2 IN FLOW 1.0e-8 1 1
"""
BIFURCATION = """\
model bifurcation
NODE 0 0 0 0
NODE 1 0 0 -8.6
NODE 2 0 -3.25280917510326 -7.85297602634594
NODE 3 0,3.25280917510326,-7.85297602634594
JOINT J 1 IN OUT
JOINTINLET IN 1 0
JOINTOUTLET OUT 2 1 2
SEGMENT p 0 8.6 50 0 1 2.32352192659501 2.32352192659501 0.0 MAT NONE 0.0 0 0 NOBOUND NONE
SEGMENT l 1 8.5 50 1 3 1.13097335529233 1.13097335529233 0.0 MAT NONE 0.0 0 0 PRESSURE P
SEGMENT r 2 8.5 50 1 2 1.13097335529233 1.13097335529233 0.0 MAT NONE 0.0 0 0 PRESSURE P
DataTable P LIST
0.0 4000.0
ENDDATATABLE
DATATABLE Q LIST
0.0 7.985
1.0 7.985
ENDDATATABLE
SOLVEROPTIONS 0.001087 100 500 2 Q FLOW 1.0e-8 1 1
"""
RCR_PD = "0 50 0 0.001 0 50 0 1000\n"


def written(folder, text):
    path = folder / "case.in"
    path.write_text(text, encoding="utf-8")
    return path


# dyn/cm² at both ends of every segment: the analytic figures of svOneDSolver's own tests
@pytest.mark.parametrize(
    ("text", "ends"),
    [
        (tube("RCR", RCR_PD, LINEAR), [12005.30965, 11000.0]),
        (STENOSIS + f"MATERIAL MAT {OLUFSEN}\n", [10150.68211, None, None, None, None, 10000.0]),
        (
            BIFURCATION + f"MATERIAL MAT {OLUFSEN}\n",
            [4039.45953118937, 4026.67220709878] + [4026.67220709878, 4000.0] * 2,
        ),
    ],
    ids=["rcr, distal pressure, linear", "stenosis", "bifurcation, pressure"],
)
def test_figures_of_svonedsolver(tmp_path, text, ends):
    problem = read_foreign(written(tmp_path, text)).problem
    n = problem.network.n_segments
    points = SavePoints(np.repeat(np.arange(n), 2), np.tile([0.0, 1.0], n))
    found = solve_periodic(problem, points=points, samples=10, tolerance=1e-9)
    pressure, flow = 10.0 * np.asarray(found.pressure_static)[-1], np.asarray(found.flow)[-1]
    for value, expected in zip(pressure, ends, strict=True):
        if expected is not None:
            assert value == pytest.approx(expected, rel=1e-6)
    if n == 3 and "PRESSURE" in text:
        np.testing.assert_allclose(flow * 1e6, [7.985] * 2 + [3.9925] * 4, rtol=1e-6)


def test_conditions_of_all_kinds(tmp_path):
    read = lambda *given, **more: read_svoned(written(tmp_path, tube(*given, **more))).boundary
    inlet, outlet = read("RCR", RCR_PD)
    # a flow that does not change is a constant, however long its table is
    assert isinstance(inlet, FlowBoundary) and float(inlet.flow[0]) == pytest.approx(1e-4)
    assert isinstance(outlet, WindkesselOutlet)
    assert float(outlet.resistance_proximal[0]) == pytest.approx(50e5)
    assert float(outlet.resistance_distal[0]) == pytest.approx(50e5)
    assert float(outlet.compliance[0]) == pytest.approx(1e-8)
    assert float(outlet.pressure_ref[0]) == pytest.approx(100.0)
    _, outlet = read("RCR", "0 681.23\n0 0\n0 310.13\n")
    assert isinstance(outlet, ResistanceOutlet)
    assert float(outlet.resistance[0]) == pytest.approx(991.36e5)
    _, outlet = read("PRESSURE", "0 10000\n")
    assert isinstance(outlet, PressureBoundary) and float(outlet.pressure[0]) == 1000.0
    _, outlet = read("PRESSURE_WAVE", "0 1000\n0.5 3000\n1 1000\n")
    assert isinstance(outlet, PressureWaveform)
    np.testing.assert_allclose(outlet.pressure.value[0], [100.0, 300.0, 100.0])


def test_a_linear_wall_is_what_the_solver_makes_of_it(tmp_path):
    case = read_svoned(written(tmp_path, tube(wall="LINEAR 1.06 0.04 0 2.0 9e5 0 -1e15")))
    assert "4/3" in case.notes[0] and "case.in:13" in case.notes[0]
    problem = svoned_problem(case)
    # p = 4/3 E h/r (1 − √(S0/S)), so that ρc² = 2/3 E h/r at the reference area
    area, radius = jnp.asarray(np.pi * 1e-4), jnp.asarray(1e-2)
    speed = problem.wall.wave_speed(area, radius, problem.blood.density)
    assert float(speed) == pytest.approx(np.sqrt(2.0 / 3.0 * 9e4 / 1060.0))


def test_walls_of_several_materials(tmp_path):
    text = BIFURCATION.replace("2 1.13097335529233 1.13097335529233 0.0 MAT", "2 1.13 1.13 0.0 B")
    text += f"MATERIAL MAT {LINEAR}\nMATERIAL B LINEAR 1.06 0.04 0 2.0 9e9\n"
    problem = svoned_problem(read_svoned(written(tmp_path, text)))
    stiffness = problem.wall.stiffness(problem.network.radius)
    np.testing.assert_allclose(stiffness[:, 0], [1.8e9, 1.8e9, 9e8])


def test_several_materials_are_laws_of_the_radius(tmp_path):
    """Along a taper the modulus is that of the radius there, and so is its derivative."""
    text = BIFURCATION.replace("2.32352192659501 2.32352192659501", "2.3 0.3")
    text = text.replace("2 1.13097335529233 1.13097335529233 0.0 MAT", "2 1.13 1.13 0.0 B")
    text += "MATERIAL MAT OLUFSEN 1.06 0.04 0 2.0 2.0e7 -2.253 8.65e5\n"
    text += "MATERIAL B LINEAR 1.06 0.04 0 2.0 9e9\n"
    problem = svoned_problem(read_svoned(written(tmp_path, text)))
    segment, fraction = np.array([0, 0, 2]), np.array([0.0, 0.6, 0.5])
    modulus = lambda radius: (
        _table(
            eqx.tree_at(lambda p: p.network.radius, problem, radius),
            jnp.asarray(segment),
            jnp.asarray(fraction),
        ).modulus
    )
    radius = problem.network.radius
    value, slope = jax.jit(lambda r: jax.jvp(modulus, (r,), (jnp.ones_like(r),)))(radius)
    ends = np.asarray(radius)[segment]
    r = ends[:, 0] + fraction * (ends[:, 1] - ends[:, 0])
    k1, k2, k3 = np.array([[2e6, -225.3, 8.65e4]] * 2 + [[0.0, 0.0, 9e8]]).T
    np.testing.assert_allclose(value, 4 / 3 * (k1 * np.exp(k2 * r) + k3), rtol=1e-12)
    np.testing.assert_allclose(slope, 4 / 3 * k1 * k2 * np.exp(k2 * r), rtol=1e-10)


def test_included_cards(tmp_path):
    (tmp_path / "wall.in").write_text(f"MATERIAL MAT {OLUFSEN}\n")
    text = tube(more="INCLUDE wall.in TRUE\nINCLUDE nowhere.in FALSE\n")
    text = text.replace(f"MATERIAL MAT {OLUFSEN}\n", "")
    assert read_svoned(written(tmp_path, text)).material[0].name == "MAT"
    (tmp_path / "wall.in").write_text("INCLUDE case.in TRUE\n")
    with pytest.raises(InputError, match=r"wall\.in:1: case\.in includes itself"):
        read_svoned(tmp_path / "case.in")


TIMES = "0 1\n0.5 2\n0.5 3\n1 1\n"
REFUSED = [
    ("leaks", tube(wall=f"{OLUFSEN} 1e-15 -1e15"), r":13: the wall of material MAT leaks.*outflow"),
    ("times again", tube(inlet=TIMES), r":8: the time is 0\.5 s, after 0\.5 s"),
    ("time back", tube(inlet="0 1 0.5 2\n0.4 3 1 1\n"), r":7: the time is 0\.4 s, after 0\.5 s"),
    ("times of an outlet", tube("PRESSURE_WAVE", TIMES), r":12: the time is 0\.5 s"),
    ("milliseconds", tube(inlet="0 1\n500 2\n1000 1\n"), r":8: the beat lasts 1000 s.*like ms"),
    ("microseconds", tube(inlet="0 1\n5e5 2\n1e6 1\n"), r":8: the beat lasts 1e\+06 s.*like us"),
    ("impedance", tube("IMPEDANCE"), r":4: .* is IMPEDANCE, an impedance .* not modelled"),
    ("short RCR", tube("RCR", "0 1 0 1\n"), r":9: the table OUT of seg0 has 2 entries"),
    ("negative RCR", tube("RCR", "0 1\n0 1e-5\n0 -3\n"), r":12: entry 3 of the table OUT .* is -3"),
    ("two models", tube(more="MODEL b\n"), r":14: the card MODEL is defined a second time.*:1\."),
    (
        "two tables",
        tube(more="DATATABLE IN LIST\n0 1\nENDDATATABLE\n"),
        r":14: .* IN .*:5\.",
    ),
    (
        "pressure varies",
        tube("PRESSURE", "0 1 1 2\n"),
        r":10: .* changes in time",
    ),
    (
        "wide stenosis",
        STENOSIS.replace(" 5.0 5.0 ", " 12 12 ") + f"MATERIAL MAT {OLUFSEN}\n",
        r":13: b is a STENOSIS of",
    ),
    (
        "long stenosis",
        STENOSIS.replace("b 1 10.0 50 1 2 5.0 5.0", "b 1 90.0 50 1 2 9.5 9.5")
        + f"MATERIAL MAT {OLUFSEN}\n",
        r":13: b is a STENOSIS of 90 cm length that is 2\.5% narrower .* friction",
    ),
    (
        "long stenosis of a flat profile",
        STENOSIS.replace("b 1 10.0 50 1 2 5.0 5.0", "b 1 90.0 50 1 2 7.0 7.0")
        + "MATERIAL MAT OLUFSEN 1.06 0.04 0 9.0 1.0e15 -20 1e9\n",
        r":13: b is a STENOSIS of 90 cm length that is 16\.3% narrower .* friction",
    ),
    (
        "loss of a branching",
        tube().replace("MAT NONE", "MAT BIFURCATION_BRANCH"),
        r":4: the minor loss is BIFURCATION_BRANCH, a loss at a branching, which is not modelled",
    ),
]


@pytest.mark.parametrize(("text", "says"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_refused_at_its_line(tmp_path, text, says):
    with pytest.raises(InputError, match=rf"case\.in{says}" if says[0] == ":" else says):
        read_svoned(written(tmp_path, text))


def two_stenoses(first, second):
    """A vessel of 10, 5, 2 and 10 cm², the inner two as stenoses on cards in either order."""
    segment = {
        1: "SEGMENT b 1 10.0 50 1 2 5.0 5.0 0.0 MAT STENOSIS 0.0 0 0 NOBOUND NONE\n",
        2: "SEGMENT c 2 10.0 50 2 3 2.0 2.0 0.0 MAT STENOSIS 0.0 0 0 NOBOUND NONE\n",
    }
    lines = STENOSIS.splitlines(keepends=True)
    at = next(i for i, line in enumerate(lines) if line.startswith("SEGMENT b"))
    end = "SEGMENT d 3 10.0 50 3 4 10.0 10.0 0.0 MAT NONE 0.0 0 0 RESISTANCE OUT\n"
    lines[at : at + 2] = [segment[first], segment[second], end]
    more = "NODE 4 0 0 40\nJOINT J2 3 I2 O2\nJOINTINLET I2 1 2\nJOINTOUTLET O2 1 3\n"
    return "".join(lines) + more + f"MATERIAL MAT {OLUFSEN}\n"


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_stenosis_after_a_stenosis_whatever_the_order_of_the_cards(tmp_path, order):
    case = read_svoned(written(tmp_path, two_stenoses(*order)))
    lesion, names = case.network.lesion, case.segment_name
    of = {names[int(s)]: i for i, s in enumerate(np.asarray(lesion.segment))}
    radius = {
        n: float(r) for n, r in zip(names, np.asarray(case.network.radius)[:, 0], strict=True)
    }
    for name, before, own in (("b", 10.0, 5.0), ("c", 5.0, 2.0)):
        assert radius[name] == pytest.approx(1e-2 * np.sqrt(before / np.pi))
        assert float(lesion.diameter_reduction[of[name]]) == pytest.approx(
            1 - np.sqrt(own / before)
        )
        f = (before / own) ** 2
        apparent = (0.083 * f - 0.1 + 3.28 * radius[name]) / (0.83 * (f - 1.0))
        assert float(lesion.length[of[name]]) == pytest.approx(apparent)


@pytest.mark.parametrize("period", [0.08, 0.1, 9.0, 100.0])
def test_a_period_that_no_human_heart_has_is_said(tmp_path, period):
    beat = f"0 1\n{0.5 * period:g} 2\n{period:g} 1\n"
    case = read_svoned(written(tmp_path, tube("PRESSURE_WAVE", beat, inlet=beat)))
    assert [f"lasts {period:g} s" in note for note in case.notes] == [True, True]
    assert case.notes[0].split(":")[1] == "8"
    assert float(case.boundary[0].flow.period) == period


def test_a_jump_between_beats_is_said(tmp_path):
    jumps = "0 1\n0.5 2\n1 4\n"
    found = read_svoned(written(tmp_path, tube("PRESSURE_WAVE", jumps, inlet=jumps))).notes
    assert [note.split(": ", 1)[1] for note in found] == [
        "the first value is 1 and the last 4: a jump at every beat."
    ] * 2
    assert read_svoned(written(tmp_path, tube(inlet="0 1\n0.5 2\n1 1.04\n"))).notes == ()


@requires_trials
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("duplicate_times.in", r"times\.in:8: the time is 0\.5 s, after 0\.5 s"),
        ("time_goes_back.yaml", r"back\.dat:6: the time is 0\.34 s, after 0\.35 s"),
        ("period_in_ms.in", r"in_ms\.in:9: the beat lasts 1000 s.*like ms"),
    ],
)
def test_trials_that_are_refused(name, says):
    with pytest.raises(InputError, match=says):
        read_foreign(TRIALS / "flow1d" / name)
