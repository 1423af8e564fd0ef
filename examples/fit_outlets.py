"""Two outlet resistances and a lesion, fitted to one FFR and one flow: steady flow in a tree."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxperf as jp
from jaxperf import inverse as inv

jax.config.update("jax_enable_x64", True)
node = 1e-3 * np.array([[0, 0, 0], [10, 0, 0], [60, 20, 0], [60, -20, 0]])  # m
edge, radius = np.array([[0, 1], [1, 2], [1, 3]]), 1e-3 * np.array([2.2, 2.0, 1.5, 1.4])
names = {"branch": np.arange(3), "branch_name": ("LM", "LAD", "LCx")}
tree = jp.build_network(node, edge, radius, root=np.array([0]), frame="model", **names)
tree = jp.declare_lesion(tree, branch="LAD", start_mm=15, end_mm=25, diameter_reduction=0.6)
outlets = np.array([tree.outlet("LAD"), tree.outlet("LCx")])
bed = jp.ResistanceOutlet(outlets, np.full(2, 4e9), np.full(2, 2e3))
problem = jp.SteadyProblem(tree, (jp.PressureBoundary(0, 12400.0), bed))


def heart(values):
    """Flow of the tree (ml/min) and FFR at the end of the LAD."""
    where = lambda p: (p.network.lesion.diameter_reduction, p.boundary[1].resistance)
    new = (values["severity"][None], values["resistance"])
    flow = jp.solve_steady(eqx.tree_at(where, problem, new))
    static, end = flow.pressure_static, tree.at("LAD", mm=50).segment
    return jnp.stack([flow.flow[0] / jp.units.M3_S_PER_ML_MIN, static[end, 1] / static[0, 0]])


noise = inv.GaussianNoise(sd=np.array([15.0, 0.02]))
found = inv.fit(
    inv.InverseProblem(
        inv.PlainModel(heart),
        [
            inv.Parameter("severity", inv.Normal(0.6, 0.4), inv.Interval(low=0.0, high=0.95)),
            inv.Parameter("resistance", inv.Normal(4e9, 0.3), inv.Log(), labels=("LAD", "LCx")),
        ],
        [inv.Measurement("flow, FFR", lambda x: x, np.array([290.0, 0.72]), noise)],
    )
)
print({name: np.asarray(value) for name, value in found.values.items()})
print(*inv.identify(found).blind, sep="\n")
