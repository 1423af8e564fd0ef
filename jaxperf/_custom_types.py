"""Types that several rooms share, and the one converter of user parameters into array leaves."""

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# A physical parameter: one value for all, or one per entry of the arrays it meets.
Parameter: TypeAlias = Float[Array, "..."]
ParameterLike: TypeAlias = float | int | np.ndarray | Array
# A value that may still be a Python float, such as a density passed by hand.
ScalarLike: TypeAlias = float | int | Float[Array, "..."]


def float_leaf(value: ParameterLike) -> Array:
    """A parameter as a floating-point array leaf, so that gradients with respect to it exist.

    Python numbers and integers take JAX's default float type; arrays keep theirs.
    """
    if isinstance(value, float | int):
        return jnp.asarray(value, dtype=float)
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == jnp.bool_:
        return array.astype(float)
    return array


def optional_float_leaf(value: ParameterLike | None) -> Array | None:
    """`float_leaf`, with None left as it is."""
    return None if value is None else float_leaf(value)


def cast_like(value: ScalarLike, reference: Float[Array, "..."]) -> Array:
    """A parameter in the precision of the array it meets: the dtype follows the inputs."""
    return jnp.asarray(value, dtype=reference.dtype)
