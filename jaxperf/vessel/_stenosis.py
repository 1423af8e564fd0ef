"""The pressure loss of a stenosis after Young and Tsai."""

import math

from jaxtyping import Array, Float

from .._custom_types import cast_like, ScalarLike

_TURBULENT = 1.52


def _viscous_coefficient(diameter: Array, diameter_reduction: Array, length: Array) -> Array:
    """K_v = 32 (L_a/D0) (A0/A_s)² with L_a = 0.83 L_s + 1.64 D_s."""
    remaining = 1.0 - diameter_reduction
    apparent_length = 0.83 * length + 1.64 * diameter * remaining
    return 32.0 * apparent_length / diameter / remaining**4


def young_tsai_drop(
    flow: Float[Array, "*s"],
    reference_radius: Float[Array, "*s"],
    diameter_reduction: Float[Array, "*s"],
    length: Float[Array, "*s"],
    viscosity: ScalarLike,
    density: ScalarLike,
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    r"""The steady Young–Tsai law by itself: viscous and turbulent part of the pressure drop.

    $$\Delta P = K_v\frac{\mu U}{D_0} + \frac{K_t}{2}\rho\left(\frac{A_0}{A_s}-1\right)^2|U|U,
    \qquad U = Q/A_0,$$

    $K_v = 32(L_a/D_0)(A_0/A_s)^2$, $L_a = 0.83L_s + 1.64D_s$, $K_t = 1.52$. The viscous part
    already holds the Poiseuille loss of the lesion: add it to none.

    **Arguments:**

    - `flow`: m³/s, of either sign.
    - `reference_radius`: radius the vessel would have without the lesion, m.
    - `diameter_reduction`: 1 − D_s/D_0, at least 0 and below 1, where the law has its pole.
    - `length`: length of the lesion, m.
    - `viscosity`: Pa s.
    - `density`: kg/m³.

    **Returns:** viscous and turbulent pressure drop, Pa.

    **Source:** Young and Tsai, J Biomechanics 6:395 and 6:547 (1973), in svOneDSolver's form.
    """
    diameter = 2.0 * reference_radius
    area = math.pi * reference_radius**2
    coefficient = _viscous_coefficient(diameter, diameter_reduction, length)
    viscous = coefficient * cast_like(viscosity, flow) * flow / (diameter * area)
    return viscous, _quadratic(area, diameter_reduction, density) * abs(flow) * flow


def stenosis_coefficients(
    reference_radius: Float[Array, "*s"],
    diameter_reduction: Float[Array, "*s"],
    length: Float[Array, "*s"],
    viscosity: ScalarLike,
    density: ScalarLike,
) -> tuple[Float[Array, "*s"], Float[Array, "*s"]]:
    r"""What a lesion adds to the vessel that carries it: ΔP = R Q + S |Q| Q.

    $$R = \frac{[K_v(s)-K_v(0)]\,\mu}{D_0A_0},\qquad
    S = \frac{K_t\rho}{2A_0^2}\left(\frac{A_0}{A_s}-1\right)^2$$

    The vessel keeps its own Poiseuille resistance on the reference radius, so the loss is zero for
    $s = 0$ and smooth from there. This differs from the pure law (`young_tsai_drop`) by
    Poiseuille − K_v(0), at most about 4 % of it for the lesions of the published table.

    **Arguments:** see `young_tsai_drop`. A viscosity that depends on the radius is the one at the
    reference radius.

    **Returns:** R (Pa s/m³) and S (Pa s²/m⁶), both on top of the vessel's Poiseuille loss.
    """
    diameter = 2.0 * reference_radius
    area = math.pi * reference_radius**2
    with_lesion = _viscous_coefficient(diameter, diameter_reduction, length)
    without = _viscous_coefficient(diameter, 0.0 * diameter_reduction, length)
    extra = (with_lesion - without) * cast_like(viscosity, area) / (diameter * area)
    return extra, _quadratic(area, diameter_reduction, density)


def _quadratic(area: Array, diameter_reduction: Array, density: ScalarLike) -> Array:
    widening = 1.0 / (1.0 - diameter_reduction) ** 2 - 1.0
    return 0.5 * _TURBULENT * cast_like(density, area) * (widening / area) ** 2
