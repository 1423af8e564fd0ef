"""The cases of the transient benchmark as problems, and the parameters gradients are taken in."""

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.flow1d import flow1d_problem, Flow1DProblem, SavePoints
from jaxperf.io import read_openbf, read_svoned
from jaxperf.jobs import openbf_problem, svoned_problem
from jaxperf.network import declare_lesion
from jaxperf.vessel import ConstantStiffness, SqrtAreaWall

from ._measure import witness

CELL_TIME = 1.5e-4  # s, half the library's default
LEFT_CORONARY = "left_coronary/Left_coronary_inlet_pressure_wave_outlet_coronary.in"
LEFT_REFERENCE = "left_coronary/reference_svOneD_fine.npz"
ADAN = "adan56/adan56.yaml"
BOILEAU = {"cca": "boileau2015/cca/inlet.dat", "ibif": "boileau2015/ibif/inlet.dat"}
# What gradients are taken with respect to, in the order of `parameters_of`.
PARAMETERS = ("radii", "stiffness", "lesion", "outlet R", "outlet C", "inlet")
_REDUCTION = 0.5


@dataclass(frozen=True)
class GradientCase:
    """A problem with a lesion, and the points whose pressure and flow make up the functionals."""

    name: str
    problem: Flow1DProblem
    points: SavePoints


def boileau_case(data: Path, which: str) -> Any:
    """A case of Boileau et al. with its reference series, as the tests have it."""
    # The tests' module finds the data by this name alone.
    os.environ["JAXPERF_DATA"] = str(data)
    module = witness("boileau")
    return {"cca": module.common_carotid, "ibif": module.aortic_bifurcation}[which]()


def boileau_problem(case: Any, network=None, cell_time: float = CELL_TIME) -> Flow1DProblem:
    """Total pressure at the junction, static pressure at the ends."""
    network = case.network if network is None else network
    stiffness = jnp.asarray(case.stiffness_segment[np.asarray(network.branch)])
    wall = SqrtAreaWall(ConstantStiffness(stiffness), case.pressure_reference)
    return flow1d_problem(
        network, case.boundary, case.blood, wall, cell_time=cell_time, boundary_pressure="static"
    )


def left_coronary(data: Path, cell_time: float = CELL_TIME) -> tuple[Any, Flow1DProblem]:
    """The case of svOneDSolver in its conventions."""
    case = read_svoned(data / LEFT_CORONARY)
    return case, svoned_problem(case, cell_time)


def with_slow_outlets(problem: Flow1DProblem, factor: float) -> Flow1DProblem:
    """The left coronary with every compliance of its outlets multiplied."""
    of = lambda p: (p.boundary[1].compliance_proximal, p.boundary[1].compliance_distal)
    return eqx.tree_at(of, problem, tuple(factor * c for c in of(problem)))


def adan56(data: Path, cell_time: float) -> Flow1DProblem:
    """The 77 vessels of adan56."""
    return openbf_problem(read_openbf(data / ADAN), cell_time)


def gradient_cases(data: Path, left_out: Callable[[str, Path], bool]) -> list[GradientCase]:
    """Carotid, bifurcation and left coronary, each with a lesion of half the diameter."""
    found = []
    for which, name, branch, start, end in (
        ("cca", "carotid", "carotid", 50.0, 58.0),
        ("ibif", "bifurcation", "left iliac", 40.0, 50.0),
    ):
        if left_out(name, data / BOILEAU[which]):
            continue
        case = boileau_case(data, which)
        network = _narrowed(case.network, branch, start, end)
        problem = boileau_problem(case, network)
        found.append(GradientCase(name, problem, _points(network, branch)))
    if not left_out("left coronary", data / LEFT_CORONARY):
        case = read_svoned(data / LEFT_CORONARY)
        case = dataclasses.replace(case, network=_narrowed(case.network, "lc2", 40.0, 48.0))
        problem = svoned_problem(case, CELL_TIME)
        points = _points(case.network, "lc2")
        found.append(GradientCase("left coronary", problem, points))
    return found


def _points(network, branch: str) -> SavePoints:
    """The middle of the first segment, and of the last one of a branch: behind its lesion."""
    of_branch = np.asarray(network.branch) == network.branch_name.index(branch)
    last = of_branch & np.isin(np.asarray(network.segment_node)[:, 1], network.terminals)
    return SavePoints([0, int(np.flatnonzero(last)[0])], [0.5, 0.5])


def _narrowed(network, branch: str, start_mm: float, end_mm: float):
    return declare_lesion(
        network, branch=branch, start_mm=start_mm, end_mm=end_mm, diameter_reduction=_REDUCTION
    )


def parameters_of(problem: Any) -> tuple[tuple[jax.Array, ...], ...]:
    """The arrays behind each name in `PARAMETERS`."""
    inlet, outlet = problem.boundary
    stiffness = problem.wall.stiffness
    is_coronary = hasattr(outlet, "resistance_middle")
    return (
        (problem.network.radius,),
        (stiffness.k1, stiffness.k3) if hasattr(stiffness, "k1") else (stiffness.Eh_over_r,),
        (problem.network.lesion.diameter_reduction,),
        (outlet.resistance_proximal, outlet.resistance_middle, outlet.resistance_distal)
        if is_coronary
        else (outlet.resistance_proximal, outlet.resistance_distal),
        (outlet.compliance_proximal, outlet.compliance_distal)
        if is_coronary
        else (outlet.compliance,),
        (inlet.pressure.value,) if hasattr(inlet, "pressure") else (inlet.flow.value,),
    )


def with_parameters(problem: Flow1DProblem, leaves) -> Flow1DProblem:
    """The problem with other values of the arrays in `parameters_of`."""
    flat = lambda groups: tuple(leaf for group in groups for leaf in group)
    return eqx.tree_at(lambda p: flat(parameters_of(p)), problem, flat(leaves))
