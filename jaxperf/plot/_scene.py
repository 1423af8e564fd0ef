"""The tree and the wall in three dimensions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ._raster import render, Surface
from ._style import add_note, INK, new_figure

_PIXELS = 560


@dataclass(frozen=True)
class SceneLayer:
    """The colour scale of one part of a scene."""

    label: str
    cmap: str
    vmin: float
    vmax: float

    def colours(self, values: np.ndarray) -> np.ndarray:
        """RGB of values."""
        from matplotlib import colormaps

        share = (values - self.vmin) / max(self.vmax - self.vmin, 1e-300)
        return colormaps[self.cmap](np.clip(share, 0.0, 1.0))[..., :3]


def scene_figure(
    surfaces: Sequence[Surface],
    layers: Sequence[SceneLayer],
    views: Sequence[tuple[str, Float[np.ndarray, "3 3"]]],
    *,
    title: str,
    note: str = "",
    unit: str = "mm",
    legend: Mapping[str, str] | None = None,
    pixels: int = _PIXELS,
    haze: float = 0.0,
) -> Any:
    """Surfaces seen from several sides, with a colour bar for each layer and a scale bar.

    **Arguments:** `views`, each a heading and the rows right, up and towards the viewer; points
    are in `unit`; `legend`, colours by what they stand for; `pixels`, width of each picture;
    `haze`, how white the farthest point is.

    **Returns:** a matplotlib figure.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    ffr = jp.plot.SceneLayer("FFR", "viridis", 0.6, 1.0)
    end = np.array([[[0.0, 0.0, 0.0], [60.0, 0.0, 0.0]]])  # mm
    vessel = jp.plot.tubes(end, np.array([[2.0, 1.2]]), ffr.colours(np.array([[1.0, 0.8]])))
    figure = jp.plot.scene_figure([vessel], [ffr], [("front", np.eye(3))], title="One vessel")
    ```
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Patch

    point = np.concatenate([s.point for s in surfaces])
    centre = 0.5 * (point.min(axis=0) + point.max(axis=0))
    reach = np.max([np.abs((point - centre) @ view[:2].T).max() for _, view in views])
    half = 1.04 * float(reach)
    figure = new_figure(4.3 * len(views) + 0.4, 5.6)
    figure.suptitle(title, fontsize=12, color=INK)
    grid = np.atleast_1d(figure.subplots(1, len(views)))
    for axes, (heading, view) in zip(grid, views, strict=True):
        picture = render(
            list(surfaces), view, centre=centre, half_width=half, size=(pixels, pixels), haze=haze
        )
        axes.imshow(picture, extent=(-half, half, -half, half), interpolation="bilinear")
        axes.set_title(heading, fontsize=10, color=INK)
        axes.axis("off")
    grid[0].plot([-0.95 * half, -0.95 * half + 20.0], [-0.95 * half] * 2, color=INK, lw=2)
    grid[0].text(-0.95 * half, -0.91 * half, f"20 {unit}", fontsize=8, color=INK)
    for layer in layers:
        bar = figure.colorbar(
            ScalarMappable(Normalize(layer.vmin, layer.vmax), layer.cmap),
            ax=list(grid),
            orientation="horizontal",
            shrink=0.5,
            aspect=40,
            pad=0.02,
        )
        bar.set_label(layer.label, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    if legend:
        keys = [Patch(color=colour, label=name) for name, colour in legend.items()]
        figure.legend(handles=keys, loc="outside right upper", fontsize=9, frameon=False)
    add_note(figure, note)
    return figure
