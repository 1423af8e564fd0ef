"""The case file: what it may say, with units in the names of its keys."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .._defaults import DEFAULT_CELL_TIME, DEFAULT_CELL_TOLERANCE, DEFAULT_CFL
from ._fit import FitSection
from ._section import (
    exactly_one,
    Exponent,
    Finite,
    Fraction,
    Frame,
    NotNegative,
    Point,
    Positive,
    Section,
    Unit,
)


class Tree(Section):
    """The coronary tree: a file, or the built-in demonstration."""

    file: str | None = Field(default=None, description="Path of the tree, below the data folder.")
    format: str | None = Field(
        default=None,
        description="Format of the file: swc, centerlines or svoned; from its suffix (.swc, .vtp, "
        ".in) where left out.",
    )
    units: Unit | None = Field(default=None, description="Unit of length of the file. Required.")
    frame: Frame | None = Field(
        default=None,
        description="Frame of the coordinates: LPS (DICOM, VTK), RAS (NIfTI). Required.",
    )
    n_roots: int = Field(
        default=1, ge=1, description="Number of inlets; read from centrelines only."
    )
    branches: dict[int | str, str] = Field(
        default_factory=dict,
        description="Names of branches. A key is an automatic name such as `branch 0`, or the row "
        "id (SWC) or line number (centrelines) where the branch ends.",
    )
    built_in: Literal["demo"] | None = Field(
        default=None,
        description="The built-in average right-dominant tree; needs ventricle.ellipsoid.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "Tree":
        exactly_one(self, ("file", "built_in"))
        missing = [key for key in ("units", "frame") if getattr(self, key) is None]
        if self.file is not None and missing:
            raise ValueError(f"{' and '.join(missing)} of the tree's file must be stated")
        return self


# Wide enough for any physiology, narrow enough to catch another unit.
Density = Annotated[float, Field(ge=800.0, le=1300.0)]
Viscosity = Annotated[float, Field(ge=0.3, le=30.0)]


class Labels(Section):
    """A NIfTI label volume."""

    file: str = Field(description="Path of the volume, below the data folder.")
    wall: int = Field(description="Label of the left ventricular wall.")
    cavity: int = Field(description="Label of the left ventricular cavity.")
    rv: int = Field(description="Label of the right ventricular cavity.")
    units: Unit | None = Field(
        default=None, description="Unit, only where the header does not state it."
    )
    largest_piece: bool = Field(
        default=False, description="Keep the largest piece of a wall that falls into several."
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Labels":
        if len({self.wall, self.cavity, self.rv}) < 3:
            raise ValueError("wall, cavity and rv must be three different labels")
        return self


class Landmarks(Section):
    """Points that give the ventricle's directions where no labels do."""

    apex_mm: Point = Field(description="Tip of the LV cavity.")
    base_mm: Point = Field(description="Centre of the mitral (or base) plane.")
    rv_mm: Point = Field(description="Centroid of the RV cavity.")
    frame: Frame = Field(description="Frame of the points.")


class Tetrahedra(Section):
    """A tetrahedral mesh of the wall."""

    file: str = Field(description="Path of the .vtu file, below the data folder.")
    units: Unit = Field(description="Unit of length of the file.")
    frame: Frame = Field(description="Frame of the coordinates.")
    landmarks: Landmarks | None = Field(
        default=None,
        description="Directions of the ventricle; not needed where labels are given too.",
    )


class Ellipsoid(Section):
    """A built ventricle: two truncated ellipsoids."""

    spacing_mm: Positive = Field(default=2.5, description="Side of the voxels.")
    endo_short_mm: tuple[Positive, Positive] = Field(
        default=(24.0, 24.0), description="Semi-axes of the cavity towards septum and front."
    )
    endo_long_mm: Positive = Field(
        default=62.0, description="Semi-axis of the cavity along the long axis."
    )
    wall_base_mm: Positive = Field(default=9.5, description="Thickness at the widest place.")
    wall_apex_mm: Positive = Field(default=7.0, description="Thickness at the apex.")
    base_height_mm: Finite = Field(default=22.0, description="Base plane above the widest place.")


class Ventricle(Section):
    """The left ventricle: labels, a mesh, or a built ellipsoid."""

    labels: Labels | None = Field(default=None, description="Label volume.")
    tetrahedra: Tetrahedra | None = Field(default=None, description="Tetrahedral mesh.")
    ellipsoid: Ellipsoid | None = Field(default=None, description="Built ventricle.")
    mesh: Literal["voxels", "tetrahedra"] | None = Field(
        default=None,
        description="What Darcy is solved on. With labels or ellipsoid and no tetrahedra file, "
        "`tetrahedra` cuts the voxels. Default: tetrahedra where a file is given, else voxels.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "Ventricle":
        if self.ellipsoid is not None and (self.labels or self.tetrahedra):
            raise ValueError("give either ellipsoid, or labels and/or tetrahedra")
        if self.ellipsoid is None and self.labels is None and self.tetrahedra is None:
            raise ValueError("give one of labels, tetrahedra, ellipsoid")
        if self.labels is None and self.tetrahedra is not None:
            if self.tetrahedra.landmarks is None:
                raise ValueError("tetrahedra without labels need landmarks")
            if self.mesh == "voxels":
                raise ValueError("mesh: voxels needs labels")
        return self


class SyntheticRCA(Section):
    """A right coronary drawn along the grooves of the epicardium; needs ventricle labels."""

    proximal_diameter_mm: Positive = Field(
        default=3.9, description="Lumen at the ostium (Dodge 1992)."
    )
    distal_diameter_mm: Positive = Field(default=3.0, description="Lumen before the crux.")
    n_posterolateral: int = Field(default=2, ge=0, le=4, description="Posterolateral branches.")
    ostium_mm: Point | None = Field(
        default=None, description="Right ostium; where left out, a place beside the left root."
    )
    frame: Frame = Field(default="LPS", description="Frame of ostium_mm.")
    epicardium_gap_mm: NotNegative = Field(
        default=2.0, description="Centreline above the epicardium."
    )


class Lesion(Section):
    """A declared stenosis."""

    branch: str = Field(description="Name of the branch.")
    start_mm: NotNegative = Field(description="Arc length from the branch's proximal end.")
    end_mm: Positive = Field(description="Arc length where the lesion ends.")
    diameter_reduction: Fraction = Field(description="1 - D_min/D_reference: 0.6 for 60 %.")
    reference_radius_mm: Positive | None = Field(
        default=None, description="Healthy radius; the mean of both ends where left out."
    )


class BloodSection(Section):
    """Blood."""

    density_kg_m3: Density = Field(default=1060.0, description="Density.")
    viscosity: Literal["constant", "pries"] = Field(
        default="constant", description="Law: constant, or Pries (1994) in vivo."
    )
    viscosity_mPa_s: Viscosity = Field(
        default=3.5, description="Dynamic viscosity of the constant law."
    )
    haematocrit: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.45, description="Discharge haematocrit of the Pries law."
    )
    plasma_viscosity_mPa_s: Viscosity = Field(
        default=1.2, description="Plasma viscosity, Pries law."
    )
    profile_exponent: Positive = Field(
        default=2.0, description="Velocity profile: 2 parabolic, 9 blunt."
    )


class Wall(Section):
    """The vessels' wall."""

    law: Literal["rigid", "elastic"] = Field(
        default="rigid", description="Rigid, or Olufsen's E h/r."
    )
    k1_Pa: NotNegative = Field(default=2e6, description="Olufsen's k1.")
    k2_per_m: Finite = Field(default=-2253.0, description="Olufsen's k2.")
    k3_Pa: NotNegative = Field(default=8.65e4, description="Olufsen's k3.")
    pressure_reference_mmHg: Finite = Field(
        default=93.0,
        description="Transmural pressure at which the radii of the tree were measured.",
    )


class Outlet(Section):
    """An outlet that does not perfuse the left ventricle, such as a right ventricular branch."""

    branch: str = Field(description="Branch that ends there.")
    flow_ml_min: NotNegative | None = Field(default=None, description="Prescribed outflow.")
    resistance_mmHg_min_ml: Positive | None = Field(
        default=None, description="Resistance to a pressure."
    )
    pressure_reference_mmHg: Finite = Field(
        default=0.0, description="Pressure behind the resistance."
    )

    @model_validator(mode="after")
    def _complete(self) -> "Outlet":
        exactly_one(self, ("flow_ml_min", "resistance_mmHg_min_ml"))
        return self


class BoundarySection(Section):
    """Pressures and flows at the ends of the tree."""

    pressure_inlet_mmHg: Annotated[float, Field(ge=20.0, le=300.0)] = Field(
        default=93.0, description="Mean aortic pressure at the roots."
    )
    outlets: tuple[Outlet, ...] = Field(default=(), description="Outlets beside the ventricle's.")

    @model_validator(mode="after")
    def _once(self) -> "BoundarySection":
        named = [outlet.branch for outlet in self.outlets]
        for branch in named:
            if named.count(branch) > 1:
                raise ValueError(f"outlets names the branch {branch} twice")
        return self


class MicrocirculationSection(Section):
    """The perfused bed and its calibration in the lesion-free heart."""

    mbf_rest_ml_min_g: Positive = Field(default=1.0, description="Target mean flow at rest.")
    mbf_hyperemia_ml_min_g: Positive | None = Field(
        default=None, description="Target mean flow at hyperemia; or give hyperemia_factor."
    )
    hyperemia_factor: Annotated[float, Field(gt=1.0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="Factor on both conductances; 3.75 where no target is given either.",
    )
    pressure_capillary_mmHg: Finite = Field(default=15.0, description="Mean tissue pressure.")
    pressure_sink_mmHg: Finite = Field(default=0.0, description="Venous pressure.")
    permeability_m2_per_Pa_s: Positive = Field(
        default=2e-9,
        description="The mobility K along the fibres: permeability in m² over viscosity in Pa·s.",
    )
    permeability_across_m2_per_Pa_s: Positive | None = Field(
        default=None, description="K across the fibres; isotropic where left out."
    )
    fibre_endo_deg: Finite = Field(default=60.0, description="Fibre angle at the endocardium.")
    fibre_epi_deg: Finite = Field(default=-60.0, description="Fibre angle at the epicardium.")
    density_kg_m3: Density = Field(default=1050.0, description="Density of the tissue.")

    @model_validator(mode="after")
    def _complete(self) -> "MicrocirculationSection":
        if self.mbf_hyperemia_ml_min_g is not None and self.hyperemia_factor is not None:
            raise ValueError("give mbf_hyperemia_ml_min_g or hyperemia_factor, not both")
        return self


class AutoregulationSection(Section):
    """Adaptation of the bed at rest."""

    enabled: bool = Field(default=True, description="Hold the rest target behind lesions.")
    dilation_min: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        default=0.4, description="Strongest constriction."
    )


class Territories(Section):
    """Which tissue each terminal perfuses."""

    vessel_sites_mm: NotNegative = Field(
        default=40.0,
        description="Length of each terminal vessel, from its end, whose points attract tissue; "
        "0 for the end point alone.",
    )


class ExponentByRadius(Section):
    """A branching exponent that changes with the radius, linearly in its logarithm."""

    small: Exponent = Field(description="Exponent of vessels below radius_small_um.")
    large: Exponent = Field(description="Exponent of vessels above radius_large_um.")
    radius_small_um: Positive = Field(default=50.0, description="Radius of the small vessels.")
    radius_large_um: Positive = Field(default=500.0, description="Radius of the large vessels.")

    @model_validator(mode="after")
    def _ordered(self) -> "ExponentByRadius":
        if not self.radius_small_um < self.radius_large_um:
            raise ValueError("radius_small_um must be below radius_large_um")
        return self


class Growth(Section):
    """A synthetic forest of vessels that no image shows, below the segmented tree."""

    n_terminals: int = Field(default=6000, ge=1, le=200_000, description="Terminals to grow.")
    exponent: Exponent | None = Field(
        default=None, description="Branching exponent; 2.7 where exponent_by_radius is not given."
    )
    exponent_by_radius: ExponentByRadius | None = Field(
        default=None, description="Another exponent for small than for large vessels."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Seed of the terminals' places.")
    root_spacing_mm: Positive = Field(
        default=9.0, description="Least straight distance of side roots from all other roots."
    )
    root_reach_mm: Positive = Field(
        default=8.0, description="No root at the side of a vessel farther than this from the wall."
    )
    territory_share_percent: dict[str, Positive] | Literal["calibre"] | None = Field(
        default=None,
        description="Share of each vessel territory in the flow at rest, by name; their sum is "
        "100. Where left out, LAD 45, LCx 28, RCA 27 if these are the territories. `calibre`: by "
        "the vessels' calibre alone.",
    )
    epicardial_fraction: Fraction = Field(
        default=0.1, description="Share of the terminals grown first, as epicardial conduits."
    )
    terminal_diameter_um: Annotated[float, Field(ge=10.0, le=1000.0)] | None = Field(
        default=None, description="Diameter of the terminals; from the inlet's where left out."
    )
    file: str | None = Field(
        default=None,
        description="Where the forest is kept (.npz), below the data folder. `jaxperf grow` writes "
        "it. Without it every run grows the forest anew.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "Growth":
        if self.exponent is not None and self.exponent_by_radius is not None:
            raise ValueError("give exponent or exponent_by_radius, not both")
        if self.file is not None and not self.file.endswith(".npz"):
            raise ValueError(f"file must end in .npz; found {self.file}")
        share = self.territory_share_percent
        if isinstance(share, dict) and abs(sum(share.values()) - 100.0) > 0.5:
            raise ValueError(
                f"territory_share_percent must sum to 100; found {sum(share.values()):g}"
            )
        return self


class Pulsatile(Section):
    """Pulsatile flow over one heart beat; used with `flow: pulsatile`."""

    states: tuple[str, ...] = Field(
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
    aortic_pressure_file: str | None = Field(
        default=None,
        description="One beat of aortic pressure in place of the built-in one: a CSV file with "
        "the columns time_s, pressure_mmHg, below the data folder. The last time is the period.",
    )
    lv_pressure_file: str | None = Field(
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
    cell_time_s: Annotated[float, Field(ge=1e-6, le=5e-3)] | Literal["auto"] = Field(
        default=DEFAULT_CELL_TIME,
        description="Time that a wave takes through one cell of a vessel; with auto cells are "
        "halved until they keep cell_tolerance.",
    )
    cell_tolerance: Annotated[float, Field(gt=0.0, lt=0.1)] = Field(
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


class Darcy(Section):
    """Flow in the tissue."""

    solver: str = Field(
        default="conjugate_gradient",
        description="Darcy solver that preconditions the coupled solve. Built in: "
        "conjugate_gradient, multigrid. `gnn`: the learned solver of the package gnn_darcy, which "
        "needs the extra `gnn`. Or any other that a package registers under the entry-point group "
        "jaxperf.darcy_solvers, as a function of the Darcy mesh and the permeability.",
    )


class Solver(Section):
    """Limits of the solve."""

    calibration_rtol: Positive = Field(default=1e-6, description="Tolerance of the flow targets.")
    max_steps: int = Field(default=50, ge=1, description="Newton steps of a coupled solve at most.")
    max_linear_steps: int = Field(
        default=20_000, ge=1, description="Products with the matrix in one Newton step at most."
    )


class Checks(Section):
    """Limits of `jaxperf check`."""

    terminal_distance_mm: Positive = Field(
        default=15.0, description="A terminal farther from the wall than this is an error."
    )
    narrowing: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.3, description="Undeclared local narrowing that is reported."
    )


class Output(Section):
    """What is written."""

    figures: bool = Field(default=True, description="Draw the figures.")
    spacing_mm: Positive = Field(
        default=1.25, description="Grid of the NIfTI maps where the input has none."
    )


class StateSection(Section):
    """A further state of the heart: what differs from rest or hyperemia."""

    like: Literal["rest", "hyperemia"] = Field(
        default="hyperemia", description="The state it starts from."
    )
    pressure_inlet_mmHg: Positive | None = Field(
        default=None, description="Mean aortic pressure; the case's where left out."
    )
    without_lesions: tuple[Annotated[int, Field(ge=1)], ...] | Literal["all"] = Field(
        default=(),
        description="Lesions that a stent has opened: numbers from 1, or all.",
    )


class Case(Section):
    """A patient case."""

    title: str = Field(default="untitled", description="Title of figures and summary.")
    kind: Literal["patient", "synthetic", "composite"] = Field(
        description="Whose anatomy it is: one patient, built by rules, or several subjects."
    )
    tree: Tree = Field(description="Coronary tree.")
    ventricle: Ventricle = Field(description="Left ventricle.")
    synthetic_rca: SyntheticRCA | None = Field(
        default=None, description="Add a right coronary drawn by rule where the tree has none."
    )
    growth: Growth | None = Field(
        default=None, description="Grow a synthetic forest of vessels below the tree."
    )
    lesions: tuple[Lesion, ...] = Field(default=(), description="Declared lesions.")
    states: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")], StateSection] = Field(
        default={}, description="States beside rest and hyperemia, by name."
    )
    flow: Literal["steady", "pulsatile"] = Field(
        default="steady",
        description="Steady flow alone, or pulsatile flow in the larger vessels besides.",
    )
    blood: BloodSection = Field(default=BloodSection(), description="Blood.")
    wall: Wall = Field(default=Wall(), description="Vessel wall.")
    boundary: BoundarySection = Field(default=BoundarySection(), description="Ends of the tree.")
    microcirculation: MicrocirculationSection = Field(
        default=MicrocirculationSection(), description="Perfused bed."
    )
    autoregulation: AutoregulationSection = Field(
        default=AutoregulationSection(), description="Adaptation at rest."
    )
    territories: Territories = Field(default=Territories(), description="Terminal regions.")
    pulsatile: Pulsatile = Field(default=Pulsatile(), description="Pulsatile flow.")
    darcy: Darcy = Field(default=Darcy(), description="Flow in the tissue.")
    solver: Solver = Field(default=Solver(), description="Solve.")
    fit: FitSection | None = Field(
        default=None, description="What `jaxperf fit` fits, and to what."
    )
    checks: Checks = Field(default=Checks(), description="Limits of the checks.")
    output: Output = Field(default=Output(), description="Results.")

    @model_validator(mode="after")
    def _consistent(self) -> "Case":
        if self.tree.built_in and self.ventricle.ellipsoid is None:
            raise ValueError("tree.built_in: demo needs ventricle.ellipsoid")
        if self.synthetic_rca and self.ventricle.labels is None:
            raise ValueError("synthetic_rca needs ventricle.labels (wall, cavity and RV)")
        if self.synthetic_rca and self.kind == "patient":
            raise ValueError("with synthetic_rca the kind cannot be patient; use composite")
        if self.kind == "patient" and (self.ventricle.ellipsoid or self.tree.built_in):
            raise ValueError("a built ventricle or tree is no patient; kind must be synthetic")
        for name, state in self.states.items():
            _state_is_possible(name, state, len(self.lesions))
        bed, inlet = self.microcirculation, self.boundary.pressure_inlet_mmHg
        if not bed.pressure_sink_mmHg < bed.pressure_capillary_mmHg < inlet:
            raise ValueError(
                "pressures must fall from boundary.pressure_inlet_mmHg to "
                "microcirculation.pressure_capillary_mmHg to microcirculation.pressure_sink_mmHg"
            )
        known = ("rest", "hyperemia", *self.states)
        for name in self.pulsatile.states:
            if name not in known:
                raise ValueError(
                    f"pulsatile.states: there is no state {name!r}; expected some of "
                    f"{', '.join(known)}"
                )
        if self.flow == "pulsatile" and self.wall.law == "rigid":
            raise ValueError(
                "flow: pulsatile needs wall.law: elastic, as waves travel at infinite speed in a "
                "rigid wall; write wall: {law: elastic}, which takes Olufsen's stiffness"
            )
        return self


def _state_is_possible(name: str, state: StateSection, n_lesions: int) -> None:
    if name in ("rest", "hyperemia", "cfr") or name.startswith("without_lesion"):
        raise ValueError(f"states.{name}: the name is taken; choose another")
    if state.without_lesions != "all" and any(i > n_lesions for i in state.without_lesions):
        raise ValueError(
            f"states.{name}.without_lesions: the case declares {n_lesions} lesions; expected "
            "their numbers from 1 in the order of `lesions`"
        )


def case_schema() -> dict[str, Any]:
    """The JSON schema of the case file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Case.model_json_schema(),
    }
