"""The composite case: a real left coronary tree, another subject's ventricle, a synthetic rest.

The left tree and the ventricle are reference data (two different subjects). The right coronary
is drawn along the grooves and the forest is grown, both by the library and from the case file of
the examples, so that a benchmark measures what `jaxperf run` runs.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from jaxperf._progress import Progress
from jaxperf.casefile import Case, load_case
from jaxperf.coupling import PerfusionProblem
from jaxperf.study import prepare_case

AORTIC_MMHG = 93.0
TERRITORY = ("LAD", "LCx", "RCA")
LESION = {"branch": "LAD", "start_mm": 7.0, "end_mm": 17.0, "diameter_reduction": 0.0}
_CASE = Path(__file__).resolve().parents[1] / "examples" / "composite.yaml"
_LABELS = "lv_patient/heart_labels.nii.gz"


class MissingData(Exception):
    """The reference data are not there."""


@dataclass(frozen=True)
class Composite:
    """A problem, its mesh and the territory of every terminal, an index into `TERRITORY`."""

    problem: PerfusionProblem
    mesh: object
    terminal_territory: np.ndarray
    lesion_segment: np.ndarray
    description: str


def reference_data(data: Path) -> Path:
    """The folder of reference data, or [`MissingData`][] that says what is missing."""
    for name in ("composite/tree_registered.swc", _LABELS):
        if not (data / name).is_file():
            raise MissingData(
                f"{data / name} is not there. This benchmark measures the composite case and "
                "needs the reference data: name their folder with --data or JAXPERF_DATA."
            )
    return data


@contextmanager
def composite_file(data: Path, coarsen: float) -> Iterator[Case]:
    """The composite case; with `coarsen`, on voxels so many times as wide along each axis.

    The other labels are a file that lives as long as the block.
    """
    case = load_case(_CASE)
    if coarsen == 1:
        yield case
        return
    with tempfile.TemporaryDirectory() as folder:
        given = nib.loadsave.load(data / _LABELS)
        affine = given.affine.copy()  # pyright: ignore[reportAttributeAccessIssue]
        label = np.asarray(given.dataobj)  # pyright: ignore[reportAttributeAccessIssue]
        # The middle of each new voxel lies in an old one, whose label it takes.
        middle = [np.arange(0.0, n - 0.5, coarsen) for n in label.shape]
        label = label[np.ix_(*(np.rint(at).astype(int) for at in middle))]
        affine[:3, :3] *= coarsen
        image = nib.nifti1.Nifti1Image(label, affine)
        image.header.set_xyzt_units("mm")
        file = Path(folder) / "labels.nii.gz"
        nib.loadsave.save(image, file)
        yield changed(case, ventricle={"labels": {"file": str(file), "largest_piece": True}})


def changed(case: Case, **sections) -> Case:
    """A case with other values of some keys, checked again."""
    return Case.model_validate(_merged(case.model_dump(), sections))


def _merged(old, new):
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return new
    return old | {key: _merged(old.get(key), value) for key, value in new.items()}


def composite_case(
    data: Path,
    *,
    n_terminals: int,
    coarsen: float = 1,
    tetrahedra: bool = False,
    exponent: float = 2.7,
    seed: int = 0,
) -> Composite:
    """Build the composite; `n_terminals` 0 leaves the segmented outlets as terminals."""
    growth = {"n_terminals": n_terminals, "exponent": exponent, "seed": seed}
    with composite_file(data, coarsen) as case:
        case = changed(
            case,
            lesions=[LESION],
            growth=growth if n_terminals else None,
            ventricle={"mesh": "tetrahedra" if tetrahedra else "voxels"},
        )
        prepared = prepare_case(case, data, Progress())
    mesh, network, grown = prepared.heart.mesh, prepared.network, prepared.grown
    plain = [name.removesuffix(" (synthetic)") for name in prepared.territory_name]
    index = np.array([TERRITORY.index(name) for name in plain])
    if grown is None:
        roots = f"{len(prepared.terminal_territory)} segmented and synthetic outlets"
    else:
        roots = f"{grown.forest.n_trees} trees of {grown.forest.n_terminals} terminals"
    cells = "tetrahedron vertices" if tetrahedra else "voxels"
    return Composite(
        prepared.problem,
        mesh,
        index[prepared.terminal_territory],
        np.asarray(network.lesion.segment),
        f"{roots}, {network.n_segments} segments, {mesh.n_cells} {cells}",
    )
