"""Malformed trees, networks and lesions."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyvista
from sample_texts import Y_TREE

from jaxperf.io import network_in_frame, read_centerlines, read_swc
from jaxperf.network import build_network, declare_lesion


@dataclass(frozen=True)
class Case:
    """A malformed input and what the message about it must hold."""

    name: str
    use: Callable[[Path], Any]
    names: str
    says: str


def swc(change: Callable[[str], str], **options: Any) -> Callable[[Path], Any]:
    """Read the tree after a change of its text."""

    def use(folder: Path) -> Any:
        path = folder / "tree.swc"
        path.write_text(change(Y_TREE))
        return read_swc(path, **{"units": "mm", "frame": "LPS", **options})

    return use


def row(number: int, text: str) -> Callable[[str], str]:
    """Replace line `number` (from 1) of a text; the empty text removes it."""

    def change(text_before: str) -> str:
        lines = text_before.splitlines()
        lines[number - 1 : number] = [text] if text else []
        return "\n".join(lines)

    return change


def same(text: str) -> str:
    return text


def append(text: str) -> Callable[[str], str]:
    return lambda before: before + text


def absent_swc(folder: Path) -> Any:
    return read_swc(folder / "nowhere.swc", units="mm", frame="LPS")


def folder_as_swc(folder: Path) -> Any:
    return read_swc(folder, units="mm", frame="LPS")


def binary_swc(folder: Path) -> Any:
    path = folder / "binary.swc"
    path.write_bytes(b"\x89PNG\xff\xfe\x00")
    return read_swc(path, units="mm", frame="LPS")


SWC = [
    Case("swc absent", absent_swc, "nowhere.swc", "no such file"),
    Case("swc is a folder", folder_as_swc, "", "it is a folder"),
    Case("swc empty", swc(lambda _: ""), "tree.swc", "the file is empty"),
    Case("swc comments only", swc(lambda _: "# nothing\n"), "tree.swc", "no points"),
    Case("swc binary", binary_swc, "binary.swc", "no text file"),
    Case("swc unknown unit", swc(same, units="inch"), "tree.swc", "mm, cm, m, um"),
    Case("swc mm taken for m", swc(same, units="m"), "tree.swc", "units='mm'"),
    Case("swc mm taken for um", swc(same, units="um"), "tree.swc", "units='mm'"),
    Case("swc mm taken for cm", swc(same, units="cm"), "tree.swc", "units='mm'"),
    Case("swc unknown frame", swc(same, frame="RAI"), "tree.swc", "LPS, RAS, model"),
    Case("swc non-numeric", swc(row(3, "2 3 ten 0 0 2 1")), "tree.swc:3", "not numeric"),
    Case("swc column missing", swc(row(4, "3 3 20 5 0 2")), "tree.swc:4", "7 columns"),
    Case("swc NaN radius", swc(row(3, "2 3 10 0 0 nan 1")), "tree.swc:3", "radius is nan"),
    Case("swc negative radius", swc(row(3, "2 3 10 0 0 -2 1")), "tree.swc:3", "positive"),
    Case("swc zero radius", swc(row(3, "2 3 10 0 0 0 1")), "tree.swc:3", "positive"),
    Case("swc NaN position", swc(row(3, "2 3 nan 0 0 2 1")), "tree.swc:3", "finite coordinates"),
    Case("swc duplicate id", swc(append("5 3 0 9 0 1 1\n")), "tree.swc:10", "id 5 appears"),
    Case("swc unknown parent", swc(row(6, "5 3 40 12 0 1 44")), "tree.swc:6", "44, which is no"),
    Case("swc own parent", swc(row(6, "5 3 40 12 0 1 5")), "tree.swc:6", "row 5 is itself"),
    Case("swc cycle", swc(row(4, "3 3 20 5 0 1.6 5")), "row id", "in a circle"),
    Case("swc no root", swc(row(2, "1 1 0 0 0 2 5")), "tree.swc", "in a circle"),
    Case("swc lone root", swc(append("9 1 5 5 5 1 -1\n")), "row id 9", "has no vessel"),
    Case(
        "swc all points coincide",
        swc(lambda _: "1 1 0 0 0 1 -1\n2 3 9 0 0 1 1\n3 1 50 0 0 1 -1\n4 3 50 0 0 1 3\n"),
        "row id 3",
        "has no vessel",
    ),
    Case("branch unknown", swc(same, branch_name={"LAD": "LAD"}), "branch_name", "'LAD' is not"),
    Case("branch end unknown", swc(same, branch_name={77: "LAD"}), "branch_name", "tips: 5, 7, 8"),
    Case("branch end is root", swc(same, branch_name={1: "LM"}), "branch_name", "1 is not the end"),
    Case(
        "branch named twice",
        swc(same, branch_name={5: "LAD", "branch 0": "LCx"}),
        "branch_name",
        "named twice",
    ),
    Case(
        "branch names equal",
        swc(same, branch_name={5: "LAD", 7: "LAD"}),
        "branch_name",
        "given to several branches",
    ),
    Case(
        "frames without a rule",
        lambda folder: network_in_frame(swc(same)(folder), "model"),
        "frame",
        "no rule from LPS to model",
    ),
]


def vtp(
    lines: list[list[list[float]]], radius: float | None = 2.0, **options: Any
) -> Callable[[Path], Any]:
    """Read polylines given by their corners in mm."""

    def use(folder: Path) -> Any:
        path = folder / "lines.vtp"
        point = np.concatenate([np.array(x, np.float64) for x in lines])
        start = np.cumsum([0, *(len(x) for x in lines)])
        cells = [[len(x), *range(a, a + len(x))] for x, a in zip(lines, start[:-1], strict=True)]
        data = pyvista.PolyData(point, lines=np.concatenate(cells))
        data["Length"] = np.zeros(len(point))
        if radius is not None:
            data["MaximumInscribedSphereRadius"] = np.full(len(point), radius)
        data.save(path)
        return read_centerlines(path, **{"units": "mm", "frame": "LPS", **options})

    return use


def surface_as_centerlines(folder: Path) -> Any:
    pyvista.Sphere().save(folder / "surface.vtp")
    return read_centerlines(folder / "surface.vtp", units="mm", frame="LPS")


def truncated_vtp(folder: Path) -> Any:
    path = folder / "cut.vtp"
    pyvista.Sphere().save(path)
    path.write_bytes(path.read_bytes()[:400])
    return read_centerlines(path, units="mm", frame="LPS")


def grid_called_vtp(folder: Path) -> Any:
    path = folder / "grid.vtu"
    pyvista.ImageData(dimensions=(2, 2, 2)).cast_to_unstructured_grid().save(path)
    path.rename(folder / "grid.vtp")
    return read_centerlines(folder / "grid.vtp", units="mm", frame="LPS")


def centerlines_of_wrong_suffix(folder: Path) -> Any:
    (folder / "lines.stl").write_text("solid")
    return read_centerlines(folder / "lines.stl", units="mm", frame="LPS")


MAIN: list[list[float]] = [[0, 0, 0], [20, 0, 0], [40, 0, 0]]
FAR: list[list[float]] = [[20, 9, 0], [20, 30, 0]]
BESIDE: list[list[float]] = [[0, 0, 0], [2, 0.9, 0], [30, 0.9, 0], [31, 9, 0]]

CENTERLINES = [
    Case("vtp without radius", vtp([MAIN], None), "lines.vtp", "arrays present are: Length"),
    Case("vtp other radius name", vtp([MAIN], radius_array="R"), "lines.vtp", "no point array 'R'"),
    Case("vtp NaN radius", vtp([MAIN], float("nan")), "lines.vtp", "radius of point 0 is nan"),
    Case("vtp negative radius", vtp([MAIN], -1.0), "lines.vtp", "positive"),
    Case("vtp NaN position", vtp([[*MAIN, [np.nan] * 3]]), "lines.vtp", "finite coordinates"),
    Case("vtp units", vtp([MAIN], units="m"), "lines.vtp", "units='mm'"),
    Case("vtp far side branch", vtp([MAIN, FAR]), "line 1 starts 9 mm", "within 2 radii"),
    Case("vtp lines side by side", vtp([MAIN, BESIDE]), "line 1", "merge_tolerance"),
    Case("vtp line twice", vtp([MAIN, MAIN]), "line 1", "over its whole length"),
    Case("vtp too many inlets", vtp([MAIN], n_roots=2), "lines.vtp", "`n_roots` = 2"),
    Case("vtp of a surface", surface_as_centerlines, "surface.vtp", "0 are lines"),
    Case("vtp truncated", truncated_vtp, "cut.vtp", "VTK cannot read it"),
    Case("vtp holds a grid", grid_called_vtp, "grid.vtp", "PolyData"),
    Case("vtp is an stl", centerlines_of_wrong_suffix, "lines.stl", "ends in .vtp"),
]


def network(**change: Any) -> Callable[[Path], Any]:
    """Build a Y of three segments, with changes."""

    def use(folder: Path) -> Any:
        arguments = {
            "node_position": np.array([[0, 0, 0], [1, 0, 0], [2, 1, 0], [2, -1, 0.0]]) * 1e-2,
            "segment_node": np.array([[0, 1], [1, 2], [1, 3]]),
            "radius": np.full((3, 2), 1e-3),
            "root": np.array([0]),
            "frame": "LPS",
            "branch": np.array([0, 0, 1]),
            "branch_name": ("LAD", "D1"),
            "where": "tree A",
        }
        return build_network(**{**arguments, **change})

    return use


NETWORK = [
    Case("two roots in a piece", network(root=np.array([0, 2])), "tree A", "joins between roots"),
    Case("no root in a piece", network(segment_node=np.array([[0, 1], [2, 3], [3, 2]])),
         "tree A", "not connected to any root"),
    Case("loop", network(segment_node=np.array([[0, 1], [1, 2], [2, 3], [3, 1]]),
                         radius=np.full((4, 2), 1e-3), branch=np.zeros(4, np.int64)),
         "nodes", "closed loop"),
    Case("zero length", network(node_position=np.zeros((4, 3))), "segment 0", "positive number"),
    Case("negative length", network(length=np.array([1e-2, -1e-2, 1e-2])), "segment 1", "-0.01"),
    Case("node out of range", network(segment_node=np.array([[0, 1], [1, 2], [1, 9]])),
         "segment 2", "nodes 0 to 3"),
    Case("network frame", network(frame="lps"), "tree A", "'lps'"),
    Case("radius shape", network(radius=np.ones(7)), "tree A", "(7,)"),
]  # fmt: skip


def lesion(**change: Any) -> Callable[[Path], Any]:
    """Declare a lesion on the LAD of the Y, which is 24.1 mm long with a junction at 10 mm."""
    arguments = {"branch": "LAD", "start_mm": 2.0, "end_mm": 8.0, "diameter_reduction": 0.5}
    return lambda folder: declare_lesion(network()(folder), **{**arguments, **change})


def overlapping_lesions(folder: Path) -> Any:
    first = lesion()(folder)
    return declare_lesion(first, branch="LAD", start_mm=6, end_mm=9, diameter_reduction=0.3)


def repeated_lesion(folder: Path) -> Any:
    first = lesion()(folder)
    return declare_lesion(first, branch="LAD", start_mm=2, end_mm=8, diameter_reduction=0.3)


LESIONS = [
    Case("lesion off the branch", lesion(start_mm=20, end_mm=30), "lesion on LAD", "<= 24.14 mm"),
    Case(
        "lesion backwards", lesion(start_mm=8, end_mm=2), "lesion on LAD", "0 <= start_mm < end_mm"
    ),
    Case("lesion NaN", lesion(start_mm=float("nan")), "lesion on LAD", "nan"),
    Case("lesion past the end", lesion(end_mm=25), "lesion on LAD", "past the end of the branch"),
    Case("lesion beyond it", lesion(start_mm=30, end_mm=40), "lesion on LAD", "it lies from 30"),
    Case("lesion repeated", repeated_lesion, "lesion on LAD", "overlaps"),
    Case("reduction in per cent", lesion(diameter_reduction=60.0), "lesion on LAD", "60 % as 0.6"),
    Case("reduction above one", lesion(diameter_reduction=1.01), "lesion on LAD", "from 0 to 1"),
    Case("reduction negative", lesion(diameter_reduction=-0.1), "lesion on LAD", "from 0 to 1"),
    Case("reduction NaN", lesion(diameter_reduction=float("nan")), "lesion on LAD", "nan"),
    Case("lesion reference", lesion(reference_radius_mm=-1.0), "lesion on LAD", "positive radius"),
    Case("lesion on unknown branch", lesion(branch="RCA"), "'RCA'", "LAD, D1"),
]
