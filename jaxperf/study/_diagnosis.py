"""Which disease the fitted heart has, with probabilities.

Per vessel territory. *Obstructive*: a declared lesion with FFR at most 0.80 behind it.
*Microvascular dysfunction*: a flow reserve below 2.0 with every lesion opened and flow at rest as
it is; *diffuse* where all territories have it, else *territorial*. *Mixed*: both. *None*: neither.
A patient carries a label where a territory does.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import as_leaf
from .._defaults import FFR_ISCHAEMIC
from .._misc import InputError
from ..observe import Observations
from ._observed import lesion_end
from ._prepare import Prepared

# Flow reserve below it is reduced (Murthy et al. 2011, doi 10.1161/CIRCULATIONAHA.111.050427).
CFR_REDUCED = 2.0
OPENED = "without_lesions"
LABELS = ("obstructive", "microvascular", "mixed", "none")


class TerritoryQuantities(eqx.Module):
    """Quantities of the territories g as functions for a posterior.

    **Attributes:** `weight` (g, c), shares in the volume of a territory, of the problem that is
    solved; `lesion_segment` (l,), whose distal ends lie behind the lesions; `fed` (l, g), whether a
    lesion feeds a territory; `fed_weight` (l, c), shares in the volume of all that it feeds.
    """

    weight: Float[Array, "g c"]
    lesion_segment: Int[Array, " l"]
    fed: Bool[Array, "l g"]
    fed_weight: Float[Array, "l c"]

    def flow(self, seen: Observations, state: str) -> Float[Array, " g"]:
        """Mean blood flow, m³/(s·kg)."""
        return self.weight @ seen.mbf[state]

    def ffr(self, seen: Observations) -> Float[Array, " l"]:
        """Static over aortic pressure behind each lesion, at hyperemia."""
        return seen.pressure_ratio["hyperemia"][self.lesion_segment, 1]

    def reserve(self, seen: Observations, state: str = OPENED) -> Float[Array, " g"]:
        """Flow of a state over flow at rest."""
        return self.flow(seen, state) / self.flow(seen, "rest")

    def opened(self, seen: Observations, i: int, state: str) -> Float[Array, "2"]:
        """FFR where lesion i ended, in a state that opens it, and flow of all it feeds over that
        with it."""
        fed = self.fed_weight[i]
        ratio = (fed @ seen.mbf[state]) / (fed @ seen.mbf["hyperemia"])
        return jnp.stack([seen.pressure_ratio[state][self.lesion_segment[i], 1], ratio])


@dataclass(frozen=True)
class Diagnosis:
    """What a territory or the patient has.

    **Attributes:** `name`; `probability` of each label, of `LABELS`; `label`, the most probable;
    `evidence`, a sentence.
    """

    name: str
    probability: dict[str, float]
    label: str
    evidence: str


def territory_quantities(prepared: Prepared, n_cells: int) -> TerritoryQuantities:
    """The quantities that labels are made of.

    **Arguments:** `n_cells`, of the problem that is solved, which may be padded.
    """
    volume, names = np.asarray(prepared.heart.mesh.volume), prepared.territory_name
    weight = np.zeros((len(names), n_cells))
    for i in range(len(names)):
        inside = np.where(prepared.territory == i, volume, 0.0)
        weight[i, : len(volume)] = inside / inside.sum()
    ends = [lesion_end(prepared, i) for i in range(len(prepared.case.lesions))]
    fed = np.array([_territories_below(prepared, end) for end in ends], np.bool_)
    fed = fed.reshape(len(ends), len(names))
    total = np.bincount(prepared.territory, volume, len(names))
    share = np.where(fed, total[None], 0.0)
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
    at = as_leaf(np.array(ends), np.int32)
    return TerritoryQuantities(as_leaf(weight), at, as_leaf(fed, np.bool_), as_leaf(share @ weight))


def _territories_below(prepared: Prepared, segment: int) -> Bool[np.ndarray, " g"]:
    """The territories that hold at least 5 % of the tissue below a segment."""
    network = prepared.network
    ends = np.asarray(network.segment_node)
    below = np.zeros(network.n_nodes, np.bool_)
    below[ends[segment, 1]] = True
    for row in np.asarray(network.topology.sweep)[::-1]:
        for s in row[row < network.n_segments]:
            below[ends[s, 1]] |= below[ends[s, 0]]
    node = np.asarray(prepared.problem.tissue.terminal_node)
    volume = np.asarray(prepared.problem.tissue.terminal_volume)
    fed = np.where(below[node], volume, 0.0)
    share = np.bincount(prepared.terminal_territory, fed, len(prepared.territory_name))
    return share > 0.05 * share.sum()


def labels_of(
    ffr: Float[np.ndarray, "n l"], reserve: Float[np.ndarray, "n g"], fed: Bool[np.ndarray, "l g"]
) -> tuple[Bool[np.ndarray, "n g"], Bool[np.ndarray, "n g"]]:
    """Whether each territory is obstructed and whether its microvessels fail, for n hearts.

    **Errors:** [`InputError`][] for numbers that are not finite: they are no healthy heart.
    """
    if not (np.isfinite(ffr).all() and np.isfinite(reserve).all()):
        raise InputError(
            "a heart has no number for its FFR or flow reserve",
            where="labels_of",
            expected="finite numbers",
            fix="Leave hearts that could not be solved out",
        )
    narrowed = ffr <= FFR_ISCHAEMIC
    obstructed = np.asarray((narrowed[:, :, None] & fed[None]).any(axis=1))
    return obstructed, reserve < CFR_REDUCED


def diagnose(
    territory_name: Sequence[str],
    ffr: Float[np.ndarray, "n l"],
    reserve: Float[np.ndarray, "n g"],
    fed: Bool[np.ndarray, "l g"],
) -> tuple[Diagnosis, ...]:
    """The probability of each label, from n equally probable hearts.

    **Arguments:** `ffr` behind the lesions; `reserve` of the territories with every lesion opened;
    `fed`, whether a lesion feeds a territory.

    **Returns:** a [`Diagnosis`][] for each territory, and one for the patient, which comes last.
    """
    obstructed, failing = labels_of(ffr, reserve, fed)
    found = []
    for g, name in enumerate(territory_name):
        evidence = _evidence(ffr[:, fed[:, g]], reserve[:, g])
        found.append(_diagnosis(name, obstructed[:, g], failing[:, g], evidence))
    diffuse = failing.all(axis=1).mean()
    words = f"Microvascular dysfunction of all territories has a probability of {diffuse:.2f}."
    anywhere = lambda flag: np.asarray(flag.any(axis=1))
    patient = _diagnosis("patient", anywhere(obstructed), anywhere(failing), words)
    return (*found, patient)


def _diagnosis(
    name: str, obstructed: Bool[np.ndarray, " n"], failing: Bool[np.ndarray, " n"], evidence: str
) -> Diagnosis:
    share = lambda flag: float(np.mean(flag))
    flags = (
        obstructed & ~failing,
        failing & ~obstructed,
        obstructed & failing,
        ~obstructed & ~failing,
    )
    probability = {label: share(flag) for label, flag in zip(LABELS, flags, strict=True)}
    return Diagnosis(name, probability, max(probability, key=lambda k: probability[k]), evidence)


def _evidence(ffr: Float[np.ndarray, "n l"], reserve: Float[np.ndarray, " n"]) -> str:
    low, middle, high = np.quantile(reserve, [0.1, 0.5, 0.9])
    said = f"Flow reserve without lesions {middle:.1f} ({low:.1f} to {high:.1f})"
    if not ffr.shape[1]:
        return f"{said}; no lesion is declared here."
    worst = ffr.min(axis=1)
    low, middle, high = np.quantile(worst, [0.1, 0.5, 0.9])
    return f"{said}; FFR behind the lesion {middle:.2f} ({low:.2f} to {high:.2f})."
