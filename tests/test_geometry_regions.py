"""Terminal regions: a partition of the tissue, exact power cells, none empty."""

import time

import numpy as np
import pytest

from jaxperf import InputError
from jaxperf.geometry import (
    ellipsoid_ventricle,
    kuhn_tetrahedra,
    power_owner,
    terminal_regions,
    territory_of_cells,
    tetrahedra_from_voxels,
)

_VOXEL, _, _ = ellipsoid_ventricle(spacing_mm=4.0)
_TET = tetrahedra_from_voxels(_VOXEL)
_MESHES = {"voxel": _VOXEL, "tet": _TET}


def _sites(mesh, n, seed=0, spread=2e-3):
    rng = np.random.default_rng(seed)
    site = mesh.centre[rng.integers(0, mesh.n_cells, n)] + rng.uniform(-spread, spread, (n, 3))
    return site, rng.uniform(5e-5, 5e-4, n)


def _assert_partition(regions, mesh, n):
    np.testing.assert_allclose(
        np.bincount(regions.cell, regions.volume, mesh.n_cells), mesh.volume, rtol=1e-11
    )
    assert regions.terminal_volume.shape == (n,)
    assert regions.terminal_volume.min() > 0.0
    np.testing.assert_allclose(
        np.bincount(regions.terminal, regions.volume, n), regions.terminal_volume, rtol=1e-11
    )
    key = regions.cell * n + regions.terminal
    assert np.all(np.diff(key) > 0)
    assert regions.volume.min() > 0.0


@pytest.mark.parametrize("kind", sorted(_MESHES))
@pytest.mark.parametrize("n", [1, 50, 700, 6000])
def test_regions_divide_the_tissue_and_none_is_empty(kind, n):
    """6000 terminals are more than there are control volumes (about 1900 and 2900)."""
    mesh = _MESHES[kind]
    site, radius = _sites(mesh, n)
    regions = terminal_regions(mesh, site, np.arange(n), radius, n)
    _assert_partition(regions, mesh, n)
    assert regions.n_terminals == n


def test_one_voxel_is_shared_by_many_terminals():
    cube = kuhn_tetrahedra(1, upper=(1e-3, 1e-3, 1e-3))
    site = np.random.default_rng(1).uniform(0, 1e-3, (300, 3))
    regions = terminal_regions(cube, site, np.arange(300), np.full(300, 1e-5), 300)
    _assert_partition(regions, cube, 300)


def test_power_cells_agree_with_brute_force():
    rng = np.random.default_rng(2)
    point = rng.uniform(-0.05, 0.05, (3000, 3))
    site, radius = rng.uniform(-0.05, 0.05, (200, 3)), rng.uniform(0.0, 0.01, 200)
    power = np.sum((point[:, None, :] - site[None, :, :]) ** 2, axis=-1) - radius[None, :] ** 2
    np.testing.assert_array_equal(power_owner(point, site, radius), np.argmin(power, axis=1))


def test_regions_are_the_power_cells_of_the_quadrature_points():
    site, radius = _sites(_VOXEL, 40)
    regions = terminal_regions(_VOXEL, site, np.arange(40), radius, 40)
    owner = power_owner(_VOXEL.centre, site, radius)
    np.testing.assert_array_equal(regions.cell, np.arange(_VOXEL.n_cells))
    np.testing.assert_array_equal(regions.terminal, owner)


def test_volumes_converge_to_the_half_space_of_two_sites():
    """Radical plane of two sites at x = 0.3 and 0.7: |x − 0.3|² − r² = |x − 0.7|², x = 0.5125."""
    cube = kuhn_tetrahedra(4)
    site, radius = np.array([[0.3, 0.5, 0.5], [0.7, 0.5, 0.5]]), np.array([0.1, 0.0])
    errors = []
    for points in (100, 100_000):
        regions = terminal_regions(cube, site, np.arange(2), radius, 2, points_per_terminal=points)
        errors.append(abs(regions.terminal_volume[0] - 0.5125))
    assert errors[1] < 5e-3
    assert errors[1] < errors[0]


def test_a_terminal_may_have_several_sites():
    site, radius = _sites(_VOXEL, 60)
    regions = terminal_regions(_VOXEL, site, np.arange(60) // 3, radius, 20)
    _assert_partition(regions, _VOXEL, 20)


@pytest.mark.parametrize("kind", sorted(_MESHES))
def test_covered_and_outside_sites_get_tissue(kind):
    mesh = _MESHES[kind]
    site, radius = _sites(mesh, 100)
    site[10:20] = site[0]
    radius[0] = 2.0 * radius.max()
    site[90:] = site[90:] + np.array([0.2, 0.0, 0.0])
    regions = terminal_regions(mesh, site, np.arange(100), radius, 100)
    _assert_partition(regions, mesh, 100)


def test_regions_are_fast():
    mesh, _, _ = ellipsoid_ventricle(spacing_mm=1.25)
    site, radius = _sites(mesh, 6000)
    start = time.perf_counter()
    regions = terminal_regions(mesh, site, np.arange(6000), radius, 6000)
    # a machine shared by several people: ten times what it takes alone
    assert time.perf_counter() - start < 5.0
    _assert_partition(regions, mesh, 6000)


def test_territories_are_the_largest_overlap():
    site, radius = _sites(_VOXEL, 3000)
    regions = terminal_regions(_VOXEL, site, np.arange(3000), radius, 3000)
    label = np.random.default_rng(3).integers(2, 5, 3000)
    territory = territory_of_cells(regions, label, _VOXEL.n_cells)
    dense = np.zeros((_VOXEL.n_cells, 5))
    np.add.at(dense, (regions.cell, label[regions.terminal]), regions.volume)
    np.testing.assert_allclose(
        dense[np.arange(_VOXEL.n_cells), territory], dense.max(axis=1), rtol=1e-12
    )
    assert set(np.unique(territory)) <= {2, 3, 4}


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("site_position has 1 values", {"site_position": (3, np.nan)}),
        ("site_radius has 1 values", {"site_radius": (1, np.inf)}),
        ("site 2 has the radius", {"site_radius": (2, -1e-3)}),
        ("site 4 names terminal 7", {"site_terminal": (4, 7)}),
        ("1 of 5 terminals have no site, the first is terminal 4", {"site_terminal": (4, 0)}),
    ],
)
def test_malformed_sites_are_refused(message, change):
    site, radius = _sites(_VOXEL, 5)
    arguments = {"site_position": site, "site_terminal": np.arange(5), "site_radius": radius}
    for name, (index, value) in change.items():
        arguments[name].flat[index] = value
    with pytest.raises(InputError, match=message):
        terminal_regions(_VOXEL, **arguments, n_terminals=5)


def test_impossible_requests_are_refused():
    site, radius = _sites(_VOXEL, 5)
    with pytest.raises(InputError, match="points_per_terminal is 0"):
        terminal_regions(_VOXEL, site, np.arange(5), radius, 5, points_per_terminal=0)
    regions = terminal_regions(_VOXEL, site, np.arange(5), radius, 5)
    with pytest.raises(InputError, match="one per terminal"):
        territory_of_cells(regions, np.zeros(4, dtype=np.int64), _VOXEL.n_cells)
    with pytest.raises(InputError, match="cells below 10"):
        territory_of_cells(regions, np.zeros(5, dtype=np.int64), 10)
