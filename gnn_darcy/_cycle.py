r"""A symmetric three-level cycle whose coefficients are arguments.

On each of two levels a polynomial in ΛA smooths before and after the correction from the next one,
and the third is solved densely:

    I − B A = q(ΛA) (I − P B_c Pᵀ A) q(ΛA)

With Λ_i ≤ 1/(s_i + 2 Σ_j max(T_ij, 0)) the spectrum of ΛA lies in (0, 1], by Gershgorin's circles,
where |q| < 1. Together with the symmetric correction that makes B symmetric positive definite and
0 ≤ I − B A < I in the energy norm, whatever the coefficients, but for rounding.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxperf.darcy import fenced

from ._plan import AbstractMatrix, FluxPlan, LevelPlan, MatrixByRows

# The optimal polynomial of Lottes (2023), table 1, of this degree: its weights β.
_BETA = (1.00842544782028, 1.08867839208730, 1.33753125909618)
# What the diagonal of the coarsest matrix gains, in units of rounding: sinks can be that weak.
_LIFT = 64.0


class LevelCoefficients(eqx.Module):
    """What a network says of a level. **Attributes:** `damping` (n,) in (0, 1), Λ over its bound;
    `prolongation`, the entries of P, whose rows sum to one.
    """

    damping: Float[Array, " n"]
    prolongation: Float[Array, " p"]


class LevelState(eqx.Module):
    """A level with its coefficients."""

    matrix: AbstractMatrix
    prolong: AbstractMatrix
    restrict: AbstractMatrix
    weight: object
    diagonal: Float[Array, " n"]
    smoother: Float[Array, " n"]
    prolong_weight: object
    restrict_weight: object

    def product(self, x: Float[Array, " n *b"]) -> Float[Array, " n *b"]:
        """A x."""
        return _times(self.diagonal, x) - _apart(self.matrix, self.weight, x)


class CycleState(eqx.Module):
    """Both levels, and the inverse of the coarsest matrix."""

    levels: tuple[LevelState, ...]
    coarsest: Float[Array, "m m"]


def _times(diagonal: Array, x: Array) -> Array:
    return diagonal.reshape(diagonal.shape + (1,) * (x.ndim - 1)) * x


def _apart(matrix: AbstractMatrix, weight: object, x: Array) -> Array:
    """The product, on rows kept from fusing with what makes x."""
    if isinstance(matrix, MatrixByRows):
        return fenced(matrix.pattern.rows, eqx.Partial(matrix.product, weight), x)
    return matrix.product(weight, x)


def diagonal_of(
    plan: LevelPlan, transmissibility: Float[Array, " e"], sink: Float[Array, " n"]
) -> Float[Array, " n"]:
    """s_i + Σ_j T_ij."""
    return sink + _ends(plan, transmissibility)


def _ends(plan: LevelPlan, value: Float[Array, " e"]) -> Float[Array, " n"]:
    first = jax.ops.segment_sum(value, plan.edge[:, 0], plan.n)
    return first + jax.ops.segment_sum(value, plan.edge[:, 1], plan.n)


def level_state(
    plan: LevelPlan,
    transmissibility: Float[Array, " e"],
    sink: Float[Array, " n"],
    said: LevelCoefficients,
) -> LevelState:
    """A level with what a network says of it."""
    diagonal = diagonal_of(plan, transmissibility, sink)
    bound = sink + 2.0 * _ends(plan, jnp.maximum(transmissibility, 0.0))
    return LevelState(
        plan.matrix,
        plan.prolong,
        plan.restrict,
        plan.matrix.weights(transmissibility),
        diagonal,
        said.damping / bound,
        plan.prolong.weights(said.prolongation),
        plan.restrict.weights(said.prolongation),
    )


def coarsened(
    plan: LevelPlan,
    transmissibility: Float[Array, " e"],
    sink: Float[Array, " n"],
    said: LevelCoefficients,
) -> tuple[Float[Array, " f"], Float[Array, " m"]]:
    """Transmissibilities and sinks of PᵀA P."""
    diagonal = diagonal_of(plan, transmissibility, sink)
    ap = plan.first(jnp.concatenate([-transmissibility, diagonal]), said.prolongation)
    coarse = -plan.second(said.prolongation, ap)
    weight = plan.restrict.weights(said.prolongation)
    return coarse, plan.restrict.product(weight, sink)


def coarsest_inverse(
    plan: FluxPlan, transmissibility: Float[Array, " e"], sink: Float[Array, " m"]
) -> Float[Array, "m m"]:
    """Of the dense matrix; padding has an inverse of zero."""
    n, (i, j) = plan.n_coarsest, plan.coarsest_edge.T
    live = jnp.arange(n, dtype=jnp.int32) < plan.n_live_coarsest
    off = jnp.zeros((n, n), sink.dtype).at[i, j].add(-transmissibility)
    off = jnp.where(live[:, None] & live[None], off, 0.0).astype(sink.dtype)
    off = off + off.T
    diagonal = jnp.where(live, sink - off.sum(axis=1), 1.0).astype(sink.dtype)
    lifted = (1.0 + _LIFT * float(jnp.finfo(sink.dtype).eps)) * diagonal
    inverse = _inverse(off + jnp.diag(lifted))
    inverse = jnp.where(live[:, None] & live[None], inverse, 0.0).astype(sink.dtype)
    return 0.5 * (inverse + inverse.T)


@jax.custom_jvp
def _inverse(matrix: Float[Array, "m m"]) -> Float[Array, "m m"]:
    """Of a symmetric positive definite matrix."""
    return _inverse_alone(matrix)


@_inverse.defjvp
def _inverse_jvp(
    primals: tuple[Float[Array, "m m"]], tangents: tuple[Float[Array, "m m"]]
) -> tuple[Float[Array, "m m"], Float[Array, "m m"]]:
    (matrix,), (change,) = primals, tangents
    inverse = _inverse(matrix)
    times = lambda a, b: jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    return inverse, -times(times(inverse, change), inverse)


# One after the other, and no triangular solve in the derivative: two batched ones that run at a
# time wait for each other for ever with jaxlib 0.10 on two cores.
@jax.custom_batching.sequential_vmap
def _inverse_alone(matrix: Array) -> Array:
    factor = jnp.linalg.cholesky(matrix)
    return jax.scipy.linalg.cho_solve((factor, True), jnp.eye(len(matrix), dtype=matrix.dtype))


def _smooth(at: LevelState, right: Array, x: Array | None = None) -> Array:
    """Chebyshev's iteration of the fourth kind with the weights β, for the spectrum (0, 1]."""
    residual = right if x is None else right - at.product(x)
    move = (4.0 / 3.0) * _times(at.smoother, residual)
    for k, beta in enumerate(_BETA, start=1):
        x = beta * move if x is None else x + beta * move
        if k == len(_BETA):
            break
        residual = residual - at.product(move)
        move = ((2 * k - 1) / (2 * k + 3)) * move + ((8 * k + 4) / (2 * k + 3)) * _times(
            at.smoother, residual
        )
    assert x is not None
    return x


def cycle(state: CycleState, right: Float[Array, " n *b"]) -> Float[Array, " n *b"]:
    """B times a right-hand side, or several side by side."""
    return _descend(state, 0, right)


def _descend(state: CycleState, depth: int, right: Array) -> Array:
    if depth == len(state.levels):
        # the default of accelerators is coarser than float32
        return jnp.matmul(state.coarsest, right, precision=jax.lax.Precision.HIGHEST)
    at = state.levels[depth]
    x = _smooth(at, right)
    below = _apart(at.restrict, at.restrict_weight, right - at.product(x))
    x = x + _apart(at.prolong, at.prolong_weight, _descend(state, depth + 1, below))
    return _smooth(at, right, x)
