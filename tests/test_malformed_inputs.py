"""Malformed inputs: each is refused by an `InputError` that says where, what and what was expected.

`CASES` is a flat list. A case has a name, a function that makes the input in an empty folder and
uses it, the file, key or vessel that the message must name, and words of the complaint.
"""

import pytest
from malformed_tissue import SVONED, TISSUE, WRITERS
from malformed_trees import CENTERLINES, LESIONS, NETWORK, overlapping_lesions, SWC

from jaxperf import InputError
from jaxperf.io import read_centerlines, read_swc, read_tets

CASES = [*SWC, *CENTERLINES, *NETWORK, *LESIONS, *SVONED, *TISSUE, *WRITERS]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_refused_with_a_sentence(case, tmp_path):
    with pytest.raises(InputError) as caught:
        case.use(tmp_path)
    message = str(caught.value)
    assert case.names in message
    assert case.says in message
    assert ". Expected " in message
    assert not list(tmp_path.glob(".writing-*"))


def test_partly_overlapping_lesions_are_refused(tmp_path):
    with pytest.raises(InputError, match="overlaps"):
        overlapping_lesions(tmp_path)


def test_case_names_are_unique():
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("missing", ["units", "frame"])
@pytest.mark.parametrize("reader", [read_swc, read_centerlines, read_tets])
def test_units_and_frame_must_be_stated(reader, missing):
    given = {"units": "mm", "frame": "LPS"}
    del given[missing]
    with pytest.raises(TypeError, match=missing):
        reader("file", **given)
