"""Calibration under transformations, against the one on the host."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import small_problem, small_wall

from jaxperf import calibrate, InputError, PressureBoundary, solve_perfusion
from jaxperf.coupling import Microcirculation, perfused_tissue, PerfusionProblem
from jaxperf.geometry import terminal_regions
from jaxperf.network import build_network, declare_lesion, without_lesions
from jaxperf.units import M3_S_KG_PER_ML_MIN_G

# A radius and the permeability by factors, then the targets.
THETA = np.array([1.0, 1.0, 1.0, 3.5])


@pytest.fixture(scope="module")
def problem():
    """Narrow twigs, so that their pressures differ and the permeability counts."""
    return small_problem(n_terminals=6, scale=0.5, terminal_radius=(3.5e-4, 5e-4))[0]


def found(problem, theta, **options):
    """β_src and β_snk (1/(MPa·s)) and the factor of hyperemia."""
    radius = problem.network.radius.at[1].multiply(theta[0])
    permeability = problem.microcirculation.permeability * theta[1]
    where = lambda p: (p.network.radius, p.microcirculation.permeability)
    problem = eqx.tree_at(where, problem, (radius, permeability))
    bed = calibrate(problem, mbf_rest_ml_min_g=theta[2], mbf_hyperemia_ml_min_g=theta[3], **options)
    rest, factor = bed.rest, jnp.asarray(bed.hyperemia_factor)
    return jnp.stack([rest.beta_source * 1e6, rest.beta_sink * 1e6, factor])


@pytest.fixture(scope="module")
def jacobian(problem):
    """Derivatives in reverse mode, and the values, as a compiled program."""

    def twice(theta):
        value = found(problem, theta)
        return value, value

    return jax.jit(jax.jacrev(twice, has_aux=True))


def test_gradients_agree_with_differences_of_the_host(problem, jacobian):
    derivative, value = map(np.asarray, jacobian(jnp.asarray(THETA)))
    assert np.allclose(value, found(problem, THETA, rtol=1e-13), rtol=1e-10)
    h = 2e-2
    for k, e in enumerate(h * np.eye(4)):
        at = lambda step, e=e: np.asarray(found(problem, THETA + step * e, rtol=1e-13))
        # of sixth order: rounding, divided by the step, allows no small one
        near, middle, far = (at(step) - at(-step) for step in (1, 2, 3))
        difference = (45 * near - 9 * middle + far) / (60 * h)
        assert np.allclose(derivative[:, k], difference, rtol=1e-6, atol=1e-12), k
    # the factor feels all four, β_src all but the target of hyperemia
    assert np.abs(derivative[2]).min() > 1e-4
    assert np.abs(derivative[0, :3]).min() > 1e-5


@pytest.mark.parametrize("targets", [(-1.0, 3.5), (1.0, 0.5), (1.0, 1e3), (1e3, 2e3)])
def test_what_cannot_be_calibrated_is_nan_under_jit(jacobian, targets):
    derivative, value = jacobian(jnp.array([1.0, 1.0, *targets]))
    assert np.isnan(value).all()
    # a derivative that is no structural zero
    assert np.isnan(np.asarray(derivative)[[0, 2], [2, 3]]).all()


def test_vmap_over_targets_is_a_loop(problem):
    targets = jnp.array([0.9, 1.1])
    at = lambda target: found(problem, (1.0, 1.0, target, 3.5), rtol=1e-12)
    assert np.allclose(jax.vmap(at)(targets), [at(float(t)) for t in targets], rtol=1e-10)


def test_a_given_factor_under_jit_is_that_of_the_host(problem):
    bed = lambda target: calibrate(
        problem, mbf_rest_ml_min_g=target, hyperemia_factor=3.0, rtol=1e-12
    )
    host, traced = bed(1.0), eqx.filter_jit(bed)(jnp.array(1.0))
    for a, b in zip(jax.tree.leaves(host)[:-1], jax.tree.leaves(traced)[:-1], strict=True):
        assert np.allclose(a, b, rtol=1e-9)
    assert float(traced.mbf_rest_ml_min_g) == pytest.approx(1.0, rel=1e-10)


def test_the_program_holds_no_callback_even_where_no_argument_is_traced(problem):
    program = jax.make_jaxpr(lambda: found(problem, THETA))()
    assert "while" in str(program) and "callback" not in str(program)


def test_a_solve_of_ones_own_is_refused_under_a_transformation(problem):
    options = {"hyperemia_factor": 3.0, "solve": solve_perfusion}
    beta = lambda t: calibrate(problem, mbf_rest_ml_min_g=t, **options).rest.beta_source
    with pytest.raises(InputError, match="solve is given under a transformation"):
        jax.grad(beta)(1.0)


MMHG = 133.322


def at_pressure(problem, pressure_mmHg):
    where = lambda p: p.boundary[0].pressure
    return eqx.tree_at(where, problem, jnp.array([pressure_mmHg * MMHG]))


def with_bed(problem, bed):
    return eqx.tree_at(lambda p: p.microcirculation, problem, bed)


def mean_mbf(problem):
    tissue = problem.tissue
    flow = np.asarray(solve_perfusion(problem).terminal_flow).sum()
    return flow / float(tissue.density * jnp.sum(tissue.volume)) / M3_S_KG_PER_ML_MIN_G


def test_stress_is_met_at_the_pressure_at_which_it_was_measured(problem):
    stress = (PressureBoundary(problem.network.roots, jnp.array([80.0 * MMHG])),)
    bed = lambda target: calibrate(
        problem, mbf_rest_ml_min_g=1.0, mbf_hyperemia_ml_min_g=target, boundary_hyperemia=stress
    )
    host, traced = bed(3.5), eqx.filter_jit(bed)(jnp.array(3.5))
    for a, b in zip(jax.tree.leaves(host)[:-1], jax.tree.leaves(traced)[:-1], strict=True):
        assert np.allclose(a, b, rtol=1e-8)
    healthy = eqx.tree_at(lambda p: p.network, problem, without_lesions(problem.network))
    assert mean_mbf(with_bed(healthy, host.rest)) == pytest.approx(1.0, rel=1e-8)
    lower = at_pressure(with_bed(healthy, host.hyperemia), 80.0)
    assert mean_mbf(lower) == pytest.approx(3.5, rel=1e-8)
    given = calibrate(
        problem,
        mbf_rest_ml_min_g=1.0,
        hyperemia_factor=host.hyperemia_factor,
        boundary_hyperemia=stress,
    )
    assert given.mbf_hyperemia_ml_min_g == pytest.approx(3.5, rel=1e-8)


@pytest.mark.parametrize("sink_mmHg", [0.0, 6.0])
def test_maximal_flow_is_in_proportion_to_the_pressure_above_the_sink(problem, sink_mmHg):
    """Rigid vessels without lesions lose pressure in proportion to their flow too."""
    where = lambda p: (p.network, p.microcirculation.pressure_sink)
    healthy = eqx.tree_at(
        where, problem, (without_lesions(problem.network), jnp.array(sink_mmHg * MMHG))
    )
    bed = calibrate(healthy, mbf_rest_ml_min_g=1.0, hyperemia_factor=3.75).hyperemia
    flow = {p: mean_mbf(at_pressure(with_bed(healthy, bed), p)) for p in (60.0, 93.0, 120.0)}
    per_mmHg = [q / (p - sink_mmHg) for p, q in flow.items()]
    assert np.allclose(per_mmHg, per_mmHg[1], rtol=1e-9)


def test_a_lesion_before_a_linear_bed_in_closed_form():
    r"""p_ao = (R + a) Q + b Q² at any pressure, with the R found at one.

    The pure law of Young and Tsai gives FFR .681, .634, .604 at 60, 93, 120 mmHg for 60 % of 3 mm
    over 10 mm before 59/150 mmHg min/ml; a vessel's own Poiseuille loss is exact here.
    """
    mu, rho, d0, length, share = 3.5e-3, 1060.0, 3e-3, 10e-3, 0.6
    problem = one_vessel(d0 / 2, length, share)
    a0, narrowing = np.pi * d0**2 / 4, 1.0 / (1.0 - share) ** 2
    viscous = lambda n, s: 32 * (0.83 * length + 1.64 * d0 * (1 - s)) / d0 * n**2
    a = 8 * mu * length / (np.pi * (d0 / 2) ** 4)
    a += (viscous(narrowing, share) - viscous(1.0, 0.0)) * mu / (d0 * a0)
    b = 1.52 * rho * (narrowing - 1.0) ** 2 / (2 * a0**2)
    resistance = 59.0 / 150.0 * MMHG / (1e-6 / 60.0)
    # at the flow of 93 mmHg through the lesion-free vessel and this bed
    mass = float(problem.tissue.density * jnp.sum(problem.tissue.volume))
    free = 93.0 * MMHG / (resistance + 8 * mu * length / (np.pi * (d0 / 2) ** 4))
    stress = free / mass / M3_S_KG_PER_ML_MIN_G
    bed = calibrate(problem, mbf_rest_ml_min_g=stress / 4, mbf_hyperemia_ml_min_g=stress).hyperemia
    for pressure, pure in ((60.0, 0.681), (93.0, 0.634), (120.0, 0.604)):
        found = solve_perfusion(at_pressure(with_bed(problem, bed), pressure))
        above = pressure * MMHG
        flow = (np.sqrt((resistance + a) ** 2 + 4 * b * above) - resistance - a) / (2 * b)
        assert float(found.inflow) == pytest.approx(flow, rel=1e-8)
        ratio = float(found.terminal_pressure[0]) / above
        assert ratio == pytest.approx(resistance * flow / above, rel=1e-8)
        assert ratio == pytest.approx(pure, abs=0.01)


def one_vessel(radius, length, reduction):
    """A straight vessel, all of it a lesion, and the only terminal of a wall."""
    wall = small_wall(5.0, 0.5)
    end = wall.centre[0]
    point = np.stack([end + np.array([0.0, 0.0, length]), end])
    network = build_network(
        point, np.array([[0, 1]]), np.full((1, 2), radius), root=np.array([0]), frame=wall.frame
    )
    network = declare_lesion(
        network,
        branch=network.branch_name[0],
        start_mm=0.0,
        end_mm=length * 1e3,
        diameter_reduction=reduction,
    )
    terminal = np.asarray(network.terminals)
    regions = terminal_regions(wall, point[1:], np.arange(1), np.full(1, 7e-4), 1)
    inlet = PressureBoundary(network.roots, jnp.array([93.0 * MMHG]))
    tissue = perfused_tissue(wall, regions, terminal)
    return PerfusionProblem(network, tissue, (inlet,), Microcirculation(1.74e-6, 8.75e-6))
