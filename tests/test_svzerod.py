"""svZeroDSolver cases: lumped vessels, their steady flow, and what is refused with its place."""

import copy
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data_dir, requires_data
from scipy.optimize import root as scipy_root

from jaxperf import (
    Blood,
    declare_lesion,
    FlowBoundary,
    InputError,
    PressureBoundary,
    ResistanceOutlet,
    solve_steady,
    SolveError,
    SteadyProblem,
)
from jaxperf.io import read_svzerod, ZERO_D_UNITS
from jaxperf.network import (
    build_lumped,
    build_network,
    CoronaryOutletSvZeroD,
    FlowWaveform,
    WindkesselOutlet,
)
from jaxperf.steady import lumped_network, LumpedProblem, solve_lumped
from jaxperf.vessel import ConstantStiffness, SqrtAreaWall


def vessel(number, inlet=None, outlet=None, kind="BloodVessel", **values):
    ends = {"inlet": inlet, "outlet": outlet}
    return {
        "vessel_id": number,
        "vessel_name": f"v{number}",
        "vessel_length": 2.0,
        "boundary_conditions": {k: v for k, v in ends.items() if v},
        "zero_d_element_type": kind,
        "zero_d_element_values": {"R_poiseuille": 100.0, **values},
    }


def condition(name, kind, **values):
    return {"bc_name": name, "bc_type": kind, "bc_values": values}


def junction(inlets, outlets, kind="NORMAL_JUNCTION"):
    return {
        "junction_name": "J0",
        "junction_type": kind,
        "inlet_vessels": inlets,
        "outlet_vessels": outlets,
    }


CORONARY = {"Ra1": 100.0, "Ra2": 200.0, "Rv1": 300.0, "Ca": 1e-4, "Cc": 2e-4, "P_v": 50.0}
CASE = {
    "description": {"of": "a Y with a stenosis"},
    "vessels": [
        vessel(0, "IN", C=1e-6, L=2.0),
        vessel(1, outlet="OUT1", stenosis_coefficient=7.0),
        vessel(2, outlet="OUT2"),
        vessel(3, outlet="OUT3"),
    ],
    "junctions": [junction([0], [1, 2, 3])],
    "boundary_conditions": [
        condition("IN", "FLOW", Q=[3.0, 9.0, 3.0], t=[0.0, 0.25, 1.0]),
        condition("OUT1", "RESISTANCE", R=400.0, Pd=100.0),
        condition("OUT2", "RCR", Rp=100.0, Rd=900.0, C=1e-4, Pd=20.0),
        condition("OUT3", "CORONARY", **CORONARY, Pim=[0.0, 5.0, 0.0], t=[0.0, 0.4, 1.0]),
    ],
    "simulation_parameters": {
        "number_of_cardiac_cycles": 2,
        "number_of_time_pts_per_cardiac_cycle": 5,
    },
}


@pytest.fixture
def read(tmp_path):
    """Read a case after a change of it."""

    def use(change=lambda case: None, units="cgs"):
        case = copy.deepcopy(CASE)
        change(case)
        path = tmp_path / "case.json"
        path.write_text(json.dumps(case), encoding="utf-8")
        return read_svzerod(path, units=units)

    return use


def steady(case):
    return solve_lumped(LumpedProblem(case.network, case.boundary))


@pytest.mark.parametrize("units", ["cgs", "mmHg", "SI"])
def test_everything_is_read_in_si(read, units):
    case, unit = read(units=units), ZERO_D_UNITS[units]
    network = case.network
    assert network.segment_node.tolist() == [[0, 1], [1, 2], [1, 3], [1, 4]]
    assert network.segment_name == ("v0", "v1", "v2", "v3") and case.period == 1.0
    assert network.resistance.tolist() == pytest.approx([100.0 * unit.pressure / unit.flow] * 4)
    assert network.quadratic.tolist() == pytest.approx([0, 7 * unit.pressure / unit.flow**2, 0, 0])
    assert network.compliance.tolist() == pytest.approx([1e-6 * unit.flow / unit.pressure, 0, 0, 0])
    assert network.inertance.tolist() == pytest.approx([2.0 * unit.pressure / unit.flow, 0, 0, 0])
    assert network.length.tolist() == pytest.approx([2.0 * unit.length] * 4)
    inlet, resistance, windkessel, coronary = case.boundary
    assert isinstance(inlet, FlowWaveform) and float(inlet.flow.period) == 1.0
    assert inlet.flow.value[0].tolist() == pytest.approx([3 * unit.flow, 9 * unit.flow,
                                                          3 * unit.flow])  # fmt: skip
    assert resistance.pressure_ref.tolist() == pytest.approx([100.0 * unit.pressure])
    assert isinstance(windkessel, WindkesselOutlet) and isinstance(coronary, CoronaryOutletSvZeroD)
    assert windkessel.resistance_distal.tolist() == pytest.approx([900 * unit.resistance])
    assert coronary.resistance_middle.tolist() == pytest.approx([200 * unit.resistance])
    assert coronary.compliance_distal.tolist() == pytest.approx([2e-4 * unit.compliance])
    assert coronary.pressure_im.time.tolist() == [0.0, 0.4, 1.0]


def raw_solution(node, r, s, fed, outlet):
    """Pressures and flows by SciPy from raw arrays: n balances and s laws.

    `fed`: node and flow; `outlet`: node, resistance, sink.
    """
    n = int(node.max()) + 1

    def missing(x):
        p, q = x[:n], x[n:]
        balance = np.zeros(n)
        np.add.at(balance, node[:, 1], q)
        np.add.at(balance, node[:, 0], -q)
        balance[fed[0]] += fed[1]
        for at, resistance, sink in outlet:
            balance[at] -= (p[at] - sink) / resistance
        return np.concatenate([balance, p[node[:, 0]] - p[node[:, 1]] - (r + s * np.abs(q)) * q])

    found = scipy_root(missing, np.ones(n + len(r)), tol=1e-14)
    assert np.abs(found.fun).max() < 1e-10, found.message
    return found.x[:n], found.x[n:]


def test_steady_flow_is_that_of_scipy_from_raw_numbers(read):
    p, q = raw_solution(
        np.array([[0, 1], [1, 2], [1, 3], [1, 4]]),
        np.full(4, 100.0),
        np.array([0.0, 7.0, 0.0, 0.0]),
        (0, 6.0),
        [(2, 400.0, 100.0), (3, 1000.0, 20.0), (4, 600.0, 50.0)],
    )
    found, unit = steady(read()), ZERO_D_UNITS["cgs"]
    np.testing.assert_allclose(np.asarray(found.pressure_total) / unit.pressure, p, rtol=1e-10)
    np.testing.assert_allclose(np.asarray(found.flow) / unit.flow, q, rtol=1e-10)


# A loop, a segment of quadratic loss alone, and a flow drawn at an inner node.
NODE = np.array([[0, 1], [1, 2], [1, 3], [2, 3], [3, 4]])
R = np.array([2.0, 3.0, 0.0, 1.5, 4.0])
S = np.array([0.3, 0.0, 0.7, 0.2, 0.1])


def loop_answer(r, s, sink, inflow):
    network = build_lumped(NODE, root=np.array([0]), resistance=R, quadratic=S)
    network = eqx.tree_at(lambda n: (n.resistance, n.quadratic), network, (r, s))
    boundary = (
        FlowBoundary(np.array([0, 2]), jnp.stack([inflow, -0.4 * inflow])),
        ResistanceOutlet(4, 5.0, sink),
    )
    found = solve_lumped(LumpedProblem(network, boundary))
    return found.pressure_total, found.flow


def raw_loop(r, s, sink, inflow):
    fed = (np.array([0, 2]), np.array([inflow, -0.4 * inflow]))
    return raw_solution(NODE, r, s, fed, [(4, 5.0, sink)])


def test_loops_values_and_gradients_have_an_independent_witness():
    def score(p, q):
        return (p * np.arange(1.0, 6.0)).sum() + (q * np.array([3.0, -2.0, 5.0, 1.0, 0.5])).sum()

    def ours(*x):
        answer = loop_answer(*x)
        return score(*answer), answer

    given = (jnp.asarray(R), jnp.asarray(S), jnp.asarray(1.0), jnp.asarray(2.0))
    gradient, (p, q) = jax.grad(ours, argnums=(0, 1, 2, 3), has_aux=True)(*given)
    expected = raw_loop(R, S, 1.0, 2.0)
    np.testing.assert_allclose(p, expected[0], rtol=1e-10)
    np.testing.assert_allclose(q, expected[1], rtol=1e-10)
    at = np.concatenate([R, S, [1.0, 2.0]])
    witness = []
    for i in range(len(at)):
        step = 1e-5 * np.eye(len(at))[i]
        up, down = (score(*raw_loop(x[:5], x[5:10], x[10], x[11])) for x in (at + step, at - step))
        witness.append((up - down) / 2e-5)
    flat = np.concatenate([np.ravel(g) for g in gradient])
    np.testing.assert_allclose(flat, witness, rtol=1e-6, atol=1e-7)


def test_a_confluence_has_two_inlets(read):
    def two(case):
        case["vessels"] = [vessel(0, "IN"), vessel(1, "IN2"), vessel(2, outlet="OUT1")]
        case["junctions"] = [junction([0, 1], [2])]
        more = condition("IN2", "FLOW", Q=[5.0, 5.0], t=[0.0, 1.0])
        case["boundary_conditions"] = [*case["boundary_conditions"][:2], more]

    case = read(two)
    unit, found = ZERO_D_UNITS["cgs"], steady(case)
    flow = np.asarray(found.flow) * np.asarray(case.network.direction) / unit.flow
    np.testing.assert_allclose(flow, [6.0, 5.0, 11.0], rtol=1e-12)
    pressure = np.asarray(found.pressure_total)[np.asarray(case.network.segment_node)]
    np.testing.assert_allclose(pressure[2, 1] / unit.pressure, 100.0 + 11 * 400.0, rtol=1e-12)


def test_a_tree_is_the_lumped_network_of_its_losses():
    """The law of each lumped segment holds between the total pressures of the tree."""
    position = 1e-3 * np.array([[0, 0, 0], [30, 0, 0], [60, 10, 0], [60, -10, 0.0]])
    radius = 1e-3 * np.array([[2.0, 1.6], [1.5, 1.1], [1.3, 1.2]])
    node = np.array([[0, 1], [1, 2], [1, 3]])
    tree = build_network(position, node, radius, root=np.array([0]), frame="model",
                         branch=np.array([0, 0, 1]), branch_name=("LAD", "D1"))  # fmt: skip
    tree = declare_lesion(tree, branch="LAD", start_mm=5.0, end_mm=12.0, diameter_reduction=0.6)
    ends = ResistanceOutlet(tree.terminals, np.full(2, 5e9), np.full(2, 2e3))
    blood = Blood(profile_exponent=9.0)
    problem = SteadyProblem(tree, (PressureBoundary(0, 12400.0), ends), blood)
    rigid = solve_steady(problem)
    lumped = lumped_network(tree, blood)
    pressure, q = np.asarray(rigid.pressure_total)[np.asarray(tree.segment_node)], rigid.flow
    r, s = np.asarray(lumped.resistance), np.asarray(lumped.quadratic)
    assert (s > 0).sum() == 1
    np.testing.assert_allclose(pressure[:, 0] - pressure[:, 1], (r + s * np.abs(q)) * q, rtol=1e-9)
    # by a fine sum over the cones
    x = (np.arange(20000) + 0.5)[:, None] / 20000
    end = np.asarray(tree.radius)
    area = np.pi * (end[:, 0] + (end[:, 1] - end[:, 0]) * x) ** 2
    length = np.asarray(tree.length)
    np.testing.assert_allclose(lumped.inertance, 1060 * length * (1 / area).mean(0), rtol=1e-7)
    elastic = lumped_network(tree, blood, SqrtAreaWall(ConstantStiffness(5e4), 0.0))
    grown = lambda p: (np.pi * end**2 * (1 + p / (4 / 3 * 5e4)) ** 2).mean(axis=1)
    np.testing.assert_allclose(
        elastic.compliance, (grown(1.0) - grown(-1.0)) / 2.0 * length, rtol=1e-9
    )
    assert lumped.segment_name[:1] == ("LAD_0",) and not np.asarray(lumped.compliance).any()
    closed = declare_lesion(tree, branch="D1", start_mm=5, end_mm=6, diameter_reduction=1.0)
    with pytest.raises(InputError, match="an occlusion closes D1"):
        lumped_network(closed, blood)


def test_a_solve_that_fails_names_the_segment_whose_law_is_not_met():
    """Nearly all the pressure is lost in the first segment, whose law is met after one step."""
    network = build_lumped(
        np.array([[0, 1], [1, 2]]),
        root=np.array([0]),
        resistance=np.array([1e9, 1e6]),
        quadratic=np.array([0.0, 1e13]),
    )
    ends = PressureBoundary(np.array([0, 2]), np.array([12000.0, 0.0]))
    with pytest.raises(SolveError, match="The worst segment is segment 1"):
        solve_lumped(LumpedProblem(network, (ends,)), max_steps=1)


def change(*path, to=None, remove=False):
    """A change of one key of the case."""

    def use(case):
        at = case
        for key in path[:-1]:
            at = at[key]
        if remove:
            del at[path[-1]]
        else:
            at[path[-1]] = to

    return use


VALUES = ("vessels", 1, "zero_d_element_values")
FLOW = ("boundary_conditions", 0, "bc_values")
MALFORMED = [
    (change("vessels", remove=True), "case.json: the key vessels is missing"),
    (change("vessels", to=[]), "vessels is empty"),
    (change("vessels", 1, "zero_d_element_type", to="BloodVesselCRL"), "vessels[1]: the vessel v1"),
    (change(*VALUES, "R_poiseuille", remove=True), "zero_d_element_values: the key R_poiseuille"),
    (change(*VALUES, "R_poiseuille", to=-1.0), "R_poiseuille is -1.0"),
    (change(*VALUES, "R_poiseuille", to="100"), "R_poiseuille is '100'"),
    (change(*VALUES, "C", to=float("nan")), "C is nan"),
    (change(*VALUES, "radius", to=1.0), "the key radius is unknown"),
    (change("vessels", 2, "zero_d_element_values", to={"R_poiseuille": 0}), "v2 has neither"),
    (change("vessels", 1, "vessel_name", to="v0"), "the vessel_name v0 is used twice"),
    (change("vessels", 1, "vessel_name", to="OUT1"), "bc_name OUT1 is the name of a vessel too"),
    (change("boundary_conditions", 2, "bc_name", to="v3"), "bc_name v3 is the name of a vessel"),
    (change("boundary_conditions", 2, "bc_name", to="OUT1"), "the bc_name OUT1 is used twice"),
    (change("vessels", 1, "vessel_id", to=0), "the vessel_id 0 is used twice"),
    (change("vessels", 0, "boundary_conditions", to={}), "the inlet of v0 has neither"),
    (change("vessels", 0, "boundary_conditions", "outlet", to="OUT1"), "condition OUT1 is used a"),
    (change("vessels", 2, "boundary_conditions", "outlet", to="OUT"), "condition OUT is not def"),
    (change("junctions", 0, "junction_type", to="BloodVesselJunction"), "is a BloodVesselJunction"),
    (change("junctions", 0, "outlet_vessels", to=[1, 2, 9]), "outlet_vessels names 9"),
    (change("junctions", 0, "outlet_vessels", to=[1, 2]), "the inlet of v3 has neither"),
    (change("junctions", 0, "outlet_vessels", to=[1, 2, 3, 3]), "is connected a second time"),
    (change("junctions", to={}), "junctions is an object"),
    (change("boundary_conditions", 0, "bc_type", to="RCR"), "IN is a RCR at an inlet"),
    (change("boundary_conditions", 1, "bc_type", to="ClosedLoopRCR"), "OUT1 is ClosedLoopRCR"),
    (change("boundary_conditions", 3, "bc_type", to="CORONARY_VAR_RES"), "is CORONARY_VAR_RES"),
    (change("boundary_conditions", 1, "bc_values", "R", to=[1.0, 2.0]), "R changes with time"),
    (change("boundary_conditions", 1, "bc_values", "R", to=0.0), "R is 0"),
    (change("boundary_conditions", 2, "bc_values", "Rd", to=-5), "Rd is -5"),
    (change(*FLOW, "t", to=[0.0, 1.0]), "t has 2 numbers and Q 3"),
    (change(*FLOW, "t", to=[0.0, 0.6, 0.5]), "t[2]: the time is 0.5 s, after 0.6 s"),
    (change(*FLOW, "t", to=[0.1, 0.6, 1.0]), "t begins at 0.1"),
    (change(*FLOW, "t", to=[0.0, 0.6, 0.9]), "the period is 0.9 s"),
    (change(*FLOW, "Q", to=[3.0, None, 3.0]), "Q holds None"),
    (change("simulation_parameters", "cardiac_period", to=1.2), "cardiac_period it is 1.2 s"),
    (change("valves", to=[{"name": "V", "type": "ValveTanh"}]), "the block is ValveTanh"),
    (change("closed_loop_blocks", to=[{"closed_loop_type": "ClosedLoopHeartAndPulmonary"}]),
     "closed_loop_blocks[0]: the block is ClosedLoopHeart"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "says"), MALFORMED, ids=[says for _, says in MALFORMED])
def test_what_is_malformed_or_not_modelled_is_refused_with_its_place(read, wrong, says):
    with pytest.raises(InputError) as refusal:
        read(wrong)
    assert says in str(refusal.value) and "case.json" in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("{", "case.json:1: it is no JSON"),
        ("[1]", "case.json: it is a list"),
        ("[" * 100_000, "nested too deeply"),
    ],
    ids=["empty", "open", "list", "deep"],
)
def test_no_case_at_all(tmp_path, text, says):
    (tmp_path / "case.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as refusal:
        read_svzerod(tmp_path / "case.json", units="cgs")
    assert says in str(refusal.value)


def test_units_are_asked_for(read):
    with pytest.raises(InputError, match=r"units is 'CGS'.*cgs.*mmHg.*SI"):
        read(units="CGS")


def test_what_is_not_used_is_said(read):
    def more(case):
        case["initial_condition"] = {"pressure_all": 3.0}
        case["boundary_conditions"].append(condition("SPARE", "RESISTANCE", R=1.0, Pd=0.0))

    notes = read(more).notes
    assert "initial_condition was not used." in notes[0]
    assert notes[1] == "the condition SPARE is used by no vessel."


# Steady cases of svZeroDSolver: pressure at the inlet of the first vessel, dyn/cm², as they state.
STATED = {
    "steadyFlow_stenosis_R": 3600.0,
    "steadyFlow_bifurcationR_R1_blockNames": 1100.0,
    "steadyFlow_R_R": 1100.0,
    "steadyFlow_RC_R": 1100.0,
    "steadyFlow_RL_R": 1100.0,
    "steadyFlow_RLC_R": 1100.0,
    "steadyFlow_R_RCR": 10500.0,
    "steadyFlow_R_coronary": 2000.0,
    "steadyFlow_R_steadyPressure": 1500.0,
    "steadyFlow_bifurcationR_R1": 1100.0,
    "steadyFlow_bifurcationR_R2": 3462.5,
    "steadyFlow_confluenceR_R": 6600.0,
}


@pytest.mark.slow
@requires_data
@pytest.mark.parametrize("name", STATED)
def test_cases_of_svzerodsolver_give_what_they_state(name):
    path = data_dir() / "formats" / "svzerodsolver" / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"no file of svZeroDSolver at {path}")
    case, unit = read_svzerod(path, units="cgs"), ZERO_D_UNITS["cgs"]
    pressure = np.asarray(steady(case).pressure_total) / unit.pressure
    end = 0 if int(case.network.direction[0]) == 1 else 1
    found = pressure[int(case.network.segment_node[0, end])]
    assert found == pytest.approx(STATED[name], rel=1e-12)
