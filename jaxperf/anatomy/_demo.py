"""The embedded demonstration: an ellipsoidal ventricle and an average right-dominant tree.

Nothing here is measured on a person. Lumen diameters are the published means of Dodge et al.
(1992) for right-dominant hearts, side branches follow the exponent 7/3 of Huo and Kassab, and the
courses are those of an anatomy book drawn on the ellipsoid's own epicardium.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from ..geometry import EllipsoidLV
from ..network import branch_course, downstream_sum, parent_segment, VascularNetwork
from ..units import M_PER_MM
from ._courses import arc_length, Course, network_from_courses, smooth_course
from ._terminals import terminal_sites

# Dodge et al. (1992), Circulation 86:232, right-dominant normal men: means in mm.
DODGE_MM = {
    "LM": 4.5,
    "LAD proximal": 3.7,
    "LAD distal": 1.9,
    "LCx proximal": 3.4,
    "RCA proximal": 3.9,
}
# Where the distal LAD begins, between the diagonals.
LAD_DISTAL_AT_MM = 51.0
# The lesion of the demonstration: proximal to mid LAD, upstream of the first septal.
LESION = {"branch": "LAD", "start_mm": 12.0, "end_mm": 22.0, "diameter_reduction": 0.6}

# Waypoints: angle about the long axis (degrees; 0 septal, 90 anterior, 180 lateral, -90 inferior),
# height (0 apex, 1 base plane) and distance outside the epicardium (mm; negative inside).
_LAD = [(72, 1.03, 4), (66, 0.9, 3), (64, 0.65, 2.2), (62, 0.4, 1.8), (60, 0.2, 1.4), (58, 0.07, 1)]
_LCX = [(84, 1.03, 4), (115, 0.99, 3.5), (150, 0.97, 3), (185, 0.97, 2.5), (214, 0.95, 2)]
_PDA = [(-64, 1.0, 4), (-64, 0.85, 2.5), (-64, 0.7, 2), (-63, 0.58, 1.5), (-62, 0.48, 1)]
_PL = [(-64, 1.02, 4), (-88, 1.0, 3.5), (-106, 0.97, 3), (-116, 0.88, 2), (-118, 0.72, 1.5)]
# name, parent, arc of its origin (mm), the waypoints after the origin
_BRANCHES = (
    ("S1", "LAD", 26, [(46, 0.76, -5), (20, 0.76, -5), (-8, 0.74, -5)]),
    ("D1", "LAD", 33, [(86, 0.69, 2), (110, 0.6, 1.6), (128, 0.52, 1)]),
    ("S2", "LAD", 42, [(46, 0.58, -4.5), (18, 0.55, -4.5), (-12, 0.52, -4.5)]),
    ("D2", "LAD", 54, [(80, 0.46, 1.8), (100, 0.38, 1.4), (116, 0.3, 1)]),
    ("S3", "LAD", 66, [(44, 0.36, -4), (16, 0.33, -4), (-14, 0.3, -4)]),
    ("S4", "LAD", 86, [(40, 0.18, -3.5), (10, 0.17, -3.5), (-20, 0.16, -3.5)]),
    ("OM1", "LCx", 26, [(150, 0.84, 2), (158, 0.66, 1.6), (162, 0.54, 1.2), (162, 0.44, 1)]),
    ("OM2", "LCx", 48, [(186, 0.84, 2), (190, 0.66, 1.5), (194, 0.54, 1.2), (198, 0.46, 1)]),
    ("PDA S1", "PDA", 16, [(-50, 0.8, -5), (-38, 0.74, -5)]),
    ("PDA S2", "PDA", 36, [(-50, 0.58, -4.5), (-36, 0.52, -4.5)]),
    ("PL1", "PL", 24, [(-92, 0.86, 1.8), (-92, 0.66, 1.4), (-92, 0.5, 1)]),
)
# Twigs at the ends of vessels: name, then angle (degrees) and height where each twig ends.
_ENDS = {
    "LAD": ((30, 0.06), (-64, 0.3), (-122, 0.26), (168, 0.2)),
    "LCx": ((208, 0.76), (224, 0.7)),
    "D1": ((126, 0.42), (142, 0.46)),
    "D2": ((106, 0.2), (138, 0.28)),
    "OM1": ((150, 0.36), (174, 0.35)),
    "OM2": ((188, 0.36), (212, 0.38)),
    "PDA": ((-52, 0.4), (-78, 0.42)),
    "PL": ((-110, 0.56), (-128, 0.52)),
    "PL1": ((-86, 0.46), (-104, 0.43)),
}
# Twigs at the sides: parent, arc (mm), end angle, end height.
_SIDES = (
    ("LAD", 28, 76, 0.8),
    ("LAD", 48, 54, 0.5),
    ("LAD", 92, 76, 0.14),
    ("D1", 14, 116, 0.76),
    ("D1", 30, 104, 0.5),
    ("LCx", 18, 132, 0.84),
    ("LCx", 38, 168, 0.78),
    ("OM1", 22, 146, 0.66),
    ("OM1", 34, 174, 0.58),
    ("OM2", 24, 174, 0.64),
    ("OM2", 36, 210, 0.56),
    ("PDA", 26, -78, 0.66),
    ("PL1", 16, -78, 0.84),
    ("PL1", 28, -106, 0.62),
    ("PL", 34, -104, 0.78),
)
_TWIG_DEPTH_MM = -4.0
# No vessel lies deeper in the wall than this share of its thickness.
_DEEPEST_SHARE = 0.65
_GRID, _FINEST_GRID = 3e-3, 0.75e-3
_SITE_REACH = 40e-3


def demo_tree(lv: EllipsoidLV) -> VascularNetwork:
    """An average right-dominant coronary tree on the epicardium of an ellipsoid.

    Left main, LAD with four septals and two diagonals, LCx with two marginals, RCA with PDA
    (and two septals of its own) and posterolateral branches, each ending in short twigs that dip
    into the wall. Two roots: the left main and the RCA.

    **Returns:** a [`jaxperf.network.VascularNetwork`][] without lesions, in the ellipsoid's
    "model" frame, m. Twigs are named after the vessel they leave (`D1 twig 2`).

    **Source:** Dodge et al. (1992), Circulation 86:232 for the diameters; Huo and Kassab (2012),
    J. R. Soc. Interface 9:190 for the exponent.

    **Example:**

    ```python
    import jaxperf as jp
    tree = jp.anatomy.demo_tree(jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)[2])
    print(tree.branch_name)
    ```
    """
    bifurcation = _surface(lv)(np.array([[78.0, 1.04, 4.5]]))[0]
    crux = _surface(lv)(np.array([[-64.0, 1.03, 4.5]]))[0]
    courses = [
        Course(
            "LM",
            _from_ostium(lv, (0.28, 0.62), bifurcation),
            diameter_mm=DODGE_MM["LM"],
            end_mm=DODGE_MM["LM"],
        ),
        Course(
            "LAD",
            _on_surface(lv, _LAD),
            "LM",
            diameter_mm=DODGE_MM["LAD proximal"],
            end_mm=DODGE_MM["LAD distal"],
            end_at_mm=LAD_DISTAL_AT_MM,
        ),
        Course("LCx", _on_surface(lv, _LCX), "LM", diameter_mm=DODGE_MM["LCx proximal"]),
        Course("RCA", _right_groove(lv, crux), diameter_mm=DODGE_MM["RCA proximal"], end_mm=3.0),
        Course("PDA", _on_surface(lv, _PDA), "RCA", share=0.5),
        Course("PL", _on_surface(lv, _PL), "RCA", share=0.5),
    ]
    for name, parent, at, waypoint in _BRANCHES:
        origin = _origin(lv, courses, parent, at)
        courses.append(Course(name, _on_surface(lv, [origin, *waypoint]), parent, at, share=0.1))
    drawn = [*courses, *_twigs(lv, courses)]
    return _by_territory(drawn, _wall_points(lv))


def _wall_points(lv: EllipsoidLV) -> Float[np.ndarray, "q 3"]:
    """Points of a regular grid in the wall, at least about one across it."""
    spacing = min(_GRID, max(float((lv.epi - lv.endo).min()), _FINEST_GRID))
    span = [np.arange(-r, r, spacing) for r in lv.epi]
    point = np.stack(np.meshgrid(*span, indexing="ij"), axis=-1).reshape(-1, 3)
    inside = (np.sum((point / lv.epi) ** 2, axis=1) < 1.0) & (point[:, 2] < lv.base_height)
    return point[inside & (np.sum((point / lv.endo) ** 2, axis=1) > 1.0)]


def _by_territory(courses: list[Course], wall: Float[np.ndarray, "q 3"]) -> VascularNetwork:
    """The tree in which every side branch has the calibre of the tissue it supplies.

    Flow goes with D^γ and, in a healthy heart, with the mass supplied, so a branch takes over the
    share of D^γ that its tissue has of the tissue below the junction.
    """
    network = network_from_courses(courses, frame="model", where="built-in tree")
    terminal = np.asarray(network.terminals)
    site, owner, _ = terminal_sites(network, terminal, _SITE_REACH)
    count = np.bincount(owner[KDTree(site).query(wall)[1]], minlength=len(terminal))
    # where the wall is thinner than the grid, a twig may have no point
    below = downstream_sum(network, terminal, np.maximum(count, 1).astype(np.float64))
    node, into = np.asarray(network.segment_node), parent_segment(network)
    shared = []
    for course in courses:
        if course.share is None:
            shared.append(course)
            continue
        first = branch_course(network, course.name)[0][0]
        share = float(below[first] / below[into[node[first, 0]]])
        shared.append(dataclasses.replace(course, share=share))
    return network_from_courses(shared, frame="model", where="built-in tree")


def _surface(lv: EllipsoidLV) -> Callable[[np.ndarray], np.ndarray]:
    """From angle (degrees), height and distance (mm) to positions."""

    def position(coordinate: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        return np.concatenate(
            [
                lv.epicardium(
                    np.radians(angle),
                    height,
                    max(outside * M_PER_MM, -_DEEPEST_SHARE * _thickness(lv, height)),
                )[None]
                for angle, height, outside in coordinate
            ]
        )

    return position


def _thickness(lv: EllipsoidLV, height: float) -> float:
    """Of the wall at a relative height, m."""
    phi = height * np.arccos(-lv.base_height / float(lv.epi[2]))
    wall = lv.epi - lv.endo
    return float(np.hypot(wall[0] * np.sin(phi), wall[2] * np.cos(phi)))


def _on_surface(
    lv: EllipsoidLV, waypoint: Sequence[tuple[float, float, float]]
) -> Float[np.ndarray, "p 3"]:
    return smooth_course(np.array(waypoint, np.float64), _surface(lv))


def _coordinate(lv: EllipsoidLV, point: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
    """Angle, height and distance of a point near the epicardium (the distance to 0.1 mm)."""
    distance = float(lv.outside_distance(point[None])[0])
    unit = point / (lv.epi + distance)
    base = np.arccos(-lv.base_height / float(lv.epi[2]))
    height = float(np.arccos(np.clip(-unit[2], -1.0, 1.0)) / base)
    return float(np.degrees(np.arctan2(unit[1], unit[0]))), height, distance / M_PER_MM


def _origin(
    lv: EllipsoidLV, courses: list[Course], parent: str, at_mm: float
) -> tuple[float, float, float]:
    course = next(c for c in courses if c.name == parent)
    arc = arc_length(course.point)
    at = min(at_mm * M_PER_MM, float(arc[-1]))
    return _coordinate(lv, np.array([np.interp(at, arc, course.point[:, k]) for k in range(3)]))


def _near(angle: float, reference: float) -> float:
    """The angle plus the multiple of 360° that brings it nearest to the reference."""
    return angle + 360.0 * np.round((reference - angle) / 360.0)


def _twigs(lv: EllipsoidLV, courses: list[Course]) -> list[Course]:
    """Short vessels from the ends and sides of the drawn ones into the wall."""
    count: dict[str, int] = {}
    wanted = [(p, np.inf, a, h) for p, ends in _ENDS.items() for a, h in ends]
    twigs = []
    for parent, at, angle, height in [*wanted, *_SIDES]:
        count[parent] = count.get(parent, 0) + 1
        origin = _origin(lv, courses, parent, at)
        start = np.array(origin)
        start[0] = _near(start[0], angle)
        # straight in space and then pressed to the depth wanted: safe across the apex, where the
        # angle has no meaning
        a = _surface(lv)(start[None])[0]
        b = _surface(lv)(np.array([[angle, height, _TWIG_DEPTH_MM]]))[0]
        t = np.linspace(0.0, 1.0, 12)
        line = (1.0 - t[:, None]) * a + t[:, None] * b
        depth = (1.0 - t) * origin[2] + t * _TWIG_DEPTH_MM
        pressed = np.array([(*_coordinate(lv, p)[:2], d) for p, d in zip(line, depth, strict=True)])
        name = f"{parent} twig {count[parent]}"
        twigs.append(Course(name, _surface(lv)(pressed), parent, at, share=0.1))
    return twigs


def _from_ostium(
    lv: EllipsoidLV, place: tuple[float, float], end: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "p 3"]:
    """From an ostium above the base plane, at a place in units of the semi-axes, to a point."""
    top = lv.base_height + 9.0 * M_PER_MM
    ostium = np.array([place[0] * lv.epi[0], place[1] * lv.epi[1], top])
    middle = 0.5 * (ostium + end) + np.array([0.0, 2.0, 1.0]) * M_PER_MM
    return smooth_course(np.stack([ostium, middle, end]), lambda x: x)


def _right_groove(lv: EllipsoidLV, crux: Float[np.ndarray, "3"]) -> Float[np.ndarray, "p 3"]:
    """From the right ostium around the base of the RV to the crux."""
    a, b = float(lv.epi[0]), float(lv.epi[1])
    base = lv.base_height
    # the RV's outline in the base plane, with the vessel and its fat outside
    centre, reach = 0.75 * a, 0.9 * a + 4.0 * M_PER_MM
    around = np.radians([75.0, 40.0, 0.0, -40.0, -75.0])
    groove = np.stack(
        [
            centre + reach * np.cos(around),
            reach * np.sin(around) * b / a,
            np.array([base + 4e-3, base + 1e-3, base, base, base + 1e-3]),
        ],
        axis=1,
    )
    ostium = np.array([[0.62 * a, 0.36 * b, base + 10.0 * M_PER_MM]])
    return smooth_course(np.concatenate([ostium, groove, crux[None]]), lambda x: x, samples=120)
