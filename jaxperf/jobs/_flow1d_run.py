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

from .._defaults import DEFAULT_CELL_TIME, DEFAULT_CFL
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
from ..report import Flow1DSeconds, Flow1DSummary, VesselFlow
from ..study import Place, save_points, Series, series_of
from ..units import M_PER_MM
from ..vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    SqrtAreaWall,
    SvOneDWall,
)
from ._folder import run_folder

_SAMPLES = 100
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
    """A case of another solver as a transient problem; `vessel_name` (s,) names its segments."""

    name: str
    format: str
    problem: Flow1DProblem
    vessel_name: tuple[str, ...]


def run_flow1d(
    path: str | os.PathLike,
    *,
    out: str | os.PathLike,
    cycles: int | None = None,
    max_cycles: int = 100,
    tolerance: float = 1e-5,
    cell_time: float = DEFAULT_CELL_TIME,
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
    - `cell_time`: time that a wave takes through a cell, s; `cfl`: longest time step over it.
    - `out`, `overwrite`, `progress`: as for `run_case`.

    **Errors:** [`InputError`][] for bad input and an existing folder, [`SolveError`][] where a
    vessel collapses, the flow becomes supercritical or does not become periodic.

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
        "cfl": cfl,
        "samples": _SAMPLES,
    }
    with run_folder(out, overwrite, "1-D run", progress.say) as folder, speaking(_WORDS):
        with progress.stage("read"):
            begin = time.perf_counter()
            case = read_foreign(path, cell_time, cfl)
            setup = time.perf_counter() - begin
        with progress.stage("solve"):
            begin = time.perf_counter()
            series, took = _solve(case, cycles, max_cycles, tolerance, progress)
            solve = time.perf_counter() - begin
        grid, network = case.problem.grid, case.problem.network
        said = Flow1DSummary(
            title=case.name,
            format=case.format,
            period_s=float(case.problem.period),
            n_vessels=network.n_segments,
            n_cells=grid.n_cells,
            time_step_s=float(case.problem.time_step),
            vessels=_vessels(case, series),
            cycles=took,
            is_periodic=cycles is None,
            seconds=Flow1DSeconds(setup=setup, solve=solve),
        )
        with progress.stage("write"):
            _write(folder, said, series, Path(path), settings)
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
    return Foreign(case.name, reader.name, problem, names)


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

    **Errors:** [`InputError`][] where several materials are in use, nothing changes with time, or
    the tables have different periods.
    """
    material = _one_material(case, where)
    period = _one_period(case, where)
    reference = np.full(case.network.n_segments, material.reference_pressure)
    return flow1d_problem(
        case.network,
        case.boundary,
        Blood(material.density, ConstantViscosity(material.viscosity), material.profile_exponent),
        SvOneDWall(OlufsenStiffness(material.k1, material.k2, material.k3)),
        cell_time=cell_time,
        cfl=cfl,
        pressure_external=_constant(reference, period) if reference.any() else None,
        junction_pressure="static",
        boundary_pressure="static",
    )


def _one_period(case: SvOneDCase, where: str) -> float:
    held = [v for c in case.boundary for v in vars(c).values() if isinstance(v, Waveform)]
    found = sorted({float(w.period) for w in held})
    if not found:
        raise InputError(
            "nothing in it changes with time",
            where=where,
            expected="an inlet or an intramyocardial pressure with a table over the cycle",
            fix="Give the inlet a table, or solve it with jaxperf.solve_steady",
        )
    if found[-1] - found[0] > 1e-6 * found[-1]:
        raise InputError(
            f"its tables last {', '.join(f'{p:.9g}' for p in found)} s",
            where=where,
            expected="one period for all",
            fix="Bring the tables to one heart rate",
        )
    return found[0]


def _one_material(case: SvOneDCase, where: str) -> SvOneDMaterial:
    used = np.unique(case.segment_material)
    if len(used) > 1:
        names = ", ".join(case.material[int(i)].name for i in used)
        raise InputError(
            f"its segments are of the materials {names}",
            where=where,
            expected="one material for all segments",
            fix="Give every SEGMENT card the same material",
        )
    return case.material[int(used[0])]


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


def _solve(
    case: Foreign, cycles: int | None, max_cycles: int, tolerance: float, progress: Progress
) -> tuple[Series, int]:
    """The last cycle, and how many were run."""
    problem = case.problem
    places = vessel_places(problem.network, case.vessel_name)
    points = save_points(places)
    size = f"cycles, {problem.grid.n_vessels} vessels, {problem.grid.n_cells} cells"
    # without a count: the first cycle compiles, which says nothing of the pace
    progress.tell(size)
    took = 0
    try:
        if cycles is None:
            found = solve_periodic(
                problem,
                points=points,
                samples=_SAMPLES,
                max_cycles=max_cycles,
                tolerance=tolerance,
                progress=functools.partial(progress.tell, size, at_most=True),
            )
            took = int(found.cycles)
        else:
            state = None
            for took in range(1, cycles + 1):
                found = solve_flow1d(problem, points=points, samples=_SAMPLES, initial=state)
                state = found.state
                progress.tell(size, took, cycles)
    except SolveError as error:
        which = "" if cycles is None else f", cycle {took} of {cycles}"
        raise SolveError(error.result, f"{error.where} This was {case.name}{which}.") from error
    found = jax.block_until_ready(found)
    pressure, flow = np.asarray(found.pressure_static), np.asarray(found.flow)
    return series_of(places, float(problem.period), pressure, flow), took


def _vessels(case: Foreign, series: Series) -> dict[str, VesselFlow]:
    found = {}
    for name in case.vessel_name:
        i = series.index(name, "middle")
        pressure, flow = series.pressure_static[:, i], series.flow[:, i]
        found[name] = VesselFlow(
            pressure_static_mean_mmHg=series.mean(pressure),
            pressure_static_min_mmHg=float(pressure.min()),
            pressure_static_max_mmHg=float(pressure.max()),
            flow_mean_ml_min=series.mean(flow),
            flow_min_ml_min=float(flow.min()),
            flow_max_ml_min=float(flow.max()),
        )
    return found


def _write(
    folder: Path, said: Flow1DSummary, series: Series, path: Path, settings: dict[str, Any]
) -> None:
    settings = {"case": os.fspath(path.absolute()), "format": said.format, **settings}
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    write_json(folder / "versions.json", {**versions(), "data": os.fspath(path.absolute().parent)})
    write_json(folder / "summary.json", said.model_dump())
    write_csv(folder / "waveforms.csv", series.rows())


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
