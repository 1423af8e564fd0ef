"""Vascular network: nodes, segments, lesions, boundary conditions, order of elimination."""

from ._boundary import (
    AbstractBoundary as AbstractBoundary,
    check_boundary as check_boundary,
    CoronaryOutletSvOneD as CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD as CoronaryOutletSvZeroD,
    FlowBoundary as FlowBoundary,
    FlowWaveform as FlowWaveform,
    PerfusedBed as PerfusedBed,
    PressureBoundary as PressureBoundary,
    PressureWaveform as PressureWaveform,
    quantity as quantity,
    ResistanceOutlet as ResistanceOutlet,
    WindkesselOutlet as WindkesselOutlet,
)
from ._forms import (
    Fed as Fed,
    Form as Form,
    Held as Held,
    JointDrain as JointDrain,
    Ladder as Ladder,
)
from ._lesion import (
    declare_lesion as declare_lesion,
    InsideJunction as InsideJunction,
    junctions_in_lesions as junctions_in_lesions,
    without_lesions as without_lesions,
)
from ._lumped import (
    AnyNetwork as AnyNetwork,
    build_lumped as build_lumped,
    LumpedNetwork as LumpedNetwork,
)
from ._narrowing import (
    Narrowing as Narrowing,
    undeclared_narrowings as undeclared_narrowings,
)
from ._network import (
    branch_course as branch_course,
    build_network as build_network,
    Lesions as Lesions,
    Place as Place,
    RealNetwork as RealNetwork,
    VascularNetwork as VascularNetwork,
    vessel_label as vessel_label,
)
from ._padding import (
    pad_boundary as pad_boundary,
    pad_network as pad_network,
    sanitised_boundary as sanitised_boundary,
    sanitised_network as sanitised_network,
)
from ._ranges import condition_ranges as condition_ranges, network_ranges as network_ranges
from ._reach import pieces_cut_off as pieces_cut_off
from ._territory import (
    downstream_sum as downstream_sum,
    parent_segment as parent_segment,
    vessel_territories as vessel_territories,
)
from ._topology import Topology as Topology
from ._vessel_name import (
    posterior_of_name as posterior_of_name,
    vessel_of_name as vessel_of_name,
)
from ._waveform import (
    at_time as at_time,
    cycle_mean as cycle_mean,
    Waveform as Waveform,
)
