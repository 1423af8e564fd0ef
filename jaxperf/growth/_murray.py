"""The branching law: the calibre that goes with a flow."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._misc import InputError
from .._native import array, function, INT

# Published exponents lie between Huo and Kassab's 7/3 and Murray's 3; beyond 2 and 4 nothing does.
_LEAST, _LARGEST = 2.0, 4.0

_OF_REAL = array(np.float64)
_radii = function("vessels_radii", INT, _OF_REAL, _OF_REAL, _OF_REAL)


class BranchingLaw(eqx.Module):
    r"""Murray's law with an exponent that may change with the radius.

    The flow is $Q \propto e^{\varphi(\ln r)}$ with $\varphi' = \gamma$, so that it is conserved at
    every junction. The exponent is `exponent_small` below `radius_small`, `exponent_large` above
    `radius_large`, and linear in $\ln r$ between them. With one exponent this is
    $r_0^\gamma = \sum_i r_i^\gamma$.

    **Arguments:** radii in m.

    **Source:** C. D. Murray (1926), PNAS 12:207; Y. Huo, G. S. Kassab (2012), J. R. Soc. Interface
    9:190, for 7/3.
    """

    exponent_small: float = eqx.field(static=True, default=2.7)
    exponent_large: float = eqx.field(static=True, default=2.7)
    radius_small: float = eqx.field(static=True, default=5e-5)
    radius_large: float = eqx.field(static=True, default=5e-4)

    def __check_init__(self) -> None:
        for exponent in (self.exponent_small, self.exponent_large):
            if not _LEAST <= exponent <= _LARGEST:
                raise InputError(
                    f"the branching exponent is {exponent}",
                    where="BranchingLaw",
                    expected=f"{_LEAST} to {_LARGEST}; published values are 7/3 to 3",
                    fix="Use 2.7, the default",
                )
        if not 0.0 < self.radius_small < self.radius_large:
            raise InputError(
                f"the radii are {self.radius_small} and {self.radius_large} m",
                where="BranchingLaw",
                expected="two positive radii in m, the small one first",
                fix="Leave them at their defaults",
            )

    def coefficients(self, radius: float, flow: float) -> Float[np.ndarray, "7"]:
        """What growth takes: the law through a vessel of known radius and flow.

        **Returns:** ln of the flow at `radius_small`, ln `radius_small`, ln `radius_large`, the
        two exponents, the slope between them, and φ at `radius_large`.
        """
        low, high = np.log(self.radius_small), np.log(self.radius_large)
        slope = (self.exponent_large - self.exponent_small) / (high - low)
        top = 0.5 * (self.exponent_small + self.exponent_large) * (high - low)
        law = np.array([0.0, low, high, self.exponent_small, self.exponent_large, slope, top])
        law[0] = np.log(flow) - log_flow(np.log(np.array([radius])), law)[0]
        return law

    def flow(
        self, radius: Float[np.ndarray, " s"], law: Float[np.ndarray, "7"]
    ) -> Float[np.ndarray, " s"]:
        """The flow that goes with each radius (m), in the unit of the law's reference flow."""
        return np.exp(log_flow(np.log(radius), law))

    def radius(
        self, flow: Float[np.ndarray, " s"], law: Float[np.ndarray, "7"]
    ) -> Float[np.ndarray, " s"]:
        """The radius (m) that goes with each flow."""
        return radius_of(np.log(flow), law)


def log_flow(
    log_radius: Float[np.ndarray, " s"], law: Float[np.ndarray, "7"]
) -> Float[np.ndarray, " s"]:
    """ln Q of ln r."""
    start, low, high, small, large, slope, top = law
    x = log_radius - low
    between = start + small * x + 0.5 * slope * x * x
    above = start + top + large * (log_radius - high)
    return np.where(x <= 0.0, start + small * x, np.where(log_radius >= high, above, between))


def radius_of(
    log_flow: Float[np.ndarray, " s"], law: Float[np.ndarray, "7"]
) -> Float[np.ndarray, " s"]:
    """r (m) of ln Q; the inverse of `log_flow` in closed form, the same to the bit as in growth."""
    radius = np.empty(len(log_flow))
    _radii(len(log_flow), log_flow, law, radius)
    return radius


def terminal_radius(law: Float[np.ndarray, "7"]) -> float:
    """The radius (m) that goes with the flow of one terminal, where flows count terminals."""
    return float(radius_of(np.zeros(1), law)[0])
