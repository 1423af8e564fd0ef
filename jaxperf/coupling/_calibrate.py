"""Conductances of the bed from flow targets in the lesion-free heart."""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, cast_like, ScalarLike
from .._misc import InputError, is_traced
from .._results import nan_unless, RESULTS
from ..darcy import AbstractDarcySolver, ConjugateGradient
from ..network import check_boundary, vessel_label, without_lesions
from ..steady import Boundary, initial_state, node_closure
from ..units import M3_S_KG_PER_ML_MIN_G, PA_PER_MMHG
from ._problem import Autoregulation, Microcirculation, PerfusionProblem
from ._solve import PerfusionSolution, solve_perfusion
from ._target import find_bed

_Solve: TypeAlias = Callable[[PerfusionProblem], PerfusionSolution]
_Report: TypeAlias = Callable[[str], None]


class Calibration(eqx.Module):
    """What a calibration found.

    **Attributes:** `rest`, the bed with uniform conductances (β in 1/(Pa·s)) that gives the rest
    target in the lesion-free heart undilated; `hyperemia`, the same dilated by
    `hyperemia_factor`; `autoregulation`, which holds the rest target in every terminal region
    within that factor; `mbf_rest_ml_min_g`, `mbf_hyperemia_ml_min_g` reached; `solves` it took,
    under a transformation the steps of Newton's method.
    """

    rest: Microcirculation
    hyperemia: Microcirculation
    autoregulation: Autoregulation
    hyperemia_factor: ScalarLike
    mbf_rest_ml_min_g: ScalarLike
    mbf_hyperemia_ml_min_g: ScalarLike
    solves: int | Int[Array, ""]


def _mean_mbf(problem: PerfusionProblem, solution: PerfusionSolution) -> float:
    mass = float(problem.tissue.density) * float(np.sum(np.asarray(problem.tissue.volume)))
    flow = float(np.sum(np.asarray(solution.terminal_flow)))
    return flow / mass / M3_S_KG_PER_ML_MIN_G


def calibrate(
    problem: PerfusionProblem,
    *,
    mbf_rest_ml_min_g: ScalarLike,
    mbf_hyperemia_ml_min_g: ScalarLike | None = None,
    hyperemia_factor: ScalarLike | None = None,
    pressure_capillary_mmHg: ScalarLike = 15.0,
    boundary_hyperemia: Boundary | None = None,
    rtol: float = 1e-9,
    method: AbstractDarcySolver = ConjugateGradient(),
    solve: Callable[[PerfusionProblem], PerfusionSolution] | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Find uniform β_src and β_snk from a rest target, and the factor of hyperemia.

    In the lesion-free heart at rest, undilated,

        β_snk = (Q/V)/(P_cap − p_snk),        β_src = (Q/V)/(p̄_T − P_cap),

    with Q/V = MBF·ρ_t. The first is exact: all flow leaves through the sink, so P_cap is the mean
    tissue pressure. The second holds for the mean terminal pressure p̄_T, which itself depends on
    the flow. In hyperemia both grow by a common factor, which is given or is the one at which the
    lesion-free heart reaches a stress target.

    Rest was measured at the problem's boundary, stress at `boundary_hyperemia`. At other pressures
    the bed keeps what was found: calibrate once, then change `problem.boundary`.

    Where values are known, the host iterates over solves of the problem, so that no program is
    compiled that later solves do not share. Under a transformation (`jit`, `grad`, `vmap`) Newton's
    method solves the same equations, the unknown joined to the perfusion, and the implicit rule
    differentiates them, to any order, in all that `solve_perfusion` is differentiable in, in the
    targets and in the capillary pressure.

    **Arguments:** `problem`, whose own β and dilation are only a layout; its lesions are lifted.
    Give exactly one of `mbf_hyperemia_ml_min_g` and `hyperemia_factor`. `pressure_capillary_mmHg`
    is P_cap. `boundary_hyperemia` is the boundary in hyperemia, the problem's where left out.
    `method` is the Darcy solver. On the host: `rtol`, on the flow targets; `solve`, in
    the place of `solve_perfusion` with `method`, as where the problem is solved padded; `report`,
    which is told after every solve what was reached.

    **Returns:** a [`Calibration`][].

    **Errors:** [`InputError`][] where a terminal of the lesion-free heart lies at or below the
    capillary pressure, naming the vessel, where a target cannot be reached, and where `solve` is
    given under a transformation. Else nothing is raised there: what cannot be calibrated is NaN.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    mesh, _, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree = jp.anatomy.demo_tree(lv)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    bed = jp.Microcirculation(1.7e-6, 8.7e-6, 2e-9, 700.0, 1.0)
    problem = jp.PerfusionProblem(tree, jp.perfused_tissue(mesh, regions, terminal), (inlet,), bed)
    found = jp.calibrate(problem, mbf_rest_ml_min_g=1.0, hyperemia_factor=4.0)
    print(found.mbf_hyperemia_ml_min_g)
    ```
    """
    targets = (mbf_rest_ml_min_g, mbf_hyperemia_ml_min_g, hyperemia_factor)
    _check_targets(*targets)
    changed = (without_lesions(problem.network), None)
    where = lambda p: (p.network, p.autoregulation)
    bare = eqx.tree_at(where, problem, changed, is_leaf=lambda x: x is None)
    stressed = bare
    if boundary_hyperemia is not None:
        check_boundary(bare.network, boundary_hyperemia)
        stressed = eqx.tree_at(lambda p: p.boundary, bare, boundary_hyperemia)
    highest = [_at_rest(bare), _at_rest(stressed)]
    # Under `jit` every program gives traced values, known as those it was given may be.
    given = (stressed, bare, targets, pressure_capillary_mmHg, highest)
    if not any(map(is_traced, jax.tree.leaves(given))):
        solve = solve or (lambda problem: solve_perfusion(problem, method))
        values = tuple(None if x is None else float(x) for x in targets)
        capillary = float(pressure_capillary_mmHg) * PA_PER_MMHG
        return _on_host(
            (bare, stressed), values, capillary, list(map(float, highest)), rtol, solve, report
        )
    if solve is not None:
        raise InputError(
            "solve is given under a transformation",
            where="calibrate",
            expected="a Darcy solver as method",
            fix="Give method instead",
        )
    return _traced(bare, stressed, *targets, pressure_capillary_mmHg, method)


def _on_host(
    problems: tuple[PerfusionProblem, PerfusionProblem],
    targets: tuple[float | None, ...],
    capillary: float,
    highest: list[float],
    rtol: float,
    solve: _Solve,
    report: _Report,
) -> Calibration:
    """The calibration by solves of rest, then of hyperemia, one after another."""
    (bare, stressed), (target, stress_target, factor) = problems, targets
    assert target is not None
    for level in highest:
        _refuse_low_inlet(level, capillary)
    rest, solution, solves = _rest(bare, target, capillary, highest[0], rtol, solve, report)
    at_rest = _mean_mbf(stressed, solution)
    if factor is None:
        assert stress_target is not None
        start = stress_target / at_rest
        factor, stress, more = _factor(stressed, rest, start, stress_target, rtol, solve, report)
    else:
        more = 1
        stress = solve(_with_bed(stressed, _dilated(rest, factor)))
    tissue = stressed.tissue
    per_volume = target * M3_S_KG_PER_ML_MIN_G * np.asarray(tissue.density)
    return Calibration(
        rest=rest,
        hyperemia=_dilated(rest, factor),
        autoregulation=Autoregulation(
            as_leaf(per_volume * np.asarray(tissue.terminal_volume)), factor
        ),
        hyperemia_factor=factor,
        mbf_rest_ml_min_g=at_rest,
        mbf_hyperemia_ml_min_g=_mean_mbf(stressed, stress),
        solves=solves + more,
    )


@eqx.filter_jit
def _traced(
    bare: PerfusionProblem,
    stressed: PerfusionProblem,
    mbf_rest: ScalarLike,
    mbf_hyperemia: ScalarLike | None,
    factor: ScalarLike | None,
    pressure_capillary: ScalarLike,
    method: AbstractDarcySolver,
) -> Calibration:
    """The calibration by Newton's method, NaN where there is none."""
    tissue, pressure_sink = bare.tissue, bare.microcirculation.pressure_sink
    like = tissue.volume
    mbf_rest, capillary = cast_like(mbf_rest, like), cast_like(pressure_capillary, like)
    capillary = capillary * PA_PER_MMHG
    mass = tissue.density * jnp.sum(tissue.volume)
    flow_of = lambda mbf: mbf * M3_S_KG_PER_ML_MIN_G * mass
    per_volume = mbf_rest * M3_S_KG_PER_ML_MIN_G * tissue.density
    highest = _at_rest(bare)
    guess = _bed(bare, per_volume / (highest - capillary), per_volume / (capillary - pressure_sink))
    one = jnp.ones_like(mbf_rest)
    rest = find_bed(_with_bed(bare, guess), flow_of(mbf_rest), "beta_source", method, factor=one)
    holds = (mbf_rest > 0) & (pressure_sink < capillary) & (capillary < highest)
    holds = holds & (capillary < rest.terminal_pressure) & (rest.result == RESULTS.successful)
    holds = holds & (capillary < _at_rest(stressed))
    if factor is None:
        assert mbf_hyperemia is not None
        mbf_hyperemia = cast_like(mbf_hyperemia, like)
        stress = find_bed(
            _with_bed(stressed, rest.bed),
            flow_of(mbf_hyperemia),
            "dilation",
            method,
            factor=mbf_hyperemia / mbf_rest,
            initial=rest.state,
        )
        factor, flow, result = stress.factor, stress.flow, stress.result
        steps = rest.steps + stress.steps
    else:
        factor = cast_like(factor, like)
        stress = solve_perfusion(
            _with_bed(stressed, _dilated(rest.bed, factor)), method, throw=False
        )
        flow, result = jnp.sum(stress.terminal_flow), stress.result
        steps = rest.steps + stress.newton_iterations
    found = Calibration(
        rest=rest.bed,
        hyperemia=_dilated(rest.bed, factor),
        autoregulation=Autoregulation(per_volume * tissue.terminal_volume, factor),
        hyperemia_factor=factor,
        mbf_rest_ml_min_g=rest.flow / flow_of(one),
        mbf_hyperemia_ml_min_g=flow / flow_of(one),
        solves=steps,
    )
    return nan_unless(holds & (factor > 1) & (result == RESULTS.successful), found)


def _check_targets(
    rest: ScalarLike, hyperemia: ScalarLike | None, factor: ScalarLike | None
) -> None:
    if (hyperemia is None) == (factor is None):
        raise InputError(
            "both or none of mbf_hyperemia_ml_min_g and hyperemia_factor are given",
            where="calibrate",
            expected="exactly one of the two",
            fix="Remove one",
        )
    for name, value, least in (
        ("mbf_rest_ml_min_g", rest, 0.0),
        ("mbf_hyperemia_ml_min_g", hyperemia, rest),
        ("hyperemia_factor", factor, 1.0),
    ):
        if value is None or is_traced(value) or is_traced(least):
            continue
        if not (np.isfinite(value) and value > least):
            raise InputError(
                f"{name} is {value}",
                where="calibrate",
                expected=f"a number above {least}",
                fix="Published means are near 1.0 at rest and 3.5 ml/min/g in hyperemia",
            )


def _with_bed(problem: PerfusionProblem, bed: Microcirculation) -> PerfusionProblem:
    return eqx.tree_at(lambda p: p.microcirculation, problem, bed)


def _dilated(bed: Microcirculation, factor: ScalarLike) -> Microcirculation:
    return eqx.tree_at(lambda b: b.dilation, bed, as_leaf(factor, bed.dilation.dtype))


def _bed(
    problem: PerfusionProblem, beta_source: ScalarLike, beta_sink: ScalarLike
) -> Microcirculation:
    like = problem.tissue.volume.dtype
    old = problem.microcirculation
    return Microcirculation(
        as_leaf(beta_source, like),
        as_leaf(beta_sink, like),
        old.permeability,
        old.pressure_sink,
        as_leaf(1.0, like),
    )


def _refuse_low_pressure(
    problem: PerfusionProblem, solution: PerfusionSolution, capillary: float
) -> None:
    pressure = np.asarray(solution.terminal_pressure)
    worst = int(np.argmin(pressure))
    if pressure[worst] > capillary:
        return
    node = int(problem.tissue.terminal_node[worst])
    segment = int(np.flatnonzero(np.asarray(problem.network.segment_node)[:, 1] == node)[0])
    raise InputError(
        f"the terminal of {vessel_label(problem.network, segment)} lies at "
        f"{pressure[worst] / PA_PER_MMHG:.1f} mmHg in the lesion-free heart, the capillaries at "
        f"{capillary / PA_PER_MMHG:.1f} mmHg",
        where="calibration",
        expected="a terminal pressure above the capillary pressure",
        fix="Widen the vessels that lead there, give them fewer terminals, or lower the target",
    )


def _refuse_low_inlet(highest: float, capillary: float) -> None:
    if highest <= capillary:
        raise InputError(
            f"the inlet lies at {highest / PA_PER_MMHG:.1f} mmHg",
            where="boundary",
            expected=f"more than the capillary pressure, {capillary / PA_PER_MMHG:.1f} mmHg",
            fix="Give the mean aortic pressure in mmHg",
        )


def _rest(
    problem: PerfusionProblem,
    target: float,
    capillary: float,
    system_pressure: float,
    rtol: float,
    solve: _Solve,
    report: _Report,
) -> tuple[Microcirculation, PerfusionSolution, int]:
    bed = problem.microcirculation
    per_volume = target * M3_S_KG_PER_ML_MIN_G * float(problem.tissue.density)
    above_sink = capillary - float(bed.pressure_sink)
    if not above_sink > 0:
        raise InputError(
            f"the capillary pressure lies {above_sink / PA_PER_MMHG:.1f} mmHg above the sink",
            where="`pressure_capillary_mmHg`",
            expected="a capillary pressure above `pressure_sink`",
            fix="Raise one or lower the other",
        )
    beta_sink = per_volume / above_sink
    weight = np.asarray(problem.tissue.terminal_volume)
    weight = weight / weight.sum()
    beta_source = per_volume / (system_pressure - capillary)
    for solves in range(1, 61):
        bed = _bed(problem, beta_source, beta_sink)
        solution = solve(_with_bed(problem, bed))
        reached = _mean_mbf(problem, solution)
        report(f"rest: {reached:.4f} ml/min/g")
        if abs(reached / target - 1) <= rtol:
            _refuse_low_pressure(problem, solution, capillary)
            return bed, solution, solves
        # The mean terminal pressure at the target: the loss upstream in proportion to the flow.
        mean = float(weight @ np.asarray(solution.terminal_pressure))
        expected = system_pressure - (system_pressure - mean) * target / reached
        if expected <= capillary:
            _refuse_low_pressure(problem, solution, capillary)
            break
        beta_source = per_volume / (expected - capillary)
    raise InputError(
        f"a mean flow of {target} ml/min/g is out of reach: {reached:.4g} was reached",
        where="`mbf_rest_ml_min_g`",
        expected="a target that the vessels can carry at this inlet pressure",
        fix="Lower the target, or check the radii and the unit of the tree",
    )


@eqx.filter_jit
def _at_rest(problem: PerfusionProblem) -> Float[Array, ""]:
    """The highest pressure of blood at rest, Pa."""
    closure = node_closure(problem.network, problem.boundary)
    return jnp.max(initial_state(problem.network, closure).pressure)


def _factor(
    problem: PerfusionProblem,
    rest: Microcirculation,
    start: float,
    target: float,
    rtol: float,
    solve: _Solve,
    report: _Report,
) -> tuple[float, PerfusionSolution, int]:
    """Secant on the flow as a function of the factor, which is smooth, increasing and concave.

    It begins at the factor 0, where nothing flows at any pressure, and at `start`.
    """
    flow_at = lambda factor: solve(_with_bed(problem, _dilated(rest, factor)))
    low, low_flow = 0.0, 0.0
    factor = start
    for solves in range(1, 41):
        solution = flow_at(factor)
        flow = _mean_mbf(problem, solution)
        report(f"hyperemia: {flow:.4f} ml/min/g at factor {factor:.4f}")
        if abs(flow / target - 1) <= rtol:
            return factor, solution, solves
        slope = (flow - low_flow) / (factor - low)
        low, low_flow = factor, flow
        factor = factor + (target - flow) / slope
        if not 1 < factor < 1e3:
            break
    raise InputError(
        f"a mean flow of {target} ml/min/g is out of reach: {low_flow:.4g} at dilation {low:.4g}",
        where="`mbf_hyperemia_ml_min_g`",
        expected="a target that the vessels can carry at this inlet pressure",
        fix="Lower the target, or check the radii and the unit of the tree",
    )
