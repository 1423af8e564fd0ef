"""The table of formats: what it says, what it finds, and a stranger's format in it."""

import re
from pathlib import Path

import numpy as np
import pytest
from sample_texts import Y_CASE
from test_states import case_with

from jaxperf import InputError
from jaxperf.casefile import Case
from jaxperf.io import _formats as formats, Format, reader_of, READERS, WRITERS
from jaxperf.network import build_network
from jaxperf.study import read_tree

REPOSITORY = Path(__file__).resolve().parents[1]


def test_the_pages_show_the_table():
    text = (REPOSITORY / "docs" / "case.md").read_text(encoding="utf-8")
    shown = text.split("## Formats")[1].split("\n## ")[0]
    rows = [
        tuple(cell.strip(" `") for cell in line.strip("| ").split("|"))
        for line in shown.splitlines()
        if line.startswith("| `")
    ]
    told = [
        (way, row.name, row.holds, ", ".join(row.suffix), row.units, row.frame)
        for way, table in (("read", READERS), ("written", WRITERS))
        for row in table
    ]
    assert sorted(rows) == sorted(told)


@pytest.mark.parametrize("row", [*READERS, *WRITERS], ids=lambda r: f"{r.name} {r.holds}")
def test_every_row_is_complete(row):
    assert callable(row.use) and row.units and row.frame
    assert all(re.fullmatch(r"\.[a-z.]+", s) for s in row.suffix)


def test_content_tells_formats_apart_whatever_the_name(tmp_path):
    path = tmp_path / "anything.txt"
    path.write_text(Y_CASE, encoding="utf-8")
    assert reader_of(path, "1-D case").name == "svOneDSolver"
    path.write_text("network: []\n", encoding="utf-8")
    assert reader_of(path, "1-D case").name == "openBF"


def test_a_name_goes_before_a_suffix():
    assert reader_of("tree.txt", "tree", "swc").suffix == (".swc",)
    assert reader_of("TREE.VTP", "tree").name == "centerlines"
    with pytest.raises(InputError, match=r"no format is 'obj'.*swc \(\.swc\) or centerlines"):
        reader_of("tree.obj", "tree", "obj")
    with pytest.raises(InputError, match=r"tree\.obj: it is in no known format of a tree"):
        reader_of("tree.obj", "tree")


def _points(path, units, frame, branch_name):
    """One vessel: a line of x, y, z, radius for each point."""
    table = np.loadtxt(path) * {"mm": 1e-3}[units]
    edge = np.stack([np.arange(len(table) - 1), np.arange(1, len(table))], axis=1)
    return build_network(
        table[:, :3],
        edge,
        table[:, 3],
        root=np.array([0]),
        frame=frame,
        branch=np.zeros(len(edge), np.int64),
        branch_name=tuple((branch_name or {"branch 0": "branch 0"}).values()),
    )


def test_a_further_format_is_a_function_and_a_row(tmp_path, monkeypatch):
    row = Format("points", "tree", (".xyzr",), "stated", "stated", _points)
    monkeypatch.setattr(formats, "READERS", (*READERS, row))
    np.savetxt(tmp_path / "lad.xyzr", [[0, 0, 0, 2], [10, 0, 0, 1.8], [30, 0, 0, 1.5]])
    tree = {"file": "lad.xyzr", "units": "mm", "frame": "RAS", "branches": {"branch 0": "LAD"}}
    raw = case_with().model_dump(exclude_unset=True) | {"tree": tree, "lesions": []}
    network = read_tree(Case.model_validate(raw), tmp_path, None)
    assert network.branch_name == ("LAD",) and network.frame == "LPS"
    np.testing.assert_allclose(network.length, [0.01, 0.02])
