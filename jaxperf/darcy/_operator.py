"""The control-volume Darcy operator on a graph, one for every mesh.

    (A p)_i = Σ_j T_ij (p_i − p_j) + s_i p_i

with a transmissibility T_ij (m³/s/Pa) for every edge and a sink coefficient s_i (m³/s/Pa) for
every control volume. Symmetric by construction; conservative because each edge takes from one
side what it gives to the other.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Bool, Float, Int
from scipy.sparse.csgraph import connected_components


class DarcyGraph(eqx.Module):
    """Which control volumes exchange fluid.

    **Attributes:** `edge` (e, 2); `neighbour` (w, c), the neighbours of each control volume,
    padded with itself; `neighbour_edge` (w, c), the edge that leads there, padded with e. Rows of
    fixed width let the operator run as gathers; the width comes first so that each
    gather runs over contiguous control volumes. `piece` (c,), the connected piece to which each
    control volume belongs, of `n_pieces`.
    """

    edge: Int[Array, "e 2"]
    neighbour: Int[Array, "w c"]
    neighbour_edge: Int[Array, "w c"]
    volume: Float[Array, " c"]
    piece: Int[Array, " c"]
    n_pieces: int = eqx.field(static=True)

    @property
    def n_cells(self) -> int:
        return self.volume.shape[0]


def build_darcy_graph(edge: Int[np.ndarray, "e 2"], volume: Float[np.ndarray, " c"]) -> DarcyGraph:
    """Rows of neighbours from a list of edges; runs on the host."""
    n_cells, n_edges = len(volume), len(edge)
    owner = np.concatenate([edge[:, 0], edge[:, 1]])
    other = np.concatenate([edge[:, 1], edge[:, 0]])
    index = np.concatenate([np.arange(n_edges), np.arange(n_edges)])
    order = np.argsort(owner, kind="stable")
    owner, other, index = owner[order], other[order], index[order]
    count = np.bincount(owner, minlength=n_cells)
    slot = np.arange(len(owner)) - np.repeat(np.cumsum(count) - count, count)
    width = int(count.max(initial=0))
    neighbour = np.tile(np.arange(n_cells), (width, 1))
    neighbour_edge = np.full((width, n_cells), n_edges)
    neighbour[slot, owner] = other
    neighbour_edge[slot, owner] = index
    joined = sp.coo_array((np.ones(n_edges), (edge[:, 0], edge[:, 1])), shape=(n_cells, n_cells))
    n_pieces, piece = connected_components(joined, directed=False)
    return DarcyGraph(
        edge=jnp.asarray(edge, jnp.int32),
        neighbour=jnp.asarray(neighbour, jnp.int32),
        neighbour_edge=jnp.asarray(neighbour_edge, jnp.int32),
        volume=jnp.asarray(volume),
        piece=jnp.asarray(piece, jnp.int32),
        n_pieces=int(n_pieces),
    )


class DarcyOperator(eqx.Module):
    """A graph with its coefficients.

    **Attributes:** `transmissibility` (e,) m³/s/Pa; `sink` (c,) m³/s/Pa, the coefficient of p in
    each control volume; `weight` and `diagonal`, the same coefficients laid out for the product.
    """

    graph: DarcyGraph
    transmissibility: Float[Array, " e"]
    sink: Float[Array, " c"]
    weight: Float[Array, "w c"]
    diagonal: Float[Array, " c"]

    def __call__(self, pressure: Float[Array, " c"]) -> Float[Array, " c"]:
        """A p, in m³/s."""
        out = self.diagonal * pressure
        for k in range(self.graph.neighbour.shape[0]):  # unrolled: see `DarcyGraph`
            out = out - self.weight[k] * pressure[self.graph.neighbour[k]]
        return out

    def has_level(self) -> Bool[Array, ""]:
        """Whether every connected piece has a sink, without which no pressure is defined."""
        sunk = (self.sink != 0).astype(jnp.int32)
        count = jax.ops.segment_sum(sunk, self.graph.piece, self.graph.n_pieces)
        return (count > 0).all()

    def flux(self, pressure: Float[Array, " c"]) -> Float[Array, " e"]:
        """Flow (m³/s) along each edge from its first to its second control volume."""
        first, second = pressure[self.graph.edge[:, 0]], pressure[self.graph.edge[:, 1]]
        return self.transmissibility * (first - second)


def darcy_operator(
    graph: DarcyGraph, transmissibility: Float[Array, " e"], sink: Float[Array, " c"]
) -> DarcyOperator:
    """Put coefficients on a graph; differentiable in them."""
    padded = jnp.concatenate([transmissibility, jnp.zeros(1, transmissibility.dtype)])
    weight = padded[graph.neighbour_edge]
    return DarcyOperator(graph, transmissibility, sink, weight, sink + jnp.sum(weight, axis=0))
