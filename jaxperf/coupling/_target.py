"""Perfusion with one number of the bed unknown and the total flow prescribed."""

from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._ranges import in_range
from .._results import RESULTS
from ..darcy import AbstractDarcySolver
from ..steady import AbstractSystem, find_root, ImplicitAdjoint, LinearStep, Newton
from ._padding import sanitised_perfusion
from ._problem import Microcirculation, PerfusionProblem
from ._ranges import perfusion_ranges
from ._solve import perfusion_system
from ._system import initial_perfusion, PerfusionState, PerfusionSystem

# those of `solve_perfusion`
_MAX_STEPS, _MAX_LINEAR_STEPS = 50, 20_000


class TargetState(eqx.Module):
    """State of the perfusion, and the factor on the unknown number of the bed."""

    perfusion: PerfusionState
    factor: Float[Array, ""]


class TargetSystem(AbstractSystem):
    r"""The coupled equations F(x, v) = 0 with one equation more, Σ terminal flow = `flow`.

    The unknown v is a factor on one number of the bed, `unknown`. Linearised,

    $$J\,\delta x + b\,\delta v = r_x,\qquad c\cdot\delta x + d\,\delta v = r_v,$$

    which two solves with J answer: with $y = J^{-1}r_x$ and $z = J^{-1}b$,
    $\delta v = (r_v - c\cdot y)/(d - c\cdot z)$ and $\delta x = y - z\,\delta v$.

    **Attributes:** `system`, whose bed holds the number at v = 1; `flow`, m³/s.
    """

    system: PerfusionSystem
    flow: Float[Array, ""]
    unknown: Literal["beta_source", "dilation"] = eqx.field(static=True)

    def bed(self, factor: Float[Array, ""]) -> Microcirculation:
        """The bed at a value of the unknown."""
        bed = self.system.bed
        where = lambda bed: getattr(bed, self.unknown)
        return eqx.tree_at(where, bed, where(bed) * factor)

    def _at(self, factor: Float[Array, ""]) -> PerfusionSystem:
        return eqx.tree_at(lambda s: s.bed, self.system, self.bed(factor))

    def residual(self, x: TargetState) -> TargetState:
        system, state = self._at(x.factor), x.perfusion
        terminal = state.network.pressure[system.tissue.terminal_node]
        passing = jnp.sum(system.exchange(terminal, state.tissue).terminal_flow)
        return TargetState(system.residual(state), passing - self.flow)

    def linear_solve(
        self, x: TargetState, right: TargetState, rtol: Float[Array, ""] | float
    ) -> LinearStep:
        system = self._at(x.factor)
        still = jax.tree.map(jnp.zeros_like, x.perfusion)
        # b and d at once, then c·δx by products
        push = jax.linearize(self.residual, x)[1]
        column = push(TargetState(still, jnp.ones_like(x.factor)))
        given = system.linear_solve(x.perfusion, right.perfusion, rtol)
        moved = system.linear_solve(x.perfusion, column.perfusion, rtol)
        along = lambda state: push(TargetState(state, jnp.zeros_like(x.factor))).factor
        step = (right.factor - along(given.value)) / (column.factor - along(moved.value))
        state = jax.tree.map(lambda y, z: y - z * step, given.value, moved.value)
        return LinearStep(
            TargetState(state, step),
            given.iterations + moved.iterations,
            given.converged & moved.converged,
        )

    def scale(self, x: TargetState) -> TargetState:
        return TargetState(self._at(x.factor).scale(x.perfusion), self.flow)

    def is_admissible(self, x: TargetState) -> Bool[Array, ""]:
        return self.system.is_admissible(x.perfusion) & (x.factor > 0)


class TargetRoot(eqx.Module):
    """A bed that gives a flow.

    **Attributes:** `bed`; `factor`, on what was unknown in it; `state`; `terminal_pressure` (Pa),
    the lowest; `flow`, m³/s through all terminals; `result`; `steps` of Newton's method.
    """

    bed: Microcirculation
    factor: Float[Array, ""]
    state: PerfusionState
    terminal_pressure: Float[Array, ""]
    flow: Float[Array, ""]
    result: RESULTS
    steps: Array


def find_bed(
    problem: PerfusionProblem,
    flow: Float[Array, ""],
    unknown: Literal["beta_source", "dilation"],
    method: AbstractDarcySolver,
    *,
    factor: Float[Array, ""],
    initial: PerfusionState | None = None,
) -> TargetRoot:
    """Find the factor on one number of the bed at which the terminals carry a flow.

    Newton's method with the implicit rule, so that it can be traced and differentiated.

    **Arguments:** `problem`, whose bed holds the number at the factor 1; `flow`, m³/s; `factor`
    and `initial`, to start from, by which nothing is differentiated.

    **Returns:** a [`TargetRoot`][]; where none was found `result` says why.
    """
    problem = sanitised_perfusion(problem)
    system = perfusion_system(problem, method, _MAX_LINEAR_STEPS)
    if initial is None:
        initial = initial_perfusion(
            problem.network, system.closure, problem.tissue, problem.microcirculation
        )
    target = TargetSystem(system, flow, unknown)
    root = find_root(
        target,
        TargetState(initial, factor),
        Newton(),
        adjoint=ImplicitAdjoint(),
        max_steps=_MAX_STEPS,
        is_asked=in_range(perfusion_ranges(problem)),
    )
    found = root.value
    pressure = found.perfusion.network.pressure[problem.tissue.terminal_node]
    passing = target.residual(found).factor + flow
    return TargetRoot(
        bed=target.bed(found.factor),
        factor=found.factor,
        state=found.perfusion,
        terminal_pressure=jnp.min(pressure),
        flow=passing,
        result=root.result,
        steps=root.steps,
    )
