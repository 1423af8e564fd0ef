"""Numbers that must lie in a range, where they are used.

A problem checks its data as it is built. What is changed afterwards (`eqx.tree_at`, a parameter of
a fit) is known to the compiled program only: there a number out of its range ends a solve as
`RESULTS.out_of_range`, whatever the solve has found.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ._results import ended_as, RESULTS, SolveError


@dataclass(frozen=True)
class Range:
    """What must hold for the entries of an array.

    `name`, with the unit; `holds`, of the shape of `value`; `expected`, in words; `place`, from the
    flat index of an entry to what it belongs to.
    """

    name: str
    value: Array
    holds: Bool[Array, "..."]
    expected: str
    place: Callable[[int], str] = str


def positive(name: str, value: Array, place: Callable[[int], str]) -> Range:
    """Numbers above zero; infinity is one."""
    return Range(name, value, value > 0, "a number above zero", place)


def not_negative(name: str, value: Array, place: Callable[[int], str]) -> Range:
    """Numbers from zero on."""
    return Range(name, value, value >= 0, "zero or a positive number", place)


def in_range(ranges: Sequence[Range]) -> Bool[Array, ""]:
    """Whether all of them hold."""
    return jnp.stack([jnp.all(r.holds) for r in ranges]).all()


def range_error(ranges: Sequence[Range]) -> SolveError:
    """The error that names the first number out of its range; host only."""
    for r in ranges:
        bad = np.flatnonzero(~np.broadcast_to(np.asarray(r.holds), np.shape(r.value)).ravel())
        if bad.size:
            value, at = np.ravel(np.asarray(r.value))[bad[0]], r.place(int(bad[0]))
            where = f"{r.name} of {at} is {value:g}; expected {r.expected}."
            return SolveError(RESULTS.out_of_range, where)
    return SolveError(RESULTS.out_of_range, "")


def is_out_of_range(result: RESULTS) -> bool:
    """Whether a known result is that of a number out of its range."""
    return ended_as(result, RESULTS.out_of_range)
