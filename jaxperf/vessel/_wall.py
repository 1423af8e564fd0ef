"""Wall laws: how the lumen area follows the pressure."""

import abc
import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import cast_like, float_leaf, Parameter, ScalarLike

# Subsonic Newton converges monotonically and doubles its digits: five steps from the static guess
# reach 1e-12 up to U/c = 0.8 (tests); coronary flow has U/c below 0.1.
_NEWTON_STEPS = 5


class AbstractStiffness(eqx.Module):
    """A law for the wall stiffness E h / r."""

    @abc.abstractmethod
    def __call__(self, reference_radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """E h / r in Pa for a vessel of the given reference radius (m)."""


class ConstantStiffness(AbstractStiffness):
    """The same E h / r everywhere.

    **Arguments:**

    - `Eh_over_r`: Young's modulus times wall thickness over radius, Pa.
    """

    Eh_over_r: Parameter = eqx.field(converter=float_leaf)

    def __call__(self, reference_radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.broadcast_to(cast_like(self.Eh_over_r, reference_radius), reference_radius.shape)


class OlufsenStiffness(AbstractStiffness):
    """E h / r = k1 exp(k2 r) + k3.

    **Arguments:**

    - `k1`: Pa; `k2`: 1/m; `k3`: Pa.

    **Source:** Olufsen, Am J Physiol 276:H257 (1999), in SI.
    """

    k1: Parameter = eqx.field(default=2e6, converter=float_leaf)
    k2: Parameter = eqx.field(default=-2253.0, converter=float_leaf)
    k3: Parameter = eqx.field(default=8.65e4, converter=float_leaf)

    def __call__(self, reference_radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        k1, k2, k3 = (cast_like(k, reference_radius) for k in (self.k1, self.k2, self.k3))
        return k1 * jnp.exp(k2 * reference_radius) + k3


class AbstractWall(eqx.Module):
    """What every wall can say: its area at a pressure, and whether there is one."""

    is_rigid: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def area(
        self, pressure_static: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Float[Array, "*s"]:
        """Lumen area, m², at a static pressure (Pa).

        Where `is_open` is false the law has no area; the reference area then stands in, with zero
        derivative, so that nothing becomes NaN. It means nothing: ask `is_open`.
        """

    @abc.abstractmethod
    def is_open(
        self, pressure_static: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Bool[Array, "*s"]:
        """Whether the law has an area at this static pressure (Pa)."""

    @abc.abstractmethod
    def area_from_total(
        self,
        pressure_total: Float[Array, "*s"],
        flow: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
        alpha: ScalarLike,
    ) -> Float[Array, "*s"]:
        r"""Lumen area, m², where the total pressure $P = p + \tfrac12\alpha\rho Q^2/A^2$ is known.

        The subsonic solution, with its derivatives of every order.
        It is exact to rounding up to U/c = 0.8 and to 0.5 % at U/c = 0.99, next to choking.
        Where `is_open_at_total` is false the reference area stands in, as in `area`.

        **Arguments:**

        - `pressure_total`: Pa; `flow`: m³/s; `reference_radius`: m.
        - `density`: kg/m³; `alpha`: momentum coefficient.
        """

    @abc.abstractmethod
    def is_open_at_total(
        self,
        pressure_total: Float[Array, "*s"],
        flow: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
        alpha: ScalarLike,
    ) -> Bool[Array, "*s"]:
        """Whether a subsonic area exists at this total pressure (Pa) and flow (m³/s)."""


class AbstractElasticWall(AbstractWall):
    r"""A wall with a pressure law that can be inverted, and so a wave speed.

    Every law here relates the *load* $x = (p-p_0)/M$, with the wall's modulus
    $M = \tfrac43 Eh/r$, to the relative area $a = A/A_0$ by a shape of its own, $a = a(x)$, which
    has no parameters: whatever may be fitted belongs into M and $p_0$.
    """

    stiffness: eqx.AbstractVar[AbstractStiffness]
    is_rigid: ClassVar[bool] = False

    @property
    @abc.abstractmethod
    def pressure_unloaded(self) -> Parameter:
        """Static pressure $p_0$ (Pa) at which the lumen has its reference area."""

    @abc.abstractmethod
    def relative_area(self, load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """a(x)."""

    @abc.abstractmethod
    def relative_stiffness(self, load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        r"""a dx/da, so that $\rho c^2 = A\,\partial p/\partial A$ is M times it."""

    @abc.abstractmethod
    def load(self, relative_area: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """x(a), the inverse of `relative_area`."""

    @abc.abstractmethod
    def bears(self, load: Float[Array, "*s"]) -> Bool[Array, "*s"]:
        """Whether the law has an area under this load."""

    @abc.abstractmethod
    def is_subsonic(self, load: Float[Array, "*s"], head: Float[Array, "*s"]) -> Bool[Array, "*s"]:
        r"""Whether $x + k/a(x)^2 = x_{total}$ has a solution with the flow slower than its waves.

        **Arguments:** `load`, $x_{total}$, of the total pressure; `head`, k, the dynamic pressure
        on the reference area over M.
        """

    def modulus(self, reference_radius: Float[Array, "*s"]) -> Float[Array, "*s"]:
        """M = (4/3) E h / r, Pa."""
        return 4.0 / 3.0 * self.stiffness(reference_radius)

    def area(
        self, pressure_static: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Float[Array, "*s"]:
        load = self._load(pressure_static, reference_radius)
        load = jnp.where(self.bears(load), load, 0.0)
        return _disc(reference_radius) * self.relative_area(load)

    def is_open(
        self, pressure_static: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Bool[Array, "*s"]:
        return self.bears(self._load(pressure_static, reference_radius))

    def area_from_total(
        self,
        pressure_total: Float[Array, "*s"],
        flow: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
        alpha: ScalarLike,
    ) -> Float[Array, "*s"]:
        load = self._load(pressure_total, reference_radius)
        head = self._dynamic_share(flow, reference_radius, density, alpha)
        is_open = self.is_subsonic(load, head)
        load, head = jnp.where(is_open, load, 0.0), jnp.where(is_open, head, 0.0)
        return _disc(reference_radius) * self.relative_area(_subsonic_load(self, load, head))

    def is_open_at_total(
        self,
        pressure_total: Float[Array, "*s"],
        flow: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
        alpha: ScalarLike,
    ) -> Bool[Array, "*s"]:
        load = self._load(pressure_total, reference_radius)
        head = self._dynamic_share(flow, reference_radius, density, alpha)
        return self.is_subsonic(load, head)

    def pressure(
        self, area: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Float[Array, "*s"]:
        """Static pressure, Pa, at a lumen area (m²)."""
        load = self.load(area / _disc(reference_radius))
        return cast_like(self.pressure_unloaded, area) + self.modulus(reference_radius) * load

    def wave_speed(
        self,
        area: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
    ) -> Float[Array, "*s"]:
        r"""Speed of pressure waves $c = \sqrt{(A/\rho)\,\partial p/\partial A}$, m/s."""
        load = self.load(area / _disc(reference_radius))
        stiffness = self.modulus(reference_radius) * self.relative_stiffness(load)
        return jnp.sqrt(stiffness / cast_like(density, area))

    def _dynamic_share(
        self, flow: Array, reference_radius: Array, density: ScalarLike, alpha: ScalarLike
    ) -> Array:
        """Dynamic pressure on the reference area, over the wall's modulus."""
        weight = 0.5 * cast_like(alpha, flow) * cast_like(density, flow)
        velocity = flow / _disc(reference_radius)
        return weight * velocity**2 / self.modulus(reference_radius)

    def _load(self, pressure_static: Array, reference_radius: Array) -> Array:
        unloaded = cast_like(self.pressure_unloaded, pressure_static)
        return (pressure_static - unloaded) / self.modulus(reference_radius)


class RigidWall(AbstractWall):
    """The lumen keeps its reference area."""

    is_rigid: ClassVar[bool] = True

    def area(
        self, pressure_static: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Float[Array, "*s"]:
        return _disc(reference_radius)

    def is_open(
        self, pressure_static: Float[Array, "*s"], reference_radius: Float[Array, "*s"]
    ) -> Bool[Array, "*s"]:
        return jnp.ones(reference_radius.shape, dtype=bool)

    def area_from_total(
        self,
        pressure_total: Float[Array, "*s"],
        flow: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
        alpha: ScalarLike,
    ) -> Float[Array, "*s"]:
        return _disc(reference_radius)

    def is_open_at_total(
        self,
        pressure_total: Float[Array, "*s"],
        flow: Float[Array, "*s"],
        reference_radius: Float[Array, "*s"],
        density: ScalarLike,
        alpha: ScalarLike,
    ) -> Bool[Array, "*s"]:
        return jnp.ones(reference_radius.shape, dtype=bool)


class SqrtAreaWall(AbstractElasticWall):
    r"""The linear elastic thin wall.

    $$p = p_{ext} + p_d + \beta(\sqrt A - \sqrt{A_d}),\qquad
    \beta = \tfrac43\sqrt\pi\,\frac{Eh}{A_d},$$

    that is $\sqrt{A/A_d} = 1 + (p-p_{ext}-p_d)/\tfrac43(Eh/r)$: the vessel has no area once the
    transmural pressure falls by $\tfrac43 Eh/r$ below $p_d$.

    **Arguments:**

    - `stiffness`: the law for E h / r.
    - `pressure_reference`: $p_d$, transmural pressure at which the radius is the reference, Pa.
    - `pressure_external`: $p_{ext}$, Pa.
    """

    stiffness: AbstractStiffness
    pressure_reference: Parameter = eqx.field(converter=float_leaf)
    pressure_external: Parameter = eqx.field(default=0.0, converter=float_leaf)

    @property
    def pressure_unloaded(self) -> Parameter:
        return self.pressure_reference + self.pressure_external

    def relative_area(self, load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return (1.0 + load) ** 2

    def relative_stiffness(self, load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return 0.5 * (1.0 + load)

    def load(self, relative_area: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return jnp.sqrt(relative_area) - 1.0

    def bears(self, load: Float[Array, "*s"]) -> Bool[Array, "*s"]:
        return load > -1.0

    def is_subsonic(self, load: Float[Array, "*s"], head: Float[Array, "*s"]) -> Bool[Array, "*s"]:
        # With s = 1 + x it reads s + k/s⁴ = s_total, whose left side is (5/4)(4k)^(1/5) at least,
        # at the sonic point.
        total = 1.0 + load
        return (total > 0.0) & (4.0 * head < (0.8 * total) ** 5)


def rigid_limit_wall(
    wave_speed: float, density: float, *, pressure_reference: float = 0.0
) -> SqrtAreaWall:
    r"""A wall of given wave speed, for vessels that are to be all but rigid in transient flow.

    $Eh/r = \tfrac32\rho c^2$; the area changes by $(p-p_d)/\rho c^2$ of itself.

    **Arguments:**

    - `wave_speed`: c, m/s; 30 is three times a stiff artery's.
    - `density`: of the blood, kg/m³.
    - `pressure_reference`: p_d, Pa.

    **Example:**

    ```python
    import jaxperf as jp
    wall = jp.vessel.rigid_limit_wall(wave_speed=20.0, density=1060.0)
    ```
    """
    return SqrtAreaWall(ConstantStiffness(1.5 * density * wave_speed**2), pressure_reference)


class SvOneDWall(AbstractElasticWall):
    r"""The wall law of svOneDSolver, $p = \tfrac43\frac{Eh}{r}\left(1-\sqrt{S_0/S}\right)$.

    The reference radius belongs to zero pressure. The law has no area from $p = \tfrac43 Eh/r$ on.

    **Arguments:**

    - `stiffness`: the law for E h / r; svOneDSolver's is `OlufsenStiffness`.
    """

    stiffness: AbstractStiffness

    @property
    def pressure_unloaded(self) -> Parameter:
        return jnp.zeros(())

    def relative_area(self, load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return (1.0 - load) ** -2

    def relative_stiffness(self, load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return 0.5 * (1.0 - load)

    def load(self, relative_area: Float[Array, "*s"]) -> Float[Array, "*s"]:
        return 1.0 - jnp.sqrt(1.0 / relative_area)

    def bears(self, load: Float[Array, "*s"]) -> Bool[Array, "*s"]:
        return load < 1.0

    def is_subsonic(self, load: Float[Array, "*s"], head: Float[Array, "*s"]) -> Bool[Array, "*s"]:
        # With y = 1 − x it reads y − k y⁴ = y_total, whose left side is (3/4)(4k)^(−1/3) at most,
        # at the sonic point.
        total = 1.0 - load
        return (total > 0.0) & (4.0 * head * (4.0 / 3.0 * total) ** 3 < 1.0)


def _disc(radius: Array) -> Array:
    return math.pi * radius**2


@jax.custom_jvp
def _subsonic_load(
    wall: AbstractElasticWall, total: Float[Array, "*s"], head: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """The load x under x + k/a(x)² = x_total: Newton's method falls from x_total monotonically.

    The derivative is that of the solved equation; the shape of the wall has no parameters.
    """

    def step(_: int | Int[Array, ""], load: Float[Array, "*s"]) -> Float[Array, "*s"]:
        area = wall.relative_area(load)
        share = head / area**2
        return load - (load + share - total) / (1.0 - 2.0 * share / wall.relative_stiffness(load))

    return jax.lax.fori_loop(0, _NEWTON_STEPS, step, total)


@_subsonic_load.defjvp
def _subsonic_load_jvp(
    primals: tuple[AbstractElasticWall, Array, Array],
    tangents: tuple[AbstractElasticWall, Array, Array],
) -> tuple[Array, Array]:
    wall, total, head = primals
    _, total_dot, head_dot = tangents
    load = _subsonic_load(wall, total, head)
    inverse_area = 1.0 / wall.relative_area(load)
    share = inverse_area**2
    slope = 1.0 - 2.0 * head * share / wall.relative_stiffness(load)
    return load, (total_dot - head_dot * share) / slope
