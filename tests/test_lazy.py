"""What `import jaxperf` loads, and that every public name is there on first use."""

import importlib
import inspect
import json
import pickle
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import jaxperf

# None of it is needed to read a network or to solve one in steady state.
HEAVY = {
    "arviz_stats", "blackjax", "diffrax", "lineax", "matplotlib", "nibabel", "numba", "optax",
    "optimistix", "pydantic", "pyvista", "scipy", "vtk", "vtkmodules", "yaml",
}  # fmt: skip
LAZY_ROOMS = ("study", "jobs", "report", "darcy", "flow1d", "io", "inverse")


def _loaded_by(code):
    """The packages in `sys.modules` of a new process that has run some code."""
    after = "import sys, json; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    command = [sys.executable, "-c", f"{code}\n{after}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_import_loads_nothing_heavy():
    assert not _loaded_by("import jaxperf") & {*HEAVY, "jax"}


def test_the_command_line_loads_no_room_until_a_command_runs():
    assert not _loaded_by("import jaxperf.cli") & {*HEAVY, "jax"}


def test_steady_solves_load_no_transient_solver_and_no_reader():
    loaded = _loaded_by("from jaxperf import solve_perfusion, solve_steady")
    assert not loaded & (HEAVY - {"scipy"})


def test_a_problem_is_stated_without_samplers():
    loaded = _loaded_by("from jaxperf.inverse import InverseProblem, Parameter, Normal, Log")
    assert not loaded & HEAVY


@pytest.mark.parametrize("package", ["jaxperf", *(f"jaxperf.{room}" for room in LAZY_ROOMS)])
def test_every_public_name_is_listed_and_reachable(package):
    module = importlib.import_module(package)
    assert dir(module) == sorted(set(dir(module))) == module.__all__
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_a_name_is_what_its_room_holds():
    assert jaxperf.solve_steady is jaxperf.steady.solve_steady
    assert inspect.ismodule(jaxperf.io)


def test_a_new_process_reaches_rooms_without_importing_them():
    code = "import jaxperf\nassert jaxperf.io.read_swc and jaxperf.study.Heart"
    assert "pydantic" in _loaded_by(code)


def test_every_room_is_an_attribute_of_the_package():
    files = (Path(jaxperf.__file__).parent).iterdir()
    rooms = {path.stem for path in files if path.suffix in ("", ".py")}
    rooms = {name for name in rooms if not name.startswith(("_", "."))} - {"py", "cli"}
    assert rooms <= set(jaxperf.__all__)
    assert all(inspect.ismodule(getattr(jaxperf, name)) for name in rooms)


def test_units_lead_to_si():
    units = jaxperf.units
    assert pytest.approx(12399, abs=1) == 93 * units.PA_PER_MMHG
    factors = [name for name in dir(units) if name.isupper()]
    assert len(factors) == 11 and all(f"`{name}`" in str(units.__doc__) for name in factors)


@pytest.mark.parametrize("package", ["jaxperf", "jaxperf.flow1d"])
def test_a_misspelled_name_is_refused(package):
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'solve_flowd'"):
        getattr(importlib.import_module(package), "solve_flowd")  # noqa: B009
    with pytest.raises(ImportError, match="solve_flowd"):
        exec(f"from {package} import solve_flowd")


def test_objects_pickle_and_help_speaks():
    blood = pickle.loads(pickle.dumps(jaxperf.Blood()))
    assert isinstance(blood, jaxperf.Blood)
    text = pydoc.render_doc(jaxperf, renderer=pydoc.plaintext)
    assert "solve_perfusion(" in text and "class SteadyProblem" in text
