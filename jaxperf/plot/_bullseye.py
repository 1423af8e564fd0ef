"""The polar map of the 17 AHA segments."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from ._style import add_note, FLOW_MAP, INK, MUTED, new_figure

# Rings from outside in: first segment, number of segments, inner and outer radius, and the angle
# (degrees, anticlockwise from the right) at which the first one begins. Anterior is up, the septum
# on the left, as in Cerqueira et al. (2002).
_RINGS = ((1, 6, 0.75, 1.0, 60.0), (7, 6, 0.5, 0.75, 60.0), (13, 4, 0.25, 0.5, 45.0))
_WALLS = (("anterior", 90), ("septal", 180), ("inferior", 270), ("lateral", 0))


def segment_places() -> list[tuple[int, tuple[float, float], tuple[float, float]]]:
    """Where the 17 segments lie in a polar map: number, angles in degrees, radii up to 1.

    Angles run anticlockwise from the right. The last one, 17, is the circle in the middle.

    **Example:**

    ```python
    import jaxperf as jp
    segment, (begin, end), (inner, outer) = jp.plot.segment_places()[0]
    ```
    """
    rings = [
        (first + i, (start + i * 360.0 / n, start + (i + 1) * 360.0 / n), (inner, outer))
        for first, n, inner, outer, start in _RINGS
        for i in range(n)
    ]
    return [*rings, (17, (0.0, 360.0), (0.0, _RINGS[-1][2]))]


def bullseye(
    axes: Any,
    values: Float[np.ndarray, "17"],
    *,
    vmin: float,
    vmax: float,
    cmap: str = FLOW_MAP,
    number_format: str = ".2f",
) -> Any:
    """Draw the 17 segments on matplotlib axes; returns what a colour bar needs.

    Segments run anticlockwise from anterior (up): 1 anterior, 2 anteroseptal, 3 inferoseptal,
    4 inferior, 5 inferolateral, 6 anterolateral, and so on inwards; 17 is the centre. A segment
    without a value (NaN) is grey.

    **Source:** Cerqueira et al. (2002), Circulation 105:539.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.patches import Circle, Wedge

    scale = ScalarMappable(Normalize(vmin, vmax), colormaps[cmap])
    *rings, _ = segment_places()
    for segment, (low, high), (inner, outer) in rings:
        colour = _colour(scale, values[segment - 1])
        axes.add_patch(
            Wedge((0, 0), outer, low, high, width=outer - inner, fc=colour, ec="white", lw=1.6)
        )
        middle, at = np.radians(0.5 * (low + high)), 0.5 * (inner + outer)
        place = (float(at * np.cos(middle)), float(at * np.sin(middle)))
        _number(axes, place, segment, values, colour, number_format)
    colour = _colour(scale, values[16])
    axes.add_patch(Circle((0, 0), 0.25, fc=colour, ec="white", lw=1.6))
    _number(axes, (0.0, 0.0), 17, values, colour, number_format)
    for name, degree in _WALLS:
        angle = np.radians(degree)
        axes.text(
            1.09 * np.cos(angle),
            1.09 * np.sin(angle),
            name,
            ha="center",
            va="center",
            rotation=90 if degree in (0, 180) else 0,
            fontsize=9,
            color=MUTED,
        )
    axes.set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
    axes.axis("off")
    return scale


def _colour(scale: Any, value: float) -> tuple[float, ...]:
    return scale.to_rgba(value) if np.isfinite(value) else (0.85, 0.85, 0.85, 1.0)


def _number(
    axes: Any,
    place: tuple[float, float],
    segment: int,
    values: Float[np.ndarray, "17"],
    colour: tuple[float, ...],
    number_format: str,
) -> None:
    """The value, with the segment's number small above it, in ink that contrasts."""
    x, y = place
    luminance = 0.2126 * colour[0] + 0.7152 * colour[1] + 0.0722 * colour[2]
    ink = INK if luminance > 0.45 else "white"
    value = values[segment - 1]
    text = format(float(value), number_format) if np.isfinite(value) else "–"
    # inside the map, so the layout need not measure them
    style = {"ha": "center", "va": "center", "color": ink, "in_layout": False}
    axes.text(x, y - 0.025, text, fontsize=9.5, **style)
    axes.text(x, y + 0.068, str(segment), fontsize=6, **style)


class MapPanel(NamedTuple):
    """A polar map of a figure: `heading`, `values`, the colour bar's label with the `unit`, the
    colour map, and the `limits` of the colours, from zero to the largest where left out."""

    heading: str
    values: Float[np.ndarray, "17"]
    unit: str
    cmap: str = FLOW_MAP
    limits: tuple[float, float] | None = None


def bullseye_figure(panels: Sequence[MapPanel], *, title: str, note: str = "") -> Any:
    """Several polar maps side by side, each with its own colour bar.

    **Arguments:** `note`, a line at the foot.

    **Returns:** a matplotlib figure.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    panel = jp.plot.MapPanel("hyperemia", np.linspace(1.8, 3.4, 17), "MBF, ml/min/g")
    jp.plot.save_figure("bullseye.png", jp.plot.bullseye_figure([panel], title="One heart"))
    ```
    """
    figure = new_figure(4.1 * len(panels), 5.0)
    figure.suptitle(title, fontsize=12, color=INK)
    for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        low, high = panel.limits or colour_range(panel.values)
        scale = bullseye(axes, panel.values, vmin=low, vmax=high, cmap=panel.cmap)
        axes.set_title(panel.heading, fontsize=11, color=INK)
        bar = figure.colorbar(scale, ax=axes, orientation="horizontal", shrink=0.8, pad=0.02)
        bar.set_label(panel.unit, fontsize=9)
        bar.ax.tick_params(labelsize=8)
    add_note(figure, note)
    return figure


def colour_range(values: np.ndarray) -> tuple[float, float]:
    """From zero to a round number above the largest value.

    Zero is kept because flow is a ratio scale: a map that starts at the minimum makes 3 % look
    like ischaemia.
    """
    finite = values[np.isfinite(values)]
    top = float(finite.max()) if finite.size else 1.0
    step = 10.0 ** np.floor(np.log10(max(top, 1e-12))) / 2.0
    return 0.0, float(np.ceil(top / step) * step)
