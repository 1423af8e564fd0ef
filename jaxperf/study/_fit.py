"""Fitting a heart: its unknowns to what was measured, and what follows with which certainty."""

import dataclasses
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from .._custom_types import as_leaf
from .._padding import pad_problem
from .._progress import Progress
from ..casefile import FitSection, speaking, StateSection
from ..inverse import (
    AbstractPosterior,
    check_laplace,
    Fit,
    fit,
    Identifiability,
    identify,
    InverseProblem,
    laplace,
    LaplaceCheck,
    Misfit,
    misfit,
    mixture,
    NUTS,
    sample_posterior,
    TemperedSMC,
)
from ._diagnosis import diagnose, Diagnosis, OPENED, territory_quantities
from ._heart_model import HeartModel, state_problems
from ._measured import heart_measurements, Measured
from ._predicted import heart_quantities, HeartQuantities, predict, Predicted
from ._prepare import Prepared
from ._solve import BUILT_IN_SOLVERS, darcy_method, Solved
from ._states import case_states, State
from ._unknowns import heart_unknowns

# Columns of the Jacobian that are solved at a time, which bounds the memory they take.
_CHUNK = 8


@dataclass(frozen=True)
class HeartFit:
    """A fitted heart.

    **Attributes:** `prepared`, `solved`, before the fit; `measured`; `fit`, of `jaxperf.inverse`,
    whose model also has the states of [`opened`][]; `posterior`; `quantities`; `identifiability`;
    `misfit`; `check`, of the Gaussian, where it was asked for; `predicted`, what the posterior says
    of the quantities; `diagnosis`, made of it.
    """

    prepared: Prepared
    solved: Solved
    measured: Measured
    fit: Fit
    posterior: AbstractPosterior
    quantities: HeartQuantities
    identifiability: Identifiability
    misfit: Misfit
    check: LaplaceCheck | None
    predicted: Predicted
    diagnosis: tuple[Diagnosis, ...]


def heart_problem(
    prepared: Prepared, solved: Solved, said: FitSection, measured: Measured
) -> tuple[InverseProblem, InverseProblem]:
    """The inverse problem of a heart, and the same with the states that are predicted.

    The first solves only what was measured. The second adds rest and hyperemia where they were not
    measured, hyperemia without any lesion, and without each one where there are several.
    """
    measured_states = {name: solved.states[name] for name in measured.states}
    all_states = {**measured_states}
    for name in ("rest", "hyperemia"):
        all_states.setdefault(name, solved.states[name])
    opened = opened_states(prepared, solved)
    all_states |= opened
    kind = {name: prepared.case.likeness(name) for name in all_states}
    pressure_of = {name: _measured_like(name, kind, measured.states) for name in all_states}
    # Registered solvers know the real mesh only.
    is_padded = prepared.case.darcy.solver in BUILT_IN_SOLVERS
    base = pad_problem(prepared.problem) if is_padded else prepared.problem
    method = darcy_method(prepared.case.darcy.solver, base)
    n_cells, n_terminals = base.tissue.n_cells, base.tissue.n_terminals
    unknowns = heart_unknowns(
        prepared,
        said,
        all_states,
        kind=kind,
        like=pressure_of,
        n_terminals=n_terminals,
    )
    segment = np.zeros(n_cells, np.int64)
    segment[: len(prepared.segment)] = prepared.segment
    limits = prepared.case.solver
    problems = state_problems(prepared.problem, all_states, is_padded=is_padded)
    measurements = heart_measurements(prepared, said, measured, n_cells)

    def inverse_problem(names: tuple[str, ...]) -> InverseProblem:
        model = HeartModel(
            {name: problems[name] for name in names},
            {unknown.name: unknown.change for unknown in unknowns},
            method,
            as_leaf(segment),
            limits.max_steps,
            limits.max_linear_steps,
        )
        return InverseProblem(model, [u.parameter for u in unknowns], measurements)

    return inverse_problem(measured.states), inverse_problem(tuple(all_states))


def opened_states(prepared: Prepared, solved: Solved) -> dict[str, State]:
    """Hyperemia with every lesion opened, and with each one where there are several."""
    n = len(prepared.case.lesions)
    sections = {OPENED: StateSection(without_lesions="all")}
    if n > 1:
        for i in range(1, n + 1):
            sections[f"without_lesion_{i}"] = StateSection(without_lesions=(i,))
    case = prepared.case.model_copy(update={"states": sections})
    states = case_states(dataclasses.replace(prepared, case=case), solved.calibration)
    return {name: states[name] for name in sections}


def _measured_like(name: str, kind: dict[str, str], measured: tuple[str, ...]) -> str:
    """The measured state whose deviation of the aortic pressure a state shares."""
    if name in measured:
        return name
    alike = [other for other in measured if kind[other] == kind[name]]
    return (alike or list(measured))[0]


@speaking()
def fit_heart(
    prepared: Prepared,
    solved: Solved,
    said: FitSection,
    measured: Measured,
    *,
    folder: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> HeartFit:
    """Fit the unknowns of a heart, and say what is known of it afterwards.

    **Arguments:**

    - `prepared`, `solved`: the case as it is built and solved.
    - `said`: the section `fit` of the case; `measured`, what it names.
    - `folder`: keeps every step, so that a fit that was stopped goes on from there.

    **Returns:** a [`HeartFit`][].

    **Errors:** [`jaxperf.inverse.FitError`][] where no start finds a mode; [`InputError`][] for
    measurements that do not fit the heart.
    """
    progress = progress or Progress()
    key = jax.random.key(said.seed)
    of_start, of_draws, of_check = jax.random.split(key, 3)
    problem, wider = heart_problem(prepared, solved, said, measured)
    kept = None if folder is None else Path(folder) / _question(prepared, said, measured)
    found = fit(
        problem,
        starts=said.starts,
        max_steps=said.max_steps,
        tolerance=said.tolerance,
        chunk=_CHUNK,
        key=of_start,
        folder=None if kept is None else kept / "modes",
        progress=progress,
    )
    widened = _widened(found, wider)
    check = None
    if said.check_draws:
        check = check_laplace(found, key=of_check, n=said.check_draws, progress=progress)
    territories = territory_quantities(prepared, wider.model.segment.shape[0])
    quantities = heart_quantities(wider, territories)
    posterior = _posterior(found, widened, said, of_draws, kept, progress)
    with progress.stage("predict"):
        predicted = predict(posterior, quantities)
    ffr = predicted.draws("ffr") if prepared.case.lesions else np.zeros((len(predicted.drawn), 0))
    reserve, fed = predicted.draws("cfr opened"), np.asarray(territories.fed)
    return HeartFit(
        prepared,
        solved,
        measured,
        widened,
        posterior,
        quantities,
        identify(found),
        misfit(found),
        check,
        predicted,
        diagnose(prepared.territory_name, ffr, reserve, fed),
    )


def _widened(found: Fit, wider: InverseProblem) -> Fit:
    """The fit with the model of all states, its solves started from what each state is like."""
    modes = []
    for mode in found.modes:
        start = dict(mode.warm)
        last = list(start.values())[-1]
        warm = {name: start.get(name, last) for name in wider.model.problems}
        modes.append(dataclasses.replace(mode, warm=warm))
    return Fit(wider, tuple(modes), found.starts)


def _question(prepared: Prepared, said: FitSection, measured: Measured) -> str:
    """A name for what is asked: of another case or other measurements nothing is gone on from."""
    total = hashlib.sha256(prepared.case.model_dump_json().encode())
    total.update(said.model_dump_json().encode())
    for state, value in measured.mbf_ml_min_g.items():
        total.update(state.encode() + np.ascontiguousarray(value, np.float64).tobytes())
    for wire in measured.wires:
        total.update(wire.model_dump_json().encode())
    return total.hexdigest()[:16]


def _posterior(
    found: Fit,
    wider: Fit,
    said: FitSection,
    key: PRNGKeyArray,
    kept: Path | None,
    progress: Progress,
) -> AbstractPosterior:
    if said.posterior == "laplace":
        with progress.stage("posterior"):
            return laplace(wider, chunk=_CHUNK)
    if said.posterior == "mixture":
        drawn = mixture(found, key, said.draws, progress=progress)
    else:
        # chains do not pass from one mode to another
        one = len(found.modes) == 1
        method = NUTS(draws=-(-said.draws // 4)) if one else TemperedSMC(particles=said.draws)
        folder = None if kept is None else kept / "samples"
        drawn = sample_posterior(found, key, method, folder=folder, progress=progress)
    # drawn with the states that were measured, and predicted with all
    return dataclasses.replace(drawn, problem=wider.problem, warm=wider.best.warm)
