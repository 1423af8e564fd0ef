"""Set-up of the multigrid on the host: aggregates, prolongations, and the plan of the refit."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import equinox as eqx
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from .._misc import InputError
from .._padding import bucket_size, coarse_size, count_leaf, padded
from ._galerkin import plan_first, plan_second
from ._operator import DarcyGraph
from ._padding import pad_pattern, pad_transfer
from ._rows import build_pattern, build_transfer, by_rows, Pattern, Transfer

# The types of SciPy's sparse arrays know neither shape nor operators.
_Sparse: TypeAlias = Any

# Levels are added until one is small enough for a dense factor.
_COARSEST = 400
_MAX_LEVELS = 10
# Of the Jacobi step that smooths the aggregates, over the spectral radius (Vaněk et al. 1996).
_SMOOTHING = 4.0 / 3.0
# |a_ij| over √(a_ii a_jj), halved from level to level (Vaněk et al. 1996): left as it is, coarse
# matrices look weakly coupled, levels shrink by two only and their products multiply.
_STRONG = 0.08
# |a_ij| of the entries by which prolongations are smoothed, likewise: with all of them the rows of
# coarse matrices widen from level to level, and the iterations are the same.
_SMOOTHED_BY = 0.1
# The share of strong connections from which on voxels are aggregated by blocks, which are faster
# where K varies little and many times slower where it is anisotropic or jumps.
_STRONG_SHARE = 0.95
_BLOCK = 3  # voxels along each side of an aggregate
# A level that keeps more than this share of the control volumes is not worth having.
_SHRINK = 0.7
# A dense inverse of more than this costs more than the levels above it.
_COARSEST_MOST = 3000


class Level(eqx.Module):
    """A level and the way to the next coarser one.

    A symmetric matrix is held as the values of its edges (the entry of both triangles), and its
    diagonal. **Attributes:** `pattern`, off-diagonal rows with entries into the values of the
    edges; `prolong`, `restrict`; `first`, `second`: values of A ↦ values of A P ↦ values of PᵀA P,
    those of the edges and then the diagonal; `n_coarse` control volumes of the coarser one, of
    which `real` are real where the mesh is padded.
    """

    pattern: Pattern
    prolong: Transfer
    restrict: Transfer
    first: Transfer
    second: Transfer
    real: Int[Array, ""] | None
    n_coarse: int = eqx.field(static=True)


class Hierarchy(eqx.Module):
    """The levels, finest first, and the pattern (e, 2) of the edges of the coarsest matrix.

    `n_cells` and `n_edges` are those of the mesh.
    """

    levels: tuple[Level, ...]
    coarsest_edge: Int[Array, "e 2"]
    n_coarsest: int = eqx.field(static=True)
    n_cells: int = eqx.field(static=True)
    n_edges: int = eqx.field(static=True)


def build_hierarchy(
    graph: DarcyGraph,
    transmissibility: Float[np.ndarray, " e"],
    cell_ijk: Int[np.ndarray, "c 3"] | None = None,
) -> Hierarchy:
    """Smoothed aggregation; on the host.

    Aggregates are blocks of the grid where `cell_ijk` tells where the cells lie in one and nearly
    all neighbours are strongly coupled, else those of strongly coupled ones. Prolongations are
    smoothed by conduction alone, so that their rows sum to one, and stay as they are when
    coefficients change. A padded mesh gets the levels of its real part, each padded in turn.

    **Errors:** [`InputError`][] where nothing small enough for a dense factor is left in the end,
    as in a mesh of very many pieces.
    """
    real, fine = graph.real, _Size(graph.n_cells, graph.edge.shape[0])
    n, n_edges = (fine.cell, fine.edge) if real is None else (int(real.cell), int(real.edge))
    edge, transmissibility = np.asarray(graph.edge, np.int64)[:n_edges], transmissibility[:n_edges]
    cell_ijk = None if cell_ijk is None else cell_ijk[:n]
    size = fine
    matrix: _Sparse = laplacian(edge, transmissibility, n)
    if cell_ijk is not None and not _is_strong_throughout(
        edge, transmissibility, matrix.diagonal()
    ):
        cell_ijk = None
    pattern = graph.pattern
    levels = []
    while matrix.shape[0] > _COARSEST and len(levels) < _MAX_LEVELS:
        if cell_ijk is None:
            aggregate = _neighbourhoods(matrix, _STRONG * 0.5 ** len(levels))
            if aggregate.max() + 1 > _SHRINK * matrix.shape[0]:
                aggregate = _neighbourhoods(matrix, 0.0)
        else:
            cell_ijk, aggregate = _blocks(cell_ijk // _BLOCK)
        n_coarse = int(aggregate.max()) + 1
        if n_coarse > _SHRINK * matrix.shape[0]:
            break
        smoothed_by = matrix if cell_ijk is not None else _strong_part(matrix)
        prolong = _smoothed(smoothed_by, aggregate.ravel(), n_coarse)
        level, matrix, edge, size = _level(matrix, edge, size, pattern, prolong, real is not None)
        pattern = _pattern(edge, size, real is not None)
        levels.append(level)
    if matrix.shape[0] > _COARSEST_MOST:
        raise InputError(
            f"{matrix.shape[0]} control volumes are left on the coarsest level",
            where="multigrid",
            expected=f"a mesh whose {n} control volumes come down to {_COARSEST_MOST} at most",
            fix=f"Use ConjugateGradient, or drop what hangs on nothing: pieces: {graph.n_pieces}",
        )
    coarsest = padded(edge.astype(np.int32), size.edge, size.cell - 1)
    return Hierarchy(tuple(levels), coarsest, size.cell, fine.cell, fine.edge)


class _Size(NamedTuple):
    """The control volumes and edges of a level, padded ones included."""

    cell: int
    edge: int


def laplacian(edge: np.ndarray, transmissibility: np.ndarray, n: int) -> _Sparse:
    """Σ_e T_e (e_i − e_j)(e_i − e_j)ᵀ."""
    i, j = edge[:, 0], edge[:, 1]
    return _without_row_sums(
        np.tile(-transmissibility, 2), np.concatenate([i, j]), np.concatenate([j, i]), n
    )


def _without_row_sums(value: np.ndarray, row: np.ndarray, column: np.ndarray, n: int) -> _Sparse:
    """These off-diagonal entries, and the diagonal that makes every row sum to zero."""
    off = sp.csr_array((value, (row, column)), shape=(n, n))
    return (off - sp.diags_array(off.sum(axis=1))).tocsr()


def _is_strong_throughout(
    edge: np.ndarray, transmissibility: np.ndarray, diagonal: np.ndarray
) -> bool:
    """Whether blocks of the grid cut across hardly any weak connection."""
    coupling = np.abs(transmissibility)
    size = np.sqrt(diagonal[edge[:, 0]] * diagonal[edge[:, 1]])
    # An edge of a tensor mesh may conduct nothing.
    strong = (coupling > _STRONG * size)[coupling > 0]
    return bool(strong.sum() >= _STRONG_SHARE * len(strong))


def _blocks(ijk: Int[np.ndarray, "c 3"]) -> tuple[np.ndarray, np.ndarray]:
    """The distinct triples, and which of them each one is."""
    ijk = ijk - ijk.min(axis=0)
    shape = tuple(ijk.max(axis=0) + 1)
    distinct, aggregate = np.unique(np.ravel_multi_index(ijk.T, shape), return_inverse=True)
    return np.stack(np.unravel_index(distinct, shape), axis=1), aggregate


def _neighbourhoods(matrix: _Sparse, strength: float) -> np.ndarray:
    import pyamg

    connection: Any = pyamg.strength.symmetric_strength_of_connection
    strong = connection(sp.csr_matrix(matrix), theta=strength)
    aggregates: Any = pyamg.aggregation.standard_aggregation
    found, _ = aggregates(strong)
    # A control volume without any strong neighbour belongs to none: it becomes its own.
    aggregate = np.full(matrix.shape[0], -1)
    inside = found.tocoo()
    aggregate[inside.row] = inside.col
    alone = np.flatnonzero(aggregate < 0)
    aggregate[alone] = found.shape[1] + np.arange(len(alone))
    return aggregate


def _strong_part(matrix: _Sparse) -> _Sparse:
    """The matrix with its strong negative entries alone, and the diagonal that their rows need."""
    diagonal, entry = matrix.diagonal(), matrix.tocoo()
    strong = _SMOOTHED_BY * np.sqrt(diagonal[entry.row] * diagonal[entry.col])
    kept = (entry.row != entry.col) & (entry.data <= -strong) & (entry.data < 0.0)
    return _without_row_sums(entry.data[kept], entry.row[kept], entry.col[kept], len(diagonal))


def _smoothed(matrix: _Sparse, aggregate: np.ndarray, n_coarse: int) -> _Sparse:
    """(I − ω D⁻¹A) of the aggregates' indicators."""
    n = matrix.shape[0]
    indicator = sp.csr_array((np.ones(n), aggregate, np.arange(n + 1)), shape=(n, n_coarse))
    # A control volume that hangs on nothing has no conduction to smooth by.
    diagonal = matrix.diagonal()
    inverse = np.divide(1.0, diagonal, out=np.zeros(n), where=diagonal > 0)
    scaled = sp.diags_array(inverse) @ matrix
    smoothed = (indicator - (_SMOOTHING / _spectral_radius(scaled)) * (scaled @ indicator)).tocsr()
    smoothed.sort_indices()
    return smoothed


def _spectral_radius(scaled: _Sparse, steps: int = 15) -> float:
    """Of D⁻¹A, from below, by the power method; 1 where nothing conducts."""
    x = np.random.default_rng(0).standard_normal(scaled.shape[0])
    size = 1.0
    for _ in range(steps):
        x = scaled @ (x / size)
        size = np.linalg.norm(x)
        if size == 0.0:
            return 1.0
    return float(size)


def _pattern(edge: np.ndarray, size: _Size, is_padded: bool) -> Pattern:
    """Off-diagonal rows of a symmetric matrix, with entries into the values of its edges."""
    both = np.concatenate([edge, edge[:, ::-1]])
    number = np.tile(np.arange(len(edge)), 2)
    pattern = build_pattern(both[:, 0], both[:, 1], number, size.cell)
    return pad_pattern(pattern, size.cell, len(edge), size.edge) if is_padded else pattern


def _level(
    matrix: _Sparse,
    edge: np.ndarray,
    fine: _Size,
    pattern: Pattern,
    prolong: _Sparse,
    is_padded: bool,
) -> tuple[Level, _Sparse, np.ndarray, _Size]:
    """The level, the coarse matrix, its edges and its size."""
    n, n_edges, n_coarse = matrix.shape[0], len(edge), prolong.shape[1]
    itself, number = np.arange(n), np.arange(n_edges)
    order, start = by_rows(np.concatenate([edge[:, 0], edge[:, 1], itself]), n)
    column = np.concatenate([edge[:, 1], edge[:, 0], itself])[order]
    entry = np.concatenate([number, number, fine.edge + itself])[order]
    restrict = prolong.T.tocsr()
    ap_start, ap_column, *found = plan_first(
        start, column, entry, prolong.indptr, prolong.indices, prolong.data, n_coarse
    )
    value = np.zeros(fine.edge + n)
    value[:n_edges], value[fine.edge :] = matrix[edge[:, 0], edge[:, 1]], matrix.diagonal()
    n_between = bucket_size(len(ap_column)) if is_padded else len(ap_column)
    first, value = _map(found, n_between, value, is_padded)
    c_start, c_column, *found = plan_second(
        restrict.indptr, restrict.indices, restrict.data, ap_start, ap_column, n_coarse
    )
    edge = np.stack([np.repeat(np.arange(n_coarse), np.diff(c_start)), c_column], axis=1)
    coarse = _Size(n_coarse, len(edge))
    if is_padded:
        coarse = _Size(coarse_size(n_coarse + 1), coarse_size(len(edge) + 1))
    source, coefficient, target = found
    target = np.where(target < len(edge), target, target + (coarse.edge - len(edge)))
    found = source, coefficient, target.astype(np.int32)
    second, value = _map(found, sum(coarse), value, is_padded)
    i, j = np.concatenate([edge, edge[:, ::-1], np.arange(n_coarse)[:, None].repeat(2, 1)]).T
    number = np.concatenate([np.tile(np.arange(len(edge)), 2), coarse.edge + np.arange(n_coarse)])
    made = sp.csr_array((value[number], (i, j)), shape=(n_coarse, n_coarse))
    level = Level(
        pattern,
        _transfer(prolong, fine.cell, is_padded),
        _transfer(restrict, coarse.cell, is_padded),
        first,
        second,
        count_leaf(n_coarse) if is_padded else None,
        coarse.cell,
    )
    return level, made, edge, coarse


def _map(
    found: Sequence[np.ndarray], n_out: int, value: np.ndarray, is_padded: bool
) -> tuple[Transfer, np.ndarray]:
    """The map that a plan describes, and what it makes of these values."""
    source, coefficient, target = found
    made = np.bincount(target, weights=coefficient * value[source], minlength=n_out)
    return _laid_out(target, source, coefficient, n_out, is_padded), made


def _transfer(matrix: _Sparse, n: int, is_padded: bool) -> Transfer:
    entries = matrix.tocoo()
    return _laid_out(entries.row, entries.col, entries.data, n, is_padded)


def _laid_out(
    row: Int[np.ndarray, " v"],
    column: Int[np.ndarray, " v"],
    value: Float[np.ndarray, " v"],
    n: int,
    is_padded: bool,
) -> Transfer:
    transfer = build_transfer(row, column, value, n)
    return pad_transfer(transfer, n) if is_padded else transfer
