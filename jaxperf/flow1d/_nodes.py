"""Nodes: mass and pressure where vessels meet, end, or narrow to a lesion."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# The states that meet at a node differ from the solution by the error of the reconstruction, so
# Newton's method starts close.
_NEWTON_STEPS = 3


class NodeEquations(NamedTuple):
    r"""What the vessels and the boundary say at one moment.

    On the outgoing characteristic of end e, with its state $(\hat p,\hat Q,\hat A)$ there,

    $$Q = \hat Q + y\,(p-\hat p),\qquad A = \hat A + K(p-\hat p),\qquad
    P = p + p_v + h\,Q^2/A^2 - \sigma(R\,Q+S|Q|Q),$$

    and at node n, whose ends share its pressure $P_n$,

    $$\sum_e\sigma_eQ_e + J_n - G_nP_n = 0\qquad\text{or}\qquad P_n = P_n^{fix}.$$

    **Attributes:** over the ends of each node, padded with sign 0: `sign` σ, +1 where flow of
    positive sign runs into the node; `pressure`, `flow`, `area`, the states; `slope` y;
    `compliance` K; `viscous` p_v, of the wall; `head` h (½αρ, or 0 for static pressure); `linear`
    R; `quadratic` S. Over nodes: `conductance` G; `fixed`, 1 where the pressure is prescribed,
    else 0; `source`, P^fix there, else J.
    """

    sign: Float[Array, "w n"]
    pressure: Float[Array, "w n"]
    flow: Float[Array, "w n"]
    area: Float[Array, "w n"]
    slope: Float[Array, "w n"]
    compliance: Float[Array, "w n"]
    viscous: Float[Array, "w n"]
    head: Float[Array, "w n"]
    linear: Float[Array, "w n"]
    quadratic: Float[Array, "w n"]
    conductance: Float[Array, " n"]
    fixed: Float[Array, " n"]
    source: Float[Array, " n"]


def end_flow(equations: NodeEquations, pressure: Float[Array, "w n"]) -> Float[Array, "w n"]:
    """Flow at the ends where the static pressure is this."""
    return equations.flow + equations.slope * (pressure - equations.pressure)


def end_area(equations: NodeEquations, pressure: Float[Array, "w n"]) -> Float[Array, "w n"]:
    """Lumen area at the ends where the static pressure is this."""
    return equations.area + equations.compliance * (pressure - equations.pressure)


class _Linearised(NamedTuple):
    """Flow and node pressure that the ends ask for; one over the derivative of the latter."""

    flow: Float[Array, "w n"]
    total: Float[Array, "w n"]
    inverse_slope: Float[Array, "w n"]


def _linearise(e: NodeEquations, pressure: Float[Array, "w n"]) -> _Linearised:
    flow = end_flow(e, pressure)
    inverse_area = 1.0 / end_area(e, pressure)
    velocity = flow * inverse_area
    lost = e.linear + e.quadratic * jnp.abs(flow)
    total = pressure + e.viscous + e.head * velocity * velocity - e.sign * lost * flow
    head = 2.0 * e.head * velocity * (e.slope - velocity * e.compliance) * inverse_area
    loss = (lost + e.quadratic * jnp.abs(flow)) * e.slope
    return _Linearised(flow, total, 1.0 / (1.0 + head - e.sign * loss))


# Pressures of the ends and of the nodes.
_AtNodes: TypeAlias = tuple[Float[Array, "w n"], Float[Array, " n"]]


def _eliminate(e: NodeEquations, at: _Linearised, source: Float[Array, " n"]) -> _AtNodes:
    """Solve  total + δp/inverse_slope = P_n,  Σσ(flow + y δp) + J − G P_n = 0  for δp and P_n."""
    admittance = -e.sign * e.slope * at.inverse_slope
    into = jnp.sum(e.sign * at.flow + admittance * at.total, axis=0) + source
    free = into / (jnp.sum(admittance, axis=0) + e.conductance)
    node = jnp.where(e.fixed > 0, source, free)
    return (node[None, :] - at.total) * at.inverse_slope, node


def _newton(e: NodeEquations) -> _AtNodes:
    pressure = e.pressure
    for _ in range(_NEWTON_STEPS):
        step, node = _eliminate(e, _linearise(e, pressure), e.source)
        pressure = pressure + step
    return pressure, node


@jax.custom_jvp
def solve_nodes(equations: NodeEquations) -> _AtNodes:
    """Static pressure at every end and the pressure of every node (Pa).

    Newton's method for all nodes at once. The dynamic pressure and the losses make a node
    nonlinear; eliminating its ends leaves one linear equation for each node and step, so mass is
    conserved to rounding whether or not the pressures have converged. The derivative is that of
    the converged equations, by the implicit function theorem, and is itself differentiable.
    """
    return _newton(equations)


@solve_nodes.defjvp
def _solve_nodes_jvp(
    primals: tuple[NodeEquations], tangents: tuple[NodeEquations]
) -> tuple[_AtNodes, _AtNodes]:
    (equations,), (dot,) = primals, tangents
    pressure, node = solve_nodes(equations)
    asked = lambda e: _linearise(e, pressure)
    at, moved = jax.jvp(asked, (equations,), (dot,))
    free = 1.0 - equations.fixed
    tangent = _eliminate(
        equations,
        moved._replace(inverse_slope=at.inverse_slope),
        dot.source - free * dot.conductance * node,
    )
    return (pressure, node), tangent
