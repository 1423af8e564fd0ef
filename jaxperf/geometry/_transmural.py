"""Depth in the wall, local directions and rule-based fibres."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from .._misc import InputError
from ._frame import LVFrame
from ._mesh import AbstractMesh, BoundaryFaces, check_same_frame
from ._voxel import VoxelMesh

# Faces whose normals are averaged to tell where a stepped surface looks: about two rings.
_SMOOTHING_FACES = 24
# A face of the base plane looks along the axis within 45°, in the upper part of the ventricle.
_BASE_COSINE = 0.7
_BASE_HEIGHT = 0.6
# Cells that a gradient is fitted to: a voxel's 26 neighbours.
_GRADIENT_CELLS = 27

ENDOCARDIUM, EPICARDIUM, BASE = 0, 1, 2


def classify_boundary(
    faces: BoundaryFaces, frame: LVFrame, *, cavity_label: int | None = None
) -> Int[np.ndarray, " f"]:
    """The side of the wall each boundary face is on: 0 endocardium, 1 epicardium or RV, 2 base.

    Faces towards the cavity's label are endocardium. Where there are no labels, endocardium is
    where the (averaged) outward normal points to the ventricle's centre line, which runs from half
    height up and ends there. Of the rest, faces in the upper part that look along the long axis
    are the base plane.

    **Arguments:**

    - `faces`: from `mesh.boundary_faces()`.
    - `frame`: the ventricle's directions.
    - `cavity_label`: label of the LV cavity; None tells the sides by the normals.

    **Returns:**

    (f,), 0, 1 or 2.
    """
    normal = _averaged_normal(faces)
    height = frame.height(faces.centre)
    if cavity_label is not None and faces.label is not None:
        endo = faces.label == cavity_label
    else:
        above = np.maximum(height, 0.5 * frame.length)[:, None] * frame.long_axis[None, :]
        outward = faces.centre - frame.apex[None, :] - above
        endo = np.einsum("fd,fd->f", outward, normal) < 0.0
    base = (normal @ frame.long_axis > _BASE_COSINE) & (height > _BASE_HEIGHT * frame.length)
    if cavity_label is None or faces.label is None:
        return np.where(base, BASE, np.where(endo, ENDOCARDIUM, EPICARDIUM))
    return np.where(endo, ENDOCARDIUM, np.where(base, BASE, EPICARDIUM))


def transmural_depth(
    mesh: AbstractMesh, frame: LVFrame, *, cavity_label: int = 2
) -> Float[np.ndarray, " c"]:
    """Depth in the wall, d_endo / (d_endo + d_epi): 0 endocardium, 1 epicardium or RV side.

    Distances are to the nearest points of the two surfaces (`classify_boundary`); the base plane
    belongs to neither.

    **Arguments:**

    - `mesh`: voxel or tetrahedral mesh of the wall.
    - `frame`: the ventricle's directions, in the mesh's frame.
    - `cavity_label`: label of the LV cavity, used where the mesh has it among its labels.

    **Returns:**

    (c,), in [0, 1].

    **Raises** `InputError` where one of the surfaces is not found.
    """
    check_same_frame(mesh.frame, frame.frame, "transmural_depth")
    faces = mesh.boundary_faces()
    known = isinstance(mesh, VoxelMesh) and bool(np.any(mesh.label == cavity_label))
    side = classify_boundary(faces, frame, cavity_label=cavity_label if known else None)
    endo = _distance(mesh, faces, side == ENDOCARDIUM, "endocardium")
    epi = _distance(mesh, faces, side == EPICARDIUM, "epicardium")
    total = endo + epi
    # a vertex on both surfaces (a wall of no thickness) is in the middle
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
    """
    check_same_frame(mesh.frame, frame.frame, "local_axes")
    transmural = _unit(_gradient(mesh.centre, depth), frame.radial(mesh.centre), frame.septal)
    axis = np.broadcast_to(frame.long_axis, transmural.shape)
    # at the apex, where the transmural direction is the long axis, "up" is away from the septum
    longitudinal = _unit(_perpendicular(axis, transmural), -_perpendicular(
        np.broadcast_to(frame.septal, transmural.shape), transmural
    ), frame.anterior)
    # a second projection takes the round-off of a nearly parallel axis away
    longitudinal = _unit(
        _perpendicular(longitudinal, transmural), longitudinal, frame.anterior
    )
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
    """
    alpha = np.radians((1.0 - depth) * endo_deg + depth * epi_deg)[:, None]
    return np.cos(alpha) * axes[:, 0] + np.sin(alpha) * axes[:, 1]


def _averaged_normal(faces: BoundaryFaces) -> Float[np.ndarray, "f 3"]:
    """Normals averaged over near faces, none from the opposite surface of a thin wall.

    The weight 1 + n·m is 0 for opposite faces, 1 for the two flanks of a step.
    """
    k = min(_SMOOTHING_FACES, faces.area.size)
    near = cKDTree(faces.centre).query(faces.centre, k=np.arange(1, k + 1))[1]
    other = faces.normal[near]
    weight = 1.0 + np.einsum("fd,fkd->fk", faces.normal, other)
    total = np.einsum("fk,fkd->fd", weight * faces.area[near], other)
    return total / np.linalg.norm(total, axis=1)[:, None]


def _distance(
    mesh: AbstractMesh, faces: BoundaryFaces, on: Bool[np.ndarray, " f"], name: str
) -> Float[np.ndarray, " c"]:
    if not np.any(on):
        raise InputError(
            f"no boundary face lies on the {name}",
            where="transmural_depth",
            expected="a wall with an inner and an outer surface",
            fix="Check the LV frame against the mesh, and the label of the cavity",
        )
    sample = np.concatenate([faces.centre[on], faces.corner[on].reshape(-1, 3)])
    return np.asarray(cKDTree(sample).query(mesh.centre)[0])


def _gradient(
    centre: Float[np.ndarray, "c 3"], value: Float[np.ndarray, " c"]
) -> Float[np.ndarray, "c 3"]:
    k = min(_GRADIENT_CELLS, value.size)
    near = cKDTree(centre).query(centre, k=np.arange(1, k + 1))[1]
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
