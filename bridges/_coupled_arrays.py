"""The raw arrays of a perfusion problem, as the torch reference takes them."""

from jaxperf._misc import InputError
from jaxperf.coupling import PerfusionProblem
from jaxperf.darcy import VoxelTensorDarcyMesh
from jaxperf.geometry import TetMesh, VoxelMesh

from ._darcy_arrays import reference_mesh
from ._steady_arrays import (
    reference_blood,
    reference_boundary,
    reference_network,
    reference_wall,
    to_tensor,
)
from .reference import _coupled as coupled


def reference_perfusion(
    problem: PerfusionProblem, mesh: VoxelMesh | TetMesh
) -> coupled.PerfusionProblem:
    """A perfusion problem as tensors, for `bridges.reference.solve_perfusion`.

    **Arguments:** `mesh`, the geometry from which the problem's tissue was prepared: the prepared
    mesh does not keep it.

    **Returns:** raw arrays and laws. Of what jaxperf has computed only the overlaps of terminal
    regions and control volumes are taken over, which are geometry.

    **Errors:** `InputError` for another mesh than the tissue's, and as `reference_steady`.
    """
    tissue, bed, law = problem.tissue, problem.microcirculation, problem.autoregulation
    if mesh.n_cells != tissue.n_cells:
        raise InputError(
            f"the mesh has {mesh.n_cells} control volumes, the tissue {tissue.n_cells}",
            where="reference_perfusion",
            expected="the mesh from which the tissue was prepared",
            fix="Pass the mesh that went into perfused_tissue",
        )
    full_tensor = isinstance(tissue.mesh, VoxelTensorDarcyMesh)
    regulation = None
    if law is not None:
        regulation = coupled.Autoregulation(
            flow_target=to_tensor(law.flow_target),
            dilation_max=to_tensor(law.dilation_max),
            dilation_min=to_tensor(law.dilation_min),
            sharpness=law.sharpness,
        )
    return coupled.PerfusionProblem(
        network=reference_network(problem.network),
        boundary=reference_boundary(problem.boundary),
        blood=reference_blood(problem.blood),
        wall=reference_wall(problem.wall),
        tissue=coupled.Tissue(
            mesh=reference_mesh(mesh, full_tensor=full_tensor),
            terminal_node=to_tensor(tissue.terminal_node),
            cell=to_tensor(tissue.cell),
            terminal=to_tensor(tissue.terminal),
            overlap=to_tensor(tissue.overlap),
            density=to_tensor(tissue.density),
        ),
        microcirculation=coupled.Microcirculation(
            beta_source=to_tensor(bed.beta_source),
            beta_sink=to_tensor(bed.beta_sink),
            permeability=to_tensor(bed.permeability),
            pressure_sink=to_tensor(bed.pressure_sink),
            dilation=to_tensor(bed.dilation),
        ),
        autoregulation=regulation,
    )
