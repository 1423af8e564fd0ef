"""Pressure along the branches, as a wire drawn back shows it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from .._defaults import FFR_ISCHAEMIC
from ._style import add_note, INK, MUTED, new_figure

_COLUMNS = 3
_COLOUR = {"rest": "#2166ac", "hyperemia": "#b2182b"}
# Further states; told apart from both by those who see few colours.
_FURTHER = ("#1b7837", "#e08214", "#762a83")


@dataclass(frozen=True)
class Curve:
    """One branch from its ostium to its tip.

    - `arc_mm`: (p,), arc length from the root of the tree.
    - `ratio`: named curves of static over aortic pressure, (p,) each; `hyperemia` is the FFR.
    - `lesions_mm`: intervals of declared lesions with their diameter reduction.
    - `begins_mm`: where the named branch begins; before it lies the vessel it leaves.
    - `colour`: of its name, such as its territory's.
    """

    name: str
    arc_mm: Float[np.ndarray, " p"]
    ratio: dict[str, Float[np.ndarray, " p"]]
    lesions_mm: tuple[tuple[float, float, float], ...] = ()
    begins_mm: float = 0.0
    colour: str = INK


def pullback_figure(curves: Sequence[Curve], *, title: str, note: str = "") -> Any:
    """One panel for each branch: pressure over aortic pressure against the arc length.

    The dashed line is at 0.80, lesions are shaded with their diameter reduction.

    **Returns:** a matplotlib figure.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    arc = np.linspace(0.0, 90.0, 50)  # mm
    ratio = np.where(arc < 30.0, 1.0, 0.78)
    curve = jp.plot.Curve("LAD", arc, {"hyperemia": ratio}, lesions_mm=((25.0, 35.0, 0.6),))
    figure = jp.plot.pullback_figure([curve], title="A lesion of 60 %")
    ```
    """
    rows = -(-len(curves) // _COLUMNS)
    figure = new_figure(11.0, 1.1 + 2.5 * rows)
    figure.suptitle(title, fontsize=12, color=INK)
    grid = np.atleast_1d(figure.subplots(rows, _COLUMNS, sharey=True, squeeze=False)).ravel()
    lowest = min(float(np.nanmin(r)) for c in curves for r in c.ratio.values())
    bottom = max(0.0, np.floor((min(lowest, FFR_ISCHAEMIC) - 0.05) * 10.0) / 10.0)
    for i, axes in enumerate(grid):
        if i >= len(curves):
            axes.axis("off")
            continue
        _panel(axes, curves[i], bottom)
        if i + _COLUMNS >= len(curves):
            axes.set_xlabel("distance from the ostium (mm)", fontsize=9)
        if i % _COLUMNS == 0:
            axes.set_ylabel("$P_d/P_a$", fontsize=9)
    # above the panels, where no curve crosses it
    lines, names = grid[0].get_legend_handles_labels()
    figure.legend(
        lines, names, loc="outside upper right", ncols=len(names), fontsize=8, frameon=False
    )
    add_note(figure, note)
    return figure


def _panel(axes: Any, curve: Curve, bottom: float) -> None:
    for start, end, reduction in curve.lesions_mm:
        axes.axvspan(start, end, color="#e0e0e0", lw=0)
        axes.text(
            0.5 * (start + end),
            bottom + 0.02,
            f"{100 * reduction:.0f} %",
            ha="center",
            fontsize=7,
            color=INK,
        )
    axes.axhline(FFR_ISCHAEMIC, color=MUTED, lw=0.9, ls="--")
    if curve.begins_mm > 0.0:
        axes.axvline(curve.begins_mm, color=MUTED, lw=0.7, ls=":")
    further = [name for name in curve.ratio if name not in _COLOUR]
    for name, ratio in curve.ratio.items():
        colour = _COLOUR.get(name) or _FURTHER[further.index(name) % len(_FURTHER)]
        axes.plot(curve.arc_mm, ratio, color=colour, lw=1.7, label=name)
    at_tip = float(curve.ratio["hyperemia"][-1])
    axes.annotate(
        f"{at_tip:.2f}",
        (float(curve.arc_mm[-1]), at_tip),
        xytext=(3, 0),
        textcoords="offset points",
        fontsize=8,
        va="center",
        color=_COLOUR["hyperemia"],
        annotation_clip=False,
    )
    axes.set_title(curve.name, fontsize=10, color=curve.colour, loc="left")
    axes.set(ylim=(bottom, 1.02), xlim=(0.0, float(curve.arc_mm[-1])))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
