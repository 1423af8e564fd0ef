"""VTK XML files: reading with errors that reach the caller."""

import logging
import os
from typing import Any

import numpy as np

from .._misc import InputError
from ._files import check_suffix, readable_file, replacing


def read_vtk(path: str | os.PathLike, suffix: tuple[str, ...], kind: str, expected: str) -> Any:
    """The data set in a VTK file.

    VTK reports a broken file on the standard error stream and returns an empty data set; here
    its first complaint becomes an error.

    **Arguments:** `suffix`, such as `.vtp`, any of them; `kind`, the VTK class the file must hold;
    `expected`, what the file should hold, in words.

    **Returns:** the data set, of pyvista.

    **Errors:** [`InputError`][] where the file is missing, broken, or holds another class.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    jp.io.write_tree("tree.vtp", tree)
    lines = jp.io.read_vtk("tree.vtp", (".vtp",), "PolyData", "a tree").lines
    ```
    """
    import pyvista
    from vtkmodules.vtkCommonCore import vtkLogger

    path = check_suffix(readable_file(path, expected), suffix)
    # pyvista repeats what VTK says in the root logger
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    verbosity = vtkLogger.GetCurrentVerbosityCutoff()
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_OFF)
    try:
        with pyvista.VtkErrorCatcher(raise_errors=True, send_to_logging=False):
            data = pyvista.read(path)
    except (RuntimeError, ValueError) as error:
        complaint = next((line for line in str(error).splitlines() if "vtk" in line[:8]), "")
        raise InputError(
            f"VTK cannot read it ({complaint.partition('): ')[2] or 'no reason given'})",
            where=str(path),
            expected=expected,
            fix="Check that the file is complete, or export it again",
        ) from error
    finally:
        vtkLogger.SetStderrVerbosity(verbosity)
        logging.disable(disabled)
    if type(data).__name__ != kind:
        raise InputError(
            f"it holds a {type(data).__name__}",
            where=str(path),
            expected=expected,
            fix="Choose the reader for this kind of data",
        )
    return data


def save_vtk(path: str | os.PathLike, suffix: str, data: Any, frame: str) -> None:
    """Write a data set under a temporary name, then give it its own.

    The frame of the coordinates and their unit are kept as field data. VTK writes into memory:
    where the disk is full, its own file writer ends the process.
    """
    from vtkmodules.vtkIOXML import vtkXMLPolyDataWriter, vtkXMLUnstructuredGridWriter

    data.field_data["frame"] = [frame]
    data.field_data["length_unit"] = ["mm"]
    with replacing(check_suffix(path, (suffix,))) as temporary:
        kind = {".vtp": vtkXMLPolyDataWriter, ".vtu": vtkXMLUnstructuredGridWriter}[suffix]
        writer = kind()
        writer.SetInputData(data)
        writer.SetDataModeToBinary()
        writer.SetWriteToOutputString(True)
        writer.Write()
        temporary.write_text(writer.GetOutputString(), encoding="utf-8")


def add_array(data: Any, name: str, values: Any, on: str) -> None:
    """Add an array to the points or the cells; strings are kept as strings."""
    values = np.asarray(values)
    if values.dtype == np.bool_:
        values = values.astype(np.uint8)
    (data.point_data if on == "point" else data.cell_data)[name] = values
