"""What a transient flow problem consists of."""

import math
from typing import Literal

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import as_leaf, float_leaf, Parameter
from .._defaults import DEFAULT_CELL_TIME, DEFAULT_CFL
from .._misc import InputError, is_traced
from ..network import check_boundary, Ladder, VascularNetwork, vessel_label, Waveform
from ..steady import Boundary
from ..vessel import AbstractElasticWall, Blood
from ._grid import elastic, Grid, make_grid


class ExternalPressure(eqx.Module):
    r"""Pressure around the vessels, $p_{ext}(x,t) = \sum_b s_b(x)\,w_b(t)$.

    **Attributes:** `waveform`, b rows in Pa; `share` (b, s, 2), its weight at both ends of every
    segment, linear in between.
    """

    waveform: Waveform
    share: Float[Array, "b s 2"]

    def __check_init__(self) -> None:
        rows, shares = self.waveform.value.shape[0], self.share.shape[0]
        if rows != shares:
            raise ValueError(f"expected one share for each of {rows} waveforms, got {shares}")


class Flow1DProblem(eqx.Module):
    r"""Transient one-dimensional flow in a network of compliant vessels.

    $$\partial_tA+\partial_xQ=0,\qquad
    \partial_tQ+\partial_x\Big(\alpha\frac{Q^2}{A}\Big)+\frac A\rho\,\partial_xp
    =-2(\zeta+2)\pi\frac{\mu Q}{\rho A},\qquad
    p=p_{ext}+p(A)+\frac{\Gamma}{A_0\sqrt A}\,\partial_tA$$

    **Attributes:**

    - `network`, `boundary`, `blood`, `wall`: as for steady flow; the wall is elastic. Its
      parameters of its stiffness may have a value for every segment (s, 1), or for both ends of
      each (s, 2), linear in between.
    - `grid`: from [`make_grid`][]; `period`, of the boundary's waveforms, s; `n_steps`, into at
      least so many equal steps a cycle is cut.
    - `pressure_external`: p_ext, or None.
    - `wall_viscosity`: Γ (Pa·s·m) of a Voigt wall: one value, or (s,) for each segment; None for
      an elastic wall.
    - `junction_pressure`, `boundary_pressure`: whether total or static pressure is continuous at
      junctions, and is meant by the conditions at the network's ends.

    **Errors:** [`InputError`][] for a wall without a wave speed and contradictory boundary data.
    """

    network: VascularNetwork
    boundary: Boundary
    blood: Blood
    wall: AbstractElasticWall
    grid: Grid
    period: Parameter = eqx.field(converter=float_leaf)
    n_steps: int = eqx.field(static=True)
    pressure_external: ExternalPressure | None = None
    wall_viscosity: Parameter | None = None
    junction_pressure: Literal["total", "static"] = eqx.field(static=True, default="total")
    boundary_pressure: Literal["total", "static"] = eqx.field(static=True, default="total")

    @property
    def time_step(self) -> float | Array:
        """The longest step in time, s."""
        return (self.period if is_traced(self.period) else float(self.period)) / self.n_steps

    def __check_init__(self) -> None:
        check_boundary(self.network, self.boundary)
        if not self.boundary:
            raise InputError(
                "there is no boundary condition",
                where="boundary",
                expected="at least an inlet",
                fix="Prescribe a pressure or a flow at a root",
            )
        _check_storage(self.boundary)
        elastic(self.wall)
        if self.pressure_external is not None:
            found, segments = self.pressure_external.share.shape[1], self.network.n_segments
            if found != segments:
                raise ValueError(f"expected external pressure on {segments} segments, got {found}")
        if self.wall_viscosity is not None and not is_traced(self.wall_viscosity):
            if not (np.asarray(self.wall_viscosity) >= 0).all():
                raise InputError(
                    f"wall_viscosity is {np.min(np.asarray(self.wall_viscosity))}",
                    where="wall",
                    expected="zero or a positive number in Pa s m",
                    fix="Correct the coefficient",
                )


def _check_storage(boundary: Boundary) -> None:
    """Refuse an outlet without compliance: its state would have to follow at once."""
    for condition in boundary:
        form = condition.form()
        for value in form.compliance if isinstance(form, Ladder) else ():
            if is_traced(value):
                continue
            bad = ~(np.asarray(value) > 0)
            if bad.any():
                raise InputError(
                    f"the compliance of a compartment is {np.asarray(value)[bad][0]}",
                    where=condition.kind,
                    expected="a positive compliance in m3/Pa",
                    fix="Give the compliance, or use an outlet of resistances alone",
                )


def flow1d_problem(
    network: VascularNetwork,
    boundary: Boundary,
    blood: Blood,
    wall: AbstractElasticWall,
    *,
    period: float | None = None,
    cell_time: float = DEFAULT_CELL_TIME,
    cfl: float = DEFAULT_CFL,
    pressure_external: ExternalPressure | None = None,
    wall_viscosity: Parameter | float | None = None,
    junction_pressure: Literal["total", "static"] = "total",
    boundary_pressure: Literal["total", "static"] = "total",
) -> Flow1DProblem:
    """A [`Flow1DProblem`][] with its grid; runs on the host.

    **Arguments:**

    - `period`: s; that of the waveforms where left out.
    - `cell_time`: resolution, see [`make_grid`][].
    - `cfl`: the longest time step over `cell_time`. Waves under load and on moving blood are
      faster than in the unloaded vessel; the default leaves them a factor of two.
    - the others: see [`Flow1DProblem`][].

    **Errors:** [`InputError`][] for waveforms of different periods, or none and no `period`, and
    for a lesion that closes its vessel.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    vessel = jp.build_network(
        np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([[0, 1]]), np.full(2, 2e-3),
        root=np.array([0]), frame="model",
    )
    wave = jp.Waveform(np.array([0.0, 0.3, 0.8]), np.array([[1.1e4, 1.5e4, 1.1e4]]), 0.8)
    inlet, outlet = jp.PressureWaveform(0, wave), jp.ResistanceOutlet(1, 2e10, 0.0)
    wall = jp.SqrtAreaWall(jp.OlufsenStiffness(), 12000.0)
    problem = jp.flow1d_problem(vessel, (inlet, outlet), jp.Blood(), wall)
    ```
    """
    if not 0.0 < cfl <= 0.9:
        raise InputError(
            f"cfl is {cfl}",
            where="flow1d_problem",
            expected="a number above 0, at most 0.9",
            fix=f"Leave it at {DEFAULT_CFL}",
        )
    _refuse_occlusions(network)
    grid = make_grid(network, boundary, blood, wall, cell_time=cell_time)
    time_step = cfl * cell_time
    if wall_viscosity is not None:
        viscosity = np.broadcast_to(np.asarray(wall_viscosity, float), (network.n_segments,))
        time_step = min(time_step, 0.5 * _diffusion_time(network, grid, blood, viscosity))
        wall_viscosity = as_leaf(viscosity, network.radius.dtype)
    period = _common_period(boundary, pressure_external, period)
    return Flow1DProblem(
        network=network,
        boundary=boundary,
        blood=blood,
        wall=wall,
        grid=grid,
        period=period,
        n_steps=max(1, math.ceil(period / (time_step * (1.0 + 1e-9)))),
        pressure_external=pressure_external,
        wall_viscosity=wall_viscosity,
        junction_pressure=junction_pressure,
        boundary_pressure=boundary_pressure,
    )


def _refuse_occlusions(network: VascularNetwork) -> None:
    """A wave would have to be thrown back where a vessel is closed, which no node does here."""
    lesion = network.lesion
    if is_traced(lesion.diameter_reduction) or not lesion.length.size:
        return
    closed = np.asarray(lesion.segment)[np.asarray(lesion.closes)]
    if closed.size:
        raise InputError(
            f"an occlusion closes {vessel_label(network, int(closed[0]))}",
            where="flow1d_problem",
            expected="lesions of a diameter reduction below 1",
            fix="Solve it in steady flow, or leave the vessel and all below it out",
        )


def _common_period(
    boundary: Boundary, external: ExternalPressure | None, period: float | None
) -> float:
    """The period of all waveforms."""
    held = [value for c in boundary for value in vars(c).values() if isinstance(value, Waveform)]
    held += [] if external is None else [external.waveform]
    found = sorted({float(np.asarray(w.period)) for w in held})
    if period is None and len(found) == 1:
        return found[0]
    if period is not None and all(abs(p - period) <= 1e-6 * period for p in found):
        return float(period)
    raise InputError(
        f"the waveforms have the periods {found} s and the problem {period}",
        where="period",
        expected="one period for all, given where there is no waveform",
        fix="Bring the waveforms to one heart rate, or give the period",
    )


def _diffusion_time(
    network: VascularNetwork, grid: Grid, blood: Blood, viscosity: Float[np.ndarray, " s"]
) -> float:
    r"""Shortest time in which wall viscosity spreads flow over a cell, $\Delta x^2/2\nu$.

    $\nu=\Gamma/(\rho\sqrt{A_0})$, from $\Gamma\sqrt A/(\rho A_0)$.
    """
    length = np.zeros(grid.n_slots)
    segment, share = np.asarray(grid.piece_segment), np.diff(np.asarray(grid.piece_fraction))[:, 0]
    np.add.at(length, np.asarray(grid.piece_slot), np.asarray(network.length)[segment] * share)
    cell = np.flatnonzero(length > 0)
    segment = np.asarray(grid.cell_segment)[cell]
    radius = np.asarray(network.radius)[segment].min(axis=1)
    nu = viscosity[segment] / (float(np.asarray(blood.density)) * np.sqrt(np.pi) * radius)
    return float(np.min(length[cell] ** 2 / np.maximum(2.0 * nu, 1e-300)))
