"""What all sections of the case file share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .._yaml import printable

Frame = Literal["LPS", "RAS", "model"]
Unit = Literal["mm", "cm", "m", "um"]
Positive = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
# Huo and Kassab's 7/3 to Murray's 3, which are the published ones
Exponent = Annotated[float, Field(ge=2.3, le=3.0)]
# Of branches, states, files and whatever else is called something.
Name = Annotated[str, Field(min_length=1), AfterValidator(printable)]
Point = tuple[Finite, Finite, Finite]


class Section(BaseModel):
    """Common settings: unknown keys are refused, defaults are validated."""

    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True)


def exactly_one(section: BaseModel, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(section, name) is not None]
    if len(given) != 1:
        found = " and ".join(given) if given else "none of them"
        raise ValueError(f"give exactly one of {', '.join(names)}; found {found}")
