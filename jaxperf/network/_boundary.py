"""Boundary conditions as data; the solvers interpret them.

Each type holds one array entry for each node it applies to, so that thousands of outlets are
one object. A boundary is a tuple of them. Pressures are total pressures (p + ½αρU²): a
boundary stands for a reservoir or a bed in which the velocity is negligible.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from .._misc import InputError, is_traced
from ._network import VascularNetwork


class AbstractBoundary(eqx.Module):
    """A condition at a set of nodes."""

    node: eqx.AbstractVar[Int[Array, " b"]]

    def __check_init__(self):
        shapes = {name: np.shape(value) for name, value in vars(self).items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"expected one value for each node, got the shapes {shapes}")


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

    That solver drives the outlet by P + `P_ref`: blood drains to a sink of pressure −`P_ref`. SI
    units.
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


_RESISTANCES = ("resistance", "Ra", "Ra_micro", "Rv", "Ra1", "Ra2", "Rv1")


def check_boundary(network: VascularNetwork, boundary: tuple[AbstractBoundary, ...]) -> None:
    """Refuse boundary data that a solver would silently misread.

    Nodes that do not exist, a node whose pressure is prescribed twice or together with another
    condition, and resistances that are not positive. Values inside a transformation (`jit`,
    `grad`) are not known and pass.

    **Errors:** [`InputError`][] naming the type and the node.
    """
    held: list[int] = []
    other: list[int] = []
    for condition in boundary:
        kind = type(condition).__name__
        for name in ("node", *_RESISTANCES):
            value = getattr(condition, name, None)
            if value is None or is_traced(value):
                continue
            number = np.asarray(value)
            if name == "node":
                bad = (number < 0) | (number >= network.n_nodes)
                (held if isinstance(condition, PressureBoundary) else other).extend(number.tolist())
                expected = f"a node from 0 to {network.n_nodes - 1}"
            else:
                bad, expected = ~(number > 0), "a positive resistance in Pa s/m3"
            if bad.any():
                raise InputError(
                    f"{name} is {number[bad][0]}",
                    where=kind,
                    expected=expected,
                    fix="Correct the entry or remove it",
                )
    both = sorted({n for n in held if held.count(n) > 1} | (set(held) & set(other)))
    if both:
        raise InputError(
            f"the pressure of node {both[0]} is prescribed together with another condition",
            where="boundary",
            expected="a prescribed pressure to be the only condition at its node",
            fix="Keep one of the two",
        )
