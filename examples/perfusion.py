"""Perfusion of an ellipsoidal ventricle by a small tree, and its derivative by a lesion.

Prints flow of the LAD's territory at rest and in hyperemia, FFR, and d(flow)/d(diameter reduction).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import jaxperf as jp
from jaxperf.geometry import ellipsoid_ventricle, terminal_regions
from jaxperf.units import M3_S_KG_PER_ML_MIN_G, PA_PER_MMHG

jax.config.update("jax_enable_x64", True)
jp.enable_compilation_cache()  # a second run need not compile again

# A wall, and a tree that runs down its epicardium: left main, then LAD and LCx.
mesh, frame, ventricle = ellipsoid_ventricle(spacing_mm=5.0)
height = np.linspace(0.95, 0.3, 6)
lad = ventricle.epicardium(np.full(6, np.pi / 2), height, outside=1e-3)
lcx = ventricle.epicardium(np.full(6, np.pi * 1.25), height, outside=1e-3)
main = 0.5 * (lad[0] + lcx[0]) + np.array([0.0, 0.0, 0.02])
node = np.concatenate([main[None] + [[0.0, 0.0, 0.01]], main[None], lad, lcx])
segment = np.array(
    [
        [0, 1],
        [1, 2],
        *([i, i + 1] for i in range(2, 7)),
        [1, 8],
        *([i, i + 1] for i in range(8, 13)),
    ]
)
radius = 1e-3 * np.concatenate([[2.2, 2.2], np.linspace(1.8, 1.2, 6), np.linspace(1.7, 1.2, 6)])
branch = np.array([0] + [1] * 6 + [2] * 6)
tree = jp.build_network(
    node,
    segment,
    radius,
    root=np.array([0]),
    frame="model",
    branch=branch,
    branch_name=("LM", "LAD", "LCx"),
)
tree = jp.declare_lesion(tree, branch="LAD", start_mm=35, end_mm=45, diameter_reduction=0.6)

# Each outlet perfuses the tissue nearest to its branch.
terminal = np.array([tree.outlet("LAD"), tree.outlet("LCx")])
inlet = tree.at("LM", mm=0)
sites = np.concatenate([lad, lcx])
regions = terminal_regions(mesh, sites, np.repeat([0, 1], 6), np.full(12, 1e-3), 2)
problem = jp.PerfusionProblem(
    tree,
    jp.perfused_tissue(mesh, regions, terminal),
    (jp.PressureBoundary(inlet.node, 93 * PA_PER_MMHG),),
    jp.Microcirculation(beta_source=1.7e-6, beta_sink=8.7e-6),
)
distal = tree.at("LAD", mm=80)
bed = jp.calibrate(problem, mbf_rest_ml_min_g=1.0, mbf_hyperemia_ml_min_g=3.5)


def lad_flow(reduction, microcirculation, autoregulation):
    """Flow per gram (ml/min/g) of the LAD's region, and FFR behind the lesion."""
    case = eqx.tree_at(
        lambda p: (p.network.lesion.diameter_reduction, p.microcirculation, p.autoregulation),
        problem,
        (reduction, microcirculation, autoregulation),
        is_leaf=lambda x: x is None,
    )
    solution = jp.solve_perfusion(case)
    mass = problem.tissue.density * problem.tissue.terminal_volume[0]
    static = solution.pressure_static
    ffr = static[distal.segment, distal.end] / static[inlet.segment, inlet.end]
    return solution.terminal_flow[0] / mass / M3_S_KG_PER_ML_MIN_G, ffr


reduction = jnp.array([0.6])
rest, _ = lad_flow(reduction, bed.rest, bed.autoregulation)
(stress, ffr), slope = jax.value_and_grad(lad_flow, has_aux=True)(reduction, bed.hyperemia, None)
print(
    f"LAD: rest {rest:.3f}, hyperemia {stress:.3f} ml/min/g, CFR {stress / rest:.2f}, FFR {ffr:.3f}"
)
print(f"d(hyperemic flow)/d(diameter reduction) = {slope[0]:.3f} ml/min/g")
