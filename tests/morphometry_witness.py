"""Morphometry once more, written plainly with dictionaries; it imports nothing of the library."""

import math
from itertools import pairwise
from statistics import mean, stdev


def witness(parent, radius, length, tolerance):
    """Orders from 0 of the pieces, and what is said of the orders, for a forest given as lists."""
    children = {}
    for i, p in enumerate(parent):
        children.setdefault(p if p >= 0 else "root", []).append(i)
    chains, above = [], {}

    def descend(first, from_chain):
        chain = [first]
        while len(children.get(chain[-1], [])) == 1:
            chain.append(children[chain[-1]][0])
        index = len(chains)
        chains.append(chain)
        above[index] = from_chain
        for child in children.get(chain[-1], []):
            descend(child, index)

    for root in children["root"]:
        descend(root, None)
    size = [sum(length[i] for i in chain) for chain in chains]
    diameter = [
        2 * sum(radius[i] * length[i] for i in chain) / total
        for chain, total in zip(chains, size, strict=True)
    ]
    below = {c: [k for k in above if above[k] == c] for c in range(len(chains))}
    order = _refined(diameter, _strahler(below, [c for c in above if above[c] is None]), tolerance)
    return {
        "piece_order": {i: order[c] for c, chain in enumerate(chains) for i in chain},
        **_elements(above, below, order, diameter, size),
        **_junctions(below, order, diameter),
        "path": sorted(_path(c, above, size) for c in below if not below[c]),
    }


def _strahler(below, roots):
    number = {}

    def visit(c):
        found = sorted((visit(k) for k in below[c]), reverse=True)
        if not found:
            number[c] = 0
        else:
            number[c] = found[0] + (1 if found.count(found[0]) > 1 else 0)
        return number[c]

    for root in roots:
        visit(root)
    return number


def _refined(diameter, order, tolerance):
    while True:
        present = sorted(set(order.values()))
        ranges = []
        for n in present:
            values = [diameter[c] for c in order if order[c] == n]
            ranges.append((mean(values), stdev(values) if len(values) > 1 else 0.0))
        bounds = [((a + sa) + (b - sb)) / 2 for (a, sa), (b, sb) in pairwise(ranges)]
        for k in range(1, len(bounds)):
            bounds[k] = max(bounds[k], bounds[k - 1])
        new = {c: sum(1 for b in bounds if diameter[c] > b) for c in order}
        rank = {n: k for k, n in enumerate(present)}
        moved = sum(1 for c in order if new[c] != rank[order[c]])
        names = {n: k for k, n in enumerate(sorted(set(new.values())))}
        order = {c: names[new[c]] for c in order}
        if moved <= tolerance * len(order):
            return order


def _elements(above, below, order, diameter, size):
    continues = {}
    for c, kids in below.items():
        same = [k for k in kids if order[k] == order[c]]
        if same:
            continues[max(same, key=lambda k: diameter[k])] = c
    members = {}

    def head(c):
        return head(continues[c]) if c in continues else c

    for c in order:
        members.setdefault(head(c), []).append(c)
    found = {"element": {}, "connectivity": {}, "roots": {}}
    for first, parts in members.items():
        n = order[first]
        entry = (mean(diameter[c] for c in parts), sum(size[c] for c in parts), len(parts))
        found["element"].setdefault(n, []).append(entry)
        if above[first] is None:
            found["roots"][n] = found["roots"].get(n, 0) + 1
        else:
            pair = (n, order[above[first]])
            found["connectivity"][pair] = found["connectivity"].get(pair, 0) + 1
    return found


def _junctions(below, order, diameter):
    ratios = {}
    for c, kids in below.items():
        if kids:
            small, large = min(diameter[k] for k in kids), max(diameter[k] for k in kids)
            entry = (small / large, small / diameter[c], large / diameter[c])
            ratios.setdefault(order[c], []).append(entry)
    return {"ratios": ratios}


def _path(c, above, size):
    total = 0.0
    while c is not None:
        total, c = total + size[c], above[c]
    return total


def moments(values):
    """Mean and sample standard deviation, NaN of one value."""
    return mean(values), (stdev(values) if len(values) > 1 else math.nan)
