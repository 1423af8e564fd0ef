"""One step in time: Heun's method with the stiff, pointwise friction taken implicitly."""

from collections.abc import Callable
from typing import ClassVar

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ._semidiscretisation import FlowState

_GAMMA = 1.0 - 0.5**0.5


class RelaxedHeun(diffrax.AbstractSolver):
    r"""A linearly implicit Heun step for `du/dt = F(t, u)` with fast damping $d \ge 0$ in F.

    $$(1+\gamma hd)\,k_1=F(t,u),\qquad(1+\gamma hd)\,k_2=F(t+h,u+hk_1)-2k_1,\qquad
    u\leftarrow u+\tfrac32hk_1+\tfrac12hk_2,\qquad\gamma=1-\tfrac1{\sqrt2}$$

    The second-order Rosenbrock method of Verwer with the diagonal $-d$ for the Jacobian: second
    order for any d, L-stable in what d describes, exact in steady states, and Heun's SSP method
    where d = 0.

    **Arguments:** `relaxation`, the function (u, h) ↦ 1/(1 + h d(u)), such as
    `Semidiscretisation.relaxation`.

    **Source:** Verwer, Spee, Blom and Hundsdorfer, SIAM J Sci Comput 20:1456 (1999), ROS2.
    """

    relaxation: Callable[[FlowState, Array], FlowState]
    term_structure: ClassVar = diffrax.ODETerm
    interpolation_cls: ClassVar = diffrax.LocalLinearInterpolation

    def order(self, terms: PyTree[diffrax.AbstractTerm]) -> int:
        return 2

    def init(
        self,
        terms: diffrax.AbstractTerm,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: FlowState,
        args: PyTree,
    ) -> None:
        return None

    def func(
        self, terms: diffrax.AbstractTerm, t0: Float[Array, ""], y0: FlowState, args: PyTree
    ) -> FlowState:
        return terms.vf(t0, y0, args)

    def step(
        self,
        terms: diffrax.AbstractTerm,
        t0: Float[Array, ""],
        t1: Float[Array, ""],
        y0: FlowState,
        args: PyTree,
        solver_state: None,
        made_jump: bool | Bool[Array, ""],
    ) -> tuple[FlowState, FlowState, dict[str, FlowState], None, diffrax.RESULTS]:
        h = t1 - t0
        step = lambda x: jnp.asarray(h, x.dtype)
        relax = self.relaxation(y0, _GAMMA * step(y0.area))
        slope = jax.tree.map(jnp.multiply, terms.vf(t0, y0, args), relax)
        ahead = jax.tree.map(lambda y, k: y + step(y) * k, y0, slope)
        rate = terms.vf(t1, ahead, args)
        second = jax.tree.map(lambda f, k, r: (f - 2.0 * k) * r, rate, slope, relax)
        y1 = jax.tree.map(lambda y, k, s: y + step(y) * (1.5 * k + 0.5 * s), y0, slope, second)
        error = jax.tree.map(jnp.subtract, y1, ahead)
        return y1, error, {"y0": y0, "y1": y1}, None, diffrax.RESULTS.successful
