"""Everything before growth: roots, territories, calibres, entries, sites and their order."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ..geometry import VoxelMesh
from ..network import downstream_sum, parent_segment, VascularNetwork
from ._forest import STUB
from ._insert import filled_grid, Growth, Plan
from ._murray import terminal_radius
from ._partition import divide_wall, Partition
from ._plant import choose_entries, NoWay, plant_trees
from ._problem import GrowthProblem
from ._roots import forest_roots, healthy_radius, Roots
from ._sites import spread_sites
from ._space import Grid
from ._wall import cell_centres, to_wall, Wall

# Sites of the epicardial stage lie in the outer third of the wall.
_CONDUIT_SITES = 2.0 / 3.0


@dataclass
class Run:
    """A forest while it grows."""

    roots: Roots
    partition: Partition
    growth: Growth
    grid: Grid
    plan: Plan
    queue: np.ndarray
    at: int
    failed: np.ndarray
    level: int
    conduit: bool
    waiting: np.ndarray
    left_out: np.ndarray
    seconds: dict[str, float]


def set_up(problem: GrowthProblem, wall: Wall) -> Run:
    """Everything until the first terminal; side roots without a way into the wall are left out.

    **Errors:** [`InputError`][] where an outlet has none.
    """
    left_out: tuple[int, ...] = ()
    while True:
        roots = forest_roots(
            problem.network,
            problem.mesh,
            closed=problem.closed,
            spacing=problem.root_spacing,
            reach=problem.root_reach,
            territory_share=problem.territory_share,
            left_out=left_out,
        )
        try:
            return _from_roots(problem, wall, roots, left_out)
        except NoWay as error:
            node = int(roots.node[error.tree])
            if node in np.asarray(problem.network.terminals):
                raise
            left_out = (*left_out, node)


def _from_roots(problem: GrowthProblem, wall: Wall, roots: Roots, left_out: tuple[int, ...]) -> Run:
    """Territories, calibres, entries into the wall, sites and their order, first vessels."""
    network, mesh = problem.network, problem.mesh
    n_trees = roots.node.size
    if problem.n_terminals < n_trees:
        raise InputError(
            f"{problem.n_terminals} terminals for {n_trees} trees",
            where="`n_terminals`",
            expected="at least one terminal per tree",
            fix="Ask for more terminals, or a larger `root_spacing`",
        )
    fixed = _fixed_vessels(network, mesh)
    origin = to_wall(mesh, np.asarray(network.node_position)[roots.node])
    expected = np.maximum(1.0, roots.share * problem.n_terminals)
    branch = np.asarray(network.branch)
    own = branch[parent_segment(network)[roots.node]][:, None] == branch[None, :]
    entry = choose_entries(wall, fixed, origin, _radii(problem, roots, expected), own, None)
    partition = divide_wall(wall, entry, roots.share, roots.territory, problem.n_terminals)
    planned = partition.count
    law = _law(problem, roots, planned.astype(np.float64))
    radius = _radii(problem, roots, planned.astype(np.float64))
    entry = choose_entries(wall, fixed, origin, radius, own, partition.cell_tree)
    stub = np.concatenate([origin, cell_centres(wall)[entry], radius[:, None]], axis=1)
    blocked = np.concatenate([fixed, stub])
    rng = np.random.default_rng(problem.seed)
    # a little more than the terminal vessel needs, for its bifurcation
    site, site_tree = spread_sites(
        wall, partition.cell_tree, planned, 1.05 * terminal_radius(law), blocked, rng
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
    plant_trees(growth, grid, wall, plan, fixed, own, partition.cell_tree)
    queue, waiting = _order(problem, wall, site, site_tree, planned, rng)
    queue, waiting = (q[growth.terminal[q] < 0] for q in (queue, waiting))
    return Run(
        roots=roots,
        partition=partition,
        growth=growth,
        grid=grid,
        plan=plan,
        queue=queue,
        at=0,
        failed=np.empty(0, np.int64),
        level=0,
        conduit=True,
        waiting=waiting,
        left_out=np.array(left_out, np.int64),
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
    radius = healthy_radius(network)[inlet]
    widest = inlet[int(np.argmax(radius))]
    return problem.law.coefficients(float(radius.max()), float(below[widest]))


def _radii(
    problem: GrowthProblem, roots: Roots, terminals: Float[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """The radius (m) of each tree at its root."""
    return problem.law.radius(terminals, _law(problem, roots, terminals))


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
    n_trees, m = len(stub), 2 * n_terminals + len(stub)
    a = m + len(fixed)  # two nodes per terminal, and one bend per tree
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
    vessels = np.concatenate([np.arange(n_trees), np.arange(m, a)])
    return growth, filled_grid(growth, low, high, spread, vessels)
