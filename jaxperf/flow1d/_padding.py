"""Transient problems padded to buckets: see `jaxperf._padding`.

Slots that pad a grid are gaps, and nodes that pad it have no end, so nothing real is beside them.
Outlets that pad a boundary lie at such a node, at rest at pressure 0.
"""

import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from .._custom_types import as_leaf
from .._misc import is_traced
from .._padding import (
    bucket_size,
    count_leaf,
    cut,
    is_real,
    kept,
    pad_problem,
    padded,
    refuse_padded,
)
from ..network import VascularNetwork, Waveform
from ..steady import pad_vessels, sanitised_vessels
from ._grid import Grid, RealGrid
from ._problem import Flow1DProblem
from ._semidiscretisation import FlowState

# Ends at a node; networks apart from each other and the padded part. Hearts with one ostium and
# with two share these, and so do a single vessel and a tree.
_LEAST_ENDS, _LEAST_PARTS = 3, 4

T = TypeVar("T")


@pad_problem.register
def _pad(problem: Flow1DProblem) -> Flow1DProblem:
    vessels = _with_more_knots(pad_vessels(problem))
    n = vessels.network.n_segments
    external, viscosity = vessels.pressure_external, problem.wall_viscosity
    if external is not None:
        external = eqx.tree_at(lambda e: e.share, external, _pad_share(external.share, n))
    return dataclasses.replace(
        vessels,
        grid=_pad_grid(problem.grid, vessels.network),
        n_steps=bucket_size(problem.n_steps),
        pressure_external=external,
        wall_viscosity=None if viscosity is None else padded(viscosity, n, 0.0),
    )


def _pad_share(share: Array, n: int) -> Array:
    """Weights of external pressure, zero on further segments; none of the axes is the first."""
    more = ((0, 0), (0, n - share.shape[1]), (0, 0))
    return jnp.pad(share, more) if is_traced(share) else as_leaf(np.pad(np.asarray(share), more))


def _with_more_knots(tree: T) -> T:
    """Every waveform with its knots at their bucket: the last interval cut into equal parts.

    The function of time stays the same.
    """

    def more_knots(w: Waveform) -> Waveform:
        more = bucket_size(w.time.shape[0]) - w.time.shape[0]
        share = np.arange(1, more + 1) / (more + 1)
        return Waveform(_cut_last(w.time, share), _cut_last(w.value, share), w.period)

    is_waveform = lambda x: isinstance(x, Waveform)
    return jax.tree.map(lambda x: more_knots(x) if is_waveform(x) else x, tree, is_leaf=is_waveform)


def _cut_last(x: Any, share: np.ndarray) -> Array:
    """Further entries between the last two, linear in their index, along the last axis."""
    if not share.size:
        return x
    array = jnp if is_traced(x) else np
    x, share = array.asarray(x), share.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
    between = x[..., -2:-1] * (1.0 - share) + x[..., -1:] * share
    return as_leaf(array.concatenate([x[..., :-1], between, x[..., -1:]], axis=-1))


def _pad_grid(grid: Grid, network: VascularNetwork) -> Grid:
    """A grid with further slots, pieces, nodes and vessels; `network` is the padded one.

    There is always a padded slot for padded pieces, and a padded node at the network's last.
    """
    refuse_padded(grid.real, "grid")
    slots, segment = bucket_size(grid.n_slots + 1), network.n_segments - 1
    pieces = max(slots, bucket_size(grid.piece_slot.shape[0]))
    nodes = bucket_size(max(grid.n_nodes, grid.n_vessels) + 1)
    ends = max(_LEAST_ENDS, grid.end_sign.shape[0])
    n_parts = max(_LEAST_PARTS, bucket_size(grid.n_parts + 1))
    node_network = np.full(nodes, -1, np.int32)
    node_network[: grid.n_nodes] = np.asarray(grid.node_network)
    node_network[-1] = network.n_nodes - 1

    def at_ends(table: Int[np.ndarray | Array, "w n"], fill: int) -> Array:
        out = np.full((ends, nodes), fill, np.int32)
        out[: table.shape[0], : grid.n_nodes] = np.asarray(table)
        return as_leaf(out)

    inertia = np.ones(grid.n_slots) if grid.inertia is None else grid.inertia
    # Beyond the last face, as everywhere where there is no end.
    face = np.where(np.asarray(grid.end_sign) == 0, slots + 1, np.asarray(grid.end_face))
    return Grid(
        cell_segment=padded(grid.cell_segment, slots, segment),
        cell_fraction=padded(grid.cell_fraction, slots, 0.0),
        inertia=padded(inertia, slots, 1.0),
        is_cell=padded(grid.is_cell, slots, 0.0),
        face_segment=padded(grid.face_segment, slots + 1, segment),
        face_fraction=padded(grid.face_fraction, slots + 1, 0.0),
        piece_slot=padded(grid.piece_slot, pieces, slots - 1),
        piece_segment=padded(grid.piece_segment, pieces, segment),
        piece_fraction=padded(grid.piece_fraction, pieces, 0.0),
        end_sign=at_ends(grid.end_sign, 0),
        end_slot=at_ends(grid.end_slot, 0),
        end_neighbour=at_ends(grid.end_neighbour, 0),
        end_face=at_ends(face, slots + 1),
        end_lesion=at_ends(grid.end_lesion, -1),
        node_network=as_leaf(node_network),
        # Vessels begin before a slot or not: these nowhere.
        vessel_slot=padded(grid.vessel_slot, nodes, slots),
        vessel_segment=padded(grid.vessel_segment, nodes, segment),
        cell_part=padded(grid.cell_part, slots, n_parts - 1),
        node_part=padded(grid.node_part, nodes, n_parts - 1),
        n_parts=n_parts,
        cell_time=grid.cell_time,
        real=RealGrid(
            count_leaf(grid.n_slots), count_leaf(grid.piece_slot.shape[0]), count_leaf(grid.n_nodes)
        ),
    )


def sanitised_flow(problem: Flow1DProblem) -> Flow1DProblem:
    """A problem whose padded entries are harmless, whatever stood there."""
    grid, real = problem.grid, problem.network.real
    if grid.real is None or real is None:
        return problem
    slot = is_real(grid.real.slot, grid.n_slots)
    face = is_real(grid.real.slot + 1, grid.n_slots + 1)
    piece = is_real(grid.real.piece, grid.piece_slot.shape[0])
    grid = dataclasses.replace(
        grid,
        cell_fraction=kept(grid.cell_fraction, slot, 0.0),
        inertia=None if grid.inertia is None else kept(grid.inertia, slot, 1.0),
        is_cell=kept(grid.is_cell, slot, 0.0),
        face_fraction=kept(grid.face_fraction, face, 0.0),
        piece_fraction=kept(grid.piece_fraction, piece, 0.0),
    )
    segment = is_real(real.segment, problem.network.n_segments)
    external, viscosity = problem.pressure_external, problem.wall_viscosity
    if external is not None:
        share = jnp.where(segment[None, :, None], external.share, 0.0)
        external = eqx.tree_at(lambda e: e.share, external, share)
    return dataclasses.replace(
        sanitised_vessels(problem),
        grid=grid,
        pressure_external=external,
        wall_viscosity=None if viscosity is None else kept(viscosity, segment, 0.0),
    )


def rest_in_padding(problem: Flow1DProblem, y: FlowState, unloaded: Array) -> FlowState:
    """A state with vessels of the `unloaded` area and outlets at 0 Pa in what pads a problem."""
    slot, real = problem.grid.real, problem.network.real
    if slot is None or real is None:
        return y
    area = kept(y.area, is_real(slot.slot, y.area.shape[0]), unloaded)
    outlet = tuple(
        kept(x, c.node < real.node, 0.0) for c, x in zip(problem.boundary, y.outlet, strict=True)
    )
    return FlowState(area, y.flow, y.passed, outlet)


def cut_state(y: FlowState, problem: Flow1DProblem) -> FlowState:
    """The real entries of a state; `problem` is the real one."""
    grid = problem.grid
    return FlowState(
        area=cut(y.area, grid.n_slots),
        flow=cut(y.flow, grid.n_slots),
        passed=cut(y.passed, grid.n_nodes),
        outlet=tuple(
            cut(x, c.node.shape[0]) for c, x in zip(problem.boundary, y.outlet, strict=True)
        ),
    )


def cut_nodes(passed: Array, problem: Flow1DProblem) -> Array:
    """The columns (k, n) of real grid nodes."""
    array = passed if is_traced(passed) else np.asarray(passed)
    return as_leaf(array[:, : problem.grid.n_nodes])
