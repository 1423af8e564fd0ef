"""The condensed perfused bed against dense matrices and against the steady coupled solve."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy_reference as reference
from coupled_cases import raw_case, small_wall
from helpers import on_host

from jaxperf import InputError
from jaxperf.coupling import (
    condense_bed,
    Microcirculation,
    perfused_tissue,
    PerfusionProblem,
    solve_perfusion,
    transient_segments,
)
from jaxperf.coupling._part import cut_network, transient_part
from jaxperf.geometry import terminal_regions
from jaxperf.growth import Forest, join_forest
from jaxperf.network import (
    build_network,
    declare_lesion,
    PressureBoundary,
    ResistanceOutlet,
    Waveform,
)
from jaxperf.vessel import OlufsenStiffness, RigidWall, SqrtAreaWall

WALL = SqrtAreaWall(OlufsenStiffness(), pressure_reference=93.0 * 133.322)
SINK = 650.0
# 1-D vessels are the fixed ones and grown ones down to a radius (m), and whole trees. The fixed
# vessels' outlets are ends, a side root in the middle of a vessel and none at the root; the wider
# grown ones add bifurcations of which one branch is in the bed; a whole tree has terminals on 1-D
# vessels; with all trees whole every outlet is a terminal.
FIXED, WIDE, TREE, ALL = (1.0, ()), (5e-4, ()), (1.0, (1,)), (1e-4, ())
PARTS = {"fixed": FIXED, "wide": WIDE, "tree": TREE, "all": ALL}


def hand_made_forest(wall):
    """Three trees of three generations: a stub, two vessels, four terminals."""
    parent, radius, tree = [], [], []
    for i in range(3):
        first = 7 * i
        parent += [-1 - i, first, first, first + 1, first + 1, first + 2, first + 2]
        radius += [8e-4, 6e-4, 4e-4, *[3e-4] * 4]
        tree += [i] * 7
    point = wall.centre[np.random.default_rng(2).choice(wall.n_cells, 21, replace=False)]
    return Forest(
        root_node=np.array([1, 2, 3]),
        root_territory=np.array([1, 0, 0]),
        root_share=np.full(3, 1 / 3),
        root_projected=np.full(3, 1 / 3),
        position=point + 1e-4,
        parent=np.array(parent),
        radius=np.array(radius),
        tree=np.array(tree),
        stage=np.zeros(21, np.int64),
        terminal=np.setdiff1d(np.arange(21), parent),
        cell_tree=np.zeros(wall.n_cells, np.int64),
        territory_name=("LAD", "LCx"),
        frame=wall.frame,
        settings="{}",
    )


@pytest.fixture(scope="module")
def case():
    """A trunk with a lesion and a forest, uneven dilation, a sink above zero; solved."""
    wall = small_wall(5.0, 0.5)
    top, side = wall.centre[:, 2].max(), wall.centre[:, 0].max()
    fixed = build_network(
        np.array([[0, 0, top + 0.02], [-side, 0, top], [side, 0, top], [side, 0, 0.0]]),
        np.array([[0, 1], [0, 2], [2, 3]]),
        np.array([2e-3, 1.5e-3, 1.5e-3, 1e-3]),
        root=np.array([0]),
        frame=wall.frame,
        branch=np.array([0, 1, 1]),
        branch_name=("LCx", "LAD"),
    )
    fixed = declare_lesion(fixed, branch="LAD", start_mm=2, end_mm=8, diameter_reduction=0.6)
    forest = hand_made_forest(wall)
    network = join_forest(fixed, forest)
    site = forest.position[forest.terminal]
    regions = terminal_regions(wall, site, np.arange(12), np.full(12, 3e-4), 12)
    dilation = jnp.asarray(np.random.default_rng(1).uniform(0.8, 3.0, 12))
    problem = PerfusionProblem(
        network,
        perfused_tissue(wall, regions, fixed.n_nodes + forest.terminal),
        (PressureBoundary(network.roots, jnp.array([12400.0])),),
        Microcirculation(1.74e-6, 8.75e-6, pressure_sink=SINK, dilation=dilation),
    )
    return problem, wall, solve_perfusion(problem)


N_FIXED = 5  # three vessels, of which the lesion makes five segments


@pytest.fixture(scope="module")
def seen(case):
    """The problem, its mesh and its solution, to look at."""
    return on_host(case)


def part(network, limit, trees):
    grown = np.arange(network.n_segments) - N_FIXED
    whole = np.isin(grown // 7, trees) & (grown >= 0)
    return transient_segments(network, N_FIXED, limit) | whole


def condense(case, chosen, **more):
    problem, _, solution = case
    chosen = part(problem.network, *chosen)
    # three at a time: blocks that do not fill up
    return condense_bed(problem, chosen, wall=WALL, solution=solution, chunk=3, **more)


@pytest.fixture(scope="module", params=PARTS)
def condensed(case, request):
    found = condense(case, PARTS[request.param])
    # a network's properties are for JAX's arrays
    return eqx.tree_at(lambda c: c.network, on_host(found), found.network)


def dense_bed(raw, is_transient, outlet):
    """G, Φ, X and M, m by dense elimination: all vessels below the outlets, then the tissue."""
    n, c = raw.n_nodes, len(raw.volume)
    a, b = raw.segment[~is_transient].T
    resistance, quadratic = reference.segment_losses(raw)
    assert (quadratic[~is_transient] == 0).all()
    link = raw.dilation[raw.terminal] * raw.overlap
    first = np.concatenate([a, raw.terminal_node[raw.terminal]])
    second = np.concatenate([b, n + raw.cell])
    value = np.concatenate([1 / resistance[~is_transient], link * raw.beta_source[raw.cell]])
    matrix = np.zeros((n + c, n + c))
    np.add.at(matrix, (first, second), -value)
    matrix = matrix + matrix.T
    matrix -= np.diag(matrix.sum(axis=1))
    sink = np.bincount(raw.cell, link * raw.beta_sink[raw.cell], minlength=c)
    matrix[n:, n:] += raw.conduction.toarray() + np.diag(sink)
    inner = np.setdiff1d(raw.segment[~is_transient], raw.segment[is_transient])
    kept = np.concatenate([outlet, n + np.arange(c)])
    gone = matrix[np.ix_(inner, kept)]
    rest = matrix[np.ix_(kept, kept)]
    rest -= gone.T @ np.linalg.solve(matrix[np.ix_(inner, inner)], gone)
    o = len(outlet)
    conductance = np.diagonal(rest[:o, :o])
    assert np.abs(rest[:o, :o] - np.diag(conductance)).max() <= 1e-12 * conductance.max()
    share = -rest[o:, :o] / conductance
    interaction = share.T @ np.linalg.solve(rest[o:, o:], share)
    drained = share.T @ np.linalg.solve(rest[o:, o:], sink * raw.pressure_sink)
    inverse = np.linalg.inv(interaction)
    return conductance, share, inverse - np.diag(conductance), inverse @ drained


def largest(difference, of):
    return np.max(np.abs(np.asarray(difference))) / np.max(np.abs(np.asarray(of)))


def test_agrees_with_dense_elimination(seen, condensed):
    problem, mesh, solution = seen
    raw, bed = raw_case(problem, mesh), condensed.bed
    is_transient = np.isin(np.arange(problem.network.n_segments), condensed.segment)
    outlet = condensed.node[np.asarray(bed.node)]
    conductance, share, matrix, inflow = dense_bed(raw, is_transient, outlet)
    assert (
        largest(
            bed.resistance_proximal + bed.resistance_distal - 0.5 / conductance, 1 / conductance
        )
        <= 1e-12
    )
    # the other half: from the squeezed vessels to the tissue, q = 2 G (π - tissue)
    half = np.diag(2 * conductance)
    onward = np.linalg.inv(half + matrix)
    assert largest(bed.conductance - half @ onward @ matrix, matrix) <= 1e-9
    assert largest(bed.inflow - half @ onward @ inflow, inflow) <= 1e-9
    tissue = share.T @ np.asarray(solution.pressure_tissue)
    within = tissue + 0.5 * np.asarray(condensed.outlet_flow) / conductance
    assert largest(condensed.intramural_pressure - within, within) <= 1e-12


def test_is_symmetric_positive_definite_and_closes_the_mass(seen, condensed):
    solution, bed = seen[2], condensed.bed
    matrix = np.asarray(bed.conductance)
    assert (matrix == matrix.T).all()
    assert np.linalg.eigvalsh(matrix)[0] > 0
    drained = matrix @ np.asarray(condensed.intramural_pressure) - np.asarray(bed.inflow)
    assert condensed.relative_error <= 1e-9
    assert abs(drained.sum() / float(solution.sink_flow) - 1) <= 1e-10
    assert largest(bed.inflow - SINK * matrix.sum(axis=1), bed.inflow) <= 1e-12
    assert (
        largest(
            condensed.outlet_flow
            - (condensed.arterial_pressure - condensed.intramural_pressure) / bed.resistance_distal,
            condensed.outlet_flow,
        )
        <= 1e-9
    )


def one_dimensional(condensed, linear, quadratic, steps=40):
    """Steady pressures and flows of the rigid 1-D part with the dense bed, by Newton's method."""
    network, bed = condensed.network, condensed.bed
    ends, outlet = np.asarray(network.segment_node), np.asarray(bed.node)
    n, s = network.n_nodes, network.n_segments
    conductance = np.diag(1 / np.asarray(bed.resistance_proximal + bed.resistance_distal))
    matrix, inflow = np.asarray(bed.conductance), np.asarray(bed.inflow)
    # q = G (P − π) and q = M π − m
    to_tissue = np.linalg.solve(matrix + conductance, np.stack([inflow], axis=1))[:, 0]
    slope = conductance - conductance @ np.linalg.solve(matrix + conductance, conductance)
    inlet = condensed.boundary[0]
    root, given = int(inlet.node[0]), float(inlet.pressure[0])
    x = np.concatenate([np.full(n, given), np.zeros(s)])
    e = np.arange(s)
    for _ in range(steps):
        p, q = x[:n], x[n:]
        drop = p[ends[:, 0]] - p[ends[:, 1]] - (linear + quadratic * np.abs(q)) * q
        jacobian = np.zeros((n + s, n + s))
        jacobian[n + e, ends[:, 0]], jacobian[n + e, ends[:, 1]] = 1, -1
        jacobian[n + e, n + e] = -linear - 2 * quadratic * np.abs(q)
        np.add.at(jacobian, (ends[:, 1], n + e), 1.0)
        np.add.at(jacobian, (ends[:, 0], n + e), -1.0)
        jacobian[np.ix_(outlet, outlet)] -= slope
        balance = np.bincount(ends[:, 1], q, n) - np.bincount(ends[:, 0], q, n)
        balance[outlet] -= slope @ p[outlet] - conductance @ to_tissue
        jacobian[root], balance[root] = np.eye(n + s)[root], p[root] - given
        size = np.abs(jacobian).max(axis=1)
        residual = np.concatenate([balance, drop])
        x = x - np.linalg.solve(jacobian / size[:, None], residual / size)
    p, q = x[:n], x[n:]
    return p, q, slope @ p[outlet] - conductance @ to_tissue


def test_vessels_with_the_condensed_bed_flow_as_the_whole_does(seen, condensed):
    problem, mesh, solution = seen
    linear, quadratic = reference.segment_losses(raw_case(problem, mesh))
    pressure, flow, outlet_flow = one_dimensional(
        condensed, linear[condensed.segment], quadratic[condensed.segment]
    )
    assert largest(outlet_flow - condensed.outlet_flow, outlet_flow) <= 1e-9
    assert largest(pressure - solution.pressure_total[condensed.node], pressure) <= 1e-9
    assert largest(flow - solution.flow[condensed.segment], flow) <= 1e-9
    assert largest(flow - condensed.state.flow, flow) <= 1e-9
    whole = np.bincount(condensed.terminal_outlet, solution.terminal_flow, len(outlet_flow))
    assert largest(condensed.outlet_flow - whole, outlet_flow) <= 1e-14


def left_ventricle(period=0.8):
    """A half-sine systole of 120 mmHg over 8 mmHg in diastole."""
    time = np.linspace(0, period, 81)
    beat = np.where(time < 0.3, 112 * np.sin(np.pi * np.minimum(time, 0.3) / 0.3), 0.0)
    return Waveform(time, (8 + beat)[None] * 133.322, period)


def cycle(bed, pressure, pressure_im, dt):
    """One period of the bed's equations by the trapezoidal rule: the flows at the steps.

    pressure (k, b) and pressure_im (k, b) at equal steps, periodic.
    """
    R1, R2, Ca, Ct = (
        np.asarray(x)
        for x in (
            bed.resistance_proximal,
            bed.resistance_distal,
            bed.compliance_proximal,
            bed.compliance_distal,
        )
    )
    b, k = len(R1), len(pressure)
    rate = np.block(
        [
            [np.diag(-(1 / R1 + 1 / R2) / Ca), np.diag(1 / R2 / Ca)],
            [np.diag(1 / R2 / Ct), -(np.diag(1 / R2) + np.asarray(bed.conductance)) / Ct[:, None]],
        ]
    )
    steady = np.concatenate([pressure / R1 / Ca, np.tile(np.asarray(bed.inflow) / Ct, (k, 1))], 1)
    moved = np.roll(pressure_im, -1, axis=0) - pressure_im
    forcing = 0.5 * dt * (steady + np.roll(steady, -1, axis=0))
    forcing[:, b:] += moved
    left, right = np.eye(2 * b) - 0.5 * dt * rate, np.eye(2 * b) + 0.5 * dt * rate
    step, push = np.linalg.solve(left, right), np.linalg.solve(left, forcing.T).T
    # the state that a whole cycle maps onto itself
    map_, shift = np.eye(2 * b), np.zeros(2 * b)
    for one in push:
        map_, shift = step @ map_, step @ shift + one
    y = [np.linalg.solve(np.eye(2 * b) - map_, shift)]
    for one in push[:-1]:
        y.append(step @ y[-1] + one)
    return (pressure - np.array(y)[:, :b]) / R1


def test_the_mean_over_a_cycle_is_the_steady_flow(case, seen):
    depth = case[1].centre[:, 2]
    depth = (depth - depth.min()) / np.ptp(depth)
    ventricle = left_ventricle()
    condensed = condense(case, TREE, pressure_lv=ventricle, depth=depth)
    pressure_at = jax.jit(jax.vmap(condensed.bed.pressure_im))
    bed, solution = on_host(condensed).bed, seen[2]
    k = 800
    time = 0.8 * np.arange(k) / k
    steady = np.asarray(solution.pressure_total)[condensed.node[np.asarray(bed.node)]]
    pressure = steady + 2500 * np.sin(2 * np.pi * time / 0.8 - 1.0)[:, None]
    pressure_im = np.repeat(pressure_at(jnp.asarray(time[::10])), 10, axis=0)
    flow = cycle(bed, pressure, pressure_im, 0.8 / k)
    assert largest(flow.mean(axis=0) - condensed.outlet_flow, flow) <= 1e-9
    # and systole impedes: least flow where the ventricle's pressure rises
    total = flow.sum(axis=1)
    assert time[np.argmin(total)] < 0.3
    assert total.min() < 0.7 * total.mean()


def test_intramyocardial_pressure_is_linear_in_the_depth(case):
    mesh = case[1]
    ventricle = left_ventricle()
    for depth, factor in ((0.0, 1.2), (1 / 6, 1.0), (0.5, 0.6), (5 / 6, 0.2), (1.0, 0.0)):
        everywhere = np.full(mesh.n_cells, depth)
        condensed = condense(case, FIXED, pressure_lv=ventricle, depth=everywhere)
        found = condensed.bed.pressure_im
        assert found is not None
        wanted = np.broadcast_to(factor * np.asarray(ventricle.value), found.value.shape)
        assert np.allclose(np.asarray(found.value), wanted, rtol=1e-12, atol=1e-9)


def in_plain_numbers(problem, solution, segment):
    """Area, and its derivative with the pressure, at the ends of a segment."""
    radius = np.asarray(problem.network.radius)[segment]
    modulus = 4 / 3 * (2e6 * np.exp(-2253 * radius) + 8.65e4)
    stretch = 1 + (np.asarray(solution.pressure_static)[segment] - 93 * 133.322) / modulus
    return np.pi * radius**2 * stretch**2, np.pi * radius**2 * 2 * stretch / modulus


def test_compliances_of_vessels_and_tissue(case, condensed):
    problem, _, solution = case
    bed, tissue = condensed.bed, problem.tissue
    mass = 1050.0 * np.bincount(condensed.terminal_outlet, np.asarray(tissue.terminal_volume))
    # 0.10 ml per mmHg and 100 g
    assert np.allclose(
        np.asarray(bed.compliance_distal), 0.10e-6 / 133.322 * mass / 0.1, rtol=1e-12
    )
    outlet = condensed.node[np.asarray(bed.node)]
    wanted = np.zeros(len(outlet))
    ends = np.asarray(problem.network.segment_node)
    length = np.asarray(problem.network.length)
    into = {int(b): int(a) for a, b in ends}
    for e in np.setdiff1d(np.arange(problem.network.n_segments), condensed.segment):
        node = int(ends[e, 0])
        while node not in outlet:
            node = into[node]
        _, per_length = in_plain_numbers(problem, solution, e)
        wanted[list(outlet).index(node)] += per_length.mean() * length[e]
    assert np.allclose(
        np.asarray(bed.compliance_proximal - 1e-3 * bed.compliance_distal),
        wanted,
        rtol=1e-9,
        atol=1e-20,
    )
    # what is not squeezed is a small part
    assert (bed.compliance_proximal < 0.05 * bed.compliance_distal).all()


def test_fast_waves_meet_the_characteristic_impedance(seen, condensed):
    """That of the vessels that leave, or of the 1-D ones that end where none does."""
    problem, _, solution = seen
    bed = condensed.bed
    outlet = condensed.node[np.asarray(bed.node)]
    ends = np.asarray(problem.network.segment_node)
    below = np.setdiff1d(np.arange(problem.network.n_segments), condensed.segment)
    for i, node in enumerate(outlet):
        at = [(e, 0) for e in below if ends[e, 0] == node]
        at = at or [(e, j) for e in condensed.segment for j in (0, 1) if ends[e, j] == node]
        admittance = 0.0
        for e, j in at:
            area, slope = (x[j] for x in in_plain_numbers(problem, solution, e))
            admittance += np.sqrt(area * slope / 1060.0)  # A/(ρc), c² = A/(ρ dA/dp)
        whole = float(bed.resistance_proximal[i] + bed.resistance_distal[i])
        assert float(bed.resistance_proximal[i]) == pytest.approx(
            min(1 / admittance, 0.95 * whole), rel=1e-9
        )


def test_the_network_keeps_names_lesions_and_values(case, condensed):
    whole, part = case[0].network, condensed.network
    assert part.lesion.length.size == 1
    old = condensed.segment[np.asarray(part.lesion.segment)]
    assert (old == np.asarray(whole.lesion.segment)).all()
    assert (condensed.node[np.asarray(part.roots)] == np.asarray(whole.roots)).all()
    whole, part = on_host(whole), on_host(part)
    for name in ("radius", "length"):
        new, before = getattr(part, name), getattr(whole, name)[condensed.segment]
        assert (new == before).all()
    assert (part.node_position == whole.node_position[condensed.node]).all()
    names = [whole.branch_name[int(b)] for b in whole.branch[condensed.segment]]
    assert [part.branch_name[int(b)] for b in part.branch] == names


def test_a_least_radius_chooses_grown_vessels(case):
    network = case[0].network
    counts = [part(network, limit, ()).sum() - N_FIXED for limit in (np.inf, 5e-4, 1e-4)]
    # none; every stub and its wider child; all
    assert counts == [0, 6, 21]
    fixed = np.arange(network.n_segments) < N_FIXED
    chosen = transient_segments(network, fixed, 5e-4)
    assert (chosen == part(network, 5e-4, ())).all()
    assert fixed.sum() == N_FIXED


def test_a_wide_vessel_below_a_narrow_one_stays_in_the_bed(case):
    whole = case[0].network
    narrow = whole.radius.at[N_FIXED].set(2e-4)
    network = eqx.tree_at(lambda n: n.radius, whole, narrow)
    chosen = transient_segments(network, N_FIXED, 5e-4)
    assert chosen[N_FIXED : N_FIXED + 7].sum() == 0
    assert chosen.sum() == N_FIXED + 4


def test_blocks_and_progress(case):
    calls = []
    blocked = condense(case, WIDE, progress=lambda *done: calls.append(done))
    b = len(blocked.outlet_flow)
    assert calls == [(min(i + 3, b), b) for i in range(0, b, 3)]
    assert blocked.relative_error <= 1e-9


@pytest.mark.slow
def test_derivatives_reach_the_bed(case):
    problem, _, solution = case
    chosen = part(problem.network, *FIXED)

    def total(scale):
        micro = problem.microcirculation
        scaled = (micro.beta_sink * scale[0], micro.permeability * scale[1])
        changed = eqx.tree_at(
            lambda p: (p.microcirculation.beta_sink, p.microcirculation.permeability),
            problem,
            scaled,
        )
        dilated = eqx.tree_at(lambda s: s.dilation, solution, solution.dilation * scale[2])
        bed = condense_bed(changed, chosen, wall=WALL, solution=dilated, rtol=1e-13, chunk=3).bed
        weight = jnp.sin(jnp.arange(bed.conductance.size, dtype=float))
        return 1e11 * weight @ bed.conductance.ravel() + 1e-11 * jnp.sum(bed.resistance_distal)

    one, step = jnp.ones(3), 1e-4
    slope = jax.grad(total)(one)
    for i in range(3):
        move = step * jnp.eye(3)[i]
        difference = (total(one + move) - total(one - move)) / (2 * step)
        assert abs(slope[i] - difference) <= 1e-7 * jnp.max(jnp.abs(slope))


def refused(problem, chosen, match, **more):
    more = {"wall": WALL, **more}
    with pytest.raises(InputError, match=match):
        condense_bed(problem, chosen, chunk=3, **more)


def test_refusals_of_the_part(case):
    problem, network, solution = case[0], case[0].network, case[2]
    none = np.zeros(network.n_segments, bool)
    refused(problem, none, "LCx .* is cut off")
    hanging = none.copy()
    hanging[[0, N_FIXED + 8]] = True
    refused(problem, hanging, "forest of LAD .* is cut off from its root")
    refused(problem, np.arange(network.n_segments) == 0, "lesion lies on LAD")
    tissue = problem.tissue
    first = jnp.full_like(tissue.terminal_node, tissue.terminal_node[0])
    idle = eqx.tree_at(lambda p: p.tissue.terminal_node, problem, first)
    refused(idle, part(network, *FIXED), "no terminal of the tissue lies below node 2 of LAD")
    bare = eqx.tree_at(lambda p: p.tissue.terminal, problem, jnp.minimum(tissue.terminal, 10))
    refused(bare, part(network, *ALL), "perfuse no tissue", solution=solution)
    # terminals 0 and 1 share one control volume evenly
    cell, terminal = np.asarray(tissue.cell).copy(), np.maximum(np.asarray(tissue.terminal), 2)
    overlap = np.asarray(tissue.overlap).copy()
    terminal[:2], cell[1], overlap[1] = (0, 1), cell[0], overlap[0]
    twins = eqx.tree_at(
        lambda p: (p.tissue.cell, p.tissue.terminal, p.tissue.overlap),
        problem,
        tuple(jnp.asarray(x) for x in (cell, terminal, overlap)),
    )
    refused(twins, part(network, *ALL), "node .* feed the same tissue", solution=solution)


@pytest.mark.slow
def test_a_loop_stays_among_the_1d_vessels():
    """A collateral between the ends of two vessels, each with a terminal below it."""
    wall = small_wall(5.0, 0.5)
    site = wall.centre[[3, 90]] + 1e-4
    top = wall.centre[:, 2].max()
    network = build_network(
        np.concatenate([[[0, 0, top + 0.03], [-0.02, 0, top], [0.02, 0, top]], site]),
        np.array([[0, 1], [0, 2], [1, 2], [1, 3], [2, 4]]),
        np.array([1.5e-3, 1e-3, 1e-3, 4e-4, 4e-4]),
        root=np.array([0]),
        frame=wall.frame,
        allow_loops=True,
    )
    regions = terminal_regions(wall, site, np.arange(2), np.full(2, 4e-4), 2)
    problem = PerfusionProblem(
        network,
        perfused_tissue(wall, regions, np.array([3, 4])),
        (PressureBoundary(network.roots, jnp.array([12400.0])),),
        Microcirculation(1.74e-6, 8.75e-6),
    )
    refused(problem, np.array([True, True, False, False, False]), "closes a loop below")
    chosen = np.array([True, True, True, False, False])
    part, flipped = transient_part(network, cut_network(problem, chosen))
    assert part.topology.cut.size == 1
    ends = np.asarray(network.segment_node)[:3].copy()
    ends[flipped] = ends[flipped, ::-1]
    assert (part.segment_node == ends).all()
    solution = solve_perfusion(problem)
    condensed = condense_bed(problem, chosen, wall=WALL, solution=solution)
    assert (condensed.flipped == flipped).all()
    whole = np.where(flipped, -1.0, 1.0) * np.asarray(condensed.state.flow)
    assert (whole == solution.flow[condensed.segment]).all()


def test_refusals_of_boundary_conditions(case):
    problem, network, solution = case[0], case[0].network, case[2]
    leaf = int(problem.tissue.terminal_node[3])
    drain = ResistanceOutlet(jnp.array([leaf]), jnp.array([1e11]), jnp.array([0.0]))
    more = eqx.tree_at(lambda p: p.boundary, problem, (*problem.boundary, drain))
    refused(more, part(network, *FIXED), f"resistance outlet: it sits at node {leaf} of forest of")
    kept = condense_bed(more, part(network, *ALL), wall=WALL, solution=solution, chunk=3)
    assert [b.kind for b in kept.boundary] == [
        "prescribed pressure",
        "resistance outlet",
        "perfused bed",
    ]
    assert kept.node[int(kept.boundary[1].node[0])] == leaf
    held = PressureBoundary(jnp.array([2]), jnp.array([9e3]))
    more = eqx.tree_at(lambda p: p.boundary, problem, (*problem.boundary, held))
    refused(more, part(network, *FIXED), "it prescribes the pressure of node 2 of LAD")


def test_refusals_of_arguments(case):
    problem, mesh, _ = case
    chosen = part(problem.network, *FIXED)
    elastic = eqx.tree_at(lambda p: p.wall, problem, WALL, is_leaf=lambda x: x is problem.wall)
    assert isinstance(problem.wall, RigidWall)
    refused(elastic, chosen, "the wall of the problem is SqrtAreaWall")
    refused(problem, chosen, "one of pressure_lv and depth", pressure_lv=left_ventricle())
    two = Waveform(np.array([0.0]), np.zeros((2, 1)), 1.0)
    refused(problem, chosen, "2 rows", pressure_lv=two, depth=np.zeros(mesh.n_cells))
    refused(problem, chosen, "compliance", tissue_compliance_ml_mmHg_100g=0.0)
    soft = SqrtAreaWall(OlufsenStiffness(0.0, -1.0, 1.0), pressure_reference=93.0 * 133.322)
    refused(problem, chosen, "no lumen at its steady pressure", wall=soft, solution=case[2])
