"""The sites by which terminals attract tissue."""

import numpy as np
from jaxtyping import Float, Int

from ..network import parent_segment, VascularNetwork

_SITE_SPACING = 2e-3


def terminal_sites(
    network: VascularNetwork,
    terminal: Int[np.ndarray, " t"],
    reach: Float[np.ndarray, " t"] | float,
) -> tuple[Float[np.ndarray, "p 3"], Int[np.ndarray, " p"], Float[np.ndarray, " p"]]:
    """Points on each terminal vessel, from its end back to its junction or as far as `reach` (m).

    A terminal perfuses what lies along its vessel and not only what lies about its end. All
    terminals climb together, one segment at a time.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    site, owner, width = jp.anatomy.terminal_sites(tree, np.asarray(tree.terminals), 0.02)
    ```
    """
    node, position = np.asarray(network.segment_node), np.asarray(network.node_position)
    radius, into = np.asarray(network.radius), parent_segment(network)
    degree = np.bincount(node.ravel(), minlength=network.n_nodes)
    reach = np.broadcast_to(np.asarray(reach, np.float64), terminal.shape)
    site, owner = [position[terminal]], [np.arange(len(terminal))]
    width = [radius[into[terminal], 1]]
    climbing = np.flatnonzero(reach > 0.0)
    end, gone = terminal[climbing].astype(np.int64), np.zeros(len(climbing))
    while len(climbing):
        s = into[end]
        a, b = position[node[s, 1]], position[node[s, 0]]
        chord = np.linalg.norm(b - a, axis=1)
        count = np.ceil(chord / _SITE_SPACING).astype(np.int64)
        own = np.repeat(np.arange(len(s)), count)
        step = (
            1 + np.arange(len(own)) - np.repeat(np.cumsum(count) - count, count)
        ) * _SITE_SPACING
        # the junction itself belongs to no single terminal
        kept = (step < chord[own]) & (gone[own] + step <= reach[climbing[own]])
        own, share = own[kept], (step[kept] / chord[own[kept]])[:, None]
        site.append(a[own] + share * (b - a)[own])
        width.append((1.0 - share[:, 0]) * radius[s[own], 1] + share[:, 0] * radius[s[own], 0])
        owner.append(climbing[own])
        end, gone = node[s, 0].astype(np.int64), gone + chord
        on = (into[end] >= 0) & (gone < reach[climbing]) & (degree[end] == 2)
        climbing, end, gone = climbing[on], end[on], gone[on]
    order = np.argsort(np.concatenate(owner), kind="stable")
    return (
        np.concatenate(site)[order],
        np.concatenate(owner)[order],
        np.concatenate(width)[order],
    )
