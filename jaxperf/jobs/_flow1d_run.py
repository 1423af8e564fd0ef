"""Cases of other 1-D solvers, run as they are: openBF and svOneDSolver."""

import functools
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from jaxtyping import Float

from .._custom_types import as_leaf
from .._defaults import DEFAULT_CELL_TIME, DEFAULT_CELL_TOLERANCE, DEFAULT_CFL
from .._misc import InputError
from .._progress import Progress
from .._results import SolveError
from .._versions import versions
from ..casefile import read_yaml, speaking
from ..flow1d import (
    ExternalPressure,
    flow1d_problem,
    Flow1DProblem,
    solve_flow1d,
    solve_periodic,
)
from ..io import (
    Format,
    OpenBFCase,
    reader_of,
    SvOneDCase,
    SvOneDMaterial,
    write_csv,
    write_json,
)
from ..network import VascularNetwork, Waveform
from ..plot import save_figure, waveform_figure, WaveformPanel
from ..report import Flow1DSeconds, Flow1DSummary, Inputs, VesselFlow
from ..study import (
    cell_sentences,
    Cells,
    cells_of,
    CellTime,
    Place,
    refuse_inertia,
    run_resolved,
    save_points,
    saved_moments,
    Series,
    series_of,
    thinned,
)
from ..units import M_PER_MM, PA_PER_MMHG
from ..vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    SqrtAreaWall,
    SvOneDWall,
)
from ._folder import run_folder

# Mean flow out of an inlet, of its largest, that is no rounding.
_BACKWARD = 1e-3
# The cycle of a case in which nothing changes, s.
_STEADY_PERIOD = 1.0
# Vessels beside the inlet's in the figure: those that carry most of the blood out.
_MOST_OUTLETS = 5
# Advice in the words of the command.
_WORDS = {
    ", or solve in float64": "",
    "Give `initial`, or look": "Look",
    "Lower `cfl`, or give a `controller`": "Lower --cfl",
    "`cell_time`": "--cell-time",
    "`max_cycles`": "--max-cycles",
    "`tolerance`": "--tolerance",
}


@dataclass(frozen=True)
class Foreign:
    """A case of another solver as a transient problem.

    `vessel_name` (s,) names its segments; `notes` say what is doubtful in its files.
    """

    name: str
    format: str
    problem: Flow1DProblem
    vessel_name: tuple[str, ...]
    notes: tuple[str, ...]


def run_flow1d(
    path: str | os.PathLike,
    *,
    out: str | os.PathLike,
    cycles: int | None = None,
    max_cycles: int = 100,
    tolerance: float = 1e-5,
    cell_time: CellTime = DEFAULT_CELL_TIME,
    cell_tolerance: float = DEFAULT_CELL_TOLERANCE,
    cfl: float = DEFAULT_CFL,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Flow1DSummary:
    """Run an openBF or svOneDSolver case and write its run folder; returns its summary.

    **Arguments:**

    - `cycles`: run so many from the steady state and keep the last; to the periodic state where
      left out.
    - `max_cycles`, `tolerance`: cycles at most, and the change over a cycle that counts as none,
      relative to the largest pressure and flow.
    - `cell_time`: time that a wave takes through a cell, s, or `auto`: cells are halved until
      they change no pressure ratio by more than `cell_tolerance`; `cfl`: longest time step over it.
    - `out`, `overwrite`, `progress`: as for `run_case`.

    **Errors:** [`InputError`][] for bad input, an existing folder, and cells so long that the
    inertia they add takes more than a quarter of the pulse; [`SolveError`][] where a vessel
    collapses, the flow becomes supercritical or does not become periodic.

    **Example:**

    ```python
    from pathlib import Path
    import jaxperf as jp
    Path("beat.dat").write_text("\\n".join(["0 0", "0.2 1e-4", "0.5 0", "0.8 0"]))
    Path("case.yaml").write_text('''
    project_name: one vessel
    inlet_file: beat.dat
    blood: {rho: 1060, mu: 4e-3}
    solver: {Ccfl: 0.9, cycles: 20, convergence_tolerance: 2.0}
    network:
      - {label: aorta, sn: 1, tn: 2, L: 0.1, E: 4e5, R0: 0.01, h0: 1e-3,
         outlet: wk3, R1: 2e8, R2: 1.8e9, Cc: 2e-10}
    ''')
    summary = jp.jobs.run_flow1d("case.yaml", out="results", cell_time=2e-3)
    ```
    """
    progress = progress or Progress()
    progress.stages = ("read", "solve", "write", "figures")
    settings = {
        "cycles": cycles,
        "max_cycles": max_cycles,
        "tolerance": tolerance,
        "cell_time_s": cell_time,
        "cell_tolerance": cell_tolerance,
        "cfl": cfl,
    }
    with run_folder(out, overwrite, "1-D run", progress.say) as folder, speaking(_WORDS):
        with progress.stage("read"):
            begin = time.perf_counter()
            inputs = _inputs(Path(path))
            case = read_foreign(path, DEFAULT_CELL_TIME if cell_time == "auto" else cell_time, cfl)
            setup = time.perf_counter() - begin
        with progress.stage("solve"):
            begin = time.perf_counter()

            def run(seconds: float) -> tuple[_Run, Cells]:
                again = case
                if seconds != float(case.problem.grid.cell_time):
                    again = read_foreign(path, seconds, cfl)
                ran = _solve(again, cycles, max_cycles, tolerance, progress)
                return ran, ran.cells

            ran = run_resolved(run, cell_time, cell_tolerance)
            refuse_inertia(ran.case.problem, ran.cells)
            seconds = Flow1DSeconds(setup=setup, solve=time.perf_counter() - begin)
            said = _summary(ran, cell_tolerance, seconds, is_periodic=cycles is None)
        case, series = ran.case, thinned(ran.series)
        with progress.stage("write"):
            said = inputs.summary(said)
            _write(folder, said, series, inputs, {"case": Path(path).name, **settings})
        with progress.stage("figures"):
            (folder / "figures").mkdir()
            save_figure(folder / "figures" / "waveforms.png", _figure(case, series))
    return said


def read_foreign(
    path: str | os.PathLike, cell_time: float = DEFAULT_CELL_TIME, cfl: float = DEFAULT_CFL
) -> Foreign:
    """Read a case of another solver, in one of the formats that hold a 1-D case.

    **Errors:** [`InputError`][] for another file, and for what the solver cannot represent.
    """
    reader = _reader(path)
    case = reader.use(path)
    if isinstance(case, OpenBFCase):
        problem, names = openbf_problem(case, cell_time, cfl), case.network.branch_name
    else:
        problem, names = svoned_problem(case, cell_time, cfl, where=str(path)), case.segment_name
    return Foreign(case.name, reader.name, problem, names, case.notes)


def _reader(path: str | os.PathLike) -> Format:
    try:
        return reader_of(path, "1-D case")
    except InputError as error:
        if not _is_case(path):
            raise
        raise InputError(
            "it is a case of jaxperf",
            where=str(path),
            expected=error.expected,
            fix="Run it with `jaxperf run`, with flow: pulsatile",
        ) from error


def _is_case(path: str | os.PathLike) -> bool:
    try:
        return bool({"tree", "ventricle"} & set(read_yaml(path)))
    except InputError:
        return False


def openbf_problem(
    case: OpenBFCase, cell_time: float = DEFAULT_CELL_TIME, cfl: float = DEFAULT_CFL
) -> Flow1DProblem:
    """An openBF case as a transient problem.

    Static pressure is continuous at all junctions, as openBF has it at branchings; where it joins
    two vessels in line it keeps the total pressure, a difference of a dynamic pressure there.
    """
    around = case.pressure_external
    uniform = bool((around == around[0]).all())
    viscosity = case.wall_viscosity
    return flow1d_problem(
        case.network,
        case.boundary,
        case.blood,
        SqrtAreaWall(
            ConstantStiffness(jnp.asarray(case.stiffness_segment)),
            pressure_reference=0.0,
            pressure_external=float(around[0]) if uniform else 0.0,
        ),
        cell_time=cell_time,
        cfl=cfl,
        pressure_external=None if uniform else _constant(around, case.period),
        wall_viscosity=jnp.asarray(viscosity) if viscosity.any() else None,
        junction_pressure="static",
        boundary_pressure="static",
        period=case.period,
    )


def svoned_problem(
    case: SvOneDCase,
    cell_time: float = DEFAULT_CELL_TIME,
    cfl: float = DEFAULT_CFL,
    *,
    where: str = "svOneDSolver case",
) -> Flow1DProblem:
    """A svOneDSolver case as a transient problem, with static pressures throughout.

    Where nothing changes with time the cycle is a second long.

    **Errors:** [`InputError`][] where the materials in use hold different blood, or the tables have
    different periods.
    """
    used = [case.material[int(i)] for i in np.unique(case.segment_material)]
    blood = _one_blood(used, where)
    period = _one_period(case, where)
    of_segment = [case.material[int(i)] for i in case.segment_material]
    reference = np.array([m.reference_pressure for m in of_segment])
    return flow1d_problem(
        case.network,
        case.boundary,
        blood,
        SvOneDWall(_stiffness(used, of_segment)),
        cell_time=cell_time,
        cfl=cfl,
        pressure_external=_constant(reference, period) if reference.any() else None,
        junction_pressure="static",
        boundary_pressure="static",
        period=period,
    )


def _stiffness(used: list[SvOneDMaterial], of_segment: list[SvOneDMaterial]) -> OlufsenStiffness:
    """The law of one material, or of several with its numbers for each segment."""
    if len({(m.k1, m.k2, m.k3) for m in used}) == 1:
        return OlufsenStiffness(used[0].k1, used[0].k2, used[0].k3)
    k1, k2, k3 = (
        as_leaf(np.array([getattr(m, k) for m in of_segment])[:, None]) for k in ("k1", "k2", "k3")
    )
    return OlufsenStiffness(k1, k2, k3)


def _one_period(case: SvOneDCase, where: str) -> float:
    held = [v for c in case.boundary for v in vars(c).values() if isinstance(v, Waveform)]
    found = sorted({float(w.period) for w in held})
    if not found:
        return _STEADY_PERIOD
    if found[-1] - found[0] > 1e-6 * found[-1]:
        raise InputError(
            f"its tables last {', '.join(f'{p:.9g}' for p in found)} s",
            where=where,
            expected="one period for all",
            fix="Bring the tables to one heart rate",
        )
    return found[0]


def _one_blood(used: list[SvOneDMaterial], where: str) -> Blood:
    first = used[0]
    for other in used[1:]:
        for name in ("density", "viscosity", "profile_exponent"):
            if getattr(other, name) != getattr(first, name):
                raise InputError(
                    f"the {name.replace('_', ' ')} of its materials {first.name} and {other.name} "
                    "differ",
                    where=where,
                    expected="one blood in all materials: their walls may differ",
                    fix="Give the MATERIAL cards the same blood",
                )
    return Blood(first.density, ConstantViscosity(first.viscosity), first.profile_exponent)


def _constant(pressure: Float[np.ndarray, " s"], period: float) -> ExternalPressure:
    """A pressure (Pa) around each segment that does not change."""
    share = np.broadcast_to(pressure[None, :, None], (1, len(pressure), 2))
    return ExternalPressure(
        Waveform(np.zeros(1), np.ones((1, 1)), period), jnp.asarray(share.copy())
    )


def vessel_places(network: VascularNetwork, names: tuple[str, ...]) -> list[Place]:
    """Both ends and the middle of every segment."""
    length = np.asarray(network.length) / M_PER_MM
    return [
        Place(name, place, fraction * float(length[s]), s, fraction)
        for s, name in enumerate(names)
        for place, fraction in (("proximal", 0.0), ("middle", 0.5), ("distal", 1.0))
    ]


@dataclass(frozen=True)
class _Run:
    """A case that has been run: its last cycle, how many were run, and what the cells did."""

    case: Foreign
    series: Series
    cycles: int
    cells: Cells


def _solve(
    case: Foreign, cycles: int | None, max_cycles: int, tolerance: float, progress: Progress
) -> _Run:
    problem = case.problem
    places = vessel_places(problem.network, case.vessel_name)
    points, samples = save_points(places), saved_moments(problem)
    size = f"cycles, {problem.grid.n_vessels} vessels, {problem.grid.n_cells} cells"
    # without a count: the first cycle compiles, which says nothing of the pace
    progress.tell(size)
    took = 0
    try:
        if cycles is None:
            found = solve_periodic(
                problem,
                points=points,
                samples=samples,
                max_cycles=max_cycles,
                tolerance=tolerance,
                progress=functools.partial(progress.tell, size, at_most=True),
            )
            took = int(found.cycles)
        else:
            state = None
            for took in range(1, cycles + 1):
                found = solve_flow1d(problem, points=points, samples=samples, initial=state)
                state = found.state
                progress.tell(size, took, cycles)
    except SolveError as error:
        which = "" if cycles is None else f", cycle {took} of {cycles}"
        raise SolveError(error.result, f"{error.where} This was {case.name}{which}.") from error
    found = jax.block_until_ready(found)
    pressure, flow = np.asarray(found.pressure_static), np.asarray(found.flow)
    series = series_of(places, float(problem.period), pressure, flow)
    return _Run(case, series, took, cells_of(problem, found, series))


def _summary(
    ran: _Run, tolerance: float, seconds: Flow1DSeconds, *, is_periodic: bool
) -> Flow1DSummary:
    problem, series = ran.case.problem, ran.series
    return Flow1DSummary(
        title=ran.case.name,
        format=ran.case.format,
        period_s=float(problem.period),
        n_vessels=problem.network.n_segments,
        n_cells=problem.grid.n_cells,
        cell_time_s=ran.cells.time,
        time_step_s=float(problem.time_step),
        vessels=_vessels(ran),
        cycles=ran.cycles,
        is_periodic=is_periodic,
        warnings=[
            *ran.case.notes,
            *_doubts(ran.case, series),
            *cell_sentences(problem, ran.cells, tolerance),
        ],
        seconds=seconds,
    )


def _doubts(case: Foreign, series: Series) -> list[str]:
    """Blood that leaves by an inlet, and pressures below zero."""
    said = []
    network = case.problem.network
    node = np.asarray(network.segment_node)
    for s in np.flatnonzero(np.isin(node[:, 0], np.asarray(network.roots))).tolist():
        mean = series.mean(series.flow[:, 3 * s])
        if mean < -_BACKWARD * float(np.abs(series.flow[:, 3 * s]).max()):
            said.append(
                f"Blood leaves by the inlet {case.vessel_name[s]}, {-mean:.3g} ml/min on average: "
                "check the sign of its table."
            )
    low = series.pressure_static.min(axis=0)
    below = np.flatnonzero(low < 0.0)
    if below.size:
        worst = int(np.argmin(low))
        place = series.places[worst]
        said.append(
            f"The pressure falls below zero in {len({series.places[i].branch for i in below})} "
            f"vessels, to {low[worst]:.3g} mmHg in {place.branch} ({place.name})."
        )
    return said


def _vessels(ran: _Run) -> dict[str, VesselFlow]:
    found, series, cells = {}, ran.series, ran.cells
    for s, name in enumerate(ran.case.vessel_name):
        proximal, middle, distal = (
            series.index(name, place) for place in ("proximal", "middle", "distal")
        )
        pressure, flow = series.pressure_static[:, middle], series.flow[:, middle]
        of = int(cells.of.distal[s])
        found[name] = VesselFlow(
            pressure_static_mean_mmHg=series.mean(pressure),
            pressure_static_min_mmHg=float(pressure.min()),
            pressure_static_max_mmHg=float(pressure.max()),
            pressure_static_proximal_mean_mmHg=series.mean(series.pressure_static[:, proximal]),
            pressure_static_distal_mean_mmHg=series.mean(series.pressure_static[:, distal]),
            flow_mean_ml_min=series.mean(flow),
            flow_min_ml_min=float(flow.min()),
            flow_max_ml_min=float(flow.max()),
            flow_variation=float(cells.of.flow_variation[of]),
            pressure_ratio_error=float(cells.ratio_error[of]),
            inertia_factor=float(cells.of.inertia[of]),
            inertia_pressure_mmHg=float(cells.of.inertia_pressure[of]) / PA_PER_MMHG,
        )
    return found


def _write(
    folder: Path, said: Flow1DSummary, series: Series, inputs: Inputs, settings: dict[str, Any]
) -> None:
    settings = {"format": said.format, **settings}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    write_json(folder / "versions.json", {**versions(), "inputs": inputs.digests()})
    write_json(folder / "summary.json", said.model_dump())
    write_csv(folder / "waveforms.csv", series.rows())


def _inputs(path: Path) -> Inputs:
    """The case and, of openBF, what it names."""
    content = read_yaml(path) if path.suffix.lower() in (".yaml", ".yml") else {}
    # what openBF reads where no inlet file is named
    table = f"{content.get('project_name')}_inlet.dat"
    return Inputs([content, table], path.parent, (path,))


def _figure(case: Foreign, series: Series) -> Any:
    """Pressure and flow at the inlet and at the outlets that carry most."""
    network = case.problem.network
    node = np.asarray(network.segment_node)
    inlet = np.flatnonzero(np.isin(node[:, 0], np.asarray(network.roots)))[:1]
    outlet = np.flatnonzero(np.isin(node[:, 1], np.asarray(network.terminals)))
    mean = [abs(series.mean(series.flow[:, 3 * s + 2])) for s in outlet.tolist()]
    outlet = outlet[np.argsort(-np.array(mean), kind="stable")[:_MOST_OUTLETS]]
    both = np.unique(np.concatenate([inlet, outlet]))
    curves = lambda values, shown: {
        case.vessel_name[s]: values[:, 3 * s + 1] for s in shown.tolist()
    }
    time, pressure, flow = series.time, series.pressure_static, series.flow
    # of their own scale: an outlet may carry a hundredth of what the inlet does
    panels = [
        WaveformPanel("pressure", "pressure (mmHg)", time, curves(pressure, both)),
        WaveformPanel("flow at the inlet", "flow (ml/min)", time, curves(flow, inlet)),
        WaveformPanel("flow at the largest outlets", "flow (ml/min)", time, curves(flow, outlet)),
    ]
    return waveform_figure(panels, columns=1, title=f"{case.name}: one cycle")
