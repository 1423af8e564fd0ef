"""The fit of `fit_outlets.py` from PyTorch: its L-BFGS steps through the JAX solver."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import torch

import bridges
import jaxperf as jp

jax.config.update("jax_enable_x64", True)
node = 1e-3 * np.array([[0, 0, 0], [10, 0, 0], [60, 20, 0], [60, -20, 0]])  # m
edge, radius = np.array([[0, 1], [1, 2], [1, 3]]), 1e-3 * np.array([2.2, 2.0, 1.5, 1.4])
names = {"branch": np.arange(3), "branch_name": ("LM", "LAD", "LCx")}
tree = jp.build_network(node, edge, radius, root=np.array([0]), frame="model", **names)
tree = jp.declare_lesion(tree, branch="LAD", start_mm=15, end_mm=25, diameter_reduction=0.6)
outlets = np.array([tree.outlet("LAD"), tree.outlet("LCx")])
bed = jp.ResistanceOutlet(outlets, np.full(2, 4e9), np.full(2, 2e3))
problem, end = jp.SteadyProblem(tree, (jp.PressureBoundary(0, 12400.0), bed)), tree.at("LAD", mm=50)


def heart(problem, severity, resistance):
    """Flow of the tree (ml/min) and FFR at the end of the LAD, by jaxperf."""
    where = lambda p: (p.network.lesion.diameter_reduction, p.boundary[1].resistance)
    flow = jp.solve_steady(eqx.tree_at(where, problem, (severity, resistance)), throw=False)
    static = flow.pressure_static
    ffr = static[end.segment, 1] / static[0, 0]
    return jnp.stack([flow.flow[0] / jp.units.M3_S_PER_ML_MIN, ffr])


seen = bridges.jax_as_torch(heart, problem)
measured, sd = torch.tensor([290.0, 0.72]).double(), torch.tensor([15.0, 0.02]).double()
xi = torch.zeros(3, dtype=torch.float64, requires_grad=True)  # standard-normal coordinates
values = lambda: (
    0.95 * torch.sigmoid(np.log(0.6 / 0.35) + 0.4 * xi[:1]),
    4e9 * torch.exp(0.3 * xi[1:]),
)
optimiser = torch.optim.LBFGS([xi], max_iter=50, line_search_fn="strong_wolfe")


def objective():
    """½‖r‖² + ½‖ξ‖², and its gradient."""
    optimiser.zero_grad()
    residual = (seen(*values()) - measured) / sd
    loss = 0.5 * ((residual**2).sum() + (xi**2).sum())
    loss.backward()
    return loss


optimiser.step(objective)
severity, resistance = (x.detach().numpy() for x in values())
print({"severity": severity, "resistance": resistance})
