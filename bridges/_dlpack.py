"""Arrays from JAX to torch and back through DLPack, without surprises.

DLPack itself aliases memory: torch may then write into an array that JAX holds for immutable, and
a cached or shared result changes silently. So both directions copy, and sharing is a context.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import jax.numpy as jnp
import torch
from jax.core import Tracer

from jaxperf._misc import InputError

_NARROW = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.float16, torch.bfloat16, torch.float32, torch.complex64,
}  # fmt: skip
# These exist in JAX only with jax_enable_x64; without it they would become narrower silently.
_WIDE = {torch.int64, torch.float64, torch.complex128}


def _alias(array: jax.Array) -> torch.Tensor:
    if isinstance(array, Tracer):
        raise InputError(
            "the array is a tracer",
            where="jax_to_torch",
            expected="an array with a value",
            fix="Convert outside of jit, grad and vmap",
        )
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise InputError(
            f"the array has the type {array.dtype}",
            where="jax_to_torch",
            expected="numbers or booleans",
            fix="Pass jax.random.key_data(key) for a key",
        )
    return torch.from_dlpack(array)


def jax_to_torch(array: jax.Array) -> torch.Tensor:
    """A torch tensor with the values, the type and the device of a JAX array.

    The tensor is a copy: in-place operations on it leave the JAX array alone. Where the copy costs
    too much, `borrowed_by_torch` shares the memory for the length of a `with` block.

    **Arguments:**

    - `array`: any shape; numbers or booleans.

    **Returns:** a contiguous tensor that requires no gradient.

    **Errors:** `InputError` for tracers and random keys.
    """
    return _alias(array).clone(memory_format=torch.contiguous_format)


@contextmanager
def borrowed_by_torch(array: jax.Array) -> Iterator[torch.Tensor]:
    """Lend a JAX array to torch without a copy, for reading.

    ```python
    with borrowed_by_torch(pressure) as tensor:
        loss = model(tensor)
    ```

    The tensor aliases the array. torch knows no read-only tensors, so writing cannot be prevented;
    it is found out: torch counts in-place operations on a tensor and its views. Writes that the
    counter does not see (through `tensor.data` or `tensor.numpy()`) are not found.

    **Arguments:**

    - `array`: any shape; numbers or booleans.

    **Errors:** `RuntimeError` on leaving the block after an in-place operation: the array, and
    whatever JAX shares with it, is no longer what it was. `InputError` as `jax_to_torch`.
    """
    tensor = _alias(array)
    version = tensor._version
    yield tensor
    if tensor._version != version:
        raise RuntimeError(
            "An in-place torch operation has changed a borrowed JAX array, which JAX holds for "
            "immutable. Discard the array and use jax_to_torch, which copies."
        )


def torch_to_jax(tensor: torch.Tensor) -> jax.Array:
    """A JAX array with the values and the type of a torch tensor.

    The array is a copy, so that later in-place operations on the tensor do not change it.

    **Arguments:**

    - `tensor`: dense and contiguous, without gradient.

    **Returns:** an array of the same shape and type.

    **Errors:** `InputError` for a tensor that requires a gradient, is sparse, strided, or of a
    type JAX does not have; 64-bit types count among these while `jax_enable_x64` is off.
    """
    problem = _problem(tensor)
    if problem is not None:
        what, expected, fix = problem
        raise InputError(what, where="torch_to_jax", expected=expected, fix=fix)
    # The copy is torch's: with jax 0.10, from_dlpack(tensor, copy=True) on the CPU is an alias.
    return jax.dlpack.from_dlpack(tensor.clone())


def _problem(tensor: torch.Tensor) -> tuple[str, str, str] | None:
    """What is wrong with a tensor, what would be right, and the mend; None where nothing is."""
    dtype = tensor.dtype
    if tensor.requires_grad:
        return (
            "the tensor requires a gradient, which would end here",
            "a tensor outside of torch's graph",
            "Call tensor.detach()",
        )
    if dtype in _WIDE and jnp.result_type(float) != jnp.float64:
        return (
            f"the tensor is {dtype} and jax_enable_x64 is off",
            "a 32-bit type, as JAX would narrow it silently",
            "Convert the tensor, or set jax.config.update('jax_enable_x64', True)",
        )
    if dtype not in _NARROW | _WIDE:
        return (f"the tensor is {dtype}", "a type that JAX has", "Convert it with tensor.to(...)")
    if tensor.layout != torch.strided:
        return (f"the tensor's layout is {tensor.layout}", "a dense one", "Call tensor.to_dense()")
    if tensor.is_conj() or tensor.is_neg():
        return (
            "the tensor is a lazy conjugate or negative",
            "values in memory",
            "Call tensor.resolve_conj().resolve_neg()",
        )
    if not tensor.is_contiguous():
        return (
            f"the tensor has strides {tensor.stride()} for the shape {tuple(tensor.shape)}",
            "contiguous memory",
            "Call tensor.contiguous()",
        )
    return None
