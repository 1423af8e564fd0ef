"""What is seen of a heart in several states, as one pytree."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._padding import is_real
from ..coupling import PerfusionProblem, PerfusionSolution
from ._perfusion import segment_means
from ._reserve import coronary_flow_reserve, fractional_flow_reserve


class Observations(eqx.Module):
    """A heart in its states, each a mapping from the state's name.

    **Attributes:**

    - `pressure_aortic`: Pa, the mean total pressure at the roots of the network.
    - `flow` (s,): m³/s in each segment.
    - `pressure_ratio` (s, 2): static over aortic pressure at both ends of each segment; FFR where
      the state is hyperemia.
    - `mbf` (c,): m³/(s·kg) in each control volume; `mbf_segment` (17,): means of the AHA segments.
    """

    pressure_aortic: dict[str, Float[Array, ""]]
    flow: dict[str, Float[Array, " s"]]
    pressure_ratio: dict[str, Float[Array, "s 2"]]
    mbf: dict[str, Float[Array, " c"]]
    mbf_segment: dict[str, Float[Array, "17"]]

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the states."""
        return tuple(self.flow)

    def flow_reserve(self, rest: str = "rest", hyperemia: str = "hyperemia") -> Float[Array, "17"]:
        """Flow reserve of the AHA segments between two states, without unit."""
        return coronary_flow_reserve(self.mbf_segment[rest], self.mbf_segment[hyperemia])


def observe(
    problem: PerfusionProblem,
    solutions: Mapping[str, PerfusionSolution],
    segment: Int[Array, " c"] | Int[np.ndarray, " c"],
) -> Observations:
    r"""Pressures, flows and perfusion of one heart in its states; it solves nothing.

    With the roots $r$ of the network and the control volumes $c$ of segment $k$,

    $$p_a = \tfrac1R\sum_r p^0_r,\qquad
    \mathrm{FFR} = p/p_a,\qquad F_k = \sum_{c\in k} V_cF_c\Big/\sum_{c\in k} V_c.$$

    Everything may be traced, so a fit can differentiate through it.

    **Arguments:**

    - `problem`: the heart; states may differ in anything but its shapes.
    - `solutions`: the name of each state and its solution.
    - `segment`: (c,) AHA segment of each control volume, from 1 to 17; others count nowhere.

    **Returns:** [`Observations`][], by the name of the state.

    **Errors:** none of its own; NaN of a failed solve stays NaN.

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
    states = {"hyperemia": jp.solve_perfusion(problem)}
    seen = observe.observe(problem, states, segment)
    print(seen.mbf_segment["hyperemia"])  # m³/(s·kg)
    ```
    """
    volume = problem.tissue.volume
    ends = problem.network.segment_node
    is_root = jnp.ones(problem.network.n_nodes, volume.dtype).at[ends[:, 1]].set(0.0)
    real = problem.network.real
    if real is not None:
        is_root = is_root * is_real(real.node, problem.network.n_nodes).astype(volume.dtype)
    n_roots = jnp.sum(is_root)
    aortic, ratio = {}, {}
    for name, solution in solutions.items():
        aortic[name] = jnp.sum(is_root * solution.pressure_total) / n_roots
        ratio[name] = fractional_flow_reserve(solution.pressure_static, aortic[name])
    return Observations(
        pressure_aortic=aortic,
        flow={name: s.flow for name, s in solutions.items()},
        pressure_ratio=ratio,
        mbf={name: s.mbf for name, s in solutions.items()},
        mbf_segment={n: segment_means(s.mbf, volume, segment) for n, s in solutions.items()},
    )
