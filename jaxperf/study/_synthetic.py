"""Measurements of a heart whose truth is known: to show a fit, and to judge one."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..casefile import FitSection, Wire
from ..inverse import InverseProblem, Measurement
from ..observe import Observations
from ._fit import heart_problem
from ._measured import heart_measurements, Measured
from ._prepare import Prepared
from ._solve import Solved


@dataclass(frozen=True)
class Truth:
    """A heart with known values, and what it is like.

    **Attributes:** `prepared` and `said`, its case and the section `fit`; `problem`, of all states;
    `xi`, its coordinates; `values`, by name; `seen`, what is observed of it.
    """

    prepared: Prepared
    said: FitSection
    problem: InverseProblem
    xi: Float[Array, " p"]
    values: dict[str, Array]
    seen: Observations


def synthetic_truth(
    prepared: Prepared,
    solved: Solved,
    said: FitSection,
    *,
    wires: Sequence[Wire] = (),
    states: Sequence[str] = ("rest", "hyperemia"),
    xi: Float[Array, " p"] | None = None,
    key: PRNGKeyArray | None = None,
) -> Truth:
    """A heart whose unknowns are drawn from the prior, or given.

    **Arguments:** `wires`, places whose ratio does not matter yet; `states` that are scanned; `xi`,
    coordinates in place of a draw with `key`.
    """
    blank = Measured({state: np.ones(17) for state in states}, tuple(wires))
    _, wider = heart_problem(prepared, solved, said, blank)
    if xi is None:
        xi = wider.sample_prior(jax.random.key(0) if key is None else key)
    seen, _ = wider.solve(xi)
    return Truth(prepared, said, wider, xi, wider.values(xi), seen)


def synthetic_measurement(
    truth: Truth, wires: Sequence[Wire], key: PRNGKeyArray | None
) -> Measured:
    """What a scan and wires measure of it.

    **Arguments:** `wires`, those of the truth; `key`, of the noise; None for none.
    """
    exact = _measured(truth.problem.measurements, truth.seen, wires, None)
    if key is None:
        return exact
    # the noise of a tracer is that at the flow it meets
    n_cells = truth.problem.model.segment.shape[0]
    measurements = heart_measurements(truth.prepared, truth.said, exact, n_cells)
    return _measured(measurements, truth.seen, wires, key)


def _measured(
    measurements: Sequence[Measurement],
    seen: Observations,
    wires: Sequence[Wire],
    key: PRNGKeyArray | None,
) -> Measured:
    data = {m.name: m.predicted(seen) for m in measurements}
    if key is not None:
        keys = jax.random.split(key, len(data))
        for k, m in zip(keys, measurements, strict=True):
            data[m.name] = m.noise.sample(k, data[m.name])
    pet = next(m for m in measurements if m.name == "PET").observe
    flow = np.asarray(data["PET"]) - float(pet.floor_ml_min_g)
    mbf = dict(zip(pet.states, np.maximum(flow, 0.0).reshape(-1, 17), strict=True))
    ratio = np.minimum(np.asarray(data.get("wires", np.zeros(0))), 1.02).tolist()
    read = [w.model_copy(update={"ratio": r}) for w, r in zip(wires, ratio, strict=True)]
    return Measured(mbf, tuple(read))
