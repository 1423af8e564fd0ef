"""Named places on a network, and what a beat looks like there."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from ..flow1d import SavePoints
from ..network import branch_course, VascularNetwork
from ..units import M3_S_PER_ML_MIN, M_PER_MM, PA_PER_MMHG

# Uniform times over the cycle at which means are taken, of curves that are linear between samples.
_FINE = 2000


@dataclass(frozen=True)
class Place:
    """A place on a branch, as a segment of a network and a fraction of it.

    `name` is ostium, proximal, middle, distal, or behind a lesion.
    """

    branch: str
    name: str
    arc_mm: float
    segment: int
    fraction: float


def branch_places(network: VascularNetwork, branch: str) -> list[Place]:
    """The proximal end (ostium at a root), the middle and the distal end of a branch."""
    course, start = branch_course(network, branch)
    length = np.asarray(network.length)[course]
    first = int(np.asarray(network.segment_node)[course[0], 0])
    half = 0.5 * float(start[-1] + length[-1])
    k = int(np.searchsorted(start, half, side="right")) - 1
    at_root = first in np.asarray(network.roots)
    return [
        Place(branch, "ostium" if at_root else "proximal", 0.0, int(course[0]), 0.0),
        Place(
            branch,
            "middle",
            half / M_PER_MM,
            int(course[k]),
            float(np.clip((half - start[k]) / length[k], 0.0, 1.0)),
        ),
        Place(branch, "distal", 2.0 * half / M_PER_MM, int(course[-1]), 1.0),
    ]


def save_points(places: Sequence[Place]) -> SavePoints:
    """The places as points of the transient solver."""
    return SavePoints(
        np.array([p.segment for p in places], np.int64),
        np.array([p.fraction for p in places], np.float64),
    )


@dataclass(frozen=True)
class Series:
    """One periodic cycle at places: `time` (k,) s from 0; mmHg and ml/min, (k, m)."""

    places: tuple[Place, ...]
    period: float
    time: Float[np.ndarray, " k"]
    pressure_static: Float[np.ndarray, "k m"]
    flow: Float[np.ndarray, "k m"]

    def index(self, branch: str, *names: str) -> int:
        """The first place of a branch under one of the names."""
        return next(i for i, p in enumerate(self.places) if p.branch == branch and p.name in names)

    def mean(
        self, values: Float[np.ndarray, " k"], where: Bool[np.ndarray, " f"] | None = None
    ) -> float:
        """Mean over the cycle, or over that part of the times `fine`."""
        curve = np.interp(self.fine, self.time, values, period=self.period)
        return float(curve.mean() if where is None else curve[where].mean())

    @property
    def fine(self) -> Float[np.ndarray, " f"]:
        """Uniform times over the cycle, s."""
        return np.arange(_FINE) * (self.period / _FINE)

    def rows(self, **first: Any) -> list[dict[str, Any]]:
        """Rows of `waveforms.csv`, place by place, after the columns `first`."""
        return [
            {
                **first,
                "branch": place.branch,
                "place": place.name,
                "arc_mm": place.arc_mm,
                "time_s": float(self.time[k]),
                "pressure_static_mmHg": float(self.pressure_static[k, i]),
                "flow_ml_min": float(self.flow[k, i]),
            }
            for i, place in enumerate(self.places)
            for k in range(len(self.time))
        ]


def series_of(
    places: Sequence[Place],
    period: float,
    pressure: Float[np.ndarray, "k m"],
    flow: Float[np.ndarray, "k m"],
) -> Series:
    """A cycle from samples (Pa, m³/s) at the ends of equal intervals.

    The last sample, at the period, comes first: it is the one at time 0.
    """
    k = len(pressure)
    turned = lambda x: np.concatenate([x, x[:1]])
    first_last = lambda x: turned(np.roll(np.asarray(x, np.float64), 1, axis=0))
    return Series(
        places=tuple(places),
        period=period,
        time=np.linspace(0.0, period, k + 1),
        pressure_static=first_last(pressure) / PA_PER_MMHG,
        flow=first_last(flow) / M3_S_PER_ML_MIN,
    )
