"""The states of a heart: rest, hyperemia, and those that a case names besides."""

from dataclasses import dataclass

import equinox as eqx
import numpy as np

from .._custom_types import as_leaf
from ..casefile import StateSection
from ..coupling import Autoregulation, Calibration, Microcirculation, PerfusionProblem
from ..network import AbstractBoundary, VascularNetwork
from ._prepare import case_boundary, Prepared


@dataclass(frozen=True)
class State:
    """What makes a state of a heart: its bed, autoregulation, boundary and vessels.

    All states of a case have arrays of one shape, so that they share their programs.
    """

    microcirculation: Microcirculation
    autoregulation: Autoregulation | None
    boundary: tuple[AbstractBoundary, ...]
    network: VascularNetwork

    def of(self, problem: PerfusionProblem) -> PerfusionProblem:
        """The problem of a heart in this state."""
        return eqx.tree_at(
            lambda p: (p.microcirculation, p.autoregulation, p.boundary, p.network),
            problem,
            (self.microcirculation, self.autoregulation, self.boundary, self.network),
            is_leaf=lambda x: x is None,
        )


def case_states(prepared: Prepared, calibration: Calibration) -> dict[str, State]:
    """The states of a case by name, rest and hyperemia first.

    The bed is that of the calibration in all of them, at whatever aortic pressure. Rest regulates
    itself where the case says so; hyperemia takes the calibrated dilation. A further state is one
    of these two with what its section changes.
    """
    problem, regulation = prepared.problem, prepared.case.autoregulation
    held = None
    if regulation.enabled:
        held = eqx.tree_at(
            lambda a: a.dilation_min,
            calibration.autoregulation,
            as_leaf(regulation.dilation_min, calibration.autoregulation.dilation_min.dtype),
        )
    states = {
        "rest": State(calibration.rest, held, problem.boundary, problem.network),
        "hyperemia": State(
            calibration.hyperemia, None, prepared.boundary_hyperemia, problem.network
        ),
    }
    for name, said in prepared.case.states.items():
        states[name] = _changed(prepared, states[said.like], said)
    return states


def _changed(prepared: Prepared, like: State, said: StateSection) -> State:
    boundary, network = like.boundary, like.network
    if said.pressure_inlet_mmHg is not None:
        pressure = said.pressure_inlet_mmHg
        boundary = case_boundary(prepared.case, network, prepared.closed, pressure)
    if said.without_lesions:
        lesion = network.lesion
        gone = np.arange(len(prepared.case.lesions)) + 1
        if said.without_lesions != "all":
            gone = np.array(said.without_lesions)
        reduction = np.array(lesion.diameter_reduction)
        reduction[gone - 1] = 0.0
        network = eqx.tree_at(lambda n: n.lesion.diameter_reduction, network, as_leaf(reduction))
    return State(like.microcirculation, like.autoregulation, boundary, network)
