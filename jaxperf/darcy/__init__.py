"""Darcy flow in the ventricular wall: one control-volume operator on a graph for every mesh."""

from ._assembly import AbstractDarcyMesh as AbstractDarcyMesh
from ._assembly import TetDarcyMesh as TetDarcyMesh
from ._assembly import VoxelDarcyMesh as VoxelDarcyMesh
from ._assembly import check_permeability as check_permeability
from ._assembly import darcy_mesh as darcy_mesh
from ._assembly import transversely_isotropic as transversely_isotropic
from ._krylov import KrylovSolution as KrylovSolution
from ._krylov import solve_krylov as solve_krylov
from ._operator import DarcyGraph as DarcyGraph
from ._operator import DarcyOperator as DarcyOperator
from ._operator import build_darcy_graph as build_darcy_graph
from ._operator import darcy_operator as darcy_operator
from ._solver import AbstractDarcySolver as AbstractDarcySolver
from ._solver import ConjugateGradient as ConjugateGradient
from ._solver import DarcyProblem as DarcyProblem
from ._solver import DarcySolution as DarcySolution
from ._solver import solve_darcy as solve_darcy
