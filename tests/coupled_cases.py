"""Small coupled cases for tests, and the raw arrays of a case for the independent witness."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from scipy_reference import RawCase, tet_conduction, voxel_conduction

from jaxperf.coupling import Microcirculation, perfused_tissue, PerfusionProblem
from jaxperf.geometry import (
    ellipsoid_ventricle,
    terminal_regions,
    tetrahedra_from_voxels,
    VoxelMesh,
)
from jaxperf.network import build_network, declare_lesion, PressureBoundary

AORTIC_PA = 93.0 * 133.322
ML_MIN_G = 1e-3 / 60.0  # in m³/(s·kg)


def small_wall(spacing_mm=5.0, scale=1.0):
    """A truncated ellipsoid in coarse voxels; `scale` shrinks the cavity, not the wall."""
    return ellipsoid_ventricle(
        spacing_mm=spacing_mm,
        endo_short_mm=(24.0 * scale, 24.0 * scale),
        endo_long_mm=62.0 * scale,
        base_height_mm=22.0 * scale,
    )[0]


def small_tree(wall, n_terminals, *, seed=0, reduction=0.7, terminal_radius=(6e-4, 9e-4)):
    """Two vessels from a root, tapered, the first with a lesion; terminals hang on either.

    The terminals are the last `n_terminals` nodes before those that the lesion adds.
    """
    rng = np.random.default_rng(seed)
    top = wall.centre[:, 2].max()
    side = wall.centre[:, 0].max()
    knot = np.array(
        [
            [0, 0, top + 0.03],
            [0, 0, top + 0.01],
            [-side, 0, top],
            [side, 0, top],
            [-side, 0, 0],
            [side, 0, 0],
        ]
    )
    point = wall.centre[rng.choice(wall.n_cells, n_terminals, replace=n_terminals > wall.n_cells)]
    point = point + 1e-3 * (rng.random(point.shape) - 0.5)
    trunk = np.array([[0, 1], [1, 2], [1, 3], [2, 4], [3, 5]])
    trunk_radius = np.array([[2.2, 2.1], [1.8, 1.6], [1.7, 1.5], [1.5, 1.1], [1.4, 1.0]]) * 1e-3
    parent = np.argmin(np.linalg.norm(point[:, None] - knot[None, 2:], axis=2), axis=1) + 2
    twig = np.stack([parent, len(knot) + np.arange(n_terminals)], axis=1)
    distal = rng.uniform(*terminal_radius, n_terminals)
    used = np.isin(np.arange(len(knot)), twig) | (np.arange(len(knot)) < 4)
    kept = used[trunk[:, 1]]
    position = np.concatenate([knot[used], point])
    number = np.cumsum(np.append(used, np.ones(n_terminals, bool))) - 1
    network = build_network(
        position,
        number[np.concatenate([trunk[kept], twig])],
        np.concatenate([trunk_radius[kept], np.stack([distal * 1.2, distal], axis=1)]),
        root=np.array([0]),
        frame=wall.frame,
        branch=np.concatenate([[0, 1, 2, 3, 4], 5 + np.arange(n_terminals)])[
            np.concatenate([kept, np.ones(n_terminals, bool)])
        ],
        branch_name=(
            "stem",
            "left",
            "right",
            "left end",
            "right end",
            *(f"twig {i}" for i in range(n_terminals)),
        ),
    )
    network = declare_lesion(
        network, branch="left", start_mm=4, end_mm=14, diameter_reduction=reduction
    )
    return network, used.sum() + np.arange(n_terminals)


def small_problem(
    *, n_terminals=12, spacing_mm=5.0, scale=1.0, tetrahedra=False, seed=0, **tree
) -> tuple[PerfusionProblem, object]:
    """A problem with lesion, uncalibrated but near its targets, and its mesh."""
    wall = small_wall(spacing_mm, scale)
    network, terminal = small_tree(wall, n_terminals, seed=seed, **tree)
    mesh = tetrahedra_from_voxels(wall) if tetrahedra else wall
    position = np.asarray(network.node_position)[terminal]
    regions = terminal_regions(
        mesh, position, np.arange(n_terminals), np.full(n_terminals, 7e-4), n_terminals
    )
    problem = PerfusionProblem(
        network,
        perfused_tissue(mesh, regions, terminal),
        (PressureBoundary(network.roots, jnp.array([AORTIC_PA])),),
        Microcirculation(1.74e-6, 8.75e-6),
    )
    return problem, mesh


def at_rest(problem, calibration):
    """With the calibrated bed and its autoregulation."""
    return eqx.tree_at(
        lambda p: (p.microcirculation, p.autoregulation),
        problem,
        (calibration.rest, calibration.autoregulation),
        is_leaf=lambda x: x is None,
    )


def unregulated(problem, bed):
    """With a bed of given dilation."""
    return eqx.tree_at(
        lambda p: (p.microcirculation, p.autoregulation),
        problem,
        (bed, None),
        is_leaf=lambda x: x is None,
    )


def with_reduction(problem, reduction):
    """With another diameter reduction in every lesion; shapes and types stay as they are."""
    old = problem.network.lesion.diameter_reduction
    new = jnp.full_like(old, reduction)
    return eqx.tree_at(lambda p: p.network.lesion.diameter_reduction, problem, new)


def raw_case(problem: PerfusionProblem, mesh) -> RawCase:
    """The raw arrays of a problem with rigid walls and scalar permeability."""
    network, tissue, bed = problem.network, problem.tissue, problem.microcirculation
    lesion, regulation = network.lesion, problem.autoregulation
    boundary = problem.boundary[0]
    mobility = float(bed.permeability)
    if isinstance(mesh, VoxelMesh):
        conduction = voxel_conduction(mesh.cell_ijk, mesh.spacing, mobility)
    else:
        conduction = tet_conduction(mesh.point, mesh.tet, mobility)
    of = np.asarray(lesion.lesion)
    calibre = np.asarray(network.radius)[np.asarray(lesion.segment)].mean(axis=1)
    calibre = np.bincount(of, np.asarray(lesion.fraction) * calibre)
    on_cells = lambda x: np.broadcast_to(np.asarray(x), (tissue.n_cells,))
    law = None
    if regulation is not None:
        law = (
            np.asarray(regulation.flow_target),
            float(regulation.dilation_max),
            float(regulation.dilation_min),
            regulation.sharpness,
        )
    return RawCase(
        node_position=np.asarray(network.node_position),
        segment=np.asarray(network.segment_node, np.int64),
        radius=np.asarray(network.radius),
        length=np.asarray(network.length),
        n_nodes=network.n_nodes,
        fixed_node=np.asarray(boundary.node, np.int64),
        fixed_pressure=np.asarray(boundary.pressure),
        lesion_segment=np.asarray(lesion.segment, np.int64),
        lesion_fraction=np.asarray(lesion.fraction),
        lesion_radius=calibre[of],
        lesion_reduction=np.asarray(lesion.diameter_reduction)[of],
        lesion_length=np.asarray(lesion.length)[of],
        viscosity=float(problem.blood.viscosity.viscosity),
        density=float(problem.blood.density),
        profile_exponent=float(problem.blood.profile_exponent),
        centre=np.asarray(mesh.centre),
        volume=np.asarray(mesh.volume),
        conduction=conduction,
        cell=np.asarray(tissue.cell, np.int64),
        terminal=np.asarray(tissue.terminal, np.int64),
        overlap=np.asarray(tissue.overlap),
        terminal_node=np.asarray(tissue.terminal_node, np.int64),
        beta_source=on_cells(bed.beta_source),
        beta_sink=on_cells(bed.beta_sink),
        pressure_sink=float(bed.pressure_sink),
        dilation=np.broadcast_to(np.asarray(bed.dilation), (tissue.n_terminals,)),
        autoregulation=law,
    )


def relative_differences(solution, reference) -> dict[str, float]:
    """max|a − b| / max|b| of every field."""
    pairs = {
        "node pressure": (solution.pressure_total, reference.pressure),
        "segment flow": (solution.flow, reference.flow),
        "tissue pressure": (solution.pressure_tissue, reference.tissue),
        "terminal flow": (solution.terminal_flow, reference.terminal_flow),
        "dilation": (solution.dilation, reference.dilation),
    }
    return {
        name: float(np.max(np.abs(np.asarray(a) - b)) / np.max(np.abs(b)))
        for name, (a, b) in pairs.items()
    }
