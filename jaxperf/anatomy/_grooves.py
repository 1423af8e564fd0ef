"""A right coronary drawn by rule along the grooves of a labelled heart.

Where the images show no right coronary, the inferior wall of a right-dominant heart would have no
supply. The vessel drawn here stands in for it: it follows the right atrioventricular groove around
the tricuspid valve to the crux and the posterior interventricular groove from there. It is no
measurement, and its branches say so in their names.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from .._misc import InputError
from ..geometry import LVFrame, VoxelMesh
from ..network import VascularNetwork
from ..units import M_PER_MM
from ._courses import arc_length, Course, network_from_courses

SYNTHETIC = "(synthetic)"
_STEP = 0.5e-3
_LONGEST_RAY = 0.12
# Azimuths (degrees) about the tricuspid valve, from the front over the right to the crux.
_AROUND_VALVE = np.linspace(75.0, -80.0, 19)
_SECTOR_DEG = 12.0
_BELOW_VALVE = 4e-3  # the groove lies below the plane of the open valve
# In front the outflow tract lies beyond the valve's rim: where a ray runs farther than this
# through tissue beyond the rim, the vessel stays on the rim, above the valve's plane.
_THICKEST_RIM = 9e-3
_ABOVE_VALVE = 4e-3
_RV_WALL_DEG = 4.0  # from the edge of the RV cavity to the groove, about an RV wall's thickness
_CRUX_HEIGHT, _PDA_END, _PL_END = 0.84, 0.22, 0.38
_PL_SPREAD_DEG = 30.0  # between neighbouring posterolateral branches
_OSTIUM_APART = 18e-3  # between the two ostia
_SMOOTHING = 1.5


@dataclass(frozen=True)
class _Epicardium:
    """The outline of all tissue and cavities, seen along rays."""

    inside: Bool[np.ndarray, "i j k"]
    mesh: VoxelMesh

    def exit(
        self, start: Float[np.ndarray, "3"], direction: Float[np.ndarray, "3"]
    ) -> Float[np.ndarray, "3"]:
        """Where a ray leaves the heart for the last time."""
        at = start + np.arange(0.0, _LONGEST_RAY, _STEP)[:, None] * direction
        inverse = np.linalg.inv(self.mesh.affine)
        ijk = np.round(at @ inverse[:3, :3].T + inverse[:3, 3]).astype(np.int64)
        shape = np.array(self.inside.shape)
        valid = ((ijk >= 0) & (ijk < shape)).all(axis=1)
        hit = np.zeros(len(at), np.bool_)
        hit[valid] = self.inside[tuple(ijk[valid].T)]
        if not hit.any():
            raise InputError(
                "a ray from the ventricles' inside meets no tissue",
                where="synthetic_right_coronary",
                expected="labels of wall, LV cavity and RV cavity that join",
                fix="Check the numbers of the labels",
            )
        return at[int(np.flatnonzero(hit)[-1])]


def synthetic_right_coronary(
    mesh: VoxelMesh,
    frame: LVFrame,
    left: VascularNetwork,
    *,
    rv_label: int,
    diameter_mm: tuple[float, float] = (3.9, 3.0),
    n_posterolateral: int = 2,
    gap: float = 2e-3,
    ostium: Float[np.ndarray, "3"] | None = None,
) -> VascularNetwork:
    """Right coronary, PDA and posterolateral branches along the grooves of a labelled heart.

    Works on any label volume with an RV cavity that is open at the tricuspid valve.

    **Arguments:**

    - `mesh`, `frame`: the labelled grid and the ventricle's directions.
    - `left`: the tree it completes.
    - `diameter_mm`: of the lumen at the ostium and before the crux (Dodge 1992).
    - `n_posterolateral`: number of posterolateral branches.
    - `gap`: of the centreline above the epicardium, m.
    - `ostium`: the right ostium in the mesh's frame, m; beside the left root where left out.

    **Returns:** a network of one root in the mesh's frame; all branch names end in "(synthetic)".

    **Errors:** [`InputError`][] where the grooves cannot be found.
    """
    outline = _Epicardium(mesh.label > 0, mesh)
    height, angle = _posterior_groove(mesh, frame, rv_label)
    side = lambda degree, h: _beside(outline, frame, degree, h, gap)
    crux = side(np.interp(_CRUX_HEIGHT, height, angle), _CRUX_HEIGHT)
    around = _right_av_groove(outline, frame, rv_label, gap)
    if ostium is None:
        ostium = _ostium(left, around[0])
    descent = np.linspace(_CRUX_HEIGHT, _PDA_END, 16)
    pda = np.stack([side(np.interp(h, height, angle), h) for h in descent])
    name = lambda vessel: f"{vessel} {SYNTHETIC}"
    count = n_posterolateral
    courses = [
        Course(
            name("RCA"),
            np.concatenate([ostium[None], _smoothed(np.concatenate([around, crux[None]]))]),
            diameter_mm=diameter_mm[0],
            end_mm=diameter_mm[1],
        ),
        Course(name("PDA"), _smoothed(pda), name("RCA"), share=1.0 / (1 + count)),
    ]
    start = float(np.interp(_CRUX_HEIGHT, height, angle))
    for i in range(count):
        # each goes on along the groove from where the last one turned down
        parent = name("RCA") if i == 0 else name(f"PL {i}")
        along = [side(d, _CRUX_HEIGHT) for d in np.linspace(start, start - _PL_SPREAD_DEG, 8)]
        down = [side(start - _PL_SPREAD_DEG, h) for h in np.linspace(0.8, _PL_END, 10)]
        at = np.inf if i == 0 else _reach(courses[-1].point, 8)
        share = count / (1 + count) if i == 0 else (count - i) / (count - i + 1)
        start -= _PL_SPREAD_DEG
        point = _smoothed(np.stack(along + down))
        courses.append(Course(name(f"PL {i + 1}"), point, parent, at, share=share))
    return network_from_courses(courses, frame=mesh.frame, where="synthetic_right_coronary")


def _reach(point: Float[np.ndarray, "p 3"], n: int) -> float:
    """Arc length (mm) of the first n points."""
    return float(arc_length(point[:n])[-1]) / M_PER_MM


def _smoothed(point: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
    """Without the steps of the voxels; the ends stay."""
    out = ndimage.gaussian_filter1d(point, _SMOOTHING, axis=0, mode="nearest")
    out[0], out[-1] = point[0], point[-1]
    return out


def _beside(
    outline: _Epicardium, frame: LVFrame, degree: float, height: float, gap: float
) -> Float[np.ndarray, "3"]:
    """A point outside the epicardium at an angle about the long axis and a relative height."""
    angle = np.radians(degree)
    direction = np.cos(angle) * frame.septal + np.sin(angle) * frame.anterior
    start = frame.apex + height * frame.length * frame.long_axis
    return outline.exit(start, direction) + gap * direction


def _posterior_groove(
    mesh: VoxelMesh, frame: LVFrame, rv_label: int
) -> tuple[Float[np.ndarray, " h"], Float[np.ndarray, " h"]]:
    """Angle (degrees) of the inferior edge of the RV by relative height, smoothed.

    Below the RV's own apex the angle of the lowest level is kept.
    """
    rv = mesh.label_centre(rv_label)
    level = np.linspace(0.0, 1.0, 21)
    relative, degree = frame.height(rv) / frame.length, np.degrees(frame.angle(rv))
    found_at, found = [], []
    for h in level:
        near = np.abs(relative - h) < 0.03
        if near.sum() > 20:
            found_at.append(h)
            found.append(float(np.quantile(degree[near], 0.02)) - _RV_WALL_DEG)
    # towards the outflow tract the cavity ends in front and has no inferior edge
    kept = [i for i, h in enumerate(found_at) if h <= _CRUX_HEIGHT]
    if len(kept) < 3:
        raise InputError(
            f"the RV cavity (label {rv_label}) reaches over {len(kept)} levels of the long axis",
            where="synthetic_right_coronary",
            expected="an RV cavity beside the left ventricle",
            fix="Check the label of the RV cavity",
        )
    angle = ndimage.gaussian_filter1d(
        np.array([found[i] for i in kept]), _SMOOTHING, mode="nearest"
    )
    return np.array([found_at[i] for i in kept]), angle


def _open_faces(
    mesh: VoxelMesh, rv_label: int
) -> tuple[Float[np.ndarray, "f 3"], Float[np.ndarray, "f 3"]]:
    """Centres and normals of the faces between the RV cavity and the background."""
    label = np.pad(mesh.label, 1)
    ijk = np.argwhere(mesh.label == rv_label)
    centre, normal = [], []
    for axis in range(3):
        for sign in (-1, 1):
            step = sign * np.eye(3, dtype=np.int64)[axis]
            free = ijk[label[tuple((ijk + 1 + step).T)] == 0]
            centre.append(mesh.position(free + 0.5 * step))
            normal.append(np.broadcast_to(sign * mesh.axes[axis], (len(free), 3)))
    return np.concatenate(centre), np.concatenate(normal)


def _tricuspid(
    mesh: VoxelMesh, frame: LVFrame, rv_label: int
) -> tuple[Float[np.ndarray, "f 3"], Float[np.ndarray, "3"]]:
    """Faces of the open tricuspid valve, and the valve's normal.

    The RV is open at two valves, the pulmonary one in front; where only one opening is found it
    is taken for the tricuspid valve. Faces of an RV without a wall look sideways and are left out.
    """
    centre, normal = _open_faces(mesh, rv_label)
    upward = (normal @ frame.long_axis > 0.3) & (frame.height(centre) > 0.5 * frame.length)
    if upward.sum() < 10:
        raise InputError(
            f"the RV cavity (label {rv_label}) is not open towards the base",
            where="synthetic_right_coronary",
            expected="a cavity that meets the background at the tricuspid valve",
            fix="Label the right atrium 0",
        )
    centre, normal = centre[upward], normal[upward]
    reach = 2.1 * float(mesh.spacing.max())
    pairs = KDTree(centre).sparse_distance_matrix(KDTree(centre), reach)
    n, piece = connected_components(pairs, directed=False)
    size = np.bincount(piece, minlength=n)
    front = [float(np.mean((centre[piece == k] - frame.apex) @ frame.anterior)) for k in range(n)]
    large = [k for k in range(n) if size[k] > 0.1 * size.max()]
    valve = piece == min(large, key=lambda k: front[k])
    mean = normal[valve].mean(axis=0)
    return centre[valve], mean / np.linalg.norm(mean)


def _right_av_groove(
    outline: _Epicardium, frame: LVFrame, rv_label: int, gap: float
) -> Float[np.ndarray, "p 3"]:
    """Points around the tricuspid valve on the epicardium, from the front to the crux."""
    face, normal = _tricuspid(outline.mesh, frame, rv_label)
    centre = face.mean(axis=0)
    right = centre - frame.base_centre
    right = right - (right @ normal) * normal
    right = right / np.linalg.norm(right)
    front = np.cross(normal, right)
    front = front if front @ frame.anterior > 0.0 else -front
    start = centre - _BELOW_VALVE * normal
    azimuth = np.degrees(np.arctan2((face - centre) @ front, (face - centre) @ right))
    reach = np.hypot((face - centre) @ front, (face - centre) @ right)
    points = []
    for degree in _AROUND_VALVE:
        angle = np.radians(degree)
        direction = np.cos(angle) * right + np.sin(angle) * front
        outside = outline.exit(start, direction)
        rim = float(reach[np.abs(azimuth - degree) < _SECTOR_DEG].max(initial=0.0))
        if np.linalg.norm(outside - start) > rim + _THICKEST_RIM:
            points.append(centre + rim * direction + _ABOVE_VALVE * normal)
        else:
            points.append(outside + gap * direction)
    return np.stack(points)


def _ostium(left: VascularNetwork, groove: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    root = np.asarray(left.node_position)[int(np.asarray(left.roots)[0])]
    way = groove - root
    return root + min(_OSTIUM_APART / float(np.linalg.norm(way)), 0.6) * way
