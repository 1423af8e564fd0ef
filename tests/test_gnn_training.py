"""Training, its files, and the message-passing network."""

import itertools
import json

import equinox as eqx
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("jraph", reason="the extra `gnn` is not installed")

from coupled_cases import small_problem
from helpers import run_as_program

from gnn_darcy import (
    build_network,
    flux_multigrid,
    FluxMultigrid,
    load_network,
    message_passing,
    MessagePassing,
    Ranges,
    read_config,
    sample_case,
    train,
    TrainConfig,
)
from gnn_darcy._buckets import bucket_of, padded_case, plan_sizes, stacked
from gnn_darcy._checkpoint import save_checkpoint
from gnn_darcy._cycle import _inverse, cycle
from gnn_darcy._flux_multigrid import cycle_state, flux_plan
from gnn_darcy._loss import flux_loss
from gnn_darcy._message_passing import residual_loss
from gnn_darcy._stream import direct_pressure, Stream
from jaxperf import InputError, RESULTS
from jaxperf.coupling import solve_perfusion
from jaxperf.darcy import darcy_operator, DarcyProblem, solve_darcy
from jaxperf.study import darcy_method

SMALL = Ranges(tetrahedra=(900.0, 1100.0), terminals=(100, 110), wall_mm=(10.0, 12.0))
CONFIG = TrainConfig(
    model="message_passing",
    out="unused",
    hidden=4,
    messages=1,
    steps=4,
    batch=1,
    pool=2,
    steps_per_case=2,
    voxel_share=0.0,
    held_out=1,
    evaluate_every=2,
    save_every=1,
    ranges=SMALL,
)


@pytest.fixture(scope="module")
def case():
    return sample_case(5, SMALL, kind="tet")


def _arrays(case, dtype=jnp.float64):
    operator = case.problem.operator
    unit = jnp.max(operator.diagonal)
    scaled = (operator.transmissibility / unit, operator.sink / unit, case.problem.source * 1e8)
    return tuple(x.astype(dtype) for x in scaled)


@pytest.fixture(scope="module")
def padded(case):
    plan = flux_plan(case.mesh, case.permeability, by_rows=False)
    sizes = plan_sizes(plan)
    larger = tuple(2 * s for s in sizes)
    return plan, padded_case(plan, *_arrays(case), bucket_of(sizes, larger))


def _moved(network):
    """Weights with which every feature and message reaches what the network says."""
    rng = np.random.default_rng(8)
    noise = lambda x: x + jnp.asarray(0.3 * rng.standard_normal(x.shape), x.dtype)
    return jax.tree.map(lambda x: noise(x) if eqx.is_inexact_array(x) else x, network)


# ---------------------------------------------------------------- buckets


def test_padding_changes_no_coefficient_and_no_cycle(case, padded):
    plan, filled = padded
    network = _moved(build_network("flux_multigrid", 4, 1))
    t, s, f = _arrays(case)
    run = lambda plan, t, s, f: cycle(cycle_state(plan, network, t, s), f)
    alone = jax.jit(run)(plan, t, s, f)
    together = jax.jit(run)(filled.plan, filled.transmissibility, filled.sink, filled.source)
    assert filled.sink.shape[0] > len(s)
    np.testing.assert_allclose(together[: len(s)], alone, rtol=1e-11)
    assert float(jnp.abs(together[len(s) :]).max()) == 0.0


def test_both_layouts_are_one_cycle(case, padded):
    """By rows for solving, by entries for training."""
    network = _moved(build_network("flux_multigrid", 4, 1))
    run = jax.jit(lambda plan, t, s, f: cycle(cycle_state(plan, network, t, s), f))
    by_rows = run(flux_plan(case.mesh, case.permeability), *_arrays(case))
    np.testing.assert_allclose(by_rows, run(padded[0], *_arrays(case)), rtol=1e-11)


def test_buckets_hold_what_they_take():
    profile = (100, 700, 20)
    for size in (0.5, 1.0, 1.4, 3.0):
        sizes = tuple(int(size * p) for p in profile)
        bucket = bucket_of(sizes, profile)
        assert all(b >= s + 2 for b, s in zip(bucket, sizes, strict=True))
    assert bucket_of((90, 690, 10), profile) == bucket_of((60, 600, 12), profile)


@pytest.mark.slow
def test_a_batch_is_its_cases(padded):
    _, filled = padded
    network = build_network("flux_multigrid", 4, 1)
    keys = jax.random.split(jax.random.key(0), 2)
    alone = [flux_loss(network, filled, k) for k in keys]
    batched = jax.vmap(lambda c, k: flux_loss(network, c, k))(stacked([filled, filled]), keys)
    np.testing.assert_allclose(batched, jnp.stack(alone), rtol=1e-8)


def test_the_pressures_of_held_out_cases(case, padded):
    exact = direct_pressure(padded[1])
    found = solve_darcy(case.problem).pressure_tissue
    unit = 1e8 * float(jnp.max(case.problem.operator.diagonal))
    np.testing.assert_allclose(exact[: len(found)], unit * found, rtol=1e-8)


# ---------------------------------------------------------------- the coarsest inverse


def _triangular_solves(jaxpr):
    """The shapes of the matrices of all triangular solves of a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "triangular_solve":
            yield equation.invars[0].aval.shape
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from _triangular_solves(inner)


def test_training_has_no_batched_triangular_solves(padded):
    """Two at a time never end on two cores; see `_cycle._inverse`."""
    _, filled = padded
    network = build_network("flux_multigrid", 4, 1)
    keys = jax.random.split(jax.random.key(0), 2)
    batch = stacked([filled, filled])
    loss = lambda network: jnp.mean(jax.vmap(lambda c, k: flux_loss(network, c, k))(batch, keys))
    found = list(_triangular_solves(jax.make_jaxpr(eqx.filter_grad(loss))(network).jaxpr))
    assert found
    assert all(len(shape) == 2 for shape in found)


def test_the_derivative_of_the_inverse():
    rng = np.random.default_rng(2)
    raw = rng.standard_normal((3, 5, 5))
    matrix = jnp.asarray(raw @ raw.swapaxes(1, 2) + 5.0 * np.eye(5))
    weight = jnp.asarray(rng.standard_normal((5, 5)))
    total = lambda a: jnp.vdot(weight, _inverse(a))
    slope = jax.jit(jax.vmap(jax.grad(total)))(matrix)
    exact = -np.linalg.inv(matrix) @ np.asarray(weight) @ np.linalg.inv(matrix)
    np.testing.assert_allclose(slope, exact, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(_inverse)(matrix), np.linalg.inv(matrix), rtol=1e-12)


# ---------------------------------------------------------------- the loop


def test_the_pool_is_known_at_every_step():
    stream = Stream.__new__(Stream)
    stream.config = CONFIG.model_copy(update={"pool": 3, "steps_per_case": 2})
    assert [stream.numbers(step) for step in (0, 2, 8)] == [[0, 1, 2], [3, 1, 2], [6, 4, 5]]
    seen = [set(stream.numbers(step)) for step in range(12)]
    for before, after in itertools.pairwise(seen):
        assert len(after - before) <= 1


class _Killed(Exception):
    pass


def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(tmp_path):
    whole = train(CONFIG, tmp_path / "whole")

    def kill(step, loss, error):
        if step == 3:
            raise _Killed

    with pytest.raises(_Killed):
        train(CONFIG, tmp_path / "stopped", report=kill)
    resumed = train(CONFIG, tmp_path / "stopped")
    one, two = (load_network(path, CONFIG.model) for path in (whole, resumed))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)
    told, record = (
        json.loads((tmp_path / run / "training.json").read_text()) for run in ("whole", "stopped")
    )
    assert record["history"] == told["history"]
    assert record["step"] == 4
    assert [line["step"] for line in record["history"]] == [2, 4]
    assert record["versions"]["jax"]
    assert record["config"]["seed"] == 0
    with pytest.raises(InputError, match="another configuration"):
        train(CONFIG.model_copy(update={"seed": 1}), tmp_path / "stopped")


@pytest.mark.slow
def test_training_helps(tmp_path):
    """A hundred steps reduce the loss on cases that were not trained on."""
    config = CONFIG.model_copy(
        update={"model": "flux_multigrid", "steps": 100, "hidden": 8, "evaluate_every": 50}
    )
    trained = load_network(train(config, tmp_path), "flux_multigrid")
    stream = Stream(config)
    cases = [case for case, _ in stream.held_out()]
    stream.close()
    key = jax.random.key(9)
    loss = lambda network: float(np.mean([flux_loss(network, c, key) for c in cases]))
    assert loss(trained) < 0.97 * loss(build_network("flux_multigrid", 8, 1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("model: flux_multigrid", "out: Field required"),
        ("model: cnn\nout: x", "model: Input should be"),
        ("model: flux_multigrid\nout: x\nstep: 3", "step: Extra inputs"),
        ("model: flux_multigrid\nout: x\nranges: {anisotropy: [3, 1]}", "anisotropy is (3, 1)"),
        ("model: [", "it is no YAML"),
    ],
)
def test_a_wrong_configuration_is_refused(tmp_path, text, told):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_config(path)
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_the_command_names_the_file_that_is_missing(tmp_path, capsys):
    assert run_as_program("gnn_darcy", "train", str(tmp_path / "none.yaml")) == 2
    assert "there is no such file" in " ".join(capsys.readouterr().out.split())


# ---------------------------------------------------------------- checkpoints


def test_checkpoints_are_read_as_they_were_written(tmp_path):
    network = build_network("flux_multigrid", 4, 1, seed=7)
    path = tmp_path / "network.eqx"
    save_checkpoint(path, "flux_multigrid", {"hidden": 4, "messages": 1}, network)
    header = json.loads(path.read_bytes().partition(b"\n")[0])
    assert header["kind"] == "flux_multigrid"
    for a, b in zip(
        jax.tree.leaves(network),
        jax.tree.leaves(load_network(path, "flux_multigrid")),
        strict=True,
    ):
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda b: b[:-20], "damaged"),
        (lambda b: b.replace(b'"format": 1', b'"format": 2'), "its format is 2"),
        (lambda b: b.replace(b"flux_multigrid", b"message_passing"), "holds a message_passing"),
        (lambda b: b"\x80\x04pickle", "has no header"),
        (lambda b: b.replace(b'"hidden": 4', b'"hidden": 5'), "do not fit"),
        (lambda b: b.replace(b'"hidden": 4', b'"width": 4'), "hidden None"),
    ],
)
def test_checkpoints_that_cannot_be_used_are_refused(tmp_path, change, told):
    path = tmp_path / "network.eqx"
    network = build_network("flux_multigrid", 4, 1)
    save_checkpoint(path, "flux_multigrid", {"hidden": 4, "messages": 1}, network)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(InputError) as error:
        load_network(path, "flux_multigrid")
    assert told in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        load_network(tmp_path / "none.eqx", "flux_multigrid")


# ---------------------------------------------------------------- the networks of the package


def test_the_trained_network_solves(case):
    solution = solve_darcy(case.problem, flux_multigrid(case.mesh, case.permeability))
    exact = solve_darcy(case.problem).pressure_tissue
    np.testing.assert_allclose(solution.pressure_tissue, exact, rtol=1e-8)
    few = flux_multigrid(case.mesh, case.permeability, mode="few")
    found = solve_darcy(case.problem, few).pressure_tissue
    assert float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)) <= 1e-3


def test_the_message_passing_network_answers(case):
    method = message_passing(case.mesh)
    assert not method.is_linear_symmetric
    exact = solve_darcy(case.problem).pressure_tissue
    found = solve_darcy(case.problem, method).pressure_tissue
    assert float(jnp.linalg.norm(found - exact) / jnp.linalg.norm(exact)) <= 0.5


def test_the_coupled_solve_takes_the_flux_network_by_name():
    problem, *_ = small_problem()
    method = darcy_method("gnn", problem)
    assert isinstance(method, FluxMultigrid)
    expected = solve_perfusion(problem)
    np.testing.assert_allclose(solve_perfusion(problem, method).mbf, expected.mbf, rtol=1e-7)


def test_the_coupled_solve_says_where_message_passing_does_not_converge():
    """Its errors of residuals, which training has not seen, are larger than the residuals."""
    problem, *_ = small_problem()
    method = darcy_method("gnn_message_passing", problem)
    assert isinstance(method, MessagePassing)
    found = solve_perfusion(problem, method, max_linear_steps=5, max_steps=3, throw=False)
    assert found.result != RESULTS.successful


# ---------------------------------------------------------------- message passing


@pytest.fixture(scope="module")
def method():
    return MessagePassing(build_network("message_passing", 8, 2, seed=2))


@eqx.filter_jit
def _solve(method, operator, source):
    return method.solve(operator, source)


def test_all_sinks_take_what_all_sources_give(case, method):
    """Whatever the weights: no flux leaves through the surface."""
    solution = _solve(method, case.problem.operator, case.problem.source)
    total = float(case.problem.source.sum())
    assert abs(float(solution.balance.sum())) <= 1e-12 * total
    sunk = float(jnp.vdot(case.problem.operator.sink, solution.pressure_tissue))
    assert abs(sunk / total - 1.0) <= 1e-12


def test_its_units_play_no_part(case, method):
    operator, source = case.problem.operator, case.problem.source
    found = _solve(method, operator, source).pressure_tissue
    c = 4e3
    scaled = darcy_operator(operator.graph, c * operator.transmissibility, c * operator.sink)
    np.testing.assert_allclose(
        c * _solve(method, scaled, source).pressure_tissue, found, rtol=1e-10
    )
    np.testing.assert_allclose(
        _solve(method, operator, 7.0 * source).pressure_tissue, 7.0 * found, rtol=1e-10
    )


def test_no_source_has_no_pressure(case, method):
    none = jnp.zeros_like(case.problem.source)
    np.testing.assert_array_equal(_solve(method, case.problem.operator, none).pressure_tissue, none)


def test_it_is_not_linear_in_the_source(case, method):
    operator, source = case.problem.operator, case.problem.source
    other = source * jnp.cos(300.0 * case.point[:, 0])
    run = lambda f: _solve(method, operator, f).pressure_tissue
    apart = run(source) + run(other)
    assert float(jnp.linalg.norm(run(source + other) - apart)) > 1e-3 * float(
        jnp.linalg.norm(apart)
    )


def test_padding_changes_no_loss(case, padded):
    plan, filled = padded
    wide = lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x
    network = jax.tree.map(wide, build_network("message_passing", 4, 1))
    alone = padded_case(plan, *_arrays(case), tuple(s + 2 for s in plan_sizes(plan)))
    key = jax.random.key(0)
    loss = eqx.filter_jit(residual_loss)
    np.testing.assert_allclose(loss(network, filled, key), loss(network, alone, key), rtol=1e-10)


def test_the_residual_of_the_solution_is_nothing(padded):
    """The loss is that of the finite volumes: put in the solution, it vanishes."""
    _, filled = padded
    exact = jnp.asarray(direct_pressure(filled))
    told = lambda *_: exact
    assert float(eqx.filter_jit(residual_loss)(told, filled, jax.random.key(0))) <= 1e-20


def test_a_floating_piece_is_refused(case, method):
    operator = case.problem.operator
    floating = darcy_operator(operator.graph, operator.transmissibility, 0.0 * operator.sink)
    solution = solve_darcy(DarcyProblem(floating, case.problem.source), method, throw=False)
    assert bool(jnp.isnan(solution.pressure_tissue).all())
