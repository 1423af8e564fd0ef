"""The file of a forest: what was changed in it since is found, and nothing ends in a traceback."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from jaxperf import InputError
from jaxperf.casefile import Case
from jaxperf.cli import app, BAD_INPUT
from jaxperf.growth import Forest, is_checkpoint, is_forest, load_forest, save_forest
from jaxperf.jobs import demo_case, grow_case


def small_forest(**changes) -> Forest:
    """Two trees: a stub with two leaves, and a single vessel."""
    fields = {
        "root_node": np.array([3, 7]),
        "root_territory": np.array([0, 1]),
        "root_share": np.array([0.6, 0.4]),
        "root_projected": np.array([0.61, 0.39]),
        "position": np.arange(12.0).reshape(4, 3) * 1e-3,
        "parent": np.array([-1, 0, 0, -2]),
        "radius": np.array([3e-4, 2e-4, 2e-4, 2e-4]),
        "tree": np.array([0, 0, 0, 1]),
        "stage": np.array([0, 2, 2, 0]),
        "terminal": np.array([1, 2, 3]),
        "cell_tree": np.array([0, 0, 1]),
        "territory_name": ("LAD", "LCx"),
        "frame": "LPS",
        "settings": json.dumps({"fingerprint": "abc", "seed": 0}),
    }
    return Forest(**{**fields, **changes})


@pytest.fixture
def stored(tmp_path):
    """A written forest: its path and its arrays."""
    path = tmp_path / "forest.npz"
    save_forest(path, small_forest())
    with np.load(path) as file:
        return path, {name: file[name] for name in file.files}


def test_a_forest_comes_back_as_it_was(stored):
    forest, given = load_forest(stored[0]), small_forest()
    assert is_forest(stored[0]) and not is_checkpoint(stored[0])
    assert (forest.territory_name, forest.about) == (given.territory_name, given.about)
    for name in ("parent", "radius", "position", "cell_tree"):
        np.testing.assert_array_equal(getattr(forest, name), getattr(given, name))


TAMPERED = {
    "a radius": {"radius": np.array([3e-4, 2e-4, 2e-4, 2.5e-4])},
    "a place": {"position": np.arange(12.0).reshape(4, 3) * 1.1e-3},
    "a share": {"root_share": np.array([0.5, 0.5])},
    "a voxel": {"cell_tree": np.array([0, 1, 1])},
    "the type of a number": {"radius": np.array([3e-4, 2e-4, 2e-4, 2e-4], np.float32)},
    "a name": {"territory_name": np.array(["LAD", "RCA"])},
    "the frame": {"frame": np.array("RAS")},
    "the seed": {"settings": np.array(json.dumps({"fingerprint": "abc", "seed": 1}))},
    "the digest": {"content": np.array("0" * 64)},
}
IMPOSSIBLE = {
    "tree index": ({"tree": np.array([0, 0, 0, 2])}, "tree has other numbers"),
    "negative tree": ({"tree": np.array([0, 0, 0, -1])}, "tree has other numbers"),
    "territory": ({"root_territory": np.array([0, 2])}, "root_territory has other numbers"),
    "parent": ({"parent": np.array([-3, 0, 0, -2])}, "parent has other numbers"),
    "terminal": ({"terminal": np.array([1, 2, 4])}, "terminal has other numbers"),
    "root": ({"root_node": np.array([-1, 7])}, "root_node has other numbers"),
    "floating tree": ({"tree": np.array([0.0, 0.0, 0.0, 1.0])}, "tree has other numbers"),
    "NaN": ({"radius": np.array([np.nan, 2e-4, 2e-4, 2e-4])}, "radius has other numbers"),
    "narrow": ({"radius": np.array([-3e-4, 2e-4, 2e-4, 2e-4])}, "not above zero"),
    "length": ({"radius": np.full(3, 2e-4)}, "radius does not fit"),
    "axes": ({"position": np.zeros(12)}, "position has other axes"),
    "settings no JSON": ({"settings": np.array("{")}, "settings say of no input"),
    "settings a list": ({"settings": np.array("[1]")}, "settings say of no input"),
    "settings bare": ({"settings": np.array("{}")}, "settings say of no input"),
    "old": ({"format": np.array(1)}, "layout 1"),
}


@pytest.mark.parametrize("changes", TAMPERED.values(), ids=TAMPERED)
def test_a_changed_forest_is_refused(stored, changes):
    path, arrays = stored
    np.savez(path, **{**arrays, **changes})
    with pytest.raises(InputError, match="content was changed since it was grown"):
        load_forest(path)


@pytest.mark.parametrize(("changes", "said"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_an_impossible_forest_is_refused(stored, changes, said):
    path, arrays = stored
    np.savez(path, **{**arrays, **changes})
    with pytest.raises(InputError, match=said):
        load_forest(path)


def test_no_vessels_are_no_forest(stored):
    path, arrays = stored
    empty = {k: v[:0] for k, v in arrays.items() if v.ndim and k not in ("territory_name",)}
    np.savez(path, **{**arrays, **empty})
    with pytest.raises(InputError, match="no vessels"):
        load_forest(path)


def test_the_command_names_a_changed_forest(stored, tmp_path):
    """`check` has the finding and `run` ends with the sentence."""
    path, arrays = stored
    np.savez(path, **{**arrays, **TAMPERED["a radius"]})
    content = demo_case(5.0).model_dump(mode="json")
    content["growth"]["file"] = str(path)
    (tmp_path / "case.yaml").write_text(json.dumps(content))
    for command in (["check"], ["run", "--out", str(tmp_path / "out")]):
        result = CliRunner().invoke(app, [command[0], str(tmp_path / "case.yaml"), *command[1:]])
        assert result.exit_code == BAD_INPUT, result.output
        assert "content was changed since it was grown" in result.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [("forest.npz", "it is no forest"), ("forest.vtp", "no forest that it may be the picture of")],
)
def test_growth_replaces_nothing_of_others(tmp_path, name, said):
    case = Case.model_validate({**demo_case(5.0).model_dump(), "growth": {"n_terminals": 20}})
    np.savez(tmp_path / "their.npz", xi=np.zeros(3))
    theirs = (tmp_path / "their.npz").rename(tmp_path / name)
    before = theirs.read_bytes()
    with pytest.raises(InputError, match=said):
        grow_case(case, out=tmp_path / "forest.npz", overwrite=True)
    assert theirs.read_bytes() == before and list(tmp_path.iterdir()) == [theirs]


def test_a_checkpoint_of_others_stays(tmp_path):
    """A file that bears the name of a checkpoint and is none."""
    case = Case.model_validate({**demo_case(5.0).model_dump(), "growth": {"n_terminals": 20}})
    theirs = tmp_path / "forest.partial.npz"
    np.savez(theirs, xi=np.zeros(3))
    before = theirs.read_bytes()
    with pytest.raises(InputError, match="another forest grew, or by another version, or is"):
        grow_case(case, out=tmp_path / "forest.npz", overwrite=True)
    assert theirs.read_bytes() == before
