"""Advice in the words of its reader: rooms name arguments, a case and a command their own knobs."""

import ast
import re
import warnings
from pathlib import Path

import pytest
from test_states import case_with

from jaxperf import InputError, Progress, SolveError
from jaxperf._misc import InputNote, note
from jaxperf._results import RESULTS
from jaxperf.casefile import Case, CASE_WORDS, in_words, speaking
from jaxperf.jobs._flow1d_run import _WORDS
from jaxperf.study import Finding, noted, prepare_case, solve_case

REPOSITORY = Path(__file__).resolve().parents[1]
LOWER = ["network", "vessel", "geometry", "steady", "flow1d", "growth"]
LOWER += ["darcy", "coupling", "observe", "anatomy", "io"]
OF_A_CASE = re.compile(
    r"\b(tree|ventricle|growth|boundary|microcirculation|autoregulation|pulsatile|territories)"
    r"\.[a-z]|root_spacing_mm|cycles_max|cell_time_s|synthetic_rca"
)
# No case is solved by `solve_darcy`, which alone ends as inaccurate.
ENDINGS = [n for n in RESULTS._name_to_item if n not in ("successful", "inaccurate")]


def keys(section, before=""):
    for name, field in section.model_fields.items():
        yield before + name
        for kind in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(kind, "model_fields"):
                yield from keys(kind, f"{before}{name}.")


def test_no_lower_room_speaks_of_a_case_file():
    """The words that its errors are made of hold no key of the case file."""
    for room in LOWER:
        for path in (REPOSITORY / "jaxperf" / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "InputError":
                    parts = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant)]
                    found = OF_A_CASE.search(" ".join(p for p in parts if isinstance(p, str)))
                    assert not found, f"{path.name}:{node.lineno} says {found[0]}"


@pytest.mark.parametrize("name", ENDINGS)
def test_every_ending_names_knobs_that_a_case_has(name):
    said = in_words(RESULTS[getattr(RESULTS, name)])
    assert said and "float64" not in said
    known = set(keys(Case))
    advised = re.findall(r"\b[a-z]+\.[a-z_]+\b", said)
    assert set(advised) <= known, advised
    # only a run with a controller of its own can end so, and no case has one
    assert "`" not in said or name == "controller_gave_up"


def test_the_table_leads_to_keys_of_the_case():
    known = set(keys(Case))
    for meant in CASE_WORDS.values():
        for key in re.findall(r"\b[a-z]+\.[a-z_A-Z]+\b", meant):
            assert key in known, key


@pytest.mark.parametrize(
    "name", ["step_too_long", "taper_unresolved", "cycles_exhausted", "no_steady_start"]
)
def test_a_run_of_a_foreign_case_names_options_of_the_command(name):
    said = in_words(RESULTS[getattr(RESULTS, name)], _WORDS)
    assert "`" not in said and ("--" in said) == (name != "no_steady_start")


def test_errors_are_translated_and_keep_their_cause():
    with pytest.raises(InputError) as caught, speaking():
        raise InputError("a", where="`n_terminals`", expected="b", fix="Take `root_spacing`")
    assert str(caught.value).startswith("growth.n_terminals: a.")
    assert "growth.root_spacing_mm" in caught.value.fix
    assert isinstance(caught.value.__cause__, InputError)
    with pytest.raises(SolveError, match=r"solver\.max_steps.* At LAD\.") as caught, speaking():
        raise SolveError(RESULTS.max_steps_reached, "At LAD.")
    assert caught.value.where == "At LAD."


def test_the_limits_of_a_case_are_the_solver_s():
    """One Newton step is too few, and the advice is the key that was too small."""
    prepared = prepare_case(case_with(solver={"max_steps": 1}), ".", Progress())
    with pytest.raises(SolveError, match=r"Raise solver\.max_steps"):
        solve_case(prepared, Progress())


def test_what_a_reader_notes_joins_the_findings_once():
    found = [Finding("error", "a", "b")]
    with noted(found), pytest.warns(UserWarning, match="another"):
        for _ in range(2):
            note("`n_terminals` was taken", where="tree.vtp")
        warnings.warn("another", stacklevel=1)
    assert found[1:] == [Finding("warning", "tree.vtp", "growth.n_terminals was taken")]
    with pytest.warns(InputNote, match=r"^tree\.vtp: said\.$"):
        note("said", where="tree.vtp")
