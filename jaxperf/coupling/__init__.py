"""Network and tissue as one problem: the only room that knows both sides."""

from ._bed import condense_bed as condense_bed, CondensedBed as CondensedBed
from ._calibrate import calibrate as calibrate, Calibration as Calibration
from ._part import transient_segments as transient_segments
from ._problem import (
    Autoregulation as Autoregulation,
    Microcirculation as Microcirculation,
    perfused_tissue as perfused_tissue,
    PerfusionProblem as PerfusionProblem,
    Tissue as Tissue,
)
from ._solve import (
    perfusion_failure as perfusion_failure,
    perfusion_system as perfusion_system,
    PerfusionSolution as PerfusionSolution,
    solve_perfusion as solve_perfusion,
)
from ._system import (
    Exchange as Exchange,
    exchange as exchange,
    initial_perfusion as initial_perfusion,
    PerfusionState as PerfusionState,
    PerfusionSystem as PerfusionSystem,
)
