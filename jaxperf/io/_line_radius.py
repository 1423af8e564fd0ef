"""The radius at the points of centrelines, whatever its array is called."""

import re
from typing import Any

import numpy as np
from jaxtyping import Float

from .._misc import InputError, note
from ._frames import LENGTH_UNIT

_VMTK = "MaximumInscribedSphereRadius"
_IS_RADIUS = re.compile(r"(^|[^a-z])(radius|radii|misr)([^a-z]|$)|sphereradius|vesselradius")
_IS_DIAMETER = re.compile(r"diameter")
_IS_AREA = re.compile(r"sectionarea|lumenarea|(^|[^a-z])area([^a-z]|$)")
_UNIT = re.compile(r"_(mm|cm|um|m)(2?)$")


def line_radius(data: Any, name: str | None, unit: float, where: str) -> Float[np.ndarray, " p"]:
    """The radius of each point in the unit of the file.

    **Arguments:** `name`, of the point array; `unit` of the file in m.
    """
    found = name or radius_array_of(data, where)
    if found not in data.point_data:
        present = ", ".join(data.point_data.keys()) or "none"
        raise InputError(
            f"there is no point array {found!r}; the arrays present are: {present}",
            where=where,
            expected="a point array with the radius of the vessel",
            fix="Name it in `radius_array`, or compute it with vmtkcenterlines",
        )
    values = np.asarray(data.point_data[found], np.float64)
    if values.ndim != 1:
        raise InputError(
            f"the array {found!r} has {values.shape[1]} components",
            where=where,
            expected="one radius for each point",
            fix="Name another array in `radius_array`",
        )
    lower = found.lower()
    said = _UNIT.search(lower)
    is_area = _kind(lower) == "area"
    scale = 1.0
    if said is not None and is_area == (said[2] == "2"):
        scale = (LENGTH_UNIT[said[1]] / unit) ** (2 if is_area else 1)
        values = values * scale
    if is_area:
        values = np.sqrt(np.where(values > 0, values, np.nan) / np.pi)
        meant = f"√(A/π) of the point array {found!r}, the area of the section"
    elif _kind(lower) == "diameter":
        values, meant = 0.5 * values, f"half of the point array {found!r}, the diameter"
    else:
        meant = f"the point array {found!r}"
    if scale != 1.0:
        meant += f", in {said[1] if said else ''}{'²' if is_area else ''} as its name says"
    if (name is None and found != _VMTK) or is_area or meant.startswith("half"):
        note(f"the radius is {meant}", where=where)
    return values


def _kind(lower: str) -> str | None:
    """What an array is by its name in lower case."""
    for kind, pattern in (("radius", _IS_RADIUS), ("diameter", _IS_DIAMETER), ("area", _IS_AREA)):
        if pattern.search(lower):
            return kind
    return None


def radius_array_of(data: Any, where: str) -> str:
    """The array that its name calls a radius, or else a diameter or an area."""
    if _VMTK in data.point_data:
        return _VMTK
    kind = {
        name: _kind(name.lower())
        for name in data.point_data.keys()  # noqa: SIM118
        if np.asarray(data.point_data[name]).ndim == 1
    }
    for wanted in ("radius", "diameter", "area"):
        names = [name for name, what in kind.items() if what == wanted]
        if len(names) > 1:
            raise InputError(
                f"the point arrays {' and '.join(names)} are each called a {wanted}",
                where=where,
                expected="one array with the radius of the vessel",
                fix="Name it in `radius_array`",
            )
        if names:
            return names[0]
    return _VMTK
