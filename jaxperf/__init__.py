"""Differentiable coronary flow and myocardial perfusion."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import (
        anatomy as anatomy,
        casefile as casefile,
        coupling as coupling,
        darcy as darcy,
        flow1d as flow1d,
        geometry as geometry,
        growth as growth,
        inverse as inverse,
        io as io,
        jobs as jobs,
        network as network,
        observe as observe,
        plot as plot,
        report as report,
        steady as steady,
        study as study,
        units as units,
        vessel as vessel,
    )
    from ._cache import enable_compilation_cache as enable_compilation_cache
    from ._citation import citation as citation
    from ._misc import InputError as InputError
    from ._padding import cut_solution as cut_solution, pad_problem as pad_problem
    from ._progress import Progress as Progress
    from ._results import RESULTS as RESULTS, SolveError as SolveError
    from ._versions import __version__ as __version__
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
    from .flow1d import (
        flow1d_problem as flow1d_problem,
        Flow1DProblem as Flow1DProblem,
        Flow1DSolution as Flow1DSolution,
        PeriodicSolution as PeriodicSolution,
        SavePoints as SavePoints,
        solve_flow1d as solve_flow1d,
        solve_periodic as solve_periodic,
    )
    from .network import (
        build_network as build_network,
        declare_lesion as declare_lesion,
        FlowBoundary as FlowBoundary,
        FlowWaveform as FlowWaveform,
        PressureBoundary as PressureBoundary,
        PressureWaveform as PressureWaveform,
        ResistanceOutlet as ResistanceOutlet,
        VascularNetwork as VascularNetwork,
        Waveform as Waveform,
        WindkesselOutlet as WindkesselOutlet,
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
else:
    from ._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
