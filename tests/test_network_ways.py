"""Ways to the roots against walks along them, node by node."""

import numpy as np
import pytest

from jaxperf import InputError
from jaxperf.network import build_network, downstream_sum, parent_segment, vessel_territories

NAMES = ("LM", "LAD", "LCx", "D1", "RCA")


def _forest(seed: int):
    """Two random trees whose branches are named at random, the first below a left main."""
    rng = np.random.default_rng(seed)
    n = 60
    pair = [(int(rng.integers(0, k)), k) for k in range(1, n)]
    pair += [(n + int(rng.integers(0, k)), n + k) for k in range(1, 20)]
    branch = np.concatenate([rng.integers(0, 4, n - 1), np.full(19, 4)])
    branch[:2] = 0
    return build_network(
        rng.normal(size=(n + 20, 3)),
        np.array(pair),
        np.full(n + 20, 1e-3),
        root=np.array([0, n]),
        frame="model",
        branch=branch,
        branch_name=NAMES,
    )


def _way(network, node):
    """Segments from a root down to a node."""
    into = {int(b): s for s, (_, b) in enumerate(np.asarray(network.segment_node).tolist())}
    found = []
    while node in into:
        found.append(into[node])
        node = int(np.asarray(network.segment_node)[found[-1], 0])
    return found[::-1]


@pytest.mark.parametrize("seed", range(4))
def test_territories_are_those_of_the_way_from_the_root(seed):
    network = _forest(seed)
    asked = np.setdiff1d(np.arange(network.n_nodes), np.asarray(network.roots))
    names, index = vessel_territories(network, asked)
    for node, i in zip(asked.tolist(), index.tolist(), strict=True):
        way = [network.branch_name[int(network.branch[s])] for s in _way(network, node)]
        assert names[i] == next((name for name in way if name != "LM"), way[0])
    first_met = list(dict.fromkeys(index.tolist()))
    assert first_met == sorted(first_met)


def test_a_root_lies_in_the_territory_of_its_own_branch():
    network = _forest(0)
    names, index = vessel_territories(network, np.asarray(network.roots))
    assert [names[i] for i in index] == ["LM", "RCA"]


def test_sums_below_a_vessel():
    network = _forest(1)
    terminal = np.asarray(network.terminals)
    amount = np.random.default_rng(2).uniform(size=len(terminal))
    expected = np.zeros(network.n_segments)
    for node, value in zip(terminal.tolist(), amount.tolist(), strict=True):
        expected[_way(network, node)] += value
    np.testing.assert_allclose(downstream_sum(network, terminal, amount), expected, rtol=1e-13)


def test_a_segment_that_closes_a_loop_is_no_way():
    network = build_network(
        np.array([[0.0, 0, 0], [1, 0, 0], [2, 1, 0], [2, -1, 0]]),
        np.array([[0, 1], [1, 2], [1, 3], [2, 3]]),
        np.full(4, 1e-3),
        root=np.array([0]),
        frame="model",
        allow_loops=True,
    )
    assert parent_segment(network).tolist() == [-1, 0, 1, 2]
    below = downstream_sum(network, np.array([2, 3]), np.array([1.0, 2.0]))
    np.testing.assert_allclose(below, [3.0, 1.0, 2.0, 0.0])


def test_an_unknown_node_is_refused():
    network = _forest(0)
    with pytest.raises(InputError, match="node 80 is asked for"):
        vessel_territories(network, np.array([3, 80]))
    with pytest.raises(InputError, match="node -1 is asked for"):
        vessel_territories(network, np.array([-1]))
