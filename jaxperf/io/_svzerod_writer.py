"""Lumped networks as svZeroDSolver cases."""

import os
from collections import Counter
from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from .._misc import InputError
from ..network import (
    AbstractBoundary,
    CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD,
    FlowBoundary,
    FlowWaveform,
    LumpedNetwork,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from ._svzerod import zero_d_units, ZeroDUnits
from ._writers import write_json

# Steps of a cycle and cycles that the written case asks for; its user may change them.
_STEPS, _CYCLES = 201, 10
_Values = dict[str, Any]


def write_svzerod(
    path: str | os.PathLike,
    network: LumpedNetwork,
    boundary: tuple[AbstractBoundary, ...],
    *,
    units: str,
    period: float,
    parameters: Mapping[str, Any] | None = None,
) -> None:
    """Write a network of lumped segments with its inlets and outlets as a svZeroDSolver case.

    Where more than one vessel or condition meets at a node the case has a NORMAL_JUNCTION. An end
    without a condition is closed, which the case says as a FLOW of 0.

    **Arguments:** `units`, of the numbers written: `cgs`, `mmHg` or `SI`, as in
    [`read_svzerod`][]; `period`, s, of a case in which nothing changes with time; `parameters` of
    the simulation, where 10 cycles of 201 times are not wanted.

    **Errors:** [`InputError`][] for conditions that svZeroDSolver does not have, and for segments
    of one name.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    network = jp.network.build_lumped(
        np.array([[0, 1], [1, 2]]), root=np.array([0]), resistance=np.array([1e8, 4e8])
    )
    ends = (jp.PressureBoundary(0, 12400.0), jp.ResistanceOutlet(2, 1e9, 700.0))
    jp.io.write_svzerod("case.json", network, ends, units="cgs", period=1.0)
    ```
    """
    unit = zero_d_units(units, str(path))
    name, count = Counter(network.segment_name).most_common(1)[0]
    if count > 1:
        raise InputError(
            f"{count} segments are called {name}",
            where=str(path),
            expected="a name of its own for each segment",
            fix="Rename them",
        )
    node = np.asarray(network.segment_node)
    # the ends of vessels in the direction that their file had
    node = np.where(np.asarray(network.direction)[:, None] < 0, node[:, ::-1], node)
    feeding: dict[int, list[str]] = {}
    taking: dict[int, list[str]] = {}
    for i, (a, b) in enumerate(node.tolist()):
        taking.setdefault(a, []).append(network.segment_name[i])
        feeding.setdefault(b, []).append(network.segment_name[i])
    inlets, outlets, listed = _listed(
        boundary, set(feeding), unit, period, set(network.segment_name), str(path)
    )
    for n in sorted((set(taking) | set(feeding)) - set(inlets) - set(outlets)):
        if len(taking.get(n, [])) + len(feeding.get(n, [])) == 1:
            name = _free(f"CLOSED{n}", network.segment_name)
            listed.append(_condition(name, "FLOW", {"Q": [0.0, 0.0], "t": [0.0, period]}))
            (outlets if n in feeding else inlets)[n] = [name]
    at: dict[str, dict[str, str]] = {}
    junctions = []
    for n in sorted(set(taking) | set(feeding)):
        into = [*inlets.get(n, []), *feeding.get(n, [])]
        out = [*taking.get(n, []), *outlets.get(n, [])]
        if len(into) == len(out) == 1 and n in inlets:
            at.setdefault(out[0], {})["inlet"] = into[0]
        elif len(into) == len(out) == 1 and n in outlets:
            at.setdefault(into[0], {})["outlet"] = out[0]
        else:
            junctions.append(
                {
                    "junction_name": _free(f"J{n}", network.segment_name),
                    "junction_type": "NORMAL_JUNCTION",
                    "inlet_blocks": into,
                    "outlet_blocks": out,
                }
            )
    content: _Values = {
        "description": {"written by": "jaxperf", "units": units},
        "boundary_conditions": listed,
        "simulation_parameters": {
            "number_of_cardiac_cycles": _CYCLES,
            "number_of_time_pts_per_cardiac_cycle": _STEPS,
            **(parameters or {}),
        },
        "vessels": _vessels(network, at, unit),
    }
    write_json(path, {**content, "junctions": junctions} if junctions else content)


def _vessels(
    network: LumpedNetwork, at: Mapping[str, dict[str, str]], unit: ZeroDUnits
) -> list[_Values]:
    resistance, quadratic, inertance, compliance, length = (
        np.asarray(x, np.float64) / factor
        for x, factor in (
            (network.resistance, unit.resistance),
            (network.quadratic, unit.quadratic),
            (network.inertance, unit.resistance),
            (network.compliance, unit.compliance),
            (network.length, unit.length),
        )
    )
    rows = []
    for i, name in enumerate(network.segment_name):
        row: _Values = {
            "vessel_id": i,
            "vessel_name": name,
            "zero_d_element_type": "BloodVessel",
            "zero_d_element_values": {
                "R_poiseuille": resistance[i],
                "C": compliance[i],
                "L": inertance[i],
                "stenosis_coefficient": quadratic[i],
            },
        }
        if np.isfinite(length[i]):
            row["vessel_length"] = length[i]
        if name in at:
            row["boundary_conditions"] = at[name]
        rows.append(row)
    return rows


def _free(name: str, vessels: Container[str]) -> str:
    """A name that no vessel has: svZeroDSolver finds all blocks in one list."""
    while name in vessels:
        name += "_"
    return name


def _condition(name: str, kind: str, values: _Values) -> _Values:
    return {"bc_name": name, "bc_type": kind, "bc_values": values}


def _listed(
    boundary: tuple[AbstractBoundary, ...],
    fed_by_vessels: set[int],
    unit: ZeroDUnits,
    period: float,
    vessels: set[str],
    where: str,
) -> tuple[dict[int, list[str]], dict[int, list[str]], list[_Values]]:
    """The names of the conditions by node, of inlets and of outlets, and all of them."""
    inlets: dict[int, list[str]] = {}
    outlets: dict[int, list[str]] = {}
    listed: list[_Values] = []
    for c in boundary:
        for i, n in enumerate(np.asarray(c.node).tolist()):
            kind = _KIND.get(type(c))
            if kind is None:
                raise InputError(
                    f"a {c.kind} ends the network",
                    where=where,
                    expected=f"one of {', '.join(sorted(set(_KIND.values())))}",
                    fix="Replace it",
                )
            # only a FLOW and a PRESSURE can feed a network
            is_inlet = kind in ("FLOW", "PRESSURE") and n not in fed_by_vessels
            name = _free(f"{'IN' if is_inlet else 'OUT'}{len(listed)}", vessels)
            listed.append(_condition(name, kind, _values(c, i, is_inlet, unit, period)))
            (inlets if is_inlet else outlets).setdefault(n, []).append(name)
    return inlets, outlets, listed


_KIND: Mapping[type, str] = {
    PressureBoundary: "PRESSURE",
    PressureWaveform: "PRESSURE",
    FlowBoundary: "FLOW",
    FlowWaveform: "FLOW",
    ResistanceOutlet: "RESISTANCE",
    WindkesselOutlet: "RCR",
    CoronaryOutletSvOneD: "CORONARY",
    CoronaryOutletSvZeroD: "CORONARY",
}


def _values(
    c: AbstractBoundary, i: int, is_inlet: bool, unit: ZeroDUnits, period: float
) -> _Values:
    """The numbers of one condition, in the units of the case."""
    of = lambda x, factor: float(np.asarray(x, np.float64)[i] / factor)
    if isinstance(c, PressureBoundary | PressureWaveform):
        return _table("P", c.pressure, i, unit.pressure, period)
    if isinstance(c, FlowBoundary | FlowWaveform):
        return _table("Q", c.flow, i, unit.flow if is_inlet else -unit.flow, period)
    if isinstance(c, ResistanceOutlet):
        return {
            "R": of(c.resistance, unit.resistance),
            "Pd": of(c.pressure_ref, unit.pressure),
        }
    if isinstance(c, WindkesselOutlet):
        return {
            "Rp": of(c.resistance_proximal, unit.resistance),
            "C": of(c.compliance, unit.compliance),
            "Rd": of(c.resistance_distal, unit.resistance),
            "Pd": of(c.pressure_ref, unit.pressure),
        }
    assert isinstance(c, CoronaryOutletSvOneD | CoronaryOutletSvZeroD)
    sink = -c.pressure_offset if isinstance(c, CoronaryOutletSvOneD) else c.pressure_ref
    around = np.zeros(i + 1) if c.pressure_im is None else c.pressure_im
    return {
        "Ra1": of(c.resistance_proximal, unit.resistance),
        "Ra2": of(c.resistance_middle, unit.resistance),
        "Rv1": of(c.resistance_distal, unit.resistance),
        "Ca": of(c.compliance_proximal, unit.compliance),
        "Cc": of(c.compliance_distal, unit.compliance),
        "P_v": of(sink, unit.pressure),
        **_table("Pim", around, i, unit.pressure, period),
    }


def _table(key: str, value: Any, i: int, factor: float, period: float) -> _Values:
    """A constant as two equal numbers, a waveform at its knots from 0 to the period."""
    if not isinstance(value, Waveform):
        number = float(np.asarray(value, np.float64)[i] / factor)
        return {key: [number, number], "t": [0.0, period]}
    time = np.asarray(value.time, np.float64)
    row = np.asarray(value.value, np.float64)[i] / factor
    end = float(np.asarray(value.period))
    if time[0] > 0.0:
        first = row[-1] if time[-1] >= end else np.interp(end, [time[-1], end + time[0]],
                                                          [row[-1], row[0]])  # fmt: skip
        time, row = np.append(0.0, time), np.append(first, row)
    if time[-1] < end:
        time, row = np.append(time, end), np.append(row, row[0])
    return {key: row.tolist(), "t": time.tolist()}
