"""The case file: what it may say, with units in the names of its keys."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ._fit import FitSection
from ._physics import (
    AutoregulationSection,
    BloodSection,
    BoundarySection,
    MicrocirculationSection,
    Pressure,
    Wall,
)
from ._pulsatile import Pulsatile
from ._section import (
    exactly_one,
    Exponent,
    Finite,
    Fraction,
    Frame,
    Name,
    NotNegative,
    Point,
    Positive,
    Section,
    Unit,
)


class Tree(Section):
    """The coronary tree: a file, or the built-in demonstration."""

    file: Name | None = Field(default=None, description="Path of the tree, below the data folder.")
    format: Name | None = Field(
        default=None,
        description="Format of the file: swc, centerlines or svoned; from its suffix (.swc, .vtp "
        "or .vtk, .in) where left out.",
    )
    units: Unit | None = Field(default=None, description="Unit of length of the file. Required.")
    frame: Frame | None = Field(
        default=None,
        description="Frame of the coordinates: LPS (DICOM, VTK), RAS (NIfTI). Required.",
    )
    n_roots: int | None = Field(
        default=None, ge=1, description="Number of inlets of centrelines; 1 where left out."
    )
    radius_array: Name | None = Field(
        default=None,
        description="Point array of centrelines that holds the radius; where left out, the one "
        "that its name calls so.",
    )
    merge_tolerance_mm: Positive | None = Field(
        default=None,
        description="How far apart the points of centrelines on the same course may lie; where "
        "left out, as far as the radius and the scatter of the lines say.",
    )
    branches: dict[int | Name, Name] = Field(
        default_factory=dict,
        description="Names of branches. A key is an automatic name such as `branch 0`, the row id "
        "(SWC) or line number (centrelines) where the branch ends, or a point within 5 mm of that "
        "end as 'x, y, z' in mm and in the frame of the file. In a `tree.vtp` of a run a key is a "
        "name of the file, the last line of a branch, or such a point.",
    )
    dominance: Literal["right", "left", "auto"] = Field(
        default="auto",
        description="Which artery feeds the inferior wall: `right` the RCA, `left` the LCx; `auto` "
        "tells it by the names of the vessels (PDA, PL) or the presence of an RCA.",
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


class Labels(Section):
    """A NIfTI label volume."""

    file: Name = Field(description="Path of the volume, below the data folder.")
    wall: int = Field(description="Label of the left ventricular wall.")
    cavity: int = Field(description="Label of the left ventricular cavity.")
    rv: int | None = Field(
        default=None,
        description="Label of the right ventricular cavity. Without it the septum comes from "
        "ventricle.landmarks.rv_mm, or from the grooves in which LAD and PDA run.",
    )
    units: Unit | None = Field(
        default=None, description="Unit, only where the header does not state it."
    )
    largest_piece: bool = Field(
        default=False, description="Keep the largest piece of a wall that falls into several."
    )

    @model_validator(mode="after")
    def _distinct(self) -> "Labels":
        named = [x for x in (self.wall, self.cavity, self.rv) if x is not None]
        if len(set(named)) < len(named):
            raise ValueError("wall, cavity and rv must be different labels")
        return self


class Landmarks(Section):
    """Points by hand, which give the ventricle's directions in place of the labels."""

    apex_mm: Point | None = Field(default=None, description="Tip of the LV cavity.")
    base_mm: Point | None = Field(default=None, description="Centre of the mitral (or base) plane.")
    rv_mm: Point | None = Field(
        default=None,
        description="Centroid of the RV cavity, or any point that lies from the long axis in the "
        "direction of the septum's middle.",
    )
    frame: Frame = Field(description="Frame of the points.")


class Tetrahedra(Section):
    """A tetrahedral mesh of the wall."""

    file: Name = Field(description="Path of the .vtu file, below the data folder.")
    units: Unit = Field(description="Unit of length of the file.")
    frame: Frame = Field(description="Frame of the coordinates.")


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
    landmarks: Landmarks | None = Field(
        default=None,
        description="Apex, base and a point in the RV, in place of those that the labels give; all "
        "three where there are no labels.",
    )
    mesh: Literal["voxels", "tetrahedra"] | None = Field(
        default=None,
        description="What Darcy is solved on. With labels or ellipsoid and no tetrahedra file, "
        "`tetrahedra` cuts the voxels. Default: tetrahedra where a file is given, else voxels.",
    )

    @model_validator(mode="after")
    def _complete(self) -> "Ventricle":
        if self.ellipsoid is not None and (self.labels or self.tetrahedra or self.landmarks):
            raise ValueError("give either ellipsoid, or labels and/or tetrahedra with landmarks")
        if self.ellipsoid is None and self.labels is None and self.tetrahedra is None:
            raise ValueError("give one of labels, tetrahedra, ellipsoid")
        if self.labels is None and self.tetrahedra is not None:
            marks = self.landmarks
            if marks is None or None in (marks.apex_mm, marks.base_mm, marks.rv_mm):
                raise ValueError(
                    "tetrahedra without labels need landmarks: apex_mm, base_mm and rv_mm"
                )
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

    branch: Name = Field(description="Name of the branch.")
    start_mm: NotNegative = Field(description="Arc length from the branch's proximal end.")
    end_mm: Positive = Field(description="Arc length where the lesion ends.")
    diameter_reduction: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        description="1 - D_min/D_reference: 0.6 for 60 %, 1 for a vessel that is closed."
    )
    reference_radius_mm: Positive | None = Field(
        default=None, description="Healthy radius; the mean of both ends where left out."
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
    territory_share_percent: dict[Name, Positive] | Literal["calibre"] | None = Field(
        default=None,
        description="Share of each vessel territory in the flow at rest, by name; their sum is "
        "100. Where left out, LAD 45, LCx 28, RCA 27 in a right-dominant and LAD 45, LCx 55 in a "
        "left-dominant heart, if these are the territories. `calibre`: by the vessels' calibre "
        "alone.",
    )
    epicardial_fraction: Fraction = Field(
        default=0.1, description="Share of the terminals grown first, as epicardial conduits."
    )
    terminal_diameter_um: Annotated[float, Field(ge=10.0, le=1000.0)] | None = Field(
        default=None, description="Diameter of the terminals; from the inlet's where left out."
    )
    file: Name | None = Field(
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


class Darcy(Section):
    """Flow in the tissue."""

    solver: Name = Field(
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
    ffr_behind_mm: NotNegative = Field(
        default=20.0,
        description="FFR is also said this far behind each lesion; nearer where the branch ends "
        "or its next lesion begins.",
    )


class StateSection(Section):
    """A further state of the heart: what differs from rest or hyperemia."""

    like: Literal["rest", "hyperemia"] = Field(
        default="hyperemia", description="The state it starts from."
    )
    pressure_inlet_mmHg: Pressure | None = Field(
        default=None, description="Mean aortic pressure; that of the state it is like if left out."
    )
    without_lesions: tuple[Annotated[int, Field(ge=1)], ...] | Literal["all"] = Field(
        default=(),
        description="Lesions that a stent has opened: numbers from 1, or all.",
    )


class Case(Section):
    """A patient case."""

    title: Name = Field(default="untitled", description="Title of figures and summary.")
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
        labels = self.ventricle.labels
        if self.synthetic_rca and (labels is None or labels.rv is None):
            raise ValueError("synthetic_rca needs ventricle.labels (wall, cavity and rv)")
        if self.synthetic_rca and self.kind == "patient":
            raise ValueError("with synthetic_rca the kind cannot be patient; use composite")
        if self.kind == "patient" and (self.ventricle.ellipsoid or self.tree.built_in):
            raise ValueError("a built ventricle or tree is no patient; kind must be synthetic")
        for name, state in self.states.items():
            _state_is_possible(name, state, len(self.lesions))
        for name in ("rest", "hyperemia", *self.states):
            self._pressures_fall(name)
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
        if self.flow == "pulsatile":
            _pulsatile_is_open(self)
        return self

    def pressure_mmHg(self, state: str) -> float:
        """Mean aortic pressure of a state, mmHg."""
        section = self.states.get(state)
        if section is not None and section.pressure_inlet_mmHg is not None:
            return section.pressure_inlet_mmHg
        return self.boundary.pressure_at(self.likeness(state))

    def likeness(self, state: str) -> str:
        """Rest or hyperemia, whichever a state is like."""
        section = self.states.get(state)
        if section is not None:
            return section.like
        return "rest" if state == "rest" else "hyperemia"

    def _pressures_fall(self, state: str) -> None:
        bed, inlet = self.microcirculation, self.pressure_mmHg(state)
        if not bed.pressure_sink_mmHg < bed.pressure_capillary_mmHg < inlet:
            key = {"rest": "boundary.pressure_inlet_mmHg"}.get(
                state, "boundary.pressure_hyperemia_mmHg"
            )
            key = f"states.{state}.pressure_inlet_mmHg" if state in self.states else key
            raise ValueError(
                f"pressures must fall from {key} to "
                "microcirculation.pressure_capillary_mmHg to microcirculation.pressure_sink_mmHg; "
                f"found {inlet:g}, {bed.pressure_capillary_mmHg:g}, {bed.pressure_sink_mmHg:g}"
            )


def _state_is_possible(name: str, state: StateSection, n_lesions: int) -> None:
    if name in ("rest", "hyperemia", "cfr") or name.startswith("without_lesion"):
        raise ValueError(f"states.{name}: the name is taken; choose another")
    if state.without_lesions != "all" and any(i > n_lesions for i in state.without_lesions):
        raise ValueError(
            f"states.{name}.without_lesions: the case declares {n_lesions} lesions; expected "
            "their numbers from 1 in the order of `lesions`"
        )


def _pulsatile_is_open(case: Case) -> None:
    """No wave can be followed into a vessel that an occlusion closes."""
    for i, lesion in enumerate(case.lesions):
        for name in case.pulsatile.states if lesion.diameter_reduction == 1.0 else ():
            opened = case.states[name].without_lesions if name in case.states else ()
            if opened != "all" and i + 1 not in opened:
                raise ValueError(
                    f"lesions.{i} closes {lesion.branch} (diameter_reduction 1), which flow: "
                    f"pulsatile cannot follow at {name}; write flow: steady, or leave out of "
                    "pulsatile.states what the lesion is not opened in"
                )


def case_schema() -> dict[str, Any]:
    """The JSON schema of the case file.

    **Example:**

    ```python
    import json
    import jaxperf as jp
    print(json.dumps(jp.casefile.case_schema(), indent=2))
    ```
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Case.model_json_schema(),
    }
