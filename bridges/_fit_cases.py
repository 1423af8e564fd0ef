"""The objective of a fit and its curvature, for `cross_check`."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch
from jaxtyping import Array, Float

from jaxperf.inverse import (
    GaussianNoise,
    Interval,
    InverseProblem,
    Log,
    Measurement,
    Normal,
    Parameter,
    PlainModel,
)
from jaxperf.network import build_network, declare_lesion, PressureBoundary, ResistanceOutlet
from jaxperf.steady import solve_steady, SteadyProblem
from jaxperf.units import M3_S_PER_ML_MIN

from ._cases import CheckCase, Fields
from ._steady_arrays import reference_steady
from .reference import _steady as torch_steady

_AORTIC = 12400.0  # Pa
_MEASURED, _SD = np.array([290.0, 0.72]), np.array([15.0, 0.02])  # ml/min and FFR
_SEVERITY, _SEVERITY_SD, _MOST_SEVERE = 0.6, 0.4, 0.95
_RESISTANCE, _RESISTANCE_SD = 4e9, 0.3  # Pa·s/m³
_AT = np.array([0.3, -0.4, 0.2])  # coordinates
_ALONG = np.array([0.5, 1.0, -0.7])


class _Seen(eqx.Module):
    """Inflow (ml/min), and FFR at the end of the narrowed branch."""

    problem: SteadyProblem
    behind: int = eqx.field(static=True)

    def __call__(self, values: dict[str, Array]) -> Float[Array, "2"]:
        where = lambda p: (p.network.lesion.diameter_reduction, p.boundary[1].resistance)
        new = (values["severity"][None], values["resistance"])
        found = solve_steady(eqx.tree_at(where, self.problem, new), throw=False)
        ffr = found.pressure_static[self.behind, 1] / found.pressure_static[0, 0]
        return jnp.stack([found.flow[0] / M3_S_PER_ML_MIN, ffr])


def _whole(seen: Float[Array, " n"]) -> Float[Array, " n"]:
    return seen


def _tree() -> SteadyProblem:
    """Two branches, one of them narrowed, before resistances."""
    node = 1e-3 * np.array([[0, 0, 0], [10, 0, 0], [60, 20, 0], [60, -20, 0]])
    tree = build_network(
        node,
        np.array([[0, 1], [1, 2], [1, 3]]),
        1e-3 * np.array([2.2, 2.0, 1.5, 1.4]),
        root=np.array([0]),
        frame="model",
        branch=np.arange(3),
        branch_name=("LM", "LAD", "LCx"),
    )
    tree = declare_lesion(tree, branch="LAD", start_mm=15, end_mm=25, diameter_reduction=0.6)
    outlet = np.array([tree.outlet("LAD"), tree.outlet("LCx")])
    bed = ResistanceOutlet(outlet, np.full(2, _RESISTANCE), np.full(2, 2e3))
    return SteadyProblem(tree, (PressureBoundary(0, _AORTIC), bed))


def _behind(problem: SteadyProblem) -> int:
    """The last segment of the narrowed branch."""
    return int(problem.network.at("LAD", mm=50.0).segment)


def fit_case() -> CheckCase:
    """What a fit of a lesion and two outlets minimises, by its standard-normal coordinates."""
    problem = _tree()
    reduction = Interval(low=0.0, high=_MOST_SEVERE)  # pyright: ignore[reportCallIssue]
    inverse = InverseProblem(
        PlainModel(_Seen(problem, _behind(problem))),
        [
            Parameter("severity", Normal(_SEVERITY, _SEVERITY_SD), reduction),
            Parameter("resistance", Normal(_RESISTANCE, _RESISTANCE_SD), Log(), shape=(2,)),
        ],
        [Measurement("flow and FFR", _whole, _MEASURED, GaussianNoise(sd=_SD))],
    )
    by_torch = _Objective(problem)
    return CheckCase(
        "objective of a fit",
        "nats",
        lambda parameters, inverse: {"objective": _objective(inverse, parameters["xi"])},
        inverse,
        {"xi": jnp.asarray(_AT)},
        lambda parameters: {"objective": by_torch(parameters["xi"])},
        {"objective": np.ones(())},
        is_batched=False,
    )


def fit_curvature_case() -> CheckCase:
    """The slope of the same along one direction; its gradient is the Hessian times that."""
    plain = fit_case()
    by_torch = _Objective(_tree())

    def slope(parameters: Fields, inverse: InverseProblem) -> Fields:
        return {"slope": jax.grad(lambda xi: _objective(inverse, xi))(parameters["xi"])}

    def reference(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        xi = parameters["xi"]
        xi = xi if xi.requires_grad else xi.detach().requires_grad_()
        with torch.enable_grad():
            (found,) = torch.autograd.grad(by_torch(xi), xi, create_graph=True)
        return {"slope": found}

    return dataclasses.replace(
        plain,
        name="curvature of a fit",
        solve=slope,
        reference=reference,
        weight={"slope": _ALONG},
    )


def _objective(inverse: InverseProblem, xi: Float[Array, " p"]) -> Float[Array, ""]:
    residual, _ = inverse.residual(xi)
    return 0.5 * (jnp.sum(residual**2) + jnp.sum(xi**2))


class _Objective:
    """The objective by torch, from raw arrays: transforms, prior and noise are written anew."""

    def __init__(self, problem: SteadyProblem) -> None:
        self._start: Any = reference_steady(problem)
        self._behind = _behind(problem)

    def __call__(self, xi: torch.Tensor) -> torch.Tensor:
        middle = np.log(_SEVERITY / (_MOST_SEVERE - _SEVERITY))
        severity = _MOST_SEVERE * torch.sigmoid(middle + _SEVERITY_SD * xi[:1])
        resistance = _RESISTANCE * torch.exp(_RESISTANCE_SD * xi[1:])
        lesion = dataclasses.replace(self._start.network.lesion, diameter_reduction=severity)
        network = dataclasses.replace(self._start.network, lesion=lesion)
        boundary = dataclasses.replace(self._start.boundary, resistance=resistance)
        given = dataclasses.replace(self._start, network=network, boundary=boundary)
        found = torch_steady.solve_steady(given)
        static = found.pressure_static
        ffr = static[self._behind, 1] / static[0, 0]
        seen = torch.stack([found.flow[0] / M3_S_PER_ML_MIN, ffr])
        residual = (seen - torch.as_tensor(_MEASURED)) / torch.as_tensor(_SD)
        return 0.5 * ((residual**2).sum() + (xi**2).sum())
