"""The ventricle's directions: from labels, from points by hand, from the vessels of the grooves."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from .._misc import InputError, note
from ..anatomy import septum_from_grooves
from ..casefile import Labels, Landmarks
from ..geometry import (
    AbstractMesh,
    lv_frame_from_labels,
    lv_frame_from_points,
    LVFrame,
    VoxelMesh,
)
from ..io import to_frame
from ..network import VascularNetwork
from ..units import M_PER_MM

_MARKS = "ventricle.landmarks"
# The farthest from the wall (m) that the centre of a valve plane can be.
_FARTHEST = 50e-3
# An apex wider than the base by this factor is a base.
_WIDER = 1.2
# Angle (degrees) between a point by hand and the labelled RV that a reader should know of.
_APART_DEG = 45.0
# Share of the wall's surface towards labels that the case does not name, from which on it is said.
_UNNAMED_SHARE = 0.2


def directions_from_labels(
    voxels: VoxelMesh,
    labels: Labels,
    marks: Landmarks | None,
    tree: Callable[[], VascularNetwork],
    *,
    where: str,
) -> LVFrame:
    """The directions of a labelled ventricle; points by hand take the place of the labels'.

    **Arguments:** `tree`: reads the tree in the frame of `voxels`; called where the septum has to
    come from its grooves.
    """
    apex, base, right = _points(marks, voxels.frame)
    _unnamed(voxels, labels, where)
    given = {"cavity_label": labels.cavity, "rv_label": labels.rv, "where": where}
    if right is None and labels.rv is None:
        # any point beside the axis gives the axis: the wall is narrowest across it
        across = np.linalg.eigh(np.cov(voxels.centre.T))[1][:, 0]
        somewhere = voxels.centre.mean(axis=0) + across
        axis = lv_frame_from_labels(
            voxels, apex=apex, base_centre=base, rv_centre=somewhere, **given
        )
        septal, used = septum_from_grooves(tree(), axis, where=where)
        note(f"the labels have no RV; the septum is taken from the course of {used}", where=where)
        frame = lv_frame_from_points(
            axis.apex, axis.base_centre, axis.apex + septal, frame=axis.frame, where=where
        )
    else:
        frame = lv_frame_from_labels(voxels, apex=apex, base_centre=base, rv_centre=right, **given)
    if apex is not None or base is not None:
        _check_ends(frame, voxels, apex is not None, base is not None)
    if right is not None and labels.rv is not None:
        _compare_septum(frame, voxels.label_centre(labels.rv).mean(axis=0))
    return frame


def directions_from_landmarks(marks: Landmarks, mesh: AbstractMesh) -> LVFrame:
    """The directions that points by hand give alone."""
    apex, base, right = _points(marks, mesh.frame)
    assert apex is not None
    assert base is not None
    assert right is not None
    frame = lv_frame_from_points(apex, base, right, frame=mesh.frame, where=_MARKS)
    _check_ends(frame, mesh, True, True)
    return frame


def _points(marks: Landmarks | None, frame: str) -> list[Float[np.ndarray, "3"] | None]:
    """Apex, base and RV point in m."""
    if marks is None:
        return [None, None, None]
    given = (marks.apex_mm, marks.base_mm, marks.rv_mm)
    place = lambda at: to_frame(np.array(at) * M_PER_MM, marks.frame, frame)
    return [None if at is None else place(at) for at in given]


def _check_ends(frame: LVFrame, mesh: AbstractMesh, apex: bool, base: bool) -> None:
    """Refuse points that another unit, another frame or an exchange of the two has moved."""
    away = {
        key: float(np.linalg.norm(mesh.centre - point[None, :], axis=1).min())
        for key, point in (("apex_mm", frame.apex), ("base_mm", frame.base_centre))
    }
    for key, by_hand in (("apex_mm", apex), ("base_mm", base)):
        if by_hand and away[key] > _FARTHEST:
            raise InputError(
                f"{key} lies {away[key] / M_PER_MM:.0f} mm from the wall",
                where=_MARKS,
                expected=f"at most {_FARTHEST / M_PER_MM:g} mm",
                fix="Check its frame (LPS or RAS) and its unit, mm",
            )
    height = frame.height(mesh.centre)
    low, high = np.quantile(height, [0.2, 0.8])
    radius = np.linalg.norm(frame.radial(mesh.centre), axis=1)
    at_apex, at_base = float(radius[height < low].mean()), float(radius[height > high].mean())
    if at_apex > _WIDER * at_base:
        raise InputError(
            f"the wall is wider at the apex ({at_apex / M_PER_MM:.0f} mm from the axis) than at "
            f"the base ({at_base / M_PER_MM:.0f} mm)",
            where=_MARKS,
            expected="a ventricle that is narrow at its apex",
            fix="Exchange apex_mm and base_mm, or check the one that is given",
        )


def _compare_septum(frame: LVFrame, rv_centre: Float[np.ndarray, "3"]) -> None:
    apart = abs(float(np.degrees(frame.angle(rv_centre[None, :])[0])))
    if apart > _APART_DEG:
        note(
            f"rv_mm lies {apart:.0f}° about the long axis from the middle of the labelled RV; "
            "rv_mm is used",
            where=_MARKS,
        )


def _unnamed(voxels: VoxelMesh, labels: Labels, where: str) -> None:
    """Say which labels that the case does not name cover the wall: there it has no surface."""
    faces = voxels.boundary_faces()
    assert faces.label is not None
    outer = faces.label != labels.cavity
    for label in np.setdiff1d(faces.label, [0, labels.cavity, labels.rv or 0]):
        share = float(faces.area[faces.label == label].sum() / faces.area[outer].sum())
        if share > _UNNAMED_SHARE:
            rv = "" if labels.rv is not None else "; name it as rv if it is the right ventricle"
            note(
                f"label {label}, which the case does not name, covers {100 * share:.0f} % of the "
                f"wall's outer surface, where the wall's depth is that of the rest{rv}",
                where=where,
            )
