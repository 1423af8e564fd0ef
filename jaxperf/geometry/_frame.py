"""The left ventricle's own directions: long axis, towards the septum, towards the front."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._misc import check_frame, InputError, note
from ._mesh import check_finite
from ._openings import cavity_openings, CavityOpenings, main_cavity
from ._voxel import VoxelMesh

_UNIT_TOLERANCE = 1e-9
# Share of the cavity, farthest from the base, whose centroid gives the long axis its direction.
_TIP_SHARE = 0.005
# A hole of this share of the base's area in the lowest part of the cavity takes its tip away: the
# ellipsoid that it cuts would be 5 % longer.
_TIP_HOLE, _TIP_HEIGHT = 0.2, 0.25
# Length of the cavity over the width of its opening: 2.8 in a patient, 1.3 where the image ends at
# the widest place.
_LEAST_SLENDER = 1.0
# Angle (degrees) between valve plane's normal and axis; 18 in a patient, 40 for an aortic ring.
_MOST_TILT = 55.0
# An opening of this share of the cavity's widest section may be a cut; a mitral ring has half.
_CUT_SHARE = 0.97
# Holes above this height are valves or the ragged end of the wall, unless as large as the base.
_VALVES_FROM, _SECOND_BASE, _MOST_NOTES = 0.8, 0.5, 3
# One below the second height that looks down within 45° takes the tip away.
_TIP_BELOW, _TIP_COSINE = 0.5, 0.7
_SIDES = ("septal", "anterior", "lateral", "inferior")
# Variance of the cavity along the axis over the largest one: 1 for a ventricle, 0.4 across it.
_LEAST_ALONG = 0.7


class LVFrame(eqx.Module):
    """The left ventricle's directions in the mesh's coordinates.

    `long_axis` points from the apex to the base, `septal` is perpendicular to it and points to the
    right ventricle, `anterior = long_axis × septal`. Seen from the base, with the septum on the
    viewer's left, the anterior wall is up: this is the heart's own handedness, and the same cross
    product in LPS, in RAS and in model coordinates because all three are right-handed.

    - `apex`: (3,), tip of the cavity, m (below it lies AHA segment 17).
    - `base_centre`: (3,), centre of the base plane, m.
    - `long_axis`, `septal`, `anterior`: (3,), orthonormal.
    - `frame`: "LPS", "RAS" or "model".
    """

    apex: Float[np.ndarray, "3"]
    base_centre: Float[np.ndarray, "3"]
    long_axis: Float[np.ndarray, "3"]
    septal: Float[np.ndarray, "3"]
    anterior: Float[np.ndarray, "3"]
    frame: str = eqx.field(static=True)

    def __check_init__(self) -> None:
        check_frame(self.frame, "LVFrame")
        axes = np.stack([self.septal, self.anterior, self.long_axis])
        if not (
            np.allclose(axes @ axes.T, np.eye(3), rtol=0.0, atol=_UNIT_TOLERANCE)
            and np.linalg.det(axes) > 0.0
        ):
            raise InputError(
                "septal, anterior and long axis are not right-handed and orthonormal",
                where="LVFrame",
                expected="anterior = long_axis × septal, all of unit length",
                fix="Build the frame with lv_frame_from_points",
            )

    @property
    def length(self) -> float:
        """From the apex to the base plane, m."""
        return float(np.linalg.norm(self.base_centre - self.apex))

    def height(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Distance from the apex along the long axis, m; negative below the apex."""
        return (point - self.apex[None, :]) @ self.long_axis

    def angle(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Angle about the long axis, rad: 0 septal, π/2 anterior, in (−π, π]."""
        x = point - self.apex[None, :]
        return np.arctan2(x @ self.anterior, x @ self.septal)

    def radial(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Vector from the long axis to the point, perpendicular to the axis, m."""
        x = point - self.apex[None, :]
        return x - (x @ self.long_axis)[:, None] * self.long_axis[None, :]


def lv_frame_from_points(
    apex: Float[np.ndarray, "3"],
    base_centre: Float[np.ndarray, "3"],
    rv_centre: Float[np.ndarray, "3"],
    *,
    frame: str,
    where: str = "LV frame",
) -> LVFrame:
    """The frame spanned by apex, base and a point in the right ventricle.

    **Arguments:**

    - `apex`: tip of the LV cavity, m.
    - `base_centre`: centre of the mitral (or base) plane, m.
    - `rv_centre`: centroid of the RV cavity, or any point that lies in the direction of the
      septum, m.
    - `frame`: "LPS", "RAS" or "model".
    - `where`: what errors name.

    **Returns:**

    An [`jaxperf.geometry.LVFrame`][].

    **Errors:** [`InputError`][] for NaN, coinciding points, and an RV point on the long axis.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    apex, base, rv = np.array([0, 0, -0.06]), np.zeros(3), np.array([0.04, 0, 0])
    frame = jp.geometry.lv_frame_from_points(apex, base, rv, frame="LPS")
    ```
    """
    points = np.stack([apex, base_centre, rv_centre]).astype(np.float64)
    check_finite(points, "apex, base_centre or rv_centre", where)
    axis = points[1] - points[0]
    length = np.linalg.norm(axis)
    if length == 0.0:
        raise InputError(
            "apex and base centre are the same point",
            where=where,
            expected="two points on the long axis",
            fix="Measure the long axis from the cavity's tip to the mitral plane",
        )
    long_axis = axis / length
    towards = points[2] - points[0]
    septal = towards - (towards @ long_axis) * long_axis
    if np.linalg.norm(septal) < 1e-6 * length:
        raise InputError(
            "the point of the right ventricle lies on the long axis",
            where=where,
            expected="a point beside the long axis, in the direction of the septum",
            fix="Use the centroid of the RV cavity",
        )
    septal = septal / np.linalg.norm(septal)
    # the first projection leaves round-off along the axis when the point is far along it
    septal = septal - (septal @ long_axis) * long_axis
    septal = septal / np.linalg.norm(septal)
    return LVFrame(points[0], points[1], long_axis, septal, np.cross(long_axis, septal), frame)


def lv_frame_from_labels(
    mesh: VoxelMesh,
    *,
    cavity_label: int = 2,
    rv_label: int | None = 3,
    apex: Float[np.ndarray, "3"] | None = None,
    base_centre: Float[np.ndarray, "3"] | None = None,
    rv_centre: Float[np.ndarray, "3"] | None = None,
    where: str = "LV frame",
) -> LVFrame:
    """The frame of a labelled ventricle.

    The base centre is that of the valve plane ([`jaxperf.geometry.cavity_openings`][]), the long
    axis runs through it and the centroid of the 0.5 % of the cavity farthest from it, the apex is
    where the axis leaves the cavity's extent, and the septum lies towards the centroid of the RV
    cavity. Voids count as cavity. A point given by hand takes the place of that from the labels.

    **Arguments:**

    - `mesh`: a [`jaxperf.geometry.VoxelMesh`][] that keeps the cavities' labels.
    - `cavity_label`, `rv_label`: labels of the two cavities; without `rv_label`, `rv_centre` is
      needed.
    - `apex`, `base_centre`, `rv_centre`: (3,), m, in the mesh's frame.
    - `where`: the file that errors name.

    **Returns:**

    An [`jaxperf.geometry.LVFrame`][] in the mesh's frame.

    **Errors:** [`InputError`][] where a label is missing, the cavity is closed, open at the tip
    too, or longer across the axis than along it, and where the plane of its opening is no base.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, _, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    frame = jp.geometry.lv_frame_from_labels(mesh, cavity_label=2, rv_label=3)
    ```
    """
    _check_labels(mesh, cavity_label, rv_label if rv_centre is None else None, where)
    base, openings = base_centre, None
    if base is None:
        openings = cavity_openings(mesh, cavity_label=cavity_label, rv_label=rv_label, where=where)
        base, inside = openings.base.centre, openings.cavity
    else:
        inside = main_cavity(mesh, cavity_label, rv_label)
    cavity = mesh.position(np.argwhere(inside).astype(np.float64))
    if openings is not None:
        # a cavity whose label goes on above the valve plane, into the atrium, has its tip below it
        cavity = cavity[(cavity - base[None, :]) @ openings.base.normal < 0.0]
    if apex is None:
        apex = _tip(mesh, cavity, base)
    right = _septum(mesh, rv_label, where) if rv_centre is None else rv_centre
    frame = lv_frame_from_points(apex, base, right, frame=mesh.frame, where=where)
    if openings is not None:
        _check_base(frame, openings, cavity, where)
        _note_openings(frame, openings, mesh, where)
    return frame


def _check_labels(mesh: VoxelMesh, cavity_label: int, rv_label: int | None, where: str) -> None:
    for label, name in ((cavity_label, "LV cavity"), (rv_label, "RV cavity")):
        if label is not None and not np.any(mesh.label == label):
            raise InputError(
                f"no voxel has the label {label} of the {name}",
                where=where,
                expected="a label volume with wall, LV cavity and RV cavity",
                fix="State the numbers of the labels that the volume has",
            )


def _septum(mesh: VoxelMesh, rv_label: int | None, where: str) -> Float[np.ndarray, "3"]:
    if rv_label is None:
        raise InputError(
            "nothing says where the septum is",
            where=where,
            expected="an RV cavity among the labels, or a point in its direction",
            fix="Name the label of the RV cavity, or give `rv_centre` by hand",
        )
    return mesh.label_centre(rv_label).mean(axis=0)


def _tip(
    mesh: VoxelMesh, cavity: Float[np.ndarray, "v 3"], base: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3"]:
    """Where the long axis leaves the cavity's extent."""
    apart = np.sum((cavity - base[None, :]) ** 2, axis=1)
    # One farthest voxel would be off the axis by the width of a blunt tip. Voxels as far as the
    # last one belong to it too, or a rotation of the grid would choose among them by round-off.
    tip = cavity[apart >= (1.0 - 1e-9) * np.quantile(apart, 1.0 - _TIP_SHARE)].mean(axis=0)
    axis = (tip - base) / np.linalg.norm(tip - base)
    half_voxel = 0.5 * float(np.abs(mesh.axes @ axis) @ mesh.spacing)
    return base + (np.max((cavity - base[None, :]) @ axis) + half_voxel) * axis


def _check_base(
    frame: LVFrame, openings: CavityOpenings, cavity: Float[np.ndarray, "v 3"], where: str
) -> None:
    """Refuse an opening that is no base: the axis would be turned and every segment with it."""
    base = openings.base
    tilt = float(np.degrees(np.arccos(np.clip(base.normal @ frame.long_axis, -1.0, 1.0))))
    spread = np.cov(cavity.T)
    along = float(frame.long_axis @ spread @ frame.long_axis)
    at_tip = [
        hole
        for hole in openings.holes
        if hole.area >= _TIP_HOLE * base.area
        and float(frame.height(hole.centre[None, :])[0]) < _TIP_HEIGHT * frame.length
    ]
    what = None
    if at_tip:
        what = (
            f"the LV cavity is open at both ends: {1e6 * base.area:.0f} mm² at one, "
            f"{1e6 * at_tip[0].area:.0f} mm² at the other, so that its tip is not in the image"
        )
    elif tilt > _MOST_TILT:
        what = (
            f"the largest opening of the LV cavity looks {tilt:.0f}° away from the line between "
            "it and the cavity's tip"
        )
    elif frame.length < _LEAST_SLENDER * 2.0 * base.radius:
        what = (
            f"the LV cavity is {1e3 * frame.length:.0f} mm long and its opening "
            f"{2e3 * base.radius:.0f} mm wide: the image cuts the ventricle far below its base"
        )
    elif along < _LEAST_ALONG * float(np.linalg.eigvalsh(spread)[-1]):
        what = (
            "the LV cavity is longer across the line from its opening to its tip than along it, so "
            "that the opening is no base"
        )
    if what is not None:
        raise InputError(
            what,
            where=where,
            expected="a cavity that is open at the base and closed elsewhere",
            fix="Repair the labels, or give `apex` and `base_centre` by hand",
        )


def _note_openings(frame: LVFrame, openings: CavityOpenings, mesh: VoxelMesh, where: str) -> None:
    """Say what a reader of the labels should look at."""
    base, voxel = openings.base, float(mesh.spacing.max())
    if openings.n_islands:
        note(
            f"{openings.n_islands} voxels with the label of the LV cavity are not joined to it and "
            "count for nothing",
            where=where,
        )
    if not base.is_flat(voxel):
        note(
            f"the rim of the LV cavity's opening lies {1e3 * base.off_plane:.1f} mm off its plane "
            f"(root mean square; its radius is {1e3 * base.radius:.0f} mm); look at the wall's "
            "upper end, or give `base_centre` by hand",
            where=where,
        )
    place = mesh.position(np.argwhere(openings.cavity).astype(np.float64))
    width = 2.0 * voxel
    slab = np.floor(frame.height(place) / width).astype(np.int64)
    widest = np.bincount(slab - slab.min()).max() * abs(np.linalg.det(mesh.affine[:3, :3])) / width
    if base.area > _CUT_SHARE * widest:
        note(
            f"the LV cavity is widest where it ends above ({1e6 * base.area:.0f} mm²), so that the "
            "image may end below the mitral valve; basal, mid and apical thirds are those of what "
            "it shows. Give `base_centre` by hand where the base is known",
            where=where,
        )
    _note_holes(frame, openings, where)


def _note_holes(frame: LVFrame, openings: CavityOpenings, where: str) -> None:
    for i, hole in enumerate(openings.holes):
        height = float(frame.height(hole.centre[None, :])[0]) / frame.length
        if height > _VALVES_FROM and hole.area < _SECOND_BASE * openings.base.area:
            continue  # the aortic valve, or the ragged end of the wall
        if i == _MOST_NOTES:
            rest = len(openings.holes) - i
            note(f"the wall has {rest} more holes, smaller than these", where=where)
            return
        area = f"{1e6 * hole.area:.0f} mm²"
        side = _SIDES[round(float(frame.angle(hole.centre[None, :])[0]) / (0.5 * np.pi)) % 4]
        if height > _VALVES_FROM:
            what = (
                f"the LV cavity has a second opening, of {area}, beside the one of "
                f"{1e6 * openings.base.area:.0f} mm² that is taken for the valve plane"
            )
        elif height < _TIP_BELOW and hole.normal @ frame.long_axis < -_TIP_COSINE:
            what = f"the LV cavity is open at its tip over {area}; the tip may lie below the labels"
        else:
            what = (
                f"the wall has a hole of {area} on the {side} side, at {100 * height:.0f} % of the "
                "way from apex to base; depth beside it follows the labels as they are"
            )
        note(what, where=where)
