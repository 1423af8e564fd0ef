"""A three-level multigrid cycle B for A p = f with the coefficients of a `FluxNetwork`.

On two levels a polynomial q in ΛA smooths before and after the correction from the next level, and
the third is solved by its Cholesky factor:

    I − B A = q(ΛA) (I − P B_c Pᵀ A) q(ΛA).

Rows of P sum to one, so that PᵀA P is again a Darcy operator: its transmissibilities are the
negative entries beside its diagonal, its sinks Pᵀs. ρ is the contraction, 0 ≤ I − B A ≤ ρ in the
energy norm.

**Source:** J. Lottes 2023, Numer. Lin. Alg. Appl. 30:e2518, for the polynomial; Y. Saad 2003,
Iterative methods for sparse linear systems, algorithm 12.1, for the semi-iteration; G. Golub,
C. Van Loan 2013, Matrix computations, 10.2 and 11.3, for ρ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.nn import functional

from .._darcy_solve import check_level, Solve
from ._networks import at_ends, directed, FluxCoefficients, FluxNetwork

# Lottes's weights of degree 3.
_BETA = (1.00842544782028, 1.08867839208730, 1.33753125909618)
# The coarsest diagonal is raised by this many units of rounding.
_LIFT = 64.0
_LANCZOS_STEPS = 10
# 1 − ρ is found from above: it counts nine tenths in the interval of the semi-iteration, where it
# is 1e-6 at least.
_INTERVAL, _LEAST_GAP = 0.9, 1e-6


@dataclass(frozen=True)
class Aggregation:
    """How the control volumes of a level are joined to those of the next one.

    **Attributes:** `aggregate` (n,) int64 in 0 … m − 1; `root` (m,) int64, the control volume that
    each aggregate has grown from.
    """

    aggregate: torch.Tensor
    root: torch.Tensor


@dataclass(frozen=True)
class FluxProblem:
    """A Darcy operator, its source, and what its mesh gives the cycle.

    **Attributes:** `edge` (e, 2) int64; `transmissibility` (e,) m³/s/Pa; `sink` (n,) m³/s/Pa;
    `source` (n,) m³/s; `aggregations` of the finest level and the next one; `start` (n,), the
    numbers from which ρ is sought, not all zero.
    """

    edge: torch.Tensor
    transmissibility: torch.Tensor
    sink: torch.Tensor
    source: torch.Tensor
    aggregations: tuple[Aggregation, Aggregation]
    start: torch.Tensor


@dataclass(frozen=True)
class FluxSolution:
    """What `solve_flux` finds.

    **Fields:** `pressure_tissue` (n,) Pa; `iterations`; `residual` (), ‖f − A p‖/‖f‖; `contraction`
    (), ρ, from below. Only the pressure has derivatives.
    """

    pressure_tissue: torch.Tensor
    iterations: int
    residual: torch.Tensor
    contraction: torch.Tensor


@dataclass(frozen=True)
class SparseMatrix:
    """Entries (k,) by rows and then columns, each place once; differentiable in its values."""

    row: torch.Tensor
    column: torch.Tensor
    value: torch.Tensor
    shape: tuple[int, int]

    @classmethod
    def of_entries(
        cls,
        row: torch.Tensor,
        column: torch.Tensor,
        value: torch.Tensor,
        shape: tuple[int, int],
    ) -> "SparseMatrix":
        """Entries in any order; those of one place add up, and stay where the sum is zero."""
        place, entry = torch.unique(row * shape[1] + column, return_inverse=True)
        total = value.new_zeros(place.shape[0]).index_add(0, entry, value)
        return cls(place // shape[1], place % shape[1], total, shape)

    def transposed(self) -> "SparseMatrix":
        shape = (self.shape[1], self.shape[0])
        return SparseMatrix.of_entries(self.column, self.row, self.value, shape)

    def times(self, x: torch.Tensor) -> torch.Tensor:
        """The product with (m,)."""
        out = x.new_zeros(self.shape[0])
        return out.index_add(0, self.row, self.value * x[self.column])

    def product(self, other: "SparseMatrix") -> "SparseMatrix":
        """The product with another matrix, with an entry wherever two entries meet."""
        place = torch.arange(other.shape[0] + 1, device=other.row.device)
        first = torch.searchsorted(other.row, place)
        count = (first[1:] - first[:-1])[self.column]
        mine = torch.repeat_interleave(count)
        within = torch.arange(mine.shape[0], device=mine.device) - (count.cumsum(0) - count)[mine]
        theirs = first[self.column[mine]] + within
        return SparseMatrix.of_entries(
            self.row[mine],
            other.column[theirs],
            self.value[mine] * other.value[theirs],
            (self.shape[0], other.shape[1]),
        )


@dataclass(frozen=True)
class _Level:
    """A, the diagonal of Λ, and P with its transpose."""

    matrix: SparseMatrix
    smoother: torch.Tensor
    prolong: SparseMatrix
    restrict: SparseMatrix

    def smoothed(self, right: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """x after Chebyshev's iteration of the fourth kind with the weights β, on (0, 1]."""
        residual = right - self.matrix.times(x)
        move = (4.0 / 3.0) * self.smoother * residual
        for k, beta in enumerate(_BETA):
            if k > 0:
                residual = residual - self.matrix.times(move)
                gain = (8 * k + 4) / (2 * k + 3) * self.smoother
                move = (2 * k - 1) / (2 * k + 3) * move + gain * residual
            x = x + beta * move
        return x


@dataclass(frozen=True)
class FluxCycle:
    """The cycle of an operator over `unit`; made by `flux_cycle`."""

    levels: tuple[_Level, _Level]
    factor: torch.Tensor
    unit: torch.Tensor

    def times(self, residual: torch.Tensor) -> torch.Tensor:
        """B r for (n,); computed in the type of the network."""
        size = residual.detach().abs().max()
        size = torch.where(size > 0, size, torch.ones_like(size))
        found = self._descended(0, (residual / size).to(self.factor.dtype))
        return found.to(residual.dtype) * (size / self.unit)

    def _descended(self, depth: int, right: torch.Tensor) -> torch.Tensor:
        if depth == len(self.levels):
            return torch.cholesky_solve(right[:, None], self.factor)[:, 0]
        level = self.levels[depth]
        x = level.smoothed(right, torch.zeros_like(right))
        below = level.restrict.times(right - level.matrix.times(x))
        return level.smoothed(right, x + level.prolong.times(self._descended(depth + 1, below)))


def flux_cycle(network: FluxNetwork, problem: FluxProblem) -> FluxCycle:
    """The cycle that a network gives an operator, differentiable in both.

    **Errors:** `ValueError` for shapes, types or numbers that do not fit, and for a connected piece
    without a sink.
    """
    _check(problem)
    kind = next(network.parameters()).dtype
    edge, sink = problem.edge, problem.sink
    unit = (sink + at_ends(edge, problem.transmissibility, sink.shape[0])).detach().max()
    transmissibility, sink = (problem.transmissibility / unit).to(kind), (sink / unit).to(kind)
    levels = []
    for depth, joined in enumerate(problem.aggregations):
        is_root = torch.zeros(sink.shape, dtype=torch.bool, device=sink.device)
        is_root[joined.root] = True
        said = network(edge, transmissibility, sink, joined.aggregate, is_root, depth)
        level = _level(edge, transmissibility, sink, joined, said)
        coarse = level.restrict.product(level.matrix.product(level.prolong))
        upper = torch.nonzero(coarse.row < coarse.column)[:, 0]
        edge = torch.stack([coarse.row[upper], coarse.column[upper]], dim=1)
        transmissibility, sink = -coarse.value[upper], level.restrict.times(sink)
        levels.append(level)
    dense = sink.new_zeros(sink.shape[0], sink.shape[0])
    dense = dense.index_put((edge[:, 0], edge[:, 1]), -transmissibility)
    diagonal = sink + at_ends(edge, transmissibility, sink.shape[0])
    lift = 1.0 + _LIFT * torch.finfo(kind).eps
    factor, failed = torch.linalg.cholesky_ex(dense + dense.T + torch.diag(lift * diagonal))
    if int(failed):
        raise ValueError(
            "the coarsest matrix is not positive definite, and so neither is the operator. Check "
            "the signs of transmissibility and sink, and the mesh for flat elements."
        )
    return FluxCycle((levels[0], levels[1]), factor, unit)


def _level(
    edge: torch.Tensor,
    transmissibility: torch.Tensor,
    sink: torch.Tensor,
    joined: Aggregation,
    said: FluxCoefficients,
) -> _Level:
    n, m = sink.shape[0], joined.root.shape[0]
    sender, receiver = directed(edge)
    itself = torch.arange(n, device=edge.device)
    conduction = functional.relu(transmissibility)
    smoother = said.damping / (sink + 2.0 * at_ends(edge, conduction, n))
    diagonal = sink + at_ends(edge, transmissibility, n)
    matrix = SparseMatrix.of_entries(
        torch.cat([receiver, itself]),
        torch.cat([sender, itself]),
        torch.cat([-transmissibility, -transmissibility, diagonal]),
        (n, n),
    )
    # Towards neighbours by their conductances; who has none that conducts keeps its row.
    weight = torch.cat([conduction, conduction]) * said.factor
    total = weight.new_zeros(n).index_add(0, receiver, weight)
    moved = torch.where(total > 0, said.moved, 0.0)
    given = (moved / torch.where(total > 0, total, 1.0))[receiver] * weight
    prolong = SparseMatrix.of_entries(
        torch.cat([receiver, itself]),
        torch.cat([joined.aggregate[sender], joined.aggregate]),
        torch.cat([given, 1.0 - moved]),
        (n, m),
    )
    return _Level(matrix, smoother, prolong, prolong.transposed())


def solve_flux(
    network: FluxNetwork,
    problem: FluxProblem,
    *,
    mode: Literal["exact", "few", "surrogate"] = "exact",
    cycles: int = 4,
    rtol: float | None = None,
    max_steps: int = 500,
) -> FluxSolution:
    """Solve A p = f by the cycle of a network, A = Σ_e T_e (e_i − e_j)(e_i − e_j)ᵀ + diag(sink).

    **Arguments:**

    - `network`: in whose type the cycle is computed; everything else is in the problem's.
    - `mode`: `exact`, conjugate gradients preconditioned by B until the residual is `rtol` of the
      source in the Euclidean norm, with the derivatives of the linear system, of every order, and
      none by the weights; `few`, `cycles` iterations of them, and `surrogate`, `cycles` of
      Chebyshev's semi-iteration on [0.9 (1 − ρ), 1], both differentiated as they are, by the
      weights too.
    - `rtol`: where `None`, 1e-12 in double and 1e-5 in single precision.
    - `max_steps`: iterations of `exact` at most.

    **Errors:** as `flux_cycle`; `ValueError` for another mode, a negative number of cycles, and an
    operator that is not positive definite; `RuntimeError` where `max_steps` do not suffice.
    """
    if mode not in ("exact", "few", "surrogate") or cycles < 0 or max_steps < 1:
        raise ValueError(
            f"mode {mode!r}, cycles {cycles} and max_steps {max_steps}; expected exact, few or "
            "surrogate, no negative number of cycles and one step at least."
        )
    source, wanted = problem.source, torch.is_grad_enabled() and mode != "exact"
    with torch.set_grad_enabled(wanted):
        cycle = flux_cycle(network, problem)
        operator = _Operator(problem, cycle, rtol, max_steps)
    with torch.set_grad_enabled(wanted and mode == "surrogate"):
        rho = _contraction(operator, problem.start)
    if mode == "exact":
        found: Any = Solve.apply(
            problem.transmissibility[None], problem.sink[None], source[None], operator
        )
        pressure, iterations = found[0], operator.iterations
    elif mode == "few":
        pressure = _conjugate_gradients(operator.times, cycle.times, source, cycles)[0]
        iterations = cycles
    else:
        pressure = _semi_iteration(operator.times, cycle.times, source, rho, cycles)
        iterations = cycles
    with torch.no_grad():
        residual = _relative(source - operator.times(pressure), source)
    return FluxSolution(pressure, iterations, residual, rho.detach())


class _Operator:
    """A with its cycle, as `Solve` takes it: rows of (1, n)."""

    def __init__(
        self, problem: FluxProblem, cycle: FluxCycle, rtol: float | None, max_steps: int
    ) -> None:
        self.edge, self.cycle, self.max_steps, self.iterations = problem.edge, cycle, max_steps, 0
        self.transmissibility, self.sink = problem.transmissibility, problem.sink
        default = 1e-12 if self.sink.dtype == torch.float64 else 1e-5
        self.rtol = default if rtol is None else rtol
        self.diagonal = self.sink + at_ends(self.edge, self.transmissibility, self.sink.shape[0])

    def times(self, pressure: torch.Tensor) -> torch.Tensor:
        """A p for (n,)."""
        flux = self.transmissibility * self.differences(pressure[None])[0]
        out = self.sink * pressure
        return out.index_add(0, self.edge[:, 0], flux).index_add(0, self.edge[:, 1], -flux)

    def differences(self, pressure: torch.Tensor) -> torch.Tensor:
        """(1, e), p_i − p_j along the edges."""
        return pressure[:, self.edge[:, 0]] - pressure[:, self.edge[:, 1]]

    def solve(self, source: torch.Tensor) -> torch.Tensor:
        """A⁻¹ source for (1, n)."""
        with torch.no_grad():
            pressure, taken, _ = _conjugate_gradients(
                self.times, self.cycle.times, source[0], self.max_steps, self.rtol
            )
            self.iterations = len(taken)
        return pressure[None]


def _conjugate_gradients(
    product: Callable[[torch.Tensor], torch.Tensor],
    precondition: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    steps: int,
    rtol: float | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor], list[torch.Tensor]]:
    """So many steps from zero, fewer where nothing is left or until `rtol`: x, lengths α, ratios β.

    **Errors:** `RuntimeError` where `rtol` is not reached.
    """
    # Squares of flows of single control volumes leave the range of float32.
    size = right.detach().abs().max()
    size = torch.where(size > 0, size, torch.ones_like(size))
    x, residual = torch.zeros_like(right), right / size
    direction = precondition(residual)
    square = residual @ direction
    target = None if rtol is None else rtol * torch.linalg.vector_norm(residual)
    lengths, ratios = [], []
    for _ in range(steps):
        if not bool(square != 0) or _arrived(residual, target):
            break
        image = product(direction)
        curvature = direction @ image
        if not bool((square > 0) & (curvature > 0)):
            raise ValueError(
                f"a direction has the curvature {float(curvature):g} and the residual the square "
                f"{float(square):g}: the operator is not positive definite. Check the signs of "
                "transmissibility and sink, and the mesh for flat elements."
            )
        length = square / curvature
        x, residual = x + length * direction, residual - length * image
        remedy = precondition(residual)
        before, square = square, residual @ remedy
        lengths.append(length)
        ratios.append(square / before)
        direction = remedy + ratios[-1] * direction
    if target is not None and not _arrived(residual, target):
        raise RuntimeError(
            f"the residual is {float(_relative(residual, right / size)):.1e} of the source after "
            f"{len(lengths)} steps; expected {rtol:g}. Raise max_steps or rtol."
        )
    return size * x, lengths, ratios


def _arrived(residual: torch.Tensor, target: torch.Tensor | None) -> bool:
    return target is not None and bool(torch.linalg.vector_norm(residual) <= target)


def _relative(value: torch.Tensor, to: torch.Tensor) -> torch.Tensor:
    size = to.abs().max()
    if not bool(size > 0):
        return torch.linalg.vector_norm(value)
    return torch.linalg.vector_norm(value / size) / torch.linalg.vector_norm(to / size)


def _contraction(operator: _Operator, start: torch.Tensor) -> torch.Tensor:
    """ρ (): 1 − the least eigenvalue of the tridiagonal matrix that conjugate gradients on
    D · start leave behind, which is one of B A from above."""
    right = start * operator.diagonal
    _, lengths, ratios = _conjugate_gradients(
        operator.times, operator.cycle.times, right, _LANCZOS_STEPS
    )
    length, ratio = torch.stack(lengths), torch.stack(ratios)[:-1]
    before = functional.pad(ratio / length[:-1], (1, 0))
    beside = ratio.sqrt() / length[:-1]
    tridiagonal = torch.diag(1.0 / length + before)
    tridiagonal = tridiagonal + torch.diag(beside, 1) + torch.diag(beside, -1)
    return functional.relu(1.0 - torch.linalg.eigvalsh(tridiagonal)[0])


def _semi_iteration(
    product: Callable[[torch.Tensor], torch.Tensor],
    precondition: Callable[[torch.Tensor], torch.Tensor],
    right: torch.Tensor,
    rho: torch.Tensor,
    steps: int,
) -> torch.Tensor:
    """Chebyshev's, for eigenvalues of B A in [low, 1]."""
    low = _INTERVAL * (1.0 - rho).clamp(min=_LEAST_GAP)
    middle, half = 0.5 * (1.0 + low), 0.5 * (1.0 - low)
    x, residual = torch.zeros_like(right), right
    move, weight = precondition(right) / middle, half / middle
    for step in range(steps):
        x = x + move
        if step + 1 == steps:
            break
        residual = residual - product(move)
        after = 1.0 / (2.0 * middle / half - weight)
        move = after * weight * move + 2.0 * after / half * precondition(residual)
        weight = after
    return x


def _check(problem: FluxProblem) -> None:
    edge, sink = problem.edge, problem.sink
    n = sink.shape[0] if sink.ndim == 1 else 0
    values = [problem.transmissibility, sink, problem.source, problem.start]
    shapes, expected = [tuple(v.shape) for v in values], [(edge.shape[0],), (n,), (n,), (n,)]
    if n < 1 or shapes != expected:
        raise ValueError(
            f"transmissibility, sink, source and start have the shapes {shapes}; expected "
            f"{expected} with one control volume at least."
        )
    if len({v.dtype for v in values}) > 1 or not sink.dtype.is_floating_point:
        raise ValueError(
            f"the values are of the types {[str(v.dtype) for v in values]}; expected one floating "
            "type. Convert them with tensor.to(...)."
        )
    if not all(bool(v.detach().isfinite().all()) for v in values) or not bool(problem.start.any()):
        raise ValueError("a value is not finite, or start is zero; expected numbers.")
    if not _indices_fit(edge, (edge.shape[0], 2), n):
        raise ValueError(
            f"edge is {edge.dtype} of {tuple(edge.shape)}; expected int64 (e, 2) below {n}."
        )
    for joined in problem.aggregations:
        m = joined.root.shape[0]
        if not (
            _indices_fit(joined.root, (m,), n)
            and _indices_fit(joined.aggregate, (n,), m)
            and torch.equal(joined.aggregate[joined.root], torch.arange(m).to(edge))
        ):
            raise ValueError(
                f"an aggregation does not fit a level of {n} control volumes; expected int64 "
                f"aggregate ({n},), and root (m,) where root a lies in aggregate a. Take both "
                "aggregations from one mesh, the finest level's first."
            )
        n = m
    check_level(edge, problem.transmissibility.detach()[None], sink.detach()[None])


def _indices_fit(index: torch.Tensor, shape: tuple[int, ...], n: int) -> bool:
    if index.dtype != torch.int64 or tuple(index.shape) != shape:
        return False
    return not index.numel() or bool((index >= 0).all() and (index < n).all())
