"""Problems padded to buckets: the same answers, one program, and nothing read from the padding."""

import contextlib

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_tree

from jaxperf import (
    build_network,
    cut_solution,
    declare_lesion,
    InputError,
    OlufsenStiffness,
    pad_problem,
    PressureBoundary,
    ResistanceOutlet,
    solve_steady,
    SqrtAreaWall,
    SteadyProblem,
    without_lesions,
)
from jaxperf._padding import bucket_size

INLET = 93 * 133.322
# Of solutions and derivatives; the solvers stop at 1e-12.
CLOSE = 1e-11


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


def tree_problem(seed, n_segments, *, wall=None, reduction=0.5):
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
    return jnp.sum(real.pressure**2) / INLET**2 + jnp.sum(jnp.sqrt(jnp.abs(real.flow))) * 1e2


def plain_steady_loss(problem):
    real = solve_steady(problem)
    return jnp.sum(real.pressure**2) / INLET**2 + jnp.sum(jnp.sqrt(jnp.abs(real.flow))) * 1e2


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
    for name in ("pressure", "flow", "pressure_static", "area"):
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
        assert_close(jax.tree.map(lambda x, i=i: x[i], together).pressure, alone.pressure)
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
