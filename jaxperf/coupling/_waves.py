"""What waves meet at the outlets of a condensed bed: its vessels' impedance and compliance."""

from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._misc import InputError, is_traced
from ..network import vessel_label
from ..vessel import AbstractElasticWall
from ._part import Cut
from ._problem import PerfusionProblem
from ._solve import PerfusionSolution

# Area and wave speed at the ends of segments.
_Waves: TypeAlias = tuple[Float[Array, "e 2"], Float[Array, "e 2"]]


def impedance(
    problem: PerfusionProblem, solution: PerfusionSolution, cut: Cut, wall: AbstractElasticWall
) -> Float[Array, " b"]:
    """1/Σ A/(ρc) over the vessels that leave an outlet, or else the 1-D ones that meet there."""
    ends = np.asarray(problem.network.segment_node)
    leaving = cut.bed_segment[np.isin(ends[cut.bed_segment, 0], cut.outlet)]
    bare = np.setdiff1d(cut.outlet, ends[leaving, 0])
    row, side = np.nonzero(np.isin(ends[cut.segment], bare))
    segment = np.concatenate([leaving, cut.segment[row]])
    side = np.concatenate([np.zeros_like(leaving), side])
    outlet = np.searchsorted(cut.outlet, ends[segment, side])
    waves = _waves(problem, solution, wall, segment)
    return _impedance_of(waves, problem.blood.density, side, outlet, cut.outlet.size)


@eqx.filter_jit
def _impedance_of(
    waves: _Waves,
    density: Float[Array, ""],
    side: Int[np.ndarray | Array, " e"],
    outlet: Int[np.ndarray | Array, " e"],
    n_outlets: int,
) -> Float[Array, " b"]:
    area, speed = (x[jnp.arange(side.size), side] for x in waves)
    return 1.0 / jax.ops.segment_sum(area / (density * speed), outlet, n_outlets)


def arterial_compliance(
    problem: PerfusionProblem, solution: PerfusionSolution, cut: Cut, wall: AbstractElasticWall
) -> Float[Array, " b"]:
    """∫A/(ρc²)dx of the vessels below each outlet, by the trapezoidal rule on each segment."""
    waves = _waves(problem, solution, wall, cut.bed_segment)
    length, density = problem.network.length, problem.blood.density
    return _compliance_of(waves, density, length, cut.bed_segment, cut.bed_outlet, cut.outlet.size)


@eqx.filter_jit
def _compliance_of(
    waves: _Waves,
    density: Float[Array, ""],
    length: Float[Array, " s"],
    segment: Int[np.ndarray | Array, " e"],
    outlet: Int[np.ndarray | Array, " e"],
    n_outlets: int,
) -> Float[Array, " b"]:
    area, speed = waves
    compliance = length[segment] * jnp.mean(area / (density * speed**2), axis=1)
    return jax.ops.segment_sum(compliance, outlet, n_outlets)


def _waves(
    problem: PerfusionProblem,
    solution: PerfusionSolution,
    wall: AbstractElasticWall,
    segment: Int[np.ndarray, " e"],
) -> _Waves:
    """Area and wave speed at the ends of some segments, at the steady pressure."""
    is_open, area, speed = _waves_of(problem, solution, wall, segment)
    if not is_traced(is_open) and not np.asarray(is_open).all():
        closed = int(segment[np.flatnonzero(~np.asarray(is_open).all(axis=1))[0]])
        raise InputError(
            f"{vessel_label(problem.network, closed)} has no lumen at its steady pressure",
            where="wall",
            expected="a wall law that is open there",
            fix="Raise the stiffness, or the inlet pressure",
        )
    return area, speed


@eqx.filter_jit
def _waves_of(
    problem: PerfusionProblem,
    solution: PerfusionSolution,
    wall: AbstractElasticWall,
    segment: Int[np.ndarray | Array, " e"],
) -> tuple[Bool[Array, "e 2"], Float[Array, "e 2"], Float[Array, "e 2"]]:
    pressure, radius = solution.pressure_static[segment], problem.network.radius[segment]
    area = wall.area(pressure, radius)
    speed = wall.wave_speed(area, radius, problem.blood.density)
    return wall.is_open(pressure, radius), area, speed
