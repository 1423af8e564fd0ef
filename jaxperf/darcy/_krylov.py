"""Krylov methods, differentiated by the linear system they solve."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class KrylovSolution(eqx.Module):
    """What a Krylov method found: `value`, NaN where the residual did not reach the tolerance;
    its `iterations` (products with the matrix); and whether it `converged`."""

    value: Float[Array, " c"]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]


Linear = Callable[[Array], Array]


def _conjugate_gradient(matvec: Linear, precondition: Linear, b, rtol, max_steps):
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952)."""
    target = (rtol * rtol) * jnp.vdot(b, b)

    def unfinished(carry):
        _, r, _, _, k = carry
        return (jnp.vdot(r, r) > target) & (k < max_steps)

    def step(carry):
        # The product acts on a carried array: fused with the update of the direction it would
        # be recomputed for every neighbour.
        x, r, direction, rz, k = carry
        product = matvec(direction)
        length = rz / jnp.vdot(direction, product)
        x, r = x + length * direction, r - length * product
        z = precondition(r)
        rz_new = jnp.vdot(r, z)
        return x, r, z + (rz_new / rz) * direction, rz_new, k + 1

    z = precondition(b)
    start = (jnp.zeros_like(b), b, z, jnp.vdot(b, z), jnp.zeros((), jnp.int32))
    x, r, _, _, k = jax.lax.while_loop(unfinished, step, start)
    return x, k, jnp.vdot(r, r) <= target


def _bicgstab(matvec: Linear, precondition: Linear, b, rtol, max_steps):
    """Right-preconditioned BiCGStab (van der Vorst 1992), for matrices that are not symmetric.

    Where the residual has become orthogonal to the shadow residual the method breaks down; it is
    restarted with the present residual as shadow.
    """
    target = (rtol * rtol) * jnp.vdot(b, b)
    orthogonal = 10 * jnp.finfo(b.dtype).eps

    def unfinished(carry):
        _, r, *_, k = carry
        return (jnp.vdot(r, r) > target) & (k < max_steps)

    def step(carry):
        x, r, shadow, p, v, rho, alpha, omega, k = carry
        rho_new = jnp.vdot(shadow, r)
        length = jnp.sqrt(jnp.vdot(shadow, shadow) * jnp.vdot(r, r))
        restart = (jnp.abs(rho_new) <= orthogonal * length) | (omega == 0) | (rho == 0)
        shadow = jnp.where(restart, r, shadow)
        rho_new = jnp.where(restart, jnp.vdot(r, r), rho_new)
        beta = jnp.where(restart, 0.0, _ratio(rho_new * alpha, rho * omega)).astype(b.dtype)
        p = r + beta * (p - omega * v)
        p_hat = precondition(p)
        v = matvec(p_hat)
        alpha = _ratio(rho_new, jnp.vdot(shadow, v))
        s = r - alpha * v
        s_hat = precondition(s)
        t = matvec(s_hat)
        omega = _ratio(jnp.vdot(t, s), jnp.vdot(t, t))
        x = x + alpha * p_hat + omega * s_hat
        return x, s - omega * t, shadow, p, v, rho_new, alpha, omega, k + 2

    one, zero = jnp.ones((), b.dtype), jnp.zeros_like(b)
    start = (zero, b, b, zero, zero, one, one, one, jnp.zeros((), jnp.int32))
    out = jax.lax.while_loop(unfinished, step, start)
    return out[0], out[-1], jnp.vdot(out[1], out[1]) <= target


def _ratio(a: Array, b: Array) -> Array:
    """a/b, and 0 where b is 0: a step of no length, after which the method restarts."""
    return jnp.where(b == 0, jnp.zeros_like(a), a / jnp.where(b == 0, jnp.ones_like(b), b))


def _defect_correction(matvec: Linear, solve: Linear, b, rtol, max_steps):
    """x ← x + solve(b − A x), for solvers that are no linear symmetric preconditioner."""
    target = (rtol * rtol) * jnp.vdot(b, b)

    def unfinished(carry):
        _, r, k = carry
        return (jnp.vdot(r, r) > target) & (k < max_steps)

    def step(carry):
        x, r, k = carry
        x = x + solve(r)
        return x, b - matvec(x), k + 1

    x, r, k = jax.lax.while_loop(unfinished, step, (jnp.zeros_like(b), b, jnp.zeros((), jnp.int32)))
    return x, k, jnp.vdot(r, r) <= target


_METHODS = {
    "conjugate_gradient": _conjugate_gradient,
    "bicgstab": _bicgstab,
    "defect_correction": _defect_correction,
}


def solve_krylov(
    matvec: Linear,
    precondition: Linear,
    right: Float[Array, " c"],
    *,
    method: str,
    rtol: Float[Array, ""] | float,
    max_steps: int,
) -> KrylovSolution:
    """Solve A x = b for a matrix given by its products.

    Differentiable in `b` and in whatever `matvec` closes over, to any order: the rule is the one
    of the linear system, not of the iteration.

    **Arguments:**

    - `precondition`: an approximate inverse, linear and symmetric (for `defect_correction`: any
      approximate solve).
    - `method`: `conjugate_gradient` (A symmetric positive definite), `bicgstab`, or
      `defect_correction`.
    - `rtol`: on the Euclidean norm of the residual relative to that of `b`.

    **Returns:** a [`KrylovSolution`][].
    """
    iterate = _METHODS[method]

    def solve(product, right):
        b, *_ = right
        # Squares of flows per control volume leave the range of float32: solve for b of size one.
        size = jnp.max(jnp.abs(b), initial=0.0)
        size = jnp.where(size > 0, size, 1.0).astype(b.dtype)
        zero = jnp.zeros((), b.dtype)
        only = lambda x: product((x, zero, zero))[0]
        value, iterations, converged = iterate(only, precondition, b / size, rtol, max_steps)
        # Inside a derivative nobody reads `converged`: an unsolved system must not look solved.
        value = jnp.where(converged, size * value, jnp.nan)
        return value, iterations.astype(b.dtype), converged.astype(b.dtype)

    # The counts ride along as two further unknowns, so that batching treats them like any other
    # (auxiliary outputs of a custom linear solve cannot be batched under forward mode). Their rows
    # are the identity and their right-hand side is zero, but written as linear in `right` and in
    # the product: transposition wants a tangent in every row or in none.
    none = 0.0 * right[0]

    def extended(x):
        product = matvec(x[0])
        nothing = 0.0 * product[0]
        return product, x[1] + nothing, x[2] + nothing

    symmetric = method == "conjugate_gradient"
    value, iterations, converged = jax.lax.custom_linear_solve(
        extended,
        (right, none, none),
        solve,
        None if symmetric else solve,
        symmetric=symmetric,
    )
    iterations = jax.lax.stop_gradient(iterations).astype(jnp.int32)
    return KrylovSolution(value, iterations, jax.lax.stop_gradient(converged) > 0)
