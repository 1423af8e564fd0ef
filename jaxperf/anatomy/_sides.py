"""On which side of the left ventricle a branch runs, and on which its name says that it does."""

import numpy as np

from .._misc import InputError
from ..geometry import LVFrame
from ..network import branch_course, VascularNetwork, vessel_of_name

# Mean angles (degrees) about the long axis, 0 septal and 90 anterior: the demo tree, the composite
# case and drawn left-dominant trees have the LAD at 64 to 65, the LCx at 143 to 183, the RCA at 0
# to -6.
_SIDE = {
    "LAD": (65.0, "along the anterior interventricular groove"),
    "LCx": (170.0, "along the left atrioventricular groove, on the lateral side"),
    "RCA": (-10.0, "along the right atrioventricular groove"),
}
# A branch this far from its own side, and nearer to another's, is called wrongly; what is shorter
# has not reached its groove.
_ASTRAY_DEG, _SHORTEST = 60.0, 0.02


def branches_astray(network: VascularNetwork, frame: LVFrame) -> dict[str, str]:
    """Branches called LAD, LCx or RCA that run where another of the three does.

    **Arguments:** `frame`, of the ventricle, in the network's coordinates.

    **Returns:** for each such branch, a sentence.

    **Example:**

    ```python
    import jaxperf as jp
    _, frame, lv = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    assert not jp.anatomy.branches_astray(jp.anatomy.demo_tree(lv), frame)
    ```
    """
    found = {}
    for name in network.branch_name:
        own = vessel_of_name(name)
        # the distal part of an artery may go round the apex or to the other side
        if own not in _SIDE or "dist" in name.lower():
            continue
        angle = _mean_angle(network, name, frame)
        if angle is None:
            continue
        away = {key: abs((angle - at + 180.0) % 360.0 - 180.0) for key, (at, _) in _SIDE.items()}
        other = min(away, key=lambda key: away[key])
        if other != own and away[own] > _ASTRAY_DEG:
            found[name] = (
                f"it runs {_SIDE[other][1]}, where the {other} does, and not {_SIDE[own][1]} "
                f"(its mean angle about the long axis is {angle:.0f}°, 0 septal and 90 anterior)"
            )
    return found


def _mean_angle(network: VascularNetwork, branch: str, frame: LVFrame) -> float | None:
    """The mean angle (degrees) about the long axis; None of a branch that is short or divides."""
    try:
        course, _ = branch_course(network, branch)
    except InputError:
        return None
    length = np.asarray(network.length)[course]
    if length.sum() < _SHORTEST:
        return None
    node = np.asarray(network.segment_node)[course]
    middle = np.asarray(network.node_position)[node].mean(axis=1)
    return float(np.degrees(np.angle((length * np.exp(1j * frame.angle(middle))).sum())))
