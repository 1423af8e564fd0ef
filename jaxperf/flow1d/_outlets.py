"""What the forms of boundary conditions mean to transient flow: states, laws at a node.

The state of a [`Ladder`][] holds for each compartment the pressure inside less the one around it:
as a transmural pressure it needs no derivative of the pressure around, which has steps. The other
forms have no state.
"""

import functools
import operator

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..network import at_time, Fed, Form, Held, JointDrain, Ladder, Waveform


def outlet_start(form: Form, pressure: Float[Array, " b"]) -> Float[Array, "b q"]:
    """The mean state of an outlet at whose node this is the mean pressure.

    Down the ladder from the node, $p_k = p_{k-1} - R_kQ$, with the mean flow Q that the outlet
    takes by its own law: other conditions may share the node.
    """
    columns = []
    if isinstance(form, Ladder):
        flow = _mean_flow(form, pressure)
        for resistance, outer in zip(form.resistance, form.pressure_outer, strict=False):
            pressure = pressure - resistance * flow
            columns.append(pressure if outer is None else pressure - outer.mean)
    return _stacked(columns, form)


def _mean_flow(ladder: Ladder, pressure: Float[Array, " b"]) -> Float[Array, " b"]:
    """Flow through full compartments, m³/s: Q = (p − sink)/ΣR, or Q = M(p − Q ΣR) − m."""
    resistance, sink = functools.reduce(operator.add, ladder.resistance), ladder.sink
    if not isinstance(sink, JointDrain):
        return (pressure - sink) / resistance
    one = jnp.eye(pressure.shape[0], dtype=pressure.dtype)
    matrix = one + sink.conductance * resistance[None, :]
    return jnp.linalg.solve(matrix, sink.conductance @ pressure - sink.inflow)


def outlet_source(form: Form, state: Float[Array, "b q"], t: Array) -> Array:
    """The prescribed pressure, or the flow into the network at zero pressure (b,)."""
    if isinstance(form, Held):
        return at_time(form.pressure, t)
    if isinstance(form, Fed):
        return at_time(form.flow, t)
    if form.compliance:
        return _inside(form, state, t)[0] * outlet_conductance(form)
    assert not isinstance(form.sink, JointDrain)
    return form.sink / form.resistance[0]


def outlet_conductance(form: Form) -> Array:
    """Flow out of the network for each pascal at its node, m³/(Pa·s) (b,); 0 where prescribed."""
    if isinstance(form, Ladder):
        return 1.0 / form.resistance[0]
    return jnp.zeros(form.node.shape, _dtype(form))


def outlet_rate(
    form: Form, state: Float[Array, "b q"], t: Array, flow: Float[Array, " b"]
) -> Float[Array, "b q"]:
    """Time derivative of an outlet's state under this flow out of the network."""
    columns = []
    if isinstance(form, Ladder) and form.compliance:
        inside = _inside(form, state, t)
        pairs = zip(inside[:-1], inside[1:], form.resistance[1 : len(inside)], strict=True)
        through = [flow, *((p - q) / r for p, q, r in pairs), _drained(form, inside[-1])]
        columns = [(through[k] - through[k + 1]) / c for k, c in enumerate(form.compliance)]
    return _stacked(columns, form)


def outlet_damping(form: Form) -> Float[Array, "b q"]:
    """Rates (1/s) no smaller than those at which an outlet's states relax by themselves.

    Sums over the rows of the rate matrix: its diagonal alone would leave compartments that are
    both fast unstable.
    """
    columns = []
    if isinstance(form, Ladder):
        n = len(form.compliance)
        for k, compliance in enumerate(form.compliance):
            # Twice where there is a compartment at the other end too, whose state is in the row.
            front = (1.0 if k == 0 else 2.0) / form.resistance[k]
            back = _drain_sum(form) if k == n - 1 else 2.0 / form.resistance[k + 1]
            columns.append((front + back) / compliance)
    return _stacked(columns, form)


def _inside(ladder: Ladder, state: Float[Array, "b q"], t: Array) -> list[Array]:
    """The pressures of the compartments, Pa."""
    outer = enumerate(ladder.pressure_outer)
    return [state[:, k] if e is None else state[:, k] + e(t) for k, e in outer]


def _drained(ladder: Ladder, pressure: Float[Array, " b"]) -> Float[Array, " b"]:
    """Flow to the sink from this pressure in front of it, m³/s."""
    sink = ladder.sink
    if isinstance(sink, JointDrain):
        return sink.conductance @ pressure - sink.inflow
    return (pressure - sink) / ladder.resistance[-1]


def _drain_sum(ladder: Ladder) -> Float[Array, " b"]:
    """The part of the drain in the sums over rows, m³/(Pa·s)."""
    if isinstance(ladder.sink, JointDrain):
        return jnp.sum(jnp.abs(ladder.sink.conductance), axis=1)
    return 1.0 / ladder.resistance[-1]


def _stacked(columns: list[Array], form: Form) -> Float[Array, "b q"]:
    """One column for each compartment; none where there is no compartment."""
    return jnp.stack(columns, axis=1) if columns else jnp.zeros((*form.node.shape, 0), _dtype(form))


def _dtype(form: Form) -> np.dtype:
    """The floating-point type of the data of a form."""
    if isinstance(form, Ladder):
        return form.resistance[0].dtype
    value = form.pressure if isinstance(form, Held) else form.flow
    return (value.value if isinstance(value, Waveform) else value).dtype
