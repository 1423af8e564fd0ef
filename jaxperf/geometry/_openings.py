"""Where the left ventricle's cavity is open: the valve plane, and holes in the wall."""

import dataclasses
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .._misc import InputError
from ._voxel import VoxelMesh

# What a void inside the wall gets: neither background nor a cavity.
_IN_WALL = -1
# Labels beyond the wall and the ventricles that may lie behind a valve (background, atrium, aorta)
# or may be tissue: every choice among those that most faces look at is tried.
_MOST_LABELS = 5
# A rim that departs from its plane by less than this share of the opening's radius is flat; a
# patient's mitral ring has 0.04.
_FLAT = 0.1
# An opening below this share of (cavity volume)^(2/3) is no valve plane (a mitral ring has 0.3, an
# aortic ring 0.1), and one above the second is taken without a look at other labels.
_LEAST_SHARE, _AMPLE_SHARE = 0.12, 0.2
# A hole of half the area of another label's patch is not the valve plane.
_RIVAL = 0.5
# Faces of another label belong to the valve plane where they leave its direction as it is.
_SAME_PLANE = float(np.cos(np.radians(8.0)))


class Opening(NamedTuple):
    """A patch of the cavity's surface without wall.

    Centre, normal and area are those of the surface that the rim spans, so that they depend on the
    rim alone: voids behind it, steps of the voxels and a cavity that goes on above the wall change
    nothing.

    - `centre`: (3,), m; `normal`: (3,), unit vector out of the cavity.
    - `area`: m², of the projection along the normal.
    - `off_plane`: root mean square distance of the rim from its plane, m.
    """

    centre: Float[np.ndarray, "3"]
    normal: Float[np.ndarray, "3"]
    area: float
    off_plane: float

    @property
    def radius(self) -> float:
        """Of the circle of the same area, m."""
        return float(np.sqrt(self.area / np.pi))

    def is_flat(self, voxel: float) -> bool:
        """Whether the rim lies in its plane, as well as voxels of that side (m) can tell."""
        return self.off_plane <= _FLAT * self.radius + 0.5 * voxel


class CavityOpenings(NamedTuple):
    """The openings of a cavity.

    - `base`: the valve plane.
    - `holes`: the other ones, largest first.
    - `cavity`: its voxels, voids filled.
    - `n_islands`: voxels of the cavity's label that are not joined to it.
    """

    base: Opening
    holes: tuple[Opening, ...]
    cavity: Bool[np.ndarray, "i j k"]
    n_islands: int


class _Faces(NamedTuple):
    """Faces of the cavity towards what is neither wall nor ventricle."""

    centre: Float[np.ndarray, "f 3"]
    normal: Float[np.ndarray, "f 3"]
    area: Float[np.ndarray, " f"]
    label: Int[np.ndarray, " f"]
    edge: Int[np.ndarray, "f 4"]
    edge_centre: Float[np.ndarray, "e 3"]


def filled_voids(mesh: VoxelMesh, cavity_label: int, rv_label: int | None) -> VoxelMesh:
    """The mesh whose voids in a cavity, such as papillary muscles, have the cavity's label.

    A void is a piece of what is neither wall nor cavity that does not reach the image's border. It
    takes the label of the LV cavity where it touches it, else that of the RV cavity; one inside
    the wall gets the label −1. A muscle that the uppermost slice cuts is open there, so that what
    wall and LV cavity enclose in a slice along any axis of the grid is a void too.
    """
    known = [mesh.wall_label, cavity_label, *([] if rv_label is None else [rv_label])]
    # what is enclosed lies within the extent of what encloses it
    box = ndimage.find_objects(np.isin(mesh.label, known).astype(np.int8))[0]
    label = np.pad(mesh.label[box], 1)
    filled = label.copy()
    solid = ndimage.generate_binary_structure(3, 1)
    _fill(filled, label, known, _IN_WALL, solid)
    for beside in known[:0:-1]:
        _fill(filled, label, known, beside, solid)
    for axis in range(3):
        flat = solid.copy()
        flat[tuple([0, 2] if a == axis else slice(None) for a in range(3))] = False
        _fill(filled, label, known[:2], cavity_label, flat, axis)
    whole = mesh.label.copy()
    whole[box] = filled[1:-1, 1:-1, 1:-1]
    return dataclasses.replace(mesh, label=whole)


def _fill(
    filled: Int[np.ndarray, "i j k"],
    label: Int[np.ndarray, "i j k"],
    known: list[int],
    value: int,
    joins: Bool[np.ndarray, "3 3 3"],
    normal: int | None = None,
) -> None:
    """Write `value` over the enclosed pieces that touch it, or over all where nothing has it.

    **Arguments:** `normal`: pieces are those of the slices across this axis.
    """
    piece = _pieces(~np.isin(label, known), joins)
    enclosed = np.ones(int(piece.max()) + 1, np.bool_)
    if value != _IN_WALL:
        enclosed[:] = False
        near: Any = ndimage.binary_dilation(label == value, joins)
        enclosed[piece[near]] = True
    for axis in range(3):
        if axis != normal:
            enclosed[np.moveaxis(piece, axis, 0)[[0, -1]]] = False
    enclosed[0] = False
    filled[enclosed[piece]] = value


def _pieces(
    inside: Bool[np.ndarray, "i j k"], joins: Bool[np.ndarray, "3 3 3"]
) -> Int[np.ndarray, "i j k"]:
    """The number of each voxel's piece, 0 outside."""
    piece: Any = ndimage.label(inside, joins)
    return piece[0]


def main_cavity(
    mesh: VoxelMesh, cavity_label: int, rv_label: int | None
) -> Bool[np.ndarray, "i j k"]:
    """The largest piece of the LV cavity, voids filled."""
    inside = filled_voids(mesh, cavity_label, rv_label).label == cavity_label
    piece = _pieces(inside, ndimage.generate_binary_structure(3, 1))
    return piece == 1 + int(np.argmax(np.bincount(piece.ravel())[1:]))


def cavity_openings(
    mesh: VoxelMesh, *, cavity_label: int, rv_label: int | None, where: str
) -> CavityOpenings:
    """The valve plane of a labelled cavity and the other places where it has no wall.

    The valve plane is the largest patch with a flat rim. Behind it may lie background, an atrium,
    or some of both, and the labels do not say which of them is tissue: a patch towards one label,
    background first, is extended by others where that leaves it in its plane. Where no label has
    such a patch, the largest flat patch towards several is taken, or the largest patch of all.

    **Arguments:**

    - `mesh`: keeps the labels of the cavities.
    - `cavity_label`, `rv_label`: labels of the two cavities; `rv_label` None where the RV has none.
    - `where`: the file that errors name.

    **Returns:**

    A [`jaxperf.geometry.CavityOpenings`][].

    **Errors:** [`InputError`][] for a cavity without an opening of a valve plane's size.
    """
    cavity = main_cavity(mesh, cavity_label, rv_label)
    faces = _faces(mesh, cavity, rv_label)
    if faces.area.size == 0:
        _refuse(f"the LV cavity (label {cavity_label}) has no face towards the background", where)
    voxel = abs(float(np.linalg.det(mesh.affine[:3, :3])))
    scale = (float(cavity.sum()) * voxel) ** (2.0 / 3.0)
    patches = _patches(faces, np.ones(faces.area.size, np.bool_))
    chosen = _valve_plane(faces, patches, _AMPLE_SHARE * scale, float(mesh.spacing.max()))
    base = _opening(faces, chosen)
    if base.area < _LEAST_SHARE * scale:
        _refuse(
            f"the largest opening of the LV cavity (label {cavity_label}) has "
            f"{1e6 * base.area:.0f} mm², too little for the base",
            where,
        )
    # what joins the valve plane belongs to the base: an aortic root, the rest of a ragged rim
    apart = [_opening(faces, p) for p in patches if not np.isin(p, chosen).any()]
    labelled = mesh.label == cavity_label
    return CavityOpenings(
        base,
        tuple(sorted(apart, key=lambda hole: -hole.area)),
        cavity,
        int(labelled.sum() - (cavity & labelled).sum()),
    )


def _valve_plane(
    faces: _Faces, patches: list[Int[np.ndarray, " _"]], ample: float, voxel: float
) -> Int[np.ndarray, " p"]:
    """The faces of the valve plane: see `cavity_openings`."""
    labels, count = np.unique(faces.label, return_counts=True)
    labels = labels[np.lexsort((-count, labels != 0))][:_MOST_LABELS]
    found = []
    for k in range(1, labels.size + 1):
        for several in combinations(labels, k):
            for patch in _patches(faces, np.isin(faces.label, several)):
                opening = _opening(faces, patch)
                found.append((k, several[0], opening, patch))
    flat = [x for x in found if x[2].is_flat(voxel) and x[2].area >= ample]
    alone = [x for x in flat if x[0] == 1]
    for label in labels:
        mine = [x for x in alone if x[1] == label]
        if not mine:
            continue
        _, _, first, start = max(mine, key=lambda x: x[2].area)
        if first.area < _RIVAL * max(x[2].area for x in alone):
            continue
        level = [
            x
            for x in flat
            if x[2].normal @ first.normal >= _SAME_PLANE and np.isin(start, x[3]).all()
        ]
        return max(level, key=lambda x: x[2].area)[3]
    if flat:
        return max(flat, key=lambda x: x[2].area)[3]
    return max(patches, key=lambda patch: _opening(faces, patch).area)


def _refuse(what: str, where: str) -> None:
    raise InputError(
        what,
        where=where,
        expected="a cavity that is open at the base",
        fix="Label what lies behind the valves as background or as an atrium and not as wall, or "
        "give `base_centre` by hand",
    )


def _faces(mesh: VoxelMesh, cavity: Bool[np.ndarray, "i j k"], rv_label: int | None) -> _Faces:
    label, inside = np.pad(mesh.label, 1), np.pad(cavity, 1)
    solid = [mesh.wall_label, *([] if rv_label is None else [rv_label])]
    ijk = np.argwhere(cavity)
    parts = []
    for a in range(3):
        b, c = (x for x in range(3) if x != a)
        for sign in (-1, 1):
            step = sign * np.eye(3, dtype=np.int64)[a]
            there = ijk + step[None, :]
            at = tuple((there + 1).T)
            free = ~inside[at] & ~np.isin(label[at], solid)
            # doubled indices: voxels are at even places, faces at one odd place, edges at two
            face = 2 * ijk[free] + step[None, :]
            turns = [s * np.eye(3, dtype=np.int64)[d] for d in (b, c) for s in (-1, 1)]
            edges = face[:, None, :] + np.stack(turns)[None, :, :]
            parts.append(
                (
                    face,
                    np.broadcast_to(sign * mesh.axes[a], face.shape),
                    np.full(face.shape[0], np.prod(mesh.spacing) / mesh.spacing[a]),
                    label[at][free],
                    edges,
                )
            )
    face, normal, area, beyond, edges = (np.concatenate(x) for x in zip(*parts, strict=True))
    place, number = np.unique(edges.reshape(-1, 3), axis=0, return_inverse=True)
    return _Faces(
        mesh.position(0.5 * face),
        normal,
        area,
        beyond,
        number.reshape(-1, 4),
        mesh.position(0.5 * place),
    )


def _patches(faces: _Faces, on: Bool[np.ndarray, " f"]) -> list[Int[np.ndarray, " _"]]:
    """The faces of each patch, joined through edges."""
    chosen = np.flatnonzero(on)
    edge = faces.edge[chosen].ravel()
    row = np.repeat(np.arange(chosen.size), 4)
    shape = (chosen.size, faces.edge_centre.shape[0])
    touch = coo_array((np.ones(row.size), (row, edge)), shape=shape).tocsr()
    n, piece = connected_components(touch @ touch.T, directed=False)
    return [chosen[piece == k] for k in range(n)]


def _opening(faces: _Faces, patch: Int[np.ndarray, " p"]) -> Opening:
    flow = (faces.area[patch][:, None] * faces.normal[patch]).sum(axis=0)
    area = float(np.linalg.norm(flow))
    edge, count = np.unique(faces.edge[patch], return_counts=True)
    rim = faces.edge_centre[edge[count % 2 == 1]]
    if area == 0.0 or rim.size == 0:
        # a void or a bubble that is open on all sides spans nothing
        middle = faces.centre[patch].mean(axis=0)
        return Opening(middle, faces.normal[patch[0]], 0.0, np.inf)
    normal = flow / area
    # signed: what the surface does inside its rim cancels
    share = faces.area[patch] * (faces.normal[patch] @ normal) / area
    centre = share @ faces.centre[patch]
    height = (rim - centre[None, :]) @ normal
    return Opening(centre + height.mean() * normal, normal, area, float(height.std()))
