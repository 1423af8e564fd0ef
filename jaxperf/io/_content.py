"""What stands in images, tables and VTK files, without what a reader makes of it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ._images import image_data, image_unit, load_image
from ._tables import read_table
from ._vtk import read_vtk

# More values than this are measured and no labels.
_MOST_LABELS = 64


@dataclass(frozen=True)
class ImageContent:
    """The voxels of an image; `affine` in m, RAS; `unit` of length of the file.

    `is_labels`: whether all values are whole numbers, and few.
    """

    values: np.ndarray
    affine: Float[np.ndarray, "4 4"]
    unit: str
    description: str
    is_labels: bool


def image_content(path: str | os.PathLike, units: str | None) -> ImageContent:
    """The content of a NIfTI image; `units` of length where its header does not state them.

    **Errors:** [`InputError`][] naming the file, of a header or voxels that cannot be read.
    """
    image = load_image(path)
    unit = image_unit(image, units, str(path))
    values = image_data(image, str(path))
    affine = np.array(image.affine, np.float64)
    affine[:3] *= unit
    finite = values[np.isfinite(values)]
    whole = bool(finite.size) and bool((finite == np.rint(finite)).all())
    description = bytes(image.header["descrip"]).rstrip(b"\0").decode("ascii", "replace").strip()
    stated = image.header.get_xyzt_units()[0]
    return ImageContent(
        values,
        affine,
        f"{units} (not stated by the header)" if stated == "unknown" else stated,
        description,
        whole and len(np.unique(finite)) <= _MOST_LABELS,
    )


def table_content(
    path: str | os.PathLike, columns: tuple[str, ...]
) -> tuple[list[str], int, dict[str, list[float]]]:
    """The columns of a table, its number of rows, and the ranges of its columns of numbers.

    **Errors:** [`InputError`][] naming the file.
    """
    table = read_table(path, columns)
    ranges: dict[str, list[float]] = {}
    for name in table.columns:
        try:
            values = [float(row.text[name]) for row in table.rows]
        except ValueError:
            continue
        if values:
            ranges[name] = [min(values), max(values)]
    return table.columns, len(table.rows), ranges


def stated_in_table(path: str | os.PathLike, columns: tuple[str, ...]) -> dict[str, str]:
    """The frame and the unit that a table of segments states.

    **Errors:** [`InputError`][] naming the file.
    """
    rows = read_table(path, columns).rows
    return {"length_unit": "mm"} | ({"frame": rows[0].text["frame"]} if rows else {})


def stated_in_vtk(path: str | os.PathLike) -> dict[str, Any]:
    """What a VTK file of ours states, `frame` and `length_unit`, and the ranges of its `arrays`.

    **Errors:** [`InputError`][] naming the file where VTK cannot read it.
    """
    is_lines = Path(path).suffix.lower() in (".vtp", ".vtk")
    kind = "PolyData" if is_lines else "UnstructuredGrid"
    data = read_vtk(path, (".vtp", ".vtk", ".vtu"), kind, f"a VTK file that holds a {kind}")
    stated = {
        key: str(data.field_data[key][0])
        for key in ("frame", "length_unit")
        if key in data.field_data.keys()  # noqa: SIM118
    }
    arrays: dict[str, list[float]] = {}
    for held in (data.point_data, data.cell_data):
        for name in held.keys():  # noqa: SIM118
            values = np.asarray(held[name])
            if values.dtype.kind in "iufb" and values.size:
                arrays[name] = [float(np.nanmin(values)), float(np.nanmax(values))]
    return {**stated, "arrays": arrays}
