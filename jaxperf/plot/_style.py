"""What all figures share."""

import os
from collections.abc import Sequence
from typing import Any

from ..network import vessel_of_name

# Perceptually uniform, legible in grey and with colour-vision deficiency.
FLOW_MAP = "viridis"
# Distinct with colour-vision deficiency (Okabe and Ito 2008).
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#f0e442")
_TERRITORIES = ("LAD", "LCx", "RCA")
INK = "#222222"
MUTED = "#777777"
# zlib's own choice, 6, takes twice as long for a tenth less
_PNG = {"compress_level": 3}


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no display and leaves the global state of pyplot alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def territory_colours(names: Sequence[str]) -> dict[str, str]:
    """One colour for each vessel territory, the same in every picture and every case.

    LAD, LCx and RCA have theirs, drawn ones too (`RCA (synthetic)`); others take the next ones.

    **Example:**

    ```python
    import jaxperf as jp
    colours = jp.plot.territory_colours(["RCA (synthetic)", "LAD"])
    ```
    """
    known = {name: _plain(name) for name in names}
    order = dict.fromkeys((*_TERRITORIES, *known.values()))
    number = {name: i for i, name in enumerate(order)}
    return {name: PALETTE[number[plain] % len(PALETTE)] for name, plain in known.items()}


def _plain(name: str) -> str:
    vessel = vessel_of_name(name)
    return vessel if vessel in _TERRITORIES else name.removesuffix(" (synthetic)")


def add_note(figure: Any, text: str) -> None:
    """A line at the foot of a figure, such as where the anatomy comes from."""
    if text:
        figure.supxlabel(text, fontsize=8, color=MUTED)


def save_figure(path: str | os.PathLike, figure: Any, dpi: int = 140) -> None:
    """Write a figure as PNG.

    **Example:**

    ```python
    import jaxperf as jp
    row = jp.plot.IntervalRow("LAD", before=(0.4, 0.8, 1.0), after=(0.6, 0.7, 0.8))
    jp.plot.save_figure("ffr.png", jp.plot.interval_figure([("FFR", [row])], title="FFR"))
    ```
    """
    figure.set_dpi(dpi)
    # `savefig` would draw everything once more, unseen, to lay the figure out
    figure.canvas.print_png(path, metadata={"Software": "jaxperf"}, pil_kwargs=_PNG)
