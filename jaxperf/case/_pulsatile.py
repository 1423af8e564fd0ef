"""The larger vessels of a solved case over one heart beat, on top of the condensed bed."""

import dataclasses
import functools
import math
import time
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._custom_types import as_leaf
from .._misc import InputError
from .._results import SolveError
from .._units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG
from ..coupling import (
    condense_bed,
    CondensedBed,
    PerfusionProblem,
    PerfusionSolution,
    transient_segments,
)
from ..flow1d import (
    flow1d_problem,
    Flow1DProblem,
    initial_state,
    PeriodicSolution,
    solve_periodic,
)
from ..network import AbstractBoundary, PressureBoundary, PressureWaveform, Waveform
from ..vessel import AbstractElasticWall, RigidWall
from ._places import branch_places, Place, save_points, Series, series_of
from ._prepare import Prepared
from ._progress import Progress
from ._results import lesion_end, Results, STATES
from ._schema import Pulsatile
from ._solve import darcy_method, Solved
from ._waveforms import Heartbeat

_SAMPLES = 100
_BEHIND = "behind lesion"


@dataclass(frozen=True)
class Beat:
    """A state of a case over one heart beat.

    - `series`: pressure and flow at the places.
    - `outlet_flow`, `outlet_flow_steady` (b,): ml/min into the bed at the outlets of the 1-D
      vessels, mean over the beat and in the steady solve.
    - `bed_error`: of the condensed bed against the steady solve, relative.
    - `cells`, `vessels`: of the 1-D grid. `cycles`: beats run until the state was periodic.
    - `seconds`: condensing the bed; solving, with compilation where it is the first state.
    """

    series: Series
    outlet_flow: Float[np.ndarray, " b"]
    outlet_flow_steady: Float[np.ndarray, " b"]
    bed_error: float
    cells: int
    vessels: int
    cycles: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Pulsation:
    """The beats of a case by state."""

    heartbeat: Heartbeat
    beats: dict[str, Beat]


def solve_pulsation(
    prepared: Prepared, solved: Solved, heartbeat: Heartbeat, progress: Progress
) -> Pulsation:
    """Follow the states that the case asks for until they repeat from beat to beat.

    **Errors:** [`SolveError`][] where a vessel collapses or the flow does not become periodic.
    """
    chosen = prepared.case.pulsatile.state
    states = STATES if chosen == "both" else (chosen,)
    return Pulsation(
        heartbeat, {s: _beat(prepared, solved, heartbeat, s, progress) for s in states}
    )


def _beat(
    prepared: Prepared, solved: Solved, heartbeat: Heartbeat, state: str, progress: Progress
) -> Beat:
    said = prepared.case.pulsatile
    begin = time.perf_counter()
    bed = _condensed(prepared, solved, heartbeat, state, progress)
    between = time.perf_counter()
    progress.tell(f"cells of the vessels at {state}")
    problem = transient_problem(prepared, bed, heartbeat)
    places = case_places(prepared)
    found = _periodic(problem, bed, places, said, state, progress)
    end = time.perf_counter()
    place_of = {n: i for i, n in enumerate(np.asarray(problem.grid.node_network).tolist())}
    outlet = [place_of[n] for n in np.asarray(bed.bed.node).tolist()]
    passed = np.asarray(found.passed)[-1, outlet]
    return Beat(
        series=series_of(
            places, heartbeat.period, np.asarray(found.pressure), np.asarray(found.flow)
        ),
        outlet_flow=passed / heartbeat.period / M3_S_PER_ML_MIN,
        outlet_flow_steady=np.asarray(bed.outlet_flow) / M3_S_PER_ML_MIN,
        bed_error=float(bed.relative_error),
        cells=problem.grid.n_cells,
        vessels=problem.grid.n_vessels,
        cycles=int(found.cycles),
        seconds={"bed": between - begin, "solve": end - between},
    )


def _condensed(
    prepared: Prepared, solved: Solved, heartbeat: Heartbeat, state: str, progress: Progress
) -> CondensedBed:
    """Everything below the 1-D vessels as their boundary condition."""
    case, calibration = prepared.case, solved.calibration
    if state == "rest":
        found, solution = calibration.rest, solved.rest
        compliance = case.pulsatile.tissue_compliance_rest_ml_mmHg_100g
    else:
        found, solution = calibration.hyperemia, solved.hyperemia
        compliance = case.pulsatile.tissue_compliance_hyperemia_ml_mmHg_100g
    problem = eqx.tree_at(lambda p: p.microcirculation, prepared.problem, found)
    followed = followed_segments(prepared)
    return condense_bed(
        rigid_bed(problem, solution, followed),
        followed,
        wall=_elastic(prepared),
        pressure_lv=heartbeat.lv,
        depth=prepared.depth,
        tissue_compliance_ml_mmHg_100g=compliance,
        solution=solution,
        method=darcy_method(case.darcy.solver, prepared.problem),
        progress=functools.partial(progress.tell, f"outlets of the bed at {state}"),
    )


def followed_segments(prepared: Prepared) -> Bool[np.ndarray, " s"]:
    """The segments that are 1-D vessels: segmented and drawn ones, and the wider grown ones."""
    least = prepared.case.pulsatile.min_radius_mm
    limit = math.inf if least is None else least * M_PER_MM
    return transient_segments(prepared.network, prepared.tree.n_segments, limit)


def rigid_bed(
    problem: PerfusionProblem, solution: PerfusionSolution, followed: Bool[np.ndarray, " s"]
) -> PerfusionProblem:
    """The problem with rigid walls in which the bed's vessels keep their steady calibre.

    So the bed, which is condensed as a linear one, has the resistance that it has in the steady
    solve with elastic walls. Radii of the 1-D vessels stay at the reference.
    """
    radius = _calibres(problem, solution.pressure_static, followed)
    return eqx.tree_at(lambda p: (p.network.radius, p.wall), problem, (radius, RigidWall()))


@eqx.filter_jit
def _calibres(problem: PerfusionProblem, pressure_static, followed) -> Float[Array, "s 2"]:
    """The radius at rest of the vessels followed, that under pressure of the others, m."""
    reference = problem.network.radius
    area = problem.wall.area(pressure_static, reference)
    return jnp.where(followed[:, None], reference, jnp.sqrt(area / math.pi))


def _elastic(prepared: Prepared) -> AbstractElasticWall:
    wall = prepared.problem.wall
    # The schema refuses a rigid wall; a caller of the parts may not have asked it.
    if not isinstance(wall, AbstractElasticWall):
        raise InputError(
            "the wall is rigid",
            where="wall.law",
            expected="elastic for pulsatile flow",
            fix="Write wall: {law: elastic}",
        )
    return wall


def transient_problem(prepared: Prepared, bed: CondensedBed, heartbeat: Heartbeat) -> Flow1DProblem:
    """The 1-D vessels between the aortic pressure and the condensed bed."""
    return flow1d_problem(
        bed.network,
        tuple(_pulsatile_inlet(condition, heartbeat.aortic) for condition in bed.boundary),
        prepared.problem.blood,
        _elastic(prepared),
        cell_time=prepared.case.pulsatile.cell_time_s,
    )


def _pulsatile_inlet(condition: AbstractBoundary, aortic: Waveform) -> AbstractBoundary:
    if not isinstance(condition, PressureBoundary):
        return condition
    shape = (condition.node.shape[0], aortic.value.shape[1])
    rows = as_leaf(np.broadcast_to(np.asarray(aortic.value), shape))
    return PressureWaveform(condition.node, Waveform(aortic.time, rows, aortic.period))


def _periodic(
    problem: Flow1DProblem,
    bed: CondensedBed,
    places: list[Place],
    said: Pulsatile,
    state: str,
    progress: Progress,
) -> PeriodicSolution:
    number = np.searchsorted(bed.segment, [p.segment for p in places])
    points = save_points(
        [dataclasses.replace(p, segment=int(s)) for p, s in zip(places, number, strict=True)]
    )
    cycles = f"cycles at {state}, {problem.grid.n_cells} cells"
    # without a count: the first cycle compiles, which says nothing of the pace
    progress.tell(cycles)
    try:
        found = solve_periodic(
            problem,
            points=points,
            samples=_SAMPLES,
            initial=initial_state(problem, bed.state),
            tolerance=said.tolerance,
            max_cycles=said.cycles_max,
            progress=functools.partial(progress.tell, cycles, at_most=True),
        )
    except SolveError as error:
        where = f"{error.where} This was pulsatile flow at {state}."
        raise SolveError(error.result, where) from error
    return jax.block_until_ready(found)


def case_places(prepared: Prepared) -> list[Place]:
    """Ends and middle of every segmented and drawn branch, and the end of every lesion."""
    tree = prepared.tree
    places = [place for name in tree.branch_name for place in branch_places(tree, name)]
    for i, lesion in enumerate(prepared.case.lesions):
        places.append(
            Place(lesion.branch, f"{_BEHIND} {i + 1}", lesion.end_mm, lesion_end(prepared, i), 1.0)
        )
    return places


def waveform_rows(pulsation: Pulsation) -> list[dict[str, Any]]:
    """The rows of `waveforms.csv`."""
    return [row for state, beat in pulsation.beats.items() for row in beat.series.rows(state=state)]


def pulsation_summary(results: Results, pulsation: Pulsation) -> dict[str, Any]:
    """What `summary.json` says of pulsatile flow."""
    heartbeat = pulsation.heartbeat
    return {
        "period_s": heartbeat.period,
        "heart_rate_per_min": 60.0 / heartbeat.period,
        "pressure_systolic_mmHg": float(np.max(np.asarray(heartbeat.aortic.value))) / PA_PER_MMHG,
        "pressure_diastolic_mmHg": float(np.min(np.asarray(heartbeat.aortic.value))) / PA_PER_MMHG,
        "systole_s": list(heartbeat.systole),
        **{
            state: _beat_summary(results, heartbeat, state, beat)
            for state, beat in pulsation.beats.items()
        },
    }


def _beat_summary(results: Results, heartbeat: Heartbeat, state: str, beat: Beat) -> dict[str, Any]:
    difference = np.abs(beat.outlet_flow / beat.outlet_flow_steady - 1.0)
    total, steady = beat.outlet_flow.sum(), beat.outlet_flow_steady.sum()
    return {
        "branches": {
            name: _branch_summary(results, heartbeat, state, beat.series, name)
            for name in results.prepared.tree.branch_name
        },
        "territories": [
            name
            for name in results.prepared.territory_name
            if name in results.prepared.tree.branch_name
        ],
        "lesions": [
            _lesion_summary(results, state, beat.series, i)
            for i in range(len(results.prepared.case.lesions))
        ],
        "flow_mean_ml_min": float(total),
        "flow_relative_difference": float(total / steady - 1.0),
        "outlet_flow_relative_difference_max": float(difference.max()),
        "bed_relative_error": beat.bed_error,
        "outlets": len(beat.outlet_flow),
        "vessels": beat.vessels,
        "cells": beat.cells,
        "cycles": beat.cycles,
        "seconds": beat.seconds,
    }


def _branch_summary(
    results: Results, heartbeat: Heartbeat, state: str, series: Series, name: str
) -> dict[str, Any]:
    """Flow where the branch begins, pressure where it ends, over the beat and in steady flow."""
    first, last = series.index(name, "ostium", "proximal"), series.index(name, "distal")
    flow = series.flow[:, first]
    systole = heartbeat.is_systole(series.fine)
    mean = series.mean(flow)
    in_diastole = series.mean(flow, ~systole)
    steady = results.solution(state)
    place, end = series.places[first], series.places[last]
    return {
        "flow_mean_ml_min": mean,
        "flow_steady_ml_min": float(np.asarray(steady.flow)[place.segment]) / M3_S_PER_ML_MIN,
        "flow_max_ml_min": float(flow.max()),
        "flow_min_ml_min": float(flow.min()),
        "diastolic_share": in_diastole * float(np.mean(~systole)) / mean if mean else math.nan,
        "flow_systolic_over_diastolic": (
            series.mean(flow, systole) / in_diastole if in_diastole else math.nan
        ),
        "pressure_distal_mean_mmHg": series.mean(series.pressure[:, last]),
        "pressure_ratio": _ratio(results, series, last),
        "pressure_ratio_steady": _steady_ratio(results, state, end),
    }


def _lesion_summary(results: Results, state: str, series: Series, i: int) -> dict[str, Any]:
    lesion = results.prepared.case.lesions[i]
    at = series.index(lesion.branch, f"{_BEHIND} {i + 1}")
    return {
        "branch": lesion.branch,
        "start_mm": lesion.start_mm,
        "end_mm": lesion.end_mm,
        "pressure_ratio": _ratio(results, series, at),
        "pressure_ratio_steady": _steady_ratio(results, state, series.places[at]),
        "flow_mean_ml_min": series.mean(series.flow[:, at]),
    }


def _ratio(results: Results, series: Series, i: int) -> float:
    """Mean static pressure over mean aortic pressure: FFR, at hyperemia."""
    return series.mean(series.pressure[:, i]) / (results.pressure_inlet / PA_PER_MMHG)


def _steady_ratio(results: Results, state: str, place: Place) -> float:
    static = np.asarray(results.solution(state).pressure_static)[place.segment]
    return float(static[round(place.fraction)]) / results.pressure_inlet
