"""Transient flow over given cycles."""

import dataclasses
from typing import Protocol, runtime_checkable, TypeVar

import diffrax
import equinox as eqx
from jaxtyping import Array, Float, Int

from .._misc import InputError, NoBarePressure
from .._padding import cut, cut_solution
from .._ranges import is_out_of_range, range_error
from .._results import conclude, ended_as, RESULTS, SolveError
from ._grid import grid_vessel_label
from ._initial import steady_start
from ._march import CycleRecord, find_fault, March, run_cycles
from ._padding import cut_nodes, cut_state, sanitised_flow
from ._points import sample_points, SavePoints
from ._problem import Flow1DProblem
from ._ranges import flow_ranges
from ._semidiscretisation import FlowState, semidiscretise
from ._taper import steep_taper


@runtime_checkable
class Outcome(Protocol):
    """What the solutions of this room have in common."""

    @property
    def flow(self) -> Array: ...
    @property
    def passed(self) -> Array: ...
    @property
    def record(self) -> CycleRecord: ...
    @property
    def state(self) -> FlowState: ...
    @property
    def result(self) -> RESULTS: ...
    @property
    def failed_at(self) -> Array: ...


Solution = TypeVar("Solution", bound=Outcome)


class Flow1DSolution(eqx.Module):
    """Transient flow at the saved moments.

    **Attributes:** `time` (k,) s, the end of each interval; at the m points `pressure_static`
    (k, m) Pa, `flow` (k, m) m³/s, `area` (k, m) m²; `passed` (k, n), volume that has left the
    network at every grid node since time 0, m³; `state`, the last one; `result`; `failed_at`, the
    number of the interval in which the run failed, or the number of intervals; `courant`, the
    largest Courant number seen; `record`, what [`resolution`][] needs.
    """

    time: Float[Array, " k"]
    pressure_static: Float[Array, "k m"]
    flow: Float[Array, "k m"]
    area: Float[Array, "k m"]
    passed: Float[Array, "k n"]
    state: FlowState
    record: CycleRecord
    result: RESULTS
    failed_at: Int[Array, ""]
    courant: Float[Array, ""]

    pressure = NoBarePressure("pressure_static")


def solve_flow1d(
    problem: Flow1DProblem,
    *,
    points: SavePoints,
    n_cycles: int = 1,
    samples: int = 100,
    initial: FlowState | None = None,
    method: diffrax.AbstractSolver | None = None,
    controller: diffrax.AbstractStepSizeController | None = None,
    adjoint: diffrax.AbstractAdjoint | None = None,
    max_steps: int = 1_000_000,
    throw: bool = True,
) -> Flow1DSolution:
    """Solve the transient 1-D Navier–Stokes equations on a network of compliant vessels.

    Left to itself it takes steps of equal length, none above `problem.time_step`, which the grid
    makes safe; for derivatives in reverse mode the intervals between samples are computed again,
    a few at a time. Any diffrax controller, capped by the Courant number, any explicit
    diffrax solver and any diffrax adjoint can take its place, at a price in speed.

    **Arguments:**

    - `points`: where series are saved.
    - `n_cycles`: cycles to run. `samples`: saved moments in a cycle.
    - `initial`: the state at time 0; steady flow where left out ([`initial_state`][]).
    - `method`: of each step, a diffrax solver; [`RelaxedHeun`][] where left out.
    - `controller`: of the step size; equal steps where left out.
    - `adjoint`: of the steps between two samples, with a `controller` only; recursive
      checkpointing where left out.
    - `max_steps`: steps between two samples at most, with a `controller`, rejected ones included.
      Where they do not reach the next sample the run has failed with the result
      `controller_gave_up`: it keeps the state at the sample before, which all later rows repeat,
      and `failed_at` counts the samples reached. Equal steps are counted beforehand and ask for
      no limit. Recursive checkpointing holds about √(2 `max_steps`) states.
    - `throw`: raise where the run fails, naming vessel and time; under a transformation nothing is
      raised, and values and derivatives of a failed run are NaN. With False look at `result`,
      which is `no_steady_start` where there is no steady flow to start from.

    **Returns:** a [`Flow1DSolution`][], differentiable forwards and backwards in the parameters
    that `problem` and `initial` hold as floating-point arrays (with a controller in the mode its
    adjoint has). The grid, the period and the steps are held fixed.

    **Errors:** [`SolveError`][] naming vessel and time where a vessel closes, the flow becomes
    faster than its waves, the step is too long for them or the controller gives up, and where
    there is no steady flow to start from.

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
    flow = jp.solve_flow1d(problem, points=jp.SavePoints([0], [0.5])).flow
    ```
    """
    if samples < 1 or n_cycles < 1:
        raise InputError(
            f"samples is {samples} and n_cycles {n_cycles}",
            where="solve_flow1d",
            expected="at least one of each",
            fix="Raise them",
        )
    if adjoint is not None and controller is None:
        raise ValueError("an adjoint is for steps under a controller; expected a controller too")
    points.check(problem.network)
    march = March(method, controller, adjoint, samples, max_steps)
    solution = _solve(problem, march, points, initial, n_cycles)
    return concluded(problem, march, solution, throw)


@eqx.filter_jit
def _solve(
    problem: Flow1DProblem,
    march: March,
    points: SavePoints,
    initial: FlowState | None,
    n_cycles: int,
) -> Flow1DSolution:
    problem = sanitised_flow(problem)
    sampling = sample_points(problem.network, problem.grid, points)
    start, started = steady_start(problem) if initial is None else (initial, True)
    equations = semidiscretise(problem)
    state, series, watch, record = run_cycles(
        problem, equations, march, sampling, start, n_cycles, started
    )
    return Flow1DSolution(
        **series,
        record=record,
        state=state,
        result=flow_result(watch.fault),
        failed_at=watch.interval,
        courant=watch.courant,
    )


@cut_solution.register
def _cut(solution: Flow1DSolution, problem: Flow1DProblem) -> Flow1DSolution:
    return cut_flow(solution, problem)


def cut_flow(solution: Solution, problem: Flow1DProblem) -> Solution:
    """The real entries of a solution of this room."""
    k = problem.grid.n_slots
    at = solution.record
    record = dataclasses.replace(
        at,
        flow_cell=cut(at.flow_cell, k),
        flow_rate=cut(at.flow_rate, k),
        flow_face=cut(at.flow_face, k + 1),
        size_face=cut(at.size_face, k + 1),
    )
    real = cut_state(solution.state, problem), cut_nodes(solution.passed, problem), record
    return eqx.tree_at(lambda s: (s.state, s.passed, s.record), solution, real)


def flow_result(fault: Int[Array, ""]) -> RESULTS:
    """The sentence that belongs to a fault."""
    result = RESULTS.successful
    named = (
        RESULTS.vessel_collapsed,
        RESULTS.supercritical,
        RESULTS.step_too_long,
        RESULTS.nonfinite,
        RESULTS.controller_gave_up,
        RESULTS.no_steady_start,
        RESULTS.out_of_range,
    )
    for number, sentence in enumerate(named, start=1):
        result = RESULTS.where(fault == number, sentence, result)
    return result


def concluded(problem: Flow1DProblem, march: March, solution: Solution, throw: bool) -> Solution:
    """What the verbs of this room return: see [`conclude`][]."""
    return conclude(solution, throw=throw, failure=lambda s: _failure(problem, march, s))


def _failure(problem: Flow1DProblem, march: March, solution: Outcome) -> SolveError:
    """The error of a failed run: its cause, and the vessel and the time at which it was seen."""
    if is_out_of_range(solution.result):
        return range_error(flow_ranges(problem))
    for nowhere in (RESULTS.no_steady_start, RESULTS.cycles_exhausted):
        if ended_as(solution.result, nowhere):
            return SolveError(nowhere, "")
    fault, time, slot = find_fault(problem, march, solution.state, solution.failed_at)
    # Step by step a cause shows that the end of the interval may have swallowed.
    cause = solution.result if int(fault) == 0 else flow_result(fault)
    where = grid_vessel_label(problem.network, problem.grid, int(slot))
    steep = steep_taper(problem, int(slot))
    if steep and not ended_as(cause, RESULTS.controller_gave_up):
        return SolveError(RESULTS.taper_unresolved, steep)
    return SolveError(cause, f"It was seen first in {where} at t = {float(time):.4f} s.")
