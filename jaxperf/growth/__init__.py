"""Synthetic vessel forests below a segmented network, grown on the host."""

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
