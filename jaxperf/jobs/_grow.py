"""Growing the forest of a case into a file, and reporting what it is like."""

import functools
import os
from pathlib import Path

import numpy as np

from .._misc import InputError
from .._progress import Progress
from ..casefile import Case, speaking
from ..geometry import terminal_regions, transmural_depth
from ..growth import grow_forest, GrowthProblem, is_checkpoint, is_forest, save_forest
from ..io import write_tree
from ..network import VascularNetwork
from ..report import (
    anatomy_labels,
    forest_facts,
    GrownForest,
    segment_arrays,
    split_warnings,
    Spread,
    spread,
    write_morphometry,
)
from ..study import (
    build_heart,
    Finding,
    forest_path,
    geometry_findings,
    Grown,
    growth_problem,
    healthy_tree,
    Heart,
    joined_forest,
    noted,
    read_forest,
    refuse_errors,
)
from ..units import M_PER_MM
from ._folder import run_folder


@speaking()
def grow_case(
    case: Case,
    *,
    out: str | os.PathLike | None = None,
    data: str | os.PathLike = ".",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> GrownForest:
    """Grow the forest of a case and write it, with a picture for ParaView (.vtp) beside it.

    Growth keeps checkpoints beside the file and goes on from the last one when it is called again
    with the same input; the forest is the same as if nothing had stopped it.

    **Arguments:**

    - `out`: the file (.npz); the case's `growth.file` where left out.
    - `data`: folder that relative paths of the case start from.
    - `overwrite`: replace a forest that exists, and the checkpoint of another one.

    **Returns:** what is known of the forest.

    **Errors:** [`InputError`][] for bad input and an existing file.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0)
    few = case.growth.model_copy(update={"n_terminals": 100})
    grown = jp.jobs.grow_case(case.model_copy(update={"growth": few}), out="forest.npz")
    ```
    """
    progress = progress or Progress()
    progress.stages = ("read", "mesh", "forest", "write")
    path = _target(case, out, Path(data), overwrite)
    findings: list[Finding] = []
    with noted(findings):
        heart, tree, problem = _problem(case, Path(data), progress)
    findings += geometry_findings(case, tree, heart)
    refuse_errors(findings)
    partial = path.with_suffix(".partial.npz")
    if overwrite and is_checkpoint(partial) and not is_checkpoint(partial, problem):
        partial.unlink()
    if partial.is_file():
        progress.say(f"  going on from {partial}")
    else:
        progress.say(f"  checkpoints: {partial}; if stopped, the same command goes on from there")
    with progress.stage("forest"):
        count = functools.partial(progress.tell, "terminals")
        forest = grow_forest(problem, checkpoint=partial, progress=count)
    with progress.stage("write"):
        grown = joined_forest(tree, forest)
        write_tree(path.with_suffix(".vtp"), grown.network, **segment_arrays(grown))
        save_forest(path, forest)
        partial.unlink(missing_ok=True)
    facts, said = forest_facts(grown), [f"{f.where}: {f.message}." for f in findings]
    return GrownForest(
        file=str(path),
        labels=anatomy_labels(case, True),
        forest=facts,
        warnings=[*split_warnings(facts), *said],
    )


def _needs_growth(case: Case) -> None:
    if case.growth is None:
        raise InputError(
            "the case has no section growth",
            where="growth",
            expected="a section growth; it may be empty (growth: {})",
            fix="Add it; `jaxperf schema` prints its keys",
        )


def _target(case: Case, out: str | os.PathLike | None, data: Path, overwrite: bool) -> Path:
    _needs_growth(case)
    path = forest_path(case, data) if out is None else Path(out)
    if path is None:
        raise InputError(
            "the case names no file for the forest",
            where="growth.file",
            expected="a path that ends in .npz",
            fix="Write it into the case or pass --out",
        )
    if path.suffix != ".npz" or not path.parent.is_dir():
        raise InputError(
            f"the name ends in {path.suffix!r}" if path.parent.is_dir() else "there is no folder",
            where=str(path),
            expected="a file .npz in a folder that exists",
            fix="Choose another name",
        )
    if path.exists() and not overwrite:
        raise InputError(
            "it exists",
            where=str(path),
            expected="a name for a new forest",
            fix="Use it as it is, choose another name, or pass --overwrite",
        )
    # a typing error in --out must not delete someone's data
    if path.exists() and not is_forest(path):
        raise InputError(
            "it is no forest",
            where=str(path),
            expected="a file that `jaxperf grow` wrote, which may be replaced",
            fix="Choose another name",
        )
    beside = path.with_suffix(".vtp")
    if beside.exists() and not path.exists():
        raise InputError(
            "it exists, and there is no forest that it may be the picture of",
            where=str(beside),
            expected=f"a free name for the picture of {path.name}",
            fix="Move it, or choose another name for the forest",
        )
    return path


def _problem(
    case: Case, data: Path, progress: Progress
) -> tuple[Heart, VascularNetwork, GrowthProblem]:
    with progress.stage("read"):
        heart = build_heart(case, data)
        tree = healthy_tree(case, data, heart)
    with progress.stage("mesh"):
        depth = transmural_depth(
            heart.mesh, heart.frame, cavity_label=heart.cavity_label, rv_label=heart.rv_label
        )
        return heart, tree, growth_problem(case, tree, heart, depth)


def report_growth(
    case: Case,
    *,
    out: str | os.PathLike,
    forest: str | os.PathLike | None = None,
    data: str | os.PathLike = ".",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> GrownForest:
    """Write a folder that says what a forest is like: pictures, morphometry beside Kassab's.

    Pressures of the terminals need a solve; they are in the run folder.

    **Arguments:** as in [`grow_case`][]; `forest`, the file that holds it; `out`, the folder.

    **Returns:** what is known of the forest; `morphometry.json` holds it too.

    **Example:**

    ```python
    import jaxperf as jp
    case = jp.jobs.demo_case(spacing_mm=5.0)
    few = case.growth.model_copy(update={"n_terminals": 100})
    case = case.model_copy(update={"growth": few})
    jp.jobs.grow_case(case, out="forest.npz")
    grown = jp.jobs.report_growth(case, out="report", forest="forest.npz")
    ```
    """
    progress = progress or Progress()
    progress.stages = ("read", "mesh", "write", "figures")
    _needs_growth(case)
    if forest is None and forest_path(case, Path(data)) is None:
        raise InputError(
            "the case names no file of a forest",
            where="growth.file",
            expected="a forest that `jaxperf grow` wrote",
            fix="Write its path into the case or pass --forest",
        )
    with run_folder(out, overwrite, "forest report", progress.say) as folder:
        heart, tree, problem = _problem(case, Path(data), progress)
        path = Path(forest) if forest is not None else forest_path(case, Path(data))
        assert path is not None
        grown = joined_forest(tree, read_forest(path, problem))
        labels = anatomy_labels(case, True)
        with progress.stage("write"):
            facts = forest_facts(grown).model_copy(update=_volumes(grown, heart, problem))
            write_morphometry(folder, grown, facts)
        with progress.stage("figures"):
            from ..report import write_forest_figures

            note = f"Anatomy: {', '.join(labels)}."
            write_forest_figures(folder, grown, heart, title=case.title, note=note)
    return GrownForest(file=str(path), labels=labels, forest=facts, warnings=split_warnings(facts))


def _volumes(grown: Grown, heart: Heart, problem: GrowthProblem) -> dict[str, Spread]:
    """Volumes of the territories of single trees, and of the regions of their terminals."""
    forest = grown.forest
    of_tree = np.bincount(forest.cell_tree, problem.mesh.volume, forest.n_trees)
    regions = terminal_regions(
        heart.mesh,
        forest.position[forest.terminal],
        np.arange(forest.n_terminals),
        forest.radius[forest.terminal],
        forest.n_terminals,
    )
    return {
        "tree_territory_mm3": spread(of_tree / M_PER_MM**3),
        "terminal_region_mm3": spread(regions.terminal_volume / M_PER_MM**3),
    }
