"""The composite case: a real left coronary tree, another subject's ventricle, a synthetic rest.

The left tree and the ventricle are reference data (two different subjects). The right coronary
artery with its posterior descending and posterolateral branches is drawn here and synthetic, and
so is the forest.
"""

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from jaxperf._units import M_PER_MM, PA_PER_MMHG
from jaxperf.coupling import Microcirculation, perfused_tissue, PerfusionProblem
from jaxperf.geometry import build_voxel_mesh, lv_frame_from_labels, terminal_regions
from jaxperf.io import read_swc, read_tets, read_voxel_labels
from jaxperf.network import branch_course, build_network, declare_lesion, PressureBoundary

from ._forest import grow_forest, sample_terminals, share_terminals

AORTIC_MMHG = 93.0
TERRITORY = ("LAD", "LCx", "RCA")
# Share of the left ventricle in a right-dominant heart.
SHARE = np.array([0.45, 0.28, 0.27])
LESION = {"branch": "LAD", "start_mm": 7.0, "end_mm": 17.0}
_BRANCHES = {
    2: "LM",
    "branch 0": "LAD",
    "branch 1": "LCx",
    "branch 2": "D1",
    "branch 3": "OM1",
    "branch 4": "OM2",
    "branch 5": "OM3",
}
_TERRITORY_OF = {"LAD": 0, "D1": 0, "LCx": 1, "OM1": 1, "OM2": 1, "OM3": 1}
_TERRITORY_OF |= {"PDA (synthetic)": 2, "PL (synthetic)": 2}
# A vessel gives roots to the forest where it runs this near the wall, this far apart.
_NEAR, _APART = 6.5e-3, 9.5e-3
_LEFT_MAIN_RADIUS = 2.25e-3


class MissingData(Exception):
    """The reference data are not there."""


@dataclass(frozen=True)
class Composite:
    """A problem, its mesh and the territory of every terminal."""

    problem: PerfusionProblem
    mesh: object
    terminal_territory: np.ndarray
    lesion_segment: np.ndarray
    description: str


def reference_data(data: Path) -> Path:
    """The folder of reference data, or [`MissingData`][] that says what is missing."""
    for name in ("composite/tree_registered.swc", "lv_patient/heart_labels.nii.gz"):
        if not (data / name).is_file():
            raise MissingData(
                f"{data / name} is not there. This benchmark measures the composite case and "
                "needs the reference data: name their folder with --data or JAXPERF_DATA."
            )
    return data


def voxel_wall(data: Path, coarsen: int):
    """The wall's voxels at 1.25 mm, or every `coarsen`-th of them along each axis."""
    fine = read_voxel_labels(
        data / "lv_patient" / "heart_labels.nii.gz",
        label=1,
        cavity_label=2,
        rv_label=3,
        frame="LPS",
        largest_piece=True,
    )
    if coarsen == 1:
        return fine
    affine = fine.affine.copy()
    affine[:3, :3] *= coarsen
    label = fine.label[::coarsen, ::coarsen, ::coarsen]
    return build_voxel_mesh(label, affine, frame="LPS", largest_piece=True, where="coarsened wall")


def tet_wall(data: Path):
    """The wall's tetrahedra."""
    return read_tets(data / "lv_patient" / "lv_wall_tet.vtu", units="mm", frame="LPS")


def left_tree(data: Path):
    """The segmented left coronary tree in the ventricle's frame."""
    path = data / "composite" / "tree_registered.swc"
    return read_swc(path, units="mm", frame="LPS", branch_name=_BRANCHES)


def synthetic_right(wall, spacing: float = 5e-3) -> dict[str, np.ndarray]:
    """Courses (m) of a right coronary artery and its two branches that reach the left ventricle.

    The PDA follows the posterior interventricular groove and the PL the AV groove, both as the
    outermost wall at an angle about the long axis; the RCA is an arc about the base.
    """
    frame = lv_frame_from_labels(wall)
    angle, height = frame.angle(wall.centre), frame.height(wall.centre)
    reach = np.linalg.norm(frame.radial(wall.centre), axis=1)
    n_near = int(np.ceil(4e-7 / wall.volume[0]))

    def at(theta: float, h: float, outside: float) -> np.ndarray:
        turned = np.abs(np.angle(np.exp(1j * (angle - theta)))) * 30e-3
        near = np.argsort(turned**2 + (height - h) ** 2, kind="stable")[:n_near]
        radial = np.cos(theta) * frame.septal + np.sin(theta) * frame.anterior
        return frame.apex + h * frame.long_axis + (reach[near].max() + outside) * radial

    crux = np.deg2rad(-62.0)
    base = height[np.abs(angle - crux) < 0.2].max() - 4e-3
    descent = np.arange(base, 0.18 * frame.length, -spacing)
    pda = np.stack([at(crux, h, 2e-3) for h in descent])
    turn = np.deg2rad(np.arange(-68.0, -130.0, -7.0))
    pl = np.stack([pda[0], *(at(theta, base, 2e-3) for theta in turn)])
    groove = np.deg2rad(np.linspace(60.0, -55.0, 24))
    arc = np.stack([at(theta, base, 25e-3 * np.cos(0.9 * theta)) for theta in groove])
    return {
        "RCA (synthetic)": np.vstack([arc, pda[:1]]),
        "PDA (synthetic)": pda,
        "PL (synthetic)": pl,
    }


# Radii (m) at the two ends of the synthetic courses.
_RIGHT_RADIUS = {
    "RCA (synthetic)": (1.95e-3, 1.6e-3),
    "PDA (synthetic)": (1.25e-3, 0.6e-3),
    "PL (synthetic)": (1.15e-3, 0.7e-3),
}


def _with_right(left, courses):
    """Left tree and right courses as one network with two roots."""
    position, segment = [np.asarray(left.node_position)], [np.asarray(left.segment_node)]
    radius, branch = [np.asarray(left.radius)], [np.asarray(left.branch)]
    names, count, crux = list(left.branch_name), left.n_nodes, -1
    for name, point in courses.items():
        fresh = point if crux < 0 else point[1:]
        node = count + np.arange(len(fresh))
        chain = node if crux < 0 else np.concatenate([[crux], node])
        ends = np.linspace(*_RIGHT_RADIUS[name], len(chain))
        position.append(fresh)
        segment.append(np.stack([chain[:-1], chain[1:]], axis=1))
        radius.append(np.stack([ends[:-1], ends[1:]], axis=1))
        branch.append(np.full(len(chain) - 1, len(names)))
        names.append(name)
        count += len(fresh)
        crux = int(node[-1]) if crux < 0 else crux
    return build_network(
        np.concatenate(position),
        np.concatenate(segment),
        np.concatenate(radius),
        root=np.array([int(left.roots[0]), left.n_nodes]),
        frame=left.frame,
        branch=np.concatenate(branch),
        branch_name=tuple(names),
        where="composite tree",
    )


def _attachments(network, wall) -> tuple[np.ndarray, np.ndarray]:
    """Nodes that feed the forest, and their territories: every outlet, and side roots."""
    position = np.asarray(network.node_position)
    away = KDTree(wall.centre).query(position)[0]
    outlets = set(np.asarray(network.terminals).tolist())
    low, high = LESION["start_mm"] * M_PER_MM, LESION["end_mm"] * M_PER_MM
    node, territory = [], []
    for name, t in _TERRITORY_OF.items():
        course, start = branch_course(network, name)
        distal = np.asarray(network.segment_node)[course, 1]
        arc = start + np.asarray(network.length)[course]
        last = -np.inf
        for n, s in zip(distal.tolist(), arc.tolist(), strict=True):
            inside = name == LESION["branch"] and low - 1e-3 < s < high + 1e-3
            side = away[n] < _NEAR and s - last > _APART and arc[-1] - s > 0.5 * _APART
            if n in outlets or (side and not inside):
                node.append(n)
                territory.append(t)
                last = s
    return np.array(node), np.array(territory)


def _joined(network, forest, territory):
    """The network with a forest; its vessels are branches of their own."""
    names = [*network.branch_name, *(f"forest of the {t} (synthetic)" for t in TERRITORY)]
    first = len(network.branch_name)
    return build_network(
        np.concatenate([np.asarray(network.node_position), forest.position]),
        np.concatenate([np.asarray(network.segment_node), forest.segment]),
        np.concatenate([np.asarray(network.radius), np.repeat(forest.radius[:, None], 2, axis=1)]),
        root=np.asarray(network.roots),
        frame=network.frame,
        length=np.concatenate([np.asarray(network.length), forest.length]),
        branch=np.concatenate([np.asarray(network.branch), first + territory[forest.owner]]),
        branch_name=tuple(names),
        where="composite tree with forest",
    )


def composite_case(
    data: Path,
    *,
    n_terminals: int,
    coarsen: int = 1,
    tetrahedra: bool = False,
    exponent: float = 2.55,
    seed: int = 0,
) -> Composite:
    """Build the composite; `n_terminals` 0 leaves the segmented outlets as terminals."""
    wall = voxel_wall(data, coarsen)
    mesh = tet_wall(data) if tetrahedra else wall
    network = _with_right(left_tree(data), synthetic_right(wall))
    node, territory = _attachments(network, wall)
    if n_terminals:
        rng = np.random.default_rng(seed)
        point = sample_terminals(wall, n_terminals, rng)
        attachment = np.asarray(network.node_position)[node]
        owner = share_terminals(point, attachment, territory, SHARE)
        left = float(np.mean(territory[owner] < 2)) * n_terminals
        terminal_radius = _LEFT_MAIN_RADIUS / left ** (1.0 / exponent)
        forest = grow_forest(
            point,
            owner,
            attachment,
            node,
            n_existing=network.n_nodes,
            terminal_radius=terminal_radius,
            exponent=exponent,
            rng=rng,
        )
        network = _joined(network, forest, territory)
        terminal, of = forest.terminal, territory[owner]
        radius = np.full(n_terminals, terminal_radius)
        roots = f"{np.unique(owner).size} roots, forest of {n_terminals} terminals"
    else:
        terminal = np.asarray(network.terminals)
        place = {int(n): int(t) for n, t in zip(node, territory, strict=True)}
        of = np.array([place[int(n)] for n in terminal])
        radius = np.full(len(terminal), 5e-4)
        roots = f"{len(terminal)} segmented and synthetic outlets"
    network = declare_lesion(network, **LESION, diameter_reduction=0.0)
    regions = terminal_regions(
        mesh,
        np.asarray(network.node_position)[terminal],
        np.arange(len(terminal)),
        radius,
        len(terminal),
    )
    pressure = np.full(2, AORTIC_MMHG * PA_PER_MMHG)
    problem = PerfusionProblem(
        network,
        perfused_tissue(mesh, regions, terminal),
        (PressureBoundary(network.roots, jnp.asarray(pressure)),),
        Microcirculation(1.7e-6, 8.7e-6),
    )
    cells = "tetrahedron vertices" if tetrahedra else "voxels"
    about = f"{roots}, {network.n_segments} segments, {mesh.n_cells} {cells}"
    return Composite(problem, mesh, of, np.asarray(network.lesion.segment), about)
