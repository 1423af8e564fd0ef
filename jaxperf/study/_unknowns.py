"""The unknowns of a heart: what a fit may change in it, with a prior for each.

Rest fixes what the tissue asks for, its demand, as the bed regulates itself. Stress fixes how far
it can dilate, its reserve. Both are factors on the calibrated healthy heart, so there they are 1.
"""

import abc
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.optimize import root_scalar

from .._custom_types import as_leaf
from .._misc import InputError
from ..casefile import AorticPressure, BedUnknown, Extent, FitSection, Mobility, Severity
from ..coupling import PerfusionProblem
from ..geometry import AHA17_NAME
from ..inverse import (
    AbstractPrior,
    Hierarchy,
    Identity,
    Interval,
    Log,
    Normal,
    Parameter,
    SmoothField,
    squared_exponential,
)
from ..network import PressureBoundary
from ..units import M_PER_MM, PA_PER_MMHG
from ._prepare import Prepared
from ._states import State

# A vessel that is shut to 95 % carries next to nothing; beyond, its law has no more to say.
_MOST_SEVERE = 0.98
# A normal of more than √2 on the logistic line has two modes in the reduction itself.
_WIDEST = 1.4


class AbstractChange(eqx.Module):
    """What a value changes in the problem of a state."""

    @abc.abstractmethod
    def __call__(self, problem: PerfusionProblem, state: str, value: Array) -> PerfusionProblem:
        """The problem with the value in it; traced."""


class Unknown(eqx.Module):
    """A parameter and what it changes.

    **Attributes:** `parameter`, of `jaxperf.inverse`; `change`.
    """

    parameter: Parameter
    change: AbstractChange

    @property
    def name(self) -> str:
        """The name of the parameter."""
        return self.parameter.name


class Groups(eqx.Module):
    r"""How values of groups reach the terminal regions,

    $$f_t = m\prod_g (v_g/m)^{w_{tg}}.$$

    **Attributes:** `weight` (t, g), 0 for padded terminals; `median` m, of the prior.
    """

    weight: Float[Array, "t g"]
    median: Float[Array, ""]

    def factor(self, value: Float[Array, " g"]) -> Float[Array, " t"]:
        """A factor for each terminal region."""
        median, weight = self.median.astype(value.dtype), self.weight.astype(value.dtype)
        return median * jnp.exp(weight @ jnp.log(value / median))


class DemandChange(AbstractChange):
    """Scales the flow that regulated regions hold."""

    groups: Groups

    def __call__(self, problem: PerfusionProblem, state: str, value: Array) -> PerfusionProblem:
        if problem.autoregulation is None:
            return problem
        target = problem.autoregulation.flow_target * self.groups.factor(value)
        return eqx.tree_at(lambda p: p.autoregulation.flow_target, problem, target)


class ReserveChange(AbstractChange):
    """Scales how far regions dilate: the limit where they regulate themselves, else the dilation.

    **Attributes:** `dilated`, the states whose dilation is given.
    """

    groups: Groups
    dilated: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, problem: PerfusionProblem, state: str, value: Array) -> PerfusionProblem:
        factor = self.groups.factor(value)
        if problem.autoregulation is not None:
            limit = problem.autoregulation.dilation_max * factor
            return eqx.tree_at(lambda p: p.autoregulation.dilation_max, problem, limit)
        if state not in self.dilated:
            return problem
        dilation = problem.microcirculation.dilation * factor
        return eqx.tree_at(lambda p: p.microcirculation.dilation, problem, dilation)


class LesionChange(AbstractChange):
    """Sets a number of each declared lesion where the state has it; a stent has opened others.

    **Attributes:** `field`, of `network.lesion`; `present`, by state, whether a lesion is there;
    `scales`, whether the value is a factor on the declared one.
    """

    present: dict[str, Bool[Array, " l"]]
    field: str = eqx.field(static=True)
    scales: bool = eqx.field(static=True)

    def __call__(self, problem: PerfusionProblem, state: str, value: Array) -> PerfusionProblem:
        where = lambda p: getattr(p.network.lesion, self.field)
        # a padded problem has more lesions, which are none
        old, n = where(problem), value.shape[0]
        new = value.astype(old.dtype) * (old[:n] if self.scales else 1.0)
        new = jnp.where(self.present[state], new, old[:n])
        return eqx.tree_at(where, problem, old.at[:n].set(new))


class InletChange(AbstractChange):
    """Sets the aortic pressure of each state.

    **Attributes:** `above`, by state, what its own pressure lies above the one that its value
    stands for (mmHg); `place`, of that value among those of the parameter.
    """

    above: dict[str, Float[Array, ""]]
    place: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def __call__(self, problem: PerfusionProblem, state: str, value: Array) -> PerfusionProblem:
        at = (value[dict(self.place)[state]] + self.above[state].astype(value.dtype)) * PA_PER_MMHG
        number = next(i for i, b in enumerate(problem.boundary) if isinstance(b, PressureBoundary))
        where = lambda p: p.boundary[number].pressure
        old = where(problem)
        return eqx.tree_at(where, problem, jnp.broadcast_to(at.astype(old.dtype), old.shape))


class MobilityChange(AbstractChange):
    """Scales K."""

    def __call__(self, problem: PerfusionProblem, state: str, value: Array) -> PerfusionProblem:
        where = lambda p: p.microcirculation.permeability
        return eqx.tree_at(where, problem, where(problem) * value)


def demand(prepared: Prepared, said: BedUnknown, n_terminals: int) -> Unknown:
    """What rest flow the tissue asks for, over the calibrated one.

    **Arguments:** `said`, by what it differs and its prior; `n_terminals`, of the problem, which
    may be padded.
    """
    parameter, groups = _bed_unknown(prepared, "demand", said, n_terminals)
    return Unknown(parameter, DemandChange(groups))


def reserve(
    prepared: Prepared, said: BedUnknown, n_terminals: int, dilated: Sequence[str]
) -> Unknown:
    """How far the bed can dilate, over the calibrated hyperemia.

    **Arguments:** as for [`demand`][]; `dilated`, the states whose dilation is given.
    """
    parameter, groups = _bed_unknown(prepared, "reserve", said, n_terminals)
    return Unknown(parameter, ReserveChange(groups, tuple(dilated)))


def severity(prepared: Prepared, said: Severity, states: dict[str, State]) -> Unknown:
    """Diameter reduction of the declared lesions, about what images say."""
    declared = np.array([lesion.diameter_reduction for lesion in prepared.case.lesions])
    if (declared == 1.0).any():
        i = int(np.argmax(declared))
        raise InputError(
            f"the lesion closes {prepared.case.lesions[i].branch}",
            where=f"lesions.{i}.diameter_reduction",
            expected=f"a fraction up to {_MOST_SEVERE}, about which it is fitted",
            fix="Write fit: {severity: null} to keep it closed, or a reduction below that",
        )
    median = np.clip(declared, 0.02, _MOST_SEVERE - 0.02)
    sd = np.array([_logistic_sd(m, said.sd) for m in median])
    transform = Interval(low=0.0, high=_MOST_SEVERE)  # pyright: ignore[reportCallIssue]
    prior = Normal(as_leaf(median), as_leaf(sd))
    parameter = Parameter("severity", prior, transform, labels=lesion_names(prepared))
    change = LesionChange(_present(prepared, states), "diameter_reduction", scales=False)
    return Unknown(parameter, change)


def _logistic_sd(median: float, sd: float) -> float:
    """The sd on the logistic line at which half the central 68 % of the reduction is `sd` wide.

    Towards the ends of the range no prior is that wide; there it is the widest with one mode.
    """
    at = np.log(median / (_MOST_SEVERE - median))
    reduction = lambda z: _MOST_SEVERE / (1.0 + np.exp(-z))
    miss = lambda s: 0.5 * (reduction(at + s) - reduction(at - s)) - sd
    return (
        _WIDEST if miss(_WIDEST) <= 0.0 else float(root_scalar(miss, bracket=(1e-6, _WIDEST)).root)
    )


def extent(prepared: Prepared, said: Extent, states: dict[str, State]) -> Unknown:
    """Length of the declared lesions, over what images say; their loss follows it."""
    names = lesion_names(prepared)
    parameter = Parameter("extent", Normal(1.0, said.sd), Log(), labels=names)
    return Unknown(parameter, LesionChange(_present(prepared, states), "length", scales=True))


def pressure_aortic(
    said: AorticPressure, median_mmHg: dict[str, float], like: dict[str, str]
) -> Unknown:
    """Mean aortic pressure, mmHg.

    **Arguments:** `median_mmHg`, of every state of the model; `like`, for each the measured one
    whose deviation it shares.
    """
    names = tuple(dict.fromkeys(like.values()))
    median = as_leaf(np.array([median_mmHg[name] for name in names]))
    parameter = Parameter(
        "pressure_aortic_mmHg", Normal(median, said.sd_mmHg), Identity(), labels=names
    )
    above = {state: median_mmHg[state] - median_mmHg[k] for state, k in like.items()}
    place = tuple((state, names.index(k)) for state, k in like.items())
    change = InletChange({state: as_leaf(x, float) for state, x in above.items()}, place)
    return Unknown(parameter, change)


def mobility(said: Mobility) -> Unknown:
    """The mobility K of the tissue, over that of the case."""
    return Unknown(Parameter("mobility", Normal(1.0, said.sd), Log()), MobilityChange())


def heart_unknowns(
    prepared: Prepared,
    said: FitSection,
    states: dict[str, State],
    *,
    kind: dict[str, str],
    like: dict[str, str],
    n_terminals: int,
) -> tuple[Unknown, ...]:
    """The unknowns that a case asks for.

    **Arguments:** `states`, all of the model; `kind`, for each rest or hyperemia; `like`, for each
    the measured one whose aortic pressure it shares; `n_terminals`, of the problem that is solved.

    **Errors:** [`InputError`][] for an unknown that changes nothing: demand without autoregulation,
    reserve without a dilated state.
    """
    dilated = [name for name in states if kind[name] == "hyperemia"]
    found = []
    if said.demand is not None:
        if not prepared.case.autoregulation.enabled:
            raise InputError(
                "demand is unknown, and the bed does not regulate itself",
                where="fit.demand",
                expected="autoregulation, by which rest flow follows demand",
                fix="Write demand: null, or autoregulation: {enabled: true}",
            )
        found.append(demand(prepared, said.demand, n_terminals))
    if said.reserve is not None:
        found.append(reserve(prepared, said.reserve, n_terminals, dilated))
    if prepared.case.lesions and said.severity is not None:
        found.append(severity(prepared, said.severity, states))
    if prepared.case.lesions and said.extent is not None:
        found.append(extent(prepared, said.extent, states))
    if said.aortic_pressure is not None:
        median = {name: prepared.case.pressure_mmHg(name) for name in states}
        found.append(pressure_aortic(said.aortic_pressure, median, like))
    if said.mobility is not None:
        found.append(mobility(said.mobility))
    return tuple(found)


def lesion_names(prepared: Prepared) -> tuple[str, ...]:
    """Branch and interval of each declared lesion."""
    return tuple(f"{x.branch} {x.start_mm:g}–{x.end_mm:g} mm" for x in prepared.case.lesions)


def _present(prepared: Prepared, states: dict[str, State]) -> dict[str, Bool[Array, " l"]]:
    """Which lesions a state has: those that it has not opened."""
    declared = np.asarray(prepared.network.lesion.diameter_reduction)
    found = {k: np.asarray(s.network.lesion.diameter_reduction) for k, s in states.items()}
    return {k: as_leaf(reduction == declared, np.bool_) for k, reduction in found.items()}


def _bed_unknown(
    prepared: Prepared, name: str, said: BedUnknown, n_terminals: int
) -> tuple[Parameter, Groups]:
    weight, prior, labels = _GROUPS[said.by](prepared, said)
    padded = np.zeros((n_terminals, weight.shape[1]))
    padded[: len(weight)] = weight
    return Parameter(name, prior, Log(), labels=labels), Groups(
        as_leaf(padded), as_leaf(said.median, float)
    )


def _by_territory(
    prepared: Prepared, said: BedUnknown
) -> tuple[Float[np.ndarray, "t g"], AbstractPrior, tuple[str, ...]]:
    names = prepared.territory_name
    return np.eye(len(names))[prepared.terminal_territory], Normal(said.median, said.sd), names


def _by_segment(
    prepared: Prepared, said: BedUnknown
) -> tuple[Float[np.ndarray, "t 17"], AbstractPrior, tuple[str, ...]]:
    return _segment_shares(prepared), Normal(said.median, said.sd), AHA17_NAME


def _by_hierarchy(
    prepared: Prepared, said: BedUnknown
) -> tuple[Float[np.ndarray, "t 17"], AbstractPrior, tuple[str, ...]]:
    """Segments about the territory that holds most of each."""
    share = np.zeros((17, len(prepared.territory_name)))
    inside = (prepared.segment >= 1) & (prepared.segment <= 17)
    volume = np.asarray(prepared.heart.mesh.volume)
    at = (prepared.segment[inside] - 1, prepared.territory[inside])
    np.add.at(share, at, volume[inside])
    _, group = np.unique(share.argmax(axis=1), return_inverse=True)
    prior = Hierarchy(said.median, group, said.sd, said.sd_within)
    return _segment_shares(prepared), prior, AHA17_NAME


def _by_region(
    prepared: Prepared, said: BedUnknown
) -> tuple[Float[np.ndarray, "t g"], AbstractPrior, tuple[str, ...]]:
    """A Gaussian field over the wall, given at places half a correlation length apart.

    The terminal regions take its conditional mean there (predictive process, Banerjee et al. 2008,
    doi 10.1111/j.1467-9868.2008.00663.x).
    """
    node = np.asarray(prepared.problem.tissue.terminal_node)
    place = np.asarray(prepared.network.node_position)[node] / M_PER_MM
    chosen = _spread_out(place, 0.5 * said.length_mm)
    apart = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2)
    inner = squared_exponential(apart(place[chosen], place[chosen]), said.length_mm)
    cross = squared_exponential(apart(place, place[chosen]), said.length_mm)
    # the jitter that keeps the solve from losing the digits of a smooth field
    weight = np.linalg.solve(inner + 1e-8 * np.eye(len(chosen)), cross.T).T
    labels = tuple(f"at terminal {int(i)}" for i in chosen)
    return weight, SmoothField(said.median, said.sd, inner), labels


def _spread_out(place: Float[np.ndarray, "t 3"], spacing: float) -> Int[np.ndarray, " g"]:
    """Places such that none is farther than the spacing from one of them."""
    chosen = [0]
    distance = np.linalg.norm(place - place[0], axis=1)
    while distance.max() > spacing:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(place - place[chosen[-1]], axis=1))
    return np.array(chosen)


def _segment_shares(prepared: Prepared) -> Float[np.ndarray, "t 17"]:
    """Share of each terminal region that lies in each AHA segment."""
    tissue = prepared.problem.tissue
    segment = prepared.segment[np.asarray(tissue.cell)]
    inside = (segment >= 1) & (segment <= 17)
    share = np.zeros((tissue.n_terminals, 17))
    at = (np.asarray(tissue.terminal)[inside], segment[inside] - 1)
    np.add.at(share, at, np.asarray(tissue.overlap)[inside])
    total = share.sum(axis=1, keepdims=True)
    # a region outside all segments follows their mean
    return np.where(total > 0.0, share / np.where(total > 0.0, total, 1.0), 1.0 / 17.0)


_GROUPS = {
    "territory": _by_territory,
    "segment": _by_segment,
    "region": _by_region,
    "hierarchy": _by_hierarchy,
}
