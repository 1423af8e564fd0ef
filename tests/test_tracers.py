"""Tracers beside scipy's root finder and closed forms; the noise of scans beside its samples."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from coupled_cases import ML_MIN_G, small_wall
from helpers import central_difference
from scipy.optimize import brentq

from jaxperf import InputError
from jaxperf.observe import (
    Ammonia13N,
    coronary_flow_reserve,
    pet_flow,
    pet_segments,
    PETNoise,
    Rubidium82,
    Water15O,
)

TRACERS = {
    "water": (Water15O(), 0.0, 1.0),
    "rubidium": (Rubidium82(), 0.77, 0.63),
    "ammonia": (Ammonia13N(), 0.0, 1.0),
    "retention": (Ammonia13N("retention"), 0.607, 1.25),
    "steep": (Rubidium82(a=0.95, b=2.0), 0.95, 2.0),
}
FLOW = np.array([1e-3, 0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 40.0])


def renkin_crone(flow, a, b):
    return flow * (1.0 - a * np.exp(-b / flow))


@pytest.fixture(params=TRACERS)
def law(request):
    return TRACERS[request.param]


class TestTracers:
    def test_uptake_and_the_flow_read_back(self, law):
        tracer, a, b = law
        uptake = renkin_crone(FLOW, a, b)
        np.testing.assert_allclose(tracer.uptake(jnp.asarray(FLOW)), uptake, rtol=1e-14)
        np.testing.assert_allclose(tracer.flow(jnp.asarray(uptake)), FLOW, rtol=1e-13)
        given = np.array([0.2, 0.9, 1.7])
        root = [
            brentq(lambda f, k=k: renkin_crone(f, a, b) - k, 1e-3, 1e3, xtol=1e-13, rtol=1e-14)
            for k in given
        ]
        np.testing.assert_allclose(tracer.flow(jnp.asarray(given)), root, rtol=1e-12)

    def test_first_and_second_derivatives(self, law):
        tracer, a, b = law
        flow = jnp.asarray(FLOW)
        x = b / FLOW
        slope = 1.0 - a * np.exp(-x) * (1.0 + x)
        each = lambda f: jax.vmap(jax.grad(f))
        np.testing.assert_allclose(each(tracer.uptake)(flow), slope, rtol=1e-12)
        uptake = tracer.uptake(flow)
        found = each(tracer.flow)(uptake)
        np.testing.assert_allclose(found, 1.0 / slope, rtol=1e-12)
        rise, fall = (tracer.flow(uptake * (1.0 + s)) for s in (1e-5, -1e-5))
        np.testing.assert_allclose(found, (rise - fall) / (2e-5 * uptake), rtol=1e-8)
        # d²F/dK² = −K''/K'³ with K'' = −a x² e^−x / F
        bend = a * x**2 * np.exp(-x) / FLOW / slope**3
        np.testing.assert_allclose(
            each(jax.grad(tracer.flow))(uptake), bend, rtol=1e-10, atol=1e-13
        )

    def test_derivatives_in_the_constants(self):
        def loss(constants):
            return jnp.sum(Rubidium82(a=constants[0], b=constants[1]).flow(jnp.array([0.5, 1.2])))

        at = jnp.array([0.77, 0.63])
        expected = central_difference(loss, at, 1e-6)
        np.testing.assert_allclose(jax.jit(jax.grad(loss))(at), expected, rtol=1e-8)

    def test_where_flow_vanishes(self, law):
        tracer, *_ = law
        for dtype in (jnp.float64, jnp.float32):
            flow = jnp.asarray([-0.5, 0.0, 1e-37, 1e-6], dtype)
            for function in (tracer.uptake, eqx.filter_jit(tracer.flow)):
                found = function(flow)
                assert found.dtype == dtype
                np.testing.assert_array_equal(found, flow)
            gain = tracer.noise_gain(flow)
            assert gain.dtype == dtype
            np.testing.assert_array_equal(gain, 1.0)
            for function in (tracer.uptake, tracer.flow):
                np.testing.assert_array_equal(jax.vmap(jax.grad(function))(flow), 1.0)

    def test_float32(self, law):
        tracer, a, b = law
        uptake = jnp.asarray(renkin_crone(FLOW, a, b), jnp.float32)
        flow = tracer.flow(uptake)
        assert flow.dtype == jnp.float32
        np.testing.assert_allclose(flow, FLOW, rtol=1e-5)

    def test_noise_gain_is_the_logarithmic_derivative(self, law):
        tracer, a, b = law
        step = 1e-5
        rise = np.log(renkin_crone(FLOW * np.exp(step), a, b))
        fall = np.log(renkin_crone(FLOW * np.exp(-step), a, b))
        gain = tracer.noise_gain(jnp.asarray(FLOW))
        np.testing.assert_allclose(gain, 2.0 * step / (rise - fall), rtol=1e-8)

    def test_published_values(self):
        gain = Rubidium82().noise_gain(jnp.array([0.5, 1.0, 3.0]))
        np.testing.assert_allclose(gain, [1.54, 1.78, 1.53], atol=0.006)
        # Schelbert's dogs at control flow, some 80 ml/min/100 g: an extraction of 0.82 ± 0.06
        extraction = Ammonia13N("retention").uptake(jnp.array([0.8])) / 0.8
        assert abs(float(extraction[0]) - 0.82) < 0.06

    def test_bad_values(self):
        with pytest.raises(InputError, match=r"1 of 3 uptakes are negative, the least -0\.1"):
            Rubidium82().flow(jnp.array([0.5, -0.1, jnp.nan]))
        assert jnp.isnan(Rubidium82().flow(jnp.array([jnp.nan]))).all()
        with pytest.raises(InputError, match="the model is 'two_tissue'"):
            Ammonia13N("two_tissue")
        for a, b in ((1.0, 0.63), (-0.1, 0.63), (0.77, 0.0)):
            with pytest.raises(InputError, match="Rubidium82: a is"):
                Rubidium82(a=a, b=b)


class TestPetFlow:
    @pytest.fixture(scope="class")
    @classmethod
    def scan(cls):
        mesh = small_wall(5.0)
        half = 1 + (mesh.centre[:, 0] > 0.0).astype(np.int64)
        see = pet_segments(mesh, half, fwhm_mm=7.0, n_segments=3)
        return see, np.random.default_rng(0).uniform(0.3, 4.0, mesh.n_cells)

    def test_water_is_the_operator(self, scan):
        see, flow = scan
        mbf = jnp.asarray(flow * ML_MIN_G)
        np.testing.assert_allclose(pet_flow(see, mbf, Water15O()), see(mbf), rtol=1e-13)

    def test_uptake_is_blurred_and_not_flow(self, scan):
        see, flow = scan
        found = pet_flow(see, jnp.asarray(flow * ML_MIN_G), Rubidium82())
        uptake = np.asarray(see.matrix) @ renkin_crone(flow, 0.77, 0.63)
        root = [
            brentq(lambda f, k=k: renkin_crone(f, 0.77, 0.63) - k, 1e-3, 99) for k in uptake[:2]
        ]
        np.testing.assert_allclose(found[:2] / ML_MIN_G, root, rtol=1e-10)
        assert np.isnan(found[2])
        # concave uptake: a mean of what is uneven is read as less flow
        assert (np.asarray(found)[:2] < np.asarray(see(jnp.asarray(flow * ML_MIN_G)))[:2]).all()

    def test_gradient(self, scan):
        see, flow = scan
        weight = jnp.array([1.0, -2.0, 0.0])

        def loss(flow):
            seen = pet_flow(see, flow * ML_MIN_G, Rubidium82()) / ML_MIN_G
            return jnp.nansum(weight * seen)

        found = jax.jit(jax.grad(loss))(jnp.asarray(flow))
        slope = lambda f: 1.0 - 0.77 * np.exp(-0.63 / f) * (1.0 + 0.63 / f)
        seen = np.asarray(pet_flow(see, jnp.asarray(flow * ML_MIN_G), Rubidium82()))[:2] / ML_MIN_G
        by_hand = (np.asarray(weight)[:2] / slope(seen)) @ np.asarray(see.matrix)[:2] * slope(flow)
        np.testing.assert_allclose(found, by_hand, rtol=1e-10)
        chosen = np.random.default_rng(1).standard_normal(flow.size)
        step = 1e-5
        up, down = (float(loss(jnp.asarray(flow + s * step * chosen))) for s in (1.0, -1.0))
        assert float(np.vdot(found, chosen)) == pytest.approx((up - down) / (2 * step), rel=1e-7)


class TestNoise:
    noise = PETNoise(segment=0.15, scan=0.07, shared=0.06, floor_ml_min_g=0.1)

    def test_covariance_by_hand(self):
        found = self.noise.covariance(2, 3)
        for i in range(6):
            for j in range(6):
                expected = 0.06**2 + 0.07**2 * (i // 3 == j // 3) + 0.15**2 * (i == j)
                assert float(found[i, j]) == pytest.approx(expected, rel=1e-14)

    def test_whitening_is_the_root_of_the_inverse(self):
        basis = jnp.eye(10).reshape(10, 2, 5)
        whiten = np.asarray(jax.vmap(self.noise.whiten)(basis)).reshape(10, 10)
        covariance = np.asarray(self.noise.covariance(2, 5))
        np.testing.assert_allclose(whiten, whiten.T, atol=1e-13)
        np.testing.assert_allclose(whiten @ covariance @ whiten.T, np.eye(10), atol=1e-12)

    def test_samples_have_the_covariance(self):
        n = 40_000
        truth = ML_MIN_G * jnp.array([[1.0, 0.8, 0.0], [3.0, 2.0, 0.5]])
        keys = jax.random.split(jax.random.key(0), n)
        samples = jax.jit(jax.vmap(lambda k: self.noise.sample(k, truth)))(keys)
        residual = np.asarray(self.noise.log(samples) - self.noise.log(truth)[None]).reshape(n, 6)
        covariance = np.asarray(self.noise.covariance(2, 3))
        # standard error of a covariance of normal numbers
        variance = np.diag(covariance)
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / n)
        assert (np.abs(np.cov(residual.T) - covariance) < 5.0 * error).all()
        assert (np.abs(residual.mean(axis=0)) < 5.0 * np.sqrt(variance / n)).all()
        white = jax.vmap(self.noise.whiten)(jnp.asarray(residual.reshape(n, 2, 3)))
        assert np.abs(np.cov(np.asarray(white).reshape(n, 6).T) - np.eye(6)).max() < 0.04

    def test_the_patients_part_cancels_in_the_flow_reserve(self):
        alone = PETNoise(segment=1e-12, scan=0.0, shared=0.3, floor_ml_min_g=0.0)
        truth = ML_MIN_G * jnp.array([[1.0, 0.8], [3.0, 2.0]])
        rest, hyperemia = alone.sample(jax.random.key(1), truth)
        assert abs(float(rest[0] / truth[0, 0]) - 1.0) > 0.01
        reserve = coronary_flow_reserve(rest, hyperemia)
        np.testing.assert_allclose(reserve, [3.0, 2.5], rtol=1e-10)
        # and in the covariance of the reserve's logarithm
        contrast = np.concatenate([-np.eye(3), np.eye(3)], axis=1)
        spread = contrast @ np.asarray(self.noise.covariance(2, 3)) @ contrast.T
        expected = 2.0 * (0.15**2 * np.eye(3) + 0.07**2)
        np.testing.assert_allclose(spread, expected, atol=1e-15)

    def test_near_zero_a_value_counts_by_its_difference(self):
        at = ML_MIN_G * jnp.array([0.0, 0.01])
        small = self.noise.log(at)[1] - self.noise.log(at)[0]
        assert float(small) == pytest.approx(np.log(1.1), rel=1e-12)
        slope = jax.grad(lambda f: self.noise.log(f))(jnp.asarray(0.0))
        assert float(slope) == pytest.approx(1.0 / (0.1 * ML_MIN_G), rel=1e-12)

    def test_float32_and_bad_values(self):
        truth = (ML_MIN_G * jnp.ones((2, 3))).astype(jnp.float32)
        sample = self.noise.sample(jax.random.key(0), truth)
        assert sample.dtype == self.noise.whiten(self.noise.log(sample)).dtype == jnp.float32
        for name, value in (("segment", 0.0), ("scan", -0.1), ("floor_ml_min_g", np.inf)):
            with pytest.raises(InputError, match=f"{name} is {value}"):
                PETNoise(**{name: value})
