"""The branches of a case as a list, from which lesions can be declared."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from .._misc import InputError
from ..casefile import Case, load_case, speaking
from ..network import branch_course, parent_segment, VascularNetwork, vessel_territories
from ..units import M_PER_MM
from ._build import build_heart, healthy_tree, read_tree


@dataclass(frozen=True)
class ListedBranch:
    """A branch: where it leaves which other one, how long and wide it is, and whose territory it
    feeds.

    `automatic`, the name that it has without `tree.branches`; None where no reader named it, and
    where it is a part of a longer one. `parent` and `at_mm` along it are None at an ostium.
    """

    branch: str
    automatic: str | None
    parent: str | None
    at_mm: float | None
    length_mm: float
    diameter_start_mm: float
    diameter_end_mm: float
    territory: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_branches(path: str | os.PathLike, data: str | os.PathLike = ".") -> list[ListedBranch]:
    """The branches of a case, drawn ones too, without its lesions.

    **Arguments:** `path`, of the case file; `data`, folder that its paths start from.

    **Errors:** [`InputError`][] for a case or a tree that cannot be read.

    **Example:**

    ```python
    import jaxperf as jp
    path = jp.jobs.write_starter("heart", spacing_mm=5.0)
    for found in jp.study.list_branches(path, "heart"):
        print(found.branch, found.length_mm, found.parent, found.at_mm)
    ```
    """
    case, folder = load_case(path), Path(data)
    with speaking():
        needs_heart = case.tree.built_in is not None or case.synthetic_rca is not None
        heart = build_heart(case, folder) if needs_heart else None
        tree = read_tree(case, folder, None) if heart is None else healthy_tree(case, folder, heart)
        plain = _automatic(case, folder)
    into, radius = parent_segment(tree), np.asarray(tree.radius)
    rows = []
    for name in tree.branch_name:
        course, start = branch_course(tree, name)
        first = int(np.asarray(tree.segment_node)[course[0], 0])
        above = int(into[first])
        end = np.asarray(tree.segment_node)[course[-1:], 1].astype(np.int64)
        length = float(start[-1] + np.asarray(tree.length)[course[-1]])
        parent = None if above < 0 else tree.branch_name[int(np.asarray(tree.branch)[above])]
        rows.append(
            ListedBranch(
                branch=name,
                automatic=None if plain is None else _name_in(plain, course),
                parent=parent,
                at_mm=None if parent is None else _along_mm(tree, parent, above),
                length_mm=length / M_PER_MM,
                diameter_start_mm=2.0 * float(radius[course[0], 0]) / M_PER_MM,
                diameter_end_mm=2.0 * float(radius[course[-1], 1]) / M_PER_MM,
                territory=vessel_territories(tree, end)[0][0],
            )
        )
    return rows


def _automatic(case: Case, data: Path) -> VascularNetwork | None:
    """The tree with automatic names; segments have the same numbers, as names change none."""
    if case.tree.built_in is not None:
        return None
    unnamed = case.tree.model_copy(update={"branches": {}})
    return read_tree(case.model_copy(update={"tree": unnamed}), data, None)


def _name_in(plain: VascularNetwork, course: Int[np.ndarray, " b"]) -> str | None:
    """The automatic name of a course, where it is one branch and ends as the course does."""
    if course[-1] >= plain.n_segments:
        return None
    name = plain.branch_name[int(np.asarray(plain.branch)[course[-1]])]
    return name if branch_course(plain, name)[0][-1] == course[-1] else None


def _along_mm(tree: VascularNetwork, branch: str, segment: int) -> float | None:
    """The arc length at which a segment of a branch ends, mm; None on a branch that divides."""
    try:
        course, start = branch_course(tree, branch)
    except InputError:
        return None
    k = int(np.flatnonzero(course == segment)[0])
    return float(start[k] + np.asarray(tree.length)[segment]) / M_PER_MM
