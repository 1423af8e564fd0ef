"""Where pictures of a heart are taken from."""

import numpy as np
from jaxtyping import Float

from ..geometry import LVFrame


def views(frame: LVFrame) -> list[tuple[str, np.ndarray]]:
    """Rows right, up, towards the viewer; the long axis is up."""
    up = frame.long_axis

    def seen_from(direction: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
        towards = direction / np.linalg.norm(direction)
        return np.stack([np.cross(up, towards), up, towards])

    return [
        ("anterior", seen_from(frame.anterior + 0.35 * frame.septal)),
        ("lateral", seen_from(-frame.septal)),
        ("inferior", seen_from(-frame.anterior + 0.2 * frame.septal)),
    ]
