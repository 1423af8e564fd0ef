"""The ranges of the numbers of a perfusion problem."""

from .._ranges import not_negative, positive, Range
from ..steady import vessel_ranges
from ._problem import PerfusionProblem


def perfusion_ranges(problem: PerfusionProblem) -> list[Range]:
    """What must hold for the numbers of vessels and bed.

    The mobility may be a field of tensors: whether it conducts, the tissue's solver finds out.
    """
    bed, regulation = problem.microcirculation, problem.autoregulation
    volume = lambda i: f"control volume {i}"
    region = lambda i: f"terminal region {i}"
    found = [
        *vessel_ranges(
            problem.network,
            problem.boundary,
            problem.blood,
            problem.wall,
            problem.tissue.terminal_node,
        ),
        # a scar takes no blood
        not_negative("`beta_source` (1/(Pa·s))", bed.beta_source, volume),
        not_negative("`beta_sink` (1/(Pa·s))", bed.beta_sink, volume),
        positive("`density` (kg/m³)", problem.tissue.density, lambda _: "the tissue"),
    ]
    if regulation is None:
        return [*found, not_negative("`dilation`", bed.dilation, region)]
    return [
        *found,
        positive("`flow_target` (m³/s)", regulation.flow_target, region),
        positive("`dilation_max`", regulation.dilation_max, region),
        positive("`dilation_min`", regulation.dilation_min, region),
    ]
