"""What is in a file: kind, size, units, frame."""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from .._misc import FRAMES, InputError, InputNote
from ..geometry import TetMesh
from ..io import (
    Format,
    image_content,
    LENGTH_UNIT,
    Ranges,
    reader_of,
    stated_in_table,
    stated_in_vtk,
    table_content,
    ZERO_D_UNITS,
)
from ..network import AbstractBoundary, cycle_mean, quantity, VascularNetwork, Waveform
from ..units import M_PER_MM

# What fields of conditions are shown in, by the first word of their name.
_UNIT = {"pressure": "Pa", "flow": "m3_s", "resistance": "Pa_s_m3", "compliance": "m3_Pa"}
_ML_PER_M3 = 1e6


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShownBranch(_Part):
    """A branch: its segments, its length, and its calibre where it begins and at its last end."""

    branch: str
    segments: int
    length_mm: float
    diameter_start_mm: float
    diameter_end_mm: float


class ShownSegment(_Part):
    """A lumped segment, SI; `quadratic` is the loss over the square of the flow."""

    segment: str
    resistance_Pa_s_m3: float
    quadratic_Pa_s2_m6: float
    inertance_Pa_s2_m3: float
    compliance_m3_Pa: float


class ShownEnd(_Part):
    """A condition at a node: the branch that ends there, its kind, and its values in SI.

    The mean stands for a waveform, whose beat `period_s` says.
    """

    branch: str
    kind: str
    values: dict[str, float]
    period_s: float | None = None


class ShownFile(_Part):
    """What is in a file.

    **Attributes:** `format` and `holds`, of `jaxperf.io.READERS`; `units` and `frame` in words;
    `counts`, such as segments, outlets, voxels or rows; `branches` and `ends` of a network;
    `labels` of an image, with their volumes in ml; `arrays`, with their smallest and largest
    finite value; `columns` of a table; `warnings`, what the reader says.
    """

    file: str
    format: str
    holds: str
    units: str
    frame: str
    counts: dict[str, int] = {}
    shape: list[int] = []
    spacing_mm: list[float] = []
    extent_mm: list[float] = []
    volume_ml: float | None = None
    branches: list[ShownBranch] = []
    segments: list[ShownSegment] = []
    ends: list[ShownEnd] = []
    labels: dict[str, float] = {}
    arrays: dict[str, list[float]] = {}
    columns: list[str] = []
    warnings: list[str] = []


def show_file(
    path: str | os.PathLike,
    *,
    units: str | None = None,
    frame: str | None = None,
    format: str | None = None,
) -> ShownFile:
    """Say what is in a file that `jaxperf.io.READERS` can read.

    **Arguments:**

    - `units`, `frame`: of files that do not state them. Where they are left out, the only unit of
      length at which the file has the size of a tree or a heart is taken, and said; positions are
      shown as they stand.
    - `format`: its name, where neither suffix nor content tells it.

    **Returns:** a [`ShownFile`][].

    **Errors:** [`InputError`][] of the reader, and where several units of length would fit.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    jp.io.write_tree("tree.vtp", tree)
    shown = jp.jobs.show_file("tree.vtp")
    print(shown.branches[0].branch, shown.branches[0].length_mm)
    ```
    """
    row = reader_of(path, name=format)
    with noted() as notes:
        shown = _SHOWN[row.holds](row, path, units, frame)
    return shown.model_copy(update={"warnings": [*shown.warnings, *notes]})


@contextmanager
def noted() -> Iterator[list[str]]:
    """A list that holds, after the block, what readers have noted in it."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield notes
    notes += dict.fromkeys(str(w.message) for w in said if isinstance(w.message, InputNote))


def _shown(row: Format, path: str | os.PathLike, units: str, frame: str, **more: Any) -> ShownFile:
    return ShownFile(
        file=str(path), format=row.name, holds=row.holds, units=units, frame=frame, **more
    )


def read_stated(
    row: Format,
    path: str | os.PathLike,
    units: str | None,
    frame: str | None,
    *,
    must_state: bool = False,
    **more: Any,
) -> tuple[Any, str, str]:
    """A file that does not state unit and frame, as read, and what is said of the two.

    **Arguments:** `must_state`: refuse a file where neither it nor the caller states them.
    """
    stated: dict[str, Any] = {}
    if row.suffix[0] in (".vtp", ".vtu"):
        stated = stated_in_vtk(path)
    elif row.columns:
        stated = stated_in_table(path, row.columns)
    stated_frame = frame or stated.get("frame")
    said_frame = "not stated by the file" if stated_frame is None else stated_frame
    frame = stated_frame or "model"
    if frame not in FRAMES:
        raise InputError(
            f"the frame is {frame!r}",
            where=str(path),
            expected=f"one of {', '.join(FRAMES)}",
            fix="Correct --frame",
        )
    units = units or stated.get("length_unit") or ("cm" if row.units == "cm" else None)
    for name, value in (("units", units), ("frame", stated_frame)) if must_state else ():
        if value is None:
            raise InputError(
                f"it does not state its {name}",
                where=str(path),
                expected=f"--{name}",
                fix="State it",
            )
    if units is not None:
        return row.use(path, units=units, frame=frame, **more), units, said_frame
    read: dict[str, Any] = {}
    refusals: list[InputError] = []
    for unit in LENGTH_UNIT:
        try:
            read[unit] = row.use(path, units=unit, frame=frame, **more)
        except InputError as error:
            refusals.append(error)
    if not read:
        raise refusals[0]
    if len(read) > 1:
        raise InputError(
            f"it does not state its unit of length, and {' and '.join(read)} would fit its size",
            where=str(path),
            expected="the unit of length",
            fix="State it with --units",
        )
    unit, content = next(iter(read.items()))
    return content, f"not stated by the file; its size fits {unit} only", said_frame


def _tree(row: Format, path: str | os.PathLike, units: str | None, frame: str | None) -> ShownFile:
    network, unit, seen = read_stated(row, path, units, frame, branch_name=None)
    return _shown(row, path, unit, seen, **_of_network(network))


def _of_network(network: VascularNetwork) -> dict[str, Any]:
    """Counts, branches and extent of a network."""
    position = np.asarray(network.node_position, np.float64) / M_PER_MM
    counts = {
        "branches": len(network.branch_name),
        "segments": network.n_segments,
        "roots": len(np.asarray(network.roots)),
        "ends": len(np.asarray(network.terminals)),
        "loops": len(np.asarray(network.topology.cut)),
        "lesions": int(network.lesion.length.shape[0]),
    }
    return {
        "counts": counts,
        "branches": _branches(network),
        "extent_mm": [float(x) for x in np.ptp(position, axis=0)],
    }


def _branches(network: VascularNetwork) -> list[ShownBranch]:
    """Each branch from the segment that no other of it leads to; a divided one to its last end."""
    branch, node = np.asarray(network.branch), np.asarray(network.segment_node)
    length = np.asarray(network.length, np.float64) / M_PER_MM
    radius = np.asarray(network.radius, np.float64) / M_PER_MM
    found = []
    for i, name in enumerate(network.branch_name):
        member = np.flatnonzero(branch == i)
        if not len(member):
            continue
        first = member[~np.isin(node[member, 0], node[member, 1])]
        last = member[~np.isin(node[member, 1], node[member, 0])]
        start, end = (ends[0] if len(ends) else member[0] for ends in (first, last[::-1]))
        found.append(
            ShownBranch(
                branch=name,
                segments=len(member),
                length_mm=float(length[member].sum()),
                diameter_start_mm=float(2.0 * radius[start, 0]),
                diameter_end_mm=float(2.0 * radius[end, 1]),
            )
        )
    return found


def _case(row: Format, path: str | os.PathLike, units: str | None, frame: str | None) -> ShownFile:
    refuse_given(row, path, units=units, frame=frame)
    case = row.use(path)
    network = case.network
    names = [network.branch_name[i] for i in np.asarray(network.branch)]
    said = _of_network(network)
    if "path" not in row.keeps:
        del said["extent_mm"]
    said["ends"] = ends_of(case.boundary, np.asarray(network.segment_node), names)
    return _shown(row, path, row.units, row.frame, warnings=list(case.notes), **said)


def _lumped(
    row: Format, path: str | os.PathLike, units: str | None, frame: str | None
) -> ShownFile:
    refuse_given(row, path, frame=frame)
    units = lumped_units(path, "--units", units)
    case = row.use(path, units=units)
    network = case.network
    given = (network.resistance, network.quadratic, network.inertance, network.compliance)
    rows = np.stack([np.asarray(x) for x in given], axis=1).tolist()
    keys = list(ShownSegment.model_fields)[1:]
    return _shown(
        row,
        path,
        units,
        row.frame,
        counts={
            "segments": network.n_segments,
            "roots": len(np.asarray(network.roots)),
            "ends": len(np.asarray(network.terminals)),
            "loops": len(np.asarray(network.topology.cut)),
        },
        segments=[
            ShownSegment(segment=name, **dict(zip(keys, values, strict=True)))
            for name, values in zip(network.segment_name, rows, strict=True)
        ],
        ends=ends_of(case.boundary, np.asarray(network.segment_node), list(network.segment_name)),
        warnings=list(case.notes),
    )


def ends_of(
    boundary: tuple[AbstractBoundary, ...], segment_node: np.ndarray, names: list[str]
) -> list[ShownEnd]:
    """The conditions of a network, each with the name of a segment at its node."""
    at: dict[int, str] = {}
    for (proximal, distal), name in zip(segment_node.tolist(), names, strict=True):
        at.setdefault(proximal, name)
        at[distal] = name
    found = []
    for condition in boundary:
        node = np.asarray(condition.node)
        fields = {k: v for k, v in vars(condition).items() if k != "node" and v is not None}
        waves = [v for v in fields.values() if isinstance(v, Waveform)]
        period = float(np.asarray(waves[0].period)) if waves else None
        mean = {k: np.asarray(cycle_mean(v)) for k, v in fields.items()}
        for i, n in enumerate(node.tolist()):
            values = {f"{k}_{_UNIT[quantity(k)]}": float(v[i]) for k, v in mean.items()}
            found.append(
                ShownEnd(branch=at[n], kind=condition.kind, values=values, period_s=period)
            )
    return found


def lumped_units(path: str | os.PathLike, key: str, units: str | None) -> str:
    """The units of a 0-D case, which must be given as no file states them."""
    if units is None:
        raise InputError(
            "a 0-D case does not state the units of its numbers",
            where=str(path),
            expected=f"{key} {', '.join(ZERO_D_UNITS)}",
            fix="State them",
        )
    return units


def refuse_given(
    row: Format, path: str | os.PathLike, *, units: str | None = None, frame: str | None = None
) -> None:
    """Units and frame are not asked of a file that has its own."""
    for name, given, own in (("units", units, row.units), ("frame", frame, row.frame)):
        if given is not None:
            raise InputError(
                f"--{name} is {given}, and {row.name} says its own: {own}",
                where=str(path),
                expected=f"no --{name}",
                fix="Leave it out",
            )


def _mesh(row: Format, path: str | os.PathLike, units: str | None, frame: str | None) -> ShownFile:
    mesh, unit, seen = read_stated(row, path, units, frame)
    assert isinstance(mesh, TetMesh)
    ranges: Ranges = stated_in_vtk(path)["arrays"]
    return _shown(
        row,
        path,
        unit,
        seen,
        counts={"points": len(mesh.point), "tetrahedra": len(mesh.tet), **_not_finite(ranges)},
        extent_mm=[float(x) for x in np.ptp(mesh.point, axis=0) / M_PER_MM],
        volume_ml=float(np.sum(mesh.volume)) * _ML_PER_M3,
        arrays=ranges.of,
    )


def _not_finite(ranges: Ranges) -> dict[str, int]:
    n = ranges.n_not_finite
    return {"values that are no finite number": n} if n else {}


def _image(row: Format, path: str | os.PathLike, units: str | None, frame: str | None) -> ShownFile:
    refuse_given(row, path, frame=frame)
    image = image_content(path, units)
    volume = float(abs(np.linalg.det(image.affine[:3, :3])))
    values, holds = image.values, "labels" if image.is_labels else "scan"
    finite = values[np.isfinite(values)]
    count = Counter(np.rint(finite).astype(np.int64).ravel().tolist()) if image.is_labels else {}
    return ShownFile(
        file=str(path),
        format="labels" if image.is_labels else "PET map",
        holds=holds,
        units=image.unit + (f"; {image.description}" if image.description else ""),
        frame=row.frame,
        counts={"voxels": int(values.size), "voxels that are no number": values.size - finite.size},
        shape=list(values.shape),
        spacing_mm=[float(x) for x in np.linalg.norm(image.affine[:3, :3], axis=0) / M_PER_MM],
        labels={str(k): n * volume * _ML_PER_M3 for k, n in sorted(count.items())},
        arrays={"values": [float(finite.min()), float(finite.max())]} if finite.size else {},
    )


def _table(row: Format, path: str | os.PathLike, units: str | None, frame: str | None) -> ShownFile:
    refuse_given(row, path, units=units, frame=frame)
    if row.holds == "scan of segments":
        row.use(path)
    columns, n_rows, ranges = table_content(path, row.columns)
    return _shown(
        row,
        path,
        row.units,
        row.frame,
        counts={"rows": n_rows, **_not_finite(ranges)},
        columns=columns,
        arrays=ranges.of,
    )


_Show = Callable[[Format, str | os.PathLike, str | None, str | None], ShownFile]
# By what a format holds.
_SHOWN: dict[str, _Show] = {
    "tree": _tree,
    "1-D case": _case,
    "0-D case": _lumped,
    "labels": _image,
    "scan": _image,
    "tetrahedra": _mesh,
    "waveform": _table,
    "scan of segments": _table,
    "pressure wires": _table,
}


def shown_lines(said: ShownFile) -> list[str]:
    """The same in lines of text."""
    size = lambda x: " × ".join(f"{v:.4g}" for v in x)
    lines = [
        f"{Path(said.file).name}: {said.holds}, format {said.format}",
        f"  units    {said.units}",
        f"  frame    {said.frame}",
    ]
    if said.counts:
        lines.append("  holds    " + ", ".join(f"{n} {what}" for what, n in said.counts.items()))
    if said.shape:
        lines.append(f"  grid     {size(said.shape)} voxels of {size(said.spacing_mm)} mm")
    if said.extent_mm:
        lines.append(f"  extent   {size(said.extent_mm)} mm")
    if said.volume_ml is not None:
        lines.append(f"  volume   {said.volume_ml:.4g} ml")
    lines += [
        f"  branch   {x.branch}: {x.length_mm:.1f} mm, {x.diameter_start_mm:.2f} to "
        f"{x.diameter_end_mm:.2f} mm wide, {x.segments} segments"
        for x in said.branches
    ]
    lines += [
        f"  segment  {x.segment}: R {x.resistance_Pa_s_m3:.4g} Pa s/m3, S "
        f"{x.quadratic_Pa_s2_m6:.4g} Pa s2/m6, L {x.inertance_Pa_s2_m3:.4g} Pa s2/m3, C "
        f"{x.compliance_m3_Pa:.4g} m3/Pa"
        for x in said.segments
    ]
    for x in said.ends:
        values = ", ".join(f"{k} {v:.4g}" for k, v in x.values.items())
        beat = "" if x.period_s is None else f"; means over {x.period_s:g} s"
        lines.append(f"  end      {x.branch}: {x.kind} ({values}{beat})")
    lines += [f"  label    {k}: {v:.4g} ml" for k, v in said.labels.items()]
    if said.columns:
        lines.append(f"  columns  {', '.join(said.columns)}")
    lines += [f"  values   {k}: {v[0]:.4g} to {v[1]:.4g}" for k, v in said.arrays.items()]
    return [*lines, *(f"  note     {w}" for w in said.warnings)]
