"""Pressure and flow over one heart beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from ._style import add_note, INK, MUTED, new_figure

# Dark to light in one order, apart for every kind of colour vision (Okabe and Ito).
_COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_SYSTOLE = "#e8e8e8"


@dataclass(frozen=True)
class WaveformPanel:
    """Curves over one cycle.

    - `curves`: named curves, (k,) each, at `time` (k,) s; `pale`, names of those in the background.
    - `systole`: (start, end) in s, shaded; its end is smaller than its start where it goes over
      the end of the cycle.
    """

    title: str
    label: str
    time: Float[np.ndarray, " k"]
    curves: Mapping[str, Float[np.ndarray, " k"]]
    pale: frozenset[str] = field(default_factory=frozenset)
    systole: tuple[float, float] | None = None


def waveform_figure(
    panels: Sequence[WaveformPanel],
    *,
    columns: int,
    title: str,
    note: str = "",
    colours: Mapping[str, str] | None = None,
) -> Any:
    """Panels row by row; the panels of one row share their scale, as they share a quantity.

    A name has one colour throughout. One legend serves a row of the same names; one curve alone is
    named in its title.

    **Arguments:** `colours`, of some names, such as those of territories; others take the rest.

    **Returns:** a matplotlib figure.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    time = np.linspace(0.0, 0.8, 50)
    flow = {"LAD": 60.0 + 20.0 * np.sin(2 * np.pi * time / 0.8)}
    panel = jp.plot.WaveformPanel("Flow", "ml/min", time, flow)
    figure = jp.plot.waveform_figure([panel], columns=1, title="One beat")
    ```
    """
    names = dict.fromkeys(n for panel in panels for n in panel.curves if n not in panel.pale)
    colour = {k: v for k, v in (colours or {}).items() if k in names}
    left = [x for x in _COLOURS if x not in colour.values()] or list(_COLOURS)
    others = [name for name in names if name not in colour]
    colour |= {name: left[i % len(left)] for i, name in enumerate(others)}
    rows = -(-len(panels) // columns)
    figure = new_figure(1.2 + 4.9 * columns, 1.0 + 2.6 * rows)
    figure.suptitle(title, fontsize=12, color=INK)
    grid = figure.subplots(rows, columns, sharey="row", squeeze=False)
    for i, axes in enumerate(grid.ravel()):
        if i >= len(panels):
            axes.axis("off")
            continue
        _panel(axes, panels[i], colour)
        beside = panels[i + 1 : i + 2] if (i + 1) % columns else []
        told = [panel.curves.keys() for panel in beside] == [panels[i].curves.keys()]
        if len(panels[i].curves) > 1 and not told:
            axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        if i % columns == 0:
            axes.set_ylabel(panels[i].label, fontsize=9)
        if i + columns >= len(panels):
            axes.set_xlabel("time (s)", fontsize=9)
    figure.align_ylabels(grid[:, 0])
    add_note(figure, note)
    return figure


def _panel(axes: Any, panel: WaveformPanel, colour: Mapping[str, str]) -> None:
    end = float(panel.time[-1])
    for i, (start, stop) in enumerate(_shaded(panel.systole, end)):
        axes.axvspan(start, stop, color=_SYSTOLE, lw=0, label="systole" if i == 0 else None)
    for name, values in panel.curves.items():
        if name in panel.pale:
            axes.plot(panel.time, values, color=MUTED, lw=1.2, ls="--", label=name)
        else:
            axes.plot(panel.time, values, color=colour[name], lw=1.6, label=name)
    if min(float(np.min(v)) for v in panel.curves.values()) < 0.0:
        axes.axhline(0.0, color=MUTED, lw=0.7)
    alone = f", {next(iter(panel.curves))}" if len(panel.curves) == 1 else ""
    axes.set_title(f"{panel.title}{alone}", fontsize=10, color=INK, loc="left")
    axes.set_xlim(0.0, end)
    axes.tick_params(labelsize=8, labelleft=True)
    axes.spines[["top", "right"]].set_visible(False)


def _shaded(systole: tuple[float, float] | None, period: float) -> list[tuple[float, float]]:
    if systole is None:
        return []
    start, end = systole
    return [(start, end)] if start < end else [(0.0, end), (start, period)]
