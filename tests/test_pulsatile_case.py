"""Pulsatile cases: the heart beat, the run, its numbers and files, and what is refused."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError
from typer.testing import CliRunner

from jaxperf import InputError, Progress, RESULTS, SolveError
from jaxperf.casefile import Case, load_case
from jaxperf.cli import app
from jaxperf.network import branch_course
from jaxperf.report import pulsation_summary, waveform_rows, write_waveform_figure
from jaxperf.report._figures import _beat_panels
from jaxperf.study import (
    branch_places,
    case_places,
    check_case,
    collect,
    followed_segments,
    heartbeat_of_case,
    prepare_case,
    rigid_bed,
    Series,
    solve_case,
    solve_pulsation,
)
from jaxperf.units import PA_PER_MMHG

REPOSITORY = Path(__file__).resolve().parents[1]
LARGE = ("LM", "LAD", "LCx", "RCA")
LESION = {"branch": "LAD", "start_mm": 12.0, "end_mm": 22.0, "diameter_reduction": 0.6}


def raw_case(**pulsatile):
    return {
        "title": "Beat",
        "kind": "synthetic",
        "flow": "pulsatile",
        "tree": {"built_in": "demo"},
        "ventricle": {"ellipsoid": {"spacing_mm": 5.0}},
        "wall": {"law": "elastic"},
        "pulsatile": pulsatile,
    }


def heartbeat(data=Path(), inlet=93.0, **pulsatile):
    raw = raw_case(**pulsatile)
    raw["boundary"] = {"pressure_inlet_mmHg": inlet}
    return heartbeat_of_case(Case.model_validate(raw), Path(data))


def in_mmHg(waveform, time):
    return np.interp(time, waveform.time, waveform.value[0], period=waveform.period) / PA_PER_MMHG


# --- the heart beat ---


@pytest.mark.parametrize(
    ("rate", "pulse", "inlet"), [(70, 40, 93), (120, 30, 80), (45, 60, 110), (190, 40, 93)]
)
def test_a_beat_has_the_mean_and_the_pulse_asked_for(rate, pulse, inlet):
    beat = heartbeat(inlet=inlet, heart_rate_per_min=rate, pulse_pressure_mmHg=pulse)
    assert beat.period == pytest.approx(60.0 / rate)
    assert float(beat.aortic.mean[0]) / PA_PER_MMHG == pytest.approx(inlet, rel=1e-12)
    assert np.ptp(beat.aortic.value) / PA_PER_MMHG == pytest.approx(pulse, rel=1e-12)


@pytest.mark.parametrize("above", [-20.0, 15.0])
def test_a_beat_about_another_mean_is_one_heart(tmp_path, above):
    """The ventricle meets the aortic pressure in ejection, and fills at the pressure it did."""
    beat = heartbeat(tmp_path)
    moved = beat.moved(above * PA_PER_MMHG)
    assert float(moved.aortic.mean[0]) / PA_PER_MMHG == pytest.approx(93.0 + above, rel=1e-12)
    time = np.linspace(0.0, beat.period, 500)
    before, after = (in_mmHg(b.lv, time) for b in (beat, moved))
    ejecting = np.abs(before - in_mmHg(beat.aortic, time)) < 1e-9
    assert ejecting.sum() > 100
    np.testing.assert_allclose(after[ejecting], in_mmHg(moved.aortic, time)[ejecting], rtol=1e-9)
    filling = before < 9.0
    assert filling.sum() > 100
    np.testing.assert_allclose(after[filling], before[filling], rtol=1e-12)
    assert np.abs(np.diff(after)).max() < 1.5 * np.abs(np.diff(before)).max()


def test_the_valve_is_open_where_the_pressures_are_one():
    beat = heartbeat()
    opening, closure = 0.05, 0.05 + 0.413 - 1.7e-3 * 70.0
    assert beat.systole == pytest.approx((0.0, closure))
    time = np.linspace(0.0, beat.period, 2000, endpoint=False)
    aortic, lv = in_mmHg(beat.aortic, time), in_mmHg(beat.lv, time)
    ejection = (time > opening) & (time < closure)
    np.testing.assert_allclose(lv[ejection], aortic[ejection], atol=0.5)
    assert (lv <= aortic + 2.0).all()
    late = time > closure + 0.3
    assert lv[late].max() < 8.0 + 1e-6 and lv.min() > 3.0
    assert lv[0] == pytest.approx(8.0)
    # diastolic decay behind a notch, which dips by some mmHg
    after = (time > closure) & (time < closure + 0.1)
    assert 3.0 < aortic[after][-1] - aortic[after].min() < 15.0
    assert (np.diff(aortic[time > closure + 0.05]) < 0.0).all()
    # as in a catheter's record: largest dp/dt below 3000 mmHg/s
    assert np.abs(np.diff(lv)).max() / (time[1] - time[0]) < 3000.0
    assert beat.is_systole(np.array([0.1, 0.5])).tolist() == [True, False]


def test_a_stated_ejection_sets_systole():
    assert heartbeat(ejection_duration_s=0.25).systole[1] == pytest.approx(0.30)


def write_beat(path, time, pressure, header="time_s,pressure_mmHg"):
    rows = [f"{t:.6f},{p:.6f}" for t, p in zip(time, pressure, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path.name


def recorded(folder, shift=0.0):
    """A beat of 0.8 s as files; `shift` moves contraction within the record."""
    beat = heartbeat(heart_rate_per_min=75.0)
    time = np.linspace(0.0, 0.8, 161)
    aortic, lv = (in_mmHg(w, time - shift) for w in (beat.aortic, beat.lv))
    return {
        "aortic_pressure_file": write_beat(folder / "aortic.csv", time, aortic),
        "lv_pressure_file": write_beat(folder / "lv.csv", time, lv),
    }


def test_a_beat_from_files_is_the_recorded_one(tmp_path):
    built = heartbeat(heart_rate_per_min=75.0)
    both = heartbeat(tmp_path, **recorded(tmp_path))
    assert both.period == pytest.approx(0.8)
    assert float(both.aortic.mean[0]) / PA_PER_MMHG == pytest.approx(93.0, rel=1e-12)
    assert both.systole[0] == pytest.approx(0.02, abs=0.02)
    assert both.systole[1] == pytest.approx(built.systole[1], abs=0.01)
    moved = heartbeat(tmp_path, **recorded(tmp_path, shift=0.6))
    assert moved.systole[1] == pytest.approx(both.systole[1] + 0.6 - 0.8, abs=0.01)
    assert moved.is_systole(np.array([0.7, 0.0, 0.3])).tolist() == [True, True, False]


def test_the_ventricle_follows_a_recorded_aortic_pressure(tmp_path):
    del (files := recorded(tmp_path, shift=0.3))["lv_pressure_file"]
    beat, built = heartbeat(tmp_path, **files), heartbeat(heart_rate_per_min=75.0)
    time = np.linspace(0.0, 0.8, 400, endpoint=False)
    gap = in_mmHg(beat.lv, time) - in_mmHg(built.lv, time - 0.3)
    # a sample of the record moves the valve by up to 5 ms, and dp/dt is 2000 mmHg/s
    assert np.abs(gap).max() < 25.0 and np.abs(gap).mean() < 1.5
    assert beat.systole == pytest.approx(np.array(built.systole) + 0.3, abs=0.006)


TIME = np.linspace(0.0, 0.8, 81)
WAVE = 93.0 + 20.0 * np.sin(2.0 * np.pi * TIME / 0.8)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no such file"),
        ("", "the file is empty"),
        ("time_s,pressure\n0,1\n", "no column pressure_mmHg; its columns are time_s, pressure"),
        ("time_s,pressure_mmHg\n0,90\n0.8,90\n", "it has 2 rows"),
        ("time_s,pressure_mmHg\n0,90\n0.1,x\n", "line 3: pressure_mmHg is 'x'"),
        ("time_s,pressure_mmHg\n0,90\n0.1\n", "line 3: the number of its fields is 1"),
        ((TIME + 0.1, WAVE), "time_s starts at 0.1"),
        ((np.where(TIME > 0.4, 0.4, TIME), WAVE), "line 43: the time is 0.4 s, after 0.4 s"),
        ((TIME[:60], WAVE[:60]), "the first value is 93 and the last 73"),
        ((TIME, WAVE / 7.5), "its mean is 12.4 mmHg"),
        ((TIME, 93.0 + 100.0 * np.sin(2.0 * np.pi * TIME / 0.8)), "lowest aortic pressure is -7"),
        ((TIME / 4.0, WAVE), "an ejection of .* s leaves too little of a beat of 0.200 s"),
    ],
)
def test_an_aortic_record_that_cannot_be(tmp_path, text, says):
    if isinstance(text, str):
        (tmp_path / "a.csv").write_text(text)
    elif text is not None:
        write_beat(tmp_path / "a.csv", *text)
    with pytest.raises(InputError, match=says):
        heartbeat(tmp_path, aortic_pressure_file="a.csv")


@pytest.mark.parametrize(
    ("time", "pressure", "says"),
    [
        (TIME * 2.0, WAVE, "its beat lasts 1.6 s"),
        (TIME, WAVE * 0.5, "it runs from 36 to 56 mmHg and the aortic pressure from 73 to 113"),
        (TIME, WAVE + 30.0, "it runs from 103"),
    ],
)
def test_a_ventricular_record_that_cannot_be(tmp_path, time, pressure, says):
    files = {
        "aortic_pressure_file": write_beat(tmp_path / "a.csv", TIME, WAVE),
        "lv_pressure_file": write_beat(tmp_path / "v.csv", time, pressure),
    }
    with pytest.raises(InputError, match=says):
        heartbeat(tmp_path, **files)


def test_a_beat_needs_diastole():
    with pytest.raises(InputError, match="leaves too little of a beat"):
        heartbeat(heart_rate_per_min=150.0, ejection_duration_s=0.4)
    with pytest.raises(InputError, match="lowest aortic pressure"):
        heartbeat(inlet=60.0, pulse_pressure_mmHg=140.0)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"wall": {"law": "rigid"}}, "needs wall.law: elastic"),
        ({"wall": {}}, r"write wall: \{law: elastic\}"),
        ({"flow": "transient"}, "'steady' or 'pulsatile'"),
        ({"pulsatile": {"lv_pressure_file": "a.csv"}}, "needs aortic_pressure_file"),
        (
            {"pulsatile": {"aortic_pressure_file": "a.csv", "heart_rate_per_min": 60.0}},
            "give heart_rate_per_min or aortic_pressure_file",
        ),
        ({"pulsatile": {"heart_rate_per_min": 1.2}}, "greater than or equal to 30"),
        (
            {"pulsatile": {"states": ["stress"]}},
            "there is no state 'stress'; expected some of rest",
        ),
        ({"pulsatile": {"cell_time_s": 1.0}}, "less than or equal to 0.1"),
        ({"pulsatile": {"cell_time": 1e-4}}, "Extra inputs"),
    ],
)
def test_the_schema_refuses(change, says):
    with pytest.raises(ValidationError, match=says):
        Case.model_validate({**raw_case(), **change})


def test_check_reports_a_record(tmp_path):
    raw = raw_case(aortic_pressure_file="nowhere.csv")
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(raw))
    (finding,) = [f for f in check_case(tmp_path / "case.yaml", tmp_path) if f.severity == "error"]
    assert "nowhere.csv" in finding.where and "no such file" in finding.message


def test_the_example_is_sound():
    path = REPOSITORY / "examples" / "pulsatile.yaml"
    assert load_case(path).flow == "pulsatile"
    assert [f for f in check_case(path) if f.severity == "error"] == []


# --- a run ---


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small case on disk, coarse in space and time."""
    folder = tmp_path_factory.mktemp("beat")
    raw = raw_case(cell_time_s=1e-3)
    raw["lesions"] = [LESION]
    raw["boundary"] = {"pressure_hyperemia_mmHg": 87.0}
    raw["output"] = {"figures": False}
    (folder / "case.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
    return folder / "case.yaml"


@pytest.fixture(scope="module")
def solved(written):
    case, data = load_case(written), written.parent
    progress = Progress()
    prepared = prepare_case(case, data, progress)
    states = solve_case(prepared, progress)
    told = []
    progress.tell = lambda *said, at_most=False: told.append((*said, at_most))
    beat = heartbeat_of_case(case, data)
    pulsation = solve_pulsation(prepared, states, beat, progress)
    return collect(prepared, states), pulsation, told


def test_both_states_are_followed_over_one_beat(solved):
    results, pulsation, told = solved
    assert set(pulsation.beats) == {"rest", "hyperemia"}
    for state, beat in pulsation.beats.items():
        series = beat.series
        assert series.places == tuple(case_places(results.prepared))
        assert series.time[0] == 0.0 and series.time[-1] == pytest.approx(60.0 / 70.0)
        np.testing.assert_array_equal(series.pressure_static[0], series.pressure_static[-1])
        assert np.isfinite(series.pressure_static).all() and np.isfinite(series.flow).all()
        assert beat.cycles < 20
        most = results.prepared.case.pulsatile.cycles_max
        cycles = f"cycles at {state}, {beat.cells} cells"
        counts = [count for what, *count in told if what == cycles]
        assert counts == [[False], *([done, most, True] for done in range(1, beat.cycles + 1))]
        bed = [count for what, *count in told if what == f"outlets of the bed at {state}"]
        assert bed[-1] == [len(beat.outlet_flow)] * 2 + [False]
        inlet = series.index("LM", "ostium")
        aortic = in_mmHg(beat.heartbeat.aortic, series.time)
        assert np.abs(series.pressure_static[:, inlet] - aortic).max() < 3.0


def test_the_mean_of_a_beat_is_the_steady_solve(solved):
    results, pulsation, _ = solved
    said = pulsation_summary(results, pulsation)
    for state, beat in pulsation.beats.items():
        np.testing.assert_allclose(beat.outlet_flow, beat.outlet_flow_steady, rtol=0.03)
        for name in LARGE:
            branch = said.states[state].branches[name]
            assert branch.flow_mean_ml_min == pytest.approx(branch.flow_steady_ml_min, rel=0.05)
            assert branch.pressure_ratio == pytest.approx(branch.pressure_ratio_steady, abs=0.02)
        assert said.states[state].outlet_flow_relative_difference_max < 0.03
        assert abs(said.states[state].flow_relative_difference) < 0.02


def test_the_left_coronary_flows_in_diastole(solved):
    results, pulsation, _ = solved
    said = pulsation_summary(results, pulsation)
    heartbeat = pulsation.beats["rest"].heartbeat
    diastole = 1.0 - np.diff(heartbeat.systole)[0] / heartbeat.period
    for state in ("rest", "hyperemia"):
        for name in ("LM", "LAD", "LCx"):
            branch = said.states[state].branches[name]
            # 0.73 in 301 patients, at rest and at hyperemia: a velocity 1.85 and 1.76 times that
            # in systole (Seligman et al., EuroIntervention 2022, doi 10.4244/EIJ-D-21-00189)
            assert 0.65 < branch.diastolic_share < 0.85
            assert branch.flow_systolic_over_diastolic < 1.0
            share = branch.diastolic_share
            ratio = (1.0 - share) / (1.0 - diastole) / (share / diastole)
            assert branch.flow_systolic_over_diastolic == pytest.approx(ratio, rel=0.01)
    systolic = {state: beat.pressure_systolic_mmHg for state, beat in said.states.items()}
    assert systolic["rest"] - systolic["hyperemia"] == pytest.approx(6.0)
    for beat in said.states.values():
        assert beat.pressure_systolic_mmHg - beat.pressure_diastolic_mmHg == pytest.approx(40.0)
    assert sorted(said.states["rest"].territories) == ["LAD", "LCx", "RCA"]


def test_the_pressure_behind_the_lesion(solved):
    results, pulsation, _ = solved
    said = pulsation_summary(results, pulsation)
    rest, stress = (said.states[state].lesions[0] for state in ("rest", "hyperemia"))
    assert stress.pressure_ratio < rest.pressure_ratio < 1.0
    assert stress.pressure_ratio == pytest.approx(stress.pressure_ratio_steady, abs=0.02)
    assert stress.pressure_ratio_steady == pytest.approx(
        float(results.ffr[results.prepared.network.lesion.segment[-1], 1])
    )


def test_the_bed_keeps_its_steady_calibre(solved):
    results, pulsation, _ = solved
    prepared, found = results.prepared, results.solved.solutions["hyperemia"]
    assert followed_segments(prepared).all()
    none = np.zeros(prepared.network.n_segments, bool)
    bed = rigid_bed(prepared.problem, found, none)
    assert bed.wall.is_rigid
    area = prepared.problem.wall.area(found.pressure_static, prepared.network.radius)
    np.testing.assert_allclose(np.pi * np.asarray(bed.network.radius) ** 2, area, rtol=1e-12)
    # narrower than at the reference pressure behind the lesion
    assert (bed.network.radius <= prepared.network.radius * (1.0 + 1e-3)).all()
    kept = rigid_bed(prepared.problem, found, ~none)
    np.testing.assert_array_equal(kept.network.radius, prepared.network.radius)
    for beat in pulsation.beats.values():
        assert beat.bed_error < 1e-6


def test_rows_and_figure(solved, tmp_path):
    results, pulsation, _ = solved
    rows = waveform_rows(pulsation)
    moments = [len(beat.series.time) for beat in pulsation.beats.values()]
    assert set(moments) <= {101, 201, 401}
    assert len(rows) == sum(moments) * (3 * len(results.prepared.tree.branch_name) + 1)
    (tmp_path / "figures").mkdir()
    write_waveform_figure(tmp_path / "figures", results, pulsation)
    assert (tmp_path / "figures" / "waveforms.png").stat().st_size > 20_000
    drawn = [_beat_panels(results, s, b)[0].curves["aorta"] for s, b in pulsation.beats.items()]
    assert drawn[0].max() - drawn[1].max() == pytest.approx(6.0, abs=0.2)


def test_the_command_line_writes_waveforms(written, solved, tmp_path):
    out = tmp_path / "out"
    command = ["run", str(written), "--out", str(out)]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "diastolic share" in result.stdout and "behind the lesion" in result.stdout
    with (out / "waveforms.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "state",
        "branch",
        "place",
        "arc_mm",
        "time_s",
        "pressure_static_mmHg",
        "flow_ml_min",
    ]
    assert {row["state"] for row in rows} == {"rest", "hyperemia"}
    assert {(row["branch"], row["place"]) for row in rows} >= {
        ("LM", "ostium"),
        ("LAD", "proximal"),
        ("LAD", "behind lesion 1"),
        ("RCA", "distal"),
    }
    said = json.loads((out / "summary.json").read_text())["pulsatile"]
    expected = pulsation_summary(*solved[:2])
    for state in ("rest", "hyperemia"):
        found = said["states"][state]["branches"]["LAD"]
        assert found == pytest.approx(expected.states[state].branches["LAD"].model_dump(), rel=1e-6)
    assert yaml.safe_load((out / "config.yaml").read_text())["flow"] == "pulsatile"
    # the configuration of a run is a case again
    Case.model_validate(yaml.safe_load((out / "config.yaml").read_text()))


def test_a_flow_that_fails_is_a_failed_solve(solved, monkeypatch):
    results, pulsation, _ = solved

    def fail(*args, **kwargs):
        raise SolveError(RESULTS.vessel_collapsed, "It was seen first in LAD (vessel 2).")

    monkeypatch.setattr("jaxperf.study._pulsatile.solve_periodic", fail)
    with pytest.raises(
        SolveError, match=r"in LAD \(vessel 2\)\. This was pulsatile flow at rest\."
    ):
        solve_pulsation(
            results.prepared, results.solved, pulsation.beats["rest"].heartbeat, Progress()
        )


# --- places and means ---


def test_places_lie_at_ends_and_middle(solved):
    network = solved[0].prepared.tree
    proximal, middle, distal = branch_places(network, "LAD")
    course, start = branch_course(network, "LAD")
    length = np.asarray(network.length)
    assert (proximal.name, distal.name) == ("proximal", "distal")
    assert distal.arc_mm == pytest.approx(1e3 * length[course].sum())
    at = start[list(course).index(middle.segment)] + middle.fraction * length[middle.segment]
    assert 1e3 * at == pytest.approx(0.5 * distal.arc_mm) == middle.arc_mm


def test_means_over_parts_of_a_cycle():
    time = np.linspace(0.0, 2.0, 101)
    nothing = np.zeros((101, 0))
    series = Series((), 2.0, time, nothing, nothing)
    wave = np.where(time < 1.0, 3.0, 1.0)
    wave[-1] = wave[0]
    assert series.mean(np.sin(np.pi * time)) == pytest.approx(0.0, abs=1e-12)
    assert series.mean(wave, series.fine < 0.97) == pytest.approx(3.0)
    assert series.mean(wave, (series.fine > 1.0) & (series.fine < 1.97)) == pytest.approx(1.0)
