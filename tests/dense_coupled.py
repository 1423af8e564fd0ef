"""The coupled equations written out once more, dense, to be differentiated through unrolled Newton.

Raw arrays in, `jnp.linalg.solve` on the Jacobian of all unknowns, nothing of the library. Unknowns,
each in its own unit so that the matrix is well scaled: total pressures P, flows Q, tissue pressures
p, and the stretch s = √(A/A_d) at both ends of every segment, which obeys

    P = p + ½αρ(Q/A)²,     p = p_d + (4/3)(Eh/r)(s − 1)    (rigid: s = 1).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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
    """Everything else. `wall` is (k1, k2, k3, p_d) or None; `regulation` (target, max, min, n)."""

    segment: np.ndarray
    length: np.ndarray
    n_nodes: int
    lesion_segment: np.ndarray
    lesion_fraction: np.ndarray
    lesion_radius: float
    lesion_length: float
    viscosity: float
    density: float
    conduction_per_permeability: np.ndarray  # dense (c, c)
    volume: np.ndarray
    cell: np.ndarray
    terminal: np.ndarray
    overlap: np.ndarray
    terminal_node: np.ndarray
    beta_sink: np.ndarray
    dilation: np.ndarray
    tissue_density: float
    wall: tuple[float, ...] | None
    regulation: tuple | None


_PRESSURE, _FLOW = 1e4, 1e-6


def _dilation(case: DenseCase, undilated: Array) -> Array:
    if case.regulation is None:
        return jnp.asarray(case.dilation)
    target, largest, smallest, n = case.regulation
    share = jnp.maximum(undilated / jnp.asarray(target), 0.0)
    return (smallest**n + 1.0 / (share**n + largest**-n)) ** (1.0 / n)


def _exchange(case: DenseCase, theta: Theta, x: Unknown):
    """Terminal flows, and what each control volume gets and loses, m³/s."""
    pressure, tissue = _PRESSURE * x.pressure, _PRESSURE * x.tissue
    at = pressure[case.terminal_node][case.terminal]
    into = case.overlap * theta.beta_source[case.cell] * (at - tissue[case.cell])
    out = case.overlap * case.beta_sink[case.cell] * tissue[case.cell]
    n_terminals, n_cells = len(case.terminal_node), len(case.volume)
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
    diameter, area = 2 * case.lesion_radius, jnp.pi * case.lesion_radius**2
    left = 1 - theta.reduction
    k_v = lambda r: 32 * (0.83 * case.lesion_length + 1.64 * diameter * r) / diameter / r**4
    viscous = (k_v(left) - k_v(jnp.ones(()))) * case.viscosity / (diameter * area)
    turbulent = 0.5 * 1.52 * case.density * (left**-2 - 1) ** 2 / area**2
    here = flow[case.lesion_segment]
    extra = case.lesion_fraction * (viscous * here + turbulent * jnp.abs(here) * here)
    return loss.at[case.lesion_segment].add(extra)


def residual(case: DenseCase, theta: Theta, x: Unknown) -> Unknown:
    """All equations, in the units of the unknowns; node 0 is the inlet."""
    flow, pressure = _FLOW * x.flow, _PRESSURE * x.pressure
    first, second = case.segment.T
    q, source, sink = _exchange(case, theta, x)
    node = jnp.zeros(case.n_nodes).at[second].add(flow).at[first].add(-flow)
    node = node.at[case.terminal_node].add(-q) / _FLOW
    node = node.at[0].set(x.pressure[0] - theta.pressure / _PRESSURE)
    drop = pressure[first] - pressure[second] - _drop(case, theta, x)
    conducted = theta.permeability * (case.conduction_per_permeability @ (_PRESSURE * x.tissue))
    if case.wall is None:
        wall = x.stretch - 1.0
    else:
        k1, k2, k3, reference = case.wall
        stiffness = 4 / 3 * (k1 * jnp.exp(k2 * theta.radius) + k3)
        velocity = flow[:, None] / (jnp.pi * theta.radius**2 * x.stretch**2)
        static = pressure[case.segment] - 0.5 * (4 / 3) * case.density * velocity**2
        wall = x.stretch - 1.0 - (static - reference) / stiffness
    return Unknown(node, drop / _PRESSURE, (source - sink - conducted) / _FLOW, wall)


def solve(case: DenseCase, theta: Theta, steps: int) -> Unknown:
    """A fixed number of undamped Newton steps from rest, to be differentiated through."""
    inlet = theta.pressure / _PRESSURE
    start = Unknown(
        jnp.full(case.n_nodes, 1.0) * inlet,
        jnp.zeros(len(case.length)),
        jnp.full(len(case.volume), 0.17) * inlet,
        jnp.ones((len(case.length), 2)),
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
