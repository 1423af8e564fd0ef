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

    Pressure and area are interpolated linearly between the middles of cells and the ends of the
    vessel, flow between the faces of the cells, through which volume is conserved.

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
    """Where points lie: the slot before each and the weight of the next one; its cell, whose first
    face has the cell's number, and the weight of the second face.
    """

    slot: Int[Array, " m"]
    slot_weight: Float[Array, " m"]
    face: Int[Array, " m"]
    face_weight: Float[Array, " m"]

    def between_slots(self, values: Float[Array, " k"]) -> Float[Array, " m"]:
        """Values of slots, with those of the vessels' ends in the gaps, at the points."""
        return _between(values, self.slot, self.slot_weight)

    def between_faces(self, values: Float[Array, " f"]) -> Float[Array, " m"]:
        """Values of faces at the points."""
        return _between(values, self.face, self.face_weight)


def _between(
    values: Float[Array, " k"], first: Int[Array, " m"], weight: Float[Array, " m"]
) -> Float[Array, " m"]:
    weight = weight.astype(values.dtype)
    return values[first] * (1.0 - weight) + values[first + 1] * weight


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
    last = blank.at[grid.piece_slot].max(end)
    first = last - cell
    # A gap stands for the end of the vessel beside it. Vessels that pad a grid have no slot.
    begin, stop = grid.vessel_slot.T
    before = jnp.where(begin < grid.n_slots, begin - 1, grid.n_slots)
    at = 0.5 * (first + last)
    at = at.at[before].set(first[begin], mode="drop").at[stop + 1].set(last[stop], mode="drop")
    inside = grid.piece_slot[piece]
    slot = jnp.where(place < at[inside], inside - 1, inside)
    gap, length_here = at[slot + 1] - at[slot], cell[inside]
    share = lambda part, whole: jnp.clip(part / jnp.where(whole > 0.0, whole, 1.0), 0.0, 1.0)
    # Places are held fixed, as the grid is.
    return jax.lax.stop_gradient(
        Sampling(
            slot, share(place - at[slot], gap), inside, share(place - first[inside], length_here)
        )
    )
