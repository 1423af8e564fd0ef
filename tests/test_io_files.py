"""Suffixes, byte order marks and cells that readers meet."""

import re

import numpy as np
import pytest
import pyvista
from centerline_files import length_mm, MISR, polydata, Y, Y_MM
from sample_texts import Y_TREE

from jaxperf import InputError
from jaxperf._misc import InputNote
from jaxperf.geometry import ellipsoid_ventricle, kuhn_tetrahedra
from jaxperf.io import read_centerlines, read_swc, read_tets_with_data, write_perfusion
from jaxperf.io._tables import read_table


@pytest.mark.parametrize("binary", [True, False])
def test_lines_in_a_legacy_file(tmp_path, binary):
    polydata(list(Y.values()), 1.5).save(tmp_path / "lines.vtk", binary=binary)
    network = read_centerlines(tmp_path / "lines.vtk", units="mm", frame="LPS")
    assert length_mm(network) == pytest.approx(Y_MM, rel=1e-6)


@pytest.mark.parametrize("name", ["broken.vtk", "broken.vtp"])
def test_vtk_is_silent_before_our_sentence(tmp_path, capfd, caplog, name):
    polydata(list(Y.values()), 1.5).save(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    for cut in (b"hello\nworld\n", whole[: len(whole) // 2]):
        (tmp_path / name).write_bytes(cut)
        with pytest.raises(InputError, match=re.escape(name)):
            read_centerlines(tmp_path / name, units="mm", frame="LPS")
    out, err = capfd.readouterr()
    assert not out and not err and not caplog.records


def test_a_point_that_the_file_does_not_hold_is_refused(tmp_path):
    cells = "<DataArray type='Int64' Name='{}' format='ascii'>{}</DataArray>"
    numbers = "<DataArray type='Float64' Name='{}' NumberOfComponents='{}' format='ascii'>{}"
    (tmp_path / "l.vtp").write_text(
        "<VTKFile type='PolyData' version='0.1'><PolyData>"
        "<Piece NumberOfPoints='3' NumberOfLines='1'>"
        f"<PointData>{numbers.format(MISR, 1, '2 2 2')}</DataArray></PointData>"
        f"<Points>{numbers.format('Points', 3, '0 0 0 10 0 0 20 0 0')}</DataArray></Points>"
        f"<Lines>{cells.format('connectivity', '0 1 7')}{cells.format('offsets', '3')}</Lines>"
        "</Piece></PolyData></VTKFile>"
    )
    with pytest.raises(InputError, match="line 0 names point 7 of 3"):
        read_centerlines(tmp_path / "l.vtp", units="mm", frame="LPS")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_marks_of_byte_order_and_numbers_with_a_point(tmp_path, encoding):
    rows = [line.split() for line in Y_TREE.splitlines()[1:]]
    text = "\n".join(" ".join(f"{float(word):.1f}" for word in row) for row in rows)
    (tmp_path / "y.swc").write_text(text, encoding=encoding)
    network = read_swc(tmp_path / "y.swc", units="mm", frame="LPS", branch_name={5: "LAD"})
    assert (network.n_nodes, network.branch_name[0]) == (8, "LAD")
    (tmp_path / "y.swc").write_text("1.5" + text[3:])
    with pytest.raises(InputError, match=r"y\.swc:1: it is not numeric \(1\.5 is no integer\)"):
        read_swc(tmp_path / "y.swc", units="mm", frame="LPS")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_table_with_a_mark_of_byte_order(tmp_path, encoding):
    path = tmp_path / "p.csv"
    path.write_text("time_s,pressure_mmHg\n0,80\n0.4,120\n0.8,80\n", encoding=encoding)
    assert read_table(path, ("time_s",)).columns == ["time_s", "pressure_mmHg"]


def test_tetrahedra_among_other_cells_are_taken(tmp_path):
    point = 10.0 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [9, 9, 9.0]])
    cells = [3, 0, 1, 2, 4, 0, 1, 2, 3, 4, 1, 2, 3, 4, 2, 4, 5]
    kinds = [pyvista.CellType.TRIANGLE, *[pyvista.CellType.TETRA] * 2, pyvista.CellType.LINE]
    data = pyvista.UnstructuredGrid(cells, kinds, point)
    data.point_data["height_mm"], data.cell_data["number"] = point[:, 2], np.arange(4)
    data.save(tmp_path / "mixed.vtu")
    with pytest.warns(InputNote, match=r"left out \(1 × line, 1 × triangle\)"):
        read = read_tets_with_data(tmp_path / "mixed.vtu", units="mm", frame="LPS")
    assert len(read.mesh.tet) == 2 and len(read.mesh.point) == 5
    assert read.cell_data["number"].tolist() == [1, 2]
    assert np.allclose(1e3 * read.mesh.point[:, 2], read.point_data["height_mm"])


def test_our_tissue_of_voxels_is_read_back_in_tetrahedra(tmp_path):
    voxels, _, _ = ellipsoid_ventricle(spacing_mm=5.0)
    number = np.arange(voxels.n_cells)
    write_perfusion(tmp_path / "wall.vtu", voxels, number=number)
    with pytest.warns(InputNote, match=rf"cut into tetrahedra \({voxels.n_cells} × hexahedron\)"):
        read = read_tets_with_data(tmp_path / "wall.vtu", units="mm", frame="model")
    corner = read.mesh.point[read.mesh.tet]
    each = np.abs(np.linalg.det(corner[:, 1:] - corner[:, :1])) / 6.0
    of_voxel = np.bincount(read.cell_data["number"], each)
    np.testing.assert_allclose(of_voxel, voxels.volume, rtol=1e-5)
    # a face belongs to two tetrahedra, but for two triangles of each face of the surface
    faces = np.sort(read.mesh.tet[:, [[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3]]], axis=-1)
    _, count = np.unique(faces.reshape(-1, 3), axis=0, return_counts=True)
    assert count.max() == 2
    assert (count == 1).sum() == 2 * len(voxels.boundary_faces().cell)


def test_our_tissue_of_tetrahedra_is_read_back(tmp_path):
    box = kuhn_tetrahedra(2, upper=(0.02, 0.02, 0.02))
    write_perfusion(tmp_path / "box.vtu", box, mbf_ml_min_g=box.point[:, 0])
    back = read_tets_with_data(tmp_path / "box.vtu", units="mm", frame="model")
    assert np.allclose(back.mesh.point, box.point) and np.array_equal(back.mesh.tet, box.tet)
    assert np.allclose(back.point_data["mbf_ml_min_g"], box.point[:, 0])
