"""Graph networks in torch_geometric; apart from the rest, which does without it."""

from ._cycle import (
    Aggregation as Aggregation,
    flux_cycle as flux_cycle,
    FluxCycle as FluxCycle,
    FluxProblem as FluxProblem,
    FluxSolution as FluxSolution,
    solve_flux as solve_flux,
)
from ._networks import (
    FiniteVolumeNetwork as FiniteVolumeNetwork,
    FluxCoefficients as FluxCoefficients,
    FluxNetwork as FluxNetwork,
    residual_loss as residual_loss,
)
