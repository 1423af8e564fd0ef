"""What a transient flow problem consists of: waveforms, conditions, grid, step."""

import math
from dataclasses import dataclass

import torch

from ._flow1d_grid import Grid, make_grid
from ._laws import Blood, ElasticWall, Wall
from ._steady import cycle_mean, Network, SteadyBoundary


@dataclass(frozen=True)
class Waveform:
    """Periodic functions of time, linear between common knots; one knot makes a constant.

    From the last knot of a period a function runs to its first value.

    **Attributes:** `time` (m,), increasing, from 0 to the period at most, s; `value` (..., b, m).
    """

    time: torch.Tensor
    value: torch.Tensor

    def at(self, time: torch.Tensor, period: float) -> torch.Tensor:
        """Values (..., b, t) at times (t,), s."""
        last, first = self.time[-1:] - period, self.time[:1] + period
        knot = torch.cat([last, self.time, first])
        value = torch.cat([self.value[..., -1:], self.value, self.value[..., :1]], dim=-1)
        phase = torch.remainder(time, period).to(knot)
        index = torch.searchsorted(knot.detach(), phase, right=True) - 1
        index = index.clamp(0, knot.shape[0] - 2)
        width = knot[index + 1] - knot[index]
        # Knots at both 0 and the period leave an interval of no width.
        width = torch.where(width > 0, width, torch.ones_like(width))
        share = (phase - knot[index]) / width
        return value[..., index] * (1.0 - share) + value[..., index + 1] * share

    def mean(self, period: float) -> torch.Tensor:
        """Mean over a period (..., b)."""
        return cycle_mean(self.time, self.value, torch.full_like(self.time[0], period))


@dataclass(frozen=True)
class PressureWaveform:
    """Prescribed pressure, Pa, at nodes (b,); nothing else may act there."""

    node: torch.Tensor
    pressure: Waveform


@dataclass(frozen=True)
class FlowWaveform:
    """Prescribed flow into the network, m³/s, at nodes (b,)."""

    node: torch.Tensor
    flow: Waveform


@dataclass(frozen=True)
class ResistanceOutlet:
    """q = (P − pressure_ref)/resistance leaves at nodes (b,); Pa s/m³ and Pa, (..., b)."""

    node: torch.Tensor
    resistance: torch.Tensor
    pressure_ref: torch.Tensor


@dataclass(frozen=True)
class WindkesselOutlet:
    """q = (P − P_C)/R₁ leaves at nodes (b,), C dP_C/dt = q − (P_C − pressure_ref)/R₂.

    **Attributes:** (..., b): `resistance_proximal` R₁, `resistance_distal` R₂, Pa s/m³;
    `compliance` C, m³/Pa; `pressure_ref`, Pa.
    """

    node: torch.Tensor
    resistance_proximal: torch.Tensor
    resistance_distal: torch.Tensor
    compliance: torch.Tensor
    pressure_ref: torch.Tensor


@dataclass(frozen=True)
class CoronaryOutlet:
    """A ladder whose second compartment lies under the intramyocardial pressure p_im.

    q = (P − a)/R₁ leaves at nodes (b,), C_a da/dt = q − (a − π)/R₂ and, with θ = π − p_im(t),
    C_t dθ/dt = (a − π)/R₂ − (π − pressure_ref)/R₃.

    **Attributes:** (..., b): `resistance_proximal` R₁, `resistance_middle` R₂,
    `resistance_distal` R₃, Pa s/m³; `compliance_proximal` C_a, `compliance_distal` C_t, m³/Pa;
    `pressure_ref`, Pa; `pressure_im`, or None where it is constant, which moves nothing.
    """

    node: torch.Tensor
    resistance_proximal: torch.Tensor
    resistance_middle: torch.Tensor
    resistance_distal: torch.Tensor
    compliance_proximal: torch.Tensor
    compliance_distal: torch.Tensor
    pressure_ref: torch.Tensor
    pressure_im: Waveform | None = None


Condition = PressureWaveform | FlowWaveform | ResistanceOutlet | WindkesselOutlet | CoronaryOutlet


@dataclass(frozen=True)
class ExternalPressure:
    """p_ext(x, t) = Σ_b share_b(x) w_b(t), Pa.

    **Attributes:** `waveform` of b rows; `share` (b, s, 2), linear along segments.
    """

    waveform: Waveform
    share: torch.Tensor


@dataclass(frozen=True)
class Flow1DProblem:
    """Transient flow in a network of elastic vessels; `flow1d_problem` makes one.

    Axes before those named are cases on one grid, with lengths (s,) in common. Numbers of the blood
    then have the shape (..., 1) and those of the wall (..., 1, 1).

    **Attributes:** `period`, s; `time_step`, the longest, s; `wall_viscosity` Γ (..., s), Pa s m;
    `junction_pressure` and `boundary_pressure`, "total" or "static": which pressure the ends at a
    junction share, and which the conditions at the network's ends mean.
    """

    network: Network
    boundary: tuple[Condition, ...]
    blood: Blood
    wall: Wall
    grid: Grid
    period: float
    time_step: float
    pressure_external: ExternalPressure | None = None
    wall_viscosity: torch.Tensor | None = None
    junction_pressure: str = "total"
    boundary_pressure: str = "total"


def flow1d_problem(
    network: Network,
    boundary: tuple[Condition, ...],
    blood: Blood,
    wall: Wall,
    *,
    period: float,
    cell_time: float = 3e-4,
    cfl: float = 0.45,
    pressure_external: ExternalPressure | None = None,
    wall_viscosity: torch.Tensor | None = None,
    junction_pressure: str = "total",
    boundary_pressure: str = "total",
) -> Flow1DProblem:
    """A problem of one case with its grid; put the values of several cases in afterwards.

    **Arguments:** `period`, of all waveforms, s; `cell_time`, in which a wave crosses a cell of the
    unloaded vessel, s; `cfl`, the longest step over it. With wall viscosity the step is at most
    half of the shortest Δx² ρ√(πr²)/(2Γ), r the smaller end of the segment.

    **Errors:** `ValueError` for a rigid wall, an empty boundary, numbers outside their range, nodes
    that do not exist or are prescribed twice, and shapes that do not fit.
    """
    if not isinstance(wall, ElasticWall):
        raise ValueError("the wall is rigid; expected SqrtAreaWall or SvOneDWall")
    if not 0 < cfl <= 0.9 or not period > 0:
        raise ValueError(f"cfl is {cfl} and period {period}; expected 0 < cfl <= 0.9, period > 0")
    for name in (junction_pressure, boundary_pressure):
        if name not in ("total", "static"):
            raise ValueError(f'a pressure is {name!r}; expected "total" or "static"')
    lesion = network.lesion
    if lesion is not None and not (lesion.diameter_reduction < 1).all():
        raise ValueError("an occlusion closes a vessel; expected a diameter_reduction below 1")
    check_boundary(network, boundary, period)
    nodes = torch.cat([condition.node for condition in boundary])
    grid = make_grid(network, nodes, blood, wall, cell_time)
    time_step = cfl * cell_time
    if wall_viscosity is not None:
        if wall_viscosity.shape != network.length.shape or (wall_viscosity < 0).any():
            raise ValueError("expected a wall viscosity (s,) in Pa s m, zero or positive")
        spread = _diffusion_time(network, grid, blood, wall_viscosity.detach())
        time_step = min(time_step, 0.5 * spread)
    return Flow1DProblem(
        network,
        boundary,
        blood,
        wall,
        grid,
        period,
        time_step,
        pressure_external,
        wall_viscosity,
        junction_pressure,
        boundary_pressure,
    )


def _diffusion_time(
    network: Network, grid: Grid, blood: Blood, wall_viscosity: torch.Tensor
) -> float:
    length = grid.cell_length(network.length.detach())
    radius = network.radius.detach().amin(dim=-1)[grid.cell_segment]
    spread = length**2 * blood.density.detach() * math.sqrt(math.pi) * radius / 2.0
    return float((spread / wall_viscosity[grid.cell_segment]).min())


def check_boundary(network: Network, boundary: tuple[Condition, ...], period: float) -> None:
    """Refuse conditions that do not fit the network, each other or the period."""
    if not boundary:
        raise ValueError("there is no boundary condition; expected at least an inlet")
    held: list[int] = []
    others: list[int] = []
    for condition in boundary:
        kind = type(condition).__name__
        nodes = condition.node.tolist()
        if any(not 0 <= node < network.n_nodes for node in nodes):
            raise ValueError(f"{kind}: a node is not one of 0 to {network.n_nodes - 1}")
        (held if isinstance(condition, PressureWaveform) else others).extend(nodes)
        for name, value in vars(condition).items():
            if isinstance(value, Waveform):
                _check_waveform(kind, value, len(nodes), period)
            elif name != "node" and isinstance(value, torch.Tensor):
                if value.shape[-1:] != (len(nodes),):
                    raise ValueError(
                        f"{kind}.{name} has the shape {tuple(value.shape)}; expected a value for "
                        f"each of {len(nodes)} nodes"
                    )
                if name != "pressure_ref" and not (value > 0).all():
                    raise ValueError(f"{kind}.{name} has an entry that is not positive")
    if len(set(held)) < len(held) or set(held) & set(others):
        raise ValueError(
            "a node with a prescribed pressure has another condition too; expected it to be the "
            "only one there"
        )


def _check_waveform(kind: str, waveform: Waveform, rows: int, period: float) -> None:
    time, value = waveform.time, waveform.value
    if value.ndim < 2 or value.shape[-2:] != (rows, time.shape[0]):
        raise ValueError(
            f"{kind}: a waveform has the shape {tuple(value.shape)}; expected {rows} rows and "
            f"{time.shape[0]} knots"
        )
    inside = bool(time[0] >= 0) and bool(time[-1] <= period * (1.0 + 1e-9))
    if not inside or not (time.diff() > 0).all():
        raise ValueError(f"{kind}: expected knots that increase from 0 to {period} s at most")


def steady_boundary(boundary: tuple[Condition, ...], period: float) -> SteadyBoundary:
    """The conditions for steady flow: cycle means, all resistances of an outlet in series."""
    held: list[tuple[torch.Tensor, ...]] = []
    fed: list[tuple[torch.Tensor, ...]] = []
    drained: list[tuple[torch.Tensor, ...]] = []
    for condition in boundary:
        if isinstance(condition, PressureWaveform):
            held.append((condition.node, condition.pressure.mean(period)))
        elif isinstance(condition, FlowWaveform):
            fed.append((condition.node, condition.flow.mean(period)))
        else:
            drained.append((condition.node, *in_series(condition)))
    merged = [
        [joined_last(part) for part in zip(*group, strict=True)] if group else [None] * width
        for group, width in ((held, 2), (fed, 2), (drained, 3))
    ]
    return SteadyBoundary(*merged[0], *merged[1], *merged[2])


def in_series(
    outlet: ResistanceOutlet | WindkesselOutlet | CoronaryOutlet,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Resistance of an outlet with full compartments, and the pressure it drains to."""
    if isinstance(outlet, ResistanceOutlet):
        return outlet.resistance, outlet.pressure_ref
    if isinstance(outlet, WindkesselOutlet):
        return outlet.resistance_proximal + outlet.resistance_distal, outlet.pressure_ref
    arterial = outlet.resistance_proximal + outlet.resistance_middle
    return arterial + outlet.resistance_distal, outlet.pressure_ref


def joined_last(parts: "list[torch.Tensor] | tuple[torch.Tensor, ...]") -> torch.Tensor:
    """Tensors joined along the last axis, all axes before it broadcast."""
    shape = torch.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return torch.cat([part.expand(*shape, part.shape[-1]) for part in parts], dim=-1)
