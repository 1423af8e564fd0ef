"""What names of vessels mean, the same wherever they are read."""

import dataclasses

import numpy as np
import pytest

from jaxperf.anatomy import branches_astray, demo_tree, septum_from_grooves
from jaxperf.geometry import ellipsoid_ventricle
from jaxperf.network import posterior_of_name, vessel_of_name, vessel_territories
from jaxperf.plot import territory_colours
from jaxperf.study._dominance import artery

NAMES = {
    "LM": ("LM", "lmca", "left main", "Left_Main", "left main coronary artery"),
    "LAD": ("LAD", "lad_proximal", "left anterior descending", "LAD (synthetic)", "LAD-mid"),
    "LCx": ("LCX", "Cx", "circumflex", "left circumflex", "Left circumflex artery", "LCx prox"),
    "RCA": ("RCA", "rca-prox", "right coronary", "right coronary artery", "RCA (synthetic)"),
    "PDA": (
        *("PDA", "pd", "rpd", "RPDA", "R-PDA", "L-PDA", "PIV", "PDA1", "posterior descending"),
        *("posterior interventricular", "Left posterior descending artery", "PDA (synthetic)"),
    ),
    "PL": (
        *("PL", "PLV", "PLB", "PLA", "R-PL", "L-PLB2", "PL1", "PL 2 (synthetic)", "PLV_3"),
        *("posterolateral", "postero-lateral branch", "posterior lateral"),
    ),
}
OTHER = ("plug", "OM1", "D1", "Cx1", "LAD D1", "septal", "clad", "RV", "Diagonal", "", "1")


@pytest.mark.parametrize(("vessel", "name"), [(k, name) for k in NAMES for name in NAMES[k]])
def test_a_name_means_a_vessel(vessel, name):
    assert vessel_of_name(name) == vessel
    assert posterior_of_name(name) == (vessel if vessel in ("PDA", "PL") else None)


@pytest.mark.parametrize("name", OTHER)
def test_other_names_mean_none(name):
    assert vessel_of_name(name) is None and posterior_of_name(name) is None


@pytest.mark.parametrize(
    ("name", "vessel"), [("PDA S1", "PDA"), ("RCA PL2", "PL"), ("distal R-PDA a", "PDA")]
)
def test_a_name_that_speaks_of_a_posterior_vessel(name, vessel):
    assert posterior_of_name(name) == vessel and vessel_of_name(name) is None


def test_all_readers_agree():
    """The demo tree says the same under every name of its vessels."""
    _, frame, lv = ellipsoid_ventricle(spacing_mm=5.0)
    demo = demo_tree(lv)
    end = np.asarray(demo.terminals)
    _, expected = vessel_territories(demo, end)
    septum = septum_from_grooves(demo, frame)[0]
    for i in range(max(map(len, NAMES.values()))):
        chosen = {vessel: names[i % len(names)] for vessel, names in NAMES.items()}
        renamed = tuple(chosen.get(name, name) for name in demo.branch_name)
        tree = dataclasses.replace(demo, branch_name=renamed)
        names, territory = vessel_territories(tree, end)
        np.testing.assert_array_equal(territory, expected)
        assert {artery(name) for name in names} == {"LAD", "LCx", "RCA"}
        assert list(territory_colours(names).values()) == list(
            territory_colours([artery(name) for name in names]).values()
        )
        np.testing.assert_allclose(septum_from_grooves(tree, frame)[0], septum)
        swap = {chosen["LAD"]: chosen["LCx"], chosen["LCx"]: chosen["LAD"]}
        wrong = dataclasses.replace(tree, branch_name=tuple(swap.get(n, n) for n in renamed))
        assert set(branches_astray(wrong, frame)) == set(swap)
