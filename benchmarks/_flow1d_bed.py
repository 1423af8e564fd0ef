"""Pulsatile flow on the perfused bed of the composite, with few and with many 1-D vessels."""

import dataclasses
from pathlib import Path

import numpy as np

from jaxperf._progress import Progress
from jaxperf.coupling import transient_segments
from jaxperf.report import Pulsatile, pulsation_summary
from jaxperf.study import (
    collect,
    heartbeat_of_case,
    prepare_case,
    Prepared,
    Pulsation,
    solve_case,
    solve_pulsation,
)
from jaxperf.units import M_PER_MM

from ._composite import changed, composite_file
from ._report import Report

MANY, QUICK_MANY = 500, 100
_LEFT_MAIN = "LM"


def measure_bed(report: Report, data: Path, *, quick: bool, log) -> None:
    """Cycle mean against the steady coupled solve, diastolic share, and 500 grown 1-D vessels."""
    n_terminals, coarsen = (1200, 2) if quick else (6000, 1)
    with composite_file(data, coarsen) as case:
        case = changed(
            case,
            growth={"n_terminals": n_terminals},
            wall={"law": "elastic"},
            flow="pulsatile",
            pulsatile={"states": ["rest"] if quick else ["rest", "hyperemia"]},
        )
        prepared = prepare_case(case, data, Progress())
        solved = solve_case(prepared, Progress())
        heartbeat = heartbeat_of_case(case, data)
        pulsation = solve_pulsation(prepared, solved, heartbeat, Progress())
        said = pulsation_summary(collect(prepared, solved), pulsation)
        _agreement(report, said, pulsation, prepared, log)
        _measure_many(report, prepared, solved, heartbeat, QUICK_MANY if quick else MANY, log)


def _agreement(
    report: Report, said: Pulsatile, pulsation: Pulsation, prepared: Prepared, log
) -> None:
    """Outlets against the steady solve, and when the left coronary is perfused."""
    mesh, grown = prepared.heart.mesh, prepared.grown
    assert grown is not None
    for state, beat in pulsation.beats.items():
        told = (
            f"steady coupled solve, {state}, {len(beat.outlet_flow)} outlets; "
            f"{grown.forest.n_terminals} terminals, {mesh.n_cells} voxels"
        )
        apart = np.abs(beat.outlet_flow / beat.outlet_flow_steady - 1.0)
        total = beat.outlet_flow.sum() / beat.outlet_flow_steady.sum() - 1.0
        more = {"reference": told, "error": float(apart.max())}
        add = lambda name, value, unit, s=state, more=more: report.add(
            f"flow1d.bed.{s}.{name}", value, unit, **more
        )
        add("outlet_flow_difference", 100 * float(apart.max()), "%")
        add("total_flow_difference", 100 * abs(float(total)), "%")
        branch = said.states[state].branches[_LEFT_MAIN]
        add("diastolic_share", 100 * branch.diastolic_share, "%")
        add("seconds", beat.seconds["bed"] + beat.seconds["solve"], "s")
        add("cycles", beat.cycles, "cycles")
        log(
            f"bed, {state}: outlets within {apart.max():.2%}, total {total:.2%}, diastolic share "
            f"{branch['diastolic_share']:.1%}; {beat.vessels} vessels, {beat.cells} cells, "
            f"{beat.cycles} cycles in {beat.seconds['solve']:.1f} s"
        )
    report.tables["phasic flow on the perfused bed"] = [
        {"state": state, "branch": name}
        | {key: float(branch[key]) for key in ("flow_mean_ml_min", "flow_steady_ml_min")}
        | {"diastolic_share_%": 100 * float(branch.diastolic_share)}
        for state in pulsation.beats
        for name, branch in said[state]["branches"].items()
    ]


def _with_many(prepared: Prepared, least_number: int) -> tuple[Prepared, int]:
    """The case whose 1-D vessels include at least so many grown ones, and how many segments."""
    network, fixed = prepared.network, prepared.tree.n_segments
    radius = np.sort(np.asarray(network.radius)[fixed:].min(axis=1))[::-1]
    # The widest ones need not hang together: go down until enough of them do.
    for rank in range(least_number, len(radius), least_number // 5):
        kept = transient_segments(network, fixed, float(radius[rank]))
        if kept[fixed:].sum() >= least_number:
            break
    least = float(radius[rank]) / M_PER_MM
    case = changed(prepared.case, pulsatile={"min_radius_mm": least, "states": ["rest"]})
    return dataclasses.replace(prepared, case=case), int(kept[fixed:].sum())


def _measure_many(
    report: Report, prepared: Prepared, solved, heartbeat, least_number: int, log
) -> None:
    many, grown = _with_many(prepared, least_number)
    beat = solve_pulsation(many, solved, heartbeat, Progress()).beats["rest"]
    apart = float(np.max(np.abs(beat.outlet_flow / beat.outlet_flow_steady - 1.0)))
    told = (
        f"{grown} grown segments from {many.case.pulsatile.min_radius_mm:.3f} mm in "
        f"{beat.vessels} vessels, {beat.cells} cells, {len(beat.outlet_flow)} outlets, "
        f"{beat.cycles} cycles, compiling included"
    )
    report.add("flow1d.bed.many.seconds", beat.seconds["solve"], "s", reference=told, error=apart)
    report.add("flow1d.bed.many.condensing_seconds", beat.seconds["bed"], "s", error=apart)
    report.add("flow1d.bed.many.grown_segments", grown, "segments")
    report.add("flow1d.bed.many.cells", beat.cells, "cells")
    report.add("flow1d.bed.many.outlet_flow_difference", 100 * apart, "%", error=apart)
    log(f"bed with many vessels: {told}; {beat.seconds['solve']:.1f} s, within {apart:.2%}")
