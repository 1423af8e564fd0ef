"""Darcy solvers behind one interface, and the verb that uses them."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._misc import by_precision, NoBarePressure
from .._padding import cut, cut_solution, is_real, kept, pad_problem, padded
from .._results import conclude, ended_as, RESULTS, SolveError
from ._bound import accuracy
from ._krylov import KrylovSolution, solve_krylov
from ._operator import darcy_operator, DarcyOperator
from ._padding import pad_graph


class DarcySolution(eqx.Module):
    """Darcy's pressure.

    **Attributes:** `pressure_tissue` (c,) Pa, NaN where none was found; `result`; `iterations`;
    `balance` (c,) m³/s, what is missing in each control volume; `residual`, its norm over that of
    the source; `error_estimate`, of the error of the pressure over the exact one in the energy norm
    √(pᵀA p), rounding counted (NaN where a solver has none); `is_bound`, whether the error is no
    larger than that: where no transmissibility is negative, as with two-point fluxes. It is an
    estimate elsewhere, as with full tensors. `tolerance`, the error asked for (infinite where none
    is): a successful solution has an `error_estimate` of that size at most, and one that has not
    ends as `inaccurate`.
    """

    pressure_tissue: Float[Array, " c"]
    result: RESULTS
    iterations: Int[Array, ""]
    balance: Float[Array, " c"]
    residual: Float[Array, ""]
    error_estimate: Float[Array, ""]
    is_bound: Bool[Array, ""]
    tolerance: Float[Array, ""]

    pressure = NoBarePressure("pressure_tissue")


def fixed_cost_solution(
    operator: DarcyOperator,
    source: Float[Array, " c"],
    pressure: Float[Array, " c"],
    steps: int,
    precondition: Callable[[Array], Array] | None = None,
) -> DarcySolution:
    """The solution of a solver without a tolerance, which found a pressure in so many steps.

    Successful where the pressure is a number and the operator has a level. `balance` and `residual`
    are of the pressure as it is. There is an `error_estimate` where there is a `precondition`, one
    linear, symmetric, positive definite map.
    """
    level = operator.has_level()
    balance = source - operator(pressure)
    residual = relative_norm(*jax.lax.stop_gradient((balance, source)))
    result = RESULTS.where(jnp.isfinite(residual), RESULTS.successful, RESULTS.linear_solver_failed)
    unknown = jnp.full((), jnp.nan, source.dtype)
    error, is_bound = unknown, jnp.asarray(False)
    if precondition is not None:
        sound = level & jnp.isfinite(residual)
        only = lambda x: jnp.where(sound, x, 0.0).astype(source.dtype)
        found = accuracy(
            operator, precondition, only(pressure), only(source), rtol=jnp.inf, max_steps=steps
        )
        error, is_bound = jnp.where(sound, found.error, unknown), found.is_bound & sound
    return DarcySolution(
        jnp.where(level, pressure, jnp.nan).astype(source.dtype),
        RESULTS.where(level, result, RESULTS.no_pressure_level),
        jnp.asarray(steps, jnp.int32),
        balance,
        residual,
        error,
        is_bound,
        jnp.full((), jnp.inf, source.dtype),
    )


class AbstractDarcySolver(eqx.Module):
    """Solves A p = source for a [`DarcyOperator`][].

    The coupled solve uses `precondition` inside its own Krylov method where
    `is_linear_symmetric` is true, and corrects by `solve` otherwise.
    """

    @property
    @abstractmethod
    def is_linear_symmetric(self) -> bool:
        """Whether `precondition` is one linear, symmetric, positive definite map."""

    @abstractmethod
    def init(self, operator: DarcyOperator) -> Any:
        """What is prepared once for an operator."""

    @abstractmethod
    def precondition(self, state: Any, residual: Float[Array, " c"]) -> Float[Array, " c"]:
        """An approximation of A⁻¹ residual."""

    @abstractmethod
    def solve(
        self, state: Any, source: Float[Array, " c"], *, max_steps: int | None = None
    ) -> DarcySolution:
        """Solve A p = source."""


class _JacobiState(eqx.Module):
    operator: DarcyOperator
    inverse_diagonal: Float[Array, " c"]


class ConjugateGradient(AbstractDarcySolver):
    """Conjugate gradients with the inverse diagonal as preconditioner.

    **Attributes:** `rtol`, on the residual over the source and on the error in the energy norm;
    where `None`, 1e-12 in double precision, and in single precision 1e-5 on the residual and 1e-4
    on the error, where rounding counts at its worst. `max_steps`, products with the matrix at most,
    those that check the error left out.
    """

    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=20_000)

    @property
    def is_linear_symmetric(self) -> bool:
        return True

    def init(self, operator: DarcyOperator) -> _JacobiState:
        return _JacobiState(operator, 1.0 / operator.diagonal)

    def precondition(self, state: _JacobiState, residual: Float[Array, " c"]) -> Float[Array, " c"]:
        return state.inverse_diagonal * residual

    def solve(
        self,
        state: _JacobiState,
        source: Float[Array, " c"],
        *,
        max_steps: int | None = None,
    ) -> DarcySolution:
        steps = self.max_steps if max_steps is None else max_steps
        return conjugate_gradient_solution(self, state, source, self.rtol, steps)


def conjugate_gradient_solution(
    solver: AbstractDarcySolver,
    state: Any,
    source: Float[Array, " c"],
    rtol: float | None,
    max_steps: int,
) -> DarcySolution:
    """Conjugate gradients with a solver's own preconditioner; `state` has the operator.

    They end by the residual. Then the error is looked at, and where it is larger than `rtol` the
    pressure is mended by further ones.
    """
    asked = by_precision(source, float64=1e-12, float32=1e-4) if rtol is None else rtol
    default = by_precision(source, float64=1e-12, float32=1e-5)
    rtol = default if rtol is None else rtol
    level = state.operator.has_level()
    # The preconditioner changes no solution, so nothing is differentiated through it.
    precondition = lambda r: solver.precondition(jax.lax.stop_gradient(state), r)
    found = solve_krylov(
        state.operator,
        precondition,
        # Without a level there is nothing to find, and no iteration is spent on it.
        jnp.where(level, source, jnp.zeros_like(source)),
        method="conjugate_gradient",
        rtol=rtol,
        max_steps=max_steps,
    )
    solved = level & found.converged & found.definite
    only = lambda x: jnp.where(solved, x, 0.0).astype(source.dtype)
    checked = accuracy(
        state.operator,
        precondition,
        only(found.value),
        only(source),
        rtol=asked,
        max_steps=found.iterations,
    )
    # The mended pressure with the derivative of the one that was found.
    mended = checked.pressure + (found.value - jax.lax.stop_gradient(found.value))
    pressure = jnp.where(solved, mended, jnp.nan).astype(source.dtype)
    balance = source - state.operator(pressure)
    residual = relative_norm(*jax.lax.stop_gradient((balance, source)))
    ending = RESULTS.where(checked.error <= asked, RESULTS.successful, RESULTS.inaccurate)
    ending = RESULTS.where(solved, ending, _ending(found, level))
    return DarcySolution(
        pressure,
        ending,
        found.iterations + checked.steps,
        balance,
        residual,
        jnp.where(solved, checked.error, jnp.nan).astype(source.dtype),
        checked.is_bound & solved,
        jnp.asarray(asked, source.dtype),
    )


def relative_norm(value: Array, to: Array) -> Float[Array, ""]:
    """‖value‖ over ‖to‖; squares of flows of single control volumes leave the range of float32."""
    size = jnp.max(jnp.abs(to), initial=0.0)
    size = jnp.where(size > 0, size, jnp.ones_like(size))
    length = jnp.linalg.norm(to / size)
    return jnp.linalg.norm(value / size) / jnp.where(length > 0, length, jnp.ones_like(length))


def _ending(found: KrylovSolution, level: Bool[Array, ""]) -> RESULTS:
    result = RESULTS.where(found.converged, RESULTS.successful, RESULTS.linear_solver_failed)
    result = RESULTS.where(found.definite, result, RESULTS.not_positive_definite)
    return RESULTS.where(level, result, RESULTS.no_pressure_level)


class DarcyProblem(eqx.Module):
    """−∇·K∇p + s p = f on control volumes, without flux through the surface.

    **Attributes:** `operator`; `source` (c,) m³/s in each control volume; `fixed` (c,), the
    control volumes of prescribed pressure (none where left out), and `pressure_fixed` (c,) Pa.
    """

    operator: DarcyOperator
    source: Float[Array, " c"]
    fixed: Bool[Array, " c"] | None = None
    pressure_fixed: Float[Array, " c"] | None = None

    def __check_init__(self) -> None:
        if (self.fixed is None) != (self.pressure_fixed is None):
            raise ValueError("one of fixed and pressure_fixed is missing; expected both or neither")


def _sanitised(problem: DarcyProblem) -> DarcyProblem:
    """A problem whose padded entries are harmless, whatever stood there."""
    graph = problem.operator.graph
    if graph.real is None:
        return problem
    cell = is_real(graph.real.cell, graph.n_cells)
    fixed = problem.fixed
    return DarcyProblem(
        darcy_operator(graph, problem.operator.transmissibility, problem.operator.sink),
        kept(problem.source, cell, 0.0),
        None if fixed is None else fixed & cell,
        problem.pressure_fixed,
    )


def _eliminated(problem: DarcyProblem) -> tuple[DarcyOperator, Array]:
    """Take control volumes of prescribed pressure out of the system, keeping it symmetric.

    An edge to one of them becomes a sink at that pressure; the diagonal stays as it was.
    """
    operator, fixed, known = problem.operator, problem.fixed, problem.pressure_fixed
    if fixed is None or known is None:
        return operator, problem.source
    known = jnp.where(fixed, known, 0.0).astype(known.dtype)
    source = jnp.where(fixed, 0.0, problem.source - operator(known)).astype(known.dtype)
    source = source + operator.diagonal * known
    first, second = operator.graph.edge[:, 0], operator.graph.edge[:, 1]
    joined = fixed[first] | fixed[second]
    kept = jnp.where(joined, 0.0, operator.transmissibility).astype(known.dtype)
    taken = operator.transmissibility - kept
    sink = operator.sink.at[first].add(taken).at[second].add(taken)
    # One that hangs on nothing has no equation yet.
    alone = fixed & (operator.diagonal == 0)
    unit = jnp.maximum(jnp.max(operator.diagonal), jnp.finfo(known.dtype).tiny)
    sink, source = jnp.where(alone, unit, sink), jnp.where(alone, unit * known, source)
    return darcy_operator(operator.graph, kept, sink), source


def solve_darcy(
    problem: DarcyProblem,
    method: AbstractDarcySolver = ConjugateGradient(),
    *,
    max_steps: int | None = None,
    throw: bool = True,
) -> DarcySolution:
    """Solve Darcy's equation on a graph.

    The derivative is that of the linear system, ∂p = A⁻¹(∂f − ∂A p), by one more solve; it holds
    to any order. Its p is that before it was mended, and its solve ends by its residual: its error
    may reach √κ `rtol`, with κ the condition of A, where that of p is bounded. A connected
    piece of the mesh without a sink or a prescribed pressure is refused.

    **Arguments:** `method`, an [`AbstractDarcySolver`][]; `max_steps` overrides its own limit;
    `throw`, whether to raise where no solution is found; under a transformation nothing is
    raised, and values and derivatives of a failed solve are NaN, as in `solve_steady`.

    **Returns:** a [`DarcySolution`][].

    **Errors:** [`SolveError`][] naming a control volume where no solution is found.

    **Example:**

    ```python
    import jaxperf as jp
    mesh = jp.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    volume = mesh.graph.volume
    operator = jp.darcy_operator(mesh.graph, mesh.transmissibility(2e-9), 1e-5 * volume)
    pressure = jp.solve_darcy(jp.DarcyProblem(operator, 0.02 * volume)).pressure_tissue
    ```
    """
    # A default left out and the same value passed would be two programs: see `solve_perfusion`.
    solution = _solve(problem, method, max_steps)
    return conclude(
        solution, throw=throw, failure=lambda s: SolveError(s.result, _worst_cell(problem, s))
    )


@eqx.filter_jit
def _solve(
    problem: DarcyProblem, method: AbstractDarcySolver, max_steps: int | None
) -> DarcySolution:
    operator, source = _eliminated(_sanitised(problem))
    return method.solve(method.init(operator), source, max_steps=max_steps)


def _worst_cell(problem: DarcyProblem, solution: DarcySolution) -> str:
    """The control volume a failed solve points at: of a piece without a level, else of a diagonal
    that is not positive, else of the largest imbalance."""
    operator, graph = problem.operator, problem.operator.graph
    if ended_as(solution.result, RESULTS.inaccurate):
        error, rtol = float(solution.error_estimate), float(solution.tolerance)
        told = "bounded by" if bool(solution.is_bound) else "estimated as"
        return (
            f"The error over the pressure, in the energy norm, is {told} {error:.2g}; `rtol` is "
            f"{rtol:.2g}."
        )
    if ended_as(solution.result, RESULTS.no_pressure_level):
        held = np.asarray(operator.sink) != 0
        held = held if problem.fixed is None else held | np.asarray(problem.fixed)
        piece = np.asarray(graph.piece)
        bare = ~np.isin(piece, piece[held])
        return f"Control volume {int(np.argmax(bare))} lies in such a piece."
    diagonal = np.asarray(operator.diagonal)
    bad = ~(diagonal > 0)
    if bad.any():
        i = int(np.argmax(bad))
        return f"The diagonal of control volume {i} is {diagonal[i]:.3g} m3/(s Pa)."
    missing = np.abs(np.asarray(solution.balance))
    if not np.isfinite(missing).any():
        return "No pressure is finite."
    return f"The largest imbalance is in control volume {int(np.nanargmax(missing))}."


_compiled_operator = eqx.filter_jit(darcy_operator)


@pad_problem.register
def _pad(problem: DarcyProblem) -> DarcyProblem:
    operator, graph = problem.operator, pad_graph(problem.operator.graph)
    n, fixed, known = graph.n_cells, problem.fixed, problem.pressure_fixed
    return DarcyProblem(
        _compiled_operator(
            graph,
            padded(operator.transmissibility, graph.edge.shape[0], 0.0),
            padded(operator.sink, n, 0.0),
        ),
        padded(problem.source, n, 0.0),
        None if fixed is None else padded(fixed, n, False),
        None if known is None else padded(known, n, 0.0),
    )


@cut_solution.register
def _cut(solution: DarcySolution, problem: DarcyProblem) -> DarcySolution:
    n = problem.operator.graph.n_cells
    real = cut(solution.pressure_tissue, n), cut(solution.balance, n)
    return eqx.tree_at(lambda s: (s.pressure_tissue, s.balance), solution, real)
