"""Where trees leave the fixed vessels, and how much of the flow each is meant to carry."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from .._misc import InputError
from ..geometry import VoxelMesh
from ..network import downstream_sum, parent_segment, VascularNetwork, vessel_territories

# Flow against calibre at a fork of epicardial arteries (Y. Huo, G. S. Kassab 2012, J. R. Soc.
# Interface 9:190).
_CALIBRE_EXPONENT = 7.0 / 3.0


class Roots(eqx.Module):
    """The roots of a forest.

    - `node`: (r,), node of the fixed network.
    - `territory`: (r,), index into `territory_name`.
    - `share`: (r,), target share of the whole flow; sums to one.
    """

    node: Int[np.ndarray, " r"]
    territory: Int[np.ndarray, " r"]
    share: Float[np.ndarray, " r"]
    territory_name: tuple[str, ...] = eqx.field(static=True)


def forest_roots(
    network: VascularNetwork,
    mesh: VoxelMesh,
    *,
    closed: Int[np.ndarray, " k"],
    spacing: float,
    reach: float,
    territory_share: tuple[tuple[str, float], ...] | None,
    left_out: tuple[int, ...] = (),
) -> Roots:
    """Roots at the outlets, and beside vessels that run over the wall, `spacing` from all others.

    The share of a territory is given, or follows from the calibres of its vessels. Inside a
    territory the flow of a vessel divides at each fork in proportion to D^(7/3) of the vessels
    that go on, and along a vessel every tree takes one part and leaves one for each root still to
    come. D is the healthy calibre: a vessel is taken to be at least as wide as what follows it,
    so that a narrowing does not count.

    **Arguments:**

    - `closed`: outlets that carry no tree; `left_out`: inner nodes that carry none.
    - `spacing`: least straight distance of a side root from all other roots, m.
    - `reach`: farthest distance of a side root from the wall, m.
    - `territory_share`: pairs of a territory's name and its share, in any unit.

    **Errors:** [`InputError`][] where no outlet is left, and for shares of unknown territories or
    territories without a share.
    """
    outlet = np.setdiff1d(np.asarray(network.terminals, np.int64), closed)
    if outlet.size == 0:
        raise InputError(
            "the network has no outlet that may carry a tree",
            where="grow_forest",
            expected="at least one outlet over the left ventricle",
            fix="Take an outlet out of `closed`",
        )
    side = _side_roots(network, mesh, outlet, left_out, spacing, reach)
    node = np.concatenate([outlet, side])
    names, territory = vessel_territories(network, node)
    share = _shares_by_calibre(network, node)
    total = np.bincount(territory, share, len(names))
    if territory_share is not None:
        share = share * (_given_shares(names, territory_share) / total)[territory]
    return Roots(node, territory, share, names)


def _given_shares(
    names: tuple[str, ...], given: tuple[tuple[str, float], ...]
) -> Float[np.ndarray, " t"]:
    """Shares by territory; `RCA` also names `RCA (synthetic)`."""
    share = np.zeros(len(names))
    for key, value in given:
        match = [i for i, name in enumerate(names) if name == key or name.startswith(f"{key} (")]
        if not match or not value > 0.0:
            raise InputError(
                f"a share of {value} for {key!r}",
                where="`territory_share`",
                expected=f"a positive share for each of {', '.join(names)}",
                fix="Name the territories as the tree's branches are named",
            )
        share[match[0]] = value
    if not share.all():
        raise InputError(
            f"there is no share for {names[int(np.argmin(share))]}",
            where="`territory_share`",
            expected=f"a positive share for each of {', '.join(names)}",
            fix="Add it, or leave the shares to the calibres",
        )
    return share / share.sum()


def _downwards(network: VascularNetwork) -> Int[np.ndarray, " s"]:
    """The segments of a tree, each before those below it."""
    sweep = np.asarray(network.topology.sweep)[::-1].ravel()
    return sweep[sweep < network.n_segments]


def healthy_radius(network: VascularNetwork) -> Float[np.ndarray, " s"]:
    """For each segment the widest radius (m) on it or anywhere below it."""
    before = parent_segment(network)[np.asarray(network.segment_node)[:, 0]]
    widest = np.asarray(network.radius).max(axis=1)
    for s in _downwards(network)[::-1]:
        if before[s] >= 0:
            widest[before[s]] = max(widest[before[s]], widest[s])
    return widest


def _shares_by_calibre(
    network: VascularNetwork, node: Int[np.ndarray, " r"]
) -> Float[np.ndarray, " r"]:
    """The share of each root in the flow of the whole network, from the inlets down."""
    segment_node = np.asarray(network.segment_node)
    to_come = downstream_sum(network, node, np.ones(node.size))
    weight = np.where(to_come > 0.0, healthy_radius(network) ** _CALIBRE_EXPONENT, 0.0)
    is_root = np.isin(np.arange(network.n_nodes), node)
    leaving = np.bincount(segment_node[:, 0], weight, network.n_nodes)
    inlets = np.asarray(network.roots)
    arriving = np.zeros(network.n_nodes)
    arriving[inlets] = leaving[inlets] / leaving[inlets].sum()
    below = np.bincount(segment_node[:, 0], to_come, network.n_nodes)
    for s in _downwards(network):
        above = segment_node[s, 0]
        if weight[s] > 0.0:
            kept = below[above] / (below[above] + is_root[above])
            arriving[segment_node[s, 1]] = arriving[above] * kept * weight[s] / leaving[above]
    return arriving[node] / (1.0 + below[node])


def _over_the_wall(
    network: VascularNetwork, mesh: VoxelMesh, outlet: Int[np.ndarray, " o"], reach: float
) -> Bool[np.ndarray, " n"]:
    """Inner points of vessels that lie near the wall, above open outlets of one territory only."""
    node = np.asarray(network.segment_node)
    away = KDTree(mesh.centre).query(np.asarray(network.node_position))[0]
    degree = np.bincount(node.ravel(), minlength=network.n_nodes)
    _, territory = vessel_territories(network, outlet)
    first, last = np.full(network.n_nodes, len(outlet)), np.full(network.n_nodes, -1)
    first[outlet], last[outlet] = territory, territory
    for s in _downwards(network)[::-1]:
        above, below = node[s]
        first[above] = min(first[above], first[below])
        last[above] = max(last[above], last[below])
    return (np.asarray(away) <= reach) & (degree == 2) & (first == last)


def _side_roots(
    network: VascularNetwork,
    mesh: VoxelMesh,
    outlet: Int[np.ndarray, " o"],
    left_out: tuple[int, ...],
    spacing: float,
    reach: float,
) -> Int[np.ndarray, " k"]:
    """From the outlets towards the inlets, a root wherever all others lie `spacing` away.

    Distances are straight: where vessels run side by side they share their roots.
    """
    node, position = np.asarray(network.segment_node), np.asarray(network.node_position)
    fit = _over_the_wall(network, mesh, outlet, reach)
    # a root that finds no way into the wall keeps its place, or its neighbours would follow it
    taken = position[np.concatenate([outlet, np.array(left_out, np.int64)])]
    found = []
    for below in node[_downwards(network)[::-1], 1]:
        if fit[below] and np.min(np.sum((taken - position[below]) ** 2, axis=1)) >= spacing**2:
            found.append(int(below))
            taken = np.concatenate([taken, position[below][None]])
    return np.array(sorted(found), np.int64)
