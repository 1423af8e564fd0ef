"""A small case with a forest: six vessels on a small ellipsoidal ventricle, as files."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from jaxperf.anatomy import Course, network_from_courses, smooth_course
from jaxperf.geometry import ellipsoid_ventricle
from jaxperf.io import write_swc
from jaxperf.jobs import branch_ends

SHAPE = {
    "spacing_mm": 2.0,
    "endo_short_mm": [14.0, 14.0],
    "endo_long_mm": 34.0,
    "wall_base_mm": 8.0,
    "wall_apex_mm": 6.0,
    "base_height_mm": 10.0,
}
# name, parent, arc of the origin (mm), diameter at the origin (mm), waypoints: angle about the long
# axis (degrees), height (0 apex, 1 base), distance outside the epicardium (mm)
_VESSELS = (
    ("LM", None, None, 3.2, [(75, 1.25, 8), (78, 1.12, 5)]),
    ("LAD", "LM", None, 2.6, [(70, 0.9, 2.5), (66, 0.6, 2), (62, 0.3, 1.5), (60, 0.12, 1.5)]),
    ("D1", "LAD", 30.5, 1.3, [(90, 0.6, 2), (115, 0.45, 1.5), (130, 0.3, 1.5)]),
    ("LCx", "LM", None, 2.2, [(110, 1.0, 3), (150, 0.95, 2.5), (185, 0.8, 2), (200, 0.5, 1.5)]),
    ("RCA", None, None, 2.4, [(20, 1.3, 9), (-20, 1.1, 6), (-60, 1.02, 3)]),
    ("PDA", "RCA", None, 1.6, [(-70, 0.8, 2), (-72, 0.5, 1.5), (-72, 0.25, 1.5)]),
)


def growth_case(folder: Path, **growth: Any) -> dict[str, Any]:
    """Write the tree into a folder; returns the content of a case that grows a forest on it."""
    shape = {key: tuple(v) if isinstance(v, list) else v for key, v in SHAPE.items()}
    lv = ellipsoid_ventricle(**shape)
    surface = _surface(lv[2])
    courses, end = [], {}
    for name, parent, at, diameter, waypoint in _VESSELS:
        start = [] if parent is None else [end[parent] if at is None else (68, 0.72, 2.2)]
        end[name] = waypoint[-1]
        point = smooth_course(np.array([*start, *waypoint], np.float64), surface)
        place = np.inf if at is None else at
        courses.append(Course(name, point, parent, place, diameter_mm=diameter))
    tree = network_from_courses(courses, frame="model")
    ends = branch_ends(tree, write_swc(folder / "tree.swc", tree))
    return {
        "title": "Small",
        "kind": "synthetic",
        "tree": {"file": "tree.swc", "units": "mm", "frame": "model", "branches": ends},
        "ventricle": {"ellipsoid": SHAPE},
        "growth": {"n_terminals": 200, "terminal_diameter_um": 250, **growth},
    }


def write_case(folder: Path, content: dict[str, Any], name: str = "case.yaml") -> Path:
    """Write a case file."""
    path = folder / name
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _surface(lv):
    def position(coordinate: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [lv.epicardium(np.radians(a), h, 1e-3 * d)[None] for a, h, d in coordinate]
        )

    return position
