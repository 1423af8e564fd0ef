"""A seeded bifurcating forest below given vessels: a stand-in for grown trees.

It is made for measuring: as many terminals, vessels and generations as a grown forest, reproducible
from a seed in a second, but no claim to anatomy. Vessels may cross each other and the cavity.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

# Where the first bifurcation of a set of terminals lies: this part of the way to their centroid.
_ADVANCE = 0.55
# A child takes between this and one minus this of its parent's terminals.
_SMALLEST_SHARE = 0.3
_SHORTEST = 1e-5


@dataclass(frozen=True)
class Forest:
    """Vessels below the attachments, to be appended to a network with `n_existing` nodes.

    `segment` (s, 2) uses the numbers of the joined network; `radius`, `length` (s,) m; `owner`
    (s,) the attachment each vessel hangs on; `terminal` (t,) nodes and `terminal_owner`.
    """

    position: np.ndarray
    segment: np.ndarray
    radius: np.ndarray
    length: np.ndarray
    owner: np.ndarray
    terminal: np.ndarray
    terminal_owner: np.ndarray


def sample_terminals(mesh, n_terminals: int, rng: np.random.Generator) -> np.ndarray:
    """Points evenly spread in the wall: a farthest-first choice among a few random candidates."""
    chosen = rng.choice(mesh.n_cells, 4 * n_terminals, p=mesh.volume / mesh.volume.sum())
    size = np.cbrt(mesh.volume[chosen])[:, None]
    candidate = mesh.centre[chosen] + size * (rng.random((chosen.size, 3)) - 0.5)
    # Drop, one crowd after the other, the candidates that lie closest to another one.
    while len(candidate) > n_terminals:
        distance = KDTree(candidate).query(candidate, k=2)[0][:, 1]
        drop = min(len(candidate) - n_terminals, max(1, len(candidate) // 8))
        candidate = np.delete(candidate, np.argsort(distance, kind="stable")[:drop], axis=0)
    return candidate


def share_terminals(
    point: np.ndarray, attachment: np.ndarray, territory: np.ndarray, share: np.ndarray
) -> np.ndarray:
    """The attachment of each terminal: the nearest one, territories offset to get their shares.

    The offsets w of |x − a|² − w are the dual variables of the optimal assignment; they are found
    by ascent.
    """
    distance, nearest = [], []
    for t in range(len(share)):
        member = np.flatnonzero(territory == t)
        d, i = KDTree(attachment[member]).query(point)
        distance.append(d**2)
        nearest.append(member[i])
    square, weight = np.stack(distance, axis=1), np.zeros(len(share))
    for k in range(400):
        of = np.argmin(square - weight, axis=1)
        gap = share - np.bincount(of, minlength=len(share)) / len(point)
        weight = weight + 3e-3 / (1 + 0.02 * k) * gap
    of = np.argmin(square - weight, axis=1)
    return np.stack(nearest, axis=1)[np.arange(len(point)), of]


def grow_forest(
    point: np.ndarray,
    owner: np.ndarray,
    attachment: np.ndarray,
    attachment_node: np.ndarray,
    *,
    n_existing: int,
    terminal_radius: float,
    exponent: float,
    rng: np.random.Generator,
) -> Forest:
    """Divide each attachment's terminals in two again and again across their widest extent.

    Radii follow Murray's law r^γ = Σ r_child^γ from the uniform terminal radius.
    """
    position: list[np.ndarray] = []
    rows: list[tuple[int, int, int, int]] = []
    terminal = np.full(len(point), -1, np.int64)
    stack = [
        (np.flatnonzero(owner == a), int(attachment_node[a]), attachment[a], a)
        for a in range(len(attachment))
    ]
    while stack:
        member, parent, origin, a = stack.pop()
        if member.size == 0:
            continue
        node = n_existing + len(position)
        centroid = point[member].mean(axis=0)
        alone = member.size == 1
        here = point[member[0]] if alone else origin + _ADVANCE * (centroid - origin)
        position.append(here)
        rows.append((parent, node, member.size, a))
        if alone:
            terminal[member[0]] = node
            continue
        for part in _halves(point, member, centroid, rng):
            stack.append((part, node, here, a))
    row = np.array(rows, np.int64)
    everywhere = np.stack(position)
    start = np.where(
        row[:, :1] < n_existing, 0.0, everywhere[np.maximum(row[:, 0] - n_existing, 0)]
    )
    trunk = row[:, 0] < n_existing
    start[trunk] = attachment[row[trunk, 3]]
    chord = np.linalg.norm(everywhere[row[:, 1] - n_existing] - start, axis=1)
    return Forest(
        position=everywhere,
        segment=row[:, :2],
        radius=terminal_radius * row[:, 2] ** (1.0 / exponent),
        length=np.maximum(chord, _SHORTEST),
        owner=row[:, 3],
        terminal=terminal,
        terminal_owner=owner,
    )


def _halves(point, member, centroid, rng):
    """Cut a set across its widest direction at a seeded share."""
    x = point[member] - centroid
    along = x @ np.linalg.eigh(x.T @ x)[1][:, -1]
    order = member[np.argsort(along, kind="stable")]
    share = rng.uniform(_SMALLEST_SHARE, 1.0 - _SMALLEST_SHARE)
    cut = int(np.clip(round(share * member.size), 1, member.size - 1))
    return order[:cut], order[cut:]
