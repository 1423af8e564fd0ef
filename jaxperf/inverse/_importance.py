"""Laplace approximations held against the posterior itself, by importance weights."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from scipy.special import gammaln, logsumexp

from .._custom_types import as_leaf
from .._misc import InputError
from .._progress import Progress
from ._fit import Fit, Mode
from ._posterior import covariance_factor, SampledPosterior
from ._problem import InverseProblem
from ._programs import program, solve_at


class Proposal(eqx.Module):
    r"""A mixture of multivariate t distributions about the modes.

    **Attributes:** over the modes k: `centre` (k, p); `factor` (k, p, p), L of the scale matrix
    L Lᵀ; `inverse`, L⁻¹; `log_weight` (k,), with the constants of the densities; `share` (k,) of
    the draws; `freedom`, degrees of freedom.
    """

    centre: Float[Array, "k p"]
    factor: Float[Array, "k p p"]
    inverse: Float[Array, "k p p"]
    log_weight: Float[Array, " k"]
    share: Float[Array, " k"]
    freedom: float = eqx.field(static=True)

    def log_density(self, xi: Float[Array, " p"]) -> Float[Array, ""]:
        """ln q(ξ)."""
        unit = jnp.einsum("kij,kj->ki", self.inverse, xi[None] - self.centre)
        half = 0.5 * (self.freedom + xi.shape[0])
        kernel = -half * jnp.log1p(jnp.sum(unit**2, axis=1) / self.freedom)
        return jax.nn.logsumexp(self.log_weight + kernel)

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n p"]:
        """Draws, as many of each mode as its share says."""
        of_normal, of_chi = jax.random.split(key)
        p, dtype = self.centre.shape[1], self.centre.dtype
        unit = jax.random.normal(of_normal, (n, p), dtype)
        chi = 2.0 * jax.random.gamma(of_chi, 0.5 * self.freedom, (n, 1), dtype)
        unit = unit * jnp.sqrt(self.freedom / chi)
        places = (np.arange(n) + 0.5) / n
        edges = np.cumsum(np.asarray(self.share))
        mode = np.minimum(np.searchsorted(edges / edges[-1], places), len(edges) - 1)
        return self.centre[mode] + jnp.einsum("nij,nj->ni", self.factor[mode], unit)


def proposal(modes: tuple[Mode, ...], freedom: float) -> Proposal:
    """t distributions about modes; a mode has half its Laplace weight and half an equal share."""
    factor = np.stack([covariance_factor(np.asarray(mode.jacobian)) for mode in modes])
    log_det = np.log(np.abs(np.diagonal(factor, axis1=1, axis2=2))).sum(axis=1)
    log_mass = log_det - np.array([float(mode.objective) for mode in modes])
    share = 0.5 * np.exp(log_mass - logsumexp(log_mass)) + 0.5 / len(modes)
    p = factor.shape[1]
    constant = gammaln(0.5 * (freedom + p)) - gammaln(0.5 * freedom)
    constant -= 0.5 * p * np.log(freedom * np.pi)
    leaf = lambda x: as_leaf(x, modes[0].xi.dtype)
    return Proposal(
        leaf(np.stack([np.asarray(mode.xi) for mode in modes])),
        leaf(factor),
        leaf(np.linalg.inv(factor)),
        leaf(np.log(share) + constant - log_det),
        leaf(share),
        freedom,
    )


def log_densities(
    problem: InverseProblem, drawn: Float[Array, "n p"], warm: PyTree, progress: Progress | None
) -> Float[np.ndarray, " n"]:
    """The log-density at each of some coordinates, one solve each."""
    progress = progress or Progress()
    seen = []
    with progress.stage("weights"):
        for number, xi in enumerate(np.asarray(drawn)):
            progress.tell("draws", number, len(drawn))
            _, output, _ = solve_at(problem, xi, warm)
            seen.append(float(_density(problem, xi, output)))
    return np.array(seen)


@program
def _density(problem: InverseProblem, xi: Float[Array, " p"], output: PyTree) -> Float[Array, ""]:
    return problem.log_density_of(xi, output)


def smoothed(log_ratio: Float[np.ndarray, " n"]) -> tuple[Float[np.ndarray, " n"], float]:
    """Pareto-smoothed weights, which sum to one, and k of the tail; where solves failed, zero.

    **Source:** Vehtari et al., Pareto smoothed importance sampling, JMLR 25 (2024).
    """
    weight = np.zeros(len(log_ratio))
    finite = np.isfinite(log_ratio)
    if np.ptp(log_ratio[finite]) < 1e-8:
        # equal up to rounding: there is no tail
        return finite / finite.sum(), -np.inf
    # arviz takes the negative of the log-ratios, as for leave-one-out
    found: Any = array_stats.psislw(-log_ratio[finite])
    smooth, k = found
    weight[finite] = np.exp(smooth - logsumexp(smooth))
    return weight, float(k)


def reliable_below(n: int) -> float:
    """The k below which n weights can be trusted."""
    return min(1.0 - 1.0 / math.log10(n), 0.7)


def mixture(
    fit: Fit,
    key: PRNGKeyArray,
    n: int = 500,
    *,
    freedom: float = 5.0,
    progress: Progress | None = None,
) -> SampledPosterior:
    r"""The posterior by importance sampling from a mixture about all modes.

    Draws come from multivariate t distributions with the Laplace covariances, whose tails are
    heavier than a Gaussian's, and are weighted by $p(\xi\mid y)/q(\xi)$, smoothed. This costs n
    solves and no gradient; it suits one mode or several, as long as `pareto_k` stays below 0.7.
    Modes that no start has found are missed.

    **Arguments:** `n`, draws; `freedom`, of the t distributions.

    **Returns:** a [`SampledPosterior`][] with weights.

    **Errors:** [`InputError`][] for fewer than 25 draws, too few for a tail, or fewer that solve.

    **Example:**

    ```python
    import jax
    from jaxperf import inverse
    problem = inverse.demo_problem()
    posterior = inverse.mixture(inverse.fit(problem, starts=1), jax.random.key(0), 100)
    ```
    """
    _check_draws(n, "mixture")
    about = proposal(fit.modes, freedom)
    drawn = about.sample(key, n)
    density = log_densities(fit.problem, drawn, fit.best.warm, progress)
    _check_draws(int(np.isfinite(density).sum()), "mixture, of the draws that could be solved")
    weight, k = smoothed(density - np.asarray(jax.vmap(about.log_density)(drawn)))
    return SampledPosterior(fit.problem, drawn, weight, fit.best.warm, solves=n, pareto_k=k)


def _check_draws(n: int, where: str) -> None:
    if n < 25:
        raise InputError(
            f"n is {n}",
            where=where,
            expected="at least 25 draws, some hundred for small errors",
            fix="Raise n",
        )


class LaplaceCheck(eqx.Module):
    """Whether the Laplace posterior can be trusted.

    **Attributes:** `ok`; `pareto_k` of the importance weights of its draws, and `limit`, below
    which it must stay; `modes` found; `effective`, the draws they are worth; `failed`, draws that
    could not be solved; `n`, all draws.
    """

    pareto_k: float
    limit: float
    modes: int
    effective: float
    failed: int
    n: int

    @property
    def ok(self) -> bool:
        """One mode, and weights that are nearly equal or whose tail can be trusted."""
        equal = self.effective > 0.9 * self.n
        return self.modes == 1 and bool(equal or self.pareto_k < self.limit)

    @property
    def words(self) -> str:
        """The finding as sentences."""
        text = (
            f"Pareto k is {self.pareto_k:.2f} (limit {self.limit:.2f}), and {self.n} draws are "
            f"worth {self.effective:.0f}. "
        )
        if self.failed:
            text += f"{self.failed} draws could not be solved. "
        if self.modes > 1:
            text += f"The posterior has {self.modes} modes and the Gaussian describes one. "
        if self.ok:
            return text + "The Gaussian posterior describes the posterior."
        return text + "Use mixture or sample_posterior in place of the Gaussian posterior."


def check_laplace(
    fit: Fit, key: PRNGKeyArray, n: int = 200, *, progress: Progress | None = None
) -> LaplaceCheck:
    r"""Hold the Laplace posterior against the posterior itself, at n of its draws.

    The weights $p(\xi\mid y)/q(\xi)$ of Gaussian draws are equal where the posterior is Gaussian.
    Their tail, as the k of a Pareto distribution, tells how far it is not; where the draws are
    worth more than nine tenths of their number it does not matter.

    **Returns:** a [`LaplaceCheck`][].

    **Errors:** [`InputError`][] for fewer than 25 draws.

    **Source:** Yao et al., Yes, but did it work? (2018), arXiv 1802.02538.

    **Example:**

    ```python
    import jax
    from jaxperf import inverse
    problem = inverse.demo_problem()
    check = inverse.check_laplace(inverse.fit(problem, starts=1), jax.random.key(0), 100)
    ```
    """
    _check_draws(n, "check_laplace")
    mode = fit.best
    unit = jax.random.normal(key, (n, fit.problem.size), fit.problem.dtype)
    factor = as_leaf(covariance_factor(np.asarray(mode.jacobian)))
    drawn = mode.xi[None] + unit @ factor.T
    density = log_densities(fit.problem, drawn, mode.warm, progress)
    finite = np.isfinite(density)
    if finite.sum() < 25:
        limit = reliable_below(n)
        return LaplaceCheck(float("inf"), limit, len(fit.modes), 0.0, int((~finite).sum()), n)
    weight, k = smoothed(density + 0.5 * np.sum(np.asarray(unit) ** 2, axis=1))
    return LaplaceCheck(
        pareto_k=k,
        limit=reliable_below(int(finite.sum())),
        modes=len(fit.modes),
        effective=float(1.0 / np.sum(weight**2)),
        failed=int((~finite).sum()),
        n=n,
    )
