"""From a case to its ventricle and its tree."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from .._misc import InputError
from ..anatomy import demo_tree, synthetic_right_coronary
from ..casefile import Case
from ..geometry import (
    ellipsoid_ventricle,
    EllipsoidLV,
    LVFrame,
    TetMesh,
    tetrahedra_from_voxels,
    VoxelMesh,
)
from ..io import (
    mesh_in_frame,
    network_in_frame,
    read_tets,
    read_voxel_labels,
    reader_of,
    to_frame,
)
from ..network import (
    branch_course,
    build_network,
    declare_lesion,
    VascularNetwork,
)
from ..units import M_PER_MM
from ._directions import directions_from_labels, directions_from_landmarks

# Everything is solved and written in one frame; NIfTI maps are turned to RAS by their writer.
FRAME = "LPS"
# Keys of the tree's section that readers of some formats take.
TREE_OPTIONS = ("radius_array", "merge_tolerance_mm", "n_roots")


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
    rv_label: int | None


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
        lv_frame = directions_from_labels(
            voxels, labels, given.landmarks, lambda: read_tree(case, data, None), where=str(file)
        )
    cavity, rv = (labels.cavity, labels.rv) if labels else (2, 3)
    if tets is None or given.mesh == "voxels":
        assert voxels is not None and lv_frame is not None
        heart = Heart(voxels, lv_frame, voxels, None, cavity, rv)
        return _cut(heart) if given.mesh == "tetrahedra" else heart
    mesh = mesh_in_frame(read_tets(data / tets.file, units=tets.units, frame=tets.frame), FRAME)
    if lv_frame is None:
        assert given.landmarks is not None
        lv_frame = directions_from_landmarks(given.landmarks, mesh)
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
    reader = reader_of(file, "tree", tree.format)
    given = tree.model_dump(include=set(TREE_OPTIONS), exclude_none=True)
    for key in set(given) - set(reader.options):
        raise InputError(
            f"a file in the format {reader.name} has no use for it",
            where=f"tree.{key}",
            expected=f"it beside centrelines only, and for {file.name} no such key",
            fix="Take it out",
        )
    names = dict(tree.branches) or None
    network = reader.use(file, units=tree.units, frame=tree.frame, branch_name=names, **given)
    if heart is not None and heart.ellipsoid is not None and network.frame == "model":
        network = dataclasses.replace(network, frame="RAS")
    return network_in_frame(network, FRAME)


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


def healthy_tree(case: Case, data: Path, heart: Heart) -> VascularNetwork:
    """The tree with synthetic vessels, without lesions."""
    network = read_tree(case, data, heart)
    if case.synthetic_rca is not None:
        assert heart.voxels is not None
        assert heart.rv_label is not None
        said = case.synthetic_rca
        ostium = None
        if said.ostium_mm is not None:
            point = np.array([said.ostium_mm]) * M_PER_MM
            ostium = to_frame(point, said.frame, heart.frame.frame)[0]
        right = synthetic_right_coronary(
            heart.voxels,
            heart.frame,
            network,
            rv_label=heart.rv_label,
            diameter_mm=(said.proximal_diameter_mm, said.distal_diameter_mm),
            n_posterolateral=said.n_posterolateral,
            gap=said.epicardium_gap_mm * M_PER_MM,
            ostium=ostium,
        )
        network = joined(network, right)
    return network


def with_lesions(case: Case, network: VascularNetwork) -> VascularNetwork:
    """The tree with its lesions; nodes keep their numbers."""
    for lesion in case.lesions:
        network = declare_lesion(network, **lesion.model_dump())
    return network


def build_tree(case: Case, data: Path, heart: Heart) -> VascularNetwork:
    """The tree with synthetic vessels and lesions."""
    return with_lesions(case, healthy_tree(case, data, heart))


def closed_outlets(case: Case, network: VascularNetwork) -> Int[np.ndarray, " k"]:
    """The leaves that `boundary.outlets` names: they feed no left ventricular tissue."""
    node = [
        outlet_node(network, outlet.branch, f"boundary.outlets.{i}.branch")
        for i, outlet in enumerate(case.boundary.outlets)
    ]
    return np.array(node, np.int64)


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
