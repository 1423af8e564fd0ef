"""The problems of the graph-network benchmark, none of which training has seen."""

import json
from collections.abc import Iterator
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from gnn_darcy import DarcyCase, Ranges, sample_case
from jaxperf.darcy import darcy_mesh, darcy_operator, DarcyProblem, transversely_isotropic
from jaxperf.geometry import (
    fibre_direction,
    local_axes,
    lv_frame_from_points,
    refine_tetrahedra,
    TetMesh,
    transmural_depth,
)
from jaxperf.io import read_tets

# Training's seeds count up from 1e7, 2e7 and 3e7.
_SEED = 5_000_000
_TERMINALS, _MEAN_PRESSURE = 200, 12e3
_MESH = "lv_patient/lv_wall_tet.vtu"


def held_out(n_tets: float, number: int, kind: str = "tet") -> DarcyCase:
    """A random case of the ellipsoid family."""
    return sample_case(_SEED + int(n_tets) + number, Ranges(), kind=kind, n_tets=n_tets)


def patient(data: Path, refinements: int = 0) -> DarcyCase | None:
    """The wall of a subject: fibres by rule, five times as permeable along them; K of log-normal
    variation, a screening length of 1 cm, and one territory in five behind a narrowing. None
    where the data are not there.
    """
    if not (data / _MESH).is_file():
        return None
    mesh = read_tets(data / _MESH, units="mm", frame="LPS")
    for _ in range(refinements):
        mesh = refine_tetrahedra(mesh)
    told = json.loads((data / "lv_patient" / "frame.json").read_text(encoding="utf-8"))
    place = lambda key: 1e-3 * np.asarray(told[key], float)
    base = place("mitral_centre_lps")
    # The RV lies on the septal side, by a distance that plays no part.
    rv = base + 0.04 * np.asarray(told["septal_dir"], float)
    frame = lv_frame_from_points(place("apex_lps"), base, rv, frame="LPS", where=_MESH)
    depth = transmural_depth(mesh, frame)
    fibre = fibre_direction(local_axes(mesh, frame, depth), depth)
    return _assembled(mesh, fibre)


def _assembled(mesh: TetMesh, fibre: np.ndarray) -> DarcyCase:
    rng = np.random.default_rng(_SEED)
    centre = mesh.point[mesh.tet].mean(axis=1)
    along = fibre[mesh.tet].mean(axis=1)
    # Where fibres of the corners cancel, the first corner's.
    length = np.linalg.norm(along, axis=1, keepdims=True)
    along = np.where(length > 0.2, along / np.maximum(length, 1e-9), fibre[mesh.tet[:, 0]])
    tensor = np.asarray(
        transversely_isotropic(jnp.asarray(5e-9), jnp.asarray(1e-9), jnp.asarray(along))
    )
    tensor = tensor * np.exp(0.5 * _waves(rng, centre))[:, None, None]
    prepared = darcy_mesh(mesh)
    beta = np.trace(tensor, axis1=1, axis2=2).mean() / 3.0 / 1e-2**2
    terminal = mesh.point[rng.choice(mesh.n_cells, _TERMINALS, replace=False)]
    owner = cKDTree(terminal).query(mesh.point)[1]
    pressure = _MEAN_PRESSURE * rng.uniform(0.9, 1.0, _TERMINALS)
    narrowed = np.argsort(np.linalg.norm(terminal - terminal[0], axis=1))[: _TERMINALS // 5]
    pressure[narrowed] *= 0.5
    volume = jnp.asarray(mesh.volume)
    permeability = jnp.asarray(tensor)
    operator = darcy_operator(
        prepared.graph, prepared.transmissibility(permeability), beta * volume
    )
    source = beta / 6.0 * volume * jnp.asarray(pressure[owner])
    return DarcyCase(
        prepared, permeability, DarcyProblem(operator, source), jnp.asarray(mesh.point)
    )


def _waves(rng: np.random.Generator, point: np.ndarray) -> np.ndarray:
    """A smooth random field of about unit deviation."""
    direction = rng.standard_normal((6, 3))
    wave = 2.0 * np.pi / rng.uniform(8e-3, 4e-2, 6)
    phase = point @ (direction / np.linalg.norm(direction, axis=1, keepdims=True)).T * wave
    return np.sqrt(2.0 / 6.0) * np.cos(phase + rng.uniform(0.0, 2.0 * np.pi, 6)).sum(axis=1)


def variations(case: DarcyCase, number: int) -> Iterator[DarcyProblem]:
    """Other problems on the mesh of a case: K and its anisotropy, exchange and source."""
    rng = np.random.default_rng([_SEED, case.point.shape[0]])
    k = np.asarray(case.permeability)
    ends = np.asarray(case.mesh.graph.edge)
    point = np.asarray(case.point)
    at = point if k.shape[0] == len(point) else _centroid(case, ends, point)
    for _ in range(number):
        field = np.exp(rng.uniform(0.0, 0.8) * _waves(rng, at))
        if k.ndim == 3:
            mean = np.trace(k, axis1=1, axis2=2)[:, None, None] / 3.0 * np.eye(3)
            share = rng.uniform(0.0, 1.0)
            varied = field[:, None, None] * (share * k + (1.0 - share) * mean)
        else:
            varied = field * k
        exchange = 10.0 ** rng.uniform(-1.0, 1.0)
        operator = case.problem.operator
        transmissibility = case.mesh.transmissibility(jnp.asarray(varied))
        changed = darcy_operator(operator.graph, transmissibility, exchange * operator.sink)
        source = np.asarray(case.problem.source) * np.exp(0.5 * _waves(rng, point))
        yield eqx.tree_at(
            lambda p: (p.operator, p.source), case.problem, (changed, jnp.asarray(source))
        )


def _centroid(case: DarcyCase, ends: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Of tetrahedra, by the ends of their edges."""
    edge = np.asarray(case.mesh.tet_edge)  # pyright: ignore[reportAttributeAccessIssue]
    return point[ends[edge]].mean(axis=(1, 2))
