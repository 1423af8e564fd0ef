"""Morphometry of a forest, as Kassab measures the arteries of the heart."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from .._misc import InputError
from ._kassab import kassab_order, kassab_table, KASSAB_TREES, KassabTable
from ._orders import (
    diameter_ranks,
    elements,
    given_ranks,
    merge_chains,
    moments,
    Ranks,
    ratio,
    Segments,
    strahler_numbers,
    sum_from_root,
)

# The lowest two orders of a forest miss the side branches below its terminals.
_ORDERS_TRUNCATED = 2
_HIGHEST_COMPARED = 10
_COMPARED = ("element_count", "element_length_mean", "element_diameter_mean")
_UM, _MM = 1e6, 1e3


class Morphometry(eqx.Module):
    """The morphometry of a forest; see [`morphometry`][].

    **Attributes:** over the orders `o`, lengths and diameters in m, standard deviations NaN where
    an order has one member:

    - `order`: the orders' numbers, ascending; the first one is the terminals'.
    - `diameter_boundary`: between successive orders.
    - `segment_count`, `segment_diameter_mean`, `segment_diameter_sd`, `segment_length_mean`,
      `segment_length_sd`: of the segments.
    - `element_count`, `element_diameter_mean`, `element_diameter_sd`, `element_length_mean`,
      `element_length_sd`: of the elements; an element's diameter is the mean of its segments'.
    - `segments_per_element`: segments over elements.
    - `root_count`: elements that spring from no other; `terminal_count`: terminal segments.
    - `connectivity`: row m, column n: elements of order m springing from elements of order n, over
      the number of elements of order n.
    - `daughter_ratio_mean`, `_sd`: narrowest over widest daughter's diameter at the junctions
      below segments of the order; `narrow_ratio_mean`, `_sd` and `wide_ratio_mean`, `_sd`: the
      narrowest and the widest daughter over the parent. NaN in an order without junctions.

    `path_length` (m): from the root to each terminal, over the terminals `t` in the order of the
    pieces that end in them. `piece_order`, `piece_element`: the order and the element of each of
    the given pieces `m`. `rounds`: how often the orders were assigned anew; `changed`: the fraction
    of the segments whose order the last round changed.
    """

    order: Int[np.ndarray, " o"]
    diameter_boundary: Float[np.ndarray, " b"]
    segment_count: Int[np.ndarray, " o"]
    segment_diameter_mean: Float[np.ndarray, " o"]
    segment_diameter_sd: Float[np.ndarray, " o"]
    segment_length_mean: Float[np.ndarray, " o"]
    segment_length_sd: Float[np.ndarray, " o"]
    element_count: Int[np.ndarray, " o"]
    element_diameter_mean: Float[np.ndarray, " o"]
    element_diameter_sd: Float[np.ndarray, " o"]
    element_length_mean: Float[np.ndarray, " o"]
    element_length_sd: Float[np.ndarray, " o"]
    segments_per_element: Float[np.ndarray, " o"]
    root_count: Int[np.ndarray, " o"]
    terminal_count: Int[np.ndarray, " o"]
    connectivity: Float[np.ndarray, "o o"]
    daughter_ratio_mean: Float[np.ndarray, " o"]
    daughter_ratio_sd: Float[np.ndarray, " o"]
    narrow_ratio_mean: Float[np.ndarray, " o"]
    narrow_ratio_sd: Float[np.ndarray, " o"]
    wide_ratio_mean: Float[np.ndarray, " o"]
    wide_ratio_sd: Float[np.ndarray, " o"]
    path_length: Float[np.ndarray, " t"]
    piece_order: Int[np.ndarray, " m"]
    piece_element: Int[np.ndarray, " m"]
    rounds: int = eqx.field(static=True)
    changed: float = eqx.field(static=True)


def morphometry(
    parent: Int[np.ndarray, " m"],
    radius: Float[np.ndarray, " m"],
    length: Float[np.ndarray, " m"],
    *,
    first_order: int | None = None,
    tolerance: float = 0.01,
    ranges: KassabTable | None = None,
) -> Morphometry:
    r"""Diameter-defined Strahler orders of a forest, and its morphometry order by order.

    A *segment* lies between two junctions: pieces in a row are one segment, its diameter is their
    mean by length. Segments are first numbered by Strahler's rule. Then the boundaries

    $$D'_n = \tfrac12 [(D_n + \sigma_n) + (D_{n+1} - \sigma_{n+1})]$$

    between the orders, from the mean $D_n$ and the standard deviation $\sigma_n$ of the diameters
    in each order, assign every segment anew, until the orders hardly change. A forest has
    therefore at most as many orders as Strahler's rule gives it. An *element* is a series of
    segments of one order.

    **Arguments:** over the pieces `m` of all trees:

    - `parent`: the piece upstream; any negative number for the first piece of a tree.
    - `radius`, `length`: m.
    - `first_order`: the number of the lowest order, the terminals'. A grown forest ends above
      Kassab's first order, so that by default it is the one in whose range of Kassab's the median
      diameter of these segments lies. Only the numbers of the orders depend on it.
    - `tolerance`: the rounds end when no more than this fraction of the segments changed their
      order, by default 1 %. Carried on until nothing changes (0), the boundaries of a dense
      range of diameters can drift for a hundred rounds, and slopes over the order with them.
    - `ranges`: a table of Kassab's whose ranges of diameter define the orders, and their numbers,
      in place of the forest's own. Diameters then agree with the table by construction, and the
      branching exponent shows in the counts; by the forest's own ranges the counts say little of
      the exponent, and it shows in the diameters.

    **Returns:** a [`Morphometry`][].

    **Errors:** `InputError` for radii or lengths that are not positive, for parents that are no
    forest, for a first order below 1 or given beside ranges, and for a tolerance outside 0 to 1.

    **Source:** Kassab et al. (1993), Am. J. Physiol. 265:H350.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    parent, radius = np.array([-1, 0, 0, 1, 1]), 1e-4 * np.array([4.0, 3.0, 2.0, 1.5, 1.5])
    found = jp.growth.morphometry(parent, radius, np.full(5, 1e-3))
    ```
    """
    _check_settings(first_order, tolerance, ranges)
    segments = merge_chains(parent, radius, length)
    ranks, first_order = _orders(segments, first_order, tolerance, ranges)
    rank, n = ranks.rank, ranks.n
    element, begins = elements(segments, rank)
    terminal = np.flatnonzero(segments.daughters == 0)
    return Morphometry(
        order=first_order + np.arange(n),
        diameter_boundary=ranks.boundary,
        terminal_count=np.bincount(rank[terminal], minlength=n).astype(np.int64),
        path_length=sum_from_root(segments.parent, segments.length)[terminal],
        piece_order=first_order + rank[segments.piece],
        piece_element=element[segments.piece],
        rounds=ranks.rounds,
        changed=ranks.changed,
        **_of_segments(segments, rank, n),
        **_of_elements(segments, rank, n, element, begins),
        **_of_junctions(segments, rank, n),
    )


def _orders(
    segments: Segments, first_order: int | None, tolerance: float, ranges: KassabTable | None
) -> tuple[Ranks, int]:
    """The orders counted from 0, and the number of the lowest."""
    if ranges is not None:
        ranks, below = given_ranks(segments.diameter, ranges.diameter_boundary)
        return ranks, int(ranges.order[0]) + below
    ranks = diameter_ranks(segments.diameter, strahler_numbers(segments.parent), tolerance)
    if first_order is None:
        first_order = kassab_order(float(np.median(segments.diameter[ranks.rank == 0])))
    return ranks, first_order


def _check_settings(first_order: int | None, tolerance: float, ranges: KassabTable | None) -> None:
    if first_order is not None and (first_order < 1 or ranges is not None):
        raise InputError(
            f"the first order is {first_order}",
            where="morphometry",
            expected="1 or more, as order 0 are the capillaries, and none beside ranges",
            fix="Leave it out to take the order of the terminals' diameter",
        )
    if not 0.0 <= tolerance < 1.0:
        raise InputError(
            f"the tolerance is {tolerance}",
            where="morphometry",
            expected="a fraction of the segments, from 0 to below 1",
            fix="Leave it out to stop when 1 % of the segments or fewer change their order",
        )


def _of_segments(segments: Segments, rank: Int[np.ndarray, " s"], n: int) -> dict[str, np.ndarray]:
    diameter_mean, diameter_sd = moments(segments.diameter, rank, n)
    length_mean, length_sd = moments(segments.length, rank, n)
    return {
        "segment_count": np.bincount(rank, minlength=n).astype(np.int64),
        "segment_diameter_mean": diameter_mean,
        "segment_diameter_sd": diameter_sd,
        "segment_length_mean": length_mean,
        "segment_length_sd": length_sd,
    }


def _of_elements(
    segments: Segments,
    rank: Int[np.ndarray, " s"],
    n: int,
    element: Int[np.ndarray, " s"],
    begins: Bool[np.ndarray, " s"],
) -> dict[str, np.ndarray]:
    # elements are numbered by their first segments, so that these line up with them
    first = np.flatnonzero(begins)
    order, above = rank[first], segments.parent[first]
    count = np.bincount(order, minlength=n).astype(np.int64)
    pieces = np.bincount(element)
    diameter = np.bincount(element, weights=segments.diameter) / pieces
    diameter_mean, diameter_sd = moments(diameter, order, n)
    length_mean, length_sd = moments(np.bincount(element, weights=segments.length), order, n)
    springs = above >= 0
    pair = order[springs] * n + rank[above[springs]]
    between = np.bincount(pair, minlength=n * n).reshape(n, n)
    return {
        "element_count": count,
        "element_diameter_mean": diameter_mean,
        "element_diameter_sd": diameter_sd,
        "element_length_mean": length_mean,
        "element_length_sd": length_sd,
        "segments_per_element": ratio(np.bincount(rank, minlength=n), count),
        "root_count": np.bincount(order[~springs], minlength=n).astype(np.int64),
        # within given ranges an order may be without elements
        "connectivity": between / np.maximum(count, 1)[None, :],
    }


def _of_junctions(segments: Segments, rank: Int[np.ndarray, " s"], n: int) -> dict[str, np.ndarray]:
    parent, diameter = segments.parent, segments.diameter
    fed = parent >= 0
    narrowest, widest = np.full(len(rank), np.inf), np.zeros(len(rank))
    np.minimum.at(narrowest, parent[fed], diameter[fed])
    np.maximum.at(widest, parent[fed], diameter[fed])
    at = np.flatnonzero(widest)
    found = {}
    for name, quotient in (
        ("daughter_ratio", narrowest[at] / widest[at]),
        ("narrow_ratio", narrowest[at] / diameter[at]),
        ("wide_ratio", widest[at] / diameter[at]),
    ):
        found[f"{name}_mean"], found[f"{name}_sd"] = moments(quotient, rank[at], n)
    return found


class OrderSlopes(eqx.Module):
    """How elements change from order to order; see [`order_slopes`][].

    **Attributes:** `order`: the orders `k` the slopes are taken over. `slope`: of the forest, for
    the quantities `q` named in `quantity`. `kassab_slope`: the same of the pig's trees `p` named
    in `tree`. `pooled_slope`: of these trees together.
    """

    order: Int[np.ndarray, " k"]
    slope: Float[np.ndarray, " q"]
    kassab_slope: Float[np.ndarray, "q p"]
    pooled_slope: Float[np.ndarray, " q"]
    quantity: tuple[str, ...] = eqx.field(static=True)
    tree: tuple[str, ...] = eqx.field(static=True)


def order_slopes(found: Morphometry) -> OrderSlopes:
    r"""Slopes of $\log_{10}$ of count, mean length and mean diameter of elements over the order.

    They are taken by least squares over the orders that lie clear of truncation: from two above
    the terminals' own order up to 10, so far as the forest reaches. Kassab's slopes are taken over
    the same orders, for each tree and for the three pooled: counts added, lengths and diameters
    averaged over all elements. Where Kassab's ranges define the orders the slope of the diameter
    is no evidence.

    **Returns:** an [`OrderSlopes`][], NaN where fewer than two orders are left.
    """
    clear = _clear_of_truncation(found.order)
    order = found.order[clear]
    published = np.stack([_published(kassab_table(tree), order) for tree in KASSAB_TREES])
    count = published[:, 0]
    pooled = [count.sum(axis=0)]
    pooled += [ratio((count * published[:, i]).sum(axis=0), pooled[0]) for i in (1, 2)]
    return OrderSlopes(
        order=order,
        slope=np.array([_slope(order, getattr(found, name)[clear]) for name in _COMPARED]),
        kassab_slope=np.array(
            [[_slope(order, v) for v in published[:, i]] for i in range(len(_COMPARED))]
        ),
        pooled_slope=np.array([_slope(order, value) for value in pooled]),
        quantity=tuple(name.removesuffix("_mean") for name in _COMPARED),
        tree=KASSAB_TREES,
    )


def _published(table: KassabTable, order: Int[np.ndarray, " k"]) -> Float[np.ndarray, "q k"]:
    """The compared quantities at the given orders, 0 at those the tree does not reach."""
    reached = order <= table.order[-1]
    at = np.searchsorted(table.order, order[reached])
    found = np.zeros((len(_COMPARED), len(order)))
    for i, name in enumerate(_COMPARED):
        found[i, reached] = getattr(table, name)[at]
    return found


def _clear_of_truncation(order: Int[np.ndarray, " o"]) -> np.ndarray:
    return (order >= order[0] + _ORDERS_TRUNCATED) & (order <= _HIGHEST_COMPARED)


def _slope(order: Int[np.ndarray, " k"], value: np.ndarray) -> float:
    """By least squares over the orders that have a value."""
    order, value = order[value > 0], value[value > 0]
    if len(order) < 2:
        return float("nan")
    away = order - order.mean()
    return float(away @ np.log10(value) / (away @ away))


def order_rows(table: Morphometry | KassabTable) -> list[dict[str, Any]]:
    """A forest's morphometry, or Kassab's, as one row for each order, for JSON and CSV.

    **Returns:** dictionaries with diameters in µm, lengths in mm and the unit in the name; None
    where there is no number. `clear_of_truncation` marks the orders [`order_slopes`][] compares.
    """
    forest = isinstance(table, Morphometry)
    columns: dict[str, np.ndarray] = {"order": table.order}
    for kind in ("segment", "element"):
        for what, unit, factor in (("diameter", "um", _UM), ("length", "mm", _MM)):
            for moment in ("mean", "sd"):
                value = getattr(table, f"{kind}_{what}_{moment}")
                columns[f"{kind}_{what}_{moment}_{unit}"] = factor * value
    columns |= {name: getattr(table, name) for name in ("segments_per_element", "element_count")}
    if forest:
        names = ("segment_count", "root_count", "terminal_count", *_RATIOS)
        columns |= {name: getattr(table, name) for name in names}
        columns["clear_of_truncation"] = _clear_of_truncation(table.order)
    else:
        columns["element_count_se"] = table.element_count_se
    return [
        {name: _plain(value[i]) for name, value in columns.items()} for i in range(len(table.order))
    ]


_RATIOS = tuple(
    f"{which}_ratio_{moment}"
    for which in ("daughter", "narrow", "wide")
    for moment in ("mean", "sd")
)


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    number = value.item()
    return None if isinstance(number, float) and not np.isfinite(number) else number


def morphometry_summary(found: Morphometry) -> dict[str, Any]:
    """What a forest's morphometry says beside its orders, for JSON.

    **Returns:** counts, the path length from root to terminal (mm), the connectivity matrix (a
    list of rows, daughters' orders down and parents' across), the boundaries of diameter (µm), and
    for the count, length and diameter of elements the slope over the order beside those of the
    pig's trees and, under `deviation`, the slope over each of theirs less one.
    """
    path = _MM * found.path_length
    slopes = order_slopes(found)
    summary = {
        "first_order": int(found.order[0]),
        "highest_order": int(found.order[-1]),
        "order_rounds": found.rounds,
        "order_changed_fraction": found.changed,
        "roots": int(found.root_count.sum()),
        "terminals": int(found.terminal_count.sum()),
        "segments": int(found.segment_count.sum()),
        "elements": int(found.element_count.sum()),
        "path_length_mean_mm": float(path.mean()),
        "path_length_sd_mm": float(path.std(ddof=1)) if len(path) > 1 else None,
        "path_length_min_mm": float(path.min()),
        "path_length_max_mm": float(path.max()),
        "diameter_boundary_um": (_UM * found.diameter_boundary).tolist(),
        "connectivity": found.connectivity.tolist(),
        "slope_orders": slopes.order.tolist(),
    }
    for i, quantity in enumerate(slopes.quantity):
        published = dict(zip(slopes.tree, slopes.kassab_slope[i], strict=True))
        published["pooled"] = slopes.pooled_slope[i]
        summary[f"{quantity}_slope"] = {
            "forest": _plain(slopes.slope[i]),
            **{tree: _plain(slope) for tree, slope in published.items()},
            "deviation": {
                tree: _plain(slopes.slope[i] / slope - 1.0) for tree, slope in published.items()
            },
        }
    return summary
