"""Boundary conditions of a svZeroDSolver case."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Array

from .._custom_types import as_leaf
from .._misc import InputError
from ..network import (
    AbstractBoundary,
    CoronaryOutletSvZeroD,
    FlowBoundary,
    FlowWaveform,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from ._json_entry import Entry
from ._waveforms import check_times

if TYPE_CHECKING:
    from ._svzerod import ZeroDUnits

_OUTLETS = ("RESISTANCE", "RCR", "CORONARY")
# The cycle of a case that says no time, s.
_PERIOD = 1.0
# What its keys are: a resistance, a compliance or a pressure, in the order of our classes.
_RESISTANCE = ("R", "Pd")
_RCR = ("Rp", "Rd", "C", "Pd")
_CORONARY = ("Ra1", "Ra2", "Rv1", "Ca", "Cc", "P_v")


@dataclass(frozen=True)
class Condition:
    """One condition in SI: its kind, its node, its numbers, its wave (time and value) if any."""

    kind: str
    node: int
    values: tuple[float, ...]
    wave: np.ndarray | None
    where: str


def read_condition(entry: Entry, node: int, is_inlet: bool, unit: ZeroDUnits) -> Condition:
    """A condition of a case at a node.

    **Errors:** [`InputError`][] naming file and key, for kinds that are not modelled too.
    """
    kind, name = entry.text("bc_type"), entry.text("bc_name")
    if kind not in ("FLOW", "PRESSURE", *_OUTLETS):
        entry.refuse(
            f"the condition {name} is {kind}, which is not modelled",
            f"FLOW, PRESSURE, {', '.join(_OUTLETS)}",
            "Replace it",
        )
    if is_inlet and kind in _OUTLETS:
        entry.refuse(
            f"the condition {name} is a {kind} at an inlet",
            "FLOW or PRESSURE where a network is fed",
            "Move it to an outlet",
        )
    values = entry.part("bc_values")
    if kind in ("FLOW", "PRESSURE"):
        key = "Q" if kind == "FLOW" else "P"
        values.only((key, "t"))
        # a flow that svZeroDSolver draws out of a vessel
        sign = -1.0 if kind == "FLOW" and not is_inlet else 1.0
        factor = sign * (unit.flow if kind == "FLOW" else unit.pressure)
        return Condition(kind, node, (), _wave(values, key, factor), entry.where)
    if kind == "RESISTANCE":
        values.only((*_RESISTANCE, "t"))
        numbers = [_steady(values, key) for key in _RESISTANCE]
        if not numbers[0] > 0.0:
            values.refuse(f"R is {numbers[0]:g}", "a number above zero", "Correct it")
        return Condition(kind, node, _si(_RESISTANCE, numbers, unit), None, entry.where)
    keys = _RCR if kind == "RCR" else _CORONARY
    more = () if kind == "RCR" else ("Pim", "t")
    values.only((*keys, *more, "closed_loop_outlet"))
    if values.value.get("closed_loop_outlet", False) is not False:
        values.refuse("closed_loop_outlet is set", "an open loop", "Remove the key")
    numbers = [values.number(k) if k[0] == "P" else _positive(values, k) for k in keys]
    wave = _wave(values, "Pim", unit.pressure) if kind == "CORONARY" else None
    return Condition(kind, node, _si(keys, numbers, unit), wave, entry.where)


def _positive(values: Entry, key: str) -> float:
    number = values.number(key)
    if not number > 0.0:
        values.refuse(f"{key} is {number:g}", "a number above zero", "Correct it")
    return number


def _si(keys: tuple[str, ...], numbers: list[float], unit: ZeroDUnits) -> tuple[float, ...]:
    of = {"R": unit.resistance, "C": unit.compliance, "P": unit.pressure}
    return tuple(x * of[k[0]] for k, x in zip(keys, numbers, strict=True))


def _steady(values: Entry, key: str) -> float:
    """A number, or a list of equal ones."""
    if not isinstance(values.value.get(key), list):
        return values.number(key)
    listed = values.numbers(key)
    if np.ptp(listed) > 0.0:
        values.refuse(
            f"{key} changes with time, which is not modelled", "a constant", "Give one number"
        )
    return float(listed[0])


def _wave(values: Entry, key: str, factor: float) -> np.ndarray:
    """Times (s) and values in SI, (m, 2)."""
    value = values.numbers(key)
    if len(value) == 1:
        return np.array([[0.0, factor * value[0]]])
    time = values.numbers("t")
    if len(time) != len(value):
        values.refuse(
            f"t has {len(time)} numbers and {key} {len(value)}", "as many of both", "Correct one"
        )
    check_times(time.tolist(), [f"{values.where}, t[{i}]" for i in range(len(time))])
    if time[0] != 0.0:
        values.refuse(f"t begins at {time[0]:g}", "times from 0 to the period", "Shift the times")
    return np.stack([time, factor * value], axis=1)


def conditions(
    read: list[Condition], stated: float | None, where: str
) -> tuple[tuple[AbstractBoundary, ...], float]:
    """The conditions of a case, those of a kind together where they have the same times.

    **Arguments:** `stated`, the period that the case says.

    **Returns:** them and the period.

    **Errors:** [`InputError`][] where periods differ.
    """
    waves = [c for c in read if c.wave is not None and np.ptp(c.wave[:, 1]) > 0.0]
    ends = {float(c.wave[-1, 0]): c.where for c in waves if c.wave is not None}
    if stated is not None:
        ends.setdefault(stated, f"{where}, simulation_parameters, cardiac_period")
    longest = max(ends, default=0.0)
    for end, place in ends.items():
        if abs(end - longest) > 1e-6 * longest:
            raise InputError(
                f"the period is {end:g} s, and at {ends[longest]} it is {longest:g} s",
                where=place,
                expected="one period for all",
                fix="Bring the tables to one heart rate",
            )
    rest = [float(c.wave[-1, 0]) for c in read if c.wave is not None]
    period = longest or max(rest, default=0.0) or _PERIOD
    groups: dict[tuple, list[Condition]] = {}
    for c in read:
        groups.setdefault((c.kind, *_knots(c)), []).append(c)
    return tuple(_made(kind, group, period) for (kind, *_), group in groups.items()), period


def _knots(c: Condition) -> tuple[float, ...]:
    """The times of a waveform; none of a constant."""
    if c.wave is None or np.ptp(c.wave[:, 1]) == 0.0:
        return ()
    return tuple(c.wave[:, 0].tolist())


def _made(kind: str, group: list[Condition], period: float) -> AbstractBoundary:
    node = as_leaf(np.array([c.node for c in group]), np.int32)
    columns: list[Array] = [
        as_leaf(np.array(column)) for column in zip(*(c.values for c in group), strict=True)
    ]
    waves = [c.wave for c in group if c.wave is not None]
    wave = None
    if _knots(group[0]):
        wave = Waveform(waves[0][:, 0], np.stack([w[:, 1] for w in waves]), period)
    if kind == "RESISTANCE":
        return ResistanceOutlet(node, *columns)
    if kind == "RCR":
        return WindkesselOutlet(node, *columns)
    if kind == "CORONARY":
        return CoronaryOutletSvZeroD(node, *columns, pressure_im=wave)
    if wave is not None:
        return FlowWaveform(node, wave) if kind == "FLOW" else PressureWaveform(node, wave)
    level = as_leaf(np.array([w[0, 1] for w in waves]))
    return FlowBoundary(node, level) if kind == "FLOW" else PressureBoundary(node, level)
