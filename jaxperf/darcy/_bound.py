r"""How far a pressure is from the exact one: a bound where no transmissibility is negative.

The error e of a pressure with the residual r = f − A p is split by any x into

$$\|e\|_A^2 = x^TAx + 2x^Tr' + r'^TA^{-1}r',\qquad r' = r - Ax.$$

Conjugate gradients find an x that takes nearly all of it. For what they leave, let w > 0 have
v = A w > 0. Without negative T_ij, and with x = w ξ,

$$x^TAx = \sum_e T_e w_i w_j (\xi_i-\xi_j)^2 + \sum_i \frac{v_i}{w_i} x_i^2
\quad\Rightarrow\quad r'^TA^{-1}r' \le \sum_i \frac{w_i}{v_i} r_i'^2 .$$

w = 1 serves where every control volume has a sink, v being the sinks. Another w spreads the sinks
over those that have none, as in a scar: w = 1 + δ with A δ = c − s/2, which is found beside x by
the same iteration; c is half the mean sink of a connected piece. It is begun where w = 1 cannot
serve, or has not after as many steps as the solve took. Any w will do that has both signs
right, and at the end they are looked at. All these products are sums of flows along edges, beside
which rounding is small; what it can be is added.

Where some T_ij are negative the weights w/v bound nothing. Then r'ᵀM r' with the preconditioner M
stands for the last term, several times over, and the number is an estimate.

**Source:** the sum is Picone's identity (Allegretto and Huang, Nonlinear Anal 32:819, 1998) on a
graph; Strakoš and Tichý, Electron Trans Numer Anal 13:56 (2002), for what further conjugate
gradients say of the error.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._padding import is_real
from ._krylov import Linear, ratio
from ._operator import DarcyOperator

# What x leaves, over what it takes, both squared: the bound is twice the error at most.
_LEFT = 3.0
# An estimate counts what the preconditioner makes of the rest so many times.
_ESTIMATED = 10.0
# Nor is anything gained below so many times what rounding may do.
_ROUNDING_LEFT = 4.0
# Rounding of terms and of what is made of sums, in units beside one for each term.
_FURTHER = 16
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

    def flows(
        self, x: Float[Array, " c"]
    ) -> tuple[Float[Array, " c"], Float[Array, " c"], Float[Array, ""]]:
        """A x as sums of flows along edges and into sinks, how far rounding may be off, and xᵀA x
        as a sum of squares (where no T_ij is negative)."""
        operator, (i, j) = self.operator, self.operator.graph.edge.T
        pattern = operator.graph.pattern
        difference = x[i] - x[j]
        along = operator.transmissibility / self.size * difference
        into = self.sink * x
        sizes = jnp.abs(into) + pattern.rows.sums(pattern.weights(jnp.abs(along)))
        number = pattern.rows.sums(pattern.weights(jnp.ones_like(along)))
        # Of a difference, a product and the sum.
        rounded = self.unit * (number + 2.0) * sizes
        energy = jnp.maximum(_dot(along, difference) + _dot(into, x), 0.0)
        return into.at[i].add(along).at[j].add(-along), rounded, energy

    @property
    def sink(self) -> Float[Array, " c"]:
        return self.operator.sink / self.size

    @property
    def unit(self) -> float:
        """Of rounding, a little more than that."""
        return 0.51 * float(jnp.finfo(self.operator.sink.dtype).eps)

    @property
    def sums(self) -> float:
        """How far a sum over edges or control volumes may be off, over that of the sizes of its
        terms, in whatever order they are added (Jeannerod and Rump, SIAM J Matrix Anal Appl
        34:338, 2013)."""
        graph = self.operator.graph
        number = max(graph.edge.shape[0], graph.n_cells) + _FURTHER
        terms = _FURTHER * float(jnp.finfo(self.operator.sink.dtype).eps)
        # At a half it bounds nothing, and what is found is an estimate.
        return min(max(number * float(jnp.finfo(_wide()).eps), terms, 1e-12), 0.5)


class _Pair(eqx.Module):
    """Conjugate gradients for x and for δ, rows of each array, of which one moves at a time.

    **Attributes:** `weight` (c,), w/v of the best w so far; `rounding`, what it makes of rounding;
    `k`, steps of each.
    """

    value: Float[Array, "2 c"]
    residual: Float[Array, "2 c"]
    direction: Float[Array, "2 c"]
    rz: Float[Array, " 2"]
    k: Int[Array, " 2"]
    weight: Float[Array, " c"]
    rounding: Float[Array, ""]
    settled: Bool[Array, ""]

    def step(self, m: Int[Array, ""], product: Linear, precondition: Linear) -> "_Pair":
        """Row m moves."""
        # As in `solve_krylov`, the product acts on a carried array: the first turn moves nothing.
        direction, rz_before = self.direction[m], self.rz[m]
        image = product(direction)
        curvature = jnp.vdot(direction, image)
        moves = (curvature > 0) & (rz_before > 0)
        length = ratio(jnp.where(moves, rz_before, 0.0).astype(image.dtype), curvature)
        residual = self.residual[m] - length * image
        # Kept apart from the gathers of the preconditioner, which XLA:CPU may compute anew.
        residual = jax.lax.optimization_barrier(residual)
        z = precondition(residual)
        rz = jnp.maximum(jnp.vdot(residual, z), 0.0)
        beta = ratio(rz, rz_before)
        changed = (
            self.value.at[m].add(length * direction),
            self.residual.at[m].set(residual),
            self.direction.at[m].set(z + beta * direction),
            self.rz.at[m].set(rz),
            self.k.at[m].add(1),
        )
        parts = lambda p: (p.value, p.residual, p.direction, p.rz, p.k)
        return eqx.tree_at(parts, self, changed)

    def afresh(self, right: Float[Array, " c"]) -> "_Pair":
        """Another x, from zero; δ goes on."""
        changed = (
            self.value.at[0].set(0.0),
            self.residual.at[0].set(right),
            self.direction.at[0].set(0.0),
            self.rz.at[0].set(0.0),
            self.k.at[0].set(-1),
        )
        parts = lambda p: (p.value, p.residual, p.direction, p.rz, p.k)
        return eqx.tree_at(parts, self, changed)


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
    none, infinite = jnp.zeros((2, graph.n_cells), dtype), jnp.full((), jnp.inf, dtype)
    residual = none.at[1].set(target - at.sink)
    k = jnp.full(2, -1, jnp.int32)
    weight, settled = _weight(jnp.ones_like(target), at.sink), _has_settled(at.sink, target)
    pair = _Pair(none, residual, none, jnp.zeros(2, dtype), k, weight, infinite, settled)
    # Sums of so many terms that rounding could be all of them bound nothing.
    is_bound = (operator.transmissibility >= 0).all() & (at.sums < 0.5)

    def one(now: _Round) -> _Round:
        product, rounded, energy = at.flows(now.pressure)
        r = right - product
        rounded = rounded + at.unit * jnp.abs(r)
        length = _size(r)
        r, rounded = r / length, rounded / length
        # Of the pressure, at least.
        size = jnp.sqrt((1.0 - at.sums) * energy)
        goal = (0.9 * rtol * size / length) ** 2
        pair = _iterated(
            at, precondition, target, r, rounded, goal, now.pair, (max_steps, limit), is_bound
        )
        absolute = length * _checked(at, precondition, r, rounded, pair, is_bound)
        error = (1.0 + at.sums) * absolute / jnp.where(size > absolute, size - absolute, 1.0)
        error = jnp.where(size > absolute, error, jnp.inf)
        error = jnp.where((absolute == 0) & (size == 0), 0.0, error).astype(dtype)
        better = error < now.error
        goes_on = (error > rtol) & (error < _FALLS * now.error) & (now.k + 1 < _ROUNDS)
        return _Round(
            now.pressure + length * pair.value[0],
            jnp.where(better, now.pressure, now.best),
            jnp.where(better, error, now.error),
            pair,
            now.steps + jnp.maximum(pair.k[0], 0),
            jnp.where(better, now.steps, now.steps_of_best),
            now.k + 1,
            goes_on,
        )

    zero = jnp.zeros((), jnp.int32)
    start = _Round(scaled, scaled, infinite, pair, zero, zero, zero, jnp.asarray(True))
    end = jax.lax.while_loop(lambda now: now.goes_on, one, start)
    mended = jnp.where(end.steps_of_best > 0, end.best * unit, pressure)
    return Accuracy(mended, end.steps_of_best, end.error, is_bound)


def _size(x: Float[Array, " c"]) -> Float[Array, ""]:
    """The power of two next to the largest entry, 1 where all are 0: division by it is exact."""
    size = jnp.max(jnp.abs(x), initial=0.0)
    power = jnp.ldexp(jnp.ones_like(size), jnp.frexp(size)[1])
    return jnp.where(size > 0, power, jnp.ones_like(size))


def _wide() -> jnp.dtype:
    """The precision of sums: double where there is one."""
    return jax.dtypes.canonicalize_dtype(float)


def _dot(x: Float[Array, " n"], y: Float[Array, " n"]) -> Float[Array, ""]:
    """Their product, added in the precision of sums."""
    return jnp.vdot(x.astype(_wide()), y.astype(_wide())).astype(x.dtype)


def _spread(at: _Scaled, cell: Bool[Array, " c"]) -> Float[Array, " c"]:
    """Half of each sink where it is, and half of all of a connected piece on every one of its
    control volumes alike."""
    sink, graph = at.sink, at.operator.graph
    over = lambda x: jax.ops.segment_sum(x, graph.piece, graph.n_cells)[graph.piece]
    mean = over(jnp.where(cell, sink, 0.0)) / jnp.maximum(over(cell.astype(sink.dtype)), 1.0)
    return jnp.where(cell, 0.5 * (sink + mean), sink)


def _weight(w: Float[Array, " c"], v: Float[Array, " c"]) -> Float[Array, " c"]:
    """w/v, infinite where v is not positive."""
    return jnp.where(v > 0, jnp.abs(w) / jnp.where(v > 0, v, 1.0), jnp.inf)


def _left(weight: Float[Array, " c"], amount: Float[Array, " c"]) -> Float[Array, ""]:
    """Σ weight amount²; where nothing is left any weight will do."""
    return _dot(jnp.where(amount == 0, 0.0, weight * amount), amount)


def _signs(
    w: Float[Array, " c"], v: Float[Array, " c"], is_bound: Bool[Array, ""]
) -> Bool[Array, ""]:
    """Whether w and v have the signs that they must have."""
    return ((v >= 0) & ((w > 0) | ~is_bound)).all()


def _has_settled(v: Float[Array, " c"], target: Float[Array, " c"]) -> Bool[Array, ""]:
    """Whether v is so near its target that there is little to gain."""
    return (jnp.abs(v - target) <= 0.5 * target).all()


def _iterated(
    at: _Scaled,
    precondition: Linear,
    target: Float[Array, " c"],
    r: Float[Array, " c"],
    rounded: Float[Array, " c"],
    goal: Float[Array, ""],
    pair: _Pair,
    limits: tuple[Int[Array, ""] | int, Int[Array, ""] | int],
    is_bound: Bool[Array, ""],
) -> _Pair:
    """x and δ, good enough for a bound of twice the error, and for a pressure + x as asked for.

    x moves alone as long as w = 1 may serve, for the first of the `limits` at most. Then δ catches
    up with it, until it has settled."""

    def product(x: Float[Array, " c"]) -> Float[Array, " c"]:
        return at.operator(x) / at.size

    def unfinished(now: _Pair) -> Bool[Array, ""]:
        taken = jnp.vdot(now.value[0], r)
        left = _left(now.weight, jnp.abs(now.residual[0]) + rounded)
        # An estimate takes what the preconditioner makes of it, which is known after a step.
        told = _ESTIMATED * jnp.where(now.k[0] > 0, now.rz[0], jnp.inf)
        left = jnp.where(is_bound, left, told)
        # What rounding leaves is told by a w that has settled only.
        rounding = jnp.where(now.settled & is_bound, _ROUNDING_LEFT * now.rounding, 0.0)
        enough = jnp.isfinite(left) & (left <= _LEFT * taken + rounding)
        fine = (taken + left <= goal + rounding) | (4.0 * left <= goal + rounding)
        return (now.k[0] < limits[1]) & ~(enough & fine)

    def weighed(now: _Pair) -> _Pair:
        """The weights of another δ, where they are better."""
        w, v = 1.0 + now.value[1], target - now.residual[1]
        weight = _weight(w, v)
        rounding = _left(weight, rounded)
        better = _signs(w, v, is_bound) & (rounding < now.rounding)
        parts = lambda p: (p.weight, p.rounding, p.settled)
        changed = jnp.where(better, weight, now.weight), jnp.where(better, rounding, now.rounding)
        return eqx.tree_at(parts, now, (*changed, _has_settled(v, target)))

    def step(now: _Pair) -> _Pair:
        alone = jnp.isfinite(now.rounding) & (now.k[1] < 0) & (now.k[0] < limits[0])
        of_x = alone | now.settled | (now.k[0] < now.k[1]) | ~is_bound
        after = now.step(jnp.where(of_x, 0, 1), product, precondition)
        return jax.lax.cond(of_x, lambda p: p, weighed, after)

    pair = eqx.tree_at(lambda p: p.rounding, pair.afresh(r), _left(pair.weight, rounded))
    return jax.lax.while_loop(unfinished, step, pair)


def _checked(
    at: _Scaled,
    precondition: Linear,
    r: Float[Array, " c"],
    rounded: Float[Array, " c"],
    pair: _Pair,
    is_bound: Bool[Array, ""],
) -> Float[Array, ""]:
    """The bound of √(rᵀA⁻¹r) by x and w as they are, whatever made them; an estimate has the
    preconditioner in place of w."""
    x, delta = pair.value
    product, more, energy = at.flows(x)
    left = r - product
    rounded = rounded + more + at.unit * jnp.abs(left)
    amount = jnp.abs(left) + rounded
    unspread = jnp.where(
        (at.sink >= 0).all(), _left(_weight(jnp.ones_like(x), at.sink), amount), jnp.inf
    )

    def spread() -> Float[Array, ""]:
        lifted, off, _ = at.flows(delta)
        w, v = 1.0 + delta, (1.0 - 2.0 * at.unit) * (at.sink + lifted - off)
        return jnp.where(_signs(w, v, is_bound), _left(_weight(w, v), amount), jnp.inf)

    bounded = jax.lax.cond(pair.k[1] > 0, lambda: jnp.minimum(spread(), unspread), lambda: unspread)
    told = lambda: jnp.maximum(_ESTIMATED * _dot(left, precondition(left)), 0.0)
    rest = jax.lax.cond(is_bound, lambda: bounded, told)
    sizes = _dot(jnp.abs(x), at.sums * jnp.abs(left) + rounded)
    cross = 2.0 * jnp.abs(_dot(x, left)) + 2.0 * sizes
    square = (1.0 + 2.0 * at.sums) * (energy + cross + rest)
    return jnp.where(square >= 0, jnp.sqrt(square), jnp.inf)
