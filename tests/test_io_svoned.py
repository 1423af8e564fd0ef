"""svOneDSolver input files."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import data_dir, requires_data
from sample_texts import Y_CASE

from jaxperf.io import read_svoned
from jaxperf.network import (
    branch_course,
    CoronaryOutletSvOneD,
    FlowBoundary,
    PressureBoundary,
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
    assert isinstance(inlet, PressureBoundary)
    assert inlet.node.tolist() == [0]
    # dyn/cm2 to Pa; linear between the entries of the table
    assert inlet.pressure.tolist() == pytest.approx([12000.0])
    assert y_case.inlet.period == 1.0
    assert isinstance(resistance, ResistanceOutlet)
    assert resistance.node.tolist() == [3]
    assert resistance.resistance.tolist() == pytest.approx([1e10])
    assert resistance.pressure_ref.tolist() == pytest.approx([500.0])
    assert isinstance(coronary, CoronaryOutletSvOneD)
    expected = {"Ra": 1e10, "Ra_micro": 2e10, "Rv": 5e9, "Ca": 1e-11, "Cim": 4e-11, "P_ref": 300.0}
    for name, value in expected.items():
        assert getattr(coronary, name).tolist() == pytest.approx([value])
    assert y_case.intramyocardial_pressure["a_2"].value.tolist() == pytest.approx([100, 300, 100])


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
    assert isinstance(case.boundary[0], FlowBoundary)
    assert case.boundary[0].flow.tolist() == pytest.approx([3e-6])
    assert case.network.branch_name == ("LAD", "b")


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
    assert case.inlet.mean / 133.322 == pytest.approx(95.35, abs=0.01)
    coronary = case.boundary[1]
    assert coronary.node.shape == (6,)
    assert float(coronary.P_ref[0]) == pytest.approx(3199.2)
    assert case.material[0].k2 == pytest.approx(-2252.67)
    assert len(case.intramyocardial_pressure) == 6
