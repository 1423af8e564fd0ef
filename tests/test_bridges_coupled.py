"""Coupled perfusion against the torch reference: values, gradients, cases, refusals."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem
from gradient_cases import base_case, gradient_by_all, variant

from jaxperf import InputError

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges import jax_to_torch  # noqa: E402
from bridges._coupled_arrays import reference_perfusion  # noqa: E402
from bridges.reference import _coupled as coupled  # noqa: E402

FIELDS = (
    "pressure_total",
    "flow",
    "pressure_static",
    "terminal_flow",
    "terminal_pressure",
    "dilation",
    "pressure_tissue",
    "mbf",
    "sink_flow",
)


@pytest.fixture(scope="module")
def base():
    """About 200 voxels, 8 terminals, a lesion, and weights of the blood flow."""
    return base_case()


def replaced(problem, **changes):
    """The reference's problem with other tensors, each named by its field."""
    lesion, boundary = {}, {}
    if "diameter_reduction" in changes:
        lesion["diameter_reduction"] = changes.pop("diameter_reduction")
    if "pressure" in changes:
        boundary["pressure"] = changes.pop("pressure")
    network = {"lesion": dataclasses.replace(problem.network.lesion, **lesion)}
    if "radius" in changes:
        network["radius"] = changes.pop("radius")
    return dataclasses.replace(
        problem,
        network=dataclasses.replace(problem.network, **network),
        boundary=dataclasses.replace(problem.boundary, **boundary),
        microcirculation=dataclasses.replace(problem.microcirculation, **changes),
    )


def asked(problem) -> dict:
    """The tensors by which gradients are compared, each asking for one."""
    bed = problem.microcirculation
    tensors = {
        "radius": problem.network.radius,
        "diameter_reduction": problem.network.lesion.diameter_reduction,
        "pressure": problem.boundary.pressure,
        "beta_source": bed.beta_source,
        "beta_sink": bed.beta_sink,
        "permeability": bed.permeability,
        "pressure_sink": bed.pressure_sink,
    }
    return {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}


def ours_by(gradient) -> dict:
    """The same of jaxperf's gradient."""
    bed = gradient.microcirculation
    return {
        "radius": gradient.network.radius,
        "diameter_reduction": gradient.network.lesion.diameter_reduction,
        "pressure": gradient.boundary[0].pressure,
        "beta_source": bed.beta_source,
        "beta_sink": bed.beta_sink,
        "permeability": bed.permeability,
        "pressure_sink": bed.pressure_sink,
    }


def value_of(solution, weight):
    target = 1e-3 / 60.0
    flow = solution.mbf / target
    blood = (weight * (flow + 0.1 * flow**2)).sum(dim=-1) / weight.shape[0]
    return blood + solution.pressure_tissue.mean(dim=-1) / 1e3


def relative_difference(a, b) -> float:
    a, b = np.asarray(a), np.asarray(b)
    return float(np.abs(a - b).max() / np.abs(b).max())


def differences(problem, mesh, weight) -> tuple[dict[str, float], dict[str, float]]:
    """Relative differences of values and of gradients."""
    (_, solution), gradient = gradient_by_all(problem, weight)
    reference = reference_perfusion(problem, mesh)
    tensors = asked(reference)
    found = coupled.solve_perfusion(replaced(reference, **tensors))
    value_of(found, jax_to_torch(weight)).backward()
    values = {
        name: relative_difference(getattr(found, name).detach(), getattr(solution, name))
        for name in FIELDS
    }
    ours = ours_by(gradient)
    gradients = {name: relative_difference(t.grad, ours[name]) for name, t in tensors.items()}
    assert all(float(jnp.max(jnp.abs(g))) > 0 for g in ours.values())
    return values, gradients


@pytest.mark.parametrize(
    ("is_regulated", "is_elastic"),
    [
        (False, False),
        (True, True),
        pytest.param(False, True, marks=pytest.mark.slow),
        pytest.param(True, False, marks=pytest.mark.slow),
    ],
    ids=["dilated-rigid", "regulated-elastic", "dilated-elastic", "regulated-rigid"],
)
def test_values_and_gradients_agree(base, is_regulated, is_elastic):
    problem, mesh, weight = base
    problem = variant(problem, is_regulated=is_regulated, is_elastic=is_elastic)
    values, gradients = differences(problem, mesh, weight)
    assert max(values.values()) <= 1e-9, values
    assert max(gradients.values()) <= 1e-8, gradients


@pytest.mark.slow
def test_values_and_gradients_agree_on_tetrahedra():
    problem, mesh = small_problem(n_terminals=8, scale=0.35, seed=3, tetrahedra=True)
    rng = np.random.default_rng(0)
    mobility = jnp.asarray(2e-9 * rng.uniform(0.5, 2.0, len(mesh.tet)))
    problem = eqx.tree_at(lambda p: p.microcirculation.permeability, problem, mobility)
    weight = jnp.asarray(rng.uniform(0.5, 1.5, mesh.n_cells))
    values, gradients = differences(problem, mesh, weight)
    assert max(values.values()) <= 1e-9, values
    assert max(gradients.values()) <= 1e-8, gradients


def small_reference(*, is_regulated, is_elastic):
    problem, mesh = small_problem(n_terminals=3, scale=0.15, seed=1)
    problem = variant(problem, is_regulated=is_regulated, is_elastic=is_elastic)
    return reference_perfusion(problem, mesh)


@pytest.mark.parametrize("is_regulated", [False, True])
def test_first_and_second_derivatives_agree_with_differences(is_regulated):
    base = small_reference(is_regulated=is_regulated, is_elastic=is_regulated)
    bed, network = base.microcirculation, base.network

    def flows(radius, mobility, source, pressure, reduction):
        """Flows and pressures in units of their size, by factors on the parameters."""
        problem = replaced(
            base,
            radius=radius * network.radius,
            permeability=mobility * bed.permeability,
            beta_source=source * bed.beta_source,
            pressure=pressure * base.boundary.pressure,
            diameter_reduction=reduction * network.lesion.diameter_reduction,
        )
        solution = coupled.solve_perfusion(problem)
        return solution.terminal_flow * 1e6, solution.pressure_tissue[:2] / 1e3

    n_segments = network.segment_node.shape[0]
    shapes = ((n_segments, 1), (), (), (), ())
    point = tuple(torch.ones(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    assert torch.autograd.gradcheck(flows, point, eps=1e-5, rtol=1e-5, atol=1e-7)
    assert torch.autograd.gradgradcheck(flows, point, eps=1e-5, rtol=1e-4, atol=1e-5)


def test_a_batch_is_its_cases():
    base = small_reference(is_regulated=True, is_elastic=True)
    bed, mesh = base.microcirculation, base.tissue.mesh
    change = torch.linspace(0.9, 1.1, 3, dtype=torch.float64)
    mobility = bed.permeability.expand(mesh.n_elements)
    batched = replaced(
        base,
        radius=change[:, None, None] * base.network.radius,
        permeability=change[:, None] * mobility,
        beta_source=change[:, None] * bed.beta_source,
        pressure=change[:, None] * base.boundary.pressure,
    )
    together = coupled.solve_perfusion(batched)
    for k in range(3):
        alone = replaced(
            base,
            radius=change[k] * base.network.radius,
            permeability=change[k] * mobility,
            beta_source=change[k] * bed.beta_source,
            pressure=change[k] * base.boundary.pressure,
        )
        solution = coupled.solve_perfusion(alone)
        for name in FIELDS:
            one = getattr(solution, name)
            assert relative_difference(getattr(together, name)[k], one) <= 1e-11


def with_tissue(problem, **changes):
    return dataclasses.replace(problem, tissue=dataclasses.replace(problem.tissue, **changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: with_tissue(p, cell=p.tissue.cell[:-1]), "shapes"),
        (lambda p: with_tissue(p, terminal_node=p.tissue.terminal_node + 99), "terminal_node is"),
        (lambda p: with_tissue(p, terminal_node=p.tissue.terminal_node * 0), "prescribed pressure"),
        (lambda p: replaced(p, beta_sink=-p.microcirculation.beta_sink), "beta_sink is"),
        (
            lambda p: dataclasses.replace(
                p,
                autoregulation=dataclasses.replace(
                    p.autoregulation, flow_target=0.0 * p.autoregulation.flow_target
                ),
            ),
            "flow_target is",
        ),
        (lambda p: replaced(p, radius=0.0 * p.network.radius), "radius is"),
    ],
)
def test_refusals(change, message):
    problem = small_reference(is_regulated=True, is_elastic=False)
    with pytest.raises(ValueError, match=message):
        coupled.solve_perfusion(change(problem))


def test_another_mesh_is_refused(base):
    problem, _, _ = base
    _, other = small_problem(n_terminals=3, scale=0.15, seed=1)
    with pytest.raises(InputError, match="control volumes"):
        reference_perfusion(problem, other)
