"""Label volumes, tetrahedral meshes, resampling and the files written from them."""

import csv
import gzip
import json

import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
import pyvista
from helpers import data_dir, requires_data

from jaxperf import InputError
from jaxperf._misc import InputNote
from jaxperf.geometry import kuhn_tetrahedra, tetrahedra_from_voxels
from jaxperf.io import (
    mesh_in_frame,
    read_tets,
    read_tets_with_data,
    read_voxel_labels,
    sample_on_grid,
    write_csv,
    write_json,
    write_nifti,
    write_perfusion,
)

# mm; an LAS grid, left-handed as DICOM converters write it
AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3.0, 0, -4], [0, 0, 4.0, 7], [0, 0, 0, 1]])


def label_image(path, label=None, affine=AFFINE, unit="mm"):
    if label is None:
        label = np.zeros((4, 5, 6), np.uint8)
        label[1:3, 1:4, 1:5] = 1
        label[0, 0, 0] = 2
    image = nibabel.Nifti1Image(label, affine)
    if unit:
        image.header.set_xyzt_units(unit)
    nibabel.save(image, path)
    return path


@pytest.fixture
def mesh(tmp_path):
    return read_voxel_labels(label_image(tmp_path / "label.nii.gz"), label=1)


def test_voxels_in_metres(mesh):
    assert mesh.n_cells == 2 * 3 * 4
    assert mesh.frame == "RAS"
    assert mesh.volume == pytest.approx(24e-9)
    assert mesh.centre[0] == pytest.approx([8e-3, -1e-3, 11e-3])
    assert 2 in mesh.label


@pytest.mark.parametrize(("unit", "scale"), [("meter", 1e-3), ("micron", 1e3)])
def test_unit_of_the_header(tmp_path, mesh, unit, scale):
    affine = AFFINE * scale
    affine[3, 3] = 1.0
    other = read_voxel_labels(label_image(tmp_path / "u.nii", affine=affine, unit=unit), label=1)
    assert np.allclose(other.centre, mesh.centre, rtol=1e-6)


def test_units_where_the_header_is_silent(tmp_path, mesh):
    path = label_image(tmp_path / "silent.nii.gz", unit=None)
    assert np.array_equal(read_voxel_labels(path, label=1, units="mm").centre, mesh.centre)


def test_read_in_the_other_frame(tmp_path, mesh):
    lps = read_voxel_labels(label_image(tmp_path / "l.nii.gz"), label=1, frame="LPS")
    assert lps.frame == "LPS"
    assert np.allclose(lps.centre, mesh.centre * np.array([-1.0, -1.0, 1.0]))
    turned = mesh_in_frame(mesh, "LPS")
    assert np.allclose(turned.affine, lps.affine)
    assert np.allclose(turned.position(turned.cell_ijk.astype(np.float64)), lps.centre)


def test_volume_goes_back_to_its_own_grid(tmp_path, mesh):
    lps = mesh_in_frame(mesh, "LPS")
    value = np.arange(mesh.n_cells, dtype=np.float64)
    for m in (mesh, lps):
        write_nifti(tmp_path / "mbf.nii.gz", m, value, background=float("nan"))
        image = nibabel.load(tmp_path / "mbf.nii.gz")
        assert image.get_data_dtype() == np.float32
        assert np.allclose(image.affine, AFFINE)
        assert image.header.get_xyzt_units()[0] == "mm"
        data = np.asarray(image.dataobj)
        assert np.isnan(data).sum() == data.size - mesh.n_cells
        assert np.array_equal(data[tuple(mesh.cell_ijk.T)], value)


def test_left_handed_grid_gives_hexahedra_of_positive_volume(tmp_path, mesh):
    path = tmp_path / "voxels.vtu"
    write_perfusion(path, mesh, mbf_ml_min_g=np.arange(24.0), axis=np.ones((24, 3)))
    data = pyvista.read(path)
    assert (data.n_cells, data.n_points) == (24, 3 * 4 * 5)
    size = data.compute_cell_sizes()
    assert size["Volume"] == pytest.approx(24.0)
    assert np.allclose(data.cell_centers().points, 1e3 * mesh.centre)
    assert np.array_equal(data.cell_data["mbf_ml_min_g"], np.arange(24.0))
    assert data.cell_data["axis"].shape == (24, 3)


def test_tets_round_trip(tmp_path):
    mesh = kuhn_tetrahedra(2, upper=(0.05, 0.05, 0.05), frame="LPS")
    path = tmp_path / "tets.vtu"
    write_perfusion(path, mesh, pressure_mmHg=np.arange(27.0), tet=np.arange(48))
    again = read_tets_with_data(path, units="mm", frame="LPS")
    assert np.allclose(again.mesh.point, mesh.point)
    assert np.array_equal(again.mesh.tet, mesh.tet)
    assert np.array_equal(again.point_data["pressure_mmHg"], np.arange(27.0))
    assert np.array_equal(again.cell_data["tet"], np.arange(48))
    turned = mesh_in_frame(again.mesh, "RAS")
    assert np.all(turned.centre[:, :2] <= 0.0)
    with pytest.raises(InputError, match="first axis of 27 or 48"):
        write_perfusion(path, mesh, wrong=np.zeros(5))


def test_flipped_tetrahedron_is_turned_round(tmp_path):
    point = np.array([[0, 0, 0], [40, 0, 0], [0, 40, 0], [0, 0, 40.0]])
    path = tmp_path / "flipped.vtu"
    pyvista.UnstructuredGrid({10: np.array([[0, 2, 1, 3]])}, point).save(path)
    mesh = read_tets(path, units="mm", frame="LPS")
    assert mesh.tet_volume == pytest.approx(40e-3**3 / 6)
    a, b, c = (mesh.point[mesh.tet[0, i]] - mesh.point[mesh.tet[0, 0]] for i in (1, 2, 3))
    assert a @ np.cross(b, c) > 0


@pytest.mark.parametrize("slope", [1.0 + 1e-7, 1.0 - 4e-4])
def test_labels_that_come_scaled(tmp_path, mesh, slope):
    path = tmp_path / "scaled.nii.gz"
    label = np.where(mesh.to_grid(np.ones(24), 0.0) > 0, 1.0, 0.0)
    label[0, 0, 0] = 2.0
    label_image(path, label * slope)
    again = read_voxel_labels(path, label=1, cavity_label=2)
    assert np.array_equal(again.label, mesh.label)
    assert again.label.dtype == np.int32


def test_axes_of_one_entry_are_left_out(tmp_path, mesh):
    for more in ((1,), (1, 1), (1, 1, 1, 1)):
        path = label_image(tmp_path / "more.nii.gz", mesh.label.reshape(4, 5, 6, *more))
        assert np.array_equal(read_voxel_labels(path, label=1).label, mesh.label)


def header_says(path, name, value):
    """Write values into the header of a .nii file."""
    raw = bytearray(path.read_bytes())
    header = np.frombuffer(raw, nibabel.Nifti1Header.template_dtype, count=1)
    header[name][0][: len(value)] = value
    path.write_bytes(raw)
    return path


def test_a_header_of_too_many_voxels_takes_no_memory(tmp_path):
    for shape, text in (([3] + [30000] * 3, r"30000 × 30000 × 30000 voxels, 2\.7e\+13"),
                        ([4, 512, 512, 600, 400], r"512 × 512 × 600 × 400 voxels")):  # fmt: skip
        path = header_says(label_image(tmp_path / "big.nii"), "dim", shape)
        (tmp_path / "big.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
        for name in ("big.nii", "big.nii.gz"):
            with pytest.raises(InputError, match=text):
                read_voxel_labels(tmp_path / name, label=1)


def test_spacings_that_disagree_are_both_said(tmp_path, mesh):
    path = header_says(label_image(tmp_path / "two.nii"), "pixdim", [1.0, 2.0, 2.4, 4.0])
    with pytest.warns(InputNote, match=r"voxels of 2 × 3 × 4 .* of 2 × 2\.4 × 4 .* 1\.25 times"):
        again = read_voxel_labels(path, label=1)
    assert np.array_equal(again.centre, mesh.centre)
    path = header_says(label_image(tmp_path / "one.nii"), "pixdim", [1.0, 2.0, 3.01, 4.0])
    assert np.array_equal(read_voxel_labels(path, label=1).centre, mesh.centre)


def test_an_sform_and_a_qform_apart_are_said(tmp_path, mesh):
    image = nibabel.load(label_image(tmp_path / "a.nii"))
    moved = AFFINE.copy()
    moved[2, 3] += 30.0
    image.set_qform(moved, code=1)
    nibabel.save(image, tmp_path / "b.nii")
    with pytest.warns(InputNote, match="sform and its qform place voxels up to 30 apart"):
        again = read_voxel_labels(tmp_path / "b.nii", label=1)
    assert np.array_equal(again.centre, mesh.centre)


def test_maps_of_too_many_voxels_are_refused(tmp_path):
    mesh = kuhn_tetrahedra(1, upper=(0.1, 0.1, 0.1), frame="RAS")
    for spacing in (0.01, 1e-40):
        with pytest.raises(InputError, match=r"Take a `spacing_mm` of at least 0\.2"):
            sample_on_grid(mesh, np.ones(8), spacing_mm=spacing)


@pytest.mark.parametrize("frame", ["RAS", "LPS"])
def test_resampling_is_exact_for_linear_fields(tmp_path, frame):
    mesh = kuhn_tetrahedra(
        3,
        upper=(0.03, 0.03, 0.03),
        vertex_map=lambda x: x + 0.1 * x[:, ::-1] - 0.004,
        frame=frame,
    )
    slope = np.array([3.0, -2.0, 5.0])
    sign = np.array([1.0, 1.0, 1.0]) if frame == "RAS" else np.array([-1.0, -1.0, 1.0])
    value = (mesh.point * sign) @ slope
    volume, affine = sample_on_grid(mesh, value, spacing_mm=1.25, background=np.nan)
    inside = np.argwhere(np.isfinite(volume))
    position = inside @ affine[:3, :3].T + affine[None, :3, 3]
    assert np.allclose(volume[tuple(inside.T)], position @ slope, atol=1e-12)
    # every grid point stands for one grid cell
    sampled = len(inside) * 1.25e-3**3
    assert sampled == pytest.approx(mesh.volume.sum(), rel=0.06)
    write_nifti(tmp_path / "t.nii.gz", mesh, value)
    image = nibabel.load(tmp_path / "t.nii.gz")
    assert np.allclose(image.header.get_zooms(), 1.25)
    assert np.allclose(np.asarray(image.dataobj), np.nan_to_num(volume), atol=1e-7)


def test_resampling_reaches_every_point_on_faces_and_vertices():
    mesh = kuhn_tetrahedra(4, upper=(0.01, 0.01, 0.01), frame="RAS")
    volume, _ = sample_on_grid(mesh, np.ones(mesh.n_cells), spacing_mm=1.25, background=np.nan)
    assert volume.shape == (9, 9, 9)
    assert np.allclose(volume, 1.0)


def test_model_coordinates_make_no_patient_volume(tmp_path):
    mesh = kuhn_tetrahedra(1, upper=(0.01, 0.01, 0.01))
    with pytest.raises(InputError, match="no rule from model"):
        write_nifti(tmp_path / "m.nii.gz", mesh, np.ones(8))
    assert not list(tmp_path.iterdir())


def test_csv_and_json(tmp_path):
    rows = [
        {"vessel": "LAD", "ffr": np.float64(0.8)},
        {"vessel": "LCx, distal", "ffr": jnp.asarray(0.9)},
    ]
    write_csv(tmp_path / "ffr.csv", rows)
    with (tmp_path / "ffr.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [r["vessel"] for r in read] == ["LAD", "LCx, distal"]
    assert [float(r["ffr"]) for r in read] == pytest.approx([0.8, 0.9])
    content = {"mbf": jnp.array([1.0, jnp.nan]), "path": tmp_path, "n": np.int64(3), "ok": True}
    write_json(tmp_path / "summary.json", content)
    assert json.loads((tmp_path / "summary.json").read_text()) == {
        "mbf": [1.0, None],
        "path": str(tmp_path),
        "n": 3,
        "ok": True,
    }


def test_a_failed_write_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "rows.csv"
    write_csv(path, [{"a": 1}])
    before = path.read_bytes()

    class Unprintable:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with pytest.raises(RuntimeError, match="no text"):
        write_csv(path, [{"a": Unprintable()}])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]


@requires_data
def test_patient_volume_and_mesh_agree():
    folder = data_dir() / "lv_patient"
    voxels = read_voxel_labels(
        folder / "heart_labels.nii.gz", label=1, cavity_label=2, rv_label=3, frame="LPS",
        largest_piece=True,
    )  # fmt: skip
    assert 1e6 * voxels.volume.sum() == pytest.approx(125.7, abs=0.1)
    tets = read_tets_with_data(folder / "lv_wall_tet.vtu", units="mm", frame="LPS")
    assert tets.mesh.tet.shape == (16654, 4)
    assert 1e6 * tets.mesh.volume.sum() == pytest.approx(125.0, abs=0.1)
    assert set(tets.cell_data) == {"AHA17", "transmural"}
    assert np.allclose(voxels.centre.mean(0), tets.mesh.centre.mean(0), atol=3e-3)
    # resampling the mesh covers the voxels it was made from
    volume, _ = sample_on_grid(tets.mesh, np.ones(tets.mesh.n_cells))
    assert volume.sum() * 1.25**3 / 1e3 == pytest.approx(125.0, rel=0.01)


def test_kuhn_mesh_of_voxels_can_be_written(tmp_path, mesh):
    tets = tetrahedra_from_voxels(mesh)
    write_perfusion(tmp_path / "k.vtu", tets, one=np.ones(tets.n_cells))
    assert pyvista.read(tmp_path / "k.vtu").volume == pytest.approx(1e9 * mesh.volume.sum())
