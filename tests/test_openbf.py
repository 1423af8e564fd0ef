"""openBF cases."""

import numpy as np
import pytest
from helpers import data_dir, requires_data

from jaxperf import InputError
from jaxperf.io import read_openbf
from jaxperf.network import FlowWaveform, PressureWaveform, WindkesselOutlet

# An aorta that tapers, a carotid, and an iliac that goes on as two vessels side by side.
CASE = """\
project_name: small
inlet_file: beat.dat
write_results: ["P", "Q"]
blood:
  rho: 1060.0
  mu: 4.e-3
solver:
  Ccfl: 0.9
  cycles: 20
  convergence_tolerance: 2.0
network:
  - label: aorta
    sn: 1
    tn: 2
    L: 0.1
    E: 400.0e3
    Rp: 0.012
    Rd: 0.01
    h0: 1.0e-3
    Pext: 9000.0
  - label: carotid
    sn: 2
    tn: 9
    L: 0.2
    E: 700.0e3
    R0: 4.0e-3
    M: 50
    outlet: wk3
    R1: 2.0e8
    R2: 1.8e9
    Cc: 2.0e-10
    Pout: 500.0
  - label: iliac
    sn: 2
    tn: 3
    L: 0.05
    E: 500.0e3
    R0: 6.0e-3
    gamma profile: 2
    visco-elastic: false
  - label: left
    sn: 3
    tn: 4
    L: 0.08
    E: 500.0e3
    R0: 3.0e-3
    phi: 4.0e4
    to_save: false
  - label: right
    sn: 3
    tn: 4
    L: 0.12
    E: 500.0e3
    R0: 3.0e-3
  - label: end
    sn: 4
    tn: 5
    L: 0.05
    E: 500.0e3
    R0: 4.0e-3
    outlet: wk2
    R1: 1.5e9
    Cc: 1.0e-10
"""
INLET = "0 0\n0.2 4.0e-4\n0.5 0\n0.8 0\n"

# The same in the spelling of version 1: the inlet belongs to the vessel.
OLD_CASE = (
    CASE.replace("project_name", "project name")
    .replace("inlet_file: beat.dat\n", "")
    .replace("convergence_tolerance", "convergence tolerance")
    .replace("    gamma profile: 2\n", "")
    .replace(
        "label: aorta\n",
        "label: aorta\n    inlet: Q\n    inlet file: beat.dat\n    inlet number: 1\n",
    )
)


def read(folder, text=CASE, inlet=INLET):
    (folder / "case.yaml").write_text(text, encoding="utf-8")
    (folder / "beat.dat").write_text(inlet, encoding="utf-8")
    return read_openbf(folder / "case.yaml")


def law(radius):
    return 0.2802 * np.exp(-505.3 * radius) + 0.1324 * np.exp(-11.14 * radius)


def test_network(tmp_path):
    case = read(tmp_path)
    network = case.network
    assert case.name == "small"
    assert network.branch_name == ("aorta", "carotid", "iliac", "left", "right", "end")
    # nodes 1, 2, 3, 4, 5, 9
    pairs = [[0, 1], [1, 5], [1, 2], [2, 3], [2, 3], [3, 4]]
    assert network.segment_node.tolist() == pairs
    assert network.length.tolist() == [0.1, 0.2, 0.05, 0.08, 0.12, 0.05]
    assert network.radius[0].tolist() == [0.012, 0.01]
    assert network.radius[1].tolist() == [4e-3, 4e-3]
    assert network.roots.tolist() == [0]
    assert network.terminals.tolist() == [4, 5]
    assert len(network.topology.cut) == 1
    assert len(np.unique(np.asarray(network.node_position), axis=0)) == 6


def test_vessel_towards_the_inlet_is_turned_round(tmp_path):
    back = "  - {label: back, sn: 4, tn: 2, L: 0.1, E: 5e5, Rp: 3e-3, Rd: 2e-3}\n"
    case = read(tmp_path, CASE + back)
    assert case.network.segment_node[-1].tolist() == [1, 3]
    assert case.network.radius[-1].tolist() == [2e-3, 3e-3]
    assert case.stiffness_segment[-1] == pytest.approx(5e5 * law(np.array([2e-3, 3e-3])))


def test_wall(tmp_path):
    case = read(tmp_path)
    stiffness = case.stiffness_segment
    assert stiffness[0] == pytest.approx([400e3 * 1e-3 / 0.012, 400e3 * 1e-3 / 0.01])
    assert stiffness[1] == pytest.approx([700e3 * law(4e-3)] * 2)
    assert case.pressure_external.tolist() == [9000.0, 0, 0, 0, 0, 0]
    # Γ = 2/3 √π φ h
    gamma = 2.0 / 3.0 * np.sqrt(np.pi) * 4e4 * law(3e-3) * 3e-3
    assert case.wall_viscosity == pytest.approx([0, 0, 0, gamma, 0, 0])


def test_thickness_follows_the_local_radius_or_the_mean_one(tmp_path):
    radius, mean = np.array([0.012, 0.01]), 0.011
    local = read(tmp_path, CASE.replace("    h0: 1.0e-3\n", ""))
    assert local.stiffness_segment[0] == pytest.approx(400e3 * law(radius))
    old = read(tmp_path, OLD_CASE.replace("    h0: 1.0e-3\n", ""))
    assert old.stiffness_segment[0] == pytest.approx(400e3 * law(mean) * mean / radius)


def test_blood_and_solver(tmp_path):
    case = read(tmp_path)
    assert float(case.blood.density) == 1060.0
    assert float(case.blood.profile_exponent) == 2.0
    assert float(case.blood.alpha) == 1.0
    assert (case.period, case.n_cycles, case.cfl) == (0.8, 20, 0.9)
    assert case.convergence_tolerance == pytest.approx(2 * 133.322)
    assert case.saved == ("aorta", "carotid", "iliac", "right", "end")


def test_inlet_and_outlets(tmp_path):
    inlet, outlet = read(tmp_path).boundary
    assert isinstance(inlet, FlowWaveform)
    assert inlet.node.tolist() == [0]
    assert inlet.flow.time.tolist() == [0, 0.2, 0.5, 0.8]
    assert inlet.flow.value.tolist() == [[0, 4e-4, 0, 0]]
    assert float(inlet.flow.period) == 0.8
    assert isinstance(outlet, WindkesselOutlet)
    assert outlet.node.tolist() == [5, 4]
    assert outlet.compliance.tolist() == [2e-10, 1e-10]
    assert outlet.pressure_ref.tolist() == [500.0, 0.0]
    # two elements: the proximal resistance is the impedance ρc/A, with c² = (2/3)(Eh/r)/ρ
    impedance = np.sqrt(1060 * 2 / 3 * 500e3 * law(4e-3)) / (np.pi * 4e-3**2)
    assert outlet.resistance_proximal.tolist() == pytest.approx([2e8, impedance])
    assert (outlet.resistance_proximal + outlet.resistance_distal).tolist() == pytest.approx(
        [2e9, 1.5e9]
    )


def test_matched_impedance_keeps_the_total_resistance(tmp_path):
    text = CASE.replace("    R1: 2.0e8\n", "    R1: 2.0e8\n    inlet_impedance_matching: true\n")
    outlet = read(tmp_path, text).boundary[1]
    impedance = np.sqrt(1060 * 2 / 3 * 700e3 * law(4e-3)) / (np.pi * 4e-3**2)
    assert float(outlet.resistance_proximal[0]) == pytest.approx(impedance)
    assert float(outlet.resistance_proximal[0] + outlet.resistance_distal[0]) == pytest.approx(2e9)


def test_wk3_without_a_second_resistance_is_wk2(tmp_path):
    first = read(tmp_path).boundary[1]
    second = read(tmp_path, CASE.replace("outlet: wk2", "outlet: wk3")).boundary[1]
    assert second.resistance_proximal.tolist() == first.resistance_proximal.tolist()


def test_version_1(tmp_path):
    case = read(tmp_path, OLD_CASE)
    assert isinstance(case.boundary[0], FlowWaveform)
    assert float(case.blood.profile_exponent) == 9.0
    assert float(case.blood.alpha) == 1.0
    assert case.convergence_tolerance is None
    inlet = read(tmp_path, OLD_CASE.replace("inlet: Q", "inlet: P"), "0 9e3\n1 9e3\n").boundary[0]
    assert isinstance(inlet, PressureWaveform)
    assert inlet.pressure.value.tolist() == [[9e3, 9e3]]


def test_two_inlets(tmp_path):
    second = "  - {label: second, sn: 7, tn: 2, L: 0.1, E: 4e5, R0: 0.01, inlet: P, "
    text = OLD_CASE + second + "inlet file: beat.dat}\n"
    case = read(tmp_path, text)
    assert case.network.roots.tolist() == [0, 5]
    assert [type(b) for b in case.boundary] == [FlowWaveform, PressureWaveform, WindkesselOutlet]
    assert case.boundary[1].node.tolist() == [5]


def test_inlet_named_after_the_project(tmp_path):
    (tmp_path / "small_inlet.dat").write_text("0 0\n\n1 1e-4\n")
    case = read(tmp_path, CASE.replace("inlet_file: beat.dat\n", ""))
    assert case.period == 1.0


def change(old, new):
    assert old in CASE
    return CASE.replace(old, new, 1)


# name: text of the case or of the inlet file, what the message names, words of the complaint
MALFORMED = [
    ("no YAML", change("blood:", "blood: ["), "case.yaml", "no YAML in line"),
    ("a list", "- 1\n", "case.yaml", "holds a list"),
    ("no section", change("solver:\n  Ccfl: 0.9\n  cycles: 20\n  convergence_tolerance: 2.0\n", ""),
     "case.yaml", "the key solver is missing"),
    ("unknown key", change("Rd: 0.01", "Rdd: 0.01"), "vessel aorta", "the key Rdd is unknown"),
    ("unknown solver key", change("cycles: 20", "cycle: 20"), "case.yaml", "cycle"),
    ("key twice", change("gamma profile: 2", "gamma profile: 2\n    gamma_profile: 9"),
     "case.yaml", "gamma_profile is given twice"),
    ("missing key", change("    L: 0.2\n", ""), "vessel carotid", "the key L is missing"),
    ("no number", change("E: 700.0e3", "E: stiff"), "vessel carotid", "E is 'stiff'"),
    ("truth for a number", change("E: 700.0e3", "E: true"), "vessel carotid", "E is True"),
    ("vessel without keys", change("  - label: iliac", "  - thin\n  - label: iliac"),
     "vessel number 3", "a mapping"),
    ("unknown quantity", change('"P", "Q"', '"P", "V"'), "case.yaml", "write_results is 'V'"),
    ("pressure in mbar", change("Pout: 500.0", "Pout: 5e6"), "vessel carotid", "Pout is '5e6'"),
    ("NaN", change("Pext: 9000.0", "Pext: .nan"), "vessel aorta", "Pext is nan"),
    ("negative length", change("L: 0.2", "L: -0.2"), "vessel carotid", "greater than or equal"),
    ("length in mm", change("L: 0.2", "L: 200.0"), "vessel carotid", "less than or equal to 2"),
    ("radius in mm", change("R0: 4.0e-3", "R0: 4.0"), "vessel carotid", "R0 is 4.0"),
    ("no radius", change("    R0: 4.0e-3\n", ""), "vessel carotid", "either R0, or Rp"),
    ("two radii", change("R0: 4.0e-3", "R0: 4.0e-3\n    Rp: 4.0e-3"), "vessel carotid",
     "either R0"),
    ("vessel to itself", change("tn: 9", "tn: 2"), "vessel carotid", "sn and tn are both 2"),
    ("no label", change("label: carotid", "label: ''"), "vessel number 2", "at least 1 character"),
    ("label twice", change("label: right", "label: left"), "vessel left", "used twice"),
    ("reflection", change("R1: 1.5e9", "Rt: 0.5"), "vessel end", "reflection coefficient"),
    ("reflection by name", change("outlet: wk2", "outlet: reflection"), "vessel end", "reflection"),
    ("half a windkessel", change("    Cc: 1.0e-10\n", ""), "vessel end", "R1 and Cc"),
    ("zero resistance", change("R1: 1.5e9", "R1: 0.0"), "vessel end", "greater than 0"),
    ("wk2 with R2", change("R1: 1.5e9", "R1: 1.5e9\n    R2: 1e9"), "vessel end", "no R2"),
    ("below the impedance", change("R1: 1.5e9", "R1: 1.5e6"), "vessel end", "its impedance is"),
    ("viscoelastic wall", change("visco-elastic: false", "visco-elastic: true"), "vessel iliac",
     "twice"),
    ("two profiles", change("gamma profile: 2", "gamma profile: 9"), "vessel iliac",
     "gamma_profile is 9"),
    ("no outlet", change("    outlet: wk2\n    R1: 1.5e9\n    Cc: 1.0e-10\n", ""), "vessel end",
     "without an outlet"),
    ("outlet inside", change("    gamma profile: 2", "    R1: 1e9\n    Cc: 1e-10"),
     "vessel iliac", "goes on at node 3"),
    ("no way in", change("sn: 4\n", "sn: 8\n"), "vessel left", "without an outlet"),
    ("second source", change("sn: 3\n    tn: 4\n    L: 0.12", "sn: 8\n    tn: 4\n    L: 0.12"),
     "vessel right", "no vessel leads to its start, node 8"),
    ("no inlet", change("sn: 1", "sn: 11"), "network", "no vessel starts at node 1"),
    ("inlet inside", change("tn: 9", "tn: 1"), "vessel aorta", "joins other vessels"),
    ("a ring", CASE[: CASE.index("  - label: carotid")] + "".join(
        f"  - {{label: {n}, sn: {a}, tn: {b}, L: 0.1, E: 1e5, R0: 0.01}}\n"
        for n, a, b in (("u", 2, 3), ("v", 3, 2))), "network", "at least one outlet"),
    ("density", change("rho: 1060.0", "rho: 1.06"), "case.yaml", "rho is 1.06"),
    ("Courant number", change("Ccfl: 0.9", "Ccfl: 1.5"), "case.yaml", "Ccfl is 1.5"),
    ("absent inlet", change("beat.dat", "heart.dat"), "heart.dat", "no such file"),
    ("inlet: words", "0 0\nat one 1e-4\n", "beat.dat:2", "at one"),
    ("inlet: three columns", "0 0 0\n1 0 0\n", "beat.dat:1", "two finite numbers"),
    ("inlet: late start", "0.1 0\n1 0\n", "beat.dat", "from 0 to the period"),
    ("inlet: backwards", "0 0\n0.5 0\n0.4 1e-5\n", "beat.dat:3", "is 0.4 s, after 0.5 s"),
    ("inlet: one line", "0 1e-4\n", "beat.dat", "at least two lines"),
    ("inlet: ml/s", "0 0\n0.2 400\n1 0\n", "beat.dat", "Check the unit"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "names", "says"), MALFORMED, ids=[m[0] for m in MALFORMED]
)
def test_refused_with_a_sentence(name, text, names, says, tmp_path):
    with pytest.raises(InputError) as caught:
        if name.startswith("inlet:"):
            read(tmp_path, inlet=text)
        else:
            read(tmp_path, text)
    message = str(caught.value)
    assert names in message
    assert says in message
    assert ". Expected " in message


def test_version_1_refusals(tmp_path):
    with pytest.raises(InputError, match=r"aorta: .* do not fit .* inlet and inlet_file together"):
        read(tmp_path, OLD_CASE.replace("    inlet file: beat.dat\n", ""))
    second = "  - {label: second, sn: 7, tn: 2, L: 0.1, E: 4e5, R0: 0.01, inlet: Q, "
    (tmp_path / "other.dat").write_text("0 0\n1 0\n")
    with pytest.raises(InputError, match="inlets of one period"):
        read(tmp_path, OLD_CASE + second + "inlet file: other.dat}\n")


@requires_data
def test_adan56():
    case = read_openbf(data_dir() / "adan56" / "adan56.yaml")
    network = case.network
    assert (network.n_segments, network.n_vessels, len(network.terminals)) == (77, 77, 31)
    assert len(network.topology.cut) == 0
    assert float(network.length.sum()) == pytest.approx(8.888740629900001)
    assert network.branch_name[0] == "aortic_arch_I"
    assert network.radius[0].tolist() == pytest.approx([0.01595, 0.0129524399])
    assert case.pressure_external.tolist() == [10000.0] * 77
    inlet, outlet = case.boundary
    assert (case.period, float(inlet.flow.value.max())) == (1.0, 5.72734e-4)
    # mean inflow times the resistance of all outlets: a physiological mean pressure
    mean = np.trapezoid(inlet.flow.value[0], inlet.flow.time) / case.period
    resistance = 1.0 / float((1.0 / (outlet.resistance_proximal + outlet.resistance_distal)).sum())
    assert 80 < mean * resistance / 133.322 < 110
    assert set(outlet.node.tolist()) == set(network.terminals.tolist())
    assert float(outlet.compliance.sum()) == pytest.approx(2.38166997455e-09)
    # E h / r grows as the vessels narrow
    order = np.argsort(np.asarray(network.radius).ravel())
    assert (np.diff(case.stiffness_segment.ravel()[order]) <= 1e-9).all()
