"""Exact and manufactured solutions that the Darcy schemes are verified against."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Point = Float[Array, "3"]


class ManufacturedDarcy(eqx.Module):
    """A pressure and a permeability field, and the source −∇·(K∇p) that they ask for."""

    pressure: Callable[[Array], Array]
    permeability: Callable[[Array], Array]

    def source(self, point: Point) -> Float[Array, ""]:
        """−∇·(K∇p) at a point, by automatic differentiation."""
        flux = lambda x: self.permeability(x) @ jax.grad(self.pressure)(x)
        return -jnp.trace(jax.jacfwd(flux)(point))


def _fvca6_1(x: Point) -> Float[Array, ""]:
    return 1 + jnp.sin(jnp.pi * x[0]) * jnp.sin(jnp.pi * (x[1] + 0.5)) * jnp.sin(
        jnp.pi * (x[2] + 1 / 3)
    )


def _fvca6_2(x: Point) -> Float[Array, ""]:
    u, v, w = x
    two_pi = 2 * jnp.pi
    return u**3 * v**2 * w + u * jnp.sin(two_pi * u * w) * jnp.sin(two_pi * u * v) * jnp.sin(
        two_pi * w
    )


def _fvca6_2_permeability(x: Point) -> Float[Array, "3 3"]:
    u, v, w = x
    return jnp.array(
        [
            [v**2 + w**2 + 1, -u * v, -u * w],
            [-u * v, u**2 + w**2 + 1, -v * w],
            [-u * w, -v * w, u**2 + v**2 + 1],
        ]
    )


def _fibre_permeability(x: Point) -> Float[Array, "3 3"]:
    d = jnp.array([jnp.cos(2 * x[2]), jnp.sin(2 * x[2]), jnp.zeros_like(x[2])])
    return jnp.eye(3, dtype=x.dtype) + 9 * d[:, None] * d[None, :]


def _constant(rows: list[list[float]]) -> Callable[[Array], Array]:
    return lambda x: jnp.array(rows, dtype=x.dtype)


# Tests 1 to 3 of the FVCA6 benchmark (Eymard et al. 2011, Finite Volumes for Complex Applications
# VI, p. 895), and a fibre field that turns through the wall.
MANUFACTURED = {
    "FVCA6 1": ManufacturedDarcy(
        _fvca6_1, _constant([[1.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 1.0]])
    ),
    "FVCA6 2": ManufacturedDarcy(_fvca6_2, _fvca6_2_permeability),
    "FVCA6 3": ManufacturedDarcy(
        lambda x: jnp.prod(jnp.sin(2 * jnp.pi * x)),
        _constant([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1000.0]]),
    ),
    "fibre 10:1": ManufacturedDarcy(lambda x: jnp.prod(jnp.cos(jnp.pi * x)), _fibre_permeability),
}


def screened_slab(
    x: Float[Array, " n"], thickness: float, screening_length: float
) -> Float[Array, " n"]:
    """p of −ℓ²p″ + p = 0 with p(0) = 1 and no flux at the far side: cosh((L−x)/ℓ)/cosh(L/ℓ)."""
    return jnp.cosh((thickness - x) / screening_length) / jnp.cosh(thickness / screening_length)


def screened_slab_exchange(
    x: Float[Array, " n"],
    thickness: float,
    screening_length: float,
    exchange: float,
    push: float,
) -> Float[Array, " n"]:
    """p of −ℓ²p″ + p = 0 with −ℓ²p′(0) = push − exchange · p(0) and no flux at the far side.

    p = A cosh((L−x)/ℓ) with A = push/(exchange · cosh(L/ℓ) + ℓ sinh(L/ℓ)); without exchange the
    push is an inflow, and exchange → ∞ at constant push/exchange prescribes p(0).
    """
    reach = thickness / screening_length
    scale = exchange * jnp.cosh(reach) + screening_length * jnp.sinh(reach)
    return push / scale * jnp.cosh((thickness - x) / screening_length)


def screened_shell(
    r: Float[Array, " n"], inner: float, outer: float, screening_length: float
) -> Float[Array, " n"]:
    """p of −ℓ²Δp + p = 0 in a spherical shell with p(inner) = 1, p(outer) = 0.

    r·p obeys the slab equation, so p = (a/r)·sinh((b−r)/ℓ)/sinh((b−a)/ℓ).
    """
    decay = jnp.sinh((outer - r) / screening_length)
    return inner / r * decay / jnp.sinh((outer - inner) / screening_length)


def refracted(
    jump: float,
    on_plane: Callable[[Array], Array],
    slope: Callable[[Array], Array],
) -> ManufacturedDarcy:
    """A tilted tensor K that jumps to jump · K across the plane x = ½.

    p = a(x) + (x − ½) b with a and b free of x. Tangential gradient and pressure agree on the
    plane, and the normal flux does with b behind it equal to (n·K·g/jump − n·K·∇a)/K_nn, where
    g = (b, ∇a) is the gradient before it. Linear a and constant b: exact for a scheme that
    reproduces linear pressures.

    **Arguments:** `on_plane`, a at a point, and `slope`, b before the plane, without dependence
    on x.
    """
    direction = jnp.array([1.0, 1.0, 0.5]) / 1.5
    tensor = jnp.eye(3) + 9 * direction[:, None] * direction[None, :]

    def pressure(x: Point) -> Float[Array, ""]:
        along = tensor[0] @ jax.grad(on_plane)(x) / tensor[0, 0]
        behind = (slope(x) + along) / jump - along
        return on_plane(x) + (x[0] - 0.5) * jnp.where(x[0] < 0.5, slope(x), behind)

    return ManufacturedDarcy(pressure, lambda x: tensor * jnp.where(x[0] < 0.5, 1.0, jump))


def terzaghi(
    x: Float[Array, " n"], time: float, thickness: float, diffusivity: float, n_terms: int = 200
) -> Float[Array, " n"]:
    """p of ∂p/∂t = c p″ with p = 1 at first, drained (p = 0) at x = 0 and closed at the far side.

    p = Σ 2/M sin(Mx/L) exp(−M² c t/L²), M = (2k+1)π/2: Terzaghi's one-dimensional consolidation
    with diffusivity c = K/S.
    """
    m = (2 * jnp.arange(n_terms, dtype=x.dtype) + 1) * (0.5 * jnp.pi)
    decay = 2.0 / m * jnp.exp(-(m**2) * diffusivity * time / thickness**2)
    return jnp.sin(x[:, None] / thickness * m[None, :]) @ decay
