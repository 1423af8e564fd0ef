"""Inlet and outlets of a svOneDSolver case, from its tables."""

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Array, Float

from .._custom_types import as_leaf
from .._misc import InputError
from ..network import (
    AbstractBoundary,
    CoronaryOutletSvOneD,
    FlowBoundary,
    FlowWaveform,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    VascularNetwork,
    Waveform,
    WindkesselOutlet,
)
from ..units import (
    M3_PA_PER_CM5_DYN,
    M3_S_PER_CM3_S,
    PA_PER_DYN_CM2,
    PA_S_M3_PER_DYN_S_CM5,
)
from ._svoned_cards import Card, Cards, DataTable
from ._waveforms import check_times, jump_between_beats, odd_beat

_INLET = ("PRESSURE", "PRESSURE_WAVE", "FLOW")
_OUTLET = ("NOBOUND", "RESISTANCE", "RCR", "CORONARY", "PRESSURE", "PRESSURE_WAVE")
# Conditions of svOneDSolver, today's and earlier ones, whose physics is missing.
_MISSING = {
    "RESISTANCE_TIME": "a resistance that changes with time",
    "IMPEDANCE": "an impedance over frequencies",
    "ADMITTANCE": "an admittance over frequencies",
    "WAVE": "a wave that leaves without reflection",
    "CLOSEDLOOP": "a closed loop",
    "FLOW": "a prescribed outflow",
}
# What the entries of an outlet's table mean.
_ENTRIES = {
    "RESISTANCE": "resistance and, if not 0, distal pressure",
    "RCR": "proximal resistance, compliance, distal resistance and, if not 0, distal pressure",
    "CORONARY": "Ra, Ra_micro, Ca, Cim, Rv, P_ref at negative times, then the intramyocardial "
    "pressure",
}

_Rows = list[tuple[float, ...]]
# Times (s) and values in SI.
_Wave = Float[np.ndarray, "_ 2"]


def defined(card: Card, i: int, names: Collection[str], what: str) -> str:
    """A name on a card that must be defined elsewhere in the file."""
    if card.field[i] not in names:
        raise InputError(
            f"the {what} {card.field[i]} is not defined",
            where=card.where,
            expected=f"one of {', '.join(map(str, names)) or 'the file (there is none)'}",
            fix=f"Define the {what} or correct its name",
        )
    return card.field[i]


def supported(
    card: Card, i: int, kinds: tuple[str, ...], what: str, missing: Mapping[str, str]
) -> str:
    """A kind on a card that this reader knows; `missing` says what the others would need."""
    kind = card.field[i]
    if kind not in kinds:
        physics = missing.get(kind)
        raise InputError(
            f"the {what} is {kind}" + (f", {physics}, which is not modelled" if physics else ""),
            where=card.where,
            expected=f"one of those this reader supports: {', '.join(kinds)}",
            fix="Replace it, or leave the part out",
        )
    return kind


def outlet_kind(card: Card) -> str:
    """The condition at the end of a segment."""
    return supported(card, 14, _OUTLET, "boundary condition", _MISSING)


def read_inlet(cards: Cards, network: VascularNetwork) -> tuple[AbstractBoundary, list[str]]:
    """The inlet's condition, and what is doubtful in its table."""
    options = cards.options
    assert options is not None
    kind = supported(options, 5, _INLET, "inlet boundary condition", {})
    table = _table_of(cards, options, 4)
    is_flow, node = kind == "FLOW", network.roots
    wave, notes = _wave(table, M3_S_PER_CM3_S if is_flow else PA_PER_DYN_CM2)
    if len(wave) == 1:
        value = as_leaf(wave[:, 1])
        return FlowBoundary(node, value) if is_flow else PressureBoundary(node, value), notes
    waveform = Waveform(wave[:, 0], wave[None, :, 1], wave[-1, 0])
    return FlowWaveform(node, waveform) if is_flow else PressureWaveform(node, waveform), notes


def _table_of(cards: Cards, card: Card, i: int) -> DataTable:
    return cards.table[defined(card, i, list(cards.table), "table")]


def _wave(table: DataTable, unit: float, first: int = 0) -> tuple[_Wave, list[str]]:
    """A table from one entry on as a beat in SI, and what is doubtful; one row where constant.

    Its last time is the period. A constant has none, whatever its times say.
    """
    time, line = table.time[first:], table.line[first:]
    check_times(time, line)
    wave = np.stack([time, np.array(table.value[first:]) * unit], axis=1)
    if np.ptp(wave[:, 1]) == 0.0:
        return np.array([[0.0, wave[0, 1]]]), []
    odd = odd_beat(time[-1], line[-1])
    notes = [] if odd is None else [odd]
    jump = jump_between_beats(np.array(table.value[first:]))
    # A table that starts after 0 goes there from its last value: nothing jumps.
    if jump is None or time[0] > 0.0:
        return wave, notes
    return wave, [*notes, f"{line[-1]}: {jump}: a jump at every beat."]


def read_outlets(
    cards: Cards, segments: list[Card], node: list[int]
) -> tuple[list[AbstractBoundary], list[str]]:
    """The outlets' conditions, one of each kind, and what is doubtful in their tables.

    **Arguments:** `node`, the node at the end of each segment.
    """
    rows: dict[str, _Rows] = {kind: [] for kind in ("RESISTANCE", "RCR", "CORONARY", "PRESSURE")}
    waves: dict[str, list[_Wave]] = {"CORONARY": [], "PRESSURE": []}
    lines: dict[str, list[str]] = {"CORONARY": [], "PRESSURE": []}
    notes: list[str] = []
    for i, card in enumerate(segments):
        kind = outlet_kind(card)
        if kind == "NOBOUND":
            continue
        table = _table_of(cards, card, 15)
        if kind in ("PRESSURE", "PRESSURE_WAVE"):
            if kind == "PRESSURE" and np.ptp(table.value) > 0.0:
                raise InputError(
                    f"the table {card.field[15]} of {card.field[0]} changes in time",
                    where=table.line[1],
                    expected="a constant, of which svOneDSolver takes the first entry",
                    fix="Give one entry, or write PRESSURE_WAVE on the segment",
                )
            wave, more = _wave(table, PA_PER_DYN_CM2)
            kind = "PRESSURE"
            rows[kind].append((node[i],))
        elif kind == "CORONARY":
            if len(table) < 7 or any(t >= 0 for t in table.time[:6]):
                _refuse_entries(card, table, kind)
            rows[kind].append((node[i], *_positive(card, table, range(5)), table.value[5]))
            wave, more = _wave(table, PA_PER_DYN_CM2, 6)
        else:
            rows_kind, row = _resistive(card, table, kind)
            rows[rows_kind].append((node[i], *row))
            continue
        waves[kind].append(wave)
        lines[kind].append(table.line[-1])
        notes += more
    together = {kind: _on_common_knots(waves[kind], lines[kind]) for kind in waves}
    return _conditions(rows, waves, together), notes


def _resistive(card: Card, table: DataTable, kind: str) -> tuple[str, tuple[float, ...]]:
    """The row of a RESISTANCE or an RCR; without compliance the latter is a resistance too."""
    least = 1 if kind == "RESISTANCE" else 3
    if len(table) not in (least, least + 1):
        _refuse_entries(card, table, kind)
    distal = table.value[least] if len(table) > least else 0.0
    if kind == "RESISTANCE":
        return kind, (*_positive(card, table, range(1)), distal)
    compliance = table.value[1]
    proximal, _, last = table.value[:3]
    if compliance == 0.0:
        return "RESISTANCE", (sum(_positive(card, table, (0, 2))), distal)
    _positive(card, table, range(3))
    return kind, (proximal, last, compliance, distal)


def _positive(card: Card, table: DataTable, entries: Collection[int]) -> list[float]:
    """Entries of a table that are resistances and compliances."""
    for i in entries:
        if not table.value[i] > 0:
            raise InputError(
                f"entry {i + 1} of the table {card.field[15]} of {card.field[0]} is "
                f"{table.value[i]:g}",
                where=table.line[i],
                expected=f"a positive number in a {card.field[14]} table: "
                f"{_ENTRIES[card.field[14]]}",
                fix="Correct the table",
            )
    return [table.value[i] for i in entries]


def _refuse_entries(card: Card, table: DataTable, kind: str) -> None:
    raise InputError(
        f"the table {card.field[15]} of {card.field[0]} has {len(table)} entries",
        where=table.where,
        expected=f"a {kind} table: {_ENTRIES[kind]}",
        fix="Correct the table",
    )


def _on_common_knots(waves: list[_Wave], lines: list[str]) -> Waveform | None:
    """Tables as one waveform, each exactly; None where each is a constant."""
    ends = {float(w[-1, 0]): line for w, line in zip(waves, lines, strict=True) if len(w) > 1}
    if not ends:
        return None
    (end, first), *others = sorted(ends.items())
    if others:
        raise InputError(
            f"the table ends at {others[-1][0]:g} s and that at {first} ends at {end:g} s",
            where=others[-1][1],
            expected="outlets' tables of one period",
            fix="Give every table the same last time",
        )
    time = np.unique(np.concatenate([w[:, 0] for w in waves if len(w) > 1]))
    # A table that starts after 0 goes there from its last value, which is that of time 0.
    value = [np.interp(time, w[:, 0], w[:, 1]) for w in map(_from_zero, waves)]
    return Waveform(time, np.stack(value), end)


def _from_zero(wave: _Wave) -> _Wave:
    return wave if wave[0, 0] == 0.0 else np.concatenate([[[0.0, wave[-1, 1]]], wave])


def _conditions(
    rows: dict[str, _Rows], waves: dict[str, list[_Wave]], together: dict[str, Waveform | None]
) -> list[AbstractBoundary]:
    """One condition for all outlets of a kind, in SI."""
    boundary: list[AbstractBoundary] = []
    ohm, farad, pascal = PA_S_M3_PER_DYN_S_CM5, M3_PA_PER_CM5_DYN, PA_PER_DYN_CM2
    if rows["RESISTANCE"]:
        boundary.append(ResistanceOutlet(*_columns(rows["RESISTANCE"], ohm, pascal)))
    if rows["RCR"]:
        boundary.append(WindkesselOutlet(*_columns(rows["RCR"], ohm, ohm, farad, pascal)))
    if rows["CORONARY"]:
        units = (ohm, ohm, farad, farad, ohm, pascal)
        node, ra, micro, ca, cim, rv, p = _columns(rows["CORONARY"], *units)
        outer = together["CORONARY"]
        boundary.append(CoronaryOutletSvOneD(node, ra, micro, rv, ca, cim, p, outer))
    if rows["PRESSURE"]:
        (node,) = _columns(rows["PRESSURE"])
        wave = together["PRESSURE"]
        level = as_leaf(np.array([w[0, 1] for w in waves["PRESSURE"]]))
        boundary.append(
            PressureBoundary(node, level) if wave is None else PressureWaveform(node, wave)
        )
    return boundary


def _columns(rows: _Rows, *units: float) -> list[Array]:
    node, *values = zip(*rows, strict=True)
    numbers = [as_leaf(np.array(v) * unit) for v, unit in zip(values, units, strict=True)]
    return [as_leaf(np.array(node), np.int32), *numbers]
