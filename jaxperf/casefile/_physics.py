"""What a case says of blood, walls, the ends of the tree and the bed."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ._section import exactly_one, Finite, Name, NotNegative, Positive, Section

# Wide enough for any physiology, narrow enough to catch another unit.
Density = Annotated[float, Field(ge=800.0, le=1300.0)]
Viscosity = Annotated[float, Field(ge=0.3, le=30.0)]
Pressure = Annotated[float, Field(ge=20.0, le=300.0)]
LowPressure = Annotated[float, Field(ge=-50.0, le=300.0)]
Flow = Annotated[float, Field(ge=0.02, le=20.0)]
Mobility = Annotated[float, Field(ge=1e-15, le=1e-5)]


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
    pressure_reference_mmHg: LowPressure = Field(
        default=93.0,
        description="Transmural pressure at which the radii of the tree were measured.",
    )


class Outlet(Section):
    """An outlet that does not perfuse the left ventricle, such as a right ventricular branch."""

    branch: Name = Field(description="Branch that ends there.")
    flow_ml_min: NotNegative | None = Field(default=None, description="Prescribed outflow.")
    resistance_mmHg_min_ml: Positive | None = Field(
        default=None, description="Resistance to a pressure."
    )
    pressure_reference_mmHg: LowPressure = Field(
        default=0.0, description="Pressure behind the resistance."
    )

    @model_validator(mode="after")
    def _complete(self) -> "Outlet":
        exactly_one(self, ("flow_ml_min", "resistance_mmHg_min_ml"))
        return self


class BoundarySection(Section):
    """Pressures and flows at the ends of the tree."""

    pressure_inlet_mmHg: Pressure = Field(
        default=93.0,
        description="Mean aortic pressure at the roots, at which rest flow was measured.",
    )
    pressure_hyperemia_mmHg: Pressure | None = Field(
        default=None,
        description="Mean aortic pressure in hyperemia, at which hyperemic flow was measured; "
        "pressure_inlet_mmHg where left out.",
    )
    outlets: tuple[Outlet, ...] = Field(default=(), description="Outlets beside the ventricle's.")

    @model_validator(mode="after")
    def _once(self) -> "BoundarySection":
        named = [outlet.branch for outlet in self.outlets]
        for branch in named:
            if named.count(branch) > 1:
                raise ValueError(f"outlets names the branch {branch} twice")
        return self

    def pressure_at(self, like: str) -> float:
        """Mean aortic pressure (mmHg) of rest or hyperemia."""
        stress = self.pressure_hyperemia_mmHg
        return self.pressure_inlet_mmHg if like == "rest" or stress is None else stress


class MicrocirculationSection(Section):
    """The perfused bed and its calibration in the lesion-free heart."""

    mbf_rest_ml_min_g: Flow = Field(default=1.0, description="Target mean flow at rest.")
    mbf_hyperemia_ml_min_g: Flow | None = Field(
        default=None, description="Target mean flow at hyperemia; or give hyperemia_factor."
    )
    hyperemia_factor: Annotated[float, Field(gt=1.0, le=100.0)] | None = Field(
        default=None,
        description="Factor on both conductances; 3.75 where no target is given either.",
    )
    pressure_capillary_mmHg: LowPressure = Field(default=15.0, description="Mean tissue pressure.")
    pressure_sink_mmHg: LowPressure = Field(default=0.0, description="Venous pressure.")
    permeability_m2_per_Pa_s: Mobility = Field(
        default=2e-9,
        description="The mobility K along the fibres: permeability in m² over viscosity in Pa·s.",
    )
    permeability_across_m2_per_Pa_s: Mobility | None = Field(
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
