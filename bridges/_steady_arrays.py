"""The raw arrays of a steady network problem, as the torch reference takes them."""

import jax.numpy as jnp
import torch
from jaxtyping import Array

from jaxperf._custom_types import ParameterLike
from jaxperf._misc import InputError
from jaxperf.network import AbstractBoundary, Fed, Held, JointDrain, VascularNetwork, Waveform
from jaxperf.steady import SteadyProblem
from jaxperf.vessel import (
    AbstractStiffness,
    AbstractViscosity,
    AbstractWall,
    Blood,
    ConstantStiffness,
    ConstantViscosity,
    OlufsenStiffness,
    PriesViscosity,
    RigidWall,
    SqrtAreaWall,
    SvOneDWall,
)

from ._dlpack import jax_to_torch
from .reference import _laws as laws, _steady as steady


def to_tensor(value: ParameterLike) -> torch.Tensor:
    """A tensor of an array, on the CPU; whole numbers as int64, which torch takes as indices."""
    tensor = jax_to_torch(jnp.asarray(value)).cpu()
    return tensor if tensor.is_floating_point() else tensor.to(torch.int64)


def reference_blood(blood: Blood) -> laws.Blood:
    """Density, viscosity and profile for `bridges.reference`."""
    momentum = blood.momentum_coefficient
    return laws.Blood(
        density=to_tensor(blood.density),
        viscosity=_viscosity(blood.viscosity),
        profile_exponent=to_tensor(blood.profile_exponent),
        momentum_coefficient=None if momentum is None else to_tensor(momentum),
    )


def _viscosity(law: AbstractViscosity) -> laws.Viscosity:
    if isinstance(law, ConstantViscosity):
        return laws.ConstantViscosity(to_tensor(law.viscosity))
    if isinstance(law, PriesViscosity):
        return laws.PriesViscosity(to_tensor(law.haematocrit), to_tensor(law.plasma_viscosity))
    raise _unknown(type(law).__name__, "ConstantViscosity or PriesViscosity")


def reference_wall(wall: AbstractWall) -> laws.Wall:
    """The wall law for `bridges.reference`."""
    if isinstance(wall, RigidWall):
        return laws.RigidWall()
    if isinstance(wall, SqrtAreaWall):
        return laws.SqrtAreaWall(
            _stiffness(wall.stiffness),
            to_tensor(wall.pressure_reference),
            to_tensor(wall.pressure_external),
        )
    if isinstance(wall, SvOneDWall):
        return laws.SvOneDWall(_stiffness(wall.stiffness))
    raise _unknown(type(wall).__name__, "RigidWall, SqrtAreaWall or SvOneDWall")


def _stiffness(law: AbstractStiffness) -> laws.Stiffness:
    if isinstance(law, ConstantStiffness):
        return laws.ConstantStiffness(to_tensor(law.Eh_over_r))
    if isinstance(law, OlufsenStiffness):
        return laws.OlufsenStiffness(*(to_tensor(k) for k in (law.k1, law.k2, law.k3)))
    raise _unknown(type(law).__name__, "ConstantStiffness or OlufsenStiffness")


def _unknown(name: str, expected: str) -> InputError:
    return InputError(
        f"the torch reference does not know {name}",
        where="bridges",
        expected=expected,
        fix="Describe the case with one of these",
    )


def reference_network(network: VascularNetwork) -> steady.Network:
    """Connectivity, radii, lengths and lesions for `bridges.reference`."""
    lesion = network.lesion
    names = ("diameter_reduction", "length", "segment", "lesion", "fraction")
    return steady.Network(
        segment_node=to_tensor(network.segment_node),
        radius=to_tensor(network.radius),
        length=to_tensor(network.length),
        n_nodes=network.n_nodes,
        lesion=steady.Lesions(**{name: to_tensor(getattr(lesion, name)) for name in names}),
    )


def reference_boundary(boundary: tuple[AbstractBoundary, ...]) -> steady.SteadyBoundary:
    """Boundary conditions for steady flow in `bridges.reference`: cycle means, outlets in series.

    Of several conditions of one kind the entries follow each other in their order.
    """
    held: list[tuple[torch.Tensor, ...]] = []
    fed: list[tuple[torch.Tensor, ...]] = []
    outlet: list[tuple[torch.Tensor, ...]] = []
    for condition in boundary:
        node, form = to_tensor(condition.node), condition.form()
        if isinstance(form, Held):
            held.append((node, _mean(form.pressure)))
        elif isinstance(form, Fed):
            fed.append((node, _mean(form.flow)))
        else:
            if isinstance(form.sink, JointDrain):
                raise _unknown(condition.kind, "a boundary condition of steady flow")
            resistance = torch.stack([to_tensor(r) for r in form.resistance]).sum(dim=0)
            outlet.append((node, resistance, to_tensor(form.sink)))
    merged = [
        [torch.cat(part) for part in zip(*group, strict=True)] if group else [None] * width
        for group, width in ((held, 2), (fed, 2), (outlet, 3))
    ]
    return steady.SteadyBoundary(*merged[0], *merged[1], *merged[2])


def _mean(value: Array | Waveform) -> torch.Tensor:
    if not isinstance(value, Waveform):
        return to_tensor(value)
    return steady.cycle_mean(*(to_tensor(v) for v in (value.time, value.value, value.period)))


def reference_steady(problem: SteadyProblem) -> steady.SteadyProblem:
    """A steady problem as tensors, for `bridges.reference.solve_steady`.

    **Returns:** raw arrays and laws; nothing that jaxperf has computed.

    **Errors:** `InputError` for a law or a boundary condition that the reference does not know.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    inlet = jp.PressureBoundary(tree.roots, np.full(2, 12400.0))
    n = len(tree.terminals)
    outlet = jp.ResistanceOutlet(tree.terminals, np.full(n, 5e10), np.full(n, 2e3))
    import bridges
    raw = bridges.reference_steady(jp.SteadyProblem(tree, (inlet, outlet)))
    flow = bridges.reference.solve_steady(raw).flow  # a tensor that torch differentiates
    ```
    """
    return steady.SteadyProblem(
        network=reference_network(problem.network),
        boundary=reference_boundary(problem.boundary),
        blood=reference_blood(problem.blood),
        wall=reference_wall(problem.wall),
    )
