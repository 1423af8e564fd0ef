"""What can be said of a forest in numbers, before and after a solve."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ..growth import (
    kassab_table,
    KASSAB_TREES,
    KassabTable,
    Morphometry,
    morphometry,
    morphometry_summary,
    order_rows,
)
from ..io import write_csv, write_json
from ..network import parent_segment, vessel_territories
from ..study import Grown
from ..units import M_PER_MM
from ._schema import Forest, ForestTerritory, Part, Spread

_STUB = 0
_WELL_PROJECTED = 0.05
# Relative miss of a territory's share that a reader must know of, and of a single tree's.
LARGEST_SPLIT_ERROR, LARGEST_TREE_ERROR = 0.05, 3.0
OUR_VESSELS = "segmented and grown"
# The published tree whose ranges the vessels are held against a second time.
_RANGES = "LAD"


def forest_facts(grown: Grown) -> Forest:
    """Size, settings, stubs and target shares of a forest."""
    forest, about = grown.forest, grown.forest.about
    length = np.asarray(grown.network.length)[grown.tree.n_segments :] / M_PER_MM
    stub = length[forest.stage == _STUB]
    into = parent_segment(grown.tree)[forest.root_node]
    left = np.asarray(grown.tree.radius)[into, 1]
    wider = forest.radius[: forest.n_trees] > left
    deviation = np.abs(forest.root_projected / forest.root_share - 1.0)
    return Forest(
        trees=forest.n_trees,
        terminals=forest.n_terminals,
        segments=int(forest.radius.size),
        length_m=float(length.sum()) * M_PER_MM,
        terminal_diameter_um=float(2e6 * np.median(forest.radius[forest.terminal])),
        stub_length_median_mm=float(np.median(stub)),
        stub_length_max_mm=float(stub.max()),
        trees_wider_than_their_vessel=int(wider.sum()),
        side_roots_left_out=len(about["roots_left_out"]),
        projected_deviation_max=float(deviation.max()),
        projected_within_5_percent=float(np.mean(deviation <= _WELL_PROJECTED)),
        territories=_territories(grown),
        seconds=sum(about["seconds"].values()),
        # every tree has its first terminal before the clock of growth starts
        terminals_per_s=(forest.n_terminals - forest.n_trees)
        / max(about["seconds"]["growth"] + about["seconds"]["settling"], 1e-9),
        settings={key: about[key] for key in about if key not in ("branch_name", "seconds")},
    )


def _territories(grown: Grown) -> dict[str, ForestTerritory]:
    forest = grown.forest
    of_tree = forest.root_territory
    n = len(forest.territory_name)
    target = np.bincount(of_tree, forest.root_share, n)
    projected = np.bincount(of_tree, forest.root_projected, n)
    trees = np.bincount(of_tree, minlength=n)
    terminals = np.bincount(of_tree[forest.tree[forest.terminal]], minlength=n)
    return {
        name: ForestTerritory(
            trees=int(trees[i]),
            terminals=int(terminals[i]),
            share_target=float(target[i]),
            share_projected=float(projected[i]),
        )
        for i, name in enumerate(forest.territory_name)
    }


def flow_split(
    grown: Grown, terminal_node: Int[np.ndarray, " t"], flow: Float[np.ndarray, " t"]
) -> dict[str, dict[str, float]]:
    """Share of the forest's flow that each territory takes, and its relative miss of the target.

    **Arguments:** `terminal_node`: (t,), node of each terminal; `flow`: (t,), m³/s.
    """
    forest = grown.forest
    leaf = terminal_node - grown.tree.n_nodes
    of = forest.root_territory[forest.tree[leaf[leaf >= 0]]]
    n = len(forest.territory_name)
    share = np.bincount(of, flow[leaf >= 0], n) / flow[leaf >= 0].sum()
    target = np.bincount(forest.root_territory, forest.root_share, n)
    return {
        name: {
            "share_rest": float(share[i]),
            "share_rest_error": float(share[i] / target[i] - 1.0),
        }
        for i, name in enumerate(forest.territory_name)
    }


def split_warnings(forest: Forest) -> list[str]:
    """Territories and trees that miss their target: in the wall, or else in the flow at rest."""
    said = []
    for name, row in forest.territories.items():
        missed = lambda share, row=row: (
            share is not None and abs(share / row.share_target - 1.0) > LARGEST_SPLIT_ERROR
        )
        if missed(row.share_projected):
            said.append(
                f"The forest of {name} fills {100 * row.share_projected:.1f} % of the wall instead "
                f"of {100 * row.share_target:.1f} %, as its vessels do not lie where that share "
                "would have them. State tree.dominance, or write the shares or calibre under "
                "growth.territory_share_percent."
            )
        elif missed(row.share_rest):
            said.append(
                f"At rest the forest of {name} takes {100 * (row.share_rest or 0.0):.1f} % of the "
                f"flow instead of {100 * row.share_target:.1f} %."
            )
    if forest.projected_deviation_max > LARGEST_TREE_ERROR:
        said.append(
            f"One tree of the forest feeds {1.0 + forest.projected_deviation_max:.1f} times the "
            "tissue that the calibre of its vessel asks for, as no other vessel reaches that part "
            "of the wall. Look for a vessel that the tree lacks, or a wrong registration."
        )
    return said


def spread(value: Float[np.ndarray, " t"]) -> Spread:
    """Mean, coefficient of variation and range."""
    mean = float(value.mean())
    cv = float(value.std() / mean)
    return Spread(mean=mean, cv=cv, min=float(value.min()), max=float(value.max()))


def whole_morphometry(grown: Grown, ranges: KassabTable | None = None) -> Morphometry:
    """Morphometry of the segmented and the grown vessels together, from the ostia on.

    A tapering segment counts by its mean radius; lesions by their reference radius.

    **Arguments:** `ranges`: published ranges of diameter that define the orders, in place of the
    vessels' own.
    """
    network = grown.network
    node = np.asarray(network.segment_node)
    above = parent_segment(network)[node[:, 0]]
    radius = np.asarray(network.radius).mean(axis=1)
    return morphometry(above, radius, np.asarray(network.length), ranges=ranges)


def segment_arrays(grown: Grown) -> dict[str, np.ndarray]:
    """What each segment of the joined network is, for files.

    `tree` and `stage` are −1 on the vessels that were there before the forest.
    """
    network, forest = grown.network, grown.forest
    n_fixed = grown.tree.n_segments
    end = np.asarray(network.segment_node)[:, 1].astype(np.int64)
    names, territory = vessel_territories(network, end)
    before = np.full(n_fixed, -1, np.int64)
    terminal = np.zeros(network.n_segments, np.int64)
    terminal[n_fixed + forest.terminal] = 1
    return {
        "order": whole_morphometry(grown).piece_order,
        "tree": np.concatenate([before, forest.tree]),
        "stage": np.concatenate([before, forest.stage]),
        "terminal": terminal,
        "territory": territory,
        "territory_name": np.array(names)[territory],
    }


def morphometries(grown: Grown) -> dict[str, Morphometry]:
    """The vessels in orders of their own, and in Kassab's published ranges of diameter."""
    return {
        OUR_VESSELS: whole_morphometry(grown),
        f"same, ranges of {_RANGES}": whole_morphometry(grown, kassab_table(_RANGES)),
    }


def write_morphometry(folder: Path, grown: Grown, facts: Part) -> None:
    """`morphometry.json` and `morphometry.csv`: the orders of the vessels, and Kassab's."""
    found = morphometries(grown)
    rows = {name: order_rows(table) for name, table in found.items()}
    content = {
        "forest": facts.model_dump(),
        "vessels": {
            name: {**morphometry_summary(found[name]), "orders": rows[name]} for name in found
        },
        "kassab_1993": {tree: order_rows(kassab_table(tree)) for tree in KASSAB_TREES},
    }
    write_json(folder / "morphometry.json", content)
    write_csv(
        folder / "morphometry.csv",
        [{"vessels": name, **row} for name, table in rows.items() for row in table],
    )
