"""What a case may say of a fit: what is unknown, and what was measured."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ._section import Name, NotNegative, Positive, Section

Spread = Annotated[float, Field(gt=0.0, le=5.0)]


class BedUnknown(Section):
    """A property of the bed that differs from place to place; 1 is the calibrated heart."""

    by: Literal["territory", "segment", "region", "hierarchy"] = Field(
        default="segment",
        description="One number for each vessel territory, AHA segment or terminal region, or "
        "territories and segments that deviate from theirs.",
    )
    median: Positive = Field(default=1.0, description="Prior median.")
    sd: Spread = Field(description="Prior sd of the logarithm.")
    sd_within: Spread = Field(
        default=0.15, description="For `hierarchy`: sd of the segments about their territory."
    )
    length_mm: Positive = Field(
        default=20.0, description="For `region`: distance over which the field varies."
    )


class Demand(BedUnknown):
    """The flow that the tissue asks for at rest, over the calibrated one."""

    sd: Spread = Field(default=0.25, description="Prior sd of the logarithm.")


class Reserve(BedUnknown):
    """How far the bed can dilate, over the calibrated hyperemia."""

    median: Positive = Field(default=0.8, description="Prior median.")
    sd: Spread = Field(default=0.4, description="Prior sd of the logarithm.")


class Severity(Section):
    """Diameter reduction of each declared lesion, about what the case declares."""

    sd: Annotated[float, Field(gt=0.0, le=0.5)] = Field(
        default=0.10, description="Prior sd, in parts of the diameter."
    )


class Extent(Section):
    """Length of each declared lesion, over what the case declares."""

    sd: Spread = Field(default=0.3, description="Prior sd of the logarithm.")


class AorticPressure(Section):
    """Mean aortic pressure in each measured state, about that of the state."""

    sd_mmHg: Positive = Field(default=5.0, description="Prior sd.")


class Mobility(Section):
    """The mobility K of the tissue, over that of the case."""

    sd: Spread = Field(default=1.0, description="Prior sd of the logarithm.")


class Noise(Section):
    """Log-normal noise of PET blood flow, as parts of it."""

    segment: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.15, description="Of each value."
    )
    scan: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.07, description="Of each scan, common to its values."
    )
    shared: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.07, description="Common to all scans of the patient."
    )
    floor_ml_min_g: NotNegative = Field(
        default=0.05, description="Added before the logarithm, so that low flow counts less."
    )


class Pet(Section):
    """A PET measurement: a table of the AHA segments, or a map for each state."""

    segments: Name | None = Field(
        default=None,
        description="CSV with the columns segment and mbf_STATE_ml_min_g, below the data folder.",
    )
    maps: dict[Name, Name] = Field(
        default_factory=dict, description="NIfTI file of blood flow by state."
    )
    units: Name | None = Field(
        default=None, description="Unit of the maps where their header does not say it."
    )
    fwhm_mm: Annotated[float, Field(ge=0.0, le=20.0)] = Field(
        default=8.0, description="Width of the camera's point-spread function."
    )
    tracer: Literal["water", "rubidium", "ammonia"] | None = Field(
        default=None,
        description="Tracer whose uptake was averaged; flow itself where left out.",
    )
    noise: Noise = Field(default_factory=Noise, description="Noise of the flow.")

    @model_validator(mode="after")
    def _one(self) -> "Pet":
        if self.segments is not None and self.maps:
            raise ValueError("give segments or maps, and not both")
        return self


class Wire(Section):
    """A reading of a pressure wire: distal over aortic pressure."""

    branch: Name = Field(description="Branch that the sensor lay in.")
    at_mm: NotNegative = Field(description="Distance from the beginning of the branch.")
    ratio: Annotated[float, Field(gt=0.0, le=1.02)] = Field(description="What was read.")
    sd: Annotated[float, Field(gt=0.0, le=0.2)] = Field(default=0.02, description="Its sd.")
    state: Name = Field(default="hyperemia", description="State in which it was read.")


class FitSection(Section):
    """What is fitted to what."""

    demand: Demand | None = Field(default_factory=Demand, description="null leaves it fixed.")
    reserve: Reserve | None = Field(default_factory=Reserve, description="null leaves it fixed.")
    severity: Severity | None = Field(default_factory=Severity, description="null leaves it fixed.")
    extent: Extent | None = Field(default=None, description="Length of the lesions; fixed here.")
    aortic_pressure: AorticPressure | None = Field(
        default_factory=AorticPressure, description="null leaves it fixed."
    )
    mobility: Mobility | None = Field(default=None, description="K; fixed where left out.")
    pet: Pet | None = Field(default=None, description="A PET measurement.")
    wires: tuple[Wire, ...] = Field(default=(), description="Readings of pressure wires.")
    wires_file: Name | None = Field(
        default=None, description="CSV of further readings: branch, at_mm, ffr."
    )
    starts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=4, description="Starts of the search for modes."
    )
    max_steps: Annotated[int, Field(ge=1)] = Field(default=50, description="Steps of each start.")
    tolerance: Positive = Field(default=1e-3, description="Nats that may be left to gain.")
    level: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.8, description="Probability that an interval holds."
    )
    posterior: Literal["laplace", "mixture", "nuts"] = Field(
        default="laplace",
        description="Gaussian about the best mode, corrected mixture of all modes, or samples.",
    )
    draws: Annotated[int, Field(ge=50)] = Field(
        default=400, description="Draws of `mixture` and `nuts`."
    )
    check_draws: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Solves that check the Gaussian, 25 or more; 0 for no check."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of starts and draws.")

    @model_validator(mode="after")
    def _enough(self) -> "FitSection":
        if 0 < self.check_draws < 25:
            raise ValueError("check_draws must be 0 or at least 25")
        return self
