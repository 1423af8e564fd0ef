"""Narrowings that no lesion declares: at ostia, to the ends of branches, over junctions."""

import itertools

import numpy as np
import pytest

from jaxperf.network import build_network, declare_lesion, undeclared_narrowings

X = np.linspace(0.0, 0.1, 51)
HEALTHY = 1.5e-3 - 5e-3 * X


def pipe(lumen, x=X):
    at = np.arange(len(x))
    return build_network(
        np.stack([x, 0 * x, 0 * x], axis=1),
        np.stack([at[:-1], at[1:]], axis=1),
        lumen,
        root=np.array([0]),
        frame="model",
        branch_name=("LAD",),
    )


@pytest.mark.parametrize(
    "diseased, interval, reaches_the_end",
    [
        (X < 0.009, (0.0, 8.0), False),
        (X < 0.001, (0.0, 0.0), False),
        (X > 0.061, (62.0, 100.0), True),
        (X > 0.099, (100.0, 100.0), True),
        (X > 0.003, (4.0, 100.0), True),
        (abs(X - 0.05) < 0.005, (46.0, 54.0), False),
    ],
    ids=["ostium", "first node", "distal half", "last node", "all but the ostium", "middle"],
)
def test_a_narrowing_is_found_wherever_it_lies(diseased, interval, reaches_the_end):
    (found,) = undeclared_narrowings(pipe(np.where(diseased, 0.37 * HEALTHY, HEALTHY)))
    assert (found.start_mm, found.end_mm) == pytest.approx(interval, abs=1e-3)
    assert found.to_the_end == reaches_the_end
    # what a healthy vessel would be there; 4 mm of one say little of its taper
    healthy = 1e3 * float(np.interp(1e-3 * found.arc_mm, X, HEALTHY))
    taper = 0.35 if interval[0] == 4.0 else 0.06
    assert found.reference_radius_mm == pytest.approx(healthy, abs=taper)
    assert found.diameter_reduction == pytest.approx(0.63, abs=0.1)


def test_each_of_two_narrowings_is_found():
    second = np.where(X > 0.071, 0.5e-3, HEALTHY)
    found = undeclared_narrowings(pipe(np.where(abs(X - 0.03) < 0.005, 0.5e-3, second)))
    assert [round(x.start_mm) for x in found] == [26, 72]
    # one that recovers in part only goes on to the end
    partial = np.where(X > 0.05, 0.6 * HEALTHY, HEALTHY)
    (found,) = undeclared_narrowings(pipe(np.where(abs(X - 0.05) < 0.005, 0.4e-3, partial)))
    assert round(found.arc_mm) < 55 and found.to_the_end


@pytest.mark.parametrize(
    "lumen",
    [
        2e-3 - 18e-3 * X,
        2e-3 * np.exp(-X / 0.05),
        2e-3 * np.sqrt(1 - 9.4 * X),
        np.minimum(1.5e-3, 0.5e-3 + 50e-3 * (0.1 - X)),
        np.where(abs(X - 0.055) < 0.015, 3e-3, 1.5e-3),
        HEALTHY * (1 + 0.1 * np.sin(1e4 * X)),
    ],
    ids=["cone", "exponential", "parabola", "late cone", "ectasia", "noise"],
)
def test_taper_and_ectasia_are_none(lumen):
    assert undeclared_narrowings(pipe(lumen)) == []


def test_a_short_twig_that_tapers_is_none():
    for n in (2, 3, 12):
        x = np.linspace(0.0, 0.01, n)
        assert undeclared_narrowings(pipe(np.linspace(1e-3, 0.4e-3, n), x)) == []


def bifurcation(main=(1.0, 1.0), daughter=(1.0, 1.0), side=(1.0, 1.0)):
    """LM of 12 mm into LAD and LCx, at 2 mm; each part's lumen times two factors, near the junction
    (6 mm) and farther."""
    n_main, n_side = 7, 20
    x = 2e-3 * np.arange(n_main)
    stem = np.stack([x, 0 * x], axis=1)
    along = 2e-3 * np.arange(1, n_side + 1)
    left = np.stack([x[-1] + 0.8 * along, 0.6 * along], axis=1)
    right = np.stack([x[-1] + 0.8 * along, -0.6 * along], axis=1)
    position = np.concatenate([stem, left, right])
    segment = [(i, i + 1) for i in range(n_main - 1)]
    for first in (n_main, n_main + n_side):
        ids = [n_main - 1, *range(first, first + n_side)]
        segment += list(itertools.pairwise(ids))
    scaled = lambda mm, factor, near: np.where(near, factor[0], factor[1]) * mm * 1e-3
    at_main = scaled(2.2, main, x[:-1] > x[-1] - 5e-3)
    radius = np.concatenate(
        [
            np.repeat(at_main[:, None], 2, axis=1),
            np.repeat(scaled(1.8, daughter, along < 9e-3)[:, None], 2, axis=1),
            np.repeat(scaled(1.6, side, along < 9e-3)[:, None], 2, axis=1),
        ]
    )
    return build_network(
        np.append(position, 0 * position[:, :1], axis=1),
        np.array(segment),
        radius,
        root=np.array([0]),
        frame="model",
        branch=np.repeat([0, 1, 2], [n_main - 1, n_side, n_side]),
        branch_name=("LM", "LAD", "LCx"),
    )


@pytest.mark.parametrize(
    "narrow, branches",
    [
        ({}, []),
        ({"main": (0.4, 1.0)}, ["LM"]),
        ({"main": (0.4, 0.4)}, ["LM"]),
        ({"daughter": (0.4, 1.0)}, ["LAD"]),
        ({"main": (0.4, 1.0), "daughter": (0.4, 1.0)}, ["LM", "LAD"]),
        ({"main": (0.4, 1.0), "daughter": (0.4, 1.0), "side": (0.4, 1.0)}, ["LM", "LAD", "LCx"]),
        ({"main": (0.4, 0.4), "daughter": (0.4, 1.0)}, ["LM", "LAD"]),
        ({"side": (1.0, 0.4)}, ["LCx"]),
    ],
)
def test_narrowings_about_a_junction(narrow, branches):
    found = undeclared_narrowings(bifurcation(**narrow))
    assert [x.branch for x in found] == branches


def test_a_vessel_may_fall_where_a_side_branch_leaves():
    """One branch goes through the junction and loses what the sister takes."""
    tree = bifurcation()
    at = lambda small: np.array([2.0 if s < 6 else small for s in range(26)])
    network = lambda small, sister: build_network(
        np.asarray(tree.node_position),
        np.asarray(tree.segment_node),
        1e-3 * np.repeat(np.append(at(small), np.full(20, sister))[:, None], 2, axis=1),
        root=np.array([0]),
        frame="model",
        branch=np.repeat([0, 1], [26, 20]),
        branch_name=("LAD", "D1"),
    )
    assert undeclared_narrowings(network(1.35, 1.6)) == []
    (found,) = undeclared_narrowings(network(1.35, 0.3))
    assert found.branch == "LAD" and found.to_the_end


def test_a_declared_narrowing_is_not_reported_again():
    diseased = np.where(X < 0.009, 0.37 * HEALTHY, HEALTHY)
    lesion = {"branch": "LAD", "start_mm": 0, "end_mm": 10, "diameter_reduction": 0.63}
    (found,) = undeclared_narrowings(pipe(diseased))
    declared = declare_lesion(
        pipe(diseased), **lesion, reference_radius_mm=found.reference_radius_mm
    )
    assert undeclared_narrowings(declared) == []


def test_a_lesion_whose_ends_are_narrow_has_a_narrow_reference():
    """Declared just where the lumen is narrow, a lesion would count its reduction twice."""
    diseased = np.where(abs(X - 0.05) < 0.005, 0.37 * HEALTHY, HEALTHY)
    at = {"branch": "LAD", "start_mm": 46.0, "end_mm": 54.0, "diameter_reduction": 0.6}
    twice = declare_lesion(pipe(diseased), **at)
    assert undeclared_narrowings(twice) == []
    (found,) = undeclared_narrowings(twice, in_lesions=True)
    assert found.reference_radius_mm == pytest.approx(1.25, abs=0.05)
    once = declare_lesion(pipe(diseased), **at, reference_radius_mm=found.reference_radius_mm)
    assert undeclared_narrowings(once, in_lesions=True) == []
