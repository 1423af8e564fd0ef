"""Tracers: what the tissue takes up at a blood flow, and the flow read back from uptake."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import cast_like, float_leaf, Parameter, ScalarLike
from .._misc import InputError, is_traced
from ..units import M3_S_KG_PER_ML_MIN_G
from ._pet import PETOperator

# Below b/40 the tracer that escapes, a e^-40, is lost beside 1 in any precision.
_ESCAPE = 40.0
# Newton's method from below: 5 reach round-off for rubidium, the others serve `a` near 1.
_STEPS = 8


class AbstractTracer(eqx.Module):
    r"""A tracer by its extraction, the share of it that stays in the tissue at first pass,

    $$K_1 = F\,E(F),\qquad E = 1 - a\,e^{-b/F},$$

    the law of Renkin and Crone, with `a` from 0 to below 1, and `b` in ml/min/g. Uptake rises with
    the flow, between $(1-a)F$ and $F$, so that one flow belongs to each uptake. Below no flow the
    law continues smoothly as $K_1 = F$.
    """

    a: eqx.AbstractVar[ScalarLike]
    b: eqx.AbstractVar[ScalarLike]

    def uptake(self, flow_ml_min_g: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """$K_1$ (ml/min/g) at a blood flow (ml/min/g).

        ```python
        Rubidium82().uptake(jnp.array([1.0, 3.0]))  # [0.59, 1.13]
        ```
        """
        return _uptake(flow_ml_min_g, *self._law(flow_ml_min_g))

    def flow(self, uptake_ml_min_g: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """The blood flow (ml/min/g) at an uptake $K_1$ (ml/min/g): the inverse of `uptake`.

        Newton's method in a fixed number of steps; the derivative is that of the implicit function.

        **Errors:** [`InputError`][] for a negative uptake, where it is known; NaN stays NaN.

        ```python
        Rubidium82().flow(jnp.array([0.59, 1.13]))  # [1.0, 3.0]
        ```
        """
        if not is_traced(uptake_ml_min_g) and (negative := np.asarray(uptake_ml_min_g) < 0).any():
            raise InputError(
                f"{negative.sum()} of {negative.size} uptakes are negative, the least "
                f"{np.nanmin(np.asarray(uptake_ml_min_g)):.4g} ml/min/g",
                where=type(self).__name__,
                expected="uptakes of at least 0",
                fix="Leave these values out, or give them as NaN",
            )
        return _flow(uptake_ml_min_g, *self._law(uptake_ml_min_g))

    def noise_gain(self, flow_ml_min_g: Float[Array, "*k"]) -> Float[Array, "*k"]:
        r"""By how much the tracer enlarges relative noise, $d\ln F/d\ln K_1$, at least 1.

        ```python
        Rubidium82().noise_gain(jnp.array([0.5, 1.0, 3.0]))  # [1.54, 1.78, 1.54]
        ```
        """
        return _gain(flow_ml_min_g, *self._law(flow_ml_min_g))

    def _law(self, like: Float[Array, "*k"]) -> tuple[Array, Array]:
        return cast_like(self.a, like), cast_like(self.b, like)


class Water15O(AbstractTracer):
    """[15O]water: it diffuses freely, so that uptake is flow.

    **Source:** Bergmann et al. (1989), J Am Coll Cardiol 14:639, whose abstract compares it with
    microspheres from 0.29 to 5.04 ml/min/g (r = 0.95); the paper was not read in full.
    """

    @property
    def a(self) -> float:
        return 0.0

    @property
    def b(self) -> float:
        return 1.0


class Rubidium82(AbstractTracer):
    """82Rb with the one-tissue model of Lortie et al.: $E = 1 - 0.77 e^{-0.63/F}$.

    **Arguments:** `a`, without unit, and `b`, ml/min/g, of another calibration.

    **Errors:** [`InputError`][] where uptake would not rise with the flow.

    **Source:** Lortie et al. (2007), Eur J Nucl Med Mol Imaging 34:1765. The constants were read
    where the model is described for users (PMOD, "Card. Rb82 (1 Compartment)"), not in the paper.
    """

    a: Parameter = eqx.field(default=0.77, converter=float_leaf)
    b: Parameter = eqx.field(default=0.63, converter=float_leaf)

    def __check_init__(self) -> None:
        if is_traced(self.a) or is_traced(self.b):
            return
        a, b = float(self.a), float(self.b)
        if not (0.0 <= a < 1.0 and b > 0.0):
            raise InputError(
                f"a is {a} and b is {b}",
                where="Rubidium82",
                expected="a from 0 to below 1, and b > 0 in ml/min/g",
                fix="Take the constants of the extraction 1 - a exp(-b/F)",
            )


class Ammonia13N(AbstractTracer):
    """[13N]ammonia, by the model that turned the scan into numbers.

    **Arguments:** `model`:

    - `one_tissue`: a fit to the first four minutes, where $K_1 = F$;
    - `retention`: what is retained at first pass, $E = 1 - 0.607 e^{-1.25/F}$.

    **Errors:** [`InputError`][] for another model.

    **Source:** one tissue: DeGrado et al. (1996), J Nucl Cardiol 3:494, read as described for users
    (PMOD, "Card. NH3 (de Grado)": $K_1$ equals blood flow); retention: Schelbert et al. (1981),
    Circulation 63:1259, whose abstract states $E = 1 - 0.607 e^{-125/F}$ with F in ml/min/100 g,
    measured in dogs. Neither paper was read in full.
    """

    model: str = eqx.field(static=True, default="one_tissue")

    def __check_init__(self) -> None:
        if self.model not in ("one_tissue", "retention"):
            raise InputError(
                f"the model is {self.model!r}",
                where="Ammonia13N",
                expected="'one_tissue' or 'retention'",
                fix="Name the model by which the scan was evaluated",
            )

    @property
    def a(self) -> float:
        return 0.607 if self.model == "retention" else 0.0

    @property
    def b(self) -> float:
        return 1.25


def _escaped(flow: Array, b: Array) -> tuple[Array, Array]:
    """$e^{-b/F}$ and $b/F$; both 0 where flow is so small, or negative, that nothing escapes."""
    escapes = flow > b / _ESCAPE
    ratio = jnp.where(escapes, b / jnp.where(escapes, flow, b), 0.0)
    return jnp.where(escapes, jnp.exp(-ratio), 0.0), ratio


@jax.jit
def _uptake(flow: Array, a: Array, b: Array) -> Array:
    return flow * (1.0 - a * _escaped(flow, b)[0])


def _slope(flow: Array, a: Array, b: Array) -> Array:
    """$dK_1/dF = 1 - a e^{-b/F}(1 + b/F)$, which falls with the flow from 1 to 1 − a."""
    escaped, ratio = _escaped(flow, b)
    return 1.0 - a * escaped * (1.0 + ratio)


@jax.jit
def _gain(flow: Array, a: Array, b: Array) -> Array:
    return (1.0 - a * _escaped(flow, b)[0]) / _slope(flow, a, b)


@jax.custom_jvp
def _solve(uptake: Array, a: Array, b: Array) -> Array:
    """Newton's method from a flow that is too small.

    $K_1$ is concave, so every step from below ends below; both F = K and the line that $K_1$
    approaches for large flows, $(1 - a)F + ab$, start there.
    """

    def step(_: Any, flow: Array) -> Array:
        return flow - (_uptake(flow, a, b) - uptake) / _slope(flow, a, b)

    return jax.lax.fori_loop(0, _STEPS, step, jnp.maximum(uptake, (uptake - a * b) / (1.0 - a)))


@_solve.defjvp
def _solve_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (uptake, a, b), (rise, rise_a, rise_b) = primals, tangents
    flow = _solve(uptake, a, b)
    _, by_law = jax.jvp(lambda a, b: _uptake(flow, a, b), (a, b), (rise_a, rise_b))
    return flow, (rise - by_law) / _slope(flow, a, b)


_flow = jax.jit(_solve)


def pet_flow(
    operator: PETOperator, mbf: Float[Array, " c"], tracer: AbstractTracer
) -> Float[Array, " k"]:
    r"""The blood flow that a scan with a tracer reports of a map of true flow.

    The camera blurs and averages uptake $K_1$ and not flow; the flow is read from what it sees,

    $$\hat F = K_1^{-1}\big(M\,K_1(F)\big).$$

    For water this is the operator itself.

    **Arguments:**

    - `operator`: rows `k` of the camera, such as [`jaxperf.observe.pet_segments`][] gives.
    - `mbf`: (c,) blood flow in the control volumes, m³/(s·kg).
    - `tracer`: [`Water15O`][], [`Rubidium82`][] or [`Ammonia13N`][].

    **Returns:** (k,) m³/(s·kg); NaN where a row sees no wall.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    see = jp.observe.pet_segments(mesh, jp.geometry.aha17(mesh.centre, frame), fwhm_mm=7.0)
    seen = jp.observe.pet_flow(see, jnp.full(len(mesh.centre), 1.6e-8), jp.observe.Rubidium82())
    ```
    """
    uptake = operator(tracer.uptake(mbf / M3_S_KG_PER_ML_MIN_G))
    return tracer.flow(uptake) * M3_S_KG_PER_ML_MIN_G
