"""The audit of grown forests on forests made by hand: every check passes once and fails once."""

import time
from dataclasses import replace

import forest_audit as audit
import numpy as np
import pytest

MM = 1e-3


def forest(
    position_mm,
    parent,
    radius_mm,
    *,
    root_mm=((0.0, 0.0, 0.0),),
    stage=None,
    fixed_mm=((-50.0, 0.0, -50.0), (-50.0, 0.0, -40.0)),
    fixed_radius_mm=((1.0, 1.0),),
    wall=None,
):
    """A raw forest in mm; its roots are the first nodes of a fixed tree far away."""
    parent = np.array(parent, np.int64)
    roots = np.array(root_mm, float)
    fixed = np.array(fixed_mm, float)
    chain = len(roots) + np.arange(len(fixed))
    default = np.where(parent < 0, 0, 2)
    return audit.RawForest(
        position=np.array(position_mm, float) * MM,
        parent=parent,
        radius=np.broadcast_to(np.array(radius_mm, float), parent.shape) * MM,
        stage=default if stage is None else np.array(stage),
        root_position=roots * MM,
        root_node=np.arange(len(roots)),
        fixed_position=np.concatenate([roots, fixed]) * MM,
        fixed_node=np.stack([chain[:-1], chain[1:]], axis=1),
        fixed_radius=np.array(fixed_radius_mm, float) * MM,
        wall=np.ones((40, 40, 40), bool) if wall is None else wall,
        affine=np.diag([MM, MM, MM, 1.0]),
    )


def y_tree(**changes):
    """A stub from the origin along z, and two vessels of a Y; r³ is conserved."""
    given = {
        "position_mm": [[0, 0, 1], [0, 0, 5], [3, 0, 9], [-3, 0, 9]],
        "parent": [-1, 0, 1, 1],
        "radius_mm": [0.5, 0.5, 0.5 * 0.5 ** (1 / 3), 0.5 * 0.5 ** (1 / 3)],
    }
    return forest(**{**given, **changes})


def two_trees(second_x_mm, *, radius_mm=0.2, end_mm=None):
    """Two stubs of one vessel each along z, the second at a distance in x."""
    x = second_x_mm
    end = [x, 0, 10] if end_mm is None else end_mm
    return forest(
        [[0, 0, 1], [0, 0, 10], [x, 0, 1], end],
        [-1, 0, -2, 2],
        radius_mm,
        root_mm=[[0, 0, 0], [x, 0, 0]],
    )


# ---------------------------------------------------------------- distances


def _sampled_distance(a0, a1, b0, b1, n=201):
    t = np.linspace(0, 1, n)[:, None]
    one, two = a0 + t * (a1 - a0), b0 + t * (b1 - b0)
    return np.linalg.norm(one[:, None] - two[None], axis=2).min()


SEGMENTS = {
    "crossing": ([-1, 0, 0], [1, 0, 0], [0, -1, 0.5], [0, 1, 0.5], 0.5),
    "touching": ([0, 0, 0], [1, 0, 0], [1, 0, 0], [1, 1, 0], 0.0),
    "parallel, side by side": ([0, 0, 0], [4, 0, 0], [1, 2, 0], [3, 2, 0], 2.0),
    "parallel, apart": ([0, 0, 0], [1, 0, 0], [2, 0, 1], [5, 0, 1], np.sqrt(2)),
    "antiparallel": ([0, 0, 0], [4, 0, 0], [3, 1, 0], [1, 1, 0], 1.0),
    "collinear, overlapping": ([0, 0, 0], [2, 0, 0], [1, 0, 0], [5, 0, 0], 0.0),
    "collinear, apart": ([0, 0, 0], [2, 0, 0], [3, 0, 0], [5, 0, 0], 1.0),
    "point and segment": ([1, 1, 0], [1, 1, 0], [0, 0, 0], [4, 0, 0], 1.0),
    "segment and point": ([0, 0, 0], [4, 0, 0], [5, 0, 0], [5, 0, 0], 1.0),
    "two points": ([0, 0, 0], [0, 0, 0], [0, 3, 4], [0, 3, 4], 5.0),
    "end against the middle": ([0, 0, 1], [0, 0, 5], [-1, 0, 0], [1, 0, 0], 1.0),
    "nearly parallel": ([0, 0, 0], [10, 0, 0], [0, 1, 0], [10, 1 - 1e-9, 0], 1.0),
}


@pytest.mark.parametrize("case", SEGMENTS)
def test_distance_of_segments_by_hand(case):
    *points, expected = SEGMENTS[case]
    points = [np.array([p], float) for p in points]
    assert audit.segment_distance(*points)[0] == pytest.approx(expected, abs=1e-8)
    a0, a1, b0, b1 = points
    assert audit.segment_distance(b1, b0, a0, a1)[0] == pytest.approx(expected, abs=1e-8)


def test_distance_of_random_segments_against_sampling():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4, 300, 3))
    points[1, :60] = points[0, :60] + (points[3, :60] - points[2, :60])  # parallel
    points[1, 60:90] = points[0, 60:90]  # a point
    exact = audit.segment_distance(*points)
    sampled = np.array([_sampled_distance(*points[:, k]) for k in range(300)])
    # samples lie at most half a step beside the nearest place of each axis
    step = np.linalg.norm(points[1] - points[0], axis=1) + np.linalg.norm(
        points[3] - points[2], axis=1
    )
    assert np.all(exact <= sampled + 1e-12)
    assert np.all(exact >= sampled - 0.5 * step / 200)


def test_gap_of_round_cones_against_sampling():
    rng = np.random.default_rng(1)
    a0, a1, b0, b1 = rng.normal(size=(4, 200, 3))
    ra, rb = rng.uniform(0.01, 0.6, size=(2, 200, 2))
    b1[:20] = b0[:20]
    exact = audit.tapered_gap(a0, a1, ra, b0, b1, rb)
    s = np.linspace(0, 1, 161)
    for k in range(200):
        one, two = (a + s[:, None] * (b - a) for a, b in ((a0[k], a1[k]), (b0[k], b1[k])))
        wide = lambda r: r[0] + s * (r[1] - r[0])
        gap = np.linalg.norm(one[:, None] - two[None], axis=2) - wide(ra[k])[:, None] - wide(rb[k])
        size = np.linalg.norm(a1[k] - a0[k]) + np.linalg.norm(b1[k] - b0[k]) + 1.2
        assert gap.min() - size / 320 <= exact[k] <= gap.min() + 1e-9


def test_gap_of_cylinders_is_that_of_segments():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(4, 100, 3))
    r = np.full((100, 2), 0.1)
    a0, a1, b0, b1 = points
    found = audit.tapered_gap(a0, a1, r, b0, b1, r)
    assert found == pytest.approx(audit.segment_distance(*points) - 0.2, abs=1e-9)


# ---------------------------------------------------------------- overlaps


def test_close_pairs_misses_nothing():
    rng = np.random.default_rng(3)
    start = rng.uniform(0, 20, (250, 3))
    end = start + rng.normal(scale=rng.choice([0.3, 6.0], 250)[:, None], size=(250, 3))
    reach = rng.choice([0.05, 0.4, 2.0], 250)
    found = {tuple(p) for p in audit.close_pairs(start, end, reach).tolist()}
    i, j = np.triu_indices(250, 1)
    meets = audit.segment_distance(start[i], end[i], start[j], end[j]) <= reach[i] + reach[j]
    assert meets.sum() > 100
    assert {*zip(i[meets].tolist(), j[meets].tolist(), strict=True)} <= found
    assert len(found) < len(i)


def _counts(raw):
    found = audit.overlaps(raw)
    return {
        name: len(getattr(found, name))
        for name in ("other", "second", "fixed", "stub_own", "stub_fixed")
        if len(getattr(found, name))
    }


def test_a_plain_tree_has_no_overlaps():
    assert _counts(y_tree()) == {}


@pytest.mark.parametrize(
    ("apart_mm", "expected"), [(0.41, {}), (0.4, {}), (0.39, {"other": 4}), (0.0, {"other": 4})]
)
def test_parallel_trees(apart_mm, expected):
    """Stub and vessel of either tree meet both of the other's where the trees are too close."""
    assert _counts(two_trees(apart_mm)) == expected


def test_crossing_vessels():
    assert _counts(two_trees(8.0)) == {}
    raw = two_trees(8.0, end_mm=[-8.0, 0.3, 10.0])
    assert audit.overlaps(raw).other.tolist() == [[1, 3]]
    assert _counts(two_trees(8.0, end_mm=[-8.0, 1.0, 10.0])) == {}


def test_second_neighbours_are_counted_apart():
    """A vessel that turns back over its grandparent's sibling."""
    raw = y_tree(
        position_mm=[[0, 0, 1], [0, 0, 5], [3, 0, 9], [-3, 0, 9], [-2.9, 0, 8], [4, 0, 14]],
        parent=[-1, 0, 1, 1, 2, 2],
        radius_mm=0.3,
    )
    assert audit.overlaps(raw).second.tolist() == [[3, 4]]
    assert _counts(raw) == {"second": 1}
    free = raw.position.copy()
    free[4] = [1e-3, 0, 14e-3]
    assert _counts(replace(raw, position=free)) == {}


def test_grown_vessels_against_a_tapered_fixed_one():
    """A cone about an axis 0.8 mm away: its wide half is met, its thin half is not."""
    across = {"position_mm": [[0, 0, 1], [0, 0, 9]], "parent": [-1, 0], "radius_mm": 0.1}
    cone = {"fixed_radius_mm": [[1.2, 0.2]]}
    wide = forest(**across, **cone, fixed_mm=[[0.8, -1, 5], [0.8, 9, 5]])
    assert audit.overlaps(wide).fixed.tolist() == [[1, 2]]
    thin = forest(**across, **cone, fixed_mm=[[0.8, -9, 5], [0.8, 1, 5]])
    assert _counts(thin) == {}


def test_stubs_against_the_fixed_tree():
    """A stub begins inside the vessel it leaves, which is no fault; another vessel in its way is.

    The vessel that goes on from a stub lies outside both.
    """
    own = forest(
        [[0, 0, 4], [0, 0, 9]],
        [-1, 0],
        0.2,
        fixed_mm=[[-3, 0, 0.3], [3, 0, 0.3]],
    )
    assert audit.overlaps(own).stub_own.tolist() == [[0, 2]]
    assert _counts(own) == {"stub_own": 1}
    in_the_way = forest(
        [[0, 0, 4], [0, 0, 9]],
        [-1, 0],
        0.2,
        fixed_mm=[[-3, 0, 3], [3, 0, 3]],
        fixed_radius_mm=[[0.5, 0.5]],
    )
    assert audit.overlaps(in_the_way).stub_fixed.tolist() == [[0, 2]]
    assert _counts(in_the_way) == {"stub_fixed": 1}


# ---------------------------------------------------------------- the wall


def _wall_of_boxes(affine_turn=None):
    """A wall of 10³ boxes from index 10 to 19 in a grid of 30³, spacing 1, 1 and 2 mm."""
    wall = np.zeros((30, 30, 30), bool)
    wall[10:20, 10:20, 10:20] = True
    affine = np.diag([1.0, 1.0, 2.0, 1.0]) * MM
    affine[3, 3] = 1.0
    if affine_turn is not None:
        affine[:3, :3] = affine_turn @ affine[:3, :3]
        affine[:3, 3] = [5e-3, -2e-3, 1e-3]
    return wall, affine


def _turn():
    return np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))[0]


@pytest.mark.parametrize("turn", [None, _turn()], ids=["straight", "turned"])
def test_distance_from_the_wall_against_brute_force(turn):
    wall, affine = _wall_of_boxes(turn)
    wall[5, 15, 15] = True  # a lone box
    index = np.random.default_rng(5).uniform(-4, 34, (400, 3))
    point = index @ affine[:3, :3].T + affine[:3, 3]
    spacing = np.array([1.0, 1.0, 2.0]) * MM
    beyond = np.maximum(np.abs(index[:, None] - np.argwhere(wall)[None]) - 0.5, 0) * spacing
    exact = np.linalg.norm(beyond, axis=2).min(axis=1)
    assert (exact == 0).any() and (exact > 4e-3).any()
    assert audit.wall_distance(point, wall, affine) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize(
    ("out_voxels", "radius_mm", "axis", "surface"),
    [(0.4, 0.05, 0.0, 0.0), (0.4, 0.15, 0.0, 1.0), (0.5, 1e-4, 0.0, 1.0), (0.6, 0.05, 1.0, 1.0)],
)
def test_a_vessel_that_leaves_the_wall(out_voxels, radius_mm, axis, surface):
    """The wall ends at x = 19.5 mm; the vessel runs along its face, `out_voxels` outside."""
    wall = np.zeros((30, 30, 30), bool)
    wall[10:20, 10:20, 10:20] = True
    x = 19.5 + out_voxels
    raw = forest(
        [[x, 12, 12], [x, 18, 12]], [-1, 0], radius_mm, root_mm=[[40.0, 12, 12]], wall=wall
    )
    found = audit.outside(raw)
    assert found.share("axis") == axis
    assert found.share("surface") == surface
    assert found.axis[1] == pytest.approx(out_voxels * MM)
    # the stub comes from far outside, and is told apart
    assert found.axis[0] > 10 * MM


def test_only_the_middle_of_a_vessel_leaves_the_wall():
    """A vessel across a notch: both its ends lie inside."""
    wall = np.ones((30, 30, 30), bool)
    wall[14:17, 14:17, :] = False
    raw = forest([[10, 15, 15], [20, 15, 15]], [-1, 0], 0.1, root_mm=[[5.0, 15, 15]], wall=wall)
    found = audit.outside(raw)
    assert found.share("axis") == 1.0
    assert found.axis[1] == pytest.approx(1.5 * MM, abs=0.13 * MM)
    assert audit.outside(replace(raw, wall=np.ones((30, 30, 30), bool))).share("surface") == 0.0


# ---------------------------------------------------------------- structure and conservation


def test_a_sound_tree_has_no_faults():
    assert audit.faults(y_tree(), 2) == []


@pytest.mark.parametrize(
    ("raw", "n_terminals", "fault"),
    [
        (y_tree(), 3, "2 terminals instead of 3"),
        (y_tree(parent=[-1, 3, 1, 2]), 2, "a cycle"),
        (y_tree(parent=[-1, 0, 0, 0]), 3, "more than two children"),
        (y_tree(parent=[-1, 0, 1, 2]), 1, "two bends"),
        (y_tree(parent=[-1, -1, 1, 1], stage=[0, 0, 2, 2]), 3, "not exactly one stub"),
        (y_tree(parent=[-1, -1, 1, 1], stage=[0, 0, 2, 2]), 3, "a stub ends in nothing"),
        (y_tree(stage=[1, 1, 2, 2]), 2, "stubs are not the vessels at the roots"),
        (y_tree(parent=[-1, 0, 1, 7]), 2, "no node and no root"),
        (y_tree(radius_mm=[0.5, 0.5, 0.4, 0.0]), 2, "not positive"),
        (y_tree(radius_mm=[0.5, 0.5, 0.4, np.nan]), 2, "not finite"),
        (y_tree(position_mm=[[0, 0, 1], [0, 0, 1], [3, 0, 9], [-3, 0, 9]]), 2, "no length"),
    ],
)
def test_a_broken_tree(raw, n_terminals, fault):
    assert any(fault in found for found in audit.faults(raw, n_terminals))


def test_nodes_in_any_order_are_sorted():
    """Parents may have higher numbers than their children."""
    raw = forest(
        [[3, 0, 9], [-3, 0, 9], [0, 0, 5], [0, 0, 1]],
        [2, 2, 3, -1],
        [0.5 * 0.5 ** (1 / 3), 0.5 * 0.5 ** (1 / 3), 0.5, 0.5],
    )
    assert audit.faults(raw, 2) == []
    assert audit.flows_below(raw.parent, np.array([1.0, 2.0])).tolist() == [1.0, 2.0, 3.0, 3.0]
    assert audit.murray_error(raw, 3.0) <= 1e-12


def test_flows():
    raw = y_tree()
    flow = audit.flows_below(raw.parent, np.array([2.0, 5.0]))
    assert flow.tolist() == [7.0, 7.0, 2.0, 5.0]
    assert audit.junction_error(raw.parent, flow) == 0.0
    assert audit.root_flow_error(raw, np.array([2.0, 5.0])) == 0.0
    lost = flow - np.array([0.0, 0.0, 0.0, 1.0])
    assert audit.junction_error(raw.parent, lost) == pytest.approx(1 / 7)
    # the second terminal hangs on a cycle, which no root feeds
    cut = y_tree(parent=[-1, 2, 1, 1])
    assert audit.root_flow_error(cut, np.array([3.0, 1.0])) == pytest.approx(0.25)


def test_murrays_law():
    raw = y_tree()
    assert audit.murray_error(raw, 3.0) <= 1e-12
    assert audit.murray_error(raw, 2.7) > 0.05
    assert audit.murray_error(raw, lambda r: 7.0 * r**3) <= 1e-12
    # an exponent that falls with the radius is no law of one exponent
    law = lambda r: r ** (3.0 - 200.0 * r)
    small = np.array([0.3, 0.35]) * MM
    wanted = law(small).sum()
    low, high = 0.35 * MM, 1.0 * MM
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if law(middle) < wanted else (low, middle)
    general = replace(raw, radius=np.array([low, low, *small]))
    assert audit.murray_error(general, law) <= 1e-9
    assert audit.murray_error(general, 3.0) > 1e-3


def test_calibres_stand_for_the_terminals_below():
    assert audit.calibre_error(y_tree(), 3.0) <= 1e-12
    uneven = y_tree(radius_mm=[0.5, 0.5, 0.5 * 0.3 ** (1 / 3), 0.5 * 0.7 ** (1 / 3)])
    assert audit.murray_error(uneven, 3.0) <= 1e-12
    assert audit.calibre_error(uneven, 3.0) == pytest.approx(0.4)


def test_volume():
    raw = forest([[0, 0, 2], [0, 3, 6]], [-1, 0], [1.0, 0.5])
    assert audit.volume(raw) == pytest.approx((np.pi * 2 + np.pi * 0.25 * 5) * 1e-9)
    assert audit.volume(y_tree()) != pytest.approx(audit.volume(raw))


# ---------------------------------------------------------------- coverage


def _terminals_in_rows(x_mm):
    """Two terminals at the given places in x in a wall 40 mm wide in x, 10 mm in y and z."""
    wall = np.ones((40, 10, 10), bool)
    a, b = x_mm
    return forest(
        [[20, 4.5, 1], [20, 4.5, 2], [a, 4.5, 4.5], [b, 4.5, 4.5]],
        [-1, 0, 1, 1],
        0.1,
        root_mm=[[20.0, 4.5, -9]],
        wall=wall,
    )


def test_territories():
    even = audit.territory_volumes(_terminals_in_rows((9.5, 29.5)))
    assert even == pytest.approx([2e-6, 2e-6])
    assert audit.variation(even) <= 1e-12
    # the border lies at x = 9.5, a quarter of the wall from its end at -0.5
    uneven = audit.territory_volumes(_terminals_in_rows((4.5, 14.5)))
    assert uneven == pytest.approx([1e-6, 3e-6])
    assert audit.variation(uneven) == pytest.approx(0.5)


def test_density_by_segment():
    centre = np.argwhere(np.ones((4, 1, 1), bool)) * MM
    volume, segment = np.full(4, 1e-9), np.array([1, 1, 1, 2])
    even = np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0], [3, 0, 0]]) * MM
    assert audit.segment_density(even, centre, volume, segment) == {1: 1.0, 2: 1.0}
    found = audit.segment_density(even[[0, 0, 3, 3]], centre, volume, segment)
    assert found == pytest.approx({1: 2 / 3, 2: 2.0})
    assert audit.segment_density(even[:1], centre, volume, segment)[2] == 0.0


def test_forty_thousand_vessels_take_less_than_a_minute():
    rng = np.random.default_rng(6)
    n = 20_000
    wall = np.zeros((62, 62, 62), bool)
    wall[1:-1, 1:-1, 1:-1] = True
    begin = rng.uniform(2, 58, (n, 3))
    end = begin + rng.normal(scale=0.8, size=(n, 3))
    raw = forest(
        np.concatenate([begin + 0.1, end]),
        np.concatenate([-1 - np.arange(n), np.arange(n)]),
        np.concatenate([rng.uniform(0.1, 0.6, n)] * 2),
        root_mm=begin,
        wall=wall,
    )
    start = time.perf_counter()
    assert len(audit.overlaps(raw).other) > 1000
    assert audit.outside(raw).share("surface") < 1.0
    assert len(audit.territory_volumes(raw, level=2)) == n
    assert time.perf_counter() - start < 60.0
