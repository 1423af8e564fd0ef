"""Vascular network: nodes, segments, lesions, boundary conditions, order of elimination."""

from ._boundary import AbstractBoundary as AbstractBoundary
from ._boundary import CoronaryOutletSvOneD as CoronaryOutletSvOneD
from ._boundary import CoronaryOutletSvZeroD as CoronaryOutletSvZeroD
from ._boundary import FlowBoundary as FlowBoundary
from ._boundary import PressureBoundary as PressureBoundary
from ._boundary import ResistanceOutlet as ResistanceOutlet
from ._lesion import Narrowing as Narrowing
from ._lesion import branch_course as branch_course
from ._lesion import declare_lesion as declare_lesion
from ._lesion import undeclared_narrowings as undeclared_narrowings
from ._lesion import without_lesions as without_lesions
from ._network import Lesions as Lesions
from ._network import VascularNetwork as VascularNetwork
from ._network import build_network as build_network
from ._network import vessel_label as vessel_label
from ._topology import Topology as Topology
