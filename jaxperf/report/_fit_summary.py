"""What a fitted heart says: intervals, diagnosis, and what would tell more."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..geometry import AHA17_NAME
from ..inverse import (
    GaussianNoise,
    GaussianPosterior,
    Log,
    Measurement,
    shrinkage,
)
from ..observe import Observations, pressure_wire
from ..study import FFR_ISCHAEMIC, HeartFit, lesion_names, OPENED
from ..units import M3_S_KG_PER_ML_MIN_G
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

_PREDICTED = 2000


def fit_summary(
    found: HeartFit, *, level: float, posterior: str, seed: int, seconds: Mapping[str, float]
) -> FitSummary:
    """The content of the `summary.json` of a fit.

    **Arguments:** `level`, of the intervals; `posterior`, how it was found; `seconds`, by stage.
    """
    case, problem = found.prepared.case, found.fit.problem
    states = tuple(problem.model.problems)
    interval = _Intervals(found, level)
    warnings = [f"{text} was not measured." for text in problem.left_out]
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
        states=list(states),
        values=problem.n_data,
        left_out=list(problem.left_out),
        parameters=_entries(found, interval),
        segments=_segments(found, interval),
        territories=_territories(found, interval),
        lesions=_lesions(found, interval),
        wires=_wires(found, interval),
        diagnosis=[Labelled(**vars(said)) for said in found.diagnosis],
        blind=list(found.identifiability.blind),
        further=_further(found),
        quality=_quality(found),
        cost=_cost(found),
        seconds=dict(seconds),
        warnings=warnings,
        seed=seed,
    )


class _Intervals:
    """Intervals of quantities of a posterior at one level."""

    def __init__(self, found: HeartFit, level: float):
        self.posterior, self.level = found.posterior, level

    def __call__(self, quantity: Callable[[Observations], Any]) -> list[Estimate]:
        """Of a vector of positive quantities of the output."""
        bounds = self.posterior.interval(lambda values, seen: quantity(seen), self.level, Log())
        return estimates(bounds)


def estimates(bounds: Any) -> list[Estimate]:
    """Bounds of a vector, entry by entry."""
    rows = zip(
        *(np.ravel(x).tolist() for x in (bounds.median, bounds.low, bounds.high)), strict=True
    )
    return [Estimate(median=m, low=a, high=b) for m, a, b in rows]


def _entries(found: HeartFit, interval: _Intervals) -> list[FittedEntry]:
    problem, rows = found.fit.problem, []
    ratio = iter(found.identifiability.sd_ratio.tolist())
    rng = np.random.default_rng(0)
    tail = 0.5 - 0.5 * interval.level
    for parameter in problem.parameters:
        unit = jnp.asarray(rng.standard_normal((_PREDICTED, parameter.size)), problem.dtype)
        drawn = np.stack([np.ravel(parameter.value(x)) for x in unit])
        before = np.quantile(drawn, [0.5, tail, 1.0 - tail], axis=0).T
        bounds = interval.posterior.interval(
            lambda values, seen, name=parameter.name: jnp.ravel(values[name]),
            interval.level,
            parameter.transform,
        )
        for name, prior, after in zip(parameter.entries, before, estimates(bounds), strict=True):
            median, low, high = prior.tolist()
            rows.append(
                FittedEntry(
                    parameter=parameter.name,
                    entry=name,
                    prior=Estimate(median=median, low=low, high=high),
                    posterior=after,
                    sd_ratio=next(ratio),
                )
            )
    return rows


def _segments(found: HeartFit, interval: _Intervals) -> list[FittedSegment]:
    states = tuple(found.fit.problem.model.problems)
    flow = {
        state: interval(lambda seen, s=state: seen.mbf_segment[s] / M3_S_KG_PER_ML_MIN_G)
        for state in states
    }
    seen = _seen_by_pet(found)
    measured = found.measured.mbf_ml_min_g
    return [
        FittedSegment(
            segment=i + 1,
            name=AHA17_NAME[i],
            measured_ml_min_g={state: float(value[i]) for state, value in measured.items()},
            seen_ml_min_g={state: float(value[i]) for state, value in seen.items()},
            mbf_ml_min_g={state: flow[state][i] for state in states},
        )
        for i in range(17)
    ]


def _seen_by_pet(found: HeartFit) -> dict[str, np.ndarray]:
    """What the camera would report of the fitted heart, ml/min/g."""
    measurement = next((m for m in found.fit.problem.measurements if m.name == "PET"), None)
    if measurement is None:
        return {}
    see = measurement.observe
    bounds = found.posterior.interval(lambda values, seen: see(seen), 0.5, Log())
    flow = np.asarray(bounds.median) - float(see.floor_ml_min_g)
    return dict(zip(see.states, flow.reshape(-1, 17), strict=True))


def _territories(found: HeartFit, interval: _Intervals) -> dict[str, FittedTerritory]:
    quantities, names = found.quantities, found.prepared.territory_name
    states = tuple(found.fit.problem.model.problems)
    flow = {
        state: interval(lambda seen, s=state: quantities.flow(seen, s) / M3_S_KG_PER_ML_MIN_G)
        for state in states
    }
    reserve = interval(lambda seen: quantities.reserve(seen, "hyperemia"))
    opened = interval(lambda seen: quantities.reserve(seen, OPENED))
    return {
        name: FittedTerritory(
            mbf_ml_min_g={state: flow[state][g] for state in states},
            cfr=reserve[g],
            cfr_without_lesions=opened[g],
        )
        for g, name in enumerate(names)
    }


def _lesions(found: HeartFit, interval: _Intervals) -> list[FittedLesion]:
    quantities, lesions = found.quantities, found.prepared.case.lesions
    if not lesions:
        return []
    ffr = interval(quantities.ffr)
    ischaemic = found.posterior.predict(lambda values, seen: quantities.ffr(seen))
    rows = []
    for i, lesion in enumerate(lesions):
        state = OPENED if len(lesions) == 1 else f"without_lesion_{i + 1}"
        segment, territory = quantities.lesion_segment[i], quantities.lesion_territory[i]

        def after(seen: Observations, state=state, segment=segment, territory=territory):
            before = quantities.flow(seen, "hyperemia")[territory]
            ratio = quantities.flow(seen, state)[territory] / before
            return jnp.stack([seen.pressure_ratio[state][segment, 1], ratio])

        opened_ffr, opened_ratio = interval(after)
        rows.append(
            FittedLesion(
                branch=lesion.branch,
                start_mm=lesion.start_mm,
                end_mm=lesion.end_mm,
                diameter_reduction=lesion.diameter_reduction,
                ffr=ffr[i],
                ffr_ischaemic_probability=float(np.mean(ischaemic[:, i] <= FFR_ISCHAEMIC)),
                opened=OpenedLesion(ffr=opened_ffr, mbf_ratio=opened_ratio),
            )
        )
    return rows


def _wires(found: HeartFit, interval: _Intervals) -> list[FittedWire]:
    measurement = next((m for m in found.fit.problem.measurements if m.name == "wires"), None)
    if measurement is None:
        return []
    fitted = interval(measurement.observe)
    return [
        FittedWire(
            branch=wire.branch,
            at_mm=wire.at_mm,
            state=wire.state,
            measured=wire.ratio,
            fitted=estimate,
        )
        for wire, estimate in zip(found.measured.wires, fitted, strict=True)
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
        more = Measurement(
            "wire", lambda seen, w=wire: w(seen)[None], np.array([0.8]), GaussianNoise(sd=0.02)
        )
        ffr = lambda values, seen, i=i: found.quantities.ffr(seen)[i]
        gain = shrinkage(posterior, more, ffr)
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
    history = min((w.history for w in found.fit.starts), key=lambda rows: rows[-1, 1])
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
