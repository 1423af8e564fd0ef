"""Types that several rooms share, and the one converter of user parameters into array leaves."""

from typing import TypeAlias

import jax
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
    if isinstance(value, float | int) or np.dtype(value.dtype).kind in "iub":
        return as_leaf(value, float)
    return as_leaf(value)


def as_leaf(value: ParameterLike, dtype: type | np.dtype | None = None) -> Array:
    """An array leaf from what the host computed, copied there without compiling anything.

    `jnp.asarray` would compile a program for every new shape. What is an array of JAX already,
    traced or not, keeps its derivative. What the host knows stays known inside `jit`.
    """
    if isinstance(value, Array):
        return value if dtype is None else value.astype(dtype)
    with jax.ensure_compile_time_eval():
        return jax.device_put(np.array(value, dtype))


def optional_float_leaf(value: ParameterLike | None) -> Array | None:
    """`float_leaf`, with None left as it is."""
    return None if value is None else float_leaf(value)


def cast_like(value: ScalarLike, reference: Float[Array, "..."]) -> Array:
    """A parameter in the precision of the array it meets: the dtype follows the inputs."""
    return jnp.asarray(value, dtype=reference.dtype)
