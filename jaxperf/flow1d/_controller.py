"""A limit on the step that any diffrax controller proposes."""

from collections.abc import Callable
from typing import TypeAlias

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._custom_types import ParameterLike, ScalarLike
from ._semidiscretisation import FlowState, Semidiscretisation

_Flag: TypeAlias = bool | np.ndarray | Bool[Array, ""]
# Whether the step is kept, the next one, whether it follows a jump, the state, the result.
_Adapted: TypeAlias = tuple[_Flag, ParameterLike, Float[Array, ""], _Flag, PyTree, diffrax.RESULTS]


class CourantLimit(diffrax.AbstractStepSizeController):
    r"""Another controller's steps, none longer than the waves allow.

    $$\Delta t\le C\,\min_k\frac{\Delta x_k}{|\alpha U|+c}$$

    at the state the step starts from. An error estimate by itself lets explicit steps grow past
    this, where the forward value may still look right and the derivative is noise.

    **Arguments:** `controller`, `equations`, and `courant`, C.
    """

    controller: diffrax.AbstractStepSizeController
    equations: Semidiscretisation
    courant: float = 0.9

    def wrap(self, direction: int | Int[Array, ""]) -> "CourantLimit":
        return CourantLimit(self.controller.wrap(direction), self.equations, self.courant)

    def init(
        self,
        terms: PyTree[diffrax.AbstractTerm],
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: FlowState,
        dt0: Float[Array, ""] | None,
        args: PyTree,
        func: Callable[..., PyTree],
        error_order: ScalarLike | None,
    ) -> tuple[Float[Array, ""], PyTree]:
        proposed, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return self._limit(t0, proposed, y0), state

    def adapt_step_size(
        self,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: FlowState,
        y1_candidate: FlowState,
        args: PyTree,
        y_error: FlowState | None,
        error_order: ScalarLike,
        controller_state: PyTree,
    ) -> _Adapted:
        keep, next_t0, next_t1, jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        y = jax.tree.map(lambda new, old: jnp.where(keep, new, old), y1_candidate, y0)
        return keep, next_t0, self._limit(next_t0, next_t1, y), jump, state, result

    def _limit(self, start: ParameterLike, stop: ParameterLike, y: FlowState) -> Float[Array, ""]:
        return jnp.minimum(
            stop, start + self.courant / jax.lax.stop_gradient(self.equations.wave_rate(y))
        )
