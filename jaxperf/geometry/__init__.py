"""Geometry of the left ventricle, tissue meshes and terminal regions. Points in, arrays out."""

from ._aha import AHA17_NAME as AHA17_NAME
from ._aha import aha17 as aha17
from ._ellipsoid import EllipsoidLV as EllipsoidLV
from ._ellipsoid import ellipsoid_ventricle as ellipsoid_ventricle
from ._frame import LVFrame as LVFrame
from ._frame import lv_frame_from_labels as lv_frame_from_labels
from ._frame import lv_frame_from_points as lv_frame_from_points
from ._kuhn import kuhn_tetrahedra as kuhn_tetrahedra
from ._kuhn import tetrahedra_from_voxels as tetrahedra_from_voxels
from ._mesh import AbstractMesh as AbstractMesh
from ._mesh import BoundaryFaces as BoundaryFaces
from ._mesh import Quadrature as Quadrature
from ._regions import Regions as Regions
from ._regions import power_owner as power_owner
from ._regions import terminal_regions as terminal_regions
from ._regions import territory_of_cells as territory_of_cells
from ._tet import TetMesh as TetMesh
from ._tet import build_tet_mesh as build_tet_mesh
from ._transmural import classify_boundary as classify_boundary
from ._transmural import depth_between as depth_between
from ._transmural import fibre_direction as fibre_direction
from ._transmural import local_axes as local_axes
from ._transmural import transmural_depth as transmural_depth
from ._voxel import FacePairs as FacePairs
from ._voxel import VoxelMesh as VoxelMesh
from ._voxel import build_voxel_mesh as build_voxel_mesh
