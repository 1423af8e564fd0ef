"""Places at which a solution is saved."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._misc import InputError
from ..network import VascularNetwork
from ._grid import Grid


class SavePoints(eqx.Module):
    """Places on a network: a segment and how far along it, 0 at its proximal end.

    Values are interpolated linearly between the middles of cells, and extrapolated over the last
    half cell of a vessel.

    **Attributes:** `segment`, `fraction` (m,).
    """

    segment: Int[np.ndarray, " m"] = eqx.field(converter=lambda x: np.asarray(x, np.int64))
    fraction: Float[np.ndarray, " m"] = eqx.field(converter=lambda x: np.asarray(x, np.float64))

    def __check_init__(self):
        if self.segment.shape != self.fraction.shape:
            raise ValueError(
                f"expected one fraction for each segment, got {self.segment.shape} and "
                f"{self.fraction.shape}"
            )
        bad = ~((self.fraction >= 0.0) & (self.fraction <= 1.0))
        if bad.any():
            raise InputError(
                f"a fraction is {self.fraction[bad][0]}",
                where="points",
                expected="numbers from 0 (proximal) to 1 (distal)",
                fix="Divide the distance from the segment's proximal end by its length",
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
    """Find the cells around points; runs on the host.

    **Errors:** [`InputError`][] for a segment that does not exist.
    """
    if ((points.segment < 0) | (points.segment >= network.n_segments)).any():
        raise InputError(
            f"there is no segment {points.segment.max()}",
            where="points",
            expected=f"segments 0 to {network.n_segments - 1}",
            fix="Number the segments as the network does",
        )
    arc, start, piece_slot = _arc(network, grid)
    first = np.asarray(grid.vessel_slot)
    length = np.asarray(network.length)
    low, weight = [], []
    segment, span = np.asarray(grid.piece_segment), np.asarray(grid.piece_fraction)
    for s, f in zip(points.segment, points.fraction, strict=True):
        here = np.flatnonzero(segment == s)
        piece = here[np.argmin(np.maximum(span[here, 0] - f, f - span[here, 1]))]
        x = start[piece] + (f - span[piece, 0]) * length[s]
        vessel = np.searchsorted(first[:, 0], piece_slot[piece], side="right") - 1
        a, b = first[vessel]
        k = int(np.clip(np.searchsorted(arc[a : b + 1], x) - 1 + a, a, max(a, b - 1)))
        low.append((k, min(k + 1, b)))
        gap = arc[low[-1][1]] - arc[k]
        weight.append((x - arc[k]) / gap if gap > 0 else 0.0)
    both = np.asarray(low, np.int64).reshape(-1, 2)
    return Sampling(
        jnp.asarray(both[:, 0], jnp.int32),
        jnp.asarray(both[:, 1], jnp.int32),
        jnp.asarray(np.asarray(weight, float)),
    )


def _arc(network: VascularNetwork, grid: Grid):
    """Distance of each cell's middle, and of each piece's start, from its vessel's start (m)."""
    slot, segment = np.asarray(grid.piece_slot), np.asarray(grid.piece_segment)
    width = np.diff(np.asarray(grid.piece_fraction))[:, 0] * np.asarray(network.length)[segment]
    # Pieces come in order along every vessel.
    start = np.concatenate([[0.0], np.cumsum(width)])[:-1]
    length = np.zeros(grid.n_slots)
    np.add.at(length, slot, width)
    first_piece = np.full(grid.n_slots, np.inf)
    np.minimum.at(first_piece, slot, start)
    return first_piece + 0.5 * length, start, slot
