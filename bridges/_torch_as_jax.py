"""A torch module as a function of JAX."""

import contextlib
import copy
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jax.experimental.buffer_callback import buffer_callback
from jaxtyping import Array
from torch.utils._python_dispatch import TorchDispatchMode

from jaxperf._misc import InputError

from ._dlpack import check_type, torch_to_jax

_Tensors = Sequence[torch.Tensor]
# Flat tensors, and the containers that they come in.
_Answer = tuple[_Tensors, Any]
# Shape and name of the type of each argument.
_Kinds = tuple[tuple[tuple[int, ...], str], ...]


class _Call:
    """Flat tensors to flat tensors, as JAX calls them; equal to itself only.

    **Attributes:** `function`, differentiable by torch; `lock`, held while it runs, for a module
    whose parameters are replaced for the length of a call serves one thread at a time; `device`
    of what it takes.
    """

    def __init__(
        self, function: Callable[..., _Answer], lock: threading.Lock, device: torch.device
    ) -> None:
        self.function, self.lock, self.device = function, lock, device
        self.results = functools.cache(self._results)
        self.host = functools.cache(self._host)
        self.pullback = functools.cache(self._pullback)

    def _results(self, kinds: _Kinds) -> tuple[tuple[jax.ShapeDtypeStruct, ...], Any]:
        """Shapes and types of what comes back and its containers, found by a call with zeros."""
        zeros = [
            torch.zeros(shape, dtype=getattr(torch, kind), device=self.device)
            for shape, kind in kinds
        ]
        with self._alone(), _NoDraws(self.device):
            found, structure = self.function(*zeros)
        for tensor in found:
            if not isinstance(tensor, torch.Tensor):
                raise InputError(
                    f"the module answers with {tensor!r}",
                    where="torch_as_jax",
                    expected="tensors, in tuples, lists or dicts",
                    fix="Return torch.as_tensor(value)",
                )
            check_type(tensor, "torch_as_jax")
            if tensor.numel() == 0 and all(zero.numel() for zero in zeros):
                # XLA would not even call: it knows an array without entries.
                raise InputError(
                    f"the module answers zeros with an empty tensor {tuple(tensor.shape)}",
                    where="torch_as_jax",
                    expected="shapes that follow from those of the inputs, not from their values",
                    fix="Return a mask in place of a selection",
                )
        name = lambda tensor: str(tensor.dtype).removeprefix("torch.")
        kind = lambda t: jax.ShapeDtypeStruct(tuple(t.shape), jnp.dtype(name(t)))
        return tuple(kind(t) for t in found), structure

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One thread at a time, as the module is written: autocast would change its types."""
        with self.lock, torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            yield

    def _host(self, kinds: _Kinds) -> Callable[..., None]:
        """What XLA calls with its buffers. Nothing in it may call JAX, which can wait for the
        thread that it runs on."""
        promised, structure = self.results(kinds)

        def host(context: Any, out: Sequence[Any], *buffers: Any) -> None:
            into = [torch.from_dlpack(buffer) for buffer in out]
            given = [torch.from_dlpack(buffer) for buffer in buffers]
            # Axes that vmap put in front: of one, or as many as cases.
            ahead = given[0].dim() - len(kinds[0][0]) if given else 0
            shape = into[0].shape[:ahead] if into else ()
            with self._alone(), _stream(context, into):
                for case in np.ndindex(*shape):
                    # Copies: the function may write to what it gets.
                    found, containers = self.function(*(_case(t, case).clone() for t in given))
                    _check(found, containers, promised, structure)
                    for target, tensor in zip(into, found, strict=True):
                        target[case].copy_(tensor)

        return host

    def _pullback(self, n: int, moves: tuple[bool, ...], answers: tuple[bool, ...]) -> "_Call":
        """Of n arguments and cotangents of the answers that are no integers, the gradients with
        respect to the arguments that move."""

        def pullback(*tensors: torch.Tensor) -> _Answer:
            twice = torch.is_grad_enabled()
            with torch.enable_grad():
                given = [
                    t if not moving or t.requires_grad else t.detach().requires_grad_()
                    for t, moving in zip(tensors[:n], moves, strict=True)
                ]
                # Copies here too, which an in-place operation may change.
                found, _ = self.function(*(t.clone() for t in given))
                found = [t for t, real in zip(found, answers, strict=True) if real]
                wanted = [t for t, moving in zip(given, moves, strict=True) if moving]
                reached = [k for k, t in enumerate(found) if t.requires_grad]
                if not reached:
                    return [torch.zeros_like(t) for t in wanted], None
                gradient = torch.autograd.grad(
                    [found[k] for k in reached],
                    wanted,
                    [tensors[n + k] for k in reached],
                    create_graph=twice,
                    allow_unused=True,
                    materialize_grads=True,
                )
                return gradient, None

        return _Call(pullback, self.lock, self.device)


class _NoDraws(TorchDispatchMode):
    """Refuses random numbers: value and gradient are two calls, which would draw different ones."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **given)
        # Attention says that it draws without any dropout, too: what tells is its generator.
        own = [x for x in (*args, *given.values()) if isinstance(x, torch.Generator)]
        before = self._states(own)
        found = func(*args, **given)
        if not all(map(torch.equal, before, self._states(own))):
            raise InputError(
                f"the module draws random numbers ({func})",
                where="torch_as_jax",
                expected="a function of its inputs: the value and the gradient would see two draws",
                fix="Call module.eval() before wrapping it, or draw outside and pass an input",
            )
        return found

    def _states(self, own: list[torch.Generator]) -> list[torch.Tensor]:
        states = [torch.random.get_rng_state(), *(g.get_state() for g in own)]
        if self.device.type == "cuda":
            states.append(torch.cuda.get_rng_state(self.device))
        return states


def _case(tensor: torch.Tensor, case: tuple[int, ...]) -> torch.Tensor:
    return tensor[tuple(k if size > 1 else 0 for k, size in zip(case, tensor.shape, strict=False))]


def _check(
    found: _Tensors, containers: Any, promised: Sequence[jax.ShapeDtypeStruct], structure: Any
) -> None:
    """What a module answers must follow from shapes and types: XLA has made room for it."""
    kinds = lambda parts: [(tuple(p.shape), str(p.dtype).removeprefix("torch.")) for p in parts]
    if containers != structure or kinds(found) != kinds(promised):
        raise ValueError(
            f"the module answers with {kinds(found)}, and on zeros it did with {kinds(promised)}; "
            "expected shapes, types and containers that follow from those of its inputs"
        )


def _stream(context: Any, tensors: _Tensors) -> contextlib.AbstractContextManager:
    """XLA's own stream on CUDA, so that nothing runs before its inputs are there."""
    if not tensors or not tensors[0].is_cuda:
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
    return buffer_callback(host, call.results(kinds)[0], vmap_method="expand_dims")(*arguments)


def _forward(call: _Call, *arguments: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    return _apply(call, *arguments), arguments


def _backward(
    call: _Call, arguments: tuple[Array, ...], cotangents: tuple[Array | np.ndarray, ...]
) -> tuple[Array | None, ...]:
    moves = tuple(_is_real(a) for a in arguments)
    answers = tuple(_is_real(r) for r in call.results(_kinds(arguments))[0])
    # torch's gradients by complex numbers are the conjugates of JAX's.
    given = [jnp.conj(c) for c, real in zip(cotangents, answers, strict=True) if real]
    if not any(moves) or not given:
        return tuple(None for _ in arguments)
    found = iter(_apply(call.pullback(len(arguments), moves, answers), *arguments, *given))
    return tuple(jnp.conj(next(found)) if moving else None for moving in moves)


_apply.defvjp(_forward, _backward)


class _Wrapped:
    """A module, and the calls of it by the structure of their inputs; equal to itself only."""

    def __init__(self, module: Callable, names: tuple[str, ...]) -> None:
        is_module = isinstance(module, torch.nn.Module)
        # A copy of its own: parameters are replaced for the length of a call.
        self.module, self.names = copy.deepcopy(module) if is_module else module, names
        self.lock = threading.Lock()
        self.buffers = (
            {n: b.detach().clone() for n, b in module.named_buffers()} if is_module else {}
        )
        held = [*module.parameters(), *module.buffers()] if is_module else []
        self.device = held[0].device if held else torch.device("cpu")
        self.call = functools.cache(self._call)

    def _call(self, inputs: Any) -> _Call:
        def function(*flat: torch.Tensor) -> tuple[Sequence[Any], Any]:
            parameters = dict(zip(self.names, flat, strict=False))
            given = jax.tree.unflatten(inputs, flat[len(self.names) :])
            if isinstance(self.module, torch.nn.Module):
                # Buffers are copied: a module that counts what it sees counts for one call.
                buffers = {name: b.clone() for name, b in self.buffers.items()}
                # Grad mode is that of torch by default: a module may differentiate inside.
                with torch.enable_grad():
                    found = torch.func.functional_call(self.module, (parameters, buffers), given)
                self._check_buffers(buffers)
            else:
                with torch.enable_grad():
                    found = self.module(*given)
            return jax.tree.flatten(found)

        return _Call(function, self.lock, self.device)

    def _check_buffers(self, after: dict[str, torch.Tensor]) -> None:
        for name, buffer in after.items():
            if not torch.equal(buffer, self.buffers[name]):
                raise InputError(
                    f"the module changes its buffer {name!r}",
                    where="torch_as_jax",
                    expected="a function of its inputs: JAX may call it more or fewer times than "
                    "written, and what it learns in a call is gone after it",
                    fix="Call module.eval() before wrapping it",
                )


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
        call = self._wrapped.call(structure)
        arguments = [self.parameters[name] for name in self._wrapped.names]
        arguments += [_as_array(leaf) for leaf in leaves]
        found: Any = _apply(call, *arguments)
        return jax.tree.unflatten(call.results(_kinds(arguments))[1], found)


def _as_array(leaf: Any) -> Array:
    """**Errors:** `InputError` for what is no array of numbers, or would become narrower."""
    kind = getattr(leaf, "dtype", None)
    if kind is None or not (jnp.issubdtype(kind, jnp.number) or jnp.issubdtype(kind, jnp.bool_)):
        raise InputError(
            f"an input is {leaf!r}",
            where="torch_as_jax",
            expected="arrays of numbers or booleans",
            fix="Make it an array, or bind it before wrapping (functools.partial)",
        )
    array = jnp.asarray(leaf)
    if array.dtype != kind:
        raise InputError(
            f"an input is {kind} and jax_enable_x64 is off",
            where="torch_as_jax",
            expected="a 32-bit type, as JAX would narrow it silently",
            fix="Convert it, or set jax.config.update('jax_enable_x64', True)",
        )
    return array


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

    - `module`: takes and returns tensors in tuples, lists or dicts, with shapes, types and
      containers that follow from those of its inputs; it is run once on zeros for each set of
      them. It may not call JAX. A module is copied when it is wrapped, with its parameters and
      buffers. It must be a function: JAX may call it more or fewer times than written, so put a
      module with dropout or batch normalisation in `eval` mode. It may differentiate inside
      (`torch.autograd.grad`, `torch.func`) and may be one of `torch.compile`. Wrap it once: JAX
      keeps what it compiled for each wrapper.

    **Returns:** [`bridges.TorchFunction`][].

    **Errors:** `InputError` for inputs that are no arrays, results that are no tensors, either of
    a type that JAX does not have (64-bit ones while `jax_enable_x64` is off), and a module that
    draws random numbers or changes its buffers, as dropout and batch normalisation do while they
    train. What the module
    raises at run time arrives as JAX's runtime error with its text, as does an answer of another
    shape, type or container than on zeros; what it raises on zeros goes through.
    """
    parameters = (
        {name: torch_to_jax(p.detach().contiguous()) for name, p in module.named_parameters()}
        if isinstance(module, torch.nn.Module)
        else {}
    )
    return TorchFunction(parameters, _Wrapped(module, tuple(parameters)))
