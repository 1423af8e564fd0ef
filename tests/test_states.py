"""States of a case beside rest and hyperemia, and what is observed of all of them."""

import csv
import json
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
import pytest
from pydantic import ValidationError

from jaxperf import Progress
from jaxperf.casefile import Case, FitSection
from jaxperf.jobs import demo_case, run_case
from jaxperf.observe import observe
from jaxperf.plot import territory_colours
from jaxperf.report import fit_summary_schema, Summary, summary_schema
from jaxperf.report._figures import flow_scale, pullback_curves
from jaxperf.report._schema import TerritoryFlow
from jaxperf.study import collect, prepare_case, solve_case
from jaxperf.study._unknowns import heart_unknowns
from jaxperf.units import M3_S_KG_PER_ML_MIN_G

REPOSITORY = Path(__file__).resolve().parents[1]
STATES = {
    "stent": {"without_lesions": "all"},
    "low": {"like": "rest", "pressure_inlet_mmHg": 80.0},
    "healthy": {"without_lesions": "all", "pressure_inlet_mmHg": 60.0},
}
STRESS_MMHG = 85.0


def case_with(**changes) -> Case:
    return Case.model_validate(
        {**demo_case(5.0).model_dump(), "growth": None, "title": "states", **changes}
    )


@pytest.fixture(scope="module")
def results():
    pressures = {"pressure_hyperemia_mmHg": STRESS_MMHG}
    prepared = prepare_case(case_with(states=STATES, boundary=pressures), ".", Progress())
    return collect(prepared, solve_case(prepared, Progress()))


def test_a_stent_is_the_heart_without_its_lesion(results):
    pressures = {"pressure_hyperemia_mmHg": STRESS_MMHG}
    prepared = prepare_case(case_with(lesions=[], boundary=pressures), ".", Progress())
    healthy = collect(prepared, solve_case(prepared, Progress()))
    assert results.states == ("rest", "hyperemia", *STATES)
    expected, found = healthy.solution("hyperemia"), results.solution("stent")
    np.testing.assert_allclose(found.mbf, expected.mbf, rtol=1e-7)
    np.testing.assert_allclose(found.terminal_pressure, expected.terminal_pressure, rtol=1e-7)
    assert results.ffr.min() < 0.9 * np.min(results.observed.pressure_ratio["stent"])


def test_the_pull_back_shows_lesions_and_the_lowest_ffr(results):
    curves, n_branches = pullback_curves(results)
    tree = results.prepared.tree
    assert n_branches == len(tree.branch_name) > len(curves) == 12
    lowest = int(np.argmin(results.ffr_tree.min(axis=1)))
    named = {curve.name: curve for curve in curves}
    assert {"LAD", tree.branch_name[int(tree.branch[lowest])]} <= set(named)
    reached = min(float(c.ratio["hyperemia"].min()) for c in curves)
    assert reached == pytest.approx(float(results.ffr_tree.min()))
    colours = territory_colours(("LAD", "LCx", "RCA"))
    assert named["LAD"].colour == colours["LAD"] and named["RCA"].colour == colours["RCA"]
    assert list(named["LAD"].ratio)[:2] == ["rest", "hyperemia"]


def test_polar_maps_of_rest_share_one_scale(results):
    case, flow = results.prepared.case, np.full(17, 0.4)
    assert flow_scale(case, "rest", flow) == flow_scale(case, "low", 3.0 * flow) == (0.0, 2.0)
    assert flow_scale(case, "rest", 6.5 * flow)[1] >= 2.6
    assert flow_scale(case, "hyperemia", flow) == flow_scale(case, "stent", flow) == (0.0, 5.0)


def test_a_pressure_of_its_own_leaves_the_bed_as_it_is(results):
    assert results.pressure_aortic("low") == pytest.approx(80.0 * 133.322)
    assert results.solved.states["low"].microcirculation is results.solved.calibration.rest
    # the bed at rest holds its flow
    low, rest = (np.asarray(results.solution(s).terminal_flow).sum() for s in ("low", "rest"))
    assert 0.95 < low / rest < 1.0


def test_maximal_flow_follows_the_aortic_pressure(results):
    """Stress is calibrated at its own pressure, and the bed keeps its conductances at others."""
    assert results.pressure_aortic("hyperemia") == pytest.approx(STRESS_MMHG * 133.322)
    assert results.pressure_aortic("stent") == pytest.approx(STRESS_MMHG * 133.322)
    mbf = {s: np.asarray(results.solution(s).terminal_flow).sum() for s in results.states}
    # rigid vessels without lesions: nothing on the way but Poiseuille's loss
    assert mbf["healthy"] / mbf["stent"] == pytest.approx(60.0 / STRESS_MMHG, rel=1e-9)
    found = results.solved.calibration
    mass = float(np.sum(results.prepared.problem.tissue.volume)) * 1050.0
    reached = mbf["stent"] / mass / M3_S_KG_PER_ML_MIN_G
    assert reached == pytest.approx(found.mbf_hyperemia_ml_min_g, rel=1e-9)
    assert found.mbf_rest_ml_min_g == pytest.approx(1.0, rel=1e-6)


def test_a_fit_starts_each_state_at_its_own_pressure(results):
    prepared, states = results.prepared, results.solved.states
    kind = {name: prepared.case.likeness(name) for name in states}
    said = FitSection.model_validate({"demand": None, "reserve": None, "severity": None})
    (unknown,) = heart_unknowns(
        prepared, said, states, kind=kind, like={name: kind[name] for name in states}, n_terminals=1
    )
    rest, hyperemia = np.asarray(unknown.parameter.prior.median)
    assert (rest, hyperemia) == (93.0, STRESS_MMHG)
    for name, state in states.items():
        problem = state.of(prepared.problem)
        moved = unknown.change(
            problem, name, jax.device_put(np.array([rest + 2.0, hyperemia - 3.0]))
        )
        above = 2.0 if kind[name] == "rest" else -3.0
        np.testing.assert_allclose(
            moved.boundary[0].pressure, problem.boundary[0].pressure + above * 133.322
        )
        bed = moved.microcirculation
        assert bed.beta_source is problem.microcirculation.beta_source
        assert bed.dilation is problem.microcirculation.dilation


def test_observations_are_those_of_raw_arrays(results):
    prepared = results.prepared
    volume, segment = np.asarray(prepared.problem.tissue.volume), prepared.segment
    for state in results.states:
        solution = results.solution(state)
        aortic = {"rest": 93.0, "low": 80.0, "healthy": 60.0}.get(state, STRESS_MMHG) * 133.322
        np.testing.assert_allclose(
            results.observed.pressure_ratio[state],
            np.asarray(solution.pressure_static) / aortic,
            rtol=1e-12,
        )
        mbf = np.asarray(solution.mbf)
        for k in range(17):
            here = segment == k + 1
            mean = (mbf[here] @ volume[here]) / volume[here].sum()
            np.testing.assert_allclose(
                results.observed.mbf_segment[state][k], mean, rtol=1e-12, err_msg=state
            )


def test_observations_pass_derivatives(results):
    """Along a line of solutions, against a difference of fourth order."""
    segment = jax.device_put(results.prepared.segment)
    solution = results.solution("hyperemia")
    moving, fixed = eqx.partition(solution, eqx.is_inexact_array)
    key = iter(jax.random.split(jax.random.key(3), 32))
    step = jax.tree.map(lambda x: x * jax.random.normal(next(key), x.shape), moving)

    def seen(t):
        there = jax.tree.map(lambda x, d: x + t * d, moving, step)
        found = observe(results.prepared.problem, {"x": eqx.combine(there, fixed)}, segment)
        return found.mbf_segment["x"], found.pressure_ratio["x"]

    _, slope = jax.jvp(seen, (0.0,), (1.0,))
    h = 1e-3
    at = {k: seen(k * h) for k in (-2, -1, 1, 2)}
    for i in range(2):
        difference = (8 * (at[1][i] - at[-1][i]) - (at[2][i] - at[-2][i])) / (12 * h)
        np.testing.assert_allclose(slope[i], difference, rtol=1e-7, atol=1e-9)


def test_a_run_writes_every_state(tmp_path):
    case = case_with(states=STATES, output={"figures": True})
    said = run_case(case, out=tmp_path / "run")
    assert set(said.mbf_mean_ml_min_g) == {"rest", "hyperemia", *STATES}
    (lesion,) = said.lesions
    assert lesion.pressure_ratio["hyperemia"] == lesion.ffr < 0.85
    assert lesion.pressure_ratio["stent"] > 0.9
    with (tmp_path / "run" / "branches.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["flow_stent_ml_min"]) > float(row["flow_hyperemia_ml_min"])
    written = (tmp_path / "run" / "summary.json").read_text()
    # NaN, where a segment has no half, equals nothing
    assert Summary.model_validate_json(written).model_dump_json() == said.model_dump_json()
    assert json.loads(written)["schema_version"] == 1


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({"rest": {}}, "states.rest: the name is taken"),
        ({"stent": {"without_lesions": [2]}}, "the case declares 1 lesions"),
        ({"A/B": {}}, "should match pattern"),
        ({"stent": {"pressure_inlet_mmHg": -1}}, "greater than or equal to 20"),
        ({"stent": {"pressure_inlet_mmHg": 12400}}, "less than or equal to 300"),
    ],
)
def test_impossible_states_are_refused(states, said):
    with pytest.raises(ValidationError, match=said):
        case_with(states=states)


def test_the_published_schema_of_the_summary_is_current():
    for name, schema in (("summary", summary_schema()), ("fit_summary", fit_summary_schema())):
        published = json.loads((REPOSITORY / "docs" / f"{name}.schema.json").read_text())
        assert published == schema


def test_what_does_not_exist_is_null_in_the_file_and_nan_in_python():
    flow = {"mbf_ml_min_g": {"rest": 0.0}, "cfr": float("nan"), "volume_share": 1.0}
    text = TerritoryFlow(**flow).model_dump_json()
    assert json.loads(text)["cfr"] is None
    assert np.isnan(TerritoryFlow.model_validate_json(text).cfr)
    with pytest.raises(ValidationError, match="Extra inputs"):
        TerritoryFlow(**flow, mbf=1.0)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"boundary": {"pressure_hyperemia_mmHg": 25.0}}, "boundary.pressure_hyperemia_mmHg"),
        ({"states": {"low": {"pressure_inlet_mmHg": 28.0}}}, "states.low.pressure_inlet_mmHg"),
        ({"boundary": {"pressure_inlet_mmHg": 29.0}}, "boundary.pressure_inlet_mmHg"),
    ],
)
def test_no_state_lies_below_its_capillaries(changes, said):
    with pytest.raises(ValidationError, match=f"must fall from {said}"):
        case_with(**changes, microcirculation={"pressure_capillary_mmHg": 30.0})
