"""Gradients of transient flow at default settings: forward, reverse, differences, price."""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.flow1d import Flow1DProblem, SavePoints, solve_flow1d

from ._flow1d_cases import GradientCase, PARAMETERS, parameters_of, with_parameters
from ._measure import compiled
from ._report import Report, seconds_of_both

FUNCTIONALS = ("pressure", "flow", "cycle mean")
_SAMPLES = 100
# Moments of the last cycle at which pressure and flow are taken, off the knots of the inlets.
_PRESSURE_AT, _FLOW_AT = 62, 18
# Steps of the differences, relative; see `extrapolated`. The limiter is smooth over a tenth of a
# pascal, 1e-5 of the pressure, so that the steps must come down to that.
_STEPS = tuple(2e-3 * 4.0**-k for k in range(6))
_MEGABYTE = 1e6


def functionals(leaves, problem: Flow1DProblem, points: SavePoints, n_cycles: int):
    """Pressure and flow at a moment of the last cycle, mean flow over it; in kPa and ml/s."""
    problem = with_parameters(problem, leaves)
    found = solve_flow1d(problem, points=points, n_cycles=n_cycles, samples=_SAMPLES, throw=False)
    flow = found.flow[-_SAMPLES:]
    return jnp.stack(
        [
            found.pressure_static[-_SAMPLES + _PRESSURE_AT, 1] / 1e3,
            flow[_FLOW_AT, 0] * 1e6,
            jnp.mean(flow[:, 1]) * 1e6,
        ]
    )


def directions(leaves, rng: np.random.Generator):
    """A random direction for every parameter; a table that ends where it begins keeps closed."""

    def one(leaf):
        share = rng.uniform(0.5, 1.5, leaf.shape)
        if leaf.ndim == 2 and leaf.shape[1] > 2:
            share[:, -1] = share[:, 0]
        return leaf * jnp.asarray(share)

    return jax.tree.map(one, leaves)


def moved(leaves, direction, amounts):
    """The parameters after so much of each direction."""
    return tuple(
        jax.tree.map(lambda x, d, a=amounts[i]: x + a * d, leaves[i], direction[i])
        for i in range(len(leaves))
    )


def extrapolated(
    run: Callable, n: int, steps: tuple[float, ...] = _STEPS
) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives (functional, direction) by differences, and how far they can be trusted.

    Central differences at steps that fall by four are extrapolated pairwise to fourth order;
    the value that differs least from both its neighbours is far from truncation and from
    round-off, and the larger difference estimates its error.
    """
    both = np.concatenate([np.eye(n), -np.eye(n)])
    value = [np.asarray(run(jnp.asarray(h * both))).T for h in steps]
    central = [(v[:, :n] - v[:, n:]) / (2 * h) for h, v in zip(steps, value, strict=True)]
    fourth = np.stack([(16 * b - a) / 15 for a, b in itertools.pairwise(central)])
    gap = np.abs(np.diff(fourth, axis=0))
    either = np.maximum(gap[1:], gap[:-1])
    best = np.argmin(either, axis=0)[None]
    take = lambda x: np.take_along_axis(x, best, axis=0)[0]
    return take(fourth[1:-1]), take(either)


@dataclass(frozen=True)
class _Programs:
    """Compiled: the functionals, of one set of amounts and of many; Jacobian; gradient of one."""

    run: Callable
    run_all: Callable
    jacobian: Callable
    gradient: Callable
    compile_seconds: float
    memory: float


def _programs(case: GradientCase, n_cycles: int, leaves, direction) -> _Programs:
    f = functools.partial(functionals, points=case.points, n_cycles=n_cycles)
    at = lambda amounts, leaves, direction, problem: f(moved(leaves, direction, amounts), problem)
    none = jnp.zeros(len(leaves))
    arguments = (none, leaves, direction, case.problem)
    weight = jnp.zeros(len(FUNCTIONALS)).at[0].set(1.0)
    value = lambda leaves, weight, problem: jnp.dot(weight, f(leaves, problem))
    run, _ = compiled(at, *arguments)
    every = jax.vmap(at, in_axes=(0, None, None, None))
    both = jnp.zeros((2 * len(leaves), len(leaves)))
    run_all, _ = compiled(every, both, *arguments[1:])
    jacobian, _ = compiled(jax.jacfwd(at), *arguments)
    gradient, spent = compiled(jax.value_and_grad(value), leaves, weight, case.problem)
    return _Programs(
        run=lambda a: run(a, leaves, direction, case.problem),
        run_all=lambda a: run_all(a, leaves, direction, case.problem),
        jacobian=lambda a: jacobian(a, leaves, direction, case.problem),
        gradient=lambda w: gradient(leaves, w, case.problem),
        compile_seconds=spent,
        memory=_temporary_bytes(gradient),
    )


def _temporary_bytes(program: Any) -> float:
    return float(program.compiled.memory_analysis().temp_size_in_bytes)


def measure_gradients(
    report: Report, cases: list[GradientCase], cycles: tuple[int, ...], log
) -> None:
    """Rows of error and price, and a table of every functional and parameter."""
    lines, prices, agreement = [], [], []
    for case in cases:
        for n in cycles:
            found, price, apart = _one(case, n, np.random.default_rng(0))
            lines += found
            agreement.append(apart)
            prices.append(price)
            worst = max(line["error"] for line in found)
            log(
                f"gradient, {case.name}, {n} cycles: {worst:.1e}, forward and reverse {apart:.1e}, "
                f"ratio {price['ratio']:.1f}, {price['memory_MB']:.2f} MB"
            )
            jax.clear_caches()
    if not lines:
        return
    report.tables["gradients against differences, relative"] = lines
    report.tables["price of value and gradient"] = prices
    worst = max(lines, key=lambda line: line["error"])
    report.add(
        "flow1d.gradient_error",
        worst["error"],
        "1",
        reference="central differences extrapolated to fourth order; worst: "
        f"{worst['functional']} by {worst['parameter']}, {worst['case']}, "
        f"{worst['cycles']} cycles, differences to {worst['difference_doubt']:.1e}",
        error=worst["error"],
    )
    report.add("flow1d.gradient_forward_reverse", max(agreement), "1", error=max(agreement))
    dearest = max(prices, key=lambda price: price["ratio"])
    report.add(
        "flow1d.gradient_ratio",
        dearest["ratio"],
        "1",
        reference=f"value and gradient over value: {dearest['both_s']:.3f} s over "
        f"{dearest['forward_s']:.3f} s, {dearest['case']}, {dearest['cycles']} cycles, "
        f"{dearest['cells']} cells",
        error=worst["error"],
    )
    for price in prices:
        name = price["case"].replace(" ", "_")
        report.add(
            f"flow1d.gradient_ratio.{name}.{price['cycles']}",
            price["ratio"],
            "1",
            reference=f"forward {price['forward_s']:.3f} s",
            error=max(
                line["error"]
                for line in lines
                if (line["case"], line["cycles"]) == (price["case"], price["cycles"])
            ),
        )
    report.add("flow1d.gradient_memory", max(p["memory_MB"] for p in prices), "MB")
    report.add("flow1d.gradient_compile_seconds", max(p["compile_s"] for p in prices), "s")


def _one(case: GradientCase, n_cycles: int, rng: np.random.Generator):
    """Lines of errors, a line of prices, and how far forward and reverse mode are apart."""
    leaves = parameters_of(case.problem)
    direction = directions(leaves, rng)
    none = jnp.zeros(len(leaves))
    programs = _programs(case, n_cycles, leaves, direction)
    forward = np.asarray(programs.jacobian(none))
    reverse, size = np.zeros_like(forward), np.zeros_like(forward)
    for k in range(len(FUNCTIONALS)):
        gradient = programs.gradient(jnp.asarray(np.eye(len(FUNCTIONALS))[k]))[1]
        for i in range(len(leaves)):
            reverse[k, i] = sum(map(_dot, gradient[i], direction[i]))
            size[k, i] = sum(map(_dot_absolute, gradient[i], direction[i]))
    apart = float(np.max(np.abs(forward - reverse) / size))
    measured, doubt = extrapolated(programs.run_all, len(leaves))
    lines = [
        {
            "case": case.name,
            "cycles": n_cycles,
            "functional": FUNCTIONALS[k],
            "parameter": PARAMETERS[i],
            "derivative": float(reverse[k, i]),
            "error": float(abs(reverse[k, i] - measured[k, i]) / size[k, i]),
            "difference_doubt": float(doubt[k, i] / size[k, i]),
        }
        for k in range(len(FUNCTIONALS))
        for i in range(len(leaves))
    ]
    weight = jnp.zeros(len(FUNCTIONALS)).at[0].set(1.0)
    alone, both, ratio = seconds_of_both(
        lambda: programs.run(none), lambda: programs.gradient(weight), repeat=3
    )
    price: dict[str, float | str] = {
        "case": case.name,
        "cycles": n_cycles,
        "cells": case.problem.grid.n_cells,
        "forward_s": alone,
        "both_s": both,
        "ratio": ratio,
        "memory_MB": programs.memory / _MEGABYTE,
        "compile_s": programs.compile_seconds,
    }
    return lines, price, apart


def _dot(a, b) -> float:
    return float(jnp.vdot(a, b))


def _dot_absolute(a, b) -> float:
    return float(jnp.vdot(jnp.abs(a), jnp.abs(b)))
