"""Meshes, operators and sparse rows padded to buckets: see `jaxperf._padding`.

The last control volume of a padded graph is always a padded one, and so is the last edge. Padded
edges join it to itself and conduct nothing; a padded control volume has volume 1, no neighbour,
and a sink (see `darcy_operator`), so that its pressure is 0.
"""

from collections.abc import Sequence
from typing import TypeVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float

from .._custom_types import as_leaf
from .._padding import (
    bucket_size,
    coarse_size,
    count_leaf,
    is_real,
    kept,
    pad_problem,
    padded,
    refuse_padded,
)
from ._assembly import TetDarcyMesh, VoxelDarcyMesh
from ._mesh import AbstractDarcyMesh
from ._operator import DarcyGraph, RealGraph
from ._rows import Pattern, Rows, Transfer
from ._tensor import VoxelTensorDarcyMesh

Mesh = TypeVar("Mesh", bound=AbstractDarcyMesh)


def pad_rows(rows: Rows, n: int) -> tuple[Rows, tuple[tuple[int, int], ...]]:
    """Rows padded to n.

    A single block keeps its width up to 8 and goes to a bucket beyond. How several blocks divide
    the rows differs from mesh to mesh: theirs are coarse sizes, that meshes still share.

    **Returns:** the rows, and the shapes of their blocks, for what is laid out like them.
    """
    shapes = []
    for block, column in enumerate(rows.column):
        width, length = column.shape if block < rows.n_narrow else column.shape[::-1]
        if rows.place is None:
            width, length = bucket_size(width), n
        else:
            # One more, so that padded rows have an empty one to be.
            width, length = coarse_size(width), coarse_size(length + 1)
        shapes.append((width, length) if block < rows.n_narrow else (length, width))
    column = tuple(_grown(c, s, None) for c, s in zip(rows.column, shapes, strict=True))
    return Rows(column, _pad_place(rows, n, shapes), rows.n_narrow), tuple(shapes)


def _lengths(shapes: Sequence[tuple[int, ...]], n_narrow: int) -> list[int]:
    return [shape[1 if block < n_narrow else 0] for block, shape in enumerate(shapes)]


def _pad_place(rows: Rows, n: int, shapes: list[tuple[int, int]]) -> Array | None:
    """Where each row is among longer blocks; padded ones are the last of the first block."""
    if rows.place is None:
        return None
    place = np.asarray(rows.place)
    new = _lengths(shapes, rows.n_narrow)
    old = np.cumsum(_lengths([c.shape for c in rows.column], rows.n_narrow))
    shift = np.cumsum([0, *new[:-1]]) - np.concatenate([[0], old[:-1]])
    moved = place + shift[np.searchsorted(old, place, side="right")]
    return padded(moved.astype(np.int32), n, new[0] - 1)


def _grown(x: Array | np.ndarray, shape: tuple[int, int], fill: float | None) -> Array:
    """A block at a larger shape, filled with a value, or by repeating its edge: what is near."""
    known = np.asarray(x)
    more = [(0, n - m) for n, m in zip(shape, known.shape, strict=True)]
    if fill is None:
        return as_leaf(np.pad(known, more, mode="edge"))
    return as_leaf(np.pad(known, more, constant_values=fill))


def pad_pattern(pattern: Pattern, n: int, n_values: int, n_padded: int) -> Pattern:
    """A pattern with n rows whose weights come from `n_padded` values, `n_values` of them real."""
    rows, shapes = pad_rows(pattern.rows, n)
    entry = [np.where(np.asarray(e) == n_values, n_padded, np.asarray(e)) for e in pattern.entry]
    return Pattern(rows, tuple(_grown(e, s, n_padded) for e, s in zip(entry, shapes, strict=True)))


def pad_transfer(transfer: Transfer, n: int) -> Transfer:
    """A constant matrix padded to n rows; padded entries are 0."""
    rows, shapes = pad_rows(transfer.rows, n)
    weight = zip(transfer.weight, shapes, strict=True)
    return Transfer(rows, tuple(_grown(w, s, 0.0) for w, s in weight))


def pad_graph(graph: DarcyGraph) -> DarcyGraph:
    """A graph padded to its bucket."""
    refuse_padded(graph.real, "mesh")
    n, n_edges = graph.n_cells, graph.edge.shape[0]
    size, edges = bucket_size(n + 1), bucket_size(n_edges + 1)
    return DarcyGraph(
        edge=padded(graph.edge, edges, size - 1),
        pattern=pad_pattern(graph.pattern, size, n_edges, edges),
        volume=padded(graph.volume, size, 1.0),
        piece=padded(graph.piece, size, size - 1),
        real=RealGraph(count_leaf(n), count_leaf(n_edges)),
    )


@pad_problem.register
def _pad_voxels(mesh: VoxelDarcyMesh) -> VoxelDarcyMesh:
    graph = pad_graph(mesh.graph)
    n_edges = graph.edge.shape[0]
    return VoxelDarcyMesh(
        graph,
        normal=padded(mesh.normal, n_edges, 0.0),
        area_over_distance=padded(mesh.area_over_distance, n_edges, 0.0),
        cell_ijk=padded(mesh.cell_ijk, graph.n_cells, 0),
    )


@pad_problem.register
def _pad_tets(mesh: TetDarcyMesh) -> TetDarcyMesh:
    graph, size = pad_graph(mesh.graph), bucket_size(mesh.n_elements)
    return TetDarcyMesh(
        graph,
        gradient=padded(mesh.gradient, size, 0.0),
        tet_volume=padded(mesh.tet_volume, size, 0.0),
        tet_edge=padded(mesh.tet_edge, size, graph.edge.shape[0] - 1),
    )


@pad_problem.register
def _pad_tensor_voxels(mesh: VoxelTensorDarcyMesh) -> VoxelTensorDarcyMesh:
    graph, size = pad_graph(mesh.graph), bucket_size(mesh.n_corners)
    n, n_edges = mesh.graph.n_cells, mesh.graph.edge.shape[0]
    # one past the last says that nothing is there
    moved = lambda x, old, new: np.where(np.asarray(x) == old, new, np.asarray(x))
    faces = mesh.surface_quarter
    return VoxelTensorDarcyMesh(
        graph,
        axes=mesh.axes,
        scale=mesh.scale,
        corner_cell=padded(moved(mesh.corner_cell, n, graph.n_cells), size, graph.n_cells),
        corner_edge=padded(
            moved(mesh.corner_edge, n_edges, graph.edge.shape[0]), size, graph.edge.shape[0]
        ),
        surface_quarter=padded(faces, bucket_size(faces.shape[0]), 0),
        cell_ijk=padded(mesh.cell_ijk, graph.n_cells, 0),
    )


def sanitised_graph(graph: DarcyGraph) -> DarcyGraph:
    """A graph whose padded volumes are harmless, whatever stood there."""
    if graph.real is None:
        return graph
    volume = kept(graph.volume, is_real(graph.real.cell, graph.n_cells), 1.0)
    return eqx.tree_at(lambda g: g.volume, graph, volume)


def sanitised_mesh(mesh: Mesh) -> Mesh:
    """A mesh whose padded entries are harmless, whatever stood there."""
    real = mesh.graph.real
    if real is None:
        return mesh
    mesh = eqx.tree_at(lambda m: m.graph, mesh, sanitised_graph(mesh.graph))
    where = lambda m: ()
    if isinstance(mesh, VoxelDarcyMesh):
        where = lambda m: (m.normal, m.area_over_distance)
        entry = is_real(real.edge, mesh.graph.edge.shape[0])
    elif isinstance(mesh, TetDarcyMesh):
        where = lambda m: (m.gradient, m.tet_volume)
        entry = _real_elements(mesh)
    else:
        return mesh
    return eqx.tree_at(where, mesh, tuple(kept(x, entry, 0.0) for x in where(mesh)))


def _real_elements(mesh: AbstractDarcyMesh) -> Bool[Array, " m"]:
    real = mesh.graph.real
    assert real is not None
    if isinstance(mesh, TetDarcyMesh):
        return mesh.tet_edge[:, 0] < real.edge
    return is_real(real.cell, mesh.n_elements)


def pad_permeability(
    permeability: Float[Array, "..."], mesh: AbstractDarcyMesh
) -> Float[Array, "..."]:
    """A permeability for a padded mesh."""
    if permeability.ndim == 0:
        return permeability
    return padded(permeability, mesh.n_elements, _unit(permeability))


def sanitised_permeability(
    permeability: Float[Array, "..."], mesh: AbstractDarcyMesh
) -> Float[Array, "..."]:
    """A permeability that is harmless in padded elements, whatever stood there."""
    if permeability.ndim == 0 or mesh.graph.real is None:
        return permeability
    return kept(permeability, _real_elements(mesh), _unit(permeability))


def _unit(permeability: Array) -> np.ndarray:
    like = permeability.dtype
    return np.ones((), like) if permeability.ndim == 1 else np.eye(3, dtype=like)[None]
