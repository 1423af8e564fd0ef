"""What growth is compared with: the classical algorithm in plain NumPy, and svVascularize.

svVascularize is no dependency: it is measured where the environment variable JAXPERF_SVV_PYTHON
names an interpreter that can import it (`pip install svv svv-accelerated` in an environment of its
own; it pins other versions).
"""

import json
import os
import subprocess
import time
from pathlib import Path

import numpy as np

_CANDIDATES = 20
_WEISZFELD = 12
SVV_PYTHON = "JAXPERF_SVV_PYTHON"
_SVV_TIMEOUT = 900


def classical_growth(
    site: np.ndarray, root: np.ndarray, terminal_radius: float, exponent: float
) -> tuple[float, np.ndarray, np.ndarray]:
    """Constrained constructive optimisation of one tree, one site after the other, in plain NumPy.

    Each new site is joined to each of the nearest vessels in turn, the bifurcation lies where the
    volume of the three vessels is least (Weiszfeld's iteration), and the connection that adds the
    least volume stays. Every vessel is compared for nearness, no wall and no collision is tested,
    and radii are updated along the way to the root.

    **Arguments:** `site` (n, 3), `root` (3,), m.

    **Returns:** the seconds it took, and position and parent of the nodes.

    **Source:** W. Schreiner, P. Buxbaum (1993), IEEE Trans. Biomed. Eng. 40:482; R. Karch et al.
    (1999), Comput. Biol. Med. 29:19.
    """
    begin = time.perf_counter()
    position = np.empty((2 * len(site), 3))
    parent, count = np.empty(2 * len(site), np.int64), np.zeros(2 * len(site), np.int64)
    radius = lambda n: terminal_radius * n ** (1.0 / exponent)
    position[0], parent[0], count[0], used = site[0], -1, 1, 1
    above = lambda k: position[parent[k]] if parent[k] >= 0 else root
    for new in site[1:]:
        tail = np.where((parent[:used] >= 0)[:, None], position[parent[:used]], root)
        near = np.argsort(_distance(new, tail, position[:used]), kind="stable")[:_CANDIDATES]
        best, best_cost, best_at = -1, np.inf, new
        for k in near.tolist():
            ends = np.stack([above(k), position[k], new])
            weight = radius(np.array([count[k] + 1, count[k], 1])) ** 2
            at = _least_volume(ends, weight)
            lengths = np.linalg.norm(ends - at, axis=1)
            cost = weight @ lengths - weight[1] * np.linalg.norm(ends[0] - ends[1])
            way = parent[k]
            while way >= 0:
                wider = radius(count[way] + 1) ** 2 - radius(count[way]) ** 2
                cost += wider * np.linalg.norm(position[way] - above(way))
                way = parent[way]
            if cost < best_cost:
                best, best_cost, best_at = k, cost, at
        # the bifurcation takes a new node; the old vessel ends where it did
        middle, leaf = used, used + 1
        position[middle], position[leaf] = best_at, new
        parent[middle], parent[leaf], parent[best] = parent[best], middle, middle
        count[middle], count[leaf] = count[best] + 1, 1
        way = parent[middle]
        while way >= 0:
            count[way] += 1
            way = parent[way]
        used += 2
    return time.perf_counter() - begin, position[:used], parent[:used]


def _distance(point, a, b) -> np.ndarray:
    way = b - a
    square = np.einsum("ij,ij->i", way, way)
    t = np.clip(np.einsum("ij,ij->i", point - a, way) / np.maximum(square, 1e-300), 0.0, 1.0)
    return np.linalg.norm(a + t[:, None] * way - point, axis=1)


def _least_volume(ends, weight) -> np.ndarray:
    """The point of least weighted distance from three others."""
    at = weight @ ends / weight.sum()
    for _ in range(_WEISZFELD):
        pull = weight / np.maximum(np.linalg.norm(ends - at, axis=1), 1e-9)
        at = pull @ ends / pull.sum()
    return at


_SVV = """
import json, sys, time, warnings
warnings.filterwarnings("ignore")
import pyvista, svv
from svv.domain.domain import Domain
from svv.tree.tree import Tree
surface, n = pyvista.read(sys.argv[1]).extract_surface().triangulate(), int(sys.argv[2])
begin = time.perf_counter()
domain = Domain(surface.decimate(max(0.0, 1.0 - 2500 / surface.n_points)))
domain.set_random_seed(0)
domain.create()
domain.solve()
domain.build()
tree = Tree()
tree.set_domain(domain)
tree.set_root()
ready = time.perf_counter()
tree.n_add(n)
done = time.perf_counter()
said = {"version": svv.__version__, "setup": ready - begin, "grow": done - ready}
print("RESULT " + json.dumps(said))
"""


def svv_growth(surface: Path, n_terminals: int) -> dict | None:
    """Seconds svVascularize takes for one tree in a closed surface; None where it is not there.

    A run that fails is no figure: its last words are returned under `failed`.
    """
    python = os.environ.get(SVV_PYTHON)
    if python is None:
        return None
    command = [python, "-c", _SVV, os.fspath(surface), str(n_terminals)]
    environment = {**os.environ, "SVV_TELEMETRY_DISABLED": "1", "PYTHONWARNINGS": "ignore"}
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_SVV_TIMEOUT
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"failed": str(error)}
    said = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode or not said:
        return {"failed": (done.stderr.strip().splitlines() or ["no answer"])[-1]}
    return json.loads(said[-1].removeprefix("RESULT "))
