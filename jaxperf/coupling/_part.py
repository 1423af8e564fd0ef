"""A network cut in two: the vessels of the pulsatile 1-D model, and what hangs below them."""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import as_leaf
from .._misc import InputError
from ..network import (
    build_network,
    Held,
    Lesions,
    parent_segment,
    VascularNetwork,
    vessel_label,
)
from ..steady import Boundary
from ._problem import PerfusionProblem


def transient_segments(
    network: VascularNetwork, fixed: int | Bool[np.ndarray, " s"], min_radius_m: float
) -> Bool[np.ndarray, " s"]:
    """The segments that the pulsatile 1-D model follows; runs on the host.

    All fixed vessels, and every other one whose radius is nowhere below the limit and that hangs
    on the fixed vessels, or on a root, through vessels of which the same holds.

    **Arguments:**

    - `fixed`: a mask over the segments, or how many of the first segments are fixed (in a network
      from `join_forest` those of the fixed network come first).
    - `min_radius_m`: m; infinite for the fixed vessels alone.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    followed = jp.coupling.transient_segments(tree, 0, min_radius_m=0.7e-3)
    ```
    """
    index = np.arange(network.n_segments)
    kept = index < fixed if isinstance(fixed, int) else fixed.copy()
    wide = np.asarray(network.radius).min(axis=1) >= min_radius_m
    before = parent_segment(network)[np.asarray(network.segment_node)[:, 0]]
    for row in np.asarray(network.topology.sweep)[::-1]:
        segment = row[row < network.n_segments]
        above = (before[segment] < 0) | kept[before[segment]]
        kept[segment] |= wide[segment] & above
    return kept


@dataclass(frozen=True)
class Cut:
    """Where a network is cut, in its own numbers.

    `node`, `segment` belong to the 1-D part. The `outlet`s (b,) are its nodes with vessels of the
    bed below or a terminal of their own. `terminal_outlet` (t,) and `bed_outlet`, over the
    `bed_segment`s, are the outlets that feed them.
    """

    node: Int[np.ndarray, " n"]
    segment: Int[np.ndarray, " s"]
    outlet: Int[np.ndarray, " b"]
    terminal_outlet: Int[np.ndarray, " t"]
    bed_segment: Int[np.ndarray, " e"]
    bed_outlet: Int[np.ndarray, " e"]


def node_label(network: VascularNetwork, node: int) -> str:
    """The name a message gives a node: the segment that leads to it, or that leaves a root."""
    into = int(parent_segment(network)[node])
    if into < 0:
        into = int(np.flatnonzero(np.asarray(network.segment_node)[:, 0] == node)[0])
    return f"node {node} of {vessel_label(network, into)}"


def cut_network(problem: PerfusionProblem, is_transient: Bool[np.ndarray, " s"]) -> Cut:
    """Cut the network of a problem below the given segments.

    **Errors:** [`InputError`][] naming the vessel: a part that is not closed towards the roots, a
    loop or a lesion in the bed, an outlet without terminals, a boundary condition in the bed or a
    prescribed pressure at an outlet.
    """
    network = problem.network
    ends = np.asarray(network.segment_node).astype(np.int64)
    into = parent_segment(network)
    _refuse_gaps(network, is_transient, ends, into)
    _refuse_lesions(network, is_transient)
    inside = np.zeros(network.n_nodes, bool)
    inside[ends[is_transient]] = True
    index = np.arange(network.n_nodes)
    # The lowest node of the 1-D part on the way up, by doubling steps.
    top = np.where(inside | (into < 0), index, ends[into, 0])
    while (top[top] != top).any():
        top = top[top]
    bed_segment = np.flatnonzero(~is_transient)
    bed_top = top[ends[bed_segment, 0]]
    terminal_top = top[np.asarray(problem.tissue.terminal_node)]
    outlet = np.unique(np.concatenate([bed_top, terminal_top]))
    _refuse_outlets(network, outlet, inside, terminal_top)
    _refuse_boundary(network, problem.boundary, inside, outlet)
    return Cut(
        node=np.flatnonzero(inside),
        segment=np.flatnonzero(is_transient),
        outlet=outlet,
        terminal_outlet=np.searchsorted(outlet, terminal_top),
        bed_segment=bed_segment,
        bed_outlet=np.searchsorted(outlet, bed_top),
    )


def _refuse_gaps(
    network: VascularNetwork,
    is_transient: Bool[np.ndarray, " s"],
    ends: Int[np.ndarray, "s 2"],
    into: Int[np.ndarray, " n"],
) -> None:
    cut = np.isin(np.arange(network.n_segments), np.asarray(network.topology.cut))
    loops = np.flatnonzero(cut & ~is_transient)
    if loops.size:
        raise InputError(
            f"{vessel_label(network, int(loops[0]))} closes a loop below the 1-D vessels",
            where="is_transient",
            expected="a bed of trees: outlets interact through the tissue only",
            fix="Make the collateral and both its ways to the root 1-D vessels, or remove it",
        )
    above = into[ends]
    above[~cut, 1] = -1
    hanging = is_transient & ((above >= 0) & ~is_transient[above]).any(axis=1)
    if hanging.any() or not is_transient.any():
        segment = int(np.flatnonzero(hanging)[0]) if hanging.any() else 0
        raise InputError(
            f"{vessel_label(network, segment)} is cut off from its root",
            where="is_transient",
            expected="1-D vessels that reach up to a root without a gap",
            fix="Choose them with transient_segments",
        )


def _refuse_lesions(network: VascularNetwork, is_transient: Bool[np.ndarray, " s"]) -> None:
    below = np.asarray(network.lesion.segment)
    below = below[~is_transient[below]]
    if below.size:
        raise InputError(
            f"a lesion lies on {vessel_label(network, int(below[0]))}, below the 1-D vessels",
            where="is_transient",
            expected="lesions on 1-D vessels: the bed is condensed as a linear one",
            fix="Make the vessel and those above it 1-D vessels",
        )


def _refuse_outlets(
    network: VascularNetwork,
    outlet: Int[np.ndarray, " b"],
    inside: Bool[np.ndarray, " n"],
    terminal_top: Int[np.ndarray, " t"],
) -> None:
    lost = outlet[~inside[outlet]]
    if lost.size:
        raise InputError(
            f"none of the vessels below {node_label(network, int(lost[0]))} is a 1-D vessel",
            where="is_transient",
            expected="1-D vessels below every root that feeds tissue",
            fix="Choose them with transient_segments",
        )
    idle = np.setdiff1d(outlet, terminal_top)
    if idle.size:
        raise InputError(
            f"no terminal of the tissue lies below {node_label(network, int(idle[0]))}",
            where="outlet",
            expected="an outlet that feeds tissue",
            fix="Remove the vessels below it, or make them 1-D vessels",
        )


def _refuse_boundary(
    network: VascularNetwork,
    boundary: Boundary,
    inside: Bool[np.ndarray, " n"],
    outlet: Int[np.ndarray, " b"],
) -> None:
    for condition in boundary:
        node = np.asarray(condition.node)
        below = node[~inside[node]]
        if below.size:
            raise InputError(
                f"it sits at {node_label(network, int(below[0]))}, below the 1-D vessels",
                where=condition.kind,
                expected="boundary conditions on 1-D vessels",
                fix="Make the vessels up to there 1-D vessels, or remove the condition",
            )
        at_outlet = np.intersect1d(node, outlet)
        if at_outlet.size and isinstance(condition.form(), Held):
            raise InputError(
                f"it prescribes the pressure of {node_label(network, int(at_outlet[0]))}, where "
                "vessels of the bed leave",
                where=condition.kind,
                expected="at least one 1-D vessel between the inlet and the bed",
                fix="Make the first vessels below it 1-D vessels",
            )


def transient_part(
    network: VascularNetwork, cut: Cut
) -> tuple[VascularNetwork, Bool[np.ndarray, " s"]]:
    """The 1-D part as a network of its own, and which segments point the other way there.

    Only a network with loops has such. Values may be traced: the graph is built from the
    connectivity alone and takes the values of the whole network afterwards.
    """
    number = np.full(network.n_nodes, -1, np.int64)
    number[cut.node] = np.arange(cut.node.size)
    ends = number[np.asarray(network.segment_node)[cut.segment]]
    used, branch = np.unique(np.asarray(network.branch)[cut.segment], return_inverse=True)
    root = number[np.asarray(network.roots)]
    graph = build_network(
        np.zeros((cut.node.size, 3)),
        ends,
        np.full(ends.shape, 1e-3),
        root=root[root >= 0],
        frame=network.frame,
        length=np.ones(len(ends)),
        branch=branch,
        branch_name=tuple(network.branch_name[int(b)] for b in used),
        allow_loops=bool(network.topology.cut.size),
        where="1-D vessels",
    )
    flipped = np.asarray(graph.segment_node)[:, 0] != ends[:, 0]
    place = np.searchsorted(cut.segment, np.asarray(network.lesion.segment))
    lesion = Lesions(
        network.lesion.diameter_reduction,
        network.lesion.length,
        as_leaf(place, np.int32),
        network.lesion.lesion,
        network.lesion.fraction,
    )
    values = _values_of(network, cut.node, cut.segment, flipped)
    where = lambda n: (n.node_position, n.radius, n.length, n.lesion)
    return eqx.tree_at(where, graph, (*values, lesion)), flipped


@eqx.filter_jit
def _values_of(
    network: VascularNetwork,
    node: Int[np.ndarray | Array, " m"],
    segment: Int[np.ndarray | Array, " e"],
    flipped: Bool[np.ndarray | Array, " e"],
) -> tuple[Float[Array, "m 3"], Float[Array, "e 2"], Float[Array, " e"]]:
    radius = network.radius[segment]
    radius = jnp.where(flipped[:, None], radius[:, ::-1], radius)
    return network.node_position[node], radius, network.length[segment]


def transient_boundary(boundary: Boundary, cut: Cut) -> Boundary:
    """The boundary conditions, in the numbers of the 1-D part."""
    number = lambda b: as_leaf(np.searchsorted(cut.node, np.asarray(b.node)), np.int32)
    return tuple(eqx.tree_at(lambda c: c.node, b, number(b)) for b in boundary)
