"""Sparse matrices as rows of like width, so that a product is a few gathers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf
from .._native import array, function, INT

# Blocks of rows, at most; each has a width of its own and costs one more loop. More of them leave
# less padding and run no faster, but compilation takes in proportion longer.
_MAX_BLOCKS = 2
# Rows up to this width are gathered column by column, wider ones row by row.
_NARROW = 32
# Widths beyond are multiples of this.
_ROUNDED = 16
# What several blocks and putting their rows in order cost, in entries of each row. Padding costs
# little: it refers to what has just been read.
_ORDERING = 12.0

_OF_INT32 = array(np.int32)
_fill = function(
    "rows_fill",
    *(INT, INT, INT, INT, array(np.int64), array(np.int64), _OF_INT32, _OF_INT32),
    *(array(np.int32, 2), array(np.int32, 2)),
)


class Rows(eqx.Module):
    """The pattern of a sparse matrix, its rows in blocks of like width.

    **Attributes:** `column`, for each block; `place` (n,), where among the rows of all blocks each
    row is, or None where one block holds them in order; `n_narrow`, how many blocks, the first
    ones, are narrow. A narrow block is (w, r): each of its w gathers, written out one after
    another, runs over contiguous rows. A wide one is (r, w): its rows are few, and summed one by
    one. Weights have the shapes of `column`.
    """

    column: tuple[Int[Array, "_ _"], ...]
    place: Int[Array, " n"] | None
    n_narrow: int = eqx.field(static=True)

    def product(
        self, weight: tuple[Float[Array, "_ _"], ...], x: Float[Array, " m *b"]
    ) -> Float[Array, " n *b"]:
        """The matrix of these weights times x, or times several side by side."""
        return _product(self, weight, x)

    def sums(self, weight: tuple[Float[Array, "_ _"], ...]) -> Float[Array, " n"]:
        """The sum of each row."""
        narrow, wide = weight[: self.n_narrow], weight[self.n_narrow :]
        return self._in_order(
            [_added(list(w)) for w in narrow] + [jnp.sum(w, axis=1) for w in wide]
        )

    def _in_order(self, block: list[Array]) -> Array:
        return block[0] if self.place is None else jnp.concatenate(block)[self.place]


# A cycle multiplies by each matrix many times: compiled apart, it is traced once.
@jax.jit
def _product(rows: Rows, weight: tuple[Array, ...], x: Array) -> Array:
    take = lambda column: x.at[column].get(mode="promise_in_bounds")
    beside = lambda w: w.reshape(w.shape + (1,) * (x.ndim - 1))
    out = []
    for k, (c, w) in enumerate(zip(rows.column, weight, strict=True)):
        if k < rows.n_narrow:
            out.append(_added([beside(w[i]) * take(c[i]) for i in range(c.shape[0])]))
        else:
            out.append(jnp.sum(beside(w) * take(c), axis=1))
    return rows._in_order(out)


def _added(part: list[Array]) -> Array:
    """Their sum, written out: XLA:CPU walks a reduction over a leading axis in the wrong order."""
    return functools.reduce(jnp.add, part)


class Pattern(eqx.Module):
    """Rows whose weights come from a list of values.

    **Attributes:** `rows`; for each of its blocks `entry`, in the shape of its columns: which of
    the values stands there, one past the end where a row is shorter.
    """

    rows: Rows
    entry: tuple[Int[Array, "_ _"], ...]

    def weights(self, value: Float[Array, " v"]) -> tuple[Float[Array, "_ _"], ...]:
        """The values in the layout of the rows."""
        padded = jnp.concatenate([value, jnp.zeros(1, value.dtype)])
        return tuple(padded[entry] for entry in self.entry)


class Transfer(eqx.Module):
    """A constant sparse matrix: its rows, and its values in their layout."""

    rows: Rows
    weight: tuple[Float[Array, "_ _"], ...]

    def __call__(self, x: Float[Array, " m *b"]) -> Float[Array, " n *b"]:
        return self.rows.product(tuple(w.astype(x.dtype) for w in self.weight), x)


def build_pattern(
    row: Int[np.ndarray, " v"], column: Int[np.ndarray, " v"], entry: Int[np.ndarray, " v"], n: int
) -> Pattern:
    """Lay out the entries of a sparse matrix with n rows; runs on the host.

    **Example:**

    ```python
    import numpy as np
    from jaxperf.darcy import build_pattern
    pattern = build_pattern(np.array([0, 1]), np.array([1, 0]), np.array([0, 1]), 2)
    ```
    """
    rows, entries = _lay_out(row, column, entry, n, int(entry.max(initial=-1)) + 1)
    return Pattern(rows, tuple(as_leaf(e) for e in entries))


def build_transfer(
    row: Int[np.ndarray, " v"],
    column: Int[np.ndarray, " v"],
    value: Float[np.ndarray, " v"],
    n: int,
) -> Transfer:
    """Lay out a constant sparse matrix with n rows; runs on the host."""
    rows, entries = _lay_out(row, column, np.arange(len(value), dtype=np.int32), n, len(value))
    padded = np.append(value, 0.0).astype(np.float32)
    return Transfer(rows, tuple(as_leaf(padded[e]) for e in entries))


def _lay_out(
    row: Int[np.ndarray, " v"],
    column: Int[np.ndarray, " v"],
    entry: Int[np.ndarray, " v"],
    n: int,
    n_values: int,
) -> tuple[Rows, list[Int[np.ndarray, "_ _"]]]:
    """The rows, and for each block the entries, `n_values` where a row is shorter."""
    order, first = by_rows(row, n)
    column, entry = column[order].astype(np.int32), entry[order].astype(np.int32)
    count = np.diff(first)
    limit = _widths(count)
    block = np.searchsorted(limit, count)
    place, columns, entries, done = np.empty(n, np.int32), [], [], 0
    for b, width in enumerate(limit):
        mine = np.flatnonzero(block == b)
        place[mine] = done + np.arange(len(mine))
        done += len(mine)
        wide = width > _NARROW
        shape = (len(mine), width) if wide else (width, len(mine))
        columns.append(np.zeros(shape, np.int32))
        entries.append(np.full(shape, n_values, np.int32))
        # Which way rows lie: how far the next row, and the next item of the same one.
        steps = (width, 1) if wide else (1, len(mine))
        _fill(len(mine), width, *steps, mine, first, column, entry, columns[-1], entries[-1])
    in_order = None if len(limit) == 1 else as_leaf(place)
    n_narrow = int(np.sum(limit <= _NARROW))
    return Rows(tuple(as_leaf(c) for c in columns), in_order, n_narrow), entries


def by_rows(row: Int[np.ndarray, " v"], n: int) -> tuple[np.ndarray, np.ndarray]:
    """The order that puts entries row by row, and where among them each of the n rows starts."""
    number = np.arange(len(row))
    # SciPy's conversion counts; a sort would compare.
    sorted_ = sp.csr_array((number, (row, number)), shape=(n, len(row)))
    return sorted_.indices.astype(np.int32), sorted_.indptr.astype(np.int64)


def _widths(count: Int[np.ndarray, " n"]) -> Int[np.ndarray, " b"]:
    """Widths of the blocks that leave the least padding, the last one the widest row's."""
    number = np.bincount(count)
    rounded = lambda w: w if w <= _NARROW else -(-w // _ROUNDED) * _ROUNDED
    width = sorted({rounded(w) for w in np.flatnonzero(number)} - {0}) or [1]
    rows = np.zeros(len(width), np.int64)
    for w, k in enumerate(number):
        rows[np.searchsorted(width, rounded(max(w, 1)))] += k
    total, n = np.concatenate([[0], np.cumsum(rows)]), len(width)
    area = lambda i, j: (total[j] - total[i]) * width[j - 1]
    # The least area of the first i widths in so many blocks, and its blocks.
    best = {0: (0.0, [])}
    single = area(0, n)
    for _ in range(min(_MAX_BLOCKS, n)):
        longer = {}
        for j in range(1, n + 1):
            of = [(c + area(i, j), [*cut, width[j - 1]]) for i, (c, cut) in best.items() if i < j]
            longer[j] = min(of)
        best = {j: min(longer[j], best.get(j, (np.inf, []))) for j in longer} | {0: (0.0, [])}
    cost, cut = best[n]
    # Several blocks have to be put in order again.
    return np.array(cut if cost + _ORDERING * total[-1] < single else width[-1:])
