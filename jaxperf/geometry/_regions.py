"""Terminal regions: which part of the tissue each terminal of the network perfuses."""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import KDTree

from .._misc import InputError
from ._mesh import AbstractMesh, check_finite, Quadrature
from ._nearest import nearest

# Rounds in which control volumes beside terminals without tissue are cut finer; each adds a level.
_REFINEMENTS = 4
# Quadrature points whose control volumes are cut finer, per terminal without tissue.
_NEAR_POINTS = 4


class Regions(eqx.Module):
    """The terminal regions as overlaps of regions and control volumes.

    - `cell`: (k,), control volume of each overlap; sorted by cell, then terminal.
    - `terminal`: (k,), terminal of each overlap.
    - `volume`: (k,), m³; the overlaps of a cell sum to its volume.
    - `terminal_volume`: (t,), volume of each terminal's region, m³; all positive.
    """

    cell: Int[np.ndarray, " k"]
    terminal: Int[np.ndarray, " k"]
    volume: Float[np.ndarray, " k"]
    terminal_volume: Float[np.ndarray, " t"]

    @property
    def n_terminals(self) -> int:
        """Number of terminals."""
        return self.terminal_volume.shape[0]


def power_owner(
    point: Float[np.ndarray, "n 3"],
    site_position: Float[np.ndarray, "p 3"],
    site_radius: Float[np.ndarray, " p"],
) -> Int[np.ndarray, " n"]:
    """The site of least power |x − s|² − r² for each point.

    The power is a squared distance in four dimensions, |x − s|² + (√(r_max² − r²))² − r_max², so
    that one k-d tree answers it exactly.

    **Arguments:**

    - `point`: (n, 3), m.
    - `site_position`: (p, 3), m; `site_radius`: (p,), m.

    **Returns:**

    (n,), index of the site.

    **Source:** F. Aurenhammer (1987), Power diagrams, SIAM J. Comput. 16:78.
    """
    lift = np.sqrt(np.max(site_radius) ** 2 - site_radius**2)
    lifted = np.column_stack([point, np.zeros(point.shape[0])])
    return nearest(np.column_stack([site_position, lift]), lifted, 1)[1][:, 0]


def terminal_regions(
    mesh: AbstractMesh,
    site_position: Float[np.ndarray, "p 3"],
    site_terminal: Int[np.ndarray, " p"],
    site_radius: Float[np.ndarray, " p"],
    n_terminals: int,
    *,
    points_per_terminal: int = 8,
) -> Regions:
    """Divides the tissue among the terminals by power cells, without an empty region.

    Each quadrature point of the mesh belongs to the terminal of the site with the least
    |x − s|² − r². The quadrature starts at the level that has `points_per_terminal` points per
    terminal; control volumes about terminals without tissue are then cut finer. Terminals that
    stay empty (sites outside the wall, or on top of a wider one) take the nearest point of a
    region that has several.

    **Arguments:**

    - `mesh`: the tissue.
    - `site_position`: (p, 3), m, in the mesh's frame; `site_radius`: (p,), m.
    - `site_terminal`: (p,), terminal of each site; a terminal may have several sites.
    - `n_terminals`: number of terminals t.
    - `points_per_terminal`: least mean number of quadrature points per terminal.

    **Returns:**

    [`jaxperf.geometry.Regions`][].

    **Errors:** [`InputError`][] for NaN, negative radii, terminals without a site or out of range,
    and fewer than one point per terminal.

    **Example:**

    ```python
    import jaxperf as jp, numpy as np
    mesh, _, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    tree = jp.anatomy.demo_tree(lv)
    site, owner, width = jp.anatomy.terminal_sites(tree, np.asarray(tree.terminals), 0.02)
    regions = jp.geometry.terminal_regions(mesh, site, owner, width, len(tree.terminals))
    ```
    """
    _check_sites(site_position, site_terminal, site_radius, n_terminals)
    if points_per_terminal < 1:
        raise InputError(
            f"points_per_terminal is {points_per_terminal}",
            where="terminal_regions",
            expected="at least 1",
            fix="Leave it at its default of 8",
        )
    partition = _Partition(mesh, site_position, site_terminal, site_radius, n_terminals)
    level = 1
    while mesh.quadrature_size(level) < points_per_terminal * n_terminals:
        level += 1
    points, owner = partition.divide(level, None)
    for extra in range(1, _REFINEMENTS + 1):
        empty = np.flatnonzero(np.bincount(owner, minlength=n_terminals) == 0)
        if empty.size == 0:
            break
        cells = _cells_near(points, partition.own_sites(empty))
        if cells.size == 0:
            break
        kept = ~np.isin(points.cell, cells)
        finer, finer_owner = partition.divide(level + extra, cells)
        points = Quadrature(
            *(np.concatenate([a[kept], b]) for a, b in zip(points, finer, strict=True))
        )
        owner = np.concatenate([owner[kept], finer_owner])
    owner = _fill_empty(points, owner, partition)
    return _merged(points, owner, n_terminals)


def territory_of_cells(
    regions: Regions, terminal_territory: Int[np.ndarray, " t"], n_cells: int
) -> Int[np.ndarray, " c"]:
    """The vessel territory with the largest overlap in each control volume.

    A vessel territory is the union of the regions of the terminals below one vessel. Of two equal
    overlaps the lower territory number wins.

    **Arguments:**

    - `regions`: from [`jaxperf.geometry.terminal_regions`][].
    - `terminal_territory`: (t,), number ≥ 0 of each terminal's territory.
    - `n_cells`: number of control volumes.

    **Returns:**

    (c,), number of the territory.

    **Errors:** [`InputError`][] for a wrong number of terminals, a negative territory or a cell
    beyond `n_cells`.
    """
    if terminal_territory.shape[0] != regions.n_terminals or np.min(terminal_territory) < 0:
        raise InputError(
            f"{terminal_territory.shape[0]} territories, the least {np.min(terminal_territory)}",
            where="territory_of_cells",
            expected=f"{regions.n_terminals} numbers ≥ 0, one per terminal",
            fix="Number the territories from zero",
        )
    if regions.cell.max() >= n_cells:
        raise InputError(
            f"the regions name cell {regions.cell.max()}",
            where="territory_of_cells",
            expected=f"cells below {n_cells}",
            fix="Pass the number of control volumes of the mesh the regions were made on",
        )
    present, territory = np.unique(terminal_territory, return_inverse=True)
    overlap = np.bincount(
        regions.cell * present.size + territory[regions.terminal],
        regions.volume,
        n_cells * present.size,
    )
    return present[np.argmax(overlap.reshape(n_cells, present.size), axis=1)]


class _Partition(eqx.Module):
    """The mesh and the sites that divide it."""

    mesh: AbstractMesh
    position: Float[np.ndarray, "p 3"]
    terminal: Int[np.ndarray, " p"]
    radius: Float[np.ndarray, " p"]
    n_terminals: int = eqx.field(static=True)

    def divide(
        self, level: int, cells: Int[np.ndarray, " k"] | None
    ) -> tuple[Quadrature, Int[np.ndarray, " q"]]:
        """Quadrature points of a level, and the terminal that owns each."""
        points = self.mesh.quadrature(level, cells)
        return points, self.terminal[power_owner(points.point, self.position, self.radius)]

    def own_sites(self, terminals: Int[np.ndarray, " e"]) -> Float[np.ndarray, "s 3"]:
        """Positions of the terminals' sites that lie in their own power cell.

        Finer points find such a cell; a site that a wider one covers has none to be found.
        """
        site = self.position[np.isin(self.terminal, terminals)]
        owner = self.terminal[power_owner(site, self.position, self.radius)]
        return site[np.isin(owner, terminals)]


def _cells_near(points: Quadrature, site: Float[np.ndarray, "s 3"]) -> Int[np.ndarray, " k"]:
    """Control volumes about the sites; none for a site outside the tissue.

    A site is outside where the nearest point is farther away than the point's own share is wide.
    """
    if site.shape[0] == 0:
        return np.zeros(0, dtype=np.int64)
    distance, near = nearest(points.point, site, _NEAR_POINTS)
    inside = distance[:, 0] < np.cbrt(points.weight[near[:, 0]])
    return np.unique(points.cell[near[inside]])


def _fill_empty(
    points: Quadrature, owner: Int[np.ndarray, " q"], partition: _Partition
) -> Int[np.ndarray, " q"]:
    """Gives every empty terminal the nearest point of an owner with more than one point."""
    count = np.bincount(owner, minlength=partition.n_terminals)
    empty = np.flatnonzero(count == 0)
    if empty.size == 0:
        return owner
    tree = KDTree(points.point)
    owner = owner.copy()
    for terminal in empty:
        site = partition.position[np.argmax(partition.terminal == terminal)]
        q = _nearest_spare(tree, site, owner, count)
        count[owner[q]] -= 1
        count[terminal] += 1
        owner[q] = terminal
    return owner


def _nearest_spare(
    tree: KDTree,
    site: Float[np.ndarray, "3"],
    owner: Int[np.ndarray, " q"],
    count: Int[np.ndarray, " t"],
) -> int:
    """Nearest point whose owner has another one.

    There is one: with at least as many points as terminals and one terminal empty, some terminal
    has two.
    """
    k = min(16, owner.size)
    while True:
        near = np.atleast_1d(tree.query(site, k=k)[1])
        spare = near[count[owner[near]] > 1]
        if spare.size:
            return int(spare[0])
        assert k < owner.size, "fewer quadrature points than terminals"
        k = min(4 * k, owner.size)


def _merged(points: Quadrature, owner: Int[np.ndarray, " q"], n_terminals: int) -> Regions:
    key, index = np.unique(points.cell * n_terminals + owner, return_inverse=True)
    return Regions(
        cell=key // n_terminals,
        terminal=key % n_terminals,
        volume=np.bincount(index, points.weight),
        terminal_volume=np.bincount(owner, points.weight, n_terminals),
    )


def _check_sites(
    position: Float[np.ndarray, "p 3"],
    terminal: Int[np.ndarray, " p"],
    radius: Float[np.ndarray, " p"],
    n_terminals: int,
) -> None:
    check_finite(position, "site_position", "terminal_regions")
    check_finite(radius, "site_radius", "terminal_regions")
    if radius.size and np.min(radius) < 0.0:
        raise InputError(
            f"site {int(np.argmin(radius))} has the radius {np.min(radius):.4g} m",
            where="terminal_regions",
            expected="radii of at least zero",
            fix="Repair the radius of this vessel",
        )
    outside = np.flatnonzero((terminal < 0) | (terminal >= n_terminals))
    if outside.size:
        raise InputError(
            f"site {outside[0]} names terminal {terminal[outside[0]]}",
            where="terminal_regions",
            expected=f"terminals from 0 to {n_terminals - 1}",
            fix="Number the terminals from zero",
        )
    missing = _missing(terminal, n_terminals)
    if n_terminals < 1 or missing.any():
        raise InputError(
            f"{int(missing.sum())} of {n_terminals} terminals have no site, the first is terminal "
            f"{int(np.argmax(missing)) if missing.any() else '(none)'}",
            where="terminal_regions",
            expected="at least one terminal, and a site for each",
            fix="Give every terminal the position of its leaf node",
        )


def _missing(terminal: Int[np.ndarray, " p"], n_terminals: int) -> Bool[np.ndarray, " t"]:
    missing = np.ones(n_terminals, dtype=np.bool_)
    missing[terminal] = False
    return missing
