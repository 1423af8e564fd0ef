"""All findings about a case at once, before anything is solved."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from pydantic import ValidationError
from scipy import ndimage
from scipy.spatial import KDTree

from .._misc import InputError, InputNote
from ..anatomy import branches_astray, SYNTHETIC
from ..casefile import Case, case_errors, in_words, read_yaml, speaking, unusual_values
from ..geometry import TetMesh, transmural_depth, VoxelMesh
from ..io import sampling_grid
from ..network import (
    branch_course,
    junctions_in_lesions,
    parent_segment,
    pieces_cut_off,
    undeclared_narrowings,
    VascularNetwork,
    vessel_label,
)
from ..units import M_PER_MM
from ._build import (
    build_heart,
    build_tree,
    closed_outlets,
    healthy_tree,
    Heart,
    outlet_node,
    read_tree,
)
from ._dominance import left_alone, shares_unpublished
from ._forest import forest_path, growth_problem, read_forest
from ._heartbeat import heartbeat_of_case

# Lumen radii (m) outside which a segmented coronary artery is unusual, not impossible.
_USUAL_RADIUS = (0.15e-3, 3.5e-3)
_USUAL_MASS_G = (50.0, 400.0)
# Largest share of a tree's nodes deeper than this (m) in the cavities, where a vessel beside a thin
# wall does not lie. Trees in place have up to 2 %, trees 10 to 15 mm off or in the wrong frame 6 to
# 35 %, at voxels of 1.25 to 6 mm.
_SHARE_IN_CAVITIES, _DEEP = 0.05, 1.5e-3
# Ostia of a usual heart, and the lowest height of one as a share of the way from apex to base.
_OSTIA = 2
_LOWEST_ROOT = 0.5
# What to do about a tree in the cavities, by the frame that the case states.
_TRY = {
    "LPS": "Try frame: RAS; if that is no better, register the tree to the ventricle",
    "RAS": "Try frame: LPS; if that is no better, register the tree to the ventricle",
}


@dataclass(frozen=True)
class Finding:
    """One finding: `error` stops a run, `warning` does not; `where` is a file, key or vessel."""

    severity: str
    where: str
    message: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_case(path: str | os.PathLike, data: str | os.PathLike = ".") -> list[Finding]:
    """Every finding about a case file and the files it names.

    Schema, files, units and frames, disconnected vessels, lesions, the range of the radii,
    undeclared narrowings, the mass of the wall, roots that are no ostia, nodes in the
    cavities, the distance of each terminal from the wall, the forest's settings and file.

    **Example:**

    ```python
    import jaxperf as jp
    path = jp.jobs.write_starter("heart", spacing_mm=5.0)
    for finding in jp.study.check_case(path, "heart"):
        print(finding)
    ```
    """
    try:
        raw = read_yaml(path)
    except InputError as error:
        return [_finding(error)]
    try:
        case = Case.model_validate(raw)
    except ValidationError as error:
        return [_finding(entry) for entry in case_errors(error, str(path))]
    return check_built(case, Path(data))


def check_built(case: Case, data: Path) -> list[Finding]:
    """The findings about a case of a valid schema."""
    said: list[Finding] = []
    with noted(said):
        found = _check_built(case, data)
    return [*(f for f in _values(case) if f not in found), *found, *said]


def _check_built(case: Case, data: Path) -> list[Finding]:
    found: list[Finding] = []
    if case.flow == "pulsatile":
        _tried(lambda: heartbeat_of_case(case, data), found)
    heart = _tried(lambda: build_heart(case, data), found)
    if heart is None and case.tree.built_in is not None:
        return found
    tree = _tried(lambda: read_tree(case, data, heart), found)
    if tree is not None:
        found += _radii(tree)
        found += _lesions(case, tree) if case.synthetic_rca is None else []
        found += _outlets(case, tree) if case.synthetic_rca is None else []
    if heart is None:
        return found
    whole = None
    if tree is not None and not any(f.severity == "error" for f in found):
        whole = _tried(lambda: build_tree(case, data, heart), found)
    if whole is None:
        return [*found, *_mass(case, heart)]
    found += geometry_findings(case, whole, heart)
    if case.growth is not None and not any(f.severity == "error" for f in found):
        _tried(lambda: _forest(case, data, heart), found)
    return found


def _forest(case: Case, data: Path, heart: Heart) -> None:
    """Refuses settings that nothing can grow with, and a file that holds another forest."""
    depth = transmural_depth(
        heart.mesh, heart.frame, cavity_label=heart.cavity_label, rv_label=heart.rv_label
    )
    problem = growth_problem(case, healthy_tree(case, data, heart), heart, depth)
    path = forest_path(case, data)
    if path is not None:
        read_forest(path, problem)


def geometry_findings(case: Case, tree: VascularNetwork, heart: Heart) -> list[Finding]:
    """The findings about a tree and a ventricle that could be built; a run makes them too.

    **Arguments:** `tree`: segmented and drawn vessels; a forest lies in the wall by construction.
    """
    outlets = list(_outlets(case, tree))
    # These ask which ends the outlets leave to the wall.
    of_wall = (
        [] if outlets else [*_closed(case, tree), *_cut_off(case, tree), *_dominance(case, tree)]
    )
    return [
        *_values(case),
        *_mass(case, heart),
        *_narrowings(case, tree),
        *_references(case, tree),
        *_junctions(case, tree),
        *outlets,
        *of_wall,
        *_distances(case, tree, heart),
        *_roots(tree, heart),
        *_sides(tree, heart),
        *_cavities(case, tree, heart),
        *_maps(case, heart),
    ]


def refuse_errors(findings: list[Finding]) -> None:
    """Raise the first error among the findings."""
    for finding in findings:
        if finding.severity == "error":
            raise InputError(
                finding.message,
                where=finding.where,
                expected="a tree on its ventricle",
                fix="`jaxperf check` lists all findings",
            )


def _finding(error: InputError) -> Finding:
    message = f"{error.what}. Expected {error.expected}. {error.fix}."
    return Finding("error", error.where, message)


@contextmanager
def noted(found: list[Finding]) -> Iterator[None]:
    """What readers note inside it joins the findings, once and in the words of a case file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", InputNote)
        yield
    for entry in caught:
        said = entry.message
        if not isinstance(said, InputNote):
            warnings.warn_explicit(said, entry.category, entry.filename, entry.lineno)
            continue
        finding = Finding("warning", in_words(said.where), in_words(said.what))
        if finding not in found:
            found.append(finding)


def _tried(build: Callable[[], Any], found: list[Finding]) -> Any:
    try:
        with speaking():
            return build()
    except InputError as error:
        found.append(_finding(error))
        return None


def _values(case: Case) -> Iterator[Finding]:
    """Numbers that are possible, and unusual or in another unit."""
    for key, message in unusual_values(case):
        yield Finding("warning", key, message)


def _radii(tree: VascularNetwork) -> Iterator[Finding]:
    radius = np.asarray(tree.radius)
    low, high = _USUAL_RADIUS
    for name, bad in (("below", radius.min(axis=1) < low), ("above", radius.max(axis=1) > high)):
        for s in np.flatnonzero(bad)[:5]:
            bound = low if name == "below" else high
            value = radius[s].min() if name == "below" else radius[s].max()
            yield Finding(
                "warning",
                vessel_label(tree, int(s)),
                f"radius {value / M_PER_MM:.3f} mm, {name} {bound / M_PER_MM:g} mm, is unusual "
                f"for a segmented coronary artery ({int(bad.sum())} segments)",
            )


def _lesions(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    for i, lesion in enumerate(case.lesions):
        try:
            branch_course(tree, lesion.branch)
        except InputError as error:
            yield Finding("error", f"lesions.{i}.branch", _finding(error).message)


def _outlets(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    for i, outlet in enumerate(case.boundary.outlets):
        where = f"boundary.outlets.{i}.branch"
        try:
            outlet_node(tree, outlet.branch, where)
        except InputError as error:
            yield Finding("error", where, _finding(error).message)


def _outlet_or_none(tree: VascularNetwork, branch: str) -> int | None:
    """The leaf of an outlet; none where `_outlets` has found that the branch has none."""
    try:
        return outlet_node(tree, branch, "boundary.outlets")
    except InputError:
        return None


def _sides(tree: VascularNetwork, heart: Heart) -> Iterator[Finding]:
    """Names that belong to other branches, such as those of lines in another order."""
    for branch, message in branches_astray(tree, heart.frame).items():
        yield Finding(
            "warning",
            branch,
            f"{message}. Check its key under tree.branches, and the frame. The number of a line "
            "changes where the lines are exported in another order; a point at the branch's end "
            "does not",
        )


def _mass(case: Case, heart: Heart) -> Iterator[Finding]:
    mass = float(heart.mesh.volume.sum()) * case.microcirculation.density_kg_m3 * 1e3
    low, high = _USUAL_MASS_G
    if not low <= mass <= high:
        yield Finding(
            "warning",
            "ventricle",
            f"the wall weighs {mass:.0f} g, unusual for a left ventricle ({low:g} to {high:g} g)",
        )


def _maps(case: Case, heart: Heart) -> list[Finding]:
    """A grid of maps that no memory holds, before anything is solved."""
    found: list[Finding] = []
    mesh = heart.mesh
    if isinstance(mesh, TetMesh) and heart.voxels is None:
        _tried(lambda: sampling_grid(mesh, case.output.spacing_mm), found)
    return found


def _narrowings(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    for place in undeclared_narrowings(tree, case.checks.narrowing):
        end = ", its end" if place.to_the_end else ""
        yield Finding(
            "warning",
            place.branch,
            f"narrows by {100 * place.diameter_reduction:.0f} % of its diameter at "
            f"{place.arc_mm:.1f} mm (from {place.start_mm:.1f} to {place.end_mm:.1f} mm{end}); "
            "declare it under lesions if it is a stenosis, with reference_radius_mm: "
            f"{place.reference_radius_mm:.2f}, as the interval's own ends are narrow too",
        )


def _references(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    """Lesions whose reference radius was taken from ends that are narrow themselves."""
    for place in undeclared_narrowings(tree, case.checks.narrowing, in_lesions=True):
        for i, lesion in enumerate(case.lesions):
            at = (lesion.branch, lesion.reference_radius_mm)
            meet = place.start_mm < lesion.end_mm and place.end_mm > lesion.start_mm
            if at == (place.branch, None) and meet:
                own = (1.0 - place.diameter_reduction) * place.reference_radius_mm
                yield Finding(
                    "warning",
                    f"lesions.{i}.reference_radius_mm",
                    f"the mean of the lesion's two ends, {own:.2f} mm, is taken for the healthy "
                    f"radius, and the vessel beside it has {place.reference_radius_mm:.2f} mm. The "
                    "reduction would count twice; write "
                    f"reference_radius_mm: {place.reference_radius_mm:.2f}, or begin and end the "
                    "lesion where the vessel is healthy",
                )


def _closed(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    """Occlusions that leave no way from a root to the wall."""
    closed = set(np.asarray(tree.lesion.segment)[np.asarray(tree.lesion.closes)].tolist())
    into, node = parent_segment(tree), np.asarray(tree.segment_node)
    terminal = np.setdiff1d(np.asarray(tree.terminals), closed_outlets(case, tree)).tolist()

    def is_fed(end: int) -> bool:
        while into[end] >= 0 and int(into[end]) not in closed:
            end = int(node[into[end], 0])
        return bool(into[end] < 0)

    if closed and not any(is_fed(end) for end in terminal):
        yield Finding(
            "error",
            "lesions",
            "occlusions (diameter_reduction 1) close every vessel that feeds the wall, so no blood "
            "flows at all. Open one of them",
        )


def _cut_off(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    """Pieces that occlusions leave without any pressure; a forest may still reach into them."""
    if case.growth is not None:
        return
    closed = closed_outlets(case, tree)
    given = [o.flow_ml_min is not None for o in case.boundary.outlets]
    terminal, root = np.asarray(tree.terminals), np.asarray(tree.roots)
    fed = closed[given]
    for nodes, lesions in pieces_cut_off(tree, np.setdiff1d(np.union1d(terminal, root), fed)):
        where = " and ".join(f"lesions.{i}" for i in lesions.tolist())
        taken = [f"boundary.outlets.{i}" for i in np.flatnonzero(np.isin(closed, nodes)).tolist()]
        yield Finding(
            "error",
            ", ".join(taken) or where,
            f"{where} (diameter_reduction 1) cut off a piece of the vessels that "
            + (
                f"only {' and '.join(taken)} drains, with a prescribed flow that nothing feeds; "
                "give the outlet resistance_mmHg_min_ml in place of flow_ml_min, or open a lesion"
                if taken
                else "neither perfuses tissue nor has an outlet, so no law gives its pressure. "
                "Declare one lesion over both intervals, or open one"
            ),
        )


def _junctions(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    """Side branches that leave inside a lesion."""
    for inside in junctions_in_lesions(tree):
        lesion = case.lesions[inside.lesion]
        yield Finding(
            "warning",
            f"lesions.{inside.lesion}",
            f"{inside.branch} leaves at {lesion.start_mm + inside.arc_mm:.1f} mm, inside the "
            f"lesion, which goes on along {lesion.branch} on both sides. {inside.branch} keeps its "
            "lumen and begins at the pressure inside the lesion; if its ostium is narrowed, "
            "declare a lesion on it too"
            + (
                ". Pulsatile flow puts all of the lesion's loss into its middle, so on one side of "
                "the branch; compare its mean pressures with the steady ones"
                if case.flow == "pulsatile"
                else ""
            ),
        )


def _dominance(case: Case, tree: VascularNetwork) -> Iterator[Finding]:
    for said in (left_alone(case, tree), shares_unpublished(case, tree)):
        if said is not None:
            yield Finding("warning", "tree.dominance", said)


def _drawn_by_rule(tree: VascularNetwork) -> Bool[np.ndarray, " s"]:
    """The segments of synthetic vessels, which follow the ventricle and not the file."""
    return np.array([name.endswith(SYNTHETIC) for name in tree.branch_name])[tree.branch]


def _roots(tree: VascularNetwork, heart: Heart) -> Iterator[Finding]:
    """Roots that are no ostia, such as a vessel that has lost its parent, narrowest last."""
    start = np.asarray(tree.segment_node)[:, 0]
    at_root = np.isin(start, np.asarray(tree.roots)) & ~_drawn_by_rule(tree)
    first = np.flatnonzero(at_root)
    first = first[np.argsort(-np.asarray(tree.radius)[first, 0], kind="stable")]
    first = first[np.sort(np.unique(start[first], return_index=True)[1])]
    height = heart.frame.height(np.asarray(tree.node_position)[start[first]]) / heart.frame.length
    for i, (s, h) in enumerate(zip(first.tolist(), height.tolist(), strict=True)):
        if h < _LOWEST_ROOT:
            yield Finding(
                "error",
                vessel_label(tree, s),
                f"it begins at a root at {100 * h:.0f} % of the way from the apex to the base. "
                "A root is where an artery leaves the aorta, above the base; give the vessel its "
                "parent, or check the registration",
            )
        elif i >= _OSTIA:
            yield Finding(
                "warning",
                vessel_label(tree, s),
                f"it begins at a root, one of {len(first)}; {_OSTIA} ostia expected: a root is "
                "where an artery leaves the aorta. Give the vessel its parent if it is a branch",
            )


def _cavities(case: Case, tree: VascularNetwork, heart: Heart) -> Iterator[Finding]:
    """Many nodes in the blood of a ventricle: wrong frame or registration."""
    if heart.voxels is None:
        return
    voxels = heart.voxels
    node = np.unique(np.asarray(tree.segment_node)[~_drawn_by_rule(tree)])
    inverse = np.linalg.inv(voxels.affine)
    index = np.asarray(tree.node_position)[node] @ inverse[:3, :3].T + inverse[None, :3, 3]
    left, right = (
        0 if label is None else int((_depth_inside(voxels, label, index) > _DEEP).sum())
        for label in (heart.cavity_label, heart.rv_label)
    )
    if left + right > _SHARE_IN_CAVITIES * len(node):
        yield Finding(
            "error",
            "tree.frame",
            f"{left + right} of the tree's {len(node)} nodes lie more than {1e3 * _DEEP:.1f} mm "
            f"inside a cavity: {left} in the left ventricle's, {right} in the right one's. "
            "The frame is probably wrong, or the registration. "
            f"{_TRY.get(case.tree.frame or '', 'Register the tree anew')}",
        )


def _depth_inside(
    voxels: VoxelMesh, label: int, index: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Distance (m) of places inside a label from its surface, negative outside.

    Between the voxels' centres it is linear, so that it depends little on their size, as the share
    of nodes in voxels of the label does.
    """
    inside = np.pad(voxels.label == label, 1)
    depth: Any = ndimage.distance_transform_edt(inside, sampling=voxels.spacing)
    outside: Any = ndimage.distance_transform_edt(~inside, sampling=voxels.spacing)
    far = -float(outside.max())
    return ndimage.map_coordinates(depth - outside, index.T + 1.0, order=1, cval=far)


def _distances(case: Case, tree: VascularNetwork, heart: Heart) -> Iterator[Finding]:
    """Terminals far from the wall: wrong frame, unit or registration."""
    distance = KDTree(heart.mesh.centre).query(np.asarray(tree.node_position))[0] / M_PER_MM
    into = parent_segment(tree)
    limit = case.checks.terminal_distance_mm
    other = {_outlet_or_none(tree, outlet.branch) for outlet in case.boundary.outlets}
    terminal = np.asarray(tree.terminals)
    for node in terminal[distance[terminal] > limit].tolist():
        if node not in other:
            yield Finding(
                "error",
                vessel_label(tree, int(into[node])),
                f"its end lies {distance[node]:.0f} mm outside the wall, more than {limit:g} mm. "
                "Check units and frame of tree and ventricle, or their registration",
            )
