"""Random left ventricles: truncated ellipsoids, bent smoothly, as tetrahedra or as voxels."""

import math

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay

from jaxperf._misc import InputError
from jaxperf.geometry import (
    build_tet_mesh,
    ellipsoid_ventricle,
    EllipsoidLV,
    nearby_order,
    TetMesh,
    VoxelMesh,
)
from jaxperf.units import M_PER_MM

_WAVES = 6
_WAVELENGTH = (60e-3, 150e-3)
# Of the cavity's second short semi-axis over its first, of the base plane's height over the long
# semi-axis, and of the wall at the apex over that at the base.
_ROUNDNESS, _BASE, _APEX = (0.92, 1.08), (0.25, 0.45), (0.6, 0.9)
# Which surfaces a point lies on.
_ENDO, _EPI, _CUT = 1, 2, 4
# In sides of the cubic cell, whose twelve tetrahedra have edges of 1 and 0.87.
_SURFACE_SPACING, _CLEARANCE, _JITTER = 0.9, 0.5, 0.06
# Tetrahedra that the surfaces cost, in n^(2/3); measured from 5e3 to 3e5.
_FEWER = 3.1
# 6√2 |T|/longest edge³, 1 for a regular tetrahedron, below which one is a sliver; how often the
# points are moved on their account, and how far, in sides of the cell.
_SLIVER, _ROUNDS, _MOVE = 0.08, 4, 0.1
_GOLDEN_ANGLE = math.pi * (3.0 - math.sqrt(5.0))
# Area of each point of a triangular lattice, in squared distances.
_CELL = 0.5 * math.sqrt(3.0)
# Widest voxels in thicknesses of the wall, and their shrinking where the wall falls apart.
_WIDEST, _SHRINK = 0.7, 0.85


class VentricleShape(eqx.Module):
    """A truncated ellipsoid and a smooth map that bends it, a sum of plane waves.

    - `lv`: the ellipsoid before bending.
    - `wave`: (k, 3), rad/m; `phase`: (k,), rad; `amplitude`: (k, 3), m.
    """

    lv: EllipsoidLV
    wave: Float[np.ndarray, "k 3"]
    phase: Float[np.ndarray, " k"]
    amplitude: Float[np.ndarray, "k 3"]

    @property
    def thinnest(self) -> float:
        """Thickness of the wall where it is thinnest before bending, m."""
        return float(np.min(self.lv.epi - self.lv.endo))

    def bent(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Where points go. One to one as long as Σ |amplitude| |wave| stays below one."""
        return point + np.cos(point @ self.wave.T + self.phase[None, :]) @ self.amplitude

    def inside(self, point: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
        """Whether points lie in the wall before bending."""
        return (
            (_beyond(point, self.lv.endo) > 0.0)
            & (_beyond(point, self.lv.epi) < 0.0)
            & (point[:, 2] < self.lv.base_height)
        )

    def depth(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """0 endocardium to 1 epicardium, of points before bending."""
        endo = np.maximum(_beyond(point, self.lv.endo), 0.0)
        epi = np.maximum(-_beyond(point, self.lv.epi), 0.0)
        return endo / (endo + epi)

    def axes(self, point: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3 3"]:
        """Rows circumferential, longitudinal, transmural, of points before bending."""
        depth = self.depth(point)[:, None]
        normal = _normal(point, self.lv.endo) * (1.0 - depth) + _normal(point, self.lv.epi) * depth
        normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)
        along = np.array([[0.0, 0.0, 1.0]]) - normal[:, 2:] * normal
        # at the apex, where that vanishes, "up" is away from the septum
        other = np.array([[-1.0, 0.0, 0.0]]) + normal[:, :1] * normal
        long = np.where(np.linalg.norm(along, axis=1, keepdims=True) > 1e-6, along, other)
        long = long / np.linalg.norm(long, axis=1, keepdims=True)
        return np.stack([np.cross(long, normal), long, normal], axis=1)


def sample_shape(
    rng: np.random.Generator,
    *,
    cavity_short_mm: tuple[float, float],
    cavity_long_mm: tuple[float, float],
    wall_mm: tuple[float, float],
    wobble_mm: tuple[float, float],
) -> VentricleShape:
    """A ventricle with dimensions drawn evenly from ranges.

    **Arguments:** semi-axes of the cavity; `wall_mm`, thickness at the widest place (thinner at
    the apex); `wobble_mm`, the amplitude of a single wave that would bend as much.
    """
    short, wall = rng.uniform(*cavity_short_mm), rng.uniform(*wall_mm)
    long = rng.uniform(*cavity_long_mm)
    endo = np.array([short, short * rng.uniform(*_ROUNDNESS), long]) * M_PER_MM
    thickness = np.array([wall, wall, wall * rng.uniform(*_APEX)]) * M_PER_MM
    height = float(endo[2] * rng.uniform(*_BASE))
    wave = 2.0 * np.pi / rng.uniform(*_WAVELENGTH, (_WAVES, 1)) * _directions(rng, _WAVES)
    amplitude = rng.uniform(*wobble_mm) * M_PER_MM / math.sqrt(_WAVES) * _directions(rng, _WAVES)
    phase = rng.uniform(0.0, 2.0 * np.pi, _WAVES)
    return VentricleShape(EllipsoidLV(endo, endo + thickness, height), wave, phase, amplitude)


def shape_tetrahedra(
    shape: VentricleShape, n_tets: float, rng: np.random.Generator
) -> tuple[TetMesh, Float[np.ndarray, "c 3"]]:
    """The bent wall as Delaunay tetrahedra, in no regular order.

    Points are spread evenly over the surfaces, and inside lie on a jittered body-centred lattice.

    **Arguments:** `n_tets`, about how many.

    **Returns:** the mesh, and the places of its points before bending, m.
    """
    # near the surfaces there are fewer than of the lattice
    n_of_lattice = n_tets + _FEWER * n_tets ** (2.0 / 3.0)
    side = (12.0 * shape.lv.wall_volume / n_of_lattice) ** (1.0 / 3.0)
    surface, on = _surface_points(shape, side, rng)
    lattice = _lattice_points(shape, side, rng)
    flat = np.concatenate([surface, lattice])
    on = np.concatenate([on, np.zeros(len(lattice), np.int64)])
    found, tet = _delaunay(shape, flat, on)
    for _ in range(_ROUNDS):
        bad = _shape_of(found.points[tet]) < _SLIVER
        if not bad.any():
            break
        _move(shape, flat, on, np.unique(tet[bad]), _MOVE * side, rng)
        found, tet = _delaunay(shape, flat, on)
    used, tet = np.unique(tet, return_inverse=True)
    order, tet = nearby_order(tet.reshape(-1, 4), len(used))
    flat = flat[used][order]
    return build_tet_mesh(shape.bent(flat), tet, frame="model", where="shape_tetrahedra"), flat


def shape_voxels(shape: VentricleShape, n_cells: float) -> VoxelMesh:
    """The wall before bending as about `n_cells` voxels; more where it is too thin for so few."""
    spacing = (shape.lv.wall_volume / n_cells) ** (1.0 / 3.0)
    spacing = min(spacing, _WIDEST * shape.thinnest) / M_PER_MM
    endo, epi = shape.lv.endo / M_PER_MM, shape.lv.epi / M_PER_MM
    while True:
        try:
            return ellipsoid_ventricle(
                spacing_mm=spacing,
                endo_short_mm=(float(endo[0]), float(endo[1])),
                endo_long_mm=float(endo[2]),
                wall_base_mm=float(epi[0] - endo[0]),
                wall_apex_mm=float(epi[2] - endo[2]),
                base_height_mm=shape.lv.base_height / M_PER_MM,
            )[0]
        except InputError:
            # a thin wall of few voxels may hang together by their edges only
            if spacing * M_PER_MM < 0.25 * shape.thinnest:
                raise
            spacing *= _SHRINK


def _directions(rng: np.random.Generator, n: int) -> Float[np.ndarray, "n 3"]:
    vector = rng.standard_normal((n, 3))
    return vector / np.linalg.norm(vector, axis=1, keepdims=True)


def _normal(point: Float[np.ndarray, "n d"], semi: Float[np.ndarray, " d"]) -> np.ndarray:
    """Along the gradient of |x/a|: outward unit vectors."""
    vector = point / semi**2
    return vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), 1e-300)


def _beyond(point: Float[np.ndarray, "n d"], semi: Float[np.ndarray, " d"]) -> np.ndarray:
    """Distance outside an ellipsoid to first order, (|x/a| − 1)/|∇|x/a||."""
    size = np.linalg.norm(point / semi, axis=1)
    return (size - 1.0) * size / np.maximum(np.linalg.norm(point / semi**2, axis=1), 1e-300)


def _surface_points(
    shape: VentricleShape, side: float, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "p 3"], Int[np.ndarray, " p"]]:
    """Points on both ellipsoids, on the cut and on its rims, and which surfaces they lie on."""
    lv, spacing = shape.lv, _SURFACE_SPACING * side
    share = math.sqrt(1.0 - (lv.base_height / lv.endo[2]) ** 2)
    inner = lv.endo[:2] * share
    outer = lv.epi[:2] * math.sqrt(1.0 - (lv.base_height / lv.epi[2]) ** 2)
    points, on = [], []

    def add(point: np.ndarray, where: int) -> None:
        points.append(point)
        on.append(np.full(len(point), where))

    for semi, where in ((lv.endo, _ENDO), (lv.epi, _EPI)):
        point = _spiral(semi, lv.base_height, spacing, rng.uniform(0.0, 2.0 * np.pi))
        add(point[point[:, 2] < lv.base_height - 0.6 * spacing], where)
    for semi, where in ((inner, _ENDO | _CUT), (outer, _EPI | _CUT)):
        n = math.ceil(2.0 * np.pi * float(np.sqrt(semi.prod())) / spacing)
        angle = 2.0 * np.pi * (np.arange(n) + rng.uniform()) / n
        add(_level(semi * np.stack([np.cos(angle), np.sin(angle)], axis=1), lv), where)
    n = math.ceil(np.pi * outer.prod() / (_CELL * spacing**2))
    angle = _GOLDEN_ANGLE * np.arange(n) + rng.uniform(0.0, 2.0 * np.pi)
    unit = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    disc = outer * unit * np.sqrt((np.arange(n) + 0.5) / n)[:, None]
    clear = (_beyond(disc, inner) > 0.6 * spacing) & (_beyond(disc, outer) < -0.6 * spacing)
    add(_level(disc[clear], lv), _CUT)
    return np.concatenate(points), np.concatenate(on)


def _level(point: Float[np.ndarray, "n 2"], lv: EllipsoidLV) -> Float[np.ndarray, "n 3"]:
    return np.column_stack([point, np.full(len(point), lv.base_height)])


def _spiral(
    semi: Float[np.ndarray, "3"], height: float, spacing: float, turn: float
) -> Float[np.ndarray, "p 3"]:
    """Points at the golden angle, with equal areas between them, below a height."""
    short, long = float(np.sqrt(semi[0] * semi[1])), float(semi[2])
    z = np.linspace(-1.0, height / long, 4001)
    density = 2.0 * np.pi * short * np.sqrt((short * z) ** 2 + long**2 * (1.0 - z**2))
    area = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(z))])
    n = math.ceil(area[-1] / (_CELL * spacing**2))
    z = np.interp((np.arange(n) + 0.5) / n * area[-1], area, z)
    angle, r = _GOLDEN_ANGLE * np.arange(n) + turn, np.sqrt(1.0 - z**2)
    return semi * np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def _lattice_points(
    shape: VentricleShape, side: float, rng: np.random.Generator
) -> Float[np.ndarray, "p 3"]:
    """Jittered points of a body-centred cubic lattice, clear of the surfaces."""
    lv = shape.lv
    low, high = -lv.epi, np.array([lv.epi[0], lv.epi[1], lv.base_height])
    start = low - side * rng.uniform(size=3)
    grid = [np.arange(start[k], high[k], side) for k in range(3)]
    corner = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3)
    point = np.concatenate([corner, corner + 0.5 * side])
    point = point[shape.inside(point)]
    point = point + rng.uniform(-_JITTER, _JITTER, point.shape) * side
    clear = np.minimum(_beyond(point, lv.endo), -_beyond(point, lv.epi))
    return point[np.minimum(clear, lv.base_height - point[:, 2]) > _CLEARANCE * side]


def _delaunay(
    shape: VentricleShape, flat: Float[np.ndarray, "p 3"], on: Int[np.ndarray, " p"]
) -> tuple[Delaunay, Int[np.ndarray, "m 4"]]:
    """Delaunay tetrahedra of the bent points that lie in the wall, in one piece.

    Those with all corners on one surface fill its hollows or are slivers on it.
    """
    found = Delaunay(shape.bent(flat))
    tet = found.simplices.astype(np.int64)
    kept = (np.bitwise_and.reduce(on[tet], axis=1) == 0) & shape.inside(flat[tet].mean(axis=1))
    beside = np.where(found.neighbors >= 0, kept[found.neighbors], False) & kept[:, None]
    # slivers at the surface leave a hollow much smaller than a tetrahedron
    kept &= beside.all(axis=1) | (_shape_of(found.points[tet]) > _SLIVER)
    index = np.full(len(tet), -1)
    index[kept] = np.arange(int(kept.sum()))
    there = np.where(found.neighbors >= 0, index[found.neighbors], -1)[kept]
    here, face = np.nonzero(there >= 0)
    n = len(there)
    joined = csr_array((np.ones(here.size, bool), (here, there[here, face])), shape=(n, n))
    piece = connected_components(joined, directed=False)[1]
    return found, tet[kept][piece == np.argmax(np.bincount(piece))]


def _shape_of(corner: Float[np.ndarray, "m 4 3"]) -> Float[np.ndarray, " m"]:
    """6√2 |T|/longest edge³."""
    a, b, c = (corner[:, i] - corner[:, 0] for i in (1, 2, 3))
    six = np.abs(np.einsum("md,md->m", a, np.cross(b, c)))
    longest = np.max([np.sum(e**2, axis=1) for e in (a, b, c, b - a, c - a, c - b)], axis=0)
    return math.sqrt(2.0) * six / longest**1.5


def _move(
    shape: VentricleShape,
    flat: Float[np.ndarray, "p 3"],
    on: Int[np.ndarray, " p"],
    which: Int[np.ndarray, " k"],
    step: float,
    rng: np.random.Generator,
) -> None:
    """Shift points, in place: those of a surface along it, those of a rim not at all."""
    which = which[np.isin(on[which], (0, _ENDO, _EPI, _CUT))]
    flat[which] += rng.uniform(-step, step, (which.size, 3))
    for semi, where in ((shape.lv.endo, _ENDO), (shape.lv.epi, _EPI)):
        here = which[on[which] == where]
        flat[here] /= np.linalg.norm(flat[here] / semi, axis=1, keepdims=True)
    flat[which[on[which] == _CUT], 2] = shape.lv.base_height
