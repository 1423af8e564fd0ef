"""What a transient flow problem consists of."""

from typing import Literal

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import float_leaf, Parameter
from .._misc import InputError, is_traced
from ..network import check_boundary, VascularNetwork, Waveform
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

    def __check_init__(self):
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
      stiffness may be a `ConstantStiffness` with one value for both ends of every segment (s, 2).
    - `grid`: from [`make_grid`][].
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
    pressure_external: ExternalPressure | None = None
    wall_viscosity: Parameter | None = None
    junction_pressure: Literal["total", "static"] = eqx.field(static=True, default="total")
    boundary_pressure: Literal["total", "static"] = eqx.field(static=True, default="total")

    def __check_init__(self):
        check_boundary(self.network, self.boundary)
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


def flow1d_problem(
    network: VascularNetwork,
    boundary: Boundary,
    blood: Blood,
    wall: AbstractElasticWall,
    *,
    cell_time: float = 1.5e-4,
    pressure_external: ExternalPressure | None = None,
    wall_viscosity: Parameter | float | None = None,
    junction_pressure: Literal["total", "static"] = "total",
    boundary_pressure: Literal["total", "static"] = "total",
) -> Flow1DProblem:
    """A [`Flow1DProblem`][] with its grid; see there and [`make_grid`][] for the arguments."""
    return Flow1DProblem(
        network=network,
        boundary=boundary,
        blood=blood,
        wall=wall,
        grid=make_grid(network, boundary, blood, wall, cell_time=cell_time),
        pressure_external=pressure_external,
        wall_viscosity=None if wall_viscosity is None else float_leaf(jnp.asarray(wall_viscosity)),
        junction_pressure=junction_pressure,
        boundary_pressure=boundary_pressure,
    )
