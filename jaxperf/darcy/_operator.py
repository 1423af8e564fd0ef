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

from .._custom_types import as_leaf
from .._padding import is_real, kept
from ._rows import build_pattern, Pattern


class RealGraph(eqx.Module):
    """How many entries of a padded graph are real: int32 scalars."""

    cell: Int[Array, ""]
    edge: Int[Array, ""]


class DarcyGraph(eqx.Module):
    """Which control volumes exchange fluid.

    **Attributes:** `edge` (e, 2); `pattern`, for each control volume its neighbours, and the edges
    that lead there; `piece` (c,), the connected piece to which each control volume belongs;
    `real`, how many entries are real where the graph is padded by [`jaxperf.pad_problem`][], else
    None.
    """

    edge: Int[Array, "e 2"]
    pattern: Pattern
    volume: Float[Array, " c"]
    piece: Int[Array, " c"]
    real: RealGraph | None = None

    @property
    def n_cells(self) -> int:
        return self.volume.shape[0]

    @property
    def n_pieces(self) -> int:
        """The number of connected pieces, those of padding included; host only."""
        return len(np.unique(np.asarray(self.piece)))


def build_darcy_graph(edge: Int[np.ndarray, "e 2"], volume: Float[np.ndarray, " c"]) -> DarcyGraph:
    """Rows of neighbours from a list of edges; runs on the host.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    graph = jp.darcy.build_darcy_graph(np.array([[0, 1], [1, 2]]), np.full(3, 1e-8))
    ```
    """
    n_cells, n_edges = len(volume), len(edge)
    owner = np.concatenate([edge[:, 0], edge[:, 1]])
    other = np.concatenate([edge[:, 1], edge[:, 0]])
    pattern = build_pattern(owner, other, np.tile(np.arange(n_edges), 2), n_cells)
    joined = sp.coo_array((np.ones(n_edges), (edge[:, 0], edge[:, 1])), shape=(n_cells, n_cells))
    _, piece = connected_components(joined, directed=False)
    return DarcyGraph(
        edge=as_leaf(edge, np.int32),
        pattern=pattern,
        volume=as_leaf(volume),
        piece=as_leaf(piece, np.int32),
    )


class DarcyOperator(eqx.Module):
    """A graph with its coefficients.

    **Attributes:** `transmissibility` (e,) m³/s/Pa; `sink` (c,) m³/s/Pa, the coefficient of p in
    each control volume; `weight` and `diagonal`, the same coefficients laid out for the product.
    """

    graph: DarcyGraph
    transmissibility: Float[Array, " e"]
    sink: Float[Array, " c"]
    weight: tuple[Float[Array, "_ _"], ...]
    diagonal: Float[Array, " c"]

    def __call__(self, pressure: Float[Array, " c *b"]) -> Float[Array, " c *b"]:
        """A p, in m³/s; of several side by side, too."""
        diagonal = self.diagonal.reshape(self.diagonal.shape + (1,) * (pressure.ndim - 1))
        return diagonal * pressure - self.graph.pattern.rows.product(self.weight, pressure)

    def has_level(self) -> Bool[Array, ""]:
        """Whether every connected piece of the graph has a sink, without which no pressure is
        defined. Its sign is not looked at, nor whether every edge conducts.
        """
        sunk = (self.sink != 0).astype(jnp.int32)
        piece = self.graph.piece
        count = jax.ops.segment_sum(sunk, piece, self.graph.n_cells)
        return (count[piece] > 0).all()

    def flux(self, pressure: Float[Array, " c"]) -> Float[Array, " e"]:
        """Flow (m³/s) along each edge from its first to its second control volume."""
        first, second = pressure[self.graph.edge[:, 0]], pressure[self.graph.edge[:, 1]]
        return self.transmissibility * (first - second)


def darcy_operator(
    graph: DarcyGraph, transmissibility: Float[Array, " e"], sink: Float[Array, " c"]
) -> DarcyOperator:
    """Put coefficients on a graph; differentiable in them.

    Padded edges conduct nothing whatever is given for them, and padded control volumes take the
    largest entry of the diagonal as their sink: the operator stays definite and well scaled.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    mesh = jp.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    sink = 1e-5 * mesh.graph.volume
    operator = jp.darcy_operator(mesh.graph, mesh.transmissibility(2e-9), sink)
    flow = operator(jnp.ones_like(sink))
    ```
    """
    real = graph.real
    if real is not None:
        transmissibility = kept(transmissibility, is_real(real.edge, graph.edge.shape[0]), 0.0)
        cell = is_real(real.cell, graph.n_cells)
        sink = kept(sink, cell, 0.0)
    weight = graph.pattern.weights(transmissibility)
    diagonal = sink + graph.pattern.rows.sums(weight)
    if real is not None:
        largest = jax.lax.stop_gradient(jnp.max(diagonal))
        largest = jnp.where(largest > 0, largest, jnp.ones_like(largest))
        sink, diagonal = kept(sink, cell, largest), kept(diagonal, cell, largest)
    return DarcyOperator(graph, transmissibility, sink, weight, diagonal)
