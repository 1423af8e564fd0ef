"""A network of lumped segments: R, C, L and a quadratic loss each, without a geometry."""

from typing import TypeAlias

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf
from .._misc import InputError
from ._network import VascularNetwork
from ._topology import build_topology, components, Topology


class LumpedNetwork(eqx.Module):
    r"""Vessels as lumped segments, as zero-dimensional solvers have them.

    With $P$ and $Q$ at the proximal (p) and distal (d) end of a segment,

    $$P_p - P_d = (R + S|Q_p|)\,Q_p + L\,\dot Q_d,\qquad
    Q_p - Q_d = C\,\frac{d}{dt}\bigl(P_p - (R + S|Q_p|)\,Q_p\bigr).$$

    **Attributes:** `segment_node` (proximal, distal); over segments `resistance` R (Pa·s/m³),
    `quadratic` S (Pa·s²/m⁶), `inertance` L (Pa·s²/m³), `compliance` C (m³/Pa), `length` (m, NaN
    where it is not stated); `direction`, −1 where the segment was turned to point away from the
    roots; `segment_name`. All pressures are total ones.

    A segment that was turned keeps the law that it had in its file: where `direction` is −1, p of
    the equations is the distal node of `segment_node` and d the proximal one, and flows are those
    from p to d. This matters for C, which lies behind R; the steady loss is the same both ways.

    Build one with [`build_lumped`][] or `jaxperf.io.read_svzerod`.
    """

    segment_node: Int[Array, "s 2"]
    resistance: Float[Array, " s"]
    quadratic: Float[Array, " s"]
    inertance: Float[Array, " s"]
    compliance: Float[Array, " s"]
    length: Float[Array, " s"]
    direction: Int[Array, " s"]
    topology: Topology
    segment_name: tuple[str, ...] = eqx.field(static=True)
    n_nodes: int = eqx.field(static=True)
    # these are never padded; solvers ask every network
    real: None = None

    @property
    def n_segments(self) -> int:
        return self.resistance.shape[0]

    @property
    def roots(self) -> Int[Array, " r"]:
        return self.topology.root

    @property
    def terminals(self) -> Int[Array, " t"]:
        """Leaf nodes, roots excepted."""
        return self.topology.terminal


# What a boundary and an elimination take.
AnyNetwork: TypeAlias = VascularNetwork | LumpedNetwork


def build_lumped(
    segment_node: Int[np.ndarray, "s 2"],
    *,
    root: Int[np.ndarray, " r"],
    resistance: Float[np.ndarray, " s"],
    quadratic: Float[np.ndarray, " s"] | None = None,
    inertance: Float[np.ndarray, " s"] | None = None,
    compliance: Float[np.ndarray, " s"] | None = None,
    length: Float[np.ndarray, " s"] | None = None,
    segment_name: tuple[str, ...] | None = None,
    where: str = "lumped network",
) -> LumpedNetwork:
    """Check raw arrays and make a network of lumped segments; runs on the host.

    **Arguments:**

    - `segment_node`: (s, 2), in any direction; loops are allowed.
    - `root`: nodes the network is fed from, at least one in each connected piece. Segments point
      away from the first one of a piece; the others are ends like outlets.
    - `resistance`, `quadratic`, `inertance`, `compliance`: (s,), SI; 0 where left out.
    - `length`: (s,), m; `segment_name`, one for each.
    - `where`: the file or key that messages name.

    **Returns:** a [`LumpedNetwork`][].

    **Errors:** [`InputError`][] that names the segment, for numbers that are negative or not
    finite, and for a segment with neither a resistance nor a quadratic loss, in which no pressure
    would say the flow.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    network = jp.network.build_lumped(
        np.array([[0, 1], [1, 2], [1, 3]]), root=np.array([0]), resistance=np.array([1e8, 4e8, 4e8])
    )
    ```
    """
    segment_node = np.asarray(segment_node, np.int64).reshape(-1, 2)
    n = len(segment_node)
    names = tuple(f"segment {i}" for i in range(n)) if segment_name is None else segment_name
    zero = np.zeros(n)
    given = {
        "resistance": resistance,
        "quadratic": zero if quadratic is None else quadratic,
        "inertance": zero if inertance is None else inertance,
        "compliance": zero if compliance is None else compliance,
    }
    values = {name: np.asarray(x, np.float64) for name, x in given.items()}
    _check_values(values, names, where)
    n_nodes = int(segment_node.max()) + 1 if n else 0
    root = np.atleast_1d(np.asarray(root, np.int64))
    _, first = np.unique(components(n_nodes, segment_node)[root], return_index=True)
    directed, topology = build_topology(
        n_nodes,
        segment_node,
        root[np.sort(first)],
        np.arange(n),
        allow_loops=True,
        sweep_shape=None,
        where=where,
    )
    turned = directed[:, 0] != segment_node[:, 0]
    return LumpedNetwork(
        segment_node=as_leaf(directed, np.int32),
        resistance=as_leaf(values["resistance"]),
        quadratic=as_leaf(values["quadratic"]),
        inertance=as_leaf(values["inertance"]),
        compliance=as_leaf(values["compliance"]),
        length=as_leaf(np.full(n, np.nan) if length is None else np.asarray(length, np.float64)),
        direction=as_leaf(np.where(turned, -1, 1), np.int32),
        topology=topology,
        segment_name=names,
        n_nodes=n_nodes,
    )


def _check_values(values: dict[str, np.ndarray], names: tuple[str, ...], where: str) -> None:
    for name, value in values.items():
        bad = ~(np.isfinite(value) & (value >= 0.0))
        if bad.any():
            i = int(np.argmax(bad))
            raise InputError(
                f"the {name} of {names[i]} is {value[i]:g}",
                where=where,
                expected="zero or a positive number",
                fix="Correct it",
            )
    ideal = (values["resistance"] == 0.0) & (values["quadratic"] == 0.0)
    if ideal.any():
        raise InputError(
            f"{names[int(np.argmax(ideal))]} has neither a resistance nor a quadratic loss",
            where=where,
            expected="segments in which a pressure drives a flow",
            fix="Give it a resistance, or join its two ends to one node",
        )
