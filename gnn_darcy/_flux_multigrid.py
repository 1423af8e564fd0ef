"""The flux multigrid network as a Darcy solver."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxperf.darcy import (
    AbstractDarcyMesh,
    AbstractDarcySolver,
    check_permeability,
    conjugate_gradient_solution,
    DarcyOperator,
    DarcySolution,
    fixed_cost_solution,
)

from ._cycle import coarsened, coarsest_inverse, cycle, CycleState, level_state
from ._flux_network import FluxNetwork
from ._plan import build_plan, FluxPlan

Linear = Callable[[Array], Array]
Mode = Literal["exact", "few", "surrogate"]
# Steps of Lanczos's method for ρ. For what they miss the interval of the polynomial reaches a tenth
# further. Nothing else rests on ρ: behind thin walls of low K 1 − ρ was 244 times too large.
_LANCZOS_STEPS, _INTERVAL = 10, 0.9


class FluxState(eqx.Module):
    """**Attributes:** `operator`; `cycle`; `scale`, 1 over the largest diagonal entry; `rho`, the
    contraction by one cycle in the energy norm, estimated from below.
    """

    operator: DarcyOperator
    cycle: CycleState
    scale: Float[Array, ""]
    rho: Float[Array, ""]

    def precondition(self, residual: Float[Array, " c"]) -> Float[Array, " c"]:
        """B times the residual."""
        dtype = self.cycle.coarsest.dtype
        # Scaled to one: flows and conductances of a control volume leave the range of float32.
        size = jax.lax.stop_gradient(jnp.max(jnp.abs(residual)))
        size = jnp.where(size > 0, size, jnp.ones_like(size))
        found = cycle(self.cycle, (residual / size).astype(dtype))
        return found.astype(residual.dtype) * (size * self.scale.astype(residual.dtype))


class FluxMultigrid(AbstractDarcySolver):
    """A symmetric multigrid cycle whose coefficients a graph network computes from the operator.

    Made by [`gnn_darcy.flux_multigrid`][] for one mesh; `init` runs the network for the
    coefficients at hand. One cycle is linear in the source, symmetric and positive definite
    whatever the network says, so that it preconditions conjugate gradients here and in the coupled
    solve. Pass a solver to jitted functions as an argument.

    **Attributes:**

    - `plan`, `network`.
    - `mode`: `exact` iterates by conjugate gradients until `rtol` (where `None` as in
      [`jaxperf.darcy.ConjugateGradient`][]) or `max_steps`; `few` makes `cycles` iterations of
      them; `surrogate` makes `cycles` of Chebyshev's semi-iteration, which are linear in the
      source.
    - `dtype` of network and cycle.

    A solution of each mode has an `error_estimate` as [`jaxperf.darcy.DarcySolution`][] says: a
    bound where no transmissibility is negative.
    """

    plan: FluxPlan
    network: FluxNetwork
    mode: Mode = eqx.field(static=True, default="exact")
    cycles: int = eqx.field(static=True, default=4)
    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=500)
    dtype: Any = eqx.field(static=True, default=jnp.float32)

    def __check_init__(self) -> None:
        if self.mode not in ("exact", "few", "surrogate"):
            raise ValueError(f"the mode is {self.mode!r}; expected exact, few or surrogate")
        if self.cycles < 0 or self.max_steps < 1:
            raise ValueError(
                f"cycles is {self.cycles} and max_steps {self.max_steps}; expected no negative "
                "number of cycles and one step at least"
            )

    @property
    def is_linear_symmetric(self) -> bool:
        return True

    def init(self, operator: DarcyOperator) -> FluxState:
        got = (operator.graph.n_cells, operator.graph.edge.shape[0])
        expected = (self.plan.levels[0].n, self.plan.levels[0].edge.shape[0])
        if got != expected:
            raise ValueError(
                f"the operator has {got[0]} control volumes and {got[1]} edges; expected "
                f"{expected[0]} and {expected[1]}, those of the mesh that flux_multigrid was set "
                "up for: set one up for this mesh"
            )
        scale = 1.0 / jnp.max(operator.diagonal)
        narrow = lambda x: (x * scale).astype(self.dtype)
        made = cycle_state(
            self.plan, self.network, narrow(operator.transmissibility), narrow(operator.sink)
        )
        state = FluxState(operator, made, scale, jnp.zeros((), operator.sink.dtype))
        rho = _contraction(state, self.plan.start.astype(operator.sink.dtype))
        return eqx.tree_at(lambda s: s.rho, state, rho)

    def precondition(self, state: FluxState, residual: Float[Array, " c"]) -> Float[Array, " c"]:
        return state.precondition(residual)

    def solve(
        self, state: FluxState, source: Float[Array, " c"], *, max_steps: int | None = None
    ) -> DarcySolution:
        if self.mode == "exact":
            steps = self.max_steps if max_steps is None else max_steps
            return conjugate_gradient_solution(self, state, source, self.rtol, steps)
        steps = self.cycles if max_steps is None else max_steps
        iterate = _conjugate_gradients if self.mode == "few" else _chebyshev
        pressure = iterate(state, source, steps)
        precondition = lambda r: jax.lax.stop_gradient(state).precondition(r)
        return fixed_cost_solution(state.operator, source, pressure, steps, precondition)


def cycle_state(
    plan: FluxPlan,
    network: FluxNetwork,
    transmissibility: Float[Array, " e"],
    sink: Float[Array, " n"],
) -> CycleState:
    """The levels of an operator, each with what the network says of it."""
    levels = []
    for depth, level in enumerate(plan.levels):
        # Padding hangs on nothing: a sink of its own gives it an equation.
        live = jnp.arange(level.n, dtype=jnp.int32) < level.n_live
        sink = jnp.where(live, sink, 1.0).astype(sink.dtype)
        said = network(level, transmissibility, sink, depth)
        levels.append(level_state(level, transmissibility, sink, said))
        transmissibility, sink = coarsened(level, transmissibility, sink, said)
    return CycleState(tuple(levels), coarsest_inverse(plan, transmissibility, sink))


def _contraction(state: FluxState, start: Float[Array, " c"]) -> Float[Array, ""]:
    """The largest eigenvalue of I − B A, from below, by Lanczos's method.

    Its tridiagonal matrix is in the coefficients of conjugate gradients (Golub and Van Loan 2013,
    10.2 and 11.3). What is solved belongs to the mesh, so that it depends on no source.
    """
    right = start * state.operator.diagonal
    x, lengths, ratios = conjugate_gradients(
        state.operator, state.precondition, right, _LANCZOS_STEPS
    )
    before = jnp.concatenate([jnp.zeros_like(ratios[:1]), ratios[:-1] / lengths[:-1]])
    goes_on = ratios[:-1] > 0
    off = jnp.where(goes_on, jnp.sqrt(jnp.where(goes_on, ratios[:-1], 1.0)), 0.0) / lengths[:-1]
    tridiagonal = jnp.diag(1.0 / lengths + before) + jnp.diag(off, 1) + jnp.diag(off, -1)
    smallest = jnp.linalg.eigvalsh(tridiagonal)[0]
    # One, with which nothing is bounded, where the cycle is not what it should be.
    sound = (smallest > 0) & jnp.isfinite(x).all()
    return jnp.where(sound, jnp.maximum(1.0 - smallest, 0.0), 1.0).astype(start.dtype)


def conjugate_gradients(
    product: Linear, precondition: Linear, right: Array, steps: int
) -> tuple[Float[Array, " c"], Float[Array, " k"], Float[Array, " k"]]:
    """So many preconditioned conjugate gradients from zero: x, and their α and β.

    Where nothing is left to do, nothing moves, and α is said to be 1 and β 0.
    """

    def step(
        carry: tuple[Array, Array, Array, Array], _: None
    ) -> tuple[tuple[Array, Array, Array, Array], tuple[Array, Array]]:
        x, r, direction, rz = carry
        image = product(direction)
        curvature = jnp.vdot(direction, image)
        moves = (curvature > 0) & (rz > 0)
        length = jnp.where(moves, rz, 1.0) / jnp.where(moves, curvature, 1.0)
        length = jnp.where(moves, length, 1.0).astype(right.dtype)
        moved = jnp.where(moves, length, 0.0).astype(right.dtype)
        x, r = x + moved * direction, r - moved * image
        z = precondition(r)
        rz_new = jnp.vdot(r, z)
        goes_on = moves & (rz_new > 0)
        ratio = jnp.where(goes_on, rz_new, 0.0) / jnp.where(goes_on, rz, 1.0)
        ratio = ratio.astype(right.dtype)
        return (x, r, z + ratio * direction, rz_new), (length, ratio)

    first = precondition(right)
    start = (jnp.zeros_like(right), right, first, jnp.vdot(right, first))
    (x, *_), (lengths, ratios) = jax.lax.scan(step, start, None, length=steps)
    return x, lengths, ratios


def _conjugate_gradients(state: FluxState, source: Array, steps: int) -> Array:
    return conjugate_gradients(state.operator, state.precondition, source, steps)[0]


def _chebyshev(state: FluxState, source: Array, steps: int) -> Array:
    """Chebyshev's semi-iteration for the spectrum [1 − ρ, 1] of B A (Saad 2003, algorithm 12.1)."""
    low = _INTERVAL * jnp.maximum(1.0 - state.rho, 1e-6)
    middle, half = 0.5 * (1.0 + low), 0.5 * (1.0 - low)

    sigma = middle / half

    def step(
        carry: tuple[Array, Array, Array, Array], _: None
    ) -> tuple[tuple[Array, Array, Array, Array], None]:
        x, r, move, rho = carry
        x, r = x + move, r - state.operator(move)
        after = 1.0 / (2.0 * sigma - rho)
        move = (after * rho) * move + (2.0 * after / half) * state.precondition(r)
        return (x, r, move, after), None

    start = (jnp.zeros_like(source), source, state.precondition(source) / middle, 1.0 / sigma)
    (x, *_), _ = jax.lax.scan(step, start, None, length=steps)
    return x


def flux_plan(
    mesh: AbstractDarcyMesh,
    permeability: Float[Array, "..."] | float = 1.0,
    *,
    by_rows: bool = True,
) -> FluxPlan:
    """Aggregates and patterns of a mesh; see [`gnn_darcy.flux_multigrid`][]."""
    given = np.asarray(permeability, float)
    check_permeability(mesh, given, "flux_multigrid: permeability")
    transmissibility = np.asarray(mesh.transmissibility(jnp.asarray(given)))
    ijk = getattr(mesh, "cell_ijk", None)
    return build_plan(
        mesh.graph, transmissibility, None if ijk is None else np.asarray(ijk), by_rows=by_rows
    )
