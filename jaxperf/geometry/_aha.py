"""The 17 segments of the American Heart Association."""

import numpy as np
from jaxtyping import Float, Int

from ._frame import LVFrame
from ._mesh import check_finite

AHA17_NAME: tuple[str, ...] = (
    "basal anterior",
    "basal anteroseptal",
    "basal inferoseptal",
    "basal inferior",
    "basal inferolateral",
    "basal anterolateral",
    "mid anterior",
    "mid anteroseptal",
    "mid inferoseptal",
    "mid inferior",
    "mid inferolateral",
    "mid anterolateral",
    "apical anterior",
    "apical septal",
    "apical inferior",
    "apical lateral",
    "apex",
)


def aha17(point: Float[np.ndarray, "n 3"], frame: LVFrame) -> Int[np.ndarray, " n"]:
    """AHA segment of each point, 1 to 17.

    The long axis from the cavity's tip to the base centre is cut in thirds (basal 1–6, mid 7–12,
    apical 13–16); 17 is below the cavity's tip. With θ = 0 towards the septum and 90° anterior the
    basal and mid sectors are 60° wide, anterior at 60°–120°, so that the septal direction divides
    anteroseptal from inferoseptal; the apical ones are 90° wide, anterior at 45°–135°.

    **Arguments:**

    - `point`: (n, 3), m, in the frame's coordinates; names follow `AHA17_NAME[segment - 1]`.
    - `frame`: the ventricle's directions.

    **Returns:**

    (n,), segment 1 … 17. Points above the base plane count as basal.

    **Source:** Cerqueira et al. (2002), Circulation 105:539. The sectors start from the RV
    centroid and not from the insertion points of the right ventricle.

    **Example:**

    ```python
    import jaxperf as jp
    mesh, frame, _ = jp.geometry.ellipsoid_ventricle(spacing_mm=5.0)
    segment = jp.geometry.aha17(mesh.centre, frame)
    ```
    """
    check_finite(point, "the points", "aha17")
    height = frame.height(point) / frame.length
    degree = np.degrees(frame.angle(point))
    sixth = np.mod(np.floor((120.0 - degree) / 60.0), 6.0).astype(np.int64)
    quarter = np.mod(np.floor((135.0 - degree) / 90.0), 4.0).astype(np.int64)
    segment = np.where(height >= 2.0 / 3.0, 1 + sixth, 7 + sixth)
    segment = np.where(height >= 1.0 / 3.0, segment, 13 + quarter)
    return np.where(height >= 0.0, segment, 17)
