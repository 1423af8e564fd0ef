"""Tapers that one cell spans, which a run cannot follow."""

import numpy as np

from ..network import vessel_label
from ..units import M_PER_MM
from ._problem import Flow1DProblem

# The areas at the ends of such a cell differ by a factor of four and more.
_STEEP = 2.0


def steep_taper(problem: Flow1DProblem, slot: int) -> str:
    """What to say of the steepest taper within one cell, near a slot; empty where none is steep.

    Near are the vessel of the slot and those that share a node with it.
    """
    grid, network = problem.grid, problem.network
    radius, part = np.asarray(network.radius, float), np.asarray(grid.piece_fraction, float)
    segment, cell = np.asarray(grid.piece_segment), np.asarray(grid.piece_slot)
    first = np.asarray(grid.vessel_slot)[:, 0]
    vessel_of = lambda slots: np.clip(np.searchsorted(first, slots, "right") - 1, 0, None)
    own = vessel_of(slot)
    sign, end = np.asarray(grid.end_sign), vessel_of(np.asarray(grid.end_slot))
    at = ((end == own) & (sign != 0)).any(axis=0)
    near = np.unique(np.append(own, end[:, at][sign[:, at] != 0]))
    ends = radius[segment][:, :1] + part * np.diff(radius[segment], axis=1)
    widest, narrowest = np.zeros(grid.n_slots), np.full(grid.n_slots, np.inf)
    np.maximum.at(widest, cell, ends.max(axis=1))
    np.minimum.at(narrowest, cell, ends.min(axis=1))
    ratio = np.where(np.isin(vessel_of(np.arange(grid.n_slots)), near), widest / narrowest, 0.0)
    worst = int(np.argmax(ratio))
    if ratio[worst] < _STEEP:
        return ""
    name = vessel_label(network, int(segment[np.argmax(cell == worst)]))
    return (
        f"Within one cell of {name} the radius goes from {widest[worst] / M_PER_MM:.3g} to "
        f"{narrowest[worst] / M_PER_MM:.3g} mm."
    )
