"""svOneDSolver cases: network, boundary data, wall and blood, from CGS to SI."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .._custom_types import as_leaf
from .._misc import check_frame, InputError
from ..network import AbstractBoundary, build_network, Lesions, VascularNetwork
from ..units import KG_M3_PER_G_CM3, M_PER_CM, PA_PER_DYN_CM2, PA_S_PER_POISE
from ._svoned_boundary import defined, outlet_kind, read_inlet, read_outlets, supported
from ._svoned_cards import Card, Cards, EXPECTED, read_cards

# Minor losses whose physics is missing.
_BRANCHING = (
    "BRANCH_THROUGH_DIVIDING",
    "BRANCH_SIDE_DIVIDING",
    "BRANCH_THROUGH_CONVERGING",
    "BRANCH_SIDE_CONVERGING",
    "BIFURCATION_BRANCH",
)
_LOSSES: dict[str, str] = dict.fromkeys(_BRANCHING, "a loss at a branching")


@dataclass(frozen=True)
class SvOneDMaterial:
    """Wall and blood of a MATERIAL card, SI.

    Wall: $p = \\tfrac43 (k_1 e^{k_2 r_0} + k_3)(1 - \\sqrt{S_0/S}) + p_{ref}$ with `k1`, `k3` in
    Pa and `k2` in 1/m; a LINEAR wall has `k3` alone. Blood: `density` kg/m³, `viscosity` Pa·s,
    and `profile_exponent` ζ of the velocity profile.
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
    - `notes`: what is doubtful in the file or depends on the version that it was written for, as
      sentences.
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
    notes: tuple[str, ...] = ()


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

    **Returns:** a [`SvOneDCase`][]. Read are all cards; inlets PRESSURE, PRESSURE_WAVE and FLOW;
    outlets RESISTANCE, RCR, CORONARY, PRESSURE and PRESSURE_WAVE; materials OLUFSEN and LINEAR;
    segments with the loss STENOSIS, which become lesions of the calibre upstream. A conductivity
    of the wall and other losses are refused.

    **Errors:** [`InputError`][] naming file and line, for anything else too.

    **Source:** svOneDSolver, *Input File Guide*; the order of the parameters in outlets' tables is
    that of `cvOneDSubdomain.cxx`, the law of LINEAR that of `cvOneDMaterialLinear.cxx` since
    November 2023, p = 4/3 E h/r (1 − √(S0/S)); before, it had no 4/3.

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
    material = tuple(_material(card) for card in cards.material.values())
    names = [m.name for m in material]
    of_segment = [names.index(defined(card, 9, names, "material")) for card in segments]
    exponent = np.array([material[i].profile_exponent for i in of_segment])
    network, offset = _network(cards, segments, parent, exponent, frame, branch_name or {}, where)
    node = np.asarray(network.segment_node)[:, 1].tolist()
    boundary, notes = read_inlet(cards, network)
    outlets, more = read_outlets(cards, segments, node)
    return SvOneDCase(
        name="model" if cards.model is None else cards.model.field[0],
        network=network,
        ostium_offset=offset,
        segment_name=tuple(card.field[0] for card in segments),
        boundary=(boundary, *outlets),
        material=material,
        segment_material=np.array(of_segment, np.int64),
        time_step=cards.options.number(0, "time step"),
        n_steps=cards.options.whole(2, "number of steps"),
        notes=(*notes, *more, *_linear_notes(cards)),
    )


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
        kind = outlet_kind(card)
        supported(card, 10, ("NONE", "STENOSIS"), "minor loss", _LOSSES)
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
    card = lists[defined(joint, i, list(lists), what)]
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
    exponent: Float[np.ndarray, " s"],
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
    radius = np.sqrt(area / np.pi) * M_PER_CM
    radius, lesion = _stenoses(segments, parent, radius, length, exponent)
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
        radius,
        root=np.array([0], np.int64),
        frame=frame,
        length=length,
        branch=np.array([branches.index(n) for n in names], np.int64),
        branch_name=tuple(branch_name.get(b, b) for b in branches),
        lesion=lesion,
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


def _stenoses(
    segments: list[Card],
    parent: Int[np.ndarray, " s"],
    radius: Float[np.ndarray, "s 2"],
    length: Float[np.ndarray, " s"],
    exponent: Float[np.ndarray, " s"],
) -> tuple[Float[np.ndarray, "s 2"], Lesions | None]:
    """Segments with the loss STENOSIS as lesions of the calibre upstream.

    svOneDSolver puts Young and Tsai's law by itself in place of the segment's friction, we add a
    lesion's to it. The length of the lesion is the one at which both say the same: with
    f = (D0/D1)⁴, (0.83 L' + 1.64 D1) f − (0.83 L' + 1.64 D0) + k L = (0.83 L + 1.64 D1) f, where
    k = (ζ + 2)/4 is the segment's friction over Poiseuille's.
    """
    found = [i for i, card in enumerate(segments) if card.field[10] == "STENOSIS"]
    if not found:
        return radius, None
    filled, reduction, apparent = radius.copy(), [], []
    for i in found:
        card, narrow = segments[i], float(radius[i].mean())
        upstream = float(radius[parent[i], 1]) if parent[i] >= 0 else 0.0
        if not narrow < upstream:
            raise InputError(
                f"{card.field[0]} is a STENOSIS of {narrow / M_PER_CM:.4g} cm radius and the "
                + (f"end before it of {upstream / M_PER_CM:.4g} cm" if upstream else "inlet"),
                where=card.where,
                expected="a segment that is narrower than the one it follows",
                fix="Correct the areas, or write NONE for the loss",
            )
        f = (upstream / narrow) ** 4
        own = 0.25 * (exponent[i] + 2.0) * length[i]
        apparent.append((0.83 * length[i] * f - own + 3.28 * upstream) / (0.83 * (f - 1.0)))
        if not apparent[-1] > 0.0:
            raise InputError(
                f"{card.field[0]} is a STENOSIS of {length[i] / M_PER_CM:.4g} cm length that is "
                f"{1.0 - narrow / upstream:.1%} narrower than the end before it. Its loss is less "
                f"than the friction of a segment of {upstream / M_PER_CM:.4g} cm radius",
                where=card.where,
                expected="a loss above that friction: a shorter or a narrower segment",
                fix="Write NONE for the loss, which gives the segment its own friction, or correct "
                "the length and the areas",
            )
        reduction.append(1.0 - narrow / upstream)
        filled[i] = upstream
    number = as_leaf(np.arange(len(found)), np.int32)
    lesion = Lesions(
        diameter_reduction=as_leaf(np.array(reduction)),
        length=as_leaf(np.array(apparent)),
        segment=as_leaf(np.array(found), np.int32),
        lesion=number,
        fraction=as_leaf(np.ones(len(found))),
    )
    return filled, lesion


def _linear_notes(cards: Cards) -> list[str]:
    return [
        f"{card.where}: the LINEAR wall is read with the factor 4/3 that svOneDSolver gives it "
        "since November 2023; for a file written before, multiply its parameter by 3/4."
        for card in cards.material.values()
        if card.field[1].upper() == "LINEAR"
    ]


# Parameters of a wall by its kind, and whether two more say how it leaks.
_PARAMETERS = {"OLUFSEN": 3, "LINEAR": 1}


def _material(card: Card) -> SvOneDMaterial:
    kind = card.field[1].upper()
    wanted, given = _PARAMETERS.get(kind, 0), len(card.field) - 6
    if not wanted or given not in (wanted, wanted + 2):
        raise InputError(
            f"material {card.field[0]} is {card.field[1]} with {given} parameters",
            where=card.where,
            expected="OLUFSEN with three parameters or LINEAR with one, and two more of a wall "
            "that leaks",
            fix="Correct the line",
        )
    value = [card.number(i, "material parameter") for i in range(2, len(card.field))]
    if given > wanted and value[-2] != 0.0:
        raise InputError(
            f"the wall of material {card.field[0]} leaks, with the conductivity {value[-2]:g}",
            where=card.where,
            expected="a wall that holds its blood: outflow through the wall is not modelled",
            fix="Remove the last two parameters to run it without outflow",
        )
    k1, k2, k3 = value[4:7] if kind == "OLUFSEN" else (0.0, 0.0, value[4])
    return SvOneDMaterial(
        name=card.field[0],
        density=value[0] * KG_M3_PER_G_CM3,
        viscosity=value[1] * PA_S_PER_POISE,
        reference_pressure=value[2] * PA_PER_DYN_CM2,
        profile_exponent=value[3],
        k1=k1 * PA_PER_DYN_CM2,
        k2=k2 / M_PER_CM,
        k3=k3 * PA_PER_DYN_CM2,
    )
