"""Samples of the posterior by Markov chains, kept in a folder as they come."""

import abc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.smc import resampling
from blackjax.smc.ess import ess_solver
from blackjax.smc.solver import dichotomy
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._custom_types import as_leaf
from .._misc import InputError
from .._progress import Progress
from ._checkpoint import Checkpoint
from ._fit import Fit
from ._importance import log_densities, Proposal, proposal
from ._posterior import covariance_factor, SampledPosterior
from ._problem import InverseProblem
from ._programs import gradient_at, program


class AbstractSampler(eqx.Module):
    """A way to draw samples of a posterior."""

    @abc.abstractmethod
    def run(
        self, fit: Fit, key: PRNGKeyArray, kept: Checkpoint, progress: Progress
    ) -> SampledPosterior:
        """Draw them, going on from what is kept."""


class NUTS(AbstractSampler):
    """The No-U-Turn sampler of blackjax, in coordinates whitened by the Laplace covariance.

    Each chain starts at a draw of the Gaussian posterior. While it warms up, dual averaging finds
    its step size; the metric stays. Chains do not pass from one mode to another.

    **Arguments:** `chains`; `draws` of each, after `warmup`; `accept`, the acceptance aimed at;
    `doublings` of a trajectory at most; `every`, transitions between two files of the folder.

    **Source:** Hoffman and Gelman, JMLR 15 (2014).
    """

    chains: int = eqx.field(static=True, default=4)
    draws: int = eqx.field(static=True, default=500)
    warmup: int = eqx.field(static=True, default=200)
    accept: float = eqx.field(static=True, default=0.8)
    doublings: int = eqx.field(static=True, default=8)
    every: int = eqx.field(static=True, default=25)

    def __check_init__(self) -> None:
        lowest = {"chains": 1, "draws": 4, "warmup": 10, "doublings": 1, "every": 1}
        for name, least in lowest.items():
            if getattr(self, name) < least:
                raise InputError(
                    f"{name} is {getattr(self, name)}",
                    where="NUTS",
                    expected=f"at least {least}",
                    fix=f"Raise {name}",
                )

    def run(
        self, fit: Fit, key: PRNGKeyArray, kept: Checkpoint, progress: Progress
    ) -> SampledPosterior:
        problem, mode = fit.problem, fit.best
        factor = as_leaf(covariance_factor(np.asarray(mode.jacobian)))
        frame = (mode.xi, factor)
        length = self.warmup + self.draws
        seen, gradients, divergences = [], 0, 0
        for chain in range(self.chains):
            own = jax.random.fold_in(key, chain)
            blank = np.zeros((length, problem.size))
            like = lambda own=own, blank=blank: (
                eqx.filter_eval_shape(self._begin, fit, own),
                blank,
            )
            loaded = kept.load(f"chain_{chain:02d}", like)
            state, drawn = (self._begin(fit, own), blank) if loaded is None else loaded
            drawn = np.array(drawn)
            while (done := int(state.done)) < length:
                told = chain * length + done
                progress.tell(
                    "transitions", told, self.chains * length, detail=f"chain {chain + 1}"
                )
                if not bool(jnp.isfinite(state.kernel.logdensity)):
                    state = _reach_in(problem, frame, mode.warm, state)
                rule = (self.warmup, min(done + self.every, length), self.accept)
                state, more = _transitions(
                    problem, mode.warm, frame, state, own, as_leaf(np.array(rule)), self.every,
                    self.doublings,
                )  # fmt: skip
                drawn[done : int(state.done)] = np.asarray(more)[: int(state.done) - done]
                kept.save(f"chain_{chain:02d}", (state, drawn))
            seen.append(drawn[self.warmup :])
            gradients += int(state.gradients)
            divergences += int(state.divergences)
        xi = mode.xi[None] + as_leaf(np.concatenate(seen), problem.dtype) @ factor.T
        weight = np.full(len(xi), 1.0 / len(xi))
        return SampledPosterior(
            problem,
            xi,
            weight,
            mode.warm,
            self.chains,
            solves=gradients,
            gradients=gradients,
            divergences=divergences,
        )

    def _begin(self, fit: Fit, key: PRNGKeyArray) -> "_Chain":
        """A chain at a draw of the Gaussian posterior; traceable."""
        problem = fit.problem
        unit = jax.random.normal(jax.random.fold_in(key, 0), (problem.size,), float)
        zeros = jnp.zeros_like(unit)
        kernel = _state(unit, jnp.full((), -jnp.inf, unit.dtype), zeros)
        first = jnp.asarray(problem.size**-0.25, unit.dtype)
        state = dual_averaging_adaptation(self.accept)[0](first)
        tuned = jax.tree.map(lambda x: jnp.asarray(x, unit.dtype), state)
        count = jnp.zeros((), int)
        return _Chain(kernel, tuned, count, count, count)


class _Chain(eqx.Module):
    """A chain: the state of its kernel (u, whitened) and of its step size, and counts."""

    kernel: PyTree
    tuned: PyTree
    done: Int[Array, ""]
    gradients: Int[Array, ""]
    divergences: Int[Array, ""]


def _state(unit: Array, density: Any, slope: Array) -> PyTree:
    """A state of the kernel of blackjax."""
    return blackjax.mcmc.hmc.HMCState(unit, density, slope)


def _reach_in(problem: InverseProblem, frame: PyTree, warm: PyTree, chain: _Chain) -> _Chain:
    """The density where a chain begins, brought nearer to the mode until it can be solved."""
    unit = chain.kernel.position
    for _ in range(8):
        xi = frame[0] + frame[1] @ unit.astype(frame[0].dtype)
        objective, slope, _ = gradient_at(problem, xi, warm)
        if bool(jnp.isfinite(objective)):
            along = -(frame[1].T @ slope).astype(unit.dtype)
            state = _state(unit, -objective.astype(unit.dtype), along)
            return eqx.tree_at(lambda c: c.kernel, chain, state)
        unit = 0.5 * unit
    raise InputError(
        "no draw about the mode can be solved",
        where="sample_posterior",
        expected="a model that solves near its most probable values",
        fix="Look at check_laplace(fit, key).failed, and at the tolerances of the model",
    )


def _whitened(
    density: Callable[[Array], Array], centre: Float[Array, " p"], factor: Float[Array, "p p"]
) -> Callable[[Array], Array]:
    """A log-density of u, ξ = centre + L u.

    blackjax carries JAX's default type, whatever that of ξ is.
    """
    return lambda unit: density(centre + factor @ unit.astype(centre.dtype)).astype(unit.dtype)


@program
def _transitions(
    problem: InverseProblem,
    warm: PyTree,
    frame: PyTree,
    chain: _Chain,
    key: PRNGKeyArray,
    rule: Float[Array, "3"],
    every: int,
    doublings: int,
) -> tuple[_Chain, Float[Array, "every p"]]:
    """The next transitions of a chain, up to `every`, and where they led.

    **Arguments:** `rule`: how many transitions warm up, how many are wanted, the acceptance rate.
    """
    warmup, last, accept = rule
    density = _whitened(lambda xi: problem.log_density(xi, warm), *frame)
    kernel = blackjax.nuts.build_kernel()
    _, update, final = dual_averaging_adaptation(accept)
    metric, begin = jnp.ones_like(chain.kernel.position), chain.done
    like = lambda new, old: jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, old)

    def one(carry: PyTree) -> PyTree:
        chain, drawn = carry
        warming = chain.done < warmup
        size = jnp.where(warming, jnp.exp(chain.tuned.log_step_size), final(chain.tuned))
        of_step = jax.random.fold_in(key, chain.done + 1)
        state, info = kernel(
            of_step, chain.kernel, density, size.astype(metric.dtype), metric, doublings
        )
        rate = jnp.where(jnp.isfinite(info.acceptance_rate), info.acceptance_rate, 0.0)
        tuned = jax.tree.map(
            lambda a, b: jnp.where(warming, a, b),
            like(update(chain.tuned, rate), chain.tuned),
            chain.tuned,
        )
        after = _Chain(
            like(state, chain.kernel),
            tuned,
            chain.done + 1,
            chain.gradients + info.num_integration_steps,
            chain.divergences + jnp.where(warming, 0, info.is_divergent),
        )
        return after, drawn.at[chain.done - begin].set(after.kernel.position)

    # blackjax mixes precisions and ranks
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        drawn = jnp.zeros((every, metric.shape[0]), metric.dtype)
        return jax.lax.while_loop(lambda carry: carry[0].done < last, one, (chain, drawn))


class TemperedSMC(AbstractSampler):
    r"""Particles from the mixture about all modes, tempered towards the posterior.

    Particles drawn from the mixture q of [`mixture`][] follow
    $q^{1-\lambda}\,p(\cdot\mid y)^{\lambda}$ from λ = 0 to 1: each λ is the largest that keeps the
    effective share `ess`, then they are resampled and moved by NUTS. Unlike weights alone this
    serves where the mixture is poor, as on a ridge; unlike chains it keeps the weights of modes.
    Modes that no start has found are missed.

    **Arguments:** `particles`; `ess`; `moves` of each at every λ; `doublings` of a trajectory at
    most; `batch`, particles between two files of the folder; `freedom` of q.

    **Source:** Del Moral, Doucet and Jasra (2006), doi 10.1111/j.1467-9868.2006.00553.x.
    """

    particles: int = eqx.field(static=True, default=256)
    ess: float = eqx.field(static=True, default=0.5)
    moves: int = eqx.field(static=True, default=3)
    doublings: int = eqx.field(static=True, default=4)
    batch: int = eqx.field(static=True, default=32)
    freedom: float = eqx.field(static=True, default=5.0)

    def __check_init__(self) -> None:
        if self.particles < 25 or not 0.0 < self.ess < 1.0 or self.moves < 1 or self.batch < 1:
            raise InputError(
                f"particles, ess, moves and batch are {self.particles}, {self.ess}, {self.moves} "
                f"and {self.batch}",
                where="TemperedSMC",
                expected="at least 25 particles, a share between 0 and 1, at least one move",
                fix="Raise what is too small",
            )

    def run(
        self, fit: Fit, key: PRNGKeyArray, kept: Checkpoint, progress: Progress
    ) -> SampledPosterior:
        problem, warm = fit.problem, fit.best.warm
        about = proposal(fit.modes, self.freedom)
        begin = about.sample(jax.random.fold_in(key, 0), self.particles)
        like = lambda: eqx.filter_eval_shape(_cloud, begin, begin[:, 0])
        flow = kept.load("particles", like)
        if flow is None:
            density = log_densities(problem, begin, warm, progress)
            flow = _cloud(begin, as_leaf(density, begin.dtype))
            kept.save("particles", flow)
        while float(flow.temper) < 1.0 or int(flow.moved) < self.particles * self.moves:
            if int(flow.moved) == self.particles * self.moves or float(flow.temper) == 0.0:
                flow = _resample(about, flow, jax.random.fold_in(key, 1), as_leaf(self.ess))
            done = int(flow.moved)
            detail = f"temperature {float(flow.temper):.3f}"
            progress.tell("moves", done, self.particles * self.moves, detail=detail)
            rule = (self.moves, self.batch, self.doublings)
            flow = _move(problem, warm, about, flow, jax.random.fold_in(key, 2), rule)
            kept.save("particles", flow)
        weight = np.full(self.particles, 1.0 / self.particles)
        gradients = int(flow.gradients)
        return SampledPosterior(
            problem,
            flow.xi,
            weight,
            warm,
            gradients=gradients,
            solves=gradients + self.particles,
            divergences=int(flow.divergences),
        )


class _Cloud(eqx.Module):
    """Particles on their way: `density` is ln p(ξ | y), `temper` λ, `moved` moves at this λ."""

    xi: Float[Array, "s p"]
    density: Float[Array, " s"]
    factor: Float[Array, "p p"]
    temper: Float[Array, ""]
    size: Float[Array, ""]
    accepted: Float[Array, ""]
    moved: Int[Array, ""]
    stages: Int[Array, ""]
    gradients: Int[Array, ""]
    divergences: Int[Array, ""]


def _cloud(xi: Float[Array, "s p"], density: Float[Array, " s"]) -> _Cloud:
    zero, count = jnp.zeros((), xi.dtype), jnp.zeros((), int)
    size = jnp.full((), xi.shape[1] ** -0.25, xi.dtype)
    factor = jnp.eye(xi.shape[1], dtype=xi.dtype)
    return _Cloud(xi, density, factor, zero, size, zero, count, count, count, count)


@eqx.filter_jit
def _resample(about: Proposal, cloud: _Cloud, key: PRNGKeyArray, share: Float[Array, ""]) -> _Cloud:
    """The next temperature, the particles picked by their weights, and their spread."""
    gap = cloud.density - jax.vmap(about.log_density)(cloud.xi)
    lowest = jnp.finfo(gap.dtype).min / 1e6
    gap = jnp.where(jnp.isfinite(gap), gap, lowest)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        left = 1.0 - cloud.temper
        step = jnp.clip(ess_solver(lambda _: gap, cloud.xi, share, left, dichotomy), 0, left)
        weight = jax.nn.softmax(step * gap)
        n = cloud.xi.shape[0]
        picked = resampling.systematic(jax.random.fold_in(key, cloud.stages), weight, n)
    xi, density = cloud.xi[picked], cloud.density[picked]
    spread = jnp.cov(xi, rowvar=False).reshape(xi.shape[1], xi.shape[1])
    # the prior bounds every variance by about 1, and few particles must not close a direction
    floor = 1e-4 * jnp.trace(spread) / xi.shape[1] + jnp.finfo(xi.dtype).tiny
    factor = jnp.linalg.cholesky(spread + floor * jnp.eye(xi.shape[1], dtype=xi.dtype))
    temper = jnp.where(step >= left, 1.0, cloud.temper + step).astype(xi.dtype)
    zero = jnp.zeros_like(cloud.moved)
    where = lambda c: (c.xi, c.density, c.factor, c.temper, c.moved, c.stages)
    return eqx.tree_at(where, cloud, (xi, density, factor, temper, zero, cloud.stages + 1))


@program
def _move(
    problem: InverseProblem,
    warm: PyTree,
    about: Proposal,
    cloud: _Cloud,
    key: PRNGKeyArray,
    rule: tuple[int, int, int],
) -> _Cloud:
    """One NUTS transition of each particle of the next batch."""
    moves, batch, doublings = rule
    n, temper = cloud.xi.shape[0], cloud.temper
    key = jax.random.fold_in(jax.random.fold_in(key, cloud.stages), cloud.moved)
    places = (cloud.moved + jnp.arange(batch)) % n

    def tempered(xi: Float[Array, " p"]) -> Float[Array, ""]:
        return (1.0 - temper) * about.log_density(xi) + temper * problem.log_density(xi, warm)

    kernel = blackjax.nuts.build_kernel()
    metric = jnp.ones(cloud.xi.shape[1:], float)

    def one(pair: tuple[Array, Array]) -> PyTree:
        key, xi = pair
        density = _whitened(tempered, xi, cloud.factor)
        begin = blackjax.nuts.init(jnp.zeros_like(metric), density)
        state, info = kernel(
            key, begin, density, cloud.size.astype(metric.dtype), metric, doublings
        )
        moved = xi + cloud.factor @ state.position.astype(xi.dtype)
        there = state.logdensity.astype(xi.dtype) - (1.0 - temper) * about.log_density(moved)
        there = there / temper
        rate = jnp.where(jnp.isfinite(info.acceptance_rate), info.acceptance_rate, 0.0)
        return moved, there, rate, info.num_integration_steps + 1, info.is_divergent

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keys = jax.random.split(key, batch)
        xi, density, rate, steps, wild = jax.lax.map(one, (keys, cloud.xi[places]))
        left = n * moves - cloud.moved
        mine = jnp.arange(batch) < jnp.minimum(batch, left)
        # dual averaging would need a chain; one factor for each batch does
        aim = jnp.exp(jnp.sum(jnp.where(mine, rate, 0.0)) / jnp.sum(mine) - 0.8)
        at = jnp.where(mine, places, n)
        return _Cloud(
            cloud.xi.at[at].set(xi, mode="drop"),
            cloud.density.at[at].set(density, mode="drop"),
            cloud.factor,
            temper,
            (cloud.size * aim).astype(cloud.size.dtype),
            jnp.mean(rate).astype(cloud.size.dtype),
            cloud.moved + jnp.sum(mine),
            cloud.stages,
            cloud.gradients + jnp.sum(jnp.where(mine, steps, 0)),
            cloud.divergences + jnp.sum(mine & wild),
        )


def sample_posterior(
    fit: Fit,
    key: PRNGKeyArray,
    method: AbstractSampler | None = None,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
) -> SampledPosterior:
    """Draw samples of the posterior by Markov chains.

    **Arguments:**

    - `method`: [`NUTS`][] or [`TemperedSMC`][]; where left out, the first where the fit found one
      mode and the second where it found several.
    - `folder`: keeps what was drawn; a run that was stopped goes on from it with identical samples.
    - `progress`: shows the stage "posterior".

    **Returns:** a [`SampledPosterior`][], with the number of gradients it took.

    **Errors:** [`InputError`][] for a folder with other work.

    **Example:**

    ```python
    import jax
    from jaxperf import inverse
    problem = inverse.demo_problem()
    found = inverse.fit(problem, starts=1)
    chains = inverse.NUTS(chains=2, warmup=50, draws=50)
    posterior = inverse.sample_posterior(found, jax.random.key(1), chains)
    print(posterior.rhat().max(), posterior.effective().min())
    ```
    """
    if method is None:
        method = NUTS() if len(fit.modes) == 1 else TemperedSMC()
    progress = progress or Progress()
    settings = [float(getattr(method, name)) for name in vars(method)]
    modes = [mode.xi for mode in fit.modes]
    kept = Checkpoint(folder, (fit.problem, modes, type(method).__name__, settings, key))
    with progress.stage("posterior"):
        return method.run(fit, key, kept, progress)
