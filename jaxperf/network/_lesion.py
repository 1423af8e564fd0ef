"""Declared lesions."""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._custom_types import as_leaf, ScalarLike
from .._misc import InputError, is_traced
from ..units import M_PER_MM
from ._network import branch_course, build_network, Lesions, VascularNetwork


def _split_at(
    raw: dict[str, np.ndarray],
    course: Int[np.ndarray, " k"],
    start: Float[np.ndarray, " k"],
    at: float,
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
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
    diameter_reduction: ScalarLike,
    reference_radius_mm: float | None = None,
) -> VascularNetwork:
    """Declare a lesion: an arc interval of a branch, a reference radius and a reduction.

    Inside the interval the vessel takes the reference radius, and the Young–Tsai loss of the
    lesion is added, spread over the interval in proportion to length. Each part of it loses what
    its own flow makes it lose. So a lesion may lie over a junction: it goes on along the branch on
    both sides. The side branch keeps its lumen and begins at the pressure inside the lesion; its
    own ostium takes a lesion of its own.

    A reduction of 1 is an occlusion: nothing flows through the first segment of the interval.

    **Arguments:**

    - `start_mm`, `end_mm`: arc length from the branch's proximal end.
    - `diameter_reduction`: 1 − D_min/D_reference, from 0 to 1; may be traced, and is not checked
      then.
    - `reference_radius_mm`: the healthy radius; the mean of the radii at the two ends of the
      interval where left out.

    **Returns:** the network with the lesion. Existing nodes keep their numbers; nodes are added
    at the ends of the interval. Lesions of no reduction that it overlaps, as `without_lesions`
    leaves them, give way to it.

    **Errors:** [`InputError`][] naming the branch.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    tree = jp.declare_lesion(tree, branch="LAD", start_mm=12, end_mm=22, diameter_reduction=0.6)
    ```
    """
    where = f"lesion on {branch}"
    course, start = branch_course(network, branch)
    total = float(np.asarray(network.length)[course].sum())
    _refuse_interval(start_mm, end_mm, total, where)
    a, b = start_mm * M_PER_MM, end_mm * M_PER_MM
    if not is_traced(diameter_reduction) and not 0 <= diameter_reduction <= 1:
        raise InputError(
            f"diameter_reduction is {diameter_reduction}",
            where=where,
            expected="a fraction of the diameter, from 0 to 1",
            fix="Write 60 % as 0.6, and an occlusion as 1",
        )
    other = _other_lesions(network, course, start, a, b, where)
    raw: dict[str, Any] = {
        key: np.array(getattr(network, key))
        for key in ("node_position", "segment_node", "radius", "length", "branch")
    }
    course, start = _split_at(raw, course, start, a)
    course, start = _split_at(raw, course, start, min(b, total))
    middle = start + 0.5 * raw["length"][course]
    inside = course[(middle > a) & (middle < b)]
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
        lesion=_append(other, raw, inside, diameter_reduction),
        allow_loops=bool(network.topology.cut.size),
        where=where,
    )


def _refuse_interval(start_mm: float, end_mm: float, total: float, where: str) -> None:
    """Refuse what is no interval on a branch of a length (m)."""
    long = total / M_PER_MM
    if 0 <= start_mm < end_mm <= long * (1 + 1e-9):
        return
    past = 0 <= start_mm < end_mm and end_mm > long
    raise InputError(
        f"it {'reaches' if start_mm < long else 'lies'} from {start_mm:g} to {end_mm:g} mm, past "
        f"the end of the branch at {long:.2f} mm"
        if past
        else f"it reaches from {start_mm:g} to {end_mm:g} mm, which is no interval on the branch",
        where=where,
        expected=f"0 <= start_mm < end_mm <= {long:.2f} mm, from the branch's proximal end",
        fix="End it there; what lies beyond is another branch, with lesions of its own"
        if past
        else "Measure from the proximal end of the branch",
    )


def _other_lesions(
    network: VascularNetwork,
    course: Int[np.ndarray, " k"],
    start: Float[np.ndarray, " k"],
    a: float,
    b: float,
    where: str,
) -> Lesions:
    """The lesions beside an interval; those of no reduction on it go, any other is refused."""
    end = start + np.asarray(network.length)[course]
    inside = np.minimum(end, b) - np.maximum(start, a) > 1e-9
    lesion = network.lesion
    of = np.asarray(lesion.lesion)
    met = np.unique(of[np.isin(np.asarray(lesion.segment), course[inside])])
    if not met.size:
        return lesion
    reduction = lesion.diameter_reduction
    if is_traced(reduction) or np.asarray(reduction)[met].any():
        raise InputError(
            "it overlaps a lesion declared before",
            where=where,
            expected="lesions that do not overlap",
            fix="Declare one lesion over both intervals",
        )
    kept = np.setdiff1d(np.arange(lesion.length.size), met)
    pair = np.isin(of, kept)
    return Lesions(
        diameter_reduction=as_leaf(np.asarray(reduction)[kept]),
        length=as_leaf(np.asarray(lesion.length)[kept]),
        segment=as_leaf(np.asarray(lesion.segment)[pair]),
        lesion=as_leaf(np.searchsorted(kept, of[pair]), np.int32),
        fraction=as_leaf(np.asarray(lesion.fraction)[pair]),
    )


def _append(
    lesion: Lesions,
    raw: dict[str, np.ndarray],
    inside: Int[np.ndarray, " k"],
    reduction: ScalarLike,
) -> Lesions:
    length = raw["length"][inside]

    def add(old: Array | np.ndarray, new: ArrayLike) -> Array:
        # The reduction may be traced, of this lesion or of one declared before.
        array = jnp if is_traced(old) or is_traced(new) else np
        return as_leaf(array.concatenate([old, array.asarray(new, old.dtype).reshape(-1)]))

    return Lesions(
        diameter_reduction=add(lesion.diameter_reduction, reduction),
        length=add(lesion.length, length.sum()),
        segment=add(lesion.segment, inside),
        lesion=add(lesion.lesion, np.full(len(inside), lesion.length.size)),
        fraction=add(lesion.fraction, length / length.sum()),
    )


@dataclass(frozen=True)
class InsideJunction:
    """A branch that leaves inside a lesion: its number, the branch, and the arc length (mm) at
    which it leaves, from the start of the lesion."""

    lesion: int
    branch: str
    arc_mm: float


def junctions_in_lesions(network: VascularNetwork) -> list[InsideJunction]:
    """The side branches that leave inside lesions; see [`declare_lesion`][] for what they do.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    tree = jp.declare_lesion(tree, branch="LAD", start_mm=2, end_mm=40, diameter_reduction=0.6)
    for found in jp.network.junctions_in_lesions(tree):
        print(found.branch, found.arc_mm)
    ```
    """
    node, length = np.asarray(network.segment_node), np.asarray(network.length)
    lesion, branch = network.lesion, np.asarray(network.branch)
    found = []
    for i in range(lesion.length.size):
        chain = np.asarray(lesion.segment)[np.asarray(lesion.lesion) == i]
        arc = np.cumsum(length[chain]) / M_PER_MM
        for at, end in zip(arc[:-1], node[chain[:-1], 1], strict=True):
            for s in np.setdiff1d(np.flatnonzero(node[:, 0] == end), chain).tolist():
                found.append(InsideJunction(i, network.branch_name[branch[s]], float(at)))
    return found


def without_lesions(network: VascularNetwork) -> VascularNetwork:
    """The same network with every diameter reduction at zero: the lesion-free heart.

    Shapes do not change, so a compiled solve serves both.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    tree = jp.declare_lesion(tree, branch="LAD", start_mm=12, end_mm=22, diameter_reduction=0.6)
    healthy = jp.without_lesions(tree)
    ```
    """
    given = network.lesion.diameter_reduction
    reduction = as_leaf(np.zeros(given.shape, given.dtype))
    return eqx.tree_at(lambda n: n.lesion.diameter_reduction, network, reduction)
