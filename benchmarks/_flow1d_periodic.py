"""The periodic state: cycles until it is reached, its gradient and what that costs."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.flow1d import Flow1DProblem, initial_state, SavePoints, solve_flow1d, solve_periodic

from ._flow1d_accuracy import plain_cycling
from ._flow1d_cases import with_slow_outlets
from ._flow1d_gradients import extrapolated
from ._measure import compiled
from ._report import Report, seconds

_SLOW = 8.0
_TOLERANCE, _TIGHT = 1e-6, 1e-12
_PLAIN_CYCLES = 60
_POINTS = SavePoints([0, 40], [0.5, 0.5])
# Relative, of the differences.
_STEPS = tuple(4e-4 * 4.0**-k for k in range(4))
THREE = ("radii", "stiffness", "outlet R")


def measure_periodic(report: Report, problem: Flow1DProblem, *, quick: bool, log) -> None:
    """Rows of the left coronary and of its slow variant."""
    one_cycle = _cycle_seconds(problem)
    for name, factor in (("", 1.0), (".slow", _SLOW)):
        which = problem if factor == 1.0 else with_slow_outlets(problem, factor)
        found = solve_periodic(which, points=_POINTS, tolerance=_TOLERANCE)
        taken = seconds(
            lambda p=which, y=initial_state(which): solve_periodic(
                p, points=_POINTS, tolerance=_TOLERANCE, initial=y
            ),
            repeat=1,
            warm_up=0,
        )
        plain, change, spent = plain_cycling(
            which, _POINTS, tolerance=_TOLERANCE, max_cycles=_PLAIN_CYCLES
        )
        told = f"{taken:.2f} s, plain cycling {plain} cycles in {spent:.2f} s"
        report.add(
            f"flow1d.left_coronary{name}.periodic_cycles",
            int(found.cycles),
            "cycles",
            reference=told,
            ratio=spent / taken,
            error=float(found.change),
        )
        report.add(f"flow1d.left_coronary{name}.plain_cycles", plain, "cycles", error=float(change))
        log(f"periodic{name}: {int(found.cycles)} cycles {told}")
        if not quick:
            _gradient(report, which, name, one_cycle, log)


def _cycle_seconds(problem: Flow1DProblem) -> float:
    initial = initial_state(problem)
    return seconds(lambda: solve_flow1d(problem, points=_POINTS, initial=initial), repeat=3)


def _of(problem: Flow1DProblem):
    outlet = problem.boundary[1]
    return problem.network.radius, problem.wall.stiffness.k3, outlet.resistance_distal


def _all_of(problem: Flow1DProblem):
    """Every number of the model: calibres, lengths, the wall, the boundary with its tables."""
    return problem.network.radius, problem.network.length, problem.wall, problem.boundary


def _mean_flow(problem: Flow1DProblem, initial, mode: str, tolerance: float):
    found = solve_periodic(
        problem,
        points=_POINTS,
        initial=initial,
        mode=mode,
        tolerance=tolerance,
        throw=False,
    )
    return jnp.mean(found.flow[:, 1]) * 1e6


def _gradient(report: Report, problem: Flow1DProblem, name: str, one_cycle: float, log) -> None:
    """Three parameters in both modes against differences; a thousand in reverse."""
    initial = initial_state(problem)

    def scaled(amounts, problem, initial, mode, tolerance):
        moved = [x * (1.0 + a) for x, a in zip(_of(problem), amounts, strict=True)]
        return _mean_flow(eqx.tree_at(_of, problem, tuple(moved)), initial, mode, tolerance)

    none = jnp.zeros(len(THREE))
    in_mode = lambda mode, tolerance: functools.partial(scaled, mode=mode, tolerance=tolerance)
    reverse, _ = compiled(
        jax.value_and_grad(in_mode("reverse", _TOLERANCE)), none, problem, initial
    )
    forward, _ = compiled(jax.jacfwd(in_mode("forward", _TOLERANCE)), none, problem, initial)
    every, _ = compiled(_value_and_every_gradient, problem, initial)
    exact, _ = compiled(in_mode("reverse", _TIGHT), none, problem, initial)
    _, gradient = reverse(none, problem, initial)
    tangents = np.asarray(forward(none, problem, initial))
    one_by_one = lambda amounts: jnp.stack([exact(a, problem, initial)[None] for a in amounts])
    measured, doubt = extrapolated(one_by_one, len(THREE), steps=_STEPS)
    size = np.max(np.abs(measured))
    errors = np.abs(np.asarray(gradient) - measured[0]) / size
    apart = float(np.max(np.abs(tangents - np.asarray(gradient))) / size)
    taken = {
        "3, reverse": seconds(lambda: reverse(none, problem, initial), repeat=1, warm_up=0),
        "3, forward": seconds(lambda: forward(none, problem, initial), repeat=1, warm_up=0),
        "1000, reverse": seconds(lambda: every(problem, initial), repeat=1, warm_up=1),
    }
    n_parameters = sum(
        x.size for x in jax.tree.leaves(eqx.filter(_all_of(problem), eqx.is_inexact_array))
    )
    report.tables[f"gradient of the periodic state, left coronary{name}"] = [
        {"parameters": key, "seconds": value, "forward cycles": value / one_cycle}
        for key, value in taken.items()
    ]
    told = (
        f"value and gradient over one cycle of {one_cycle:.3f} s; forward mode "
        f"{taken['3, forward'] / one_cycle:.0f}; differences to {float(doubt.max() / size):.1e}"
    )
    add = lambda key, count, **more: report.add(
        f"flow1d{name}.periodic_gradient_cycles{key}", count / one_cycle, "cycles", **more
    )
    add("", taken["3, reverse"], reference=told, error=float(errors.max()))
    add(
        ".thousand",
        taken["1000, reverse"],
        reference=f"{n_parameters} parameters",
        error=float(errors.max()),
    )
    report.add(f"flow1d{name}.periodic_gradient_error", float(errors.max()), "1", error=apart)
    log(f"gradient of the periodic state{name}: {errors.max():.1e}, modes {apart:.1e}; {told}")


def _value_and_every_gradient(problem: Flow1DProblem, initial):
    numbers, rest = eqx.partition(_all_of(problem), eqx.is_inexact_array)

    def value(numbers):
        changed = eqx.tree_at(_all_of, problem, eqx.combine(numbers, rest))
        return _mean_flow(changed, initial, "reverse", _TOLERANCE)

    return jax.value_and_grad(value)(numbers)
