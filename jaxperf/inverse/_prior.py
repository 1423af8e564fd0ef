r"""Priors as maps from standard-normal coordinates.

Each prior turns coordinates ξ ~ N(0, I) into deviations of the latent value z from its median, so
that every fit has the prior precision I and hierarchies are non-centred. With the transform T of
the parameter, $x = T(T^{-1}(m) + \delta(\xi))$, and $\delta(0) = 0$: ξ = 0 is the prior median m.
"""

import abc
import math
from typing import TypeAlias

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, float_leaf, Parameter as Leaf, ParameterLike
from .._misc import InputError

Shape: TypeAlias = tuple[int, ...]
# A known sd, or the median and the log-sd of an unknown one.
Spread: TypeAlias = float | tuple[float, float]


class AbstractPrior(eqx.Module):
    """A prior in standard coordinates; `median` is in the units of the parameter."""

    median: eqx.AbstractVar[Leaf]

    @property
    @abc.abstractmethod
    def shape(self) -> Shape:
        """The shape it prescribes, to which that of the parameter is broadcast."""

    @abc.abstractmethod
    def size(self, shape: Shape) -> int:
        """How many coordinates a parameter of a shape takes."""

    @abc.abstractmethod
    def deviation(self, xi: Float[Array, " k"], shape: Shape) -> Float[Array, "*s"]:
        """Deviation of the latent value from that of the median."""


def check_spread(sd: ParameterLike, name: str) -> None:
    """Refuse a standard deviation that is not a positive number."""
    host = np.asarray(sd, float)
    if not np.all(np.isfinite(host) & (host > 0.0)):
        raise InputError(
            f"a standard deviation is {host.ravel()[np.argmin(host > 0.0)]}",
            where=name,
            expected="finite numbers above zero",
            fix="Give the sd of the transformed value; leave out of the fit what is known exactly",
        )


class Normal(AbstractPrior):
    """Independent entries: T⁻¹(x) ~ N(T⁻¹(median), sd²).

    **Arguments:** `median`, in the units of the parameter; `sd`, of the transformed value: with
    `Log` the relative one. Each for all entries or per entry.

    **Errors:** [`InputError`][] for an sd that is not positive.

    **Example:**
    ```python
    Parameter("reserve", Normal(median=3.5, sd=0.3), Log(), labels=("LAD", "LCx", "RCA"))
    ```
    """

    median: Leaf = eqx.field(converter=float_leaf)
    sd: Leaf = eqx.field(converter=float_leaf)

    def __check_init__(self) -> None:
        check_spread(self.sd, "Normal")

    @property
    def shape(self) -> Shape:
        return np.broadcast_shapes(self.median.shape, self.sd.shape)

    def size(self, shape: Shape) -> int:
        return math.prod(shape)

    def deviation(self, xi: Float[Array, " k"], shape: Shape) -> Float[Array, "*s"]:
        return jnp.broadcast_to(self.sd.astype(xi.dtype), shape) * xi.reshape(shape)


class SmoothField(AbstractPrior):
    r"""A Gaussian field: deviations with a given correlation, $\delta = \mathrm{sd}\cdot F\xi$.

    $FF^\top$ is the correlation, by its eigenvectors; directions without variance take no
    coordinate, so that a smooth field of many entries is fitted through few.

    **Arguments:** `median` and `sd` as in [`Normal`][]; `correlation`: (n, n), as from
    [`squared_exponential`][].

    **Errors:** [`InputError`][] for a matrix that is not symmetric or not positive semidefinite.
    """

    median: Leaf
    sd: Leaf
    factor: Float[Array, "n k"]

    def __init__(
        self, median: ParameterLike, sd: ParameterLike, correlation: Float[np.ndarray, "n n"]
    ) -> None:
        matrix = np.asarray(correlation)
        if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=1e-8):
            raise _no_covariance("SmoothField", "it is not symmetric")
        value, vector = np.linalg.eigh(matrix)
        if value[0] < -1e-6 * value[-1]:
            raise _no_covariance("SmoothField", f"its lowest eigenvalue is {value[0]:.3g}")
        kept = value > len(value) * np.finfo(matrix.dtype).eps * value[-1]
        self.median, self.sd = float_leaf(median), float_leaf(sd)
        self.factor = as_leaf(vector[:, kept][:, ::-1] * np.sqrt(value[kept][::-1])[None])

    def __check_init__(self) -> None:
        check_spread(self.sd, "SmoothField")

    @property
    def shape(self) -> Shape:
        return np.broadcast_shapes(self.median.shape, self.sd.shape, self.factor.shape[:1])

    def size(self, shape: Shape) -> int:
        return self.factor.shape[1]

    def deviation(self, xi: Float[Array, " k"], shape: Shape) -> Float[Array, "*s"]:
        return jnp.broadcast_to(self.sd.astype(xi.dtype), shape) * (
            self.factor.astype(xi.dtype) @ xi
        )


def squared_exponential(
    distance: Float[np.ndarray, "n m"], length: float
) -> Float[np.ndarray, "n m"]:
    r"""The correlation $\exp(-d^2/2\ell^2)$ of places at Euclidean distances d.

    **Arguments:** `distance` and the correlation `length`, in the same unit.

    **Source:** Rasmussen and Williams, Gaussian Processes for Machine Learning (2006), eq. 4.9.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    place = np.linspace(0.0, 90.0, 10)  # mm
    near = jp.inverse.squared_exponential(np.abs(place[:, None] - place), 30.0)
    ```
    """
    if not length > 0.0:
        raise InputError(
            f"the length is {length}",
            where="squared_exponential",
            expected="a number above zero",
            fix="Give the distance over which the field varies; use Normal for entries that do "
            "not know each other",
        )
    return np.exp(-0.5 * (np.asarray(distance) / length) ** 2)


def _no_covariance(where: str, why: str) -> InputError:
    return InputError(
        f"the matrix is no covariance, {why}",
        where=where,
        expected="a symmetric positive semidefinite matrix",
        fix="Check its entries; a covariance of n measurements is positive definite",
    )


class Hierarchy(AbstractPrior):
    r"""Groups, and members that deviate from their group: $\delta_i = s_g a_{g(i)} + s_w b_i$.

    A known spread is a number. An unknown one is a pair, its median and the sd of its logarithm:
    $s = m e^{\tau c}$; its c is one coordinate more. All coordinates a, b, c are standard normal.

    **Arguments:** `median` as in [`Normal`][]; `group`: (n,) the group of each member, from 0;
    `sd_group`, `sd_within`: the two spreads of the transformed value.

    **Errors:** [`InputError`][] for a spread that is not positive or groups that leave a gap.

    **Source:** Gelman et al., Bayesian Data Analysis (2013), ch. 5.
    """

    median: Leaf
    group: Int[Array, " n"]
    sd_group: Spread = eqx.field(static=True)
    sd_within: Spread = eqx.field(static=True)
    n_groups: int = eqx.field(static=True)

    def __init__(
        self,
        median: ParameterLike,
        group: Int[np.ndarray, " n"],
        sd_group: Spread,
        sd_within: Spread,
    ) -> None:
        found = np.unique(group)
        if not np.array_equal(found, np.arange(len(found))):
            raise InputError(
                f"the groups are {found.tolist()}",
                where="Hierarchy",
                expected="0, 1, 2, … without a gap",
                fix="Number the groups anew, as by numpy.unique(group, return_inverse=True)",
            )
        self.median, self.group = float_leaf(median), as_leaf(group)
        self.sd_group, self.sd_within, self.n_groups = sd_group, sd_within, len(found)

    def __check_init__(self) -> None:
        for spread in (self.sd_group, self.sd_within):
            check_spread(np.asarray(spread), "Hierarchy")

    @property
    def shape(self) -> Shape:
        return np.broadcast_shapes(self.median.shape, self.group.shape)

    @property
    def _unknown(self) -> int:
        return sum(isinstance(spread, tuple) for spread in (self.sd_group, self.sd_within))

    def size(self, shape: Shape) -> int:
        return self._unknown + self.n_groups + self.group.shape[0]

    def deviation(self, xi: Float[Array, " k"], shape: Shape) -> Float[Array, "*s"]:
        at = 0
        spread = []
        for given in (self.sd_group, self.sd_within):
            if isinstance(given, tuple):
                spread.append(given[0] * jnp.exp(given[1] * xi[at]))
                at += 1
            else:
                spread.append(jnp.full((), given, xi.dtype))
        of_group, own = xi[at : at + self.n_groups], xi[at + self.n_groups :]
        return spread[0] * of_group[self.group] + spread[1] * own
