"""The control-volume Darcy operator as a graph of jraph."""

import jax.numpy as jnp
import jraph
from jaxtyping import Array, Float, Int


def darcy_graph(
    edge: Int[Array, "e 2"],
    transmissibility: Float[Array, " e"],
    volume: Float[Array, " c"],
    sink: Float[Array, " c"],
) -> jraph.GraphsTuple:
    r"""One graph whose message passing is the Darcy operator.

    Nodes are control volumes, and every face is there in both directions, first all faces as given
    and then all of them reversed. Summing $T_{ij}(p_i - p_j)$ over the edges that arrive at $i$
    and adding the sink term gives $\sum_j T_{ij}(p_i-p_j) + s_ip_i$.

    **Arguments:**

    - `edge`: (e, 2) pairs of control volumes, each face once.
    - `transmissibility`: (e,) in m³/(s Pa).
    - `volume`: (c,) in m³.
    - `sink`: (c,) the diagonal of the operator beyond the faces, $\beta V$, in m³/(s Pa).

    **Returns:** a `GraphsTuple` with node features `volume` and `sink` and edge feature
    `transmissibility`. Indices have the default integer type, the only one that jraph's batching
    and padding take under strict type promotion.

    **Example:**

    ```python
    import gnn_darcy, jax.numpy as jnp
    edge = jnp.array([[0, 1], [1, 2]])
    graph = gnn_darcy.darcy_graph(edge, jnp.ones(2), jnp.ones(3), jnp.full(3, 0.1))
    ```
    """
    first, second = edge[:, 0].astype(int), edge[:, 1].astype(int)
    return jraph.GraphsTuple(
        nodes={"volume": volume, "sink": sink},
        edges={"transmissibility": jnp.concatenate([transmissibility, transmissibility])},
        senders=jnp.concatenate([first, second]),
        receivers=jnp.concatenate([second, first]),
        globals=None,
        n_node=jnp.asarray([volume.shape[0]], dtype=int),
        n_edge=jnp.asarray([2 * edge.shape[0]], dtype=int),
    )
