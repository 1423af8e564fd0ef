"""Geometry of the left ventricle, tissue meshes and terminal regions. Points in, arrays out."""

from ._aha import aha17 as aha17, AHA17_NAME as AHA17_NAME
from ._ellipsoid import ellipsoid_ventricle as ellipsoid_ventricle, EllipsoidLV as EllipsoidLV
from ._frame import (
    lv_frame_from_labels as lv_frame_from_labels,
    lv_frame_from_points as lv_frame_from_points,
    LVFrame as LVFrame,
)
from ._kuhn import (
    kuhn_tetrahedra as kuhn_tetrahedra,
    tetrahedra_from_voxels as tetrahedra_from_voxels,
)
from ._mesh import (
    AbstractMesh as AbstractMesh,
    BoundaryFaces as BoundaryFaces,
    Quadrature as Quadrature,
)
from ._openings import (
    cavity_openings as cavity_openings,
    CavityOpenings as CavityOpenings,
    Opening as Opening,
)
from ._refine import (
    mesh_quality as mesh_quality,
    MeshQuality as MeshQuality,
    refine_tetrahedra as refine_tetrahedra,
)
from ._regions import (
    power_owner as power_owner,
    Regions as Regions,
    terminal_regions as terminal_regions,
    territory_of_cells as territory_of_cells,
)
from ._surface import voxels_from_surface as voxels_from_surface
from ._tet import (
    boundary_triangles as boundary_triangles,
    build_tet_mesh as build_tet_mesh,
    TetMesh as TetMesh,
)
from ._tetrahedralise import (
    nearby_order as nearby_order,
    tetrahedra_from_surface as tetrahedra_from_surface,
)
from ._transmural import (
    classify_boundary as classify_boundary,
    depth_between as depth_between,
    fibre_direction as fibre_direction,
    local_axes as local_axes,
    transmural_depth as transmural_depth,
)
from ._voxel import (
    build_voxel_mesh as build_voxel_mesh,
    FacePairs as FacePairs,
    VoxelMesh as VoxelMesh,
)
