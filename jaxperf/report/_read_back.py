"""What a run folder holds, read back for a report."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Float, Int
from pydantic import ValidationError
from scipy.spatial import KDTree

from .._misc import InputError
from ..casefile import Case, load_case
from ..io import read_vtk
from ._fit_schema import FitSummary
from ._private import settings_without_places, without_places
from ._schema import Summary

_AGAIN = "Run the case again with this version"
_SMOOTHING = {"n_iter": 30, "pass_band": 0.05}


@dataclass(frozen=True)
class Tree:
    """The vessels of a run, mm, with what flows in them; the grown ones are marked.

    `parent` (s,) is the segment before each, −1 at a root; `begins` (s,) the way to it from there.
    """

    point: Float[np.ndarray, "s 2 3"]
    radius: Float[np.ndarray, "s 2"]
    length: Float[np.ndarray, " s"]
    name: np.ndarray
    grown: np.ndarray
    ffr: Float[np.ndarray, "s 2"]
    ratio: dict[str, Float[np.ndarray, "s 2"]]
    reduction: Float[np.ndarray, " s"]
    pressure: dict[str, Float[np.ndarray, "s 2"]]
    flow: dict[str, Float[np.ndarray, " s"]]
    parent: Int[np.ndarray, " s"]
    begins: Float[np.ndarray, " s"]

    @property
    def branches(self) -> list[str]:
        """The segmented and drawn branches, in the order of the file."""
        return list(dict.fromkeys(self.name[~self.grown].tolist()))

    def course(self, branch: str) -> Int[np.ndarray, " k"]:
        """The segments of a branch from its proximal end."""
        own = np.flatnonzero((self.name == branch) & ~self.grown)
        return own[np.argsort(self.begins[own], kind="stable")]

    def from_root(self, branch: str) -> Int[np.ndarray, " k"]:
        """The segments from the root to the end of a branch."""
        way, at = [], int(self.course(branch)[-1])
        while at >= 0:
            way.append(at)
            at = int(self.parent[at])
        return np.array(way[::-1])


@dataclass(frozen=True)
class Wall:
    """The control volumes of the wall, and its smoothed surface, mm.

    `of_point` (v, k) are control volumes beside each point of the surface, the same one several
    times where there are fewer.
    """

    mbf: dict[str, Float[np.ndarray, " c"]]
    volume: Float[np.ndarray, " c"]
    depth: Float[np.ndarray, " c"]
    segment: Int[np.ndarray, " c"]
    territory: Int[np.ndarray, " c"]
    territory_name: tuple[str, ...]
    point: Float[np.ndarray, "v 3"]
    triangle: Int[np.ndarray, "f 3"]
    of_point: Int[np.ndarray, "v k"]
    triangles_before: int


@dataclass(frozen=True)
class Wave:
    """Pressure and flow over a beat at one place."""

    state: str
    branch: str
    place: str
    time: list[float]
    pressure: list[float]
    flow: list[float]


@dataclass(frozen=True)
class RunData:
    """What a run folder says; `tree` and `wall` are None where it has none."""

    said: Summary | FitSummary
    case: Case
    configuration: str
    versions: dict[str, str]
    inputs: dict[str, str]
    files: dict[str, str]
    citation: str
    tree: Tree | None
    wall: Wall | None
    waves: list[Wave]
    feeding: list[dict[str, str]]


def read_run(folder: Path, files: dict[str, str], *, triangles: int) -> RunData:
    """Read a run folder.

    **Arguments:** `files`, the digest of each file by its name; `triangles`, as many as the
    surface of the wall may have.

    **Errors:** [`InputError`][] naming a file that is missing, broken, or of another version.
    """
    text = lambda name: (folder / name).read_text(encoding="utf-8")
    for name in ("summary.json", "config.yaml", "versions.json"):
        if not (folder / name).is_file():
            raise _foreign(folder / name, "there is no such file")
    try:
        said, about = json.loads(text("summary.json")), json.loads(text("versions.json"))
        kind = FitSummary if "parameters" in said else Summary
        # older folders tell places of files
        summary = kind.model_validate(without_places(said))
        content = settings_without_places(yaml.safe_load(text("config.yaml")))
        inputs = about.pop("inputs", {})
    except (ValueError, ValidationError, AttributeError, yaml.YAMLError) as error:
        first = str(error).splitlines()[0]
        raise _foreign(folder / "summary.json", f"it does not fit ({first})") from None
    has = lambda name: (folder / name).is_file()
    return RunData(
        said=summary,
        case=load_case(folder / "config.yaml"),
        configuration=yaml.safe_dump(content, sort_keys=False, allow_unicode=True),
        versions={k: str(v) for k, v in about.items() if k != "data"},
        inputs={str(k): str(v) for k, v in inputs.items()},
        files=files,
        citation=text("citation.bib") if has("citation.bib") else "",
        tree=_tree(folder / "tree.vtp") if has("tree.vtp") else None,
        wall=_wall(folder / "perfusion.vtu", triangles) if has("perfusion.vtu") else None,
        waves=_waves(folder / "waveforms.csv") if has("waveforms.csv") else [],
        feeding=_rows(folder / "feeding.csv") if has("feeding.csv") else [],
    )


def _foreign(path: Path, what: str) -> InputError:
    return InputError(
        what, where=path.name, expected="a file of a run folder of this version", fix=_AGAIN
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _by_state(data: Any, first: str, last: str) -> dict[str, np.ndarray]:
    """The arrays `first STATE last` of a data set by state."""
    return {
        name.removeprefix(first).removesuffix(last): np.asarray(values, np.float64)
        for name, values in data.items()
        if name.startswith(first) and name.endswith(last)
    }


def _tree(path: Path) -> Tree:
    data = read_vtk(path, (".vtp",), "PolyData", "the vessels of a run")
    line = data.lines.reshape(-1, 3)[:, 1:]
    try:
        point = np.asarray(data.points, np.float64)[line]
        radius = np.asarray(data.point_data["radius_mm"])[line]
        length = np.asarray(data.cell_data["length_mm"], np.float64)
        name = np.asarray(data.cell_data["branch_name"])
        ffr = np.asarray(data.point_data["ffr"])[line]
        reduction = np.asarray(data.cell_data["lesion_diameter_reduction"], np.float64)
    except KeyError as error:
        raise _foreign(path, f"it has no array {error}") from None
    pressure = _by_state(data.point_data, "pressure_static_", "_mmHg")
    ratio = _by_state(data.point_data, "pressure_ratio_", "")
    if not pressure or ratio.keys() != pressure.keys():
        raise _foreign(path, "it lacks the pressure ratio of a state")
    grown = "tree" in data.cell_data
    parent, begins = _ways(point, length)
    return Tree(
        point=point,
        radius=radius,
        length=length,
        name=name,
        grown=np.asarray(data.cell_data["tree"]) >= 0 if grown else np.zeros(len(line), bool),
        ffr=ffr,
        ratio={state: values[line] for state, values in ratio.items()},
        reduction=reduction,
        pressure={state: values[line] for state, values in pressure.items()},
        flow=_by_state(data.cell_data, "flow_", "_ml_min"),
        parent=parent,
        begins=begins,
    )


def _ways(
    point: Float[np.ndarray, "s 2 3"], length: Float[np.ndarray, " s"]
) -> tuple[Int[np.ndarray, " s"], Float[np.ndarray, " s"]]:
    """The segment before each, and the length from the root to its proximal end.

    The ends of segments that meet are the same numbers in the file.
    """
    _, node = np.unique(point.reshape(-1, 3), axis=0, return_inverse=True)
    start, end = node.reshape(-1, 2).T
    into = np.full(node.max() + 1, -1)
    into[end] = np.arange(len(end))
    parent, begins = into[start], np.zeros(len(length))
    # all ways grow by one segment a round
    at = np.arange(len(length))
    while (at := np.where(at >= 0, parent[at], -1)).max() >= 0:
        begins += np.where(at >= 0, length[at], 0.0)
    return parent, begins


def _wall(path: Path, triangles: int) -> Wall:
    grid = read_vtk(path, (".vtu",), "UnstructuredGrid", "the wall of a run")
    # the control volumes are the cells of a voxel mesh and the points of a tetrahedral one
    on_cells = "aha_segment" in grid.cell_data
    data = grid.cell_data if on_cells else grid.point_data
    mbf = _by_state(data, "mbf_", "_ml_min_g")
    try:
        # VTK has integers of one size and two names
        territory = np.asarray(data["territory"]).astype(np.int64)
        label, segment = np.asarray(data["territory_name"]), np.asarray(data["aha_segment"])
        depth = np.asarray(data["transmural_depth"], np.float64)
    except KeyError as error:
        raise _foreign(path, f"it has no array {error}") from None
    size = np.abs(grid.compute_cell_sizes(length=False, area=False)["Volume"])
    if on_cells:
        volume, place = size, grid.cell_centers().points
    else:
        corner = grid.cells.reshape(-1, 5)[:, 1:]
        volume, place = np.bincount(corner.ravel(), np.repeat(size / 4.0, 4)), grid.points
    first = {int(t): str(n) for t, n in zip(territory, label, strict=True)}
    names = [first.get(t, "") for t in range(int(territory.max()) + 1)]
    skin = grid.extract_surface(algorithm="dataset_surface").triangulate().clean()
    before = int(skin.n_cells)
    skin = skin.smooth_taubin(**_SMOOTHING)
    if before > triangles:
        skin = skin.decimate(1.0 - triangles / before)
    # a smoothed corner lies among the cells that share it
    near = KDTree(place).query(np.asarray(skin.points), k=min(4, len(place)))[1]
    return Wall(
        mbf=mbf,
        volume=volume,
        depth=depth,
        segment=segment.astype(np.int64),
        territory=territory,
        territory_name=tuple(names),
        point=np.asarray(skin.points, np.float64),
        triangle=np.asarray(skin.faces).reshape(-1, 4)[:, 1:].astype(np.int64),
        of_point=np.asarray(near).reshape(skin.n_points, -1),
        triangles_before=before,
    )


def _waves(path: Path) -> list[Wave]:
    found: dict[tuple[str, str, str], Wave] = {}
    for row in _rows(path):
        key = (row["state"], row["branch"], row["place"])
        wave = found.setdefault(key, Wave(*key, [], [], []))
        wave.time.append(float(row["time_s"]))
        wave.pressure.append(float(row["pressure_static_mmHg"]))
        wave.flow.append(float(row["flow_ml_min"]))
    return list(found.values())


def lesions_on(tree: Tree, way: Int[np.ndarray, " k"]) -> list[tuple[float, float, float]]:
    """Where lesions begin and end on a way, mm from its start, and their diameter reduction."""
    found: list[tuple[float, float, float]] = []
    for s in way.tolist():
        begin, end = float(tree.begins[s]), float(tree.begins[s] + tree.length[s])
        reduction = float(tree.reduction[s])
        if reduction <= 0.0:
            continue
        if found and found[-1][2] == reduction and abs(found[-1][1] - begin) < 1e-3:
            found[-1] = (found[-1][0], end, reduction)
        else:
            found.append((begin, end, reduction))
    return found
