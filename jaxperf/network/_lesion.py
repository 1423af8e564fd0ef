"""Declared lesions and undeclared narrowings."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from .._units import M_PER_MM
from ._network import build_network, Lesions, VascularNetwork


@dataclass(frozen=True)
class Narrowing:
    """A local narrowing that no lesion declares."""

    branch: str
    arc_mm: float
    diameter_reduction: float


def branch_course(
    network: VascularNetwork, branch: str
) -> tuple[Int[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """The segments of a branch from its proximal end, and the arc length (m) where each starts.

    **Errors:** [`InputError`][] for an unknown branch, and for one that is no single course
    (several ends), where an arc length means nothing.
    """
    if branch not in network.branch_name:
        raise InputError(
            f"there is no branch {branch!r}",
            where="branch",
            expected=f"one of {', '.join(network.branch_name)}",
            fix="Use one of these names",
        )
    member = np.flatnonzero(np.asarray(network.branch) == network.branch_name.index(branch))
    node = np.asarray(network.segment_node)[member]
    first = ~np.isin(node[:, 0], node[:, 1])
    if len(np.unique(node[:, 0])) < len(member) or first.sum() != 1:
        raise InputError(
            f"branch {branch!r} divides or has gaps",
            where="branch",
            expected="a single unbranched course",
            fix="Name its parts separately",
        )
    after = dict(zip(node[:, 0].tolist(), range(len(member)), strict=True))
    order = [int(np.flatnonzero(first)[0])]
    while (following := after.get(int(node[order[-1], 1]))) is not None:
        order.append(following)
    course = member[order]
    length = np.asarray(network.length)[course]
    return course, np.concatenate([[0.0], np.cumsum(length)[:-1]])


def _split_at(raw, course, start, at):
    """Insert a node at arc length `at` of a course unless one lies there already."""
    length = raw["length"][course]
    k = int(np.clip(np.searchsorted(start, at, side="right") - 1, 0, len(course) - 1))
    s, t = course[k], (at - start[k]) / length[k]
    if t < 1e-9 or t > 1 - 1e-9:
        return course, start
    position, ends = raw["node_position"], raw["segment_node"][s].copy()
    middle = len(position)
    point = (1 - t) * position[ends[0]] + t * position[ends[1]]
    radius = (1 - t) * raw["radius"][s, 0] + t * raw["radius"][s, 1]
    raw["node_position"] = np.concatenate([position, point[None]])
    raw["segment_node"] = np.concatenate([raw["segment_node"], [[middle, ends[1]]]])
    raw["segment_node"][s] = [ends[0], middle]
    raw["radius"] = np.concatenate([raw["radius"], [[radius, raw["radius"][s, 1]]]])
    raw["radius"][s, 1] = radius
    raw["length"] = np.concatenate([raw["length"], [length[k] * (1 - t)]])
    raw["length"][s] = length[k] * t
    raw["branch"] = np.concatenate([raw["branch"], [raw["branch"][s]]])
    new = len(raw["length"]) - 1
    return np.insert(course, k + 1, new), np.insert(start, k + 1, at)


def declare_lesion(
    network: VascularNetwork,
    *,
    branch: str,
    start_mm: float,
    end_mm: float,
    diameter_reduction: float,
    reference_radius_mm: float | None = None,
) -> VascularNetwork:
    """Declare a lesion: an arc interval of a branch, a reference radius and a reduction.

    Inside the interval the vessel takes the reference radius, and the Young–Tsai loss of the
    lesion is added, spread over the interval in proportion to length.

    **Arguments:**

    - `start_mm`, `end_mm`: arc length from the branch's proximal end. No junction may lie
      strictly inside.
    - `diameter_reduction`: 1 − D_min/D_reference, at least 0 and below 1.
    - `reference_radius_mm`: the healthy radius; the mean of the radii at the two ends of the
      interval where left out.

    **Returns:** the network with the lesion. Existing nodes keep their numbers; nodes are added
    at the ends of the interval.

    **Errors:** [`InputError`][] naming the branch.
    """
    where = f"lesion on {branch}"
    course, start = branch_course(network, branch)
    total = float(np.asarray(network.length)[course].sum())
    a, b = start_mm * M_PER_MM, end_mm * M_PER_MM
    if not 0 <= a < b <= total * (1 + 1e-9):
        raise InputError(
            f"the interval {start_mm} to {end_mm} mm does not lie on the branch",
            where=where,
            expected=f"0 <= start < end <= {total / M_PER_MM:.2f} mm",
            fix="Measure from the proximal end of the branch",
        )
    if not 0 <= diameter_reduction < 1:
        raise InputError(
            f"diameter_reduction is {diameter_reduction}",
            where=where,
            expected="a fraction of the diameter, at least 0 and below 1",
            fix="Write 60 % as 0.6; leave an occluded vessel out of the network",
        )
    _refuse_overlap(network, course, start, a, b, where)
    raw: dict[str, Any] = {
        key: np.array(getattr(network, key))
        for key in ("node_position", "segment_node", "radius", "length", "branch")
    }
    course, start = _split_at(raw, course, start, a)
    course, start = _split_at(raw, course, start, min(b, total))
    middle = start + 0.5 * raw["length"][course]
    inside = course[(middle > a) & (middle < b)]
    _refuse_junctions(raw, inside, where)
    if reference_radius_mm is None:
        reference = 0.5 * float(raw["radius"][inside[0], 0] + raw["radius"][inside[-1], 1])
    else:
        reference = reference_radius_mm * M_PER_MM
    if not (np.isfinite(reference) and reference > 0):
        raise InputError(
            f"reference_radius_mm is {reference_radius_mm}",
            where=where,
            expected="a positive radius in mm",
            fix="Give the healthy radius beside the lesion",
        )
    raw["radius"][inside] = reference
    return build_network(
        **raw,
        root=np.asarray(network.roots),
        frame=network.frame,
        branch_name=network.branch_name,
        lesion=_append(network.lesion, raw, inside, reference, diameter_reduction),
        allow_loops=bool(network.topology.cut.size),
        where=where,
    )


def _refuse_overlap(network, course, start, a, b, where):
    end = start + np.asarray(network.length)[course]
    inside = np.minimum(end, b) - np.maximum(start, a) > 1e-9
    if np.isin(course[inside], np.asarray(network.lesion.segment)).any():
        raise InputError(
            "it overlaps a lesion declared before",
            where=where,
            expected="lesions that do not overlap",
            fix="Declare one lesion over both intervals",
        )


def _refuse_junctions(raw, inside, where):
    degree = np.bincount(raw["segment_node"].ravel(), minlength=len(raw["node_position"]))
    inner = raw["segment_node"][inside[:-1], 1]
    if (degree[inner] > 2).any():
        node = int(inner[degree[inner] > 2][0])
        arc = raw["length"][inside][: int(np.flatnonzero(inner == node)[0]) + 1].sum()
        raise InputError(
            f"a side branch leaves {arc / M_PER_MM:.2f} mm after its start (node {node})",
            where=where,
            expected="an interval between two junctions",
            fix="Shorten the interval, or declare one lesion on each side of the junction",
        )


def _append(lesion, raw, inside, reference, reduction):
    length = raw["length"][inside]
    add = lambda old, new: jnp.concatenate([old, jnp.asarray(new, old.dtype).reshape(-1)])
    return Lesions(
        reference_radius=add(lesion.reference_radius, reference),
        diameter_reduction=add(lesion.diameter_reduction, reduction),
        length=add(lesion.length, length.sum()),
        segment=add(lesion.segment, inside),
        lesion=add(lesion.lesion, np.full(len(inside), lesion.length.size)),
        fraction=add(lesion.fraction, length / length.sum()),
    )


def without_lesions(network: VascularNetwork) -> VascularNetwork:
    """The same network with every diameter reduction at zero: the lesion-free heart.

    Shapes do not change, so a compiled solve serves both.
    """
    reduction = jnp.zeros_like(network.lesion.diameter_reduction)
    return eqx.tree_at(lambda n: n.lesion.diameter_reduction, network, reduction)


def undeclared_narrowings(network: VascularNetwork, threshold: float = 0.3) -> list[Narrowing]:
    """Places where the lumen is narrower than both its surroundings by more than `threshold`.

    At each node of a branch the reference is the smaller of the largest radius before and the
    largest radius after it within 20 mm of arc; a taper, which only falls, is thus no narrowing.
    Segments inside declared lesions are left out.
    """
    found = []
    declared = np.asarray(network.lesion.segment)
    for name in network.branch_name:
        try:
            course, start = branch_course(network, name)
        except InputError:
            continue  # a branch that divides, such as a grown tree, has no arc length
        length = np.asarray(network.length)[course]
        arc = np.concatenate([start, [start[-1] + length[-1]]])
        radius = np.asarray(network.radius)[course]
        lumen = np.append(
            np.minimum(radius[:, 0], np.append(np.inf, radius[:-1, 1])), radius[-1, 1]
        )
        worst: dict[int, Narrowing] = {}
        free = ~np.isin(course, declared)
        free = np.append(free, True) & np.append(True, free)
        for i in range(1, len(arc) - 1):
            near = np.abs(arc - arc[i]) <= 0.02
            before, after = lumen[:i][near[:i]], lumen[i + 1 :][near[i + 1 :]]
            if not (free[i] and before.size and after.size):
                continue
            reduction = 1 - lumen[i] / min(before.max(), after.max())
            if reduction > threshold:
                worst[i] = Narrowing(name, arc[i] / M_PER_MM, float(reduction))
        found += [w for i, w in worst.items() if _is_local_maximum(worst, i)]
    return found


def _is_local_maximum(worst, i):
    here = worst[i].diameter_reduction
    beside = [worst[j].diameter_reduction for j in (i - 1, i + 1) if j in worst]
    return all(here >= b for b in beside)
