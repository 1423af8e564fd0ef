"""Myocardial blood flow by segment of the ventricle."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@functools.partial(jax.jit, static_argnames="n_segments")
def segment_means(
    mbf: Float[Array, " c"],
    volume: Float[Array, " c"],
    segment: Int[Array, " c"],
    n_segments: int = 17,
) -> Float[Array, " n_segments"]:
    r"""Volume-weighted mean blood flow of each segment, $\sum_c V_cF_c / \sum_c V_c$.

    **Arguments:**

    - `mbf`: (c,) myocardial blood flow of each control volume, any unit.
    - `volume`: (c,) m³.
    - `segment`: (c,) numbers from 1, such as [`jaxperf.geometry.aha17`][] gives; control volumes
      with any other number count nowhere.
    - `n_segments`: how many segments there are.

    **Returns:** (n_segments,) in the unit of `mbf`. NaN means that the segment holds no tissue (a
    ventricle without an apex has no segment 17); its gradient is zero.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    segment = jp.geometry.aha17(mesh.centre, frame)
    mbf = 1e-8 * (1.0 + mesh.centre[:, 0] / np.ptp(mesh.centre[:, 0]))  # m³/(s·kg)
    of_17_segments = jp.observe.segment_means(mbf, mesh.volume, segment)
    ```
    """
    # A negative index would wrap around, so what lies outside goes to a bin of its own.
    inside = (segment >= 1) & (segment <= n_segments)
    bin_ = jnp.where(inside, segment - 1, n_segments)
    flow = jax.ops.segment_sum(mbf * volume, bin_, num_segments=n_segments + 1)[:-1]
    total = jax.ops.segment_sum(volume, bin_, num_segments=n_segments + 1)[:-1]
    return jnp.where(total > 0.0, flow / jnp.where(total > 0.0, total, 1.0), jnp.nan)
