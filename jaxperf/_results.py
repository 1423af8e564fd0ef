"""How a solve ended, as sentences, and the one place where a failed solve is made known."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from ._misc import is_traced


class RESULTS(eqx.Enumeration):
    """What happened and what to try; arguments stand between backticks."""

    successful = ""
    max_steps_reached = (
        "Newton's method reached the largest number of steps before the residual reached its "
        "tolerance. Raise `max_steps`, or look for a vessel whose radius or boundary is out of "
        "range."
    )
    line_search_stalled = (
        "No step along Newton's direction lowers the residual. Look for a vessel of extreme "
        "radius or a lesion close to occlusion, or solve in float64."
    )
    linear_solver_failed = (
        "The linear solver did not reach its tolerance. Raise its largest number of steps "
        "(`max_linear_steps` of a coupled solve, `max_steps` of a Darcy method), or look for "
        "permeability or conductances that differ by many orders of magnitude."
    )
    no_pressure_level = (
        "A connected piece of the mesh has neither a sink nor a prescribed pressure: its pressure "
        "is known up to a constant only. Give each piece a sink or a pressure, or mask it out."
    )
    not_positive_definite = (
        "The matrix of the linear system, or what preconditions it, is not positive definite. Look "
        "for a permeability that is not a positive number or a negative sink, or solve in float64."
    )
    inaccurate = (
        "A pressure was found, but its error may be larger than the tolerance asked for. Loosen "
        "`rtol`, raise `max_steps`, or solve in float64; look for a piece of the mesh that drains "
        "by next to nothing."
    )
    vessel_collapsed = (
        "The wall law has no open lumen at the pressure found in a vessel. Raise the wall "
        "stiffness or the inlet pressure, or use a rigid wall."
    )
    supercritical = (
        "The flow is faster than the pressure waves it rides on. Look for a narrow vessel under a "
        "large flow, a stiff inlet or a wrong unit, or raise the wall stiffness."
    )
    step_too_long = (
        "The time step is too long for the waves under load. Lower `cfl`, or give a `controller`."
    )
    taper_unresolved = (
        "A vessel narrows or widens too much within one cell for its waves to be followed. Give "
        "the narrow part a segment of its own, declare it as a lesion, or lower `cell_time`."
    )
    controller_gave_up = (
        "The controller of the step size reached its largest number of steps or its smallest "
        "step. Raise `max_steps`, or loosen its tolerances."
    )
    no_steady_start = (
        "No steady flow was found to start from. Give `initial`, or look for a vessel that closes "
        "under the mean pressures, a wrong unit, or a boundary without any pressure."
    )
    cycles_exhausted = (
        "The flow does not yet repeat itself after the largest number of cycles. Raise "
        "`max_cycles` or `tolerance`, or look for an outlet of very large compliance."
    )
    nonfinite = (
        "A pressure or flow is not finite. Check that a pressure is prescribed somewhere, and "
        "that no input is NaN or zero."
    )
    out_of_range = (
        "A number of the problem is out of its range, as one may be that was changed after the "
        "problem was built. Correct it, or keep what is fitted inside its range by a transform."
    )


class SolveError(RuntimeError):
    """A solve that found no solution: the sentence of its result, then where it went wrong.

    **Arguments:** `result`, of [`RESULTS`][]; `where`, a sentence that names the vessel or place.
    """

    def __init__(self, result: Any, where: str) -> None:
        self.result, self.where = result, where
        super().__init__(f"{RESULTS[result]} {where}".rstrip())


@runtime_checkable
class _Outcome(Protocol):
    @property
    def result(self) -> RESULTS: ...


_Solution = TypeVar("_Solution", bound=_Outcome)
_Tree = TypeVar("_Tree")


def conclude(
    solution: _Solution, *, throw: bool, failure: Callable[[_Solution], SolveError]
) -> _Solution:
    """What a verb returns: the solution, unless it failed and that is to be noticed.

    A check inside the compiled program would be a callback to the host, and JAX keeps no program
    with one in its persistent cache. So the check comes after the program has run. Where values
    are known, a failed solve raises. Under a transformation (`jit`, `grad`, `vmap`) they are not:
    there the floating-point leaves of a failed solve are NaN, values and derivatives alike.

    **Arguments:** `throw`, as in the verbs: with False the solution is returned as it is;
    `failure`, makes the error of a failed solve, which names the vessel.

    **Errors:** [`SolveError`][].
    """
    if not throw:
        return solution
    if any(is_traced(leaf) for leaf in jax.tree.leaves(solution)):
        return nan_unless(solution.result == RESULTS.successful, solution)
    if not ended_as(solution.result, RESULTS.successful):
        raise failure(solution)
    return solution


def ended_as(result: Any, expected: Any) -> bool:
    """Whether a known result is this one; to compare them as arrays would compile a program."""
    (found,), (wanted,) = jax.tree.leaves(result), jax.tree.leaves(expected)
    return int(found) == int(wanted)


@eqx.filter_jit
def nan_unless(holds: Bool[Array, ""], tree: _Tree) -> _Tree:
    """The tree, its floating-point leaves NaN where the condition does not hold.

    A product with NaN, and no selection: a selection would pass a derivative of zero.
    """
    factor = jnp.where(holds, 1.0, jnp.nan)
    floats, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.tree.map(lambda x: x * factor.astype(x.dtype), floats), rest)
