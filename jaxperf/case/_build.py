"""From a case to its network, mesh, ventricular directions, tissue and problem."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._misc import InputError
from .._units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG
from ..coupling import Microcirculation, perfused_tissue, PerfusionProblem
from ..darcy import check_permeability, transversely_isotropic
from ..geometry import (
    aha17,
    ellipsoid_ventricle,
    EllipsoidLV,
    fibre_direction,
    local_axes,
    lv_frame_from_labels,
    lv_frame_from_points,
    LVFrame,
    Regions,
    terminal_regions,
    territory_of_cells,
    TetMesh,
    tetrahedra_from_voxels,
    transmural_depth,
    VoxelMesh,
)
from ..io import (
    mesh_in_frame,
    network_in_frame,
    read_centerlines,
    read_svoned,
    read_swc,
    read_tets,
    read_voxel_labels,
    to_frame,
)
from ..network import (
    branch_course,
    build_network,
    declare_lesion,
    FlowBoundary,
    PressureBoundary,
    ResistanceOutlet,
    VascularNetwork,
    vessel_territories,
)
from ..vessel import (
    AbstractWall,
    Blood,
    ConstantViscosity,
    OlufsenStiffness,
    PriesViscosity,
    RigidWall,
    SqrtAreaWall,
)
from ._demo import demo_tree
from ._grooves import synthetic_right_coronary
from ._schema import Case
from ._terminals import terminal_sites

# Everything is solved and written in one frame; NIfTI maps are turned to RAS by their writer.
FRAME = "LPS"


@dataclass(frozen=True)
class Heart:
    """The ventricle of a case.

    `mesh` is what Darcy is solved on; `voxels` the labelled grid where there is one (also where
    tetrahedra are solved on); `ellipsoid` the closed form of a built ventricle, in its own frame.
    """

    mesh: VoxelMesh | TetMesh
    frame: LVFrame
    voxels: VoxelMesh | None
    ellipsoid: EllipsoidLV | None
    cavity_label: int
    rv_label: int


@dataclass(frozen=True)
class Prepared:
    """A case ready to be solved; lengths in m, coordinates in LPS.

    `segment` (c,) AHA segment, `depth` (c,) transmural, `territory` (c,) index into
    `territory_name`, `terminal_branch` (t,) index into the network's branches.
    """

    case: Case
    network: VascularNetwork
    heart: Heart
    regions: Regions
    problem: PerfusionProblem
    depth: Float[np.ndarray, " c"]
    segment: Int[np.ndarray, " c"]
    territory: Int[np.ndarray, " c"]
    territory_name: tuple[str, ...]
    terminal_territory: Int[np.ndarray, " t"]


def build_heart(case: Case, data: Path) -> Heart:
    """Read or build the ventricle of a case."""
    given = case.ventricle
    if given.ellipsoid is not None:
        mesh, frame, ellipsoid = ellipsoid_ventricle(**given.ellipsoid.model_dump())
        voxels = voxels_in_patient(mesh)
        heart = Heart(voxels, _frame_in_patient(frame), voxels, ellipsoid, 2, 3)
        return _cut(heart) if given.mesh == "tetrahedra" else heart
    voxels, labels, tets = None, given.labels, given.tetrahedra
    lv_frame = None
    if labels is not None:
        file = data / labels.file
        voxels = read_voxel_labels(
            file,
            label=labels.wall,
            cavity_label=labels.cavity,
            rv_label=labels.rv,
            frame=FRAME,
            units=labels.units,
            largest_piece=labels.largest_piece,
        )
        lv_frame = lv_frame_from_labels(
            voxels, cavity_label=labels.cavity, rv_label=labels.rv, where=str(file)
        )
    cavity, rv = (labels.cavity, labels.rv) if labels else (2, 3)
    if tets is None or given.mesh == "voxels":
        assert voxels is not None and lv_frame is not None
        heart = Heart(voxels, lv_frame, voxels, None, cavity, rv)
        return _cut(heart) if given.mesh == "tetrahedra" else heart
    mesh = mesh_in_frame(read_tets(data / tets.file, units=tets.units, frame=tets.frame), FRAME)
    if lv_frame is None:
        marks = tets.landmarks
        assert marks is not None
        points = np.array([marks.apex_mm, marks.base_mm, marks.rv_mm]) * M_PER_MM
        apex, base, right = to_frame(points, marks.frame, FRAME)
        lv_frame = lv_frame_from_points(
            apex, base, right, frame=FRAME, where="ventricle.tetrahedra.landmarks"
        )
    return Heart(mesh, lv_frame, voxels, None, cavity, rv)


def _cut(heart: Heart) -> Heart:
    assert isinstance(heart.mesh, VoxelMesh)
    return dataclasses.replace(heart, mesh=tetrahedra_from_voxels(heart.mesh))


def voxels_in_patient(mesh: VoxelMesh) -> VoxelMesh:
    """A built heart placed in patient coordinates: its septum to the right, its base upwards."""
    turned = mesh_in_frame(dataclasses.replace(mesh, frame="RAS"), FRAME)
    assert isinstance(turned, VoxelMesh)
    return turned


def _frame_in_patient(frame: LVFrame) -> LVFrame:
    names = ("apex", "base_centre", "long_axis", "septal", "anterior")
    turned = {name: to_frame(getattr(frame, name), "RAS", FRAME) for name in names}
    return LVFrame(**turned, frame=FRAME)


def read_tree(case: Case, data: Path, heart: Heart | None) -> VascularNetwork:
    """Read or build the tree of a case as the file has it, in LPS, without synthetic vessels."""
    tree = case.tree
    if tree.built_in is not None:
        assert heart is not None and heart.ellipsoid is not None
        network = demo_tree(heart.ellipsoid)
        return network_in_frame(dataclasses.replace(network, frame="RAS"), FRAME)
    assert tree.file is not None and tree.units is not None and tree.frame is not None
    file = data / tree.file
    kind = tree.format or _format_of(file)
    names = dict(tree.branches) or None
    if kind == "swc":
        network = read_swc(file, units=tree.units, frame=tree.frame, branch_name=names)
    elif kind == "centerlines":
        network = read_centerlines(
            file, units=tree.units, frame=tree.frame, branch_name=names, n_roots=tree.n_roots
        )
    else:
        if tree.units != "cm":
            raise InputError(
                f"units is {tree.units!r}",
                where="tree.units",
                expected="cm: svOneDSolver files are in centimetre, gram, second",
                fix="Write units: cm",
            )
        renamed = {str(key): name for key, name in tree.branches.items()} or None
        network = read_svoned(file, frame=tree.frame, branch_name=renamed).network
    if heart is not None and heart.ellipsoid is not None and network.frame == "model":
        network = dataclasses.replace(network, frame="RAS")
    return network_in_frame(network, FRAME)


def _format_of(file: Path) -> str:
    kind = {".swc": "swc", ".vtp": "centerlines", ".in": "svoned"}.get(file.suffix.lower())
    if kind is None:
        raise InputError(
            f"the format of {file.name} does not follow from its suffix",
            where="tree.format",
            expected=".swc, .vtp or .in, or the key `format`",
            fix="State format: swc, centerlines or svoned",
        )
    return kind


def joined(first: VascularNetwork, second: VascularNetwork) -> VascularNetwork:
    """Two lesion-free networks as one with the roots of both."""
    shift = first.n_nodes
    stack = lambda name: np.concatenate(
        [np.asarray(getattr(first, name)), np.asarray(getattr(second, name))]
    )
    taken = set(first.branch_name) & set(second.branch_name)
    if taken:
        raise InputError(
            f"both trees have a branch {sorted(taken)[0]!r}",
            where="tree.branches",
            expected="names of their own",
            fix="Rename the branch of the tree's file",
        )
    return build_network(
        stack("node_position"),
        np.concatenate(
            [np.asarray(first.segment_node), np.asarray(second.segment_node) + shift]
        ).astype(np.int64),
        stack("radius"),
        length=stack("length"),
        root=np.concatenate([np.asarray(first.roots), np.asarray(second.roots) + shift]),
        frame=first.frame,
        branch=np.concatenate(
            [np.asarray(first.branch), np.asarray(second.branch) + len(first.branch_name)]
        ),
        branch_name=first.branch_name + second.branch_name,
    )


def build_tree(case: Case, data: Path, heart: Heart) -> VascularNetwork:
    """The tree with synthetic vessels and lesions."""
    network = read_tree(case, data, heart)
    if case.synthetic_rca is not None:
        assert heart.voxels is not None
        right = synthetic_right_coronary(
            case.synthetic_rca, heart.voxels, heart.frame, network, rv_label=heart.rv_label
        )
        network = joined(network, right)
    for lesion in case.lesions:
        network = declare_lesion(network, **lesion.model_dump())
    return network


def outlet_node(network: VascularNetwork, branch: str, where: str) -> int:
    """The leaf in which a branch ends."""
    course, _ = branch_course(network, branch)
    node = int(np.asarray(network.segment_node)[course[-1], 1])
    if node not in np.asarray(network.terminals):
        raise InputError(
            f"branch {branch!r} does not end the tree",
            where=where,
            expected="a branch with a free end",
            fix="Name the branch that ends there",
        )
    return node


def _boundary(case: Case, network: VascularNetwork):
    inlet = jnp.asarray(network.roots)
    pressure = case.boundary.pressure_inlet_mmHg * PA_PER_MMHG
    boundary: list = [PressureBoundary(inlet, jnp.full(inlet.shape, pressure))]
    other = []
    for i, outlet in enumerate(case.boundary.outlets):
        node = outlet_node(network, outlet.branch, f"boundary.outlets.{i}.branch")
        other.append(node)
        at = jnp.asarray([node], jnp.int32)
        if outlet.flow_ml_min is not None:
            boundary.append(FlowBoundary(at, jnp.asarray([-outlet.flow_ml_min * M3_S_PER_ML_MIN])))
        else:
            assert outlet.resistance_mmHg_min_ml is not None
            resistance = outlet.resistance_mmHg_min_ml * PA_PER_MMHG / M3_S_PER_ML_MIN
            reference = outlet.pressure_reference_mmHg * PA_PER_MMHG
            boundary.append(
                ResistanceOutlet(at, jnp.asarray([resistance]), jnp.asarray([reference]))
            )
    return tuple(boundary), np.array(other, np.int64)


def _permeability(case: Case, heart: Heart, depth: Float[np.ndarray, " c"]) -> Array:
    bed = case.microcirculation
    along = jnp.asarray(bed.permeability_m2_per_Pa_s)
    if bed.permeability_across_m2_per_Pa_s is None:
        return along
    assert isinstance(heart.mesh, TetMesh)
    axes = local_axes(heart.mesh, heart.frame, depth)
    fibre = fibre_direction(axes, depth, bed.fibre_endo_deg, bed.fibre_epi_deg)
    across = jnp.asarray(bed.permeability_across_m2_per_Pa_s)
    tensor = transversely_isotropic(along, across, jnp.asarray(fibre))
    # fibres have no sign, so tensors are averaged over the vertices and not directions
    return jnp.mean(tensor[jnp.asarray(heart.mesh.tet)], axis=1)


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
    case: Case, network: VascularNetwork, heart: Heart, terminal: Int[np.ndarray, " t"]
) -> Regions:
    """The terminal regions of a case."""
    reach = case.territories.vessel_sites_mm * M_PER_MM
    site, owner, width = terminal_sites(network, terminal, reach)
    return terminal_regions(heart.mesh, site, owner, width, len(terminal))


def prepare(case: Case, data: str | os.PathLike, stage) -> Prepared:
    """Read and build everything a solve needs; `stage(name)` is a context for progress."""
    data = Path(data)
    with stage("read"):
        heart = build_heart(case, data)
        network = build_tree(case, data, heart)
    with stage("mesh"):
        depth = transmural_depth(
            heart.mesh, heart.frame, cavity_label=heart.cavity_label, rv_label=heart.rv_label
        )
        segment = aha17(heart.mesh.centre, heart.frame)
    with stage("territories"):
        boundary, other = _boundary(case, network)
        terminal = np.setdiff1d(np.asarray(network.terminals), other)
        regions = build_regions(case, network, heart, terminal)
        names, owner = vessel_territories(network, terminal)
        permeability = _permeability(case, heart, depth)
        tissue = perfused_tissue(
            heart.mesh, regions, terminal, density=case.microcirculation.density_kg_m3
        )
        check_permeability(tissue.mesh, np.asarray(permeability), "microcirculation.permeability")
        sink = case.microcirculation.pressure_sink_mmHg * PA_PER_MMHG
        # conductances of about 1 ml/min/g: a start for the calibration, never a result
        bed = Microcirculation(1.7e-6, 8.7e-6, permeability, sink, 1.0)
        problem = PerfusionProblem(network, tissue, boundary, bed, None, _blood(case), _wall(case))
    return Prepared(
        case=case,
        network=network,
        heart=heart,
        regions=regions,
        problem=problem,
        depth=depth,
        segment=segment,
        territory=territory_of_cells(regions, owner, heart.mesh.n_cells),
        territory_name=names,
        terminal_territory=owner,
    )
