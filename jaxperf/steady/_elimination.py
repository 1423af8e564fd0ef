"""Linear network equations solved by elimination from the leaves to the roots and back.

Linearised, a segment from node p to node c obeys

    f_p δP_p + f_c δP_c + f_q δQ = b_e

and a node, with the conductance g_n of whatever leaves the network there,

    δQ_in − Σ_children δQ − g_n δP_n = b_n      or, at a prescribed pressure,      δP_n = b_n.

Below any node the network is a Norton element: δQ_in = G δP + J. One sweep from the leaves
gives G and J, one sweep back gives δP and δQ; both take O(number of segments), and no matrix is
formed. The few segments that close loops are put back by a small dense Woodbury system.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..network import AnyNetwork


class SegmentLinearisation(eqx.Module):
    """Partial derivatives of the law of every segment."""

    proximal: Float[Array, " s"]
    distal: Float[Array, " s"]
    flow: Float[Array, " s"]


class _Rows(eqx.Module):
    """The segments in rows of the order of elimination; padding refers to one node too many."""

    segment: Int[Array, "k w"]
    parent: Int[Array, "k w"]
    child: Int[Array, "k w"]


class NetworkFactor(eqx.Module):
    """An eliminated network, ready for right-hand sides.

    **Attributes:** per segment, the coefficients of `δQ = y δP_p + z_node J + z_segment b_e` and
    `δP_c = p_parent δP_p + p_node J + p_segment b_e`; `conductance`, G of every node; `fixed`,
    the nodes of prescribed pressure.
    """

    rows: _Rows
    segment_node: Int[Array, "s 2"]
    root: Int[Array, " r"]
    fixed: Bool[Array, " n"]
    conductance: Float[Array, " n"]
    y: Float[Array, " s"]
    z_node: Float[Array, " s"]
    z_segment: Float[Array, " s"]
    p_parent: Float[Array, " s"]
    p_node: Float[Array, " s"]
    p_segment: Float[Array, " s"]
    cut: Int[Array, " m"]
    cut_law: Float[Array, "m 3"]
    cut_pressure: Float[Array, "m n"]
    cut_matrix: Float[Array, "m m"]


def _rows(network: AnyNetwork) -> _Rows:
    padded = jnp.concatenate(
        [network.segment_node, jnp.full((1, 2), network.n_nodes, network.segment_node.dtype)]
    )[network.topology.sweep]
    return _Rows(network.topology.sweep, padded[..., 0], padded[..., 1])


def _in_rows(values: Float[Array, " s"], rows: _Rows) -> Float[Array, "k w"]:
    return jnp.concatenate([values, jnp.zeros(1, values.dtype)])[rows.segment]


def _from_rows(
    values: Float[Array, "k w"], rows: _Rows, like: Float[Array, " s"]
) -> Float[Array, " s"]:
    padded = jnp.zeros(like.shape[0] + 1, like.dtype)
    return padded.at[rows.segment].add(values, mode="drop")[:-1]


def _with_padding(values: Float[Array, " n"]) -> Float[Array, " n_1"]:
    return jnp.concatenate([values, jnp.zeros(1, values.dtype)])


def factor_network(
    network: AnyNetwork,
    law: SegmentLinearisation,
    conductance: Float[Array, " n"],
    fixed: Bool[Array, " n"],
) -> NetworkFactor:
    """Eliminate a linearised network.

    **Arguments:**

    - `law`: partial derivatives of the segment laws.
    - `conductance`: (n,) m³/s/Pa, of what leaves the network at each node.
    - `fixed`: (n,) whether the pressure of the node is prescribed.

    **Returns:** a [`NetworkFactor`][] for [`solve_network`][].

    **Example:**

    ```python
    import equinox as eqx, jax.numpy as jnp, jaxperf as jp, numpy as np
    from jaxperf.steady import factor_network, SegmentLinearisation, solve_network
    node, radius = np.array([[0, 0, 0], [0.01, 0, 0]]), np.full(2, 1e-3)
    tree = jp.build_network(node, np.array([[0, 1]]), radius, root=np.array([0]), frame="model")
    law = SegmentLinearisation(jnp.ones(1), -jnp.ones(1), jnp.full(1, -1e9))
    out, fixed = jnp.array([0.0, 1e-10]), jnp.array([True, False])
    factor = eqx.filter_jit(factor_network)(tree, law, out, fixed)
    right = jnp.zeros(1), jnp.array([1e4, 0.0])
    pressure, flow = eqx.filter_jit(solve_network)(factor, *right)
    ```
    """
    rows = _rows(network)
    dtype = law.flow.dtype
    # A cut segment is absent from the sweep, so its law must not divide by anything: the
    # coefficients of all segments are computed alike and only swept ones are used.
    free = _with_padding(jnp.where(fixed, 0.0, 1.0).astype(dtype))
    held = _with_padding(jnp.where(fixed, 1.0, 0.0).astype(dtype))

    def up(
        accumulated: Float[Array, " m"], row: tuple[Array, ...]
    ) -> tuple[Float[Array, " m"], tuple[Float[Array, " w"], ...]]:
        parent, child, f_p, f_c, f_q = row
        # (G, 1) at a free child, (1, 0) at one of prescribed pressure: G without its limit.
        g = jnp.where(held[child] > 0, 1.0, accumulated[child]).astype(dtype)
        denominator = f_c * free[child] + f_q * g
        safe = jnp.where(denominator == 0, 1.0, denominator).astype(dtype)
        y = -g * f_p / safe
        return accumulated.at[parent].add(y * free[parent]), (y, g / safe, 1 / safe)

    laws = (_in_rows(law.proximal, rows), _in_rows(law.distal, rows), _in_rows(law.flow, rows))
    total, (y, z_segment, inverse) = jax.lax.scan(
        up, _with_padding(conductance), (rows.parent, rows.child, *laws)
    )
    back = lambda values: _from_rows(values, rows, law.flow)
    y, z_segment, inverse = back(y), back(z_segment), back(inverse)
    child_free = free[network.segment_node[:, 1]]
    cut = network.topology.cut
    factor = NetworkFactor(
        rows=rows,
        segment_node=network.segment_node,
        root=network.topology.root,
        fixed=fixed,
        conductance=total[:-1],
        y=y,
        z_node=law.distal * inverse,
        z_segment=z_segment,
        p_parent=-law.proximal * child_free * inverse,
        p_node=-law.flow * inverse,
        p_segment=child_free * inverse,
        cut=cut,
        cut_law=jnp.stack([law.proximal, law.distal, law.flow], axis=1)[cut],
        cut_pressure=jnp.zeros((cut.shape[0], network.n_nodes), dtype),
        cut_matrix=jnp.zeros((cut.shape[0], cut.shape[0]), dtype),
    )
    return factor if cut.shape[0] == 0 else _close_loops(factor)


def _close_loops(factor: NetworkFactor) -> NetworkFactor:
    """Response of the tree to a unit flow in each cut segment, and the dense system for them."""
    ends = factor.segment_node[factor.cut]
    n_cut, n_nodes = factor.cut_pressure.shape
    which = jnp.arange(n_cut)
    unit = jnp.zeros((n_cut, n_nodes), factor.y.dtype)
    unit = unit.at[which, ends[:, 0]].add(1.0).at[which, ends[:, 1]].add(-1.0)
    unit = jnp.where(factor.fixed[None, :], 0.0, unit).astype(factor.y.dtype)
    no_drop = jnp.zeros_like(factor.y)
    response = jax.vmap(lambda b: _solve_tree(factor, no_drop, b)[0])(unit)
    f_p, f_c, f_q = factor.cut_law.T
    matrix = jnp.diag(f_q) + f_p[:, None] * response[:, ends[:, 0]].T
    matrix = matrix + f_c[:, None] * response[:, ends[:, 1]].T
    return eqx.tree_at(lambda f: (f.cut_pressure, f.cut_matrix), factor, (response, matrix))


def _solve_tree(
    factor: NetworkFactor, b_segment: Float[Array, " s"], b_node: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " s"]]:
    rows = factor.rows
    free = _with_padding(jnp.where(factor.fixed, 0.0, 1.0).astype(b_node.dtype))
    start = _with_padding(jnp.where(factor.fixed, -b_node, b_node))
    z_node, z_given = _in_rows(factor.z_node, rows), _in_rows(factor.z_segment * b_segment, rows)

    def up(norton: Float[Array, " m"], row: tuple[Array, ...]) -> tuple[Float[Array, " m"], None]:
        parent, child, z, given, open_parent = row
        return norton.at[parent].add(open_parent * (z * norton[child] + given)), None

    norton, _ = jax.lax.scan(
        up, start, (rows.parent, rows.child, z_node, z_given, free[rows.parent])
    )
    norton = norton[:-1]
    child = factor.segment_node[:, 1]
    given = factor.p_segment * b_segment + factor.p_node * norton[child]

    def down(
        pressure: Float[Array, " m"], row: tuple[Array, ...]
    ) -> tuple[Float[Array, " m"], None]:
        parent, child, p, given = row
        return pressure.at[child].add(p * pressure[parent] + given), None

    root = factor.root
    at_root = jnp.where(factor.fixed[root], 1.0, factor.conductance[root]).astype(b_node.dtype)
    pressure = jnp.zeros_like(start).at[root].add(-norton[root] / at_root)
    pressure, _ = jax.lax.scan(
        down,
        pressure,
        (rows.parent, rows.child, _in_rows(factor.p_parent, rows), _in_rows(given, rows)),
        reverse=True,
    )
    pressure = pressure[:-1]
    flow = factor.y * pressure[factor.segment_node[:, 0]]
    return pressure, flow + factor.z_node * norton[child] + factor.z_segment * b_segment


def solve_network(
    factor: NetworkFactor, b_segment: Float[Array, " s"], b_node: Float[Array, " n"]
) -> tuple[Float[Array, " n"], Float[Array, " s"]]:
    """Solve the linearised network for one right-hand side; linear in it.

    **Arguments:** `b_segment` (s,) Pa; `b_node` (n,) m³/s, or Pa at a prescribed pressure.

    **Returns:** (δP (n,) Pa, δQ (s,) m³/s).

    **Example:**

    ```python
    import equinox as eqx, jax.numpy as jnp, jaxperf as jp, numpy as np
    from jaxperf.steady import factor_network, SegmentLinearisation, solve_network
    node, radius = np.array([[0, 0, 0], [0.01, 0, 0]]), np.full(2, 1e-3)
    tree = jp.build_network(node, np.array([[0, 1]]), radius, root=np.array([0]), frame="model")
    law = SegmentLinearisation(jnp.ones(1), -jnp.ones(1), jnp.full(1, -1e9))
    out, fixed = jnp.array([0.0, 1e-10]), jnp.array([True, False])
    factor = eqx.filter_jit(factor_network)(tree, law, out, fixed)
    right = jnp.zeros(1), jnp.array([1e4, 0.0])
    pressure, flow = eqx.filter_jit(solve_network)(factor, *right)
    ```
    """
    tree_segment = b_segment.at[factor.cut].set(0.0, unique_indices=True)
    pressure, flow = _solve_tree(factor, tree_segment, b_node)
    if factor.cut.shape[0] == 0:
        return pressure, flow
    ends = factor.segment_node[factor.cut]
    f_p, f_c, _ = factor.cut_law.T
    gap = b_segment[factor.cut] - f_p * pressure[ends[:, 0]] - f_c * pressure[ends[:, 1]]
    loop_flow = jnp.linalg.solve(factor.cut_matrix, gap)
    fed = b_node + jnp.where(factor.fixed, 0.0, 1.0).astype(b_node.dtype) * (
        jnp.zeros_like(b_node).at[ends[:, 0]].add(loop_flow).at[ends[:, 1]].add(-loop_flow)
    )
    pressure, flow = _solve_tree(factor, tree_segment, fed)
    return pressure, flow.at[factor.cut].set(loop_flow, unique_indices=True)
