"""The problems of the Darcy benchmark: the wall of an ellipsoid at hyperemia, on any mesh."""

from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyvista
import scipy.sparse as sp

from jaxperf.darcy import AbstractDarcyMesh, darcy_mesh, darcy_operator, DarcyProblem, solve_darcy
from jaxperf.geometry import ellipsoid_ventricle, TetMesh, tetrahedra_from_surface, VoxelMesh

# Of the wall at hyperemia: mobility m²/(Pa·s), exchange 1/(Pa·s).
PERMEABILITY, BETA = 2e-9, 3.75 * (1.74e-6 + 8.75e-6)
_WALL = 1.25e-4  # m³, about, of the ellipsoid's wall
_NODES_OF_SURFACE = 0.7


@dataclass(frozen=True)
class Case:
    """A problem on a mesh, and the same matrix for others."""

    name: str
    mesh: AbstractDarcyMesh
    problem: DarcyProblem
    permeability: Any
    matrix: Any = field(repr=False)

    @property
    def n(self) -> int:
        return self.mesh.graph.n_cells

    @property
    def right(self) -> np.ndarray:
        return np.asarray(self.problem.source)


def voxels(number: float) -> VoxelMesh:
    """About so many voxels in the wall."""
    return ellipsoid_ventricle(spacing_mm=1e3 * (_WALL / number) ** (1 / 3))[0]


def tetrahedra(edge: float) -> TetMesh:
    """The wall in tetrahedra of this edge (m), from its surface as a contour of finer voxels."""
    mesh, _, _ = ellipsoid_ventricle(spacing_mm=1e3 * _NODES_OF_SURFACE * edge)
    inside = np.pad((mesh.label == mesh.wall_label).astype(np.float32), 2)
    spacing = tuple(float(s) for s in mesh.spacing)
    image = pyvista.ImageData(dimensions=inside.shape, spacing=spacing)
    image["wall"] = inside.ravel(order="F")
    surface = image.contour([0.5], scalars="wall").smooth_taubin(n_iter=40, pass_band=0.1).clean()
    triangle = surface.faces.reshape(-1, 4)[:, 1:].astype(np.int64)
    point = np.asarray(surface.points, np.float64)
    return tetrahedra_from_surface(point, triangle, edge_length=edge, frame="model")


def wall_case(name: str, mesh: VoxelMesh | TetMesh) -> Case:
    """Permeability varies smoothly by a factor of about 7, the source by place."""
    prepared = darcy_mesh(mesh)
    wave = lambda x: np.sin(180.0 * x[:, 0]) + np.cos(140.0 * x[:, 2])
    at = mesh.centre if isinstance(mesh, VoxelMesh) else mesh.point[mesh.tet].mean(axis=1)
    permeability = jnp.asarray(PERMEABILITY * np.exp(0.5 * wave(at)))
    source = jnp.asarray(mesh.volume * BETA * 12e3 * (1.0 + 0.5 * np.tanh(wave(mesh.centre))))
    sink = jnp.asarray(BETA * mesh.volume)
    operator = darcy_operator(prepared.graph, prepared.transmissibility(permeability), sink)
    return Case(name, prepared, DarcyProblem(operator, source), permeability, _matrix(operator))


def _matrix(operator) -> sp.csr_matrix:
    edge, t = np.asarray(operator.graph.edge), np.asarray(operator.transmissibility)
    n = operator.graph.n_cells
    ends = np.concatenate([edge, edge[:, ::-1]]).T
    off = sp.csr_matrix((np.tile(-t, 2), tuple(ends)), shape=(n, n))
    return (off + sp.diags(np.asarray(operator.diagonal))).tocsr()


# ---------------------------------------------------------------- what is timed


@eqx.filter_jit
def run(problem: DarcyProblem, method):
    """The set-up for these coefficients, and the solve."""
    return solve_darcy(problem, method, throw=False)


@eqx.filter_jit
def run_updated(mesh, permeability, problem: DarcyProblem, method):
    """The solve that follows a change of K: transmissibilities, refit and solve."""
    transmissibility = mesh.transmissibility(permeability)
    operator = darcy_operator(mesh.graph, transmissibility, problem.operator.sink)
    return solve_darcy(DarcyProblem(operator, problem.source), method, throw=False)


@eqx.filter_jit
def prepare(problem: DarcyProblem, method):
    """What a solver makes of the coefficients."""
    return method.init(problem.operator)


@eqx.filter_jit
def run_prepared(problem: DarcyProblem, method, state):
    """The solve alone."""
    return method.solve(state, problem.source)


@eqx.filter_jit
def value(permeability, mesh, problem: DarcyProblem, method):
    """A functional of the pressure that follows from K."""
    found = run_updated(mesh, permeability, problem, method)
    return jnp.sum(found.pressure_tissue**2 * mesh.graph.volume)


@eqx.filter_jit
def value_and_gradient(permeability, mesh, problem: DarcyProblem, method):
    """And its derivative in K."""
    return jax.value_and_grad(lambda k: value(k, mesh, problem, method))(permeability)
