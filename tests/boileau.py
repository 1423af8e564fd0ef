"""Two cases of Boileau et al. 2015 as networks, with the reference series of their supplement.

Boileau et al., Int. J. Numer. Meth. Biomed. Engng. 31 (2015), doi 10.1002/cnm.2732. The values are
those of the table in the README of the reference data, which states the tube law as referred to
diastole: p = P_d + (4/3) √π E h / A_d (√A − √A_d).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from helpers import data_dir
from numpy.typing import NDArray

from jaxperf.network import (
    AbstractBoundary,
    build_network,
    FlowWaveform,
    VascularNetwork,
    Waveform,
    WindkesselOutlet,
)
from jaxperf.vessel import Blood, ConstantStiffness, ConstantViscosity, SqrtAreaWall

# ρ 1060 kg/m³, µ 4 mPa·s, T 1.1 s, outlet pressure 0: README, text and last column of the table.
_DENSITY, _VISCOSITY, PERIOD = 1060.0, 4e-3, 1.1


@dataclass(frozen=True)
class Series:
    """A reference series at one place of the network: time (s), pressure (Pa), flow (m³/s)."""

    segment: int
    fraction: float
    time: NDArray[np.float64]
    pressure: NDArray[np.float64]
    flow: NDArray[np.float64]


@dataclass(frozen=True)
class BoileauCase:
    """A case: the wall is at its reference radius at `pressure_reference` (Pa).

    `stiffness_segment` (s, 2) is E h / r in Pa at the two ends of each segment. `finite_volume`
    holds the series to compare with, by name of the place: two cycles sampled every ms.
    """

    network: VascularNetwork
    boundary: tuple[AbstractBoundary, ...]
    blood: Blood
    stiffness_segment: NDArray[np.float64]
    pressure_reference: float
    period: float
    finite_volume: dict[str, Series]

    @property
    def wall(self) -> SqrtAreaWall:
        """The wall of all segments, with the stiffness of each at its two ends."""
        stiffness = ConstantStiffness(jnp.asarray(self.stiffness_segment))
        return SqrtAreaWall(stiffness, self.pressure_reference)


def missing_boileau() -> str | None:
    """Why the cases cannot be built, or None."""
    folder = data_dir() / "boileau2015"
    return None if folder.is_dir() else f"no reference data at {folder}"


def common_carotid() -> BoileauCase:
    """The common carotid artery, case `cca`: one vessel, parabolic profile (α 4/3)."""
    folder = data_dir() / "boileau2015" / "cca"
    # row `cca`: L, r_d, E, h, P_d, ζ, R1, R2, C
    return _case(
        folder,
        segment_node=[[0, 1]],
        length=[0.126],
        radius=[3.0e-3],
        modulus=[700e3],
        thickness=[0.3e-3],
        branch=("carotid",),
        outlet=(2.4875e8, 1.8697e9, 1.7529e-10),
        pressure_reference=10.933e3,
        blood=Blood(_DENSITY, ConstantViscosity(_VISCOSITY), 2.0),
        places={"midpoint": (0, 0.5)},
    )


def aortic_bifurcation() -> BoileauCase:
    """The aorta and two iliac arteries, case `ibif`: blunt profile with α = 1, as in the paper."""
    folder = data_dir() / "boileau2015" / "ibif"
    # rows `ibif aorta` and `ibif iliac ×2`: L, r_d, E, h, P_d, ζ, R1, R2, C
    return _case(
        folder,
        segment_node=[[0, 1], [1, 2], [1, 3]],
        length=[0.086, 0.085, 0.085],
        radius=[8.6e-3, 6.0e-3, 6.0e-3],
        modulus=[500e3, 700e3, 700e3],
        thickness=[1.032e-3, 0.72e-3, 0.72e-3],
        branch=("aorta", "left iliac", "right iliac"),
        outlet=(6.8123e7, 3.1013e9, 3.6664e-10),
        pressure_reference=9.46667e3,
        blood=Blood(_DENSITY, ConstantViscosity(_VISCOSITY), 9.0, 1.0),
        places={"aorta_midpoint": (0, 0.5), "aorta_end": (0, 1.0), "iliac_midpoint": (1, 0.5)},
    )


def _case(
    folder: Path,
    *,
    segment_node: list[list[int]],
    length: list[float],
    radius: list[float],
    modulus: list[float],
    thickness: list[float],
    branch: tuple[str, ...],
    outlet: tuple[float, float, float],
    places: dict[str, tuple[int, float]],
    **rest: Any,
) -> BoileauCase:
    pairs = np.array(segment_node, np.int64)
    reference = np.repeat(np.array(radius)[:, None], 2, axis=1)
    # Positions only tell the nodes apart; the lengths are stated.
    position = np.array([[0, 0, 0], [0.1, 0, 0], [0.2, 0.05, 0], [0.2, -0.05, 0]], np.float64)
    network = build_network(
        position[: len(pairs) + 1],
        pairs,
        reference,
        root=np.array([0], np.int64),
        frame="model",
        length=np.array(length),
        branch=np.arange(len(pairs)),
        branch_name=branch,
    )
    leaves = network.terminals
    ones = np.ones(len(leaves))
    r1, r2, c = (jnp.asarray(value * ones) for value in outlet)
    time, flow = np.loadtxt(folder / "inlet.dat").T
    return BoileauCase(
        network=network,
        boundary=(
            FlowWaveform(jnp.asarray(network.roots), Waveform(time, flow[None], PERIOD)),
            WindkesselOutlet(leaves, r1, r2, c, jnp.asarray(0.0 * ones)),
        ),
        stiffness_segment=(np.array(modulus) * np.array(thickness))[:, None] / reference,
        period=PERIOD,
        finite_volume={name: _series(folder, name, *at) for name, at in places.items()},
        **rest,
    )


def _series(folder: Path, name: str, segment: int, fraction: float) -> Series:
    table = np.loadtxt(folder / f"fvm_{name}.csv", delimiter=",", skiprows=1)
    time, pressure_kpa, flow_ml_s = table[:, :3].T
    return Series(segment, fraction, time, pressure_kpa * 1e3, flow_ml_s * 1e-6)
