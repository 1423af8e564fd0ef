"""Intervals before and after measurements, side by side."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ._style import add_note, INK, MUTED, new_figure

_BEFORE, _AFTER = "#c8c8c8", "#31688e"


class IntervalRow(NamedTuple):
    """A quantity: `label`, and low, median and high `before` and `after`."""

    label: str
    before: tuple[float, float, float]
    after: tuple[float, float, float]


def interval_figure(
    groups: Sequence[tuple[str, Sequence[IntervalRow]]], *, title: str, note: str = ""
) -> Any:
    """Intervals of quantities: grey before the measurements, blue after them.

    **Arguments:** `groups`, each the label of its axis with the unit, and its rows; `note`, a line
    at the foot.

    **Returns:** a matplotlib figure.

    **Example:**

    ```python
    import jaxperf as jp
    row = jp.plot.IntervalRow("LAD", before=(0.4, 0.8, 1.0), after=(0.6, 0.7, 0.8))
    figure = jp.plot.interval_figure([("FFR", [row])], title="Before and after a wire")
    ```
    """
    counts = [max(len(rows), 1) for _, rows in groups]
    figure = new_figure(7.5, 1.2 + 0.26 * sum(counts) + 0.5 * len(groups))
    figure.suptitle(title, fontsize=12, color=INK)
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=counts)[:, 0]
    for axes, (label, rows) in zip(panels, groups, strict=True):
        for place, row in enumerate(rows):
            for (low, middle, high), colour, width in (
                (row.before, _BEFORE, 7.0),
                (row.after, _AFTER, 3.0),
            ):
                axes.plot(
                    [low, high], [place, place], color=colour, lw=width, solid_capstyle="butt"
                )
                axes.plot([middle], [place], "|", color=INK if width < 5 else MUTED, ms=8)
        axes.set_yticks(range(len(rows)), [row.label for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(label, fontsize=9)
        axes.grid(axis="x", color="#e6e6e6")
        axes.spines[["top", "right"]].set_visible(False)
    add_note(figure, note)
    return figure
