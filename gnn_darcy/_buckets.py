"""Plans of like size, padded to the same shapes, so that one program serves many meshes."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._plan import AbstractMatrix, FluxPlan, LevelPlan, MatrixByEntries, Products

# From one bucket to the next.
_GROWTH = 1.5


class PaddedCase(eqx.Module):
    """An operator on a padded plan, scaled to a largest diagonal entry of one, and its source.

    Control volumes that are padding have sinks of one, no source and no edges.
    """

    plan: FluxPlan
    transmissibility: Float[Array, " e"]
    sink: Float[Array, " n"]
    source: Float[Array, " n"]


def plan_sizes(plan: FluxPlan) -> tuple[int, ...]:
    """What two plans must share to be batched."""
    out: list[int] = []
    for level in plan.levels:
        out += [
            level.n,
            level.edge.shape[0],
            level.n_entries,
            level.first.n_out,
            level.first.first.shape[0],
            level.second.first.shape[0],
        ]
    return (*out, plan.n_coarsest, plan.coarsest_edge.shape[0])


def bucket_of(sizes: tuple[int, ...], profile: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the smallest bucket that holds a plan, with a place for padding in each.

    Buckets are the profile times a power of 3/2.
    """
    larger = max((size + 2) / like for size, like in zip(sizes, profile, strict=True))
    power = math.ceil(math.log(larger) / math.log(_GROWTH) - 1e-9)
    return tuple(math.ceil(like * _GROWTH**power) for like in profile)


def padded_case(
    plan: FluxPlan,
    transmissibility: Float[Array, " e"],
    sink: Float[Array, " n"],
    source: Float[Array, " n"],
    sizes: tuple[int, ...],
) -> PaddedCase:
    """Pad a plan by entries, and its operator, to a bucket's sizes."""
    per_level = (len(sizes) - 2) // len(plan.levels)
    ends = [*(sizes[k * per_level] for k in range(len(plan.levels))), sizes[-2]]
    edges = [*(sizes[k * per_level + 1] for k in range(len(plan.levels))), sizes[-1]]
    levels = []
    for k, level in enumerate(plan.levels):
        own = sizes[k * per_level : (k + 1) * per_level]
        levels.append(_padded_level(level, own, ends[k + 1], edges[k + 1]))
    padded = FluxPlan(
        tuple(levels),
        _pad(plan.coarsest_edge, edges[-1], ends[-1] - 1),
        _pad(plan.start, ends[0], 0.0),
        plan.n_live_coarsest,
        ends[-1],
    )
    return PaddedCase(
        padded,
        _pad(transmissibility, edges[0], 0.0),
        _pad(sink, ends[0], 1.0),
        _pad(source, ends[0], 0.0),
    )


def _padded_level(
    level: LevelPlan, sizes: tuple[int, ...], n_coarse: int, n_coarse_edges: int
) -> LevelPlan:
    """Padding is one more control volume, one more aggregate, and an entry of zero in each list."""
    n, e, q, ap, t_first, t_second = sizes
    receivers, e_live = level.entry_of_edge, level.edge.shape[0]
    # The last entry of P takes what padding says and is read by none; the one before stays zero.
    last, nothing = q - 1, q - 2
    # Values of A are those of the edges and then the diagonal, which moves back.
    value = level.first.first
    value = jnp.where(value >= e_live, value + (e - e_live), value)
    first = eqx.tree_at(lambda f: f.first, level.first, value)
    return LevelPlan(
        edge=_pad(level.edge, e, n - 1),
        aggregate=_pad(level.aggregate, n, n_coarse - 1),
        is_root=_pad(level.is_root, n, 0.0),
        entry_of_edge=jnp.concatenate(
            [_pad(receivers[:e_live], e, last), _pad(receivers[e_live:], e, last)]
        ),
        entry_of_own=_pad(level.entry_of_own, n, last),
        matrix=_padded_matrix(level.matrix, 2 * e, n, n, e - 1),
        prolong=_padded_matrix(level.prolong, q, n, n_coarse, nothing),
        restrict=_padded_matrix(level.restrict, q, n_coarse, n, nothing),
        first=_padded_products(first, t_first, (e - 1, nothing), ap),
        second=_padded_products(level.second, t_second, (nothing, ap - 1), n_coarse_edges),
        n_live=level.n_live,
        n_entries=q,
    )


def _padded_matrix(
    matrix: AbstractMatrix, size: int, n_rows: int, n_columns: int, nothing: int
) -> MatrixByEntries:
    assert isinstance(matrix, MatrixByEntries)
    return MatrixByEntries(
        _pad(matrix.row, size, n_rows - 1),
        _pad(matrix.column, size, n_columns - 1),
        _pad(matrix.entry, size, nothing),
        n_rows,
    )


def _padded_products(
    products: Products, size: int, nothing: tuple[int, int], n_out: int
) -> Products:
    return Products(
        _pad(products.first, size, nothing[0]),
        _pad(products.second, size, nothing[1]),
        _pad(products.target, size, n_out - 1),
        n_out,
    )


def _pad(array: Array, size: int, value: float) -> Array:
    short = size - array.shape[0]
    assert short >= 0, "a plan larger than its bucket"
    return jnp.pad(array, ((0, short),) + ((0, 0),) * (array.ndim - 1), constant_values=value)


def stacked(cases: list[PaddedCase]) -> PaddedCase:
    """Several cases of one bucket along a new leading axis."""
    return jax.tree.map(lambda *x: jnp.stack(x), *cases)
