"""What a mesh must offer the Darcy operator."""

from abc import abstractmethod

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import as_leaf, ParameterLike
from ._operator import DarcyGraph


class AbstractDarcyMesh(eqx.Module):
    """A mesh prepared for Darcy: its graph, and the map from permeability to transmissibility.

    Permeability K here is the mobility of Darcy's law u = −K∇p, in m²/(Pa·s). It is a scalar for
    the whole mesh, one scalar for each element, or one symmetric (3, 3) tensor for each element,
    in the axes of the world; an element is a voxel or a tetrahedron.
    """

    graph: eqx.AbstractVar[DarcyGraph]

    @property
    @abstractmethod
    def n_elements(self) -> int:
        """How many elements carry a permeability."""

    @abstractmethod
    def transmissibility(self, permeability: ParameterLike) -> Float[Array, " e"]:
        """Transmissibility (m³/s/Pa) of every edge; differentiable in the permeability.

        **Arguments:** `permeability`, m²/(Pa·s); a Python number is one for the whole mesh.

        **Errors:** `ValueError` for an array of a shape that fits neither the mesh nor its
        elements.
        """


def permeability_leaf(permeability: ParameterLike, mesh: AbstractDarcyMesh) -> Array:
    """A permeability as an array that fits a mesh; a Python number takes the mesh's precision."""
    if isinstance(permeability, float | int):
        return as_leaf(permeability, mesh.graph.volume.dtype)
    check_shape(permeability, mesh.n_elements)
    return as_leaf(permeability)


def check_shape(permeability: Array | np.ndarray, n_elements: int) -> None:
    allowed = ((), (n_elements,), (n_elements, 3, 3))
    if permeability.shape not in allowed:
        raise ValueError(
            f"permeability has shape {permeability.shape}; expected one of {allowed}: a scalar, "
            "one scalar for each element, or one tensor for each element"
        )
