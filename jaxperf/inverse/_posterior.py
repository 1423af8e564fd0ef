"""What is known after a fit: a Gaussian about a mode, or samples."""

import abc
from collections.abc import Callable
from typing import Any, TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._custom_types import as_leaf
from .._misc import InputError
from .._progress import Progress
from ._fit import Fit, Mode
from ._problem import InverseProblem
from ._programs import linearise, Linearised, program, solve_at, tangents
from ._transform import AbstractTransform, Identity

# A quantity of interest: of the values of the parameters and the output of the model.
Quantity: TypeAlias = Callable[[dict[str, Array], Any], Array]


class Bounds(eqx.Module):
    """An equal-tailed interval: `low`, `median`, `high`, which hold `level` of the probability."""

    low: Float[np.ndarray, "*s"]
    median: Float[np.ndarray, "*s"]
    high: Float[np.ndarray, "*s"]
    level: float


class AbstractPosterior(eqx.Module):
    """What is known of the parameters, and of whatever follows from them.

    A quantity is a function of the values and the output, such as
    `lambda values, output: output.ffr`. Where it uses the values alone nothing is solved.
    """

    problem: eqx.AbstractVar[InverseProblem]

    @abc.abstractmethod
    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n p"]:
        """Coordinates, each as probable as the others."""

    @abc.abstractmethod
    def predict(
        self,
        quantity: Quantity,
        n: int | None = None,
        *,
        key: PRNGKeyArray | None = None,
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "n *s"]:
        """Equally probable values of a quantity."""

    @abc.abstractmethod
    def interval(
        self, quantity: Quantity, level: float = 0.9, transform: AbstractTransform = Identity()
    ) -> Bounds:
        """The interval that holds a quantity with the probability `level`."""

    def probability(
        self, condition: Quantity, n: int | None = None, *, key: PRNGKeyArray | None = None
    ) -> Float[np.ndarray, "*s"]:
        """The probability that a condition holds, from the draws of `predict`."""
        number = lambda values, output: jnp.asarray(condition(values, output), self.problem.dtype)
        return np.asarray(self.predict(number, n, key=key).mean(axis=0))


class _OnLine(eqx.Module):
    """A quantity on the unconstrained line of a transform."""

    quantity: Quantity
    transform: AbstractTransform

    def __call__(self, values: dict[str, Array], output: Any) -> Array:
        return self.transform.inverse(self.quantity(values, output))


class GaussianPosterior(AbstractPosterior):
    r"""The Gaussian about a mode, $\xi\sim N(\hat\xi, (I + J^\top J)^{-1})$, of [`laplace`][].

    Values of parameters are exact transforms of ξ everywhere. How quantities of the output follow
    is chosen once, by `linearised`:

    - True: to first order about the mode, by the derivatives of values and output that the
      posterior holds (p copies of the output). `interval`, `predict` and `probability` solve
      nothing more, for any number of quantities.
    - False: by a solve for each draw, so `n` solves for each call.

    Both are Gaussian in ξ; whether that is good enough, [`check_laplace`][] tells.

    **Attributes:** `mode`; `factor` (p, p) L with L Lᵀ the covariance of ξ; `at` and `columns`, the
    linearised solve at the mode and its derivative.
    """

    problem: InverseProblem
    mode: Mode
    factor: Float[Array, "p p"]
    at: Linearised | None
    columns: PyTree

    @property
    def linearised(self) -> bool:
        """Whether quantities follow to first order."""
        return self.at is not None

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n p"]:
        """Coordinates drawn from the Gaussian."""
        unit = jax.random.normal(key, (n, self.problem.size), self.problem.dtype)
        return self.mode.xi[None] + unit @ self.factor.T

    def jacobian(
        self, quantity: Quantity
    ) -> tuple[Float[np.ndarray, "*s"], Float[np.ndarray, "*s p"]]:
        """A quantity at the mode and its derivative by ξ, without a solve.

        **Errors:** [`InputError`][] where the posterior is not linearised.
        """
        value, slope = _push(quantity, self._line(), self.columns)
        return np.asarray(value), np.moveaxis(np.asarray(slope), 0, -1)

    def interval(
        self, quantity: Quantity, level: float = 0.9, transform: AbstractTransform = Identity()
    ) -> Bounds:
        r"""The interval of a quantity q.

        Linearised, $T(T^{-1}(q) \pm z\lVert L^\top\nabla T^{-1}(q)\rVert)$: `Log` keeps a positive
        quantity positive, `Interval(0, 1)` a ratio a ratio. Else quantiles of 200 solved draws,
        which no transform changes.
        """
        _check_level(level)
        if not self.linearised:
            return _quantiles(self.predict(quantity), level)
        value, slope = self.jacobian(_OnLine(quantity, transform))
        reach = scipy.stats.norm.ppf(0.5 + 0.5 * level) * np.linalg.norm(
            slope @ np.asarray(self.factor), axis=-1
        )
        back = lambda latent: np.asarray(transform.forward(as_leaf(latent)))
        return Bounds(back(value - reach), back(value), back(value + reach), level)

    def predict(
        self,
        quantity: Quantity,
        n: int | None = None,
        *,
        key: PRNGKeyArray | None = None,
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "n *s"]:
        """Values of a quantity at draws: 1000 linearised ones, 200 solved ones where n is left out.

        Linearised, the quantity sees the exact values of a draw and the output to first order, so
        it may be a condition or any other function without a derivative.
        """
        key = jax.random.key(0) if key is None else key
        drawn = self.sample(key, n or (1000 if self.linearised else 200))
        if self.linearised:
            shift = drawn - self.mode.xi[None]
            line = self._line()
            return np.asarray(_along(self.problem, quantity, line, self.columns, drawn, shift))
        return solve_draws(self.problem, quantity, drawn, self.mode.warm, progress)

    def _line(self) -> Linearised:
        if self.at is None:
            raise InputError(
                "the posterior holds no derivative of the output",
                where="GaussianPosterior",
                expected="one of laplace(fit, linearised=True)",
                fix="Make it so, or use predict, which solves each draw",
            )
        return self.at


@eqx.filter_jit
def _push(quantity: Quantity, at: Linearised, columns: PyTree) -> tuple[Array, Array]:
    of = lambda floats: quantity(*eqx.combine(floats, at.rest))
    column = lambda tangent: jax.jvp(of, (at.floats,), (tangent,))[1]
    return of(at.floats), jax.lax.map(column, columns)


@program
def _along(
    problem: InverseProblem,
    quantity: Quantity,
    at: Linearised,
    columns: PyTree,
    drawn: Float[Array, "n p"],
    shift: Float[Array, "n p"],
) -> Array:
    def one(pair: tuple[Array, Array]) -> Array:
        xi, step = pair
        moved = lambda x, column: x + jnp.tensordot(step.astype(column.dtype), column, axes=1)
        _, output = eqx.combine(jax.tree.map(moved, at.floats, columns), at.rest)
        return quantity(problem.values(xi), output)

    return jax.lax.map(one, (drawn, shift))


class SampledPosterior(AbstractPosterior):
    """Samples of the posterior, of [`mixture`][] or [`sample_posterior`][].

    `predict`, `interval` and `probability` solve once for each distinct sample they use, unless the
    quantity uses the values alone.

    **Attributes:**

    - `xi` (s, p) and `weight` (s,), which sum to one.
    - `chains`: how many chains the samples come from, one after the other; 0 where from none.
    - `solves`, `gradients`: what they cost; `divergences` of the trajectories.
    - `pareto_k`: of the importance weights; NaN where there are none.
    - `warm`: where solves may start.
    """

    problem: InverseProblem
    xi: Float[Array, "s p"]
    weight: Float[np.ndarray, " s"]
    warm: PyTree
    chains: int = 0
    solves: int = 0
    gradients: int = 0
    divergences: int = 0
    pareto_k: float = float("nan")

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n p"]:
        """Samples picked by their weights, systematically."""
        return self.xi[_picked(self.weight, n, float(jax.random.uniform(key)))]

    def predict(
        self,
        quantity: Quantity,
        n: int | None = None,
        *,
        key: PRNGKeyArray | None = None,
        progress: Progress | None = None,
    ) -> Float[np.ndarray, "n *s"]:
        """Values of a quantity at n samples picked by their weights; as many as there are, if None.

        `key` only shifts the systematic picks; without one they are the same at each call.
        """
        shift = 0.5 if key is None else float(jax.random.uniform(key))
        picked = _picked(self.weight, n or len(self.weight), shift)
        distinct, back = np.unique(picked, return_inverse=True)
        return solve_draws(self.problem, quantity, self.xi[distinct], self.warm, progress)[back]

    def interval(
        self, quantity: Quantity, level: float = 0.9, transform: AbstractTransform = Identity()
    ) -> Bounds:
        """Quantiles of the samples, which no transform changes."""
        _check_level(level)
        return _quantiles(self.predict(quantity), level)

    def effective(self, quantity: Quantity | None = None) -> Float[np.ndarray, "*s"]:
        """Effective samples: of the weights; of chains, bulk ESS of a quantity or each entry."""
        if not self.chains:
            return np.asarray(1.0 / np.sum(self.weight**2))
        from arviz_stats.base.array import array_stats

        return np.asarray(array_stats.ess(self._chained(quantity), chain_axis=0, draw_axis=1))

    def rhat(self, quantity: Quantity | None = None) -> Float[np.ndarray, "*s"]:
        """Rank-normalised R-hat of a quantity, or of each entry; below 1.01 is good.

        **Errors:** [`InputError`][] for samples that are no chains.

        **Source:** Vehtari et al. (2021), doi 10.1214/20-BA1221.
        """
        if self.chains < 2:
            raise InputError(
                f"the samples come from {self.chains} chains",
                where="SampledPosterior.rhat",
                expected="two chains or more",
                fix="Sample with NUTS(chains=4); look at `effective` and `pareto_k` of weights",
            )
        from arviz_stats.base.array import array_stats

        return np.asarray(array_stats.rhat(self._chained(quantity), chain_axis=0, draw_axis=1))

    def _chained(self, quantity: Quantity | None) -> Float[np.ndarray, "c d *s"]:
        if quantity is None:
            seen = np.asarray(jax.vmap(self.problem.latent)(self.xi))
        else:
            seen = solve_draws(self.problem, quantity, self.xi, self.warm, None)
        return seen.reshape(self.chains, -1, *seen.shape[1:])


def laplace(fit: Fit, *, linearised: bool = True, chunk: int | None = None) -> GaussianPosterior:
    r"""The Gaussian about the most probable mode, precision $I + J^\top J$.

    **Arguments:** `linearised`: hold the derivative of the output, for p tangents more, so that
    nothing is solved for any quantity; see [`GaussianPosterior`][]. `chunk`: tangents at a time.

    **Returns:** a [`GaussianPosterior`][].

    **Example:**

    ```python
    from jaxperf import inverse
    problem = inverse.demo_problem()
    posterior = inverse.laplace(inverse.fit(problem, starts=1))
    interval = posterior.interval(lambda values, output: values["rate"], 0.95, inverse.Log())
    ```
    """
    mode = fit.best
    factor = as_leaf(covariance_factor(np.asarray(mode.jacobian)))
    if not linearised:
        return GaussianPosterior(fit.problem, mode, factor, None, None)
    at = linearise(fit.problem, mode.xi, mode.warm)
    return GaussianPosterior(fit.problem, mode, factor, at, tangents(at, chunk))


def covariance_factor(slope: Float[np.ndarray, "n p"]) -> Float[np.ndarray, "p p"]:
    """L with L Lᵀ = (I + JᵀJ)⁻¹, by the orthogonal factor of [J; I]."""
    p = slope.shape[1]
    upper = np.linalg.qr(np.concatenate([slope, np.eye(p, dtype=slope.dtype)]), mode="r")
    return np.linalg.inv(upper)


def solve_draws(
    problem: InverseProblem,
    quantity: Quantity,
    drawn: Float[Array, "n p"],
    warm: PyTree,
    progress: Progress | None,
) -> Float[np.ndarray, "n *s"]:
    """A quantity at each of some coordinates, by one program of the problem called n times."""
    values, output, _ = eqx.filter_eval_shape(solve_at, problem, drawn[0], warm)
    if not _uses_output(quantity, values, output):
        zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), eqx.filter(output, _is_shape))
        output = eqx.combine(zeros, eqx.filter(output, _is_shape, inverse=True))
        return np.asarray(_of_values(problem, quantity, drawn, output))
    progress = progress or Progress()
    seen = []
    with progress.stage("predict"):
        for number, xi in enumerate(np.asarray(drawn)):
            progress.tell("draws", number, len(drawn))
            values, output, _ = solve_at(problem, xi, warm)
            seen.append(np.asarray(_evaluate(quantity, values, output)))
    return np.stack(seen)


def _is_shape(leaf: Any) -> bool:
    return isinstance(leaf, jax.ShapeDtypeStruct)


def _uses_output(quantity: Quantity, values: PyTree, output: PyTree) -> bool:
    shapes, rest = eqx.partition(output, _is_shape)
    run = lambda shapes, values: quantity(values, eqx.combine(shapes, rest))
    jaxpr = jax.make_jaxpr(run)(shapes, values).jaxpr
    given = set(jaxpr.invars[: len(jax.tree.leaves(shapes))])
    used = [*jaxpr.outvars, *(x for equation in jaxpr.eqns for x in equation.invars)]
    return any(x in given for x in used if not hasattr(x, "val"))


@eqx.filter_jit
def _evaluate(quantity: Quantity, values: PyTree, output: PyTree) -> Array:
    return quantity(values, output)


@program
def _of_values(problem: InverseProblem, quantity: Quantity, drawn: Array, output: PyTree) -> Array:
    return jax.lax.map(lambda xi: quantity(problem.values(xi), output), drawn)


def _picked(weight: Float[np.ndarray, " s"], n: int, shift: float) -> np.ndarray:
    """n places by systematic sampling: each sample s about n w_s times."""
    edges = np.cumsum(weight) / np.sum(weight)
    return np.minimum(np.searchsorted(edges, (np.arange(n) + shift) / n), len(weight) - 1)


def _quantiles(seen: Float[np.ndarray, "n *s"], level: float) -> Bounds:
    low, median, high = np.quantile(seen, [0.5 - 0.5 * level, 0.5, 0.5 + 0.5 * level], axis=0)
    return Bounds(np.asarray(low), np.asarray(median), np.asarray(high), level)


def _check_level(level: float) -> None:
    if not 0.0 < level < 1.0:
        raise InputError(
            f"the level is {level}",
            where="interval",
            expected="a probability between 0 and 1",
            fix="Give 0.9 for 90 %",
        )
