"""What the processor can do at best: `python -m benchmarks._flow1d_limits`.

Run as a process of its own that is bound to one core before JAX starts, so that every limit is
one thread's.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ._report import seconds

CAN_BIND = hasattr(os, "sched_setaffinity")
_REPOSITORY = Path(__file__).resolve().parents[1]
# Entries of a chain (in the first-level cache), its links, and repetitions.
_CHAIN, _LINKS, _REPEAT = 1024, 16, 200
_TRIES = 15
# Bytes of the triad's two arrays: about as much as the solver touches in a step, and far beyond
# any cache.
_TRIAD = {"cache": 1.5e6, "memory": 256e6}
_LOOPS = {"cache": 50, "memory": 2}
_ROOTS = ("sqrt", "rsqrt", "pow", "exp", "log", "cbrt")


@dataclass(frozen=True)
class Limits:
    """Seconds for one division, root, and multiplication with addition; bytes/s of a triad."""

    division: float
    root: float
    multiply_add: float
    triple: float
    cache: float
    memory: float


def measured_limits() -> Limits:
    """The limits, from a process bound to one core."""
    return Limits(**on_one_core("benchmarks._flow1d_limits"))


def on_one_core(module: str, *arguments: str) -> dict[str, Any]:
    """What a module prints last, as JSON, run as a process that calls `bind_to_one_core`."""
    found = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=_REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(found.stdout.splitlines()[-1])


def bind_to_one_core() -> None:
    """Before JAX starts, so that it has one thread; `CAN_BIND` says whether the system can."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    jax.config.update("jax_enable_x64", True)


def _chain(link) -> float:
    """Seconds for one link of a chain in which every link needs the one before."""

    @jax.jit
    def run(x, a):
        def body(_, x):
            for _ in range(_LINKS):
                x = link(x, a)
            return x

        return jax.lax.fori_loop(0, _REPEAT, body, x)

    x = jnp.linspace(1.0, 2.0, _CHAIN)
    a = jnp.linspace(1.1, 1.2, _CHAIN)
    return _fastest(lambda: run(x, a)) / (_CHAIN * _LINKS * _REPEAT)


def triad(bytes_: float, loops: int) -> float:
    """Bytes per second of a ← b + s a, two numbers read and one written in place."""
    n = int(bytes_ / 16)

    @jax.jit
    def run(a, b):
        return jax.lax.fori_loop(0, loops, lambda _, a: b + 0.5 * a, a)

    a, b = (jnp.linspace(k, k + 1.0, n) for k in range(2))
    return 24.0 * n * loops / _fastest(lambda: run(a, b))


def _fastest(run) -> float:
    """The least wall time of a few calls: others on the machine can only add to it."""
    return min(seconds(run, repeat=1, warm_up=int(k == 0)) for k in range(_TRIES))


def main() -> None:
    bind_to_one_core()
    found = Limits(
        # with an addition: a/(a/x) would be simplified away
        division=_chain(lambda x, a: a / (x + a)),
        root=_chain(lambda x, a: jnp.sqrt(x)),
        multiply_add=_chain(lambda x, a: x * a + a),
        triple=_chain(lambda x, a: jnp.sqrt(a * x / (x + a))),
        **{name: triad(size, _LOOPS[name]) for name, size in _TRIAD.items()},
    )
    print(json.dumps(vars(found)))


# ---------------------------------------------------------------- what a step asks for


@dataclass(frozen=True)
class Work:
    """What a step asks for: divisions, roots, other operations of arithmetic, bytes of arrays."""

    divisions: int
    roots: int
    others: int
    bytes: int

    def arithmetic_seconds(self, limits: Limits) -> float:
        # A multiplication and an addition go together at best.
        pairs = 0.5 * self.others * limits.multiply_add
        return self.divisions * limits.division + self.roots * limits.root + pairs


def work_of_step(step, equations, y) -> Work:
    """Count the arithmetic in a step's own equations, and the bytes it must read and write.

    Bytes: for each of two stages the tables and the state once, and the state written.
    """
    counted = count_operations(jax.make_jaxpr(step)(equations, y).jaxpr)
    size = lambda tree: sum(x.nbytes for x in jax.tree.leaves(eqx.filter(tree, eqx.is_array)))
    return Work(*counted, bytes=2 * (size(equations) + 2 * size(y)))


_PLAIN = ("add", "sub", "mul", "neg", "max", "min", "integer_pow", "abs")


def count_operations(jaxpr: Any) -> np.ndarray:
    """Divisions, roots and other floating-point operations, with those of inner programs."""
    total = np.zeros(3, np.int64)
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        inner = [v for v in equation.params.values() if hasattr(v, "eqns") or hasattr(v, "jaxpr")]
        inner += [b for v in equation.params.values() if isinstance(v, tuple) for b in v]
        for program in inner:
            program = getattr(program, "jaxpr", program)
            if hasattr(program, "eqns"):
                total += equation.params.get("length", 1) * count_operations(program)
        if not jnp.issubdtype(equation.outvars[0].aval.dtype, jnp.floating):
            continue
        n = int(np.prod(equation.outvars[0].aval.shape))
        kind = 0 if name == "div" else 1 if name in _ROOTS else 2 if name in _PLAIN else None
        if kind is not None:
            total[kind] += n
    return total


if __name__ == "__main__":
    main()
