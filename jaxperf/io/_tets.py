"""Tetrahedral meshes in VTK unstructured grids."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._misc import check_frame, InputError
from ..geometry import build_tet_mesh, TetMesh
from ._frames import length_unit
from ._vtk import read_vtk

_EXPECTED = "a VTK unstructured grid (.vtu) of linear tetrahedra"
_TETRA = 10
_CELL_NAME = {1: "vertex", 3: "line", 5: "triangle", 12: "hexahedron", 13: "wedge", 14: "pyramid"}


@dataclass(frozen=True)
class TetFile:
    """A mesh with the arrays its file holds: `point_data` (c, …) and `cell_data` (m, …)."""

    mesh: TetMesh
    point_data: dict[str, np.ndarray]
    cell_data: dict[str, np.ndarray]


def read_tets(path: str | os.PathLike, *, units: str, frame: str) -> TetMesh:
    """Read a tetrahedral mesh; [`read_tets_with_data`][] without the arrays.

    **Example:**

    ```python
    import jaxperf as jp
    jp.io.write_perfusion("box.vtu", jp.geometry.kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02)))
    mesh = jp.io.read_tets("box.vtu", units="mm", frame="model")
    ```
    """
    return read_tets_with_data(path, units=units, frame=frame).mesh


def read_tets_with_data(path: str | os.PathLike, *, units: str, frame: str) -> TetFile:
    """Read a tetrahedral mesh with its point and cell arrays.

    **Arguments:**

    - `units`: unit of length of the file, `mm`, `cm`, `m` or `um`.
    - `frame`: frame of the coordinates, `LPS`, `RAS` or `model`.

    **Returns:** a [`TetFile`][] with the mesh in m. The cells keep their order; the vertices of a
    negatively oriented one are exchanged.

    **Errors:** [`InputError`][] naming the file: other cells than tetrahedra, a size that is not
    that of a heart, and what [`jaxperf.geometry.build_tet_mesh`][] refuses.

    **Example:**

    ```python
    import jaxperf as jp
    box = jp.geometry.kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02))
    jp.io.write_perfusion("box.vtu", box, height_m=box.point[:, 2])
    height = jp.io.read_tets_with_data("box.vtu", units="mm", frame="model").point_data["height_m"]
    ```
    """
    where = str(path)
    unit = length_unit(units, where)
    check_frame(frame, where)
    data = read_vtk(path, (".vtu",), "UnstructuredGrid", _EXPECTED)
    other = data.celltypes[data.celltypes != _TETRA]
    if len(other):
        kind = _CELL_NAME.get(int(other[0]), f"VTK type {other[0]}")
        raise InputError(
            f"{len(other)} of its {data.n_cells} cells are no tetrahedra, the first is a {kind}",
            where=where,
            expected=_EXPECTED,
            fix="Cut the cells into tetrahedra, and drop surface and line cells",
        )
    point = np.array(data.points, np.float64) * unit
    tet = np.array(data.cells, np.int64).reshape(-1, 5)[:, 1:]
    _check_size(point, units, where)
    mesh = build_tet_mesh(point, tet, frame=frame, where=where)
    return TetFile(mesh, _arrays(data.point_data), _arrays(data.cell_data))


def _arrays(data: Any) -> dict[str, np.ndarray]:
    return {name: np.array(data[name]) for name in data.keys()}  # noqa: SIM118


def _check_size(point: np.ndarray, units: str, where: str) -> None:
    """A ventricle measures between 1 cm (a mouse has less) and 0.5 m."""
    finite = point[np.isfinite(point).all(1)]
    extent = float(np.ptp(finite, axis=0).max()) if len(finite) else 0.0
    if len(finite) and not 0.01 <= extent <= 0.5:
        raise InputError(
            f"with units={units!r} the mesh is {extent:.4g} m wide",
            where=where,
            expected="a ventricle of 0.01 to 0.5 m",
            fix="Correct units",
        )
