"""What Darcy's equation is solved by elsewhere: algebraic multigrid and direct solvers."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from ._report import seconds

# Direct solvers fill in: beyond so many unknowns they are left out.
_SUPERLU_MOST, _CHOLMOD_MOST = 40_000, 150_000


def relative_residual(matrix: Any, right: np.ndarray, found: Any) -> float:
    """‖b − A x‖/‖b‖."""
    return float(np.linalg.norm(right - matrix @ np.asarray(found)) / np.linalg.norm(right))


def peers(
    matrix: Any, right: np.ndarray, rtol: float, repeat: int
) -> Iterator[dict[str, float | str]]:
    """One line for every other solver: set-up and solve in seconds, each on one thread."""
    yield from _pyamg(matrix, right, rtol, repeat)
    if matrix.shape[0] <= _SUPERLU_MOST:
        yield _direct("SuperLU", matrix, right, _superlu)
    if matrix.shape[0] <= _CHOLMOD_MOST and importlib.util.find_spec("cvxopt"):
        yield _direct("CHOLMOD", matrix, right, _cholmod)


def _pyamg(matrix, right, rtol: float, repeat: int):
    import pyamg

    for name, build in (
        ("pyamg SA", pyamg.smoothed_aggregation_solver),
        ("pyamg RS", pyamg.ruge_stuben_solver),
    ):
        start = time.perf_counter()
        levels: Any = build(matrix)
        setup = time.perf_counter() - start
        residuals: list[float] = []
        solve = lambda levels=levels, **more: levels.solve(
            right, tol=rtol, accel="cg", maxiter=200, **more
        )
        found = solve(residuals=residuals)
        yield {
            "solver": name,
            "setup_s": setup,
            "solve_s": seconds(solve, repeat=repeat, warm_up=0),
            "iterations": len(residuals) - 1,
            "residual": relative_residual(matrix, right, found),
        }


def _direct(name: str, matrix, right, factorise: Callable) -> dict[str, float | str]:
    start = time.perf_counter()
    solve = factorise(matrix)
    setup = time.perf_counter() - start
    start = time.perf_counter()
    found = solve(right)
    return {
        "solver": name,
        "setup_s": setup,
        "solve_s": time.perf_counter() - start,
        "iterations": 0,
        "residual": relative_residual(matrix, right, found),
    }


def _superlu(matrix) -> Callable:
    factor = splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True})
    return factor.solve


def _cholmod(matrix) -> Callable:
    from cvxopt import cholmod, matrix as dense, spmatrix  # pyright: ignore

    lower = sp.tril(matrix).tocoo()
    factor = spmatrix(lower.data, lower.row.tolist(), lower.col.tolist(), matrix.shape)
    symbolic = cholmod.symbolic(factor)
    cholmod.numeric(factor, symbolic)

    def solve(right):
        unknown = dense(right)
        cholmod.solve(symbolic, unknown)
        return np.array(unknown).ravel()

    return solve
