"""Nodes: mass and pressure where vessels meet, end, or narrow to a lesion."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# The states that meet at a node differ from the solution by the error of the reconstruction, so
# Newton's method starts close: the third step changes the last digits only.
_NEWTON_STEPS = 3


class Meeting(NamedTuple):
    """Which ends meet at which node.

    **Attributes:** `end_node` (e,); `node_end` (n, w) padded with e; `sign` (e,), +1 where flow of
    positive sign runs into the node; `fixed` (n,), whether the node's pressure is prescribed.
    """

    end_node: Int[Array, " e"]
    node_end: Int[Array, "n w"]
    sign: Float[Array, " e"]
    fixed: Bool[Array, " n"]

    def at_nodes(self, values: Float[Array, " e"]) -> Float[Array, " n"]:
        """Sum over the ends of every node."""
        padded = jnp.concatenate([values, jnp.zeros_like(values[:1])])
        return jnp.sum(padded[self.node_end], axis=1)


class NodeEquations(NamedTuple):
    r"""What the vessels and the boundary say at one moment.

    On the outgoing characteristic of end e, with its state $(\hat p,\hat Q,\hat A)$ there,

    $$Q = \hat Q + y\,(p-\hat p),\qquad A = \hat A + K(p-\hat p),\qquad
    P = p + h\,Q^2/A^2 - \sigma(R\,Q+S|Q|Q),$$

    and at node n, whose ends share its pressure $P_n$,

    $$\sum_e\sigma_eQ_e + J_n - G_nP_n = 0\qquad\text{or}\qquad P_n = P_n^{fix}.$$

    **Attributes:** over ends: `pressure`, `flow`, `area`, the states; `slope` y, `compliance` K,
    `head` h (½αρ, or 0 for static pressure), `linear` R, `quadratic` S. Over nodes: `inflow` J,
    `conductance` G, `held` P^fix.
    """

    pressure: Float[Array, " e"]
    flow: Float[Array, " e"]
    area: Float[Array, " e"]
    slope: Float[Array, " e"]
    compliance: Float[Array, " e"]
    head: Float[Array, " e"]
    linear: Float[Array, " e"]
    quadratic: Float[Array, " e"]
    inflow: Float[Array, " n"]
    conductance: Float[Array, " n"]
    held: Float[Array, " n"]


def end_flow(equations: NodeEquations, pressure: Float[Array, " e"]) -> Float[Array, " e"]:
    """Flow at the ends where the static pressure is this."""
    return equations.flow + equations.slope * (pressure - equations.pressure)


def end_total(
    meeting: Meeting, equations: NodeEquations, pressure: Float[Array, " e"]
) -> Float[Array, " e"]:
    """The node pressure that the ends ask for where their static pressure is this."""
    flow = end_flow(equations, pressure)
    area = equations.area + equations.compliance * (pressure - equations.pressure)
    loss = (equations.linear + equations.quadratic * jnp.abs(flow)) * flow
    return pressure + equations.head * (flow / area) ** 2 - meeting.sign * loss


def _total_slope(meeting, equations, pressure):
    """Derivative of `end_total` with respect to the pressure."""
    e = equations
    flow = end_flow(e, pressure)
    area = e.area + e.compliance * (pressure - e.pressure)
    velocity = flow / area
    head = 2.0 * e.head * velocity * (e.slope - velocity * e.compliance) / area
    loss = (e.linear + 2.0 * e.quadratic * jnp.abs(flow)) * e.slope
    return 1.0 + head - meeting.sign * loss


def _eliminate(meeting, e, slope, flow, total, inflow, held):
    """Solve  total + slope·δp = P_n,  Σσ(flow + y δp) + inflow − G P_n = 0  for δp."""
    admittance = -meeting.sign * e.slope / slope
    node_flow = meeting.at_nodes(meeting.sign * flow + admittance * total) + inflow
    node_admittance = meeting.at_nodes(admittance) + e.conductance
    node = jnp.where(meeting.fixed, held, node_flow / node_admittance)
    return (node[meeting.end_node] - total) / slope


@jax.custom_jvp
def solve_nodes(meeting: Meeting, equations: NodeEquations) -> Float[Array, " e"]:
    """Static pressure (Pa) at every end: Newton's method for all nodes at once.

    The dynamic pressure and the losses make a node nonlinear. Eliminating the ends leaves one
    linear equation for each node and step, so mass is conserved to rounding whether or not the
    pressures have converged. The derivative is that of the converged equations, by the implicit
    function theorem, and is itself differentiable.
    """
    pressure = equations.pressure
    for _ in range(_NEWTON_STEPS):
        pressure = pressure + _eliminate(
            meeting,
            equations,
            _total_slope(meeting, equations, pressure),
            end_flow(equations, pressure),
            end_total(meeting, equations, pressure),
            equations.inflow,
            equations.held,
        )
    return pressure


@solve_nodes.defjvp
def _solve_nodes_jvp(primals, tangents):
    meeting, equations = primals
    _, dot = tangents
    pressure = solve_nodes(meeting, equations)
    slope = _total_slope(meeting, equations, pressure)
    at_rest = lambda e: (end_flow(e, pressure), end_total(meeting, e, pressure))
    _, (flow_dot, total_dot) = jax.jvp(at_rest, (equations,), (dot,))
    # The conductance also multiplies the node's pressure, which the ends share.
    total = end_total(meeting, equations, pressure)
    shared = meeting.at_nodes(total) / jnp.sum(
        meeting.node_end < total.shape[0], axis=1, dtype=jnp.int32
    )
    inflow_dot = dot.inflow - dot.conductance * shared
    pressure_dot = _eliminate(
        meeting, equations, slope, flow_dot, total_dot, inflow_dot, dot.held
    )
    return pressure, pressure_dot
