"""The graph networks in torch_geometric: values and gradients of gnn_darcy, and their own."""

import dataclasses
import hashlib
import io
import json
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")
pytest.importorskip("torch_geometric", reason="the extra `torch` is not installed")
pytest.importorskip("jraph", reason="the extra `gnn` is not installed")

import gnn_darcy  # noqa: E402
from bridges._graph_arrays import (  # noqa: E402
    reference_finite_volume_network,
    reference_flux_network,
    reference_flux_problem,
)
from bridges.reference.graph import (  # noqa: E402
    Aggregation,
    FiniteVolumeNetwork,
    flux_cycle,
    FluxNetwork,
    FluxProblem,
    residual_loss,
    solve_flux,
)
from gnn_darcy import _message_passing as message_passing  # noqa: E402
from gnn_darcy._buckets import PaddedCase  # noqa: E402
from gnn_darcy._flux_multigrid import flux_plan  # noqa: E402
from gnn_darcy._solvers import _TRAINED  # noqa: E402
from jaxperf import InputError  # noqa: E402
from jaxperf.darcy import darcy_operator, DarcyProblem  # noqa: E402

MODES = ("few", "surrogate", "exact")
SIZES = {"flux_multigrid": (16, 2), "message_passing": (32, 8)}
# What is compiled runs once or twice.
QUICK = {"compiler_options": {"xla_backend_optimization_level": 0}}


@pytest.fixture(scope="module")
def case(request):
    made = gnn_darcy.sample_case(1, kind=request.param, n_tets=1000)
    # Sums over entries compile in half the time of products by rows.
    plan = flux_plan(made.mesh, made.permeability, by_rows=False)
    network = gnn_darcy.load_network(_TRAINED / "flux_multigrid.eqx", "flux_multigrid")
    solver = gnn_darcy.FluxMultigrid(plan, network, cycles=3, rtol=1e-14, dtype=jnp.float64)
    weight = np.random.default_rng(0).normal(size=made.mesh.graph.n_cells)
    return SimpleNamespace(
        solver=solver,
        problem=made.problem,
        weight=weight,
        modes=MODES if request.param == "tet" else MODES[:1],
    )


def _wide(network):
    return jax.tree.map(lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x, network)


def _networks(kind, trained):
    """The trained network, and one with weights that no training made."""
    leaves, tree = jax.tree.flatten(gnn_darcy.build_network(kind, *SIZES[kind]))
    rng = np.random.default_rng(3)
    # Messages of the second kind are cubic: larger weights leave the range of numbers.
    size = 0.3 if kind == "flux_multigrid" else 0.05
    moved = [jnp.asarray(np.asarray(x, float) + size * rng.normal(size=x.shape)) for x in leaves]
    return {"trained": _wide(trained), "random": jax.tree.unflatten(tree, moved)}


def _ours(theta, solver, graph, weight, modes):
    """Σ_k weight_k · p_k over the modes, its gradient, the solutions and ρ."""

    def quantity(theta):
        network, transmissibility, sink, source = theta
        solver_here = dataclasses.replace(solver, network=network)
        state = solver_here.init(darcy_operator(graph, transmissibility, sink))
        found = [dataclasses.replace(solver_here, mode=m).solve(state, source) for m in modes]
        total = sum(jnp.vdot(w, s.pressure_tissue) for w, s in zip(weight, found, strict=True))
        return total, (found, state)

    return eqx.filter_value_and_grad(quantity, has_aux=True)(theta)


def _difference(found, expected):
    found = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    return np.linalg.norm(found - np.asarray(expected)) / np.linalg.norm(expected)


@pytest.mark.parametrize(
    "case", ["tet", pytest.param("voxel", marks=pytest.mark.slow)], indirect=True
)
def test_flux_multigrid_has_the_values_and_gradients_of_gnn_darcy(case):
    ours = eqx.filter_jit(_ours, **QUICK)
    operator = case.problem.operator
    given = operator.transmissibility, operator.sink, case.problem.source
    for network in _networks("flux_multigrid", case.solver.network).values():
        torch_network = reference_flux_network(network)
        for k, mode in enumerate(case.modes):
            chosen = np.zeros((len(case.modes), case.weight.size))
            chosen[k] = case.weight
            (_, (solutions, state)), slope = ours(
                (network, *given), case.solver, operator.graph, jnp.asarray(chosen), case.modes
            )
            problem = reference_flux_problem(case.solver, case.problem)
            leaf = [problem.transmissibility, problem.sink, problem.source]
            for tensor in leaf:
                tensor.requires_grad_()
            found = solve_flux(torch_network, problem, mode=mode, cycles=3, rtol=1e-14)
            weights = list(torch_network.ordered_parameters())
            gradient = torch.autograd.grad(
                torch.tensor(case.weight) @ found.pressure_tissue, leaf + weights, allow_unused=True
            )
            assert _difference(found.pressure_tissue, solutions[k].pressure_tissue) <= 1e-11
            assert _difference(found.contraction, state.rho) <= 1e-11
            if mode == "exact":
                # The answer is that of the linear system, whatever the weights.
                assert all(part is None for part in gradient[3:])
                assert not any(np.asarray(part).any() for part in jax.tree.leaves(slope[0]))
            else:
                for mine, theirs in zip(gradient[3:], jax.tree.leaves(slope[0]), strict=True):
                    assert _difference(mine, theirs) <= 1e-10
            for mine, theirs in zip(gradient[:3], slope[1:], strict=True):
                assert _difference(mine, theirs) <= 1e-10
        with torch.no_grad():
            level = flux_cycle(torch_network, problem).levels
        for mine, theirs in zip(level, state.cycle.levels, strict=True):
            assert _difference(mine.smoother, theirs.smoother) <= 1e-11
            assert _difference(mine.prolong.value, theirs.prolong_weight) <= 1e-11
            own = mine.matrix.row == mine.matrix.column
            assert _difference(mine.matrix.value[own], theirs.diagonal) <= 1e-11
            # Entries come by rows here, edges in the order of the mesh there.
            beside = mine.matrix.row < mine.matrix.column
            expected = np.sort(np.asarray(theirs.weight)[: int(beside.sum())])
            assert _difference(np.sort(-mine.matrix.value[beside].numpy()), expected) <= 1e-11


def _answered(theta, plan, graph, weight):
    """Of weight₀ · pressure + weight₁ · loss: the gradient, pressure and loss."""

    def quantity(theta):
        network, transmissibility, sink, source = theta
        operator = darcy_operator(graph, transmissibility, sink)
        pressure = message_passing.MessagePassing(network).solve(operator, source).pressure_tissue
        padded = PaddedCase(plan, transmissibility, sink, source)
        loss = message_passing.residual_loss(network, padded, jax.random.key(0))
        return jnp.vdot(weight[0], pressure) + weight[1] * loss, (pressure, loss)

    return eqx.filter_grad(quantity, has_aux=True)(theta)


@pytest.mark.parametrize("case", ["tet"], indirect=True)
def test_message_passing_has_the_values_and_gradients_of_gnn_darcy(case):
    ours = eqx.filter_jit(_answered, **QUICK)
    operator = case.problem.operator
    given = operator.transmissibility, operator.sink, case.problem.source
    trained = gnn_darcy.load_network(_TRAINED / "message_passing.eqx", "message_passing")
    for network in _networks("message_passing", trained).values():
        torch_network = reference_finite_volume_network(network)
        for of_pressure, of_loss in ((1.0, 0.0), (0.0, 1.0)):
            weight = jnp.asarray(of_pressure * case.weight), jnp.asarray(of_loss)
            slope, (pressure, loss) = ours(
                (network, *given), case.solver.plan, operator.graph, weight
            )
            problem = reference_flux_problem(case.solver, case.problem)
            leaf = [problem.transmissibility, problem.sink, problem.source]
            for tensor in leaf:
                tensor.requires_grad_()
            found = torch_network(problem.edge, *leaf)
            missing = residual_loss(found, problem.edge, *leaf)
            total = of_pressure * torch.tensor(case.weight) @ found + of_loss * missing
            weights = list(torch_network.ordered_parameters())
            gradient = torch.autograd.grad(total, leaf + weights)
            assert _difference(found, pressure) <= 1e-11
            assert _difference(missing, loss) <= 1e-11
            theirs = [*slope[1:], *jax.tree.leaves(slope[0])]
            # The answer is shifted to balance, so that the last bias has no effect.
            size = float(gradient[-2].norm())
            for part in (gradient[-1], theirs[-1]):
                assert abs(float(part[0])) <= 1e-10 * size
            for mine, other in zip(gradient[:-1], theirs[:-1], strict=True):
                assert _difference(mine, other) <= 1e-10


@pytest.mark.parametrize("case", ["tet"], indirect=True)
def test_converters_refuse_what_they_cannot_hold(case):
    problem = case.problem
    fixed = jnp.zeros(problem.source.shape, bool)
    held = DarcyProblem(problem.operator, problem.source, fixed, problem.source)
    with pytest.raises(InputError, match="prescribes pressures"):
        reference_flux_problem(case.solver, held)
    turned = eqx.tree_at(
        lambda s: s.plan.levels[0].edge, case.solver, case.solver.plan.levels[0].edge[:, ::-1]
    )
    with pytest.raises(InputError, match="another mesh"):
        reference_flux_problem(turned, problem)


# --- checkpoints ---

KINDS = {"flux_multigrid": FluxNetwork, "message_passing": FiniteVolumeNetwork}


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_is_read_as_gnn_darcy_reads_it(kind):
    path = _TRAINED / f"{kind}.eqx"
    found = [p.detach() for p in KINDS[kind].load_checkpoint(path).ordered_parameters()]
    expected = jax.tree.leaves(gnn_darcy.load_network(path, kind))
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == torch.float32
        np.testing.assert_array_equal(mine, theirs)


def _file(path, arrays, **header):
    buffer = io.BytesIO()
    for array in arrays:
        np.save(buffer, array, allow_pickle=True)
    told = {"format": 1, "kind": "flux_multigrid", "hidden": 4, "messages": 1}
    told["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    path.write_bytes(json.dumps(told | header).encode() + b"\n" + buffer.getvalue())


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"format": 2}, "of format 2; expected 'flux_multigrid' of format 1"),
        ({"kind": "message_passing"}, "holds 'message_passing'"),
        ({"hidden": 0}, "hidden 0"),
        ({"messages": True}, "messages True"),
        ({"sha256": "0"}, "damaged"),
        ({"hidden": 5}, "the weights have the shapes"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path, header, message):
    arrays = [p.detach().numpy() for p in FluxNetwork(4, 1).ordered_parameters()]
    path = tmp_path / "network.eqx"
    _file(path, arrays)
    FluxNetwork.load_checkpoint(path)
    _file(path, arrays, **header)
    with pytest.raises(ValueError, match=message):
        FluxNetwork.load_checkpoint(path)


def test_checkpoints_execute_nothing(tmp_path):
    _file(tmp_path / "a", [np.array([print], dtype=object)])
    with pytest.raises(ValueError, match="pickle"):
        FluxNetwork.load_checkpoint(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"\x80\x04\n")
    with pytest.raises(ValueError, match="has no header"):
        FluxNetwork.load_checkpoint(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        FluxNetwork.load_checkpoint(tmp_path / "c")


# --- the solver in its own right ---


def _network(kind, *sizes, seed=0):
    made = kind(*sizes).double()
    rng = np.random.default_rng(seed)
    made.copy_weights([0.5 * rng.normal(size=p.shape) for p in made.ordered_parameters()])
    return made


def _ring(n=24, seed=0):
    """A ring with chords, some of them coupled negatively; eight aggregates of three, and four."""
    rng = np.random.default_rng(seed)
    edge = [(i, (i + 1) % n) for i in range(n)] + [(i, (i + 5) % n) for i in range(n)]
    transmissibility = np.concatenate([1.0 + rng.random(n), 0.3 * rng.normal(size=n)])
    place, coarse = torch.arange(n), torch.arange(n // 3)
    return FluxProblem(
        edge=torch.tensor(edge),
        transmissibility=torch.tensor(transmissibility),
        sink=torch.tensor(2.0 + rng.random(n)),
        source=torch.tensor(rng.normal(size=n)),
        aggregations=(
            Aggregation(place // 3, torch.arange(1, n, 3)),
            Aggregation(coarse // 2, torch.arange(0, n // 3, 2)),
        ),
        start=torch.tensor(rng.uniform(-1.0, 1.0, n)),
    )


def _dense(problem):
    matrix = torch.diag(problem.sink)
    for (i, j), lead in zip(problem.edge.tolist(), problem.transmissibility, strict=True):
        along = torch.zeros_like(problem.sink)
        along[i], along[j] = 1.0, -1.0
        matrix = matrix + lead * torch.outer(along, along)
    return matrix


@pytest.mark.parametrize("seed", [0, 1])
def test_the_cycle_is_legal_whatever_the_weights(seed):
    problem, network = _ring(), _network(FluxNetwork, 6, 2, seed=seed)
    with torch.no_grad():
        cycle = flux_cycle(network, problem)
        b = torch.stack([cycle.times(e) for e in torch.eye(24, dtype=torch.float64)], dim=1)
    assert float((b - b.T).abs().max()) <= 1e-14 * float(b.abs().max())
    root = torch.linalg.cholesky(_dense(problem))
    left = 1.0 - torch.linalg.eigvalsh(root.T @ b @ root)
    assert float(left.min()) >= -1e-13 and float(left.max()) < 1.0
    found = solve_flux(network, problem)
    assert 0.8 * float(left.max()) <= float(found.contraction) <= float(left.max()) + 1e-12
    expected = torch.linalg.solve(_dense(problem), problem.source)
    assert _difference(found.pressure_tissue, expected) <= 1e-11
    assert float(found.residual) <= 1e-11


def test_new_networks_say_plain_smoothed_aggregation():
    problem = _ring()
    cycle = flux_cycle(FluxNetwork(4, 1).double(), problem)
    lead = problem.transmissibility.clamp(min=0.0)
    around = torch.zeros(24, dtype=torch.float64)
    for end in (0, 1):
        around.index_add_(0, problem.edge[:, end], lead)
    bound = 1.0 / (problem.sink + 2.0 * around)
    damping = 0.1 + 0.9 / (1.0 + np.exp(-3.0))
    prolong = torch.zeros(24, 8, dtype=torch.float64)
    for (i, j), t in zip(problem.edge.tolist(), lead, strict=True):
        prolong[i, j // 3] += 2.0 / 3.0 * t / around[i]
        prolong[j, i // 3] += 2.0 / 3.0 * t / around[j]
    prolong[torch.arange(24), torch.arange(24) // 3] += 1.0 / 3.0
    level = cycle.levels[0]
    # The cycle is that of the operator over its largest diagonal entry.
    assert _difference(level.smoother / cycle.unit, damping * bound) <= 1e-14
    found = level.prolong
    dense = torch.zeros(24, 8, dtype=torch.float64).index_put((found.row, found.column),
                                                              found.value)  # fmt: skip
    assert _difference(dense, prolong) <= 1e-14


class _Solver(torch.nn.Module):
    """`solve_flux` as a module, so that its weights can be inputs."""

    def __init__(self, network, mode):
        super().__init__()
        self.network, self.mode = network, mode

    def forward(self, problem):
        return solve_flux(
            self.network, problem, mode=self.mode, cycles=3, rtol=1e-15
        ).pressure_tissue


@pytest.mark.parametrize("mode", MODES)
def test_first_and_second_derivatives(mode):
    problem, network = _ring(), _network(FluxNetwork, 3, 1)
    solver, names = _Solver(network, mode), ("transmissibility", "sink", "source")
    weights = dict(solver.named_parameters())
    chosen = [] if mode == "exact" else ["node_encoder.0.weight", "rounds.0.edge_mlp.2.bias"]
    weights = {f"network.{name}": weights[f"network.{name}"] for name in chosen}

    def pressure(*inputs):
        here = dataclasses.replace(problem, **dict(zip(names, inputs[:3], strict=True)))
        given = dict(zip(weights, inputs[3:], strict=True))
        return torch.func.functional_call(solver, given, (here,))

    start = (*(getattr(problem, name) for name in names), *weights.values())
    leaf = tuple(x.detach().clone().requires_grad_() for x in start)
    torch.autograd.gradcheck(pressure, leaf, fast_mode=True)
    torch.autograd.gradgradcheck(pressure, leaf, fast_mode=True)


def test_second_derivatives_of_the_finite_volume_network():
    problem, network = _ring(), _network(FiniteVolumeNetwork, 4, 2)
    leaf = [x.requires_grad_() for x in (problem.transmissibility, problem.sink, problem.source)]

    def loss(*inputs):
        return residual_loss(network(problem.edge, *inputs), problem.edge, *inputs)

    torch.autograd.gradcheck(loss, leaf, fast_mode=True)
    torch.autograd.gradgradcheck(loss, leaf, fast_mode=True)


def test_the_finite_volume_network_is_free_of_units_and_balanced():
    problem, network = _ring(), _network(FiniteVolumeNetwork, 4, 2)
    values = problem.transmissibility, problem.sink, problem.source
    with torch.no_grad():
        found = network(problem.edge, *values)
        other = network(problem.edge, 1e-12 * values[0], 1e-12 * values[1], 1e-9 * values[2])
        assert _difference(other, 1e3 * found) <= 1e-13
        assert abs(float(problem.sink @ found - problem.source.sum())) <= 1e-12
        assert not network(problem.edge, *values[:2], 0.0 * values[2]).any()
        low = network.float()(problem.edge, *(1e-30 * v.float() for v in values))
    assert _difference(low, found) <= 1e-4
    with pytest.raises(ValueError, match="no sink"):
        network(problem.edge, values[0].float(), 0.0 * values[1].float(), values[2].float())


def test_a_network_in_single_precision():
    problem, network = _ring(), _network(FluxNetwork, 6, 2)
    expected = torch.linalg.solve(_dense(problem), problem.source)
    low = network.float()
    assert _difference(solve_flux(low, problem).pressure_tissue, expected) <= 1e-11
    tiny = FluxProblem(
        edge=problem.edge,
        transmissibility=1e-13 * problem.transmissibility.float(),
        sink=1e-13 * problem.sink.float(),
        source=1e-25 * problem.source.float(),
        aggregations=problem.aggregations,
        start=problem.start.float(),
    )
    for mode in MODES:
        found = solve_flux(low, tiny, mode=mode, cycles=12)
        assert found.pressure_tissue.dtype == torch.float32
        assert _difference(1e12 * found.pressure_tissue.double(), expected) <= 1e-4


def test_no_source_has_no_pressure():
    problem, network = _ring(), _network(FluxNetwork, 6, 2)
    still = dataclasses.replace(problem, source=0.0 * problem.source)
    for mode in MODES:
        found = solve_flux(network, still, mode=mode)
        assert not found.pressure_tissue.any()


def _changed(**fields):
    return lambda p: dataclasses.replace(p, **{k: f(getattr(p, k)) for k, f in fields.items()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_changed(sink=lambda x: x[:-1]), "have the shapes"),
        (_changed(source=lambda x: x.float()), "one floating type"),
        (_changed(source=lambda x: x / 0.0), "not finite"),
        (_changed(start=lambda x: 0.0 * x), "start is zero"),
        (_changed(edge=lambda x: x + 1), "expected int64"),
        (_changed(aggregations=lambda x: x[::-1]), "does not fit a level of 24"),
        (
            _changed(
                aggregations=lambda x: (dataclasses.replace(x[0], root=x[0].root.flip(0)), x[1])
            ),
            "root a lies in aggregate a",
        ),
        (_changed(sink=lambda x: 0.0 * x), "has neither a sink"),
    ],
)
def test_problems_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        solve_flux(_network(FluxNetwork, 3, 1), change(_ring()))


def test_what_cannot_be_solved_is_refused():
    problem, network = _ring(), _network(FluxNetwork, 3, 1)
    with pytest.raises((ValueError, jaxtyping.TypeCheckError), match="best"):
        solve_flux(network, problem, mode="best")
    for wrong in ({"cycles": -1}, {"max_steps": 0}):
        with pytest.raises(ValueError, match="expected exact, few or surrogate"):
            solve_flux(network, problem, **wrong)
    with pytest.raises(RuntimeError, match="after 1 steps"):
        solve_flux(network, problem, max_steps=1)
    # Negative couplings beyond what sinks hold: no cycle is definite, and none is used.
    lead = problem.transmissibility.clone()
    lead[24:] = -0.9
    indefinite = dataclasses.replace(problem, transmissibility=lead, sink=0.01 * problem.sink)
    assert float(torch.linalg.eigvalsh(_dense(indefinite))[0]) < 0.0
    for mode in MODES:
        with pytest.raises(ValueError, match="not positive"):
            solve_flux(network, indefinite, mode=mode)
    with pytest.raises(ValueError, match=r"types \['torch.float32', 'torch.float64'\]"):
        FiniteVolumeNetwork(4, 1)(
            problem.edge, problem.transmissibility, problem.sink, problem.source
        )
