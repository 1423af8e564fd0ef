"""The pieces of the forest benchmark: anatomies, timed growth, the audit, the solve on the result.

`python -m benchmarks._grown ANATOMY N EXPONENT OUT …` grows one forest in a process of its own.
"""

import argparse
import contextlib
import dataclasses
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from jaxperf._progress import Progress
from jaxperf.casefile import Case
from jaxperf.coupling import PerfusionSolution, solve_perfusion
from jaxperf.geometry import aha17, transmural_depth, VoxelMesh
from jaxperf.growth import Forest, grow_forest, GrowthProblem, join_forest, load_forest, save_forest
from jaxperf.jobs import demo_case
from jaxperf.network import parent_segment, VascularNetwork
from jaxperf.study import (
    build_heart,
    growth_problem,
    healthy_tree,
    Heart,
    prepare_case,
    Prepared,
    solve_case,
    Solved,
)
from jaxperf.units import M3_S_KG_PER_ML_MIN_G, M_PER_MM

from ._composite import changed, composite_file
from ._measure import witness

ANATOMIES = ("composite", "demo")
_REPOSITORY = Path(__file__).resolve().parents[1]
_PATIENCE = 600.0
# Growth takes seconds, and a killed one must have got past its first checkpoint.
_BETWEEN_CHECKPOINTS = 0.1


@dataclass(frozen=True)
class Anatomy:
    """What a forest grows in: a lesion-free case, its tree, its wall in voxels."""

    name: str
    data: Path
    coarsen: int
    case: Case
    heart: Heart
    tree: VascularNetwork
    mesh: VoxelMesh
    depth: np.ndarray
    segment: np.ndarray

    def problem(self, n_terminals: int, exponent: float, seed: int = 0) -> GrowthProblem:
        return growth_problem(
            with_forest(self.case, n_terminals, exponent, seed), self.tree, self.heart, self.depth
        )


def with_forest(case: Case, n_terminals: int, exponent: float, seed: int = 0, file=None) -> Case:
    growth = {"n_terminals": n_terminals, "exponent": exponent, "seed": seed, "file": file}
    return changed(case, growth=growth)


@contextmanager
def anatomy(name: str, data: Path, coarsen: int = 1) -> Iterator[Anatomy]:
    """The composite or the demonstration, for as long as the block."""
    with contextlib.ExitStack() as stack:
        if name == "composite":
            case = stack.enter_context(composite_file(data, coarsen))
        else:
            case = changed(demo_case(), lesions=[])
        heart = build_heart(case, data)
        assert isinstance(heart.mesh, VoxelMesh)
        depth = transmural_depth(
            heart.mesh, heart.frame, cavity_label=heart.cavity_label, rv_label=heart.rv_label
        )
        tree, segment = healthy_tree(case, data, heart), aha17(heart.mesh.centre, heart.frame)
        yield Anatomy(name, data, coarsen, case, heart, tree, heart.mesh, depth, segment)


# ---------------------------------------------------------------- growing


@dataclass
class Clock:
    """When how many terminals were in place."""

    begin: float
    at: list[float]
    done: list[int]
    end: float = 0.0

    @property
    def per_second(self) -> float:
        """Terminals per second from the first sign of progress to the finished forest."""
        return (self.done[-1] - self.done[0]) / (self.end - self.at[0])

    @property
    def setup(self) -> float:
        """Seconds before the first terminal."""
        return self.at[0] - self.begin - self.done[0] / self.per_second

    def late_over_mid(self) -> float:
        """Seconds per terminal of the last tenth over those of the tenth about the middle."""
        done, at = np.array(self.done, float), np.array(self.at)
        when = lambda share: np.interp(share * done[-1], done, at)
        middle = when(0.55) - when(0.45)
        return float((when(1.0) - when(0.9)) / middle) if middle > 0 else float("nan")


def grow(problem: GrowthProblem, checkpoint: Path | None = None, say=None) -> tuple[Forest, Clock]:
    """Grow a forest and take the time."""
    clock = Clock(time.perf_counter(), [], [])

    def progress(done: int, total: int) -> None:
        clock.at.append(time.perf_counter())
        clock.done.append(done)
        if say is not None:
            say(done, total)

    forest = grow_forest(
        problem,
        checkpoint=checkpoint,
        checkpoint_seconds=_BETWEEN_CHECKPOINTS,
        progress=progress,
    )
    clock.end = time.perf_counter()
    return forest, clock


def same_forest(a: Forest, b: Forest) -> bool:
    """Whether two forests are the same bit for bit; the seconds they took may differ."""
    fields = [f.name for f in dataclasses.fields(a) if f.name != "settings"]
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in fields)


# ---------------------------------------------------------------- processes of their own


def _child(at: Anatomy, n: int, exponent: float, out: Path, checkpoint: Path | None):
    command = [sys.executable, "-m", "benchmarks._grown", at.name, str(n), repr(exponent), str(out)]
    command += ["--data", str(at.data.absolute()), "--coarsen", str(at.coarsen)]
    command += ["--checkpoint", str(checkpoint)] if checkpoint else []
    return subprocess.Popen(command, cwd=_REPOSITORY, stdout=subprocess.PIPE, text=True)


def _lines(process: subprocess.Popen) -> Iterator[list[str]]:
    assert process.stdout is not None
    for line in process.stdout:
        yield line.split()


def _finished(process: subprocess.Popen) -> dict[str, list[str]]:
    """The last line of every kind a child says; its progress is the first one."""
    said: dict[str, list[str]] = {}
    for word, *values in _lines(process):
        if word != "PROGRESS" or word not in said:
            said[word] = values
    if process.wait(_PATIENCE):
        raise ChildProcessError(f"the growing process ended with {process.returncode}")
    return said


@dataclass(frozen=True)
class Killed:
    """A growth that was killed: where, where the next process went on, and what became of it."""

    at: int
    resumed_at: int
    forest: Forest


def killed_and_resumed(at: Anatomy, n: int, exponent: float, share: float = 0.4) -> Killed:
    """Kill a growing process, start another one on its checkpoint, and read what that one grows."""
    with tempfile.TemporaryDirectory() as folder:
        out, checkpoint = Path(folder) / "forest.npz", Path(folder) / "checkpoint.npz"
        process, reached = _child(at, n, exponent, out, checkpoint), 0
        for word, *values in _lines(process):
            if word == "PROGRESS":
                reached = int(values[0])
                if reached >= share * n and checkpoint.is_file():
                    process.send_signal(signal.SIGKILL)
                    break
        process.wait(_PATIENCE)
        if out.is_file():
            raise ChildProcessError("the process finished before it could be killed")
        said = _finished(_child(at, n, exponent, out, checkpoint))
        return Killed(reached, int(said["PROGRESS"][0]), load_forest(out))


def grown_elsewhere(at: Anatomy, n: int, exponent: float) -> Forest:
    """The forest that another process grows."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "forest.npz"
        _finished(_child(at, n, exponent, out, None))
        return load_forest(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Grow one forest.")
    parser.add_argument("anatomy", choices=ANATOMIES)
    parser.add_argument("n_terminals", type=int)
    parser.add_argument("exponent", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--coarsen", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path)
    asked = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    say = lambda *words: print(*words, flush=True)
    with anatomy(asked.anatomy, asked.data, asked.coarsen) as at:
        problem = at.problem(asked.n_terminals, asked.exponent)
        forest, clock = grow(
            problem, asked.checkpoint, lambda done, total: say("PROGRESS", done, total)
        )
    save_forest(asked.out, forest)
    say("SECONDS", clock.end - clock.begin)


# ---------------------------------------------------------------- the audit


def audited(at: Anatomy, n_terminals: int, exponent: float, forest: Forest) -> dict:
    """What the independent audit finds, and how far the targets could be kept."""
    audit = witness("forest_audit")
    raw = audit.raw_forest(forest, at.tree, at.mesh)
    faults = audit.faults(raw, n_terminals)
    overlap, out = audit.overlaps(raw), audit.outside(raw)
    leaf = audit.terminals(raw.parent)
    territory = audit.territory_volumes(raw)
    density = audit.segment_density(
        raw.position[leaf], at.mesh.centre, at.mesh.volume, at.segment
    ).values()
    stub = raw.length[raw.stage == audit.STUB] / M_PER_MM
    taken = np.bincount(forest.tree[leaf], minlength=forest.n_trees) / n_terminals
    deviation = np.abs(forest.root_projected / forest.root_share - 1.0)
    return {
        "faults": "; ".join(faults),
        "n_terminals": len(leaf),
        "trees": forest.n_trees,
        "overlaps": len(overlap.other) + len(overlap.fixed),
        "overlaps_stub_fixed": len(overlap.stub_fixed),
        "second_neighbours": len(overlap.second) / len(raw.parent),
        "outside_axis": out.share("axis"),
        "outside_surface": out.share("surface"),
        "murray_error": audit.murray_error(raw, exponent),
        "calibre_error": audit.calibre_error(raw, exponent),
        "volume_ml": audit.volume(raw) * 1e6,
        "volume_error": abs(_own_volume(forest, at.tree) / audit.volume(raw) - 1.0),
        "territory_cv": audit.variation(territory),
        "territory_empty": int(np.sum(territory == 0)),
        "aha_lowest": min(density),
        "aha_highest": max(density),
        "trees_within_5_percent": float(
            np.mean(np.abs(taken / forest.root_projected - 1.0) <= 0.05)
        ),
        "worst_tree": float(np.abs(taken / forest.root_projected - 1.0).max()),
        "projection_median": float(np.median(deviation)),
        "projection_largest": float(deviation.max()),
        "stub_median_mm": float(np.median(stub)),
        "stub_longest_mm": float(stub.max()),
        "terminal_diameter_um": float(2e6 * np.median(raw.radius[leaf])),
    }


def _own_volume(forest: Forest, tree: VascularNetwork) -> float:
    """The volume of the vessels as the joined network has them."""
    network = join_forest(tree, forest)
    radius = np.asarray(network.radius)[tree.n_segments :]
    length = np.asarray(network.length)[tree.n_segments :]
    return float(np.sum(np.pi * radius[:, 0] * radius[:, 1] * length))


# ---------------------------------------------------------------- the coupled solve


@dataclass(frozen=True)
class SolvedForest:
    """A solved case with a forest, and rest with every dilation at one."""

    prepared: Prepared
    solved: Solved
    unregulated: PerfusionSolution


def solve_on(at: Anatomy, n: int, exponent: float, forest: Forest) -> SolvedForest:
    """Calibrate and solve the case as `jaxperf run` does, on the forest from its file."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "forest.npz"
        save_forest(file, forest)
        case = with_forest(at.case, n, exponent, file=str(file))
        progress = Progress()
        prepared = prepare_case(case, at.data, progress)
    assert prepared.grown is not None and same_forest(prepared.grown.forest, forest)
    solved = solve_case(prepared, progress)
    bare = eqx.tree_at(lambda p: p.microcirculation, prepared.problem, solved.calibration.rest)
    return SolvedForest(prepared, solved, solve_perfusion(bare))


def flow_split(found: SolvedForest, solution: PerfusionSolution) -> list[dict]:
    """Share of the flow by vessel territory, beside the unprojected and the projected target."""
    grown = found.prepared.grown
    assert grown is not None
    forest, lines = grown.forest, []
    flow = np.asarray(solution.terminal_flow)
    for k, name in enumerate(forest.territory_name):
        terminal = found.prepared.terminal_territory == found.prepared.territory_name.index(name)
        root = forest.root_territory == k
        share, target = flow[terminal].sum() / flow.sum(), forest.root_share[root].sum()
        lines.append(
            {
                "territory": name,
                "share": float(share),
                "target": float(target),
                "projected": float(forest.root_projected[root].sum()),
                "error": float(share / target - 1.0),
            }
        )
    return lines


def trees_within(found: SolvedForest, solution: PerfusionSolution, tolerance=0.05) -> float:
    """Share of the trees whose solved flow lies within a tolerance of their projected target."""
    grown = found.prepared.grown
    assert grown is not None
    forest = grown.forest
    leaf = np.asarray(found.prepared.problem.tissue.terminal_node) - grown.tree.n_nodes
    flow = np.bincount(forest.tree[leaf], np.asarray(solution.terminal_flow), forest.n_trees)
    miss = np.abs(flow / flow.sum() / forest.root_projected - 1.0)
    return float(np.mean(miss <= tolerance))


def pressure_shares(found: SolvedForest, solution: PerfusionSolution) -> dict[str, float]:
    """Parts of the fall of pressure from inlet to sink, as means over the terminals by flow."""
    prepared = found.prepared
    grown = prepared.grown
    assert grown is not None
    node = np.asarray(prepared.network.segment_node)
    into, pressure = parent_segment(prepared.network), np.asarray(solution.pressure_total)
    inlet = np.arange(prepared.network.n_nodes)
    while np.any(into[inlet] >= 0):
        inlet = np.where(into[inlet] >= 0, node[into[inlet], 0], inlet)
    forest = grown.forest
    leaf = np.asarray(prepared.problem.tissue.terminal_node)
    tree = forest.tree[leaf - grown.tree.n_nodes]
    flow = np.asarray(solution.terminal_flow)
    sink = float(prepared.problem.microcirculation.pressure_sink)
    fall = {
        "segmented": pressure[inlet[leaf]] - pressure[forest.root_node[tree]],
        "forest": pressure[forest.root_node[tree]] - pressure[leaf],
        "tissue": pressure[leaf] - sink,
    }
    total = flow @ (pressure[inlet[leaf]] - sink)
    return {name: float(flow @ value / total) for name, value in fall.items()}


def mean_mbf(found: SolvedForest, solution: PerfusionSolution) -> float:
    """Mean blood flow of the wall, ml/min/g."""
    tissue = found.prepared.problem.tissue
    mass = float(tissue.density) * float(np.sum(np.asarray(tissue.volume)))
    return float(np.sum(np.asarray(solution.terminal_flow))) / mass / M3_S_KG_PER_ML_MIN_G


if __name__ == "__main__":
    main()
