"""Bounds of the error of Darcy solves, beside direct solves by SciPy of the raw arrays."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spla

from jaxperf import RESULTS
from jaxperf.darcy import ConjugateGradient, darcy_mesh, darcy_operator, DarcyProblem, multigrid

from . import _darcy_cases as cases
from ._report import Report

_VOXELS, _RTOL = 4e3, 1e-8
# The bars: of the bound over the error, at least, and at most on ordinary and on hard problems.
LEAST, ORDINARY, HARD = 1.0, 3.0, 20.0
_CONTRASTS = (1.0, 1e3, 1e6, 1e8)


def relative_error(
    edge: np.ndarray,
    transmissibility: np.ndarray,
    sink: np.ndarray,
    source: np.ndarray,
    pressure: np.ndarray,
) -> float:
    """Of a pressure over the exact one in the energy norm.

    The exact one is SciPy's, refined with residuals in extended precision.
    """
    t, s, f = (np.asarray(x, np.longdouble) for x in (transmissibility, sink, source))
    (i, j), n = np.asarray(edge).T, len(s)
    off = sp.csr_array((np.tile(-transmissibility, 2), (np.r_[i, j], np.r_[j, i])), shape=(n, n))
    factor = spla.splu((off + sp.diags_array(sink - off.sum(axis=1))).tocsc())
    exact = np.zeros(n, np.longdouble)
    for _ in range(8):
        flux, left = t * (exact[i] - exact[j]), f - s * exact
        np.subtract.at(left, i, flux)
        np.add.at(left, j, flux)
        exact = exact + factor.solve(np.asarray(left, float))
    square = lambda x: np.sum(t * (x[i] - x[j]) ** 2) + np.sum(s * x**2)
    return float(np.sqrt(square(np.asarray(pressure, np.longdouble) - exact) / square(exact)))


def true_and_bound(problem: DarcyProblem, solution: Any) -> tuple[float, float]:
    """The error of a solution, and what it says of it."""
    operator = problem.operator
    true = relative_error(
        np.asarray(operator.graph.edge),
        np.asarray(operator.transmissibility),
        np.asarray(operator.sink),
        np.asarray(problem.source),
        np.asarray(solution.pressure_tissue),
    )
    return true, float(solution.error_estimate)


def bounds(report: Report, log: Callable[[str], None]) -> None:
    """Bound over error for contrasts of K, scars, thin walls and unequal sinks; rows and bars."""
    mesh = cases.voxels(_VOXELS)
    prepared = darcy_mesh(mesh)
    rng = np.random.default_rng(0)
    depth = np.linalg.norm(mesh.centre - mesh.centre[len(mesh.centre) // 2], axis=1)
    inside, shell = depth < 8e-3, np.abs(depth - 1e-2) < 0.6 * float(mesh.spacing[0])
    noise, uneven = rng.uniform(-0.5, 0.5, mesh.n_cells), rng.uniform(-4.0, 1.0, mesh.n_cells)
    sink = cases.BETA * mesh.volume
    lines = []
    for contrast in _CONTRASTS:
        k = contrast**noise
        for what, field, drained in (
            ("plain", k, sink),
            ("scar", k, np.where(inside, 0.0, sink)),
            ("unequal sinks", k, sink * 10.0**uneven),
            ("thin wall", np.where(shell, 1e-8 * k, k), np.where(inside, 0.0, sink)),
        ):
            of_k = jnp.asarray(cases.PERMEABILITY * field)
            operator = darcy_operator(
                prepared.graph, prepared.transmissibility(of_k), jnp.asarray(drained)
            )
            problem = DarcyProblem(operator, jnp.asarray(sink * (1.0 + np.tanh(1e2 * depth))))
            methods = {
                "this K": multigrid(prepared, of_k, rtol=_RTOL),
                "another K": multigrid(prepared, rtol=_RTOL),
                "diagonal": ConjugateGradient(_RTOL),
            }
            for name, method in methods.items():
                found = cases.run(problem, method)
                true, bound = true_and_bound(problem, found)
                lines.append(
                    {
                        "what": what,
                        "contrast": contrast,
                        "preconditioner": name,
                        "error": true,
                        "bound": bound,
                        "ratio": bound / true,
                        "ended": RESULTS[found.result] or "solved",
                    }
                )
    report.tables[f"bound of the error, {mesh.n_cells} voxels"] = lines
    easy = [
        line["ratio"]
        for line in lines
        if line["contrast"] <= 1e3 and line["what"] in ("plain", "scar")
    ]
    every = [line["ratio"] for line in lines]
    told = f"{len(lines)} problems, SciPy's direct solve; bar: "
    report.add("darcy.bound.least", min(every), "1", reference=f"{told}{LEAST:g} at least")
    report.add("darcy.bound.ordinary", max(easy), "1", reference=f"{told}{ORDINARY:g} at most")
    report.add("darcy.bound.hard", max(every), "1", reference=f"{told}{HARD:g} at most")
    log(f"bound over error: {min(every):.3f} … {max(every):.2f}, ordinary to {max(easy):.2f}")
