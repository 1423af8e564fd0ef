"""Which coronary artery feeds the inferior wall, and what a tree alone means for it."""

import re

import numpy as np

from ..anatomy import SYNTHETIC
from ..casefile import Case
from ..network import branch_course, VascularNetwork, vessel_territories
from ._build import closed_outlets

# Flow by territory, percent of the left ventricle's. In a left-dominant heart the LCx feeds what
# the right coronary feeds in others.
PUBLISHED_SHARE_PERCENT = {
    "right": {"LAD": 45.0, "LCx": 28.0, "RCA": 27.0},
    "left": {"LAD": 45.0, "LCx": 55.0},
}
_ARTERY = {
    **dict.fromkeys(("lad", "left anterior descending"), "LAD"),
    **dict.fromkeys(("lcx", "cx", "circumflex", "left circumflex"), "LCx"),
    **dict.fromkeys(("rca", "right coronary", "right coronary artery"), "RCA"),
}
# Vessels of the inferior wall: posterior descending or interventricular, posterolateral.
_POSTERIOR = re.compile(
    r"\b[LR]?-?(PDA|PIV|PLV|PLB|PLA|PL)\b|posterior (descending|interventricular|lateral)|"
    r"posterolateral",
    re.IGNORECASE,
)


def territories_of(case: Case, tree: VascularNetwork) -> tuple[str, ...]:
    """The vessel territories of a tree as its files name them, closed outlets left out."""
    terminal = np.setdiff1d(np.asarray(tree.terminals), closed_outlets(case, tree))
    return tuple(artery(name) for name in vessel_territories(tree, terminal)[0])


def artery(name: str) -> str:
    """LAD, LCx or RCA where a vessel's name means one of them, drawn ones too; else the name."""
    plain = name.removesuffix(f" {SYNTHETIC}")
    return _ARTERY.get(plain.replace("_", " ").lower(), plain)


def dominance_of(case: Case, tree: VascularNetwork) -> str | None:
    """`right` or `left`: what `tree.dominance` says, or which artery the posterior vessels leave.

    A tree with an RCA and no vessel that is named as posterior is right-dominant. None where it
    cannot be told: no RCA and no such name, or such vessels of both sides.
    """
    if case.tree.dominance != "auto":
        return case.tree.dominance
    of = set()
    for name in tree.branch_name:
        if _POSTERIOR.search(name.replace("_", " ")):
            course, _ = branch_course(tree, name)
            end = np.asarray(tree.segment_node)[course[-1:], 1].astype(np.int64)
            of.add(artery(vessel_territories(tree, end)[0][0]))
    sides = {"LCx": "left", "RCA": "right"}
    found = {sides[name] for name in of if name in sides}
    if not found and "RCA" in map(artery, territories_of(case, tree)):
        return "right"
    return found.pop() if len(found) == 1 else None


def left_alone(case: Case, tree: VascularNetwork) -> str | None:
    """What to say of a tree that feeds the whole wall without a right coronary; else None."""
    names = territories_of(case, tree)
    known, dominance = {artery(name) for name in names}, dominance_of(case, tree)
    is_left = "RCA" not in known and bool({"LAD", "LCx"} & known)
    if dominance == "left" or not (is_left or len(np.asarray(tree.roots)) == 1):
        return None
    if dominance == "right":
        why = "though the heart is right-dominant. Its right coronary artery is missing"
    else:
        why = (
            "and no vessel is named as posterior (PDA, PL). If the heart is right-dominant, its "
            "right coronary artery is missing"
        )
    feed = "feeds" if len(names) == 1 else "feed"
    return (
        f"{' and '.join(sorted(names))} alone {feed} the whole wall, "
        f"{why}, and the tissue that it feeds counts to others. Add it to the tree or by "
        "synthetic_rca; for a left-dominant heart write tree.dominance: left"
    )
