r"""Storage: S ∂p/∂t − ∇·K∇p + s p = f, as a term for diffrax and an implicit step for it.

On control volumes, with the storage S (1/Pa) of the tissue and its blood,

$$S_iV_i\,\dot p_i = f_i(t) - (Ap)_i.$$

The fastest of its rates grow with the square of the number of voxels across the wall, so steps
that follow the pressures of interest are implicit.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._custom_types import cast_like, ScalarLike
from .._misc import InputError, is_traced
from .._results import RESULTS
from ._operator import darcy_operator
from ._solver import AbstractDarcySolver, ConjugateGradient, DarcyProblem, solve_darcy

_GAMMA = 1.0 - 0.5**0.5


class DarcyState(eqx.Module):
    """State of transient Darcy flow.

    **Attributes:** `pressure` (c,) Pa; `passed` (c,) m³, the volume that has left through the
    sink of each control volume less what its source brought, or through it where its pressure is
    prescribed. Σ S V p + Σ passed does not change.
    """

    pressure: Float[Array, " c"]
    passed: Float[Array, " c"]


class DarcyRate(eqx.Module):
    """The time derivative of a [`jaxperf.darcy.DarcyState`][]; made by
    [`jaxperf.darcy.darcy_term`][].

    **Attributes:** `problem`; `capacity` (c,) m³/Pa, S V of each control volume; `source`, a
    function of time and args that takes the place of the problem's, m³/s, or None.
    """

    problem: DarcyProblem
    capacity: Float[Array, " c"]
    source: Callable[[Any, Any], Float[Array, " c"]] | None = None

    def source_at(self, t: Any, args: Any) -> Float[Array, " c"]:
        """f(t), m³/s."""
        return self.problem.source if self.source is None else self.source(t, args)

    def drain(self, pressure: Float[Array, " c"], source: Float[Array, " c"]) -> Array:
        """The rate of `passed`, m³/s."""
        operator, fixed = self.problem.operator, self.problem.fixed
        out = operator.sink * pressure - source
        if fixed is None:
            return out
        # what the neighbours send to a prescribed pressure leaves there
        return jnp.where(fixed, operator.sink * pressure - operator(pressure), out)

    def __call__(self, t: Any, state: DarcyState, args: Any) -> DarcyState:
        source = self.source_at(t, args)
        rate = (source - self.problem.operator(state.pressure)) / self.capacity
        if self.problem.fixed is not None:
            rate = jnp.where(self.problem.fixed, jnp.zeros_like(rate), rate)
        return DarcyState(rate, self.drain(state.pressure, source))


def darcy_term(
    problem: DarcyProblem,
    storage: ScalarLike,
    *,
    source: Callable[[Any, Any], Float[Array, " c"]] | None = None,
) -> diffrax.ODETerm:
    """Transient Darcy flow as a term for `diffrax.diffeqsolve`.

    Any of diffrax's solvers takes it; [`jaxperf.darcy.DarcySDIRK2`][] solves its stages by the
    solvers of Darcy's equation. Prescribed pressures are constant in time.

    **Arguments:**

    - `problem`: a [`jaxperf.darcy.DarcyProblem`][], such as
      [`jaxperf.darcy.darcy_problem`][] makes with conditions on the surface.
    - `storage`: S, 1/Pa, one for all or (c,).
    - `source`: f(t, args) → (c,) m³/s in place of the problem's own.

    **Errors:** [`InputError`][] for a storage that is not positive or has another shape.

    **Example:**

    ```python
    import diffrax, jaxperf as jp
    mesh = jp.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    volume = mesh.graph.volume
    operator = jp.darcy_operator(mesh.graph, mesh.transmissibility(2e-9), 1e-5 * volume)
    problem = jp.DarcyProblem(operator, 0.02 * volume)
    term, state = jp.darcy.darcy_term(problem, 1e-5), jp.darcy.darcy_state(problem, 0.0)
    found = diffrax.diffeqsolve(term, jp.darcy.DarcySDIRK2(), 0.0, 1.0, 0.25, state)
    ```
    """
    volume = problem.operator.graph.volume
    given = cast_like(storage, problem.source)
    if given.shape not in ((), volume.shape):
        _refuse(f"the storage has shape {given.shape}", f"() or {volume.shape}")
    if not is_traced(given) and not bool(jnp.all(jnp.isfinite(given) & (given > 0))):
        _refuse(f"the least storage is {float(jnp.min(given)):.3g} 1/Pa", "positive numbers")
    return diffrax.ODETerm(DarcyRate(problem, given * volume, source))


def _refuse(what: str, expected: str) -> None:
    raise InputError(
        what,
        where="darcy_term",
        expected=expected,
        fix="Give the volume stored per volume of tissue and pascal",
    )


def darcy_state(problem: DarcyProblem, pressure: ScalarLike) -> DarcyState:
    """The state to start from: a pressure (Pa, one for all or (c,)), prescribed ones put in.

    **Example:**

    ```python
    import jaxperf as jp
    mesh = jp.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    volume = mesh.graph.volume
    operator = jp.darcy_operator(mesh.graph, mesh.transmissibility(2e-9), 1e-5 * volume)
    state = jp.darcy.darcy_state(jp.DarcyProblem(operator, 0.02 * volume), 2000.0)
    ```
    """
    like = problem.source
    full = jnp.broadcast_to(cast_like(pressure, like), like.shape)
    if problem.fixed is not None and problem.pressure_fixed is not None:
        full = jnp.where(problem.fixed, problem.pressure_fixed, full)
    return DarcyState(full, jnp.zeros_like(full))


class DarcySDIRK2(diffrax.AbstractSolver):
    r"""A step of second order, L-stable, for [`jaxperf.darcy.darcy_term`][].

    $$\Big(\frac{SV}{\gamma h}+A\Big)\,\gamma h\,k_i = f(t_i) - A\,y_i,\qquad
    y_1=p,\quad y_2=p+(1-\gamma)h\,k_1,\quad p\leftarrow y_2+\gamma h\,k_2,\qquad
    t_1=t+\gamma h,\ t_2=t+h,\qquad\gamma=1-\tfrac1{\sqrt2}$$

    The shift is one more sink, so any solver of Darcy's equation takes the stages. A stage that
    is not solved ends the run with a result.

    **Arguments:** `method`, an [`jaxperf.darcy.AbstractDarcySolver`][].

    **Source:** Alexander, SIAM J Numer Anal 14:1006 (1977), the method of two stages.
    """

    method: AbstractDarcySolver = ConjugateGradient()
    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2

    def init(
        self,
        terms: diffrax.AbstractTerm,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: DarcyState,
        args: PyTree,
    ) -> None:
        _rate(terms)

    def func(
        self, terms: diffrax.AbstractTerm, t0: Float[Array, ""], y0: DarcyState, args: PyTree
    ) -> DarcyState:
        return terms.vf(t0, y0, args)

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: DarcyState,
        args: PyTree,
        solver_state: None,
        made_jump: bool | Bool[Array, ""],
    ) -> tuple[DarcyState, DarcyState, dict[str, DarcyState], None, diffrax.RESULTS]:
        rate = _rate(terms)
        h = jnp.asarray(t1 - t0, y0.pressure.dtype)
        first, first_ok = self._stage(rate, h, t0 + _GAMMA * (t1 - t0), y0, args)
        ahead = jax.tree.map(lambda y, d: y + (1.0 / _GAMMA - 1.0) * d, y0, first)
        second, second_ok = self._stage(rate, h, t1, ahead, args)
        y1 = jax.tree.map(jnp.add, ahead, second)
        error = jax.tree.map(jnp.subtract, second, first)
        result = diffrax.RESULTS.where(
            first_ok & second_ok,
            diffrax.RESULTS.successful,
            diffrax.RESULTS.nonlinear_divergence,  # pyright: ignore[reportArgumentType]
        )
        return y1, error, {"y0": y0, "y1": y1}, None, result

    def _stage(
        self, rate: DarcyRate, h: Float[Array, ""], t: Float[Array, ""], y: DarcyState, args: PyTree
    ) -> tuple[DarcyState, Bool[Array, ""]]:
        """γh k of a stage that starts from y, and whether it was solved."""
        operator, fixed = rate.problem.operator, rate.problem.fixed
        source = rate.source_at(t, args)
        shifted = darcy_operator(
            operator.graph, operator.transmissibility, operator.sink + rate.capacity / (_GAMMA * h)
        )
        right = source - operator(y.pressure)
        still = None if fixed is None else jnp.zeros_like(right)
        found = solve_darcy(DarcyProblem(shifted, right, fixed, still), self.method, throw=False)
        passed = _GAMMA * h * rate.drain(y.pressure + found.pressure_tissue, source)
        return DarcyState(found.pressure_tissue, passed), found.result == RESULTS.successful


def _rate(terms: diffrax.AbstractTerm) -> DarcyRate:
    # diffrax wraps the term in the direction of time
    rate = getattr(getattr(terms, "term", terms), "vector_field", None)
    if not isinstance(rate, DarcyRate):
        raise ValueError(f"DarcySDIRK2 got {type(rate).__name__}; expected a term from darcy_term")
    return rate
