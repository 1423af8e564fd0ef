"""Ways from nodes to their roots: parents, sums below a vessel, vessel territories."""

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ._network import VascularNetwork
from ._vessel_name import vessel_of_name


def parent_segment(network: VascularNetwork) -> Int[np.ndarray, " n"]:
    """The segment that leads to each node from its root; −1 at a root.

    Segments that close loops are no part of the way.
    """
    into = np.full(network.n_nodes, -1, np.int64)
    tree = np.setdiff1d(np.arange(network.n_segments), np.asarray(network.topology.cut))
    into[np.asarray(network.segment_node)[tree, 1]] = tree
    return into


def upstream(network: VascularNetwork) -> tuple[Int[np.ndarray, " s"], list[np.ndarray]]:
    """The segment before each segment (−1 at a root), and rows of segments, leaves first.

    No two segments of a row lie on one way to a root.
    """
    before = parent_segment(network)[np.asarray(network.segment_node)[:, 0]]
    n = network.n_segments
    return before, [row[row < n] for row in np.asarray(network.topology.sweep)]


def downstream_sum(
    network: VascularNetwork, node: Int[np.ndarray, " k"], amount: Float[np.ndarray, " k"]
) -> Float[np.ndarray, " s"]:
    """The sum of an amount over the given nodes below each segment."""
    at_node = np.bincount(node, amount, network.n_nodes)
    before, rows = upstream(network)
    total = at_node[np.asarray(network.segment_node)[:, 1]]
    for row in rows:
        inner = row[before[row] >= 0]
        np.add.at(total, before[inner], total[inner])
    total[np.asarray(network.topology.cut)] = 0.0
    return total


def vessel_territories(
    network: VascularNetwork, node: Int[np.ndarray, " k"]
) -> tuple[tuple[str, ...], Int[np.ndarray, " k"]]:
    """The vessel territory each node lies in: the first branch below the left main on its way.

    The way leads from the root to the node. A tree whose root vessel is no left main (by
    [`vessel_of_name`][]) counts by the root's own branch, and so does a node on the left main.

    **Arguments:** `node`: (k,), terminals or any other nodes.

    **Returns:** the names in the order in which the nodes meet them, and the index of each node's
    territory.

    **Errors:** [`InputError`][] for a node that the network does not have.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    names, territory = jp.network.vessel_territories(tree, np.asarray(tree.terminals))
    ```
    """
    if node.size and (node.min() < 0 or node.max() >= network.n_nodes):
        raise InputError(
            f"node {node.max() if node.min() >= 0 else node.min()} is asked for",
            where="vessel_territories",
            expected=f"nodes from 0 to {network.n_nodes - 1}",
            fix="Number nodes as the network does",
        )
    branch = np.asarray(network.branch).astype(np.int64)
    main = np.array([vessel_of_name(name) == "LM" for name in network.branch_name])[branch]
    before, rows = upstream(network)
    first, decided = branch.copy(), ~main
    for row in reversed(rows):
        inner = row[before[row] >= 0]
        above = before[inner]
        takes = decided[above] | main[inner]
        first[inner[takes]] = first[above[takes]]
        decided[inner] |= decided[above]
    into = parent_segment(network)
    leaving = np.zeros(network.n_nodes, np.int64)
    leaving[np.asarray(network.segment_node)[::-1, 0]] = np.arange(network.n_segments)[::-1]
    number = first[np.where(into[node] >= 0, into[node], leaving[node])]
    present, at, index = np.unique(number, return_index=True, return_inverse=True)
    order = np.argsort(at)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return tuple(network.branch_name[int(b)] for b in present[order]), rank[index]
