"""A case from file to run folder."""

import os
import time
from pathlib import Path

import numpy as np
import yaml
from jaxtyping import Float
from scipy.spatial import KDTree

from .._citation import bibtex
from .._progress import Progress
from .._versions import versions
from ..casefile import Case
from ..geometry import ellipsoid_ventricle, TetMesh, VoxelMesh
from ..growth import save_forest
from ..io import write_csv, write_json, write_nifti, write_perfusion, write_tree
from ..report import (
    branch_rows,
    feeding_rows,
    Inputs,
    labels,
    lesion_rows,
    segment_arrays,
    segment_rows,
    settings_without_places,
    Summary,
    summary,
    waveform_rows,
    write_morphometry,
)
from ..study import (
    collect,
    Finding,
    geometry_findings,
    heartbeat_of_case,
    noted,
    prepare_case,
    Prepared,
    refuse_errors,
    Results,
    solve_case,
    solve_pulsation,
    voxels_in_patient,
)
from ..units import M3_S_PER_ML_MIN, PA_PER_MMHG
from ._folder import run_folder
from ._report import results_stay, write_report

STAGES = (
    "read",
    "mesh",
    "forest",
    "territories",
    "compile",
    "calibrate",
    "rest",
    "hyperemia",
    "pulsatile",
    "write",
    "figures",
    "report",
)
# A field of vertices is read at a voxel's centre from as many vertices as a voxel has corners.
_NEAREST_VERTICES = 8


def stages(case: Case, report: bool = True) -> tuple[str, ...]:
    """The stages that a run of a case goes through."""
    left_out = {"forest"} if case.growth is None else set()
    left_out |= {"pulsatile"} if case.flow == "steady" else set()
    left_out |= set() if case.output.figures else {"figures"}
    left_out |= set() if report else {"report"}
    at = STAGES.index("hyperemia") + 1
    names = (*STAGES[:at], *case.states, *STAGES[at:])
    return tuple(name for name in names if name not in left_out)


def run_case(
    case: Case,
    *,
    out: str | os.PathLike,
    data: str | os.PathLike = ".",
    overwrite: bool = False,
    progress: Progress | None = None,
    report: bool = True,
) -> Summary:
    """Run a case and write its run folder; returns the content of `summary.json`.

    The folder appears under its name once everything in it is complete. The precision is the
    caller's (`jax_enable_x64`); the command line switches 64 bit on.

    **Arguments:**

    - `out`: the run folder.
    - `data`: folder that relative paths of the case start from.
    - `overwrite`: replace a run folder that exists.
    - `report`: write `report.html` at the end.

    **Errors:** [`InputError`][] for bad input and an existing folder, [`SolveError`][] where a
    solve fails.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0).model_copy(update={"growth": None})
    summary = jp.jobs.run_case(case, out="results")
    print(summary.mbf_mean_ml_min_g)
    ```
    """
    progress = progress or Progress()
    progress.stages = stages(case, report)
    inputs = Inputs(case.model_dump(mode="json"), Path(data))
    with run_folder(out, overwrite, say=progress.say) as folder:
        begin = time.perf_counter()
        is_pulsatile = case.flow == "pulsatile"
        heartbeat = heartbeat_of_case(case, Path(data)) if is_pulsatile else None
        findings: list[Finding] = []
        with noted(findings):
            prepared = prepare_case(case, data, progress)
        findings += geometry_findings(case, prepared.tree, prepared.heart)
        refuse_errors(findings)
        setup = time.perf_counter() - begin
        solved = solve_case(prepared, progress)
        results = collect(prepared, solved)
        pulsation = None
        if heartbeat is not None:
            with progress.stage("pulsatile"):
                pulsation = solve_pulsation(prepared, solved, heartbeat, progress)
        with progress.stage("write"):
            said = summary(results, seconds_setup=setup, findings=findings, pulsation=pulsation)
            said = inputs.summary(said)
            if pulsation is not None:
                write_csv(folder / "waveforms.csv", waveform_rows(pulsation))
            _write(folder, results, said, inputs)
        if case.output.figures:
            with progress.stage("figures"):
                from ..report import write_figures, write_waveform_figure

                write_figures(folder / "figures", results)
                if pulsation is not None:
                    write_waveform_figure(folder / "figures", results, pulsation)
    if report:
        with progress.stage("report"), results_stay(out):
            write_report([out])
    return said


def _write(folder: Path, results: Results, said: Summary, inputs: Inputs) -> None:
    prepared = results.prepared
    content = settings_without_places(prepared.case.model_dump(mode="json"))
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "config.yaml").write_text(text, encoding="utf-8")
    write_json(folder / "versions.json", {**versions(), "inputs": inputs.digests()})
    write_json(folder / "summary.json", said.model_dump())
    write_csv(folder / "segments17.csv", segment_rows(results))
    write_csv(folder / "branches.csv", branch_rows(results))
    write_csv(folder / "feeding.csv", feeding_rows(results))
    (folder / "citation.bib").write_text(_sources(results), encoding="utf-8")
    if said.lesions:
        write_csv(folder / "lesions.csv", lesion_rows(said.lesions))
    _write_tree(folder / "tree.vtp", results)
    if prepared.grown is not None and said.forest is not None:
        write_morphometry(folder, prepared.grown, said.forest)
        if prepared.case.growth is not None and prepared.case.growth.file is None:
            save_forest(folder / "forest.npz", prepared.grown.forest)
    _write_tissue(folder / "perfusion.vtu", results)
    grid = output_grid(prepared)
    anatomy = ", ".join(labels(results)) or "patient"
    for state, values in results.mbf.items():
        write_nifti(
            folder / f"mbf_{state}.nii.gz",
            prepared.heart.mesh if grid is None else grid,
            values if grid is None else on_grid(prepared.heart.mesh, values, grid),
            spacing_mm=prepared.case.output.spacing_mm,
            description=f"MBF {state} ml/min/g; {anatomy}",
        )


def _sources(results: Results) -> str:
    """BibTeX of what the results rest on."""
    prepared = results.prepared
    further = ["aha17"]
    further += [] if prepared.grown is None else ["grow_forest", "kassab_table"]
    if prepared.case.flow == "pulsatile":
        further += ["solve_periodic", "condense_bed"]
    return bibtex(prepared.problem, *further) + "\n"


def output_grid(prepared: Prepared) -> VoxelMesh | None:
    """The grid of the NIfTI maps: that of the input, or a built heart's at the output spacing.

    None where the input is a tetrahedral mesh alone.
    """
    heart, given = prepared.heart, prepared.case.ventricle
    if heart.ellipsoid is None or given.ellipsoid is None:
        return heart.voxels
    shape = {**given.ellipsoid.model_dump(), "spacing_mm": prepared.case.output.spacing_mm}
    return voxels_in_patient(ellipsoid_ventricle(**shape)[0])


def on_grid(
    mesh: VoxelMesh | TetMesh, values: Float[np.ndarray, " c"], grid: VoxelMesh
) -> Float[np.ndarray, " g"]:
    """A field of a mesh at the cells of a grid of the same wall.

    From voxels the nearest cell's value; from vertices the mean of the nearest ones weighted
    with the inverse of their distance.
    """
    if mesh is grid:
        return values
    tree = KDTree(mesh.centre)
    if isinstance(mesh, VoxelMesh):
        return values[tree.query(grid.centre)[1]]
    distance, near = tree.query(grid.centre, k=_NEAREST_VERTICES)
    weight = 1.0 / (np.asarray(distance) + 1e-3 * float(grid.spacing.min()))
    return (weight * values[near]).sum(axis=1) / weight.sum(axis=1)


def _write_tree(path: Path, results: Results) -> None:
    network = results.prepared.network
    arrays: dict[str, np.ndarray] = {}
    for state in results.states:
        solution = results.solution(state)
        arrays[f"pressure_static_{state}_mmHg"] = np.asarray(solution.pressure_static) / PA_PER_MMHG
        arrays[f"pressure_ratio_{state}"] = np.asarray(results.observed.pressure_ratio[state])
        arrays[f"flow_{state}_ml_min"] = np.asarray(solution.flow) / M3_S_PER_ML_MIN
    synthetic = np.isin(np.array(network.branch_name), results.synthetic_branches)
    reduction = np.zeros(network.n_segments)
    lesion = network.lesion
    if lesion.length.size:
        reduction[np.asarray(lesion.segment)] = np.asarray(lesion.diameter_reduction)[
            np.asarray(lesion.lesion)
        ]
    grown = results.prepared.grown
    write_tree(
        path,
        network,
        **({} if grown is None else segment_arrays(grown)),
        ffr=results.ffr,
        lesion_diameter_reduction=reduction,
        synthetic=synthetic[np.asarray(network.branch)],
        **arrays,
    )


def _write_tissue(path: Path, results: Results) -> None:
    prepared = results.prepared
    arrays: dict[str, np.ndarray] = {}
    for state in results.states:
        tissue = np.asarray(results.solution(state).pressure_tissue)
        arrays[f"pressure_tissue_{state}_mmHg"] = tissue / PA_PER_MMHG
        arrays[f"mbf_{state}_ml_min_g"] = results.mbf[state]
    names = np.array(prepared.territory_name)
    write_perfusion(
        path,
        prepared.heart.mesh,
        **arrays,
        territory=prepared.territory,
        territory_name=names[prepared.territory],
        aha_segment=prepared.segment,
        transmural_depth=prepared.depth,
    )
