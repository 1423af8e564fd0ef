"""`jaxperf convert`: what returns from a round trip, and what is listed as lost."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import pyvista
from sample_texts import Y_CASE, Y_TREE
from test_show import OPENBF
from test_svzerod import CASE
from typer.testing import CliRunner

from jaxperf import InputError, PressureBoundary, ResistanceOutlet
from jaxperf._custom_types import as_leaf
from jaxperf.cli import app
from jaxperf.io import (
    QUANTITIES,
    read_centerlines,
    read_network_table,
    read_svoned,
    read_svzerod,
    read_swc,
    READERS,
    write_network_table,
    write_svzerod,
    write_swc,
    write_tree,
    WRITERS,
)
from jaxperf.jobs import convert_file, converted_lines
from jaxperf.network import build_lumped, build_network, FlowWaveform, PerfusedBed, Waveform

READ = {"swc": read_swc, "vtp": read_centerlines, "csv": read_network_table}
WRITE = {"swc": write_swc, "vtp": write_tree, "csv": write_network_table}
RTOL = 1e-9


@pytest.fixture
def svoned(tmp_path):
    path = tmp_path / "y.in"
    path.write_text(Y_CASE, encoding="utf-8")
    return path


def network_of(length=None):
    """Calibres that step at nodes, of numbers with all their digits."""
    rng = np.random.default_rng(3)
    position = 1e-2 * np.array([[0, 0, 0], [3, 0, 0], [6, 1, 0], [6, -2, 1], [9, 2, 0.5]])
    return build_network(
        position + 1e-4 * rng.random((5, 3)),
        np.array([[0, 1], [1, 2], [1, 3], [2, 4]]),
        1e-3 * (1.0 + rng.random((4, 2))),
        root=np.array([0]),
        frame="RAS",
        length=length,
        branch=np.array([0, 0, 1, 0]),
        branch_name=("LAD", "D1"),
    )


def by_place(network):
    """Places, radii and lengths of the segments, in the order of their distal ends."""
    node = np.asarray(network.node_position)[np.asarray(network.segment_node)]
    order = np.lexsort(node[:, 1].T)
    rows = [node.reshape(-1, 6), np.asarray(network.radius), np.asarray(network.length)[:, None]]
    names = [network.branch_name[i] for i in np.asarray(network.branch)[order]]
    return np.concatenate(rows, axis=1)[order], names


@pytest.mark.parametrize("suffix", READ)
def test_what_a_format_holds_of_a_tree_returns(tmp_path, suffix):
    length = None if suffix == "swc" else np.array([0.04, 0.05, 0.06, 0.07])
    network = network_of(length)
    WRITE[suffix](tmp_path / f"t.{suffix}", network)
    again = READ[suffix](tmp_path / f"t.{suffix}", units="mm", frame="RAS")
    (was, names), (now, new) = by_place(network), by_place(again)
    np.testing.assert_allclose(now, was, rtol=RTOL, atol=1e-15)
    assert again.frame == "RAS"
    assert (names == new) == (suffix != "swc")


def test_a_table_keeps_loops_and_swc_refuses_them(tmp_path):
    position = 1e-2 * np.array([[0, 0, 0], [3, 0, 0], [6, 1, 0], [6, -1, 0]])
    node = np.array([[0, 1], [1, 2], [1, 3], [2, 3]])
    loop = build_network(position, node, np.full((4, 2), 1e-3), root=np.array([0]), frame="model",
                         allow_loops=True)  # fmt: skip
    write_network_table(tmp_path / "loop.csv", loop)
    again = read_network_table(tmp_path / "loop.csv", units="mm", frame="model")
    assert again.segment_node.tolist() == loop.segment_node.tolist()
    assert len(again.topology.cut) == 1
    with pytest.raises(InputError, match="the network has loops"):
        write_swc(tmp_path / "loop.swc", loop)


NEW_NAMES = [
    "the names of conditions: they are named anew",
    "the names of junctions: they are named anew",
]


@pytest.mark.parametrize("units", ["cgs", "mmHg", "SI"])
def test_a_lumped_case_returns(tmp_path, units):
    source, target = tmp_path / "a.json", tmp_path / "b.json"
    source.write_text(json.dumps(CASE), encoding="utf-8")
    said = convert_file(source, target, units="cgs", to_units=units)
    assert said.lost == ["the description", *NEW_NAMES] and said.units == units
    a, b = (json.loads(x.read_text())["simulation_parameters"] for x in (source, target))
    assert a == b
    was, now = read_svzerod(source, units="cgs"), read_svzerod(target, units=units)
    assert now.network.segment_name == was.network.segment_name and now.period == was.period
    assert now.network.segment_node.tolist() == was.network.segment_node.tolist()
    for name in ("resistance", "quadratic", "inertance", "compliance", "length"):
        a, b = (np.asarray(getattr(x.network, name)) for x in (was, now))
        np.testing.assert_allclose(b, a, rtol=RTOL, atol=0)
    assert [type(c) for c in now.boundary] == [type(c) for c in was.boundary]
    for a, b in zip(was.boundary, now.boundary, strict=True):
        for name, value in vars(a).items():
            held, new = value, getattr(b, name)
            if isinstance(value, Waveform):
                np.testing.assert_allclose(new.time, value.time, rtol=RTOL)
                held, new = value.value, new.value
            np.testing.assert_allclose(new, held, rtol=RTOL, atol=1e-12 * np.abs(held).max())


def test_what_a_lumped_case_says_besides_is_lost(tmp_path):
    case = copy.deepcopy(CASE) | {"initial_condition": {}, "_by": "hand"}
    del case["description"]
    case["vessels"][3]["vessel_id"] = 9
    case["junctions"][0] |= {"outlet_vessels": [1, 2, 9], "areas": [1.0]}
    case["simulation_parameters"] |= {"absolute_tolerance": 1e-8, "output_all_cycles": True}
    source, target = tmp_path / "a.json", tmp_path / "b.json"
    source.write_text(json.dumps(case), encoding="utf-8")
    run = CliRunner().invoke(app, ["convert", str(source), str(target), "--units", "cgs",
                                   "--to-units", "SI", "--json"])  # fmt: skip
    assert json.loads(run.stdout)["lost"] == [
        f"{source}: initial_condition was not used.",
        *NEW_NAMES,
        "the ids of vessels: they are numbered from 0",
        "the simulation parameter absolute_tolerance",
        "junctions: areas",
        "the remark _by",
    ]
    kept = json.loads(target.read_text())["simulation_parameters"]
    assert kept["output_all_cycles"] is True and "absolute_tolerance" not in kept


def test_no_block_has_the_name_of_a_vessel(tmp_path):
    """Names that the writer would give to conditions and junctions."""
    names = ("IN0", "J1", "OUT1", "CLOSED3")
    network = build_lumped(
        np.array([[0, 1], [1, 2], [1, 3], [1, 4]]),
        root=np.array([0]),
        resistance=np.arange(1.0, 5.0),
        segment_name=names,
    )
    ends = (PressureBoundary(0, 1.0), ResistanceOutlet(np.array([2, 4]), np.ones(2), np.zeros(2)))
    path = tmp_path / "n.json"
    write_svzerod(path, network, ends, units="SI", period=1.0)
    again = read_svzerod(path, units="SI").network
    assert again.segment_name == names
    np.testing.assert_allclose(again.resistance, network.resistance, rtol=RTOL)
    raw = json.loads(path.read_text())
    blocks = [x["bc_name"] for x in raw["boundary_conditions"]]
    blocks += [x["junction_name"] for x in raw["junctions"]]
    assert len({*blocks, *names}) == len(blocks) + len(names) == 9
    twice = build_lumped(np.array([[0, 1], [1, 2]]), root=np.array([0]), resistance=np.ones(2),
                         segment_name=("a", "a"))  # fmt: skip
    with pytest.raises(InputError, match="2 segments are called a"):
        write_svzerod(path, twice, ends[:1], units="SI", period=1.0)


def test_what_stands_beside_a_tree_is_lost(tmp_path):
    """Results in a VTP file, columns of a table, types of an SWC file, and notes of the reader."""
    network = network_of()
    path = tmp_path / "t.vtp"
    write_tree(path, network, flow_ml_min=np.ones(4), lesion_diameter_reduction=np.full(4, 0.5),
               pressure_static_mmHg=np.ones((4, 2)))  # fmt: skip
    said = convert_file(path, tmp_path / "t.csv")
    assert sorted(said.lost) == [
        "the array flow_ml_min",
        "the array lesion_diameter_reduction",
        "the array pressure_static_mmHg",
    ]
    assert len(said.warnings) == 1 and "its lesions were not read" in said.warnings[0]
    assert converted_lines(said)[-1] == f"  note     {said.warnings[0]}"
    lines = (tmp_path / "t.csv").read_text().splitlines()
    more = [lines[0] + ",flow_ml_min", *(line + ",1" for line in lines[1:])]
    (tmp_path / "m.csv").write_text("\n".join(more))
    assert convert_file(tmp_path / "m.csv", tmp_path / "m.vtp").lost == ["the column flow_ml_min"]
    for kind, lost in (("3", ["the types of its points"]), ("0", [])):
        (tmp_path / "y.swc").write_text(f"# lumen\n1 {kind} 0 0 0 2 -1\n2 0 30 0 0 1.5 1\n")
        said = convert_file(tmp_path / "y.swc", tmp_path / f"{kind}.csv", units="mm", frame="LPS")
        assert said.lost == lost
    lines = pyvista.PolyData(np.array([[0.0, 0, 0], [10, 0, 0], [30, 5, 0]]), lines=[3, 0, 1, 2])
    lines["misr_mm"], lines["wall_shear"] = np.array([2.0, 1.8, 1.5]), np.ones(3)
    lines.save(tmp_path / "l.vtp")
    said = convert_file(tmp_path / "l.vtp", tmp_path / "l.csv", units="mm", frame="LPS")
    assert said.lost == ["the array wall_shear"] and "misr_mm" in said.warnings[0]


def test_lengths_that_are_lost_are_said_in_percent(tmp_path):
    straight = network_of()
    write_tree(tmp_path / "t.vtp", network_of(1.25 * np.asarray(straight.length)))
    said = convert_file(tmp_path / "t.vtp", tmp_path / "t.swc")
    assert any(x.startswith("lengths: ") and x.endswith("up to 20 %") for x in said.lost)


def test_notes_of_a_1d_case_are_said(svoned, tmp_path):
    """A record that jumps at every beat."""
    (tmp_path / "beat.dat").write_text("0 0\n0.2 4e-4\n0.5 0\n0.8 1e-4\n")
    (tmp_path / "case.yaml").write_text(OPENBF)
    said = convert_file(tmp_path / "case.yaml", tmp_path / "o.json", to_units="SI")
    assert any("a jump at every beat" in x for x in said.warnings)


def test_nodes_where_more_meets_become_junctions(tmp_path):
    """Two vessels at a root, an outlet at an inner node, a closed end, a wave that starts late."""
    network = build_lumped(
        np.array([[0, 1], [0, 2], [2, 3]]), root=np.array([0]), resistance=np.array([1.0, 2.0, 3.0])
    )
    late = Waveform(np.array([0.2, 0.7]), np.array([[1.0, 3.0]]), 1.0)
    ends = (FlowWaveform(0, late), ResistanceOutlet(np.array([1, 2]), np.ones(2), np.zeros(2)))
    write_svzerod(tmp_path / "j.json", network, ends, units="SI", period=1.0)
    again = read_svzerod(tmp_path / "j.json", units="SI")
    r = np.asarray(again.network.resistance)
    np.testing.assert_allclose(r, [1.0, 2.0, 3.0], rtol=RTOL)
    node = again.network.segment_node.tolist()
    assert node[0][0] == node[1][0] and node[1][1] == node[2][0]
    of_kind = {c.kind: c for c in again.boundary}
    wave = of_kind["flow waveform"].flow
    for t in (0.0, 0.1, 0.35, 0.9):
        found = np.interp(t, wave.time, wave.value[0], period=1.0)
        assert found == pytest.approx(np.interp(t, [0.2, 0.7], [1.0, 3.0], period=1.0))
    outlets = set(of_kind["resistance outlet"].node.tolist())
    assert outlets == {node[0][1], node[1][1]}
    closed = of_kind["prescribed flow"]
    assert closed.node.tolist() == [node[2][1]] and float(closed.flow[0]) == 0.0
    bed = PerfusedBed(1, 1.0, 1.0, 1.0, 1.0, as_leaf(np.ones((1, 1))), 0.0)
    with pytest.raises(InputError, match="a perfused bed ends the network"):
        write_svzerod(tmp_path / "k.json", network, (bed,), units="SI", period=1.0)


OF_A_CASE = (
    "the steps, cells and output that the case asks of its solver",
    "the names and numbers of its nodes, segments and tables",
)
GAPS = "the gaps between the ends of segments that are joined"


def test_a_1d_case_becomes_a_0d_one(svoned, tmp_path):
    said = convert_file(svoned, tmp_path / "y.json", to_units="cgs")
    case, now = read_svoned(svoned), read_svzerod(tmp_path / "y.json", units="cgs")
    area = np.pi * np.asarray(case.network.radius) ** 2
    r = np.sqrt(area / np.pi)
    shape = (r[:, 0] ** 2 + r[:, 0] * r[:, 1] + r[:, 1] ** 2) / (3 * (r[:, 0] * r[:, 1]) ** 3)
    poiseuille = 8 * 4e-3 / np.pi * np.asarray(case.network.length) * shape
    np.testing.assert_allclose(now.network.resistance, poiseuille, rtol=RTOL)
    assert now.network.segment_name == ("a_0", "a_1", "b_0", "a_2")
    assert np.asarray(now.network.compliance).min() > 0.0
    coronary = next(c for c in now.boundary if "coronary" in c.kind)
    # the sink of svOneDSolver is minus its P_ref
    assert coronary.pressure_ref.tolist() == pytest.approx([-300.0])
    assert [x.partition(":")[0] for x in said.lost] == [
        "branch names",
        "radii",
        "the course of the vessels",
        "the law of the wall",
        "density, viscosity and profile",
        "the frame, model",
        *OF_A_CASE,
        "static pressures",
    ]


def test_what_a_wall_of_openbf_does_besides_is_lost(tmp_path):
    """In a vessel that tapers R is exact, and the end is a windkessel."""
    (tmp_path / "beat.dat").write_text("0 0\n0.2 4e-4\n0.5 0\n0.8 0\n")
    (tmp_path / "case.yaml").write_text(OPENBF.replace("h0: 1e-3", "h0: 1e-3, phi: 9e3, Pext: 50"))
    said = convert_file(tmp_path / "case.yaml", tmp_path / "o.json", to_units="SI")
    assert "the viscosity of the wall" in said.lost
    assert "the pressure around the vessels" in said.lost
    case = read_svzerod(tmp_path / "o.json", units="SI")
    a, b = 0.01, 0.008
    shape = (a * a + a * b + b * b) / (3 * (a * b) ** 3)
    # openBF's profile exponent is 2 where none is given
    assert float(case.network.resistance[0]) == pytest.approx(
        8 * 4e-3 / np.pi * 0.1 * shape, rel=RTOL
    )
    assert float(case.boundary[1].resistance_distal[0]) == pytest.approx(1.8e9, rel=RTOL)


LOST = {
    "t.swc": {"branch names", "lengths", "the inlet and the outlets", "the wall", "the blood",
              "the frame, model", "the unit of length", GAPS, *OF_A_CASE},
    "t.vtp": {"the inlet and the outlets", "the wall", "the blood", GAPS, *OF_A_CASE},
    "t.csv": {"the inlet and the outlets", "the wall", "the blood", GAPS, *OF_A_CASE},
}  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_listed(svoned, tmp_path, name):
    said = convert_file(svoned, tmp_path / name)
    assert {x.partition(":")[0] for x in said.lost} == LOST[name]
    again = READ[name[2:]](tmp_path / name, units="mm", frame="model")
    was = read_svoned(svoned).network
    np.testing.assert_allclose(np.sort(np.ravel(again.radius)), np.sort(np.ravel(was.radius)),
                               rtol=RTOL)  # fmt: skip


def test_a_frame_is_changed_and_stated(tmp_path):
    (tmp_path / "t.swc").write_text(Y_TREE)
    convert_file(tmp_path / "t.swc", tmp_path / "t.vtp", units="mm", frame="LPS", to_frame="RAS")
    was = read_swc(tmp_path / "t.swc", units="mm", frame="LPS")
    now = read_centerlines(tmp_path / "t.vtp", units="mm", frame="RAS")
    turn = np.array([-1.0, -1.0, 1.0])
    a, b = (np.asarray(x.node_position) for x in (was, now))
    np.testing.assert_allclose(sorted((a * turn).tolist()), sorted(b.tolist()), atol=1e-15)


REFUSED = [
    ("t.swc", "o.vtp", {}, "it does not state its units"),
    ("t.swc", "o.vtp", {"units": "mm"}, "it does not state its frame"),
    ("t.swc", "o.json", {"to_units": "cgs"}, "it has no inlet and no outlets"),
    ("t.swc", "o.stl", {"units": "mm", "frame": "LPS"}, "no network is written to a file of"),
    ("t.swc", "t.swc", {"units": "mm", "frame": "LPS"}, "it exists"),
    ("t.swc", "o.csv", {"units": "mm", "frame": "LPS", "to_units": "cgs"}, "--to-units is cgs"),
    ("t.swc", "o.csv", {"units": "mm", "frame": "model", "to_frame": "LPS"}, "no rule from model"),
    ("y.in", "o.json", {}, "does not state the units of its numbers"),
    ("y.in", "o.json", {"to_units": "cgs", "frame": "LPS"}, "the frame is LPS"),
    ("y.in", "o.vtp", {"units": "mm"}, "says its own: cm, g, s"),
    ("a.json", "o.json", {"to_units": "cgs"}, "does not state the units of its numbers"),
    ("a.json", "o.vtp", {"units": "cgs"}, "no 0-D case is written to a file of this name"),
    ("a.json", "o.json", {"units": "cgs", "to_units": "psi"}, "units is 'psi'"),
    ("case.yaml", "o.vtp", {}, "knows no places of its vessels"),
    ("w.csv", "o.vtp", {}, "it holds pressure wires"),
]


@pytest.mark.parametrize(("source", "target", "options", "says"), REFUSED)
def test_what_cannot_be_converted_is_said(svoned, tmp_path, source, target, options, says):
    (tmp_path / "t.swc").write_text(Y_TREE)
    (tmp_path / "a.json").write_text(json.dumps(CASE))
    (tmp_path / "w.csv").write_text("branch,at_mm,ffr\nLAD,1,0.9\n")
    (tmp_path / "case.yaml").write_text(OPENBF)
    (tmp_path / "beat.dat").write_text("0 0\n0.2 4e-4\n0.5 0\n0.8 0\n")
    with pytest.raises(InputError) as refusal:
        convert_file(tmp_path / source, tmp_path / target, **options)
    assert says in str(refusal.value)


TABLE = [
    (lambda t: t.replace("frame", "frames"), "no column frame"),
    (lambda t: t.splitlines()[0], "no line after the names"),
    (lambda t: t.replace("RAS", "LPS", 1), "its frame is LPS, not RAS"),
    (lambda t: t.replace("LAD,RAS,1", "LAD,RAS,no"), "is_root is 'no'"),
    (lambda t: t.replace("LAD,RAS,1", "LAD,RAS,0"), "not connected to any root"),
    (lambda t: t.replace("\n0,", "\n0,,"), "the number of its fields is 16"),
    (lambda t: t.replace("LAD,RAS,1", "LAD,RAS,nan"), "is_root is 'nan'"),
    (lambda t: t.replace("LAD,RAS,1,", "LAD,RAS,1,-"), "a positive number"),
    (lambda t: "", "the file is empty"),
    (lambda t: t.replace("LAD,RAS,1", "LAD,RAS,2"), "is_root is '2'"),
    (lambda t: t.replace("\n1,LAD,RAS,0,", "\n1,LAD,RAS,0.5,"), "is_root is '0.5'"),
    (lambda t: t.replace(",0,", ",one,", 1), "a finite number"),
]


@pytest.mark.parametrize(("wrong", "says"), TABLE, ids=[s for _, s in TABLE])
def test_malformed_tables_are_refused(tmp_path, wrong, says):
    path = tmp_path / "t.csv"
    write_network_table(path, network_of())
    path.write_text(wrong(path.read_text()))
    with pytest.raises(InputError, match=r"t\.csv") as refusal:
        read_network_table(path, units="mm", frame="RAS")
    assert says in str(refusal.value)


def test_the_pages_show_what_each_format_holds():
    text = (Path(__file__).resolve().parents[1] / "docs" / "case.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in text.split("## Formats")[1].split("\n## ")[0].splitlines()
        if line.startswith("|")
    ]
    shown = {row[0]: tuple(row[1:]) for row in rows if len(row) == len(QUANTITIES) + 1}
    assert shown.pop("format") == QUANTITIES
    called = {"tree": "VTP of ours", "centerlines": "VTP of ours", "svoned": "svOneDSolver"}
    told = {
        called.get(row.name, row.name): tuple("yes" if q in row.keeps else "no" for q in QUANTITIES)
        for row in (*READERS, *WRITERS)
        if row.keeps
    }
    assert {k: v for k, v in shown.items() if set(v) != {"---"}} == told


def test_the_command_lists_what_is_lost(svoned, tmp_path):
    run = CliRunner().invoke(app, ["convert", str(svoned), str(tmp_path / "t.vtp"), "--json"])
    said = json.loads(run.stdout)
    assert said["target_format"] == "tree" and len(said["lost"]) == 6 and said["warnings"] == []
