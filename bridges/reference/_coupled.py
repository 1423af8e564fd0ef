"""Steady perfusion in torch: network and tissue as one sparse system.

Unknowns are those of the network (`NetworkEquations`), the tissue pressure p of every control
volume and the dilation f of every terminal region. For pairs k of a region i and a control volume c
that overlap in V_k,

    q_i = f_i u_i,     u_i = Σ_k β_src V_k (P_i − p_c)
    tissue:    Σ_k f_i V_k [β_src (P_i − p_c) − β_snk (p_c − p_snk)] = Σ_e T_e (p_c − p_d)
    dilation:  f_i = given     or     f_i = law(u_i)

and q_i leaves the network at the node of terminal i. All derivatives of a pair are entries of a
sparse matrix; nothing is eliminated.
"""

from dataclasses import dataclass

import torch

from ._darcy import assemble, Mesh
from ._implicit import find_root, Triplets
from ._laws import Blood, Wall
from ._steady import (
    added,
    check_problem,
    joined,
    Network,
    NetworkEquations,
    SteadyBoundary,
)


@dataclass(frozen=True)
class Tissue:
    """The wall as control volumes, and which terminal perfuses what of each.

    **Attributes:** `mesh`; `terminal_node` (t,), the node of each terminal; pairs k of a control
    volume `cell` (k,) and a terminal region `terminal` (k,) that overlap in `overlap` (k,), m³;
    `density`, kg/m³.
    """

    mesh: Mesh
    terminal_node: torch.Tensor
    cell: torch.Tensor
    terminal: torch.Tensor
    overlap: torch.Tensor
    density: torch.Tensor


@dataclass(frozen=True)
class Microcirculation:
    """Conductances of the bed.

    **Attributes:** `beta_source`, `beta_sink`, () or (..., c), 1/(Pa·s); `permeability` as
    `assemble` takes it, m²/(Pa·s); `pressure_sink`, Pa; `dilation`, () or (..., t), without effect
    where the bed regulates itself.
    """

    beta_source: torch.Tensor
    beta_sink: torch.Tensor
    permeability: torch.Tensor
    pressure_sink: torch.Tensor
    dilation: torch.Tensor


@dataclass(frozen=True)
class Autoregulation:
    """Terminal regions dilate to hold their flow, as far as their reserve reaches.

    f = (f_min^n + [(u/q)_+^n + f_max^−n]^−1)^(1/n), with u the flow undilated and q its target.

    **Attributes:** `flow_target` q (..., t), m³/s; `dilation_max`, `dilation_min`; `sharpness` n.
    """

    flow_target: torch.Tensor
    dilation_max: torch.Tensor
    dilation_min: torch.Tensor
    sharpness: int = 8

    def dilation(self, undilated_flow: torch.Tensor) -> torch.Tensor:
        """f (..., t) at the flow (..., t) that regions would take undilated, m³/s."""
        n = self.sharpness
        need = (undilated_flow / self.flow_target).clamp_min(0.0) ** n
        limited = 1.0 / (need + self.dilation_max**-n)
        return (self.dilation_min**n + limited) ** (1.0 / n)


@dataclass(frozen=True)
class PerfusionProblem:
    """A network that perfuses a wall.

    Axes before those named are cases; numbers then have the shape (..., 1), as in `SteadyProblem`.
    `autoregulation` is None where the dilation is given.
    """

    network: Network
    boundary: SteadyBoundary
    blood: Blood
    wall: Wall
    tissue: Tissue
    microcirculation: Microcirculation
    autoregulation: Autoregulation | None = None


@dataclass(frozen=True)
class PerfusionSolution:
    """Steady perfusion.

    **Attributes:** network: `pressure_total` (..., n), Pa, `flow` (..., s), m³/s,
    `pressure_static` (..., s, 2), Pa; terminals: `terminal_flow` (..., t), m³/s,
    `terminal_pressure` (..., t), total, Pa, `dilation` (..., t); tissue: `pressure_tissue`
    (..., c), Pa, `mbf` (..., c), m³/(s·kg); `sink_flow` (...), m³/s.
    """

    pressure_total: torch.Tensor
    flow: torch.Tensor
    pressure_static: torch.Tensor
    terminal_flow: torch.Tensor
    terminal_pressure: torch.Tensor
    dilation: torch.Tensor
    pressure_tissue: torch.Tensor
    mbf: torch.Tensor
    sink_flow: torch.Tensor


def solve_perfusion(problem: PerfusionProblem, *, max_steps: int = 50) -> PerfusionSolution:
    """Solve network and tissue as one system by Newton's method with sparse LU factors.

    Cases are solved together, with one factorisation for each; its fill limits the size of the
    tissue, not of the network. Derivatives of any order follow from the implicit function theorem.

    **Arguments:** `max_steps`, Newton steps at most.

    **Returns:** a `PerfusionSolution`, differentiable in all floating-point tensors of the problem,
    the mesh's geometry included.

    **Errors:** `ValueError` as `solve_steady` and `assemble`, and for pairs or terminals that do
    not fit, a terminal at a prescribed pressure, conductances below zero and targets that are not
    positive. `RuntimeError` where Newton's method finds no root.
    """
    _check(problem)
    check_problem(problem.network, problem.boundary, problem.wall, problem.tissue.terminal_node)
    tissue, bed = problem.tissue, problem.microcirculation
    network = NetworkEquations(problem.network, problem.boundary, problem.blood, problem.wall)
    equations = PerfusionEquations(
        network=network,
        edge=tissue.mesh.edge,
        transmissibility=assemble(tissue.mesh, bed.permeability),
        n_cells=tissue.mesh.n_cells,
        terminal_node=tissue.terminal_node,
        cell=tissue.cell,
        terminal=tissue.terminal,
        overlap=tissue.overlap,
        beta_source=bed.beta_source,
        beta_sink=bed.beta_sink,
        pressure_sink=bed.pressure_sink,
        dilation=bed.dilation,
        autoregulation=problem.autoregulation,
    )
    x = find_root(equations, equations.guess(), max_steps)
    part, exchange = equations.split(x), equations.exchange(x)
    steady = network.solution(part.network)
    terminal_flow = part.dilation * exchange.undilated
    source = equations.to_cells(exchange.dilation * exchange.source)
    return PerfusionSolution(
        pressure_total=steady.pressure_total,
        flow=steady.flow,
        pressure_static=steady.pressure_static,
        terminal_flow=terminal_flow,
        terminal_pressure=steady.pressure_total[..., tissue.terminal_node],
        dilation=part.dilation,
        pressure_tissue=part.tissue,
        mbf=source / (tissue.density * tissue.mesh.volume),
        sink_flow=(exchange.dilation * exchange.sink).sum(dim=-1),
    )


@dataclass(frozen=True)
class _Parts:
    """Network unknowns (..., m), tissue pressures (..., c), dilations (..., t)."""

    network: torch.Tensor
    tissue: torch.Tensor
    dilation: torch.Tensor


@dataclass(frozen=True)
class _Exchange:
    """Over pairs k: undilated flow into and out of the tissue, and the dilation; u over t."""

    source: torch.Tensor
    sink: torch.Tensor
    dilation: torch.Tensor
    undilated: torch.Tensor


def _expanded(number: torch.Tensor, count: int) -> torch.Tensor:
    """A number, or one for each case (..., 1), as (..., count)."""
    return number.expand(*number.shape[:-1], count)


@dataclass(frozen=True)
class PerfusionEquations:
    """The coupled equations as a `System`; fields as in the parts of a `PerfusionProblem`."""

    network: NetworkEquations
    edge: torch.Tensor
    transmissibility: torch.Tensor
    n_cells: int
    terminal_node: torch.Tensor
    cell: torch.Tensor
    terminal: torch.Tensor
    overlap: torch.Tensor
    beta_source: torch.Tensor
    beta_sink: torch.Tensor
    pressure_sink: torch.Tensor
    dilation: torch.Tensor
    autoregulation: Autoregulation | None

    @property
    def n_terminals(self) -> int:
        """Number of terminal regions."""
        return self.terminal_node.shape[0]

    def split(self, x: torch.Tensor) -> _Parts:
        """The three parts of the unknowns."""
        sizes = [self.network.n_unknowns, self.n_cells, self.n_terminals]
        return _Parts(*x.split(sizes, dim=-1))

    def guess(self) -> torch.Tensor:
        """Rest in the network, source and sink in balance in the tissue, no dilation."""
        network = self.network.guess()
        source, sink = (_expanded(b.detach(), self.n_cells) for b in self._beta())
        highest = network[..., : self.network.network.n_nodes].amax(dim=-1, keepdim=True)
        tissue = (source * highest + sink * self.pressure_sink.detach()) / (source + sink)
        parts = [network, tissue, torch.ones(self.n_terminals).to(network)]
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], dim=-1)

    def _beta(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.beta_source, self.beta_sink

    def _conductances(self) -> tuple[torch.Tensor, torch.Tensor]:
        """β_src V_k and β_snk V_k (..., k), m³/(Pa·s)."""
        source, sink = (_expanded(b, self.n_cells)[..., self.cell] for b in self._beta())
        return source * self.overlap, sink * self.overlap

    def exchange(self, x: torch.Tensor) -> _Exchange:
        """Flow of every pair."""
        part, (to_tissue, to_sink) = self.split(x), self._conductances()
        tissue = part.tissue[..., self.cell]
        source = to_tissue * (part.network[..., self.terminal_node][..., self.terminal] - tissue)
        sink = to_sink * (tissue - self.pressure_sink)
        undilated = added(torch.zeros(self.n_terminals).to(x), self.terminal, source)
        return _Exchange(source, sink, part.dilation[..., self.terminal], undilated)

    def to_cells(self, value: torch.Tensor) -> torch.Tensor:
        """Sums of pairs (..., k) over each control volume (..., c)."""
        return added(torch.zeros(self.n_cells).to(value), self.cell, value)

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """The equations (..., m): network, tissue, dilation."""
        part, flow = self.split(x), self.exchange(x)
        network = self.network.residual(part.network)
        network = added(network, self.terminal_node, -part.dilation * flow.undilated)
        i, j = self.edge.unbind(dim=1)
        conducted = self.transmissibility * (part.tissue[..., i] - part.tissue[..., j])
        tissue = self.to_cells(flow.dilation * (flow.source - flow.sink))
        tissue = added(added(tissue, i, -conducted), j, conducted)
        if self.autoregulation is None:
            held = part.dilation - self.dilation
        else:
            held = part.dilation - self.autoregulation.dilation(flow.undilated)
        parts = [network, tissue, held]
        shape = torch.broadcast_shapes(*(p.shape[:-1] for p in parts))
        return torch.cat([p.expand(*shape, p.shape[-1]) for p in parts], dim=-1)

    def jacobian(self, x: torch.Tensor) -> Triplets:
        """∂F/∂x, pair by pair."""
        part, flow = self.split(x), self.exchange(x)
        to_tissue, to_sink = self._conductances()
        m = self.network.n_unknowns
        # Places of each pair: its terminal's node, its control volume, its region's dilation.
        node, cell = self.terminal_node[self.terminal], m + self.cell
        region = m + self.n_cells + self.terminal
        own = m + self.n_cells + torch.arange(self.n_terminals).to(self.terminal_node)
        drawn = flow.dilation * to_tissue
        network = self.network.jacobian(part.network)
        i, j = (m + end for end in self.edge.unbind(dim=1))
        through = self.transmissibility
        entries = [
            network,
            (node, node, -drawn),
            (node, cell, drawn),
            (self.terminal_node, own, -flow.undilated),
            (cell, node, drawn),
            (cell, cell, -drawn - flow.dilation * to_sink),
            (cell, region, flow.source - flow.sink),
            (i, i, -through),
            (j, j, -through),
            (i, j, through),
            (j, i, through),
            (own, own, torch.ones_like(part.dilation)),
        ]
        if self.autoregulation is not None:
            with torch.enable_grad():
                undilated = flow.undilated.detach().requires_grad_()
                dilation = self.autoregulation.dilation(undilated).sum()
                (slope,) = torch.autograd.grad(dilation, undilated)
            answer = slope[..., self.terminal] * to_tissue
            entries += [(region, node, -answer), (region, cell, answer)]
        return joined(entries, x.shape[:-1])

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """As in the network, its largest pressure for the tissue too; 1 for dilations."""
        part = self.split(x)
        network = self.network.scale(part.network)
        tissue = _expanded(network[..., :1], self.n_cells)
        return torch.cat([network, tissue, torch.ones_like(part.dilation)], dim=-1)


def _check(problem: PerfusionProblem) -> None:
    tissue, bed = problem.tissue, problem.microcirculation
    sizes = {tissue.cell.shape, tissue.terminal.shape, tissue.overlap.shape}
    if len(sizes) > 1 or tissue.cell.ndim != 1:
        raise ValueError(
            f"cell, terminal and overlap have the shapes {sizes}; expected (k,) for the k pairs"
        )
    limits = {
        "terminal_node": (tissue.terminal_node, problem.network.n_nodes),
        "cell": (tissue.cell, tissue.mesh.n_cells),
        "terminal": (tissue.terminal, tissue.terminal_node.shape[0]),
    }
    for name, (index, count) in limits.items():
        if index.dtype != torch.int64 or ((index < 0) | (index >= count)).any():
            raise ValueError(f"{name} is {index}; expected int64 from 0 to {count - 1}")
    held = problem.boundary.pressure_node
    if held is not None and torch.isin(tissue.terminal_node, held).any():
        raise ValueError(
            "terminal_node holds a node of prescribed pressure; expected the tissue to be perfused "
            "by other nodes: remove the condition there"
        )
    for name in ("beta_source", "beta_sink"):
        value = getattr(bed, name)
        if not (value > 0).all():
            raise ValueError(f"{name} is {value.min()} at least; expected positive, in 1/(Pa·s)")
    law = problem.autoregulation
    if law is not None and not (law.flow_target > 0).all():
        raise ValueError(
            f"flow_target is {law.flow_target.min()} at least; expected positive flows in m3/s"
        )
