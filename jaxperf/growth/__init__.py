"""Synthetic vessel forests below a segmented network, grown on the host."""

from ._forest import (
    Forest as Forest,
    is_forest as is_forest,
    join_forest as join_forest,
    load_forest as load_forest,
    save_forest as save_forest,
)
from ._grow import grow_forest as grow_forest, is_checkpoint as is_checkpoint
from ._kassab import (
    kassab_order as kassab_order,
    kassab_table as kassab_table,
    KASSAB_TREES as KASSAB_TREES,
    KassabTable as KassabTable,
)
from ._morphometry import (
    Morphometry as Morphometry,
    morphometry as morphometry,
    morphometry_summary as morphometry_summary,
    order_rows as order_rows,
    order_slopes as order_slopes,
    OrderSlopes as OrderSlopes,
)
from ._murray import BranchingLaw as BranchingLaw
from ._problem import (
    fingerprint as fingerprint,
    GrowthProblem as GrowthProblem,
    settings_of as settings_of,
)
from ._roots import forest_roots as forest_roots, Roots as Roots
