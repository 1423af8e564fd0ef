"""What a solved case says: fields in clinical units, tables, summary, warnings."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from ..casefile import Case
from ..geometry import AHA17_NAME
from ..network import branch_course, parent_segment, VascularNetwork, vessel_label
from ..observe import (
    branch_summary,
)
from ..study import Finding, Grown, Pulsation, Results
from ..units import M3_S_KG_PER_ML_MIN_G, M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG
from ._beat import pulsation_summary
from ._forest_facts import flow_split, forest_facts, split_warnings, spread
from ._lesions import lesion_flows, occlusion_warnings
from ._schema import Forest, RunSeconds, SegmentFlow, Summary, TerritoryFlow

# What a vessel without a lesion may lose of the aortic pressure before a reader must know why.
LARGEST_HEALTHY_LOSS = 0.1


def summary(
    results: Results,
    *,
    seconds_setup: float,
    findings: Sequence[Finding] = (),
    pulsation: Pulsation | None = None,
) -> Summary:
    """The content of `summary.json`.

    **Arguments:** `findings`, of the geometry, which become warnings; `pulsation`, where the case
    is pulsatile.
    """
    prepared, solved = results.prepared, results.solved
    volume, case = prepared.heart.mesh.volume, prepared.case
    mean = {k: float(v @ volume / volume.sum()) for k, v in results.mbf.items()}
    branches = branch_rows(results)
    forest = None if prepared.grown is None else _forest(results, prepared.grown)
    solutions = solved.solutions
    per_state = lambda key: {k: int(getattr(s, key)) for k, s in solutions.items()}
    balance = [float(s.mass_balance_relative_error) for s in solutions.values()]
    lesions = lesion_flows(results)
    said = [*occlusion_warnings(lesions), *warnings(results), *tip_warnings(results)]
    said += [] if forest is None else split_warnings(forest)
    for state, beat in ({} if pulsation is None else pulsation.beats).items():
        said += [f"Pulsatile flow at {state}. {doubt}" for doubt in beat.doubts]
    return Summary(
        title=case.title,
        kind=case.kind,
        labels=labels(results),
        states=list(results.states),
        n_vessels=prepared.network.n_vessels,
        n_terminals=int(prepared.problem.tissue.n_terminals),
        n_cells=int(prepared.heart.mesh.n_cells),
        mesh=type(prepared.heart.mesh).__name__,
        wall_mass_g=float(volume.sum()) * case.microcirculation.density_kg_m3 * 1e3,
        mbf_mean_ml_min_g=mean,
        mbf_by_segment=_segments(results),
        mbf_by_territory=_territories(results),
        cfr_mean=mean["hyperemia"] / mean["rest"],
        ffr_min=float(np.min(results.ffr_tree)),
        ffr_min_branch=lowest_branch(results),
        ffr_by_branch={
            row["branch"]: row["ffr_min"]
            for row in branches
            if row["branch"] in prepared.tree.branch_name
        },
        lesions=lesions,
        hyperemia_factor=float(solved.calibration.hyperemia_factor),
        beta_source_per_Pa_s=float(solved.calibration.rest.beta_source),
        beta_sink_per_Pa_s=float(solved.calibration.rest.beta_sink),
        mass_balance_relative_error=max(balance),
        newton_iterations=per_state("newton_iterations"),
        linear_iterations=per_state("linear_iterations"),
        seconds=RunSeconds(
            setup=seconds_setup, compile=solved.seconds_compile, solve=solved.seconds_solve
        ),
        synthetic_branches=results.synthetic_branches,
        forest=forest,
        pulsatile=None if pulsation is None else pulsation_summary(results, pulsation),
        warnings=said + [f"{f.where}: {f.message}." for f in findings],
        seed=None if case.growth is None else case.growth.seed,
    )


def lowest_branch(results: Results) -> str:
    """The segmented or drawn branch of the lowest FFR."""
    tree = results.prepared.tree
    segment = int(np.argmin(results.ffr_tree.min(axis=1)))
    return tree.branch_name[int(np.asarray(tree.branch)[segment])]


def _halves(results: Results) -> dict[str, dict[str, Float[np.ndarray, "17"]]]:
    """Mean blood flow of the inner (`endo`) and outer half of each AHA segment, by state."""
    prepared = results.prepared
    inner, found = prepared.depth < 0.5, {}
    for name, inside in (("endo", inner), ("epi", ~inner)):
        weight = np.where(inside, prepared.heart.mesh.volume, 0.0)
        at = prepared.segment - 1
        with np.errstate(invalid="ignore"):
            found[name] = {
                k: np.bincount(at, mbf * weight, 17) / np.bincount(at, weight, 17)
                for k, mbf in results.mbf.items()
            }
    return found


def _segments(results: Results) -> dict[str, SegmentFlow]:
    half = _halves(results)
    of = lambda values, i: {k: float(values[k][i]) for k in results.states}
    return {
        str(i + 1): SegmentFlow(
            name=AHA17_NAME[i],
            mbf_ml_min_g=of(results.mbf_segment, i),
            mbf_endo_ml_min_g=of(half["endo"], i),
            mbf_epi_ml_min_g=of(half["epi"], i),
            cfr=float(results.cfr_segment[i]),
        )
        for i in range(17)
    }


def _territories(results: Results) -> dict[str, TerritoryFlow]:
    prepared, found = results.prepared, {}
    volume = prepared.heart.mesh.volume
    for i, name in enumerate(prepared.territory_name):
        weight = np.where(prepared.territory == i, volume, 0.0)
        flow = {k: float(v @ weight / weight.sum()) for k, v in results.mbf.items()}
        found[name] = TerritoryFlow(
            mbf_ml_min_g=flow,
            cfr=flow["hyperemia"] / flow["rest"],
            volume_share=float(weight.sum() / volume.sum()),
        )
    return found


def _forest(results: Results, grown: Grown) -> Forest:
    """The forest, its share of the flow at rest, and its terminals."""
    prepared = results.prepared
    node = np.asarray(prepared.problem.tissue.terminal_node)
    facts = forest_facts(grown)
    split = flow_split(grown, node, np.asarray(results.solution("rest").terminal_flow))
    is_grown = node >= prepared.tree.n_nodes
    volume = np.asarray(prepared.problem.tissue.terminal_volume)
    pressure = {
        k: np.asarray(results.solution(k).terminal_pressure) / PA_PER_MMHG for k in results.states
    }
    return facts.model_copy(
        update={
            "territories": {
                name: row.model_copy(update=split[name]) for name, row in facts.territories.items()
            },
            "terminal_region_mm3": spread(volume[is_grown] / M_PER_MM**3),
            "terminal_pressure_total_mmHg": {k: spread(p[is_grown]) for k, p in pressure.items()},
        }
    )


def tip_warnings(results: Results) -> list[str]:
    """Vessels without a lesion that lose much pressure, as all their flow runs to their tips."""
    prepared = results.prepared
    if prepared.grown is not None:
        return []
    terminal = np.asarray(prepared.problem.tissue.terminal_node)
    diseased = {x.branch for x in prepared.case.lesions}
    lost = tip_losses(prepared.tree, results.ffr_tree, terminal, diseased)
    if not lost:
        return []
    return [
        "No vessels are grown, so all flow of a vessel runs to its tip, while a real one gives it "
        "off along its way. So vessels without a lesion lose much of the aortic pressure at "
        "hyperemia, and their FFR is too low: "
        f"{', '.join(f'{k} {100 * v:.0f} %' for k, v in lost.items())}. Write growth: {{}}."
    ]


def tip_losses(
    tree: VascularNetwork,
    ffr: Float[np.ndarray, "f 2"],
    terminal: Int[np.ndarray, " t"],
    diseased: set[str],
) -> dict[str, float]:
    """What the branches that end in terminals lose, where that is more than a healthy one does."""
    found = {}
    for name in tree.branch_name:
        course, _ = branch_course(tree, name)
        lost = float(ffr[course[0], 0] - ffr[course[-1], 1])
        ends = np.asarray(tree.segment_node)[course[-1], 1] in terminal
        if ends and name not in diseased and lost > LARGEST_HEALTHY_LOSS:
            found[name] = lost
    return found


def labels(results: Results) -> list[str]:
    """What every figure must say about where the anatomy comes from."""
    return anatomy_labels(results.prepared.case, bool(results.synthetic_branches))


def anatomy_labels(case: Case, synthetic_vessels: bool) -> list[str]:
    """The kind of the anatomy, and whether some of its vessels are in no image."""
    said = [] if case.kind == "patient" else [case.kind]
    if case.kind != "synthetic" and synthetic_vessels:
        said.append("with synthetic vessels")
    return said


def branch_rows(results: Results) -> list[dict[str, Any]]:
    """The rows of `branches.csv`."""
    network = results.prepared.network
    found = {}
    for state in results.states:
        solution = results.solution(state)
        said = branch_summary(
            network, solution.flow, solution.pressure_static, results.pressure_aortic(state)
        )
        found[state] = jax.device_get(said)
    rows = []
    for i, name in enumerate(network.branch_name):
        flow = {k: float(found[k].flow[i]) / M3_S_PER_ML_MIN for k in results.states}
        further = [k for k in results.states if k not in ("rest", "hyperemia")]
        rest = found["rest"]
        rows.append(
            {
                "branch": name,
                "anatomy": ", ".join(labels(results)) or "patient",
                "synthetic": name in results.synthetic_branches,
                "length_mm": float(rest.length[i]) / M_PER_MM,
                "diameter_max_mm": 2.0 * float(rest.radius_max[i]) / M_PER_MM,
                "diameter_min_mm": 2.0 * float(rest.radius_min[i]) / M_PER_MM,
                "flow_rest_ml_min": flow["rest"],
                "flow_hyperemia_ml_min": flow["hyperemia"],
                "cfr": flow["hyperemia"] / flow["rest"] if flow["rest"] else float("nan"),
                "pressure_ratio_rest_min": float(rest.ffr_min[i]),
                "ffr_min": float(found["hyperemia"].ffr_min[i]),
                **{f"flow_{k}_ml_min": flow[k] for k in further},
                **{f"pressure_ratio_{k}_min": float(found[k].ffr_min[i]) for k in further},
            }
        )
    return rows


def segment_rows(results: Results) -> list[dict[str, Any]]:
    """The rows of `segments17.csv`."""
    volume, segment = results.prepared.heart.mesh.volume, results.prepared.segment
    density = results.prepared.case.microcirculation.density_kg_m3
    anatomy = ", ".join(labels(results)) or "patient"
    half = _halves(results)
    return [
        {
            "segment": i + 1,
            "name": AHA17_NAME[i],
            "anatomy": anatomy,
            "mass_g": float(volume[segment == i + 1].sum()) * density * 1e3,
            **{f"mbf_{k}_ml_min_g": float(results.mbf_segment[k][i]) for k in results.states},
            "cfr": float(results.cfr_segment[i]),
            **{
                f"mbf_{k}_{name}_ml_min_g": float(values[k][i])
                for k in results.states
                for name, values in half.items()
            },
        }
        for i in range(17)
    ]


def warnings(results: Results) -> list[str]:
    """Findings that a reader of the numbers must know."""
    prepared = results.prepared
    network, case = prepared.network, prepared.case
    capillary = case.microcirculation.pressure_capillary_mmHg
    into = parent_segment(network)
    said = []
    for state in results.states:
        solution = results.solution(state)
        pressure = np.asarray(solution.terminal_pressure) / PA_PER_MMHG
        for i, name in enumerate(prepared.territory_name):
            inside = np.flatnonzero(prepared.terminal_territory == i)
            low = inside[pressure[inside] <= capillary]
            if low.size:
                worst = int(low[np.argmin(pressure[low])])
                segment = int(into[int(prepared.problem.tissue.terminal_node[worst])])
                said.append(
                    f"At {state} {low.size} of {inside.size} terminals of {name} lie at or below "
                    f"the capillary pressure of {capillary:g} mmHg; the lowest is "
                    f"{vessel_label(network, segment)} at {pressure[worst]:.1f} mmHg."
                )
        backward = np.flatnonzero(np.asarray(solution.terminal_flow) < 0.0)
        if backward.size:
            said.append(f"At {state} blood flows backwards in {backward.size} terminals.")
    volume = np.asarray(prepared.problem.tissue.terminal_volume)
    rest = case.microcirculation.density_kg_m3 * volume
    target = case.microcirculation.mbf_rest_ml_min_g * M3_S_KG_PER_ML_MIN_G * rest
    held = np.asarray(results.solution("rest").terminal_flow) / np.asarray(target)
    if case.autoregulation.enabled:
        for i, name in enumerate(prepared.territory_name):
            inside = prepared.terminal_territory == i
            weak = inside & (held < 0.9)
            if weak.any():
                said.append(
                    f"In the territory of {name} the reserve is exhausted at rest in "
                    f"{int(weak.sum())} of {int(inside.sum())} terminal regions; the lowest holds "
                    f"{100.0 * float(held[weak].min()):.0f} % of its target."
                )
    return said
