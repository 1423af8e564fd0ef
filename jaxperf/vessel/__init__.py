"""Pointwise laws of a vessel: viscosity, friction, wall, stenosis. No network knowledge."""

from ._blood import Blood as Blood, resistance_integral as resistance_integral
from ._stenosis import (
    stenosis_coefficients as stenosis_coefficients,
    young_tsai_drop as young_tsai_drop,
)
from ._viscosity import (
    AbstractViscosity as AbstractViscosity,
    ConstantViscosity as ConstantViscosity,
    PriesViscosity as PriesViscosity,
)
from ._wall import (
    AbstractElasticWall as AbstractElasticWall,
    AbstractStiffness as AbstractStiffness,
    AbstractWall as AbstractWall,
    ConstantStiffness as ConstantStiffness,
    OlufsenStiffness as OlufsenStiffness,
    rigid_limit_wall as rigid_limit_wall,
    RigidWall as RigidWall,
    SqrtAreaWall as SqrtAreaWall,
    SvOneDWall as SvOneDWall,
)
