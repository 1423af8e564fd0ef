"""The ranges of the numbers of a network and its boundary, for where they are used."""

import dataclasses

import jax.numpy as jnp

from .._ranges import not_negative, positive, Range
from ._boundary import AbstractBoundary, quantity
from ._network import VascularNetwork, vessel_label


def network_ranges(network: VascularNetwork, boundary: tuple[AbstractBoundary, ...]) -> list[Range]:
    """What must hold for the numbers of a network and of the conditions at its nodes."""
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
        *(r for condition in boundary for r in _of_condition(condition)),
    ]


def _of_condition(condition: AbstractBoundary) -> list[Range]:
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
