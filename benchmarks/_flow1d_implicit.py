"""Backward Euler steps of the transient equations: a reference's own error in time, to compare."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxperf.flow1d import Flow1DProblem, FlowState, initial_state, SavePoints, semidiscretise
from jaxperf.flow1d._points import sample_points

_TOLERANCE, _ITERATIONS = 1e-9, 60
# Steps between two Jacobians.
_RENEW = 10


def backward_euler(problem: Flow1DProblem, points: SavePoints, *, step: float, cycles: int):
    r"""Pressure and flow (k, m) after every step $u_{n+1} = u_n + h F(t_{n+1}, u_{n+1})$.

    Dense chord Newton: for a few hundred cells.
    """
    equations, start = semidiscretise(problem), initial_state(problem)
    sampling = sample_points(problem.network, problem.grid, points)
    vector, unravel = ravel_pytree((start.area, start.flow, start.outlet))
    state = lambda v: FlowState(*unravel(v)[:2], start.passed, unravel(v)[2])
    like = lambda value, x: jnp.full_like(x, value)
    scale, _ = ravel_pytree(
        (
            like(jnp.max(start.area), start.area),
            like(jnp.max(jnp.abs(start.flow)), start.flow),
            tuple(like(jnp.max(jnp.abs(x), initial=1.0), x) for x in start.outlet),
        )
    )

    def rate(t, v):
        found = equations(t, state(v))
        return ravel_pytree((found.area, found.flow, found.outlet))[0]

    def one(carry, i):
        v, factor = carry
        t = (i + 1) * step

        def body(c):
            x, _, count = c
            gap = x - v - step * rate(t, x)
            change = jax.scipy.linalg.lu_solve(factor, gap)
            return x - change, jnp.max(jnp.abs(change) / scale), count + 1

        go_on = lambda c: (c[1] > _TOLERANCE) & (c[2] < _ITERATIONS)
        x, _, _ = jax.lax.while_loop(go_on, body, (v, jnp.asarray(jnp.inf), 0))
        y = state(x)
        return (x, factor), (sampling(equations.cell_pressure(t, y)), sampling(y.flow))

    def some(v, i):
        jacobian = jax.jacfwd(lambda v: rate(i[0] * step, v))(v)
        factor = jax.scipy.linalg.lu_factor(jnp.eye(v.shape[0]) - step * jacobian)
        (v, _), series = jax.lax.scan(one, (v, factor), i)
        return v, series

    n = round(cycles * float(problem.period) / step)
    count = jnp.arange(float(n)).reshape(-1, _RENEW)
    _, series = jax.jit(lambda v: jax.lax.scan(some, v, count))(vector)
    return tuple(x.reshape(n, -1) for x in series)
