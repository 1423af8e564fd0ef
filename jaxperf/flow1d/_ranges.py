"""The ranges of the numbers of a transient problem."""

from .._ranges import not_negative, Range
from ..steady import vessel_ranges
from ._problem import Flow1DProblem


def flow_ranges(problem: Flow1DProblem) -> list[Range]:
    """What must hold for the numbers of a transient problem."""
    reduction = problem.network.lesion.diameter_reduction
    found = vessel_ranges(problem.network, problem.boundary, problem.blood, problem.wall)
    # An occlusion stops steady flow and no wave: here it would cost nothing.
    number = lambda i: f"lesion {i + 1}"
    found.append(Range("`diameter_reduction`", reduction, reduction < 1, "less than 1", number))
    if problem.wall_viscosity is not None:
        wall = lambda i: f"the wall, entry {i}"
        found.append(not_negative("`wall_viscosity` (Pa·s·m)", problem.wall_viscosity, wall))
    return found
