"""The two graph networks of a Darcy operator, as modules of torch_geometric.

A graph has a node for every control volume and two directed edges for every face: edges k and
e + k of face k = (i, j) are j → i and i → j. With T_ij the transmissibilities and s_i the sinks,
D_i = s_i + Σ_j T_ij.

**Source:** Pfaff et al., Learning mesh-based simulation with graph networks, ICLR 2021, for
encoder, processor and decoder; Li et al., Finite volume graph network, Phys Fluids 35:043106
(2023), for the loss of the second network.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch_geometric.nn import MessagePassing

from ._weights import copy_weights, read_checkpoint

# Both networks see 10 T_ij over a diagonal, and log(s_i/D_i + 1e-6)/5.
_COUPLING_SCALE, _LEAST_SHARE, _SHARE_SCALE = 10.0, 1e-6, 0.2
# Readings of zero mean: damping 0.1 + 0.9 sigmoid(3), and two thirds of each row moved.
_LEAST_DAMPING, _DAMPING_OFFSET, _MOVED_OFFSET = 0.1, 3.0, math.log(2.0)
# The largest change of the logarithm of a weight.
_REACH = 3.0


def _mlp(n_in: int, n_out: int, hidden: int) -> torch.nn.Sequential:
    """W₂ silu(W₁ x + b₁) + b₂."""
    return torch.nn.Sequential(
        torch.nn.Linear(n_in, hidden), torch.nn.SiLU(), torch.nn.Linear(hidden, n_out)
    )


def directed(edge: torch.Tensor) -> torch.Tensor:
    """(2, 2e) senders and receivers: first the edges that arrive at the first end of each face."""
    return torch.cat([edge.T.flip(0), edge.T], dim=1)


def at_ends(edge: torch.Tensor, value: torch.Tensor, n: int) -> torch.Tensor:
    """Σ over the faces of each control volume, (e,) → (n,)."""
    around = value.new_zeros(n)
    return around.index_add(0, edge[:, 0], value).index_add(0, edge[:, 1], value)


class _FluxRound(MessagePassing):
    """One round: h_ij += f(h_ij, v_j, v_i) for j → i, and then v_i += g(v_i, mean_j h_ij)."""

    def __init__(self, hidden: int) -> None:
        super().__init__(aggr="mean")
        self.edge_mlp = _mlp(3 * hidden, hidden, hidden)
        self.node_mlp = _mlp(2 * hidden, hidden, hidden)

    def forward(
        self, node: torch.Tensor, edge: torch.Tensor, edge_index: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        edge = edge + self.edge_updater(edge_index, node=node, edge=edge)
        n = node.shape[0]
        into = self.propagate(edge_index, size=(n, n), edge=edge)
        return node + self.node_mlp(torch.cat([node, into], dim=1)), edge

    def edge_update(
        self, node_i: torch.Tensor, node_j: torch.Tensor, edge: torch.Tensor
    ) -> torch.Tensor:
        return self.edge_mlp(torch.cat([edge, node_j, node_i], dim=1))

    def message(self, edge: torch.Tensor) -> torch.Tensor:
        return edge


class _AntisymmetricRound(MessagePassing):
    """One round: m_ij = f(h_ij, v_i + v_j, (v_i − v_j)²) (v_j − v_i), odd in its ends, and then
    v_i += g(v_i, mean_j m_ij). Edges keep what the encoder gave them."""

    def __init__(self, hidden: int) -> None:
        super().__init__(aggr="mean")
        self.edge_mlp = _mlp(3 * hidden, hidden, hidden)
        self.node_mlp = _mlp(2 * hidden, hidden, hidden)

    def forward(
        self, node: torch.Tensor, edge: torch.Tensor, edge_index: torch.Tensor
    ) -> torch.Tensor:
        n = node.shape[0]
        into = self.propagate(edge_index, size=(n, n), node=node, edge=edge)
        return node + self.node_mlp(torch.cat([node, into], dim=1))

    def message(
        self, node_i: torch.Tensor, node_j: torch.Tensor, edge: torch.Tensor
    ) -> torch.Tensor:
        apart = node_j - node_i
        return self.edge_mlp(torch.cat([edge, node_i + node_j, apart**2], dim=1)) * apart


@dataclass(frozen=True)
class FluxCoefficients:
    """What a network says of a level.

    **Fields:** `damping` (n,) in (0.1, 1), Λ_i (s_i + 2 Σ_j max(T_ij, 0)); `moved` (n,) in (0, 1),
    how much of its row of P a control volume gives to the aggregates of its neighbours; `factor`
    (2e,) in (e⁻³, e³), what the conductance of each directed edge is multiplied with in that.
    """

    damping: torch.Tensor
    moved: torch.Tensor
    factor: torch.Tensor


class FluxNetwork(torch.nn.Module):
    """The coefficients of a symmetric multigrid cycle, from ratios of an operator's own.

    Encoders v = mlp(x_i) and h = mlp(x_ij), rounds of message passing, and two linear readings
    (a_i, b_i) and c_ij, with

        damping = 0.1 + 0.9 σ(3 + a),   moved = σ(log 2 + b),   factor = exp(3 tanh(c/3)).

    New ones have readings of zero, with which the cycle is plain smoothed aggregation.

    **Arguments:** `hidden`, width of all layers; `n_messages`, rounds of message passing.
    """

    def __init__(self, hidden: int = 16, n_messages: int = 2) -> None:
        super().__init__()
        self.node_encoder, self.edge_encoder = _mlp(5, hidden, hidden), _mlp(5, hidden, hidden)
        self.rounds = torch.nn.ModuleList(_FluxRound(hidden) for _ in range(n_messages))
        self.node_reading = torch.nn.Linear(hidden, 2)
        self.edge_reading = torch.nn.Linear(hidden, 1)
        for parameter in itertools.chain(
            self.node_reading.parameters(), self.edge_reading.parameters()
        ):
            torch.nn.init.zeros_(parameter)

    @classmethod
    def load_checkpoint(cls, path: str | Path) -> "FluxNetwork":
        """The network of a checkpoint of kind flux_multigrid, in single precision.

        **Errors:** as `read_checkpoint`, and `ValueError` for arrays of other shapes.
        """
        header, arrays = read_checkpoint(path, "flux_multigrid")
        network = cls(header["hidden"], header["messages"])
        network.copy_weights(arrays)
        return network

    def copy_weights(self, arrays: Sequence[np.ndarray]) -> None:
        """Take over weights in the order of `ordered_parameters`; **errors** as there."""
        copy_weights(self.ordered_parameters(), arrays)

    def ordered_parameters(self) -> Iterator[torch.nn.Parameter]:
        """In the order of a checkpoint: both encoders, the edge updates of all rounds, their node
        updates, both readings; of each layer the matrix and then the bias."""
        edge_mlps = [r.edge_mlp for r in self.rounds]
        node_mlps = [r.node_mlp for r in self.rounds]
        readings = [self.node_reading, self.edge_reading]
        for part in [self.node_encoder, self.edge_encoder, *edge_mlps, *node_mlps, *readings]:
            yield from part.parameters()

    def forward(
        self,
        edge: torch.Tensor,
        transmissibility: torch.Tensor,
        sink: torch.Tensor,
        aggregate: torch.Tensor,
        is_root: torch.Tensor,
        depth: int,
    ) -> FluxCoefficients:
        """The coefficients of one level.

        **Arguments:** `edge` (e, 2); `transmissibility` (e,); `sink` (n,); `aggregate` (n,), the
        aggregate of each control volume; `is_root` (n,) bool; `depth`, 0 for the finest level.

        **Errors:** `ValueError` for values of another type than the weights.
        """
        _check_type(self, transmissibility, sink)
        n = sink.shape[0]
        diagonal = sink + at_ends(edge, transmissibility, n)
        edge_index = directed(edge)
        sender, receiver = edge_index
        root = is_root.to(sink.dtype)
        share = sink.abs() / diagonal
        conducted = at_ends(edge, functional.relu(transmissibility), n) / diagonal
        of_node = torch.stack(
            [
                _SHARE_SCALE * torch.log(share + _LEAST_SHARE),
                share,
                conducted - 1.0,
                root,
                torch.full_like(share, float(depth)),
            ],
            dim=1,
        )
        coupling = _COUPLING_SCALE * torch.cat([transmissibility, transmissibility])
        of_edge = torch.stack(
            [
                coupling / (diagonal[receiver] * diagonal[sender]).sqrt(),
                coupling / diagonal[receiver],
                coupling / diagonal[sender],
                (aggregate[receiver] == aggregate[sender]).to(sink.dtype),
                root[sender],
            ],
            dim=1,
        )
        node, message = self.node_encoder(of_node), self.edge_encoder(of_edge)
        for step in self.rounds:
            node, message = step(node, message, edge_index)
        said = self.node_reading(node)
        bent = _REACH * torch.tanh(self.edge_reading(message)[:, 0] / _REACH)
        return FluxCoefficients(
            _LEAST_DAMPING + (1.0 - _LEAST_DAMPING) * torch.sigmoid(_DAMPING_OFFSET + said[:, 0]),
            torch.sigmoid(_MOVED_OFFSET + said[:, 1]),
            torch.exp(bent),
        )


class FiniteVolumeNetwork(torch.nn.Module):
    """Pressure from an operator and a source: the published kind of network.

    Inputs are f_i/(c D_i), log(s_i/D_i + 1e-6)/5 and s_i/D_i of nodes and 10 T_ij/√(D_i D_j) of
    edges, with c = ‖f‖/‖s‖. The decoder's answer times c is shifted by one number so that
    Σ_i s_i p_i = Σ_i f_i. Not linear in the source.

    **Arguments:** `hidden`, width of all layers; `n_messages`, rounds of message passing.
    """

    def __init__(self, hidden: int = 32, n_messages: int = 8) -> None:
        super().__init__()
        self.node_encoder, self.edge_encoder = _mlp(3, hidden, hidden), _mlp(1, hidden, hidden)
        self.rounds = torch.nn.ModuleList(_AntisymmetricRound(hidden) for _ in range(n_messages))
        self.decoder = _mlp(hidden, 1, hidden)

    @classmethod
    def load_checkpoint(cls, path: str | Path) -> "FiniteVolumeNetwork":
        """The network of a checkpoint of kind message_passing, in single precision.

        **Errors:** as `read_checkpoint`, and `ValueError` for arrays of other shapes.
        """
        header, arrays = read_checkpoint(path, "message_passing")
        network = cls(header["hidden"], header["messages"])
        network.copy_weights(arrays)
        return network

    def copy_weights(self, arrays: Sequence[np.ndarray]) -> None:
        """Take over weights in the order of `ordered_parameters`; **errors** as there."""
        copy_weights(self.ordered_parameters(), arrays)

    def ordered_parameters(self) -> Iterator[torch.nn.Parameter]:
        """In the order of a checkpoint: both encoders, the edge updates of all rounds, their node
        updates, the decoder; of each layer the matrix and then the bias."""
        edge_mlps = [r.edge_mlp for r in self.rounds]
        node_mlps = [r.node_mlp for r in self.rounds]
        for part in [self.node_encoder, self.edge_encoder, *edge_mlps, *node_mlps, self.decoder]:
            yield from part.parameters()

    def forward(
        self,
        edge: torch.Tensor,
        transmissibility: torch.Tensor,
        sink: torch.Tensor,
        source: torch.Tensor,
    ) -> torch.Tensor:
        """Pressure (n,) Pa.

        **Arguments:** `edge` (e, 2); `transmissibility` (e,) and `sink` (n,), m³/s/Pa, not all
        sinks zero; `source` (n,), m³/s.

        **Errors:** `ValueError` for values of another type than the weights, and without any sink.
        """
        _check_type(self, transmissibility, sink, source)
        n = sink.shape[0]
        diagonal = sink + at_ends(edge, transmissibility, n)
        # Only ratios count, and squares of conductances leave the range of single precision.
        unit, size = diagonal.detach().abs().max(), source.detach().abs().max()
        if not bool((sink > 0).any()):
            raise ValueError("there is no sink, so that the pressure has no level. Give one.")
        if not bool(size > 0):
            # Without a derivative: the answer has a kink here.
            return torch.zeros_like(source)
        given, taken = source / size, sink / unit
        scale = torch.linalg.vector_norm(given) / torch.linalg.vector_norm(taken)
        share = sink / diagonal
        of_node = [
            given * unit / (scale * diagonal),
            _SHARE_SCALE * torch.log(share + _LEAST_SHARE),
            share,
        ]
        edge_index = directed(edge)
        ends = diagonal[edge]
        coupling = _COUPLING_SCALE * (transmissibility / unit)
        coupling = coupling / (ends[:, 0] / unit * (ends[:, 1] / unit)).sqrt()
        node = self.node_encoder(torch.stack(of_node, dim=1))
        message = self.edge_encoder(torch.cat([coupling, coupling])[:, None])
        for step in self.rounds:
            node = step(node, message, edge_index)
        pressure = scale * self.decoder(node)[:, 0]
        missing = (given - taken * pressure).sum() / taken.sum()
        return (pressure + missing) * (size / unit)


def residual_loss(
    pressure: torch.Tensor,
    edge: torch.Tensor,
    transmissibility: torch.Tensor,
    sink: torch.Tensor,
    source: torch.Tensor,
) -> torch.Tensor:
    """‖D^−½ (f − A p)‖²/‖D^−½ f‖² (): what is missing in each control volume.

    **Arguments:** `pressure` (n,); the others as for `FiniteVolumeNetwork`.
    """
    n = sink.shape[0]
    size = source.detach().abs().max()
    root = (sink + at_ends(edge, transmissibility, n)).sqrt()
    flux = transmissibility * (pressure[edge[:, 0]] - pressure[edge[:, 1]])
    left = source - sink * pressure
    left = left.index_add(0, edge[:, 0], -flux).index_add(0, edge[:, 1], flux)
    # Roots in place of squares: these leave the range of single precision.
    weigh = lambda flow: torch.linalg.vector_norm(flow / size / (root / root.detach().max()))
    return (weigh(left) / weigh(source)) ** 2


def _check_type(network: torch.nn.Module, *values: torch.Tensor) -> None:
    kinds = {next(network.parameters()).dtype, *(value.dtype for value in values)}
    if len(kinds) > 1:
        raise ValueError(
            f"weights and values are of the types {sorted(map(str, kinds))}; expected one type. "
            "Convert the network with network.to(dtype), or the values."
        )
