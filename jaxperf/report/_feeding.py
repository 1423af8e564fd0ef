"""Which vessel feeds which segment of the wall."""

from typing import Any

import numpy as np
from jaxtyping import Int

from ..geometry import AHA17_NAME
from ..network import parent_segment
from ..study import Prepared, Results


def feeding_rows(results: Results) -> list[dict[str, Any]]:
    """The rows of `feeding.csv`: mass and mean flow of what a vessel feeds of an AHA segment.

    The vessel is the segmented or drawn branch that a terminal ends, or that its tree leaves.
    """
    prepared, regions = results.prepared, results.prepared.regions
    branch = _feeder(prepared)[regions.terminal]
    n = len(prepared.tree.branch_name)
    at = (prepared.segment[regions.cell] - 1) * n + branch
    volume = np.bincount(at, regions.volume, 17 * n)
    density = prepared.case.microcirculation.density_kg_m3
    flow = {
        state: np.bincount(at, regions.volume * results.mbf[state][regions.cell], 17 * n)
        for state in results.states
    }
    return [
        {
            "segment": int(i // n) + 1,
            "name": AHA17_NAME[int(i // n)],
            "branch": prepared.tree.branch_name[int(i % n)],
            "mass_g": float(volume[i]) * density * 1e3,
            **{f"mbf_{k}_ml_min_g": float(v[i] / volume[i]) for k, v in flow.items()},
        }
        for i in np.flatnonzero(volume > 0.0)
    ]


def _feeder(prepared: Prepared) -> Int[np.ndarray, " t"]:
    """The branch of the segmented and drawn tree that feeds each terminal."""
    tree, node = prepared.tree, np.asarray(prepared.problem.tissue.terminal_node).astype(np.int64)
    if prepared.grown is not None:
        forest = prepared.grown.forest
        grown = node >= tree.n_nodes
        of = np.asarray(forest.tree)[np.where(grown, node - tree.n_nodes, 0)]
        node = np.where(grown, np.asarray(forest.root_node)[of], node)
    ends = np.asarray(tree.segment_node)
    # a node at the aorta has no vessel before it, and counts to the one that begins there
    leaving = np.zeros(tree.n_nodes, np.int64)
    leaving[ends[::-1, 0]] = np.arange(len(ends))[::-1]
    into = np.asarray(parent_segment(tree))[node]
    return np.asarray(tree.branch)[np.where(into >= 0, into, leaving[node])].astype(np.int64)
