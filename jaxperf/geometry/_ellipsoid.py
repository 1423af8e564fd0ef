"""A ventricle made of two truncated ellipsoids: labels, frame, and the surface in closed form."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ._frame import lv_frame_from_points, LVFrame
from ._voxel import build_voxel_mesh, VoxelMesh

# Halvings of the bracket of the nearest-point parameter: to round-off from any start.
_BISECTIONS = 80
_OFF_PLANE = 1e-14
# The RV cavity is the part outside the LV of an ellipsoid beside it: centre on the septal side at
# this share of the LV's outer semi-axis, semi-axes as shares of the LV's outer ones.
_RV_OFFSET = 0.75
_RV_SHARE = np.array([0.95, 0.95, 0.85])
# Voxels of the grid; labelling takes some 60 bytes for each.
_MOST_VOXELS = 2e7


class EllipsoidLV(eqx.Module):
    """The wall between two ellipsoids about the origin, cut off at the base plane.

    The long axis is +z, the septum is towards +x and the front towards +y ("model" frame).

    - `endo`, `epi`: (3,), semi-axes of the two surfaces, m.
    - `base_height`: height of the base plane above the ellipsoids' centre, m.
    """

    endo: Float[np.ndarray, "3"]
    epi: Float[np.ndarray, "3"]
    base_height: float

    @property
    def cavity_volume(self) -> float:
        """Volume inside the endocardium below the base plane, m³."""
        return _truncated_volume(self.endo, self.base_height)

    @property
    def wall_volume(self) -> float:
        """Volume between the two surfaces below the base plane, m³."""
        return _truncated_volume(self.epi, self.base_height) - self.cavity_volume

    @property
    def frame(self) -> LVFrame:
        """Apex at the cavity's tip, base centre in the base plane."""
        return lv_frame_from_points(
            np.array([0.0, 0.0, -self.endo[2]]),
            np.array([0.0, 0.0, self.base_height]),
            np.array([self.epi[0], 0.0, 0.0]),
            frame="model",
            where="EllipsoidLV",
        )

    def epicardium(
        self,
        angle: float | Float[np.ndarray, "..."],
        height: float | Float[np.ndarray, "..."],
        outside: float = 0.0,
    ) -> Float[np.ndarray, "... 3"]:
        """Points on (or outside) the epicardial surface.

        x = a sin φ cos θ, y = b sin φ sin θ, z = −c cos φ, φ = height · φ_base: the height runs
        evenly in the eccentric angle, so that curves through the apex stay smooth.

        **Arguments:**

        - `angle`: θ about the long axis, rad; 0 septal, π/2 anterior, π lateral, −π/2 inferior.
        - `height`: 0 at the apex, 1 in the base plane; above 1 on the ellipsoid beyond the cut.
        - `outside`: distance along the outward normal, m (half a vessel's width and its fat).

        **Returns:**

        (..., 3), m.
        """
        angle, height = np.broadcast_arrays(angle, height)
        phi = height * math.acos(-self.base_height / float(self.epi[2]))
        unit = np.stack(
            [np.sin(phi) * np.cos(angle), np.sin(phi) * np.sin(angle), -np.cos(phi)], axis=-1
        )
        normal = unit / self.epi
        normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
        return unit * self.epi + outside * normal

    def outside_distance(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Signed distance from the (uncut) epicardial ellipsoid, m; positive outside.

        The nearest point is x_i = a_i² y_i / (s + a_i² − a_min²) with s the positive root of
        Σ (a_i y_i / (s + a_i² − a_min²))² = 1, found by bisection.

        **Source:** D. Eberly (2013), Distance from a point to an ellipse, an ellipsoid, or a
        hyperellipsoid (there with t = s − a_min², which cancels near the planes of symmetry).
        """
        # on a plane of symmetry the root may be a pole: step off it by less than round-off shows
        y = np.maximum(np.abs(point), _OFF_PLANE * self.epi)
        square = self.epi**2
        above = square - square.min()
        low = np.max(self.epi * y - above, axis=1)
        high = np.linalg.norm(self.epi * y, axis=1)
        for _ in range(_BISECTIONS):
            s = 0.5 * (low + high)
            large = np.sum((self.epi * y / (s[:, None] + above)) ** 2, axis=1) > 1.0
            low, high = np.where(large, s, low), np.where(large, high, s)
        nearest = square * y / (0.5 * (low + high)[:, None] + above)
        inside = np.sum((point / self.epi) ** 2, axis=1) < 1.0
        distance = np.linalg.norm(y - nearest, axis=1)
        return np.where(inside, -distance, distance)


def ellipsoid_ventricle(
    *,
    spacing_mm: float = 2.5,
    endo_short_mm: tuple[float, float] = (24.0, 24.0),
    endo_long_mm: float = 62.0,
    wall_base_mm: float = 9.5,
    wall_apex_mm: float = 7.0,
    base_height_mm: float = 22.0,
) -> tuple[VoxelMesh, LVFrame, EllipsoidLV]:
    """A truncated-ellipsoid left ventricle with an RV cavity beside it, as labelled voxels.

    Labels: 1 LV wall, 2 LV cavity, 3 RV cavity (the crescent outside the LV of a second ellipsoid
    on the septal side), 0 else. The defaults make a wall of about 130 g.

    **Arguments:**

    - `spacing_mm`: side of the voxels.
    - `endo_short_mm`: semi-axes of the cavity towards the septum and towards the front.
    - `endo_long_mm`: semi-axis of the cavity along the long axis.
    - `wall_base_mm`, `wall_apex_mm`: thickness at the widest place and at the apex.
    - `base_height_mm`: base plane above the widest place.

    **Returns:**

    The [`jaxperf.geometry.VoxelMesh`][], the [`jaxperf.geometry.LVFrame`][] and the closed-form
    [`jaxperf.geometry.EllipsoidLV`][], all in the "model" frame.

    **Errors:** [`InputError`][] for lengths that are not positive, a base plane beyond the cavity,
    and voxels that are too large for the wall or too many.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    print(mesh.n_cells, 1e6 * mesh.volume.sum(), "ml of wall")
    ```
    """
    lengths = (spacing_mm, *endo_short_mm, endo_long_mm, wall_base_mm, wall_apex_mm)
    if not all(math.isfinite(x) and x > 0.0 for x in lengths):
        _refuse(f"the lengths are {lengths} mm", "positive lengths")
    if not abs(base_height_mm) < endo_long_mm:
        _refuse(f"base_height_mm is {base_height_mm}", "a base plane that cuts the cavity")
    _check_count(spacing_mm, endo_short_mm, wall_base_mm, endo_long_mm + wall_apex_mm)
    if spacing_mm > 0.75 * min(wall_base_mm, wall_apex_mm):
        _refuse(f"spacing_mm is {spacing_mm}", "voxels of at most 3/4 of the wall's thickness")
    endo = np.array([*endo_short_mm, endo_long_mm]) * 1e-3
    epi = endo + np.array([wall_base_mm, wall_base_mm, wall_apex_mm]) * 1e-3
    lv = EllipsoidLV(endo=endo, epi=epi, base_height=base_height_mm * 1e-3)
    label, affine = _labels(lv, spacing_mm * 1e-3)
    mesh = build_voxel_mesh(label, affine, frame="model", where="ellipsoid_ventricle")
    return mesh, lv.frame, lv


def _check_count(
    spacing_mm: float, short_mm: tuple[float, float], wall_mm: float, long_mm: float
) -> None:
    """Refuse a grid that no memory holds, before it is made."""
    box = 8.0 * (short_mm[0] + wall_mm) * (short_mm[1] + wall_mm) * long_mm
    # in logarithms: a spacing of 1e-200 is a length too
    digits = math.log10(box) - 3.0 * math.log10(spacing_mm)
    if digits > math.log10(_MOST_VOXELS):
        count = f"{10.0**digits:.2g}" if digits < 300.0 else "more than 1e300"
        least = (box / _MOST_VOXELS) ** (1.0 / 3.0)
        raise InputError(
            f"a `spacing_mm` of {spacing_mm:g} makes a grid of {count} voxels",
            where="ellipsoid_ventricle",
            expected=f"at most {_MOST_VOXELS:.0e} voxels",
            fix=f"Take a `spacing_mm` of at least {least:.2g}, or check the other lengths",
        )


def _labels(lv: EllipsoidLV, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the voxel centres; the base plane and the origin lie between voxels."""
    rv = lv.epi * _RV_SHARE
    rv_centre = np.array([_RV_OFFSET * lv.epi[0], 0.0, 0.0])
    low = np.minimum(-lv.epi, rv_centre - rv)
    high = np.maximum(lv.epi, rv_centre + rv)
    high[2] = lv.base_height
    below = np.ceil((high - low) / spacing).astype(np.int64)
    # counted down from the base plane, so that the cut is flush with the voxels' faces
    origin = np.array([*(-0.5 * spacing * (below[:2] - 1) + 0.5 * (low + high)[:2]), 0.0])
    origin[2] = lv.base_height - (below[2] - 0.5) * spacing
    index = np.stack(np.meshgrid(*map(np.arange, below), indexing="ij"), axis=-1)
    x = origin + spacing * index
    label = np.zeros(tuple(below), dtype=np.int32)
    label[np.sum(((x - rv_centre) / rv) ** 2, axis=-1) < 1.0] = 3
    label[np.sum((x / lv.epi) ** 2, axis=-1) < 1.0] = 1
    label[np.sum((x / lv.endo) ** 2, axis=-1) < 1.0] = 2
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    return label, affine


def _truncated_volume(semi: Float[np.ndarray, "3"], height: float) -> float:
    """π a b ∫ (1 − z²/c²) dz from −c to the height."""
    a, b, c = (float(s) for s in semi)
    return math.pi * a * b * (height + 2.0 * c / 3.0 - height**3 / (3.0 * c**2))


def _refuse(what: str, expected: str) -> None:
    raise InputError(
        what,
        where="ellipsoid_ventricle",
        expected=expected,
        fix="Change the dimensions of the ventricle",
    )
