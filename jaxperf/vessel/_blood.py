"""Blood: density, viscosity and the shape of the velocity profile; friction along a vessel."""

import math

import equinox as eqx
from jaxtyping import Array, Float

from .._custom_types import float_leaf, optional_float_leaf, Parameter
from ._viscosity import AbstractViscosity, ConstantViscosity


class Blood(eqx.Module):
    r"""Blood as the one-dimensional equations see it.

    The velocity profile $u(r) \propto 1-(r/R)^\zeta$ fixes the friction
    $\partial_x P = -2(\zeta+2)\pi\mu Q/A^2$ and the momentum coefficient
    $\alpha = (\zeta+2)/(\zeta+1)$; $\zeta = 2$ is parabolic (friction $8\pi\mu$), $\zeta = 9$ blunt
    ($22\pi\mu$).

    **Arguments:**

    - `density`: kg/m³.
    - `viscosity`: the law for the apparent dynamic viscosity.
    - `profile_exponent`: $\zeta$.
    - `momentum_coefficient`: $\alpha$, where it is not to follow from $\zeta$.
    """

    density: Parameter = eqx.field(default=1060.0, converter=float_leaf)
    viscosity: AbstractViscosity = eqx.field(default_factory=lambda: ConstantViscosity(3.5e-3))
    profile_exponent: Parameter = eqx.field(default=2.0, converter=float_leaf)
    momentum_coefficient: Parameter | None = eqx.field(default=None, converter=optional_float_leaf)

    @property
    def alpha(self) -> Float[Array, "..."]:
        """Momentum coefficient: the one given, or (ζ+2)/(ζ+1)."""
        if self.momentum_coefficient is None:
            return (self.profile_exponent + 2.0) / (self.profile_exponent + 1.0)
        return self.momentum_coefficient

    @property
    def friction_coefficient(self) -> Float[Array, "..."]:
        """2(ζ+2)π, so that dP/dx = −(this)·µ·Q/A²."""
        return 2.0 * math.pi * (self.profile_exponent + 2.0)


def resistance_integral(
    radius_a: Float[Array, "*s"], radius_b: Float[Array, "*s"], length: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    r"""∫dx/A² along a vessel whose radius goes linearly from one end to the other, exactly.

    $$\int_0^L\frac{dx}{A^2} = \frac{L\,(r_a^2+r_ar_b+r_b^2)}{3\pi^2r_a^3r_b^3}$$

    The steady friction loss is `blood.friction_coefficient * viscosity * resistance_integral * Q`.

    **Arguments:**

    - `radius_a`, `radius_b`: radius at the two ends, m.
    - `length`: m.

    **Returns:** m⁻³.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    integral = jp.vessel.resistance_integral(jnp.array(2e-3), jnp.array(1e-3), jnp.array(0.05))
    ```
    """
    # Written with powers of 1/(ra rb): six powers of a 5 µm radius would leave float32.
    inverse = 1.0 / (radius_a * radius_b)
    shape = radius_a / radius_b + 1.0 + radius_b / radius_a
    return length * inverse**2 * shape / (3.0 * math.pi**2)
