"""Boundary conditions as data; the solvers interpret their forms.

Each type holds one array entry for each node it applies to, so that thousands of outlets are
one object; numbers stand for one node. A boundary is a tuple of them. Pressures are total pressures
(p + ½αρU²): a boundary stands for a reservoir or a bed in which the velocity is negligible.
"""

import abc
import dataclasses
from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, float_leaf, ParameterLike
from .._misc import InputError, is_traced
from ._forms import Fed, Form, Held, JointDrain, Ladder
from ._lumped import AnyNetwork
from ._waveform import Waveform

# What stands in entries that pad a field, by the first word of its name: outlets at rest at 0 Pa.
FILL = {
    "node": 0.0,
    "pressure": 0.0,
    "flow": 0.0,
    "inflow": 0.0,
    "resistance": 1.0,
    "compliance": 1.0,
    "conductance": 1.0,
}


def quantity(name: str) -> str:
    """What a field of a condition holds: the first word of its name, a key of `FILL`."""
    return name.partition("_")[0]


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
    """A condition at a set of nodes.

    A type states its `kind`, the name that messages give it, and its [`Form`][], which is all that
    solvers look at. The first word of a field's name is its quantity, so that data can be checked
    and padded without knowing the type: `pressure` (Pa), `flow` or `inflow` (m³/s), `resistance`
    (Pa·s/m³), `compliance` (m³/Pa), `conductance` (m³/(Pa·s)). A field has one value or one row of
    a [`Waveform`][] for each node, or is a square matrix; None stands for what is left out.

    **Errors:** `ValueError` for fields of different lengths or without a quantity.
    """

    kind: eqx.AbstractClassVar[str]
    node: eqx.AbstractVar[Int[Array, " b"]]

    def __check_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        unknown = [name for name in given if quantity(name) not in FILL]
        if unknown:
            raise ValueError(f"expected names that begin with one of {[*FILL]}, got {unknown}")
        shapes = {name: _entries(value) for name, value in given.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"expected one value for each node, got the shapes {shapes}")

    @abc.abstractmethod
    def form(self) -> Form:
        """The condition as a solver takes it: [`Held`][], [`Fed`][] or [`Ladder`][]."""


def _entries(value: Array | np.ndarray | Waveform) -> tuple[int, ...]:
    """How many nodes a field speaks of: a waveform has its knots, a matrix its columns besides."""
    shape = np.shape(value.value)[:-1] if isinstance(value, Waveform) else np.shape(value)
    return shape[:1] if len(shape) == 2 and shape[0] == shape[1] else shape


class PressureBoundary(AbstractBoundary):
    """Prescribed pressure (Pa), at a root or at a leaf."""

    kind: ClassVar[str] = "prescribed pressure"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    pressure: Float[Array, " b"] = eqx.field(converter=_values)

    def form(self) -> Held:
        """Held at the pressure."""
        return Held(self.node, self.pressure)


class FlowBoundary(AbstractBoundary):
    """Prescribed flow (m³/s) into the network; a negative flow leaves it."""

    kind: ClassVar[str] = "prescribed flow"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    flow: Float[Array, " b"] = eqx.field(converter=_values)

    def form(self) -> Fed:
        """Fed by the flow."""
        return Fed(self.node, self.flow)


class PressureWaveform(AbstractBoundary):
    """Prescribed pressure (Pa) over the cycle, at a root or a leaf; steady flow takes its mean."""

    kind: ClassVar[str] = "pressure waveform"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    pressure: Waveform

    def form(self) -> Held:
        """Held at the waveform."""
        return Held(self.node, self.pressure)


class FlowWaveform(AbstractBoundary):
    """Prescribed flow (m³/s) into the network over the cycle; steady flow takes its mean."""

    kind: ClassVar[str] = "flow waveform"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    flow: Waveform

    def form(self) -> Fed:
        """Fed by the waveform."""
        return Fed(self.node, self.flow)


class ResistanceOutlet(AbstractBoundary):
    """Outflow Q = (P − pressure_ref)/resistance; resistance in Pa·s/m³."""

    kind: ClassVar[str] = "resistance outlet"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    resistance: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_ref: Float[Array, " b"] = eqx.field(converter=_values)

    def form(self) -> Ladder:
        """A ladder without a compartment."""
        return Ladder(self.node, (self.resistance,), (), self.pressure_ref, ())


class WindkesselOutlet(AbstractBoundary):
    r"""Three-element windkessel (RCR): $Q = (P-P_C)/R_1$, $C\,\dot P_C = Q-(P_C-P_{ref})/R_2$.

    `resistance_proximal` R₁ and `resistance_distal` R₂ in Pa·s/m³, `compliance` C in m³/Pa.
    """

    kind: ClassVar[str] = "windkessel outlet"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    resistance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    resistance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_ref: Float[Array, " b"] = eqx.field(converter=_values)

    def form(self) -> Ladder:
        """A ladder of one compartment."""
        resistance = (self.resistance_proximal, self.resistance_distal)
        return Ladder(self.node, resistance, (self.compliance,), self.pressure_ref, (None,))


class CoronaryOutletSvOneD(AbstractBoundary):
    r"""Open-loop coronary outlet in svOneDSolver's convention.

    $Q=(P-P_a)/R_a$, $C_a\dot P_a = Q-(P_a-P_i)/R_{a,micro}$,
    $C_{im}(\dot P_i-\dot p_{im}) = (P_a-P_i)/R_{a,micro}-(P_i+P_{ref})/R_v$. That solver drives the
    outlet by P + `pressure_offset`, its P_ref: blood drains to a sink of pressure −P_ref. SI units.

    Its Ra, Ra_micro and Rv are `resistance_proximal`, `resistance_middle` and `resistance_distal`,
    its Ca and Cim `compliance_proximal` and `compliance_distal`. `pressure_im` is the
    intramyocardial pressure p_im (Pa) over the cycle; None holds it constant.
    """

    kind: ClassVar[str] = "coronary outlet of svOneDSolver"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    resistance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    resistance_middle: Float[Array, " b"] = eqx.field(converter=_values)
    resistance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_offset: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_im: Waveform | None = None

    def form(self) -> Ladder:
        """A ladder of two compartments, the second in the wall."""
        return _coronary(self, -self.pressure_offset)


class CoronaryOutletSvZeroD(AbstractBoundary):
    """Open-loop coronary outlet in svZeroDSolver's convention: Ra1–Ca–Ra2–Cc–Rv1 to P_v.

    The circuit of `CoronaryOutletSvOneD` with the sink at `pressure_ref`, P_v there; Cc is the
    compliance under the intramyocardial pressure, `compliance_distal`. SI units.
    """

    kind: ClassVar[str] = "coronary outlet of svZeroDSolver"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    resistance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    resistance_middle: Float[Array, " b"] = eqx.field(converter=_values)
    resistance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_ref: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_im: Waveform | None = None

    def form(self) -> Ladder:
        """A ladder of two compartments, the second in the wall."""
        return _coronary(self, self.pressure_ref)


def _coronary(
    outlet: CoronaryOutletSvOneD | CoronaryOutletSvZeroD, sink: Float[Array, " b"]
) -> Ladder:
    """The circuit of both conventions, which differ in the sink alone."""
    return Ladder(
        outlet.node,
        (outlet.resistance_proximal, outlet.resistance_middle, outlet.resistance_distal),
        (outlet.compliance_proximal, outlet.compliance_distal),
        sink,
        (None, outlet.pressure_im),
    )


class PerfusedBed(AbstractBoundary):
    r"""Vessels and tissue below a set of outlets, condensed: what feeds them jointly.

    For each outlet an arterial pressure $a$ and the pressure $\pi$ inside the small vessels, or the
    tissue, that the wall squeezes,

    $$Q_i = \frac{P_i-a_i}{R_{1,i}},\qquad C_{a,i}\dot a_i = Q_i-\frac{a_i-\pi_i}{R_{2,i}},\qquad
    C_{t,i}(\dot\pi_i-\dot p_{im,i}) = \frac{a_i-\pi_i}{R_{2,i}}-\sum_jM_{ij}\pi_j+m_i.$$

    M is dense: tissue pressure spreads from one outlet's region into its neighbours', and drains
    to the sink, which `inflow` m stands for. The mean over a cycle is the steady flow of the
    vessels and the tissue, without regard to the compliances.

    **Attributes:** `resistance_proximal` R₁, `resistance_distal` R₂, Pa·s/m³; `compliance_proximal`
    C_a, `compliance_distal` C_t, m³/Pa; `conductance` M, m³/(Pa·s); `inflow` m³/s; `pressure_im`,
    intramyocardial pressure (Pa) over the cycle, None where constant.
    """

    kind: ClassVar[str] = "perfused bed"

    node: Int[Array, " b"] = eqx.field(converter=_nodes)
    resistance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    resistance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance_proximal: Float[Array, " b"] = eqx.field(converter=_values)
    compliance_distal: Float[Array, " b"] = eqx.field(converter=_values)
    conductance: Float[Array, "b b"]
    inflow: Float[Array, " b"] = eqx.field(converter=_values)
    pressure_im: Waveform | None = None

    def form(self) -> Ladder:
        """A ladder of two compartments with a joint drain."""
        return Ladder(
            self.node,
            (self.resistance_proximal, self.resistance_distal),
            (self.compliance_proximal, self.compliance_distal),
            JointDrain(self.conductance, self.inflow),
            (None, self.pressure_im),
        )


def check_boundary(network: AnyNetwork, boundary: tuple[AbstractBoundary, ...]) -> None:
    """Refuse boundary data that a solver would silently misread.

    Nodes that do not exist, a node whose pressure is prescribed twice or together with another
    condition, and resistances that are not positive. Values inside a transformation (`jit`,
    `grad`) are not known and pass.

    **Errors:** [`InputError`][] naming the kind of condition and the node.
    """
    held: list[int] = []
    other: list[int] = []
    # Conditions of a padded network meet on its padded nodes.
    real = network.real
    n_real = network.n_nodes if real is None or is_traced(real.node) else int(real.node)
    for condition in boundary:
        for field in dataclasses.fields(condition):
            value = getattr(condition, field.name)
            if not is_traced(value):
                _check_field(condition.kind, field.name, value, network.n_nodes)
        if not is_traced(condition.node):
            node = np.asarray(condition.node)
            taken = held if isinstance(condition.form(), Held) else other
            taken.extend(node[node < n_real].tolist())
    both = sorted({n for n in held if held.count(n) > 1} | (set(held) & set(other)))
    if both:
        raise InputError(
            f"the pressure of node {both[0]} is prescribed together with another condition",
            where="boundary",
            expected="a prescribed pressure to be the only condition at its node",
            fix="Keep one of the two",
        )


def _check_field(
    kind: str, name: str, value: Array | np.ndarray | Waveform | None, n_nodes: int
) -> None:
    what = quantity(name)
    if value is None or what not in ("node", "resistance", "compliance"):
        return
    number = np.asarray(value)
    if what == "node":
        bad = (number < 0) | (number >= n_nodes)
        expected = f"a node from 0 to {n_nodes - 1}"
    elif what == "resistance":
        bad, expected = ~(number > 0), "a positive resistance in Pa s/m3"
    else:
        # Steady flow does not ask for it; transient flow wants it above zero.
        bad, expected = ~(number >= 0), "a compliance in m3/Pa"
    if bad.any():
        raise InputError(
            f"{name} is {number[bad][0]}",
            where=kind,
            expected=expected,
            fix="Correct the entry or remove it",
        )
