"""Hearts for the benchmark of fits: one to fit with, one that the truth comes from."""

from dataclasses import dataclass

import numpy as np

from jaxperf._progress import Progress
from jaxperf.casefile import Case, Demand, FitSection, Reserve, Wire
from jaxperf.jobs import demo_case
from jaxperf.study import Measured, prepare_case, Prepared, solve_case, Solved

# Behind the lesion of the demonstration.
WIRE = Wire(branch="LAD", at_mm=30.0, ratio=0.8)
STATES = ("rest", "hyperemia")


@dataclass(frozen=True)
class FitHeart:
    """A heart as it is built and solved."""

    prepared: Prepared
    solved: Solved

    @property
    def size(self) -> str:
        """Its size in words."""
        problem = self.prepared.problem
        return f"{problem.tissue.n_cells} voxels, {problem.tissue.n_terminals} terminals"


def fit_case_of(*, spacing_mm: float, n_terminals: int, seed: int) -> Case:
    """The demonstration with another mesh and forest."""
    raw = demo_case(spacing_mm).model_dump()
    raw["growth"] = {**raw["growth"], "n_terminals": n_terminals, "seed": seed}
    return Case.model_validate(raw)


def fit_heart_of(*, spacing_mm: float, n_terminals: int, seed: int) -> FitHeart:
    """Such a heart, built, calibrated and solved."""
    case = fit_case_of(spacing_mm=spacing_mm, n_terminals=n_terminals, seed=seed)
    prepared = prepare_case(case, ".", Progress())
    return FitHeart(prepared, solve_case(prepared, Progress()))


def section(by: str, **changes) -> FitSection:
    """Unknowns by territory, segment or hierarchy."""
    return FitSection(demand=Demand(by=by), reserve=Reserve(by=by), starts=1, **changes)


def without_wires(measured: Measured) -> Measured:
    """The scan alone."""
    return Measured(measured.mbf_ml_min_g, ())


def aha_error(found: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> np.ndarray:
    """Relative errors of the AHA segments' true flow, all states."""
    return np.concatenate([np.abs(found[s] / truth[s] - 1.0) for s in STATES])
