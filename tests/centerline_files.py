"""Files of centrelines that tests write and read."""

import numpy as np
import pyvista

from jaxperf.io import read_centerlines

MISR = "MaximumInscribedSphereRadius"


def polydata(lines, radius, name=MISR):
    """Lines with points of their own; `radius` is a number or a function of the points."""
    point = np.concatenate(lines)
    start = np.cumsum([0, *(len(x) for x in lines)])
    cells = [[len(x), *range(a, a + len(x))] for x, a in zip(lines, start[:-1], strict=True)]
    data = pyvista.PolyData(point, lines=np.concatenate(cells))
    data[name] = radius(point) if callable(radius) else np.full(len(point), float(radius))
    return data


def read(tmp_path, data, **options):
    path = tmp_path / "lines.vtp"
    data.save(path)
    return read_centerlines(path, **{"units": "mm", "frame": "LPS", **options})


def sampled(corners, step=1.0):
    corners = np.array(corners, np.float64)
    arc = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(corners, axis=0), axis=1))])
    at = np.append(np.arange(0, arc[-1], step), arc[-1])
    return np.stack([np.interp(at, arc, corners[:, k]) for k in range(3)], axis=1)


def length_mm(network):
    return 1e3 * float(np.asarray(network.length).sum())


Y = {
    "stem": sampled([[0, 0, 0], [30, 0, 0]]),
    "a": sampled([[30, 0, 0], [60, 20, 0]]),
    "b": sampled([[30, 0, 0], [60, -20, 0]]),
}
Y_MM = 30 + 2 * np.hypot(30, 20)
