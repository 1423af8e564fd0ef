r"""Conjugate gradients with a smoothed-aggregation V-cycle.

On every level two steps of Chebyshev's iteration smooth before and after the correction from the
next one, whose matrix is $P^TAP$. The cycle is one linear, symmetric, positive definite map, so it
preconditions conjugate gradients here and in the coupled solve. It runs in single precision unless
asked otherwise: what is solved, and to which tolerance, is a matter of the outer iteration alone.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._padding import is_real, kept
from ._assembly import check_permeability, VoxelDarcyMesh
from ._hierarchy import build_hierarchy, Hierarchy, Level
from ._mesh import AbstractDarcyMesh
from ._operator import DarcyOperator
from ._rows import Rows
from ._solver import AbstractDarcySolver, conjugate_gradient_solution, DarcySolution
from ._tensor import VoxelTensorDarcyMesh

# Chebyshev's polynomial damps the upper part of the spectrum, above this share of its bound.
_SMOOTHED_SHARE = 0.1
# What the diagonal of the coarsest matrix gains, in units of rounding.
_LIFT = 64.0


class Multigrid(AbstractDarcySolver):
    """Conjugate gradients with a V-cycle of smoothed aggregation as preconditioner.

    Made by [`jaxperf.darcy.multigrid`][] for one mesh. Its prolongations stay as they are when
    permeability or exchange change; `init` computes the matrices of all levels anew. It refuses an
    operator with other numbers of control volumes or edges; that they are those of this mesh is up
    to the caller.

    **Attributes:** `hierarchy`; `rtol`, on the residual, where `None` as in
    [`jaxperf.darcy.ConjugateGradient`][]; `max_steps`, products with the matrix at most; `dtype`
    of the cycle. Pass it to a jitted function as an argument: as a constant its fences against
    fusion would be folded away, and a solve on a processor take several times as long.

    **Source:** Vaněk, Mandel, Brezina, Computing 56:179 (1996); Adams, Brezina, Hu, Tuminaro,
    J Comput Phys 188:593 (2003) and Baker, Falgout, Kolev, Yang, SIAM J Sci Comput 33:2864 (2011)
    for the smoother.
    """

    hierarchy: Hierarchy
    rtol: float | None = eqx.field(static=True, default=None)
    max_steps: int = eqx.field(static=True, default=500)
    dtype: Any = eqx.field(static=True, default=jnp.float32)

    @property
    def is_linear_symmetric(self) -> bool:
        return True

    def init(self, operator: DarcyOperator) -> "MultigridState":
        return refit(self.hierarchy, operator, self.dtype)

    def precondition(
        self, state: "MultigridState", residual: Float[Array, " c"]
    ) -> Float[Array, " c"]:
        return cycle(state, residual)

    def solve(
        self,
        state: "MultigridState",
        source: Float[Array, " c"],
        *,
        max_steps: int | None = None,
    ) -> DarcySolution:
        steps = self.max_steps if max_steps is None else max_steps
        return conjugate_gradient_solution(self, state, source, self.rtol, steps)


def multigrid(
    mesh: AbstractDarcyMesh,
    permeability: Float[Array, "..."] | float = 1.0,
    *,
    rtol: float | None = None,
    max_steps: int = 500,
    dtype: Any = jnp.float32,
) -> Multigrid:
    """Set up a multigrid solver for a mesh; runs on the host.

    **Arguments:**

    - `mesh`: from [`jaxperf.darcy.darcy_mesh`][].
    - `permeability`: in any form that `mesh.transmissibility` takes; its pattern shapes the
      aggregates and prolongations, its size plays no part. One for the whole wall serves unless it
      varies by orders of magnitude or is strongly anisotropic.
    - `rtol`, `max_steps`, `dtype`: see [`jaxperf.darcy.Multigrid`][].

    **Returns:** a [`jaxperf.darcy.Multigrid`][].

    **Example:**

    ```python
    import jaxperf as jp
    mesh = jp.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    volume = mesh.graph.volume
    operator = jp.darcy_operator(mesh.graph, mesh.transmissibility(2e-9), 1e-5 * volume)
    problem = jp.DarcyProblem(operator, 0.02 * volume)
    pressure = jp.solve_darcy(problem, jp.darcy.multigrid(mesh)).pressure_tissue
    ```
    """
    given = np.asarray(permeability, float)
    check_permeability(mesh, given, "multigrid: permeability")
    transmissibility = np.asarray(mesh.transmissibility(jnp.asarray(given)), np.float64)
    voxels = isinstance(mesh, VoxelDarcyMesh | VoxelTensorDarcyMesh)
    ijk = np.asarray(mesh.cell_ijk) if voxels else None
    return Multigrid(build_hierarchy(mesh.graph, transmissibility, ijk), rtol, max_steps, dtype)


class _LevelState(eqx.Module):
    """A level with the coefficients of an operator, in the precision of the cycle."""

    level: Level
    weight: tuple[Float[Array, "_ _"], ...]
    diagonal: Float[Array, " n"]
    # D⁻¹, one over the sum of the sizes of each row's entries
    inverse: Float[Array, " n"]

    def product(self, x: Float[Array, " n *b"]) -> Float[Array, " n *b"]:
        return _times(self.diagonal, x) + self.level.pattern.rows.product(self.weight, x)


def _times(diagonal: Float[Array, " n"], x: Float[Array, " n *b"]) -> Float[Array, " n *b"]:
    return diagonal.reshape(diagonal.shape + (1,) * (x.ndim - 1)) * x


class MultigridState(eqx.Module):
    operator: DarcyOperator
    levels: tuple[_LevelState, ...]
    coarsest: Float[Array, "m m"]
    scale: Float[Array, ""]


def refit(hierarchy: Hierarchy, operator: DarcyOperator, dtype: type | np.dtype) -> MultigridState:
    """The matrices of all levels for other coefficients, prolongations as they are."""
    got = (operator.graph.n_cells, operator.graph.edge.shape[0])
    if got != (hierarchy.n_cells, hierarchy.n_edges):
        raise ValueError(
            f"the operator has {got[0]} control volumes and {got[1]} edges; expected "
            f"{hierarchy.n_cells} and {hierarchy.n_edges}, those of the mesh that multigrid was "
            "set up for: set one up for this mesh"
        )
    # What preconditions changes no solution: nothing is differentiated through it.
    fixed = jax.lax.stop_gradient(operator)
    scale = 1.0 / jnp.max(fixed.diagonal)
    narrow = lambda x: (x * scale).astype(dtype)
    off, diagonal = narrow(-fixed.transmissibility), narrow(fixed.diagonal)
    levels = []
    for level in hierarchy.levels:
        weight = level.pattern.weights(off)
        size = level.pattern.rows.sums(tuple(jnp.abs(w) for w in weight))
        levels.append(_LevelState(level, weight, diagonal, 1.0 / (diagonal + size)))
        value = jnp.concatenate([off, diagonal])
        for part in (level.first, level.second):
            value = fenced(part.rows, part, value)
        n = level.n_coarse
        off, diagonal = value[:-n], value[-n:]
        if level.real is not None:
            # padded control volumes stay apart, at the size that the finest diagonal is scaled to
            diagonal = kept(diagonal, is_real(level.real, n), 1.0)
    coarsest = _dense_inverse(hierarchy.coarsest_edge, off, diagonal, scale.dtype)
    return MultigridState(operator, tuple(levels), coarsest, scale)


def _dense_inverse(edge: Array, off: Array, diagonal: Array, dtype: type | np.dtype) -> Array:
    """Of the coarsest matrix, in its own precision but computed in another, the operator's.

    Rounding may have taken its definiteness where sinks are weak; what is added to the diagonal
    gives it back, and slows the one mode that only the sinks hold.
    """
    n = diagonal.shape[0]
    lift = jnp.asarray(1.0 + _LIFT * float(jnp.finfo(off.dtype).eps), dtype)
    lifted = lift * diagonal.astype(dtype)
    off, (i, j) = off.astype(dtype), edge.T
    matrix = jnp.zeros((n, n), dtype).at[i, j].set(off).at[j, i].set(off) + jnp.diag(lifted)
    # Symmetric to the last bit, as the cycle has to be.
    inverse = jax.scipy.linalg.cho_solve(
        (jnp.linalg.cholesky(matrix), True), jnp.eye(n, dtype=dtype)
    )
    return (0.5 * (inverse + inverse.T)).astype(diagonal.dtype)


@jax.jit
def fenced(rows: Rows, function: Callable, x: Array) -> Array:
    """function(x), kept from fusing with what makes x; the function is a pytree.

    XLA:CPU fuses a chain of gathers and computes each link anew for every element that asks for
    it. A branch that is known at run time only, by an index of the `rows`, keeps the links apart.
    """
    out = jax.eval_shape(function, x)
    nothing = lambda _: jnp.zeros(out.shape, out.dtype)
    known = rows.column[0][0, 0] >= 0
    apart = lambda x: jax.lax.cond(known, lambda x: function(x), nothing, x)
    return jax.lax.platform_dependent(x, cpu=apart, default=lambda x: function(x))


def _smooth(
    state: _LevelState,
    product: Callable[[Array], Array],
    right: Float[Array, " n *b"],
    x: Float[Array, " n *b"] | None = None,
) -> Float[Array, " n *b"]:
    """Two steps of Chebyshev's iteration for D⁻¹A on its upper spectrum, whose bound is 1.

    That is Gershgorin's, whatever the coefficients. A power method of few steps misses the
    eigenvalue of one place that differs from all others, and the cycle can be indefinite then.
    """
    low = _SMOOTHED_SHARE
    middle, half = 0.5 * (1.0 + low), 0.5 * (1.0 - low)
    sigma = middle / half
    rho = 1.0 / sigma
    rho_next = 1.0 / (2.0 * sigma - rho)
    residual = right if x is None else right - product(x)
    move = _times(state.inverse, residual) / middle
    x = move if x is None else x + move
    residual = residual - product(move)
    move = (rho_next * rho) * move + (2.0 * rho_next / half) * _times(state.inverse, residual)
    return x + move


@jax.custom_batching.custom_vmap
def cycle(state: MultigridState, right: Float[Array, " c"]) -> Float[Array, " c"]:
    """One symmetric V-cycle from zero. Solves are differentiated by their linear systems; through
    a single cycle itself there is no reverse mode.
    """
    return _cycle(state, right)


@cycle.def_vmap
def _cycles(
    axis_size: int,
    batched: Sequence[PyTree[bool]],
    state: MultigridState,
    right: Float[Array, "..."],
) -> tuple[Float[Array, "..."], bool]:
    """Several at once lie side by side, so that what is read of the matrices serves all of them."""
    of_state, of_right = batched
    if any(jax.tree.leaves(of_state)):
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        return jax.vmap(_cycle, in_axes=axes, axis_size=axis_size)(state, right), True
    return _cycle(state, right.T).T, of_right


def _cycle(state: MultigridState, right: Float[Array, " c *b"]) -> Float[Array, " c *b"]:
    first = state.levels[0].diagonal if state.levels else state.coarsest
    # Scaled to one: flows and conductances of a control volume leave the range of float32.
    size = jnp.max(jnp.abs(right), axis=0, keepdims=right.ndim > 1)
    size = jnp.where(size > 0, size, jnp.ones_like(size))
    found = _descend(state, 0, (right / size).astype(first.dtype))
    return found.astype(right.dtype) * (size * state.scale.astype(right.dtype))


def _descend(
    state: MultigridState, depth: int, right: Float[Array, " c *b"]
) -> Float[Array, " c *b"]:
    if depth == len(state.levels):
        # the default of accelerators is coarser than float32
        return jnp.matmul(state.coarsest, right, precision=jax.lax.Precision.HIGHEST)
    at = state.levels[depth]
    level = at.level
    product = functools.partial(fenced, level.pattern.rows, at.product)
    x = _smooth(at, product, right)
    below = fenced(level.restrict.rows, level.restrict, right - product(x))
    x = x + fenced(level.prolong.rows, level.prolong, _descend(state, depth + 1, below))
    return _smooth(at, product, right, x)
