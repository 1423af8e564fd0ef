"""Malformed svOneDSolver cases, label volumes and tetrahedral meshes; arguments of writers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyvista
from malformed_trees import Case, network
from sample_texts import Y_CASE

from jaxperf.geometry import build_voxel_mesh, lv_frame_from_labels, LVFrame
from jaxperf.io import (
    read_svoned,
    read_tets,
    read_voxel_labels,
    write_csv,
    write_json,
    write_nifti,
    write_perfusion,
    write_tree,
)


def svoned(old: str, new: str, **options: Any) -> Callable[[Path], Any]:
    """Read the case after a replacement in its text."""

    def use(folder: Path) -> Any:
        assert old in Y_CASE
        (folder / "case.in").write_text(Y_CASE.replace(old, new))
        return read_svoned(folder / "case.in", **options)

    return use


def line(start: str) -> str:
    """Where the message says that the line of the case which begins so stands."""
    return f"case.in:{1 + [x.startswith(start) for x in Y_CASE.splitlines()].index(True)}:"


SVONED = [
    Case("svoned empty", svoned(Y_CASE, "\n"), "case.in", "0 SEGMENT"),
    Case(
        "svoned unknown card", svoned("OUTPUT", "OUTPUTS"), line("OUTPUT"), "'OUTPUTS' is no card"
    ),
    Case("svoned include", svoned("OUTPUT TEXT", "INCLUDE a.in TRUE"), "a.in", "no such file"),
    Case("svoned bad number", svoned("NODE 1 1 0", "NODE 1 x 0"), line("NODE 1"), "'x'"),
    Case(
        "svoned NaN number", svoned("a_1 1 1.5", "a_1 1 nan"), line("SEGMENT a_1"), "finite number"
    ),
    Case("svoned zero length", svoned("a_1 1 1.5", "a_1 1 0.0"), line("SEGMENT a_1"), "positive"),
    Case(
        "svoned negative area",
        svoned("0.05 0.04", "-0.05 0.04"),
        line("SEGMENT b_0"),
        "area of b_0",
    ),
    Case("svoned fields", svoned("NODE 1 1 0 0", "NODE 1 1 0"), line("NODE 1"), "3 fields"),
    Case("svoned node twice", svoned("NODE 3", "NODE 1"), line("NODE 3"), "node 1 is defined"),
    Case("svoned node missing", svoned("NODE 4 ", "NODE 44 "), line("SEGMENT b_0"), "names node 4"),
    Case(
        "svoned joint missing",
        svoned("JOINT J1 2", "# JOINT J1 2"),
        line("SEGMENT a_1"),
        "no joint",
    ),
    Case("svoned joint inlet", svoned("IN1 OUT1", "IN9 OUT1"), line("JOINT J1"), "JOINTINLET IN9"),
    Case(
        "svoned joint count",
        svoned("OUT0 2 1 2", "OUT0 3 1 2"),
        line("JOINTOUTLET OUT0"),
        "lists 2",
    ),
    Case(
        "svoned joint segment",
        svoned("OUT0 2 1 2", "OUT0 2 1 7"),
        line("JOINTOUTLET OUT0"),
        "segment 7",
    ),
    Case("svoned loop", svoned("OUT1 1 3", "OUT1 2 3 2"), line("JOINT J1"), "meet again"),
    Case(
        "svoned two inlets",
        svoned("JOINTOUTLET OUT0 2 1 2", "JOINTOUTLET OUT0 1 1"),
        "case.in",
        "2 segments follow no joint: a_0, b_0",
    ),
    Case("svoned RCR", svoned("RESISTANCE R", "RCR R"), line("DATATABLE R"), "RCR"),
    Case(
        "svoned minor loss",
        svoned("M NONE 0.0 0 0 RES", "M BRANCH_THROUGH_DIVIDING 0.0 0 0 RES"),
        line("SEGMENT b_0"),
        "BRANCH_THROUGH_DIVIDING",
    ),
    Case("svoned outlet table", svoned("CORONARY C", "CORONARY X"), line("SEGMENT a_2"), "table X"),
    Case(
        "svoned coronary table", svoned("CORONARY C", "CORONARY R"), line("DATATABLE R"), "Ra_micro"
    ),
    Case(
        "svoned table type",
        svoned("DATATABLE R LIST", "DATATABLE R RCRIMPEDANCE"),
        line("DATATABLE R"),
        "RCRIMPEDANCE",
    ),
    Case("svoned table open", svoned("ENDDATATABLE\nSOLVER", "SOLVER"), "case.in", "SOLVEROPTIONS"),
    Case("svoned table odd", svoned("0.0 5000.0", "0.0"), line("0.0 5000.0"), "3 numbers"),
    Case("svoned table times", svoned("0.25 140000", "1.25 140000"), "case.in", "above the one"),
    Case("svoned table before 0", svoned("0.0 100000", "-0.1 100000"), "case.in", "negative"),
    Case("svoned inlet type", svoned("PRESSURE_WAVE", "AREA"), line("SOLVEROPTIONS"), "AREA"),
    Case("svoned inlet table", svoned("2 INLET", "2 INFLOW"), line("SOLVEROPTIONS"), "INFLOW"),
    Case("svoned leaking wall", svoned("OLUFSEN", "LINEAR"), line("MATERIAL"), "through the wall"),
    Case("svoned wall law", svoned("OLUFSEN", "HOOKE"), line("MATERIAL"), "HOOKE"),
    Case(
        "svoned material",
        svoned("0.05 0.04 0.0 M", "0.05 0.04 0.0 N"),
        line("SEGMENT b_0"),
        "N is not",
    ),
    Case(
        "svoned branch",
        svoned("MODEL y", "MODEL z", branch_name={"lad": "LAD"}),
        "branch_name",
        "a, b",
    ),
]


def labels(
    change: Callable[[np.ndarray], Any] | None = None,
    affine: np.ndarray | None = None,
    unit: str | None = "mm",
    **options: Any,
) -> Callable[[Path], Any]:
    """Read a label volume: a box of label 1 beside one voxel of label 2, after a change."""

    def use(folder: Path) -> Any:
        path = folder / "labels.nii.gz"
        label = np.zeros((6, 6, 6), np.int16)
        label[1:4, 1:4, 1:4] = 1
        label[5, 5, 5] = 2
        if change is not None:
            change(label)
        image = nibabel.Nifti1Image(label, np.diag([2.0, 2, 2, 1]) if affine is None else affine)
        if unit:
            image.header.set_xyzt_units(unit)
        nibabel.save(image, path)
        return read_voxel_labels(path, **{"label": 1, **options})

    return use


def truncated_nifti(folder: Path, suffix: str = ".nii.gz") -> Any:
    path = folder / f"cut{suffix}"
    rng = np.random.default_rng(0)
    image = nibabel.Nifti1Image(rng.integers(0, 3, (20, 20, 20)).astype(np.int16), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    path.write_bytes(path.read_bytes()[:1500])
    return read_voxel_labels(path, label=1)


def garbage_nifti(folder: Path) -> Any:
    (folder / "junk.nii").write_bytes(b"no volume" * 100)
    return read_voxel_labels(folder / "junk.nii", label=1)


def fractional_labels(folder: Path) -> Any:
    path = folder / "soft.nii"
    image = nibabel.Nifti1Image(np.linspace(0, 2, 27).reshape(3, 3, 3), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return read_voxel_labels(path, label=1)


def nifti_without_position(folder: Path) -> Any:
    path = folder / "lost.nii"
    image = nibabel.Nifti1Image(np.ones((3, 3, 3), np.int16), None)
    image.header.set_xyzt_units("mm")
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, path)
    return read_voxel_labels(path, label=1)


def colour_nifti(folder: Path) -> Any:
    path = folder / "colour.nii"
    colour = np.zeros((3, 3, 3), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    image = nibabel.Nifti1Image(colour, np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return read_voxel_labels(path, label=1)


def several_volumes(folder: Path) -> Any:
    path = folder / "beat.nii"
    image = nibabel.Nifti1Image(np.ones((3, 3, 3, 2), np.int16), np.eye(4))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return read_voxel_labels(path, label=1)


def split_wall(label: np.ndarray) -> None:
    label[5, 0, 0] = 1


def shear() -> np.ndarray:
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 1] = 0.5
    return affine


def closed_cavity(folder: Path) -> LVFrame:
    label = np.ones((7, 7, 7), np.int32)
    label[3, 3, 3], label[0, 0, 0] = 2, 3
    mesh = build_voxel_mesh(label, np.diag([1e-3, 1e-3, 1e-3, 1]), frame="RAS")
    return lv_frame_from_labels(mesh, where="closed LV")


def tets(point: np.ndarray, cells: dict[int, Any], **options: Any) -> Callable[[Path], Any]:
    """Read an unstructured grid of cells by VTK type, points in mm."""

    def use(folder: Path) -> Any:
        path = folder / "mesh.vtu"
        grid = {kind: np.array(cell) for kind, cell in cells.items()}
        pyvista.UnstructuredGrid(grid, np.asarray(point, np.float64)).save(path)
        return read_tets(path, **{"units": "mm", "frame": "LPS", **options})

    return use


CORNER = 40.0 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [-1, 0, 0]])
CUBE = 40.0 * np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
NAN = np.where(np.arange(18).reshape(6, 3) == 4, np.nan, CORNER)

TISSUE = [
    Case("nifti absent", lambda f: read_voxel_labels(f / "no.nii", label=1), "no.nii", "no such"),
    Case("nifti truncated", truncated_nifti, "cut.nii.gz", "truncated"),
    Case("nifti truncated, plain", lambda f: truncated_nifti(f, ".nii"), "cut.nii", "truncated"),
    Case("nifti in colour", colour_nifti, "colour.nii", "one number for each voxel"),
    Case("nifti over time", several_volumes, "beat.nii", "three dimensions"),
    Case("nifti garbage", garbage_nifti, "junk.nii", "header cannot be read"),
    Case("nifti without position", nifti_without_position, "lost.nii", "sform nor a qform"),
    Case("nifti label missing", labels(label=7), "labels.nii.gz", "labels present are: 0, 1, 2"),
    Case("nifti cavity missing", labels(cavity_label=5), "labels.nii.gz", "has the label 5"),
    Case("nifti RV missing", labels(rv_label=3), "labels.nii.gz", "no voxel has the label 3"),
    Case("nifti all background", labels(lambda x: x.fill(0)), "labels.nii.gz", "present are: 0"),
    Case("nifti wall in pieces", labels(split_wall), "labels.nii.gz", "2 pieces of 27, 1 voxels"),
    Case("nifti sheared", labels(affine=shear()), "labels.nii.gz", "orthogonal axes"),
    Case("nifti no unit", labels(unit=None), "labels.nii.gz", "units="),
    Case("nifti wrong unit", labels(unit=None, units="inch"), "labels.nii.gz", "mm, cm, m, um"),
    Case("nifti two units", labels(units="cm"), "labels.nii.gz", "header states mm"),
    Case("nifti mm said to be m", labels(unit="meter"), "labels.nii.gz", "millimetres to metres"),
    Case("nifti frame", labels(frame="XYZ"), "labels.nii.gz", "LPS, RAS, model"),
    Case("nifti soft labels", fractional_labels, "soft.nii", "integer labels"),
    Case("cavity closed", closed_cavity, "closed LV", "open at the base"),
    Case("vtu absent", lambda f: read_tets(f / "no.vtu", units="mm", frame="LPS"),
         "no.vtu", "no such file"),
    Case("vtu of a surface", tets(CUBE, {5: [[0, 1, 2], [1, 2, 3]]}),
         "mesh.vtu", "2 × triangle"),
    Case("vtu flat tet", tets(CUBE, {10: [[0, 1, 3, 2], [0, 1, 2, 4]]}),
         "mesh.vtu", "tetrahedron 0"),
    Case("vtu degenerate tet", tets(CORNER, {10: [[0, 1, 2, 2], [0, 1, 2, 3]]}),
         "mesh.vtu", "no volume"),
    Case("vtu face shared three times",
         tets(CORNER, {10: [[0, 2, 3, 1], [0, 2, 3, 4], [0, 2, 3, 5]]}),
         "mesh.vtu", "more than two tetrahedra"),
    Case("vtu in pieces", tets(np.concatenate([CORNER[:4], CORNER[:4] + 50]),
         {10: [[0, 1, 2, 3], [4, 5, 6, 7]]}), "mesh.vtu", "2 pieces"),
    Case("vtu unused point", tets(CORNER, {10: [[0, 1, 2, 3]]}), "mesh.vtu", "point 4"),
    Case("vtu NaN point", tets(NAN, {10: [[0, 1, 2, 3]]}), "mesh.vtu", "finite numbers"),
    Case("vtu units", tets(CORNER[:4], {10: [[0, 1, 2, 3]]}, units="m"), "mesh.vtu", "0.01 to 0.5"),
    Case("vtu frame", tets(CORNER[:4], {10: [[0, 1, 2, 3]]}, frame="?"), "mesh.vtu", "LPS, RAS"),
]  # fmt: skip


WRITERS = [
    Case("tree array", lambda f: write_tree(f / "t.vtp", network()(f), flow_ml_min=np.ones(9)),
         "t.vtp", "flow_ml_min has shape (9,)"),
    Case("tree suffix", lambda f: write_tree(f / "t.vtk", network()(f)), "t.vtk", "ends in .vtp"),
    Case("tree folder", lambda f: write_tree(f / "no" / "t.vtp", network()(f)),
         "t.vtp", "folder does not exist"),
    Case("tissue array", lambda f: write_perfusion(f / "p.vtu", labels()(f), mbf=np.ones(3)),
         "p.vtu", "array mbf"),
    Case("nifti suffix", lambda f: write_nifti(f / "p.mha", labels()(f), np.ones(27)),
         "p.mha", ".nii"),
    Case("csv without rows", lambda f: write_csv(f / "r.csv", []), "r.csv", "no rows"),
    Case("csv other columns", lambda f: write_csv(f / "r.csv", [{"a": 1}, {"b": 2}]),
         "r.csv", "row 1 has the columns b"),
    Case("json folder", lambda f: write_json(f / "no" / "s.json", {}), "s.json", "does not exist"),
]  # fmt: skip
