"""`jaxperf flow1d`: cases of other solvers from file to run folder."""

import csv
import json

import numpy as np
import pytest
import yaml
from sample_texts import Y_CASE, Y_TREE
from typer.testing import CliRunner

from jaxperf import InputError, jobs, Progress, RESULTS, SolveError
from jaxperf.cli import app, BAD_INPUT, FAILED_SOLVE
from jaxperf.flow1d import initial_state
from jaxperf.io import read_openbf, read_svoned
from jaxperf.jobs import openbf_problem, read_foreign, run_flow1d, svoned_problem
from jaxperf.vessel import SqrtAreaWall

OPENBF = """\
project_name: fork
inlet_file: beat.dat
blood: {rho: 1060.0, mu: 4.e-3}
solver: {Ccfl: 0.9, cycles: 20, convergence_tolerance: 2.0}
network:
  - {label: stem, sn: 1, tn: 2, L: 0.1, E: 4.e5, R0: 0.01, h0: 1.e-3, Pext: 9000.0}
  - {label: left, sn: 2, tn: 3, L: 0.1, E: 7.e5, R0: 6.e-3, h0: 6.e-4, Pext: 9000.0,
     R1: 2.e7, R2: 2.8e8, Cc: 2.e-9}
  - {label: right, sn: 2, tn: 4, L: 0.1, E: 7.e5, R0: 5.e-3, h0: 6.e-4, Pext: 9000.0,
     R1: 3.e7, R2: 3.8e8, Cc: 2.e-9}
"""
INLET = "0 1e-5\n0.15 3.0e-4\n0.3 1e-5\n0.8 1e-5\n"
FILES = {"config.yaml", "versions.json", "written.json", "summary.json", "waveforms.csv"}
FILES |= {"figures/waveforms.png"}
MMHG = 133.322
ML_MIN = 1e-6 / 60.0


def write_openbf(folder, text=OPENBF, name="fork.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    (folder / "beat.dat").write_text(INLET, encoding="utf-8")
    return folder / name


def write_svoned(folder, text=Y_CASE, name="y.in"):
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rows_of(folder):
    with (folder / "waveforms.csv").open() as file:
        return list(csv.DictReader(file))


def column(rows, vessel, place, name):
    found = [float(r[name]) for r in rows if r["branch"] == vessel and r["place"] == place]
    return np.array(found)


@pytest.fixture(scope="module")
def svoned(tmp_path_factory):
    """A svOneDSolver case under another suffix, to the periodic state, by the command line."""
    folder = tmp_path_factory.mktemp("svoned")
    path, out = write_svoned(folder, name="y.txt"), folder / "out"
    command = ["flow1d", str(path), "--out", str(out), "--cell-time", "2e-3", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


def test_the_run_folder_of_a_svoned_case(svoned):
    out, said = svoned
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == FILES
    assert said.pop("out") == str(out)
    assert said == json.loads((out / "summary.json").read_text())
    assert said["format"] == "svOneDSolver" and said["title"] == "y"
    assert said["is_periodic"] and 1 <= said["cycles"] < 30
    assert set(said["vessels"]) == {"a_0", "a_1", "a_2", "b_0"}
    assert said["period_s"] == 1.0 and set(said["seconds"]) == {"setup", "solve"}
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["cell_time_s"] == 2e-3 and config["cycles"] is None
    assert {"python", "jax"} <= set(json.loads((out / "versions.json").read_text()))


def test_the_series_of_a_svoned_case(svoned):
    out, said = svoned
    rows = rows_of(out)
    time = column(rows, "a_0", "proximal", "time_s")
    assert len(time) in (101, 201, 401) and len(rows) == 4 * 3 * len(time)
    np.testing.assert_allclose(time, np.linspace(0.0, 1.0, len(time)), atol=1e-12)
    # the inlet's table in dyn/cm2
    inlet = np.interp(time, [0.0, 0.25, 1.0], [1e4, 1.4e4, 1e4]) / MMHG
    found = column(rows, "a_0", "proximal", "pressure_static_mmHg")
    # tables have six digits
    np.testing.assert_allclose(found, inlet, rtol=1e-5)
    # at a joint all show one pressure
    ends = (("a_0", "distal"), ("a_1", "proximal"), ("b_0", "proximal"))
    joined = [column(rows, *end, "pressure_static_mmHg") for end in ends]
    np.testing.assert_allclose(joined[1:], joined[:1] * 2, rtol=1e-5)
    mean = {name: vessel["flow_mean_ml_min"] for name, vessel in said["vessels"].items()}
    assert mean["a_0"] == pytest.approx(mean["a_1"] + mean["b_0"], rel=2e-3)
    assert mean["a_1"] == pytest.approx(mean["a_2"], rel=2e-3)
    assert all(vessel["inertia_factor"] >= 1.0 for vessel in said["vessels"].values())
    # a resistance of 1e5 dyn s/cm5 to 5000 dyn/cm2
    pressure = column(rows, "b_0", "distal", "pressure_static_mmHg")
    outflow = (pressure * MMHG - 500.0) / 1e10 / ML_MIN
    found = column(rows, "b_0", "distal", "flow_ml_min")
    np.testing.assert_allclose(found, outflow, rtol=1e-4)


def test_an_openbf_case_over_given_cycles(tmp_path, monkeypatch):
    progress, told = Progress(), []
    monkeypatch.setattr(progress, "tell", lambda *said: told.append(said))
    said = run_flow1d(
        write_openbf(tmp_path), out=tmp_path / "out", cycles=2, cell_time=2e-3, progress=progress
    )
    size = f"cycles, 3 vessels, {said.n_cells} cells"
    assert told == [(size,), (size, 1, 2), (size, 2, 2)]
    assert said.format == "openBF" and said.cycles == 2 and not said.is_periodic
    assert said.period_s == 0.8 and said.n_vessels == 3
    rows = rows_of(tmp_path / "out")
    assert list(rows[0]) == [
        "branch",
        "place",
        "arc_mm",
        "time_s",
        "pressure_static_mmHg",
        "flow_ml_min",
    ]
    assert column(rows, "stem", "distal", "arc_mm")[0] == pytest.approx(100.0)
    time = column(rows, "stem", "proximal", "time_s")
    given = np.interp(time, [0.0, 0.15, 0.3, 0.8], [1e-5, 3e-4, 1e-5, 1e-5]) / ML_MIN
    flow = column(rows, "stem", "proximal", "flow_ml_min")
    np.testing.assert_allclose(flow, given, rtol=1e-5)


def test_walls_and_external_pressure_of_openbf(tmp_path):
    problem = openbf_problem(read_openbf(write_openbf(tmp_path)), 2e-3)
    assert (problem.junction_pressure, problem.boundary_pressure) == ("static", "static")
    assert isinstance(problem.wall, SqrtAreaWall)
    assert float(problem.wall.pressure_external) == 9000.0
    assert problem.pressure_external is None and problem.wall_viscosity is None
    text = OPENBF.replace("Pext: 9000.0,\n     R1: 3", "Pext: 8000.0, phi: 1.e3,\n     R1: 3")
    uneven = openbf_problem(read_openbf(write_openbf(tmp_path, text)), 2e-3)
    around = uneven.pressure_external
    assert isinstance(uneven.wall, SqrtAreaWall) and around is not None
    assert float(uneven.wall.pressure_external) == 0.0
    np.testing.assert_array_equal(around.share[0, :, 0], [9000.0, 9000.0, 8000.0])
    assert np.asarray(uneven.wall_viscosity)[2] > 0.0
    # a vessel has its reference area where the pressure is the one around it
    assert np.isfinite(np.asarray(initial_state(uneven).area)).all()


def test_a_reference_pressure_of_svoned(tmp_path):
    text = Y_CASE.replace("1.06 0.04 0 2.0", "1.06 0.04 90000 2.0")
    problem = svoned_problem(read_svoned(write_svoned(tmp_path, text)), 2e-3)
    assert problem.pressure_external is not None
    np.testing.assert_allclose(problem.pressure_external.share, 9000.0)
    assert svoned_problem(read_svoned(write_svoned(tmp_path)), 2e-3).pressure_external is None
    assert float(problem.blood.alpha) == pytest.approx(4.0 / 3.0)


TWO_BLOODS = Y_CASE.replace("0.05 0.04 0.0 M ", "0.05 0.04 0.0 N ") + (
    "MATERIAL N OLUFSEN 1.05 0.04 0 2.0 3e7 -22.53 8.65e5\n"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "there is no such file"),
        ("", "the file is empty"),
        ("a: [1\n", "in no known format of a 1-D case"),
        (Y_TREE, "in no known format of a 1-D case"),
        ("kind: patient\ntree: {}\nventricle: {}\n", "Run it with `jaxperf run`"),
        (OPENBF.replace("tn: 3", "tn: 2"), "vessel left"),
        (OPENBF.replace("beat.dat", "nowhere.dat"), "nowhere.dat: there is no such file"),
        (Y_CASE.replace("SEGMENT a_2", "# a_2"), "segment 3, which is not defined"),
        (TWO_BLOODS, "the density of its materials M and N differ"),
        (Y_CASE.replace("1.0 1000\n", "0.8 1000\n"), r"case: its tables last 0\.8, 1 s"),
    ],
)
def test_what_is_no_case(tmp_path, text, says):
    path = tmp_path / "case"
    if text is not None:
        write_openbf(tmp_path, text, "case")
    with pytest.raises(InputError, match=says):
        read_foreign(path)
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["flow1d", str(path), "--out", str(out)])
    assert result.exit_code == BAD_INPUT
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr
    assert not out.exists()


def test_a_folder_is_no_case(tmp_path):
    with pytest.raises(InputError, match="it is a folder"):
        read_foreign(tmp_path)


def test_a_vessel_that_collapses_is_named(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise SolveError(RESULTS.vessel_collapsed, "It was seen first in left (vessel 1).")

    monkeypatch.setattr("jaxperf.jobs._flow1d_run.solve_flow1d", fail)
    with pytest.raises(
        SolveError, match=r"no open lumen.*in left \(vessel 1\)\. This was fork, cycle 1 of 1\."
    ):
        run_flow1d(write_openbf(tmp_path), out=tmp_path / "out", cycles=1)
    assert not (tmp_path / "out").exists()


def test_no_steady_flow_to_start_from(tmp_path):
    """The inlet draws so much that the vessels close."""
    path = write_openbf(tmp_path)
    (tmp_path / "beat.dat").write_text("0 -1e-3\n0.4 -2e-3\n0.8 -1e-3\n", encoding="utf-8")
    with pytest.raises(
        SolveError, match=r"No steady flow was found to start from.*This was fork\."
    ):
        run_flow1d(path, out=tmp_path / "out", cell_time=2e-3)
    assert not (tmp_path / "out").exists()


def test_a_failed_run_is_exit_code_one(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise SolveError(RESULTS.vessel_collapsed, "It was seen first in left.")

    monkeypatch.setattr(jobs, "run_flow1d", fail)
    result = CliRunner().invoke(app, ["flow1d", "x", "--out", str(tmp_path / "out")])
    assert result.exit_code == FAILED_SOLVE and "first in left" in result.stderr


def test_options_out_of_range_are_refused(tmp_path):
    for option in (["--cycles", "0"], ["--cell-time", "0"], ["--cfl", "1"], ["--max-cycles", "0"]):
        result = CliRunner().invoke(app, ["flow1d", "x", "--out", str(tmp_path / "o"), *option])
        assert result.exit_code == 2
