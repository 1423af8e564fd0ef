"""gnn_darcy's networks and problems for the torch reference."""

from typing import TypeVar

import equinox as eqx
import jax
import numpy as np
import torch

from gnn_darcy import FluxMultigrid, FluxNetwork, MessagePassingNetwork
from jaxperf._misc import InputError
from jaxperf.darcy import DarcyProblem

from ._steady_arrays import to_tensor
from .reference import graph

_Network = TypeVar("_Network", graph.FluxNetwork, graph.FiniteVolumeNetwork)


def reference_flux_network(network: FluxNetwork) -> graph.FluxNetwork:
    """A flux multigrid network with the same weights, of the same type."""
    return _copied(network, graph.FluxNetwork)


def reference_finite_volume_network(network: MessagePassingNetwork) -> graph.FiniteVolumeNetwork:
    """A message-passing network with the same weights, of the same type."""
    return _copied(network, graph.FiniteVolumeNetwork)


def reference_flux_problem(solver: FluxMultigrid, problem: DarcyProblem) -> graph.FluxProblem:
    """The operator, the source, and what the mesh gives the cycle, for `solve_flux`.

    **Arguments:** `solver`, from [`gnn_darcy.flux_multigrid`][] for the mesh of the problem; of its
    plan only aggregates, their roots and the start of ρ are taken over.

    **Errors:** `InputError` for a problem with prescribed pressures, and one of another mesh.
    """
    operator, plan = problem.operator, solver.plan
    if problem.fixed is not None:
        raise InputError(
            "the problem prescribes pressures",
            where="reference_flux_problem",
            expected="a problem whose pressure has its level by sinks",
            fix="Hand over a problem without fixed control volumes",
        )
    edge = np.asarray(operator.graph.edge)
    if not np.array_equal(edge, np.asarray(plan.levels[0].edge)):
        raise InputError(
            "the solver is set up for another mesh",
            where="reference_flux_problem",
            expected="the solver of the problem's mesh",
            fix="Call gnn_darcy.flux_multigrid with the mesh of the problem",
        )
    finest, next_one = (
        _aggregation(np.asarray(level.aggregate), np.asarray(level.is_root))
        for level in plan.levels
    )
    return graph.FluxProblem(
        edge=torch.tensor(edge, dtype=torch.int64),
        transmissibility=to_tensor(operator.transmissibility),
        sink=to_tensor(operator.sink),
        source=to_tensor(problem.source),
        aggregations=(finest, next_one),
        start=to_tensor(plan.start).to(to_tensor(operator.sink).dtype),
    )


def _aggregation(aggregate: np.ndarray, is_root: np.ndarray) -> graph.Aggregation:
    root = np.flatnonzero(is_root)
    root = root[np.argsort(aggregate[root])]
    return graph.Aggregation(
        torch.tensor(aggregate, dtype=torch.int64), torch.tensor(root, dtype=torch.int64)
    )


def _copied(network: FluxNetwork | MessagePassingNetwork, kind: type[_Network]) -> _Network:
    # Leaves come in the order in which a checkpoint holds them.
    arrays = [np.asarray(leaf) for leaf in jax.tree.leaves(eqx.filter(network, eqx.is_array))]
    hidden = network.node_encoder.layers[0].weight.shape[0]
    made = kind(hidden, len(network.edge_update)).to(torch.from_numpy(arrays[0].copy()).dtype)
    made.copy_weights(arrays)
    return made
