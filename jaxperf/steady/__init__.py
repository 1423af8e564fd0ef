"""Steady flow in vascular networks, and the Newton solver the coupling shares with it."""

from ._elimination import NetworkFactor as NetworkFactor
from ._elimination import SegmentLinearisation as SegmentLinearisation
from ._elimination import factor_network as factor_network
from ._elimination import solve_network as solve_network
from ._newton import AbstractAdjoint as AbstractAdjoint
from ._newton import AbstractSystem as AbstractSystem
from ._newton import ImplicitAdjoint as ImplicitAdjoint
from ._newton import LinearStep as LinearStep
from ._newton import Newton as Newton
from ._newton import UnrolledAdjoint as UnrolledAdjoint
from ._newton import find_root as find_root
from ._solve import SteadyProblem as SteadyProblem
from ._solve import SteadySolution as SteadySolution
from ._solve import solve_steady as solve_steady
from ._system import Boundary as Boundary
from ._system import NetworkLaw as NetworkLaw
from ._system import NetworkState as NetworkState
from ._system import NodeClosure as NodeClosure
from ._system import initial_state as initial_state
from ._system import network_scale as network_scale
from ._system import node_closure as node_closure
