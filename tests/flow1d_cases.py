"""Small problems of transient flow that several test files use."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.flow1d import RelaxedHeun, Semidiscretisation
from jaxperf.network import build_network, Waveform


def star(segment_node, radius, length, *, root=(0,), branch_name=None, allow_loops=False):
    """A network from its topology: positions only keep nodes apart, each segment is a branch."""
    segment_node = np.array(segment_node, np.int64)
    n_nodes = int(segment_node.max()) + 1
    position = np.zeros((n_nodes, 3))
    position[:, 0] = np.arange(n_nodes)
    names = branch_name or tuple(f"vessel {i}" for i in range(len(segment_node)))
    return build_network(
        position,
        segment_node,
        np.array(radius, np.float64),
        root=np.array(root, np.int64),
        frame="model",
        length=np.array(length, np.float64),
        branch=np.arange(len(segment_node)),
        branch_name=names,
        allow_loops=allow_loops,
    )


def waveform(function, period, knots):
    """A waveform of one row through a function's values."""
    time = np.linspace(0.0, period, knots)[:-1]
    return Waveform(time, np.asarray(function(time), np.float64)[None], period)


def interpolated(wave):
    """A waveform's values at a time, on the host: an integrator asks some thousand times."""
    time = np.append(np.asarray(wave.time), wave.period)
    rows = [np.append(row, row[0]) for row in np.asarray(wave.value)]
    return lambda t: np.array([np.interp(t, time, row) for row in rows])


def advance(equations: Semidiscretisation, y, t0, h, n, field=None):
    """n equal steps of the default solver; `field` stands in for the equations where given."""
    term = diffrax.ODETerm(equations if field is None else field)
    solver = RelaxedHeun(equations.relaxation)

    def body(i, y):
        t = t0 + i.astype(y.area.dtype) * h
        return solver.step(term, t, t + h, y, None, None, False)[0]

    return jax.lax.fori_loop(jnp.zeros((), jnp.int32), jnp.asarray(n, jnp.int32), body, y)


def cell_lengths(equations: Semidiscretisation):
    """Length of every slot, 0 in gaps."""
    inverse = np.asarray(equations.inverse_length)
    return np.where(inverse > 0, 1.0 / np.where(inverse > 0, inverse, 1.0), 0.0)


def volume(equations: Semidiscretisation, area):
    """Volume of all vessels, m³."""
    return float(np.sum(np.asarray(area) * cell_lengths(equations)))
