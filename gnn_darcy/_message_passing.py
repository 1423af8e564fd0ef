r"""A message-passing network that answers with the pressure: the published kind, as a baseline.

Encode, process, decode on the control-volume graph. Messages are antisymmetric, m_ij = −m_ji,
and averaged over the neighbours; training sees no solution, but the residual of the control volumes
alone. Not linear in the source, and blind to what lies farther than its messages reach.

**Source:** Pfaff et al., Learning mesh-based simulation with graph networks, ICLR 2021, for the
architecture; Li et al., Finite volume graph network, Phys Fluids 35:043106 (2023), for the loss.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jraph
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from jaxperf.darcy import (
    AbstractDarcySolver,
    DarcyOperator,
    DarcySolution,
    fixed_cost_solution,
)

from ._buckets import PaddedCase
from ._graph import darcy_graph
from ._layers import MLP

_N_NODE, _N_EDGE = 3, 1
_LEAST_SHARE, _SHARE_SCALE, _COUPLING_SCALE = 1e-6, 0.2, 10.0


class MessagePassingNetwork(eqx.Module):
    """Pressure from an operator and a source, whatever their units."""

    node_encoder: MLP
    edge_encoder: MLP
    edge_update: tuple[MLP, ...]
    node_update: tuple[MLP, ...]
    decoder: MLP

    def __init__(self, hidden: int, n_messages: int, *, key: PRNGKeyArray) -> None:
        keys = iter(jax.random.split(key, 3 + 2 * n_messages))

        def mlp(n_in: int, n_out: int) -> MLP:
            return MLP(n_in, n_out, hidden, key=next(keys))

        self.node_encoder, self.edge_encoder = mlp(_N_NODE, hidden), mlp(_N_EDGE, hidden)
        self.edge_update = tuple(mlp(3 * hidden, hidden) for _ in range(n_messages))
        self.node_update = tuple(mlp(2 * hidden, hidden) for _ in range(n_messages))
        self.decoder = mlp(hidden, 1)

    def __call__(
        self,
        edge: Int[Array, "e 2"],
        transmissibility: Float[Array, " e"],
        sink: Float[Array, " n"],
        source: Float[Array, " n"],
        live: Bool[Array, " n"],
    ) -> Float[Array, " n"]:
        """Pressure (n,) Pa.

        It is of the size of the root mean square of the source over that of the sinks, and shifted
        so that all sinks together take what all sources give: no flux leaves through the surface.
        """
        # the types of jraph's fields say next to nothing
        graph: Any = darcy_graph(edge, transmissibility, jnp.ones_like(sink), sink)
        diagonal = sink + jraph.segment_sum(
            graph.edges["transmissibility"], graph.receivers, sink.shape[0]
        )
        source, sink = jnp.where(live, source, 0.0), jnp.where(live, sink, 0.0)
        square = lambda x: jnp.sum((x / jnp.max(jnp.abs(x), initial=1e-30)) ** 2)
        size = jnp.max(jnp.abs(source), initial=1e-30) / jnp.max(sink, initial=1e-30)
        scale = size * jnp.sqrt(square(source) / square(sink))
        safe = jnp.where(scale > 0, scale, 1.0).astype(source.dtype)
        share = sink / diagonal
        node = [source / (safe * diagonal), _SHARE_SCALE * jnp.log(share + _LEAST_SHARE), share]
        coupling = _COUPLING_SCALE * graph.edges["transmissibility"]
        coupling = coupling / jnp.sqrt(diagonal[graph.senders] * diagonal[graph.receivers])
        graph = graph._replace(
            nodes=jax.vmap(self.node_encoder)(jnp.stack(node, axis=1)),
            edges=jax.vmap(self.edge_encoder)(coupling[:, None]),
        )
        out = jax.vmap(self.decoder)(self._passed(graph).nodes)[:, 0]
        pressure = jnp.where(live, scale * out, 0.0).astype(source.dtype)
        missing = jnp.sum(source - sink * pressure) / jnp.sum(sink)
        return jnp.where(live, pressure + missing, 0.0).astype(source.dtype)

    def _passed(self, graph: Any) -> Any:
        for of_edge, of_node in zip(self.edge_update, self.node_update, strict=True):
            # Even in its two ends, so that times their difference it is odd.
            weight = lambda edge, a, b, f=of_edge: jax.vmap(f)(
                jnp.concatenate([edge, a + b, (a - b) ** 2], axis=1)
            )
            sent = graph.nodes[graph.senders]
            received = graph.nodes[graph.receivers]
            message = weight(graph.edges, sent, received) * (sent - received)
            into = jraph.segment_mean(message, graph.receivers, graph.nodes.shape[0])
            update = jax.vmap(of_node)(jnp.concatenate([graph.nodes, into], axis=1))
            graph = graph._replace(nodes=graph.nodes + update)
        return graph


def answer(network: Callable[..., Array], case: PaddedCase) -> Float[Array, " n"]:
    """A network's pressure in a case."""
    level = case.plan.levels[0]
    live = jnp.arange(level.n, dtype=jnp.int32) < level.n_live
    return network(level.edge, case.transmissibility, case.sink, case.source, live)


def residual_loss(
    network: Callable[..., Array], case: PaddedCase, key: PRNGKeyArray
) -> Float[Array, ""]:
    """‖D^-½ (f − A p)‖² over ‖D^-½ f‖²: what is missing in each control volume."""
    del key
    pressure, edge, n = answer(network, case), case.plan.levels[0].edge, case.sink.shape[0]
    flux = case.transmissibility * (pressure[edge[:, 0]] - pressure[edge[:, 1]])
    both = jnp.concatenate([flux, -flux])
    ends = edge.T.reshape(-1)
    around = lambda value: jax.ops.segment_sum(value, ends, n)
    diagonal = case.sink + around(jnp.tile(case.transmissibility, 2))
    missing = case.source - case.sink * pressure - around(both)
    live = jnp.arange(n, dtype=jnp.int32) < case.plan.levels[0].n_live
    weigh = lambda x: jnp.sum(jnp.where(live, x**2 / diagonal, 0.0))
    return weigh(missing) / weigh(case.source)


class MessagePassing(AbstractDarcySolver):
    """The message-passing network as a Darcy solver: one evaluation, and no tolerance.

    The coupled solve corrects by it until its own tolerance is met, or ends without.
    """

    network: MessagePassingNetwork

    @property
    def is_linear_symmetric(self) -> bool:
        return False

    def init(self, operator: DarcyOperator) -> DarcyOperator:
        return operator

    def precondition(self, state: DarcyOperator, residual: Float[Array, " c"]) -> Array:
        everywhere = jnp.ones(residual.shape, bool)
        cast = lambda x: x.astype(residual.dtype) if eqx.is_inexact_array(x) else x
        # Only ratios matter; flows and conductances as they are leave the range of float32.
        unit, size = jnp.max(state.diagonal), jnp.max(jnp.abs(residual))
        size = jnp.where(size > 0, size, 1.0).astype(residual.dtype)
        found = jax.tree.map(cast, self.network)(
            state.graph.edge,
            state.transmissibility / unit,
            state.sink / unit,
            residual / size,
            everywhere,
        )
        return found * (size / unit)

    def solve(
        self, state: DarcyOperator, source: Float[Array, " c"], *, max_steps: int | None = None
    ) -> DarcySolution:
        del max_steps
        return fixed_cost_solution(state, source, self.precondition(state, source), 1)
