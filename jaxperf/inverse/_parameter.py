"""A named unknown with its prior."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._misc import InputError
from ._prior import AbstractPrior, Shape
from ._transform import AbstractTransform, Identity


class Parameter(eqx.Module):
    r"""An unknown of a fit: a name, a prior, a transform.

    $$x = T(T^{-1}(m) + \delta(\xi)),\qquad \xi\sim N(0, I).$$

    **Arguments:**

    - `name`: what the model finds it by.
    - `prior`: [`Normal`][], [`SmoothField`][] or [`Hierarchy`][].
    - `transform`: [`Identity`][], [`Log`][] (positive values) or [`Interval`][].
    - `shape`: where the prior does not say it; one number where left out.
    - `labels`: the names of the entries of a vector, for sentences.

    **Errors:** [`InputError`][] for a median outside the range of the transform, and for shapes or
    labels that do not match.

    **Example:**
    ```python
    severity = Parameter("severity", Normal(0.5, 1.0), Interval(0.0, 0.95))
    severity.value(jnp.zeros(1))  # 0.5, the median
    ```
    """

    name: str = eqx.field(static=True)
    prior: AbstractPrior
    transform: AbstractTransform
    shape: Shape = eqx.field(static=True)
    labels: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        name: str,
        prior: AbstractPrior,
        transform: AbstractTransform = Identity(),
        shape: Shape | None = None,
        labels: tuple[str, ...] = (),
    ) -> None:
        if shape is None:
            shape = (len(labels),) if labels and not prior.shape else prior.shape
        self.name, self.prior, self.transform = name, prior, transform
        self.shape, self.labels = tuple(shape), tuple(labels)

    def __check_init__(self) -> None:
        where = f"parameter {self.name!r}"
        fixed = isinstance(self.prior.shape, tuple) and len(self.prior.shape) > 0
        if fixed and self.shape != self.prior.shape:
            raise InputError(
                f"the shape is {self.shape}",
                where=where,
                expected=f"{self.prior.shape}, that of the prior",
                fix="Leave shape out",
            )
        if self.labels and self.shape != (len(self.labels),):
            raise InputError(
                f"there are {len(self.labels)} labels for the shape {self.shape}",
                where=where,
                expected="one label for each entry of a vector",
                fix="Give as many labels as entries, or none",
            )
        median = np.asarray(self.prior.median)
        outside = median[~self.transform.holds(median)]
        if outside.size:
            raise InputError(
                f"the median is {outside.ravel()[0]}",
                where=where,
                expected=self.transform.range,
                fix="Give the median in the units of the parameter, or another transform",
            )

    @property
    def size(self) -> int:
        """How many coordinates it takes."""
        return self.prior.size(self.shape)

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of the entries, in the order of the flattened value."""
        if not self.shape:
            return (self.name,)
        if self.labels:
            return tuple(f"{self.name}[{label}]" for label in self.labels)
        return tuple(
            f"{self.name}[{', '.join(map(str, index))}]" for index in np.ndindex(self.shape)
        )

    def latent(self, xi: Float[Array, " k"]) -> Float[Array, "*s"]:
        """z, on the unconstrained line."""
        centre = self.transform.inverse(self.prior.median.astype(xi.dtype))
        return jnp.broadcast_to(centre, self.shape) + self.prior.deviation(xi, self.shape)

    def value(self, xi: Float[Array, " k"]) -> Float[Array, "*s"]:
        """x = T(z), in the units of the parameter."""
        return self.transform.forward(self.latent(xi))
