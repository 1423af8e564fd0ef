"""The error that a Darcy solution states, beside that against a direct solve of the raw arrays."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as spla
from scipy.spatial import KDTree

from jaxperf import cut_solution, pad_problem, RESULTS, SolveError
from jaxperf.darcy import (
    build_darcy_graph,
    ConjugateGradient,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    Multigrid,
    solve_darcy,
)
from jaxperf.darcy._bound import _dot, _Scaled
from jaxperf.darcy._hierarchy import build_hierarchy
from jaxperf.geometry import kuhn_tetrahedra

# Two clouds of points, each joined to its neighbours, and a point that hangs on nothing.
_SIZES, _NEIGHBOURS = (260, 40), 5


def _cloud():
    rng = np.random.default_rng(0)
    point = [rng.uniform(0.0, 1.0, (n, 3)) + 3.0 * k for k, n in enumerate(_SIZES)]
    start, pairs = 0, []
    for cloud in point:
        near = KDTree(cloud).query(cloud, _NEIGHBOURS + 1)[1]
        of = np.repeat(np.arange(len(cloud)), _NEIGHBOURS)
        pairs.append(start + np.sort(np.stack([of, near[:, 1:].ravel()], axis=1), axis=1))
        start += len(cloud)
    edge = np.unique(np.concatenate(pairs), axis=0)
    return np.concatenate([*point, [[9.0, 9.0, 9.0]]]), edge


POINT, EDGE = _cloud()
GRAPH = build_darcy_graph(EDGE, np.ones(len(POINT)))
# Set up for another K than any of those that are solved.
UNIFORM = build_hierarchy(GRAPH, np.ones(len(EDGE)))
METHODS = {"jacobi": ConjugateGradient(1e-8), "other K": Multigrid(UNIFORM, 1e-8)}
HARD = ("unequal", "walls", "neumann")


def _coefficients(kind, contrast):
    """Transmissibilities, sinks and a source in m³/s: of tissue, whose squares leave float32."""
    rng = np.random.default_rng(7)
    k = contrast ** rng.uniform(-0.5, 0.5, len(POINT))
    i, j = EDGE.T
    t, sink = 2.0 * k[i] * k[j] / (k[i] + k[j]), np.full(len(POINT), 0.02)
    inside = np.linalg.norm(POINT - 0.5, axis=1) < 0.35
    if kind == "scar":
        sink[inside] = 0.0
    elif kind == "unequal":
        sink *= 10.0 ** rng.uniform(-4.0, 1.0, len(sink))
    elif kind == "walls":
        t, sink = np.where(inside[i] != inside[j], t / 1e8, t), np.where(inside, 0.0, sink)
    elif kind == "neumann":
        sink = np.zeros(len(POINT))
        sink[[0, _SIZES[0], -1]] = 1e-7
    source = (0.02 + sink) * (1.0 + np.tanh(9.0 * (POINT[:, 0] - 0.5)))
    unit = 1e-13
    return unit * t, unit * sink, 1e3 * unit * source


class _Direct:
    """SciPy's direct solve, refined by residuals in extended precision."""

    def __init__(self, edge, transmissibility, sink):
        self.edge = np.asarray(edge)
        self.t, self.s = (np.asarray(x, np.longdouble) for x in (transmissibility, sink))
        n, ends = len(self.s), np.concatenate([self.edge, self.edge[:, ::-1]]).T
        t = np.asarray(self.t, float)
        off = sp.csr_array((np.tile(-t, 2), tuple(ends)), shape=(n, n))
        matrix = off + sp.diags_array(np.asarray(self.s, float) - off.sum(axis=1))
        self.factor = spla.splu(matrix.tocsc())

    def residual(self, pressure, source):
        i, j = self.edge.T
        flux = self.t * (pressure[i] - pressure[j])
        out = np.asarray(source, np.longdouble) - self.s * pressure
        np.subtract.at(out, i, flux)
        np.add.at(out, j, flux)
        return out

    def energy(self, pressure):
        i, j = self.edge.T
        square = np.sum(self.t * (pressure[i] - pressure[j]) ** 2) + np.sum(self.s * pressure**2)
        return float(np.sqrt(square))

    def relative_error(self, pressure, source):
        exact = np.zeros(len(self.s), np.longdouble)
        for _ in range(12):
            exact = exact + self.factor.solve(np.asarray(self.residual(exact, source), float))
        return self.energy(np.asarray(pressure, np.longdouble) - exact) / self.energy(exact)


def _problem(t, sink, source, dtype=jnp.float64):
    t, sink, source = (jnp.asarray(x, dtype) for x in (t, sink, source))
    graph = jax.tree.map(lambda x: x.astype(dtype) if eqx.is_inexact_array(x) else x, GRAPH)
    return DarcyProblem(darcy_operator(graph, t, sink), source)


def _true(problem, found):
    """The error against the direct solve of the problem's own raw arrays."""
    operator = problem.operator
    direct = _Direct(operator.graph.edge, operator.transmissibility, operator.sink)
    return direct.relative_error(np.asarray(found.pressure_tissue), problem.source)


def _holds(problem, found, most):
    true, bound = _true(problem, found), float(found.error_estimate)
    assert bool(found.is_bound)
    assert true <= bound <= most * true, (true, bound)
    asked = found.result == RESULTS.successful
    assert asked == (bound <= float(found.tolerance))
    return asked


_SLOW = pytest.mark.slow


@pytest.mark.parametrize("method", ["jacobi", pytest.param("other K", marks=_SLOW)])
@pytest.mark.parametrize("contrast", [1.0, 1e3, 1e6, 1e8])
@pytest.mark.parametrize("kind", ["plain", "scar", "unequal", "walls", "neumann"])
def test_the_bound_bounds_the_error(kind, contrast, method):
    problem = _problem(*_coefficients(kind, contrast))
    found = solve_darcy(problem, METHODS[method], throw=False)
    ordinary = contrast <= 1e3 and kind not in HARD
    asked = _holds(problem, found, 3.0 if ordinary else 20.0)
    assert asked or kind == "neumann"


@pytest.mark.parametrize("kind", ["plain", "scar", "walls"])
@pytest.mark.parametrize("contrast", [1.0, 1e6])
def test_rounding_counts_in_single_precision(kind, contrast):
    problem = _problem(*_coefficients(kind, contrast), jnp.float32)
    found = solve_darcy(problem, ConjugateGradient(), throw=False)
    if kind == "walls":
        # Sinks far below the rounding of the diagonal: nothing that single precision could solve.
        assert found.result in (RESULTS.inaccurate, RESULTS.not_positive_definite)
        return
    assert _holds(problem, found, 20.0) or contrast > 1.0


def test_a_pressure_is_mended_where_its_error_is_larger_than_asked_for():
    """The residual of a high contrast says little: the error was 50 times the tolerance."""
    problem = _problem(*_coefficients("walls", 1e3))
    rough = ConjugateGradient(1e-3)
    found = solve_darcy(problem, rough)
    assert _true(problem, found) <= 1e-3 and _holds(problem, found, 20.0)


def test_what_cannot_be_reached_ends_as_inaccurate_with_both_numbers():
    problem = _problem(*_coefficients("plain", 1.0), jnp.float32)
    method = ConjugateGradient(1e-7)
    found = solve_darcy(problem, method, throw=False)
    assert found.result == RESULTS.inaccurate and bool(jnp.isfinite(found.pressure_tissue).all())
    assert _true(problem, found) <= float(found.error_estimate)
    with pytest.raises(SolveError, match=r"may be larger .* is bounded by .*; `rtol` is 1e-07"):
        solve_darcy(problem, method)
    # Under a transformation it is NaN, as every failed solve.
    value = jax.jit(lambda p: solve_darcy(p, method).pressure_tissue)(problem)
    assert bool(jnp.isnan(value).all())


def test_padding_batches_and_repetition_change_nothing():
    method = METHODS["jacobi"]
    problem = _problem(*_coefficients("scar", 1e3))
    alone = solve_darcy(problem, method)
    padded = pad_problem(problem)
    rubbish = jnp.where(jnp.arange(padded.source.shape[0]) < len(POINT), padded.source, jnp.nan)
    padded = eqx.tree_at(lambda p: p.source, padded, rubbish)
    apart = cut_solution(solve_darcy(padded, method), problem)
    # Sums of another length are rounded differently, which hundreds of iterations amplify.
    np.testing.assert_allclose(apart.error_estimate, alone.error_estimate, rtol=0.3)
    assert _holds(problem, apart, 3.0)
    again = solve_darcy(problem, method)
    assert float(again.error_estimate) == float(alone.error_estimate)
    both = jax.vmap(lambda f: solve_darcy(DarcyProblem(problem.operator, f), method))(
        jnp.stack([problem.source, -3.0 * problem.source])
    )
    np.testing.assert_allclose(both.error_estimate, alone.error_estimate, rtol=0.3)
    still = solve_darcy(DarcyProblem(problem.operator, 0.0 * problem.source), method)
    assert float(still.error_estimate) == 0.0 and still.result == RESULTS.successful


def test_negative_transmissibilities_have_an_estimate():
    mesh = kuhn_tetrahedra(4)
    prepared = darcy_mesh(mesh)
    tensor = np.eye(3) + 9.0 * np.full((3, 3), 1.0 / 3.0) * np.outer([1, -1, 1], [1, -1, 1])
    t = prepared.transmissibility(jnp.broadcast_to(tensor, (prepared.n_elements, 3, 3)))
    assert float(t.min()) < 0.0
    sink = jnp.asarray(10.0 * mesh.volume)
    problem = DarcyProblem(darcy_operator(prepared.graph, t, sink), sink * mesh.point[:, 0])
    found = solve_darcy(problem, METHODS["jacobi"])
    assert not bool(found.is_bound)
    true = _true(problem, found)
    assert true / 3.0 <= float(found.error_estimate) <= 3.0 * true


def test_a_source_that_one_step_solves_has_a_bound():
    """What is sought for the bound has nothing to do with the source."""
    n = 40
    graph = build_darcy_graph(np.stack([np.arange(n - 1), np.arange(1, n)], axis=1), np.ones(n))
    sink = np.zeros(n)
    sink[[0, -1]] = 1.0
    wave = np.sin(np.pi * np.arange(1, n + 1) / (n + 1))
    problem = DarcyProblem(
        darcy_operator(graph, jnp.ones(n - 1), jnp.asarray(sink)), jnp.asarray(wave)
    )
    found = solve_darcy(problem)
    assert int(found.iterations) <= 3 and bool(found.is_bound)
    assert float(found.error_estimate) <= 1e-12


def test_fixed_pressures_are_inside_the_bound():
    """Control volumes of prescribed pressure leave the system: their edges become sinks."""
    t, _, _ = _coefficients("plain", 1e3)
    none = np.zeros(len(POINT))
    problem = _problem(t, none, none)
    fixed = jnp.asarray((POINT[:, 0] < 0.2) | (POINT[:, 0] > 3.8))
    known = jnp.where(fixed, 100.0 + jnp.asarray(POINT[:, 1]), 0.0)
    held = DarcyProblem(problem.operator, problem.source, fixed, known)
    found = solve_darcy(held, METHODS["jacobi"])
    exact = np.where(fixed, known, 0.0)
    free = np.flatnonzero(~np.asarray(fixed))
    direct = _Direct(EDGE, t, none + 1e-30)
    matrix = sp.csr_array(
        (np.tile(-t, 2), tuple(np.concatenate([EDGE, EDGE[:, ::-1]]).T)), shape=(len(POINT),) * 2
    )
    matrix = (matrix - sp.diags_array(matrix.sum(axis=1))).tocsc()
    exact[free] = spla.spsolve(matrix[free][:, free], -(matrix @ exact)[free])
    apart = direct.energy(np.asarray(found.pressure_tissue - exact, np.longdouble))
    # The norm of the solution counts what holds its pressure, too: this is less than the whole.
    assert bool(found.is_bound) and apart <= float(found.error_estimate) * 200.0 * np.sqrt(
        2.0 * t.sum() * len(POINT)
    )
    assert float(found.error_estimate) <= 1e-8


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_sums_of_any_sign_have_their_rounding_counted(dtype):
    """Of terms that cancel: sums may be off by the sizes of their terms, not by their own."""
    at = _Scaled(_problem(*_coefficients("plain", 1.0), dtype).operator, jnp.ones((), dtype))
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, len(EDGE))).astype(dtype)
    x[-1] = -np.dot(x[:-1].astype(np.longdouble), y[:-1]) / y[-1]
    exact = np.sum(x.astype(np.longdouble) * y)
    sizes = np.sum(np.abs(x.astype(np.longdouble) * y))
    assert abs(float(_dot(jnp.asarray(x), jnp.asarray(y))) - exact) <= at.sums * sizes
    assert len(EDGE) * np.finfo(np.float64).eps < at.sums < 1e-5


def test_the_derivative_of_a_weakly_drained_pressure():
    """Nothing mends it: its own residual is all that is known, here beside a dense solve."""
    rtol, problem = 1e-6, _problem(*_coefficients("neumann", 1e3))
    operator, source = problem.operator, problem.source
    value = lambda log_scale: (
        solve_darcy(
            DarcyProblem(
                darcy_operator(
                    operator.graph, operator.transmissibility, operator.sink * jnp.exp(log_scale)
                ),
                source,
            ),
            ConjugateGradient(rtol),
            throw=False,
        ).pressure_tissue
    )
    found, change = jax.jvp(value, (jnp.zeros(()),), (jnp.ones(()),))
    t, s = np.asarray(operator.transmissibility), np.asarray(operator.sink)
    i, j = EDGE.T
    matrix = np.diag(s)
    for a, b, sign in ((i, i, 1.0), (j, j, 1.0), (i, j, -1.0), (j, i, -1.0)):
        np.add.at(matrix, (a, b), sign * t)
    exact = np.linalg.solve(matrix, np.asarray(source))
    changed = np.linalg.solve(matrix, -s * exact)
    norm = lambda x: np.sqrt(x @ matrix @ x)
    assert norm(np.asarray(found) - exact) <= rtol * norm(exact)
    assert norm(np.asarray(change) - changed) <= 10.0 * rtol * norm(changed)
