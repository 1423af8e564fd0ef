"""A forest in a case: schema, growing into a file, resuming, and runs that use the file."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import pyvista
from growth_case import growth_case, write_case
from pydantic import ValidationError
from typer.testing import CliRunner

from jaxperf import InputError, Progress
from jaxperf.casefile import Case, Growth, load_case
from jaxperf.cli import app, BAD_INPUT
from jaxperf.geometry import TetMesh, transmural_depth
from jaxperf.growth import fingerprint, Forest, load_forest
from jaxperf.study import (
    build_heart,
    check_case,
    growth_problem,
    healthy_tree,
    prepare_case,
    territory_shares,
)

REPOSITORY = Path(__file__).resolve().parents[1]
ARRAYS = [name for name in Forest.__annotations__ if name not in {"settings", "frame"}]
LESION = {"branch": "LAD", "start_mm": 2.0, "end_mm": 16.0, "diameter_reduction": 0.5}
runner = CliRunner()


def same(first: Forest, second: Forest) -> None:
    """Bit for bit, the seconds it took apart."""
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
    assert first.about["fingerprint"] == second.about["fingerprint"]


@pytest.fixture(scope="session")
def grown(tmp_path_factory):
    """A folder with a case and its forest, grown through the command line, and what was printed."""
    folder = tmp_path_factory.mktemp("growth")
    content = growth_case(folder, file="forest.npz")
    path = write_case(folder, content)
    result = runner.invoke(app, ["grow", str(path), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder, content, json.loads(result.stdout)


def variant(grown, name: str, growth: dict, **sections) -> Path:
    """Another case beside the grown one."""
    folder, content, _ = grown
    section = {**content["growth"], **growth}
    section = {key: value for key, value in section.items() if value is not None}
    return write_case(folder, {**content, **sections, "growth": section}, f"{name}.yaml")


GOOD = [
    {},
    {"exponent": 2.3333},
    {"exponent_by_radius": {"small": 3.0, "large": 2.4}},
    {"territory_share_percent": "calibre"},
    {"territory_share_percent": {"LAD": 50, "LCx": 25, "RCA": 25}},
    {"terminal_diameter_um": 120, "epicardial_fraction": 0.0, "file": "a/b.npz"},
]
BAD = [
    ({"n_terminals": 0}, "greater than or equal to 1"),
    ({"exponent": 2.0}, "greater than or equal to 2.3"),
    ({"exponent": 2.7, "exponent_by_radius": {"small": 3, "large": 2.5}}, "not both"),
    (
        {"exponent_by_radius": {"small": 3, "large": 2.5, "radius_small_um": 900}},
        "radius_small_um must be below radius_large_um",
    ),
    ({"territory_share_percent": {"LAD": 45, "LCx": 28}}, "must sum to 100; found 73"),
    ({"territory_share_percent": {"LAD": 145, "LCx": -45}}, "greater than 0"),
    ({"territory_share_percent": "area"}, "'calibre'"),
    ({"epicardial_fraction": 1.0}, "less than 1"),
    ({"terminal_diameter_um": 0}, "greater than or equal to 10"),
    ({"file": "forest.vtp"}, "must end in .npz"),
    ({"root_spacing": 11}, "Extra inputs"),
]


@pytest.mark.parametrize("section", GOOD, ids=str)
def test_good_settings(section):
    growth = Growth.model_validate(section)
    assert Growth.model_validate(growth.model_dump(mode="json")) == growth


@pytest.mark.parametrize(("section", "says"), BAD, ids=lambda x: str(x)[:40])
def test_bad_settings(section, says):
    with pytest.raises(ValidationError, match=says):
        Growth.model_validate(section)


def test_no_forest_without_the_section():
    content = {"kind": "synthetic", "tree": {"built_in": "demo"}, "ventricle": {"ellipsoid": {}}}
    assert Case.model_validate(content).growth is None


def test_growing_writes_the_forest_and_a_picture(grown):
    folder, content, told = grown
    said = told["forest"]
    assert {p.name for p in folder.iterdir() if p.name.startswith("forest")} == {
        "forest.npz",
        "forest.vtp",
    }
    forest = load_forest(folder / "forest.npz")
    assert said["terminals"] == forest.n_terminals == content["growth"]["n_terminals"]
    assert said["trees"] == forest.n_trees and said["anatomy"] == "synthetic"
    assert said["seconds"] > 0.0 and said["terminals_per_s"] > 0.0
    assert 0.0 < said["stub_length_median_mm"] <= said["stub_length_max_mm"] < 15.0
    assert set(said["territories"]) == {"LAD", "LCx", "RCA"}
    assert said["territories"]["LAD"]["share_target"] == pytest.approx(0.45)
    assert sum(t["share_projected"] for t in said["territories"].values()) == pytest.approx(1.0)
    assert sum(t["terminals"] for t in said["territories"].values()) == forest.n_terminals
    picture = pyvista.read(folder / "forest.vtp")
    assert "radius_mm" in picture.point_data
    assert {"order", "tree", "territory", "territory_name", "stage", "terminal"} <= set(
        picture.cell_data
    )
    assert np.asarray(picture.cell_data["terminal"]).sum() == forest.n_terminals
    added = np.asarray(picture.cell_data["tree"]) >= 0
    assert added.sum() == forest.radius.size
    names = np.asarray(picture.cell_data["branch_name"])[added]
    assert all(name.startswith("forest of ") and name.endswith("(synthetic)") for name in names)


def test_a_forest_is_not_grown_over_by_accident(grown):
    folder, _, _ = grown
    before = (folder / "forest.npz").read_bytes()
    result = runner.invoke(app, ["grow", str(folder / "case.yaml")])
    assert result.exit_code == BAD_INPUT and "--overwrite" in result.stderr
    assert (folder / "forest.npz").read_bytes() == before


def test_check_accepts_the_forest(grown):
    found = check_case(grown[0] / "case.yaml", grown[0])
    assert [f for f in found if f.severity == "error"] == []


def test_the_file_is_what_a_run_would_grow(grown):
    folder, _, _ = grown
    anew = variant(grown, "anew", {"file": None})
    first = prepare_case(load_case(folder / "case.yaml"), folder, Progress())
    second = prepare_case(load_case(anew), folder, Progress())
    assert first.grown is not None and second.grown is not None
    same(first.grown.forest, second.grown.forest)
    same(first.grown.forest, load_forest(folder / "forest.npz"))
    forest, tree = first.grown.forest, first.tree
    np.testing.assert_array_equal(
        np.asarray(first.network.node_position)[tree.n_nodes :], forest.position
    )
    np.testing.assert_array_equal(
        np.asarray(first.problem.tissue.terminal_node), np.sort(forest.terminal) + tree.n_nodes
    )


def test_a_lesion_does_not_change_the_forest(grown):
    folder, _, _ = grown
    sick = variant(grown, "sick", {}, lesions=[LESION])
    healthy = prepare_case(load_case(folder / "case.yaml"), folder, Progress())
    prepared = prepare_case(load_case(sick), folder, Progress())
    assert healthy.grown is not None and prepared.grown is not None
    same(prepared.grown.forest, healthy.grown.forest)
    network, lesion = prepared.network, prepared.network.lesion
    assert np.asarray(lesion.diameter_reduction).tolist() == [0.5]
    # the lesion spans the origins of grown trees, which are no junctions of the segmented vessel
    inside = np.asarray(network.segment_node)[np.asarray(lesion.segment)]
    assert {network.branch_name[int(b)] for b in network.branch[lesion.segment]} == {"LAD"}
    roots = prepared.grown.forest.root_node
    assert np.isin(roots, np.intersect1d(inside[:, 0], inside[:, 1])).any()


@pytest.mark.parametrize(
    ("growth", "says"),
    [
        ({"seed": 3}, "seed was 0 and is 3"),
        ({"root_spacing_mm": 25.0}, "root_spacing_m was 0.009 and is 0.025"),
        ({"exponent": 3.0}, "exponent_small was 2.7 and is 3"),
        ({"file": "other.npz"}, "other.npz"),
    ],
    ids=["seed", "spacing", "exponent", "no file"],
)
def test_a_run_refuses_the_forest_of_another_case(grown, tmp_path, growth, says):
    path = variant(grown, "other", growth)
    result = runner.invoke(app, ["run", str(path), "--quiet", "--out", str(tmp_path / "out")])
    assert result.exit_code == BAD_INPUT
    assert says in result.stderr and "jaxperf grow" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
    errors = [f for f in check_case(path, grown[0]) if f.severity == "error"]
    assert len(errors) == 1 and "forest" in errors[0].message + errors[0].where


def test_a_changed_tree_is_named(grown):
    folder, content, _ = grown
    rows = np.loadtxt(folder / "tree.swc")
    rows[-1, 2] += 0.01
    np.savetxt(folder / "moved.swc", rows, fmt=["%d", "%d", *["%.6f"] * 4, "%d"])
    path = variant(grown, "moved", {}, tree={**content["tree"], "file": "moved.swc"})
    (error,) = [f for f in check_case(path, folder) if f.severity == "error"]
    assert error.where == str(folder / "forest.npz")
    assert "the tree or the ventricle has changed" in error.message


_KILLED = """
import functools, os, sys
from jaxperf import _progress, cli
from jaxperf.jobs import _grow

path, least, number = sys.argv[1], *map(int, sys.argv[2:])

class Killed(_progress.Progress):
    def tell(self, what, done=None, total=None):
        if done is not None and done >= least:
            os.kill(os.getpid(), number)

_grow.grow_forest = functools.partial(_grow.grow_forest, checkpoint_seconds=0.0)
_progress.Progress = Killed
sys.argv = ["jaxperf", "grow", path]
cli.main()
"""


def test_a_killed_growth_goes_on_from_its_checkpoint(grown, tmp_path):
    folder = tmp_path
    many = {"n_terminals": 700, "file": "forest.npz"}
    path = write_case(folder, growth_case(folder, **many))
    partial, begun = folder / "forest.partial.npz", 0
    for least, number, code in (
        (200, signal.SIGHUP, 128 + signal.SIGHUP),
        (500, signal.SIGKILL, -signal.SIGKILL),
    ):
        killed = subprocess.run(
            [sys.executable, "-c", _KILLED, str(path), str(least), str(int(number))],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        assert killed.returncode == code, killed.stderr
        assert {p.name for p in folder.glob("*forest*")} == {partial.name}
        with np.load(partial) as stored:
            before, begun = begun, int(stored["growth.taken"].sum())
        assert before < begun < 700
    result = runner.invoke(app, ["grow", str(path)], catch_exceptions=False)
    assert result.exit_code == 0 and "going on from" in result.stderr
    assert not partial.exists()
    whole = runner.invoke(app, ["grow", str(path), "--out", str(folder / "whole.npz"), "--quiet"])
    assert whole.exit_code == 0 and whole.output == ""
    same(load_forest(folder / "forest.npz"), load_forest(folder / "whole.npz"))


def test_command_line_errors(grown, tmp_path):
    folder, content, _ = grown
    bare = write_case(folder, {k: v for k, v in content.items() if k != "growth"}, "bare.yaml")
    unnamed = variant(grown, "unnamed", {"file": None})
    for arguments, says in (
        (["grow", str(bare)], "no section growth"),
        (["grow", str(unnamed)], "names no file"),
        (["grow", str(unnamed), "--out", str(tmp_path / "f.vtp")], "'.vtp'"),
        (["grow", str(unnamed), "--out", str(tmp_path / "no" / "f.npz")], "no folder"),
        (["grow", str(folder / "nothing.yaml")], "no such file"),
        (["growth-report", str(unnamed), "--out", str(tmp_path / "r")], "names no file"),
        (
            ["growth-report", str(bare), "--forest", "f.npz", "--out", str(tmp_path / "r")],
            "no section growth",
        ),
    ):
        result = runner.invoke(app, [*arguments, "--quiet"])
        assert result.exit_code == BAD_INPUT, arguments
        assert says in result.stderr and result.stderr.count("\n") == 1


def test_territory_shares():
    names = ("LAD", "RCA (synthetic)", "LCx")
    shares = lambda given, names=names, dominance="right": territory_shares(
        Growth(territory_share_percent=given), names, dominance
    )
    assert shares(None) == (("LAD", 45.0), ("RCA (synthetic)", 27.0), ("LCx", 28.0))
    assert shares("calibre") is None and shares(None, ("branch 0", "LAD")) is None
    # a left tree alone is no right-dominant heart whose RCA may be left out of the sum
    left = ("LAD", "LCx")
    assert shares(None, left, None) is None and shares(None, left, "right") is None
    assert shares(None, left, "left") == (("LAD", 45.0), ("LCx", 55.0))
    assert shares(None, names, "left") is None
    given = shares({"RCA": 20.0, "LAD": 50.0, "LCx": 30.0})
    assert dict(given) == {"LAD": 50.0, "LCx": 30.0, "RCA (synthetic)": 20.0}
    assert shares({"RCA (synthetic)": 20.0, "LAD": 50.0, "LCx": 30.0}) == given
    with pytest.raises(InputError, match=r"each of LAD, RCA"):
        shares({"LAD": 60.0, "LCx": 40.0})


def test_an_outlet_of_its_own_carries_no_tree(grown):
    folder, _, _ = grown
    outlets = [{"branch": "PDA", "flow_ml_min": 3.0}]
    path = variant(grown, "outlet", {"file": None}, boundary={"outlets": outlets})
    prepared = prepare_case(load_case(path), folder, Progress())
    assert prepared.grown is not None
    flow = prepared.problem.boundary[1]
    node = int(flow.node[0])
    assert node not in prepared.grown.forest.root_node
    assert node not in np.asarray(prepared.problem.tissue.terminal_node)
    assert prepared.problem.tissue.n_terminals == prepared.grown.forest.n_terminals


def test_a_wall_of_tetrahedra_alone(grown):
    folder, content, _ = grown
    ventricle = {**content["ventricle"], "mesh": "tetrahedra"}
    case = Case.model_validate({**content, "ventricle": ventricle})
    heart = build_heart(case, folder)
    assert isinstance(heart.mesh, TetMesh)
    depth = transmural_depth(heart.mesh, heart.frame)
    tree = healthy_tree(case, folder, heart)
    labelled = growth_problem(case, tree, heart, depth)
    assert fingerprint(labelled) == load_forest(folder / "forest.npz").about["fingerprint"]
    bare = type(heart)(heart.mesh, heart.frame, None, None, 2, 3)
    voxels = growth_problem(case, tree, bare, depth).mesh
    assert voxels.volume.sum() == pytest.approx(heart.mesh.volume.sum(), rel=0.05)


def test_the_report(grown, tmp_path):
    folder, _, _ = grown
    arguments = ["growth-report", str(folder / "case.yaml"), "--out", str(tmp_path / "report")]
    result = runner.invoke(app, [*arguments, "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    names = {"forest.png", "morphometry.png", "morphometry.json", "morphometry.csv", "written.json"}
    assert {p.name for p in (tmp_path / "report").iterdir()} == names
    said = json.loads((tmp_path / "report" / "morphometry.json").read_text())
    assert json.loads(result.stdout)["forest"] == said["forest"]
    for vessels in said["vessels"].values():
        assert vessels["terminals"] == said["forest"]["terminals"]
    assert set(said["kassab_1993"]) == {"RCA", "LAD", "LCX"}
    assert 0.0 < said["forest"]["terminal_region_mm3"]["cv"] < 0.6
    assert runner.invoke(app, arguments).exit_code == BAD_INPUT


@pytest.fixture(scope="session")
def run(grown):
    """A run with a lesion on the grown forest, through the command line."""
    folder, _, _ = grown
    path = variant(grown, "run", {}, lesions=[LESION], output={"figures": False})
    result = runner.invoke(
        app, ["run", str(path), "--out", str(folder / "out"), "--json"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    return folder / "out", json.loads(result.stdout)


def test_a_run_reaches_the_split_of_its_forest(run):
    _, said = run
    forest = said["forest"]
    assert said["n_terminals"] == forest["terminals"] == 200 and said["seed"] == 0
    assert sum(t["share_rest"] for t in forest["territories"].values()) == pytest.approx(1.0)
    for name, row in forest["territories"].items():
        assert abs(row["share_rest"] / row["share_target"] - 1.0) < 0.05, name
        assert row["share_rest_error"] == pytest.approx(row["share_rest"] / row["share_target"] - 1)
    assert said["mbf_mean_ml_min_g"]["rest"] == pytest.approx(1.0, rel=0.02)
    assert said["mass_balance_relative_error"] < 1e-9
    for state in ("rest", "hyperemia"):
        pressure = forest["terminal_pressure_total_mmHg"][state]
        assert 15.0 < pressure["min"] <= pressure["mean"] <= pressure["max"] < 93.0


def test_the_files_of_a_run_with_a_forest(run):
    folder, said = run
    names = {p.name for p in folder.iterdir()}
    assert {"morphometry.json", "morphometry.csv"} <= names
    assert "forest.npz" not in names  # the case keeps its own
    tree = pyvista.read(folder / "tree.vtp")
    added = np.asarray(tree.cell_data["tree"]) >= 0
    assert np.asarray(tree.cell_data["synthetic"])[added].all()
    assert {"order", "stage", "terminal", "territory"} <= set(tree.cell_data)
    # pressure falls in arterioles in health too, which is no FFR of a branch
    assert set(said["ffr_by_branch"]) == {"LM", "LAD", "D1", "LCx", "RCA", "PDA"}
    rows = (folder / "branches.csv").read_text().splitlines()
    assert any(row.startswith("forest of LAD (synthetic),synthetic,True") for row in rows)


@pytest.mark.slow
def test_a_run_that_grows_keeps_its_forest(grown):
    folder, _, _ = grown
    path = variant(grown, "keep", {"file": None})
    out = folder / "kept"
    result = runner.invoke(app, ["run", str(path), "--out", str(out), "--quiet"])
    assert result.exit_code == 0, result.output
    same(load_forest(out / "forest.npz"), load_forest(folder / "forest.npz"))
    pictures = {p.name for p in (out / "figures").iterdir()}
    assert {"forest.png", "morphometry.png", "scene.png"} <= pictures
