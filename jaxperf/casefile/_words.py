"""Advice in the words of the reader: arguments of the library as keys of the case file."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from .._misc import InputError
from .._results import SolveError

# What a room says, and what the writer of a case file can do about it. Rooms put the names of their
# arguments between backticks.
CASE_WORDS: Mapping[str, str] = {
    # A case is always solved in float64, from a start of its own.
    ", or solve in float64": "",
    "Give `initial`, or look": "Look",
    "Lower `cfl`, or give a `controller`": "Lower pulsatile.cfl",
    "(`max_linear_steps` of a coupled solve, `max_steps` of a Darcy method)": (
        "(solver.max_linear_steps)"
    ),
    "`max_steps`": "solver.max_steps",
    "`cell_time`": "pulsatile.cell_time_s",
    "`max_cycles`": "pulsatile.cycles_max",
    "`tolerance`": "pulsatile.tolerance",
    "`closed`": "boundary.outlets",
    "`n_terminals`": "growth.n_terminals",
    "`root_spacing`": "growth.root_spacing_mm",
    "`territory_share`": "growth.territory_share_percent",
    "`terminal_radius`": "growth.terminal_diameter_um",
    "`n_roots`": "tree.n_roots",
    "`radius_array`": "tree.radius_array",
    "`merge_tolerance_mm`": "tree.merge_tolerance_mm",
    "`branch_name`": "tree.branches",
    "`seed`": "growth.seed",
    "`pressure_capillary_mmHg`": "microcirculation.pressure_capillary_mmHg",
    "`pressure_sink`": "microcirculation.pressure_sink_mmHg",
    "`mbf_rest_ml_min_g`": "microcirculation.mbf_rest_ml_min_g",
    "`mbf_hyperemia_ml_min_g`": "microcirculation.mbf_hyperemia_ml_min_g",
    "grow_forest": "growth",
    "synthetic_right_coronary": "synthetic_rca",
    "`apex`": "ventricle.landmarks.apex_mm",
    "`base_centre`": "ventricle.landmarks.base_mm",
    "`rv_centre`": "ventricle.landmarks.rv_mm",
    "`spacing_mm`": "spacing_mm",
    "ellipsoid_ventricle": "ventricle.ellipsoid",
    "sample_on_grid": "output",
    "the numbers of the labels": "the label numbers under ventricle.labels",
}


def in_words(text: str, words: Mapping[str, str] = CASE_WORDS) -> str:
    """A sentence of the library in the words of a case file, or in those of a command."""
    for said, meant in words.items():
        text = text.replace(said, meant)
    return text


@contextmanager
def speaking(words: Mapping[str, str] = CASE_WORDS) -> Iterator[None]:
    """Errors of the library inside it leave in the words of a case file.

    **Arguments:** `words`: what to put in place of what.

    **Errors:** [`InputError`][] and [`SolveError`][], as they come.
    """
    try:
        yield
    except InputError as error:
        parts = [in_words(p, words) for p in (error.what, error.where, error.expected, error.fix)]
        what, where, expected, fix = parts
        raise InputError(what, where=where, expected=expected, fix=fix) from error
    except SolveError as error:
        error.args = (in_words(str(error), words),)
        raise
