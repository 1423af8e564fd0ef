"""The C library: how it is loaded, and its functions beside SciPy's."""

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from growth_case import growth_case, write_case
from scipy import ndimage
from scipy.optimize import lsq_linear
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from jaxperf import _native, InputError
from jaxperf._native import _sources, array, function, INT
from jaxperf.darcy._galerkin import plan_first, plan_second
from jaxperf.growth import load_forest
from jaxperf.growth._insert import GROWTH, PLAN
from jaxperf.growth._murray import BranchingLaw, log_flow, radius_of
from jaxperf.growth._partition import _least, _shortest_ways
from jaxperf.growth._sites import _fitting, nearest_site
from jaxperf.growth._space import GRID, segment_distances
from jaxperf.growth._wall import WALL, Wall

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / "jaxperf" / "_native"


# ------------------------------------------------------------------ loading


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the library from a copy of its folder; the copy."""
    copy = tmp_path / "native"
    shutil.copytree(FOLDER, copy)
    monkeypatch.setattr(_sources, "FOLDER", copy)
    return copy, _native._library.__wrapped__


def test_the_library_loads_beside_its_sources_and_without_them(load):
    copy, library = load
    assert re.fullmatch(rb"[0-9a-f]{16}", library().jaxperf_sources())
    for file in (*copy.glob("*.c"), *copy.glob("*.h")):
        file.unlink()
    assert library().jaxperf_sources()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda copy: _sources.library_file().unlink(), "it is not there"),
        (lambda copy: (copy / "rows.c").write_text("/* */"), "built from other sources"),
        (lambda copy: (copy / "kernels.h").unlink(), "built from other sources"),
        (lambda copy: _sources.library_file().write_text("no library"), "cannot be loaded"),
    ],
    ids=["missing", "edited", "a file less", "damaged"],
)
def test_a_library_that_is_not_that_of_the_sources_is_refused(load, damage, says):
    copy, library = load
    damage(copy)
    with pytest.raises(InputError, match=says) as error:
        library()
    assert "pip install -e ." in error.value.fix


@pytest.mark.parametrize(
    "given",
    [np.zeros(3, np.float32), np.zeros(6)[::2], np.zeros((3, 1)), [0.0, 0.0, 0.0]],
    ids=["type", "gaps", "axes", "no array"],
)
def test_arrays_that_c_would_misread_are_refused(given):
    radii = function("vessels_radii", INT, *(array(np.float64) for _ in range(3)))
    with pytest.raises(ctypes.ArgumentError):
        radii(3, given, np.ones(7), np.zeros(3))


@pytest.mark.parametrize("struct", [GRID, WALL, GROWTH, PLAN], ids=lambda s: s.__name__)
def test_structs_have_the_fields_of_the_header_in_its_order(struct):
    text = (FOLDER / "kernels.h").read_text(encoding="utf-8")
    body = re.search(rf"typedef struct \{{([^}}]*)\}} {struct.__name__};", text)
    assert body is not None
    named = []
    for declaration in body[1].replace("const ", "").split(";")[:-1]:
        kind, names = declaration.strip().split(" ", 1)
        assert kind in {"double", "int64_t", "int32_t"}
        for name in names.split(","):
            plain = re.search(r"\w+", name)
            assert plain is not None
            # an array in the struct stands for as many numbers
            several = re.search(r"^\s*\w+\[(\d)\]", name)
            named += [plain[0]] * (int(several[1]) if several else 1)
    ours = [name for name, _ in struct._fields_]
    assert [re.sub(r"^n_[ijk]$", "shape", name) for name in ours] == named


def test_a_forest_grows_where_no_home_can_be_written(tmp_path):
    """In containers and on clusters the user's folders often do not exist."""
    path = write_case(tmp_path, growth_case(tmp_path, n_terminals=40, file="forest.npz"))
    nowhere = "/proc/nonexistent" if os.name == "posix" else "Z:\\nonexistent"
    places = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "JAXPERF_CACHE_DIR")
    done = subprocess.run(
        [sys.executable, "-B", "-m", "jaxperf.cli", "grow", str(path), "--quiet"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | dict.fromkeys(places, nowhere) | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert load_forest(tmp_path / "forest.npz").n_terminals == 40


# ------------------------------------------------------------------ growth


def test_distances_of_segments_are_those_of_constrained_least_squares():
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(200, 4, 3))
    ends[:40, 3] = ends[:40, 2] + rng.normal(size=(40, 1)) * (ends[:40, 1] - ends[:40, 0])
    ends[40:50, 1] = ends[40:50, 0]  # a point
    ends[50:60, 3] = ends[50:60, 2]
    ends[60:70, 2] = ends[60:70, 1]  # they share an end
    for a, b, c, d in ends:
        # s, t in [0, 1] of least |a + s (b − a) − c − t (d − c)|
        least = lsq_linear(np.stack([b - a, c - d], axis=1), c - a, (0.0, 1.0), tol=1e-14)
        found = segment_distances(a, b, np.concatenate([c, d, [1.0]])[None])
        np.testing.assert_allclose(found, 2.0 * least.cost, atol=1e-12)


@pytest.fixture(scope="module")
def wall():
    """A hollow box of voxels with a gap, in one piece; clearance without meaning."""
    rng = np.random.default_rng(1)
    inside = np.zeros((9, 10, 8), bool)
    inside[1:-1, 1:-1, 1:-1] = rng.random((7, 8, 6)) < 0.75
    label, _ = ndimage.label(inside, np.ones((3, 3, 3)))
    inside = label == np.argmax(np.bincount(label[inside]))
    cell = np.full(inside.shape, -1, np.int32)
    cell[inside] = rng.permutation(inside.sum())
    field = rng.normal(size=(2, *inside.shape))
    return Wall(np.array([1.0, 1.2, 0.9]), field[0], field[1], cell)


def test_shortest_ways_are_those_of_scipy(wall):
    at = np.argwhere(wall.cell >= 0)
    place = np.empty(at.shape, np.int64)
    place[wall.cell[tuple(at.T)]] = at
    pairs = KDTree(place).query_pairs(1.1, p=np.inf, output_type="ndarray")
    length = np.linalg.norm((place[pairs[:, 0]] - place[pairs[:, 1]]) * wall.spacing, axis=1)
    graph = sp.csr_array((length, pairs.T), shape=(len(place),) * 2)
    start = np.array([0, 17, 99])
    found = _shortest_ways(wall, place, start)
    np.testing.assert_allclose(found, dijkstra(graph, directed=False, indices=start), rtol=1e-14)
    offset = np.array([0.0, 1.3, -0.4])
    np.testing.assert_array_equal(_least(found, offset), np.argmin(found - offset[:, None], axis=0))


def test_points_fit_by_linear_interpolation_and_distance(wall):
    rng = np.random.default_rng(2)
    point = rng.uniform(0.0, 1.0, (500, 3)) * (np.array(wall.cell.shape) - 1.0) * wall.spacing
    vessel = np.concatenate([rng.uniform(1.0, 6.0, (3, 6)), [[0.5], [1.0], [0.2]]], axis=1)
    free = ndimage.map_coordinates(wall.clearance, (point / wall.spacing).T, order=1)
    t = np.linspace(0.0, 1.0, 20_001)[:, None]
    gap = np.min(
        [
            KDTree((1.0 - t) * v[:3] + t * v[3:6]).query(point)[0] - v[6] - 0.1
            for v in vessel
        ],
        axis=0,
    )  # fmt: skip
    sure = np.abs(gap) > 1e-6
    assert sure.all() and (free > 0.1).sum() > 100 and (gap < 0.0).sum() > 20
    np.testing.assert_array_equal(_fitting(wall, point, 0.1, vessel), (free >= 0.1) & (gap > 0.0))
    outside = np.array([[-0.1, 1.0, 1.0], [8.1, 1.0, 1.0], [1.0, 1.0, 6.4]])
    assert not _fitting(wall, outside, -0.5, np.zeros((0, 7))).any()


def test_the_nearest_site_of_the_same_tree_is_that_of_a_search_tree():
    rng = np.random.default_rng(3)
    site, site_tree = rng.random((60, 3)), np.sort(rng.integers(0, 4, 60))
    point, tree = rng.uniform(-0.2, 1.2, (400, 3)), rng.integers(0, 5, 400)
    found = nearest_site(point, tree, site, site_tree, 0.2)
    for k in range(4):
        own, members = tree == k, np.flatnonzero(site_tree == k)
        np.testing.assert_array_equal(
            found[own], members[KDTree(site[members]).query(point[own])[1]]
        )
    assert np.all(found[tree == 4] == -1), "a tree without sites"


def test_radii_invert_the_flows():
    law = BranchingLaw(exponent_small=3.0, exponent_large=7 / 3)
    coefficients = law.coefficients(1e-3, 80.0)
    radius = np.geomspace(1e-6, 5e-3, 400)
    flow = log_flow(np.log(radius), coefficients)
    np.testing.assert_allclose(radius_of(flow, coefficients), radius, rtol=1e-13)
    np.testing.assert_allclose(law.radius(np.array([80.0]), coefficients), 1e-3, rtol=1e-14)


# ------------------------------------------------------------------ coarse matrices


def test_the_plan_makes_the_coarse_matrix():
    rng = np.random.default_rng(4)
    n, n_coarse = 300, 70
    half = sp.random_array((n, n), density=0.02, rng=rng)
    a = sp.csr_array(half + half.T + sp.diags_array(rng.random(n)))
    p = sp.random_array((n, n_coarse), density=0.04, rng=rng, format="csr", dtype=np.float32)
    # values of A in an order of their own
    entry = rng.permutation(a.nnz)
    value = np.empty(a.nnz)
    value[entry] = a.data
    start, column, source, coefficient, target = plan_first(
        a.indptr, a.indices, entry, p.indptr, p.indices, p.data, n_coarse
    )
    assert np.all(np.diff(target) >= 0)
    made = np.bincount(target, coefficient * value[source], len(column))
    first = sp.csr_array((made, column, start), shape=(n, n_coarse))
    np.testing.assert_allclose(first.toarray(), (a @ p).toarray(), rtol=1e-12, atol=1e-14)
    r = p.T.tocsr()
    upper, k, source, coefficient, target = plan_second(
        r.indptr, r.indices, r.data, start, column, n_coarse
    )
    assert np.all(np.diff(target) >= 0)
    value = np.bincount(target, coefficient * made[source], len(k) + n_coarse)
    coarse = sp.csr_array((value[: len(k)], k, upper), shape=(n_coarse, n_coarse)).toarray()
    coarse += coarse.T + np.diag(value[len(k) :])
    np.testing.assert_allclose(coarse, (p.T @ a @ p).toarray(), rtol=1e-6, atol=1e-9)
