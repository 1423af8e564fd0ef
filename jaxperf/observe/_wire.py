"""What a pressure wire and a flow probe measure in the vessels."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, ScalarLike
from .._misc import InputError
from ..coupling import PerfusionProblem
from ..network import branch_course, parent_segment, VascularNetwork, vessel_territories
from ..units import M3_S_PER_ML_MIN, M_PER_MM
from ._observe import Observations
from ._reserve import fractional_flow_reserve


class PressureWire(eqx.Module):
    """A pressure sensor at a place of a vessel; see [`jaxperf.observe.pressure_wire`][].

    **Attributes:** `segment`, and `fraction` of its length from its proximal end.
    """

    segment: Int[Array, ""]
    fraction: Float[Array, ""]

    def __call__(self, observations: Observations, state: str = "hyperemia") -> Float[Array, ""]:
        """Static over aortic pressure at the sensor; FFR where the state is hyperemia.

        **Errors:** [`InputError`][] for a state that was not observed.
        """
        return self._between(_of_state(observations.pressure_ratio, state))

    def ratio(
        self, pressure_static: Float[Array, "s 2"], pressure_aortic: ScalarLike
    ) -> Float[Array, ""]:
        """The same from the pressures (Pa) at the ends of the segments and in the aorta."""
        return self._between(fractional_flow_reserve(pressure_static, pressure_aortic))

    def _between(self, ends: Float[Array, "s 2"]) -> Float[Array, ""]:
        proximal, distal = ends[self.segment]
        fraction = self.fraction.astype(ends.dtype)
        return (1.0 - fraction) * proximal + fraction * distal


def pressure_wire(network: VascularNetwork, branch: str, at_mm: float) -> PressureWire:
    """A pressure wire in a vessel.

    The place is found on the host. Pressure is taken as linear within a segment, also in one that
    lies in a lesion.

    **Arguments:**

    - `branch`: the branch's name.
    - `at_mm`: distance of the sensor from the branch's proximal end along its course, mm.

    **Returns:** a [`PressureWire`][], a function of [`Observations`][] and the state.

    **Errors:** those of `VascularNetwork.at`: an unknown branch, one that divides, a distance that
    does not lie on it.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    from jaxperf import observe
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree, segment = jp.anatomy.demo_tree(lv), jp.geometry.aha17(mesh.centre, frame)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    bed = jp.Microcirculation(1.7e-6, 8.7e-6, 2e-9, 2000.0, 1.0)
    problem = jp.PerfusionProblem(tree, jp.perfused_tissue(mesh, regions, terminal), (inlet,), bed)
    wire = observe.pressure_wire(tree, "LAD", at_mm=60.0)
    ffr = wire(observe.observe(problem, {"hyperemia": jp.solve_perfusion(problem)}, segment))
    ```
    """
    place = network.at(branch, mm=at_mm)
    return PressureWire(as_leaf(place.segment, np.int32), as_leaf(place.fraction, float))


class PullBack(eqx.Module):
    """A pressure wire drawn back through a vessel; see [`jaxperf.observe.pull_back`][].

    **Attributes:** over the segments `b` from the proximal end:

    - `segment`: the segments' indices in the network.
    - `arc` (b, 2): the distance (m) of the two ends of each. Where two segments meet they have one
      distance and, where the radius steps or a side branch leaves, two pressures.
    - `begins`: the distance (m) at which the named branch begins.
    """

    segment: Int[Array, " b"]
    arc: Float[Array, "b 2"]
    begins: Float[Array, ""]

    @property
    def arc_mm(self) -> Float[Array, "b 2"]:
        """The distances in mm."""
        return self.arc / M_PER_MM

    def __call__(self, observations: Observations, state: str = "hyperemia") -> Float[Array, "b 2"]:
        """Static over aortic pressure along the vessel.

        **Errors:** [`InputError`][] for a state that was not observed.
        """
        return _of_state(observations.pressure_ratio, state)[self.segment]

    def ratio(
        self, pressure_static: Float[Array, "s 2"], pressure_aortic: ScalarLike
    ) -> Float[Array, "b 2"]:
        """The same from the pressures (Pa) at the ends of the segments and in the aorta."""
        return fractional_flow_reserve(pressure_static[self.segment], pressure_aortic)


def pull_back(network: VascularNetwork, branch: str, *, from_root: bool = False) -> PullBack:
    """A pressure wire drawn back from the end of a branch.

    The course is found on the host; pressures may be traced.

    **Arguments:**

    - `branch`: the branch's name.
    - `from_root`: begin at the root that feeds the branch, and not where the branch does.

    **Returns:** a [`PullBack`][], a function of [`Observations`][] and the state.

    **Errors:** [`InputError`][] for an unknown branch and for one that divides.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    from jaxperf import observe
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree, segment = jp.anatomy.demo_tree(lv), jp.geometry.aha17(mesh.centre, frame)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    bed = jp.Microcirculation(1.7e-6, 8.7e-6, 2e-9, 2000.0, 1.0)
    problem = jp.PerfusionProblem(tree, jp.perfused_tissue(mesh, regions, terminal), (inlet,), bed)
    draw = observe.pull_back(tree, "LAD")
    seen = observe.observe(problem, {"hyperemia": jp.solve_perfusion(problem)}, segment)
    distance_mm, ratio = draw.arc_mm, draw(seen, "hyperemia")
    ```
    """
    course, _ = branch_course(network, branch)
    into, node = parent_segment(network), np.asarray(network.segment_node)
    before, at = [], int(node[course[0], 0])
    while from_root and into[at] >= 0:
        before.append(int(into[at]))
        at = int(node[into[at], 0])
    way = np.concatenate([np.array(before[::-1], np.int64), course])
    length = np.asarray(network.length)[way]
    end = np.cumsum(length)
    arc = np.stack([end - length, end], axis=1)
    return PullBack(as_leaf(way, np.int32), as_leaf(arc), as_leaf(arc[len(before), 0]))


class TerritoryFlow(eqx.Module):
    """The flow into a vessel territory; see [`jaxperf.observe.territory_flow`][].

    **Attributes:** `segment` (t,), the segments that lead to its terminals.
    """

    segment: Int[Array, " t"]

    def __call__(self, observations: Observations, state: str = "hyperemia") -> Float[Array, ""]:
        """Flow in ml/min.

        **Errors:** [`InputError`][] for a state that was not observed.
        """
        flow = _of_state(observations.flow, state)
        return jnp.sum(flow[self.segment]) / M3_S_PER_ML_MIN


def territory_flow(problem: PerfusionProblem, territory: str) -> TerritoryFlow:
    """The flow that the terminals of a vessel territory give to the tissue.

    **Arguments:**

    - `problem`: the heart; its network may be a forest.
    - `territory`: the name of a vessel territory, as
      [`jaxperf.network.vessel_territories`][] names those of the tissue's terminals.

    **Returns:** a [`TerritoryFlow`][], a function of [`Observations`][] and the state, in ml/min.

    **Errors:** [`InputError`][] for a territory that the heart does not have.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    from jaxperf import observe
    mesh, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree, segment = jp.anatomy.demo_tree(lv), jp.geometry.aha17(mesh.centre, frame)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    bed = jp.Microcirculation(1.7e-6, 8.7e-6, 2e-9, 2000.0, 1.0)
    problem = jp.PerfusionProblem(tree, jp.perfused_tissue(mesh, regions, terminal), (inlet,), bed)
    lad = observe.territory_flow(problem, "LAD")
    seen = observe.observe(problem, {"hyperemia": jp.solve_perfusion(problem)}, segment)
    print(lad(seen, "hyperemia"))
    ```
    """
    terminal = np.asarray(problem.tissue.terminal_node).astype(np.int64)
    names, number = vessel_territories(problem.network, terminal)
    if territory not in names:
        raise InputError(
            f"there is no territory {territory!r}",
            where="territory_flow",
            expected=f"one of {', '.join(names)}",
            fix="Use one of these names",
        )
    own = terminal[number == names.index(territory)]
    return TerritoryFlow(as_leaf(parent_segment(problem.network)[own], np.int32))


def _of_state(values: dict[str, Array], state: str) -> Array:
    if state not in values:
        raise InputError(
            f"there is no state {state!r}",
            where="observations",
            expected=f"one of {', '.join(values)}",
            fix="Name a state that was solved",
        )
    return values[state]
