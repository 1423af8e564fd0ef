"""Ratios of pressures and of flows."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._custom_types import cast_like, ScalarLike


@jax.jit
def fractional_flow_reserve(
    pressure_static: Float[Array, "*s"], pressure_aortic: ScalarLike
) -> Float[Array, "*s"]:
    r"""Distal over aortic pressure, $\mathrm{FFR} = p_d/p_a$.

    Both are static pressures, as a pressure wire measures them, and at hyperemia; for pulsatile
    flow both are means over the cycle, taken before the ratio.

    **Arguments:**

    - `pressure_static`: static pressure anywhere in the network, Pa.
    - `pressure_aortic`: aortic pressure, Pa.

    **Returns:** the ratio, without unit; 0.80 or less is read as ischaemic.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    ffr = jp.observe.fractional_flow_reserve(jnp.array([11000.0, 9300.0]), 12400.0)  # .89, .75
    ```
    """
    return pressure_static / cast_like(pressure_aortic, pressure_static)


@jax.jit
def coronary_flow_reserve(
    rest: Float[Array, "*s"], hyperemia: Float[Array, "*s"]
) -> Float[Array, "*s"]:
    """Flow at hyperemia over flow at rest, of a vessel or of tissue.

    **Arguments:**

    - `rest`, `hyperemia`: flow or myocardial blood flow in the same unit.

    **Returns:** the ratio, without unit; NaN where there is no flow at rest, with zero gradient.

    **Example:**

    ```python
    import jaxperf as jp, jax.numpy as jnp
    cfr = jp.observe.coronary_flow_reserve(jnp.array([1.0, 0.9]), jnp.array([3.1, 1.8]))  # 3.1, 2.0
    ```
    """
    flows = rest != 0.0
    return jnp.where(flows, hyperemia / jnp.where(flows, rest, 1.0), jnp.nan)
