"""Each branch in one line."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._custom_types import ScalarLike
from ..network import VascularNetwork
from ._reserve import fractional_flow_reserve


class BranchSummary(eqx.Module):
    """Each branch in one line; see [`branch_summary`][]."""

    flow: Float[Array, " b"]
    ffr_min: Float[Array, " b"]
    length: Float[Array, " b"]
    radius_min: Float[Array, " b"]
    radius_max: Float[Array, " b"]
    branch_name: tuple[str, ...] = eqx.field(static=True)


def branch_summary(
    network: VascularNetwork,
    flow: Float[Array, " s"],
    pressure_static: Float[Array, "s 2"],
    pressure_aortic: ScalarLike,
) -> BranchSummary:
    """Flow, lowest pressure ratio and size of every branch of a network.

    Everything may be traced, the network too.

    **Arguments:**

    - `flow`: (s,) m³/s, positive from the proximal to the distal end.
    - `pressure_static`: (s, 2) Pa; `pressure_aortic`: Pa.

    **Returns:** over the branches `b` in the order of `branch_name`:

    - `flow`: m³/s, the sum over the segments in which the branch begins;
    - `ffr_min`: the smallest static over aortic pressure in it;
    - `length`: m, the sum over its segments; `radius_min`, `radius_max`: m, declared lesions count
      by their reference radius.

    A branch without segments has no flow and no length, and NaN for the rest.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    n = len(tree.terminals)
    outlet = jp.ResistanceOutlet(tree.terminals, np.full(n, 5e10), np.full(n, 2e3))
    flow = jp.solve_steady(jp.SteadyProblem(tree, (inlet, outlet)))
    branches = jp.observe.branch_summary(tree, flow.flow, flow.pressure_static, 12400.0)
    print(dict(zip(tree.branch_name, branches.ffr_min, strict=True)))
    ```
    """
    ratio = fractional_flow_reserve(pressure_static, pressure_aortic)
    return _summary(network, flow, ratio)


@eqx.filter_jit
def _summary(
    network: VascularNetwork,
    flow: Float[Array, " s"],
    ratio: Float[Array, "s 2"],
) -> BranchSummary:
    n_branches = len(network.branch_name)
    branch = network.branch
    filled = jax.ops.segment_sum(jnp.ones_like(network.length), branch, n_branches) > 0.0

    def known(values: Float[Array, " b"]) -> Float[Array, " b"]:
        return jnp.where(filled, values, jnp.nan)

    radius = network.radius
    return BranchSummary(
        flow=jax.ops.segment_sum(jnp.where(_begins(network), flow, 0.0), branch, n_branches),
        ffr_min=known(jax.ops.segment_min(jnp.min(ratio, axis=1), branch, n_branches)),
        length=jax.ops.segment_sum(network.length, branch, n_branches),
        radius_min=known(jax.ops.segment_min(jnp.min(radius, axis=1), branch, n_branches)),
        radius_max=known(jax.ops.segment_max(jnp.max(radius, axis=1), branch, n_branches)),
        branch_name=network.branch_name,
    )


def _begins(network: VascularNetwork) -> Bool[Array, " s"]:
    """The segments that no segment of their own branch feeds.

    Places are pairs of a node and a branch. Sorted, equal ones lie together: no number of a pair
    is needed, which 32 bits may not hold.
    """
    n = network.n_segments
    node = jnp.concatenate([network.segment_node[:, 1], network.segment_node[:, 0]])
    branch = jnp.concatenate([network.branch, network.branch])
    order = jnp.lexsort((branch, node))
    node, branch = node[order], branch[order]
    new = (node[1:] != node[:-1]) | (branch[1:] != branch[:-1])
    place = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(new, dtype=jnp.int32)])
    place = jnp.zeros(2 * n, jnp.int32).at[order].set(place)
    is_fed = jnp.zeros(2 * n, bool).at[place[:n]].set(True)
    return ~is_fed[place[n:]]
