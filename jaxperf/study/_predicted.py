"""All that is told of a fitted heart, from one program and one set of draws."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from jaxtyping import Array, Bool, Float

from ..inverse import AbstractPosterior, FitError, GaussianPosterior, InverseProblem
from ..observe import Observations
from ..units import M3_S_KG_PER_ML_MIN_G
from ._diagnosis import OPENED, TerritoryQuantities

_Part = tuple[int, Callable[[Observations], Array]]


class HeartQuantities(eqx.Module):
    """Positive quantities of the output of a [`jaxperf.study.HeartModel`][], as their logarithms.

    Parts by name: `segments STATE` (17,) and `territories STATE` (g,), blood flow in ml/min/g;
    `cfr` and `cfr opened` (g,), flow reserve with and without lesions; `ffr` (l,) behind the
    lesions; `opened I` (2,), FFR there with lesion I opened, and by how much the flow of all that
    it feeds grows; and by its name what each measurement would report.

    **Attributes:** `territories`; `reports`, by the name of the measurement; `states`; `sizes` of
    the reports.
    """

    territories: TerritoryQuantities
    reports: dict[str, Callable[[Observations], Array]]
    states: tuple[str, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, values: dict[str, Array], seen: Observations) -> Float[Array, " q"]:
        """Logarithms of all parts, one after the other."""
        return jnp.log(jnp.concatenate([part(seen) for _, part in self._parts().values()]))

    @property
    def places(self) -> dict[str, slice]:
        """Where each part stands."""
        parts = self._parts()
        ends = np.cumsum([0, *(size for size, _ in parts.values())]).tolist()
        return {name: slice(a, b) for name, a, b in zip(parts, ends[:-1], ends[1:], strict=True)}

    def _parts(self) -> dict[str, _Part]:
        of, parts = self.territories, dict[str, _Part]()
        n_territories, n_lesions = of.weight.shape[0], of.lesion_segment.shape[0]
        for s in self.states:
            segments = lambda seen, s=s: seen.mbf_segment[s] / M3_S_KG_PER_ML_MIN_G
            flow = lambda seen, s=s: of.flow(seen, s) / M3_S_KG_PER_ML_MIN_G
            parts[f"segments {s}"] = 17, segments
            parts[f"territories {s}"] = n_territories, flow
        parts["cfr"] = n_territories, lambda seen: of.reserve(seen, "hyperemia")
        parts["cfr opened"] = n_territories, lambda seen: of.reserve(seen, OPENED)
        if n_lesions:
            parts["ffr"] = n_lesions, of.ffr
        for i in range(n_lesions):
            state = OPENED if n_lesions == 1 else f"without_lesion_{i + 1}"
            parts[f"opened {i}"] = 2, lambda seen, i=i, state=state: of.opened(seen, i, state)
        for (name, report), size in zip(self.reports.items(), self.sizes, strict=True):
            parts[name] = size, report
        return parts


def heart_quantities(problem: InverseProblem, territories: TerritoryQuantities) -> HeartQuantities:
    """The quantities of a problem whose model has the states rest, hyperemia and `OPENED`."""
    reports = {m.name: m.observe for m in problem.measurements}
    sizes = tuple(m.n_entries for m in problem.measurements)
    return HeartQuantities(territories, reports, tuple(problem.model.problems), sizes)


@dataclass(frozen=True)
class Predicted:
    """What a posterior says of the quantities of a heart.

    **Attributes:** `places` of the parts among the quantities q; `drawn` (n, q), equally probable;
    `failed`, draws more that could not be solved; `middle` and `sd` (q,) of the logarithms, where
    the posterior is linearised.
    """

    places: dict[str, slice]
    drawn: Float[np.ndarray, "n q"]
    failed: int
    middle: Float[np.ndarray, " q"] | None
    sd: Float[np.ndarray, " q"] | None

    def __contains__(self, name: str) -> bool:
        return name in self.places

    def draws(self, name: str) -> Float[np.ndarray, "n k"]:
        """Equally probable values of a part."""
        return self.drawn[:, self.places[name]]

    def interval(self, name: str, level: float) -> Float[np.ndarray, "k 3"]:
        """Median, low and high of a part: of the Gaussian where there is one, else of the draws."""
        at = self.places[name]
        if self.middle is not None and self.sd is not None:
            reach = scipy.stats.norm.ppf(0.5 + 0.5 * level) * np.array([0.0, -1.0, 1.0])
            return np.exp(self.middle[at, None] + self.sd[at, None] * reach)
        tails = [0.5, 0.5 - 0.5 * level, 0.5 + 0.5 * level]
        return np.quantile(self.drawn[:, at], tails, axis=0).T


def predict(posterior: AbstractPosterior, quantities: HeartQuantities, n: int = 4000) -> Predicted:
    """What a posterior says of the quantities.

    A linearised posterior gives n draws, linear in the logarithm as its intervals are; a sampled
    one all it has, each solved once, as does a Gaussian that is not linearised.

    **Errors:** [`jaxperf.inverse.FitError`][] where no draw could be solved.
    """
    middle = sd = None
    if isinstance(posterior, GaussianPosterior) and posterior.linearised:
        middle, slope = posterior.jacobian(quantities)
        sd = np.linalg.norm(slope @ np.asarray(posterior.factor), axis=1)
        shift = posterior.sample(jax.random.key(0), n) - posterior.mode.xi[None]
        drawn = middle[None] + np.asarray(shift) @ slope.T
    else:
        drawn = posterior.predict(quantities)
    solved = _is_solved(drawn, quantities.places)
    if not solved.any():
        raise FitError(
            "The fitted heart cannot be solved with its lesions opened, or at rest or hyperemia, "
            "so nothing can be said of its FFR and flow reserve. Look for a prior that reaches "
            "values the model cannot solve."
        )
    failed = int((~solved).sum())
    return Predicted(quantities.places, np.exp(drawn[solved]), failed, middle, sd)


def _is_solved(drawn: Float[np.ndarray, "n q"], places: dict[str, slice]) -> Bool[np.ndarray, " n"]:
    """Whether what labels are made of is finite; a segment without tissue never is."""
    parts = [drawn[:, places[name]] for name in ("ffr", "cfr opened") if name in places]
    return np.asarray(np.isfinite(np.concatenate(parts, axis=1)).all(axis=1))
