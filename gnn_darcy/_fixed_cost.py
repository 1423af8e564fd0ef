"""Solutions that were not iterated to a tolerance."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxperf._results import RESULTS
from jaxperf.darcy import DarcyOperator, DarcySolution, relative_norm


def fixed_cost_solution(
    operator: DarcyOperator, source: Float[Array, " c"], pressure: Float[Array, " c"], steps: int
) -> DarcySolution:
    """What was found in so many steps: successful where it is a number and there is a level."""
    level = operator.has_level()
    balance = source - operator(pressure)
    residual = relative_norm(*jax.lax.stop_gradient((balance, source)))
    result = RESULTS.where(jnp.isfinite(residual), RESULTS.successful, RESULTS.linear_solver_failed)
    return DarcySolution(
        jnp.where(level, pressure, jnp.nan).astype(source.dtype),
        RESULTS.where(level, result, RESULTS.no_pressure_level),
        jnp.asarray(steps, jnp.int32),
        balance,
        residual,
        jnp.full((), jnp.nan, source.dtype),
    )
