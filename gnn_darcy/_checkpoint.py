"""Networks in files: a header in JSON on the first line, and the leaves behind it."""

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import equinox as eqx

from jaxperf._misc import InputError

FORMAT = 1


def save_checkpoint(path: Path, kind: str, header: dict[str, Any], tree: Any) -> None:
    """Write a tree of arrays, whole or not at all. No pickle: leaves are as NumPy writes them.

    **Arguments:** `kind`, what it is; `header`, what building the like of `tree` takes, and
    whatever else there is to say of it.
    """
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, tree)
    leaves = buffer.getvalue()
    told = {"format": FORMAT, "kind": kind, "sha256": hashlib.sha256(leaves).hexdigest()} | header
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    with os.fdopen(handle, "wb") as file:
        file.write(json.dumps(told).encode() + b"\n" + leaves)
    Path(name).chmod(0o644)
    Path(name).replace(path)


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """The header of a checkpoint of this kind.

    **Errors:** `InputError` for a file that is missing, no checkpoint, of another format or kind.

    **Example:**

    ```python
    import gnn_darcy
    from pathlib import Path
    trained = Path(gnn_darcy.__file__).parent / "trained"
    header = gnn_darcy.read_header(trained / "flux_multigrid.eqx", "flux_multigrid")
    ```
    """
    return _read(path, kind)[0]


def load_checkpoint(path: Path, kind: str, like: Any) -> Any:
    """The tree of a checkpoint; `like` has its structure, shapes and types.

    **Errors:** those of [`read_header`][], and `InputError` for leaves that are damaged or not
    those of `like`.
    """
    header, leaves = _read(path, kind)
    if hashlib.sha256(leaves).hexdigest() != header["sha256"]:
        _refuse(path, "its arrays are damaged", "the arrays that its header was written for")
    try:
        return eqx.tree_deserialise_leaves(io.BytesIO(leaves), like)
    except Exception as error:
        _refuse(path, f"its arrays do not fit: {error}", "the arrays that its header describes")


def _read(path: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    if not path.is_file():
        _refuse(path, "there is no such file", "a checkpoint of python -m gnn_darcy train")
    first, _, leaves = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        version, found = header["format"], header["kind"]
        header["sha256"]
    except (ValueError, KeyError, TypeError):
        _refuse(path, "it has no header", "a line of JSON and arrays behind it")
    if version != FORMAT:
        _refuse(path, f"its format is {version}", f"format {FORMAT}, which this version reads")
    if found != kind:
        _refuse(path, f"it holds a {found}", f"a {kind}")
    return header, leaves


def _refuse(path: Path, what: str, expected: str) -> NoReturn:
    raise InputError(
        what,
        where=str(path),
        expected=expected,
        fix="Train one with python -m gnn_darcy train, or name another file",
    )
