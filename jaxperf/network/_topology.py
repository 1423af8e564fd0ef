"""Host-side topology of a vascular network: direction, order of elimination, vessels."""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from .._custom_types import as_leaf
from .._misc import InputError


class Topology(eqx.Module):
    """What the elimination of a network needs to know of its graph.

    **Attributes:**

    - `root`: the node each component is fed from.
    - `terminal`: leaf nodes.
    - `sweep`: segments in order of elimination, leaves first. Every row holds segments that
      depend on earlier rows only; rows are padded with the number of segments.
    - `cut`: segments that close a loop; they are not part of the tree.
    - `vessel`: the maximal unbranched chain each segment belongs to.

    All are integer arrays and array leaves: held as static fields they would be compared at
    every jitted call.
    """

    root: Int[Array, " r"]
    terminal: Int[Array, " t"]
    sweep: Int[Array, "k w"]
    cut: Int[Array, " m"]
    vessel: Int[Array, " s"]


def components(n_nodes: int, segment_node: Int[np.ndarray, "s 2"]) -> Int[np.ndarray, " n"]:
    """The connected component of every node."""
    weight = np.ones(len(segment_node), np.int64)
    graph = coo_array((weight, segment_node.T), shape=(n_nodes, n_nodes))
    return connected_components(graph, directed=False)[1]


def orient(
    n_nodes: int, segment_node: Int[np.ndarray, "s 2"], root: Int[np.ndarray, " r"]
) -> tuple[Int[np.ndarray, "s 2"], Int[np.ndarray, " m"], Int[np.ndarray, " n"]]:
    """Direct every segment away from its root, breadth first.

    **Returns:** the directed segments, the indices of the segments that close a loop, and the
    depth of each node counted in segments from its root.
    """
    # A virtual node joined to every root makes one traversal serve all components.
    virtual = np.stack([np.full(len(root), n_nodes), root], axis=1)
    both = np.concatenate([segment_node, virtual])
    graph = coo_array((np.ones(len(both), np.int64), both.T), shape=(n_nodes + 1, n_nodes + 1))
    order, parent = breadth_first_order(graph.tocsr(), n_nodes, directed=False)
    depth = np.full(n_nodes + 1, -2, np.int64)
    depth[n_nodes] = -1
    for node in order[1:]:
        depth[node] = depth[parent[node]] + 1
    forward = parent[segment_node[:, 1]] == segment_node[:, 0]
    backward = (parent[segment_node[:, 0]] == segment_node[:, 1]) & ~forward
    directed = np.where(backward[:, None], segment_node[:, ::-1], segment_node)
    # Two parallel segments both look like tree segments; only the first is one.
    cut = np.setdiff1d(
        np.arange(len(segment_node)), _first_tree_segment(directed, forward | backward)
    )
    deeper = depth[directed[cut, 0]] > depth[directed[cut, 1]]
    directed[cut] = np.where(deeper[:, None], directed[cut][:, ::-1], directed[cut])
    return directed, cut, depth[:-1]


def _first_tree_segment(
    directed: Int[np.ndarray, "s 2"], in_tree: Bool[np.ndarray, " s"]
) -> Int[np.ndarray, " k"]:
    candidate = np.flatnonzero(in_tree)
    _, first = np.unique(directed[candidate, 1], return_index=True)
    return candidate[first]


def elimination_order(
    segment_node: Int[np.ndarray, "s 2"],
    cut: Int[np.ndarray, " m"],
    depth: Int[np.ndarray, " n"],
    sweep_shape: tuple[int, int] | None,
) -> Int[np.ndarray, "k w"]:
    """Tree segments, deepest child first, cut into rows of one width.

    Rows of one width turn the sweep into one small compiled loop. The width is the one that
    costs least when a row costs a fixed overhead plus its entries.
    """
    n_segments = len(segment_node)
    tree = np.setdiff1d(np.arange(n_segments), cut)
    height = _height(segment_node[tree], depth)[segment_node[tree, 1]]
    levels = [tree[height == h] for h in np.unique(height)]
    if sweep_shape is None:
        widths = [2**k for k in range(3, 13)]
        overhead = 150  # a guess at the price of one loop step, in entries; it only picks a width
        cost = [sum(-(-len(lv) // w) * (overhead + w) for lv in levels) for w in widths]
        n_rows, width = 0, widths[int(np.argmin(cost))]
    else:
        n_rows, width = sweep_shape
    rows = [lv[i : i + width] for lv in levels for i in range(0, len(lv), width)]
    if sweep_shape is not None and len(rows) > n_rows:
        raise ValueError(f"sweep_shape {sweep_shape} is too small: {len(rows)} rows are needed")
    sweep = np.full((max(len(rows), n_rows), width), n_segments, np.int64)
    for i, row in enumerate(rows):
        sweep[i, : len(row)] = row
    return sweep


def _height(
    tree_segment: Int[np.ndarray, "k 2"], depth: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """Longest way down from each node: a segment is ready once its child's segments are done."""
    height = np.zeros(len(depth), np.int64)
    for parent, child in tree_segment[np.argsort(-depth[tree_segment[:, 1]], kind="stable")]:
        height[parent] = max(height[parent], height[child] + 1)
    return height


def vessels(
    segment_node: Int[np.ndarray, "s 2"], n_nodes: int, branch: Int[np.ndarray, " s"]
) -> Int[np.ndarray, " s"]:
    """Number the maximal unbranched chains; a change of branch name ends a chain too."""
    incoming = np.bincount(segment_node[:, 1], minlength=n_nodes)
    outgoing = np.bincount(segment_node[:, 0], minlength=n_nodes)
    passing = (incoming == 1) & (outgoing == 1)
    into = np.full(n_nodes, -1, np.int64)
    into[segment_node[:, 1]] = np.arange(len(segment_node))
    before = into[segment_node[:, 0]]
    joined = passing[segment_node[:, 0]] & (branch == branch[before])
    here = np.flatnonzero(joined)
    graph = coo_array(
        (np.ones(len(here), np.int64), (here, before[here])), shape=(len(branch), len(branch))
    )
    return connected_components(graph, directed=False)[1].astype(np.int64)


def build_topology(
    n_nodes: int,
    segment_node: Int[np.ndarray, "s 2"],
    root: Int[np.ndarray, " r"],
    branch: Int[np.ndarray, " s"],
    *,
    allow_loops: bool,
    sweep_shape: tuple[int, int] | None,
    where: str,
) -> tuple[Int[np.ndarray, "s 2"], Topology]:
    """Direct the segments and derive the order of elimination; refuse what has none."""
    component = components(n_nodes, segment_node)
    fed = np.unique(component[root])
    for c in np.setdiff1d(np.unique(component), fed):
        piece = np.flatnonzero(component == c)
        raise InputError(
            f"{len(piece)} nodes are not connected to any root, node {piece[0]} among them",
            where=where,
            expected="every node reachable from a root",
            fix="Join the pieces or name a root in each",
        )
    directed, cut, depth = orient(n_nodes, segment_node, root)
    if len(cut) and not allow_loops:
        a, b = directed[cut[0]]
        raise InputError(
            f"the network has {len(cut)} closed loop(s) or joins between roots; one is made by "
            f"nodes {a} and {b}",
            where=where,
            expected="a tree below each root, apart from the others",
            fix="Remove the segment or a root, or pass allow_loops=True if it is a collateral",
        )
    leaf = np.bincount(directed.ravel(), minlength=n_nodes) == 1
    leaf[root] = False
    sweep = elimination_order(directed, cut, depth, sweep_shape)
    as_index = lambda x: as_leaf(x, np.int32)
    topology = Topology(
        root=as_index(root),
        terminal=as_index(np.flatnonzero(leaf)),
        sweep=as_index(sweep),
        cut=as_index(cut),
        vessel=as_index(vessels(directed, n_nodes, branch)),
    )
    return directed, topology
