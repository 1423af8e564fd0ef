"""Tetrahedra inside a closed surface, by tetgen."""

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_array
from scipy.sparse.csgraph import reverse_cuthill_mckee

from .._misc import InputError
from ._surface import closed_surface
from ._tet import build_tet_mesh, TetMesh

# Largest volume in cubed wanted edges. A regular tetrahedron has 0.118; tetgen stays well below
# its bound, and with this one the median edge is the wanted one within a tenth.
_LARGEST_VOLUME = 0.2

# In a process of its own: tetgen writes the facets it skips into the working directory, prints,
# and may end the process on surfaces that cut themselves.
_PROGRAM = """
import sys, numpy as np, tetgen
given = np.load("surface.npz")
point, tet, *_ = tetgen.TetGen(given["point"], given["triangle"]).tetrahedralize(
    plc=True, quality=True, minratio=1.4, mindihedral=10.0, fixedvolume=True,
    maxvolume=float(sys.argv[1]), steinerleft=-1, quiet=True,
)
np.savez("volume.npz", point=point, tet=tet)
"""


def tetrahedra_from_surface(
    point: Float[np.ndarray, "p 3"],
    triangle: Int[np.ndarray, "f 3"],
    *,
    edge_length: float,
    frame: str,
    where: str = "closed surface",
) -> TetMesh:
    """The wall inside a closed surface as tetrahedra that follow the surface.

    Quality-constrained Delaunay tetrahedra. Triangles longer than `edge_length` are divided where
    the tetrahedra on them are too large; finer ones are kept and make finer tetrahedra, so a
    surface much finer than `edge_length` is better coarsened first. A few slivers may
    remain: see [`jaxperf.geometry.mesh_quality`][].

    Needs the optional package tetgen, `pip install jaxperf[mesh]`. It is licensed under the AGPL,
    which binds those who distribute it or offer it as a service; nothing of it is in this package.

    **Arguments:**

    - `point`: (p, 3), m; `triangle`: (f, 3), indices of points, any orientation. Surfaces inside
      one another bound holes.
    - `edge_length`: wanted median length of edges, m.
    - `frame`: "LPS", "RAS" or "model".
    - `where`: the file or object that errors name.

    **Returns:** a [`jaxperf.geometry.TetMesh`][].

    **Errors:** [`InputError`][] where tetgen is missing, for a surface with open edges or one that
    cuts itself, an edge length that is not positive, and a wall in several pieces.

    **Source:** H. Si (2015), TetGen, a Delaunay-based quality tetrahedral mesh generator, ACM
    Trans Math Softw 41:11.
    """
    if importlib.util.find_spec("tetgen") is None:
        raise InputError(
            "tetgen is not installed",
            where="tetrahedra_from_surface",
            expected="the optional package tetgen",
            fix="Install it (pip install jaxperf[mesh]), or cut voxels (tetrahedra_from_voxels)",
        )
    if not (np.isfinite(edge_length) and edge_length > 0):
        raise InputError(
            f"the edge length is {edge_length} m",
            where="tetrahedra_from_surface",
            expected="a positive length",
            fix="Give a third of the wall's thickness or less",
        )
    closed_surface(point, triangle, where)
    corner, tet = _tetgen(point, triangle, edge_length, where)
    kept = _inside(corner[tet].mean(axis=1), point, triangle, where)
    used, tet = np.unique(tet[kept], return_inverse=True)
    order, tet = nearby_order(tet.reshape(-1, 4), len(used))
    return build_tet_mesh(corner[used][order], tet, frame=frame, where=where)


def nearby_order(
    tet: Int[np.ndarray, "m 4"], n: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, "m 4"]]:
    """Number vertices so that neighbours are near in memory (Cuthill and McKee 1969).

    **Returns:** the old number of every vertex, and the tetrahedra in new ones, in their order.
    """
    if len(tet) == 0:
        return np.arange(n), tet
    row, column = np.repeat(tet, 4, axis=1).ravel(), np.tile(tet, (1, 4)).ravel()
    joined = csr_array((np.ones(len(row), bool), (row, column)), shape=(n, n))
    order = reverse_cuthill_mckee(joined, symmetric_mode=True)
    number = np.empty(n, np.int64)
    number[order] = np.arange(n)
    tet = number[tet]
    return order, tet[np.argsort(tet.min(axis=1), kind="stable")]


def _tetgen(
    point: Float[np.ndarray, "p 3"], triangle: Int[np.ndarray, "f 3"], edge: float, where: str
) -> tuple[Float[np.ndarray, "c 3"], Int[np.ndarray, "m 4"]]:
    # in wanted edges, so that no tolerance of tetgen meets small numbers
    origin = point.min(axis=0)
    with tempfile.TemporaryDirectory() as folder:
        np.savez(
            Path(folder) / "surface.npz",
            point=(point - origin) / edge,
            triangle=triangle.astype(np.int32),
        )
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(_LARGEST_VOLUME)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        skipped = any(Path(folder).glob("*_skipped*"))
        made = Path(folder) / "volume.npz"
        if done.returncode != 0 or skipped or not made.exists():
            said = [line for line in done.stderr.splitlines() if line.strip()]
            raise InputError(
                f"tetgen cannot fill the surface ({said[-1].strip() if said else 'it stopped'})",
                where=where,
                expected="a closed surface that nowhere touches or cuts itself",
                fix="Repair the surface (remove intersections and repeated points), or use voxels",
            )
        with np.load(made) as volume:
            return origin + edge * volume["point"], volume["tet"].astype(np.int64)


def _inside(
    middle: Float[np.ndarray, "m 3"],
    point: Float[np.ndarray, "p 3"],
    triangle: Int[np.ndarray, "f 3"],
    where: str,
) -> Bool[np.ndarray, " m"]:
    """Tetrahedra of the wall: those of its holes lie inside two surfaces."""
    import pyvista as pv

    surface = closed_surface(point, triangle, where)
    if int(surface.connectivity()["RegionId"].max()) == 0:
        return np.ones(len(middle), dtype=np.bool_)
    inside = pv.PolyData(middle).select_interior_points(surface, method="cell_locator")
    return np.asarray(inside["selected_points"]).astype(np.bool_)
