"""The forest of a case: grown or read, held against the case, joined to the tree."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from .._progress import Progress
from ..casefile import Case, Growth
from ..geometry import boundary_triangles, TetMesh, transmural_depth, VoxelMesh, voxels_from_surface
from ..growth import (
    BranchingLaw,
    fingerprint,
    Forest,
    forest_roots,
    grow_forest,
    GrowthProblem,
    join_forest,
    load_forest,
    settings_of,
)
from ..network import VascularNetwork
from ..units import M_PER_MM
from ._build import closed_outlets, Heart
from ._dominance import artery, dominance_of, fits_published, PUBLISHED_SHARE_PERCENT

DEFAULT_EXPONENT = 2.7
_UM = 1e-6
# Grid of a wall that is given as tetrahedra alone.
_SPACING = 1.25e-3


@dataclass(frozen=True)
class Grown:
    """A forest and the network it is part of.

    `tree`: segmented and drawn vessels with their lesions, whose nodes and segments come first in
    `network`; grown vessel k is segment `tree.n_segments + k` and leads to node `tree.n_nodes + k`.
    """

    tree: VascularNetwork
    forest: Forest
    network: VascularNetwork


def joined_forest(tree: VascularNetwork, forest: Forest) -> Grown:
    """Join a forest to its tree, which keeps its lesions."""
    return Grown(tree, forest, join_forest(tree, forest))


def growth_problem(
    case: Case, tree: VascularNetwork, heart: Heart, depth: Float[np.ndarray, " c"]
) -> GrowthProblem:
    """What the forest of a case depends on.

    **Arguments:** `tree`: without lesions, so that the forest is the same for every lesion;
    `depth`: of the cells of `heart.mesh`.
    """
    growth = case.growth
    assert growth is not None
    mesh, depth = _grid(heart, depth)
    closed = closed_outlets(case, tree)
    spacing, reach = growth.root_spacing_mm * M_PER_MM, growth.root_reach_mm * M_PER_MM
    roots = forest_roots(
        tree, mesh, closed=closed, spacing=spacing, reach=reach, territory_share=None
    )
    diameter = growth.terminal_diameter_um
    return GrowthProblem(
        network=tree,
        mesh=mesh,
        depth=depth,
        n_terminals=growth.n_terminals,
        law=_law(growth),
        seed=growth.seed,
        closed=closed,
        root_spacing=spacing,
        root_reach=reach,
        territory_share=territory_shares(growth, roots.territory_name, dominance_of(case, tree)),
        epicardial_fraction=growth.epicardial_fraction,
        terminal_radius=None if diameter is None else 0.5 * diameter * _UM,
    )


def _law(growth: Growth) -> BranchingLaw:
    by_radius = growth.exponent_by_radius
    if by_radius is None:
        exponent = growth.exponent or DEFAULT_EXPONENT
        return BranchingLaw(exponent_small=exponent, exponent_large=exponent)
    return BranchingLaw(
        exponent_small=by_radius.small,
        exponent_large=by_radius.large,
        radius_small=by_radius.radius_small_um * _UM,
        radius_large=by_radius.radius_large_um * _UM,
    )


def _grid(
    heart: Heart, depth: Float[np.ndarray, " c"]
) -> tuple[VoxelMesh, Float[np.ndarray, " v"]]:
    """The voxels that the forest grows in, and their depth."""
    if isinstance(heart.mesh, VoxelMesh):
        return heart.mesh, depth
    voxels = heart.voxels
    if voxels is None:
        voxels = _voxels_of(heart.mesh)
    depth = transmural_depth(
        voxels, heart.frame, cavity_label=heart.cavity_label, rv_label=heart.rv_label
    )
    return voxels, depth


def _voxels_of(mesh: TetMesh) -> VoxelMesh:
    triangle = boundary_triangles(mesh.tet)
    return voxels_from_surface(mesh.centre, triangle, spacing=_SPACING, frame=mesh.frame)


def territory_shares(
    growth: Growth, names: tuple[str, ...], dominance: str | None
) -> tuple[tuple[str, float], ...] | None:
    """The shares of the vessel territories of a tree; None where the calibres give them.

    Published ones hold for hearts of a known dominance that have all their territories.

    **Arguments:** `names`: the territories that have roots of trees; `dominance`: `right`, `left`
    or None.

    **Errors:** [`InputError`][] for shares that do not name every territory once.
    """
    given = growth.territory_share_percent
    if given == "calibre":
        return None
    plain = [artery(name) for name in names]
    if given is None:
        if not fits_published(plain, dominance):
            return None
        given = PUBLISHED_SHARE_PERCENT[dominance or ""]
    assert isinstance(given, dict)
    asked = [artery(name) for name in given]
    if sorted(asked) != sorted(plain):
        raise InputError(
            f"it names {', '.join(given)}",
            where="growth.territory_share_percent",
            expected=f"each of {', '.join(names)}, the territories of the tree",
            fix="Name these, or write calibre",
        )
    share = dict(zip(asked, given.values(), strict=True))
    return tuple((name, share[short]) for name, short in zip(names, plain, strict=True))


def forest_path(case: Case, data: Path) -> Path | None:
    """The file that keeps the forest of a case."""
    assert case.growth is not None
    return None if case.growth.file is None else data / case.growth.file


def forest_of_case(case: Case, data: Path, problem: GrowthProblem, progress: Progress) -> Forest:
    """The forest from the case's file, or grown where the case names none."""
    path = forest_path(case, data)
    with progress.stage("forest"):
        if path is not None:
            return read_forest(path, problem)
        count = functools.partial(progress.tell, "terminals")
        return grow_forest(problem, checkpoint=None, progress=count)


def read_forest(path: Path, problem: GrowthProblem) -> Forest:
    """Read the forest of a problem.

    **Errors:** [`InputError`][] where the file is missing, or holds the forest of another problem.
    """
    forest = load_forest(path)
    if forest.about["fingerprint"] == fingerprint(problem):
        return forest
    raise InputError(
        f"its forest was grown for another input: {_difference(forest, problem)}",
        where=str(path),
        expected="the forest of this case",
        fix="Run `jaxperf grow CASE.yaml --overwrite`, or set growth as it was",
    )


def _difference(forest: Forest, problem: GrowthProblem) -> str:
    """What another input differs in."""
    # as a file keeps them: tuples are lists there
    now, then = json.loads(json.dumps(settings_of(problem))), forest.about
    changed = [
        f"{name} was {_shown(then.get(name))} and is {_shown(value)}"
        for name, value in now.items()
        if then.get(name) != value
    ]
    return "; ".join(changed) or "the tree or the ventricle has changed"


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
