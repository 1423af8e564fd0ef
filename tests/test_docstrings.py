"""The examples in docstrings run as they stand, and every public verb has one."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import jax
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("jaxperf", "gnn_darcy", "bridges")
# What has verbs; the rooms of jaxperf, and the packages themselves.
ROOMS = (
    "bridges",
    "gnn_darcy",
    "jaxperf",
    "jaxperf.anatomy",
    "jaxperf.casefile",
    "jaxperf.coupling",
    "jaxperf.darcy",
    "jaxperf.flow1d",
    "jaxperf.geometry",
    "jaxperf.growth",
    "jaxperf.inverse",
    "jaxperf.io",
    "jaxperf.jobs",
    "jaxperf.network",
    "jaxperf.observe",
    "jaxperf.plot",
    "jaxperf.steady",
    "jaxperf.study",
    "jaxperf.vessel",
)
# A public function is a verb where its name begins with one of these words, ...
VERBS = (
    "build",
    "calibrate",
    "check",
    "condense",
    "cut",
    "declare",
    "factor",
    "fit",
    "grow",
    "join",
    "load",
    "make",
    "prepare",
    "read",
    "refine",
    "run",
    "sample",
    "save",
    "semidiscretise",
    "solve",
    "write",
)
# ... or is the name of what it makes.
MAKERS = (
    "aha17",
    "branch_summary",
    "bullseye_figure",
    "case_schema",
    "coronary_flow_reserve",
    "cross_check",
    "darcy_graph",
    "darcy_mesh",
    "darcy_operator",
    "darcy_problem",
    "darcy_state",
    "darcy_surface",
    "darcy_term",
    "demo_case",
    "demo_fit",
    "demo_problem",
    "demo_tree",
    "ellipsoid_ventricle",
    "fibre_direction",
    "flow1d_problem",
    "flux_multigrid",
    "fractional_flow_reserve",
    "identify",
    "interval_figure",
    "jax_to_torch",
    "kuhn_tetrahedra",
    "laplace",
    "lv_frame_from_labels",
    "lv_frame_from_points",
    "message_passing",
    "misfit",
    "mixture",
    "morphometry",
    "multigrid",
    "network_from_courses",
    "observe",
    "pad_problem",
    "perfused_tissue",
    "pet_flow",
    "pet_polar",
    "pet_segments",
    "pet_voxels",
    "pressure_wire",
    "profile",
    "pull_back",
    "pullback_figure",
    "reference_darcy",
    "reference_steady",
    "report_growth",
    "scene_figure",
    "segment_means",
    "shrinkage",
    "squared_exponential",
    "terminal_regions",
    "terminal_sites",
    "territory_flow",
    "tetrahedra_from_voxels",
    "torch_to_jax",
    "transient_segments",
    "transmural_depth",
    "tree_to_jax",
    "tree_to_torch",
    "vessel_territories",
    "waveform_figure",
    "without_lesions",
)
# Steps of a job, which take what the step before them has made, and what rooms lend each other;
# `prepare_case`, `solve_case` and the jobs show how they go together.
STEPS = (
    "build_heart",
    "build_regions",
    "build_tree",
    "check_boundary",
    "check_built",
    "check_overlap",
    "check_permeability",
    "drop_steps",
    "fit_heart",
    "network_ranges",
    "read_foreign",
    "read_forest",
    "read_measured",
    "read_tree",
    "run_folder",
    "save_points",
    "solve_pulsation",
    "vessel_ranges",
)
# Whole fits take a minute.
SLOW = ("demo_fit", "fit_case")
_MOST_LINES = 24
_EXAMPLE = re.compile(r"\*\*Example:\*\*\n\n```python\n(.*?)```", re.DOTALL)


def _docstrings():
    """Place and text of every docstring."""
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                    text = ast.get_docstring(node)
                    if text:
                        name = getattr(node, "name", "file")
                        yield f"{path.relative_to(REPOSITORY)}:{name}", text


DOCSTRINGS = list(_docstrings())
EXAMPLES = [(place, code) for place, text in DOCSTRINGS for code in _EXAMPLE.findall(text)]


def _verbs():
    for module in ROOMS:
        loaded = importlib.import_module(module)
        for name in _public_names(Path(loaded.__file__)):
            verb = name.partition("_")[0] in VERBS and name not in STEPS
            if verb or name in MAKERS:
                yield f"{module}.{name}", inspect.getdoc(getattr(loaded, name)) or ""


def test_names_of_the_lists_exist():
    """A name that was changed must not drop out of the test."""
    names = set()
    for module in ROOMS:
        names.update(_public_names(Path(importlib.import_module(module).__file__)))
    assert not {*MAKERS, *STEPS, *SLOW} - names


def _public_names(path):
    """The names that a package spells twice, `from ._x import name as name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (alias.name for alias in node.names if alias.asname)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        pytest.param(
            place,
            code,
            id=place,
            marks=[pytest.mark.slow] if place.endswith(tuple(f":{name}" for name in SLOW)) else [],
        )
        for place, code in EXAMPLES
    ],
)
def test_example_runs(place, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(code.splitlines()) <= _MOST_LINES
    # the tests' strict promotion is stricter than what a reader has
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, place, "exec"), {})


def test_every_verb_has_an_example():
    verbs = dict(_verbs())
    assert len(verbs) > 130
    assert not [name for name, text in verbs.items() if not _EXAMPLE.search(text)]


def test_one_heading_for_what_is_raised():
    wrong = [place for place, text in DOCSTRINGS if re.search(r"\*\*Raises|Raises:|:raises", text)]
    assert not wrong
