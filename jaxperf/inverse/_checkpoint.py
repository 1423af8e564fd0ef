"""A folder that holds what a long fit or a sampler has found so far."""

import hashlib
import os
import re
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._custom_types import as_leaf
from .._misc import InputError

# Its content is the digest of what was asked.
_MARK = "question.txt"


class Checkpoint:
    """Pytrees by name, each written as a whole or not at all.

    **Arguments:** `folder`, or None to keep nothing; `asked`: whatever decides the answer, by whose
    numbers a folder that belongs to another question is told.

    **Errors:** [`InputError`][] for such a folder.
    """

    def __init__(self, folder: str | Path | None, asked: PyTree) -> None:
        self.folder = None if folder is None else Path(folder)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        digest, mark = _digest(asked), self.folder / _MARK
        if not mark.is_file():
            _write(mark, lambda file: file.write(digest.encode()))
        elif mark.read_text(encoding="utf-8") != digest:
            raise InputError(
                "the folder holds the work on another problem, method or key",
                where=str(self.folder),
                expected="an empty folder, or that of the same call",
                fix="Name another folder, or delete this one",
            )

    def save(self, name: str, tree: PyTree) -> None:
        """Write the arrays of a tree, all at once."""
        if self.folder is None:
            return
        leaves = [np.asarray(x) for x in jax.tree.leaves(eqx.filter(tree, eqx.is_array_like))]
        named: dict[str, Any] = {str(i): leaf for i, leaf in enumerate(leaves)}
        _write(self.folder / f"{name}.npz", lambda file: np.savez(file, **named))

    def load(self, name: str, like: Callable[[], PyTree]) -> Any:
        """The tree written under a name, laid out as `like()`; None where there is none."""
        if self.folder is None or not (self.folder / f"{name}.npz").is_file():
            return None
        try:
            with np.load(self.folder / f"{name}.npz") as file:
                leaves = [as_leaf(file[str(i)]) for i in range(len(file.files))]
        except (zipfile.BadZipFile, ValueError, OSError) as error:
            raise InputError(
                f"{name}.npz cannot be read",
                where=str(self.folder),
                expected="a file that a fit or a sampler has written",
                fix="Delete the file to repeat that part",
            ) from error
        is_leaf = lambda x: eqx.is_array_like(x) or isinstance(x, jax.ShapeDtypeStruct)
        arrays, rest = eqx.partition(like(), is_leaf)
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(arrays), leaves), rest)

    def drop(self, name: str) -> None:
        """Remove what was written under a name."""
        if self.folder is not None:
            (self.folder / f"{name}.npz").unlink(missing_ok=True)


def drop_steps(folder: str | os.PathLike) -> None:
    """Remove what fits and samplers have kept in a folder; what else lies there stays.

    **Arguments:** `folder`, itself one that a fit was given, or any above it.
    """
    ours = lambda mark: re.fullmatch("[0-9a-f]{64}", mark.read_text(errors="replace"))
    for mark in filter(ours, list(Path(folder).rglob(_MARK))):
        for kept in [*mark.parent.glob("*.npz"), *mark.parent.glob("*.tmp"), mark]:
            kept.unlink()
    for parent, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(parent)


def _write(path: Path, fill: Callable[[BinaryIO], object]) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            fill(file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _digest(asked: PyTree) -> str:
    # what is static, as the spreads of a hierarchy, without the addresses of functions
    layout = re.sub(r" at 0x[0-9a-f]+", "", str(jax.tree.structure(asked)))
    total = hashlib.sha256(layout.encode())
    for leaf in jax.tree.leaves(asked):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if eqx.is_array_like(leaf):
            host = np.ascontiguousarray(leaf)
            total.update(f"{host.dtype}{host.shape}".encode() + host.tobytes())
        elif isinstance(leaf, str):
            total.update(leaf.encode())
    return total.hexdigest()
