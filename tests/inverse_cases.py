"""Inverse problems small enough to have an answer by other means."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxperf.inverse import (
    GaussianNoise,
    Identity,
    InverseProblem,
    Log,
    Measurement,
    Normal,
    Parameter,
    PlainModel,
)

TIME = np.linspace(0.0, 1.0, 20)


def whole(output):
    """Everything the model returns is observed."""
    return output


class Matrix(eqx.Module):
    """A linear model."""

    matrix: jax.Array

    def __call__(self, values):
        return self.matrix.astype(values["x"].dtype) @ values["x"]


def linear_problem(n=12, p=4, seed=0, dtype=np.float64):
    """A linear model with correlated noise, and what a posterior follows from: A, m, S, C, y."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((n, p))
    median, sd = rng.standard_normal(p), rng.uniform(0.5, 2.0, p)
    root = 0.3 * np.eye(n) + 0.05 * rng.standard_normal((n, n))
    covariance = root @ root.T
    value = matrix @ (median + sd * rng.standard_normal(p)) + root @ rng.standard_normal(n)
    problem = InverseProblem(
        PlainModel(Matrix(jnp.asarray(matrix, dtype))),
        [Parameter("x", Normal(median, sd), Identity())],
        [Measurement("y", whole, value.astype(dtype), GaussianNoise(covariance=covariance))],
    )
    return problem, (matrix, median, sd, covariance, value)


def exact(given):
    """Mean and covariance of x in a linear problem, from the normal equations in x."""
    matrix, median, sd, covariance, value = given
    weight = np.linalg.inv(covariance)
    posterior = np.linalg.inv(matrix.T @ weight @ matrix + np.diag(sd**-2.0))
    return posterior @ (matrix.T @ weight @ value + median / sd**2), posterior


def decay(values):
    return values["amplitude"] * jnp.exp(-values["rate"] * TIME)


def decay_problem(seed=0, sd=0.02, value=None):
    """An exponential decay, both parameters positive."""
    noise = np.random.default_rng(seed).standard_normal(len(TIME))
    value = 1.5 * np.exp(-3.0 * TIME) + sd * noise if value is None else value
    return InverseProblem(
        PlainModel(decay),
        [
            Parameter("amplitude", Normal(1.0, 0.5), Log()),
            Parameter("rate", Normal(2.0, 0.7), Log()),
        ],
        [Measurement("signal", whole, value, GaussianNoise(sd=sd))],
    )


def curved(values):
    x = values["x"]
    return jnp.stack([x[0], x[1] - x[0] ** 2])


def banana_problem(sd=0.15):
    """Sharp along a parabola, wide along it (Rosenbrock's valley with a prior)."""
    return InverseProblem(
        PlainModel(curved),
        [Parameter("x", Normal(0.0, np.array([1.0, 3.0])))],
        [Measurement("y", whole, np.array([0.0, 0.5]), GaussianNoise(sd=np.array([3.0, sd])))],
    )


def squared(values):
    x = values["x"]
    return jnp.stack([x[0] ** 2 + 0.15 * x[0], x[1] + 0.3 * x[0]])


def two_mode_problem():
    """Two modes of unequal weight, as x0² is measured."""
    return InverseProblem(
        PlainModel(squared),
        [Parameter("x", Normal(0.0, 1.0), shape=(2,))],
        [Measurement("y", whole, np.array([1.0, 0.2]), GaussianNoise(sd=np.array([0.25, 0.4])))],
    )


def grid_posterior(problem, reach=5.0, n=801):
    """Weights on a grid of two coordinates, by the density itself: (n²,) and ξ (n², 2)."""
    line = jnp.linspace(-reach, reach, n, dtype=problem.dtype)
    xi = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.asarray(jax.vmap(problem.log_density)(xi))
    weight = np.exp(density - density.max())
    return weight / weight.sum(), np.asarray(xi)
