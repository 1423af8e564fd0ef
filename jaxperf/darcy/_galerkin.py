"""The plan by which a coarse matrix follows its fine one: which products make which entry."""

from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True)
@no_type_check
def plan_first(a_start, a_column, a_entry, p_start, p_column, p_value, n_coarse):
    """Products that make A P.

    A and P are given by rows; `a_entry` numbers the values of A.

    **Returns:** rows of A P (start, column); for each product, in the order of the entries of A P
    that they add up to, the number of A's value, the value of P, and the entry.
    """
    n = len(a_start) - 1
    slot = np.full(n_coarse, -1, np.int64)
    start = np.zeros(n + 1, np.int64)
    total = 0
    for i in range(n):
        width = 0
        for t in range(a_start[i], a_start[i + 1]):
            j = a_column[t]
            total += p_start[j + 1] - p_start[j]
            for u in range(p_start[j], p_start[j + 1]):
                if slot[p_column[u]] != i:
                    slot[p_column[u]] = i
                    width += 1
        start[i + 1] = start[i] + width
    column = np.empty(start[n], np.int32)
    source, target = np.empty(total, np.int32), np.empty(total, np.int32)
    coefficient = np.empty(total, np.float32)
    slot[:] = -1
    count = np.zeros(64, np.int64)
    done = 0
    for i in range(n):
        width = start[i + 1] - start[i]
        if len(count) <= width:
            count = np.zeros(2 * width, np.int64)
        count[: width + 1] = 0
        found = 0
        for t in range(a_start[i], a_start[i + 1]):
            j = a_column[t]
            for u in range(p_start[j], p_start[j + 1]):
                c = p_column[u]
                at = slot[c] - start[i]
                if at < 0 or at >= found or column[start[i] + at] != c:
                    at = found
                    slot[c] = start[i] + at
                    column[start[i] + at] = c
                    found += 1
                count[at + 1] += 1
        for k in range(width):
            count[k + 1] += count[k]
        for t in range(a_start[i], a_start[i + 1]):
            j = a_column[t]
            for u in range(p_start[j], p_start[j + 1]):
                entry = slot[p_column[u]]
                to = done + count[entry - start[i]]
                count[entry - start[i]] += 1
                source[to], coefficient[to], target[to] = a_entry[t], p_value[u], entry
        # Each counter now stands where the next one's products begin.
        done += count[width - 1] if width else 0
    return start, column, source, coefficient, target


@numba.njit(cache=True)
@no_type_check
def _upper(r_start, r_column, ap_start, ap_column, n_coarse):
    """Edges (k, l), k < l, of PᵀA P by rows, and how many products make each and the diagonal."""
    slot = np.full(n_coarse, -1, np.int64)
    start = np.zeros(n_coarse + 1, np.int64)
    for k in range(n_coarse):
        width = 0
        for t in range(r_start[k], r_start[k + 1]):
            i = r_column[t]
            for u in range(ap_start[i], ap_start[i + 1]):
                c = ap_column[u]
                if c > k and slot[c] != k:
                    slot[c] = k
                    width += 1
        start[k + 1] = start[k] + width
    column = np.empty(start[n_coarse], np.int32)
    number = np.zeros(start[n_coarse] + n_coarse, np.int64)
    slot[:] = -1
    for k in range(n_coarse):
        found = start[k]
        for t in range(r_start[k], r_start[k + 1]):
            i = r_column[t]
            for u in range(ap_start[i], ap_start[i + 1]):
                c = ap_column[u]
                if c == k:
                    number[start[n_coarse] + k] += 1
                elif c > k:
                    if slot[c] < start[k]:
                        slot[c] = found
                        column[found] = c
                        found += 1
                    number[slot[c]] += 1
    return start, column, number


@numba.njit(cache=True)
@no_type_check
def plan_second(r_start, r_column, r_value, ap_start, ap_column, n_coarse):
    """Products that make PᵀA P from A P: its upper triangle without the diagonal, then that.

    **Returns:** rows of the upper triangle (start, column); for each product, in the order of the
    values that they add up to, the entry of A P, the value of P, and the value.
    """
    start, column, number = _upper(r_start, r_column, ap_start, ap_column, n_coarse)
    n_edges = len(column)
    to = np.zeros(len(number) + 1, np.int64)
    to[1:] = np.cumsum(number)
    total = to[-1]
    source, target = np.empty(total, np.int32), np.empty(total, np.int32)
    coefficient = np.empty(total, np.float32)
    slot = np.full(n_coarse, -1, np.int64)
    for k in range(n_coarse):
        for e in range(start[k], start[k + 1]):
            slot[column[e]] = e
        for t in range(r_start[k], r_start[k + 1]):
            i = r_column[t]
            for u in range(ap_start[i], ap_start[i + 1]):
                c = ap_column[u]
                if c < k:
                    continue
                value = n_edges + k if c == k else slot[c]
                at = to[value]
                source[at], coefficient[at], target[at] = u, r_value[t], value
                to[value] += 1
    return start, column, source, coefficient, target
