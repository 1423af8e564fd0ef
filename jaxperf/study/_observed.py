"""What is observed of a solved case."""

from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Float

from .._units import M3_S_KG_PER_ML_MIN_G, PA_PER_MMHG
from ..coupling import PerfusionSolution
from ..observe import coronary_flow_reserve, fractional_flow_reserve, segment_means
from ._prepare import Prepared
from ._solve import Solved

STATES = ("rest", "hyperemia")


@dataclass(frozen=True)
class Results:
    """The results of a case by state (`rest`, `hyperemia`), in clinical units.

    `mbf` (c,) ml/min/g, `mbf_segment` (17,), `ffr` (s, 2) at hyperemia.
    """

    prepared: Prepared
    solved: Solved
    mbf: dict[str, Float[np.ndarray, " c"]]
    mbf_segment: dict[str, Float[np.ndarray, "17"]]
    cfr_segment: Float[np.ndarray, "17"]
    ffr: Float[np.ndarray, "s 2"]
    pressure_inlet: float

    def solution(self, state: str) -> PerfusionSolution:
        """The solution of a state."""
        return self.solved.rest if state == "rest" else self.solved.hyperemia

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
    # copied to the device as they are: `jnp.asarray` would compile a program for each shape
    volume, segment = jax.device_put((prepared.heart.mesh.volume, prepared.segment))
    mbf = {
        name: np.asarray(solution.mbf) / M3_S_KG_PER_ML_MIN_G
        for name, solution in zip(STATES, (solved.rest, solved.hyperemia), strict=True)
    }
    mean = lambda v: np.asarray(segment_means(jax.device_put(v), volume, segment))
    means = {name: mean(values) for name, values in mbf.items()}
    inlet = prepared.case.boundary.pressure_inlet_mmHg * PA_PER_MMHG
    reserve = coronary_flow_reserve(*jax.device_put((means["rest"], means["hyperemia"])))
    return Results(
        prepared=prepared,
        solved=solved,
        mbf=mbf,
        mbf_segment=means,
        cfr_segment=np.asarray(reserve),
        ffr=np.asarray(fractional_flow_reserve(solved.hyperemia.pressure_static, inlet)),
        pressure_inlet=inlet,
    )


def lesion_end(prepared: Prepared, i: int) -> int:
    """The segment at whose distal end a declared lesion ends."""
    lesion = prepared.network.lesion
    inside = np.asarray(lesion.segment)[np.asarray(lesion.lesion) == i]
    node = np.asarray(prepared.network.segment_node)[inside]
    return int(inside[~np.isin(node[:, 1], node[:, 0])][0])
