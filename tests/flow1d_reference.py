"""A second implementation of docs/flow1d.md: plain loops over cells, nothing of the package.

Slow and obvious on purpose. Arrays in, arrays out; SI units.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

_PRESSURE_FLOOR, _FLOW_FLOOR = 0.1, 1e-9
_GAMMA = 1.0 - math.sqrt(0.5)


@dataclass
class Model:
    """Raw data of a problem.

    `segment_node` (s, 2), `length` (s,), `radius` (s, 2); `modulus` is (4/3) E h/r, a table (s, 2)
    or a function of the radius;
    `wall` is "sqrt" or "svoned"; `lesions` are (segments in order, R, S); `conditions` are
    dictionaries with `kind`, `node` and the names of docs/flow1d.md; `external` maps time to the
    pressure at both ends of every segment.
    """

    segment_node: np.ndarray
    length: np.ndarray
    radius: np.ndarray
    modulus: object
    unloaded: float
    wall: str
    density: float
    viscosity: float
    zeta: float
    alpha: float
    cell_time: float
    conditions: list
    lesions: list = field(default_factory=list)
    external: object = None
    wall_viscosity: np.ndarray | None = None
    junction_total: bool = True
    boundary_total: bool = True

    def modulus_at(self, segment, fraction):
        if callable(self.modulus):
            return self.modulus(linear(self.radius[segment], fraction))
        return linear(self.modulus[segment], fraction)

    def load(self, a):
        return math.sqrt(a) - 1 if self.wall == "sqrt" else 1 - 1 / math.sqrt(a)

    def relative_area(self, x):
        return (1 + x) ** 2 if self.wall == "sqrt" else (1 - x) ** -2

    def relative_stiffness(self, x):
        return 0.5 * (1 + x) if self.wall == "sqrt" else 0.5 * (1 - x)


def linear(ends, f):
    """A value that is linear along a segment."""
    return ends[0] * (1 - f) + ends[1] * f


@dataclass
class Place:
    """What is known at the middle of a cell or at a face."""

    segment: int
    fraction: float
    area: float
    modulus: float


def place(model, segment, fraction):
    radius = linear(model.radius[segment], fraction)
    return Place(segment, fraction, math.pi * radius**2, model.modulus_at(segment, fraction))


@dataclass
class Vessel:
    proximal: object
    distal: object
    pieces: list  # (segment, from, to)
    loss: tuple = (0.0, 0.0)  # at the proximal end
    inertia: float = 1.0
    face: list = field(default_factory=list)
    cell: list = field(default_factory=list)
    width: list = field(default_factory=list)
    friction: list = field(default_factory=list)


def slowness(model, segment, fraction):
    """One over the wave speed of the unloaded vessel."""
    stiffness = model.modulus_at(segment, fraction) * model.relative_stiffness(0.0)
    return 1 / math.sqrt(stiffness / model.density)


def cut_vessels(model):
    """Courses between nodes and steps of admittance, lesions cut at their middles."""
    proximal, distal = model.segment_node[:, 0], model.segment_node[:, 1]
    stops = {
        node
        for node in set(proximal) | set(distal)
        if np.sum(proximal == node) != 1 or np.sum(distal == node) != 1
    }
    stops |= {node for condition in model.conditions for node in condition["node"]}
    admittance = lambda s, f: place(model, s, f).area * slowness(model, s, f)
    for node in (set(proximal) | set(distal)) - stops:
        (before,), (after,) = np.flatnonzero(distal == node), np.flatnonzero(proximal == node)
        ratio = admittance(before, 1) / admittance(after, 0)
        if max(ratio, 1 / ratio) > 1.25:
            stops.add(node)
    middles = {}
    for number, (segments, *loss) in enumerate(model.lesions):
        half = 0.5 * sum(model.length[s] for s in segments)
        for s in segments:
            if half <= model.length[s]:
                middles[s] = (half / model.length[s], ("lesion", number), tuple(loss))
                break
            half -= model.length[s]
    vessels = []
    for s in range(len(model.length)):
        if proximal[s] not in stops:
            continue
        vessel = Vessel(proximal[s], None, [])
        while True:
            begin = 0.0
            if s in middles:
                fraction, node, loss = middles[s]
                vessel.pieces.append((s, 0.0, fraction))
                vessel.distal = node
                vessels.append(vessel)
                vessel, begin = Vessel(node, None, [], loss), fraction
            vessel.pieces.append((s, begin, 1.0))
            if distal[s] in stops:
                vessel.distal = distal[s]
                vessels.append(vessel)
                break
            s = int(np.flatnonzero(proximal == distal[s])[0])
    return vessels


def fill(model, vessel):
    """Cells of equal travel time."""
    edge, clock = [0.0], [0.0]
    for s, low, high in vessel.pieces:
        piece = model.length[s] * (high - low)
        ends = (slowness(model, s, 0), slowness(model, s, 1))
        edge.append(edge[-1] + piece)
        clock.append(clock[-1] + 0.5 * (linear(ends, low) + linear(ends, high)) * piece)
    n = max(1, int(clock[-1] / model.cell_time * (1 + 1e-9)))
    vessel.inertia = max(1.0, (n * model.cell_time / clock[-1]) ** 2)
    x = [edge[0]]
    for k in range(1, n):
        x.append(float(np.interp(clock[-1] * k / n, clock, edge)))
    x.append(edge[-1])

    def at(distance):
        k = len(vessel.pieces) - 1
        while k > 0 and edge[k] > distance:
            k -= 1
        s, low, high = vessel.pieces[k]
        inside = min(1.0, (distance - edge[k]) / (edge[k + 1] - edge[k]))
        return place(model, s, low + inside * (high - low))

    vessel.face = [at(d) for d in x]
    vessel.cell = [at(0.5 * (a + b)) for a, b in pairwise(x)]
    vessel.width = [b - a for a, b in pairwise(x)]
    for c in range(n):
        loss = 0.0
        for k, (s, low, high) in enumerate(vessel.pieces):
            a, b = max(x[c], edge[k]), min(x[c + 1], edge[k + 1])
            if b - a <= 1e-12 * edge[-1]:
                continue
            fraction = lambda d, k=k, low=low, high=high: (
                low + (d - edge[k]) / (edge[k + 1] - edge[k]) * (high - low)
            )
            ra, rb = (linear(model.radius[s], fraction(d)) for d in (a, b))
            integral = (b - a) * (ra**2 + ra * rb + rb**2) / (3 * math.pi**2 * ra**3 * rb**3)
            loss += model.viscosity * integral
        scale = 2 * (model.zeta + 2) * math.pi / model.density
        vessel.friction.append(scale * vessel.cell[c].area ** 2 / vessel.width[c] * loss)


def limited(a, b, floor):
    a, b = a / floor, b / floor
    return floor * ((a * a + 1) * b + (b * b + 1) * a) / (a * a + b * b + 2)


def slopes(values, floor):
    n = len(values)
    if n == 1:
        return [0.0]
    step = [values[i + 1] - values[i] for i in range(n - 1)]
    inner = [limited(step[i - 1], step[i], floor) for i in range(1, n - 1)]
    return [step[0], *inner, step[-1]]


class Reference:
    """The time derivative of [areas and flows of every vessel, outlet states, passed volumes]."""

    def __init__(self, model):
        self.model = model
        self.vessels = cut_vessels(model)
        for vessel in self.vessels:
            fill(model, vessel)
        self.nodes = {}
        for v, vessel in enumerate(self.vessels):
            self.nodes.setdefault(vessel.proximal, []).append((v, -1))
            self.nodes.setdefault(vessel.distal, []).append((v, +1))

    def outside(self, t, where):
        m = self.model
        return 0.0 if m.external is None else linear(m.external(t)[where.segment], where.fraction)

    def lumen(self, where, pressure, t):
        """Area, ρc² at a static pressure."""
        m = self.model
        x = (pressure - self.outside(t, where) - m.unloaded) / where.modulus
        return where.area * m.relative_area(x), where.modulus * m.relative_stiffness(x)

    def viscous(self, vessel, face, area, left, right):
        """Viscous pressure between the cells `left` and `left + 1`, at the face between."""
        if self.model.wall_viscosity is None:
            return 0.0
        where = vessel.face[face]
        apart = 0.5 * (vessel.width[face - 1] + vessel.width[face])
        gamma = self.model.wall_viscosity[where.segment]
        return gamma / where.area / math.sqrt(area) * (left - right) / apart

    def conditions_at(self, node, t, outlet):
        """(P prescribed or None, J, G) of a node."""
        held, source, conductance = None, 0.0, 0.0
        for c, states in zip(self.model.conditions, outlet, strict=True):
            for i, at in enumerate(c["node"]):
                if at != node:
                    continue
                if c["kind"] == "pressure":
                    held = c["value"](t)[i]
                elif c["kind"] == "flow":
                    source += c["value"](t)[i]
                elif c["kind"] == "resistance":
                    source += c["P_ref"][i] / c["R"][i]
                    conductance += 1 / c["R"][i]
                else:
                    source += states[i][0] / c["R1"][i]
                    conductance += 1 / c["R1"][i]
        return held, source, conductance

    def outlet_rates(self, t, outlet, outflow):
        rates = []
        for c, states in zip(self.model.conditions, outlet, strict=True):
            rate = np.zeros_like(states)
            for i, node in enumerate(c["node"]):
                q = outflow[node]
                if c["kind"] == "windkessel":
                    rate[i, 0] = (q - (states[i, 0] - c["P_ref"][i]) / c["R2"][i]) / c["C"][i]
                elif c["kind"] == "ladder":
                    around = c["p_im"](t)
                    tissue = states[:, 1] + around
                    through = (states[i, 0] - tissue[i]) / c["R2"][i]
                    drained = c["M"][i] @ tissue - c["m"][i]
                    rate[i] = (q - through) / c["Ca"][i], (through - drained) / c["Ct"][i]
            rates.append(rate)
        return rates

    def solve_node(self, node, t, ends, outlet):
        """Pressures at the ends of a node; `ends` are dictionaries of their states."""
        m = self.model
        held, source, conductance = self.conditions_at(node, t, outlet)
        at_border = len(ends) == 1 and any(node in c["node"] for c in m.conditions)
        total = m.boundary_total if at_border else m.junction_total
        head = 0.5 * m.alpha * m.density if total else 0.0
        for e in ends:
            e["p"] = e["p_hat"]
        for _ in range(3):
            into, admittance = source, conductance
            for e in ends:
                q = e["Q_hat"] + e["y"] * (e["p"] - e["p_hat"])
                area = e["A_hat"] + e["K"] * (e["p"] - e["p_hat"])
                r, s = e["loss"]
                e["t"] = e["p"] + e["viscous"] + head * (q / area) ** 2
                e["t"] -= e["sign"] * (r + s * abs(q)) * q
                e["dt"] = 1 + 2 * head * q / area * (e["y"] - q / area * e["K"]) / area
                e["dt"] -= e["sign"] * (r + 2 * s * abs(q)) * e["y"]
                y = -e["sign"] * e["y"] / e["dt"]
                into += e["sign"] * q + y * e["t"]
                admittance += y
            pressure = held if held is not None else into / admittance
            for e in ends:
                e["p"] += (pressure - e["t"]) / e["dt"]
        for e in ends:
            e["Q"] = e["Q_hat"] + e["y"] * (e["p"] - e["p_hat"])
            area = e["A_hat"] + e["K"] * (e["p"] - e["p_hat"])
            e["P"] = e["p"] + e["viscous"] + 0.5 * m.alpha * m.density * (e["Q"] / area) ** 2

    def surfaces(self, t, state):
        """Flow and total pressure at the faces, the states at the ends, flow out of nodes."""
        m = self.model
        areas, flows, outlet, _ = state
        face_flow = [np.zeros(len(v.face)) for v in self.vessels]
        face_total = [np.zeros(len(v.face)) for v in self.vessels]
        ends = {}
        for v, vessel in enumerate(self.vessels):
            n = len(vessel.cell)
            pressure = [
                self.outside(t, w) + m.unloaded + w.modulus * m.load(a / w.area)
                for w, a in zip(vessel.cell, areas[v], strict=True)
            ]
            flow = list(flows[v])
            dp, dq = slopes(pressure, _PRESSURE_FLOOR), slopes(flow, _FLOW_FLOOR)
            for f in range(1, n):
                pl, pr = pressure[f - 1] + 0.5 * dp[f - 1], pressure[f] - 0.5 * dp[f]
                ql, qr = flow[f - 1] + 0.5 * dq[f - 1], flow[f] - 0.5 * dq[f]
                area, stiffness = self.lumen(vessel.face[f], 0.5 * (pl + pr), t)
                z = math.sqrt(vessel.inertia * m.density * stiffness) / area
                q = 0.5 * (ql + qr) - (pr - pl) / (2 * z)
                p = 0.5 * (pl + pr) - 0.5 * z * (qr - ql)
                p += self.viscous(vessel, f, area, flow[f - 1], flow[f])
                face_flow[v][f] = q
                face_total[v][f] = p + 0.5 * m.alpha * m.density * (q / area) ** 2
            for sign in (-1, 1):
                i, face = (n - 1, n) if sign > 0 else (0, 0)
                j = i if n == 1 else i - sign
                p_hat = pressure[i] + 0.5 * (pressure[i] - pressure[j])
                q_hat = flow[i] + 0.5 * (flow[i] - flow[j])
                if n == 1:
                    loss = m.density * vessel.friction[0] * vessel.width[0] * flow[0]
                    p_hat -= 0.5 * sign * loss / areas[v][0] ** 2
                area, stiffness = self.lumen(vessel.face[face], p_hat, t)
                u = q_hat / area
                a = m.alpha * u / vessel.inertia
                excess = (stiffness / m.density - m.alpha * u * u) / vessel.inertia
                compliance = area / stiffness
                viscous = 0.0
                if n > 1:
                    left = min(i, j)
                    viscous = self.viscous(vessel, left + 1, area, flow[left], flow[left + 1])
                ends[v, sign] = {
                    "sign": sign,
                    "p_hat": p_hat,
                    "Q_hat": q_hat,
                    "A_hat": area,
                    "K": compliance,
                    "y": (a - sign * math.sqrt(a * a + excess)) * compliance,
                    "loss": vessel.loss if sign < 0 else (0.0, 0.0),
                    "viscous": viscous,
                }
        outflow = {}
        for node, members in self.nodes.items():
            here = [ends[member] for member in members]
            self.solve_node(node, t, here, outlet)
            outflow[node] = sum(e["sign"] * e["Q"] for e in here)
            for (v, sign), e in zip(members, here, strict=True):
                face = len(self.vessels[v].cell) if sign > 0 else 0
                face_flow[v][face], face_total[v][face] = e["Q"], e["P"]
        return face_flow, face_total, ends, outflow

    def shown(self, t, state):
        """What a solution shows of every vessel: static pressure and area at its proximal end, in
        its cells and at its distal end; flow through its faces.
        """
        m = self.model
        face_flow, _, ends, _ = self.surfaces(t, state)
        found = []
        for v, vessel in enumerate(self.vessels):
            pressure, area = [], list(state[0][v])
            for i, (where, a) in enumerate(zip(vessel.cell, area, strict=True)):
                p = self.outside(t, where) + m.unloaded + where.modulus * m.load(a / where.area)
                if m.wall_viscosity is not None:
                    widening = -(face_flow[v][i + 1] - face_flow[v][i]) / vessel.width[i]
                    gamma = m.wall_viscosity[where.segment]
                    p += gamma / (where.area * math.sqrt(a)) * widening
                pressure.append(p)
            first, last = (ends[v, sign] for sign in (-1, 1))
            static = [e["p"] + e["viscous"] for e in (first, last)]
            of_ends = [e["A_hat"] + e["K"] * (e["p"] - e["p_hat"]) for e in (first, last)]
            found.append(
                (
                    [static[0], *pressure, static[1]],
                    [of_ends[0], *area, of_ends[1]],
                    face_flow[v],
                )
            )
        return found

    def rate(self, t, state):
        m = self.model
        areas, flows, outlet, _ = state
        face_flow, face_total, _, outflow = self.surfaces(t, state)
        d_area, d_flow = [], []
        for v, vessel in enumerate(self.vessels):
            width = np.array(vessel.width)
            flux, drive = np.diff(face_flow[v]) / width, np.diff(face_total[v]) / width
            u = flows[v] / areas[v]
            force = areas[v] / m.density * drive + u * (m.alpha * flux + np.array(vessel.friction))
            d_area.append(-flux)
            d_flow.append(-force / vessel.inertia)
        return d_area, d_flow, self.outlet_rates(t, outlet, outflow), outflow

    def damping(self, state):
        areas, _, outlet, passed = state
        flow = [
            np.array(v.friction) / a / v.inertia for v, a in zip(self.vessels, areas, strict=True)
        ]
        rates = []
        for c, states in zip(self.model.conditions, outlet, strict=True):
            rate = np.zeros_like(states)
            for i in range(len(states)):
                if c["kind"] == "windkessel":
                    rate[i, 0] = (1 / c["R1"][i] + 1 / c["R2"][i]) / c["C"][i]
                elif c["kind"] == "ladder":
                    rate[i, 0] = (1 / c["R1"][i] + 2 / c["R2"][i]) / c["Ca"][i]
                    rate[i, 1] = (2 / c["R2"][i] + sum(abs(c["M"][i]))) / c["Ct"][i]
            rates.append(rate)
        return [0 * a for a in areas], flow, rates, dict.fromkeys(passed, 0.0)

    def step(self, t, h, state):
        d = self.damping(state)
        relax = _apply(lambda x: 1 / (1 + _GAMMA * h * x), d)
        first = _apply(lambda f, r: f * r, self.rate(t, state), relax)
        ahead = _apply(lambda u, k: u + h * k, state, first)
        rate = self.rate(t + h, ahead)
        second = _apply(lambda f, k, r: (f - 2 * k) * r, rate, first, relax)
        return _apply(lambda u, k, s: u + h * (1.5 * k + 0.5 * s), state, first, second)


def _apply(function, *states):
    """A function of every entry of states (areas, flows, outlets, passed)."""
    lists = [
        [function(*entries) for entries in zip(*(s[i] for s in states), strict=True)]
        for i in range(3)
    ]
    passed = {n: function(*(s[3][n] for s in states)) for n in states[0][3]}
    return (*lists, passed)
