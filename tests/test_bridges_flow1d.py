"""Transient network flow against the torch reference: values, gradients, cases, refusals."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import star, waveform
from helpers import data_dir, requires_data

from jaxperf import InputError
from jaxperf.flow1d import ExternalPressure, flow1d_problem, SavePoints, solve_flow1d
from jaxperf.io import read_svoned
from jaxperf.network import (
    CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD,
    declare_lesion,
    FlowWaveform,
    PerfusedBed,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.vessel import (
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    PriesViscosity,
    SqrtAreaWall,
    SvOneDWall,
)

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges._flow1d_arrays import reference_flow1d, reference_points  # noqa: E402
from bridges.reference import (  # noqa: E402
    _flow1d as flow1d,
    _flow1d_problem as described,
    _laws as laws,
)
from bridges.reference._flow1d_nodes import NodeEquations, solve_nodes  # noqa: E402

VALUE, GRADIENT = 1e-9, 1e-7
PERIOD = 0.15  # s


def beat(t, period=PERIOD):
    return np.sin(np.pi * t / period) ** 2


def bifurcation(cell_time=1e-3, period=PERIOD):
    """A carotid under a flow; a fork with a lesion under a pressure; windkessels."""
    network = star(
        [(0, 1), (2, 3), (3, 4), (3, 5)],
        [(3e-3, 2.9e-3), (2.2e-3, 2e-3), (1.6e-3, 1.5e-3), (1.4e-3, 1.2e-3)],
        [0.06, 0.03, 0.05, 0.04],
        root=(0, 2),
        branch_name=("carotid", "stem", "left", "right"),
    )
    network = declare_lesion(network, branch="left", start_mm=20, end_mm=30, diameter_reduction=0.5)
    wave = lambda low, rise: waveform(lambda t: low + rise * beat(t, period), period, 31)
    outlet = [jnp.array(v) for v in ([2.5e8, 9e8, 1.1e9], [2e9, 6e9, 7e9], [2e-11, 1e-11, 8e-12])]
    boundary = (
        FlowWaveform(jnp.array([0]), wave(2e-6, 8e-6)),
        PressureWaveform(jnp.array([2]), wave(1e4, 4e3)),
        WindkesselOutlet(jnp.array([1, 4, 5]), *outlet, jnp.array([0.0, 200.0, 300.0])),
    )
    wall = SqrtAreaWall(ConstantStiffness(7e4), 9e3)
    return flow1d_problem(network, boundary, Blood(), wall, cell_time=cell_time)


def of_every_kind():
    """Coronary outlets, a resistance, a closed leaf, p_ext, a Voigt wall, vessels of one cell."""
    network = star(
        [(0, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6), (1, 7), (4, 8)],
        [(2.2e-3, 2e-3), (1.9e-3, 1.6e-3), (1.5e-3, 1.4e-3), (1.3e-3, 1.2e-3), (1.1e-3, 1e-3),
         (1e-3, 9e-4), (1.2e-3, 1.1e-3), (7e-4, 6e-4)],
        [0.03, 0.04, 0.03, 0.025, 0.03, 0.03, 0.006, 0.035],
    )  # fmt: skip
    wall = SvOneDWall(OlufsenStiffness())
    im = lambda scale: waveform(lambda t: scale * beat(t), PERIOD, 13)
    one = lambda *values: [jnp.array([v]) for v in values]
    boundary = (
        PressureWaveform(jnp.array([0]), waveform(lambda t: 11e3 + 4e3 * beat(t), PERIOD, 25)),
        CoronaryOutletSvOneD(jnp.array([5]), *one(2e9, 4e9, 3e9, 3e-11, 2e-10, -500.0), im(9e3)),
        CoronaryOutletSvZeroD(jnp.array([6]), *one(3e9, 5e9, 3e9, 2e-11, 2e-10, 900.0), im(7e3)),
        ResistanceOutlet(jnp.array([8]), *one(2e10, 1e3)),
    )
    rng = np.random.default_rng(3)
    knots = np.array([0.02, 0.07, 0.12])
    around = ExternalPressure(
        Waveform(knots, 400.0 * rng.uniform(size=(2, 3)), PERIOD),
        jnp.asarray(rng.uniform(size=(2, 8, 2))),
    )
    return flow1d_problem(
        network,
        boundary,
        Blood(viscosity=PriesViscosity(0.4), profile_exponent=2.5),
        wall,
        cell_time=1e-3,
        pressure_external=around,
        wall_viscosity=jnp.asarray(rng.uniform(0.005, 0.01, 8)),
        junction_pressure="static",
    )


# Where parameters lie, in a problem of jaxperf as in one of the reference.
PLACES = {
    "bifurcation": lambda p: {
        "radius": p.network.radius,
        "length": p.network.length,
        "diameter reduction": p.network.lesion.diameter_reduction,
        "stiffness": p.wall.stiffness.Eh_over_r,
        "pressure at the reference radius": p.wall.pressure_reference,
        "viscosity": p.blood.viscosity.viscosity,
        "density": p.blood.density,
        "profile": p.blood.profile_exponent,
        "inlet flow": p.boundary[0].flow.value,
        "inlet pressure": p.boundary[1].pressure.value,
        "R1": p.boundary[2].resistance_proximal,
        "R2": p.boundary[2].resistance_distal,
        "C": p.boundary[2].compliance,
        "pressure_ref": p.boundary[2].pressure_ref,
    },
    "every kind": lambda p: {
        "radius": p.network.radius,
        "stiffness": p.wall.stiffness.k3,
        "haematocrit": p.blood.viscosity.haematocrit,
        "inlet pressure": p.boundary[0].pressure.value,
        "external pressure": p.pressure_external.waveform.value,
        "share": p.pressure_external.share,
        "wall viscosity": p.wall_viscosity,
        "R1": p.boundary[1].resistance_proximal,
        "Ca": p.boundary[1].compliance_proximal,
        "Ct": p.boundary[1].compliance_distal,
        "R2": p.boundary[2].resistance_middle,
        "R3": p.boundary[2].resistance_distal,
        "intramyocardial pressure": p.boundary[2].pressure_im.value,
        "resistance": p.boundary[3].resistance,
    },
    "left coronary": lambda p: {
        "radius": p.network.radius,
        "stiffness": p.wall.stiffness.k3,
        "viscosity": p.blood.viscosity.viscosity,
        "inlet pressure": p.boundary[0].pressure.value,
        "R1": p.boundary[1].resistance_proximal,
        "R3": p.boundary[1].resistance_distal,
        "Ct": p.boundary[1].compliance_distal,
        "intramyocardial pressure": p.boundary[1].pressure_im.value,
    },
}
FIELDS = {"pressure_static": 1e-4, "flow": 1e6, "area": 1e5}


def changed(value, leaves):
    """A nested dataclass with other tensors in the place of those whose `id` is in `leaves`."""
    if isinstance(value, torch.Tensor):
        return leaves.get(id(value), value)
    if isinstance(value, tuple):
        return tuple(changed(part, leaves) for part in value)
    if dataclasses.is_dataclass(value):
        fields = {
            f.name: changed(getattr(value, f.name), leaves) for f in dataclasses.fields(value)
        }
        return dataclasses.replace(value, **fields)
    return value


def with_leaves(raw, places, leaves):
    """The problem with other tensors at its places."""
    return changed(raw, {id(old): leaves[name] for name, old in places(raw).items()})


def weights(n_saved, n_points):
    rng = np.random.default_rng(2)
    return {
        name: scale * rng.uniform(0.5, 1.5, (n_saved, n_points)) for name, scale in FIELDS.items()
    }


def by_jaxperf(problem, places, points, samples):
    """Series, and the gradient of their weighted sum."""

    def value(parameters, problem, weight):
        where = lambda p: list(places(p).values())
        new = [parameters[name] for name in places(problem)]
        found = solve_flow1d(
            eqx.tree_at(where, problem, new), points=points, samples=samples, throw=False
        )
        return sum(jnp.vdot(w, getattr(found, n)) for n, w in weight.items()), found

    weight = {n: jnp.asarray(w) for n, w in weights(samples, len(points.segment)).items()}
    program = eqx.filter_jit(eqx.filter_value_and_grad(value, has_aux=True))
    (_, found), gradient = program(places(problem), problem, weight)
    assert int(found.failed_at) == samples
    return found, gradient


def by_torch(problem, places, points, samples):
    raw = reference_flow1d(problem)
    leaves = {name: old.clone().requires_grad_() for name, old in places(raw).items()}
    found = flow1d.solve_flow1d(
        with_leaves(raw, places, leaves), reference_points(points), samples=samples
    )
    weight = weights(samples, len(points.segment))
    total = sum((torch.tensor(w) * getattr(found, n)).sum() for n, w in weight.items())
    return found, dict(zip(leaves, torch.autograd.grad(total, list(leaves.values())), strict=True))


def apart(expected, found):
    """Largest difference over the largest entry."""
    expected, found = np.asarray(expected), found.detach().numpy()
    assert expected.shape == found.shape
    assert np.abs(expected).max() > 0
    return np.abs(expected - found).max() / np.abs(expected).max()


def check(problem, places, points, samples):
    """Values and every gradient of jaxperf against the reference's."""
    expected, gradient = by_jaxperf(problem, places, points, samples)
    found, by_reference = by_torch(problem, places, points, samples)
    worst = {name: apart(getattr(expected, name), getattr(found, name)) for name in FIELDS}
    assert max(worst.values()) <= VALUE, worst
    assert found.courant == pytest.approx(float(expected.courant), rel=1e-8)
    assert set(gradient) == set(by_reference)
    worst = {name: apart(gradient[name], by_reference[name]) for name in gradient}
    assert max(worst.values()) <= GRADIENT, worst
    return worst


CASES = {
    "bifurcation": (bifurcation, SavePoints(np.array([0, 2, 3]), np.array([0.5, 0.7, 0.4]))),
    "every kind": (of_every_kind, SavePoints(np.array([0, 2, 4, 7]), np.array([0.0, 0.7, 0.5, 1]))),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name):
    make, points = CASES[name]
    problem = make()
    check(problem, PLACES[name], points, samples=6)
    # Both make the same grid and step, each by itself.
    raw = reference_flow1d(problem)
    again = described.flow1d_problem(
        raw.network,
        raw.boundary,
        raw.blood,
        raw.wall,
        period=raw.period,
        cell_time=1e-3,
        wall_viscosity=raw.wall_viscosity,
    )
    assert np.ceil(again.period / again.time_step * (1 - 1e-9)) == problem.n_steps
    assert raw.grid.n_cells == problem.grid.n_cells
    is_scaled = bool((raw.grid.vessel_inertia > 1).any())
    assert is_scaled == (name == "every kind")


@pytest.mark.slow
def test_a_full_cycle_of_the_bifurcation():
    make, points = CASES["bifurcation"]
    check(make(3e-4), PLACES["bifurcation"], points, samples=50)


@pytest.mark.slow
@requires_data
def test_a_full_cycle_of_the_left_coronary():
    case = read_svoned(
        data_dir() / "left_coronary" / "Left_coronary_inlet_pressure_wave_outlet_coronary.in"
    )
    m = case.material[0]
    problem = flow1d_problem(
        case.network,
        case.boundary,
        Blood(m.density, ConstantViscosity(m.viscosity), m.profile_exponent),
        SvOneDWall(OlufsenStiffness(m.k1, m.k2, m.k3)),
        cell_time=5e-4,
        junction_pressure="static",
        boundary_pressure="static",
    )
    points = SavePoints(np.array([0, 30, 60]), np.array([0.5, 0.7, 0.4]))
    check(problem, PLACES["left coronary"], points, samples=50)


def test_mass_is_conserved():
    raw = reference_flow1d(of_every_kind())
    start = flow1d.initial_state(raw)
    points = reference_points(CASES["every kind"][1])
    end = flow1d.solve_flow1d(raw, points, samples=2, initial=start).state
    length = raw.grid.cell_length(raw.network.length)
    held = [float((state.area * length).sum()) for state in (start, end)]
    left = float(end.passed.sum())
    assert abs(left) > 1e-9 * held[0]
    assert held[1] + left == pytest.approx(held[0], rel=1e-13)


def test_cases_run_at_once():
    raw = reference_flow1d(bifurcation(2e-3))
    points = reference_points(CASES["bifurcation"][1])
    rng = np.random.default_rng(5)
    factor = lambda *shape: torch.tensor(rng.uniform(0.95, 1.05, (3, *shape)))
    inlet, outlet = raw.boundary[0], raw.boundary[2]
    many = {
        "radius": raw.network.radius * factor(4, 2)[..., :1, :1],
        "stiffness": raw.wall.stiffness.Eh_over_r * factor(1, 1),
        "viscosity": raw.blood.viscosity.viscosity * factor(1),
        "density": raw.blood.density * factor(1),
        "inlet": inlet.flow.value * factor(1, 1),
        "R2": outlet.resistance_distal * factor(3),
    }

    def with_values(values):
        old = (
            raw.network.radius,
            raw.wall.stiffness.Eh_over_r,
            raw.blood.viscosity.viscosity,
            raw.blood.density,
            inlet.flow.value,
            outlet.resistance_distal,
        )
        return changed(raw, {id(o): v for o, v in zip(old, values, strict=True)})

    def run(values):
        leaves = [v.clone().requires_grad_() for v in values]
        found = flow1d.solve_flow1d(with_values(leaves), points, samples=2)
        total = found.pressure_static.sum() / 1e4 + found.flow.sum() / 1e-6
        return found.pressure_static.detach(), torch.autograd.grad(total, leaves)

    pressure, gradient = run(list(many.values()))
    assert pressure.shape == (3, 2, 3)
    for i in range(3):
        one, slope = run([v[i] for v in many.values()])
        assert torch.allclose(pressure[i], one, rtol=1e-12)
        for together, alone in zip(gradient, slope, strict=True):
            assert torch.allclose(together[i], alone, rtol=1e-9, atol=0)


def node_of_three(flow, prescribed, seed=0):
    """A node with a lesion, in units of order one: 10 kPa, 1 ml/s, 10 mm²."""
    rng = np.random.default_rng(seed)
    number = lambda *shape: torch.tensor(rng.uniform(0.9, 1.1, shape))
    sign = torch.tensor([[1.0], [-1.0], [-1.0]], dtype=torch.float64)
    return NodeEquations(
        pressure=number(3, 1),
        flow=flow,
        area=number(3, 1),
        flow_slope=-sign * number(3, 1),
        area_slope=0.3 * number(3, 1),
        viscous=0.05 * number(3, 1),
        linear=0.1 * number(3, 1),
        quadratic=0.05 * number(3, 1),
        head=0.02 * number(1),
        source=0.2 * number(1),
        conductance=0.1 * number(1),
        prescribed=number(1),
        sign=sign,
        is_prescribed=torch.tensor([prescribed]),
    )


@pytest.mark.parametrize("prescribed", [False, True])
def test_derivatives_of_a_node(prescribed):
    """First and second, in all that it depends on."""
    flow = torch.tensor([[2.0], [0.7], [-0.4]], dtype=torch.float64)
    node = node_of_three(flow, prescribed)
    names = [f.name for f in dataclasses.fields(node) if f.name not in ("sign", "is_prescribed")]
    values = [getattr(node, name).requires_grad_() for name in names]

    def pressures(*values):
        return solve_nodes(dataclasses.replace(node, **dict(zip(names, values, strict=True))))

    assert torch.autograd.gradcheck(pressures, values, rtol=1e-5)
    assert torch.autograd.gradgradcheck(pressures, values, rtol=1e-5)


def test_second_derivatives_of_a_run():
    """Against differences of gradients."""
    raw = reference_flow1d(bifurcation(2e-3, period=0.02))
    points = reference_points(CASES["bifurcation"][1])
    start = flow1d.initial_state(raw)

    def quantity(theta):
        outlet = raw.boundary[2]
        new = {
            id(raw.network.radius): raw.network.radius * (1 + theta[0]),
            id(raw.wall.stiffness.Eh_over_r): raw.wall.stiffness.Eh_over_r * (1 + theta[1]),
            id(outlet.resistance_proximal): outlet.resistance_proximal * (1 + theta[2]),
        }
        found = flow1d.solve_flow1d(changed(raw, new), points, samples=2, initial=start)
        return (found.flow[-1].square().sum() + 1e-6 * found.flow[0].sum()) * 1e12

    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(quantity(theta), theta, create_graph=True)
    hessian = torch.stack([torch.autograd.grad(g, theta, retain_graph=True)[0] for g in gradient])

    def slope(at):
        at = at.requires_grad_()
        return torch.autograd.grad(quantity(at), at)[0]

    unit = torch.eye(3, dtype=torch.float64)
    central = lambda e, h: (slope(h * e) - slope(-h * e)) / (2 * h)
    differences = torch.stack([(4 * central(e, 1e-7) - central(e, 2e-7)) / 3 for e in unit])
    scale = differences.abs().max()
    assert scale > 1e-2
    assert (hessian - differences).abs().max() <= 1e-5 * scale
    assert (hessian - hessian.T).abs().max() <= 1e-9 * scale


def test_constants_are_waveforms_of_one_knot():
    """A pressure that never changes leaves the steady state where it is."""
    problem = bifurcation(2e-3)
    inlet = PressureBoundary(jnp.array([2]), jnp.array([11e3]))
    constant = FlowWaveform(jnp.array([0]), Waveform(np.array([0.0]), np.array([[4e-6]]), PERIOD))
    network = problem.network
    problem = flow1d_problem(
        network,
        (constant, inlet, problem.boundary[2]),
        problem.blood,
        problem.wall,
        cell_time=2e-3,
    )
    raw = reference_flow1d(problem)
    points = reference_points(CASES["bifurcation"][1])
    found = flow1d.solve_flow1d(raw, points, samples=2)
    # The grid is coarse, and the steady solver knows no cells: it stays near, and settles.
    assert found.flow[:, 0] == pytest.approx(4e-6, rel=1e-3)
    assert (found.flow[1] - found.flow[0]).abs().max() <= 1e-3 * found.flow.abs().max()


def test_refusals():
    problem = bifurcation(2e-3)
    raw = reference_flow1d(problem)
    points = reference_points(CASES["bifurcation"][1])
    remade = lambda **new: described.flow1d_problem(
        **{
            **{name: getattr(raw, name) for name in ("network", "boundary", "blood", "wall")},
            "period": PERIOD,
            **new,
        }
    )
    outlet = raw.boundary[2]
    off = dataclasses.replace(outlet, node=outlet.node + 90)
    empty = dataclasses.replace(outlet, compliance=0.0 * outlet.compliance)
    twice = dataclasses.replace(raw.boundary[0], node=raw.boundary[1].node)
    for new, text in (
        ({"wall": laws.RigidWall()}, "rigid"),
        ({"cfl": 2.0}, "cfl"),
        ({"cell_time": 0.0}, "cell_time"),
        ({"boundary": ()}, "no boundary"),
        ({"junction_pressure": "statik"}, "statik"),
        ({"boundary": (*raw.boundary[:2], off)}, "not one of 0 to"),
        ({"boundary": (*raw.boundary[:2], empty)}, "compliance has an entry"),
        ({"boundary": (*raw.boundary, twice)}, "prescribed pressure"),
        ({"period": 0.01}, "knots"),
        ({"wall_viscosity": torch.tensor([1.0])}, "wall viscosity"),
    ):
        with pytest.raises(ValueError, match=text):
            remade(**new)
    astray = flow1d.SavePoints(torch.tensor([17]), torch.tensor([0.5]))
    with pytest.raises(ValueError, match="not on the network"):
        flow1d.solve_flow1d(raw, astray)
    with pytest.raises(ValueError, match="at least one"):
        flow1d.solve_flow1d(raw, points, samples=0)
    start = flow1d.initial_state(raw)
    short = dataclasses.replace(start, first=start.first[:1])
    with pytest.raises(ValueError, match="sizes"):
        flow1d.solve_flow1d(raw, points, initial=short)
    node = jnp.array([4])
    bed = PerfusedBed(node, *(jnp.array([1e9]) for _ in range(4)), jnp.eye(1), jnp.zeros(1))
    with pytest.raises(InputError, match="perfused bed"):
        reference_flow1d(eqx.tree_at(lambda p: p.boundary, problem, (bed,)))


def test_faults_are_named():
    raw = reference_flow1d(bifurcation(2e-3))
    points = reference_points(CASES["bifurcation"][1])
    start = flow1d.initial_state(raw)
    fast = dataclasses.replace(start, flow=40.0 * start.flow)
    closed = dataclasses.replace(start, area=-start.area)
    unknown = dataclasses.replace(start, flow=start.flow * torch.nan)
    compartment = dataclasses.replace(start, first=start.first * torch.nan)
    for initial, text in (
        (fast, "faster than its waves"),
        (closed, "closed, in vessel 0"),
        (unknown, "not finite, in vessel"),
        (compartment, "of an outlet is not finite"),
    ):
        with pytest.raises(RuntimeError, match=text):
            flow1d.solve_flow1d(raw, points, initial=initial)
    long = dataclasses.replace(raw, time_step=4.0 * raw.time_step)
    with pytest.raises(RuntimeError, match="too long"):
        flow1d.solve_flow1d(long, points, samples=2)
