"""What stands in images, tables and VTK files, without what a reader makes of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from ._files import read_lines
from ._images import image_data, image_unit, load_image
from ._line_radius import radius_array_of
from ._tables import read_table
from ._vtk import read_vtk
from ._writers import TREE_ARRAYS
from ._written import is_written

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


@dataclass(frozen=True)
class Ranges:
    """The smallest and the largest finite value of each array of numbers.

    `n_not_finite`: values that are NaN or infinite, of all of them.
    """

    of: dict[str, list[float]]
    n_not_finite: int


def _ranges(arrays: Mapping[str, np.ndarray]) -> Ranges:
    finite = {name: values[np.isfinite(values)] for name, values in arrays.items()}
    return Ranges(
        {name: [float(x.min()), float(x.max())] for name, x in finite.items() if x.size},
        sum(values.size - finite[name].size for name, values in arrays.items()),
    )


def table_content(
    path: str | os.PathLike, columns: tuple[str, ...]
) -> tuple[list[str], int, Ranges]:
    """The columns of a table, its number of rows, and the ranges of its columns of numbers.

    **Errors:** [`InputError`][] naming the file.
    """
    table = read_table(path, columns)
    arrays: dict[str, np.ndarray] = {}
    for name in table.columns:
        try:
            arrays[name] = np.array([float(row.text[name]) for row in table.rows])
        except ValueError:
            continue
    return table.columns, len(table.rows), _ranges(arrays)


def stated_in_table(path: str | os.PathLike, columns: tuple[str, ...]) -> dict[str, str]:
    """The frame and the unit that a table of segments states.

    **Errors:** [`InputError`][] naming the file.
    """
    rows = read_table(path, columns).rows
    return {"length_unit": "mm"} | ({"frame": rows[0].text["frame"]} if rows else {})


def stated_in_vtk(path: str | os.PathLike) -> dict[str, Any]:
    """What a VTK file of ours states, `frame` and `length_unit`, and the `Ranges` of its `arrays`.

    **Errors:** [`InputError`][] naming the file where VTK cannot read it.
    """
    data = _vtk(path)
    stated = {
        key: str(data.field_data[key][0])
        for key in ("frame", "length_unit")
        if key in data.field_data.keys()  # noqa: SIM118
    }
    arrays = {
        name: np.asarray(held[name])
        for held in (data.point_data, data.cell_data)
        for name in held.keys()  # noqa: SIM118
    }
    numbers = {name: x for name, x in arrays.items() if x.dtype.kind in "iufb"}
    return {**stated, "arrays": _ranges(numbers)}


def _vtk(path: str | os.PathLike) -> Any:
    is_lines = Path(path).suffix.lower() in (".vtp", ".vtk")
    kind = "PolyData" if is_lines else "UnstructuredGrid"
    return read_vtk(path, (".vtp", ".vtk", ".vtu"), kind, f"a VTK file that holds a {kind}")


def beside_a_tree(path: str | os.PathLike, columns: tuple[str, ...]) -> list[str]:
    """What the file of a tree holds and no network has, such as results of a run, in words.

    **Arguments:** `columns`, that a table of segments has.

    **Errors:** [`InputError`][] naming the file.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".swc":
        rows = [line.split("#")[0].split() for line in read_lines(path, "an SWC file")]
        return ["the types of its points"] if any(float(row[1]) for row in rows if row) else []
    if columns:
        what, names, read = "column", read_table(path, columns).columns, {*columns}
    else:
        data, what = _vtk(path), "array"
        names = [*data.point_data.keys(), *data.cell_data.keys(), *data.field_data.keys()]
        read = {*TREE_ARRAYS} if is_written(data) else {radius_array_of(data, str(path))}
        read |= {"frame", "length_unit"}
    return [f"the {what} {name}" for name in names if name not in read]
