"""What a PET camera sees of a map of blood flow: blurred within the wall, then averaged."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse import BCOO
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_array, csr_array
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from .._custom_types import as_leaf
from .._misc import InputError
from ..geometry import AbstractMesh, LVFrame
from ..units import M_PER_MM

_SIGMA_PER_FWHM = 1.0 / (2.0 * math.sqrt(2.0 * math.log(2.0)))
# Beyond 8 sigma the weight of a control volume is below e^-32 = 1.3e-14 of the nearest one.
_REACH = 8.0
# No camera for patients resolves so little; a larger width is one in another unit.
_LARGEST_FWHM_MM = 60.0
# Neighbouring points that share one search; their kernel of some 5 MB stays in the cache.
_BLOCK = 64
# More rows than these fill little of a matrix: it is kept sparse.
_DENSE_ROWS = 64
# Blocks between two sums of the entries of a sparse matrix.
_AT_ONCE = 256
_THREADS = min(os.cpu_count() or 1, 16)
# Points in a voxel of the camera that find how much of it is wall.
_POINTS_PER_VOXEL = 64


class PETOperator(eqx.Module):
    r"""A linear map from blood flow in the control volumes to what the camera sees of it.

    **Attributes:** over rows `k` and control volumes `c`:

    - `matrix` (k, c): weights, dense for few rows and `jax.experimental.sparse.BCOO` for many. A
      row sums to 1, or is empty where it sees no wall.
    - `volume` (k,): the wall that a row averages, m³.
    - `label` (k, d): what each row is: the segment's number from 1; ring and sector; or the index
      of the voxel.
    """

    matrix: Float[Array, "k c"] | BCOO
    volume: Float[Array, " k"]
    label: Int[Array, "k d"]

    @property
    def n_rows(self) -> int:
        """Number of values that are seen."""
        return self.volume.shape[0]

    def __call__(self, mbf: Float[Array, " c"]) -> Float[Array, " k"]:
        """What is seen of a map, in its unit; NaN with zero gradient where there is no wall."""
        return _seen(self, mbf)


@jax.jit
def _seen(operator: PETOperator, mbf: Float[Array, " c"]) -> Float[Array, " k"]:
    seen = operator.matrix.astype(mbf.dtype) @ mbf
    return jnp.where(operator.volume > 0.0, seen, jnp.nan)


def pet_segments(
    mesh: AbstractMesh,
    segment: Int[np.ndarray, " c"],
    *,
    fwhm_mm: float,
    n_segments: int = 17,
) -> PETOperator:
    r"""Segment means of a blurred map of blood flow.

    The camera's point-spread function is a Gaussian $G$ of the given full width at half maximum,
    normalised within the wall, so that a uniform map stays uniform,

    $$\tilde F(x) = \frac{\sum_c V_c\,G(x-x_c)\,F_c}{\sum_c V_c\,G(x-x_c)},\qquad
    \hat F_k = \sum_{c\in k} V_c\,\tilde F(x_c)\Big/\sum_{c\in k} V_c.$$

    A control volume is a point at its centre. Weights below $10^{-14}$ of the largest are left out.
    Width 0 is no blur: [`jaxperf.observe.segment_means`][].

    **Arguments:**

    - `mesh`: the wall.
    - `segment`: (c,) numbers from 1, of [`jaxperf.geometry.aha17`][] or of any other partition such
      as vessel territories; control volumes with any other number are blurred into their
      neighbours and averaged nowhere.
    - `fwhm_mm`: width of the point-spread function, mm; 5 to 8 as reconstructed, up to 12 with
      the motion of heart and lungs.
    - `n_segments`: how many segments there are.

    **Returns:** a [`PETOperator`][] with one row for each segment.

    **Errors:** [`InputError`][] for a width that no camera has, and where no control volume lies
    in a segment.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    see = jp.observe.pet_segments(mesh, jp.geometry.aha17(mesh.centre, frame), fwhm_mm=7.0)
    of_17_segments = see(jnp.full(len(mesh.centre), 1.6e-8))  # of MBF in m³/(s·kg)
    ```
    """
    label = np.arange(1, n_segments + 1)[:, None]
    return _means_of_cells(mesh, np.asarray(segment) - 1, label, fwhm_mm, "pet_segments")


def pet_polar(
    mesh: AbstractMesh, frame: LVFrame, *, rings: int, sectors: int, fwhm_mm: float
) -> PETOperator:
    """A polar map of a blurred map of blood flow.

    The rings cut the long axis from the base plane (ring 0) to the tip of the cavity into equal
    parts, the sectors the angle about it. Sector 0 is centred on the anterior wall and the others
    follow towards the septum, as the AHA numbers do: the outer two of 3 rings of 6 sectors are the
    AHA segments 1 to 12. Tissue below the tip belongs to the last ring, tissue above the base plane
    to the first.

    **Arguments:**

    - `mesh`: the wall, in the patient frame of `frame`.
    - `frame`: the ventricle's directions.
    - `rings`, `sectors`: how many.
    - `fwhm_mm`: as in [`jaxperf.observe.pet_segments`][].

    **Returns:** a [`PETOperator`][] with rows ring by ring: `see(mbf).reshape(rings, sectors)`.

    **Errors:** [`InputError`][] for no ring or sector, two patient frames and the width.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    see = jp.observe.pet_polar(mesh, frame, rings=6, sectors=12, fwhm_mm=7.0)
    polar_map = see(jnp.full(len(mesh.centre), 1.6e-8)).reshape(6, 12)
    ```
    """
    if rings < 1 or sectors < 1:
        raise InputError(
            f"{rings} rings of {sectors} sectors are asked for",
            where="pet_polar",
            expected="at least one ring and one sector",
            fix="Ask for 3 rings of 6 sectors for a map like the AHA's",
        )
    _check_frames(mesh.frame, frame.frame, "the ventricle's frame", "pet_polar")
    height = frame.height(mesh.centre) / frame.length
    ring = np.clip(np.floor(rings * (1.0 - height)), 0, rings - 1).astype(np.int64)
    width = 360.0 / sectors
    behind = (90.0 + 0.5 * width - np.degrees(frame.angle(mesh.centre))) / width
    sector = np.mod(np.floor(behind), sectors).astype(np.int64)
    label = np.stack(np.divmod(np.arange(rings * sectors), sectors), axis=1)
    return _means_of_cells(mesh, ring * sectors + sector, label, fwhm_mm, "pet_polar")


def pet_voxels(
    mesh: AbstractMesh,
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    *,
    frame: str,
    fwhm_mm: float,
    wall_share: float = 0.5,
    reach: float = _REACH,
) -> PETOperator:
    """The voxels of a PET image that lie in the wall, on the image's own grid.

    A row is the blurred map at the centre of a voxel. Without blur it is the mean over the part of
    the wall inside the voxel.

    **Arguments:**

    - `mesh`: the wall.
    - `shape`, `affine`, `frame`: the image's grid, the matrix from its indices to positions in m,
      and the patient frame of these: those of a [`jaxperf.io.PETImage`][].
    - `fwhm_mm`: as in [`jaxperf.observe.pet_segments`][].
    - `wall_share`: a voxel counts where at least this share of it is wall.
    - `reach`: standard deviations after which the point-spread function is cut off. The matrix
      holds some reach² entries a row: at 5 it takes 0.4 of the memory and a weight of 1e-5 is lost.

    **Returns:** a [`PETOperator`][]; `label` are the voxels' indices, in the order of the grid.

    **Errors:** [`InputError`][] where the image has no voxel in the wall, for an affine that is
    not invertible, two patient frames and the width.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp, numpy as np
    mesh, _, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    affine = np.diag([4.0, 4.0, 4.0, 1.0]) * 1e-3  # of the scan's voxels, to m
    affine[:3, 3] = mesh.centre.min(axis=0) - 4e-3
    affine[3, 3] = 1.0
    see = jp.observe.pet_voxels(mesh, (40, 40, 40), affine, frame=mesh.frame, fwhm_mm=7.0)
    voxel, mbf = see.label, see(jnp.full(len(mesh.centre), 1.6e-8))
    ```
    """
    sigma = _sigma(fwhm_mm, "pet_voxels")
    _check_frames(mesh.frame, frame, "the image", "pet_voxels")
    number, cell, part = _wall_in_voxels(mesh, shape, affine)
    volume = np.bincount(number, part, math.prod(shape))
    full = abs(float(np.linalg.det(affine[:3, :3])))
    voxel = np.flatnonzero((volume > 0.0) & (volume >= wall_share * full))
    if voxel.size == 0:
        raise InputError(
            "no voxel of the image lies in the wall",
            where="pet_voxels",
            expected="an image of this heart, in its coordinates",
            fix="Check the frame (LPS or RAS) and the registration with jaxperf.io.check_overlap",
        )
    ijk = np.stack(np.unravel_index(voxel, shape), axis=1)
    row = np.full(math.prod(shape), -1)
    row[voxel] = np.arange(voxel.size)
    if sigma == 0.0:
        inside = row[number] >= 0
        share = part[inside] / volume[number[inside]]
        matrix = _sparse(share, row[number[inside]], cell[inside], (voxel.size, mesh.n_cells))
    else:
        centre = ijk @ affine[:3, :3].T + affine[None, :3, 3]
        each = np.arange(voxel.size)
        matrix = _blurred(mesh, centre, np.ones(voxel.size), each, voxel.size, sigma, reach)
    return _operator(matrix, mesh.n_cells, volume[voxel], ijk)


def _check_frames(mesh: str, other: str, name: str, where: str) -> None:
    if mesh != other:
        raise InputError(
            f"the mesh is in {mesh} and {name} in {other}",
            where=where,
            expected="one patient frame for both",
            fix="Convert one of them, for instance with jaxperf.io.mesh_in_frame",
        )


def _sigma(fwhm_mm: float, where: str) -> float:
    """Standard deviation of the point-spread function, m."""
    if not 0.0 <= fwhm_mm <= _LARGEST_FWHM_MM:
        raise InputError(
            f"fwhm_mm is {fwhm_mm}",
            where=where,
            expected=f"a width of 0 to {_LARGEST_FWHM_MM:g} mm",
            fix="Give the full width at half maximum of the camera's point-spread function in mm",
        )
    return fwhm_mm * M_PER_MM * _SIGMA_PER_FWHM


def _means_of_cells(
    mesh: AbstractMesh,
    row: Int[np.ndarray, " c"],
    label: Int[np.ndarray, "k d"],
    fwhm_mm: float,
    where: str,
) -> PETOperator:
    """Means of the blurred map over groups of control volumes."""
    sigma, n_rows = _sigma(fwhm_mm, where), label.shape[0]
    cell = np.flatnonzero((row >= 0) & (row < n_rows))
    if cell.size == 0:
        raise InputError(
            f"none of {mesh.n_cells} control volumes lies in a segment",
            where=where,
            expected=f"numbers from 1 to {n_rows}",
            fix="Number the segments from 1, as jaxperf.geometry.aha17 does",
        )
    row, part = row[cell], mesh.volume[cell]
    volume = np.bincount(row, part, n_rows)
    if sigma == 0.0:
        matrix = _sparse(part / volume[row], row, cell, (n_rows, mesh.n_cells))
    else:
        matrix = _blurred(mesh, mesh.centre[cell], part, row, n_rows, sigma, _REACH)
    return _operator(matrix, mesh.n_cells, volume, label)


def _operator(
    matrix: csr_array | Float[np.ndarray, "k c"],
    n_cells: int,
    volume: Float[np.ndarray, " k"],
    label: Int[np.ndarray, "k d"],
) -> PETOperator:
    n_rows = volume.size
    if isinstance(matrix, csr_array) and n_rows <= _DENSE_ROWS:
        matrix = matrix.toarray()
    if isinstance(matrix, csr_array):
        row = np.repeat(np.arange(n_rows), np.diff(matrix.indptr))
        index = as_leaf(np.stack([row, matrix.indices], axis=1), np.int32)
        held = BCOO(
            (as_leaf(matrix.data), index),
            shape=(n_rows, n_cells),
            indices_sorted=True,
            unique_indices=True,
        )
    else:
        held = as_leaf(matrix)
    return PETOperator(held, as_leaf(volume), as_leaf(label, np.int32))


def _sparse(
    value: Float[np.ndarray, " e"],
    row: Int[np.ndarray, " e"],
    column: Int[np.ndarray, " e"],
    shape: tuple[int, int],
) -> csr_array:
    """Entries as rows, those of one place summed, columns in order."""
    matrix = csr_array(coo_array((value, (row, column)), shape=shape))
    matrix.sum_duplicates()
    return matrix


def _blurred(
    mesh: AbstractMesh,
    point: Float[np.ndarray, "p 3"],
    weight: Float[np.ndarray, " p"],
    row: Int[np.ndarray, " p"],
    n_rows: int,
    sigma: float,
    reach: float,
) -> csr_array | Float[np.ndarray, "k c"]:
    """Means over the points of each row of the map blurred within the wall."""
    share = weight / np.bincount(row, weight, n_rows)[row]
    apart = np.asarray(KDTree(mesh.centre).query(point)[0])
    shape = (n_rows, mesh.n_cells)
    dense = np.zeros(shape if n_rows <= _DENSE_ROWS else (0, 0))
    total = csr_array(shape)
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def rows_of(block: Int[np.ndarray, " n"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The part of a block in its rows, over the control volumes within reach."""
        block = block[np.argsort(row[block], kind="stable")]
        near, kernel = _kernel(mesh, point[block], apart[block], sigma, reach)
        kernel *= (share[block] / np.einsum("pn,n->p", kernel, mesh.volume[near]))[:, None]
        rows, start = np.unique(row[block], return_index=True)
        return rows, near, np.add.reduceat(kernel, start, axis=0) * mesh.volume[near][None, :]

    blocks = _blocks(point)
    # Exponentials are most of the work, and NumPy computes them outside the interpreter's lock. No
    # product goes to BLAS: its threads would wait for these.
    with ThreadPoolExecutor(_THREADS) as threads:
        for first in range(0, len(blocks), _AT_ONCE):
            for rows, near, found in threads.map(rows_of, blocks[first : first + _AT_ONCE]):
                if dense.size:
                    dense[np.ix_(rows, near)] += found
                    continue
                kept = found > math.exp(-0.5 * reach**2) * found.max(axis=1, keepdims=True)
                i, j = np.nonzero(kept)
                entries.append((found[i, j], rows[i].astype(np.int32), near[j].astype(np.int32)))
            if entries:
                value, i, j = (np.concatenate(part) for part in zip(*entries, strict=True))
                total, entries = csr_array(total + _sparse(value, i, j, shape)), []
    if dense.size:
        return dense
    # what lies beyond the reach is lost; a uniform map stays uniform all the same
    total.data /= np.repeat(total.sum(axis=1), np.diff(total.indptr))
    return total


def _kernel(
    mesh: AbstractMesh,
    point: Float[np.ndarray, "p 3"],
    apart: Float[np.ndarray, " p"],
    sigma: float,
    reach: float,
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "p n"]]:
    """Control volumes within reach of some neighbouring points, and the point-spread function.

    It is 1 in the control volume nearest to each point, at the distance `apart`, so that a point
    outside the wall and a narrow width do not underflow.
    """
    low, high = point.min(axis=0), point.max(axis=0)
    outside = mesh.centre - np.clip(mesh.centre, low[None, :], high[None, :])
    within = (apart.max() + reach * sigma) ** 2
    near = np.flatnonzero(np.einsum("cd,cd->c", outside, outside) <= within)
    power = cdist(point, mesh.centre[near], "sqeuclidean")
    power -= (apart**2)[:, None]
    power *= -0.5 / sigma**2
    return near, np.exp(power, out=power)


def _blocks(point: Float[np.ndarray, "p 3"]) -> list[Int[np.ndarray, " n"]]:
    """The points in blocks of neighbours: halves of halves along the longest side."""
    pending, blocks = [np.arange(point.shape[0])], []
    while pending:
        block = pending.pop()
        if block.size <= _BLOCK:
            blocks.append(block)
            continue
        side = int(np.argmax(np.ptp(point[block], axis=0)))
        order = np.argpartition(point[block, side], block.size // 2)
        pending += [block[order[: block.size // 2]], block[order[block.size // 2 :]]]
    return blocks


def _wall_in_voxels(
    mesh: AbstractMesh, shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"]
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"], Float[np.ndarray, " q"]]:
    """Flat number of the voxel, control volume and volume of the pieces of wall in an image."""
    full = abs(float(np.linalg.det(affine[:3, :3])))
    if not (np.isfinite(affine).all() and full > 0.0):
        raise InputError(
            f"the affine is {affine.tolist()}",
            where="pet_voxels",
            expected="an invertible matrix from grid indices to positions in m",
            fix="Take the affine of the image that jaxperf.io.read_pet returns",
        )
    wanted = _POINTS_PER_VOXEL * mesh.volume.sum() / full
    level = 1
    while mesh.quadrature_size(level) < wanted:
        level += 1
    piece = mesh.quadrature(level)
    at = np.linalg.solve(affine[:3, :3], (piece.point - affine[None, :3, 3]).T).T
    ijk = np.floor(at + 0.5).astype(np.int64)
    inside = ((ijk >= 0) & (ijk < np.array(shape)[None, :])).all(axis=1)
    number = np.ravel_multi_index(tuple(ijk[inside].T), shape)
    return np.asarray(number), piece.cell[inside], piece.weight[inside]
