"""Units of length and patient frames."""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from .._misc import check_frame, InputError
from ..geometry import TetMesh, VoxelMesh
from ..network import VascularNetwork

# metres in one unit
LENGTH_UNIT: Mapping[str, float] = {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "um": 1e-6}
# What a human coronary tree can measure (m): capillary-sized twigs are not segmented, and the
# coronary ostium is far below 10 mm in radius even when ectatic.
RADIUS_RANGE = (10e-6, 10e-3)
EXTENT_RANGE = (5e-3, 0.5)


def length_unit(units: str, where: str) -> float:
    """Metres in one of the named units."""
    if units not in LENGTH_UNIT:
        raise InputError(
            f"units is {units!r}",
            where=where,
            expected=f"one of {', '.join(LENGTH_UNIT)}",
            fix="Name the unit of length the file is written in",
        )
    return LENGTH_UNIT[units]


def _extent(position: Float[np.ndarray, "n 3"]) -> float:
    return float((position.max(0) - position.min(0)).max())


def plausible_units(
    position: Float[np.ndarray, "n 3"], radius: Float[np.ndarray, " n"]
) -> list[str]:
    """The units in which a tree has the size of a coronary tree."""
    extent, low, high = _extent(position), float(radius.min()), float(radius.max())
    return [
        name
        for name, unit in LENGTH_UNIT.items()
        if low * unit >= RADIUS_RANGE[0]
        and high * unit <= RADIUS_RANGE[1]
        and EXTENT_RANGE[0] <= extent * unit <= EXTENT_RANGE[1]
    ]


def check_plausible(
    position: Float[np.ndarray, "n 3"], radius: Float[np.ndarray, " n"], units: str, where: str
) -> None:
    """Refuse a tree whose size in the stated unit is not that of a coronary tree.

    **Arguments:** positions and radii in the unit of the file.

    **Errors:** [`InputError`][] that names the units in which the size would be plausible.
    """
    others = plausible_units(position, radius)
    if units in others:
        return
    extent, low, high = _extent(position), float(radius.min()), float(radius.max())
    raise InputError(
        f"in {units} the tree is {extent:.4g} {units} long with radii of {low:.4g} to "
        f"{high:.4g} {units}",
        where=where,
        expected="radii of 10 µm to 10 mm and an extent of 5 mm to 0.5 m",
        fix=f"The size fits units={' or '.join(map(repr, others))}"
        if others
        else "No unit of length fits; check the file",
    )


def to_frame(points: Float[np.ndarray, "*b 3"], source: str, target: str) -> np.ndarray:
    """Points of one patient frame in another: between RAS and LPS, x and y change sign.

    **Errors:** [`InputError`][] for an unknown frame, and between `model` and a patient frame,
    for which no rule exists.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    point = jp.io.to_frame(np.array([[0.01, 0.02, 0.03]]), "RAS", "LPS")
    ```
    """
    check_frame(source, "source frame")
    check_frame(target, "target frame")
    if source == target:
        return np.array(points)
    if "model" in (source, target):
        raise InputError(
            f"there is no rule from {source} to {target}",
            where="frame",
            expected="LPS or RAS on both sides",
            fix="Register the model, then name the patient frame it is in",
        )
    return np.asarray(points) * np.array([-1.0, -1.0, 1.0])


def network_in_frame(network: VascularNetwork, target: str) -> VascularNetwork:
    """The same network in another patient frame; lengths and radii do not change.

    **Errors:** those of [`to_frame`][].
    """
    position = to_frame(np.asarray(network.node_position), network.frame, target)
    position = jnp.asarray(position, network.node_position.dtype)
    return dataclasses.replace(network, node_position=position, frame=target)


def mesh_in_frame(mesh: VoxelMesh | TetMesh, target: str) -> VoxelMesh | TetMesh:
    """The same tissue mesh in another patient frame.

    The sign change of x and y is a rotation about z, so tetrahedra keep their orientation and
    the grid of a voxel mesh stays as it is; only its affine changes.

    **Errors:** those of [`to_frame`][].
    """
    centre = to_frame(mesh.centre, mesh.frame, target)
    if isinstance(mesh, TetMesh):
        return dataclasses.replace(mesh, centre=centre, frame=target)
    affine = affine_in_frame(mesh.affine, mesh.frame, target)
    return dataclasses.replace(mesh, centre=centre, affine=affine, frame=target)


def affine_in_frame(
    affine: Float[np.ndarray, "4 4"], source: str, target: str
) -> Float[np.ndarray, "4 4"]:
    """An index-to-position matrix whose positions are in another patient frame."""
    turned = np.array(affine)
    turned[:3] = to_frame(affine[:3].T, source, target).T
    return turned
