r"""How far a pressure is from the exact one: a bound where no transmissibility is negative.

The error e of a pressure with the residual r = f − A p is split by any x into

$$\|e\|_A^2 = x^TAx + 2x^Tr' + r'^TA^{-1}r',\qquad r' = r - Ax.$$

Conjugate gradients find an x that takes nearly all of it. For what they leave, let w > 0 have
v = A w > 0. Without negative T_ij, and with x = w ξ,

$$x^TAx = \sum_e T_e w_i w_j (\xi_i-\xi_j)^2 + \sum_i \frac{v_i}{w_i} x_i^2
\quad\Rightarrow\quad r'^TA^{-1}r' \le \sum_i \frac{w_i}{v_i} r_i'^2 .$$

w = 1 serves where every control volume has a sink, v being the sinks. Another w spreads the sinks
over those that have none, as in a scar: w = 1 + δ with A δ = c − s/2, which is found beside x by
the same iteration; c is half the mean sink of a connected piece. Any w will do that has both signs
right, and at the end they are looked at. All these products are sums of flows along edges, beside
which rounding is small; what it can be is added.

Where some T_ij are negative the weights w/v bound nothing, and the number is an estimate.

**Source:** the sum is Picone's identity (Allegretto and Huang, Nonlinear Anal 32:819, 1998) on a
graph; Strakoš and Tichý, Electron Trans Numer Anal 13:56 (2002), for what further conjugate
gradients say of the error.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._padding import is_real
from ._operator import DarcyOperator

Linear = Callable[[Array], Array]
# What x leaves, over what it takes, both squared: the bound is twice the error at most.
_LEFT = 3.0
# Nor is anything gained below so many times what rounding may do.
_ROUNDING_LEFT = 4.0
# Sums over all control volumes have positive terms: this is more than their rounding.
_SUMS = 1.01
# A pressure is mended at most so often, while its error falls by this much.
_ROUNDS, _FALLS = 4, 0.7
# x and w are given up after so many steps, and so many times those of the solve. A source that is
# nearly an eigenvector is solved in one, and w has nothing to do with the source.
_LEAST_STEPS, _TIMES_STEPS = 200, 4


class Accuracy(eqx.Module):
    """**Attributes:** `pressure` (c,), mended where its error was larger than asked for; `steps`
    that mended it; `error`, its error over the exact pressure in the energy norm: a bound where
    `is_bound`, else an estimate.
    """

    pressure: Float[Array, " c"]
    steps: Int[Array, ""]
    error: Float[Array, ""]
    is_bound: Bool[Array, ""]


class _Scaled(eqx.Module):
    """The operator over about its largest diagonal entry, a power of two: flows of a control volume
    and their squares leave the range of float32, and rounding would be an error of its own."""

    operator: DarcyOperator
    size: Float[Array, ""]

    def flows(self, x: Float[Array, " c"]) -> tuple[Float[Array, " c"], Float[Array, " c"]]:
        """A x as sums of flows along edges and into sinks, and how far rounding may be off."""
        operator, (i, j) = self.operator, self.operator.graph.edge.T
        along = operator.transmissibility / self.size * (x[i] - x[j])
        into = operator.sink / self.size * x
        sizes = jnp.abs(into).at[i].add(jnp.abs(along)).at[j].add(jnp.abs(along))
        number = jnp.zeros_like(into).at[i].add(1.0).at[j].add(1.0)
        # Of a difference, a product and the sum.
        rounded = self.unit * (number + 2.0) * sizes
        return into.at[i].add(along).at[j].add(-along), rounded

    @property
    def unit(self) -> float:
        """Of rounding, a little more than that."""
        return 0.51 * float(jnp.finfo(self.operator.sink.dtype).eps)

    def energy(self, x: Float[Array, " c"]) -> Float[Array, ""]:
        """xᵀA x as a sum of squares (where no T_ij is negative)."""
        operator, (i, j) = self.operator, self.operator.graph.edge.T
        along = jnp.vdot(operator.transmissibility / self.size, (x[i] - x[j]) ** 2)
        return jnp.maximum(along + jnp.vdot(operator.sink / self.size, x**2), 0.0)


class _Pair(eqx.Module):
    """Conjugate gradients for x and for δ side by side, columns of each array."""

    value: Float[Array, "c 2"]
    residual: Float[Array, "c 2"]
    direction: Float[Array, "c 2"]
    rz: Float[Array, " 2"]
    k: Int[Array, ""]

    def step(self, product: Linear, precondition: Linear) -> "_Pair":
        # As in `solve_krylov`, the product acts on a carried array: the first turn moves nothing.
        image = product(self.direction)
        curvature = jnp.sum(self.direction * image, axis=0)
        moves = (curvature > 0) & (self.rz > 0)
        length = _ratio(jnp.where(moves, self.rz, jnp.zeros_like(self.rz)), curvature)[None]
        value = self.value + length * self.direction
        residual = self.residual - length * image
        z = jax.vmap(precondition, in_axes=1, out_axes=1)(residual)
        rz = jnp.sum(residual * z, axis=0)
        beta = _ratio(jnp.maximum(rz, 0.0), self.rz)[None]
        return _Pair(value, residual, z + beta * self.direction, rz, self.k + 1)

    def afresh(self, right: Float[Array, " c"]) -> "_Pair":
        """Another x, from zero; δ goes on."""
        none = jnp.zeros_like(right)
        return _Pair(
            jnp.stack([none, self.value[:, 1]], axis=1),
            jnp.stack([right, self.residual[:, 1]], axis=1),
            jnp.stack([none, self.direction[:, 1]], axis=1),
            self.rz.at[0].set(0.0),
            jnp.full((), -1, jnp.int32),
        )


class _Round(eqx.Module):
    """The pressure at hand, the best one so far and its error."""

    pressure: Float[Array, " c"]
    best: Float[Array, " c"]
    error: Float[Array, ""]
    pair: _Pair
    steps: Int[Array, ""]
    steps_of_best: Int[Array, ""]
    k: Int[Array, ""]
    goes_on: Bool[Array, ""]


def accuracy(
    operator: DarcyOperator,
    precondition: Linear,
    pressure: Float[Array, " c"],
    source: Float[Array, " c"],
    *,
    rtol: Float[Array, ""] | float,
    max_steps: Int[Array, ""] | int,
) -> Accuracy:
    """The error of a pressure; where it is larger than asked for, the pressure is mended.

    Nothing is differentiated through it.

    **Arguments:** `precondition`, linear, symmetric, positive definite; `rtol`, on the error;
    `max_steps`, those that made the pressure, by which x and w are given up.

    **Returns:** an `Accuracy`.
    """
    operator, pressure, source = jax.lax.stop_gradient((operator, pressure, source))
    graph, dtype = operator.graph, source.dtype
    cell = jnp.ones(graph.n_cells, bool)
    if graph.real is not None:
        cell = is_real(graph.real.cell, graph.n_cells)
    at = _Scaled(operator, _size(operator.diagonal))
    unit = _size(pressure)
    scaled, right = pressure / unit, source / unit / at.size
    limit = _TIMES_STEPS * max_steps + _LEAST_STEPS
    target = _spread(at, cell)
    none = jnp.zeros((graph.n_cells, 2), dtype)
    residual = jnp.stack([none[:, 0], target - operator.sink / at.size], axis=1)
    pair = _Pair(none, residual, none, jnp.zeros(2, dtype), jnp.zeros((), jnp.int32))
    is_bound = (operator.transmissibility >= 0).all()

    def one(now: _Round) -> _Round:
        product, rounded = at.flows(now.pressure)
        r = right - product
        rounded = rounded + at.unit * jnp.abs(r)
        length = _size(r)
        r, rounded = r / length, rounded / length
        size = jnp.sqrt(at.energy(now.pressure))
        goal = (0.9 * rtol * size / length) ** 2
        pair = _iterated(at, precondition, target, r, rounded, goal, now.pair, limit, is_bound)
        absolute = length * _checked(at, r, rounded, pair, is_bound)
        error = jnp.where(size > absolute, absolute / (size - absolute), jnp.inf)
        error = jnp.where((absolute == 0) & (size == 0), 0.0, error).astype(dtype)
        better = error < now.error
        goes_on = (error > rtol) & (error < _FALLS * now.error) & (now.k + 1 < _ROUNDS)
        return _Round(
            now.pressure + length * pair.value[:, 0],
            jnp.where(better, now.pressure, now.best),
            jnp.where(better, error, now.error),
            pair,
            now.steps + jnp.maximum(pair.k, 0),
            jnp.where(better, now.steps, now.steps_of_best),
            now.k + 1,
            goes_on,
        )

    zero = jnp.zeros((), jnp.int32)
    infinite = jnp.full((), jnp.inf, dtype)
    start = _Round(scaled, scaled, infinite, pair, zero, zero, zero, jnp.asarray(True))
    end = jax.lax.while_loop(lambda now: now.goes_on, one, start)
    mended = jnp.where(end.steps_of_best > 0, end.best * unit, pressure)
    return Accuracy(mended, end.steps_of_best, end.error, is_bound)


def _size(x: Float[Array, " c"]) -> Float[Array, ""]:
    """The power of two next to the largest entry, 1 where all are 0: division by it is exact."""
    size = jnp.max(jnp.abs(x), initial=0.0)
    power = jnp.ldexp(jnp.ones_like(size), jnp.frexp(size)[1])
    return jnp.where(size > 0, power, jnp.ones_like(size))


def _ratio(a: Array, b: Array) -> Array:
    """a/b, and 0 where b is not positive."""
    return jnp.where(b > 0, a, jnp.zeros_like(a)) / jnp.where(b > 0, b, jnp.ones_like(b))


def _spread(at: _Scaled, cell: Bool[Array, " c"]) -> Float[Array, " c"]:
    """Half of each sink where it is, and half of all of a connected piece on every one of its
    control volumes alike."""
    sink, graph = at.operator.sink / at.size, at.operator.graph
    over = lambda x: jax.ops.segment_sum(x, graph.piece, graph.n_cells)[graph.piece]
    mean = over(jnp.where(cell, sink, 0.0)) / jnp.maximum(over(cell.astype(sink.dtype)), 1.0)
    return jnp.where(cell, 0.5 * (sink + mean), sink)


def _left(
    amount: Float[Array, " c"],
    w: Float[Array, " c"],
    v: Float[Array, " c"],
    is_bound: Bool[Array, ""],
) -> Float[Array, ""]:
    """Σ w/v amount², infinite where w or v has a sign that it must not have."""
    nothing = amount == 0
    term = jnp.abs(w) / jnp.where(v > 0, v, 1.0) * amount**2
    valid = (nothing | (v > 0)) & (v >= 0) & ((w > 0) | ~is_bound)
    return jnp.where(valid.all(), jnp.sum(jnp.where(nothing, 0.0, term)), jnp.inf)


def _iterated(
    at: _Scaled,
    precondition: Linear,
    target: Float[Array, " c"],
    r: Float[Array, " c"],
    rounded: Float[Array, " c"],
    goal: Float[Array, ""],
    pair: _Pair,
    limit: Int[Array, ""] | int,
    is_bound: Bool[Array, ""],
) -> _Pair:
    """x and δ, good enough for a bound of twice the error, and for a pressure + x as asked for."""
    sink = at.operator.sink / at.size

    def product(x: Float[Array, "c 2"]) -> Float[Array, "c 2"]:
        return at.operator(x) / at.size

    def unfinished(now: _Pair) -> Bool[Array, ""]:
        taken = jnp.vdot(now.value[:, 0], r)
        w, v = 1.0 + now.value[:, 1], target - now.residual[:, 1]
        one = jnp.ones_like(w)

        def least(amount: Float[Array, " c"]) -> Float[Array, ""]:
            return jnp.minimum(_left(amount, w, v, is_bound), _left(amount, one, sink, is_bound))

        left = least(jnp.abs(now.residual[:, 0]) + rounded)
        # What rounding leaves is told by a w that has settled only.
        settled = (v >= 0.5 * target).all()
        rounding = jnp.where(settled, _ROUNDING_LEFT * least(rounded), 0.0).astype(left.dtype)
        enough = jnp.isfinite(left) & (left <= _LEFT * taken + rounding)
        fine = (taken + left <= goal + rounding) | (4.0 * left <= goal + rounding)
        return (now.k < limit) & ~(enough & fine)

    step = lambda now: now.step(product, precondition)
    return jax.lax.while_loop(unfinished, step, pair.afresh(r))


def _checked(
    at: _Scaled,
    r: Float[Array, " c"],
    rounded: Float[Array, " c"],
    pair: _Pair,
    is_bound: Bool[Array, ""],
) -> Float[Array, ""]:
    """The bound of √(rᵀA⁻¹r) by x and w as they are, whatever made them."""
    x, delta = pair.value.T
    product, more = at.flows(x)
    left = r - product
    rounded = rounded + more + at.unit * jnp.abs(left)
    sink = at.operator.sink / at.size
    lifted, off = at.flows(delta)
    v = (1.0 - 2.0 * at.unit) * (sink + lifted - off)
    amount = jnp.abs(left) + rounded
    rest = jnp.minimum(
        _left(amount, 1.0 + delta, v, is_bound),
        _left(amount, jnp.ones_like(sink), sink, is_bound),
    )
    cross = 2.0 * jnp.abs(jnp.vdot(x, left)) + 2.0 * jnp.vdot(jnp.abs(x), rounded)
    square = _SUMS * (at.energy(x) + cross + rest)
    return jnp.where(square >= 0, jnp.sqrt(square), jnp.inf)
