"""svZeroDSolver cases: lumped vessels, junctions and boundary conditions, from JSON."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._misc import InputError
from ..network import AbstractBoundary, build_lumped, LumpedNetwork
from ..units import M3_S_PER_CM3_S, M_PER_CM, PA_PER_DYN_CM2, PA_PER_MMHG
from ._files import read_lines
from ._json_entry import Entry
from ._svzerod_boundary import Condition, conditions, read_condition

_EXPECTED = "a svZeroDSolver case: JSON with vessels, boundary_conditions, simulation_parameters"
_JUNCTIONS = ("NORMAL_JUNCTION", "internal_junction")
# Blocks whose physics is missing, by the key of their list.
_MISSING = ("valves", "chambers", "closed_loop_blocks", "external_solver_coupling_blocks")
_VALUES = ("R_poiseuille", "C", "L", "stenosis_coefficient")
# Parameters of a simulation that mean the same in all units.
_PARAMETERS = (
    "number_of_cardiac_cycles",
    "number_of_time_pts_per_cardiac_cycle",
    "steady_initial",
    "maximum_nonlinear_iterations",
    "output_all_cycles",
    "output_interval",
    "output_mean_only",
    "output_derivative",
    "output_variable_based",
    "use_cycle_to_cycle_error",
    "sim_cycle_to_cycle_percent_error",
)
# What is read of a vessel, a junction and a condition, by the key of their list.
_READ = {
    "vessels": {
        "vessel_id",
        "vessel_name",
        "vessel_length",
        "boundary_conditions",
        "zero_d_element_type",
        "zero_d_element_values",
    },
    "junctions": {
        "junction_name",
        "junction_type",
        "inlet_vessels",
        "outlet_vessels",
        "inlet_blocks",
        "outlet_blocks",
    },
    "boundary_conditions": {"bc_name", "bc_type", "bc_values"},
}


@dataclass(frozen=True)
class ZeroDUnits:
    """SI in one unit of pressure, of flow and of length; the second is the unit of time."""

    pressure: float
    flow: float
    length: float

    @property
    def resistance(self) -> float:
        return self.pressure / self.flow

    @property
    def quadratic(self) -> float:
        return self.pressure / self.flow**2

    @property
    def compliance(self) -> float:
        return self.flow / self.pressure


ZERO_D_UNITS: Mapping[str, ZeroDUnits] = {
    "cgs": ZeroDUnits(PA_PER_DYN_CM2, M3_S_PER_CM3_S, M_PER_CM),
    "mmHg": ZeroDUnits(PA_PER_MMHG, M3_S_PER_CM3_S, M_PER_CM),
    "SI": ZeroDUnits(1.0, 1.0, 1.0),
}


def zero_d_units(units: str, where: str) -> ZeroDUnits:
    """The named units of a 0-D case.

    **Errors:** [`InputError`][] that lists them.
    """
    if units not in ZERO_D_UNITS:
        raise InputError(
            f"units is {units!r}",
            where=where,
            expected="cgs (dyn, cm, s), mmHg (mmHg, ml, s, cm) or SI",
            fix="Name the units of the numbers; a svZeroDSolver case does not state them",
        )
    return ZERO_D_UNITS[units]


@dataclass(frozen=True)
class SvZeroDCase:
    """What a svZeroDSolver case says, in SI.

    - `network`: one lumped segment for each vessel, in the order of the file. Its flows times its
      `direction` are positive from the vessel's inlet to its outlet.
    - `boundary`: inlets and outlets. All pressures are those of svZeroDSolver, which knows no
      dynamic pressure: total pressures here.
    - `period`: s, of the waveforms; of constants the last time, 1 where no time is given.
    - `notes`: what is in the file and was not used, as sentences.
    - `parameters`: those of the simulation that mean the same in all units.
    - `beside`: what else the file says and this case does not, such as names of conditions.
    """

    name: str
    network: LumpedNetwork
    boundary: tuple[AbstractBoundary, ...]
    period: float
    notes: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)
    beside: tuple[str, ...] = ()


def read_svzerod(path: str | os.PathLike, *, units: str) -> SvZeroDCase:
    """Read a svZeroDSolver case.

    Read are vessels of type BloodVessel, junctions NORMAL_JUNCTION and internal_junction, and the
    conditions FLOW, PRESSURE, RESISTANCE, RCR and CORONARY. A vessel is a lumped segment, see
    [`jaxperf.network.LumpedNetwork`][].

    **Arguments:** `units`, of the numbers, which the file does not state: `cgs` (dyn, cm, s),
    `mmHg` (mmHg, ml, s and cm) or `SI`.

    **Returns:** a [`SvZeroDCase`][].

    **Errors:** [`InputError`][] naming the file and the key: every other block, ends without a
    condition or a junction, names that are not defined or used twice, impossible values.

    **Source:** svZeroDSolver, *User Guide*; parameters as in `BloodVessel.h`, `WindkesselBC.h`
    and `OpenLoopCoronaryBC.h`, tables as in `Parameter.cpp`.

    **Example:**

    ```python
    import json
    from pathlib import Path
    import jaxperf as jp
    vessel = {
        "vessel_id": 0, "vessel_name": "lad", "vessel_length": 5.0,
        "boundary_conditions": {"inlet": "IN", "outlet": "OUT"},
        "zero_d_element_type": "BloodVessel", "zero_d_element_values": {"R_poiseuille": 100.0},
    }
    inlet = {"bc_name": "IN", "bc_type": "FLOW", "bc_values": {"Q": [1.0, 1.0], "t": [0.0, 1.0]}}
    outlet = {"bc_name": "OUT", "bc_type": "RESISTANCE", "bc_values": {"R": 1e5, "Pd": 0.0}}
    case = {"vessels": [vessel], "boundary_conditions": [inlet, outlet],
            "simulation_parameters": {"number_of_cardiac_cycles": 1}}
    Path("case.json").write_text(json.dumps(case))
    network = jp.io.read_svzerod("case.json", units="cgs").network
    ```
    """
    where = str(path)
    unit = zero_d_units(units, where)
    top = _top(path)
    notes = _notes(top)
    vessels = top.entries("vessels")
    names = _names(vessels, "vessel_name")
    node, at = _Joints(vessels, names), {}
    listed = top.entries("boundary_conditions")
    listing = dict(zip(_names(listed, "bc_name", names), listed, strict=True))
    for side, end in (("inlet", 0), ("outlet", 1)):
        for i, vessel in enumerate(vessels):
            held = vessel.part("boundary_conditions")
            if side in held.value:
                name = held.text(side)
                _attach(at, listing, name, side, node.port(i, end, held), held)
    for junction in top.entries("junctions") if "junctions" in top.value else []:
        _join(junction, node, at, listing)
    number = node.numbered()
    inlets = [b for name, (side, b) in at.items() if side == "inlet"]
    if not inlets:
        raise InputError(
            "no vessel has an inlet condition",
            where=where,
            expected="a FLOW or a PRESSURE at the inlet of a vessel",
            fix="Add it to the vessel's boundary_conditions",
        )
    network = build_lumped(
        number.reshape(-1, 2),
        root=np.array([number[b] for b in inlets]),
        where=where,
        segment_name=tuple(names),
        **_values(vessels, unit),
    )
    unused = [name for name in listing if name not in at]
    notes += [f"the condition {name} is used by no vessel." for name in unused]
    read: list[Condition] = [
        read_condition(listing[name], int(number[b]), side == "inlet", unit)
        for name, (side, b) in at.items()
    ]
    boundary, period = conditions(read, _period(top), where)
    name = os.path.splitext(os.path.basename(where))[0]
    given = top.part("simulation_parameters").value
    parameters = {key: given[key] for key in _PARAMETERS if key in given}
    return SvZeroDCase(
        name, network, boundary, period, tuple(notes), parameters, tuple(_beside(top))
    )


def _top(path: str | os.PathLike) -> Entry:
    where = str(path)
    text = "\n".join(read_lines(path, _EXPECTED))
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        said = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        raise InputError(
            f"it is no JSON ({said})",
            where=where + line,
            expected=_EXPECTED,
            fix="Correct the line",
        ) from error
    top = Entry(raw, where)
    top.mapping()
    for key in _MISSING:
        for block in top.entries(key) if top.value.get(key) else []:
            kind = next((block.value[k] for k in ("type", "closed_loop_type") if k in block.value),
                        "of no type")  # fmt: skip
            block.refuse(
                f"the block is {kind}, which is not modelled",
                "BloodVessel, NORMAL_JUNCTION, internal_junction, FLOW, PRESSURE, RESISTANCE, RCR "
                "and CORONARY",
                "Leave the block out",
            )
    return top


def _notes(top: Entry) -> list[str]:
    known = {"description", "boundary_conditions", "vessels", "junctions", "simulation_parameters"}
    other = sorted(k for k in set(top.value) - known - set(_MISSING) if not k.startswith("_"))
    return [f"{top.where}: {key} was not used." for key in other]


def _beside(top: Entry) -> list[str]:
    """What the file says and a [`SvZeroDCase`][] does not, its notes aside."""
    vessels = top.entries("vessels")
    ids = [vessel.whole("vessel_id") for vessel in vessels]
    said = ["the description"] if top.value.get("description") else []
    said.append("the names of conditions: they are named anew")
    if top.value.get("junctions"):
        said.append("the names of junctions: they are named anew")
    if ids != list(range(len(ids))):
        said.append("the ids of vessels: they are numbered from 0")
    known = {*_PARAMETERS, "cardiac_period"}
    given = top.part("simulation_parameters").value
    said += [f"the simulation parameter {key}" for key in given if key not in known]
    for key, read in _READ.items():
        for entry in top.entries(key) if top.value.get(key) else []:
            said += [f"{key}: {more}" for more in entry.value if more not in read]
    said += [f"the remark {key}" for key in top.value if key.startswith("_")]
    return list(dict.fromkeys(said))


def _names(entries: list[Entry], key: str, vessels: Sequence[str] = ()) -> list[str]:
    """A name for each, which neither another one nor one of `vessels` has."""
    seen, of_vessels = dict[str, None](), set(vessels)
    for entry in entries:
        name = entry.text(key)
        if name in seen:
            entry.refuse(f"the {key} {name} is used twice", "a name of its own", "Rename one")
        if name in of_vessels:
            entry.refuse(f"the {key} {name} is the name of a vessel too", "a name of its own",
                         "Rename one of the two")  # fmt: skip
        seen[name] = None
    return list(seen)


class _Joints:
    """Which ends of vessels and conditions are one node: `port` 2i is vessel i's inlet."""

    def __init__(self, vessels: list[Entry], names: list[str]) -> None:
        self.vessels, self.names = vessels, names
        self.of_name = {name: i for i, name in enumerate(names)}
        ids = [v.whole("vessel_id") for v in vessels]
        for i, n in enumerate(ids):
            if n in ids[:i]:
                vessels[i].refuse(f"the vessel_id {n} is used twice", "an id of its own",
                                  "Renumber one")  # fmt: skip
        self.of_id = {n: i for i, n in enumerate(ids)}
        self.joint = np.arange(2 * len(vessels))
        self.taken: dict[int, str] = {}

    def port(self, vessel: int, end: int, entry: Entry) -> int:
        """An end of a vessel that a condition or a junction takes."""
        port = 2 * vessel + end
        side = ("inlet", "outlet")[end]
        if port in self.taken:
            entry.refuse(
                f"the {side} of {self.names[vessel]} is connected a second time, after "
                f"{self.taken[port]}",
                "one condition or one junction at each end",
                "Remove one of the two",
            )
        self.taken[port] = entry.where.partition(", ")[2]
        return port

    def join(self, ports: list[int]) -> None:
        joined = np.isin(self.joint, self.joint[ports])
        self.joint[joined] = self.joint[ports[0]]

    def numbered(self) -> np.ndarray:
        """The node of each port."""
        for port in range(len(self.joint)):
            if port not in self.taken:
                i, end = divmod(port, 2)
                side = ("inlet", "outlet")[end]
                self.vessels[i].refuse(
                    f"the {side} of {self.names[i]} has neither a condition nor a junction",
                    "both ends connected",
                    "Add the junction or the condition",
                )
        return np.unique(self.joint, return_inverse=True)[1]


_At = dict[str, tuple[str, int]]


def _attach(
    at: _At, listing: Mapping[str, Entry], name: str, side: str, port: int, entry: Entry
) -> None:
    if name not in listing:
        entry.refuse(
            f"the condition {name} is not defined",
            f"one of {', '.join(listing)}",
            "Define it or correct the name",
        )
    if name in at:
        entry.refuse(
            f"the condition {name} is used a second time", "one end for each", "Define another one"
        )
    at[name] = (side, port)


def _join(junction: Entry, node: _Joints, at: _At, listing: Mapping[str, Entry]) -> None:
    kind, name = junction.text("junction_type"), junction.text("junction_name")
    if kind not in _JUNCTIONS:
        junction.refuse(
            f"the junction {name} is a {kind}, which is not modelled",
            " or ".join(_JUNCTIONS),
            "Give its losses to the vessels, or leave it out",
        )
    by_id = "inlet_vessels" in junction.value
    ports: list[int] = []
    held: list[tuple[str, str]] = []
    for side, end in (("inlet", 1), ("outlet", 0)):
        key = f"{side}_vessels" if by_id else f"{side}_blocks"
        for block in junction.listed(key):
            if not by_id and block in listing:
                held.append((str(block), side))
                continue
            known = node.of_id if by_id else node.of_name
            if isinstance(block, list | dict) or block not in known:
                junction.refuse(
                    f"{key} names {block!r}, which is no vessel",
                    "vessels of the file" if by_id else "vessels or conditions of the file",
                    "Correct it",
                )
            ports.append(node.port(known[block], end, junction))
    if not ports:
        junction.refuse(f"the junction {name} joins no vessel", "vessels", "Remove it")
    node.join(ports)
    for condition, side in held:
        _attach(at, listing, condition, side, ports[0], junction)


def _values(vessels: list[Entry], unit: ZeroDUnits) -> dict[str, np.ndarray]:
    """R, S, L, C and length of the vessels in SI."""
    rows = []
    for vessel in vessels:
        kind = vessel.text("zero_d_element_type")
        if kind != "BloodVessel":
            vessel.refuse(
                f"the vessel {vessel.text('vessel_name')} is a {kind}, which is not modelled",
                "BloodVessel",
                "Replace it, or leave it out",
            )
        values = vessel.part("zero_d_element_values")
        values.only(_VALUES)
        row = [values.number("R_poiseuille", least=0.0)]
        row += [values.number(k, 0.0, least=0.0) for k in _VALUES[1:]]
        if row[0] == row[3] == 0.0:
            values.refuse(
                f"{vessel.text('vessel_name')} has neither R_poiseuille nor stenosis_coefficient",
                "a vessel in which a pressure drives a flow",
                "Give it a resistance, or join its two ends",
            )
        rows.append([*row, vessel.number("vessel_length", np.nan, least=0.0)])
    r, c, inert, s, length = np.array(rows, np.float64).T
    return {
        "resistance": r * unit.resistance,
        "quadratic": s * unit.quadratic,
        "inertance": inert * unit.resistance,
        "compliance": c * unit.compliance,
        "length": length * unit.length,
    }


def _period(top: Entry) -> float | None:
    given: Any = top.part("simulation_parameters")
    return given.number("cardiac_period", least=0.0) if "cardiac_period" in given.value else None
