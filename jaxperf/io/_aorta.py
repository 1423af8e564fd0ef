"""Centrelines that begin in the aorta, and where the coronary arteries leave it."""

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ..units import M_PER_MM
from ._frames import check_plausible, LENGTH_UNIT, plausible_units
from ._tree import called, parents_first, place_mm, PointTree

# No coronary ostium is this wide (m); the root of a child's aorta is.
_AORTA = 7e-3
# Out of the aorta the radius falls below half of it, within one and a half of its radii.
_FALL, _WITHIN, _STILL_WIDE = 0.5, 1.5, 0.8
# Lines through one ostium leave the aorta within this distance (m) of each other.
_ONE_OSTIUM = 5e-3


def check_size(tree: PointTree, units: str, where: str) -> None:
    """Refuse a tree that begins in the aorta, or has no size of a coronary tree.

    **Arguments:** `tree`, in m; `units`, those of the file.
    """
    unit = LENGTH_UNIT[units]
    given = (tree.position / unit, tree.radius / unit)
    fitting = plausible_units(*given)
    # a tree of another unit can look like an aorta in this one
    if units in fitting or not fitting:
        _refuse_aorta(tree, where)
    check_plausible(*given, units, where)


def _refuse_aorta(tree: PointTree, where: str) -> None:
    """Refuse a tree that begins in a vessel as wide as the aorta and jumps to a coronary's calibre.

    **Errors:** [`InputError`][] with the first point of each coronary artery.
    """
    found: list[int] = []
    for p in _ostia(tree, where):
        apart = [np.linalg.norm(tree.position[p] - tree.position[q]) for q in found]
        if not apart or min(apart) > _ONE_OSTIUM:
            found.append(p)
    if not found:
        return
    said = ", ".join(
        f"{called(tree, p)} at {place_mm(tree.position[p])} with {tree.radius[p] / M_PER_MM:.1f} mm"
        for p in found[:4]
    )
    wide = float(tree.radius[tree.parent < 0].max())
    raise InputError(
        f"it begins in a vessel with a radius of {wide / M_PER_MM:.1f} mm, as the aorta has, and "
        f"the coronary calibre begins in {said}",
        where=where,
        expected="a tree that begins where a coronary artery leaves the aorta",
        fix="Leave out every point before these, in each line or chain of rows, and set `n_roots` "
        f"to the number of ostia ({len(found)} here) for centrelines",
    )


def _ostia(tree: PointTree, where: str) -> list[int]:
    """The first point of coronary calibre on each way out of a wide root."""
    widest = np.zeros(len(tree.parent))
    gone: Float[np.ndarray, " p"] = np.full(len(tree.parent), np.inf)
    found = []
    for p in parents_first(tree, where):
        q, radius = int(tree.parent[p]), float(tree.radius[p])
        if q < 0:
            widest[p], gone[p] = radius, 0.0 if radius > _AORTA else np.inf
            continue
        widest[p] = max(widest[q], radius)
        step = float(np.linalg.norm(tree.position[p] - tree.position[q]))
        gone[p] = 0.0 if radius >= _STILL_WIDE * widest[p] and gone[q] < np.inf else gone[q] + step
        if radius <= _FALL * widest[p] and gone[p] <= _WITHIN * widest[p]:
            found.append(p)
            gone[p] = np.inf
    return found
