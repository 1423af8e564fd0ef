"""Transient one-dimensional flow in compliant vessels: finite volumes as a diffrax term."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._controller import CourantLimit as CourantLimit
    from ._grid import Grid as Grid, grid_vessel_label as grid_vessel_label, make_grid as make_grid
    from ._initial import initial_state as initial_state
    from ._periodic import PeriodicSolution as PeriodicSolution, solve_periodic as solve_periodic
    from ._points import SavePoints as SavePoints
    from ._problem import (
        ExternalPressure as ExternalPressure,
        flow1d_problem as flow1d_problem,
        Flow1DProblem as Flow1DProblem,
    )
    from ._resolution import Resolution as Resolution, resolution as resolution
    from ._semidiscretisation import (
        FlowState as FlowState,
        Semidiscretisation as Semidiscretisation,
        semidiscretise as semidiscretise,
    )
    from ._solve import (
        Flow1DSolution as Flow1DSolution,
        solve_flow1d as solve_flow1d,
    )
    from ._step import RelaxedHeun as RelaxedHeun
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
