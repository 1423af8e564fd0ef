"""Random Darcy problems of the left ventricular wall, made from a seed and never stored."""

import math
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from pydantic import BaseModel, ConfigDict, model_validator

from jaxperf._misc import InputError
from jaxperf.darcy import (
    AbstractDarcyMesh,
    darcy_mesh,
    darcy_operator,
    DarcyProblem,
    transversely_isotropic,
)
from jaxperf.geometry import fibre_direction, power_owner, transmural_depth
from jaxperf.growth import Forest, grow_forest, GrowthProblem, join_forest
from jaxperf.network import build_network, VascularNetwork
from jaxperf.units import M_PER_CM, M_PER_MM, PA_PER_MMHG

from ._shapes import sample_shape, shape_tetrahedra, shape_voxels, VentricleShape

# Mean mobility, m²/(Pa s), and mean pressure of the terminals over the sink, Pa.
_MOBILITY = 2e-9
_PRESSURE, _PRESSURE_SPREAD = 90.0 * PA_PER_MMHG, 0.03
_MODES = 64
# Anisotropy up to which voxels take a scalar, with six neighbours in place of 26.
_ISOTROPIC = 1.05
_CELLS_PER_TET = 1.0 / 5.0
# What the interval of each name must lie in.
_LIMITS = {
    "cavity_short_mm": (8.0, 60.0),
    "cavity_long_mm": (20.0, 150.0),
    "wall_mm": (3.0, 30.0),
    "wobble_mm": (0.0, 3.0),
    "anisotropy": (1.0, 100.0),
    "log_permeability_deviation": (0.0, 3.0),
    "correlation_length_mm": (1.0, 1000.0),
    "screening_length_cm": (0.01, 100.0),
    "snk_over_src": (0.01, 100.0),
    "sink_deviation": (0.0, 2.0),
    "tetrahedra": (500.0, 1e7),
    "terminals": (60.0, 2000.0),
    "lesion": (0.0, 1.0),
}
# Fixed vessels, each with an inlet of its own: angle about the long axis (degrees) and height (0
# apex, 1 base) of both ends. Their radii, and their distance outside the epicardium, mm.
_VESSELS = {
    "LAD": ((66.0, 1.0), (62.0, 0.1)),
    "LCx": ((100.0, 0.99), (205.0, 0.92)),
    "OM": ((155.0, 0.86), (165.0, 0.25)),
    "RCA": ((-64.0, 1.0), (-66.0, 0.25)),
}
_VESSEL_NODES, _VESSEL_TURN = 40, 8.0
_VESSEL_RADIUS, _VESSEL_OUTSIDE = (1.6, 0.6), (3.0, 1.5)
# Voxels that a forest grows in, its terminals and the distance of its roots, m.
_GROWTH_SPACING, _TERMINAL_RADIUS, _ROOT_SPACING = 2.5e-3, 125e-6, 12e-3
_GROWTH_ATTEMPTS = 5


class Ranges(BaseModel):
    """What random problems are drawn from: the least and the largest value of each quantity.

    - `cavity_short_mm`, `cavity_long_mm`: semi-axes of the cavity.
    - `wall_mm`: thickness of the wall at its widest place.
    - `wobble_mm`: amplitude of the bending of tetrahedral walls.
    - `anisotropy`: permeability along over that across the fibres; even in its logarithm.
    - `log_permeability_deviation`: of the logarithm of K in the wall.
    - `correlation_length_mm`: of that logarithm; even in its logarithm.
    - `screening_length_cm`: √(K/β) of the means; even in its logarithm.
    - `snk_over_src`: exchange with the veins over that with the terminals.
    - `sink_deviation`: of the logarithm of β among territories.
    - `tetrahedra`: how many; voxels are a fifth of that. Even in its logarithm.
    - `terminals`: of the forest that feeds the wall.
    - `lesion`: part of its pressure that a random part of the forest loses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cavity_short_mm: tuple[float, float] = (18.0, 30.0)
    cavity_long_mm: tuple[float, float] = (50.0, 75.0)
    wall_mm: tuple[float, float] = (6.0, 14.0)
    wobble_mm: tuple[float, float] = (0.0, 1.5)
    anisotropy: tuple[float, float] = (1.0, 10.0)
    log_permeability_deviation: tuple[float, float] = (0.0, 0.8)
    correlation_length_mm: tuple[float, float] = (4.0, 30.0)
    screening_length_cm: tuple[float, float] = (0.3, 4.0)
    snk_over_src: tuple[float, float] = (3.0, 8.0)
    sink_deviation: tuple[float, float] = (0.0, 0.3)
    tetrahedra: tuple[float, float] = (5e3, 3e4)
    terminals: tuple[float, float] = (100.0, 300.0)
    lesion: tuple[float, float] = (0.0, 0.6)

    @model_validator(mode="after")
    def _within_limits(self) -> "Ranges":
        for name, (least, largest) in _LIMITS.items():
            low, high = getattr(self, name)
            # written so that NaN fails
            if not least <= low <= high <= largest:
                raise ValueError(
                    f"{name} is ({low:g}, {high:g}); expected two numbers between {least:g} and "
                    f"{largest:g}, the smaller one first"
                )
        if self.cavity_long_mm[0] < self.cavity_short_mm[1]:
            raise ValueError("cavity_long_mm begins below the end of cavity_short_mm")
        return self


class DarcyCase(eqx.Module):
    """A Darcy problem of a random wall.

    - `mesh`: with its graph. `permeability`: m²/(Pa s), as `mesh.transmissibility` takes it.
    - `problem`: pressures are over that of the veins.
    - `point`: (c, 3), places of the control volumes, m.
    """

    mesh: AbstractDarcyMesh
    permeability: Float[Array, "..."]
    problem: DarcyProblem
    point: Float[Array, "c 3"]


def sample_case(
    seed: int,
    ranges: Ranges = Ranges(),
    *,
    kind: Literal["tet", "voxel"],
    n_tets: float | None = None,
) -> DarcyCase:
    """A random problem; the same one, bit for bit, for the same arguments on one machine.

    A forest grown in the wall divides it into territories, and the pressure of each terminal feeds
    its own: −∇·K∇p + (β_src + β_snk) p = β_src P_terminal. K follows fibres that turn from +60° to
    −60° through the wall; that bending turns them by some degrees is left out.

    **Arguments:**

    - `kind`: tetrahedra of a bent ellipsoid, or voxels of the ellipsoid before bending.
    - `n_tets`: about how many tetrahedra, or five times how many voxels; drawn where left out.

    **Errors:** [`InputError`][] for another kind, and a negative seed or size.

    **Example:**

    ```python
    import gnn_darcy
    case = gnn_darcy.sample_case(0, kind="voxel", n_tets=3000)
    ```
    """
    _check(seed, kind, n_tets)
    # one stream for each part, so that none depends on how much another draws
    of_shape, of_mesh, of_forest, of_tissue = np.random.default_rng(seed).spawn(4)
    shape = sample_shape(
        of_shape,
        cavity_short_mm=ranges.cavity_short_mm,
        cavity_long_mm=ranges.cavity_long_mm,
        wall_mm=ranges.wall_mm,
        wobble_mm=ranges.wobble_mm,
    )
    drawn = _log_uniform(of_mesh, ranges.tetrahedra)
    n_tets = drawn if n_tets is None else float(n_tets)
    if kind == "tet":
        mesh, place = shape_tetrahedra(shape, n_tets, of_mesh)
        element = place[mesh.tet].mean(axis=1)
    else:
        mesh = shape_voxels(shape, _CELLS_PER_TET * n_tets)
        place = element = mesh.centre
    anisotropy = _log_uniform(of_tissue, ranges.anisotropy)
    tensor = kind == "tet" or anisotropy > _ISOTROPIC
    prepared = darcy_mesh(mesh, full_tensor=tensor)
    field = _permeability_field(of_tissue, ranges, element)
    fibre = fibre_direction(shape.axes(element), shape.depth(element)) if tensor else None
    # from places before bending: where the wall is bent, its territories bend with it
    owner, pressure = _terminals(shape, ranges, place, of_forest)
    rates = _exchange(of_tissue, ranges, owner, pressure)
    across = 3.0 / (anisotropy + 2.0)
    given = jax.tree.map(jnp.asarray, (field, (anisotropy * across, across), fibre, *rates))
    permeability, problem = _assembled(prepared, *given)
    # one graph, and not a copy of it
    problem = eqx.tree_at(lambda p: p.operator.graph, problem, prepared.graph)
    return DarcyCase(prepared, permeability, problem, jnp.asarray(mesh.centre))


@eqx.filter_jit
def _assembled(
    mesh: AbstractDarcyMesh,
    field: Float[Array, " m"],
    along_across: tuple[Float[Array, ""], Float[Array, ""]],
    fibre: Float[Array, "m 3"] | None,
    source: Float[Array, " c"],
    sink: Float[Array, " c"],
) -> tuple[Float[Array, "..."], DarcyProblem]:
    """Permeability and problem, as one program: compiling is most of the work on small meshes.

    **Arguments:** `field`, a third of the trace of K; `along_across`, over `field`; `source`, 1/s;
    `sink`, 1/(Pa s).
    """
    permeability = field
    if fibre is not None:
        permeability = field[:, None, None] * transversely_isotropic(*along_across, fibre)
    graph = mesh.graph
    conduction = mesh.transmissibility(permeability)
    operator = darcy_operator(graph, conduction, sink * graph.volume)
    return permeability, DarcyProblem(operator, source * graph.volume)


def _check(seed: int, kind: str, n_tets: float | None) -> None:
    least = _LIMITS["tetrahedra"][0]
    for bad, what, expected in (
        (seed < 0, f"the seed is {seed}", "a whole number from 0 on"),
        (kind not in ("tet", "voxel"), f"the kind is {kind!r}", "tet or voxel"),
        (
            n_tets is not None and not least <= n_tets < math.inf,
            f"n_tets is {n_tets}",
            f"at least {least:g}",
        ),
    ):
        if bad:
            raise InputError(what, where="sample_case", expected=expected, fix="Correct it")


def _log_uniform(rng: np.random.Generator, interval: tuple[float, float]) -> float:
    return math.exp(rng.uniform(*np.log(interval)))


# ---------------------------------------------------------------- tissue


def _permeability_field(
    rng: np.random.Generator, ranges: Ranges, element: Float[np.ndarray, "m 3"]
) -> Float[np.ndarray, " m"]:
    """Lognormal K of the elements, m²/(Pa s): log K has a Gaussian correlation."""
    deviation = rng.uniform(*ranges.log_permeability_deviation)
    length = _log_uniform(rng, ranges.correlation_length_mm) * M_PER_MM
    wave = rng.standard_normal((_MODES, 3)) / length
    phase = rng.uniform(0.0, 2.0 * np.pi, _MODES)
    value = np.zeros(len(element))
    # wave by wave: all at once would be sixty times the mesh in memory
    for k, at in zip(wave, phase, strict=True):
        value += np.cos(element @ k + at)
    value = deviation * (value - value.mean()) / value.std()
    return _MOBILITY * np.exp(value - 0.5 * deviation**2)


def _exchange(
    rng: np.random.Generator,
    ranges: Ranges,
    owner: Int[np.ndarray, " c"],
    pressure: Float[np.ndarray, " t"],
) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """β_src P, 1/s, and β_src + β_snk, 1/(Pa s), of every control volume."""
    length = _log_uniform(rng, ranges.screening_length_cm) * M_PER_CM
    share = 1.0 / (1.0 + rng.uniform(*ranges.snk_over_src))
    deviation = rng.uniform(*ranges.sink_deviation)
    log = deviation * rng.standard_normal(pressure.size) - 0.5 * deviation**2
    beta = _MOBILITY / length**2 * np.exp(log)
    return (share * beta * pressure)[owner], beta[owner]


# ---------------------------------------------------------------- vessels


def _terminals(
    shape: VentricleShape,
    ranges: Ranges,
    place: Float[np.ndarray, "c 3"],
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " c"], Float[np.ndarray, " t"]]:
    """The terminal of every control volume, and the pressure of every terminal, Pa."""
    network, forest = _grown(shape, round(rng.uniform(*ranges.terminals)), rng)
    leaf = forest.terminal
    owner = power_owner(place, forest.position[leaf], forest.radius[leaf])
    fall = rng.uniform(*ranges.lesion) * _below_random_segment(network, forest, rng)
    pressure = _PRESSURE * (1.0 - fall) * (1.0 + _PRESSURE_SPREAD * rng.standard_normal(leaf.size))
    return owner, pressure


def _grown(
    shape: VentricleShape, n_terminals: int, rng: np.random.Generator
) -> tuple[VascularNetwork, Forest]:
    """A forest in the wall before bending, and the vessels it hangs on."""
    spacing = min(_GROWTH_SPACING, 0.5 * shape.thinnest)
    mesh = shape_voxels(shape, shape.lv.wall_volume / spacing**3)
    depth = transmural_depth(mesh, shape.lv.frame)
    for attempt in range(_GROWTH_ATTEMPTS):
        network = _vessels(shape, rng)
        problem = GrowthProblem(
            network=network,
            mesh=mesh,
            depth=depth,
            n_terminals=n_terminals,
            root_spacing=_ROOT_SPACING,
            terminal_radius=_TERMINAL_RADIUS,
            seed=int(rng.integers(2**31)),
        )
        try:
            return network, grow_forest(problem)
        except InputError:
            # not every wall has room for every forest
            if attempt == _GROWTH_ATTEMPTS - 1:
                raise
    raise AssertionError


def _vessels(shape: VentricleShape, rng: np.random.Generator) -> VascularNetwork:
    """Fixed vessels over the epicardium."""
    step = np.linspace(0.0, 1.0, _VESSEL_NODES)
    along = lambda ends: ends[0] + (ends[1] - ends[0]) * step
    position, n = [], len(_VESSELS)
    for first, last in _VESSELS.values():
        turn = rng.uniform(-_VESSEL_TURN, _VESSEL_TURN)
        angle = np.radians(along((first[0], last[0])) + turn)
        outside = along(_VESSEL_OUTSIDE) * M_PER_MM
        height = along((first[1], last[1]))
        position += [
            shape.lv.epicardium(*(float(x) for x in at))
            for at in zip(angle, height, outside, strict=True)
        ]
    node = np.arange(n * _VESSEL_NODES).reshape(n, -1)
    return build_network(
        np.stack(position),
        np.stack([node[:, :-1].ravel(), node[:, 1:].ravel()], axis=1),
        np.tile(along(_VESSEL_RADIUS) * M_PER_MM, n),
        root=node[:, 0],
        frame="model",
        branch=np.repeat(np.arange(n), _VESSEL_NODES - 1),
        branch_name=tuple(_VESSELS),
    )


def _below_random_segment(
    network: VascularNetwork, forest: Forest, rng: np.random.Generator
) -> Bool[np.ndarray, " t"]:
    """The terminals below a segment; drawn by how many there are, for most segments feed one."""
    joined = join_forest(network, forest)
    above = np.full(joined.n_nodes, -1)
    segment = np.asarray(joined.segment_node, np.int64)
    above[segment[:, 1]] = segment[:, 0]
    n = forest.n_terminals
    below = np.zeros((joined.n_nodes, n), bool)
    at, terminal = network.n_nodes + forest.terminal, np.arange(n)
    while at.size:
        below[at, terminal] = True
        up = above[at]
        at, terminal = up[up >= 0], terminal[up >= 0]
    size = below.sum(axis=1)
    wanted = _log_uniform(rng, (1.0, 0.5 * n))
    miss = np.abs(np.log(np.maximum(size, 0.1) / wanted))
    return below[rng.choice(np.flatnonzero(miss == miss.min()))]
