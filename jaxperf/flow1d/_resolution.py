"""How well the cells of a run resolve it: what the grid does to mean pressures and to waves."""

from collections import deque
from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, Int

from ._grid import Grid
from ._periodic import PeriodicSolution
from ._problem import Flow1DProblem
from ._semidiscretisation import cell_losses
from ._solve import Flow1DSolution


@dataclass(frozen=True)
class Resolution:
    """What the cells do to the flow, over the vessels v of a grid.

    **Attributes:**

    - `segment`: one of each vessel's segments, for its name; `distal` (s,), the vessel in which
      each segment of the network ends.
    - `flow_variation`: the largest difference between the mean flow of a cell and that through the
      vessel, relative to the mean size of the latter. In a resolved vessel they are one.
    - `pressure_error`: Pa, what these differences make of the mean pressure at the vessel's distal
      end, by friction along the way from the inlet; signed.
    - `inertia`: the factor on the density, above 1 in vessels shorter than a cell, and
      `inertia_pressure`: Pa, the largest pressure that what it adds takes along the way.
    - `travel_time`: s, of a wave through the unloaded vessel.
    """

    segment: Int[np.ndarray, " v"]
    distal: Int[np.ndarray, " s"]
    flow_variation: Float[np.ndarray, " v"]
    pressure_error: Float[np.ndarray, " v"]
    inertia: Float[np.ndarray, " v"]
    inertia_pressure: Float[np.ndarray, " v"]
    travel_time: Float[np.ndarray, " v"]


def resolution(problem: Flow1DProblem, solution: Flow1DSolution | PeriodicSolution) -> Resolution:
    r"""How well the cells of a run resolve it; runs on the host, on a problem that is not padded.

    The means over a cycle of the flows through a vessel's faces are one where the flow repeats
    itself, whatever the grid. The mean flow $\bar Q_i$ of a cell is what its friction acts on; from
    its difference the mean pressure is wrong by

    $$\Delta p = -\sum_i \frac{\rho k_i\Delta x_i}{A_i^2}\,(\bar Q_i-\bar Q).$$

    A vessel shorter than a cell has its inertance enlarged $m$ times, which takes a pressure of up
    to $(m-1)\,\rho\Delta x/A\,\max|\partial_tQ|$ from a wave.

    **Arguments:** `solution`, over the last cycle or a few.

    **Returns:** a [`Resolution`][].

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    vessel = jp.build_network(
        np.array([[0, 0, 0], [0.1, 0, 0]]), np.array([[0, 1]]), np.array([2e-3, 6e-4]),
        root=np.array([0]), frame="model",
    )
    wave = jp.Waveform(np.array([0.0, 0.3, 0.8]), np.array([[1.1e4, 1.5e4, 1.1e4]]), 0.8)
    inlet, outlet = jp.PressureWaveform(0, wave), jp.ResistanceOutlet(1, 2e10, 0.0)
    wall = jp.SqrtAreaWall(jp.OlufsenStiffness(), 12000.0)
    problem = jp.flow1d_problem(vessel, (inlet, outlet), jp.Blood(), wall, cell_time=1e-3)
    beat = jp.solve_periodic(problem, points=jp.SavePoints([0], [0.5]))
    print(jp.flow1d.resolution(problem, beat).pressure_error)
    ```
    """
    grid, record = problem.grid, solution.record
    length, friction = (np.asarray(x, float) for x in _losses(problem))
    area = np.asarray(solution.state.area, float)
    density = float(np.asarray(problem.blood.density))
    first, last = np.asarray(grid.vessel_slot).T
    inertia = np.ones(grid.n_slots) if grid.inertia is None else np.asarray(grid.inertia, float)
    is_cell = np.asarray(grid.is_cell) > 0
    vessel = np.cumsum(np.isin(np.arange(grid.n_slots), first)) - 1
    through = np.asarray(record.flow_face, float)[first]
    size = np.maximum(np.asarray(record.size_face, float)[first], np.finfo(float).tiny)
    wrong = np.where(is_cell, np.asarray(record.flow_cell, float) - through[vessel], 0.0)
    of_vessel = lambda x: np.bincount(vessel[is_cell], x[is_cell], len(first))
    variation = np.zeros(len(first))
    np.maximum.at(variation, vessel[is_cell], np.abs(wrong)[is_cell])
    kept = of_vessel(-density * friction * length / area**2 * wrong)
    held = (inertia - 1.0) * density * length / area * np.asarray(record.flow_rate, float)
    along = _along(grid, kept), _along(grid, of_vessel(held))
    distal = np.zeros(problem.network.n_segments, int)
    # Pieces come in order: the last one of a segment stays.
    distal[np.asarray(grid.piece_segment)] = vessel[np.asarray(grid.piece_slot)]
    return Resolution(
        segment=np.asarray(grid.vessel_segment),
        distal=distal,
        flow_variation=variation / size,
        pressure_error=along[0],
        inertia=inertia[first],
        inertia_pressure=along[1],
        travel_time=float(np.asarray(grid.cell_time))
        * (last - first + 1)
        / np.sqrt(inertia[first]),
    )


@eqx.filter_jit
def _losses(problem: Flow1DProblem) -> tuple[Array, Array]:
    return cell_losses(problem)


def _along(grid: Grid, lost: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    """What is lost in vessels, summed from the inlet of each network to each vessel's distal end.

    Where vessels form loops the way with the fewest vessels counts.
    """
    sign, slot = np.asarray(grid.end_sign), np.asarray(grid.end_slot)
    row, node = np.nonzero(sign)
    vessel = np.searchsorted(np.asarray(grid.vessel_slot)[:, 0], slot[row, node], "right") - 1
    ends = np.zeros((len(lost), 2), int)
    ends[vessel, (sign[row, node] + 1) // 2] = node
    leaving: dict[int, list[int]] = {}
    for v, proximal in enumerate(ends[:, 0].tolist()):
        leaving.setdefault(proximal, []).append(v)
    roots = np.setdiff1d(ends[:, 0], ends[:, 1]).tolist()
    at, total = dict.fromkeys(roots, 0.0), np.zeros(len(lost))
    queue = deque(roots)
    while queue:
        here = queue.popleft()
        for v in leaving.get(here, []):
            total[v] = at[here] + lost[v]
            distal = int(ends[v, 1])
            if distal not in at:
                at[distal] = total[v]
                queue.append(distal)
    return total
