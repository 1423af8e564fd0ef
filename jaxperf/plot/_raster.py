"""A small z-buffer renderer.

Pictures of a run must appear on any machine, and VTK needs an OpenGL library that a bare cluster
node may lack. A heart is few enough small triangles for NumPy.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

# Pixels on an edge belong to both triangles, so that round-off opens no gap between them.
_EDGE = 1e-5
_LIGHT = np.array([-0.35, 0.45, 0.82])


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
        found = _fragments(xy, local[:, 2], surface.triangle, (width, height))
        hit, fragment = _nearest(depth, found.pixel, found.z)
        rgb = found.colour(fragment, shade, surface.triangle)
        image[hit] += surface.opacity * (rgb - image[hit])
        if surface.opacity >= 1.0:
            depth[hit] = found.z[fragment]
    picture = image.reshape(size[1], oversample, size[0], oversample, 3).mean(axis=(1, 3))
    return np.clip(picture, 0.0, 1.0)


class _Fragments(NamedTuple):
    """Pixels that triangles cover: depth, triangle, and weight of its second and third corner."""

    pixel: np.ndarray
    z: np.ndarray
    triangle: np.ndarray
    weight: np.ndarray

    def colour(self, chosen: np.ndarray, shade: np.ndarray, triangle: np.ndarray) -> np.ndarray:
        """Colours of the chosen fragments between those of their triangles' corners."""
        corner, weight = triangle[self.triangle[chosen]], self.weight[chosen].astype(np.float64)
        rgb = (1.0 - weight.sum(axis=1))[:, None] * shade[corner[:, 0]]
        return rgb + weight[:, :1] * shade[corner[:, 1]] + weight[:, 1:] * shade[corner[:, 2]]


def _nearest(depth: np.ndarray, pixel: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pixels in which a fragment lies before what is there, and the nearest such fragment."""
    order = np.argsort(z, kind="stable")
    nearest = np.full(len(depth), -1, np.int64)
    # of equal indices the last assignment stays, which is the nearest
    nearest[pixel[order]] = order
    hit = np.flatnonzero(nearest >= 0)
    hit = hit[z[nearest[hit]] > depth[hit]]
    return hit, nearest[hit]


def _fragments(xy, z, triangle, size) -> _Fragments:
    """The pixels whose centres triangles cover."""
    width, height = size
    corner = xy[triangle]
    low = np.maximum(np.ceil(corner.min(axis=1) - 0.5 - _EDGE), 0.0).astype(np.int64)
    high = np.floor(corner.max(axis=1) - 0.5 + _EDGE)
    high = np.minimum(high, np.array([width - 1, height - 1])).astype(np.int64)
    box = np.maximum(high - low + 1, 0)
    a = corner[:, 0]
    to_b, to_c = corner[:, 1] - a, corner[:, 2] - a
    area = to_b[:, 0] * to_c[:, 1] - to_b[:, 1] * to_c[:, 0]
    # rows count downwards, so triangles that face the viewer turn clockwise: negative area
    use = np.flatnonzero((box.prod(axis=1) > 0) & (area < -1e-9))
    pixels, depths, owners, weights = [], [], [], []
    # triangles of like size together bound the memory of the candidates
    for part in np.array_split(use[np.argsort(box[use].prod(axis=1))], max(1, len(use) // 4000)):
        number = box[part].prod(axis=1)
        own = np.repeat(np.arange(len(part), dtype=np.int32), number)
        before = np.repeat((np.cumsum(number) - number).astype(np.int32), number)
        rank = np.arange(len(own), dtype=np.int32) - before
        row, column = np.divmod(rank, box[part, 0].astype(np.int32)[own])
        start = low[part] + 0.5 - a[part]
        # both weights are linear in column and row of the triangle's box
        b, c, over = to_b[part], to_c[part], 1.0 / area[part]
        first = np.stack([c[:, 1], -c[:, 0], start[:, 0] * c[:, 1] - start[:, 1] * c[:, 0]])
        second = np.stack([-b[:, 1], b[:, 0], b[:, 0] * start[:, 1] - b[:, 1] * start[:, 0]])
        first, second = (first * over).astype(np.float32), (second * over).astype(np.float32)
        w1 = first[0][own] * column + first[1][own] * row + first[2][own]
        w2 = second[0][own] * column + second[1][own] * row + second[2][own]
        inside = np.flatnonzero((w1 >= -_EDGE) & (w2 >= -_EDGE) & (w1 + w2 <= 1.0 + _EDGE))
        tri, w1, w2 = part[own[inside]], w1[inside], w2[inside]
        weights.append(np.stack([w1, w2], axis=1))
        pixels.append((low[tri, 1] + row[inside]) * width + low[tri, 0] + column[inside])
        at = z[triangle[tri, 0]]
        rise = z[triangle[tri, 1]] - at, z[triangle[tri, 2]] - at
        depths.append(at + w1 * rise[0] + w2 * rise[1])
        owners.append(tri)
    return _Fragments(*(np.concatenate(x) for x in (pixels, depths, owners, weights)))
