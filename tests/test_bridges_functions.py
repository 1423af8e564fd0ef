"""torch modules in JAX and functions of JAX in torch: values, derivatives, refusals, load."""

import copy
import subprocess
import sys
import threading
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxperf import InputError

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from coupled_cases import small_problem  # noqa: E402

from bridges import jax_as_torch, jax_to_torch, torch_as_jax, torch_darcy  # noqa: E402
from jaxperf.coupling import solve_perfusion  # noqa: E402
from jaxperf.darcy import (  # noqa: E402
    ConjugateGradient,
    darcy_operator,
    DarcyProblem,
    solve_darcy,
)

X = np.linspace(-0.4, 0.9, 3)


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(3)
    layers = (torch.nn.Linear(3, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    return torch.nn.Sequential(*layers).double()


def _loss(function, x):
    return jnp.sum(function(x) ** 2)


def _loss_torch(module, x):
    return (module(x) ** 2).sum()


# ---------------------------------------------------------------- torch in JAX


def test_a_module_answers_what_it_does_in_torch(module):
    function = torch_as_jax(module)
    expected = module(torch.tensor(X)).detach().numpy()
    np.testing.assert_array_equal(function(jnp.asarray(X)), expected)
    np.testing.assert_array_equal(jax.jit(function)(jnp.asarray(X)), expected)


def test_gradients_of_inputs_and_parameters_are_torchs(module):
    function, x = torch_as_jax(module), torch.tensor(X, requires_grad=True)
    of_parameters, of_input = eqx.filter_jit(
        lambda f, x: eqx.filter_grad(lambda both: _loss(*both))((f, x))
    )(function, jnp.asarray(X))
    expected = torch.autograd.grad(_loss_torch(module, x), [x, *module.parameters()])
    np.testing.assert_allclose(of_input, expected[0], rtol=1e-13)
    for (name, _), wanted in zip(module.named_parameters(), expected[1:], strict=True):
        np.testing.assert_allclose(of_parameters.parameters[name], wanted, rtol=1e-13)


def test_second_derivatives_are_torchs(module):
    function = torch_as_jax(module)
    found = jax.jacrev(jax.grad(lambda x: _loss(function, x)))(jnp.asarray(X))
    hessian = torch.autograd.functional.hessian
    expected = hessian(lambda x: _loss_torch(module, x), torch.tensor(X))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_vmap_is_a_loop_over_cases(module):
    function = torch_as_jax(module)
    batch = jnp.asarray(np.stack([X, 2.0 * X, -X, X + 1.0]).reshape(2, 2, 3))
    run = lambda f: jax.vmap(jax.vmap(f))(batch)
    gradient = jax.grad(lambda x: _loss(function, x))
    for f in (function, gradient):
        alone = np.stack([[f(x) for x in row] for row in batch])
        np.testing.assert_array_equal(run(f), alone)
        np.testing.assert_array_equal(jax.jit(run, static_argnums=0)(f), alone)


def test_trees_integers_and_booleans_go_through():
    def model(given):
        return {"y": given["x"] * given["k"], "n": given["k"] + 1, "b": (given["x"] > 0,)}

    function = torch_as_jax(model)
    given = {"x": jnp.asarray(X), "k": jnp.arange(3)}
    found = jax.jit(function)(given)
    assert found["b"][0].dtype == bool
    np.testing.assert_array_equal(found["n"], [1, 2, 3])
    slope = jax.grad(lambda x: function({"x": x, "k": given["k"]})["y"].sum())(given["x"])
    np.testing.assert_array_equal(slope, [0.0, 1.0, 2.0])


def test_what_a_model_does_not_depend_on_has_no_gradient():
    function = torch_as_jax(lambda x, y: (x * 2.0, torch.ones(2, dtype=x.dtype)))
    gradient = jax.grad(lambda x, y: sum(jnp.sum(a) for a in function(x, y)), argnums=(0, 1))
    found = gradient(jnp.asarray(X), jnp.asarray(X))
    np.testing.assert_array_equal(found[0], [2.0, 2.0, 2.0])
    np.testing.assert_array_equal(found[1], np.zeros(3))
    fixed = torch_as_jax(lambda x: torch.ones(2, dtype=x.dtype))
    np.testing.assert_array_equal(jax.grad(lambda x: fixed(x).sum())(jnp.asarray(X)), np.zeros(3))


def test_a_model_that_writes_to_its_input_changes_no_jax_array():
    x = jnp.asarray(X)
    function = torch_as_jax(lambda x: x.mul_(3.0))
    np.testing.assert_allclose(jax.jit(function)(x), 3.0 * X)
    np.testing.assert_array_equal(x, X)


def test_a_model_in_place_has_gradients():
    slope = jax.grad(lambda x: torch_as_jax(torch.nn.ReLU(inplace=True))(x).sum())(jnp.asarray(X))
    np.testing.assert_array_equal(slope, (X > 0).astype(float))


class _Times(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

    def forward(self, x):
        time.sleep(1e-4)
        return self.w * x


def test_two_wrappers_of_one_module_are_two():
    """Parameters are replaced for the length of a call, on a copy of each wrapper's own."""
    module = _Times()
    weights, found = (10.0, 20.0), {}
    made = [
        eqx.tree_at(lambda f: f.parameters["w"], torch_as_jax(module), jnp.asarray([w]))
        for w in weights
    ]

    def work(k):
        found[k] = [float(made[k](jnp.ones(1))[0]) for _ in range(40)]

    threads = [threading.Thread(target=work, args=(k,)) for k in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [set(found[k]) for k in (0, 1)] == [{10.0}, {20.0}]
    assert isinstance(module.w, torch.nn.Parameter)
    assert float(module.w.detach()) == 1.0


COMPLEX = {
    "re": (lambda z: (z**2).real.sum(), lambda z: jnp.sum(jnp.real(z**2))),
    "im": (lambda z: (z**2).imag.sum(), lambda z: jnp.sum(jnp.imag(z**2))),
}


@pytest.mark.parametrize("part", COMPLEX)
def test_gradients_by_complex_numbers_are_in_the_conventions_of_either(part):
    """torch's are the conjugates of JAX's."""
    in_torch, in_jax = COMPLEX[part]
    z = np.array([1.0 + 2.0j, -0.5 + 0.3j])
    expected = jax.grad(in_jax)(jnp.asarray(z))
    np.testing.assert_allclose(jax.grad(torch_as_jax(in_torch))(jnp.asarray(z)), expected)
    tensor = torch.tensor(z, requires_grad=True)
    (found,) = torch.autograd.grad(jax_as_torch(in_jax)(tensor), tensor)
    (wanted,) = torch.autograd.grad(in_torch(tensor), tensor)
    np.testing.assert_allclose(found.resolve_conj(), wanted.resolve_conj())
    assert torch.autograd.gradcheck(jax_as_torch(in_jax), (tensor,))
    assert torch.autograd.gradgradcheck(jax_as_torch(in_jax), (tensor,))


@pytest.mark.parametrize(
    "model",
    [
        lambda x: x if bool((x == 0).all()) else x.mean(),
        lambda x: x[x >= 0],
        lambda x: x.int() if bool((x == 0).all()) else x + 0.7,
        lambda x: (x,) if bool((x == 0).all()) else [x],
    ],
    ids=["shape", "selection", "type", "container"],
)
def test_an_answer_that_does_not_follow_from_shapes_is_refused(model):
    with pytest.raises(jax.errors.JaxRuntimeError, match="and on zeros it did with"):
        jax.block_until_ready(jax.jit(torch_as_jax(model))(jnp.asarray([1.0, -2.0, 3.0])))


def test_autocast_changes_nothing():
    function = torch_as_jax(torch.nn.Linear(3, 2))
    x = jnp.asarray(X, jnp.float32)
    with torch.autocast("cpu", torch.bfloat16):
        first = function(x)
    assert first.dtype == jnp.float32
    np.testing.assert_array_equal(first, function(x))


def test_containers_follow_shapes():
    """One function, two shapes, other names: and back to the first."""
    two = lambda x: {"a": x, "b": 2 * x} if x.shape[0] == 2 else {"c": x, "d": 2 * x}
    for function, make in (
        (jax.jit(torch_as_jax(two)), jnp.ones),
        (jax_as_torch(two), torch.ones),
    ):
        assert [sorted(function(make(n))) for n in (2, 3, 2)] == [
            list("ab"),
            list("cd"),
            list("ab"),
        ]


class _Noisy(torch.nn.Module):
    """Dropout by a function, as many modules have it."""

    def forward(self, x):
        return torch.nn.functional.dropout(x, 0.5, training=self.training)


_BATCH = np.stack([X, 2.0 * X])
TRAINING = {
    "dropout": (torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(0.5)), X, "random"),
    "by a function": (_Noisy(), X, "random"),
    "in a recurrent layer": (torch.nn.LSTM(3, 3, 2, dropout=0.5), _BATCH, "random"),
    "random slope": (torch.nn.RReLU(), X, "random"),
    "in attention": (torch.nn.TransformerEncoderLayer(3, 1, 4), _BATCH, "random"),
    "a compiled module": (
        torch.compile(torch.nn.Sequential(torch.nn.Dropout(0.5)), backend="eager"),
        X,
        "random",
    ),
    "batch norm": (torch.nn.BatchNorm1d(3), _BATCH, "its buffer 'running_var'"),
    "instance norm": (
        torch.nn.InstanceNorm1d(2, track_running_stats=True),
        _BATCH[None],
        "its buffer",
    ),
    "spectral norm": (
        torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(3, 3)),
        X,
        "its buffer",
    ),
}


@pytest.mark.parametrize("kind", TRAINING)
def test_a_module_that_trains_is_refused_and_works_in_eval_mode(kind):
    """Value and gradient are two calls: they would see two masks, or two averages."""
    module, x, why = TRAINING[kind]
    module = copy.deepcopy(module).double()
    with pytest.raises(InputError, match=why):
        torch_as_jax(module)(jnp.asarray(x))
    with pytest.raises(InputError, match=why):
        jax.grad(lambda x: jax.tree.leaves(torch_as_jax(module)(x))[0].sum())(jnp.asarray(x))
    function = torch_as_jax(module.eval())
    total = lambda x: jax.tree.leaves(function(x))[0].sum()
    at, step = jnp.asarray(x), 1e-6
    along = jnp.ones_like(at)
    slope = float(jnp.vdot(jax.grad(total)(at), along))
    moved = [float(total(at + sign * step * along)) for sign in (1.0, -1.0)]
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2.0 * step), rtol=1e-6, atol=1e-8)


def test_a_function_that_draws_is_refused():
    own = torch.Generator()
    for draw in (
        lambda x: x + torch.rand(3, dtype=x.dtype),
        lambda x: x[torch.randperm(3)],
        lambda x: x * torch.bernoulli(torch.full_like(x, 0.5), generator=own),
    ):
        with pytest.raises(InputError, match="random"):
            torch_as_jax(draw)(jnp.asarray(X))


class _Differentiates(torch.nn.Module):
    """A network that answers with a derivative of itself, as physics-informed ones do."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(5)
        layers = (torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
        self.net, self.how = torch.nn.Sequential(*layers).double(), how

    def forward(self, x):
        scalar = lambda x: self.net(x).sum()
        if self.how == "autograd":
            x.requires_grad_()
            return torch.autograd.grad(scalar(x), x, create_graph=True)[0]
        if self.how == "grad":
            return torch.func.grad(scalar)(x)
        if self.how == "jvp":
            return torch.func.jvp(scalar, (x,), (torch.ones_like(x),))[1]
        return torch.func.hessian(scalar)(x)


# torch.func loads a part of torch that warns of another one.
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("how", ["autograd", "grad", "jvp", "hessian"])
def test_a_module_may_differentiate_inside(how):
    module = _Differentiates(how)
    function = torch_as_jax(module)
    expected = module(torch.tensor(X)).detach().numpy()
    np.testing.assert_allclose(jax.jit(function)(jnp.asarray(X)), expected, rtol=1e-13)
    total = lambda f, x: jnp.sum(jnp.sin(f(x)))
    x = torch.tensor(X, requires_grad=True)
    leaves = [x, *module.parameters()]
    wanted = torch.autograd.grad(module(x).sin().sum(), leaves, allow_unused=True)
    found = jax.grad(lambda x: total(function, x))(jnp.asarray(X))
    np.testing.assert_allclose(found, wanted[0], rtol=1e-10)
    weights = eqx.filter_grad(total)(function, jnp.asarray(X)).parameters
    for (name, _), value in zip(module.named_parameters(), wanted[1:], strict=True):
        # The last bias has no part in a derivative.
        value = 0.0 if value is None else value
        np.testing.assert_allclose(weights[name], value, rtol=1e-10, atol=1e-14)


def test_a_compiled_module_follows_its_parameters(module):
    function = torch_as_jax(torch.compile(module, backend="eager"))
    plain = torch_as_jax(module)
    x = jnp.asarray(X)
    np.testing.assert_allclose(function(x), plain(x), rtol=1e-14)
    twice = lambda f: eqx.tree_at(
        lambda f: f.parameters, f, {k: 2 * v for k, v in f.parameters.items()}
    )
    np.testing.assert_allclose(twice(function)(x), twice(plain)(x), rtol=1e-14)
    slopes = [jax.grad(lambda x, f=f: _loss(f, x))(x) for f in (function, plain)]
    np.testing.assert_allclose(*slopes, rtol=1e-13)


def test_refusals_of_torch_as_jax(module):
    with pytest.raises(InputError, match="an input is 'text'"):
        torch_as_jax(module)("text")
    with pytest.raises(RuntimeError, match="dtype"):
        torch_as_jax(module)(jnp.ones(3, jnp.float32))
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64 is off"):
        torch_as_jax(lambda x: x.double())(jnp.ones(3))
    with jax.enable_x64(False), pytest.raises(InputError, match="an input is float64"):
        torch_as_jax(lambda x: x)(np.ones(3))
    with pytest.raises(InputError, match="answers with 3"):
        torch_as_jax(lambda x: 3.0)(jnp.ones(3))
    with pytest.raises(InputError, match="answers zeros with an empty tensor"):
        torch_as_jax(lambda x: x[x > 0])(jnp.ones(3))
    with pytest.raises(InputError, match="arrays of numbers or booleans"):
        torch_as_jax(lambda x: x)(jax.random.key(0))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(torch_as_jax(module), (jnp.asarray(X),), (jnp.asarray(X),))


def test_what_a_model_raises_arrives_with_its_text():
    def model(x):
        if x.sum() > 0:
            raise ValueError("the pressure is above the limit")
        return x

    with pytest.raises(jax.errors.JaxRuntimeError, match="the pressure is above the limit"):
        jax.block_until_ready(jax.jit(torch_as_jax(model))(jnp.ones(3)))


# ---------------------------------------------------------------- JAX in torch


def test_a_function_of_jax_passes_gradcheck_twice():
    model = jax_as_torch(lambda s, x, y: jnp.sin(s * x) @ jnp.cos(y), jnp.asarray(2.0))
    x, y = (torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(model, (x, y))
    assert torch.autograd.gradgradcheck(model, (x, y))


def test_a_darcy_solve_passes_gradcheck_twice():
    """The second derivative of an implicit solve is the solve of a solve."""
    problem = small_problem(spacing_mm=5.0)[0]
    graph = problem.tissue.mesh.graph
    n = graph.volume.size

    def pressure(bound, transmissibility, sink, source):
        graph, method = bound
        operator = darcy_operator(graph, transmissibility, sink)
        return solve_darcy(DarcyProblem(operator, source), method).pressure_tissue

    rng = np.random.default_rng(0)
    model = jax_as_torch(pressure, (graph, ConjugateGradient(rtol=1e-14)))
    draw = lambda size: torch.tensor(rng.uniform(0.5, 1.5, size), requires_grad=True)
    arguments = (draw(graph.edge.shape[0]), draw(n), draw(n))
    # fast_mode: one random direction of each argument in place of all entries
    assert torch.autograd.gradcheck(model, arguments, fast_mode=True)
    assert torch.autograd.gradgradcheck(model, arguments, fast_mode=True)


def test_trees_and_integers_of_a_function_of_jax():
    model = jax_as_torch(lambda x: {"u": jnp.sum(x["a"] ** 2), "at": jnp.argmax(x["a"])})
    x = torch.tensor(X, requires_grad=True)
    found = model({"a": x})
    assert int(found["at"]) == 2
    assert not found["at"].requires_grad
    found["u"].backward()
    np.testing.assert_allclose(x.grad, 2.0 * X)


def test_torchs_vmap_becomes_jaxs():
    model = jax_as_torch(lambda x, y: jnp.sum(jnp.tanh(x) * y))
    batch, y = torch.tensor(np.stack([X, 2.0 * X])), torch.tensor(X)
    found = torch.func.vmap(model, in_dims=(0, None))(batch, y)
    np.testing.assert_allclose(found, np.tanh(batch.numpy()) @ X, rtol=1e-14)
    slope = torch.func.vmap(torch.func.grad(model), in_dims=(0, None))(batch, y)
    np.testing.assert_allclose(slope, X / np.cosh(batch.numpy()) ** 2, rtol=1e-13)


def test_results_of_a_function_of_jax_are_the_callers_own():
    """exp keeps its result for the derivative; what torch does to it must not matter."""
    model = jax_as_torch(jnp.exp)
    x = torch.tensor(X, requires_grad=True)
    y = model(x)
    with torch.no_grad():
        y.zero_()
    (slope,) = torch.autograd.grad(y, x, torch.ones(3, dtype=torch.float64))
    np.testing.assert_allclose(slope, np.exp(X))


def test_refusals_of_jax_as_torch():
    with pytest.raises(InputError, match="Expected tensors"):
        jax_as_torch(jnp.sin)(1.0)
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64 is off"):
        jax_as_torch(jnp.sin)(torch.ones(2, dtype=torch.float64))


# ---------------------------------------------------------------- a torch model as a solver


def _jacobi(edge, transmissibility, sink, source):
    """A few damped sweeps: a poor solver, but one of the right limit."""
    i, j = edge.long().T
    n = sink.shape[0]
    around = lambda x: torch.zeros(n, dtype=sink.dtype).index_add(0, i, x).index_add(0, j, x)
    diagonal = sink + around(transmissibility)
    pressure = torch.zeros_like(source)
    for _ in range(8):
        flux = transmissibility * (pressure[i] - pressure[j])
        zero = torch.zeros(n, dtype=sink.dtype)
        balance = source - sink * pressure - zero.index_add(0, i, flux).index_add(0, j, -flux)
        pressure = pressure + 0.7 * balance / diagonal
    return pressure


def test_a_torch_model_solves_perfusion_through_the_outer_iteration():
    problem = small_problem(spacing_mm=5.0)[0]
    expected = solve_perfusion(problem, ConjugateGradient(rtol=1e-12))
    found = solve_perfusion(problem, torch_darcy(_jacobi), max_linear_steps=2000)
    np.testing.assert_allclose(found.mbf, expected.mbf, rtol=1e-6)


def test_solve_darcy_differentiates_through_a_torch_model():
    problem = small_problem(spacing_mm=5.0)[0]
    graph = problem.tissue.mesh.graph
    n = graph.volume.size
    rng = np.random.default_rng(1)
    t, s = (jnp.asarray(rng.uniform(0.5, 1.5, size)) for size in (graph.edge.shape[0], n))
    source, method = jnp.asarray(rng.uniform(0.0, 1.0, n)), torch_darcy(_jacobi)
    total = lambda t: jnp.sum(
        solve_darcy(DarcyProblem(darcy_operator(graph, t, s), source), method).pressure_tissue ** 2
    )
    along = jnp.asarray(rng.uniform(0.5, 1.5, t.size))
    slope, step = float(jnp.vdot(jax.grad(total)(t), along)), 1e-5
    moved = [float(total(t + sign * step * along)) for sign in (1.0, -1.0)]
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2.0 * step), rtol=1e-7)


# ---------------------------------------------------------------- load

_LOAD = """
import resource, sys, threading
import jax, jax.numpy as jnp, torch
from bridges import jax_as_torch, torch_as_jax
jax.config.update("jax_enable_x64", True)
torch.set_num_threads(1)
wrapper, calls = sys.argv[1], int(sys.argv[2])
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6
if wrapper == "torch_as_jax":
    function = torch_as_jax(torch.nn.Linear(200, 200).double())
    x = jnp.ones((4, 200))
    program = jax.jit(jax.vmap(jax.value_and_grad(lambda x: jnp.sum(function(x) ** 2))))
    run = lambda: jax.block_until_ready(program(x))
else:
    function = jax_as_torch(lambda x: jnp.sum(jnp.sin(x) ** 2))
    x = torch.ones((4, 200), dtype=torch.float64, requires_grad=True)
    def run():
        value = torch.func.vmap(function)(x).sum()
        torch.autograd.grad(value, x)
def work(number):
    for _ in range(number):
        run()
def together(number):
    threads = [threading.Thread(target=work, args=(number // 4,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
together(max(calls // 10, 200))
before = resident()
together(calls)
print(resident() - before)
"""


def _grown(wrapper, calls, seconds):
    """Megabytes by which a process grows in so many calls from four threads; a hang runs out.

    Weights kept by every call would be 300 in a thousand, inputs 600 in a hundred thousand.
    """
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, wrapper, str(calls)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.parametrize("wrapper", ["torch_as_jax", "jax_as_torch"])
def test_calls_from_four_threads_end_and_leave_nothing(wrapper):
    assert _grown(wrapper, 1_000, 120) < 64.0


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["torch_as_jax", "jax_as_torch"])
def test_a_hundred_thousand_calls_from_four_threads(wrapper):
    assert _grown(wrapper, 100_000, 900) < 64.0


def test_arrays_of_a_wrapped_call_are_copies():
    """What goes in and out of torch shares no memory with what JAX holds."""
    kept = []
    function = torch_as_jax(lambda x: kept.append(x) or x + 1.0)
    x = jnp.asarray(X)
    y = function(x)
    kept[-1].zero_()
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(y, X + 1.0)
    np.testing.assert_array_equal(jax_to_torch(y), X + 1.0)
