"""The equations of all cells, ends, nodes and outlets at once: from a state to its rate of change.

Cells stand in one row of *slots* with a gap before, between and after the vessels, so that every
difference of neighbours is one slice: face f lies between slots f and f + 1. What comes out at a
face beside a gap is replaced by what the node there says.
"""

import math

import numpy as np
import torch

from ._flow1d_grid import Grid
from ._flow1d_nodes import NodeEquations, solve_nodes
from ._flow1d_problem import (
    CoronaryOutlet,
    Flow1DProblem,
    FlowWaveform,
    in_series,
    joined_last,
    PressureWaveform,
    ResistanceOutlet,
    WindkesselOutlet,
)
from ._laws import ElasticWall, taper_integral
from ._steady import added

# Differences of pressure (Pa) and flow (m³/s) below these are taken without limiting.
_FLOORS = (0.1, 1e-9)


def between(ends: torch.Tensor, segment: torch.Tensor, fraction: torch.Tensor) -> torch.Tensor:
    """Values (..., k) linear along segments, from those at both ends (..., s, 2)."""
    at = ends[..., segment, :]
    return at[..., 0] * (1.0 - fraction) + at[..., 1] * fraction


def over_ends(number: torch.Tensor) -> torch.Tensor:
    """A number () or (..., 1) as it broadcasts against ends (..., w, n)."""
    return number.unsqueeze(-1) if number.ndim else number


def _modulus_at(
    problem: Flow1DProblem, segment: torch.Tensor, fraction: torch.Tensor, radius: torch.Tensor
) -> torch.Tensor:
    """M (..., k): by the law at the radius, a table over segments interpolated like the radius."""
    wall, stiffness = problem.wall, getattr(problem.wall, "stiffness", None)
    assert isinstance(wall, ElasticWall)
    if hasattr(stiffness, "Eh_over_r"):
        return between(wall.modulus(problem.network.radius), segment, fraction)
    # Numbers of the law broadcast against a last axis of two ends.
    return wall.modulus(radius.unsqueeze(-1)).squeeze(-1)


def _unloaded(wall: ElasticWall, like: torch.Tensor) -> torch.Tensor:
    p0 = wall.pressure_unloaded.to(like)
    if p0.ndim and p0.shape[-2:] != (1, 1):
        raise ValueError(
            f"the wall's reference pressure has the shape {tuple(p0.shape)}; expected a number, or "
            "(..., 1, 1) for cases"
        )
    return p0[..., 0] if p0.ndim else p0


class Conditions:
    """All conditions as tables over the nodes of the grid and over compartments.

    Each windkessel and each ladder has a *first* compartment, whose pressure drives what it takes;
    each ladder a *second* one besides.
    """

    def __init__(self, problem: Flow1DProblem) -> None:
        radius, grid = problem.network.radius, problem.grid
        number = torch.full((problem.network.n_nodes,), -1).to(grid.node_network)
        real = grid.node_network >= 0
        number[grid.node_network[real]] = torch.arange(grid.n_nodes).to(number)[real]
        self.period, self.n_nodes = problem.period, grid.n_nodes
        self.number, self.like = number, radius
        given = problem.boundary
        self.held = [c for c in given if isinstance(c, PressureWaveform)]
        self.fed = [c for c in given if isinstance(c, FlowWaveform)]
        self.resistance = [c for c in given if isinstance(c, ResistanceOutlet)]
        self.windkessel = [c for c in given if isinstance(c, WindkesselOutlet)]
        self.ladder = [c for c in given if isinstance(c, CoronaryOutlet)]
        stored = [*self.windkessel, *self.ladder]
        none, no_node = radius.new_zeros(0), number[:0]
        join = lambda values: joined_last([none, *values])
        self.node = torch.cat([no_node, *(number[c.node] for c in stored)])
        windkessel, ladder = self.windkessel, self.ladder
        self.R1 = join(c.resistance_proximal for c in stored)
        self.R2 = join(
            [*(c.resistance_distal for c in windkessel), *(c.resistance_middle for c in ladder)]
        )
        self.C = join(
            [*(c.compliance for c in windkessel), *(c.compliance_proximal for c in ladder)]
        )
        self.back = join(c.pressure_ref for c in windkessel)
        self.R3 = join(c.resistance_distal for c in ladder)
        self.Ct = join(c.compliance_distal for c in ladder)
        self.sink = join(c.pressure_ref for c in ladder)
        self.n_first, self.n_second = self.node.shape[0], self.R3.shape[-1]
        self.n_windkessel = self.n_first - self.n_second
        G = radius.new_zeros(self.n_nodes)
        for c in self.resistance:
            G = added(G, number[c.node], 1.0 / c.resistance)
        self.conductance = added(G, self.node, 1.0 / self.R1)
        self.is_prescribed = torch.zeros(self.n_nodes, dtype=torch.bool, device=radius.device)
        for c in self.held:
            self.is_prescribed[number[c.node]] = True
        two = torch.ones(self.n_first).to(radius)
        two[self.n_windkessel :] = 2.0
        self.damping = joined_last(
            [(1.0 / self.R1 + two / self.R2) / self.C,
             (2.0 / self.R2[..., self.n_windkessel :] + 1.0 / self.R3) / self.Ct]
        )  # fmt: skip

    def drive(self, time: torch.Tensor, external: torch.Tensor | None) -> torch.Tensor:
        """What changes with time (t, ..., n + n + second + external): J, P, p_im, p_ext's rows."""
        steady = self.like.new_zeros(self.n_nodes)
        for c in self.resistance:
            steady = added(steady, self.number[c.node], c.pressure_ref / c.resistance)
        n_times = time.shape[0]
        per_time = lambda rows: torch.movedim(rows, -1, 0)
        parts = [steady.expand(n_times, *steady.shape)]
        parts += [self._at_nodes(c.node, per_time(c.flow.at(time, self.period))) for c in self.fed]
        source = _sum_of_series(parts)
        parts = [self.like.new_zeros(n_times, self.n_nodes)]
        for c in self.held:
            parts.append(self._at_nodes(c.node, per_time(c.pressure.at(time, self.period))))
        held = _sum_of_series(parts)
        squeezed = []
        for c in self.ladder:
            if c.pressure_im is None:
                squeezed.append(self.like.new_zeros(n_times, c.node.shape[0]))
            else:
                squeezed.append(per_time(c.pressure_im.at(time, self.period)))
        around = [] if external is None else [per_time(external)]
        return joined_last(_aligned([source, held, *squeezed, *around]))

    def _at_nodes(self, node: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """Values of nodes of the network (..., b) as (..., n)."""
        return added(value.new_zeros(self.n_nodes), self.number[node], value)

    def source(self, source: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
        """J (..., n) with what first compartments add to it, m³/s."""
        return added(source, self.node, first / self.R1) if self.n_first else source

    def rates(
        self,
        first: torch.Tensor,
        second: torch.Tensor,
        pressure_im: torch.Tensor,
        node_pressure: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rates of change of the pressures of compartments, Pa/s."""
        taken = (node_pressure.index_select(-1, self.node) - first) / self.R1
        inner = second + pressure_im
        passed_on = (first - joined_last([self.back, inner])) / self.R2
        drained = passed_on[..., self.n_windkessel :] - (inner - self.sink) / self.R3
        return (taken - passed_on) / self.C, drained / self.Ct

    def start(self, total: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compartments in steady flow under total pressures of the network's nodes (..., n)."""
        none = total.new_zeros((*total.shape[:-1], 0))
        first, second = [none], [none]
        for c in self.windkessel:
            p, (resistance, sink) = total[..., c.node], in_series(c)
            first.append(p - c.resistance_proximal * (p - sink) / resistance)
        for c in self.ladder:
            p, (resistance, sink) = total[..., c.node], in_series(c)
            flow = (p - sink) / resistance
            inner = sink + c.resistance_distal * flow
            first.append(inner + c.resistance_middle * flow)
            mean = 0.0 if c.pressure_im is None else c.pressure_im.mean(self.period)
            second.append(inner - mean)
        return joined_last(first), joined_last(second)


def _aligned(series: list[torch.Tensor]) -> list[torch.Tensor]:
    """Series (t, ..., k) with as many axes of cases as the one that has most."""
    rank = max(part.ndim for part in series)
    return [p.reshape(p.shape[0], *[1] * (rank - p.ndim), *p.shape[1:]) for p in series]


def _sum_of_series(series: list[torch.Tensor]) -> torch.Tensor:
    first, *others = _aligned(series)
    return sum(others, start=first)


class Layout:
    """Which slot, face and entry of the table of ends belongs to what (whole numbers)."""

    def __init__(self, grid: Grid) -> None:
        vessel = grid.cell_vessel.cpu().numpy()
        k, v = grid.n_cells, grid.n_vessels
        slot = np.arange(k) + vessel + 1
        first = np.searchsorted(vessel, np.arange(v))
        last = np.append(first[1:], k) - 1
        self.n_slots, self.n_nodes = k + v + 1, grid.n_nodes
        cell = np.zeros(self.n_slots, int)
        cell[slot] = np.arange(k)
        # A gap holds what the cell after it holds, the last one what the cell before it does.
        cell[slot[first] - 1], cell[-1] = first, k - 1
        is_cell = np.zeros(self.n_slots)
        is_cell[slot] = 1.0
        ends: list[list[tuple[int, int]]] = [[] for _ in range(grid.n_nodes)]
        for number, (proximal, distal) in enumerate(grid.vessel_node.tolist()):
            ends[distal].append((number, 1))
            ends[proximal].append((number, -1))
        width = max(len(at) for at in ends)
        table = np.zeros((7, width, grid.n_nodes))
        is_end = np.zeros(self.n_slots - 1, bool)
        entry = np.zeros(self.n_slots - 1, int)
        lesion = grid.vessel_lesion.tolist()
        for node, at in enumerate(ends):
            for row, (number, sign) in enumerate(at):
                s = slot[last[number] if sign > 0 else first[number]]
                face, inner = (s, s - 1) if sign > 0 else (s - 1, s)
                single = first[number] == last[number]
                carried = lesion[number] + 1 if sign < 0 else 0
                table[:, row, node] = sign, s, face, inner, single, carried, number
                is_end[face], entry[face] = True, row * grid.n_nodes + node
        device = grid.cell_segment.device
        whole = lambda x: torch.as_tensor(np.asarray(x, np.int64), device=device)
        self.end_shape = (width, grid.n_nodes)
        self.sign = torch.as_tensor(table[0], device=device)
        self.end_slot, self.end_face, self.inner_face = (whole(table[i].ravel()) for i in (1, 2, 3))
        self.is_single = torch.as_tensor(table[4], device=device)
        # Proximal ends take the reconstruction on the left of their cell.
        self.reconstructed = whole(table[1] + (table[0] < 0) * self.n_slots).ravel()
        self.lesion_entry, self.end_vessel = whole(table[5]), whole(table[6])
        self.slot, self.cell, self.cell_first = whole(slot), whole(cell), whole(first)
        self.is_cell = torch.as_tensor(is_cell, device=device)
        self.is_end = torch.as_tensor(is_end, device=device)
        self.face_entry = whole(entry)
        # Of the proximal and the distal end of every vessel, by turns.
        self.vessel_entry = whole(entry[np.stack([slot[first] - 1, slot[last]], axis=1).ravel()])
        inside = is_cell[1:] * is_cell[:-1]
        self.is_inside = torch.as_tensor(inside, device=device)
        # At the ends of a vessel the one difference there is stands for both.
        self.is_first = torch.as_tensor(1.0 - inside[:-1], device=device)
        self.is_last = torch.as_tensor(1.0 - inside[1:], device=device)


class Equations:
    """Numbers of a problem on its grid, differentiable, and the rate of change they give a state.

    A state is one tensor (..., m): areas and flows of slots, the volume that has left at every
    node, the first and the second compartments of outlets.
    """

    def __init__(self, problem: Flow1DProblem) -> None:
        grid, network, blood, wall = problem.grid, problem.network, problem.blood, problem.wall
        assert isinstance(wall, ElasticWall)
        self.wall, self.grid, self.layout = wall, grid, Layout(grid)
        self.conditions = Conditions(problem)
        layout, like = self.layout, network.radius
        cast = lambda x: x.to(like)
        n = layout.n_slots
        self.sizes = [n, n, layout.n_nodes, self.conditions.n_first, self.conditions.n_second]
        self.density, self.alpha, self.p0 = blood.density, blood.alpha, _unloaded(wall, like)
        self.is_cell, self.sign = cast(layout.is_cell), cast(layout.sign)
        self._is_first, self._is_last = cast(layout.is_first), cast(layout.is_last)
        floor = torch.tensor(_FLOORS, dtype=torch.float64).to(like).unsqueeze(-1)
        self._half_floor, self._scaled = 0.5 * floor, cast(layout.is_inside) / floor
        self._flow_floor = _FLOORS[1]
        fraction = cast(grid.cell_fraction)
        radius = between(network.radius, grid.cell_segment, fraction)
        self.cell_area = math.pi * radius**2
        modulus = _modulus_at(problem, grid.cell_segment, fraction, radius)
        self.area_unloaded, self.modulus = self._in_slots(self.cell_area), self._in_slots(modulus)
        self._per_area = 1.0 / self.area_unloaded
        length, friction = self._lengths_and_friction(problem)
        self.length = length
        self.per_length = self.is_cell * self._in_slots(1.0 / length)
        self.friction = self.is_cell * self._in_slots(friction)
        self._set_faces(problem, length)
        self._set_ends(problem, length, friction)
        self._set_surroundings(problem)

    def _in_slots(self, of_cell: torch.Tensor) -> torch.Tensor:
        return of_cell[..., self.layout.cell]

    def _lengths_and_friction(self, problem: Flow1DProblem) -> tuple[torch.Tensor, torch.Tensor]:
        """Δx and k of every cell: friction is k Q/A, exact for the unloaded vessel."""
        grid, network, blood = problem.grid, problem.network, problem.blood
        piece = grid.piece_fraction.to(network.radius)
        low, high = (between(network.radius, grid.piece_segment, piece[:, i]) for i in (0, 1))
        part = network.length[..., grid.piece_segment] * (piece[:, 1] - piece[:, 0])
        loss = blood.viscosity(0.5 * (low + high)) * taper_integral(low, high, part)
        length = grid.cell_length(network.length)
        total = added(loss.new_zeros(grid.n_cells), grid.piece_cell, loss)
        scale = blood.friction_coefficient / blood.density
        return length, scale * self.cell_area**2 / length * total

    def _set_faces(self, problem: Flow1DProblem, length: torch.Tensor) -> None:
        grid, network = problem.grid, problem.network
        fraction = grid.face_fraction.to(network.radius)
        radius = between(network.radius, grid.face_segment, fraction)
        modulus = _modulus_at(problem, grid.face_segment, fraction, radius)
        self.face_area_unloaded, self._face_modulus = math.pi * radius**2, modulus
        self._per_face_modulus = 1.0 / modulus
        self.inertia = self.slot_inertia = None
        if bool((grid.vessel_inertia > 1).any()):
            m = grid.vessel_inertia.to(network.radius)
            self.slot_inertia = m[grid.cell_vessel][self.layout.cell]
            # Vessels with m > 1 have one cell and no face inside: m of a face matters nowhere.
            self.inertia = m
        # Z = √(ρ M s)/A.
        self._face_impedance = self.density * modulus
        self._half_kinetic = 0.5 * self.alpha * self.density
        self.face_viscosity = self.slot_viscosity = None
        if problem.wall_viscosity is not None:
            of_face = problem.wall_viscosity[..., grid.face_segment] / self.face_area_unloaded
            x = self._in_slots(length)
            apart = 0.5 * (x[..., 1:] + x[..., :-1])
            self.face_viscosity = of_face * self.layout.is_inside.to(apart) / apart
            of_cell = problem.wall_viscosity[..., grid.cell_segment] / self.cell_area
            self.slot_viscosity = self._in_slots(of_cell)

    def _set_ends(
        self, problem: Flow1DProblem, length: torch.Tensor, friction: torch.Tensor
    ) -> None:
        grid, layout, network = problem.grid, self.layout, problem.network
        shape = layout.end_shape
        of_face = lambda x: x[..., layout.end_face].unflatten(-1, shape)
        self.end_area_unloaded = of_face(self.face_area_unloaded)
        self.end_modulus = of_face(self._face_modulus)
        self._per_end_modulus = 1.0 / self.end_modulus
        single = layout.is_single.to(length)
        self._end_friction = None
        if bool(single.any()):
            # Half a cell of friction towards the end of a vessel of one cell.
            half = 0.5 * self.density * length * friction
            at = self._in_slots(half)[..., layout.end_slot].unflatten(-1, shape)
            self._end_friction = at * single * self.sign
        self._end_inertia = None
        if self.inertia is not None:
            self._end_inertia = self.inertia[layout.end_vessel]
        self._end_viscosity = None
        if self.face_viscosity is not None:
            inner = layout.inner_face.clamp(0, layout.n_slots - 2)
            self._end_viscosity = self.face_viscosity[..., inner].unflatten(-1, shape)
            self._inner_face = inner
        self._linear = self._quadratic = None
        if bool((layout.lesion_entry > 0).any()):
            self._linear, self._quadratic = self._losses(problem)
        conditioned = torch.zeros(grid.n_nodes, dtype=torch.bool, device=single.device)
        for c in problem.boundary:
            conditioned[self.conditions.number[c.node]] = True
        lone = ((self.sign != 0).sum(dim=0) == 1) & conditioned
        is_total = torch.where(
            lone, problem.boundary_pressure == "total", problem.junction_pressure == "total"
        )
        self._head = None
        if bool(is_total.any()):
            self._head = self._half_kinetic * is_total.to(network.radius)

    def _losses(self, problem: Flow1DProblem) -> tuple[torch.Tensor, torch.Tensor]:
        """R and S of the lesions, at the ends that carry one."""
        both = problem.network.lesion_coefficients(problem.blood)
        entry = self.layout.lesion_entry
        none = both[0].new_zeros(1)
        return tuple(joined_last([none, c])[..., entry] for c in both)  # pyright: ignore[reportReturnType]

    def _set_surroundings(self, problem: Flow1DProblem) -> None:
        self.external = problem.pressure_external
        self._share_cell = self._share_face = self._share_end = None
        if self.external is None:
            return
        grid, share = problem.grid, self.external.share
        if share.shape[-3:] != (
            self.external.waveform.value.shape[-2], *problem.network.radius.shape[-2:]
        ):  # fmt: skip
            raise ValueError(
                f"the shares of external pressure have the shape {tuple(share.shape)}; expected "
                "(b, s, 2), b the rows of the waveform"
            )
        at = lambda segment, fraction: between(share, segment, fraction.to(share))
        self._share_cell = self._in_slots(at(grid.cell_segment, grid.cell_fraction))
        self._share_face = at(grid.face_segment, grid.face_fraction)
        self._share_end = self._share_face[..., self.layout.end_face]

    def drive(self, time: torch.Tensor) -> torch.Tensor:
        """What changes with time (t, ..., d), at times (t,)."""
        rows = None
        if self.external is not None:
            rows = self.external.waveform.at(time, self.conditions.period)
        return self.conditions.drive(time, rows)

    def split_drive(self, drive: torch.Tensor) -> list[torch.Tensor]:
        """J (..., n), P (..., n), p_im (..., l) and the rows of p_ext."""
        n, second = self.layout.n_nodes, self.conditions.n_second
        return list(drive.split([n, n, second, drive.shape[-1] - 2 * n - second], dim=-1))

    def _around(self, share: torch.Tensor | None, rows: torch.Tensor) -> torch.Tensor:
        """p₀ + p_ext at some places."""
        if share is None:
            return self.p0
        return self.p0 + (rows.unsqueeze(-2) @ share).squeeze(-2)

    def base(self, rows: torch.Tensor) -> torch.Tensor:
        """p₀ + p_ext in the slots, Pa."""
        return self._around(self._share_cell, rows)

    def stretch(self, area: torch.Tensor) -> torch.Tensor:
        """√(A/A₀) in the slots."""
        return torch.sqrt(area * self._per_area)

    def pressure(self, area: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Static pressure in the slots without the viscous part of the wall's, Pa."""
        return self.base(rows) + self.modulus * self.wall.load(self.stretch(area))

    def rate(self, state: torch.Tensor, drive: torch.Tensor) -> torch.Tensor:
        """Rate of change of a state (..., m) under what changes with time (..., d)."""
        area, flow, _, first, second = state.split(self.sizes, dim=-1)
        pressure_im = self.split_drive(drive)[2]
        n = self.layout.n_slots
        face, _, outflow, node_pressure = self._surfaces(state, drive)
        gradient = (face[..., 1:] - face[..., :-1]) * self.per_length[..., None, 1:-1]
        inner = slice(1, n - 1)
        u = flow[..., inner] / area[..., inner]
        push = area[..., inner] / self.density * gradient[..., 1, :]
        flux = gradient[..., 0, :]
        force = push + u * (self.alpha * flux + self.friction[..., inner])
        if self.slot_inertia is not None:
            force = force / self.slot_inertia[inner]
        both = torch.nn.functional.pad(torch.stack([-flux, -force], dim=-2), (1, 1))
        changed = self.conditions.rates(first, second, pressure_im, node_pressure)
        return torch.cat([both.flatten(-2), outflow, *changed], dim=-1)

    def shown(
        self, state: torch.Tensor, drive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What is saved: static pressure and area (..., k + 2v) in the cells and at the proximal
        and distal end of every vessel, flow (..., f) between the slots.
        """
        area, _, _, *_ = state.split(self.sizes, dim=-1)
        static = self.pressure(area, self.split_drive(drive)[3])
        face, end, *_ = self._surfaces(state, drive)
        if self.slot_viscosity is not None:
            flow = torch.nn.functional.pad(face[..., 0, :], (1, 1))
            widening = (flow[..., :-1] - flow[..., 1:]) * self.per_length
            static = static + self.slot_viscosity / torch.sqrt(area) * widening
        slot, entry = self.layout.slot, self.layout.vessel_entry
        at_end = end.flatten(-2).index_select(-1, entry)
        return (
            joined_last([static[..., slot], at_end[..., 2, :]]),
            joined_last([area[..., slot], at_end[..., 3, :]]),
            face[..., 0, :],
        )

    def _surfaces(
        self, state: torch.Tensor, drive: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Flow and total pressure (..., 2, f) between slots; these two, static pressure and area
        (..., 4, w, n) at ends; flow out of nodes and their pressure.
        """
        area, flow, _, first, _ = state.split(self.sizes, dim=-1)
        source, held, _, rows = self.split_drive(drive)
        source = self.conditions.source(source, first)
        n = self.layout.n_slots
        # Pressure and flow side by side: one operation reconstructs both.
        value = torch.stack([self.pressure(area, rows), flow], dim=-2)
        step = (value[..., 1:] - value[..., :-1]) * self._scaled
        a, b = step[..., :-1], step[..., 1:]
        a, b = torch.addcmul(a, self._is_first, b), torch.addcmul(b, self._is_last, a)
        product = a * b
        # (a² + 1) b + (b² + 1) a over a² + b² + 2, with a² + b² = (a + b)² − 2ab.
        total = a + b
        slope = total * (product + 1.0) / (total.square() - 2.0 * product + 2.0)
        half = torch.nn.functional.pad(self._half_floor * slope, (1, 1))
        sides = torch.cat([value + half, value - half], dim=-1)
        left, right = sides[..., : n - 1], sides[..., n + 1 :]
        mean, jump = 0.5 * (left + right), right - left
        face = self._faces(mean, jump, step, rows)
        end, outflow, node_pressure = self._ends(
            sides, area, flow, step, source, held, rows
        )  # fmt: skip
        at_end = end[..., :2, :, :].flatten(-2).index_select(-1, self.layout.face_entry)
        return torch.where(self.layout.is_end, at_end, face), end, outflow, node_pressure

    def _faces(
        self, mean: torch.Tensor, jump: torch.Tensor, step: torch.Tensor, rows: torch.Tensor
    ) -> torch.Tensor:
        """Flow and total pressure (..., 2, f) of the acoustic Riemann problem at every face."""
        pressure = mean[..., 0, :]
        load = (pressure - self._around(self._share_face, rows)) * self._per_face_modulus
        area = self.face_area_unloaded * self.wall.stretch(load).square()
        impedance = torch.sqrt(self._face_impedance * self.wall.load_slope(load)) / area
        flow = mean[..., 1, :] - 0.5 * jump[..., 0, :] / impedance
        static = pressure - 0.5 * impedance * jump[..., 1, :]
        total = static + self._half_kinetic * (flow / area).square()
        if self.face_viscosity is not None:
            difference = step[..., 1, :] * self._flow_floor
            total = total - self.face_viscosity * difference / torch.sqrt(area)
        return torch.stack([flow, total], dim=-2)

    def _ends(
        self,
        sides: torch.Tensor,
        area: torch.Tensor,
        flow: torch.Tensor,
        step: torch.Tensor,
        source: torch.Tensor,
        held: torch.Tensor,
        rows: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Flow, total and static pressure and area (..., 4, w, n) at ends; flow out of nodes and
        their pressure.
        """
        layout, sign = self.layout, self.sign
        shape = layout.end_shape
        state = sides.index_select(-1, layout.reconstructed).unflatten(-1, shape)
        p_hat, q_hat = state[..., 0, :, :], state[..., 1, :, :]
        if self._end_friction is not None:
            at = lambda x: x.index_select(-1, layout.end_slot).unflatten(-1, shape)
            p_hat = p_hat - self._end_friction * at(flow / area.square())
        p0 = over_ends(self.p0)
        if self._share_end is not None:
            p0 = self._around(self._share_end, rows).unflatten(-1, shape)
        load = (p_hat - p0) * self._per_end_modulus
        a_hat = self.end_area_unloaded * self.wall.stretch(load).square()
        stiffness = self.end_modulus * self.wall.load_slope(load)
        compliance = a_hat / stiffness
        u = q_hat / a_hat
        drift = over_ends(self.alpha) * u
        wave = stiffness / over_ends(self.density) - drift * u
        if self._end_inertia is not None:
            drift, wave = drift / self._end_inertia, wave / self._end_inertia
        speed = drift - sign * torch.sqrt(drift.square() + wave)
        viscous = None
        if self._end_viscosity is not None:
            inner = step[..., 1, :].index_select(-1, self._inner_face).unflatten(-1, shape)
            viscous = -self._end_viscosity * inner * self._flow_floor / torch.sqrt(a_hat)
        equations = NodeEquations(
            pressure=p_hat,
            flow=q_hat,
            area=a_hat,
            flow_slope=speed * compliance,
            area_slope=compliance,
            viscous=viscous,
            linear=self._linear,
            quadratic=self._quadratic,
            head=self._head,
            source=source,
            conductance=self.conditions.conductance,
            prescribed=held,
            sign=sign,
            is_prescribed=self.conditions.is_prescribed,
        )
        p, node_pressure = solve_nodes(equations)
        end_flow, end_area = equations.flow_at(p), equations.area_at(p)
        static = p if viscous is None else p + viscous
        total = static + over_ends(self._half_kinetic) * (end_flow / end_area).square()
        end = torch.stack(torch.broadcast_tensors(end_flow, total, static, end_area), -3)
        return end, (sign * end_flow).sum(-2), node_pressure
