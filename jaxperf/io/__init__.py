"""Readers and writers: trees, tissue meshes, svOneDSolver and openBF cases, results."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._centerlines import read_centerlines as read_centerlines
    from ._content import (
        beside_a_tree as beside_a_tree,
        image_content as image_content,
        Ranges as Ranges,
        stated_in_table as stated_in_table,
        stated_in_vtk as stated_in_vtk,
        table_content as table_content,
    )
    from ._files import replacing as replacing
    from ._formats import (
        Format as Format,
        QUANTITIES as QUANTITIES,
        reader_of as reader_of,
        READERS as READERS,
        writer_of as writer_of,
        WRITERS as WRITERS,
    )
    from ._frames import (
        LENGTH_UNIT as LENGTH_UNIT,
        mesh_in_frame as mesh_in_frame,
        network_in_frame as network_in_frame,
        to_frame as to_frame,
    )
    from ._images import read_voxel_labels as read_voxel_labels, write_nifti as write_nifti
    from ._measurements import (
        FFRReading as FFRReading,
        read_ffr as read_ffr,
        read_segments as read_segments,
    )
    from ._network_files import (
        read_network_table as read_network_table,
        write_network_table as write_network_table,
        write_swc as write_swc,
    )
    from ._openbf import OpenBFCase as OpenBFCase, read_openbf as read_openbf
    from ._pet import (
        check_overlap as check_overlap,
        PETImage as PETImage,
        read_pet as read_pet,
    )
    from ._resample import sample_on_grid as sample_on_grid, sampling_grid as sampling_grid
    from ._svoned import (
        read_svoned as read_svoned,
        SvOneDCase as SvOneDCase,
        SvOneDMaterial as SvOneDMaterial,
    )
    from ._svzerod import (
        read_svzerod as read_svzerod,
        SvZeroDCase as SvZeroDCase,
        ZERO_D_UNITS as ZERO_D_UNITS,
    )
    from ._svzerod_writer import write_svzerod as write_svzerod
    from ._swc import read_swc as read_swc
    from ._tets import (
        read_tets as read_tets,
        read_tets_with_data as read_tets_with_data,
        TetFile as TetFile,
    )
    from ._vtk import read_vtk as read_vtk
    from ._waveforms import read_waveform as read_waveform
    from ._writers import (
        json_text as json_text,
        write_csv as write_csv,
        write_json as write_json,
        write_perfusion as write_perfusion,
        write_tree as write_tree,
    )
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
