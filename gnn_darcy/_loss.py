r"""How well a cycle does its work: what one cycle leaves of an error, in the energy norm.

    ‖(I − B A) p‖_A² / ‖p‖_A²

needs no solution, for any p is the solution of the source A p. Of slow modes, which repeated cycles
bring out, it is the rate of convergence.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from ._buckets import PaddedCase
from ._cycle import cycle, CycleState
from ._flux_multigrid import conjugate_gradients, cycle_state
from ._flux_network import FluxNetwork

_VECTORS = 4
# Cycles that bring out slow modes; nothing is differentiated through them.
_SLOW = 6


def flux_loss(network: FluxNetwork, case: PaddedCase, key: PRNGKeyArray) -> Float[Array, ""]:
    """Of random errors, and of slow ones."""
    state = cycle_state(case.plan, network, case.transmissibility, case.sink)
    live = jnp.arange(case.sink.shape[0], dtype=jnp.int32) < case.plan.levels[0].n_live
    noise = jax.random.normal(key, (case.sink.shape[0], _VECTORS), case.sink.dtype)
    noise = jnp.where(live[:, None], noise, 0.0).astype(case.sink.dtype)
    fixed = jax.lax.stop_gradient(state)
    slow = jax.lax.scan(lambda x, _: (_unit(fixed, left(fixed, x)), None), noise, length=_SLOW)[0]
    return jnp.mean(_reduction(state, slow)) + 0.25 * jnp.mean(_reduction(state, noise))


def left(state: CycleState, error: Float[Array, "n b"]) -> Float[Array, "n b"]:
    """(I − B A) of an error."""
    return error - cycle(state, state.levels[0].product(error))


def _square(state: CycleState, x: Array) -> Array:
    """xᵀA x."""
    return jnp.sum(x * state.levels[0].product(x), axis=0)


def _unit(state: CycleState, x: Array) -> Array:
    return x / jnp.sqrt(_square(state, x))[None]


def _reduction(state: CycleState, error: Array) -> Array:
    return _square(state, left(state, error)) / _square(state, error)


def few_cycles(network: FluxNetwork, case: PaddedCase, cycles: int) -> Float[Array, " n"]:
    """The pressure after so many iterations of conjugate gradients."""
    state = cycle_state(case.plan, network, case.transmissibility, case.sink)
    precondition = lambda r: cycle(state, r)
    return conjugate_gradients(state.levels[0].product, precondition, case.source, cycles)[0]
