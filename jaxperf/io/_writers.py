"""Results: trees and tissue for ParaView, tables and summaries; every file appears at once."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from .._misc import InputError
from ..geometry import TetMesh, VoxelMesh
from ..network import VascularNetwork
from ..units import M_PER_MM
from ._files import replacing
from ._vtk import add_array, save_vtk

# Corners of a hexahedron in VTK's order, in voxels from its lowest corner.
_HEXAHEDRON = np.array(
    [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]]
)


# Those that every tree has, which are read back as its network.
TREE_ARRAYS = ("radius_mm", "length_mm", "segment", "vessel", "branch", "branch_name")


def write_tree(path: str | os.PathLike, network: VascularNetwork, **arrays: Any) -> None:
    """Write a network as VTK PolyData (.vtp), mm, one line for each segment.

    Each segment has its own two points, so that steps of calibre and of static pressure at a
    node are kept. `radius_mm` (points), `length_mm`, `segment`, `vessel`, `branch` and
    `branch_name` (lines) are always written.

    **Arguments:** `arrays`: named with their unit, such as `flow_ml_min` (s,) for the lines,
    `pressure_total_mmHg` (n,) at the nodes or `pressure_static_mmHg` (s, 2) at the ends of the
    segments.

    **Errors:** [`InputError`][] naming an array that fits neither.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    jp.io.write_tree("tree.vtp", tree, mean_radius_mm=1e3 * tree.radius.mean(axis=1))
    ```
    """
    import pyvista

    segment = np.asarray(network.segment_node)
    n = len(segment)
    point = np.asarray(network.node_position, np.float64)[segment.ravel()] / M_PER_MM
    line = np.concatenate([np.full((n, 1), 2), np.arange(2 * n).reshape(n, 2)], axis=1)
    data = pyvista.PolyData(point, lines=line.ravel())
    branch = np.asarray(network.branch)
    own = {
        "radius_mm": np.asarray(network.radius) / M_PER_MM,
        "length_mm": np.asarray(network.length) / M_PER_MM,
        "segment": np.arange(n),
        "vessel": np.asarray(network.topology.vessel),
        "branch": branch,
        "branch_name": np.array(network.branch_name)[branch],
    }
    for name, values in {**own, **arrays}.items():
        _add_tree_array(data, name, np.asarray(values), network, segment, str(path))
    save_vtk(path, ".vtp", data, network.frame)


def _add_tree_array(
    data: Any,
    name: str,
    values: np.ndarray,
    network: VascularNetwork,
    segment: Int[np.ndarray, "s 2"],
    where: str,
) -> None:
    n, s = network.n_nodes, network.n_segments
    if values.shape == (s, 2):
        add_array(data, name, values.ravel(), "point")
    elif values.shape[:1] == (s,) and n != s:
        add_array(data, name, values, "cell")
    elif values.shape[:1] == (n,) and n != s:
        add_array(data, name, values[segment.ravel()], "point")
    else:
        raise InputError(
            f"the array {name} has shape {values.shape}",
            where=where,
            expected=f"({s},) for segments, ({s}, 2) for their ends or ({n},) for nodes"
            + (", which cannot be told apart here" if n == s else ""),
            fix="Pass the values at the ends of the segments",
        )


def write_perfusion(path: str | os.PathLike, mesh: VoxelMesh | TetMesh, **arrays: Any) -> None:
    """Write a tissue mesh as a VTK unstructured grid (.vtu), mm, with its fields.

    Voxels become hexahedra that share their corners, and tetrahedra stay what they are.

    **Arguments:** `arrays`: named with their unit, such as `mbf_ml_min_g`; (c, …) for the control
    volumes (the cells of a voxel mesh, the points of a tetrahedral one), or (m, …) for the
    tetrahedra.

    **Errors:** [`InputError`][] naming an array that fits neither.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    jp.io.write_perfusion("wall.vtu", mesh, segment=jp.geometry.aha17(mesh.centre, frame))
    ```
    """
    import pyvista

    if isinstance(mesh, TetMesh):
        point, cell, kind = mesh.point, mesh.tet, pyvista.CellType.TETRA
        on = {mesh.n_cells: "point", len(mesh.tet): "cell"}
        ambiguous = mesh.n_cells == len(mesh.tet)
    else:
        point, cell = _hexahedra(mesh)
        kind, ambiguous = pyvista.CellType.HEXAHEDRON, False
        on = {mesh.n_cells: "cell"}
    data = pyvista.UnstructuredGrid({kind: cell}, point / M_PER_MM)
    for name, value in arrays.items():
        values = np.asarray(value)
        size = values.shape[0] if values.ndim else -1
        if size not in on or ambiguous:
            raise InputError(
                f"the array {name} has shape {values.shape}",
                where=str(path),
                expected=f"a first axis of {' or '.join(str(s) for s in on)}",
                fix="Pass one entry for each control volume",
            )
        add_array(data, name, values, on[size])
    save_vtk(path, ".vtu", data, mesh.frame)


def _hexahedra(mesh: VoxelMesh) -> tuple[np.ndarray, np.ndarray]:
    corner = mesh.cell_ijk[:, None, :] + _HEXAHEDRON[None, :, :]
    if np.linalg.det(mesh.affine[:3, :3]) < 0:
        # a left-handed grid turns hexahedra inside out
        corner = corner[:, [4, 5, 6, 7, 0, 1, 2, 3]]
    size = tuple(n + 1 for n in mesh.shape)
    key = np.ravel_multi_index(tuple(np.moveaxis(corner, -1, 0)), size)
    used, cell = np.unique(key, return_inverse=True)
    ijk = np.stack(np.unravel_index(used, size), axis=1) - 0.5
    return mesh.position(ijk), cell.reshape(-1, 8)


def write_csv(
    path: str | os.PathLike, rows: Sequence[Mapping[str, Any]], *, digits: int = 6
) -> None:
    """Write rows as CSV (RFC 4180, UTF-8); the first row's keys are the header.

    **Arguments:** `digits`, significant ones of a number: six, as no solve and no measurement knows
    more; 17 return a number as it was.

    **Errors:** [`InputError`][] where there are no rows, or a row has other keys.

    **Example:**

    ```python
    import jaxperf as jp
    jp.io.write_csv("flow.csv", [{"branch": "LAD", "flow_ml_min": 52.0}])
    ```
    """
    header = list(rows[0]) if rows else []
    for i, row in enumerate(rows):
        if list(row) != header:
            raise InputError(
                f"row {i} has the columns {', '.join(map(str, row))}",
                where=str(path),
                expected=", ".join(map(str, header)),
                fix="Give every row the same columns in the same order",
            )
    if not header:
        raise InputError(
            "there are no rows", where=str(path), expected="at least one", fix="Pass rows"
        )
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header)
        writer.writeheader()
        writer.writerows({k: _cell(value, digits) for k, value in row.items()} for row in rows)


def _cell(value: Any, digits: int) -> Any:
    plain = _plain(value)
    return float(f"{plain:.{digits}g}") if isinstance(plain, float) else plain


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write JSON: the text of `json_text`.

    **Example:**

    ```python
    import jaxperf as jp
    jp.io.write_json("flow.json", {"LAD": {"flow_ml_min": 52.0}})
    ```
    """
    with replacing(path) as temporary:
        temporary.write_text(json_text(content) + "\n", encoding="utf-8")


def json_text(content: Mapping[str, Any]) -> str:
    """JSON (RFC 8259) of numbers, arrays and paths.

    Arrays become lists. JSON has no NaN and no infinity: they are written as null.
    """
    return json.dumps(_plain(content), indent=2, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Python's own types for what JSON and CSV do not know."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
