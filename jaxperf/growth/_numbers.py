"""Random numbers and the least of some values, compiled."""

from typing import no_type_check

import numba
import numpy as np


@numba.njit(cache=True)
@no_type_check
def scrambled(state):
    """The next of a sequence of uniform 64-bit numbers (S. Vigna's splitmix64)."""
    z = state + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True)
@no_type_check
def fraction(number):
    """A 64-bit number as a fraction from 0 to 1."""
    return (number >> np.uint64(11)) * (1.0 / (1 << 53))


@numba.njit(cache=True)
@no_type_check
def least_of(value, n, order):
    """Indices of the least of n values, the first of equal ones first; returns how many."""
    kept = 0
    for m in range(n):
        if kept == order.size and value[m] >= value[order[kept - 1]]:
            continue
        k = kept if kept < order.size else kept - 1
        while k > 0 and value[m] < value[order[k - 1]]:
            order[k] = order[k - 1]
            k -= 1
        order[k] = m
        kept = min(kept + 1, order.size)
    return kept
