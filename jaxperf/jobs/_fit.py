"""Fitting a case to what was measured, and its run folder."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml

from .._citation import bibtex
from .._misc import InputError
from .._progress import Progress
from .._versions import versions
from ..casefile import Case, Demand, FitSection, Pet, Reserve, Wire
from ..geometry import AHA17_NAME
from ..inverse import drop_steps
from ..io import write_csv, write_json
from ..report import (
    fit_summary,
    FitSummary,
    fitted_segment_rows,
    Inputs,
    parameter_rows,
    settings_without_places,
)
from ..study import (
    Finding,
    fit_heart,
    geometry_findings,
    HeartFit,
    Measured,
    noted,
    prepare_case,
    read_measured,
    refuse_errors,
    solve_case,
    synthetic_measurement,
    synthetic_truth,
)
from ._folder import run_folder
from ._report import results_stay, write_report
from ._starter import demo_case

_STAGES = ("read", "mesh", "forest", "territories", "compile", "calibrate")


def fit_case(
    case: Case,
    *,
    out: str | os.PathLike,
    data: str | os.PathLike = ".",
    overwrite: bool = False,
    progress: Progress | None = None,
    measured: Measured | None = None,
    report: bool = True,
) -> FitSummary:
    """Fit a case to what its section `fit` says was measured, and write a run folder.

    Steps are kept in a folder `OUT.partial` until the fit is complete, so that the same command
    goes on where a stopped one left off, with the same results.

    **Arguments:**

    - `out`, `data`, `overwrite`, `report`: as for `run_case`.
    - `measured`: in place of what the case names.

    **Returns:** the content of `summary.json`.

    **Errors:** [`InputError`][] for bad input, [`SolveError`][] where the start cannot be solved,
    [`jaxperf.inverse.FitError`][] where no mode is found.

    **Example:**

    ```python
    from pathlib import Path
    import jaxperf as jp
    Path("wire.csv").write_text("branch,at_mm,ratio\\nLAD,50,0.74\\n")
    case = jp.jobs.demo_case(spacing_mm=5.0).model_copy(update={"growth": None})
    found = jp.jobs.fit_case(jp.jobs.with_measurements(case, [], "wire.csv"), out="fit")
    ```
    """
    said = case.fit
    if said is None:
        raise InputError(
            "the case has no section fit",
            where="fit",
            expected="what was measured: fit.pet or fit.wires",
            fix="Add the section, or give --pet or --ffr",
        )
    progress = progress or Progress()
    progress.stages = _stages(case, report)
    seconds: dict[str, float] = {}
    partial = Path(f"{os.path.realpath(out)}.partial")
    inputs = Inputs(case.model_dump(mode="json"), Path(data))
    with run_folder(out, overwrite, "fit", progress.say) as folder:
        begin = time.perf_counter()
        findings: list[Finding] = []
        with noted(findings):
            prepared = prepare_case(case, data, progress)
        findings += geometry_findings(case, prepared.tree, prepared.heart)
        refuse_errors(findings)
        if measured is None:
            measured = read_measured(prepared, said, Path(data))
        solved = solve_case(prepared, progress)
        seconds["setup"] = time.perf_counter() - begin
        begin = time.perf_counter()
        found = fit_heart(prepared, solved, said, measured, folder=partial, progress=progress)
        seconds["fit"] = time.perf_counter() - begin
        with progress.stage("write"):
            begin = time.perf_counter()
            summary = fit_summary(
                found,
                level=said.level,
                posterior=said.posterior,
                seed=said.seed,
                seconds=seconds,
                findings=findings,
            )
            summary = summary.model_copy(
                update={"seconds": {**seconds, "intervals": time.perf_counter() - begin}}
            )
            summary = inputs.summary(summary)
            _write(folder, case, found, summary, inputs)
        if case.output.figures:
            with progress.stage("figures"):
                from ..report import write_fit_figures

                write_fit_figures(folder / "figures", summary)
    # the folder has its name now, and the steps are needed no more
    drop_steps(partial)
    if report:
        with progress.stage("report"), results_stay(out):
            write_report([out])
    return summary


def _stages(case: Case, report: bool) -> tuple[str, ...]:
    ahead = tuple(s for s in _STAGES if s != "forest" or case.growth is not None)
    wanted = {"figures": case.output.figures, "report": report}
    ending = ("fit", "posterior", "predict", "write", *(k for k, is_on in wanted.items() if is_on))
    return (*ahead, "rest", "hyperemia", *case.states, *ending)


def _write(folder: Path, case: Case, found: HeartFit, said: FitSummary, inputs: Inputs) -> None:
    content = _with_tables(case, found.measured).model_dump(mode="json")
    text = yaml.safe_dump(settings_without_places(content), sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    write_json(folder / "versions.json", {**versions(), "inputs": inputs.digests()})
    write_json(folder / "summary.json", said.model_dump())
    write_csv(folder / "parameters.csv", parameter_rows(said))
    write_csv(folder / "segments17.csv", fitted_segment_rows(said))
    if found.measured.mbf_ml_min_g:
        write_csv(folder / "measured.csv", measured_rows(found.measured))
    (folder / "citation.bib").write_text(
        bibtex(found.prepared.problem, "aha17") + "\n", encoding="utf-8"
    )
    mode = found.fit.best
    np.savez_compressed(
        folder / "posterior.npz",
        xi=np.asarray(mode.xi),
        jacobian=np.asarray(mode.jacobian),
        residual=np.asarray(mode.residual),
        entries=np.array(found.fit.problem.entries),
        samples=np.asarray(found.posterior.sample(jax.random.key(said.seed), 1000)),
    )


def _with_tables(case: Case, measured: Measured) -> Case:
    """The case with what was fitted: a scan without a file is the table of the run folder."""
    said = case.fit or FitSection()
    update: dict[str, Any] = {"wires": measured.wires, "wires_file": None}
    pet = said.pet or Pet()
    if measured.mbf_ml_min_g and pet.segments is None and not pet.maps:
        update["pet"] = pet.model_copy(update={"segments": "measured.csv"})
    return case.model_copy(update={"fit": said.model_copy(update=update)})


def with_measurements(case: Case, pet: Sequence[str], ffr: str | os.PathLike | None) -> Case:
    """A case with measurements that a command names, in place of its own of that kind.

    **Arguments:** `pet`: one CSV of the AHA segments, or `STATE=FILE` for each map; `ffr`: a CSV of
    pressure wires. Paths are those of the process.

    **Errors:** [`InputError`][] for a table beside maps, or two tables.
    """
    said = case.fit or FitSection()
    update: dict[str, Any] = {}
    pairs = [text.split("=", 1) for text in pet if "=" in text and not Path(text).is_file()]
    maps = dict(pairs)
    tables = [text for text in pet if "=" not in text or Path(text).is_file()]
    if len(tables) + bool(maps) > 1 or len(maps) < len(pairs):
        raise InputError(
            f"--pet names {', '.join(pet)}",
            where="--pet",
            expected="one table, or a map for each state",
            fix="Leave one kind out",
        )
    own = {} if said.pet is None else said.pet.model_dump(exclude={"segments", "maps"})
    if tables:
        update["pet"] = Pet(**own, segments=os.path.abspath(tables[0]))
    elif maps:
        update["pet"] = Pet(**own, maps={k: os.path.abspath(v) for k, v in maps.items()})
    if ffr is not None:
        update |= {"wires": (), "wires_file": os.path.abspath(ffr)}
    return case.model_copy(update={"fit": said.model_copy(update=update)})


def measured_rows(measured: Measured) -> list[dict[str, Any]]:
    """A table of the AHA segments as `fit.pet.segments` takes it."""
    return [
        {
            "segment": i + 1,
            "name": AHA17_NAME[i],
            **{f"mbf_{s}_ml_min_g": float(v[i]) for s, v in measured.mbf_ml_min_g.items()},
        }
        for i in range(17)
    ]


def demo_fit(
    *,
    out: str | os.PathLike,
    overwrite: bool = False,
    progress: Progress | None = None,
    report: bool = True,
) -> FitSummary:
    """Fit the demonstration to a scan and a wire made from another forest and a finer mesh.

    The truth is drawn from the prior: a lesion of 70 % with less reserve behind it. The noise is
    that of a PET scan.

    **Example:**

    ```python
    import jaxperf as jp
    found = jp.jobs.demo_fit(out="fit")
    ```
    """
    progress = progress or Progress()
    quiet = Progress()
    said = FitSection(demand=Demand(by="hierarchy"), reserve=Reserve(by="hierarchy"), starts=3)
    place = Wire(branch="LAD", at_mm=30.0, ratio=0.8)
    progress.say("  making a synthetic scan and a wire from another forest and mesh")
    other = demo_case(4.0)
    assert other.growth is not None
    other = other.model_copy(
        update={"growth": other.growth.model_copy(update={"n_terminals": 500, "seed": 11})}
    )
    prepared = prepare_case(other, ".", quiet)
    solved = solve_case(prepared, quiet)
    truth = synthetic_truth(prepared, solved, said, wires=(place,), key=jax.random.key(16))
    measured = synthetic_measurement(truth, (place,), jax.random.key(5))
    case = demo_case(5.0)
    assert case.growth is not None
    case = case.model_copy(
        update={
            "title": "Demonstration of a fit, synthetic PET",
            "fit": said,
            "growth": case.growth.model_copy(update={"n_terminals": 500}),
        }
    )
    return fit_case(
        case, out=out, overwrite=overwrite, progress=progress, measured=measured, report=report
    )
