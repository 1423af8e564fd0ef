"""Gradients of a blood-flow functional against differences and a dense unrolled Newton solve."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import raw_case, small_problem
from dense_coupled import blood_flow, DenseCase, residual, SHARPNESS, solve, Theta
from jax.flatten_util import ravel_pytree

from jaxperf.coupling import Autoregulation, solve_perfusion
from jaxperf.steady import ImplicitAdjoint, UnrolledAdjoint
from jaxperf.vessel import OlufsenStiffness, RigidWall, SqrtAreaWall

_TARGET = 1.0 * 1e-3 / 60.0  # m³/(s·kg)
_REST, _STRESS = 1.0, 3.75
_PRESSURE_REFERENCE = 12000.0


@pytest.fixture(scope="module")
def base():
    """About 200 control volumes, 8 terminals, a 70 % lesion, and weights of the functional."""
    problem, mesh = small_problem(n_terminals=8, scale=0.35, seed=3)
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.uniform(0.5, 1.5, mesh.n_cells))
    spread = jnp.asarray(1.74e-6 * rng.uniform(0.8, 1.25, mesh.n_cells))
    problem = eqx.tree_at(lambda p: p.microcirculation.beta_source, problem, spread)
    return problem, mesh, weight


@pytest.fixture(scope="module", params=["given dilation", "autoregulation"])
def regulated(request, base):
    problem, mesh, weight = base
    tissue = problem.tissue
    law = None
    if request.param == "autoregulation":
        law = Autoregulation(_TARGET * tissue.density * tissue.terminal_volume, _STRESS)
    dilation = jnp.full_like(problem.microcirculation.dilation, _STRESS)
    return (
        eqx.tree_at(
            lambda p: (p.autoregulation, p.microcirculation.dilation),
            problem,
            (law, dilation),
            is_leaf=lambda x: x is None,
        ),
        mesh,
        weight,
    )


@pytest.fixture(scope="module", params=["rigid", "elastic"])
def case(request, regulated):
    """A problem, its mesh, the weights, θ, and the compiled value and gradient."""
    problem, mesh, weight = regulated
    elastic = SqrtAreaWall(OlufsenStiffness(), _PRESSURE_REFERENCE)
    wall = elastic if request.param == "elastic" else RigidWall()
    problem = eqx.tree_at(lambda p: p.wall, problem, wall)
    value_and_gradient = eqx.filter_jit(jax.value_and_grad(functional))
    run = lambda theta: value_and_gradient(theta, problem, weight)
    return problem, mesh, weight, theta_of(problem), run


def theta_of(problem) -> Theta:
    bed = problem.microcirculation
    return Theta(
        problem.network.radius,
        bed.beta_source,
        bed.permeability,
        problem.boundary[0].pressure[0],
        problem.network.lesion.diameter_reduction[0],
    )


def with_theta(problem, theta: Theta):
    return eqx.tree_at(
        lambda p: (
            p.network.radius,
            p.microcirculation.beta_source,
            p.microcirculation.permeability,
            p.boundary[0].pressure,
            p.network.lesion.diameter_reduction,
        ),
        problem,
        (*theta[:3], theta.pressure[None], theta.reduction[None]),
    )


def weighted(mbf, weight):
    """Dimensionless, and neither linear nor symmetric in the flow field."""
    flow = mbf / _TARGET
    return jnp.vdot(weight, flow + 0.1 * flow**2) / weight.shape[0]


def functional(theta, problem, weight, adjoint=ImplicitAdjoint()):
    solution = solve_perfusion(with_theta(problem, theta), adjoint=adjoint, throw=False)
    return weighted(solution.mbf, weight)


def dense_case(problem, mesh) -> DenseCase:
    raw = raw_case(
        eqx.tree_at(lambda p: p.microcirculation.permeability, problem, jnp.ones(())), mesh
    )
    law = OlufsenStiffness() if problem.wall.is_rigid else problem.wall.stiffness
    target, largest, smallest, sharpness = raw.autoregulation or (raw.dilation, 1.0, 1.0, SHARPNESS)
    assert sharpness == SHARPNESS
    return DenseCase(
        segment=raw.segment,
        length=raw.length,
        node=np.arange(raw.n_nodes),
        lesion_segment=raw.lesion_segment,
        lesion_fraction=raw.lesion_fraction,
        lesion_radius=raw.lesion_radius[0],
        lesion_length=raw.lesion_length[0],
        viscosity=raw.viscosity,
        density=raw.density,
        conduction_per_permeability=raw.conduction.toarray(),
        volume=raw.volume,
        cell=raw.cell,
        terminal=raw.terminal,
        overlap=raw.overlap,
        terminal_node=raw.terminal_node,
        beta_sink=raw.beta_sink,
        tissue_density=problem.tissue.density,
        is_elastic=not problem.wall.is_rigid,
        wall=np.array([law.k1, law.k2, law.k3, _PRESSURE_REFERENCE]),
        is_regulated=raw.autoregulation is not None,
        dilation=raw.dilation,
        target=target,
        largest=largest,
        smallest=smallest,
    )


@pytest.fixture(scope="module")
def unrolled():
    """Value, state and gradient through a dense Newton solve, compiled once for all cases."""

    def value(theta, case, weight):
        x = solve(case, theta, 12)
        return weighted(blood_flow(case, theta, x), weight), x

    return jax.jit(jax.value_and_grad(value, has_aux=True))


def test_gradient_against_the_dense_unrolled_solve(case, unrolled):
    problem, mesh, weight, theta, run = case
    dense = jax.tree.map(jnp.asarray, dense_case(problem, mesh))
    (value, x), gradient = unrolled(theta, dense, weight)
    left = ravel_pytree(residual(dense, theta, x))[0]
    assert float(jnp.max(jnp.abs(left))) < 1e-11
    ours, our_gradient = run(theta)
    assert abs(float(ours / value) - 1) <= 1e-9
    for name, a, b in zip(Theta._fields, our_gradient, gradient, strict=True):
        error = float(jnp.max(jnp.abs(a - b)) / jnp.max(jnp.abs(b)))
        assert error <= 1e-7, f"{name}: {error:.1e}"


def test_gradient_against_differences(case):
    """Fourth order, in a random direction of every argument by itself.

    The step ε^(1/5) balances the truncation h⁴ against the round-off ε/h of the values.
    """
    _, _, _, theta, run = case
    gradient = run(theta)[1]
    rng = np.random.default_rng(1)
    h = float(np.finfo(np.float64).eps ** 0.2)
    for k, name in enumerate(Theta._fields):
        direction = theta[k] * jnp.asarray(rng.uniform(-1.0, 1.0, theta[k].shape))
        value = lambda t, k=k, d=direction: float(
            run(theta._replace(**{Theta._fields[k]: theta[k] + t * d}))[0]
        )
        slope = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
        expected = float(jnp.vdot(gradient[k], direction))
        size = float(jnp.vdot(jnp.abs(gradient[k]), jnp.abs(direction)))
        assert abs(slope - expected) <= 1e-7 * size, name


def test_unrolled_adjoint_agrees(base):
    """The derivative through the library's own Newton steps, not through its implicit rule."""
    problem, _, weight = base
    theta = theta_of(problem)
    through = jax.jit(jax.grad(lambda t: functional(t, problem, weight, UnrolledAdjoint(8))))(theta)
    implicit = jax.jit(jax.grad(lambda t: functional(t, problem, weight)))(theta)
    for name, a, b in zip(Theta._fields, through, implicit, strict=True):
        assert float(jnp.max(jnp.abs(a - b))) <= 1e-7 * float(jnp.max(jnp.abs(b))), name


def test_hessian_vector_product(base):
    """Forward over reverse against differences of gradients: nothing is silently zero."""
    problem, _, weight = base
    theta = theta_of(problem)
    rng = np.random.default_rng(2)
    direction = Theta(*(t * jnp.asarray(rng.uniform(-1.0, 1.0, t.shape)) for t in theta))
    slope = jax.grad(lambda t: functional(t, problem, weight))
    ahead = lambda t: slope(Theta(*(x + t * d for x, d in zip(theta, direction, strict=True))))
    product = jax.jit(lambda: jax.jvp(ahead, (jnp.zeros(()),), (jnp.ones(()),))[1])()
    ahead, h = jax.jit(ahead), 1e-3
    points = {k: ahead(jnp.asarray(k * h)) for k in (-2, -1, 1, 2)}
    for k, name in enumerate(Theta._fields):
        expected = (8 * (points[1][k] - points[-1][k]) - (points[2][k] - points[-2][k])) / (12 * h)
        size = float(jnp.max(jnp.abs(expected)))
        assert size > 0
        assert float(jnp.max(jnp.abs(product[k] - expected))) <= 1e-6 * size, name
