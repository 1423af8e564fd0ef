"""What was measured of a heart, as measurements of a fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._custom_types import as_leaf
from .._misc import InputError
from ..casefile import FitSection, Pet, Wire
from ..geometry import AHA17_NAME
from ..inverse import GaussianNoise, LogNormalNoise, Measurement
from ..io import read_ffr, read_pet, read_segments
from ..observe import (
    AbstractTracer,
    Ammonia13N,
    Observations,
    pet_flow,
    pet_segments,
    PETNoise,
    PETOperator,
    pressure_wire,
    PressureWire,
    Rubidium82,
    Water15O,
)
from ..units import M3_S_KG_PER_ML_MIN_G
from ._prepare import Prepared

_TRACER: dict[str | None, AbstractTracer] = {
    None: Water15O(),  # pyright: ignore[reportCallIssue]
    "water": Water15O(),  # pyright: ignore[reportCallIssue]
    "rubidium": Rubidium82(),
    "ammonia": Ammonia13N(),  # pyright: ignore[reportCallIssue]
}


@dataclass(frozen=True)
class Measured:
    """What was measured: `mbf_ml_min_g` (17,) by state, NaN where nothing was, and wires."""

    mbf_ml_min_g: dict[str, Float[np.ndarray, "17"]]
    wires: tuple[Wire, ...]

    @property
    def states(self) -> tuple[str, ...]:
        """States with a measurement, rest and hyperemia first."""
        named = [*self.mbf_ml_min_g, *(wire.state for wire in self.wires)]
        order = {"rest": 0, "hyperemia": 1}
        return tuple(sorted(dict.fromkeys(named), key=lambda name: order.get(name, 2)))


class SeenByPet(eqx.Module):
    """Flow in the AHA segments as a camera and its tracer report it, ml/min/g, plus the floor.

    **Attributes:** `camera`; `tracer`; `floor_ml_min_g`; `states`, one after the other.
    """

    camera: PETOperator
    tracer: AbstractTracer
    floor_ml_min_g: Float[Array, ""]
    states: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, seen: Observations) -> Float[Array, " n"]:
        """(17 · states,)."""
        flow = [pet_flow(self.camera, seen.mbf[state], self.tracer) for state in self.states]
        return jnp.concatenate(flow) / M3_S_KG_PER_ML_MIN_G + self.floor_ml_min_g


class SeenByWires(eqx.Module):
    """Pressure ratios at the places of wires, each in its state."""

    wires: tuple[PressureWire, ...]
    states: tuple[str, ...] = eqx.field(static=True)

    def __call__(self, seen: Observations) -> Float[Array, " w"]:
        """(w,)."""
        pairs = zip(self.wires, self.states, strict=True)
        return jnp.stack([wire(seen, state) for wire, state in pairs])


def read_measured(prepared: Prepared, said: FitSection, data: Path) -> Measured:
    """Read what the case says was measured.

    Maps are averaged in the AHA segments of the model's wall; how far the camera's resolution
    reaches across their borders is part of the model.

    **Errors:** [`InputError`][] that names the file, the line or the vessel.
    """
    scanned = said.pet is not None and (said.pet.segments is not None or bool(said.pet.maps))
    mbf = {} if said.pet is None or not scanned else _read_pet(prepared, said.pet, data)
    known = ("rest", "hyperemia", *prepared.case.states)
    wires = list(said.wires)
    if said.wires_file is not None:
        wires += [
            Wire(branch=r.branch, at_mm=r.at_mm, ratio=r.ffr, state=r.state)
            for r in read_ffr(data / said.wires_file, network=prepared.tree)
        ]
    places = [(wire.branch, wire.at_mm, wire.state) for wire in wires]
    for branch, at_mm, state in places:
        pressure_wire(prepared.network, branch, at_mm)
        if places.count((branch, at_mm, state)) > 1:
            raise InputError(
                f"{branch} at {at_mm:g} mm in {state} was read twice",
                where="fit.wires",
                expected="each place once in a state",
                fix="Keep one of the two readings, or their mean",
            )
    found = Measured(mbf, tuple(wires))
    for name in found.states:
        if name not in known:
            raise InputError(
                f"there is a measurement in the state {name!r}",
                where="fit",
                expected=f"one of {', '.join(known)}",
                fix="Correct the name, or declare the state in the section states",
            )
    if not found.states:
        raise InputError(
            "nothing was measured",
            where="fit",
            expected="a PET measurement or a reading of a pressure wire",
            fix="Give fit.pet or fit.wires, or --pet or --ffr",
        )
    return found


def _read_pet(prepared: Prepared, said: Pet, data: Path) -> dict[str, Float[np.ndarray, "17"]]:
    if said.segments is not None:
        found = read_segments(data / said.segments)
    else:
        mesh = prepared.heart.mesh
        found = {}
        for state, file in said.maps.items():
            image = read_pet(data / file, units=said.units, mesh=mesh, frame=mesh.frame)
            found[state] = _segment_means(image.at(mesh.centre), prepared)
    return {state: value / M3_S_KG_PER_ML_MIN_G for state, value in found.items()}


def _segment_means(value: Float[np.ndarray, " c"], prepared: Prepared) -> Float[np.ndarray, "17"]:
    """Means over what was measured of each segment, NaN where that is less than half of it."""
    # 0 stands for a voxel without a value, as NaN does
    known = np.isfinite(value) & (value > 0.0)
    volume = np.asarray(prepared.heart.mesh.volume)
    each = lambda weight: np.bincount(prepared.segment, weight, 18)[1:18]
    covered = each(np.where(known, volume, 0.0))
    total = each(np.where(known, volume * np.where(known, value, 0.0), 0.0))
    enough = (covered >= 0.5 * each(volume)) & (covered > 0.0)
    return np.where(enough, total / np.where(enough, covered, 1.0), np.nan)


def heart_measurements(
    prepared: Prepared, said: FitSection, measured: Measured, n_cells: int
) -> tuple[Measurement, ...]:
    """Measurements of a [`jaxperf.study.HeartModel`][].

    **Arguments:** `n_cells`, control volumes of the problem that is solved, which may be padded.

    **Errors:** [`InputError`][] naming a vessel that is not there, and for flow that is negative
    by more than the floor.
    """
    found = []
    if measured.mbf_ml_min_g:
        found.append(_pet(prepared, said.pet or Pet(), measured.mbf_ml_min_g, n_cells))
    if measured.wires:
        wires = tuple(pressure_wire(prepared.network, w.branch, w.at_mm) for w in measured.wires)
        labels = tuple(f"{w.branch} at {w.at_mm:g} mm, {w.state}" for w in measured.wires)
        see = SeenByWires(wires, tuple(w.state for w in measured.wires))
        value = np.array([w.ratio for w in measured.wires])
        noise = GaussianNoise(sd=np.array([w.sd for w in measured.wires]))
        found.append(Measurement("wires", see, value, noise, labels))
    return tuple(found)


def pet_camera(prepared: Prepared, fwhm_mm: float, n_cells: int) -> PETOperator:
    """The camera that averages in AHA segments, with columns for padded control volumes."""
    camera = pet_segments(prepared.heart.mesh, prepared.segment, fwhm_mm=fwhm_mm)
    more = n_cells - camera.matrix.shape[1]
    matrix = as_leaf(np.pad(np.asarray(camera.matrix), ((0, 0), (0, more))))
    return eqx.tree_at(lambda c: c.matrix, camera, matrix)


def _pet(
    prepared: Prepared, said: Pet, mbf: Mapping[str, Float[np.ndarray, "17"]], n_cells: int
) -> Measurement:
    tracer = _TRACER[said.tracer]
    noise = PETNoise(**said.noise.model_dump())
    states = tuple(mbf)
    floor = as_leaf(said.noise.floor_ml_min_g, float)
    see = SeenByPet(pet_camera(prepared, said.fwhm_mm, n_cells), tracer, floor, states)
    # a segment that this wall does not have is seen by nobody
    is_there = np.asarray(see.camera.volume) > 0.0
    value = np.concatenate([np.where(is_there, mbf[state], np.nan) for state in states])
    covariance = np.asarray(noise.covariance(len(states), 17))
    if said.tracer is not None:
        # the noise is that of the uptake; the flow read from it has more where the tracer saturates
        known = np.where(np.isfinite(value), np.maximum(value, 0.1), 1.0)
        gain = np.asarray(tracer.noise_gain(as_leaf(known)))
        covariance = gain[:, None] * covariance * gain[None, :]
    labels = tuple(f"{state}, {name}" for state in states for name in AHA17_NAME)
    return Measurement(
        "PET", see, value + said.noise.floor_ml_min_g, LogNormalNoise(covariance=covariance), labels
    )
