"""Fit a function of one's own, with a posterior: flow from the washout of a tracer in tissue."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.inverse import (
    check_laplace,
    fit,
    InverseProblem,
    laplace,
    Log,
    LogNormalNoise,
    Measurement,
    Normal,
    Parameter,
    PlainModel,
)

time_min = np.linspace(0.1, 3.0, 15)


def washout(values):
    return values["height"] * jnp.exp(-values["flow"] / 0.9 * time_min)  # partition: 0.9 ml/g


measured = np.exp(-2.1 / 0.9 * time_min + 0.1 * np.random.default_rng(0).standard_normal(15))
parameters = [
    Parameter("height", Normal(1.0, 0.5), Log()),
    Parameter("flow", Normal(1.0, 1.0), Log()),
]
curve = Measurement("activity", lambda activity: activity, measured, LogNormalNoise(sd=0.1))
found = fit(InverseProblem(PlainModel(washout), parameters, [curve]))
flow = laplace(found).interval(lambda values, activity: values["flow"], 0.9, Log())
print(f"flow {flow.median:.2f} ({flow.low:.2f} to {flow.high:.2f}) ml/min/g, {found.solves} solves")
print(check_laplace(found, jax.random.key(0)).words)
