"""What was measured, and the problem that asks for the parameters behind it."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._custom_types import as_leaf
from .._misc import InputError
from ._noise import AbstractNoise
from ._parameter import Parameter


class PlainModel(eqx.Module):
    """A plain function `values -> output` as a model that starts each solve anew.

    **Arguments:** `function`: takes the dictionary of values, returns a pytree of arrays.
    """

    function: Callable[[dict[str, Array]], PyTree]

    def __call__(self, values: dict[str, Array], initial: PyTree) -> tuple[PyTree, None]:
        return self.function(values), None


class Measurement(eqx.Module):
    """Measured values, what the model says about them, and their noise.

    **Arguments:**

    - `name`, and optionally `labels`, one for each entry.
    - `observe`: from the output of the model to the predicted values (n,). A Module that holds
      arrays, as an operator does, is an argument of the compiled programs; a closure is not.
    - `value`: (n,) measured; entries that are NaN are left out, and so are their rows of the noise.
    - `noise`: [`GaussianNoise`][] or [`LogNormalNoise`][] of all n entries.

    **Attributes:** `value` (m,) as used; `kept` (m,) their places among the n; `left_out`, the
    names of the others.

    **Errors:** [`InputError`][] where all values are NaN, one is infinite, or the noise refuses
    one.

    **Example:**
    ```python
    noise = GaussianNoise(sd=0.02)
    wire = Measurement("FFR", lambda heart: heart.ffr[None], np.array([0.78]), noise)
    ```
    """

    name: str = eqx.field(static=True)
    observe: Callable[[Any], Array]
    value: Float[Array, " m"]
    noise: AbstractNoise
    kept: Int[Array, " m"]
    labels: tuple[str, ...] = eqx.field(static=True)
    n_entries: int = eqx.field(static=True)

    def __init__(
        self,
        name: str,
        observe: Callable[[Any], Array],
        value: Float[np.ndarray, " n"] | Float[Array, " n"],
        noise: AbstractNoise,
        labels: Sequence[str] = (),
    ) -> None:
        where = f"measurement {name!r}"
        host = np.asarray(value)
        labels = tuple(labels) or tuple(str(i) for i in range(len(host)))
        if len(labels) != len(host):
            raise InputError(
                f"there are {len(labels)} labels and {len(host)} values",
                where=where,
                expected="one label for each value",
                fix="Give as many labels as values, or none",
            )
        kept = np.flatnonzero(~np.isnan(host))
        if not len(kept):
            raise InputError(
                "no value is there: all are NaN" if len(host) else "the value is empty",
                where=where,
                expected="at least one number",
                fix="Leave this measurement out",
            )
        if np.isinf(host).any():
            raise InputError(
                f"entry {labels[int(np.flatnonzero(np.isinf(host))[0])]} is infinite",
                where=where,
                expected="finite numbers, NaN for what was not measured",
                fix="Correct the entry or set it to NaN",
            )
        self.name, self.observe, self.labels, self.n_entries = name, observe, labels, len(host)
        self.noise = noise.at(host, kept, where)
        self.value, self.kept = as_leaf(host[kept]), as_leaf(kept)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the entries that are NaN."""
        used = set(np.asarray(self.kept).tolist())
        return tuple(label for i, label in enumerate(self.labels) if i not in used)

    def predicted(self, output: PyTree) -> Float[Array, " m"]:
        """What the model says about the entries in use."""
        seen = self.observe(output)
        if seen.shape != (self.n_entries,):
            raise InputError(
                f"observe returns the shape {seen.shape}",
                where=f"measurement {self.name!r}",
                expected=f"({self.n_entries},), that of the measured value",
                fix="Let observe return one number for each measured one",
            )
        return seen[self.kept].astype(self.value.dtype)

    def residual(self, output: PyTree) -> Float[Array, " m"]:
        """Whitened difference of prediction and value."""
        return self.noise.whiten(self.value, self.predicted(output))


def without_labels(thing: Any) -> Any:
    """The same module with no labels; checks were made when it was built."""
    bare = object.__new__(type(thing))
    for field in dataclasses.fields(thing):
        object.__setattr__(bare, field.name, getattr(thing, field.name))
    object.__setattr__(bare, "labels", ())
    return bare


class InverseProblem(eqx.Module):
    r"""Parameters, a model, measurements: which values may lie behind what was measured?

    The unknown is one flat vector ξ (p,) of standard-normal coordinates. With the whitened
    residuals r(ξ) of all measurements,

    $$-\ln p(\xi\mid y) = \tfrac12\lVert r(\xi)\rVert^2 + \tfrac12\lVert\xi\rVert^2 + c.$$

    **Arguments:**

    - `model`: `model(values, initial) -> (output, warm)`. `values` is a dictionary of arrays by the
      names of the parameters; `output` any pytree; `warm` anything the next solve may start from,
      which comes back as `initial` (None at the first) and is never differentiated. A failed solve
      is told by NaN in the output. Wrap a function of the values alone in [`PlainModel`][]. A
      Module that holds its arrays keeps the compiled programs small.
    - `parameters`, `measurements`: sequences of [`Parameter`][] and [`Measurement`][].

    **Errors:** [`InputError`][] for names that occur twice, and without parameters or measurements.

    **Example:**
    ```python
    decay = PlainModel(lambda v: v["height"] * jnp.exp(-v["rate"] * time))
    problem = InverseProblem(
        decay,
        [Parameter("height", Normal(1.0, 0.5), Log()), Parameter("rate", Normal(2.0, 0.5), Log())],
        [Measurement("signal", lambda signal: signal, measured, GaussianNoise(sd=0.02))],
    )
    ```
    """

    model: Callable[[dict[str, Array], PyTree], tuple[PyTree, PyTree]]
    parameters: tuple[Parameter, ...]
    measurements: tuple[Measurement, ...]

    def __init__(
        self,
        model: Callable[[dict[str, Array], PyTree], tuple[PyTree, PyTree]],
        parameters: Sequence[Parameter],
        measurements: Sequence[Measurement],
    ) -> None:
        self.model = model
        self.parameters, self.measurements = tuple(parameters), tuple(measurements)

    def __check_init__(self) -> None:
        for kind, things in (("parameter", self.parameters), ("measurement", self.measurements)):
            names = [thing.name for thing in things]
            twice = {name for name in names if names.count(name) > 1}
            if twice or not names:
                raise InputError(
                    f"the {kind} {min(twice)!r} occurs twice" if twice else f"there is no {kind}",
                    where="InverseProblem",
                    expected=f"{kind}s of different names, at least one",
                    fix=f"Rename one of them, or give a {kind}",
                )

    @property
    def size(self) -> int:
        """p, the number of coordinates."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def n_data(self) -> int:
        """n, the number of measured values in use."""
        return sum(measurement.value.shape[0] for measurement in self.measurements)

    @property
    def dtype(self) -> Any:
        """That of the measured values, in which the coordinates are."""
        return jnp.result_type(*(measurement.value.dtype for measurement in self.measurements))

    @property
    def entries(self) -> tuple[str, ...]:
        """Names of all entries of all parameters."""
        return tuple(name for parameter in self.parameters for name in parameter.entries)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names of the measured entries that are NaN."""
        return tuple(f"{m.name}[{label}]" for m in self.measurements for label in m.left_out)

    @property
    def nameless(self) -> "InverseProblem":
        """The problem without the names of its entries, which tell two of one shape apart."""
        parameters = tuple(without_labels(parameter) for parameter in self.parameters)
        measurements = tuple(without_labels(measurement) for measurement in self.measurements)
        where = lambda problem: (problem.parameters, problem.measurements)
        return eqx.tree_at(where, self, (parameters, measurements))

    def _parts(self, xi: Float[Array, " p"]) -> list[Float[Array, " k"]]:
        ends = np.cumsum([0, *(parameter.size for parameter in self.parameters)])
        return [xi[int(a) : int(b)] for a, b in pairwise(ends)]

    def values(self, xi: Float[Array, " p"]) -> dict[str, Array]:
        """The values at some coordinates, by name."""
        parts = zip(self.parameters, self._parts(xi), strict=True)
        return {parameter.name: parameter.value(part) for parameter, part in parts}

    def latent(self, xi: Float[Array, " p"]) -> Float[Array, " e"]:
        """All entries on the unconstrained line, in the order of `entries`."""
        parts = zip(self.parameters, self._parts(xi), strict=True)
        return jnp.concatenate([parameter.latent(part).ravel() for parameter, part in parts])

    def solve(self, xi: Float[Array, " p"], warm: PyTree = None) -> tuple[PyTree, PyTree]:
        """Output of the model at some coordinates, and where the next solve may start."""
        still = lambda tree: jax.tree.map(
            lambda x: jax.lax.stop_gradient(x) if eqx.is_array(x) else x, tree
        )
        output, after = self.model(self.values(xi), still(warm))
        return output, still(after)

    def misfit(self, output: PyTree) -> Float[Array, " n"]:
        """Whitened residuals of all measurements at an output."""
        return jnp.concatenate([m.residual(output).astype(self.dtype) for m in self.measurements])

    def residual(
        self, xi: Float[Array, " p"], warm: PyTree = None
    ) -> tuple[Float[Array, " n"], PyTree]:
        """Whitened residuals at some coordinates, and where the next solve may start."""
        output, after = self.solve(xi, warm)
        return self.misfit(output), after

    def log_density(self, xi: Float[Array, " p"], warm: PyTree = None) -> Float[Array, ""]:
        """ln p(ξ | y) up to a constant; −∞ where the solve fails."""
        return self.log_density_of(xi, self.solve(xi, warm)[0])

    def log_density_of(self, xi: Float[Array, " p"], output: PyTree) -> Float[Array, ""]:
        """The same, of an output that is there already."""
        density = -0.5 * (jnp.sum(self.misfit(output) ** 2) + jnp.sum(xi**2))
        return jnp.where(jnp.isfinite(density), density, -jnp.inf)

    def sample_prior(self, key: PRNGKeyArray) -> Float[Array, " p"]:
        """Coordinates drawn from the prior."""
        return jax.random.normal(key, (self.size,), self.dtype)

    def sample_data(
        self, key: PRNGKeyArray, xi: Float[Array, " p"], warm: PyTree = None
    ) -> dict[str, Float[Array, " m"]]:
        """Measurements that some coordinates may give: the entries in use, by name."""
        output, _ = self.solve(xi, warm)
        keys = jax.random.split(key, len(self.measurements))
        pairs = zip(keys, self.measurements, strict=True)
        return {m.name: m.noise.sample(k, m.predicted(output)) for k, m in pairs}

    def with_data(self, data: Mapping[str, Float[Array, " m"]]) -> "InverseProblem":
        """The problem with other measured values, of the entries in use; no program changes."""
        where = lambda problem: [m.value for m in problem.measurements]
        return eqx.tree_at(where, self, [data.get(m.name, m.value) for m in self.measurements])
