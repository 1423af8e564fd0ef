"""Readers of what was measured: PET maps, tables of segments, pressure wires."""

import nibabel
import numpy as np
import pytest
from helpers import data_dir, requires_data
from test_observe import _network

from jaxperf import InputError
from jaxperf.geometry import build_voxel_mesh
from jaxperf.io import (
    check_overlap,
    mesh_in_frame,
    PETImage,
    read_ffr,
    read_pet,
    read_segments,
    read_voxel_labels,
    write_nifti,
)

ML_MIN_G = 1e-3 / 60.0  # in m³/(s·kg)
# mm, RAS: an oblique grid off the origin
TURN, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((3, 3)))
AFFINE = np.eye(4)
AFFINE[:3, :3] = TURN * np.array([3.0, 3.5, 4.0])
AFFINE[:3, 3] = [20.0, -35.0, 60.0]
SHAPE = (7, 6, 5)
# two axes along x
FLAT = np.array([[3.0, 3, 0, 0], [0, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])


def map_ml_min_g(seed=1):
    return np.random.default_rng(seed).uniform(0.5, 3.0, SHAPE)


def pet_file(path, values=None, *, descrip="MBF stress ml/min/g", affine=AFFINE, unit="mm"):
    values = map_ml_min_g() if values is None else values
    image = nibabel.Nifti1Image(np.asarray(values, np.float64), affine)
    image.header.set_xyzt_units(unit)
    image.header["descrip"] = descrip.encode()
    nibabel.save(image, path)
    return path


def wall_of():
    """A wall in the grid's middle, in LPS, in which the map has values."""
    label = np.zeros(SHAPE, np.int32)
    label[1:6, 1:5, 1:4] = 1
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ AFFINE
    affine[:3] *= 1e-3
    return build_voxel_mesh(label, affine, frame="LPS")


class TestReadPet:
    def test_values_in_si_and_positions_in_metres(self, tmp_path):
        image = read_pet(pet_file(tmp_path / "p.nii.gz"))
        np.testing.assert_allclose(image.mbf, map_ml_min_g() * ML_MIN_G, rtol=1e-13)
        np.testing.assert_allclose(image.mbf_ml_min_g, map_ml_min_g(), rtol=1e-13)
        assert (image.frame, image.shape) == ("LPS", SHAPE)
        expected = 1e-3 * AFFINE * np.array([-1.0, -1.0, 1.0, 1.0])[:, None]
        expected[3] = [0.0, 0.0, 0.0, 1.0]
        np.testing.assert_allclose(image.affine, expected, atol=1e-8)
        ras = read_pet(tmp_path / "p.nii.gz", frame="RAS")
        np.testing.assert_allclose(ras.affine[:2], -expected[:2], atol=1e-8)

    @pytest.mark.parametrize(
        ("descrip", "units", "factor"),
        [
            ("", "ml/min/g", 1.0),
            ("", "ml/min/100g", 100.0),
            ("MBF [mL/min/100 g]", None, 100.0),
            ("flow in ml/g/min", None, 1.0),
            ("MBF ml/min/g; patient", "ml/min/g", 1.0),
            ("", "ml/s/g", 1.0 / 60.0),
            ("SI: m3/s/kg", None, ML_MIN_G),
        ],
    )
    def test_units(self, tmp_path, descrip, units, factor):
        path = pet_file(tmp_path / "p.nii", factor * map_ml_min_g(), descrip=descrip)
        image = read_pet(path, units=units)
        np.testing.assert_allclose(image.mbf_ml_min_g, map_ml_min_g(), rtol=1e-12)

    def test_nan_is_no_value(self, tmp_path):
        values = map_ml_min_g()
        values[0] = np.nan
        image = read_pet(pet_file(tmp_path / "p.nii", values))
        assert np.isnan(image.mbf[0]).all()
        assert np.isfinite(image.mbf[1:]).all()

    @pytest.mark.parametrize(
        ("change", "options", "sentence"),
        [
            ({"descrip": ""}, {}, r"does not state the unit of blood flow.*Pass units="),
            ({}, {"units": "ml/min/100g"}, r"states ml/min/g and units is 'ml/min/100g'"),
            ({"descrip": ""}, {"units": "ml/h/g"}, r"units is 'ml/h/g'.*one of ml/min/g"),
            ({"descrip": "ml/min/kg"}, {}, r"its header says 'ml/min/kg'.*one of ml/min/g"),
            ({"values": 100.0 * map_ml_min_g()}, {}, r"median of 210 positive voxels is 1\d\d\.*"),
            ({"values": 100.0 * map_ml_min_g()}, {}, r"The values fit units='ml/min/100g'"),
            ({"values": 1e6 * map_ml_min_g()}, {}, r"No unit of blood flow fits"),
            ({"values": map_ml_min_g() - 0.6}, {}, r"\d+ of 210 voxels are negative, the least -0"),
            ({"values": np.zeros(SHAPE)}, {}, r"no positive voxel"),
            ({"values": np.full(SHAPE, np.inf)}, {}, r"210 voxels are infinite"),
            ({"values": np.ones((2, 2, 2, 3))}, {}, r"its shape is \(2, 2, 2, 3\)"),
            ({"unit": 0}, {}, r"does not state the unit of length"),
            ({}, {"frame": "LAS"}, r"the frame is 'LAS'"),
            ({"affine": FLAT}, {}, r"affine is .* can be inverted"),
        ],
    )
    def test_sentences(self, tmp_path, change, options, sentence):
        path = pet_file(tmp_path / "p.nii", **change)
        with pytest.raises(InputError, match=r"p\.nii") as error:
            read_pet(path, **options)
        assert error.match(sentence)

    def test_no_such_file_and_no_image(self, tmp_path):
        with pytest.raises(InputError, match="no such file"):
            read_pet(tmp_path / "absent.nii.gz")
        (tmp_path / "text.nii").write_text("not an image")
        with pytest.raises(InputError, match="header cannot be read"):
            read_pet(tmp_path / "text.nii")


class TestOverlap:
    def test_the_share_of_the_wall(self, tmp_path):
        mesh = wall_of()
        values = map_ml_min_g()
        image = read_pet(pet_file(tmp_path / "p.nii", values), mesh=mesh)
        assert check_overlap(image, mesh) == 1.0
        values[1] = np.nan  # a fifth of the wall
        image = read_pet(pet_file(tmp_path / "p.nii", values))
        assert check_overlap(image, mesh, least=0.75) == pytest.approx(0.8, rel=1e-12)
        with pytest.raises(InputError, match=r"80\.0 % of the wall.*at least 90 %.*one patient"):
            read_pet(tmp_path / "p.nii", mesh=mesh)

    def test_another_frame(self, tmp_path):
        mesh = wall_of()
        image = read_pet(pet_file(tmp_path / "p.nii"))
        with pytest.raises(InputError, match="the map is in LPS and the mesh in RAS"):
            check_overlap(image, mesh_in_frame(mesh, "RAS"))
        wrong = PETImage(image.mbf, mesh_in_frame(mesh, "RAS").affine, "LPS", "p.nii")
        sentence = r"0\.0 % of the wall.*negated it would be 100\.0 %.*LPS or RAS"
        with pytest.raises(InputError, match=sentence):
            check_overlap(wrong, mesh)

    def test_the_median_of_the_wall_counts_where_the_wall_is_known(self, tmp_path):
        values = np.full(SHAPE, 0.01)  # outside: faint
        values[1:6, 1:5, 1:4] = 2.0
        values[0] = 1e-3
        path = pet_file(tmp_path / "p.nii", np.where(values == 2.0, 2.0, 1e-3))
        with pytest.raises(InputError, match=r"positive voxels is 0\.001"):
            read_pet(path)
        assert read_pet(path, mesh=wall_of()).mbf_ml_min_g.max() == pytest.approx(2.0)
        hundred = pet_file(tmp_path / "h.nii", 100.0 * values)
        with pytest.raises(InputError, match=r"median of the wall is 200 ml/min/g.*ml/min/100g"):
            read_pet(hundred, mesh=wall_of())

    @requires_data
    def test_a_patients_heart_in_both_frames(self, tmp_path):
        labels = data_dir() / "lv_patient" / "heart_labels.nii.gz"
        mesh = read_voxel_labels(labels, label=1, frame="LPS")
        mbf = 1.0 + 10.0 * np.abs(mesh.centre[:, 2] - mesh.centre[:, 2].mean())
        path = tmp_path / "mbf.nii.gz"
        write_nifti(path, mesh, mbf, background=np.nan, description="MBF rest ml/min/g")
        image = read_pet(path, mesh=mesh)
        inside = image.mbf_ml_min_g[tuple(mesh.cell_ijk.T)]
        np.testing.assert_allclose(inside, mbf, rtol=1e-6)
        with pytest.raises(InputError, match="% of the wall"):
            check_overlap(PETImage(image.mbf, image.affine, "RAS", "p"), mesh_in_frame(mesh, "RAS"))


def csv_file(folder, text):
    path = folder / "table.csv"
    path.write_text(text, encoding="utf-8")
    return path


SEGMENTS = "segment,mbf_rest_ml_min_g,mbf_hyperemia_ml_min_g\n"


class TestReadSegments:
    def test_values_in_si(self, tmp_path):
        found = read_segments(csv_file(tmp_path, SEGMENTS + "3,0.9,2.5\n\n1,0.8,\n17,nan,3.0\n"))
        assert list(found) == ["rest", "hyperemia"]
        rest, hyperemia = np.full(17, np.nan), np.full(17, np.nan)
        rest[[0, 2]] = [0.8, 0.9]
        hyperemia[[2, 16]] = [2.5, 3.0]
        np.testing.assert_allclose(found["rest"], rest * ML_MIN_G, rtol=1e-13)
        np.testing.assert_allclose(found["hyperemia"], hyperemia * ML_MIN_G, rtol=1e-13)

    def test_any_state_in_either_unit_as_a_spreadsheet_writes_it(self, tmp_path):
        text = "\ufeffsegment, note, mbf_cold_pressor_ml_min_100g\n1, basal, 120\n2, , 90\n"
        found = read_segments(csv_file(tmp_path, text))
        assert list(found) == ["cold_pressor"]
        np.testing.assert_allclose(found["cold_pressor"][:2], np.array([1.2, 0.9]) * ML_MIN_G)

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("seg,mbf_rest_ml_min_g\n1,1\n", "has no column segment; its columns are seg, mbf"),
            ("segment,rest\n1,1\n", "no column of blood flow; its columns are segment, rest"),
            ("segment;mbf_rest_ml_min_g\n1;1\n", "separated by commas"),
            ("segment,mbf_a_ml_min_g,mbf_a_ml_min_100g\n1,1,1\n", "state a has two columns"),
            ("segment,mbf_a_ml_min_g,mbf_a_ml_min_g\n1,1,1\n", "2 columns 'mbf_a_ml_min_g'"),
            (SEGMENTS + "1,1,2\n18,1,2\n", "line 3: segment is '18'"),
            (SEGMENTS + "1.5,1,2\n", "line 2: segment is '1.5'"),
            (SEGMENTS + "apex,1,2\n", "line 2: segment is 'apex'"),
            (SEGMENTS + "4,1,2\n4,1,2\n", "line 3: segment 4 stands here a second time.*line 2"),
            (SEGMENTS + "1,x,2\n", "line 2: mbf_rest_ml_min_g is 'x'"),
            (SEGMENTS + "1,inf,2\n", "line 2: mbf_rest_ml_min_g is 'inf'"),
            (SEGMENTS + "1,-0.1,2\n", "line 2: mbf_rest_ml_min_g is -0.1.*Leave the field empty"),
            (SEGMENTS + "1,90,2\n", "line 2: mbf_rest_ml_min_g is 90.*_ml_min_100g"),
            (SEGMENTS + "1,1\n", "line 2: the number of its fields is 2"),
            (SEGMENTS + "1,0,9,2,5\n", "line 2: the number of its fields is 5.*with a point"),
            (SEGMENTS + "1,1,\n", "no value of the state hyperemia"),
            (SEGMENTS, "no value of the state rest"),
        ],
    )
    def test_sentences(self, tmp_path, text, sentence):
        with pytest.raises(InputError, match=r"table\.csv") as error:
            read_segments(csv_file(tmp_path, text))
        assert error.match(sentence)


class TestReadFFR:
    def test_readings(self, tmp_path):
        text = "branch,at_mm,ffr,state\nLAD,30,0.74,\nLAD,5.5,0.93,hyperemia\nLCx,20,0.98,rest\n"
        first, second, third = read_ffr(csv_file(tmp_path, text), _network())
        assert (first.branch, first.at_mm, first.ffr, first.state) == (
            "LAD",
            30.0,
            0.74,
            "hyperemia",
        )
        assert (second.at_mm, third.state) == (5.5, "rest")
        assert third.where.endswith("line 4")
        (alone,) = read_ffr(csv_file(tmp_path, "branch,at_mm,ffr\nLM,1,1.01\n"), _network())
        assert alone.state == "hyperemia"

    @pytest.mark.parametrize(
        ("lines", "sentence"),
        [
            ("OM1,10,0.8\n", "line 2: there is no branch 'OM1'.*LM, LAD, LCx, RCA"),
            ("LAD,10,0.8\nLAD,41,0.8\n", "line 3: 41.0 mm does not lie.*0 to 40.00 mm"),
            ("LAD,-1,0.8\n", "line 2: -1.0 mm does not lie"),
            ("LAD,10,0\n", "line 2: ffr is 0.*Correct the line"),
            ("LAD,10,1.05\n", "line 2: ffr is 1.05.*up to 1.02.*drift"),
            ("LAD,10,80\n", "line 2: ffr is 80.*0.80 for 80 %"),
            ("LAD,10,low\n", "line 2: ffr is 'low'"),
            ("LAD,10,0.8\nLAD,10,0.7\n", "line 3: LAD at 10 mm in hyperemia stands"),
            ("", "no line after the names"),
        ],
    )
    def test_sentences(self, tmp_path, lines, sentence):
        path = csv_file(tmp_path, "branch,at_mm,ffr\n" + lines)
        with pytest.raises(InputError, match=r"table\.csv") as error:
            read_ffr(path, _network())
        assert error.match(sentence)
