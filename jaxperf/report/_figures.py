"""The figures of a run folder."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ..casefile import Case
from ..geometry import build_voxel_mesh
from ..network import vessel_territories
from ..observe import pull_back
from ..plot import (
    bullseye_figure,
    colour_range,
    Curve,
    INK,
    MapPanel,
    pullback_figure,
    save_figure,
    scene_figure,
    SceneLayer,
    smooth_surface,
    Surface,
    territory_colours,
    tubes,
    waveform_figure,
    WaveformPanel,
)
from ..study import Beat, BEHIND, Pulsation
from ..units import M_PER_MM, PA_PER_MMHG
from ._forest_figures import write_forest_figures
from ._summary import labels, lowest_branch, Results
from ._views import views

_SHORTEST_CURVE_MM = 15.0
_MOST_CURVES = 12
# Ends of the scales of the polar maps: ml/min/g at rest and at hyperemia, and CFR, twice and a half
# and one and a half times what is normal.
_REST_TOP, _HYPEREMIA_TOP, RESERVE_TOP = 2.0, 5.0, 5.0
_MOST_WAVES = 4
_MIN_SHOWN_RADIUS_MM = 0.7
_PALE = 0.3


def write_figures(folder: Path, results: Results) -> None:
    """Polar maps, FFR pull-back of the branches, tree and wall, the forest where there is one."""
    folder.mkdir()
    case = results.prepared.case
    said = labels(results)
    note = f"Anatomy: {', '.join(said)}." if said else ""
    panels = [
        *(
            MapPanel(
                state.replace("_", " ").capitalize(),
                results.mbf_segment[state],
                "MBF (ml/min/g)",
                limits=flow_scale(case, state, results.mbf_segment[state]),
            )
            for state in results.states
        ),
        MapPanel(
            "Flow reserve",
            results.cfr_segment,
            "CFR",
            "cividis",
            scale_to(results.cfr_segment, RESERVE_TOP),
        ),
    ]
    figure = bullseye_figure(panels, title=f"{case.title}: AHA-17", note=note)
    save_figure(folder / "bullseye.png", figure)
    curves, n_branches = pullback_curves(results)
    shown = ""
    if len(curves) < n_branches:
        shown = (
            f"{len(curves)} of {n_branches} branches: those with lesions, that of the lowest FFR "
            "and the widest. branches.csv has all. "
        )
    figure = pullback_figure(curves, title=f"{case.title}: pressure pull-back", note=shown + note)
    save_figure(folder / "ffr_pullback.png", figure)
    save_figure(folder / "scene.png", _scene(results, note))
    if results.prepared.grown is not None:
        heart = results.prepared.heart
        write_forest_figures(folder, results.prepared.grown, heart, title=case.title, note=note)


def write_waveform_figure(folder: Path, results: Results, pulsation: Pulsation) -> None:
    """Pressure and flow over one beat, the states side by side."""
    said = labels(results)
    columns = [_beat_panels(results, s, b) for s, b in pulsation.beats.items()]
    figure = waveform_figure(
        [panel for row in zip(*columns, strict=True) for panel in row],
        columns=len(columns),
        title=f"{results.prepared.case.title}: one heart beat",
        note=f"Anatomy: {', '.join(said)}." if said else "",
        colours=_beat_colours(results, pulsation),
    )
    save_figure(folder / "waveforms.png", figure)


def _beat_colours(results: Results, pulsation: Pulsation) -> dict[str, str]:
    """The colours of the territories, also of the first lesion in each."""
    colours, tree = territory_colours(results.prepared.territory_name), results.prepared.tree
    taken: set[str] = set()
    # all states have the same places
    for place in next(iter(pulsation.beats.values())).series.places:
        end = np.array([tree.outlet(place.branch)])
        of = vessel_territories(tree, end)[0][0]
        if place.name.startswith(BEHIND) and of in colours and of not in taken:
            taken.add(of)
            colours[f"{place.branch}, {place.name}"] = colours[of]
    return colours


def _beat_panels(results: Results, state: str, beat: Beat) -> list[WaveformPanel]:
    """Pressure behind the lesions, or at the ends of the territories' vessels; and their flow."""
    series, heartbeat = beat.series, beat.heartbeat
    in_mmHg = lambda w: (
        np.interp(series.time, w.time, np.asarray(w.value)[0], period=float(w.period)) / PA_PER_MMHG
    )
    pressure = {"aorta": in_mmHg(heartbeat.aortic)}
    tree = results.prepared.tree
    names = [n for n in results.prepared.territory_name if n in tree.branch_name][:_MOST_WAVES]
    behind = [i for i, p in enumerate(series.places) if p.name.startswith(BEHIND)][:_MOST_WAVES]
    for i in behind:
        pressure[f"{series.places[i].branch}, {series.places[i].name}"] = series.pressure_static[
            :, i
        ]
    if not behind:
        pressure |= {n: series.pressure_static[:, series.index(n, "distal")] for n in names}
    pressure["left ventricle"] = in_mmHg(heartbeat.lv)
    flow = {n: series.flow[:, series.index(n, "ostium", "proximal")] for n in names}
    return [
        WaveformPanel(
            f"{state}: pressure" if behind else f"{state}: pressure at the distal ends",
            "pressure (mmHg)",
            series.time,
            pressure,
            frozenset({"left ventricle"}),
            heartbeat.systole,
        ),
        WaveformPanel(
            f"{state}: flow at the origin",
            "flow (ml/min)",
            series.time,
            flow,
            systole=heartbeat.systole,
        ),
    ]


def scale_to(values: Float[np.ndarray, "17"], top: float) -> tuple[float, float]:
    """A scale that all cases share; only values beyond it stretch it."""
    return 0.0, max(top, colour_range(values)[1])


def flow_scale(case: Case, state: str, mbf: Float[np.ndarray, "17"]) -> tuple[float, float]:
    """The scale of the polar map of a state, which is rest, like it, or like hyperemia."""
    said = case.states.get(state)
    is_rest = state == "rest" or (said is not None and said.like == "rest")
    return scale_to(mbf, _REST_TOP if is_rest else _HYPEREMIA_TOP)


def pullback_curves(results: Results) -> tuple[list[Curve], int]:
    """From root to tip of each larger branch, and how many branches there are.

    Of too many, those with lesions, that of the lowest FFR, and those that begin widest.
    """
    network = results.prepared.tree
    radius = np.asarray(network.radius)
    ratios = {k: np.asarray(results.observed.pressure_ratio[k]) for k in results.states}
    first = {x.branch for x in results.prepared.case.lesions} | {lowest_branch(results)}
    colours = territory_colours(results.prepared.territory_name)
    curves, width = [], []
    for name in network.branch_name:
        draw = pull_back(network, name, from_root=True)
        way, arc = np.asarray(draw.segment), np.asarray(draw.arc) / M_PER_MM
        begins = float(draw.begins) / M_PER_MM
        is_small = " twig " in name or arc[-1, 1] - begins < _SHORTEST_CURVE_MM
        if is_small and name not in first:
            continue
        ratio = {state: values[way].ravel() for state, values in ratios.items()}
        end = np.asarray(network.segment_node)[way[-1:], 1].astype(np.int64)
        colour = colours.get(vessel_territories(network, end)[0][0], INK)
        lesions = _lesions_on(results, way, arc)
        curves.append(Curve(name, arc.ravel(), ratio, lesions, begins, colour))
        at = float(radius[way[np.argmax(arc[:, 0] >= begins)], 0])
        width.append(np.inf if name in first else at)
    kept = np.sort(np.argsort(-np.array(width), kind="stable")[:_MOST_CURVES])
    return [curves[i] for i in kept], len(network.branch_name)


def _lesions_on(
    results: Results, way: Int[np.ndarray, " b"], arc_mm: Float[np.ndarray, "b 2"]
) -> tuple[tuple[float, float, float], ...]:
    lesion = results.prepared.network.lesion
    found = []
    for i, reduction in enumerate(np.asarray(lesion.diameter_reduction)):
        inside = np.isin(way, np.asarray(lesion.segment)[np.asarray(lesion.lesion) == i])
        if inside.any():
            on = arc_mm[inside]
            found.append((float(on.min()), float(on.max()), float(reduction)))
    return tuple(found)


def _right_heart(results: Results) -> list[Surface]:
    """What the labels hold beside the left ventricle, as a pale shape."""
    heart = results.prepared.heart
    if heart.voxels is None:
        return []
    label = heart.voxels.label
    beside = (label > 0) & (label != heart.voxels.wall_label) & (label != heart.cavity_label)
    if not beside.any():
        return []
    shape = build_voxel_mesh(
        beside.astype(np.int32), heart.voxels.affine, frame=heart.voxels.frame, largest_piece=True
    ).boundary_faces()
    grey = np.full((len(shape.area), 3), 0.75)
    return [smooth_surface(shape.corner / M_PER_MM, shape.normal, grey, opacity=_PALE)]


def _scene(results: Results, note: str) -> Any:
    prepared = results.prepared
    network, mesh = prepared.tree, prepared.heart.mesh
    mbf = results.mbf["hyperemia"]
    low, high = np.quantile(mbf, [0.01, 0.99])
    low = 0.0 if low > 0.0 and low < 0.5 * high else np.floor(2.0 * low) / 2.0
    wall = SceneLayer("MBF at hyperemia (ml/min/g)", "viridis", float(low), float(high))
    bottom = float(np.floor(10.0 * min(results.ffr_tree.min(), 0.79)) / 10.0)
    vessel = SceneLayer("vessels: $P_d/P_a$ at hyperemia (FFR)", "inferno", bottom, 1.0)
    faces = mesh.boundary_faces()
    surface = smooth_surface(faces.corner / M_PER_MM, faces.normal, wall.colours(mbf[faces.cell]))
    end = np.asarray(network.node_position)[np.asarray(network.segment_node)] / M_PER_MM
    radius = np.maximum(np.asarray(network.radius) / M_PER_MM, _MIN_SHOWN_RADIUS_MM)
    tree = tubes(end, radius, vessel.colours(results.ffr_tree))
    return scene_figure(
        [surface, tree, *_right_heart(results)],
        [wall, vessel],
        views(prepared.heart.frame),
        title=f"{prepared.case.title}: tree and wall",
        note=note,
    )
