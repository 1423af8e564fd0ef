"""What a fitted heart says: intervals, diagnosis, and what would tell more."""

from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import as_leaf
from .._defaults import FFR_ISCHAEMIC
from ..geometry import AHA17_NAME
from ..inverse import (
    GaussianNoise,
    GaussianPosterior,
    InverseProblem,
    Measurement,
    SampledPosterior,
    shrinkage,
)
from ..observe import Observations, pressure_wire
from ..study import Finding, HeartFit, lesion_names, SeenByWires, TerritoryQuantities
from ._fit_schema import (
    Estimate,
    FitCost,
    FitQuality,
    FitSummary,
    FittedEntry,
    FittedLesion,
    FittedSegment,
    FittedTerritory,
    FittedWire,
    FurtherMeasurement,
    Labelled,
    OpenedLesion,
)
from ._summary import anatomy_labels

# Limits of Vehtari et al.: Pareto smoothed importance sampling (2024), and R-hat (2021).
_RELIABLE_K = 0.7
_CONVERGED_RHAT = 1.01
# Draws that give the quantiles of a parameter: their error is 2 to 3 % of an sd.
_DRAWS = 4000


def fit_summary(
    found: HeartFit,
    *,
    level: float,
    posterior: str,
    seed: int,
    seconds: Mapping[str, float],
    findings: Sequence[Finding] = (),
) -> FitSummary:
    """The content of the `summary.json` of a fit.

    **Arguments:** `level`, of the intervals; `posterior`, how it was found; `seconds`, by stage;
    `findings`, of reading and geometry, which become warnings.
    """
    case, problem = found.prepared.case, found.fit.problem
    quantities = _Estimates(found, level)
    warnings = [f"{f.where}: {f.message}." for f in findings]
    warnings += [f"{text} was not measured." for text in problem.left_out]
    warnings += _doubts(found)
    if found.misfit.testable and found.misfit.p_value < 0.01:
        warnings.append(found.misfit.words)
    if found.check is not None and not found.check.ok:
        warnings.append(found.check.words)
    if problem.size > problem.n_data:
        warnings.append(
            f"There are {problem.size} unknowns and {problem.n_data} measured values: priors carry "
            "what the values leave open."
        )
    return FitSummary(
        title=case.title,
        kind=case.kind,
        labels=anatomy_labels(case, found.prepared.grown is not None or case.kind == "synthetic"),
        level=level,
        posterior=posterior,
        states=list(quantities.states),
        values=problem.n_data,
        left_out=list(problem.left_out),
        parameters=_entries(found, level),
        segments=_segments(found, quantities),
        territories=_territories(found, quantities),
        lesions=_lesions(found, quantities),
        wires=_wires(found, quantities),
        diagnosis=[Labelled(**vars(said)) for said in found.diagnosis],
        blind=list(found.identifiability.blind),
        further=_further(found),
        quality=_quality(found),
        cost=_cost(found),
        seconds=dict(seconds),
        warnings=warnings,
        seed=seed,
    )


def _doubts(found: HeartFit) -> list[str]:
    """What a reader must know before intervals are believed."""
    fitted, posterior, said = found.fit, found.posterior, []
    if len(fitted.modes) > 1 and isinstance(posterior, GaussianPosterior):
        said.append(
            f"The posterior has {len(fitted.modes)} modes, and the intervals are those about the "
            "most probable one alone. Take posterior: mixture or nuts."
        )
    if fitted.failed:
        said.append(f"{len(fitted.failed)} of {len(fitted.starts)} starts found no mode.")
    if found.predicted.failed:
        said.append(f"{found.predicted.failed} draws could not be solved and are left out.")
    if isinstance(posterior, SampledPosterior):
        if np.isfinite(posterior.pareto_k) and posterior.pareto_k > _RELIABLE_K:
            said.append(
                f"Pareto k of the importance weights is {posterior.pareto_k:.2f}; above "
                f"{_RELIABLE_K:g} the samples cannot be relied on."
            )
        if posterior.chains > 1 and posterior.rhat().max() > _CONVERGED_RHAT:
            said.append(
                f"R-hat reaches {posterior.rhat().max():.3f}; above {_CONVERGED_RHAT:g} the chains "
                "have not mixed. Raise draws."
            )
    if found.prepared.case.flow == "pulsatile":
        said.append("Fits are of steady flow; the heart beat of the case plays no part.")
    return said


class _Estimates:
    """Intervals of the parts of what is predicted, by name."""

    def __init__(self, found: HeartFit, level: float) -> None:
        self._predicted, self._level = found.predicted, level
        self.states = found.quantities.states

    def __contains__(self, name: str) -> bool:
        return name in self._predicted

    def __call__(self, name: str) -> list[Estimate]:
        """The intervals of a part."""
        rows = self._predicted.interval(name, self._level).tolist()
        return [Estimate(median=m, low=a, high=b) for m, a, b in rows]


class _FfrBehind(eqx.Module):
    """FFR behind one lesion, as a quantity of a posterior."""

    territories: TerritoryQuantities
    lesion: int = eqx.field(static=True)

    def __call__(self, values: dict[str, Array], seen: Observations) -> Float[Array, ""]:
        return self.territories.ffr(seen)[self.lesion]


def _entries(found: HeartFit, level: float) -> list[FittedEntry]:
    """Prior and posterior of every entry, by quantiles of draws on its unconstrained line."""
    problem = found.fit.problem
    tails = [0.5, 0.5 - 0.5 * level, 0.5 + 0.5 * level]
    of_prior, of_posterior = jax.random.split(jax.random.key(0))
    unit = jax.random.normal(of_prior, (_DRAWS, problem.size), problem.dtype)
    drawn = (unit, found.posterior.sample(of_posterior, _DRAWS))
    before, after = (np.quantile(np.asarray(_latent(problem, x)), tails, axis=0).T for x in drawn)
    rows, at = [], 0
    for parameter in problem.parameters:
        value = lambda x, p=parameter: np.asarray(p.transform.forward(as_leaf(x))).tolist()
        for name in parameter.entries:
            prior, posterior = (
                Estimate(**dict(zip(("median", "low", "high"), value(x[at]), strict=True)))
                for x in (before, after)
            )
            ratio = float(found.identifiability.sd_ratio[at])
            rows.append(
                FittedEntry(
                    parameter=parameter.name,
                    entry=name,
                    prior=prior,
                    posterior=posterior,
                    sd_ratio=ratio,
                )
            )
            at += 1
    return rows


@eqx.filter_jit
def _latent(problem: InverseProblem, xi: Float[Array, "n p"]) -> Float[Array, "n e"]:
    return jax.vmap(problem.latent)(xi)


def _segments(found: HeartFit, quantities: _Estimates) -> list[FittedSegment]:
    flow = {state: quantities(f"segments {state}") for state in quantities.states}
    measured = found.measured.mbf_ml_min_g
    seen = _seen_by_pet(found, quantities)
    return [
        FittedSegment(
            segment=i + 1,
            name=AHA17_NAME[i],
            measured_ml_min_g={state: float(value[i]) for state, value in measured.items()},
            seen_ml_min_g={state: float(value[i]) for state, value in seen.items()},
            mbf_ml_min_g={state: flow[state][i] for state in quantities.states},
        )
        for i in range(17)
    ]


def _seen_by_pet(found: HeartFit, quantities: _Estimates) -> dict[str, np.ndarray]:
    """What the camera would report of the fitted heart, ml/min/g."""
    if "PET" not in quantities:
        return {}
    see = next(m for m in found.fit.problem.measurements if m.name == "PET").observe
    flow = np.array([x.median for x in quantities("PET")]) - float(see.floor_ml_min_g)
    return dict(zip(see.states, flow.reshape(-1, 17), strict=True))


def _territories(found: HeartFit, quantities: _Estimates) -> dict[str, FittedTerritory]:
    flow = {state: quantities(f"territories {state}") for state in quantities.states}
    reserve, opened = quantities("cfr"), quantities("cfr opened")
    return {
        name: FittedTerritory(
            mbf_ml_min_g={state: flow[state][g] for state in quantities.states},
            cfr=reserve[g],
            cfr_without_lesions=opened[g],
        )
        for g, name in enumerate(found.prepared.territory_name)
    }


def _lesions(found: HeartFit, quantities: _Estimates) -> list[FittedLesion]:
    rows = []
    for i, lesion in enumerate(found.prepared.case.lesions):
        drawn = found.predicted.draws("ffr")[:, i]
        ffr, ratio = quantities(f"opened {i}")
        rows.append(
            FittedLesion(
                branch=lesion.branch,
                start_mm=lesion.start_mm,
                end_mm=lesion.end_mm,
                diameter_reduction=lesion.diameter_reduction,
                ffr=quantities("ffr")[i],
                ffr_ischaemic_probability=float(np.mean(drawn <= FFR_ISCHAEMIC)),
                opened=OpenedLesion(ffr=ffr, mbf_ratio=ratio),
            )
        )
    return rows


def _wires(found: HeartFit, quantities: _Estimates) -> list[FittedWire]:
    if "wires" not in quantities:
        return []
    return [
        FittedWire(
            branch=wire.branch,
            at_mm=wire.at_mm,
            state=wire.state,
            measured=wire.ratio,
            fitted=estimate,
        )
        for wire, estimate in zip(found.measured.wires, quantities("wires"), strict=True)
    ]


def _further(found: HeartFit) -> list[FurtherMeasurement]:
    """What a pressure wire behind each lesion would add to its FFR and severity."""
    posterior, prepared = found.posterior, found.prepared
    if not isinstance(posterior, GaussianPosterior) or not prepared.case.lesions:
        return []
    rows = []
    names = lesion_names(prepared)
    for i, lesion in enumerate(prepared.case.lesions):
        wire = pressure_wire(prepared.network, lesion.branch, lesion.end_mm)
        see = SeenByWires((wire,), ("hyperemia",))
        more = Measurement("wire", see, np.array([0.8]), GaussianNoise(sd=0.02))
        gain = shrinkage(posterior, more, _FfrBehind(found.quantities.territories, i))
        told = {"FFR": (gain.quantity_before, gain.quantity_after)}
        entry = f"severity[{names[i]}]"
        if entry in gain.entries:
            at = gain.entries.index(entry)
            told[f"severity of {names[i]} (logistic)"] = (gain.before[at], gain.after[at])
        rows += [
            FurtherMeasurement(
                measurement=f"pressure wire behind {names[i]}",
                quantity=quantity,
                sd_before=float(np.asarray(before)),
                sd_after=float(np.asarray(after)),
            )
            for quantity, (before, after) in told.items()
        ]
    return rows


def _quality(found: HeartFit) -> FitQuality:
    said, check = found.misfit, found.check
    return FitQuality(
        chi2=said.chi2,
        freedom=said.freedom,
        p_value=said.p_value,
        testable=said.testable,
        predictive=said.predictive,
        words=said.words,
        pareto_k=None if check is None else float(check.pareto_k),
        check=None if check is None else check.words,
    )


def _cost(found: HeartFit) -> FitCost:
    # a start that could not begin has no misfit
    ends = [(w.history[-1, 1], i) for i, w in enumerate(found.fit.starts)]
    history = found.fit.starts[min(end for end in ends if np.isfinite(end[0]))[1]].history
    return FitCost(
        solves=found.fit.solves,
        columns=found.fit.columns,
        modes=len(found.fit.modes),
        failed_starts=list(found.fit.failed),
        history=[[float(x) for x in row] for row in history],
    )


def parameter_rows(said: FitSummary) -> list[dict[str, Any]]:
    """The rows of `parameters.csv`."""
    return [
        {
            "parameter": row.parameter,
            "entry": row.entry,
            "prior_median": row.prior.median,
            "prior_low": row.prior.low,
            "prior_high": row.prior.high,
            "median": row.posterior.median,
            "low": row.posterior.low,
            "high": row.posterior.high,
            "sd_ratio": row.sd_ratio,
        }
        for row in said.parameters
    ]


def fitted_segment_rows(said: FitSummary) -> list[dict[str, Any]]:
    """The rows of `segments17.csv` of a fit."""
    rows = []
    for row in said.segments:
        line: dict[str, Any] = {"segment": row.segment, "name": row.name}
        for state, flow in row.mbf_ml_min_g.items():
            if state in row.measured_ml_min_g:
                line[f"measured_{state}_ml_min_g"] = row.measured_ml_min_g[state]
                line[f"seen_{state}_ml_min_g"] = row.seen_ml_min_g[state]
            line[f"mbf_{state}_ml_min_g"] = flow.median
            line[f"mbf_{state}_low_ml_min_g"] = flow.low
            line[f"mbf_{state}_high_ml_min_g"] = flow.high
        rows.append(line)
    return rows
