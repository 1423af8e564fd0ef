"""The most probable values behind what was measured."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._custom_types import as_leaf
from .._misc import InputError
from .._progress import Progress
from ._checkpoint import Checkpoint
from ._method import (
    AbstractMethod,
    AbstractWalk,
    CONVERGED,
    ENDED,
    LevenbergMarquardt,
    MarquardtWalk,
    NO_START,
    RUNNING,
)
from ._problem import InverseProblem
from ._programs import jacobian, linearise, n_columns, program, start


class FitError(RuntimeError):
    """A fit that found no mode, as a sentence."""


class Mode(eqx.Module):
    """A local maximum of the posterior.

    **Attributes:** `xi` (p,); `objective`, −ln p(ξ | y) up to a constant, nats; `residual` (n,),
    whitened; `jacobian` (n, p) of it; `warm`, where solves nearby may start.
    """

    xi: Float[Array, " p"]
    objective: Float[Array, ""]
    residual: Float[Array, " n"]
    jacobian: Float[Array, "n p"]
    warm: PyTree


class Walked(eqx.Module):
    """How one start ended.

    **Attributes:** `begin` (p,); `history` (k, 2), the solves so far and the objective accepted
    then; `status`; `solves`; `columns`, tangents and adjoints of the model.
    """

    begin: Float[Array, " p"]
    history: Float[np.ndarray, "k 2"]
    status: int
    solves: int
    columns: int


class Fit(eqx.Module):
    """What a fit found.

    **Attributes:**

    - `problem`; `modes`, distinct local maxima, the most probable first.
    - `starts`: how each start ended; `failed`, a sentence for each that found no mode.
    - `solves`, `columns`: what all of them cost: solves of the model, and its tangents or adjoints.
    """

    problem: InverseProblem
    modes: tuple[Mode, ...]
    starts: tuple[Walked, ...]

    @property
    def best(self) -> Mode:
        """The most probable mode."""
        return self.modes[0]

    @property
    def values(self) -> dict[str, Array]:
        """The most probable values, in the units of the parameters."""
        return self.problem.values(self.best.xi)

    @property
    def solves(self) -> int:
        """Solves of the model."""
        return sum(walked.solves for walked in self.starts)

    @property
    def columns(self) -> int:
        """Tangents or adjoints of the model."""
        return sum(walked.columns for walked in self.starts)

    @property
    def failed(self) -> tuple[str, ...]:
        """A sentence for each start that found no mode."""
        return tuple(
            f"Start {number} {ENDED[walked.status]}."
            for number, walked in enumerate(self.starts)
            if walked.status != CONVERGED
        )


def fit(
    problem: InverseProblem,
    method: AbstractMethod = LevenbergMarquardt(),
    *,
    starts: int | Float[Array, "k p"] = 4,
    max_steps: int = 50,
    tolerance: float = 1e-3,
    chunk: int | None = None,
    key: PRNGKeyArray | None = None,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    throw: bool = True,
) -> Fit:
    r"""Find the modes of the posterior: minimise ½‖r(ξ)‖² + ½‖ξ‖² from several starts.

    The host steps the method, so that each solve starts from the solution accepted last, every
    step is told, and a fit that was stopped goes on from its folder with identical results.

    **Arguments:**

    - `method`: [`LevenbergMarquardt`][], or [`FirstOrder`][] for a method of optax.
    - `starts`: how many: the prior median, then draws from the prior; or coordinates (k, p).
    - `max_steps`: trials of each start after the first solve.
    - `tolerance`: nats that may be left to gain at the end.
    - `chunk`: how many columns of the Jacobian are solved at a time; all where left out.
    - `key`: of the draws, `jax.random.key(0)` where left out.
    - `folder`: keeps each step and each start that has ended, and is gone on from.
    - `progress`: shows steps, misfit and time left as the stage "fit".
    - `throw`: raise where no start converged; else the best of them counts as a mode.

    **Returns:** a [`Fit`][]. Modes closer than half a posterior sd (Mahalanobis) count as one.

    **Errors:** [`FitError`][] where no start converged or none could begin, which
    `throw=False` does not change; [`InputError`][] for starts of another size and for a folder
    with other work.

    **Example:**

    ```python
    from jaxperf import inverse
    problem = inverse.demo_problem()
    found = inverse.fit(problem, starts=2)
    print(found.values["rate"], found.solves)
    ```
    """
    key = jax.random.key(0) if key is None else key
    begins = _begins(problem, starts, key)
    names = [parameter.name for parameter in problem.parameters]
    given = key if isinstance(starts, int) else begins
    kept = Checkpoint(folder, (problem, names, given, method, tolerance))
    progress = progress or Progress()
    total = len(begins) * max_steps
    walks = []
    with progress.stage("fit"):
        for number, begin in enumerate(begins):

            def tell(step: int, objective: float, number: int = number) -> None:
                detail = f"start {number + 1} of {len(begins)}, misfit {objective:.4g}"
                done = number * max_steps + step
                progress.tell("steps", done, total, at_most=True, detail=detail)

            walk = _Walker(problem, method, max_steps, tolerance, chunk, kept, tell)
            walks.append(walk.run(begin, f"{number:03d}"))
    return _conclude(problem, walks, throw)


def _begins(
    problem: InverseProblem, starts: int | Float[Array, "k p"], key: PRNGKeyArray
) -> list[Array]:
    if isinstance(starts, int):
        if starts < 1:
            raise InputError(
                f"starts is {starts}", where="fit", expected="at least 1", fix="Raise starts"
            )
        draws = [problem.sample_prior(jax.random.fold_in(key, i)) for i in range(1, starts)]
        return [as_leaf(np.zeros(problem.size), problem.dtype), *draws]
    if starts.shape[1:] != (problem.size,):
        raise InputError(
            f"starts has the shape {starts.shape}",
            where="fit",
            expected=f"(k, {problem.size}), the coordinates of the problem",
            fix="Give coordinates, as InverseProblem.sample_prior draws them",
        )
    return [as_leaf(begin, problem.dtype) for begin in np.asarray(starts)]


class _Walker(NamedTuple):
    """One start of a fit, from its beginning or from where the folder left it."""

    problem: InverseProblem
    method: AbstractMethod
    max_steps: int
    tolerance: float
    chunk: int | None
    kept: Checkpoint
    tell: Callable[..., None]

    def run(self, begin: Array, label: str) -> tuple[Walked, Mode | None]:
        """Walk, and keep each step and the end."""
        ended, running = f"start_{label}", f"running_{label}"
        found = self.kept.load(ended, lambda: self._ended_like(begin))
        if found is not None:
            mode, history, count = found
            walked = Walked(begin, np.asarray(history), *(int(x) for x in count))
            return walked, mode if walked.status != NO_START else None
        history = np.zeros((0, 2))
        loaded = self.kept.load(running, lambda: (self._like(begin)[0], history))
        walk, history = self._begin(begin) if loaded is None else loaded
        history = list(np.asarray(history))
        while int(walk.status) == RUNNING and len(history) <= self.max_steps:
            self.tell(len(history) - 1, float(walk.objective))
            walk = self.method.advance(self.problem, walk, self.tolerance, self.chunk)
            history.append(_row(walk))
            self.kept.save(running, (walk, np.stack(history)))
        status, solves, columns = int(walk.status), int(walk.solves), int(walk.columns)
        if status == NO_START:
            mode = None
        elif isinstance(walk, MarquardtWalk):
            mode = Mode(walk.xi, walk.objective, walk.residual, walk.jacobian, walk.warm)
        else:
            mode = _mode(self.problem, walk.xi, walk.warm, self.chunk)
            solves, columns = solves + 1, columns + n_columns(self.problem)
        walked = Walked(begin, np.stack(history), status, solves, columns)
        if status not in (RUNNING, NO_START):
            self.kept.save(ended, (mode, walked.history, np.array([status, solves, columns])))
            self.kept.drop(running)
        return walked, mode

    def _begin(self, begin: Array) -> tuple[AbstractWalk, Float[np.ndarray, "1 2"]]:
        # a model that keeps nothing to start from need not be solved for it
        cold = bool(jax.tree.leaves(eqx.filter_eval_shape(start, self.problem, begin)))
        warm = start(self.problem, begin) if cold else None
        walk = self.method.begin(self.problem, begin, warm, self.tolerance, self.chunk)
        walk = eqx.tree_at(lambda w: w.solves, walk, walk.solves + int(cold))
        return walk, np.stack([_row(walk)])

    def _like(self, begin: Array) -> tuple[AbstractWalk, Mode]:
        """The layout of a walk and of a mode."""

        def layout(begin: Array) -> tuple[AbstractWalk, Mode]:
            warm = start(self.problem, begin)
            walk = self.method.begin(self.problem, begin, warm, self.tolerance, self.chunk)
            return walk, _mode(self.problem, begin, warm, self.chunk)

        return eqx.filter_eval_shape(layout, begin)

    def _ended_like(self, begin: Array) -> PyTree:
        return self._like(begin)[1], np.zeros((0, 2)), np.zeros(3, int)


def _row(walk: AbstractWalk) -> Float[np.ndarray, "2"]:
    return np.array([float(walk.solves), float(walk.objective)])


@program
def _mode(problem: InverseProblem, xi: Array, warm: PyTree, chunk: int | None) -> Mode:
    at = linearise(problem, xi, warm)
    objective = 0.5 * (jnp.sum(at.residual**2) + jnp.sum(xi**2))
    return Mode(xi, objective, at.residual, jacobian(problem, at, chunk), at.warm)


def _conclude(
    problem: InverseProblem, walks: Sequence[tuple[Walked, Mode | None]], throw: bool
) -> Fit:
    walked = tuple(pair[0] for pair in walks)
    modes = [mode for one, mode in walks if mode is not None and one.status == CONVERGED]
    if not modes:
        begun = [mode for _, mode in walks if mode is not None]
        if throw or not begun:
            worst = max(one.status for one in walked)
            raise FitError(f"The fit found no mode. Each start {ENDED[worst]}.")
        modes = [min(begun, key=lambda mode: float(mode.objective))]
    return Fit(problem, _distinct(modes), walked)


def _distinct(modes: Sequence[Mode]) -> tuple[Mode, ...]:
    """Modes more than half a posterior sd apart, the most probable first."""
    kept: list[Mode] = []
    for mode in sorted(modes, key=lambda mode: float(mode.objective)):
        if all(_distance(mode, other) > 0.5 for other in kept):
            kept.append(mode)
    return tuple(kept)


def _distance(mode: Mode, other: Mode) -> float:
    apart = np.asarray(mode.xi) - np.asarray(other.xi)
    seen = np.asarray(other.jacobian) @ apart
    return float(np.sqrt(seen @ seen + apart @ apart))
