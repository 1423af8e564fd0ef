"""Numbers in another unit: `check` names the key and the likely unit.

What no heart can have is an error, what is unusual a warning; the usual is silent.
"""

import json

import numpy as np
import pytest
import yaml

from jaxperf import InputError
from jaxperf.casefile import Case, load_case, unusual_values
from jaxperf.casefile._units import USUAL
from jaxperf.jobs import demo_case
from jaxperf.study import check_built, check_case, heartbeat_of_case

# Section, key, a number in another unit, severity, words of the message.
OTHER_UNITS = [
    ("microcirculation", "mbf_rest_ml_min_g", 100.0, "error", "ml/min/100 g; write 1 "),
    ("microcirculation", "mbf_rest_ml_min_g", 1e-3, "error", "l/min/g; write 1 "),
    ("microcirculation", "mbf_rest_ml_min_g", 1.67e-5, "error", "m³/(s·kg)"),
    ("microcirculation", "mbf_rest_ml_min_g", 5.0, "warning", "0.3 to 2.5"),
    ("microcirculation", "mbf_hyperemia_ml_min_g", 350.0, "error", "ml/min/100 g; write 3.5 "),
    ("microcirculation", "mbf_hyperemia_ml_min_g", 0.06, "warning", "ml/s/g; write 3.6 "),
    ("microcirculation", "hyperemia_factor", 375.0, "error", "percent; write 3.75 "),
    ("microcirculation", "permeability_m2_per_Pa_s", 1e30, "error", "equal to 0.00001"),
    (
        "microcirculation",
        "permeability_m2_per_Pa_s",
        6e-12,
        "warning",
        "permeability in m²; divided by 3.5 mPa·s write 1.714e-09 ",
    ),
    ("microcirculation", "permeability_m2_per_Pa_s", 2e-5, "error", "permeability in mm²; divided"),
    ("microcirculation", "permeability_across_m2_per_Pa_s", 3e-12, "warning", "in m²; divided"),
    ("microcirculation", "pressure_capillary_mmHg", 2000.0, "error", "Pa; write 15 "),
    ("microcirculation", "pressure_sink_mmHg", 667.0, "error", "Pa; write 5.003 "),
    ("microcirculation", "density_kg_m3", 1.05, "error", "g/ml; write 1050 "),
    ("boundary", "pressure_inlet_mmHg", 12400.0, "error", "Pa; write 93.01 "),
    ("boundary", "pressure_inlet_mmHg", 12.4, "error", "kPa; write 93.01 "),
    ("boundary", "pressure_inlet_mmHg", 124000.0, "error", "dyn/cm²; write 93.01 "),
    ("boundary", "pressure_inlet_mmHg", 30.0, "warning", "50 to 150"),
    ("boundary", "pressure_hyperemia_mmHg", 11300.0, "error", "Pa; write 84.76 "),
    ("blood", "viscosity_mPa_s", 0.0035, "error", "Pa·s; write 3.5 "),
    ("blood", "viscosity_mPa_s", 0.035, "error", "poise; write 3.5 "),
    ("blood", "viscosity_mPa_s", 12.0, "warning", "2 to 7"),
    ("blood", "density_kg_m3", 1.06, "error", "g/ml; write 1060 "),
    ("blood", "density_kg_m3", 900.0, "warning", "1000 to 1100"),
    ("blood", "haematocrit", 45.0, "error", "percent; write 0.45 "),
    ("blood", "haematocrit", 0.045, "warning", "0.2 to 0.65"),
    ("wall", "k1_Pa", 2e7, "warning", "dyn/cm²; write 2e+06 "),
    ("wall", "k2_per_m", -22.53, "warning", "1/cm; write -2253 "),
    ("wall", "k3_Pa", 8.65e5, "warning", "dyn/cm²; write 8.65e+04 "),
    ("wall", "pressure_reference_mmHg", 12400.0, "error", "Pa; write 93.01 "),
    ("pulsatile", "ejection_duration_s", 300.0, "error", "ms; write 0.3 "),
    ("pulsatile", "heart_rate_per_min", 1.2, "error", "Hz; write 72 "),
    ("pulsatile", "pulse_pressure_mmHg", 5300.0, "error", "Pa; write 39.75 "),
    ("pulsatile", "cell_time_s", 0.3, "error", "ms; write 0.0003 "),
    ("growth", "terminal_diameter_um", 0.1, "error", "mm; write 100 "),
]


def case_with(section, key, value):
    content = demo_case(5.0).model_dump(mode="json")
    content["microcirculation"]["hyperemia_factor"] = None
    content[section][key] = value
    return content


@pytest.mark.parametrize(
    ("section", "key", "value", "severity", "says"), OTHER_UNITS, ids=lambda x: str(x)
)
def test_another_unit_is_named(tmp_path, section, key, value, severity, says):
    path = tmp_path / "case.yaml"
    path.write_text(yaml.safe_dump(case_with(section, key, value)))
    if severity == "error":
        with pytest.raises(InputError) as caught:
            load_case(path)
        assert f"{section}.{key}" in caught.value.where and says in f"{caught.value} "
    else:
        said = dict(unusual_values(load_case(path)))
        assert says in f"{said[f'{section}.{key}']} "


def test_the_findings_of_check_have_both(tmp_path):
    path = tmp_path / "case.yaml"
    path.write_text(json.dumps(case_with("microcirculation", "mbf_rest_ml_min_g", 100.0)))
    (finding,) = check_case(path, tmp_path)
    assert (finding.severity, finding.where.endswith("mbf_rest_ml_min_g")) == ("error", True)
    assert "100 looks like ml/min/100 g; write 1 for that" in finding.message
    content = case_with("microcirculation", "permeability_m2_per_Pa_s", 6e-12)
    (finding,) = check_built(Case.model_validate(content), tmp_path)
    assert (finding.severity, finding.where) == (
        "warning",
        "microcirculation.permeability_m2_per_Pa_s",
    )
    assert "write 1.714e-09" in finding.message


def test_entries_of_lists_and_mappings_are_found():
    content = demo_case(5.0).model_dump()
    content["states"] = {"low": {"pressure_inlet_mmHg": 40.0}}
    content["boundary"]["outlets"] = [
        {"branch": "OM1", "resistance_mmHg_min_ml": 8e9},
        {"branch": "D1", "flow_ml_min": 1e-7},
    ]
    said = dict(unusual_values(Case.model_validate(content)))
    assert set(said) == {
        "states.low.pressure_inlet_mmHg",
        "boundary.outlets.0.resistance_mmHg_min_ml",
    }
    assert "Pa·s/m³; write 1 for that" in said["boundary.outlets.0.resistance_mmHg_min_ml"]


def test_every_key_of_the_table_is_one_of_the_case():
    schema = Case.model_json_schema()

    def below(node, key):
        options = [node, *node.get("anyOf", [])]
        options += [schema["$defs"][o["$ref"].split("/")[-1]] for o in options if "$ref" in o]
        for option in options:
            if key == "*" and (isinstance(option.get("items"), dict)):
                return option["items"]
            for name in ("additionalProperties", "patternProperties"):
                if key == "*" and isinstance(option.get(name), dict):
                    part = option[name]
                    return next(iter(part.values())) if name == "patternProperties" else part
            if key in option.get("properties", {}):
                return option["properties"][key]
        raise AssertionError(f"{key} is no key")

    for name in USUAL:
        node = schema
        for key in name.split("."):
            node = below(node, key)


@pytest.mark.parametrize(("factor", "says"), [(1000.0, "look like ms"), (60.0, "column time_s")])
def test_a_waveform_with_times_in_another_unit_is_refused(tmp_path, factor, says):
    time = np.linspace(0.0, 0.8, 17)
    pressure = 93.0 + 20.0 * np.cos(2 * np.pi * time / 0.8)
    rows = "\n".join(f"{t},{p}" for t, p in zip(factor * time, pressure, strict=True))
    (tmp_path / "beat.csv").write_text(f"time_s,pressure_mmHg\n{rows}\n")
    content = demo_case(5.0).model_dump()
    content |= {"flow": "pulsatile", "wall": {"law": "elastic"}}
    content["pulsatile"] = {"aortic_pressure_file": "beat.csv"}
    with pytest.raises(InputError, match=says):
        heartbeat_of_case(Case.model_validate(content), tmp_path)


def test_usual_cases_are_silent():
    assert list(unusual_values(demo_case(5.0))) == []
