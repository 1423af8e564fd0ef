"""The shape of an openBF case: its keys, what each may hold, and messages that name the vessel."""

import difflib
import os
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
    ValidationError,
)

from .._misc import InputError
from .._yaml import printable, yaml_content, YamlFault
from ._files import read_lines, readable_file
from ._waveforms import check_times

_EXPECTED = "an openBF case: YAML with the sections blood, solver and network"
_EXPECTED_INLET = "an openBF inlet file: lines of a time (s) and a value"


def _number(value: Any) -> Any:
    """YAML's `true` is no number, though Python would count it."""
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


# Wide enough for any vessel in SI, narrow enough to catch millimetres and kilopascal.
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Whole = Annotated[int, BeforeValidator(_number), Field(ge=1, le=10**9)]
Positive = Annotated[Number, Field(gt=0.0)]
Pressure = Annotated[Number, Field(ge=-1e5, le=1e5)]
Radius = Annotated[Number, Field(ge=1.5e-6, le=25e-3)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class BloodSection(_Section):
    """`blood`: density (kg/m³) and viscosity (Pa·s)."""

    rho: Annotated[Number, Field(ge=800.0, le=1300.0)]
    mu: Annotated[Number, Field(ge=0.3e-3, le=30e-3)]


class SolverSection(_Section):
    """`solver`: Courant number, most cycles, change from cycle to cycle that ends the run."""

    Ccfl: Annotated[Number, Field(gt=0.0, le=1.0)]
    cycles: Whole
    convergence_tolerance: Positive
    jump: Whole = 100


class VesselSection(_Section):
    """One entry of `network`, in SI."""

    label: Annotated[str, Field(min_length=1), AfterValidator(printable)]
    sn: Whole
    tn: Whole
    L: Annotated[Number, Field(ge=1e-5, le=2.0)]
    E: Annotated[Number, Field(ge=1e3, le=1e10)]
    R0: Radius | None = None
    Rp: Radius | None = None
    Rd: Radius | None = None
    h0: Annotated[Number, Field(ge=1e-7, le=1e-2)] | None = None
    Pext: Pressure = 0.0
    gamma_profile: Positive | None = None
    phi: Annotated[Number, Field(ge=0.0, le=1e8)] = 0.0
    visco_elastic: bool = False
    M: Whole | None = None
    to_save: bool = True
    initial_pressure: Number = 0.0
    initial_flow: Number = 0.0
    inlet: Literal["Q", "P"] | None = None
    inlet_file: str | None = None
    inlet_number: Whole | None = None
    outlet: Literal["wk2", "wk3", "reflection"] | None = None
    Rt: Number | None = None
    R1: Positive | None = None
    R2: Annotated[Number, Field(ge=0.0)] | None = None
    Cc: Positive | None = None
    Pout: Pressure | None = None
    inlet_impedance_matching: bool = False

    @property
    def has_outlet(self) -> bool:
        given = (self.outlet, self.Rt, self.R1, self.R2, self.Cc, self.Pout)
        return self.inlet_impedance_matching or any(x is not None for x in given)

    @property
    def end_radius(self) -> tuple[float, float]:
        """Reference radius at `sn` and at `tn`, m."""
        proximal = self.R0 if self.R0 is not None else self.Rp
        assert proximal is not None
        return proximal, proximal if self.Rd is None else self.Rd

    @model_validator(mode="after")
    def _consistent(self) -> "VesselSection":
        if self.sn == self.tn:
            raise ValueError(f"two different nodes; sn and tn are both {self.sn}")
        if (self.R0 is None) == (self.Rp is None) or (self.R0 is not None and self.Rd is not None):
            raise ValueError("either R0, or Rp with Rd where the vessel tapers")
        if self.visco_elastic:
            raise ValueError(
                "visco-elastic: false; openBF does not document that wall, and its solver applies "
                "the coefficient twice. State phi (Pa s) instead"
            )
        if self.outlet == "reflection" or self.Rt is not None:
            raise ValueError(
                "a windkessel outlet (R1, R2, Cc); the reflection coefficient Rt acts on Riemann "
                "invariants counted from openBF's initial state, and no pressure or flow says that"
            )
        if self.has_outlet and (self.R1 is None or self.Cc is None):
            raise ValueError("R1 and Cc for a windkessel outlet, and R2 for three elements")
        if self.outlet == "wk2" and self.R2:
            raise ValueError("no R2 where outlet is wk2")
        if (self.inlet is None) != (self.inlet_file is None):
            raise ValueError("inlet and inlet_file together")
        return self


class OpenBFFile(_Section):
    """An openBF case. Version 1 names the inlet in its vessel, version 2 for the whole file."""

    project_name: str
    inlet_file: str | None = None
    write_results: list[Literal["P", "Q", "A", "u", "c"]] = Field(default_factory=list)
    output_directory: str | None = None
    results_folder: str | None = None
    blood: BloodSection
    solver: SolverSection
    network: Annotated[list[VesselSection], Field(min_length=1)]

    @property
    def version(self) -> int:
        return 1 if any(v.inlet is not None for v in self.network) else 2


def read_openbf_file(path: str | os.PathLike) -> OpenBFFile:
    """Read and validate an openBF case; keys written with spaces or hyphens are the same keys.

    **Errors:** [`InputError`][] naming the file, the vessel and the key.
    """
    where = str(path)
    try:
        raw = yaml_content(readable_file(path, _EXPECTED))
    except YamlFault as error:
        raise InputError(
            str(error), where=where, expected=_EXPECTED, fix="Correct the line"
        ) from None
    if not isinstance(raw, dict):
        raise InputError(
            f"it holds a {type(raw).__name__}",
            where=where,
            expected=_EXPECTED,
            fix="Check that this is the right file",
        )
    raw = _plain_keys(raw, where)
    try:
        return OpenBFFile.model_validate(raw)
    except ValidationError as error:
        raise _refusal(error.errors()[0], raw, where) from None


def _plain_keys(raw: Any, where: str) -> Any:
    """`gamma profile` and `visco-elastic` as `gamma_profile` and `visco_elastic`."""
    if isinstance(raw, list):
        return [_plain_keys(item, where) for item in raw]
    if not isinstance(raw, dict):
        return raw
    plain: dict[str, Any] = {}
    for key, value in raw.items():
        name = str(key).replace(" ", "_").replace("-", "_")
        if name in plain:
            raise InputError(
                f"the key {name} is given twice, in two spellings",
                where=where,
                expected="each key once",
                fix="Remove one of them",
            )
        plain[name] = _plain_keys(value, where)
    return plain


def _refusal(error: Any, raw: dict[str, Any], where: str) -> InputError:
    """The first complaint of pydantic as a sentence that names file, vessel and key."""
    location = [str(part) for part in error["loc"]]
    section: type[BaseModel] = OpenBFFile
    if location and location[0] == "network" and len(location) > 1:
        entry = raw["network"][int(location[1])]
        label = entry.get("label") if isinstance(entry, dict) else None
        name = f"vessel {label}" if label else f"vessel number {int(location[1]) + 1}"
        where, location, section = f"{where}, {name}", location[2:], VesselSection
    elif len(location) > 1:
        section = {"blood": BloodSection, "solver": SolverSection}.get(location[0], section)
    # An entry of a list is named by its list; no key at all is a complaint about several.
    key = next((part for part in reversed(location) if not part.isdigit()), "the entry")
    if error["type"] == "extra_forbidden":
        known = sorted(section.model_fields)
        close = difflib.get_close_matches(key, known, 1)
        return InputError(
            f"the key {key} is unknown",
            where=where,
            expected=f"one of {', '.join(known)}",
            fix=f"Did you mean {close[0]}?" if close else "Remove the key",
        )
    if error["type"] == "missing":
        return InputError(
            f"the key {key} is missing", where=where, expected=f"{key}", fix=f"Add {key}"
        )
    found = f"is {error['input']!r:.60}"
    if error["type"] == "value_error" and not location:
        found = "has keys that do not fit each other"
    return InputError(
        f"{key} {found}",
        where=where,
        expected=_expected(error),
        fix="Correct it; units are SI",
    )


def _expected(error: Any) -> str:
    if error["type"] == "model_type":
        return "a mapping of keys to values"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")


def read_inlet_table(path: str | os.PathLike) -> Float[np.ndarray, "m 2"]:
    """Times (s) from 0 to the period, increasing, and the values at them.

    **Errors:** [`InputError`][] naming file and line.
    """
    where, rows, lines = str(path), [], []
    for number, line in enumerate(read_lines(path, _EXPECTED_INLET), 1):
        if not line.strip():
            continue
        try:
            row = [float(field) for field in line.split()]
        except ValueError:
            row = []
        if len(row) != 2 or not np.isfinite(row).all():
            raise InputError(
                f"the line is {line.strip()[:40]!r}",
                where=f"{where}:{number}",
                expected="two finite numbers, time (s) and value",
                fix="Correct the line",
            )
        rows.append(row)
        lines.append(f"{where}:{number}")
    table = np.array(rows, np.float64).reshape(-1, 2)
    check_times(table[:, 0].tolist(), lines)
    if len(table) < 2 or table[0, 0] != 0.0:
        raise InputError(
            f"it has {len(table)} lines with the times {table[:3, 0].tolist()}",
            where=where,
            expected="at least two lines with times from 0 to the period",
            fix="Give one cycle that begins at 0",
        )
    return table
