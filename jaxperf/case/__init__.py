"""A patient case: configuration, build, checks, run folder."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..io import json_text as json_text
    from ._check import check_case as check_case, Finding as Finding
    from ._defaults import DEFAULT_CELL_TIME as DEFAULT_CELL_TIME
    from ._demo import demo_tree as demo_tree, DODGE_MM as DODGE_MM
    from ._flow1d_run import run_flow1d as run_flow1d
    from ._grow import grow_case as grow_case, report_growth as report_growth
    from ._load import load_case as load_case
    from ._prepare import prepare_case as prepare_case, Prepared as Prepared
    from ._progress import Progress as Progress
    from ._run import run_case as run_case, versions as versions
    from ._schema import Case as Case
    from ._solve import (
        darcy_method as darcy_method,
        solve_case as solve_case,
        Solved as Solved,
    )
    from ._starter import (
        case_schema as case_schema,
        demo_case as demo_case,
        write_starter as write_starter,
    )
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
