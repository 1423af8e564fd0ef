"""What a run says, as types: the content of `summary.json`, and its version.

A reader of the file finds every quantity under a name that carries its unit. JSON has no NaN: a
number that does not exist, such as the flow reserve of a vessel without flow, is null there.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

# Raised when a quantity is renamed, is removed or changes its meaning; a further one leaves it.
SCHEMA_VERSION = 1

Number = Annotated[
    float,
    BeforeValidator(lambda x: math.nan if x is None else x),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "null"}]}),
]
ByState = dict[str, Number]


class Part(BaseModel):
    """Common settings: nothing is added in passing, and nothing is changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class SegmentFlow(Part):
    """An AHA segment."""

    name: str
    mbf_ml_min_g: ByState = Field(description="Mean blood flow by state.")
    mbf_endo_ml_min_g: ByState = Field(description="Of the inner half of the wall.")
    mbf_epi_ml_min_g: ByState = Field(description="Of the outer half of the wall.")
    cfr: Number = Field(description="Flow at hyperemia over flow at rest.")


class TerritoryFlow(Part):
    """The tissue that one coronary artery feeds."""

    mbf_ml_min_g: ByState = Field(description="Mean blood flow by state.")
    cfr: Number = Field(description="Flow at hyperemia over flow at rest.")
    volume_share: Number = Field(description="Share in the volume of the wall.")


class LesionFlow(Part):
    """A declared lesion."""

    branch: str
    start_mm: Number
    end_mm: Number
    diameter_reduction: Number
    ffr: Number = Field(
        description="Static over aortic pressure just behind it, at hyperemia; behind an occlusion "
        "the pressure of a vessel without inflow."
    )
    pressure_ratio: ByState = Field(description="The same ratio by state.")
    ffr_behind: Number = Field(description="FFR at `ffr_behind_at_mm` of the branch.")
    ffr_behind_at_mm: Number = Field(
        description="output.ffr_behind_mm behind the lesion, nearer where the branch ends or its "
        "next lesion begins."
    )
    flow_ml_min: ByState = Field(description="Where it ends; none through an occlusion.")
    cfr: Number = Field(description="Null where no blood flows down the vessel at rest.")
    is_occlusion: bool = Field(description="Whether it closes the vessel.")
    wall_share_below: Number = Field(
        description="Share in the volume of the wall of what the vessel feeds behind it."
    )
    side_branches: list[str] = Field(description="Branches that leave inside it.")


class Spread(Part):
    """Mean, coefficient of variation and range."""

    mean: Number
    cv: Number
    min: Number
    max: Number


class ForestTerritory(Part):
    """The trees of one territory and their share in the flow; without a solve none at rest."""

    trees: int
    terminals: int
    share_target: Number
    share_projected: Number = Field(description="Share in the volume of the wall.")
    share_rest: Number | None = Field(default=None, description="Share in the flow at rest.")
    share_rest_error: Number | None = Field(default=None, description="Its relative error.")


class Forest(Part):
    """The grown vessels."""

    anatomy: Literal["synthetic"] = "synthetic"
    trees: int
    terminals: int
    segments: int
    length_m: Number
    terminal_diameter_um: Number
    stub_length_median_mm: Number
    stub_length_max_mm: Number
    trees_wider_than_their_vessel: int
    side_roots_left_out: int
    projected_deviation_max: Number
    projected_within_5_percent: Number
    territories: dict[str, ForestTerritory]
    seconds: Number
    terminals_per_s: Number
    settings: dict[str, Any]
    terminal_region_mm3: Spread | None = None
    terminal_pressure_total_mmHg: dict[str, Spread] | None = None
    tree_territory_mm3: Spread | None = None


class GrownForest(Part):
    """What `jaxperf grow` and `jaxperf growth-report` say."""

    schema_version: Literal[1] = SCHEMA_VERSION
    file: str
    labels: list[str]
    forest: Forest
    warnings: list[str]


_VARIATION = Field(
    description="Largest difference of a cell's mean flow from that through its vessel, relative: "
    "0 where the cells resolve the flow."
)
_RATIO_ERROR = Field(
    description="What cells too long for the vessels on the way change the ratio of mean pressure "
    "to the inlet's by, estimated."
)
_INERTIA = Field(description="Factor on the density in a vessel shorter than a cell, else 1.")
_INERTIA_PRESSURE = Field(
    description="The most that enlarged inertia takes from the pressure on the way."
)


class BeatBranch(Part):
    """Flow where a branch begins and static pressure where it ends, over one beat."""

    flow_mean_ml_min: Number
    flow_steady_ml_min: Number
    flow_max_ml_min: Number
    flow_min_ml_min: Number
    diastolic_share: Number
    flow_systolic_over_diastolic: Number
    pressure_static_distal_mean_mmHg: Number
    pressure_ratio: Number
    pressure_ratio_steady: Number
    flow_variation: Number = _VARIATION
    pressure_ratio_error: Number = _RATIO_ERROR
    inertia_factor: Number = _INERTIA
    inertia_pressure_mmHg: Number = _INERTIA_PRESSURE


class BeatLesion(Part):
    """A lesion over one beat."""

    branch: str
    start_mm: Number
    end_mm: Number
    pressure_ratio: Number
    pressure_ratio_steady: Number
    flow_mean_ml_min: Number


class BeatSeconds(Part):
    """Seconds for the condensed bed and for the transient solve."""

    bed: Number
    solve: Number


class BeatOfState(Part):
    """One periodic beat in one state."""

    branches: dict[str, BeatBranch]
    territories: list[str]
    lesions: list[BeatLesion]
    pressure_systolic_mmHg: Number = Field(description="Of the aortic pressure in this state.")
    pressure_diastolic_mmHg: Number
    flow_mean_ml_min: Number
    flow_relative_difference: Number = Field(description="From the steady solve.")
    outlet_flow_relative_difference_max: Number
    bed_relative_error: Number
    outlets: int
    vessels: int
    cells: int
    cell_time_s: Number
    cycles: int
    seconds: BeatSeconds


class Pulsatile(Part):
    """Pulsatile flow."""

    period_s: Number
    heart_rate_per_min: Number
    systole_s: tuple[Number, Number]
    states: dict[str, BeatOfState]


class RunSeconds(Part):
    """Seconds until the problem stands, of compilation, and of the solves."""

    setup: Number
    compile: Number
    solve: Number


class Summary(Part):
    """The content of `summary.json` of a run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    title: str
    kind: str = Field(description="`patient`, `synthetic` or `composite`.")
    labels: list[str] = Field(description="Where the anatomy is not that of one patient.")
    states: list[str]
    n_vessels: int
    n_terminals: int
    n_cells: int
    mesh: str
    wall_mass_g: Number
    mbf_mean_ml_min_g: ByState
    mbf_by_segment: dict[str, SegmentFlow] = Field(description="By the number of the segment.")
    mbf_by_territory: dict[str, TerritoryFlow]
    cfr_mean: Number
    ffr_min: Number
    ffr_min_branch: str = Field(description="The branch of the lowest FFR.")
    ffr_by_branch: dict[str, Number] = Field(description="The lowest in each branch.")
    lesions: list[LesionFlow]
    hyperemia_factor: Number
    beta_source_per_Pa_s: Number
    beta_sink_per_Pa_s: Number
    mass_balance_relative_error: Number
    newton_iterations: dict[str, int]
    linear_iterations: dict[str, int]
    seconds: RunSeconds
    synthetic_branches: list[str]
    forest: Forest | None
    pulsatile: Pulsatile | None
    warnings: list[str]
    seed: int | None


class VesselFlow(Part):
    """A vessel of a 1-D case over one cycle, at its middle, and what its cells do to it."""

    pressure_static_mean_mmHg: Number
    pressure_static_min_mmHg: Number
    pressure_static_max_mmHg: Number
    pressure_static_proximal_mean_mmHg: Number
    pressure_static_distal_mean_mmHg: Number
    flow_mean_ml_min: Number
    flow_min_ml_min: Number
    flow_max_ml_min: Number
    flow_variation: Number = _VARIATION
    pressure_ratio_error: Number = _RATIO_ERROR
    inertia_factor: Number = _INERTIA
    inertia_pressure_mmHg: Number = _INERTIA_PRESSURE


class Flow1DSeconds(Part):
    """Seconds until the problem stands, and of compilation and solve."""

    setup: Number
    solve: Number


class Flow1DSummary(Part):
    """The content of `summary.json` of `jaxperf flow1d`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    title: str
    format: str
    period_s: Number
    n_vessels: int
    n_cells: int
    cell_time_s: Number
    time_step_s: Number
    vessels: dict[str, VesselFlow]
    cycles: int
    is_periodic: bool
    warnings: list[str]
    seconds: Flow1DSeconds
    seed: None = None


def summary_schema() -> dict[str, Any]:
    """The JSON schema of `summary.json`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Summary.model_json_schema(mode="serialization"),
    }
