"""The left ventricle's own directions: long axis, towards the septum, towards the front."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._misc import check_frame, InputError
from ._mesh import check_finite
from ._voxel import VoxelMesh

_UNIT_TOLERANCE = 1e-9
# Share of the cavity, farthest from the base, whose centroid gives the long axis its direction.
_TIP_SHARE = 0.005


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
    mesh: VoxelMesh, *, cavity_label: int = 2, rv_label: int = 3, where: str = "LV frame"
) -> LVFrame:
    """The frame of a labelled ventricle.

    The base centre is the centroid of the cavity's open faces (towards neither wall nor other
    tissue, so mitral and aortic valve together), the long axis runs through it and the centroid of
    the 0.5 % of the cavity farthest from it, the apex is where the axis leaves the cavity's
    extent, and the septum lies towards the centroid of the RV cavity. A cavity without an open
    face has no base plane and is refused.

    **Arguments:**

    - `mesh`: a [`jaxperf.geometry.VoxelMesh`][] that keeps the cavities' labels.
    - `cavity_label`, `rv_label`: labels of the two cavities.
    - `where`: the file that errors name.

    **Returns:**

    An [`jaxperf.geometry.LVFrame`][] in the mesh's frame.

    **Errors:** [`InputError`][] where a label is missing or the cavity is closed.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, _, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    frame = jp.geometry.lv_frame_from_labels(mesh, cavity_label=2, rv_label=3)
    ```
    """
    for label, name in ((cavity_label, "LV cavity"), (rv_label, "RV cavity")):
        if not np.any(mesh.label == label):
            raise InputError(
                f"no voxel has the label {label} of the {name}",
                where=where,
                expected="a label volume with wall, LV cavity and RV cavity",
                fix="State the label numbers, or give apex, base and RV point by hand",
            )
    base = _open_face_centre(mesh, cavity_label, where)
    cavity = mesh.label_centre(cavity_label)
    apart = np.sum((cavity - base[None, :]) ** 2, axis=1)
    # One farthest voxel would be off the axis by the width of a blunt tip. Voxels as far as the
    # last one belong to it too, or a rotation of the grid would choose among them by round-off.
    tip = cavity[apart >= (1.0 - 1e-9) * np.quantile(apart, 1.0 - _TIP_SHARE)].mean(axis=0)
    axis = (tip - base) / np.linalg.norm(tip - base)
    half_voxel = 0.5 * float(np.abs(mesh.axes @ axis) @ mesh.spacing)
    apex = base + (np.max((cavity - base[None, :]) @ axis) + half_voxel) * axis
    rv = mesh.label_centre(rv_label).mean(axis=0)
    return lv_frame_from_points(apex, base, rv, frame=mesh.frame, where=where)


def _open_face_centre(mesh: VoxelMesh, cavity_label: int, where: str) -> Float[np.ndarray, "3"]:
    """Area-weighted centroid of the faces between the cavity and the background."""
    label = np.pad(mesh.label, 1)
    ijk = np.argwhere(mesh.label == cavity_label)
    total, centre = 0.0, np.zeros(3)
    for a in range(3):
        area = float(np.prod(mesh.spacing) / mesh.spacing[a])
        for sign in (-1, 1):
            step = sign * np.eye(3, dtype=np.int64)[a]
            open_face = ijk[label[tuple((ijk + 1 + step[None, :]).T)] == 0] + 0.5 * step[None, :]
            total += area * open_face.shape[0]
            centre += area * mesh.position(open_face).sum(axis=0)
    if total == 0.0:
        raise InputError(
            f"the LV cavity (label {cavity_label}) has no face towards the background",
            where=where,
            expected="a cavity that is open at the base",
            fix="Label the left atrium and the aorta 0, or give apex, base and RV point by hand",
        )
    return centre / total
