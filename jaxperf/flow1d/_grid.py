"""The cells of the one-dimensional vessels: where a network is cut, and how it is filled."""

import math
from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .._custom_types import as_leaf, float_leaf, Parameter
from .._defaults import DEFAULT_CELL_TIME
from .._misc import InputError
from ..network import AbstractBoundary, VascularNetwork, vessel_label
from ..vessel import AbstractElasticWall, AbstractWall, Blood

# Where the admittance of a vessel jumps by more than this factor, a node keeps the flow at the step
# to what the narrower side can take; one cell across it would ask for that of the wider.
_ADMITTANCE_JUMP = 1.25


class RealGrid(eqx.Module):
    """How many entries of a padded grid are real: int32 scalars."""

    slot: Int[Array, ""]
    piece: Int[Array, ""]
    node: Int[Array, ""]


class Grid(eqx.Module):
    """Cells of every vessel in one row, every vessel between two gaps of its own.

    With one row every difference of neighbours is one slice of one array. A *slot* is a cell or a
    gap, face f lies between the slots f − 1 and f, and a face between a gap and a cell is an *end*
    of a vessel. A vessel here is an unbranched course between two nodes at which something
    happens: a junction, a boundary, the middle of a lesion, a step in calibre or stiffness. All
    that a lesion loses lies in its middle, with the flow there, also where it lies over a junction.

    **Attributes:**

    - slots (k): `cell_segment`, `cell_fraction` say where the middle of each cell lies on the
      network; `inertia` is the factor on the density in the momentum equation, above 1 only in
      vessels shorter than a cell, None where there are none.
    - faces (f): `face_segment`, `face_fraction`.
    - pieces (p): the part of a segment, from `piece_fraction[:, 0]` to `[:, 1]`, that lies in
      slot `piece_slot`.
    - ends of vessels by the node they lie at (w, n), padded: `end_sign`, +1 for a vessel's distal
      end, −1 for its proximal one and 0 for none; `end_slot` and `end_neighbour`, the last cell
      and the one before it; `end_face`; `end_lesion`, the lesion whose loss lies there, or −1.
    - nodes (n): `node_network`, the network's node, or −1 in the middle of a lesion.
    - vessels (v): `vessel_slot` (v, 2), its first and last slot; `vessel_segment`, one of its
      segments, for its name.
    - networks that do not touch each other, `n_parts` of them: `cell_part` (k,) and `node_part`
      (n,).
    - `cell_time`: a wave takes this long (s) or longer through every cell.
    - `real`: how many entries are real where [`jaxperf.pad_problem`][] has added gaps, nodes
      without an end and pieces of no length, else None.
    """

    cell_segment: Int[Array, " k"]
    cell_fraction: Float[Array, " k"]
    inertia: Float[Array, " k"] | None
    is_cell: Float[Array, " k"]
    face_segment: Int[Array, " f"]
    face_fraction: Float[Array, " f"]
    piece_slot: Int[Array, " p"]
    piece_segment: Int[Array, " p"]
    piece_fraction: Float[Array, "p 2"]
    end_sign: Int[Array, "w n"]
    end_slot: Int[Array, "w n"]
    end_neighbour: Int[Array, "w n"]
    end_face: Int[Array, "w n"]
    end_lesion: Int[Array, "w n"]
    node_network: Int[Array, " n"]
    vessel_slot: Int[Array, "v 2"]
    vessel_segment: Int[Array, " v"]
    cell_part: Int[Array, " k"]
    node_part: Int[Array, " n"]
    n_parts: int = eqx.field(static=True)
    cell_time: Parameter = eqx.field(converter=float_leaf)
    real: RealGrid | None = None

    @property
    def n_slots(self) -> int:
        return self.cell_segment.shape[0]

    @property
    def n_vessels(self) -> int:
        return self.vessel_slot.shape[0]

    @property
    def n_cells(self) -> int:
        """Host only."""
        return int(np.count_nonzero(np.asarray(self.is_cell) > 0))

    @property
    def n_nodes(self) -> int:
        return self.node_network.shape[0]


@dataclass
class _Course:
    """One vessel as a chain of pieces of segments: (segment, from, to), proximal to distal."""

    pieces: list[tuple[int, float, float]]
    proximal: int
    distal: int
    proximal_lesion: int = -1


def make_grid(
    network: VascularNetwork,
    boundary: tuple[AbstractBoundary, ...],
    blood: Blood,
    wall: AbstractWall,
    *,
    cell_time: float = DEFAULT_CELL_TIME,
) -> Grid:
    r"""Fill a network with cells of equal travel time; runs on the host.

    A wave at the speed $c$ of the unloaded vessel crosses every cell in `cell_time` or somewhat
    more, so that all cells allow the same time step. A vessel that a wave crosses in less gets one
    cell and a larger inertia, $m = (\tau/T)^2$ with $T$ its own travel time: its resistance, its
    compliance and all steady flows stay exact, its inertance is enlarged.

    **Arguments:**

    - `boundary`: nodes of a boundary end a vessel, also in the middle of a course.
    - `blood`, `wall`: give the wave speed.
    - `cell_time`: τ, s.

    **Errors:** [`InputError`][] for a wall without a wave speed and a `cell_time` that is not
    positive.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    vessel = jp.build_network(
        np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([[0, 1]]), np.full(2, 2e-3),
        root=np.array([0]), frame="model",
    )
    wave = jp.Waveform(np.array([0.0, 0.3, 0.8]), np.array([[1.1e4, 1.5e4, 1.1e4]]), 0.8)
    inlet, outlet = jp.PressureWaveform(0, wave), jp.ResistanceOutlet(1, 2e10, 0.0)
    wall = jp.SqrtAreaWall(jp.OlufsenStiffness(), 12000.0)
    grid = jp.flow1d.make_grid(vessel, (inlet, outlet), jp.Blood(), wall, cell_time=1e-3)
    ```
    """
    if not cell_time > 0:
        raise InputError(
            f"cell_time is {cell_time}",
            where="make_grid",
            expected="a positive time in s",
            fix="Give the time a wave may take through one cell, such as 3e-4",
        )
    slowness = 1.0 / segment_wave_speed(network, blood, wall)
    courses, node_network = _courses(network, boundary, slowness)
    filled = [_fill(network, course, slowness, cell_time) for course in courses]
    return _assemble(courses, filled, node_network, cell_time)


def segment_wave_speed(
    network: VascularNetwork, blood: Blood, wall: AbstractWall
) -> Float[np.ndarray, "s 2"]:
    """Wave speed (m/s) of the unloaded vessel at both ends of every segment."""
    return np.asarray(_wave_speed(elastic(wall), network.radius, blood.density), np.float64)


@eqx.filter_jit
def _wave_speed(
    wall: AbstractElasticWall, radius: Float[Array, "s 2"], density: Parameter
) -> Float[Array, "s 2"]:
    return wall.wave_speed(math.pi * radius**2, radius, density)


def elastic(wall: AbstractWall) -> AbstractElasticWall:
    """The wall, if it lets waves pass."""
    if isinstance(wall, AbstractElasticWall):
        return wall
    raise InputError(
        f"the wall is a {type(wall).__name__}, in which pressure travels at infinite speed",
        where="wall",
        expected="an elastic wall",
        fix="Use SqrtAreaWall or SvOneDWall, or rigid_limit_wall for a wall of given wave speed",
    )


def _courses(
    network: VascularNetwork,
    boundary: tuple[AbstractBoundary, ...],
    slowness: Float[np.ndarray, "s 2"],
) -> tuple[list[_Course], Int[np.ndarray, " n"]]:
    """The vessels, and the network node of every grid node."""
    node = np.asarray(network.segment_node)
    incoming = np.bincount(node[:, 1], minlength=network.n_nodes)
    outgoing = np.bincount(node[:, 0], minlength=network.n_nodes)
    stops = (incoming != 1) | (outgoing != 1)
    # Where one segment follows one other, the sum is the logarithm of the step between them.
    admittance = np.log(np.asarray(network.radius) ** 2 * slowness)
    step = np.bincount(node[:, 1], admittance[:, 1], network.n_nodes)
    step -= np.bincount(node[:, 0], admittance[:, 0], network.n_nodes)
    stops |= np.abs(step) > math.log(_ADMITTANCE_JUMP)
    for condition in boundary:
        stops[np.asarray(condition.node)] = True
    middle = _lesion_middles(network)
    after = dict(zip(node[:, 0].tolist(), range(len(node)), strict=True))
    number = np.full(network.n_nodes, -1)
    number[stops] = np.arange(stops.sum())
    node_network = np.flatnonzero(stops).tolist()
    courses: list[_Course] = []
    for first in np.flatnonzero(stops[node[:, 0]]):
        segment, course = int(first), _Course([], int(number[node[first, 0]]), -1)
        while True:
            start = 0.0
            for fraction, lesion in middle.get(segment, []):
                if fraction > 1.0 - 1e-9 and stops[node[segment, 1]]:
                    # the middle is a node already, with other vessels: half a segment before it
                    fraction = 0.5
                course.pieces.append((segment, start, fraction))
                course.distal = len(node_network)
                courses.append(course)
                node_network.append(-1)
                course, start = _Course([], course.distal, -1, lesion), fraction
            course.pieces.append((segment, start, 1.0))
            end = int(node[segment, 1])
            if stops[end]:
                course.distal = int(number[end])
                courses.append(course)
                break
            segment = after[end]
    return courses, np.asarray(node_network)


def _lesion_middles(network: VascularNetwork) -> dict[int, list[tuple[float, int]]]:
    """For each segment that holds the middle of a lesion: where, and which lesion."""
    pair_lesion = np.asarray(network.lesion.lesion)
    found: dict[int, list[tuple[float, int]]] = {}
    for lesion in range(len(network.lesion.length)):
        of_it = np.flatnonzero(pair_lesion == lesion)
        segment = np.asarray(network.lesion.segment)[of_it]
        share = np.asarray(network.lesion.fraction)[of_it]
        order = _downstream_order(np.asarray(network.segment_node)[segment])
        before = np.concatenate([[0.0], np.cumsum(share[order])])
        k = int(np.clip(np.searchsorted(before, 0.5) - 1, 0, len(order) - 1))
        inside = (0.5 - before[k]) / share[order][k]
        found.setdefault(int(segment[order][k]), []).append((float(inside), lesion))
    return {segment: sorted(entries) for segment, entries in found.items()}


def _downstream_order(segment_node: Int[np.ndarray, "k 2"]) -> Int[np.ndarray, " k"]:
    """A chain of segments from its proximal end."""
    start = dict(zip(segment_node[:, 0].tolist(), range(len(segment_node)), strict=True))
    k = int(np.flatnonzero(~np.isin(segment_node[:, 0], segment_node[:, 1]))[0])
    order = []
    while k is not None:
        order.append(k)
        k = start.get(int(segment_node[k, 1]))
    return np.asarray(order)


@dataclass
class _Filled:
    """Cells of one vessel: faces as (piece, fraction of its segment), and the inertia."""

    face: list[tuple[int, float]]
    middle: list[tuple[int, float]]
    overlap: list[tuple[int, int, float, float]]
    inertia: float


def _fill(
    network: VascularNetwork, course: _Course, slowness: Float[np.ndarray, "s 2"], cell_time: float
) -> _Filled:
    """Cells of equal travel time on one course."""
    segment = np.array([p[0] for p in course.pieces])
    span = np.array([p[1:] for p in course.pieces])
    length = np.asarray(network.length)[segment] * (span[:, 1] - span[:, 0])
    edge = np.concatenate([[0.0], np.cumsum(length)])
    at = lambda f: slowness[segment, 0] * (1 - f) + slowness[segment, 1] * f
    duration = 0.5 * (at(span[:, 0]) + at(span[:, 1])) * length
    time = np.concatenate([[0.0], np.cumsum(duration)])
    n = max(1, int(time[-1] / cell_time * (1 + 1e-9)))
    inertia = max(1.0, (n * cell_time / time[-1]) ** 2)
    face = np.interp(np.linspace(0.0, time[-1], n + 1), time, edge)
    face[0], face[-1] = 0.0, edge[-1]

    def place(x: Float[np.ndarray, " x"]) -> list[tuple[int, float]]:
        k = np.clip(np.searchsorted(edge, x, side="right") - 1, 0, len(segment) - 1)
        inside = np.clip((x - edge[k]) / length[k], 0.0, 1.0)
        at = span[k, 0] + inside * (span[k, 1] - span[k, 0])
        return list(zip(segment[k].tolist(), at.tolist(), strict=True))

    cut = np.unique(np.concatenate([face, edge]))
    cut = cut[np.concatenate([[True], np.diff(cut) > 1e-12 * edge[-1]])]
    cut[-1] = edge[-1]
    middle = 0.5 * (cut[1:] + cut[:-1])
    cell = np.clip(np.searchsorted(face, middle) - 1, 0, n - 1)
    k = np.clip(np.searchsorted(edge, middle) - 1, 0, len(segment) - 1)
    width = span[k, 1] - span[k, 0]
    low = span[k, 0] + (cut[:-1] - edge[k]) / length[k] * width
    high = span[k, 0] + (cut[1:] - edge[k]) / length[k] * width
    overlap = list(zip(*(x.tolist() for x in (cell, segment[k], low, high)), strict=True))
    return _Filled(place(face), place(0.5 * (face[1:] + face[:-1])), overlap, inertia)


def _assemble(
    courses: list[_Course],
    filled: list[_Filled],
    node_network: Int[np.ndarray, " n"],
    cell_time: float,
) -> Grid:
    """All vessels in one row, every one between two gaps."""
    cell, face, inertia, is_cell = [], [], [], []
    overlap, vessel_slot = [], []
    for parts in filled:
        first, n = len(cell) + 1, len(parts.middle)
        vessel_slot.append((first, first + n - 1))
        overlap += [(first + c, s, low, high) for c, s, low, high in parts.overlap]
        # Gaps repeat the place beside them, and so does the face between two gaps.
        cell += [parts.middle[0], *parts.middle, parts.middle[-1]]
        inertia += [1.0, *[parts.inertia] * n, 1.0]
        is_cell += [0.0, *[1.0] * n, 0.0]
        face += [parts.face[0], *parts.face]
    face = [*face, face[-1]]
    slot = np.asarray(vessel_slot)
    distal, proximal = [c.distal for c in courses], [c.proximal for c in courses]
    n_parts, part = _parts(np.asarray(proximal), np.asarray(distal), len(node_network))
    slots_of = [len(parts.middle) + 2 for parts in filled]
    ends = _Ends(
        node=np.asarray(distal + proximal),
        slot=np.concatenate([slot[:, 1], slot[:, 0]]),
        face=np.concatenate([slot[:, 1] + 1, slot[:, 0]]),
        # In a vessel of one cell the neighbour is the cell itself: no slope.
        neighbour=np.concatenate(
            [np.maximum(slot[:, 1] - 1, slot[:, 0]), np.minimum(slot[:, 0] + 1, slot[:, 1])]
        ),
        sign=np.repeat([1, -1], len(courses)),
        lesion=np.asarray([-1] * len(courses) + [c.proximal_lesion for c in courses]),
    )
    at_node = lambda values, padding: _by_node(ends.node, values, len(node_network), padding)
    index, number = (lambda x: as_leaf(np.asarray(x), np.int32)), as_leaf
    return Grid(
        cell_segment=index([c[0] for c in cell]),
        cell_fraction=number(np.array([c[1] for c in cell], float)),
        inertia=number(np.array(inertia)) if max(inertia) > 1.0 else None,
        is_cell=number(np.array(is_cell)),
        face_segment=index([f[0] for f in face]),
        face_fraction=number(np.array([f[1] for f in face], float)),
        piece_slot=index([o[0] for o in overlap]),
        piece_segment=index([o[1] for o in overlap]),
        piece_fraction=number(np.array([o[2:] for o in overlap], float)),
        end_sign=index(at_node(ends.sign, 0)),
        end_slot=index(at_node(ends.slot, 0)),
        end_neighbour=index(at_node(ends.neighbour, 0)),
        # Beyond the last face: a scatter drops what has no end.
        end_face=index(at_node(ends.face, len(face))),
        end_lesion=index(at_node(ends.lesion, -1)),
        node_network=index(node_network),
        vessel_slot=index(slot),
        vessel_segment=index([c.pieces[0][0] for c in courses]),
        cell_part=index(np.repeat(part[np.asarray(proximal)], slots_of)),
        node_part=index(part),
        n_parts=n_parts,
        cell_time=float(cell_time),
    )


def _parts(
    proximal: Int[np.ndarray, " v"], distal: Int[np.ndarray, " v"], n_nodes: int
) -> tuple[int, Int[np.ndarray, " n"]]:
    """The number of networks that do not touch, and the one that each node lies in."""
    joined = coo_matrix((np.ones(len(distal)), (proximal, distal)), (n_nodes, n_nodes))
    return connected_components(joined, directed=False)


@dataclass
class _Ends:
    node: np.ndarray
    slot: np.ndarray
    face: np.ndarray
    neighbour: np.ndarray
    sign: np.ndarray
    lesion: np.ndarray


def _by_node(
    node: Int[np.ndarray, " e"], values: Int[np.ndarray, " e"], n_nodes: int, padding: int
) -> Int[np.ndarray, "w n"]:
    """What belongs to the ends, by node: as many rows as the busiest node has ends."""
    order = np.argsort(node, kind="stable")
    first = np.searchsorted(node[order], np.arange(n_nodes))
    row = np.arange(len(node)) - first[node[order]]
    table = np.full((row.max() + 1, n_nodes), padding)
    table[row, node[order]] = np.asarray(values)[order]
    return table


def grid_vessel_label(network: VascularNetwork, grid: Grid, slot: int) -> str:
    """The name of the vessel a slot lies in."""
    first = np.asarray(grid.vessel_slot)[:, 0]
    vessel = int(np.clip(np.searchsorted(first, slot, side="right") - 1, 0, len(first) - 1))
    return vessel_label(network, int(np.asarray(grid.vessel_segment)[vessel]))
