"""The figures of a fit."""

from pathlib import Path
from typing import Any

import numpy as np

from ..plot import (
    bullseye_figure,
    colour_range,
    interval_figure,
    IntervalRow,
    MapPanel,
    save_figure,
)
from ._fit_schema import Estimate, FitSummary

PARAMETER_WORDS = {
    "demand": "demand over the calibrated heart",
    "reserve": "reserve over the calibrated heart",
    "severity": "diameter reduction",
    "extent": "length of the lesion over the declared one",
    "pressure_aortic_mmHg": "aortic pressure (mmHg)",
    "mobility": "mobility K over that of the case",
}


def write_fit_figures(folder: Path, said: FitSummary) -> None:
    """Polar maps of what was measured, fitted and left; intervals of parameters and of FFR."""
    folder.mkdir()
    note = f"Anatomy: {', '.join(said.labels)}." if said.labels else ""
    for state in said.segments[0].measured_ml_min_g:
        measured = np.array([row.measured_ml_min_g[state] for row in said.segments])
        seen = np.array([row.seen_ml_min_g[state] for row in said.segments])
        unit = "MBF (ml/min/g)"
        both = colour_range(np.concatenate([measured, seen]))
        apart = colour_range(np.abs(measured - seen))[1]
        panels = [
            MapPanel("Measured", measured, unit, limits=both),
            MapPanel("Fitted, as the camera sees it", seen, unit, limits=both),
            MapPanel("Measured less fitted", measured - seen, unit, "coolwarm", (-apart, apart)),
        ]
        title = f"{said.title}: {state.replace('_', ' ')}"
        save_figure(
            folder / f"bullseye_{state}.png", bullseye_figure(panels, title=title, note=note)
        )
    save_figure(folder / "parameters.png", _parameters(said, note))
    if said.lesions:
        save_figure(folder / "ffr.png", _ffr(said, note))


def _parameters(said: FitSummary, note: str) -> Any:
    groups = []
    for name in dict.fromkeys(row.parameter for row in said.parameters):
        rows = [
            IntervalRow(short_entry(row.entry), _triple(row.prior), _triple(row.posterior))
            for row in said.parameters
            if row.parameter == name
        ]
        groups.append((PARAMETER_WORDS.get(name, name), rows))
    title = f"{said.title}: {100 * said.level:.0f} % intervals before (grey) and after (blue)"
    return interval_figure(groups, title=title, note=note)


def _ffr(said: FitSummary, note: str) -> Any:
    rows = [
        IntervalRow(
            f"{x.branch} {x.start_mm:g}–{x.end_mm:g} mm", _triple(x.opened.ffr), _triple(x.ffr)
        )
        for x in said.lesions
    ]
    title = f"{said.title}: FFR (blue) and after opening the lesion (grey)"
    return interval_figure([("static over aortic pressure", rows)], title=title, note=note)


def _triple(estimate: Estimate) -> tuple[float, float, float]:
    return estimate.low, estimate.median, estimate.high


def short_entry(entry: str) -> str:
    """The part of an entry's name that tells it from others of its parameter."""
    return entry.partition("[")[2].rstrip("]") or entry
