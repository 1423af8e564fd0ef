"""A small z-buffer renderer.

Pictures of a run must appear on any machine, and VTK needs an OpenGL library that a bare cluster
node may lack. A heart is few enough small triangles for one loop over them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .._native import array, function, INT, REAL

_LIGHT = np.array([-0.35, 0.45, 0.82])
_PER_POINT = array(np.float64, 2)
_lay = function(
    "raster_lay",
    *(INT, array(np.int64, 2), _PER_POINT, array(np.float64), _PER_POINT, REAL),
    *(INT, INT, array(np.float64), array(np.int64), array(np.float64, 2), array(np.float64, 2)),
)


@dataclass(frozen=True)
class Surface:
    """Triangles with smooth normals and colours.

    - `point`: (p, 3); `normal`: (p, 3), unit; `colour`: (p, 3), 0 to 1; `triangle`: (m, 3).
    - `opacity`: 1 is opaque; translucent surfaces are laid over the opaque ones.
    """

    point: Float[np.ndarray, "p 3"]
    normal: Float[np.ndarray, "p 3"]
    colour: Float[np.ndarray, "p 3"]
    triangle: Int[np.ndarray, "m 3"]
    opacity: float = 1.0


def smooth_surface(
    corner: Float[np.ndarray, "f k 3"],
    outward: Float[np.ndarray, "f 3"],
    colour: Float[np.ndarray, "f 3"],
    *,
    rounds: int = 20,
    opacity: float = 1.0,
) -> Surface:
    """A surface of flat faces with shared corners, without the steps of voxels.

    Corners move by Taubin's filter (a smoothing and an unsmoothing step), which keeps the
    volume; normals and colours are averaged at the corners.

    **Arguments:** `corner`, k corners of each face in order around it; `outward`, a vector that
    tells the outer side; `colour`, RGB of each face.

    **Source:** G. Taubin (1995), A signal processing approach to fair surface design.
    """
    n_faces, k = corner.shape[:2]
    scale = 1e-6 * max(float(np.ptp(corner.reshape(-1, 3), axis=0).max()), 1e-12)
    _, first, index = np.unique(
        np.round(corner.reshape(-1, 3) / scale).astype(np.int64),
        axis=0,
        return_index=True,
        return_inverse=True,
    )
    point = corner.reshape(-1, 3)[first]
    face = index.reshape(n_faces, k)
    turn = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 1])
    inward = np.einsum("fd,fd->f", turn, outward) < 0.0
    face = np.where(inward[:, None], face[:, ::-1], face)
    edge = np.concatenate([face[:, [i, (i + 1) % k]] for i in range(k)])
    edge = np.concatenate([edge, edge[:, ::-1]])
    degree = np.maximum(np.bincount(edge[:, 0], minlength=len(point)), 1)[:, None]
    for _ in range(rounds):
        for step in (0.5, -0.53):
            point = point + step * (
                _sum_at(edge[:, 0], point[edge[:, 1]], len(point)) / degree - point
            )
    triangle = np.concatenate([face[:, [0, i, i + 1]] for i in range(1, k - 1)])
    a, b, c = (point[triangle[:, i]] for i in range(3))
    cross = np.cross(b - a, c - a)
    normal = sum(_sum_at(triangle[:, i], cross, len(point)) for i in range(3))
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
    owner = np.repeat(np.arange(n_faces), k)
    count = np.maximum(np.bincount(face.ravel(), minlength=len(point)), 1)[:, None]
    shade = _sum_at(face.ravel(), colour[owner], len(point)) / count
    return Surface(point, normal, shade, triangle, opacity)


def _sum_at(index: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    return np.stack([np.bincount(index, values[:, i], n) for i in range(3)], axis=1)


def tubes(
    end: Float[np.ndarray, "s 2 3"],
    radius: Float[np.ndarray, "s 2"],
    colour: Float[np.ndarray, "s 2 3"],
    *,
    sides: int = 10,
    joints: bool = True,
) -> Surface:
    """Segments as tapering tubes.

    **Arguments:** `joints`, round the ends, which closes the gaps where segments meet at an angle;
    tubes as thin as a pixel or two need neither that nor ten sides.
    """
    axis = end[:, 1] - end[:, 0]
    axis = axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-300)
    helper = np.where(np.abs(axis[:, :1]) < 0.9, np.array([[1.0, 0, 0]]), np.array([[0, 1.0, 0]]))
    u = np.cross(axis, helper)
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(axis, u)
    angle = np.arange(sides) * 2.0 * np.pi / sides
    around = np.cos(angle)[None, :, None] * u[:, None] + np.sin(angle)[None, :, None] * v[:, None]
    rings = []
    along = ((0, -0.8, 0.45), (0, 0.0, 1.0), (1, 0.0, 1.0), (1, 0.8, 0.45))
    along = along if joints else along[1:3]
    for at, back, width in along:
        centre = end[:, at] + back * radius[:, at, None] * axis
        rings.append(centre[:, None] + width * radius[:, at, None, None] * around)
    point = np.stack(rings, axis=1)
    n, n_rings = len(end), len(along)
    base = (np.arange(n) * n_rings * sides)[:, None, None]
    ring = (np.arange(n_rings - 1) * sides)[None, :, None]
    i, j = np.arange(sides)[None, None, :], ((np.arange(sides) + 1) % sides)[None, None, :]
    a, b = base + ring + i, base + ring + j
    quad = np.stack([a, b, b + sides, a + sides], axis=-1).reshape(-1, 4)
    triangle = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    shade = colour[:, [at for at, _, _ in along]]
    return Surface(
        point.reshape(-1, 3),
        np.repeat(around[:, None], n_rings, axis=1).reshape(-1, 3),
        np.repeat(shade[:, :, None], sides, axis=2).reshape(-1, 3),
        triangle,
    )


def render(
    surfaces: list[Surface],
    view: Float[np.ndarray, "3 3"],
    *,
    centre: Float[np.ndarray, "3"],
    half_width: float,
    size: tuple[int, int],
    oversample: int = 2,
    haze: float = 0.0,
) -> Float[np.ndarray, "h w 3"]:
    """An orthographic picture of closed surfaces with diffuse light.

    **Arguments:**

    - `view`: rows right, up and towards the viewer, orthonormal.
    - `centre`, `half_width`: what the picture shows, in the unit of the points.
    - `size`: width and height in pixels.
    - `haze`: how white the farthest point is, 0 to 1, so that near vessels stand out from far ones.
    """
    width, height = (oversample * n for n in size)
    image = np.ones((height * width, 3))
    depth = np.full(height * width, -np.inf)
    owner, weight = np.full(len(depth), -1), np.empty((len(depth), 2))
    scale = 0.5 * width / half_width
    reach = [((s.point - centre) @ view[2]) for s in surfaces]
    front, back = max(float(z.max()) for z in reach), min(float(z.min()) for z in reach)
    for surface in sorted(surfaces, key=lambda s: -s.opacity):
        local = (surface.point - centre) @ view.T
        xy = local[:, :2] * np.array([scale, -scale]) + 0.5 * np.array([width, height])
        facing = surface.normal @ view.T
        light = _LIGHT / np.linalg.norm(_LIGHT)
        shade = surface.colour * (0.4 + 0.6 * np.maximum(facing @ light, 0.0)[:, None])
        white = haze * ((front - local[:, 2]) / max(front - back, 1e-300))[:, None]
        shade = shade + white * (1.0 - shade)
        triangle = np.ascontiguousarray(surface.triangle, np.int64)
        xy, z, shade = map(np.ascontiguousarray, (xy, local[:, 2], shade))
        # one translucent surface does not hide another
        reached = depth if surface.opacity >= 1.0 else depth.copy()
        _lay(
            *(len(triangle), triangle, xy, z, shade, surface.opacity),
            *(width, height, reached, owner, weight, image),
        )
    fine = image.reshape(size[1], oversample, size[0], oversample, 3)
    # NumPy's mean takes three times as long over axes as short as these
    part = range(oversample)
    picture = sum(fine[:, i, :, j] for i in part for j in part) / oversample**2
    return np.clip(picture, 0.0, 1.0)
