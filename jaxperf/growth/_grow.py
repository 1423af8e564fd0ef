"""Grows a forest in steps that can be resumed, and settles its final calibres."""

import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._misc import InputError
from ._forest import Forest, load_arrays, save_arrays
from ._insert import filled_grid, Growth, insert_sites, Plan, WIDEST
from ._murray import radius_of, terminal_radius
from ._partition import Partition
from ._problem import fingerprint, GrowthProblem, settings_of
from ._repair import outside_wall, separate
from ._roots import Roots
from ._setup import Run, set_up
from ._space import enlarged, Grid
from ._wall import build_wall, from_wall, Wall

# Sites inserted between two looks at the clock.
_STEP = 256
# Of the checkpoint's arrays and of what growth does with them.
_LAYOUT = 1
# A search is repeated while no more than this part of its sites remains.
_REPEATED = 0.4


def grow_forest(
    problem: GrowthProblem,
    *,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: float = 5.0,
    progress: Callable[[int, int], None] | None = None,
) -> Forest:
    """Grow competing trees below a fixed network until they fill the wall.

    The wall is divided into connected territories, one per tree, by the targets of flow;
    terminals are spread evenly in each. Each terminal is joined where it adds the least volume,
    by its own tree or by a neighbour of the same vessel territory whose flow stays near its
    target, and only where no vessel leaves the wall or meets another. An epicardial stage comes
    first. The result depends on the problem alone, also where growth was stopped and resumed.

    **Arguments:**

    - `checkpoint`: file that keeps the state of growth; where it holds that of the same problem,
      growth goes on from there. Delete it once the forest is saved.
    - `progress`: called with the number of terminals grown and to grow.

    **Errors:** [`InputError`][] where the vessels do not suit the wall, a checkpoint belongs to
    another problem, or terminals find no place.

    **Source:** C. Jaquet et al. (2019), IEEE Trans. Biomed. Eng. 66:946; W. Schreiner,
    P. F. Buxbaum (1993), IEEE Trans. Biomed. Eng. 40:482.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=2.5)
    tree, depth = jp.anatomy.demo_tree(lv), jp.geometry.transmural_depth(mesh, frame)
    problem = jp.growth.GrowthProblem(tree, mesh, depth, n_terminals=60, root_spacing=30e-3)
    forest = jp.growth.grow_forest(problem)
    ```
    """
    mark = fingerprint(problem)
    begin = time.perf_counter()
    wall = build_wall(problem.mesh, problem.depth)
    run = _resumed(checkpoint, mark)
    if run is None:
        run = set_up(problem, wall)
        run.seconds["setup"] = time.perf_counter() - begin
        _save(checkpoint, mark, run)
    total, saved = problem.n_terminals, time.monotonic()
    while not _finished(run):
        start = time.perf_counter()
        _advance(run, wall)
        run.seconds["growth"] += time.perf_counter() - start
        if progress is not None:
            progress(int(run.growth.taken.sum()), total)
        if time.monotonic() - saved >= checkpoint_seconds:
            _save(checkpoint, mark, run)
            saved = time.monotonic()
    start = time.perf_counter()
    crossings = _settle(run, wall)
    run.seconds["settling"] = time.perf_counter() - start
    return _forest(problem, run, mark, crossings)


def _advance(run: Run, wall: Wall) -> None:
    """Insert the next sites of the queue, or start on those that found no place."""
    if run.at == run.queue.size:
        _next_queue(run)
        return
    stop = min(run.at + _STEP, run.queue.size)
    run.at, failed = insert_sites(
        run.growth, run.grid, wall, run.plan, run.queue, run.at, stop, run.level, run.conduit
    )
    run.failed = np.concatenate([run.failed, failed])
    if run.at < stop:
        run.grid = enlarged(run.grid)


def _next_queue(run: Run) -> None:
    """What is inserted next, and how hard a place is searched for.

    Sites without a place are tried again: first no longer as conduits, then with the same search
    as long as it places a good part of them, then with a wider one. The transmural sites follow
    once the epicardial ones have had all this: a tree whose first vessels find no place is not
    shut in by its neighbours.
    """
    left, tried = run.failed, run.queue.size
    run.at, run.failed = 0, np.empty(0, np.int64)
    last = WIDEST if run.waiting.size == 0 else WIDEST - 1
    if run.conduit:
        run.queue, run.conduit = left, False
    elif left.size and (left.size < _REPEATED * tried or run.level < last):
        run.queue = left
        run.level += 0 if left.size < _REPEATED * tried else 1
    elif run.waiting.size:
        run.queue, run.level = np.concatenate([left, run.waiting]), 0
        run.waiting = np.empty(0, np.int64)
    elif left.size < tried:
        run.queue = left
    else:
        trees = np.unique(run.plan.site_tree[left])
        raise InputError(
            f"{left.size} of {run.plan.site_tree.size} terminals find no place, of trees "
            f"{', '.join(str(int(t)) for t in trees[:8])}",
            where="grow_forest",
            expected="room in the wall for all vessels",
            fix="Use another `seed`, a larger `root_spacing` or a smaller `terminal_radius`",
        )


def _finished(run: Run) -> bool:
    return run.at == run.queue.size and run.failed.size == 0 and run.waiting.size == 0


def _settle(run: Run, wall: Wall) -> tuple[int, int]:
    """Final calibres for the final flows, and vessels that met by widening moved apart.

    Vessels that widened beyond half a voxel out of the wall end the growth.
    """
    growth, m = run.growth, int(run.growth.used[0])
    growth.radius[:m] = radius_of(run.plan.log[growth.count[:m]], run.plan.law)
    low = run.grid.origin
    size, shape = float(run.grid.size[0]), run.grid.shape
    vessels = np.concatenate([np.arange(m), np.arange(growth.parent.size, growth.tree.size)])
    run.grid = filled_grid(growth, low, low + size * shape, size, vessels)
    first, left = separate(growth, run.grid, wall)
    if left:
        raise InputError(
            f"{left} pairs of vessels still intersect after they were pushed apart",
            where="grow_forest",
            expected="room in the wall for all vessels",
            fix="Ask for fewer terminals, a larger exponent or a smaller terminal diameter",
        )
    beyond = outside_wall(growth, wall, 0.5 * float(wall.spacing.min()))
    if beyond:
        raise InputError(
            f"{beyond} vessels reach out of the wall with their final calibre",
            where="growth",
            expected="a wall thicker than the vessels that grow in it",
            fix="Ask for a smaller terminal diameter, or another seed",
        )
    return first, left


def _forest(problem: GrowthProblem, run: Run, mark: str, crossings: tuple[int, int]) -> Forest:
    growth, m = run.growth, int(run.growth.used[0])
    about = {
        **settings_of(problem),
        "fingerprint": mark,
        "seconds": run.seconds,
        "crossings_moved": crossings[0],
        "terminal_radius_final_m": terminal_radius(run.plan.law),
        "sites_exchanged": int(growth.lost.sum()),
        "roots_left_out": run.left_out.tolist(),
    }
    return Forest(
        root_node=run.roots.node,
        root_territory=run.roots.territory,
        root_share=run.roots.share,
        root_projected=run.partition.share,
        position=from_wall(problem.mesh, growth.tip[:m]),
        parent=growth.parent[:m],
        radius=growth.radius[:m],
        tree=growth.tree[:m],
        stage=growth.stage[:m],
        terminal=growth.terminal,
        cell_tree=run.partition.cell_tree.astype(np.int64),
        territory_name=run.roots.territory_name,
        frame=problem.mesh.frame,
        settings=json.dumps(about),
    )


def _save(checkpoint: str | os.PathLike | None, mark: str, run: Run) -> None:
    if checkpoint is None:
        return
    groups = {"growth": run.growth, "grid": run.grid, "plan": run.plan, "part": run.partition}
    arrays = {f"{g}.{k}": v for g, t in groups.items() for k, v in t._asdict().items()}
    roots = {name: getattr(run.roots, name) for name in ("node", "territory", "share")}
    save_arrays(
        checkpoint,
        fingerprint=np.array(mark),
        program=np.array(_program()),
        territory_name=np.array(run.roots.territory_name),
        queue=run.queue,
        at=np.array(run.at),
        failed=run.failed,
        level=np.array(run.level),
        conduit=np.array(run.conduit),
        waiting=run.waiting,
        left_out=run.left_out,
        seconds=np.array(json.dumps(run.seconds)),
        **{f"roots.{k}": v for k, v in roots.items()},
        **arrays,
    )


def _program() -> str:
    """The version that a checkpoint belongs to; half an old and half a new forest is neither."""
    return f"layout {_LAYOUT}, jaxperf {importlib.metadata.version('jaxperf')}"


def is_checkpoint(path: str | os.PathLike, problem: GrowthProblem | None = None) -> bool:
    """Whether a file is a checkpoint of a growth: of that of a problem, or of any."""
    try:
        stored = load_arrays(path)
    except ValueError:
        return False
    if problem is None:
        return {"fingerprint", "program", "queue"} <= set(stored)
    said = [str(stored.get(name)) for name in ("fingerprint", "program")]
    return said == [fingerprint(problem), _program()]


def _resumed(checkpoint: str | os.PathLike | None, mark: str) -> Run | None:
    """The state a checkpoint keeps; None without one.

    **Errors:** [`InputError`][] where it belongs to another problem.
    """
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    try:
        stored = load_arrays(checkpoint)
    except ValueError:
        stored = {}
    if str(stored.get("fingerprint")) != mark or str(stored.get("program")) != _program():
        raise InputError(
            "it was written while another forest grew, or by another version, or is damaged",
            where=str(checkpoint),
            expected="a checkpoint of the same vessels, wall and settings",
            fix="Delete it (`jaxperf grow --overwrite` does where it is a checkpoint), or go back "
            "to its settings",
        )

    def group(kind: Any, prefix: str) -> Any:
        return kind(**{name: stored[f"{prefix}.{name}"] for name in kind._fields})

    roots = {name: stored[f"roots.{name}"] for name in ("node", "territory", "share")}
    return Run(
        roots=Roots(**roots, territory_name=tuple(str(n) for n in stored["territory_name"])),
        partition=group(Partition, "part"),
        growth=group(Growth, "growth"),
        grid=group(Grid, "grid"),
        plan=group(Plan, "plan"),
        queue=stored["queue"],
        at=int(stored["at"]),
        failed=stored["failed"],
        level=int(stored["level"]),
        conduit=bool(stored["conduit"]),
        waiting=stored["waiting"],
        left_out=stored["left_out"],
        seconds=json.loads(str(stored["seconds"])),
    )
