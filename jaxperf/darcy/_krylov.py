"""Krylov methods, differentiated by the linear system they solve."""

from collections.abc import Callable
from typing import TypeAlias

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


class KrylovSolution(eqx.Module):
    """What a Krylov method found.

    **Attributes:** `value`, NaN where the residual did not reach the tolerance; its `iterations`
    (products with the matrix); whether it `converged`; `definite`, false where conjugate
    gradients met a direction without positive curvature.
    """

    value: Float[Array, " c"]
    iterations: Int[Array, ""]
    converged: Bool[Array, ""]
    definite: Bool[Array, ""]


Linear = Callable[[Array], Array]
# The fields of a `KrylovSolution`, in its order.
_Found: TypeAlias = tuple[Float[Array, " c"], Int[Array, ""], Bool[Array, ""], Bool[Array, ""]]
# A solution, its residual and the number of products.
_Corrected: TypeAlias = tuple[Float[Array, " c"], Float[Array, " c"], Int[Array, ""]]
# A solution or a right-hand side, and the report that rides along.
_Extended: TypeAlias = tuple[Float[Array, " c"], Float[Array, "3"]]


class _Conjugate(eqx.Module):
    """What conjugate gradients carry from one iteration to the next."""

    x: Float[Array, " c"]
    r: Float[Array, " c"]
    direction: Float[Array, " c"]
    rz: Float[Array, ""]
    k: Int[Array, ""]
    definite: Bool[Array, ""]


def _conjugate_gradient(
    matvec: Linear,
    precondition: Linear,
    b: Float[Array, " c"],
    rtol: Float[Array, ""] | float,
    max_steps: int,
) -> _Found:
    """Preconditioned conjugate gradients (Hestenes and Stiefel 1952).

    They end at a direction d with dᵀAd ≤ 0, a residual with rᵀMr ≤ 0, or at what is no number.
    """
    target = (rtol * rtol) * jnp.vdot(b, b)

    def unfinished(at: _Conjugate) -> Bool[Array, ""]:
        return (jnp.vdot(at.r, at.r) > target) & (at.k < max_steps) & at.definite

    def step(at: _Conjugate) -> _Conjugate:
        # The product acts on a carried array: fused with the update of the direction it would
        # be recomputed for every neighbour. So the first turn moves along no direction and only
        # makes one: a preconditioner written once in the program is compiled once.
        first = at.k < 0
        product = matvec(at.direction)
        curvature = jnp.vdot(at.direction, product)
        length = jnp.where(first, 0.0, at.rz / curvature).astype(b.dtype)
        x, r = at.x + length * at.direction, at.r - length * product
        z = precondition(r)
        rz = jnp.vdot(r, z)
        # rᵀMr ≤ 0: the preconditioner has lost its definiteness.
        sound = jnp.isfinite(rz) & ((rz > 0) | (jnp.vdot(r, r) == 0))
        definite = (first | (curvature > 0)) & sound
        beta = jnp.where(first, 0.0, rz / at.rz).astype(b.dtype)
        return _Conjugate(x, r, z + beta * at.direction, rz, at.k + 1, definite)

    zero, none = jnp.zeros((), b.dtype), jnp.zeros_like(b)
    start = _Conjugate(none, b, none, zero, jnp.asarray(-1, jnp.int32), jnp.asarray(True))
    end = jax.lax.while_loop(unfinished, step, start)
    converged = jnp.vdot(end.r, end.r) <= target
    return end.x, jnp.maximum(end.k, 0), converged, end.definite


def _bicgstab(
    matvec: Linear,
    precondition: Linear,
    b: Float[Array, " c"],
    rtol: Float[Array, ""] | float,
    max_steps: int,
) -> _Found:
    """Right-preconditioned BiCGStab (van der Vorst 1992), for matrices that are not symmetric.

    Where the residual has become orthogonal to the shadow residual the method breaks down; it is
    restarted with the present residual as shadow.
    """
    target = (rtol * rtol) * jnp.vdot(b, b)
    orthogonal = 10 * jnp.finfo(b.dtype).eps

    def unfinished(carry: tuple[Array, ...]) -> Bool[Array, ""]:
        _, r, *_, k = carry
        return (jnp.vdot(r, r) > target) & (k < max_steps)

    def step(carry: tuple[Array, ...]) -> tuple[Array, ...]:
        x, r, shadow, p, v, rho, alpha, omega, k = carry
        rho_new = jnp.vdot(shadow, r)
        length = jnp.sqrt(jnp.vdot(shadow, shadow) * jnp.vdot(r, r))
        restart = (jnp.abs(rho_new) <= orthogonal * length) | (omega == 0) | (rho == 0)
        shadow = jnp.where(restart, r, shadow)
        rho_new = jnp.where(restart, jnp.vdot(r, r), rho_new)
        beta = jnp.where(restart, 0.0, ratio(rho_new * alpha, rho * omega)).astype(b.dtype)
        p = r + beta * (p - omega * v)
        p_hat = precondition(p)
        v = matvec(p_hat)
        alpha = ratio(rho_new, jnp.vdot(shadow, v))
        s = r - alpha * v
        s_hat = precondition(s)
        t = matvec(s_hat)
        omega = ratio(jnp.vdot(t, s), jnp.vdot(t, t))
        x = x + alpha * p_hat + omega * s_hat
        return x, s - omega * t, shadow, p, v, rho_new, alpha, omega, k + 2

    one, zero = jnp.ones((), b.dtype), jnp.zeros_like(b)
    start = (zero, b, b, zero, zero, one, one, one, jnp.zeros((), jnp.int32))
    out = jax.lax.while_loop(unfinished, step, start)
    return out[0], out[-1], jnp.vdot(out[1], out[1]) <= target, jnp.asarray(True)


def ratio(a: Array, b: Array) -> Array:
    """a/b, and 0 where b is 0: a step of no length, after which the method restarts."""
    return jnp.where(b == 0, jnp.zeros_like(a), a / jnp.where(b == 0, jnp.ones_like(b), b))


def _defect_correction(
    matvec: Linear,
    solve: Linear,
    b: Float[Array, " c"],
    rtol: Float[Array, ""] | float,
    max_steps: int,
) -> _Found:
    """x ← x + solve(b − A x), for solvers that are no linear symmetric preconditioner."""
    target = (rtol * rtol) * jnp.vdot(b, b)

    def unfinished(carry: _Corrected) -> Bool[Array, ""]:
        _, r, k = carry
        return (jnp.vdot(r, r) > target) & (k < max_steps)

    def step(carry: _Corrected) -> _Corrected:
        x, r, k = carry
        x = x + solve(r)
        return x, b - matvec(x), k + 1

    x, r, k = jax.lax.while_loop(unfinished, step, (jnp.zeros_like(b), b, jnp.zeros((), jnp.int32)))
    return x, k, jnp.vdot(r, r) <= target, jnp.asarray(True)


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

    **Example:**

    ```python
    import jax, jax.numpy as jnp, numpy as np
    from jaxperf.darcy import solve_krylov
    matrix = np.array([[4.0, 1.0], [1.0, 3.0]])
    solve = lambda b: solve_krylov(
        lambda x: matrix @ x, lambda r: r, b, method="conjugate_gradient", rtol=1e-12, max_steps=9
    )
    found = jax.jit(solve)(jnp.ones(2))
    ```
    """
    iterate = _METHODS[method]

    def solve(product: Callable[[_Extended], _Extended], right: _Extended) -> _Extended:
        b, *_ = right
        # Squares of flows per control volume leave the range of float32: solve for b of size one.
        size = jnp.max(jnp.abs(b), initial=0.0)
        size = jnp.where(size > 0, size, 1.0).astype(b.dtype)
        only = lambda x: product((x, jnp.zeros(3, b.dtype)))[0]
        value, *report = iterate(only, precondition, b / size, rtol, max_steps)
        # Inside a derivative nobody reads `converged`: an unsolved system must not look solved.
        value = jnp.where(report[1], size * value, jnp.nan)
        return value, jnp.stack([part.astype(b.dtype) for part in report])

    # The report rides along as further unknowns, so that batching treats it like any other
    # (auxiliary outputs of a custom linear solve cannot be batched under forward mode). Its rows
    # are the identity and its right-hand side is zero, but written as linear in `right` and in
    # the product: transposition wants a tangent in every row or in none.
    none = jnp.broadcast_to(0.0 * right[0], (3,))

    def extended(x: _Extended) -> _Extended:
        product = matvec(x[0])
        return product, x[1] + 0.0 * product[0]

    symmetric = method == "conjugate_gradient"
    value, report = jax.lax.custom_linear_solve(
        extended,
        (right, none),
        solve,
        None if symmetric else solve,
        symmetric=symmetric,
    )
    iterations, converged, definite = jax.lax.stop_gradient(report)
    return KrylovSolution(value, iterations.astype(jnp.int32), converged > 0, definite > 0)
