"""Figures: right layout and colours; the renderer against geometry known in closed form."""

import numpy as np
import pytest

from jaxperf.plot import (
    bullseye_figure,
    Curve,
    MapPanel,
    pullback_figure,
    render,
    save_figure,
    scene_figure,
    SceneLayer,
    smooth_surface,
    territory_colours,
    tubes,
    waveform_figure,
    WaveformPanel,
)


def _sphere(radius=10.0, n=40):
    """Quadrilaterals of a sphere, with outward vectors."""
    theta = np.linspace(0.05, np.pi - 0.05, n)
    phi = np.linspace(0.0, 2.0 * np.pi, 2 * n)
    t, p = np.meshgrid(theta, phi, indexing="ij")
    x = radius * np.stack([np.sin(t) * np.cos(p), np.sin(t) * np.sin(p), np.cos(t)], axis=-1)
    corner = np.stack([x[:-1, :-1], x[1:, :-1], x[1:, 1:], x[:-1, 1:]], axis=2).reshape(-1, 4, 3)
    # every second face turned over: the renderer must orient them by the outward vector
    corner[::2] = corner[::2, ::-1].copy()
    return corner, corner.mean(axis=1)


def test_a_sphere_covers_its_disc():
    corner, outward = _sphere()
    surface = smooth_surface(corner, outward, np.full((len(corner), 3), 0.5), rounds=0)
    picture = render([surface], np.eye(3), centre=np.zeros(3), half_width=20.0, size=(100, 100))
    covered = (picture < 0.999).any(axis=2).mean() * 40.0**2
    assert covered == pytest.approx(np.pi * 100.0, rel=0.03)
    assert np.einsum("pd,pd->p", surface.normal, surface.point).min() > 9.0


def test_the_nearer_surface_hides_the_farther():
    corner, outward = _sphere()
    red, blue = np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]])
    n = len(corner)
    near = smooth_surface(corner + np.array([0, 0, 15.0]), outward, np.repeat(red, n, 0), rounds=0)
    far = smooth_surface(corner, outward, np.repeat(blue, n, 0), rounds=0)
    for order in ([near, far], [far, near]):
        picture = render(order, np.eye(3), centre=np.zeros(3), half_width=20.0, size=(60, 60))
        assert picture[30, 30, 0] > 0.3 > picture[30, 30, 2]


def test_smoothing_keeps_the_volume_of_a_stepped_ball():
    from jaxperf.geometry import build_voxel_mesh

    grid = np.stack(np.meshgrid(*[np.arange(24)] * 3, indexing="ij"), axis=-1) - 11.5
    label = (np.sum(grid**2, axis=-1) < 100.0).astype(np.int32)
    faces = build_voxel_mesh(
        label, np.diag([1e-3, 1e-3, 1e-3, 1.0]), frame="model"
    ).boundary_faces()
    surface = smooth_surface(faces.corner, faces.normal, np.zeros((len(faces.area), 3)))
    a, b, c = (surface.point[surface.triangle[:, i]] for i in range(3))
    volume = np.einsum("md,md->m", a, np.cross(b, c)).sum() / 6.0
    assert volume == pytest.approx(label.sum() * 1e-9, rel=0.03)
    middle = surface.point.mean(axis=0)
    radial = np.linalg.norm(surface.point - middle, axis=1)
    assert radial.std() / radial.mean() < 0.02


def test_bullseye_places_the_segments_as_cerqueira_does():
    values = np.arange(1.0, 18.0)
    figure = bullseye_figure([MapPanel("Rest", values, "MBF (ml/min/g)")], title="t", note="n")
    axes = figure.axes[0]
    place = {t.get_text(): t.get_position() for t in axes.texts}
    x, y = place["1"]
    assert abs(x) < 1e-9 and y > 0.7  # basal anterior is up
    assert place["2"][0] < 0 < place["2"][1]  # anteroseptal: septum on the left, above
    assert place["3"][0] < 0 and place["3"][1] < 0.1
    assert place["4"][1] < -0.7  # basal inferior is down
    assert place["5"][0] > 0 > place["5"][1] - 0.1
    assert place["6"][0] > 0 and place["6"][1] > 0
    assert place["13"][1] > 0.3 and place["14"][0] < -0.3 and place["16"][0] > 0.3
    assert np.hypot(*place["17"]) < 0.1
    assert place["septal"][0] < -1.0 and place["anterior"][1] > 1.0
    assert figure.axes[1].get_xlabel() == "MBF (ml/min/g)"


def test_a_segment_without_tissue_is_grey():
    values = np.ones(17)
    values[16] = np.nan
    figure = bullseye_figure([MapPanel("Rest", values, "MBF")], title="t")
    assert "–" in [t.get_text() for t in figure.axes[0].texts]


def test_pullback_has_labelled_axes_and_the_threshold(tmp_path):
    arc = np.linspace(0.0, 100.0, 20)
    ratio = {"rest": np.linspace(1.0, 0.95, 20), "hyperemia": np.linspace(1.0, 0.7, 20)}
    curve = Curve("LAD", arc, ratio, ((20.0, 30.0, 0.6),), 10.0)
    figure = pullback_figure([curve], title="t", note="synthetic")
    axes = figure.axes[0]
    assert axes.get_xlabel() == "distance from the ostium (mm)"
    assert any(np.allclose(line.get_ydata(), 0.8) for line in axes.lines)
    assert "60 %" in [t.get_text() for t in axes.texts]
    # no curve crosses the legend: it lies outside of the panels
    assert axes.get_legend() is None
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert not box.overlaps(axes.get_window_extent())
    assert [t.get_text() for t in figure.legends[0].texts] == ["rest", "hyperemia"]
    save_figure(tmp_path / "a.png", figure)
    assert (tmp_path / "a.png").read_bytes()[1:4] == b"PNG"


def test_a_territory_has_one_colour_in_every_picture():
    three = territory_colours(["LAD", "LCx", "RCA"])
    assert len(set(three.values())) == 3
    assert territory_colours(["RCA (synthetic)", "LAD"]) == {
        "RCA (synthetic)": three["RCA"],
        "LAD": three["LAD"],
    }
    other = territory_colours(["branch 1", "LCx", "branch 0"])
    assert other["LCx"] == three["LCx"] and len({*other.values(), *three.values()}) == 5
    time = np.linspace(0.0, 1.0, 5)
    curves = {"aorta": time, "LCx": time, "LAD": 1.0 - time}
    axes = waveform_figure(
        [WaveformPanel("flow", "ml/min", time, curves)], columns=1, title="t", colours=three
    ).axes[0]
    drawn = {line.get_label(): line.get_color() for line in axes.lines}
    assert drawn["LAD"] == three["LAD"] and drawn["LCx"] == three["LCx"]
    assert drawn["aorta"] not in three.values()


def test_scene_has_a_colour_bar_for_each_layer():
    end = np.array([[[0.0, 0, 0], [0, 0, 30.0]], [[0, 0, 30.0], [10.0, 0, 40.0]]])
    layer = SceneLayer("FFR", "inferno", 0.5, 1.0)
    surface = tubes(end, np.full((2, 2), 2.0), layer.colours(np.array([[1.0, 0.9], [0.9, 0.6]])))
    figure = scene_figure([surface], [layer], [("front", np.eye(3))], title="t")
    assert "FFR" in [a.get_xlabel() for a in figure.axes]


def test_a_name_has_one_colour_in_all_panels_of_waveforms():
    time = np.linspace(0.0, 1.0, 5)
    both = {"LAD": time, "LCx": 1.0 - time}
    panels = [
        WaveformPanel("rest", "flow", time, {"inlet": time, **both}),
        WaveformPanel("hyperemia", "flow", time, {"inlet": time, **both}),
        WaveformPanel("distal", "flow", time, {"LCx": time, "LAD": time}),
        WaveformPanel("proximal", "flow", time, {"inlet": time}),
    ]
    axes = waveform_figure(panels, columns=2, title="beat").axes
    colour = [{line.get_label(): line.get_color() for line in a.lines} for a in axes]
    assert colour[0] == colour[1] and len(set(colour[0].values())) == 3
    assert all(panel[name] == colour[0][name] for panel in colour for name in panel)
    # said once for a row of the same names, and in the title for one curve alone
    assert [a.get_legend() is None for a in axes] == [True, False, False, True]
    assert axes[3].get_title(loc="left") == "proximal, inlet"
