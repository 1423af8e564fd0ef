"""Quantities of jaxperf with what each needs of both sides, for `cross_check` and benchmarks."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float

from jaxperf._progress import Progress
from jaxperf.anatomy import demo_tree
from jaxperf.casefile import Case
from jaxperf.coupling import PerfusionProblem, solve_perfusion
from jaxperf.darcy import (
    AbstractDarcyMesh,
    AbstractDarcySolver,
    darcy_mesh,
    darcy_operator,
    DarcyGraph,
    DarcyProblem,
    multigrid,
    solve_darcy,
)
from jaxperf.flow1d import flow1d_problem, Flow1DProblem, SavePoints, solve_flow1d
from jaxperf.geometry import ellipsoid_ventricle
from jaxperf.jobs import demo_case
from jaxperf.network import (
    build_network,
    declare_lesion,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.steady import solve_steady, SteadyProblem
from jaxperf.study import darcy_method, prepare_case, solve_case
from jaxperf.units import M3_S_KG_PER_ML_MIN_G, PA_PER_MMHG
from jaxperf.vessel import Blood, ConstantStiffness, OlufsenStiffness, SqrtAreaWall

from ._coupled_arrays import reference_perfusion
from ._cross_check import cross_check, CrossCheck
from ._darcy_arrays import reference_mesh
from ._flow1d_arrays import reference_flow1d, reference_points
from ._steady_arrays import reference_steady
from .reference import (
    _coupled as torch_coupled,
    _darcy as torch_darcy,
    _flow1d as torch_flow1d,
    _laws as laws,
    _steady as torch_steady,
)
from .reference._darcy_solve import solve_darcy as solve_by_torch

Fields = dict[str, Array]
_Tensors = dict[str, torch.Tensor]
_AORTIC = 12400.0  # Pa
_CYCLES = 6


@dataclass(frozen=True)
class CheckCase:
    """A problem solved by jaxperf and by the torch reference, as functions of its parameters.

    **Attributes:**

    - `solve(parameters, bound)` and `reference(parameters)`: the fields of a solution by name, as
      arrays and as tensors.
    - `bound`: all that `solve` needs besides.
    - `weight`: the quantity is Σ weight · field, in `unit`.
    - `is_batched`: the reference takes parameters with an axis of cases in front.
    """

    name: str
    unit: str
    solve: Callable[[dict[str, Array], Any], Fields]
    bound: Any
    parameters: dict[str, Array]
    reference: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
    weight: dict[str, np.ndarray]
    is_batched: bool = True

    def quantity(self, parameters: dict[str, Array], bound: Any) -> Float[Array, ""]:
        """By jaxperf."""
        fields = self.solve(parameters, bound)
        return sum(
            (jnp.vdot(jnp.asarray(w), fields[key]) for key, w in self.weight.items()),
            start=jnp.zeros(()),
        )

    def reference_quantity(self, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        """By the reference; summed over cases, where there are several."""
        fields = self.reference(parameters)
        return sum(
            ((torch.as_tensor(w) * fields[key]).sum() for key, w in self.weight.items()),
            start=torch.zeros((), dtype=torch.float64),
        )

    def check(self, **settings: Any) -> CrossCheck:
        """All four ways; **arguments** as [`bridges.cross_check`][]."""
        return cross_check(
            self.quantity,
            self.parameters,
            self.bound,
            reference=self.reference_quantity,
            name=self.name,
            unit=self.unit,
            **settings,
        )


def steady_case() -> CheckCase:
    """FFR behind a lesion of the LAD, in the demonstration's tree with elastic walls."""
    tree = demo_tree(ellipsoid_ventricle(spacing_mm=5.0)[2])
    tree = declare_lesion(tree, branch="LAD", start_mm=12, end_mm=22, diameter_reduction=0.6)
    terminals = jnp.asarray(tree.terminals)
    ones = jnp.ones(terminals.size)
    problem = SteadyProblem(
        tree,
        (
            PressureBoundary(jnp.asarray(tree.roots), jnp.full(len(tree.roots), _AORTIC)),
            ResistanceOutlet(terminals, 5e10 * ones, 2e3 * ones),
        ),
        Blood(),
        SqrtAreaWall(OlufsenStiffness(), 12000.0),
    )
    places = {
        "radius": lambda p: p.network.radius,
        "diameter reduction": lambda p: p.network.lesion.diameter_reduction,
        "inlet pressure": lambda p: p.boundary[0].pressure,
        "outlet resistance": lambda p: p.boundary[1].resistance,
        "stiffness": lambda p: p.wall.stiffness.k3,
        "viscosity": lambda p: p.blood.viscosity.viscosity,
    }

    fields = ("pressure_total", "flow", "pressure_static")

    def solve(parameters: Fields, problem: SteadyProblem) -> Fields:
        found = solve_steady(_with(problem, places, parameters), throw=False)
        return {name: getattr(found, name) for name in fields}

    start: Any = reference_steady(problem)

    def reference(parameters: _Tensors) -> _Tensors:
        lesion = dataclasses.replace(
            start.network.lesion, diameter_reduction=parameters["diameter reduction"]
        )
        network = dataclasses.replace(start.network, radius=parameters["radius"], lesion=lesion)
        # Numbers broadcast against segments, and against both ends of them.
        viscosity = laws.ConstantViscosity(parameters["viscosity"][..., None])
        stiffness = dataclasses.replace(
            start.wall.stiffness, k3=parameters["stiffness"][..., None, None]
        )
        found = torch_steady.solve_steady(
            torch_steady.SteadyProblem(
                network,
                dataclasses.replace(
                    start.boundary,
                    pressure=parameters["inlet pressure"],
                    resistance=parameters["outlet resistance"],
                ),
                dataclasses.replace(start.blood, viscosity=viscosity),
                dataclasses.replace(start.wall, stiffness=stiffness),
            )
        )
        return {name: getattr(found, name) for name in fields}

    # Behind the lesion, at the distal end of the branch.
    of_branch = np.flatnonzero(np.asarray(tree.branch) == tree.branch_name.index("LAD"))
    weight = np.zeros((tree.n_segments, 2))
    weight[of_branch[-1], 1] = 1.0 / _AORTIC
    parameters = {name: place(problem) for name, place in places.items()}
    return CheckCase(
        "steady flow", "FFR", solve, problem, parameters, reference, {"pressure_static": weight}
    )


def flow1d_case(*, samples: int = 100, cell_time: float = 5e-4) -> CheckCase:
    """Pressure and flow over one cycle in a bifurcation with a lesion."""
    return transient_case(*_bifurcation(cell_time), name="flow in a bifurcation", samples=samples)


def transient_case(
    problem: Flow1DProblem, points: SavePoints, *, name: str, samples: int = 100
) -> CheckCase:
    """Pressure and flow over one cycle from the steady start.

    The quantity is the mean over points and moments of p/10 kPa and of Q/(10 ml/s).

    **Arguments:** `problem`, of an inlet and one kind of outlets, with one viscosity.
    """
    is_table = isinstance(problem.wall.stiffness, OlufsenStiffness)
    inlet = "pressure" if hasattr(problem.boundary[0], "pressure") else "flow"
    stiffness = "k3" if is_table else "Eh_over_r"
    is_coronary = hasattr(problem.boundary[1], "compliance_distal")
    resistance = "resistance_middle" if is_coronary else "resistance_distal"
    compliance = "compliance_distal" if is_coronary else "compliance"
    places = {
        "radius": lambda p: p.network.radius,
        "stiffness": lambda p: getattr(p.wall.stiffness, stiffness),
        "inlet": lambda p: getattr(p.boundary[0], inlet).value,
        "outlet resistance": lambda p: getattr(p.boundary[1], resistance),
        "outlet compliance": lambda p: getattr(p.boundary[1], compliance),
        "viscosity": lambda p: p.blood.viscosity.viscosity,
    }
    if problem.network.lesion.length.size:
        places["diameter reduction"] = lambda p: p.network.lesion.diameter_reduction
    fields = ("pressure_static", "flow", "area")

    def run(parameters: Fields, problem: Flow1DProblem) -> Fields:
        found = solve_flow1d(
            _with(problem, places, parameters), points=points, samples=samples, throw=False
        )
        return {field: getattr(found, field) for field in fields}

    start: Any = reference_flow1d(problem)
    at = reference_points(points)

    def reference(parameters: _Tensors) -> _Tensors:
        network = _replaced(start.network, radius=parameters["radius"])
        if "diameter reduction" in parameters:
            lesion = dataclasses.replace(
                network.lesion, diameter_reduction=parameters["diameter reduction"]
            )
            network = dataclasses.replace(network, lesion=lesion)
        wall = dataclasses.replace(
            start.wall,
            stiffness=dataclasses.replace(
                start.wall.stiffness,
                **{stiffness: _as_number(parameters["stiffness"], is_table, 2)},
            ),
        )
        held, outlet = start.boundary
        waveform = dataclasses.replace(getattr(held, inlet), value=parameters["inlet"])
        boundary = (
            dataclasses.replace(held, **{inlet: waveform}),
            dataclasses.replace(
                outlet,
                **{
                    resistance: parameters["outlet resistance"],
                    compliance: parameters["outlet compliance"],
                },
            ),
        )
        viscosity = laws.ConstantViscosity(_as_number(parameters["viscosity"], True, 1))
        changed = dataclasses.replace(
            start,
            network=network,
            wall=wall,
            boundary=boundary,
            blood=dataclasses.replace(start.blood, viscosity=viscosity),
        )
        found = torch_flow1d.solve_flow1d(changed, at, samples=samples)
        return {field: getattr(found, field) for field in fields}

    number = samples * points.segment.size
    weight = {
        "pressure_static": np.full((samples, points.segment.size), 1e-4 / number),
        "flow": np.full((samples, points.segment.size), 1e5 / number),
    }
    parameters = {name: place(problem) for name, place in places.items()}
    return CheckCase(name, "1", run, problem, parameters, reference, weight)


def _as_number(value: torch.Tensor, is_number: bool, axes: int) -> torch.Tensor:
    """One number for each case has axes of one behind those of the cases."""
    if not is_number or value.ndim == 0:
        return value
    return value.reshape(*value.shape, *([1] * axes))


def _bifurcation(cell_time: float) -> tuple[Flow1DProblem, SavePoints]:
    """An artery of 2.5 mm that divides into two, one of them with a lesion of half its diameter."""
    node = 1e-3 * np.array([[0, 0, 0], [60, 0, 0], [110, 30, 0], [110, -30, 0]])
    network = build_network(
        node,
        np.array([[0, 1], [1, 2], [1, 3]]),
        1e-3 * np.array([[2.5, 2.3], [1.8, 1.6], [2.0, 1.7]]),
        root=np.array([0]),
        frame="model",
        branch=np.arange(3),
        branch_name=("trunk", "left", "right"),
    )
    network = declare_lesion(network, branch="left", start_mm=20, end_mm=30, diameter_reduction=0.5)
    time = np.linspace(0.0, 0.8, 33)[:-1]
    pulse = 12000.0 + 2200.0 * np.sin(2 * np.pi * time / 0.8) + 700.0 * np.sin(
        4 * np.pi * time / 0.8 + 0.6
    )  # fmt: skip
    inlet = PressureWaveform(jnp.asarray(network.roots), Waveform(time, pulse[None], 0.8))
    outlet = jnp.asarray(network.terminals)
    ones = jnp.ones(outlet.size)
    beds = WindkesselOutlet(outlet, 1e9 * ones, 6e9 * ones, 3e-11 * ones, 1e3 * ones)
    segments = network.n_segments
    wall = SqrtAreaWall(ConstantStiffness(jnp.full((segments, 2), 4e4)), 11000.0)
    problem = flow1d_problem(network, (inlet, beds), Blood(), wall, cell_time=cell_time)
    of_left = np.flatnonzero(np.asarray(network.branch) == network.branch_name.index("left"))
    return problem, SavePoints([0, int(of_left[-1])], [0.5, 0.5])


def darcy_case(n_cells: float = 1e4) -> CheckCase:
    """Mean tissue pressure in an ellipsoidal wall of about so many voxels; K varies."""
    wall = ellipsoid_ventricle(spacing_mm=2.5 * (8.3e3 / n_cells) ** (1.0 / 3.0))[0]
    rng = np.random.default_rng(0)
    mesh = darcy_mesh(wall)
    volume = np.asarray(wall.volume)
    wave = np.cos(wall.centre @ rng.normal(0.0, 150.0, (3, 4)) + rng.uniform(0.0, 6.0, 4))
    permeability = 2e-9 * np.exp(0.5 * wave.sum(axis=1))
    parameters = {
        "permeability": jnp.asarray(permeability),
        "sink": jnp.asarray(1e-5 * volume * rng.uniform(0.8, 1.2, volume.size)),
        "source": jnp.asarray(0.02 * volume * rng.uniform(0.5, 1.5, volume.size)),
    }

    def solve(parameters: Fields, bound: tuple[AbstractDarcyMesh, AbstractDarcySolver]) -> Fields:
        mesh, method = bound
        conduction = mesh.transmissibility(parameters["permeability"])
        operator = darcy_operator(mesh.graph, conduction, parameters["sink"])
        found = solve_darcy(DarcyProblem(operator, parameters["source"]), method, throw=False)
        return {"pressure_tissue": found.pressure_tissue}

    raw = reference_mesh(wall)

    def reference(parameters: _Tensors) -> _Tensors:
        conduction = torch_darcy.assemble(raw, parameters["permeability"])
        found = solve_by_torch(raw.edge, conduction, parameters["sink"], parameters["source"])
        return {"pressure_tissue": found.pressure_tissue}

    weight = {"pressure_tissue": volume / volume.sum() / PA_PER_MMHG}
    bound = (mesh, multigrid(mesh, rtol=1e-14))
    name = f"Darcy, {volume.size} voxels"
    return CheckCase(name, "mmHg", solve, bound, parameters, reference, weight)


def coupled_case(case: Case | None = None, folder: Path = Path()) -> CheckCase:
    """Mean myocardial blood flow of a case in hyperemia; of the demonstration without forest.

    **Arguments:** `folder` that the case's relative paths start from.
    """
    if case is None:
        case = demo_case(spacing_mm=4.0).model_copy(update={"growth": None})
    progress = Progress()
    prepared = prepare_case(case, folder, progress)
    solved = solve_case(prepared, progress)
    problem = eqx.tree_at(
        lambda p: p.microcirculation, prepared.problem, solved.calibration.hyperemia
    )
    places = {
        "radius": lambda p: p.network.radius,
        "diameter reduction": lambda p: p.network.lesion.diameter_reduction,
        "inlet pressure": lambda p: p.boundary[0].pressure,
        "source conductance": lambda p: p.microcirculation.beta_source,
        "sink conductance": lambda p: p.microcirculation.beta_sink,
    }
    parameters = {name: place(problem) for name, place in places.items()}
    parameters = {name: value for name, value in parameters.items() if value.size}
    # A factor, for K may be one number, a field or a field of tensors.
    parameters["permeability"] = jnp.ones(())
    kept = {name: place for name, place in places.items() if name in parameters}
    names = ("pressure_total", "flow", "terminal_flow", "pressure_tissue", "mbf")

    def solve(parameters: Fields, bound: tuple[PerfusionProblem, AbstractDarcySolver]) -> Fields:
        problem, method = bound
        permeability = parameters["permeability"] * problem.microcirculation.permeability
        problem = eqx.tree_at(
            lambda p: p.microcirculation.permeability,
            _with(problem, kept, parameters),
            permeability,
        )
        found = solve_perfusion(problem, method, throw=False)
        return {name: getattr(found, name) for name in names}

    start: Any = reference_perfusion(problem, prepared.heart.mesh)

    def reference(parameters: _Tensors) -> _Tensors:
        given: Any = {name: parameters.get(name) for name in places}
        network = _replaced(start.network, radius=given["radius"])
        if start.network.lesion is not None:
            lesion = _replaced(start.network.lesion, diameter_reduction=given["diameter reduction"])
            network = dataclasses.replace(network, lesion=lesion)
        boundary = dataclasses.replace(
            start.boundary,
            pressure=torch.cat(
                [
                    given["inlet pressure"],
                    start.boundary.pressure[given["inlet pressure"].shape[-1] :],
                ],
                dim=-1,
            ),
        )
        bed = dataclasses.replace(
            start.microcirculation,
            beta_source=given["source conductance"],
            beta_sink=given["sink conductance"],
            permeability=parameters["permeability"] * start.microcirculation.permeability,
        )
        found = torch_coupled.solve_perfusion(
            dataclasses.replace(start, network=network, boundary=boundary, microcirculation=bed)
        )
        return {name: getattr(found, name) for name in names}

    volume = np.asarray(problem.tissue.volume)
    weight = {"mbf": volume / volume.sum() / M3_S_KG_PER_ML_MIN_G}
    bound = (problem, darcy_method(case.darcy.solver, problem))
    name = f"{case.title}, hyperemia"
    return CheckCase(
        name, "ml/min/g", solve, bound, parameters, reference, weight, is_batched=False
    )


def gnn_case(kind: str = "flux_multigrid", n_tets: float = 5e3) -> CheckCase:
    """Mean pressure of a random wall by a trained graph network, in its weights too.

    **Arguments:** `kind`: flux_multigrid, six linear cycles of it, or message_passing.
    """
    # A package of its own extra: everything else here does without.
    from gnn_darcy import flux_multigrid, message_passing, sample_case

    from ._graph_arrays import (
        reference_finite_volume_network,
        reference_flux_network,
        reference_flux_problem,
    )

    wall = sample_case(11, kind="tet", n_tets=n_tets)
    operator = wall.problem.operator
    widen = lambda x: x.astype(jnp.float64) if eqx.is_inexact_array(x) else x
    if kind == "flux_multigrid":
        made = flux_multigrid(wall.mesh, wall.permeability, mode="surrogate", cycles=_CYCLES)
        solver: Any = dataclasses.replace(
            made, network=jax.tree.map(widen, made.network), dtype=jnp.float64
        )
        copied: torch.nn.Module = reference_flux_network(solver.network)
    else:
        solver = jax.tree.map(widen, message_passing(wall.mesh))
        copied = reference_finite_volume_network(solver.network)
    weights, unravel = jax.flatten_util.ravel_pytree(solver.network)
    parameters = {
        "weights": weights,
        "transmissibility": operator.transmissibility,
        "sink": operator.sink,
        "source": wall.problem.source,
    }

    def solve(parameters: Fields, bound: tuple[DarcyGraph, AbstractDarcySolver]) -> Fields:
        graph, solver = bound
        solver = dataclasses.replace(solver, network=unravel(parameters["weights"]))
        operator = darcy_operator(graph, parameters["transmissibility"], parameters["sink"])
        found = solve_darcy(DarcyProblem(operator, parameters["source"]), solver, throw=False)
        return {"pressure_tissue": found.pressure_tissue}

    shapes = [(name, part.shape, part.numel()) for name, part in _ordered(copied)]
    raw = None
    if kind == "flux_multigrid":
        raw = reference_flux_problem(solver, wall.problem)
    edge = torch.tensor(np.asarray(operator.graph.edge), dtype=torch.int64)
    solving = _Solving(copied)

    def reference(parameters: _Tensors) -> _Tensors:
        parts = parameters["weights"].split([size for *_, size in shapes])
        named = {
            f"network.{name}": part.reshape(shape)
            for (name, shape, _), part in zip(shapes, parts, strict=True)
        }
        rest = tuple(parameters[name] for name in ("transmissibility", "sink", "source"))
        found = torch.func.functional_call(solving, named, (raw, edge, *rest))
        return {"pressure_tissue": found}

    volume = np.asarray(operator.graph.volume)
    weight = {"pressure_tissue": volume / volume.sum() / PA_PER_MMHG}
    name = f"{kind.replace('_', ' ')} network"
    bound = (operator.graph, solver)
    return CheckCase(name, "mmHg", solve, bound, parameters, reference, weight, is_batched=False)


def _ordered(network: Any) -> list[tuple[str, torch.nn.Parameter]]:
    """Parameters with their names, in the order in which jaxperf's network has them."""
    named = {id(part): name for name, part in network.named_parameters()}
    return [(named[id(part)], part) for part in network.ordered_parameters()]


class _Solving(torch.nn.Module):
    """A solve as a module, so that torch can put other weights in for a call."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network: Any = network

    def forward(
        self,
        raw: Any,
        edge: torch.Tensor,
        transmissibility: torch.Tensor,
        sink: torch.Tensor,
        source: torch.Tensor,
    ) -> torch.Tensor:
        if raw is None:
            return self.network(edge, transmissibility, sink, source)
        from .reference.graph import solve_flux

        changed = dataclasses.replace(
            raw, transmissibility=transmissibility, sink=sink, source=source
        )
        found = solve_flux(self.network, changed, mode="surrogate", cycles=_CYCLES)
        return found.pressure_tissue


def _replaced(value: Any, **fields: Any) -> Any:
    """With those fields that are given."""
    return dataclasses.replace(value, **{k: v for k, v in fields.items() if v is not None})


def _with(problem: Any, places: dict[str, Callable[[Any], Array]], parameters: Any) -> Any:
    """The problem with other values at the places of its parameters."""
    return eqx.tree_at(
        lambda p: [place(p) for place in places.values()],
        problem,
        [parameters[name] for name in places],
    )
