"""What the measurements say and what they leave to the prior."""

from collections.abc import Callable

import equinox as eqx
import jax
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._custom_types import as_leaf
from .._misc import InputError
from .._progress import Progress
from ._fit import Fit, fit
from ._method import LevenbergMarquardt
from ._noise import GaussianNoise
from ._parameter import Parameter
from ._posterior import covariance_factor, GaussianPosterior, Quantity
from ._problem import InverseProblem, Measurement, without_labels
from ._programs import program


class Identifiability(eqx.Module):
    r"""What the measurements say, direction by direction, at the most probable values.

    **Attributes:**

    - `eigenvalues` (p,) of $J^\top J$, largest first: how much more the measurements say along a
      direction than the prior, whose precision is 1 in each.
    - `directions` (p, p): columns, in ξ.
    - `sd_ratio` (e,): sd of each entry on its unconstrained line after and before the measurements;
      1 where they say nothing.
    - `entries`: their names; `blind`: sentences on what the measurements do not see.
    """

    eigenvalues: Float[np.ndarray, " p"]
    directions: Float[np.ndarray, "p p"]
    sd_ratio: Float[np.ndarray, " e"]
    entries: tuple[str, ...]
    blind: tuple[str, ...]


def identify(fit: Fit, threshold: float = 0.5) -> Identifiability:
    r"""Which combinations of parameters the measurements see, without a solve.

    The singular vectors v of $J$, with $\sigma$: a step of one prior sd along v changes the
    whitened measurements by σ in all, so none of them by more than σ of its own sd. Where σ is at
    most `threshold` the combination is blind, and `blind` says in the units of the parameters what
    could move unseen.

    **Arguments:** `threshold`: sd of a measurement per prior sd.

    **Returns:** an [`Identifiability`][].

    **Example:**

    ```python
    from jaxperf import inverse
    problem = inverse.demo_problem()
    for sentence in inverse.identify(inverse.fit(problem, starts=1)).blind:
        print(sentence)
    ```
    """
    problem, mode = fit.problem, fit.best
    slope = np.asarray(mode.jacobian)
    # rows of zeros complete the directions where there are fewer data than coordinates
    blank = np.zeros((max(problem.size - problem.n_data, 0), problem.size), slope.dtype)
    _, sigma, rows = np.linalg.svd(np.concatenate([slope, blank]), full_matrices=False)
    bend = np.asarray(_bend(problem, mode.xi))
    before = np.linalg.norm(bend, axis=1)
    after = np.linalg.norm(bend @ covariance_factor(slope), axis=1)
    blind = tuple(
        _sentence(problem, np.asarray(mode.xi), slope, bend, row)
        for row in _unseen(slope, bend, threshold)
    )
    return Identifiability(sigma**2, rows.T, after / before, problem.entries, blind)


def _unseen(
    slope: Float[np.ndarray, "n p"], bend: Float[np.ndarray, "e p"], threshold: float
) -> Float[np.ndarray, "b p"]:
    """Directions that move entries and that the measurements see by at most the threshold.

    Coordinates of a hierarchy that move no entry, as a group against all its members, are left out.
    Any rotation of what is unseen is unseen as well: varimax (Kaiser 1958) takes the one that moves
    the fewest entries, which can be said in words.
    """
    _, scale, rows = np.linalg.svd(bend, full_matrices=False)
    basis = rows[scale > 1e-9 * scale[0]].T
    _, found, inner = np.linalg.svd(slope @ basis, full_matrices=True)
    sigma = np.zeros(len(inner))
    sigma[: len(found)] = found
    unseen = inner[sigma <= threshold] @ basis.T
    if len(unseen) < 2:
        return unseen
    share = (bend / np.linalg.norm(bend, axis=1)[:, None]) @ unseen.T
    turn, before = np.eye(len(unseen)), 0.0
    for _ in range(100):
        turned = share @ turn
        u, weight, v = np.linalg.svd(
            share.T @ (turned**3 - turned * np.mean(turned**2, axis=0)[None])
        )
        turn = u @ v
        if weight.sum() < before * (1.0 + 1e-8):
            break
        before = weight.sum()
    return turn.T @ unseen


@program
def _bend(problem: InverseProblem, xi: Float[Array, " p"]) -> Float[Array, "e p"]:
    """How the entries on their unconstrained lines follow ξ."""
    return jax.jacfwd(problem.latent)(xi)


def _sentence(
    problem: InverseProblem, xi: np.ndarray, slope: np.ndarray, bend: np.ndarray, row: np.ndarray
) -> str:
    """What moves by one prior sd along a direction, the largest share first and upwards."""
    share = bend @ row / np.linalg.norm(bend, axis=1)
    if share[np.argmax(np.abs(share))] < 0.0:
        row, share = -row, -share
    here, there = problem.values(as_leaf(xi)), problem.values(as_leaf(xi + row))
    moves = [
        parameter.transform.change(float(a), float(b))
        for parameter in problem.parameters
        for a, b in zip(
            np.ravel(here[parameter.name]), np.ravel(there[parameter.name]), strict=True
        )
    ]
    # a small move that the measurements see well holds the large ones in balance: it is said too
    effect = slope @ np.linalg.pinv(bend) * (bend @ row)[None]
    said = np.abs(share) > 0.2 * np.abs(share).max()
    said |= np.linalg.norm(effect, axis=0) > 0.1
    left = max(float(np.linalg.norm(slope @ row)), float(np.linalg.norm(effect @ said)))
    words = " with ".join(_moved(problem, moves, share, said))
    most = "at all" if left < 5e-4 else f"by more than {left:.1g} sd"
    return f"{words} changes no measurement {most}."


def _moved(
    problem: InverseProblem,
    moves: list[str],
    share: Float[np.ndarray, " e"],
    said: Bool[np.ndarray, " e"],
) -> list[str]:
    """What moves, entry by entry; many entries of a parameter that move one way as one."""
    of = np.repeat(np.arange(len(problem.parameters)), [len(p.entries) for p in problem.parameters])
    found: list[tuple[float, str]] = []
    for k, parameter in enumerate(problem.parameters):
        at = np.flatnonzero(said & (of == k))
        one_way = len(set(np.sign(share[at]))) == 1
        if len(at) > 3 and one_way:
            middle = at[np.argsort(share[at])[len(at) // 2]]
            about = moves[middle].replace("by ", "by about ")
            most = float(np.abs(share[at]).max())
            found.append((most, f"{parameter.name} of {len(at)} entries {about}"))
        else:
            found += [(abs(float(share[i])), f"{problem.entries[i]} {moves[i]}") for i in at]
    return [text for _, text in sorted(found, key=lambda pair: -pair[0])]


class Profile(eqx.Module):
    """The posterior along one entry, everything else refitted.

    **Attributes:** `grid` (g,) of the entry's values; `objective` (g,), −ln p of the best fit with
    the entry held there, less that of the fit; NaN where none was found; `modes`, ξ of each (g, p).
    """

    grid: Float[np.ndarray, " g"]
    objective: Float[np.ndarray, " g"]
    xi: Float[np.ndarray, "g p"]


class _Held(eqx.Module):
    """A model whose output shows one entry on its unconstrained line."""

    model: Callable
    name: str = eqx.field(static=True)
    inverse: Callable
    place: int = eqx.field(static=True)

    def __call__(self, values: dict[str, Array], initial: PyTree) -> tuple[PyTree, PyTree]:
        output, warm = self.model(values, initial)
        return (output, self.inverse(values[self.name]).ravel()[self.place]), warm


class _OfOutput(eqx.Module):
    observe: Callable

    def __call__(self, pair: PyTree) -> Array:
        return self.observe(pair[0])


def profile(
    found: Fit,
    name: str,
    grid: Float[np.ndarray, " g"],
    index: int = 0,
    *,
    max_steps: int = 50,
    tolerance: float = 1e-3,
    progress: Progress | None = None,
) -> Profile:
    r"""The profile of the posterior along one entry of a parameter, by one fit for each value.

    The entry is held by a measurement of it with an sd of 1/1000 of the prior's, whose misfit is
    taken off again. Each fit starts from its neighbour, outwards from the most probable value. An
    objective 1.92 above the lowest is the edge of a 95 % interval.

    **Arguments:** `name` and `index` of the entry, in the flattened value; `grid`, values of it.

    **Returns:** a [`Profile`][].

    **Errors:** [`InputError`][] for an unknown name, an index or a grid out of range.

    **Example:**

    ```python
    import numpy as np
    from jaxperf import inverse
    problem = inverse.demo_problem()
    found = inverse.fit(problem, starts=1)
    along = inverse.profile(found, "rate", np.linspace(2.0, 4.0, 5))
    ```
    """
    problem, mode = found.problem, found.best
    parameter = _find(problem, name, index, grid)
    latent = np.asarray(parameter.transform.inverse(as_leaf(grid, problem.dtype)))
    at = problem.entries.index(parameter.entries[index])
    sd = 1e-3 * float(np.linalg.norm(np.asarray(_bend(problem, mode.xi))[at]))
    held = _Held(problem.model, name, parameter.transform.inverse, index)
    others = [
        eqx.tree_at(lambda m: m.observe, m, _OfOutput(m.observe)) for m in problem.measurements
    ]
    pin = Measurement("held", lambda pair: pair[1][None], latent[:1], GaussianNoise(sd=sd))
    model = InverseProblem(held, problem.parameters, [*others, pin])
    best = float(problem.latent(mode.xi)[at])
    objective = np.full(len(grid), np.nan)
    seen = np.full((len(grid), problem.size), np.nan)
    order = np.argsort(latent)
    above = [i for i in order if latent[i] >= best]
    below = [i for i in order[::-1] if latent[i] < best]
    for side in (above, below):
        near = mode.xi
        for i in side:
            at_value = model.with_data({"held": as_leaf(latent[i : i + 1])})
            refit = fit(
                at_value,
                LevenbergMarquardt(),
                starts=near[None],
                max_steps=max_steps,
                tolerance=tolerance,
                progress=progress,
                throw=False,
            )
            if refit.failed:
                continue
            near = refit.best.xi
            pinned = 0.5 * float(refit.best.residual[-1]) ** 2
            objective[i] = float(refit.best.objective) - pinned - float(mode.objective)
            seen[i] = np.asarray(near)
    return Profile(np.asarray(grid), objective, seen)


def _find(
    problem: InverseProblem, name: str, index: int, grid: Float[np.ndarray, " g"]
) -> Parameter:
    names = [parameter.name for parameter in problem.parameters]
    if name not in names:
        raise InputError(
            f"there is no parameter {name!r}",
            where="profile",
            expected=f"one of {', '.join(names)}",
            fix="Correct the name",
        )
    parameter = problem.parameters[names.index(name)]
    if not 0 <= index < len(parameter.entries):
        raise InputError(
            f"the index is {index}",
            where=f"profile of {name!r}",
            expected=f"0 to {len(parameter.entries) - 1}",
            fix="Count in the flattened value",
        )
    if not np.all(parameter.transform.holds(np.asarray(grid))):
        raise InputError(
            f"the grid reaches from {np.min(grid)} to {np.max(grid)}",
            where=f"profile of {name!r}",
            expected=parameter.transform.range,
            fix="Give values in the units of the parameter",
        )
    return parameter


class Shrinkage(eqx.Module):
    """Posterior sds now, and as expected with one measurement more.

    **Attributes:** `before`, `after` (e,), of the entries on their unconstrained lines (relative
    sds under `Log`); `quantity_before`, `quantity_after`, of the quantity asked for, else None.
    """

    entries: tuple[str, ...]
    before: Float[np.ndarray, " e"]
    after: Float[np.ndarray, " e"]
    quantity_before: Float[np.ndarray, "*s"] | None
    quantity_after: Float[np.ndarray, "*s"] | None


class _ResidualOf(eqx.Module):
    """Residuals of a measurement, as a quantity of a posterior."""

    measurement: Measurement

    def __call__(self, values: dict[str, Array], output: PyTree) -> Float[Array, " m"]:
        return self.measurement.residual(output)


def shrinkage(
    posterior: GaussianPosterior, measurement: Measurement, quantity: Quantity | None = None
) -> Shrinkage:
    r"""How much a further measurement would narrow the posterior, before it is made.

    With the derivative K of its whitened residuals, the covariance becomes
    $(I + J^\top J + K^\top K)^{-1}$: linear, so its values do not matter and nothing is solved.

    **Arguments:** `posterior`, linearised, of [`laplace`][]; `measurement`, whose values may be any
    that its noise allows; `quantity`, whose sd is wanted too.

    **Returns:** a [`Shrinkage`][].

    **Errors:** [`InputError`][] for a posterior that is not linearised.

    **Source:** Chaloner and Verdinelli, Bayesian experimental design (1995),
    doi 10.1214/ss/1177009939.

    **Example:**

    ```python
    import numpy as np
    from jaxperf import inverse
    problem = inverse.demo_problem()
    def early(signal): return signal[:1]
    posterior = inverse.laplace(inverse.fit(problem, starts=1))
    further = inverse.Measurement("first", early, np.ones(1), inverse.GaussianNoise(sd=0.005))
    print(inverse.shrinkage(posterior, further))
    ```
    """
    _, more = posterior.jacobian(_ResidualOf(without_labels(measurement)))
    slope = np.asarray(posterior.mode.jacobian)
    factors = (np.asarray(posterior.factor), covariance_factor(np.concatenate([slope, more])))
    bend = np.asarray(_bend(posterior.problem, posterior.mode.xi))
    before, after = (np.linalg.norm(bend @ factor, axis=1) for factor in factors)
    wanted = [None, None]
    if quantity is not None:
        along = posterior.jacobian(quantity)[1]
        wanted = [np.asarray(np.linalg.norm(along @ factor, axis=-1)) for factor in factors]
    return Shrinkage(posterior.problem.entries, before, after, *wanted)


class Misfit(eqx.Module):
    r"""Whether the model explains the measurements.

    **Attributes:** `chi2`, ‖r‖² at the most probable values; `freedom`, its expectation
    $n - \mathrm{tr}\,H$ with $H = J(I + J^\top J)^{-1}J^\top$; `p_value`, of a larger one, NaN
    where not `testable`; `predictive`, the posterior probability that data anew would fit worse;
    `by_name`, χ² and number of values of each measurement; `words`.
    """

    chi2: float
    freedom: float
    p_value: float
    testable: bool
    predictive: float
    by_name: dict[str, tuple[float, int]]
    words: str


def misfit(fit: Fit, *, n: int = 2000, key: PRNGKeyArray | None = None) -> Misfit:
    r"""Hold the measurements against the fitted model, without a solve.

    In a linear model with the truth drawn from the prior, $r\sim N(0, I - H)$ at the mode, so ‖r‖²
    is a sum of χ²₁ with the weights $1 - h_i$; the p-value matches its mean and variance by a
    scaled χ² (Satterthwaite). The predictive check draws ξ from the Gaussian posterior,
    linearised, and holds the misfit of data drawn anew against that of the measured ones.

    **Arguments:** `n`, draws of the predictive check; `key`, `jax.random.key(0)` where left out.

    **Returns:** a [`Misfit`][]; not testable where less than one value is left over by the
    parameters.

    **Source:** Gelman, Meng and Stern (1996), Statistica Sinica 6; Satterthwaite (1946).

    **Example:**

    ```python
    from jaxperf import inverse
    problem = inverse.demo_problem()
    print(inverse.misfit(inverse.fit(problem, starts=1)))
    ```
    """
    problem, mode = fit.problem, fit.best
    residual, slope = np.asarray(mode.residual, float), np.asarray(mode.jacobian, float)
    h = np.linalg.svd(slope, compute_uv=False) ** 2
    left = np.ones(problem.n_data)
    left[: len(h)] = 1.0 / (1.0 + h)
    chi2, freedom = float(residual @ residual), float(left.sum())
    of_xi, of_data = jax.random.split(jax.random.key(0) if key is None else key)
    unit = np.asarray(jax.random.normal(of_xi, (n, problem.size)), float)
    moved = residual[None] + unit @ (slope @ covariance_factor(slope)).T
    anew = np.asarray(jax.random.normal(of_data, (n, problem.n_data)), float)
    predictive = float(np.mean(np.sum(anew**2, axis=1) > np.sum(moved**2, axis=1)))
    ends = np.cumsum([m.value.shape[0] for m in problem.measurements])
    parts = np.split(residual, ends[:-1])
    by_name = {
        m.name: (float(part @ part), len(part))
        for m, part in zip(problem.measurements, parts, strict=True)
    }
    said = f"χ² is {chi2:.3g} where {freedom:.3g} is expected"
    if freedom < 1.0:
        words = (
            f"{said}: the parameters fit whatever was measured ({problem.n_data} values), so a "
            "wrong model would fit as well. Measure more, or narrow the priors."
        )
        return Misfit(chi2, freedom, float("nan"), False, predictive, by_name, words)
    scale = float(np.sum(left**2) / np.sum(left))
    p = float(scipy.stats.chi2.sf(chi2 / scale, np.sum(left) / scale))
    judged = (
        "The model explains the measurements."
        if p > 0.01
        else ("The model or the noise is wrong: look for the measurement with the largest share.")
    )
    return Misfit(chi2, freedom, p, True, predictive, by_name, f"{said} (p = {p:.2g}). {judged}")
