"""`jaxperf show`: what it says of a file of each kind, and what it refuses."""

import json

import nibabel
import numpy as np
import pytest
from sample_texts import Y_CASE, Y_TREE
from typer.testing import CliRunner

from jaxperf import InputError
from jaxperf.cli import app, BAD_INPUT
from jaxperf.geometry import kuhn_tetrahedra
from jaxperf.io import read_swc, write_csv, write_perfusion, write_tree
from jaxperf.jobs import show_file, shown_lines

OPENBF = """\
project_name: one vessel
inlet_file: beat.dat
blood: {rho: 1060, mu: 4e-3}
solver: {Ccfl: 0.9, cycles: 20, convergence_tolerance: 2.0}
network:
  - {label: aorta, sn: 1, tn: 2, L: 0.1, E: 4e5, Rp: 0.01, Rd: 0.008, h0: 1e-3,
     outlet: wk3, R1: 2e8, R2: 1.8e9, Cc: 2e-10}
"""


@pytest.fixture
def swc(tmp_path):
    path = tmp_path / "tree.swc"
    path.write_text(Y_TREE, encoding="utf-8")
    return path


def test_a_tree_says_its_branches_and_the_only_unit_that_fits(swc):
    shown = show_file(swc)
    assert (shown.format, shown.holds) == ("swc", "tree")
    assert shown.units == "not stated by the file; its size fits mm only"
    assert shown.frame == "not stated by the file"
    network = read_swc(swc, units="mm", frame="LPS")
    assert shown.counts["segments"] == network.n_segments
    assert sum(b.length_mm for b in shown.branches) == pytest.approx(
        float(np.sum(np.asarray(network.length))) * 1e3, rel=1e-12
    )
    assert shown.branches[0].diameter_start_mm == pytest.approx(4.0)
    assert show_file(swc, units="mm", frame="RAS").frame == "RAS"


def test_a_tree_of_ours_states_unit_and_frame(swc, tmp_path):
    network = read_swc(swc, units="mm", frame="RAS")
    write_tree(tmp_path / "tree.vtp", network)
    shown = show_file(tmp_path / "tree.vtp")
    assert (shown.units, shown.frame) == ("mm", "RAS")
    assert [b.branch for b in shown.branches] == list(network.branch_name)
    with pytest.raises(InputError, match="its unit is mm, not cm"):
        show_file(tmp_path / "tree.vtp", units="cm")


def test_a_case_says_its_ends(tmp_path):
    path = tmp_path / "y.in"
    path.write_text(Y_CASE, encoding="utf-8")
    shown = show_file(path)
    assert (shown.format, shown.holds) == ("svOneDSolver", "1-D case")
    assert {b.branch: b.segments for b in shown.branches} == {"a": 3, "b": 1}
    assert {b.branch: b.length_mm for b in shown.branches} == pytest.approx({"a": 35, "b": 14})
    inlet, resistance, coronary = shown.ends
    # the mean of the triangle from 100 to 140 kdyn/cm²
    assert inlet.values["pressure_Pa"] == pytest.approx(1.2e4) and inlet.period_s == 1.0
    assert (resistance.branch, resistance.values["resistance_Pa_s_m3"]) == ("b", 1e10)
    assert coronary.branch == "a" and "coronary outlet" in coronary.kind
    with pytest.raises(InputError, match="says its own: cm, g, s"):
        show_file(path, units="mm")
    assert show_file(path, format="svoned").holds == "tree"


def test_a_case_without_places_shows_none(tmp_path):
    (tmp_path / "beat.dat").write_text("0 0\n0.2 4e-4\n0.5 0\n0.8 0\n")
    (tmp_path / "case.yaml").write_text(OPENBF)
    shown = show_file(tmp_path / "case.yaml")
    assert shown.extent_mm == [] and shown.branches[0].diameter_end_mm == pytest.approx(16.0)
    assert [e.kind for e in shown.ends] == ["flow waveform", "windkessel outlet"]
    assert shown.ends[0].values["flow_m3_s"] == pytest.approx(0.5 * 0.5 * 4e-4 / 0.8)


def test_images_say_labels_or_values(tmp_path):
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    for name, values in {
        "labels": np.arange(24).reshape(2, 3, 4) % 3,
        "flow": np.linspace(0, 2, 24).reshape(2, 3, 4),
    }.items():
        image = nibabel.Nifti1Image(values.astype(np.float32), affine)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, tmp_path / f"{name}.nii.gz")
    shown = show_file(tmp_path / "labels.nii.gz")
    assert shown.shape == [2, 3, 4] and shown.spacing_mm == pytest.approx([2, 3, 4])
    assert shown.labels == pytest.approx({"0": 0.192, "1": 0.192, "2": 0.192})
    assert (shown.units, shown.frame, shown.holds) == ("mm", "RAS", "labels")
    shown = show_file(tmp_path / "flow.nii.gz")
    assert shown.labels == {} and shown.holds == "scan"
    assert shown.arrays["values"] == pytest.approx([0.0, 2.0])


def test_meshes_and_tables_say_their_size(tmp_path):
    box = kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02))
    write_perfusion(tmp_path / "box.vtu", box, height_m=box.point[:, 2])
    shown = show_file(tmp_path / "box.vtu")
    assert shown.volume_ml == pytest.approx(8.0) and shown.units == "mm"
    assert shown.arrays["height_m"] == pytest.approx([0.0, 0.02])
    write_csv(tmp_path / "wire.csv", [{"branch": "LAD", "at_mm": 40.0, "ffr": 0.8}])
    shown = show_file(tmp_path / "wire.csv")
    assert (shown.format, shown.counts, shown.columns) == ("FFR", {"rows": 1}, ["branch", "at_mm",
                                                                                "ffr"])  # fmt: skip
    beat = [{"time_s": 0.1 * i, "pressure_mmHg": 90.0 + i} for i in range(9)]
    write_csv(tmp_path / "beat.csv", beat)
    assert show_file(tmp_path / "beat.csv").arrays["pressure_mmHg"] == [90.0, 98.0]


NOT_FINITE = "values that are no finite number"


def test_values_that_are_no_number_are_counted_and_print_as_json(tmp_path):
    box = kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02))
    height = box.point[:, 2].copy()
    height[:2] = np.nan, np.inf
    nothing = np.full(len(height), np.nan)
    write_perfusion(tmp_path / "box.vtu", box, height_m=height, nothing_m=nothing)
    shown = show_file(tmp_path / "box.vtu")
    assert shown.arrays == {"height_m": [0.0, pytest.approx(0.02)]}
    assert shown.counts[NOT_FINITE] == 2 + len(height)
    (tmp_path / "wire.csv").write_text("branch,at_mm,ffr,more\nLAD,40,0.8,nan\nLAD,50,0.7,-inf\n")
    image = nibabel.Nifti1Image(np.full((2, 2, 2), np.nan, np.float32), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "map.nii.gz")
    for name in ("box.vtu", "wire.csv", "map.nii.gz"):
        run = CliRunner().invoke(app, ["show", str(tmp_path / name), "--json"])
        said = json.loads(run.stdout, parse_constant=pytest.fail)
        assert any(said["counts"].get(k) for k in (NOT_FINITE, "voxels that are no number"))


@pytest.mark.parametrize(
    ("name", "text", "options", "says"),
    [
        ("a.swc", "", {}, "the file is empty"),
        ("a.swc", Y_TREE.replace("40 12", "forty 12"), {}, "a.swc:6: it is not numeric"),
        ("a.swc", Y_TREE, {"frame": "RAI"}, "the frame is 'RAI'"),
        ("a.swc", Y_TREE, {"units": "inch"}, "units is 'inch'"),
        ("a.swc", Y_TREE, {"format": "obj"}, "no format is 'obj'"),
        ("a.txt", "hello\n", {}, "in no known format of a file"),
        ("a.yaml", "tree: {}\n", {}, "in no known format of a file"),
        ("a.csv", "x,y\n1,2\n", {}, "in no known format of a file"),
        ("a.nii", "no image", {}, "header cannot be read"),
        ("a.vtp", "<VTKFile/>", {}, "VTK cannot read it"),
        ("a.vtu", "no grid", {}, "VTK cannot read it"),
    ],
)
def test_what_cannot_be_shown_is_said(tmp_path, name, text, options, says):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as refusal:
        show_file(tmp_path / name, **options)
    assert says in str(refusal.value)


def test_the_command_says_it_in_lines_and_as_json(swc):
    runner = CliRunner()
    said = runner.invoke(app, ["show", str(swc)]).stdout
    assert said.splitlines() == shown_lines(show_file(swc))
    as_json = json.loads(runner.invoke(app, ["show", str(swc), "--json"]).stdout)
    assert as_json == show_file(swc).model_dump()
    assert runner.invoke(app, ["show", "nowhere.swc"]).exit_code == BAD_INPUT
