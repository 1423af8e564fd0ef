"""Where a network is cut into vessels, and how vessels are cut into cells of equal travel time.

A grid is made once, in double precision on the host, and nothing is differentiated through it: it
holds fractions of segments, so that lengths of cells follow those of the segments.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from ._laws import Blood, ElasticWall
from ._steady import Network

# A step of admittance by more than this gets a node.
_STEP = 1.25
# Travel times that fall short of a whole number of cells by less than this are rounding.
_FORGIVEN = 1e-9


@dataclass(frozen=True)
class Grid:
    """Cells of all vessels, one vessel after the other, each from its proximal to its distal end.

    A vessel is an unbranched course between two nodes of the grid: junctions, ends, nodes of a
    condition, steps of admittance and middles of lesions.

    **Attributes:** over cells k, `cell_segment` and `cell_fraction` say where the middle lies and
    `cell_vessel` in which vessel; over faces f = k + v, `face_segment` and `face_fraction`; over
    pieces p of segments inside one cell, `piece_cell`, `piece_segment` and `piece_fraction` (p, 2);
    over vessels v, `vessel_node` (v, 2), its proximal and distal node, `vessel_inertia`, the factor
    m ≥ 1, and `vessel_lesion`, the lesion whose loss sits at its proximal end, or −1; over nodes n,
    `node_network`, the node of the network, or −1 for the middle of a lesion.
    """

    cell_segment: torch.Tensor
    cell_fraction: torch.Tensor
    cell_vessel: torch.Tensor
    face_segment: torch.Tensor
    face_fraction: torch.Tensor
    piece_cell: torch.Tensor
    piece_segment: torch.Tensor
    piece_fraction: torch.Tensor
    vessel_node: torch.Tensor
    vessel_inertia: torch.Tensor
    vessel_lesion: torch.Tensor
    node_network: torch.Tensor

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.cell_segment.shape[0]

    @property
    def n_vessels(self) -> int:
        """Number of vessels."""
        return self.vessel_node.shape[0]

    @property
    def n_nodes(self) -> int:
        """Number of nodes of the grid."""
        return self.node_network.shape[0]

    def cell_length(self, length: torch.Tensor) -> torch.Tensor:
        """Length of every cell (..., k), m, of segments of a length (..., s)."""
        width = self.piece_fraction.diff(dim=-1).squeeze(-1).to(length)
        part = length[..., self.piece_segment] * width
        start = torch.zeros((*part.shape[:-1], self.n_cells)).to(part)
        return start.index_add(-1, self.piece_cell, part)


@dataclass
class _Vessel:
    """Pieces (segment, from, to) in order, the nodes at both ends, the lesion at the first."""

    piece: list[tuple[int, float, float]]
    node: list[int]
    lesion: int


def make_grid(
    network: Network,
    condition_node: torch.Tensor,
    blood: Blood,
    wall: ElasticWall,
    cell_time: float,
) -> Grid:
    """Cut a network into cells which a wave at c of the unloaded vessel crosses in `cell_time`.

    A vessel of travel time T has max(1, ⌊T/τ⌋) cells; one with T < τ has the inertia (τ/T)².

    **Arguments:** a network without axes of cases; `condition_node` (b,), nodes that end a vessel;
    `cell_time` τ, s.

    **Errors:** `ValueError` for a network with axes of cases and a time that is not positive.
    """
    if not cell_time > 0:
        raise ValueError(f"cell_time is {cell_time}; expected a positive time in s, such as 1.5e-4")
    if network.radius.ndim != 2 or network.length.ndim != 1:
        raise ValueError(
            f"radius has the shape {tuple(network.radius.shape)}; a grid is that of one case: "
            "expected (s, 2). Make it for one, then put the radii of all into the problem"
        )
    with torch.no_grad():
        area = math.pi * network.radius**2
        speed = wall.wave_speed(area, network.radius, blood.density)
    host = lambda x: x.detach().cpu().double().numpy()
    slowness, length = 1.0 / host(speed), host(network.length)
    if slowness.shape != (length.size, 2):
        raise ValueError("blood and wall have axes of cases; make the grid for one case")
    vessels, node_network = _vessels(network, condition_node, host(area) * slowness)
    return _collected(vessels, [_cells(v, length, slowness, cell_time) for v in vessels],
                      node_network, network.radius.device)  # fmt: skip


def _vessels(
    network: Network, condition_node: torch.Tensor, admittance: np.ndarray
) -> tuple[list[_Vessel], list[int]]:
    """Unbranched courses between nodes, and the network's node of every node of the grid."""
    ends = network.segment_node.cpu().numpy()
    arriving: dict[int, list[int]] = {}
    leaving: dict[int, list[int]] = {}
    for segment, (proximal, distal) in enumerate(ends.tolist()):
        leaving.setdefault(proximal, []).append(segment)
        arriving.setdefault(distal, []).append(segment)
    conditioned = set(condition_node.cpu().tolist())

    def is_passed(node: int) -> bool:
        """Whether a vessel goes on through a node."""
        before, after = arriving.get(node, []), leaving.get(node, [])
        if node in conditioned or len(before) != 1 or len(after) != 1:
            return False
        ratio = admittance[before[0], 1] / admittance[after[0], 0]
        return bool(max(ratio, 1.0 / ratio) <= _STEP)

    middles = _middles_of_lesions(network)
    node_network = [node for node in range(network.n_nodes) if not is_passed(node)]
    number = {node: k for k, node in enumerate(node_network)}
    vessels: list[_Vessel] = []
    for first in [s for node in node_network for s in leaving.get(node, [])]:
        segment, begin = first, 0.0
        vessel = _Vessel([], [number[int(ends[first, 0])]], -1)
        while True:
            for fraction, lesion in middles.get(segment, []):
                vessel.piece.append((segment, begin, fraction))
                vessel.node.append(len(node_network))
                vessels.append(vessel)
                vessel, begin = _Vessel([], [len(node_network)], lesion), fraction
                node_network.append(-1)
            vessel.piece.append((segment, begin, 1.0))
            node = int(ends[segment, 1])
            if node in number:
                vessel.node.append(number[node])
                vessels.append(vessel)
                break
            segment, begin = leaving[node][0], 0.0
    return vessels, node_network


def _middles_of_lesions(network: Network) -> dict[int, list[tuple[float, int]]]:
    """By segment: the fraction at which half of a lesion's length lies upstream, and which one."""
    found: dict[int, list[tuple[float, int]]] = {}
    lesion = network.lesion
    if lesion is None:
        return found
    ends = network.segment_node.cpu().tolist()
    member = lesion.lesion.cpu().numpy()
    for number in range(lesion.length.shape[0]):
        pairs = np.flatnonzero(member == number)
        share = dict(zip(lesion.segment.cpu().numpy()[pairs].tolist(),
                         lesion.fraction.detach().cpu().double().numpy()[pairs].tolist(),
                         strict=True))  # fmt: skip
        by_start = {ends[s][0]: s for s in share}
        distal = {ends[s][1] for s in share}
        (segment,) = [s for s in share if ends[s][0] not in distal]
        upstream = 0.0
        while upstream + share[segment] < 0.5:
            upstream += share[segment]
            segment = by_start[ends[segment][1]]
        found.setdefault(segment, []).append(((0.5 - upstream) / share[segment], number))
    return {segment: sorted(entries) for segment, entries in found.items()}


@dataclass
class _Cells:
    """Faces and middles (segment, fraction), pieces (cell, segment, from, to), the inertia."""

    face: list[tuple[int, float]]
    middle: list[tuple[int, float]]
    piece: list[tuple[int, int, float, float]]
    inertia: float


def _cells(vessel: _Vessel, length: np.ndarray, slowness: np.ndarray, cell_time: float) -> _Cells:
    """Cells of equal travel time along one vessel; inside a piece, distance is linear in time."""
    segment = np.array([piece[0] for piece in vessel.piece])
    low, high = np.array([piece[1:] for piece in vessel.piece]).T
    proximal, distal = slowness[segment].T
    at = lambda f: proximal * (1.0 - f) + distal * f
    width = length[segment] * (high - low)
    place = np.concatenate([[0.0], np.cumsum(width)])
    clock = np.concatenate([[0.0], np.cumsum(0.5 * (at(low) + at(high)) * width)])
    total = clock[-1]
    n = max(1, math.floor(total / cell_time * (1.0 + _FORGIVEN)))
    face = np.interp(np.arange(n + 1) * (total / n), clock, place)
    face[[0, -1]] = place[[0, -1]]

    def located(x: np.ndarray) -> list[tuple[int, float]]:
        k = np.clip(np.searchsorted(place, x, side="right") - 1, 0, len(segment) - 1)
        inside = np.clip((x - place[k]) / width[k], 0.0, 1.0)
        return [(int(segment[i]), float(low[i] + t * (high[i] - low[i])))
                for i, t in zip(k, inside, strict=True)]  # fmt: skip

    pieces: list[tuple[int, int, float, float]] = []
    for cell in range(n):
        for i in range(len(segment)):
            begin, end = max(face[cell], place[i]), min(face[cell + 1], place[i + 1])
            # Shorter pieces are what rounding leaves of a face at the end of a segment.
            if end - begin > 1e-12 * place[-1]:
                part = [low[i] + (x - place[i]) / width[i] * (high[i] - low[i])
                        for x in (begin, end)]  # fmt: skip
                pieces.append((cell, int(segment[i]), *part))
    inertia = (cell_time / total) ** 2 if total < cell_time else 1.0
    return _Cells(located(face), located(0.5 * (face[1:] + face[:-1])), pieces, inertia)


def _collected(
    vessels: list[_Vessel], cells: list[_Cells], node_network: list[int], device: torch.device
) -> Grid:
    whole = lambda values: torch.tensor(values, dtype=torch.int64, device=device)
    real = lambda values: torch.tensor(values, dtype=torch.float64, device=device)
    middle = [m for c in cells for m in c.middle]
    face = [f for c in cells for f in c.face]
    count = [len(c.middle) for c in cells]
    first = np.concatenate([[0], np.cumsum(count)])
    piece = [(first[v] + p[0], *p[1:]) for v, c in enumerate(cells) for p in c.piece]
    return Grid(
        cell_segment=whole([m[0] for m in middle]),
        cell_fraction=real([m[1] for m in middle]),
        cell_vessel=whole(np.repeat(np.arange(len(cells)), count).tolist()),
        face_segment=whole([f[0] for f in face]),
        face_fraction=real([f[1] for f in face]),
        piece_cell=whole([int(p[0]) for p in piece]),
        piece_segment=whole([p[1] for p in piece]),
        piece_fraction=real([p[2:] for p in piece]),
        vessel_node=whole([v.node for v in vessels]),
        vessel_inertia=real([c.inertia for c in cells]),
        vessel_lesion=whole([v.lesion for v in vessels]),
        node_network=whole(node_network),
    )


@dataclass(frozen=True)
class Beside:
    """What lies beside each of m points.

    **Attributes:** `first` and `second` (m,), cells, or k + 2v and k + 2v + 1 for the proximal and
    the distal end of vessel v, with the `weight` of the second; `cell`, in which the point lies,
    and `share`, how far it is from the cell's proximal face to its distal one.
    """

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor
    cell: torch.Tensor
    share: torch.Tensor


def beside_points(
    grid: Grid, length: torch.Tensor, segment: torch.Tensor, fraction: torch.Tensor
) -> Beside:
    """The cells, ends and faces beside points (m,) of the network, by distance along the vessel.

    Places are held fixed: nothing is differentiated through the weights.

    **Errors:** `ValueError` for points that are not on the network.
    """
    s, f = segment.cpu().numpy(), fraction.detach().cpu().double().numpy()
    n_segments = length.shape[-1]
    if s.shape != f.shape or s.ndim != 1:
        raise ValueError(f"points have the shapes {s.shape} and {f.shape}; expected (m,) for both")
    if ((s < 0) | (s >= n_segments) | ~((f >= 0) & (f <= 1))).any():
        raise ValueError(
            f"a point is not on the network; expected segments 0 to {n_segments - 1} and fractions "
            "from 0 to 1"
        )
    if length.ndim != 1:
        raise ValueError("points are placed by the lengths of one case; expected length (s,)")
    size = length.detach().cpu().double().numpy()
    of_piece = grid.piece_segment.cpu().numpy()
    low, high = grid.piece_fraction.cpu().numpy().T
    end = np.cumsum((high - low) * size[of_piece])
    begin = end - (high - low) * size[of_piece]
    cell, vessel = grid.piece_cell.cpu().numpy(), grid.cell_vessel.cpu().numpy()
    left, right = np.full(grid.n_cells, np.inf), np.zeros(grid.n_cells)
    np.minimum.at(left, cell, begin)
    np.maximum.at(right, cell, end)
    middle = 0.5 * (left + right)
    pairs, weight, share = [], [], []
    for at, t in zip(s, f, strict=True):
        mine = np.flatnonzero(of_piece == at)
        k = mine[np.argmin(np.maximum(0.0, np.maximum(low[mine] - t, t - high[mine])))]
        x, here = begin[k] + (t - low[k]) * size[at], int(cell[k])
        v, n = vessel[here], grid.n_cells
        share.append(np.clip((x - left[here]) / (right[here] - left[here]), 0.0, 1.0))
        of_vessel = np.flatnonzero(vessel == v)
        if x < middle[here]:
            is_end = here == of_vessel[0]
            first, second = n + 2 * v if is_end else here - 1, here
            span = left[here] if is_end else middle[here - 1], middle[here]
        else:
            is_end = here == of_vessel[-1]
            first, second = here, n + 2 * v + 1 if is_end else here + 1
            span = middle[here], right[here] if is_end else middle[here + 1]
        pairs.append((first, second, here))
        weight.append(np.clip((x - span[0]) / (span[1] - span[0]), 0.0, 1.0))
    found = torch.tensor(pairs, dtype=torch.int64, device=length.device).reshape(-1, 3)
    real = lambda x: torch.tensor(np.array(x, float), dtype=torch.float64).to(length)
    return Beside(found[:, 0], found[:, 1], real(weight), found[:, 2], real(share))
