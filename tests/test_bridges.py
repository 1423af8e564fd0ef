"""Arrays between JAX and torch: values, types, ownership and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxperf import InputError

torch = pytest.importorskip("torch", reason="the extra `torch` is not installed")

from bridges import (  # noqa: E402
    borrowed_by_jax,
    borrowed_by_torch,
    jax_to_torch,
    torch_to_jax,
    tree_to_jax,
    tree_to_torch,
)

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


# ---------------------------------------------------------------- lent to JAX, trees, devices


def test_a_borrowed_tensor_is_shared_and_read():
    tensor = torch.arange(6.0, dtype=torch.float64)
    with borrowed_by_jax(tensor) as array:
        assert array.unsafe_buffer_pointer() == tensor.data_ptr()
        assert float(array.sum()) == 15.0


def test_writing_to_a_tensor_that_jax_borrows_is_found_out():
    tensor = torch.arange(6.0)
    with pytest.raises(RuntimeError, match="in-place torch operation"), borrowed_by_jax(tensor):
        tensor.mul_(2.0)


def test_memory_that_jax_cannot_take_is_refused_and_copied():
    whole = torch.arange(20, dtype=torch.float64)
    view = whole[1:9]
    assert view.data_ptr() % 64 != 0
    with pytest.raises(InputError, match="8 beyond one"), borrowed_by_jax(view):
        pass
    np.testing.assert_array_equal(torch_to_jax(view), np.arange(1.0, 9.0))


def test_a_tree_with_text_in_arrays_is_refused():
    with pytest.raises(InputError, match="numbers or booleans"):
        tree_to_torch({"a": np.array(["a"])})


def test_trees_keep_their_containers():
    tree = {"a": (jnp.arange(3.0), None, "text"), "b": [np.ones((2, 2)), 4]}
    there = tree_to_torch(tree)
    assert there["a"][0].dtype == there["b"][0].dtype == torch.float64
    assert there["a"][1:] == (None, "text")
    assert there["b"][1] == 4
    back = tree_to_jax(there)
    assert jax.tree.structure(back) == jax.tree.structure(tree)
    np.testing.assert_array_equal(back["b"][0], tree["b"][0])
    there["b"][0].zero_()
    np.testing.assert_array_equal(tree["b"][0], np.ones((2, 2)))


@pytest.mark.skipif(
    not torch.cuda.is_available() or jax.default_backend() != "gpu",
    reason="needs CUDA in torch and in JAX",
)
def test_cuda_memory_is_shared_on_its_device():
    array = jnp.arange(6.0)
    with borrowed_by_torch(array) as tensor:
        assert tensor.is_cuda
        assert tensor.data_ptr() == array.unsafe_buffer_pointer()
    lent = torch.arange(6.0, device="cuda")
    with borrowed_by_jax(lent) as back:
        assert back.unsafe_buffer_pointer() == lent.data_ptr()
    assert jax_to_torch(array).is_cuda
