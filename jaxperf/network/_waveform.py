"""Periodic functions of time, given by their values at knots."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import float_leaf, Parameter
from .._misc import InputError, is_traced


class Waveform(eqx.Module):
    r"""Periodic functions of time, linear between common knots.

    $$w(t) = v_k + (v_{k+1}-v_k)\frac{t-t_k}{t_{k+1}-t_k},\qquad w(t+T) = w(t)$$

    From the last knot to the end of the period the function runs back to its first value.

    **Arguments:**

    - `time`: (m,) knots, s, strictly increasing, from 0 to the period at most.
    - `value`: (b, m), one row for each function, in the unit of what it describes.
    - `period`: T, s; no derivative with respect to it is taken, since the solvers hold the length
      of a cycle fixed.

    **Errors:** [`InputError`][] for knots that do not increase or leave the period.
    """

    time: Float[Array, " m"] = eqx.field(converter=float_leaf)
    value: Float[Array, "b m"] = eqx.field(converter=float_leaf)
    period: Parameter = eqx.field(converter=float_leaf)

    def __check_init__(self) -> None:
        if is_traced(self.time) or is_traced(self.period):
            return
        time, period = np.asarray(self.time), float(np.asarray(self.period))
        shape = np.shape(self.value)
        if len(shape) != 2 or shape[1] != len(time):
            raise ValueError(f"expected (b, {len(time)}) values at the knots, got {shape}")
        if not is_traced(self.value) and not np.isfinite(np.asarray(self.value)).all():
            raise InputError(
                "a value is not finite",
                where="waveform",
                expected="numbers",
                fix="Remove the knot or measure it again",
            )
        inside = len(time) > 0 and time[0] >= 0 and time[-1] <= period * (1 + 1e-9)
        if not (period > 0 and inside and (np.diff(time) > 0).all()):
            raise InputError(
                f"the knots run from {time[:1]} to {time[-1:]} s and the period is {period} s",
                where="waveform",
                expected="strictly increasing times from 0 to the period",
                fix="Give one cycle, each time once",
            )

    def __call__(self, t: Float[Array, ""]) -> Float[Array, " b"]:
        """The values at a time (s)."""
        knot, value, period = self._closed()
        phase = jnp.mod(t.astype(knot.dtype), period)
        # Comparing with every knot beats a binary search at these lengths.
        index = jnp.clip(jnp.sum(phase >= knot, dtype=jnp.int32) - 1, 0, knot.shape[0] - 2)
        width = knot[index + 1] - knot[index]
        # Where the table ends at the period the closing interval is empty.
        share = (phase - knot[index]) / jnp.where(width > 0, width, 1.0)
        return value[:, index] * (1.0 - share) + value[:, index + 1] * share

    @property
    def mean(self) -> Float[Array, " b"]:
        """Mean over the period, exact for values linear in between."""
        knot, value, period = self._closed()
        knot, value = knot[1:], value[:, 1:]
        return 0.5 * ((value[:, 1:] + value[:, :-1]) @ jnp.diff(knot)) / period

    def _closed(self) -> tuple[Array, Array, Array]:
        """Knots and values from before 0 to the period or after it, first value repeated."""
        period = jax.lax.stop_gradient(self.period).astype(self.time.dtype)
        knot = jnp.concatenate([self.time, self.time[:1] + period])
        # A first knot after 0 leaves a gap that the last one of the cycle before covers.
        knot = jnp.concatenate([self.time[-1:] - period, knot])
        value = jnp.concatenate([self.value[:, -1:], self.value, self.value[:, :1]], axis=1)
        return knot, value, period


def at_time(value: Array | Waveform, t: Float[Array, ""]) -> Array:
    """The values at a time (s) of what is constant or a waveform."""
    return value(t) if isinstance(value, Waveform) else value


def cycle_mean(value: Array | Waveform) -> Array:
    """The mean over a cycle of what is constant or a waveform."""
    return value.mean if isinstance(value, Waveform) else value
