"""Networks and boundaries padded to buckets: see `jaxperf._padding`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from .._padding import (
    bucket_size,
    count_leaf,
    is_real,
    kept,
    kept_square,
    padded,
    padded_square,
    refuse_padded,
)
from ._boundary import AbstractBoundary, FILL, quantity
from ._network import Lesions, RealNetwork, VascularNetwork
from ._topology import Topology
from ._waveform import Waveform

# Of padded segments and lesions, m.
_RADIUS, _LENGTH = 1e-3, 1e-3
# Lesions are few and cost nothing: healthy and diseased hearts share these sizes.
_LEAST_LESIONS, _LEAST_INSIDE = 8, 64


def pad_network(network: VascularNetwork) -> VascularNetwork:
    """A network padded to its bucket.

    Nodes and segments share one size. The last node is always a padded one: padded segments begin
    and end there, and so do padded roots and terminals. Segments that close loops are not padded.
    """
    refuse_padded(network.real, "network")
    n_nodes, n_segments = network.n_nodes, network.n_segments
    size = bucket_size(max(n_nodes, n_segments) + 1)
    lesion = _pad_lesions(network.lesion, size - 1)
    return VascularNetwork(
        node_position=padded(network.node_position, size, 0.0),
        segment_node=padded(network.segment_node, size, size - 1),
        radius=padded(network.radius, size, _RADIUS),
        length=padded(network.length, size, _LENGTH),
        branch=padded(network.branch, size, 0),
        lesion=lesion,
        topology=_pad_topology(network.topology, n_segments, size),
        branch_name=(),
        frame="model",
        real=RealNetwork(
            count_leaf(n_nodes), count_leaf(n_segments), count_leaf(network.lesion.length.shape[0])
        ),
    )


def _pad_topology(topology: Topology, n_segments: int, size: int) -> Topology:
    sweep = np.asarray(topology.sweep)
    sweep = np.where(sweep == n_segments, size, sweep)
    of_size = lambda x: padded(x, bucket_size(x.shape[0]), size - 1)
    return Topology(
        root=of_size(topology.root),
        terminal=of_size(topology.terminal),
        sweep=padded(sweep, bucket_size(len(sweep)), size),
        cut=topology.cut,
        vessel=padded(topology.vessel, size, int(np.max(np.asarray(topology.vessel))) + 1),
    )


def _pad_lesions(lesion: Lesions, segment: int) -> Lesions:
    """Further lesions without a reduction, each on one padded segment; pairs left over count for
    nothing on the last one."""
    n, inside = lesion.length.shape[0], lesion.segment.shape[0]
    size = bucket_size(max(n + 1, _LEAST_LESIONS))
    pairs = bucket_size(max(inside + size - n, _LEAST_INSIDE))
    own = np.minimum(np.arange(pairs - inside) + n, size - 1).astype(np.int32)
    share = np.where(np.arange(pairs - inside) < size - n, 1.0, 0.0)
    return Lesions(
        diameter_reduction=padded(lesion.diameter_reduction, size, 0.0),
        length=padded(lesion.length, size, _LENGTH),
        segment=padded(lesion.segment, pairs, segment),
        lesion=padded(lesion.lesion, pairs, own),
        fraction=padded(lesion.fraction, pairs, share),
    )


def pad_boundary(
    boundary: tuple[AbstractBoundary, ...], network: VascularNetwork
) -> tuple[AbstractBoundary, ...]:
    """Each condition padded to its bucket by entries on the last node of a padded network."""

    def pad(name: str, value: Any, size: int) -> Any:
        if isinstance(value, Waveform):
            return Waveform(value.time, padded(value.value, size, 0.0), value.period)
        if value.ndim == 2:
            return padded_square(value, size)
        if name == "node":
            return padded(np.asarray(value, np.int32), size, network.n_nodes - 1)
        return padded(value, size, FILL[quantity(name)])

    sized = [(c, bucket_size(c.node.shape[0])) for c in boundary]
    return tuple(_map_fields(c, lambda n, v, k=k: pad(n, v, k)) for c, k in sized)


def sanitised_network(network: VascularNetwork) -> VascularNetwork:
    """A network whose padded entries are harmless, whatever stood there."""
    real = network.real
    if real is None:
        return network
    node, segment = is_real(real.node, network.n_nodes), is_real(real.segment, network.n_segments)
    lesion = network.lesion
    given = is_real(real.lesion, lesion.length.shape[0])
    on_real = segment[lesion.segment]
    # As `_pad_lesions` lays them out: a padded lesion has its one share in full, the rest nothing.
    own = ~on_real & (jnp.cumsum(~on_real) <= jnp.sum(~given))
    return eqx.tree_at(
        lambda n: (
            n.node_position,
            n.radius,
            n.length,
            n.lesion.diameter_reduction,
            n.lesion.length,
            n.lesion.fraction,
        ),
        network,
        (
            kept(network.node_position, node, 0.0),
            kept(network.radius, segment, _RADIUS),
            kept(network.length, segment, _LENGTH),
            kept(lesion.diameter_reduction, given, 0.0),
            kept(lesion.length, given, _LENGTH),
            kept(lesion.fraction, on_real, own.astype(lesion.fraction.dtype)),
        ),
    )


def sanitised_boundary(
    boundary: tuple[AbstractBoundary, ...], network: VascularNetwork
) -> tuple[AbstractBoundary, ...]:
    """Conditions whose entries on padded nodes are harmless, whatever stood there."""
    if network.real is None:
        return boundary
    count = network.real.node

    def clean(name: str, value: Any, real: Bool[Array, " b"]) -> Any:
        if isinstance(value, Waveform):
            return Waveform(value.time, kept(value.value, real, 0.0), value.period)
        if value.ndim == 2:
            return kept_square(value, real)
        return value if name == "node" else kept(value, real, FILL[quantity(name)])

    return tuple(_map_fields(c, lambda n, v, c=c: clean(n, v, c.node < count)) for c in boundary)


def _map_fields(
    condition: AbstractBoundary, function: Callable[[str, Any], Any]
) -> AbstractBoundary:
    given = {f.name: getattr(condition, f.name) for f in dataclasses.fields(condition)}
    new: dict[str, Any] = {k: v if v is None else function(k, v) for k, v in given.items()}
    return type(condition)(**new)
