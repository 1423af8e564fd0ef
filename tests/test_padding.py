"""Problems padded to buckets: the same answers, one program, and nothing read from the padding."""

import contextlib
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem, small_wall
from networks import random_tree

from jaxperf import (
    Autoregulation,
    build_network,
    ConjugateGradient,
    cut_solution,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    declare_lesion,
    InputError,
    Microcirculation,
    OlufsenStiffness,
    pad_problem,
    PressureBoundary,
    ResistanceOutlet,
    RigidWall,
    solve_darcy,
    solve_perfusion,
    solve_steady,
    SqrtAreaWall,
    SteadyProblem,
    without_lesions,
)
from jaxperf._padding import bucket_size
from jaxperf.darcy import multigrid, pad_permeability, sanitised_mesh
from jaxperf.geometry import tetrahedra_from_voxels

REPOSITORY = Path(__file__).resolve().parents[1]
INLET = 93 * 133.322
# Of solutions and derivatives; the solvers stop at 1e-12.
CLOSE = 1e-11
# Scale and seed of two hearts whose sizes, those of their multigrids too, share their buckets.
HEARTS = (0.996, 0), (0.994, 1)


def test_buckets_waste_at_most_twelve_percent():
    assert [bucket_size(n) for n in range(9)] == list(range(9))
    # the entry after a full bucket is the one that wastes most
    size = 8
    while size < 1_000_000:
        n, size = size + 1, bucket_size(size + 1)
        assert n <= size <= 1.12 * n and bucket_size(size) == size == bucket_size(size - (n < size))


@contextlib.contextmanager
def compilations():
    """How many programs XLA is asked for."""
    count = []
    name = "/jax/core/compile/backend_compile_duration"
    listener = lambda event, *_, **__: count.append(event) if event == name else None
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)


def poisoned(padded, real):
    """NaN in every floating-point entry of `padded` that `real` does not have."""
    given = {jax.tree_util.keystr(k): x for k, x in jax.tree_util.tree_leaves_with_path(real)}
    spoiled = []

    def spoil(path, x):
        like = given.get(jax.tree_util.keystr(path))
        if like is None or not jnp.issubdtype(x.dtype, jnp.floating) or like.shape == x.shape:
            return x
        inside = tuple(slice(0, n) for n in like.shape)
        out = np.full(x.shape, np.nan, x.dtype)
        out[inside] = np.asarray(x)[inside]
        spoiled.append(jax.tree_util.keystr(path))
        return jnp.asarray(out)

    return jax.tree_util.tree_map_with_path(spoil, padded), spoiled


def assert_close(found, expected, rtol=CLOSE):
    """Every leaf within rtol of its largest entry."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=rtol * np.abs(b).max(initial=1e-300))


def tree_problem(seed, n_segments, *, wall=None, reduction: float | None = 0.5):
    """A tree with an outlet at each terminal and, where asked for, a lesion on its first vessel."""
    rng = np.random.default_rng(seed)
    position, segment, radius = random_tree(rng, n_segments)
    branch = (np.arange(n_segments) > 0).astype(int)
    network = build_network(
        position,
        segment,
        radius,
        root=np.array([0]),
        frame="LPS",
        branch=branch,
        branch_name=("first", f"others of {seed}"),
    )
    if reduction is not None:
        end = float(network.length[0]) * 1e3
        network = declare_lesion(
            network, branch="first", start_mm=0.2 * end, end_mm=end, diameter_reduction=reduction
        )
    leaf = np.asarray(network.terminals)
    boundary = (
        PressureBoundary(jnp.array([0]), jnp.array([INLET])),
        ResistanceOutlet(
            jnp.asarray(leaf),
            jnp.asarray(rng.uniform(5e9, 5e10, len(leaf))),
            jnp.full(len(leaf), 2000.0),
        ),
    )
    more = {} if wall is None else {"wall": wall}
    return SteadyProblem(network, boundary, **more)


def gradient_of(loss, problem, where):
    """d loss / d the leaves `where` of the problem."""
    at = where(problem)
    return jax.jit(jax.grad(lambda x: loss(eqx.tree_at(where, problem, x))))(at)


def steady_loss(problem):
    solution = solve_steady(pad_problem(problem))
    real = cut_solution(solution, problem)
    return jnp.sum(real.pressure_total**2) / INLET**2 + jnp.sum(jnp.sqrt(jnp.abs(real.flow))) * 1e2


def plain_steady_loss(problem):
    real = solve_steady(problem)
    return jnp.sum(real.pressure_total**2) / INLET**2 + jnp.sum(jnp.sqrt(jnp.abs(real.flow))) * 1e2


NETWORK_LEAVES = {
    "radius": lambda p: p.network.radius,
    "length": lambda p: p.network.length,
    "reduction": lambda p: p.network.lesion.diameter_reduction,
    "pressure": lambda p: p.boundary[0].pressure,
    "resistance": lambda p: p.boundary[1].resistance,
}


@pytest.mark.parametrize(
    "wall", [None, SqrtAreaWall(OlufsenStiffness(), 9000.0)], ids=["rigid", "elastic"]
)
def test_steady_is_the_same_padded(wall):
    problem = tree_problem(1, 60, wall=wall)
    padded = pad_problem(problem)
    assert padded.network.n_nodes > problem.network.n_nodes
    found = cut_solution(solve_steady(padded), problem)
    expected = solve_steady(problem)
    for name in ("pressure_total", "flow", "pressure_static", "area"):
        assert_close(getattr(found, name), getattr(expected, name))
    where = lambda p: [leaf(p) for leaf in NETWORK_LEAVES.values()]
    assert_close(
        gradient_of(steady_loss, problem, where), gradient_of(plain_steady_loss, problem, where)
    )


def test_steady_reads_nothing_from_its_padding():
    problem = tree_problem(1, 60, wall=SqrtAreaWall(OlufsenStiffness(), 9000.0))
    clean = pad_problem(problem)
    spoiled, where = poisoned(clean, problem)
    assert len(where) == 8
    loss = lambda p: jnp.sum(cut_solution(solve_steady(p), problem).flow)
    leaves = lambda p: [leaf(p) for leaf in NETWORK_LEAVES.values()]
    slopes, expected = (gradient_of(loss, p, leaves) for p in (spoiled, clean))
    assert_close(solve_steady(spoiled), solve_steady(clean), 0.0)
    assert_close(slopes, expected, 0.0)


def test_two_trees_run_one_program_and_stack():
    solve = eqx.filter_jit(solve_steady)
    pair = [tree_problem(7, 60), tree_problem(15, 62, reduction=None)]
    padded = [pad_problem(p) for p in pair]
    assert pair[0].network.n_nodes != pair[1].network.n_nodes
    jax.block_until_ready(solve(padded[0]))
    with compilations() as count:
        single = [solve(p) for p in padded]
    assert count == []
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *padded)
    together = eqx.filter_vmap(lambda p: solve_steady(p, throw=False))(stacked)
    for i, (alone, problem) in enumerate(zip(single, pair, strict=True)):
        assert_close(
            jax.tree.map(lambda x, i=i: x[i], together).pressure_total, alone.pressure_total
        )
        assert_close(cut_solution(alone, problem).flow, solve_steady(problem).flow)


def test_loops_are_padded_around():
    problem = tree_problem(3, 30, reduction=None)
    network = problem.network
    leaf = np.asarray(network.terminals)[:2]
    looped = build_network(
        np.asarray(network.node_position),
        np.concatenate([np.asarray(network.segment_node), leaf[None]]),
        np.concatenate([np.asarray(network.radius), np.full((1, 2), 5e-4)]),
        root=np.array([0]),
        frame="LPS",
        allow_loops=True,
    )
    problem = SteadyProblem(looped, problem.boundary)
    found = cut_solution(solve_steady(pad_problem(problem)), problem)
    assert_close(found.flow, solve_steady(problem).flow)


def test_padding_twice_is_refused():
    problem = tree_problem(1, 12)
    with pytest.raises(InputError, match="padded already"):
        pad_problem(pad_problem(problem))
    with pytest.raises(InputError, match="got VascularNetwork"):
        pad_problem(problem.network)
    assert pad_problem(SteadyProblem(without_lesions(problem.network), problem.boundary))


MESHES = ("voxels", "tensor voxels", "tetrahedra")


def wall_mesh(kind, scale=1.0):
    wall = small_wall(5.0, scale)
    if kind == "tetrahedra":
        return darcy_mesh(tetrahedra_from_voxels(wall))
    return darcy_mesh(wall, full_tensor=True) if kind == "tensor voxels" else darcy_mesh(wall)


def random_tensor(n, seed):
    """Permeabilities of ratio 4 in axes of their own, or scalars where voxels take no others."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((n, 3, 3)))[0]
    size = 2e-9 * rng.uniform(0.5, 2.0, (n, 1))
    return jnp.asarray(np.einsum("kia,ka,kja->kij", axes, size * [[4.0, 2.0, 1.0]], axes))


def darcy_values(mesh, kind, seed):
    """Permeability, sink, source and where the pressure is prescribed."""
    rng = np.random.default_rng(seed)
    n = mesh.graph.n_cells
    permeability = random_tensor(mesh.n_elements, seed)
    if kind == "voxels":
        permeability = permeability[:, 0, 0]
    volume = np.asarray(mesh.graph.volume)
    return {
        "permeability": permeability,
        "sink": jnp.asarray(volume * rng.uniform(1e-6, 1e-5, n)),
        "source": jnp.asarray(volume * rng.uniform(0.0, 0.02, n)),
        "fixed": jnp.asarray(rng.random(n) < 0.02),
        "pressure": jnp.asarray(rng.uniform(1e3, 3e3, n)),
    }


def padded_values(mesh, values):
    pad = lambda x, fill: np.concatenate(
        [np.asarray(x), np.full(mesh.graph.n_cells - len(x), fill, x.dtype)]
    )
    cell = {
        k: jnp.asarray(pad(x, False if k == "fixed" else np.nan))
        for k, x in values.items()
        if k != "permeability"
    }
    return {"permeability": pad_permeability(values["permeability"], mesh), **cell}


@eqx.filter_jit
def darcy_result(mesh, values, weight, methods):
    """For each method the solution, and the slopes of a weighted sum of its pressure."""

    def solve(given):
        operator = darcy_operator(
            mesh.graph, mesh.transmissibility(given["permeability"]), given["sink"]
        )
        problem = DarcyProblem(operator, given["source"], values["fixed"], given["pressure"])
        found = [solve_darcy(problem, method, throw=False) for method in methods]
        return [s.pressure_tissue for s in found], found

    given = {k: x for k, x in values.items() if k != "fixed"}
    _, pull, solutions = jax.vjp(solve, given, has_aux=True)
    none = jnp.zeros_like(weight)
    slopes = [
        pull([weight if k == i else none for k in range(len(methods))])[0]
        for i in range(len(methods))
    ]
    return solutions, slopes


def first(tree, like):
    """The entries that `like` has."""
    return jax.tree.map(lambda x, y: x[: y.shape[0]] if y.ndim else x, tree, like)


@pytest.mark.parametrize("kind", MESHES)
def test_operators_are_the_same_padded(kind):
    mesh = wall_mesh(kind)
    padded = pad_problem(mesh)
    values, x = darcy_values(mesh, kind, 0), np.random.default_rng(1).random(mesh.graph.n_cells)
    n, n_edges = mesh.graph.n_cells, mesh.graph.edge.shape[0]
    build = eqx.filter_jit(
        lambda mesh, values: darcy_operator(
            mesh.graph, mesh.transmissibility(values["permeability"]), values["sink"]
        )
    )
    plain, wide = build(mesh, values), build(padded, padded_values(padded, values))
    wide_x = np.append(x, np.full(padded.graph.n_cells - n, 7.0))
    assert_close(wide.transmissibility[:n_edges], plain.transmissibility, 1e-14)
    assert_close(wide(jnp.asarray(wide_x))[:n], plain(jnp.asarray(x)), 1e-14)
    assert float(jnp.min(wide.diagonal)) > 0
    assert float(jnp.abs(wide.flux(jnp.asarray(wide_x))[n_edges:]).max()) == 0
    assert bool(wide.has_level()) and not bool(
        build(mesh, {**values, "sink": jnp.zeros(n)}).has_level()
    )


@pytest.mark.parametrize("kind", MESHES)
def test_darcy_is_the_same_padded(kind):
    """By conjugate gradients and by multigrid, with NaN in all that is padded."""
    mesh = wall_mesh(kind)
    padded, values, n = pad_problem(mesh), darcy_values(mesh, kind, 0), mesh.graph.n_cells
    weight = np.random.default_rng(2).random(n)
    spoiled, where = poisoned(padded, mesh)
    assert (
        where
        == {
            "voxels": [".graph.volume", ".normal", ".area_over_distance"],
            "tensor voxels": [".graph.volume"],
            "tetrahedra": [".graph.volume", ".gradient", ".tet_volume"],
        }[kind]
    )
    methods = lambda mesh: [ConjugateGradient(), multigrid(mesh, rtol=1e-12)]
    expected = darcy_result(mesh, values, jnp.asarray(weight), methods(mesh))
    found = darcy_result(
        sanitised_mesh(spoiled),
        padded_values(padded, values),
        jnp.asarray(np.append(weight, np.zeros(padded.graph.n_cells - n))),
        methods(padded),
    )
    for i in range(2):
        # The order of the sums differs, and hundreds of iterations feel it.
        iterations = int(expected[0][i].iterations)
        assert int(found[0][i].iterations) == pytest.approx(iterations, rel=0.02)
        assert_close(found[0][i].pressure_tissue[:n], expected[0][i].pressure_tissue)
        assert_close(first(found[1][i], expected[1][i]), expected[1][i])


def heart(scale, seed, method):
    """A small heart with its lesion; with multigrid it regulates itself."""
    problem, _ = small_problem(scale=scale, seed=seed, n_terminals=18)
    rng = np.random.default_rng(seed)
    size = lambda n: jnp.asarray(rng.uniform(0.7, 1.3, n))
    n = problem.tissue.n_cells
    bed = Microcirculation(1.74e-6 * size(n), 8.75e-6 * size(n), 2e-9 * size(n), 500.0)
    regulation = None
    if method == "multigrid":
        target = 1e-3 / 60 * problem.tissue.density * problem.tissue.terminal_volume
        regulation = Autoregulation(target, 4.0)
    return eqx.tree_at(
        lambda p: (p.microcirculation, p.autoregulation),
        problem,
        (bed, regulation),
        is_leaf=lambda x: x is None,
    )


def perfusion_leaves(problem):
    bed, network = problem.microcirculation, problem.network
    return {
        "radius": network.radius,
        "reduction": network.lesion.diameter_reduction,
        "pressure": problem.boundary[0].pressure,
        "beta_source": bed.beta_source,
        "beta_sink": bed.beta_sink,
        "permeability": bed.permeability,
    }


@eqx.filter_jit
def perfusion_result(problem, weight, method):
    """The solution, and the slopes of a weighted sum of flows into terminals and tissue."""

    def loss(given):
        order = list(perfusion_leaves(problem))
        changed = eqx.tree_at(
            lambda p: list(perfusion_leaves(p).values()), problem, [given[k] for k in order]
        )
        solution = solve_perfusion(changed, method, throw=False)
        total = jnp.sum(solution.terminal_flow**2) * 1e15 + jnp.sum(weight * solution.mbf) * 1e6
        return total, solution

    slopes, solution = jax.grad(loss, has_aux=True)(perfusion_leaves(problem))
    return solution, slopes


@pytest.mark.parametrize("method", ["conjugate gradient", "multigrid"])
def test_two_hearts_run_one_coupled_program(method):
    """Its answers are those without padding; NaN in all that is padded changes none."""
    hearts = [heart(*HEARTS[0], method), heart(*HEARTS[1], method)]
    padded = [pad_problem(p) for p in hearts]
    make = lambda p: ConjugateGradient() if method != "multigrid" else multigrid(p.tissue.mesh)
    methods, n = [make(p) for p in padded], [p.tissue.n_cells for p in hearts]
    assert n[0] != n[1] and hearts[0].network.n_nodes == hearts[1].network.n_nodes
    weight = np.random.default_rng(3).random(n[0])
    wide = jnp.asarray(np.append(weight, np.zeros(padded[0].tissue.n_cells - n[0])))
    spoiled, where = poisoned(padded[0], hearts[0])
    assert len(where) == (14 if method == "multigrid" else 13)
    clean, clean_slopes = perfusion_result(padded[0], wide, methods[0])
    with compilations() as count:
        found, slopes = perfusion_result(spoiled, wide, methods[0])
        other, _ = perfusion_result(padded[1], wide, methods[1])
        jax.block_until_ready((found, other))
    assert count == []
    assert_close((found, slopes), (clean, clean_slopes), 0.0)
    expected, expected_slopes = perfusion_result(hearts[0], jnp.asarray(weight), make(hearts[0]))
    real = cut_solution(found, hearts[0])
    for name in ("pressure_total", "flow", "pressure_static", "dilation", "pressure_tissue", "mbf"):
        assert_close(getattr(real, name), getattr(expected, name))
    assert_close(first(slopes, expected_slopes), expected_slopes)
    if method == "multigrid":
        return
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *padded)
    together = eqx.filter_vmap(lambda p: solve_perfusion(p, throw=False))(stacked)
    for i, alone in enumerate([found, other]):
        assert_close(together.pressure_tissue[i], alone.pressure_tissue)
        assert_close(together.terminal_flow[i], alone.terminal_flow)


_FRESH = """
import jax, numpy as np, jaxperf as jp
from jaxperf.geometry import ellipsoid_ventricle
mesh = jp.pad_problem(jp.darcy_mesh(ellipsoid_ventricle(spacing_mm=5.0)[0]))
network = jp.build_network(
    np.array([[0.0, 0, 0], [0.05, 0, 0]]), np.array([[0, 1]]), np.array([2e-3, 2e-3]),
    root=np.array([0]), frame="model")
node, value = jax.device_put((np.array([0]), np.array([1e-6])))
problem = jp.flow1d_problem(
    network, (jp.FlowBoundary(node, value),), jp.Blood(),
    jp.SqrtAreaWall(jp.OlufsenStiffness(), 1e4), period=1.0)
print(type(mesh).__name__, type(jp.pad_problem(problem)).__name__)
"""


def test_a_process_that_has_loaded_no_solver_pads_too():
    """Names load on first use: the type of a problem may be there before what pads it."""
    done = subprocess.run(
        [sys.executable, "-c", _FRESH], capture_output=True, text=True, check=False, cwd=REPOSITORY
    )
    assert done.stdout.split() == ["VoxelDarcyMesh", "Flow1DProblem"], done.stderr


def test_what_cannot_be_padded_is_refused():
    with pytest.raises(InputError, match="it got RigidWall"):
        pad_problem(RigidWall())
    with pytest.raises(InputError, match="it got dict"):
        cut_solution({}, None)
