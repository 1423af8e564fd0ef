"""Maps between the unconstrained line and the values of a parameter."""

import abc
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._misc import InputError


class AbstractTransform(eqx.Module):
    """A smooth increasing map x = T(z) from the whole line onto the values of a parameter."""

    range: eqx.AbstractVar[str]

    @abc.abstractmethod
    def forward(self, latent: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """x = T(z)."""

    @abc.abstractmethod
    def inverse(self, value: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """z = T⁻¹(x)."""

    @abc.abstractmethod
    def holds(self, value: Float[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
        """Whether a value lies in the range."""

    @abc.abstractmethod
    def change(self, before: float, after: float) -> str:
        """A change of the value in words."""


def _difference(before: float, after: float) -> str:
    way = "up" if after >= before else "down"
    return f"{way} by {abs(after - before):.2g}"


class Identity(AbstractTransform):
    """x = z, for values without a bound."""

    range: str = eqx.field(static=True, default="finite numbers", init=False)

    def forward(self, latent: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return latent

    def inverse(self, value: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return value

    def holds(self, value: Float[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
        return np.asarray(np.isfinite(value))

    def change(self, before: float, after: float) -> str:
        return _difference(before, after)


class Log(AbstractTransform):
    """x = exp z, for positive values; an sd of z is a relative one."""

    range: str = eqx.field(static=True, default="finite numbers above zero", init=False)

    def forward(self, latent: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.exp(latent)

    def inverse(self, value: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.log(value)

    def holds(self, value: Float[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
        return np.asarray(np.isfinite(value) & (value > 0.0))

    def change(self, before: float, after: float) -> str:
        if after > 2.0 * before:
            return f"up by a factor {after / before:.2g}"
        way = "up" if after >= before else "down"
        return f"{way} by {100.0 * abs(after / before - 1.0):.2g} %"


class Interval(AbstractTransform):
    r"""$x = l + (h - l)/(1 + e^{-z})$, for values between `low` and `high`.

    **Errors:** [`InputError`][] unless low < high, both finite.
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(
                f"the bounds are {self.low} and {self.high}",
                where="Interval",
                expected="two finite numbers, low < high",
                fix="Swap them, or use Log or Identity for a range without a bound",
            )

    @property
    def range(self) -> str:
        """The range in words."""
        return f"numbers between {self.low:g} and {self.high:g}"

    def forward(self, latent: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return self.low + (self.high - self.low) * jax.nn.sigmoid(latent)

    def inverse(self, value: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.log((value - self.low) / (self.high - value))

    def holds(self, value: Float[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
        return np.asarray((value > self.low) & (value < self.high))

    def change(self, before: float, after: float) -> str:
        return _difference(before, after)
