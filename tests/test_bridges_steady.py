"""Steady network flow against the torch reference: values, gradients, cases, refusals."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import random_tree

from jaxperf import (
    Blood,
    build_network,
    ConstantViscosity,
    FlowBoundary,
    Newton,
    OlufsenStiffness,
    PressureBoundary,
    PriesViscosity,
    ResistanceOutlet,
    solve_steady,
    SqrtAreaWall,
    SteadyProblem,
)
from jaxperf.network import (
    CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD,
    FlowWaveform,
    Lesions,
    PressureWaveform,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.vessel import ConstantStiffness, RigidWall, stenosis_coefficients, SvOneDWall

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges import jax_to_torch  # noqa: E402
from bridges._steady_arrays import reference_steady  # noqa: E402
from bridges.reference import _laws as laws, _steady as steady  # noqa: E402

TIGHT = Newton(1e-15)
HELD = 0.4  # of the leaves: which share has a prescribed flow


def small_network(seed, *, n_segments=20, n_loops=0):
    """A random tree with loops, and two lesions, the first over two segments."""
    rng = np.random.default_rng(seed)
    position, segment, radius = random_tree(rng, n_segments)
    while len(segment) < n_segments + n_loops:
        pair = rng.integers(1, n_segments + 1, 2)
        if pair[0] != pair[1]:
            segment = np.concatenate([segment, pair[None]])
    network = build_network(
        position, segment, radius, root=np.array([0]), frame="model", allow_loops=n_loops > 0
    )
    length = np.asarray(network.length)
    lesion = Lesions(
        jnp.array([0.8, 0.6]),
        jnp.array([length[0] + length[3], length[5]]),
        jnp.array([0, 3, 5], jnp.int32),
        jnp.array([0, 0, 1], jnp.int32),
        jnp.array([0.3, 0.7, 1.0]),
    )
    return eqx.tree_at(lambda n: n.lesion, network, lesion)


def plain_boundary(network, rng):
    """Pressure at the root, resistances at some leaves, flows out of the others."""
    leaf = np.asarray(network.terminals)
    fed, drained = np.split(leaf, [int(HELD * len(leaf))])
    return (
        PressureBoundary(jnp.array([0]), jnp.array([12400.0])),
        FlowBoundary(jnp.asarray(fed), jnp.asarray(-rng.uniform(1e-8, 1e-7, len(fed)))),
        ResistanceOutlet(
            jnp.asarray(drained),
            jnp.asarray(rng.uniform(2e9, 2e10, len(drained))),
            jnp.asarray(rng.uniform(1e3, 3e3, len(drained))),
        ),
    )


def cyclic_boundary(network, rng):
    """Waveforms and outlets of several elements, of every kind."""
    leaf = np.asarray(network.terminals)
    at = [jnp.asarray(part) for part in np.array_split(leaf, 4)]
    some = lambda node, low, high: jnp.asarray(rng.uniform(low, high, node.size))
    ohms = lambda node: some(node, 1e9, 1e10)
    farads = lambda node: some(node, 1e-11, 1e-10)
    wave = lambda value: Waveform(jnp.array([0.05, 0.3, 0.6]), value, jnp.array(0.8))
    outflow = -jnp.asarray(rng.uniform(1e-8, 1e-7, (at[0].size, 3)))
    return (
        PressureWaveform(jnp.array([0]), wave(jnp.array([[11e3, 16e3, 12e3]]))),
        FlowWaveform(at[0], wave(outflow)),
        WindkesselOutlet(at[1], ohms(at[1]), ohms(at[1]), farads(at[1]), some(at[1], 1e3, 2e3)),
        CoronaryOutletSvOneD(
            at[2],
            *(ohms(at[2]) for _ in range(3)),
            *(farads(at[2]) for _ in range(2)),
            some(at[2], 1e2, 9e2),
        ),
        CoronaryOutletSvZeroD(
            at[3],
            *(ohms(at[3]) for _ in range(3)),
            *(farads(at[3]) for _ in range(2)),
            some(at[3], 1e2, 9e2),
        ),
    )


CASES = {
    "rigid tree": (0, RigidWall(), ConstantViscosity(3.5e-3), plain_boundary),
    "elastic loops": (
        3,
        SqrtAreaWall(OlufsenStiffness(), 11e3, 200.0),
        PriesViscosity(),
        plain_boundary,
    ),
    "elastic tree, cycle means": (
        0,
        SvOneDWall(ConstantStiffness(9e4)),
        PriesViscosity(0.4),
        cyclic_boundary,
    ),
}


def case(name) -> SteadyProblem:
    n_loops, wall, viscosity, boundary = CASES[name]
    network = small_network(1, n_loops=n_loops)
    return SteadyProblem(
        network,
        boundary(network, np.random.default_rng(7)),
        Blood(viscosity=viscosity, profile_exponent=3.0),
        wall,
    )


def weights(problem):
    rng = np.random.default_rng(2)
    s = problem.network.n_segments
    return [rng.uniform(0.5, 1.5, n) for n in (problem.network.n_nodes, s, 2 * s, 2 * s)]


def functional(fields, weight, array):
    """One number of all that a solution says, neither linear nor symmetric in it."""
    scale = (1e4, 1e-6, 1e4, 1e-6)
    total = 0.0
    for field, w, unit in zip(fields, weight, scale, strict=True):
        value = field.reshape(-1) / unit
        total = total + (array(w) * (value + 0.1 * value**2)).sum()
    return total


def fields_of(solution):
    return solution.pressure_total, solution.flow, solution.pressure_static, solution.area


@eqx.filter_jit
def our_gradient(problem, weight):
    def value(problem):
        fields = fields_of(solve_steady(problem, TIGHT))
        return functional(fields, weight, jnp.asarray), fields

    (_, fields), gradient = eqx.filter_value_and_grad(value, has_aux=True)(problem)
    return fields, gradient


def asking(tree):
    """The dataclass with gradients asked for in every floating-point tensor."""
    changes = {}
    for field in dataclasses.fields(tree):
        value = getattr(tree, field.name)
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            changes[field.name] = value.clone().requires_grad_()
        elif dataclasses.is_dataclass(value):
            changes[field.name] = asking(value)
    return dataclasses.replace(tree, **changes)


def relative_difference(a, b) -> float:
    a, b = np.asarray(a), np.asarray(b)
    return float(np.abs(a - b).max() / np.abs(b).max())


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_agree(name):
    problem = case(name)
    weight = weights(problem)
    fields, gradient = our_gradient(problem, weight)
    reference = asking(reference_steady(problem))
    found = fields_of(steady.solve_steady(reference))
    for ours, theirs in zip(fields, found, strict=True):
        assert relative_difference(theirs.detach(), ours) <= 1e-12
    functional(found, weight, torch.as_tensor).backward()
    pairs = [
        (reference.network.radius, gradient.network.radius),
        (reference.network.length, gradient.network.length),
        (
            reference.network.lesion.diameter_reduction,
            gradient.network.lesion.diameter_reduction,
        ),
        (reference.network.lesion.length, gradient.network.lesion.length),
        (reference.blood.density, gradient.blood.density),
        (reference.blood.profile_exponent, gradient.blood.profile_exponent),
    ]
    for part in ("viscosity", "wall"):
        theirs = reference.blood.viscosity if part == "viscosity" else reference.wall
        ours = gradient.blood.viscosity if part == "viscosity" else gradient.wall
        pairs += tensors_beside(theirs, ours)
    if name != "elastic tree, cycle means":
        held, fed, outlet = gradient.boundary
        boundary = reference.boundary
        pairs += [
            (boundary.pressure, held.pressure),
            (boundary.flow, fed.flow),
            (boundary.resistance, outlet.resistance),
            (boundary.pressure_ref, outlet.pressure_ref),
        ]
    for theirs, ours in pairs:
        assert np.abs(np.asarray(ours)).max() > 0
        assert relative_difference(theirs.grad, ours) <= 1e-9


def tensors_beside(theirs, ours):
    """Pairs of the tensors of a law and the arrays of the same name."""
    pairs = []
    for field in dataclasses.fields(theirs):
        value = getattr(theirs, field.name)
        beside = getattr(ours, field.name)
        pairs += (
            [(value, beside)] if isinstance(value, torch.Tensor) else tensors_beside(value, beside)
        )
    return pairs


def test_a_batch_is_its_cases():
    problem = reference_steady(case("elastic loops"))
    network, wall = problem.network, problem.wall
    change = torch.linspace(0.9, 1.1, 4, dtype=torch.float64)
    batched = dataclasses.replace(
        problem,
        network=dataclasses.replace(
            network, radius=(change[:, None, None] * network.radius).requires_grad_()
        ),
        blood=dataclasses.replace(problem.blood, density=1060.0 * change[:, None]),
        wall=dataclasses.replace(wall, pressure_reference=11e3 * change[:, None, None]),
    )
    together = steady.solve_steady(batched)
    (gradient,) = torch.autograd.grad((together.flow**2).sum() * 1e12, batched.network.radius)
    for k in range(4):
        alone = dataclasses.replace(
            problem,
            network=dataclasses.replace(
                network, radius=(change[k] * network.radius).requires_grad_()
            ),
            blood=dataclasses.replace(problem.blood, density=1060.0 * change[k]),
            wall=dataclasses.replace(wall, pressure_reference=11e3 * change[k]),
        )
        solution = steady.solve_steady(alone)
        for a, b in zip(fields_of(together), fields_of(solution), strict=True):
            assert relative_difference(a[k].detach(), b.detach()) <= 1e-13
        (single,) = torch.autograd.grad((solution.flow**2).sum() * 1e12, alone.network.radius)
        assert relative_difference(gradient[k], single) <= 1e-11


@pytest.mark.parametrize("is_elastic", [False, True])
def test_first_and_second_derivatives_agree_with_differences(is_elastic):
    network = small_network(3, n_segments=6)
    wall = SqrtAreaWall(OlufsenStiffness(), 11e3) if is_elastic else RigidWall()
    boundary = plain_boundary(network, np.random.default_rng(0))
    base = reference_steady(SteadyProblem(network, boundary, wall=wall))

    def flows(radius, reduction, pressure, viscosity):
        """Flow in units of its size, by factors on the parameters."""
        lesion = dataclasses.replace(
            base.network.lesion, diameter_reduction=0.7 * reduction.expand(2)
        )
        scaled = dataclasses.replace(base.network, radius=radius * base.network.radius)
        problem = dataclasses.replace(
            base,
            network=dataclasses.replace(scaled, lesion=lesion),
            boundary=dataclasses.replace(base.boundary, pressure=12400.0 * pressure.expand(1)),
            blood=dataclasses.replace(
                base.blood, viscosity=laws.ConstantViscosity(3.5e-3 * viscosity)
            ),
        )
        solution = steady.solve_steady(problem)
        return solution.flow[:3] * 1e6, solution.pressure_static[0] / 1e4

    one = lambda: torch.ones((), dtype=torch.float64, requires_grad=True)
    point = (torch.ones(6, 1, dtype=torch.float64, requires_grad=True), one(), one(), one())
    assert torch.autograd.gradcheck(flows, point, eps=1e-5, rtol=1e-5, atol=1e-7)
    assert torch.autograd.gradgradcheck(flows, point, eps=1e-5, rtol=1e-4, atol=1e-6)


def test_laws_agree_at_their_seams():
    radius = np.geomspace(2e-6, 3e-3, 60)
    radius = np.append(radius, 3.98e-6)  # near C = 0
    tensor = torch.tensor(radius, requires_grad=True)
    law = PriesViscosity(0.3)
    number = lambda x: torch.tensor(x, dtype=torch.float64)
    theirs = laws.PriesViscosity(number(0.3), number(1.2e-3))(tensor)
    ours, pull = jax.vjp(law, jnp.asarray(radius))
    assert np.abs(theirs.detach().numpy() / np.asarray(ours) - 1).max() <= 1e-12
    theirs.sum().backward()
    (slope,) = pull(jnp.ones_like(ours))
    assert relative_difference(tensor.grad, slope) <= 1e-10
    some = (1.5e-3, 0.65, 0.01, 3.5e-3, 1060.0)
    arrays = [jnp.array([x]) for x in some]
    pair = laws.stenosis_coefficients(*(jax_to_torch(x) for x in arrays))
    for a, b in zip(pair, stenosis_coefficients(*arrays), strict=True):
        assert relative_difference(a, b) <= 1e-13


@pytest.mark.parametrize(
    "wall", [SqrtAreaWall(OlufsenStiffness(), 9e3, 300.0), SvOneDWall(ConstantStiffness(9e4))]
)
def test_walls_agree(wall):
    from bridges._steady_arrays import reference_wall

    pressure, radius = np.linspace(8e3, 2e4, 7), np.linspace(3e-4, 2e-3, 7)
    law = reference_wall(wall)
    assert isinstance(law, laws.ElasticWall)
    area = law.area(torch.tensor(pressure), torch.tensor(radius))
    ours = wall.area(jnp.asarray(pressure), jnp.asarray(radius))
    assert relative_difference(area, ours) <= 1e-14
    back = law.pressure(area, torch.tensor(radius))
    assert relative_difference(back, pressure) <= 1e-12
    density = torch.tensor(1060.0, dtype=torch.float64)
    speed = law.wave_speed(area, torch.tensor(radius), density)
    theirs = wall.wave_speed(ours, jnp.asarray(radius), 1060.0)
    assert relative_difference(speed, theirs) <= 1e-13
    assert law.area(torch.tensor([-1e9, 1e9]), torch.tensor([1e-3, 1e-3])).isnan().any()


def two_segments(**changes):
    node = torch.tensor([[0, 1], [1, 2]])
    network = steady.Network(
        segment_node=changes.pop("segment_node", node),
        radius=changes.pop("radius", torch.full((2, 2), 1e-3)),
        length=changes.pop("length", torch.full((2,), 1e-2)),
        n_nodes=3,
        lesion=changes.pop("lesion", None),
    )
    given = {
        "pressure_node": torch.tensor([0]),
        "pressure": torch.tensor([1e4]),
        "outlet_node": torch.tensor([2]),
        "resistance": torch.tensor([1e10]),
        "pressure_ref": torch.tensor([1e3]),
    } | changes
    number = torch.tensor
    blood = laws.Blood(number(1060.0), laws.ConstantViscosity(number(3.5e-3)), number(2.0))
    return steady.SteadyProblem(network, steady.SteadyBoundary(**given), blood)


def bad_lesion(reduction=0.5, segment=0):
    index = torch.tensor([0])
    return steady.Lesions(
        torch.tensor([reduction]), torch.tensor([1e-2]), index + segment, index, torch.ones(1)
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": torch.full((2, 2), -1e-3)}, "radius is -0.001"),
        ({"radius": torch.full((2,), 1e-3)}, "both ends"),
        ({"length": torch.zeros(2)}, "length is 0.0"),
        ({"length": torch.ones(3)}, "length has shape"),
        ({"segment_node": torch.tensor([[0, 1], [1, 3]])}, "nodes from 0 to 2"),
        ({"resistance": torch.tensor([0.0])}, "resistance is 0.0"),
        ({"resistance": torch.tensor([1.0, 2.0])}, "differ in number"),
        ({"pressure": None}, "differ in number"),
        ({"outlet_node": torch.tensor([0])}, "node 0 is prescribed together"),
        ({"lesion": bad_lesion(1.2)}, "diameter_reduction"),
        ({"lesion": bad_lesion(1.0), "outlet_node": None, "resistance": None,
          "pressure_ref": None}, "around node 1"),
        ({"lesion": bad_lesion(segment=2)}, "segments below 2"),
        ({"segment_node": torch.tensor([[0, 1], [1, 0]]), "outlet_node": None,
          "resistance": None, "pressure_ref": None}, "around node 2"),
    ],
)  # fmt: skip
def test_refusals(change, message):
    with pytest.raises(ValueError, match=message):
        steady.solve_steady(two_segments(**change))


@pytest.mark.parametrize("name", ["rigid tree", "elastic loops"])
def test_an_occlusion_agrees(name):
    problem = case(name)
    outlet = problem.boundary[2]
    into = np.asarray(problem.network.segment_node)[:, 1]
    leaf = int(np.flatnonzero(into == int(outlet.node[0]))[0])
    at = lambda p: (p.network.lesion.diameter_reduction, p.network.lesion.segment)
    where = (jnp.array([0.8, 1.0]), problem.network.lesion.segment.at[-1].set(leaf))
    problem = eqx.tree_at(at, problem, where)
    ours = solve_steady(problem, TIGHT)
    theirs = steady.solve_steady(reference_steady(problem))
    assert abs(float(ours.flow[leaf])) < 1e-12 * float(jnp.max(jnp.abs(ours.flow)))
    for x, y in zip(fields_of(theirs), fields_of(ours), strict=True):
        assert relative_difference(x, y) <= 1e-12


def test_single_precision_stays_single():
    solution = steady.solve_steady(two_segments())
    assert solution.flow.dtype == torch.float32
    # (10 − 1) kPa over 2 · 8µL/(πr⁴) and the outlet
    resistance = 2 * 8 * 3.5e-3 * 1e-2 / (np.pi * 1e-3**4) + 1e10
    assert solution.flow[0].item() == pytest.approx(9e3 / resistance, rel=1e-5)
    assert solution.flow[1].item() == pytest.approx(9e3 / resistance, rel=1e-5)


@pytest.mark.parametrize("is_elastic", [False, True])
def test_a_closed_network_is_at_rest(is_elastic):
    network = small_network(3, n_segments=6)
    wall = SqrtAreaWall(OlufsenStiffness(), 11e3) if is_elastic else RigidWall()
    boundary = (PressureBoundary(jnp.array([0]), jnp.array([12400.0])),)
    solution = steady.solve_steady(reference_steady(SteadyProblem(network, boundary, wall=wall)))
    assert np.abs(solution.flow.numpy()).max() <= 1e-18
    assert solution.pressure_static.numpy() == pytest.approx(12400.0, rel=1e-14)


def test_a_vessel_that_closes_has_no_root():
    problem = two_segments(pressure_ref=torch.tensor([-3e5]))
    wall = laws.SqrtAreaWall(
        laws.ConstantStiffness(torch.tensor(5e3)), torch.tensor(1e4), torch.tensor(0.0)
    )
    narrow = dataclasses.replace(problem.network, length=torch.full((2,), 100.0))
    with pytest.raises(RuntimeError, match="no root"):
        steady.solve_steady(dataclasses.replace(problem, wall=wall, network=narrow))
