"""The embedded demonstration and its parts: anatomy, published diameters, branching law."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import KDTree

from jaxperf import InputError
from jaxperf.anatomy import (
    Course,
    demo_tree,
    DODGE_MM,
    LAD_DISTAL_AT_MM,
    network_from_courses,
    synthetic_right_coronary,
    terminal_sites,
)
from jaxperf.casefile import Case, load_case
from jaxperf.geometry import ellipsoid_ventricle, lv_frame_from_labels
from jaxperf.io import read_swc, write_swc
from jaxperf.jobs import branch_ends, demo_case, write_starter
from jaxperf.network import branch_course, downstream_sum, vessel_territories
from jaxperf.study import (
    build_heart,
    build_regions,
    build_tree,
    joined,
    read_tree,
    voxels_in_patient,
)

MM = 1e-3


@pytest.fixture(scope="module")
def heart():
    return ellipsoid_ventricle(spacing_mm=4.0)


@pytest.fixture(scope="module")
def tree(heart):
    return demo_tree(heart[2])


def _ends_mm(tree, branch):
    course, _ = branch_course(tree, branch)
    radius = np.asarray(tree.radius)[course]
    return 2.0 * radius[0, 0] / MM, 2.0 * radius[-1, 1] / MM


def test_the_vessels_of_a_right_dominant_tree(tree):
    named = {"LM", "LAD", "LCx", "RCA", "PDA", "PL", "D1", "D2", "S1", "S2", "S3", "OM1", "OM2"}
    assert named <= set(tree.branch_name)
    assert len(tree.roots) == 2
    assert 30 <= len(tree.terminals) <= 60


def test_published_diameters(tree):
    assert _ends_mm(tree, "LM") == pytest.approx((DODGE_MM["LM"],) * 2)
    assert _ends_mm(tree, "LAD")[0] == pytest.approx(DODGE_MM["LAD proximal"])
    course, start = branch_course(tree, "LAD")
    distal = int(np.argmin(np.abs(start - LAD_DISTAL_AT_MM * MM)))
    found = 2.0 * np.asarray(tree.radius)[course[distal], 0] / MM
    assert found == pytest.approx(DODGE_MM["LAD distal"], rel=0.03)
    assert _ends_mm(tree, "LCx")[0] == pytest.approx(DODGE_MM["LCx proximal"])
    assert _ends_mm(tree, "RCA")[0] == pytest.approx(DODGE_MM["RCA proximal"])


def test_the_lumen_never_widens_along_a_vessel(tree):
    radius, node = np.asarray(tree.radius), np.asarray(tree.segment_node)
    assert (radius[:, 1] <= radius[:, 0] * (1 + 1e-12)).all()
    into = {int(b): s for s, (_, b) in enumerate(node)}
    for s, (a, _) in enumerate(node.tolist()):
        if a in into:
            assert radius[s, 0] <= radius[into[a], 1] * (1 + 1e-12)


def test_the_branching_law_holds_below_the_left_main(tree):
    node, radius = np.asarray(tree.segment_node), np.asarray(tree.radius)
    into = {int(b): s for s, (_, b) in enumerate(node)}
    checked = 0
    for a, s in into.items():
        below = np.flatnonzero(node[:, 0] == a)
        if len(below) > 1 and tree.branch_name[int(tree.branch[s])] != "LM":
            power = 7.0 / 3.0
            assert np.sum(radius[below, 0] ** power) == pytest.approx(radius[s, 1] ** power)
            checked += 1
    assert checked >= 15


def test_the_tree_lies_on_the_wall(tree, heart):
    mesh, _, lv = heart
    position = np.asarray(tree.node_position)
    terminal = position[np.asarray(tree.terminals)]
    assert KDTree(mesh.centre).query(terminal)[0].max() < 4 * MM
    for name in ("LAD", "D1", "D2", "LCx", "OM1", "OM2", "PDA"):
        course, _ = branch_course(tree, name)
        distance = lv.outside_distance(position[np.asarray(tree.segment_node)[course, 1]])
        assert distance.min() > 0.0 and distance.max() < 6 * MM, name
    for name in ("S1", "S2", "S3"):
        course, _ = branch_course(tree, name)
        end = position[np.asarray(tree.segment_node)[course[-1], 1]]
        assert lv.outside_distance(end[None])[0] < -2 * MM, name


def test_territories_and_mass():
    case = demo_case(4.0)
    heart = build_heart(case, Path())
    network = build_tree(case, Path(), heart)
    terminal = np.asarray(network.terminals)
    regions = build_regions(case, network, heart, terminal, network.n_nodes)
    names, owner = vessel_territories(network, terminal)
    share = np.bincount(owner, regions.terminal_volume) / regions.terminal_volume.sum()
    share = dict(zip(names, share, strict=True))
    assert set(share) == {"LAD", "LCx", "RCA"}
    assert share["LAD"] == pytest.approx(0.45, abs=0.06)
    assert share["LCx"] == pytest.approx(0.28, abs=0.06)
    assert share["RCA"] == pytest.approx(0.27, abs=0.06)
    assert 120.0 < heart.mesh.volume.sum() * 1050.0 * 1e3 < 140.0
    assert network.lesion.length.shape == (1,)


def test_sites_follow_the_terminal_vessels(tree):
    terminal = np.asarray(tree.terminals)
    tips, owner, _ = terminal_sites(tree, terminal, 0.0)
    np.testing.assert_array_equal(owner, np.arange(len(terminal)))
    np.testing.assert_allclose(tips, np.asarray(tree.node_position)[terminal])
    sites, owner, width = terminal_sites(tree, terminal, 10 * MM)
    reach = np.linalg.norm(sites - tips[owner], axis=1)
    assert 5 * MM < reach.max() <= 10 * MM
    assert len(sites) > 2 * len(terminal) and (width > 0).all()


def test_downstream_sums_to_the_roots(tree):
    terminal = np.asarray(tree.terminals)
    below = downstream_sum(tree, terminal, np.ones(len(terminal)))
    at_root = np.isin(np.asarray(tree.segment_node)[:, 0], np.asarray(tree.roots))
    assert below[at_root].sum() == len(terminal)


def test_a_written_tree_reads_back(tree, tmp_path):
    ends = branch_ends(tree, write_swc(tmp_path / "t.swc", tree))
    back = read_swc(tmp_path / "t.swc", units="mm", frame="model", branch_name=ends)
    assert back.n_segments == tree.n_segments
    assert np.asarray(back.length).sum() == pytest.approx(np.asarray(tree.length).sum(), rel=1e-5)
    for name in ("LM", "LAD", "RCA", "S1", "D1 twig 1"):
        assert _ends_mm(back, name) == pytest.approx(_ends_mm(tree, name), abs=1e-5)


def _lengths_mm(tree):
    length = np.asarray(tree.length) / MM
    return {name: length[branch_course(tree, name)[0]].sum() for name in tree.branch_name}


def test_the_branches_of_the_starter_are_those_of_the_demonstration(tmp_path):
    case = demo_case(5.0)
    demo = _lengths_mm(read_tree(case, tmp_path, build_heart(case, tmp_path)))
    path = write_starter(tmp_path / "new", spacing_mm=5.0)
    starter = load_case(path)
    back = _lengths_mm(read_tree(starter, tmp_path / "new", None))
    assert set(back) == set(demo)
    assert back == pytest.approx(demo, abs=0.1)


def test_courses_refuse_what_cannot_be():
    line = np.linspace(0.0, 1.0, 5)[:, None] * np.array([[0.05, 0.0, 0.0]])
    with pytest.raises(InputError, match="not drawn before it"):
        network_from_courses([Course("a", line, "b", 0.0, share=0.5)], frame="model")
    with pytest.raises(InputError, match="cannot go from"):
        root = Course("a", line, diameter_mm=3.0, end_mm=300.0)
        network_from_courses([root], frame="model")


def test_a_right_coronary_along_the_grooves_of_any_labels(heart, tree):
    mesh = voxels_in_patient(heart[0])
    frame = lv_frame_from_labels(mesh)
    left = demo_tree(heart[2])
    right = synthetic_right_coronary(mesh, frame, left, rv_label=3)
    assert all(name.endswith("(synthetic)") for name in right.branch_name)
    assert {"RCA (synthetic)", "PDA (synthetic)", "PL 2 (synthetic)"} <= set(right.branch_name)
    tip = np.asarray(right.node_position)[np.asarray(right.terminals)]
    assert KDTree(mesh.centre).query(tip)[0].max() < 10 * MM
    # the PDA ends and the posterolateral branches lie on the inferior side, apart from each other
    angle = np.sort(np.degrees(frame.angle(tip)))
    assert angle.min() > -150.0 and angle.max() < -30.0
    assert np.diff(angle).min() > 10.0
    with pytest.raises(InputError, match="both trees have a branch"):
        joined(right, right)


def test_landmarks_are_needed_without_labels():
    tets = {"file": "a.vtu", "units": "mm", "frame": "LPS"}
    tree = {"file": "a.swc", "units": "mm", "frame": "LPS"}
    with pytest.raises(ValueError, match="landmarks"):
        Case.model_validate({"kind": "patient", "tree": tree, "ventricle": {"tetrahedra": tets}})
