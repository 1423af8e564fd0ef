"""Arrays to and from torch. Needs the extra `torch`."""

from ._dlpack import (
    borrowed_by_torch as borrowed_by_torch,
    jax_to_torch as jax_to_torch,
    torch_to_jax as torch_to_jax,
)
