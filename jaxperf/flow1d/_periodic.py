"""The periodic state: the fixed point of the map over one cycle."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Int

from .._misc import InputError
from .._results import RESULTS
from ._flux import cell_pressure
from ._initial import initial_state
from ._march import March, run_cycles
from ._outlets import outlet_conductance, outlet_rate
from ._points import sample_points, SavePoints
from ._problem import Flow1DProblem
from ._semidiscretisation import FlowState, semidiscretise
from ._solve import check_solution, flow_result

# Up to this many outlet states one tangent for each is cheaper than the cycles it saves.
_MAX_TANGENTS = 32
# Of the linear system for the derivative, relative to its right-hand side.
_ADJOINT_TOLERANCE = 1e-9
_ADJOINT_CYCLES = 200


class PeriodicSolution(eqx.Module):
    """One cycle of periodic flow.

    **Attributes:** `time`, `pressure`, `flow`, `area`, `passed`: as in [`Flow1DSolution`][], over
    one cycle; `state`, at its start; `cycles`, the number of cycles it took, without the tangents
    of the Jacobian; `change`, the largest change over the last cycle, relative to the largest
    pressure and flow; `result`, `failed_at`, `courant`: as there.
    """

    time: Float[Array, " k"]
    pressure: Float[Array, "k m"]
    flow: Float[Array, "k m"]
    area: Float[Array, "k m"]
    passed: Float[Array, "k n"]
    state: FlowState
    cycles: Int[Array, ""]
    change: Float[Array, ""]
    result: RESULTS
    failed_at: Int[Array, ""]
    courant: Float[Array, ""]


def solve_periodic(
    problem: Flow1DProblem,
    *,
    points: SavePoints,
    samples: int = 100,
    initial: FlowState | None = None,
    tolerance: float = 1e-6,
    max_cycles: int = 100,
    adjoint: Literal["reverse", "forward"] = "reverse",
    throw: bool = True,
) -> PeriodicSolution:
    r"""Find the flow that repeats itself every cycle.

    Waves die out within a cycle; what is slow is the filling of the outlets. With $\Phi$ the map
    over one cycle, $x$ the outlets' states in the state $y$ and $J=\partial\Phi_x/\partial x$
    taken once, each cycle is followed by the step of a chord-Newton method on $x$ alone,

    $$\delta x=(I-J)^{-1}(\Phi_x(y)-x),\qquad y\leftarrow\Phi(y)+\frac{\partial\Phi}{\partial x}
    \delta x.$$

    With few outlets $\partial\Phi/\partial x$ comes from one tangent for each state; with many
    it is that of the outlets alone under unchanging pressure at their nodes, which needs none.

    The derivative is that of the fixed point, by the implicit function theorem, with the same
    correction as a preconditioner: its cost does not grow with the number of parameters in
    reverse, nor with the cycles the solution took.

    **Arguments:**

    - `points`, `samples`, `initial`, `throw`: as for `solve_flow1d`.
    - `tolerance`: change over a cycle, relative to the largest pressure and the largest flow.
    - `max_cycles`: cycles at most.
    - `adjoint`: the mode of differentiation that is to work, "reverse" or "forward".

    **Returns:** a [`PeriodicSolution`][].

    **Errors:** [`FlowError`][] as in `solve_flow1d`; a periodic state that was not reached within
    `max_cycles` has the result `cycles_exhausted`, which raises too.
    """
    if samples < 1 or max_cycles < 1 or adjoint not in ("reverse", "forward"):
        raise InputError(
            f"samples is {samples}, max_cycles {max_cycles} and adjoint {adjoint!r}",
            where="solve_periodic",
            expected="at least one sample and cycle, and the adjoint reverse or forward",
            fix="Correct the argument",
        )
    march = March(
        sampling=sample_points(problem.network, problem.grid, points),
        solver=None,
        controller=None,
        adjoint=None,
        samples=samples,
        max_steps=0,
    )
    if initial is None:
        initial = initial_state(problem)
    solution = _solve(problem, march, initial, tolerance, max_cycles, adjoint)
    return check_solution(problem, march, solution) if throw else solution


@eqx.filter_jit
def _solve(
    problem: Flow1DProblem,
    march: March,
    initial: FlowState,
    tolerance: float,
    max_cycles: int,
    adjoint: str,
) -> PeriodicSolution:
    settings = _Settings(march, jax.lax.stop_gradient(initial), tolerance, max_cycles)
    fixed_point = {"reverse": _fixed_point_reverse, "forward": _fixed_point_forward}[adjoint]
    vector, watch = fixed_point(problem, settings)
    state = settings.state_of(vector)
    last, series, seen = run_cycles(problem, semidiscretise(problem), march, state, 1)
    # A run that failed keeps the state it failed from, on the way or in this last cycle.
    early, late = watch.fault > 0, seen.fault > 0
    state = jax.tree.map(lambda x, y: jnp.where(late & ~early, y, x), state, last)
    result = flow_result(jnp.where(early, watch.fault, seen.fault))
    missed = ~early & ~late & ~(watch.change <= _at_least_rounding(tolerance, vector))
    return PeriodicSolution(
        **series,
        state=state,
        cycles=watch.cycles,
        change=watch.change,
        result=RESULTS.where(missed, RESULTS.cycles_exhausted, result),
        failed_at=jnp.where(early, watch.interval, seen.interval),
        courant=seen.courant,
    )


class _Settings(eqx.Module):
    """What the fixed point depends on without being differentiated with respect to it."""

    march: March
    initial: FlowState
    tolerance: float
    max_cycles: int = eqx.field(static=True)

    @property
    def vector(self) -> Float[Array, " y"]:
        """The initial state as one vector, the outlets' states last."""
        return self._ravelled[0]

    @property
    def _ravelled(self):
        y = self.initial
        return ravel_pytree((y.area, y.flow, y.outlet))

    @property
    def n_rest(self) -> int:
        """How many entries come before the outlets' states."""
        return 2 * self.initial.area.shape[0]

    def state_of(self, vector: Float[Array, " y"]) -> FlowState:
        area, flow, outlet = self._ravelled[1](vector)
        return FlowState(area, flow, jnp.zeros_like(self.initial.passed), outlet)

    def cycle(self, problem: Flow1DProblem, vector: Float[Array, " y"]):
        """The state one cycle later, and what was seen on the way."""
        equations = semidiscretise(problem)
        y, _, watch = run_cycles(problem, equations, self.march, self.state_of(vector), 1)
        return ravel_pytree((y.area, y.flow, y.outlet))[0], watch

    def scale(self, problem: Flow1DProblem) -> Float[Array, " y"]:
        """What the change of each entry is measured against."""
        y = self.initial
        start = jnp.zeros((), y.area.dtype)
        equations = semidiscretise(problem)
        pressure = jnp.max(jnp.abs(equations.cell_pressure(start, y)))
        like = lambda value, x: jnp.broadcast_to(value, x.shape)
        # A flow of 1 m/s in the widest vessel's thousandth keeps a network at rest measurable.
        flow = jnp.max(jnp.abs(y.flow)) + 1e-3 * jnp.max(y.area)
        outlet = tuple(like(pressure, x) for x in y.outlet)
        # An area counts by the pressure its change makes.
        lumen = equations.cell_wall.lumen(cell_pressure(equations.cell_wall, y.area))
        return ravel_pytree((pressure * lumen.compliance, like(flow, y.flow), outlet))[0]

    def response(self, problem: Flow1DProblem, vector: Float[Array, " y"]):
        """∂Φ/∂x: of the state after a cycle to the outlets' states before it, (y, x)."""
        n = self.n_rest
        n_outlet = vector.shape[0] - n
        if n_outlet <= _MAX_TANGENTS:
            cycle = lambda x: self.cycle(problem, vector.at[n:].set(x))[0]
            push = lambda tangent: jax.jvp(cycle, (vector[n:],), (tangent,))[1]
            return jax.vmap(push, out_axes=1)(jnp.eye(n_outlet, dtype=vector.dtype))
        # exp(B T) by 64 implicit steps: nearly exact for what is slow, and sound for what is not.
        rate = _rate_of_outlets(problem, self.initial) * (problem.period / 64)
        alone = jnp.linalg.matrix_power(jnp.linalg.inv(jnp.eye(rate.shape[0]) - rate), 64)
        return jnp.concatenate([jnp.zeros((n, n_outlet), vector.dtype), alone])


def _rate_of_outlets(problem: Flow1DProblem, y: FlowState) -> Float[Array, "x x"]:
    """d/dt of the outlets' states by themselves, the pressure at their nodes unchanging."""
    vector, unravel = ravel_pytree(y.outlet)
    start = jnp.zeros((), vector.dtype)

    def rate(vector):
        out = []
        for c, x in zip(problem.boundary, unravel(vector), strict=True):
            flow = -outlet_conductance(c) * (x[:, 0] if x.shape[1] else 0.0)
            out.append(outlet_rate(c, x, start, flow))
        return ravel_pytree(tuple(out))[0]

    return jax.jacfwd(rate)(jnp.zeros_like(vector))


class _Progress(NamedTuple):
    cycles: Int[Array, ""]
    change: Float[Array, ""]
    fault: Int[Array, ""]
    interval: Int[Array, ""]


def _iterate(problem: Flow1DProblem, settings: _Settings):
    """The fixed point, what has been seen, and ∂Φ/∂x."""
    problem = jax.lax.stop_gradient(problem)
    scale, n = settings.scale(problem), settings.n_rest
    vector, watch = settings.cycle(problem, settings.vector)
    response = settings.response(problem, vector)
    factor = jax.scipy.linalg.lu_factor(jnp.eye(response.shape[1]) - response[n:])
    limit = _at_least_rounding(settings.tolerance, vector)

    def go_on(carry):
        _, seen = carry
        return (seen.change > limit) & (seen.cycles < settings.max_cycles) & (seen.fault == 0)

    def body(carry):
        vector, seen = carry
        after, watch = settings.cycle(problem, vector)
        gap = after - vector
        corrected = after + response @ jax.scipy.linalg.lu_solve(factor, gap[n:])
        change = jnp.max(jnp.abs(gap) / scale)
        corrected = jnp.where(watch.fault == 0, corrected, after)
        return corrected, _Progress(seen.cycles + 1, change, watch.fault, watch.interval)

    one = jnp.ones((), jnp.int32)
    seen = _Progress(one, jnp.asarray(jnp.inf, vector.dtype), watch.fault, watch.interval)
    vector, seen = jax.lax.while_loop(go_on, body, (vector, seen))
    return vector, seen, (response, factor)


def _at_least_rounding(tolerance, like: Array) -> Array:
    return jnp.maximum(jnp.asarray(tolerance, like.dtype), 100.0 * jnp.finfo(like.dtype).eps)


@eqx.filter_custom_vjp
def _fixed_point_reverse(problem: Flow1DProblem, settings: _Settings):
    vector, seen, _ = _iterate(problem, settings)
    return vector, seen


@_fixed_point_reverse.def_fwd
def _forward_pass(perturbed, problem, settings):
    vector, seen, newton = _iterate(problem, settings)
    return (vector, seen), (vector, newton)


@_fixed_point_reverse.def_bwd
def _backward_pass(residuals, grad, perturbed, problem, settings):
    r"""λ = g + (∂Φ/∂y)ᵀλ, then ∂Φ/∂θᵀ λ; the chord's transpose corrects λ after each product."""
    vector, (response, factor) = residuals
    given = grad[0]
    n, scale = settings.n_rest, settings.scale(problem)
    parameters, rest = eqx.partition(problem, eqx.is_inexact_array)
    cycle = lambda p, v: settings.cycle(eqx.combine(p, rest), v)[0]
    _, pull = jax.vjp(cycle, parameters, vector)
    size = jnp.max(jnp.abs(given) * scale)

    def body(carry):
        adjoint, _, count = carry
        gap = given + pull(adjoint)[1] - adjoint
        passed_on = gap[n:] + response[:n].T @ gap[:n]
        outlet = jax.scipy.linalg.lu_solve(factor, passed_on, trans=1)
        step = jnp.concatenate([gap[:n], outlet])
        return adjoint + step, jnp.max(jnp.abs(gap) * scale), count + 1

    limit = _at_least_rounding(_ADJOINT_TOLERANCE, vector) * size
    start = (given, jnp.full_like(size, jnp.inf), 0)
    adjoint, gap, _ = jax.lax.while_loop(
        lambda c: (c[1] > limit) & (c[2] < _ADJOINT_CYCLES), body, start
    )
    # No derivative rather than a wrong one.
    return pull(jnp.where(gap <= limit, adjoint, jnp.nan))[0]


@eqx.filter_custom_jvp
def _fixed_point_forward(problem: Flow1DProblem, settings: _Settings):
    vector, seen, _ = _iterate(problem, settings)
    return vector, seen


@_fixed_point_forward.def_jvp
def _forward_tangent(primals, tangents):
    problem, settings = primals
    # The function itself, not its iteration: so the rule can be differentiated again.
    vector, seen = _fixed_point_forward(problem, settings)
    n, scale = settings.n_rest, jax.lax.stop_gradient(settings.scale(problem))
    response = jax.lax.stop_gradient(settings.response(problem, vector))
    factor = jax.scipy.linalg.lu_factor(jnp.eye(response.shape[1]) - response[n:])
    parameters, rest = eqx.partition(problem, eqx.is_inexact_array)
    # Unperturbed leaves have no tangent; leaves that are no parameters are None on both sides.
    dot = jax.tree.map(
        lambda p, d: p if p is None else jnp.zeros_like(p) if d is None else d,
        parameters,
        tangents[0],
        is_leaf=lambda x: x is None,
    )
    cycle = lambda p, v: settings.cycle(eqx.combine(p, rest), v)[0]
    push = lambda tangent: jax.jvp(cycle, (parameters, vector), (dot, tangent))[1]

    def body(carry):
        tangent, size, _, count = carry
        gap = push(tangent) - tangent
        step = gap + response @ jax.scipy.linalg.lu_solve(factor, gap[n:])
        change = jnp.max(jnp.abs(gap) / scale)
        return tangent + step, jnp.maximum(size, change), change, count + 1

    zero = jnp.zeros((), vector.dtype)
    start = (jnp.zeros_like(vector), zero, jnp.full_like(zero, jnp.inf), 0)
    limit = _at_least_rounding(_ADJOINT_TOLERANCE, vector)
    tangent, size, gap, _ = jax.lax.while_loop(
        lambda c: (c[2] > limit * c[1]) & (c[3] < _ADJOINT_CYCLES), body, start
    )
    tangent = jnp.where(gap <= limit * size, tangent, jnp.nan)
    nothing = jax.tree.map(lambda x: None, seen)
    return (vector, seen), (tangent, nothing)
