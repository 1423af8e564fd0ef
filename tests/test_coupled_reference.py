"""The coupled solve against the independent SciPy witness, on small cases."""

import numpy as np
import pytest
import scipy_reference as reference
from coupled_cases import (
    at_rest,
    raw_case,
    relative_differences,
    small_problem,
    unregulated,
    with_reduction,
)

from jaxperf.coupling import calibrate, solve_perfusion


@pytest.fixture(scope="module", params=["voxels", "tetrahedra"])
def case(request):
    problem, mesh = small_problem(
        spacing_mm=5.0, scale=0.7, tetrahedra=request.param == "tetrahedra"
    )
    return (
        problem,
        mesh,
        calibrate(problem, mbf_rest_ml_min_g=1.0, hyperemia_factor=3.75, rtol=1e-6),
    )


@pytest.mark.parametrize("reduction", [0.0, 0.7, 0.9])
def test_hyperemia_agrees_with_scipy(case, reduction):
    problem, mesh, found = case
    problem = with_reduction(unregulated(problem, found.hyperemia), reduction)
    other = reference.solve(raw_case(problem, mesh))
    differences = relative_differences(solve_perfusion(problem), other)
    assert max(differences.values()) <= 1e-10, differences


@pytest.mark.parametrize("reduction", [0.0, 0.8])
def test_autoregulated_rest_agrees_with_scipy(case, reduction):
    problem, mesh, found = case
    problem = with_reduction(at_rest(problem, found), reduction)
    other = reference.solve(raw_case(problem, mesh))
    assert other.dilation.max() > 1.5 or reduction == 0.0
    differences = relative_differences(solve_perfusion(problem), other)
    assert max(differences.values()) <= 1e-10, differences


def test_the_published_fixed_point_agrees(case):
    """Outlets R = p_T/q and Darcy in turn, run to 1e-6, end where the monolithic solve does."""
    problem, mesh, found = case
    problem = with_reduction(unregulated(problem, found.hyperemia), 0.6)
    other, changes = reference.fixed_point(raw_case(problem, mesh), tolerance=1e-6)
    assert changes[-1] < 1e-6
    differences = relative_differences(solve_perfusion(problem), other)
    assert max(differences.values()) <= 1e-5, differences


def test_the_witness_solves_what_it_says(case):
    """One column of its Jacobian at a time against differences of its residual."""
    problem, mesh, found = case
    raw = raw_case(with_reduction(at_rest(problem, found), 0.8), mesh)
    assembly = reference._Assembly(raw)
    at = reference.solve(raw)
    undilated = at.terminal_flow / at.dilation
    x = np.concatenate([at.pressure, at.flow, at.tissue, undilated])
    jacobian = assembly(x)[1]
    rng = np.random.default_rng(0)
    direction = rng.standard_normal(x.size) * np.abs(x)
    step = 1e-5
    slope = (assembly(x + step * direction)[0] - assembly(x - step * direction)[0]) / (2 * step)
    assert np.max(np.abs(jacobian @ direction - slope)) <= 1e-6 * np.max(np.abs(slope))
