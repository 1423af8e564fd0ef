"""The three forms that a boundary condition can have: all that a solver needs to know of it.

A condition type says its own form. Solvers, condensed beds and bridges look at the form only, so a
new type of outlet is one class.
"""

import equinox as eqx
from jaxtyping import Array, Float, Int

from ._waveform import Waveform


class Held(eqx.Module):
    """Nodes whose pressure is prescribed.

    **Attributes:** `node` (b,); `pressure` (b,), Pa, or a [`Waveform`][] of b rows.
    """

    node: Int[Array, " b"]
    pressure: Float[Array, " b"] | Waveform


class Fed(eqx.Module):
    """Nodes into which a prescribed flow enters; a negative one leaves.

    **Attributes:** `node` (b,); `flow` (b,), m³/s, or a [`Waveform`][] of b rows.
    """

    node: Int[Array, " b"]
    flow: Float[Array, " b"] | Waveform


class JointDrain(eqx.Module):
    r"""What leaves the last compartments of several outlets together, $M p - m$.

    **Attributes:** `conductance` M (b, b), m³/(Pa·s); `inflow` m (b,), m³/s.
    """

    conductance: Float[Array, "b b"]
    inflow: Float[Array, " b"]


class Ladder(eqx.Module):
    r"""Outlets as n compartments behind resistances, the last of which drains to a sink.

    With $p_0$ the pressure at the node and $q_0$ the flow out of the network,

    $$q_{k-1}=\frac{p_{k-1}-p_k}{R_k},\qquad
    C_k(\dot p_k-\dot e_k)=q_{k-1}-q_k,\qquad
    q_n=\frac{p_n-p_{sink}}{R_{n+1}}\quad\text{or}\quad q_n=Mp_n-m.$$

    No compartment is a resistance, one a windkessel, two a coronary outlet. Steady flow sees the
    resistances in series, and waveforms by their mean.

    **Attributes:**

    - `node` (b,).
    - `resistance`: R, each (b,), Pa·s/m³, one for each compartment and one to the sink; a
      [`JointDrain`][] stands for the last.
    - `compliance`: C, each (b,), m³/Pa, one for each compartment.
    - `sink`: the pressure (b,), Pa, behind the last resistance, or a [`JointDrain`][].
    - `pressure_outer`: e, one for each compartment, the pressure (Pa) around it over the cycle;
      None where it is constant, which moves nothing.

    **Errors:** `ValueError` where these do not fit each other.
    """

    node: Int[Array, " b"]
    resistance: tuple[Float[Array, " b"], ...]
    compliance: tuple[Float[Array, " b"], ...]
    sink: Float[Array, " b"] | JointDrain
    pressure_outer: tuple[Waveform | None, ...]

    def __check_init__(self) -> None:
        n, found = len(self.compliance), (len(self.resistance), len(self.pressure_outer))
        expected = (n if self.is_joint else n + 1, n)
        if found != expected:
            raise ValueError(
                f"expected {expected[0]} resistances and {n} outer pressures for a ladder of {n} "
                f"compartments, got {found[0]} and {found[1]}"
            )
        if self.is_joint and n == 0:
            raise ValueError("expected a compartment in front of a joint drain, got none")

    @property
    def is_joint(self) -> bool:
        """Whether the outlets drain together, so that none has a law of its own."""
        return isinstance(self.sink, JointDrain)


Form = Held | Fed | Ladder
