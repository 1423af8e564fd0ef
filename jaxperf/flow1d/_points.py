"""Places at which a solution is saved."""

from collections.abc import Callable, Sequence
from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from .._misc import InputError, is_traced
from ..network import VascularNetwork
from ._grid import Grid


def _known_as(
    dtype: type[np.generic],
) -> Callable[[ArrayLike | Sequence[float]], np.ndarray | Array]:
    """A converter to NumPy arrays of a type, in which indices and shares are exact."""
    return lambda x: cast(Array, x) if is_traced(x) else np.asarray(x, dtype)


class SavePoints(eqx.Module):
    """Places on a network: a segment and how far along it, 0 at its proximal end.

    Values are interpolated linearly between the middles of cells, and extrapolated over the last
    half cell of a vessel.

    Traced places are not checked.

    **Attributes:** `segment`, `fraction` (m,).

    **Errors:** [`InputError`][] for a fraction outside 0 to 1.
    """

    segment: Int[np.ndarray | Array, " m"] = eqx.field(converter=_known_as(np.int64))
    fraction: Float[np.ndarray | Array, " m"] = eqx.field(converter=_known_as(np.float64))

    def __check_init__(self) -> None:
        if self.segment.shape != self.fraction.shape:
            raise ValueError(
                f"expected one fraction for each segment, got {self.segment.shape} and "
                f"{self.fraction.shape}"
            )
        if is_traced(self.fraction):
            return
        bad = ~((self.fraction >= 0.0) & (self.fraction <= 1.0))
        if bad.any():
            raise InputError(
                f"a fraction is {self.fraction[bad][0]}",
                where="points",
                expected="numbers from 0 (proximal) to 1 (distal)",
                fix="Divide the distance from the segment's proximal end by its length",
            )

    def check(self, network: VascularNetwork) -> None:
        """Refuse a segment that does not exist, where the segments are known."""
        if is_traced(self.segment):
            return
        unknown = (self.segment < 0) | (self.segment >= network.n_segments)
        if unknown.any():
            raise InputError(
                f"there is no segment {self.segment[unknown][0]}",
                where="points",
                expected=f"segments 0 to {network.n_segments - 1}",
                fix="Number the segments as the network does",
            )


class Sampling(eqx.Module):
    """Slots on both sides of each point, and the weight of the second."""

    first: Int[Array, " m"]
    second: Int[Array, " m"]
    weight: Float[Array, " m"]

    def __call__(self, values: Float[Array, " k"]) -> Float[Array, " m"]:
        weight = self.weight.astype(values.dtype)
        return values[self.first] * (1.0 - weight) + values[self.second] * weight


def sample_points(network: VascularNetwork, grid: Grid, points: SavePoints) -> Sampling:
    """Find the cells around points."""
    length = jax.lax.stop_gradient(network.length)
    dtype = length.dtype
    # Pieces come in order along every vessel, and vessels one after another: one coordinate.
    low, high = grid.piece_fraction.astype(dtype).T
    width = (high - low) * length[grid.piece_segment]
    end = jnp.cumsum(width)
    segment = jnp.asarray(points.segment, jnp.int32)
    fraction = jnp.asarray(points.fraction, dtype)
    outside = jnp.maximum(low[None, :] - fraction[:, None], fraction[:, None] - high[None, :])
    here = grid.piece_segment[None, :] == segment[:, None]
    piece = jnp.argmin(jnp.where(here, jnp.maximum(outside, 0.0), jnp.inf), axis=1)
    place = end[piece] - width[piece] + (fraction - low[piece]) * length[segment]
    blank = jnp.zeros(grid.n_slots, dtype)
    cell = blank.at[grid.piece_slot].add(width)
    middle = blank.at[grid.piece_slot].max(end) - 0.5 * cell
    slot = grid.piece_slot[piece]
    begins = grid.vessel_slot[:, 0][None, :] <= slot[:, None]
    vessel = jnp.sum(begins, axis=1, dtype=jnp.int32) - 1
    first, last = grid.vessel_slot[vessel].T
    before = jnp.where(place < middle[slot], slot - 1, slot)
    before = jnp.clip(before, first, jnp.maximum(first, last - 1))
    after = jnp.minimum(before + 1, last)
    gap = middle[after] - middle[before]
    weight = jnp.where(gap > 0.0, (place - middle[before]) / jnp.where(gap > 0.0, gap, 1.0), 0.0)
    # Places are held fixed, as the grid is.
    return Sampling(before, after, jax.lax.stop_gradient(weight))
