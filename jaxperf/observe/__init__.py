"""What a clinic measures, from the arrays a solve returns. Knows no solver."""

from ._branches import branch_summary as branch_summary, BranchSummary as BranchSummary
from ._noise import PETNoise as PETNoise
from ._observe import Observations as Observations, observe as observe
from ._perfusion import segment_means as segment_means
from ._pet import (
    pet_polar as pet_polar,
    pet_segments as pet_segments,
    pet_voxels as pet_voxels,
    PETOperator as PETOperator,
)
from ._reserve import (
    coronary_flow_reserve as coronary_flow_reserve,
    fractional_flow_reserve as fractional_flow_reserve,
)
from ._tracer import (
    AbstractTracer as AbstractTracer,
    Ammonia13N as Ammonia13N,
    pet_flow as pet_flow,
    Rubidium82 as Rubidium82,
    Water15O as Water15O,
)
from ._wire import (
    pressure_wire as pressure_wire,
    PressureWire as PressureWire,
    pull_back as pull_back,
    PullBack as PullBack,
    territory_flow as territory_flow,
    TerritoryFlow as TerritoryFlow,
)
