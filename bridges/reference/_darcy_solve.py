"""A p = source on a graph by conjugate gradients, with its derivative by one more solve."""

import warnings
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclass(frozen=True)
class DarcySolution:
    """Darcy's pressure.

    **Fields:** `pressure_tissue` (..., c) Pa; `iterations`, products with the matrix; `residual`
    (...), ‖source − A p‖/‖source‖ without the control volumes of prescribed pressure, evaluated
    anew at the end.
    """

    pressure_tissue: torch.Tensor
    iterations: int
    residual: torch.Tensor


def solve_darcy(
    edge: torch.Tensor,
    transmissibility: torch.Tensor,
    sink: torch.Tensor,
    source: torch.Tensor,
    fixed: torch.Tensor | None = None,
    pressure_fixed: torch.Tensor | None = None,
    *,
    rtol: float | None = None,
    max_steps: int = 20_000,
) -> DarcySolution:
    """Solve A p = source, A = Σ_e T_e (e_i − e_j)(e_i − e_j)ᵀ + diag(sink), positive definite.

    Conjugate gradients with the inverse diagonal as preconditioner. A batch is one system of
    independent blocks with lengths and directions of their own. The derivative is that of the
    solution,

        λ = A⁻¹ ḡ,   ∂/∂source = λ,   ∂/∂sink_i = −λ_i p_i,   ∂/∂T_e = −(λ_i − λ_j)(p_i − p_j),

    by the same function, so that it holds to any order in reverse mode.

    **Arguments:**

    - `edge`: (e, 2) int64; `transmissibility`: (..., e) m³/s/Pa; `sink`: (..., c) m³/s/Pa;
      `source`: (..., c) m³/s. Leading axes, one at most, are a batch and broadcast.
    - `fixed`: (c,) bool, the control volumes of prescribed pressure, and `pressure_fixed` (..., c)
      Pa, whose values elsewhere play no part. They leave the system.
    - `rtol`: on the residual as the iteration updates it, in the norm of D^−½ (D the diagonal of
      A); where `None`, 1e-14 in double and 1e-6 in single precision.
    - `max_steps`: products with the matrix at most.

    **Errors:** `ValueError` for shapes and types that do not fit, numbers that are not finite, a
    connected piece without sink or prescribed pressure, and a matrix that is not positive
    definite; `RuntimeError` where the residual does not fall below `rtol` in `max_steps`.

    **Source:** M. R. Hestenes, E. Stiefel 1952, J. Res. Nat. Bur. Stand. 49:409.
    """
    batch = _checked_batch(edge, transmissibility, sink, source, fixed, pressure_fixed)
    transmissibility, sink, source = (
        value.expand(*batch, value.shape[-1]) for value in (transmissibility, sink, source)
    )
    if rtol is None:
        rtol = 1e-14 if source.dtype == torch.float64 else 1e-6
    if fixed is None or pressure_fixed is None:
        return _solve_free(edge, transmissibility, sink, source, rtol, max_steps)
    pressure_fixed = pressure_fixed.expand(*batch, pressure_fixed.shape[-1])
    free = torch.nonzero(~fixed)[:, 0]
    if free.shape[0] == 0:
        return DarcySolution(pressure_fixed, 0, source.new_zeros(batch))
    number = torch.full_like(fixed, -1, dtype=torch.int64)
    number[free] = torch.arange(free.shape[0], device=free.device)
    ends = number[edge]
    inside = torch.nonzero((ends >= 0).all(dim=1))[:, 0]
    sink, source = sink[..., free], source[..., free]
    for end in (0, 1):
        across = torch.nonzero((ends[:, end] >= 0) & (ends[:, 1 - end] < 0))[:, 0]
        lead, to = transmissibility[..., across], ends[across, end]
        sink = sink.index_add(-1, to, lead)
        outside = pressure_fixed[..., edge[across, 1 - end]]
        source = source.index_add(-1, to, lead * outside)
    found = _solve_free(ends[inside], transmissibility[..., inside], sink, source, rtol, max_steps)
    # Values beside the prescribed ones are overwritten, and take part in no derivative.
    pressure = pressure_fixed.index_copy(-1, free, found.pressure_tissue)
    return DarcySolution(pressure, found.iterations, found.residual)


def _solve_free(
    edge: torch.Tensor,
    transmissibility: torch.Tensor,
    sink: torch.Tensor,
    source: torch.Tensor,
    rtol: float,
    max_steps: int,
) -> DarcySolution:
    rows = (*(sink.shape[:-1] or (1,)), sink.shape[-1])
    flat = transmissibility.reshape(*rows[:-1], edge.shape[0])
    matrix = _Matrix(edge, flat.detach(), sink.detach().reshape(rows), rtol, max_steps)
    pressure: Any = Solve.apply(flat, sink.reshape(rows), source.reshape(rows), matrix)
    with torch.no_grad():
        given = source.detach().reshape(rows)
        left = torch.linalg.vector_norm(given - matrix.times(pressure.detach()), dim=1)
        whole = torch.linalg.vector_norm(given, dim=1)
        residual = torch.where(whole > 0, left / whole, left)
    shape = source.shape
    return DarcySolution(pressure.reshape(shape), matrix.iterations, residual.reshape(shape[:-1]))


@runtime_checkable
class Matrix(Protocol):
    """A with rows for cases, (b, c), as [`Solve`][] takes it."""

    def solve(self, source: torch.Tensor) -> torch.Tensor:
        """A⁻¹ source."""
        ...

    def differences(self, pressure: torch.Tensor) -> torch.Tensor:
        """p_i − p_j of every edge, (b, e)."""
        ...


class Solve(torch.autograd.Function):
    """(b, e), (b, c), (b, c) → (b, c); `matrix` holds the same coefficients, laid out."""

    @staticmethod
    def forward(
        ctx: Any,
        transmissibility: torch.Tensor,
        sink: torch.Tensor,
        source: torch.Tensor,
        matrix: Matrix,
    ) -> torch.Tensor:
        pressure = matrix.solve(source)
        ctx.save_for_backward(transmissibility, sink, pressure)
        ctx.matrix = matrix
        return pressure

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> Any:
        transmissibility, sink, pressure = ctx.saved_tensors
        matrix = ctx.matrix
        adjoint: Any = Solve.apply(transmissibility, sink, grad_outputs[0], matrix)
        to_edges, to_sinks = None, None
        if ctx.needs_input_grad[0]:
            to_edges = -matrix.differences(adjoint) * matrix.differences(pressure)
        if ctx.needs_input_grad[1]:
            to_sinks = -adjoint * pressure
        return to_edges, to_sinks, adjoint, None


class _Matrix:
    """D^−½ A D^−½ with D the diagonal of A, a block for each case of a batch.

    Conjugate gradients on it are those on A with the inverse diagonal as preconditioner.
    Rows of a product are gathered (CSR): on a CPU two to seven times as fast as adding the flows of
    edges to their ends, and no slower for many right-hand sides than a product with all at once.
    """

    def __init__(
        self,
        edge: torch.Tensor,
        transmissibility: torch.Tensor,
        sink: torch.Tensor,
        rtol: float,
        max_steps: int,
    ) -> None:
        n_cases, n_cells = sink.shape
        self.edge, self.shape = edge, sink.shape
        self.rtol, self.max_steps, self.iterations = rtol, max_steps, 0
        check_level(edge, transmissibility, sink)
        conduction = torch.zeros_like(sink)
        for end in (0, 1):
            conduction = conduction.index_add(-1, edge[:, end], transmissibility)
        diagonal = conduction + sink
        if not bool((diagonal > 0).all()):
            raise ValueError(
                "a control volume has no positive diagonal, so the matrix is not positive "
                "definite. Check the signs of transmissibility and sink."
            )
        own = torch.arange(n_cells, device=edge.device)
        row, order = torch.sort(torch.cat([edge[:, 0], edge[:, 1], own]), stable=True)
        column = torch.cat([edge[:, 1], edge[:, 0], own])[order]
        self.root = diagonal.sqrt()
        scaled = -transmissibility / (self.root[:, edge[:, 0]] * self.root[:, edge[:, 1]])
        value = torch.cat([scaled, scaled, torch.ones_like(diagonal)], dim=1)[:, order]
        start = torch.searchsorted(row, torch.arange(n_cells + 1, device=edge.device))
        case = torch.arange(n_cases, device=edge.device)[:, None]
        start = torch.cat([start[:1], (start[1:] + case * row.shape[0]).reshape(-1)])
        # The host's library takes 32-bit indices without a copy.
        n_rows, n_entries = n_cases * n_cells, n_cases * row.shape[0]
        kind = torch.int32 if max(n_entries, n_rows) < 2**31 else torch.int64
        with warnings.catch_warnings():
            # torch says once in each process that this layout is in beta.
            warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
            self._rows = torch.sparse_csr_tensor(
                start.to(kind),
                (column + case * n_cells).reshape(-1).to(kind),
                value.reshape(-1),
                (n_rows, n_rows),
                check_invariants=False,
            )

    def times(self, pressure: torch.Tensor) -> torch.Tensor:
        """A p for (b, c)."""
        scaled = self._rows @ (self.root * pressure).reshape(-1)
        return self.root * scaled.reshape(self.shape)

    def differences(self, pressure: torch.Tensor) -> torch.Tensor:
        """(b, e), p_i − p_j along the edges."""
        return pressure[:, self.edge[:, 0]] - pressure[:, self.edge[:, 1]]

    def solve(self, source: torch.Tensor) -> torch.Tensor:
        """A⁻¹ source for (b, c)."""
        residual = source / self.root
        # Squares of flows of single control volumes leave the range of float32.
        size = residual.abs().amax(dim=1, keepdim=True)
        size = torch.where(size > 0, size, 1.0)
        residual /= size
        pressure, direction = torch.zeros_like(source), residual.clone()
        image = torch.empty_like(source)
        square = _dot(residual, residual)
        target = self.rtol**2 * square
        # Buffers are written in place: the host gives memory of this size back page by page.
        for step in range(self.max_steps + 1):
            # Neither smaller nor larger: numbers that left the range go on to the refusal below.
            active = ~(square <= target)
            if not bool(active.any()):
                self.iterations = step
                return pressure.mul_(size).div_(self.root)
            torch.mv(self._rows, direction.view(-1), out=image.view(-1))
            curvature = _dot(direction, image)
            if bool((active & ~(curvature > 0)).any()):
                raise ValueError(
                    "a direction has no positive curvature, so the matrix is not positive "
                    "definite. Check the signs of transmissibility and sink, and the mesh for "
                    "flat elements."
                )
            length = torch.where(active, square / curvature, 0.0)
            pressure.addcmul_(length, direction)
            residual.addcmul_(length, image, value=-1.0)
            before, square = square, torch.where(active, _dot(residual, residual), square)
            direction.mul_(torch.where(active, square / before, 0.0)).add_(residual)
        raise RuntimeError(
            f"the residual did not fall below {self.rtol:g} of the source in {self.max_steps} "
            "steps. Raise max_steps or rtol, or make the elements more regular."
        )


def _dot(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """(b, 1) scalar products of the rows of (b, c)."""
    return (left * right).sum(dim=1, keepdim=True)


def check_level(edge: torch.Tensor, transmissibility: torch.Tensor, sink: torch.Tensor) -> None:
    if bool((sink > 0).all()):
        return
    n_cases, n_cells = sink.shape
    case, lead = torch.nonzero(transmissibility, as_tuple=True)
    ends = (edge[lead] + (case * n_cells)[:, None]).cpu().numpy()
    n_rows = n_cases * n_cells
    graph = coo_array((ends[:, 0] >= 0, (ends[:, 0], ends[:, 1])), shape=(n_rows, n_rows))
    n_pieces, piece = connected_components(graph, directed=False)
    holds = torch.zeros(n_pieces, dtype=torch.bool)
    holds[torch.as_tensor(piece).long()[(sink != 0).reshape(-1).cpu()]] = True
    lost = torch.nonzero(~holds)
    if lost.numel():
        cell = int((piece == int(lost[0])).argmax()) % n_cells
        raise ValueError(
            f"the connected piece of control volume {cell} has neither a sink nor a prescribed "
            "pressure, so its pressure has no level. Give it one, or remove it from the mesh."
        )


def _checked_batch(
    edge: torch.Tensor,
    transmissibility: torch.Tensor,
    sink: torch.Tensor,
    source: torch.Tensor,
    fixed: torch.Tensor | None,
    pressure_fixed: torch.Tensor | None,
) -> tuple[int, ...]:
    """The shape of the batch, () or (b,)."""
    n_cells, values = sink.shape[-1], [transmissibility, sink, source]
    expected = [edge.shape[0], n_cells, n_cells]
    if (fixed is None) != (pressure_fixed is None):
        raise ValueError("fixed and pressure_fixed belong together. Give both or neither.")
    if fixed is not None and pressure_fixed is not None:
        if fixed.shape != (n_cells,) or fixed.dtype != torch.bool:
            raise ValueError(f"fixed is not bool of shape ({n_cells},). Mark every control volume.")
        values.append(pressure_fixed)
        expected.append(n_cells)
    shapes = [tuple(value.shape) for value in values]
    batches = [shape[:-1] for shape in shapes]
    if [shape[-1:] for shape in shapes] != [(n,) for n in expected] or max(map(len, batches)) > 1:
        raise ValueError(
            f"transmissibility, sink, source and pressure_fixed have the shapes {shapes}; expected "
            f"last axes of {expected} and one leading axis at most."
        )
    if edge.ndim != 2 or edge.shape[1] != 2 or edge.dtype != torch.int64:
        raise ValueError(f"edge is {edge.dtype} of {tuple(edge.shape)}; expected int64 (e, 2).")
    if edge.numel() and not (int(edge.min()) >= 0 and int(edge.max()) < n_cells):
        raise ValueError(f"edge names a control volume outside 0 to {n_cells - 1}.")
    if len({value.dtype for value in values}) > 1 or not source.dtype.is_floating_point:
        raise ValueError(
            f"the values are of the types {[str(value.dtype) for value in values]}; expected one "
            "floating type. Convert them with tensor.to(...)."
        )
    if pressure_fixed is not None:
        values[-1] = pressure_fixed[..., fixed]
    if not all(bool(torch.isfinite(value.detach()).all()) for value in values):
        raise ValueError("a coefficient or a source is not finite; expected numbers.")
    return tuple(torch.broadcast_shapes(*batches))
