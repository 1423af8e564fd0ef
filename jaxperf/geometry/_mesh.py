"""What a tissue mesh is: control volumes, the surface, and points inside the control volumes."""

import abc
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError

# No heart is a metre wide: patient coordinates beyond this are millimetres taken for metres.
_LARGEST_PATIENT_EXTENT = 1.0


class Quadrature(NamedTuple):
    """Points inside the control volumes with weights that sum to each control volume.

    - `point`: (q, 3), m.
    - `weight`: (q,), m³.
    - `cell`: (q,), the control volume that holds the point.
    """

    point: Float[np.ndarray, "q 3"]
    weight: Float[np.ndarray, " q"]
    cell: Int[np.ndarray, " q"]


class BoundaryFaces(eqx.Module):
    """The surface of a mesh in flat quadrilateral pieces, each owned by one control volume.

    - `centre`: (f, 3), centroid of the piece, m.
    - `normal`: (f, 3), unit normal that leaves the mesh.
    - `area`: (f,), m².
    - `cell`: (f,), the control volume the piece bounds.
    - `label`: (f,), label on the other side of the piece; None where the mesh knows no labels.
    - `corner`: (f, 4, 3), the corners in order around the piece, m.
    """

    centre: Float[np.ndarray, "f 3"]
    normal: Float[np.ndarray, "f 3"]
    area: Float[np.ndarray, " f"]
    cell: Int[np.ndarray, " f"]
    label: Int[np.ndarray, " f"] | None
    corner: Float[np.ndarray, "f 4 3"]


class AbstractMesh(eqx.Module):
    """A tissue mesh as its control volumes: what the flow through it needs, and no more."""

    centre: eqx.AbstractVar[Float[np.ndarray, "c 3"]]
    volume: eqx.AbstractVar[Float[np.ndarray, " c"]]
    frame: eqx.AbstractVar[str]

    @property
    def n_cells(self) -> int:
        """Number of control volumes."""
        return self.volume.shape[0]

    @abc.abstractmethod
    def boundary_faces(self) -> BoundaryFaces:
        """The surface of the mesh in pieces that belong to one control volume each."""

    @abc.abstractmethod
    def quadrature_size(self, level: int) -> int:
        """Number of points of `quadrature(level)` over the whole mesh."""

    @abc.abstractmethod
    def quadrature(self, level: int = 1, cells: Int[np.ndarray, " k"] | None = None) -> Quadrature:
        """Equal-weight points inside the control volumes (of `cells`, default all)."""


def check_same_frame(mesh_frame: str, lv_frame: str, where: str) -> None:
    if mesh_frame != lv_frame:
        raise InputError(
            f"the mesh is in {mesh_frame} and the ventricle's frame in {lv_frame}",
            where=where,
            expected="one frame for both",
            fix="Convert one of them before combining (LPS and RAS differ by the signs of x and y)",
        )


def check_extent(centre: Float[np.ndarray, "c 3"], frame: str, where: str) -> None:
    extent = float(np.max(np.ptp(centre, axis=0)))
    if frame != "model" and extent > _LARGEST_PATIENT_EXTENT:
        raise InputError(
            f"the mesh extends over {extent:.4g} m",
            where=where,
            expected=f"a heart of less than {_LARGEST_PATIENT_EXTENT:g} m, in metres",
            fix="Convert the coordinates from millimetres to metres",
        )


def check_finite(array: np.ndarray, name: str, where: str) -> None:
    bad = np.argwhere(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{name} has {bad.shape[0]} values that are not finite, the first at index "
            f"{tuple(int(i) for i in bad[0])}",
            where=where,
            expected="finite numbers",
            fix="Repair the source of these values",
        )


def check_level(level: int) -> None:
    if level < 1:
        raise InputError(
            f"the quadrature level is {level}",
            where="mesh.quadrature",
            expected="an integer of at least 1",
            fix="Use level 1 for one point per control volume or piece",
        )
