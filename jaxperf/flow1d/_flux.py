"""The laws of a cell and of a face, with their derivatives written out.

All of these are pointwise. Differentiated operation by operation, they would leave dozens of arrays
behind for every step of a reverse pass; written out, the derivative of each is a few products. The
rules are made of ordinary operations, so that derivatives of any order follow from them.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Bool, Float

from .._custom_types import ScalarLike
from ..vessel import AbstractElasticWall

# What a rule of differentiation is given beside a value.
Tangent: TypeAlias = Array | SymbolicZero


class Lumen(NamedTuple):
    """Area (m²) and its inverse; ρc² (Pa); compliance dA/dp (m²/Pa)."""

    area: Float[Array, "*k"]
    inverse_area: Float[Array, "*k"]
    stiffness: Float[Array, "*k"]
    compliance: Float[Array, "*k"]


class WallTable(eqx.Module):
    """A wall law at fixed places: its shape; reference area and modulus, with their inverses.

    `unit` is 1, but known at run time only: XLA:CPU compiles a loop over whole arrays and nothing
    else for an emitter that is much slower. The rules below count an inverse to what it
    is the inverse of: they take no tangent of it.
    """

    wall: AbstractElasticWall
    area: Float[Array, "*k"]
    inverse_area: Float[Array, "*k"]
    modulus: Float[Array, "*k"]
    inverse_modulus: Float[Array, "*k"]
    unloaded: Float[Array, ""]
    unit: Float[Array, ""]

    def load(self, pressure: Float[Array, "*k"]) -> Float[Array, "*k"]:
        return (pressure - self.unloaded) * self.inverse_modulus

    def bears(self, pressure: Float[Array, "*k"]) -> Bool[Array, "*k"]:
        """Whether the wall law has an area at this pressure."""
        return self.wall.bears(self.load(pressure))

    def load_of_area(self, area: Float[Array, "*k"]) -> Float[Array, "*k"]:
        return self.wall.load(area * self.inverse_area * self.unit)

    def lumen(self, pressure: Float[Array, "*k"]) -> Lumen:
        """Area and stiffness at a static pressure over the external one (Pa)."""
        load = (pressure - self.unloaded) / self.modulus
        area = self.area * self.wall.relative_area(load)
        stiffness = self.modulus * self.wall.relative_stiffness(load)
        return Lumen(area, 1.0 / area, stiffness, area / stiffness)


def _linear(*terms: tuple[Callable[[], Array | float], Tangent]) -> Array | None:
    """The sum of coefficient times tangent; tangents that are zero cost nothing."""
    known = [c() * x for c, x in terms if not isinstance(x, SymbolicZero)]
    return sum(known[1:], start=known[0]) if known else None


def _or_zero(tangent: Float[Array, "*k"] | None, value: Float[Array, "*k"]) -> Float[Array, "*k"]:
    return jnp.zeros_like(value) if tangent is None else tangent


# ---------------------------------------------------------------- cells


@jax.custom_jvp
def cell_pressure(table: WallTable, area: Float[Array, " k"]) -> Float[Array, " k"]:
    """Static pressure over the external one, Pa."""
    return table.unloaded + table.modulus * table.load_of_area(area)


def _cell_pressure_jvp(
    primals: tuple[WallTable, Array], tangents: tuple[WallTable, Tangent]
) -> tuple[Array, Array]:
    (table, area), (dot, area_dot) = primals, tangents
    load = table.load_of_area(area)
    value = table.unloaded + table.modulus * load
    # dp/dA = ρc²/A
    slope = table.modulus * table.wall.relative_stiffness(load) / area
    moved = _linear(
        (lambda: slope, area_dot),
        (lambda: -slope * (area * table.inverse_area), dot.area),
        (lambda: load, dot.modulus),
        (lambda: jnp.ones_like(load), dot.unloaded),
    )
    return value, _or_zero(moved, value)


cell_pressure.defjvp(_cell_pressure_jvp, symbolic_zeros=True)


@jax.custom_jvp
def momentum_rate(
    area: Float[Array, " k"],
    flow: Float[Array, " k"],
    flow_gradient: Float[Array, " k"],
    total_gradient: Float[Array, " k"],
    friction: Float[Array, " k"],
    density: Float[Array, ""],
    alpha: Float[Array, ""],
) -> Float[Array, " k"]:
    """−∂Q/∂t (m³/s²) from the gradients of flow and of total pressure, for an inertia of 1."""
    drive = total_gradient * area * (1.0 / density)
    # Divided last: XLA keeps the result of a division, and nothing here is computed twice.
    return (drive * area + flow * (alpha * flow_gradient + friction)) / area


def _momentum_rate_jvp(
    primals: tuple[Array, ...], tangents: tuple[Tangent, ...]
) -> tuple[Array, Array]:
    area, flow, flow_gradient, total_gradient, friction, density, alpha = primals
    value = momentum_rate(*primals)
    inverse = 1.0 / area
    velocity = flow * inverse
    resisting = (alpha * flow_gradient + friction) * inverse
    drive = total_gradient * (1.0 / density)
    coefficient = (
        lambda: drive - velocity * resisting,
        lambda: resisting,
        lambda: alpha * velocity,
        lambda: area * (1.0 / density),
        lambda: velocity,
        lambda: -drive * area * (1.0 / density),
        lambda: velocity * flow_gradient,
    )
    moved = _linear(*zip(coefficient, tangents, strict=True))
    return value, _or_zero(moved, value)


momentum_rate.defjvp(_momentum_rate_jvp, symbolic_zeros=True)


# ---------------------------------------------------------------- faces


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def van_albada(a: Float[Array, " k"], b: Float[Array, " k"], floor: float) -> Float[Array, " k"]:
    """A slope from the differences to both neighbours.

    (a² + ε) b + (b² + ε) a over a² + b² + 2ε; ε, the square of the floor, makes it smooth and turns
    limiting off for differences below the floor.
    """
    # Multiplied by a constant, not divided: divisions are what a cell costs.
    a, b = a * (1.0 / floor), b * (1.0 / floor)
    return floor * ((a * a + 1.0) * b + (b * b + 1.0) * a) / (a * a + b * b + 2.0)


def _van_albada_jvp(
    floor: float, primals: tuple[Array, Array], tangents: tuple[Tangent, Tangent]
) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    value = van_albada(a, b, floor)
    a, b = a * (1.0 / floor), b * (1.0 / floor)
    over = 1.0 / (a * a + b * b + 2.0)
    slope = ((a * a + 1.0) * b + (b * b + 1.0) * a) * over
    both = 2.0 * a * b + 1.0
    moved = _linear(
        (lambda: (both + b * b - 2.0 * a * slope) * over, a_dot),
        (lambda: (both + a * a - 2.0 * b * slope) * over, b_dot),
    )
    return value, _or_zero(moved, value)


van_albada.defjvp(_van_albada_jvp, symbolic_zeros=True)


class Reconstruction(NamedTuple):
    """Mean and jump (right less left) at the faces."""

    mean: Float[Array, " f"]
    jump: Float[Array, " f"]


def reconstruct(row: Float[Array, " r"], floor: float) -> Reconstruction:
    """Linear in each cell, with van Albada's slope; a row has three slots more than faces."""
    step = row[1:] - row[:-1]
    slope = van_albada(step[:-1], step[1:], floor)
    low, high = row[1:-2], row[2:-1]
    mean = 0.5 * (low + high) + 0.25 * (slope[:-1] - slope[1:])
    return Reconstruction(mean, (high - low) - 0.5 * (slope[:-1] + slope[1:]))


class _Face(NamedTuple):
    load: Array
    area: Array
    stiffness: Array
    share: Array


def _face(table: WallTable, density: Float[Array, ""], pressure: Float[Array, " f"]) -> _Face:
    """Load, A/A₀ and ρc²/M at the mean pressure, and 1/(Ac).

    One root and one division serve the impedance ρc/A, its inverse and the velocity. Relative to
    the table, which enters every product anew: XLA writes down each value from two arrays that has
    two uses, and that costs more than the multiplication.
    """
    load = table.load(pressure)
    area, stiffness = table.wall.relative_area(load), table.wall.relative_stiffness(load)
    speed = jnp.sqrt(stiffness * (1.0 / density) * table.modulus)
    return _Face(load, area, stiffness, 1.0 / (table.area * area * speed))


def _half_admittance(
    table: WallTable, density: Float[Array, ""], root: Float[Array, " f"] | None, at: _Face
) -> Float[Array, " f"]:
    """A/(2ρc)."""
    admittance = at.share * at.area * table.area * at.area * table.area * (1.0 / density)
    return 0.5 * (admittance if root is None else admittance * root)


def _half_impedance(
    table: WallTable, root: Float[Array, " f"] | None, at: _Face
) -> Float[Array, " f"]:
    """ρc/(2A)."""
    impedance = at.share * at.stiffness * table.modulus
    return 0.5 * (impedance if root is None else impedance / root)


def _head(
    table: WallTable, alpha: ScalarLike, at: _Face, flow: Float[Array, " f"]
) -> Float[Array, " f"]:
    """αρU²/2."""
    velocity = at.share * flow
    return 0.5 * alpha * at.stiffness * velocity * velocity * table.modulus


def _stiffening(table: WallTable, at: _Face) -> Float[Array, " f"]:
    """d ln(A/c)/dx with x the load: d ln A/dx is 1/stiffness, by what stiffness means."""
    slope = jax.jvp(table.wall.relative_stiffness, (at.load,), (jnp.ones_like(at.load),))[1]
    return (1.0 - 0.5 * slope) / at.stiffness


@jax.custom_jvp
def face_flow(
    table: WallTable,
    density: Float[Array, ""],
    root: Float[Array, " f"] | None,
    pressure: Reconstruction,
    mean_flow: Float[Array, " f"],
) -> Float[Array, " f"]:
    """Flow between two states: the acoustic Riemann problem, √(1/m) its `root` or None."""
    half = _half_admittance(table, density, root, _face(table, density, pressure.mean))
    return mean_flow - half * pressure.jump


def _face_flow_jvp(
    primals: tuple[WallTable, Array, Array | None, Reconstruction, Array],
    tangents: tuple[WallTable, Tangent, Tangent | None, Reconstruction, Tangent],
) -> tuple[Array, Array]:
    table, density, root, pressure, mean_flow = primals
    dot, density_dot, _, pressure_dot, mean_flow_dot = tangents
    at = _face(table, density, pressure.mean)
    half = _half_admittance(table, density, root, at)
    driven = half * pressure.jump
    value = mean_flow - driven
    by_pressure = driven * _stiffening(table, at) * table.inverse_modulus
    moved = _linear(
        (lambda: 1.0, mean_flow_dot),
        (lambda: -half, pressure_dot.jump),
        (lambda: -by_pressure, pressure_dot.mean),
        (lambda: by_pressure, dot.unloaded),
        (lambda: -driven * table.inverse_area, dot.area),
        (lambda: at.load * by_pressure + 0.5 * driven * table.inverse_modulus, dot.modulus),
        (lambda: 0.5 * driven / density, density_dot),
    )
    return value, _or_zero(moved, value)


face_flow.defjvp(_face_flow_jvp, symbolic_zeros=True)


@jax.custom_jvp
def face_total(
    table: WallTable,
    density: Float[Array, ""],
    alpha: Float[Array, ""],
    root: Float[Array, " f"] | None,
    mean_pressure: Float[Array, " f"],
    jump_flow: Float[Array, " f"],
    flow: Float[Array, " f"],
) -> Float[Array, " f"]:
    """Total pressure (over the external one) between two states, Pa; `flow` as `face_flow` says."""
    at = _face(table, density, mean_pressure)
    # The mean from the load: one value fewer that XLA would write down and read again.
    static = table.unloaded + table.modulus * at.load - _half_impedance(table, root, at) * jump_flow
    return static + _head(table, alpha, at, flow)


def _face_total_jvp(
    primals: tuple[WallTable, Array, Array, Array | None, Array, Array, Array],
    tangents: tuple[WallTable, Tangent, Tangent, Tangent | None, Tangent, Tangent, Tangent],
) -> tuple[Array, Array]:
    table, density, alpha, root, mean_pressure, jump_flow, flow = primals
    dot, density_dot, alpha_dot, _, mean_dot, jump_dot, flow_dot = tangents
    at = _face(table, density, mean_pressure)
    half = _half_impedance(table, root, at)
    driven, head = half * jump_flow, _head(table, alpha, at, flow)
    value = table.unloaded + table.modulus * at.load - driven + head
    by_load = driven * _stiffening(table, at) - 2.0 * head / at.stiffness
    by_pressure = by_load * table.inverse_modulus
    moved = _linear(
        (lambda: 1.0 + by_pressure, mean_dot),
        (lambda: -half, jump_dot),
        (lambda: alpha * at.stiffness * table.modulus * at.share * at.share * flow, flow_dot),
        (lambda: -by_pressure, dot.unloaded),
        (lambda: (driven - 2.0 * head) * table.inverse_area, dot.area),
        (lambda: -(0.5 * driven * table.inverse_modulus + at.load * by_pressure), dot.modulus),
        (lambda: (head - 0.5 * driven) / density, density_dot),
        (lambda: _head(table, 1.0, at, flow), alpha_dot),
    )
    return value, _or_zero(moved, value)


face_total.defjvp(_face_total_jvp, symbolic_zeros=True)
