"""A limit on the step that any diffrax controller proposes."""

import diffrax
import jax
import jax.numpy as jnp

from ._semidiscretisation import FlowState, Semidiscretisation


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

    def wrap(self, direction):
        return CourantLimit(self.controller.wrap(direction), self.equations, self.courant)

    def init(self, terms, t0, t1, y0, dt0, args, func, error_order):
        proposed, state = self.controller.init(terms, t0, t1, y0, dt0, args, func, error_order)
        return self._limit(t0, proposed, y0), state

    def adapt_step_size(
        self, t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
    ):
        keep, next_t0, next_t1, jump, state, result = self.controller.adapt_step_size(
            t0, t1, y0, y1_candidate, args, y_error, error_order, controller_state
        )
        y = jax.tree.map(lambda new, old: jnp.where(keep, new, old), y1_candidate, y0)
        return keep, next_t0, self._limit(next_t0, next_t1, y), jump, state, result

    def _limit(self, start, stop, y: FlowState):
        return jnp.minimum(
            stop, start + self.courant / jax.lax.stop_gradient(self.equations.wave_rate(y))
        )
