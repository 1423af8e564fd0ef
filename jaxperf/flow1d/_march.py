"""Through time, interval by interval between the moments that are saved."""

from typing import TypeAlias

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._custom_types import cast_like
from .._ranges import in_range
from ._controller import CourantLimit
from ._padding import sanitised_flow
from ._points import Sampling
from ._problem import Flow1DProblem
from ._ranges import flow_ranges
from ._semidiscretisation import FlowState, Profile, Semidiscretisation, semidiscretise
from ._step import RelaxedHeun

# Beyond this an explicit step amplifies the shortest waves.
_COURANT_MAX = 0.95


class March(eqx.Module):
    """How time is crossed: how often the flow is saved, and the steps in between.

    **Attributes:** `samples` in a cycle; `method` of a step, [`RelaxedHeun`][] where None;
    `controller` of the steps, which are equal where None; `adjoint` of the steps under a
    controller and their largest number `max_steps`.
    """

    method: diffrax.AbstractSolver | None
    controller: diffrax.AbstractStepSizeController | None
    adjoint: diffrax.AbstractAdjoint | None
    samples: int = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def steps(self, problem: Flow1DProblem) -> int:
        """The number of equal steps in one interval."""
        return -(-problem.n_steps // self.samples)

    def interval(self, problem: Flow1DProblem) -> Float[Array, ""]:
        """The length of one interval, s; held fixed."""
        period = cast_like(problem.period, problem.network.radius)
        return jax.lax.stop_gradient(period) / self.samples


class Watch(eqx.Module):
    """What has been seen on the way: the first fault (0: none), its interval, the Courant number.

    Faults: 1 a vessel without area, 2 flow faster than its waves, 3 a step too long for the
    waves, 4 numbers that are not finite, 5 a controller that gave up, 6 no flow to start from.
    """

    fault: Int[Array, ""]
    interval: Int[Array, ""]
    courant: Float[Array, ""]


class CycleRecord(eqx.Module):
    """What the cells did at the saved moments: from it a solution says how well it is resolved.

    Nothing is differentiated through it.

    **Attributes:** means over the moments, m³/s: `flow_cell` (k,), of the cells' own flow,
    `flow_face` (f,), through the faces, and `size_face` (f,), of its size; the largest: `flow_rate`
    (k,), change of a cell's flow in an interval over its length, m³/s²; `pressure`, Pa, and `flow`,
    m³/s, of all cells.
    """

    flow_cell: Float[Array, " k"]
    flow_face: Float[Array, " f"]
    size_face: Float[Array, " f"]
    flow_rate: Float[Array, " k"]
    pressure: Float[Array, ""]
    flow: Float[Array, ""]

    @staticmethod
    def empty(y: FlowState) -> "CycleRecord":
        k, zero = jnp.zeros_like(y.area), jnp.zeros((), y.area.dtype)
        f = jnp.append(k, zero)
        return CycleRecord(k, f, f, k, zero, zero)

    def with_moment(
        self,
        shown: Profile,
        before: FlowState,
        after: FlowState,
        is_cell: Bool[Array, " k"],
        length: Array,
        n: int,
    ) -> "CycleRecord":
        """One moment more of n, at the end of an interval of this length."""
        shown, before, after = jax.lax.stop_gradient((shown, before, after))
        rate = jnp.abs(after.flow - before.flow) / length
        # What pads a grid shows a pressure too.
        pressure = jnp.max(jnp.where(is_cell, jnp.abs(shown.pressure), 0.0))
        return CycleRecord(
            self.flow_cell + after.flow / n,
            self.flow_face + shown.flow / n,
            self.size_face + jnp.abs(shown.flow) / n,
            jnp.maximum(self.flow_rate, rate),
            jnp.maximum(self.pressure, pressure),
            jnp.maximum(self.flow, jnp.max(jnp.abs(shown.flow))),
        )


# The state after an interval, its step in time, and whether a controller gave up.
_Crossed: TypeAlias = tuple[FlowState, Float[Array, ""], Bool[Array, ""]]
# Pressure, flow and area at the points.
_Sample: TypeAlias = tuple[Float[Array, " m"], Float[Array, " m"], Float[Array, " m"]]
_Carry: TypeAlias = tuple[FlowState, Watch, CycleRecord, _Sample]


def run_cycles(
    problem: Flow1DProblem,
    equations: Semidiscretisation,
    march: March,
    sampling: Sampling,
    y: FlowState,
    n_cycles: int,
    started: Bool[Array, ""] | bool = True,
) -> tuple[FlowState, dict[str, Float[Array, "k ..."]], Watch, CycleRecord]:
    """Run whole cycles from time 0, none where nothing has `started`.

    **Returns:** the last state (the last sound one where the run failed), the series of
    the solution by name (time, pressure, flow, area, passed; each (k, ...)), the [`Watch`][] and
    the [`CycleRecord`][]. From a failure on, the series stay at the last sound moment; before the
    first, they have what the cells have in which the points lie.
    """
    n, length = march.samples * n_cycles, march.interval(problem)
    dtype = y.area.dtype

    def cross(equations: Semidiscretisation, y: FlowState, start: Float[Array, ""]) -> _Crossed:
        if march.controller is None:
            return _equal_steps(equations, march.method, y, start, length, march.steps(problem))
        controller = CourantLimit(march.controller, equations)
        first = jnp.minimum(length, length * march.samples / problem.n_steps)
        return _controlled_steps(equations, march, controller, y, start, length, first)

    def interval(
        equations: Semidiscretisation, carry: _Carry, j: Int[Array, ""]
    ) -> tuple[_Carry, tuple[Float[Array, " _"], ...]]:
        y, watch, record, sample = carry
        start = j.astype(dtype) * length
        after, step, gave_up = cross(equations, y, start)
        fault, courant = _inspect(equations, after, step)
        fault = jnp.where((fault == 0) & gave_up, 5, fault)
        sound = (fault == 0) & (watch.fault == 0)
        # A failed run stays at its last sound state: nothing returned is ever NaN.
        keep = lambda new, old: jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
        after = keep(after, y)
        watch = Watch(
            jnp.where((watch.fault == 0) & ~sound, fault, watch.fault),
            jnp.where((watch.fault == 0) & ~sound, j, watch.interval),
            jnp.where(sound, jnp.maximum(watch.courant, courant), watch.courant),
        )
        shown = equations.profile(start + length, after)
        pressure, area = map(sampling.between_slots, (shown.pressure, shown.area))
        sample = keep((pressure, sampling.between_faces(shown.flow), area), sample)
        is_cell = equations.inverse_length > 0.0
        record = keep(record.with_moment(shown, y, after, is_cell, length, n), record)
        return (after, watch, record, sample), (*sample, after.passed)

    # In reverse mode some intervals are computed again from the first state of the first: memory
    # holds one state for every group of them and for every step of one group. A controller's
    # adjoint keeps checkpoints of its own, which more than one interval at a time would multiply.
    @eqx.filter_checkpoint
    def some(
        equations: Semidiscretisation, carry: _Carry, group: Int[Array, " g"]
    ) -> tuple[_Carry, tuple[Float[Array, "g _"], ...]]:
        return jax.lax.scan(lambda c, j: interval(equations, c, j), carry, group)

    fault, _ = _inspect(equations, y, jnp.zeros((), dtype))
    fault = jnp.where(started, fault, 6)
    fault = jnp.where(in_range(flow_ranges(problem)), fault, 7)
    failed_at = jnp.where(fault == 0, n, 0).astype(jnp.int32)
    watch = Watch(fault, failed_at, jnp.zeros((), dtype))
    size = _group(n, march.steps(problem)) if march.controller is None else 1
    groups = jnp.arange(n, dtype=jnp.int32).reshape(-1, size)
    body = lambda carry, group: some(equations, carry, group)
    at_cells = (equations.cell_pressure(jnp.zeros((), dtype), y), y.flow, y.area)
    sample = jax.tree.map(lambda cell: cell[sampling.face], at_cells)
    carry = (y, watch, CycleRecord.empty(y), sample)
    (y, watch, record, _), series = jax.lax.scan(body, carry, groups)
    series = [x.reshape(n, *x.shape[2:]) for x in series]
    time = jnp.arange(1, n + 1).astype(dtype) * length
    names = ("time", "pressure_static", "flow", "area", "passed")
    return y, dict(zip(names, (time, *series), strict=True)), watch, record


def _term(equations: Semidiscretisation) -> diffrax.ODETerm:
    """The equations as diffrax wants them, whose times are arrays here."""
    return diffrax.ODETerm(equations)  # pyright: ignore[reportArgumentType]


def _group(n: int, steps: int) -> int:
    """The number of intervals, of n, that holds the fewest states: n/g and g · steps of them."""
    divisors = [g for g in range(1, n + 1) if n % g == 0]
    return min(divisors, key=lambda g: n / g + g * steps)


def _equal_steps(
    equations: Semidiscretisation,
    solver: diffrax.AbstractSolver | None,
    y: FlowState,
    start: Float[Array, ""],
    length: Float[Array, ""],
    n: int,
) -> _Crossed:
    term = _term(equations)
    solver = RelaxedHeun(equations.relaxation) if solver is None else solver
    step = jnp.asarray(length / n, start.dtype)
    state = solver.init(term, start, start + step, y, None)

    # Of each step too only its state is kept: what it would save otherwise leaves the cache.
    @eqx.filter_checkpoint
    def body(
        carry: tuple[FlowState, PyTree], i: Float[Array, ""]
    ) -> tuple[tuple[FlowState, PyTree], None]:
        y, state = carry
        t = start + i * step
        y, _, _, state, _ = solver.step(term, t, t + step, y, None, state, False)
        return (y, state), None

    count = jnp.arange(n).astype(start.dtype)
    return jax.lax.scan(body, (y, state), count)[0][0], step, jnp.zeros((), bool)


def _controlled_steps(
    equations: Semidiscretisation,
    march: March,
    controller: diffrax.AbstractStepSizeController,
    y: FlowState,
    start: Float[Array, ""],
    length: Float[Array, ""],
    first_step: Float[Array, ""],
) -> _Crossed:
    adjoint = diffrax.RecursiveCheckpointAdjoint() if march.adjoint is None else march.adjoint
    found = diffrax.diffeqsolve(
        _term(equations),
        RelaxedHeun(equations.relaxation) if march.method is None else march.method,
        start,
        start + length,
        first_step,
        y,
        stepsize_controller=controller,
        adjoint=adjoint,
        saveat=diffrax.SaveAt(t1=True),
        max_steps=march.max_steps,
        throw=False,
    )
    # The controller has kept the Courant number.
    gave_up = found.result != diffrax.RESULTS.successful
    return jax.tree.map(lambda x: x[0], found.ys), jnp.zeros_like(start), gave_up


def _inspect(
    equations: Semidiscretisation, y: FlowState, step: Float[Array, ""]
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The fault of a state, and the Courant number of a step from it."""
    equations, y = jax.lax.stop_gradient((equations, y))
    leaves = jax.tree.leaves(y)
    finite = jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()
    is_open = equations.is_open(y).all()
    rate, mach = equations.wave_rate(y), equations.mach(y)
    courant = step * rate
    fault = jnp.where(courant > _COURANT_MAX, 3, 0)
    fault = jnp.where(jnp.max(mach) >= 1.0, 2, fault)
    fault = jnp.where(is_open, fault, 1)
    return jnp.where(finite, fault, 4).astype(jnp.int32), courant


@eqx.filter_jit
def find_fault(
    problem: Flow1DProblem, march: March, y: FlowState, interval: Int[Array, ""]
) -> tuple[Int[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Cross the interval in which a run failed again, looking at every step.

    **Returns:** the fault, its time (s) and its slot; under a controller or another solver fault 0,
    the start of the interval, and the slot nearest to a fault there.
    """
    problem = sanitised_flow(problem)
    equations = semidiscretise(problem)
    length, n = march.interval(problem), march.steps(problem)
    start = interval.astype(y.area.dtype) * length
    step = jnp.asarray(length / n, start.dtype)
    term, solver = _term(equations), RelaxedHeun(equations.relaxation)

    def body(
        carry: tuple[FlowState, Int[Array, ""], Int[Array, ""]],
    ) -> tuple[FlowState, Int[Array, ""], Int[Array, ""]]:
        y, i, _ = carry
        t = start + i.astype(step.dtype) * step
        y = solver.step(term, t, t + step, y, None, None, False)[0]
        return y, i + 1, _inspect(equations, y, step)[0]

    count = jnp.zeros((), jnp.int32)
    fault, _ = _inspect(equations, y, step)
    if march.controller is None and march.method is None:
        y, count, fault = jax.lax.while_loop(
            lambda c: (c[1] < n) & (c[2] == 0), body, (y, count, fault)
        )
    bad = ~(jnp.isfinite(y.area) & jnp.isfinite(y.flow)) | ~equations.is_open(y)
    speed = jnp.where(fault == 3, equations.cell_rate(y), equations.mach(y))
    severity = jnp.where(bad, jnp.inf, speed)
    return fault, start + count.astype(step.dtype) * step, jnp.argmax(severity)
