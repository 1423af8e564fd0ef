"""The directions of a case: labels without an RV, points by hand, grooves; what checks say."""

import dataclasses
import re
from pathlib import Path

import hearts
import nibabel
import numpy as np
import pytest
import yaml
from hearts import cut_above, cut_below, heart, hole
from helpers import requires_trials, TRIALS

from jaxperf import InputError
from jaxperf._custom_types import as_leaf
from jaxperf._misc import InputNote
from jaxperf.anatomy import demo_tree, septum_from_grooves
from jaxperf.casefile import Case
from jaxperf.geometry import aha17, ellipsoid_ventricle, lv_frame_from_labels, lv_frame_from_points
from jaxperf.io import network_in_frame, read_voxel_labels
from jaxperf.study import build_heart, check_case, geometry_findings, read_tree

TRUE = hearts.true_frame()
# mm, RAS
APEX, BASE, RIGHT = (
    (np.array([-1.0, -1.0, 1.0]) * 1e3 * x).tolist()
    for x in (TRUE.apex, TRUE.base_centre, TRUE.apex + 0.04 * TRUE.septal)
)
DEMO = demo_tree(ellipsoid_ventricle(spacing_mm=5.0)[2])


def angle(a, b):
    return np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0)))


def labels_file(folder: Path, *changes: hearts.Change) -> None:
    mesh = heart(*changes)
    affine = np.diag([-1e3, -1e3, 1e3, 1.0]) @ mesh.affine
    image = nibabel.Nifti1Image(mesh.label.astype(np.uint8), affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "heart.nii.gz")


def case_of(folder: Path, *changes: hearts.Change, rv: int | None = 3, **more: object) -> Case:
    """A case of the labels after changes, and of a tree with an LAD and a PDA in the grooves."""
    labels_file(folder, *changes)
    row = 1
    lines = []
    ends = {}
    for name, turn in (("LAD", 62.0), ("PDA", -58.0)):
        for i, z in enumerate(np.linspace(24.0, -45.0, 20)):
            r = 36.0 * np.sqrt(max(1.0 - (z / 71.0) ** 2, 0.05))
            x, y = r * np.cos(np.radians(turn)), r * np.sin(np.radians(turn))
            lines.append(f"{row} 2 {x:.3f} {y:.3f} {z:.3f} 1.2 {-1 if i == 0 else row - 1}")
            row += 1
        ends[row - 1] = name
    (folder / "tree.swc").write_text("\n".join(lines) + "\n")
    names = {"wall": 1, "cavity": 2} | ({} if rv is None else {"rv": rv})
    content = {
        "kind": "patient",
        "tree": {"file": "tree.swc", "units": "mm", "frame": "LPS", "branches": ends},
        "ventricle": {"labels": {"file": "heart.nii.gz", **names}, **more},
    }
    (folder / "case.yaml").write_text(yaml.safe_dump(content))
    return Case.model_validate(content)


def by_hand(**points: object) -> dict:
    return {"landmarks": {"frame": "RAS", **points}}


# --- the septum from the grooves ---


def test_the_septum_lies_between_lad_and_pda():
    frame = lv_frame_from_points(
        np.array([0, 0, -0.062]), np.array([0, 0, 0.022]), np.array([-0.3, 0.4, 0]), frame="model"
    )
    septal, used = septum_from_grooves(DEMO, frame)
    assert used == "LAD and PDA"
    assert angle(septal, np.array([1.0, 0, 0])) < 2.0
    assert abs(septal @ frame.long_axis) < 1e-12
    names = tuple("RV1" if n == "PDA" else n for n in DEMO.branch_name)
    septal, used = septum_from_grooves(dataclasses.replace(DEMO, branch_name=names), frame)
    assert used == "LAD"
    assert angle(septal, np.array([1.0, 0, 0])) < 8.0


def test_grooves_that_are_no_septum_apart_are_refused():
    frame = lv_frame_from_points(
        np.array([0, 0, -0.062]), np.array([0, 0, 0.022]), np.array([0.3, 0.4, 0]), frame="model"
    )
    swap = {"LAD": "PDA", "PDA": "LAD"}
    turned = dataclasses.replace(DEMO, branch_name=tuple(swap.get(n, n) for n in DEMO.branch_name))
    with pytest.raises(InputError, match=r"from PDA to LAD it is 23.° about"):
        septum_from_grooves(turned, frame)
    names = tuple(n.replace("LAD", "vessel") for n in DEMO.branch_name)
    with pytest.raises(InputError, match="the tree no LAD beside the ventricle"):
        septum_from_grooves(dataclasses.replace(DEMO, branch_name=names), frame)


def test_a_mask_of_wall_and_cavity_alone(tmp_path):
    case = case_of(tmp_path, hearts.without_rv, rv=None)
    with pytest.warns(InputNote, match="taken from the course of LAD and PDA"):
        found = build_heart(case, tmp_path)
    assert found.rv_label is None
    assert angle(found.frame.long_axis, TRUE.long_axis) < 1.0
    assert angle(found.frame.septal, TRUE.septal) < 3.0
    findings = check_case(tmp_path / "case.yaml", tmp_path)
    assert [f.message for f in findings if "course of LAD" in f.message]
    assert not [f for f in findings if f.severity == "error"]
    case = case_of(tmp_path, hearts.without_rv, rv=None, **by_hand(rv_mm=RIGHT))
    assert angle(build_heart(case, tmp_path).frame.septal, TRUE.septal) < 1.0


def test_an_rv_that_the_case_does_not_name_is_said(tmp_path):
    case = case_of(tmp_path, rv=None)
    with (
        pytest.warns(
            InputNote, match="label 3, which the case does not name, covers .* name it as"
        ),
        pytest.warns(InputNote, match="taken from the course"),
    ):
        build_heart(case, tmp_path)


# --- points by hand ---


def test_points_by_hand_mend_what_the_labels_lack(tmp_path):
    case = case_of(tmp_path, cut_below(-40.0), **by_hand(apex_mm=APEX))
    with pytest.warns(InputNote, match="open at its tip over 10.. mm²"):
        found = build_heart(case, tmp_path).frame
    np.testing.assert_allclose(found.apex, TRUE.apex, atol=1e-12)
    assert angle(found.septal, TRUE.septal) < 1.0
    case = case_of(tmp_path, hearts.lid, **by_hand(base_mm=BASE))
    mesh = build_heart(case, tmp_path)
    assert np.mean(aha17(mesh.mesh.centre, mesh.frame) == aha17(mesh.mesh.centre, TRUE)) > 0.94


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"apex_mm": BASE, "base_mm": APEX}, "Exchange apex_mm and base_mm"),
        ({"base_mm": [x + 12.0 for x in APEX]}, "Exchange apex_mm and base_mm|° away|same point"),
        ({"apex_mm": [10.0 * x for x in APEX]}, "apex_mm lies 55. mm from the wall"),
        ({"apex_mm": APEX, "base_mm": [0, 0, 90]}, "base_mm lies .* mm from the wall"),
        ({"apex_mm": APEX, "base_mm": APEX}, "apex and base centre are the same point"),
        ({"apex_mm": [0, 0, 22]}, "away from the line|lies 2. mm from the wall and the base"),
    ],
)
def test_points_that_cannot_be_right_are_refused(tmp_path, points, message):
    case = case_of(tmp_path, **by_hand(**points))
    with pytest.raises(InputError, match=message):
        build_heart(case, tmp_path)


def test_a_septum_by_hand_on_the_other_side_is_said(tmp_path):
    other = [-x if i < 2 else x for i, x in enumerate(RIGHT)]
    case = case_of(tmp_path, **by_hand(rv_mm=other))
    with pytest.warns(InputNote, match=r"rv_mm lies 1[78].° about the long axis"):
        assert angle(build_heart(case, tmp_path).frame.septal, -TRUE.septal) < 1.0


def test_the_schema_of_landmarks():
    labels = {"file": "a.nii", "wall": 1, "cavity": 2}
    tree = {"file": "a.swc", "units": "mm", "frame": "LPS"}
    mesh = {"file": "a.vtu", "units": "mm", "frame": "LPS"}
    make = lambda ventricle, **more: Case.model_validate(
        {"kind": "synthetic", "tree": tree, "ventricle": ventricle, **more}
    )
    assert "rv" not in make({"labels": labels}).model_dump(exclude_none=True)["ventricle"]["labels"]
    with pytest.raises(ValueError, match="must be different labels"):
        make({"labels": {**labels, "rv": 2}})
    with pytest.raises(ValueError, match="synthetic_rca needs"):
        make({"labels": labels}, synthetic_rca={})
    with pytest.raises(ValueError, match="apex_mm, base_mm and rv_mm"):
        make({"tetrahedra": mesh, **by_hand(apex_mm=APEX, base_mm=BASE)})
    assert make({"tetrahedra": mesh, **by_hand(apex_mm=APEX, base_mm=BASE, rv_mm=RIGHT)})
    with pytest.raises(ValueError, match="either ellipsoid, or labels"):
        make({"ellipsoid": {}, **by_hand(apex_mm=APEX)})


def test_landmarks_in_their_former_place_are_shown_the_new_one(tmp_path):
    case_of(tmp_path)
    content = yaml.safe_load((tmp_path / "case.yaml").read_text())
    mesh = {"file": "a.vtu", "units": "mm", "frame": "LPS", **by_hand(apex_mm=APEX)}
    content["ventricle"]["tetrahedra"] = mesh
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    (found,) = check_case(tmp_path / "case.yaml", tmp_path)
    assert "Remove it here; landmarks is a key of ventricle, see" in found.message


# --- what is said of labels ---


@pytest.mark.parametrize(
    ("changes", "messages"),
    [
        ((hearts.atrium, hole([-28, 0, -10], 6)), ["hole of .* on the lateral side, at 64 %"]),
        ((hole([0, 28, -20], 8), hole([0, -28, -10], 8)), ["anterior side", "inferior side"]),
        ((hearts.islands,), ["3 voxels with the label of the LV cavity are not joined"]),
        ((cut_above(5.0),), ["the image may end below the mitral valve"]),
        ((cut_below(-58.0),), ["open at its tip over 2.. mm²; the tip may lie below"]),
        ((hearts.torn_base,), ["mm off its plane", "the image may end below"]),
    ],
)
def test_what_a_reader_should_look_at_is_said(changes, messages):
    with pytest.warns(InputNote) as said:
        lv_frame_from_labels(heart(*changes))
    text = [str(w.message) for w in said]
    assert len(text) == len(messages)
    for pattern in messages:
        assert any(re.search(pattern, message) for message in text), text


# --- cases that are built ---


def _case(**ellipsoid):
    return Case.model_validate(
        {
            "kind": "synthetic",
            "tree": {"built_in": "demo"},
            "ventricle": {"ellipsoid": ellipsoid},
        }
    )


def _errors(case, heart, tree):
    return [f for f in geometry_findings(case, tree, heart) if f.severity == "error"]


@pytest.mark.parametrize(
    "ellipsoid",
    [
        {"wall_base_mm": 2, "wall_apex_mm": 2, "spacing_mm": 1.5},
        {"wall_base_mm": 4, "wall_apex_mm": 12, "spacing_mm": 2.0},
    ],
)
def test_the_built_in_tree_fits_any_wall(tmp_path, ellipsoid):
    case = _case(**ellipsoid)
    built = build_heart(case, tmp_path)
    tree = read_tree(case, tmp_path, built)
    assert not _errors(case, built, tree)
    assert built.ellipsoid is not None
    place = np.asarray(tree.node_position, np.float64) * np.array([-1.0, -1.0, 1.0])
    below = place[:, 2] < built.ellipsoid.base_height
    depth = built.ellipsoid.outside_distance(place[below])
    assert depth.min() > -0.7e-3 * max(ellipsoid["wall_base_mm"], ellipsoid["wall_apex_mm"])


@pytest.mark.parametrize("spacing", [1.5, 3.0, 5.0])
def test_a_tree_in_the_cavities_is_found_at_any_voxel(tmp_path, spacing):
    """The tree of the file, and the same tree 15 mm off or in the other frame."""
    case = _case(spacing_mm=spacing)
    built = build_heart(case, tmp_path)
    tree = network_in_frame(dataclasses.replace(DEMO, frame="RAS"), "LPS")
    assert not _errors(case, built, tree)
    place = np.asarray(tree.node_position)
    for moved in (place - np.array([15e-3, 0, 0]), place * np.array([-1.0, -1.0, 1.0])):
        found = _errors(case, built, dataclasses.replace(tree, node_position=as_leaf(moved)))
        assert any("mm inside a cavity" in f.message for f in found)


@requires_trials
def test_trials_are_read_right_or_said():
    for rv, name in ((3, "scaled_labels"), (None, "pixdim_against_sform")):
        path = TRIALS / "hearts" / f"{name}.nii.gz"
        if rv is None:
            with pytest.warns(InputNote, match=r"by the affine and of 2 × 2 × 2 by pixdim"):
                read_voxel_labels(path, label=1)
        else:
            assert read_voxel_labels(path, label=1, cavity_label=2, rv_label=rv).n_cells == 1664


@pytest.mark.parametrize("spacing", [0.05, 1e-30, 1e-200])
def test_too_many_voxels_are_refused_before_memory_is_taken(tmp_path, spacing):
    content = _case().model_dump(mode="json", include={"kind", "tree", "ventricle"})
    content["ventricle"]["ellipsoid"]["spacing_mm"] = spacing
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(content))
    (found,) = check_case(tmp_path / "case.yaml", tmp_path)
    assert found.where == "ventricle.ellipsoid"
    assert f"spacing_mm of {spacing:g} makes a grid of" in found.message
    assert "at least 0.31" in found.message
