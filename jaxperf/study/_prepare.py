"""From a case to the problem that is solved: network, regions, tissue, boundary, bed."""

import os
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf
from .._progress import Progress
from ..anatomy import terminal_sites
from ..casefile import Case, speaking
from ..coupling import Microcirculation, perfused_tissue, PerfusionProblem
from ..darcy import check_permeability, transversely_isotropic
from ..geometry import (
    aha17,
    fibre_direction,
    local_axes,
    Regions,
    terminal_regions,
    territory_of_cells,
    TetMesh,
    transmural_depth,
)
from ..network import (
    AbstractBoundary,
    FlowBoundary,
    PressureBoundary,
    ResistanceOutlet,
    VascularNetwork,
    vessel_territories,
)
from ..units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG
from ..vessel import (
    AbstractWall,
    Blood,
    ConstantViscosity,
    OlufsenStiffness,
    PriesViscosity,
    RigidWall,
    SqrtAreaWall,
)
from ._build import build_heart, closed_outlets, healthy_tree, Heart, with_lesions
from ._forest import forest_of_case, Grown, growth_problem, joined_forest


@dataclass(frozen=True)
class Prepared:
    """A case ready to be solved; lengths in m, coordinates in LPS.

    `network` is what is solved on; `tree` its segmented and drawn vessels, which come first in it;
    `grown` the forest where there is one; `problem` the heart at rest, and `boundary_hyperemia`
    what differs in hyperemia. `segment` (c,) AHA segment, `depth` (c,) transmural,
    `territory` (c,) and `terminal_territory` (t,) index `territory_name`; `closed` are the nodes
    of outlets that perfuse no tissue.
    """

    case: Case
    network: VascularNetwork
    tree: VascularNetwork
    grown: Grown | None
    heart: Heart
    regions: Regions
    problem: PerfusionProblem
    boundary_hyperemia: tuple[AbstractBoundary, ...]
    depth: Float[np.ndarray, " c"]
    segment: Int[np.ndarray, " c"]
    territory: Int[np.ndarray, " c"]
    territory_name: tuple[str, ...]
    terminal_territory: Int[np.ndarray, " t"]
    closed: Int[np.ndarray, " k"]


def case_boundary(
    case: Case, network: VascularNetwork, closed: Int[np.ndarray, " k"], pressure_mmHg: float
) -> tuple[AbstractBoundary, ...]:
    """Aortic pressure at the roots, and the outlets that the case closes."""
    inlet, pressure = network.roots, pressure_mmHg * PA_PER_MMHG
    boundary: list = [PressureBoundary(inlet, as_leaf(np.full(inlet.shape, pressure)))]
    one = lambda value: as_leaf(np.array([value]))
    for node, outlet in zip(closed.astype(np.int32), case.boundary.outlets, strict=True):
        if outlet.flow_ml_min is not None:
            leaving = outlet.flow_ml_min * M3_S_PER_ML_MIN
            boundary.append(FlowBoundary(one(node), one(-leaving)))
        else:
            assert outlet.resistance_mmHg_min_ml is not None
            resistance = outlet.resistance_mmHg_min_ml * PA_PER_MMHG / M3_S_PER_ML_MIN
            reference = outlet.pressure_reference_mmHg * PA_PER_MMHG
            boundary.append(ResistanceOutlet(one(node), one(resistance), one(reference)))
    return tuple(boundary)


def _permeability(case: Case, heart: Heart, depth: Float[np.ndarray, " c"]) -> Array:
    bed = case.microcirculation
    along = as_leaf(bed.permeability_m2_per_Pa_s)
    if bed.permeability_across_m2_per_Pa_s is None:
        return along
    axes = local_axes(heart.mesh, heart.frame, depth)
    fibre = fibre_direction(axes, depth, bed.fibre_endo_deg, bed.fibre_epi_deg)
    across = as_leaf(bed.permeability_across_m2_per_Pa_s)
    tensor = transversely_isotropic(along, across, as_leaf(fibre))
    if isinstance(heart.mesh, TetMesh):
        # fibres have no sign, so tensors are averaged over the vertices and not directions
        return jnp.mean(tensor[jnp.asarray(heart.mesh.tet)], axis=1)
    return tensor


def _blood(case: Case) -> Blood:
    blood = case.blood
    if blood.viscosity == "pries":
        law = PriesViscosity(blood.haematocrit, blood.plasma_viscosity_mPa_s * 1e-3)
    else:
        law = ConstantViscosity(blood.viscosity_mPa_s * 1e-3)
    return Blood(blood.density_kg_m3, law, blood.profile_exponent)


def _wall(case: Case) -> AbstractWall:
    if case.wall.law == "rigid":
        return RigidWall()
    stiffness = OlufsenStiffness(case.wall.k1_Pa, case.wall.k2_per_m, case.wall.k3_Pa)
    return SqrtAreaWall(stiffness, case.wall.pressure_reference_mmHg * PA_PER_MMHG)


def build_regions(
    case: Case,
    network: VascularNetwork,
    heart: Heart,
    terminal: Int[np.ndarray, " t"],
    n_nodes_tree: int,
) -> Regions:
    """The terminal regions of a case.

    Segmented vessels perfuse what lies along them as far as the case says. Grown ones, which
    come after the tree's `n_nodes_tree` nodes, reach all of the wall and perfuse what lies about
    their ends.
    """
    reach = np.where(terminal < n_nodes_tree, case.territories.vessel_sites_mm * M_PER_MM, 0.0)
    site, owner, width = terminal_sites(network, terminal, reach)
    return terminal_regions(heart.mesh, site, owner, width, len(terminal))


@speaking()
def prepare_case(case: Case, data: str | os.PathLike, progress: Progress) -> Prepared:
    """Read, build and grow everything a solve needs.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.casefile.load_case(jp.jobs.write_starter("heart", spacing_mm=5.0))
    prepared = jp.study.prepare_case(case, "heart", jp.Progress())
    print(prepared.problem.network.n_segments, prepared.segment.size)
    ```
    """
    data = Path(data)
    with progress.stage("read"):
        heart = build_heart(case, data)
        healthy = healthy_tree(case, data, heart)
        closed = closed_outlets(case, healthy)
        tree = with_lesions(case, healthy)
    with progress.stage("mesh"):
        depth = transmural_depth(
            heart.mesh, heart.frame, cavity_label=heart.cavity_label, rv_label=heart.rv_label
        )
        segment = aha17(heart.mesh.centre, heart.frame)
    grown = None
    if case.growth is not None:
        problem = growth_problem(case, healthy, heart, depth)
        grown = joined_forest(tree, forest_of_case(case, data, problem, progress))
    with progress.stage("territories"):
        network = tree if grown is None else grown.network
        terminal = np.setdiff1d(np.asarray(network.terminals), closed)
        regions = build_regions(case, network, heart, terminal, tree.n_nodes)
        names, owner = vessel_territories(network, terminal)
        return Prepared(
            case=case,
            network=network,
            tree=tree,
            grown=grown,
            heart=heart,
            regions=regions,
            problem=_perfusion(case, network, heart, regions, terminal, closed, depth),
            boundary_hyperemia=case_boundary(
                case, network, closed, case.boundary.pressure_at("hyperemia")
            ),
            depth=depth,
            segment=segment,
            territory=territory_of_cells(regions, owner, heart.mesh.n_cells),
            territory_name=names,
            terminal_territory=owner,
            closed=closed,
        )


def _perfusion(
    case: Case,
    network: VascularNetwork,
    heart: Heart,
    regions: Regions,
    terminal: Int[np.ndarray, " t"],
    closed: Int[np.ndarray, " o"],
    depth: Float[np.ndarray, " c"],
) -> PerfusionProblem:
    bed = case.microcirculation
    permeability = _permeability(case, heart, depth)
    tissue = perfused_tissue(
        heart.mesh,
        regions,
        terminal,
        density=bed.density_kg_m3,
        full_tensor=permeability.ndim == 3,
    )
    check_permeability(tissue.mesh, np.asarray(permeability), "microcirculation.permeability")
    sink = bed.pressure_sink_mmHg * PA_PER_MMHG
    # conductances of about 1 ml/min/g: a start for the calibration, never a result
    start = Microcirculation(1.7e-6, 8.7e-6, permeability, sink, 1.0)
    boundary = case_boundary(case, network, closed, case.boundary.pressure_at("rest"))
    return PerfusionProblem(network, tissue, boundary, start, None, _blood(case), _wall(case))
