"""Segments between junctions, their orders by diameter, and the elements they form."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from .._misc import InputError
from ._kassab import order_boundaries

_MOST_ROUNDS = 200


class Segments(eqx.Module):
    """The vessels between junctions.

    **Attributes:** over the segments `s`: `parent`, the segment upstream or -1; `diameter` and
    `length` (m). `piece` is the segment each of the given pieces `m` belongs to.
    """

    parent: Int[np.ndarray, " s"]
    diameter: Float[np.ndarray, " s"]
    length: Float[np.ndarray, " s"]
    piece: Int[np.ndarray, " m"]

    @property
    def daughters(self) -> Int[np.ndarray, " s"]:
        """How many segments each one feeds; none at a terminal."""
        return _count(self.parent[self.parent >= 0], len(self.parent))


def merge_chains(
    parent: Int[np.ndarray, " m"], radius: Float[np.ndarray, " m"], length: Float[np.ndarray, " m"]
) -> Segments:
    """Join pieces that follow each other without a junction: lengths add, radii by length.

    **Errors:** `InputError` for arrays that do not describe a forest.
    """
    parent = np.maximum(parent.astype(np.int64), -1)
    _check(parent, radius, length)
    m = len(parent)
    follows = (parent >= 0) & (_count(parent[parent >= 0], m)[parent] == 1)
    head = _first_of_chain(np.where(follows, parent, np.arange(m)))
    first, piece = np.unique(head, return_inverse=True)
    above = parent[first]
    total = np.bincount(piece, weights=length)
    return Segments(
        parent=np.where(above >= 0, piece[above], -1),
        diameter=2.0 * np.bincount(piece, weights=radius * length) / total,
        length=total,
        piece=piece,
    )


def _check(
    parent: Int[np.ndarray, " m"], radius: Float[np.ndarray, " m"], length: Float[np.ndarray, " m"]
) -> None:
    def refuse(what: str, expected: str) -> None:
        raise InputError(
            what,
            where="morphometry",
            expected=expected,
            fix="Give parent, radius and length of every piece of the forest",
        )

    m = len(parent)
    if m == 0:
        refuse("the forest is empty", "at least one vessel")
    if parent.max() >= m:
        at = int(parent.argmax())
        refuse(
            f"the parent of piece {at} is {parent[at]}", f"an index below {m}, or a negative one"
        )
    for name, value in (("radius", radius), ("length", length)):
        wrong = np.flatnonzero(~(np.isfinite(value) & (value > 0.0)))
        if wrong.size:
            at = int(wrong[0])
            refuse(f"the {name} of piece {at} is {value[at]}", "finite numbers above zero, in m")
    jump = parent
    for _ in range(m.bit_length()):
        jump = np.where(jump >= 0, jump[jump], -1)
    if (jump >= 0).any():
        at = int(np.flatnonzero(jump >= 0)[0])
        refuse(f"piece {at} hangs on no root: its parents form a loop", "a forest")


def _count(index: Int[np.ndarray, " i"], n: int) -> Int[np.ndarray, " n"]:
    return np.bincount(index, minlength=n).astype(np.int64)


def _first_of_chain(link: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Where the links end, each step twice as far as the one before."""
    while True:
        further = link[link]
        if np.array_equal(further, link):
            return link
        link = further


def sum_from_root(
    parent: Int[np.ndarray, " s"], value: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " s"]:
    """The sum of `value` over each segment and all upstream of it."""
    total, jump = value.copy(), parent
    while (jump >= 0).any():
        total += np.where(jump >= 0, total[jump], 0.0)
        jump = np.where(jump >= 0, jump[jump], -1)
    return total


def strahler_numbers(parent: Int[np.ndarray, " s"]) -> Int[np.ndarray, " s"]:
    """Strahler's numbers: 1 at a terminal; n + 1 where two of n meet that none exceeds."""
    depth = sum_from_root(parent, np.ones(len(parent)))
    number, above = [0] * len(parent), parent.tolist()
    highest, twice = [0] * len(parent), [True] * len(parent)
    for segment in np.argsort(-depth, kind="stable").tolist():
        number[segment] = found = highest[segment] + twice[segment]
        p = above[segment]
        if p >= 0 and found >= highest[p]:
            twice[p] = found == highest[p]
            highest[p] = found
    return np.array(number, np.int64)


class Ranks(eqx.Module):
    """Orders counted from 0 and the diameters between them; see [`diameter_ranks`][].

    `rounds` counts the rounds they took, and `changed` is the fraction of the segments the last
    one moved.
    """

    rank: Int[np.ndarray, " s"]
    boundary: Float[np.ndarray, " b"]
    rounds: int = eqx.field(static=True)
    changed: float = eqx.field(static=True)

    @property
    def n(self) -> int:
        return len(self.boundary) + 1


def diameter_ranks(
    diameter: Float[np.ndarray, " s"], start: Int[np.ndarray, " s"], tolerance: float
) -> Ranks:
    """Orders by ranges of diameter, counted from 0, refined from `start` round by round.

    In each round the mean and the standard deviation of the diameters in every order set the
    boundaries between the orders, and every segment goes to the order in whose range it lies. An
    order left without segments is no order, and those above it move down. The rounds end when
    the last one moved no more than the fraction `tolerance` of the segments.

    **Source:** Kassab et al. (1993), Am. J. Physiol. 265:H350.
    """
    rank = np.unique(start, return_inverse=True)[1].astype(np.int64)
    boundary, changed, rounds = np.zeros(0), 1.0, 0
    while changed > tolerance and rounds < _MOST_ROUNDS:
        mean, sd = moments(diameter, rank, int(rank.max()) + 1)
        # boundaries that cross over leave the order between them without a range
        boundary = np.maximum.accumulate(order_boundaries(mean, np.nan_to_num(sd)))
        refined = np.searchsorted(boundary, diameter)
        changed, rounds = float(np.mean(refined != rank)), rounds + 1
        occupied, rank = np.unique(refined, return_inverse=True)
        boundary = boundary[occupied[1:] - 1]
    return Ranks(rank, boundary, rounds, changed)


def given_ranks(
    diameter: Float[np.ndarray, " s"], boundary: Float[np.ndarray, " b"]
) -> tuple[Ranks, int]:
    """Orders by given ranges of diameter, counted from the lowest that has a segment.

    **Returns:** the orders, and how many ranges lie below the lowest.
    """
    rank = np.searchsorted(boundary, diameter)
    lowest, highest = int(rank.min()), int(rank.max())
    return Ranks(rank - lowest, boundary[lowest:highest], 0, 0.0), lowest


def moments(
    value: Float[np.ndarray, " i"], group: Int[np.ndarray, " i"], n: int
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Mean and sample standard deviation of each group; NaN of none, and of one for the latter."""
    count = np.bincount(group, minlength=n)
    mean = ratio(np.bincount(group, weights=value, minlength=n), count)
    square = np.bincount(group, weights=(value - mean[group]) ** 2, minlength=n)
    return mean, np.sqrt(ratio(square, count - 1))


def ratio(above: np.ndarray, below: np.ndarray) -> Float[np.ndarray, " n"]:
    """above / below, NaN where there is nothing below."""
    result = np.full(len(below), np.nan)
    np.divide(above, below, out=result, where=below > 0)
    return result


def elements(
    segments: Segments, rank: Int[np.ndarray, " s"]
) -> tuple[Int[np.ndarray, " s"], Bool[np.ndarray, " s"]]:
    """The element each segment belongs to, and whether the element begins with it.

    An element is a series of segments of one order. Where two daughters have their parent's
    order the wider one goes on with its element, the first listed of equals, and the other one
    begins a new element.
    """
    parent, s = segments.parent, len(rank)
    same = np.flatnonzero((parent >= 0) & (rank == rank[parent]))
    # unique() returns the first of each parent, so the widest must come first
    widest_first = same[np.lexsort((same, -segments.diameter[same], parent[same]))]
    continuing = widest_first[np.unique(parent[widest_first], return_index=True)[1]]
    link = np.arange(s)
    link[continuing] = parent[continuing]
    head = _first_of_chain(link)
    return np.unique(head, return_inverse=True)[1].astype(np.int64), head == np.arange(s)
