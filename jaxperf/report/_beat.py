"""What a heart beat of a case says: tables and summary."""

import math
from typing import Any

import numpy as np

from ..study import Beat, BEHIND, Place, Pulsation, Results, Series
from ..units import M3_S_PER_ML_MIN, PA_PER_MMHG
from ._schema import BeatBranch, BeatLesion, BeatOfState, BeatSeconds, Pulsatile


def waveform_rows(pulsation: Pulsation) -> list[dict[str, Any]]:
    """The rows of `waveforms.csv`."""
    return [row for state, beat in pulsation.beats.items() for row in beat.series.rows(state=state)]


def pulsation_summary(results: Results, pulsation: Pulsation) -> Pulsatile:
    """What `summary.json` says of pulsatile flow."""
    # A state moves the mean of the pressures, and no time.
    heartbeat = next(iter(pulsation.beats.values())).heartbeat
    return Pulsatile(
        period_s=heartbeat.period,
        heart_rate_per_min=60.0 / heartbeat.period,
        systole_s=heartbeat.systole,
        states={
            state: _beat_summary(results, state, beat) for state, beat in pulsation.beats.items()
        },
    )


def _beat_summary(results: Results, state: str, beat: Beat) -> BeatOfState:
    aortic_mmHg = np.asarray(beat.heartbeat.aortic.value) / PA_PER_MMHG
    difference = np.abs(beat.outlet_flow / beat.outlet_flow_steady - 1.0)
    total, steady = beat.outlet_flow.sum(), beat.outlet_flow_steady.sum()
    return BeatOfState(
        branches={
            name: _branch_summary(results, state, beat, name)
            for name in results.prepared.tree.branch_name
        },
        territories=[
            name
            for name in results.prepared.territory_name
            if name in results.prepared.tree.branch_name
        ],
        lesions=[
            _lesion_summary(results, state, beat.series, i)
            for i in range(len(results.prepared.case.lesions))
        ],
        pressure_systolic_mmHg=float(aortic_mmHg.max()),
        pressure_diastolic_mmHg=float(aortic_mmHg.min()),
        flow_mean_ml_min=float(total),
        flow_relative_difference=float(total / steady - 1.0),
        outlet_flow_relative_difference_max=float(difference.max()),
        bed_relative_error=beat.bed_error,
        outlets=len(beat.outlet_flow),
        vessels=beat.vessels,
        cells=beat.cells,
        cell_time_s=beat.resolved.time,
        cycles=beat.cycles,
        seconds=BeatSeconds(**beat.seconds),
    )


def _branch_summary(results: Results, state: str, beat: Beat, name: str) -> BeatBranch:
    """Flow where the branch begins, pressure where it ends, over the beat and in steady flow."""
    series = beat.series
    first, last = series.index(name, "ostium", "proximal"), series.index(name, "distal")
    flow = series.flow[:, first]
    systole = beat.heartbeat.is_systole(series.fine)
    mean = series.mean(flow)
    in_diastole = series.mean(flow, ~systole)
    steady = results.solution(state)
    place, end = series.places[first], series.places[last]
    return BeatBranch(
        flow_mean_ml_min=mean,
        flow_steady_ml_min=float(np.asarray(steady.flow)[place.segment]) / M3_S_PER_ML_MIN,
        flow_max_ml_min=float(flow.max()),
        flow_min_ml_min=float(flow.min()),
        diastolic_share=in_diastole * float(np.mean(~systole)) / mean if mean else math.nan,
        flow_systolic_over_diastolic=(
            series.mean(flow, systole) / in_diastole if in_diastole else math.nan
        ),
        pressure_static_distal_mean_mmHg=series.mean(series.pressure_static[:, last]),
        pressure_ratio=_ratio(results, state, series, last),
        pressure_ratio_steady=_steady_ratio(results, state, end),
        **_cells_summary(results, beat, name, end),
    )


def _cells_summary(results: Results, beat: Beat, name: str, end: Place) -> dict[str, float]:
    """What the cells do along a branch and to its end."""
    tree, cells = results.prepared.tree, beat.resolved
    number = lambda segment: cells.of.distal[np.searchsorted(beat.segment, segment)]
    along = number(np.flatnonzero(np.asarray(tree.branch) == tree.branch_name.index(name)))
    last = int(number(end.segment))
    return {
        "flow_variation": float(cells.of.flow_variation[along].max()),
        "pressure_ratio_error": float(cells.ratio_error[last]),
        "inertia_factor": float(cells.of.inertia[along].max()),
        "inertia_pressure_mmHg": float(cells.of.inertia_pressure[last]) / PA_PER_MMHG,
    }


def _lesion_summary(results: Results, state: str, series: Series, i: int) -> BeatLesion:
    lesion = results.prepared.case.lesions[i]
    at = series.index(lesion.branch, f"{BEHIND} {i + 1}")
    return BeatLesion(
        branch=lesion.branch,
        start_mm=lesion.start_mm,
        end_mm=lesion.end_mm,
        pressure_ratio=_ratio(results, state, series, at),
        pressure_ratio_steady=_steady_ratio(results, state, series.places[at]),
        flow_mean_ml_min=series.mean(series.flow[:, at]),
    )


def _ratio(results: Results, state: str, series: Series, i: int) -> float:
    """Mean static pressure over mean aortic pressure: FFR, at hyperemia."""
    aortic_mmHg = results.pressure_aortic(state) / PA_PER_MMHG
    return series.mean(series.pressure_static[:, i]) / aortic_mmHg


def _steady_ratio(results: Results, state: str, place: Place) -> float:
    static = np.asarray(results.solution(state).pressure_static)[place.segment]
    return float(static[round(place.fraction)]) / results.pressure_aortic(state)
