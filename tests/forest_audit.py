"""An independent witness of grown forests: raw arrays, NumPy and SciPy, nothing of the library.

What is checked, and how:

- *overlaps*: two vessels overlap where the distance of their axes is less than the sum of their
  radii, each vessel being a capsule (a cylinder with round ends). Fixed vessels taper: there the
  minimum of |x(s) − y(t)| − r(s) − ρ(t) over both axes is found exactly (it is convex), not by a
  bound. A pair sharing a node is a pair of neighbours and not counted; a pair of which both share
  a node with a third vessel is one of second neighbours.
- *outside*: how far axes and surfaces lie from the nearest box of a wall voxel.
- *structure*: roots, leaves, junctions, cycles; *Murray's law* and *flows* at every junction.
- *coverage*: volumes of the wall nearest to each terminal, terminals by segment of the ventricle.

A forest is `position` (m, 3) of its nodes, each the distal end of its vessel, and `parent` (m,),
the node above or −1−i for root i. Nodes of the fixed network count from m on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

STUB = 0
_ROUND_OFF = 1e-9


@dataclass(frozen=True)
class RawForest:
    """A forest, the fixed vessels and the wall as plain arrays, SI units."""

    position: np.ndarray  # (m, 3)
    parent: np.ndarray  # (m,)
    radius: np.ndarray  # (m,)
    stage: np.ndarray  # (m,); 0 is a stub from a fixed vessel to the wall
    root_position: np.ndarray  # (r, 3)
    root_node: np.ndarray  # (r,), node of the fixed network
    fixed_position: np.ndarray  # (n, 3)
    fixed_node: np.ndarray  # (f, 2)
    fixed_radius: np.ndarray  # (f, 2)
    wall: np.ndarray  # (i, j, k) bool
    affine: np.ndarray  # (4, 4), grid index to m

    @property
    def start(self) -> np.ndarray:
        """(m, 3) where each vessel begins."""
        inside = self.parent >= 0
        above = self.position[np.maximum(self.parent, 0)]
        root = self.root_position[np.maximum(-1 - self.parent, 0)]
        return np.where(inside[:, None], above, root)

    @property
    def start_node(self) -> np.ndarray:
        """(m,) the node there; those of the fixed network count from m on."""
        root = self.root_node[np.maximum(-1 - self.parent, 0)] + len(self.position)
        return np.where(self.parent >= 0, self.parent, root)

    @property
    def length(self) -> np.ndarray:
        return np.linalg.norm(self.position - self.start, axis=1)


def raw_forest(forest, network, mesh) -> RawForest:
    """The arrays of a forest, of the network it grew on and of the voxels of its wall."""
    a = np.asarray
    wall = np.zeros(a(mesh.label).shape, bool)
    wall[tuple(a(mesh.cell_ijk).T)] = True
    root = a(forest.root_node)
    return RawForest(
        a(forest.position),
        a(forest.parent),
        a(forest.radius),
        a(forest.stage),
        a(network.node_position)[root],
        root,
        a(network.node_position),
        a(network.segment_node),
        a(network.radius),
        wall,
        a(mesh.affine),
    )


# ---------------------------------------------------------------- distances


def segment_distance(a0, a1, b0, b1) -> np.ndarray:
    """(n,) distances between segments a0–a1 and b0–b1, (n, 3) each; points are segments too.

    The minimum lies inside both, where the lines are not parallel, or at one of four ends.
    """
    best = np.minimum(point_distance(a0, b0, b1), point_distance(a1, b0, b1))
    best = np.minimum(best, point_distance(b0, a0, a1))
    best = np.minimum(best, point_distance(b1, a0, a1))
    u, v, w = a1 - a0, b1 - b0, a0 - b0
    uu, vv, uv = _dot(u, u), _dot(v, v), _dot(u, v)
    wu, wv = _dot(w, u), _dot(w, v)
    determinant = uu * vv - uv**2
    crossing = determinant > 1e-14 * uu * vv
    below = np.where(crossing, determinant, 1.0)
    s, t = (uv * wv - vv * wu) / below, (uu * wv - uv * wu) / below
    inside = crossing & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    gap = np.linalg.norm(w + s[:, None] * u - t[:, None] * v, axis=1)
    return np.where(inside, np.minimum(best, gap), best)


def point_distance(p, b0, b1) -> np.ndarray:
    """(n,) distances of points from segments."""
    v = b1 - b0
    vv = _dot(v, v)
    t = np.clip(_dot(p - b0, v) / np.where(vv > 0, vv, 1.0), 0.0, 1.0)
    return np.linalg.norm(p - b0 - t[:, None] * v, axis=1)


def tapered_gap(a0, a1, ra, b0, b1, rb) -> np.ndarray:
    """(n,) minima of |x(s) − y(t)| − r(s) − ρ(t): below zero where two round cones overlap.

    `ra`, `rb` (n, 2) radii at both ends. Jointly convex in (s, t): the inner minimum over t is in
    closed form, the outer one by golden section.
    """
    golden = 0.5 * (np.sqrt(5.0) - 1.0)
    at = lambda s: _gap_from_sphere(
        a0 + s[:, None] * (a1 - a0), ra[:, 0] + s * (ra[:, 1] - ra[:, 0]), b0, b1, rb
    )
    low, high = np.zeros(len(a0)), np.ones(len(a0))
    best = np.minimum(at(low), at(high))
    for _ in range(60):
        left, right = high - golden * (high - low), low + golden * (high - low)
        at_left, at_right = at(left), at(right)
        best = np.minimum(best, np.minimum(at_left, at_right))
        keep_left = at_left <= at_right
        high, low = np.where(keep_left, right, high), np.where(keep_left, low, left)
    return best


def _gap_from_sphere(p, r, b0, b1, rb) -> np.ndarray:
    """min over t of |p − y(t)| − ρ(t), less r."""
    length = np.linalg.norm(b1 - b0, axis=1)
    v = (b1 - b0) / np.where(length > 0, length, 1.0)[:, None]
    foot = _dot(p - b0, v)
    height = np.linalg.norm(p - b0 - foot[:, None] * v, axis=1)
    slope = (rb[:, 1] - rb[:, 0]) / np.where(length > 0, length, 1.0)
    steep = np.abs(slope) >= 1.0
    lean = np.where(steep, 0.0, slope)
    shift = np.where(steep, np.copysign(np.inf, slope), lean * height / np.sqrt(1.0 - lean**2))
    x = np.clip(foot + shift, 0.0, length)
    inner = np.hypot(height, x - foot) - rb[:, 0] - slope * x
    # a segment of no length is the larger of its two spheres
    point = np.linalg.norm(p - b0, axis=1) - rb.max(axis=1)
    return np.where(length > 0, inner, point) - r


def _dot(a, b) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


# ---------------------------------------------------------------- overlaps


def close_pairs(start, end, reach) -> np.ndarray:
    """(q, 2) all pairs of segments, first < second, whose capsules of radius `reach` may meet.

    Segments are cut into pieces not much longer than wide; pieces of like size share a tree.
    """
    length = np.linalg.norm(end - start, axis=1)
    piece = np.maximum(2.0 * reach, np.median(length))
    count = np.maximum(np.ceil(length / piece), 1).astype(np.int64)
    owner = np.repeat(np.arange(len(start)), count)
    first = np.cumsum(count) - count
    share = (np.arange(len(owner)) - first[owner] + 0.5) / count[owner]
    middle = start[owner] + share[:, None] * (end - start)[owner]
    size = (0.5 * length / count + reach)[owner]
    classes = np.floor(np.log2(size)).astype(np.int64)
    levels = [np.flatnonzero(classes == c) for c in np.unique(classes)]
    trees = [KDTree(middle[member]) for member in levels]
    found = []
    for i, a in enumerate(levels):
        for j in range(i + 1):
            b = levels[j]
            near = trees[i].sparse_distance_matrix(
                trees[j], size[a].max() + size[b].max(), output_type="ndarray"
            )
            one, two = a[near["i"]], b[near["j"]]
            near = near["v"] <= size[one] + size[two]
            one, two = owner[one[near]], owner[two[near]]
            pair = np.minimum(one, two) * np.int64(len(start)) + np.maximum(one, two)
            found.append(np.unique(pair[one != two]))
    return np.stack(np.divmod(np.unique(np.concatenate(found)), len(start)), axis=1)


@dataclass(frozen=True)
class Overlaps:
    """Pairs that overlap, as (q, 2) indices; fixed vessel f has the index m + f.

    `other`: no neighbours, both grown. `second`: second neighbours, at least one grown. `fixed`:
    grown vessels that are no stubs with fixed ones. `stub_own`: stubs with fixed vessels that
    reach the very place where the stub begins, which no stub can avoid; `stub_fixed`: with others.
    """

    other: np.ndarray
    second: np.ndarray
    fixed: np.ndarray
    stub_own: np.ndarray
    stub_fixed: np.ndarray


def overlaps(raw: RawForest, round_off: float = _ROUND_OFF) -> Overlaps:
    """All overlapping pairs; vessels that touch to within `round_off` of their radii do not."""
    m = len(raw.position)
    ends = raw.fixed_position[raw.fixed_node]
    start, end = np.concatenate([raw.start, ends[:, 0]]), np.concatenate([raw.position, ends[:, 1]])
    radius = np.concatenate([np.stack([raw.radius] * 2, axis=1), raw.fixed_radius])
    node = np.concatenate(
        [np.stack([raw.start_node, np.arange(m)], axis=1), raw.fixed_node + m]
    ).astype(np.int64)
    pair = close_pairs(start, end, radius.max(axis=1))
    pair = pair[pair[:, 0] < m]
    i, j = pair.T
    gap = segment_distance(start[i], end[i], start[j], end[j]) - raw.radius[i]
    low = gap - radius[j].max(axis=1)
    tapered = np.flatnonzero((j >= m) & (low < 0) & (radius[j, 0] != radius[j, 1]))
    low[tapered] = tapered_gap(
        *(x[tapered] for x in (start[i], end[i], radius[i], start[j], end[j], radius[j]))
    )
    pair = pair[low < -round_off * (raw.radius[i] + radius[j].min(axis=1))]
    share, second = _kinship(node, pair)
    i, j = pair.T
    stub = (j >= m) & (raw.stage[i] == STUB)
    own = np.zeros(len(pair), bool)
    at, against = i[stub], j[stub]
    here = start[at]
    reach = tapered_gap(here, here, radius[at], start[against], end[against], radius[against])
    own[stub] = (reach < 0) | share[stub]
    grown = ~share & ~stub
    return Overlaps(
        other=pair[grown & ~second & (j < m)],
        second=pair[grown & second],
        fixed=pair[grown & ~second & (j >= m)],
        stub_own=pair[stub & own],
        stub_fixed=pair[stub & ~own],
    )


def _kinship(node, pair) -> tuple[np.ndarray, np.ndarray]:
    """Which pairs share a node, and which have a vessel from a node of one to one of the other."""
    n = np.int64(node.max() + 1)
    known = np.unique(node.min(axis=1) * n + node.max(axis=1))
    share, second = np.zeros(len(pair), bool), np.zeros(len(pair), bool)
    for one in (0, 1):
        for two in (0, 1):
            a, b = node[pair[:, 0], one], node[pair[:, 1], two]
            share |= a == b
            second |= np.isin(np.minimum(a, b) * n + np.maximum(a, b), known)
    return share, second & ~share


# ---------------------------------------------------------------- the wall


def wall_distance(point, wall, affine) -> np.ndarray:
    """(n,) distances (m) from the nearest box of a wall voxel, 0 inside one; axes orthogonal."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    index = np.linalg.solve(affine[:3, :3], (point - affine[:3, 3]).T).T
    distance = np.full(len(point), np.inf)
    ring = np.arange(-2, 3)
    near = np.stack(np.meshgrid(ring, ring, ring, indexing="ij"), axis=-1).reshape(-1, 3)
    # nearest first, so that what lies inside is done at once
    near = near[np.argsort(np.abs(near).sum(axis=1), kind="stable")]
    cell, todo = np.round(index).astype(np.int64), np.arange(len(point))
    for offset in near:
        at = cell[todo] + offset
        valid = ((at >= 0) & (at < wall.shape)).all(axis=1)
        hit = valid.copy()
        hit[valid] = wall[tuple(at[valid].T)]
        beyond = np.maximum(np.abs(index[todo[hit]] - at[hit]) - 0.5, 0.0) * spacing
        distance[todo[hit]] = np.minimum(distance[todo[hit]], np.linalg.norm(beyond, axis=1))
        todo = todo[distance[todo] > 0]
    # boxes beyond the window are at least two voxels away
    far = np.flatnonzero(distance > 2.0 * spacing.min())
    if far.size:
        boxes = np.argwhere(wall)
        tree = KDTree(boxes * spacing)
        place = index[far] * spacing
        reach = tree.query(place)[0] + 0.5 * np.linalg.norm(spacing)
        for k, candidates in zip(far, tree.query_ball_point(place, reach), strict=True):
            beyond = np.maximum(np.abs(index[k] - boxes[candidates]) - 0.5, 0.0) * spacing
            distance[k] = np.linalg.norm(beyond, axis=1).min()
    return distance


@dataclass(frozen=True)
class Outside:
    """Largest distance (m) of each vessel's axis and surface from the wall, (m,) each."""

    axis: np.ndarray
    surface: np.ndarray
    voxel: float
    stub: np.ndarray

    def share(self, of: str, voxels: float = 0.5) -> float:
        """Share of the vessels that are no stubs with `of` farther out than so many voxels."""
        # points at exactly half a voxel are computed to within round-off
        limit = voxels * self.voxel * (1 + _ROUND_OFF)
        return float(np.mean(getattr(self, of)[~self.stub] > limit))


def outside(raw: RawForest, n_ring: int = 12) -> Outside:
    """How far each vessel leaves the wall: points every quarter voxel, and rings about them."""
    voxel = float(np.linalg.norm(raw.affine[:3, :3], axis=0).min())
    start, length = raw.start, raw.length
    count = np.ceil(length / (0.25 * voxel)).astype(np.int64) + 1
    owner = np.repeat(np.arange(len(start)), count)
    first = np.cumsum(count) - count
    share = (np.arange(len(owner)) - first[owner]) / np.maximum(count - 1, 1)[owner]
    way = raw.position - start
    axis = start[owner] + share[:, None] * way[owner]
    along = way / np.where(length > 0, length, 1.0)[:, None]
    side = np.cross(along, np.eye(3)[np.argmin(np.abs(along), axis=1)])
    side /= np.maximum(np.linalg.norm(side, axis=1), 1e-300)[:, None]
    other = np.cross(along, side)
    farthest = np.zeros((2, len(start)))
    np.maximum.at(farthest[0], owner, wall_distance(axis, raw.wall, raw.affine))
    farthest[1] = farthest[0]
    for angle in 2.0 * np.pi * np.arange(n_ring) / n_ring:
        turned = raw.radius[:, None] * (np.cos(angle) * side + np.sin(angle) * other)
        out = wall_distance(axis + turned[owner], raw.wall, raw.affine)
        np.maximum.at(farthest[1], owner, out)
    return Outside(farthest[0], farthest[1], voxel, raw.stage == STUB)


# ---------------------------------------------------------------- structure and conservation


def faults(raw: RawForest, n_terminals: int) -> list[str]:
    """What is wrong with the forest as a set of trees; empty where nothing is."""
    m, parent = len(raw.position), raw.parent
    found = []
    if np.any(parent >= m) or np.any(-1 - parent >= len(raw.root_node)):
        return ["a parent is no node and no root"]
    if not all(np.isfinite(x).all() for x in (raw.position, raw.radius)):
        found.append("a position or radius is not finite")
    if np.any(raw.radius <= 0):
        found.append("a radius is not positive")
    if np.any(raw.length <= 0):
        found.append("a vessel has no length")
    if len(depth_first(parent)) < m:
        found.append("a node hangs on no root: a cycle")
    children = np.bincount(parent[parent >= 0], minlength=m)
    if np.any(children > 2):
        found.append("a node has more than two children")
    bend = np.flatnonzero((children == 1) & (raw.stage != STUB))
    if len(np.unique(_roots_above(parent)[bend])) < len(bend):
        found.append("a tree has two bends: nodes with one child that end no stub")
    if np.any((children == 0) & (raw.stage == STUB)):
        found.append("a stub ends in nothing")
    hanging = np.bincount(-1 - parent[parent < 0], minlength=len(raw.root_node))
    if np.any(hanging != 1):
        found.append("a root has not exactly one stub")
    if np.any((parent < 0) != (raw.stage == STUB)):
        found.append("stubs are not the vessels at the roots")
    if int(np.sum(children == 0)) != n_terminals:
        found.append(f"{int(np.sum(children == 0))} terminals instead of {n_terminals}")
    return found


def _roots_above(parent) -> np.ndarray:
    """The root each node hangs on."""
    root = np.where(parent < 0, -1 - parent, -1)
    for k in depth_first(parent):
        if parent[k] >= 0:
            root[k] = root[parent[k]]
    return root


def depth_first(parent) -> np.ndarray:
    """Nodes with every node after its parent; those of cycles are missing."""
    below: list[list[int]] = [[] for _ in parent]
    todo = []
    for k, p in enumerate(parent.tolist()):
        (below[p] if p >= 0 else todo).append(k)
    order = []
    while todo:
        k = todo.pop()
        order.append(k)
        todo += below[k]
    return np.array(order, np.int64)


def terminals(parent) -> np.ndarray:
    """Nodes without children."""
    return np.flatnonzero(np.bincount(parent[parent >= 0], minlength=len(parent)) == 0)


def flows_below(parent, terminal_flow) -> np.ndarray:
    """(m,) the sum of the terminals' flows below each node; flows in the order of the nodes."""
    flow = np.zeros(len(parent))
    flow[terminals(parent)] = terminal_flow
    for k in depth_first(parent)[::-1].tolist():
        if parent[k] >= 0:
            flow[parent[k]] += flow[k]
    return flow


def junction_error(parent, flow) -> float:
    """Largest |flow in − flow out| / flow in over the nodes with children."""
    inner = parent >= 0
    out = np.bincount(parent[inner], weights=flow[inner], minlength=len(parent))
    has = np.bincount(parent[inner], minlength=len(parent)) > 0
    return float(np.max(np.abs(flow - out)[has] / flow[has], initial=0.0))


def murray_error(raw: RawForest, law: float | Callable[[np.ndarray], np.ndarray]) -> float:
    """Largest relative error of g(r) = Σ g(r_child); g = r^γ for a number γ."""
    g = law if callable(law) else lambda r: r**law
    return junction_error(raw.parent, np.asarray(g(raw.radius)))


def calibre_error(raw: RawForest, law: float | Callable[[np.ndarray], np.ndarray]) -> float:
    """Largest relative difference of g(r) / g(r of the terminals) from the terminals below.

    Where every terminal takes the same flow, this is how far calibres are from the flow they
    stand for; stricter than Murray's law, which holds for any flows.
    """
    g = law if callable(law) else lambda r: r**law
    leaf = terminals(raw.parent)
    count = flows_below(raw.parent, np.ones(len(leaf)))
    return float(np.max(np.abs(g(raw.radius) / np.mean(g(raw.radius[leaf])) / count - 1.0)))


def root_flow_error(raw: RawForest, terminal_flow) -> float:
    """|Σ flow at the roots − Σ flow of the terminals| over the latter."""
    flow, total = flows_below(raw.parent, terminal_flow), float(np.sum(terminal_flow))
    return abs(float(flow[raw.parent < 0].sum()) - total) / total


def volume(raw: RawForest) -> float:
    """Σ πr²l, m³."""
    return float(np.sum(np.pi * raw.radius**2 * raw.length))


# ---------------------------------------------------------------- coverage


def territory_volumes(raw: RawForest, level: int = 3) -> np.ndarray:
    """(t,) volume of the wall nearest to each terminal, from level³ points in each voxel."""
    offset = (np.arange(level) + 0.5) / level - 0.5
    box = np.stack(np.meshgrid(offset, offset, offset, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = np.argwhere(raw.wall)
    leaf = raw.position[terminals(raw.parent)]
    tree, counts = KDTree(leaf), np.zeros(len(leaf))
    for move in box:
        point = (cells + move) @ raw.affine[:3, :3].T + raw.affine[:3, 3]
        counts += np.bincount(tree.query(point)[1], minlength=len(leaf))
    return counts * abs(np.linalg.det(raw.affine[:3, :3])) / level**3


def variation(value) -> float:
    """Coefficient of variation."""
    return float(np.std(value) / np.mean(value))


def segment_density(point, cell_centre, cell_volume, cell_segment) -> dict[int, float]:
    """Terminals per volume in each segment of the ventricle over the mean of the whole wall.

    A terminal belongs to the segment of the cell nearest to it.
    """
    of = cell_segment[KDTree(cell_centre).query(point)[1]]
    mean = len(point) / cell_volume.sum()
    return {
        int(k): float(np.sum(of == k) / cell_volume[cell_segment == k].sum() / mean)
        for k in np.unique(cell_segment)
    }
