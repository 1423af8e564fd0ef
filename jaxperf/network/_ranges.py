"""The ranges of the numbers of a network and its boundary, for where they are used."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Int

from .._ranges import not_negative, positive, Range
from ._boundary import AbstractBoundary, quantity
from ._forms import Fed
from ._network import VascularNetwork, vessel_label
from ._reach import pressure_reaches


def network_ranges(
    network: VascularNetwork,
    boundary: tuple[AbstractBoundary, ...],
    perfused: Int[Array, " t"] | None = None,
) -> list[Range]:
    """What must hold for the numbers of a network and of the conditions at its nodes.

    **Arguments:** `perfused`, the nodes that end in tissue, where there are some.
    """
    lesion, radius, length = network.lesion, network.radius, network.length
    segment = lambda i: vessel_label(network, i)
    number = lambda i: f"lesion {i + 1}"
    finite = lambda x: (x > 0) & (x < jnp.inf)
    reduction = lesion.diameter_reduction
    end = lambda i: segment(i // 2)
    share = (reduction >= 0) & (reduction <= 1)
    return [
        Range("`radius` (m)", radius, finite(radius), "a positive number", end),
        Range("`length` (m)", length, finite(length), "a positive number", segment),
        Range("`diameter_reduction`", reduction, share, "a number from 0 to 1", number),
        positive("`length` (m)", lesion.length, number),
        *_of_occlusions(network, boundary, perfused),
        *(r for condition in boundary for r in condition_ranges(condition)),
    ]


def _of_occlusions(
    network: VascularNetwork,
    boundary: tuple[AbstractBoundary, ...],
    perfused: Int[Array, " t"] | None,
) -> list[Range]:
    """On both sides of an occlusion some pressure must act, or that of the piece has no law."""
    lesion = network.lesion
    if not lesion.length.shape[0]:
        return []
    at = [c.node for c in boundary if not isinstance(c.form(), Fed)]
    known = jnp.zeros(network.n_nodes, bool)
    for node in at if perfused is None else [*at, perfused]:
        known = known.at[node].set(True)
    both = pressure_reaches(network, known)[network.segment_node[lesion.segment]].all(axis=1)
    holds = jnp.ones(lesion.length.shape, bool).at[lesion.lesion].min(both | ~lesion.closes)
    expected = (
        "less than 1 where a side of the lesion has neither a prescribed pressure, nor an outlet "
        "with a resistance, nor a perfused end before the next occlusion"
    )
    reduction = lesion.diameter_reduction
    number = lambda i: f"lesion {i + 1}"
    return [Range("`diameter_reduction`", reduction, holds, expected, number)]


def condition_ranges(condition: AbstractBoundary) -> list[Range]:
    """Resistances above zero and compliances not below, of a type that may be anyone's."""
    place = lambda i: f"{condition.kind} {i}"
    found = []
    for field in dataclasses.fields(condition):
        value, what = getattr(condition, field.name), quantity(field.name)
        if value is None:
            continue
        if what == "resistance":
            found.append(positive(f"`{field.name}` (Pa·s/m³)", value, place))
        elif what == "compliance":
            found.append(not_negative(f"`{field.name}` (m³/Pa)", value, place))
        elif what == "conductance":
            # the diagonal of a joint drain
            each = jnp.diagonal(value) if value.ndim == 2 else value
            found.append(positive(f"`{field.name}` (m³/(Pa·s))", each, place))
    return found
