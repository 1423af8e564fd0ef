"""Malformed cases: `check` finds each, names its key or vessel, and raises nothing.

`CASES` is a flat list: a name, a change of the sound case below, what `where` must name and words
of the message.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers import data_dir, requires_data

from jaxperf.jobs import demo_case, write_starter
from jaxperf.study import check_built, check_case


@dataclass(frozen=True)
class Malformed:
    """A change of the starter's case and what `check` must say about it."""

    name: str
    change: Callable[[dict[str, Any], Path], None]
    where: str
    says: str


def put(path: str, value: Any) -> Callable[[dict[str, Any], Path], None]:
    """Set a key, such as `tree.units`."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        *parents, last = path.split(".")
        section: Any = raw
        for key in parents:
            section = section[int(key)] if key.isdigit() else section.setdefault(key, {})
        section[last] = value

    return change


def drop(path: str) -> Callable[[dict[str, Any], Path], None]:
    """Remove a key."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        *parents, last = path.split(".")
        section: Any = raw
        for key in parents:
            section = section[key]
        del section[last]

    return change


def edit_tree(edit: Callable[[np.ndarray], None]) -> Callable[[dict[str, Any], Path], None]:
    """Change the rows of the SWC file (id, type, x, y, z, radius, parent)."""

    def change(raw: dict[str, Any], folder: Path) -> None:
        rows = np.loadtxt(folder / "tree.swc")
        edit(rows)
        form = ["%d", "%d", "%.6f", "%.6f", "%.6f", "%.6f", "%d"]
        np.savetxt(folder / "changed.swc", rows, fmt=form)
        raw["tree"]["file"] = "changed.swc"

    return change


def _move_away(rows: np.ndarray) -> None:
    rows[:, 4] += 120.0


def _move_tip(rows: np.ndarray) -> None:
    """The tip of the branch `S1`, 5 cm out of the wall."""
    rows[rows[:, 0] == tip_row("S1"), 2] += 55.0


def _loosen(rows: np.ndarray) -> None:
    rows[40, 6] = 9999


def _cycle(rows: np.ndarray) -> None:
    rows[10, 6] = rows[11, 0]


def _negative_radius(rows: np.ndarray) -> None:
    rows[30, 5] = -1.0


def _narrow(rows: np.ndarray) -> None:
    rows[:, 5] = np.maximum(rows[:, 5] * 0.1, 0.02)


_TIP: dict[str, int] = {}


def tip_row(branch: str) -> int:
    """Row of the SWC file in which a branch of the starter ends."""
    return _TIP[branch]


_OUTLET_NOWHERE = [{"branch": "x", "flow_ml_min": 1}]

CASES = [
    Malformed("kind missing", drop("kind"), "kind", "missing"),
    Malformed("tree missing", drop("tree"), "tree", "missing"),
    Malformed("units missing", drop("tree.units"), "tree", "units"),
    Malformed("frame missing", drop("tree.frame"), "tree", "frame"),
    Malformed("units unknown", put("tree.units", "inch"), "tree.units", "'inch'"),
    Malformed("units wrong", put("tree.units", "m"), "tree.swc", "units='mm'"),
    Malformed(
        "unit left out of the key",
        put("boundary.pressure_inlet", 93),
        "boundary",
        "pressure_inlet_mmHg",
    ),
    Malformed("key unknown", put("ventricel", {}), "ventricel", "Did you mean ventricle?"),
    Malformed("key of another section", put("solver.darcy", "multigrid"), "solver.darcy", "itself"),
    Malformed("section no mapping", put("darcy", "multigrid"), "darcy", "'multigrid'"),
    Malformed(
        "wrong type",
        put("boundary.pressure_inlet_mmHg", "high"),
        "boundary.pressure_inlet_mmHg",
        "'high'",
    ),
    Malformed(
        "pressure negative",
        put("boundary.pressure_inlet_mmHg", -93),
        "boundary.pressure_inlet_mmHg",
        "greater than or equal to 20",
    ),
    Malformed(
        "pressure in pascal",
        put("boundary.pressure_inlet_mmHg", 12400),
        "boundary.pressure_inlet_mmHg",
        "less than or equal to 300",
    ),
    Malformed(
        "viscosity in Pa s",
        put("blood.viscosity_mPa_s", 0.0035),
        "blood.viscosity_mPa_s",
        "greater than or equal to 0.3",
    ),
    Malformed(
        "density in g per cm3",
        put("blood.density_kg_m3", 1.06),
        "blood.density_kg_m3",
        "greater than or equal to 800",
    ),
    Malformed(
        "capillary pressure above the inlet",
        put("microcirculation.pressure_capillary_mmHg", 120),
        "changed.yaml",
        "must fall from boundary.pressure_inlet_mmHg",
    ),
    Malformed(
        "cavity is the wall",
        put("ventricle.labels.cavity", 1),
        "ventricle.labels",
        "must be different labels",
    ),
    Malformed(
        "an outlet twice",
        put(
            "boundary.outlets",
            [{"branch": "OM1", "flow_ml_min": 3.0}, {"branch": "OM1", "flow_ml_min": 3.0}],
        ),
        "boundary",
        "OM1 twice",
    ),
    Malformed(
        "a built tree called a patient",
        lambda raw, folder: raw.update(kind="patient", ventricle={"ellipsoid": {}}),
        "changed.yaml",
        "kind must be synthetic",
    ),
    Malformed(
        "reduction in percent",
        put("lesions.0.diameter_reduction", 60),
        "lesions.0.diameter_reduction",
        "less than or equal to 1",
    ),
    Malformed(
        "lesion of unknown branch",
        put("lesions.0.branch", "LDA"),
        "lesions.0.branch",
        "no branch 'LDA'",
    ),
    Malformed(
        "lesion beyond the branch",
        put("lesions.0.end_mm", 900.0),
        "lesion on LAD",
        "past the end of the branch",
    ),
    Malformed(
        "two targets of hyperemia",
        put("microcirculation.mbf_hyperemia_ml_min_g", 3.0),
        "microcirculation",
        "not both",
    ),
    Malformed(
        "label absent",
        put("ventricle.labels.cavity", 7),
        "ventricle.nii.gz",
        "no voxel has the label 7",
    ),
    Malformed(
        "file absent",
        put("ventricle.labels.file", "nothing.nii.gz"),
        "nothing.nii.gz",
        "no such file",
    ),
    Malformed(
        "format unknown", put("tree.file", "tree.obj"), "tree.obj", "in no known format of a tree"
    ),
    Malformed("ventricle twice", put("ventricle.ellipsoid", {}), "ventricle", "either"),
    Malformed("synthetic vessel in a patient", put("synthetic_rca", {}), "the case", "composite"),
    Malformed(
        "outlet on unknown branch",
        put("boundary.outlets", _OUTLET_NOWHERE),
        "boundary.outlets.0.branch",
        "no branch 'x'",
    ),
    Malformed(
        "outlet without condition",
        put("boundary.outlets", [{"branch": "S1"}]),
        "boundary.outlets.0",
        "exactly one",
    ),
    Malformed("tree elsewhere", edit_tree(_move_away), "LAD", "outside the wall"),
    Malformed(
        "a vessel outside the wall by 5 cm", edit_tree(_move_tip), "S1", "mm outside the wall"
    ),
    Malformed("disconnected vessel", edit_tree(_loosen), "changed.swc", "9999"),
    Malformed("cycle", edit_tree(_cycle), "changed.swc", "circle"),
    Malformed("radius negative", edit_tree(_negative_radius), "changed.swc", "radius"),
]


@pytest.fixture(scope="module")
def starter(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starter")
    path = write_starter(folder, spacing_mm=5.0)
    raw = yaml.safe_load(path.read_text())
    _TIP.update({name: row for row, name in raw["tree"]["branches"].items()})
    return folder


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_finds_it(case, starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    if case.name == "synthetic vessel in a patient":
        raw["kind"] = "patient"
    case.change(raw, starter)
    path = starter / "changed.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    errors = [f for f in check_case(path, starter) if f.severity == "error"]
    assert errors
    assert any(case.where in f.where and case.says in f.message for f in errors), errors


def test_the_distance_is_stated(starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    edit_tree(_move_tip)(raw, starter)
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    (finding,) = check_case(starter / "changed.yaml", starter)
    distance = int(finding.message.split("lies ")[1].split(" mm")[0])
    assert 45 <= distance <= 55


def test_all_findings_at_once(starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    raw["lesions"][0]["branch"] = "LDA"
    raw["ventricle"]["labels"]["wall"] = 9
    edit_tree(_narrow)(raw, starter)
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = check_case(starter / "changed.yaml", starter)
    errors = [f.where for f in found if f.severity == "error"]
    assert any("ventricle.nii.gz" in where for where in errors)
    assert "lesions.0.branch" in errors
    assert any("unusual" in f.message for f in found if f.severity == "warning")


def test_a_lesion_over_a_junction_goes_on_and_says_so(starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    put("lesions.0.end_mm", 40.0)(raw, starter)
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = check_case(starter / "changed.yaml", starter)
    assert found and {(f.severity, f.where) for f in found} == {("warning", "lesions.0")}
    assert all("begins at the pressure inside the lesion" in f.message for f in found)
    assert not any("Pulsatile flow puts all" in f.message for f in found)
    raw |= {"flow": "pulsatile", "wall": {"law": "elastic"}}
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = [f for f in check_case(starter / "changed.yaml", starter) if f.where == "lesions.0"]
    assert found and all("Pulsatile flow puts all" in f.message for f in found)


def test_a_reference_from_narrow_ends_is_told(starter):
    def narrow(rows: np.ndarray) -> None:
        course = [tip_row("LAD")]
        while rows[course[-1] - 1, 6] > 0:
            course.append(int(rows[course[-1] - 1, 6]))
        position = rows[np.array(course[::-1]) - 1, 2:5]
        arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(position, axis=0), axis=1))])
        inside = (arc > 26.0) & (arc < 40.0)
        rows[np.array(course[::-1])[inside] - 1, 5] *= 0.35

    raw = yaml.safe_load((starter / "case.yaml").read_text())
    edit_tree(narrow)(raw, starter)
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    where = [f.where for f in check_case(starter / "changed.yaml", starter)]
    assert "lesions.0.reference_radius_mm" in where
    raw["lesions"][0]["reference_radius_mm"] = 1.7
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    where = [f.where for f in check_case(starter / "changed.yaml", starter)]
    assert "lesions.0.reference_radius_mm" not in where


def test_a_heart_without_any_open_vessel_is_refused(starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    closed = {"start_mm": 2.0, "end_mm": 5.0, "diameter_reduction": 1.0}
    for branches, errors in ((["LM"], 0), (["LM", "RCA"], 1)):
        raw["lesions"] = [{"branch": name, **closed} for name in branches]
        (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        found = [f for f in check_case(starter / "changed.yaml", starter) if f.severity == "error"]
        assert len(found) == errors and all("no blood flows" in f.message for f in found)


def test_a_piece_that_occlusions_cut_off_is_refused(starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    closed = {"diameter_reduction": 1.0}
    first, last = (closed | {"branch": "LAD", "start_mm": x, "end_mm": x + 1.0} for x in (8, 10))
    outlet = {"branch": "S1", "flow_ml_min": 3.0}
    for lesions, outlets, where, says in (
        ([first, last], [], "lesions.0 and lesions.1", "no law gives its pressure"),
        ([first], [outlet], "", ""),
        ([{**first, "branch": "S1"}], [outlet], "boundary.outlets.0", "that nothing feeds"),
    ):
        raw["lesions"], raw["boundary"]["outlets"] = lesions, outlets
        (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        found = [f for f in check_case(starter / "changed.yaml", starter) if f.severity == "error"]
        assert [f.where for f in found] == ([where] if where else [])
        assert all(says in f.message for f in found)


@pytest.mark.parametrize("opened", [False, True])
def test_an_occlusion_is_no_pulsatile_case(starter, opened):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    put("lesions.0.diameter_reduction", 1)(raw, starter)
    raw |= {"flow": "pulsatile", "wall": {"law": "elastic"}, "states": {}}
    if opened:
        raw |= {"states": {"stent": {"without_lesions": [1]}}, "pulsatile": {"states": ["stent"]}}
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    errors = [f for f in check_case(starter / "changed.yaml", starter) if f.severity == "error"]
    assert opened or "lesions.0 closes LAD" in errors[0].message
    assert not (opened and errors)


def test_a_wrong_frame_lies_in_the_cavities(starter):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    assert raw["tree"]["frame"] == "RAS"
    raw["tree"]["frame"] = "LPS"
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = check_case(starter / "changed.yaml", starter)
    (error,) = [f for f in found if f.where == "tree.frame"]
    assert error.severity == "error"
    count = [int(n) for n in re.findall(r"\d+", error.message.replace("1.5 mm", ""))]
    assert count[0] == count[2] + count[3] and count[3] > 60
    assert "Try frame: RAS" in error.message


def test_the_demonstration_lies_on_its_wall(tmp_path):
    assert check_built(demo_case(5.0), tmp_path) == []


@requires_data
def test_the_composite_lies_on_its_wall():
    path = Path(__file__).resolve().parents[1] / "examples" / "composite.yaml"
    found = check_case(path, data_dir())
    assert [f for f in found if f.severity == "error"] == []


def _cut_loose(name, share):
    """Make a row on the way from a tip to its root a root: `share` of the rows lie below it."""

    def edit(rows: np.ndarray) -> None:
        parent = dict(zip(rows[:, 0].astype(int), rows[:, 6].astype(int), strict=True))
        way = [tip_row(name)]
        while parent[way[-1]] > 0:
            way.append(parent[way[-1]])
        rows[rows[:, 0] == way[int(share * len(way))], 6] = -1

    return edit


@pytest.mark.parametrize(
    ("share", "severity", "says"),
    [(0.2, "error", "from the apex to the base"), (0.6, "warning", "2 ostia expected")],
)
def test_a_root_in_the_middle_of_a_vessel(starter, share, severity, says):
    raw = yaml.safe_load((starter / "case.yaml").read_text())
    raw["lesions"] = []
    edit_tree(_cut_loose("LAD", share))(raw, starter)
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = check_case(starter / "changed.yaml", starter)
    (finding,) = [f for f in found if "root" in f.message]
    assert (finding.severity, says in finding.message) == (severity, True), found
    assert finding.where.startswith("LAD")


@requires_data
def test_an_unknown_outlet_beside_a_synthetic_vessel(tmp_path):
    path = Path(__file__).resolve().parents[1] / "examples" / "composite.yaml"
    raw = yaml.safe_load(path.read_text())
    raw.setdefault("boundary", {})["outlets"] = _OUTLET_NOWHERE
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = check_case(tmp_path / "case.yaml", data_dir())
    (error,) = [f for f in found if f.severity == "error"]
    assert error.where == "boundary.outlets.0.branch" and "no branch 'x'" in error.message


def test_no_yaml(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text("kind: [patient\n")
    (finding,) = check_case(path, tmp_path)
    assert "no YAML in line" in finding.message
    path.write_text("- 1\n")
    assert "holds a list" in check_case(path, tmp_path)[0].message
    assert "no such file" in check_case(tmp_path / "absent.yaml", tmp_path)[0].message


def test_the_starter_is_sound(starter):
    assert check_case(starter / "case.yaml", starter) == []


@pytest.mark.parametrize("part", ["ostium", "end"])
def test_a_narrowing_at_an_ostium_or_to_the_end_is_a_warning(starter, part):
    """63 and 67 % were unseen: nothing wider lies before the one, or behind the other."""

    def narrow(rows: np.ndarray) -> None:
        course = [tip_row("LAD")]
        while rows[course[-1] - 1, 6] > 0:
            course.append(int(rows[course[-1] - 1, 6]))
        chosen = course[-3:] if part == "ostium" else course[:8]
        rows[np.array(chosen) - 1, 5] *= 0.35

    raw = yaml.safe_load((starter / "case.yaml").read_text())
    edit_tree(narrow)(raw, starter)
    (starter / "changed.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    found = [f for f in check_case(starter / "changed.yaml", starter) if "narrows" in f.message]
    branches = {"LM", "LAD"} if part == "ostium" else {"LAD"}
    assert found and {f.where for f in found} <= branches
    assert "reference_radius_mm: " in found[0].message
    assert ("its end" in found[0].message) == (part == "end")
