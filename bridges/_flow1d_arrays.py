"""The raw arrays of a transient flow problem, as the torch reference takes them."""

import dataclasses

import torch
from jaxtyping import Array

from jaxperf._misc import InputError
from jaxperf.flow1d import Flow1DProblem, SavePoints
from jaxperf.network import AbstractBoundary, Fed, Held, JointDrain, Waveform

from ._steady_arrays import reference_blood, reference_network, reference_wall, to_tensor
from .reference import _flow1d as flow1d, _flow1d_problem as described


def reference_flow1d(problem: Flow1DProblem) -> described.Flow1DProblem:
    """A transient problem as tensors, for `bridges.reference.solve_flow1d`.

    **Returns:** raw arrays, laws and choices (resolution, longest step); the reference makes its
    own grid.

    **Errors:** `InputError` for a law or a condition that the reference does not know.
    """
    external = None
    if problem.pressure_external is not None:
        external = described.ExternalPressure(
            _waveform(problem.pressure_external.waveform),
            to_tensor(problem.pressure_external.share),
        )
    viscosity = problem.wall_viscosity
    made = described.flow1d_problem(
        reference_network(problem.network),
        tuple(_condition(condition) for condition in problem.boundary),
        reference_blood(problem.blood),
        reference_wall(problem.wall),
        period=float(problem.period),
        cell_time=float(problem.grid.cell_time),
        pressure_external=external,
        wall_viscosity=None if viscosity is None else to_tensor(viscosity),
        junction_pressure=problem.junction_pressure,
        boundary_pressure=problem.boundary_pressure,
    )
    return dataclasses.replace(made, time_step=problem.time_step)


def reference_points(points: SavePoints) -> flow1d.SavePoints:
    """Places at which a solution is saved, as tensors."""
    return flow1d.SavePoints(torch.tensor(points.segment), torch.tensor(points.fraction))


def _waveform(waveform: Waveform) -> described.Waveform:
    return described.Waveform(to_tensor(waveform.time), to_tensor(waveform.value))


def _or_constant(value: Array | Waveform) -> described.Waveform:
    if isinstance(value, Waveform):
        return _waveform(value)
    values = to_tensor(value)
    return described.Waveform(torch.zeros(1).to(values), values[:, None])


def _condition(condition: AbstractBoundary) -> described.Condition:
    node, form = to_tensor(condition.node), condition.form()
    if isinstance(form, Held):
        return described.PressureWaveform(node, _or_constant(form.pressure))
    if isinstance(form, Fed):
        return described.FlowWaveform(node, _or_constant(form.flow))
    # The reference knows outer pressure in the second of two compartments only.
    if (
        isinstance(form.sink, JointDrain)
        or len(form.compliance) > 2
        or any(w is not None for w in form.pressure_outer[:1])
    ):
        raise InputError(
            f"the torch reference does not know the {condition.kind}",
            where="reference_flow1d",
            expected="pressures, flows, resistances, windkessels and coronary outlets",
            fix="Describe the case with one of these",
        )
    part = [to_tensor(v) for v in (*form.resistance, *form.compliance, form.sink)]
    if not form.compliance:
        return described.ResistanceOutlet(node, *part)
    if len(form.compliance) == 1:
        return described.WindkesselOutlet(node, *part)
    outer = form.pressure_outer[1]
    around = None if outer is None else _waveform(outer)
    return described.CoronaryOutlet(node, *part, pressure_im=around)
