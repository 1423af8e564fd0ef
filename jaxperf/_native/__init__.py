"""Loops that NumPy cannot express, in C, compiled when the package is installed.

C knows no Python: functions take pointers and sizes, and the rooms that use them say in Python
which types those are. Type, axes and layout of arrays are checked at every call, since C would read
anything; that sizes fit, and that C may write to what it fills, is up to the caller. The library
is loaded at the first call.
"""

import ctypes
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._misc import InputError
from ._sources import digest, library_file

# Numbers, truths, and structs by their address.
INT, REAL, TRUTH, BY_ADDRESS = ctypes.c_int64, ctypes.c_double, ctypes.c_bool, ctypes.POINTER


def array(dtype: Any, ndim: int = 1) -> Any:
    """The type of an argument: an array of this type and number of axes, C-contiguous.

    A function call with another array is a `TypeError`.
    """
    return np.ctypeslib.ndpointer(dtype, ndim, flags="C_CONTIGUOUS")


def function(name: str, *arguments: Any, returns: Any = None) -> Callable[..., Any]:
    """A function of the library, by its name in C and the types of its arguments."""

    @functools.cache
    def found() -> Any:
        of_library = getattr(_library(), name)
        of_library.argtypes, of_library.restype = arguments, returns
        return of_library

    return lambda *given: found()(*given)


def structure(name: str, arrays: Mapping[str, Any], *sizes: str) -> type[ctypes.Structure]:
    """A C struct: pointers to arrays of these types, then 64-bit sizes."""
    fields = [(field, ctypes.c_void_p) for field in arrays] + [(size, INT) for size in sizes]
    return type(name, (ctypes.Structure,), {"_fields_": fields, "arrays": dict(arrays)})


def filled(kind: type[ctypes.Structure], values: Mapping[str, Any], *sizes: int) -> Any:
    """A struct that points into arrays, which live as long as it does."""
    made: Any = kind()
    for field, array_type in made.arrays.items():
        setattr(made, field, array_type.from_param(values[field]).data)
    for (field, _), size in zip(kind._fields_[len(made.arrays) :], sizes, strict=True):  # pyright: ignore
        setattr(made, field, size)
    made.kept = dict(values)
    return made


@functools.cache
def _library() -> ctypes.CDLL:
    file = library_file()
    if not file.is_file():
        raise _unusable("it is not there")
    try:
        library = ctypes.CDLL(str(file))
    except OSError as error:
        raise _unusable(f"it cannot be loaded: {error}") from None
    library.jaxperf_sources.restype = ctypes.c_char_p
    built, here = library.jaxperf_sources().decode(), digest()
    if here is not None and built != here:
        raise _unusable(f"it was built from other sources ({built}) than lie beside it ({here})")
    return library


def _unusable(said: str) -> InputError:
    return InputError(
        f"the compiled library cannot be used: {said}",
        where=str(library_file()),
        expected="the library that installing the package compiles for this machine",
        fix="Install again: `python -m pip install -e .` in a checkout",
    )
