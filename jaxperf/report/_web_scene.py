"""The interactive picture of wall and vessels."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..geometry import AHA17_NAME
from ..plot import territory_colours, tubes
from ._read_back import RunData, Tree, Wall
from ._web import Control, Figure, figure_of, FLOW_MAP, quoted, RATIO_MAP, single, when

MOST_GROWN = 6000
_SIDES = 6
_MIN_SHOWN_RADIUS_MM = 0.7
# of a grown vessel, in pixels: the eye tells few widths of such lines apart
_WIDTHS = ((0.15, 1.0), (0.3, 2.0), (np.inf, 3.5))
_LIGHT = {"ambient": 0.65, "diffuse": 0.6, "specular": 0.08, "roughness": 0.9}


def scene(run: RunData, states: list[str]) -> list[Figure]:
    """Wall by MBF or territory, vessels by FFR; none where the folder has neither."""
    if run.wall is None or run.tree is None:
        return []
    wall, tree = run.wall, run.tree
    views = [*(f"MBF, {s.replace('_', ' ')}" for s in states), "territories", "no wall"]
    controls = [Control("wall", "Wall", tuple(views), min(1, len(states) - 1))]
    traces = [_wall(wall, s, i) for i, s in enumerate(states)]
    traces += _territories(wall, len(states))
    traces.append(_tree(tree, states))
    notes = [_thinned_wall(wall)]
    if tree.grown.any():
        controls.append(Control("forest", "Grown vessels", ("off", "on")))
        grown, said = _forest(tree)
        traces += grown
        notes.append(said)
    hidden = {"visible": False}
    layout = {
        "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        "scene": {
            "aspectmode": "data",
            "xaxis": hidden,
            "yaxis": hidden,
            "zaxis": hidden,
            "camera": {"eye": {"x": 1.1, "y": -1.3, "z": 0.5}},
        },
        "legend": {"x": 0.0, "y": 1.0, "bgcolor": "rgba(255,255,255,0.7)"},
    }
    note = " ".join(text for text in notes if text)
    heading = "Wall and vessels"
    return [figure_of("scene", heading, traces, layout, controls=controls, note=note, height=560)]


def _mesh(point: np.ndarray, triangle: np.ndarray, **more: Any) -> dict[str, Any]:
    x, y, z = single(point).T
    kind = np.uint16 if len(point) < 2**16 else np.int32
    i, j, k = np.ascontiguousarray(triangle.astype(kind).T)
    return {"type": "mesh3d", "x": x, "y": y, "z": z, "i": i, "j": j, "k": k, **more}


def _bar(title: str, x: float) -> dict[str, Any]:
    return {
        "title": {"text": title, "side": "top", "font": {"size": 12}},
        "orientation": "h",
        "len": 0.44,
        "thickness": 10,
        "x": x,
        "y": -0.02,
        "xanchor": "left",
        "yanchor": "bottom",
        "tickfont": {"size": 11},
    }


def _wall(wall: Wall, state: str, option: int) -> dict[str, Any]:
    value = wall.mbf[state][wall.of_point].mean(axis=1)
    low, high = np.quantile(wall.mbf[state], [0.01, 0.99])
    # as the pictures of the run: from zero unless nothing is near it
    low = 0.0 if 0.0 < low < 0.5 * high else np.floor(2.0 * low) / 2.0
    segment = wall.segment[wall.of_point[:, 0]]
    name = wall.territory[wall.of_point[:, 0]]
    text = [
        f"{AHA17_NAME[s - 1]} ({s}), {quoted(wall.territory_name[t])}"
        for s, t in zip(segment.tolist(), name.tolist(), strict=True)
    ]
    shown = when(wall=option)
    return {
        **_mesh(wall.point, wall.triangle),
        **shown,
        "name": f"MBF, {state}",
        "intensity": single(value),
        "colorscale": FLOW_MAP,
        "cmin": float(low),
        "cmax": float(high),
        "colorbar": _bar("MBF (ml/min/g)", 0.02),
        "lighting": _LIGHT,
        "text": text,
        "hovertemplate": "%{text}<br>MBF %{intensity:.2f} ml/min/g<extra></extra>",
    }


def _territories(wall: Wall, option: int) -> list[dict[str, Any]]:
    colours = territory_colours(wall.territory_name)
    owner = wall.territory[wall.of_point[:, 0]][wall.triangle[:, 0]]
    return [
        {
            **_mesh(wall.point, wall.triangle[owner == t]),
            **when(wall=option),
            "name": quoted(name),
            "color": colours[name],
            "lighting": _LIGHT,
            "showlegend": True,
            "hovertemplate": f"territory of {quoted(name).replace('%', '&#37;')}<extra></extra>",
        }
        for t, name in enumerate(wall.territory_name)
        if (owner == t).any()
    ]


def _ratio_scale(tree: Tree) -> tuple[float, float]:
    shown = tree.ffr[~tree.grown]
    return float(np.floor(10.0 * min(shown.min(), 0.79)) / 10.0), 1.0


def _tree(tree: Tree, states: list[str]) -> dict[str, Any]:
    """Segmented and drawn vessels as tubes; distances from where a branch begins."""
    own = np.flatnonzero(~tree.grown)
    first = {b: float(tree.begins[tree.course(b)[0]]) for b in tree.branches}
    origin = np.array([first[b] for b in tree.name[own].tolist()])
    begin = tree.begins[own] - origin
    radius = np.maximum(tree.radius[own], _MIN_SHOWN_RADIUS_MM)
    # in place of a colour a tube carries the number of its end
    number = np.arange(2.0 * len(own)).reshape(-1, 2, 1)
    tube = tubes(tree.point[own], radius, np.repeat(number, 3, axis=2), sides=_SIDES, joints=False)
    end = np.rint(tube.colour[:, 0]).astype(np.int64)
    said = [np.stack([begin, begin + tree.length[own]], axis=1)]
    said += [tree.pressure[k][own] for k in states]
    said += [np.repeat(tree.flow[k][own, None], 2, axis=1) for k in states]
    low, high = _ratio_scale(tree)
    return {
        **_mesh(tube.point, tube.triangle),
        "name": "vessels",
        "intensity": single(tree.ffr[own].ravel()[end]),
        "colorscale": RATIO_MAP,
        "cmin": low,
        "cmax": high,
        "colorbar": _bar("FFR (vessels)", 0.52),
        "lighting": _LIGHT,
        "text": [quoted(tree.name[own[e // 2]]) for e in end.tolist()],
        "customdata": single(np.stack([x.ravel() for x in said], axis=1)[end]),
        "hovertemplate": _words(states),
    }


def _words(states: list[str]) -> str:
    """What a vessel says under the mouse."""
    lines = ["<b>%{text}</b> at %{customdata[0]:.1f} mm", "FFR %{intensity:.3f}"]
    for i, state in enumerate(states):
        mmHg, flow = f"%{{customdata[{1 + i}]:.1f}}", f"%{{customdata[{1 + len(states) + i}]:.3g}}"
        lines.append(f"{quoted(state.replace('_', ' '))}: {mmHg} mmHg, {flow} ml/min")
    return "<br>".join(lines) + "<extra></extra>"


def _forest(tree: Tree) -> tuple[list[dict[str, Any]], str]:
    """The widest grown vessels as lines of a few widths."""
    grown = np.flatnonzero(tree.grown)
    order = np.argsort(-tree.radius[grown].max(axis=1), kind="stable")
    kept = grown[order[:MOST_GROWN]]
    width = tree.radius[kept].mean(axis=1)
    low, high = _ratio_scale(tree)
    traces, at_least = [], 0.0
    for at_most, pixels in _WIDTHS:
        inside = kept[(width >= at_least) & (width < at_most)]
        at_least = at_most
        if not len(inside):
            continue
        traces.append(_lines(tree, inside, pixels, low, high))
    said = ""
    if len(kept) < len(grown):
        narrowest = 2e3 * float(tree.radius[kept].max(axis=1).min())
        said = (
            f"Of {len(grown)} grown vessels the {len(kept)} widest are drawn, down to a diameter "
            f"of {narrowest:.0f} µm."
        )
    return traces, said


def _lines(
    tree: Tree,
    inside: Int[np.ndarray, " k"],
    pixels: float,
    low: float,
    high: float,
) -> dict[str, Any]:
    """Vessels as one trace, with a gap behind each."""
    gap: Float[np.ndarray, "k 1 3"] = np.full((len(inside), 1, 3), np.nan)
    x, y, z = single(np.concatenate([tree.point[inside], gap], axis=1).reshape(-1, 3)).T
    colour = np.concatenate([tree.ffr[inside], tree.ffr[inside, 1:]], axis=1).ravel()
    state = "hyperemia"
    # three numbers for a vessel's end are shorter than its sentence
    data = np.stack(
        [
            np.repeat(tree.flow[state][inside], 3),
            np.repeat(tree.pressure[state][inside], [2, 1], axis=1).ravel(),
            np.repeat(2e3 * tree.radius[inside].mean(axis=1), 3),
        ],
        axis=1,
    )
    return {
        **when(forest=1),
        "type": "scatter3d",
        "mode": "lines",
        "name": "grown vessels",
        "showlegend": False,
        "x": x,
        "y": y,
        "z": z,
        "line": {
            "color": single(colour),
            "colorscale": RATIO_MAP,
            "cmin": low,
            "cmax": high,
            "width": pixels,
        },
        "customdata": single(data),
        "hovertemplate": (
            "grown vessel of %{customdata[2]:.0f} µm<br>hyperemia: %{customdata[0]:.3g} ml/min, "
            "%{customdata[1]:.1f} mmHg<br>FFR %{line.color:.3f}<extra></extra>"
        ),
    }


def _thinned_wall(wall: Wall) -> str:
    if wall.triangles_before <= len(wall.triangle):
        return ""
    return (
        f"The surface of the wall is drawn with {len(wall.triangle)} of its "
        f"{wall.triangles_before} triangles."
    )
