"""Depth in the wall, local directions and rule-based fibres."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from .._misc import InputError
from ._frame import LVFrame
from ._mesh import AbstractMesh, BoundaryFaces, check_finite, check_same_frame
from ._nearest import nearest
from ._openings import filled_voids
from ._voxel import VoxelMesh

# Radii in face widths. Balls and not a number of neighbours: on a grid many are equally far, and
# round-off would choose among them. Normals are averaged over about two rings of faces, steps are
# levelled over about one (over two, the surface bends inwards). The squares are no multiples of
# 1/2, which all squared distances of voxel faces are.
_SMOOTHING_RADIUS = 2.3
_LEVELLING_RADIUS = 1.3
# A face of the base plane looks along the axis within 45°, in the upper part of the ventricle.
_BASE_COSINE = 0.7
_BASE_HEIGHT = 0.6
# Cells that a gradient is fitted to: a voxel and its 26 neighbours.
_GRADIENT_CELLS = 27

ENDOCARDIUM, EPICARDIUM, NEITHER = 0, 1, 2


def classify_boundary(
    faces: BoundaryFaces,
    frame: LVFrame,
    *,
    cavity_label: int | None = None,
    rv_label: int | None = None,
) -> Int[np.ndarray, " f"]:
    """The side of the wall each boundary face is on: 0 endocardium, 1 epicardium or RV, 2 neither.

    With labels: endocardium is towards the cavity; epicardium is towards background or RV cavity;
    the cut towards other tissue (the RV free wall at its insertion) and a void inside the wall are
    neither. Without: the
    endocardium is where the averaged outward normal points to the ventricle's centre line, which
    begins at half height (so that the apex looks up at it). Faces in the upper part that look along
    the long axis are the base plane, which is neither.

    **Arguments:**

    - `faces`: from `mesh.boundary_faces()`.
    - `frame`: the ventricle's directions.
    - `cavity_label`, `rv_label`: labels of the LV and RV cavities; `cavity_label=None` tells the
      sides by the normals.

    **Returns:**

    (f,), 0, 1 or 2.
    """
    normal = _averaged_normal(faces)
    height = frame.height(faces.centre)
    base = (normal @ frame.long_axis > _BASE_COSINE) & (height > _BASE_HEIGHT * frame.length)
    if cavity_label is None or faces.label is None:
        above = np.maximum(height, 0.5 * frame.length)[:, None] * frame.long_axis[None, :]
        outward = faces.centre - frame.apex[None, :] - above
        endo = np.einsum("fd,fd->f", outward, normal) < 0.0
        return np.where(base, NEITHER, np.where(endo, ENDOCARDIUM, EPICARDIUM))
    surface = np.isin(faces.label, [0] if rv_label is None else [0, rv_label])
    outer = np.where(surface & ~base, EPICARDIUM, NEITHER)
    return np.where(faces.label == cavity_label, ENDOCARDIUM, outer)


def transmural_depth(
    mesh: AbstractMesh, frame: LVFrame, *, cavity_label: int = 2, rv_label: int | None = 3
) -> Float[np.ndarray, " c"]:
    """Depth in the wall, d_endo / (d_endo + d_epi): 0 endocardium, 1 epicardium or RV side.

    Distances are to the nearest points of the two surfaces of the mesh (`classify_boundary`); the
    steps of a voxel surface are levelled first, and voids of a cavity, such as papillary muscles,
    count as cavity. Where the segmentation's own surfaces exist,
    [`jaxperf.geometry.depth_between`][] is more accurate.

    **Arguments:**

    - `mesh`: voxel or tetrahedral mesh of the wall.
    - `frame`: the ventricle's directions, in the mesh's frame.
    - `cavity_label`, `rv_label`: labels of the cavities, used where the mesh has labels and the LV
      cavity's is among them; else the normals tell the sides.

    **Returns:**

    (c,), in [0, 1].

    **Errors:** [`InputError`][] where one of the surfaces is not found.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    depth = jp.geometry.transmural_depth(mesh, frame)
    ```
    """
    check_same_frame(mesh.frame, frame.frame, "transmural_depth")
    sides, walls = None, mesh
    if isinstance(mesh, VoxelMesh) and np.any(mesh.label == cavity_label):
        sides, walls = cavity_label, filled_voids(mesh, cavity_label, rv_label)
    faces = walls.boundary_faces()
    side = classify_boundary(faces, frame, cavity_label=sides, rv_label=rv_label)
    for code, name in ((ENDOCARDIUM, "endocardium"), (EPICARDIUM, "epicardium")):
        if not np.any(side == code):
            raise InputError(
                f"no boundary face lies on the {name}",
                where="transmural_depth",
                expected="a wall with an inner and an outer surface",
                fix="Check the LV frame against the mesh, and the labels of the cavities",
            )
    surface = _levelled if isinstance(mesh, VoxelMesh) else _sampled
    return depth_between(
        mesh.centre, surface(faces, side == ENDOCARDIUM), surface(faces, side == EPICARDIUM)
    )


def depth_between(
    point: Float[np.ndarray, "n 3"],
    endocardium: Float[np.ndarray, "a 3"],
    epicardium: Float[np.ndarray, "b 3"],
) -> Float[np.ndarray, " n"]:
    """Depth of points between two surfaces given as points, d_endo / (d_endo + d_epi).

    **Arguments:**

    - `point`: (n, 3), m.
    - `endocardium`: (a, 3), points of the endocardium, m.
    - `epicardium`: (b, 3), points of the epicardium and of the RV side of the septum, m.

    **Returns:**

    (n,), in [0, 1].

    **Errors:** [`InputError`][] for NaN and for a surface without points.
    """
    for array, name in ((point, "point"), (endocardium, "endocardium"), (epicardium, "epicardium")):
        check_finite(array, name, "depth_between")
        if array.shape[0] == 0:
            raise InputError(
                f"{name} has no points",
                where="depth_between",
                expected="at least one",
                fix="Check the file or the selection that the points come from",
            )
    endo = nearest(endocardium, point, 1)[0][:, 0]
    total = endo + nearest(epicardium, point, 1)[0][:, 0]
    # a point on both surfaces (a wall of no thickness) is in the middle
    return np.where(total > 0.0, endo / np.where(total > 0.0, total, 1.0), 0.5)


def local_axes(
    mesh: AbstractMesh, frame: LVFrame, depth: Float[np.ndarray, " c"]
) -> Float[np.ndarray, "c 3 3"]:
    """Circumferential, longitudinal and transmural unit vectors of each cell.

    Transmural is the direction of the depth's gradient (least squares over the nearest cells),
    longitudinal the part of the long axis perpendicular to it, circumferential = longitudinal ×
    transmural (anticlockwise seen from the base).

    **Arguments:**

    - `mesh`: the wall.
    - `frame`: the ventricle's directions, in the mesh's frame.
    - `depth`: (c,), from [`jaxperf.geometry.transmural_depth`][].

    **Returns:**

    (c, 3, 3); rows circumferential, longitudinal, transmural, right-handed and orthonormal.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    depth = jp.geometry.transmural_depth(mesh, frame)
    axes = jp.geometry.local_axes(mesh, frame, depth)
    ```
    """
    check_same_frame(mesh.frame, frame.frame, "local_axes")
    transmural = _unit(_gradient(mesh.centre, depth), frame.radial(mesh.centre), frame.septal)
    axis = np.broadcast_to(frame.long_axis, transmural.shape)
    # at the apex, where the transmural direction is the long axis, "up" is away from the septum
    longitudinal = _unit(
        _perpendicular(axis, transmural),
        -_perpendicular(np.broadcast_to(frame.septal, transmural.shape), transmural),
        frame.anterior,
    )
    # a second projection takes the round-off of a nearly parallel axis away
    longitudinal = _unit(_perpendicular(longitudinal, transmural), longitudinal, frame.anterior)
    return np.stack([np.cross(longitudinal, transmural), longitudinal, transmural], axis=1)


def fibre_direction(
    axes: Float[np.ndarray, "c 3 3"],
    depth: Float[np.ndarray, " c"],
    endo_deg: float = 60.0,
    epi_deg: float = -60.0,
) -> Float[np.ndarray, "c 3"]:
    """Rule-based fibres: a helix angle that runs linearly from endocardium to epicardium.

    f = cos α · circumferential + sin α · longitudinal, α = (1 − depth) α_endo + depth α_epi. A
    positive angle is a right-handed helix.

    **Arguments:**

    - `axes`: (c, 3, 3), from [`jaxperf.geometry.local_axes`][].
    - `depth`: (c,), 0 … 1.
    - `endo_deg`, `epi_deg`: helix angles on the two surfaces, degrees.

    **Returns:**

    (c, 3), unit vectors (sign without meaning for a diffusion or permeability tensor).

    **Source:** Streeter et al. (1969), Circ. Res. 24:339; rule as in Bayer et al. (2012), Ann.
    Biomed. Eng. 40:2243, without the sheet angle.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    depth = jp.geometry.transmural_depth(mesh, frame)
    fibre = jp.geometry.fibre_direction(jp.geometry.local_axes(mesh, frame, depth), depth)
    ```
    """
    alpha = np.radians((1.0 - depth) * endo_deg + depth * epi_deg)[:, None]
    return np.cos(alpha) * axes[:, 0] + np.sin(alpha) * axes[:, 1]


def _averaged_normal(faces: BoundaryFaces) -> Float[np.ndarray, "f 3"]:
    """Normals averaged over near faces, none from the opposite surface of a thin wall.

    The weight 1 + n·m is 0 for opposite faces, 1 for the two flanks of a step.
    """
    here, there = _face_neighbours(faces.centre, faces.area, _SMOOTHING_RADIUS)
    weight = 1.0 + np.einsum("pd,pd->p", faces.normal[here], faces.normal[there])
    pull = (weight * faces.area[there])[:, None] * faces.normal[there]
    total = 2.0 * faces.area[:, None] * faces.normal + _sum_to(here, pull, faces.area.size)
    return total / np.linalg.norm(total, axis=1)[:, None]


def _face_neighbours(
    centre: Float[np.ndarray, "f 3"], area: Float[np.ndarray, " f"], radius: float
) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, " p"]]:
    """Pairs of different faces within a radius in face widths, in both directions."""
    width = float(np.sqrt(np.mean(area)))
    pair = KDTree(centre).query_pairs(radius * width, output_type="ndarray")
    return np.concatenate([pair[:, 0], pair[:, 1]]), np.concatenate([pair[:, 1], pair[:, 0]])


def _sum_to(
    index: Int[np.ndarray, " p"], value: Float[np.ndarray, "p 3"], n: int
) -> Float[np.ndarray, "n 3"]:
    return np.stack([np.bincount(index, value[:, d], n) for d in range(3)], axis=1)


def _sampled(faces: BoundaryFaces, on: Bool[np.ndarray, " f"]) -> Float[np.ndarray, "p 3"]:
    """Centres and corners of flat faces."""
    return np.concatenate([faces.centre[on], faces.corner[on].reshape(-1, 3)])


def _levelled(faces: BoundaryFaces, on: Bool[np.ndarray, " f"]) -> Float[np.ndarray, "p 3"]:
    """Face centres of a stepped surface, moved along the averaged normal to their neighbours' mean.

    Without it distances come out a tenth of a voxel short: the nearest point is always a step that
    sticks out.
    """
    centre, normal = faces.centre[on], _averaged_normal(faces)[on]
    here, there = _face_neighbours(centre, faces.area[on], _LEVELLING_RADIUS)
    count = 1.0 + np.bincount(here, minlength=centre.shape[0])
    mean = (centre + _sum_to(here, centre[there], centre.shape[0])) / count[:, None]
    lift = np.einsum("fd,fd->f", mean - centre, normal)
    return centre + lift[:, None] * normal


def _gradient(
    centre: Float[np.ndarray, "c 3"], value: Float[np.ndarray, " c"]
) -> Float[np.ndarray, "c 3"]:
    near = nearest(centre, centre, _GRADIENT_CELLS)[1]
    step = centre[near] - centre[:, None, :]
    change = value[near] - value[:, None]
    normal = np.einsum("cka,ckb->cab", step, step)
    # a cell whose neighbours are all in one plane has no gradient across it: pseudo-inverse
    return np.einsum("cab,cb->ca", np.linalg.pinv(normal), np.einsum("cka,ck->ca", step, change))


def _perpendicular(
    vector: Float[np.ndarray, "c 3"], unit: Float[np.ndarray, "c 3"]
) -> Float[np.ndarray, "c 3"]:
    return vector - np.einsum("cd,cd->c", vector, unit)[:, None] * unit


def _unit(
    vector: Float[np.ndarray, "c 3"],
    otherwise: Float[np.ndarray, "c 3"],
    last: Float[np.ndarray, "3"],
) -> Float[np.ndarray, "c 3"]:
    """Unit vectors; where one vanishes the direction of `otherwise`, then of `last`."""
    out = vector
    for fallback in (otherwise, np.broadcast_to(last, vector.shape)):
        norm = np.linalg.norm(out, axis=1, keepdims=True)
        out = np.where(norm > 1e-6 * max(float(norm.max()), 1e-300), out, fallback)
    return out / np.linalg.norm(out, axis=1, keepdims=True)
