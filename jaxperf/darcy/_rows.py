"""Sparse matrices as rows of like width, so that a product is a few gathers."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Blocks of rows, at most; each has a width of its own and costs one more loop. More of them leave
# less padding and run no faster, but compilation takes in proportion longer.
_MAX_BLOCKS = 2
# Gathers written out one after another; wider rows run in a loop over chunks of them.
_UNROLLED, _CHUNK = 16, 16
# What putting the rows of several blocks in order costs, in entries of each row.
_ORDERING = 1.5


class Rows(eqx.Module):
    """The pattern of a sparse matrix, its rows in blocks of like width.

    **Attributes:** for each block `column` (w, r) and `entry` (w, r), which number of a list of
    values stands there, one past the end where the row is shorter; `place` (n,), where among the
    rows of all blocks each row is, or None where one block holds them in order. The width comes
    first, so that each gather runs over contiguous rows.
    """

    column: tuple[Int[Array, "_ _"], ...]
    entry: tuple[Int[Array, "_ _"], ...]
    place: Int[Array, " n"] | None

    def weights(self, value: Float[Array, " v"]) -> tuple[Float[Array, "_ _"], ...]:
        """The values in the layout of the rows."""
        padded = jnp.concatenate([value, jnp.zeros(1, value.dtype)])
        return tuple(padded[entry] for entry in self.entry)

    def product(
        self, weight: tuple[Float[Array, "_ _"], ...], x: Float[Array, " m"]
    ) -> Float[Array, " n"]:
        """The matrix of these weights times x."""
        out = [_block_product(c, w, x) for c, w in zip(self.column, weight, strict=True)]
        return out[0] if self.place is None else jnp.concatenate(out)[self.place]

    def sums(self, weight: tuple[Float[Array, "_ _"], ...]) -> Float[Array, " n"]:
        """The sum of each row."""
        out = [jnp.sum(w, axis=0) for w in weight]
        return out[0] if self.place is None else jnp.concatenate(out)[self.place]


def _block_product(column: Array, weight: Array, x: Array) -> Array:
    take = lambda c: x.at[c].get(mode="promise_in_bounds")
    each = lambda c, w: functools.reduce(jnp.add, [w[k] * take(c[k]) for k in range(c.shape[0])])
    n = column.shape[0]
    if n <= _UNROLLED:
        return each(column, weight)
    # `build_rows` has made the width a multiple.
    chunks = lambda a: a.reshape(n // _CHUNK, _CHUNK, a.shape[1])
    start = jnp.zeros(column.shape[1:], weight.dtype)
    body = lambda total, chunk: (total + each(*chunk), None)
    return jax.lax.scan(body, start, (chunks(column), chunks(weight)))[0]


def build_rows(
    row: Int[np.ndarray, " v"], column: Int[np.ndarray, " v"], entry: Int[np.ndarray, " v"], n: int
) -> Rows:
    """Lay out the entries of a sparse matrix with n rows; runs on the host."""
    order = np.argsort(row, kind="stable")
    row, column, entry = row[order], column[order], entry[order]
    count = np.bincount(row, minlength=n)
    first = np.cumsum(count) - count
    slot = np.arange(len(row)) - first[row]
    n_values = int(entry.max(initial=-1)) + 1
    limit = _widths(count)
    block = np.searchsorted(limit, count)
    place, columns, entries, done = np.empty(n, np.int32), [], [], 0
    for b, width in enumerate(limit):
        mine = np.flatnonzero(block == b)
        at = np.full(n, -1, np.int32)
        at[mine] = np.arange(len(mine))
        place[mine] = done + at[mine]
        done += len(mine)
        inside = at[row] >= 0
        # Padding refers to the row itself, or to the last column: any that is near.
        columns.append(np.zeros((width, len(mine)), np.int32))
        entries.append(np.full((width, len(mine)), n_values, np.int32))
        columns[-1][slot[inside], at[row[inside]]] = column[inside]
        entries[-1][slot[inside], at[row[inside]]] = entry[inside]
        short = np.arange(width)[:, None] >= count[mine][None, :]
        nearest = columns[-1][np.maximum(count[mine] - 1, 0), np.arange(len(mine))]
        columns[-1] = np.where(short, nearest[None, :], columns[-1])
    as_array = lambda parts: tuple(jnp.asarray(p) for p in parts)
    return Rows(
        as_array(columns), as_array(entries), None if len(limit) == 1 else jnp.asarray(place)
    )


def _widths(count: Int[np.ndarray, " n"]) -> Int[np.ndarray, " b"]:
    """Widths of the blocks that leave the least padding, the last one the widest row's."""
    number = np.bincount(count)
    rounded = lambda w: w if w <= _UNROLLED else -(-w // _CHUNK) * _CHUNK
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
