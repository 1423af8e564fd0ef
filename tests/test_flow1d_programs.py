"""How many programs a first transient solve compiles, in a process of its own."""

import subprocess
import sys

_RUN = """
import jax

jax.config.update("jax_enable_x64", True)
names = []

def heard(event, seconds, **known):
    if event == "/jax/core/compile/backend_compile_duration":
        names.append(known.get("fun_name", "?"))

jax.monitoring.register_event_duration_secs_listener(heard)

import numpy as np
import jaxperf as jp

network = jp.build_network(
    0.02 * np.eye(6, 3) + np.arange(6)[:, None] * 0.01,
    np.array([(0, 1), (1, 2), (2, 3), (2, 4), (1, 5)]),
    np.linspace(1e-3, 2e-3, 10).reshape(5, 2),
    root=np.array([0]),
    frame="model",
)
time = np.linspace(0.0, 1.0, 21)[:-1]
pressure = jp.Waveform(time, (1.2e4 + 2e3 * np.sin(2 * np.pi * time))[None], 1.0)
node, resistance, reference = jax.device_put((np.array([0]), np.full(3, 2e10), np.full(3, 2e3)))
boundary = (
    jp.PressureWaveform(node, pressure),
    jp.ResistanceOutlet(network.terminals, resistance, reference),
)
problem = jp.flow1d_problem(
    network, boundary, jp.Blood(), jp.SqrtAreaWall(jp.OlufsenStiffness(), 1e4), cell_time=2e-3
)
points = jp.SavePoints([0, 2], [0.5, 0.5])
jp.solve_periodic(problem, points=points, samples=2)
print(len(names))
jp.solve_flow1d(problem, points=points, samples=2)
print(len(names), names)
"""


def test_a_first_solve_compiles_two_programs():
    """The wave speed, from which the grid follows on the host, and the solve."""
    done = subprocess.run([sys.executable, "-c", _RUN], check=True, capture_output=True, text=True)
    periodic, both = done.stdout.splitlines()
    assert int(periodic) == 2, done.stdout
    assert int(both.split(maxsplit=1)[0]) == 3, done.stdout
