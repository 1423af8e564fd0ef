"""Whether the cells of a run are short enough, in sentences, and a run that makes them so."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Float

from .._defaults import DEFAULT_CELL_TIME
from .._misc import InputError
from ..flow1d import Flow1DProblem, Flow1DSolution, PeriodicSolution, Resolution, resolution
from ..network import vessel_label
from ..units import PA_PER_MMHG
from ._places import Series

CellTime: TypeAlias = float | Literal["auto"]
Run = TypeVar("Run")
# Shares of the pulse pressure that enlarged inertia may take: unsaid, and at all.
INERTIA_SAID, INERTIA_MOST = 0.01, 0.25
# Variation of mean flow along a vessel that is said.
_VARIATION_SAID = 0.05
# Below this the pulse counts as this share of the mean pressure: a steady flow has none.
_LEAST_PULSE = 0.01
# How often `auto` halves the length of the cells.
_HALVINGS = 6
# Moments of a cycle: a run has the most of these that it has steps for, a table what it needs.
_SAMPLES = (400, 200, 100)
# Error of a curve drawn between its moments, of its range.
_DRAWN = 0.01


@dataclass(frozen=True)
class Cells:
    """What the cells of a run do to it.

    - `time`: s, of a wave through one; `of`, their [`Resolution`][].
    - `pressure`: Pa, the mean size of the pressure where it is largest among the places, as it is
      at the inlet where blood flows away from it; `pulse`: Pa, the largest pulse pressure.
    """

    time: float
    of: Resolution
    pressure: float
    pulse: float

    @property
    def ratio_error(self) -> Float[np.ndarray, " v"]:
        """What the ratio of mean pressure at a vessel's end to `pressure` is off by."""
        return self.of.pressure_error / self.pressure

    @property
    def inertia_share(self) -> Float[np.ndarray, " v"]:
        """Of the pulse pressure, what enlarged inertia takes on the way to a vessel's end."""
        return self.of.inertia_pressure / self.pulse


def cells_of(
    problem: Flow1DProblem, solution: Flow1DSolution | PeriodicSolution, series: Series
) -> Cells:
    """The cells of a run whose places are these."""
    pressure = series.pressure_static * PA_PER_MMHG
    level = float(np.abs(pressure).mean(axis=0).max())
    pulse = float(np.ptp(pressure, axis=0).max())
    return Cells(
        time=float(problem.grid.cell_time),
        of=resolution(problem, solution),
        pressure=level,
        pulse=max(pulse, _LEAST_PULSE * level, 1.0),
    )


def _enlarged(problem: Flow1DProblem, cells: Cells) -> tuple[str, str]:
    """What enlarged inertia does, and the cell time that cures it."""
    of = cells.of
    worst = int(np.argmax(cells.inertia_share))
    short = np.flatnonzero(of.inertia > 1.0)
    shortest = int(short[np.argmax(of.inertia[short])])
    name = vessel_label(problem.network, int(of.segment[shortest]))
    what = (
        f"inertia is enlarged in {len(short)} vessels that a wave crosses in less than the "
        f"cell time of {cells.time:.3g} s, most in {name}, {of.inertia[shortest]:.3g} times; "
        f"it takes up to {of.inertia_pressure[worst] / PA_PER_MMHG:.3g} mmHg of a pulse of "
        f"{cells.pulse / PA_PER_MMHG:.3g} mmHg"
    )
    return what, f"a cell time of {_rounded_down(float(of.travel_time[short].min()))} s"


def refuse_inertia(problem: Flow1DProblem, cells: Cells) -> None:
    """Refuse waves that are all there is of a run, and that enlarged inertia rules.

    **Errors:** [`InputError`][] where it takes too much of the pulse.
    """
    if cells.inertia_share.max() > INERTIA_MOST:
        what, cure = _enlarged(problem, cells)
        raise InputError(
            what,
            where="`cell_time`",
            expected=f"at most {INERTIA_MOST:.0%} of the pulse",
            fix=f"Give {cure}, or auto",
        )


def cell_sentences(problem: Flow1DProblem, cells: Cells, tolerance: float) -> list[str]:
    """What a reader must know of the cells."""
    of, said = cells.of, []
    share = float(cells.inertia_share.max())
    if share > INERTIA_SAID:
        what, cure = _enlarged(problem, cells)
        use = "" if share <= INERTIA_MOST else " Do not use these waves: means alone are sound."
        said.append(f"{what[0].upper()}{what[1:]}. {cure[0].upper()}{cure[1:]} would cure it.{use}")
    worst = int(np.argmax(np.abs(cells.ratio_error)))
    off, varies = abs(float(cells.ratio_error[worst])), int(np.argmax(of.flow_variation))
    if off > tolerance or of.flow_variation[varies] > _VARIATION_SAID:
        if off <= tolerance:
            worst = varies
        name = vessel_label(problem.network, int(of.segment[worst]))
        said.append(
            f"The cells are long for {name}: mean flow varies by {of.flow_variation[worst]:.2%} "
            "along it, and the pressure ratio at its end is off by about "
            f"{cells.ratio_error[worst]:.2g}. A shorter cell time than {cells.time:.3g} s, or "
            "auto, resolves it."
        )
    return said


def _rounded_down(value: float) -> str:
    """Two digits, not above the value."""
    text = f"{value:.1e}"
    return text if float(text) <= value else f"{value * 0.95:.1e}"


def run_resolved(
    run: Callable[[float], tuple[Run, Cells]], cell_time: CellTime, tolerance: float
) -> Run:
    """Run with cells of this length, or with shorter and shorter ones until they resolve the flow.

    Where `auto` ends without reaching that, the run of the shortest cells stays, and
    [`cell_sentences`][] say what it lacks.

    **Arguments:** `run`, of a cell time, s; `tolerance`, on the error of a pressure ratio.

    **Example:**

    ```python
    from jaxperf.study import run_resolved

    # A cell time that was asked for is run with once.
    used = run_resolved(lambda cell_time: (cell_time, None), 1e-3, tolerance=1e-3)
    ```
    """
    if cell_time != "auto":
        return run(cell_time)[0]
    time = DEFAULT_CELL_TIME
    found, cells = run(time)
    for _ in range(_HALVINGS):
        off = float(np.abs(cells.ratio_error).max())
        inertia = float(cells.inertia_share.max())
        if off <= tolerance and inertia <= INERTIA_SAID:
            break
        time *= 0.5
        found, cells = run(time)
    return found


def saved_moments(problem: Flow1DProblem) -> int:
    """Moments that a run saves in a cycle: 400 where it has steps for them, else 200 or 100."""
    return next((n for n in _SAMPLES if n <= problem.n_steps), _SAMPLES[-1])


def thinned(series: Series) -> Series:
    """The fewest moments between which lines draw every curve."""
    n = len(series.time) - 1
    for every in (n // k for k in reversed(_SAMPLES) if k < n):
        few = slice(None, None, every)
        if all(_draws(series.time, x, few) for x in (series.pressure_static, series.flow)):
            return dataclasses.replace(
                series,
                time=series.time[few],
                pressure_static=series.pressure_static[few],
                flow=series.flow[few],
            )
    return series


def _draws(time: Float[np.ndarray, " k"], values: Float[np.ndarray, "k m"], few: slice) -> bool:
    """Whether lines between some moments stay within a share of each curve's range."""
    drawn = np.stack([np.interp(time, time[few], column[few]) for column in values.T], axis=1)
    allowed = _DRAWN * np.ptp(values, axis=0) + 1e-3 * np.abs(values).max(axis=0)
    return bool((np.abs(drawn - values).max(axis=0) <= allowed).all())
