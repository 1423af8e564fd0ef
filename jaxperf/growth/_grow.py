"""Grows a forest: set-up, growth in steps that can be resumed, the final calibres."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import KDTree

from .._misc import InputError
from ..geometry import VoxelMesh
from ..network import downstream_sum, VascularNetwork
from ._forest import _refuse_lesions, Forest, save_arrays, STUB
from ._insert import enter_all, FULL, Growth, insert_sites, LEVELS, Plan, plant
from ._murray import BranchingLaw, radius_of
from ._partition import divide_wall, Partition
from ._repair import separate
from ._roots import forest_roots, Roots
from ._sites import spread_sites, terminal_counts
from ._space import empty_grid, enlarged, Grid, segment_segment
from ._wall import build_wall, from_wall, to_wall, Wall

# Sites inserted between two looks at the clock.
_STEP = 256
# Sites of the epicardial stage lie in the outer third of the wall.
_CONDUIT_SITES = 2.0 / 3.0
# A search is repeated while no more than this part of its sites remains.
_REPEATED = 0.7
_ENTRY_ROOM = 1.1
_ENTRIES = 400


class GrowthProblem(eqx.Module):
    """What a forest is grown from.

    **Arguments:**

    - `network`: the fixed vessels, without lesions, in the frame of `mesh`.
    - `mesh`: the wall. `depth`: (c,) transmural depth of its cells, 0 endocardium to 1 epicardium.
    - `closed`: outlets of the network that carry no tree.
    - `n_terminals`: leaves of the whole forest.
    - `law`: the branching law.
    - `territory_share`: name and share of the flow of each vessel territory; from the calibres
      where left out.
    - `root_spacing`, `root_reach`: m, see [`forest_roots`][jaxperf.growth.forest_roots].
    - `epicardial_fraction`: part of the terminals grown first, as epicardial conduits.
    - `terminal_radius`: m; where left out, the law through the widest inlet gives it.
    - `seed`: of the sites and their order.
    """

    network: VascularNetwork
    mesh: VoxelMesh
    depth: Float[np.ndarray, " c"]
    closed: Int[np.ndarray, " k"] = eqx.field(default_factory=lambda: np.zeros(0, np.int64))
    n_terminals: int = eqx.field(static=True, default=6000)
    law: BranchingLaw = BranchingLaw()
    territory_share: tuple[tuple[str, float], ...] | None = eqx.field(static=True, default=None)
    root_spacing: float = eqx.field(static=True, default=11e-3)
    root_reach: float = eqx.field(static=True, default=8e-3)
    epicardial_fraction: float = eqx.field(static=True, default=0.1)
    terminal_radius: float | None = eqx.field(static=True, default=None)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self):
        _refuse_lesions(self.network)
        for bad, what, expected in (
            (self.n_terminals < 1, f"n_terminals is {self.n_terminals}", "at least 1"),
            (not self.root_spacing > 0, f"root_spacing is {self.root_spacing} m", "above 0"),
            (not self.root_reach >= 0, f"root_reach is {self.root_reach} m", "at least 0"),
            (
                not 0 <= self.epicardial_fraction <= 1,
                f"epicardial_fraction is {self.epicardial_fraction}",
                "0 to 1",
            ),
            (
                self.terminal_radius is not None and not self.terminal_radius > 0,
                f"terminal_radius is {self.terminal_radius} m",
                "above 0",
            ),
            (
                self.network.frame != self.mesh.frame,
                f"the network is in {self.network.frame}, the wall in {self.mesh.frame}",
                "one frame",
            ),
        ):
            if bad:
                raise InputError(what, where="growth", expected=expected, fix="Correct it")


def fingerprint(problem: GrowthProblem) -> str:
    """SHA-256 over everything a forest depends on: vessels, wall and settings."""
    network, mesh = problem.network, problem.mesh
    digest = hashlib.sha256()
    for array in (
        network.node_position,
        network.segment_node,
        network.radius,
        network.length,
        network.branch,
        network.topology.root,
        mesh.cell_ijk,
        mesh.affine,
        problem.depth,
        problem.closed,
    ):
        value = np.ascontiguousarray(np.asarray(array))
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(value.tobytes())
    digest.update(json.dumps(settings_of(problem), sort_keys=True).encode())
    return digest.hexdigest()


def settings_of(problem: GrowthProblem) -> dict[str, Any]:
    """The settings of a problem, as the forest's file keeps them."""
    law = problem.law
    return {
        "n_terminals": problem.n_terminals,
        "exponent_small": law.exponent_small,
        "exponent_large": law.exponent_large,
        "radius_small_m": law.radius_small,
        "radius_large_m": law.radius_large,
        "territory_share": problem.territory_share,
        "root_spacing_m": problem.root_spacing,
        "root_reach_m": problem.root_reach,
        "epicardial_fraction": problem.epicardial_fraction,
        "terminal_radius_m": problem.terminal_radius,
        "seed": problem.seed,
        "branch_name": problem.network.branch_name,
    }


@dataclass
class _Run:
    """A forest while it grows."""

    roots: Roots
    partition: Partition
    growth: Growth
    grid: Grid
    plan: Plan
    queue: np.ndarray
    at: int
    failed: np.ndarray
    phase: int  # 0 epicardial, then 1 + level of the search
    waiting: np.ndarray
    seconds: dict[str, float]


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
      growth goes on from there. It is removed at the end.
    - `progress`: called with the number of terminals grown and to grow.

    **Errors:** [`InputError`][] where the vessels do not suit the wall, a checkpoint belongs to
    another problem, or terminals find no place.

    **Source:** C. Jaquet et al. (2019), IEEE Trans. Biomed. Eng. 66:946; W. Schreiner,
    P. F. Buxbaum (1993), IEEE Trans. Biomed. Eng. 40:482.
    """
    mark = fingerprint(problem)
    begin = time.perf_counter()
    wall = build_wall(problem.mesh, problem.depth)
    run = _resumed(checkpoint, mark)
    if run is None:
        run = _set_up(problem, wall)
        run.seconds["setup"] = time.perf_counter() - begin
        _save(checkpoint, mark, run)
    total, saved = problem.n_terminals, time.monotonic()
    cells = np.empty(1 << 16, np.int64)
    while not _finished(run):
        start = time.perf_counter()
        _advance(run, wall, cells)
        run.seconds["growth"] += time.perf_counter() - start
        if progress is not None:
            progress(int(run.growth.taken.sum()), total)
        if time.monotonic() - saved >= checkpoint_seconds:
            _save(checkpoint, mark, run)
            saved = time.monotonic()
    start = time.perf_counter()
    crossings = _settle(run, wall, cells)
    run.seconds["settling"] = time.perf_counter() - start
    forest = _forest(problem, run, mark, crossings)
    if checkpoint is not None:
        Path(checkpoint).unlink(missing_ok=True)
    return forest


def _advance(run: _Run, wall: Wall, cells: np.ndarray) -> None:
    """Insert the next sites of the queue, or start on those that found no place."""
    if run.at == run.queue.size:
        _next_phase(run)
        return
    stop = min(run.at + _STEP, run.queue.size)
    failed = np.empty(stop - run.at, np.int64)
    level = max(0, run.phase - 1)
    conduit = run.phase == 0
    end, run.at, n = insert_sites(
        run.growth, run.grid, wall, run.plan, run.queue, run.at, stop, level, conduit, failed, cells
    )
    run.failed = np.concatenate([run.failed, failed[:n]])
    if end == FULL:
        run.grid = enlarged(run.grid)


def _next_phase(run: _Run) -> None:
    """Transmural growth follows the conduits; sites without a place are tried again.

    The same search is repeated as long as it places a good part of them, then a wider one.
    """
    if run.phase == 0:
        run.queue, run.phase = np.concatenate([run.failed, run.waiting]), 1
        run.waiting = np.empty(0, np.int64)
    elif run.failed.size < _REPEATED * run.queue.size:
        run.queue = run.failed
    elif run.phase < LEVELS:
        run.queue, run.phase = run.failed, run.phase + 1
    elif run.failed.size < run.queue.size:
        run.queue = run.failed
    else:
        trees = np.unique(run.plan.site_tree[run.failed])
        raise InputError(
            f"{run.failed.size} of {run.plan.site_tree.size} terminals find no place, of trees "
            f"{', '.join(str(int(t)) for t in trees[:8])}",
            where="growth",
            expected="room in the wall for all vessels",
            fix="Ask for fewer terminals, a larger exponent or a smaller terminal diameter",
        )
    run.at, run.failed = 0, np.empty(0, np.int64)


def _finished(run: _Run) -> bool:
    return run.at == run.queue.size and run.failed.size == 0 and run.waiting.size == 0


def _set_up(problem: GrowthProblem, wall: Wall) -> _Run:
    """Roots, territories, calibres, entries into the wall, sites and their order."""
    network, mesh = problem.network, problem.mesh
    roots = forest_roots(
        network,
        mesh,
        closed=problem.closed,
        spacing=problem.root_spacing,
        reach=problem.root_reach,
        territory_share=problem.territory_share,
    )
    n_trees = roots.node.size
    if problem.n_terminals < n_trees:
        raise InputError(
            f"{problem.n_terminals} terminals for {n_trees} trees",
            where="growth.n_terminals",
            expected="at least one terminal per tree",
            fix="Ask for more terminals, or a larger root_spacing_mm",
        )
    fixed = _fixed_vessels(network, mesh)
    origin = to_wall(mesh, np.asarray(network.node_position)[roots.node])
    expected = np.maximum(1.0, roots.share * problem.n_terminals)
    entry = _entries(wall, fixed, origin, _radii(problem, roots, expected), None)
    partition = divide_wall(wall, entry, roots.share, roots.territory)
    planned = terminal_counts(partition.share, problem.n_terminals)
    law = _law(problem, roots, planned.astype(np.float64))
    radius = _radii(problem, roots, planned.astype(np.float64))
    entry = _entries(wall, fixed, origin, radius, partition.cell_tree)
    stub = np.concatenate([origin, _cell_centre(wall, entry), radius[:, None]], axis=1)
    blocked = np.concatenate([fixed, stub])
    rng = np.random.default_rng(problem.seed)
    # a little more than the terminal vessel needs, for its bifurcation
    site, site_tree = spread_sites(
        wall, partition.cell_tree, planned, 1.05 * radius_of(0.0, law), blocked, rng
    )
    spread = float(np.cbrt(mesh.volume.sum() / problem.n_terminals))
    plan = Plan(
        law=law,
        log=np.log(np.maximum(np.arange(problem.n_terminals + 2), 1e-300)),
        site=site,
        site_tree=site_tree,
        planned=planned,
        territory=roots.territory,
        spread=np.array([spread]),
    )
    growth, grid = _seedlings(wall, fixed, stub, problem.n_terminals, spread)
    _plant_trees(growth, grid, wall, plan)
    queue, waiting = _order(problem, wall, site, site_tree, planned, rng)
    queue, waiting = (q[growth.terminal[q] < 0] for q in (queue, waiting))
    return _Run(
        roots=roots,
        partition=partition,
        growth=growth,
        grid=grid,
        plan=plan,
        queue=queue,
        at=0,
        failed=np.empty(0, np.int64),
        phase=0,
        waiting=waiting,
        seconds={"setup": 0.0, "growth": 0.0, "settling": 0.0},
    )


def _fixed_vessels(network: VascularNetwork, mesh: VoxelMesh) -> Float[np.ndarray, "f 7"]:
    """Both ends, and the larger radius, of every segment; along the grid's axes."""
    ends = to_wall(mesh, np.asarray(network.node_position))[np.asarray(network.segment_node)]
    radius = np.asarray(network.radius).max(axis=1)
    return np.concatenate([ends.reshape(-1, 6), radius[:, None]], axis=1)


def _law(
    problem: GrowthProblem, roots: Roots, terminals: Float[np.ndarray, " r"]
) -> Float[np.ndarray, "7"]:
    """The law for flows counted in terminals.

    It goes through the widest inlet of the network and the terminals below it, so that the trees
    continue the calibres they hang on; or through the given terminal radius.
    """
    if problem.terminal_radius is not None:
        return problem.law.coefficients(problem.terminal_radius, 1.0)
    network = problem.network
    below = downstream_sum(network, roots.node, terminals)
    first = np.isin(np.asarray(network.segment_node)[:, 0], np.asarray(network.roots))
    inlet = np.flatnonzero(first & (below > 0.0))
    radius = np.asarray(network.radius)[inlet, 0]
    widest = inlet[int(np.argmax(radius))]
    return problem.law.coefficients(float(radius.max()), float(below[widest]))


def _radii(
    problem: GrowthProblem, roots: Roots, terminals: Float[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """The radius (m) of each tree at its root."""
    return problem.law.radius(terminals, _law(problem, roots, terminals))


def _cell_centre(wall: Wall, cell: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k 3"]:
    place = np.argwhere(wall.cell >= 0)
    at = np.empty((place.shape[0], 3))
    at[wall.cell[tuple(place.T)]] = place
    return at[cell] * wall.spacing


def _entries(
    wall: Wall,
    fixed: Float[np.ndarray, "f 7"],
    origin: Float[np.ndarray, "r 3"],
    radius: Float[np.ndarray, " r"],
    cell_tree: Int[np.ndarray, " c"] | None,
) -> Int[np.ndarray, " r"]:
    """The cell in which each tree enters the wall, the widest tree first.

    The nearest one in the tree's own territory where the vessel fits, and which a straight stub
    reaches that meets neither another stub nor a fixed vessel but the one it leaves.
    """
    every = np.arange(int(wall.cell.max()) + 1)
    centre = _cell_centre(wall, every)
    depth = wall.clearance[tuple(np.round(centre / wall.spacing).astype(np.int64).T)]
    entry = np.full(len(origin), -1, np.int64)
    stubs = np.empty((0, 7))
    for i in np.argsort(-radius, kind="stable"):
        own = every if cell_tree is None else np.flatnonzero(cell_tree == i)
        fit = own[depth[own] >= _ENTRY_ROOM * radius[i]]
        if fit.size == 0:
            raise InputError(
                f"tree {i} with a radius of {1e3 * radius[i]:.2f} mm fits nowhere in its territory",
                where="growth",
                expected="a wall thicker than the vessels that grow in it",
                fix="Check the wall, or ask for a smaller terminal diameter",
            )
        near = np.atleast_1d(KDTree(centre[fit]).query(origin[i], k=min(_ENTRIES, fit.size))[1])
        # vessels that the root's own vessel touches do not bar the way out of it
        away = np.array([np.sqrt(_to_point(origin[i], f)) - f[6] for f in fixed], dtype=np.float64)
        others = np.concatenate([fixed[away > radius[i] + 1e-3], stubs])
        for cell in fit[near]:
            stub = np.concatenate([origin[i], centre[cell], [_ENTRY_ROOM * radius[i]]])
            bare = np.concatenate([centre[cell], centre[cell], stub[6:]])
            if not _meets(stub, others) and not _meets(bare, fixed) and cell not in entry:
                entry[i] = cell
                break
        else:
            raise InputError(
                f"no stub of {1e3 * radius[i]:.2f} mm radius leads from tree {i}'s root into its "
                "territory",
                where="growth",
                expected="a way to the wall past the other vessels",
                fix="Use a larger root_spacing_mm",
            )
        stubs = np.concatenate([stubs, stub[None]])
    return entry


def _to_point(x: Float[np.ndarray, "3"], vessel: Float[np.ndarray, "7"]) -> float:
    return segment_segment(x, x, vessel[:3], vessel[3:6])[0]


def _meets(vessel: Float[np.ndarray, "7"], others: Float[np.ndarray, "f 7"]) -> bool:
    return any(
        segment_segment(vessel[:3], vessel[3:6], o[:3], o[3:6])[0] < (vessel[6] + o[6]) ** 2
        for o in others
    )


def _order(
    problem: GrowthProblem,
    wall: Wall,
    site: Float[np.ndarray, "n 3"],
    site_tree: Int[np.ndarray, " n"],
    planned: Int[np.ndarray, " r"],
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " w"]]:
    """Sites of the epicardial stage and of the transmural one, each in random order."""
    place = tuple(np.round(site / wall.spacing).astype(np.int64).T)
    cell = wall.cell[place]
    outer = (cell >= 0) & (problem.depth[np.maximum(cell, 0)] >= _CONDUIT_SITES)
    order = rng.permutation(len(site))
    chosen = np.zeros(len(site), np.bool_)
    for i, n in enumerate(planned):
        own = order[(site_tree[order] == i) & outer[order]]
        chosen[own[: int(np.ceil(problem.epicardial_fraction * n))]] = True
    return order[chosen[order]], order[~chosen[order]]


def _seedlings(
    wall: Wall,
    fixed: Float[np.ndarray, "f 7"],
    stub: Float[np.ndarray, "r 7"],
    n_terminals: int,
    spread: float,
) -> tuple[Growth, Grid]:
    """Trees of nothing but their stubs, and the fixed vessels behind them."""
    n_trees, m = len(stub), 2 * n_terminals
    a = m + len(fixed)
    vessel = np.concatenate([stub, np.zeros((m - n_trees, 7)), fixed])
    growth = Growth(
        tip=vessel[:, 3:6].copy(),
        tail=vessel[:, :3].copy(),
        radius=vessel[:, 6].copy(),
        entered=np.zeros(a),
        tree=np.concatenate([np.arange(n_trees), np.full(a - n_trees, -1)]),
        parent=np.where(np.arange(m) < n_trees, -1 - np.arange(m), 0),
        child=np.full((m, 2), -1),
        count=np.zeros(m, np.int64),
        stage=np.full(m, STUB),
        older=np.full(m, -1),
        newest=np.full(n_trees, -1),
        taken=np.zeros(n_trees, np.int64),
        gained=np.zeros(n_trees, np.int64),
        lost=np.zeros(n_trees, np.int64),
        stamp=np.zeros(a, np.int64),
        clock=np.zeros(1, np.int64),
        known=np.full(m, -1.0),
        path=np.full(m, -1),
        used=np.full(1, n_trees),
        terminal=np.full(n_terminals, -1),
    )
    # the margin of one voxel is part of the grid, so its first voxel's centre lies at zero
    low = -0.5 * wall.spacing
    high = (np.array(wall.cell.shape) - 0.5) * wall.spacing
    grid = empty_grid(low, high, spread, 1 << 17)
    vessels = np.concatenate([np.arange(n_trees), np.arange(m, a)])
    enter_all(growth, grid, vessels, np.empty(1 << 16, np.int64))
    return growth, grid


def _plant_trees(growth: Growth, grid: Grid, wall: Wall, plan: Plan) -> None:
    """Give every tree its first vessel, the widest first, before others are in the way.

    It leads towards the middle of the tree's territory, along the epicardium where it can.
    """
    cells = np.empty(1 << 16, np.int64)
    for i in np.argsort(-plan.planned, kind="stable"):
        own = np.flatnonzero(plan.site_tree == i)
        middle = plan.site[own].mean(axis=0)
        own = own[np.argsort(np.sum((plan.site[own] - middle) ** 2, axis=1), kind="stable")]
        tries = (
            (0.0, True),
            (0.0, False),
            *((k * float(plan.spread[0]), False) for k in (1, 2, 3)),
        )
        if not any(plant(growth, grid, wall, plan, own, s, c, cells) for s, c in tries):
            raise InputError(
                f"the first vessel of tree {i}, {2e3 * growth.radius[i]:.2f} mm wide, fits nowhere "
                "in its territory",
                where="growth",
                expected="a wall thicker than the vessels that grow in it",
                fix="Ask for a smaller terminal diameter or a smaller root_spacing_mm",
            )


def _settle(run: _Run, wall: Wall, cells: np.ndarray) -> tuple[int, int]:
    """Final calibres for the final flows, and vessels that met by widening moved apart."""
    growth, m = run.growth, run.growth.parent.size
    growth.radius[:m] = [radius_of(x, run.plan.law) for x in run.plan.log[growth.count]]
    low = run.grid.origin
    size, shape = float(run.grid.size[0]), run.grid.shape
    run.grid = empty_grid(low, low + size * shape, size, run.grid.link.size)
    enter_all(growth, run.grid, np.arange(growth.tree.size), cells)
    first, left = separate(growth, run.grid, wall)
    if left:
        raise InputError(
            f"{left} pairs of vessels still intersect after they were pushed apart",
            where="growth",
            expected="room in the wall for all vessels",
            fix="Ask for fewer terminals, a larger exponent or a smaller terminal diameter",
        )
    return first, left


def _forest(problem: GrowthProblem, run: _Run, mark: str, crossings: tuple[int, int]) -> Forest:
    growth, m = run.growth, run.growth.parent.size
    about = {
        **settings_of(problem),
        "fingerprint": mark,
        "seconds": run.seconds,
        "crossings_moved": crossings[0],
        "terminal_radius_final_m": float(radius_of(0.0, run.plan.law)),
        "sites_exchanged": int(growth.lost.sum()),
    }
    return Forest(
        root_node=run.roots.node,
        root_territory=run.roots.territory,
        root_share=run.roots.share,
        root_projected=run.partition.share,
        position=from_wall(problem.mesh, growth.tip[:m]),
        parent=growth.parent,
        radius=growth.radius[:m],
        tree=growth.tree[:m],
        stage=growth.stage,
        terminal=growth.terminal,
        cell_tree=run.partition.cell_tree.astype(np.int64),
        territory_name=run.roots.territory_name,
        frame=problem.mesh.frame,
        settings=json.dumps(about),
    )


def _save(checkpoint: str | os.PathLike | None, mark: str, run: _Run) -> None:
    if checkpoint is None:
        return
    groups = {"growth": run.growth, "grid": run.grid, "plan": run.plan, "part": run.partition}
    arrays = {f"{g}.{k}": v for g, t in groups.items() for k, v in t._asdict().items()}
    roots = {name: getattr(run.roots, name) for name in ("node", "territory", "share")}
    save_arrays(
        checkpoint,
        fingerprint=np.array(mark),
        territory_name=np.array(run.roots.territory_name),
        queue=run.queue,
        at=np.array(run.at),
        failed=run.failed,
        phase=np.array(run.phase),
        waiting=run.waiting,
        seconds=np.array(json.dumps(run.seconds)),
        **{f"roots.{k}": v for k, v in roots.items()},
        **arrays,
    )


def _resumed(checkpoint: str | os.PathLike | None, mark: str) -> _Run | None:
    """The state a checkpoint keeps; None without one.

    **Errors:** [`InputError`][] where it belongs to another problem.
    """
    if checkpoint is None or not Path(checkpoint).is_file():
        return None
    with np.load(checkpoint, allow_pickle=False) as file:
        stored = {name: file[name] for name in file.files}
    if str(stored.get("fingerprint")) != mark:
        raise InputError(
            "it was written while another forest grew",
            where=str(checkpoint),
            expected="a checkpoint of the same vessels, wall and settings",
            fix="Delete it, or go back to the settings it was written with",
        )

    def group(kind: Any, prefix: str) -> Any:
        return kind(**{name: stored[f"{prefix}.{name}"] for name in kind._fields})

    roots = {name: stored[f"roots.{name}"] for name in ("node", "territory", "share")}
    return _Run(
        roots=Roots(**roots, territory_name=tuple(str(n) for n in stored["territory_name"])),
        partition=group(Partition, "part"),
        growth=group(Growth, "growth"),
        grid=group(Grid, "grid"),
        plan=group(Plan, "plan"),
        queue=stored["queue"],
        at=int(stored["at"]),
        failed=stored["failed"],
        phase=int(stored["phase"]),
        waiting=stored["waiting"],
        seconds=json.loads(str(stored["seconds"])),
    )
