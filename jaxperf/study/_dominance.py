"""Which coronary artery feeds the inferior wall, and what a tree alone means for it."""

from collections.abc import Sequence

import numpy as np

from ..anatomy import SYNTHETIC
from ..casefile import Case
from ..network import (
    branch_course,
    posterior_of_name,
    VascularNetwork,
    vessel_of_name,
    vessel_territories,
)
from ._build import closed_outlets

# Flow by territory, percent of the left ventricle's. In a left-dominant heart the LCx feeds what
# the right coronary feeds in others.
PUBLISHED_SHARE_PERCENT = {
    "right": {"LAD": 45.0, "LCx": 28.0, "RCA": 27.0},
    "left": {"LAD": 45.0, "LCx": 55.0},
}


def territories_of(case: Case, tree: VascularNetwork) -> tuple[str, ...]:
    """The vessel territories of a tree as its files name them, closed outlets left out."""
    terminal = np.setdiff1d(np.asarray(tree.terminals), closed_outlets(case, tree))
    return tuple(artery(name) for name in vessel_territories(tree, terminal)[0])


def artery(name: str) -> str:
    """LAD, LCx or RCA where a vessel's name means one of them, drawn ones too; else the name."""
    vessel = vessel_of_name(name)
    return vessel if vessel in ("LAD", "LCx", "RCA") else name.removesuffix(f" {SYNTHETIC}")


def dominance_of(case: Case, tree: VascularNetwork) -> str | None:
    """`right` or `left`: what `tree.dominance` says, or which artery the posterior vessels leave.

    A tree with an RCA and no vessel that is named as posterior is right-dominant. So is one where
    the LCx has posterolateral vessels alone and the RCA is the wider of the two. None where it
    cannot be told: no RCA and no such name, or such vessels of both sides.

    **Source:** Dodge et al. (1992), Circulation 86:232: RCA and LCx have 3.9 and 3.4 mm in
    right-dominant hearts, 2.8 and 4.2 mm in left-dominant ones.
    """
    if case.tree.dominance != "auto":
        return case.tree.dominance
    of = set()
    for name in tree.branch_name:
        posterior = posterior_of_name(name)
        if posterior is not None:
            course, _ = branch_course(tree, name)
            end = np.asarray(tree.segment_node)[course[-1:], 1].astype(np.int64)
            of.add((artery(vessel_territories(tree, end)[0][0]), posterior))
    found = of & {(name, kind) for name in ("LCx", "RCA") for kind in ("PDA", "PL")}
    if found <= {("LCx", "PL")} and "RCA" in territories_of(case, tree):
        # the LCx reaches the lateral end of the inferior wall in some right-dominant hearts too
        if not found or _calibre(tree, "RCA") > _calibre(tree, "LCx"):
            return "right"
    sides = {"left" if name == "LCx" else "right" for name, _ in found}
    return sides.pop() if len(sides) == 1 else None


def _calibre(tree: VascularNetwork, name: str) -> float:
    """The largest radius of an artery, m."""
    own = np.array([artery(branch) == name for branch in tree.branch_name])[tree.branch]
    return float(np.asarray(tree.radius)[own].max())


def shares_unpublished(case: Case, tree: VascularNetwork) -> str | None:
    """What to say where calibres share the flow because no published shares fit; else None.

    A tree whose territories are not named as arteries is left alone: nobody expects shares there.
    """
    names, dominance = territories_of(case, tree), dominance_of(case, tree)
    growth = case.growth
    if growth is None or growth.territory_share_percent is not None or "RCA" not in names:
        return None
    if not {"LAD", "LCx"} & set(names) or fits_published(names, dominance):
        return None
    heart = (
        "a heart whose dominance is unknown"
        if dominance is None
        else f"a {dominance}-dominant heart"
    )
    return (
        f"the territories are {', '.join(sorted(names))}, and no published shares hold for these "
        f"in {heart}: the calibres of the vessels share the flow. State tree.dominance, or "
        "growth.territory_share_percent (calibre, to leave it so)"
    )


def fits_published(names: Sequence[str], dominance: str | None) -> bool:
    """Whether the published shares of a dominance are those of these arteries."""
    return sorted(names) == sorted(PUBLISHED_SHARE_PERCENT.get(dominance or "", {}))


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
