"""Apparent viscosity of blood as a function of the vessel's radius."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._custom_types import cast_like, float_leaf, Parameter

# Pries 1994 writes 1 / (1 + 1e-11 D^12) with D in micrometres; as a logistic function of log D it
# neither overflows in float32 (D^12 does, from 1.6 mm) nor loses its higher derivatives.
_LOG_SWITCH_DIAMETER = 11.0 / 12.0 * 2.302585092994046
_REFERENCE_HAEMATOCRIT = 0.45


class AbstractViscosity(eqx.Module):
    """A law for the apparent dynamic viscosity in a vessel of a given radius."""

    @abc.abstractmethod
    def __call__(self, radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """The apparent dynamic viscosity.

        **Arguments:**

        - `radius`: lumen radius, m.

        **Returns:** dynamic viscosity, Pa s.
        """


class ConstantViscosity(AbstractViscosity):
    """The same viscosity in every vessel.

    **Arguments:**

    - `viscosity`: dynamic viscosity, Pa s.
    """

    viscosity: Parameter = eqx.field(converter=float_leaf)

    def __call__(self, radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.broadcast_to(cast_like(self.viscosity, radius), radius.shape)


class PriesViscosity(AbstractViscosity):
    r"""The in vivo law of Pries et al. (1994): the Fåhræus–Lindqvist effect and the wall layer.

    With the diameter $D$ in µm, the discharge haematocrit $H$ and $w = (D/(D-1.1))^2$,

    $$\eta = \left[1 + (\eta_{45}-1)\frac{(1-H)^C-1}{(1-0.45)^C-1}\,w\right]w,\qquad
    \eta_{45} = 6e^{-0.085D} + 3.2 - 2.44e^{-0.06D^{0.645}},$$

    $$C = (0.8+e^{-0.075D})(u-1) + u,\qquad u = \frac{1}{1+10^{-11}D^{12}},$$

    and the apparent viscosity is $\eta$ times the plasma viscosity.

    The law is meant for diameters above about 3 µm and has a pole at 1.1 µm; below that its values
    mean nothing. Nothing is clipped here: building a network checks its radii, where the values
    are known and the vessel can be named.

    **Arguments:**

    - `haematocrit`: discharge haematocrit, between 0 and 1.
    - `plasma_viscosity`: Pa s.

    **Source:** Pries et al., Circulation Research 75:904 (1994).
    """

    haematocrit: Parameter = eqx.field(default=_REFERENCE_HAEMATOCRIT, converter=float_leaf)
    plasma_viscosity: Parameter = eqx.field(default=1.2e-3, converter=float_leaf)

    def __call__(self, radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        diameter = 2e6 * radius
        switch = jax.nn.sigmoid(-12.0 * (jnp.log(diameter) - _LOG_SWITCH_DIAMETER))
        exponent = (0.8 + jnp.exp(-0.075 * diameter)) * (switch - 1.0) + switch
        eta45 = 6.0 * jnp.exp(-0.085 * diameter) + 3.2 - 2.44 * jnp.exp(-0.06 * diameter**0.645)
        wall_layer = (diameter / (diameter - 1.1)) ** 2
        share = _power_ratio(exponent, cast_like(self.haematocrit, radius))
        relative = (1.0 + (eta45 - 1.0) * share * wall_layer) * wall_layer
        return cast_like(self.plasma_viscosity, radius) * relative


def _power_ratio(exponent: Float[Array, "*s"], haematocrit: Float[Array, "..."]) -> Array:
    """((1-H)^C - 1) / ((1-0.45)^C - 1), also where C passes through zero (near D = 8 µm)."""
    log_plasma = jnp.log1p(-haematocrit)
    log_reference = jnp.log1p(cast_like(-_REFERENCE_HAEMATOCRIT, exponent))
    numerator = log_plasma * _expm1_over_x(exponent * log_plasma)
    return numerator / (log_reference * _expm1_over_x(exponent * log_reference))


def _expm1_over_x(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """(e^x - 1) / x with its removable zero removed; the series is exact to 1e-14 where used."""
    near_zero = jnp.abs(x) < 1e-3
    safe = jnp.where(near_zero, 1.0, x)
    series = 1.0 + x / 2.0 + x**2 / 6.0 + x**3 / 24.0 + x**4 / 120.0
    return jnp.where(near_zero, series, jnp.expm1(safe) / safe)
