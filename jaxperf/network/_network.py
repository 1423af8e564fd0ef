"""The vascular network: centreline nodes, tapered segments, named branches, declared lesions."""

from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from .._custom_types import as_leaf
from .._misc import check_frame, InputError
from ..units import M_PER_MM
from ._topology import build_topology, Topology


class Lesions(eqx.Module):
    """Declared lesions, and the segments each one lies on.

    **Attributes:** over lesions `l`: `diameter_reduction` (0 to 1), `length` (m); over pairs `k`
    of a lesion with a segment inside it: `segment`, from the lesion's proximal end on, `lesion`,
    and `fraction`, the share of the lesion's length on that segment.

    The reference radius is not repeated here: segments inside a lesion have it as their radius,
    so that a derivative with respect to the network's radii reaches the lesion's loss too.
    """

    diameter_reduction: Float[Array, " l"]
    length: Float[Array, " l"]
    segment: Int[Array, " k"]
    lesion: Int[Array, " k"]
    fraction: Float[Array, " k"]

    @property
    def is_occlusion(self) -> Bool[Array, " l"]:
        """Whether a lesion closes its vessel: a reduction of exactly one."""
        return self.diameter_reduction == 1.0

    @property
    @eqx.filter_jit  # one program where the host asks
    def closes(self) -> Bool[Array, " k"]:
        """The pairs whose segment an occlusion closes: the first of its lesion.

        One closed segment stops the flow. Two in a row would leave the node between them without
        any law for its pressure, as two occlusions do without an outlet between them: a solve
        refuses these.
        """
        pair = jnp.arange(self.lesion.shape[0])
        none = jnp.full(self.length.shape, self.lesion.shape[0])
        first = none.at[self.lesion].min(pair)
        return self.is_occlusion[self.lesion] & (first[self.lesion] == pair)


def no_lesions() -> Lesions:
    """Lesions of a healthy network: empty arrays."""
    none, index = as_leaf(np.zeros(0)), as_leaf(np.zeros(0, np.int32))
    return Lesions(none, none, index, index, none)


class Place(NamedTuple):
    """A place on a branch.

    **Attributes:** `segment`; `fraction` of its length from its proximal end; `end`, the nearer
    of its ends, 0 the proximal and 1 the distal one; `node`, the node there. So the static pressure
    nearest to a place is `pressure_static[place.segment, place.end]`.
    """

    segment: int
    fraction: float
    end: int
    node: int


class RealNetwork(eqx.Module):
    """How many entries of a padded network are real: int32 scalars."""

    node: Int[Array, ""]
    segment: Int[Array, ""]
    lesion: Int[Array, ""]


class VascularNetwork(eqx.Module):
    """Vessels as a graph of centreline nodes joined by segments.

    A *node* is a point of a centreline. A *segment* joins two nodes; its radius tapers linearly
    between its own two end values, so a sampled radius is a chain of segments and a step in
    calibre lies at a node. A *vessel* is a maximal unbranched chain of segments, a *branch* a
    named anatomical course (`LAD`) of one vessel or many. Segments point away from the roots.

    **Attributes:** `node_position` (m); `segment_node` (proximal, distal); `radius` (m) at the
    proximal and distal end; `length` (m), which may exceed the chord; `branch`, an index into
    `branch_name`; `frame`, the patient frame of the positions (`LPS`, `RAS`, or `model` for a
    network that belongs to no image); `real`, how many entries are real where the network is padded
    by [`jaxperf.pad_problem`][], else None.

    Build one with [`build_network`][] or a reader of `jaxperf.io`.
    """

    node_position: Float[Array, "n 3"]
    segment_node: Int[Array, "s 2"]
    radius: Float[Array, "s 2"]
    length: Float[Array, " s"]
    branch: Int[Array, " s"]
    lesion: Lesions
    topology: Topology
    branch_name: tuple[str, ...] = eqx.field(static=True)
    frame: str = eqx.field(static=True)
    real: RealNetwork | None = None

    @property
    def n_nodes(self) -> int:
        return self.node_position.shape[0]

    @property
    def n_segments(self) -> int:
        return self.length.shape[0]

    @property
    def n_vessels(self) -> int:
        """The number of maximal unbranched chains; host only."""
        return int(np.max(np.asarray(self.topology.vessel))) + 1

    @property
    def roots(self) -> Int[Array, " r"]:
        return self.topology.root

    @property
    @eqx.filter_jit  # one program where the host asks
    def is_closed(self) -> Bool[Array, " s"]:
        """The segments that an occlusion closes."""
        lesion, none = self.lesion, jnp.zeros(self.n_segments, bool)
        return none if lesion.length.shape[0] == 0 else none.at[lesion.segment].max(lesion.closes)

    @property
    def terminals(self) -> Int[Array, " t"]:
        """Leaf nodes, roots excepted."""
        return self.topology.terminal

    def at(self, branch: str, *, mm: float) -> Place:
        """The place at a distance along a branch; host only.

        **Arguments:** `branch`, its name; `mm`, from its proximal end along its course, mm.

        **Returns:** a [`Place`][]. Where two segments meet it is the end of the proximal one.

        **Errors:** [`InputError`][] for an unknown branch, one that divides, and a distance that
        is negative or beyond its length.
        """
        course, start = branch_course(self, branch)
        length = np.asarray(self.length)[course]
        total = float(start[-1] + length[-1])
        arc = mm * M_PER_MM
        # a distance read off lengths may miss the end of a segment or of the branch by round-off
        round_off = 1e-9 * total
        if not 0 <= arc <= total + round_off:
            raise InputError(
                f"{mm} mm does not lie on the branch",
                where=f"place on {branch}",
                expected=f"0 to {total / M_PER_MM:.2f} mm",
                fix="Measure from the proximal end of the branch",
            )
        k = max(int(np.searchsorted(start, arc - round_off)) - 1, 0)
        fraction = min(float((arc - start[k]) / length[k]), 1.0)
        segment, end = int(course[k]), int(fraction >= 0.5)
        return Place(segment, fraction, end, int(np.asarray(self.segment_node)[segment, end]))

    def outlet(self, branch: str) -> int:
        """The node at the distal end of a branch; host only.

        **Errors:** [`InputError`][] for an unknown branch and for one that divides.
        """
        course, _ = branch_course(self, branch)
        return int(np.asarray(self.segment_node)[course[-1], 1])


def branch_course(
    network: VascularNetwork, branch: str
) -> tuple[Int[np.ndarray, " b"], Float[np.ndarray, " b"]]:
    """The segments of a branch from its proximal end, and the arc length (m) where each starts.

    **Errors:** [`InputError`][] for an unknown branch, and for one that is no single course
    (several ends), where an arc length means nothing.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    segment, start = jp.network.branch_course(tree, "LAD")
    ```
    """
    if branch not in network.branch_name:
        raise InputError(
            f"there is no branch {branch!r}",
            where="branch",
            expected=f"one of {', '.join(network.branch_name)}",
            fix="Use one of these names",
        )
    member = np.flatnonzero(np.asarray(network.branch) == network.branch_name.index(branch))
    node = np.asarray(network.segment_node)[member]
    first = ~np.isin(node[:, 0], node[:, 1])
    if len(np.unique(node[:, 0])) < len(member) or first.sum() != 1:
        raise InputError(
            f"branch {branch!r} divides or has gaps",
            where="branch",
            expected="a single unbranched course",
            fix="Name its parts separately",
        )
    after = dict(zip(node[:, 0].tolist(), range(len(member)), strict=True))
    order = [int(np.flatnonzero(first)[0])]
    while (following := after.get(int(node[order[-1], 1]))) is not None:
        order.append(following)
    course = member[order]
    length = np.asarray(network.length)[course]
    return course, np.concatenate([[0.0], np.cumsum(length)[:-1]])


def _refuse(
    values: np.ndarray, bad: np.ndarray | np.bool, what: str, where: str, expected: str, fix: str
) -> None:
    if np.any(bad):
        i = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{what} {i} is {np.asarray(values)[i]}", where=where, expected=expected, fix=fix
        )


def _check_arrays(
    node_position: Float[np.ndarray, "n 3"],
    segment_node: Int[np.ndarray, "s 2"],
    radius: Float[np.ndarray, "s 2"],
    length: Float[np.ndarray, " s"],
    where: str,
) -> None:
    n_nodes = len(node_position)
    if n_nodes < 2 or len(segment_node) < 1:
        raise InputError(
            f"the network has {n_nodes} nodes and {len(segment_node)} segments",
            where=where,
            expected="at least two nodes and one segment",
            fix="Check that the file holds a centreline",
        )
    bad = ~np.isfinite(node_position).all(1)
    _refuse(node_position, bad, "position of node", where, "finite numbers", "Remove the node")
    bad = ((segment_node < 0) | (segment_node >= n_nodes)).any(1)
    _refuse(segment_node, bad, "segment", where, f"nodes 0 to {n_nodes - 1}", "Renumber the nodes")
    bad = segment_node[:, 0] == segment_node[:, 1]
    _refuse(segment_node, bad, "segment", where, "two different nodes", "Remove the segment")
    bad = ~(np.isfinite(radius) & (radius > 0)).all(1)
    _refuse(radius, bad, "radius (m) of segment", where, "a positive number", "Measure it again")
    # No vessel is finer than a capillary or wider than an aorta; Pries' law has a pole at 0.55 µm.
    bad = ((radius < 1.5e-6) | (radius > 25e-3)).any(1)
    _refuse(radius, bad, "radius (m) of segment", where, "1.5e-6 to 25e-3 m", "Check the unit")
    bad = ~(np.isfinite(length) & (length > 0))
    _refuse(length, bad, "length (m) of segment", where, "a positive number", "Merge its two nodes")


def build_network(
    node_position: Float[np.ndarray, "n 3"],
    segment_node: Int[np.ndarray, "s 2"],
    radius: Float[np.ndarray, "..."],
    *,
    root: Int[np.ndarray, " r"],
    frame: str,
    length: Float[np.ndarray, " s"] | None = None,
    branch: Int[np.ndarray, " s"] | None = None,
    branch_name: tuple[str, ...] = ("network",),
    lesion: Lesions | None = None,
    allow_loops: bool = False,
    sweep_shape: tuple[int, int] | None = None,
    where: str = "network",
) -> VascularNetwork:
    """Check raw arrays and make a network of them; runs on the host.

    **Arguments:**

    - `node_position`: (n, 3) in m.
    - `segment_node`: (s, 2) node pairs in any direction; they are directed away from the root.
    - `radius`: (n,) at the nodes or (s, 2) at the ends of each segment as given, in m.
    - `root`: the nodes the network is fed from, at least one in each connected piece. Pieces fed
      from several roots are joined by collaterals and need `allow_loops`.
    - `frame`: `LPS`, `RAS` or `model`.
    - `length`: (s,) in m; the chord where left out.
    - `branch`, `branch_name`: the branch of each segment and the branches' names.
    - `lesion`: declared lesions, in the numbering of `segment_node`.
    - `allow_loops`: keep segments that close loops or join two roots (collaterals) instead of
      refusing them.
    - `sweep_shape`: fixes the shape of the order of elimination, so that several networks of
      equal counts share one compiled program.
    - `where`: the file or key that messages name.

    **Returns:** a [`VascularNetwork`][].

    **Errors:** [`InputError`][] for non-finite or non-positive values, indices out of range,
    pieces without a root, and loops and joined roots unless allowed.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    node = 1e-3 * np.array([[0, 0, 0], [10, 0, 0], [60, 20, 0]])
    radius = 1e-3 * np.array([2.2, 2.0, 1.5])
    tree = jp.build_network(
        node, np.array([[0, 1], [1, 2]]), radius, root=np.array([0]), frame="model"
    )
    ```
    """
    node_position = np.asarray(node_position, np.float64)
    segment_node = np.asarray(segment_node, np.int64).reshape(-1, 2)
    radius = np.asarray(radius, np.float64)
    if radius.shape == (len(node_position),) and len(segment_node):
        radius = radius[np.clip(segment_node, 0, len(radius) - 1)]
    if radius.shape != segment_node.shape:
        raise InputError(
            f"radius has shape {radius.shape}",
            where=where,
            expected=f"({len(node_position)},) at the nodes or {segment_node.shape} at the ends",
            fix="Give one radius for each node, or two for each segment",
        )
    check_frame(frame, where)
    if length is None:
        ends = node_position[np.clip(segment_node, 0, len(node_position) - 1)]
        length = np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1)
    length = np.asarray(length, np.float64)
    branch = np.zeros(len(segment_node), np.int64) if branch is None else np.asarray(branch)
    _check_arrays(node_position, segment_node, radius, length, where)
    directed, topology = build_topology(
        len(node_position),
        segment_node,
        np.atleast_1d(np.asarray(root, np.int64)),
        branch,
        allow_loops=allow_loops,
        sweep_shape=sweep_shape,
        where=where,
    )
    flipped = directed[:, 0] != segment_node[:, 0]
    return VascularNetwork(
        node_position=as_leaf(node_position),
        segment_node=as_leaf(directed, np.int32),
        radius=as_leaf(np.where(flipped[:, None], radius[:, ::-1], radius)),
        length=as_leaf(length),
        branch=as_leaf(branch, np.int32),
        lesion=no_lesions() if lesion is None else lesion,
        topology=topology,
        branch_name=tuple(branch_name),
        frame=frame,
    )


def vessel_label(network: VascularNetwork, segment: int) -> str:
    """The name a message gives a segment: its branch, and the numbers of vessel and segment."""
    branch, vessel = (np.asarray(x)[segment] for x in (network.branch, network.topology.vessel))
    # A padded network has left its names behind.
    name = network.branch_name[branch] if network.branch_name else "network"
    return f"{name} (vessel {vessel}, segment {segment})"
