"""The periodic state: the fixed point of the map over one cycle."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from equinox.internal import nondifferentiable_backward
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._custom_types import ScalarLike
from .._misc import InputError, is_traced, NoBarePressure
from .._padding import cut_solution
from .._results import RESULTS
from ..network import Held
from ._flux import cell_pressure
from ._grid import Grid
from ._initial import steady_start
from ._march import CycleRecord, March, run_cycles, Watch
from ._outlets import outlet_conductance, outlet_rate, outlet_source
from ._padding import sanitised_flow
from ._points import sample_points, Sampling, SavePoints
from ._problem import Flow1DProblem
from ._semidiscretisation import FlowState, Semidiscretisation, semidiscretise
from ._solve import concluded, cut_flow, flow_result

# Of the exponential of the slow rates over a cycle.
_IMPLICIT_STEPS = 64
# Rate of what is not slow at all, in a cycle.
_FORGET = 1e6
# Speeds (m/s) of blood at rest: of its flow, and of the head that a pressure is measured against.
_REST_FLOW, _REST_HEAD = 1e-3, 0.1
# Of the linear system for the derivative, relative to its right-hand side.
_ADJOINT_TOLERANCE = 1e-9
_ADJOINT_CYCLES = 200
_FORWARD_ONLY = (
    "solve_periodic: it is differentiated in reverse mode, and mode is 'forward'. Expected "
    "forward mode (jvp, jacfwd). Give mode='reverse' under grad."
)


class PeriodicSolution(eqx.Module):
    """One cycle of periodic flow.

    **Attributes:** `time`, `pressure_static`, `flow`, `area`, `passed`: as in [`Flow1DSolution`][],
    over one cycle; `state`, at its start; `cycles`, the number of cycles it took; `change`, the
    largest change over the last cycle, relative to the largest pressure and flow; `result`,
    `failed_at`, `courant`, `record`: as there.
    """

    time: Float[Array, " k"]
    pressure_static: Float[Array, "k m"]
    flow: Float[Array, "k m"]
    area: Float[Array, "k m"]
    passed: Float[Array, "k n"]
    state: FlowState
    record: CycleRecord
    cycles: Int[Array, ""]
    change: Float[Array, ""]
    result: RESULTS
    failed_at: Int[Array, ""]
    courant: Float[Array, ""]

    pressure = NoBarePressure("pressure_static")


def solve_periodic(
    problem: Flow1DProblem,
    *,
    points: SavePoints,
    samples: int = 100,
    initial: FlowState | None = None,
    tolerance: float = 1e-6,
    max_cycles: int = 100,
    mode: Literal["reverse", "forward"] = "reverse",
    throw: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> PeriodicSolution:
    r"""Find the flow that repeats itself every cycle.

    Waves die out within a cycle; what is slow is the filling of the outlets and of the vessels as
    a whole. With $\Phi$ the map over one cycle, $x=Wy$ the outlets' states and the mean pressure of
    the vessels, and $E$ the states that differ by $x$ alone, each cycle is followed by the step of
    a chord-Newton method on $x$,

    $$\delta x=(I-J)^{-1}W(\Phi(y)-y),\qquad y\leftarrow\Phi(y)+EJ\,\delta x,\qquad
    J=e^{BT},$$

    with $B$ the rates of $x$ where outlets are joined by the vessels as one elastic reservoir.

    The derivative is that of the fixed point, by the implicit function theorem, with the same
    correction as a preconditioner: its cost does not grow with the number of parameters in
    reverse, nor with the cycles the solution took.

    **Arguments:**

    - `points`, `samples`, `initial`, `throw`: as for `solve_flow1d`.
    - `tolerance`: change over a cycle, relative to the largest pressure and the largest flow.
    - `max_cycles`: cycles at most.
    - `mode`: the mode of differentiation that is to work, "reverse" or "forward".
    - `progress`: called after every cycle with the cycles done and `max_cycles`. The host then goes
      from cycle to cycle, which it cannot under a transformation.

    **Returns:** a [`PeriodicSolution`][].

    **Errors:** [`SolveError`][] as in `solve_flow1d`; a periodic state that was not reached within
    `max_cycles` has the result `cycles_exhausted`, which raises too. [`InputError`][] for samples,
    cycles or a mode that cannot be used. `RuntimeError` for reverse mode where `mode` is forward.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    vessel = jp.build_network(
        np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([[0, 1]]), np.full(2, 2e-3),
        root=np.array([0]), frame="model",
    )
    wave = jp.Waveform(np.array([0.0, 0.3, 0.8]), np.array([[1.1e4, 1.5e4, 1.1e4]]), 0.8)
    inlet, outlet = jp.PressureWaveform(0, wave), jp.ResistanceOutlet(1, 2e10, 0.0)
    wall = jp.SqrtAreaWall(jp.OlufsenStiffness(), 12000.0)
    problem = jp.flow1d_problem(vessel, (inlet, outlet), jp.Blood(), wall, cell_time=1e-3)
    beat = jp.solve_periodic(problem, points=jp.SavePoints([0], [0.5]))
    print(beat.cycles, beat.pressure_static.max())
    ```
    """
    if samples < 1 or max_cycles < 1 or mode not in ("reverse", "forward"):
        raise InputError(
            f"samples is {samples}, max_cycles {max_cycles} and mode {mode!r}",
            where="solve_periodic",
            expected="at least one sample and cycle, and the mode reverse or forward",
            fix="Correct the argument",
        )
    points.check(problem.network)
    if progress is not None and any(map(is_traced, jax.tree.leaves((problem, initial)))):
        # `grad` leaves the cycles concrete: they would run, and their derivative be left out.
        raise _no_progress()
    march = March(method=None, controller=None, adjoint=None, samples=samples, max_steps=0)
    given = (problem, march, points, initial, tolerance, max_cycles)
    if progress is None:
        solution = _solve(*given, mode)
    else:
        settings = _prepared(*given)
        solution = _last_cycle(problem, settings, *_follow(problem, settings, progress))
    return concluded(problem, march, solution, throw)


@eqx.filter_jit
def _solve(
    problem: Flow1DProblem,
    march: March,
    points: SavePoints,
    initial: FlowState | None,
    tolerance: float,
    max_cycles: int,
    mode: str,
) -> PeriodicSolution:
    settings = _settings(problem, march, points, initial, tolerance, max_cycles)
    fixed_point = {"reverse": _fixed_point_reverse, "forward": _fixed_point_forward}[mode]
    return _last_cycle(problem, settings, *fixed_point(sanitised_flow(problem), settings))


@eqx.filter_jit
def _last_cycle(
    problem: Flow1DProblem, settings: "_Settings", vector: Float[Array, " y"], watch: "_Progress"
) -> PeriodicSolution:
    """The solution, from the cycle that begins at the fixed point."""
    problem = sanitised_flow(problem)
    state = settings.state_of(vector)
    equations = semidiscretise(problem)
    last, series, seen, record = run_cycles(
        problem, equations, settings.march, settings.sampling, state, 1, settings.started
    )
    # A run that failed keeps the state it failed from, on the way or in this last cycle.
    early, late = watch.fault > 0, seen.fault > 0
    state = jax.tree.map(lambda x, y: jnp.where(late & ~early, y, x), state, last)
    result = flow_result(jnp.where(early, watch.fault, seen.fault))
    missed = ~early & ~late & ~(watch.change <= _at_least_rounding(settings.tolerance, vector))
    return PeriodicSolution(
        **series,
        state=state,
        record=record,
        cycles=watch.cycles,
        change=watch.change,
        result=RESULTS.where(missed, RESULTS.cycles_exhausted, result),
        failed_at=jnp.where(early, watch.interval, seen.interval),
        courant=seen.courant,
    )


@cut_solution.register
def _cut(solution: PeriodicSolution, problem: Flow1DProblem) -> PeriodicSolution:
    return cut_flow(solution, problem)


class _Progress(NamedTuple):
    """Cycles run; the change over the last one, and the largest pressure and flow in it."""

    cycles: Int[Array, ""]
    change: Float[Array, ""]
    fault: Int[Array, ""]
    interval: Int[Array, ""]
    pressure: Float[Array, ""]
    flow: Float[Array, ""]


# The state as one vector, and what has been seen.
_Carry: TypeAlias = tuple[Float[Array, " y"], _Progress]
# A tangent, the largest and the last change of it, and the number of cycles.
_Pushed: TypeAlias = tuple[Float[Array, " y"], Float[Array, ""], Float[Array, ""], Int[Array, ""]]


class _Settings(eqx.Module):
    """What the fixed point depends on without being differentiated with respect to it."""

    march: March
    sampling: Sampling
    initial: FlowState
    started: Bool[Array, ""]
    tolerance: float
    max_cycles: int = eqx.field(static=True)

    @property
    def vector(self) -> Float[Array, " y"]:
        """The initial state as one vector, the outlets' states last."""
        return self._ravelled[0]

    @property
    def start(self) -> _Carry:
        """The fixed point before its first cycle, and that nothing has been seen yet."""
        vector, zero = self.vector, jnp.zeros((), jnp.int32)
        limit = _at_least_rounding(self.tolerance, vector)
        none = jnp.zeros_like(limit)
        return vector, _Progress(zero, jnp.full_like(limit, jnp.inf), zero, zero, none, none)

    @property
    def _ravelled(self) -> tuple[Float[Array, " y"], Callable[[Array], PyTree]]:
        y = self.initial
        return ravel_pytree((y.area, y.flow, y.outlet))

    def state_of(self, vector: Float[Array, " y"]) -> FlowState:
        area, flow, outlet = self._ravelled[1](vector)
        return FlowState(area, flow, jnp.zeros_like(self.initial.passed), outlet)

    def cycle(
        self, problem: Flow1DProblem, vector: Float[Array, " y"]
    ) -> tuple[Float[Array, " y"], Watch, CycleRecord]:
        """The state one cycle later, and what was seen on the way."""
        equations = semidiscretise(problem)
        state = self.state_of(vector)
        y, _, watch, record = run_cycles(
            problem, equations, self.march, self.sampling, state, 1, self.started
        )
        return ravel_pytree((y.area, y.flow, y.outlet))[0], watch, record

    def scale(self, problem: Flow1DProblem, seen: _Progress | CycleRecord) -> Float[Array, " y"]:
        """What the change of each entry is measured against: the largest of the cycle."""
        y = self.initial
        equations = semidiscretise(problem)
        like = lambda value, x: jnp.broadcast_to(value, x.shape)
        # Stated speeds keep a network at rest measurable.
        widest = jnp.max(jnp.where(equations.inverse_length > 0.0, y.area, 0.0))
        flow = seen.flow + _REST_FLOW * widest
        pressure = seen.pressure + equations.density * _REST_HEAD**2
        outlet = tuple(like(pressure, x) for x in y.outlet)
        # An area counts by the pressure its change makes.
        area = pressure * _compliance(equations, y)
        return ravel_pytree((area, like(flow, y.flow), outlet))[0]

    def chord(self, problem: Flow1DProblem) -> "_Chord":
        """What is slow, and how it changes over a cycle."""
        y = self.initial
        equations = semidiscretise(problem)
        is_cell = equations.inverse_length > 0.0
        compliance = jnp.where(is_cell, _compliance(equations, y), 0.0)
        length = jnp.where(is_cell, 1.0 / jnp.where(is_cell, equations.inverse_length, 1.0), 0.0)
        part, n_parts = problem.grid.cell_part, problem.grid.n_parts
        total = jax.ops.segment_sum(length * compliance, part, n_parts)
        # The part of what pads a grid has no cells; any volume does for its outlets.
        total = jnp.where(total > 0.0, total, 1.0)
        cycle = self.march.interval(problem) * self.march.samples
        rate = _slow_rate(problem.grid, equations, y, total, cycle) * (cycle / _IMPLICIT_STEPS)
        one = jnp.eye(rate.shape[0], dtype=rate.dtype)
        # Implicit steps: nearly exact for what is slow, and sound for what is not.
        over_cycle = jnp.linalg.matrix_power(jnp.linalg.inv(one - rate), _IMPLICIT_STEPS)
        weight = over_cycle @ jnp.linalg.inv(one - over_cycle)
        return _Chord(compliance, length / total[part], part, weight, n_parts)


def _compliance(equations: Semidiscretisation, y: FlowState) -> Float[Array, " k"]:
    """dA/dp in every slot, m²/Pa."""
    table = equations.cell_wall
    return table.lumen(cell_pressure(table, y.area)).compliance


class _Chord(eqx.Module):
    """The correction after a cycle, E J (I−J)⁻¹ W, linear in what the cycle has changed.

    `per_pressure` (k,) leads from the pressures of the parts of the network, one for each slot's
    `part`, to the areas, `mean` (k,) from the areas to the pressures; `weight` is J (I−J)⁻¹.
    """

    per_pressure: Float[Array, " k"]
    mean: Float[Array, " k"]
    part: Int[Array, " k"]
    weight: Float[Array, "x x"]
    n_parts: int = eqx.field(static=True)

    def __call__(self, gap: Float[Array, " y"]) -> Float[Array, " y"]:
        n, n_outlet = self.mean.shape[0], self.weight.shape[0] - self.n_parts
        area, flow, outlet = jnp.split(gap, [n, gap.shape[0] - n_outlet])
        pressure = jax.ops.segment_sum(self.mean * area, self.part, self.n_parts)
        slow = self.weight @ jnp.concatenate([pressure, outlet])
        area = self.per_pressure * slow[self.part]
        return jnp.concatenate([area, jnp.zeros_like(flow), slow[self.n_parts :]])


def _slow_rate(
    grid: Grid,
    equations: Semidiscretisation,
    y: FlowState,
    compliance: Float[Array, " r"],
    cycle: Float[Array, ""],
) -> Float[Array, "x x"]:
    """Rates of the pressures of the network's parts, each a reservoir, and of the outlets."""
    outlet, unravel = ravel_pytree(y.outlet)
    start, n_parts = jnp.zeros((), compliance.dtype), compliance.shape[0]
    part = [grid.node_part[node] for node in equations.condition_node]
    # What is held at a pressure has nothing slow, and what cannot drain nothing to correct.
    drain, held = jnp.zeros_like(compliance), jnp.zeros(n_parts, bool)
    for form, at in zip(equations.forms, part, strict=True):
        drain = drain.at[at].add(outlet_conductance(form))
        held = held.at[at].set(True) if isinstance(form, Held) else held
    held = held | (drain == 0.0)

    def rate(slow: Float[Array, " x"]) -> Float[Array, " x"]:
        out, taken = [], jnp.zeros_like(compliance)
        for form, x, at in zip(equations.forms, unravel(slow[n_parts:]), part, strict=True):
            flow = outlet_conductance(form) * slow[at] - outlet_source(form, x, start)
            # Where the pressure is held, the source is one.
            taken = taken if isinstance(form, Held) else taken.at[at].add(flow)
            out.append(outlet_rate(form, x, start, flow))
        forgotten = -_FORGET / cycle * slow[:n_parts]
        vessels = jnp.where(held, forgotten, -taken / compliance)
        return jnp.concatenate([vessels, ravel_pytree(tuple(out))[0]])

    return jax.jacfwd(rate)(jnp.zeros(outlet.shape[0] + n_parts, compliance.dtype))


def _iterate(problem: Flow1DProblem, settings: _Settings) -> _Carry:
    """The fixed point, and what has been seen."""
    return jax.lax.while_loop(*_iteration(problem, settings), settings.start)


def _no_progress() -> InputError:
    return InputError(
        "progress was given under a transformation",
        where="solve_periodic",
        expected="progress only where the host can go from cycle to cycle",
        fix="Leave it out under jit, grad and vmap",
    )


def _follow(
    problem: Flow1DProblem, settings: _Settings, progress: Callable[[int, int], None]
) -> _Carry:
    """As `_iterate`, with the host between the cycles."""
    carry, more = _begin(settings), True
    while more:
        carry, more = _one_cycle(problem, settings, carry)
        if is_traced(more):
            raise _no_progress()
        progress(int(carry[1].cycles), settings.max_cycles)
    return carry


def _settings(
    problem: Flow1DProblem,
    march: March,
    points: SavePoints,
    initial: FlowState | None,
    tolerance: float,
    max_cycles: int,
) -> _Settings:
    """All that the fixed point depends on; nothing is differentiated with respect to it."""
    problem = jax.lax.stop_gradient(sanitised_flow(problem))
    sampling = sample_points(problem.network, problem.grid, points)
    start, started = steady_start(problem) if initial is None else (initial, jnp.ones((), bool))
    start = jax.lax.stop_gradient(start)
    return _Settings(march, sampling, start, started, tolerance, max_cycles)


_prepared = eqx.filter_jit(_settings)


@eqx.filter_jit
def _begin(settings: _Settings) -> _Carry:
    return settings.start


@eqx.filter_jit
def _one_cycle(
    problem: Flow1DProblem, settings: _Settings, carry: _Carry
) -> tuple[_Carry, Bool[Array, ""]]:
    go_on, body = _iteration(sanitised_flow(problem), settings)
    carry = body(carry)
    return carry, go_on(carry)


def _iteration(
    problem: Flow1DProblem, settings: _Settings
) -> tuple[Callable[[_Carry], Bool[Array, ""]], Callable[[_Carry], _Carry]]:
    """Of the iteration for the fixed point: whether it goes on, and one cycle."""
    problem = jax.lax.stop_gradient(problem)
    chord = settings.chord(problem)
    limit = _at_least_rounding(settings.tolerance, settings.vector)

    def go_on(carry: _Carry) -> Bool[Array, ""]:
        _, seen = carry
        return (seen.change > limit) & (seen.cycles < settings.max_cycles) & (seen.fault == 0)

    def body(carry: _Carry) -> _Carry:
        vector, seen = carry
        after, watch, record = settings.cycle(problem, vector)
        gap = after - vector
        change = jnp.max(jnp.abs(gap) / settings.scale(problem, record))
        corrected = jnp.where(watch.fault == 0, after + chord(gap), after)
        return corrected, _Progress(
            seen.cycles + 1, change, watch.fault, watch.interval, record.pressure, record.flow
        )

    return go_on, body


def _at_least_rounding(tolerance: ScalarLike, like: Array) -> Array:
    return jnp.maximum(jnp.asarray(tolerance, like.dtype), 100.0 * jnp.finfo(like.dtype).eps)


@eqx.filter_custom_vjp
def _fixed_point_reverse(problem: Flow1DProblem, settings: _Settings) -> _Carry:
    return _iterate(problem, settings)


@_fixed_point_reverse.def_fwd
def _forward_pass(
    perturbed: PyTree, problem: Flow1DProblem, settings: _Settings
) -> tuple[_Carry, _Carry]:
    found = _iterate(problem, settings)
    return found, found


@_fixed_point_reverse.def_bwd
def _backward_pass(
    residuals: _Carry,
    grad: _Carry,
    perturbed: PyTree,
    problem: Flow1DProblem,
    settings: _Settings,
) -> Flow1DProblem:
    r"""λ = g + (∂Φ/∂y)ᵀλ, then ∂Φ/∂θᵀ λ; the chord's transpose corrects λ after each product."""
    (vector, seen), given = residuals, grad[0]
    scale, chord = settings.scale(problem, seen), settings.chord(problem)
    parameters, rest = eqx.partition(problem, eqx.is_inexact_array)
    cycle = lambda p, v: settings.cycle(eqx.combine(p, rest), v)[0]
    _, pull = jax.vjp(cycle, parameters, vector)
    size = jnp.max(jnp.abs(given) * scale)

    def body(
        carry: tuple[Float[Array, " y"], Float[Array, ""], Int[Array, ""]],
    ) -> tuple[Float[Array, " y"], Float[Array, ""], Int[Array, ""]]:
        adjoint, _, count = carry
        gap = given + pull(adjoint)[1] - adjoint
        step = gap + jax.linear_transpose(chord, gap)(gap)[0]
        return adjoint + step, jnp.max(jnp.abs(gap) * scale), count + 1

    limit = _at_least_rounding(_ADJOINT_TOLERANCE, vector) * size
    start = (given, jnp.full_like(size, jnp.inf), jnp.zeros((), jnp.int32))
    adjoint, gap, _ = jax.lax.while_loop(
        lambda c: (c[1] > limit) & (c[2] < _ADJOINT_CYCLES), body, start
    )
    # No derivative rather than a wrong one.
    return pull(jnp.where(gap <= limit, adjoint, jnp.nan))[0]


@eqx.filter_custom_jvp
def _fixed_point_forward(problem: Flow1DProblem, settings: _Settings) -> _Carry:
    return _iterate(problem, settings)


@_fixed_point_forward.def_jvp
def _forward_tangent(
    primals: tuple[Flow1DProblem, _Settings], tangents: tuple[Flow1DProblem, _Settings]
) -> tuple[_Carry, tuple[Float[Array, " y"], _Progress]]:
    problem, settings = primals
    # The function itself, not its iteration: so the rule can be differentiated again.
    vector, seen = _fixed_point_forward(problem, settings)
    scale, chord = jax.lax.stop_gradient((settings.scale(problem, seen), settings.chord(problem)))
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

    def body(carry: _Pushed) -> _Pushed:
        tangent, size, _, count = carry
        gap = push(tangent) - tangent
        step = gap + chord(gap)
        change = jnp.max(jnp.abs(gap) / scale)
        return tangent + step, jnp.maximum(size, change), change, count + 1

    zero = jnp.zeros((), vector.dtype)
    start = (jnp.zeros_like(vector), zero, jnp.full_like(zero, jnp.inf), jnp.zeros((), jnp.int32))
    limit = _at_least_rounding(_ADJOINT_TOLERANCE, vector)
    tangent, size, gap, _ = jax.lax.while_loop(
        lambda c: (c[2] > limit * c[1]) & (c[3] < _ADJOINT_CYCLES), body, start
    )
    tangent = jnp.where(gap <= limit * size, tangent, jnp.nan)
    # A transpose would end in the loop above, with an assertion of JAX.
    tangent = nondifferentiable_backward(tangent, msg=_FORWARD_ONLY)
    nothing = jax.tree.map(lambda x: None, seen)
    return (vector, seen), (tangent, nothing)
