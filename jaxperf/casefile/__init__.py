"""The case file: its schema, and reading it with sentences that name file and key."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._fit import (
        AorticPressure as AorticPressure,
        BedUnknown as BedUnknown,
        Demand as Demand,
        Extent as Extent,
        FitSection as FitSection,
        Mobility as Mobility,
        Pet as Pet,
        Reserve as Reserve,
        Severity as Severity,
        Wire as Wire,
    )
    from ._load import case_errors as case_errors, load_case as load_case, read_yaml as read_yaml
    from ._pulsatile import Pulsatile as Pulsatile
    from ._schema import (
        Case as Case,
        case_schema as case_schema,
        Growth as Growth,
        Labels as Labels,
        Landmarks as Landmarks,
        Solver as Solver,
        StateSection as StateSection,
    )
    from ._units import unusual_values as unusual_values
    from ._words import CASE_WORDS as CASE_WORDS, in_words as in_words, speaking as speaking
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
