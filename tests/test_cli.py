"""The command line from `init` to a complete run folder, and its exit codes."""

import csv
import errno
import gzip
import hashlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import pytest
import pyvista
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

import jaxperf
from jaxperf import InputError, jobs, RESULTS, SolveError
from jaxperf._defaults import CELL_TIME_RANGE, CELL_TOLERANCE_RANGE
from jaxperf.casefile import Case, Pulsatile
from jaxperf.cli import app, BAD_INPUT, FAILED_SOLVE
from jaxperf.io import read_swc
from jaxperf.jobs import write_starter

FILES = {
    "config.yaml",
    "versions.json",
    "written.json",
    "summary.json",
    "tree.vtp",
    "perfusion.vtu",
    "mbf_rest.nii.gz",
    "mbf_hyperemia.nii.gz",
    "segments17.csv",
    "branches.csv",
    "lesions.csv",
    "feeding.csv",
    "citation.bib",
    "report.html",
    "figures/bullseye.png",
    "figures/ffr_pullback.png",
    "figures/scene.png",
}
KEYS = {
    "n_vessels",
    "n_terminals",
    "n_cells",
    "mbf_mean_ml_min_g",
    "mbf_by_segment",
    "cfr_mean",
    "ffr_min",
    "ffr_by_branch",
    "mass_balance_relative_error",
    "newton_iterations",
    "linear_iterations",
    "seconds",
    "labels",
    "warnings",
    "seed",
}
runner = CliRunner()
# what must not come into a run folder from the place or the header of an input
PATIENT = "DOE^JOHN^19500101"


def test_the_version_is_that_of_the_package():
    result = runner.invoke(app, ["--version"])
    assert result.exit_code == 0
    assert result.output.strip() == jaxperf.__version__ == version("jaxperf")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A run of the starter on a coarse ventricle, through the command line."""
    folder = tmp_path_factory.mktemp(PATIENT)
    path = write_starter(folder / "inputs", spacing_mm=5.0)
    tree = folder / "inputs" / "tree.swc"
    tree.write_text(f"# {PATIENT}\n{tree.read_text()}")
    # the standard promotion is what a user's process has
    result = runner.invoke(
        app, ["run", str(path), "--out", str(folder / "out"), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return folder / "out", result


def test_json_is_the_summary(done):
    folder, result = done
    printed = json.loads(result.stdout)
    assert printed.pop("out") == str(folder)
    assert printed == json.loads((folder / "summary.json").read_text())


def test_every_file_is_there(done):
    folder, _ = done
    found = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert found == FILES
    assert not [p for p in folder.parent.iterdir() if p.name.startswith(".")]


def test_summary(done):
    said = json.loads((done[0] / "summary.json").read_text())
    assert set(said) >= KEYS
    assert said["mbf_mean_ml_min_g"]["rest"] == pytest.approx(1.0, rel=0.01)
    assert 2.5 < said["mbf_mean_ml_min_g"]["hyperemia"] < 4.0
    assert said["mass_balance_relative_error"] < 1e-9
    assert set(said["mbf_by_segment"]) == {str(i) for i in range(1, 18)}
    assert set(said["seconds"]) == {"setup", "compile", "solve"}
    assert max(said["newton_iterations"].values()) <= 8
    (lesion,) = said["lesions"]
    assert 0.5 < lesion["ffr"] < 0.95
    assert said["ffr_by_branch"]["LAD"] <= lesion["ffr"] + 1e-6
    assert said["ffr_by_branch"]["LCx"] > 0.9
    assert said["mbf_by_territory"]["LAD"]["cfr"] < said["mbf_by_territory"]["LCx"]["cfr"]
    assert said["labels"] == ["synthetic"]


def test_configuration_reproduces_the_case(done):
    raw = yaml.safe_load((done[0] / "config.yaml").read_text())
    case = Case.model_validate(raw)
    assert case.lesions[0].branch == "LAD"
    versions = json.loads((done[0] / "versions.json").read_text())
    assert {"python", "jax", "equinox", "numpy"} <= set(versions)


def _ffr_on(path, branch, mm):
    """FFR along a branch of a written tree, which knows nothing of how we find places."""
    tree = pyvista.read(path)
    names = list(tree.cell_data["branch_name"])
    line = tree.lines.reshape(-1, 3)[:, 1:]
    ends = [line[i] for i, name in enumerate(names) if name == branch]
    at = lambda point: tuple(np.round(tree.points[point], 4))
    after = {at(a): (a, b) for a, b in ends}
    (here,) = set(after) - {at(b) for _, b in ends}
    arc, ffr = [0.0], [tree.point_data["ffr"][after[here][0]]]
    while here in after:
        a, b = after[here]
        arc.append(arc[-1] + np.linalg.norm(tree.points[b] - tree.points[a]))
        ffr.append(tree.point_data["ffr"][b])
        here = at(b)
    return np.interp(mm, arc, ffr)


def test_no_place_and_no_patient_is_in_a_run_folder(done):
    folder, _ = done
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        for planted in (PATIENT, str(folder.parent), str(Path.home())):
            assert planted.encode() not in content, path
    inputs = json.loads((folder / "versions.json").read_text())["inputs"]
    tree = (folder.parent / "inputs" / "tree.swc").read_bytes()
    assert inputs["tree.swc"] == hashlib.sha256(tree).hexdigest()


def test_tables(done):
    with (done[0] / "segments17.csv").open() as file:
        segments = list(csv.DictReader(file))
    assert [int(row["segment"]) for row in segments] == list(range(1, 18))
    assert sum(float(row["mass_g"]) for row in segments) == pytest.approx(130.0, rel=0.1)
    for row in segments[:12]:  # at the apex a coarse wall has no two halves
        half = [float(row[f"mbf_hyperemia_{name}_ml_min_g"]) for name in ("endo", "epi")]
        assert min(half) < float(row["mbf_hyperemia_ml_min_g"]) < max(half)
    text = (done[0] / "lesions.csv").read_text()
    (row,) = csv.DictReader(text.splitlines())
    assert float(row["ffr_behind_at_mm"]) == float(row["end_mm"]) + 20.0
    assert max(len(x.strip("0.")) for x in row.values() if x[:1].isdigit()) <= 7
    ratio = lambda mm: _ffr_on(done[0] / "tree.vtp", "LAD", mm)
    assert float(row["ffr"]) == pytest.approx(ratio(float(row["end_mm"])), abs=2e-3)
    assert float(row["ffr_behind"]) == pytest.approx(ratio(float(row["end_mm"]) + 20.0), abs=2e-3)
    with (done[0] / "branches.csv").open() as file:
        branches = {row["branch"]: row for row in csv.DictReader(file)}
    total = float(branches["LM"]["flow_rest_ml_min"]) + float(branches["RCA"]["flow_rest_ml_min"])
    assert total == pytest.approx(130.0, rel=0.1)


def test_tree_and_tissue(done):
    tree = pyvista.read(done[0] / "tree.vtp")
    assert {"ffr", "pressure_static_hyperemia_mmHg", "radius_mm"} <= set(tree.point_data)
    assert {"flow_rest_ml_min", "branch", "synthetic", "branch_name"} <= set(tree.cell_data)
    tissue = pyvista.read(done[0] / "perfusion.vtu")
    arrays = {
        "pressure_tissue_hyperemia_mmHg",
        "mbf_rest_ml_min_g",
        "territory",
        "aha_segment",
        "transmural_depth",
    }
    assert arrays <= set(tissue.cell_data)
    said = json.loads((done[0] / "summary.json").read_text())
    mean = np.asarray(tissue.cell_data["mbf_hyperemia_ml_min_g"]).mean()
    assert mean == pytest.approx(said["mbf_mean_ml_min_g"]["hyperemia"])


def test_maps_are_on_the_input_grid_in_ras(done):
    image = nibabel.load(done[0] / "mbf_rest.nii.gz")
    given = nibabel.load(done[0].parent / "inputs" / "ventricle.nii.gz")
    np.testing.assert_allclose(image.affine, given.affine, atol=1e-4)
    assert nibabel.aff2axcodes(np.abs(image.affine)) == ("R", "A", "S")
    wall = np.asarray(given.dataobj) == 1
    values = np.asarray(image.dataobj)
    assert values[~wall].max() == 0.0
    assert values[wall].mean() == pytest.approx(1.0, rel=0.01)
    assert b"ml/min/g; synthetic" in bytes(image.header["descrip"])


def test_a_run_folder_is_not_overwritten_by_accident(done):
    folder, _ = done
    case = str(folder.parent / "inputs" / "case.yaml")
    result = runner.invoke(app, ["run", case, "--out", str(folder)])
    assert result.exit_code == BAD_INPUT
    assert "--overwrite" in result.stderr
    other = folder.parent / "precious"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    result = runner.invoke(app, ["run", case, "--out", str(other), "--overwrite"])
    assert result.exit_code == BAD_INPUT
    assert (other / "thesis.txt").exists()


def test_a_bad_case_is_one_sentence_and_exit_code_two(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text("kind: patient\n")
    result = runner.invoke(app, ["run", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == BAD_INPUT
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_refuses_a_tree_off_its_ventricle(tmp_path):
    path = write_starter(tmp_path / "inputs", spacing_mm=5.0)
    rows = np.loadtxt(path.with_name("tree.swc"))
    rows[:, 4] += 80.0
    form = ["%d", "%d", "%.6f", "%.6f", "%.6f", "%.6f", "%d"]
    np.savetxt(path.with_name("tree.swc"), rows, fmt=form)
    result = runner.invoke(app, ["run", str(path), "--out", str(tmp_path / "out")])
    assert result.exit_code == BAD_INPUT
    assert "outside the wall" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_failed_solve_is_exit_code_one(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise SolveError(RESULTS.nonfinite, "The worst vessel is LAD (vessel 1, segment 4).")

    monkeypatch.setattr(jobs, "run_case", fail)
    result = runner.invoke(app, ["demo", "--out", str(tmp_path / "out")])
    assert result.exit_code == FAILED_SOLVE
    assert "LAD" in result.stderr and result.stderr.count("\n") == 1


def test_a_failed_run_leaves_no_folder(tmp_path):
    from jaxperf.jobs import run_folder

    def failing():
        with run_folder(tmp_path / "out", False) as folder:
            (folder / "half").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        failing()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_meanwhile_is_kept(tmp_path):
    from jaxperf.jobs import run_folder

    out = tmp_path / "out"
    said = r"it exists.* The run is in out-\w+ beside it"
    with pytest.raises(InputError, match=said), run_folder(out, False) as folder:
        (folder / "mbf.csv").write_text("hours of work")
        out.mkdir()
        (out / "thesis.txt").write_text("years of work")
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    (beside,) = (p for p in tmp_path.iterdir() if p != out)
    assert (beside / "mbf.csv").read_text() == "hours of work"


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file" / "run")
    result = runner.invoke(app, ["demo", "--out", out])
    assert result.exit_code == BAD_INPUT
    assert out in result.stderr and "cannot be created" in result.stderr


def test_json_has_no_nan():
    from jaxperf.io import json_text

    assert json.loads(json_text({"cfr": float("nan")})) == {"cfr": None}


def test_init_and_check(tmp_path):
    folder = tmp_path / "new"
    result = runner.invoke(app, ["init", str(folder)], catch_exceptions=False)
    assert result.exit_code == 0
    assert {p.name for p in folder.iterdir()} == {"case.yaml", "tree.swc", "ventricle.nii.gz"}
    result = runner.invoke(app, ["check", str(folder / "case.yaml"), "--json"])
    assert result.exit_code == 0 and json.loads(result.stdout) == []
    assert runner.invoke(app, ["init", str(folder)]).exit_code == BAD_INPUT
    text = (folder / "case.yaml").read_text().replace("units: mm", "units: inch")
    (folder / "case.yaml").write_text(text)
    result = runner.invoke(app, ["check", str(folder / "case.yaml")])
    assert result.exit_code == BAD_INPUT
    assert "tree.units" in result.stderr


def test_schema_is_printed():
    result = runner.invoke(app, ["schema"])
    assert json.loads(result.stdout)["properties"]["tree"]


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EROFS, errno.ENAMETOOLONG, errno.EACCES, errno.EIO]
)
@pytest.mark.parametrize("command", ["init", "check", "run", "grow"])
def test_what_the_system_refuses_is_a_sentence(tmp_path, monkeypatch, number, command):
    """Disk full, read-only, a name too long: whatever no reader and no writer has put in words."""

    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number), str(tmp_path / "place"))

    work = {"init": "write_starter", "run": "run_case", "grow": "grow_case"}
    place = ("jaxperf.study.check_case",) if command == "check" else (jobs, work[command])
    monkeypatch.setattr(*place, refuse)
    case = tmp_path / "case.yaml"
    case.write_text(jobs.demo_case(5.0).model_dump_json())
    more = ["--out", str(tmp_path / "out")] if command == "run" else []
    result = runner.invoke(app, [command, str(case), *more])
    assert result.exit_code == BAD_INPUT, result.output
    assert os.strerror(number) in result.stderr and "place" in result.stderr
    assert result.stderr.count("\n") == 1


def test_init_in_no_place(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "heart", tmp_path / ("n" * 300)):
        result = runner.invoke(app, ["init", str(folder)])
        assert result.exit_code == BAD_INPUT and result.stderr.count("\n") == 1, result.output
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_vtk_files_on_a_full_disk(tmp_path):
    """VTK's own file writer ends the process there; a limit of the file's size does the same."""
    script = (
        "import resource, jaxperf as jp\n"
        "tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n"
        "try:\n    jp.io.write_tree('tree.vtp', tree)\n"
        "except OSError as error:\n    print('refused', error.errno)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(jobs.__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["refused", str(errno.EFBIG)], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_branches_are_listed(tmp_path):
    path = write_starter(tmp_path / "inputs", spacing_mm=5.0)
    table = runner.invoke(app, ["check", str(path), "--branches"]).stdout.splitlines()
    assert table[0].split()[:2] == ["branch", "automatic"]
    listed = json.loads(runner.invoke(app, ["check", str(path), "--branches", "--json"]).stdout)
    assert [line.split("  ")[0] for line in table[1:]] == [row["branch"] for row in listed]
    rows = {row["branch"]: row for row in listed}
    raw = yaml.safe_load(path.read_text())
    unit = {"units": raw["tree"]["units"], "frame": raw["tree"]["frame"]}
    file = path.parent / raw["tree"]["file"]
    tree = read_swc(file, branch_name=raw["tree"]["branches"], **unit)
    plain = read_swc(file, **unit)
    for name, row in rows.items():
        # the end of a branch, by its own name, by its automatic one, and as the place it leaves
        tip = tree.node_position[tree.outlet(name)]
        assert tree.at(name, mm=row["length_mm"]).node == tree.outlet(name)
        if row["automatic"] is not None:
            assert np.array_equal(plain.node_position[plain.outlet(row["automatic"])], tip)
        if row["parent"] is not None:
            origin = tree.at(name, mm=0.0).node
            assert tree.at(row["parent"], mm=row["at_mm"]).node == origin
    assert rows["RCA"]["parent"] is None and rows["RCA"]["territory"] == "RCA"
    assert rows["LAD"]["parent"] == "LM" and rows["S1"]["territory"] == "LAD"
    # what is wrong with the lesions is no reason not to list what they could lie on
    raw["lesions"][0]["branch"] = "LDA"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    assert json.loads(runner.invoke(app, ["check", str(path), "--branches", "--json"]).stdout)
    lost = runner.invoke(app, ["check", str(tmp_path / "none.yaml"), "--branches"])
    assert lost.exit_code == BAD_INPUT and lost.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "key", "bounds"),
    [
        ("--cell-time", "cell_time_s", CELL_TIME_RANGE),
        ("--cell-tolerance", "cell_tolerance", CELL_TOLERANCE_RANGE),
    ],
)
def test_cells_have_one_range_in_a_case_and_in_the_command(option, key, bounds):
    low, high = bounds
    for value in (0.9 * low, 1.1 * high):
        said = CliRunner().invoke(app, ["flow1d", "x.in", "--out", "y", option, str(value)])
        assert said.exit_code == 2 and "Invalid value" in said.output
        with pytest.raises(ValidationError):
            Pulsatile.model_validate({key: value})
    for value in bounds:
        assert getattr(Pulsatile.model_validate({key: value}), key) == value
