"""What the figures of a report share: a figure as data for plotly, and its controls."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..plot import INK

# The colour maps of the other figures, by their names in plotly.
FLOW_MAP, RATIO_MAP, RESERVE_MAP, APART_MAP = "Viridis", "Inferno", "Cividis", "RdBu"
GREY = "#d9d9d9"


@dataclass(frozen=True)
class Control:
    """A choice among the traces of a figure: those of other options of the same name are hidden."""

    name: str
    label: str
    options: tuple[str, ...]
    chosen: int = 0

    @property
    def is_list(self) -> bool:
        """Whether it is shown as a list, as buttons would fill the page."""
        return len(self.options) > 5


@dataclass(frozen=True)
class Figure:
    """A figure of the report: JSON for plotly, and what stands around it.

    `wide` figures take a line of their own; `height` in pixels.
    """

    key: str
    heading: str
    content: str
    controls: tuple[Control, ...] = ()
    note: str = ""
    wide: bool = True
    height: int = 420


def quoted(name: object) -> str:
    """A name for the text of a figure, where plotly would take tags for its own."""
    return html.escape(str(name), quote=False)


def when(**chosen: int | Sequence[int]) -> dict[str, Any]:
    """What a trace is shown under: the number of an option, or of several, for each control."""
    given = {k: [v] if isinstance(v, int) else list(v) for k, v in chosen.items()}
    return {"meta": {"when": given}}


def is_shown(trace: dict[str, Any], controls: Sequence[Control]) -> bool:
    """Whether a trace is shown before anybody has chosen."""
    wanted = trace.get("meta", {}).get("when", {})
    return all(c.chosen in wanted[c.name] for c in controls if c.name in wanted)


def figure_of(
    key: str,
    heading: str,
    traces: Sequence[dict[str, Any]],
    layout: dict[str, Any],
    *,
    controls: Sequence[Control] = (),
    note: str = "",
    wide: bool = True,
    height: int = 420,
) -> Figure:
    """A figure from traces and a layout as plotly knows them; it checks the names in both."""
    import plotly.graph_objects as go

    shared = {
        "font": {"family": "system-ui, sans-serif", "size": 13, "color": INK},
        "margin": {"l": 58, "r": 14, "t": 14, "b": 48},
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "legend": {"orientation": "h", "y": -0.22, "x": 0.0},
        "height": height,
        # the template of plotly would be written into every figure
        "template": "none",
        "hoverlabel": {"bgcolor": "white"},
    }
    shown = [{**t, "visible": is_shown(t, controls)} for t in traces]
    content = go.Figure(data=shown, layout={**shared, **layout}, skip_invalid=False)
    return Figure(key, heading, str(content.to_json()), tuple(controls), note, wide, height)


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with a title and light lines."""
    return {
        "title": {"text": title},
        "gridcolor": "#eeeeee",
        "zeroline": False,
        "linecolor": "#999999",
        "ticks": "outside",
        **more,
    }


def single(values: Any) -> np.ndarray:
    """Values as a figure needs them: no eye sees the digits of a double."""
    return np.asarray(values, np.float32)
