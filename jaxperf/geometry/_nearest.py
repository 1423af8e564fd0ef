"""Nearest points, with the shapes that scipy's query leaves to the number of neighbours."""

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree


def nearest(
    point: Float[np.ndarray, "n d"], query: Float[np.ndarray, "m d"], k: int
) -> tuple[Float[np.ndarray, "m k"], Int[np.ndarray, "m k"]]:
    """Distances and indices of the k (at most n) points nearest to each query, nearest first."""
    k = min(k, point.shape[0])
    distance, index = KDTree(point).query(query, k=k)
    shape = (query.shape[0], k)
    return np.asarray(distance).reshape(shape), np.asarray(index).reshape(shape)
