"""What a solved case says about its lesions."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..network import branch_course, downstream_sum, junctions_in_lesions
from ..study import lesion_chain, Results
from ..units import M3_S_PER_ML_MIN, M_PER_MM
from ._schema import LesionFlow


def lesion_flows(results: Results) -> list[LesionFlow]:
    """Each declared lesion with its flow and the pressure ratio behind it."""
    prepared = results.prepared
    tissue, inside = prepared.problem.tissue, junctions_in_lesions(prepared.tree)
    volume = np.asarray(tissue.terminal_volume, np.float64)
    below = downstream_sum(prepared.network, np.asarray(tissue.terminal_node), volume)
    ratio = results.observed.pressure_ratio
    closed = np.asarray(prepared.network.lesion.is_occlusion)
    rows = []
    for i, declared in enumerate(prepared.case.lesions):
        chain = lesion_chain(prepared, i)
        flow = {k: _flow(results, k, i) for k in results.states}
        at_mm = _behind_mm(results, i)
        place = prepared.tree.at(declared.branch, mm=at_mm)
        ends = results.ffr[place.segment]
        rows.append(
            LesionFlow(
                branch=declared.branch,
                start_mm=declared.start_mm,
                end_mm=declared.end_mm,
                diameter_reduction=declared.diameter_reduction,
                ffr=float(results.ffr[chain[-1], 1]),
                pressure_ratio={k: float(ratio[k][chain[-1], 1]) for k in results.states},
                ffr_behind=float((1.0 - place.fraction) * ends[0] + place.fraction * ends[1]),
                ffr_behind_at_mm=at_mm,
                flow_ml_min=flow,
                cfr=flow["hyperemia"] / flow["rest"] if flow["rest"] > 0.0 else float("nan"),
                is_occlusion=bool(closed[i]),
                wall_share_below=float(below[chain[0]] / volume.sum()),
                side_branches=[x.branch for x in inside if x.lesion == i],
            )
        )
    return rows


def _flow(results: Results, state: str, i: int) -> float:
    """Flow where a lesion ends, ml/min; through an occlusion there is none.

    What moves in the vessel behind an occlusion came through the tissue.
    """
    chain = lesion_chain(results.prepared, i)
    is_closed = bool(np.asarray(results.solved.states[state].network.lesion.is_occlusion)[i])
    flow = np.asarray(results.solution(state).flow)[chain[-1]]
    return 0.0 if is_closed else float(flow) / M3_S_PER_ML_MIN


def _behind_mm(results: Results, i: int) -> float:
    """Where along its branch the FFR behind a lesion is taken, mm."""
    prepared, lesion = results.prepared, results.prepared.case.lesions[i]
    course, start = branch_course(prepared.tree, lesion.branch)
    end = float(start[-1] + np.asarray(prepared.tree.length)[course[-1]]) / M_PER_MM
    others = [
        x.start_mm
        for x in prepared.case.lesions
        if x.branch == lesion.branch and x.start_mm >= lesion.end_mm
    ]
    return min(lesion.end_mm + prepared.case.output.ffr_behind_mm, end, *others)


def occlusion_warnings(lesions: Sequence[LesionFlow]) -> list[str]:
    """What an occlusion means for the numbers."""
    return [
        f"The lesion on {x.branch} from {x.start_mm:g} to {x.end_mm:g} mm closes the vessel. "
        f"{100 * x.wall_share_below:.0f} % of the wall lie behind it and get no blood but what the "
        f"tissue conducts, as collaterals are not modelled. The FFR of {x.ffr:.2f} is the pressure "
        "of a vessel without inflow, and ratios of the flow there to that at rest mean nothing."
        for x in lesions
        if x.is_occlusion
    ]


def lesion_rows(lesions: Sequence[LesionFlow]) -> list[dict[str, Any]]:
    """The rows of `lesions.csv`."""
    return [
        {
            "lesion": i + 1,
            "branch": x.branch,
            "start_mm": x.start_mm,
            "end_mm": x.end_mm,
            "diameter_reduction": x.diameter_reduction,
            "ffr": x.ffr,
            "ffr_behind": x.ffr_behind,
            "ffr_behind_at_mm": x.ffr_behind_at_mm,
            **{f"flow_{k}_ml_min": flow for k, flow in x.flow_ml_min.items()},
            "cfr": x.cfr,
            "wall_share_below": x.wall_share_below,
            "side_branches": ", ".join(x.side_branches),
        }
        for i, x in enumerate(lesions)
    ]
