"""Voxel and tetrahedral meshes: volumes, surfaces, quadrature, and what is refused."""

import math

import numpy as np
import pytest
import pyvista
from scipy.spatial.transform import Rotation

from jaxperf import InputError
from jaxperf.geometry import (
    AbstractMesh,
    build_tet_mesh,
    build_voxel_mesh,
    ellipsoid_ventricle,
    kuhn_tetrahedra,
    tetrahedra_from_voxels,
    voxels_from_surface,
)


def _affine(spacing=(1e-3, 2e-3, 3e-3), rotation=(0.3, -0.7, 1.1), origin=(0.01, -0.02, 0.03)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(rotation).as_matrix() * np.array(spacing)
    affine[:3, 3] = origin
    return affine


def _jittered(n=4, amplitude=0.2):
    rng = np.random.default_rng(0)

    def jitter(x):
        inside = np.all((x > 1e-9) & (x < 1.0 - 1e-9), axis=1)
        return x + inside[:, None] * rng.uniform(-amplitude, amplitude, x.shape) / n

    return kuhn_tetrahedra(n, vertex_map=jitter)


def _meshes() -> dict[str, AbstractMesh]:
    voxel, _, _ = ellipsoid_ventricle(spacing_mm=5.0)
    rotated = build_voxel_mesh(voxel.label, _affine(), frame="RAS")
    return {
        "voxel": voxel,
        "rotated": rotated,
        "tet_of_voxel": tetrahedra_from_voxels(voxel),
        "jittered": _jittered(),
    }


_MESHES = _meshes()


@pytest.fixture(params=sorted(_MESHES))
def mesh(request):
    return _MESHES[request.param]


# --- what holds for every mesh ---


@pytest.mark.parametrize("level", [1, 2, 3])
def test_quadrature_sums_to_each_control_volume(mesh, level):
    point, weight, cell = mesh.quadrature(level)
    assert point.shape == (mesh.quadrature_size(level), 3)
    total = np.bincount(cell, weight, mesh.n_cells)
    np.testing.assert_allclose(total, mesh.volume, rtol=1e-13)


@pytest.mark.parametrize("level", [1, 2, 3])
def test_quadrature_of_some_cells_is_that_part_of_the_whole(mesh, level):
    cells = np.arange(0, mesh.n_cells, 7)
    some, whole = mesh.quadrature(level, cells), mesh.quadrature(level)
    kept = np.isin(whole.cell, cells)
    assert set(np.unique(some.cell)) == set(cells)
    order, order_whole = np.lexsort(some.point.T), np.lexsort(whole.point[kept].T)
    np.testing.assert_allclose(some.point[order], whole.point[kept][order_whole], rtol=0, atol=0)
    np.testing.assert_array_equal(some.cell[order], whole.cell[kept][order_whole])


@pytest.mark.parametrize("level", [1, 2, 3])
def test_quadrature_points_balance_about_the_centroid(mesh, level):
    """Equal parts by their centroids: exact for linear functions. Witness: a surface integral."""
    point, weight, _ = mesh.quadrature(level)
    moment = _first_moment(mesh.boundary_faces())
    scale = mesh.volume.sum() * np.ptp(mesh.centre)
    np.testing.assert_allclose(weight @ point, moment, rtol=0, atol=1e-12 * scale)


def _first_moment(faces):
    """∫ x_d dV = ∫ x_d² n_d / 2 dA for a fixed d, each quadrilateral as two triangles.

    Turned squares give it too: the divergence theorem knows nothing of their axes. Edge midpoints
    integrate the square exactly.
    """
    total = np.zeros(3)
    for triangle in (faces.corner[:, [0, 1, 2]], faces.corner[:, [0, 2, 3]]):
        side = triangle[:, 1:] - triangle[:, :1]
        area = 0.5 * np.linalg.norm(np.cross(side[:, 0], side[:, 1]), axis=1)
        middle = 0.5 * (triangle + np.roll(triangle, 1, axis=1))
        total += 0.5 * np.einsum("f,fd,fd->d", area, faces.normal, np.mean(middle**2, axis=1))
    return total


def test_the_surface_encloses_the_volume(mesh):
    """Divergence theorem: outward normals, areas and centres are consistent."""
    faces = mesh.boundary_faces()
    enclosed = np.einsum("f,fd,fd->", faces.area, faces.normal, faces.centre) / 3.0
    np.testing.assert_allclose(enclosed, mesh.volume.sum(), rtol=1e-12)
    np.testing.assert_allclose(faces.area @ faces.normal, 0.0, atol=1e-12 * faces.area.sum())
    np.testing.assert_allclose(np.linalg.norm(faces.normal, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        np.einsum("fd,fkd->fk", faces.normal, faces.corner - faces.centre[:, None, :]),
        0.0,
        atol=1e-14,
    )


# --- voxels ---


def test_ellipsoid_shell_has_its_closed_form_volume():
    for spacing, tolerance in ((2.5, 0.01), (1.5, 0.004)):
        mesh, _, lv = ellipsoid_ventricle(spacing_mm=spacing)
        cavity = np.sum(mesh.label == 2) * mesh.volume[0]
        assert abs(mesh.volume.sum() / lv.wall_volume - 1.0) < tolerance
        assert abs(cavity / lv.cavity_volume - 1.0) < tolerance
    assert 0.120 < 1050.0 * lv.wall_volume < 0.140


def test_ellipsoid_volume_without_a_cut_is_the_ellipsoids():
    _, _, lv = ellipsoid_ventricle(spacing_mm=5.0, base_height_mm=0.0)
    assert math.isclose(lv.cavity_volume, 2.0 / 3.0 * math.pi * np.prod(lv.endo), rel_tol=1e-12)


def test_face_pairs_are_the_neighbours_in_the_grid():
    mesh = _MESHES["rotated"]
    pairs = mesh.face_pairs()
    step = mesh.cell_ijk[pairs.edge[:, 1]] - mesh.cell_ijk[pairs.edge[:, 0]]
    np.testing.assert_array_equal(step, np.eye(3, dtype=np.int64)[pairs.axis])
    apart = np.linalg.norm(mesh.centre[pairs.edge[:, 1]] - mesh.centre[pairs.edge[:, 0]], axis=1)
    np.testing.assert_allclose(apart, pairs.distance, rtol=1e-12)
    np.testing.assert_allclose(pairs.area * pairs.distance, mesh.volume[0], rtol=1e-12)
    # every face of every cell is either between two cells or on the surface
    assert 2 * pairs.axis.size + mesh.boundary_faces().area.size == 6 * mesh.n_cells


def test_boundary_faces_of_voxels_know_the_label_behind_them():
    mesh = _MESHES["voxel"]
    faces = mesh.boundary_faces()
    behind = faces.centre + 0.5 * faces.normal * mesh.spacing[0]
    ijk = np.rint((behind - mesh.affine[:3, 3]) / mesh.spacing).astype(int)
    inside = np.all((ijk >= 0) & (ijk < np.array(mesh.shape)), axis=1)
    np.testing.assert_array_equal(mesh.label[tuple(ijk[inside].T)], faces.label[inside])
    assert np.all(faces.label[~inside] == 0)
    assert {0, 2, 3} == set(np.unique(faces.label))


def test_to_grid_puts_cell_values_back():
    mesh = _MESHES["rotated"]
    grid = mesh.to_grid(np.arange(float(mesh.n_cells)), -1.0)
    assert grid.shape == mesh.shape
    np.testing.assert_array_equal(np.argwhere(grid >= 0.0), mesh.cell_ijk)


def _two_pieces():
    label = np.zeros((4, 4, 4), dtype=np.uint8)
    label[0, 0, :3] = 1
    label[2, 2, :2] = 1
    return label


def test_the_largest_piece_is_kept_on_request_and_the_rest_reported():
    mesh = build_voxel_mesh(_two_pieces(), _affine(), frame="model", largest_piece=True)
    assert mesh.n_cells == 3
    assert mesh.n_dropped == 2


_ONE = np.ones((2, 2, 2), dtype=np.int64)
_SHEAR = np.array([[1e-3, 5e-4, 0, 0], [0, 1e-3, 0, 0], [0, 0, 1e-3, 0], [0, 0, 0, 1.0]])
_BAD_VOXELS = {
    "pieces of 3, 2 voxels": (_two_pieces(), _affine(), "LPS"),
    "no voxel has the wall's label": (np.zeros((2, 2, 2), dtype=np.int64), _affine(), "LPS"),
    "three dimensions": (np.ones((2, 2), dtype=np.int64), _affine(), "LPS"),
    "not whole numbers": (0.5 * np.ones((2, 2, 2)), _affine(), "LPS"),
    "not finite, the first at index \\(0, 0, 0\\)": (np.full((2, 2, 2), np.nan), _affine(), "LPS"),
    "the affine has 1 values": (
        _ONE,
        np.diag([1e-3, 1e-3, 1e-3, 1.0]) + np.pad(np.full((1, 1), np.nan), ((0, 3), (3, 0))),
        "LPS",
    ),
    "spacing is": (_ONE, np.diag([1e-3, 0.0, 1e-3, 1.0]), "LPS"),
    "sheared": (_ONE, _SHEAR, "LPS"),
    "shape \\(3, 3\\)": (_ONE, np.eye(3), "LPS"),
    "last row": (_ONE, np.diag([1e-3, 1e-3, 1e-3, 2.0]), "LPS"),
    "the frame is 'LAS'": (_ONE, _affine(), "LAS"),
    "from millimetres": (_ONE, np.diag([1.25, 1.25, 1.25, 1.0]), "LPS"),
}


@pytest.mark.parametrize("message", sorted(_BAD_VOXELS))
def test_malformed_voxels_are_refused(message):
    label, affine, frame = _BAD_VOXELS[message]
    with pytest.raises(InputError, match=message) as caught:
        build_voxel_mesh(label, affine, frame=frame, where="heart.nii.gz")
    assert str(caught.value).startswith("heart.nii.gz")


@pytest.mark.parametrize(
    ("message", "keyword"),
    [
        ("positive lengths", {"spacing_mm": -1.0}),
        ("positive lengths", {"wall_apex_mm": float("nan")}),
        ("cuts the cavity", {"base_height_mm": 70.0}),
        ("3/4 of the wall", {"spacing_mm": 8.0}),
    ],
)
def test_impossible_ventricles_are_refused(message, keyword):
    with pytest.raises(InputError, match=message):
        ellipsoid_ventricle(**keyword)


# --- tetrahedra ---


def _face_counts(tet):
    face = np.sort(tet[:, [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]].reshape(-1, 3), axis=1)
    return np.unique(face, axis=0, return_counts=True)


@pytest.mark.parametrize("shape", [1, 3, (2, 3, 4)])
def test_kuhn_tetrahedra_conform_and_fill_the_box(shape):
    upper = (1.0, 2.0, 0.5)
    mesh = kuhn_tetrahedra(shape, upper=upper)
    n = np.broadcast_to(np.array(shape), (3,))
    assert mesh.tet.shape[0] == 6 * np.prod(n)
    assert mesh.n_cells == np.prod(n + 1)
    np.testing.assert_allclose(mesh.tet_volume, np.prod(upper) / np.prod(n) / 6.0, rtol=1e-12)
    np.testing.assert_allclose(mesh.volume.sum(), np.prod(upper), rtol=1e-12)
    face, count = _face_counts(mesh.tet)
    middle = mesh.point[face].mean(axis=1)
    on_box = np.any(np.isclose(middle, 0.0) | np.isclose(middle, np.array(upper)), axis=1)
    np.testing.assert_array_equal(count, np.where(on_box, 1, 2))


def test_tetrahedra_from_voxels_keep_volume_and_surface():
    voxel, tet = _MESHES["voxel"], _MESHES["tet_of_voxel"]
    np.testing.assert_allclose(tet.volume.sum(), voxel.volume.sum(), rtol=1e-12)
    np.testing.assert_allclose(tet.tet_volume, voxel.volume[0] / 6.0, rtol=1e-9)
    area = [m.boundary_faces().area.sum() for m in (voxel, tet)]
    np.testing.assert_allclose(area[1], area[0], rtol=1e-12)
    _, count = _face_counts(tet.tet)
    assert set(count) == {1, 2}


def test_tet_quadrature_points_lie_in_the_quarter_of_their_vertex():
    mesh = _jittered(2)
    for level in (1, 2, 3):
        point, _, cell = mesh.quadrature(level)
        found = np.zeros(cell.size, dtype=bool)
        for tet in mesh.tet:
            corner = mesh.point[tet]
            local = np.linalg.solve((corner[1:] - corner[:1]).T, (point - corner[0]).T).T
            weight = np.column_stack([1.0 - local.sum(axis=1), local])
            inside = np.all(weight > 0.0, axis=1)
            owner = tet[np.argmax(weight, axis=1)]
            assert np.all(owner[inside] == cell[inside])
            found |= inside
        assert found.all()


def test_negative_tetrahedra_are_turned_round():
    mesh = _jittered(2)
    turned = mesh.tet.copy()
    turned[::2] = turned[::2][:, [1, 0, 2, 3]]
    again = build_tet_mesh(mesh.point, turned, frame="model")
    np.testing.assert_allclose(again.tet_volume, mesh.tet_volume, rtol=1e-12)
    np.testing.assert_allclose(again.volume, mesh.volume, rtol=1e-12)
    faces = again.boundary_faces()
    enclosed = np.einsum("f,fd,fd->", faces.area, faces.normal, faces.centre) / 3.0
    np.testing.assert_allclose(enclosed, 1.0, rtol=1e-12)


def _bad_tets():
    good = kuhn_tetrahedra(1)
    point, tet = good.point, good.tet
    flat = point.copy()
    flat[7] = flat[0]
    nan = point.copy()
    nan[3, 1] = np.nan
    far = np.concatenate([point, point + 5.0])
    spike = np.concatenate([point, [[0.5, -1.0, 0.5]], [[0.5, -2.0, 0.5]]])
    # a boundary face given to two more tetrahedra
    bottom = np.array([[0, 1, 5, 8], [0, 1, 5, 9]])
    return {
        "no volume, the first is tetrahedron 0": (flat, tet),
        "not finite, the first at index \\(3, 1\\)": (nan, tet),
        "1 points belong to no tetrahedron, the first is point 8": (
            np.concatenate([point, [[2.0, 2.0, 2.0]]]),
            tet,
        ),
        "2 pieces of 6, 6 tetrahedra": (far, np.concatenate([tet, tet + 8])),
        "1 faces belong to more than two": (spike, np.concatenate([tet, bottom])),
        "6 tetrahedra are repeated": (point, np.concatenate([tet, tet])),
        "tetrahedron 0 names the points": (point[:7], tet),
        "\\(c, 3\\) and \\(m, 4\\)": (point, tet[:, :3]),
        "there are 0 tetrahedra": (point, tet[:0]),
    }


@pytest.mark.parametrize("message", sorted(_bad_tets()))
def test_malformed_tetrahedra_are_refused(message):
    point, tet = _bad_tets()[message]
    with pytest.raises(InputError, match=message) as caught:
        build_tet_mesh(point, tet, frame="model", where="wall.vtu")
    assert str(caught.value).startswith("wall.vtu")


def test_millimetres_are_noticed_in_patient_frames_only():
    mesh = kuhn_tetrahedra(1, upper=(80.0, 80.0, 80.0))
    with pytest.raises(InputError, match="from millimetres"):
        build_tet_mesh(mesh.point, mesh.tet, frame="LPS")


def test_no_cubes_and_no_level_are_refused(mesh):
    with pytest.raises(InputError, match="number of cubes"):
        kuhn_tetrahedra((1, 0, 1))
    with pytest.raises(InputError, match="quadrature level"):
        mesh.quadrature(0)


@pytest.mark.parametrize("flip", [(False, False), (False, True), (True, True)])
def test_a_closed_surface_in_any_orientation(flip):
    """A spherical shell: the volume between two spheres, whichever way their triangles turn."""
    points, triangles = [], []
    for radius, turned in zip((0.03, 0.02), flip, strict=True):
        sphere = pyvista.Sphere(radius=radius, theta_resolution=40, phi_resolution=40)
        faces = sphere.faces.reshape(-1, 4)[:, 1:].astype(np.int64)
        triangles.append((faces[:, ::-1] if turned else faces) + sum(map(len, points)))
        points.append(np.asarray(sphere.points, np.float64))
    surface = np.concatenate(points), np.concatenate(triangles)
    mesh = voxels_from_surface(*surface, spacing=2e-3, frame="LPS")
    exact = 4.0 / 3.0 * np.pi * (0.03**3 - 0.02**3)
    assert mesh.volume.sum() == pytest.approx(exact, rel=0.02)
    assert mesh.n_dropped == 0
    with pytest.raises(InputError, match="open edges"):
        voxels_from_surface(surface[0], surface[1][1:], spacing=2e-3, frame="LPS")
