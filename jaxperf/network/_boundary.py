"""Boundary conditions as data; the solvers interpret them.

Each type holds one array entry for each node it applies to, so that thousands of outlets are
one object. A boundary is a tuple of them. Pressures are total pressures (p + ½αρU²): a
boundary stands for a reservoir or a bed in which the velocity is negligible.
"""

import equinox as eqx
from jaxtyping import Array, Float, Int


class AbstractBoundary(eqx.Module):
    """A condition at a set of nodes."""

    node: eqx.AbstractVar[Int[Array, " b"]]


class PressureBoundary(AbstractBoundary):
    """Prescribed pressure (Pa), at a root or at a leaf."""

    node: Int[Array, " b"]
    pressure: Float[Array, " b"]


class FlowBoundary(AbstractBoundary):
    """Prescribed flow (m³/s) into the network; a negative flow leaves it."""

    node: Int[Array, " b"]
    flow: Float[Array, " b"]


class ResistanceOutlet(AbstractBoundary):
    """Outflow Q = (P − pressure_ref)/resistance; resistance in Pa·s/m³."""

    node: Int[Array, " b"]
    resistance: Float[Array, " b"]
    pressure_ref: Float[Array, " b"]


class CoronaryOutletSvOneD(AbstractBoundary):
    """Open-loop coronary outlet in svOneDSolver's convention.

    Its `P_ref` is *added* to the outlet pressure, so the venous sink lies at −`P_ref`. SI units.
    """

    node: Int[Array, " b"]
    Ra: Float[Array, " b"]
    Ra_micro: Float[Array, " b"]
    Rv: Float[Array, " b"]
    Ca: Float[Array, " b"]
    Cim: Float[Array, " b"]
    P_ref: Float[Array, " b"]


class CoronaryOutletSvZeroD(AbstractBoundary):
    """Open-loop coronary outlet in svZeroDSolver's convention: Ra1–Ca–Ra2–Cc–Rv1 to `P_v`.

    SI units.
    """

    node: Int[Array, " b"]
    Ra1: Float[Array, " b"]
    Ra2: Float[Array, " b"]
    Rv1: Float[Array, " b"]
    Ca: Float[Array, " b"]
    Cc: Float[Array, " b"]
    P_v: Float[Array, " b"]
