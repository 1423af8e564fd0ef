"""Steady network flow: exact solutions, independent references, orders, gradients, results."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data_dir, requires_data
from networks import dense_steady, random_tree, taper_resistance
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from jaxperf import (
    Blood,
    build_network,
    ConstantViscosity,
    declare_lesion,
    FlowBoundary,
    InputError,
    Newton,
    OlufsenStiffness,
    PressureBoundary,
    PriesViscosity,
    ResistanceOutlet,
    RESULTS,
    solve_steady,
    SolveError,
    SqrtAreaWall,
    SteadyProblem,
    UnrolledAdjoint,
    without_lesions,
)
from jaxperf.network import CoronaryOutletSvOneD, CoronaryOutletSvZeroD, undeclared_narrowings
from jaxperf.vessel import ConstantStiffness, SvOneDWall

INLET = 93 * 133.322


def tube(length=0.05, r0=2e-3, r1=1.5e-3, n=1, root=0):
    x = np.linspace(0, length, n + 1)
    position = np.stack([x, 0 * x, 0 * x], axis=1)
    segment = np.stack([np.arange(n), np.arange(1, n + 1)], axis=1)
    return build_network(
        position, segment, np.linspace(r0, r1, n + 1), root=np.array([root]), frame="model"
    )


def at(node, *values):
    return jnp.array(node), *(jnp.array(v, float) for v in values)


def between(pressure_in, pressure_out, n):
    return (PressureBoundary(*at([0, n], [pressure_in, pressure_out])),)


def test_poiseuille_tree_is_exact():
    rng = np.random.default_rng(3)
    position, segment, radius = random_tree(rng, 30)
    network = build_network(position, segment, radius, root=np.array([0]), frame="model")
    leaf = np.asarray(network.terminals)
    outflow = rng.uniform(0.1e-6, 1e-6, len(leaf))
    problem = SteadyProblem(
        network,
        (
            PressureBoundary(*at([0], [INLET])),
            FlowBoundary(jnp.asarray(leaf), jnp.asarray(-outflow)),
        ),
    )
    solution = solve_steady(problem)
    flow = np.zeros(31)
    flow[leaf] = outflow
    for p, c in segment[::-1]:  # children have higher numbers than parents
        flow[p] += flow[c]
    pressure = np.full(31, INLET)
    for p, c in segment:
        length = np.linalg.norm(position[c] - position[p])
        pressure[c] = pressure[p] - taper_resistance(radius[p], radius[c], length) * flow[c]
    assert np.abs(np.asarray(solution.flow) - flow[segment[:, 1]]).max() <= 1e-12 * flow.max()
    assert np.abs(np.asarray(solution.pressure_total) - pressure).max() <= 1e-12 * INLET


@requires_data
def test_svzerod_steady_coronary_closed_form():
    case = json.loads((data_dir() / "svzerod_coronary/steadyFlow_R_coronary.json").read_text())
    by_name = {b["bc_name"]: b["bc_values"] for b in case["boundary_conditions"]}
    vessel = case["vessels"][0]
    resistance = vessel["zero_d_element_values"]["R_poiseuille"] * 1e5  # dyn·s/cm⁵ to Pa·s/m³
    radius, viscosity = 2e-3, 4e-3
    length = resistance * np.pi * radius**4 / (8 * viscosity)
    network = tube(length, radius, radius)
    out = by_name["OUT"]
    outlet = CoronaryOutletSvZeroD(
        jnp.array([1]),
        *(jnp.array([out[k] * 1e5]) for k in ("Ra1", "Ra2", "Rv1")),
        *(jnp.array([out[k] * 1e-5]) for k in ("Ca", "Cc")),
        jnp.array([out["P_v"] * 0.1]),
    )
    problem = SteadyProblem(
        network,
        (FlowBoundary(*at([0], [by_name["INFLOW"]["Q"][0] * 1e-6])), outlet),
        blood=Blood(viscosity=ConstantViscosity(viscosity)),
    )
    pressure = np.asarray(solve_steady(problem).pressure_total) / 0.1
    assert pressure == pytest.approx([2000.0, 1500.0], rel=1e-12)
    results = json.loads(
        (data_dir() / "svzerod_coronary/result_steadyFlow_R_coronary.json").read_text()
    )
    for key, value in zip(("pressure_in", "pressure_out"), pressure, strict=True):
        assert list(results[key].values())[-1] == pytest.approx(value, rel=1e-6)


def test_svoned_outlet_adds_its_reference_pressure():
    common = [jnp.array([1e9])] * 3
    zero = jnp.array([0.0])
    inlet = PressureBoundary(*at([0], [INLET]))
    svoned = CoronaryOutletSvOneD(jnp.array([1]), *common, zero, zero, jnp.array([3000.0]))
    plain = ResistanceOutlet(*at([1], [3e9], [-3000.0]))
    flows = [solve_steady(SteadyProblem(tube(), (inlet, o))).flow for o in (svoned, plain)]
    assert np.allclose(flows[0], flows[1], rtol=1e-14)


@pytest.mark.parametrize("loops", [0, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_lesioned_network_agrees_with_a_dense_newton(loops, seed):
    rng = np.random.default_rng(seed)
    position, segment, radius = random_tree(rng, 20)
    while loops and len(segment) < 20 + loops:
        a, b = rng.integers(1, 21, 2)
        if a != b:
            segment = np.concatenate([segment, [[a, b]]])
    network = build_network(
        position, segment, radius, root=np.array([0]), frame="model", allow_loops=loops > 0
    )
    leaf = np.asarray(network.terminals)
    resistance_out = rng.uniform(2e9, 2e10, len(leaf))
    lesion = network.lesion
    reduction = np.array([0.9, 0.7])
    ends = np.asarray(network.segment_node)
    length = np.asarray(network.length)
    network = eqx.tree_at(
        lambda n: n.lesion,
        network,
        type(lesion)(
            jnp.asarray(reduction),
            jnp.asarray(length[[0, 5]]),
            jnp.array([0, 5]),
            jnp.array([0, 1]),
            jnp.array([1.0, 1.0]),
        ),
    )
    solution = solve_steady(
        SteadyProblem(
            network,
            (
                PressureBoundary(*at([0], [INLET])),
                ResistanceOutlet(
                    jnp.asarray(leaf), jnp.asarray(resistance_out), jnp.full(len(leaf), 2e3)
                ),
            ),
        )
    )
    r0, r1 = np.asarray(network.radius).T
    resistance, quadratic = taper_resistance(r0, r1, length), np.zeros(len(length))
    for e, s in zip((0, 5), reduction, strict=True):
        d0 = r0[e] + r1[e]
        a0 = np.pi * d0**2 / 4
        k_v = lambda s, d0=d0, e=e: (
            32 * (0.83 * length[e] + 1.64 * d0 * (1 - s)) / d0 / (1 - s) ** 4
        )
        resistance[e] += (k_v(s) - k_v(0.0)) * 3.5e-3 / (d0 * a0)
        quadratic[e] = 0.76 * 1060 * (1 / (1 - s) ** 2 - 1) ** 2 / a0**2
    outlets = {int(n): (r, 2e3) for n, r in zip(leaf, resistance_out, strict=True)}
    pressure, flow = dense_steady(21, ends, resistance, quadratic, {0: INLET}, outlets)
    assert int(solution.newton_iterations) <= 8
    assert np.abs(np.asarray(solution.flow) - flow).max() <= 1e-11 * np.abs(flow).max()
    assert np.abs(np.asarray(solution.pressure_total) - pressure).max() <= 1e-11 * INLET


def elastic_reference(length, r0, r1, modulus, reference, pressure_in, pressure_out):
    """Flow through an elastic taper by integrating dP/dx of the same equations with SciPy."""
    alpha, rho, mu = 4 / 3, 1060.0, 3.5e-3

    def area(total, q, x):
        rest = np.pi * (r0 + (r1 - r0) * x / length) ** 2
        law = lambda s: (
            1
            + (total - 0.5 * alpha * rho * (q / (rest * s**2)) ** 2 - reference) / (4 / 3 * modulus)
        )
        stretch = 1.0
        for _ in range(200):  # a contraction where the flow is subsonic
            stretch = law(stretch)
        return rest * stretch**2

    def end(q):
        slope = lambda x, p: [-8 * np.pi * mu * q / area(p[0], q, x) ** 2]
        out = solve_ivp(slope, (0, length), [pressure_in], rtol=1e-10, atol=1e-7)
        return out.y[0, -1] - pressure_out

    return brentq(end, 1e-7, 2e-6, xtol=1e-20, rtol=1e-13)


def test_elastic_taper_converges_at_second_order():
    args = (0.2, 1.2e-3, 0.8e-3, 3e4, 12_000.0, INLET, 70 * 133.322)
    exact = elastic_reference(*args)
    wall = SqrtAreaWall(ConstantStiffness(3e4), 12_000.0)
    errors = []
    for n in (4, 8, 16):
        network = tube(0.2, 1.2e-3, 0.8e-3, n)
        problem = SteadyProblem(network, between(INLET, 70 * 133.322, n), wall=wall)
        flow = np.asarray(solve_steady(problem).flow)
        assert np.ptp(flow) <= 1e-12 * flow[0]
        errors.append(abs(flow[0] / exact - 1))
    order = np.log2(np.array(errors[:-1]) / errors[1:])
    assert order.min() >= 1.9
    assert errors[-1] <= 1e-3


def test_special_cases_are_the_general_case():
    network = declare_lesion(
        tube(0.05, 2e-3, 1.6e-3, 5),
        branch="network",
        start_mm=12,
        end_mm=24,
        diameter_reduction=0.5,
        reference_radius_mm=1.8,
    )
    n = int(network.terminals[0])
    base = SteadyProblem(network, between(INLET, 80 * 133.322, n))
    # a very stiff wall is a rigid one
    stiff = eqx.tree_at(lambda p: p.wall, base, SqrtAreaWall(ConstantStiffness(1e14), 12_000.0))
    assert np.allclose(solve_steady(stiff).flow, solve_steady(base).flow, rtol=1e-9)
    # a lesion of zero reduction is no lesion
    healthy = without_lesions(network)
    bare = eqx.tree_at(lambda m: m.lesion, network, tube().lesion)
    pair = [
        solve_steady(SteadyProblem(m, between(INLET, 80 * 133.322, n))).flow
        for m in (healthy, bare)
    ]
    assert np.allclose(*pair, rtol=1e-14)
    # one tapered segment is the same as its parts
    parts = [
        solve_steady(SteadyProblem(tube(0.05, 2e-3, 1e-3, k), between(INLET, 9e3, k))).flow[0]
        for k in (1, 7)
    ]
    assert float(parts[0]) == pytest.approx(float(parts[1]), rel=1e-12)


@pytest.fixture(scope="module")
def bifurcation():
    position = np.array([[0, 0, 0], [0.02, 0, 0], [0.04, 0.01, 0], [0.04, -0.01, 0]], float)
    network = build_network(
        position,
        np.array([[0, 1], [1, 2], [1, 3]]),
        np.array([2e-3, 1.8e-3, 1.2e-3, 1.4e-3]),
        root=np.array([0]),
        frame="model",
        branch=np.array([0, 1, 2]),
        branch_name=("LM", "LAD", "LCx"),
    )
    return declare_lesion(network, branch="LAD", start_mm=6, end_mm=14, diameter_reduction=0.6)


def bifurcation_problem(network, reduction, wall=None):
    network = eqx.tree_at(
        lambda n: n.lesion.diameter_reduction, network, jnp.reshape(reduction, (1,))
    )
    boundary = (
        PressureBoundary(*at([0], [INLET])),
        ResistanceOutlet(*at([2, 3], [6e9, 5e9], [2e3, 2e3])),
    )
    problem = SteadyProblem(network, boundary)
    return problem if wall is None else eqx.tree_at(lambda p: p.wall, problem, wall)


def ffr_of(network, wall, **options):
    """FFR behind the lesion as a function of its reduction and a factor on every radius."""

    def ffr(theta):
        problem = bifurcation_problem(network, theta[0], wall)
        problem = eqx.tree_at(
            lambda p: p.network.radius, problem, problem.network.radius * theta[1]
        )
        solution = solve_steady(problem, throw=False, **options)
        return solution.pressure_static[1, 1] / INLET

    return ffr


def fourth_order_difference(function, theta, step):
    weights = ((-2, 1), (-1, -8), (1, 8), (2, -1))
    unit = jnp.eye(theta.size)
    return jnp.stack(
        [sum(w * function(theta + m * step * e) for m, w in weights) / (12 * step) for e in unit]
    )


@pytest.mark.parametrize("wall", [None, SqrtAreaWall(OlufsenStiffness(), 12_000.0)])
def test_gradient_of_ffr_has_two_witnesses(bifurcation, wall):
    theta = jnp.array([0.6, 1.0])
    ffr = jax.jit(ffr_of(bifurcation, wall))
    gradient = jax.jit(jax.grad(ffr_of(bifurcation, wall)))(theta)
    assert np.allclose(fourth_order_difference(ffr, theta, 1e-3), gradient, rtol=1e-7)
    if wall is None:  # the elastic case meets its dense witness in the coupled tests
        unrolled = ffr_of(bifurcation, wall, adjoint=UnrolledAdjoint(8))
        assert np.allclose(jax.jit(jax.grad(unrolled))(theta), gradient, rtol=1e-9)


def test_hessian_of_ffr(bifurcation):
    theta = jnp.array([0.6, 1.0])
    gradient = jax.jit(jax.grad(ffr_of(bifurcation, None)))
    hessian = jax.jit(jax.hessian(ffr_of(bifurcation, None)))(theta)
    assert np.allclose(hessian, hessian.T, rtol=1e-9)
    assert np.allclose(fourth_order_difference(gradient, theta, 1e-3), hessian, rtol=1e-6)


def test_severe_lesions_converge_at_hyperemia(bifurcation):
    solve = jax.vmap(lambda s: solve_steady(bifurcation_problem(bifurcation, s), throw=False))
    solution = solve(jnp.array([0.0, 0.4, 0.6, 0.7, 0.8, 0.9, 0.99]))
    assert bool((solution.result == RESULTS.successful).all())
    assert int(solution.newton_iterations.max()) <= 8
    assert bool((jnp.diff(solution.flow[:, 1]) < 0).all())


def test_results_are_named(bifurcation):
    problem = bifurcation_problem(bifurcation, jnp.array(0.6))
    short = solve_steady(problem, max_steps=1, throw=False)
    assert "largest number of steps" in RESULTS[short.result]
    soft = eqx.tree_at(lambda p: p.wall, problem, SqrtAreaWall(ConstantStiffness(2e3), 12_000.0))
    soft = eqx.tree_at(lambda p: p.boundary[0].pressure, soft, jnp.array([8e3]))
    assert "no open lumen" in RESULTS[solve_steady(soft, throw=False).result]
    floating = eqx.tree_at(lambda p: p.boundary, problem, (FlowBoundary(*at([0], [1e-6])),))
    assert "not finite" in RESULTS[solve_steady(floating, throw=False).result]
    with pytest.raises(SolveError, match="largest number of steps"):
        solve_steady(problem, max_steps=1)


def test_export_and_single_precision(bifurcation):
    problem = bifurcation_problem(bifurcation, jnp.array(0.6))
    double = solve_steady(problem)
    single = jax.tree.map(
        lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, problem
    )
    found = solve_steady(single, throw=False)
    assert found.flow.dtype == jnp.float32
    assert bool(found.result == RESULTS.successful)
    assert np.abs(np.asarray(found.flow) / np.asarray(double.flow) - 1).max() <= 1e-5
    arrays, static = eqx.partition(single, eqx.is_array)

    def flow(arrays):
        return solve_steady(eqx.combine(arrays, static), throw=False).flow

    leaves, treedef = jax.tree.flatten(arrays)
    exported = jax.export.export(
        jax.jit(lambda *x: flow(jax.tree.unflatten(treedef, x))), platforms=("cpu", "cuda", "tpu")
    )(*leaves)
    assert "callback" not in exported.mlir_module()
    assert np.allclose(exported.call(*leaves), found.flow, rtol=1e-6)


def test_newton_tolerance_is_respected(bifurcation):
    problem = bifurcation_problem(bifurcation, jnp.array(0.8))
    loose = solve_steady(problem, Newton(tolerance=1e-2))
    tight = solve_steady(problem)
    assert int(loose.newton_iterations) < int(tight.newton_iterations)
    assert float(tight.residual) <= 1e-12


def test_radius_reaches_the_loss_of_the_lesion(bifurcation):
    """Scaling the radii of a network with a lesion is building it from scaled radii."""
    position = np.array([[0, 0, 0], [0.02, 0, 0], [0.04, 0.01, 0], [0.04, -0.01, 0]])

    def rebuilt(scale):
        network = build_network(
            position,
            np.array([[0, 1], [1, 2], [1, 3]]),
            scale * np.array([2e-3, 1.8e-3, 1.2e-3, 1.4e-3]),
            root=np.array([0]),
            frame="model",
            branch=np.array([0, 1, 2]),
            branch_name=("LM", "LAD", "LCx"),
        )
        network = declare_lesion(
            network, branch="LAD", start_mm=6, end_mm=14, diameter_reduction=0.6
        )
        problem = bifurcation_problem(network, jnp.array(0.6))
        return float(solve_steady(problem).pressure_static[1, 1] / INLET)

    theta = jnp.array([0.6, 1.0])
    slope = jax.jit(jax.grad(ffr_of(bifurcation, None)))(theta)[1]
    assert rebuilt(1.1) == pytest.approx(float(ffr_of(bifurcation, None)(theta.at[1].set(1.1))))
    assert (rebuilt(1 + 1e-4) - rebuilt(1 - 1e-4)) / 2e-4 == pytest.approx(float(slope), rel=1e-6)


def test_two_ostia_joined_by_a_collateral():
    position = 1e-2 * np.array(
        [[0, 0, 0], [3, 0, 0], [5, 1, 0], [0, 6, 0], [3, 6, 0], [5, 5, 0], [3, 3, 0]]
    )
    segment = np.array([[0, 1], [1, 2], [3, 4], [4, 5], [1, 6], [6, 4]])
    radius = 1e-3 * np.array([2.0, 1.8, 1.4, 1.9, 1.7, 1.3, 0.5])
    network = build_network(
        position, segment, radius, root=np.array([0, 3]), frame="model", allow_loops=True
    )
    assert sorted(np.asarray(network.terminals)) == [2, 5]
    assert network.topology.cut.shape == (1,)
    solution = solve_steady(
        SteadyProblem(
            network,
            (
                PressureBoundary(*at([0, 3], [INLET, 0.8 * INLET])),
                ResistanceOutlet(*at([2, 5], [6e9, 5e9], [2e3, 2e3])),
            ),
        )
    )
    ends = np.asarray(network.segment_node)
    r0, r1 = np.asarray(network.radius).T
    pressure, flow = dense_steady(
        7,
        ends,
        taper_resistance(r0, r1, np.asarray(network.length)),
        np.zeros(6),
        {0: INLET, 3: 0.8 * INLET},
        {2: (6e9, 2e3), 5: (5e9, 2e3)},
    )
    assert np.abs(np.asarray(solution.flow) - flow).max() <= 1e-12 * np.abs(flow).max()
    assert np.abs(np.asarray(solution.pressure_total) - pressure).max() <= 1e-12 * INLET


def test_pries_viscosity_and_svoned_wall_in_a_network(bifurcation):
    problem = bifurcation_problem(bifurcation, jnp.array(0.0))
    viscosity = PriesViscosity()
    thin = eqx.tree_at(lambda p: p.blood.viscosity, problem, viscosity)
    solution = solve_steady(thin)
    r0, r1 = np.asarray(bifurcation.radius).T
    apparent = np.asarray(viscosity(jnp.asarray(0.5 * (r0 + r1))))
    resistance = taper_resistance(r0, r1, np.asarray(bifurcation.length), apparent)
    _, flow = dense_steady(
        bifurcation.n_nodes,
        np.asarray(bifurcation.segment_node),
        resistance,
        np.zeros(len(r0)),
        {0: INLET},
        {2: (6e9, 2e3), 3: (5e9, 2e3)},
    )
    assert np.abs(np.asarray(solution.flow) - flow).max() <= 1e-12 * flow.max()
    # the reference radius of this law belongs to zero pressure, so the lumen is wider in use
    wide = eqx.tree_at(lambda p: p.wall, problem, SvOneDWall(OlufsenStiffness()))
    found = solve_steady(wide)
    assert (np.asarray(found.area) > np.pi * np.asarray(bifurcation.radius) ** 2).all()
    assert float(found.flow[0]) > float(solve_steady(problem).flow[0])


@pytest.mark.parametrize(
    ("boundary", "message"),
    [
        ((PressureBoundary(*at([99], [INLET])),), "node is 99"),
        ((PressureBoundary(*at([-1], [INLET])),), "node is -1"),
        ((PressureBoundary(*at([0, 0], [INLET, INLET])),), "pressure of node 0"),
        (
            (PressureBoundary(*at([0], [INLET])), FlowBoundary(*at([0], [1e-6]))),
            "pressure of node 0",
        ),
        ((ResistanceOutlet(*at([2], [-1e9], [0.0])),), "resistance is -1"),
        ((ResistanceOutlet(*at([2], [0.0], [0.0])),), "resistance is 0"),
    ],
)
def test_boundary_data_that_would_be_misread_are_refused(bifurcation, boundary, message):
    with pytest.raises(InputError, match=message):
        SteadyProblem(bifurcation, boundary)


def test_boundary_arrays_of_different_lengths_are_refused():
    with pytest.raises((ValueError, TypeError), match=r"one value for each node|Type-check"):
        PressureBoundary(*at([0, 1], [INLET]))


def test_no_derivative_of_a_solve_that_failed(bifurcation):
    def failed(reduction):
        problem = bifurcation_problem(bifurcation, reduction)
        return solve_steady(problem, max_steps=1, throw=False).flow[0]

    assert not np.isfinite(jax.jit(jax.grad(failed))(jnp.array(0.6)))


def test_narrowings_are_found_at_an_ostium_and_over_a_long_way():
    x = np.linspace(0, 0.1, 41)
    for diseased in ((x < 0.004), (x > 0.02) & (x < 0.065)):
        lumen = np.where(diseased, 0.6e-3, 1.5e-3 - 5e-3 * x)
        trunk = np.array([[-0.02, 0, 0]])
        position = np.concatenate([trunk, np.stack([x, 0 * x, 0 * x], axis=1)])
        segment = np.stack([np.arange(41), np.arange(1, 42)], axis=1)
        ends = np.concatenate([[2e-3], lumen])[segment]
        network = build_network(
            position,
            segment,
            ends,
            root=np.array([0]),
            frame="model",
            branch=np.array([0] + [1] * 40),
            branch_name=("LM", "LAD"),
        )
        # the last node of the LM is the first of the LAD
        *shared, found = undeclared_narrowings(network)
        assert found.branch == "LAD" and all(x.branch == "LM" for x in shared)
        assert found.diameter_reduction > 0.45
        assert found.end_mm - found.start_mm == pytest.approx(1e3 * np.ptp(x[diseased]), abs=2.6)
    healthy = build_network(
        position, segment, np.linspace(2e-3, 1e-3, 42), root=np.array([0]), frame="model"
    )
    assert undeclared_narrowings(healthy) == []
