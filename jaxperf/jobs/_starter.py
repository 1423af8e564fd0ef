"""The demonstration as a case, and as files to start from."""

import os
from pathlib import Path

import numpy as np

from .._misc import InputError
from ..anatomy import LESION
from ..casefile import Case
from ..geometry import build_voxel_mesh, VoxelMesh
from ..io import network_in_frame, write_nifti, write_swc
from ..network import branch_course, VascularNetwork
from ..study import build_heart, read_tree

_TEMPLATE = """\
# A jaxperf case. Run it with:   jaxperf run case.yaml --out run
# Check it first with:           jaxperf check case.yaml
# All keys and their meaning:    jaxperf schema
# Units stand in the names of the keys; paths start from this file's folder (or --data).

title: {title}
kind: synthetic            # patient, synthetic, or composite (several subjects)

tree:
  file: tree.swc           # .swc, .vtp (VMTK centrelines) or .in (svOneDSolver)
  units: mm                # mandatory: unit of length of the file
  frame: RAS               # mandatory: LPS (DICOM, VTK), RAS (NIfTI)
  branches:                # row id in which a branch ends, and its name
{branches}

ventricle:
  labels:
    file: ventricle.nii.gz # label volume; its unit is in the header
    wall: 1
    cavity: 2
    rv: 3
  mesh: voxels             # or tetrahedra

# growth:                  # synthetic vessels below the resolution of the images
#   n_terminals: 6000
#   root_spacing_mm: 20    # this tree has many outlets of its own; 9 where there are few
#   file: forest.npz       # write it first: jaxperf grow case.yaml

lesions:
  - branch: {branch}
    start_mm: {start_mm}         # along the branch, from its proximal end
    end_mm: {end_mm}
    diameter_reduction: {diameter_reduction}

# flow: pulsatile          # follow the vessels over a heart beat besides; it needs the elastic wall
# wall:
#   law: elastic

boundary:
  pressure_inlet_mmHg: 93  # mean aortic pressure

microcirculation:
  mbf_rest_ml_min_g: 1.0   # mean of the lesion-free heart at rest
  hyperemia_factor: 3.75   # or mbf_hyperemia_ml_min_g
  pressure_capillary_mmHg: 15

autoregulation:
  enabled: true            # the bed holds its rest flow behind a lesion

output:
  figures: true
"""


def demo_case(spacing_mm: float = 2.5) -> Case:
    """The embedded demonstration: ellipsoidal ventricle, average tree, forest, 60 % LAD lesion.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0)
    print(case.microcirculation)
    ```
    """
    return Case.model_validate(
        {
            "title": "Demonstration",
            "kind": "synthetic",
            "tree": {"built_in": "demo"},
            "ventricle": {"ellipsoid": {"spacing_mm": spacing_mm}},
            # the outlets of this tree are roots enough, so few are wanted at the sides
            "growth": {"n_terminals": 1000, "root_spacing_mm": 20.0},
            "lesions": [LESION],
        }
    )


def write_starter(
    folder: str | os.PathLike, *, overwrite: bool = False, spacing_mm: float = 2.5
) -> Path:
    """Write `case.yaml`, `tree.swc` and `ventricle.nii.gz` of the demonstration.

    **Returns:** the path of the case file.

    **Errors:** [`InputError`][] where the folder holds files and `overwrite` is not set.

    **Example:**

    ```python
    import jaxperf as jp
    path = jp.jobs.write_starter("heart")  # heart/case.yaml
    ```
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not overwrite)):
        raise InputError(
            "it exists and is not empty",
            where=str(folder),
            expected="a new or empty folder",
            fix="Choose another folder or pass --overwrite",
        )
    folder.mkdir(parents=True, exist_ok=True)
    case = demo_case(spacing_mm)
    heart = build_heart(case, folder)
    network = network_in_frame(read_tree(case, folder, heart), "RAS")
    assert isinstance(heart.mesh, VoxelMesh)
    write_labels(folder / "ventricle.nii.gz", heart.mesh)
    row_of_node = write_swc(folder / "tree.swc", network)
    ends = branch_ends(network, row_of_node)
    names = "\n".join(f"    {row}: {name}" for row, name in ends.items())
    text = _TEMPLATE.format(title="My first case", branches=names, **LESION)
    path = folder / "case.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def write_labels(path: str | os.PathLike, mesh: VoxelMesh) -> None:
    """Write all labels of a voxel mesh as a NIfTI volume."""
    whole = build_voxel_mesh(np.ones_like(mesh.label), mesh.affine, frame=mesh.frame)
    write_nifti(path, whole, mesh.label.ravel().astype(np.float64))


def branch_ends(network: VascularNetwork, row_of_node: dict[int, int]) -> dict[int, str]:
    """The rows in which the branches of a written network end, with names, parents first."""
    distal = np.asarray(network.segment_node)[:, 1]
    return {
        row_of_node[int(distal[branch_course(network, name)[0][-1]])]: name
        for name in network.branch_name
    }
