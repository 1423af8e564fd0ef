"""Demand, reserve and a lesion of a heart, fitted to a PET scan and a pressure wire.

The scan is synthetic: one made of the same heart with values drawn from the prior, and noise.
"""

import jax
import numpy as np

from jaxperf import enable_compilation_cache, Progress
from jaxperf.casefile import Case, FitSection, Wire
from jaxperf.jobs import demo_case
from jaxperf.study import (
    fit_heart,
    prepare_case,
    solve_case,
    synthetic_measurement,
    synthetic_truth,
)

jax.config.update("jax_enable_x64", True)
enable_compilation_cache()
case = Case.model_validate({**demo_case(spacing_mm=5.0).model_dump(), "growth": None})
heart = prepare_case(case, ".", Progress())
solved = solve_case(heart, Progress())
asked = FitSection.model_validate(
    {"demand": {"by": "territory"}, "reserve": {"by": "territory"}, "starts": 2}
)
wire = Wire(branch="LAD", at_mm=30.0, ratio=0.8, sd=0.02, state="hyperemia")
truth = synthetic_truth(heart, solved, asked, wires=[wire], key=jax.random.key(16))
measured = synthetic_measurement(truth, [wire], jax.random.key(1))

found = fit_heart(heart, solved, asked, measured)
for name, value in found.fit.values.items():
    print(f"{name}: {np.round(value, 2)} where the truth has {np.round(truth.values[name], 2)}")
flow = found.posterior.interval(lambda values, seen: 6e4 * seen.mbf_segment["hyperemia"], 0.8)
print(f"apex {flow.median[16]:.2f} ({flow.low[16]:.2f} to {flow.high[16]:.2f}) ml/min/g")
for said in found.diagnosis:
    print(f"{said.name}: {said.label}, {said.probability[said.label]:.2f}. {said.evidence}")
