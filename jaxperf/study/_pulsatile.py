"""The larger vessels of a solved case over one heart beat, on top of the condensed bed."""

import dataclasses
import functools
import math
import time
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import as_leaf
from .._misc import InputError
from .._progress import Progress
from .._results import SolveError
from ..casefile import Pulsatile, speaking
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
from ..units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG
from ..vessel import AbstractElasticWall, RigidWall
from ._cells import cell_sentences, Cells, cells_of, run_resolved, saved_moments, thinned
from ._heartbeat import Heartbeat
from ._observed import lesion_end
from ._places import branch_places, Place, save_points, Series, series_of
from ._prepare import Prepared
from ._solve import darcy_method, Solved

BEHIND = "behind lesion"


@dataclass(frozen=True)
class Beat:
    """A state of a case over one heart beat.

    - `heartbeat`: the pressures about the mean of the state.
    - `series`: pressure and flow at the places.
    - `outlet_flow`, `outlet_flow_steady` (b,): ml/min into the bed at the outlets of the 1-D
      vessels, mean over the beat and in the steady solve.
    - `bed_error`: of the condensed bed against the steady solve, relative.
    - `resolved`: what the cells do to it, `segment` (s,) the case's number of the segments that
      are followed, and `doubts` the cells leave, as sentences.
    - `cells`, `vessels`: of the 1-D grid. `cycles`: beats run until the state was periodic.
    - `seconds`: condensing the bed; solving, with compilation where it is the first state.
    """

    heartbeat: Heartbeat
    series: Series
    outlet_flow: Float[np.ndarray, " b"]
    outlet_flow_steady: Float[np.ndarray, " b"]
    bed_error: float
    resolved: Cells
    segment: Int[np.ndarray, " s"]
    doubts: tuple[str, ...]
    cells: int
    vessels: int
    cycles: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Pulsation:
    """The beats of a case by state; all have one period."""

    beats: dict[str, Beat]


@speaking()
def solve_pulsation(
    prepared: Prepared, solved: Solved, heartbeat: Heartbeat, progress: Progress
) -> Pulsation:
    """Follow the states that the case asks for until they repeat from beat to beat.

    **Errors:** [`SolveError`][] where a vessel collapses or the flow does not become periodic.
    """
    states = prepared.case.pulsatile.states
    return Pulsation({s: _beat(prepared, solved, heartbeat, s, progress) for s in states})


def _beat(
    prepared: Prepared, solved: Solved, heartbeat: Heartbeat, state: str, progress: Progress
) -> Beat:
    said = prepared.case.pulsatile
    begin = time.perf_counter()
    above = prepared.case.pressure_mmHg(state) - prepared.case.boundary.pressure_inlet_mmHg
    heartbeat = heartbeat.moved(above * PA_PER_MMHG)
    bed = _condensed(prepared, solved, heartbeat, state, progress)
    between = time.perf_counter()
    progress.tell(f"cells of the vessels at {state}")
    places = case_places(prepared)

    def run(cell_time: float) -> tuple[_Run, Cells]:
        problem = transient_problem(prepared, bed, heartbeat, cell_time)
        found = _periodic(problem, bed, places, said, state, progress)
        pressure, flow = np.asarray(found.pressure_static), np.asarray(found.flow)
        series = series_of(places, heartbeat.period, pressure, flow)
        cells = cells_of(problem, found, series)
        return _Run(problem, found, series, cells), cells

    ran = run_resolved(run, said.cell_time_s, said.cell_tolerance)
    problem, found = ran.problem, ran.found
    end = time.perf_counter()
    place_of = {n: i for i, n in enumerate(np.asarray(problem.grid.node_network).tolist())}
    outlet = [place_of[n] for n in np.asarray(bed.bed.node).tolist()]
    passed = np.asarray(found.passed)[-1, outlet]
    return Beat(
        heartbeat=heartbeat,
        series=thinned(ran.series),
        outlet_flow=passed / heartbeat.period / M3_S_PER_ML_MIN,
        outlet_flow_steady=np.asarray(bed.outlet_flow) / M3_S_PER_ML_MIN,
        bed_error=float(bed.relative_error),
        resolved=ran.cells,
        segment=np.asarray(bed.segment),
        doubts=tuple(cell_sentences(problem, ran.cells, said.cell_tolerance)),
        cells=problem.grid.n_cells,
        vessels=problem.grid.n_vessels,
        cycles=int(found.cycles),
        seconds={"bed": between - begin, "solve": end - between},
    )


@dataclass(frozen=True)
class _Run:
    """A periodic state with the cells of its problem."""

    problem: Flow1DProblem
    found: PeriodicSolution
    series: Series
    cells: Cells


def _condensed(
    prepared: Prepared, solved: Solved, heartbeat: Heartbeat, state: str, progress: Progress
) -> CondensedBed:
    """Everything below the 1-D vessels as their boundary condition."""
    case, solution = prepared.case, solved.solutions[state]
    compliance = {
        "rest": case.pulsatile.tissue_compliance_rest_ml_mmHg_100g,
        "hyperemia": case.pulsatile.tissue_compliance_hyperemia_ml_mmHg_100g,
    }[case.likeness(state)]
    at = solved.states[state].of(prepared.problem)
    problem = eqx.tree_at(lambda p: p.autoregulation, at, None, is_leaf=lambda x: x is None)
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
def _calibres(
    problem: PerfusionProblem,
    pressure_static: Float[Array, "s 2"],
    followed: Bool[np.ndarray | Array, " s"],
) -> Float[Array, "s 2"]:
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


def transient_problem(
    prepared: Prepared, bed: CondensedBed, heartbeat: Heartbeat, cell_time: float
) -> Flow1DProblem:
    """The 1-D vessels between the aortic pressure and the condensed bed, in cells of this time."""
    return flow1d_problem(
        bed.network,
        tuple(_pulsatile_inlet(condition, heartbeat.aortic) for condition in bed.boundary),
        prepared.problem.blood,
        _elastic(prepared),
        cell_time=cell_time,
        cfl=prepared.case.pulsatile.cfl,
    )


def _pulsatile_inlet(condition: AbstractBoundary, aortic: Waveform) -> AbstractBoundary:
    """The beat at an inlet."""
    if not isinstance(condition, PressureBoundary):
        return condition
    rows = np.repeat(np.asarray(aortic.value), condition.node.shape[0], axis=0)
    return PressureWaveform(condition.node, Waveform(aortic.time, as_leaf(rows), aortic.period))


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
            samples=saved_moments(problem),
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
            Place(lesion.branch, f"{BEHIND} {i + 1}", lesion.end_mm, lesion_end(prepared, i), 1.0)
        )
    return places
