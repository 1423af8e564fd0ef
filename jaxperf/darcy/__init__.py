"""Darcy flow in the ventricular wall: one control-volume operator on a graph for every mesh."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._assembly import (
        check_permeability as check_permeability,
        darcy_mesh as darcy_mesh,
        TetDarcyMesh as TetDarcyMesh,
        transversely_isotropic as transversely_isotropic,
        VoxelDarcyMesh as VoxelDarcyMesh,
    )
    from ._boundary import (
        darcy_problem as darcy_problem,
        darcy_surface as darcy_surface,
        DarcySurface as DarcySurface,
        DirichletFaces as DirichletFaces,
        NeumannFaces as NeumannFaces,
        RobinFaces as RobinFaces,
    )
    from ._krylov import KrylovSolution as KrylovSolution, solve_krylov as solve_krylov
    from ._mesh import AbstractDarcyMesh as AbstractDarcyMesh
    from ._multigrid import fenced as fenced, Multigrid as Multigrid, multigrid as multigrid
    from ._operator import (
        build_darcy_graph as build_darcy_graph,
        darcy_operator as darcy_operator,
        DarcyGraph as DarcyGraph,
        DarcyOperator as DarcyOperator,
    )
    from ._padding import (
        pad_permeability as pad_permeability,
        sanitised_mesh as sanitised_mesh,
        sanitised_permeability as sanitised_permeability,
    )
    from ._rows import build_pattern as build_pattern, Pattern as Pattern, Rows as Rows
    from ._solver import (
        AbstractDarcySolver as AbstractDarcySolver,
        conjugate_gradient_solution as conjugate_gradient_solution,
        ConjugateGradient as ConjugateGradient,
        DarcyProblem as DarcyProblem,
        DarcySolution as DarcySolution,
        fixed_cost_solution as fixed_cost_solution,
        solve_darcy as solve_darcy,
    )
    from ._tensor import VoxelTensorDarcyMesh as VoxelTensorDarcyMesh
    from ._transient import (
        darcy_state as darcy_state,
        darcy_term as darcy_term,
        DarcyRate as DarcyRate,
        DarcySDIRK2 as DarcySDIRK2,
        DarcyState as DarcyState,
    )
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
