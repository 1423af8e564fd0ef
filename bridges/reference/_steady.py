"""Steady flow in a network of vessels in torch: Newton's method on all unknowns at once.

Unknowns are the total pressure P of every node, the flow Q of every segment and, where walls are
elastic, the stretch e = r/r₀ of both ends of every segment. With h = ½αρ the equations are

    node:      J − G P + Σ Q_in − Σ Q_out = 0     or     P = prescribed
    segment:   P_p − P_c = [2(ζ+2)πµ ∫dx/A² + R_l] Q + S_l |Q| Q
    end:       p(e) + h (Q/A)² = P,     A = π (e r₀)²

so that loops, lesions and elastic walls are rows like all others. Of an occlusion the first segment
has the row 0 = 2(ζ+2)πµ ∫dx/A² Q.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
import torch

from ._implicit import find_root, Triplets
from ._laws import Blood, ElasticWall, RigidWall, stenosis_coefficients, taper_integral, Wall


@dataclass(frozen=True)
class Lesions:
    """Declared lesions: over lesions l, and over pairs k of a lesion with a segment inside it.

    The reference radius of a lesion is the mean of the radii of its segments, weighted by
    `fraction`.

    **Attributes:** `diameter_reduction` (..., l), from 0 to 1; `length` (l,), m; `segment`
    (k,) and `lesion` (k,), the pairs; `fraction` (k,), the share of the lesion's length on the
    segment.
    """

    diameter_reduction: torch.Tensor
    length: torch.Tensor
    segment: torch.Tensor
    lesion: torch.Tensor
    fraction: torch.Tensor

    def closing(self) -> torch.Tensor:
        """Pairs (..., k) whose segment an occlusion, a reduction of 1, closes: its first one."""
        of = self.lesion
        before = torch.tril(of[:, None] == of, diagonal=-1).any(dim=1)
        return (self.diameter_reduction == 1.0)[..., of] & ~before


@dataclass(frozen=True)
class Network:
    """Segments between nodes, each with a radius linear between its ends.

    **Attributes:** `segment_node` (s, 2), proximal and distal node; `radius` (..., s, 2) at these,
    m; `length` (..., s), m; `n_nodes`; `lesion`, or None.
    """

    segment_node: torch.Tensor
    radius: torch.Tensor
    length: torch.Tensor
    n_nodes: int
    lesion: Lesions | None = None

    def lesion_coefficients(self, blood: Blood) -> tuple[torch.Tensor, torch.Tensor]:
        """R (Pa s/m³) and S (Pa s²/m⁶) of each lesion (..., l)."""
        lesion = self.lesion
        if lesion is None:
            none = self.radius[..., :0, 0]
            return none, none
        mean = self.radius.mean(dim=-1)[..., lesion.segment]
        start = torch.zeros((*mean.shape[:-1], lesion.length.shape[0])).to(mean)
        reference = start.index_add(-1, lesion.lesion, lesion.fraction * mean)
        return stenosis_coefficients(
            reference,
            torch.where(lesion.diameter_reduction == 1.0, 0.0, lesion.diameter_reduction),
            lesion.length,
            blood.viscosity(reference),
            blood.density,
        )

    def passes(self) -> torch.Tensor:
        """1 for every segment (..., s), and 0 where an occlusion closes it."""
        one = torch.ones_like(self.radius[..., 0])
        if self.lesion is None:
            return one
        closing = self.lesion.closing().to(one)
        return (1.0 - added(torch.zeros_like(one), self.lesion.segment, closing)).clamp_min(0.0)

    def loss_of_lesions(self, blood: Blood) -> tuple[torch.Tensor, torch.Tensor]:
        """R (Pa s/m³) and S (Pa s²/m⁶) that lesions add to each segment (..., s)."""
        zero = torch.zeros_like(self.radius[..., 0])
        lesion = self.lesion
        if lesion is None:
            return zero, zero
        return tuple(  # pyright: ignore[reportReturnType]
            added(zero, lesion.segment, lesion.fraction * c[..., lesion.lesion])
            for c in self.lesion_coefficients(blood)
        )


@dataclass(frozen=True)
class SteadyBoundary:
    """Conditions at nodes, by total pressure; a node of one segment without any is closed.

    Outlets of several elements carry steady flow through all their resistances in series: a
    windkessel is R₁ + R₂, a coronary outlet Ra + Ra_micro + Rv. A waveform acts by its
    `cycle_mean`.

    **Attributes:** `pressure_node` (a,) with `pressure` (..., a), Pa; `flow_node` (b,) with `flow`
    (..., b) into the network, m³/s; `outlet_node` (o,) with `resistance` (..., o), Pa s/m³, and
    `pressure_ref` (..., o), Pa, for the outflow (P − pressure_ref)/resistance.
    """

    pressure_node: torch.Tensor | None = None
    pressure: torch.Tensor | None = None
    flow_node: torch.Tensor | None = None
    flow: torch.Tensor | None = None
    outlet_node: torch.Tensor | None = None
    resistance: torch.Tensor | None = None
    pressure_ref: torch.Tensor | None = None


@dataclass(frozen=True)
class SteadyProblem:
    """Steady flow in a network.

    Axes before those named are cases. Numbers of the blood then have the shape (..., 1), since they
    broadcast against (..., s); those of the wall (..., 1, 1), against (..., s, 2).
    """

    network: Network
    boundary: SteadyBoundary
    blood: Blood
    wall: Wall = field(default_factory=RigidWall)


@dataclass(frozen=True)
class SteadySolution:
    """Steady flow.

    **Attributes:** `pressure_total` (..., n), Pa; `flow` (..., s), m³/s, positive from the
    proximal to the distal node; `pressure_static` (..., s, 2), Pa, and `area` (..., s, 2), m², at
    both ends of each segment.
    """

    pressure_total: torch.Tensor
    flow: torch.Tensor
    pressure_static: torch.Tensor
    area: torch.Tensor


def cycle_mean(time: torch.Tensor, value: torch.Tensor, period: torch.Tensor) -> torch.Tensor:
    """Mean over the period of a periodic function linear between its knots.

    **Arguments:** `time` (m,), increasing, within one period, s; `value` (..., m); `period`, s.
    **Returns:** (...).
    """
    width = torch.cat([time, time[:1] + period]).diff()
    return ((value + value.roll(-1, dims=-1)) * width).sum(dim=-1) / (2.0 * period)


def solve_steady(problem: SteadyProblem, *, max_steps: int = 50) -> SteadySolution:
    """Solve the steady 1-D equations of a network.

    Cases are solved together: one evaluation of the equations, one sparse LU factorisation for each
    case. Derivatives of any order follow from the implicit function theorem.

    **Arguments:** `max_steps`, Newton steps at most.

    **Returns:** a `SteadySolution`, differentiable in all floating-point tensors of the problem.

    **Errors:** `ValueError` for arrays that do not fit together, radii, lengths or resistances that
    are not positive, a node with two prescribed pressures, and a part of the network without any
    pressure to refer to. `RuntimeError` where Newton's method finds no root.
    """
    check_problem(problem.network, problem.boundary, problem.wall)
    equations = NetworkEquations(problem.network, problem.boundary, problem.blood, problem.wall)
    x = find_root(equations, equations.guess(), max_steps)
    return equations.solution(x)


@dataclass(frozen=True)
class NetworkEquations:
    """The equations of a network, as `System` and as the network's part of a larger system."""

    network: Network
    boundary: SteadyBoundary
    blood: Blood
    wall: Wall

    @property
    def n_segments(self) -> int:
        """Number of segments."""
        return self.network.segment_node.shape[0]

    @property
    def n_unknowns(self) -> int:
        """Number of unknowns: nodes, segments, and two ends each where walls are elastic."""
        is_elastic = isinstance(self.wall, ElasticWall)
        return self.network.n_nodes + (3 if is_elastic else 1) * self.n_segments

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """P (..., n), Q (..., s) and e (..., s, 2); the stretch of a rigid wall is 1."""
        n, s = self.network.n_nodes, self.n_segments
        pressure, flow, stretch = x[..., :n], x[..., n : n + s], x[..., n + s :]
        stretch = stretch if isinstance(self.wall, ElasticWall) else torch.ones(2 * s).to(x)
        return pressure, flow, stretch.reshape(*stretch.shape[:-1], s, 2)

    def guess(self) -> torch.Tensor:
        """Rest at the highest pressure that is prescribed or that an outlet refers to."""
        boundary, radius = self.boundary, self.network.radius.detach()
        known = [p.detach() for p in (boundary.pressure, boundary.pressure_ref) if p is not None]
        highest = torch.stack([p.max() for p in known if p.numel()]).max().to(radius)
        pressure = highest.expand(self.network.n_nodes)
        parts = [pressure, torch.zeros(self.n_segments).to(radius)]
        if isinstance(self.wall, ElasticWall):
            load = (highest - self.wall.pressure_unloaded) / self.wall.modulus(radius)
            stretch = self.wall.stretch(load).detach().flatten(-2)
            parts = [part.expand(*stretch.shape[:-1], -1) for part in parts] + [stretch]
        return torch.cat(parts, dim=-1)

    def outflow(self, pressure: torch.Tensor) -> torch.Tensor:
        """What conditions other than prescribed pressures take from each node (..., n), m³/s."""
        boundary, taken = self.boundary, torch.zeros_like(pressure)
        if boundary.flow_node is not None and boundary.flow is not None:
            taken = added(taken, boundary.flow_node, -boundary.flow)
        node, resistance = boundary.outlet_node, boundary.resistance
        if node is not None and resistance is not None and boundary.pressure_ref is not None:
            taken = added(taken, node, (pressure[..., node] - boundary.pressure_ref) / resistance)
        return taken

    def carried(self, flow: torch.Tensor) -> torch.Tensor:
        """What segments carry to each node (..., n), m³/s."""
        node = self.network.segment_node
        start = torch.zeros(self.network.n_nodes).to(flow)
        return added(added(start, node[:, 1], flow), node[:, 0], -flow)

    def resistance(self, stretch: torch.Tensor) -> torch.Tensor:
        """2(ζ+2)πµ ∫dx/A² of every segment (..., s), lesions left out, Pa s/m³."""
        radius = stretch * self.network.radius
        a, b = radius[..., 0], radius[..., 1]
        friction = self.blood.friction_coefficient * self.blood.viscosity(0.5 * (a + b))
        return friction * taper_integral(a, b, self.network.length)

    def drop(self, flow: torch.Tensor, stretch: torch.Tensor) -> torch.Tensor:
        """[2(ζ+2)πµ ∫dx/A² + R_l] Q + S_l |Q| Q of every segment (..., s), Pa."""
        linear, quadratic = self.network.loss_of_lesions(self.blood)
        return (self.resistance(stretch) + linear + quadratic * flow.abs()) * flow

    def dynamic_pressure(self, flow: torch.Tensor, stretch: torch.Tensor) -> torch.Tensor:
        """½αρ (Q/A)² at the ends of segments (..., s, 2), for the flow at each end, Pa."""
        weight = (0.5 * self.blood.alpha * self.blood.density).unsqueeze(-1)
        return weight * (flow / self.area(stretch)) ** 2

    def area(self, stretch: torch.Tensor) -> torch.Tensor:
        """Lumen area (..., s, 2), m²."""
        return math.pi * (stretch * self.network.radius) ** 2

    def total_pressure(self, flow: torch.Tensor, stretch: torch.Tensor) -> torch.Tensor:
        """p(e) + ½αρ (Q/A)² of an elastic wall; NaN for a closed vessel or one at its sonic point.

        The flow is slower than its waves where ∂/∂e of the sum is positive: c² > αU².
        """
        assert isinstance(self.wall, ElasticWall)
        modulus, load = self.wall.modulus(self.network.radius), self.wall.load(stretch)
        dynamic = self.dynamic_pressure(flow, stretch)
        is_subsonic = modulus * self.wall.load_slope(load) > 2.0 * dynamic
        total = self.wall.pressure_unloaded + modulus * load + dynamic
        return torch.where((stretch > 0) & is_subsonic, total, torch.full_like(total, math.nan))

    def residual(self, x: torch.Tensor) -> torch.Tensor:
        """The equations (..., m): nodes, segments, ends."""
        pressure, flow, stretch = self.split(x)
        balance = self.carried(flow) - self.outflow(pressure)
        node, value = self.boundary.pressure_node, self.boundary.pressure
        if node is not None and value is not None:
            held = pressure[..., node] - value
            shape = torch.broadcast_shapes(balance.shape[:-1], held.shape[:-1])
            balance = balance.expand(*shape, -1).index_copy(-1, node, held.expand(*shape, -1))
        ends = pressure[..., self.network.segment_node]
        fall = self.network.passes() * (ends[..., 0] - ends[..., 1])
        parts = [balance, fall - self.drop(flow, stretch)]
        if isinstance(self.wall, ElasticWall):
            total = self.total_pressure(flow.unsqueeze(-1), stretch)
            parts.append((total - ends).flatten(-2))
        shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
        return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], dim=-1)

    def jacobian(self, x: torch.Tensor) -> Triplets:
        """∂F/∂x: the laws of segments and ends act on their own unknowns only."""
        n, s = self.network.n_nodes, self.n_segments
        node, index = self.network.segment_node, torch.arange(s).to(self.network.segment_node)
        entries: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []
        passes = self.network.passes()
        is_free = torch.ones(n).to(x)
        if self.boundary.pressure_node is not None:
            held = self.boundary.pressure_node
            is_free[held] = 0.0
            entries.append((held, held, torch.ones(held.shape[0]).to(x)))
        for end, sign in ((1, 1.0), (0, -1.0)):
            at = node[:, end]
            entries.append((at, n + index, sign * is_free[at]))
            entries.append((n + index, at, -sign * passes))
        outlet, resistance = self.boundary.outlet_node, self.boundary.resistance
        if outlet is not None and resistance is not None:
            entries.append((outlet, outlet, -1.0 / resistance))
        with torch.enable_grad():
            _, flow, stretch = (part.detach() for part in self.split(x))
            flow, stretch = flow.clone().requires_grad_(), stretch.clone().requires_grad_()
            by_flow, by_stretch = torch.autograd.grad(
                self.drop(flow, stretch).sum(), (flow, stretch)
            )
        entries.append((n + index, n + index, -by_flow))
        if isinstance(self.wall, ElasticWall):
            row = (n + s + torch.arange(2 * s)).to(node)
            segment = row.sub(n + s).div(2, rounding_mode="floor")
            entries.append((n + segment, row, -by_stretch.flatten(-2)))
            entries.append((row, node.flatten(), -torch.ones(2 * s).to(x)))
            with torch.enable_grad():
                # The flow of each end by itself: its derivative is that end's entry.
                flow = flow.detach().unsqueeze(-1).repeat_interleave(2, -1).requires_grad_()
                total = self.total_pressure(flow, stretch).sum()
                by_flow, by_stretch = torch.autograd.grad(total, (flow, stretch))
            entries.append((row, n + segment, by_flow.flatten(-2)))
            entries.append((row, row, by_stretch.flatten(-2)))
        return joined(entries, x.shape[:-1])

    def scale(self, x: torch.Tensor) -> torch.Tensor:
        """The largest pressure, the largest flow, and 1 for stretches.

        The flow's has a floor, so that a network at rest arrives too: far below it, rounding of the
        pressures hides the flow.
        """
        pressure, flow, stretch = self.split(x)
        highest = largest(pressure)[..., :1]
        floor = highest / self.resistance(stretch).amin(dim=-1, keepdim=True)
        floor = torch.finfo(x.dtype).eps ** 0.4 * floor
        rest = self.n_unknowns - self.network.n_nodes - self.n_segments
        parts = [largest(pressure), largest(flow) + floor, torch.ones_like(x[..., :rest])]
        return torch.cat(parts, dim=-1)

    def solution(self, x: torch.Tensor) -> SteadySolution:
        """What a root says."""
        pressure, flow, stretch = self.split(x)
        ends = pressure[..., self.network.segment_node]
        static = ends - self.dynamic_pressure(flow.unsqueeze(-1), stretch)
        return SteadySolution(pressure, flow, static, self.area(stretch).expand_as(static))


def added(start: torch.Tensor, index: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`start` (..., n) with `value` (..., k) added at `index` (k,)."""
    shape = torch.broadcast_shapes(start.shape[:-1], value.shape[:-1])
    value = value.expand(*shape, value.shape[-1])
    return start.expand(*shape, start.shape[-1]).index_add(-1, index, value)


def joined(
    entries: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]], shape: torch.Size
) -> Triplets:
    """Parts of a sparse matrix as one, their values expanded to the cases (...)."""
    values = [v.detach().expand(*shape, v.shape[-1]) for _, _, v in entries]
    row, column = (torch.cat([entry[k] for entry in entries]) for k in (0, 1))
    return row, column, torch.cat(values, dim=-1)


def largest(x: torch.Tensor) -> torch.Tensor:
    """max |x| over the last axis, in the shape of x; never zero."""
    tiny = torch.finfo(x.dtype).tiny
    return x.abs().amax(dim=-1, keepdim=True).clamp_min(tiny).expand_as(x)


def check_problem(
    network: Network,
    boundary: SteadyBoundary,
    wall: Wall,
    perfused: torch.Tensor | None = None,
) -> None:
    """Refuse what the equations would silently misread; `ValueError` says what and where.

    **Arguments:** `perfused`, the nodes that end in tissue, where there are some.
    """
    ends, n = network.segment_node, network.n_nodes
    if ends.ndim != 2 or ends.shape[1] != 2 or network.radius.shape[-2:] != ends.shape:
        raise ValueError(
            f"segment_node has shape {tuple(ends.shape)} and radius {tuple(network.radius.shape)}; "
            "expected (s, 2) and (..., s, 2): give a radius for both ends of each segment"
        )
    if network.length.shape[-1:] != ends.shape[:1]:
        raise ValueError(
            f"length has shape {tuple(network.length.shape)}; expected (..., {ends.shape[0]})"
        )
    if not isinstance(wall, RigidWall | ElasticWall):
        raise ValueError(f"wall is {wall!r}; expected RigidWall, SqrtAreaWall or SvOneDWall")
    _refuse_nodes("segment_node", ends, n)
    _refuse_values("radius", network.radius, "m")
    _refuse_values("length", network.length, "m")
    if network.lesion is not None:
        _refuse_lesions(network.lesion, ends.shape[0])
    _refuse_boundary(boundary, n)
    _refuse_floating(network, boundary, perfused)


def _refuse_nodes(name: str, node: torch.Tensor, n_nodes: int) -> None:
    if node.dtype != torch.int64 or ((node < 0) | (node >= n_nodes)).any():
        raise ValueError(f"{name} is {node}; expected int64 nodes from 0 to {n_nodes - 1}")


def _refuse_values(name: str, value: torch.Tensor, unit: str) -> None:
    if not (value > 0).all():
        raise ValueError(f"{name} is {value.min()} at least; expected positive values in {unit}")


def _refuse_lesions(lesion: Lesions, n_segments: int) -> None:
    reduction = lesion.diameter_reduction
    if not ((reduction >= 0) & (reduction <= 1)).all():
        raise ValueError(
            f"diameter_reduction is {reduction}; expected fractions of the diameter, from 0 to 1: "
            "write 60 % as 0.6"
        )
    if lesion.segment.numel() and not (
        0 <= lesion.segment.min() <= lesion.segment.max() < n_segments
    ):
        raise ValueError(f"a lesion lies on {lesion.segment}; expected segments below {n_segments}")
    sizes = {lesion.segment.shape, lesion.lesion.shape, lesion.fraction.shape}
    if len(sizes) > 1:
        raise ValueError(f"pairs of lesion and segment have the shapes {sizes}; expected one shape")


def _refuse_boundary(boundary: SteadyBoundary, n_nodes: int) -> None:
    groups = {
        "pressure_node": (boundary.pressure_node, boundary.pressure),
        "flow_node": (boundary.flow_node, boundary.flow),
        "outlet_node": (boundary.outlet_node, boundary.resistance, boundary.pressure_ref),
    }
    for name, group in groups.items():
        given = [value for value in group if value is not None]
        if not given:
            continue
        if len(given) < len(group) or len({value.shape[-1] for value in given}) > 1:
            raise ValueError(f"{name} and its values differ in number; expected one for each node")
        _refuse_nodes(name, given[0], n_nodes)
    if boundary.resistance is not None:
        _refuse_values("resistance", boundary.resistance, "Pa s/m3")
    held = boundary.pressure_node
    if held is None:
        return
    others = [held] + [g for g in (boundary.flow_node, boundary.outlet_node) if g is not None]
    count = torch.bincount(torch.cat(others), minlength=n_nodes)[held]
    if (count > 1).any():
        raise ValueError(
            f"the pressure of node {int(held[count > 1][0])} is prescribed together with another "
            "condition; expected it to be the only one there: keep one of the two"
        )


def _refuse_floating(
    network: Network, boundary: SteadyBoundary, perfused: torch.Tensor | None
) -> None:
    """Every part that open segments join must have a pressure, prescribed or referred to."""
    passes = network.passes().detach().cpu().numpy()
    is_open = passes.reshape(-1, passes.shape[-1]).min(axis=0) > 0
    ends = network.segment_node.cpu().numpy()[is_open]
    ones, shape = np.ones(len(ends)), (network.n_nodes, network.n_nodes)
    graph = scipy.sparse.coo_matrix((ones, (ends[:, 0], ends[:, 1])), shape=shape)
    n_parts, part = scipy.sparse.csgraph.connected_components(graph, directed=False)
    known = [
        g.cpu().numpy()
        for g in (boundary.pressure_node, boundary.outlet_node, perfused)
        if g is not None
    ]
    referred = part[np.concatenate(known)] if known else np.zeros(0, int)
    floating = np.setdiff1d(np.arange(n_parts), referred)
    if floating.size:
        node = int(np.flatnonzero(part == floating[0])[0])
        raise ValueError(
            f"no pressure is known to the part of the network around node {node}; expected a "
            "prescribed pressure or an outlet in every connected part"
        )
