"""Arrays and trees from JAX to torch and back through DLPack, without surprises.

DLPack itself aliases memory: torch may then write into an array that JAX holds for immutable, and
a cached or shared result changes silently. So both directions copy, and sharing is a context.
Arrays stay on their device; on CUDA the DLPack protocol makes the streams of both wait.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.core import Tracer

from jaxperf._misc import InputError

_NARROW = {
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32,
    torch.float16, torch.bfloat16, torch.float32, torch.complex64,
}  # fmt: skip
# These exist in JAX only with jax_enable_x64; without it they would become narrower silently.
_WIDE = {torch.int64, torch.float64, torch.complex128}
# What XLA asks of memory on the CPU, in bytes.
_ALIGNMENT = 64


def _alias(array: jax.Array) -> torch.Tensor:
    if isinstance(array, Tracer):
        raise InputError(
            "the array is a tracer",
            where="jax_to_torch",
            expected="an array with a value",
            fix="Convert outside of jit, grad and vmap; a module in torch_as_jax may not call JAX",
        )
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        raise InputError(
            f"the array has the type {array.dtype}",
            where="jax_to_torch",
            expected="numbers or booleans",
            fix="Pass jax.random.key_data(key) for a key",
        )
    devices = array.devices()
    if len(devices) > 1:
        raise InputError(
            f"the array is spread over {len(devices)} devices",
            where="jax_to_torch",
            expected="an array on one device",
            fix="Gather it with jax.device_put(array, jax.devices()[0])",
        )
    (device,) = devices
    if device.platform != "cpu" and not torch.cuda.is_available():
        raise InputError(
            f"the array is on {device} and this torch has no CUDA",
            where="jax_to_torch",
            expected="a device that both know",
            fix="Move it with jax.device_put(array, jax.devices('cpu')[0])",
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

    **Example:**

    ```python
    import bridges, jax.numpy as jnp
    tensor = bridges.jax_to_torch(jnp.arange(3.0))
    ```
    """
    alias = _alias(array)
    copied = alias.clone(memory_format=torch.contiguous_format)
    _wait(alias)
    return copied


def _wait(tensor: torch.Tensor) -> None:
    """Until torch has read memory that JAX may use again once the tensor is gone."""
    if tensor.is_cuda:
        torch.cuda.current_stream(tensor.device).synchronize()


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
    _wait(tensor)
    _found_unwritten(tensor, version, "jax_to_torch")


def _found_unwritten(tensor: torch.Tensor, version: int, copying: str) -> None:
    if tensor._version != version:
        raise RuntimeError(
            "An in-place torch operation has changed memory that is shared with a JAX array, which "
            f"JAX holds for immutable. Discard the array and use {copying}, which copies."
        )


def torch_to_jax(tensor: torch.Tensor) -> jax.Array:
    """A JAX array with the values and the type of a torch tensor.

    The array is a copy, so that later in-place operations on the tensor do not change it.

    **Arguments:**

    - `tensor`: dense and contiguous, without gradient.

    **Returns:** an array of the same shape and type.

    **Errors:** `InputError` for a tensor that requires a gradient, is sparse, strided, or of a
    type JAX does not have; 64-bit types count among these while `jax_enable_x64` is off.

    **Example:**

    ```python
    import bridges, torch
    array = bridges.torch_to_jax(torch.arange(3.0))
    ```
    """
    _check(tensor, "torch_to_jax")
    # The copy is torch's: with jax 0.10, from_dlpack(tensor, copy=True) on the CPU is an alias.
    return jax.dlpack.from_dlpack(tensor.clone())


@contextmanager
def borrowed_by_jax(tensor: torch.Tensor) -> Iterator[jax.Array]:
    """Lend a torch tensor to JAX without a copy.

    ```python
    with borrowed_by_jax(field) as array:
        print(jnp.linalg.norm(array))
    ```

    The array aliases the tensor: what is computed from it must be ready, and the array itself out
    of use, when the block ends.

    **Arguments:**

    - `tensor`: as `torch_to_jax`, and where JAX can take it: on the CPU at a multiple of 64 bytes,
      as torch allocates; views into a tensor may lie elsewhere.

    **Errors:** `RuntimeError` on leaving the block after an in-place operation. `InputError` as
    `torch_to_jax`, and for memory that JAX cannot take.
    """
    _check(tensor, "borrowed_by_jax")
    version = tensor._version
    try:
        array = jax.dlpack.from_dlpack(tensor, copy=False)
    except Exception as error:
        raise InputError(
            f"JAX cannot take the tensor's memory as it is: {error}",
            where="borrowed_by_jax",
            expected=f"memory at a multiple of {_ALIGNMENT} bytes; this is at "
            f"{tensor.data_ptr() % _ALIGNMENT} beyond one",
            fix="Use torch_to_jax, which copies",
        ) from error
    yield array
    _found_unwritten(tensor, version, "torch_to_jax")


def tree_to_torch(tree: Any) -> Any:
    """A tree with a tensor for every JAX or NumPy array, and all else as it is.

    **Returns:** the same containers; Equinox modules stay modules, with tensors in their fields.
    Each tensor is a copy. **Errors:** as `jax_to_torch`.

    **Example:**

    ```python
    import bridges, jax.numpy as jnp
    tensors = bridges.tree_to_torch({"pressure_Pa": jnp.ones(3), "name": "LAD"})
    ```
    """
    return jax.tree.map(_leaf_to_torch, tree)


def _leaf_to_torch(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        return jax_to_torch(leaf)
    if not isinstance(leaf, np.ndarray):
        return leaf
    if leaf.dtype.kind not in "biufc":
        raise InputError(
            f"an array has the type {leaf.dtype}",
            where="tree_to_torch",
            expected="numbers or booleans",
            fix="Leave it out of the tree",
        )
    return torch.tensor(leaf)


def tree_to_jax(tree: Any) -> Any:
    """A tree with a JAX array for every tensor, and all else as it is.

    **Errors:** as `torch_to_jax`.

    **Example:**

    ```python
    import bridges, torch
    arrays = bridges.tree_to_jax({"pressure_Pa": torch.ones(3), "name": "LAD"})
    ```
    """
    convert = lambda leaf: torch_to_jax(leaf) if isinstance(leaf, torch.Tensor) else leaf
    return jax.tree.map(convert, tree)


def _check(tensor: torch.Tensor, where: str) -> None:
    _refuse(_problem(tensor), where)


def _refuse(problem: tuple[str, str, str] | None, where: str) -> None:
    if problem is not None:
        what, expected, fix = problem
        raise InputError(what, where=where, expected=expected, fix=fix)


def check_type(tensor: torch.Tensor, where: str) -> None:
    """**Errors:** `InputError` where JAX does not have a tensor's type."""
    _refuse(_problem_of_type(tensor.dtype), where)


def _problem_of_type(dtype: torch.dtype) -> tuple[str, str, str] | None:
    """What is wrong with a type, what would be right, and the mend; None where nothing is."""
    if dtype in _WIDE and jnp.result_type(float) != jnp.float64:
        return (
            f"the tensor is {dtype} and jax_enable_x64 is off",
            "a 32-bit type, as JAX would narrow it silently",
            "Convert the tensor, or set jax.config.update('jax_enable_x64', True)",
        )
    if dtype not in _NARROW | _WIDE:
        return (f"the tensor is {dtype}", "a type that JAX has", "Convert it with tensor.to(...)")
    return None


def _problem(tensor: torch.Tensor) -> tuple[str, str, str] | None:
    """As above, of a tensor."""
    if tensor.requires_grad:
        return (
            "the tensor requires a gradient, which would end here",
            "a tensor outside of torch's graph",
            "Call tensor.detach()",
        )
    if _problem_of_type(tensor.dtype) is not None:
        return _problem_of_type(tensor.dtype)
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
