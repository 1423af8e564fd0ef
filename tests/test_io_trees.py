"""SWC files, centrelines, branch names and frames."""

import jax.numpy as jnp
import numpy as np
import pytest
import pyvista
from helpers import data_dir, requires_data
from sample_texts import Y_TREE

from jaxperf import InputError
from jaxperf.io import network_in_frame, read_centerlines, read_swc, to_frame, write_tree
from jaxperf.network import branch_course


@pytest.fixture
def y_tree(tmp_path):
    path = tmp_path / "y.swc"
    path.write_text(Y_TREE)
    return path


def _read(path, **options):
    return read_swc(path, units="mm", frame="LPS", **options)


def _length_mm(network, branch):
    course, _ = branch_course(network, branch)
    return 1e3 * float(np.asarray(network.length)[course].sum())


def test_swc_geometry(y_tree):
    network = _read(y_tree)
    assert (network.n_nodes, network.n_segments, network.n_vessels) == (8, 7, 5)
    assert network.roots.tolist() == [0]
    assert network.terminals.tolist() == [4, 6, 7]
    assert jnp.allclose(network.node_position[4], jnp.array([0.04, 0.012, 0.0]))
    assert jnp.allclose(network.radius[0], jnp.array([2e-3, 2e-3]))
    # 2 -> 3 ends outside the lumen of the junction, so it tapers
    assert jnp.allclose(network.radius[1], jnp.array([2e-3, 1.6e-3]))
    assert network.frame == "LPS"


def test_units_scale_the_tree(tmp_path, y_tree):
    rows = np.loadtxt(y_tree)
    rows[:, 2:6] *= 1e3
    path = tmp_path / "um.swc"
    np.savetxt(path, rows, fmt=["%d", "%d", "%.6f", "%.6f", "%.6f", "%.6f", "%d"])
    expected, scaled = _read(y_tree), read_swc(path, units="um", frame="LPS")
    assert jnp.allclose(scaled.node_position, expected.node_position, atol=1e-12)
    assert jnp.allclose(scaled.radius, expected.radius, atol=1e-12)


def test_order_of_rows_does_not_matter(tmp_path, y_tree):
    lines = Y_TREE.splitlines()
    path = tmp_path / "reversed.swc"
    path.write_text("\n".join(lines[:1] + lines[:0:-1]))
    network, expected = _read(path), _read(y_tree)
    assert network.branch_name == expected.branch_name
    for name in network.branch_name:
        assert _length_mm(network, name) == pytest.approx(_length_mm(expected, name))


def test_branches_follow_the_calibre(y_tree):
    network = _read(y_tree)
    assert network.branch_name == ("branch 0", "branch 1", "branch 2")
    assert _length_mm(network, "branch 0") == pytest.approx(
        10 + 2 * np.hypot(10, 5) + np.hypot(10, 2)
    )
    assert _length_mm(network, "branch 2") == pytest.approx(np.hypot(4, 8))


def test_names_by_end_and_by_automatic_name(y_tree):
    network = _read(y_tree, branch_name={2: "LM", 5: "LAD", "branch 1": "LCx", 8: "D1"})
    assert network.branch_name == ("LM", "LAD", "LCx", "D1")
    assert _length_mm(network, "LM") == pytest.approx(10)
    assert _length_mm(network, "LAD") == pytest.approx(2 * np.hypot(10, 5) + np.hypot(10, 2))
    # a stretch cut off at its end leaves the rest with the automatic name
    cut = _read(y_tree, branch_name={2: "LM"})
    assert cut.branch_name == ("LM", "branch 0", "branch 1", "branch 2")


def test_a_named_tip_claims_its_way(y_tree):
    # the side branch that ends in row 8 is thinner than the course to row 5
    wide = _read(y_tree, branch_name={2: "LM", 5: "LAD", 8: "D1"})
    assert wide.branch_name == ("LM", "LAD", "branch 1", "D1")
    thin = _read(y_tree, branch_name={8: "D1", 2: "LM", 5: "LAD"})
    assert thin.branch_name == ("LM", "D1", "branch 1", "LAD")
    assert _length_mm(thin, "D1") == pytest.approx(2 * np.hypot(10, 5) + np.hypot(4, 8))
    assert _length_mm(thin, "LAD") == pytest.approx(np.hypot(10, 2))
    # an automatic name keeps to its course
    course = _read(y_tree, branch_name={"branch 2": "D1"})
    assert course.branch_name == ("branch 0", "branch 1", "D1")
    assert _length_mm(course, "D1") == pytest.approx(np.hypot(4, 8))


def test_coincident_rows_become_one_node_with_a_step(tmp_path):
    path = tmp_path / "step.swc"
    path.write_text("1 1 0 0 0 2 -1\n2 3 10 0 0 2 1\n3 3 10 0 0 1.5 2\n4 3 20 0 0 1.5 3\n")
    network = _read(path)
    assert (network.n_nodes, network.n_segments) == (3, 2)
    assert jnp.allclose(network.radius, jnp.array([[2e-3, 2e-3], [1.5e-3, 1.5e-3]]))
    named = _read(path, branch_name={4: "LAD", 3: "LM"})
    assert named.branch_name == ("LM", "LAD")


def test_link_inside_the_lumen_keeps_the_daughter_calibre(tmp_path):
    path = tmp_path / "link.swc"
    path.write_text(
        "1 1 0 0 0 2 -1\n2 3 10 0 0 2 1\n3 3 20 0 0 1.9 2\n4 3 10 0.5 0 0.8 2\n5 3 10 9 0 0.8 4\n"
    )
    assert jnp.allclose(_read(path).radius[2], jnp.array([0.8e-3, 0.8e-3]))


def test_several_roots(tmp_path, y_tree):
    path = tmp_path / "two.swc"
    path.write_text(Y_TREE + "9 1 0 50 0 1.5 -1\n10 3 20 50 0 1.2 9\n")
    network = _read(path)
    assert network.roots.tolist() == [0, 8]
    # branches are numbered generation by generation
    assert _length_mm(network, "branch 1") == pytest.approx(20)


def test_frames():
    point = np.array([[1.0, 2.0, 3.0]])
    assert np.array_equal(to_frame(point, "RAS", "LPS"), [[-1.0, -2.0, 3.0]])
    assert np.array_equal(to_frame(to_frame(point, "LPS", "RAS"), "RAS", "LPS"), point)
    with pytest.raises(InputError, match="no rule from model"):
        to_frame(point, "model", "LPS")


def test_network_in_frame(y_tree):
    network = _read(y_tree)
    turned = network_in_frame(network, "RAS")
    assert turned.frame == "RAS"
    assert jnp.allclose(turned.node_position * jnp.array([[-1, -1, 1.0]]), network.node_position)
    assert jnp.array_equal(turned.length, network.length)


def _polydata(lines, radius_of):
    """Separate points for every line, as VMTK writes them."""
    point = np.concatenate(lines)
    start = np.cumsum([0, *(len(x) for x in lines)])
    cells = [[len(x), *range(a, a + len(x))] for x, a in zip(lines, start[:-1], strict=True)]
    data = pyvista.PolyData(point, lines=np.concatenate(cells))
    data["MaximumInscribedSphereRadius"] = radius_of(point)
    return data


def _resampled(corners, step):
    """A polyline with points at equal steps of arc length."""
    corners = np.array(corners, np.float64)
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    at = np.append(np.arange(0, arc[-1], step), arc[-1])
    return np.stack([np.interp(at, arc, corners[:, k]) for k in range(3)], axis=1)


_COURSES = (
    [[0, 0, 0], [10, 0, 0], [30, 10, 0], [40, 12, 0]],
    [[0, 0, 0], [10, 0, 0], [20, -8, 0], [40, -12, 0]],
    [[0, 0, 0], [10, 0, 0], [30, 10, 0], [34, 18, 0]],
)
_TREE_LENGTH = (
    10 + np.hypot(20, 10) + np.hypot(10, 2) + np.hypot(10, 8) + np.hypot(20, 4) + np.hypot(4, 8)
)


@pytest.mark.filterwarnings("ignore:.*were taken for one course")
@pytest.mark.parametrize("step", [0.5, 1.0])
@pytest.mark.parametrize("jitter", [0.0, 0.01])
def test_overlapping_lines_are_read_once(tmp_path, step, jitter):
    rng = np.random.default_rng(0)
    lines = [_resampled(c, step) for c in _COURSES]
    lines = [x + jitter * rng.uniform(-1, 1, x.shape) for x in lines]
    path = tmp_path / "vmtk.vtp"
    _polydata(lines, lambda x: 2.0 - 0.025 * x[:, 0]).save(path)
    network = read_centerlines(path, units="mm", frame="LPS", branch_name={1: "LCx"})
    assert network.n_vessels == 5
    assert len(network.terminals) == 3
    # points lie up to a step from the corners of the courses, and the jitter lengthens them
    total = 1e3 * float(network.length.sum())
    assert total == pytest.approx(_TREE_LENGTH, rel=0.01)
    tip = network.node_position[network.segment_node[branch_course(network, "LCx")[0][-1], 1]]
    assert jnp.allclose(tip, jnp.array([0.04, -0.012, 0.0]), atol=2e-5)
    assert float(network.radius[0, 0]) == pytest.approx(2e-3, rel=1e-3)


def test_overlapping_lines_give_the_tree_of_the_swc_file(tmp_path, y_tree):
    rows = np.loadtxt(y_tree)
    courses = [[1, 2, 3, 4, 5], [1, 2, 6, 7], [1, 2, 3, 4, 8]]
    lines = [rows[np.array(c) - 1, 2:5] for c in courses]
    data = _polydata(lines, lambda x: x[:, 0])
    data["MaximumInscribedSphereRadius"] = np.concatenate(
        [rows[np.array(c) - 1, 5] for c in courses]
    )
    path = tmp_path / "y.vtp"
    data.save(path)
    _check_same_tree(read_centerlines(path, units="mm", frame="LPS"), _read(y_tree), 1e-8)


def _check_same_tree(a, b, atol):
    assert (a.n_nodes, a.n_segments, a.n_vessels) == (b.n_nodes, b.n_segments, b.n_vessels)
    assert a.branch_name == b.branch_name
    first, second = _host_arrays(a), _host_arrays(b)
    for name in a.branch_name:
        s, t = (branch_course(n, name)[0] for n in (a, b))
        for x, y in zip(first, second, strict=True):
            assert np.allclose(x[s], y[t], rtol=0.0, atol=atol)


def _host_arrays(network):
    """Length, radius and distal end of each segment; NumPy, which compiles nothing per shape."""
    position = np.asarray(network.node_position)
    end = position[np.asarray(network.segment_node)[:, 1]]
    return np.asarray(network.length), np.asarray(network.radius), end


def test_one_line_for_each_branch_is_linked_to_its_parent(tmp_path):
    lines = [
        _resampled([[0, 0, 0], [40, 0, 0]], 1.0),
        # starts beside the centreline of its parent, between two of its points
        _resampled([[10.5, 1.0, 0], [10.5, 20, 0]], 1.0),
    ]
    data = _polydata(lines, lambda x: np.where(x[:, 1] > 0, 1.0, 2.0))
    path = tmp_path / "branches.vtp"
    data.save(path)
    network = read_centerlines(path, units="mm", frame="LPS", branch_name={0: "LAD", 1: "D1"})
    assert _length_mm(network, "D1") == pytest.approx(20)
    assert _length_mm(network, "LAD") == pytest.approx(40)
    assert network.n_vessels == 3


def test_two_inlets_in_one_file(tmp_path):
    left = [_resampled(c, 1.0) for c in _COURSES]
    right = _resampled([[0, 60, 0], [40, 60, 0]], 1.0)
    path = tmp_path / "both.vtp"
    _polydata([*left, right], lambda x: np.full(len(x), 1.0)).save(path)
    network = read_centerlines(path, units="mm", frame="LPS", n_roots=2)
    assert len(network.roots) == 2
    assert len(network.terminals) == 4
    with pytest.raises(InputError, match="n_roots"):
        read_centerlines(path, units="mm", frame="LPS")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_inlet_line_is_found_whatever_the_order(tmp_path, order):
    """A side branch that is longer than the inlet's line and starts near the inlet."""
    lines = [
        _resampled([[0, 0, 0], [3, 0, 0], [20, 12, 0]], 1.0),
        _resampled([[3, 0, 0], [60, -12, 0]], 1.0),
    ]
    path = tmp_path / "lines.vtp"
    _polydata([lines[i] for i in order], lambda x: np.full(len(x), 2.0)).save(path)
    network = read_centerlines(path, units="mm", frame="LPS")
    assert jnp.allclose(network.node_position[network.roots[0]], 0.0)
    assert len(network.terminals) == 2


def test_written_tree_can_be_seen_again(tmp_path, y_tree):
    network = _read(y_tree, branch_name={2: "LM"})
    path = tmp_path / "tree.vtp"
    flow = np.arange(7.0)
    pressure = np.arange(8.0)
    static = np.arange(14.0).reshape(7, 2)
    write_tree(path, network, flow_ml_min=flow, pressure_mmHg=pressure, ffr=static)
    data = pyvista.read(path)
    assert data.n_lines == 7
    assert np.array_equal(data.cell_data["flow_ml_min"], flow)
    assert np.array_equal(data.point_data["ffr"], static.ravel())
    ends = np.asarray(network.segment_node).ravel()
    assert np.array_equal(data.point_data["pressure_mmHg"], pressure[ends])
    assert np.allclose(data.points, 1e3 * np.asarray(network.node_position)[ends])
    assert data.cell_data["branch_name"][0] == "LM"
    assert np.allclose(data.point_data["radius_mm"][:2], 2.0)
    assert list(data.field_data["frame"]) == ["LPS"]


COMPOSITE_NAMES = {
    2: "LM", 76: "LAD", 77: "LCx", 51: "D1", 83: "OM1", 85: "OM2", 92: "OM3"
}  # fmt: skip


@requires_data
def test_composite_tree_is_read_alike_from_both_formats():
    folder = data_dir() / "composite"
    swc = read_swc(folder / "tree_registered.swc", units="mm", frame="LPS")
    vtp = read_centerlines(folder / "tree_registered.vtp", units="mm", frame="LPS")
    _check_same_tree(vtp, swc, 2e-7)
    assert (swc.n_segments, swc.n_vessels, len(swc.terminals)) == (91, 11, 6)


@requires_data
def test_composite_branches_have_the_stated_lengths():
    path = data_dir() / "composite" / "tree_registered.swc"
    network = read_swc(path, units="mm", frame="LPS", branch_name=COMPOSITE_NAMES)
    stated = {
        "LM": 3.2, "LAD": 142.9, "LCx": 103.8, "D1": 47.6, "OM1": 33.8, "OM2": 42.5, "OM3": 29.5
    }  # fmt: skip
    assert {n: _length_mm(network, n) for n in network.branch_name} == pytest.approx(
        stated, abs=0.06
    )


@requires_data
def test_left_coronary_branches_have_the_stated_lengths():
    path = data_dir() / "left_coronary" / "tree.swc"
    network = read_swc(path, units="mm", frame="model", branch_name=COMPOSITE_NAMES)
    assert network.branch_name == ("LM", "LAD", "LCx", "D1", "OM1", "OM2", "OM3")
    stated = {"LAD": 147, "D1": 49, "OM1": 34, "OM2": 43, "OM3": 30}
    for name, length in stated.items():
        # the links of the side branches, up to 1 mm, come on top
        assert _length_mm(network, name) == pytest.approx(length, abs=1.1)
    assert _length_mm(network, "LM") + _length_mm(network, "LCx") == pytest.approx(110, abs=0.5)
    assert float(network.radius.min()) == pytest.approx(0.603e-3)
    assert float(network.radius.max()) == pytest.approx(2.6223e-3)
