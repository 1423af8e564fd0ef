"""The embedded demonstration: an ellipsoidal ventricle and an average right-dominant tree.

Nothing here is measured on a person. Lumen diameters are the published means of Dodge et al.
(1992) for right-dominant hearts, side branches follow the exponent 7/3 of Huo and Kassab, and the
courses are those of an anatomy book drawn on the ellipsoid's own epicardium.
"""

import numpy as np
from jaxtyping import Float

from .._units import M_PER_MM
from ..geometry import EllipsoidLV
from ..network import VascularNetwork
from ._courses import Course, network_from_courses, smooth_course

# Dodge et al. (1992), Circulation 86:232, right-dominant normal men: means in mm.
DODGE_MM = {
    "LM": 4.5,
    "LAD proximal": 3.7,
    "LAD distal": 1.9,
    "LCx proximal": 3.4,
    "RCA proximal": 3.9,
}
# The lesion of the demonstration: proximal to mid LAD, between the first septal and D1.
LESION = {"branch": "LAD", "start_mm": 18.0, "end_mm": 28.0, "diameter_reduction": 0.6}

# Waypoints: angle about the long axis (degrees; 0 septal, 90 anterior, 180 lateral, -90 inferior),
# height (0 apex, 1 base plane) and distance outside the epicardium (mm; negative inside).
_LAD = [(72, 1.03, 4), (66, 0.9, 3), (64, 0.65, 2.2), (62, 0.4, 1.8), (60, 0.2, 1.4), (58, 0.07, 1)]
_LCX = [(84, 1.03, 4), (115, 0.99, 3.5), (150, 0.97, 3), (185, 0.97, 2.5), (222, 0.94, 2)]
_PDA = [(-64, 1.0, 4), (-64, 0.85, 2.5), (-64, 0.6, 2), (-63, 0.4, 1.5), (-62, 0.22, 1)]
_PL = [(-64, 1.02, 4), (-90, 1.0, 3.5), (-112, 0.98, 3), (-128, 0.9, 2), (-132, 0.7, 1.5)]
# name, parent, arc of its origin (mm), share of the parent's D^γ, the waypoints after the origin
_BRANCHES = (
    ("S1", "LAD", 14, 0.08, [(48, 0.8, -5), (25, 0.72, -5), (5, 0.64, -5)]),
    ("D1", "LAD", 32, 0.26, [(84, 0.66, 2), (104, 0.52, 1.6), (118, 0.36, 1)]),
    ("S2", "LAD", 44, 0.08, [(48, 0.5, -4.5), (28, 0.44, -4.5), (10, 0.38, -4.5)]),
    ("D2", "LAD", 56, 0.26, [(80, 0.42, 1.8), (94, 0.3, 1.4), (104, 0.18, 1)]),
    ("S3", "LAD", 70, 0.08, [(44, 0.28, -4), (22, 0.23, -4), (0, 0.19, -4)]),
    ("OM1", "LCx", 26, 0.4, [(146, 0.84, 2), (150, 0.6, 1.6), (152, 0.4, 1.2), (148, 0.24, 1)]),
    ("OM2", "LCx", 48, 0.4, [(186, 0.84, 2), (188, 0.62, 1.5), (190, 0.42, 1.2), (192, 0.26, 1)]),
    ("PDA S1", "PDA", 16, 0.1, [(-46, 0.78, -5), (-28, 0.7, -5)]),
    ("PDA S2", "PDA", 42, 0.12, [(-46, 0.5, -4.5), (-26, 0.44, -4.5)]),
    ("PL1", "PL", 28, 0.35, [(-94, 0.86, 1.8), (-96, 0.64, 1.4), (-98, 0.42, 1)]),
)
# Vessels that end in twigs: name, how far apart in angle (degrees) and the ends' height change.
_ENDS = {
    "LAD": ((58, 0.02), (-62, 0.14), (178, 0.14)),
    "LCx": ((214, 0.72), (232, 0.7)),
    "D1": ((108, 0.26), (132, 0.3)),
    "D2": ((94, 0.08), (124, 0.1)),
    "OM1": ((134, 0.12), (162, 0.1)),
    "OM2": ((178, 0.14), (206, 0.14)),
    "PDA": ((-52, 0.08), (-84, 0.1)),
    "PL": ((-124, 0.5), (-146, 0.52)),
    "PL1": ((-86, 0.26), (-112, 0.26)),
}
# Side twigs: parent, arc (mm), end angle, end height.
_SIDES = (
    ("LAD", 36, 78, 0.56),
    ("LAD", 82, 72, 0.1),
    ("D1", 14, 112, 0.7),
    ("D1", 30, 94, 0.4),
    ("LCx", 14, 112, 0.84),
    ("LCx", 38, 166, 0.78),
    ("LCx", 62, 204, 0.78),
    ("OM1", 24, 132, 0.62),
    ("OM1", 40, 168, 0.5),
    ("OM2", 26, 172, 0.64),
    ("OM2", 42, 208, 0.44),
    ("PDA", 28, -78, 0.62),
    ("PDA", 56, -80, 0.34),
    ("PL1", 18, -80, 0.8),
    ("PL1", 34, -112, 0.56),
    ("PL", 44, -112, 0.76),
    ("PL", 58, -148, 0.78),
)
_SIDE_SHARE = 0.1
_TWIG_DEPTH_MM = -4.0


def demo_tree(lv: EllipsoidLV) -> VascularNetwork:
    """An average right-dominant coronary tree on the epicardium of an ellipsoid.

    Left main, LAD with three septals and two diagonals, LCx with two marginals, RCA with PDA
    (and two septals of its own) and posterolateral branches, each ending in short twigs that dip
    into the wall. Two roots: the left main and the RCA.

    **Returns:** a [`jaxperf.network.VascularNetwork`][] without lesions, in the ellipsoid's
    "model" frame, m. Twigs are named after the vessel they leave (`D1 twig 2`).

    **Source:** Dodge et al. (1992), Circulation 86:232 for the diameters; Huo and Kassab (2012),
    J. R. Soc. Interface 9:190 for the exponent.
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
        ),
        Course("LCx", _on_surface(lv, _LCX), "LM", diameter_mm=DODGE_MM["LCx proximal"]),
        Course("RCA", _right_groove(lv, crux), diameter_mm=DODGE_MM["RCA proximal"], end_mm=3.0),
        Course("PDA", _on_surface(lv, _PDA), "RCA", share=0.48),
        Course("PL", _on_surface(lv, _PL), "RCA", share=0.52),
    ]
    for name, parent, at, share, waypoint in _BRANCHES:
        origin = _origin(lv, courses, parent, at)
        courses.append(Course(name, _on_surface(lv, [origin, *waypoint]), parent, at, share=share))
    return network_from_courses(
        [*courses, *_twigs(lv, courses)], frame="model", where="built-in tree"
    )


def _surface(lv: EllipsoidLV):
    """From angle (degrees), height and distance (mm) to positions."""

    def position(coordinate: Float[np.ndarray, "p 3"]) -> Float[np.ndarray, "p 3"]:
        return np.concatenate(
            [
                lv.epicardium(np.radians(angle), height, outside * M_PER_MM)[None]
                for angle, height, outside in coordinate
            ]
        )

    return position


def _on_surface(lv: EllipsoidLV, waypoint) -> Float[np.ndarray, "p 3"]:
    return smooth_course(np.array(waypoint, np.float64), _surface(lv))


def _coordinate(lv: EllipsoidLV, point: Float[np.ndarray, "3"]) -> tuple[float, float, float]:
    """Angle, height and distance of a point near the epicardium (the distance to 0.1 mm)."""
    distance = float(lv.outside_distance(point[None])[0])
    unit = point / (lv.epi + distance)
    base = np.arccos(-lv.base_height / float(lv.epi[2]))
    height = float(np.arccos(np.clip(-unit[2], -1.0, 1.0)) / base)
    return float(np.degrees(np.arctan2(unit[1], unit[0]))), height, distance / M_PER_MM


def _origin(lv: EllipsoidLV, courses, parent: str, at_mm: float) -> tuple[float, float, float]:
    course = next(c for c in courses if c.name == parent)
    step = np.linalg.norm(np.diff(course.point, axis=0), axis=1)
    arc = np.concatenate([[0.0], np.cumsum(step)])
    at = min(at_mm * M_PER_MM, float(arc[-1]))
    return _coordinate(lv, np.array([np.interp(at, arc, course.point[:, k]) for k in range(3)]))


def _near(angle: float, reference: float) -> float:
    """The angle plus the multiple of 360° that brings it nearest to the reference."""
    return angle + 360.0 * np.round((reference - angle) / 360.0)


def _twigs(lv: EllipsoidLV, courses) -> list[Course]:
    """Short vessels from the ends and sides of the drawn ones into the wall."""
    count: dict[str, int] = {}
    wanted = [(p, np.inf, a, h, 1.0 / len(e)) for p, e in _ENDS.items() for a, h in e]
    wanted += [(p, at, a, h, _SIDE_SHARE) for p, at, a, h in _SIDES]
    twigs = []
    for parent, at, angle, height, share in wanted:
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
        twigs.append(Course(name, _surface(lv)(pressed), parent, at, share=share))
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
