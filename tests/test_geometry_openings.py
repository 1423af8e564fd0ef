"""The frame and the depth of label images as segmentations have them, about a known axis."""

import hearts
import numpy as np
import pytest
from hearts import cut_above, cut_below, heart, hole, papillary, TURNED
from helpers import data_dir, requires_data, requires_trials, TRIALS

from jaxperf import InputError
from jaxperf.geometry import (
    aha17,
    cavity_openings,
    lv_frame_from_labels,
    transmural_depth,
)
from jaxperf.io import read_voxel_labels

# what is said of such images is tested in test_directions.py
pytestmark = pytest.mark.filterwarnings("ignore::jaxperf._misc.InputNote")
TRUE = hearts.true_frame()
ALONG = np.eye(3)


def angle(a, b):
    return np.degrees(np.arccos(np.clip(a @ b, -1.0, 1.0)))


def agreement(mesh, frame, other=TRUE):
    return np.mean(aha17(mesh.centre, frame) == aha17(mesh.centre, other))


@pytest.fixture(scope="module")
def whole():
    return heart()


@pytest.mark.parametrize(
    ("changes", "degrees", "share"),
    [
        ((), 1.0, 0.94),
        ((hearts.atrium,), 1.0, 0.94),
        ((hearts.half_atrium,), 1.0, 0.94),
        ((hearts.speckled_atrium,), 1.0, 0.94),
        ((hearts.blood_pool,), 3.0, 0.91),
        ((hearts.atrium, hole([-28, 0, -10], 6)), 1.0, 0.94),
        ((hearts.atrium, hole([-28, 0, -10], 14)), 1.0, 0.94),
        ((hole([0, 28, -20], 10), hole([20, 20, 0], 6)), 1.0, 0.94),
        ((papillary(0),), 1.0, 0.94),
        ((papillary(0, 30.0),), 1.0, 0.94),
        ((papillary(hearts.MUSCLE, 30.0), hearts.atrium), 1.0, 0.94),
        ((hearts.open_rim,), 1.5, 0.91),
        ((hearts.open_rim, hearts.atrium), 1.5, 0.91),
        ((hearts.other_wall,), 1.0, 0.94),
        ((hearts.islands,), 1.0, 0.94),
        ((cut_below(-58.0),), 1.0, 0.95),
    ],
)
def test_the_axis_is_the_known_one(changes, degrees, share):
    mesh = heart(*changes)
    frame = lv_frame_from_labels(mesh, rv_label=hearts.RV)
    assert angle(frame.long_axis, TRUE.long_axis) < degrees
    assert angle(frame.septal, TRUE.septal) < degrees
    assert agreement(mesh, frame) > share


@pytest.mark.parametrize(
    ("spacing", "rotation", "changes", "degrees", "share"),
    [
        ((3.0, 3.0, 3.0), TURNED, (hearts.half_atrium,), 1.0, 0.94),
        ((4.0, 4.0, 4.0), TURNED, (hearts.other_wall,), 1.0, 0.90),
        ((5.0, 5.0, 5.0), TURNED, (hearts.atrium,), 1.5, 0.90),
        ((1.4, 1.4, 8.0), ALONG, (hearts.open_rim,), 2.5, 0.95),
        ((1.4, 1.4, 8.0), ALONG, (hearts.half_atrium, papillary(0, 30.0)), 2.5, 0.95),
        ((1.4, 1.4, 10.0), ALONG, (papillary(0, 30.0),), 2.0, 0.97),
        ((1.4, 8.0, 1.4), TURNED, (hearts.atrium,), 3.0, 0.90),
    ],
)
def test_the_axis_at_other_voxels(spacing, rotation, changes, degrees, share):
    mesh = heart(*changes, spacing=spacing, rotation=rotation)
    frame = lv_frame_from_labels(mesh)
    assert angle(frame.long_axis, TRUE.long_axis) < degrees
    assert agreement(mesh, frame) > share


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ((cut_below(-50.0),), "open at both ends: 1588 mm² at one, 664 mm² at the other"),
        ((cut_below(-20.0), hearts.atrium), "its tip is not in the image"),
        ((cut_above(-30.0),), "cuts the ventricle far below its base"),
        ((hearts.lid,), "no face towards the background"),
        ((hearts.lid, hole([-28, 0, -10], 6)), "too little for the base"),
        ((hearts.lid, hole([-28, 0, -10], 16)), "away from the line between it and"),
    ],
)
def test_an_opening_that_is_no_base_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        lv_frame_from_labels(heart(*changes))


def test_points_by_hand_take_the_place_of_what_the_labels_lack():
    mesh = heart(cut_below(-40.0), hearts.without_rv)
    given = {"apex": TRUE.apex, "rv_centre": TRUE.apex + 0.04 * TRUE.septal}
    frame = lv_frame_from_labels(mesh, rv_label=None, **given)
    assert angle(frame.long_axis, TRUE.long_axis) < 1.0
    np.testing.assert_allclose(frame.apex, TRUE.apex)
    closed = heart(hearts.lid)
    frame = lv_frame_from_labels(closed, base_centre=TRUE.base_centre)
    assert agreement(closed, frame) > 0.95
    with pytest.raises(InputError, match="nothing says where the septum is"):
        lv_frame_from_labels(heart(hearts.without_rv), rv_label=None)


def test_a_tip_by_hand_does_not_make_the_wrong_end_the_base():
    """The cut end is wider than the mitral ring: it must not become the base."""
    mesh = heart(cut_below(-20.0), hearts.atrium)
    with pytest.raises(InputError, match="° away from the line"):
        lv_frame_from_labels(mesh, apex=TRUE.apex)


def test_openings_are_counted_and_measured(whole):
    where = {"cavity_label": 2, "rv_label": 3, "where": "test"}
    found = cavity_openings(whole, **where)
    area = np.pi * 24.0**2 * (1.0 - (hearts.BASE / hearts.ENDO[2]) ** 2)
    assert abs(1e6 * found.base.area / area - 1.0) < 0.03
    assert angle(found.base.normal, TRUE.long_axis) < 1.0
    assert np.linalg.norm(found.base.centre - TRUE.base_centre) < 1e-3
    assert (found.holes, found.n_islands) == ((), 0)
    pierced = heart(hearts.islands, hole([-28, 0, -10], 6))
    found = cavity_openings(pierced, **where)
    assert found.n_islands == 3
    assert len(found.holes) == 1
    # between the two surfaces of the wall
    assert np.linalg.norm(found.holes[0].centre - np.array([-0.028, 0, -0.010])) < 5e-3
    assert found.holes[0].normal @ TRUE.septal < -0.9


def test_depth_is_right_with_voids(whole):
    depth = transmural_depth(whole, TRUE)
    for changes in ((papillary(0),), (papillary(hearts.MUSCLE, 30.0),), (hearts.at_the_wall,)):
        mesh = heart(*changes)
        np.testing.assert_array_equal(mesh.cell_ijk, whole.cell_ijk)
        np.testing.assert_array_equal(transmural_depth(mesh, TRUE), depth)


def test_a_void_inside_the_wall_is_no_surface(whole):
    mesh = heart(hearts.bubble)
    kept = np.isin(
        np.ravel_multi_index(whole.cell_ijk.T, whole.shape),
        np.ravel_multi_index(mesh.cell_ijk.T, mesh.shape),
    )
    assert 0 < (~kept).sum() < 60
    difference = transmural_depth(mesh, TRUE) - transmural_depth(whole, TRUE)[kept]
    assert np.abs(difference).max() < 0.02


def _labels(path):
    return read_voxel_labels(
        path, label=1, cavity_label=2, rv_label=3, frame="LPS", largest_piece=True
    )


@requires_trials
@pytest.mark.parametrize("name", ["atrium_hole", "rim_voxel", "hole_lateral_mid"])
def test_trials_have_the_frame_of_the_open_heart(name):
    right = lv_frame_from_labels(_labels(TRIALS / "hearts" / "open.nii.gz"))
    mesh = _labels(TRIALS / "hearts" / f"{name}.nii.gz")
    found = lv_frame_from_labels(mesh)
    assert angle(found.long_axis, right.long_axis) < 0.1
    assert agreement(mesh, found, right) > 0.999


@requires_data
@requires_trials
def test_a_coarse_patient_has_the_frame_of_the_fine_one():
    fine = lv_frame_from_labels(_labels(data_dir() / "lv_patient" / "heart_labels.nii.gz"))
    mesh = _labels(TRIALS / "hearts" / "lv25.nii.gz")
    coarse = lv_frame_from_labels(mesh)
    assert angle(coarse.long_axis, fine.long_axis) < 1.0
    assert agreement(mesh, coarse, fine) > 0.95
