"""Padding of problems to buckets of sizes, so that two patients run one compiled program.

A padded problem has more nodes, segments, control volumes and so on than the real one; the
further ones are physically harmless and touch no real one. How many are real is an array leaf, not
a static field, for static data would make programs differ. Each room says what harmless means for
its own types, and registers them here.
"""

import functools
import importlib.util
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from ._custom_types import as_leaf
from ._misc import InputError, is_traced

# Sizes up to this stay as they are.
_EXACT = 8
# From one size to the next, in per cent.
_STEP = 112


def bucket_size(n: int) -> int:
    """The size that n entries are padded to: n up to 8, then at most 12 % more."""
    size = _EXACT
    while size < n:
        size = max(size + 1, size * _STEP // 100)
    return n if n <= _EXACT else size


def coarse_size(n: int) -> int:
    """The size of what is small beside the rest and many: a power of two, or one and a half."""
    size = 1 << max(n - 1, 0).bit_length()
    return 3 * size // 4 if size >= 4 and n <= 3 * size // 4 else size


def padded(x: Array | np.ndarray, n: int, fill: float | Array | np.ndarray) -> Array:
    """x with its first axis at length n, further entries `fill`.

    On the host where the values are known: each shape would else compile a program.
    """
    more = (n - x.shape[0], *x.shape[1:])
    if is_traced(x) or is_traced(fill):
        end = jnp.broadcast_to(jnp.asarray(fill, x.dtype), more)
        return jnp.concatenate([jnp.asarray(x), end])
    known = np.asarray(x)
    return as_leaf(np.concatenate([known, np.full(more, fill, known.dtype)]))


def padded_square(x: Array, n: int) -> Array:
    """A square matrix at size n, further rows and columns those of the identity."""
    m = x.shape[0]
    if is_traced(x):
        return jnp.eye(n, dtype=x.dtype).at[:m, :m].set(x)
    out = np.eye(n, dtype=x.dtype)
    out[:m, :m] = np.asarray(x)
    return as_leaf(out)


def cut(x: Array, n: int) -> Array:
    """The first n entries of x; the inverse of `padded`."""
    return x[:n] if is_traced(x) else as_leaf(np.asarray(x)[:n])


def kept(x: Array, real: Bool[Array, " n"], fill: float | Array | np.ndarray) -> Array:
    """x where its entry is real, `fill` elsewhere, whatever stands there: NaN too."""
    mask = real.reshape(real.shape + (1,) * (x.ndim - 1))
    return jnp.where(mask, x, jnp.asarray(fill, x.dtype))


def kept_square(x: Array, real: Bool[Array, " n"]) -> Array:
    """A square matrix with the rows and columns of the identity where they are not real."""
    return jnp.where(real[:, None] & real[None, :], x, jnp.eye(real.shape[0], dtype=x.dtype))


def count_leaf(n: int) -> Array:
    """A number of real entries as the array leaf that a padded problem carries."""
    return as_leaf(n, np.int32)


def is_real(count: Array, n: int) -> Bool[Array, " n"]:
    """Which of n entries are real."""
    return jnp.arange(n, dtype=jnp.int32) < count


@functools.singledispatch
def pad_problem(problem: Any) -> Any:
    """A problem padded to a bucket of sizes; runs on the host.

    Two padded problems whose sizes fall into the same buckets run one compiled program and stack
    under `jax.vmap`. Sizes up to 8 stay as they are, beyond they grow by at most 12 %. What is
    added is harmless: the solution of the real entries is that of the problem itself, and a
    derivative with respect to them too (of a transient problem: with as many time steps).
    [`jaxperf.cut_solution`][] takes them out.

    **Arguments:** `problem`, a [`jaxperf.SteadyProblem`][], [`jaxperf.DarcyProblem`][],
    [`jaxperf.PerfusionProblem`][] or [`jaxperf.Flow1DProblem`][], or a mesh of
    [`jaxperf.darcy_mesh`][]; its floating-point leaves may be traced, so that derivatives run
    through the padding.

    **Returns:** a problem of the same type. Names of branches and the frame are left out: they
    would make programs differ. The steps of a transient problem get shorter by up to 12 %, so that
    their number is one of a few.

    **Errors:** [`InputError`][] for what cannot be padded.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    n = len(tree.terminals)
    outlet = jp.ResistanceOutlet(tree.terminals, np.full(n, 5e10), np.full(n, 2e3))
    problem = jp.SteadyProblem(tree, (inlet, outlet))
    flow = jp.cut_solution(jp.solve_steady(jp.pad_problem(problem)), problem).flow
    ```
    """
    # The file that knows how may not have been loaded with the type: names load on first use.
    room = type(problem).__module__.rpartition(".")[0]
    if room.startswith("jaxperf.") and importlib.util.find_spec(f"{room}._padding"):
        importlib.import_module(f"{room}._padding")
    handler = pad_problem.dispatch(type(problem))
    if handler is pad_problem.dispatch(object):
        _refuse(problem, "pad_problem", "a problem of steady, Darcy, coupled or transient flow")
    return handler(problem)


@functools.singledispatch
def cut_solution(solution: Any, problem: Any) -> Any:
    """The real entries of the solution of a padded problem.

    **Arguments:** `solution`, of `jaxperf.pad_problem(problem)`; `problem`, the real one.

    **Returns:** a solution of the same type, as if `problem` had been solved.

    **Errors:** [`InputError`][] for what is no solution of a padded problem.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    n = len(tree.terminals)
    outlet = jp.ResistanceOutlet(tree.terminals, np.full(n, 5e10), np.full(n, 2e3))
    problem = jp.SteadyProblem(tree, (inlet, outlet))
    flow = jp.cut_solution(jp.solve_steady(jp.pad_problem(problem)), problem).flow
    ```
    """
    _refuse(solution, "cut_solution", "a solution of steady, Darcy, coupled or transient flow")


def _refuse(thing: Any, where: str, expected: str) -> None:
    raise InputError(
        f"it got {type(thing).__name__}",
        where=where,
        expected=expected,
        fix="Pad and cut whole problems and their solutions",
    )


def refuse_padded(real: Any, where: str) -> None:
    """Refuse to pad what is padded already: its counts would be lost."""
    if real is not None:
        raise InputError(
            "it is padded already",
            where=where,
            expected="a problem as it was built",
            fix="Pad once, and keep the real problem for cut_solution",
        )
