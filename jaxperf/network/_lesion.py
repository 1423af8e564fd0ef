"""Declared lesions."""

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
    lesion is added, spread over the interval in proportion to length.

    **Arguments:**

    - `start_mm`, `end_mm`: arc length from the branch's proximal end. No junction may lie
      strictly inside.
    - `diameter_reduction`: 1 − D_min/D_reference, at least 0 and below 1; may be traced, and is
      not checked then.
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
    a, b = start_mm * M_PER_MM, end_mm * M_PER_MM
    if not 0 <= a < b <= total * (1 + 1e-9):
        raise InputError(
            f"the interval {start_mm} to {end_mm} mm does not lie on the branch",
            where=where,
            expected=f"0 <= start < end <= {total / M_PER_MM:.2f} mm",
            fix="Measure from the proximal end of the branch",
        )
    if not is_traced(diameter_reduction) and not 0 <= diameter_reduction < 1:
        raise InputError(
            f"diameter_reduction is {diameter_reduction}",
            where=where,
            expected="a fraction of the diameter, at least 0 and below 1",
            fix="Write 60 % as 0.6; leave an occluded vessel out of the network",
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
        lesion=_append(other, raw, inside, diameter_reduction),
        allow_loops=bool(network.topology.cut.size),
        where=where,
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


def _refuse_junctions(
    raw: dict[str, np.ndarray], inside: Int[np.ndarray, " k"], where: str
) -> None:
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
