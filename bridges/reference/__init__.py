"""A solver in torch of what jaxperf solves in JAX, written from the equations a second time.

It imports neither jaxperf nor JAX: values and gradients of either judge the other. Problems are
frozen dataclasses of tensors, everything is differentiable by torch, in the type and on the device
of what it is given. Equations: `docs/methods.md`, `docs/flow1d.md` and `docs/gnn.md`.
"""

from ._coupled import (
    Autoregulation as Autoregulation,
    Microcirculation as Microcirculation,
    PerfusionProblem as PerfusionProblem,
    PerfusionSolution as PerfusionSolution,
    solve_perfusion as solve_perfusion,
    Tissue as Tissue,
)
from ._darcy import (
    assemble as assemble,
    boundary_faces as boundary_faces,
    darcy_system as darcy_system,
    DarcyProblem as DarcyProblem,
    DarcySystem as DarcySystem,
    DirichletFaces as DirichletFaces,
    NeumannFaces as NeumannFaces,
    RobinFaces as RobinFaces,
    TetMesh as TetMesh,
    VoxelMesh as VoxelMesh,
)
from ._darcy_solve import DarcySolution as DarcySolution, solve_darcy as solve_darcy
from ._flow1d import (
    Flow1DSolution as Flow1DSolution,
    Flow1DState as Flow1DState,
    initial_state as initial_state,
    SavePoints as SavePoints,
    solve_flow1d as solve_flow1d,
)
from ._flow1d_problem import (
    CoronaryOutlet as CoronaryOutlet,
    ExternalPressure as ExternalPressure,
    flow1d_problem as flow1d_problem,
    Flow1DProblem as Flow1DProblem,
    FlowWaveform as FlowWaveform,
    PressureWaveform as PressureWaveform,
    ResistanceOutlet as ResistanceOutlet,
    Waveform as Waveform,
    WindkesselOutlet as WindkesselOutlet,
)
from ._laws import (
    Blood as Blood,
    ConstantStiffness as ConstantStiffness,
    ConstantViscosity as ConstantViscosity,
    OlufsenStiffness as OlufsenStiffness,
    PriesViscosity as PriesViscosity,
    RigidWall as RigidWall,
    SqrtAreaWall as SqrtAreaWall,
    SvOneDWall as SvOneDWall,
)
from ._steady import (
    cycle_mean as cycle_mean,
    Lesions as Lesions,
    Network as Network,
    solve_steady as solve_steady,
    SteadyBoundary as SteadyBoundary,
    SteadyProblem as SteadyProblem,
    SteadySolution as SteadySolution,
)
