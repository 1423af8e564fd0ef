"""Centrelines as people export them: overlapping, rotated, in pieces, with other radii."""

import dataclasses
import re
import time
import warnings

import numpy as np
import pytest
from centerline_files import length_mm, MISR, polydata, read, sampled, Y, Y_MM
from helpers import requires_trials, TRIALS
from sample_texts import Y_TREE

from jaxperf import InputError
from jaxperf._misc import InputNote
from jaxperf.io import (
    read_centerlines,
    read_swc,
    write_tree,
)
from jaxperf.network import branch_course


@pytest.fixture
def quiet():
    """Reads whose notes are not the question."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputNote)
        yield


# -- lines in one lumen


def beside(apart, stem):
    """Two lines from one point, this far apart over a stem of 2 mm radius, then at 54 degrees."""
    ends = [[stem + 30.0, -15.0, 0.0], [stem + 30.0, 15.0 + apart, 0.0]]
    first = sampled([[0, 0, 0], [stem, 0, 0], ends[0]])
    second = sampled([[0, 0, 0], [1, apart, 0], [stem, apart, 0], ends[1]])
    return [first, second], stem + 2 * np.hypot(30.0, 15.0)


@pytest.mark.parametrize("apart", [0.6, 1.2, 1.8])
@pytest.mark.parametrize("stem", [10.0, 40.0])
def test_a_stem_tracked_twice_is_merged_or_refused_with_its_place(tmp_path, quiet, apart, stem):
    lines, truth = beside(apart, stem)
    data = polydata(lines, 2.0)
    try:
        network = read(tmp_path, data)
    except InputError as error:
        assert "inside the lumen of line" in error.what and "mm to (" in error.what
        tolerance = float(re.search(r"`merge_tolerance_mm` to ([\d.]+)", error.fix)[1])
        assert apart <= tolerance + 0.05
        network = read(tmp_path, data, merge_tolerance_mm=tolerance)
    assert (network.n_vessels, len(network.terminals)) == (3, 2)
    assert length_mm(network) == pytest.approx(truth, abs=3.5)


def test_lines_that_part_at_once_are_two_vessels(tmp_path):
    lines = [sampled([[0, 0, 0], [40, y, 0]]) for y in (-12, 12)]
    network = read(tmp_path, polydata(lines, 2.0))
    assert network.n_vessels == 2
    assert length_mm(network) == pytest.approx(2 * np.hypot(40, 12))


@pytest.mark.parametrize("form", ["swc", "one line for each branch"])
def test_a_vessel_beside_another_in_its_lumen_is_refused_in_every_form(tmp_path, form):
    trunk = sampled([[0, 0, 0], [80, 0, 0]])
    side = sampled([[10, 0, 0], [12, 1.5, 0], [60, 1.5, 0], [70, 20, 0]])
    expected = r"runs inside the lumen of .* for \d+ radii, 1\.\d mm beside it, from \("
    with pytest.raises(InputError, match=expected):
        if form == "swc":
            write_swc(tmp_path / "t.swc", [trunk, side], {1: 10}, 2.0)
            read_swc(tmp_path / "t.swc", units="mm", frame="LPS")
        else:
            read(tmp_path, polydata([trunk, side], 2.0))


def write_swc(path, lines, parent, radius):
    """Lines one after the other; `parent` holds the row (from 0) that a line leaves."""
    rows, count = [], 0
    for i, line in enumerate(lines):
        for k, point in enumerate(line):
            before = parent.get(i, -2) + 1 if k == 0 else count
            rows.append([count + 1, 3, *point, radius, before])
            count += 1
    np.savetxt(path, rows, fmt="%g")


# -- ends in other lumens


@pytest.mark.parametrize("gap", [0.0, 1.0, 2.2])
@pytest.mark.parametrize("form", ["swc", "lines"])
def test_a_branch_that_ends_on_another_is_refused_with_the_place(tmp_path, form, gap):
    trunk = sampled([[0, 0, 0], [60, 0, 0]])
    loop = sampled([[10, 0, 0], [20, 15, 0], [40, 15, 0], [50, gap, 0]])
    with pytest.raises(InputError, match=rf"ends in the lumen of .*\(50\.0, {gap:.1f}, 0\.0\) mm"):
        if form == "swc":
            write_swc(tmp_path / "t.swc", [trunk, loop], {1: 10}, 1.5)
            read_swc(tmp_path / "t.swc", units="mm", frame="LPS")
        else:
            read(tmp_path, polydata([trunk, loop], 1.5))


def test_a_branch_that_ends_near_another_vessel_is_no_loop(tmp_path):
    trunk = sampled([[0, 0, 0], [60, 0, 0]])
    near = sampled([[10, 0, 0], [20, 15, 0], [40, 15, 0], [50, 3.2, 0]])
    assert len(read(tmp_path, polydata([trunk, near], 1.5)).terminals) == 2


def test_a_vessel_that_crosses_another_is_read(tmp_path):
    lines = [sampled([[0, 0, 0], [60, 0, 0]]), sampled([[5, 0, 0], [30, 20, 0], [30, -20, 0]])]
    assert len(read(tmp_path, polydata(lines, 1.0)).terminals) == 2


def test_pieces_that_close_a_ring_are_refused(tmp_path):
    square = [[0, 0, 0], [20, 0, 0], [40, 10, 0], [40, -10, 0], [60, 0, 0]]
    way = [(0, 1), (1, 2), (1, 3), (2, 4), (3, 4)]
    lines = [sampled([square[a], square[b]]) for a, b in way]
    with pytest.raises(InputError, match=r"line 4 ends at \(60, 0, 0\).*close a loop"):
        read(tmp_path, polydata(lines, 1.0))


# -- the order of points and pieces


@pytest.mark.parametrize("shift", [1, -1, 20, -5])
def test_a_line_whose_points_are_rotated_is_put_right(tmp_path, shift):
    line = sampled([[0, 0, 0], [60, 10, 0]])
    with pytest.warns(InputNote, match=r"line 0 begins with its point \d+"):
        network = read(tmp_path, polydata([np.roll(line, shift, axis=0)], 1.5))
    assert length_mm(network) == pytest.approx(np.hypot(60, 10))
    assert np.allclose(np.asarray(network.node_position)[network.roots[0]], 0.0)


def test_points_out_of_order_are_refused(tmp_path):
    line = sampled([[0, 0, 0], [60, 10, 0]])
    line[[5, 50]] = line[[50, 5]]
    with pytest.raises(InputError, match=r"line 0 jumps by 46 .* between its points"):
        read(tmp_path, polydata([line], 1.5))


def test_a_long_straight_step_is_no_jump(tmp_path):
    line = np.concatenate([sampled([[0, 0, 0], [20, 0, 0]]), sampled([[32, 0, 0], [50, 9, 0]])])
    assert length_mm(read(tmp_path, polydata([line], 1.5))) == pytest.approx(32 + np.hypot(18, 9))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("own_points", [True, False])
def test_cells_of_two_points_are_one_vessel_for_each_course(tmp_path, seed, own_points):
    """In any order, with points shared or repeated."""
    pairs = [np.stack([x[:-1], x[1:]], axis=1) for x in Y.values()]
    cells = np.random.default_rng(seed).permutation(np.concatenate(pairs))
    data = polydata(list(cells), lambda p: 2.0 - 0.02 * p[:, 0])
    if not own_points:
        data = data.clean(tolerance=0.0)
    network = read(tmp_path, data)
    assert (network.n_vessels, len(network.terminals)) == (3, 2)
    assert network.n_segments == len(cells)
    assert length_mm(network) == pytest.approx(Y_MM)


def test_cells_of_two_points_take_linear_time(tmp_path):
    """Eight times as many take no more than twice eight times as long."""
    spent = {}
    for n in (1_000, 8_000):
        line = sampled([[0, 0, 0], [300, 0, 0]], 300.0 / n)
        data = polydata([line], 2.0)
        data.lines = np.stack([np.full(n, 2), np.arange(n), np.arange(1, n + 1)], axis=1).ravel()
        spent[n] = np.inf
        for _ in range(2):
            begin = time.process_time()
            network = read(tmp_path, data)
            spent[n] = min(spent[n], time.process_time() - begin)
        assert network.n_vessels == 1 and network.branch_name == ("branch 0",)
    assert spent[8_000] < 16 * spent[1_000]


@pytest.mark.parametrize("turned", [("a",), ("stem", "a", "b")])
def test_pieces_that_run_towards_the_inlet_are_turned(tmp_path, turned):
    lines = [x[::-1] if name in turned else x for name, x in Y.items()]
    with pytest.warns(InputNote, match="were turned"):
        network = read(tmp_path, polydata(lines, lambda p: 2.0 - 0.02 * p[:, 0]))
    assert np.allclose(np.asarray(network.node_position)[network.roots[0]], 0.0)
    assert len(network.terminals) == 2
    with pytest.raises(InputError, match="no free end is much wider"):
        read(tmp_path, polydata(lines, 1.0))


@pytest.mark.parametrize("form", ["swc", "line", "stem alone"])
def test_an_end_wider_than_the_inlet_is_said(tmp_path, form):
    with pytest.warns(InputNote, match=r"at \(0\.0, 0\.0, 0\.0\) mm with a radius of 2\.00 mm"):
        if form == "swc":
            path = tmp_path / "t.swc"
            path.write_text("1 1 30 0 0 1 -1\n2 3 15 0 0 1.4 1\n3 3 0 0 0 2 2\n")
            read_swc(path, units="mm", frame="LPS")
        else:
            lines = [Y["stem"][::-1], *([Y["a"], Y["b"]] if form == "stem alone" else [])]
            read(tmp_path, polydata(lines, lambda p: 2.0 - 0.02 * p[:, 0]))


def test_cells_of_single_points_are_left_out(tmp_path):
    data = polydata([*Y.values(), np.array([[60.0, 20.0, 0.0]])], 1.5)
    with pytest.warns(InputNote, match="1 of its cells are single points"):
        assert length_mm(read(tmp_path, data)) == pytest.approx(Y_MM)
    data = polydata(list(Y.values()), 1.5)
    data.verts = [1, 3]
    with pytest.warns(InputNote, match="single points"):
        assert length_mm(read(tmp_path, data)) == pytest.approx(Y_MM)


def grouped(cells):
    """Cells of (line, group, blanking), as vmtkbranchextractor cuts three centrelines."""
    data = polydata([line for line, _, _ in cells], 2.0)
    data.cell_data["GroupIds"] = [group for _, group, _ in cells]
    data.cell_data["Blanking"] = [blank for _, _, blank in cells]
    return data


def test_groups_are_read_once(tmp_path):
    stem = [sampled([[0, 0, 0], [28, y, 0]]) for y in (0, 0.02)]
    turn = [sampled([x[-1], [32, 1.3 * s, 0]], 0.5) for x, s in zip(stem, (1, -1), strict=True)]
    ends = [sampled([x[-1], [60, 20 * s, 0]]) for x, s in zip(turn, (1, -1), strict=True)]
    cells = [(stem[0], 0, 0), (turn[0], 1, 1), (ends[0], 2, 0)]
    cells += [(stem[1], 0, 0), (turn[1], 1, 1), (ends[1], 3, 0)]
    with pytest.warns(InputNote, match="6 lines are 4 groups"):
        network = read(tmp_path, grouped(cells))
    assert (network.n_vessels, len(network.terminals)) == (3, 2)
    assert length_mm(network) == pytest.approx(
        28 + sum(length(x) for x in (turn[0], *ends)), abs=2.7
    )
    wrong = [*cells[:5], (ends[1], 2, 0)]
    with pytest.raises(InputError, match="lines 2 and 5 have the GroupIds 2"):
        read(tmp_path, grouped(wrong))


def length(line):
    return float(np.linalg.norm(np.diff(line, axis=0), axis=1).sum())


# -- the radius


@pytest.mark.parametrize(
    ("name", "factor", "said"),
    [
        ("Radius", 1.0, "point array 'Radius'"),
        ("radius", 1.0, "point array 'radius'"),
        ("MISR", 1.0, "point array 'MISR'"),
        ("vessel_radius", 1.0, "point array 'vessel_radius'"),
        ("radius_mm", 10.0, "in mm as its name says"),
        ("Diameter", 2.0, "half of the point array 'Diameter'"),
    ],
)
def test_an_array_that_is_called_a_radius_is_taken_with_a_note(tmp_path, name, factor, said):
    data = polydata([0.1 * x for x in Y.values()], 0.2 * factor, name)
    data["Length"] = np.zeros(data.n_points)
    with pytest.warns(InputNote, match=said):
        network = read(tmp_path, data, units="cm")
    assert np.allclose(network.radius, 2e-3)


@pytest.mark.parametrize("name", ["CenterlineSectionArea", "area", "lumen_area"])
def test_an_area_gives_the_radius_of_its_circle(tmp_path, name):
    data = polydata(list(Y.values()), np.pi * 1.7**2, name)
    with pytest.warns(InputNote, match="area of the section"):
        assert np.allclose(read(tmp_path, data).radius, 1.7e-3)
    data[MISR] = np.full(data.n_points, 1.5)
    assert np.allclose(read(tmp_path, data).radius, 1.5e-3)
    with pytest.warns(InputNote, match="√"):
        assert np.allclose(read(tmp_path, data, radius_array=name).radius, 1.7e-3)
    data[name][3] = 0.0
    with pytest.raises(InputError, match="radius of point 3 is nan"), pytest.warns(InputNote):
        read(tmp_path, data, radius_array=name)


def test_two_arrays_that_could_be_the_radius_ask_for_the_name(tmp_path):
    data = polydata(list(Y.values()), 1.7, "Radius")
    data["MISR"] = np.full(data.n_points, 1.5)
    with pytest.raises(InputError, match=r"Radius and MISR are each called a radius.*radius_array"):
        read(tmp_path, data)
    assert np.allclose(read(tmp_path, data, radius_array="MISR").radius, 1.5e-3)


# -- our own files


def test_a_written_tree_is_read_back_as_it_was(tmp_path):
    step = "9 3 20 5 0 1.1 3\n10 3 20.5 5.5 0 1.0 9\n11 3 20 9 0 1 10\n"
    (tmp_path / "y.swc").write_text(Y_TREE + step)
    names = {2: "LM", 5: "LAD", 7: "LCx", 11: "D2"}
    network = read_swc(tmp_path / "y.swc", units="mm", frame="model", branch_name=names)
    # the way along a segment may be longer than its chord
    network = dataclasses.replace(network, length=1.1 * network.length)
    write_tree(tmp_path / "tree.vtp", network)
    back = read_centerlines(tmp_path / "tree.vtp", units="mm", frame="model")
    assert sorted(back.branch_name) == sorted(network.branch_name)
    for name in network.branch_name:
        (s, _), (t, _) = (branch_course(n, name) for n in (network, back))
        assert np.allclose(np.asarray(network.radius)[s], np.asarray(back.radius)[t])
        assert np.allclose(np.asarray(network.length)[s], np.asarray(back.length)[t])
    assert np.allclose(
        np.asarray(network.node_position)[network.roots].sum(axis=0),
        np.asarray(back.node_position)[back.roots].sum(axis=0),
    )
    for options, said in (({"units": "cm"}, "unit is mm, not cm"), ({"frame": "RAS"}, "is model")):
        given = {"units": "mm", "frame": "model", **options}
        with pytest.raises(InputError, match=said):
            read_centerlines(tmp_path / "tree.vtp", **given)


def test_a_written_tree_is_read_in_one_way_whatever_is_asked(tmp_path):
    """New names keep lengths and steps; what other centrelines need is refused."""
    step = "9 3 20 5 0 1.1 3\n10 3 20.5 5.5 0 1.0 9\n11 3 20 9 0 1 10\n"
    (tmp_path / "y.swc").write_text(Y_TREE + step)
    names = {2: "LM", 5: "LAD", 7: "LCx", 11: "D2"}
    network = read_swc(tmp_path / "y.swc", units="mm", frame="model", branch_name=names)
    network = dataclasses.replace(network, length=1.1 * network.length)
    write_tree(tmp_path / "tree.vtp", network)
    read = lambda **given: read_centerlines(
        tmp_path / "tree.vtp", units="mm", frame="model", **given
    )
    plain = read()
    end = lambda name: np.asarray(plain.node_position)[plain.outlet(name)] * 1e3
    last = int(branch_course(plain, "D2")[0][-1])
    point = ", ".join(f"{x + 0.1:.2f}" for x in end("LCx"))
    back = read(branch_name={"LAD": "LCx", point: "LAD", last: "D9"}, n_roots=1)
    new = {"LAD": "LCx", "LCx": "LAD", "D2": "D9"}
    assert back.branch_name == tuple(new.get(name, name) for name in plain.branch_name)
    for name in ("length", "radius", "branch", "node_position"):
        np.testing.assert_array_equal(getattr(back, name), getattr(plain, name))
    inner = int(branch_course(plain, "LAD")[0][0])
    for given, said in (
        ({"radius_array": "radius_mm"}, "`radius_array`.*no use"),
        ({"merge_tolerance_mm": 1.0}, "`merge_tolerance_mm`.*no use"),
        ({"n_roots": 2}, "has 1 root, not 2"),
        ({"branch_name": {"LAD": "LCx"}}, "'LCx' is given to several"),
        ({"branch_name": {"OM7": "OM"}}, "'OM7' is not the end of any branch"),
        ({"branch_name": {"LAD": "x", point: "y", "LCx": "z"}}, "'LCx' is named twice"),
        ({"branch_name": {inner: "x"}}, f"{inner} is not the end"),
        ({"branch_name": {99: "x"}}, "99 is not the end"),
        ({"branch_name": {"0, 0, 300": "x"}}, "is not the end"),
    ):
        with pytest.raises(InputError, match=said):
            read(**given)


# -- the files that real use brought up


@requires_trials
@pytest.mark.parametrize(
    ("name", "options", "truth_mm", "within_mm", "vessels", "ends"),
    [
        ("exact", {}, 403.4, 0.1, 11, 6),
        ("plain", {}, 403.4, 1.0, 11, 6),
        ("radius_named", {}, 403.4, 1.0, 11, 6),
        ("radius_named", {"radius_array": "Radius"}, 403.4, 1.0, 11, 6),
        ("merged", {}, 398.2, 0.1, 11, 6),
        ("branchextractor", {}, 398.2, 0.1, 11, 6),
        ("cat08", {"merge_tolerance_mm": 0.8}, 403.4, 11.0, 11, 6),
        ("rotated", {}, 87.1, 0.05, 3, 2),
        ("off0.3", {}, 107.1, 0.5, 3, 2),
        ("off0.6", {"merge_tolerance_mm": 0.6}, 107.1, 0.5, 3, 2),
        ("two_point_cells_cm", {"units": "cm"}, 1118.7, 0.1, 55, 29),
        ("area_only", {"units": "cm"}, 1118.7, 0.1, 55, 29),
        ("noise_0.02mm", {}, 1118.7, 12.0, 57, 29),
    ],
)
def test_trial(quiet, name, options, truth_mm, within_mm, vessels, ends):
    given = {"units": "mm", "frame": "LPS", **options}
    network = read_centerlines(TRIALS / "trees" / f"{name}.vtp", **given)
    assert length_mm(network) == pytest.approx(truth_mm, abs=within_mm)
    assert (network.n_vessels, len(network.terminals)) == (vessels, ends)


@requires_trials
@pytest.mark.parametrize(("name", "tolerance"), [("cat08", 0.8), ("off0.6", 0.6)])
def test_trial_of_lines_in_one_lumen_is_refused_with_places(name, tolerance):
    with pytest.raises(InputError, match=r"line \d runs inside the lumen of line \d") as caught:
        read_centerlines(TRIALS / "trees" / f"{name}.vtp", units="mm", frame="LPS")
    assert f"`merge_tolerance_mm` to {tolerance}," in caught.value.fix


# -- the aorta


def aortic(form, wide=13.0):
    """From the aorta into a left and a right coronary, 4 mm after its radius has begun to fall."""
    root = [[0, 0, -40.0], [0, 0, 0]]
    left = sampled([*root, [14, 0, 3], [70, 20, 3]])
    right = sampled([*root, [-14, 0, 3], [-70, 20, 3]])
    fall = lambda p: np.clip(wide - 2.0 * (np.abs(p[:, 0]) - 8.0), 2.0, wide)
    return left, right, fall


@pytest.mark.parametrize("wide", [8.0, 13.0, 17.0])
@pytest.mark.parametrize("form", ["swc", "lines"])
def test_a_tree_that_begins_in_the_aorta_is_told_its_ostia(tmp_path, form, wide):
    left, right, fall = aortic(form, wide)
    with pytest.raises(InputError, match=rf"radius of {wide:.1f} mm, as the aorta") as caught:
        if form == "swc":
            rows, count = [], 0
            for line, first in ((left, -1), (right[1:], 1)):
                for k, (p, r) in enumerate(zip(line, fall(line), strict=True)):
                    rows.append([count + 1, 3, *p, r, first if k == 0 else count])
                    count += 1
            np.savetxt(tmp_path / "a.swc", rows, fmt="%g")
            read_swc(tmp_path / "a.swc", units="mm", frame="LPS")
        else:
            read(tmp_path, polydata([left, right], fall), n_roots=1)
    places = re.findall(r"at \((-?[\d.]+), (-?[\d.]+), (-?[\d.]+)\) mm", caught.value.what)
    assert len(places) == 2 and "2 here" in caught.value.fix
    for place, line in zip(np.array(places, np.float64), (left, right), strict=True):
        ostium = line[np.argmax(fall(line) <= 0.5 * wide)]
        assert np.allclose(place, ostium, atol=0.06)


def test_the_tree_cut_at_the_ostia_is_read(tmp_path):
    left, right, fall = aortic("lines")
    cut = [line[np.argmax(fall(line) <= 0.5 * 13.0) :] for line in (left, right)]
    network = read(tmp_path, polydata(cut, fall), n_roots=2)
    assert len(network.roots) == 2


@pytest.mark.parametrize("units", ["cm", "m"])
def test_a_wrong_unit_is_told_and_no_aorta(tmp_path, units):
    side = sampled([[10, 0, 0], [12, 20, 0]])
    data = polydata([Y["stem"], side], lambda p: np.where(p[:, 1] > 0, 0.8, 2.6))
    with pytest.raises(InputError, match="units='mm'"):
        read(tmp_path, data, units=units)
