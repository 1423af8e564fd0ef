"""Waveforms from tables."""

import os

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ._tables import read_table

# A beat ends where it began: largest gap between first and last value, of the range in between.
_LARGEST_GAP = 0.05
_FEWEST_ROWS = 10


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
    _check_cycle(table, where)
    return table.T


def _check_cycle(table: Float[np.ndarray, "m 2"], where: str) -> None:
    time, value = table.T
    if time[0] != 0.0 or (np.diff(time) <= 0.0).any():
        raise InputError(
            f"time_s starts at {time[0]:g} and "
            + ("increases" if (np.diff(time) > 0.0).all() else "does not always increase"),
            where=where,
            expected="times that start at 0 and increase",
            fix="Give one beat, each time once",
        )
    if abs(value[-1] - value[0]) > _LARGEST_GAP * np.ptp(value):
        raise InputError(
            f"the first value is {value[0]:g} and the last {value[-1]:g}",
            where=where,
            expected="one beat, which ends where it began",
            fix="Cut the record to one period and repeat its first value at the end",
        )
