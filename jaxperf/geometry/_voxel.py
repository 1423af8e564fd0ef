"""The voxel mesh: cells of a rotated regular grid that carry the wall's label."""

from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from .._misc import check_frame, InputError
from ._mesh import (
    AbstractMesh,
    BoundaryFaces,
    check_extent,
    check_finite,
    check_level,
    Quadrature,
)

# NIfTI stores its affine in float32: axes are orthogonal to about 1e-7, a real shear is far above.
_LARGEST_AXIS_COSINE = 1e-4
# Labels are whole numbers within this.
_LABEL_TOLERANCE = 1e-3
# Corners of a face in the plane of the two other axes, in order around the face.
_SQUARE = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])


class FacePairs(NamedTuple):
    """Faces between two cells of a voxel mesh, for a two-point flux.

    - `edge`: (e, 2), the cells on both sides, lower index of the grid first.
    - `axis`: (e,), grid axis normal to the face.
    - `area`: (e,), m².
    - `distance`: (e,), between the cell centres, m.
    """

    edge: Int[np.ndarray, "e 2"]
    axis: Int[np.ndarray, " e"]
    area: Float[np.ndarray, " e"]
    distance: Float[np.ndarray, " e"]


class VoxelMesh(AbstractMesh):
    """Cells of a regular grid; built by [`jaxperf.geometry.build_voxel_mesh`][].

    - `cell_ijk`: (c, 3), grid index of each cell.
    - `centre`: (c, 3), m; `volume`: (c,), m³.
    - `affine`: (4, 4), grid index to position, m; columns orthogonal.
    - `spacing`: (3,), m.
    - `label`: (i, j, k), the whole label volume the mesh was cut from.
    - `wall_label`: the label of the cells.
    - `n_dropped`: voxels with the wall's label that are not cells, because their piece is not the
      largest one.
    """

    cell_ijk: Int[np.ndarray, "c 3"]
    centre: Float[np.ndarray, "c 3"]
    volume: Float[np.ndarray, " c"]
    affine: Float[np.ndarray, "4 4"]
    spacing: Float[np.ndarray, "3"]
    label: Int[np.ndarray, "i j k"]
    wall_label: int = eqx.field(static=True)
    n_dropped: int = eqx.field(static=True)
    frame: str = eqx.field(static=True)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the grid."""
        i, j, k = self.label.shape
        return i, j, k

    @property
    def axes(self) -> Float[np.ndarray, "3 3"]:
        """Unit vectors of the grid's axes, one per row."""
        return (self.affine[:3, :3] / self.spacing[None, :]).T

    def position(self, ijk: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Position of (fractional) grid indices, m."""
        return _apply(self.affine, ijk)

    def label_centre(self, label: int) -> Float[np.ndarray, "n 3"]:
        """Centres of all voxels with a label, m; (0, 3) where there are none."""
        return self.position(np.argwhere(self.label == label).astype(np.float64))

    def to_grid(self, value: Float[np.ndarray, " c"], fill: float) -> Float[np.ndarray, "i j k"]:
        """A cell field on the whole grid, with `fill` outside the mesh."""
        grid = np.full(self.shape, fill, dtype=value.dtype)
        grid[tuple(self.cell_ijk.T)] = value
        return grid

    def face_pairs(self) -> FacePairs:
        """All faces between two cells; see [`jaxperf.geometry.FacePairs`][]."""
        index = _cell_index(self)
        edge, axis = [], []
        for a in range(3):
            other = index[tuple((self.cell_ijk + 1 + np.eye(3, dtype=np.int64)[a][None, :]).T)]
            inside = np.flatnonzero(other >= 0)
            edge.append(np.stack([inside, other[inside]], axis=1))
            axis.append(np.full(inside.size, a, dtype=np.int64))
        axes = np.concatenate(axis)
        face_area = np.prod(self.spacing) / self.spacing
        return FacePairs(np.concatenate(edge), axes, face_area[axes], self.spacing[axes])

    def boundary_faces(self) -> BoundaryFaces:
        """Square faces towards voxels that are not cells, with the label found there."""
        index = _cell_index(self)
        # outside the grid counts as background
        label = np.pad(self.label, 1)
        ijk, cells, normals, corners, labels, areas = [], [], [], [], [], []
        for a in range(3):
            for sign in (-1, 1):
                step = sign * np.eye(3, dtype=np.int64)[a]
                at = tuple((self.cell_ijk + 1 + step[None, :]).T)
                cell = np.flatnonzero(index[at] < 0)
                middle = self.cell_ijk[cell] + 0.5 * step[None, :]
                around = np.zeros((4, 3))
                around[:, [b for b in range(3) if b != a]] = _SQUARE
                ijk.append(middle)
                corners.append(middle[:, None, :] + around[None, :, :])
                cells.append(cell)
                labels.append(label[at][cell])
                normals.append(np.broadcast_to(sign * self.axes[a], (cell.size, 3)))
                areas.append(np.full(cell.size, np.prod(self.spacing) / self.spacing[a]))
        corner = np.concatenate(corners)
        return BoundaryFaces(
            centre=self.position(np.concatenate(ijk)),
            normal=np.concatenate(normals),
            area=np.concatenate(areas),
            cell=np.concatenate(cells),
            label=np.concatenate(labels),
            corner=self.position(corner.reshape(-1, 3)).reshape(-1, 4, 3),
        )

    def quadrature_size(self, level: int) -> int:
        """`n_cells * level**3`."""
        return self.n_cells * level**3

    def quadrature(self, level: int = 1, cells: Int[np.ndarray, " k"] | None = None) -> Quadrature:
        """Centres of `level**3` equal boxes in each voxel, each with its box's volume.

        **Arguments:**

        - `level`: boxes along each axis of a voxel.
        - `cells`: (k,), only these cells; default all.
        """
        check_level(level)
        cells = np.arange(self.n_cells) if cells is None else cells
        offset = (np.arange(level) + 0.5) / level - 0.5
        box = np.stack(np.meshgrid(offset, offset, offset, indexing="ij"), axis=-1).reshape(-1, 3)
        ijk = self.cell_ijk[cells][:, None, :] + box[None, :, :]
        weight = np.repeat(self.volume[cells] / level**3, level**3)
        return Quadrature(self.position(ijk.reshape(-1, 3)), weight, np.repeat(cells, level**3))


def build_voxel_mesh(
    label: np.ndarray,
    affine: np.ndarray,
    *,
    frame: str,
    wall_label: int = 1,
    largest_piece: bool = False,
    where: str = "voxel mesh",
) -> VoxelMesh:
    """The voxels of one label as a tissue mesh, checked.

    **Arguments:**

    - `label`: (i, j, k), integers within 1e-3; the other labels are kept (cavities tell the wall's
      sides).
    - `affine`: (4, 4), grid index to the centre of the voxel, **in metres**; any rotation and
      spacing, orthogonal axes.
    - `frame`: "LPS", "RAS" or "model".
    - `wall_label`: the label whose voxels become cells.
    - `largest_piece`: keep the largest piece of a wall that falls into several; `n_dropped` of
      the mesh says how many voxels were left out.
    - `where`: the file or object that errors name.

    **Returns:**

    A [`jaxperf.geometry.VoxelMesh`][]; cells are in the order of the grid (last index fastest).

    **Errors:** [`InputError`][] for a label volume that is not three-dimensional and integer, an
    affine with NaN, zero spacing or shear, a wall without voxels or in several pieces.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    affine = np.diag([5e-3, 5e-3, 5e-3, 1.0])  # m
    mesh = jp.geometry.build_voxel_mesh(np.ones((4, 4, 4), int), affine, frame="LPS")
    ```
    """
    check_frame(frame, where)
    label = _checked_label(label, where)
    affine, spacing = _checked_affine(affine, where)
    inside, n_dropped = _one_piece(label == wall_label, wall_label, largest_piece, where)
    cell_ijk = np.argwhere(inside).astype(np.int64)
    centre = _apply(affine, cell_ijk.astype(np.float64))
    check_extent(centre, frame, where)
    # the determinant, not the product of the spacings: exact for axes orthogonal to float32 only
    cell_volume = abs(float(np.linalg.det(affine[:3, :3])))
    return VoxelMesh(
        cell_ijk=cell_ijk,
        centre=centre,
        volume=np.full(cell_ijk.shape[0], cell_volume),
        affine=affine,
        spacing=spacing,
        label=label,
        wall_label=wall_label,
        n_dropped=n_dropped,
        frame=frame,
    )


def _apply(affine: Float[np.ndarray, "4 4"], ijk: Float[np.ndarray, "n 3"]) -> np.ndarray:
    return ijk @ affine[:3, :3].T + affine[None, :3, 3]


def _cell_index(mesh: VoxelMesh) -> Int[np.ndarray, "i2 j2 k2"]:
    """Cell number per voxel, −1 outside, padded by one voxel so that no step leaves it."""
    index = np.full(tuple(n + 2 for n in mesh.shape), -1, dtype=np.int64)
    index[tuple(mesh.cell_ijk.T + 1)] = np.arange(mesh.n_cells)
    return index


def _checked_label(label: np.ndarray, where: str) -> Int[np.ndarray, "i j k"]:
    if label.ndim != 3 or label.size == 0:
        raise InputError(
            f"the label volume has shape {label.shape}",
            where=where,
            expected="three dimensions, none empty",
            fix="Pass one label volume, without a time or channel axis",
        )
    check_finite(label, "the label volume", where)
    if label.dtype.kind in "iub":
        return label.astype(np.int32)
    whole = np.rint(label).astype(np.int32)
    # a header's scale leaves labels such as 1.0000001
    apart = np.abs(label - whole)
    if apart.max() > _LABEL_TOLERANCE:
        raise InputError(
            "the label volume has values that are not whole numbers, such as "
            f"{label.flat[int(np.argmax(apart))]:g}",
            where=where,
            expected="integer labels",
            fix="Resample label volumes with nearest-neighbour interpolation",
        )
    return whole


def _checked_affine(affine: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    affine = np.asarray(affine, dtype=np.float64)
    if affine.shape != (4, 4):
        raise InputError(
            f"the affine has shape {affine.shape}",
            where=where,
            expected="(4, 4)",
            fix="Pass the matrix that maps grid indices to positions in metres",
        )
    check_finite(affine, "the affine", where)
    if not np.array_equal(affine[3], [0.0, 0.0, 0.0, 1.0]):
        raise InputError(
            f"the affine's last row is {affine[3].tolist()}",
            where=where,
            expected="0 0 0 1",
            fix="Pass the matrix that maps grid indices to positions in metres",
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if np.min(spacing) <= 0.0:
        raise InputError(
            f"the voxel spacing is {spacing.tolist()} m",
            where=where,
            expected="three positive spacings",
            fix="Repair the header of the label volume",
        )
    cosine = np.abs(np.triu((affine[:3, :3] / spacing).T @ (affine[:3, :3] / spacing), 1)).max()
    if cosine > _LARGEST_AXIS_COSINE:
        raise InputError(
            f"the grid is sheared: two axes have a cosine of {cosine:.3g}",
            where=where,
            expected="orthogonal axes",
            fix="Resample the label volume on a rectangular grid",
        )
    return affine, spacing


def _one_piece(
    inside: Bool[np.ndarray, "i j k"], wall_label: int, largest_piece: bool, where: str
) -> tuple[Bool[np.ndarray, "i j k"], int]:
    """Pieces are joined through faces: tissue pressure does not pass an edge or a corner."""
    pieces, n = ndimage.label(inside)  # pyright: ignore[reportGeneralTypeIssues]
    if n == 0:
        raise InputError(
            f"no voxel has the wall's label {wall_label}",
            where=where,
            expected="at least one voxel of the wall",
            fix="Check the label numbers of the volume",
        )
    size = np.bincount(pieces.ravel())[1:]
    if n > 1 and not largest_piece:
        raise InputError(
            f"the wall (label {wall_label}) falls into {n} pieces of "
            f"{_listed(np.sort(size)[::-1])} voxels",
            where=where,
            expected="one piece joined through faces",
            fix="Repair the segmentation, or ask for the largest piece (largest_piece=True)",
        )
    return pieces == 1 + int(np.argmax(size)), int(size.sum() - size.max())


def _listed(size: np.ndarray) -> str:
    shown = ", ".join(str(int(s)) for s in size[:8])
    return shown if size.size <= 8 else f"{shown}, …"
