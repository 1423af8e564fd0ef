"""Where the septum is, from the vessels in its two grooves."""

import numpy as np
from jaxtyping import Float

from .._misc import InputError
from ..geometry import LVFrame
from ..network import VascularNetwork, vessel_of_name

# Heights, as shares of the way from apex to base, at which the vessels lie in the grooves: above,
# they leave the aorta or the crux, below, they may go round the apex.
_LOW, _HIGH = 0.3, 0.9
# Length that a vessel must have there (m), and the arcs of a septum (degrees).
_LEAST_COURSE = 10e-3
_ARC_DEG = (70.0, 200.0)
# From the anterior groove to the septum's middle: segments 1 and 2 meet in the groove, and segments
# 2 and 3, of 60° each, in the middle.
_HALF_ARC_DEG = 60.0


def septum_from_grooves(
    tree: VascularNetwork, frame: LVFrame, *, where: str = "septum"
) -> tuple[Float[np.ndarray, "3"], str]:
    """The direction of the septum's middle from the vessels that run in the two grooves.

    The middle lies between the LAD, in the anterior groove, and the PDA, in the posterior one. With
    the LAD alone it is 60° from it, because the anterior groove parts AHA segment 1 from 2.

    **Arguments:**

    - `tree`: with a branch called LAD, and PDA where there is one; in the ventricle's coordinates.
    - `frame`: gives apex, base and long axis; its septum is not looked at.
    - `where`: what errors name.

    **Returns:**

    The unit vector, perpendicular to the long axis, and the names of the branches used.

    **Errors:** [`InputError`][] for a tree without an LAD beside the ventricle, and for grooves
    that are no septum apart.

    **Source:** Cerqueira et al. (2002), Circulation 105:539, for the segments at the grooves.
    """
    anterior = _groove(tree, frame, "LAD")
    if anterior is None:
        raise InputError(
            "nothing says where the septum is: the labels have no RV, and the tree no LAD beside "
            "the ventricle",
            where=where,
            expected="an RV cavity among the labels, `rv_centre` by hand, or a branch LAD",
            fix="Name the label of the RV, or name the branch that is the LAD",
        )
    posterior = _groove(tree, frame, "PDA")
    half, used = np.radians(_HALF_ARC_DEG), anterior[1]
    if posterior is not None:
        arc = float(np.mod(anterior[0] - posterior[0], 2.0 * np.pi))
        used = f"{used} and {posterior[1]}"
        if not _ARC_DEG[0] <= np.degrees(arc) <= _ARC_DEG[1]:
            raise InputError(
                f"from {posterior[1]} to {anterior[1]} it is {np.degrees(arc):.0f}° about the long "
                "axis by way of the septum",
                where=where,
                expected=f"{_ARC_DEG[0]:g} to {_ARC_DEG[1]:g}°",
                fix="Check the frame of the tree and the names of the two branches, or give "
                "`rv_centre` by hand",
            )
        half = 0.5 * arc
    angle = anterior[0] - half
    return np.cos(angle) * frame.septal + np.sin(angle) * frame.anterior, used


def _groove(tree: VascularNetwork, frame: LVFrame, vessel: str) -> tuple[float, str] | None:
    """The mean angle (rad) of a branch beside the ventricle, and its name."""
    for i, name in enumerate(tree.branch_name):
        if vessel_of_name(name) != vessel:
            continue
        end = np.asarray(tree.node_position, np.float64)[np.asarray(tree.segment_node)]
        end = end[np.asarray(tree.branch) == i]
        middle, length = end.mean(axis=1), np.linalg.norm(end[:, 1] - end[:, 0], axis=1)
        height = frame.height(middle) / frame.length
        beside = (height > _LOW) & (height < _HIGH)
        if length[beside].sum() >= _LEAST_COURSE:
            turn = length[beside] @ np.exp(1j * frame.angle(middle[beside]))
            return float(np.angle(turn)), name
    return None
