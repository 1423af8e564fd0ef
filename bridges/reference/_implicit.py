"""Roots of sparse systems in torch, differentiated by the implicit function theorem.

F(x; θ) = 0 gives, for a cotangent g of x, the adjoint equation and the cotangent of θ,

    (∂F/∂x)ᵀ λ = g,        θ̄ = −(∂F/∂θ)ᵀ λ.

λ is itself the root of a system, Jᵀ(x, θ) λ − g = 0 with the parameters g, x and θ. The rule
applied to that system is the second derivative, and so on: derivatives of every order are right.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

Triplets = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@runtime_checkable
class System(Protocol):
    """Equations F(x) = 0 that hold their parameters as tensors in (nested) dataclass fields.

    The last axis of x holds the unknowns; axes before it are cases, independent of each other.
    """

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """F(x) (..., m), NaN where the equations have no meaning; differentiable."""
        ...

    def jacobian(self, x: torch.Tensor) -> Triplets:
        """Rows (k,), columns (k,) and values (..., k) of ∂F/∂x; entries of one place add up."""
        ...

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """What a change of each unknown is measured against (..., m)."""
        ...


class SparseFactor:
    """LU factors of the matrices of several cases that share their pattern.

    Rows and columns are scaled by three sweeps of Ruiz's equilibration, since unknowns and
    equations differ in unit by many orders of magnitude. Factors are in double precision, on the
    host.

    **Errors:** `RuntimeError` for a singular matrix.
    """

    def __init__(
        self, size: int, row: torch.Tensor, column: torch.Tensor, value: torch.Tensor
    ) -> None:
        i, j = row.cpu().numpy(), column.cpu().numpy()
        flat = value.detach().reshape(-1, value.shape[-1]).cpu().numpy().astype(np.float64)
        self._case = [_equilibrated_lu(size, i, j, entry) for entry in flat]

    def solve(self, right: torch.Tensor, *, transposed: bool = False) -> torch.Tensor:
        """J⁻¹ right, or J⁻ᵀ right, for (..., m)."""
        flat = right.detach().reshape(-1, right.shape[-1]).cpu().numpy().astype(np.float64)
        found = np.empty_like(flat)
        for k, (lu, of_row, of_column) in enumerate(self._case):
            if transposed:
                found[k] = of_row * lu.solve(of_column * flat[k], trans="T")
            else:
                found[k] = of_column * lu.solve(of_row * flat[k])
        return torch.as_tensor(found).to(right).reshape(right.shape)


def _equilibrated_lu(
    size: int, row: np.ndarray, column: np.ndarray, value: np.ndarray
) -> tuple[scipy.sparse.linalg.SuperLU, np.ndarray, np.ndarray]:
    of_row, of_column = np.ones(size), np.ones(size)
    for _ in range(3):
        entry = np.abs(value * of_row[row] * of_column[column])
        largest_row, largest_column = np.zeros(size), np.zeros(size)
        np.maximum.at(largest_row, row, entry)
        np.maximum.at(largest_column, column, entry)
        with np.errstate(divide="ignore"):
            of_row /= np.sqrt(largest_row)
            of_column /= np.sqrt(largest_column)
    if not (np.isfinite(of_row).all() and np.isfinite(of_column).all()):
        raise RuntimeError("the Jacobian has an empty or infinite row or column; is all connected?")
    scaled = value * of_row[row] * of_column[column]
    matrix = scipy.sparse.csc_matrix((scaled, (row, column)), shape=(size, size))
    return scipy.sparse.linalg.splu(matrix), of_row, of_column


class _Transposed:
    def __init__(self, factor: "SparseFactor | _Transposed") -> None:
        self._factor = factor

    def solve(self, right: torch.Tensor, *, transposed: bool = False) -> torch.Tensor:
        return self._factor.solve(right, transposed=not transposed)


def _largest(change: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """max |change|/scale of every case (..., 1), infinite where it is not a number."""
    relative = (change / scale).abs().amax(dim=-1, keepdim=True)
    return torch.where(relative.isfinite(), relative, torch.full_like(relative, math.inf))


def _newton(system: System, guess: torch.Tensor, max_steps: int) -> torch.Tensor:
    """Newton's method with the natural monotonicity test of Deuflhard.

    A step of length t is taken where the step that the same Jacobian asks for afterwards is shorter
    by t/4. The first step linearises at a guess without a scale and only has to stay where the
    equations have a meaning. A case has arrived with a full step below ε^0.6 of the scale: the next
    one would be of the order of rounding.
    """
    x, residual = guess, system.residual(guess)
    if not residual.isfinite().all():
        raise ValueError(
            "the equations have no meaning at rest at the highest prescribed pressure: a wall law "
            "has no area there; expected a pressure that the walls bear"
        )
    tolerance = torch.finfo(x.dtype).eps ** 0.6
    arrived = torch.zeros((*x.shape[:-1], 1), dtype=torch.bool, device=x.device)
    for number in range(max_steps):
        factor = SparseFactor(x.shape[-1], *system.jacobian(x))
        step = factor.solve(residual)
        scale = system.scale(x - step if number == 0 else x)
        before = _largest(step, scale)
        near = before <= tolerance
        length = torch.where(arrived, 0.0, 1.0).to(x)
        for _ in range(30):
            trial = x - length * step
            changed = system.residual(trial)
            is_fit = changed.isfinite().all(dim=-1, keepdim=True)
            if number > 0:
                after = _largest(factor.solve(changed.nan_to_num(0.0)), scale)
                is_fit = is_fit & (near | (after <= (1.0 - 0.25 * length) * before))
            is_fit = is_fit | arrived
            if is_fit.all():
                break
            length = torch.where(is_fit, length, 0.5 * length)
        else:
            raise RuntimeError(f"no root: no step lowers the residual after {number} Newton steps")
        x, residual = trial, changed
        arrived = arrived | (near & (length == 1.0))
        if arrived.all():
            return x
    raise RuntimeError(f"no root within {max_steps} Newton steps")


def tensors_of(tree: Any) -> list[torch.Tensor]:
    """The tensors of a dataclass and of those in its fields that ask for a gradient."""
    found: list[torch.Tensor] = []
    for field in fields(tree):
        value = getattr(tree, field.name)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            found.append(value)
        elif is_dataclass(value):
            found += tensors_of(value)
    return found


def with_tensors(tree: Any, tensors: list[torch.Tensor]) -> Any:
    """The dataclass with other tensors, in the order of `tensors_of`."""
    return _with_next(tree, iter(tensors))


def _with_next(tree: Any, following: Iterator[torch.Tensor]) -> Any:
    changes = {}
    for field in fields(tree):
        value = getattr(tree, field.name)
        if isinstance(value, torch.Tensor) and value.requires_grad:
            changes[field.name] = next(following)
        elif is_dataclass(value) and tensors_of(value):
            changes[field.name] = _with_next(value, following)
    return replace(tree, **changes)


def find_root(system: Any, guess: torch.Tensor, max_steps: int) -> torch.Tensor:
    """The root of a `System`, a dataclass, with its derivatives in every tensor that asks for one.

    **Arguments:** `guess` (m,) or (..., m), by which nothing is differentiated; `max_steps`, Newton
    steps at most.

    **Returns:** x (..., m), with the axes before the last that the parameters have.

    **Errors:** `RuntimeError` where no root is found; `ValueError` where the equations have no
    meaning at the guess.
    """
    parameters = tensors_of(system)
    still = with_tensors(system, [p.detach() for p in parameters])
    with torch.no_grad():
        shape = still.residual(guess).shape
        value = _newton(still, guess.detach().expand(shape), max_steps)
        if not parameters:
            return value
        factor = SparseFactor(value.shape[-1], *still.jacobian(value))

    def residual(x: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        return with_tensors(system, list(tensors)).residual(x)

    return _Root.apply(residual, factor, value, *parameters)  # pyright: ignore[reportReturnType]


def _alias(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor of its own in the graph: a derivative by it does not follow what it depends on."""
    if tensor.requires_grad:
        return tensor.view_as(tensor)
    return tensor.detach().requires_grad_()


def _adjoint_of(residual: Callable) -> Callable:
    """Jᵀ(x, θ) λ − g as a function of λ and the parameters g, x, θ."""

    def adjoint(
        multiplier: torch.Tensor,
        cotangent: torch.Tensor,
        x: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        with torch.enable_grad():
            at = _alias(x)
            (product,) = torch.autograd.grad(
                residual(at, *parameters), at, multiplier, create_graph=True
            )
        return product - cotangent

    return adjoint


class _Root(torch.autograd.Function):
    """A known root as a function of the parameters of its equations."""

    @staticmethod
    def forward(
        ctx: Any,
        residual: Callable[..., torch.Tensor],
        factor: SparseFactor | _Transposed,
        value: torch.Tensor,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        ctx.residual, ctx.factor = residual, factor
        value = value.clone()
        ctx.save_for_backward(value, *parameters)
        return value

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (cotangent,) = cotangents
        value, *parameters = ctx.saved_tensors
        multiplier = ctx.factor.solve(cotangent, transposed=True)
        again = torch.is_grad_enabled()
        if again:
            multiplier = _Root.apply(
                _adjoint_of(ctx.residual),
                _Transposed(ctx.factor),
                multiplier,
                cotangent,
                value,
                *parameters,
            )
        else:
            value, parameters = value.detach(), [p.detach() for p in parameters]
        is_asked = ctx.needs_input_grad[3:]
        with torch.enable_grad():
            pairs = list(zip(parameters, is_asked, strict=True))
            inputs = [_alias(p) if needed else p for p, needed in pairs]
            wanted = [p for p, needed in zip(inputs, is_asked, strict=True) if needed]
            found = torch.autograd.grad(
                ctx.residual(value, *inputs),
                wanted,
                -multiplier,
                create_graph=again,
                allow_unused=True,
            )
        remaining = iter(found)
        return None, None, None, *(next(remaining) if needed else None for needed in is_asked)
