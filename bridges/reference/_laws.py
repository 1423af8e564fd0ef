"""Pointwise laws of a vessel in torch: viscosity, friction, wall, stenosis.

Every law acts entry by entry and broadcasts its parameters against the radius it is given, so that
a leading batch axis, or a value for each segment, needs nothing special.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

_REFERENCE_HAEMATOCRIT = 0.45
_TURBULENT = 1.52


@dataclass(frozen=True)
class ConstantViscosity:
    """The same viscosity at every radius.

    **Arguments:** `viscosity`, Pa s.
    """

    viscosity: torch.Tensor

    def __call__(self, radius: torch.Tensor) -> torch.Tensor:
        """Dynamic viscosity (Pa s) at a lumen radius (m)."""
        shape = torch.broadcast_shapes(self.viscosity.shape, radius.shape)
        return self.viscosity.expand(shape)


@dataclass(frozen=True)
class PriesViscosity:
    r"""In vivo viscosity of Pries et al. (1994).

    With the diameter D in µm, the discharge haematocrit H and w = (D/(D − 1.1))²,

        η = [1 + (η₄₅ − 1) ((1−H)^C − 1)/((1−0.45)^C − 1) w] w,
        η₄₅ = 6 exp(−0.085 D) + 3.2 − 2.44 exp(−0.06 D^0.645),
        C = (0.8 + exp(−0.075 D)) (u − 1) + u,    u = 1/(1 + 10⁻¹¹ D¹²).

    The law has a pole at D = 1.1 µm.

    **Arguments:** `haematocrit`, H, between 0 and 1; `plasma_viscosity`, Pa s.

    **Source:** Pries et al., Circulation Research 75:904 (1994).
    """

    haematocrit: torch.Tensor
    plasma_viscosity: torch.Tensor

    def __call__(self, radius: torch.Tensor) -> torch.Tensor:
        """Dynamic viscosity (Pa s) at a lumen radius (m)."""
        d = 2e6 * radius
        # u by the logarithm of D: D¹² leaves single precision at 1.6 mm.
        u = torch.sigmoid(11.0 * math.log(10.0) - 12.0 * torch.log(d))
        c = (0.8 + torch.exp(-0.075 * d)) * (u - 1.0) + u
        eta45 = 6.0 * torch.exp(-0.085 * d) + 3.2 - 2.44 * torch.exp(-0.06 * d**0.645)
        w = (d / (d - 1.1)) ** 2
        log_plasma = torch.log1p(-self.haematocrit)
        log_reference = math.log1p(-_REFERENCE_HAEMATOCRIT)
        share = log_plasma * _relative_growth(c * log_plasma)
        share = share / (log_reference * _relative_growth(c * log_reference))
        return self.plasma_viscosity * w * (1.0 + (eta45 - 1.0) * share * w)


def _relative_growth(x: torch.Tensor) -> torch.Tensor:
    """(eˣ − 1)/x. C passes through zero near D = 8 µm, where the quotient is removable."""
    is_small = x.abs() < 1e-2
    safe = torch.where(is_small, torch.ones_like(x), x)
    series = torch.ones_like(x)
    for n in (7, 6, 5, 4, 3, 2):
        series = 1.0 + x / n * series
    return torch.where(is_small, series, torch.expm1(safe) / safe)


Viscosity = ConstantViscosity | PriesViscosity


@dataclass(frozen=True)
class Blood:
    r"""Density, viscosity and velocity profile of blood.

    A profile u ∝ 1 − (r/R)^ζ has the friction dP/dx = −2(ζ+2)π µ Q/A² and the momentum coefficient
    α = (ζ+2)/(ζ+1).

    **Arguments:** `density` ρ, kg/m³; `viscosity`, a law; `profile_exponent` ζ;
    `momentum_coefficient` α, where it is not to follow from ζ.
    """

    density: torch.Tensor
    viscosity: Viscosity
    profile_exponent: torch.Tensor
    momentum_coefficient: torch.Tensor | None = None

    @property
    def alpha(self) -> torch.Tensor:
        """Momentum coefficient α."""
        if self.momentum_coefficient is not None:
            return self.momentum_coefficient
        return (self.profile_exponent + 2.0) / (self.profile_exponent + 1.0)

    @property
    def friction_coefficient(self) -> torch.Tensor:
        """2(ζ+2)π, so that dP/dx = −(this) µ Q/A²."""
        return (2.0 * math.pi) * (self.profile_exponent + 2.0)


def taper_integral(
    radius_proximal: torch.Tensor, radius_distal: torch.Tensor, length: torch.Tensor
) -> torch.Tensor:
    """∫ dx/A² = L (r_p² + r_p r_c + r_c²)/(3π² r_p³ r_c³) for a radius linear between the ends.

    **Arguments:** radii and length, m. **Returns:** m⁻³.
    """
    a, b = 1.0 / radius_proximal, 1.0 / radius_distal
    return length / (3.0 * math.pi**2) * (a * b) * (a * a + a * b + b * b)


def stenosis_coefficients(
    reference_radius: torch.Tensor,
    diameter_reduction: torch.Tensor,
    length: torch.Tensor,
    viscosity: torch.Tensor,
    density: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a lesion adds to the Poiseuille loss of the vessel that carries it: R Q + S |Q| Q.

        R = [K_v(s) − K_v(0)] µ/(D₀A₀),    S = K_t ρ (A₀/A_s − 1)²/(2A₀²),
        K_v(s) = 32 (L_a/D₀)(A₀/A_s)²,   L_a = 0.83 L_s + 1.64 D_s,   K_t = 1.52.

    **Arguments:** reference radius and length of the lesion, m; diameter reduction s from 0 to
    below 1; viscosity at the reference radius, Pa s; density, kg/m³.

    **Returns:** R (Pa s/m³) and S (Pa s²/m⁶).

    **Source:** Young and Tsai, J Biomechanics 6:395 and 6:547 (1973).
    """
    d0 = 2.0 * reference_radius
    a0 = 0.25 * math.pi * d0**2
    kept = 1.0 - diameter_reduction
    # K_v(s) = 32 (0.83 L_s/D₀ + 1.64 (1−s)) (1−s)⁻⁴
    slender = 0.83 * length / d0
    growth = 32.0 * ((slender + 1.64 * kept) / kept**4 - (slender + 1.64))
    linear = growth * viscosity / (d0 * a0)
    quadratic = 0.5 * _TURBULENT * density * ((kept**-2 - 1.0) / a0) ** 2
    return linear, quadratic


@dataclass(frozen=True)
class ConstantStiffness:
    """E h / r given as a number, or for the ends of each segment.

    **Arguments:** `Eh_over_r`, Pa.
    """

    Eh_over_r: torch.Tensor

    def __call__(self, reference_radius: torch.Tensor) -> torch.Tensor:
        """E h / r (Pa) at a reference radius (m)."""
        shape = torch.broadcast_shapes(self.Eh_over_r.shape, reference_radius.shape)
        return self.Eh_over_r.expand(shape)


@dataclass(frozen=True)
class OlufsenStiffness:
    """E h / r = k₁ exp(k₂ r) + k₃.

    **Arguments:** `k1`, Pa; `k2`, 1/m; `k3`, Pa.

    **Source:** Olufsen, Am J Physiol 276:H257 (1999).
    """

    k1: torch.Tensor
    k2: torch.Tensor
    k3: torch.Tensor

    def __call__(self, reference_radius: torch.Tensor) -> torch.Tensor:
        """E h / r (Pa) at a reference radius (m)."""
        return self.k1 * torch.exp(self.k2 * reference_radius) + self.k3


Stiffness = ConstantStiffness | OlufsenStiffness


class ElasticWall(ABC):
    """A wall whose load x = (p − p₀)/M, M = (4/3) E h/r, follows from its stretch e = r/r₀.

    In terms of the relative area a = e². `stiffness` is a law; `pressure_unloaded` is p₀, Pa.
    """

    stiffness: Stiffness

    @property
    @abstractmethod
    def pressure_unloaded(self) -> torch.Tensor:
        """Static pressure (Pa) at which the lumen has its reference area."""

    @abstractmethod
    def load(self, stretch: torch.Tensor) -> torch.Tensor:
        """x(e)."""

    @abstractmethod
    def stretch(self, load: torch.Tensor) -> torch.Tensor:
        """e(x), the inverse of `load`; NaN where the law has no area under the load."""

    @abstractmethod
    def load_slope(self, load: torch.Tensor) -> torch.Tensor:
        """s(x) = a dx/da, so that ρc² = A ∂p/∂A = M s."""

    def modulus(self, reference_radius: torch.Tensor) -> torch.Tensor:
        """M (Pa) at a reference radius (m)."""
        return (4.0 / 3.0) * self.stiffness(reference_radius)

    def pressure(self, area: torch.Tensor, reference_radius: torch.Tensor) -> torch.Tensor:
        """Static pressure (Pa) at a lumen area (m²)."""
        stretch = torch.sqrt(area / math.pi) / reference_radius
        return self.pressure_unloaded + self.modulus(reference_radius) * self.load(stretch)

    def area(self, pressure: torch.Tensor, reference_radius: torch.Tensor) -> torch.Tensor:
        """Lumen area (m²) at a static pressure (Pa); NaN where the law has none."""
        load = (pressure - self.pressure_unloaded) / self.modulus(reference_radius)
        return math.pi * (reference_radius * self.stretch(load)) ** 2

    def wave_speed(
        self, area: torch.Tensor, reference_radius: torch.Tensor, density: torch.Tensor
    ) -> torch.Tensor:
        """c = √(M s/ρ), m/s, at a lumen area (m²)."""
        load = self.load(torch.sqrt(area / math.pi) / reference_radius)
        return torch.sqrt(self.modulus(reference_radius) * self.load_slope(load) / density)


def _or_nan(is_defined: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    return torch.where(is_defined, value, torch.full_like(value, math.nan))


@dataclass(frozen=True)
class SqrtAreaWall(ElasticWall):
    """p = p_ext + p_d + M (√(A/A₀) − 1): the linear elastic thin wall.

    **Arguments:** `stiffness`; `pressure_reference` p_d, transmural pressure at which the radius is
    the reference, Pa; `pressure_external` p_ext, Pa.
    """

    stiffness: Stiffness
    pressure_reference: torch.Tensor
    pressure_external: torch.Tensor

    @property
    def pressure_unloaded(self) -> torch.Tensor:
        """Static pressure (Pa) at which the lumen has its reference area."""
        return self.pressure_reference + self.pressure_external

    def load(self, stretch: torch.Tensor) -> torch.Tensor:
        """x = e − 1."""
        return stretch - 1.0

    def stretch(self, load: torch.Tensor) -> torch.Tensor:
        """e = 1 + x for x > −1."""
        return _or_nan(load > -1.0, 1.0 + load)

    def load_slope(self, load: torch.Tensor) -> torch.Tensor:
        """s = (1 + x)/2."""
        return 0.5 * (1.0 + load)


@dataclass(frozen=True)
class SvOneDWall(ElasticWall):
    """p = M (1 − √(A₀/A)): the wall law of svOneDSolver, which refers to zero pressure.

    **Arguments:** `stiffness`.
    """

    stiffness: Stiffness

    @property
    def pressure_unloaded(self) -> torch.Tensor:
        """Zero: the reference radius belongs to zero pressure."""
        return torch.zeros(())

    def load(self, stretch: torch.Tensor) -> torch.Tensor:
        """x = 1 − 1/e."""
        return 1.0 - 1.0 / stretch

    def stretch(self, load: torch.Tensor) -> torch.Tensor:
        """e = 1/(1 − x) for x < 1."""
        return _or_nan(load < 1.0, 1.0 / (1.0 - load))

    def load_slope(self, load: torch.Tensor) -> torch.Tensor:
        """s = (1 − x)/2."""
        return 0.5 * (1.0 - load)


@dataclass(frozen=True)
class RigidWall:
    """The lumen keeps its reference area."""


Wall = RigidWall | SqrtAreaWall | SvOneDWall
