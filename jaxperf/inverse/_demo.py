"""The smallest problem that has all a fit needs."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._noise import GaussianNoise
from ._parameter import Parameter
from ._prior import Normal
from ._problem import InverseProblem, Measurement, PlainModel
from ._transform import Log

_TIME = np.linspace(0.0, 1.0, 20)


def demo_problem() -> InverseProblem:
    r"""Height h and rate k of the decay $h e^{-kt}$, measured without noise at h = 1.5, k = 3.

    **Returns:** an [`InverseProblem`][] with the parameters `height` and `rate`, and the
    measurement `signal` (20,).

    **Example:**

    ```python
    from jaxperf import inverse
    print(inverse.fit(inverse.demo_problem(), starts=1).values)
    ```
    """
    height = Parameter("height", Normal(1.0, 0.5), Log())
    rate = Parameter("rate", Normal(2.0, 0.5), Log())
    measured = 1.5 * np.exp(-3.0 * _TIME)
    signal = Measurement("signal", _whole, measured, GaussianNoise(sd=0.02))
    return InverseProblem(PlainModel(_decay), [height, rate], [signal])


def _decay(values: dict[str, Array]) -> Float[Array, "20"]:
    return values["height"] * jnp.exp(-values["rate"] * _TIME)


def _whole(output: Float[Array, " n"]) -> Float[Array, " n"]:
    return output
