"""How measurements scatter about what the model predicts."""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._custom_types import as_leaf, ParameterLike
from .._misc import InputError
from ._prior import check_spread


class _Scatter(eqx.Module):
    """A zero-mean Gaussian with covariance C = L Lᵀ, held as L and L⁻¹; vectors where diagonal.

    The inverse is held, and not solved with: batched triangular solves can wait for each other
    on a CPU of two cores.
    """

    factor: Float[Array, "..."]
    inverse: Float[Array, "..."]

    def __init__(
        self, sd: ParameterLike | None, covariance: ParameterLike | None, where: str
    ) -> None:
        if (sd is None) == (covariance is None):
            raise InputError(
                "both or none of sd and covariance are given",
                where=where,
                expected="exactly one of the two",
                fix="Give sd for independent errors, covariance for correlated ones",
            )
        if sd is not None:
            check_spread(sd, where)
            factor = np.asarray(sd) if np.ndim(sd) else np.asarray(float(np.asarray(sd)))
            inverse = 1.0 / factor
        else:
            factor = _cholesky(np.asarray(covariance), where)
            inverse = np.linalg.inv(factor)
        self.factor, self.inverse = as_leaf(factor), as_leaf(inverse)

    def at(self, n: int, kept: Int[np.ndarray, " m"], where: str) -> "_Scatter":
        """That of some of n entries."""
        factor = np.asarray(self.factor)
        if factor.ndim and factor.shape[0] != n:
            raise InputError(
                f"the noise has {factor.shape[0]} entries and the value has {n}",
                where=where,
                expected="one entry of noise for each measured value",
                fix="Give a scalar sd, one sd per value, or a square covariance of that size",
            )
        if factor.ndim == 2:
            return _Scatter(None, (factor @ factor.T)[np.ix_(kept, kept)], where)
        return _Scatter(np.broadcast_to(factor, (n,))[kept], None, where)

    def whiten(self, error: Float[Array, " m"]) -> Float[Array, " m"]:
        """L⁻¹ of errors: independent, of unit variance."""
        inverse = self.inverse.astype(error.dtype)
        return inverse @ error if inverse.ndim == 2 else inverse * error

    def sample(self, key: PRNGKeyArray, like: Float[Array, " m"]) -> Float[Array, " m"]:
        """Errors."""
        unit = jax.random.normal(key, like.shape, like.dtype)
        factor = self.factor.astype(like.dtype)
        return factor @ unit if factor.ndim == 2 else factor * unit


def _cholesky(covariance: Float[np.ndarray, "..."], where: str) -> Float[np.ndarray, "n n"]:
    why = ""
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        why = f"its shape is {covariance.shape}"
    elif not np.allclose(covariance, covariance.T, rtol=1e-6, atol=1e-8 * np.abs(covariance).max()):
        why = "it is not symmetric"
    else:
        try:
            return np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            why = "it is not positive definite"
    raise InputError(
        f"the covariance cannot be used, {why}",
        where=where,
        expected="a symmetric positive definite matrix",
        fix="Give every measurement some error of its own",
    )


class AbstractNoise(eqx.Module):
    """How measurements scatter about a prediction."""

    scatter: eqx.AbstractVar[_Scatter]

    @abc.abstractmethod
    def at(
        self, value: Float[np.ndarray, " n"], kept: Int[np.ndarray, " m"], where: str
    ) -> "AbstractNoise":
        """The noise of the kept entries of a measured value, which it checks."""

    @abc.abstractmethod
    def whiten(
        self, value: Float[Array, " m"], predicted: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        """Residuals that are independent and of unit variance where the prediction is true."""

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, predicted: Float[Array, " m"]) -> Float[Array, " m"]:
        """Measurements that a prediction may give."""


class GaussianNoise(AbstractNoise):
    """y ~ N(f, C).

    **Arguments:** one of `sd` (for all or per value) and `covariance` (n, n), in the unit of the
    measurement and its square.

    **Errors:** [`InputError`][] for an sd or a covariance that is not positive.
    """

    scatter: _Scatter

    def __init__(
        self, *, sd: ParameterLike | None = None, covariance: ParameterLike | None = None
    ) -> None:
        self.scatter = _Scatter(sd, covariance, "GaussianNoise")

    def at(
        self, value: Float[np.ndarray, " n"], kept: Int[np.ndarray, " m"], where: str
    ) -> "AbstractNoise":
        scatter = self.scatter.at(len(value), kept, where)
        return eqx.tree_at(lambda noise: noise.scatter, self, scatter)

    def whiten(
        self, value: Float[Array, " m"], predicted: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        return self.scatter.whiten(predicted - value)

    def sample(self, key: PRNGKeyArray, predicted: Float[Array, " m"]) -> Float[Array, " m"]:
        return predicted + self.scatter.sample(key, predicted)


class LogNormalNoise(AbstractNoise):
    """ln y ~ N(ln f, C): errors in proportion to the value.

    **Arguments:** one of `sd` (relative) and `covariance` (n, n) of the logarithm.

    **Errors:** [`InputError`][] for an sd or a covariance that is not positive, and, at the
    measurement, for a value that is not.
    """

    scatter: _Scatter

    def __init__(
        self, *, sd: ParameterLike | None = None, covariance: ParameterLike | None = None
    ) -> None:
        self.scatter = _Scatter(sd, covariance, "LogNormalNoise")

    def at(
        self, value: Float[np.ndarray, " n"], kept: Int[np.ndarray, " m"], where: str
    ) -> "AbstractNoise":
        wrong = kept[value[kept] <= 0.0]
        if wrong.size:
            raise InputError(
                f"entry {wrong[0]} is {value[wrong[0]]:g} under log-normal noise",
                where=where,
                expected="values above zero",
                fix="Give NaN for what was not measured, or use GaussianNoise",
            )
        scatter = self.scatter.at(len(value), kept, where)
        return eqx.tree_at(lambda noise: noise.scatter, self, scatter)

    def whiten(
        self, value: Float[Array, " m"], predicted: Float[Array, " m"]
    ) -> Float[Array, " m"]:
        return self.scatter.whiten(jnp.log(predicted) - jnp.log(value))

    def sample(self, key: PRNGKeyArray, predicted: Float[Array, " m"]) -> Float[Array, " m"]:
        return predicted * jnp.exp(self.scatter.sample(key, predicted))
