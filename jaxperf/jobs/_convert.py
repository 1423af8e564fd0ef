"""A network of one format in another, with what the other cannot hold."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from .._misc import InputError
from ..io import (
    beside_a_tree,
    Format,
    network_in_frame,
    reader_of,
    SvOneDCase,
    SvZeroDCase,
    write_svzerod,
    writer_of,
)
from ..network import VascularNetwork
from ..steady import lumped_network
from ._flow1d_run import read_foreign
from ._show import lumped_units, noted, read_stated, refuse_given

# Lengths that differ from the distance of their ends by less are that distance.
_CHORD = 1e-9
# What no other format has of a 1-D case.
_OF_A_CASE = (
    "the steps, cells and output that the case asks of its solver",
    "the names and numbers of its nodes, segments and tables",
)


class Converted(BaseModel):
    """What was written.

    **Attributes:** `lost`, what is in the file read and not in the one written; `warnings`, what
    the reader says; each an entry in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    source_format: str
    target: str
    target_format: str
    units: str
    frame: str
    lost: list[str]
    warnings: list[str] = []


def convert_file(
    source: str | os.PathLike,
    target: str | os.PathLike,
    *,
    units: str | None = None,
    frame: str | None = None,
    to_frame: str | None = None,
    to_units: str | None = None,
    overwrite: bool = False,
) -> Converted:
    """Write the network in a file in another format, which the suffix of the new file says.

    Trees and the networks of 1-D cases become .vtp, .swc or .csv, in mm. 1-D cases become 0-D cases
    (.json): each segment's R, C, L and loss by [`jaxperf.steady.lumped_network`][]; and 0-D cases
    0-D cases of other units.

    **Arguments:**

    - `units`, `frame`: of a file that does not state them.
    - `to_frame`: another patient frame to write.
    - `to_units`: of a 0-D case: `cgs`, `mmHg` or `SI`.
    - `overwrite`: replace a file.

    **Returns:** a [`Converted`][] whose `lost` lists what the new file does not hold.

    **Errors:** [`InputError`][] of readers and writers, for a file that is there, a unit or a frame
    that is missing or has no use, and a tree without outlets that should become a case.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    jp.io.write_tree("tree.vtp", tree)
    print(jp.jobs.convert_file("tree.vtp", "tree.swc").lost)
    ```
    """
    reader = reader_of(source)
    if not reader.keeps:
        raise InputError(
            f"it holds {reader.holds}",
            where=str(source),
            expected="a network",
            fix="Convert a tree, a 1-D case or a 0-D case",
        )
    is_lumped = reader.holds == "0-D case"
    writer = writer_of(target, "0-D case" if is_lumped else None)
    if Path(target).exists() and not overwrite:
        raise InputError(
            "it exists", where=str(target), expected="a new file", fix="Pass --overwrite"
        )
    with noted() as notes:
        if writer.holds == "0-D case":
            said = _to_lumped(reader, writer, source, target, units, to_units, frame or to_frame)
        else:
            said = _to_tree(reader, writer, source, target, units, frame, to_frame, to_units)
    return said.model_copy(update={"warnings": [*said.warnings, *notes]})


def _to_tree(
    reader: Format,
    writer: Format,
    source: str | os.PathLike,
    target: str | os.PathLike,
    units: str | None,
    frame: str | None,
    to_frame: str | None,
    to_units: str | None,
) -> Converted:
    if to_units is not None:
        raise InputError(
            f"--to-units is {to_units}, and {writer.name} is written in mm",
            where=str(target),
            expected="no --to-units",
            fix="Leave it out",
        )
    network, beside, notes = _network(reader, source, units, frame)
    if to_frame is not None:
        network = network_in_frame(network, to_frame)
    writer.use(target, network)
    lost = [*_lost(reader, writer, network), *beside]
    return _converted(reader, writer, source, target, "mm", network.frame, lost, notes)


def _converted(
    reader: Format,
    writer: Format,
    source: str | os.PathLike,
    target: str | os.PathLike,
    units: str,
    frame: str,
    lost: Sequence[str],
    notes: Sequence[str] = (),
) -> Converted:
    return Converted(
        source=str(source),
        source_format=reader.name,
        target=str(target),
        target_format=writer.name,
        units=units,
        frame=frame,
        lost=list(lost),
        warnings=list(notes),
    )


def _network(
    reader: Format, path: str | os.PathLike, units: str | None, frame: str | None
) -> tuple[VascularNetwork, list[str], tuple[str, ...]]:
    """The network of a tree or of a 1-D case, what it lacks of the file, and notes of the case."""
    if reader.holds == "tree":
        content, _, _ = read_stated(reader, path, units, frame, must_state=True, branch_name=None)
        return content, beside_a_tree(path, reader.columns), ()
    refuse_given(reader, path, units=units)
    if "path" not in reader.keeps:
        raise InputError(
            f"{reader.name} knows no places of its vessels",
            where=str(path),
            expected="a file with the course of its vessels",
            fix="Convert it to a 0-D case (.json)",
        )
    case = reader.use(path)
    if frame not in (None, case.network.frame):
        case = reader.use(path, frame=frame)
    gap = case.ostium_offset if isinstance(case, SvOneDCase) else np.zeros(1)
    lost = ["the gaps between the ends of segments that are joined"] if gap.any() else []
    return case.network, lost, case.notes


def _to_lumped(
    reader: Format,
    writer: Format,
    source: str | os.PathLike,
    target: str | os.PathLike,
    units: str | None,
    to_units: str | None,
    frame: str | None,
) -> Converted:
    to_units = lumped_units(target, "--to-units", to_units)
    if frame is not None:
        raise InputError(
            f"the frame is {frame}",
            where=str(target),
            expected="no frame: a 0-D case has no places",
            fix="Leave it out",
        )
    if reader.holds == "tree":
        raise InputError(
            "it has no inlet and no outlets",
            where=str(source),
            expected="a 1-D or a 0-D case, which has both",
            fix="Add outlets in the program that wrote it; a tree becomes .vtp, .swc or .csv",
        )
    if reader.holds == "0-D case":
        case: Any = reader.use(source, units=lumped_units(source, "--units", units))
        assert isinstance(case, SvZeroDCase)
        write_svzerod(
            target,
            case.network,
            case.boundary,
            units=to_units,
            period=case.period,
            parameters=case.parameters,
        )
        lost = (*case.notes, *case.beside)
        return _converted(reader, writer, source, target, to_units, "none", lost)
    refuse_given(reader, source, units=units)
    foreign = read_foreign(source)
    problem = foreign.problem
    lumped = lumped_network(problem.network, problem.blood, problem.wall)
    write_svzerod(
        target, lumped, problem.boundary, units=to_units, period=float(np.asarray(problem.period))
    )
    lost = _lost(reader, writer, problem.network)
    if problem.wall_viscosity is not None:
        lost.append("the viscosity of the wall")
    around = getattr(problem.wall, "pressure_external", 0.0)
    if problem.pressure_external is not None or np.any(np.asarray(around) != 0.0):
        lost.append("the pressure around the vessels")
    lost.append(
        "static pressures: the case has one pressure at each node, the total one, and inlet and "
        "outlets act on that"
    )
    return _converted(reader, writer, source, target, to_units, "none", lost, foreign.notes)


def _lost(reader: Format, writer: Format, network: VascularNetwork) -> list[str]:
    """What was read, is there, and is not in the format written."""
    kept = set(writer.keeps)
    lumped = "R, C, L and losses" in kept
    node = np.asarray(network.node_position, np.float64)[np.asarray(network.segment_node)]
    chord = np.linalg.norm(node[:, 1] - node[:, 0], axis=1)
    largest = float(np.max(np.abs(chord / np.asarray(network.length, np.float64) - 1.0)))
    said = {
        "branch names": "branch names: each segment has that of its branch, and its number in it"
        if lumped
        else "branch names: branches are numbered anew where it is read",
        "lengths": "lengths: those of the straight lines between points, which differ by up to "
        f"{100.0 * largest:.2g} %",
        "radii": "radii: they are in R, C and L",
        "path": "the course of the vessels",
        "lesions": "lesions: their losses are in R and the stenosis coefficient"
        if lumped
        else "lesions: the lumen written is the reference one, as if there were none",
        "inlet and outlets": "the inlet and the outlets",
        "wall": "the law of the wall: its compliance at the reference area is in C"
        if lumped
        else "the wall",
        "blood": "density, viscosity and profile: they are in R and L" if lumped else "the blood",
        "frame": f"the frame, {network.frame}",
        "unit of length": "the unit of length: the file is in mm",
    }
    absent = {
        "lesions": network.lesion.length.shape[0] == 0,
        "lengths": largest <= _CHORD,
    }
    # what a user states is in no file, but it is known now
    held = {*reader.keeps, "frame", "unit of length"} if "path" in reader.keeps else {*reader.keeps}
    if lumped:
        held -= {"unit of length"}
        kept -= {"branch names"}
    lost = [
        sentence
        for name, sentence in said.items()
        if name in held and name not in kept and not absent.get(name, False)
    ]
    return [*lost, *_OF_A_CASE] if reader.holds == "1-D case" else lost


def converted_lines(said: Converted) -> list[str]:
    """The same in lines of text."""
    frame = "" if said.frame == "none" else f", frame {said.frame}"
    return [
        f"{said.target} written: {said.target_format}, from {said.source_format}; units "
        f"{said.units}{frame}",
        *(f"  lost     {x}" for x in said.lost),
        *(f"  note     {x}" for x in said.warnings),
    ]
