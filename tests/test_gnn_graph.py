"""The Darcy operator as a graph: same operator, and jraph can batch and pad it."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

jraph = pytest.importorskip("jraph", reason="the extra `gnn` is not installed")

from gnn_darcy import darcy_graph  # noqa: E402

EDGE = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]], np.int32)
TRANSMISSIBILITY = np.array([1.0, 2.0, 0.5, 3.0, -0.25])
VOLUME = np.array([1.0, 2.0, 3.0, 4.0])
SINK = np.array([0.1, 0.2, 0.3, 0.4])


def _graph():
    arrays = (EDGE, TRANSMISSIBILITY, VOLUME, SINK)
    return darcy_graph(*(jnp.asarray(a) for a in arrays))


def _apply(graph, pressure):
    jump = pressure[graph.receivers] - pressure[graph.senders]
    flux = graph.edges["transmissibility"] * jump
    faces = jax.ops.segment_sum(flux, graph.receivers, num_segments=pressure.shape[0])
    return faces + graph.nodes["sink"] * pressure


def test_message_passing_is_the_operator():
    dense = np.diag(SINK)
    for (i, j), t in zip(EDGE, TRANSMISSIBILITY, strict=True):
        difference = np.zeros(4)
        difference[i], difference[j] = 1.0, -1.0
        dense += t * np.outer(difference, difference)
    found = jax.vmap(lambda p: _apply(_graph(), p))(jnp.eye(4))
    np.testing.assert_allclose(found, dense, rtol=1e-14)


def test_jraph_batches_and_pads_it():
    graph = _graph()
    both = jraph.batch([graph, graph])
    pressure = jnp.asarray(np.linspace(1.0, 2.0, 8))
    apart = jnp.concatenate([_apply(graph, pressure[:4]), _apply(graph, pressure[4:])])
    np.testing.assert_allclose(_apply(both, pressure), apart, rtol=1e-15)
    padded = jraph.pad_with_graphs(both, n_node=11, n_edge=25, n_graph=3)
    assert padded.senders.shape == (25,)
    result = _apply(padded, jnp.concatenate([pressure, jnp.zeros(3)]))
    np.testing.assert_allclose(result[:8], apart, rtol=1e-15)


def test_wrong_shapes_are_refused():
    with pytest.raises(jaxtyping.TypeCheckError):
        darcy_graph(*(jnp.asarray(a) for a in (EDGE, TRANSMISSIBILITY[:3], VOLUME, SINK)))
