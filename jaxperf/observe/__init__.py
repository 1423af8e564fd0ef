"""What a clinic measures, from the arrays a solve returns. Knows no solver."""

from ._branches import (
    branch_summary as branch_summary,
    BranchSummary as BranchSummary,
    Pullback as Pullback,
    pullback as pullback,
)
from ._observe import Observations as Observations, observe as observe
from ._perfusion import segment_means as segment_means
from ._reserve import (
    coronary_flow_reserve as coronary_flow_reserve,
    fractional_flow_reserve as fractional_flow_reserve,
)
