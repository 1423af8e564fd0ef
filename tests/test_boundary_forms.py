"""New types of outlets, made here: their form is all that solvers, padding and bridges need."""

import ast
import inspect
from pathlib import Path
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flow1d_cases import interpolated, star, waveform
from helpers import central_difference
from jaxtyping import Array, Float, Int
from scipy.integrate import solve_ivp
from test_padding import poisoned

import jaxperf.network
from bridges._flow1d_arrays import reference_flow1d
from bridges._steady_arrays import reference_steady
from bridges.reference import solve_steady as solve_reference
from jaxperf import cut_solution, InputError, pad_problem
from jaxperf.flow1d import flow1d_problem, SavePoints, solve_flow1d, solve_periodic
from jaxperf.network import (
    AbstractBoundary,
    JointDrain,
    Ladder,
    PerfusedBed,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
)
from jaxperf.steady import solve_steady, SteadyProblem
from jaxperf.vessel import Blood, ConstantStiffness, SqrtAreaWall

_REPOSITORY = Path(__file__).resolve().parents[1]
_PERIOD = 0.5
# ½αρ of the blood that these problems have, kg/m³
_HEAD = 0.5 * 4 / 3 * 1060.0
_WALL = SqrtAreaWall(ConstantStiffness(8e4), 1e4)
_POINTS = SavePoints(np.array([0, 1]), np.array([0.5, 1.0]))


class TwoResistors(AbstractBoundary):
    """Two resistances (Pa·s/m³) in series to a pressure (Pa)."""

    kind: ClassVar[str] = "pair of resistances"

    node: Int[Array, " b"]
    resistance_proximal: Float[Array, " b"]
    resistance_distal: Float[Array, " b"]
    pressure_ref: Float[Array, " b"]

    def form(self) -> Ladder:
        """A ladder without a compartment, of one resistance."""
        whole = self.resistance_proximal + self.resistance_distal
        return Ladder(self.node, (whole,), (), self.pressure_ref, ())


class ThreeWindkessels(AbstractBoundary):
    """Three compartments in series, the first and the last of them squeezed."""

    kind: ClassVar[str] = "chain of three windkessels"

    node: Int[Array, " b"]
    resistance_1: Float[Array, " b"]
    resistance_2: Float[Array, " b"]
    resistance_3: Float[Array, " b"]
    resistance_4: Float[Array, " b"]
    compliance_1: Float[Array, " b"]
    compliance_2: Float[Array, " b"]
    compliance_3: Float[Array, " b"]
    pressure_ref: Float[Array, " b"]
    pressure_around: Waveform

    def form(self) -> Ladder:
        """A ladder of three compartments."""
        return Ladder(
            self.node,
            (self.resistance_1, self.resistance_2, self.resistance_3, self.resistance_4),
            (self.compliance_1, self.compliance_2, self.compliance_3),
            self.pressure_ref,
            (self.pressure_around, None, self.pressure_around),
        )


def squeeze(n):
    one = waveform(lambda t: 3e3 * np.sin(np.pi * t / _PERIOD) ** 4, _PERIOD, 21)
    return Waveform(one.time, jnp.tile(one.value, (n, 1)), _PERIOD)


def chain(nodes):
    """Outlets whose resistances and compliances all differ."""
    n = len(nodes)
    each = lambda value: jnp.asarray(value * (1.0 + 0.1 * np.arange(n)))
    values = (1e9, 2e9, 3e9, 4e9, 1e-11, 2e-11, 1.5e-11, 8e2)
    return ThreeWindkessels(jnp.asarray(nodes), *map(each, values), pressure_around=squeeze(n))


def fork(*outlets):
    """A vessel that forks, under a pulse; leaves 2 and 3."""
    network = star(
        [(0, 1), (1, 2), (1, 3)],
        [(2e-3, 1.8e-3), (1.5e-3, 1.4e-3), (1.3e-3, 1.1e-3)],
        [0.03, 0.02, 0.025],
    )
    pulse = waveform(lambda t: 1.1e4 + 3e3 * np.sin(2 * np.pi * t / _PERIOD), _PERIOD, 41)
    boundary = (PressureWaveform(jnp.array([0]), pulse), *outlets)
    return flow1d_problem(network, boundary, Blood(), _WALL, cell_time=2e-3)


def steady_of(problem):
    return SteadyProblem(problem.network, problem.boundary, problem.blood, problem.wall)


@pytest.fixture(scope="module")
def problem():
    pair = TwoResistors(jnp.array([3]), *(jnp.array([v]) for v in (4e9, 6e9, 5e2)))
    return fork(chain([2]), pair)


def test_steady_flow_sees_resistances_in_series(problem):
    plain = ResistanceOutlet(jnp.array([2, 3]), jnp.array([1e10, 1e10]), jnp.array([8e2, 5e2]))
    expected = solve_steady(steady_of(fork(plain)))
    found = solve_steady(steady_of(problem))
    assert np.allclose(found.flow, expected.flow, rtol=1e-13)
    assert np.allclose(found.pressure_total, expected.pressure_total, rtol=1e-13)


def test_transient_flow_follows_the_law_of_the_chain(problem):
    """Its compartments by another integrator, fed by the pressure that the vessels have there."""
    points = SavePoints(np.array([1]), np.array([1.0]))
    found = solve_flow1d(problem, points=points, samples=250)
    start = solve_steady(steady_of(problem))
    outlet = problem.boundary[1]
    resistance = np.array([1e9, 2e9, 3e9, 4e9])
    compliance = np.array([1e-11, 2e-11, 1.5e-11])
    around = interpolated(outlet.pressure_around)
    mean = float(outlet.pressure_around.mean[0])
    level = float(start.pressure_total[2]) - np.cumsum(resistance[:3]) * float(start.flow[1])
    area, flow = np.asarray(found.area)[:, 0], np.asarray(found.flow)[:, 0]
    total = np.asarray(found.pressure_static)[:, 0] + _HEAD * (flow / area) ** 2
    time = np.asarray(found.time)

    def rate(t, state):
        outer = around(t)[0] * np.array([1.0, 0.0, 1.0])
        ladder = np.array([np.interp(t, time, total), *(state + outer), 8e2])
        through = (ladder[:-1] - ladder[1:]) / resistance
        return (through[:-1] - through[1:]) / compliance

    begin = level - mean * np.array([1.0, 0.0, 1.0])
    expected = solve_ivp(rate, (0.0, _PERIOD), begin, rtol=1e-9, max_step=1e-3).y[:, -1]
    assert np.abs(expected - begin).max() > 1e2
    assert np.allclose(np.asarray(found.state.outlet[1])[0], expected, rtol=2e-3)


def test_periodic_flow_takes_the_means(problem):
    """Over a cycle as much leaves as the mean pressure drives, whatever the compartments store."""
    points = SavePoints(np.array([1, 2]), np.array([1.0, 1.0]))
    found = solve_periodic(problem, points=points, samples=50, tolerance=1e-9)
    pressure, flow, area = (np.asarray(x) for x in (found.pressure_static, found.flow, found.area))
    mean = np.mean(pressure + _HEAD * (flow / area) ** 2, axis=0)
    place = np.asarray(problem.grid.node_network).tolist()
    left = np.asarray(found.passed)[-1][[place.index(2), place.index(3)]] / _PERIOD
    assert np.allclose(left, (mean - [8e2, 5e2]) / 1e10, rtol=1e-3)


def scaled(problem, theta):
    """Two resistances, a compliance and the pressure around, each times 1 + its entry."""
    of = lambda p: (
        p.boundary[1].resistance_2,
        p.boundary[2].resistance_distal,
        p.boundary[1].compliance_3,
        p.boundary[1].pressure_around.value,
    )
    new = [x * (1.0 + theta[i]) for i, x in enumerate(of(problem))]
    return eqx.tree_at(of, problem, new)


def test_gradients_of_steady_flow(problem):
    def value(theta):
        found = solve_steady(steady_of(scaled(problem, theta)))
        return 1e6 * found.flow[1] + 1e-4 * found.pressure_total[3]

    theta = 0.1 * jnp.ones(4)
    gradient = jax.jit(jax.grad(value))(theta)
    assert np.all(np.asarray(gradient[:2]) != 0) and np.all(np.asarray(gradient[2:]) == 0)
    assert np.allclose(gradient, central_difference(value, theta, 1e-3), rtol=1e-6, atol=1e-12)


def test_gradients_of_periodic_flow(problem):
    def value(theta):
        found = solve_periodic(scaled(problem, theta), points=_POINTS, samples=10, tolerance=1e-11)
        return 1e6 * found.flow[3, 1] + 1e-4 * found.pressure_static[6, 0]

    theta = 0.1 * jnp.ones(4)
    gradient = jax.jit(jax.grad(value))(theta)
    assert np.all(np.abs(np.asarray(gradient)) > 1e-6)
    assert np.allclose(gradient, central_difference(value, theta, 1e-3), rtol=1e-4)


def test_padding_knows_no_type():
    """Eighteen outlets, whose bucket is larger, and NaN wherever something was added."""
    n = 18
    ends = [(0, 1), *((1, 2 + i) for i in range(n))]
    network = star(ends, [(3e-3, 3e-3)] + [(1e-3, 1e-3)] * n, [0.02] * (n + 1))
    inlet = PressureBoundary(jnp.array([0]), jnp.array([1.2e4]))
    problem = SteadyProblem(network, (inlet, chain(np.arange(2, 2 + n))))
    padded, where = poisoned(pad_problem(problem), problem)
    assert len([w for w in where if w.startswith(".boundary[1]")]) == 9
    expected, found = solve_steady(problem), cut_solution(solve_steady(padded), problem)
    assert np.allclose(found.flow, expected.flow, rtol=1e-12)
    assert np.allclose(found.pressure_total, expected.pressure_total, rtol=1e-12)


def test_the_second_implementation_knows_the_form(problem):
    reference = solve_reference(reference_steady(steady_of(problem)))
    found = solve_steady(steady_of(problem))
    assert np.allclose(np.asarray(reference.flow), found.flow, rtol=1e-9)
    with pytest.raises(InputError, match="chain of three windkessels"):
        reference_flow1d(problem)


def test_what_a_form_cannot_be_is_refused(problem):
    outlet = problem.boundary[1]
    node, one, none = outlet.node, jnp.ones(1), jnp.zeros(1)
    with pytest.raises(InputError, match="chain of three windkessels: resistance_3 is -1"):
        steady_of(eqx.tree_at(lambda p: p.boundary[1].resistance_3, problem, -one))
    with pytest.raises(InputError, match="chain of three windkessels: the compliance of a"):
        fork(eqx.tree_at(lambda o: o.compliance_2, outlet, none))
    bed = PerfusedBed(node, one, one, one, one, jnp.eye(1), none)
    with pytest.raises(InputError, match="perfused bed: its outlets drain together"):
        solve_steady(SteadyProblem(problem.network, (problem.boundary[0], bed)))
    with pytest.raises(ValueError, match="expected 2 resistances and 1 outer pressures"):
        Ladder(node, (one,), (one,), none, (None,))
    with pytest.raises(ValueError, match="in front of a joint drain"):
        Ladder(node, (), (), JointDrain(jnp.eye(1), none), ())

    class Unclear(AbstractBoundary):
        kind: ClassVar[str] = "unclear outlet"
        node: Int[Array, " b"]
        R: Float[Array, " b"]

        def form(self) -> Ladder:
            return Ladder(self.node, (self.R,), (), self.R, ())

    with pytest.raises(ValueError, match="names that begin with one of"):
        Unclear(node, one)


def _condition_types():
    found = inspect.getmembers(jaxperf.network, inspect.isclass)
    return {name: cls for name, cls in found if issubclass(cls, AbstractBoundary)}


def test_each_type_has_a_name_of_its_own():
    kinds = [cls.kind for cls in _condition_types().values() if cls is not AbstractBoundary]
    assert len(set(kinds)) == len(kinds) > 5


@pytest.mark.parametrize(
    "folder", ["jaxperf/steady", "jaxperf/flow1d", "jaxperf/coupling", "bridges"]
)
def test_no_solver_asks_for_the_type_of_a_condition(folder):
    """`bridges/reference` has types of its own and is not looked at."""
    types, wrong = set(_condition_types()), []
    for path in sorted((_REPOSITORY / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for name in _asked(node):
                wrong += [f"{path}: {name}"] if name.rpartition(".")[2] in types else []
    assert not wrong


def _asked(node):
    """The types that an expression or a pattern asks for."""
    if isinstance(node, ast.MatchClass):
        return [ast.unparse(node.cls)]
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
        parts = ast.walk(node.args[1])
        return [ast.unparse(x) for x in parts if isinstance(x, ast.Name | ast.Attribute)]
    return []
