"""Which nodes a pressure reaches, past the segments that occlusions close."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from ._network import VascularNetwork
from ._topology import components


def pressure_reaches(network: VascularNetwork, known: Bool[Array, " n"]) -> Bool[Array, " n"]:
    """Whether open segments join each node to one at which a pressure acts.

    One sweep from the leaves and one back settle a tree. Each segment that closes a loop may lead
    to one part more.

    **Arguments:** `known`, the nodes at which a pressure acts.
    """
    n, sweep, cut = network.n_nodes, network.topology.sweep, network.topology.cut
    node, is_open = network.segment_node, ~network.is_closed
    padded = jnp.concatenate([node, jnp.full((1, 2), n, node.dtype)])[sweep]
    passes = jnp.concatenate([is_open, jnp.zeros(1, bool)])[sweep]
    rows, ends = (padded[..., 0], padded[..., 1], passes), node[cut]

    def up(has: Array, row: tuple[Array, ...]) -> tuple[Array, None]:
        parent, child, passes = row
        return has.at[parent].max(has[child] & passes), None

    def down(has: Array, row: tuple[Array, ...]) -> tuple[Array, None]:
        parent, child, passes = row
        return has.at[child].max(has[parent] & passes), None

    def once(_: Array | int, has: Array) -> Array:
        has = jax.lax.scan(up, has, rows)[0]
        has = jax.lax.scan(down, has, rows, reverse=True)[0]
        both = has[ends].any(axis=1) & is_open[cut]
        return has.at[ends[:, 0]].max(both).at[ends[:, 1]].max(both)

    start = jnp.concatenate([known, jnp.zeros(1, bool)])
    found = once(0, start)
    if cut.shape[0]:
        found = jax.lax.fori_loop(0, cut.shape[0] + 1, once, found)
    return found[:-1]


def pieces_cut_off(
    network: VascularNetwork, known: Int[np.ndarray, " k"]
) -> list[tuple[Int[np.ndarray, " n"], Int[np.ndarray, " l"]]]:
    """The pieces that occlusions cut off from every node at which a pressure acts; host only.

    **Arguments:** `known`, these nodes.

    **Returns:** for each piece its nodes, and the occlusions at its ends.
    """
    node, lesion = np.asarray(network.segment_node), network.lesion
    closing = np.asarray(lesion.closes)
    closed, of = np.asarray(lesion.segment)[closing], np.asarray(lesion.lesion)[closing]
    piece = components(network.n_nodes, np.delete(node, closed, axis=0))
    found = []
    for i in np.setdiff1d(piece[node[closed]], piece[known]).tolist():
        ends = (piece[node[closed]] == i).any(axis=1)
        found.append((np.flatnonzero(piece == i), np.unique(of[ends])))
    return found
