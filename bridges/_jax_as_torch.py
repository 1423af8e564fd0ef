"""A function of JAX as a function of torch."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import torch
from jaxtyping import Array

from jaxperf._misc import InputError

from ._dlpack import jax_to_torch, torch_to_jax


class _Program:
    """A function of flat arrays, compiled, with its pullback; equal to itself only.

    **Attributes:** `function(bound, *arrays)`, which returns a tuple of arrays; `bound`, a tree
    that stays in JAX and is given to the program as an argument, not built into it.
    """

    def __init__(self, function: Callable[..., tuple[Array, ...]], bound: Any) -> None:
        self.function, self.bound = function, bound
        self.run = eqx.filter_jit(function)
        self.batched = functools.cache(self._batched)
        self.pullback = functools.cache(self._pullback)

    def __call__(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        # Ready, so that a fault is raised here and not by whoever reads the result.
        return jax.block_until_ready(self.run(self.bound, *arrays))

    def _batched(self, axes: tuple[int | None, ...]) -> "_Program":
        """Over an axis of each argument that has one."""
        return _Program(
            lambda bound, *arrays: jax.vmap(functools.partial(self.function, bound), in_axes=axes)(
                *arrays
            ),
            self.bound,
        )

    def _pullback(self, moves: tuple[bool, ...], answers: tuple[bool, ...]) -> "_Program":
        """Of arguments and cotangents of the answers that are no integers, the gradients with
        respect to the arguments that move."""
        n = len(moves)

        def pullback(bound: Any, *arrays: Array) -> tuple[Array, ...]:
            def of_moving(*moving: Array) -> tuple[Array, ...]:
                following = iter(moving)
                full = [next(following) if m else a for m, a in zip(moves, arrays, strict=False)]
                found = self.function(bound, *full)
                return tuple(x for x, real in zip(found, answers, strict=True) if real)

            moving = [a for m, a in zip(moves, arrays, strict=False) if m]
            return jax.vjp(of_moving, *moving)[1](tuple(arrays[n:]))

        return _Program(pullback, self.bound)


class _Apply(torch.autograd.Function):
    """A program on tensors. Its backward pass is a program on tensors too, and so on."""

    @staticmethod
    def forward(program: _Program, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = [torch_to_jax(t.detach().resolve_conj().contiguous()) for t in tensors]
        return tuple(jax_to_torch(a) for a in program(arrays))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[torch.Tensor, ...]) -> None:
        program, *tensors = inputs
        ctx.program = program
        ctx.answers = tuple(t.is_floating_point() or t.is_complex() for t in output)
        ctx.mark_non_differentiable(
            *(t for t, real in zip(output, ctx.answers, strict=True) if not real)
        )
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        tensors = ctx.saved_tensors
        moves = ctx.needs_input_grad[1:]
        # torch's gradients by complex numbers are the conjugates of JAX's.
        given = [c.conj() for c, real in zip(cotangents, ctx.answers, strict=True) if real]
        found = iter(_Apply.apply(ctx.program.pullback(moves, ctx.answers), *tensors, *given))
        return None, *(next(found).conj() if moving else None for moving in moves)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], program: _Program, *tensors: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        del info
        found = _Apply.apply(program.batched(tuple(in_dims[1:])), *tensors)
        return found, tuple(0 for _ in found)


def _kinds(parts: Sequence[Any]) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shape and name of the type of arrays or tensors."""
    return tuple((tuple(p.shape), str(p.dtype).removeprefix("torch.")) for p in parts)


def jax_as_torch(function: Callable[..., Any], *bound: Any) -> Callable[..., Any]:
    """A function of JAX arrays as a function of tensors, which torch differentiates.

    ```python
    def ffr(tree, radius):
        problem = jp.SteadyProblem(eqx.tree_at(lambda t: t.radius, tree, radius), boundary)
        return jp.solve_steady(problem).pressure_static[-1, 1] / 12400.0

    layer = bridges.jax_as_torch(ffr, tree)
    layer(radius).backward()                  # radius: a tensor that requires a gradient
    ```

    The function is compiled once for each set of shapes, and so is its pullback, which evaluates
    the function again: nothing is held between forward and backward pass but the inputs. The
    second derivative is the pullback's pullback; where JAX refuses it, so does this. Goes under
    `torch.func.vmap`, which becomes JAX's. Make it once: JAX keeps what it compiled for each.

    **Arguments:**

    - `function(*bound, *inputs)`: inputs are trees of arrays; it returns a tree of arrays.
    - `bound`: its first arguments, which stay in JAX: networks, problems, solvers. They are
      arguments of the compiled program; what `function` closes over becomes constants of it, which
      compiles longer and can run slower.

    **Returns:** a function of trees of tensors. Tensors go in and out as copies, on their device,
    in their type; strided ones are made contiguous.

    **Errors:** `InputError` for inputs that are no tensors, and types that JAX does not have
    (64-bit ones while `jax_enable_x64` is off). What `function` raises goes through.
    """
    answered: dict[Any, Any] = {}

    @functools.cache
    def program(inputs: Any) -> _Program:
        def flat(bound: tuple[Any, ...], *arrays: Array) -> tuple[Array, ...]:
            found = function(*bound, *jax.tree.unflatten(inputs, arrays))
            leaves, answered[inputs, _kinds(arrays)] = jax.tree.flatten(found)
            return tuple(jnp.asarray(leaf) for leaf in leaves)

        return _Program(flat, bound)

    def call(*inputs: Any) -> Any:
        leaves, structure = jax.tree.flatten(inputs)
        for leaf in leaves:
            if not isinstance(leaf, torch.Tensor):
                raise InputError(
                    f"an input is {leaf!r}",
                    where="jax_as_torch",
                    expected="tensors",
                    fix="Make it a tensor, or give it to jax_as_torch as bound",
                )
        found = _Apply.apply(program(structure), *leaves)
        return jax.tree.unflatten(answered[structure, _kinds(leaves)], found)

    return call
