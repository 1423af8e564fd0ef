"""Arrays between JAX and torch: values, types, ownership and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxperf._misc import InputError

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges import borrowed_by_torch, jax_to_torch, torch_to_jax  # noqa: E402

DTYPES = ["float64", "float32", "int64", "int32", "bool", "complex128"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_round_trip_is_exact(dtype, shape):
    values = (np.arange(np.prod(shape, dtype=int)).reshape(shape) % 3).astype(dtype)
    array = jnp.asarray(values)
    tensor = jax_to_torch(array)
    assert str(tensor.dtype) == f"torch.{dtype}"
    back = torch_to_jax(tensor)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, values)


def test_neither_side_can_change_the_other():
    array = jnp.arange(6.0)
    tensor = jax_to_torch(array)
    tensor.add_(1.0)
    np.testing.assert_array_equal(array, np.arange(6.0))
    back = torch_to_jax(tensor)
    tensor.zero_()
    np.testing.assert_array_equal(back, np.arange(6.0) + 1.0)


def test_a_borrowed_array_is_shared_and_read():
    array = jnp.arange(6.0)
    with borrowed_by_torch(array) as tensor:
        assert tensor.data_ptr() == array.unsafe_buffer_pointer()
        assert float(tensor.sum()) == 15.0


@pytest.mark.parametrize("write", [lambda t: t.add_(1.0), lambda t: t[2:].zero_()])
def test_writing_to_a_borrowed_array_is_found_out(write):
    with (
        pytest.raises(RuntimeError, match="in-place torch operation"),
        borrowed_by_torch(jnp.arange(6.0)) as tensor,
    ):
        write(tensor)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.ones(3, requires_grad=True), "requires a gradient"),
        (lambda: torch.ones(3, 4).T, "strides"),
        (lambda: torch.ones(8)[::2], "strides"),
        (lambda: torch.eye(3).to_sparse(), "layout"),
        (lambda: torch.ones(3, dtype=torch.complex64).conj(), "conjugate"),
        (lambda: torch.ones(3).to(torch.float8_e4m3fn), "float8"),
    ],
)
def test_refusals_of_torch_to_jax(make, message):
    with pytest.raises(InputError, match=message):
        torch_to_jax(make())


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_wide_types_are_refused_without_x64(dtype):
    tensor = torch.ones(3, dtype=dtype)
    with jax.enable_x64(False), pytest.raises(InputError, match="jax_enable_x64 is off"):
        torch_to_jax(tensor)
    with jax.enable_x64(False):
        assert torch_to_jax(tensor.to(torch.float32)).dtype == jnp.float32


def test_refusals_of_jax_to_torch():
    with pytest.raises(InputError, match="tracer"):
        jax.jit(lambda x: jax_to_torch(x) and x)(jnp.ones(3))
    with pytest.raises(InputError, match="key"):
        jax_to_torch(jax.random.key(0))
