"""Manufactured solutions that the scheme of transient flow is verified against."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..vessel import AbstractElasticWall, Blood

Scalar = Float[Array, ""]


class ManufacturedFlow(eqx.Module):
    r"""A static pressure and a flow on one vessel, and the sources they ask for.

    $$s_A=\partial_tA+\partial_xQ,\qquad
    s_Q=\partial_tQ+\partial_x\Big(\alpha\frac{Q^2}A\Big)+\frac A\rho\,\partial_xp
    +2(\zeta+2)\pi\frac{\mu Q}{\rho A}$$

    by automatic differentiation, with A from the wall law.

    **Attributes:** `pressure`, `flow`: functions of x (m) and t (s), Pa and m³/s; `radius`: of x,
    m; `wall`, `blood`.
    """

    pressure: Callable[[Array, Array], Array]
    flow: Callable[[Array, Array], Array]
    radius: Callable[[Array], Array]
    wall: AbstractElasticWall
    blood: Blood

    def area(self, x: Scalar, t: Scalar) -> Scalar:
        """Lumen area, m²."""
        return self.wall.area(self.pressure(x, t), self.radius(x))

    def sources(self, x: Scalar, t: Scalar) -> tuple[Scalar, Scalar]:
        """What is to be added to ∂A/∂t (m²/s) and ∂Q/∂t (m³/s²)."""
        along = lambda f: jax.jvp(lambda x: f(x, t), (x,), (jnp.ones_like(x),))[1]
        ahead = lambda f: jax.jvp(lambda t: f(x, t), (t,), (jnp.ones_like(t),))[1]
        blood = self.blood
        momentum = lambda x, t: blood.alpha * self.flow(x, t) ** 2 / self.area(x, t)
        area, viscosity = self.area(x, t), blood.viscosity(self.radius(x))
        friction = blood.friction_coefficient * viscosity * self.flow(x, t) / area
        drive = area * along(self.pressure) + friction
        mass = ahead(self.area) + along(self.flow)
        return mass, ahead(self.flow) + along(momentum) + drive / blood.density


def travelling_wave(
    wall: AbstractElasticWall, blood: Blood, length: float, radius: tuple[float, float]
) -> ManufacturedFlow:
    """Waves of pressure and flow, out of phase, in a vessel of linear taper (lengths in m)."""
    phase = lambda x, t: 2.0 * jnp.pi * (0.8 * x / length - t / 0.025)
    return ManufacturedFlow(
        pressure=lambda x, t: 1.1e4 + 1.5e3 * jnp.sin(phase(x, t)),
        flow=lambda x, t: 3e-6 * (1.0 + 0.6 * jnp.cos(phase(x, t) + 0.3)),
        radius=lambda x: radius[0] + (radius[1] - radius[0]) * x / length,
        wall=wall,
        blood=blood,
    )
