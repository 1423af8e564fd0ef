"""Differentiable coronary flow and myocardial perfusion."""

from ._citation import citation as citation
from ._misc import InputError as InputError
from ._results import RESULTS as RESULTS
from .coupling import (
    Autoregulation as Autoregulation,
    calibrate as calibrate,
    Calibration as Calibration,
    Microcirculation as Microcirculation,
    perfused_tissue as perfused_tissue,
    PerfusionProblem as PerfusionProblem,
    PerfusionSolution as PerfusionSolution,
    solve_perfusion as solve_perfusion,
)
from .darcy import (
    AbstractDarcySolver as AbstractDarcySolver,
    ConjugateGradient as ConjugateGradient,
    darcy_mesh as darcy_mesh,
    darcy_operator as darcy_operator,
    DarcyProblem as DarcyProblem,
    DarcySolution as DarcySolution,
    solve_darcy as solve_darcy,
)
from .network import (
    build_network as build_network,
    declare_lesion as declare_lesion,
    FlowBoundary as FlowBoundary,
    PressureBoundary as PressureBoundary,
    ResistanceOutlet as ResistanceOutlet,
    VascularNetwork as VascularNetwork,
    without_lesions as without_lesions,
)
from .steady import (
    ImplicitAdjoint as ImplicitAdjoint,
    Newton as Newton,
    solve_steady as solve_steady,
    SteadyProblem as SteadyProblem,
    SteadySolution as SteadySolution,
    UnrolledAdjoint as UnrolledAdjoint,
)
from .vessel import (
    Blood as Blood,
    ConstantViscosity as ConstantViscosity,
    OlufsenStiffness as OlufsenStiffness,
    PriesViscosity as PriesViscosity,
    RigidWall as RigidWall,
    SqrtAreaWall as SqrtAreaWall,
)
