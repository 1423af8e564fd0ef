"""What is usual for the numbers of a case, and which unit an unusual one is probably in.

The schema refuses what no heart can have. Between that and the usual a number may be right, and may
be one in another unit: `check` says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel


@dataclass(frozen=True)
class Usual:
    """The range of a quantity in hearts, in `unit`, and what one of other units is in this one."""

    low: float
    high: float
    unit: str
    other: tuple[tuple[str, float], ...] = ()

    def likely(self, value: float) -> str | None:
        """What to write in place of a number, where it is usual in another unit."""
        for name, factor in self.other:
            if self.low <= value * factor <= self.high:
                write = f"write {value * factor:.4g} for that"
                return f"{value:g} looks like {name}{'' if ';' in name else ';'} {write}"
        return None


_PRESSURES = (("Pa", 1 / 133.322), ("kPa", 7.50062), ("dyn/cm²", 0.1 / 133.322), ("cmH2O", 0.73556))
_FLOWS = (("ml/min/100 g", 0.01), ("ml/s/g", 60.0), ("l/min/g", 1e3), ("m³/(s·kg)", 6e4))
_VISCOSITIES = (("Pa·s", 1e3), ("poise", 100.0), ("µPa·s", 1e-3))
_DENSITIES = (("g/ml", 1e3), ("kg/l", 1e3), ("g/mm³", 1e6))
_TIMES = (("ms", 1e-3), ("minutes", 60.0))
_LENGTHS = (("m", 1e3), ("cm", 10.0), ("µm", 1e-3))
_SHARES = (("percent", 0.01),)
_AORTIC = Usual(50.0, 150.0, "mmHg", _PRESSURES)
_MOBILITY = Usual(
    1e-10,
    1e-7,
    "m²/(Pa·s)",
    (
        ("a permeability in m²; divided by 3.5 mPa·s", 1 / 3.5e-3),
        ("a permeability in mm²; divided by 3.5 mPa·s", 1e-6 / 3.5e-3),
        ("a permeability in darcy; divided by 3.5 mPa·s", 9.869e-13 / 3.5e-3),
    ),
)
# By key; a star stands for every entry of a list or a mapping.
USUAL = {
    "boundary.pressure_inlet_mmHg": _AORTIC,
    "boundary.pressure_hyperemia_mmHg": _AORTIC,
    "states.*.pressure_inlet_mmHg": _AORTIC,
    "boundary.outlets.*.flow_ml_min": Usual(0.0, 100.0, "ml/min", (("m³/s", 6e7), ("ml/s", 60.0))),
    "boundary.outlets.*.resistance_mmHg_min_ml": Usual(
        0.1, 100.0, "mmHg·min/ml", (("Pa·s/m³", 1.25e-10), ("dyn·s/cm⁵", 1.25e-5))
    ),
    "boundary.outlets.*.pressure_reference_mmHg": Usual(-5.0, 100.0, "mmHg", _PRESSURES),
    "blood.density_kg_m3": Usual(1000.0, 1100.0, "kg/m³", _DENSITIES),
    "blood.viscosity_mPa_s": Usual(2.0, 7.0, "mPa·s", _VISCOSITIES),
    "blood.plasma_viscosity_mPa_s": Usual(0.9, 2.0, "mPa·s", _VISCOSITIES),
    "blood.haematocrit": Usual(0.2, 0.65, "a fraction", _SHARES),
    "blood.profile_exponent": Usual(2.0, 20.0, "without unit"),
    "wall.k1_Pa": Usual(1e5, 1e7, "Pa", (("dyn/cm²", 0.1), ("kPa", 1e3))),
    "wall.k2_per_m": Usual(-1e4, -200.0, "1/m", (("1/cm", 100.0), ("1/mm", 1e3))),
    "wall.k3_Pa": Usual(1e4, 5e5, "Pa", (("dyn/cm²", 0.1), ("kPa", 1e3))),
    "wall.pressure_reference_mmHg": Usual(0.0, 150.0, "mmHg", _PRESSURES),
    "microcirculation.mbf_rest_ml_min_g": Usual(0.3, 2.5, "ml/min/g", _FLOWS),
    "microcirculation.mbf_hyperemia_ml_min_g": Usual(0.8, 7.0, "ml/min/g", _FLOWS),
    "microcirculation.hyperemia_factor": Usual(1.2, 12.0, "without unit", _SHARES),
    "microcirculation.pressure_capillary_mmHg": Usual(8.0, 40.0, "mmHg", _PRESSURES),
    "microcirculation.pressure_sink_mmHg": Usual(-5.0, 20.0, "mmHg", _PRESSURES),
    "microcirculation.permeability_m2_per_Pa_s": _MOBILITY,
    "microcirculation.permeability_across_m2_per_Pa_s": _MOBILITY,
    "microcirculation.density_kg_m3": Usual(1000.0, 1100.0, "kg/m³", _DENSITIES),
    "lesions.*.diameter_reduction": Usual(0.0, 0.98, "a fraction", _SHARES),
    "lesions.*.reference_radius_mm": Usual(0.3, 3.5, "mm", _LENGTHS),
    "synthetic_rca.proximal_diameter_mm": Usual(1.5, 6.0, "mm", _LENGTHS),
    "synthetic_rca.distal_diameter_mm": Usual(0.8, 5.0, "mm", _LENGTHS),
    "ventricle.ellipsoid.endo_long_mm": Usual(30.0, 110.0, "mm", _LENGTHS),
    "ventricle.ellipsoid.wall_base_mm": Usual(4.0, 25.0, "mm", _LENGTHS),
    "ventricle.ellipsoid.wall_apex_mm": Usual(2.0, 25.0, "mm", _LENGTHS),
    "growth.terminal_diameter_um": Usual(40.0, 500.0, "µm", (("m", 1e6), ("mm", 1e3), ("cm", 1e4))),
    "pulsatile.heart_rate_per_min": Usual(40.0, 180.0, "1/min", (("Hz", 60.0),)),
    "pulsatile.pulse_pressure_mmHg": Usual(20.0, 100.0, "mmHg", _PRESSURES),
    "pulsatile.ejection_duration_s": Usual(0.15, 0.45, "s", _TIMES),
    "pulsatile.lv_diastolic_pressure_mmHg": Usual(2.0, 35.0, "mmHg", _PRESSURES),
    "pulsatile.cell_time_s": Usual(1e-5, 2e-3, "s", (("ms", 1e-3), ("µs", 1e-6))),
    "pulsatile.tissue_compliance_rest_ml_mmHg_100g": Usual(
        0.01, 0.5, "ml/mmHg/100 g", (("ml/mmHg/g", 100.0),)
    ),
    "pulsatile.tissue_compliance_hyperemia_ml_mmHg_100g": Usual(
        0.01, 0.8, "ml/mmHg/100 g", (("ml/mmHg/g", 100.0),)
    ),
    "fit.pet.fwhm_mm": Usual(0.0, 15.0, "mm", _LENGTHS),
    "fit.wires.*.ratio": Usual(0.2, 1.02, "a ratio", _SHARES),
}


def usual_of(keys: list[str]) -> Usual | None:
    """What is usual at a place in a case."""
    for name, usual in USUAL.items():
        parts = name.split(".")
        if len(parts) == len(keys) and all(p in ("*", k) for p, k in zip(parts, keys, strict=True)):
            return usual
    return None


def unusual_values(case: BaseModel) -> Iterator[tuple[str, str]]:
    """Key and sentence for each number of a case that is possible and unusual."""
    for keys, value in _numbers(case.model_dump(), []):
        usual = usual_of(keys)
        if usual is None or usual.low <= value <= usual.high:
            continue
        hint = usual.likely(value)
        said = f"{value:g} is unusual in a heart ({usual.low:g} to {usual.high:g}, {usual.unit})"
        yield ".".join(keys), f"{said}. {hint}" if hint else said


def _numbers(value: Any, keys: list[str]) -> Iterator[tuple[list[str], float]]:
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part, [*keys, str(key)])
    elif isinstance(value, list | tuple):
        for i, part in enumerate(value):
            yield from _numbers(part, [*keys, str(i)])
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield keys, float(value)
