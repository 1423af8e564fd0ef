"""Morphometry on trees with known answers, and against a plain second implementation."""

import csv
import io
import json
import time

import morphometry_witness as plain
import numpy as np
import pytest

from jaxperf import InputError
from jaxperf._citation import bibtex
from jaxperf.growth import (
    kassab_order,
    kassab_table,
    KASSAB_TREES,
    morphometry,
    morphometry_summary,
    order_rows,
    order_slopes,
)
from jaxperf.plot import morphometry_figure, save_figure

UM, MM = 1e-6, 1e-3


def _binary(generations):
    """A symmetric tree, daughters 2k + 1 and 2k + 2: radius and length halve at each junction."""
    n = 2**generations - 1
    parent = (np.arange(n) - 1) // 2
    level = np.floor(np.log2(np.arange(n) + 1.0)).astype(np.int64)
    return parent, 1e-3 * 0.5**level, 8e-3 * 0.5**level, level


def _random_forest(n_terminals, n_trees, seed, exponent=2.7, unary=0.0, spread=0.2):
    """Side branches on edges drawn at random; pieces in random order, some junctions unary."""
    rng = np.random.default_rng(seed)
    parent = list(range(-n_trees, 0))
    for _ in range(n_terminals - n_trees):
        edge = int(rng.integers(len(parent)))
        middle = len(parent)
        parent += [parent[edge], middle]
        parent[edge] = middle
    for piece in range(len(parent)):
        if rng.random() < unary:
            parent.append(parent[piece])
            parent[piece] = len(parent) - 1
    place = rng.permutation(len(parent))
    shuffled = np.empty(len(parent), np.int64)
    for piece, p in enumerate(parent):
        shuffled[place[piece]] = place[p] if p >= 0 else p
    is_leaf = np.ones(len(parent), bool)
    is_leaf[shuffled[shuffled >= 0]] = False
    flow = np.zeros(len(parent))
    for leaf in np.flatnonzero(is_leaf):
        own, at = np.exp(spread * rng.normal()), leaf
        while at >= 0:
            flow[at] += own
            at = shuffled[at]
    radius = 80 * UM * flow ** (1.0 / exponent)
    return shuffled, radius, radius * rng.uniform(3.0, 20.0, len(parent))


class TestKnownTrees:
    def test_symmetric_tree_has_strahler_orders(self):
        parent, radius, length, level = _binary(6)
        found = morphometry(parent, radius, length, first_order=1)
        np.testing.assert_array_equal(found.order, np.arange(1, 7))
        np.testing.assert_array_equal(found.piece_order, 6 - level)
        np.testing.assert_array_equal(found.element_count, [32, 16, 8, 4, 2, 1])
        np.testing.assert_array_equal(found.segment_count, found.element_count)
        np.testing.assert_array_equal(found.terminal_count, [32, 0, 0, 0, 0, 0])
        np.testing.assert_array_equal(found.connectivity, 2.0 * np.eye(6, k=1))
        np.testing.assert_allclose(found.element_diameter_mean, 2e-3 * 0.5 ** np.arange(5, -1, -1))
        np.testing.assert_allclose(found.diameter_boundary[0], 1.5 * found.segment_diameter_mean[0])
        np.testing.assert_allclose(found.wide_ratio_mean[1:], 0.5)
        np.testing.assert_allclose(found.daughter_ratio_mean[1:], 1.0)
        assert np.isnan(found.daughter_ratio_mean[0])
        np.testing.assert_allclose(
            found.path_length, np.full(32, length[[0, 1, 3, 7, 15, 31]].sum())
        )
        assert (found.rounds, found.changed) == (1, 0.0)

    def test_slopes_of_the_symmetric_tree(self):
        parent, radius, length, _ = _binary(9)
        slopes = order_slopes(morphometry(parent, radius, length, first_order=4))
        np.testing.assert_array_equal(slopes.order, [6, 7, 8, 9, 10])
        np.testing.assert_allclose(slopes.slope, np.log10([0.5, 2.0, 2.0]))
        rca = kassab_table("RCA")
        line = np.polyfit(np.arange(6, 11), np.log10(rca.element_count[5:10]), 1)
        assert slopes.kassab_slope[0, 0] == pytest.approx(line[0])
        total = sum(kassab_table(tree).element_count[5:10] for tree in KASSAB_TREES)
        pooled = np.polyfit(np.arange(6, 11), np.log10(total), 1)
        assert slopes.pooled_slope[0] == pytest.approx(pooled[0])

    def test_the_diameter_changes_orders(self):
        """Four junctions of terminals: one stem is hardly wider than the terminals."""
        parent, _, length, level = _binary(4)
        radius = np.array([8.0, 4.0, 2.0, 1.0])[level] * MM
        radius[6] = 1.05 * MM
        found = morphometry(parent, radius, length, first_order=1)
        expected = 4 - level
        expected[6] = 1
        np.testing.assert_array_equal(found.piece_order, expected)
        # the stem goes on into one of its daughters: that element has two segments
        np.testing.assert_array_equal(found.element_count, [8, 3, 2, 1])
        assert found.segments_per_element[0] == pytest.approx(9 / 8)
        connectivity = [[1 / 8, 2, 1 / 2, 0], [0, 0, 3 / 2, 0], [0, 0, 0, 2], [0, 0, 0, 0]]
        np.testing.assert_allclose(found.connectivity, connectivity)
        assert found.rounds == 2

    def test_an_order_without_segments_is_none(self):
        """The stems differ so much that their range reaches below the terminals."""
        radius = np.array([4.0, 2.0, 1.05, 1.0, 1.0, 1.0, 1.0]) * MM
        found = morphometry(_binary(3)[0], radius, np.full(7, MM), first_order=1)
        np.testing.assert_array_equal(found.piece_order, [2, 1, 1, 1, 1, 1, 1])
        np.testing.assert_array_equal(found.element_count, [4, 1])

    def test_a_trunk_with_side_branches_is_one_element(self):
        """Trunk 0-2-4-6 with thin side branches, the trunk's end a thin pair."""
        parent = np.array([-1, 0, 0, 2, 2, 4, 4, 6, 6])
        thin = np.array([1, 3, 5, 7, 8])
        radius = np.full(9, 1.0) * MM
        radius[thin] = 0.1 * MM
        length = np.arange(1, 10) * MM
        found = morphometry(parent, radius, length, first_order=5)
        np.testing.assert_array_equal(found.order, [5, 6])
        np.testing.assert_array_equal(found.element_count, [5, 1])
        np.testing.assert_array_equal(found.segments_per_element, [1.0, 4.0])
        assert found.element_length_mean[1] == pytest.approx((1 + 3 + 5 + 7) * MM)
        assert np.isnan(found.element_length_sd[1])
        np.testing.assert_array_equal(found.connectivity, [[0, 5], [0, 0]])
        np.testing.assert_array_equal(np.unique(found.piece_element[[0, 2, 4, 6]]).size, 1)
        assert found.daughter_ratio_mean[1] == pytest.approx((3 * 0.1 + 1.0) / 4)
        paths = np.array([1 + 2, 1 + 3 + 4, 1 + 3 + 5 + 6, 16 + 8, 16 + 9]) * MM
        np.testing.assert_allclose(found.path_length, paths)

    def test_chains_are_one_segment(self):
        """A stub and its entry, two pieces of a daughter: the tree is one junction."""
        parent = np.array([-7, 0, 1, 1, 3])
        radius, length = np.array([3.0, 2.0, 1.0, 1.0, 1.6]), np.array([1.0, 3.0, 4.0, 4.0, 2.0])
        found = morphometry(parent, radius * MM, length * MM, first_order=1)
        np.testing.assert_array_equal(found.segment_count, [2, 1])
        assert found.segment_diameter_mean[1] == pytest.approx(2 * 2.25 * MM)
        assert found.segment_length_mean[1] == pytest.approx(4 * MM)
        np.testing.assert_allclose(found.path_length, [8 * MM, 10 * MM])
        assert found.daughter_ratio_mean[1] == pytest.approx(1.0 / 1.2)
        np.testing.assert_array_equal(found.piece_order, [2, 2, 1, 1, 1])

    def test_one_vessel(self):
        found = morphometry(np.array([-1]), np.array([70 * UM]), np.array([MM]))
        np.testing.assert_array_equal(found.order, [6])
        summary = morphometry_summary(found)
        assert summary["path_length_sd_mm"] is None
        assert summary["element_count_slope"]["forest"] is None

    def test_published_ranges_give_their_own_numbers(self):
        table = kassab_table("LAD")
        parent = np.array([-1, 0, 0])
        radius = 0.5 * table.segment_diameter_mean[[9, 5, 5]]
        found = morphometry(parent, radius, np.full(3, MM), ranges=table)
        np.testing.assert_array_equal(found.order, np.arange(6, 11))
        np.testing.assert_array_equal(found.element_count, [2, 0, 0, 0, 1])
        np.testing.assert_array_equal(found.connectivity[:, 4], [2, 0, 0, 0, 0])
        json.dumps([order_rows(found), morphometry_summary(found)], allow_nan=False)


@pytest.mark.parametrize(
    ("seed", "unary", "tolerance"), [(0, 0.0, 0.01), (1, 0.3, 0.0), (2, 0.1, 0.05)]
)
def test_against_a_plain_implementation(seed, unary, tolerance):
    parent, radius, length = _random_forest(250, 5, seed, unary=unary)
    found = morphometry(parent, radius, length, first_order=3, tolerance=tolerance)
    expected = plain.witness(parent.tolist(), radius.tolist(), length.tolist(), tolerance)
    assert len(found.order) >= 4
    order = [3 + expected["piece_order"][i] for i in range(len(parent))]
    np.testing.assert_array_equal(found.piece_order, order)
    for n in range(len(found.order)):
        d, size, parts = zip(*expected["element"][n], strict=True)
        assert found.element_count[n] == len(d)
        for value, name in ((d, "diameter"), (size, "length")):
            of = [getattr(found, f"element_{name}_{moment}")[n] for moment in ("mean", "sd")]
            np.testing.assert_allclose(of, plain.moments(value), rtol=1e-9)
        assert found.segments_per_element[n] == pytest.approx(sum(parts) / len(parts))
        assert found.root_count[n] == expected["roots"].get(n, 0)
        for m in range(len(found.order)):
            springs = expected["connectivity"].get((m, n), 0) / len(d)
            assert found.connectivity[m, n] == pytest.approx(springs)
        ratios = list(zip(*expected["ratios"].get(n, []), strict=True))
        for name, values in zip(("daughter", "narrow", "wide"), ratios, strict=False):
            of = [getattr(found, f"{name}_ratio_{moment}")[n] for moment in ("mean", "sd")]
            np.testing.assert_allclose(of, plain.moments(values), rtol=1e-9)
    np.testing.assert_allclose(np.sort(found.path_length), expected["path"], rtol=1e-12)


class TestInvariants:
    parent, radius, length = _random_forest(3000, 20, 5, unary=0.05)

    def test_connectivity_times_counts_gives_the_counts(self):
        for ranges in (None, kassab_table("LAD")):
            found = morphometry(self.parent, self.radius, self.length, ranges=ranges)
            sprung = found.connectivity @ found.element_count
            np.testing.assert_allclose(sprung + found.root_count, found.element_count)
            assert found.root_count.sum() == 20
            assert found.terminal_count.sum() == len(found.path_length) == 3000
            total = np.nansum(found.element_length_mean * found.element_count)
            assert total == pytest.approx(self.length.sum())

    def test_segments_lie_in_the_range_of_their_order(self):
        found = morphometry(self.parent, self.radius, self.length, tolerance=0.0)
        assert found.changed == 0.0
        edges = np.concatenate([[0.0], found.diameter_boundary, [np.inf]])
        k = np.searchsorted(found.order, found.piece_order)
        diameter = 2.0 * self.radius
        alone = np.bincount(self.parent[self.parent >= 0], minlength=len(k))[self.parent] != 1
        alone &= np.bincount(self.parent[self.parent >= 0], minlength=len(k)) != 1
        assert np.all((edges[k] < diameter) & (diameter <= edges[k + 1]) | ~alone)

    def test_only_the_numbers_depend_on_the_first_order(self):
        here = morphometry(self.parent, self.radius, self.length)
        there = morphometry(self.parent, self.radius, self.length, first_order=1)
        assert here.order[0] == kassab_order(float(here.segment_diameter_mean[0])) == 6
        np.testing.assert_array_equal(here.connectivity, there.connectivity)
        np.testing.assert_array_equal(here.piece_order - 5, there.piece_order)

    def test_the_listing_order_does_not_matter(self):
        n = len(self.parent)
        place = np.random.default_rng(0).permutation(n)
        back = np.argsort(place)
        above = self.parent[back]
        moved = np.where(above >= 0, place[above], above)
        here = morphometry(self.parent, self.radius, self.length)
        there = morphometry(moved, self.radius[back], self.length[back])
        np.testing.assert_array_equal(here.piece_order, there.piece_order[place])
        np.testing.assert_array_equal(here.element_count, there.element_count)

    def test_orders_and_counts_do_not_depend_on_the_unit(self):
        here = morphometry(self.parent, self.radius, self.length, first_order=1)
        there = morphometry(self.parent, 3.0 * self.radius, 2.0 * self.length, first_order=1)
        np.testing.assert_array_equal(here.piece_order, there.piece_order)
        np.testing.assert_allclose(there.element_length_mean, 2.0 * here.element_length_mean)

    def test_fast_and_deep(self):
        """Forty thousand vessels in a comb, the deepest tree there is, in well below a second."""
        n = 20_000
        parent = np.empty(2 * n + 1, np.int64)
        parent[0], parent[1::2], parent[2::2] = -1, np.arange(0, 2 * n, 2), np.arange(0, 2 * n, 2)
        radius = np.linspace(2.0, 1.0, 2 * n + 1) * MM
        start = time.perf_counter()
        found = morphometry(parent, radius, np.full(2 * n + 1, MM))
        assert time.perf_counter() - start < 1.0
        assert found.segment_count.sum() == 2 * n + 1


class TestKassab:
    @pytest.mark.parametrize("tree", KASSAB_TREES)
    def test_connectivity_times_counts_gives_the_counts(self, tree):
        """To rounding at order 1; Kassab's counts above are means of several counts."""
        table = kassab_table(tree)
        sprung = table.connectivity @ table.element_count
        assert sprung[0] == pytest.approx(table.element_count[0], rel=2e-5)
        np.testing.assert_allclose(sprung[:4], table.element_count[:4], rtol=0.02)
        np.testing.assert_allclose(sprung[:-1], table.element_count[:-1], rtol=0.2)
        assert sprung[-1] == 0.0 and table.element_count[-1] == 1

    @pytest.mark.parametrize("tree", KASSAB_TREES)
    def test_columns_ascend_and_are_in_metres(self, tree):
        table = kassab_table(tree)
        n = {"RCA": 11, "LAD": 11, "LCX": 10}[tree]
        np.testing.assert_array_equal(table.order, np.arange(1, n + 1))
        assert table.connectivity.shape == (n, n) and table.capillaries.shape == (n,)
        for name in ("segment_diameter_mean", "element_diameter_mean", "element_length_mean"):
            assert np.all(np.diff(getattr(table, name)) > 0.0), name
        assert np.all(np.diff(table.element_count) < 0)
        assert np.all(np.diff(table.diameter_boundary) > 0.0)
        assert 8e-6 < table.element_diameter_mean[0] < 1e-5
        assert 2.5e-3 < table.element_diameter_mean[-1] < 3.3e-3
        assert table.element_length_mean[-1] == pytest.approx(
            table.segments_per_element[-1] * table.segment_length_mean[-1]
        )

    def test_an_order_from_its_own_diameter(self):
        for tree in KASSAB_TREES:
            table = kassab_table(tree)
            found = [kassab_order(float(d)) for d in table.segment_diameter_mean[:8]]
            assert found == list(range(1, 9))
        assert kassab_order(1e-6) == 1

    def test_cited(self):
        for name in ("morphometry", kassab_table("LAD"), kassab_order):
            assert "10.1152/ajpheart.1993.265.1.H350" in bibtex(name)

    def test_unknown_tree(self):
        with pytest.raises(InputError, match="no tree 'LCx'"):
            kassab_table("LCx")


class TestErrors:
    parent, radius, length = np.array([-1, 0, 0]), np.full(3, MM), np.full(3, MM)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"parent": np.array([-1, 2, 1])}, "piece 1 hangs on no root: its parents form a loop"),
            ({"parent": np.array([-1, 1, 0])}, "piece 1 hangs on no root"),
            ({"parent": np.array([-1, 0, 3])}, "the parent of piece 2 is 3"),
            ({"radius": np.array([1.0, 0.0, 1.0])}, "the radius of piece 1 is 0.0"),
            ({"length": np.array([1.0, 1.0, np.nan])}, "the length of piece 2 is nan"),
            ({"first_order": 0}, "the first order is 0"),
            ({"first_order": 2, "ranges": kassab_table("RCA")}, "the first order is 2"),
            ({"tolerance": 1.0}, "the tolerance is 1.0"),
        ],
    )
    def test_refused(self, change, message):
        given = {"parent": self.parent, "radius": self.radius, "length": self.length} | change
        with pytest.raises(InputError, match=message):
            morphometry(given.pop("parent"), given.pop("radius"), given.pop("length"), **given)

    def test_empty(self):
        with pytest.raises(InputError, match="the forest is empty"):
            morphometry(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


class TestExport:
    def test_rows_are_json_and_csv_with_units(self):
        found = morphometry(*_random_forest(200, 3, 7))
        rows = order_rows(found)
        assert json.loads(json.dumps(rows, allow_nan=False)) == rows
        assert rows[1]["element_diameter_mean_um"] == pytest.approx(
            1e6 * found.element_diameter_mean[1]
        )
        assert rows[1]["element_length_sd_mm"] == pytest.approx(1e3 * found.element_length_sd[1])
        assert rows[0]["daughter_ratio_mean"] is None or rows[0]["daughter_ratio_mean"] > 0
        clear = [row["order"] for row in rows if row["clear_of_truncation"]]
        assert clear == [n for n in found.order if found.order[0] + 2 <= n <= 10]
        text = io.StringIO()
        writer = csv.DictWriter(text, rows[0])
        writer.writeheader()
        writer.writerows(rows)
        assert text.getvalue().count("\n") == len(rows) + 1

    def test_summary(self):
        found = morphometry(*_random_forest(400, 3, 8))
        summary = json.loads(json.dumps(morphometry_summary(found), allow_nan=False))
        assert (summary["roots"], summary["terminals"]) == (3, 400)
        assert summary["path_length_mean_mm"] == pytest.approx(1e3 * found.path_length.mean())
        slope = summary["element_count_slope"]
        assert slope["deviation"]["RCA"] == pytest.approx(slope["forest"] / slope["RCA"] - 1.0)
        np.testing.assert_array_equal(summary["connectivity"], found.connectivity)

    def test_kassab_rows_share_the_columns(self):
        rows = order_rows(kassab_table("RCA"))
        assert rows[0]["element_diameter_mean_um"] == pytest.approx(9.3)
        assert rows[-1]["element_length_sd_mm"] is None
        shared = set(rows[0]) - {"element_count_se"}
        assert shared < set(order_rows(morphometry(*_binary(4)[:3]))[0])

    def test_figure(self, tmp_path):
        forests, paths = {}, {}
        for exponent in (7 / 3, 3.0):
            found = morphometry(*_random_forest(600, 4, 9, exponent))
            forests[f"γ = {exponent:.3g}"] = order_rows(found)
            paths[f"γ = {exponent:.3g}"] = 1e3 * found.path_length
        published = {f"Kassab {tree}": order_rows(kassab_table(tree)) for tree in KASSAB_TREES}
        figure = morphometry_figure(forests, published, paths, title="t", note="n")
        labels = [axes.get_ylabel() for axes in figure.axes]
        assert labels == [
            "diameter (µm)",
            "length (mm)",
            "count",
            "segments / element",
            "diameter ratio",
            "fraction of the terminals",
        ]
        said = {text.get_text() for text in figure.axes[0].get_legend().get_texts()}
        assert {*forests, *published} < said
        filled = [line for line in figure.axes[2].lines if line.get_label() == "γ = 3"]
        rows = [row for row in forests["γ = 3"] if row["clear_of_truncation"]]
        np.testing.assert_array_equal(filled[0].get_ydata(), [row["element_count"] for row in rows])
        save_figure(tmp_path / "a.png", figure)
        assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"
