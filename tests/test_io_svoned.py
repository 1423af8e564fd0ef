"""svOneDSolver input files."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data_dir, requires_data
from sample_texts import Y_CASE

from jaxperf import InputError
from jaxperf.io import read_svoned
from jaxperf.network import (
    branch_course,
    CoronaryOutletSvOneD,
    FlowBoundary,
    FlowWaveform,
    PressureBoundary,
    PressureWaveform,
    ResistanceOutlet,
)


@pytest.fixture
def y_case(tmp_path):
    path = tmp_path / "y.in"
    path.write_text(Y_CASE)
    return read_svoned(path)


def test_network_is_joined_by_topology(y_case):
    network = y_case.network
    assert network.branch_name == ("a", "b")
    assert jnp.allclose(network.length, jnp.array([0.01, 0.015, 0.014, 0.01]))
    assert network.segment_node.tolist() == [[0, 1], [1, 2], [1, 3], [2, 4]]
    assert branch_course(network, "a")[0].tolist() == [0, 1, 3]
    assert jnp.allclose(network.radius[0], 2e-3, rtol=1e-6)
    assert np.allclose(y_case.ostium_offset, [0, 0, 2e-4, 0], atol=1e-12)
    assert y_case.segment_name == ("a_0", "a_1", "b_0", "a_2")


def test_boundary_data_in_si(y_case):
    inlet, resistance, coronary = y_case.boundary
    assert isinstance(inlet, PressureWaveform)
    assert inlet.node.tolist() == [0]
    # dyn/cm2 to Pa
    assert inlet.pressure.time.tolist() == [0.0, 0.25, 1.0]
    assert inlet.pressure.value[0].tolist() == pytest.approx([1e4, 1.4e4, 1e4])
    assert float(inlet.pressure.period) == 1.0
    assert isinstance(resistance, ResistanceOutlet)
    assert resistance.node.tolist() == [3]
    assert resistance.resistance.tolist() == pytest.approx([1e10])
    assert resistance.pressure_ref.tolist() == pytest.approx([500.0])
    assert isinstance(coronary, CoronaryOutletSvOneD)
    expected = {
        "resistance_proximal": 1e10,
        "resistance_middle": 2e10,
        "resistance_distal": 5e9,
        "compliance_proximal": 1e-11,
        "compliance_distal": 4e-11,
        "pressure_offset": 300.0,
    }
    for name, value in expected.items():
        assert getattr(coronary, name).tolist() == pytest.approx([value])
    assert coronary.pressure_im.value[0].tolist() == pytest.approx([100, 300, 100])
    assert coronary.pressure_im.time.tolist() == [0.0, 0.5, 1.0]


def test_material_in_si(y_case):
    material = dataclasses.asdict(y_case.material[0])
    assert material == pytest.approx(
        {
            "name": "M", "density": 1060.0, "viscosity": 4e-3, "reference_pressure": 0.0,
            "profile_exponent": 2.0, "k1": 2e6, "k2": -2253.0, "k3": 8.65e4,
        }
    )  # fmt: skip
    assert y_case.segment_material.tolist() == [0, 0, 0, 0]


def test_flow_inlet(tmp_path):
    path = tmp_path / "flow.in"
    path.write_text(
        Y_CASE.replace("PRESSURE_WAVE", "FLOW").replace("100000", "2").replace("140000", "4")
    )
    case = read_svoned(path, branch_name={"a": "LAD"})
    assert isinstance(case.boundary[0], FlowWaveform)
    assert case.boundary[0].flow.value[0].tolist() == pytest.approx([2e-6, 4e-6, 2e-6])
    assert case.network.branch_name == ("LAD", "b")


@pytest.mark.parametrize(
    ("kind", "expected"), [("FLOW", FlowBoundary), ("PRESSURE", PressureBoundary)]
)
def test_table_of_one_entry_is_a_constant(tmp_path, kind, expected):
    path = tmp_path / "steady.in"
    text = Y_CASE.replace("PRESSURE_WAVE", kind).replace("0.25 140000\n1.0 100000\n", "")
    path.write_text(text.replace("0.5 3000\n1.0 1000\n", ""))
    case = read_svoned(path)
    assert isinstance(case.boundary[0], expected)
    assert case.boundary[2].pressure_im is None


def two_coronary_outlets(table):
    """The case with a second CORONARY outlet, with this table of intramyocardial pressure."""
    head = "DATATABLE D LIST\n-6 1e5 -5 2e5 -4 1e-6 -3 4e-6 -2 5e4 -1 3000\n"
    return Y_CASE.replace("RESISTANCE R ", "CORONARY D ").replace(
        "DATATABLE R", f"{head}{table}ENDDATATABLE\nDATATABLE R"
    )


@pytest.mark.parametrize("table", ["0 0\n0.3 3000\n1 0\n", "0.2 500\n0.5 0\n1 2000\n", "0 700\n"])
def test_coronary_tables_of_different_knots_become_one_waveform(tmp_path, table):
    path = tmp_path / "two.in"
    path.write_text(two_coronary_outlets(table))
    wave = read_svoned(path).boundary[1].pressure_im
    time, value = np.array([float(x) for x in table.split()]).reshape(-1, 2).T
    # the rows in the order of the segments: b_0 has the new table, a_2 that of the case
    for t in np.linspace(0.01, 0.99, 23):
        new, old = wave(jnp.asarray(t))
        assert float(new) == pytest.approx(np.interp(t, time, 0.1 * value, period=1.0))
        assert float(old) == pytest.approx(np.interp(t, [0, 0.5, 1], [100, 300, 100]))


def test_coronary_tables_of_different_periods_are_refused(tmp_path):
    path = tmp_path / "two.in"
    path.write_text(two_coronary_outlets("0 0\n0.8 100\n"))
    with pytest.raises(InputError, match=r"two\.in:\d+: the table ends at 1 s and .* 0\.8 s"):
        read_svoned(path)


@requires_data
def test_left_coronary_case():
    path = next((data_dir() / "left_coronary").glob("*.in"))
    case = read_svoned(path)
    network = case.network
    assert (network.n_segments, network.n_vessels, len(network.terminals)) == (86, 11, 6)
    assert float(network.length.sum()) == pytest.approx(0.4133, abs=1e-4)
    assert network.branch_name == ("lc1", "lc1_sub1", "lc1_sub2", "lc1_sub3", "lc2", "lc2_sub1")
    # the five side branches start up to 1 mm off the node they are joined to
    assert np.flatnonzero(case.ostium_offset).tolist() == [20, 35, 44, 58, 76]
    assert 0.99e-3 < case.ostium_offset.max() < 1.0e-3
    inlet, coronary = case.boundary
    wave = inlet.pressure
    mean = np.trapezoid(wave.value[0], wave.time) / float(wave.period)
    assert mean / 133.322 == pytest.approx(95.35, abs=0.01)
    assert coronary.node.shape == (6,)
    assert float(coronary.pressure_offset[0]) == pytest.approx(3199.2)
    assert case.material[0].k2 == pytest.approx(-2252.67)
    assert coronary.pressure_im.value.shape[0] == 6
