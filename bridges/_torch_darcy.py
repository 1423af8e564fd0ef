"""A torch model as a Darcy solver."""

from collections.abc import Callable

import jax.numpy as jnp
import torch
from jaxtyping import Array, Float

from jaxperf.darcy import (
    AbstractDarcySolver,
    DarcyOperator,
    DarcySolution,
    fixed_cost_solution,
)

from ._torch_as_jax import torch_as_jax, TorchFunction

Model = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class TorchDarcySolver(AbstractDarcySolver):
    """A torch model that answers a Darcy problem with a pressure; see [`bridges.torch_darcy`][].

    It counts as not linear: the coupled solve corrects by it until its own tolerance is met, and
    no derivative goes through it there. `solve_darcy` differentiates through the model.
    """

    function: TorchFunction

    @property
    def is_linear_symmetric(self) -> bool:
        return False

    def init(self, operator: DarcyOperator) -> DarcyOperator:
        return operator

    def precondition(self, state: DarcyOperator, residual: Float[Array, " c"]) -> Array:
        # Only ratios matter; flows and conductances as they are leave the range of float32.
        unit, size = jnp.max(state.diagonal), jnp.max(jnp.abs(residual))
        size = jnp.where(size > 0, size, 1.0).astype(residual.dtype)
        edge = state.graph.edge.astype(jnp.int32)
        found = self.function(
            edge, state.transmissibility / unit, state.sink / unit, residual / size
        )
        return found * (size / unit)

    def solve(
        self, state: DarcyOperator, source: Float[Array, " c"], *, max_steps: int | None = None
    ) -> DarcySolution:
        del max_steps
        return fixed_cost_solution(state, source, self.precondition(state, source), 1)


def torch_darcy(model: Model) -> TorchDarcySolver:
    """A Darcy solver made of a torch module or function, torch_geometric's among them.

    **Arguments:**

    - `model(edge, transmissibility, sink, source)`: the pressure (n,) for which about
      Σ_j T_ij (p_i − p_j) + s_i p_i = f_i; `edge` (e, 2) int32, each pair of control volumes once;
      transmissibilities and sinks are over the largest diagonal entry, sources over the largest
      one, all in the operator's type.

    **Returns:** a solver for `jaxperf.darcy.solve_darcy` and `jaxperf.coupling.solve_perfusion`.
    """
    return TorchDarcySolver(torch_as_jax(model))
