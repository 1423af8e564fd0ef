"""What is observed of a solved case, in clinical units."""

from dataclasses import dataclass
from functools import cached_property

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from ..coupling import PerfusionSolution
from ..observe import Observations, observe
from ..units import M3_S_KG_PER_ML_MIN_G
from ._prepare import Prepared
from ._solve import Solved

_observe = eqx.filter_jit(observe)


@dataclass(frozen=True)
class Results:
    """The results of a case by state: what was solved, and what is seen of it."""

    prepared: Prepared
    solved: Solved
    observed: Observations

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states; rest and hyperemia come first."""
        return tuple(self.solved.solutions)

    def solution(self, state: str) -> PerfusionSolution:
        """The solution of a state."""
        return self.solved.solutions[state]

    def pressure_aortic(self, state: str) -> float:
        """Pa."""
        return float(self.observed.pressure_aortic[state])

    @cached_property
    def mbf(self) -> dict[str, Float[np.ndarray, " c"]]:
        """Myocardial blood flow of each control volume, ml/min/g."""
        return {k: np.asarray(v) / M3_S_KG_PER_ML_MIN_G for k, v in self.observed.mbf.items()}

    @cached_property
    def mbf_segment(self) -> dict[str, Float[np.ndarray, "17"]]:
        """Myocardial blood flow of each AHA segment, ml/min/g."""
        means = self.observed.mbf_segment
        return {k: np.asarray(v) / M3_S_KG_PER_ML_MIN_G for k, v in means.items()}

    @cached_property
    def cfr_segment(self) -> Float[np.ndarray, "17"]:
        """Flow reserve of each AHA segment."""
        return np.asarray(self.observed.flow_reserve())

    @cached_property
    def ffr(self) -> Float[np.ndarray, "s 2"]:
        """Static over aortic pressure at both ends of each segment, at hyperemia."""
        return np.asarray(self.observed.pressure_ratio["hyperemia"])

    @property
    def ffr_tree(self) -> Float[np.ndarray, "f 2"]:
        """FFR in the segmented and drawn vessels; in arterioles pressure falls in health too."""
        return self.ffr[: self.prepared.tree.n_segments]

    @property
    def synthetic_branches(self) -> list[str]:
        """Branches that no image shows: all of a built tree, or those drawn by rule."""
        names = list(self.prepared.network.branch_name)
        if self.prepared.case.kind == "synthetic":
            return names
        return [name for name in names if name.endswith("(synthetic)")]


def collect(prepared: Prepared, solved: Solved) -> Results:
    """Observe a solved case."""
    # copied to the device as it is: `jnp.asarray` would compile a program for each shape
    segment = jax.device_put(prepared.segment)
    return Results(prepared, solved, _observe(prepared.problem, solved.solutions, segment))


def lesion_chain(prepared: Prepared, i: int) -> Int[np.ndarray, " k"]:
    """The segments of a declared lesion from its proximal end."""
    lesion = prepared.network.lesion
    return np.asarray(lesion.segment)[np.asarray(lesion.lesion) == i]


def lesion_end(prepared: Prepared, i: int) -> int:
    """The segment at whose distal end a declared lesion ends."""
    return int(lesion_chain(prepared, i)[-1])
