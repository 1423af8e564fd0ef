"""The coupled equations written out once more, dense, to be differentiated through unrolled Newton.

Raw arrays in, `jnp.linalg.solve` on the Jacobian of all unknowns, nothing of the library. Unknowns,
each in its own unit so that the matrix is well scaled: total pressures P, flows Q, tissue pressures
p, and the stretch s = √(A/A_d) at both ends of every segment, which obeys

    P = p + ½αρ(Q/A)²,     p = p_d + (4/3)(Eh/r)(s − 1)    (rigid: s = 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree


class Theta(NamedTuple):
    """What is differentiated by: (s, 2), (c,), (), (), ()."""

    radius: Array
    beta_source: Array
    permeability: Array
    pressure: Array
    reduction: Array


class Unknown(NamedTuple):
    pressure: Array
    flow: Array
    tissue: Array
    stretch: Array


class DenseCase(NamedTuple):
    """Everything else, as arrays, so that one compiled program serves every case.

    `wall` is k1, k2, k3, p_d and `is_elastic` whether it counts; `largest`, `smallest` bound the
    dilation, which follows the law with target flows `target` where `is_regulated`, and is
    `dilation` otherwise.
    """

    segment: Array  # (s, 2)
    length: Array
    node: Array  # (n,), its length is all that counts
    lesion_segment: Array
    lesion_fraction: Array
    lesion_length: Array
    viscosity: Array
    density: Array
    conduction_per_permeability: Array  # dense (c, c)
    volume: Array
    cell: Array
    terminal: Array
    overlap: Array
    terminal_node: Array
    beta_sink: Array
    tissue_density: Array
    is_elastic: Array
    wall: Array
    is_regulated: Array
    dilation: Array
    target: Array
    largest: Array
    smallest: Array


SHARPNESS = 8
PRESSURE, _FLOW = 1e4, 1e-6


def _dilation(case: DenseCase, undilated: Array) -> Array:
    share = jnp.maximum(undilated / case.target, 0.0)
    opening = 1.0 / (share**SHARPNESS + case.largest**-SHARPNESS)
    law = (case.smallest**SHARPNESS + opening) ** (1.0 / SHARPNESS)
    return jnp.where(case.is_regulated, law, case.dilation)


def _exchange(case: DenseCase, theta: Theta, x: Unknown):
    """Terminal flows, and what each control volume gets and loses, m³/s."""
    pressure, tissue = PRESSURE * x.pressure, PRESSURE * x.tissue
    at = pressure[case.terminal_node][case.terminal]
    into = case.overlap * theta.beta_source[case.cell] * (at - tissue[case.cell])
    out = case.overlap * case.beta_sink[case.cell] * tissue[case.cell]
    n_terminals, n_cells = case.terminal_node.size, case.volume.size
    undilated = jnp.zeros(n_terminals).at[case.terminal].add(into)
    f = _dilation(case, undilated)
    gather = lambda v: jnp.zeros(n_cells).at[case.cell].add(f[case.terminal] * v)
    return f * undilated, gather(into), gather(out)


def _drop(case: DenseCase, theta: Theta, x: Unknown) -> Array:
    """Pressure lost in every segment, Pa."""
    flow = _FLOW * x.flow
    a, b = (theta.radius * x.stretch).T
    integral = case.length * (a**2 + a * b + b**2) / (3 * jnp.pi**2 * a**3 * b**3)
    loss = 8 * jnp.pi * case.viscosity * integral * flow
    # one lesion, whose reference radius is the radius of its segments
    inside = theta.radius[case.lesion_segment].mean(axis=1)
    reference = jnp.sum(case.lesion_fraction * inside)
    diameter, area = 2 * reference, jnp.pi * reference**2
    left = 1 - theta.reduction
    k_v = lambda r: 32 * (0.83 * case.lesion_length + 1.64 * diameter * r) / diameter / r**4
    viscous = (k_v(left) - k_v(jnp.ones(()))) * case.viscosity / (diameter * area)
    turbulent = 0.5 * 1.52 * case.density * (left**-2 - 1) ** 2 / area**2
    here = flow[case.lesion_segment]
    extra = case.lesion_fraction * (viscous * here + turbulent * jnp.abs(here) * here)
    return loss.at[case.lesion_segment].add(extra)


def residual(case: DenseCase, theta: Theta, x: Unknown) -> Unknown:
    """All equations, in the units of the unknowns; node 0 is the inlet."""
    flow, pressure = _FLOW * x.flow, PRESSURE * x.pressure
    first, second = case.segment.T
    q, source, sink = _exchange(case, theta, x)
    node = jnp.zeros(case.node.size).at[second].add(flow).at[first].add(-flow)
    node = node.at[case.terminal_node].add(-q) / _FLOW
    node = node.at[0].set(x.pressure[0] - theta.pressure / PRESSURE)
    drop = pressure[first] - pressure[second] - _drop(case, theta, x)
    conducted = theta.permeability * (case.conduction_per_permeability @ (PRESSURE * x.tissue))
    k1, k2, k3, reference = case.wall
    stiffness = 4 / 3 * (k1 * jnp.exp(k2 * theta.radius) + k3)
    velocity = flow[:, None] / (jnp.pi * theta.radius**2 * x.stretch**2)
    static = pressure[case.segment] - 0.5 * (4 / 3) * case.density * velocity**2
    widened = jnp.where(case.is_elastic, (static - reference) / stiffness, 0.0)
    wall = x.stretch - 1.0 - widened
    return Unknown(node, drop / PRESSURE, (source - sink - conducted) / _FLOW, wall)


def solve(case: DenseCase, theta: Theta, steps: int) -> Unknown:
    """A fixed number of undamped Newton steps from rest, to be differentiated through."""
    inlet = theta.pressure / PRESSURE
    start = Unknown(
        jnp.ones(case.node.size) * inlet,
        jnp.zeros(case.length.size),
        jnp.full(case.volume.size, 0.17) * inlet,
        jnp.ones((case.length.size, 2)),
    )
    flat, back = ravel_pytree(start)
    equations = lambda y: ravel_pytree(residual(case, theta, back(y)))[0]

    def step(y, _):
        return y - jnp.linalg.solve(jax.jacfwd(equations)(y), equations(y)), None

    return back(jax.lax.scan(step, flat, None, length=steps)[0])


def blood_flow(case: DenseCase, theta: Theta, x: Unknown) -> Array:
    """Myocardial blood flow of every control volume, m³/(s·kg)."""
    _, source, _ = _exchange(case, theta, x)
    return source / (case.tissue_density * case.volume)
