"""Pictures of a forest and its morphometry beside the published one."""

from pathlib import Path
from typing import Any

import numpy as np

from ..growth import kassab_table, KASSAB_TREES, order_rows
from ..network import vessel_territories
from ..plot import (
    morphometry_figure,
    save_figure,
    scene_figure,
    smooth_surface,
    territory_colours,
    tubes,
)
from ..study import Grown, Heart
from ..units import M_PER_MM
from ._forest_facts import morphometries, OUR_VESSELS
from ._views import views

# Thinner vessels are drawn this wide (mm); below the second radius (mm) a plain tube will do.
_MIN_SHOWN_RADIUS_MM = 0.12
_PLAIN_BELOW_MM = 0.4
_FIXED_DARKER = 0.6
_GREY = 0.75
_HAZE, _WALL_OPACITY, _PIXELS = 0.7, 0.12, 640


def write_forest_figures(
    folder: Path, grown: Grown, heart: Heart, *, title: str, note: str = ""
) -> None:
    """`forest.png`, and `morphometry.png` beside Kassab's table."""
    scene = forest_scene(grown, heart, title=f"{title}: forest", note=note)
    save_figure(folder / "forest.png", scene)
    found = morphometries(grown)
    tables = {tree: kassab_table(tree) for tree in KASSAB_TREES}
    figure = morphometry_figure(
        {name: order_rows(table) for name, table in found.items()},
        {f"Kassab 1993, pig, {tree}": order_rows(table) for tree, table in tables.items()},
        {OUR_VESSELS: found[OUR_VESSELS].path_length / M_PER_MM},
        title=f"{title}: morphometry",
        note=note,
    )
    save_figure(folder / "morphometry.png", figure)


def forest_scene(grown: Grown, heart: Heart, *, title: str, note: str = "") -> Any:
    """All vessels coloured by vessel territory, segmented and drawn ones darker, in a pale wall."""
    from matplotlib.colors import to_rgb

    network = grown.network
    node = np.asarray(network.segment_node)
    names, territory = vessel_territories(network, node[:, 1].astype(np.int64))
    legend = territory_colours(grown.forest.territory_name)
    # what belongs to no territory, such as a left main, is grey
    shown = [to_rgb(legend.get(name, str(_GREY))) for name in names]
    colour = np.array(shown)[territory]
    colour[: grown.tree.n_segments] *= _FIXED_DARKER
    end = np.asarray(network.node_position)[node] / M_PER_MM
    radius = np.maximum(np.asarray(network.radius) / M_PER_MM, _MIN_SHOWN_RADIUS_MM)
    both = np.repeat(colour[:, None], 2, axis=1)
    thin = radius.max(axis=1) < _PLAIN_BELOW_MM
    faces = heart.mesh.boundary_faces()
    grey = np.full((len(faces.area), 3), _GREY)
    return scene_figure(
        [
            tubes(end[~thin], radius[~thin], both[~thin]),
            tubes(end[thin], radius[thin], both[thin], sides=5, joints=False),
            smooth_surface(faces.corner / M_PER_MM, faces.normal, grey, opacity=_WALL_OPACITY),
        ],
        [],
        views(heart.frame),
        title=title,
        note=note,
        legend=legend,
        pixels=_PIXELS,
        haze=_HAZE,
    )
