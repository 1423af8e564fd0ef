"""YAML that says a thing twice or stands for more than it holds, and names that cannot be read."""

import tracemalloc
from pathlib import Path

import pytest
from helpers import requires_trials, TRIALS
from pydantic import ValidationError
from typer.testing import CliRunner

from jaxperf import InputError
from jaxperf.casefile import Case, load_case, read_yaml
from jaxperf.cli import app, BAD_INPUT
from jaxperf.io import read_openbf
from jaxperf.jobs import demo_case

HEAD = "kind: synthetic\ntree: {built_in: demo}\nventricle: {ellipsoid: {spacing_mm: 5}}\n"


def bomb(top: str, levels: int = 9) -> str:
    """A list of lists of aliases under a key, 9 to the power of `levels` values."""
    lines = [f"{top}:", f"  - &a0 [{','.join('x' * 9)}]"]
    lines += [f"  - &a{i} [{','.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


REFUSED = {
    "sections": ("lesions: []\nlesions: []\n", r"'lesions' stands in line 4 and again in line 5"),
    "nested": (
        "wall:\n  law: rigid\n  law: elastic\n",
        r"'law' stands in line 5 and again in line 6",
    ),
    "in brackets": ("wall: {law: rigid, k1_Pa: 2, law: elastic}\n", "'law' stands in line 4"),
    "in a list": (
        "lesions:\n  - {branch: LAD, branch: LCx, start_mm: 1, end_mm: 2}\n",
        "'branch' stands in line 5",
    ),
    "quoted": ('title: a\n"title": b\n', "'title' stands in line 4 and again in line 5"),
    "numbers": ("tree: {branches: {16: a, 0x10: b}}\n", "'0x10' stands in line 4|'tree' stands"),
    "bomb": (bomb("title"), "aliases stand for more than"),
    "bomb of sections": (bomb("lesions"), "aliases stand for more than"),
    "itself": ("states: &a {x: *a}\n", "an alias stands for itself in line 4"),
    "deep brackets": (f"fit: {'[' * 5000}{']' * 5000}\n", "more than 50 deep in line 4"),
    "deep mappings": (f"fit: {'{a: ' * 5000}", "more than 50 deep in line 4"),
    "deep indents": (
        "".join(f"{'  ' * i}fit:\n" for i in range(300)),
        "more than 50 deep in line 5",
    ),
    "no date": ("title: 2001-13-45\n", "a value cannot be read"),
    "digits": (f"title: {'1' * 5000}\n", "a value cannot be read"),
    "tag": ("title: !!python/object:os.system x\n", "it is no YAML in line 4"),
}


@pytest.mark.parametrize(("text", "says"), REFUSED.values(), ids=REFUSED)
def test_it_is_refused_in_one_short_sentence_with_little_memory(tmp_path, text, says):
    path = tmp_path / "case.yaml"
    path.write_text(HEAD + text)
    tracemalloc.start()
    with pytest.raises(InputError, match=says) as caught:
        read_yaml(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6 and len(str(caught.value)) < 400 + len(str(path))
    # the same reader reads the cases of openBF
    with pytest.raises(InputError, match=says):
        read_openbf(path)


def test_the_commands_end_with_the_sentence(tmp_path):
    for name, text in (("twin", "title: a\ntitle: b\n"), ("bomb", bomb("title"))):
        path = tmp_path / f"{name}.yaml"
        path.write_text(HEAD + text)
        for command in (["check"], ["run", "--out", str(tmp_path / "out")]):
            result = CliRunner().invoke(app, [command[0], str(path), *command[1:]])
            assert result.exit_code == BAD_INPUT, result.output
            assert str(path) in result.stderr and len(result.stderr) < 600


@requires_trials
@pytest.mark.parametrize("name", ["duplicate_key", "alias_bomb", "deep"])
def test_the_trials_end_with_the_sentence(name):
    path = TRIALS / "cases" / f"{name}.yaml"
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == BAD_INPUT and len(result.stderr) < 600, result.output


def test_sound_aliases_and_merged_keys_are_read(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(
        f"{HEAD}lesions:\n  - &one {{branch: LAD, start_mm: 12, end_mm: 22, "
        "diameter_reduction: 0.5}\n  - {<<: *one, branch: LCx, start_mm: 13}\n"
    )
    first, second = load_case(path).lesions
    assert (first.branch, second.branch) == ("LAD", "LCx")
    assert (second.start_mm, second.end_mm) == (13.0, 22.0)


def test_a_large_file_is_no_case(tmp_path):
    path = tmp_path / "case.yaml"
    with path.open("wb") as file:
        file.truncate(20_000_000)
    with pytest.raises(InputError, match="it has 20 MB"):
        read_yaml(path)


def test_values_and_keys_in_a_sentence_are_short(tmp_path):
    path = tmp_path / "case.yaml"
    for text in (f"flow: {'x' * 5000}\n", f"{'k' * 5000}: 1\n", f"flow: [{'[1, 2], ' * 500}]\n"):
        path.write_text(HEAD + text)
        with pytest.raises(InputError) as caught:
            load_case(path)
        assert len(str(caught.value)) < 1500


NAMES = {
    "title": lambda name: {"title": name},
    "file": lambda name: {"growth": {"file": f"{name}.npz"}},
    "lesion": lambda name: {
        "lesions": [{"branch": name, "start_mm": 1, "end_mm": 2, "diameter_reduction": 0.5}]
    },
    "outlet": lambda name: {"boundary": {"outlets": [{"branch": name, "flow_ml_min": 1}]}},
    "branch": lambda name: {"tree": {"built_in": "demo", "branches": {3: name}}},
    "key of a branch": lambda name: {"tree": {"built_in": "demo", "branches": {name: "LAD"}}},
    "state": lambda name: {"states": {name: {}}},
    "territory": lambda name: {"growth": {"territory_share_percent": {name: 100}}},
    "wire": lambda name: {"fit": {"wires": [{"branch": name, "at_mm": 1, "ratio": 0.8}]}},
    "map": lambda name: {"fit": {"pet": {"maps": {"rest": name}}}},
}


@pytest.mark.parametrize("place", NAMES)
@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\x1b[31mred", "a\x7f", "a\u2028b", "a\x85b"])
def test_names_with_control_characters_are_refused(place, name):
    with pytest.raises(ValidationError, match=r"control character|should match pattern"):
        Case.model_validate({**demo_case(5.0).model_dump(), **NAMES[place](name)})


@pytest.mark.parametrize("place", [place for place in NAMES if place != "file"])
@pytest.mark.parametrize("name", ["", " ", "\t"])
def test_empty_names_are_refused(place, name):
    with pytest.raises(ValidationError, match=r"at least 1|the name is empty|should match pattern"):
        Case.model_validate({**demo_case(5.0).model_dump(), **NAMES[place](name)})


def test_names_of_any_language_are_taken():
    case = demo_case(5.0).model_dump()
    for name in ("Ünïcödé", "冠動脈", "R. interventricularis (ant.)", "👩‍⚕️"):
        assert Case.model_validate({**case, "title": name}).title == name


def test_the_sentence_about_a_name(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(f'{HEAD}title: "a\\0b"\n')
    with pytest.raises(InputError, match=r"title: the name 'a\\x00b' holds the control character"):
        load_case(Path(path))
