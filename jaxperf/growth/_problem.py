"""What a forest is grown from, and the fingerprint of it."""

import hashlib
import json
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from .._misc import InputError
from ..geometry import VoxelMesh
from ..network import VascularNetwork
from ._forest import refuse_lesions
from ._murray import BranchingLaw

# Distances from the wall's surface are those of its voxels, which must not be plates.
_ANISOTROPY = 1.5


class GrowthProblem(eqx.Module):
    """What a forest is grown from.

    **Arguments:**

    - `network`: the fixed vessels, without lesions, in the frame of `mesh`.
    - `mesh`: the wall. `depth`: (c,) transmural depth of its cells, 0 endocardium to 1 epicardium.
    - `closed`: outlets of the network that carry no tree.
    - `n_terminals`: leaves of the whole forest.
    - `law`: the branching law.
    - `territory_share`: name and share of the flow of each vessel territory; from the calibres
      where left out.
    - `root_spacing`, `root_reach`: m, see [`forest_roots`][jaxperf.growth.forest_roots].
    - `epicardial_fraction`: part of the terminals grown first, as epicardial conduits.
    - `terminal_radius`: m; where left out, the law through the widest inlet gives it.
    - `seed`: of the sites and their order.
    """

    network: VascularNetwork
    mesh: VoxelMesh
    depth: Float[np.ndarray, " c"]
    closed: Int[np.ndarray, " k"] = eqx.field(default_factory=lambda: np.zeros(0, np.int64))
    n_terminals: int = eqx.field(static=True, default=6000)
    law: BranchingLaw = BranchingLaw()
    territory_share: tuple[tuple[str, float], ...] | None = eqx.field(static=True, default=None)
    root_spacing: float = eqx.field(static=True, default=9e-3)
    root_reach: float = eqx.field(static=True, default=8e-3)
    epicardial_fraction: float = eqx.field(static=True, default=0.1)
    terminal_radius: float | None = eqx.field(static=True, default=None)
    seed: int = eqx.field(static=True, default=0)

    def __check_init__(self) -> None:
        refuse_lesions(self.network)
        outlets = np.asarray(self.network.terminals)
        for bad, what, expected in (
            (
                self.depth.shape != (self.mesh.n_cells,) or not np.isfinite(self.depth).all(),
                f"the depth has the shape {self.depth.shape}, or is not finite",
                f"one number for each of the {self.mesh.n_cells} cells of the wall",
            ),
            (
                not np.isin(self.closed, outlets).all(),
                f"the closed outlets are {self.closed.tolist()}",
                "outlets of the network",
            ),
            (self.n_terminals < 1, f"n_terminals is {self.n_terminals}", "at least 1"),
            (not self.root_spacing > 0, f"root_spacing is {self.root_spacing} m", "above 0"),
            (not self.root_reach >= 0, f"root_reach is {self.root_reach} m", "at least 0"),
            (
                not 0 <= self.epicardial_fraction < 1,
                f"epicardial_fraction is {self.epicardial_fraction}",
                "at least 0 and below 1",
            ),
            (
                self.terminal_radius is not None and not self.terminal_radius > 0,
                f"terminal_radius is {self.terminal_radius} m",
                "above 0",
            ),
            (
                self.mesh.spacing.max() > _ANISOTROPY * self.mesh.spacing.min(),
                f"the voxels of the wall are {1e3 * self.mesh.spacing} mm wide",
                f"sides that differ by less than a factor of {_ANISOTROPY}; resample the labels",
            ),
            (
                self.network.frame != self.mesh.frame,
                f"the network is in {self.network.frame}, the wall in {self.mesh.frame}",
                "one frame",
            ),
        ):
            if bad:
                raise InputError(what, where="growth", expected=expected, fix="Correct it")


def fingerprint(problem: GrowthProblem) -> str:
    """SHA-256 over everything a forest depends on: vessels, wall and settings.

    Lengths count to a nanometre and depths to a millionth, so that the last bits, in which
    machines differ, do not.
    """
    network, mesh = problem.network, problem.mesh
    digest = hashlib.sha256()
    for array in (
        network.node_position,
        network.segment_node,
        network.radius,
        network.length,
        network.branch,
        network.topology.root,
        mesh.cell_ijk,
        mesh.affine,
        problem.depth,
        np.unique(problem.closed).astype(np.int64),
    ):
        value = np.asarray(array)
        if value.dtype.kind == "f":
            # adding zero makes one of both zeros
            value = np.round(value.astype(np.float64), 6 if array is problem.depth else 9) + 0.0
        digest.update(f"{value.dtype}{value.shape}".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    digest.update(json.dumps(settings_of(problem), sort_keys=True).encode())
    return digest.hexdigest()


def settings_of(problem: GrowthProblem) -> dict[str, Any]:
    """The settings of a problem, as the forest's file keeps them."""
    law = problem.law
    return {
        "n_terminals": problem.n_terminals,
        "exponent_small": law.exponent_small,
        "exponent_large": law.exponent_large,
        "radius_small_m": law.radius_small,
        "radius_large_m": law.radius_large,
        "territory_share": problem.territory_share,
        "root_spacing_m": problem.root_spacing,
        "root_reach_m": problem.root_reach,
        "epicardial_fraction": problem.epicardial_fraction,
        "terminal_radius_m": problem.terminal_radius,
        "seed": problem.seed,
        "branch_name": problem.network.branch_name,
    }
