"""Checkpoints of the graph networks: a line of JSON, and arrays as `numpy.save` writes them.

Nothing in such a file is executed: arrays are read with `allow_pickle=False`.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

_FORMAT = 1


def read_checkpoint(path: str | Path, kind: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header of a checkpoint and its arrays, in the order of the file.

    The first line is a JSON object with `format` 1, `kind`, `sha256` of all bytes behind the line,
    and the sizes `hidden` and `messages`. The arrays follow one another, each with NumPy's own
    header.

    **Arguments:** `kind`, what the file has to hold: flux_multigrid or message_passing.

    **Errors:** `FileNotFoundError`; `ValueError` for another format or kind, sizes that are no
    positive whole numbers, and arrays that are damaged or hold objects.
    """
    first, _, leaves = Path(path).read_bytes().partition(b"\n")
    try:
        header = json.loads(first)
        found = header["format"], header["kind"]
        told, sizes = header["sha256"], (header["hidden"], header["messages"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has no header ({error!r}); expected a JSON object with format, kind, sha256, "
            "hidden and messages on the first line. Name a file of python -m gnn_darcy train."
        ) from error
    if found != (_FORMAT, kind):
        raise ValueError(
            f"{path} holds {found[1]!r} of format {found[0]!r}; expected {kind!r} of format "
            f"{_FORMAT}. Name a file of that kind."
        )
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(
            f"{path} says hidden {sizes[0]!r} and messages {sizes[1]!r}; expected two positive "
            "whole numbers. Name an intact file."
        )
    if hashlib.sha256(leaves).hexdigest() != told:
        raise ValueError(f"the arrays of {path} are damaged: their sha256 differs. Copy it again.")
    stream, arrays = io.BytesIO(leaves), []
    while stream.tell() < len(leaves):
        arrays.append(np.load(stream, allow_pickle=False))
    return header, arrays


def copy_weights(parameters: Iterable[torch.nn.Parameter], arrays: Sequence[np.ndarray]) -> None:
    """Write arrays into parameters, one into each, cast to their type.

    **Errors:** `ValueError`, before anything is written, for another number of arrays or another
    shape.
    """
    targets = list(parameters)
    got, expected = [a.shape for a in arrays], [tuple(p.shape) for p in targets]
    if got != expected:
        raise ValueError(
            f"the weights have the shapes {got}; expected {expected}. Build the network with the "
            "sizes that the weights are of."
        )
    with torch.no_grad():
        for target, array in zip(targets, arrays, strict=True):
            target.copy_(torch.tensor(array))
