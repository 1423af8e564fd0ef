"""Names of branches: points that give them, and the side of the heart that they say."""

import dataclasses
import itertools

import numpy as np
import pytest
from centerline_files import polydata, read, sampled, Y

from jaxperf import InputError
from jaxperf.anatomy import branches_astray, demo_tree
from jaxperf.casefile import Case
from jaxperf.geometry import ellipsoid_ventricle
from jaxperf.jobs import demo_case
from jaxperf.network import branch_course
from jaxperf.study import build_heart, check_built, read_tree


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_point_names_a_branch_whatever_the_order_of_the_lines(tmp_path, order):
    lines = [np.concatenate([Y["stem"], Y[k][1:]]) for k in "ab"]
    lines.append(sampled([[10, 0, 0], [20, 30, 0]]))
    names = {"30.5, 0, 0": "LM", "(59, 20.5, 0.3)": "LAD", "60, -20, 0": "LCx"}
    network = read(tmp_path, polydata([lines[i] for i in order], 1.5), branch_name=names)
    end = {n: network.node_position[network.outlet(n)] * 1e3 for n in ("LM", "LAD", "LCx")}
    assert np.allclose(end["LM"], [30, 0, 0], atol=1.0)
    assert np.allclose(end["LAD"], [60, 20, 0]) and np.allclose(end["LCx"], [60, -20, 0])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("60, 12, 0", r"lies 8\.0 mm away"),
        ("60, 0, 0", r"lies 20\.0 mm away, the next 20\.0 mm"),
        ("60, 20", "not the end of any branch"),
        ("60, x, 0", "a point at that end as 'x, y, z' in mm"),
    ],
)
def test_a_point_that_names_no_end_is_refused(tmp_path, key, said):
    with pytest.raises(InputError, match=said):
        read(tmp_path, polydata(list(Y.values()), 1.5), branch_name={key: "LAD"})


@pytest.fixture(scope="module")
def drawn():
    _, frame, lv = ellipsoid_ventricle(spacing_mm=5.0)
    return demo_tree(lv), frame


@pytest.mark.parametrize(
    ("first", "second"), [("LAD", "LCx"), ("RCA", "LCx"), ("LAD", "RCA"), ("LAD", "D1")]
)
def test_exchanged_names_are_found(drawn, first, second):
    network, frame = drawn
    assert not branches_astray(network, frame)
    turn = {first: second, second: first}
    names = tuple(turn.get(name, name) for name in network.branch_name)
    wrong = dataclasses.replace(network, branch_name=names)
    found = branches_astray(wrong, frame)
    # a diagonal runs too near to the LAD to tell
    assert set(found) == ({first, second} if second != "D1" else set())
    if second == "LCx":
        assert f"where the {first} does" in found["LCx"]


def test_check_warns_of_exchanged_names(tmp_path):
    """The starter's tree as lines: the numbers of two lines are exchanged, a point is not."""
    case = demo_case().model_dump(exclude_unset=True)
    network = read_tree(demo_case(), tmp_path, build_heart(demo_case(), tmp_path))
    ends = [network.node_position[network.outlet(n)] for n in ("LAD", "LCx")]
    lines = []
    for name in ("LM", "LAD", "LCx"):
        segment = np.asarray(network.segment_node)[branch_course(network, name)[0]]
        lines.append(np.append(segment[:, 0], segment[-1, 1]))
    position = 1e3 * np.asarray(network.node_position)
    polydata([position[x] for x in lines], 1.8).save(tmp_path / "t.vtp")
    said = {}
    for key, branches in (
        ("number", {1: "LCx", 2: "LAD"}),
        (
            "point",
            {
                ",".join(f"{1e3 * x:.1f}" for x in e): n
                for e, n in zip(ends, ("LAD", "LCx"), strict=True)
            },
        ),
    ):
        tree = {"file": "t.vtp", "units": "mm", "frame": "LPS", "branches": branches}
        told = Case.model_validate({**case, "tree": tree, "lesions": [], "growth": None})
        found = check_built(told, tmp_path)
        assert not [f for f in found if f.severity == "error"], found
        said[key] = {f.where for f in found if "tree.branches" in f.message}
    assert said == {"number": {"LAD", "LCx"}, "point": set()}
