r"""Pressures of a heart beat: built by rule about the case's mean, or from files.

The built-in aortic pressure is that of a three-element windkessel that takes up the flow of an
ejection, with a short backward flow that closes the valve and leaves the dicrotic notch. It is
scaled to the mean and the pulse pressure asked for, so the windkessel gives its shape only. Left
ventricular pressure rises in the isovolumic contraction, is the aortic pressure during ejection,
relaxes exponentially, and rises slowly during filling.

Time 0 is the onset of contraction.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ..casefile import Case
from ..io import read_waveform
from ..network import Waveform
from ..units import PA_PER_MMHG

DEFAULT_HEART_RATE = 70.0
DEFAULT_PULSE_PRESSURE = 40.0
# Isovolumic contraction: 40 to 60 ms in health; with a pressure of 70 mmHg to reach, the largest
# dp/dt is then about 2000 mmHg/s.
_CONTRACTION = 0.05
# Time constant of relaxation: 35 to 50 ms in health.
_RELAXATION = 0.045
# Pressure after relaxation over that at the end of filling.
_LOWEST_SHARE = 0.5
# The windkessel: RC (s), proximal over distal resistance; decay from 95 to 73 mmHg in 0.5 s.
_DECAY = 1.8
_PROXIMAL = 0.06
# The early peak of ejection, and the backward flow that closes the valve (duration s, relative to
# the peak): some 3 % of the stroke volume.
_SKEW = 0.65
_CLOSURE, _BACKWARD = 0.04, -0.4
_KNOTS = 128
_FINE = 20
# Diastole as a share of the beat, at least; less is another unit or no beat.
_LEAST_DIASTOLE = 0.25
# A file's mean may differ from boundary.pressure_inlet_mmHg by so much (mmHg), and is shifted.
_MEAN_MISS = 1.0
# LV pressure has left its diastolic level, or the aortic pressure, by this share of a range.
_ONSET, _CLOSED = 0.1, 0.03


@dataclass(frozen=True)
class Heartbeat:
    """Aortic and left ventricular pressure (Pa, one row) and systole, (start, end) in s.

    Systole lasts from the onset of contraction to the closure of the aortic valve; its end is
    smaller than its start where it goes over the end of the period.
    """

    aortic: Waveform
    lv: Waveform
    systole: tuple[float, float]

    @property
    def period(self) -> float:
        """s."""
        return float(self.aortic.period)

    def moved(self, above: float) -> "Heartbeat":
        """The beat about another mean aortic pressure, `above` this one (Pa).

        The aortic pressure moves as a whole. The ventricle's moves with it where it has reached
        that of diastole, and keeps its pressure of filling.
        """
        aortic, lv = np.asarray(self.aortic.value), np.asarray(self.lv.value)
        filling = lv.min() + _ONSET * np.ptp(lv)
        share = np.clip((lv - filling) / max(aortic.min() - filling, PA_PER_MMHG), 0.0, 1.0)
        return Heartbeat(
            Waveform(self.aortic.time, aortic + above, self.period),
            Waveform(self.lv.time, lv + share * above, self.period),
            self.systole,
        )

    def is_systole(self, time: Float[np.ndarray, " k"]) -> np.ndarray:
        """Which times (s) lie in systole."""
        start, end = self.systole
        phase = np.mod(time - start, self.period)
        return phase < np.mod(end - start, self.period)


def heartbeat_of_case(case: Case, data: Path) -> Heartbeat:
    """The pressures of a case's heart beat.

    **Errors:** [`InputError`][] for files that hold no such beat, and a beat without diastole.
    """
    said = case.pulsatile
    mean = case.boundary.pressure_inlet_mmHg
    if said.aortic_pressure_file is None:
        rate = DEFAULT_HEART_RATE if said.heart_rate_per_min is None else said.heart_rate_per_min
        pulse = said.pulse_pressure_mmHg
        pulse = DEFAULT_PULSE_PRESSURE if pulse is None else pulse
        period, opening = 60.0 / rate, _CONTRACTION
        ejection = _ejection(said.ejection_duration_s, period, opening)
        time, aortic = aortic_pressure(period, opening, ejection, mean=mean, pulse=pulse)
    else:
        where = data / said.aortic_pressure_file
        time, aortic = read_waveform(where, "pressure_mmHg")
        period = float(time[-1])
        aortic = _about_mean(time, aortic, mean, where)
        time, aortic = time[:-1], aortic[:-1]
        opening = float(time[np.argmin(aortic)])
        ejection = _ejection(said.ejection_duration_s, period, _CONTRACTION)
    low = said.lv_diastolic_pressure_mmHg
    for state in ("rest", *said.states):
        lowest = aortic.min() + case.pressure_mmHg(state) - mean
        if not low < lowest:
            raise InputError(
                f"the lowest aortic pressure is {lowest:.0f} mmHg at {state}",
                where="pulsatile",
                expected=f"more than the ventricle's in diastole, {low:g} mmHg",
                fix="Lower pulse_pressure_mmHg, or raise the mean aortic pressure of the state",
            )
    if said.lv_pressure_file is not None:
        return _measured(time, aortic, period, data / said.lv_pressure_file)
    knot = np.unique(np.concatenate([time, _events(period, opening, ejection)]))
    lv = lv_pressure(
        knot, np.interp(knot, time, aortic, period=period), period, opening, ejection, low
    )
    systole = (np.mod(opening - _CONTRACTION, period), np.mod(opening + ejection, period))
    return Heartbeat(
        _waveform(time, aortic, period),
        _waveform(knot, lv, period),
        (float(systole[0]), float(systole[1])),
    )


def _waveform(
    time: Float[np.ndarray, " k"], pressure_mmHg: Float[np.ndarray, " k"], period: float
) -> Waveform:
    return Waveform(time, pressure_mmHg[None] * PA_PER_MMHG, period)


def _ejection(given: float | None, period: float, before: float) -> float:
    """Duration of the ejection (s), by Weissler's regression 0.413 s − 1.7 ms·rate for men.

    **Source:** A. M. Weissler, W. S. Harris, C. D. Schoenfeld, Circulation 37:149 (1968).
    """
    duration = 0.413 - 1.7e-3 * 60.0 / period if given is None else given
    if not 0.0 < duration + before < (1.0 - _LEAST_DIASTOLE) * period:
        raise InputError(
            f"an ejection of {duration:.3f} s leaves too little of a beat of {period:.3f} s",
            where="pulsatile.ejection_duration_s",
            expected=f"contraction and ejection within {1.0 - _LEAST_DIASTOLE:.0%} of the beat",
            fix="Shorten the ejection, or check the heart rate",
        )
    return duration


def _events(period: float, opening: float, ejection: float) -> Float[np.ndarray, " e"]:
    """Times at which a pressure changes its course: the valve, onset, and relaxation."""
    closure = opening + ejection
    at = np.concatenate(
        [
            opening - _CONTRACTION * np.linspace(0.0, 1.0, 9),
            closure + _RELAXATION * np.linspace(0.0, 4.0, 17),
        ]
    )
    return np.mod(at, period)


def aortic_pressure(
    period: float, opening: float, ejection: float, *, mean: float, pulse: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    r"""A beat of aortic pressure of given mean and pulse pressure.

    $$p = \bar p + \Delta p\,\frac{s-\bar s}{\max s-\min s},\qquad s = \zeta q + w,\qquad
    \tau\dot w = q - w$$

    with the ejected flow $q = \sin\pi x^{0.65}$, x the time since the opening over the duration of
    the ejection, and after it the short backward flow that closes the valve.

    **Arguments:** `period`, `opening`, `ejection`: s; `mean`, `pulse`: one unit.

    **Returns:** times (s) from 0 to before the period, and pressures.
    """
    n = _KNOTS * _FINE
    fine = np.arange(n) * (period / n)
    since = np.mod(fine - opening, period)
    ejected = np.sin(np.pi * np.minimum(since / ejection, 1.0) ** _SKEW)
    closing = np.clip((since - ejection) / _CLOSURE, 0.0, 1.0)
    flow = ejected + _BACKWARD * np.sin(np.pi * closing) ** 2
    # exact over each step for a flow that is constant in it, started in the periodic state
    keep = np.exp(-period / n / _DECAY)
    weight = (1.0 - keep) * keep ** np.arange(n)
    start = float(weight @ flow[::-1]) / (1.0 - keep**n)
    store = np.empty(n)
    for i in range(n):
        store[i] = start
        start = keep * start + (1.0 - keep) * flow[i]
    shape = (_PROXIMAL * flow + store)[::_FINE]
    shape = (shape - shape.mean()) / np.ptp(shape)
    return fine[::_FINE], mean + pulse * shape


def lv_pressure(
    time: Float[np.ndarray, " m"],
    aortic: Float[np.ndarray, " m"],
    period: float,
    opening: float,
    ejection: float,
    diastolic: float,
) -> Float[np.ndarray, " m"]:
    """A beat of left ventricular pressure that meets the aortic pressure during ejection.

    **Arguments:** `time`, `aortic`: knots (s) and pressure at them; `opening`, `ejection`: of the
    aortic valve, s; `diastolic`: pressure at the end of filling.
    """
    at = lambda t: float(np.interp(np.mod(t, period), time, aortic, period=period))
    since = np.mod(time - opening, period)
    before = period - since
    rise = 0.5 * (1.0 + np.cos(np.pi * np.minimum(before / _CONTRACTION, 1.0)))
    contracting = diastolic + (at(opening) - diastolic) * rise
    filling = period - ejection - _CONTRACTION
    part = np.clip((since - ejection) / filling, 0.0, 1.0)
    lowest = _LOWEST_SHARE * diastolic
    decay = (1.0 - part) * np.exp(-part * filling / _RELAXATION)
    relaxed = lowest + (at(opening + ejection) - lowest) * decay + (diastolic - lowest) * part**2
    return np.where(
        since <= ejection, aortic, np.where(before < _CONTRACTION, contracting, relaxed)
    )


def _about_mean(
    time: Float[np.ndarray, " k"], pressure: Float[np.ndarray, " k"], mean: float, where: Path
) -> Float[np.ndarray, " k"]:
    """A beat from a file, shifted to the mean that the steady solves take."""
    found = float(np.trapezoid(pressure, time) / time[-1])
    if abs(found - mean) > _MEAN_MISS:
        raise InputError(
            f"its mean is {found:.1f} mmHg",
            where=str(where),
            expected=f"boundary.pressure_inlet_mmHg, {mean:g} mmHg, within {_MEAN_MISS:g} mmHg",
            fix=f"Set boundary.pressure_inlet_mmHg to {found:.1f}, or check the file's unit",
        )
    return pressure + (mean - found)


def _measured(
    time: Float[np.ndarray, " k"], aortic: Float[np.ndarray, " k"], period: float, where: Path
) -> Heartbeat:
    """A heart beat whose left ventricular pressure comes from a file too."""
    knot, lv = read_waveform(where, "pressure_mmHg")
    if abs(knot[-1] - period) > 1e-6 * period:
        raise InputError(
            f"its beat lasts {knot[-1]:g} s",
            where=str(where),
            expected=f"the period of the aortic pressure, {period:g} s",
            fix="Give both pressures over the same beat",
        )
    span = np.ptp(aortic)
    if lv.max() < aortic.max() - 0.25 * span or lv.min() > aortic.min():
        raise InputError(
            f"it runs from {lv.min():.0f} to {lv.max():.0f} mmHg and the aortic pressure from "
            f"{aortic.min():.0f} to {aortic.max():.0f} mmHg",
            where=str(where),
            expected="a pressure that reaches the aortic one in systole and falls below it",
            fix="Check columns and units of both files",
        )
    fine = np.linspace(0.0, period, 2000, endpoint=False)
    inside = np.interp(fine, knot, lv)
    # seen from the highest pressure: forwards to the closure, backwards to the onset
    turn = np.roll(np.arange(2000), -int(np.argmax(inside)))
    below = inside < np.interp(fine, time, aortic, period=period) - _CLOSED * span
    closure = fine[turn[np.argmax(below[turn])]]
    rest = inside < inside.min() + _ONSET * np.ptp(inside)
    onset = fine[turn[::-1][np.argmax(rest[turn[::-1]])]]
    return Heartbeat(
        _waveform(time, aortic, period),
        _waveform(knot[:-1], lv[:-1], period),
        (float(onset), float(closure)),
    )
