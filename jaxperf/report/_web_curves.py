"""Pull-backs, waveforms, intervals and convergence."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._defaults import FFR_ISCHAEMIC
from ..plot import INK, PALETTE
from ._fit_figures import PARAMETER_WORDS, short_entry
from ._fit_schema import Estimate, FitSummary
from ._read_back import lesions_on, RunData, Tree
from ._schema import Pulsatile
from ._web import axis, Control, Figure, figure_of, quoted, single, when

_LESION = "rgba(213, 94, 0, 0.22)"


def _lesion_bands(tree: Tree, way: np.ndarray, option: int) -> list[dict[str, Any]]:
    return [
        {
            **when(branch=option),
            "type": "scatter",
            "mode": "lines",
            "fill": "toself",
            "fillcolor": _LESION,
            "line": {"width": 0},
            "x": [a, a, b, b, a],
            "y": [0.0, 1.1, 1.1, 0.0, 0.0],
            "name": f"lesion {100 * r:.0f} %",
            "hoverinfo": "name",
        }
        for a, b, r in lesions_on(tree, way)
    ]


def pull_back(trees: Sequence[tuple[str, Tree]], states: list[str], chosen: str | None) -> Figure:
    """Static over aortic pressure from the root to the end of each branch.

    **Arguments:** `trees`, of the runs with a letter for each, empty for a single run; `chosen`,
    the branch that is shown first.
    """
    names = list(dict.fromkeys(b for _, tree in trees for b in tree.branches))
    traces = []
    for n, branch in enumerate(names):
        for run, (letter, tree) in enumerate(trees):
            if branch not in tree.branches:
                continue
            way = tree.from_root(branch)
            traces += _lesion_bands(tree, way, n)
            arc = np.stack([tree.begins[way], tree.begins[way] + tree.length[way]], axis=1).ravel()
            begins = tree.begins[tree.course(branch)[0]]
            for i, state in enumerate(states):
                pressure, flow = (
                    tree.pressure[state][way].ravel(),
                    np.repeat(tree.flow[state][way], 2),
                )
                data = np.stack([pressure, flow, arc - begins], axis=1)
                label = state.replace("_", " ")
                traces.append(
                    {
                        **when(branch=n),
                        "type": "scatter",
                        "mode": "lines",
                        "name": quoted(f"{letter}: {label}" if letter else label),
                        "x": single(arc),
                        "y": single(tree.ratio[state][way].ravel()),
                        "customdata": single(data),
                        "line": {
                            "color": PALETTE[i % len(PALETTE)],
                            "width": 2.5,
                            "dash": ("solid", "dash", "dot", "dashdot")[run % 4],
                        },
                        "hovertemplate": (
                            "%{customdata[2]:.1f} mm of the branch: %{y:.3f}<br>"
                            "%{customdata[0]:.1f} mmHg, %{customdata[1]:.3g} ml/min"
                        ),
                    }
                )
    first = names.index(chosen) if chosen in names else 0
    low = min(float(x[~tree.grown].min()) for _, tree in trees for x in tree.ratio.values())
    layout = {
        "xaxis": axis("distance from the ostium (mm)", rangemode="tozero"),
        "yaxis": axis("static over aortic pressure", range=[max(0.0, min(low - 0.05, 0.6)), 1.03]),
        "shapes": [
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": FFR_ISCHAEMIC,
                "y1": FFR_ISCHAEMIC,
                "line": {"color": INK, "width": 1, "dash": "dot"},
            }
        ],
    }
    controls = [Control("branch", "To the end of", tuple(names), first)]
    note = "Lesions are shaded; the dotted line is 0.80. At hyperemia the ratio is FFR."
    return figure_of("pull-back", "Pull-back", traces, layout, controls=controls, note=note)


def waveforms(run: RunData, said: Pulsatile) -> Figure:
    """Static pressure and flow over a beat at the places of a branch."""
    branches = list(dict.fromkeys(w.branch for w in run.waves))
    states = list(dict.fromkeys(w.state for w in run.waves))
    traces = []
    for n, branch in enumerate(branches):
        for k, state in enumerate(states):
            here = [w for w in run.waves if (w.branch, w.state) == (branch, state)]
            for i, wave in enumerate(here):
                for row, values, unit in ((0, wave.pressure, "mmHg"), (1, wave.flow, "ml/min")):
                    traces.append(
                        {
                            **when(branch=n, state=k),
                            "type": "scatter",
                            "mode": "lines",
                            "name": quoted(wave.place),
                            "legendgroup": str(i),
                            "showlegend": row == 0,
                            "x": single(wave.time),
                            "y": single(values),
                            "yaxis": "y" if row == 0 else "y2",
                            "line": {"color": PALETTE[i % len(PALETTE)], "width": 2},
                            "hovertemplate": f"%{{y:.1f}} {unit} at %{{x:.3f}} s",
                        }
                    )
    layout = {
        "xaxis": axis("time (s)", anchor="y2", range=[0, said.period_s]),
        "yaxis": axis("static pressure (mmHg)", domain=[0.54, 1.0]),
        "yaxis2": axis("flow (ml/min)", domain=[0.0, 0.46]),
        "shapes": [
            {
                "type": "rect",
                "yref": "paper",
                "x0": said.systole_s[0],
                "x1": said.systole_s[1],
                "y0": 0,
                "y1": 1,
                "fillcolor": "#eeeeee",
                "line": {"width": 0},
                "layer": "below",
            }
        ],
        "legend": {"orientation": "h", "y": -0.14},
    }
    controls = [
        Control("branch", "Branch", tuple(branches)),
        Control("state", "State", tuple(s.replace("_", " ") for s in states)),
    ]
    note = "Systole is shaded."
    heading = "One heart beat"
    return figure_of("waves", heading, traces, layout, controls=controls, note=note, height=560)


def intervals(said: FitSummary) -> list[Figure]:
    """Each parameter before and after the measurements."""
    figures = []
    for n, name in enumerate(dict.fromkeys(row.parameter for row in said.parameters)):
        rows = [row for row in said.parameters if row.parameter == name]
        label = [quoted(short_entry(row.entry)) for row in rows]
        traces = [
            _errors(label, [row.prior for row in rows], "before", "#999999"),
            _errors(label, [row.posterior for row in rows], "after", PALETTE[0]),
        ]
        layout = {
            "xaxis": axis(PARAMETER_WORDS.get(name, name)),
            "yaxis": {**axis(""), "autorange": "reversed", "automargin": True, "type": "category"},
            "scattermode": "group",
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom"},
            "margin": {"l": 20, "r": 14, "t": 40, "b": 48},
        }
        height = 150 + 34 * len(rows)
        heading = PARAMETER_WORDS.get(name, name)
        figures.append(
            figure_of(f"interval-{n}", heading, traces, layout, wide=False, height=height)
        )
    return figures


def _errors(label: list[str], estimates: list[Estimate], name: str, colour: str) -> dict[str, Any]:
    """Medians with their intervals."""
    middle = np.array([x.median for x in estimates])
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "y": label,
        "x": single(middle),
        "marker": {"color": colour, "size": 9},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": single([x.high for x in estimates] - middle),
            "arrayminus": single(middle - [x.low for x in estimates]),
            "color": colour,
            "thickness": 2,
        },
        "customdata": [[x.low, x.high] for x in estimates],
        "hovertemplate": "%{x:.3g} (%{customdata[0]:.3g} to %{customdata[1]:.3g})",
    }


def convergence(said: FitSummary) -> Figure:
    """The misfit of the best start over the solves it took."""
    solves, misfit = np.array(said.cost.history, np.float64).T
    trace = {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "best start",
        "x": single(solves),
        "y": single(misfit),
        "line": {"color": PALETTE[0]},
        "hovertemplate": "%{y:.4g} after %{x} solves<extra></extra>",
    }
    layout = {
        "xaxis": axis("solves"),
        "yaxis": axis("misfit", type="log" if misfit.min() > 0.0 else "linear"),
        "showlegend": False,
    }
    return figure_of("convergence", "Convergence of the fit", [trace], layout, height=320)
