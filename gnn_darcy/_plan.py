r"""What a mesh gives a flux multigrid network, whatever the coefficients; set up on the host.

Every level is a Darcy operator again. With rows of P that sum to one,

    PᵀA P 1 = PᵀA 1 = Pᵀ s,

so that PᵀA P is the operator of the transmissibilities −(PᵀA P)_ab and the sinks Pᵀ s: one network
serves all levels, and what flows into a coarse control volume is what flows into its fine ones.
"""

from abc import abstractmethod
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from jaxperf._native import array, function, INT
from jaxperf.darcy import build_pattern, DarcyGraph, Pattern

from ._aggregate import aggregates, rank, rank_of_voxels

# The types of SciPy's sparse arrays know neither shape nor operators.
_Sparse: TypeAlias = Any
# Where each row of a sparse matrix starts, and the columns of its entries.
_Rows: TypeAlias = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]
# Of every product: its factors and the entry that it adds to.
_Found: TypeAlias = tuple[Int[np.ndarray, " t"], ...]

# Of the zero network: how far a control volume's row of P moves from its own aggregate to those
# of its neighbours.
SMOOTHING = 2.0 / 3.0
# Strong couplings weaken from level to level as rows widen.
_WEAKER = 0.5

_OF_INT32 = array(np.int32)
_PATTERN = (array(np.int64), _OF_INT32)
_PRODUCTS = (_OF_INT32, _OF_INT32, _OF_INT32, _OF_INT32)
_first = function("aggregate_first", INT, *_PATTERN, _OF_INT32, *_PATTERN, *_PATTERN, *_PRODUCTS)
_second = function(
    "aggregate_second", INT, *_PATTERN, _OF_INT32, *_PATTERN, *_PATTERN, *_PRODUCTS, returns=INT
)


class AbstractMatrix(eqx.Module):
    """Where the values of a sparse matrix stand."""

    @abstractmethod
    def weights(self, value: Float[Array, " v"]) -> Any:
        """The values as `product` takes them."""

    @abstractmethod
    def product(self, weight: Any, x: Float[Array, " m *b"]) -> Float[Array, " n *b"]:
        """The matrix times x."""


class MatrixByRows(AbstractMatrix):
    """Gathers, row by row: for solving."""

    pattern: Pattern

    def weights(self, value: Float[Array, " v"]) -> tuple[Float[Array, "_ _"], ...]:
        return self.pattern.weights(value)

    def product(
        self, weight: tuple[Float[Array, "_ _"], ...], x: Float[Array, " m *b"]
    ) -> Float[Array, " n *b"]:
        return self.pattern.rows.product(weight, x)


class MatrixByEntries(AbstractMatrix):
    """Sums over entries, which can be padded and batched: for training."""

    row: Int[Array, " q"]
    column: Int[Array, " q"]
    entry: Int[Array, " q"]
    n_rows: int = eqx.field(static=True)

    def weights(self, value: Float[Array, " v"]) -> Float[Array, " q"]:
        return value[self.entry]

    def product(
        self, weight: Float[Array, " q"], x: Float[Array, " m *b"]
    ) -> Float[Array, " n *b"]:
        part = weight.reshape(weight.shape + (1,) * (x.ndim - 1)) * x[self.column]
        return jax.ops.segment_sum(part, self.row, self.n_rows)


class Products(eqx.Module):
    """Sums of products of two lists: out[target] += a[first] · b[second]."""

    first: Int[Array, " t"]
    second: Int[Array, " t"]
    target: Int[Array, " t"]
    n_out: int = eqx.field(static=True)

    def __call__(self, a: Float[Array, " v"], b: Float[Array, " w"]) -> Float[Array, " o"]:
        return jax.ops.segment_sum(a[self.first] * b[self.second], self.target, self.n_out)


class LevelPlan(eqx.Module):
    """A level, and the way to the next one.

    **Attributes:** `edge` (e, 2); `aggregate` (n,); `is_root` (n,), 1 for the roots; the entries
    of P: `entry_of_edge` (2e,), to which of them each directed edge contributes, first those that
    arrive at the first end of each edge, then those at its second; `entry_of_own` (n,), that of
    each control volume and its own aggregate; `matrix`, the couplings by rows, entries into the
    edges; `prolong`, `restrict`, by entries of P; `first`, A P from [T, diagonal] and P; `second`,
    coarse transmissibilities from P and A P. Of `n_live` control volumes; the rest
    is padding.
    """

    edge: Int[Array, "e 2"]
    aggregate: Int[Array, " n"]
    is_root: Float[Array, " n"]
    entry_of_edge: Int[Array, " d"]
    entry_of_own: Int[Array, " n"]
    matrix: AbstractMatrix
    prolong: AbstractMatrix
    restrict: AbstractMatrix
    first: Products
    second: Products
    n_live: Int[Array, ""]
    n_entries: int = eqx.field(static=True)

    @property
    def n(self) -> int:
        return self.aggregate.shape[0]


class FluxPlan(eqx.Module):
    """Two levels with their ways down, and the edges of the coarsest one.

    `start` (n,), numbers in [−1, 1] that belong to the control volumes and vary without a pattern.
    """

    levels: tuple[LevelPlan, ...]
    coarsest_edge: Int[Array, "e 2"]
    start: Float[Array, " n"]
    n_live_coarsest: Int[Array, ""]
    n_coarsest: int = eqx.field(static=True)


N_LEVELS = 2


def build_plan(
    graph: DarcyGraph,
    transmissibility: Float[np.ndarray, " e"],
    cell_ijk: Int[np.ndarray, "n 3"] | None = None,
    *,
    by_rows: bool = True,
) -> FluxPlan:
    """Aggregates and patterns of the levels.

    **Arguments:** `transmissibility`, of a typical permeability: its pattern shapes the aggregates;
    `cell_ijk`, where control volumes lie in a grid; `by_rows`, whether matrices are laid out for
    solving, or else for training.
    """
    edge, n = np.asarray(graph.edge, np.int64), graph.n_cells
    value = np.asarray(transmissibility, np.float64)
    coupling = _coupling(edge, value, n)
    if cell_ijk is None:
        order = rank(edge, coupling, n)
        start = 2.0 * np.modf(1e4 * order)[0] - 1.0
    else:
        order, number = rank_of_voxels(cell_ijk)
        # Numbers in the order of the grid are smooth: their sines are not.
        start = 2.0 * np.modf(43758.5453 * np.abs(np.sin(12.9898 * number + 1.0)))[0] - 1.0
    levels = []
    for depth in range(N_LEVELS):
        # Couplings of wider rows are weaker.
        aggregate, root = aggregates(edge, coupling / _WEAKER**depth, order)
        level, edge, value = _level(edge, value, aggregate, root, n, by_rows)
        levels.append(level)
        n, order = len(root), order[root]
        coupling = _coupling(edge, value, n)
    return FluxPlan(
        tuple(levels),
        jnp.asarray(edge, jnp.int32),
        jnp.asarray(start),
        jnp.asarray(n, jnp.int32),
        n,
    )


def _coupling(
    edge: Int[np.ndarray, "e 2"], value: Float[np.ndarray, " e"], n: int
) -> Float[np.ndarray, " e"]:
    diagonal = np.bincount(edge.ravel(), weights=np.repeat(value, 2), minlength=n)
    size = np.sqrt(np.abs(diagonal[edge[:, 0]] * diagonal[edge[:, 1]]))
    return np.divide(value, size, out=np.zeros_like(value), where=size > 0)


def _level(
    edge: Int[np.ndarray, "e 2"],
    value: Float[np.ndarray, " e"],
    aggregate: Int[np.ndarray, " n"],
    root: Int[np.ndarray, " m"],
    n: int,
    by_rows: bool,
) -> tuple[LevelPlan, Int[np.ndarray, "f 2"], Float[np.ndarray, " f"]]:
    """The level with the coarse edges, and their transmissibilities by the zero network's P."""
    n_edges, n_coarse = len(edge), len(root)
    receiver = np.concatenate([edge[:, 0], edge[:, 1]])
    sender = np.concatenate([edge[:, 1], edge[:, 0]])
    itself = np.arange(n)
    # Entries of P: each control volume with its own aggregate and those of its neighbours.
    row = np.concatenate([receiver, itself])
    code = row * n_coarse + aggregate[np.concatenate([sender, itself])]
    code, entry = np.unique(code, return_inverse=True)
    p_row, p_column = code // n_coarse, code % n_coarse
    n_entries = len(code)
    numbered: _Sparse = sp.csr_array(
        (np.arange(n_entries) + 1.0, (p_row, p_column)), shape=(n, n_coarse)
    )
    # A by rows, entries into [T, diagonal].
    a: _Sparse = sp.csr_array(
        (
            np.concatenate([np.tile(np.arange(n_edges), 2), n_edges + itself]) + 1.0,
            (np.concatenate([receiver, itself]), np.concatenate([sender, itself])),
        ),
        shape=(n, n),
    )
    ap: _Sparse = (abs(a).sign() @ numbered.sign()).tocsr()
    ap.sort_indices()
    rows = lambda matrix: (matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32))
    number = lambda matrix: matrix.data.astype(np.int32) - 1
    first = _products_first(rows(a), number(a), rows(numbered), rows(ap), n_coarse)
    coarse: _Sparse = sp.triu(numbered.sign().T @ ap.sign(), k=1, format="csr")
    coarse.sort_indices()
    turned = numbered.T.tocsr()
    second = _products_second(rows(turned), number(turned), rows(ap), rows(coarse))
    coarse_edge = np.stack(
        [np.repeat(np.arange(n_coarse), np.diff(coarse.indptr)), coarse.indices], axis=1
    )
    is_root = np.zeros(n)
    is_root[root] = 1.0
    build = _by_rows if by_rows else _by_entries
    level = LevelPlan(
        edge=jnp.asarray(edge, jnp.int32),
        aggregate=jnp.asarray(aggregate, jnp.int32),
        is_root=jnp.asarray(is_root),
        entry_of_edge=jnp.asarray(entry[: 2 * n_edges], jnp.int32),
        entry_of_own=jnp.asarray(entry[2 * n_edges :], jnp.int32),
        matrix=build(receiver, sender, np.tile(np.arange(n_edges), 2), n),
        prolong=build(p_row, p_column, np.arange(n_entries), n),
        restrict=build(p_column, p_row, np.arange(n_entries), n_coarse),
        first=_products(first, ap.nnz),
        second=_products(second, len(coarse_edge)),
        n_live=jnp.asarray(n, jnp.int32),
        n_entries=n_entries,
    )
    p = _zero_network(receiver, value, entry, n, n_entries)
    diagonal = np.bincount(receiver, weights=np.tile(value, 2), minlength=n)
    both = np.concatenate([-value, diagonal])
    made = np.bincount(first[2], weights=both[first[0]] * p[first[1]], minlength=ap.nnz)
    made = np.bincount(
        second[2], weights=p[second[0]] * made[second[1]], minlength=len(coarse_edge)
    )
    return level, coarse_edge.astype(np.int64), -made


def _zero_network(
    receiver: Int[np.ndarray, " d"],
    value: Float[np.ndarray, " e"],
    entry: Int[np.ndarray, " q"],
    n: int,
    n_entries: int,
) -> Float[np.ndarray, " p"]:
    """P where all couplings towards a control volume count by their transmissibility."""
    conducting = np.maximum(np.tile(value, 2), 0.0)
    total = np.bincount(receiver, weights=conducting, minlength=n)
    share = SMOOTHING * np.divide(
        conducting, total[receiver], out=np.zeros_like(conducting), where=total[receiver] > 0
    )
    own = 1.0 - np.bincount(receiver, weights=share, minlength=n)
    return np.bincount(entry, weights=np.concatenate([share, own]), minlength=n_entries)


def _products(found: _Found, n_out: int) -> Products:
    first, second, target = (jnp.asarray(x, jnp.int32) for x in found)
    return Products(first, second, target, n_out)


def _by_entries(
    row: Int[np.ndarray, " q"], column: Int[np.ndarray, " q"], entry: Int[np.ndarray, " q"], n: int
) -> MatrixByEntries:
    return MatrixByEntries(*(jnp.asarray(x, jnp.int32) for x in (row, column, entry)), n_rows=n)


def _by_rows(
    row: Int[np.ndarray, " q"], column: Int[np.ndarray, " q"], entry: Int[np.ndarray, " q"], n: int
) -> MatrixByRows:
    return MatrixByRows(build_pattern(row, column, entry, n))


def _products_first(
    a: _Rows, a_entry: Int[np.ndarray, " q"], p: _Rows, ap: _Rows, n_coarse: int
) -> _Found:
    """(value of A, entry of P, entry of A P) for every product in A P; matrices by rows."""
    total = int(np.diff(p[0])[a[1]].sum())
    found = tuple(np.empty(total, np.int32) for _ in range(3))
    _first(len(a[0]) - 1, *a, a_entry, *p, *ap, np.empty(n_coarse, np.int32), *found)
    return found


def _products_second(t: _Rows, t_entry: Int[np.ndarray, " q"], ap: _Rows, coarse: _Rows) -> _Found:
    """(entry of P, entry of A P, coarse edge) for every product above the diagonal of PᵀA P.

    **Arguments:** by rows: `t`, Pᵀ, with `t_entry`, which entry of P each of its entries is; A P;
    the coarse edges.
    """
    n_coarse, at_most = len(t[0]) - 1, int(np.diff(ap[0])[t[1]].sum())
    found = tuple(np.empty(at_most, np.int32) for _ in range(3))
    n = _second(n_coarse, *t, t_entry, *ap, *coarse, np.empty(n_coarse, np.int32), *found)
    return tuple(x[:n] for x in found)
