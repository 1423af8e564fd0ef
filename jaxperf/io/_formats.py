"""The one table of what can be read and written; a further format is a function and a row here."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .._misc import InputError
from ..network import VascularNetwork
from ._centerlines import read_centerlines
from ._files import readable_file
from ._images import read_voxel_labels, write_nifti
from ._measurements import read_ffr, read_segments
from ._network_files import COLUMNS, read_network_table, write_network_table, write_swc
from ._openbf import read_openbf
from ._pet import read_pet
from ._svoned import read_svoned
from ._svzerod import read_svzerod
from ._svzerod_writer import write_svzerod
from ._swc import read_swc
from ._tets import read_tets
from ._waveforms import read_waveform
from ._writers import write_csv, write_json, write_perfusion, write_tree

_CARD = re.compile(r"^\s*(MODEL|NODE|SEGMENT|SOLVEROPTIONS|MATERIAL|JOINT)\s", re.MULTILINE)
# What tells formats of one suffix apart stands near the beginning.
_HEAD = 1 << 20


# What a file can hold of a network.
QUANTITIES = (
    "topology",
    "branch names",
    "lengths",
    "radii",
    "path",
    "lesions",
    "inlet and outlets",
    "wall",
    "blood",
    "R, C, L and losses",
    "frame",
    "unit of length",
)


@dataclass(frozen=True)
class Format:
    """A file format and the function that reads or writes it.

    **Attributes:**

    - `name`: as a case file names it.
    - `holds`: what is in it: `tree`, `1-D case`, `0-D case`, `labels`, `tetrahedra`,
      `waveform`, `scan`, `scan of segments`, `pressure wires`, `tissue`, `map`, `table`, `summary`.
    - `suffix`: of its files.
    - `units`, `frame`: where they come from, in words.
    - `use`: the function. A reader of a tree takes the path and `units`, `frame`, `branch_name`;
      one of a 1-D case the path. The others have arguments of their own.
    - `options`: further arguments that a reader of a tree takes, as the case names them.
    - `is_content`: whether a text is in this format, where the suffix does not say it.
    - `columns`: of a table, which tell it from others of its suffix.
    - `keeps`: which of `QUANTITIES` of a network are in it.
    """

    name: str
    holds: str
    suffix: tuple[str, ...]
    units: str
    frame: str
    use: Callable[..., Any]
    options: tuple[str, ...] = ()
    is_content: Callable[[str], bool] | None = None
    columns: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()


def _svoned_tree(
    path: str | os.PathLike,
    units: str,
    frame: str,
    branch_name: Mapping[int | str, str] | None,
) -> VascularNetwork:
    if units != "cm":
        raise InputError(
            f"units is {units!r}",
            where=str(path),
            expected="cm: svOneDSolver files are in centimetre, gram, second",
            fix="Write units: cm",
        )
    names = {str(key): name for key, name in (branch_name or {}).items()} or None
    return read_svoned(path, frame=frame, branch_name=names).network


def _is_openbf(text: str) -> bool:
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError:
        return False
    return isinstance(raw, dict) and "network" in raw


def _is_svzerod(text: str) -> bool:
    return '"zero_d_element_type"' in text or '"boundary_conditions"' in text


def _is_svoned(text: str) -> bool:
    return bool(_CARD.search(text))


_LINES = ("radius_array", "merge_tolerance_mm", "n_roots")
_SWC = ("topology", "radii", "path")
_VTP = ("topology", "branch names", "lengths", "radii", "path", "frame", "unit of length")
_OPENBF = ("topology", "branch names", "lengths", "radii", "inlet and outlets", "wall", "blood")
_SVZEROD = ("topology", "branch names", "lengths", "R, C, L and losses", "inlet and outlets")
_SVONED = (*_OPENBF, "path", "lesions", "unit of length")

READERS: tuple[Format, ...] = (
    Format("swc", "tree", (".swc",), "stated", "stated", read_swc, keeps=_SWC),
    Format("centerlines", "tree", (".vtp", ".vtk"), "stated", "stated", read_centerlines, _LINES,
           keeps=_VTP),
    Format("segments table", "tree", (".csv",), "mm, in the columns", "in a column",
           read_network_table, columns=COLUMNS, keeps=_VTP),
    Format("svoned", "tree", (".in",), "cm", "stated", _svoned_tree, keeps=_SVONED),
    Format("svOneDSolver", "1-D case", (".in",), "cm, g, s", "model", read_svoned, (), _is_svoned,
           keeps=_SVONED),
    Format("openBF", "1-D case", (".yaml", ".yml"), "SI", "model", read_openbf, (), _is_openbf,
           keeps=_OPENBF),
    Format("svZeroDSolver", "0-D case", (".json",), "stated", "none", read_svzerod, (), _is_svzerod,
           keeps=_SVZEROD),
    Format("labels", "labels", (".nii", ".nii.gz"), "header", "RAS", read_voxel_labels),
    Format("tetrahedra", "tetrahedra", (".vtu",), "stated", "stated", read_tets),
    Format(
        "waveform", "waveform", (".csv",), "in the columns", "none", read_waveform,
        columns=("time_s",),
    ),
    Format("PET map", "scan", (".nii", ".nii.gz"), "header, or stated", "RAS", read_pet),
    Format(
        "segments", "scan of segments", (".csv",), "in the columns", "none", read_segments,
        columns=("segment",),
    ),
    Format(
        "FFR", "pressure wires", (".csv",), "in the columns", "none", read_ffr,
        columns=("branch", "at_mm", "ffr"),
    ),
)  # fmt: skip

WRITERS: tuple[Format, ...] = (
    Format("swc", "tree", (".swc",), "mm", "not in it", write_swc, keeps=_SWC),
    Format(
        "segments table",
        "tree",
        (".csv",),
        "mm, in the columns",
        "in a column",
        write_network_table,
        keeps=_VTP,
    ),
    Format(
        "svZeroDSolver", "0-D case", (".json",), "chosen", "none", write_svzerod, keeps=_SVZEROD
    ),
    Format("tree", "tree", (".vtp",), "mm, in the names", "the network's", write_tree, keeps=_VTP),
    Format("tissue", "tissue", (".vtu",), "mm, in the names", "the mesh's", write_perfusion),
    Format("map", "map", (".nii", ".nii.gz"), "in the description", "RAS", write_nifti),
    Format("table", "table", (".csv",), "in the columns", "none", write_csv),
    Format("summary", "summary", (".json",), "in the keys", "none", write_json),
)


def reader_of(path: str | os.PathLike, holds: str | None = None, name: str | None = None) -> Format:
    """The reader of a file: by its name where one is given, then by content, then by suffix.

    **Arguments:** `holds`: what the file is to hold, see [`Format`][]; anything where left out.
    `name`: of the format.

    **Returns:** a row of `READERS`, the first of those that fit.

    **Errors:** [`InputError`][] that names the file and lists what can be read.
    """
    fitting = [row for row in READERS if holds in (None, row.holds)]
    if name is not None:
        found = [row for row in fitting if row.name == name]
    else:
        lower = Path(path).name.lower()
        found = [row for row in fitting if lower.endswith(row.suffix)]
        # a mesh is no text to look into
        asked = found if holds is None and found else fitting
        if any(row.is_content or (row.columns and holds is None) for row in asked):
            text = _head(path, asked)
            told = [row for row in asked if row.is_content and row.is_content(text)]
            found = told or [row for row in found if not row.is_content and _has(row, text)]
    if not found:
        what = "file" if holds is None else holds
        raise InputError(
            f"it is in no known format of a {what}" if name is None else f"no format is {name!r}",
            where=str(path),
            expected=_all(fitting),
            fix="Check that this is the right file, or name its format",
        )
    return found[0]


def writer_of(path: str | os.PathLike, holds: str | None = None) -> Format:
    """The writer of a network by the suffix of its file.

    **Arguments:** `holds`: what the file is to hold, a tree or a 0-D case; either where left out.

    **Errors:** [`InputError`][] that lists what can be written.
    """
    fitting = [row for row in WRITERS if row.keeps and holds in (None, row.holds)]
    found = [row for row in fitting if Path(path).name.lower().endswith(row.suffix)]
    if not found:
        raise InputError(
            f"no {holds or 'network'} is written to a file of this name",
            where=str(path),
            expected=_all(fitting),
            fix="Choose one of these suffixes",
        )
    return found[0]


def _head(path: str | os.PathLike, rows: list[Format]) -> str:
    file = readable_file(path, _all(rows))
    with file.open(encoding="utf-8", errors="replace") as stream:
        return stream.read(_HEAD)


def _has(row: Format, text: str) -> bool:
    """Whether the first line names the columns of a table."""
    first = text.lstrip("\ufeff").partition("\n")[0]
    return set(row.columns) <= {name.strip(' \r"') for name in first.split(",")}


def _all(rows: list[Format]) -> str:
    return " or ".join(f"{row.name} ({', '.join(row.suffix)})" for row in rows)
