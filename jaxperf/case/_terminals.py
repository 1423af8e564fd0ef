"""Terminals: the sites that attract tissue, the tissue below each vessel, vessel territories."""

import numpy as np
from jaxtyping import Float, Int

from ..network import VascularNetwork

_LEFT_MAIN = {"lm", "lmca", "left main"}
_SITE_SPACING = 2e-3


def parent_segment(network: VascularNetwork) -> Int[np.ndarray, " n"]:
    """The segment that leads to each node; -1 at a root."""
    into = np.full(network.n_nodes, -1, np.int64)
    into[np.asarray(network.segment_node)[:, 1]] = np.arange(network.n_segments)
    return into


def terminal_sites(
    network: VascularNetwork, terminal: Int[np.ndarray, " t"], reach: float
) -> tuple[Float[np.ndarray, "p 3"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Points on each terminal vessel, from its end back to its junction or as far as `reach` (m).

    A terminal perfuses what lies along its vessel and not only what lies about its end.
    """
    node, position = np.asarray(network.segment_node), np.asarray(network.node_position)
    radius = np.asarray(network.radius)
    into = parent_segment(network)
    degree = np.bincount(node.ravel(), minlength=network.n_nodes)
    sites, owner, width = [], [], []
    for t, leaf in enumerate(terminal.tolist()):
        end, gone = leaf, 0.0
        sites.append(position[leaf])
        width.append(radius[into[leaf], 1])
        owner.append(t)
        while into[end] >= 0 and gone < reach and (end == leaf or degree[end] == 2):
            s = into[end]
            a, b = position[node[s, 1]], position[node[s, 0]]
            chord = float(np.linalg.norm(b - a))
            # the junction itself belongs to no single terminal
            steps = np.arange(1, max(2, int(np.ceil(chord / _SITE_SPACING)))) * _SITE_SPACING
            for step in steps[(gone + steps <= reach) & (steps < chord)]:
                share = step / chord
                sites.append(a + share * (b - a))
                width.append((1.0 - share) * radius[s, 1] + share * radius[s, 0])
                owner.append(t)
            gone += chord
            end = int(node[s, 0])
    return np.array(sites), np.array(owner, np.int64), np.array(width)


def vessel_territories(
    network: VascularNetwork, terminal: Int[np.ndarray, " t"]
) -> tuple[tuple[str, ...], Int[np.ndarray, " t"]]:
    """The first branch below the left main (or the root) on the way to each terminal."""
    into, branch = parent_segment(network), np.asarray(network.branch)
    node = np.asarray(network.segment_node)
    names: list[str] = []
    number = []
    for leaf in terminal.tolist():
        way, at = [], leaf
        while into[at] >= 0:
            way.append(network.branch_name[int(branch[into[at]])])
            at = int(node[into[at], 0])
        first = next((n for n in reversed(way) if n.lower() not in _LEFT_MAIN), way[-1])
        if first not in names:
            names.append(first)
        number.append(names.index(first))
    return tuple(names), np.array(number, np.int64)


def downstream(
    network: VascularNetwork, terminal: Int[np.ndarray, " t"], amount: Float[np.ndarray, " t"]
) -> Float[np.ndarray, " s"]:
    """The sum of an amount over the terminals below each segment."""
    into, node = parent_segment(network), np.asarray(network.segment_node)
    total = np.zeros(network.n_segments)
    for leaf, value in zip(terminal.tolist(), amount.tolist(), strict=True):
        at = leaf
        while into[at] >= 0:
            total[into[at]] += value
            at = int(node[into[at], 0])
    return total
