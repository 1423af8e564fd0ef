"""The plan by which a coarse matrix follows its fine one: which products make which entry."""

import numpy as np
from jaxtyping import Float, Int

from .._native import array, function, INT

_STARTS, _COLUMNS, _VALUES = array(np.int64), array(np.int32), array(np.float32)
_PATTERN = (_STARTS, _COLUMNS)
_PRODUCTS = (_COLUMNS, _VALUES, _COLUMNS)
_first_sizes = function(
    "galerkin_first_sizes", INT, *_PATTERN, *_PATTERN, _STARTS, _STARTS, returns=INT
)
_first = function(
    "galerkin_first",
    *(INT, *_PATTERN, _COLUMNS, *_PATTERN, _VALUES),
    *(_STARTS, _STARTS, _STARTS, _COLUMNS, *_PRODUCTS),
)
_edges = function("galerkin_edges", INT, *_PATTERN, *_PATTERN, _STARTS, _STARTS, returns=INT)
_second_sizes = function(
    "galerkin_second_sizes",
    *(INT, *_PATTERN, *_PATTERN),
    *(_STARTS, _STARTS, _COLUMNS, _STARTS),
)
_second = function(
    "galerkin_second",
    *(INT, *_PATTERN, _VALUES, *_PATTERN),
    *(_STARTS, _COLUMNS, _STARTS, _STARTS, *_PRODUCTS),
)


def plan_first(
    a_start: Int[np.ndarray, " n1"],
    a_column: Int[np.ndarray, " a"],
    a_entry: Int[np.ndarray, " a"],
    p_start: Int[np.ndarray, " n1"],
    p_column: Int[np.ndarray, " p"],
    p_value: Float[np.ndarray, " p"],
    n_coarse: int,
) -> tuple[np.ndarray, ...]:
    """Products that make A P.

    A and P are given by rows; `a_entry` numbers the values of A.

    **Returns:** rows of A P (start, column); for each product, in the order of the entries of A P
    that they add up to, the number of A's value, the value of P, and the entry.
    """
    n = len(a_start) - 1
    a, p = _pattern(a_start, a_column), _pattern(p_start, p_column)
    slot, start = np.full(n_coarse, -1), np.empty(n + 1, np.int64)
    total = _first_sizes(n, *a, *p, slot, start)
    column, products = np.empty(start[-1], np.int32), _products(total)
    count = np.empty(np.diff(start).max(initial=0) + 1, np.int64)
    entry, value = a_entry.astype(np.int32), p_value.astype(np.float32)
    _first(n, *a, entry, *p, value, start, slot, count, column, *products)
    return start, column, *products


def plan_second(
    r_start: Int[np.ndarray, " k1"],
    r_column: Int[np.ndarray, " p"],
    r_value: Float[np.ndarray, " p"],
    ap_start: Int[np.ndarray, " n1"],
    ap_column: Int[np.ndarray, " ap"],
    n_coarse: int,
) -> tuple[np.ndarray, ...]:
    """Products that make PᵀA P from A P: its upper triangle without the diagonal, then that.

    **Arguments:** `r_start`, `r_column`, `r_value`: Pᵀ by rows.

    **Returns:** rows of the upper triangle (start, column); for each product, in the order of the
    values that they add up to, the entry of A P, the value of P, and the value.
    """
    r, ap = _pattern(r_start, r_column), _pattern(ap_start, ap_column)
    slot, start = np.full(n_coarse, -1), np.empty(n_coarse + 1, np.int64)
    n_edges = _edges(n_coarse, *r, *ap, slot, start)
    column, number = np.empty(n_edges, np.int32), np.zeros(n_edges + n_coarse, np.int64)
    slot[:] = -1
    _second_sizes(n_coarse, *r, *ap, start, slot, column, number)
    to = np.concatenate([np.zeros(1, np.int64), np.cumsum(number)])
    products = _products(int(to[-1]))
    _second(n_coarse, *r, r_value.astype(np.float32), *ap, start, column, to, slot, *products)
    return start, column, *products


def _pattern(start: np.ndarray, column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return start.astype(np.int64), column.astype(np.int32)


def _products(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Room for the source, coefficient and target of n products."""
    return np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.int32)
