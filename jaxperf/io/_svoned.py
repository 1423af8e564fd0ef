"""svOneDSolver cases: network, boundary data, wall and blood, from CGS to SI."""

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._misc import check_frame, InputError
from ..network import (
    AbstractBoundary,
    build_network,
    CoronaryOutletSvOneD,
    FlowBoundary,
    FlowWaveform,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    VascularNetwork,
    Waveform,
)
from ..units import (
    KG_M3_PER_G_CM3,
    M3_PA_PER_CM5_DYN,
    M3_S_PER_CM3_S,
    M_PER_CM,
    PA_PER_DYN_CM2,
    PA_S_M3_PER_DYN_S_CM5,
    PA_S_PER_POISE,
)
from ._svoned_cards import Card, Cards, EXPECTED, read_cards

_INLET = ("PRESSURE", "PRESSURE_WAVE", "FLOW")
_OUTLET = ("NOBOUND", "RESISTANCE", "CORONARY")


@dataclass(frozen=True)
class SvOneDMaterial:
    """Wall and blood of a MATERIAL card, SI.

    Wall: $p = \\tfrac43 (k_1 e^{k_2 r_0} + k_3)(1 - \\sqrt{S_0/S}) + p_{ref}$ with `k1`, `k3` in
    Pa and `k2` in 1/m. Blood: `density` kg/m³, `viscosity` Pa·s, and `profile_exponent` ζ of the
    velocity profile.
    """

    name: str
    density: float
    viscosity: float
    reference_pressure: float
    profile_exponent: float
    k1: float
    k2: float
    k3: float


@dataclass(frozen=True)
class SvOneDCase:
    """What a svOneDSolver input file says, in SI.

    - `network`: one segment for each SEGMENT card, in the order of the file, with the length of
      the card. Joints connect by topology: a side branch starts at its parent's node.
    - `ostium_offset`: (s,) m, how far the first node of each segment lies from the node it is
      joined to. svOneDSolver ignores these gaps, and so do the lengths.
    - `segment_name`: the names on the cards.
    - `boundary`: inlet and outlets, with their tables as waveforms. svOneDSolver means static
      pressures.
    - `material`: the materials, and `segment_material`, (s,), an index into them.
    - `time_step` (s), `n_steps`: of the reference run.
    """

    name: str
    network: VascularNetwork
    ostium_offset: Float[np.ndarray, " s"]
    segment_name: tuple[str, ...]
    boundary: tuple[AbstractBoundary, ...]
    material: tuple[SvOneDMaterial, ...]
    segment_material: Int[np.ndarray, " s"]
    time_step: float
    n_steps: int


def read_svoned(
    path: str | os.PathLike,
    *,
    frame: str = "model",
    branch_name: Mapping[str, str] | None = None,
) -> SvOneDCase:
    """Read a svOneDSolver input file; its units are centimetre, gram, second.

    Segments named `lc1_0`, `lc1_1`, … make up the branch `lc1`.

    **Arguments:**

    - `frame`: frame of the node coordinates.
    - `branch_name`: new names for these branches.

    **Returns:** a [`SvOneDCase`][]. Supported: inlets PRESSURE, PRESSURE_WAVE and FLOW, outlets
    RESISTANCE and CORONARY, material OLUFSEN, no minor losses.

    **Errors:** [`InputError`][] naming file and line, for anything else too.

    **Source:** svOneDSolver, *Input File Guide*; the order of a CORONARY table's parameters and
    of a RESISTANCE table's is that of `cvOneDSubdomain.cxx`.

    **Example:**

    ```python
    from pathlib import Path
    import jaxperf as jp
    Path("case.in").write_text('''
    MODEL one_vessel
    NODE 0 0 0 0
    NODE 1 5 0 0
    SEGMENT lad_0 0 5.0 20 0 1 0.1 0.06 0.0 WALL NONE 0.0 0 0 RESISTANCE OUT
    DATATABLE IN LIST
    0.0 100000
    ENDDATATABLE
    DATATABLE OUT LIST
    0.0 1.0e5
    ENDDATATABLE
    SOLVEROPTIONS 0.005 10 400 2 IN PRESSURE_WAVE 1.0e-5 1 1
    MATERIAL WALL OLUFSEN 1.06 0.04 0 2.0 2e7 -22.53 8.65e5
    ''')
    case = jp.io.read_svoned("case.in")
    ```
    """
    where = str(path)
    check_frame(frame, where)
    cards = read_cards(path)
    if not cards.segment or cards.options is None:
        raise InputError(
            f"it has {len(cards.segment)} SEGMENT and {int(cards.options is not None)} "
            "SOLVEROPTIONS cards",
            where=where,
            expected=EXPECTED,
            fix="Check that the file is complete",
        )
    index = {number: i for i, number in enumerate(cards.segment)}
    segments = list(cards.segment.values())
    parent = _parents(cards, index)
    network, offset = _network(cards, segments, parent, frame, branch_name or {}, where)
    material = tuple(_material(card) for card in cards.material.values())
    names = [m.name for m in material]
    return SvOneDCase(
        name=cards.model,
        network=network,
        ostium_offset=offset,
        segment_name=tuple(card.field[0] for card in segments),
        boundary=(_inlet(cards, network), *_outlets(cards, segments, network, where)),
        material=material,
        segment_material=np.array(
            [names.index(_known(card, 9, names, "material")) for card in segments], np.int64
        ),
        time_step=cards.options.number(0, "time step"),
        n_steps=cards.options.whole(2, "number of steps"),
    )


def _known(card: Card, i: int, names: Collection[str], what: str) -> str:
    if card.field[i] not in names:
        raise InputError(
            f"the {what} {card.field[i]} is not defined",
            where=card.where,
            expected=f"one of {', '.join(map(str, names)) or 'the file (there is none)'}",
            fix=f"Define the {what} or correct its name",
        )
    return card.field[i]


def _supported(card: Card, i: int, kinds: tuple[str, ...], what: str) -> str:
    if card.field[i] not in kinds:
        raise InputError(
            f"the {what} is {card.field[i]}",
            where=card.where,
            expected=f"one of those this reader supports: {', '.join(kinds)}",
            fix="Replace it, or leave the part out",
        )
    return card.field[i]


def _parents(cards: Cards, index: dict[int, int]) -> Int[np.ndarray, " s"]:
    """The segment that each segment follows, −1 for the inlet."""
    parent = np.full(len(index), -1, np.int64)
    for joint in cards.joint:
        inlets = _joined(cards.joint_inlet, joint, 2, index, "JOINTINLET")
        outlets = _joined(cards.joint_outlet, joint, 3, index, "JOINTOUTLET")
        for s in outlets:
            if len(inlets) != 1 or parent[s] >= 0:
                raise InputError(
                    f"joint {joint.field[0]} makes segments meet again",
                    where=joint.where,
                    expected="a tree: one segment enters a joint, and each segment leaves one",
                    fix="Cut the loop",
                )
            parent[s] = inlets[0]
    followed = set(parent.tolist())
    for number, i in index.items():
        card = cards.segment[number]
        kind = _supported(card, 14, _OUTLET, "boundary condition")
        _supported(card, 10, ("NONE",), "minor loss")
        if (kind == "NOBOUND") != (i in followed):
            raise InputError(
                f"segment {card.field[0]} has the boundary condition {kind} and "
                + ("a joint" if i in followed else "no joint")
                + " at its end",
                where=card.where,
                expected="either a joint or a boundary condition",
                fix="Add the missing JOINT, or correct the boundary condition",
            )
    return parent


def _joined(
    lists: Mapping[str, Card], joint: Card, i: int, index: dict[int, int], what: str
) -> list[int]:
    card = lists[_known(joint, i, list(lists), what)]
    numbers = [card.whole(k, "segment number") for k in range(2, len(card.field))]
    if len(numbers) != card.whole(1, "number of segments"):
        raise InputError(
            f"{what} {card.field[0]} lists {len(numbers)} segments",
            where=card.where,
            expected=f"{card.field[1]}, as the card says",
            fix="Correct the line",
        )
    for n in numbers:
        if n not in index:
            raise InputError(
                f"{what} {card.field[0]} names segment {n}, which is not defined",
                where=card.where,
                expected="the number of a SEGMENT card",
                fix="Correct the line",
            )
    return [index[n] for n in numbers]


def _network(
    cards: Cards,
    segments: list[Card],
    parent: Int[np.ndarray, " s"],
    frame: str,
    branch_name: Mapping[str, str],
    where: str,
) -> tuple[VascularNetwork, Float[np.ndarray, " s"]]:
    inlets = np.flatnonzero(parent < 0)
    if len(inlets) != 1:
        names = ", ".join(segments[i].field[0] for i in inlets[:5])
        raise InputError(
            f"{len(inlets)} segments follow no joint: {names}",
            where=where,
            expected="one inlet segment",
            fix="Check the JOINT cards",
        )
    start, end = (_node_positions(cards, segments, i) for i in (4, 5))
    # Node 0 is the inlet, node 1 + s the distal end of segment s.
    position = np.concatenate([start[inlets], end]) * M_PER_CM
    proximal = np.where(parent < 0, 0, parent + 1)
    area = np.array([[_positive(c, 6, "area"), _positive(c, 7, "area")] for c in segments])
    length = np.array([_positive(card, 2, "length") for card in segments]) * M_PER_CM
    names = [re.sub(r"_\d+$", "", card.field[0]) for card in segments]
    branches = list(dict.fromkeys(names))
    for key in branch_name:
        if key not in branches:
            raise InputError(
                f"there is no branch {key!r}",
                where=f"{where}, branch_name",
                expected=f"one of {', '.join(branches)}",
                fix="Correct the name",
            )
    network = build_network(
        position,
        np.stack([proximal, np.arange(len(segments)) + 1], axis=1),
        np.sqrt(area / np.pi) * M_PER_CM,
        root=np.array([0], np.int64),
        frame=frame,
        length=length,
        branch=np.array([branches.index(n) for n in names], np.int64),
        branch_name=tuple(branch_name.get(b, b) for b in branches),
        where=where,
    )
    offset = np.linalg.norm(start * M_PER_CM - position[proximal], axis=1)
    return network, offset


def _node_positions(cards: Cards, segments: list[Card], i: int) -> Float[np.ndarray, "s 3"]:
    rows = []
    for card in segments:
        number = card.whole(i, "node number")
        if number not in cards.node:
            raise InputError(
                f"segment {card.field[0]} names node {number}, which is not defined",
                where=card.where,
                expected="the number of a NODE card",
                fix="Add the node or correct the line",
            )
        rows.append([cards.node[number].number(k, "coordinate") for k in (1, 2, 3)])
    return np.array(rows, np.float64)


def _positive(card: Card, i: int, what: str) -> float:
    value = card.number(i, what)
    if value <= 0:
        raise InputError(
            f"the {what} of {card.field[0]} is {value:g}",
            where=card.where,
            expected="a positive number",
            fix="Correct the line",
        )
    return value


def _material(card: Card) -> SvOneDMaterial:
    if card.field[1] != "OLUFSEN" or len(card.field) != 9:
        raise InputError(
            f"material {card.field[0]} is {card.field[1]} with {len(card.field) - 6} parameters",
            where=card.where,
            expected="OLUFSEN with three parameters",
            fix="Write a LINEAR wall as OLUFSEN with k1 = 0, k2 = 0, k3 = E*h/r",
        )
    value = [card.number(i, "material parameter") for i in range(2, 9)]
    return SvOneDMaterial(
        name=card.field[0],
        density=value[0] * KG_M3_PER_G_CM3,
        viscosity=value[1] * PA_S_PER_POISE,
        reference_pressure=value[2] * PA_PER_DYN_CM2,
        profile_exponent=value[3],
        k1=value[4] * PA_PER_DYN_CM2,
        k2=value[5] / M_PER_CM,
        k3=value[6] * PA_PER_DYN_CM2,
    )


def _table(entries: list[tuple[float, float]], unit: float, card: Card) -> Float[np.ndarray, "m 2"]:
    """Times (s) and values in SI of a table over one cycle; its last time is the period."""
    table = np.array(entries, np.float64) * np.array([1.0, unit])
    if table[0, 0] < 0 or (np.diff(table[:, 0]) <= 0).any():
        raise InputError(
            "the times of its table are negative or do not increase",
            where=card.where,
            expected="increasing times from 0 on",
            fix="Correct the table",
        )
    return table


def _inlet(cards: Cards, network: VascularNetwork) -> AbstractBoundary:
    options = cards.options
    assert options is not None
    kind = _supported(options, 5, _INLET, "inlet boundary condition")
    entries = cards.table[_known(options, 4, list(cards.table), "table")]
    is_flow, node = kind == "FLOW", jnp.asarray(network.roots)
    table = _table(entries, M3_S_PER_CM3_S if is_flow else PA_PER_DYN_CM2, options)
    if len(table) == 1:
        value = jnp.asarray(table[:, 1])
        return FlowBoundary(node, value) if is_flow else PressureBoundary(node, value)
    waveform = Waveform(table[:, 0], table[None, :, 1], table[-1, 0])
    return FlowWaveform(node, waveform) if is_flow else PressureWaveform(node, waveform)


def _on_common_knots(tables: list[Float[np.ndarray, "_ 2"]], where: str) -> Waveform | None:
    """The tables as one waveform, each exactly; None where each is one entry, a constant."""
    end = sorted({float(table[-1, 0]) for table in tables if len(table) > 1})
    if not end:
        return None
    if len(end) > 1:
        raise InputError(
            f"the tables of its CORONARY outlets end at {end[0]:g} and {end[-1]:g} s",
            where=where,
            expected="intramyocardial pressures of one period",
            fix="Give every table the same last time",
        )
    time = np.unique(np.concatenate([table[:, 0] for table in tables if len(table) > 1]))
    # A table that starts after 0 goes there from its last value, which is that of time 0.
    value = [np.interp(time, t[:, 0], t[:, 1]) for t in map(_from_zero, tables)]
    return Waveform(time, np.stack(value), end[0])


def _from_zero(table: Float[np.ndarray, "_ 2"]) -> Float[np.ndarray, "_ 2"]:
    return table if table[0, 0] == 0.0 else np.concatenate([[[0.0, table[-1, 1]]], table])


def _outlets(
    cards: Cards, segments: list[Card], network: VascularNetwork, where: str
) -> list[AbstractBoundary]:
    distal = np.asarray(network.segment_node)[:, 1].tolist()
    resistance, coronary, pim = [], [], []
    for i, card in enumerate(segments):
        if card.field[14] == "NOBOUND":
            continue
        entries = cards.table[_known(card, 15, list(cards.table), "table")]
        if card.field[14] == "RESISTANCE":
            if len(entries) > 2:
                _refuse_outlet(card, len(entries), "resistance and, if not 0, distal pressure")
            values = [v for _, v in entries] + [0.0]
            resistance.append((distal[i], *values[:2]))
            continue
        if len(entries) < 7 or any(t >= 0 for t, _ in entries[:6]):
            _refuse_outlet(
                card,
                len(entries),
                "Ra, Ra_micro, Ca, Cim, Rv, P_ref at negative times, then the intramyocardial "
                "pressure",
            )
        coronary.append((distal[i], *(v for _, v in entries[:6])))
        pim.append(_table(entries[6:], PA_PER_DYN_CM2, card))
    boundary: list[AbstractBoundary] = []
    if resistance:
        node, r, p = _columns(resistance)
        boundary.append(ResistanceOutlet(node, r * PA_S_M3_PER_DYN_S_CM5, p * PA_PER_DYN_CM2))
    if coronary:
        node, ra, micro, ca, cim, rv, p = _columns(coronary)
        ra, micro, rv = (x * PA_S_M3_PER_DYN_S_CM5 for x in (ra, micro, rv))
        ca, cim = (x * M3_PA_PER_CM5_DYN for x in (ca, cim))
        wave = _on_common_knots(pim, where)
        boundary.append(
            CoronaryOutletSvOneD(node, ra, micro, rv, ca, cim, p * PA_PER_DYN_CM2, wave)
        )
    return boundary


def _columns(rows: list[tuple[float, ...]]) -> list[Array]:
    node, *values = zip(*rows, strict=True)
    return [jnp.asarray(np.array(node, np.int32)), *(jnp.asarray(np.array(v)) for v in values)]


def _refuse_outlet(card: Card, count: int, expected: str) -> None:
    raise InputError(
        f"the table {card.field[15]} of {card.field[0]} has {count} entries",
        where=card.where,
        expected=f"a {card.field[14]} table: {expected}",
        fix="Correct the table",
    )
