"""The layers of both networks."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray


class MLP(eqx.Module):
    """Two linear layers with SiLU between them.

    Its activation is no leaf, unlike in `eqx.nn.MLP`: all leaves of a solver are arrays.
    """

    layers: tuple[eqx.nn.Linear, eqx.nn.Linear]

    def __init__(self, n_in: int, n_out: int, hidden: int, *, key: PRNGKeyArray) -> None:
        first, second = jax.random.split(key)
        self.layers = (
            eqx.nn.Linear(n_in, hidden, key=first),
            eqx.nn.Linear(hidden, n_out, key=second),
        )

    def __call__(self, x: Float[Array, " i"]) -> Float[Array, " o"]:
        first, second = self.layers
        return second(jax.nn.silu(first(x)))
