"""The ventricle's frame, AHA segments, depth, local directions: closed forms and invariance."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxperf import InputError
from jaxperf.geometry import (
    aha17,
    AHA17_NAME,
    build_voxel_mesh,
    classify_boundary,
    depth_between,
    ellipsoid_ventricle,
    EllipsoidLV,
    fibre_direction,
    kuhn_tetrahedra,
    local_axes,
    lv_frame_from_labels,
    lv_frame_from_points,
    LVFrame,
    tetrahedra_from_voxels,
    transmural_depth,
)

_MESH, _FRAME, _LV = ellipsoid_ventricle()
_ROTATION = Rotation.from_rotvec([0.4, -1.3, 0.8]).as_matrix()
_SHIFT = np.array([0.05, -0.1, 0.02])


def _moved(x):
    return x @ _ROTATION.T + _SHIFT


def _moved_frame():
    return lv_frame_from_points(
        _moved(_FRAME.apex), _moved(_FRAME.base_centre), _moved(np.array([0.04, 0, 0])), frame="LPS"
    )


def _moved_mesh():
    move = np.eye(4)
    move[:3, :3], move[:3, 3] = _ROTATION, _SHIFT
    return build_voxel_mesh(_MESH.label, move @ _MESH.affine, frame="LPS")


def _exact_depth(x):
    inner = EllipsoidLV(endo=_LV.endo, epi=_LV.endo, base_height=_LV.base_height)
    endo = np.maximum(inner.outside_distance(x), 0.0)
    epi = np.maximum(-_LV.outside_distance(x), 0.0)
    return endo / (endo + epi)


def _tet_shell(n=(16, 16, 3)):
    """The ellipsoid wall as a smooth tetrahedral mesh, by mapping a box (angle, height, depth).

    The seam is a wedge left out at the septum and the axis a hole: no degenerate elements.
    """

    def shell(u):
        angle = 0.05 + (2.0 * np.pi - 0.1) * u[:, 0]
        height = 0.08 + 0.92 * u[:, 1]
        inner = EllipsoidLV(endo=_LV.endo, epi=_LV.endo, base_height=_LV.base_height)
        a, b = inner.epicardium(angle, height), _LV.epicardium(angle, height)
        return a + u[:, 2:] * (b - a)

    return kuhn_tetrahedra(n, vertex_map=shell)


# --- frame ---


def test_the_frame_is_right_handed_and_named():
    f = lv_frame_from_points(
        np.array([0.0, 0, -0.06]), np.array([0, 0, 0.02]), np.array([0.05, 0, 0.07]), frame="LPS"
    )
    np.testing.assert_allclose(f.long_axis, [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(f.septal, [1, 0, 0], atol=1e-15)
    np.testing.assert_allclose(f.anterior, [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(f.length, 0.08)


def test_the_frame_from_labels_is_the_closed_forms():
    f = lv_frame_from_labels(_MESH)
    assert np.degrees(np.arccos(f.long_axis @ _FRAME.long_axis)) < 1.0
    assert np.degrees(np.arccos(min(1.0, f.septal @ _FRAME.septal))) < 1.0
    assert np.linalg.norm(f.apex - _FRAME.apex) < 2.5e-3
    assert np.linalg.norm(f.base_centre - _FRAME.base_centre) < 1e-3


def test_the_frame_from_labels_turns_with_the_mesh():
    f, g = lv_frame_from_labels(_MESH), lv_frame_from_labels(_moved_mesh())
    np.testing.assert_allclose(g.septal, _ROTATION @ f.septal, atol=1e-9)
    np.testing.assert_allclose(g.apex, _moved(f.apex), atol=1e-9)


@pytest.mark.parametrize(
    ("message", "apex", "base", "rv"),
    [
        ("same point", [0.0, 0, 0], [0.0, 0, 0], [1.0, 0, 0]),
        ("on the long axis", [0.0, 0, 0], [0.0, 0, 1], [0.0, 0, 3]),
        ("not finite", [0.0, 0, np.nan], [0.0, 0, 1], [1.0, 0, 0]),
    ],
)
def test_points_that_span_no_frame_are_refused(message, apex, base, rv):
    with pytest.raises(InputError, match=message):
        lv_frame_from_points(np.array(apex), np.array(base), np.array(rv), frame="LPS")


def test_a_left_handed_frame_is_refused():
    with pytest.raises(InputError, match="right-handed"):
        LVFrame(
            _FRAME.apex,
            _FRAME.base_centre,
            _FRAME.long_axis,
            _FRAME.septal,
            -_FRAME.anterior,
            "model",
        )


def test_missing_and_closed_cavities_are_refused():
    with pytest.raises(InputError, match="label 3 of the RV cavity"):
        label = np.where(_MESH.label == 3, 0, _MESH.label)
        lv_frame_from_labels(build_voxel_mesh(label, _MESH.affine, frame="model"))
    with pytest.raises(InputError, match="no face towards the background"):
        lid = np.concatenate([_MESH.label, np.full_like(_MESH.label[:, :, :1], 1)], axis=2)
        lv_frame_from_labels(build_voxel_mesh(lid, _MESH.affine, frame="model"))


# --- AHA ---


def test_aha_segments_at_their_centres():
    degree = [90, 30, -30, -90, -150, 150] * 2 + [90, 0, -90, 180]
    height = np.repeat([5 / 6, 1 / 2, 1 / 6], [6, 6, 4]) * _FRAME.length
    angle = np.radians(degree)
    point = np.stack([0.03 * np.cos(angle), 0.03 * np.sin(angle), _FRAME.apex[2] + height], axis=1)
    np.testing.assert_array_equal(aha17(point, _FRAME), np.arange(1, 17))
    below = _FRAME.apex - 1e-3 * _FRAME.long_axis
    assert aha17(below[None, :], _FRAME)[0] == 17
    assert len(AHA17_NAME) == 17
    assert AHA17_NAME[2] == "basal inferoseptal"
    assert AHA17_NAME[15] == "apical lateral"


def test_aha_has_all_segments_and_turns_with_the_heart():
    segment = aha17(_MESH.centre, _FRAME)
    np.testing.assert_array_equal(np.unique(segment), np.arange(1, 18))
    # voxel centres lie on the borders of sectors, where round-off decides
    point = _MESH.centre + np.random.default_rng(0).uniform(-1e-3, 1e-3, _MESH.centre.shape)
    np.testing.assert_array_equal(aha17(_moved(point), _moved_frame()), aha17(point, _FRAME))


def test_aha_refuses_nan():
    with pytest.raises(InputError, match="not finite"):
        aha17(np.full((1, 3), np.nan), _FRAME)


# --- depth ---


def test_depth_converges_to_the_closed_form():
    errors = []
    for spacing in (2.5, 1.5):
        mesh, frame, _ = ellipsoid_ventricle(spacing_mm=spacing)
        depth = transmural_depth(mesh, frame)
        assert depth.min() >= 0.0
        assert depth.max() <= 1.0
        errors.append(np.abs(depth - _exact_depth(mesh.centre)).mean())
    assert errors[0] < 0.03
    assert errors[1] < 0.75 * errors[0]


def test_depth_on_a_smooth_tetrahedral_mesh():
    mesh = _tet_shell()
    depth = transmural_depth(mesh, _FRAME)
    # the cut at the seam counts as epicardium here, so compare away from it and from the hole
    angle, height = _FRAME.angle(mesh.point), _FRAME.height(mesh.point)
    away = (np.abs(angle) > 0.6) & (height > 0.2 * _FRAME.length)
    assert np.abs(depth - _exact_depth(mesh.point))[away].mean() < 0.03


def test_sides_by_normals_are_the_sides_by_labels():
    faces = _MESH.boundary_faces()
    with_labels = classify_boundary(faces, _FRAME, cavity_label=2, rv_label=3)
    without = classify_boundary(faces, _FRAME)
    assert np.mean(with_labels == without) > 0.99
    ring = np.pi * (
        np.prod(_LV.epi[:2]) * (1 - (_LV.base_height / _LV.epi[2]) ** 2)
        - np.prod(_LV.endo[:2]) * (1 - (_LV.base_height / _LV.endo[2]) ** 2)
    )
    assert abs(faces.area[with_labels == 2].sum() / ring - 1.0) < 0.1


def test_depth_is_that_of_the_turned_mesh():
    depth = transmural_depth(_moved_mesh(), _moved_frame())
    np.testing.assert_allclose(depth, transmural_depth(_MESH, _FRAME), atol=1e-9)


def test_depth_between_two_planes():
    grid = np.stack(np.meshgrid(np.linspace(0, 1, 41), np.linspace(0, 1, 41)), -1).reshape(-1, 2)
    low = np.column_stack([grid, np.zeros(len(grid))])
    point = np.column_stack([grid[::9], np.linspace(0.1, 0.9, len(grid[::9]))])
    np.testing.assert_allclose(
        depth_between(point, low, low + np.array([0, 0, 1.0])), point[:, 2], rtol=1e-12
    )
    np.testing.assert_allclose(depth_between(low[:1], low, low), 0.5)


def test_depth_refuses_other_frames_and_empty_surfaces():
    with pytest.raises(InputError, match="one frame for both"):
        transmural_depth(_MESH, _moved_frame())
    with pytest.raises(InputError, match="epicardium has no points"):
        depth_between(_MESH.centre, _MESH.centre, np.zeros((0, 3)))
    apart = np.where(_MESH.label == 2, 0, _MESH.label)
    apart[0, 0, 0] = 2
    with pytest.raises(InputError, match="no boundary face lies on the endocardium"):
        transmural_depth(build_voxel_mesh(apart, _MESH.affine, frame="model"), _FRAME)


# --- directions ---


def _directions(mesh, frame):
    depth = transmural_depth(mesh, frame)
    axes = local_axes(mesh, frame, depth)
    return depth, axes


def test_local_axes_are_orthonormal_right_handed_and_point_where_they_should():
    for mesh in (_MESH, tetrahedra_from_voxels(_MESH)):
        _, axes = _directions(mesh, _FRAME)
        identity = np.einsum("cia,cja->cij", axes, axes)
        np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-12)
        np.testing.assert_allclose(np.linalg.det(axes), 1.0, rtol=1e-12)
    depth, axes = _directions(_MESH, _FRAME)
    x = _MESH.centre
    mid = (np.abs(x[:, 2]) < 0.02) & (np.abs(depth - 0.5) < 0.4)
    normal = x / _LV.epi**2
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    angle = _FRAME.angle(x)
    round_about = np.stack([-np.sin(angle), np.cos(angle), np.zeros(len(x))], axis=1)
    assert np.einsum("cd,cd->c", axes[:, 2], normal)[mid].min() > np.cos(np.radians(15.0))
    assert np.einsum("cd,cd->c", axes[:, 0], round_about)[mid].min() > np.cos(np.radians(15.0))
    assert axes[mid, 1, 2].min() > 0.9


def test_local_axes_turn_with_the_mesh():
    depth, axes = _directions(_MESH, _FRAME)
    moved = local_axes(_moved_mesh(), _moved_frame(), depth)
    turned = np.einsum("ab,cib->cia", _ROTATION, axes)
    # the neighbours of a gradient fit at equal distance are chosen by round-off
    assert np.mean(np.einsum("cia,cia->ci", moved, turned)) > 0.999


def test_fibres_are_a_helix_from_plus_sixty_to_minus_sixty():
    axes = np.broadcast_to(np.eye(3), (3, 3, 3)).copy()
    fibre = fibre_direction(axes, np.array([0.0, 0.5, 1.0]))
    half, tall = 0.5, np.sqrt(0.75)
    np.testing.assert_allclose(fibre, [[half, tall, 0], [1, 0, 0], [half, -tall, 0]], atol=1e-15)
    depth, axes = _directions(_MESH, _FRAME)
    fibre = fibre_direction(axes, depth, endo_deg=70.0, epi_deg=-45.0)
    np.testing.assert_allclose(np.linalg.norm(fibre, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(np.einsum("cd,cd->c", fibre, axes[:, 2]), 0.0, atol=1e-12)


# --- the closed-form ventricle ---


def test_epicardium_and_its_distance():
    angle, height = np.meshgrid(np.linspace(-np.pi, np.pi, 13), np.linspace(0.0, 1.0, 7))
    for outside in (0.0, 2e-3, -3e-3):
        point = _LV.epicardium(angle, height, outside)
        assert point.shape == (7, 13, 3)
        distance = _LV.outside_distance(point.reshape(-1, 3))
        np.testing.assert_allclose(distance, outside, atol=1e-12)
    np.testing.assert_allclose(_LV.epicardium(0.3, 0.0), [0, 0, -_LV.epi[2]], atol=1e-15)
    np.testing.assert_allclose(_LV.epicardium(0.3, 1.0)[2], _LV.base_height, rtol=1e-12)
    on_wall = _LV.epicardium(np.linspace(-np.pi, np.pi, 9), np.full(9, 0.7))
    np.testing.assert_allclose(_FRAME.angle(on_wall)[1:-1], np.linspace(-np.pi, np.pi, 9)[1:-1])


def test_distance_on_the_planes_of_symmetry():
    inside = np.array([[0.0, 0, 0], [0.0, 0, -0.06], [0.03, 0, 0]])
    distance = _LV.outside_distance(inside)
    np.testing.assert_allclose(distance[[0, 2]], [-_LV.epi[0], 0.03 - _LV.epi[0]], rtol=1e-9)
    u = np.linspace(0, np.pi, 4001)
    curve = np.stack([_LV.epi[0] * np.sin(u), np.zeros(4001), -_LV.epi[2] * np.cos(u)], axis=1)
    brute = -np.linalg.norm(curve - inside[1], axis=1).min()
    np.testing.assert_allclose(distance[1], brute, rtol=1e-4)
