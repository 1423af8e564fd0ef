"""Aggregates that do not depend on how control volumes are numbered; on the host."""

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from jaxperf._native import array, function, INT

# Larger than rounding, so that the order of a sum hardly ever changes a rank.
_RESOLVED = 1e-9
# Odd numbers without meaning: they spread what differs a little over the unit interval.
_SPREAD = (7919.0 * 0.6180339887, 104729.0 * 0.4142135623)
# |T_ij| over √(D_i D_j) from which on two control volumes may share an aggregate.
STRONG = 0.04

_OF_INT64, _OF_REAL = array(np.int64), array(np.float64)
_greedy = function(
    "aggregate_greedy",
    *(INT, _OF_INT64, _OF_INT64, array(np.int32), _OF_REAL),
    *(_OF_INT64, _OF_INT64, _OF_INT64, _OF_REAL),
    returns=INT,
)


def rank(
    edge: Int[np.ndarray, "e 2"], coupling: Float[np.ndarray, " e"], n: int
) -> Float[np.ndarray, " n"]:
    """A number in [0, 1) for each control volume, from the couplings around it alone.

    It follows a control volume through renumbering, rotation and a change of units, and is as good
    as random on meshes without symmetry. Control volumes that no coupling tells apart share it.

    **Arguments:** `coupling`, T_ij/√(D_i D_j).
    """
    both = np.concatenate([edge[:, 0], edge[:, 1]])
    other = np.concatenate([edge[:, 1], edge[:, 0]])
    twice = np.tile(coupling, 2)
    around = lambda value: np.bincount(both, weights=value, minlength=n)
    number = around(twice**2)
    for spread in _SPREAD:
        number = np.round(number / _RESOLVED) * _RESOLVED
        number = np.modf(spread * number)[0] % 1.0
        number = number + around(twice**2 * number[other])
    return np.modf(number)[0] % 1.0


def rank_of_voxels(
    cell_ijk: Int[np.ndarray, "n 3"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The same where cells lie in a grid: from their place in it; and their number in the grid."""
    ijk = cell_ijk - cell_ijk.min(axis=0)
    shape = ijk.max(axis=0) + 1
    number = np.asarray(np.ravel_multi_index(tuple(ijk.T), tuple(shape)))
    return number / float(np.prod(shape)), number.astype(float)


def aggregates(
    edge: Int[np.ndarray, "e 2"],
    coupling: Float[np.ndarray, " e"],
    rank: Float[np.ndarray, " n"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"]]:
    """Disjoint neighbourhoods of strongly coupled control volumes.

    In the order of their ranks, a control volume none of whose neighbours is taken yet becomes a
    root and takes them; what is left joins the aggregate to which it is coupled most (Vaněk,
    Mandel, Brezina, Computing 56:179, 1996, there in the order of the numbers).

    **Returns:** the aggregate (n,) of each control volume, and the root (m,) of each aggregate.
    """
    n = len(rank)
    strong = np.abs(coupling) > STRONG
    i, j = edge[strong].T
    value = np.abs(coupling[strong])
    matrix = sp.csr_array(
        (np.tile(value, 2), (np.concatenate([i, j]), np.concatenate([j, i]))), shape=(n, n)
    )
    order = np.argsort(rank, kind="stable")
    start, column = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    aggregate, root, first = np.full(n, -1), np.empty(n, np.int64), np.empty(n, np.int64)
    found = _greedy(n, order, start, column, matrix.data, aggregate, root, first, np.zeros(n))
    return aggregate, root[:found]
