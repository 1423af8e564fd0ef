"""What all figures share."""

import os
from typing import Any

# Perceptually uniform, legible in grey and with colour-vision deficiency.
FLOW_MAP = "viridis"
INK = "#222222"
MUTED = "#777777"
ISCHAEMIC_FFR = 0.80
# zlib's own choice, 6, takes twice as long for a tenth less
_PNG = {"compress_level": 3}


def new_figure(width: float, height: float) -> Any:
    """A figure that needs no display and leaves the global state of pyplot alone."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


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
