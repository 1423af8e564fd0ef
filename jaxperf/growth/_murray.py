"""The branching law: the calibre that goes with a flow."""

from typing import no_type_check

import equinox as eqx
import numba
import numpy as np
from jaxtyping import Float

from .._misc import InputError

# Published exponents lie between Huo and Kassab's 7/3 and Murray's 3; beyond 2 and 4 nothing does.
_LEAST, _LARGEST = 2.0, 4.0


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

    def __check_init__(self):
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
        """What the compiled functions take: the law through a vessel of known radius and flow.

        **Returns:** ln of the flow at `radius_small`, ln `radius_small`, ln `radius_large`, the
        two exponents, the slope between them, and φ at `radius_large`.
        """
        low, high = np.log(self.radius_small), np.log(self.radius_large)
        slope = (self.exponent_large - self.exponent_small) / (high - low)
        top = 0.5 * (self.exponent_small + self.exponent_large) * (high - low)
        law = np.array([0.0, low, high, self.exponent_small, self.exponent_large, slope, top])
        law[0] = np.log(flow) - log_flow(np.log(radius), law)
        return law

    def flow(
        self, radius: Float[np.ndarray, " s"], law: Float[np.ndarray, "7"]
    ) -> Float[np.ndarray, " s"]:
        """The flow that goes with each radius (m), in the unit of the law's reference flow."""
        return np.exp(np.array([log_flow(x, law) for x in np.log(radius)]))

    def radius(
        self, flow: Float[np.ndarray, " s"], law: Float[np.ndarray, "7"]
    ) -> Float[np.ndarray, " s"]:
        """The radius (m) that goes with each flow."""
        return np.array([radius_of(x, law) for x in np.log(flow)])


@numba.njit(cache=True)
@no_type_check
def log_flow(log_radius, law):
    """ln Q of ln r."""
    start, low, high, small, large, slope, top = law
    x = log_radius - low
    if x <= 0.0:
        return start + small * x
    if log_radius >= high:
        return start + top + large * (log_radius - high)
    return start + small * x + 0.5 * slope * x * x


@numba.njit(cache=True)
@no_type_check
def radius_of(log_flow, law):
    """r of ln Q; the inverse of `log_flow` in closed form."""
    start, low, high, small, large, slope, top = law
    y = log_flow - start
    if y <= 0.0:
        return np.exp(low + y / small)
    if y >= top:
        return np.exp(high + (y - top) / large)
    return np.exp(low + 2.0 * y / (small + np.sqrt(small * small + 2.0 * slope * y)))
