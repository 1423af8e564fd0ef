"""Polar maps of the AHA segments, and flow across the wall."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ..geometry import AHA17_NAME
from ..plot import colour_range, INK, segment_places, territory_colours
from ._figures import flow_scale, RESERVE_TOP, scale_to
from ._fit_schema import FitSummary
from ._read_back import RunData, Wall
from ._schema import Summary
from ._web import (
    APART_MAP,
    axis,
    Control,
    Figure,
    figure_of,
    FLOW_MAP,
    GREY,
    quoted,
    RESERVE_MAP,
    single,
    when,
)

_LAYERS = 10
_MBF = "MBF (ml/min/g)"


def polar_map(
    key: str,
    heading: str,
    values: Float[np.ndarray, "17"],
    unit: str,
    colours: str = FLOW_MAP,
    limits: tuple[float, float] | None = None,
    spread: Float[np.ndarray, "17 2"] | None = None,
) -> Figure:
    """The 17 segments of the AHA with their values.

    **Arguments:** `spread`, the interval of each segment, said under the mouse.
    """
    low, high = limits or colour_range(values)
    places = segment_places()
    sound = np.isfinite(values)
    said = []
    for i, name in enumerate(AHA17_NAME):
        more = "" if spread is None else f" ({spread[i, 0]:.2f} to {spread[i, 1]:.2f})"
        value = f"{values[i]:.2f}{more}" if sound[i] else "no value"
        said.append(f"{i + 1} {name}<br>{value}")
    ring: dict[str, Any] = {
        "type": "barpolar",
        "base": [inner for _, _, (inner, _) in places],
        "r": [outer - inner for _, _, (inner, outer) in places],
        "theta": [0.5 * (a + b) for _, (a, b), _ in places],
        "width": [b - a for _, (a, b), _ in places],
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            # a segment without a value is grey, and has no place on the scale
            "color": [float(v) if ok else GREY for v, ok in zip(values, sound, strict=True)],
            "colorscale": colours,
            "reversescale": colours == APART_MAP,
            "cmin": low,
            "cmax": high,
            "showscale": True,
            "colorbar": {
                "orientation": "h",
                "y": -0.04,
                "yanchor": "top",
                "thickness": 10,
                "len": 0.9,
                "title": {"text": unit, "side": "bottom"},
            },
            "line": {"color": "white", "width": 2},
        },
    }
    label: dict[str, Any] = {
        "type": "scatterpolar",
        "mode": "text",
        "r": [0.0 if i == 16 else 0.5 * (a + b) for i, (_, _, (a, b)) in enumerate(places)],
        "theta": [0.5 * (a + b) for _, (a, b), _ in places],
        "text": [f"{v:.2f}" if ok else "–" for v, ok in zip(values, sound, strict=True)],
        "textfont": {"size": 12, "color": _inks(values, low, high, colours)},
        "hoverinfo": "skip",
    }
    layout = {
        "showlegend": False,
        "margin": {"l": 28, "r": 28, "t": 24, "b": 70},
        "polar": {
            "hole": 0,
            "bgcolor": "white",
            "radialaxis": {"visible": False, "range": [0, 1]},
            "angularaxis": {
                "showgrid": False,
                "showline": False,
                "ticks": "",
                "tickmode": "array",
                "tickvals": [0, 90, 180, 270],
                "ticktext": ["lat.", "anterior", "sept.", "inferior"],
            },
        },
    }
    return figure_of(key, heading, [ring, label], layout, wide=False, height=360)


def _inks(values: np.ndarray, low: float, high: float, colours: str) -> list[str]:
    """Ink that can be read on each colour: white on the dark end of a scale."""
    part = (values - low) / max(high - low, 1e-12)
    if colours == APART_MAP:
        return ["white" if abs(p - 0.5) > 0.4 else INK for p in part.tolist()]
    return ["white" if p < 0.55 else INK for p in part.tolist()]


def run_maps(run: RunData, said: Summary) -> list[Figure]:
    """MBF of each state and the flow reserve, on the scales of the other figures."""
    maps = []
    rows = [said.mbf_by_segment[str(i)] for i in range(1, 18)]
    for state in said.states:
        flow = np.array([row.mbf_ml_min_g[state] for row in rows])
        heading = f"MBF, {state.replace('_', ' ')}"
        maps.append(
            polar_map(
                f"map-{len(maps)}", heading, flow, _MBF, FLOW_MAP, flow_scale(run.case, state, flow)
            )
        )
    reserve = np.array([row.cfr for row in rows])
    limits = scale_to(reserve, RESERVE_TOP)
    maps.append(polar_map("map-cfr", "Flow reserve", reserve, "CFR", RESERVE_MAP, limits))
    return maps


def fit_maps(said: FitSummary) -> list[Figure]:
    """What PET measured, what it would see of the fitted heart, the difference, and intervals."""
    maps = []
    for n, state in enumerate(said.states):
        words = state.replace("_", " ")
        flow = [row.mbf_ml_min_g[state] for row in said.segments]
        median = np.array([x.median for x in flow])
        spread = np.array([[x.low, x.high] for x in flow])
        both = colour_range(spread)
        if all(state in row.measured_ml_min_g for row in said.segments):
            measured = np.array([row.measured_ml_min_g[state] for row in said.segments])
            seen = np.array([row.seen_ml_min_g[state] for row in said.segments])
            both = colour_range(np.concatenate([measured, seen, median]))
            apart = colour_range(np.abs(measured - seen))[1]
            key = f"fit-{n}"
            maps += [
                polar_map(f"{key}-pet", f"PET, {words}", measured, _MBF, limits=both),
                polar_map(
                    f"{key}-seen", f"Fitted, as PET sees it, {words}", seen, _MBF, limits=both
                ),
                polar_map(
                    f"{key}-apart",
                    f"PET less fitted, {words}",
                    measured - seen,
                    _MBF,
                    APART_MAP,
                    (-apart, apart),
                ),
            ]
        maps += [
            polar_map(
                f"fit-{n}-mbf",
                f"Tissue flow, median, {words}",
                median,
                _MBF,
                limits=both,
                spread=spread,
            ),
            polar_map(
                f"fit-{n}-width",
                f"Width of the {100 * said.level:.0f} % interval, {words}",
                spread[:, 1] - spread[:, 0],
                _MBF,
                RESERVE_MAP,
            ),
        ]
    return maps


def difference_maps(first: RunData, other: RunData, letters: tuple[str, str]) -> list[Figure]:
    """MBF of the segments of one run less that of another, for the states that both have."""
    flows = [_segment_flows(run) for run in (first, other)]
    maps = []
    for state in (s for s in flows[0] if s in flows[1]):
        apart = flows[1][state] - flows[0][state]
        # from a tenth on, or differences of rounding would look like disease
        top = max(colour_range(np.abs(apart))[1], 0.1)
        heading = f"MBF, {state.replace('_', ' ')}: {letters[1]} less {letters[0]}"
        key = f"apart-{letters[1]}-{len(maps)}"
        maps.append(polar_map(key, heading, apart, _MBF, APART_MAP, (-top, top)))
    return maps


def _segment_flows(run: RunData) -> dict[str, Float[np.ndarray, "17"]]:
    said = run.said
    if isinstance(said, FitSummary):
        return {
            k: np.array([row.mbf_ml_min_g[k].median for row in said.segments]) for k in said.states
        }
    return {
        k: np.array([said.mbf_by_segment[str(i)].mbf_ml_min_g[k] for i in range(1, 18)])
        for k in said.states
    }


def transmural(wall: Wall) -> Figure:
    """Mean flow by depth in the wall, of all of it and of each territory."""
    layer = np.minimum((wall.depth * _LAYERS).astype(np.int64), _LAYERS - 1)
    middle = (np.arange(_LAYERS) + 0.5) / _LAYERS
    colours = territory_colours(wall.territory_name)
    parts = [("whole wall", INK, np.ones(len(layer), bool))]
    parts += [
        (name, colours[name], wall.territory == t) for t, name in enumerate(wall.territory_name)
    ]
    traces = []
    for n, flow in enumerate(wall.mbf.values()):
        for name, colour, inside in parts:
            weight = np.where(inside, wall.volume, 0.0)
            whole = np.bincount(layer, weight, _LAYERS)
            with np.errstate(invalid="ignore"):
                mean = np.bincount(layer, weight * flow, _LAYERS) / whole
            traces.append(
                {
                    **when(state=n),
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": quoted(name),
                    "x": single(100.0 * middle),
                    "y": single(mean),
                    "line": {"color": colour, "width": 3 if name == "whole wall" else 2},
                    "hovertemplate": "%{x:.0f} % of the depth: %{y:.2f} ml/min/g",
                }
            )
    names: Sequence[str] = tuple(k.replace("_", " ") for k in wall.mbf)
    layout = {
        "xaxis": axis("depth (% of the wall, from the inner surface)", range=[0, 100]),
        "yaxis": axis(_MBF, rangemode="tozero"),
    }
    controls = [Control("state", "State", tuple(names), min(1, len(names) - 1))]
    note = f"Means over {_LAYERS} layers of the wall, weighted with volume."
    heading = "Flow across the wall"
    return figure_of("transmural", heading, traces, layout, controls=controls, note=note)
