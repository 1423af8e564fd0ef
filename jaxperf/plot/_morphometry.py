"""Forests and Kassab's table side by side, order by order."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from ._style import add_note, INK, MUTED, new_figure

_Rows = Sequence[Mapping[str, Any]]
# Kassab's trees are grey and told apart by their markers; a forest has a colour.
_COLOURS = ("#b2182b", "#2166ac", "#1b7837", "#762a83", "#b35806")
_PUBLISHED = (("^", "#555555"), ("s", "#8a8a8a"), ("D", "#b4b4b4"))
_PANELS = (
    ("Element diameter", "diameter (µm)", "element_diameter_mean_um", "element_diameter_sd_um"),
    ("Element length", "length (mm)", "element_length_mean_mm", "element_length_sd_mm"),
    ("Elements", "count", "element_count", None),
    ("Segments per element", "segments / element", "segments_per_element", None),
)
_LINEAR = "segments_per_element"


def morphometry_figure(
    forests: Mapping[str, _Rows],
    published: Mapping[str, _Rows],
    path_length_mm: Mapping[str, Float[np.ndarray, "_"]],
    *,
    title: str,
    note: str = "",
) -> Any:
    """Diameter, length, count and segments of the elements of every order; asymmetry; paths.

    Bars are standard deviations. A forest's filled markers are the orders that bear comparison;
    those near its terminals, which truncate them, and single stems are open.

    **Arguments:**

    - `forests`, `published`: by their labels, one row for each order, in ascending order, with the
      columns `order`, `element_diameter_mean_um`, `element_diameter_sd_um`,
      `element_length_mean_mm`, `element_length_sd_mm`, `element_count` and
      `segments_per_element`; None where there is no number. Forests besides:
      `clear_of_truncation`, `daughter_ratio_mean` (narrowest over widest daughter) and
      `wide_ratio_mean` (widest daughter over parent).
    - `path_length_mm`: by the forests' labels, from the root to each terminal.

    **Returns:** a matplotlib figure.
    """
    figure = new_figure(13.0, 8.2)
    figure.suptitle(title, fontsize=12, color=INK)
    grid = figure.subplots(2, 3).ravel()
    orders = [row["order"] for rows in (*forests.values(), *published.values()) for row in rows]
    for axes, (heading, label, mean, sd) in zip(grid, _PANELS, strict=False):
        _dress(axes, heading, "order", label)
        _order_axis(axes, orders)
        if mean != _LINEAR:
            axes.set_yscale("log")
        for i, (name, rows) in enumerate(published.items()):
            _draw_published(axes, i, name, rows, mean, sd)
        for i, (name, rows) in enumerate(forests.items()):
            shift = 0.1 * (i - 0.5 * (len(forests) - 1))
            _draw_forest(axes, i, name, rows, mean, sd, shift)
    _asymmetry(grid[4], forests)
    _paths(grid[5], path_length_mm)
    grid[0].plot([], [], "o", color=MUTED, mfc="white", ms=5, label="open: not compared")
    grid[0].legend(fontsize=8, frameon=False, loc="lower right")
    add_note(figure, note)
    return figure


def _column(rows: _Rows, name: str) -> Float[np.ndarray, " o"]:
    return np.array([np.nan if row[name] is None else row[name] for row in rows], np.float64)


def _dress(axes: Any, heading: str, xlabel: str, ylabel: str) -> None:
    axes.set_title(heading, fontsize=10, color=INK, loc="left")
    axes.set_xlabel(xlabel, fontsize=9)
    axes.set_ylabel(ylabel, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _order_axis(axes: Any, orders: Sequence[int]) -> None:
    axes.set_xticks(range(min(orders), max(orders) + 1))
    axes.set_xlim(min(orders) - 0.5, max(orders) + 0.5)


def _spread(rows: _Rows, sd: str | None) -> Float[np.ndarray, " o"] | None:
    return None if sd is None else np.nan_to_num(_column(rows, sd))


def _draw_published(axes: Any, i: int, name: str, rows: _Rows, mean: str, sd: str | None) -> None:
    marker, colour = _PUBLISHED[i % len(_PUBLISHED)]
    axes.errorbar(
        _column(rows, "order"),
        _column(rows, mean),
        yerr=_spread(rows, sd),
        color=colour,
        marker=marker,
        markersize=4,
        lw=0.8,
        elinewidth=0.8,
        capsize=2,
        label=name,
    )


def _draw_forest(
    axes: Any, i: int, name: str, rows: _Rows, mean: str, sd: str | None, shift: float
) -> None:
    colour = _COLOURS[i % len(_COLOURS)]
    order, value = _column(rows, "order") + shift, _column(rows, mean)
    clear = _column(rows, "clear_of_truncation") > 0.0
    axes.errorbar(order, value, yerr=_spread(rows, sd), color=colour, lw=1.3, elinewidth=0.8)
    axes.plot(order[~clear], value[~clear], "o", color=colour, mfc="white", ms=5)
    axes.plot(order[clear], value[clear], "o", color=colour, ms=5, label=name)


def _asymmetry(axes: Any, forests: Mapping[str, _Rows]) -> None:
    """Kassab's table of 1993 has no such column: the forests stand alone here."""
    _dress(axes, "Asymmetry at the junctions", "order of the parent", "diameter ratio")
    _order_axis(axes, [row["order"] for rows in forests.values() for row in rows])
    for i, rows in enumerate(forests.values()):
        colour, order = _COLOURS[i % len(_COLOURS)], _column(rows, "order")
        axes.plot(order, _column(rows, "wide_ratio_mean"), "o--", color=colour, ms=4, lw=1.2)
        axes.plot(order, _column(rows, "daughter_ratio_mean"), "o-", color=colour, ms=4, lw=1.2)
    axes.plot([], [], "--", color=MUTED, label="widest daughter / parent")
    axes.plot([], [], "-", color=MUTED, label="narrowest / widest daughter")
    axes.set_ylim(0.0, max(1.05, axes.get_ylim()[1]))
    axes.legend(fontsize=8, frameon=False, loc="lower left")


def _paths(axes: Any, path_length_mm: Mapping[str, Float[np.ndarray, "_"]]) -> None:
    _dress(axes, "Path from root to terminal", "path length (mm)", "fraction of the terminals")
    for i, length in enumerate(path_length_mm.values()):
        x = np.sort(length)
        axes.plot(x, np.arange(1, len(x) + 1) / len(x), color=_COLOURS[i % len(_COLOURS)], lw=1.4)
    axes.set_ylim(0.0, 1.02)
    axes.set_xlim(left=0.0)
