"""Divides the wall into connected territories, one per tree, of given volumes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from .._native import array, function, INT
from ._wall import Wall

_ROUNDS = 150
# A root keeps its own cell while no offset exceeds another by the distance of their roots; this
# part of the distance is allowed, so that some wall about the root stays its own.
_ALLOWED = 0.8
_GAIN = 0.25

_OF_REAL, _OF_INT = array(np.float64), array(np.int64)
_owners = function("wall_owners", INT, INT, array(np.float64, 2), _OF_REAL, _OF_INT)
_ways = function(
    "wall_ways",
    *(array(np.int32, 3), _OF_INT, _OF_REAL, array(np.int64, 2), INT),
    *(_OF_INT, _OF_INT, _OF_REAL),
)


class Partition(NamedTuple):
    """Territories of the trees.

    - `cell_tree`: (c,), tree of each cell.
    - `share`: (r,), part of the wall's volume each tree got.
    - `count`: (r,), terminals of each tree.
    """

    cell_tree: np.ndarray
    share: np.ndarray
    count: np.ndarray


def divide_wall(
    wall: Wall,
    entry_cell: Int[np.ndarray, " r"],
    target: Float[np.ndarray, " r"],
    group: Int[np.ndarray, " r"],
    n_terminals: int,
) -> Partition:
    r"""Connected territories whose volumes come as near their targets as connection allows.

    Cell x belongs to the tree i of least $d(x, e_i) - w_i$, where d is the shortest way through
    the wall from the tree's entry. Every cell on that way then belongs to i too, so territories
    are connected for any offsets w, as long as the entries keep their own cells:
    $w_j - w_i < d(e_i, e_j)$. The offsets are found by ascent on the volumes: of every tree, then
    of every group of trees together, which has precedence. What could be reached is rounded to
    whole terminals, and the territories are fitted to those.

    **Arguments:**

    - `entry_cell`: cell where each tree enters the wall; all different.
    - `target`: share of the volume of each tree; sums to one.
    - `group`: vessel territory of each tree.

    **Errors:** [`InputError`][] where a part of the wall cannot be reached.
    """
    ijk = np.argwhere(wall.cell >= 0)
    number = wall.cell[tuple(ijk.T)]
    place = np.empty((number.size, 3), np.int64)
    place[number] = ijk
    distance = _shortest_ways(wall, place, entry_cell)
    if not np.isfinite(distance).all():
        raise InputError(
            f"{int(np.isinf(distance).any(axis=0).sum())} cells of the wall cannot be reached",
            where="growth",
            expected="a wall in one piece",
            fix="Keep its largest piece",
        )
    between = distance[:, entry_cell]
    n_groups = int(group.max()) + 1
    together = np.bincount(group, target, n_groups)
    volume = number.size * float(np.prod(wall.spacing))

    def ascend(
        offset: Float[np.ndarray, " r"], wanted: Float[np.ndarray, " r"], by_tree: bool, rounds: int
    ) -> tuple[Float[np.ndarray, " r"], Int[np.ndarray, " v"], Float[np.ndarray, " r"]]:
        """The best of some rounds: offsets, owners and shares."""
        best, least = None, np.inf
        size, group_size = np.cbrt(wanted * volume), np.cbrt(together * volume)
        for k in range(rounds):
            offset = _kept(offset - offset.mean(), between)
            owner = _least(distance, offset)
            share = np.bincount(owner, minlength=target.size) / number.size
            of_tree = np.clip(wanted / np.maximum(share, 1e-4) - 1.0, -1.0, 1.0)
            reached = np.maximum(np.bincount(group, share, n_groups), 1e-3)
            of_group = np.clip(together / reached - 1.0, -1.0, 1.0)
            miss = np.sum(of_tree**2) if by_tree else np.sum(of_group**2)
            if miss < least:
                best, least = (offset, owner, share), miss
            gain = _GAIN / (1.0 + 4.0 * k / rounds)
            offset = offset + gain * (of_group * group_size)[group]
            if by_tree:
                offset = offset + gain * of_tree * size
        assert best is not None
        return best

    offset, _, _ = ascend(np.zeros(target.size), target, True, _ROUNDS)
    offset, _, share = ascend(offset, target, False, _ROUNDS)
    # the feasible shares in whole terminals, and territories that fit those
    count = terminal_counts(share, together, group, n_terminals)
    _, owner, share = ascend(offset, count / n_terminals, True, 2 * _ROUNDS)
    return Partition(owner.astype(np.int32), share, count)


def terminal_counts(
    share: Float[np.ndarray, " r"],
    together: Float[np.ndarray, " g"],
    group: Int[np.ndarray, " r"],
    n_terminals: int,
) -> Int[np.ndarray, " r"]:
    """Terminals of each tree: first of each group, then inside it, by the largest remainders."""
    of_group = _rounded(together * n_terminals, np.bincount(group, minlength=together.size))
    count = np.empty(share.size, np.int64)
    for g, n in enumerate(of_group):
        own = group == g
        count[own] = _rounded(share[own] / share[own].sum() * n, np.ones(own.sum(), np.int64))
    return count


def _rounded(exact: Float[np.ndarray, " k"], least: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    """Whole numbers with the same sum, none below `least`."""
    count = np.maximum(least, np.floor(exact).astype(np.int64))
    total = round(float(exact.sum()))
    while count.sum() != total:
        step = 1 if count.sum() < total else -1
        room = np.where((step < 0) & (count == least), -np.inf, step * (exact - count))
        count[int(np.argmax(room))] += step
    return count


def _kept(offset: np.ndarray, between: np.ndarray) -> np.ndarray:
    """The least offsets that are no smaller and leave every root its own cell."""
    return np.max(offset[None, :] - _ALLOWED * between, axis=1)


def _least(distance: Float[np.ndarray, "r c"], offset: Float[np.ndarray, " r"]) -> np.ndarray:
    owner = np.empty(distance.shape[1], np.int64)
    _owners(*distance.shape, distance, offset, owner)
    return owner


def _shortest_ways(
    wall: Wall, place: Int[np.ndarray, "c 3"], start: Int[np.ndarray, " r"]
) -> Float[np.ndarray, "r c"]:
    """Length (m) of the shortest way from each of some cells to all others."""
    distance = np.full((len(start), len(place)), np.inf)
    for row, cell in zip(distance, start.tolist(), strict=True):
        heap, slot = np.empty(len(place), np.int64), np.full(len(place), -1)
        shape = np.array(wall.cell.shape)
        _ways(wall.cell, shape, wall.spacing, place, cell, heap, slot, row)
    return distance
