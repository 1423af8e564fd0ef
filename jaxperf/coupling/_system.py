"""The coupled equations: network and tissue as one system, solved as one.

Unknowns are the network's pressures P and flows Q and the tissue's pressure p. Linearised,

    N (δP, δQ) − E ∂q/∂p δp = b_N,        ∂F/∂P_T δP_T + ∂F/∂p δp = b_p,

with q the terminal flows, E their place among the node balances, and N the network including the
terminals' own conductance. N is eliminated exactly (leaves to roots and back), and a Krylov
method solves the Schur complement for δp. It is symmetric positive definite for rigid walls
without autoregulation, where a lower bound by the uncoupled tissue operator also makes the
tissue's preconditioner good for the coupled system.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._padding import is_real, kept
from ..darcy import AbstractDarcySolver, darcy_operator, DarcyOperator, solve_krylov
from ..network import VascularNetwork
from ..steady import (
    AbstractSystem,
    initial_state,
    LinearStep,
    network_scale,
    NetworkFactor,
    NetworkLaw,
    NetworkState,
    NodeClosure,
    rounding_share,
    solve_network,
)
from ._problem import Autoregulation, Microcirculation, Tissue


class PerfusionState(eqx.Module):
    """Network state and tissue pressure (Pa)."""

    network: NetworkState
    tissue: Float[Array, " c"]


class Exchange(eqx.Module):
    """Flow between terminals and tissue.

    **Attributes:** `terminal_flow` (t,) m³/s into each terminal region; `source`, `sink` (c,)
    m³/s into and out of each control volume; `dilation` (t,).
    """

    terminal_flow: Float[Array, " t"]
    source: Float[Array, " c"]
    sink: Float[Array, " c"]
    dilation: Float[Array, " t"]


def exchange(
    tissue: Tissue,
    bed: Microcirculation,
    autoregulation: Autoregulation | None,
    pressure_terminal: Float[Array, " t"],
    pressure_tissue: Float[Array, " c"],
) -> Exchange:
    """Flow from every terminal through its region's bed to the sink."""
    per_cell = lambda beta: jnp.broadcast_to(beta, (tissue.n_cells,))[tissue.cell]
    to_tissue = tissue.overlap * per_cell(bed.beta_source)
    to_sink = tissue.overlap * per_cell(bed.beta_sink)
    pressure = pressure_tissue[tissue.cell]
    into = to_tissue * (pressure_terminal[tissue.terminal] - pressure)
    out = to_sink * (pressure - bed.pressure_sink)
    undilated = tissue.to_terminals(into)
    if autoregulation is None:
        dilation = jnp.broadcast_to(bed.dilation, undilated.shape)
    else:
        dilation = autoregulation.dilation(undilated)
    factor = dilation[tissue.terminal]
    return Exchange(
        dilation * undilated,
        tissue.to_cells(factor * into),
        tissue.to_cells(factor * out),
        dilation,
    )


class PerfusionSystem(AbstractSystem):
    """Network and tissue as one system of equations."""

    law: NetworkLaw
    closure: NodeClosure
    tissue: Tissue
    bed: Microcirculation
    autoregulation: Autoregulation | None
    conduction: DarcyOperator
    solver: AbstractDarcySolver
    max_linear_steps: int = eqx.field(static=True)

    @property
    def is_symmetric(self) -> bool:
        """Whether the Schur complement is symmetric."""
        return self.law.wall.is_rigid and self.autoregulation is None

    def exchange(self, pressure_terminal: Array, pressure_tissue: Array) -> Exchange:
        return exchange(
            self.tissue, self.bed, self.autoregulation, pressure_terminal, pressure_tissue
        )

    def _balance(
        self, pressure_terminal: Float[Array, " t"], pressure_tissue: Float[Array, " c"]
    ) -> tuple[Float[Array, " t"], Float[Array, " c"]]:
        flow = self.exchange(pressure_terminal, pressure_tissue)
        conducted = self.conduction(pressure_tissue)
        return flow.terminal_flow, flow.source - flow.sink - conducted

    def _at_terminals(self, values: Array) -> Array:
        """Values of terminals, placed among the nodes."""
        n_nodes = self.law.network.n_nodes
        return jnp.zeros(n_nodes, values.dtype).at[self.tissue.terminal_node].add(values)

    def residual(self, x: PerfusionState) -> PerfusionState:
        terminal_flow, balance = self._balance(
            x.network.pressure[self.tissue.terminal_node], x.tissue
        )
        network = self.law.residual(x.network, self.closure)
        node = network.pressure - self._at_terminals(terminal_flow)
        return PerfusionState(NetworkState(node, network.flow), balance)

    def schur(
        self, x: PerfusionState
    ) -> tuple[NetworkFactor, Callable[..., tuple[Array, Array]], Callable[[Array], Array]]:
        """The eliminated network, the linearised exchange, and the Schur complement."""
        node = self.tissue.terminal_node
        at = x.network.pressure[node]
        _, push = jax.linearize(self._balance, at, x.tissue)
        # A terminal's flow depends on its own pressure only: one product gives the diagonal.
        conductance, _ = push(jnp.ones_like(at), jnp.zeros_like(x.tissue))
        factor = self.law.factor(x.network, self.closure, self._at_terminals(conductance))
        no_drop = jnp.zeros_like(x.network.flow)

        def matvec(tissue: Float[Array, " c"]) -> Float[Array, " c"]:
            flow, _ = push(jnp.zeros_like(at), tissue)
            pressure, _ = solve_network(factor, no_drop, self._at_terminals(flow))
            _, balance = push(pressure[node], tissue)
            return -balance

        return factor, push, matvec

    def linear_solve(
        self, x: PerfusionState, right: PerfusionState, rtol: Float[Array, ""] | float
    ) -> LinearStep:
        node = self.tissue.terminal_node
        factor, push, matvec = self.schur(x)
        pressure, _ = solve_network(factor, right.network.flow, right.network.pressure)
        _, fed = push(pressure[node], jnp.zeros_like(x.tissue))
        found = solve_krylov(
            matvec,
            self._preconditioner(x),
            fed - right.tissue,
            method=self._method(),
            rtol=rtol,
            max_steps=self.max_linear_steps,
        )
        flow, _ = push(jnp.zeros_like(pressure[node]), found.value)
        pressure, segment_flow = solve_network(
            factor, right.network.flow, right.network.pressure + self._at_terminals(flow)
        )
        value = PerfusionState(NetworkState(pressure, segment_flow), found.value)
        return LinearStep(value, found.iterations, found.converged)

    def _method(self) -> str:
        if not self.solver.is_linear_symmetric:
            return "defect_correction"
        return "conjugate_gradient" if self.is_symmetric else "bicgstab"

    def _preconditioner(self, x: PerfusionState) -> Callable[[Array], Array]:
        """The tissue solver for conduction and exchange, the network left out.

        It changes no solution, so nothing is differentiated through it.
        """
        system, x = jax.lax.stop_gradient((self, x))
        at = x.network.pressure[self.tissue.terminal_node]
        dilation = system.exchange(at, x.tissue).dilation[self.tissue.terminal]
        beta = system.bed.beta_source + system.bed.beta_sink
        beta = jnp.broadcast_to(beta, (self.tissue.n_cells,))[self.tissue.cell]
        taken = system.tissue.to_cells(dilation * beta * system.tissue.overlap)
        state = self.solver.init(
            darcy_operator(self.tissue.mesh.graph, system.conduction.transmissibility, taken)
        )
        if self.solver.is_linear_symmetric:
            return lambda residual: self.solver.precondition(state, residual)
        return lambda residual: self.solver.solve(state, residual).pressure_tissue

    def scale(self, x: PerfusionState) -> PerfusionState:
        at = x.network.pressure[self.tissue.terminal_node]
        passing = self.exchange(at, x.tissue)
        largest = jnp.max(jnp.abs(passing.source)) + jnp.max(jnp.abs(passing.sink))
        terms = self._largest_term(x, passing.dilation)
        network = network_scale(self.law.network, self.closure, x.network, terms)
        largest = largest + rounding_share(terms) * terms + jnp.finfo(x.tissue.dtype).tiny
        return PerfusionState(network, jnp.broadcast_to(largest, x.tissue.shape))

    def _largest_term(self, x: PerfusionState, dilation: Float[Array, " t"]) -> Float[Array, ""]:
        """The largest flow (m³/s) that others cancel in a balance: a pressure driving alone."""
        tissue, bed = self.tissue, self.bed
        beta = jnp.broadcast_to(bed.beta_source + bed.beta_sink, (tissue.n_cells,))[tissue.cell]
        through = jnp.max(dilation * tissue.to_terminals(tissue.overlap * beta))
        across = jnp.max(jnp.abs(self.conduction.diagonal))
        at_terminals = x.network.pressure[tissue.terminal_node]
        highest = jnp.maximum(jnp.max(jnp.abs(x.tissue)), jnp.max(jnp.abs(at_terminals)))
        return jnp.maximum(through, across) * highest

    def is_admissible(self, x: PerfusionState) -> Bool[Array, ""]:
        return self.law.is_open(x.network).all()


def initial_perfusion(
    network: VascularNetwork,
    closure: NodeClosure,
    tissue: Tissue,
    bed: Microcirculation,
) -> PerfusionState:
    """Rest in the network; in the tissue, the balance of source and sink without conduction."""
    start = initial_state(network, closure)
    highest = jnp.max(start.pressure)
    fed = bed.beta_source * highest + bed.beta_sink * bed.pressure_sink
    pressure = jnp.broadcast_to(fed / (bed.beta_source + bed.beta_sink), (tissue.n_cells,))
    real = tissue.mesh.graph.real
    if real is not None:
        # where padding ends up, so that it takes no part in any step
        pressure = kept(pressure, is_real(real.cell, tissue.n_cells), 0.0)
    return PerfusionState(start, pressure)
