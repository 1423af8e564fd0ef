"""Methods that walk from a start to a mode of the posterior, one solve at a time."""

import abc
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import optax
import optimistix as optx
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._problem import InverseProblem
from ._programs import gradient_at, jacobian, linearise, n_columns, program

# What has become of a walk.
RUNNING, CONVERGED, STALLED, NO_START = range(4)
ENDED = {
    RUNNING: "did not converge in max_steps solves; raise max_steps, or loosen tolerance",
    STALLED: "stalled: no short step lowers the misfit as its slope says; tighten the tolerances "
    "of the model's own solver",
    NO_START: "could not begin: the first solve gave numbers that are not finite; look for a prior "
    "that reaches values the model cannot solve, or for a wrong unit",
}


class AbstractWalk(eqx.Module):
    """Where a walk is: the coordinates accepted last, and what they cost so far."""

    xi: eqx.AbstractVar[Float[Array, " p"]]
    objective: eqx.AbstractVar[Float[Array, ""]]
    warm: eqx.AbstractVar[PyTree]
    status: eqx.AbstractVar[Int[Array, ""]]
    solves: eqx.AbstractVar[Int[Array, ""]]
    columns: eqx.AbstractVar[Int[Array, ""]]


_Walk = TypeVar("_Walk", bound=AbstractWalk)


class AbstractMethod(eqx.Module, Generic[_Walk]):
    """A method of optimisation, stepped on the host."""

    @abc.abstractmethod
    def begin(
        self, problem: InverseProblem, xi: Array, warm: PyTree, tolerance: float, chunk: int | None
    ) -> _Walk:
        """The first solve; traceable, so that the layout of a walk is known without one."""

    @abc.abstractmethod
    def advance(
        self, problem: InverseProblem, walk: _Walk, tolerance: float, chunk: int | None
    ) -> _Walk:
        """One trial more."""


class MarquardtWalk(AbstractWalk):
    """A walk of [`LevenbergMarquardt`][]: the Jacobian at `xi`, and the trial that comes next."""

    xi: Float[Array, " p"]
    objective: Float[Array, ""]
    warm: PyTree
    status: Int[Array, ""]
    solves: Int[Array, ""]
    columns: Int[Array, ""]
    residual: Float[Array, " n"]
    jacobian: Float[Array, "n p"]
    search: PyTree
    trial: Float[Array, " p"]


class LevenbergMarquardt(AbstractMethod[MarquardtWalk]):
    r"""Levenberg–Marquardt on [r(ξ); ξ], the search and the descent of optimistix.

    $$\delta = -(J^\top J + I + \lambda I)^{-1}(J^\top r + \xi).$$

    A trial costs one solve; the Jacobian, by columns where p ≤ n and else by rows, is evaluated
    where a trial is accepted only. A solve that fails is a trial refused. The walk ends where the
    step without damping would lower the objective by less than the tolerance, in nats.

    **Arguments:** `damping`, the first λ: small, as the prior bounds every step already; `search`
    and `descent`, of optimistix.

    **Source:** Moré, The Levenberg–Marquardt algorithm (1978), doi 10.1007/BFb0067700.
    """

    damping: float = eqx.field(static=True, default=0.1)
    search: optx.AbstractSearch = optx.ClassicalTrustRegion(
        high_cutoff=0.75, low_cutoff=0.01, high_constant=4.0, low_constant=0.1
    )
    descent: optx.AbstractDescent = optx.DampedNewtonDescent()

    def begin(
        self, problem: InverseProblem, xi: Array, warm: PyTree, tolerance: float, chunk: int | None
    ) -> MarquardtWalk:
        at = linearise(problem, xi, warm)
        slope = jacobian(problem, at, chunk)
        search = self.search.init(xi, _information(at.residual, slope, xi))
        search = jax.tree.map(lambda x: (x / self.damping).astype(xi.dtype), search)
        objective = _objective(at.residual, xi)
        finite = jnp.isfinite(objective) & jnp.all(jnp.isfinite(slope))
        walk = MarquardtWalk(
            xi=xi,
            objective=objective,
            warm=at.warm,
            status=jnp.where(finite, RUNNING, NO_START),
            solves=jnp.ones((), int),
            columns=jnp.full((), n_columns(problem), int),
            residual=at.residual,
            jacobian=slope,
            search=search,
            trial=xi,
        )
        return _propose(self, walk, jnp.ones((), bool), tolerance)

    def advance(
        self, problem: InverseProblem, walk: MarquardtWalk, tolerance: float, chunk: int | None
    ) -> MarquardtWalk:
        at = linearise(problem, walk.trial, walk.warm)
        accepted, search = _judge(self, walk, at.residual)
        new = {"search": search, "solves": walk.solves + 1}
        if accepted:
            slope = jacobian(problem, at, chunk)
            new["columns"] = walk.columns + n_columns(problem)
            # a slope that is not finite is a solve that failed
            if jnp.all(jnp.isfinite(slope)):
                new |= {"xi": at.xi, "warm": at.warm, "residual": at.residual, "jacobian": slope}
                new["objective"] = _objective(at.residual, at.xi)
            else:
                accepted = jnp.zeros((), bool)
                new["search"] = jax.tree.map(lambda x: 0.1 * x, walk.search)
        names = tuple(new)
        walk = eqx.tree_at(lambda w: [getattr(w, n) for n in names], walk, [new[n] for n in names])
        return _propose(self, walk, accepted, tolerance)


def _objective(residual: Float[Array, " n"], xi: Float[Array, " p"]) -> Float[Array, ""]:
    return 0.5 * (jnp.sum(residual**2) + jnp.sum(xi**2))


def _information(residual: Array, slope: Array, xi: Array) -> Any:
    """What optimistix knows of [r; ξ]."""
    matrix = jnp.concatenate([slope, jnp.eye(xi.shape[0], dtype=xi.dtype)])
    stacked = jnp.concatenate([residual, xi])
    return optx.FunctionInfo.ResidualJac(stacked, lx.MatrixLinearOperator(matrix))


@eqx.filter_jit
def _judge(
    method: LevenbergMarquardt, walk: MarquardtWalk, residual: Float[Array, " n"]
) -> tuple[Bool[Array, ""], PyTree]:
    """Whether a trial is accepted, and the search after it."""
    known = _information(walk.residual, walk.jacobian, walk.xi)
    seen = optx.FunctionInfo.Residual(jnp.concatenate([residual, walk.trial]))
    first = jnp.zeros((), bool)
    _, accepted, _, search = method.search.step(
        first, walk.xi, walk.trial, known, seen, walk.search
    )
    return accepted, search


@eqx.filter_jit
def _propose(
    method: LevenbergMarquardt, walk: MarquardtWalk, accepted: Bool[Array, ""], tolerance: float
) -> MarquardtWalk:
    """The next trial, and whether the walk is over."""
    known = _information(walk.residual, walk.jacobian, walk.xi)
    state = method.descent.query(walk.xi, known, method.descent.init(walk.xi, known))
    step, _ = method.descent.step(walk.search.step_size, state)
    # what is left to gain by the step without damping, and by the one proposed
    basis = jnp.linalg.qr(known.jac.as_matrix())[0]
    left = 0.5 * jnp.sum((basis.T @ known.residual) ** 2)
    ahead = known.residual + known.jac.mv(step)
    gain = 0.5 * (jnp.sum(known.residual**2) - jnp.sum(ahead**2))
    floor = 8.0 * jnp.finfo(walk.xi.dtype).eps * walk.objective
    stalled = ~accepted & ((gain < 0.1 * tolerance) | ~jnp.isfinite(gain))
    status = jnp.where(stalled, STALLED, walk.status)
    status = jnp.where(left < jnp.maximum(tolerance, floor), CONVERGED, status)
    status = jnp.where(walk.status == NO_START, NO_START, status)
    return eqx.tree_at(lambda w: (w.trial, w.status), walk, (walk.xi + step, status))


class GradientWalk(AbstractWalk):
    """A walk of [`FirstOrder`][]: the gradient at `xi`, and the update that comes next."""

    xi: Float[Array, " p"]
    objective: Float[Array, ""]
    warm: PyTree
    status: Int[Array, ""]
    solves: Int[Array, ""]
    columns: Int[Array, ""]
    state: PyTree
    update: Float[Array, " p"]
    share: Float[Array, ""]


class FirstOrder(AbstractMethod[GradientWalk]):
    r"""A method of optax on the objective and its gradient, one adjoint solve each.

    A solve that fails halves the update; the share grows again afterwards. The walk ends where
    ½‖∇‖² is below the tolerance: the prior bounds the curvature by 1 from below, so no more than
    that is left to gain. Keep one instance, as each of a new optimiser compiles anew.

    **Arguments:** `optimiser`, as `optax.adam(0.1)` or `optax.lbfgs()`, whose line search counts
    among the solves.
    """

    optimiser: optax.GradientTransformationExtraArgs = eqx.field(
        converter=optax.with_extra_args_support
    )

    def begin(
        self, problem: InverseProblem, xi: Array, warm: PyTree, tolerance: float, chunk: int | None
    ) -> GradientWalk:
        value, slope, after = gradient_at(problem, xi, warm)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))
        count = lambda n: jnp.full((), n, int)
        walk = GradientWalk(
            xi=xi,
            objective=value,
            warm=after,
            status=jnp.where(finite, RUNNING, NO_START),
            solves=count(1),
            columns=count(1),
            state=self.optimiser.init(xi),
            update=jnp.zeros_like(xi),
            share=jnp.ones((), xi.dtype),
        )
        return _descend(self, problem, walk, slope, tolerance)

    def advance(
        self, problem: InverseProblem, walk: GradientWalk, tolerance: float, chunk: int | None
    ) -> GradientWalk:
        trial = walk.xi + walk.share * walk.update
        value, slope, after = gradient_at(problem, trial, walk.warm)
        counts = lambda w: (w.solves, w.columns)
        walk = eqx.tree_at(counts, walk, (walk.solves + 1, walk.columns + 1))
        if not (jnp.isfinite(value) & jnp.all(jnp.isfinite(slope))):
            share = 0.5 * walk.share
            status = jnp.where(share < 1e-6, STALLED, walk.status)
            return eqx.tree_at(lambda w: (w.share, w.status), walk, (share, status))
        share = jnp.minimum(2.0 * walk.share, 1.0)
        where = lambda w: (w.xi, w.objective, w.warm, w.share)
        is_none = lambda x: x is None
        walk = eqx.tree_at(where, walk, (trial, value, after, share), is_leaf=is_none)
        return _descend(self, problem, walk, slope, tolerance)


@program
def _descend(
    method: FirstOrder, problem: InverseProblem, walk: GradientWalk, slope: Array, tolerance: float
) -> GradientWalk:
    """The next update, and whether the walk is over."""

    def objective(xi: Float[Array, " p"]) -> Float[Array, ""]:
        value = -problem.log_density(xi, walk.warm)
        return jnp.where(jnp.isfinite(value), value, jnp.finfo(xi.dtype).max)

    with jax.numpy_dtype_promotion("standard"):
        update, state = method.optimiser.update(
            slope, walk.state, walk.xi, value=walk.objective, grad=slope, value_fn=objective
        )
    searched = jnp.asarray(optax.tree_utils.tree_get(state, "num_linesearch_steps", 0), int)
    over = 0.5 * jnp.sum(slope**2) < tolerance
    status = jnp.where((walk.status == RUNNING) & over, CONVERGED, walk.status)
    searched = jnp.where(status == RUNNING, searched, 0)
    where = lambda w: (w.update, w.state, w.status, w.solves, w.columns)
    new = (update, state, status, walk.solves + searched, walk.columns + searched)
    return eqx.tree_at(where, walk, new)
