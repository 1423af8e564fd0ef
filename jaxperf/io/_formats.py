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
from ._openbf import read_openbf
from ._pet import read_pet
from ._svoned import read_svoned
from ._swc import read_swc
from ._tets import read_tets
from ._waveforms import read_waveform
from ._writers import write_csv, write_json, write_perfusion, write_tree

_CARD = re.compile(r"^\s*(MODEL|NODE|SEGMENT|SOLVEROPTIONS|MATERIAL|JOINT)\s", re.MULTILINE)
# What tells formats of one suffix apart stands near the beginning.
_HEAD = 1 << 20


@dataclass(frozen=True)
class Format:
    """A file format and the function that reads or writes it.

    **Attributes:**

    - `name`: as a case file names it.
    - `holds`: what is in it: `tree`, `1-D case`, `labels`, `tetrahedra`,
      `waveform`, `scan`, `scan of segments`, `pressure wires`, `tissue`, `map`, `table`, `summary`.
    - `suffix`: of its files.
    - `units`, `frame`: where they come from, in words.
    - `use`: the function. A reader of a tree takes the path and `units`, `frame`, `branch_name`;
      one of a 1-D case the path. The others have arguments of their own.
    - `options`: further arguments that a reader of a tree takes, as the case names them.
    - `is_content`: whether a text is in this format, where the suffix does not say it.
    """

    name: str
    holds: str
    suffix: tuple[str, ...]
    units: str
    frame: str
    use: Callable[..., Any]
    options: tuple[str, ...] = ()
    is_content: Callable[[str], bool] | None = None


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


def _is_svoned(text: str) -> bool:
    return bool(_CARD.search(text))


_LINES = ("radius_array", "merge_tolerance_mm", "n_roots")

READERS: tuple[Format, ...] = (
    Format("swc", "tree", (".swc",), "stated", "stated", read_swc),
    Format("centerlines", "tree", (".vtp", ".vtk"), "stated", "stated", read_centerlines, _LINES),
    Format("svoned", "tree", (".in",), "cm", "stated", _svoned_tree),
    Format("svOneDSolver", "1-D case", (".in",), "cm, g, s", "model", read_svoned, (), _is_svoned),
    Format("openBF", "1-D case", (".yaml", ".yml"), "SI", "model", read_openbf, (), _is_openbf),
    Format("labels", "labels", (".nii", ".nii.gz"), "header", "RAS", read_voxel_labels),
    Format("tetrahedra", "tetrahedra", (".vtu",), "stated", "stated", read_tets),
    Format("waveform", "waveform", (".csv",), "in the columns", "none", read_waveform),
    Format("PET map", "scan", (".nii", ".nii.gz"), "header, or stated", "RAS", read_pet),
    Format("segments", "scan of segments", (".csv",), "in the columns", "none", read_segments),
    Format("FFR", "pressure wires", (".csv",), "in the columns", "none", read_ffr),
)

WRITERS: tuple[Format, ...] = (
    Format("tree", "tree", (".vtp",), "mm, in the names", "the network's", write_tree),
    Format("tissue", "tissue", (".vtu",), "mm, in the names", "the mesh's", write_perfusion),
    Format("map", "map", (".nii", ".nii.gz"), "in the description", "RAS", write_nifti),
    Format("table", "table", (".csv",), "in the columns", "none", write_csv),
    Format("summary", "summary", (".json",), "in the keys", "none", write_json),
)


def reader_of(path: str | os.PathLike, holds: str, name: str | None = None) -> Format:
    """The reader of a file: by its name where one is given, then by content, then by suffix.

    **Arguments:** `holds`: what the file is to hold, see [`Format`][]. `name`: of the format.

    **Returns:** a row of `READERS`.

    **Errors:** [`InputError`][] that names the file and lists what can be read.
    """
    fitting = [row for row in READERS if row.holds == holds]
    if name is not None:
        found = [row for row in fitting if row.name == name]
    else:
        lower = Path(path).name.lower()
        found = [row for row in fitting if lower.endswith(row.suffix)]
        if any(row.is_content for row in fitting):
            file = readable_file(path, _all(fitting))
            with file.open(encoding="utf-8", errors="replace") as stream:
                text = stream.read(_HEAD)
            found = [row for row in fitting if row.is_content and row.is_content(text)]
    if not found:
        raise InputError(
            f"it is in no known format of a {holds}" if name is None else f"no format is {name!r}",
            where=str(path),
            expected=_all(fitting),
            fix="Check that this is the right file, or name its format",
        )
    return found[0]


def _all(rows: list[Format]) -> str:
    return " or ".join(f"{row.name} ({', '.join(row.suffix)})" for row in rows)
