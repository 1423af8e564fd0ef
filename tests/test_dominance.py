"""Which artery feeds the inferior wall: stated, told by names, or not to be told."""

import re

import numpy as np
import pytest
import yaml

from jaxperf.casefile import Growth, load_case
from jaxperf.jobs import write_starter
from jaxperf.network import build_network
from jaxperf.report import split_warnings
from jaxperf.report._schema import Forest, ForestTerritory
from jaxperf.report._summary import tip_losses
from jaxperf.study import check_case, dominance_of, territory_shares
from jaxperf.study._dominance import left_alone, shares_unpublished, territories_of

NAMES = ("LM", "LAD", "LCx", "RCA", "last")


def tree(*, posterior="PDA", on="RCA", without=(), names=NAMES, rca_mm=1.5):
    """A left tree and an RCA; one vessel goes on from the LCx or the RCA."""
    position = {"aorta": 0, "LM": 1, "LAD": 2, "LCx": 3, "right": 4, "RCA": 5, "last": 6}
    segment = {
        "LM": ("aorta", "LM"),
        "LAD": ("LM", "LAD"),
        "LCx": ("LM", "LCx"),
        "RCA": ("right", "RCA"),
        "last": (on, "last"),
    }
    kept = [name for name in NAMES if name not in without]
    used = sorted({position[x] for name in kept for x in segment[name]})
    node = np.array([[used.index(position[x]) for x in segment[name]] for name in kept])
    roots = [used.index(position[x]) for x in ("aorta", "right") if position[x] in used]
    radius = np.array([rca_mm if name == "RCA" else 1.5 for name in kept])
    said = dict(zip(NAMES, names, strict=True), last=posterior)
    return build_network(
        np.array([[10.0 * k, k * k, 0.0] for k in used]) * 1e-3,
        node,
        np.repeat(1e-3 * radius[:, None], 2, axis=1),
        root=np.array(roots),
        frame="model",
        branch=np.arange(len(kept)),
        branch_name=tuple(said[name] for name in kept),
    )


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starter")
    write_starter(folder, spacing_mm=5.0)
    return folder


def case_of(starter, **tree_section):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    raw["tree"] |= tree_section
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return load_case(starter / "changed.yaml")


@pytest.mark.parametrize(
    "vessels, expected",
    [
        ({}, "right"),
        ({"posterior": "R-PDA"}, "right"),
        ({"posterior": "RV"}, "right"),
        ({"on": "LCx"}, "left"),
        ({"on": "LCx", "posterior": "PLV 1"}, "left"),
        ({"on": "LCx", "posterior": "Posterior_descending"}, "left"),
        ({"on": "LCx", "posterior": "PL1"}, "left"),
        ({"on": "LCx", "posterior": "L-PLB2"}, "left"),
        ({"on": "LCx", "posterior": "PDA1"}, "left"),
        ({"on": "LCx", "posterior": "PL1", "rca_mm": 1.0}, "left"),
        ({"on": "LCx", "posterior": "PL1", "rca_mm": 2.0}, "right"),
        ({"on": "LCx", "posterior": "PDA 1", "rca_mm": 2.0}, "left"),
        ({"on": "LCx", "posterior": "PL", "names": ("LM", "LAD", "Cx prox", "RCA", "")}, "left"),
        ({"on": "LCx", "without": ("RCA",)}, "left"),
        ({"on": "LCx", "posterior": "OM3", "without": ("RCA",)}, None),
        ({"on": "LCx", "names": ("LM", "LAD", "Circumflex", "RCA", "")}, "left"),
        ({"on": "LCx", "posterior": "plug", "without": ("RCA",)}, None),
    ],
)
def test_dominance_by_names(starter, vessels, expected):
    network = tree(**vessels)
    assert dominance_of(case_of(starter), network) == expected
    for stated in ("right", "left"):
        assert dominance_of(case_of(starter, dominance=stated), network) == stated


def test_posterior_vessels_of_both_sides_decide_nothing(starter):
    """A PL of the LCx beside the PDA of the RCA."""
    network = build_network(
        1e-3 * np.array([[0, 0, 0], [9, 0, 0], [18, 1, 0], [0, 9, 0], [0, 18, 0], [0, 27, 0.0]]),
        np.array([[0, 1], [1, 2], [3, 4], [4, 5]]),
        np.full(6, 1.5e-3),
        root=np.array([0, 3]),
        frame="model",
        branch=np.arange(4),
        branch_name=("LCx", "PL", "RCA", "PDA"),
    )
    assert dominance_of(case_of(starter), network) is None


@pytest.mark.parametrize(
    "vessels, dominance, says",
    [
        ({}, "auto", None),
        ({"on": "LCx", "posterior": "OM3", "without": ("RCA",)}, "auto", "right-dominant, its"),
        ({"on": "LCx", "posterior": "OM3", "without": ("RCA",)}, "left", None),
        ({"on": "LCx", "without": ("RCA",)}, "auto", None),
        ({"on": "LCx", "without": ("RCA",)}, "right", "though the heart is right-dominant"),
        ({"without": ("LM", "LAD", "LCx")}, "auto", "RCA alone feeds the whole wall"),
    ],
)
def test_a_tree_alone_is_told(starter, vessels, dominance, says):
    said = left_alone(case_of(starter, dominance=dominance), tree(**vessels))
    assert (said is None) if says is None else says in said


@pytest.mark.parametrize(
    ("vessels", "dominance", "share", "says"),
    [
        ({}, "auto", None, None),
        ({"on": "LCx"}, "auto", None, "LAD, LCx, RCA, .* in a left-dominant heart"),
        ({"on": "LCx"}, "auto", "calibre", None),
        ({"on": "LCx"}, "right", None, None),
        ({"on": "LCx", "without": ("RCA",)}, "auto", None, None),
        ({"without": ("LCx",)}, "auto", None, "LAD, RCA, .* in a right-dominant heart"),
        ({"names": ("LM", "a", "b", "RCA", "")}, "auto", None, None),
    ],
)
def test_shares_that_the_calibres_give_are_told(starter, vessels, dominance, share, says):
    case = case_of(starter, dominance=dominance)
    growth = Growth(territory_share_percent=share)
    case = case.model_copy(update={"growth": growth})
    said = shares_unpublished(case, tree(**vessels))
    assert said is None if says is None else re.search(says, said or "")
    if share is None:
        names = territories_of(case, tree(**vessels))
        shares = territory_shares(growth, names, dominance_of(case, tree(**vessels)))
        assert (shares is None) == (says is not None or "a" in names)


def test_check_of_a_left_tree_alone(starter):
    """The starter's tree without its right coronary."""
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    rows = np.loadtxt(starter / raw["tree"]["file"])
    parent = dict(zip(rows[:, 0].astype(int), rows[:, 6].astype(int), strict=True))
    tips = {name: row for row, name in raw["tree"]["branches"].items()}

    def root(row):
        while parent[row] > 0:
            row = parent[row]
        return row

    left = root(tips["LAD"])
    kept = np.array([root(int(row)) == left for row in rows[:, 0]])
    form = ["%d", "%d", "%.6f", "%.6f", "%.6f", "%.6f", "%d"]
    np.savetxt(starter / "left.swc", rows[kept], fmt=form)
    raw["tree"]["file"] = "left.swc"
    raw["tree"]["branches"] = {k: v for k, v in raw["tree"]["branches"].items() if root(k) == left}
    (starter / "left.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = [f for f in check_case(starter / "left.yaml", starter) if f.where == "tree.dominance"]
    assert len(found) == 1 and found[0].severity == "warning"
    assert "LAD and LCx alone feed the whole wall" in found[0].message


def test_flow_that_runs_to_the_tips_is_told():
    network = tree()
    lost = {"LM": 0.3, "LAD": 0.2, "LCx": 0.05, "RCA": 0.3, "PDA": 0.28}
    ffr = np.array([[1.0, 1.0 - lost[name]] for name in network.branch_name])
    terminal = np.asarray(network.terminals)
    # stems end in no terminal
    assert tip_losses(network, ffr, terminal, set()) == pytest.approx({"LAD": 0.2, "PDA": 0.28})
    assert list(tip_losses(network, ffr, terminal, {"LAD"})) == ["PDA"]
    assert tip_losses(network, 1.0 - 0.3 * (1.0 - ffr), terminal, set()) == {}


def facts(projected, rest=None, deviation=0.2):
    row = ForestTerritory(
        trees=1, terminals=9, share_target=0.5, share_projected=projected, share_rest=rest
    )
    empty = {name: 0 for name in Forest.model_fields if Forest.model_fields[name].is_required()}
    empty |= {"settings": {}, "territories": {"LAD": row}, "projected_deviation_max": deviation}
    return Forest.model_validate(empty)


@pytest.mark.parametrize(
    "forest, says",
    [
        (facts(0.5), []),
        (facts(0.51, 0.49), []),
        (facts(0.4), ["fills 40.0 % of the wall instead of 50.0 %"]),
        (facts(0.4, 0.4), ["State tree.dominance"]),
        (facts(0.5, 0.1), ["takes 10.0 % of the flow instead"]),
        (facts(0.5, deviation=5.24), ["feeds 6.2 times the tissue"]),
    ],
)
def test_a_share_far_from_its_target_is_told(forest, says):
    found = split_warnings(forest)
    assert len(found) == len(says) and all(a in b for a, b in zip(says, found, strict=True))
