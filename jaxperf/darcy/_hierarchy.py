"""Set-up of the multigrid on the host: aggregates, prolongations, and the plan of the refit."""

from typing import Any, TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from ._galerkin import plan_first, plan_second
from ._rows import build_rows, Rows

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
_BLOCK = 3  # voxels along each side of an aggregate


class Transfer(eqx.Module):
    """A constant sparse matrix between two levels: its rows, and its values in their layout."""

    rows: Rows
    weight: tuple[Float[Array, "_ _"], ...]
    n_rows: int = eqx.field(static=True)

    def __call__(self, x: Float[Array, " m"]) -> Float[Array, " n"]:
        return self.rows.product(tuple(w.astype(x.dtype) for w in self.weight), x)


class LinearMap(eqx.Module):
    """Sums of multiples of given values: out[target] += coefficient · value[source].

    `target` ascends.
    """

    source: Int[Array, " v"]
    coefficient: Float[Array, " v"]
    target: Int[Array, " v"]
    n_out: int = eqx.field(static=True)

    def __call__(self, value: Float[Array, " a"]) -> Float[Array, " b"]:
        out = jnp.zeros(self.n_out, value.dtype)
        each = self.coefficient.astype(value.dtype) * value[self.source]
        return out.at[self.target].add(each, indices_are_sorted=True, mode="promise_in_bounds")


class Level(eqx.Module):
    """A level and the way to the next coarser one.

    A symmetric matrix is held as its values: those of the edges (the entry of both triangles),
    then the diagonal. **Attributes:** `rows`, off-diagonal pattern with entries into the values;
    `prolong`, `restrict`; `first`, `second`: values of A ↦ values of A P ↦ values of PᵀA P.
    """

    rows: Rows
    prolong: Transfer
    restrict: Transfer
    first: LinearMap
    second: LinearMap


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
    edge: Int[np.ndarray, "e 2"],
    transmissibility: Float[np.ndarray, " e"],
    n: int,
    cell_ijk: Int[np.ndarray, "c 3"] | None = None,
) -> Hierarchy:
    """Smoothed aggregation; on the host.

    Aggregates are blocks of the grid where `cell_ijk` tells where the cells lie in one, else those
    of strongly coupled neighbours. Prolongations are smoothed by conduction alone, so that their
    rows sum to one, and stay as they are when coefficients change.
    """
    matrix: _Sparse = laplacian(edge, transmissibility, n)
    levels, n_edges = [], len(edge)
    while matrix.shape[0] > _COARSEST and len(levels) < _MAX_LEVELS:
        if cell_ijk is None:
            aggregate = _neighbourhoods(matrix, _STRONG * 0.5 ** len(levels))
        else:
            cell_ijk, aggregate = np.unique(cell_ijk // _BLOCK, axis=0, return_inverse=True)
        n_coarse = int(aggregate.max()) + 1
        if n_coarse == matrix.shape[0]:
            break
        prolong = _smoothed(matrix, aggregate.ravel(), n_coarse)
        level, matrix, edge = _level(matrix, edge, prolong)
        levels.append(level)
    coarsest = jnp.asarray(edge, jnp.int32)
    return Hierarchy(tuple(levels), coarsest, matrix.shape[0], n, n_edges)


def laplacian(edge: np.ndarray, transmissibility: np.ndarray, n: int) -> _Sparse:
    """Σ_e T_e (e_i − e_j)(e_i − e_j)ᵀ."""
    i, j = edge[:, 0], edge[:, 1]
    row, column = np.concatenate([i, j]), np.concatenate([j, i])
    off = sp.csr_array((np.tile(-transmissibility, 2), (row, column)), shape=(n, n))
    return (off - sp.diags_array(off.sum(axis=1))).tocsr()


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


def _smoothed(matrix: _Sparse, aggregate: np.ndarray, n_coarse: int) -> _Sparse:
    """(I − ω D⁻¹A) of the aggregates' indicators."""
    n = matrix.shape[0]
    indicator = sp.csr_array((np.ones(n), aggregate, np.arange(n + 1)), shape=(n, n_coarse))
    scaled = sp.diags_array(1.0 / matrix.diagonal()) @ matrix
    smoothed = (indicator - (_SMOOTHING / _spectral_radius(scaled)) * (scaled @ indicator)).tocsr()
    smoothed.sort_indices()
    return smoothed


def _spectral_radius(scaled: _Sparse, steps: int = 15) -> float:
    """Of D⁻¹A, by the power method; never above the bound by row sums."""
    x = np.random.default_rng(0).standard_normal(scaled.shape[0])
    for _ in range(steps):
        x = scaled @ x
        size = np.linalg.norm(x)
        x /= size
    return float(size)


def _level(matrix: _Sparse, edge: np.ndarray, prolong: _Sparse):
    """The level, the coarse matrix and its edges."""
    n, n_edges, n_coarse = matrix.shape[0], len(edge), prolong.shape[1]
    both = np.concatenate([edge, edge[:, ::-1]])
    number = np.tile(np.arange(n_edges), 2)
    rows = build_rows(both[:, 0], both[:, 1], number, n)
    itself = np.arange(n)
    entry, start, column = _by_rows(
        np.concatenate([both[:, 0], itself]),
        np.concatenate([both[:, 1], itself]),
        np.concatenate([number, n_edges + itself]),
        n,
    )
    restrict = prolong.T.tocsr()
    ap_start, ap_column, *found = plan_first(
        start, column, entry, prolong.indptr, prolong.indices, prolong.data, n_coarse
    )
    first = _linear_map(found, len(ap_column))
    c_start, c_column, *found = plan_second(
        restrict.indptr, restrict.indices, restrict.data, ap_start, ap_column, n_coarse
    )
    second = _linear_map(found, len(c_column) + n_coarse)
    value = np.concatenate([matrix[edge[:, 0], edge[:, 1]], matrix.diagonal()])
    value = _on_host(second, _on_host(first, value))
    edge = np.stack([np.repeat(np.arange(n_coarse), np.diff(c_start)), c_column], axis=1)
    i, j = np.concatenate([edge, edge[:, ::-1], np.arange(n_coarse)[:, None].repeat(2, 1)]).T
    number = np.concatenate([np.tile(np.arange(len(edge)), 2), len(edge) + np.arange(n_coarse)])
    coarse = sp.csr_array((value[number], (i, j)), shape=(n_coarse, n_coarse))
    return Level(rows, _transfer(prolong), _transfer(restrict), first, second), coarse, edge


def _by_rows(row, column, entry, n: int):
    order = np.argsort(row, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n))])
    return entry[order], start, column[order]


def _linear_map(found, n_out: int) -> LinearMap:
    source, coefficient, target = found
    return LinearMap(
        jnp.asarray(source), jnp.asarray(coefficient, jnp.float32), jnp.asarray(target), n_out
    )


def _on_host(plan: LinearMap, value: np.ndarray) -> np.ndarray:
    each = np.asarray(plan.coefficient) * value[np.asarray(plan.source)]
    return np.bincount(np.asarray(plan.target), weights=each, minlength=plan.n_out)


def _transfer(matrix: _Sparse) -> Transfer:
    entries = matrix.tocoo()
    rows = build_rows(entries.row, entries.col, np.arange(matrix.nnz), matrix.shape[0])
    weight = rows.weights(jnp.asarray(entries.data, jnp.float32))
    return Transfer(rows, weight, matrix.shape[0])
