"""What the command line offers, and the folders that it writes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._convert import (
        convert_file as convert_file,
        Converted as Converted,
        converted_lines as converted_lines,
    )
    from ._fit import (
        demo_fit as demo_fit,
        fit_case as fit_case,
        measured_rows as measured_rows,
        with_measurements as with_measurements,
    )
    from ._flow1d_run import (
        openbf_problem as openbf_problem,
        read_foreign as read_foreign,
        run_flow1d as run_flow1d,
        svoned_problem as svoned_problem,
    )
    from ._folder import run_folder as run_folder
    from ._grow import grow_case as grow_case, report_growth as report_growth
    from ._report import write_report as write_report
    from ._run import on_grid as on_grid, run_case as run_case
    from ._show import (
        show_file as show_file,
        shown_lines as shown_lines,
        ShownFile as ShownFile,
    )
    from ._starter import (
        branch_ends as branch_ends,
        demo_case as demo_case,
        write_starter as write_starter,
    )
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
