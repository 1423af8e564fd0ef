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
# Rooms whose verbs have examples, and the package itself.
ROOMS = (
    "anatomy",
    "coupling",
    "darcy",
    "flow1d",
    "geometry",
    "growth",
    "io",
    "network",
    "steady",
    "vessel",
)
# A public function is a verb where its name begins with one of these words, ...
VERBS = (
    "build",
    "calibrate",
    "condense",
    "cut",
    "declare",
    "factor",
    "grow",
    "join",
    "load",
    "make",
    "read",
    "refine",
    "sample",
    "save",
    "semidiscretise",
    "solve",
    "write",
)
# ... or is the name of what it makes.
MAKERS = (
    "aha17",
    "darcy_mesh",
    "darcy_operator",
    "darcy_problem",
    "darcy_state",
    "darcy_surface",
    "darcy_term",
    "demo_tree",
    "ellipsoid_ventricle",
    "fibre_direction",
    "flow1d_problem",
    "kuhn_tetrahedra",
    "lv_frame_from_labels",
    "lv_frame_from_points",
    "morphometry",
    "multigrid",
    "network_from_courses",
    "pad_problem",
    "perfused_tissue",
    "terminal_regions",
    "terminal_sites",
    "tetrahedra_from_voxels",
    "transient_segments",
    "transmural_depth",
    "vessel_territories",
    "without_lesions",
)
_MOST_LINES = 20
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
    for module in ("jaxperf", *(f"jaxperf.{room}" for room in ROOMS)):
        loaded = importlib.import_module(module)
        for name in _public_names(Path(loaded.__file__)):
            if name.partition("_")[0] in VERBS or name in MAKERS:
                yield f"{module}.{name}", inspect.getdoc(getattr(loaded, name)) or ""


def _public_names(path):
    """The names that a package spells twice, `from ._x import name as name`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (alias.name for alias in node.names if alias.asname)


@pytest.mark.parametrize(("place", "code"), EXAMPLES, ids=[place for place, _ in EXAMPLES])
def test_example_runs(place, code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(code.splitlines()) <= _MOST_LINES
    # the tests' strict promotion is stricter than what a reader has
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, place, "exec"), {})


def test_every_verb_has_an_example():
    verbs = dict(_verbs())
    assert len(verbs) > 60
    assert not [name for name, text in verbs.items() if not _EXAMPLE.search(text)]


def test_one_heading_for_what_is_raised():
    wrong = [place for place, text in DOCSTRINGS if re.search(r"\*\*Raises|Raises:|:raises", text)]
    assert not wrong
