"""Figures: arrays in, matplotlib figures out; heavy imports inside the functions."""

from ._bullseye import (
    bullseye as bullseye,
    bullseye_figure as bullseye_figure,
    colour_range as colour_range,
    MapPanel as MapPanel,
    segment_places as segment_places,
)
from ._intervals import interval_figure as interval_figure, IntervalRow as IntervalRow
from ._morphometry import morphometry_figure as morphometry_figure
from ._pullback import Curve as Curve, pullback_figure as pullback_figure
from ._raster import (
    render as render,
    smooth_surface as smooth_surface,
    Surface as Surface,
    tubes as tubes,
)
from ._scene import scene_figure as scene_figure, SceneLayer as SceneLayer
from ._style import (
    INK as INK,
    PALETTE as PALETTE,
    save_figure as save_figure,
    territory_colours as territory_colours,
)
from ._waveforms import waveform_figure as waveform_figure, WaveformPanel as WaveformPanel
