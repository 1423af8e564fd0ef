"""Uniform refinement of tetrahedra, and how well they are shaped."""

import itertools

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ._tet import build_tet_mesh, TetMesh

_EDGE = np.array(list(itertools.combinations(range(4), 2)))
# Edges 0 to 5 are 01, 02, 03, 12, 13, 23. The corners keep a tetrahedron each, with the middles
# of their three edges.
_CORNER_EDGES = np.array([[0, 1, 2], [0, 3, 4], [1, 3, 5], [2, 4, 5]])
# The octahedron left has three diagonals, the middles of opposite edges; around each of them four
# tetrahedra.
_DIAGONAL = np.array([[0, 5], [1, 4], [2, 3]])
_AROUND = np.array(
    [
        [[*_DIAGONAL[d], ring[i], ring[(i + 1) % 4]] for i in range(4)]
        for d in range(3)
        for ring in [np.array(_DIAGONAL[[e for e in range(3) if e != d]]).T.ravel()]
    ]
)


def refine_tetrahedra(mesh: TetMesh) -> TetMesh:
    """Every tetrahedron in eight of equal volume, edges halved.

    The inner octahedron is cut along its shortest diagonal, so that repeated refinement does not
    flatten the tetrahedra. The surface stays as it is: no point moves to a curved one.

    **Arguments:**

    - `mesh`: a [`jaxperf.geometry.TetMesh`][]; its vertices keep their numbers.

    **Returns:** a [`jaxperf.geometry.TetMesh`][].

    **Source:** S. Zhang (1995), Successive subdivisions of tetrahedra, Houston J Math 21:541.

    **Example:**

    ```python
    import jaxperf as jp
    fine = jp.geometry.refine_tetrahedra(jp.geometry.kuhn_tetrahedra(2))
    ```
    """
    ends = np.sort(mesh.tet[:, _EDGE], axis=2)
    code, middle = np.unique(ends @ np.array([mesh.n_cells, 1]), return_inverse=True)
    middle = middle.reshape(-1, 6) + mesh.n_cells
    first, second = code // mesh.n_cells, code % mesh.n_cells
    point = np.concatenate([mesh.point, 0.5 * (mesh.point[first] + mesh.point[second])])
    corners = np.concatenate([mesh.tet[:, :, None], middle[:, _CORNER_EDGES]], axis=2)
    diagonal = point[middle[:, _DIAGONAL[:, 0]]] - point[middle[:, _DIAGONAL[:, 1]]]
    shortest = np.argmin(np.sum(diagonal**2, axis=2), axis=1)
    inner = np.take_along_axis(middle, _AROUND[shortest].reshape(-1, 16), axis=1).reshape(-1, 4, 4)
    tet = np.concatenate([corners, inner], axis=1).reshape(-1, 4)
    return build_tet_mesh(point, tet, frame=mesh.frame, where="refine_tetrahedra")


class MeshQuality(eqx.Module):
    """Percentiles of the shapes and sizes of tetrahedra; made by
    [`jaxperf.geometry.mesh_quality`][].

    - `percent`: (k,), the percentiles below.
    - `least_dihedral`, `largest_dihedral`: (k,), over tetrahedra, degrees; 70.5 for a regular one.
    - `radius_ratio`: (k,), three times inscribed over circumscribed radius; 1 for a regular one.
    - `edge_length`: (k,), over edges, each once, m.
    - `volume`: (k,), over tetrahedra, m³.
    """

    percent: Float[np.ndarray, " k"]
    least_dihedral: Float[np.ndarray, " k"]
    largest_dihedral: Float[np.ndarray, " k"]
    radius_ratio: Float[np.ndarray, " k"]
    edge_length: Float[np.ndarray, " k"]
    volume: Float[np.ndarray, " k"]


def mesh_quality(
    mesh: TetMesh, percent: tuple[float, ...] = (0.0, 1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 100.0)
) -> MeshQuality:
    """Shapes and sizes of a mesh's tetrahedra.

    **Arguments:**

    - `mesh`: a [`jaxperf.geometry.TetMesh`][].
    - `percent`: percentiles, 0 the least and 100 the largest.

    **Returns:** a [`jaxperf.geometry.MeshQuality`][].

    **Example:**

    ```python
    import jaxperf as jp
    print(jp.geometry.mesh_quality(jp.geometry.kuhn_tetrahedra(2)))
    ```
    """
    corner = mesh.point[mesh.tet]
    dihedral = _dihedral(corner)
    ends = np.unique(np.sort(mesh.tet[:, _EDGE], axis=2).reshape(-1, 2), axis=0)
    edge = np.linalg.norm(mesh.point[ends[:, 0]] - mesh.point[ends[:, 1]], axis=1)
    of = lambda value: np.percentile(value, percent)
    return MeshQuality(
        percent=np.asarray(percent, dtype=np.float64),
        least_dihedral=of(dihedral.min(axis=1)),
        largest_dihedral=of(dihedral.max(axis=1)),
        radius_ratio=of(_radius_ratio(corner)),
        edge_length=of(edge),
        volume=of(mesh.tet_volume),
    )


def _barycentric_gradient(corner: Float[np.ndarray, "m 4 3"]) -> Float[np.ndarray, "m 4 3"]:
    inverse = np.linalg.inv(np.swapaxes(corner[:, 1:] - corner[:, :1], 1, 2))
    return np.concatenate([-inverse.sum(axis=1, keepdims=True), inverse], axis=1)


def _dihedral(corner: Float[np.ndarray, "m 4 3"]) -> Float[np.ndarray, "m 6"]:
    """Angles between faces, degrees: gradients of barycentric coordinates are normal to them."""
    gradient = _barycentric_gradient(corner)
    normal = gradient / np.linalg.norm(gradient, axis=2, keepdims=True)
    cosine = -np.einsum("med,med->me", normal[:, _EDGE[:, 0]], normal[:, _EDGE[:, 1]])
    return np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))


def _radius_ratio(corner: Float[np.ndarray, "m 4 3"]) -> Float[np.ndarray, " m"]:
    """3 r/R with r = 1/Σ|∇λ| and R the distance of a vertex from the circumcentre."""
    inscribed = 1.0 / np.linalg.norm(_barycentric_gradient(corner), axis=2).sum(axis=1)
    side = corner[:, 1:] - corner[:, :1]
    centre = np.linalg.solve(2.0 * side, np.sum(side**2, axis=2)[..., None])[..., 0]
    return 3.0 * inscribed / np.linalg.norm(centre, axis=1)
