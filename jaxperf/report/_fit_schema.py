"""What a fit says, as types: the content of its `summary.json`."""

from typing import Any, Literal

from pydantic import Field

from ._schema import ByState, Number, Part, SCHEMA_VERSION


class Estimate(Part):
    """A median and the interval that holds the level of the fit."""

    median: Number
    low: Number
    high: Number


class FittedEntry(Part):
    """One entry of a parameter before and after the measurements."""

    parameter: str
    entry: str
    prior: Estimate
    posterior: Estimate
    sd_ratio: Number = Field(
        description="Sd after over sd before, on the unconstrained line; 1 where all is open."
    )


class FittedSegment(Part):
    """An AHA segment: `measured` and `seen` as the camera reports, `mbf` the tissue's flow."""

    segment: int
    name: str
    measured_ml_min_g: ByState
    seen_ml_min_g: ByState
    mbf_ml_min_g: dict[str, Estimate]


class FittedTerritory(Part):
    """A vessel territory."""

    mbf_ml_min_g: dict[str, Estimate]
    cfr: Estimate
    cfr_without_lesions: Estimate


class OpenedLesion(Part):
    """What opening a lesion, alone, is expected to do, at hyperemia."""

    ffr: Estimate = Field(description="Where the lesion ended.")
    mbf_ratio: Estimate = Field(description="Flow of all that it feeds, after over before.")


class FittedLesion(Part):
    """A declared lesion."""

    branch: str
    start_mm: Number
    end_mm: Number
    diameter_reduction: Number = Field(description="As declared.")
    ffr: Estimate
    ffr_ischaemic_probability: Number = Field(description="That FFR is at most 0.80.")
    opened: OpenedLesion


class FittedWire(Part):
    """A reading of a pressure wire."""

    branch: str
    at_mm: Number
    state: str
    measured: Number
    fitted: Estimate


class Labelled(Part):
    """The probability of each label, and why."""

    name: str
    label: str
    probability: dict[str, Number]
    evidence: str


class FurtherMeasurement(Part):
    """What one measurement more would be worth, to first order."""

    measurement: str
    quantity: str
    sd_before: Number
    sd_after: Number


class FitQuality(Part):
    """Whether the model explains the measurements."""

    chi2: Number
    freedom: Number = Field(description="Its expectation: values less effective parameters.")
    p_value: Number
    testable: bool
    predictive: Number = Field(description="Posterior probability that data anew fit worse.")
    words: str
    pareto_k: Number | None = Field(default=None, description="Of the check of the Gaussian.")
    check: str | None = None


class FitCost(Part):
    """What the fit cost, over all starts."""

    solves: int
    columns: int = Field(description="Tangents or adjoints of the model.")
    modes: int
    failed_starts: list[str]
    history: list[list[Number]] = Field(description="Solves and misfit of the best start.")


class FitSummary(Part):
    """The content of `summary.json` of a fit."""

    schema_version: Literal[1] = SCHEMA_VERSION
    title: str
    kind: str
    labels: list[str]
    level: Number
    posterior: str
    states: list[str]
    values: int = Field(description="Measured values in use.")
    left_out: list[str]
    parameters: list[FittedEntry]
    segments: list[FittedSegment]
    territories: dict[str, FittedTerritory]
    lesions: list[FittedLesion]
    wires: list[FittedWire]
    diagnosis: list[Labelled]
    blind: list[str] = Field(description="What the measurements cannot tell apart.")
    further: list[FurtherMeasurement]
    quality: FitQuality
    cost: FitCost
    seconds: dict[str, Number]
    warnings: list[str]
    seed: int


def fit_summary_schema() -> dict[str, Any]:
    """The JSON schema of the `summary.json` of a fit."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **FitSummary.model_json_schema(mode="serialization"),
    }
