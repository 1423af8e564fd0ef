"""One job in a process of its own, and what it cost: the child of the benchmark `startup`.

`python -m benchmarks._startup_probe REPORT JOB…` runs a job, arguments of the command line or
`periodic`, and writes to REPORT what it compiled.
"""

import json
import sys
import time
from collections import Counter
from pathlib import Path


def _count_programs() -> Counter:
    """Counts that fill while JAX compiles: programs asked for, and those of them found on disk.

    JAX counts a miss where it writes one. A program that it refuses to write would be none.
    """
    import jax

    count: Counter = Counter(programs=0, hits=0)

    def event(name: str, **_) -> None:
        count["hits"] += name == "/jax/compilation_cache/cache_hits"

    def duration(name: str, seconds: float, **_) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            count["programs"] += 1

    jax.monitoring.register_event_listener(event)
    jax.monitoring.register_event_duration_secs_listener(duration)
    return count


def _command_line(arguments: list[str]) -> None:
    from jaxperf.cli import app

    app(arguments, standalone_mode=False)


def _periodic() -> None:
    """A first periodic flow in five segments: inlet, two forks, three outlets."""
    import jax
    import numpy as np

    import jaxperf as jp

    jax.config.update("jax_enable_x64", True)
    jp.enable_compilation_cache()
    node = 1e-3 * np.array(
        [[0, 0, 0], [20, 0, 0], [50, 15, 0], [50, -15, 0], [80, 30, 0], [80, 5, 0]], float
    )
    ends = np.array([[0, 1], [1, 2], [1, 3], [2, 4], [2, 5]])
    radius = 1e-3 * np.array([2.2, 2.0, 1.6, 1.5, 1.2, 1.2])
    network = jp.build_network(node, ends, radius, root=np.array([0]), frame="model")
    time_s = np.linspace(0.0, 0.8, 41)[:-1]
    beat = 12e3 + 2e3 * np.sin(2 * np.pi * time_s / 0.8)
    inlet = jp.PressureWaveform(np.array([0]), jp.Waveform(time_s, beat[None], 0.8))
    outlet = np.array([3, 4, 5])
    same = lambda value: np.full(3, value)
    beds = jp.WindkesselOutlet(outlet, same(1e9), same(6e9), same(5e-12), same(2e3))
    problem = jp.flow1d_problem(
        network,
        (inlet, beds),
        jp.Blood(),
        jp.SqrtAreaWall(jp.OlufsenStiffness(2e6, -2253.0, 8.65e4), 1.2e4),
        cell_time=1e-3,
    )
    points = jp.SavePoints(np.array([0]), np.array([0.5]))
    jax.block_until_ready(jp.solve_periodic(problem, points=points, samples=20).flow)


def _time_renders(spent: dict[str, float]) -> None:
    """Add up the processor time of the pictures that a job renders."""
    from jaxperf.plot import _scene

    render = _scene.render

    def timed(*arguments, **options):
        begin = time.process_time()
        picture = render(*arguments, **options)
        spent["renders"] += 1
        spent["render_cpu_seconds"] += time.process_time() - begin
        return picture

    _scene.render = timed


def main() -> int:
    report, job = Path(sys.argv[1]), sys.argv[2:]
    count = _count_programs()
    spent = {"renders": 0, "render_cpu_seconds": 0.0}
    _time_renders(spent)
    _periodic() if job == ["periodic"] else _command_line(job)
    misses = count["programs"] - count["hits"]
    said = {"cpu_seconds": time.process_time(), "misses": misses, **count, **spent}
    report.write_text(json.dumps(said), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
