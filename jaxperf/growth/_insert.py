"""Constrained constructive optimisation: adds terminals to the trees one after the other."""

from typing import NamedTuple, no_type_check

import numba
import numpy as np

from ._murray import radius_of
from ._numbers import fraction, least_of, scrambled
from ._space import cells_of, distance, empty_grid, enter, leave, point_segment, segment_segment
from ._wall import stays_inside, trilinear

# How a call to `insert_sites` ends.
FINISHED, FULL = 0, 1
# Free entries of the grid that one insertion may need.
_HEADROOM = 1 << 14
# Vessels are entered in the grid this much wider than they are, so that they may widen in place.
_ENTERED_WIDER = 1.3
# Surfaces keep this part of the sum of two radii apart while the trees grow.
_APART = 1.05
# By level of the search: candidates compared, least length of a vessel over its parent's radius,
# places tried for the terminal, how far they lie about its site over the distance of sites, and
# whether they may lie about any site of the tree. In the last one neighbours take any number.
_CANDIDATES = np.array([16, 40, 240, 60, 240])
_LEAST_LENGTH = np.array([1.0, 0.6, 0.3, 0.3, 0.3])
_PLACES = np.array([3, 8, 24, 400, 400])
_AWAY = np.array([0.4, 0.8, 1.6, 2.0, 2.0])
_ANYWHERE = np.array([False, False, False, True, True])
# The fork is first tried where it adds least volume, then nearer to the vessel it splits.
_PULLS = np.array([1.0, 0.3, 0.05])
WIDEST = _CANDIDATES.size - 1
_FOUND = 2048
_FEW = 40  # a tree with fewer vessels is searched whole
# Squared distance to a vessel's old neighbours that its parts keep, over the old one.
_AS_BEFORE = 0.96
_RINGS = 6
_NOWHERE = -(1 << 40)  # no node: parents of stubs are −1, −2, …
# A tree may take over this part of its own terminals from its neighbours, or lose it to them.
EXCHANGE = 0.04


class Growth(NamedTuple):
    """The state of growing trees; vessel k leads to node k and is followed by the fixed vessels.

    - `tip`, `tail` (a, 3), `radius`, `entered` (a,): ends and radius of each vessel, and the
      radius it has in the grid; m.
    - `tree` (a,): −1 for fixed vessels. `parent` (m,), `child` (m, 2), `count` (m,) terminals
      below, `stage` (m,).
    - `older` (m,), `newest` (r,): the vessels of each tree as a linked list.
    - `taken`, `gained`, `lost` (r,): terminals each tree has, and has from and lost to neighbours.
    - `stamp` (a,), `clock` (1,): vessels seen in the present search.
    - `known`, `path` (m,): scratch of the search.
    - `used` (1,): nodes in use. `terminal` (n,): node of each site, −1 where it has none yet.
    """

    tip: np.ndarray
    tail: np.ndarray
    radius: np.ndarray
    entered: np.ndarray
    tree: np.ndarray
    parent: np.ndarray
    child: np.ndarray
    count: np.ndarray
    stage: np.ndarray
    older: np.ndarray
    newest: np.ndarray
    taken: np.ndarray
    gained: np.ndarray
    lost: np.ndarray
    stamp: np.ndarray
    clock: np.ndarray
    known: np.ndarray
    path: np.ndarray
    used: np.ndarray
    terminal: np.ndarray


class Plan(NamedTuple):
    """What growth works from and does not change.

    - `law` (7,): of [`BranchingLaw`][] for flows counted in terminals; `log` (n + 2,): ln of 0, 1,
      2, …
    - `site` (n, 3), `site_tree` (n,); `planned` (r,): terminals of each tree.
    - `territory` (r,): vessel territory of each tree. `spread` (1,): distance of sites, m.
    """

    law: np.ndarray
    log: np.ndarray
    site: np.ndarray
    site_tree: np.ndarray
    planned: np.ndarray
    territory: np.ndarray
    spread: np.ndarray


@numba.njit(cache=True)
@no_type_check
def insert_sites(growth, grid, wall, plan, queue, start, stop, level, conduit, failed, cells):
    """Insert the sites queue[start:stop]; those without a place go to `failed`.

    **Returns:** how it ended, the next index of the queue, and how many failed.
    """
    n_failed = 0
    found = np.empty(_FOUND, np.int64)
    near = np.empty(_FOUND)
    for q in range(start, stop):
        if grid.link.size - grid.free[1] < _HEADROOM:
            return FULL, q, n_failed
        site = queue[q]
        if not _insert(growth, grid, wall, plan, site, level, conduit, found, near, cells):
            failed[n_failed] = site
            n_failed += 1
    return FINISHED, stop, n_failed


@numba.njit(cache=True)
@no_type_check
def _insert(growth, grid, wall, plan, site, level, conduit, found, near, cells):
    own = plan.site_tree[site]
    x = plan.site[site].copy()
    seed = np.uint64(site * 64 + 1)
    for attempt in range(_PLACES[level]):
        if attempt > 0:
            about = site
            if _ANYWHERE[level]:
                # another site of the tree: they are numbered tree by tree
                seed = scrambled(seed)
                first = np.searchsorted(plan.site_tree, own)
                about = first + int(fraction(seed) * plan.planned[own])
            for k in range(3):
                seed = scrambled(seed)
                x[k] = plan.site[about, k] + _AWAY[level] * plan.spread[0] * (fraction(seed) - 0.5)
            if _ANYWHERE[level] and _crowded(growth, plan, own, x, attempt):
                continue
            if trilinear(wall.clearance, wall.spacing, x[0], x[1], x[2]) < radius_of(0.0, plan.law):
                continue
        scale = _share(plan.log, plan.planned, growth.taken, own)
        r = radius_of(scale, plan.law)
        if not _clear(growth, grid, x, x, r, _NOWHERE, _NOWHERE, False, cells):
            continue
        if _branch(growth, grid, wall, plan, site, x, own, level, conduit, found, near, cells):
            return True
    return False


@numba.njit(cache=True)
@no_type_check
def _crowded(growth, plan, own, x, attempt):
    """Whether another terminal of the tree is near; what counts as near shrinks as tries go on."""
    near = plan.spread[0] * (0.9 if attempt < 150 else 0.6)
    node = growth.newest[own]
    while node >= 0:
        if growth.child[node, 0] < 0 and distance(growth.tip[node], x) < near:
            return True
        node = growth.older[node]
    return False


@numba.njit(cache=True)
@no_type_check
def enter_vessel(growth, grid, vessel, cells):
    growth.entered[vessel] = _ENTERED_WIDER * growth.radius[vessel]
    n = cells_of(grid, growth.tail[vessel], growth.tip[vessel], growth.entered[vessel], cells)
    enter(grid, vessel, cells, n)


@numba.njit(cache=True)
@no_type_check
def leave_vessel(growth, grid, vessel, cells):
    n = cells_of(grid, growth.tail[vessel], growth.tip[vessel], growth.entered[vessel], cells)
    leave(grid, vessel, cells, n)


@numba.njit(cache=True)
@no_type_check
def enter_all(growth, grid, vessels, cells):
    """Enter vessels in the grid."""
    for vessel in vessels:
        enter_vessel(growth, grid, vessel, cells)


@numba.njit(cache=True)
@no_type_check
def _count_entries(growth, grid, vessels, cells):
    total = 0
    for k in vessels:
        reach = _ENTERED_WIDER * growth.radius[k]
        total += cells_of(grid, growth.tail[k], growth.tip[k], reach, cells)
    return total


def filled_grid(growth, low, high, size, vessels):
    """A grid over a box with some vessels in it, and room for as many entries again and more."""
    cells = np.empty(1 << 16, np.int64)
    needed = _count_entries(growth, empty_grid(low, high, size, 1), vessels, cells)
    grid = empty_grid(low, high, size, 2 * needed + 8 * _HEADROOM)
    enter_all(growth, grid, vessels, cells)
    return grid


@numba.njit(cache=True)
@no_type_check
def _new_node(growth, x, parent, tree, stage, count):
    node = growth.used[0]
    growth.used[0] += 1
    growth.tip[node] = x
    growth.tail[node] = growth.tip[parent]
    growth.parent[node] = parent
    growth.tree[node] = tree
    growth.stage[node] = stage
    growth.count[node] = count
    growth.older[node] = growth.newest[tree]
    growth.newest[tree] = node
    return node


@numba.njit(cache=True)
@no_type_check
def plant(growth, grid, wall, plan, sites, conduit, cells):
    """The first vessel of a tree: straight from its entry to the first of the sites it reaches."""
    for site in sites:
        own = plan.site_tree[site]
        entry, x = growth.tip[own], plan.site[site]
        r = radius_of(plan.log[plan.planned[own]], plan.law)
        if (
            distance(entry, x) >= 2.0 * r
            and stays_inside(wall, entry, x, r, conduit)
            and _clear(growth, grid, entry, x, r, own, _NOWHERE, False, cells)
        ):
            _first(growth, grid, site, own, x, r, 1 if conduit else 2, True, cells)
            return True
    return False


@numba.njit(cache=True)
@no_type_check
def plant_bent(growth, grid, wall, plan, sites, bends, cells):
    """The first vessel of a tree with one bend: the shortest way to the first site it reaches."""
    for site in sites:
        own = plan.site_tree[site]
        entry, x = growth.tip[own], plan.site[site]
        r = radius_of(plan.log[plan.planned[own]], plan.law)
        best, at = np.inf, -1
        for k in range(bends.shape[0]):
            bend = bends[k]
            one, two = distance(entry, bend), distance(bend, x)
            ahead = 0.0
            for n in range(3):
                ahead += (bend[n] - entry[n]) * (x[n] - bend[n])
            if one + two >= best or one < 2.0 * r or two < 2.0 * r or ahead < 0.0:
                continue
            if (
                stays_inside(wall, entry, bend, r, False)
                and stays_inside(wall, bend, x, r, False)
                and _clear(growth, grid, entry, bend, r, own, _NOWHERE, False, cells)
                and _clear(growth, grid, bend, x, r, _NOWHERE, _NOWHERE, False, cells)
            ):
                best, at = one + two, k
        if at >= 0:
            middle = _first(growth, grid, -1, own, bends[at], r, 2, False, cells)
            _first(growth, grid, site, middle, x, r, 2, True, cells)
            return True
    return False


@numba.njit(cache=True)
@no_type_check
def _first(growth, grid, site, parent, x, r, stage, ends, cells):
    """Part of a tree's first vessel; the last part ends in a terminal."""
    own = growth.tree[parent]
    node = _new_node(growth, x, parent, own, stage, 1)
    growth.radius[node] = r
    growth.child[parent, 0] = node
    enter_vessel(growth, grid, node, cells)
    if ends:
        growth.count[own] = 1
        growth.taken[own] = 1
        growth.terminal[site] = node
    return node


@numba.njit(cache=True)
@no_type_check
def _clear(growth, grid, a, b, r, skip_at, split, lenient, cells):
    """Whether a new vessel keeps clear of all others.

    Left out are the vessels that end or start at the node `skip_at`, which it joins, and the
    vessel `split` that it takes the place of. In a wider search, what that one was already as
    near to may stay so: where vessels have widened beside a junction nothing could ever branch
    off otherwise, and they are moved apart in the end.
    """
    growth.clock[0] += 1
    now = growth.clock[0]
    n = cells_of(grid, a, b, _APART * r, cells)
    m = growth.parent.size
    for c in range(n):
        entry = grid.head[cells[c]]
        while entry >= 0:
            other = grid.item[entry]
            entry = grid.link[entry]
            if growth.stamp[other] == now:
                continue
            growth.stamp[other] = now
            if other in (split, skip_at) or (other < m and growth.parent[other] == skip_at):
                continue
            tail, tip = growth.tail[other], growth.tip[other]
            apart = _APART * (r + growth.radius[other])
            square = segment_segment(a, b, tail, tip)[0]
            if square >= apart * apart:
                continue
            if not lenient:
                return False
            before = segment_segment(growth.tail[split], growth.tip[split], tail, tip)[0]
            if square < _AS_BEFORE * before:
                return False
    return True


@numba.njit(cache=True)
@no_type_check
def _candidates(growth, grid, plan, x, own, wanted, free, found, near):
    """Vessels near a site that it may branch off, nearest first; returns how many.

    These are vessels of its own tree, and of neighbours of the same vessel territory as long as
    the flows of both stay near the planned ones, or without that condition (`free`).
    """
    growth.clock[0] += 1
    now = growth.clock[0]
    roots = growth.taken.size
    # the arrays by themselves: passing the whole state around costs more than the search
    head, item, link, stamp = grid.head, grid.item, grid.link, growth.stamp
    tail, tip, tree_of = growth.tail, growth.tip, growth.tree
    open_to = np.zeros(roots, np.bool_)
    if free or growth.lost[own] + 1 <= plan.planned[own] * EXCHANGE:
        for t in range(roots):
            open_to[t] = (
                plan.territory[t] == plan.territory[own]
                and growth.taken[t] > 0
                and (free or growth.gained[t] + 1 <= plan.planned[t] * EXCHANGE)
            )
    open_to[own] = True
    n = 0
    size = grid.size[0]
    i = min(grid.shape[0] - 1, max(0, int((x[0] - grid.origin[0]) / size)))
    j = min(grid.shape[1] - 1, max(0, int((x[1] - grid.origin[1]) / size)))
    k = min(grid.shape[2] - 1, max(0, int((x[2] - grid.origin[2]) / size)))
    n_own = 0
    for ring in range(_RINGS):
        for a in range(max(0, i - ring), min(grid.shape[0], i + ring + 1)):
            for b in range(max(0, j - ring), min(grid.shape[1], j + ring + 1)):
                shell = abs(a - i) == ring or abs(b - j) == ring
                step = 1 if shell or ring == 0 else 2 * ring
                for c in range(k - ring, k + ring + 1, step):
                    if c < 0 or c >= grid.shape[2]:
                        continue
                    entry = head[(a * grid.shape[1] + b) * grid.shape[2] + c]
                    while entry >= 0:
                        other = item[entry]
                        entry = link[entry]
                        if stamp[other] == now or n == _FOUND:
                            continue
                        stamp[other] = now
                        tree = tree_of[other]
                        if tree < 0 or other < roots or not open_to[tree]:
                            continue
                        found[n] = other
                        near[n] = point_segment(x[0], x[1], x[2], tail[other], tip[other])[0]
                        n_own += 1 if tree == own else 0
                        n += 1
        # all vessels nearer than this are found; half of those wanted is enough
        certain = (ring * size) ** 2
        inside = 0
        for m in range(n):
            inside += 1 if near[m] <= certain else 0
        if 2 * inside >= wanted and n >= wanted:
            break
    if n_own == 0 or growth.taken[own] < _FEW:
        other = growth.newest[own]
        while other >= 0 and n < _FOUND:
            if growth.stamp[other] != now:
                growth.stamp[other] = now
                found[n] = other
                near[n] = point_segment(x[0], x[1], x[2], growth.tail[other], growth.tip[other])[0]
                n += 1
            other = growth.older[other]
    order = np.empty(wanted, np.int64)
    n = least_of(near, n, order)
    chosen = found[order[:n]]
    found[:n] = chosen
    return n


@numba.njit(cache=True)
@no_type_check
def _fork(p, c, x, w0, w1, w2, b):
    """The point of least Σ w |b − ·|, into b.

    **Source:** E. Weiszfeld (1937), Tôhoku Math. J. 43:355.
    """
    for k in range(3):
        b[k] = (w0 * p[k] + w1 * c[k] + w2 * x[k]) / (w0 + w1 + w2)
    scale = distance(p, c) + distance(p, x)
    for _ in range(16):
        v0 = w0 / (distance(b, p) + 1e-6 * scale)
        v1 = w1 / (distance(b, c) + 1e-6 * scale)
        v2 = w2 / (distance(b, x) + 1e-6 * scale)
        moved = 0.0
        for k in range(3):
            new = (v0 * p[k] + v1 * c[k] + v2 * x[k]) / (v0 + v1 + v2)
            moved = max(moved, abs(new - b[k]))
            b[k] = new
        if moved < 1e-3 * scale:
            break


@numba.njit(cache=True)
@no_type_check
def _kept_apart(p, c, x, b, at_p, at_c, at_x):
    """Move b to where the three vessels have their least lengths; False where it cannot be."""
    middle = np.empty(3)
    for k in range(3):
        middle[k] = (p[k] + c[k] + x[k]) / 3.0
    for _ in range(3):
        short = False
        for end, least in ((p, at_p), (c, at_c), (x, at_x)):
            d = distance(b, end)
            if d < least:
                short = True
                whole = distance(middle, end)
                if whole <= least:
                    return False
                for k in range(3):
                    b[k] = end[k] + (middle[k] - end[k]) * (1.01 * least / whole)
        if not short:
            return True
    return distance(b, p) >= at_p and distance(b, c) >= at_c and distance(b, x) >= at_x


@numba.njit(cache=True)
@no_type_check
def _widening(count, parent, tail, tip, plan_log, law, node, scale, known, path):
    """Increase of the volume (over π) of a vessel and all above it by one more terminal.

    What is found on the way up stays in `known` (−1: not yet) for the other candidates.
    """
    n = 0
    while node >= 0 and known[node] < 0.0:
        path[n] = node
        n += 1
        node = parent[node]
    total = known[node] if node >= 0 else 0.0
    for k in range(n - 1, -1, -1):
        node = path[k]
        below = count[node]
        before = radius_of(plan_log[below] + scale, law)
        after = radius_of(plan_log[below + 1] + scale, law)
        total += distance(tail[node], tip[node]) * (after * after - before * before)
        known[node] = total
    return total


@numba.njit(cache=True)
@no_type_check
def _forget(parent, node, known):
    """Undo what `_widening` has left on the way up."""
    while node >= 0 and known[node] >= 0.0:
        known[node] = -1.0
        node = parent[node]


@numba.njit(cache=True)
@no_type_check
def _share(log, planned, taken, tree):
    """ln of the planned terminals that each one stands for once there is one more.

    Vessels so have about their final calibre from the start.
    """
    return log[planned[tree]] - log[taken[tree] + 1]


@numba.njit(cache=True)
@no_type_check
def _branch(growth, grid, wall, plan, site, x, own, level, conduit, found, near, cells):
    """Branch off the vessel where that adds the least volume and nothing is in the way."""
    n = _candidates(growth, grid, plan, x, own, _CANDIDATES[level], level == WIDEST, found, near)
    cost = np.empty(n)
    fork = np.empty((n, 3))
    ratio = _LEAST_LENGTH[level]
    known, path = growth.known, growth.path
    count, parent, tail, tip = growth.count, growth.parent, growth.tail, growth.tip
    for m in range(n):
        vessel = found[m]
        tree = growth.tree[vessel]
        scale = _share(plan.log, plan.planned, growth.taken, tree)
        below = growth.count[vessel]
        old = radius_of(plan.log[below] + scale, plan.law)
        r0 = radius_of(plan.log[below + 1] + scale, plan.law)
        r2 = radius_of(scale, plan.law)
        p, c, b = growth.tail[vessel], growth.tip[vessel], fork[m]
        _fork(p, c, x, r0 * r0, old * old, r2 * r2, b)
        cost[m] = np.inf
        if not _kept_apart(p, c, x, b, ratio * r0, ratio * r0, 1.2 * r0):
            continue
        cost[m] = (
            r0 * r0 * distance(p, b)
            + old * old * (distance(b, c) - distance(p, c))
            + r2 * r2 * distance(b, x)
            + _widening(
                count, parent, tail, tip, plan.log, plan.law, parent[vessel], scale, known, path
            )
        )
    for m in range(n):
        _forget(parent, parent[found[m]], known)
    order = np.empty(n, np.int64)
    least_of(cost, n, order)
    for pull in _PULLS:
        for m in order:
            if cost[m] == np.inf:
                break
            vessel, b = found[m], fork[m].copy()
            if pull < 1.0 and not _pulled(growth, plan, vessel, x, pull, ratio, b):
                continue
            if _fits(growth, grid, wall, plan, vessel, b, x, conduit, level > 0, cells):
                _split(growth, grid, plan, vessel, b, x, site, own, conduit, cells)
                return True
    return False


@numba.njit(cache=True)
@no_type_check
def _pulled(growth, plan, vessel, x, pull, ratio, b):
    """Bring the fork b nearer to the vessel as it is, which lies inside the wall."""
    p, c = growth.tail[vessel], growth.tip[vessel]
    t = point_segment(b[0], b[1], b[2], p, c)[1]
    for k in range(3):
        on = p[k] + t * (c[k] - p[k])
        b[k] = on + pull * (b[k] - on)
    tree = growth.tree[vessel]
    scale = _share(plan.log, plan.planned, growth.taken, tree)
    r0 = radius_of(plan.log[growth.count[vessel] + 1] + scale, plan.law)
    least = ratio * r0
    return distance(b, p) >= least and distance(b, c) >= least and distance(b, x) >= 1.2 * r0


@numba.njit(cache=True)
@no_type_check
def _fits(growth, grid, wall, plan, vessel, b, x, conduit, lenient, cells):
    tree = growth.tree[vessel]
    scale = _share(plan.log, plan.planned, growth.taken, tree)
    below = growth.count[vessel]
    r0 = radius_of(plan.log[below + 1] + scale, plan.law)
    r1 = radius_of(plan.log[below] + scale, plan.law)
    r2 = radius_of(scale, plan.law)
    p, c, parent = growth.tail[vessel], growth.tip[vessel], growth.parent[vessel]
    conduit_above = conduit and growth.stage[vessel] == 1
    return (
        stays_inside(wall, b, x, r2, conduit)
        and stays_inside(wall, p, b, r0, conduit_above)
        and stays_inside(wall, b, c, r1, conduit_above)
        and _clear(growth, grid, b, x, r2, _NOWHERE, vessel, False, cells)
        and _clear(growth, grid, p, b, r0, parent, vessel, lenient, cells)
        and _clear(growth, grid, b, c, r1, vessel, vessel, lenient, cells)
    )


@numba.njit(cache=True)
@no_type_check
def _split(growth, grid, plan, vessel, b, x, site, own, conduit, cells):
    """Put node b into a vessel and hang the terminal x on it; widen everything above."""
    tree, parent = growth.tree[vessel], growth.parent[vessel]
    leave_vessel(growth, grid, vessel, cells)
    fork = _new_node(growth, b, parent, tree, growth.stage[vessel], growth.count[vessel])
    leaf = _new_node(growth, x, fork, tree, 1 if conduit else 2, 1)
    side = 0 if growth.child[parent, 0] == vessel else 1
    growth.child[parent, side] = fork
    growth.child[fork, 0], growth.child[fork, 1] = vessel, leaf
    growth.parent[vessel] = fork
    growth.tail[vessel] = growth.tip[fork]
    growth.taken[tree] += 1
    if tree != own:
        growth.lost[own] += 1
        growth.gained[tree] += 1
    growth.terminal[site] = leaf
    scale = plan.log[plan.planned[tree]] - plan.log[growth.taken[tree]]
    growth.radius[vessel] = radius_of(plan.log[growth.count[vessel]] + scale, plan.law)
    growth.radius[leaf] = radius_of(scale, plan.law)
    enter_vessel(growth, grid, vessel, cells)
    enter_vessel(growth, grid, leaf, cells)
    node = fork
    while node >= 0:
        growth.count[node] += 1
        growth.radius[node] = radius_of(plan.log[growth.count[node]] + scale, plan.law)
        if node == fork:
            enter_vessel(growth, grid, node, cells)
        elif growth.radius[node] > growth.entered[node]:
            leave_vessel(growth, grid, node, cells)
            enter_vessel(growth, grid, node, cells)
        node = growth.parent[node]
