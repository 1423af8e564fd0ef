"""What a solved case says: summary, tables and figures."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._beat import pulsation_summary as pulsation_summary, waveform_rows as waveform_rows
    from ._feeding import feeding_rows as feeding_rows
    from ._figures import (
        write_figures as write_figures,
        write_waveform_figure as write_waveform_figure,
    )
    from ._fit_figures import write_fit_figures as write_fit_figures
    from ._fit_schema import fit_summary_schema as fit_summary_schema, FitSummary as FitSummary
    from ._fit_summary import (
        fit_summary as fit_summary,
        fitted_segment_rows as fitted_segment_rows,
        parameter_rows as parameter_rows,
    )
    from ._forest_facts import (
        forest_facts as forest_facts,
        segment_arrays as segment_arrays,
        split_warnings as split_warnings,
        spread as spread,
        write_morphometry as write_morphometry,
    )
    from ._forest_figures import write_forest_figures as write_forest_figures
    from ._lesions import lesion_rows as lesion_rows
    from ._lines import (
        fit_lines as fit_lines,
        flow1d_lines as flow1d_lines,
        forest_lines as forest_lines,
        run_lines as run_lines,
    )
    from ._private import (
        Inputs as Inputs,
        settings_without_places as settings_without_places,
        without_places as without_places,
    )
    from ._schema import (
        Flow1DSeconds as Flow1DSeconds,
        Flow1DSummary as Flow1DSummary,
        Forest as Forest,
        GrownForest as GrownForest,
        Pulsatile as Pulsatile,
        Spread as Spread,
        Summary as Summary,
        summary_schema as summary_schema,
        VesselFlow as VesselFlow,
    )
    from ._summary import (
        anatomy_labels as anatomy_labels,
        branch_rows as branch_rows,
        labels as labels,
        segment_rows as segment_rows,
        summary as summary,
    )
    from ._web_html import report_html as report_html
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
