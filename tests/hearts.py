"""Label images of ventricles as segmentations have them, made of ellipsoids about a known axis."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from jaxperf.geometry import build_voxel_mesh, lv_frame_from_points, LVFrame, VoxelMesh

WALL, CAVITY, RV, ATRIUM, MUSCLE = 1, 2, 3, 5, 7
# mm; the long axis is z, the septum +x, the front +y
ENDO, EPI, BASE = np.array([24.0, 24.0, 62.0]), np.array([33.5, 33.5, 69.0]), 22.0
# as an image lies to a heart
TURNED = Rotation.from_rotvec([0.5, -0.9, 0.3]).as_matrix()

Change = Callable[[np.ndarray, np.ndarray], None]


def heart(
    *changes: Change,
    spacing: tuple[float, float, float] = (3.0, 3.0, 3.0),
    rotation: np.ndarray = TURNED,
) -> VoxelMesh:
    """The labels in an image whose axes are the rows of `rotation`, after changes.

    **Arguments:** each change gets the labels and the positions (mm) of all voxels.
    """
    corner = np.array([[x, y, z] for x in (-40, 63) for y in (-40, 40) for z in (-86, 55)])
    low, high = (corner @ rotation).min(axis=0), (corner @ rotation).max(axis=0)
    count = np.ceil((high - low) / spacing).astype(int)
    index = np.stack(np.meshgrid(*map(np.arange, count), indexing="ij"), axis=-1)
    # off the symmetric place, so that no voxel lies on a plane of symmetry
    origin = low + np.array([0.3, -0.2, 0.4])
    x = (origin + index * np.array(spacing)) @ rotation.T
    label = np.zeros(tuple(count), np.int32)
    below = x[..., 2] < BASE
    label[within(x, EPI * [0.95, 0.95, 0.85], [0.75 * EPI[0], 0, 0]) & below] = RV
    label[within(x, EPI) & below] = WALL
    label[within(x, ENDO) & below] = CAVITY
    for change in changes:
        change(label, x)
    affine = np.eye(4)
    affine[:3, :3] = 1e-3 * rotation * np.array(spacing)
    affine[:3, 3] = 1e-3 * rotation @ origin
    return build_voxel_mesh(label, affine, frame="LPS", largest_piece=True)


def within(x: np.ndarray, semi: ArrayLike, centre: ArrayLike = (0, 0, 0)) -> np.ndarray:
    """Whether points (mm) lie in an ellipsoid."""
    return np.sum(((x - np.array(centre)) / np.array(semi)) ** 2, axis=-1) < 1.0


def true_frame() -> LVFrame:
    """The frame that the ellipsoids were drawn about."""
    tip, base, right = np.array([[0, 0, -ENDO[2]], [0, 0, BASE], [EPI[0], 0, 0]]) * 1e-3
    return lv_frame_from_points(tip, base, right, frame="LPS")


def atrium(label: np.ndarray, x: np.ndarray) -> None:
    """An atrium on all of the valve plane."""
    label[within(x, [30.0, 30, 30], [0, 0, BASE]) & (x[..., 2] >= BASE)] = ATRIUM


def half_atrium(label: np.ndarray, x: np.ndarray) -> None:
    """The label of the atrium touches half of the valve plane; a gap of one voxel on the rest."""
    on = within(x, [30.0, 30, 30], [0, 0, BASE]) & (x[..., 2] >= BASE)
    label[on & ((x[..., 1] > 0.0) | (x[..., 2] > BASE + 5.0))] = ATRIUM


def speckled_atrium(label: np.ndarray, x: np.ndarray) -> None:
    """An atrium with one voxel in three left out at random."""
    on = within(x, [30.0, 30, 30], [0, 0, BASE]) & (x[..., 2] >= BASE)
    label[on & (np.random.default_rng(0).random(label.shape) > 0.33)] = ATRIUM


def blood_pool(label: np.ndarray, x: np.ndarray) -> None:
    """The atrium has the label of the cavity."""
    label[within(x, [26.0, 22, 30], [4.0, -3, BASE + 8]) & (x[..., 2] >= BASE)] = CAVITY


def hole(centre: ArrayLike, radius: float) -> Change:
    """The wall within `radius` (mm) of a point has no label."""

    def change(label: np.ndarray, x: np.ndarray) -> None:
        near = np.linalg.norm(x - np.array(centre), axis=-1) < radius
        label[near & (label == WALL)] = 0

    return change


def papillary(value: int, top: float = 0.0) -> Change:
    """Two papillary muscles as voids (`value` 0) or with a label of their own, up to `top` (mm)."""

    def change(label: np.ndarray, x: np.ndarray) -> None:
        for angle in (2.3, 4.2):
            beside = np.hypot(x[..., 0] - 15 * np.cos(angle), x[..., 1] - 15 * np.sin(angle)) < 4.5
            high = (x[..., 2] > -35.0) & (x[..., 2] < top)
            label[beside & high & (label == CAVITY)] = value

    return change


def open_rim(label: np.ndarray, x: np.ndarray) -> None:
    """The wall of the base is C-shaped over 8 mm, as in the uppermost slice of many stacks."""
    gap = np.abs(np.arctan2(x[..., 1], x[..., 0]) - 1.0) < 0.6
    label[gap & (x[..., 2] > BASE - 8.0) & (label == WALL)] = 0


def other_wall(label: np.ndarray, x: np.ndarray) -> None:
    """A further label where the wall of the outflow tract is."""
    gap = np.abs(np.arctan2(x[..., 1], x[..., 0]) - 1.0) < 0.7
    label[gap & (x[..., 2] > BASE - 10.0) & (label == WALL)] = 4


def islands(label: np.ndarray, x: np.ndarray) -> None:
    """Stray voxels of the cavity's label, one of them far below the apex."""
    for at in ([0.0, 0, -80], [45.0, 40, 0], [-50.0, 0, 40]):
        place = np.linalg.norm(x - np.array(at), axis=-1)
        label[np.unravel_index(np.argmin(place), label.shape)] = CAVITY


def cut_below(height: float) -> Change:
    """The image has no labels below a height (mm)."""

    def change(label: np.ndarray, x: np.ndarray) -> None:
        label[x[..., 2] < height] = 0

    return change


def cut_above(height: float) -> Change:
    """The image has no labels above a height (mm)."""

    def change(label: np.ndarray, x: np.ndarray) -> None:
        label[x[..., 2] > height] = 0

    return change


def without_rv(label: np.ndarray, x: np.ndarray) -> None:
    """No label for the right ventricle."""
    label[label == RV] = 0


def lid(label: np.ndarray, x: np.ndarray) -> None:
    """The valve plane is closed by a slab with the label of the wall."""
    label[within(x, EPI) & (x[..., 2] >= BASE) & (x[..., 2] < BASE + 6.0)] = WALL


def at_the_wall(label: np.ndarray, x: np.ndarray) -> None:
    """A void between cavity and wall, closed on all sides."""
    label[within(x, [6.0, 6, 12], [-20.0, 0, -5]) & (label == CAVITY)] = 0


def bubble(label: np.ndarray, x: np.ndarray) -> None:
    """A void inside the wall."""
    label[within(x, [3.0, 3, 3], [0.0, 28.5, -5])] = 0


def torn_base(label: np.ndarray, x: np.ndarray) -> None:
    """The wall of one side has no label over the upper half of the ventricle."""
    gap = np.abs(np.arctan2(x[..., 1], x[..., 0]) - 1.2) < 0.6
    label[gap & (x[..., 2] > BASE - 35.0) & (label == WALL)] = 0
