"""What was measured in a patient, from tables: blood flow by segment, and pressure ratios."""

import os
import re
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ..network import VascularNetwork
from ._pet import FLOW_UNIT
from ._tables import read_table, Row

_N_SEGMENTS = 17
_FLOW_COLUMN = re.compile(r"mbf_(\w+?)_ml_min_(100)?g")
# Above what any segment was seen to have, in ml/min/g: a larger value is one in another unit.
_LARGEST_MBF = 10.0
# The wire's sensor drifts by up to 2 % of aortic pressure within a procedure.
_LARGEST_FFR = 1.02


def read_segments(path: str | os.PathLike) -> dict[str, Float[np.ndarray, "17"]]:
    r"""Read the blood flow of the AHA segments from a CSV table.

    The first line names the columns: `segment`, from 1 to 17, and one for each state, such as
    `mbf_rest_ml_min_g` or `mbf_hyperemia_ml_min_100g`. Segments without a line, empty fields and
    `nan` were not measured.

    **Returns:** the name of each state and its (17,) values in m³/(s·kg), NaN where not measured.

    **Errors:** [`InputError`][] naming the file and the line: no column of a state, a state in two
    columns, a segment that does not exist or stands twice, a value that is no number, negative or
    above 10 ml/min/g, and a table without any value.

    **Example:**

    ```python
    from pathlib import Path
    from jaxperf.io import read_segments
    Path("pet.csv").write_text("segment,mbf_rest_ml_min_g\n1,0.9\n2,1.1\n")
    rest = read_segments("pet.csv")["rest"]  # (17,) m³/(s·kg), NaN for the other 15
    ```
    """
    where = str(path)
    table = read_table(path, ("segment",))
    state_of = _states(table.columns, where)
    flow = {state: np.full(_N_SEGMENTS, np.nan) for state, _ in state_of.values()}
    line: dict[int, str] = {}
    for row in table.rows:
        k = _segment(row)
        if k in line:
            raise InputError(
                f"segment {k} stands here a second time",
                where=row.where,
                expected="each segment once",
                fix=f"Keep this line or {line[k].removeprefix(where + ', ')}",
            )
        line[k] = row.where
        for column, (state, unit) in state_of.items():
            if row.text[column].lower() not in ("", "nan"):
                flow[state][k - 1] = _flow(row, column, unit) * FLOW_UNIT[unit]
    for state, values in flow.items():
        if np.isnan(values).all():
            raise InputError(
                f"it has no value of the state {state}",
                where=where,
                expected="at least one segment",
                fix="Fill the column or remove it",
            )
    return flow


def _states(columns: list[str], where: str) -> dict[str, tuple[str, str]]:
    """State and unit of each column that holds blood flow."""
    found: dict[str, tuple[str, str]] = {}
    for column in columns:
        match = _FLOW_COLUMN.fullmatch(column)
        if match is None:
            continue
        if match[1] in (state for state, _ in found.values()):
            raise InputError(
                f"the state {match[1]} has two columns",
                where=where,
                expected="one column for each state",
                fix=f"Remove {column} or the other one",
            )
        found[column] = match[1], "ml/min/100g" if match[2] else "ml/min/g"
    if not found:
        raise InputError(
            f"it has no column of blood flow; its columns are {', '.join(columns)}",
            where=where,
            expected="columns such as mbf_rest_ml_min_g and mbf_hyperemia_ml_min_g",
            fix="Name the state and the unit in the first line",
        )
    return found


def _segment(row: Row) -> int:
    value = row.number("segment")
    if value not in range(1, _N_SEGMENTS + 1):
        raise InputError(
            f"segment is {row.text['segment']!r}",
            where=row.where,
            expected=f"a whole number from 1 to {_N_SEGMENTS}",
            fix="Use the numbers of the AHA's 17 segments",
        )
    return int(value)


def _flow(row: Row, column: str, unit: str) -> float:
    value = row.number(column)
    in_ml_min_g = value * FLOW_UNIT[unit] / FLOW_UNIT["ml/min/g"]
    if not 0.0 <= in_ml_min_g <= _LARGEST_MBF:
        raise InputError(
            f"{column} is {value:g}",
            where=row.where,
            expected=f"0 to {_LARGEST_MBF:g} ml/min/g",
            fix="Leave the field empty where nothing was measured"
            if value < 0.0
            else "Correct the value, or name the column _ml_min_100g if that is its unit",
        )
    return value


@dataclass(frozen=True)
class FFRReading:
    """A pressure ratio that a wire measured: `ffr` at `at_mm` along `branch`, in `state`."""

    branch: str
    at_mm: float
    ffr: float
    state: str
    where: str


def read_ffr(path: str | os.PathLike, network: VascularNetwork) -> tuple[FFRReading, ...]:
    r"""Read what a pressure wire measured from a CSV table.

    The first line names the columns: `branch`, `at_mm` (from the proximal end of the branch along
    its course), `ffr` (distal over aortic pressure), and `state` where it is not hyperemia.

    **Arguments:** `network`: the vessels, in which the places must lie.

    **Returns:** one [`FFRReading`][] for each line.

    **Errors:** [`InputError`][] naming the file and the line: a branch that the network does not
    have or that divides, a distance beyond its length, a ratio at or below 0 or above 1.02, a place
    that stands twice in one state, no line at all.

    **Example:**

    ```python
    from pathlib import Path
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    Path("ffr.csv").write_text("branch,at_mm,ffr\nLAD,30,0.78\n")
    (reading,) = jp.io.read_ffr("ffr.csv", tree)
    wire = jp.observe.pressure_wire(tree, reading.branch, reading.at_mm)
    ```
    """
    table = read_table(path, ("branch", "at_mm", "ffr"))
    if not table.rows:
        raise InputError(
            "it has no line after the names of the columns",
            where=str(path),
            expected="at least one reading",
            fix="Add the readings, or leave the file out",
        )
    found: dict[tuple[str, float, str], FFRReading] = {}
    for row in table.rows:
        reading = _reading(row, network)
        key = reading.branch, reading.at_mm, reading.state
        if key in found:
            raise InputError(
                f"{key[0]} at {key[1]:g} mm in {key[2]} stands here a second time",
                where=row.where,
                expected="each place once in a state",
                fix="Keep one of the two lines, or their mean",
            )
        found[key] = reading
    return tuple(found.values())


def _reading(row: Row, network: VascularNetwork) -> FFRReading:
    branch, at_mm, ffr = row.text["branch"], row.number("at_mm"), row.number("ffr")
    try:
        network.at(branch, mm=at_mm)
    except InputError as error:
        # the network says what is wrong; the file says where
        raise InputError(
            error.what, where=row.where, expected=error.expected, fix=error.fix
        ) from error
    if not 0.0 < ffr <= _LARGEST_FFR:
        raise InputError(
            f"ffr is {ffr:g}",
            where=row.where,
            expected=f"a ratio above 0 and up to {_LARGEST_FFR:g} (1 and the drift of a sensor)",
            fix="Give the ratio as a fraction, 0.80 for 80 %"
            if ffr > 2.0
            else "Correct the line, or leave it out where the sensor drifted",
        )
    return FFRReading(branch, at_mm, ffr, row.text.get("state") or "hyperemia", row.where)
