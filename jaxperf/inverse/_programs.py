"""The compiled programs of a fit; each is compiled once for a problem, whatever its data.

A linearised solve leaves its derivative as a linear map, so that one solve serves the residual,
and columns or rows of the Jacobian only where a step is accepted.
"""

import functools
from collections.abc import Callable
from typing import Any, cast, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._problem import InverseProblem

F = TypeVar("F", bound=Callable[..., Any])


def program(function: F) -> F:
    """`equinox.filter_jit` for which problems of one shape are one program, whatever their names.

    So the fits of two patients share what is compiled. Problems are arguments by position; inside,
    their entries have no names.
    """
    compiled: Callable[..., Any] = eqx.filter_jit(function)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return compiled(*(x.nameless if isinstance(x, InverseProblem) else x for x in args))

    return cast(F, run)


class Linearised(eqx.Module):
    """A solve and its derivative.

    **Attributes:** `xi`; `residual`, whitened; `warm`, where the next solve may start; `floats`
    and `rest`, which combine to the values and the output; `push`, from a tangent of ξ to one of
    `floats`.
    """

    xi: Float[Array, " p"]
    residual: Float[Array, " n"]
    warm: PyTree
    floats: PyTree
    rest: PyTree
    push: Callable[[Array], PyTree]

    @property
    def solved(self) -> tuple[dict[str, Array], PyTree]:
        """Values and output."""
        return eqx.combine(self.floats, self.rest)


@program
def start(problem: InverseProblem, xi: Float[Array, " p"]) -> PyTree:
    """Where solves near some coordinates may start; None for a model that starts anew."""
    return problem.solve(xi)[1]


@program
def solve_at(
    problem: InverseProblem, xi: Float[Array, " p"], warm: PyTree
) -> tuple[dict[str, Array], PyTree, PyTree]:
    """Values, output, and where the next solve may start."""
    output, after = problem.solve(xi, warm)
    return problem.values(xi), output, after


@program
def gradient_at(
    problem: InverseProblem, xi: Float[Array, " p"], warm: PyTree
) -> tuple[Float[Array, ""], Float[Array, " p"], PyTree]:
    """Objective (nats), its gradient, and where the next solve may start."""

    def objective(xi: Float[Array, " p"]) -> tuple[Float[Array, ""], PyTree]:
        residual, after = problem.residual(xi, warm)
        return 0.5 * (jnp.sum(residual**2) + jnp.sum(xi**2)), after

    (value, after), slope = jax.value_and_grad(objective, has_aux=True)(xi)
    return value, slope, after


@program
def linearise(problem: InverseProblem, xi: Float[Array, " p"], warm: PyTree) -> Linearised:
    """Solve once, and keep the derivative as a linear map."""
    static = None

    def run(xi: Float[Array, " p"]) -> tuple[PyTree, PyTree]:
        nonlocal static
        output, after = problem.solve(xi, warm)
        floats, rest = eqx.partition((problem.values(xi), output), eqx.is_inexact_array)
        rest, static = eqx.partition((rest, after), eqx.is_array)
        return floats, rest

    floats, push, aux = jax.linearize(run, xi, has_aux=True)
    rest, after = eqx.combine(aux, static)
    _, output = eqx.combine(floats, rest)
    return Linearised(xi, problem.misfit(output), after, floats, rest, push)


def is_forward(problem: InverseProblem) -> bool:
    """Whether the Jacobian is cheaper by columns (p tangents) than by rows (n adjoints)."""
    return problem.size <= problem.n_data


def n_columns(problem: InverseProblem) -> int:
    """Tangents or adjoints that one Jacobian costs."""
    return min(problem.size, problem.n_data)


@program
def jacobian(problem: InverseProblem, at: Linearised, chunk: int | None) -> Float[Array, "n p"]:
    """Derivative of the whitened residuals, `chunk` columns or rows at a time."""
    residual = lambda floats: problem.misfit(eqx.combine(floats, at.rest)[1])
    if is_forward(problem):
        column = lambda e: jax.jvp(residual, (at.floats,), (at.push(e),))[1]
        return _mapped(column, problem.size, chunk, at.xi).T
    pull = jax.linear_transpose(at.push, at.xi)
    back = jax.vjp(residual, at.floats)[1]
    return _mapped(lambda e: pull(*back(e))[0], problem.n_data, chunk, at.xi)


@eqx.filter_jit
def tangents(at: Linearised, chunk: int | None) -> PyTree:
    """Derivative of values and output by each coordinate: (p, …)."""
    return _mapped(at.push, at.xi.shape[0], chunk, at.xi)


def _mapped(
    function: Callable[[Array], PyTree], size: int, chunk: int | None, like: Array
) -> PyTree:
    units = jnp.eye(size, dtype=like.dtype)
    return jax.lax.map(function, units, batch_size=min(chunk or size, size))
