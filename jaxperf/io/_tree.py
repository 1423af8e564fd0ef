"""From points with parents to a network of named branches; shared by the centreline readers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError, note
from ..network import build_network, VascularNetwork
from ..units import M_PER_MM
from ._overlap import Overlap, overlaps

# Two points closer than this fraction of the radius are one point: no segment between them has
# a meaning, and its length would rule the time step of a transient run.
_COINCIDENT = 1e-3
# A point names the end of a branch from this near.
END_REACH_MM = 5.0
# An end wider than the inlet by this factor is worth a note: arteries taper.
_WIDE_END = 1.2


@dataclass(frozen=True)
class PointTree:
    """Centreline points, each with the index of the point before it, −1 at a root.

    `number` is what the file calls each point: the id of its row in an SWC file, or its line.
    `name` holds the points that a branch can be named by, as the row or as the line that ends
    there, and `name_of` says which of the two these are. `beside` are the stretches of lines that
    were found to run in the lumen of others before they became a tree.
    """

    position: Float[np.ndarray, "p 3"]
    radius: Float[np.ndarray, " p"]
    parent: Int[np.ndarray, " p"]
    number: Int[np.ndarray, " p"]
    name: Mapping[int, int]
    name_of: str
    beside: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class _Segments:
    """The segments of a tree: `node`, the point that each is merged into, and the rest (s)."""

    node: Int[np.ndarray, " p"]
    proximal: Int[np.ndarray, " s"]
    distal: Int[np.ndarray, " s"]
    chord: Float[np.ndarray, " s"]
    radius: Float[np.ndarray, "s 2"]


def tree_network(
    tree: PointTree,
    *,
    frame: str,
    branch_name: Mapping[int | str, str] | None,
    where: str,
    advice: Callable[[], str] = lambda: "Leave one of the two out",
) -> VascularNetwork:
    """A network with a segment between each point and its parent, decomposed into branches.

    Coincident consecutive points become one node, where the calibre may step. Below a junction,
    a first segment that ends inside the junction's own lumen has the radius of its distal end
    at both ends: it links the centrelines and is no vessel that tapers. Where the file has a
    point of the daughter at the junction, that point says the radius.

    **Arguments:** `advice`: what to do about vessels that run in one lumen.
    """
    part = _segments(tree, where)
    _refuse_overlaps(tree, overlaps_of(tree, part), where, advice)
    _note_wide_ends(tree, part, where)
    node, proximal, distal = part.node, part.proximal, part.distal
    kept = np.unique(np.concatenate([proximal, distal]))
    branch, names = _name_branches(tree, node, proximal, distal, part.chord, branch_name, where)
    number = np.full(len(node), -1, np.int64)
    number[kept] = np.arange(len(kept))
    return build_network(
        tree.position[kept],
        number[np.stack([proximal, distal], axis=1)],
        part.radius,
        root=number[np.flatnonzero(tree.parent < 0)],
        frame=frame,
        branch=branch,
        branch_name=names,
        where=where,
    )


def is_single(tree: PointTree, where: str) -> bool:
    """Whether no lumen of the tree runs inside another."""
    return not overlaps_of(tree, _segments(tree, where))


def overlaps_of(tree: PointTree, part: _Segments) -> list[Overlap]:
    """The stretches that were found line by line, or else those of the whole tree."""
    segment = np.stack([part.proximal, part.distal], axis=1)
    return list(tree.beside) or overlaps(tree.position, part.radius, segment)


def _segments(tree: PointTree, where: str) -> _Segments:
    order = parents_first(tree, where)
    node = _merge_coincident(tree, order)
    distal = np.array([p for p in order if node[p] == p and tree.parent[p] >= 0], np.int64)
    distal.sort()
    if len(distal) == 0:
        raise InputError(
            "it holds no two points in succession that lie apart",
            where=where,
            expected="at least one segment",
            fix="Check that the file holds a centreline",
        )
    kept = np.unique(np.concatenate([node[tree.parent[distal]], distal]))
    _refuse_lone_roots(tree, node, kept, where)
    proximal = node[tree.parent[distal]]
    chord = np.linalg.norm(tree.position[distal] - tree.position[proximal], axis=1)
    start = tree.radius[tree.parent[distal]]
    junction = np.bincount(proximal, minlength=len(node))[proximal] > 1
    before = tree.parent[distal]
    children = np.bincount(tree.parent[tree.parent >= 0], minlength=len(node))
    own = (node[before] != before) & (children[before] == 1)
    start = np.where(junction & ~own & (chord <= start), tree.radius[distal], start)
    radius = np.stack([start, tree.radius[distal]], axis=1)
    return _Segments(node, proximal, distal, chord, radius)


def place_mm(position: Float[np.ndarray, "3"]) -> str:
    """A place (m) as messages say it."""
    x, y, z = (f"{value / M_PER_MM:.1f}" for value in position)
    return f"({x}, {y}, {z}) mm"


def _refuse_overlaps(
    tree: PointTree, found: list[Overlap], where: str, advice: Callable[[], str]
) -> None:
    """Refuse vessels that run in the lumen of others, and ends in another lumen."""
    beside = sorted((x for x in found if not x.is_end), key=lambda x: -x.radii)
    if beside:
        said = [
            f"{called(tree, x.last)} runs inside the lumen of {called(tree, x.other)} for "
            f"{x.radii:.0f} radii, {x.apart / M_PER_MM:.2g} mm beside it, from "
            f"{place_mm(x.begin)} to {place_mm(x.end)}"
            for x in beside[:4]
        ]
        more = f"; and {len(beside) - 4} more" if len(beside) > 4 else ""
        raise InputError(
            "; ".join(said) + more,
            where=where,
            expected="one centreline in a lumen, because two there are two parallel vessels",
            fix=advice(),
        )
    for x in found:
        raise InputError(
            f"{called(tree, x.last)} ends in the lumen of {called(tree, x.other)}, at "
            f"{place_mm(x.end)}: a loop is meant, and as a tree it would be an outlet of its own",
            where=where,
            expected="branches that end in tissue",
            fix="Leave that branch out, or cut it before it meets the other one",
        )


def _note_wide_ends(tree: PointTree, part: _Segments, where: str) -> None:
    """An end that is wider than every root: the vessel may run from its end to its inlet."""
    end = np.setdiff1d(part.distal, part.proximal)
    widest = int(end[np.argmax(tree.radius[end])])
    inlet = float(part.radius[tree.parent[part.proximal] < 0, 0].max())
    if tree.radius[widest] > _WIDE_END * inlet:
        note(
            f"{called(tree, widest)} ends at {place_mm(tree.position[widest])} with a radius of "
            f"{tree.radius[widest] / M_PER_MM:.2f} mm, wider than the inlet with "
            f"{inlet / M_PER_MM:.2f} mm; turn the vessel round if that end is its inlet",
            where=where,
        )


def parents_first(tree: PointTree, where: str) -> list[int]:
    """The points in an order in which every parent comes before its children."""
    child: list[list[int]] = [[] for _ in tree.parent]
    for p, q in enumerate(tree.parent.tolist()):
        if q >= 0:
            child[q].append(p)
    order = np.flatnonzero(tree.parent < 0).tolist()
    for p in order:
        order.extend(child[p])
    if len(order) < len(tree.parent):
        reached = np.zeros(len(tree.parent), np.bool_)
        reached[order] = True
        raise InputError(
            f"the parents run in a circle through {called(tree, _on_cycle(tree, reached))}",
            where=where,
            expected="a tree: every chain of parents ends at a root (parent -1)",
            fix="Correct the parent of one of these points",
        )
    return order


def _on_cycle(tree: PointTree, reached: np.ndarray) -> int:
    point = int(np.flatnonzero(~reached)[0])
    for _ in range(len(reached)):
        point = int(tree.parent[point])
    return point


def called(tree: PointTree, point: int) -> str:
    return f"{tree.name_of} {tree.number[point]}"


def _merge_coincident(tree: PointTree, order: list[int]) -> Int[np.ndarray, " p"]:
    """The node of every point: itself, or its parent's where the two coincide."""
    node = np.arange(len(tree.parent))
    step = np.linalg.norm(tree.position - tree.position[np.maximum(tree.parent, 0)], axis=1)
    same = (tree.parent >= 0) & (step <= _COINCIDENT * tree.radius)
    for p in order:
        if same[p]:
            node[p] = node[tree.parent[p]]
    return node


def _refuse_lone_roots(
    tree: PointTree, node: Int[np.ndarray, " p"], kept: Int[np.ndarray, " k"], where: str
) -> None:
    lone = np.setdiff1d(np.flatnonzero(tree.parent < 0), kept)
    if len(lone):
        raise InputError(
            f"the root at {called(tree, int(lone[0]))} has no vessel",
            where=where,
            expected="roots that feed at least one segment",
            fix="Remove the point or give it as a parent",
        )


def _name_branches(
    tree: PointTree,
    node: Int[np.ndarray, " p"],
    proximal: Int[np.ndarray, " s"],
    distal: Int[np.ndarray, " s"],
    chord: Float[np.ndarray, " s"],
    branch_name: Mapping[int | str, str] | None,
    where: str,
) -> tuple[Int[np.ndarray, " s"], tuple[str, ...]]:
    """The branch of each segment, and the branches' names."""
    roots = np.flatnonzero(tree.parent < 0)
    plain = _courses(roots, proximal, distal, chord, tree.radius, {})
    segment_of = dict(zip(distal.tolist(), range(len(distal)), strict=True))
    wanted = dict(branch_name or {})
    ends = _named_ends(tree, node, segment_of, plain, wanted, where)
    claim = _claims(ends, plain, dict(zip(distal.tolist(), proximal.tolist(), strict=True)))
    number = {course[-1]: i for i, course in enumerate(plain)}
    parts: list[tuple[str, list[int]]] = []
    for course in _courses(roots, proximal, distal, chord, tree.radius, claim):
        part: list[int] = []
        for point in course:
            part.append(segment_of[point])
            if point in ends:
                parts.append((ends[point][0], part))
                part = []
        if part:
            parts.append((f"branch {number[course[-1]]}", part))
    names = [name for name, _ in parts]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"the name {repeated[0]!r} is given to several branches",
            where=f"{where}, `branch_name`",
            expected="a name of its own for each branch",
            fix="Number the parts, such as 'OM 1' and 'OM 2'",
        )
    branch = np.zeros(len(distal), np.int64)
    for i, (_, part) in enumerate(parts):
        branch[part] = i
    return branch, tuple(names)


def _named_ends(
    tree: PointTree,
    node: Int[np.ndarray, " p"],
    segment_of: Mapping[int, int],
    courses: list[list[int]],
    wanted: Mapping[int | str, str],
    where: str,
) -> dict[int, tuple[str, bool]]:
    """Where each branch that the caller names ends, its name, and whether the key was automatic."""
    ends: dict[int, tuple[str, bool]] = {}
    last = {f"branch {i}": course[-1] for i, course in enumerate(courses)}
    for key, name in wanted.items():
        near = None if isinstance(key, int) else point_mm(key)
        if near is not None:
            point = _end_near(tree, segment_of, near, str(key), f"{where}, `branch_name`")
            known = True
        elif isinstance(key, str):
            known = key in last
            point = last.get(key, -1)
        else:
            point = int(node[tree.name[key]]) if key in tree.name else -1
            known = point in segment_of
        if not known or point in ends:
            leaf = {course[-1] for course in courses}
            tips = [n for n, p in tree.name.items() if int(node[p]) in leaf]
            raise InputError(
                f"{key!r} is {'named twice' if point in ends else 'not the end of any branch'}",
                where=f"{where}, `branch_name`",
                expected=f"a name from 'branch 0' to 'branch {len(courses) - 1}', the "
                f"{tree.name_of} where a branch ends (tips: {', '.join(map(str, tips))}), or a "
                "point at that end as 'x, y, z' in mm",
                fix=f"Correct the key of {name!r}",
            )
        ends[point] = (name, near is None and isinstance(key, str))
    return ends


def point_mm(key: str) -> Float[np.ndarray, "3"] | None:
    """The point (mm) that a key such as `12.5, -3, 48` means."""
    words = key.strip(" ()[]").split(",")
    try:
        point = np.array([float(word) for word in words])
    except ValueError:
        return None
    return point if len(point) == 3 and np.isfinite(point).all() else None


def _end_near(
    tree: PointTree,
    segment_of: Mapping[int, int],
    point_mm: Float[np.ndarray, "3"],
    key: str,
    where: str,
) -> int:
    """The end of a vessel, free or at a junction, to which a point clearly belongs."""
    node = np.array(list(segment_of), np.int64)
    children = np.bincount(tree.parent[tree.parent >= 0], minlength=len(tree.parent))
    end = node[children[node] != 1]
    distance = np.linalg.norm(tree.position[end] / M_PER_MM - point_mm[None, :], axis=1)
    order = np.argsort(distance)
    first = int(order[0])
    second = float(distance[order[1]]) if len(order) > 1 else np.inf
    if distance[first] > END_REACH_MM or second < 2.0 * distance[first]:
        beside = " and ".join(place_mm(tree.position[end[i]]) for i in order[:2])
        raise InputError(
            f"the nearest end to {key!r} lies {distance[first]:.1f} mm away, the next "
            f"{second:.1f} mm",
            where=where,
            expected=f"x, y, z in mm, in the frame of the file, within {END_REACH_MM:g} mm of the "
            f"end of one branch and much nearer to it than to others (near are {beside})",
            fix="Take the point from the file, at the distal end of the branch",
        )
    return int(end[first])


def _claims(
    ends: Mapping[int, tuple[str, bool]], courses: list[list[int]], parent: Mapping[int, int]
) -> dict[int, int]:
    """The end of the named branch to which each point belongs, as far as names decide.

    A branch named by the id of its end claims its whole way up to a root or to an earlier claim,
    whatever the calibres; an end that lies in an earlier claim cuts that one. An automatic name
    claims its own course only.
    """
    course_of = {course[-1]: course for course in courses}
    claim: dict[int, int] = {}
    for end, (_, automatic) in ends.items():
        top = course_of[end][0] if automatic else -1
        point = end
        while point not in claim:
            claim[point] = end
            if point not in parent or (point == top and parent[top] in parent):
                break
            point = parent[point]
    return claim


def _courses(
    roots: Int[np.ndarray, " r"],
    proximal: Int[np.ndarray, " s"],
    distal: Int[np.ndarray, " s"],
    chord: Float[np.ndarray, " s"],
    radius: Float[np.ndarray, " p"],
    claim: Mapping[int, int],
) -> list[list[int]]:
    """The tree as unbranched courses, each the list of its points without the first.

    A claimed course goes on to the end that claims it. Elsewhere it goes on at a junction into
    the vessel with the largest mean radius as far as the next junction: the mean, because the
    first points of all daughters lie in the same lumen. Equal means are decided by the longer way
    to a tip. Courses are numbered generation by generation, and along their parent from its
    proximal end.
    """
    child: dict[int, list[int]] = {}
    step = dict(zip(distal.tolist(), chord.tolist(), strict=True))
    for p, q in zip(proximal.tolist(), distal.tolist(), strict=True):
        child.setdefault(p, []).append(q)
    reach = _reach(roots.tolist(), child, step)

    def rank(first: int) -> tuple[float, float]:
        moment = length = 0.0
        point = first
        while True:
            moment += step[point] * radius[point]
            length += step[point]
            following = child.get(point, [])
            if len(following) != 1:
                return round(moment / length, 12), reach[first]
            point = following[0]

    courses: list[list[int]] = []
    starts: list[int] = roots.tolist()
    for first in starts:
        course = [first]
        while course[-1] in child:
            end = claim.get(course[-1])
            below = child[course[-1]]
            same = [c for c in below if end is not None and claim.get(c) == end]
            candidates = same or below
            # to rank a single one would walk the whole vessel at each of its points
            onward = candidates[0] if len(candidates) == 1 else max(candidates, key=rank)
            starts += [c for c in below if c != onward]
            course.append(onward)
        courses.append(course if first in step else course[1:])
    return courses


def _reach(
    roots: list[int], child: Mapping[int, list[int]], step: Mapping[int, float]
) -> dict[int, float]:
    """The longest way from the start of each point's segment down to a tip."""
    order = list(roots)
    for p in order:
        order.extend(child.get(p, []))
    reach: dict[int, float] = {}
    for p in reversed(order):
        below = max((reach[c] for c in child.get(p, [])), default=0.0)
        reach[p] = below + step.get(p, 0.0)
    return reach
