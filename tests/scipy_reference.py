"""An independent witness of the coupled solve: raw arrays, SciPy, and nothing of the library.

Unknowns are the total pressures P at the nodes, the flows Q of the segments, the tissue pressures p
of the control volumes and the undilated terminal flows u:

    P_a − P_b − R_e Q_e − S_e |Q_e| Q_e = 0                       for each segment e from a to b,
    Σ_in Q − Σ_out Q − Σ_i f_i u_i = 0    or    P = P_given       at each node,
    u_i − Σ_k w_k (P_T(i) − p_c(k)) = 0                           for each terminal,
    Σ_k f_i(k) [w_k (P_T − p) − v_k (p − p_snk)] − Σ_j T_cj (p_c − p_j) = 0,   each control volume,

with w_k = β_src V_k, v_k = β_snk V_k of the overlap k of a control volume with a terminal region.
Rigid walls, Poiseuille friction 2(ζ+2)πµ ∫dx/A² of a linearly tapering radius, the loss of Young
and Tsai with [K_v(s) − K_v(0)] on top of the Poiseuille loss of the reference radius.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import splu


@dataclass(frozen=True)
class RawCase:
    """A coupled problem as plain arrays, SI units."""

    # network
    node_position: np.ndarray  # (n, 3), which only orders the elimination
    segment: np.ndarray  # (s, 2) nodes
    radius: np.ndarray  # (s, 2)
    length: np.ndarray  # (s,)
    n_nodes: int
    fixed_node: np.ndarray
    fixed_pressure: np.ndarray
    # lesions: segment it lies on, its share there; and per pair the lesion's own data
    lesion_segment: np.ndarray
    lesion_fraction: np.ndarray
    lesion_radius: np.ndarray
    lesion_reduction: np.ndarray
    lesion_length: np.ndarray
    viscosity: float
    density: float
    profile_exponent: float
    # tissue
    centre: np.ndarray  # (c, 3), which only orders the elimination
    volume: np.ndarray  # (c,)
    conduction: sparse.csr_array  # (c, c), from `voxel_conduction` or `tet_conduction`
    cell: np.ndarray  # (k,)
    terminal: np.ndarray  # (k,)
    overlap: np.ndarray  # (k,)
    terminal_node: np.ndarray  # (t,)
    beta_source: np.ndarray  # (c,)
    beta_sink: np.ndarray  # (c,)
    pressure_sink: float
    # the dilation given, or the law (target (t,), largest, smallest, sharpness)
    dilation: np.ndarray | None
    autoregulation: tuple[np.ndarray, float, float, int] | None = None


@dataclass(frozen=True)
class RawSolution:
    """P, Q, p, the terminal flows q, the dilations, and the Newton steps taken."""

    pressure: np.ndarray
    flow: np.ndarray
    tissue: np.ndarray
    terminal_flow: np.ndarray
    dilation: np.ndarray
    steps: int


def voxel_conduction(ijk: np.ndarray, spacing: np.ndarray, mobility) -> sparse.csr_array:
    """Seven-point finite volumes: T = (face area / distance) · harmonic mean of the mobilities."""
    n, k = len(ijk), np.broadcast_to(np.asarray(mobility, float), (len(ijk),))
    place = {tuple(index): c for c, index in enumerate(ijk.tolist())}
    rows, cols, values = [], [], []
    for axis in range(3):
        face = np.prod(np.delete(spacing, axis)) / spacing[axis]
        for (i, j, m), here in place.items():
            step = [i, j, m]
            step[axis] += 1
            there = place.get(tuple(step))
            if there is not None:
                rows.append(here)
                cols.append(there)
                values.append(face / (0.5 / k[here] + 0.5 / k[there]))
    return _laplacian(n, np.array(rows, int), np.array(cols, int), np.array(values))


def _laplacian(n, i, j, t) -> sparse.csr_array:
    off = sparse.coo_array((-t, (i, j)), shape=(n, n))
    matrix = (off + off.T).tocsr()
    return (matrix - sparse.diags_array(np.asarray(matrix.sum(axis=1)).ravel())).tocsr()


def tet_conduction(point: np.ndarray, tet: np.ndarray, mobility: float) -> sparse.csr_array:
    """Linear finite elements, ∫K ∇φ_i·∇φ_j; ∇φ_i is the opposite face's inward normal over 3|T|."""
    corner = point[tet]
    edge = corner[:, 1:] - corner[:, :1]
    six_volume = np.einsum("mi,mi->m", edge[:, 0], np.cross(edge[:, 1], edge[:, 2]))
    normal = np.empty((len(tet), 4, 3))
    for a, (b, c, d) in enumerate([(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 1, 2)]):
        face = np.cross(corner[:, c] - corner[:, b], corner[:, d] - corner[:, b])
        inward = np.einsum("mi,mi->m", face, corner[:, a] - corner[:, b])
        normal[:, a] = face * np.sign(inward)[:, None]
    gradient = normal / np.abs(six_volume)[:, None, None]
    local = (
        mobility
        * np.einsum("mai,mbi->mab", gradient, gradient)
        * np.abs(six_volume / 6)[:, None, None]
    )
    row = np.repeat(tet, 4, axis=1).ravel()
    column = np.tile(tet, (1, 4)).ravel()
    return sparse.coo_array((local.ravel(), (row, column)), shape=(len(point),) * 2).tocsr()


def segment_losses(case: RawCase) -> tuple[np.ndarray, np.ndarray]:
    """R and S of every segment."""
    a, b = case.radius.T
    # ∫ dx / (π² r⁴) of r linear in x
    same = np.isclose(a, b, rtol=1e-3, atol=0.0)
    taper = np.where(same, 1.0, b - a)
    exact = case.length / (3 * np.pi**2 * taper) * (a**-3.0 - b**-3.0)
    # Where the ends nearly agree the difference cancels: expand about the mean radius.
    mean, half = (a + b) / 2, (b - a) / 2
    relative = (half / mean) ** 2
    series = case.length / (np.pi**2 * mean**4) * (1 + relative * (10 / 3 + relative * 7))
    integral = np.where(same, series, exact)
    linear = 2 * (case.profile_exponent + 2) * np.pi * case.viscosity * integral
    quadratic = np.zeros_like(linear)
    diameter, area = 2 * case.lesion_radius, np.pi * case.lesion_radius**2
    left = 1 - case.lesion_reduction

    def k_v(remaining):
        return (
            32 * (0.83 * case.lesion_length + 1.64 * diameter * remaining) / diameter / remaining**4
        )

    more = (k_v(left) - k_v(np.ones_like(left))) * case.viscosity / (diameter * area)
    np.add.at(linear, case.lesion_segment, case.lesion_fraction * more)
    turbulent = 0.5 * 1.52 * case.density * (left**-2.0 - 1) ** 2 / area**2
    np.add.at(quadratic, case.lesion_segment, case.lesion_fraction * turbulent)
    return linear, quadratic


def _regulation(case: RawCase, u):
    """The dilation and its derivative with respect to u."""
    if case.autoregulation is None:
        return np.broadcast_to(case.dilation, u.shape).astype(float), np.zeros_like(u)
    target, largest, smallest, n = case.autoregulation
    share = np.maximum(u / target, 0.0)
    opening = 1.0 / (share**n + largest ** -float(n))
    f = (smallest**n + opening) ** (1.0 / n)
    return f, -(f ** (1 - n)) * opening**2 * share ** (n - 1) / target


class _Assembly:
    """Residual and Jacobian; unknowns in the order P, Q, p, u."""

    def __init__(self, case: RawCase):
        self.case = case
        self.linear, self.quadratic = segment_losses(case)
        self.sizes = (case.n_nodes, len(case.length), len(case.volume), len(case.terminal_node))
        self.start = np.concatenate([[0], np.cumsum(self.sizes)])
        self.w = case.overlap * case.beta_source[case.cell]
        self.v = case.overlap * case.beta_sink[case.cell]

    def split(self, x):
        return np.split(x, self.start[1:-1])

    def __call__(self, x):
        case = self.case
        pressure, flow, tissue, u = self.split(x)
        f, slope = _regulation(case, u)
        cell, terminal = case.cell, case.terminal
        a, b = case.segment.T
        drop = pressure[a] - pressure[b] - (self.linear + self.quadratic * np.abs(flow)) * flow
        node = np.zeros(case.n_nodes)
        np.add.at(node, b, flow)
        np.add.at(node, a, -flow)
        np.add.at(node, case.terminal_node, -f * u)
        node[case.fixed_node] = pressure[case.fixed_node] - case.fixed_pressure
        into = self.w * (pressure[case.terminal_node][terminal] - tissue[cell])
        passing = into - self.v * (tissue[cell] - case.pressure_sink)
        undilated = u - np.bincount(terminal, into, minlength=len(u))
        balance = np.bincount(cell, f[terminal] * passing, minlength=len(tissue))
        residual = np.concatenate([drop, node, balance - case.conduction @ tissue, undilated])
        return residual, self._jacobian(flow, u, f, slope, passing)

    def _jacobian(self, flow, u, f, slope, passing):
        """Rows in the order segments, nodes, control volumes, terminals."""
        case, entries = self.case, []
        n, s, c, t = self.sizes
        P, Q, p, U = self.start[:4]
        E, N, C, T = 0, s, s + n, s + n + c
        a, b = case.segment.T
        e, k, i = np.arange(s), np.arange(t), case.terminal
        at = case.terminal_node

        def add(row, column, value):
            entries.append((row, column, np.broadcast_to(value, row.shape)))

        add(E + e, P + a, 1.0)
        add(E + e, P + b, -1.0)
        add(E + e, Q + e, -self.linear - 2 * self.quadratic * np.abs(flow))
        free = ~np.isin(np.arange(n), case.fixed_node)
        add(N + b[free[b]], Q + e[free[b]], 1.0)
        add(N + a[free[a]], Q + e[free[a]], -1.0)
        add(N + at, U + k, -(f + slope * u))
        add(N + case.fixed_node, P + case.fixed_node, 1.0)
        add(C + case.cell, P + at[i], f[i] * self.w)
        add(C + case.cell, p + case.cell, -f[i] * (self.w + self.v))
        add(C + case.cell, U + i, slope[i] * passing)
        tissue = case.conduction.tocoo()
        add(C + tissue.coords[0], p + tissue.coords[1], -tissue.data)
        add(T + k, U + k, 1.0)
        add(T + i, P + at[i], -self.w)
        add(T + i, p + case.cell, self.w)
        row, column, value = (np.concatenate(part) for part in zip(*entries, strict=True))
        return sparse.coo_array((value, (row, column)), shape=(self.start[-1],) * 2).tocsc()


def nested_dissection(matrix: sparse.csr_array, position: np.ndarray) -> np.ndarray:
    """An order of elimination by cutting the unknowns in two where they lie, separators last.

    Minimum degree, SuperLU's own choice, fills a wall of 64 000 voxels for minutes.
    """
    pattern = (matrix + matrix.T).tocsr()
    first, other = pattern.indptr, pattern.indices
    side = np.zeros(len(position), np.int8)

    def dissect(index):
        if len(index) <= 64:
            return [index]
        x = position[index]
        axis = int(np.argmax(np.ptp(x, axis=0)))
        order = np.argsort(x[:, axis], kind="stable")
        left, right = index[order[: len(index) // 2]], index[order[len(index) // 2 :]]
        side[right] = 1
        count = first[left + 1] - first[left]
        start = np.cumsum(count) - count
        place = np.repeat(first[left] - start, count) + np.arange(count.sum())
        touches = np.zeros(len(left), bool)
        touches[np.repeat(np.arange(len(left)), count)[side[other[place]] == 1]] = True
        side[right] = 0
        return dissect(left[~touches]) + dissect(right) + [left[touches]]

    return np.concatenate(dissect(np.arange(len(position))))


def factor_ordered(matrix: sparse.csr_array, position: np.ndarray):
    """Sparse LU in the order of `nested_dissection`; returns the solve."""
    order = nested_dissection(matrix, position)
    factor = splu(
        matrix[order][:, order].tocsc(),
        permc_spec="NATURAL",
        diag_pivot_thresh=0.0,
        options={"SymmetricMode": True},
    )

    def solve(right):
        x = np.empty(len(right))
        x[order] = factor.solve(right[order])
        return x

    return solve


def _factor(matrix: sparse.csr_array, case: RawCase):
    """LU of the matrix, the flow of each segment first taken out through the segment's own law.

    That is exact, and what is left has its large entries on the diagonal.
    """
    n, s = case.n_nodes, len(case.length)
    others = np.concatenate([np.arange(n), np.arange(n + s, matrix.shape[0])])
    law, rest = matrix[:s], matrix[s:]
    slope = law[:, n : n + s].diagonal()
    law_others, rest_flow = law[:, others], rest[:, n : n + s]
    left = rest[:, others] - rest_flow @ (sparse.diags_array(1 / slope) @ law_others)
    at_terminals = case.node_position[case.terminal_node]
    direct = factor_ordered(
        left.tocsr(), np.concatenate([case.node_position, case.centre, at_terminals])
    )

    def solve(right):
        y = np.empty(len(right))
        y[others] = direct(right[s:] - rest_flow @ (right[:s] / slope))
        y[n : n + s] = (right[:s] - law_others @ y[others]) / slope
        return y

    return solve


def solve(case: RawCase, *, max_steps: int = 60) -> RawSolution:
    """Sparse Newton on all unknowns, until the steps are round-off."""
    assembly = _Assembly(case)
    n, s, c, t = assembly.sizes
    pressure_unit = float(np.max(case.fixed_pressure))
    flow_unit = float(np.sum(assembly.w)) * pressure_unit
    each_cell, each_terminal = flow_unit / c, flow_unit / t
    column = np.repeat([pressure_unit, flow_unit, pressure_unit, each_terminal], [n, s, c, t])
    row = np.repeat([pressure_unit, flow_unit, each_cell, each_terminal], [s, n, c, t])
    row[s + case.fixed_node] = pressure_unit
    x = np.zeros(len(column))
    x[:n] = pressure_unit
    x[n + s : n + s + c] = 0.2 * pressure_unit
    x[n + s + c :] = each_terminal
    previous = np.inf
    for step in range(1, max_steps + 1):
        residual, jacobian = assembly(x)
        scaled = (sparse.diags_array(1 / row) @ jacobian @ sparse.diags_array(column)).tocsr()
        right = residual / row
        size = np.max(np.abs(right))
        direct = _factor(scaled, case)
        y = direct(right)
        y += direct(right - scaled @ y)
        length = 1.0
        while length > 1e-3:
            trial = np.max(np.abs(assembly(x - length * column * y)[0] / row))
            if trial < size or step == 1 or size < 1e-11:
                break
            length /= 2
        x = x - length * column * y
        moved = max(np.max(np.abs(y[:n])), np.max(np.abs(y[n : n + s])), np.max(np.abs(y[n + s :])))
        if moved < 1e-12 or (moved < 1e-9 and moved > 0.5 * previous):
            break
        previous = moved
    else:
        raise ArithmeticError(f"the reference did not converge: last step {moved:.2e}")
    pressure, flow, tissue, u = assembly.split(x)
    f, _ = _regulation(case, u)
    return RawSolution(pressure, flow, tissue, f * u, f, step)


def fixed_point(
    case: RawCase, *, tolerance: float = 1e-6, max_passes: int = 200
) -> tuple[RawSolution, list[float]]:
    """The published coupling: network with outlets R = p_T/q, then Darcy with p_T given, and again.

    Passes until no terminal flow changes by more than `tolerance` relative to the largest; returns
    the changes too. The dilation must be given.
    """
    c = len(case.volume)
    f = np.broadcast_to(np.asarray(case.dilation, float), case.terminal_node.shape)
    k = f[case.terminal] * case.overlap
    w, v = k * case.beta_source[case.cell], k * case.beta_sink[case.cell]
    taken = np.bincount(case.cell, w + v, minlength=c)
    direct = factor_ordered((case.conduction + sparse.diags_array(taken)).tocsr(), case.centre)
    pressure_terminal = np.full(len(f), float(np.max(case.fixed_pressure)))
    q, changes = np.zeros(len(f)), []
    for _ in range(max_passes):
        source = np.bincount(
            case.cell, w * pressure_terminal[case.terminal] + v * case.pressure_sink, minlength=c
        )
        tissue = direct(source)
        fed = w * (pressure_terminal[case.terminal] - tissue[case.cell])
        before, q = q, np.bincount(case.terminal, fed, minlength=len(f))
        changes.append(float(np.max(np.abs(q - before)) / np.max(np.abs(q))))
        if changes[-1] < tolerance:
            break
        pressure, flow = network_with_resistances(case, pressure_terminal / q)
        pressure_terminal = pressure[case.terminal_node]
    return RawSolution(pressure, flow, tissue, q, f, len(changes)), changes


def network_with_resistances(case: RawCase, resistance: np.ndarray):
    """The network by itself with an outlet of the given resistance to zero at every terminal."""
    linear, quadratic = segment_losses(case)
    n, s = case.n_nodes, len(case.length)
    a, b = case.segment.T
    e, fixed = np.arange(s), case.fixed_node
    free = ~np.isin(np.arange(n), fixed)
    unit_p = float(np.max(case.fixed_pressure))
    unit_q = float(np.sum(unit_p / np.abs(resistance)))
    scale_x = np.repeat([unit_p, unit_q], [n, s])
    scale_r = np.repeat([unit_p, unit_q], [s, n])
    scale_r[s + fixed] = unit_p
    x = np.concatenate([np.full(n, unit_p), np.zeros(s)])
    outlet = np.zeros(n)
    np.add.at(outlet, case.terminal_node, 1 / resistance)
    for _ in range(60):
        pressure, flow = x[:n], x[n:]
        drop = pressure[a] - pressure[b] - (linear + quadratic * np.abs(flow)) * flow
        node = -outlet * pressure
        np.add.at(node, b, flow)
        np.add.at(node, a, -flow)
        node[fixed] = pressure[fixed] - case.fixed_pressure
        nodes = np.flatnonzero(free)
        row = [e, e, e, s + b[free[b]], s + a[free[a]], s + nodes, s + fixed]
        column = [a, b, n + e, n + e[free[b]], n + e[free[a]], nodes, fixed]
        slope = linear + 2 * quadratic * np.abs(flow)
        one = np.ones
        value = [one(s), -one(s), -slope, one(free[b].sum()), -one(free[a].sum()), -outlet[nodes]]
        value.append(one(len(fixed)))
        entries = (np.concatenate(value), (np.concatenate(row), np.concatenate(column)))
        matrix = sparse.coo_array(entries, shape=(n + s, n + s)).tocsc()
        scaled = sparse.diags_array(1 / scale_r) @ matrix @ sparse.diags_array(scale_x)
        y = splu(scaled.tocsc()).solve(np.concatenate([drop, node]) / scale_r)
        x = x - scale_x * y
        if np.max(np.abs(y)) < 1e-12:
            return x[:n], x[n:]
    raise ArithmeticError("the network with resistances did not converge")


def with_lesion(case: RawCase, reduction: float) -> RawCase:
    """The same case with another diameter reduction in every lesion."""
    return replace(case, lesion_reduction=np.full_like(case.lesion_reduction, reduction))
