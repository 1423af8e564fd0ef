"""Steady problems padded to buckets: see `jaxperf._padding`."""

from typing import Any, TypeVar

import equinox as eqx
import jax

from .._padding import is_real, kept, padded
from ..network import (
    pad_boundary,
    pad_network,
    sanitised_boundary,
    sanitised_network,
    VascularNetwork,
)
from ..vessel import AbstractWall

P = TypeVar("P", bound=eqx.Module)


def pad_vessels(problem: P) -> P:
    """A problem with network, boundary and wall padded to their buckets."""
    given: Any = problem
    network = pad_network(given.network)
    size = network.n_segments
    wall = _map_segments(given.wall, given.network, lambda x: padded(x, size, _first(x)))
    boundary = pad_boundary(given.boundary, network)
    return eqx.tree_at(_vessels, problem, (network, boundary, wall))


def sanitised_vessels(problem: P) -> P:
    """A problem whose padded vessels are harmless, whatever stood there."""
    given: Any = problem
    network, real = given.network, given.network.real
    if real is None:
        return problem
    segment = is_real(real.segment, network.n_segments)
    wall = _map_segments(given.wall, network, lambda x: kept(x, segment, _first(x)))
    boundary = sanitised_boundary(given.boundary, network)
    return eqx.tree_at(_vessels, problem, (sanitised_network(network), boundary, wall))


def _vessels(problem: Any) -> tuple:
    return problem.network, problem.boundary, problem.wall


def _map_segments(wall: AbstractWall, network: VascularNetwork, function: Any) -> AbstractWall:
    """A function of the parameters of a wall that have a value for each segment."""
    n = network.n_segments
    per_segment = lambda x: eqx.is_array(x) and x.ndim == 2 and x.shape[0] == n
    return jax.tree.map(lambda x: function(x) if per_segment(x) else x, wall)


def _first(x: Any) -> Any:
    """The values of the first segment, which is real: harmless on any other."""
    return jax.lax.stop_gradient(x[:1])
