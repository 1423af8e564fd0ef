"""The noise of PET scans: what each value, each scan and each patient add."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._custom_types import cast_like, float_leaf, Parameter
from .._misc import InputError, is_traced
from ..units import M3_S_KG_PER_ML_MIN_G


class PETNoise(eqx.Module):
    r"""Log-normal noise with a part for each value, one for each scan and one for the patient.

    The values of the states `a` and rows `k` of one patient are measured as

    $$\ln(\hat F_{ak} + F_0) = \ln(F_{ak} + F_0) + \sigma_v\epsilon_{ak} + \sigma_s\eta_a
    + \sigma_p\zeta,$$

    with independent standard normal numbers. $F_0$ is a floor. Without it a value near zero would
    count without end; with it such a value counts by its difference, $\Delta F/(\sigma F_0)$. The
    part of the patient, a calibration common to both scans, cancels in the ratio of the floored
    values, so in the flow reserve where flow is far above the floor. Noise keeps the median.

    **Attributes:** `segment` $\sigma_v$, `scan` $\sigma_s$ and `shared` $\sigma_p$, standard
    deviations of the logarithm; `floor_ml_min_g`, $F_0$. Values are in m³/(s·kg).

    **Errors:** [`InputError`][] for a `segment` that is not positive and for the others negative.

    **Source:** the sizes are a judgement. Test and retest of global flow scatter by 10 % in one
    session and by 21 % between days.
    """

    segment: Parameter = eqx.field(default=0.15, converter=float_leaf)
    scan: Parameter = eqx.field(default=0.07, converter=float_leaf)
    shared: Parameter = eqx.field(default=0.07, converter=float_leaf)
    floor_ml_min_g: Parameter = eqx.field(default=0.05, converter=float_leaf)

    def __check_init__(self) -> None:
        for name in ("segment", "scan", "shared", "floor_ml_min_g"):
            value = getattr(self, name)
            if is_traced(value):
                continue
            least = np.nextafter(0.0, 1.0) if name == "segment" else 0.0
            if not least <= float(value) < np.inf:
                raise InputError(
                    f"{name} is {float(value)}",
                    where="PETNoise",
                    expected="a positive number" if name == "segment" else "a number of at least 0",
                    fix="Give standard deviations as fractions, 0.15 for 15 %",
                )

    @eqx.filter_jit
    def log(self, mbf: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """The logarithm in which the noise is normal, of values in ml/min/g."""
        return jnp.log(mbf / M3_S_KG_PER_ML_MIN_G + cast_like(self.floor_ml_min_g, mbf))

    @eqx.filter_jit
    def covariance(self, n_states: int, n_rows: int) -> Float[Array, "n n"]:
        r"""Covariance of `log` over all states and rows, state by state.

        $$C = \sigma_v^2 I + \sigma_s^2\, I_a\otimes 1_k + \sigma_p^2\, 1_{ak}$$

        **Returns:** (n_states · n_rows, n_states · n_rows).

        ```python
        noise = PETNoise()
        covariance = noise.covariance(2, 17)
        ```
        """
        state = jnp.repeat(jnp.arange(n_states), n_rows)
        same_scan = (state[:, None] == state[None, :]).astype(self.segment.dtype)
        own = jnp.eye(n_states * n_rows, dtype=self.segment.dtype)
        return self.segment**2 * own + self.scan**2 * same_scan + self.shared**2

    @eqx.filter_jit
    def whiten(self, residual: Float[Array, "a k"]) -> Float[Array, "a k"]:
        """Residuals of `log` divided by the symmetric square root of the covariance.

        The covariance has three eigenvalues: of the mean of all values, of what the scans' means
        differ by, and of what is left; so nothing is factorised, and it serves voxels too.

        **Arguments:** `residual`: (a, k) `log` of measured less that of modelled values, without
        NaN: leave rows out that were not measured.

        **Returns:** (a, k), independent standard normal numbers where the model is the truth.

        ```python
        residual = noise.whiten(noise.log(measured) - noise.log(modelled))
        ```
        """
        n_states, n_rows = residual.shape
        own, scan, shared = (
            cast_like(s, residual) ** 2 for s in (self.segment, self.scan, self.shared)
        )
        of_scan = own + n_rows * scan
        of_patient = of_scan + n_states * n_rows * shared
        scan_mean = jnp.mean(residual, axis=1, keepdims=True)
        mean = jnp.mean(scan_mean, axis=0, keepdims=True)
        return (
            (residual - scan_mean) / jnp.sqrt(own)
            + (scan_mean - mean) / jnp.sqrt(of_scan)
            + mean / jnp.sqrt(of_patient)
        )

    @eqx.filter_jit
    def sample(self, key: PRNGKeyArray, mbf: Float[Array, "a k"]) -> Float[Array, "a k"]:
        """One measurement of true values.

        **Arguments:** `key`, of `jax.random.key`; `mbf`: (a, k) m³/(s·kg).

        **Returns:** (a, k) m³/(s·kg); above minus the floor, so that a value near zero may come
        out negative. NaN stays NaN.

        ```python
        measured = noise.sample(jax.random.key(0), jnp.stack([rest, hyperemia]))
        ```
        """
        own, scan, shared = (
            cast_like(s, mbf) * jax.random.normal(k, shape, mbf.dtype)
            for s, k, shape in zip(
                (self.segment, self.scan, self.shared),
                jax.random.split(key, 3),
                (mbf.shape, (mbf.shape[0], 1), (1, 1)),
                strict=True,
            )
        )
        floor = cast_like(self.floor_ml_min_g, mbf) * M3_S_KG_PER_ML_MIN_G
        return (mbf + floor) * jnp.exp(own + scan + shared) - floor
