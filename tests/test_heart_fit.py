"""Fitting a heart: its unknowns, what was measured, the posterior, the diagnosis, the command."""

import csv
import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml
from test_padding import compilations
from test_states import case_with
from typer.testing import CliRunner

from jaxperf import InputError, Progress
from jaxperf.casefile import Case, FitSection, Severity, Wire
from jaxperf.casefile._schema import AutoregulationSection
from jaxperf.cli import app, BAD_INPUT
from jaxperf.inverse import fit, laplace
from jaxperf.inverse._programs import jacobian, linearise
from jaxperf.jobs import fit_case, measured_rows, with_measurements
from jaxperf.report import FitSummary
from jaxperf.study import (
    heart_problem,
    labels_of,
    Measured,
    OPENED,
    prepare_case,
    read_measured,
    severity,
    solve_case,
    synthetic_measurement,
    synthetic_truth,
    territory_quantities,
)

WIRE = Wire(branch="LAD", at_mm=30.0, ratio=0.8)
BY_TERRITORY = {"demand": {"by": "territory"}, "reserve": {"by": "territory"}, "starts": 1}
# So little that the prior plays no part.
NOISE = {"segment": 0.01, "scan": 0.0, "shared": 0.0}
SHARP = {"pet": {"noise": NOISE}}


def section(**changes) -> FitSection:
    return FitSection.model_validate({**BY_TERRITORY, **changes})


@pytest.fixture(scope="module")
def heart():
    prepared = prepare_case(case_with(), ".", Progress())
    return prepared, solve_case(prepared, Progress())


@pytest.fixture(scope="module")
def truth(heart):
    return synthetic_truth(*heart, section(**SHARP), wires=(WIRE,), key=jax.random.key(2))


@pytest.fixture(scope="module")
def found(heart, truth):
    """A fit to what the truth gives without noise, its mesh and vessels included."""
    measured = synthetic_measurement(truth, (WIRE,), None)
    problem, wider = heart_problem(*heart, section(**SHARP), measured)
    fitted = fit(problem, starts=1, tolerance=1e-6)
    return problem, wider, fitted, laplace(fitted)


def test_a_fit_explains_data_without_noise(truth, found):
    _, _, fitted, posterior = found
    assert fitted.solves <= 10 and not fitted.failed
    assert float(jnp.abs(fitted.best.residual).max()) < 0.3
    flow = lambda seen: jnp.concatenate([seen.mbf_segment[s] for s in ("rest", "hyperemia")])
    value, _ = posterior.jacobian(lambda values, seen: flow(seen))
    np.testing.assert_allclose(value, flow(truth.seen), rtol=5e-3)
    # by territory every coordinate is an entry
    sd = np.linalg.norm(np.asarray(posterior.factor), axis=1)
    assert (np.abs(fitted.best.xi - truth.xi) < 3.0 * sd).all()


def test_derivatives_by_every_kind_of_unknown(heart, truth):
    """The Jacobian against differences, and against adjoints, along random directions."""
    measured = synthetic_measurement(truth, (WIRE,), None)
    kinds = {"demand": {"by": "hierarchy"}, "reserve": {"by": "region", "length_mm": 60}}
    said = section(**kinds, mobility={}, extent={})
    problem, _ = heart_problem(*heart, said, measured)
    rng = np.random.default_rng(0)
    xi = jnp.asarray(0.3 * rng.standard_normal(problem.size))
    at = linearise(problem, xi, None)
    slope = np.asarray(jacobian(problem, at, 8))
    residual = eqx.filter_jit(lambda xi: problem.residual(xi)[0])
    along, h = rng.standard_normal(problem.size), 1e-3
    value = {k: np.asarray(residual(xi + k * h * along)) for k in (-2, -1, 1, 2)}
    difference = (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)
    np.testing.assert_allclose(slope @ along, difference, rtol=1e-6, atol=1e-7)
    weight = jnp.asarray(rng.standard_normal(problem.n_data))
    pulled = jax.grad(lambda xi: jnp.vdot(weight, residual(xi)))(xi)
    np.testing.assert_allclose(np.asarray(weight) @ slope, pulled, rtol=1e-7, atol=1e-8)
    assert (np.linalg.norm(slope, axis=0) > 0).all()


def test_rest_tells_of_demand_and_stress_of_reserve(found):
    problem, _, _, posterior = found
    flow = lambda seen: jnp.stack([jnp.log(seen.mbf_segment[s]) for s in ("rest", "hyperemia")])
    _, slope = posterior.jacobian(lambda values, seen: flow(seen))
    rest, stress = np.abs(slope)
    for i, name in enumerate(problem.entries):
        if name.startswith("demand"):
            assert rest[:, i].max() > 0.15 and stress[:, i].max() == 0.0
        if name.startswith("reserve"):
            assert stress[:, i].max() > 0.2 and rest[:, i].max() < 0.1 * stress[:, i].max()


def test_padding_changes_nothing(heart, truth):
    """The model of the padded problem against the plain states, solved one by one."""
    prepared, solved = heart
    blank = Measured({s: np.ones(17) for s in ("rest", "hyperemia")}, (WIRE,))
    _, wider = heart_problem(prepared, solved, section(demand=None, reserve=None), blank)
    xi = jnp.zeros(wider.size)
    seen = wider.solve(xi)[0]
    # the median of every unknown is the case itself
    for state in ("rest", "hyperemia"):
        n = prepared.heart.mesh.n_cells
        np.testing.assert_allclose(seen.mbf[state][:n], solved.solutions[state].mbf, rtol=1e-6)
        assert not seen.mbf[state][n:].any()
        ratio = seen.pressure_ratio[state][: prepared.network.n_segments]
        aortic = prepared.case.boundary.pressure_inlet_mmHg * 133.322
        expected = solved.solutions[state].pressure_static / aortic
        np.testing.assert_allclose(ratio, expected, rtol=1e-6)


def test_a_stent_is_the_heart_without_its_lesion(heart, found):
    prepared, _ = heart
    _, wider, fitted, _ = found
    seen = wider.solve(fitted.best.xi)[0]
    quantities = territory_quantities(prepared, wider.model.segment.shape[0])
    (ffr,) = quantities.ffr(seen)
    opened = seen.pressure_ratio[OPENED][quantities.lesion_segment[0], 1]
    assert float(ffr) < float(opened) < 1.0
    (fed,) = np.flatnonzero(quantities.fed[0])
    assert prepared.territory_name[fed] == "LAD"
    gain = quantities.flow(seen, OPENED) / quantities.flow(seen, "hyperemia")
    assert int(np.argmax(gain)) == fed and float(gain[fed]) > 1.01


TWO = [
    {"branch": "LAD", "start_mm": 12, "end_mm": 22, "diameter_reduction": 0.6},
    {"branch": "LCx", "start_mm": 5, "end_mm": 15, "diameter_reduction": 0.4},
]


def test_two_lesions_of_a_padded_heart_and_states_that_were_not_measured():
    """Values reach their own lesion, opened ones stay open, reserve reaches predicted stress."""
    prepared = prepare_case(case_with(lesions=TWO), ".", Progress())
    solved = solve_case(prepared, Progress())
    blank = Measured({"rest": np.ones(17)}, ())
    _, wider = heart_problem(prepared, solved, section(extent={}), blank)
    model = wider.model
    assert set(model.problems) == {
        "rest", "hyperemia", OPENED, "without_lesion_1", "without_lesion_2"
    }  # fmt: skip
    values = {name: np.asarray(x) for name, x in wider.values(jnp.zeros(wider.size)).items()}
    values |= {"severity": np.array([0.7, 0.5]), "extent": np.array([2.0, 1.0])}
    values["reserve"] = np.full(3, 0.5)

    def changed(state):
        problem = model.problems[state]
        for name, change in model.changes.items():
            problem = change(problem, state, jnp.asarray(values[name]))
        return problem

    reduction = lambda state: np.asarray(changed(state).network.lesion.diameter_reduction)
    assert reduction("hyperemia")[:2].tolist() == [0.7, 0.5] and not reduction("rest")[2:].any()
    assert reduction("without_lesion_1")[:2].tolist() == [0.0, 0.5]
    assert not reduction(OPENED).any()
    length = np.asarray(changed("hyperemia").network.lesion.length)[:2]
    np.testing.assert_allclose(length, [0.02, 0.01])
    dilation = np.asarray(solved.states["hyperemia"].microcirculation.dilation)
    for state in ("hyperemia", OPENED):
        found = np.asarray(changed(state).microcirculation.dilation)
        np.testing.assert_allclose(found[: prepared.problem.tissue.n_terminals], 0.5 * dilation)
    assert np.asarray(changed("rest").microcirculation.dilation).max() == 1.0


def test_the_prior_of_a_lesion_is_as_wide_as_it_says():
    for declared in (0.2, 0.5, 0.6, 0.8):
        case = case_with(lesions=[{**TWO[0], "diameter_reduction": declared}])
        prepared = prepare_case(case, ".", Progress())
        parameter = severity(prepared, Severity(), {}).parameter
        low, middle, high = (float(parameter.value(jnp.full(1, z))[0]) for z in (-1.0, 0.0, 1.0))
        assert middle == pytest.approx(declared) and 0.5 * (high - low) == pytest.approx(0.1)


def test_demand_without_autoregulation_is_refused(heart):
    prepared, solved = heart
    case = prepared.case.model_copy(update={"autoregulation": AutoregulationSection(enabled=False)})
    blank = Measured({"rest": np.ones(17)}, ())
    with pytest.raises(InputError, match="Write demand: null"):
        heart_problem(dataclasses.replace(prepared, case=case), solved, section(), blank)


def test_labels_follow_their_definitions():
    ffr = np.array([[0.79], [0.81], [0.80], [0.9]])
    reserve = np.array([[3.0, 1.9], [2.0, 2.0], [1.0, 3.0], [3.0, 3.0]])
    obstructed, failing = labels_of(ffr, reserve, np.array([[True, False]]))
    assert obstructed.tolist() == [[True, False], [False, False], [True, False], [False, False]]
    assert failing.tolist() == [[False, True], [False, False], [True, False], [False, False]]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "nothing was measured"),
        ({"wires": [{"branch": "LAD", "at_mm": 30, "ratio": 0.8, "state": "bliss"}]}, "bliss"),
        ({"pet": {"segments": "nowhere.csv"}}, "nowhere.csv"),
    ],
)
def test_measurements_that_cannot_be_used(heart, tmp_path, changes, says):
    with pytest.raises(InputError, match=says):
        read_measured(heart[0], section(**changes), tmp_path)


def test_a_heart_that_was_not_solved_is_no_healthy_one():
    with pytest.raises(InputError, match="no number for its FFR"):
        labels_of(np.array([[np.nan]]), np.ones((1, 1)), np.ones((1, 1), bool))


def test_a_lesion_of_several_territories_obstructs_all_of_them():
    ffr, reserve = np.array([[0.7, 0.9]]), np.full((1, 3), 3.0)
    fed = np.array([[True, True, False], [False, False, True]])
    assert labels_of(ffr, reserve, fed)[0].tolist() == [[True, True, False]]


def test_a_wire_in_a_vessel_that_is_not_there(heart):
    lost = Measured({}, (Wire(branch="RIMA", at_mm=3.0, ratio=0.8),))
    with pytest.raises(InputError, match="RIMA"):
        heart_problem(*heart, section(), lost)


def test_segments_without_a_value_are_left_out_and_named(heart, truth):
    measured = synthetic_measurement(truth, (WIRE,), None)
    hole = measured.mbf_ml_min_g["rest"].copy()
    hole[16] = np.nan
    holed = Measured({**measured.mbf_ml_min_g, "rest": hole}, ())
    problem, _ = heart_problem(*heart, section(), holed)
    assert problem.n_data == 33 and problem.left_out == ("PET[rest, apex]",)


@pytest.fixture(scope="module")
def written(truth, tmp_path_factory):
    """A case with its PET table and wire, fitted through the command line."""
    folder = tmp_path_factory.mktemp("fit")
    measured = synthetic_measurement(truth, (WIRE,), jax.random.key(3))
    rows = measured_rows(measured)
    with (folder / "pet.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    (folder / "ffr.csv").write_text(f"branch,at_mm,ffr\nLAD,30,{measured.wires[0].ratio:.3f}\n")
    raw = case_with().model_dump(mode="json", exclude_unset=True)
    (folder / "case.yaml").write_text(yaml.safe_dump({**raw, "fit": BY_TERRITORY}))
    command = ["fit", str(folder / "case.yaml"), "--pet", str(folder / "pet.csv")]
    command += ["--ffr", str(folder / "ffr.csv"), "--out", str(folder / "out"), "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return folder, command, json.loads(result.stdout)


def test_the_command_writes_a_run_folder(written):
    folder, command, said = written
    out = folder / "out"
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {
        "config.yaml",
        "versions.json",
        "written.json",
        "summary.json",
        "parameters.csv",
        "segments17.csv",
        "measured.csv",
        "posterior.npz",
        "citation.bib",
        "report.html",
        "figures/bullseye_rest.png",
        "figures/bullseye_hyperemia.png",
        "figures/parameters.png",
        "figures/ffr.png",
    }
    assert said.pop("out") == str(out)
    summary = FitSummary.model_validate_json((out / "summary.json").read_text())
    assert summary == FitSummary.model_validate(said)
    assert [x.name for x in summary.diagnosis] == ["LAD", "RCA", "LCx", "patient"]
    for row in summary.diagnosis:
        assert sum(row.probability.values()) == pytest.approx(1.0)
    assert summary.values == 35 and len(summary.parameters) == 9
    lesion = summary.lesions[0]
    assert lesion.ffr.low < lesion.ffr.median < lesion.ffr.high < lesion.opened.ffr.median < 1.0
    assert not (folder / "out.partial").exists()
    Case.model_validate(yaml.safe_load((out / "config.yaml").read_text()))
    again = CliRunner().invoke(app, command)
    assert again.exit_code == BAD_INPUT and "exists" in again.stderr


def test_a_fit_that_was_stopped_goes_on(heart, truth, tmp_path, monkeypatch):
    """Stopped after a start, it takes what was kept and ends with the same values."""
    case = case_with(fit={**BY_TERRITORY, "starts": 2}, output={"figures": False})
    measured = synthetic_measurement(truth, (WIRE,), jax.random.key(3))
    whole = fit_case(case, out=tmp_path / "whole", measured=measured, report=False)
    stop = lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt)
    with monkeypatch.context() as patch:
        patch.setattr("jaxperf.study._fit.laplace", stop)
        with pytest.raises(KeyboardInterrupt):
            fit_case(case, out=tmp_path / "out", measured=measured, report=False)
    assert list((tmp_path / "out.partial").glob("*/modes")) and not (tmp_path / "out").exists()
    with monkeypatch.context() as patch:
        patch.setattr("jaxperf.inverse._method.LevenbergMarquardt.advance", stop)
        gone_on = fit_case(case, out=tmp_path / "out", measured=measured, report=False)
    assert gone_on.parameters == whole.parameters and gone_on.cost == whole.cost
    assert not (tmp_path / "out.partial").exists()


def test_one_kind_of_scan_at_a_time():
    with pytest.raises(InputError, match="one table, or a map for each state"):
        with_measurements(case_with(), ["a.csv", "rest=b.nii.gz"], None)
    case = with_measurements(case_with(), ["rest=b.nii", "hyperemia=c.nii"], None)
    assert case.fit is not None and case.fit.pet is not None
    assert set(case.fit.pet.maps) == {"rest", "hyperemia"}


def test_fits_of_two_patients_share_their_programs(heart, truth, found):
    """Another wall, lesion and aortic pressure compile nothing again."""
    other = case_with(
        title="another",
        lesions=[{"branch": "LAD", "start_mm": 14, "end_mm": 22, "diameter_reduction": 0.5}],
        boundary={"pressure_inlet_mmHg": 88.0},
        ventricle={"ellipsoid": {"spacing_mm": 5.0, "wall_base_mm": 9.4}},
    )
    prepared = prepare_case(other, ".", Progress())
    assert prepared.heart.mesh.n_cells != heart[0].heart.mesh.n_cells
    measured = synthetic_measurement(truth, (WIRE,), None)
    problem, _ = heart_problem(
        prepared, solve_case(prepared, Progress()), section(**SHARP), measured
    )
    with compilations() as count:
        fitted = fit(problem, starts=1, tolerance=1e-6)
        laplace(fitted)
    assert not count
    assert fitted.problem.entries != found[2].problem.entries
