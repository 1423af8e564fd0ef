"""Kassab's published table of the pig's coronary arteries."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError

KASSAB_TREES = ("RCA", "LAD", "LCX")
_FILE = Path(__file__).with_name("kassab1993.json")
_M_PER = {"_um": 1e-6, "_mm": 1e-3}


class KassabTable(eqx.Module):
    """The morphometry of one coronary tree of the pig, as published; see [`kassab_table`][].

    **Attributes:** over the orders `o`, in m, named like those of [`Morphometry`][]; NaN where
    nothing was published. Besides:

    - `element_count_se`: the standard error of the count, most of which was extrapolated from
      parts of the trees.
    - `connectivity`: row m, column n: elements of order m springing from an element of order n.
    - `capillaries`: elements of order 0 springing from an element of order n.
    - `tree`: `RCA`, `LAD` or `LCX`.
    """

    order: Int[np.ndarray, " o"]
    segment_diameter_mean: Float[np.ndarray, " o"]
    segment_diameter_sd: Float[np.ndarray, " o"]
    segment_length_mean: Float[np.ndarray, " o"]
    segment_length_sd: Float[np.ndarray, " o"]
    element_diameter_mean: Float[np.ndarray, " o"]
    element_diameter_sd: Float[np.ndarray, " o"]
    element_length_mean: Float[np.ndarray, " o"]
    element_length_sd: Float[np.ndarray, " o"]
    segments_per_element: Float[np.ndarray, " o"]
    element_count: Int[np.ndarray, " o"]
    element_count_se: Float[np.ndarray, " o"]
    connectivity: Float[np.ndarray, "o o"]
    capillaries: Float[np.ndarray, " o"]
    tree: str = eqx.field(static=True)

    @property
    def diameter_boundary(self) -> Float[np.ndarray, " b"]:
        """The diameters (m) between the ranges of successive orders' segments."""
        return order_boundaries(self.segment_diameter_mean, self.segment_diameter_sd)


@functools.cache
def kassab_table(tree: str) -> KassabTable:
    """The published morphometry of a coronary tree of the pig.

    The highest order is one stem. Its element length is not published and follows from what is:
    the stem's segments times their mean length.

    **Arguments:** `tree`: `"RCA"`, `"LAD"` or `"LCX"`. Kassab pools orders 1 to 3 of the last two.

    **Errors:** `InputError` for another name.

    **Source:** Kassab et al. (1993), Am. J. Physiol. 265:H350, tables 1-3 and 5-9.

    **Example:**

    ```python
    import jaxperf as jp
    print(jp.growth.kassab_table("LAD"))
    ```
    """
    if tree not in KASSAB_TREES:
        raise InputError(
            f"there is no tree {tree!r}",
            where="kassab_table",
            expected=f"one of {', '.join(KASSAB_TREES)}",
            fix="Name one of the pig's three coronary trees",
        )
    published = json.loads(_FILE.read_text(encoding="utf-8"))["trees"][tree]
    count = np.array(published["element_count"], np.int64)
    per_element = np.array(published["segments_per_element"], np.float64)
    connectivity = np.array(published["connectivity"], np.float64)
    segment_length = _metres(published, "segment_length_mm")
    element_length = _metres(published, "element_length_mm")
    element_length[-1] = per_element[-1] * segment_length[-1]
    return KassabTable(
        order=np.array(published["order"], np.int64),
        segment_diameter_mean=_metres(published, "segment_diameter_um"),
        segment_diameter_sd=_metres(published, "segment_diameter_sd_um"),
        segment_length_mean=segment_length,
        segment_length_sd=_metres(published, "segment_length_sd_mm"),
        element_diameter_mean=_metres(published, "element_diameter_um"),
        element_diameter_sd=_metres(published, "element_diameter_sd_um"),
        element_length_mean=element_length,
        element_length_sd=_metres(published, "element_length_sd_mm"),
        segments_per_element=per_element,
        element_count=count,
        element_count_se=np.array(published["element_count_se"], np.float64),
        connectivity=connectivity[1:],
        capillaries=connectivity[0],
        tree=tree,
    )


def _metres(published: Mapping[str, Any], key: str) -> Float[np.ndarray, " o"]:
    """A column in m; what was not published (null) becomes NaN."""
    return np.array(published[key], np.float64) * _M_PER[key[-3:]]


def order_boundaries(
    mean: Float[np.ndarray, " o"], sd: Float[np.ndarray, " o"]
) -> Float[np.ndarray, " b"]:
    r"""The diameters that separate successive orders.

    $$D'_n = \tfrac12 [(D_n + \sigma_n) + (D_{n+1} - \sigma_{n+1})]$$

    **Source:** Kassab et al. (1993), equations 3A and 3B: the upper bound of an order is the
    lower bound of the next.
    """
    return 0.5 * ((mean + sd)[:-1] + (mean - sd)[1:])


def kassab_order(diameter: float) -> int:
    """The order to which Kassab's ranges of diameter assign a segment.

    The ranges of the three trees differ little below order 8; the median of their answers counts.

    **Arguments:** `diameter`: m.
    """
    boundaries = [kassab_table(tree).diameter_boundary for tree in KASSAB_TREES]
    return int(np.median([1 + np.searchsorted(boundary, diameter) for boundary in boundaries]))
