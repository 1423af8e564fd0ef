"""A heart as the model of a fit: values in, what is observed of its states out."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Int

from .._padding import is_real, kept, pad_problem
from ..coupling import PerfusionProblem, PerfusionSolution, solve_perfusion
from ..darcy import AbstractDarcySolver
from ..observe import Observations, observe
from ._states import State
from ._unknowns import AbstractChange


class HeartModel(eqx.Module):
    """Solves the states of a heart with other values of its unknowns.

    The problems are padded to their buckets, as those of runs are.

    **Attributes:** `problems`, by state; `changes`, by the name of the unknown; `method`, the Darcy
    solver; `segment` (c,), AHA segment of each control volume, 0 for padded ones; `max_steps`,
    `max_linear_steps`, as for `solve_perfusion`.
    """

    problems: dict[str, PerfusionProblem]
    changes: dict[str, AbstractChange]
    method: AbstractDarcySolver
    segment: Int[Array, " c"]
    max_steps: int = eqx.field(static=True, default=50)
    max_linear_steps: int = eqx.field(static=True, default=20_000)

    def __call__(
        self, values: dict[str, Array], initial: Any
    ) -> tuple[Observations, dict[str, PerfusionSolution]]:
        """What is observed, NaN where a solve fails, and the solutions to start from.

        **Arguments:** `values`, by the names of the unknowns; `initial`, solutions by state, or
        None.
        """
        solutions = {}
        for state, problem in self.problems.items():
            for name, change in self.changes.items():
                problem = change(problem, state, values[name])
            solutions[state] = solve_perfusion(
                problem,
                self.method,
                initial=None if initial is None else initial[state],
                max_steps=self.max_steps,
                max_linear_steps=self.max_linear_steps,
            )
        first = next(iter(self.problems.values()))
        seen = {state: _real_flow(first, found) for state, found in solutions.items()}
        return observe(first, seen, self.segment), solutions


def _real_flow(problem: PerfusionProblem, solution: PerfusionSolution) -> PerfusionSolution:
    """The solution, its flow zero in padded control volumes, whatever stands there."""
    graph = problem.tissue.mesh.graph
    if graph.real is None:
        return solution
    flow = kept(solution.mbf, is_real(graph.real.cell, graph.n_cells), 0.0)
    return eqx.tree_at(lambda s: s.mbf, solution, flow)


def state_problems(
    problem: PerfusionProblem, states: dict[str, State], *, is_padded: bool
) -> dict[str, PerfusionProblem]:
    """The problem of each state; they share the tissue, and so its memory.

    **Arguments:** `is_padded`, whether they are padded to their buckets.
    """
    found: dict[str, PerfusionProblem] = {}
    for name, state in states.items():
        at = state.of(problem)
        at = pad_problem(at) if is_padded else at
        if found:
            shared = next(iter(found.values())).tissue
            at = eqx.tree_at(lambda p: p.tissue, at, shared)
        found[name] = at
    return found
