"""The solvers with the networks that come with the package."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxperf.darcy import AbstractDarcyMesh, check_permeability

from ._flux_multigrid import flux_plan, FluxMultigrid, Mode
from ._flux_network import FluxNetwork
from ._message_passing import MessagePassing, MessagePassingNetwork
from ._train import load_network

_TRAINED = Path(__file__).parent / "trained"


def flux_multigrid(
    mesh: AbstractDarcyMesh,
    permeability: Float[Array, "..."] | float = 1.0,
    *,
    network: FluxNetwork | None = None,
    mode: Mode = "exact",
    cycles: int = 4,
    rtol: float | None = None,
    max_steps: int = 500,
    dtype: Any = jnp.float32,
) -> FluxMultigrid:
    """Set up the flux multigrid network for a mesh; runs on the host.

    **Arguments:**

    - `mesh`: from [`jaxperf.darcy.darcy_mesh`][].
    - `permeability`: in any form that `mesh.transmissibility` takes; its pattern shapes the
      aggregates, its size plays no part.
    - `network`: from [`gnn_darcy.load_network`][]; where left out, the one of the package.
    - `mode`, `cycles`, `rtol`, `max_steps`, `dtype`: see [`gnn_darcy.FluxMultigrid`][].

    **Returns:** a [`gnn_darcy.FluxMultigrid`][].

    **Example:**

    ```python
    import gnn_darcy, jaxperf as jp
    mesh = jp.darcy.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    solver = gnn_darcy.flux_multigrid(mesh, 2e-9)
    ```
    """
    used = network or load_network(_TRAINED / "flux_multigrid.eqx", "flux_multigrid")
    plan = flux_plan(mesh, permeability)
    return FluxMultigrid(plan, used, mode, cycles, rtol, max_steps, dtype)


def message_passing(
    mesh: AbstractDarcyMesh,
    permeability: Float[Array, "..."] | float = 1.0,
    *,
    network: MessagePassingNetwork | None = None,
) -> MessagePassing:
    """The message-passing network as a solver; it needs nothing of the mesh but its operator.

    **Arguments:** `network`, from [`gnn_darcy.load_network`][]; where left out, the one of the
    package.

    **Example:**

    ```python
    import gnn_darcy, jaxperf as jp
    mesh = jp.darcy.darcy_mesh(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[0])
    solver = gnn_darcy.message_passing(mesh, 2e-9)
    ```
    """
    check_permeability(mesh, np.asarray(permeability, float), "message_passing: permeability")
    return MessagePassing(
        network or load_network(_TRAINED / "message_passing.eqx", "message_passing")
    )
