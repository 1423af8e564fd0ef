"""The cases of Boileau et al. are those that their reference series were computed for."""

import numpy as np
import pytest
from boileau import aortic_bifurcation, common_carotid, missing_boileau
from helpers import data_dir

pytestmark = pytest.mark.skipif(missing_boileau() is not None, reason=missing_boileau() or "")


@pytest.mark.parametrize(
    ("name", "build", "vessels"), [("cca", common_carotid, 1), ("ibif", aortic_bifurcation, 3)]
)
def test_walls_are_those_of_the_series(name, build, vessels):
    case = build()
    assert case.network.n_vessels == vessels
    for place, series in case.finite_volume.items():
        table = data_dir() / "boileau2015" / name / f"fvm_{place}.csv"
        stretch = np.loadtxt(table, delimiter=",", skiprows=1)[:, 3] * 1e-3
        radius = float(case.network.radius[series.segment, 0])
        law = 4 / 3 * case.stiffness_segment[series.segment, 0] * stretch / radius
        # Pa; the table rounds P_d and the series are written with ten digits
        assert np.allclose(case.pressure_reference + law, series.pressure, rtol=0, atol=0.05)


@pytest.mark.parametrize("build", [common_carotid, aortic_bifurcation])
def test_mean_pressure_is_mean_inflow_times_resistance(build):
    """The wall stores nothing over a cycle, and the vessels' own loss is small."""
    case = build()
    inlet, outlet = case.boundary
    mean = np.trapezoid(inlet.flow.value[0], inlet.flow.time) / case.period
    resistance = 1.0 / float((1.0 / (outlet.resistance_proximal + outlet.resistance_distal)).sum())
    for series in case.finite_volume.values():
        cycle = series.time > series.time[-1] - case.period
        assert series.pressure[cycle].mean() == pytest.approx(mean * resistance, rel=0.01)
