r"""The network that says the coefficients of the cycle.

Its inputs are ratios, T_ij/√(D_iD_j), T_ij/D_i, T_ij/D_j and s_i/D_i, so that no unit, no rotation
and no numbering changes what comes out. Its weights are the same on all levels.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
from jaxtyping import Array, Float, PRNGKeyArray

from ._cycle import diagonal_of, LevelCoefficients
from ._layers import MLP
from ._plan import LevelPlan, SMOOTHING

_N_NODE, _N_EDGE = 5, 5
# The least that a network can say of the bound, so that the cycle stays definite beyond rounding,
# and what an untrained one says: all but the whole.
_LEAST_DAMPING, _DAMPING = 0.1, 3.0
# Ratios of couplings are about one over the number of neighbours.
_COUPLING_SCALE = 10.0
# Shares of the sink in the diagonal range from 1e-5 to 1.
_LEAST_SHARE, _SHARE_SCALE = 1e-6, 0.2
# How far a network may move the logarithm of a weight.
_REACH = 3.0


class FluxNetwork(eqx.Module):
    """Encoder, message passing (a `jraph.GraphNetwork` each time), and two readings.

    With its last layers at zero it says the smoothed aggregation that training starts from.
    """

    node_encoder: MLP
    edge_encoder: MLP
    edge_update: tuple[MLP, ...]
    node_update: tuple[MLP, ...]
    node_reading: eqx.nn.Linear
    edge_reading: eqx.nn.Linear

    def __init__(self, hidden: int, n_messages: int, *, key: PRNGKeyArray) -> None:
        keys = iter(jax.random.split(key, 4 + 2 * n_messages))

        def mlp(n_in: int) -> MLP:
            return MLP(n_in, hidden, hidden, key=next(keys))

        self.node_encoder, self.edge_encoder = mlp(_N_NODE), mlp(_N_EDGE)
        self.edge_update = tuple(mlp(3 * hidden) for _ in range(n_messages))
        self.node_update = tuple(mlp(2 * hidden) for _ in range(n_messages))
        nothing = lambda size: jax.tree.map(
            jnp.zeros_like, eqx.nn.Linear(hidden, size, key=next(keys))
        )
        self.node_reading, self.edge_reading = nothing(2), nothing(1)

    def __call__(
        self,
        plan: LevelPlan,
        transmissibility: Float[Array, " e"],
        sink: Float[Array, " n"],
        depth: int,
    ) -> LevelCoefficients:
        """The coefficients of one level of an operator."""
        cast = lambda x: x.astype(sink.dtype)
        network = jax.tree.map(lambda x: cast(x) if eqx.is_inexact_array(x) else x, self)
        graph = network._passed(_features(plan, transmissibility, sink, depth))
        node = jax.vmap(network.node_reading)(graph.nodes)
        edge = jax.vmap(network.edge_reading)(graph.edges)[:, 0]
        return LevelCoefficients(
            _LEAST_DAMPING + (1.0 - _LEAST_DAMPING) * jax.nn.sigmoid(_DAMPING + node[:, 0]),
            _prolongation(plan, transmissibility, node[:, 1], edge),
        )

    def _passed(self, graph: Any) -> Any:
        graph = graph._replace(
            nodes=jax.vmap(self.node_encoder)(graph.nodes),
            edges=jax.vmap(self.edge_encoder)(graph.edges),
        )
        # the types of jraph's updates say next to nothing
        network: Any = jraph.GraphNetwork
        for of_edge, of_node in zip(self.edge_update, self.node_update, strict=True):
            step = network(
                update_edge_fn=lambda edge, sent, received, _, f=of_edge: (
                    edge + jax.vmap(f)(jnp.concatenate([edge, sent, received], axis=1))
                ),
                update_node_fn=lambda node, _, received, __, f=of_node: (
                    node + jax.vmap(f)(jnp.concatenate([node, received], axis=1))
                ),
                aggregate_edges_for_nodes_fn=jraph.segment_mean,
            )
            graph = step(graph)
        return graph


def _features(
    plan: LevelPlan, transmissibility: Float[Array, " e"], sink: Float[Array, " n"], depth: int
) -> jraph.GraphsTuple:
    """Directed edges, first those that arrive at the first end of each edge."""
    diagonal = diagonal_of(plan, transmissibility, sink)
    first, second = plan.edge[:, 0], plan.edge[:, 1]
    receiver, sender = jnp.concatenate([first, second]), jnp.concatenate([second, first])
    t = _COUPLING_SCALE * jnp.concatenate([transmissibility, transmissibility])
    at_receiver, at_sender = diagonal[receiver], diagonal[sender]
    of_level = jnp.full_like(sink, float(depth))
    share = jnp.abs(sink) / diagonal
    conducted = plan_sum(plan, jnp.maximum(transmissibility, 0.0)) / diagonal
    together = (plan.aggregate[receiver] == plan.aggregate[sender]).astype(sink.dtype)
    is_root = plan.is_root.astype(sink.dtype)
    node = [_SHARE_SCALE * jnp.log(share + _LEAST_SHARE), share, conducted - 1.0, is_root, of_level]
    edge = [t / jnp.sqrt(at_receiver * at_sender), t / at_receiver, t / at_sender, together]
    n_node = jnp.asarray([plan.n], dtype=int)
    return jraph.GraphsTuple(
        nodes=jnp.stack(node, axis=1),
        edges=jnp.stack([*edge, is_root[sender]], axis=1),
        senders=sender.astype(int),
        receivers=receiver.astype(int),
        globals=None,
        n_node=n_node,
        n_edge=jnp.asarray([2 * plan.edge.shape[0]], dtype=int),
    )


def plan_sum(plan: LevelPlan, value: Float[Array, " e"]) -> Float[Array, " n"]:
    """Of the edges at each control volume."""
    return diagonal_of(plan, value, jnp.zeros(plan.n, value.dtype))


def _prolongation(
    plan: LevelPlan,
    transmissibility: Float[Array, " e"],
    node: Float[Array, " n"],
    edge: Float[Array, " d"],
) -> Float[Array, " p"]:
    """A row moves by a share ω_i to the aggregates of its neighbours, by their conductances.

    What couples negatively has no part in it, so that all entries are positive; rows sum to one.
    """
    receiver = jnp.concatenate([plan.edge[:, 0], plan.edge[:, 1]])
    conducting = jnp.maximum(jnp.concatenate([transmissibility, transmissibility]), 0.0)
    weight = conducting * jnp.exp(_REACH * jnp.tanh(edge / _REACH))
    total = jax.ops.segment_sum(weight, receiver, plan.n)
    moves = total > 0
    share = jax.nn.sigmoid(node + math.log(SMOOTHING / (1.0 - SMOOTHING)))
    share = jnp.where(moves, share, 0.0).astype(node.dtype)
    of_edge = (share / jnp.where(moves, total, 1.0))[receiver] * weight
    out = jax.ops.segment_sum(of_edge, plan.entry_of_edge, plan.n_entries)
    return out.at[plan.entry_of_own].add(1.0 - share)
