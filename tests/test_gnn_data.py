"""Random Darcy problems for training: seeded, well posed, and inside their ranges."""

import jax
import jaxtyping
import numpy as np
import pydantic
import pytest

pytest.importorskip("jraph", reason="the extra `gnn` is not installed")

from gnn_darcy._data import DarcyCase, Ranges, sample_case
from gnn_darcy._shapes import sample_shape, shape_tetrahedra
from jaxperf import InputError
from jaxperf.darcy import check_permeability, solve_darcy, VoxelDarcyMesh
from jaxperf.geometry import mesh_quality

PA_PER_MMHG = 133.322
SMALL = Ranges(tetrahedra=(4e3, 5e3), terminals=(100, 120))
KINDS = ("tet", "voxel")
CASES: dict = {}


def _case(kind: str, seed: int = 1) -> DarcyCase:
    if (kind, seed) not in CASES:
        CASES[kind, seed] = sample_case(seed, SMALL, kind=kind)
    return CASES[kind, seed]


def _shape(seed: int):
    return sample_shape(
        np.random.default_rng(seed),
        cavity_short_mm=(18.0, 30.0),
        cavity_long_mm=(50.0, 75.0),
        wall_mm=(6.0, 14.0),
        wobble_mm=(1.5, 1.5),
    )


def _same(a: DarcyCase, b: DarcyCase) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_problem(kind):
    assert _same(_case(kind), sample_case(1, SMALL, kind=kind))
    other = _case(kind, 2)
    assert other.point.shape != _case(kind).point.shape or not _same(other, _case(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_problem_is_well_posed(kind):
    case = _case(kind)
    graph, operator = case.mesh.graph, case.problem.operator
    assert graph.n_pieces == 1 and case.point.shape == (graph.n_cells, 3)
    assert np.asarray(graph.volume).min() > 0.0 and np.asarray(operator.sink).min() > 0.0
    check_permeability(case.mesh, np.asarray(case.permeability), "test")
    if kind == "tet":  # on voxels compiling it once more takes seconds
        again = case.mesh.transmissibility(case.permeability)
        np.testing.assert_allclose(operator.transmissibility, again, rtol=1e-9, atol=1e-24)
    pressure = np.asarray(solve_darcy(case.problem).pressure_tissue) / PA_PER_MMHG
    # 90 mmHg times β_src/β, which is 1/9 to 1/4
    assert 7.0 < pressure.mean() < 25.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [1, 2])
def test_permeability_lies_in_its_ranges(kind, seed):
    case = _case(kind, seed)
    eigenvalue = np.linalg.eigvalsh(np.asarray(case.permeability))
    ratio = eigenvalue[:, 2] / eigenvalue[:, 0]
    assert ratio.min() >= 1.0 and ratio.max() <= 10.0
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    np.testing.assert_allclose(eigenvalue[:, 0], eigenvalue[:, 1], rtol=1e-9)
    mean = eigenvalue.mean(axis=1)
    assert np.log(mean).std() <= 0.8
    assert 1e-9 < mean.mean() < 4e-9


@pytest.mark.parametrize("kind", KINDS)
def test_every_territory_has_its_source(kind):
    case = _case(kind)
    rate = np.asarray(case.problem.source / case.mesh.graph.volume)
    beta = np.asarray(case.problem.operator.sink / case.mesh.graph.volume)
    number = np.unique(np.round(rate / rate.mean(), 9), return_inverse=True)[1]
    # terminals on top of one another in a coarse mesh may own nothing
    assert 80 <= number.max() + 1 <= 120
    for value in (rate, beta):
        within = [np.ptp(value[number == k]) for k in range(number.max() + 1)]
        assert max(within) < 1e-9 * value.mean()
    length = np.sqrt(2e-9 / beta.mean())
    assert 1.1 * length > 0.3e-2 and length < 1.1 * 4e-2


def test_equal_permeabilities_take_two_point_fluxes():
    ranges = SMALL.model_copy(update={"anisotropy": (1.0, 1.0)})
    case = sample_case(3, ranges, kind="voxel")
    assert isinstance(case.mesh, VoxelDarcyMesh) and case.permeability.ndim == 1
    assert np.log(np.asarray(case.permeability)).std() <= 0.8


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tetrahedra_are_well_shaped(seed):
    shape = _shape(seed)
    mesh, place = shape_tetrahedra(shape, 1e4, np.random.default_rng(seed))
    assert 0.8e4 < len(mesh.tet) < 1.25e4 and mesh.tet_volume.min() > 0.0
    np.testing.assert_allclose(mesh.point, shape.bent(place))
    quality = mesh_quality(mesh, (1.0, 50.0))
    assert quality.least_dihedral[0] > 8.0 and quality.least_dihedral[1] > 35.0
    volume = np.sum(mesh.volume) / shape.lv.wall_volume
    assert 0.85 < volume < 1.05


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"anisotropy": (0.5, 2.0)}, "between 1 and 100"),
        ({"wall_mm": (12.0, 6.0)}, "the smaller one first"),
        ({"wobble_mm": (0.0, float("nan"))}, "two numbers"),
        ({"screening_length_cm": (0.0, 1.0)}, "between"),
        ({"cavity_long_mm": (20.0, 75.0)}, "cavity_short_mm"),
        ({"wal_mm": (6.0, 12.0)}, "Extra inputs"),
        ({"wall_mm": 6.0}, "valid tuple"),
    ],
)
def test_wrong_ranges_are_refused(wrong, said):
    with pytest.raises(pydantic.ValidationError, match=said):
        Ranges(**wrong)


def test_wrong_calls_are_refused():
    with pytest.raises((InputError, jaxtyping.TypeCheckError)):
        sample_case(0, SMALL, kind="hex")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match="n_tets"):
        sample_case(0, SMALL, kind="tet", n_tets=10.0)
    with pytest.raises(InputError, match="seed"):
        sample_case(-1, SMALL, kind="tet")
    with pytest.raises(jaxtyping.TypeCheckError):
        _shape(0).bent(np.zeros((4, 2)))
