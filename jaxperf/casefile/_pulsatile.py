"""The section `pulsatile` of a case."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from .._defaults import (
    CELL_TIME_RANGE,
    CELL_TOLERANCE_RANGE,
    DEFAULT_CELL_TIME,
    DEFAULT_CELL_TOLERANCE,
    DEFAULT_CFL,
)
from ._section import Name, Positive, Section


class Pulsatile(Section):
    """Pulsatile flow over one heart beat; used with `flow: pulsatile`."""

    states: tuple[Name, ...] = Field(
        default=("rest", "hyperemia"),
        min_length=1,
        description="States that are followed over a beat; those of the section `states` too.",
    )
    heart_rate_per_min: Annotated[float, Field(ge=30.0, le=200.0)] | None = Field(
        default=None, description="Heart rate; 70 where left out and no waveform file is given."
    )
    pulse_pressure_mmHg: Annotated[float, Field(gt=0.0, le=150.0)] | None = Field(
        default=None,
        description="Systolic less diastolic aortic pressure about the mean, which is "
        "boundary.pressure_inlet_mmHg; 40 where left out and no waveform file is given.",
    )
    ejection_duration_s: Annotated[float, Field(ge=0.05, le=0.6)] | None = Field(
        default=None,
        description="From the opening to the closure of the aortic valve; from the heart rate "
        "where left out (Weissler 1968).",
    )
    lv_diastolic_pressure_mmHg: Annotated[float, Field(ge=0.0, le=50.0)] = Field(
        default=8.0, description="Left ventricular pressure at the end of diastole."
    )
    aortic_pressure_file: Name | None = Field(
        default=None,
        description="One beat of aortic pressure in place of the built-in one: a CSV file with "
        "the columns time_s, pressure_mmHg, below the data folder. The last time is the period.",
    )
    lv_pressure_file: Name | None = Field(
        default=None,
        description="The same beat of left ventricular pressure; needs aortic_pressure_file.",
    )
    tissue_compliance_rest_ml_mmHg_100g: Positive = Field(
        default=0.10, description="Intramyocardial compliance at rest (Chilian 1984)."
    )
    tissue_compliance_hyperemia_ml_mmHg_100g: Positive = Field(
        default=0.21, description="Intramyocardial compliance at hyperemia (Chilian 1984)."
    )
    min_radius_mm: Positive | None = Field(
        default=None,
        description="Grown vessels from this radius on are 1-D vessels too; none where left out. "
        "The rest of the forest is condensed.",
    )
    cell_time_s: (
        Annotated[float, Field(ge=CELL_TIME_RANGE[0], le=CELL_TIME_RANGE[1])] | Literal["auto"]
    ) = Field(
        default=DEFAULT_CELL_TIME,
        description="Time that a wave takes through one cell of a vessel; with auto cells are "
        "halved until they keep cell_tolerance.",
    )
    cell_tolerance: float = Field(
        ge=CELL_TOLERANCE_RANGE[0],
        le=CELL_TOLERANCE_RANGE[1],
        default=DEFAULT_CELL_TOLERANCE,
        description="What the length of the cells may change a ratio of mean pressures by: more is "
        "a warning.",
    )
    cfl: Annotated[float, Field(gt=0.0, le=0.9)] = Field(
        default=DEFAULT_CFL,
        description="Longest time step over cell_time_s. Waves under load are faster than at rest.",
    )
    cycles_max: int = Field(default=50, ge=1, description="Beats until which it must be periodic.")
    tolerance: Annotated[float, Field(gt=0.0, lt=0.1)] = Field(
        default=1e-6,
        description="Largest change from one beat to the next, relative to the largest pressure "
        "and flow.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "Pulsatile":
        if self.aortic_pressure_file is None:
            if self.lv_pressure_file is not None:
                raise ValueError("lv_pressure_file needs aortic_pressure_file, of the same beat")
            return self
        for name in ("heart_rate_per_min", "pulse_pressure_mmHg"):
            if getattr(self, name) is not None:
                raise ValueError(f"give {name} or aortic_pressure_file, which says it, not both")
        return self
