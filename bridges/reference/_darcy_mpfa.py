"""Multi-point fluxes on voxels (MPFA-O) as a minimum at every corner of the grid.

Around a corner lie eight places for voxels and twelve quarters of faces. With a pressure u at the
centre of each face, the gradient in the eighth of voxel c at the corner has the components
g_a = 2σ_a(u_a − p_c)/h_a in the grid's axes, and u minimises Σ_c (V/8) gᵀ K_c g.

Source: Aavatsmark, Comput. Geosci. 6:405 (2002).
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch

_SLOT = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
_PAIR = np.array(list(combinations(range(8), 2)))


def _quarter_of_slot() -> np.ndarray:
    """(8, 3): the quarter across axis a that bounds each place; 4a + the bits of the other axes."""
    out = np.empty((8, 3), dtype=np.int64)
    for axis in range(3):
        first, second = (b for b in range(3) if b != axis)
        out[:, axis] = 4 * axis + 2 * _SLOT[:, first] + _SLOT[:, second]
    return out


_QUARTER = _quarter_of_slot()
# The corner lies above a voxel in place 0 along an axis and below one in place 1.
_SIDE = 1.0 - 2.0 * _SLOT


class Quarters(NamedTuple):
    """What acts on the quarters of faces: outflow = rate · u − push, or u known.

    `rate` (v, 12) m³/s/Pa and `push` (v, 12) m³/s, both whole for the quarter; `known` (v, 12)
    bool and `pressure` (v, 12) Pa.
    """

    rate: torch.Tensor
    push: torch.Tensor
    known: torch.Tensor
    pressure: torch.Tensor


def corner_cells(
    cell_ijk: torch.Tensor, look_up: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """(v, 8) the cells around every corner of a cell, −1 where there is none."""
    slot = cell_ijk.new_tensor(_SLOT)
    corner = torch.unique((cell_ijk[:, None] + slot).reshape(-1, 3), dim=0)
    return look_up(corner[:, None] + slot - 1)


def corner_place(mesh_corner: torch.Tensor, cell: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
    """(k, 4) positions in the flat (v·12) list of the quarters of faces given as cell and side."""
    row, slot = torch.nonzero(mesh_corner >= 0, as_tuple=True)
    order = (8 * mesh_corner[row, slot] + slot).argsort()
    # Every cell has its eight corners, so that row 8c + s is the corner with c in place s.
    row = row[order].reshape(-1, 8)
    axis, upper = side // 2, side % 2
    bit = cell.new_tensor(_SLOT)[None, :, :].expand(cell.shape[0], 8, 3)
    own = bit.gather(2, axis[:, None, None].expand(-1, 8, 1))[..., 0]
    # The upper face of a cell touches the corners that have the cell in their lower place.
    slots = torch.nonzero(own == 1 - upper[:, None])[:, 1].reshape(-1, 4)
    quarter = cell.new_tensor(_QUARTER)[slots, axis[:, None]]
    return 12 * row[cell[:, None], slots] + quarter


def multi_point_edges(corner: torch.Tensor, n_cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(e, 2) pairs of cells that share a corner, and (v, 28) the edge of each pair of places.

    The number of edges stands for the pairs that lack a cell.
    """
    pair = corner[:, corner.new_tensor(_PAIR)].sort(dim=2).values
    whole = pair[..., 0] >= 0
    key, place = torch.unique((pair[..., 0] * n_cells + pair[..., 1])[whole], return_inverse=True)
    edge_of_pair = torch.full(whole.shape, key.shape[0], device=corner.device)
    edge_of_pair[whole] = place
    return torch.stack([key // n_cells, key % n_cells], dim=1), edge_of_pair


def multi_point(
    corner: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor],
    spacing: torch.Tensor,
    tensor: torch.Tensor,
    quarters: Quarters | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Eliminate the pressures on the faces, corner by corner.

    With M the form Σ_c (V/8) gᵀ K_c g of (u, p), the rates of the surface on the diagonal of its
    uu-part, and k the quarters of known pressure, the others obey
    M_uu u = push − M_uk u_k − M_up p, and what leaves the voxels is S p − source,

        S = M_pp − M_pu M_uu⁻¹ M_up,    source = −M_pk u_k − M_pu M_uu⁻¹ (push − M_uk u_k).

    Equal pressures inside and outside move nothing, so the row sums of S, the sinks, are that
    source for u_k = 1 and push = rate: no difference is taken.

    **Arguments:** `corner` (v, 8) and `pairs` from `corner_cells` and `multi_point_edges`;
    `spacing` (3,) m; `tensor` (..., c, 3, 3) in the axes of the grid; `quarters`, a closed surface
    where left out.

    **Returns:** transmissibility (..., e); what the surface adds to sink and source, (..., c).
    """
    present, batch = corner >= 0, tensor.shape[:-3]
    side = torch.as_tensor(_SIDE, dtype=tensor.dtype, device=tensor.device)
    scale = 2.0 * side / spacing
    local = tensor[..., corner.clamp(min=0), :, :] * (spacing.prod() / 8.0)
    local = local * scale[:, :, None] * scale[:, None, :] * present[..., None, None]
    form_uu, form_up, form_pp = _forms(corner, local, batch)
    unused = form_uu.diagonal(dim1=-2, dim2=-1).detach() == 0
    # Of the two columns the first gives the sink and the second the source.
    push = form_uu.new_zeros((*form_uu.shape[:-1], 2))
    direct = form_up.new_zeros((*form_up.shape[:-2], 8, 2))
    if quarters is not None:
        given = torch.where(quarters.known, quarters.pressure, 0.0)
        given = torch.stack(torch.broadcast_tensors(quarters.known.to(given), given), dim=-1)
        pushed = torch.stack(torch.broadcast_tensors(quarters.rate, quarters.push), dim=-1)
        direct = direct - form_up.mT @ given
        known = quarters.known[..., None]
        push = torch.where(known, 0.0, pushed - form_uu @ given)
        form_up = torch.where(known, 0.0, form_up)
        form_uu = form_uu + torch.diag_embed(quarters.rate)
        unused = unused | quarters.known
    form_uu = torch.where(unused[..., None] | unused[..., None, :], 0.0, form_uu)
    # Quarters without an unknown take the mean diagonal, which couples to nothing.
    idle = form_uu.detach().diagonal(dim1=-2, dim2=-1).mean(dim=-1)[..., None] * unused
    idle = torch.where(idle.sum(dim=-1, keepdim=True) > 0, idle, unused.to(idle))
    factor = torch.linalg.cholesky(form_uu + torch.diag_embed(idle))
    form_up = form_up.expand(*push.shape[:-2], 12, 8)
    eliminated = torch.cholesky_solve(torch.cat([form_up, push], dim=-1), factor)
    lost = form_up.mT @ eliminated
    exchange = torch.diag_embed(form_pp) - lost[..., :8]
    return _collected(corner, pairs, exchange, direct - lost[..., 8:], tensor.shape[-3])


def _forms(
    corner: torch.Tensor, local: torch.Tensor, batch: torch.Size
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """M_uu (..., v, 12, 12), M_up (..., v, 12, 8) and the diagonal of M_pp (..., v, 8)."""
    quarter = corner.new_tensor(_QUARTER)
    n = corner.shape[0]
    at_uu = (12 * quarter[:, :, None] + quarter[:, None, :]).reshape(-1)
    form_uu = local.new_zeros((*batch, n, 144)).index_add(-1, at_uu, local.flatten(-3))
    row = local.sum(dim=-1)
    at_up = (8 * quarter + torch.arange(8, device=corner.device)[:, None]).reshape(-1)
    form_up = local.new_zeros((*batch, n, 96)).index_add(-1, at_up, -row.flatten(-2))
    return (
        form_uu.unflatten(-1, (12, 12)),
        form_up.unflatten(-1, (12, 8)),
        row.sum(dim=-1),
    )


def _collected(
    corner: torch.Tensor,
    pairs: tuple[torch.Tensor, torch.Tensor],
    exchange: torch.Tensor,
    outside: torch.Tensor,
    n_cells: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sums over corners: edges of (..., v, 8, 8), sink and source of (..., v, 8, 2)."""
    edge, edge_of_pair = pairs
    first, second = corner.new_tensor(_PAIR).T
    between = -exchange[..., first, second].flatten(-2)
    total = between.new_zeros((*between.shape[:-1], edge.shape[0] + 1))
    transmissibility = total.index_add(-1, edge_of_pair.reshape(-1), between)[..., :-1]
    at = torch.where(corner >= 0, corner, n_cells).reshape(-1)
    outside = outside.movedim(-1, 0).flatten(-2)
    nothing = outside.new_zeros((*outside.shape[:-1], n_cells + 1))
    sink, source = nothing.index_add(-1, at, outside)[..., :-1]
    return transmissibility, sink, source
