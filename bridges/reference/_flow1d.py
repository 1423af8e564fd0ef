"""Transient one-dimensional flow in torch: the discrete equations of docs/flow1d.md, step by step.

One tensor holds the state of all cells, nodes and outlets, with cases in front; Python counts the
steps. Between saved moments nothing is kept for the backward pass: it crosses each interval again.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch

from ._flow1d_equations import between, Equations
from ._flow1d_grid import Beside, beside_points
from ._flow1d_problem import check_boundary, Flow1DProblem, joined_last, steady_boundary
from ._laws import ElasticWall
from ._steady import solve_steady, SteadyProblem

_GAMMA = 1.0 - math.sqrt(0.5)
_COURANT = 0.95


@dataclass(frozen=True)
class SavePoints:
    """Where series are saved: segments (m,) and fractions of them (m,), 0 at the proximal end."""

    segment: torch.Tensor
    fraction: torch.Tensor


@dataclass(frozen=True)
class Flow1DState:
    """State of transient flow.

    **Attributes:** over cells, `area` (..., k), m², and `flow` (..., k), m³/s; `passed` (..., n),
    volume that has left at every node of the grid, m³; pressures of compartments, Pa: `first`
    (..., d), P_C of windkessels and then a of coronary outlets, `second` (..., l), θ of the latter.
    """

    area: torch.Tensor
    flow: torch.Tensor
    passed: torch.Tensor
    first: torch.Tensor
    second: torch.Tensor


@dataclass(frozen=True)
class Flow1DSolution:
    """Transient flow at t saved moments and m points.

    **Attributes:** `time` (t,), s; `pressure_static`, Pa, `flow`, m³/s, and `area`, m², (..., t,
    m); `passed` (..., t, n), m³; `state`, the last one; `courant`, the largest Courant number seen.
    """

    time: torch.Tensor
    pressure_static: torch.Tensor
    flow: torch.Tensor
    area: torch.Tensor
    passed: torch.Tensor
    state: Flow1DState
    courant: float


def initial_state(problem: Flow1DProblem) -> Flow1DState:
    """Steady flow under the cycle means of the boundary, differentiable.

    **Errors:** those of `solve_steady`.
    """
    return _steady_start(problem, Equations(problem))


def _steady_start(problem: Flow1DProblem, equations: Equations) -> Flow1DState:
    grid, wall = problem.grid, problem.wall
    assert isinstance(wall, ElasticWall)
    boundary = steady_boundary(problem.boundary, problem.period)
    steady = solve_steady(SteadyProblem(problem.network, boundary, problem.blood, wall))
    fraction = grid.cell_fraction.to(problem.network.radius)
    pressure = between(steady.pressure_static, grid.cell_segment, fraction)
    rows = equations.split_drive(equations.drive(torch.zeros(1).to(fraction))[0])[3]
    slot = equations.layout.slot
    base = equations.base(rows)
    base = base[..., slot] if base.ndim and base.shape[-1] > 1 else base
    load = (pressure - base) / equations.modulus[..., slot]
    first, second = equations.conditions.start(steady.pressure_total)
    return Flow1DState(
        area=equations.cell_area * wall.stretch(load).square(),
        flow=steady.flow[..., grid.cell_segment],
        passed=steady.flow.new_zeros(grid.n_nodes),
        first=first,
        second=second,
    )


class _Stepper:
    """Equal steps of the relaxed Heun method across one interval between saved moments."""

    def __init__(self, equations: Equations, step: float) -> None:
        self.equations, self.step = equations, step
        friction = equations.friction
        if equations.slot_inertia is not None:
            friction = friction / equations.slot_inertia
        self.friction = _GAMMA * step * friction
        self.of_outlet = 1.0 / (1.0 + _GAMMA * step * equations.conditions.damping)
        sizes = equations.sizes
        self.of_area = torch.ones(sizes[0]).to(friction)
        self.of_passed = torch.ones(sizes[2]).to(friction)

    def __call__(self, state: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        """The state after all steps, from what changes with time at both stages of each."""
        n, h = self.equations.sizes[0], self.step
        at = drive.unbind(0)
        for begin, end in zip(at[::2], at[1::2], strict=True):
            area = state[..., :n]
            # 1/(1 + γ h d), d = k/(A m), with one division.
            of_flow = area / (area + self.friction)
            relaxed = joined_last([self.of_area, of_flow, self.of_passed, self.of_outlet])
            first = relaxed * self.equations.rate(state, begin)
            ahead = torch.add(state, first, alpha=h)
            second = relaxed * torch.sub(self.equations.rate(ahead, end), first, alpha=2.0)
            state = torch.add(state, first, alpha=1.5 * h)
            state = torch.add(state, second, alpha=0.5 * h)
        return state

    def across(self, state: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        """The same without the steps in memory: the backward pass computes them again."""
        inputs = [state, drive, *self._named().values()]
        if not torch.is_grad_enabled() or not any(x.requires_grad for x in inputs):
            return self(state, drive)
        return _Interval.apply(self, *inputs)  # pyright: ignore[reportReturnType]

    def _named(self) -> dict[tuple[int, str], torch.Tensor]:
        """What the steps depend on and gradients are asked for, by its place."""
        holders = (self, self.equations, self.equations.conditions)
        return {
            (number, name): value
            for number, holder in enumerate(holders)
            for name, value in vars(holder).items()
            if isinstance(value, torch.Tensor) and value.requires_grad
        }

    def with_parameters(self, values: list[torch.Tensor]) -> "_Stepper":
        """The same steps from other tensors, in the order of those that ask for gradients."""
        stepper, equations = copy.copy(self), copy.copy(self.equations)
        conditions = copy.copy(equations.conditions)
        stepper.equations, equations.conditions = equations, conditions
        for (number, name), value in zip(self._named(), values, strict=True):
            setattr((stepper, equations, conditions)[number], name, value)
        return stepper


class _Interval(torch.autograd.Function):
    """All steps of an interval as one function of the state, what drives it, and parameters."""

    @staticmethod
    def forward(
        ctx: Any,
        stepper: _Stepper,
        state: torch.Tensor,
        drive: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        ctx.stepper = stepper
        ctx.save_for_backward(state, drive, *parameters)
        return stepper(state, drive)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        again = torch.is_grad_enabled()
        asked = ctx.needs_input_grad[1:]
        with torch.enable_grad():
            # Tensors of their own in the graph: a derivative by one does not follow what it
            # depends on, but one of higher order does.
            inputs = [
                x if not needed else x.view_as(x) if again else x.detach().requires_grad_()
                for x, needed in zip(ctx.saved_tensors, asked, strict=True)
            ]
            stepper = ctx.stepper.with_parameters(inputs[2:])
            found = iter(
                torch.autograd.grad(
                    stepper(inputs[0], inputs[1]),
                    [x for x, needed in zip(inputs, asked, strict=True) if needed],
                    cotangents,
                    create_graph=again,
                    allow_unused=True,
                )
            )
        return None, *(next(found) if needed else None for needed in asked)


def solve_flow1d(
    problem: Flow1DProblem,
    points: SavePoints,
    *,
    n_cycles: int = 1,
    samples: int = 100,
    initial: Flow1DState | None = None,
) -> Flow1DSolution:
    """Solve the transient 1-D equations over whole cycles, from time 0.

    **Arguments:** `samples`, saved moments in a cycle, at the ends of equal intervals; `initial`,
    the state at time 0, steady flow where left out.

    **Returns:** a `Flow1DSolution`, differentiable to any order in all floating-point tensors of
    the problem and the initial state. The grid, the points, the period and the steps are fixed.

    **Errors:** `ValueError` for points off the network and for conditions that `flow1d_problem`
    refuses; `RuntimeError` naming the vessel, and the saved moment by which it is seen, where a
    number is not finite, a vessel closes, the flow is faster than its waves or the step is too long
    for them; those of `solve_steady`.
    """
    if samples < 1 or n_cycles < 1:
        raise ValueError(f"samples is {samples} and n_cycles {n_cycles}; expected at least one")
    check_boundary(problem.network, problem.boundary, problem.period)
    equations = Equations(problem)
    if initial is None:
        initial = _steady_start(problem, equations)
    beside = beside_points(problem.grid, problem.network.length, points.segment, points.fraction)
    length = problem.period / samples
    n_steps = max(1, math.ceil(length / problem.time_step * (1.0 - 1e-9)))
    step = length / n_steps
    stepper = _Stepper(equations, step)
    drive = _drives(equations, length, samples, n_steps, step)
    state = _packed(equations, initial, drive)
    courant = _inspect(problem, equations, state, step, 0.0)
    saved: list[tuple[torch.Tensor, ...]] = []
    for number in range(n_cycles * samples):
        at = drive[number % samples]
        state = stepper.across(state, at)
        end = (number + 1) * length
        courant = max(courant, _inspect(problem, equations, state, step, end))
        saved.append(_at_points(equations, state, at[-1], beside))
    pressure, flow, area, passed = (torch.stack(p, dim=-2) for p in zip(*saved, strict=True))
    return Flow1DSolution(
        time=torch.arange(1, n_cycles * samples + 1).to(state) * length,
        pressure_static=pressure,
        flow=flow,
        area=area,
        passed=passed,
        state=_unpacked(equations, state),
        courant=courant,
    )


def _drives(
    equations: Equations, length: float, samples: int, n_steps: int, step: float
) -> tuple[torch.Tensor, ...]:
    """What changes with time at both stages (2 n_steps, ..., d) of all steps of each interval."""
    start = torch.arange(samples, dtype=torch.float64)[:, None] * length
    begin = start + torch.arange(n_steps, dtype=torch.float64) * step
    time = torch.stack([begin, begin + step], dim=-1).flatten()
    drive = equations.drive(time.to(equations.friction.device))
    return drive.unflatten(0, (samples, 2 * n_steps)).unbind(0)


def _packed(
    equations: Equations, initial: Flow1DState, drive: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """A state as one tensor, with the axes of cases that anything has."""
    cell, grid = equations.layout.cell, equations.grid
    sizes = (grid.n_cells, grid.n_cells, *equations.sizes[2:])
    parts = [initial.area, initial.flow, initial.passed, initial.first, initial.second]
    found = tuple(part.shape[-1] for part in parts)
    if found != sizes:
        raise ValueError(f"the initial state has the sizes {found}; expected {sizes}")
    parts[0], parts[1] = parts[0][..., cell], parts[1][..., cell] * equations.is_cell
    state = joined_last(parts)
    with torch.no_grad():
        rate = equations.rate(state, drive[0][0])
    shape = torch.broadcast_shapes(state.shape, rate.shape)
    return state.expand(shape)


def _unpacked(equations: Equations, state: torch.Tensor) -> Flow1DState:
    area, flow, *rest = state.split(equations.sizes, dim=-1)
    slot = equations.layout.slot
    return Flow1DState(area[..., slot], flow[..., slot], *rest)


def _at_points(
    equations: Equations, state: torch.Tensor, drive: torch.Tensor, beside: Beside
) -> tuple[torch.Tensor, ...]:
    """Static pressure, flow and area at the points, and what has passed."""
    passed = state.split(equations.sizes, dim=-1)[2]
    pressure, area, flow = equations.shown(state, drive)
    between = lambda value, first, second, weight: (
        value[..., first] * (1.0 - weight) + value[..., second] * weight
    )
    at = (beside.first, beside.second, beside.weight)
    distal = equations.layout.slot[beside.cell]
    through = between(flow, distal - 1, distal, beside.share)
    return between(pressure, *at), through, between(area, *at), passed


@torch.no_grad()
def _inspect(
    problem: Flow1DProblem, equations: Equations, state: torch.Tensor, step: float, time: float
) -> float:
    """The Courant number of a step from a state; raises for a state that is not sound."""
    slot = equations.layout.slot
    area, flow = (part[..., slot] for part in state.split(equations.sizes, dim=-1)[:2])
    load = equations.wall.load(torch.sqrt(area / equations.cell_area))
    stiffness = equations.modulus[..., slot] * equations.wall.load_slope(load)
    wave = torch.sqrt(stiffness / equations.density)
    speed = (flow / area).abs()
    rate = (equations.alpha * speed + wave) * equations.per_length[..., slot]
    if equations.slot_inertia is not None:
        rate = rate / torch.sqrt(equations.slot_inertia[slot])
    courant = step * rate
    faults = (
        (~(area > 0) & area.isfinite(), "a vessel has closed"),
        (~(wave.isfinite() & flow.isfinite()), "a number is not finite"),
        (speed >= wave, "the flow is faster than its waves"),
        (courant > _COURANT, "the step is too long: lower cfl or the cell time"),
    )
    for where, text in faults:
        if bool(where.any()):
            cell = int(where.nonzero()[0, -1])
            vessel, segment = (
                int(x[cell]) for x in (problem.grid.cell_vessel, problem.grid.cell_segment)
            )
            raise RuntimeError(f"{text}, in vessel {vessel} (segment {segment}) by {time:.4g} s")
    if not bool(state.isfinite().all()):
        raise RuntimeError(f"a pressure of an outlet is not finite by {time:.4g} s")
    return float(courant.max())
