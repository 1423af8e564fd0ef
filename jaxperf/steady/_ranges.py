"""The ranges of the numbers that steady and transient flow in vessels share."""

import jax.numpy as jnp
from jaxtyping import Array, Int

from .._ranges import positive, Range
from ..network import network_ranges, VascularNetwork, vessel_label
from ..vessel import AbstractElasticWall, AbstractWall, Blood
from ._system import Boundary


def vessel_ranges(
    network: VascularNetwork,
    boundary: Boundary,
    blood: Blood,
    wall: AbstractWall,
    perfused: Int[Array, " t"] | None = None,
) -> list[Range]:
    """What must hold for the numbers of vessels, their ends, blood and wall.

    **Arguments:** `perfused`, the nodes that end in tissue, where there are some.
    """
    radius, segment = network.radius, lambda i: vessel_label(network, i)
    viscosity = blood.viscosity(0.5 * (radius[:, 0] + radius[:, 1]))
    everywhere = lambda _: "the blood"
    found = [
        *network_ranges(network, boundary, perfused),
        positive("density (kg/m³)", jnp.asarray(blood.density), everywhere),
        positive("viscosity (Pa·s)", viscosity, lambda i: f"the blood in {segment(i)}"),
        positive("`profile_exponent`", jnp.asarray(blood.profile_exponent), everywhere),
    ]
    if isinstance(wall, AbstractElasticWall):
        of_wall = lambda i: f"the wall of {segment(i // 2)}"
        found.append(positive("E h/r (Pa)", wall.stiffness(radius), of_wall))
    return found
