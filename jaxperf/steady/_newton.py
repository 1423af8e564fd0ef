"""Newton's method with a globalised step, and the one implicit-function rule of the project.

A system F(x; θ) = 0 is a Module that holds its parameters θ as leaves. Its solution x(θ) obeys

    ∂F/∂x · ẋ = − ∂F/∂θ · θ̇,

so one linearised solve differentiates it in forward mode, and the transposed solve in reverse.
Both the residual and the linearised solve are evaluated at the solution returned by the very
function that carries the rule, so the rule differentiates recursively: second derivatives are
right, where a stop-gradient with one correction step would give zero.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._misc import by_precision
from .._results import RESULTS


class LinearStep(eqx.Module):
    """The solution of one linearised system, its iterations, and whether it was found."""

    value: PyTree
    iterations: Int[Array, ""]
    converged: Array


class AbstractSystem(eqx.Module):
    """Nonlinear equations with their own linearised solver."""

    @abstractmethod
    def residual(self, x: PyTree) -> PyTree:
        """F(x)."""

    @abstractmethod
    def linear_solve(self, x: PyTree, right: PyTree, rtol: Float[Array, ""] | float) -> LinearStep:
        """Solve ∂F/∂x · value = right; linear and differentiable in `right`."""

    @abstractmethod
    def scale(self, x: PyTree) -> PyTree:
        """What each entry of the residual is measured against, in the residual's layout."""

    @abstractmethod
    def is_admissible(self, x: PyTree) -> Array:
        """Whether `x` lies where the equations hold."""


class AbstractAdjoint(eqx.Module):
    """How a solve is differentiated."""


class ImplicitAdjoint(AbstractAdjoint):
    """The implicit-function rule: one linearised solve, any order of derivative."""


class UnrolledAdjoint(AbstractAdjoint):
    """Differentiate through a fixed number of undamped Newton steps: a check for small systems.

    Memory and time grow with `steps`; `max_steps` has no effect.
    """

    steps: int = eqx.field(static=True, default=12)


class Newton(eqx.Module):
    """Newton's method with backtracking.

    **Attributes:** `tolerance`, on the residual relative to the system's scale; where `None`,
    1e-12 in double and 2e-5 in single precision.
    """

    tolerance: float | None = eqx.field(static=True, default=None)


class Root(eqx.Module):
    """A root: `value`, and how it was found."""

    value: PyTree
    result: RESULTS
    steps: Int[Array, ""]
    linear_iterations: Int[Array, ""]
    residual: Float[Array, ""]


class _State(eqx.Module):
    x: PyTree
    residual: PyTree
    merit: Float[Array, ""]
    steps: Int[Array, ""]
    linear_iterations: Int[Array, ""]
    result: RESULTS


class _Trial(eqx.Module):
    length: Float[Array, ""]
    x: PyTree
    residual: PyTree
    merit: Float[Array, ""]
    tries: Int[Array, ""]


_LARGEST_TRIES = 25


def _default_rtol(x: PyTree) -> float:
    """How well a linear system is solved for a derivative."""
    return by_precision(jax.tree.leaves(x)[0], float64=1e-11, float32=1e-5)


def _merit(residual: PyTree, scale: PyTree) -> Float[Array, ""]:
    relative = jax.tree.map(lambda r, s: jnp.max(jnp.abs(r) / s, initial=0.0), residual, scale)
    return jnp.max(jnp.stack(jax.tree.leaves(relative)))


def _moved(x: PyTree, step: PyTree, length: Array) -> PyTree:
    return jax.tree.map(lambda a, b: a - length * b, x, step)


def _backtrack(
    system: AbstractSystem, state: _State, step: PyTree, scale: PyTree, merit: Array
) -> _Trial:
    """Halve the step until the residual falls below `merit`; the loop starts at twice the full
    step, so that the residual is compiled once."""
    one = jnp.ones((), state.merit.dtype)

    def rejected(trial: _Trial) -> Bool[Array, ""]:
        # written so that a NaN merit is rejected
        falls = trial.merit <= (1 - 1e-4 * trial.length) * merit
        return (trial.tries == 0) | (~falls & (trial.tries < _LARGEST_TRIES))

    def halved(trial: _Trial) -> _Trial:
        length = 0.5 * trial.length
        x = _moved(state.x, step, length)
        residual = system.residual(x)
        return _Trial(length, x, residual, _merit(residual, scale), trial.tries + 1)

    start = _Trial(2 * one, state.x, state.residual, jnp.inf * one, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(rejected, halved, start)


def _step(system: AbstractSystem, state: _State) -> _State:
    # Eisenstat–Walker: no linear system is solved better than the outer residual deserves.
    floor = by_precision(state.merit, float64=1e-11, float32=1e-6)
    rtol = jnp.clip(0.1 * state.merit, floor, 1e-2)
    step = system.linear_solve(state.x, state.residual, rtol)
    # The first step solves the equations linearised at the guess, which has no scale yet: it is
    # taken in full and gives one. From there on every step must lower the residual, both
    # measured by the scale the step starts from.
    first = state.steps == 0
    full = _moved(state.x, step.value, jnp.ones((), state.merit.dtype))
    scale = system.scale(jax.tree.map(lambda a, b: jnp.where(first, a, b), full, state.x))
    merit = jnp.where(first, jnp.inf, _merit(state.residual, scale)).astype(state.merit.dtype)
    trial = _backtrack(system, state, step.value, scale, merit)
    result = RESULTS.where(trial.merit < merit, RESULTS.successful, RESULTS.line_search_stalled)
    result = RESULTS.where(jnp.isfinite(trial.merit), result, RESULTS.nonfinite)
    result = RESULTS.where(step.converged, result, RESULTS.linear_solver_failed)
    return _State(
        trial.x,
        trial.residual,
        _merit(trial.residual, system.scale(trial.x)),
        state.steps + 1,
        state.linear_iterations + step.iterations,
        result,
    )


def _newton(
    system: AbstractSystem,
    x0: PyTree,
    is_asked: Bool[Array, ""],
    max_steps: int,
    tolerance: float,
) -> Root:
    zero = jnp.zeros((), jnp.int32)
    unknown = jnp.full((), jnp.inf, jax.tree.leaves(x0)[0].dtype)
    begun = _asked(is_asked, RESULTS.successful)
    state = _State(x0, system.residual(x0), unknown, zero, zero, begun)

    def unfinished(state: _State) -> Bool[Array, ""]:
        go = ~(state.merit <= tolerance) & (state.steps < max_steps)
        return go & (state.result == RESULTS.successful)

    state = jax.lax.while_loop(unfinished, lambda s: _step(system, s), state)
    # A step that cannot lower a residual at round-off has arrived.
    round_off = max(tolerance, by_precision(unknown, float64=1e-11, float32=2e-4))
    stalled = (state.result == RESULTS.line_search_stalled) & (state.merit <= round_off)
    result = RESULTS.where(stalled, RESULTS.successful, state.result)
    late = ~stalled & ~(state.merit <= tolerance) & (result == RESULTS.successful)
    result = RESULTS.where(late, RESULTS.max_steps_reached, result)
    shut = (result == RESULTS.successful) & ~system.is_admissible(state.x)
    result = RESULTS.where(shut, RESULTS.vessel_collapsed, result)
    return Root(state.x, result, state.steps, state.linear_iterations, state.merit)


def _asked(is_asked: Bool[Array, ""], result: RESULTS) -> RESULTS:
    return RESULTS.where(is_asked, result, RESULTS.out_of_range)


def _is_none(leaf: object) -> bool:
    return leaf is None


@eqx.filter_custom_jvp
def _implicit_root(
    system: AbstractSystem,
    x0: PyTree,
    is_asked: Bool[Array, ""],
    *,
    max_steps: int,
    tolerance: float,
) -> Root:
    return _newton(system, x0, is_asked, max_steps, tolerance)


@_implicit_root.def_jvp
def _implicit_root_jvp(
    primals: tuple[AbstractSystem, PyTree, Bool[Array, ""]],
    tangents: tuple[AbstractSystem, PyTree, None],
    *,
    max_steps: int,
    tolerance: float,
) -> tuple[Root, Root]:
    system, x0, is_asked = primals
    system_dot, _, _ = tangents
    root = _implicit_root(system, x0, is_asked, max_steps=max_steps, tolerance=tolerance)
    # Where no root was found there is no derivative. Under jit(grad(f)) this is all a caller sees:
    # a check on the value alone may be dead code there.
    found = root.result == RESULTS.successful
    at = jax.tree.map(lambda v: jnp.where(found, v, jnp.nan).astype(v.dtype), root.value)
    residual, dot = eqx.filter_jvp(lambda s: s.residual(at), (system,), (system_dot,))
    # A part of the residual that no tangent reaches comes back as None.
    residual_dot = jax.tree.map(
        lambda d, r: jnp.zeros_like(r) if d is None else d, dot, residual, is_leaf=_is_none
    )
    step = system.linear_solve(at, residual_dot, _default_rtol(at))
    nothing = jax.tree.map(lambda _: None, root)
    value_dot = jax.tree.map(jnp.negative, step.value)
    root_dot = eqx.tree_at(
        lambda r: (r.value, r.residual),
        nothing,
        (value_dot, jnp.zeros_like(root.residual)),
        is_leaf=_is_none,
    )
    return root, root_dot


def _unrolled_root(system: AbstractSystem, x0: PyTree, steps: int, tolerance: float) -> Root:
    rtol = _default_rtol(x0)

    def step(
        carry: tuple[PyTree, Int[Array, ""]], _: None
    ) -> tuple[tuple[PyTree, Int[Array, ""]], None]:
        x, iterations = carry
        linear = system.linear_solve(x, system.residual(x), rtol)
        moved = _moved(x, linear.value, jnp.ones((), jax.tree.leaves(x)[0].dtype))
        return (moved, iterations + linear.iterations), None

    (x, iterations), _ = jax.lax.scan(step, (x0, jnp.zeros((), jnp.int32)), None, length=steps)
    merit = _merit(system.residual(x), system.scale(x))
    # Steps that are all taken in full end on the round-off of the linear solves.
    done = merit <= max(tolerance, by_precision(merit, float64=1e-10, float32=1e-3))
    result = RESULTS.where(done, RESULTS.successful, RESULTS.max_steps_reached)
    result = RESULTS.where(jnp.isfinite(merit), result, RESULTS.nonfinite)
    shut = (result == RESULTS.successful) & ~system.is_admissible(x)
    result = RESULTS.where(shut, RESULTS.vessel_collapsed, result)
    return Root(x, result, jnp.asarray(steps, jnp.int32), iterations, merit)


def default_tolerance(like: Array) -> float:
    """The tolerance of [`Newton`][] where none is given."""
    return by_precision(like, float64=1e-12, float32=2e-5)


def find_root(
    system: AbstractSystem,
    x0: PyTree,
    method: Newton,
    *,
    adjoint: AbstractAdjoint,
    max_steps: int,
    is_asked: Bool[Array, ""] | bool = True,
) -> Root:
    """Solve F(x) = 0.

    **Arguments:** `x0`, a guess, by which nothing is differentiated; `max_steps`, for
    `ImplicitAdjoint`; `is_asked`, whether the numbers of the system are in their ranges, without
    which nothing is tried and the root ends as `out_of_range`.

    A derivative of a solve that found no root, or whose own linear system was not solved, is NaN.

    **Returns:** a [`Root`][].
    """
    x0, is_asked = jax.lax.stop_gradient(x0), jnp.asarray(is_asked)
    tolerance = method.tolerance
    if tolerance is None:
        tolerance = default_tolerance(jax.tree.leaves(x0)[0])
    if isinstance(adjoint, UnrolledAdjoint):
        root = _unrolled_root(system, x0, adjoint.steps, tolerance)
        root = eqx.tree_at(lambda r: r.result, root, _asked(is_asked, root.result))
    elif isinstance(adjoint, ImplicitAdjoint):
        root = _implicit_root(system, x0, is_asked, max_steps=max_steps, tolerance=tolerance)
    else:
        raise ValueError(
            f"adjoint is {adjoint!r}; expected ImplicitAdjoint() or UnrolledAdjoint(steps)"
        )
    return root
