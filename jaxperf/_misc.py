"""What every room needs and none owns: the error for bad input, and dtype helpers."""

import warnings
from typing import Any, NoReturn

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array


class InputError(ValueError):
    """Input that cannot be used, as one sentence: what, where, what was expected, what to do.

    **Arguments:**

    - `what`: what is wrong, with the value found.
    - `where`: the file, the key or the vessel.
    - `expected`: what would have been accepted.
    - `fix`: what the user can do about it.
    """

    def __init__(self, what: str, *, where: str, expected: str, fix: str) -> None:
        self.what, self.where, self.expected, self.fix = what, where, expected, fix
        super().__init__(f"{where}: {what}. Expected {expected}. {fix}.")


class InputNote(UserWarning):
    """What a reader took for granted, because the input does not say it outright.

    **Arguments:**

    - `what`: what was found, and what was made of it.
    - `where`: the file, the key or the vessel.
    """

    def __init__(self, what: str, *, where: str) -> None:
        self.what, self.where = what, where
        super().__init__(f"{where}: {what}.")


def note(what: str, *, where: str) -> None:
    """Warn with an [`InputNote`][]; checks and runs of a case turn it into a finding."""
    warnings.warn(InputNote(what, where=where), stacklevel=3)


FRAMES = ("LPS", "RAS", "model")


def check_frame(frame: str, where: str) -> None:
    """Refuse a frame that is none of `FRAMES`; `model` belongs to no image."""
    if frame not in FRAMES:
        raise InputError(
            f"the frame is {frame!r}",
            where=where,
            expected=f"one of {', '.join(FRAMES)}",
            fix="Name the frame of the coordinates; DICOM, ITK and VTK use LPS, NIfTI uses RAS",
        )


class NoBarePressure:
    """In place of a field `pressure`: pressures are static, total or the tissue's, and say which.

    **Arguments:** `names`, the fields that a class has in place of it.
    """

    def __init__(self, *names: str) -> None:
        self.names = names

    def __get__(self, owner: Any, kind: type) -> NoReturn:
        has = " and ".join(self.names)
        raise AttributeError(f"{kind.__name__} has no field `pressure`; it has {has}.")


def by_precision(x: Array, *, float64: float, float32: float) -> float:
    """The number that fits the precision of `x`."""
    return float64 if jnp.finfo(x.dtype).bits == 64 else float32


def is_traced(x: Any) -> bool:
    """Whether a transformation (`jit`, `grad`, `vmap`) hides the values of `x`."""
    return isinstance(x, Tracer)
