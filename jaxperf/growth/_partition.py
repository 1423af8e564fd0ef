"""Divides the wall into connected territories, one per tree, of given volumes."""

import heapq
from typing import NamedTuple, no_type_check

import numba
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ._wall import Wall

_ROUNDS = 400
# A root keeps its own cell while no offset exceeds another by the distance of their roots; this
# part of the distance is allowed, so that some wall about the root stays its own.
_ALLOWED = 0.8
_GAIN = 0.25


class Partition(NamedTuple):
    """Territories of the trees.

    - `cell_tree`: (c,), tree of each cell.
    - `share`: (r,), part of the wall's volume each tree got.
    """

    cell_tree: np.ndarray
    share: np.ndarray


def divide_wall(
    wall: Wall,
    entry_cell: Int[np.ndarray, " r"],
    target: Float[np.ndarray, " r"],
    group: Int[np.ndarray, " r"],
) -> Partition:
    r"""Connected territories whose volumes come as near their targets as connection allows.

    Cell x belongs to the tree i of least $d(x, e_i) - w_i$, where d is the shortest way through
    the wall from the tree's entry. Every cell on that way then belongs to i too, so territories
    are connected for any offsets w, as long as the entries keep their own cells:
    $w_j - w_i < d(e_i, e_j)$. The offsets are found by ascent on the volumes: of every tree, and
    of every group of trees together, which has precedence.

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
    distance = np.stack([_ways(wall.cell, wall.spacing, place, int(e)) for e in entry_cell])
    if not np.isfinite(distance).all():
        raise InputError(
            f"{int(np.isinf(distance).any(axis=0).sum())} cells of the wall cannot be reached",
            where="growth",
            expected="a wall in one piece",
            fix="Keep its largest piece",
        )
    between = distance[:, entry_cell]
    n, n_groups = number.size, int(group.max()) + 1
    together = np.bincount(group, target, n_groups)
    size = np.cbrt(target * n * np.prod(wall.spacing))
    group_size = np.cbrt(together * n * np.prod(wall.spacing))
    offset = np.zeros(target.size)
    best, best_miss = None, np.inf
    for k in range(_ROUNDS):
        offset = _kept(offset - offset.mean(), between)
        owner = _least(distance, offset)
        share = np.bincount(owner, minlength=target.size) / n
        reached = np.bincount(group, share, n_groups)
        miss = np.abs(reached / together - 1.0).max()
        late = k >= _ROUNDS // 2
        # the first half comes near every tree's target, the second meets the groups'
        if late and miss < best_miss:
            best, best_miss = (owner, share), miss
        gain = _GAIN / (1.0 + 4.0 * k / _ROUNDS)
        of_group = (np.clip(together / np.maximum(reached, 1e-3) - 1, -1, 1) * group_size)[group]
        of_tree = np.clip(target / np.maximum(share, 1e-4) - 1.0, -1.0, 1.0) * size
        offset = offset + gain * (of_group + (0.0 if late else 1.0) * of_tree)
    assert best is not None
    return Partition(best[0].astype(np.int32), best[1])


def _kept(offset: np.ndarray, between: np.ndarray) -> np.ndarray:
    """The least offsets that are no smaller and leave every root its own cell."""
    return np.max(offset[None, :] - _ALLOWED * between, axis=1)


@numba.njit(cache=True)
@no_type_check
def _least(distance, offset):
    owner = np.zeros(distance.shape[1], np.int64)
    for x in range(distance.shape[1]):
        best = np.inf
        for i in range(distance.shape[0]):
            value = distance[i, x] - offset[i]
            if value < best:
                best = value
                owner[x] = i
    return owner


@numba.njit(cache=True)
@no_type_check
def _ways(cell, spacing, place, start):
    """Length of the shortest way from one cell to all others over their 26 neighbours.

    **Source:** E. W. Dijkstra (1959), Numer. Math. 1:269; a heap with outdated entries.
    """
    n = place.shape[0]
    distance = np.full(n, np.inf)
    distance[start] = 0.0
    queue = [(0.0, start)]
    while len(queue) > 0:
        d, x = heapq.heappop(queue)
        if d > distance[x]:
            continue
        i, j, k = place[x, 0], place[x, 1], place[x, 2]
        for a in range(-1, 2):
            for b in range(-1, 2):
                for c in range(-1, 2):
                    y = cell[i + a, j + b, k + c]
                    if y < 0 or y == x:
                        continue
                    step = np.sqrt(
                        (a * spacing[0]) ** 2 + (b * spacing[1]) ** 2 + (c * spacing[2]) ** 2
                    )
                    if d + step < distance[y]:
                        distance[y] = d + step
                        heapq.heappush(queue, (d + step, np.int64(y)))
    return distance
