"""Tetrahedra inside a surface, their refinement and their shapes."""

import importlib.util
import os

import numpy as np
import pytest
import pyvista
from scipy.spatial import Delaunay

from jaxperf import InputError
from jaxperf.geometry import (
    build_tet_mesh,
    ellipsoid_ventricle,
    EllipsoidLV,
    kuhn_tetrahedra,
    mesh_quality,
    refine_tetrahedra,
    tetrahedra_from_surface,
)

needs_tetgen = pytest.mark.skipif(
    importlib.util.find_spec("tetgen") is None, reason="tetgen is not installed (jaxperf[mesh])"
)


# --- refinement and shapes ---


def _jittered(n=3):
    rng = np.random.default_rng(0)
    return kuhn_tetrahedra(n, vertex_map=lambda x: x + rng.uniform(-0.15, 0.15, x.shape) / n)


def test_eight_tetrahedra_of_equal_volume():
    mesh = _jittered()
    fine = refine_tetrahedra(mesh)
    np.testing.assert_array_equal(fine.point[: mesh.n_cells], mesh.point)
    np.testing.assert_allclose(fine.tet_volume, np.repeat(mesh.tet_volume / 8.0, 8), rtol=1e-12)
    np.testing.assert_allclose(fine.volume.sum(), mesh.volume.sum(), rtol=1e-12)
    # conforming: as many faces on the surface as four times before, of the same area
    coarse, finer = mesh.boundary_faces(), fine.boundary_faces()
    assert finer.area.size == 4 * coarse.area.size
    np.testing.assert_allclose(finer.area.sum(), coarse.area.sum(), rtol=1e-12)
    corner = fine.point[fine.tet]
    signed = np.linalg.det(corner[:, 1:] - corner[:, :1]) / 6.0
    np.testing.assert_allclose(signed, fine.tet_volume, rtol=1e-9)


def test_shapes_of_kuhn_tetrahedra_and_of_their_refinement():
    shape = mesh_quality(kuhn_tetrahedra(2))
    np.testing.assert_allclose(shape.least_dihedral, 45.0, rtol=1e-12)
    np.testing.assert_allclose(shape.largest_dihedral, 90.0, rtol=1e-12)
    # inscribed 1/(2 + 2√2), circumscribed √3/2
    np.testing.assert_allclose(
        shape.radius_ratio, 3.0 / (1.0 + np.sqrt(2.0)) / np.sqrt(3.0), rtol=1e-12
    )
    np.testing.assert_allclose(shape.edge_length[[0, -1]], [0.5, np.sqrt(0.75)], rtol=1e-12)


@pytest.mark.parametrize("mesh", [kuhn_tetrahedra(1), _jittered(1)])
def test_repeated_refinement_does_not_flatten(mesh):
    least = []
    for _ in range(4):
        mesh = refine_tetrahedra(mesh)
        shape = mesh_quality(mesh)
        least.append((shape.least_dihedral[0], shape.radius_ratio[0]))
    np.testing.assert_allclose(least[2:], np.broadcast_to(least[1], (2, 2)), rtol=1e-9)


def test_shape_of_a_regular_tetrahedron():
    point = 0.01 * np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    shape = mesh_quality(build_tet_mesh(point, np.array([[0, 1, 2, 3]]), frame="model"), (50.0,))
    assert shape.least_dihedral[0] == pytest.approx(np.degrees(np.arccos(1 / 3)), rel=1e-12)
    assert shape.largest_dihedral[0] == pytest.approx(np.degrees(np.arccos(1 / 3)), rel=1e-12)
    assert shape.radius_ratio[0] == pytest.approx(1.0, rel=1e-12)
    assert shape.edge_length[0] == pytest.approx(0.01 * np.sqrt(8.0), rel=1e-12)
    assert shape.volume[0] == pytest.approx(1e-6 * 8.0 / 3.0, rel=1e-12)


# --- tetrahedra inside a surface ---


def _cup(lv, n_up):
    """An ellipsoid below the base plane: ring k holds 4 k points, so triangles stay round."""
    k = np.repeat(np.arange(1, n_up + 1), 4 * np.arange(1, n_up + 1))
    angle = 2.0 * np.pi * (np.arange(k.size) - 2 * k * (k - 1)) / (4 * k)
    k, angle = np.append(k, 0), np.append(angle, 0.0)
    flat = k[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    triangle = Delaunay(flat).simplices.astype(np.int64)
    return lv.epicardium(angle, k / n_up), triangle, np.flatnonzero(k == n_up)


def _wall(n_up=18):
    """The closed surface of the ellipsoid wall, cut at the base."""
    lv = ellipsoid_ventricle(spacing_mm=5.0)[2]
    inner = EllipsoidLV(endo=0.5 * lv.endo, epi=lv.endo, base_height=lv.base_height)
    outside, outer, rim = _cup(lv, n_up)
    inside, second, inner_rim = _cup(inner, n_up)
    inner_rim = inner_rim + len(outside)
    strip = [
        np.stack([rim, np.roll(rim, -1), inner_rim], axis=1),
        np.stack([np.roll(rim, -1), np.roll(inner_rim, -1), inner_rim], axis=1),
    ]
    triangle = np.concatenate([outer, second + len(outside), *strip])
    return np.concatenate([outside, inside]), triangle, lv


def _sphere(radius, centre=(0.0, 0.0, 0.0), resolution=24):
    sphere = pyvista.Sphere(radius=radius, theta_resolution=resolution, phi_resolution=resolution)
    triangle = sphere.faces.reshape(-1, 4)[:, 1:].astype(np.int64)
    return np.asarray(sphere.points, np.float64) + np.array(centre), triangle


@needs_tetgen
def test_the_wall_of_an_ellipsoid():
    point, triangle, lv = _wall()
    before = set(os.listdir())
    mesh = tetrahedra_from_surface(point, triangle, edge_length=4e-3, frame="model")
    assert set(os.listdir()) == before
    assert abs(mesh.volume.sum() / lv.wall_volume - 1.0) < 0.01
    shape = mesh_quality(mesh, (1.0, 50.0))
    assert shape.least_dihedral[0] > 5.0 and shape.least_dihedral[1] > 35.0
    assert shape.radius_ratio[0] > 0.1 and shape.radius_ratio[1] > 0.7


@needs_tetgen
def test_neighbours_are_near_in_memory():
    mesh = tetrahedra_from_surface(*_sphere(0.02), edge_length=3e-3, frame="LPS")
    apart = np.abs(mesh.tet[:, 1:] - mesh.tet[:, :1])
    assert apart.mean() < 0.15 * mesh.n_cells
    assert sorted(np.unique(mesh.tet)) == list(range(mesh.n_cells))


@needs_tetgen
def test_half_the_edge_length_gives_eight_times_the_tetrahedra():
    sphere = pyvista.Icosphere(nsub=3)
    triangle = sphere.faces.reshape(-1, 4)[:, 1:].astype(np.int64)
    point = np.asarray(sphere.points, np.float64) * np.array([0.024, 0.024, 0.04])
    enclosed = pyvista.PolyData(point, sphere.faces).volume
    meshes = [
        tetrahedra_from_surface(point, triangle, edge_length=h, frame="model")
        for h in (5e-3, 2.5e-3)
    ]
    for mesh, h in zip(meshes, (5e-3, 2.5e-3), strict=True):
        np.testing.assert_allclose(mesh.volume.sum(), enclosed, rtol=1e-9)
        assert abs(mesh_quality(mesh, (50.0,)).edge_length[0] / h - 1.0) < 0.15
    assert 6.5 < meshes[1].tet.shape[0] / meshes[0].tet.shape[0] < 9.0


@needs_tetgen
def test_surfaces_inside_one_another_bound_holes():
    (outer, first), (inner, second) = _sphere(0.03), _sphere(0.02)
    point = np.concatenate([outer, inner])
    triangle = np.concatenate([first, second + len(outer)])
    mesh = tetrahedra_from_surface(point, triangle, edge_length=5e-3, frame="LPS")
    ball = [
        tetrahedra_from_surface(*s, edge_length=5e-3, frame="LPS").volume.sum()
        for s in (_sphere(0.03), _sphere(0.02))
    ]
    np.testing.assert_allclose(mesh.volume.sum(), ball[0] - ball[1], rtol=1e-8)


@needs_tetgen
def test_surfaces_that_cannot_be_filled_are_refused_and_leave_no_file():
    point, triangle = _sphere(0.03)
    before = set(os.listdir())
    with pytest.raises(InputError, match="open edges"):
        tetrahedra_from_surface(point, triangle[1:], edge_length=5e-3, frame="LPS")
    for shift in ((0.03, 0.0, 0.0), (0.001, 0.002, 0.0005)):
        other, second = _sphere(0.03, shift)
        crossing = np.concatenate([point, other]), np.concatenate([triangle, second + len(point)])
        with pytest.raises(InputError, match=r"wall\.stl: tetgen cannot fill") as caught:
            tetrahedra_from_surface(*crossing, edge_length=5e-3, frame="LPS", where="wall.stl")
        assert "nowhere touches or cuts itself" in str(caught.value)
    assert set(os.listdir()) == before
    with pytest.raises(InputError, match="edge length is 0"):
        tetrahedra_from_surface(point, triangle, edge_length=0.0, frame="LPS")


def test_a_missing_tetgen_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install jaxperf\[mesh\]"):
        tetrahedra_from_surface(*_sphere(0.03), edge_length=5e-3, frame="LPS")
