"""Steady flow in vascular networks, and the Newton solver the coupling shares with it."""

from ._elimination import (
    factor_network as factor_network,
    NetworkFactor as NetworkFactor,
    SegmentLinearisation as SegmentLinearisation,
    solve_network as solve_network,
)
from ._lumped import (
    lumped_network as lumped_network,
    LumpedProblem as LumpedProblem,
    LumpedSolution as LumpedSolution,
    solve_lumped as solve_lumped,
)
from ._newton import (
    AbstractAdjoint as AbstractAdjoint,
    AbstractSystem as AbstractSystem,
    find_root as find_root,
    ImplicitAdjoint as ImplicitAdjoint,
    LinearStep as LinearStep,
    Newton as Newton,
    UnrolledAdjoint as UnrolledAdjoint,
)
from ._padding import pad_vessels as pad_vessels, sanitised_vessels as sanitised_vessels
from ._ranges import vessel_ranges as vessel_ranges
from ._solve import (
    solve_steady as solve_steady,
    SteadyProblem as SteadyProblem,
    SteadySolution as SteadySolution,
    worst_vessel as worst_vessel,
)
from ._system import (
    Boundary as Boundary,
    initial_state as initial_state,
    lesion_coefficients as lesion_coefficients,
    network_scale as network_scale,
    NetworkLaw as NetworkLaw,
    NetworkState as NetworkState,
    node_closure as node_closure,
    NodeClosure as NodeClosure,
    rounding_share as rounding_share,
)
