"""The raw arrays of a transient flow problem, as the torch reference takes them."""

import dataclasses

import torch

from jaxperf._misc import InputError
from jaxperf.flow1d import Flow1DProblem, SavePoints
from jaxperf.network import (
    AbstractBoundary,
    CoronaryOutletSvOneD,
    CoronaryOutletSvZeroD,
    FlowBoundary,
    FlowWaveform,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
    Waveform,
    WindkesselOutlet,
)

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


def _or_none(waveform: Waveform | None) -> described.Waveform | None:
    return None if waveform is None else _waveform(waveform)


def _constant(value) -> described.Waveform:
    values = to_tensor(value)
    return described.Waveform(torch.zeros(1).to(values), values[:, None])


def _condition(condition: AbstractBoundary) -> described.Condition:
    node = to_tensor(condition.node)
    of = lambda *names: [to_tensor(getattr(condition, name)) for name in names]
    if isinstance(condition, PressureBoundary):
        return described.PressureWaveform(node, _constant(condition.pressure))
    if isinstance(condition, PressureWaveform):
        return described.PressureWaveform(node, _waveform(condition.pressure))
    if isinstance(condition, FlowBoundary):
        return described.FlowWaveform(node, _constant(condition.flow))
    if isinstance(condition, FlowWaveform):
        return described.FlowWaveform(node, _waveform(condition.flow))
    if isinstance(condition, ResistanceOutlet):
        return described.ResistanceOutlet(node, *of("resistance", "pressure_ref"))
    if isinstance(condition, WindkesselOutlet):
        return described.WindkesselOutlet(node, *of("R1", "R2", "C", "pressure_ref"))
    if isinstance(condition, CoronaryOutletSvOneD):
        return described.CoronaryOutlet(
            node=node,
            R1=to_tensor(condition.Ra),
            R2=to_tensor(condition.Ra_micro),
            R3=to_tensor(condition.Rv),
            Ca=to_tensor(condition.Ca),
            Ct=to_tensor(condition.Cim),
            # That solver adds P_ref to the pressure at the outlet.
            pressure_sink=-to_tensor(condition.P_ref),
            pressure_im=_or_none(condition.pressure_im),
        )
    if isinstance(condition, CoronaryOutletSvZeroD):
        return described.CoronaryOutlet(
            node=node,
            R1=to_tensor(condition.Ra1),
            R2=to_tensor(condition.Ra2),
            R3=to_tensor(condition.Rv1),
            Ca=to_tensor(condition.Ca),
            Ct=to_tensor(condition.Cc),
            pressure_sink=to_tensor(condition.P_v),
            pressure_im=_or_none(condition.pressure_im),
        )
    raise InputError(
        f"the torch reference does not know {type(condition).__name__}",
        where="reference_flow1d",
        expected="pressures, flows, resistances, windkessels and coronary outlets",
        fix="Describe the case with one of these",
    )
