"""PET operators beside sums written out from raw arrays, and closed forms."""

import time
from math import erf, log, sqrt

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_wall
from helpers import data_dir, requires_data
from jax.experimental.sparse import BCOO

from jaxperf import InputError
from jaxperf.geometry import (
    aha17,
    build_voxel_mesh,
    ellipsoid_ventricle,
    lv_frame_from_labels,
    tetrahedra_from_voxels,
)
from jaxperf.io import mesh_in_frame, read_voxel_labels
from jaxperf.observe import pet_polar, pet_segments, pet_voxels, segment_means

FWHM_MM = 7.0


def direct_blur(point, centre, volume, values, fwhm_mm):
    """The wall-normalised convolution at points, all pairs, nothing left out."""
    sigma = 1e-3 * fwhm_mm / sqrt(8.0 * log(2.0))
    found = np.empty(len(point))
    for i, x in enumerate(point):
        square = ((centre - x) ** 2).sum(axis=1)
        weight = volume * np.exp(-(square - square.min()) / (2.0 * sigma**2))
        found[i] = weight @ values / weight.sum()
    return found


def direct_means(values, volume, group, n):
    return np.array(
        [
            values[group == k] @ volume[group == k] / volume[group == k].sum()
            if (group == k).any()
            else np.nan
            for k in range(n)
        ]
    )


def uneven(mesh, seed=0):
    return np.random.default_rng(seed).uniform(0.2, 3.0, mesh.n_cells)


def dense(operator):
    matrix = operator.matrix
    return np.asarray(matrix.todense() if isinstance(matrix, BCOO) else matrix)


@pytest.fixture(scope="module")
def wall():
    return small_wall(4.0)


@pytest.fixture(scope="module")
def frame():
    return ellipsoid_ventricle(
        spacing_mm=5.0, endo_short_mm=(24.0, 24.0), endo_long_mm=62.0, base_height_mm=22.0
    )[1]


class TestSegments:
    @pytest.mark.parametrize("fwhm_mm", [3.0, FWHM_MM, 12.0])
    @pytest.mark.parametrize("tetrahedra", [False, True], ids=["voxels", "tets"])
    def test_the_direct_convolution(self, frame, tetrahedra, fwhm_mm):
        mesh = small_wall(5.0)
        mesh = tetrahedra_from_voxels(mesh) if tetrahedra else mesh
        segment, mbf = aha17(mesh.centre, frame), uneven(mesh)
        see = pet_segments(mesh, segment, fwhm_mm=fwhm_mm)
        blurred = direct_blur(mesh.centre, mesh.centre, mesh.volume, mbf, fwhm_mm)
        expected = direct_means(blurred, mesh.volume, segment - 1, 17)
        np.testing.assert_allclose(see(jnp.asarray(mbf)), expected, rtol=1e-12)
        total = np.bincount(segment, mesh.volume, 18)[1:]
        np.testing.assert_allclose(see.volume, total, rtol=1e-13)

    def test_a_uniform_map_stays_uniform_and_no_weight_is_negative(self, wall, frame):
        see = pet_segments(wall, aha17(wall.centre, frame), fwhm_mm=FWHM_MM)
        np.testing.assert_allclose(dense(see).sum(axis=1), 1.0, rtol=1e-13)
        assert dense(see).min() >= 0.0
        np.testing.assert_allclose(see(jnp.full(wall.n_cells, 2.5)), 2.5, rtol=1e-13)
        assert see.n_rows == 17
        np.testing.assert_array_equal(see.label[:, 0], np.arange(1, 18))

    def test_without_blur_it_is_the_segment_mean(self, wall, frame):
        segment, mbf = aha17(wall.centre, frame), jnp.asarray(uneven(wall))
        expected = segment_means(mbf, jnp.asarray(wall.volume), jnp.asarray(segment))
        for fwhm_mm in (0.0, 0.5):  # 0.5 mm does not reach the neighbour at 4 mm
            see = pet_segments(wall, segment, fwhm_mm=fwhm_mm)
            np.testing.assert_allclose(see(mbf), expected, rtol=1e-13)

    def test_a_segment_without_wall_is_nan_with_zero_gradient(self, wall, frame):
        segment = aha17(wall.centre, frame)
        segment[segment == 17] = 0  # no apex: counts nowhere, and still blurs into its neighbours
        mbf = uneven(wall)
        blurred = direct_blur(wall.centre, wall.centre, wall.volume, mbf, FWHM_MM)
        see = pet_segments(wall, segment, fwhm_mm=FWHM_MM)
        expected = direct_means(blurred, wall.volume, segment - 1, 17)
        np.testing.assert_allclose(see(jnp.asarray(mbf)), expected, rtol=1e-12)
        assert np.isnan(expected[16])
        slope = jax.grad(lambda f: jnp.nansum(see(f)))(jnp.asarray(mbf))
        np.testing.assert_allclose(slope, dense(see)[:16].sum(axis=0), rtol=1e-12)

    def test_any_partition(self, wall):
        half = 1 + (wall.centre[:, 0] > 0.0).astype(np.int64)
        see = pet_segments(wall, half, fwhm_mm=FWHM_MM, n_segments=2)
        assert dense(see).shape == (2, wall.n_cells)

    @pytest.mark.parametrize("fwhm_mm", [-1.0, np.nan, 0.7e3])
    def test_a_width_that_no_camera_has(self, wall, fwhm_mm):
        with pytest.raises(InputError, match="fwhm_mm is"):
            pet_segments(wall, np.ones(wall.n_cells, np.int64), fwhm_mm=fwhm_mm)

    def test_no_segment_at_all(self, wall):
        with pytest.raises(InputError, match="none of 1970"):
            pet_segments(wall, np.zeros(wall.n_cells, np.int64), fwhm_mm=FWHM_MM)


@pytest.fixture(scope="module", params=["dense", "sparse"])
def see(request, wall, frame):
    if request.param == "dense":
        return pet_segments(wall, aha17(wall.centre, frame), fwhm_mm=FWHM_MM)
    see = pet_polar(wall, frame, rings=6, sectors=12, fwhm_mm=FWHM_MM)
    assert isinstance(see.matrix, BCOO)
    return see


class TestAsALinearMap:
    def test_linear_with_its_transpose_as_the_adjoint(self, see, wall):
        f, g = (jnp.asarray(uneven(wall, seed)) for seed in (1, 2))
        np.testing.assert_allclose(see(2.0 * f - 3.0 * g), 2.0 * see(f) - 3.0 * see(g), rtol=1e-11)
        w = jnp.asarray(np.random.default_rng(3).standard_normal(see.n_rows))
        (back,) = jax.vjp(see, f)[1](w)
        np.testing.assert_allclose(back, dense(see).T @ np.asarray(w), rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(jnp.vdot(back, f), jnp.vdot(w, see(f)), rtol=1e-12)

    def test_under_jit_vmap_and_in_float32(self, see, wall):
        f = jnp.asarray(np.stack([uneven(wall, seed) for seed in (1, 2)]))
        each = np.stack([see(x) for x in f])
        np.testing.assert_allclose(
            jax.jit(lambda see, f: jax.vmap(see)(f))(see, f), each, rtol=1e-13
        )
        single = see(f[0].astype(jnp.float32))
        assert single.dtype == jnp.float32
        np.testing.assert_allclose(single, each[0], rtol=1e-5)


class TestPolar:
    def test_three_rings_of_six_hold_the_first_twelve_segments(self, wall, frame):
        for fwhm_mm in (0.0, FWHM_MM):
            polar = pet_polar(wall, frame, rings=3, sectors=6, fwhm_mm=fwhm_mm)
            aha = pet_segments(wall, aha17(wall.centre, frame), fwhm_mm=fwhm_mm)
            np.testing.assert_allclose(dense(polar)[:12], dense(aha)[:12], rtol=1e-12, atol=1e-18)
        four = pet_polar(wall, frame, rings=3, sectors=4, fwhm_mm=0.0)
        above = np.bincount(aha17(wall.centre, frame), wall.volume, 18)
        last = np.asarray(four.volume)[8:]
        assert (last >= above[13:17]).all()
        assert last.sum() == pytest.approx(above[13:].sum(), rel=1e-12)

    def test_the_direct_convolution(self, wall, frame):
        rings, sectors = 7, 20
        see = pet_polar(wall, frame, rings=rings, sectors=sectors, fwhm_mm=FWHM_MM)
        height = (wall.centre - frame.apex) @ frame.long_axis
        height /= np.linalg.norm(frame.base_centre - frame.apex)
        radial = wall.centre - frame.apex
        angle = np.degrees(np.arctan2(radial @ frame.anterior, radial @ frame.septal))
        group = np.full(wall.n_cells, -1)
        for ring in range(rings):
            top, bottom = 1.0 - ring / rings, 1.0 - (ring + 1) / rings
            inside = (height <= top if ring else True) & (height > bottom if ring < 6 else True)
            for sector in range(sectors):
                middle = 90.0 - 18.0 * sector
                off = (angle - middle + 180.0) % 360.0 - 180.0
                group[inside & (off > -9.0) & (off <= 9.0)] = ring * sectors + sector
        mbf = uneven(wall)
        blurred = direct_blur(wall.centre, wall.centre, wall.volume, mbf, FWHM_MM)
        expected = direct_means(blurred, wall.volume, group, rings * sectors)
        np.testing.assert_allclose(see(jnp.asarray(mbf)), expected, rtol=1e-11)
        np.testing.assert_array_equal(see.label[27], [1, 7])

    def test_rows_sum_to_one_where_there_is_wall(self, wall, frame):
        see = pet_polar(wall, frame, rings=40, sectors=40, fwhm_mm=FWHM_MM)
        there = np.asarray(see.volume) > 0.0
        assert 0 < there.sum() < 1600
        np.testing.assert_allclose(dense(see).sum(axis=1), there.astype(float), rtol=1e-12)
        assert see.matrix.indices_sorted
        index = np.asarray(see.matrix.indices)
        np.testing.assert_array_equal(index, index[np.lexsort(index.T[::-1])])

    def test_no_ring_and_two_frames(self, wall, frame):
        with pytest.raises(InputError, match="0 rings of 6"):
            pet_polar(wall, frame, rings=0, sectors=6, fwhm_mm=FWHM_MM)
        ras = build_voxel_mesh(wall.label, wall.affine, frame="RAS")
        with pytest.raises(InputError, match="RAS and the ventricle's frame in model"):
            pet_polar(ras, frame, rings=3, sectors=6, fwhm_mm=FWHM_MM)


def turned_grid(mesh, spacing, seed=4):
    """An oblique grid of a camera about a mesh: shape and affine."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn * np.array(spacing)[None, :]
    along = np.linalg.solve(affine[:3, :3], mesh.centre.T)
    affine[:3, 3] = affine[:3, :3] @ (np.floor(along.min(axis=1)) - 2.3)
    shape = tuple(int(n) for n in np.ceil(np.ptp(along, axis=1)) + 6)
    return shape, affine


class TestVoxels:
    @pytest.mark.parametrize("tetrahedra", [False, True], ids=["voxels", "tets"])
    def test_the_direct_convolution_on_an_oblique_grid(self, tetrahedra):
        mesh = small_wall(5.0)
        mesh = tetrahedra_from_voxels(mesh) if tetrahedra else mesh
        shape, affine = turned_grid(mesh, (4e-3, 4.5e-3, 6e-3))
        see = pet_voxels(mesh, shape, affine, frame="model", fwhm_mm=FWHM_MM)
        assert isinstance(see.matrix, BCOO)
        point = np.asarray(see.label) @ affine[:3, :3].T + affine[:3, 3]
        mbf = uneven(mesh)
        expected = direct_blur(point, mesh.centre, mesh.volume, mbf, FWHM_MM)
        np.testing.assert_allclose(see(jnp.asarray(mbf)), expected, rtol=1e-11)
        voxel = 4e-3 * 4.5e-3 * 6e-3
        assert np.asarray(see.volume).min() >= 0.5 * voxel
        # voxels less than half of wall make up for what those that count lack
        assert see.n_rows * voxel == pytest.approx(mesh.volume.sum(), rel=0.06)

    def test_the_meshs_own_grid_without_blur_is_the_map(self, wall):
        see = pet_voxels(wall, wall.shape, wall.affine, frame="model", fwhm_mm=0.0)
        mbf = jnp.asarray(uneven(wall))
        np.testing.assert_array_equal(see.label, wall.cell_ijk)
        np.testing.assert_allclose(see(mbf), mbf, rtol=1e-13)

    def test_a_coarser_grid_without_blur_is_the_mean_in_each_voxel(self):
        mesh = build_voxel_mesh(
            np.ones((8, 6, 4), np.int32), np.diag([2e-3] * 3 + [1]), frame="LPS"
        )
        affine = np.diag([4e-3] * 3 + [1.0])
        affine[:3, 3] = 1e-3
        mbf = uneven(mesh)
        see = pet_voxels(mesh, (4, 3, 2), affine, frame="LPS", fwhm_mm=0.0)
        expected = mbf.reshape(4, 2, 3, 2, 2, 2).mean(axis=(1, 3, 5)).ravel()
        np.testing.assert_allclose(see(jnp.asarray(mbf)), expected, rtol=1e-13)
        np.testing.assert_allclose(see.volume, 64e-9, rtol=1e-12)

    def test_patient_frames(self, wall):
        """The same voxels and values in LPS and RAS."""
        lps = build_voxel_mesh(wall.label, wall.affine, frame="LPS")
        shape, affine = turned_grid(lps, (4e-3, 4e-3, 4e-3))
        ras_affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        mbf = jnp.asarray(uneven(wall))
        one = pet_voxels(lps, shape, affine, frame="LPS", fwhm_mm=FWHM_MM)
        ras = mesh_in_frame(lps, "RAS")
        other = pet_voxels(ras, shape, ras_affine, frame="RAS", fwhm_mm=FWHM_MM)
        np.testing.assert_array_equal(one.label, other.label)
        np.testing.assert_allclose(one(mbf), other(mbf), rtol=1e-12)
        with pytest.raises(InputError, match="the mesh is in RAS and the image in LPS"):
            pet_voxels(ras, shape, affine, frame="LPS", fwhm_mm=FWHM_MM)
        with pytest.raises(InputError, match="no voxel of the image lies in the wall"):
            far = affine + np.array([[0, 0, 0, 1.0]] + [[0, 0, 0, 0]] * 3)
            pet_voxels(lps, shape, far, frame="LPS", fwhm_mm=FWHM_MM)
        with pytest.raises(InputError, match="invertible"):
            pet_voxels(lps, shape, np.zeros((4, 4)), frame="LPS", fwhm_mm=FWHM_MM)

    def test_a_shorter_reach_keeps_fewer_weights_and_the_sum(self, wall):
        shape, affine = turned_grid(wall, (4e-3, 4e-3, 4e-3))
        far, near = (
            pet_voxels(wall, shape, affine, frame="model", fwhm_mm=FWHM_MM, reach=reach)
            for reach in (8.0, 5.0)
        )
        assert near.matrix.nse < 0.6 * far.matrix.nse
        np.testing.assert_allclose(dense(near).sum(axis=1), 1.0, rtol=1e-12)
        lost = np.abs(dense(near) - dense(far)).sum(axis=1).max()
        assert 1e-9 < lost < 1e-4


def test_a_step_becomes_an_error_function_at_second_order():
    """A plane step in a wall that ends 10 standard deviations away; points at 1.5 and 4.5 mm."""
    sigma = 1e-3 * FWHM_MM / sqrt(8.0 * log(2.0))
    camera = np.diag([3e-3, 6e-3, 6e-3, 1.0])
    camera[:3, 3] = [-28.5e-3, 3e-3, 3e-3]
    at = np.array([-4.5e-3, -1.5e-3, 1.5e-3, 4.5e-3])
    exact = np.array([0.5 * (1.0 + erf(x / (sigma * sqrt(2.0)))) for x in at])
    worst = []
    for n in (1, 2, 4):
        h = 3e-3 / n
        affine = np.diag([h, h, h, 1.0])
        affine[:3, 3] = [-30e-3 + 0.5 * h, 0.5 * h, 0.5 * h]
        mesh = build_voxel_mesh(np.ones((20 * n, 2 * n, 2 * n), np.int32), affine, frame="LPS")
        see = pet_voxels(mesh, (20, 1, 1), camera, frame="LPS", fwhm_mm=FWHM_MM)
        seen = see(jnp.asarray((mesh.centre[:, 0] > 0.0).astype(np.float64)))
        worst.append(np.abs(np.asarray(seen)[8:12] - exact).max())
    order = np.log2(np.array(worst[:-1]) / worst[1:])
    assert worst[-1] < 1e-3
    np.testing.assert_allclose(order, 2.0, atol=0.15)


@requires_data
def test_a_patients_heart():
    heart = data_dir() / "lv_patient" / "heart_labels.nii.gz"
    mesh = read_voxel_labels(heart, label=1, frame="LPS")
    frame = lv_frame_from_labels(mesh)
    # one control volume of 400 is judged, all of them are summed
    segment = aha17(mesh.centre, frame)
    judged = np.arange(0, mesh.n_cells, 400)
    alone = np.zeros(mesh.n_cells, np.int64)
    alone[judged] = segment[judged]
    mbf = 1.0 + 0.5 * np.sin(60.0 * mesh.centre[:, 0])
    see = pet_segments(mesh, alone, fwhm_mm=FWHM_MM)
    blurred = direct_blur(mesh.centre[judged], mesh.centre, mesh.volume, mbf, FWHM_MM)
    expected = direct_means(blurred, mesh.volume[judged], alone[judged] - 1, 17)
    np.testing.assert_allclose(see(jnp.asarray(mbf)), expected, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("tetrahedra", [False, True], ids=["voxels", "tets"])
def test_what_points_for_control_volumes_cost(tetrahedra):
    """Segment means of a smooth and of a torn map beside those of voxels of 1.25 mm.

    The error is that of control volumes that lie in one segment each; with blur it is no larger.
    """
    fields = (
        lambda x: 2.0 + np.sin(80.0 * x[:, 0]) * np.cos(50.0 * x[:, 2]),
        lambda x: np.where(x[:, 1] > 3e-3, 3.0, 1.0),
    )

    def seen(spacing_mm, tetrahedra, fwhm_mm):
        mesh, frame, _ = ellipsoid_ventricle(spacing_mm=spacing_mm)
        mesh = tetrahedra_from_voxels(mesh) if tetrahedra else mesh
        see = pet_segments(mesh, aha17(mesh.centre, frame), fwhm_mm=fwhm_mm)
        return np.stack([np.asarray(see(jnp.asarray(f(mesh.centre)))) for f in fields])

    error = {}
    for fwhm_mm in (0.0, FWHM_MM):
        finest = seen(1.25, False, fwhm_mm)
        for h in (5.0, 2.5):
            apart = np.abs(seen(h, tetrahedra, fwhm_mm) / finest - 1.0)
            error[fwhm_mm, h] = apart.max(axis=1), apart.mean(axis=1)
    for h in (5.0, 2.5):
        assert (error[FWHM_MM, h][0] < error[0.0, h][0] + 5e-3).all()
    assert (error[FWHM_MM, 2.5][0] < [0.02, 0.1]).all()
    assert (error[FWHM_MM, 2.5][1] < [0.007, 0.025]).all()
    assert (error[FWHM_MM, 2.5][1] < 0.7 * error[FWHM_MM, 5.0][1]).all()


@pytest.mark.slow
def test_sixty_thousand_control_volumes_take_seconds():
    mesh, frame, _ = ellipsoid_ventricle(spacing_mm=1.25)
    segment = aha17(mesh.centre, frame)
    assert mesh.n_cells > 60_000
    # of the processor: the machine may be shared
    start = time.process_time()
    see = pet_segments(mesh, segment, fwhm_mm=FWHM_MM)
    assert time.process_time() - start < 40.0
    np.testing.assert_allclose(np.asarray(see.matrix).sum(axis=1), 1.0, rtol=1e-12)
