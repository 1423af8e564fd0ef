"""The tetrahedral mesh with vertex-centred control volumes, and the tests a mesh must pass."""

import itertools

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

from .._misc import check_frame, InputError
from ._mesh import (
    AbstractMesh,
    BoundaryFaces,
    check_extent,
    check_finite,
    check_level,
    Quadrature,
)

# Volume over cubed longest edge below which a tetrahedron is flat: 0.118 for a regular one.
_FLAT = 1e-9
# Faces opposite to each vertex, seen anticlockwise from outside a positive tetrahedron.
_FACE = np.array([[1, 2, 3], [0, 3, 2], [0, 1, 3], [0, 2, 1]])
# Barycentric coordinates of the corners of a triangle's share of its first vertex, and centroid.
_TRIANGLE_SHARE = np.array([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, 1 / 2]])
_TRIANGLE_SHARE_CENTRE = np.array([11 / 18, 7 / 36, 7 / 36])


class TetMesh(AbstractMesh):
    """Tetrahedra whose vertices are the control volumes; built by
    [`jaxperf.geometry.build_tet_mesh`][].

    Every tetrahedron gives a quarter of itself to each vertex (the part where that vertex's
    barycentric coordinate is the largest), $V_i = \\sum_{T \\ni i} |T| / 4$.

    - `centre`: (c, 3), the vertices, m, also called `point`.
    - `tet`: (m, 4), positively oriented.
    - `tet_volume`: (m,), m³; `volume`: (c,), the dual volumes, m³.
    """

    centre: Float[np.ndarray, "c 3"]
    tet: Int[np.ndarray, "m 4"]
    tet_volume: Float[np.ndarray, " m"]
    volume: Float[np.ndarray, " c"]
    frame: str = eqx.field(static=True)

    @property
    def point(self) -> Float[np.ndarray, "c 3"]:
        """(c, 3), the vertices, m."""
        return self.centre

    def boundary_faces(self) -> BoundaryFaces:
        """Boundary triangles, each cut into the three shares of its vertices.

        A share has the corners vertex, edge midpoint, face centroid, edge midpoint and a third of
        the triangle's area.
        """
        triangle = boundary_triangles(self.tet)
        turned = np.concatenate([np.roll(triangle, -s, axis=1) for s in range(3)])
        corner = self.point[turned]
        normal, area = _normal_and_area(corner)
        return BoundaryFaces(
            centre=np.einsum("v,fvd->fd", _TRIANGLE_SHARE_CENTRE, corner),
            normal=normal,
            area=area / 3.0,
            cell=turned[:, 0],
            label=None,
            corner=np.einsum("kv,fvd->fkd", _TRIANGLE_SHARE, corner),
        )

    def quadrature_size(self, level: int) -> int:
        """`4 m` at level 1, else `24 m (level - 1)**3`."""
        return self.tet.shape[0] * 4 * _quarter_points(level).shape[0]

    def quadrature(self, level: int = 1, cells: Int[np.ndarray, " k"] | None = None) -> Quadrature:
        """Points inside the quarter of each tetrahedron that belongs to a vertex.

        Level 1 takes the centroid of each quarter. From level 2 on a quarter is cut into its six
        tetrahedra (vertex, edge midpoint, face centroid, centroid) of volume |T|/24 and each of
        these into (level − 1)³ equal ones, whose centroids are the points.

        **Arguments:**

        - `level`: fineness, at least 1.
        - `cells`: (k,), only the control volumes of these vertices; default all.
        """
        check_level(level)
        wanted = np.ones(self.n_cells, dtype=np.bool_)
        if cells is not None:
            wanted[:] = False
            wanted[cells] = True
        tet, local = np.nonzero(wanted[self.tet])
        # the owning vertex first, the order of the others does not matter by symmetry
        order = np.array([[i, *(j for j in range(4) if j != i)] for i in range(4)])
        corner = self.point[self.tet[tet[:, None], order[local]]]
        share = _quarter_points(level)
        n = share.shape[0]
        point = np.einsum("kv,qvd->qkd", share, corner).reshape(-1, 3)
        weight = np.repeat(self.tet_volume[tet] / (4.0 * n), n)
        return Quadrature(point, weight, np.repeat(self.tet[tet, local], n))


def build_tet_mesh(
    point: np.ndarray, tet: np.ndarray, *, frame: str, where: str = "tetrahedral mesh"
) -> TetMesh:
    """Points and tetrahedra as a tissue mesh, checked.

    **Arguments:**

    - `point`: (c, 3), m.
    - `tet`: (m, 4), indices into `point`; negative orientation is turned round.
    - `frame`: "LPS", "RAS" or "model".
    - `where`: the file or object that errors name.

    **Returns:**

    A [`jaxperf.geometry.TetMesh`][].

    **Errors:** [`InputError`][] for NaN, indices out of range, flat or repeated tetrahedra, unused
    points, faces shared by more than two tetrahedra, and a mesh in several pieces.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    corner = 0.01 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    mesh = jp.geometry.build_tet_mesh(corner, np.array([[0, 1, 2, 3]]), frame="model")
    ```
    """
    check_frame(frame, where)
    point, tet = _checked_arrays(point, tet, where)
    volume = _signed_volume(point[tet])
    _check_flat(point[tet], volume, where)
    tet = np.where((volume < 0.0)[:, None], tet[:, [0, 1, 3, 2]], tet)
    _check_connectivity(tet, point.shape[0], where)
    check_extent(point, frame, where)
    dual = np.bincount(tet.ravel(), np.repeat(np.abs(volume) / 4.0, 4), point.shape[0])
    return TetMesh(centre=point, tet=tet, tet_volume=np.abs(volume), volume=dual, frame=frame)


def boundary_triangles(tet: Int[np.ndarray, "m 4"]) -> Int[np.ndarray, "f 3"]:
    """Faces of one tetrahedron only, anticlockwise from outside."""
    face = tet[:, _FACE].reshape(-1, 3)
    _, group, count = _groups(face)
    return face[count[group] == 1]


def _groups(simplex: Int[np.ndarray, "n k"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of simplices with the same vertices: first member, group of each, size of each."""
    vertex = np.sort(simplex, axis=1)
    order = np.lexsort(vertex.T[::-1])
    new = np.ones(simplex.shape[0], dtype=np.bool_)
    new[1:] = np.any(np.diff(vertex[order], axis=0) != 0, axis=1)
    group = np.empty(simplex.shape[0], dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    return order[new], group, np.bincount(group)


def _quarter_points(level: int) -> Float[np.ndarray, "k 4"]:
    """Barycentric coordinates of the points in the quarter of the first vertex."""
    if level == 1:
        return np.array([[25 / 48, 23 / 144, 23 / 144, 23 / 144]])
    sixths = []
    for a, b, c in itertools.permutations((1, 2, 3)):
        corner = np.zeros((4, 4))
        corner[:, 0] = (1.0, 1 / 2, 1 / 3, 1 / 4)
        corner[1:, a] = (1 / 2, 1 / 3, 1 / 4)
        corner[2:, b] = (1 / 3, 1 / 4)
        corner[3:, c] = 1 / 4
        sixths.append(corner)
    return np.concatenate([_equal_parts(level - 1) @ corner for corner in sixths])


def _equal_parts(n: int) -> Float[np.ndarray, "k 4"]:
    """Centroids of the n³ equal tetrahedra of the Freudenthal subdivision, barycentric.

    In coordinates n ≥ x ≥ y ≥ z ≥ 0 the tetrahedron is one Kuhn simplex of a cube of side n, and
    the Kuhn simplices of the unit cubes cut it without remainder.
    """
    cube = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    parts = []
    for permutation in itertools.permutations(range(3)):
        path = np.zeros(3)
        total = np.zeros(3)
        for axis in permutation:
            path[axis] = 1.0
            total += path
        centroid = cube + (total / 4.0)[None, :]
        x, y, z = centroid.T
        parts.append(centroid[(n > x) & (x > y) & (y > z)])
    x, y, z = np.concatenate(parts).T / n
    return np.stack([1.0 - x, x - y, y - z, z], axis=1)


def _signed_volume(corner: Float[np.ndarray, "m 4 3"]) -> Float[np.ndarray, " m"]:
    a, b, c = (corner[:, i] - corner[:, 0] for i in (1, 2, 3))
    return np.einsum("md,md->m", a, np.cross(b, c)) / 6.0


def _normal_and_area(corner: Float[np.ndarray, "f 3 3"]) -> tuple[np.ndarray, np.ndarray]:
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    length = np.linalg.norm(normal, axis=1)
    return normal / length[:, None], 0.5 * length


def _checked_arrays(
    point: np.ndarray, tet: np.ndarray, where: str
) -> tuple[Float[np.ndarray, "c 3"], Int[np.ndarray, "m 4"]]:
    if point.ndim != 2 or point.shape[1] != 3 or tet.ndim != 2 or tet.shape[1] != 4:
        raise InputError(
            f"points have shape {point.shape} and tetrahedra {tet.shape}",
            where=where,
            expected="(c, 3) and (m, 4)",
            fix="Pass linear tetrahedra only; cut other cells into tetrahedra first",
        )
    if tet.shape[0] == 0 or not np.issubdtype(tet.dtype, np.integer):
        raise InputError(
            f"there are {tet.shape[0]} tetrahedra of type {tet.dtype}",
            where=where,
            expected="at least one, as integer indices",
            fix="Check that the file holds a volume mesh and not only its surface",
        )
    point = np.asarray(point, dtype=np.float64)
    tet = np.asarray(tet, dtype=np.int64)
    check_finite(point, "the points", where)
    bad = np.flatnonzero(np.any((tet < 0) | (tet >= point.shape[0]), axis=1))
    if bad.size:
        raise InputError(
            f"tetrahedron {bad[0]} names the points {tet[bad[0]].tolist()}",
            where=where,
            expected=f"indices from 0 to {point.shape[0] - 1}",
            fix="Count points from zero and keep all of them",
        )
    return point, tet


def _check_flat(
    corner: Float[np.ndarray, "m 4 3"], volume: Float[np.ndarray, " m"], where: str
) -> None:
    edge = corner[:, None, :, :] - corner[:, :, None, :]
    longest = np.sqrt(np.max(np.sum(edge**2, axis=-1), axis=(1, 2)))
    flat = np.flatnonzero(np.abs(volume) <= _FLAT * longest**3)
    if flat.size:
        raise InputError(
            f"{flat.size} tetrahedra have no volume, the first is tetrahedron {flat[0]}",
            where=where,
            expected="tetrahedra with a positive volume",
            fix="Remove or repair the flat elements in the mesh generator",
        )


def _check_connectivity(tet: Int[np.ndarray, "m 4"], n_points: int, where: str) -> None:
    used = np.zeros(n_points, dtype=np.bool_)
    used[tet] = True
    if not used.all():
        _refuse_unused(used, where)
    _, _, repeat = _groups(tet)
    face = tet[:, _FACE].reshape(-1, 3)
    first, _, count = _groups(face)
    if np.max(repeat) > 1 or np.max(count) > 2:
        n = int(np.sum(count > 2))
        raise InputError(
            f"{n} faces belong to more than two tetrahedra and {int(np.sum(repeat > 1))} "
            f"tetrahedra are repeated, near point {face[first[np.argmax(count)]][0]}",
            where=where,
            expected="faces of one or two tetrahedra, each tetrahedron once",
            fix="Remove overlapping elements in the mesh generator",
        )
    _check_one_piece(tet, n_points, where)


def _refuse_unused(used: Bool[np.ndarray, " c"], where: str) -> None:
    raise InputError(
        f"{int(np.sum(~used))} points belong to no tetrahedron, the first is point "
        f"{int(np.flatnonzero(~used)[0])}",
        where=where,
        expected="points that are all used",
        fix="Drop the unused points and renumber the tetrahedra",
    )


def _check_one_piece(tet: Int[np.ndarray, "m 4"], n_points: int, where: str) -> None:
    start, end = np.repeat(tet[:, 0], 3), tet[:, 1:].ravel()
    graph = sparse.coo_matrix((np.ones(start.size), (start, end)), (n_points, n_points))
    n, piece = sparse.csgraph.connected_components(graph, directed=False)
    if n > 1:
        size = np.sort(np.bincount(piece[tet[:, 0]], minlength=n))[::-1]
        raise InputError(
            f"the mesh falls into {n} pieces of {', '.join(str(int(s)) for s in size[:8])} "
            "tetrahedra",
            where=where,
            expected="one connected mesh",
            fix="Keep the piece of the left ventricle's wall",
        )
