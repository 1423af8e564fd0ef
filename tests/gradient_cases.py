"""A small coupled case whose gradient is known twice: by the library and by the dense solve."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from coupled_cases import raw_case, small_problem
from dense_coupled import blood_flow, DenseCase, PRESSURE, SHARPNESS, solve, Theta

from jaxperf.coupling import Autoregulation, solve_perfusion
from jaxperf.steady import ImplicitAdjoint, Newton
from jaxperf.vessel import OlufsenStiffness, RigidWall, SqrtAreaWall

TARGET = 1.0 * 1e-3 / 60.0  # m³/(s·kg)
STRESS = 3.75
PRESSURE_REFERENCE = 12000.0
TIGHT = Newton(1e-14)


def base_case():
    """About 200 control volumes, 8 terminals, a 70 % lesion, a varying β; weights of the flow."""
    problem, mesh = small_problem(n_terminals=8, scale=0.35, seed=3)
    rng = np.random.default_rng(0)
    weight = jnp.asarray(rng.uniform(0.5, 1.5, mesh.n_cells))
    spread = jnp.asarray(1.74e-6 * rng.uniform(0.8, 1.25, mesh.n_cells))
    problem = eqx.tree_at(lambda p: p.microcirculation.beta_source, problem, spread)
    return problem, mesh, weight


def variant(problem, *, is_regulated: bool, is_elastic: bool):
    """The problem at rest with autoregulation, or dilated; with elastic or rigid walls."""
    tissue, law = problem.tissue, None
    if is_regulated:
        law = Autoregulation(TARGET * tissue.density * tissue.terminal_volume, STRESS)
    wall = SqrtAreaWall(OlufsenStiffness(), PRESSURE_REFERENCE) if is_elastic else RigidWall()
    return eqx.tree_at(
        lambda p: (p.autoregulation, p.microcirculation.dilation, p.wall),
        problem,
        (law, jnp.full_like(problem.microcirculation.dilation, STRESS), wall),
        is_leaf=lambda x: x is None,
    )


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


def weighted(mbf, tissue, weight):
    """Dimensionless, and neither linear nor symmetric in the flow field.

    The permeability acts on the tissue pressure most.
    """
    flow = mbf / TARGET
    return jnp.vdot(weight, flow + 0.1 * flow**2) / weight.shape[0] + jnp.mean(tissue) / 1e3


def functional(theta, problem, weight, adjoint=ImplicitAdjoint()):
    """The weighted blood flow and tissue pressure by the library."""
    solution = solve_perfusion(with_theta(problem, theta), adjoint=adjoint, throw=False)
    return weighted(solution.mbf, solution.pressure_tissue, weight)


@eqx.filter_jit
def gradient_by_all(problem, weight):
    """The functional and the solution, and the gradient with respect to all that problem holds.

    One program for every file of tests that compares gradients of this case.
    """

    def value(problem):
        solution = solve_perfusion(problem, newton=TIGHT, throw=False)
        return weighted(solution.mbf, solution.pressure_tissue, weight), solution

    return eqx.filter_value_and_grad(value, has_aux=True)(problem)


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
        wall=np.array([law.k1, law.k2, law.k3, PRESSURE_REFERENCE]),
        is_regulated=raw.autoregulation is not None,
        dilation=raw.dilation,
        target=target,
        largest=largest,
        smallest=smallest,
    )


def dense_value(theta: Theta, case: DenseCase, weight):
    """The functional through twelve dense Newton steps, and the state reached."""
    x = solve(case, theta, 12)
    return weighted(blood_flow(case, theta, x), PRESSURE * x.tissue, weight), x


def relative_errors(gradient: Theta, reference: Theta) -> dict[str, float]:
    """max|a − b| / max|b| for each argument."""
    return {
        name: float(np.max(np.abs(a - b)) / np.max(np.abs(b)))
        for name, a, b in zip(
            Theta._fields, map(np.asarray, gradient), map(np.asarray, reference), strict=True
        )
    }


def dense_gradient_errors() -> dict[str, float]:
    """Every argument with and without autoregulation, with rigid and elastic walls."""
    base, mesh, weight = base_case()
    dense = jax.jit(jax.grad(dense_value, has_aux=True))
    errors = {}
    for is_regulated in (False, True):
        for is_elastic in (False, True):
            problem = variant(base, is_regulated=is_regulated, is_elastic=is_elastic)
            theta = theta_of(problem)
            case = jax.tree.map(jnp.asarray, dense_case(problem, mesh))
            ours = eqx.filter_jit(jax.grad(functional))(theta, problem, weight)
            found = relative_errors(ours, dense(theta, case, weight)[0])
            label = ("regulated" if is_regulated else "dilated") + (
                ", elastic" if is_elastic else ", rigid"
            )
            errors |= {f"{name}, {label}": value for name, value in found.items()}
    return errors
