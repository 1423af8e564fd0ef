"""Schema, solve failures, the composite case of the reference data."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest
from coupled_cases import small_problem
from helpers import data_dir, requires_data
from pydantic import BaseModel
from scipy.spatial import KDTree

from jaxperf import InputError, Progress
from jaxperf.anatomy import demo_tree
from jaxperf.casefile import Case, case_schema, load_case
from jaxperf.coupling import solve_perfusion
from jaxperf.darcy import ConjugateGradient
from jaxperf.geometry import ellipsoid_ventricle, TetMesh
from jaxperf.jobs import demo_case, on_grid
from jaxperf.steady import worst_vessel
from jaxperf.study import (
    build_heart,
    build_tree,
    check_case,
    darcy_method,
    prepare_case,
    solve_case,
)
from jaxperf.units import M3_S_KG_PER_ML_MIN_G

REPOSITORY = Path(__file__).resolve().parents[1]
COMPOSITE = REPOSITORY / "examples" / "composite.yaml"


def _sections(model, seen):
    for field in model.model_fields.values():
        yield model, field
        for part in [field.annotation, *getattr(field.annotation, "__args__", ())]:
            if isinstance(part, type) and issubclass(part, BaseModel) and part not in seen:
                seen.add(part)
                yield from _sections(part, seen)


def test_every_key_has_a_description():
    found = list(_sections(Case, set()))
    assert len(found) > 70
    assert all(field.description for _, field in found)


def test_the_published_schema_is_current():
    published = json.loads((REPOSITORY / "docs" / "case.schema.json").read_text())
    assert published == json.loads(json.dumps(case_schema())), "run: jaxperf schema"


def test_lengths_pressures_and_flows_name_their_unit():
    units = ("_mm", "_mmHg", "_ml_min", "_ml_min_g", "_m2_per_Pa_s", "_deg", "_Pa", "_kg_m3")
    for model, field in _sections(Case, set()):
        names = [n for n, f in model.model_fields.items() if f is field]
        for name in names:
            if name == "flow":  # the choice between steady and pulsatile flow
                continue
            physical = name.split("_")[0] in {"pressure", "permeability", "density", "mbf", "flow"}
            assert not physical or name.endswith(units), name


def test_an_unknown_darcy_solver_is_named():
    with pytest.raises(InputError, match="no Darcy solver 'oracle'"):
        darcy_method("oracle", small_problem(spacing_mm=5.0)[0])


@pytest.fixture
def registered_solvers(tmp_path, monkeypatch):
    """An installed package that registers three solvers; only `crystal` can be imported."""
    info = tmp_path / "oracles-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: oracles\nVersion: 1.0\nProvides-Extra: cards\n"
    )
    (info / "entry_points.txt").write_text(
        "[jaxperf.darcy_solvers]\n"
        "crystal = crystal_ball:solver\n"
        "cards = absent_cards:solver [cards]\n"
        "leaves = absent_leaves:solver\n"
    )
    (tmp_path / "crystal_ball.py").write_text(
        "from jaxperf.darcy import ConjugateGradient\n"
        "asked = []\n"
        "def solver(mesh, permeability):\n"
        "    asked.append((mesh, permeability))\n"
        "    return ConjugateGradient()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)


def test_a_registered_darcy_solver_gets_mesh_and_permeability(registered_solvers):
    problem = small_problem(spacing_mm=5.0)[0]
    assert isinstance(darcy_method("crystal", problem), ConjugateGradient)
    ((mesh, permeability),) = importlib.import_module("crystal_ball").asked
    assert mesh is problem.tissue.mesh
    assert permeability is problem.microcirculation.permeability
    with pytest.raises(InputError, match=r"one of conjugate_gradient, multigrid, .*crystal.*\. "):
        darcy_method("oracle", problem)


@pytest.mark.parametrize(
    ("name", "install"), [("cards", "oracles[cards]"), ("leaves", "oracles")], ids=["extra", "none"]
)
def test_a_darcy_solver_without_its_extra_says_what_to_install(registered_solvers, name, install):
    with pytest.raises(InputError) as raised:
        darcy_method(name, small_problem(spacing_mm=5.0)[0])
    assert str(raised.value) == (
        f"darcy.solver: the Darcy solver {name!r} cannot be imported: No module named "
        f"'absent_{name}'. Expected all that absent_{name}:solver needs. Install it (pip install "
        f"{install}), or use conjugate_gradient."
    )


def test_the_worst_vessel():
    network = demo_tree(ellipsoid_ventricle(spacing_mm=5.0)[2])
    segment = int(np.flatnonzero(np.asarray(network.branch) == network.branch_name.index("D1"))[2])
    flow, pressure = np.ones(network.n_segments), np.full(network.n_nodes, 1e4)
    flow[segment] = np.nan
    assert "D1" in worst_vessel(network, pressure, flow)
    assert "narrowest" in worst_vessel(network, pressure, flow * np.nan)
    below = np.asarray(network.segment_node)[segment, 1]
    pressure[below] = 0.0
    flow[segment] = 1.0
    assert "D1" in worst_vessel(network, pressure, flow)


def test_a_field_on_the_grid_of_tetrahedra_cut_from_it():
    case = demo_case(4.0).model_dump()
    case["ventricle"]["mesh"] = "tetrahedra"
    heart = build_heart(Case.model_validate(case), Path())
    assert isinstance(heart.mesh, TetMesh)
    along = heart.mesh.centre @ np.array([1.0, 2.0, 3.0])
    found = on_grid(heart.mesh, along, heart.voxels)
    np.testing.assert_allclose(found, heart.voxels.centre @ np.array([1.0, 2.0, 3.0]), atol=4e-3)


def test_fibres_on_voxels_and_on_tetrahedra_act_alike():
    change, balance = {}, []
    for mesh in ("voxels", "tetrahedra"):
        raw = demo_case(5.0).model_dump() | {"growth": None}
        raw["ventricle"]["mesh"] = mesh
        flow = []
        # equal ones are isotropic, and make the program that fibres need
        for across in (2e-9, 2e-11):
            raw["microcirculation"]["permeability_across_m2_per_Pa_s"] = across
            problem = prepare_case(Case.model_validate(raw), Path(), Progress()).problem
            solution = solve_perfusion(problem)
            balance.append(float(solution.mass_balance_relative_error))
            flow.append(np.asarray(solution.terminal_flow))
        change[mesh] = flow[1] / flow[0] - 1.0
    # The regions of meshes as coarse as these differ more than the flows with and without fibres.
    assert np.abs(change["tetrahedra"]).max() > 1e-3
    assert np.corrcoef(change["voxels"], change["tetrahedra"])[0, 1] > 0.8
    assert max(balance) <= 1e-9


@requires_data
def test_the_composite_is_sound():
    findings = check_case(COMPOSITE, data_dir())
    assert [f for f in findings if f.severity == "error"] == []
    case = load_case(COMPOSITE)
    heart = build_heart(case, data_dir())
    network = build_tree(case, data_dir(), heart)
    assert len(network.roots) == 2 and len(network.terminals) == 9
    assert heart.mesh.volume.sum() * 1e6 == pytest.approx(125.7, abs=0.1)
    # the drawn terminals lie on the inferior side, near the epicardium
    tip = np.asarray(network.node_position)[np.asarray(network.terminals)]
    degree = np.degrees(heart.frame.angle(tip))
    synthetic = np.isin(
        np.asarray(network.branch),
        [i for i, name in enumerate(network.branch_name) if name.endswith("(synthetic)")],
    )
    into = np.asarray(network.segment_node)[synthetic, 1]
    drawn = np.isin(np.asarray(network.terminals), into)
    assert drawn.sum() == 3
    assert ((degree[drawn] > -120.0) & (degree[drawn] < -30.0)).all()
    assert KDTree(heart.mesh.centre).query(tip[drawn])[0].max() < 8e-3


@requires_data
@pytest.mark.slow
@pytest.mark.parametrize("mesh", ["voxels", "tetrahedra"])
def test_the_composite_runs(mesh):
    raw = load_case(COMPOSITE).model_dump()
    raw["ventricle"]["mesh"] = mesh
    raw["lesions"] = [{"branch": "LAD", "start_mm": 3, "end_mm": 13, "diameter_reduction": 0.7}]
    progress = Progress()
    prepared = prepare_case(Case.model_validate(raw), data_dir(), progress)
    solved = solve_case(prepared, progress)
    for solution in (solved.solutions["rest"], solved.solutions["hyperemia"]):
        assert float(solution.mass_balance_relative_error) < 1e-9
        assert int(solution.newton_iterations) <= 8
    volume = prepared.heart.mesh.volume
    mean = (
        float(np.asarray(solved.solutions["rest"].mbf) @ volume / volume.sum())
        / M3_S_KG_PER_ML_MIN_G
    )
    assert mean == pytest.approx(1.0, rel=0.01)
