"""What a perfused ventricle consists of."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .._custom_types import as_leaf, float_leaf, Parameter
from .._misc import InputError, is_traced
from ..darcy import (
    check_permeability,
    darcy_mesh,
    TetDarcyMesh,
    VoxelDarcyMesh,
    VoxelTensorDarcyMesh,
)
from ..geometry import Regions, TetMesh, VoxelMesh
from ..network import check_boundary, Held, VascularNetwork
from ..steady import Boundary
from ..vessel import AbstractWall, Blood, RigidWall


class Tissue(eqx.Module):
    """The wall as control volumes, and which terminal perfuses what of each.

    **Attributes:** `mesh`, the prepared Darcy mesh; pairs k of a control volume `cell` and the
    terminal region `terminal` that overlap in `overlap` m³; `terminal_node` (t,), the network
    node of each terminal; `density` kg/m³. Pairs are sorted by `cell`.
    """

    mesh: VoxelDarcyMesh | VoxelTensorDarcyMesh | TetDarcyMesh
    cell: Int[Array, " k"]
    terminal: Int[Array, " k"]
    overlap: Float[Array, " k"]
    terminal_node: Int[Array, " t"]
    density: Parameter = eqx.field(default=1050.0, converter=float_leaf)

    @property
    def n_cells(self) -> int:
        return self.mesh.graph.n_cells

    @property
    def n_terminals(self) -> int:
        return self.terminal_node.shape[0]

    @property
    def volume(self) -> Float[Array, " c"]:
        return self.mesh.graph.volume

    @property
    def terminal_volume(self) -> Float[Array, " t"]:
        """Volume of each terminal region, m³."""
        return _terminal_volume(self)

    def to_terminals(self, values: Float[Array, " k"]) -> Float[Array, " t"]:
        """Sum over the control volumes that a terminal region overlaps."""
        return jax.ops.segment_sum(values, self.terminal, self.n_terminals)

    def to_cells(self, values: Float[Array, " k"]) -> Float[Array, " c"]:
        """Sum over the terminal regions that overlap a control volume."""
        return jax.ops.segment_sum(values, self.cell, self.n_cells, indices_are_sorted=True)


@eqx.filter_jit
def _terminal_volume(tissue: Tissue) -> Float[Array, " t"]:
    return tissue.to_terminals(tissue.overlap)


def perfused_tissue(
    mesh: VoxelMesh | TetMesh,
    regions: Regions,
    terminal_node: Int[np.ndarray, " t"],
    *,
    density: float = 1050.0,
    full_tensor: bool = False,
) -> Tissue:
    """Join a mesh and its terminal regions to the nodes of a network; runs on the host.

    **Arguments:** `full_tensor`, whether voxels take permeability tensors in any axes; see
    [`jaxperf.darcy.darcy_mesh`][].

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    mesh, _, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree = jp.anatomy.demo_tree(lv)
    terminal = np.asarray(tree.terminals)
    site = jp.anatomy.terminal_sites(tree, terminal, 0.02)
    regions = jp.geometry.terminal_regions(mesh, *site, len(terminal))
    tissue = jp.perfused_tissue(mesh, regions, terminal)
    ```
    """
    if len(terminal_node) != regions.n_terminals:
        raise InputError(
            f"{len(terminal_node)} terminal nodes are given for {regions.n_terminals} regions",
            where="terminal_node",
            expected="one node for each region",
            fix="Build the regions from the positions of these terminals",
        )
    return Tissue(
        mesh=darcy_mesh(mesh, full_tensor=True) if full_tensor else darcy_mesh(mesh),
        cell=as_leaf(regions.cell, np.int32),
        terminal=as_leaf(regions.terminal, np.int32),
        overlap=as_leaf(regions.volume),
        terminal_node=as_leaf(terminal_node, np.int32),
        density=density,
    )


class Microcirculation(eqx.Module):
    r"""Conductances of the single-compartment bed.

    $$\nabla\cdot u + (\beta_{src}+\beta_{snk})\,p = \beta_{src}p_T + \beta_{snk}p_{snk},\qquad
    u = -K\nabla p$$

    **Attributes:**

    - `beta_source`, `beta_sink`: 1/(Pa·s), for the whole wall or (c,) for each control volume.
    - `permeability`: the mobility K, m²/(Pa·s), in any form `jaxperf.darcy` takes: permeability in
      m² over the viscosity of blood in Pa·s.
    - `pressure_sink`: venous pressure, Pa.
    - `dilation`: factor on both β, for the whole wall or (t,) for each terminal region; 1 at
      rest. Where the bed regulates itself the dilation is part of the solution instead.
    """

    beta_source: Parameter = eqx.field(converter=float_leaf)
    beta_sink: Parameter = eqx.field(converter=float_leaf)
    permeability: Parameter = eqx.field(default=2e-9, converter=float_leaf)
    pressure_sink: Parameter = eqx.field(default=0.0, converter=float_leaf)
    dilation: Parameter = eqx.field(default=1.0, converter=float_leaf)


class Autoregulation(eqx.Module):
    r"""Terminal regions dilate to hold their flow, as far as their reserve reaches.

    With $u_i$ the flow region i would take undilated at the present pressures, holding the target
    $q_i$ needs the dilation $q_i/u_i$. The dilation follows that need between two smooth limits,

    $$f_i = \Big(f_{min}^n + \big[(u_i/q_i)_+^n + f_{max}^{-n}\big]^{-1}\Big)^{1/n},$$

    so the flow is held where the need lies inside the range, and the reserve is exhausted at
    $f_{max}$, also where the flow would reverse ($u_i \le 0$). A region may constrict below 1, as
    coronary vessels do above their resting pressure. At n = 8 a need of half the reserve is met
    to 0.05 %, one of 80 % to 2 % and one of the whole reserve to 8 %.

    **Attributes:** `flow_target` (t,) m³/s, positive; `dilation_max`, the vasodilatory reserve;
    `dilation_min`; `sharpness`, n.
    """

    flow_target: Float[Array, " t"]
    dilation_max: Parameter = eqx.field(converter=float_leaf)
    dilation_min: Parameter = eqx.field(default=0.4, converter=float_leaf)
    sharpness: int = eqx.field(static=True, default=8)

    def __check_init__(self) -> None:
        target = self.flow_target
        if not is_traced(target) and not (np.asarray(target) > 0).all():
            bad = int(np.flatnonzero(~(np.asarray(target) > 0))[0])
            raise InputError(
                f"flow_target of terminal {bad} is {np.asarray(target)[bad]}",
                where="autoregulation",
                expected="a positive flow in m3/s",
                fix="Give every terminal region a target",
            )

    def dilation(self, undilated_flow: Float[Array, " t"]) -> Float[Array, " t"]:
        """Dilation of each terminal region from the flow it would take undilated."""
        n = self.sharpness
        # Beyond 1000 times the target the law is flat, and its powers would leave float32.
        share = jnp.clip(undilated_flow / self.flow_target, 0.0, 1e3)
        open_part = 1.0 / (share**n + self.dilation_max ** (-n))
        return (self.dilation_min**n + open_part) ** (1.0 / n)


class PerfusionProblem(eqx.Module):
    """A coronary network that perfuses a ventricular wall.

    **Attributes:** see the parts. `boundary` holds the inlet and any outlet that leaves the
    network elsewhere than into the tissue. `autoregulation` is `None` where the dilation is
    given (hyperemia).
    """

    network: VascularNetwork
    tissue: Tissue
    boundary: Boundary
    microcirculation: Microcirculation
    autoregulation: Autoregulation | None = None
    blood: Blood = eqx.field(default_factory=Blood)
    wall: AbstractWall = eqx.field(default_factory=RigidWall)

    def __check_init__(self) -> None:
        check_boundary(self.network, self.boundary)
        terminal, permeability = self.tissue.terminal_node, self.microcirculation.permeability
        if not is_traced(terminal):
            self._check_terminals(np.asarray(terminal))
        if not is_traced(permeability):
            check_permeability(self.tissue.mesh, np.asarray(permeability), "permeability")

    def _check_terminals(self, terminal: np.ndarray) -> None:
        held = [b.node for b in self.boundary if isinstance(b.form(), Held)]
        fixed = [n for n in held if not is_traced(n)]
        bad = (terminal < 0) | (terminal >= self.network.n_nodes)
        bad = bad | np.isin(terminal, np.concatenate([np.zeros(0, np.int32), *fixed]))
        if bad.any():
            raise InputError(
                f"terminal_node is {terminal[bad][0]}",
                where="tissue",
                expected=f"a node from 0 to {self.network.n_nodes - 1} without a prescribed "
                "pressure",
                fix="Let the tissue be perfused by the network's terminals",
            )
