"""Cases for training, made while it goes on and never stored."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
from jaxtyping import Array, Float
from scipy.sparse.linalg import splu

from jaxperf._misc import InputError

from ._buckets import bucket_of, padded_case, PaddedCase, plan_sizes
from ._config import TrainConfig
from ._data import DarcyCase, sample_case
from ._flux_multigrid import flux_plan
from ._plan import FluxPlan

# Room in a kind's first bucket over the case that is its measure.
_ROOM = 1.15
# Numbers of disjoint sets: those measures, what is never trained on, and what is.
_PROFILE, _HELD_OUT, _TRAINING = 10_000_000, 20_000_000, 30_000_000
_ATTEMPTS = 5


class Stream:
    """A pool of cases of which one is replaced every few steps.

    Which case is where at which step follows from the configuration alone, so that a run that was
    stopped goes on with the same cases. **Errors:** those of the data, when a case is taken.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        self._profiles: dict[str, tuple[int, ...]] = {}
        for kind in ("tet", "voxel"):
            _, sizes = _made(config, _PROFILE, kind, middle=True)
            self._profiles[kind] = tuple(int(_ROOM * s) + 2 for s in sizes)
        self._made: dict[int, PaddedCase] = {}
        self._coming: dict[int, Future] = {}
        self._worker = ThreadPoolExecutor(1)

    def close(self) -> None:
        self._worker.shutdown(wait=True, cancel_futures=True)

    def numbers(self, step: int) -> list[int]:
        """The numbers of the cases that are in the pool at a step."""
        pool, renewed = self.config.pool, step // self.config.steps_per_case
        # Of `renewed` replacements, slot after slot, how many were slot k's.
        return [k + pool * max(0, -((k - renewed) // pool)) for k in range(pool)]

    def batch(self, step: int) -> list[PaddedCase]:
        """Cases of one bucket, drawn from the pool."""
        self._prepare(step)
        cases = [self._made[number] for number in self.numbers(step)]
        rng = np.random.default_rng([self.config.seed, 1, step])
        shapes = [case.sink.shape[0] for case in cases]
        chosen = shapes[rng.integers(len(cases))]
        alike = [case for case, shape in zip(cases, shapes, strict=True) if shape == chosen]
        return [alike[k] for k in rng.integers(len(alike), size=self.config.batch)]

    def _prepare(self, step: int) -> None:
        needed = set(self.numbers(step))
        for number in list(self._made):
            if number not in needed:
                del self._made[number]
        # one case ahead: a longer queue would only hold memory
        ahead = set(self.numbers(step + self.config.steps_per_case))
        for number in sorted(needed | ahead):
            if number not in self._made and number not in self._coming:
                self._coming[number] = self._worker.submit(self._case, number)
        for number in sorted(needed - set(self._made)):
            self._made[number] = self._coming.pop(number).result()

    def _case(self, number: int) -> PaddedCase:
        return self.case(_TRAINING + number)

    def case(self, number: int) -> PaddedCase:
        """A case by its number, in its bucket."""
        kind = case_kind(self.config, number)
        (plan, t, sink, source), sizes = _made(self.config, number, kind)
        return padded_case(plan, t, sink, source, bucket_of(sizes, self._profiles[kind]))

    def held_out(self) -> list[tuple[PaddedCase, Float[np.ndarray, " n"]]]:
        """Cases that training never sees, with their pressures by a direct solver."""
        cases = [self.case(_HELD_OUT + k) for k in range(self.config.held_out)]
        return [(case, direct_pressure(case)) for case in cases]


def case_kind(config: TrainConfig, number: int) -> str:
    """The kind of mesh of a case."""
    drawn = np.random.default_rng([config.seed, 2, number]).random()
    return "voxel" if drawn < config.voxel_share else "tet"


def _made(
    config: TrainConfig, number: int, kind: Any, *, middle: bool = False
) -> tuple[
    tuple[FluxPlan, Float[Array, " e"], Float[Array, " n"], Float[Array, " n"]], tuple[int, ...]
]:
    """Plan, transmissibilities, sinks and source, all scaled to one; and the plan's sizes."""
    low, high = config.ranges.tetrahedra
    size = float(np.sqrt(low * high)) if middle else None
    case = _drawn(config, number, kind, size)
    plan = flux_plan(case.mesh, case.permeability, by_rows=False)
    operator, source = case.problem.operator, case.problem.source
    unit, size = jnp.max(operator.diagonal), jnp.max(jnp.abs(source))
    narrow = lambda x: x.astype(jnp.float32)
    t, sink = narrow(operator.transmissibility / unit), narrow(operator.sink / unit)
    return (plan, t, sink, narrow(source / size)), plan_sizes(plan)


def _drawn(config: TrainConfig, number: int, kind: Any, size: float | None) -> DarcyCase:
    """A case by its number; another one in its place where a wall has no room for its forest."""
    for attempt in range(_ATTEMPTS):
        words = np.random.SeedSequence([config.seed, 3, number, attempt]).generate_state(2)
        seed = int(words[0]) << 32 | int(words[1])
        try:
            return sample_case(seed, config.ranges, kind=kind, n_tets=size)
        except InputError:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def direct_pressure(case: PaddedCase) -> Float[np.ndarray, " n"]:
    """A⁻¹ source in double precision; 0 where there is padding."""
    edge = np.asarray(case.plan.levels[0].edge)
    n_live = int(case.plan.levels[0].n_live)
    t = np.asarray(case.transmissibility, np.float64)
    kept = edge.max(axis=1) < n_live
    (i, j), t = edge[kept].T, t[kept]
    off: Any = sp.csr_array((-t, (i, j)), shape=(n_live, n_live))
    off = off + off.T
    sink = np.asarray(case.sink, np.float64)[:n_live]
    matrix = (off + sp.diags_array(sink - off.sum(axis=1))).tocsc()
    out = np.zeros(case.sink.shape[0])
    out[:n_live] = splu(matrix).solve(np.asarray(case.source, np.float64)[:n_live])
    return out


def relative_l2(found: Sequence[float] | np.ndarray, exact: np.ndarray) -> float:
    """‖found − exact‖ over ‖exact‖."""
    return float(np.linalg.norm(np.asarray(found) - exact) / np.linalg.norm(exact))
