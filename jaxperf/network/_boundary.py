"""Boundary conditions as data; the solvers interpret them.

Each type holds one array entry for each node it applies to, so that thousands of outlets are
one object; numbers stand for one node. A boundary is a tuple of them. Pressures are total pressures
(p + ½αρU²): a boundary stands for a reservoir or a bed in which the velocity is negligible.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, float_leaf, ParameterLike
from .._misc import InputError, is_traced
from ._network import VascularNetwork
from ._waveform import Waveform


def _nodes(value: int | np.integer | np.ndarray | Array) -> Array:
    if isinstance(value, int):
        return _row(as_leaf(value, np.int32))
    return _row(value if isinstance(value, Array) else as_leaf(np.asarray(value)))


def _values(value: ParameterLike) -> Array:
    return _row(float_leaf(value))


def _row(value: Array) -> Array:
    """A number as an array of one entry; an array stays as it is."""
    if value.ndim:
        return value
    return value.reshape(1) if is_traced(value) else as_leaf(np.asarray(value).reshape(1))


class AbstractBoundary(eqx.Module):
    """A condition at a set of nodes."""

    node: eqx.AbstractVar[Int[Array, " b"]]

    def __check_init__(self):
        given = {name: value for name, value in vars(self).items() if value is not None}
        shapes = {name: _entries(value) for name, value in given.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"expected one value for each node, got the shapes {shapes}")


def _entries(value) -> tuple[int, ...]:
    """How many nodes a field speaks of: a waveform has its knots, a matrix its columns besides."""
    shape = np.shape(value.value)[:-1] if isinstance(value, Waveform) else np.shape(value)
    return shape[:1] if len(shape) == 2 and shape[0] == shape[1] else shape


class PressureBoundary(AbstractBoundary):
    """Prescribed pressure (Pa), at a root or at a leaf."""

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    pressure: Float[Array, " b"] = eqx.field(converter=_values)


class FlowBoundary(AbstractBoundary):
    """Prescribed flow (m³/s) into the network; a negative flow leaves it."""

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    flow: Float[Array, " b"] = eqx.field(converter=_values)


class PressureWaveform(AbstractBoundary):
    """Prescribed pressure (Pa) over the cycle, at a root or a leaf; steady flow takes its mean."""

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    pressure: Waveform


class FlowWaveform(AbstractBoundary):
    """Prescribed flow (m³/s) into the network over the cycle; steady flow takes its mean."""

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    flow: Waveform


class ResistanceOutlet(AbstractBoundary):
    """Outflow Q = (P − pressure_ref)/resistance; resistance in Pa·s/m³."""

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    resistance: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_ref: Float[Array, " b"] = eqx.field(converter=_values)


class WindkesselOutlet(AbstractBoundary):
    r"""Three-element windkessel (RCR): $Q = (P-P_C)/R_1$, $C\,\dot P_C = Q-(P_C-P_{ref})/R_2$.

    Resistances in Pa·s/m³, compliance in m³/Pa.
    """

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    R1: Float[Array, " b"] = eqx.field(converter=_values)
    R2: Float[Array, " b"] = eqx.field(converter=_values)
    C: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_ref: Float[Array, " b"] = eqx.field(converter=_values)


class CoronaryOutletSvOneD(AbstractBoundary):
    r"""Open-loop coronary outlet in svOneDSolver's convention.

    $Q=(P-P_a)/R_a$, $C_a\dot P_a = Q-(P_a-P_i)/R_{a,micro}$,
    $C_{im}(\dot P_i-\dot p_{im}) = (P_a-P_i)/R_{a,micro}-(P_i+P_{ref})/R_v$. That solver drives the
    outlet by P + `P_ref`: blood drains to a sink of pressure −`P_ref`. SI units.

    `pressure_im` is the intramyocardial pressure p_im (Pa) over the cycle; None holds it constant.
    """

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    Ra: Float[Array, " b"] = eqx.field(converter=_values)
    Ra_micro: Float[Array, " b"] = eqx.field(converter=_values)
    Rv: Float[Array, " b"] = eqx.field(converter=_values)
    Ca: Float[Array, " b"] = eqx.field(converter=_values)
    Cim: Float[Array, " b"] = eqx.field(converter=_values)
    P_ref: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_im: Waveform | None = None


class CoronaryOutletSvZeroD(AbstractBoundary):
    """Open-loop coronary outlet in svZeroDSolver's convention: Ra1–Ca–Ra2–Cc–Rv1 to `P_v`.

    The circuit of `CoronaryOutletSvOneD` with the sink at `P_v`; `Cc` is the compliance under the
    intramyocardial pressure. SI units.
    """

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    Ra1: Float[Array, " b"] = eqx.field(converter=_values)
    Ra2: Float[Array, " b"] = eqx.field(converter=_values)
    Rv1: Float[Array, " b"] = eqx.field(converter=_values)
    Ca: Float[Array, " b"] = eqx.field(converter=_values)
    Cc: Float[Array, " b"] = eqx.field(converter=_values)
    P_v: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_im: Waveform | None = None


class PerfusedBed(AbstractBoundary):
    r"""Vessels and tissue below a set of outlets, condensed: what feeds them jointly.

    For each outlet an arterial pressure $a$ and the pressure $\pi$ inside the small vessels, or the
    tissue, that the wall squeezes,

    $$Q_i = \frac{P_i-a_i}{R_{1,i}},\qquad C_{a,i}\dot a_i = Q_i-\frac{a_i-\pi_i}{R_{2,i}},\qquad
    C_{t,i}(\dot\pi_i-\dot p_{im,i}) = \frac{a_i-\pi_i}{R_{2,i}}-\sum_jM_{ij}\pi_j+m_i.$$

    M is dense: tissue pressure spreads from one outlet's region into its neighbours', and drains
    to the sink, which `inflow` m stands for. The mean over a cycle is the steady flow of the
    vessels and the tissue, without regard to the compliances.

    **Attributes:** `R1`, `R2` Pa·s/m³; `Ca`, `Ct` m³/Pa; `conductance` M, m³/(Pa·s); `inflow`
    m³/s; `pressure_im`, intramyocardial pressure (Pa) over the cycle, None where constant.
    """

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    R1: Float[Array, " b"] = eqx.field(converter=_values)
    R2: Float[Array, " b"] = eqx.field(converter=_values)
    Ca: Float[Array, " b"] = eqx.field(converter=_values)
    Ct: Float[Array, " b"] = eqx.field(converter=_values)
    conductance: Float[Array, "b b"]
    inflow: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_im: Waveform | None = None


# What must be positive for an outlet to mean anything.
POSITIVE = ("resistance", "Ra", "Ra_micro", "Rv", "Ra1", "Ra2", "Rv1", "R1", "R2")
STORAGE = ("C", "Ca", "Cim", "Cc", "Ct")


def check_boundary(network: VascularNetwork, boundary: tuple[AbstractBoundary, ...]) -> None:
    """Refuse boundary data that a solver would silently misread.

    Nodes that do not exist, a node whose pressure is prescribed twice or together with another
    condition, and resistances that are not positive. Values inside a transformation (`jit`,
    `grad`) are not known and pass.

    **Errors:** [`InputError`][] naming the type and the node.
    """
    held: list[int] = []
    # Conditions of a padded network meet on its padded nodes.
    real = network.real
    n_real = network.n_nodes if real is None or is_traced(real.node) else int(real.node)
    other: list[int] = []
    for condition in boundary:
        kind = type(condition).__name__
        for name in ("node", *POSITIVE, *STORAGE):
            value = getattr(condition, name, None)
            if value is None or is_traced(value):
                continue
            number = np.asarray(value)
            if name == "node":
                bad = (number < 0) | (number >= network.n_nodes)
                prescribed = isinstance(condition, PressureBoundary | PressureWaveform)
                (held if prescribed else other).extend(number[number < n_real].tolist())
                expected = f"a node from 0 to {network.n_nodes - 1}"
            else:
                bad, expected = ~(number > 0), "a positive resistance in Pa s/m3"
                if name in STORAGE:
                    # Steady flow does not ask for it; transient flow wants it above zero.
                    bad, expected = ~(number >= 0), "a compliance in m3/Pa"
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
