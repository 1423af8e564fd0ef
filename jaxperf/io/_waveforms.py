"""Waveforms from tables."""

import math
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ._tables import read_table

# A beat ends where it began: largest gap between first and last value, of the range in between.
_LARGEST_GAP = 0.05
_FEWEST_ROWS = 10
# Beats that a heart can have, s, and units in which a table may have been written instead.
_BEAT = (0.2, 5.0)
_UNITS = {"ms": 1e-3, "min": 60.0, "us": 1e-6}


def check_times(time: Sequence[float], line: Sequence[str]) -> None:
    """Refuse a time that is negative or does not exceed the one before it.

    **Arguments:** `line`, where each entry stands: file and line.

    **Errors:** [`InputError`][] naming the line and both times.
    """
    before = -math.inf
    for t, where in zip(time, line, strict=True):
        if t < 0.0 or t <= before:
            how = "negative" if t < 0.0 else f"after {before:g} s"
            raise InputError(
                f"the time is {t:g} s, {how}",
                where=where,
                expected="times from 0 on, each above the one before",
                fix="Correct the line: one beat, each time once and in order",
            )
        before = t


def check_beat(period: float, where: str) -> None:
    """Refuse a period that no heart has, with the unit it may be in.

    **Errors:** [`InputError`][] naming the place.
    """
    low, high = _BEAT
    if low <= period <= high:
        return
    likely = [unit for unit, seconds in _UNITS.items() if low <= period * seconds <= high]
    raise InputError(
        f"the beat lasts {period:g} s",
        where=where,
        expected=f"a period from {low:g} to {high:g} s",
        fix=f"The times look like {likely[0]}: write them in s"
        if likely
        else "Write the times of one beat in the column time_s, in s",
    )


def odd_beat(period: float, where: str) -> str | None:
    """What to say of a period that no human heart has, such as a small animal's; None of others.

    **Errors:** [`InputError`][] where the times are those of a beat in ms or µs.
    """
    low, high = _BEAT
    if period > high and any(low <= period * _UNITS[unit] <= high for unit in ("ms", "us")):
        check_beat(period, where)
    if low <= period <= high:
        return None
    return (
        f"{where}: the beat lasts {period:g} s, and a human heart's {low:g} to {high:g} s: correct "
        "for small animals and for tests, else check the unit of the times."
    )


def jump_between_beats(value: Float[np.ndarray, " m"]) -> str | None:
    """What is wrong with a beat that does not end where it began; None where nothing is."""
    if abs(value[-1] - value[0]) <= _LARGEST_GAP * np.ptp(value):
        return None
    return f"the first value is {value[0]:g} and the last {value[-1]:g}"


def read_waveform(path: str | os.PathLike, column: str) -> Float[np.ndarray, "2 m"]:
    """Read one cycle of a quantity from a CSV file.

    The first line names the columns, one of them `time_s`. Times start at 0 and increase; the last
    one is the period, where the value is the first one again.

    **Arguments:** `column`: the column of the quantity, with its unit, such as `pressure_mmHg`.

    **Returns:** times (s) and values, (2, m).

    **Errors:** [`InputError`][] naming the file and the line.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    time = np.linspace(0.0, 0.8, 17)
    pressure = 100.0 - 20.0 * np.cos(2.0 * np.pi * time / 0.8)
    beat = [{"time_s": t, "pressure_mmHg": p} for t, p in zip(time, pressure)]
    jp.io.write_csv("beat.csv", beat)
    time, pressure = jp.io.read_waveform("beat.csv", "pressure_mmHg")
    ```
    """
    where = str(path)
    rows = read_table(path, ("time_s", column)).rows
    table = np.array([[row.number("time_s"), row.number(column)] for row in rows])
    if len(table) < _FEWEST_ROWS:
        raise InputError(
            f"it has {len(table)} rows",
            where=where,
            expected=f"at least {_FEWEST_ROWS} over one beat",
            fix="Export the waveform with more samples",
        )
    _check_cycle(table, [row.where for row in rows], where)
    return table.T


def _check_cycle(table: Float[np.ndarray, "m 2"], line: list[str], where: str) -> None:
    time, value = table.T
    check_times(time.tolist(), line)
    if time[0] != 0.0:
        raise InputError(
            f"time_s starts at {time[0]:g}",
            where=line[0],
            expected="times that start at 0",
            fix="Count the times from the first row on",
        )
    check_beat(float(time[-1]), where)
    jump = jump_between_beats(value)
    if jump is not None:
        raise InputError(
            jump,
            where=where,
            expected="one beat, which ends where it began",
            fix="Cut the record to one period and repeat its first value at the end",
        )
