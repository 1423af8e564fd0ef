"""Tetrahedral meshes in VTK unstructured grids."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._misc import check_frame, InputError, note
from ..geometry import build_tet_mesh, TetMesh
from ._frames import length_unit
from ._vtk import read_vtk

_EXPECTED = "a VTK unstructured grid (.vtu) of linear tetrahedra"
_TETRA = 10
# Voxels, hexahedra, wedges and pyramids.
_CUT = (11, 12, 13, 14)
_NO_VOLUME = ("vertex", "line", "polyline", "triangle", "quadrilateral", "polygon")
_CELL_NAME = {1: "vertex", 3: "line", 4: "polyline", 5: "triangle", 7: "polygon"}
_CELL_NAME |= {9: "quadrilateral", 11: "voxel", 12: "hexahedron", 13: "wedge", 14: "pyramid"}
_CELL_NAME |= {24: "quadratic tetrahedron"}


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

    **Returns:** a [`TetFile`][] with the mesh in m, of the volumes alone where the file has cells
    of surfaces, lines and points too. Tetrahedra keep their order; the vertices of a negatively
    oriented one are exchanged. Hexahedra, wedges and pyramids are cut into tetrahedra.

    **Errors:** [`InputError`][] naming the file: no cells of first order that fill a volume, a size
    that is not that of a heart, and what [`jaxperf.geometry.build_tet_mesh`][] refuses.

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
    data = _in_tetrahedra(read_vtk(path, (".vtu",), "UnstructuredGrid", _EXPECTED), where)
    is_tet = data.celltypes == _TETRA
    _refuse_volumes(data, where)
    tet = np.array(data.cells_dict.get(_TETRA, np.zeros((0, 4))), np.int64)
    used = np.arange(data.n_points)
    if not is_tet.all() and len(tet):
        # points that only the other cells have belong to no control volume
        used, tet = np.unique(tet, return_inverse=True)
        tet = tet.reshape(-1, 4).astype(np.int64)
    point = np.array(data.points, np.float64)[used] * unit
    _check_size(point, units, where)
    mesh = build_tet_mesh(point, tet, frame=frame, where=where)
    return TetFile(mesh, _arrays(data.point_data, used), _arrays(data.cell_data, is_tet))


def _in_tetrahedra(data: Any, where: str) -> Any:
    """The mesh with its hexahedra, wedges and pyramids cut, along the same diagonals on faces that
    two of them share."""
    kinds, count = np.unique(data.celltypes, return_counts=True)
    cut = {int(k): int(n) for k, n in zip(kinds, count, strict=True) if int(k) in _CUT}
    if not cut:
        return data
    said = ", ".join(f"{n} × {_CELL_NAME[kind]}" for kind, n in cut.items())
    note(f"its other volumes were cut into tetrahedra ({said})", where=where)
    return data.triangulate()


def _refuse_volumes(data: Any, where: str) -> None:
    """Say which surfaces, lines and points are left out; other volumes are refused."""
    other = data.celltypes[data.celltypes != _TETRA]
    if not len(other):
        return
    kinds, count = np.unique(other, return_counts=True)
    names = [_CELL_NAME.get(int(kind), f"cell of VTK type {kind}") for kind in kinds]
    said = ", ".join(f"{n} × {name}" for n, name in zip(count, names, strict=True))
    if len(other) == data.n_cells or not set(names) <= set(_NO_VOLUME):
        raise InputError(
            f"{len(other)} of its {data.n_cells} cells are no tetrahedra ({said})",
            where=where,
            expected=_EXPECTED,
            fix="Cut the cells into tetrahedra; the voxels of a label volume need no mesh file",
        )
    note(f"its tetrahedra were read and the other cells left out ({said})", where=where)


def _arrays(data: Any, kept: np.ndarray) -> dict[str, np.ndarray]:
    return {name: np.array(data[name])[kept] for name in data.keys()}  # noqa: SIM118


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
