"""What the boundary conditions mean to transient flow: their states, their laws at a node."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from ..network import (
    AbstractBoundary,
    CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD,
    FlowBoundary,
    FlowWaveform,
    PerfusedBed,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)


class _Ladder(NamedTuple):
    r"""An outlet as two compartments behind two resistances.

    $Q=(P-a)/R_1$, $C_a\dot a=Q-(a-\pi)/R_2$, $C_t(\dot\pi-\dot p_{im})=(a-\pi)/R_2-(M\pi-m)$.
    """

    R1: Array
    R2: Array
    Ca: Array
    Ct: Array
    conductance: Array
    inflow: Array
    pressure_im: Waveform | None


def _ladder(c: AbstractBoundary) -> _Ladder | None:
    if isinstance(c, CoronaryOutletSvOneD):
        drain, at = 1.0 / c.Rv, -c.P_ref / c.Rv
        return _Ladder(c.Ra, c.Ra_micro, c.Ca, c.Cim, drain, at, c.pressure_im)
    if isinstance(c, CoronaryOutletSvZeroD):
        drain, at = 1.0 / c.Rv1, c.P_v / c.Rv1
        return _Ladder(c.Ra1, c.Ra2, c.Ca, c.Cc, drain, at, c.pressure_im)
    if isinstance(c, PerfusedBed):
        return _Ladder(c.R1, c.R2, c.Ca, c.Ct, c.conductance, c.inflow, c.pressure_im)
    return None


def _apply(conductance: Array, pressure: Array) -> Array:
    """M π for a matrix or its diagonal."""
    return conductance @ pressure if conductance.ndim == 2 else conductance * pressure


def _drain(conductance: Array, flow: Array) -> Array:
    """M⁻¹ flow."""
    return jnp.linalg.solve(conductance, flow) if conductance.ndim == 2 else flow / conductance


def _around(ladder: _Ladder, t: Array) -> Array | float:
    """Intramyocardial pressure; its constant part moves nothing and is left out."""
    return 0.0 if ladder.pressure_im is None else ladder.pressure_im(t)


def outlet_start(
    c: AbstractBoundary, flow: Float[Array, " b"], pressure: Float[Array, " b"]
) -> Float[Array, "b q"]:
    """The mean state of an outlet through which this is the mean flow.

    A windkessel holds the pressure of its capacitor. A ladder holds a, and π − p_im: as a
    transmural pressure it needs no derivative of p_im, which has steps.
    """
    if isinstance(c, WindkesselOutlet):
        return (pressure - c.R1 * flow)[:, None]
    if (ladder := _ladder(c)) is not None:
        tissue = _drain(ladder.conductance, flow + ladder.inflow)
        artery = tissue + ladder.R2 * flow
        around = 0.0 if ladder.pressure_im is None else ladder.pressure_im.mean
        return jnp.stack([artery, tissue - around], axis=1)
    return jnp.zeros((c.node.shape[0], 0), flow.dtype)


def outlet_source(c: AbstractBoundary, state: Float[Array, "b q"], t: Array) -> Array:
    """The prescribed pressure, or the flow into the network at zero pressure (b,)."""
    if isinstance(c, PressureBoundary):
        return c.pressure
    if isinstance(c, PressureWaveform):
        return c.pressure(t)
    if isinstance(c, FlowBoundary):
        return c.flow
    if isinstance(c, FlowWaveform):
        return c.flow(t)
    if isinstance(c, ResistanceOutlet):
        return c.pressure_ref / c.resistance
    return state[:, 0] * outlet_conductance(c)


def outlet_conductance(c: AbstractBoundary) -> Array:
    """Flow out of the network for each pascal at its node, m³/(Pa·s) (b,); 0 where prescribed."""
    if isinstance(c, PressureBoundary | PressureWaveform | FlowBoundary | FlowWaveform):
        return jnp.zeros(c.node.shape, _dtype(c))
    if isinstance(c, ResistanceOutlet):
        return 1.0 / c.resistance
    if isinstance(c, WindkesselOutlet):
        return 1.0 / c.R1
    if (ladder := _ladder(c)) is not None:
        return 1.0 / ladder.R1
    raise ValueError(
        f"no transient meaning is known for {type(c).__name__}; expected a boundary type of "
        "jaxperf.network"
    )


def outlet_rate(
    c: AbstractBoundary, state: Float[Array, "b q"], t: Array, flow: Float[Array, " b"]
) -> Float[Array, "b q"]:
    """Time derivative of an outlet's state under this flow out of the network."""
    if isinstance(c, WindkesselOutlet):
        return ((flow - (state[:, 0] - c.pressure_ref) / c.R2) / c.C)[:, None]
    if (ladder := _ladder(c)) is not None:
        tissue = state[:, 1] + _around(ladder, t)
        through = (state[:, 0] - tissue) / ladder.R2
        drained = _apply(ladder.conductance, tissue) - ladder.inflow
        artery = (flow - through) / ladder.Ca
        return jnp.stack([artery, (through - drained) / ladder.Ct], axis=1)
    return jnp.zeros_like(state)


def outlet_damping(c: AbstractBoundary) -> Float[Array, "b q"]:
    """Rates (1/s) no smaller than those at which an outlet's states relax by themselves.

    Sums over the rows of the rate matrix: its diagonal alone would leave compartments that are
    both fast unstable.
    """
    if isinstance(c, WindkesselOutlet):
        return ((1.0 / c.R1 + 1.0 / c.R2) / c.C)[:, None]
    if (ladder := _ladder(c)) is not None:
        matrix = jnp.abs(ladder.conductance)
        drain = jnp.sum(matrix, axis=1) if matrix.ndim == 2 else matrix
        artery = (1.0 / ladder.R1 + 2.0 / ladder.R2) / ladder.Ca
        return jnp.stack([artery, (2.0 / ladder.R2 + drain) / ladder.Ct], axis=1)
    return jnp.zeros((c.node.shape[0], 0), _dtype(c))


def _dtype(c: AbstractBoundary):
    """The floating-point type of a condition's data."""
    value = next(v for name, v in vars(c).items() if name != "node")
    return (value.value if isinstance(value, Waveform) else value).dtype
