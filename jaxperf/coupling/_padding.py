"""Perfusion problems padded to buckets: see `jaxperf._padding`."""

from collections.abc import Callable

import equinox as eqx
import numpy as np
from jaxtyping import Array

from .._padding import bucket_size, is_real, kept, pad_problem, padded
from ..darcy import pad_permeability, sanitised_mesh, sanitised_permeability
from ..network import VascularNetwork
from ..steady import pad_vessels, sanitised_vessels
from ._problem import Autoregulation, Microcirculation, PerfusionProblem, Tissue


def pad_perfusion(problem: PerfusionProblem) -> PerfusionProblem:
    """A problem padded to its buckets.

    Padded pairs join the last control volume with the last terminal and overlap in nothing; padded
    terminals sit on a padded node.
    """
    vessels = pad_vessels(problem)
    tissue = _pad_tissue(problem.tissue, vessels.network)
    bed, regulation = problem.microcirculation, problem.autoregulation
    n_cells, n_terminals = tissue.n_cells, tissue.n_terminals
    if regulation is not None:
        regulation = _map_terminals(regulation, lambda x: padded(x, n_terminals, 1.0))
    bed = Microcirculation(
        _per_entry(bed.beta_source, n_cells),
        _per_entry(bed.beta_sink, n_cells),
        pad_permeability(bed.permeability, tissue.mesh),
        bed.pressure_sink,
        _per_entry(bed.dilation, n_terminals),
    )
    return eqx.tree_at(
        lambda p: (p.tissue, p.microcirculation, p.autoregulation),
        vessels,
        (tissue, bed, regulation),
        is_leaf=lambda x: x is None,
    )


def _pad_tissue(tissue: Tissue, network: VascularNetwork) -> Tissue:
    mesh = pad_problem(tissue.mesh)
    n_pairs, n_terminals = (bucket_size(x.shape[0]) for x in (tissue.cell, tissue.terminal_node))
    node = np.asarray(tissue.terminal_node)
    return Tissue(
        mesh,
        cell=padded(tissue.cell, n_pairs, mesh.graph.n_cells - 1),
        terminal=padded(tissue.terminal, n_pairs, n_terminals - 1),
        overlap=padded(tissue.overlap, n_pairs, 0.0),
        terminal_node=padded(node, n_terminals, network.n_nodes - 1),
        density=_per_entry(tissue.density, mesh.graph.n_cells),
    )


def _per_entry(x: Array, n: int) -> Array:
    return x if x.ndim == 0 else padded(x, n, 1.0)


def _map_terminals(
    regulation: Autoregulation, function: Callable[[Array], Array]
) -> Autoregulation:
    """A function of the values that a law has for each terminal."""
    each = lambda x: x if x.ndim == 0 else function(x)
    return Autoregulation(
        each(regulation.flow_target),
        each(regulation.dilation_max),
        each(regulation.dilation_min),
        regulation.sharpness,
    )


def sanitised_perfusion(problem: PerfusionProblem) -> PerfusionProblem:
    """A problem whose padded entries are harmless, whatever stood there."""
    real, tissue = problem.network.real, problem.tissue
    graph = tissue.mesh.graph
    if real is None or graph.real is None:
        return problem
    vessels = sanitised_vessels(problem)
    cell = is_real(graph.real.cell, graph.n_cells)
    terminal = tissue.terminal_node < real.node
    bed, regulation = problem.microcirculation, problem.autoregulation
    if regulation is not None:
        regulation = _map_terminals(regulation, lambda x: kept(x, terminal, 1.0))
    each = lambda x, mask: x if x.ndim == 0 else kept(x, mask, 1.0)
    return eqx.tree_at(
        lambda p: (
            p.tissue.mesh,
            p.tissue.overlap,
            p.tissue.density,
            p.microcirculation,
            p.autoregulation,
        ),
        vessels,
        (
            sanitised_mesh(tissue.mesh),
            kept(tissue.overlap, tissue.cell < graph.real.cell, 0.0),
            each(tissue.density, cell),
            Microcirculation(
                each(bed.beta_source, cell),
                each(bed.beta_sink, cell),
                sanitised_permeability(bed.permeability, tissue.mesh),
                bed.pressure_sink,
                each(bed.dilation, terminal),
            ),
            regulation,
        ),
        is_leaf=lambda x: x is None,
    )
