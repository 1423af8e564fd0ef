"""What the coupled solve must obey: symmetry, conservation, targets, physiology, precision."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import (
    at_rest,
    ML_MIN_G,
    small_problem,
    small_tree,
    small_wall,
    unregulated,
    with_reduction,
)
from gradient_cases import base_case, variant

from jaxperf import InputError, RESULTS
from jaxperf.coupling import (
    calibrate,
    Microcirculation,
    perfused_tissue,
    perfusion_system,
    PerfusionProblem,
    PerfusionState,
    solve_perfusion,
)
from jaxperf.darcy import AbstractDarcySolver, ConjugateGradient, DarcyProblem, solve_darcy
from jaxperf.geometry import terminal_regions
from jaxperf.network import PressureBoundary, ResistanceOutlet
from jaxperf.steady import NetworkState, solve_steady, SteadyProblem

REST, STRESS = 1.0, 3.5
LESIONS = (0.0, 0.4, 0.6, 0.7, 0.8, 0.9)


@pytest.fixture(scope="module")
def calibrated():
    """The voxel case of the comparison with SciPy, calibrated to both targets."""
    problem, _ = small_problem(spacing_mm=5.0, scale=0.7)
    return problem, calibrate(problem, mbf_rest_ml_min_g=REST, mbf_hyperemia_ml_min_g=STRESS)


@pytest.fixture(scope="module")
def swept(calibrated):
    """Hyperemia, regulated rest and rest at dilation 1 for every lesion."""
    problem, found = calibrated
    states = (
        unregulated(problem, found.hyperemia),
        at_rest(problem, found),
        unregulated(problem, found.rest),
    )
    return {
        reduction: tuple(solve_perfusion(with_reduction(state, reduction)) for state in states)
        for reduction in LESIONS
    }


@pytest.fixture(scope="module")
def tiny():
    """The dilated case of the gradient tests with its solution."""
    problem = variant(base_case()[0], is_regulated=False, is_elastic=False)
    return problem, solve_perfusion(problem, throw=False)


def below_lesion(problem):
    """Which terminals the vessel with the lesion feeds."""
    segment = np.asarray(problem.network.segment_node)
    parent = dict(segment[:, ::-1].tolist())
    start = int(segment[int(problem.network.lesion.segment[0]), 0])

    def fed(node):
        while node in parent:
            node = parent[node]
            if node == start:
                return True
        return False

    return np.array([fed(int(node)) for node in problem.tissue.terminal_node])


def flow_of(problem, solution, terminals=slice(None)):
    """Mean blood flow of some terminal regions, ml/min/g."""
    tissue = problem.tissue
    mass = float(tissue.density) * np.asarray(tissue.terminal_volume)[terminals].sum()
    return float(np.asarray(solution.terminal_flow)[terminals].sum()) / mass / ML_MIN_G


@pytest.mark.parametrize(
    "is_regulated, is_elastic", [(False, False), (True, False), (False, True), (True, True)]
)
def test_schur_complement_is_symmetric_where_conjugate_gradients_is_used(
    tiny, is_regulated, is_elastic
):
    """The assertion that goes with `symmetric=True`, and that it would be wrong elsewhere."""
    problem = variant(tiny[0], is_regulated=is_regulated, is_elastic=is_elastic)
    system = perfusion_system(problem, ConjugateGradient(), 1000)
    state = PerfusionState(
        NetworkState(tiny[1].pressure_total, tiny[1].flow), tiny[1].pressure_tissue
    )

    @eqx.filter_jit
    def dense(system, state):
        return jax.vmap(system.schur(state)[2])(jnp.eye(state.tissue.size)).T

    matrix = np.asarray(dense(system, state))
    asymmetry = np.linalg.norm(matrix - matrix.T) / np.linalg.norm(matrix)
    assert system.is_symmetric == (not is_regulated and not is_elastic)
    if system.is_symmetric:
        assert asymmetry <= 1e-13
        assert np.linalg.eigvalsh(matrix)[0] > 0
    else:
        assert asymmetry > 1e-9


def test_mass_is_conserved(swept):
    for solutions in swept.values():
        for solution in solutions:
            assert float(solution.mass_balance_relative_error) <= 1e-9
            assert int(solution.newton_iterations) <= 8


def test_calibration_reaches_its_targets(calibrated, swept):
    problem, found = calibrated
    high, rest, bare = swept[0.0]
    assert flow_of(problem, bare) == pytest.approx(REST, rel=1e-8)
    assert flow_of(problem, high) == pytest.approx(STRESS, rel=1e-8)
    # the regulated heart has its flow in every region, not only on average
    assert flow_of(problem, rest) == pytest.approx(REST, rel=1e-2)
    assert np.allclose(rest.terminal_flow, found.autoregulation.flow_target, rtol=1e-2)
    mean_tissue = np.average(bare.pressure_tissue, weights=np.asarray(problem.tissue.volume))
    assert mean_tissue == pytest.approx(15 * 133.322, rel=1e-8)


def test_reserve_falls_with_the_lesion_and_is_exhausted(calibrated, swept):
    problem, found = calibrated
    behind = below_lesion(problem)
    assert 0 < behind.sum() < behind.size
    rest = {r: flow_of(problem, s[1], behind) for r, s in swept.items()}
    stress = {r: flow_of(problem, s[0], behind) for r, s in swept.items()}
    reserve = [stress[r] / rest[r] for r in LESIONS]
    assert np.all(np.diff(reserve) < 0)
    assert rest[0.7] == pytest.approx(rest[0.0], rel=1e-2)
    assert flow_of(problem, swept[0.7][2], behind) < 0.99 * rest[0.0]
    # at 90 % everything behind the lesion is as wide as it gets, and that is not enough
    dilation = np.asarray(swept[0.9][1].dilation)[behind]
    assert np.all(dilation > 0.97 * found.hyperemia_factor)
    assert rest[0.9] < 0.8 * rest[0.0]
    assert reserve[-1] < 1.1


def test_terminal_at_capillary_pressure_is_refused_by_name(calibrated):
    problem, _ = calibrated
    network = problem.network
    twig = int(np.flatnonzero(np.asarray(network.branch) == network.branch_name.index("twig 3"))[0])
    narrow = network.radius.at[twig].set(4e-5)
    problem = eqx.tree_at(lambda p: p.network.radius, problem, narrow)
    with pytest.raises(InputError, match=r"twig 3.*mmHg in the lesion-free heart"):
        calibrate(problem, mbf_rest_ml_min_g=REST, hyperemia_factor=3.75)


@pytest.mark.parametrize(
    "targets",
    [
        {"mbf_rest_ml_min_g": 1.0},
        {"mbf_rest_ml_min_g": 1.0, "mbf_hyperemia_ml_min_g": 3.5, "hyperemia_factor": 3.0},
        {"mbf_rest_ml_min_g": -1.0, "hyperemia_factor": 3.0},
        {"mbf_rest_ml_min_g": 1.0, "mbf_hyperemia_ml_min_g": 0.5},
        {"mbf_rest_ml_min_g": 1.0, "hyperemia_factor": 0.5},
        {"mbf_rest_ml_min_g": 1.0, "hyperemia_factor": 3.0, "pressure_capillary_mmHg": -1.0},
        {"mbf_rest_ml_min_g": 1.0, "hyperemia_factor": 3.0, "pressure_capillary_mmHg": 95.0},
    ],
)
def test_impossible_targets_are_refused(calibrated, targets):
    with pytest.raises(InputError):
        calibrate(calibrated[0], **targets)


def test_out_of_reach_targets_are_refused(calibrated):
    with pytest.raises(InputError, match="out of reach"):
        calibrate(calibrated[0], mbf_rest_ml_min_g=1.0, mbf_hyperemia_ml_min_g=1000.0)


def test_more_terminals_than_control_volumes():
    """No region is empty, the overlaps fill every control volume, and mass is conserved."""
    wall = small_wall(scale=0.35)
    n = wall.n_cells + 40
    network, node = small_tree(wall, n, terminal_radius=(2e-4, 3e-4))
    position = np.asarray(network.node_position)[node]
    regions = terminal_regions(wall, position, np.arange(n), np.full(n, 2e-4), n)
    filled = np.bincount(regions.cell, regions.volume, minlength=wall.n_cells)
    assert np.allclose(filled, wall.volume, rtol=1e-12)
    assert regions.terminal_volume.min() > 0
    problem = PerfusionProblem(
        network,
        perfused_tissue(wall, regions, node),
        (PressureBoundary(network.roots, jnp.array([93 * 133.322])),),
        Microcirculation(1.74e-6, 8.75e-6),
    )
    solution = solve_perfusion(problem)
    assert np.all(np.asarray(solution.terminal_flow) > 0)
    assert float(solution.mass_balance_relative_error) <= 1e-9


class Loose(AbstractDarcySolver):
    """A solver that is no linear map: conjugate gradients stopped at a loose tolerance."""

    inner: ConjugateGradient = eqx.field(static=True, default=ConjugateGradient(rtol=1e-2))

    @property
    def is_linear_symmetric(self):
        return False

    def init(self, operator):
        return self.inner.init(operator)

    def precondition(self, state, residual):
        return self.solve(state, residual).pressure_tissue

    def solve(self, state, source, *, max_steps=None):
        return self.inner.solve(state, source, max_steps=max_steps)


def test_a_nonlinear_darcy_solver_works_through_the_outer_correction(tiny):
    problem, expected = tiny
    solution = solve_perfusion(problem, Loose())
    assert np.allclose(solution.pressure_tissue, expected.pressure_tissue, rtol=1e-10)
    assert np.allclose(solution.terminal_flow, expected.terminal_flow, rtol=1e-9)


def single(tree):
    return jax.tree.map(lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x, tree)


def test_single_precision(tiny):
    """With x64 off, the error against double precision is below 1e-4 of the largest value."""
    problem, expected = tiny
    with jax.enable_x64(False):
        solution = solve_perfusion(single(problem), throw=False)
        assert solution.result == RESULTS.successful
        assert solution.mbf.dtype == solution.pressure_total.dtype == jnp.float32
        fields = {n: np.asarray(getattr(solution, n)) for n in ("pressure_total", "flow", "mbf")}
        assert float(solution.mass_balance_relative_error) <= 1e-4
    for name, value in fields.items():
        exact = np.asarray(getattr(expected, name))
        assert np.max(np.abs(value - exact)) <= 1e-4 * np.max(np.abs(exact)), name


def test_a_batch_of_lesions(tiny):
    """One program for several severities."""
    problem, _ = tiny
    solve = lambda r: solve_perfusion(with_reduction(problem, r), throw=False)
    together = eqx.filter_jit(eqx.filter_vmap(solve))(jnp.array([0.0, 0.7, 0.9]))
    for i, reduction in enumerate((0.0, 0.7, 0.9)):
        alone = solve(reduction)
        assert np.allclose(together.terminal_flow[i], alone.terminal_flow, rtol=1e-9)


def steady_problem(problem):
    outlet = problem.tissue.terminal_node
    ones = jnp.ones(outlet.size, problem.network.length.dtype)
    boundary = (*problem.boundary, ResistanceOutlet(outlet, 1e11 * ones, 2e3 * ones))
    return SteadyProblem(problem.network, boundary)


def darcy_problem(problem):
    system = perfusion_system(problem, ConjugateGradient(), 1000)
    operator = eqx.tree_at(
        lambda o: (o.sink, o.diagonal),
        system.conduction,
        (problem.tissue.volume, system.conduction.diagonal + problem.tissue.volume),
    )
    return DarcyProblem(operator, problem.tissue.volume)


@pytest.mark.parametrize(
    "verb, of_case",
    [
        (solve_perfusion, lambda p: p),
        (solve_steady, steady_problem),
        (solve_darcy, darcy_problem),
    ],
    ids=["perfusion", "steady", "darcy"],
)
def test_lowers_for_every_platform_without_callbacks(tiny, verb, of_case):
    problem = single(of_case(tiny[0]))
    arrays, rest = eqx.partition(problem, eqx.is_array)
    leaves, structure = jax.tree.flatten(arrays)

    def run(*leaves):
        return jax.tree.leaves(
            eqx.filter(
                verb(eqx.combine(jax.tree.unflatten(structure, leaves), rest), throw=False),
                eqx.is_array,
            )
        )

    exported = jax.export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(*leaves)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    called = re.findall(r"custom_call @([\w.]+)", exported.mlir_module())
    assert not [name for name in called if "callback" in name]
