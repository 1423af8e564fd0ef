"""Small inputs that real use brought up, each right or wrong: `python -m benchmarks trials`.

The files lie in `trials` beside the reference data, with a text that says what is right for each.
A file is right where what is read agrees with that, or where it is refused for the reason given.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxperf import InputError
from jaxperf.geometry import aha17, lv_frame_from_labels, VoxelMesh
from jaxperf.io import read_centerlines, read_voxel_labels
from jaxperf.units import M3_S_PER_ML_MIN, PA_PER_MMHG

from ._composite import MissingData
from ._report import Report

_TREES = {  # options, mm in all and within how many, vessels, ends
    "exact": ({}, 403.4, 0.1, 11, 6),
    "plain": ({}, 403.4, 1.0, 11, 6),
    "radius_named": ({}, 403.4, 1.0, 11, 6),
    "merged": ({}, 398.2, 0.1, 11, 6),
    "branchextractor": ({}, 398.2, 0.1, 11, 6),
    "rotated": ({}, 87.1, 0.05, 3, 2),
    "off0.3": ({}, 107.1, 0.5, 3, 2),
    "two_point_cells_cm": ({"units": "cm"}, 1118.7, 0.1, 55, 29),
    "area_only": ({"units": "cm"}, 1118.7, 0.1, 55, 29),
    "noise_0.02mm": ({}, 1118.7, 12.0, 57, 29),
    "cat08": ({}, 403.4, 11.0, 11, 6),
    "off0.6": ({}, 107.1, 0.5, 3, 2),
}
_SECONDS = 600  # of one command


@dataclass(frozen=True)
class TrialsReport:
    """The rows, and what became of each file."""

    report: Report

    def draw(self, path: Path) -> None:
        """How many files of each kind are right and wrong."""
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        lines = self.report.tables["files"]
        kinds = sorted({str(line["file"]).split("/")[0] for line in lines})
        count = lambda kind, verdict: sum(
            str(x["file"]).startswith(f"{kind}/") and x["verdict"] == verdict for x in lines
        )
        figure, axes = plt.subplots(figsize=(5, 3))
        right = [count(kind, "right") for kind in kinds]
        axes.bar(kinds, right, label="right", color="C2")
        wrong = [count(kind, "wrong") for kind in kinds]
        axes.bar(kinds, wrong, bottom=right, label="wrong", color="C3")
        axes.set_ylabel("files")
        axes.legend()
        figure.tight_layout()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def trials(data: Path, *, quick: bool, log: Callable[[str], None]) -> TrialsReport:
    """Try every file."""
    folder = data.parent / "trials"
    if not folder.is_dir():
        raise MissingData(f"{folder} is not there. It lies beside the reference data.")
    report = Report("trials", quick, "small inputs that real use brought up")
    lines: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, judge in _judges(folder, Path(scratch)).items():
            try:
                is_right, told = judge()
            except Exception as error:
                is_right, told = False, f"{type(error).__name__}: {error}"
            verdict = "right" if is_right else "wrong"
            lines.append({"file": name, "verdict": verdict, "told": " ".join(told.split())[:160]})
            log(f"{name}: {verdict}. {lines[-1]['told']}")
    report.tables["files"] = lines
    wrong = [line for line in lines if line["verdict"] == "wrong"]
    report.add("trials.files", len(lines), "files")
    report.add("trials.wrong", len(wrong), "files", reference="what the trials say is right")
    return TrialsReport(report)


_Judge = Callable[[], tuple[bool, str]]


def _judges(folder: Path, scratch: Path) -> dict[str, _Judge]:
    judges: dict[str, _Judge] = {}
    for name in _TREES:
        judges[f"trees/{name}.vtp"] = lambda name=name: _tree(folder / "trees", name)
    for name in ("atrium_hole", "rim_voxel", "hole_lateral_mid"):
        judges[f"hearts/{name}.nii.gz"] = lambda name=name: _heart(folder / "hearts", name)
    judges["hearts/scaled_labels.nii.gz"] = lambda: _scaled(folder / "hearts")
    judges["hearts/pixdim_against_sform.nii.gz"] = lambda: _pixdim(folder / "hearts")
    for name, judge in _FLOW1D.items():
        path = folder / "flow1d" / name
        judges[f"flow1d/{name}"] = lambda path=path, judge=judge: judge(path, scratch)
    for name, (words, code) in _CASES.items():
        path = folder / "cases" / name
        judges[f"cases/{name}"] = lambda path=path, words=words, code=code: _checked(
            path, scratch, words, code
        )
    return judges


# -- trees and hearts, by the readers


def _tree(folder: Path, name: str) -> tuple[bool, str]:
    """Read as it is, or refused with places and then read with the tolerance that is named."""
    options, length, within, vessels, ends = _TREES[name]
    given = {"units": "mm", "frame": "LPS", **options}
    said = ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            network = read_centerlines(folder / f"{name}.vtp", **given)
        except InputError as error:
            said = str(error)
            tolerance = re.search(r"merge_tolerance_mm` to ([\d.]+)", said)
            if "inside the lumen of line" not in said or tolerance is None:
                return False, said
            given["merge_tolerance_mm"] = float(tolerance[1])
            network = read_centerlines(folder / f"{name}.vtp", **given)
    found = 1e3 * float(np.asarray(network.length).sum())
    n = len(network.terminals)
    is_right = abs(found - length) <= within and (network.n_vessels, n) == (vessels, ends)
    refused = "refused with places; then " if said else ""
    return is_right, f"{refused}{found:.1f} mm, {network.n_vessels} vessels, {n} ends"


def _labels(path: Path) -> VoxelMesh:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_voxel_labels(path, label=1, cavity_label=2, rv_label=3, frame="LPS")


def _heart(folder: Path, name: str) -> tuple[bool, str]:
    """The frame of the same heart without the hole or the atrium."""
    right = lv_frame_from_labels(_labels(folder / "open.nii.gz"))
    mesh = _labels(folder / f"{name}.nii.gz")
    found = lv_frame_from_labels(mesh)
    cosine = float(np.clip(np.dot(found.long_axis, right.long_axis), -1.0, 1.0))
    turned = float(np.degrees(np.arccos(cosine)))
    moved = float(np.mean(aha17(mesh.centre, found) != aha17(mesh.centre, right)))
    told = f"axis turned by {turned:.2f}°, {100 * moved:.1f} % of the voxels in another segment"
    return turned < 1.0 and moved < 0.01, told


def _scaled(folder: Path) -> tuple[bool, str]:
    """As many voxels of the wall as round to its label."""
    import nibabel

    path = folder / "scaled_labels.nii.gz"
    mesh, image = _labels(path), np.asarray(nibabel.load(path).dataobj)
    right = int((np.rint(image) == 1).sum())
    return mesh.n_cells == right, f"{mesh.n_cells} voxels of the wall, right {right}"


def _pixdim(folder: Path) -> tuple[bool, str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_voxel_labels(folder / "pixdim_against_sform.nii.gz", label=1)
    said = " ".join(str(w.message) for w in caught)
    return "pixdim" in said and "form" in said, said or "nothing is said"


# -- cases and flow files, as the commands do it


def _command(*words: str) -> tuple[int, str]:
    """Exit code and everything that a command says."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxperf.cli", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    return done.returncode, " ".join((done.stdout + done.stderr).split())


# What `jaxperf check` must say, and with which exit code.
_CASES: dict[str, tuple[tuple[str, ...], int]] = {
    "duplicate_key.yaml": (("'lesions'", "line 4", "line 6"), 2),
    "alias_bomb.yaml": (("aliases",), 2),
    "deep.yaml": (("deep",), 2),
    "spacing_0.05.yaml": (("voxels", "spacing_mm"), 2),
    "left_dominant.yaml": ((), 0),
    "no_rca.yaml": (("right coronary",), 0),
    "thin_wall_4mm.yaml": ((), 0),
}


def _checked(path: Path, scratch: Path, words: tuple[str, ...], code: int) -> tuple[bool, str]:
    """`jaxperf check`, after the forest that the case names was grown, where it names one."""
    place = scratch / path.stem / "cases"
    shutil.copytree(path.parents[1], place.parent, copy_function=shutil.copyfile)
    for folder in (place.parent, *place.parent.glob("*/")):
        folder.chmod(0o755)
    if named := re.search(r"file: (\S+\.npz)", path.read_text()):
        (place / named[1]).parent.mkdir(exist_ok=True)
        _command("grow", str(place / path.name), "--data", str(place))
    found, said = _command("check", str(place / path.name), "--data", str(place))
    is_right = found == code and all(word in said for word in words) and "Traceback" not in said
    is_right = is_right and len(said) < 20_000
    if path.stem == "thin_wall_4mm" and is_right:
        done, said = _command(
            "run", str(place / path.name), "--data", str(place), "--out", str(place / "out")
        )
        return done == 0, f"run: exit {done}: {said}"
    if path.stem == "left_dominant" and is_right:
        share = _share_of(place / "left_dominant.npz", "LAD")
        return abs(share - 0.45) < 0.05, f"{100 * share:.1f} % of the wall to the LAD, right 45"
    return is_right, f"exit {found}: {said}"


def _share_of(forest: Path, territory: str) -> float:
    """Part of the wall that the trees of a vessel territory got."""
    with np.load(forest) as held:
        number = held["territory_name"].tolist().index(territory)
        return float(held["root_projected"][held["root_territory"] == number].sum())


def _run(path: Path, scratch: Path, *options: str) -> tuple[int, str, dict[str, Any]]:
    """Exit code, words, and the summary where there is one."""
    out = scratch / path.stem
    code, said = _command("flow1d", str(path), "--out", str(out), *options)
    file = out / "summary.json"
    return code, said, json.loads(file.read_text()) if file.is_file() else {}


def _ends(path: Path, scratch: Path, vessel: str, ends: tuple[float, float]) -> tuple[bool, str]:
    """Mean pressure at both ends of a vessel, mmHg, to 1e-4 of it."""
    code, said, summary = _run(path, scratch)
    if code:
        return False, said
    of = summary["vessels"][vessel]
    found = [of[f"pressure_static_{end}_mean_mmHg"] for end in ("proximal", "distal")]
    told = f"{found[0]:.4f} and {found[1]:.4f} mmHg, right {ends[0]:.4f} and {ends[1]:.4f}"
    return bool(np.allclose(found, ends, rtol=1e-4)), told


# The short vessel of one_cell.yaml: length, unloaded radius, wall (m) and Young's modulus (Pa);
# viscosity (Pa·s) and density (kg/m³). Its velocity profile is parabolic.
_SHORT = {"length": 2e-3, "radius": 4e-4, "wall": 1e-4, "modulus": 4e5, "viscosity": 4e-3}
_DENSITY, _ALPHA = 1060.0, 4.0 / 3.0


def _fall(path: Path, scratch: Path) -> tuple[bool, str]:
    """Poiseuille's fall over the short vessel, 796 Pa in its unloaded calibre, to 3 %.

    Its pressure widens it by openBF's law, p = 4/3 E h₀ (r/r₀ − 1)/r₀, and more at the proximal
    end, so that ½αρU² takes some static pressure on the way.
    """
    code, said, summary = _run(path, scratch)
    if code:
        return False, said
    of, short = summary["vessels"]["short"], _SHORT
    ends = [of[f"pressure_static_{end}_mean_mmHg"] * PA_PER_MMHG for end in ("proximal", "distal")]
    fall, pressure = ends[0] - ends[1], 0.5 * (ends[0] + ends[1])
    flow = of["flow_mean_ml_min"] * M3_S_PER_ML_MIN
    stretch = 1.0 + pressure * short["radius"] / (4.0 / 3.0 * short["modulus"] * short["wall"])
    calibre = short["radius"] * stretch
    viscous = 8.0 * short["viscosity"] * short["length"] * flow / (np.pi * calibre**4)
    unloaded = viscous * stretch**4
    widened = (calibre + fall * (calibre - short["radius"]) / pressure * np.array([0.5, -0.5])) ** 2
    speed = flow / (np.pi * widened)
    right = viscous + 0.5 * _ALPHA * _DENSITY * (speed[1] ** 2 - speed[0] ** 2)
    told = f"{fall:.1f} Pa over the short vessel, right {right:.1f}, unloaded {unloaded:.1f}"
    return abs(fall / right - 1.0) < 0.03 and abs(unloaded / 796.0 - 1.0) < 0.01, told


def _linear_ends() -> tuple[float, float]:
    """Of linear.in, mmHg: Q R at the distal end, and Poiseuille's fall in the calibre that the wall
    p = 4/3 k (1 − √(A₀/A)) takes there. In cgs: Q 10, R 10⁴, k 8.65e5, A₀ 1, L 10, µ 0.04."""
    distal = 10.0 * 1e4
    area = (1.0 - distal / (4.0 / 3.0 * 8.65e5)) ** -2
    fall = 8.0 * np.pi * 0.04 * 10.0 * 10.0 / area**2
    return tuple(0.1 * x / PA_PER_MMHG for x in (distal + fall, distal))


def _no_mean(path: Path, scratch: Path) -> tuple[bool, str]:
    """No mean flow, so the windkessel holds no mean pressure."""
    code, said, summary = _run(path, scratch)
    if code:
        return False, said
    of = summary["vessels"]["a"]
    flow = of["flow_mean_ml_min"] / of["flow_max_ml_min"]
    pressure = of["pressure_static_distal_mean_mmHg"] / of["pressure_static_max_mmHg"]
    told = f"mean over largest: flow {flow:.0e}, distal pressure {pressure:.0e}"
    return abs(flow) < 1e-5 and abs(pressure) < 1e-5, told


def _says(path: Path, scratch: Path, *words: str, code: int) -> tuple[bool, str]:
    """The command ends with this code and says these words."""
    found, said, _ = _run(path, scratch)
    is_right = found == code and all(re.search(word, said) for word in words)
    return is_right and "Traceback" not in said, f"exit {found}: {said}"


_FLOW1D: dict[str, Callable[[Path, Path], tuple[bool, str]]] = {
    "tube_r.in": lambda path, scratch: _ends(path, scratch, "seg0", (8.2546, 7.5006)),
    "one_cell.yaml": _fall,
    "stiff_tube.in": lambda path, scratch: _says(path, scratch, "[Ii]nertia", "cell.time", code=2),
    "linear.in": lambda path, scratch: _ends(path, scratch, "s0", _linear_ends()),
    # its two resistances are the one of tube_r.in
    "tube_rcr.in": lambda path, scratch: _ends(path, scratch, "seg0", (8.2546, 7.5006)),
    "duplicate_times.in": lambda path, scratch: _says(
        path, scratch, r"duplicate_times\.in:\d+", "time", code=2
    ),
    "time_goes_back.yaml": lambda path, scratch: _says(
        path, scratch, r"time_goes_back\.dat:\d+", "time", code=2
    ),
    "negative_inflow.in": lambda path, scratch: _says(
        path, scratch, "leaves by the inlet", "below zero", code=0
    ),
    "jump_between_beats.in": lambda path, scratch: _says(path, scratch, "jump", code=0),
    "period_in_ms.in": lambda path, scratch: _says(path, scratch, "ms", code=2),
    "zero_mean.yaml": _no_mean,
}
