"""What a measurement cannot tell, and which further one would: a lesion and a tired bed.

A narrowed artery feeds a bed in hyperemia. Flow alone does not say whether the lesion is severe or
the bed dilates little; a pressure wire does.
"""

import jax.numpy as jnp
import numpy as np

from jaxperf.inverse import (
    fit,
    GaussianNoise,
    identify,
    Interval,
    InverseProblem,
    laplace,
    Log,
    LogNormalNoise,
    Measurement,
    misfit,
    Normal,
    Parameter,
    PlainModel,
    shrinkage,
)


def artery(values):
    """Flow q and FFR of k q² + q/g = 1: pressures in units of the aortic one."""
    loss = 4e-3 / (1.0 - values["severity"]) ** 4
    bed = values["reserve"]
    flow = (jnp.sqrt(1.0 + 4.0 * loss * bed**2) - 1.0) / (2.0 * loss * bed)
    return {"flow": flow, "ffr": flow / bed}


severity = Parameter("severity", Normal(0.5, 1.0), Interval(0.0, 0.95))
reserve = Parameter("reserve", Normal(3.5, 0.3), Log())
pet = Measurement("PET", lambda out: out["flow"][None], np.array([1.9]), LogNormalNoise(sd=0.1))
found = fit(InverseProblem(PlainModel(artery), [severity, reserve], [pet]), starts=6)

values = found.values
print(f"severity {values['severity']:.2f}, flow without lesion {values['reserve']:.2f} ml/min/g")
for sentence in identify(found).blind:
    print(sentence)
print(misfit(found).words)

posterior = laplace(found)
ffr = lambda values, output: output["ffr"]
bounds = posterior.interval(ffr, 0.9, Interval(0.0, 1.0))
print(f"FFR {bounds.median:.2f} ({bounds.low:.2f} to {bounds.high:.2f})")
wire = Measurement("FFR", lambda out: out["ffr"][None], np.array([0.8]), GaussianNoise(sd=0.02))
change = shrinkage(posterior, wire, ffr)
print(f"A wire would narrow the sd of FFR from {change.quantity_before:.3f}", end=" ")
print(f"to {change.quantity_after:.3f}.")
