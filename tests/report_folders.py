"""Run folders for tests of reports: written as runs write them, without a solve."""

import json
from pathlib import Path

import numpy as np
import yaml

from jaxperf.anatomy import demo_tree
from jaxperf.geometry import aha17, AHA17_NAME, ellipsoid_ventricle, transmural_depth
from jaxperf.io import write_csv, write_json, write_perfusion, write_tree
from jaxperf.jobs import demo_case, run_folder
from jaxperf.report import FitSummary, Summary

STATES = ("rest", "hyperemia")


def _flow(rest, hyperemia):
    return {"rest": rest, "hyperemia": hyperemia}


def _lesion(branch, ffr):
    return {
        "branch": branch,
        "start_mm": 12.0,
        "end_mm": 22.0,
        "diameter_reduction": 0.6,
        "ffr": ffr,
        "pressure_ratio": _flow(0.95, ffr),
        "ffr_behind": ffr - 0.01,
        "ffr_behind_at_mm": 42.0,
        "flow_ml_min": _flow(50.0, 140.0),
        "cfr": 2.8,
        "is_occlusion": False,
        "wall_share_below": 0.4,
        "side_branches": [],
    }


def _pulsatile(branch):
    beat_branch = dict.fromkeys(
        (
            *("flow_mean_ml_min", "flow_steady_ml_min", "flow_max_ml_min", "flow_min_ml_min"),
            *("diastolic_share", "flow_systolic_over_diastolic", "pressure_ratio"),
            *("pressure_static_distal_mean_mmHg", "pressure_ratio_steady", "flow_variation"),
            *("pressure_ratio_error", "inertia_factor", "inertia_pressure_mmHg"),
        ),
        0.5,
    )
    state = {
        "branches": {branch: beat_branch},
        "territories": [branch],
        "lesions": [],
        **dict.fromkeys(
            (
                *("pressure_systolic_mmHg", "pressure_diastolic_mmHg", "flow_mean_ml_min"),
                *("flow_relative_difference", "outlet_flow_relative_difference_max"),
                *("bed_relative_error", "cell_time_s"),
            ),
            0.01,
        ),
        **dict.fromkeys(("outlets", "vessels", "cells", "cycles"), 3),
        "seconds": {"bed": 1.0, "solve": 2.0},
    }
    return {
        "period_s": 0.8,
        "heart_rate_per_min": 75.0,
        "systole_s": (0.0, 0.3),
        "states": dict.fromkeys(STATES, state),
    }


def _common(folder: Path, case, title: str) -> None:
    content = case.model_copy(update={"title": title}).model_dump(mode="json")
    (folder / "config.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    write_json(folder / "versions.json", {"python": "3.11", "inputs": {"tree.swc": "ab" * 32}})
    (folder / "citation.bib").write_text("@article{one, title = {One}}\n", encoding="utf-8")


def _wave_rows(branch) -> list[dict]:
    return [
        {
            "state": k,
            "branch": branch,
            "place": place,
            "arc_mm": 1.0,
            "time_s": float(t),
            "pressure_static_mmHg": 90.0 + 20.0 * float(np.sin(8.0 * t)),
            "flow_ml_min": 40.0,
        }
        for k in STATES
        for place in ("ostium", "distal")
        for t in np.linspace(0.0, 0.8, 20, endpoint=False)
    ]


def _summary(title, branch, ffr, n_cells, pulsatile, warnings) -> Summary:
    rows = {
        str(i): {
            "name": AHA17_NAME[i - 1],
            "mbf_ml_min_g": _flow(1.0, 3.0 + 0.01 * i),
            "mbf_endo_ml_min_g": _flow(1.0, 3.0),
            "mbf_epi_ml_min_g": _flow(1.0, 3.0),
            "cfr": 3.0 if i != 4 else None,
        }
        for i in range(1, 18)
    }
    return Summary.model_validate(
        {
            "title": title,
            "kind": "synthetic",
            "labels": ["synthetic"],
            "states": list(STATES),
            "n_vessels": 5,
            "n_terminals": 7,
            "n_cells": n_cells,
            "mesh": "VoxelMesh",
            "wall_mass_g": 130.0,
            "mbf_mean_ml_min_g": _flow(1.0, 3.0),
            "mbf_by_segment": rows,
            "mbf_by_territory": {
                n: {"mbf_ml_min_g": _flow(1.0, 3.0), "cfr": 3.0, "volume_share": 0.5}
                for n in (branch, "RCA")
            },
            "cfr_mean": 3.0,
            "ffr_min": ffr - 0.05,
            "ffr_min_branch": branch,
            "ffr_by_branch": {branch: ffr - 0.05},
            "lesions": [_lesion(branch, ffr)],
            "hyperemia_factor": 3.0,
            "beta_source_per_Pa_s": 1.0,
            "beta_sink_per_Pa_s": 1.0,
            "mass_balance_relative_error": 1e-14,
            "newton_iterations": {"rest": 4, "hyperemia": 5},
            "linear_iterations": {"rest": 40, "hyperemia": 50},
            "seconds": {"setup": 1.0, "compile": 2.0, "solve": 3.0},
            "synthetic_branches": [],
            "forest": None,
            "pulsatile": _pulsatile(branch) if pulsatile else None,
            "warnings": list(warnings),
            "seed": 3,
        }
    )


def write_run(
    out: Path, title="A heart", branch="LAD", ffr=0.78, pulsatile=True, spacing_mm=5.0, warnings=()
) -> Path:
    """The folder of a run with a lesion on `branch`, which bears the name of the LAD."""
    mesh, frame, lv = ellipsoid_ventricle(spacing_mm=spacing_mm)
    tree = demo_tree(lv)
    names = tuple(branch if n == "LAD" else n for n in tree.branch_name)
    object.__setattr__(tree, "branch_name", names)
    segment = aha17(mesh.centre, frame)
    depth = transmural_depth(mesh, frame)
    rng = np.random.default_rng(0)
    mbf = {
        "rest": rng.uniform(0.8, 1.2, mesh.n_cells),
        "hyperemia": rng.uniform(2, 4, mesh.n_cells),
    }
    territory = (mesh.centre[:, 0] > np.median(mesh.centre[:, 0])).astype(np.int64)
    label = np.array([branch, "RCA"])
    said = _summary(title, branch, ffr, mesh.n_cells, pulsatile, warnings)
    drop = np.linspace(1.0, ffr - 0.05, 2 * tree.n_segments).reshape(-1, 2)
    reduction = np.zeros(tree.n_segments)
    reduction[np.flatnonzero(np.asarray(tree.branch) == names.index(branch))[2:4]] = 0.6
    with run_folder(out, True) as folder:
        _common(folder, demo_case(), title)
        write_json(folder / "summary.json", said.model_dump())
        # the last four vessels count as grown
        grown = np.full(tree.n_segments, -1)
        grown[-4:] = 0
        write_tree(
            folder / "tree.vtp",
            tree,
            ffr=drop,
            lesion_diameter_reduction=reduction,
            tree=grown,
            **{f"pressure_static_{k}_mmHg": 90.0 * drop for k in STATES},
            **{f"pressure_ratio_{k}": drop for k in STATES},
            **{f"flow_{k}_ml_min": np.full(tree.n_segments, 30.0) for k in STATES},
        )
        write_perfusion(
            folder / "perfusion.vtu",
            mesh,
            **{f"mbf_{k}_ml_min_g": v for k, v in mbf.items()},
            territory=territory,
            territory_name=label[territory],
            aha_segment=segment,
            transmural_depth=depth,
        )
        feeding = {"segment": 1, "name": AHA17_NAME[0], "branch": branch, "mass_g": 3.25}
        mean = {"mbf_rest_ml_min_g": 1.0, "mbf_hyperemia_ml_min_g": 3.0}
        write_csv(folder / "feeding.csv", [{**feeding, **mean}])
        if pulsatile:
            write_csv(folder / "waveforms.csv", _wave_rows(branch))
    return out


def _fit_summary(title, branch) -> FitSummary:
    near = lambda x: {"median": x, "low": 0.9 * x, "high": 1.1 * x}
    flow = {"rest": near(1.0), "hyperemia": near(3.0)}
    entry = {"parameter": "demand", "entry": f"demand[{branch}]", "sd_ratio": 0.4}
    return FitSummary.model_validate(
        {
            "title": title,
            "kind": "synthetic",
            "labels": ["synthetic"],
            "level": 0.95,
            "posterior": "laplace",
            "states": list(STATES),
            "values": 35,
            "left_out": [],
            "parameters": [{**entry, "prior": near(1.0), "posterior": near(1.1)}],
            "segments": [
                {
                    "segment": i + 1,
                    "name": name,
                    "measured_ml_min_g": _flow(1.0, 2.9),
                    "seen_ml_min_g": _flow(0.98, 3.1),
                    "mbf_ml_min_g": flow,
                }
                for i, name in enumerate(AHA17_NAME)
            ],
            "territories": {
                branch: {"mbf_ml_min_g": flow, "cfr": near(3.0), "cfr_without_lesions": near(3.4)}
            },
            "lesions": [
                {
                    "branch": branch,
                    "start_mm": 12.0,
                    "end_mm": 22.0,
                    "diameter_reduction": 0.6,
                    "ffr": near(0.8),
                    "ffr_ischaemic_probability": 0.42,
                    "opened": {"ffr": near(0.9), "mbf_ratio": near(1.2)},
                }
            ],
            "wires": [
                {
                    "branch": branch,
                    "at_mm": 30.0,
                    "state": "hyperemia",
                    "measured": 0.79,
                    "fitted": near(0.8),
                }
            ],
            "diagnosis": [
                {
                    "name": branch,
                    "label": "focal",
                    "probability": {"focal": 0.9, "diffuse": 0.1},
                    "evidence": "The wire says so.",
                }
            ],
            "blind": ["demand and reserve of the RCA move together"],
            "further": [
                {
                    "measurement": "pressure wire",
                    "quantity": "FFR",
                    "sd_before": 0.05,
                    "sd_after": 0.01,
                }
            ],
            "quality": {
                "chi2": 30.0,
                "freedom": 31.0,
                "p_value": 0.5,
                "testable": True,
                "predictive": 0.5,
                "words": "The model explains the measurements.",
            },
            "cost": {
                "solves": 30,
                "columns": 60,
                "modes": 1,
                "failed_starts": [],
                "history": [[1.0, 50.0], [2.0, 20.0], [3.0, 15.0]],
            },
            "seconds": {"setup": 1.0, "fit": 2.0},
            "warnings": ["PET of rest was left out."],
            "seed": 1,
        }
    )


def write_fit(out: Path, title="A fit", branch="LAD") -> Path:
    """The folder of a fit with a lesion on `branch`, PET and a wire."""
    said = _fit_summary(title, branch)
    with run_folder(out, True, "fit") as folder:
        _common(folder, demo_case(), title)
        write_json(folder / "summary.json", said.model_dump())
    return out


def figures_in(page: str) -> dict[str, dict]:
    """The figures of a report by the end of their names, as plotly gets them."""
    found = {}
    for part in page.split('<script type="application/json" data-for="')[1:]:
        name, _, rest = part.partition('">')
        found[name] = json.loads(rest[: rest.index("</script>")])
    return found
