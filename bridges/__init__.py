"""Arrays, functions and gradients to and from torch. Needs the extra `torch`."""

from ._coupled_arrays import reference_perfusion as reference_perfusion
from ._cross_check import cross_check as cross_check, CrossCheck as CrossCheck
from ._darcy_arrays import reference_darcy as reference_darcy, reference_mesh as reference_mesh
from ._dlpack import (
    borrowed_by_jax as borrowed_by_jax,
    borrowed_by_torch as borrowed_by_torch,
    jax_to_torch as jax_to_torch,
    torch_to_jax as torch_to_jax,
    tree_to_jax as tree_to_jax,
    tree_to_torch as tree_to_torch,
)
from ._flow1d_arrays import (
    reference_flow1d as reference_flow1d,
    reference_points as reference_points,
)
from ._jax_as_torch import jax_as_torch as jax_as_torch
from ._steady_arrays import reference_steady as reference_steady
from ._torch_as_jax import torch_as_jax as torch_as_jax, TorchFunction as TorchFunction
from ._torch_darcy import torch_darcy as torch_darcy, TorchDarcySolver as TorchDarcySolver
