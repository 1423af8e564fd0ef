"""openBF cases: network, boundary data, wall and blood."""

import os
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ..network import (
    AbstractBoundary,
    build_network,
    FlowWaveform,
    PressureWaveform,
    VascularNetwork,
    Waveform,
    WindkesselOutlet,
)
from ..units import M_PER_CM, PA_PER_MMHG
from ..vessel import Blood, ConstantViscosity
from ._openbf_file import OpenBFFile, read_inlet_table, read_openbf_file, VesselSection
from ._waveforms import check_beat, jump_between_beats

# Wall thickness over radius, a exp(b r) + c exp(d r), where a vessel states no h0.
_THICKNESS = (0.2802, -5.053e2, 0.1324, -0.1114e2)
# 1 − σ² for σ = ½
_PLANE_STRAIN = 0.75
# Beyond any heart, so that ml/s and mmHg read as SI are caught.
_LARGEST = {"Q": (5e-3, "m3/s"), "P": (1e5, "Pa")}


@dataclass(frozen=True)
class OpenBFCase:
    r"""What an openBF case says, in SI.

    Wall: $p = p_{ext} + \tfrac43\frac{Eh}{r}\left(\sqrt{A/A_0}-1\right)
    + \frac{\Gamma}{A_0\sqrt A}\partial_tA$ with the reference area at `pressure_external`.

    - `network`: one segment for each vessel, in the order of the file, with its label as branch.
      A vessel that closes a loop towards the inlet is turned round, and its flow with it. openBF
      knows no positions; these only spread the nodes out.
    - `boundary`: the inlet's waveform and the windkessels. openBF keeps the *static* pressure at
      inlets, outlets and branchings; where two vessels join in line it keeps the total pressure.
    - `blood`: momentum coefficient 1, as openBF's flux Q²/A has it, whatever the profile.
    - `stiffness_segment`: (s, 2), E h / r at the proximal and distal end, Pa.
    - `pressure_external`: (s,), Pa.
    - `wall_viscosity`: (s,), Γ, Pa·s·m, with the mean thickness of the vessel; 0 is elastic.
    - `period`: s, the last time of the inlet file. `n_cycles`: openBF stops there at the latest.
    - `convergence_tolerance`: Pa, root mean square change of the pressure between two cycles at
      which openBF stops; None in a case of version 1, which states per cent.
    - `cfl`: openBF's Courant number. `saved`: labels of the vessels to save. `notes`: what is
      doubtful in the files, as sentences.
    """

    name: str
    network: VascularNetwork
    boundary: tuple[AbstractBoundary, ...]
    blood: Blood
    stiffness_segment: Float[np.ndarray, "s 2"]
    pressure_external: Float[np.ndarray, " s"]
    wall_viscosity: Float[np.ndarray, " s"]
    period: float
    n_cycles: int
    convergence_tolerance: float | None
    cfl: float
    saved: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_openbf(path: str | os.PathLike) -> OpenBFCase:
    r"""Read an openBF case and the inlet files it names, which lie beside it.

    A case whose vessels have the key `inlet` is of version 1, any other of version 2. They differ
    in the inlet (version 2: a flow into node 1), in the profile exponent $\zeta$ where
    `gamma_profile` is left out (9, 2), and in the radius that the wall thickness follows where
    `h0` is left out (the mean of the vessel, the local one):
    $h = r\,(0.2802\,e^{-505.3r} + 0.1324\,e^{-11.14r})$.

    An outlet without `R2` is a two-element windkessel of resistance `R1`: its proximal resistance
    is the impedance $\rho c/A$ of the vessel at its reference area, as it is, of the sum, with
    `inlet_impedance_matching`. `phi` (Pa·s) gives $\Gamma = \tfrac23\sqrt\pi\,\varphi h$.

    Not used: `M`, `jump`, `initial_pressure`, `initial_flow`, `write_results` and the names of
    folders, which belong to openBF's own grid, start and files.

    **Returns:** an [`OpenBFCase`][].

    **Errors:** [`InputError`][] naming file, vessel and key for unknown keys, impossible values,
    reflection coefficients, vessels of several profiles, and ends without a condition.

    **Source:** openBF, *Configuration* and its source. Deviations: openBF adapts a matched
    impedance in time, counts the resistance of a two-element windkessel twice in version 2, and
    there shrinks the taper by the length of a cell in m and does not see keys written with
    spaces; what its documentation and the file say is kept.

    **Example:**

    ```python
    from pathlib import Path
    import jaxperf as jp
    Path("beat.dat").write_text("\n".join(["0 0", "0.2 4e-4", "0.5 0", "0.8 0"]))
    Path("case.yaml").write_text('''
    project_name: one vessel
    inlet_file: beat.dat
    blood: {rho: 1060, mu: 4e-3}
    solver: {Ccfl: 0.9, cycles: 20, convergence_tolerance: 2.0}
    network:
      - {label: aorta, sn: 1, tn: 2, L: 0.1, E: 4e5, R0: 0.01, h0: 1e-3,
         outlet: wk3, R1: 2e8, R2: 1.8e9, Cc: 2e-10}
    ''')
    case = jp.io.read_openbf("case.yaml")
    ```
    """
    where = str(path)
    file = read_openbf_file(path)
    _check_topology(file, where)
    network, index = _network(file, where)
    radius = np.asarray(network.radius, np.float64)
    thickness = _thickness(file, radius)
    modulus = np.array([v.E for v in file.network])
    stiffness = modulus[:, None] * thickness / radius
    period, inlets, notes = _inlets(file, index, path)
    return OpenBFCase(
        name=file.project_name,
        network=network,
        boundary=(*inlets, _outlets(file, index, stiffness, where)),
        blood=_blood(file, where),
        stiffness_segment=stiffness,
        pressure_external=np.array([v.Pext for v in file.network]),
        wall_viscosity=np.array([v.phi for v in file.network])
        * thickness.mean(axis=1)
        * (np.sqrt(np.pi) / (2.0 * _PLANE_STRAIN)),
        period=period,
        n_cycles=file.solver.cycles,
        convergence_tolerance=(
            file.solver.convergence_tolerance * PA_PER_MMHG if file.version == 2 else None
        ),
        cfl=file.solver.Ccfl,
        saved=tuple(v.label for v in file.network if v.to_save),
        notes=notes,
    )


def _refuse(vessel: VesselSection, what: str, where: str, expected: str, fix: str) -> None:
    raise InputError(what, where=f"{where}, vessel {vessel.label}", expected=expected, fix=fix)


def _fed(file: OpenBFFile) -> list[VesselSection]:
    """The vessels with an inlet."""
    if file.version == 1:
        return [v for v in file.network if v.inlet is not None]
    return [v for v in file.network if v.sn == 1]


def _check_topology(file: OpenBFFile, where: str) -> None:
    """Labels used once, and at every end of the network exactly one vessel with a condition."""
    labels = Counter(v.label for v in file.network)
    leaving: dict[int, list[VesselSection]] = {}
    entering: dict[int, list[VesselSection]] = {}
    for v in file.network:
        if labels[v.label] > 1:
            _refuse(v, "the label is used twice", where, "one vessel of that label", "Rename one")
        leaving.setdefault(v.sn, []).append(v)
        entering.setdefault(v.tn, []).append(v)
    fed = _fed(file)
    if not fed:
        raise InputError(
            "no vessel starts at node 1",
            where=f"{where}, network",
            expected="the inlet at node 1",
            fix="Number the inlet's node 1",
        )
    if not set(entering) - set(leaving):
        raise InputError(
            "every vessel goes on into another",
            where=f"{where}, network",
            expected="at least one outlet",
            fix="Correct tn where the network ends",
        )
    for v in file.network:
        alone = len(leaving[v.sn]) == 1
        if v in fed and (v.sn in entering or not alone):
            _refuse(
                v,
                f"its inlet, node {v.sn}, joins other vessels",
                where,
                "an inlet at a node of one vessel",
                "Correct sn",
            )
        if v not in fed and v.sn not in entering:
            _refuse(
                v,
                f"no vessel leads to its start, node {v.sn}",
                where,
                "a vessel that ends there, or an inlet",
                "Correct sn",
            )
        if v.tn in leaving and v.has_outlet:
            _refuse(
                v,
                f"it has an outlet and goes on at node {v.tn}",
                where,
                "one of the two",
                "Remove the outlet, or correct tn",
            )
        if v.tn not in leaving and (not v.has_outlet or len(entering[v.tn]) > 1):
            _refuse(
                v,
                f"it ends at node {v.tn} without an outlet of its own",
                where,
                "a vessel that goes on, or the keys R1, R2 and Cc",
                "Add an outlet, or correct tn",
            )


def _network(file: OpenBFFile, where: str) -> tuple[VascularNetwork, dict[int, int]]:
    """The network, and the index of each numbered node."""
    pairs = np.array([[v.sn, v.tn] for v in file.network], np.int64)
    numbers = np.unique(pairs)
    segment_node = np.searchsorted(numbers, pairs)
    index = {int(n): i for i, n in enumerate(numbers)}
    root = np.unique(np.array([index[v.sn] for v in _fed(file)], np.int64))
    network = build_network(
        _spread(segment_node, root, len(numbers)),
        segment_node,
        np.array([v.end_radius for v in file.network]),
        root=root,
        frame="model",
        length=np.array([v.L for v in file.network]),
        branch=np.arange(len(pairs)),
        branch_name=tuple(v.label for v in file.network),
        allow_loops=True,
        where=where,
    )
    return network, index


def _spread(
    segment_node: Int[np.ndarray, "s 2"], root: Int[np.ndarray, " r"], n_nodes: int
) -> Float[np.ndarray, "n 3"]:
    """Positions (m) that tell the nodes apart: x by steps from the inlet, y within a step."""
    step = np.full(n_nodes, -1, np.int64)
    step[root] = 0
    queue = deque(root.tolist())
    while queue:
        node = queue.popleft()
        for nxt in segment_node[segment_node[:, 0] == node, 1].tolist():
            if step[nxt] < 0:
                step[nxt] = step[node] + 1
                queue.append(nxt)
    rank = np.array([(step[:i] == step[i]).sum() for i in range(n_nodes)])
    return np.stack([step, rank, np.zeros(n_nodes)], axis=1) * M_PER_CM


def _thickness(file: OpenBFFile, radius: Float[np.ndarray, "s 2"]) -> Float[np.ndarray, "s 2"]:
    """Wall thickness (m) at the ends of the segments: stated, or by the law of the radius."""
    at = radius
    if file.version == 1:
        at = np.broadcast_to(radius.mean(axis=1, keepdims=True), radius.shape)
    a, b, c, d = _THICKNESS
    law = at * (a * np.exp(b * at) + c * np.exp(d * at))
    stated = np.array([v.h0 or 0.0 for v in file.network])[:, None]
    return np.where(stated > 0.0, stated, law)


def _blood(file: OpenBFFile, where: str) -> Blood:
    default = 9.0 if file.version == 1 else 2.0
    profile = [default if v.gamma_profile is None else v.gamma_profile for v in file.network]
    for v, exponent in zip(file.network, profile, strict=True):
        if exponent != profile[0]:
            _refuse(
                v,
                f"its gamma_profile is {exponent:g} and that of {file.network[0].label} is "
                f"{profile[0]:g}",
                where,
                "one velocity profile in all vessels",
                f"State one gamma_profile; where left out it is {default:g}",
            )
    return Blood(
        density=file.blood.rho,
        viscosity=ConstantViscosity(file.blood.mu),
        profile_exponent=profile[0],
        momentum_coefficient=1.0,
    )


def _inlets(
    file: OpenBFFile, index: dict[int, int], path: str | os.PathLike
) -> tuple[float, list[AbstractBoundary], tuple[str, ...]]:
    folder = Path(path).parent
    boundary: list[AbstractBoundary] = []
    notes: list[str] = []
    periods: list[float] = []
    for v in _fed(file):
        name = v.inlet_file or file.inlet_file or f"{file.project_name}_inlet.dat"
        kind = v.inlet or "Q"
        table = read_inlet_table(folder / name)
        largest, unit = _LARGEST[kind]
        if np.abs(table[:, 1]).max() > largest:
            raise InputError(
                f"it reaches {np.abs(table[:, 1]).max():g}",
                where=str(folder / name),
                expected=f"values up to {largest:g} {unit}",
                fix="Check the unit",
            )
        periods.append(float(table[-1, 0]))
        if np.ptp(table[:, 1]) > 0:
            check_beat(periods[-1], str(folder / name))
        jump = jump_between_beats(table[:, 1])
        notes += [] if jump is None else [f"{folder / name}: {jump}: a jump at every beat."]
        waveform = Waveform(table[:, 0], table[None, :, 1], periods[-1])
        node = jnp.asarray(np.array([index[v.sn]], np.int32))
        made = FlowWaveform if kind == "Q" else PressureWaveform
        boundary.append(made(node, waveform))
    if len(set(periods)) > 1:
        raise InputError(
            f"the inlet files end at {', '.join(f'{p:g}' for p in periods)} s",
            where=str(path),
            expected="inlets of one period",
            fix="Give every inlet file the same last time",
        )
    return periods[0], boundary, tuple(notes)


def _outlets(
    file: OpenBFFile,
    index: dict[int, int],
    stiffness: Float[np.ndarray, "s 2"],
    where: str,
) -> WindkesselOutlet:
    rows = []
    for s, v in enumerate(file.network):
        if not v.has_outlet:
            continue
        assert v.R1 is not None and v.Cc is not None
        proximal, total = v.R1, v.R1 + (v.R2 or 0.0)
        if v.inlet_impedance_matching or not v.R2:
            # c² = (A/ρ) dp/dA at the reference area, where an outlet's vessel ends
            speed = np.sqrt(stiffness[s, 1] * 2.0 / (3.0 * file.blood.rho))
            proximal = file.blood.rho * speed / (np.pi * v.end_radius[1] ** 2)
        if proximal >= total:
            _refuse(
                v,
                f"its impedance is {proximal:.4g} Pa s/m3 and the resistance of its outlet "
                f"{total:.4g}",
                where,
                "a resistance above the impedance that it is matched to",
                "Correct R1, or state R1 and R2 without matching",
            )
        rows.append((index[v.tn], proximal, total - proximal, v.Cc, v.Pout or 0.0))
    node, *values = zip(*rows, strict=True)
    return WindkesselOutlet(
        jnp.asarray(np.array(node, np.int32)), *(jnp.asarray(np.array(x)) for x in values)
    )
