"""One quantity and its gradient by four ways, and how far they agree."""

import itertools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float
from rich.console import Console
from rich.table import Table

from jaxperf._misc import InputError
from jaxperf._versions import versions
from jaxperf.io import write_json

from ._dlpack import jax_to_torch

ADJOINT, FORWARD, TORCH, DIFFERENCES = "adjoint", "forward mode", "torch", "differences"
# Steps of the differences, relative to each parameter. Errors of a value that is exact to 1e-14
# and of its third derivative meet near 1e-4; a value of fewer digits asks for a larger step, a
# front that passes for a smaller one, so that all are tried.
_STEPS = tuple(1e-2 * 4.0**-k for k in range(8))

# Differences of a larger error than this judge nothing.
_TRUST = 1e-3
# Of the whole gradient's norm: what counts as none for one parameter's.
_NOTHING = 1e-14

Parameters = Mapping[str, Array | np.ndarray]
_Quantity = Callable[[Any, Any], Array]


@dataclass(frozen=True)
class Way:
    """What one way found.

    **Attributes:** `name`; `value`; `directional`, derivatives in each direction; `gradient`, the
    derivative by each parameter's relative change, where the way has all of them; `error`, how far
    `directional` can be trusted, relative, where the way knows; seconds of the value and of value
    and derivatives; `megabytes` beyond inputs and outputs: XLA's temporary memory, or what torch
    keeps for its backward pass; None where there is no such count.
    """

    name: str
    value: float
    directional: list[float]
    gradient: dict[str, np.ndarray] | None
    seconds_value: float
    seconds_gradient: float
    megabytes: float | None
    error: float | None = None


@dataclass(frozen=True)
class Comparison:
    """One way beside the adjoint.

    **Attributes:** `value`, relative difference; `directional`, that of the derivatives, in the
    norm over directions; `cosine` between them; `gradient`, relative difference of each parameter's
    gradient in its own norm, where both ways have it.
    """

    name: str
    value: float
    directional: float
    cosine: float
    gradient: dict[str, float] = field(default_factory=dict)

    @property
    def worst(self) -> float:
        """The largest relative difference of derivatives."""
        return max(self.directional, *self.gradient.values(), 0.0)


@dataclass(frozen=True)
class CrossCheck:
    """A quantity by all ways; made by [`bridges.cross_check`][]."""

    name: str
    unit: str
    seed: int
    parameters: dict[str, list[int]]
    ways: list[Way]
    comparisons: list[Comparison]

    def disagreements(self, *, value: float, reference: float, differences: float) -> list[str]:
        """Sentences on what differs by more than it may: values; derivatives by the reference and
        by forward mode; derivatives by differences, beyond three times their own error, which must
        be small itself."""
        trust = {way.name: way.error or 0.0 for way in self.ways}
        told = []
        if not trust[DIFFERENCES] <= _TRUST:
            told.append(
                f"{DIFFERENCES}: they are good for {trust[DIFFERENCES]:.1e} only and judge "
                "nothing: the quantity has too few digits, or leaves its domain"
            )
        for other in self.comparisons:
            allowed = max(differences, 3.0 * trust[other.name])
            allowed = allowed if other.name == DIFFERENCES else reference
            # written so that NaN fails
            if not other.value <= value:
                told.append(f"{other.name}: the value differs by {other.value:.1e} (≤ {value:.0e})")
            if not other.worst <= allowed:
                told.append(
                    f"{other.name}: derivatives differ by {other.worst:.1e} (≤ {allowed:.0e})"
                )
        return told

    def show(self, console: Console) -> None:
        """Print both tables."""
        table = Table(
            "way", f"value, {self.unit}", "s, value", "s, with gradient", "MB", title=self.name
        )
        for way in self.ways:
            megabytes = "" if way.megabytes is None else f"{way.megabytes:.3g}"
            times = (f"{way.seconds_value:.4g}", f"{way.seconds_gradient:.4g}")
            table.add_row(way.name, f"{way.value:.15g}", *times, megabytes)
        console.print(table)
        names = list(self.parameters)
        table = Table(
            "beside the adjoint", "value", "directions", "1 − cosine", *names,
            title="relative differences",
        )  # fmt: skip
        for other in self.comparisons:
            each = [f"{other.gradient[n]:.1e}" if other.gradient else "" for n in names]
            shown = (other.value, other.directional, 1.0 - other.cosine)
            table.add_row(other.name, *(f"{x:.1e}" for x in shown), *each)
        console.print(table)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "seed": self.seed,
            "parameters": self.parameters,
            "versions": versions(),
            "ways": [asdict(way) for way in self.ways],
            "comparisons": [asdict(other) for other in self.comparisons],
        }

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all, and a figure beside it; what is no number becomes null.

        **Errors:** `InputError` for a path that does not end in .json.
        """
        if path.suffix != ".json":
            raise InputError(
                f"it ends in {path.suffix!r}",
                where=str(path),
                expected="a file that ends in .json; a figure .png is written beside it",
                fix="Name another file",
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, self.as_json())
        self._draw(path.with_suffix(".png"))

    def _draw(self, path: Path) -> None:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 2))
        named = {way.name: way for way in self.ways}
        smallest = 1e-17
        own = np.abs(named[ADJOINT].directional)
        for other in self.comparisons:
            apart = np.abs(np.subtract(named[other.name].directional, named[ADJOINT].directional))
            apart = apart / np.max(own)
            left.semilogy(
                range(1, len(apart) + 1), np.maximum(apart, smallest), "o", label=other.name
            )
        left.set_xlabel("direction")
        left.set_ylabel("difference from the adjoint, over the largest")
        left.set_ylim(smallest / 3, None)
        left.set_title(f"{self.name}: derivatives")
        left.legend(fontsize=8)
        at = np.arange(len(self.ways))
        right.bar(at - 0.2, [w.seconds_value for w in self.ways], 0.4, label="value")
        right.bar(at + 0.2, [w.seconds_gradient for w in self.ways], 0.4, label="with derivatives")
        right.set_xticks(at, [way.name for way in self.ways], fontsize=8)
        right.set_yscale("log")
        right.set_ylabel("seconds")
        right.legend(fontsize=8)
        figure.tight_layout()
        figure.savefig(path, dpi=150)
        plt.close(figure)


def cross_check(
    quantity: Callable[..., Float[Array, ""]],
    parameters: Parameters,
    bound: Any = None,
    *,
    reference: Callable[[dict[str, torch.Tensor]], torch.Tensor] | None = None,
    forward: Callable[..., Float[Array, ""]] | None = None,
    name: str = "quantity",
    unit: str = "1",
    directions: int = 6,
    seed: int = 0,
) -> CrossCheck:
    """A quantity and its gradient by (1) the adjoint, (2) forward mode, (3) torch's autograd on a
    reference, and (4) central differences.

    Derivatives are by relative changes, x ∂/∂x (for entries of 0, of the largest entry of their
    array), so that parameters of any unit weigh alike. Every way is compared in random directions,
    in which entries of 0 stay what they are; adjoint and torch in all entries besides. The
    reference runs on the CPU. Differences are extrapolated from two steps, for
    every pair of neighbouring steps from 1e-2 to 6e-7; what differs least from its neighbours is
    taken, and how much it does is the error they are good for.

    **Arguments:**

    - `quantity(parameters, bound)`: a scalar; `parameters` as given, a dict of float64 arrays.
    - `bound`: a tree of all else that the quantity needs, an argument of the compiled program.
    - `reference(parameters)`: the same of tensors; left out, way (3) is.
    - `forward`: the quantity, where forward mode needs another adjoint method.
    - `directions`: how many; no more than there are entries.

    **Returns:** [`bridges.CrossCheck`][]. **Errors:** `InputError` for parameters that are not
    float64 arrays.

    **Example:**

    ```python
    import bridges, jax, numpy as np
    jax.config.update("jax_enable_x64", True)
    check = bridges.cross_check(
        lambda x, bound: (x["radius"] ** -4.0).sum(),
        {"radius": np.array([1.0, 2.0, 3.0])},
        reference=lambda x: (x["radius"] ** -4.0).sum(),
    )
    print(check)
    ```
    """
    given = {key: jnp.asarray(value) for key, value in parameters.items()}
    for key, value in given.items():
        if value.dtype != jnp.float64:
            raise InputError(
                f"{key} is {value.dtype}",
                where="cross_check",
                expected="float64: single precision has too few digits for differences",
                fix="Set jax.config.update('jax_enable_x64', True) and pass doubles",
            )
    rng = np.random.default_rng(seed)
    scale = {key: _scale(np.asarray(value)) for key, value in given.items()}
    each = _directions(rng, {key: np.asarray(value) for key, value in given.items()}, directions)
    tangents = [{key: jnp.asarray(d[key] * scale[key]) for key in given} for d in each]
    value_of, seconds_value, _ = _compiled(quantity, given, bound)
    # What is no number is found in the comparison, and needs no warning before.
    with np.errstate(invalid="ignore"):
        adjoint = _adjoint(quantity, given, bound, scale, each, seconds_value)
        ways = [adjoint, _forward(forward or quantity, given, bound, tangents, seconds_value)]
        if reference is not None:
            ways.append(_torch(reference, given, scale, each))
        ways.append(_differences(value_of, given, bound, tangents, seconds_value))
        compared = [_compared(adjoint, other) for other in ways[1:]]
    shapes = {key: list(value.shape) for key, value in given.items()}
    return CrossCheck(name, unit, seed, shapes, ways, compared)


def _scale(value: np.ndarray) -> np.ndarray:
    largest = np.max(np.abs(value), initial=0.0)
    return np.where(value != 0, value, largest if largest > 0 else 1.0)


def _directions(
    rng: np.random.Generator, given: dict[str, np.ndarray], number: int
) -> list[dict[str, Any]]:
    """Orthonormal, so that no two say the same; times √n, so that entries are near one."""
    # A conductance of zero moved to both sides would be negative on one.
    moves = np.concatenate([value.ravel() != 0 for value in given.values()])
    size = int(moves.sum())
    if size == 0:
        raise InputError(
            "all parameters are zero",
            where="cross_check",
            expected="a parameter to move by a part of itself",
            fix="Add an offset to the quantity's argument",
        )
    columns = np.zeros((moves.size, min(number, size)))
    columns[moves] = np.linalg.qr(rng.standard_normal((size, columns.shape[1])))[0] * np.sqrt(size)
    ends = np.cumsum([value.size for value in given.values()])[:-1]
    out = []
    for column in columns.T:
        parts = np.split(column, ends)
        named = zip(given.items(), parts, strict=True)
        out.append({key: part.reshape(value.shape) for (key, value), part in named})
    return out


def _compiled(function: Callable, *arguments: Any) -> tuple[Callable, float, float]:
    """A program, its seconds (the least of two) and its temporary memory in MB."""
    program: Any = eqx.filter_jit(function).lower(*arguments).compile()
    run = lambda *a: jax.block_until_ready(program(*a))
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        run(*arguments)
        taken.append(time.perf_counter() - start)
    megabytes = 1e-6 * program.compiled.memory_analysis().temp_size_in_bytes
    return run, min(taken[1:]), megabytes


def _along(gradient: dict[str, np.ndarray], each: list[dict[str, Any]]) -> list[float]:
    return [float(sum(np.sum(gradient[k] * d[k]) for k in gradient)) for d in each]


def _adjoint(
    quantity: _Quantity,
    given: dict[str, Array],
    bound: Any,
    scale: dict[str, np.ndarray],
    each: list[dict[str, np.ndarray]],
    seconds_value: float,
) -> Way:
    run, seconds, megabytes = _compiled(jax.value_and_grad(quantity), given, bound)
    value, gradient = run(given, bound)
    relative = {key: np.asarray(np.asarray(gradient[key]) * scale[key]) for key in given}
    return Way(
        ADJOINT, float(value), _along(relative, each), relative, seconds_value, seconds, megabytes
    )


def _forward(
    quantity: _Quantity,
    given: dict[str, Array],
    bound: Any,
    tangents: list[dict[str, Array]],
    seconds_value: float,
) -> Way:
    """One tangent at a time: as many as there are, memory is that of one."""

    def jvp(
        given: dict[str, Array], tangent: dict[str, Array], bound: Any
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return jax.jvp(lambda x: quantity(x, bound), (given,), (tangent,))

    run, seconds, megabytes = _compiled(jvp, given, tangents[0], bound)
    found = [run(given, tangent, bound) for tangent in tangents]
    derivatives = [float(derivative) for _, derivative in found]
    return Way(
        FORWARD, float(found[0][0]), derivatives, None, seconds_value,
        seconds * len(tangents), megabytes,
    )  # fmt: skip


def _torch(
    reference: Callable[[dict[str, torch.Tensor]], torch.Tensor],
    given: dict[str, Array],
    scale: dict[str, np.ndarray],
    each: list[dict[str, np.ndarray]],
) -> Way:
    tensors = {key: jax_to_torch(value).cpu().requires_grad_() for key, value in given.items()}
    with torch.no_grad():
        seconds_value = _least(lambda: reference(tensors))
    held: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = reference(tensors)
    own = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
    megabytes = 1e-6 * sum(size for at, size in held.items() if at not in own)
    differentiate = lambda value: torch.autograd.grad(
        value, list(tensors.values()), allow_unused=True, materialize_grads=True
    )
    found = differentiate(value)
    seconds = _least(lambda: differentiate(reference(tensors)))
    relative = {
        key: np.asarray(part.detach().numpy() * scale[key])
        for key, part in zip(given, found, strict=True)
    }
    return Way(
        TORCH, float(value.detach()), _along(relative, each), relative, seconds_value, seconds,
        megabytes,
    )  # fmt: skip


def _least(run: Callable[[], Any]) -> float:
    taken = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


def _differences(
    run: _Quantity,
    given: dict[str, Array],
    bound: Any,
    tangents: list[dict[str, Array]],
    seconds_value: float,
) -> Way:
    start = time.perf_counter()

    def central(tangent: dict[str, Array], step: float) -> float:
        moved = lambda sign: {k: given[k] + sign * step * tangent[k] for k in given}
        return (float(run(moved(1.0), bound)) - float(run(moved(-1.0), bound))) / (2.0 * step)

    table = np.array([[central(t, h) for h in _STEPS] for t in tangents])
    derivative, error = extrapolated(table)
    seconds = time.perf_counter() - start
    size = max(float(np.linalg.norm(derivative)), np.finfo(float).tiny)
    return Way(
        DIFFERENCES, float(run(given, bound)), derivative.tolist(), None, seconds_value, seconds,
        None, float(np.linalg.norm(error)) / size,
    )  # fmt: skip


def extrapolated(central: Float[np.ndarray, "n h"]) -> tuple[np.ndarray, np.ndarray]:
    """Derivatives from central differences at steps that fall by four, and their errors.

    Two neighbouring steps give one of fourth order; of these, that which differs least from the
    ones before and after it is far from truncation and from rounding.
    """
    fourth = np.stack([(16.0 * b - a) / 15.0 for a, b in itertools.pairwise(central.T)])
    gap = np.abs(np.diff(fourth, axis=0))
    # A step that leaves the domain is no step.
    gap = np.where(np.isfinite(gap), gap, np.inf)
    either = np.maximum(gap[1:], gap[:-1])
    best = np.argmin(either, axis=0)[None]
    take = lambda x: np.take_along_axis(x, best, axis=0)[0]
    return take(fourth[1:-1]), take(either)


def _compared(adjoint: Way, other: Way) -> Comparison:
    a, b = np.array(adjoint.directional), np.array(other.directional)
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    # Two gradients of zero point the same way.
    cosine = min(float(a @ b / lengths), 1.0) if lengths > 0 else float(np.array_equal(a, b))
    by_parameter = {}
    if adjoint.gradient is not None and other.gradient is not None:
        # Beside the whole gradient a parameter's own may be nothing but rounding.
        whole = np.sqrt(sum(np.sum(own**2) for own in adjoint.gradient.values()))
        by_parameter = {
            key: _apart(np.atleast_1d(other.gradient[key]), np.atleast_1d(own), _NOTHING * whole)
            for key, own in adjoint.gradient.items()
        }
    value = _apart(np.atleast_1d(other.value), np.atleast_1d(adjoint.value))
    return Comparison(other.name, value, _apart(b, a), cosine, by_parameter)


def _apart(found: np.ndarray, expected: np.ndarray, floor: float = 0.0) -> float:
    """‖found − expected‖ over ‖expected‖, or over `floor`; 0 where both are 0."""
    difference = float(np.linalg.norm(found - expected))
    size = max(float(np.linalg.norm(expected)), float(floor))
    return difference / size if size != 0 else (0.0 if difference == 0 else math.inf)
