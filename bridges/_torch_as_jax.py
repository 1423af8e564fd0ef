"""A torch module as a function of JAX."""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array

from jaxperf._misc import InputError

from ._dlpack import check_type, torch_to_jax

_Tensors = Sequence[torch.Tensor]
# Shape and name of the type of each argument.
_Kinds = tuple[tuple[tuple[int, ...], str], ...]


class _Call:
    """Flat tensors to flat tensors, as JAX calls them; equal to itself only.

    **Attributes:** `function`, differentiable by torch; `lock`, held while it runs, for a module
    whose parameters are replaced for the length of a call serves one thread at a time; `device`
    of what it takes.
    """

    def __init__(
        self, function: Callable[..., _Tensors], lock: threading.Lock, device: torch.device
    ):
        self.function, self.lock, self.device = function, lock, device
        self.results = functools.cache(self._results)
        self.host = functools.cache(self._host)
        self.pullback = functools.cache(self._pullback)

    def _results(self, kinds: _Kinds) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Shapes and types of what comes back, found by a call with zeros."""
        zeros = [
            torch.zeros(shape, dtype=getattr(torch, kind), device=self.device)
            for shape, kind in kinds
        ]
        with self.lock, torch.no_grad():
            found = self.function(*zeros)
        for tensor in found:
            check_type(tensor, "torch_as_jax")
        name = lambda tensor: str(tensor.dtype).removeprefix("torch.")
        return tuple(jax.ShapeDtypeStruct(tuple(t.shape), jnp.dtype(name(t))) for t in found)

    def _host(self, kinds: _Kinds) -> Callable[..., None]:
        """What XLA calls with its buffers. Nothing in it may call JAX, which can wait for the
        thread that it runs on."""

        def host(context, out, *buffers):
            into = [torch.from_dlpack(buffer) for buffer in out]
            given = [torch.from_dlpack(buffer) for buffer in buffers]
            # Axes that vmap put in front: of one, or as many as cases.
            batch = given[0].shape[: given[0].dim() - len(kinds[0][0])] if given else ()
            ahead = len(batch)
            shape = into[0].shape[:ahead]
            with self.lock, torch.no_grad(), _stream(context, into):
                for case in np.ndindex(*shape):
                    # Copies: the function may write to what it gets.
                    found = self.function(*(_case(t, case).clone() for t in given))
                    for target, tensor in zip(into, found, strict=True):
                        target[case].copy_(tensor)

        return host

    def _pullback(self, n: int, moves: tuple[bool, ...], answers: tuple[bool, ...]) -> "_Call":
        """Of n arguments and cotangents of the answers that are no integers, the gradients with
        respect to the arguments that move."""

        def pullback(*tensors):
            twice = torch.is_grad_enabled()
            with torch.enable_grad():
                given = [
                    t if not moving or t.requires_grad else t.detach().requires_grad_()
                    for t, moving in zip(tensors[:n], moves, strict=True)
                ]
                found = self.function(*given)
                found = [t for t, real in zip(found, answers, strict=True) if real]
                wanted = [t for t, moving in zip(given, moves, strict=True) if moving]
                reached = [k for k, t in enumerate(found) if t.requires_grad]
                if not reached:
                    return [torch.zeros_like(t) for t in wanted]
                return torch.autograd.grad(
                    [found[k] for k in reached],
                    wanted,
                    [tensors[n + k] for k in reached],
                    create_graph=twice,
                    allow_unused=True,
                    materialize_grads=True,
                )

        return _Call(pullback, self.lock, self.device)


def _case(tensor: torch.Tensor, case: tuple[int, ...]) -> torch.Tensor:
    return tensor[tuple(k if size > 1 else 0 for k, size in zip(case, tensor.shape, strict=False))]


def _stream(context: Any, tensors: _Tensors) -> contextlib.AbstractContextManager:
    """XLA's own stream on CUDA, so that nothing runs before its inputs are there."""
    if not tensors[0].is_cuda:
        return contextlib.nullcontext()
    return torch.cuda.stream(torch.cuda.ExternalStream(context.stream, tensors[0].device))


def _kinds(arguments: Sequence[Array]) -> _Kinds:
    return tuple((tuple(a.shape), str(a.dtype)) for a in arguments)


def _is_real(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.inexact)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(call: _Call, *arguments: Array) -> tuple[Array, ...]:
    kinds = _kinds(arguments)
    host = call.host(kinds)
    return buffer_callback(host, call.results(kinds), vmap_method="expand_dims")(*arguments)


def _forward(call: _Call, *arguments: Array):
    return _apply(call, *arguments), arguments


def _backward(call: _Call, arguments, cotangents):
    moves = tuple(_is_real(a) for a in arguments)
    answers = tuple(_is_real(r) for r in call.results(_kinds(arguments)))
    given = [c for c, real in zip(cotangents, answers, strict=True) if real]
    if not any(moves) or not given:
        return tuple(None for _ in arguments)
    found = iter(_apply(call.pullback(len(arguments), moves, answers), *arguments, *given))
    return tuple(next(found) if moving else None for moving in moves)


_apply.defvjp(_forward, _backward)


class _Wrapped:
    """A module, and the calls of it by the structure of their inputs; equal to itself only."""

    def __init__(self, module: Callable, names: tuple[str, ...]):
        self.module, self.names = module, names
        self.lock = threading.Lock()
        is_module = isinstance(module, torch.nn.Module)
        self.buffers = (
            {n: b.detach().clone() for n, b in module.named_buffers()} if is_module else {}
        )
        held = [*module.parameters(), *module.buffers()] if is_module else []
        self.device = held[0].device if held else torch.device("cpu")
        self.call = functools.cache(self._call)
        self.structure: dict[Any, Any] = {}

    def _call(self, inputs: Any) -> _Call:
        def function(*flat):
            parameters = dict(zip(self.names, flat, strict=False))
            given = jax.tree.unflatten(inputs, flat[len(self.names) :])
            if isinstance(self.module, torch.nn.Module):
                # Buffers are copied: a module that counts what it sees counts for one call.
                buffers = {name: b.clone() for name, b in self.buffers.items()}
                found = torch.func.functional_call(self.module, (parameters, buffers), given)
            else:
                found = self.module(*given)
            leaves, self.structure[inputs] = jax.tree.flatten(found)
            return leaves

        return _Call(function, self.lock, self.device)


class TorchFunction(eqx.Module):
    """A torch module as a function of JAX; made by [`bridges.torch_as_jax`][].

    **Attributes:** `parameters`, those of the module by name, as JAX arrays: leaves of this
    pytree, so that `equinox.filter_grad` and optax train them. Back into a module they go by
    `module.load_state_dict(tree_to_torch(function.parameters), strict=False)`.
    """

    parameters: dict[str, Array]
    _wrapped: _Wrapped = eqx.field(static=True)

    # By identity, so that jax.jit(function) can keep what it compiled.
    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __call__(self, *inputs: Any) -> Any:
        """What the module answers. **Arguments:** trees of arrays. **Returns:** a tree of arrays,
        as the module's containers are."""
        leaves, structure = jax.tree.flatten(inputs)
        for leaf in leaves:
            if not hasattr(leaf, "dtype"):
                raise InputError(
                    f"an input is {leaf!r}",
                    where="torch_as_jax",
                    expected="arrays",
                    fix="Make it an array, or bind it before wrapping (functools.partial)",
                )
        call = self._wrapped.call(structure)
        arguments = [self.parameters[name] for name in self._wrapped.names]
        found: Any = _apply(call, *arguments, *(jnp.asarray(leaf) for leaf in leaves))
        return jax.tree.unflatten(self._wrapped.structure[structure], found)


def torch_as_jax(module: Callable[..., Any]) -> TorchFunction:
    """A torch module, or function of tensors, as a function of JAX arrays.

    ```python
    layer = bridges.torch_as_jax(torch.nn.Linear(3, 1).double())
    loss, gradient = eqx.filter_value_and_grad(lambda layer: layer(x).sum())(layer)
    ```

    It goes under `jit`, `vmap` (a loop over cases in one call of the host), `grad` in inputs and
    parameters, and `grad` of `grad` where torch can. Forward mode is refused by JAX: a backward
    pass of torch has no `jvp`. XLA hands over its buffers without a copy for torch to copy once,
    so that the module may write to what it gets; results are written into XLA's memory.

    **Arguments:**

    - `module`: takes and returns tensors in tuples, lists or dicts, with shapes that follow from
      those of its inputs; it is run once on zeros for each set of shapes. Parameters are copied
      when it is wrapped, buffers too: what a call changes in them is gone after it, so put a module
      in `eval` mode. It must be a function: JAX may call it more or fewer times than written.

    **Returns:** [`bridges.TorchFunction`][].

    **Errors:** `InputError` for inputs that are no arrays, and results of a type that JAX does not
    have (64-bit ones while `jax_enable_x64` is off). What the module raises at run time arrives as
    JAX's runtime error with its text.
    """
    parameters = (
        {name: torch_to_jax(p.detach().contiguous()) for name, p in module.named_parameters()}
        if isinstance(module, torch.nn.Module)
        else {}
    )
    return TorchFunction(parameters, _Wrapped(module, tuple(parameters)))
